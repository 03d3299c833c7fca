"""Events, weights and conditions as the tensors that a model takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrogen.events import EventSample, check_events


def as_tensor(values: Any, dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
    """Events, weights or conditions (tensor, numpy array, list or EventSample) as a tensor."""
    if isinstance(values, EventSample):
        values = values.values
    if isinstance(values, np.ndarray):
        # A copy that torch can share: it knows neither foreign byte orders nor negative strides nor read-only arrays.
        values = np.array(values, dtype=values.dtype.newbyteorder("="))
    return torch.as_tensor(values).detach().to(dtype=dtype, device=device)


def check_context(context: Any, expected: int | None, n: int) -> None:
    """Check that ``context`` is ``[n, expected]``, or absent for a flow without conditions; None: any number."""
    if expected == 0 and context is not None:
        raise ValueError("context was given, but the flow has no conditions; build it with context=k")
    if expected and context is None:
        raise ValueError(f"the flow is conditional on {expected} numbers per event; give context=[{n}, {expected}]")
    if context is not None:
        check_events(context, expected, what="context")
        if len(context) != n:
            raise ValueError(f"context has {len(context)} rows for {n} events; it needs one row per event")
