"""A sample of events with all that belongs to it: column names, units, weights, uncertainties, provenance."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike


@dataclass(frozen=True, init=False, eq=False, repr=False)
class EventSample:
    """Events as a table: one row per event, one named column per feature.

    The arrays are read-only float64 copies of what was given, checked once on construction, so that a sample
    can be passed around without being checked or copied again.

    Args:
        values: ``[N, d]``, or ``[N]`` for a single feature; numpy array, torch tensor or nested list.
        names: d different column names; ``x0, x1, ...`` if left out.
        units: d units, such as ``"GeV"``; ``""`` (no unit) each if left out.
        weights: ``[N]`` event weights, or None for unweighted events. Single weights may be negative, their
            sum may not (arXiv:2104.04543, sec. 5).
        uncertainties: ``[N]`` relative uncertainty σ(x)/p(x) of the density at each event (arXiv:2104.04543,
            eq. 2), or None.
        provenance: how the events were made; anything JSON can hold.

    Raises:
        ValueError: wrong shape or length, an empty sample, NaN or infinite entries, repeated names, weights
            without a positive sum, negative uncertainties.
        TypeError: entries that are no real numbers, names that are no strings, a provenance JSON cannot hold.
    """

    values: np.ndarray
    names: tuple[str, ...]
    units: tuple[str, ...]
    weights: np.ndarray | None
    uncertainties: np.ndarray | None
    provenance: dict[str, Any]

    def __init__(
        self,
        values: ArrayLike | torch.Tensor,
        names: Sequence[str] | None = None,
        units: Sequence[str] | None = None,
        weights: ArrayLike | torch.Tensor | None = None,
        uncertainties: ArrayLike | torch.Tensor | None = None,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        table = _as_numpy(values, "events")
        if table.ndim == 1:
            table = table[:, None]
        _check_dimensions(table, None, "events")
        d = table.shape[1]
        names = _labels(names, d, "names") if names is not None else tuple(f"x{i}" for i in range(d))
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"names must differ from each other; repeated: {', '.join(repeated)}")
        _check_finite_rows(table, "events", names)
        if weights is not None:
            check_weights(weights, len(table))
        if uncertainties is not None:
            _check_uncertainties(uncertainties, len(table))
        store = object.__setattr__  # the one place where a frozen sample is filled
        store(self, "values", _frozen_copy(table))
        store(self, "names", names)
        store(self, "units", _labels(units, d, "units") if units is not None else ("",) * d)
        store(self, "weights", None if weights is None else _frozen_copy(weights))
        store(self, "uncertainties", None if uncertainties is None else _frozen_copy(uncertainties))
        store(self, "provenance", _plain(provenance if provenance is not None else {}))

    def __len__(self) -> int:
        """Number of events N."""
        return len(self.values)

    @property
    def features(self) -> int:
        """Number of columns d."""
        return self.values.shape[1]

    @property
    def total_weight(self) -> float:
        """Sum of the weights; N for unweighted events."""
        return float(len(self)) if self.weights is None else float(self.weights.sum())

    @property
    def effective_size(self) -> float:
        """(Σ w)² / Σ w²: the number of unweighted events with the same statistical power."""
        return float(len(self)) if self.weights is None else self.total_weight**2 / float(np.sum(self.weights**2))

    def column(self, which: str | int) -> np.ndarray:
        """One column ``[N]``, by name or by index (negative counts from the end).

        Raises:
            ValueError: no such column; the message lists the names.
        """
        try:
            return self.values[:, self.names.index(which) if isinstance(which, str) else which]
        except (ValueError, IndexError):
            message = f"no column {which!r}; the {self.features} columns are {', '.join(self.names)}"
            raise ValueError(message) from None

    def __getitem__(self, selection: slice | ArrayLike | torch.Tensor) -> EventSample:
        """The events of a slice, a boolean mask ``[N]`` or an array of row numbers, with all theirs.

        Raises:
            TypeError: anything else, such as a single number or a name.
            ValueError: no event is left, or their weights have no positive sum.
        """
        rows = selection if isinstance(selection, slice) else _row_selection(selection)
        return EventSample(
            self.values[rows],
            self.names,
            self.units,
            None if self.weights is None else self.weights[rows],
            None if self.uncertainties is None else self.uncertainties[rows],
            self.provenance,
        )

    def tensor(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> torch.Tensor:
        """The values as a new tensor ``[N, d]``, by default of torch's default dtype."""
        return torch.tensor(self.values, dtype=dtype or torch.get_default_dtype(), device=device)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to a file in the format of its suffix; see :func:`pyrogen.events.write`."""
        from .formats import write  # formats is built on this module

        write(self, path)

    def summary(self) -> str:
        """A short table as text: the size, and (unweighted) mean, spread and range of each column."""
        width = max(len(label) for label in self._labels_with_units())
        rows = [f"{'':{width}} {'mean':>11} {'std':>11} {'min':>11} {'max':>11}"]
        for label, x in zip(self._labels_with_units(), self.values.T, strict=True):
            rows.append(f"{label:{width}} {x.mean():11.4g} {x.std():11.4g} {x.min():11.4g} {x.max():11.4g}")
        size = f"{len(self):,} events"
        if self.weights is not None:
            size += f", total weight {self.total_weight:.6g}, effective size {self.effective_size:.6g}"
        return "\n".join([size, *rows])

    def __repr__(self) -> str:
        extras = [name for name in ("weights", "uncertainties") if getattr(self, name) is not None]
        return f"EventSample({len(self)} events; {'; '.join([', '.join(self._labels_with_units()), *extras])})"

    def _labels_with_units(self) -> list[str]:
        return [f"{name} [{unit}]" if unit else name for name, unit in zip(self.names, self.units, strict=True)]


def check_events(
    values: ArrayLike | torch.Tensor,
    features: int | None = None,
    what: str = "events",
    names: Sequence[str] | None = None,
) -> None:
    """Check that ``values`` are events a density can be fitted to: ``[N, d]``, N ≥ 1, d ≥ 1, all finite.

    Args:
        values: numpy array, torch tensor (any device) or nested list.
        features: the d that is needed, if it is known.
        what: how the error calls them.
        names: column names for the error.

    Raises:
        ValueError: not two-dimensional, empty, another number of columns, or rows with NaN or infinity (the
            message says how many, and where the first is).
        TypeError: no real numbers.
    """
    table = _as_numpy(values, what)
    _check_dimensions(table, features, what)
    _check_finite_rows(table, what, names)


def check_weights(weights: ArrayLike | torch.Tensor, n: int) -> None:
    """Check that ``weights`` can weight ``n`` events: ``[n]``, finite, with a positive sum.

    Single weights may be negative.

    Raises:
        ValueError: wrong shape, NaN or infinity, or a sum that is zero or negative.
        TypeError: no real numbers.
    """
    total = _per_event(weights, n, "weights").sum(dtype=np.float64)
    if not total > 0:
        raise ValueError(f"the sum of the weights must be positive; it is {total:.6g} over {n} events")


def _check_uncertainties(uncertainties: ArrayLike | torch.Tensor, n: int) -> None:
    array = _per_event(uncertainties, n, "uncertainties")
    negative = np.flatnonzero(array < 0)
    if len(negative):
        first = negative[0]
        raise ValueError(
            f"uncertainties must not be negative; {len(negative)} are, the first is {array[first]} at event {first}"
        )


def _check_dimensions(table: np.ndarray, features: int | None, what: str) -> None:
    if table.ndim != 2:
        raise ValueError(f"{what} must have shape [N, d], one row per event; got shape {list(table.shape)}")
    if len(table) == 0:
        raise ValueError(f"{what}: empty sample, there is no event in it (shape {list(table.shape)})")
    if table.shape[1] == 0:
        raise ValueError(f"{what} must have at least one column; got shape {list(table.shape)}")
    if features is not None and table.shape[1] != features:
        raise ValueError(f"{what} must have {features} columns; got {table.shape[1]} (shape {list(table.shape)})")


def _check_finite_rows(table: np.ndarray, what: str, names: Sequence[str] | None) -> None:
    bad = ~np.isfinite(table)
    rows = np.flatnonzero(bad.any(axis=1))
    if len(rows):
        row, column = rows[0], int(np.argmax(bad[rows[0]]))
        label = f"{column} ({names[column]})" if names is not None else str(column)
        raise ValueError(
            f"{what}: {len(rows)} of {len(table)} rows hold NaN or infinity; "
            f"the first is row {row}, column {label}: {table[row, column]}"
        )


def _per_event(values: ArrayLike | torch.Tensor, n: int, what: str) -> np.ndarray:
    array = _as_numpy(values, what)
    if array.shape != (n,):
        raise ValueError(f"{what} must hold one number per event, shape [{n}]; got shape {list(array.shape)}")
    bad = np.flatnonzero(~np.isfinite(array))
    if len(bad):
        raise ValueError(
            f"{what}: {len(bad)} of {n} are NaN or infinite; the first is {array[bad[0]]} at event {bad[0]}"
        )
    return array


def _as_numpy(values: ArrayLike | torch.Tensor, what: str) -> np.ndarray:
    """A real-valued numpy array, without a copy where the memory can be shared."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        # numpy has no bfloat16
        array = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    else:
        try:
            array = np.asarray(values)
        except ValueError as error:
            raise ValueError(f"{what} must be a table with rows of one length: {error}") from error
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{what} must be real numbers; got {array.dtype}")
    return array


def _frozen_copy(values: ArrayLike | torch.Tensor) -> np.ndarray:
    array = np.array(_as_numpy(values, "values"), dtype=np.float64, order="C")
    array.flags.writeable = False
    return array


def _row_selection(selection: ArrayLike | torch.Tensor) -> np.ndarray:
    if isinstance(selection, (str, tuple)) or np.ndim(selection) == 0:  # type: ignore[arg-type]
        raise TypeError(
            "a sample is indexed by a slice, a boolean mask or an array of row numbers, and gives a sample; "
            f"got {selection!r}. For one event write sample.values[i], for one column sample.column(name)"
        )
    rows = selection.cpu().numpy() if isinstance(selection, torch.Tensor) else np.asarray(selection)
    if rows.size and rows.dtype.kind not in "biu":
        raise TypeError(f"row numbers must be integers and masks booleans; got {rows.dtype}")
    return rows if rows.size else rows.astype(np.intp)  # an empty list has no integer type of its own


def _labels(labels: Sequence[str], d: int, what: str) -> tuple[str, ...]:
    if isinstance(labels, str) or not all(isinstance(label, str) for label in labels):
        raise TypeError(f"{what} must be a sequence of {d} strings; got {labels!r}")
    if len(labels) != d:
        raise ValueError(f"{what} must be one string for each of the {d} columns; got {len(labels)}: {list(labels)}")
    return tuple(labels)


def _plain(provenance: dict[str, Any]) -> dict[str, Any]:
    """A copy as JSON gives it back, so that a sample read from a file equals the one that was written."""
    if not isinstance(provenance, dict):
        raise TypeError(f"provenance must be a dict; got {type(provenance).__name__}")
    try:
        return json.loads(json.dumps(provenance))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"provenance must be plain enough for JSON (dicts, lists, strings, numbers): {error}"
        ) from error
