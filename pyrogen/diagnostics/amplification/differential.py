"""Amplification without volumes: how well the best test tells generated from true events [G] (arXiv:2509.08048)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pyrogen.checks import POSITIVE, SEED, door, instance, optional, require, whole
from pyrogen.diagnostics.control.result import ClassifierWeights
from pyrogen.diagnostics.control.tables import TWICE
from pyrogen.events import EventSample
from pyrogen.events.observing import OBSERVED, observed
from pyrogen.posterior.worth import rounded
from pyrogen.printing import Brief
from pyrogen.seeds import stream
from pyrogen.warn import warn

Array = NDArray[np.float64]

#: Mean of sqrt(n) D, the Kolmogorov-Smirnov distance of n events from their own distribution, for large n.
MEAN_DISTANCE = math.sqrt(math.pi / 2) * math.log(2)
SIGNIFICANT = 3.0  # errors of a distance, or else there is a limit only
LIMIT = 1.645  # errors: a limit of 95 %, one-sided
SEEN = 4.0  # times the error of two halves, by which a column is farther apart than what the classifier found
FEWEST = 20  # effective events of each sample in a region
WEIGHTS = instance(
    ClassifierWeights,
    "a ClassifierWeights, from classifier_weights",
    {"ClassifierResult": "classifier_test keeps no weights of the events; use classifier_weights"},
)


@dataclass(frozen=True, eq=False, repr=False)
class DifferentialWorth(Brief):
    """How many true events are as far from the truth as the generator is, in a region.

    Attributes:
        name: of the region.
        distance: Kolmogorov-Smirnov distance of infinitely many generated from infinitely many true events in the
            log-likelihood ratio, and its statistical error. The estimate has no bias, and so may be below zero.
        events: ``(0.8687 / distance)^2``, and its error; where the distance is within its noise a lower limit at 95 %,
            with the error NaN.
        training_events: number of training events that are expected in the region.
        share: fraction of the true and of the generated events in it.
        sizes: effective numbers of true and generated events in it.
    """

    name: str
    distance: tuple[float, float]
    events: tuple[float, float]
    training_events: float
    share: tuple[float, float]
    sizes: tuple[float, float]

    @property
    def gain(self) -> tuple[float, float]:
        """Amplification ``G = events / training_events``, and its error; NaN of a lower limit."""
        return self.events[0] / self.training_events, self.events[1] / self.training_events

    @property
    def limit(self) -> bool:
        """Whether there is a lower limit only."""
        return math.isnan(self.events[1])

    def text(self) -> str:
        """One line."""
        least = "> " if self.limit else ""
        told = f"worth {least}{rounded(*self.events)} true events, G {least or '= '}{rounded(*self.gain)}"
        return f"{self.name}: D = {self.distance[0]:.4f} +- {self.distance[1]:.4f}, {told}"

    def _summary(self) -> str:
        return self.text()


@dataclass(frozen=True, eq=False, repr=False)
class DifferentialAmplification(Brief):
    """How many true events a generator is worth to the best test between it and the truth.

    Attributes:
        total: in all of phase space.
        regions: in regions, by name.
        control: the same for true against true events, whose distance is zero; None without.
        sizes: numbers of generated events, ``[S]``.
        distances: Kolmogorov-Smirnov distance of so many of them from all true ones, ``[S]``, with the noise of both.
    """

    total: DifferentialWorth
    regions: dict[str, DifferentialWorth]
    control: DifferentialWorth | None
    sizes: NDArray[np.int64]
    distances: Array

    def _summary(self) -> str:
        return self.total.text()

    @property
    def floor(self) -> Array:
        """Mean distance of so many true events from the same true events, ``[S]``."""
        return MEAN_DISTANCE * np.sqrt(1 / self.sizes + 1 / self.total.sizes[0])

    def text(self) -> str:
        """A line for all events, for every region and for the control."""
        found = [self.total, *self.regions.values(), *([] if self.control is None else [self.control])]
        return "\n".join(each.text() for each in found)


def _regions(name: str, value: Any) -> dict[str, Callable[[EventSample], Array] | tuple[Any, float, float]]:
    """Regions by name: a function that gives true or false for every event, or an observable and its limits."""
    right = "a dictionary of functions that give true or false, or of (observable, low, high)"
    require(isinstance(value, Mapping), name, value, right)
    found = {}
    for key, region in value.items():
        called = f"{name}[{key!r}]"
        if not callable(region):
            good = isinstance(region, (tuple, list)) and len(region) == 3
            require(good, called, region, "a function that gives true or false, or (observable, low, high)")
            OBSERVED(called, region[0])
            ends = [float(end) if isinstance(end, (int, float)) else math.nan for end in region[1:]]
            require(ends[0] < ends[1], called, region, "(observable, low, high) with low < high, infinite for no limit")
            region = (region[0], *ends)
        found[str(key)] = region
    return found


@door(weights=WEIGHTS, training_events=POSITIVE, regions=optional(_regions), points=whole(2), seed=SEED)
def differential_amplification(
    weights: ClassifierWeights,
    training_events: float,
    *,
    regions: Mapping[str, Any] | None = None,
    points: int = 9,
    seed: int = 0,
) -> DifferentialAmplification:
    """How many true events the best test finds as far from the truth as the generated ones [G].

    The test statistic is the log-likelihood ratio ``s = log p_truth / p_generated`` of classifiers that never saw the
    event. n true events have a Kolmogorov-Smirnov distance in it from the truth of ``sqrt(pi / 2) ln 2 / sqrt(n)`` on
    average, whatever s; so a generator at the distance D is worth ``(0.8687 / D)^2`` events. Nothing is averaged over a
    volume.

    **Noise.** The two distributions of a likelihood ratio are farthest apart where it is one: D is the fraction of
    true events with s > 0 minus that of generated events. This needs no search for the largest distance, which finite
    samples make too large, and has no bias: its error is that of two fractions. Where it is less than three errors
    there is a lower limit at 95 % only; more held-out events raise it.

    The number is as right as the classifier: what it does not see makes D too small and the number too large. Use
    ``weights.recalibrated()`` where its calibration curve is off. No column can be at a larger distance than the
    likelihood ratio: where one is, there is a warning that the classifier missed it.

    Args:
        weights: what :func:`~pyrogen.diagnostics.classifier_weights` found, on events that the generator was not
            trained on.
        training_events: number N of training events, of weighted ones their effective number.
        regions: parts of phase space by name: a function of events ``[n, d]`` (a float64 tensor) that gives true or
            false, or ``(observable, low, high)`` with an observable as in :func:`~pyrogen.diagnostics.sample_quality`.
            There s is that of the distributions within the region, and N the expected number of training events in it.
        points: numbers of generated events for which the distance with all noise is found.
        seed: seeds which these are.

    Raises:
        ValueError: regions that are not of this kind, or with too few events.
    """
    total = _worth("all events", weights, training_events, None)
    named = {name: _worth(name, weights, training_events, region) for name, region in (regions or {}).items()}
    control = None if weights.control is None else _worth("truth against truth", weights.control, training_events, None)
    sizes, distances = _curve(weights, points, seed)
    return DifferentialAmplification(total, named, control, sizes, distances)


def _worth(name: str, weights: ClassifierWeights, training_events: float, region: Any) -> DifferentialWorth:
    inside, shares, sizes = [], [], []
    for which, sample, w in zip(
        ("truth", "generated"), (weights.truth, weights.generated), weights.weights, strict=True
    ):
        rows = np.ones(len(w), dtype=bool) if region is None else _inside(name, region, sample)
        total, size = float(w[rows].sum()), _effective(w[rows])
        if not (size >= FEWEST and total > 0):
            raise ValueError(
                f"region {name!r} has {size:.3g} effective events of the {which}; a distance needs {FEWEST} or more"
            )
        inside.append(rows)
        shares.append(total / float(w.sum()))
        sizes.append(size)
    cut = math.log(shares[0] / shares[1])  # the ratio of the densities of all events, where that within is one
    above = [
        _fraction(s[rows], w[rows], cut) for s, w, rows in zip(weights.log_w, weights.weights, inside, strict=True)
    ]
    distance = above[0][0] - above[1][0]
    error = math.hypot(above[0][1], above[1][1])
    half = 0.5 * math.sqrt(1 / sizes[0] + 1 / sizes[1])
    _warn_of_blindness(name, weights, inside, distance + SEEN * half)
    events = _equivalent(distance, error, half, TWICE if weights.fold_truth.max() > 0 else 1.0)
    return DifferentialWorth(
        name,
        (distance, error),
        events,
        training_events * shares[0],
        (shares[0], shares[1]),
        (sizes[0], sizes[1]),
    )


def _warn_of_blindness(name: str, weights: ClassifierWeights, inside: list[NDArray[np.bool_]], most: float) -> None:
    """Warn where a column tells the samples apart by more than this: the classifier does not know of it."""
    (true, made), (a, b) = ((weights.truth.values, weights.generated.values), weights.weights)
    (here, there), found = inside, {}
    for i, column in enumerate(weights.truth.names):
        values = [np.asarray(x[rows, i], np.float64) for x, rows in ((true, here), (made, there))]
        found[column] = kolmogorov_smirnov(values[0], values[1], a[here], b[there])
    column = max(found, key=lambda each: found[each])
    if found[column] > most:
        warn(
            f"{name}: the distance in {column} alone is {found[column]:.3f}, more than the best test can have by this "
            "classifier: it missed that, and the number of events is too large. Train it longer"
        )


def _inside(name: str, region: Any, sample: EventSample) -> NDArray[np.bool_]:
    """Which events are in the region, ``[N]``."""
    events = sample.tensor(torch.float64)
    if not callable(region):
        observable, low, high = region
        values = observed(observable, events, sample.names, f"the observable of region {name!r}")
        return (values >= low) & (values < high)
    found = region(events)
    rows = np.asarray(found.cpu() if isinstance(found, torch.Tensor) else found)
    if rows.dtype != np.bool_ or rows.shape != (len(sample),):
        raise ValueError(
            f"region {name!r} gives {rows.dtype} of shape {list(rows.shape)}; it must be true or false per event, "
            f"[{len(sample)}]"
        )
    return rows


def _effective(weights: Array) -> float:
    squares = float(np.square(weights).sum())
    return float(weights.sum()) ** 2 / squares if squares > 0 else 0.0


def _fraction(s: Array, weights: Array, cut: float) -> tuple[float, float]:
    """Fraction of the weighted events with s above the cut, at it half, and its error."""
    above = (s > cut) + 0.5 * (s == cut)
    w = weights / weights.sum()
    fraction = float(w @ above)
    size = _effective(weights)
    return fraction, math.sqrt(float(np.square(w) @ np.square(above - fraction)) * size / (size - 1))


def _equivalent(distance: float, error: float, half: float, twice: float) -> tuple[float, float]:
    """The number of true events at this distance and its error, or a lower limit and NaN.

    ``1 / D^2`` of an estimate with the relative error e is too large by ``1 + 3 e^2`` on average. Where the samples do
    not differ every pair of folds counts twice, which makes the error larger by ``twice``. A limit takes the error of
    two halves: a classifier that has all events on one side of the cut knows nothing, and has no error.
    """
    if distance <= SIGNIFICANT * twice * error:
        return (MEAN_DISTANCE / (max(distance, 0.0) + LIMIT * twice * half)) ** 2, math.nan
    relative = error / distance
    value = (MEAN_DISTANCE / distance) ** 2 / (1 + 3 * relative**2)
    return value, 2 * relative * value


def _curve(weights: ClassifierWeights, points: int, seed: int) -> tuple[NDArray[np.int64], Array]:
    """Distances of the first n generated events, in a random order, from all true ones."""
    true, made = weights.log_w
    order = np.random.default_rng(stream(seed, "differential")).permutation(len(made))
    sizes = np.unique(np.geomspace(min(100, len(made)), len(made), points).round().astype(np.int64))
    w_true, w_made = weights.weights
    distances = [kolmogorov_smirnov(true, made[order[:n]], w_true, w_made[order[:n]]) for n in sizes]
    return sizes, np.array(distances)


def kolmogorov_smirnov(a: Array, b: Array, weights_a: Array, weights_b: Array) -> float:
    """Largest distance between the distribution functions of two weighted samples."""
    values = np.concatenate([a, b])
    signed = np.concatenate([weights_a / weights_a.sum(), -weights_b / weights_b.sum()])
    order = np.argsort(values, kind="stable")
    last = np.append(np.diff(values[order]) > 0, True)  # after all that are tied
    return float(np.abs(np.cumsum(signed[order])[last]).max())
