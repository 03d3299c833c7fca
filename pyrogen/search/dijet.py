"""The dijet function, and its maximum-likelihood fit to many spectra at once.

``f(m) = p1 (1 - x)^p2 / x^(p3 + p4 log x)``, ``x = m / sqrt(s)``, in events per unit of mass, is the one of dijet
searches of ATLAS and CMS. Its logarithm is linear in ``log p1, p3, p2, p4``, and so the Poisson likelihood of a binned
spectrum has one maximum, which Fisher scoring finds in a few steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

NAMES = ("log_p1", "p3", "p2", "p4")  #: Parameters in the order in which a longer function takes them.
NODES = 3  # of the Gauss-Legendre integral over each bin: exact to 1e-9 for a hundred bins
STEPS = 60  # of Fisher scoring at most; six are the rule
CLOSE = 1e-9  # expected gain of the log likelihood at which a fit is done
FAR = 20.0  # largest step of a coefficient: the density changes by no more than a factor e^20 of it
HALVINGS = 30
TOGETHER = 2_000_000  # numbers of an array of a batch


class DijetFunction:
    """The dijet function on the bins of a spectrum, in coordinates that are orthonormal on these bins.

    Args:
        energy: centre-of-mass energy ``sqrt(s)``, in the unit of the edges.
        parameters: how many, 2 to 4: a power law ``p1 / x^p3``, that times ``(1 - x)^p2``, and all four.
        edges: bin edges ``[B + 1]``, positive, below ``energy``.
    """

    def __init__(self, energy: float, parameters: int, edges: Array) -> None:
        self.names = NAMES[:parameters]
        points, weights = np.polynomial.legendre.leggauss(NODES)
        self.widths = np.diff(edges)
        nodes = (edges[:-1] + edges[1:])[:, None] / 2 + self.widths[:, None] / 2 * points  # [B, Q]
        self.weights = self.widths[:, None] / 2 * weights
        log_x = np.log(nodes / energy)
        raw = np.stack([np.ones_like(log_x), -log_x, np.log1p(-nodes / energy), -(log_x**2)][:parameters], -1)
        orthogonal, triangle = np.linalg.qr(raw.reshape(-1, parameters))
        size = np.sqrt(len(orthogonal))
        self.basis = (orthogonal * size).reshape(raw.shape)  # [B, Q, P]
        self.to_parameters = np.linalg.inv(triangle / size)  # [P, P]: parameters = to_parameters @ theta

    @property
    def bins(self) -> int:
        """Number of bins B."""
        return len(self.widths)

    def expected(self, theta: Array, bins: Mask | slice = slice(None)) -> tuple[Array, Array]:
        """Expected events ``[F, b]`` in the chosen bins and their derivatives ``[F, b, P]``, for ``theta [F, P]``."""
        basis, weights = self.basis[bins], self.weights[bins]
        with np.errstate(over="ignore"):
            density = np.exp(np.tensordot(theta, basis, (-1, -1))) * weights  # [F, b, Q]
        slopes = np.stack([(density * basis[..., p]).sum(-1) for p in range(basis.shape[-1])], -1)
        return density.sum(-1), slopes

    def start(self, counts: Array, used: Mask) -> Array:
        """A start ``[F, P]`` for spectra ``[F, B]``: the fit of the logarithms by least squares."""
        n = np.maximum(counts[:, used], 0) + 0.5
        middle = self.basis[used].mean(1)
        left = np.einsum("fb,bp,bq->fpq", n, middle, middle, optimize=True)
        right = (n * np.log(n / self.widths[used])) @ middle
        return np.linalg.solve(left + 1e-9 * np.eye(left.shape[-1]), right[..., None])[..., 0]


@dataclass(frozen=True)
class Fitted:
    """Fits to F spectra.

    Attributes:
        theta: coefficients ``[F, P]`` in the coordinates of the function.
        covariance: of them, ``[F, P, P]``.
        converged: which fits found the maximum, ``[F]``.
    """

    theta: Array
    covariance: Array
    converged: Mask


def fit_all(function: DijetFunction, counts: Array, used: Mask, squares: Array | None = None) -> Fitted:
    """Fit spectra ``counts [F, B]`` in the bins ``used [B]`` by maximum Poisson likelihood.

    The covariance is the inverse Fisher information ``I^-1``; with weighted events, whose sums of squared weights are
    ``squares [F, B]``, it is ``I^-1 V I^-1`` with the variance V of the score that these give.
    """
    size = max(1, TOGETHER // (int(used.sum()) * NODES * len(function.names)))
    parts = [slice(i, i + size) for i in range(0, len(counts), size)]
    found = [_fit(function, counts[part], used, None if squares is None else squares[part]) for part in parts]
    return Fitted(*(np.concatenate([getattr(each, name) for each in found]) for name in Fitted.__annotations__))


def _fit(function: DijetFunction, counts: Array, used: Mask, squares: Array | None) -> Fitted:
    n = counts[:, used]
    theta = function.start(counts, used)
    mean, slope = function.expected(theta, used)
    gain = log_likelihood(n, mean)
    active = np.arange(len(n))
    for _ in range(STEPS):
        score, information = score_and_information(n[active], mean[active], slope[active])
        step = _solved(information, score)
        decrement = (step * score).sum(-1)
        going = ~(decrement < CLOSE)  # NaN goes on, and then fails
        active, step = active[going], step[going]
        if not len(active):
            break
        step *= np.minimum(1, FAR / np.maximum(np.abs(step).max(-1, keepdims=True), FAR))
        waiting = np.arange(len(active))
        for _ in range(HALVINGS):
            rows = active[waiting]
            tried = theta[rows] + step[waiting]
            new_mean, new_slope = function.expected(tried, used)
            new_gain = log_likelihood(n[rows], new_mean)
            better = new_gain >= gain[rows] - 1e-9 * np.abs(gain[rows])
            done = rows[better]
            theta[done], mean[done], slope[done] = tried[better], new_mean[better], new_slope[better]
            gain[done] = new_gain[better]
            waiting = waiting[~better]
            if not len(waiting):
                break
            step[waiting] /= 2
    score, information = score_and_information(n, mean, slope)
    decrement = (_solved(information, score) * score).sum(-1)
    covariance = inverse(information)
    if squares is not None:
        covariance = covariance @ score_variance(n, squares[:, used], mean, slope) @ covariance
    # A fit whose events lie in too few bins runs away to where the information vanishes.
    known = np.linalg.cond(information) < 1e10
    return Fitted(theta, covariance, (decrement < 1e-5) & known)


def score_variance(n: Array, squares: Array, mean: Array, slope: Array) -> Array:
    """Covariance ``[F, P, P]`` of the score of weighted events: ``sum_b (dmu/mu)^2 mu sum w^2 / sum w``.

    In an empty bin the ratio of the sums of weights is that of the whole spectrum.
    """
    whole = squares.sum(-1, keepdims=True) / np.maximum(n.sum(-1, keepdims=True), 1e-300)
    scale = np.where(n > 0, squares / np.where(n > 0, n, 1.0), whole)
    return np.swapaxes(slope / mean[..., None], 1, 2) @ (slope * scale[..., None])


def log_likelihood(counts: Array, mean: Array) -> Array:
    """Poisson log likelihood ``[F]`` of ``counts [F, b]``, without the terms that the mean does not enter."""
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(counts > 0, counts * np.log(mean), 0.0) - mean
    return np.where(np.isfinite(terms).all(-1), terms.sum(-1), -np.inf)


def inverse(information: Array) -> Array:
    """Covariance ``[F, P, P]`` of an information; of a singular one its pseudo-inverse."""
    return np.linalg.pinv(information, hermitian=True).astype(np.float64)


def score_and_information(n: Array, mean: Array, slope: Array) -> tuple[Array, Array]:
    """Gradient ``[F, P]`` of the log likelihood and its Fisher information ``[F, P, P]``."""
    over = slope / mean[..., None]
    score = ((n - mean)[:, None, :] @ over)[:, 0]
    return score, np.swapaxes(over, 1, 2) @ slope


def _solved(information: Array, score: Array) -> Array:
    size = np.trace(information, axis1=1, axis2=2)[:, None, None]
    return np.linalg.solve(information + 1e-12 * size * np.eye(score.shape[-1]), score[..., None])[..., 0]
