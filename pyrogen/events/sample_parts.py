"""What a sample of events is made of: labels, numbers that nobody can change, a provenance, chosen rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from .containers import Table, numbers_of


def names_and_units(
    table: Table, names: Sequence[str] | None = None, units: Sequence[str] | None = None
) -> tuple[Sequence[str] | None, Sequence[str] | None]:
    """Names and units given, else those of a table.

    Raises:
        ValueError: the names of the table in another order, which would exchange its columns.
    """
    if names is not None and table.names is not None and not isinstance(names, str):
        names = tuple(names)
        if names != table.names and sorted(map(str, names)) == sorted(table.names):
            raise ValueError(
                f"names are {', '.join(map(str, names))}, but the columns of the events are {', '.join(table.names)}, "
                "in another order; leave names out, or choose the order with sample.select(names)"
            )
    return (table.names if names is None else names), (table.units if units is None else units)


def frozen_copy(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.float64 and array.flags.c_contiguous and array.flags.owndata and not array.flags.writeable:
        return array  # that of another sample: nobody can change it
    array = np.array(array, dtype=np.float64, order="C")
    array.flags.writeable = False
    return array


def joined_rows(arrays: list[np.ndarray]) -> np.ndarray:
    """Arrays one behind the other, read-only, so that a sample takes them without a copy."""
    if len(arrays) == 1:
        return arrays[0]
    array = np.concatenate(arrays)
    array.flags.writeable = False
    return array


def labels_of(labels: Sequence[str], d: int, what: str) -> tuple[str, ...]:
    listed = isinstance(labels, Iterable) and not isinstance(labels, str)
    if not listed or not all(isinstance(label, str) for label in labels):
        raise TypeError(f"{what} must be a sequence of {d} strings; got {labels!r}")
    if len(labels) != d:
        raise ValueError(f"{what} must be one string for each of the {d} columns; got {len(labels)}: {list(labels)}")
    return tuple(labels)


def plain_json(provenance: dict[str, Any]) -> dict[str, Any]:
    """A copy as JSON gives it back, so that a sample read from a file equals the one that was written."""
    if not isinstance(provenance, dict):
        raise TypeError(f"provenance must be a dict; got {type(provenance).__name__}")
    try:
        return json.loads(json.dumps(provenance))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"provenance must be plain enough for JSON (dicts, lists, strings, numbers): {error}"
        ) from error


def chosen_rows(selection: slice | ArrayLike | torch.Tensor, n: int) -> slice | np.ndarray:
    """A slice, a mask or row numbers of ``n`` events, checked.

    Raises:
        TypeError: anything else, such as a single number or a name.
        ValueError: a mask of another length, or row numbers beyond the last event.
    """
    return selection if isinstance(selection, slice) else _existing(_row_selection(selection), n)


def _row_selection(selection: ArrayLike | torch.Tensor) -> np.ndarray:
    if isinstance(selection, (str, tuple)) or np.ndim(selection) == 0:  # type: ignore[arg-type]
        raise TypeError(
            "a sample is indexed by a slice, a boolean mask or an array of row numbers, and gives a sample; "
            f"got {selection!r}. For one event write sample.values[i], for one column sample.column(name)"
        )
    if isinstance(selection, torch.Tensor):
        rows = selection.cpu().numpy()
    else:
        careful = isinstance(selection, np.ma.MaskedArray) or hasattr(selection, "iloc")  # of pandas
        rows = numbers_of(selection, "the selection of rows") if careful else np.asarray(selection)
    if rows.size and rows.dtype.kind not in "biu":
        raise TypeError(f"row numbers must be integers and masks booleans; got {rows.dtype}")
    return rows if rows.size else rows.astype(np.intp)  # an empty list has no integer type of its own


def _existing(rows: np.ndarray, n: int) -> np.ndarray:
    """Row numbers or a mask, if the n events have these rows."""
    if rows.dtype.kind == "b":
        if rows.shape != (n,):
            raise ValueError(f"the mask has shape {list(rows.shape)}; it must have one entry per event, [{n}]")
        return rows
    if rows.ndim != 1:
        raise ValueError(f"the row numbers have shape {list(rows.shape)}; they must be a vector")
    outside = rows[(rows < -n) | (rows >= n)]
    if len(outside):
        raise ValueError(f"{len(outside)} row numbers are outside of the {n} events; the first is {outside[0]}")
    return rows
