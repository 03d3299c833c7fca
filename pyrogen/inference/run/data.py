"""What a backend is given to learn from: events, weights and context, checked before any work is done."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyrogen.bayes.inputs import as_tensor, check_context
from pyrogen.bayes.model import BayesianFlow
from pyrogen.events import EventSample, check_events, check_weights


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


def check_on_support(model: BayesianFlow, events: Tensor) -> None:
    """A flow on the unit box has no density outside: say so before the training meets an infinite loss."""
    if not getattr(model._flow, "on_unit_box", False):
        return
    inner = model._preprocessing(events)[0]
    outside = ((inner < 0) | (inner > 1)).any(-1).nonzero()[:, 0]
    if len(outside):
        first = int(outside[0])
        raise ValueError(
            f"{len(outside)} of {len(events)} events lie outside the unit box of the flow; the first is row {first}: "
            f"{events[first].tolist()}. Give BayesianFlow(preprocessing=pg.events.UnitBox(low, high)), or a flow with "
            'base="normal"'
        )
