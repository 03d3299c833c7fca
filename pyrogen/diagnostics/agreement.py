"""Whether generated events follow the distribution of the true ones: every column, and every pair of columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pyrogen.checks import door
from pyrogen.diagnostics.quality import checked_samples
from pyrogen.events import EventSample, EventsLike
from pyrogen.events.doors import PLAIN_EVENTS
from pyrogen.labelled import Coordinates, Labelled
from pyrogen.signals import uninterrupted

Array = NDArray[np.float64]
BINS, SIDE = 24, 6  # bins of a column, and along each side of a pair
PER_BIN = 30  # true events (effectively) in each bin, at least
SIGNIFICANT = 1e-3  # probability that any of all columns and pairs of a perfect generator is called different


@dataclass(frozen=True, eq=False, repr=False)
class Agreement(Labelled):
    """Generated against true events in bins that hold equal shares of the true ones.

    Attributes:
        names: n columns or pairs of columns.
        chi2: ``[n]``, of the difference in the bins; both samples fluctuate.
        freedom: ``[n]``, its degrees of freedom: number of bins minus one.
        p_value: ``[n]``, probability of at least this chi2 for two samples of one distribution.
        deviation: ``[n]``, root mean square of the relative difference per bin, the statistical part subtracted: 0.1
            where bins are off by 10 percent.
        sizes: effective numbers of true and of generated events.
    """

    _dims: ClassVar[Mapping[str, str]] = {
        "chi2": "comparison",
        "freedom": "comparison",
        "p_value": "comparison",
        "deviation": "comparison",
        "significant": "comparison",
    }
    _within: ClassVar[tuple[str, ...]] = ("names",)

    names: tuple[tuple[str, ...], ...]
    chi2: Array
    freedom: NDArray[np.int64]
    p_value: Array
    deviation: Array
    sizes: tuple[float, float]

    @property
    def significant(self) -> NDArray[np.bool_]:
        """``[n]``, which are different; for samples of one distribution any is with a probability of 0.1 percent."""
        return self.p_value < SIGNIFICANT / len(self.names)

    def _coordinates(self) -> Coordinates:
        return {"comparison": ("comparison", [", ".join(names) for names in self.names], {})}

    def text(self) -> str:
        """The table as aligned plain text, the largest differences first."""
        width = max(len(", ".join(names)) for names in self.names)
        rows = [f"{'':{width}}  chi2 / dof       p-value  deviation"]
        for i in np.argsort(self.p_value - self.deviation, kind="stable"):
            ratio = f"{self.chi2[i]:.1f} / {self.freedom[i]}"
            mark = "  different" if self.significant[i] else ""
            rows.append(
                f"{', '.join(self.names[i]):{width}}  {ratio:14} {self.p_value[i]:9.2g}  {self.deviation[i]:9.1%}{mark}"
            )
        return "\n".join([*rows, "{:,.0f} true and {:,.0f} generated events (effectively)".format(*self.sizes)])

    def _summary(self) -> str:
        return f"{int(self.significant.sum())} of {len(self.names)} columns and pairs are different"


@door(truth=PLAIN_EVENTS, generated=PLAIN_EVENTS)
def agreement(truth: EventsLike, generated: EventsLike) -> Agreement:
    """Compare generated with true events in every column and every pair of columns, by chi2 in bins.

    The bins hold equal shares of the true events: 24 of a column, 6 by 6 of a pair, fewer where there are not 30 true
    events for each. The variance of the difference is that of both samples, so that a generator is not blamed for the
    fluctuations of its training events; as it learned from just those, the test is a little too mild.

    Args:
        truth: events ``[N, d]``, a tensor, an array or an :class:`~pyrogen.EventSample`, whose weights (of either sign)
            count.
        generated: events ``[M, d]``.

    Raises:
        ValueError: empty samples, numbers that are not finite, different columns, or fewer than 60 true events.
    """
    with uninterrupted():
        from scipy.stats import chi2 as chi2_of

    samples = checked_samples(positive=False, truth=truth, generated=generated)
    true, made = samples["truth"], samples["generated"]
    if true.effective_size < 2 * PER_BIN:
        raise ValueError(f"truth has effectively {true.effective_size:.0f} events; at least {2 * PER_BIN} are needed")
    found = [_compare(true, made, *bins) for bins in _all_bins(true, made)]
    chi2, freedom, deviation = (np.array(column) for column in zip(*found, strict=True))
    names = [(name,) for name in true.names] + list(combinations(true.names, 2))
    return Agreement(
        tuple(names),
        chi2,
        freedom,
        np.where(freedom > 0, chi2_of.sf(chi2, np.maximum(freedom, 1)), 1.0),
        deviation,
        (true.effective_size, made.effective_size),
    )


def _all_bins(true: EventSample, made: EventSample) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """For every column, then for every pair: the bins of true and of generated events."""
    room = true.effective_size / PER_BIN
    for a, b in zip(true.values.T, made.values.T, strict=True):
        yield _bins(a, b, int(min(BINS, room)))
    side = int(min(SIDE, room**0.5))
    for i, j in combinations(range(true.features), 2):
        first = _bins(true.values[:, i], made.values[:, i], side)
        second = tuple(np.zeros(len(bins), dtype=np.int64) for bins in first)
        for slab in range(side):  # the bins of the second column are its quantiles where the first is in one bin
            a, b = first[0] == slab, first[1] == slab
            if a.any():
                second[0][a], second[1][b] = _bins(true.values[a, j], made.values[b, j], side)
        yield first[0] * side + second[0], first[1] * side + second[1]


def _bins(true: Array, made: Array, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The bins of two columns; equal values are in one bin."""
    edges = np.unique(np.quantile(true, np.arange(1, number) / number)) if number > 1 else np.empty(0)
    return np.searchsorted(edges, true, side="left"), np.searchsorted(edges, made, side="left")


def _compare(
    true: EventSample, made: EventSample, true_bins: NDArray[np.int64], made_bins: NDArray[np.int64]
) -> tuple[float, int, float]:
    """chi2, degrees of freedom, and relative deviation beyond the statistics."""
    number = int(max(true_bins.max(), made_bins.max())) + 1
    (p, p_variance), (q, q_variance) = (
        _shares(sample, bins, number) for sample, bins in ((true, true_bins), (made, made_bins))
    )
    filled = p_variance + q_variance > 0
    difference, variance = (p - q)[filled], (p_variance + q_variance)[filled]
    expected = np.maximum(np.abs(p[filled]), 1 / true.effective_size)
    excess = float(np.sum((difference**2 - variance) / expected) / expected.sum())
    return float(np.sum(difference**2 / variance)), int(filled.sum()) - 1, max(excess, 0.0) ** 0.5


def _shares(sample: EventSample, bins: NDArray[np.int64], number: int) -> tuple[Array, Array]:
    """Share of the weight in each bin, and its variance."""
    weights = np.ones(len(sample)) if sample.weights is None else sample.weights
    total = weights.sum()
    return np.bincount(bins, weights, number) / total, np.bincount(bins, weights**2, number) / total**2
