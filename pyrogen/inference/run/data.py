"""What a backend is given to learn from: events, weights and context, checked before any work is done."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrogen.bayes.inputs import as_tensor, check_context
from pyrogen.bayes.model import BayesianFlow
from pyrogen.events import EventSample, EventsLike, check_events, check_weights


@dataclass(frozen=True)
class TrainingData:
    """Checked training events.

    Attributes:
        events: ``[N, d]``.
        weights: event weights ``[N]`` in units of their mean absolute value, or None.
        context: conditions ``[N, k]`` or None.
        names, units: column names and units, where the events had them.
        digest: SHA-256 of all numbers, by which a checkpoint knows its data.
    """

    events: Tensor
    weights: Tensor | None
    context: Tensor | None
    names: tuple[str, ...] | None
    units: tuple[str, ...] | None
    digest: str

    @classmethod
    def check(
        cls, model: BayesianFlow, events: Any, weights: Any, context: Any, dtype: torch.dtype, device: str
    ) -> TrainingData:
        """Check everything that a user can get wrong, with errors that say what, where and what would be right.

        Raises:
            ValueError: NaN or infinite events, wrong shapes, an empty sample, weights of wrong length or without a
                positive sum, a context that does not fit the flow.
        """
        names = units = None
        if isinstance(events, EventSample):
            names, units = events.names, events.units
            weights = events.weights if weights is None else weights
            events = events.values
        check_events(events, model.features)
        n = len(events)
        if weights is not None:
            check_weights(weights, n)
            # Only ratios of weights matter; in these units their squares fit into a float32.
            weights = as_tensor(weights, torch.float64)
            weights = weights / weights.abs().mean()
            effective = float(weights.sum() ** 2 / weights.square().sum())
            if effective < 1:
                raise ValueError(
                    f"the weights have an effective sample size (sum w)^2 / sum w^2 of {effective:.3g}: positive and "
                    "negative weights cancel almost completely, and nothing is left to learn from"
                )
        check_context(context, model.context, n)
        tensors = {
            name: as_tensor(value, dtype, device)
            for name, value in (("events", events), ("weights", weights), ("context", context))
            if value is not None
        }
        for name in ("events", "context"):
            if name in tensors:  # a float32 may overflow where a float64 did not
                check_events(tensors[name], what=f"{name} in {dtype}")
        digest = hashlib.sha256()
        for name, tensor in tensors.items():
            digest.update(f"{name} {list(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return cls(tensors["events"], tensors.get("weights"), tensors.get("context"), names, units, digest.hexdigest())


def prepare(
    model: BayesianFlow, events: EventsLike, weights: Any, context: Any, dtype: torch.dtype | None, device: str
) -> tuple[BayesianFlow, TrainingData]:
    """The model prepared for checked data.

    Raises:
        ValueError: events, weights or context that cannot be learned from.
    """
    data = TrainingData.check(model, events, weights, context, dtype or model.dtype, device)
    model = model.prepare(data.events, data.weights, dtype=dtype, device=device)
    check_on_support(model, data.events)
    return model, data


def check_on_support(model: BayesianFlow, events: Tensor) -> None:
    """A flow on the unit box has no density outside: say so before the training meets an infinite loss."""
    if not model.on_unit_box:
        return
    inner = model.preprocessing(events)[0]
    outside = ((inner < 0) | (inner > 1)).any(-1).nonzero()[:, 0]
    if len(outside):
        first = int(outside[0])
        raise ValueError(
            f"{len(outside)} of {len(events)} events lie outside the unit box of the flow; the first is row {first}: "
            f"{events[first].tolist()}. Give BayesianFlow(preprocessing=pg.events.UnitBox(low, high)), or a flow with "
            'base="normal"'
        )


@dataclass(frozen=True)
class ManySamples(TrainingData):
    """R checked samples of the same size: as :class:`TrainingData`, with events ``[R, N, d]`` and no weights.

    Attributes:
        digests: SHA-256 of every sample.
    """

    digests: tuple[str, ...] = ()


def check_samples(model: BayesianFlow, samples: Any) -> None:
    """Check that there are several samples, of a model without conditions.

    Raises:
        ValueError: a single sample, none, or a conditional flow.
    """
    several = isinstance(samples, Tensor | np.ndarray | Sequence) and not isinstance(samples, str)
    if not several or len(samples) == 0 or getattr(samples, "ndim", 3) != 3:
        raise ValueError("samples must be several samples of events: a sequence of [N, d], or an array [R, N, d]")
    if model.context:
        raise ValueError("fit_many takes no conditions; fit a conditional flow to one sample after another")


def why_apart(samples: Any) -> str | None:
    """Why samples cannot be one batch; None where they can."""
    sizes = {len(sample) for sample in samples}
    if len(sizes) > 1:
        return f"the samples have between {min(sizes)} and {max(sizes)} events"
    if any(isinstance(sample, EventSample) and sample.weights is not None for sample in samples):
        return "the samples have event weights"
    return None


def prepare_many(
    model: BayesianFlow, samples: Any, dtype: torch.dtype | None, device: str
) -> tuple[BayesianFlow, ManySamples]:
    """The model prepared for R checked samples of one size.

    Constants of the preprocessing that are not yet set are fitted to all samples together: there is one model.

    Raises:
        ValueError: samples that cannot be learned from, the number of the first one named.
    """
    parts = _checked(model, samples, dtype, device)
    events = torch.stack([part.events for part in parts])
    model = model.prepare(events.flatten(0, 1), dtype=dtype, device=device)
    check_on_support(model, events.flatten(0, 1))
    digests = tuple(part.digest for part in parts)
    together = hashlib.sha256("".join(digests).encode()).hexdigest()
    return model, ManySamples(events, None, None, parts[0].names, parts[0].units, together, digests)


def prepare_together(model: BayesianFlow, samples: Any, dtype: torch.dtype | None, device: str) -> BayesianFlow:
    """The model prepared for all samples together, which may differ in size and have weights.

    Raises:
        ValueError: as :func:`prepare_many`, and where only some of the samples have weights.
    """
    parts = _checked(model, samples, dtype, device)
    weights = [part.weights for part in parts if part.weights is not None]
    if weights and len(weights) < len(parts):
        raise ValueError(
            f"{len(weights)} of {len(parts)} samples have event weights; give all of them weights, or none"
        )
    together = torch.cat([part.events for part in parts])
    return model.prepare(together, torch.cat(weights) if weights else None, dtype=dtype, device=device)


def _checked(model: BayesianFlow, samples: Any, dtype: torch.dtype | None, device: str) -> list[TrainingData]:
    parts: list[TrainingData] = []
    for r, sample in enumerate(samples):
        try:
            parts.append(TrainingData.check(model, sample, None, None, dtype or model.dtype, device))
        except ValueError as error:
            raise ValueError(f"sample {r}: {error}") from error
        if parts[r].events.shape[1] != parts[0].events.shape[1]:
            raise ValueError(
                f"sample {r} has {parts[r].events.shape[1]} features, sample 0 has {parts[0].events.shape[1]}"
            )
    return parts
