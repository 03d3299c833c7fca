"""A sample of events with all that belongs to it: column names, units, weights, uncertainties, provenance."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike

from pyrogen.checks import column_index

from ..checks import DEVICE, DTYPE, TEXT, door, optional, require, whole
from .containers import Table, numbers_of, table_of
from .format import PER_EVENT
from .multiplicity import LAYOUT, Multiplicity, fill_counts, selected, told_counts
from .networks import check_same_networks
from .normalisation import check_same_normalisation
from .presenting import Presented
from .sample_parts import chosen_rows, frozen_copy, joined_rows, labels_of, names_and_units, plain_json
from .validation import (
    check_dimensions,
    check_finite_rows,
    check_log_weights,
    check_uncertainties,
    check_weights,
)
from .writing import write


@dataclass(frozen=True, init=False, eq=False, repr=False)
class EventSample(Presented):
    """Events as a table: one row per event, one named column per feature.

    The arrays are read-only float64 copies of what was given, checked once on construction, so that a sample
    can be passed around without being checked or copied again.

    Args:
        values: ``[N, d]``, or ``[N]`` for a single feature: a numpy array, a torch tensor, a nested list, or a table of
            another package (see :data:`EventsLike`), whose names, units and columns of weights count too.
        names: d different column names; if left out those of ``values``, or ``x0, x1, ...``.
        units: d units, such as ``"GeV"``; if left out those of ``values``, or ``""`` (no unit) each.
        weights: ``[N]`` event weights; if left out those of ``values``, or None for unweighted events. Single weights
            may be negative, their sum may not (arXiv:2104.04543, sec. 5). A pandas Series is put into the order of the
            events by its index, where the events are a pandas object too.
        uncertainties: ``[N]`` relative uncertainty σ(x)/p(x) of the density at each event (arXiv:2104.04543,
            eq. 2), or None.
        provenance: how the events were made; anything JSON can hold.
        log_weights: ``[N, K]`` log p(x|θₖ)/p(x) of K posterior draws θₖ at each event, finite or -inf, or None.
            A histogram of the events with the weights ``w exp(log_weights[:, k])`` is that of draw k, so the
            spread over k is its error band.
        part: for a part of a larger sample, such as a chunk of a stream: the number of its first event there, from
            which errors count. The sum of its weights may then be zero or negative.
        multiplicity: the layout of events with a varying number of objects, whose values are NaN where no object is;
            if left out that of ``values``, or None: all values are finite. See :meth:`padded` for arrays with counts.

    Raises:
        ValueError: wrong shape or length, an empty sample, NaN, infinite or masked entries, repeated names, names in
            another order than those of ``values``, weights without a positive sum, negative uncertainties; rows that
            do not fit the layout, see :meth:`Multiplicity.check`.
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
    multiplicity: Multiplicity | None

    @door(part=optional(whole(0)), multiplicity=optional(LAYOUT))
    def __init__(
        self,
        values: EventsLike,
        names: Sequence[str] | None = None,
        units: Sequence[str] | None = None,
        weights: ArrayLike | torch.Tensor | None = None,
        uncertainties: ArrayLike | torch.Tensor | None = None,
        provenance: dict[str, Any] | None = None,
        *,
        log_weights: ArrayLike | torch.Tensor | None = None,
        part: int | None = None,
        multiplicity: Multiplicity | None = None,
    ) -> None:
        given = table_of(values)
        table = given.values[:, None] if given.values.ndim == 1 else given.values
        check_dimensions(table, None, "events")
        d = table.shape[1]
        names, units = names_and_units(given, names, units)
        names = labels_of(names, d, "names") if names is not None else tuple(f"x{i}" for i in range(d))
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"names must differ from each other; repeated: {', '.join(repeated)}")
        first = part or 0
        multiplicity = given.multiplicity if multiplicity is None else multiplicity
        if multiplicity is None:
            check_finite_rows(table, "events", names, first)
        else:
            multiplicity.check(table, "events", names, first)
        extras = {
            name: getattr(given, name) if own is None else numbers_of(own, name, given.labels)
            for name, own in zip(PER_EVENT, (weights, uncertainties, log_weights), strict=True)
        }
        if extras["weights"] is not None:
            check_weights(extras["weights"], len(table), positive_sum=part is None, first=first)
        if extras["uncertainties"] is not None:
            check_uncertainties(extras["uncertainties"], len(table), first)
        if extras["log_weights"] is not None:
            check_log_weights(extras["log_weights"], len(table), first)
        store = object.__setattr__  # the one place where a frozen sample is filled
        store(self, "values", frozen_copy(table))
        store(self, "names", names)
        store(self, "units", labels_of(units, d, "units") if units is not None else ("",) * d)
        for name, array in extras.items():
            store(self, name, None if array is None else frozen_copy(array))
        if provenance is None:
            provenance = given.provenance or {}
        store(self, "provenance", plain_json(provenance))
        store(self, "part", part)
        store(self, "multiplicity", multiplicity)

    @classmethod
    @door(multiplicity=LAYOUT)
    def padded(
        cls,
        values: EventsLike,
        counts: ArrayLike | torch.Tensor,
        multiplicity: Multiplicity,
        names: Sequence[str] | None = None,
        units: Sequence[str] | None = None,
        **options: Any,
    ) -> EventSample:
        """Events with a varying number of objects, from rows that are padded with anything, and their counts.

        Args:
            values: ``[N, d]``, of any kind that the class takes. What stands behind the last object does not count:
                zeros, -999, NaN.
            counts: ``[N]`` whole numbers of objects, ``least`` to ``most`` of the layout.
            multiplicity: the layout.
            names, units: of the columns.
            options: ``weights``, ``uncertainties``, ``provenance``, ``log_weights`` and ``part`` of the class.

        Raises:
            ValueError: counts that are no whole numbers or out of range (the first is named), and as the class.
            TypeError: as the class.
        """
        table = table_of(values)
        filled = fill_counts(table.values, numbers_of(counts, "counts", table.labels), multiplicity)
        return cls(dataclasses.replace(table, values=filled), names, units, multiplicity=multiplicity, **options)

    @classmethod
    def concatenate(cls, samples: Iterable[EventSample], provenance: dict[str, Any] | None = None) -> EventSample:
        """One sample of the events of several, in their order; parts of a stream become a whole again.

        Their names, their units, their layout and what they have for each event (weights, uncertainties, log weights of
        as many draws) must agree.

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
            name: joined_rows([getattr(sample, name) for sample in samples])
            for name in PER_EVENT
            if getattr(samples[0], name) is not None
        }
        values = joined_rows([sample.values for sample in samples])
        provenance = samples[0].provenance if provenance is None else provenance
        labels = samples[0].names, samples[0].units
        return cls(values, *labels, provenance=provenance, multiplicity=samples[0].multiplicity, **joined)

    @door(what=TEXT, this=TEXT)
    def check_like(self, other: EventSample, what: str = "the sample", this: str = "the first") -> None:
        """Check that the events of another sample fit behind those of this one.

        Args:
            other: the other sample.
            what: how the error calls it.
            this: how the error calls this one.

        Raises:
            ValueError: other names, units or layout, not the same of weights, uncertainties and log weights, log
                weights of other networks, or LHE files of different cross sections whose weights are in no common unit.
        """
        if not isinstance(other, EventSample):
            raise TypeError(f"other is a {type(other).__name__}; it must be an EventSample")
        for name, cure in (("names", "choose columns with sample.select(names)"), ("units", "convert its columns")):
            mine, others = getattr(self, name), getattr(other, name)
            if mine != others:
                raise ValueError(f"{what} has the {name} {list(others)}, {this} has {list(mine)}; {cure}")
        if self.multiplicity != other.multiplicity:
            raise ValueError(
                f"{what} has multiplicity={other.multiplicity}, {this} has multiplicity={self.multiplicity}; all must "
                "have the same layout: give EventSample(..., multiplicity=...) that of the others"
            )
        check_same_normalisation(self.provenance, other.provenance, what, this)
        mine, others = self._per_event(), other._per_event()
        if mine != others:
            raise ValueError(
                f"{what} has {others}, {this} has {mine}; all must have the same (weights=np.ones(N) are neutral)"
            )
        if self.log_weights is not None:
            check_same_networks(self.provenance, other.provenance, what, this)

    @property
    def features(self) -> int:
        """Number of columns d."""
        return self.values.shape[1]

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
        rows = chosen_rows(selection, len(self))
        chosen: dict[str, Any] = {
            name: getattr(self, name)[rows] for name in PER_EVENT if getattr(self, name) is not None
        }
        return self._like(self.values[rows], self.names, self.units, self.multiplicity, chosen)

    def select(self, names: Sequence[str]) -> EventSample:
        """The same events with the named columns alone, in the order given.

        Of events with a varying number of objects, shared columns and then those of the leading objects, whole and in
        order, give a smaller layout; other columns that every event has give a plain sample.

        Raises:
            ValueError: no such column, a name given twice, no name at all, or columns of other objects.
            TypeError: a single string, or names that are no strings.
        """
        listed = isinstance(names, Iterable) and not isinstance(names, str)
        if not listed or not all(isinstance(name, str) for name in names):
            raise TypeError(f"names must be a sequence of column names; got {names!r}")
        units = dict(zip(self.names, self.units, strict=True))
        columns = [self.column(name) for name in names]
        values = np.column_stack(columns) if columns else self.values[:, :0]
        layout = self.multiplicity
        if layout is not None and columns:
            layout = selected(layout, [self.names.index(name) for name in names], self.names)
        extras: dict[str, Any] = {name: getattr(self, name) for name in PER_EVENT}
        return self._like(values, names, [units[name] for name in names], layout, extras)

    @property
    def counts(self) -> np.ndarray | None:
        """Number of objects ``[N]`` of each event; None where all events have the same columns."""
        return None if self.multiplicity is None else self.multiplicity.counts(self.values)

    @door(n=whole(0))
    def with_count(self, n: int) -> EventSample:
        """The events with exactly ``n`` objects, as a plain sample of the columns that they fill.

        Raises:
            ValueError: a sample without a layout, an ``n`` outside of it, or one that no event has.
        """
        layout, counts = self.multiplicity, self.counts
        if layout is None or counts is None:
            raise ValueError(f"the sample has no multiplicity, so no event of it has n = {n} objects; take all of it")
        require(n in layout.numbers, "n", n, f"one of {layout.least} to {layout.most}, the numbers of its layout")
        rows, width = counts == n, layout.width(n)
        require(bool(rows.any()), "n", n, f"a number that some event has: {told_counts(layout, self.values)}")
        extras = {name: getattr(self, name)[rows] for name in PER_EVENT if getattr(self, name) is not None}
        return self._like(self.values[rows, :width], self.names[:width], self.units[:width], None, extras)

    def _like(
        self,
        values: np.ndarray,
        names: Sequence[str],
        units: Sequence[str],
        multiplicity: Multiplicity | None,
        extras: Mapping[str, Any],
    ) -> EventSample:
        """Other values with the provenance of this sample."""
        same: dict[str, Any] = {"provenance": self.provenance, "part": self.part, "multiplicity": multiplicity}
        return EventSample(values, names, units, **same, **extras)

    @door(dtype=optional(DTYPE), device=optional(DEVICE))
    def tensor(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> torch.Tensor:
        """The values as a new tensor ``[N, d]``, by default of torch's default dtype."""
        return torch.tensor(self.values, dtype=dtype or torch.get_default_dtype(), device=device)

    def save(self, path: str | os.PathLike[str], **options: Any) -> None:
        """Write to a file in the format of its suffix; see :func:`pyrogen.events.write`."""
        write(self, path, **options)


EventsLike: TypeAlias = EventSample | Table | ArrayLike | torch.Tensor | Mapping[str, Any]
"""What every function of events takes: a sample, or its values ``[N, d]`` as a tensor, an array or nested lists.

Tables of other packages do as well: a DataFrame or Series of pandas or polars, a table of Arrow (or anything with the
method ``__arrow_c_stream__``), an array of awkward, a DataArray or Dataset of xarray, a mapping of names to columns,
records of numpy, numbers with a unit of astropy, pint or unyt. Their names and units count, and their columns
``weight``, ``uncertainty`` and ``log_weight_0``, ... are what they are in files. Masked and missing entries are
refused.
"""


def as_sample(events: EventsLike, weights: Any = None, layout: Multiplicity | None = None) -> EventSample:
    """Any events as a checked sample in float64.

    Args:
        events: any container of events.
        weights: ``[N]``, which count instead of those of the events; None: those of the events.
        layout: of events with a varying number of objects, which they must have; None: that of the events.

    Raises:
        ValueError, TypeError: as :class:`EventSample`; a sample of another layout.
    """
    if not isinstance(events, EventSample):
        return EventSample(events, weights=weights, multiplicity=layout)
    own = events.multiplicity
    if layout is None or layout == own:
        layout = own
        if weights is None:
            return events
    elif own is not None and (own.shared, own.each) != (layout.shared, layout.each):
        raise ValueError(f"the events are rows of {own}; rows of {layout} are needed")
    weights = events.weights if weights is None else weights
    return EventSample(events.values, events.names, events.units, weights, multiplicity=layout)
