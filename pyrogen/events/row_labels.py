"""Row labels (the index) of pandas: which weight belongs to which event."""

from __future__ import annotations

from typing import Any


def rows_in_order(labels: Any, events: Any, what: str) -> Any:
    """The rows of an object with row labels, in the order of the events.

    Args:
        labels: those of the object.
        events: those of the events; None: they have none.
        what: how the error calls the object.

    Raises:
        ValueError: other labels than those of the events, or labels in no order where the events have none.
    """
    if events is None:
        if labels.is_monotonic_increasing and labels.is_unique:
            return slice(None)
        raise ValueError(
            f"{what}: the row labels (pandas index) are not sorted, and the events have none, so rows may not "
            "belong together; give the events as a DataFrame too, or plain numbers in the order of the events "
            "(.to_numpy())"
        )
    if labels.equals(events):
        return slice(None)
    if len(labels) == len(events) and labels.is_unique and events.is_unique:
        rows = labels.get_indexer(events)
        if (rows >= 0).all():
            return rows
    raise ValueError(
        f"{what}: the row labels (pandas index) of {len(labels)} rows are not those of the {len(events)} events; "
        "choose the rows with .loc[events.index], or give plain numbers in the order of the events (.to_numpy())"
    )
