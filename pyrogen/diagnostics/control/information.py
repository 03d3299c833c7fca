"""How much of what a classifier knows of a difference between two samples is in one observable."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pyrogen.diagnostics.control.tables import TWICE
from pyrogen.signals import uninterrupted

Array = NDArray[np.float64]
Cells = NDArray[np.int16]

IN_CELL = 25  # events of both samples and one fold
MOST_CELLS = 200  # in the middle of the distribution; its tails have more
ROUNDING = 1e-9  # of probabilities
KNOWN = 2.0  # sigma of all that the classifier knows: below it no share of it is given
FEWEST = 5.0  # effective generated events of a cell whose ratio can be trusted


@dataclass(frozen=True, eq=False)
class Contrast:
    """Two weighted samples, those of the truth first, and log w of their events; arrays ``[N + M]``.

    Attributes:
        true: which events are true ones.
        weights: of the events; each sample sums to one.
        log_w: what the classifier says.
        fold: of the cross-fitting.
    """

    true: NDArray[np.bool_]
    weights: Array
    log_w: Array
    fold: NDArray[np.int64]

    def within(self, there: NDArray[np.bool_]) -> tuple[Array, float]:
        """Weights with the sign of the sample, 0 where an event does not count; and the part of the truth that does.

        Each sample sums to one over the events that count; to zero if nothing of one of them counts.
        """
        signed = np.zeros(len(self.weights))
        parts = [float(self.weights[there & which].sum()) for which in (self.true, ~self.true)]
        if min(parts) <= 0:
            return signed, 0.0
        for sign, which, part in ((1, self.true, parts[0]), (-1, ~self.true, parts[1])):
            rows = there & which
            signed[rows] = sign * self.weights[rows] / part
        return signed, parts[0]

    def mended(self, cells: Cells) -> Contrast:
        """The same with generated events reweighted such that the observable of these cells agrees.

        Cells with (almost) no generated or no true events are left out. What remains is what this observable does not
        explain, in the log w too.
        """
        numbers = np.where(cells < 0, cells.max() + 1, cells)
        count = int(numbers.max()) + 1
        p, q = (np.bincount(numbers, np.where(which, self.weights, 0.0), count) for which in (self.true, ~self.true))
        squares = np.bincount(numbers, np.where(self.true, 0.0, self.weights**2), count)
        good = (p > 0) & (q > 0) & (q**2 >= FEWEST * squares)
        ratio = np.where(good, p / np.where(good, q, 1.0), 1.0)[numbers]
        weights = np.where(good[numbers], np.where(self.true, 1.0, ratio) * self.weights, 0.0)
        for which in (self.true, ~self.true):
            total = weights[which].sum()
            weights[which] /= total if total > 0 else 1.0
        return replace(self, weights=weights, log_w=self.log_w - np.log(ratio))


@dataclass(frozen=True, eq=False)
class Information:
    """``E_truth[c] - E_generated[c]``, c what an observable knows of the classifier's probability of truth.

    Attributes:
        value: twice this is the triangular discrimination of the distributions of the observable, if the classifier is
            right: 0 of equal, 1 of separate ones.
        terms: of the single events, ``[N + M]``, without their means: the variance is the sum of their squares.
        factor: on the error where the samples do not differ: sqrt(2) for several folds, because every pair of folds
            counts twice: each trains what scores the other.
    """

    value: float
    terms: Array
    factor: float = 1.0

    @property
    def sigma(self) -> float:
        """``value`` in units of its error without a difference; 0 where the observable knows nothing."""
        error = self.factor * float(np.sqrt(np.sum(self.terms**2)))
        return self.value / error if error > 0 else 0.0

    def share_of(self, whole: Information) -> tuple[float, float]:
        """The part of the information of another one, and its error; NaN where the other is compatible with 0."""
        if whole.sigma < KNOWN:
            return np.nan, np.nan
        share = self.value / whole.value
        return share, float(np.sqrt(np.sum((self.terms - share * whole.terms) ** 2))) / whole.value


def one_sided(sigma: float | Array) -> Array:
    """The p-value of so many standard deviations."""
    with uninterrupted():
        from scipy.special import ndtr
    return ndtr(-np.asarray(sigma))


def cells_of(values: Array, contrast: Contrast) -> Cells:
    """Numbers of the cells of an observable ``[N + M]``: quantiles of both samples, finer in the tails; -1 for NaN.

    A value that many events share, such as zero energy, is a cell of its own.
    """
    there = ~np.isnan(values)
    numbers = np.full(len(values), -1, dtype=np.int16)
    x, least = values[there], IN_CELL * (int(contrast.fold.max()) + 1)
    atoms, smooth = _atoms(x, least)
    edges = _quantile_edges(smooth, least)
    below, at = (np.searchsorted(np.sort(smooth), its) for its in (edges, atoms))
    if len(atoms) and len(edges):  # no part of a cell that an atom divides may be too small
        edges = edges[np.abs(below[:, None] - at).min(1) >= least]
    edges = np.unique(np.concatenate([edges, atoms, np.nextafter(atoms, np.inf)]))
    numbers[there] = np.unique(np.searchsorted(edges, x, "right"), return_inverse=True)[1]
    return numbers


def _atoms(x: Array, least: int) -> tuple[Array, Array]:
    """Values that at least so many events share, the most frequent ones; and all other values."""
    different, which, counts = np.unique(x, return_inverse=True, return_counts=True)
    shared = counts >= least
    if shared.sum() > MOST_CELLS:
        shared = counts >= np.sort(counts)[-MOST_CELLS]
    return different[shared], x[~shared[which]]


def _quantile_edges(x: Array, least: int) -> Array:
    part = min(least / max(len(x), 1), 0.25)
    if len(x) < least:
        return np.zeros(0)
    width = max(part, 1 / MOST_CELLS)
    tail = width / 2 ** np.arange(1, max(1, 1 + int(np.log2(width / part))))[::-1]
    middle = np.linspace(0, 1, max(2, round(1 / width)) + 1)[1:-1]
    levels = np.concatenate([tail, middle, 1 - tail[::-1]])
    return np.unique(np.quantile(x, levels, method="lower"))


def information(cells: Cells | None, contrast: Contrast) -> Information:
    """That of an observable by its cells; None: all that the classifier knows.

    c of an event is the mean of the classifier's ``w / (1 + w)`` over the other events of both samples in its cell and
    fold. It knows nothing of which sample an event of this fold belongs to: without a difference between the samples
    the value is zero on average, whatever the classifier has learned. Where some events do not have the observable,
    those that have it are compared.
    """
    probability = 1 / (1 + np.exp(-np.clip(contrast.log_w, -700, 700)))
    there = np.ones(len(probability), dtype=bool) if cells is None else cells >= 0
    signed, part = contrast.within(there)
    c = probability if cells is None else _others_mean(cells, there, probability, np.abs(signed), contrast.fold)
    terms = np.zeros(len(c))
    if not there.any() or np.ptp(c[there]) < ROUNDING:
        return Information(0.0, terms)
    for which in (contrast.true, ~contrast.true):
        rows = which & there
        total = float(signed[rows].sum())  # 1 or -1
        terms[rows] = part * signed[rows] * (c[rows] - float(signed[rows] @ c[rows]) / (total or 1.0))
    return Information(part * float(signed @ c), terms, TWICE if contrast.fold.max() > 0 else 1.0)


def _others_mean(cells: Cells, there: NDArray[np.bool_], values: Array, sizes: Array, fold: NDArray[np.int64]) -> Array:
    """Mean of the values of all other events of the same cell and fold, zero where an event does not count."""
    numbers = np.maximum(cells, 0).astype(np.int64) * (fold.max() + 1) + fold
    size, total = np.bincount(numbers, sizes), np.bincount(numbers, sizes * values)
    rest = size[numbers] - sizes
    enough = there & (rest > 1e-9 * size[numbers])
    mean = float(sizes @ values) / max(float(sizes.sum()), 1e-300)
    found = np.divide(total[numbers] - sizes * values, rest, out=np.full(len(values), mean), where=enough)
    return np.where(there, found, 0.0)


def effective(weights: Array) -> float:
    """``(sum w)^2 / sum w^2``: the number of unweighted events with the same statistical power."""
    squares = float(np.sum(weights**2))
    return max(float(weights.sum()), 0.0) ** 2 / squares if squares > 0 else 0.0


def kolmogorov_smirnov(values: Array, tail: Array, bulk: Array) -> float:
    """Largest difference of two weighted cumulative distributions; weights ``[n]`` that sum to one each."""
    order = np.argsort(values, kind="stable")
    x, steps = values[order], np.cumsum((tail - bulk)[order])
    last = np.append(x[1:] != x[:-1], True)
    return float(np.abs(steps[last]).max(initial=0.0))
