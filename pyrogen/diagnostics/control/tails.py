"""The events with small and with large weights w, against all others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pyrogen.checks import require
from pyrogen.diagnostics.control.calibration import weighted_quantiles
from pyrogen.diagnostics.control.failure_results import TailHistogram
from pyrogen.diagnostics.control.information import Contrast, effective, kolmogorov_smirnov
from pyrogen.diagnostics.control.result import ClassifierWeights
from pyrogen.diagnostics.control.tables import TailFractions, together
from pyrogen.diagnostics.control.variables import Variable

Array = NDArray[np.float64]

TAIL_EVENTS = 10.0  # effective events, of which a distribution can be drawn
BEYOND = 1e-3  # part of the events of the control beyond each cut
CLOSEST = 1.25  # w of a cut, and its inverse: less is no tail
NO_CONTROL = (0.5, 2.0)
BINS = 50


@dataclass(frozen=True, eq=False)
class Tails:
    """The events with small and with large w: weights ``[N + M]`` that sum to one, None where they are too few."""

    cuts: tuple[float, float]
    cuts_from: str
    fractions: TailFractions
    small: Array | None
    large: Array | None
    bulk: tuple[Array, Array]  # of generated events that are not in the small tail, and of true ones not in the large

    @classmethod
    def of(cls, weights: ClassifierWeights, contrast: Contrast, given: tuple[float, float] | None) -> Tails:
        (low, high), source = _cuts(weights, given)
        sides = []
        for which, inside, words in (
            (~contrast.true, contrast.log_w < np.log(low), f"w < {low:g} of generated events"),
            (contrast.true, contrast.log_w > np.log(high), f"w > {high:g} of true events"),
        ):
            tail, bulk = (np.where(which & rows, contrast.weights, 0.0) for rows in (inside, ~inside))
            size = effective(tail)
            if source == "given" and size < TAIL_EVENTS:
                raise ValueError(
                    f"cuts is {given}: the tail {words} has {size:.3g} (effective) events, and its distributions need "
                    f"{TAIL_EVENTS:g}; {_instead(contrast, which, inside)}, or leave cuts out"
                )
            sides.append((tail / tail.sum() if size >= TAIL_EVENTS else None, bulk / max(bulk.sum(), 1e-300)))
        (small, rest_small), (large, rest_large) = sides
        return cls((low, high), source, weights.tails((low, high)), small, large, (rest_small, rest_large))

    @property
    def both(self) -> tuple[Array, Array]:
        """Weights of the small and of the large tail; zeros for one of too few events."""
        nothing = np.zeros(len(self.bulk[0]))
        return (nothing if self.small is None else self.small), (nothing if self.large is None else self.large)


def _cuts(weights: ClassifierWeights, given: tuple[float, float] | None) -> tuple[tuple[float, float], str]:
    if given is not None:
        require(given[0] < 1 < given[1], "cuts", given, "(low, high) with low < 1 < high")
        return given, "given"
    if weights.control is None:
        return NO_CONTROL, "default"
    x, size = together(weights.control.log_w, weights.control.weights)
    part = max(BEYOND, TAIL_EVENTS / 2 / len(x))
    low, high = weighted_quantiles(x, np.array([part, 1 - part]), np.abs(size))
    noise = weights.floor / weights.control.width if weights.control.width > 0 else 1.0
    nearest = np.log(CLOSEST)
    return (float(np.exp(min(low * noise, -nearest))), float(np.exp(max(high * noise, nearest)))), "control"


def _instead(contrast: Contrast, which: NDArray[np.bool_], inside: NDArray[np.bool_]) -> str:
    """A cut that leaves twice the events that are needed."""
    x = np.sort(contrast.log_w[which])
    n = min(int(2 * TAIL_EVENTS), len(x) - 1)
    small = not contrast.true[which][0]
    cut = float(np.exp(x[n] if small else x[-n - 1]))
    return f"there are {n} events {'below' if small else 'above'} {cut:.3g}"


def distance(values: Array, tail: Array, bulk: Array) -> float:
    """Of the events of the tail that have the observable; NaN where they are too few."""
    if effective(tail) < TAIL_EVENTS or effective(bulk) < TAIL_EVENTS:
        return np.nan
    return kolmogorov_smirnov(values, tail / tail.sum(), bulk / bulk.sum())


def tail_histogram(
    variable: Variable, values: Array, there: NDArray[np.bool_], contrast: Contrast, tails: Tails
) -> TailHistogram:
    edges = _edges(values[there]) if variable.edges is None else variable.edges
    signed, _ = contrast.within(there)
    samples = [np.where(contrast.true, signed, 0.0), np.where(contrast.true, 0.0, -signed), *tails.both]
    parts: list[Array | None] = []
    for i, each in enumerate(samples):
        weights = each[there]
        if i > 1 and effective(weights) < TAIL_EVENTS:
            parts += [None, None]
        else:
            parts += _densities(values[there], weights / (weights.sum() or 1.0), edges)
    return TailHistogram(edges, *parts)  # type: ignore[arg-type]


def _densities(values: Array, weights: Array, edges: Array) -> list[Array]:
    numbers = np.searchsorted(edges, values, "right") - 1
    numbers[values == edges[-1]] -= 1
    inside = (numbers >= 0) & (numbers < len(edges) - 1)
    content, squares = (np.bincount(numbers[inside], weights[inside] ** k, len(edges) - 1) for k in (1, 2))
    return [content / np.diff(edges), np.sqrt(squares) / np.diff(edges)]


def _edges(values: Array) -> Array:
    different = np.unique(values)
    if len(different) <= BINS:  # numbers of something
        middle = 0.5 * (different[1:] + different[:-1])
        return np.array([2 * different[0] - middle[0], *middle, 2 * different[-1] - middle[-1]])
    low, high = np.quantile(values, [0.001, 0.999])
    if not low < high:
        low, high = different[0], different[-1]
    return np.linspace(low, high, BINS + 1)
