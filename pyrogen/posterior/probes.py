"""Densities at a few training events, by which a file knows whether a flow is the one that it was trained with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pyrogen.bayes.evaluation import CHECKED, first_difference
from pyrogen.bayes.model import BayesianFlow
from pyrogen.posterior.weights import WeightPosterior

DRAWS = 2


@dataclass(frozen=True)
class Probes:
    """Some of the training events.

    Attributes:
        events: ``[n, d]``.
        context: their conditions ``[n, k]``, or None.
    """

    events: Tensor
    context: Tensor | None = None

    @classmethod
    def of(cls, events: Tensor, context: Tensor | None = None) -> Probes:
        """The first of the events ``[N, d]`` (of many samples ``[R, N, d]``: of the first one)."""
        events = events.reshape(-1, events.shape[-1])[:CHECKED].cpu()
        return cls(events.clone(), None if context is None else context[:CHECKED].cpu().clone())

    def log_prob(self, model: BayesianFlow, weights: WeightPosterior) -> Tensor:
        """Log densities ``[draws, n]`` of the first weight draws."""
        events, context = self.events.to(model.device), None if self.context is None else self.context.to(model.device)
        with torch.no_grad():
            draws = weights.draws(weights.at_most(DRAWS), 0)
            return torch.stack([model.log_prob(theta, events, context) for theta in draws]).cpu()

    def arrays(self, model: BayesianFlow, weights: WeightPosterior) -> dict[str, Tensor]:
        """What a file holds: the events, and what the model says of them."""
        found = {"events": self.events, "log_prob": self.log_prob(model, weights)}
        return found | ({} if self.context is None else {"context": self.context})

    @classmethod
    def checked(cls, arrays: Mapping[str, Tensor], model: BayesianFlow, weights: WeightPosterior) -> Probes | None:
        """The events of a file, after checking that the model says of them what it said; None where there are none.

        Raises:
            ValueError: it does not.
        """
        if not arrays:
            return None
        probes = cls(arrays["events"], arrays.get("context"))
        found, expected = probes.log_prob(model, weights), arrays["log_prob"]
        row = first_difference(expected, found) if found.shape == expected.shape else 0
        if row is None:
            return probes
        before, now = (values.reshape(-1, values.shape[-1])[0, row] for values in (expected, found))
        raise ValueError(
            f"the flow has another density than the one that was saved: log p at training event {row} is {now:.6g}, "
            f"and was {before:.6g}. Its parameters and buffers are those of the file, so something else decides its "
            "density: a plain attribute, or its code. Build the flow as it was for the training, or make what differs "
            "a buffer"
        )
