"""Distortions that leave events out or weight them: a cut tail, a missing mode, a hole, another spectrum."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..checks import (
    BOOLEAN,
    FINITE,
    FRACTION,
    FUNCTION,
    POSITIVE,
    TEXT,
    check_settings,
    number,
    one_of,
    optional,
    require,
)
from .distortions import LogFunction, Weighting
from .kinematics import wrapped
from .observing import OBSERVED, Observed, name_of, observed
from .sample import EventSample

Array = NDArray[np.float64]
PART = number("above 0 and at most 1", lambda value: 0 < value <= 1)


@dataclass(frozen=True, repr=False)
class TailCut(Weighting):
    """Events in a tail of an observable are missing, all of them or a fraction: "tail cut" of arXiv:2305.16774.

    Give either ``cut`` or ``missing``. Events without the observable (NaN) are kept.

    Args:
        observable: a column, or a function of events.
        cut: where the tail begins.
        missing: the part of all events (of their weight) that is to be missing; the cut is then a quantile.
        side: "above" or "below" the cut.
        fraction: of the events in the tail that is missing. The ratio is infinite there if it is 1.
    """

    observable: Observed
    cut: float | None = None
    missing: float | None = None
    side: str = "above"
    fraction: float = 1.0

    def __post_init__(self) -> None:
        check_settings(
            self,
            observable=OBSERVED,
            cut=optional(FINITE),
            missing=optional(FRACTION),
            side=one_of("above", "below"),
            fraction=PART,
        )
        require((self.cut is None) != (self.missing is None), "cut", self.cut, "given, or else missing, not both")
        if self.missing is not None:
            require(self.missing < self.fraction, "missing", self.missing, f"below fraction = {self.fraction:g}")

    def check(self, sample: EventSample) -> None:
        """See :class:`Distortion`."""
        name_of(self.observable, sample.names)

    def factor(self, sample: EventSample) -> tuple[LogFunction, str]:
        """See :class:`Weighting`."""
        sign = 1.0 if self.side == "above" else -1.0
        cut = self.cut if self.missing is None else self._quantile(sample, sign, self.missing)
        assert cut is not None
        limits = (cut, math.inf) if sign > 0 else (-math.inf, cut)
        words = f"tail cut: {name_of(self.observable, sample.names)} {self.side} {cut:.6g}"
        return _thinned(self.observable, sample.names, limits, self.fraction), words + _part(self.fraction)

    def _quantile(self, sample: EventSample, sign: float, missing: float) -> float:
        """Where the tail begins that holds ``missing / fraction`` of the weight."""
        values = sign * _values(self.observable, sample)
        weights = np.ones(len(sample)) if sample.weights is None else sample.weights
        order = np.argsort(-values)  # NaN last
        share = np.cumsum(weights[order]) / weights.sum()
        tail = int(np.searchsorted(share, missing / self.fraction * (1 + 1e-12), side="right"))
        there = int(np.isfinite(values).sum())
        if not 0 < tail < there:
            raise ValueError(
                f"missing is {missing}; with fraction = {self.fraction:g} the tail would hold {tail} of the {there} "
                "events that have the observable; it must hold some of them and not all"
            )
        if values[order[tail - 1]] == values[order[tail]]:
            raise ValueError(
                f"missing is {missing}, but {int((values == values[order[tail]]).sum())} events have the same value "
                f"{sign * values[order[tail]]:.6g}, where the tail would begin; give cut, or another part"
            )
        return float(sign * 0.5 * (values[order[tail - 1]] + values[order[tail]]))


@dataclass(frozen=True, repr=False)
class MissingMode(Weighting):
    """Events in a range of an observable are missing, all of them or a fraction: a peak, say, that was not learned.

    Args:
        observable: a column, or a function of events.
        low: where the range begins.
        high: where it ends.
        fraction: of the events in the range that is missing.
    """

    observable: Observed
    low: float
    high: float
    fraction: float = 1.0

    def __post_init__(self) -> None:
        check_settings(self, observable=OBSERVED, low=FINITE, high=FINITE, fraction=PART)
        require(self.low < self.high, "high", self.high, f"above low = {self.low:g}")

    def check(self, sample: EventSample) -> None:
        """See :class:`Distortion`."""
        name_of(self.observable, sample.names)

    def factor(self, sample: EventSample) -> tuple[LogFunction, str]:
        """See :class:`Weighting`."""
        words = f"missing mode: {name_of(self.observable, sample.names)} in {self.low:.6g} to {self.high:.6g}"
        limits = self.low, self.high
        return _thinned(self.observable, sample.names, limits, self.fraction), words + _part(self.fraction)


@dataclass(frozen=True, repr=False)
class Hole(Weighting):
    """Two objects are never closer than a radius in eta and phi, though true ones are: a boundary in the wrong place.

    The opposite, a hole that the generator fills, is :class:`FilledHole`.

    Args:
        first: name of the first object; there are the columns ``eta_<first>`` and ``phi_<first>``.
        second: name of the second one.
        radius: Delta R below which events are missing.
        fraction: of the events in the hole that is missing.
    """

    first: str
    second: str
    radius: float = 0.4
    fraction: float = 1.0

    def __post_init__(self) -> None:
        check_settings(self, first=TEXT, second=TEXT, radius=POSITIVE, fraction=PART)

    def check(self, sample: EventSample) -> None:
        """See :class:`Distortion`."""
        angles(sample.names, self.first, self.second)

    def factor(self, sample: EventSample) -> tuple[LogFunction, str]:
        """See :class:`Weighting`."""
        where = angles(sample.names, self.first, self.second)
        words = f"hole: Delta R({self.first}, {self.second}) below {self.radius:g}"
        limits = -math.inf, self.radius
        thinned = _thinned(lambda events: delta_r(events, where)[2], sample.names, limits, self.fraction)
        return thinned, words + _part(self.fraction)


@dataclass(frozen=True, repr=False)
class Reweighting(Weighting):
    """The distribution of one observable multiplied by a known function; given the observable, all else stays.

    Events without the observable (NaN) have the factor 1.

    Args:
        observable: a column, or a function of events.
        function: of its values ``[n]`` (float64 arrays), finite and not negative.
        as_weights: change the weights of the events; False: leave events out by accept-reject, with the largest
            factor in the sample as the certain one.
    """

    observable: Observed
    function: Callable[[Array], Array]
    as_weights: bool = True

    def __post_init__(self) -> None:
        check_settings(self, observable=OBSERVED, function=FUNCTION, as_weights=BOOLEAN)

    def check(self, sample: EventSample) -> None:
        """See :class:`Distortion`."""
        name_of(self.observable, sample.names)

    def factor(self, sample: EventSample) -> tuple[LogFunction, str]:
        """See :class:`Weighting`."""
        names = sample.names

        def factors(events: Tensor) -> Array:
            values = observed(self.observable, events, names, "observable")
            there = ~np.isnan(values)
            found = np.ones(len(values))
            found[there] = self.function(values[there])
            wrong = ~np.isfinite(found) | (found < 0)
            if wrong.any():
                i = int(np.argmax(wrong))
                raise ValueError(
                    f"function is {found[i]} at {values[i]:.6g}, event {i}; it must be finite and not negative"
                )
            return found

        how = "as weights" if self.as_weights else "by accept-reject"
        return factors, f"{name_of(self.observable, names)} reweighted by {name_of(self.function, names)} {how}"


def _thinned(what: Observed, names: Sequence[str], limits: tuple[float, float], fraction: float) -> LogFunction:
    """``1 - fraction`` strictly inside the limits, 1 elsewhere and at NaN."""
    low, high = limits

    def factors(events: Tensor) -> Array:
        values = observed(what, events, names, "observable")
        return np.where((values > low) & (values < high), 1 - fraction, 1.0)

    return factors


def _values(what: Observed, sample: EventSample) -> Array:
    return observed(what, sample.tensor(torch.float64), sample.names, "observable")


def _part(fraction: float) -> str:
    return ", all left out" if fraction == 1 else f", {fraction:.3g} of them left out"


def angles(names: Sequence[str], first: str, second: str) -> tuple[int, int, int, int]:
    """Indices of eta and phi of two objects.

    Raises:
        ValueError: columns that are not there.
    """
    wanted = [f"{quantity}_{which}" for which in (first, second) for quantity in ("eta", "phi")]
    missing = [name for name in wanted if name not in names]
    if missing:
        raise ValueError(
            f"first = {first!r} and second = {second!r} need the columns {', '.join(wanted)}; {', '.join(missing)} "
            f"missing. There are {', '.join(names)}"
        )
    a, b, c, d = (list(names).index(name) for name in wanted)
    return a, b, c, d


def delta_r(events: Tensor, where: tuple[int, int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Differences of eta and of phi (second minus first) and Delta R, ``[N]`` each."""
    d_eta = events[:, where[2]] - events[:, where[0]]
    d_phi = wrapped(events[:, where[3]] - events[:, where[1]])
    return d_eta, d_phi, (d_eta**2 + d_phi**2).sqrt()
