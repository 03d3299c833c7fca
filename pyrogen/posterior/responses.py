"""Histograms of the same weight draws at several conditions, and how little noise their differences have."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pyrogen.posterior.bands import HistogramBand, multinomial_noise
from pyrogen.posterior.binning import Bins
from pyrogen.posterior.predictor import Predictor
from pyrogen.posterior.rounding import tell_without_density
from pyrogen.warn import warn

Array = NDArray[np.float64]
#: Smallest effective part of weighted events, and largest deviation of their mean weight from 1, without a warning.
FEW, MEAN = 0.1, 0.02
Contexts = Callable[[int], list[Array]]
Part = tuple[int, list[Tensor], Array]


def own_events(predictor: Predictor, n: int, draws: int, contexts: Contexts, seed: int) -> Iterator[Part]:
    """Some events of a draw at each of P points, made of the same latent points."""
    for k, events in predictor.replicates_at(n, draws, contexts, seed, "systematics"):
        yield k, events, np.ones((len(events), len(events[0])))


def weighted_events(predictor: Predictor, n: int, draws: int, contexts: Contexts, seed: int) -> Iterator[Part]:
    """Some events of a draw at the first of P points, and their weights ``[P, m]``.

    Raises:
        ValueError: many events that have no density by the network that made them.

    Warns:
        UserWarning: weights that do not do as a substitute for events of their own, or single events without a density.
    """
    sums, squares, total, lost = np.zeros(1), np.zeros(1), 0, 0
    for k, events, logs in predictor.weighted_replicates(n, draws, contexts, seed, "systematics"):
        weights = (logs - logs[0]).double().exp().cpu().numpy()
        rounded = ~np.isfinite(weights).all(0)
        weights[:, rounded] = 1.0
        lost += int(rounded.sum())
        sums, squares, total = sums + weights.sum(1), squares + np.square(weights).sum(1), total + len(events)
        yield k, [events], weights
    tell_without_density(lost, total, "they count alike under all conditions")
    mean, effective = sums / total, sums**2 / squares / total
    worst = int(effective.argmin())
    off = np.abs(mean - 1) > MEAN + 5 * np.sqrt(np.maximum(squares / total - 1, 0) / total)
    if effective[worst] < FEW or off.any():
        worst = int(off.argmax()) if off.any() else worst
        conditions = np.asarray(contexts(0)[worst])
        at = ", ".join(f"{value:.4g}" for value in conditions.reshape(-1, conditions.shape[-1])[0])
        warn(
            f"the events weighted to the conditions ({at}) have a mean weight of {mean[worst]:.3g} and an effective "
            f"size of {effective[worst]:.1%}: there are hardly any where those of these conditions are. Take "
            "procedure='a'"
        )


class Filled(ABC):
    """Histograms of K weight draws at several points of the conditions.

    Args:
        bins: B bins.
        points: number of points.
        draws: number of weight draws K.
        events: number n of events of each.
        pairs: of points, whose difference is wanted.
    """

    def __init__(self, bins: Bins, points: int, draws: int, events: int, pairs: Sequence[tuple[int, int]]) -> None:
        self.bins, self.events, self.on_edge, self.pairs = bins, events, 0, pairs
        self.sums = np.zeros((points, draws, len(bins)))

    @abstractmethod
    def fill(self, k: int, values: Sequence[Array], weights: Array) -> None:
        """Some events of a draw: their values ``[m]`` at each point (or the first alone) and weights ``[P, m]``."""

    @abstractmethod
    def noise(self, i: int, j: int) -> Array:
        """Covariance ``[B, B]`` that the events give the rows of the difference of two points."""

    @abstractmethod
    def own_noise(self, point: int) -> Array:
        """Covariance ``[B, B]`` that the events give the rows of a point."""

    def probabilities(self, point: int) -> Array:
        """``[K, B]``."""
        return self.sums[point] / self.events

    def band(self) -> HistogramBand:
        """The histogram at the first point."""
        draws, on_edge = self.probabilities(0), self.on_edge / (self.events * self.sums.shape[1])
        noise = multinomial_noise(draws, self.events)
        return HistogramBand(self.bins.edges, draws, self.events, "a", noise, self.bins.closed, on_edge)

    def _over_events(self, squares: Array, rows: Array) -> Array:
        """Covariance of means over the events.

        Args:
            squares: mean squares ``[B, B]``, averaged over the draws.
            rows: means ``[K, B]``.
        """
        return (squares - rows.T @ rows / len(rows)) / (self.events - 1)


class Migrating(Filled):
    """Events of the same latent points at all points of the conditions, which migrate between bins."""

    def __init__(self, bins: Bins, points: int, draws: int, events: int, pairs: Sequence[tuple[int, int]]) -> None:
        super().__init__(bins, points, draws, events, pairs)
        self.joint = {pair: np.zeros((len(bins) + 1, len(bins) + 1)) for pair in pairs}

    def fill(self, k: int, values: Sequence[Array], weights: Array) -> None:
        size = len(self.bins) + 1  # the last one has all that is outside
        numbers = [self.bins.numbers(each) % size for each in values]
        for sums, its in zip(self.sums, numbers, strict=True):
            sums[k] += np.bincount(its, minlength=size)[:-1]
        for (i, j), joint in self.joint.items():
            joint += np.bincount(numbers[i] * size + numbers[j], minlength=size**2).reshape(size, size)
        self.on_edge += self.bins.on_last_edge(values[0])

    def noise(self, i: int, j: int) -> Array:
        # An event in bin b at one point and in c at the other counts +1 in b and -1 in c: 0 where both are the same.
        first, second = self.probabilities(i), self.probabilities(j)
        joint = self.joint[i, j][:-1, :-1] / (self.events * len(first))
        return self._over_events(np.diag((first + second).mean(0)) - joint - joint.T, first - second)

    def own_noise(self, point: int) -> Array:
        rows = self.probabilities(point)
        return self._over_events(np.diag(rows.mean(0)), rows)


class Weighted(Filled):
    """Events at the first point, weighted for the others by the ratio of their densities."""

    def __init__(self, bins: Bins, points: int, draws: int, events: int, pairs: Sequence[tuple[int, int]]) -> None:
        super().__init__(bins, points, draws, events, pairs)
        self.squares = {pair: np.zeros(len(bins)) for pair in [*pairs, *((i, i) for i in range(points))]}

    def fill(self, k: int, values: Sequence[Array], weights: Array) -> None:
        size = len(self.bins) + 1
        numbers = self.bins.numbers(values[0]) % size

        def filled(each: Array) -> Array:
            return np.bincount(numbers, each, size)[:-1].astype(np.float64)

        for sums, its in zip(self.sums, weights, strict=True):
            sums[k] += filled(its)
        for (i, j), squares in self.squares.items():
            squares += filled(np.square(weights[i] - weights[j] if i != j else weights[i]))
        self.on_edge += self.bins.on_last_edge(values[0])

    def noise(self, i: int, j: int) -> Array:
        rows = self.probabilities(i) - self.probabilities(j) if i != j else self.probabilities(i)
        return self._over_events(np.diag(self.squares[i, j] / (self.events * len(rows))), rows)

    def own_noise(self, point: int) -> Array:
        return self.noise(point, point)
