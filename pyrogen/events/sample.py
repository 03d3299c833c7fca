"""A sample of events with all that belongs to it: column names, units, weights, uncertainties, provenance."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike

from pyrogen.checks import column_index

from ..checks import DEVICE, DTYPE, TEXT, door, optional, whole
from .format import PER_EVENT
from .validation import (
    as_numpy,
    check_dimensions,
    check_finite_rows,
    check_log_weights,
    check_uncertainties,
    check_weights,
)
from .writing import write


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
        log_weights: ``[N, K]`` log p(x|θₖ)/p(x) of K posterior draws θₖ at each event, finite or -inf, or None.
            A histogram of the events with the weights ``w exp(log_weights[:, k])`` is that of draw k, so the
            spread over k is its error band.
        part: for a part of a larger sample, such as a chunk of a stream: the number of its first event there, from
            which errors count. The sum of its weights may then be zero or negative.

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
    log_weights: np.ndarray | None
    part: int | None

    @door(part=optional(whole(0)))
    def __init__(
        self,
        values: ArrayLike | torch.Tensor,
        names: Sequence[str] | None = None,
        units: Sequence[str] | None = None,
        weights: ArrayLike | torch.Tensor | None = None,
        uncertainties: ArrayLike | torch.Tensor | None = None,
        provenance: dict[str, Any] | None = None,
        *,
        log_weights: ArrayLike | torch.Tensor | None = None,
        part: int | None = None,
    ) -> None:
        table = as_numpy(values, "events")
        if table.ndim == 1:
            table = table[:, None]
        check_dimensions(table, None, "events")
        d = table.shape[1]
        names = _labels(names, d, "names") if names is not None else tuple(f"x{i}" for i in range(d))
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"names must differ from each other; repeated: {', '.join(repeated)}")
        first = part or 0
        check_finite_rows(table, "events", names, first)
        if weights is not None:
            check_weights(weights, len(table), positive_sum=part is None, first=first)
        if uncertainties is not None:
            check_uncertainties(uncertainties, len(table), first)
        if log_weights is not None:
            check_log_weights(log_weights, len(table), first)
        store = object.__setattr__  # the one place where a frozen sample is filled
        store(self, "values", _frozen_copy(table))
        store(self, "names", names)
        store(self, "units", _labels(units, d, "units") if units is not None else ("",) * d)
        given = {"weights": weights, "uncertainties": uncertainties, "log_weights": log_weights}
        for name, array in given.items():
            store(self, name, None if array is None else _frozen_copy(array))
        store(self, "provenance", _plain(provenance if provenance is not None else {}))
        store(self, "part", part)

    @classmethod
    def concatenate(cls, samples: Iterable[EventSample], provenance: dict[str, Any] | None = None) -> EventSample:
        """One sample of the events of several, in their order; parts of a stream become a whole again.

        Their names, their units and what they have for each event (weights, uncertainties, log weights of as many
        draws) must agree.

        Args:
            samples: at least one.
            provenance: that of the first sample, if left out.

        Raises:
            ValueError: no sample, samples that do not fit together (the message says which and why), or weights
                without a positive sum in total.
        """
        if isinstance(samples, EventSample) or not isinstance(samples, Iterable):
            raise TypeError(f"samples is a {type(samples).__name__}; it must be a sequence of samples")
        samples = list(samples)
        for i, sample in enumerate(samples):
            if not isinstance(sample, EventSample):
                raise TypeError(f"samples[{i}] is a {type(sample).__name__}; it must be an EventSample")
        if not samples:
            raise ValueError("samples is empty; there must be at least one to concatenate")
        for i, sample in enumerate(samples):
            samples[0].check_like(sample, f"sample {i}", "sample 0")
        joined: dict[str, Any] = {
            name: _joined([getattr(sample, name) for sample in samples])
            for name in PER_EVENT
            if getattr(samples[0], name) is not None
        }
        values = _joined([sample.values for sample in samples])
        provenance = samples[0].provenance if provenance is None else provenance
        return cls(values, samples[0].names, samples[0].units, provenance=provenance, **joined)

    @door(what=TEXT, this=TEXT)
    def check_like(self, other: EventSample, what: str = "the sample", this: str = "the first") -> None:
        """Check that the events of another sample fit behind those of this one.

        Args:
            other: the other sample.
            what: how the error calls it.
            this: how the error calls this one.

        Raises:
            ValueError: other names or units, or not the same of weights, uncertainties and log weights.
        """
        if not isinstance(other, EventSample):
            raise TypeError(f"other is a {type(other).__name__}; it must be an EventSample")
        for name, cure in (("names", "choose columns with sample.select(names)"), ("units", "convert its columns")):
            mine, others = getattr(self, name), getattr(other, name)
            if mine != others:
                raise ValueError(f"{what} has the {name} {list(others)}, {this} has {list(mine)}; {cure}")
        mine, others = self._per_event(), other._per_event()
        if mine != others:
            raise ValueError(
                f"{what} has {others}, {this} has {mine}; all must have the same (weights=np.ones(N) are neutral)"
            )

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
        return self.values[:, column_index(which, self.names)]

    def __getitem__(self, selection: slice | ArrayLike | torch.Tensor) -> EventSample:
        """The events of a slice, a boolean mask ``[N]`` or an array of row numbers, with all theirs.

        Raises:
            TypeError: anything else, such as a single number or a name.
            ValueError: a mask of another length, row numbers beyond the last event, no event that is left, or weights
                without a positive sum.
        """
        rows = selection if isinstance(selection, slice) else _existing(_row_selection(selection), len(self))
        chosen: dict[str, Any] = {
            name: getattr(self, name)[rows] for name in PER_EVENT if getattr(self, name) is not None
        }
        return EventSample(
            self.values[rows], self.names, self.units, provenance=self.provenance, part=self.part, **chosen
        )

    def select(self, names: Sequence[str]) -> EventSample:
        """The same events with the named columns alone, in the order given.

        Raises:
            ValueError: no such column, a name given twice, or no name at all.
            TypeError: a single string, or names that are no strings.
        """
        listed = isinstance(names, Iterable) and not isinstance(names, str)
        if not listed or not all(isinstance(name, str) for name in names):
            raise TypeError(f"names must be a sequence of column names; got {names!r}")
        units = dict(zip(self.names, self.units, strict=True))
        columns = [self.column(name) for name in names]
        values = np.column_stack(columns) if columns else self.values[:, :0]
        extras: dict[str, Any] = {name: getattr(self, name) for name in PER_EVENT}
        labels = [units[name] for name in names]
        return EventSample(values, names, labels, provenance=self.provenance, part=self.part, **extras)

    @door(dtype=optional(DTYPE), device=optional(DEVICE))
    def tensor(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> torch.Tensor:
        """The values as a new tensor ``[N, d]``, by default of torch's default dtype."""
        return torch.tensor(self.values, dtype=dtype or torch.get_default_dtype(), device=device)

    def save(self, path: str | os.PathLike[str], **options: Any) -> None:
        """Write to a file in the format of its suffix; see :func:`pyrogen.events.write`."""
        write(self, path, **options)

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
        extras = [name for name in PER_EVENT if getattr(self, name) is not None]
        return f"EventSample({len(self)} events; {'; '.join([', '.join(self._labels_with_units()), *extras])})"

    def _per_event(self) -> str:
        """What the sample has for each event besides values, in words."""
        has = [name for name in ("weights", "uncertainties") if getattr(self, name) is not None]
        if self.log_weights is not None:
            has.append(f"log_weights of {self.log_weights.shape[1]} draws")
        return " and ".join(has) or "no weights, uncertainties or log_weights"

    def _labels_with_units(self) -> list[str]:
        return [f"{name} [{unit}]" if unit else name for name, unit in zip(self.names, self.units, strict=True)]


EventsLike: TypeAlias = EventSample | ArrayLike | torch.Tensor
"""What every function of events takes: a sample, or its values ``[N, d]`` as a tensor, an array or nested lists."""


def _frozen_copy(values: ArrayLike | torch.Tensor) -> np.ndarray:
    array = as_numpy(values, "values")
    if array.dtype == np.float64 and array.flags.c_contiguous and array.flags.owndata and not array.flags.writeable:
        return array  # that of another sample: nobody can change it
    array = np.array(array, dtype=np.float64, order="C")
    array.flags.writeable = False
    return array


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    """Arrays one behind the other, read-only, so that a sample takes them without a copy."""
    if len(arrays) == 1:
        return arrays[0]
    array = np.concatenate(arrays)
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


def _labels(labels: Sequence[str], d: int, what: str) -> tuple[str, ...]:
    listed = isinstance(labels, Iterable) and not isinstance(labels, str)
    if not listed or not all(isinstance(label, str) for label in labels):
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
