"""Events as a sample, also those with a varying number of objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from .containers import numbers_of, table_of
from .multiplicity import Multiplicity
from .sample import EventSample, EventsLike, as_sample
from .validation import check_dimensions, check_weights


@dataclass(frozen=True)
class PaddedRows:
    """Rows ``[N, d]`` padded with NaN, the names of their columns and their weights ``[N]``."""

    values: np.ndarray
    names: Sequence[str]
    weights: np.ndarray | None


def sample_of(events: EventsLike | PaddedRows, weights: ArrayLike | Tensor | None, layout: Multiplicity | None) -> Any:
    """Events of any kind as a sample of a layout (None: without NaN), checked.

    Raises:
        ValueError, TypeError: events or weights that are none, or rows that do not fit the layout.
    """
    if layout is None:
        return as_sample(events, weights)  # type: ignore[arg-type]
    if isinstance(events, PaddedRows):
        return events
    table = table_of(events)
    check_dimensions(table.values, None, "events")
    names = tuple(f"x{i}" for i in range(table.values.shape[1])) if table.names is None else table.names
    layout.check(table.values, "events", names)
    own = table.weights if weights is None else numbers_of(weights, "weights", table.labels)
    if own is not None:
        check_weights(own, len(table.values))
    return PaddedRows(table.values, names, own)


def with_values(sample: Any, values: Tensor, names: Sequence[str]) -> Any:
    """Other values of the same events."""
    if isinstance(sample, PaddedRows):
        return replace(sample, values=values.cpu().numpy(), names=names)
    return EventSample(values, names, weights=sample.weights)
