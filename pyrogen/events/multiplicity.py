"""Events with a varying number of objects, such as jets: how their rows are laid out, and which numbers are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self, TypeVar

import numpy as np
import torch

from ..checks import check_settings, door, instance, require, whole
from ..printing import Shown

Values = TypeVar("Values", np.ndarray, torch.Tensor)


@dataclass(frozen=True)
class Multiplicity(Shown):
    """The layout of events with a varying number of objects: one row of d columns for each, NaN where no object is.

    A row has ``shared`` columns that every event has (two leptons, say), then ``each`` columns for each of at most
    ``most`` objects (jets), in order. An event with n objects has the numbers of the first n and NaN in all columns
    behind them: an object that is not there has no momentum, not even zero. The NaN tell the number n.

    Args:
        shared: number of columns that every event has, at least 0.
        each: number of columns of one object, at least 1.
        most: largest number of objects.
        least: smallest number of objects.

    Raises:
        ValueError: numbers out of range, or events that could have no column at all.
    """

    shared: int
    each: int
    most: int
    least: int = 1

    def __post_init__(self) -> None:
        check_settings(self, shared=whole(0), each=whole(1), most=whole(1), least=whole(0))
        require(self.least <= self.most, "least", self.least, f"at most most = {self.most}")
        require(
            self.shared + self.least > 0, "least", self.least, "at least 1 where shared is 0: events need some column"
        )

    @property
    def features(self) -> int:
        """Number of columns d of a row."""
        return self.shared + self.each * self.most

    @property
    def numbers(self) -> range:
        """The numbers of objects that an event may have."""
        return range(self.least, self.most + 1)

    @door(which=whole(0))
    def columns(self, which: int) -> slice:
        """The columns of the object ``which``, counted from 0."""
        require(which < self.most, "which", which, f"less than most = {self.most}")
        first = self.shared + self.each * which
        return slice(first, first + self.each)

    @door(count=whole(0))
    def width(self, count: int) -> int:
        """Number of columns that an event with ``count`` objects fills: the first ones."""
        require(count <= self.most, "count", count, f"at most most = {self.most}")
        return self.shared + self.each * count

    def counts(self, values: Values) -> Values:
        """Number of objects ``[...]`` of rows ``[..., d]``, by the first column of each; rows are not checked."""
        there = values[..., self.shared :: self.each] == values[..., self.shared :: self.each]
        return there.sum(-1)  # type: ignore[return-value]

    def exists(self, values: Values) -> Values:
        """Which columns ``[..., d]`` belong to objects that are there, by :meth:`counts`."""
        counts = self.counts(values)
        filled = self.shared + self.each * counts
        if isinstance(values, torch.Tensor):
            return torch.arange(self.features, device=values.device) < filled[..., None]  # type: ignore[return-value]
        return np.arange(self.features) < filled[..., None]

    def check(
        self, table: np.ndarray, what: str = "events", names: Sequence[str] | None = None, first: int = 0
    ) -> None:
        """Check that rows ``[N, d]`` are laid out like this: NaN behind the last object, all other numbers finite.

        Args:
            table: the rows.
            what: how the error calls them.
            names: of the columns, for the error.
            first: number of the first row, for the error.

        Raises:
            ValueError: another number of columns; infinite numbers; NaN among the shared columns or within an object;
                an object behind one that is not there; too few objects. The first such row is named.
        """
        if table.ndim != 2 or table.shape[1] != self.features:
            raise ValueError(
                f"{what} must have {self.features} columns, {self.shared} shared and {self.each} for each of "
                f"{self.most} objects; got shape {list(table.shape)}"
            )
        wrong = np.isfinite(table) != self.exists(table)
        rows = np.flatnonzero(wrong.any(axis=1))
        if len(rows):
            row, column = rows[0], int(np.argmax(wrong[rows[0]]))
            label = f"{column} ({names[column]})" if names is not None else str(column)
            raise ValueError(
                f"{what}: {len(rows)} of {len(table)} rows do not fit their number of objects; the first is row "
                f"{first + row}, column {label}: {table[row, column]}. Each row has {self.shared} finite numbers, then "
                f"{self.each} for each object, without a gap, and NaN in all columns behind the last object"
            )
        few = np.flatnonzero(self.counts(table) < self.least)
        if len(few):
            raise ValueError(
                f"{what}: {len(few)} of {len(table)} events have fewer than {self.least} objects; the first is row "
                f"{first + few[0]}, with {self.counts(table[few[0]])}. Leave them out, or take Multiplicity(least=...)"
            )

    def config(self) -> dict[str, int]:
        """The arguments, in JSON types."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The layout that :meth:`config` described."""
        return cls(**{name: int(config[name]) for name in ("shared", "each", "most", "least")})


LAYOUT = instance(Multiplicity, "a pyrogen.events.Multiplicity")


def fill_counts(table: np.ndarray, counts: np.ndarray, multiplicity: Multiplicity) -> np.ndarray:
    """Rows ``[N, d]`` with NaN behind the last object, by the number of objects ``[N]`` of each.

    Raises:
        ValueError: another shape, counts that are no whole numbers in the range of the layout, or numbers that are not
            finite where there is an object.
    """
    layout = multiplicity
    require(table.ndim == 2 and table.shape[1] == layout.features, "values", table, f"[N, {layout.features}]")
    require(counts.shape == (len(table),), "counts", counts, f"one number for each event, shape [{len(table)}]")
    wrong = np.flatnonzero(~np.isin(counts, layout.numbers))
    if len(wrong):
        raise ValueError(
            f"counts: {len(wrong)} of {len(counts)} are no whole number from {layout.least} to {layout.most}; the "
            f"first is {counts[wrong[0]]} in row {wrong[0]}. Events with fewer objects are left out beforehand, or "
            "Multiplicity(least=...) is smaller; of events with more the leading ones count: np.minimum(counts, "
            f"{layout.most})"
        )
    there = np.arange(layout.features) < layout.shared + layout.each * counts[:, None]
    bad = there & ~np.isfinite(table)
    rows = np.flatnonzero(bad.any(axis=1))
    if len(rows):
        column = int(np.argmax(bad[rows[0]]))
        raise ValueError(
            f"values: {len(rows)} of {len(table)} rows have NaN or infinity where counts says that there is an object; "
            f"the first is row {rows[0]} with {counts[rows[0]]} objects, column {column}: {table[rows[0], column]}"
        )
    return np.where(there, table, np.nan)


def selected(multiplicity: Multiplicity, columns: Sequence[int], names: Sequence[str]) -> Multiplicity | None:
    """The layout of some columns of the rows; None where they are no layout, and every event has them all.

    Args:
        multiplicity: that of all columns.
        columns: their numbers, in their new order.
        names: of all columns, for the error.

    Raises:
        ValueError: columns that not every event has, other than shared ones and then those of the leading objects,
            whole and in order.
    """
    layout, always = multiplicity, multiplicity.width(multiplicity.least)
    shared = next((i for i, column in enumerate(columns) if column >= layout.shared), len(columns))
    most = min(-(-(len(columns) - shared) // layout.each), layout.most)
    whole_objects = list(columns[shared:]) == list(range(layout.shared, layout.width(most)))
    if most and whole_objects and shared + layout.least > 0:  # every event has to keep some column
        return Multiplicity(shared, layout.each, most, min(layout.least, most))
    odd = next((column for column in columns if column >= always), None)
    if odd is None:
        return None
    raise ValueError(
        f"names: events with fewer than {(odd - layout.shared) // layout.each + 1} objects have no column "
        f"{names[odd]!r}, so the columns must have a layout: some of the {layout.shared} shared ones, then all "
        f"{layout.each} columns of the first object, of the second, ... in their order. For single columns of the "
        "events with n objects take sample.with_count(n).select(names)"
    )


def told_counts(multiplicity: Multiplicity, values: np.ndarray) -> str:
    """How many rows ``[N, d]`` have how many objects, in words."""
    found = np.bincount(multiplicity.counts(values), minlength=multiplicity.most + 1)
    return "objects: " + ", ".join(f"{n} in {found[n]:,} events" for n in multiplicity.numbers)
