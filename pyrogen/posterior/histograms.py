"""Histograms of observables of a posterior's events, one row per weight draw [A eqs. 32-34, sec. 3.5]."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from pyrogen.checks import MAPPING, door, instance
from pyrogen.events import EventSample, stream
from pyrogen.posterior.bands import HistogramBand, make_edges, multinomial_noise, weighted_noise
from pyrogen.posterior.predictor import Predictor

Functions = Mapping[str, Callable[[Tensor], Tensor]]
Edges = Mapping[str, NDArray[np.float64]]


def own_events(
    predictor: Predictor, functions: Functions, edges: Edges, n: int, draws: int, context: Any, seed: int
) -> dict[str, HistogramBand]:
    """Procedure (a): every weight draw generates ``n`` events and fills its own histogram."""
    counts = {name: np.zeros((draws, len(its) - 1)) for name, its in edges.items()}
    for k, events in predictor.replicates(n, draws, context, seed, "histogram"):
        for name, function in functions.items():
            counts[name][k] += np.histogram(observable_values(function, events), edges[name])[0]
    return {
        name: HistogramBand(edges[name], filled / n, n, "a", multinomial_noise(filled / n, n))
        for name, filled in counts.items()
    }


def weighted_events(
    predictor: Predictor, functions: Functions, edges: Edges, n: int, draws: int, context: Any, seed: int
) -> dict[str, HistogramBand]:
    """Procedure (b): the same ``n`` events for all draws, weighted by each draw's density."""
    events = predictor.sample(n, draws, context, seed)
    sums = {name: np.zeros((draws, len(its) - 1)) for name, its in edges.items()}
    squares = {name: np.zeros(len(its) - 1) for name, its in edges.items()}
    for rows, block in predictor.log_prob_blocks(events, context, draws, seed, "histogram"):
        # The events come from the mixture of the same draws: their density is the mean over the draws.
        weights = torch.softmax(block.double(), 0).mul(draws).cpu().numpy()
        spread = np.square(weights - 1).mean(0)
        for name, function in functions.items():
            values = observable_values(function, events[rows])
            for k in range(draws):
                sums[name][k] += np.histogram(values, edges[name], weights=weights[k])[0]
            squares[name] += np.histogram(values, edges[name], weights=spread)[0]
    return {
        name: HistogramBand(edges[name], filled / n, n, "b", weighted_noise(filled / n, squares[name] / n, n))
        for name, filled in sums.items()
    }


@door(source=instance((EventSample, str, os.PathLike), "an EventSample or the path of a file"), observables=MAPPING)
def sample_histograms(
    source: EventSample | str | os.PathLike[str], observables: Mapping[str, tuple[Any, ...]]
) -> dict[str, HistogramBand]:
    """Histograms with the posterior's band from generated events that carry log-weights; the posterior is not needed.

    Procedure (b): every draw weights the same events by ``p(x|theta_k) / p(x)``.

    Args:
        source: events made with ``log_weights=True``, or a file of them, which is streamed.
        observables: by name ``(observable, bins)`` or ``(observable, number of bins, (low, high))``; an observable is a
            function of events ``[m, d]`` (tensor) to values ``[m]``, or a column's name or index.

    Raises:
        ValueError: events without log-weights, with event weights, or an observable or bins that do not fit.
    """
    if not observables:
        raise ValueError("observables is empty; give at least one")
    edges = {name: make_edges(*wanted[1:]) for name, wanted in observables.items()}
    parts = iter([source]) if isinstance(source, EventSample) else stream(source)
    sums: dict[str, Any] = dict.fromkeys(edges, 0.0)
    squares: dict[str, Any] = dict.fromkeys(edges, 0.0)
    n = 0
    for part in parts:
        if part.log_weights is None or part.weights is not None:
            wrong = "no log-weights" if part.log_weights is None else "event weights besides their log-weights"
            raise ValueError(f"the events have {wrong}; make them with posterior.generate(n, log_weights=True)")
        weights, events = np.exp(part.log_weights), part.tensor(torch.float64)
        for name, (observable, *_) in observables.items():
            values = observable_values(observable, events) if callable(observable) else part.column(observable)
            bins = np.searchsorted(edges[name], values, side="right") - 1
            bins[values == edges[name][-1]] -= 1  # the last bin has both its edges, as in numpy
            rows = np.flatnonzero((bins >= 0) & (bins < len(edges[name]) - 1))
            shape = (len(edges[name]) - 1, len(rows))
            one_hot = csr_array((np.ones(len(rows)), (bins[rows], np.arange(len(rows)))), shape)
            sums[name] = sums[name] + (one_hot @ weights[rows]).T
            squares[name] = squares[name] + one_hot @ np.square(weights[rows] - 1).mean(1)
        n += len(part)
    return {
        name: HistogramBand(its, sums[name] / n, n, "b", weighted_noise(sums[name] / n, squares[name] / n, n))
        for name, its in edges.items()
    }


def observable_values(function: Callable[[Tensor], Tensor], events: Tensor) -> NDArray[np.float64]:
    """Checked values ``[m]`` of an observable of events ``[m, d]``.

    Raises:
        ValueError: values of another shape, NaN or infinite.
    """
    values = torch.as_tensor(function(events)).detach().double().cpu().numpy()
    if values.shape != (len(events),):
        raise ValueError(
            f"the observable gave shape {list(values.shape)} for {len(events)} events; it must be [events]"
        )
    if not np.isfinite(values).all():
        raise ValueError(
            f"the observable is NaN or infinite for {(~np.isfinite(values)).sum()} of {len(events)} events"
        )
    return values
