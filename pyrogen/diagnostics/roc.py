"""Area under the ROC curve of weighted events."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pyrogen.checks import array, door, optional
from pyrogen.events import check_weights
from pyrogen.events.containers import numbers_of

Array = NDArray[np.float64]


@door(
    truth_scores=array(),
    generated_scores=array(),
    truth_weights=optional(array()),
    generated_weights=optional(array()),
)
def roc_auc(
    truth_scores: ArrayLike,
    generated_scores: ArrayLike,
    truth_weights: ArrayLike | None = None,
    generated_weights: ArrayLike | None = None,
) -> tuple[float, float]:
    """Area under the ROC curve and its statistical error.

    ``A = sum_ij w_i v_j [s_i > t_j] / (sum w sum v)``, ties counted half. Its variance is that of DeLong, DeLong and
    Clarke-Pearson (1988) with weights: ``sum_i w_i^2 (P_i - A)^2 / (sum w)^2``, P_i the fraction of generated events
    below the true event i, times n / (n - 1) with n the effective size, plus the same for the generated events;
    infinite where the effective size of either is not above 1.

    Args:
        truth_scores: ``[N]``, larger for truer events.
        generated_scores: ``[M]``.
        truth_weights: ``[N]`` or None; of either sign (the area may then be outside 0 to 1), with positive sum.
        generated_weights: ``[M]`` or None.

    Raises:
        ValueError: scores that are not finite or empty, weights of another length or without positive sum.
    """
    scores, weights = [], []
    for name, s, w in (
        ("truth_scores", truth_scores, truth_weights),
        ("generated_scores", generated_scores, generated_weights),
    ):
        values = np.asarray(numbers_of(s, name), dtype=np.float64)
        if values.ndim != 1 or len(values) == 0 or not np.isfinite(values).all():
            raise ValueError(f"{name} has shape {list(values.shape)}; it must be finite numbers [N] with N > 0")
        if w is not None:
            check_weights(w, len(values))
        order = np.argsort(values)
        scores.append(values[order])
        weights.append(np.ones(len(values)) if w is None else np.asarray(numbers_of(w, name), dtype=np.float64)[order])
        weights[-1] = weights[-1] / weights[-1].sum()
    below = _fraction_below(scores[0], scores[1], weights[1])
    above = 1 - _fraction_below(scores[1], scores[0], weights[0])
    area = float(weights[0] @ below)
    variance = 0.0
    for w, fractions in zip(weights, (below, above), strict=True):
        size = 1 / np.sum(w**2)
        variance += np.sum(w**2 * (fractions - area) ** 2) * size / (size - 1) if size > 1 else math.inf
    return area, float(np.sqrt(variance))


def _fraction_below(scores: Array, others: Array, weights: Array) -> Array:
    """Weight of the (sorted) others below each score, those at it counted half."""
    total = np.concatenate([[0.0], np.cumsum(weights)])
    return 0.5 * (total[np.searchsorted(others, scores, "left")] + total[np.searchsorted(others, scores, "right")])
