"""Checks of events as arguments, for the doors of functions that take them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..checks import instance
from .containers import table_of
from .sample import EventSample
from .validation import check_events, check_no_layout


def _events(name: str, value: Any) -> Any:
    """Events ``[N, d]`` of any kind; what was given is returned.

    ``[N]`` passes too, and one row of conditions: whether they fit, what knows the number of columns says.
    """
    if not isinstance(value, EventSample):
        numbers = table_of(value, name).values
        check_events(numbers[:, None] if numbers.ndim == 1 else value, what=name)
    return value


def _rows(name: str, value: Any) -> Any:
    """Events for a posterior, which knows whether NaN may tell of objects that are not there."""
    if not isinstance(value, EventSample):
        numbers = table_of(value, name).values
        _events(name, np.where(np.isnan(numbers), 0.0, numbers) if numbers.dtype.kind == "f" else value)
    return value


def _plain_events(name: str, value: Any) -> Any:
    """Events that all have the same columns; what was given is returned."""
    if isinstance(value, EventSample):
        check_no_layout(value, name)
    return _events(name, value)


EVENTS = _events
ROWS = _rows
PLAIN_EVENTS = _plain_events
SAMPLE = instance(EventSample, "a pyrogen.EventSample")
