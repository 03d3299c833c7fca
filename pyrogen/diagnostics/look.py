"""What the checks of :func:`pyrogen.diagnostics.advise` look at."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pyrogen.bayes.inputs import as_tensor
from pyrogen.events import EventSample
from pyrogen.posterior.posterior import Posterior


class NotCheckedError(Exception):
    """A check that cannot be made, and why."""


@dataclass
class Look:
    """A posterior, and what is known of its events.

    Attributes:
        posterior: of any backend.
        sample: events ``[N, d]`` of the distribution that it learned, or None.
        support: where events can be.
        generated: number of events to generate.
        draws: weight draws of predictions.
        context: conditions ``[N, k]`` of the events, or None.
        seed: seeds everything drawn.
    """

    posterior: Posterior
    sample: EventSample | None
    support: Any
    generated: int
    draws: int | None
    context: Tensor | None
    seed: int

    @cached_property
    def events(self) -> Tensor | None:
        """The values of the events ``[N, d]`` in float64, or None."""
        return None if self.sample is None else as_tensor(self.sample.values, torch.float64)

    @cached_property
    def own_events(self) -> Tensor:
        """Events ``[n, d]`` that the posterior generates, in float64; with conditions those of the first n events."""
        context = None if self.context is None else self.context[: self.generated]
        n = self.generated if context is None else len(context)
        draws = self.posterior.weights.count(self.draws)
        return self.posterior.sample(n, draws, context=context, seed=self.seed).double().cpu()

    @cached_property
    def not_finite(self) -> Tensor:
        """Which numbers of the generated events are NaN or infinite, but for objects that are not there, ``[n, d]``."""
        layout, finite = self.posterior.model.multiplicity, self.own_events.isfinite()
        return ~finite if layout is None else finite != layout.exists(self.own_events)

    def need_finite(self) -> None:
        """Check that the generated events can be looked at.

        Raises:
            NotCheckedError: they hold NaN or infinity, which is a finding of its own, or their number of columns
                varies.
        """
        if self.posterior.model.multiplicity is not None:
            raise NotCheckedError("the events have a varying number of objects")
        if self.not_finite.any():
            raise NotCheckedError("generated events are NaN or infinite")

    @property
    def crowded(self) -> bool:
        """Whether there are more weights than events, which a mean-field guide does not stand.

        With ``kl_weight=T`` every event counts 1/T times.
        """
        info, weights = self.posterior.info, self.posterior.weights
        weight = info.settings.get("kl_weight", 1.0)
        return weights.independent and info.size is not None and weight * weights.size > info.size
