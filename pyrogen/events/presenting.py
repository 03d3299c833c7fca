"""What a sample of events shows of itself, and as what it goes to other packages."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checks import TEXT, door
from ..printing import Shown, brief, listed, span
from ..signals import uninterrupted
from .arrow import labels_of, table_of_sample
from .awkward_records import array_of
from .columns import to_columns
from .containers import ATTRIBUTE
from .format import PER_EVENT
from .multiplicity import Multiplicity, told_counts

if TYPE_CHECKING:
    import pandas
    import pyarrow
    import xarray


class Presented(Shown):
    """The part of an :class:`~pyrogen.EventSample` that changes nothing of it."""

    values: np.ndarray
    names: tuple[str, ...]
    units: tuple[str, ...]
    weights: np.ndarray | None
    uncertainties: np.ndarray | None
    provenance: dict[str, Any]
    log_weights: np.ndarray | None
    multiplicity: Multiplicity | None

    def __len__(self) -> int:
        """Number of events N."""
        return len(self.values)

    @property
    def total_weight(self) -> float:
        """Sum of the weights; N for unweighted events."""
        return float(len(self)) if self.weights is None else float(self.weights.sum())

    @property
    def effective_size(self) -> float:
        """(Σ w)² / Σ w²: the number of unweighted events with the same statistical power."""
        return float(len(self)) if self.weights is None else self.total_weight**2 / float(np.sum(self.weights**2))

    def to_pandas(self) -> pandas.DataFrame:
        """The events as a DataFrame: values, then ``weight``, ``uncertainty``, ``log_weight_0``, ... where there are.

        Units, layout and provenance are in its ``attrs``; ``EventSample(frame)`` gives the same sample back.

        Raises:
            ValueError: a column of the sample that is called like those of weights and their kin.
            ImportError: pandas is missing.
        """
        with uninterrupted():
            import pandas
        frame = pandas.DataFrame(to_columns(self))
        frame.attrs = {"units": self._known_units(), ATTRIBUTE: labels_of(self)}
        return frame

    def to_arrow(self) -> pyarrow.Table:
        """The events as a table of Arrow, columns as in :meth:`to_pandas` (extra ``arrow``).

        Units are in the metadata of the fields (``units``), layout and provenance in that of the schema;
        ``EventSample(table)`` gives the same sample back. Packages that read Arrow take it without a copy of theirs.

        Raises:
            ValueError: a column of the sample that is called like those of weights and their kin.
            ImportError: pyarrow is missing.
        """
        return table_of_sample(self, "EventSample.to_arrow")

    @door(objects=TEXT)
    def to_awkward(self, objects: str = "jets") -> Any:
        """The events as an array of awkward, as :func:`pyrogen.events.to_awkward` makes it."""
        return array_of(self, objects)

    def to_xarray(self) -> xarray.Dataset:
        """The events as a Dataset along the dimension ``event``, variables as the columns of :meth:`to_pandas`.

        Units are the attribute ``units`` of the variables; ``EventSample(dataset)`` gives the same sample back.

        Raises:
            ValueError: a column of the sample that is called like those of weights and their kin.
        """
        with uninterrupted():
            import xarray
        units = self._known_units()
        columns = {
            name: ("event", column, {"units": units[name]} if name in units else {})
            for name, column in to_columns(self).items()
        }
        return xarray.Dataset(columns, attrs={ATTRIBUTE: json.dumps(labels_of(self))})

    def _known_units(self) -> dict[str, str]:
        return {name: unit for name, unit in zip(self.names, self.units, strict=True) if unit}

    def summary(self) -> str:
        """A short table as text: the size, and (unweighted) mean, spread and range of each column.

        Of objects only the events that have them count; the numbers of objects stand with the size.
        """
        width = max(len(label) for label in self._labels_with_units())
        rows = [f"{'':{width}} {'mean':>11} {'std':>11} {'min':>11} {'max':>11}"]
        for label, column in zip(self._labels_with_units(), self.values.T, strict=True):
            x = column[~np.isnan(column)]
            numbers = (x.mean(), x.std(), x.min(), x.max()) if len(x) else ()
            rows.append(f"{label:{width}}" + ("".join(f" {number:11.4g}" for number in numbers) or " no event has it"))
        size = f"{len(self):,} events"
        if self.weights is not None:
            size += f", total weight {self.total_weight:.6g}, effective size {self.effective_size:.6g}"
        if self.multiplicity is not None:
            size += f", {told_counts(self.multiplicity, self.values)}"
        return "\n".join([size, *rows])

    def __repr__(self) -> str:
        extras = [name for name in PER_EVENT if getattr(self, name) is not None]
        if self.multiplicity is not None:
            extras.insert(0, told_counts(self.multiplicity, self.values))
        return f"EventSample({len(self):,} events; {'; '.join([listed(self._labels_with_units()), *extras])})"

    def _facts(self) -> dict[str, Any]:
        found: dict[str, Any] = {"columns": listed(self._labels_with_units(), 400)}
        if self.weights is not None:
            found["weights"] = f"total {self.total_weight:.6g}, effective size {self.effective_size:.6g}"
        if self.uncertainties is not None:
            found["uncertainties"] = f"sigma/p = {span(self.uncertainties, '.2g')}"
        if self.log_weights is not None:
            found["log_weights"] = f"of {self.log_weights.shape[1]} draws"
        if self.multiplicity is not None:
            found["multiplicity"] = repr(self.multiplicity)
        return found | ({"provenance": brief(self.provenance)} if self.provenance else {})

    def _details(self) -> str:
        return self.summary()

    def _per_event(self) -> str:
        """What the sample has for each event besides values, in words."""
        has = [name for name in ("weights", "uncertainties") if getattr(self, name) is not None]
        if self.log_weights is not None:
            has.append(f"log_weights of {self.log_weights.shape[1]} draws")
        return " and ".join(has) or "no weights, uncertainties or log_weights"

    def _labels_with_units(self) -> list[str]:
        return [f"{name} [{unit}]" if unit else name for name, unit in zip(self.names, self.units, strict=True)]
