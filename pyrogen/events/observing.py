"""One number of every event: a column by its name or index, or a function of the events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..checks import INDEX, column_index, require, whole_or_none
from ..printing import brief
from .of_objects import observable_of

Array = NDArray[np.float64]
Observed: TypeAlias = "Callable[[Tensor], Tensor] | str | int"
"""What can be looked at: a function of events ``[n, d]`` that gives ``[n]``, or the name or index of a column."""


def _column(name: str, value: Any) -> str | int:
    """The name or the index of a column."""
    return value if isinstance(value, str) else INDEX(name, value)


def _observed(name: str, value: Any) -> Any:
    """A function, or a column."""
    if callable(value) or isinstance(value, str):
        return value
    require(whole_or_none(value) is not None, name, value, "a function, or the name or index of a column")
    return INDEX(name, value)


COLUMN = _column  #: The name or the index of a column.
OBSERVED = _observed  #: A function of events, or the name or index of a column.


def observed(what: Observed, events: Tensor, names: Sequence[str], called: str) -> Array:
    """Values ``[n]`` in float64 of events ``[n, d]``.

    Args:
        what: a function of the events, or a column.
        events: a float64 tensor.
        names: of its columns.
        called: how the error calls ``what``.

    Raises:
        ValueError: no such column, or a function that does not give one number for each event.
    """
    if not callable(what):
        return events[:, column_index(what, names)].numpy()
    with torch.no_grad():
        values = what(events)
    array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    if np.iscomplexobj(array):
        raise ValueError(f"{called} is complex; it must be real numbers")
    array = array.astype(np.float64, copy=False)
    if array.shape != (len(events),):
        raise ValueError(f"{called} has shape {list(array.shape)}; it must be one number per event, [{len(events)}]")
    return array


def missing_in(what: Any, events: Tensor, called: str) -> Tensor | None:
    """Which events do not have what a function gives, by its ``missing(events)``; None where it does not say.

    Args:
        what: a function of events.
        events: ``[n, d]``.
        called: how the error calls ``what``.

    Raises:
        ValueError: something else than True or False for each.
    """
    says = getattr(what, "missing", None)
    if says is None:
        return None
    with torch.no_grad():
        found = says(events)
    if found is None:
        return None
    fine = isinstance(found, Tensor) and found.dtype == torch.bool and len(found) == len(events)
    require(fine, f"missing(events) of {called}", found, f"a tensor of {len(events)} bools")
    return found


def of_sample(what: Observed, sample: Any, called: str, *, undeclared: bool = False) -> Array:
    """Values ``[N]`` in float64 of an observable of a sample; NaN for the events that do not have it.

    Only its ``missing(events)`` says which these are (see :class:`~pyrogen.events.Observable`), or the number of their
    objects: any other NaN may be a fault, and is refused.

    Args:
        what: a function of events, or a column.
        sample: an :class:`~pyrogen.EventSample`.
        called: how the error calls ``what``.
        undeclared: whether every NaN counts as not there where the number of objects varies.

    Raises:
        ValueError: no such column; not one number for each event; infinite or NaN for an event that has it.
    """
    own = observable_of(what if callable(what) else column_index(what, sample.names), sample.multiplicity)
    events = sample.tensor(torch.float64)
    missing = missing_in(own, events, called)
    values = observed(own, events, sample.names, called)
    out = np.zeros(len(values), dtype=bool) if missing is None else missing.cpu().numpy()
    bad = ~(np.isfinite(values) | out)
    if undeclared and sample.multiplicity is not None:
        bad &= ~np.isnan(values)
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(
            f"{called} is NaN or infinite for {int(bad.sum())} of {len(values)} events; the first is {values[row]} at "
            f"event {row}. {way_out(missing is not None)}"
        )
    return np.where(out, np.nan, values)


def way_out(declared: bool) -> str:
    """What to do where an observable is NaN; ``declared``: whether it says which events do not have it."""
    if declared:
        return "Its missing(events) does not name these events"
    how = "give a pg.events.Observable with missing= or objects=, which says which these are"
    return f"If some events do not have it, {how}"


def name_of(what: Callable[..., Any] | str | int, names: Sequence[str]) -> str:
    """How a text calls an observable: the column's name, the label, or the name of the function."""
    if not callable(what):
        return names[column_index(what, names)]
    return str(getattr(what, "label", None) or brief(what))
