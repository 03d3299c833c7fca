"""How many true events give bin probabilities the errors that a posterior gives them [G] (arXiv:2509.08048).

N true events give a bin of probability p the variance ``p (1 - p) / N``, and any bins the covariance
``(diag(p) - p p^T) / N``. A posterior's variance of the same bins is worth the N for which these agree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyrogen.signals import uninterrupted

Array = NDArray[np.float64]

FEWEST = 5  # draws, for a variance and its error
SIGNIFICANT = 4.0  # standard deviations by which a variance exceeds that of the noise, or else there is a limit only
LIMIT = 0.95  # confidence of a lower limit
WHOLE = 1e-12  # what rounding leaves of the probability outside a bin that holds all events


@dataclass(frozen=True)
class Numbers:
    """Effective numbers of events, any shape.

    Attributes:
        value: the numbers; where ``limit`` is true, what they are at least, at 95 %; NaN of a bin without any events.
        error: their standard errors; NaN where there is a limit only.
        limit: whether the variance is lost in the noise of the generated events, so that there is a lower limit only.
    """

    value: Array
    error: Array
    limit: NDArray[np.bool_]


class BinVariance:
    """The variance of bins over weight draws, and how well so many draws and events know it.

    Args:
        draws: probabilities of the bins in every draw ``[K, B]``, K at least 5, taken for independent.
        noise: covariance ``[B, B]`` of the rows from the finite number of events, unbiased.
    """

    def __init__(self, draws: Array, noise: Array) -> None:
        if len(draws) < FEWEST:
            raise ValueError(f"{len(draws)} draws are too few for a variance and its error: give {FEWEST} or more")
        self.draws, self.noise = draws, noise
        self.mean, self.freedom = draws.mean(0), len(draws) - 1
        self._rows = draws - self.mean
        self.total = self._rows.T @ self._rows / self.freedom

    @property
    def one_event(self) -> Array:
        """Variance ``p (1 - p)`` of a single true event in every bin, ``[B]``: none where all events are in the bin."""
        outside = 1 - self.mean
        return self.mean * np.where(outside > WHOLE, outside, 0.0)

    def each(self) -> Numbers:
        """The number for every bin, ``[B]``."""
        total, noise = np.diagonal(self.total), np.diagonal(self.noise)
        one_error = np.abs(1 - 2 * self.mean) * np.sqrt(total / len(self.draws))
        return self._numbers(self.one_event, one_error, total, noise, np.sqrt(2 / self.freedom) * total)

    def together(self) -> Numbers:
        """The number for which true events have the same variance, summed over the bins, ``[]``."""
        total, noise = np.trace(self.total), np.trace(self.noise)
        slope = 1 - 2 * self.mean
        one_error = math.sqrt(max(float(slope @ self.total @ slope), 0.0) / len(self.draws))
        return self._numbers(self.one_event.sum(), one_error, total, noise, self._trace_error())

    def _trace_error(self) -> float:
        """Standard error of the trace of the covariance: ``2 tr(C^2) / nu`` of Gaussian draws, C^2 without bias."""
        nu, trace = self.freedom, float(np.trace(self.total))
        square = float(np.square(self.total).sum())
        unbiased = nu**2 / ((nu - 1) * (nu + 2)) * (square - trace**2 / nu)
        # It is at most the square of the trace, and at least that of equal eigenvalues.
        least = trace**2 / max(len(self.mean), 1)
        return math.sqrt(2 / nu * float(np.clip(unbiased, least, trace**2)))

    def worst(self, bins: NDArray[np.bool_]) -> tuple[Numbers, Array]:
        """The combination of bins that is worth the fewest events, found by half of the draws, measured with the rest.

        Of the shape: x are fractions of what is in these bins. In ``z_b = (x_b - p_b) / sqrt(p_b)`` n true events in
        them have the covariance ``(1 - s s^T) / n``, s the root of p, and z is orthogonal to s, so that the combination
        is the eigenvector of largest variance. That variance is measured along the eigenvector of the other half of the
        draws, as the largest of many is too large where it was found. So some combination may be worth even less.

        Args:
            bins: the bins ``[B]`` that take part.

        Returns:
            The number ``[]``, and the coefficients c of ``sum_b c_b x_b``, ``[B]``, with ``sum_b c_b p_b = 0`` and
            ``sum_b c_b^2 p_b = 1``; NaN of bins that take no part, and where fewer than two do.
        """
        combination = np.full(len(bins), np.nan)
        if bins.sum() < 2:
            return Numbers(np.array(np.nan), np.array(np.nan), np.array(True)), combination
        inside = self.mean[bins].sum()
        p = self.mean[bins] / inside
        scale = (np.eye(len(p)) - p[:, None]) / (inside * np.sqrt(p)[:, None])
        z, noise = self._rows[:, bins] @ scale.T, scale @ self.noise[np.ix_(bins, bins)] @ scale.T
        halves = [np.cov(half.T) for half in np.array_split(z, 2)]
        found = np.array(
            [
                [vector @ measured @ vector, vector @ noise @ vector]
                for measured, other in (halves, halves[::-1])
                for vector in [_largest(other - noise, np.sqrt(p))]
            ]
        )
        combination[bins] = _largest(z.T @ z / self.freedom - noise, np.sqrt(p)) / np.sqrt(p)
        total, its_noise = found.mean(0) * inside
        error = math.sqrt(2 / (self.freedom - 1)) * total
        return self._numbers(1.0, 0.0, total, its_noise, error), combination

    def _numbers(self, one: Any, one_error: Any, total: Any, noise: Any, total_error: Any) -> Numbers:
        """``one / (total - noise)`` with its error, or its lower limit where the noise explains the total.

        ``1 / V`` of an estimate V of nu degrees of freedom and the relative error e is too large by
        ``1 + e^2 nu / (nu - 2)`` on average, exactly so of a chi-square, and its own relative error is
        ``e sqrt(nu / (nu - 4))``. The limit takes the total for a chi-square of as many degrees of freedom as its error
        tells.
        """
        with uninterrupted():
            from scipy.special import chdtri  # here: nothing else of a posterior needs it

        one, total, noise = (np.asarray(each, dtype=np.float64) for each in (one, total, noise))
        nu, variance = self.freedom, total - noise
        limit = variance <= SIGNIFICANT * math.sqrt(2 / nu) * noise
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = total_error / variance
            value = one / variance / (1 + relative**2 * nu / (nu - 2))
            error = value * np.hypot(relative * math.sqrt(nu / max(nu - 4, 1)), one_error / one)
            freedom = 2 * np.square(total / total_error)
            most = np.where(total > 0, total * freedom / chdtri(freedom, LIMIT), 0.0)
            least = one / (most - np.minimum(noise, total))
        empty = one <= 0
        value = np.where(empty, np.nan, np.where(limit, least, value))
        return Numbers(value, np.where(limit | empty, np.nan, error), limit & ~empty)


def _largest(matrix: Array, normal: Array) -> Array:
    """The unit vector orthogonal to ``normal`` along which the matrix is largest.

    The matrix has the eigenvalue 0 along the normal, which is the largest one where the noise is larger than the rest.
    """
    plane = np.linalg.svd(normal[None])[2][1:].T
    return plane @ np.linalg.eigh(plane.T @ matrix @ plane)[1][:, -1]
