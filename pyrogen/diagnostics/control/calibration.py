"""Whether weights p_data / p_model say what they mean: their calibration curve, and their slope (arXiv:2305.16774)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pyrogen.labelled import Labelled
from pyrogen.signals import uninterrupted

Array = NDArray[np.float64]

SMALLEST_BIN = 20.0  # effective events of each sample
NEWTON_STEPS = 50


@dataclass(frozen=True, eq=False, repr=False)
class CalibrationCurve(Labelled):
    """N_truth / N_gen in bins of w against w [C eq. 11], on events that the classifiers have not seen.

    Both samples are normalised. Of right weights the ratio in a bin is the mean of w over the generated events of the
    bin, however wide it is: ``chi2`` compares the fraction of true events in each bin with this sum over generated
    ones, with the statistical errors of both samples. Errors of the training are not in it, and they do not get
    smaller with the samples: every curve of very large samples has a large chi2, and :attr:`worst` says whether it
    matters. Weights that are nothing but noise have a chi2 of about 1.5 ndf, since each fold trains what scores the
    others.

    Attributes:
        edges: of the bins in w, ``[B + 1]``: quantiles of both samples together, joined where one of the samples would
            have less than 20 effective events.
        w: mean of w over the generated events of each bin, ``[B]``; NaN where their weights have no positive sum.
        ratio: truth over generated, ``[B]``.
        error: of the ratio and of ``w``, in quadrature, ``[B]``.
        chi2: of ratio against w.
        ndf: degrees of freedom: the bins, less what the normalisation of both samples takes away, which is one where
            the samples hardly differ.
        p_value: probability of a larger chi2.
    """

    _dims: ClassVar[Mapping[str, str]] = {
        "edges": "bin_edge",
        "w": "bin",
        "ratio": "bin",
        "error": "bin",
    }

    edges: Array
    w: Array
    ratio: Array
    error: Array
    chi2: float
    ndf: float
    p_value: float

    @property
    def worst(self) -> float:
        """Largest ``|ratio / w - 1|`` of bins in which it is more than two errors from zero; 0 where there is none."""
        with np.errstate(divide="ignore", invalid="ignore"):
            off, error = np.abs(self.ratio / self.w - 1), self.error / np.abs(self.w)
        off = off[np.isfinite(off) & (off > 2 * error)]
        return float(off.max()) if len(off) else 0.0

    def text(self) -> str:
        """One line."""
        return (
            f"calibration in {len(self.w)} bins of w: chi2/ndf {self.chi2:.1f}/{self.ndf:.1f}, p = {self.p_value:.2g}, "
            f"worst bin {self.worst:.1%} off"
        )


def calibration_curve(log_w: tuple[Array, Array], weights: tuple[Array, Array], bins: int) -> CalibrationCurve:
    """The curve of log-weights of true and generated events, with the weights of these events."""
    u, v = (each / each.sum() for each in weights)
    edges = _edges(log_w, (u, v), bins)
    count = len(edges) - 1
    in_truth, in_generated = (np.clip(np.searchsorted(edges, its, "right") - 1, 0, count - 1) for its in log_w)

    def sums(numbers: NDArray[np.int64], of: Array) -> Array:
        return np.bincount(numbers, of, count).astype(np.float64)

    expected = v * np.exp(log_w[1])  # what a generated event adds to the truth
    true, made, predicted = sums(in_truth, u), sums(in_generated, v), sums(in_generated, expected)
    errors = sums(in_truth, u**2), sums(in_generated, expected**2)
    variance = errors[0] + errors[1]
    chi2 = float(np.sum((true - predicted) ** 2 / variance))
    # Both sums of fractions are fixed: the variance of a fraction is less than that of a count.
    ndf = count - float(np.sum((true**2 * np.sum(u**2) + predicted**2 * np.sum(v**2)) / variance))
    with np.errstate(divide="ignore", invalid="ignore"):
        positive = np.where(made > 0, made, np.nan)
        w, ratio, error = predicted / positive, true / positive, np.sqrt(variance) / positive
    with uninterrupted():
        from scipy.special import chdtrc
    return CalibrationCurve(np.exp(edges), w, ratio, error, chi2, ndf, float(chdtrc(ndf, chi2)))


def _edges(log_w: tuple[Array, Array], weights: tuple[Array, Array], bins: int) -> Array:
    """Quantiles of both samples together, less those that would leave a bin too empty in one of them."""
    pooled, size = np.concatenate(log_w), np.concatenate([np.abs(its) for its in weights])
    inner: Array = np.unique(weighted_quantiles(pooled, np.linspace(0, 1, bins + 1)[1:-1], size))
    inner = inner[(inner > pooled.min()) & (inner < pooled.max())]
    edges: Array = np.concatenate([[pooled.min()], inner, [pooled.max()]])
    middle = float(np.median(pooled))
    while len(edges) > 2:
        numbers = [np.clip(np.searchsorted(edges, its, "right") - 1, 0, len(edges) - 2) for its in log_w]
        filled = [
            np.bincount(where, np.abs(its), len(edges) - 1) ** 2
            / np.maximum(np.bincount(where, its**2, len(edges) - 1), 1e-300)
            for where, its in zip(numbers, weights, strict=True)
        ]
        few = np.flatnonzero(np.minimum(*filled) < SMALLEST_BIN)
        if not len(few):
            break
        # Tails are joined with what is nearer to the middle, where there are more events.
        lower = edges[few[0] + 1] <= middle or few[0] == 0
        gone = few[0] + 1 if lower else few[0]
        edges = np.delete(edges, min(max(gone, 1), len(edges) - 2))
    return edges


def weighted_quantiles(values: Array, levels: Array, weights: Array) -> Array:
    """Quantiles of values with positive weights: where the sum of the weights below passes the level."""
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weights[order])
    rows = np.searchsorted(total, np.asarray(levels) * total[-1])
    return values[order][np.minimum(rows, len(values) - 1)]


def straight_line(log_w: tuple[Array, Array], weights: tuple[Array, Array]) -> tuple[float, float, float]:
    """Factor s and offset a with which ``s log w + a`` is the best log-ratio of both samples, and the error of s.

    s = 1: the weights are as large as they should be. Less: they say more than the classifier knows, as they do after
    it learned its events by heart; 0: they are noise. It is the calibration slope of Cox (1958), a logistic regression
    of equally frequent classes, with the sandwich error of weighted events.
    """
    x = np.concatenate(log_w)
    if np.ptp(x) == 0:
        return np.nan, 0.0, np.inf
    size = sum(map(len, weights))
    w = np.concatenate([its * (size / 2 / its.sum()) for its in weights])
    label = np.repeat([1.0, 0.0], [len(its) for its in log_w])
    design = np.stack([x, np.ones_like(x)], 1)
    found = np.array([1.0, 0.0])
    for _ in range(NEWTON_STEPS):
        p = 1 / (1 + np.exp(-np.clip(design @ found, -700, 700)))
        scores = design * (w * (label - p))[:, None]
        inverse = np.linalg.pinv((design * (w * p * (1 - p))[:, None]).T @ design)
        step = inverse @ scores.sum(0)
        found = found + step / max(1.0, np.abs(step).max())
        if np.abs(step).max() < 1e-9:
            break
    error = np.sqrt((inverse @ (scores.T @ scores) @ inverse)[0, 0])
    return float(found[0]), float(found[1]), float(error)
