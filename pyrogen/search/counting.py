"""Significance and p-value of an excess, and a background from counting in the sidebands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pyrogen.checks import POSITIVE, array, check_settings, door, one_of, optional, require
from pyrogen.printing import Brief
from pyrogen.signals import uninterrupted

from .windows import Windows

Array = NDArray[np.float64]

METHODS = ("gamma", "gaussian")
REACH, POINTS = 8.0, 400  # of the integral over a Gaussian background, in sigma
LEAST = 0.5  # events in an empty sideband of a toy
SMALLEST = 1e-300  # p-value that is told apart from zero: 37 sigma
_METHOD = one_of(*METHODS)


@door(observed=array(), background=array(), sigma=array(), observed_sigma=array())
def excess_significance(
    observed: ArrayLike, background: ArrayLike, sigma: ArrayLike, observed_sigma: ArrayLike = 0.0
) -> Array:
    """``S / sqrt(delta_S^2 + B)``, signed; ``S = O - B`` and ``delta_S^2 = delta_O^2 + delta_B^2`` (Kasieczka 2023).

    It is a Gaussian approximation. It claims too much where few events are expected: 7 events over 1 make 6.0, while
    the Poisson probability of at least 7 is that of 3.8 sigma. :func:`excess_p_value` is right there as well. It claims
    too little in a deficit. For 500 +- 15 expected events the two agree to 0.15 up to 3 sigma.

    Args:
        observed: O, events in the window; any shape.
        background: B, expected background there, above zero.
        sigma: delta_B, its uncertainty.
        observed_sigma: delta_O, an uncertainty of O besides its Poisson noise, such as that of a generator.

    Raises:
        ValueError: NaN, negative numbers, or no background.
    """
    o, b, s = _numbers(observed, background, sigma)
    more = np.asarray(observed_sigma, dtype=np.float64)
    require(bool((np.isfinite(more) & (more >= 0)).all()), "observed_sigma", observed_sigma, "finite and not negative")
    return (o - b) / np.sqrt(s**2 + more**2 + b)


@door(observed=array(), background=array(), sigma=array(), method=_METHOD, scale=array())
def excess_p_value(
    observed: ArrayLike, background: ArrayLike, sigma: ArrayLike, method: str = "gamma", *, scale: ArrayLike = 1.0
) -> Array:
    """Probability of at least ``observed`` events where ``background +- sigma`` are expected.

    ``"gamma"``: the background is taken for a count of ``k = (B / delta_B)^2`` events in a sideband that is
    ``tau = B / delta_B^2`` times as large: ``p = I_{1 / (1 + tau)}(O, k + 1)``, the regularised incomplete beta
    function. For a count in a sideband this is the exact binomial test (Cousins, Linnemann and Tucker,
    physics/0702156, their Z_Bi). ``"gaussian"``: the Poisson probability, averaged over a Gaussian of the background
    that is cut off at zero. With ``sigma = 0`` both are the Poisson probability.

    A count takes whole numbers, so that p-values of few expected events are larger than uniform ones: claims are rarer
    than they say, never more frequent.

    Args:
        observed: O; any shape. Sums of weights and means of generators need not be whole numbers.
        background: B, above zero.
        sigma: delta_B.
        method: ``"gamma"`` or ``"gaussian"``.
        scale: of weighted events ``sum w^2 / sum w``: all three are divided by it, to have a Poisson distribution
            with the right variance (Bohm and Zech, arXiv:1309.1287).

    Raises:
        ValueError: NaN, negative numbers, no background, or an unknown method.
    """
    o, b, s = _numbers(observed, background, sigma)
    one = np.asarray(scale, dtype=np.float64)
    require(bool((np.isfinite(one) & (one > 0)).all()), "scale", scale, "positive and finite")
    o, b, s, _ = np.broadcast_arrays(o / one, b / one, s / one, one)
    with uninterrupted():
        from scipy import special

    def poisson(events: Array, mean: Array) -> Array:
        return np.where(events > 0, special.gammainc(np.maximum(events, 1e-9), mean), 1.0)

    if method == "gaussian":
        points, weights = np.polynomial.legendre.leggauss(POINTS)
        low = np.maximum(b - REACH * s, 0)
        half = (b + REACH * s - low) / 2
        means = (low + half)[..., None] + half[..., None] * points
        with np.errstate(divide="ignore", invalid="ignore"):
            density = weights * np.exp(-(((means - b[..., None]) / s[..., None]) ** 2) / 2)
            averaged = (density * poisson(o[..., None], means)).sum(-1) / density.sum(-1)
        return np.where(s > 1e-6 * b, averaged, poisson(o, b))
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = s**2 / b
        p = special.betainc(np.maximum(o, 1e-9), (b / s) ** 2 + 1, scaled / (1 + scaled))
    return np.where(s > 1e-6 * b, np.where(o > 0, p, 1.0), poisson(o, b))


def z_of(p_value: ArrayLike) -> Array:
    """One-sided Gaussian significance of p-values; at most 37."""
    with uninterrupted():
        from scipy import special
    p = np.asarray(p_value, dtype=np.float64)
    return -special.ndtri(np.clip(p, SMALLEST, 1 - 1e-16))


def _numbers(*values: ArrayLike) -> list[Array]:
    found = [np.asarray(value, dtype=np.float64) for value in values]
    for name, value in zip(("observed", "background", "sigma"), found, strict=True):
        require(bool((np.isfinite(value) & (value >= 0)).all()), name, value, "finite and not negative")
    require(bool((found[1] > 0).all()), "background", found[1], "above zero")
    return found


@dataclass(frozen=True, kw_only=True, repr=False)
class SidebandCounting(Brief):
    """Background of a window from the events in a sideband on each of its sides.

    ``"exponential"``: the exponential with the numbers of events of both sidebands, ``B = N1^(1 - r) N2^r`` times a
    ratio of integrals. It has no bias where the spectrum falls exponentially. ``"linear"``: the straight line through
    both, ``B = w ((1 - t) N1 / w1 + t N2 / w2)``. A spectrum that falls like ``exp(-m / L)`` has more curvature than a
    line: with sidebands as wide as the window, of width w, B is too large by the fraction ``w^2 / (2 L^2)``.

    Args:
        width: of each sideband, in widths of the window, cut off at the ends of the range. None: once the window; with
            :class:`Regions` its own sidebands.
        shape: ``"exponential"`` or ``"linear"``.
    """

    width: float | None = None
    shape: str = "exponential"

    def __post_init__(self) -> None:
        check_settings(self, width=optional(POSITIVE), shape=one_of("exponential", "linear"))

    @property
    def name(self) -> str:
        """What it is called in tables and figures."""
        return f"counting, {self.shape}"


def sidebands_of(settings: SidebandCounting, windows: Windows) -> Array:
    """Lower and upper end of the two sidebands of each window, ``[W, 2]`` each, stacked: ``[2, W, 2]``."""
    low, high = windows.low, windows.high
    if settings.width is None and windows.alone:
        reach_low, reach_high = np.full_like(low, windows.range[0]), np.full_like(high, windows.range[1])
    else:
        wide = (settings.width or 1.0) * (high - low)
        reach_low = np.maximum(low - wide, windows.range[0])
        reach_high = np.minimum(high + wide, windows.range[1])
    return np.stack([np.stack([reach_low, low], -1), np.stack([high, reach_high], -1)])


def estimate_by_counting(
    settings: SidebandCounting, counts: Array, squares: Array | None, windows: Windows
) -> tuple[Array, Array]:
    """Background and its uncertainty, ``[F, W]`` each, of spectra ``counts [F, B]``."""
    ends = sidebands_of(settings, windows)
    below, above = (windows.sums(counts, side) for side in ends)
    errors = [windows.sums(counts if squares is None else squares, side) for side in ends]
    (v1, v2), w = errors, windows.high - windows.low
    (c1, h1), (c2, h2), (c, h) = (
        (side.mean(-1), (side[:, 1] - side[:, 0]) / 2) for side in (*ends, np.stack([windows.low, windows.high], -1))
    )
    if settings.shape == "linear":
        t = (c - c1) / (c2 - c1)
        first, second = w * (1 - t) / (2 * h1), w * t / (2 * h2)
        return first * below + second * above, np.sqrt(first**2 * v1 + second**2 * v2)
    scale = np.where(below + above > 0, (v1 + v2) / np.maximum(below + above, 1e-300), 1.0)
    n1, n2 = np.maximum(below, LEAST * scale), np.maximum(above, LEAST * scale)
    v1, v2 = np.maximum(v1, LEAST * scale**2), np.maximum(v2, LEAST * scale**2)
    wanted = np.log(n2 / n1)
    slope = (wanted - np.log(h2 / h1)) / (c2 - c1)
    for _ in range(50):
        off = _log_integral(slope, c2, h2) - _log_integral(slope, c1, h1) - wanted
        slope = slope - off / (_mean(slope, c2, h2) - _mean(slope, c1, h1))
    r = (_mean(slope, c, h) - _mean(slope, c1, h1)) / (_mean(slope, c2, h2) - _mean(slope, c1, h1))
    found = n1 * np.exp(_log_integral(slope, c, h) - _log_integral(slope, c1, h1))
    return found, found * np.sqrt((1 - r) ** 2 * v1 / n1**2 + r**2 * v2 / n2**2)


def _log_integral(slope: Array, middle: Array, half: Array) -> Array:
    """log of the integral of ``exp(slope m)`` over ``middle +- half``."""
    y = np.abs(slope * half)
    ratio = np.where(y > 1e-6, -np.expm1(-2 * y) / np.maximum(2 * y, 1e-300), 1.0)
    return slope * middle + np.log(2 * half) + y + np.log(ratio)


def _mean(slope: Array, middle: Array, half: Array) -> Array:
    """Mean of m over ``middle +- half`` with the weight ``exp(slope m)``."""
    y = slope * half
    safe = np.where(np.abs(y) > 1e-3, y, 1.0)
    return middle + half * np.where(np.abs(y) > 1e-3, 1 / np.tanh(safe) - 1 / safe, y / 3)
