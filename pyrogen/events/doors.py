"""Checks of events as arguments, for the doors of functions that take them."""

from __future__ import annotations

from typing import Any

from ..checks import instance
from .sample import EventSample
from .validation import check_events


def _events(name: str, value: Any) -> Any:
    """Events ``[N, d]`` of any kind; what was given is returned."""
    if not isinstance(value, EventSample):
        check_events(value, what=name)
    return value


EVENTS = _events
SAMPLE = instance(EventSample, "a pyrogen.EventSample")
