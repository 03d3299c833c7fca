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


def name_of(what: Callable[..., Any] | str | int, names: Sequence[str]) -> str:
    """How a text calls an observable: the column's name, the label, or the name of the function."""
    if not callable(what):
        return names[column_index(what, names)]
    return str(getattr(what, "label", None) or brief(what))
