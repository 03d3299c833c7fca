"""What a backend is given to learn from: events, weights and context, checked before any work is done."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrogen.bayes.model import BayesianFlow
from pyrogen.events import EventSample, check_events, check_weights


def as_tensor(values: Any, dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
    """Events, weights or conditions (tensor, numpy array, list or EventSample) as a tensor."""
    if isinstance(values, EventSample):
        values = values.values
    if isinstance(values, np.ndarray) and not values.flags.writeable:
        values = values.copy()
    return torch.as_tensor(values).detach().to(dtype=dtype, device=device)


def check_context(context: Any, expected: int, n: int) -> None:
    """Check that ``context`` is ``[n, expected]``, or absent for a flow without conditions."""
    if expected == 0 and context is not None:
        raise ValueError("context was given, but the flow has no conditions; build it with context=k")
    if expected and context is None:
        raise ValueError(f"the flow is conditional on {expected} numbers per event; give context=[{n}, {expected}]")
    if context is not None:
        check_events(context, expected, what="context")
        if len(context) != n:
            raise ValueError(f"context has {len(context)} rows for {n} events; it needs one row per event")


@dataclass(frozen=True)
class TrainingData:
    """Checked training events.

    Attributes:
        events: ``[N, d]``.
        weights: event weights ``[N]`` as given, or None.
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
        check_context(context, model.context, n)
        tensors = {
            name: as_tensor(value, dtype, device)
            for name, value in (("events", events), ("weights", weights), ("context", context))
            if value is not None
        }
        check_events(tensors["events"], what=f"events in {dtype}")  # a float32 may overflow where a float64 did not
        digest = hashlib.sha256()
        for name, tensor in tensors.items():
            digest.update(f"{name} {list(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return cls(tensors["events"], tensors.get("weights"), tensors.get("context"), names, units, digest.hexdigest())
