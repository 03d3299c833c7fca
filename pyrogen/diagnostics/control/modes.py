"""The failure modes of a generator in one observable, by name (arXiv:2305.16774, sec. 2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pyrogen.checks import TEXT, door
from pyrogen.diagnostics.control.information import Cells, Contrast
from pyrogen.printing import Brief

Array = NDArray[np.float64]

MISSING, BOUNDARY, SMEARED, OTHER, NONE = (
    "missing feature or tail",
    "wrong boundary",
    "smeared peak",
    "other shape",
    "none",
)
COST = 12.0  # of one more step of the ratio, in twice the log-likelihood: random steps of 100 cells are worth about 10
MOST_STEPS = 14
SURE = 3.0  # standard errors
EMPTY = 0.25  # truth / generated, below which the truth has next to nothing
CLEARLY = 1.5  # truth / generated, above which something is missing
MAIN = 0.5  # of the divergence that a mode must hold to be the name of the failure
STEEP = 3.0  # how much more than its sides a spot must stand out to be a missing feature, in log(truth / generated)


@dataclass(frozen=True, repr=False)
class Region(Brief):
    """An interval of an observable in which the generator has too few or too many events.

    Attributes:
        low, high: its limits; infinite where it goes on to the end of the distribution.
        truth, generated: fractions of the events (that have the observable) that lie there.
        error: of their difference.
        tail: fraction of the tail's events that lie there: of true events with large w, where there are too few
            generated ones, of generated events with small w otherwise; NaN without a tail.
        value: the only value there, one that many events share, such as zero energy; NaN for an interval.
    """

    low: float
    high: float
    truth: float
    generated: float
    error: float
    tail: float
    value: float = np.nan

    @property
    def missing(self) -> float:
        """Fraction of the events that are missing there in the generated sample; negative where it has too many."""
        return self.truth - self.generated

    @door(unit=TEXT)
    def words(self, unit: str) -> str:
        """``below 0.4 GeV`` or ``at 0 GeV``, and how many events are missing or too many."""
        unit = f" {unit}" if unit else ""
        if np.isfinite(self.value):
            where = f"at {self.value:.4g}{unit}"
        elif np.isinf(self.low) and np.isinf(self.high):
            where = "everywhere"
        elif np.isinf(self.low):
            where = f"below {self.high:.4g}{unit}"
        elif np.isinf(self.high):
            where = f"above {self.low:.4g}{unit}"
        else:
            where = f"from {self.low:.4g} to {self.high:.4g}{unit}"
        what = "missing" if self.missing > 0 else "too many"
        found = (
            f"{where}: {abs(self.missing):.2%} +- {self.error:.2%} of the events {what} "
            f"(truth {self.truth:.2%}, generated {self.generated:.2%})"
        )
        if np.isfinite(self.tail):
            sample, sign = ("true", "large") if self.missing > 0 else ("generated", "small")
            found += f", {self.tail:.0%} of the {sample} events with {sign} w"
        return found


@dataclass(frozen=True, repr=False)
class FailureMode(Brief):
    """What is wrong in one observable.

    The ratio truth / generated as a function of the observable is described by steps, and the sequence of these is
    named:

    * *smeared peak*: highest where the density of the truth is, and below one on both sides of it, where there still
      are true events (at least a quarter of the generated ones);
    * *wrong boundary*: generated events, but next to no true ones (less than a quarter), at an end of the distribution
      or in a hole;
    * *missing feature or tail*: at least 1.5 times as much truth as generated events at an end, or in a spot;
    * *other shape*: none of these holds half of the divergence of both distributions: a shift, say, or a wrong slope.

    Where two fit, that which holds more of the divergence gives the name.

    Attributes:
        kind: ``"missing feature or tail"``, ``"wrong boundary"``, ``"smeared peak"``, or ``"other shape"``.
        observable: its name.
        unit: of the observable.
        regions: where, those of the mode first.
        sigma: significance of the observable, without a look elsewhere.
        part: fraction of the events that have the observable.
    """

    kind: str
    observable: str
    unit: str
    regions: tuple[Region, ...]
    sigma: float
    part: float = 1.0

    def _summary(self) -> str:
        return self.text()

    def text(self) -> str:
        """One line with the evidence."""
        where = "; ".join(each.words(self.unit) for each in self.regions)
        of = "" if self.part > 1 - 1e-9 else f" (of the {self.part:.1%} of the events that have it)"
        return f"{self.kind} in {self.observable}{of}, {self.sigma:.1f} sigma: {where}"


@dataclass(frozen=True)
class _Step:
    """Neighbouring cells in which the ratio is the same within its errors."""

    first: int
    last: int  # included
    truth: float
    generated: float
    error: float
    density: float  # of the truth

    @property
    def ratio(self) -> float:
        """Truth over generated, at least 0 and at most 1000."""
        return min(max(self.truth, 0.0) / max(self.generated, 1e-3 * max(self.truth, 1e-12)), 1e3)

    @property
    def sigma(self) -> float:
        return (self.truth - self.generated) / self.error if self.error > 0 else 0.0

    @property
    def divergence(self) -> float:
        """Its part of the symmetric Kullback-Leibler divergence."""
        return (self.truth - self.generated) * float(np.log(np.clip(self.ratio, 0.05, 20)))


def failure_mode(
    name: str, unit: str, values: Array, cells: Cells, contrast: Contrast, tails: tuple[Array, Array], sigma: float
) -> FailureMode:
    """Name what is wrong in an observable in which the samples are known to differ.

    See :class:`FailureMode`. The number of steps is that which explains the most for its cost.

    Args:
        name: of the observable.
        unit: of the observable.
        values: ``[N + M]``.
        cells: of :func:`cells_of`.
        contrast: the samples.
        tails: weights of the events of the tails with small w (generated) and with large w (truth), ``[N + M]``.
        sigma: significance of the observable.
    """
    signed, part = contrast.within(cells >= 0)
    sums = _Sums(values, cells, contrast.true, signed)
    kind, chosen = _named(_steps(sums))
    regions = tuple(_region(group, sums, cells, tails) for group in chosen)
    return FailureMode(kind, name, unit, regions, sigma, part)


def _named(steps: list[_Step]) -> tuple[str, list[list[_Step]]]:
    """The kind of a sequence of steps, and the groups of neighbouring ones that show it."""
    total = sum(each.divergence for each in steps)
    peak = _peak(steps)
    if peak:
        return SMEARED, peak
    low = _groups(steps, [each.ratio < EMPTY and each.sigma < -SURE for each in steps])
    high = _groups(steps, [each.ratio > CLEARLY and each.sigma > SURE for each in steps])
    candidates = []
    for kind, groups in ((BOUNDARY, low), (MISSING, high)):
        held = sum(each.divergence for group in groups for each in group)
        if held > MAIN * total:
            candidates.append((held, kind, groups))
    if candidates:
        _, kind, groups = max(candidates, key=lambda each: each[0])
        return kind, sorted(groups, key=lambda group: -sum(each.divergence for each in group))
    strong = sorted(steps, key=lambda each: -each.divergence)
    sure = [each for each in strong if abs(each.sigma) > SURE]
    return OTHER, [[each] for each in (sure or strong[:1])[:3]]


def _peak(steps: list[_Step]) -> list[list[_Step]]:
    """The peak and both sides of it, if the steps are those of a smeared peak."""
    found: list[list[_Step]] = []
    best = 0.0
    for c in range(1, len(steps) - 1):
        here = steps[c]
        sides = _slope(steps[:c][::-1], here), _slope(steps[c + 1 :], here)
        if not (here.ratio > 1 and here.sigma > SURE and all(sides)):
            continue
        # The neighbours of the top belong to it while they are above one.
        core = [here, *(each for side in sides for each in side if each.ratio > 1)]
        outer = [[each for each in side if each.ratio <= 1] for side in sides]
        # Next to no truth at all is a boundary, and sides as high as everything else those of a missing spot.
        mild = [[each for each in side if each.ratio > EMPTY and each.sigma < -SURE] for side in outer]
        if not all(mild) or any(each[0].density >= here.density for each in outer):
            continue
        depth = np.mean([-np.log(_joint(each)) for each in mild])
        if np.log(_joint(core)) > STEEP * depth:
            continue
        held = sum(each.divergence for each in [*core, *outer[0], *outer[1]])
        if held > max(best, MAIN * sum(each.divergence for each in steps)):
            best = held
            found = [sorted(core, key=lambda each: each.first), outer[0][::-1], outer[1]]
    return found


def _slope(side: list[_Step], top: _Step) -> list[_Step]:
    """The steps from a top downwards, as far as they fall."""
    found: list[_Step] = []
    last = top.ratio
    for each in side:
        if each.ratio >= last:
            break
        found.append(each)
        last = each.ratio
    return found if found and found[-1].ratio < 1 else []


def _joint(group: list[_Step]) -> float:
    return max(sum(each.truth for each in group), 1e-9) / max(sum(each.generated for each in group), 1e-9)


def _groups(steps: list[_Step], chosen: list[bool]) -> list[list[_Step]]:
    """Neighbouring chosen steps together."""
    found: list[list[_Step]] = []
    for i, (each, good) in enumerate(zip(steps, chosen, strict=True)):
        if good and i and chosen[i - 1]:
            found[-1].append(each)
        elif good:
            found.append([each])
    return found


class _Sums:
    """Sums of weights, and of their squares, of both samples over neighbouring cells."""

    def __init__(self, values: Array, cells: Cells, true: NDArray[np.bool_], signed: Array) -> None:
        there = cells >= 0
        numbers, count = cells[there], int(cells.max()) + 1

        def running(weights: Array) -> Array:
            return np.append(0.0, np.cumsum(np.bincount(numbers, weights[there], count)))

        self.p, self.q = running(np.where(true, signed, 0.0)), running(np.where(true, 0.0, -signed))
        self.pp, self.qq = running(np.where(true, signed, 0.0) ** 2), running(np.where(true, 0.0, signed) ** 2)
        order = np.argsort(values[there], kind="stable")
        x, own = values[there][order], numbers[order]
        self.low = x[np.searchsorted(own, np.arange(count))]
        self.high = x[np.searchsorted(own, np.arange(count), "right") - 1]
        gaps = self.low[1:] - self.high[:-1] if count > 1 else np.zeros(1)
        self._ends = float(self.low[0] - gaps[0] / 2), float(self.high[-1] + gaps[-1] / 2)

    def step(self, first: int, last: int) -> _Step:
        """The cells ``first`` to ``last`` as one."""
        truth, truth_variance = _fraction(self.p, self.pp, first, last)
        generated, generated_variance = _fraction(self.q, self.qq, first, last)
        (low, high), ends = self.limits(first, last), self._ends
        width = max(min(high, ends[1]) - max(low, ends[0]), 1e-300)
        error = float(np.sqrt(truth_variance + generated_variance))
        return _Step(first, last, truth, generated, error, truth / width)

    def limits(self, first: int, last: int) -> tuple[float, float]:
        """Where these cells begin and end: half-way to the next ones, infinite at the ends."""
        low = -np.inf if first == 0 else 0.5 * (self.high[first - 1] + self.low[first])
        high = np.inf if last == len(self.low) - 1 else 0.5 * (self.high[last] + self.low[last + 1])
        return float(low), float(high)

    def value(self, first: int, last: int) -> float:
        """The only value in these cells, 0 for -0; NaN where there are several."""
        return float(self.low[first]) + 0.0 if self.low[first] == self.high[last] else np.nan


def _fraction(total: Array, squares: Array, first: int, last: int) -> tuple[float, float]:
    """A fraction and its variance; that of one event where there is none."""
    part = float(total[last + 1] - total[first])
    own = float(squares[last + 1] - squares[first])
    one = squares[-1] / max(abs(float(total[-1])), 1e-300)
    return part, max(own * (1 - 2 * part) + part**2 * float(squares[-1]), one**2 if own == 0 else 0.0)


def _steps(sums: _Sums) -> list[_Step]:
    """Where the ratio changes: the steps of the largest likelihood less their cost, by dynamic programming.

    At least two, where there are two cells: the samples are known to differ. Weighted events count as the number of
    unweighted ones with the same errors.
    """
    a, b = (
        np.maximum.accumulate(total) / max(squares[-1], 1e-300)
        for total, squares in ((sums.p, sums.pp), (sums.q, sums.qq))
    )
    count = len(a) - 1
    true, made = (total[None, :] - total[:, None] for total in (a, b))  # of the cells i to j - 1
    both = np.maximum(true + made, 1e-300)
    loss = np.zeros((count + 1, count + 1))
    for n in (true, made):
        loss -= np.where(n > 0, 2 * n * np.log(np.maximum(n, 1e-300) / both), 0.0)
    loss[np.tril_indices(count + 1)] = np.inf
    best = loss[0].copy()
    froms = [np.zeros(count + 1, dtype=int)]
    totals = [best[-1]]
    for _ in range(min(MOST_STEPS, count) - 1):
        table = best[:, None] + loss
        froms.append(table.argmin(0))
        best = table.min(0)
        totals.append(best[-1])
    costs = np.array(totals) + COST * np.arange(len(totals))
    number = 1 + int(np.argmin(costs[1:])) if count > 1 else 0
    ends = [count]
    for k in range(number, 0, -1):
        ends.append(int(froms[k][ends[-1]]))
    bounds = [0, *ends[::-1]]
    return [sums.step(i, j - 1) for i, j in zip(bounds[:-1], bounds[1:], strict=True)]


def _region(group: list[_Step], sums: _Sums, cells: Cells, tails: tuple[Array, Array]) -> Region:
    first, last = group[0].first, group[-1].last
    whole = sums.step(first, last)
    tail = tails[1 if whole.truth > whole.generated else 0]
    total = float(tail[cells >= 0].sum())
    inside = float(tail[(cells >= first) & (cells <= last)].sum())
    part = inside / total if total > 0 else np.nan
    return Region(*sums.limits(first, last), whole.truth, whole.generated, whole.error, part, sums.value(first, last))
