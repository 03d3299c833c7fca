"""Quality of generated events: distances of observables with the floor that even true events have, and a peak."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pyrogen.checks import LIMITS, SEED, array, dictionary, door, optional, require, whole
from pyrogen.diagnostics.distances import positive_weights
from pyrogen.events import EventSample, check_events, check_weights
from pyrogen.events.doors import EVENTS
from pyrogen.printing import Brief
from pyrogen.seeds import stream

Array = NDArray[np.float64]

FEWEST = 100  # effective number of events in the window of a peak


@dataclass(frozen=True, eq=False, repr=False)
class QualityTable(Brief):
    """Wasserstein-1 distances of observables of a generated sample from the truth, next to their floor.

    Attributes:
        names: n observables.
        units: of the distances, ``""`` where not known.
        distance: ``[n]``, of the generated events from the truth.
        floor: ``[n]``, what a perfect generator would have: distance of two samples of true events of these sizes,
            mean over random re-partitions.
        floor_std: ``[n]``, standard deviation of it over the re-partitions: how much a single distance fluctuates.
        reference: ``[n]``, distance of the reference itself from the truth: one draw of the floor.
        sizes: events used: of the truth, and of both the generated sample and the reference.
        effective_sizes: (sum w)^2 / sum w^2 of truth, generated sample and reference. A generated sample of a smaller
            one than the reference has a higher floor of its own.
        partitions: number of re-partitions.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    distance: Array
    floor: Array
    floor_std: Array
    reference: Array
    sizes: tuple[int, int]
    effective_sizes: tuple[float, float, float]
    partitions: int

    def _summary(self) -> str:
        ratios = ", ".join(f"{name}: {ratio:.3g}" for name, ratio in zip(self.names, self.ratio, strict=True))
        return f"W1/floor {ratios}"

    @property
    def ratio(self) -> Array:
        """``[n]`` distance over floor: 1 for a perfect generator; NaN where both are zero."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.distance / self.floor

    @property
    def excess(self) -> Array:
        """``[n]`` (distance - floor) / floor_std; the distribution of the floor is skew, so 3 is no 3 sigma."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return (self.distance - self.floor) / self.floor_std

    def text(self) -> str:
        """The table as aligned plain text."""
        rows = [["observable", "W1", "floor", "+-", "W1/floor", "reference"]]
        for i, (name, unit) in enumerate(zip(self.names, self.units, strict=True)):
            numbers = (self.distance[i], self.floor[i], self.floor_std[i])
            label = f"{name} [{unit}]" if unit else name
            cells = [f"{number:.4g}" for number in numbers]
            rows.append([label, *cells, f"{self.ratio[i]:.2f}", f"{self.reference[i]:.4g}"])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
            for row in rows
        ]
        used = f"{self.sizes[0]:,} true events, {self.sizes[1]:,} generated and as many of the reference"
        if self.effective_sizes != (self.sizes[0], self.sizes[1], self.sizes[1]):
            used += "; effectively {:,.0f}, {:,.0f} and {:,.0f}".format(*self.effective_sizes)
        return "\n".join([*lines, f"{used}; floor of {self.partitions} re-partitions"])


def _any_column(name: str, value: Any) -> Any:
    require(callable(value) or isinstance(value, str | int | np.integer), name, value, "a function, a name or an index")
    return value


@door(
    truth=EVENTS,
    generated=EVENTS,
    reference=EVENTS,
    observables=dictionary(_any_column),
    partitions=whole(2),
    seed=SEED,
)
def sample_quality(
    truth: Any,
    generated: Any,
    reference: Any,
    observables: Mapping[str, Callable[[Tensor], Tensor] | str | int],
    *,
    partitions: int = 10,
    seed: int = 0,
) -> QualityTable:
    """Wasserstein-1 distance of each observable of generated events from the truth, and the floor it can reach.

    Two finite samples of one distribution are not at distance zero. The floor is that distance: truth and reference
    are pooled and split at random into parts of the same sizes, several times. So that it is fair, the first n events
    of generated sample and reference are used, n the smaller of their numbers: shuffle samples that are in an order.
    Weights are scaled to mean one in each sample; those of truth and reference should be of the same kind.

    Args:
        truth: held-out events ``[N, d]``: a tensor, an array or an :class:`~pyrogen.EventSample`, whose (positive)
            weights count.
        generated: events ``[M, d]``.
        reference: true events independent of ``truth``, such as those of the training.
        observables: what to compare, by name: a function of events ``[n, d]`` (a float64 tensor) that gives ``[n]``,
            or the name or index of a column.
        partitions: number of random partitions for the floor.
        seed: seeds them.

    Raises:
        ValueError: no observables, empty samples, numbers that are not finite, negative weights, different columns.
    """
    if not observables:
        raise ValueError("observables is empty; give functions of events, or columns, by name")
    samples = _samples(truth=truth, generated=generated, reference=reference)
    n = min(len(samples["generated"]), len(samples["reference"]))
    samples = {name: sample if name == "truth" else sample[:n] for name, sample in samples.items()}
    total = len(samples["truth"])
    weights = {name: _mean_one(sample) for name, sample in samples.items()}
    values = {
        name: {which: _observable(name, what, which, sample) for which, sample in samples.items()}
        for name, what in observables.items()
    }
    pooled = np.concatenate([weights["truth"], weights["reference"]])
    generator = np.random.default_rng(stream(seed, 1))
    in_truth = np.zeros((partitions + 1, total + n), dtype=bool)
    in_truth[:, :total] = True  # the first row stays: the reference itself
    for row in in_truth[1:]:
        generator.shuffle(row)

    distance, floors = [], []
    for table in values.values():
        both = np.concatenate([table["truth"], table["generated"]])
        first = np.arange(total + n) < total
        signed = np.concatenate([weights["truth"], weights["generated"]])
        order = np.argsort(both)
        distance.append(_distance(both[order], signed[order], first[order]))
        both = np.concatenate([table["truth"], table["reference"]])
        order = np.argsort(both)
        both, sorted_weights = both[order], pooled[order]
        floors.append([_distance(both, sorted_weights, row[order]) for row in in_truth])
    floor = np.array(floors)
    return QualityTable(
        tuple(observables),
        tuple(_unit(what, samples["truth"]) for what in observables.values()),
        np.array(distance),
        floor[:, 1:].mean(1),
        floor[:, 1:].std(1, ddof=1),
        floor[:, 0],
        (total, n),
        (samples["truth"].effective_size, samples["generated"].effective_size, samples["reference"].effective_size),
        partitions,
    )


def _samples(**given: Any) -> dict[str, EventSample]:
    """Checked samples by name; arrays have the columns of the first sample with names."""
    named = [events for events in given.values() if isinstance(events, EventSample)]
    samples = {}
    for name, events in given.items():
        if not isinstance(events, EventSample):
            check_events(events, what=name)
            events = EventSample(events)
            if named and named[0].features == events.features:
                events = EventSample(events.values, named[0].names, named[0].units)
        positive_weights(name, events)
        samples[name] = events
        if events.features != samples["truth"].features:
            raise ValueError(
                f"{name} has {events.features} columns and truth has {samples['truth'].features}; they must be the same"
            )
    return samples


def _observable(name: str, what: Any, which: str, sample: EventSample) -> Array:
    """An observable ``[n]`` of a sample."""
    if not callable(what):
        return sample.column(what)
    with torch.no_grad():
        values = what(sample.tensor(torch.float64))
    array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.float64)
    if array.shape != (len(sample),):
        raise ValueError(
            f"observable {name!r} of {which} has shape {list(array.shape)}; it must be one number per event, "
            f"[{len(sample)}]"
        )
    bad = np.flatnonzero(~np.isfinite(array))
    if len(bad):
        raise ValueError(
            f"observable {name!r} of {which} is NaN or infinite for {len(bad)} of {len(sample)} events; the first is "
            f"{array[bad[0]]} at event {bad[0]}: {sample.values[bad[0]].tolist()}"
        )
    return array


def _unit(what: Any, truth: EventSample) -> str:
    if callable(what):
        return ""
    return truth.units[truth.names.index(what) if isinstance(what, str) else what]


def _mean_one(sample: EventSample) -> Array:
    return np.ones(len(sample)) if sample.weights is None else sample.weights * (len(sample) / sample.total_weight)


def _distance(values: Array, weights: Array, first: NDArray[np.bool_]) -> float:
    """Wasserstein-1 distance of two samples in one sorted array: integral of |difference of their CDFs|."""
    ours, theirs = np.where(first, weights, 0.0), np.where(first, 0.0, weights)
    difference = np.cumsum(ours / ours.sum() - theirs / theirs.sum())
    return float(np.abs(difference[:-1]) @ np.diff(values))


@dataclass(frozen=True, repr=False)
class PeakFit(Brief):
    """A resonance peak: a Breit-Wigner on a flat background.

    Attributes:
        location, location_error: position of the maximum, in the unit of the values.
        width, width_error: full width at half maximum Gamma.
        background, background_error: fraction of the events in the window that are flat. It may come out negative:
            then the tails are lower than the Breit-Wigner's.
        events: effective number of events in the window.
        fraction: of the total weight that is in the window.
        window: the fit's range.
    """

    location: float
    location_error: float
    width: float
    width_error: float
    background: float
    background_error: float
    events: float
    fraction: float
    window: tuple[float, float]

    def _summary(self) -> str:
        return self.text()

    def text(self) -> str:
        """One line."""
        return (
            f"peak at {self.location:.6g} +- {self.location_error:.2g}, width {self.width:.4g} +- "
            f"{self.width_error:.2g}, flat part {self.background:.4f} +- {self.background_error:.4f}, from "
            f"{self.events:,.0f} events in {self.window[0]:g} to {self.window[1]:g} ({self.fraction:.2%} of all)"
        )


@door(values=array(), weights=optional(array()), window=LIMITS, bins=whole(20))
def peak_width(
    values: ArrayLike | Tensor,
    weights: ArrayLike | Tensor | None = None,
    window: tuple[float, float] = (76.0, 106.0),
    *,
    bins: int = 2_000,
) -> PeakFit:
    """Location and width of a resonance peak, by a maximum-likelihood fit of a Breit-Wigner on a flat background.

    The density in the window is ``(1 - f) G / ((x - m)^2 + G^2 / 4) / norm + f / (b - a)``, non-relativistic and of
    constant width: a shape to compare samples with, not a measurement of the Z. The likelihood is that of fine bins,
    with the integral of the density over each. Errors are those of the sandwich ``H^-1 (sum w^2 g g^T) H^-1``, right
    for weighted events, and for a shape that is not quite a Breit-Wigner.

    Args:
        values: ``[N]``, such as masses in GeV; those outside the window do not enter.
        weights: ``[N]`` or None; of either sign.
        window: range ``(a, b)`` of the fit, by default around the Z in GeV.
        bins: number of bins in it, much narrower than the peak.

    Raises:
        ValueError: numbers that are not finite, a range that does not increase, too few events in it, or no peak.
    """
    low, high = window
    x = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.float64)
    if x.ndim != 1:
        raise ValueError(f"values has shape {list(x.shape)}; it must be one number per event, [N]")
    check_events(x[:, None], what="values")
    w = np.ones(len(x))
    if weights is not None:
        check_weights(weights, len(x))
        w = np.asarray(weights.detach().cpu() if isinstance(weights, Tensor) else weights, dtype=np.float64)
    inside = (x >= low) & (x <= high)
    total, squares = float(w[inside].sum()), float(np.sum(w[inside] ** 2))
    effective = total**2 / squares if total > 0 else 0.0
    if effective < FEWEST:
        raise ValueError(
            f"{int(inside.sum())} of {len(x)} values are in the window {low:g} to {high:g}, effectively "
            f"{effective:.1f}; the fit needs at least {FEWEST}"
        )
    where = np.minimum(((x[inside] - low) * (bins / (high - low))).astype(np.int64), bins - 1)
    content = np.bincount(where, w[inside], bins) / total
    content_squared = np.bincount(where, w[inside] ** 2, bins) / total**2
    length = high - low
    edges = np.linspace(0, 1, bins + 1)  # the fit is on the unit interval
    m, half, f = best = _fit_peak(edges, content)
    at = f"the best fit is at {low + m * length:.6g} with width {2 * half * length:.3g}"
    if 2 * half * bins < 2:
        raise ValueError(
            f"{at}, less than two bins: there is no peak in the window {low:g} to {high:g}, or one too narrow for "
            f"{bins} bins; give another window or more bins"
        )
    errors = _peak_errors(edges, content, content_squared, best)
    if not (np.isfinite(errors).all() and 0 < m < 1 and half < 0.5 and 1 - f > 5 * errors[2]):
        raise ValueError(
            f"there is no peak in the window {low:g} to {high:g} that {effective:.0f} events show: {at} and "
            f"{1 - f:.3g} +- {errors[2]:.2g} of the events; give another window"
        )
    return PeakFit(
        low + m * length,
        float(errors[0] * length),
        2 * half * length,
        float(2 * errors[1] * length),
        f,
        float(errors[2]),
        effective,
        total / float(w.sum()),
        (low, high),
    )


def _fit_peak(edges: Array, content: Array) -> Array:
    """Location, half width and flat part of the peak in bins of the unit interval that hold a total of one."""
    from scipy.optimize import minimize

    middle = 0.5 * (edges[1:] + edges[:-1])
    filled = content != 0

    def loss(parameters: Array) -> float:
        m, log_half, f = parameters
        if not (-0.5 < m < 1.5 and -12 < log_half < 3 and f <= 1):
            return math.inf
        p = _peak_bins(edges, m, math.exp(log_half), f)
        return -float(content[filled] @ np.log(p[filled])) if (p > 0).all() else math.inf

    coarse = np.add.reduceat(content, np.arange(0, len(content), math.ceil(len(content) / 50)))
    mode = (np.argmax(coarse) + 0.5) / len(coarse)
    median = float(np.interp(0.5, np.cumsum(content), middle))
    starts = [np.array([m, math.log(half), 0.1]) for m in (mode, median) for half in (0.01, 0.05, 0.2)]
    options = {"xatol": 1e-7, "fatol": 1e-12, "maxiter": 2_000}
    simplex = np.array([[0, 0, 0], [0.02, 0, 0], [0, 0.5, 0], [0, 0, 0.1]])
    runs = [
        minimize(loss, start, method="Nelder-Mead", options=options | {"initial_simplex": start + simplex})
        for start in starts
    ]
    m, log_half, f = min(runs, key=lambda run: run.fun).x
    return np.array([m, math.exp(log_half), f])


def _peak_errors(edges: Array, content: Array, content_squared: Array, best: Array) -> Array:
    """Sandwich errors of the three parameters; NaN where the likelihood has no proper maximum."""

    def slopes(parameters: Array) -> Array:
        """d log p / d parameter of each bin, ``[3, bins]``, by central differences."""
        steps = np.diag([1e-4 * best[1], 1e-4 * best[1], 1e-5])
        ratios = [_peak_bins(edges, *(parameters + s)) / _peak_bins(edges, *(parameters - s)) for s in steps]
        return np.log(ratios) / (2 * np.diag(steps)[:, None])

    curvature = np.empty((3, 3))
    with np.errstate(invalid="ignore", divide="ignore"):
        own = slopes(best)
        for i, step in enumerate((1e-3 * best[1], 1e-3 * best[1], 1e-4)):
            moved = np.eye(3)[i] * step
            curvature[i] = (slopes(best - moved) - slopes(best + moved)) @ content / (2 * step)
        spread = own * content_squared @ own.T
        if not np.isfinite([curvature, spread]).all():
            return np.full(3, np.nan)
        inverse = np.linalg.pinv(0.5 * (curvature + curvature.T))
        return np.sqrt(np.diag(inverse @ spread @ inverse))


def _peak_bins(edges: Array, m: float, half: float, f: float) -> Array:
    """Probability of each bin of the unit interval."""
    peak = np.diff(np.arctan((edges - m) / half))
    return (1 - f) * peak / peak.sum() + f * np.diff(edges)
