"""Checks of what a sample of events is made of; their errors say what is wrong, in how many events and where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from ..checks import BOOLEAN, TEXT, door, each, optional, whole
from .containers import numbers_of, table_of
from .multiplicity import LAYOUT, Multiplicity


@door(
    features=optional(whole(1)),
    what=TEXT,
    names=optional(each(TEXT, "a sequence of names")),
    multiplicity=optional(LAYOUT),
)
def check_events(
    values: Any,
    features: int | None = None,
    what: str = "events",
    names: Sequence[str] | None = None,
    multiplicity: Multiplicity | None = None,
) -> None:
    """Check that ``values`` are events a density can be fitted to: ``[N, d]``, N ≥ 1, d ≥ 1, all finite.

    Args:
        values: any container of events, see :data:`pyrogen.events.EventsLike`; ``[N]`` does for one feature.
        features: the d that is needed, if it is known.
        what: how the error calls them.
        names: column names for the error.
        multiplicity: the layout that the events must have; None: of a varying number of objects there is none.

    Raises:
        ValueError: not two-dimensional, empty, another number of columns, or rows with NaN or infinity (the
            message says how many, and where the first is), or with masked entries.
        TypeError: no real numbers.
    """
    if multiplicity is None and isinstance(values, torch.Tensor) and _fine_at_first_sight(values, features):
        return  # without a copy of all that is on a card
    found = table_of(values, what)
    table = as_rows(found.values, features)
    check_dimensions(table, features, what)
    if multiplicity is not None:
        multiplicity.check(table, what, names or found.names)
        return
    check_no_layout(found, what)
    check_finite_rows(table, what, names or found.names)


def check_no_layout(table: Any, what: str) -> None:
    """Refuse events, in a table or a sample, with a varying number of objects, where all columns must be there."""
    if table.multiplicity is not None:
        raise ValueError(
            f"{what} have a varying number of objects ({table.multiplicity}), and all events must have the same "
            "columns here; take those with n objects, sample.with_count(n), or sample.select(names) of columns "
            "that every event has"
        )


@door(n=whole(0), positive_sum=BOOLEAN, first=whole(0))
def check_weights(weights: ArrayLike | torch.Tensor, n: int, positive_sum: bool = True, first: int = 0) -> None:
    """Check that ``weights`` can weight ``n`` events: ``[n]``, finite, with a positive sum.

    Single weights may be negative.

    Args:
        weights: numpy array, torch tensor or list.
        n: number of events.
        positive_sum: whether the sum counts; for a part of a larger sample it does not.
        first: number of the first event, for the error.

    Raises:
        ValueError: wrong shape, NaN or infinity, or a sum that is zero or negative.
        TypeError: no real numbers.
    """
    total = _per_event(weights, n, "weights", first).sum(dtype=np.float64)
    if positive_sum and not total > 0:
        raise ValueError(f"the sum of the weights must be positive; it is {total:.6g} over {n} events")


def check_uncertainties(uncertainties: ArrayLike | torch.Tensor, n: int, first: int = 0) -> None:
    """Check that ``uncertainties`` are ``[n]``, finite and not negative; ``first`` as in :func:`check_weights`."""
    array = _per_event(uncertainties, n, "uncertainties", first)
    negative = np.flatnonzero(array < 0)
    if len(negative):
        raise ValueError(
            f"uncertainties must not be negative; {len(negative)} are, the first is {array[negative[0]]} "
            f"at event {first + negative[0]}"
        )


def check_log_weights(log_weights: ArrayLike | torch.Tensor, n: int, first: int = 0) -> None:
    """Check that ``log_weights`` are ``[n, K]``, K ≥ 1, finite or -inf (a draw without density there).

    Raises:
        ValueError: wrong shape, NaN or +inf.
        TypeError: no real numbers.
    """
    array = numbers_of(log_weights, "log_weights")
    if array.ndim != 2 or len(array) != n or array.shape[1] == 0:
        raise ValueError(
            f"log_weights must hold one row per event and one column per draw, shape [{n}, K]; "
            f"got shape {list(array.shape)}"
        )
    bad = np.isnan(array) | (array == np.inf)
    rows = np.flatnonzero(bad.any(axis=1))
    if len(rows):
        draw = int(np.argmax(bad[rows[0]]))
        raise ValueError(
            f"log_weights must be finite or -inf; {len(rows)} of {n} events have others, the first is "
            f"{array[rows[0], draw]} at event {first + rows[0]}, draw {draw}"
        )


def _fine_at_first_sight(values: torch.Tensor, features: int | None) -> bool:
    """Whether a tensor holds finite numbers ``[N, d]``, judged where it is."""
    table = as_rows(values, features)
    shaped = table.ndim == 2 and table.numel() > 0 and features in (None, table.shape[1])
    return shaped and table.is_floating_point() and bool(table.isfinite().all())


def as_rows(values: Any, features: int | None) -> Any:
    """Events ``[N]`` of one feature, an array or a tensor, as ``[N, 1]``; all others as they are."""
    return values[:, None] if features == 1 and values.ndim == 1 else values


def check_dimensions(table: np.ndarray, features: int | None, what: str) -> None:
    """Check that a table is ``[N, features]``, N ≥ 1."""
    if table.ndim != 2:
        raise ValueError(f"{what} must have shape [N, d], one row per event; got shape {list(table.shape)}")
    if len(table) == 0:
        raise ValueError(f"{what}: empty sample, there is no event in it (shape {list(table.shape)})")
    if table.shape[1] == 0:
        raise ValueError(f"{what} must have at least one column; got shape {list(table.shape)}")
    if features is not None and table.shape[1] != features:
        raise ValueError(f"{what} must have {features} columns; got {table.shape[1]} (shape {list(table.shape)})")


def check_finite_rows(table: np.ndarray, what: str, names: Sequence[str] | None, first: int = 0) -> None:
    """Check that no row of ``[N, d]`` holds NaN or infinity; ``first`` is the number of its first row."""
    bad = ~np.isfinite(table)
    rows = np.flatnonzero(bad.any(axis=1))
    if len(rows):
        row, column = rows[0], int(np.argmax(bad[rows[0]]))
        label = f"{column} ({names[column]})" if names is not None else str(column)
        raise ValueError(
            f"{what}: {len(rows)} of {len(table)} rows hold NaN or infinity; "
            f"the first is row {first + row}, column {label}: {table[row, column]}{_hint(table[rows])}"
        )


def _hint(rows: np.ndarray) -> str:
    """What to do where rows that are not finite look like objects that are not there: NaN from a column on."""
    missing = np.isnan(rows)
    behind = np.maximum.accumulate(missing, axis=1)
    if rows.shape[1] > 1 and (missing == behind).all() and missing[:, -2:].all() and np.isfinite(rows[~missing]).all():
        return (
            ". If the NaN stand for objects that are not there, such as jets, say so with "
            "multiplicity=pg.events.Multiplicity(shared, each, most), an argument of EventSample and of pg.events.read"
        )
    return ""


def made_per_event(found: Any, n: int, what: str) -> np.ndarray:
    """What a function of ``n`` events gave, ``[n]`` in float64; ``what`` is how errors call the function.

    Raises:
        ValueError: another shape.
        TypeError: no real numbers.
    """
    try:
        values = torch.as_tensor(found)
        if values.is_complex():
            raise TypeError
        array = values.detach().double().cpu().numpy()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{what} gave a {type(found).__name__}; it must be real numbers, one for each event") from error
    if array.shape != (n,):
        raise ValueError(f"{what} gave shape {list(array.shape)} for {n} events; it must be [events]")
    return array


def _per_event(values: ArrayLike | torch.Tensor, n: int, what: str, first: int) -> np.ndarray:
    array = numbers_of(values, what)
    if array.shape != (n,):
        raise ValueError(f"{what} must hold one number per event, shape [{n}]; got shape {list(array.shape)}")
    bad = np.flatnonzero(~np.isfinite(array))
    if len(bad):
        raise ValueError(
            f"{what}: {len(bad)} of {n} are NaN or infinite; the first is {array[bad[0]]} at event {first + bad[0]}"
        )
    return array
