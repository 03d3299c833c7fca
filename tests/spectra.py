"""Falling mass spectra with a known density, for tests of the bump hunt."""

import numpy as np

RANGE = (2.0, 7.0)
ENERGY = 13.0
_GRID = np.linspace(*RANGE, 20_001)


def dijet(m, p2=9.0, p3=5.0, p4=0.1):
    """The dijet function, not normalised."""
    x = m / ENERGY
    return (1 - x) ** p2 / x ** (p3 + p4 * np.log(x))


_CDF = np.append(0, np.cumsum((dijet(_GRID)[1:] + dijet(_GRID)[:-1]) / 2))
_CDF /= _CDF[-1]


def falling(n, seed, signal=0, mass=3.5, width=0.08):
    """A Poisson number of masses around ``n`` by the dijet function, and ``signal`` ones of a resonance."""
    rng = np.random.default_rng(seed)
    masses = np.interp(rng.uniform(size=rng.poisson(n)), _CDF, _GRID)
    resonance = np.clip(rng.normal(mass, width, rng.poisson(signal)), *RANGE)
    return np.concatenate([masses, resonance])


def fraction(low, high):
    """Probability of a mass between two ends."""
    return float(np.diff(np.interp([low, high], _GRID, _CDF))[0])
