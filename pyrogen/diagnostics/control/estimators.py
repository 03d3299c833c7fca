"""Distances of two samples in many dimensions, and the measures of neighbours: functions of plain arrays.

All take features ``[N, k]`` and ``[M, k]`` with weights ``[N]`` and ``[M]``, which are positive and need no norm, and a
generator for what is random. Own code of a few lines each: jetnet (whose definitions these are) imports its data sets,
numba, energyflow and coffea with its metrics.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from pyrogen.diagnostics.quality import sorted_distance

Array = NDArray[np.float64]

SMALLEST_SHARE = 0.4  # of the events, for the extrapolation of FPD: 20,000 of 50,000 in jetnet
POINTS, REPEATS = 10, 20  # sizes of the extrapolation, and random orders of the events
BATCHES = 10  # of KPD: 5,000 events each of 50,000, as in jetnet
DEGREE = 4  # of its kernel
ROWS = 1_000  # of a matrix of all pairs that are in memory at once


def frechet_distance(x: Array, u: Array, y: Array, v: Array) -> float:
    """Frechet distance of Gaussians with the means and covariances of two samples.

    ``|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))``, arXiv:2211.10295 eq. 5; the eigenvalues of S1 S2 are those of a
    positive matrix.
    """
    everything = np.ones(1)
    (one,), (other,) = (_moments_of_parts(each, w, everything, None) for each, w in ((x, u), (y, v)))
    return _frechet(*one, *other)


def _frechet(m1: Array, s1: Array, m2: Array, s2: Array) -> float:
    roots = np.sqrt(np.linalg.eigvals(s1 @ s2).real.clip(min=0))
    return float((m1 - m2) @ (m1 - m2) + np.trace(s1) + np.trace(s2) - 2 * roots.sum())


def fpd(x: Array, u: Array, y: Array, v: Array, rng: np.random.Generator) -> tuple[float]:
    """Frechet physics distance of arXiv:2211.10295: the Frechet distance extrapolated to infinitely many events.

    Its mean at n events is ``F + c / n``. A line is fitted to the means at ten sizes, equally far apart in 1/n, of
    nested random subsamples *without* replacement; with it jetnet keeps the bias of the full sample. The intercept is
    not bounded either: it fluctuates around zero for samples of one distribution.
    """
    shares = 1 / np.linspace(1 / SMALLEST_SHARE, 1, POINTS)
    values = np.empty((REPEATS, POINTS))
    for i in range(REPEATS):
        moments = [_moments_of_parts(each, w, shares, rng) for each, w in ((x, u), (y, v))]
        values[i] = [_frechet(*one, *other) for one, other in zip(*moments, strict=True)]
    return (float(np.polynomial.Polynomial.fit(1 / shares, values.mean(0), 1).convert().coef[0]),)


def mmd_squared(x: Array, u: Array, y: Array, v: Array) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel ``(x.y / k + 1)^4``; it may be negative."""

    def inner(a: Array, b: Array) -> Array:
        kernel = a @ b.T / a.shape[1] + 1
        return (kernel * kernel) ** (DEGREE // 2)

    def within(a: Array, w: Array) -> float:
        own = (np.square(a).sum(1) / a.shape[1] + 1) ** DEGREE  # an event with itself does not count
        return float((w @ inner(a, a) @ w - np.sum(w**2 * own)) / (w.sum() ** 2 - np.sum(w**2)))

    across = u @ inner(x, y) @ v / (u.sum() * v.sum())
    return within(x, u) + within(y, v) - 2 * float(across)


def kpd(x: Array, u: Array, y: Array, v: Array, rng: np.random.Generator) -> tuple[float]:
    """Kernel physics distance of arXiv:2211.10295: the median of the squared MMD of ten batches, here disjoint ones."""
    parts = [np.array_split(rng.permutation(len(each)), BATCHES) for each in (x, y)]
    return (float(np.median([mmd_squared(x[a], u[a], y[b], v[b]) for a, b in zip(*parts, strict=True)])),)


def energy_distance(x: Array, u: Array, y: Array, v: Array, rng: np.random.Generator) -> tuple[float]:
    """Energy distance ``2 E|x - y| - E|x - x'| - E|y - y'|`` of the two weighted samples, zero only for equal ones."""

    def mean(a: Array, w: Array, b: Array, t: Array) -> float:
        total = sum(float(w[i : i + ROWS] @ (distances(a[i : i + ROWS], b) @ t)) for i in range(0, len(a), ROWS))
        return total / float(w.sum() * t.sum())

    return (2 * mean(x, u, y, v) - mean(x, u, x, u) - mean(y, v, y, v),)


def sliced_wasserstein(
    x: Array, u: Array, y: Array, v: Array, rng: np.random.Generator, directions: int = 30
) -> tuple[float]:
    """Mean Wasserstein-1 distance of the samples projected on random directions."""
    axes = rng.standard_normal((directions, x.shape[1]))
    both, weights = np.concatenate([x, y]), np.concatenate([u, v])
    first = np.arange(len(both)) < len(x)
    found = []
    for axis in axes / np.linalg.norm(axes, axis=1, keepdims=True):
        values = both @ axis
        order = np.argsort(values)
        found.append(sorted_distance(values[order], weights[order], first[order]))
    return (float(np.mean(found)),)


def prdc(
    x: Array, u: Array, y: Array, v: Array, rng: np.random.Generator, neighbours: int = 5
) -> tuple[float, float, float, float]:
    """Precision, recall (arXiv:1904.06991), density and coverage (arXiv:2002.09797) of y with x as the truth.

    The ball of an event reaches to its 5th neighbour in its own sample. Precision: fraction of generated events in the
    ball of some true one; recall: the same with truth and generated exchanged; density: mean number of true balls
    that a generated event is in, over 5; coverage: fraction of true balls with a generated event. Weights are not
    counted.
    """
    (of_x, of_y), between = (_radii(each, neighbours) for each in (x, y)), distances(x, y)
    in_true, in_generated = between < of_x[:, None], between < of_y[None, :]
    return (
        float(in_true.any(0).mean()),
        float(in_generated.any(1).mean()),
        float(in_true.sum(0).mean() / neighbours),
        float(in_true.any(1).mean()),
    )


def distances(a: Array, b: Array) -> Array:
    """Euclidean distances ``[n, m]`` of all pairs; squares by matrix products would break ties by their rounding."""
    exact = "donot_use_mm_for_euclid_dist"
    return torch.cdist(torch.from_numpy(a), torch.from_numpy(b), compute_mode=exact).numpy()


def _radii(a: Array, neighbours: int) -> Array:
    """Distance of each event to its k-th neighbour; the event itself is the nearest."""
    return np.partition(distances(a, a), neighbours, axis=1)[:, neighbours]


def _moments_of_parts(x: Array, w: Array, shares: Array, rng: np.random.Generator | None) -> list[tuple[Array, Array]]:
    """Weighted mean ``[k]`` and unbiased covariance ``[k, k]`` of growing shares of the events in a random order."""
    order = np.arange(len(x)) if rng is None else rng.permutation(len(x))
    ends = np.round(shares * len(x)).astype(int)
    found = []
    first, second = np.zeros(x.shape[1]), np.zeros((x.shape[1],) * 2)
    total = squares = 0.0
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        its, weights = x[order[start:end]], w[order[start:end]]
        weighted = weights[:, None] * its
        first, second = first + weighted.sum(0), second + weighted.T @ its
        total, squares = total + float(weights.sum()), squares + float(weights @ weights)
        mean = first / total
        found.append((mean, (second / total - np.outer(mean, mean)) / (1 - squares / total**2)))
    return found
