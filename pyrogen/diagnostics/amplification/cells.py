"""Cells of equal probability in any number of dimensions: the leaves of a k-d tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pyrogen.printing import Brief

Array = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False, repr=False)
class Cells(Brief):
    """B boxes that fill the space of d observables.

    Attributes:
        names: of the observables.
        units: of them, ``""`` where they have none.
        low, high: lower and upper limits of every box, ``[B, d]``; infinite where it has none. The lower limit belongs
            to the box.
        cuts: the tree: ``(observable, value, first box above the cut)`` of every node, by ``(first, behind last)`` box
            of what it divides.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    low: Array
    high: Array
    cuts: dict[tuple[int, int], tuple[int, float, int]]

    def __len__(self) -> int:
        return len(self.low)

    def _summary(self) -> str:
        return f"{len(self)} cells in {', '.join(self.names)}"

    @classmethod
    def of(
        cls, values: Array, count: int, names: Sequence[str], units: Sequence[str], weights: Array | None = None
    ) -> Cells:
        """So many cells that hold the same sum of weights.

        Boxes are divided at quantiles, the observables in turn, by as many cells as come to lie on either side.

        Args:
            values: ``[n, d]``.
            count: number of cells B.
            names, units: of the observables.
            weights: ``[n]``, none of them negative; None: all the same.

        Raises:
            ValueError: fewer values than cells, or too few different ones to divide a box.
        """
        w = np.ones(len(values)) if weights is None else weights
        low, high = (np.full((count, values.shape[1]), sign * np.inf) for sign in (-1, 1))
        cells = cls(tuple(names), tuple(units), low, high, {})
        cells._divide(values, w, np.arange(len(values)), 0, count, 0)
        return cells

    def _divide(self, values: Array, weights: Array, rows: Rows, first: int, end: int, depth: int) -> None:
        if end - first < 2:
            return
        at, middle = depth % values.shape[1], (first + end) // 2
        value = _quantile(values[rows, at], weights[rows], (middle - first) / (end - first))
        below = values[rows, at] < value
        if not below.any() or below.all():
            raise ValueError(
                f"a cell with {len(rows)} events of the reference cannot be divided in {self.names[at]}: give fewer "
                f"cells than {len(self)}, a larger reference, or an observable with more different values"
            )
        self.high[first:middle, at] = value
        self.low[middle:end, at] = value
        self.cuts[first, end] = at, value, middle
        self._divide(values, weights, rows[below], first, middle, depth + 1)
        self._divide(values, weights, rows[~below], middle, end, depth + 1)

    def numbers(self, values: Array) -> Rows:
        """The cell of every row of values ``[n, d]``, ``[n]``."""
        found = np.zeros(len(values), dtype=np.int64)
        self._fill(values, np.arange(len(values)), 0, len(self), found)
        return found

    def _fill(self, values: Array, rows: Rows, first: int, end: int, found: Rows) -> None:
        if end - first < 2 or not len(rows):
            found[rows] = first
            return
        at, value, middle = self.cuts[first, end]
        below = values[rows, at] < value
        self._fill(values, rows[below], first, middle, found)
        self._fill(values, rows[~below], middle, end, found)

    def words(self, cell: int) -> str:
        """The box in words, such as ``M 80.2 to 91.1 GeV, pT above 40 GeV``."""
        parts = []
        for name, unit, low, high in zip(self.names, self.units, self.low[cell], self.high[cell], strict=True):
            limits = {
                (True, True): f"{low:.4g} to {high:.4g}",
                (True, False): f"above {low:.4g}",
                (False, True): f"below {high:.4g}",
            }.get((bool(np.isfinite(low)), bool(np.isfinite(high))))
            if limits:
                parts.append(f"{name} {limits} {unit}".rstrip())
        return ", ".join(parts) or "everywhere"


def _quantile(values: Array, weights: Array, share: float) -> float:
    """The value below which this share of the weights is; infinite where there are no values."""
    if not len(values):
        return np.inf
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total[:-1], total[-1] * share, side="right")])
