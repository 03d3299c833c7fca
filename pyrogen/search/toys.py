"""Scans of pseudo-spectra without a signal, complete as that of the data: the trials of a bump hunt."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pyrogen.progress import bar
from pyrogen.seeds import stream
from pyrogen.signals import uninterrupted

from .bump_result import Trials
from .counting import SidebandCounting, estimate_by_counting, excess_p_value, z_of
from .given import GivenBackground, in_windows
from .spectrum import SidebandFit, estimate_by_fit
from .windows import Windows

Array = NDArray[np.float64]
PART = 100  # pseudo-spectra at a time, each part with random numbers of its own
LEAST = 1e-9  # events; a background of a toy that a Gaussian makes negative

Scan = Callable[[np.random.Generator, int], Array]


def estimate(
    background: SidebandFit | SidebandCounting, counts: Array, squares: Array | None, windows: Windows
) -> tuple[Array, Array]:
    """Background and its uncertainty, ``[F, W]`` each, of spectra ``counts [F, B]``; NaN where a fit fails."""
    if isinstance(background, SidebandFit):
        return estimate_by_fit(background, counts, squares, windows)
    return estimate_by_counting(background, counts, squares, windows)


def local_p(
    background: SidebandFit | SidebandCounting,
    counts: Array,
    squares: Array | None,
    windows: Windows,
    p_value: str,
    scale: float = 1.0,
) -> Array:
    """Local p-values ``[F, W]`` of spectra ``counts [F, B]``; NaN where a fit fails."""
    mean, sigma = estimate(background, counts, squares, windows)
    return p_values(windows.sums(counts), mean, sigma, p_value, scale)


def p_values(observed: Array, mean: Array, sigma: Array, p_value: str, scale: float = 1.0) -> Array:
    """As :func:`excess_p_value`; NaN where the background is not known."""
    good = np.isfinite(mean) & np.isfinite(sigma) & (mean > 0)
    found = excess_p_value(
        np.where(good, observed, 0.0), np.where(good, mean, 1.0), np.where(good, sigma, 0.0), p_value, scale=scale
    )
    return np.where(good, found, np.nan)


def of_spectrum(
    background: SidebandFit | SidebandCounting,
    expected: Array,
    scale: float,
    weighted: bool,
    windows: Windows,
    how: str,
) -> Scan:
    """Scans of Poisson spectra around ``expected [B]``; of weighted events with ``scale = sum w^2 / sum w``."""

    def scan(rng: np.random.Generator, n: int) -> Array:
        counts: Array = scale * rng.poisson(expected / scale, (n, len(expected))).astype(np.float64)
        return local_p(background, counts, scale * counts if weighted else None, windows, how, scale)

    return scan


def of_given(background: GivenBackground, scale: float, windows: Windows, how: str) -> Scan:
    """Scans of Poisson spectra around a given background, with estimates of it that scatter by its covariance.

    Raises:
        ValueError: windows that overlap, where the background is not known in bins.
    """
    mean, covariance = in_windows(background, windows)
    sigma = np.sqrt(np.clip(np.diag(covariance), 0, None))
    if background.edges is None:
        order = np.argsort(windows.low)
        if (windows.high[order][:-1] > windows.low[order][1:]).any():
            raise ValueError(
                "toys: the windows overlap, and their events are correlated. Give GivenBackground(edges=...) in bins, "
                "or toys=0"
            )
        truth, chosen = mean, np.eye(len(mean))
    else:
        truth, chosen = np.asarray(background.mean), windows.inside.astype(np.float64)
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.clip(values, 0, None))

    def scan(rng: np.random.Generator, n: int) -> Array:
        observed = scale * rng.poisson(truth / scale, (n, len(truth))) @ chosen.T
        estimate = np.maximum(mean + rng.standard_normal((n, len(values))) @ root.T, LEAST)
        return p_values(observed, estimate, np.broadcast_to(sigma, estimate.shape), how, scale)

    return scan


def of_draws(signals: Array) -> Scan:
    """Scans without a signal, with the correlations between windows that draws ``signals [K, W]`` of S have.

    The sum of centred draws with standard normal factors is a Gaussian with their covariance.
    """
    offset = signals - signals.mean(0)
    unit = offset / np.sqrt(np.square(offset).sum(0))

    def scan(rng: np.random.Generator, n: int) -> Array:
        with uninterrupted():
            from scipy import special
        return special.ndtr(-rng.standard_normal((n, len(unit))) @ unit)

    return scan


def run_trials(scan: Scan, toys: int, observed: float, seed: int, progress: bool) -> Trials:
    """The largest local significance of ``toys`` scans, beside that of the data."""
    largest = []
    with bar(toys, "bump hunt", "scan", show=progress, brief=True) as shown:
        for part, done in enumerate(range(0, toys, PART)):
            n = min(PART, toys - done)
            rng = np.random.default_rng(stream(seed, "bump hunt", part))
            p = scan(rng, n)
            largest.append(z_of(p.min(1)))  # NaN stays NaN
            shown.update(n)
    return Trials(np.concatenate(largest), observed)
