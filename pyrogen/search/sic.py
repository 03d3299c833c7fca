"""Significance improvement: how much better a cut on a score makes S / sqrt(B)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pyrogen.checks import array, check_settings, door, each, instance, optional, require, whole
from pyrogen.events.containers import numbers_of
from pyrogen.labelled import Labelled
from pyrogen.printing import Brief

Array = NDArray[np.float64]
LEAST = 25  # background events behind a cut: the error of their number is 20 %
POINTS = 500  # of a curve


def EFFICIENCIES(name: str, value: Any) -> Array:
    """Numbers ``[k]`` from 0 to 1."""
    values = np.asarray(numbers_of(array(1)(name, value), name), dtype=np.float64)
    bad = values[~((values >= 0) & (values <= 1))]
    require(not bad.size, name, bad[0] if bad.size else None, "from 0 to 1 in every entry")
    return values


@dataclass(frozen=True, kw_only=True, repr=False)
class SicCurve(Labelled):
    """Efficiencies of cuts "score >= threshold" on a labelled sample, from the tightest cut to the loosest.

    The significance improvement is ``SIC = eps_S / sqrt(eps_B)``: a cut multiplies S / sqrt(B) by it. Errors are
    statistical ones of the labelled sample, see :func:`sic_curve`; they say nothing of another training.

    Attributes:
        threshold: ``[n]``, falling.
        signal_efficiency, background_efficiency: ``[n]``, fractions that pass, rising.
        signal_error, background_error: ``[n]``, their binomial errors.
        least: fewest (effective) background events that pass a cut of this curve.
    """

    _dims: ClassVar[Mapping[str, str]] = {
        "threshold": "cut",
        "signal_efficiency": "cut",
        "background_efficiency": "cut",
        "signal_error": "cut",
        "background_error": "cut",
        "sic": "cut",
    }
    _at: ClassVar[tuple[str, ...]] = ("threshold",)

    threshold: Array
    signal_efficiency: Array
    background_efficiency: Array
    signal_error: Array
    background_error: Array
    least: int

    @property
    def sic(self) -> Array:
        """Significance improvement of each cut, ``[n]``."""
        return self.signal_efficiency / np.sqrt(self.background_efficiency)

    @property
    def sic_error(self) -> Array:
        """Its error at a fixed threshold, ``[n]``: those of both efficiencies, which are independent."""
        eps = self.background_efficiency
        of_background = self.signal_efficiency * self.background_error / (2 * eps**1.5)
        return np.hypot(self.signal_error / np.sqrt(eps), of_background)

    @property
    def maximum(self) -> float:
        """Largest significance improvement; the largest of many noisy ones is a little too large."""
        return float(self.sic.max())

    @property
    def maximum_error(self) -> float:
        """Error of the significance improvement at its maximum."""
        return float(self.sic_error[self.sic.argmax()])

    @door(efficiency=EFFICIENCIES)
    def at_signal(self, efficiency: ArrayLike) -> Array:
        """Significance improvement at signal efficiencies ``[k]``; NaN where no cut of the curve has them."""
        return np.interp(np.asarray(efficiency), self.signal_efficiency, self.sic, np.nan, np.nan)

    @door(efficiency=EFFICIENCIES)
    def at_background(self, efficiency: ArrayLike) -> Array:
        """Significance improvement at background efficiencies ``[k]``; NaN where no cut of the curve has them."""
        return np.interp(np.asarray(efficiency), self.background_efficiency, self.sic, np.nan, np.nan)

    def _summary(self) -> str:
        return f"maximum {self.maximum:.3g} +- {self.maximum_error:.2g}, {len(self.threshold)} cuts"


@dataclass(frozen=True, repr=False)
class SicCurves(Brief):
    """Curves of several trainings of one method: mean, and the spread that another training may have.

    Attributes:
        curves: one of each training.
    """

    curves: Sequence[SicCurve]

    def __post_init__(self) -> None:
        curve = instance(SicCurve, "a SicCurve, see pg.search.sic_curve")
        check_settings(self, curves=each(curve, "curves of several trainings, such as [sic_curve(s, b)]", least=1))

    @property
    def maxima(self) -> Array:
        """Largest significance improvement of each training, ``[R]``."""
        return np.array([curve.maximum for curve in self.curves])

    @property
    def maximum(self) -> tuple[float, float]:
        """Mean of :attr:`maxima`, and their standard deviation; NaN for a single training."""
        mean, spread = _mean_and_spread(self.maxima[:, None])
        return float(mean[0]), float(spread[0])

    @door(efficiency=EFFICIENCIES)
    def at_signal(self, efficiency: ArrayLike) -> tuple[Array, Array]:
        """Mean and standard deviation over the trainings at signal efficiencies ``[k]``.

        NaN where the curve of a training has no such cut.
        """
        return _mean_and_spread(np.stack([curve.at_signal(efficiency) for curve in self.curves]))

    @door(efficiency=EFFICIENCIES)
    def at_background(self, efficiency: ArrayLike) -> tuple[Array, Array]:
        """Mean and standard deviation over the trainings at background efficiencies ``[k]``, as :meth:`at_signal`."""
        return _mean_and_spread(np.stack([curve.at_background(efficiency) for curve in self.curves]))

    def _summary(self) -> str:
        mean, spread = self.maximum
        return f"maximum {mean:.3g} +- {spread:.2g} over {len(self.curves)} trainings"


@door(
    signal=array(1),
    background=array(1),
    signal_weights=optional(array(1)),
    background_weights=optional(array(1)),
    least=whole(1),
    points=whole(2),
)
def sic_curve(
    signal: ArrayLike,
    background: ArrayLike,
    *,
    signal_weights: ArrayLike | None = None,
    background_weights: ArrayLike | None = None,
    least: int = LEAST,
    points: int = POINTS,
) -> SicCurve:
    """Significance improvement of cuts on a score, from labelled events that did not train it.

    Cuts lie at scores of background events, at about equal steps in the logarithm of the efficiency. An efficiency
    eps = sum_in w / sum w has the variance ``((1 - eps)^2 sum_in w^2 + eps^2 sum_out w^2) / (sum w)^2``, which is
    eps (1 - eps) / N of N events without weights.

    Args:
        signal: scores ``[S]`` of signal events, large for signal.
        background: scores ``[B]`` of background events.
        signal_weights, background_weights: ``[S]`` and ``[B]``, not negative; None: each event counts once.
        least: smallest number of background events that a cut may leave; with weights, (sum w)^2 / sum w^2. With fewer,
            the maximum of the curve is a fluctuation.
        points: most cuts of the curve.

    Raises:
        ValueError: no signal or no background; scores that are not finite; weights that are negative, of another length
            or without a positive sum; fewer background events than ``least``.
    """
    s, w = _scores("signal", signal, signal_weights)
    b, v = _scores("background", background, background_weights)
    size = np.cumsum(v) ** 2 / np.maximum(np.cumsum(v**2), 1e-300)
    enough = np.flatnonzero(size >= least)
    if not enough.size:
        raise ValueError(
            f"background is worth {size[-1]:,.4g} events; a cut must leave least={least} of them: give more events"
        )
    rank = np.unique(np.geomspace(enough[0] + 1, len(b), points).round().astype(int)) - 1
    threshold = np.unique(b[rank])[::-1]
    # Weighted events behind a looser cut may be worth less, and events of the same score pass together.
    worth = size[np.searchsorted(-b, -threshold, "right") - 1]
    if not (worth >= least).any():
        raise ValueError(
            f"background is worth {worth.max():,.4g} events behind the best cut; a cut must leave least={least} of "
            "them: give more events, or a smaller least"
        )
    threshold = threshold[worth >= least]
    signal_efficiency, signal_error = _efficiencies(s, w, threshold)
    background_efficiency, background_error = _efficiencies(b, v, threshold)
    return SicCurve(
        threshold=threshold,
        signal_efficiency=signal_efficiency,
        background_efficiency=background_efficiency,
        signal_error=signal_error,
        background_error=background_error,
        least=least,
    )


def _scores(name: str, scores: ArrayLike, weights: ArrayLike | None) -> tuple[Array, Array]:
    """Finite scores from the largest down, with their weights."""
    values = np.asarray(numbers_of(scores, name), dtype=np.float64)
    if not len(values):
        raise ValueError(f"{name} has no events; scores of signal and of background are needed")
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise ValueError(f"{name} is {values[bad[0]]} in {bad.size:,} of {len(values):,} events, first {bad[0]}")
    order = np.argsort(-values, kind="stable")
    if weights is None:
        return values[order], np.ones(len(values))
    w = np.asarray(numbers_of(weights, f"{name}_weights"), dtype=np.float64)
    if w.shape != values.shape:
        raise ValueError(f"{name}_weights has the shape {list(w.shape)}; {name} has {len(values)} events")
    if not (np.isfinite(w).all() and (w >= 0).all() and w.sum() > 0):
        raise ValueError(f"{name}_weights are {w.min():.6g} to {w.max():.6g}; they must be at least 0, and finite")
    return values[order], w[order]


def _efficiencies(scores: Array, weights: Array, threshold: Array) -> tuple[Array, Array]:
    """Fractions at or above falling thresholds of scores from the largest down, and their errors."""
    passing = np.searchsorted(-scores, -threshold, "right")
    total, squares = (np.concatenate([[0.0], np.cumsum(w)]) for w in (weights, weights**2))
    eps = total[passing] / total[-1]
    variance = (1 - eps) ** 2 * squares[passing] + eps**2 * (squares[-1] - squares[passing])
    return eps, np.sqrt(np.maximum(variance, 0.0)) / total[-1]


def _mean_and_spread(values: Array) -> tuple[Array, Array]:
    """Over the first axis; the spread of one row is NaN."""
    spread = values.std(0, ddof=1) if len(values) > 1 else np.full(values.shape[1:], np.nan)
    return values.mean(0), spread
