"""Location and width of a resonance peak in a sample."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pyrogen.checks import LIMITS, array, door, optional, whole
from pyrogen.events import check_events, check_weights
from pyrogen.printing import Brief
from pyrogen.signals import uninterrupted

Array = NDArray[np.float64]

FEWEST = 100  # effective number of events in the window of a peak


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
    with uninterrupted():
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
