"""Histogram of anomaly scores: data, the template scaled to their number, and signal where it is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pyrogen.checks import array, door, instance, optional, whole
from pyrogen.events.containers import numbers_of
from pyrogen.labelled import Labelled
from pyrogen.search.scores import Scores

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, repr=False)
class ScoreHistogram(Labelled):
    """Events per bin of the score.

    Attributes:
        edges: ``[B + 1]`` of the bins of equal width; the ends are the smallest and the largest score.
        data, data_error: ``[B]``, sums of weights, and the square roots of the sums of their squares.
        template, template_error: ``[B]``, scaled so that their total is that of the data.
        signal: ``[B]``, the part of the data that is signal; None where no labels are known.
    """

    _dims: ClassVar[Mapping[str, str]] = {
        "edges": "bin_edge",
        "data": "bin",
        "data_error": "bin",
        "template": "bin",
        "template_error": "bin",
        "signal": "bin",
    }

    edges: Array
    data: Array
    data_error: Array
    template: Array
    template_error: Array
    signal: Array | None


@door(
    scores=instance(Scores, "Scores, see pg.search.anomaly_scores"),
    labels=optional(array(1)),
    bins=whole(1),
)
def score_histogram(scores: Scores, *, labels: ArrayLike | None = None, bins: int = 40) -> ScoreHistogram:
    """Histogram the scores of data and template.

    Args:
        scores: of data and template.
        labels: ``[N]``, 1 for signal and 0 for background among the data, where that is known.
        bins: their number.

    Raises:
        ValueError: labels that are not one of 0 and 1 for each data event, or no signal among them.
    """
    data, template = scores.data, scores.template
    both = np.concatenate([data, template])
    edges = np.histogram_bin_edges(both, bins)  # of one score for all, from half a unit below it to half above
    w = np.ones(len(data)) if scores.data_weights is None else scores.data_weights
    v = np.ones(len(template)) if scores.template_weights is None else np.atleast_2d(scores.template_weights)
    v = (v / v.sum(-1, keepdims=True)).reshape(-1, len(template)).mean(0) * w.sum()
    (found, error), (expected, uncertainty) = _histogram(data, w, edges), _histogram(template, v, edges)
    signal = None
    if labels is not None:
        signal = _histogram(data, w * _labels(labels, len(data)), edges)[0]
    return ScoreHistogram(
        edges=edges, data=found, data_error=error, template=expected, template_error=uncertainty, signal=signal
    )


def _labels(labels: ArrayLike, n: int) -> Array:
    values = np.asarray(numbers_of(labels, "labels"), dtype=np.float64)
    if values.shape != (n,):
        raise ValueError(f"labels has the shape {list(values.shape)}; there are {n} data events, one label for each")
    other = np.flatnonzero((values != 0) & (values != 1))
    if other.size:
        raise ValueError(f"labels is {values[other[0]]:.6g} for event {other[0]}; labels are 1 for signal, else 0")
    if not values.any():
        raise ValueError("labels has no signal: all of them are 0; leave them out")
    return values


def _histogram(values: Array, weights: Array, edges: Array) -> tuple[Array, Array]:
    counts, squares = (np.histogram(values, edges, weights=each)[0] for each in (weights, weights**2))
    return counts.astype(np.float64), np.sqrt(squares)
