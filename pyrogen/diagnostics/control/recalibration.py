"""Weights p_data / p_model put right by their own calibration curve."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pyrogen.diagnostics.control.calibration import calibration_curve, straight_line
from pyrogen.signals import uninterrupted

Array = NDArray[np.float64]
Pair = tuple[Array, Array]

BINS = 20  # of the isotonic curve, at most: with more, its noise orders the events anew


def recalibrated(log_w: Pair, weights: Pair, folds: tuple[NDArray[np.int64], NDArray[np.int64]], method: str) -> Pair:
    """Log-weights mapped by a curve that was fitted to the events of all other folds.

    Args:
        log_w, weights: of true and generated events.
        folds: of these.
        method: ``"isotonic"`` or ``"slope"``.

    Raises:
        ValueError: negative weights, which an isotonic curve cannot take.
    """
    if method == "isotonic" and any((its < 0).any() for its in weights):
        raise ValueError('an isotonic curve cannot take negative weights; use method="slope"')
    fit: Callable[[Pair, Pair], Callable[[Array], Array]] = _isotonic if method == "isotonic" else _straight
    found = tuple(np.empty_like(its) for its in log_w)
    for k in np.unique(folds[0]):
        own = [its == k for its in folds]
        rest = [[each[~mask] for each, mask in zip(pair, own, strict=True)] for pair in (log_w, weights)]
        curve = fit((rest[0][0], rest[0][1]), (rest[1][0], rest[1][1]))
        for values, new, mask in zip(log_w, found, own, strict=True):
            new[mask] = curve(values[mask])
    return found[0], found[1]


def _straight(log_w: Pair, weights: Pair) -> Callable[[Array], Array]:
    factor, offset, _ = straight_line(log_w, weights)
    return lambda x: factor * x + offset if np.isfinite(factor) else np.zeros_like(x)


def _isotonic(log_w: Pair, weights: Pair) -> Callable[[Array], Array]:
    """The measured ratio in bins of w, made monotonous and joined by lines; constant beyond the outermost bins."""
    with uninterrupted():
        from scipy.optimize import isotonic_regression
    curve = calibration_curve(log_w, weights, BINS)
    if len(curve.w) == 1:
        return np.zeros_like
    at, measured = np.log(curve.w), np.log(curve.ratio)
    smooth = isotonic_regression(measured, weights=(curve.ratio / curve.error) ** 2).x
    return lambda x: np.interp(x, at, smooth)
