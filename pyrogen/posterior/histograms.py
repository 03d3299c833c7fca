"""Histograms of observables of a posterior's events, one row per weight draw [A eqs. 32-34, sec. 3.5]."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrogen.checks import column_index, door, instance
from pyrogen.events import EventSample, stream
from pyrogen.events.observing import missing_in, way_out
from pyrogen.events.of_objects import observable_of
from pyrogen.events.validation import made_per_event
from pyrogen.posterior.bands import HistogramBand, multinomial_noise, weighted_noise
from pyrogen.posterior.binning import Bins, bins_of, label_for
from pyrogen.posterior.predictor import Predictor, check_generated
from pyrogen.signals import uninterrupted

Functions = Mapping[str, Callable[[Tensor], Tensor]]
Binning = Mapping[str, Bins]


def own_events(
    predictor: Predictor, functions: Functions, bins: Binning, n: int, draws: int, context: Any, seed: int
) -> dict[str, HistogramBand]:
    """Procedure (a): every weight draw generates ``n`` events and fills its own histogram."""
    counts = {name: np.zeros((draws, len(its))) for name, its in bins.items()}
    on_edge = dict.fromkeys(bins, 0)
    for k, events in predictor.replicates(n, draws, context, seed, "histogram"):
        check_generated(events, predictor.names, predictor.model.multiplicity)
        for name, function in functions.items():
            values = observable_values(function, events)
            counts[name][k] += bins[name].fill(values)
            on_edge[name] += bins[name].on_last_edge(values)
    return {
        name: HistogramBand(
            its.edges,
            counts[name] / n,
            n,
            "a",
            multinomial_noise(counts[name] / n, n),
            its.closed,
            on_edge[name] / (n * draws),
        )
        for name, its in bins.items()
    }


def weighted_events(
    predictor: Predictor, functions: Functions, bins: Binning, n: int, draws: int, context: Any, seed: int
) -> dict[str, HistogramBand]:
    """Procedure (b): the same ``n`` events for all draws, weighted by each draw's density."""
    events = predictor.sample(n, draws, context, seed)
    check_generated(events, predictor.names, predictor.model.multiplicity)
    sums = {name: np.zeros((draws, len(its))) for name, its in bins.items()}
    squares = {name: np.zeros(len(its)) for name, its in bins.items()}
    on_edge = dict.fromkeys(bins, 0)
    for rows, block in predictor.log_prob_blocks(events, context, draws, seed, "histogram"):
        # The events come from the mixture of the same draws: their density is the mean over the draws.
        weights = torch.softmax(block.double(), 0).mul(draws).cpu().numpy()
        spread = np.square(weights - 1).mean(0)
        for name, function in functions.items():
            values = observable_values(function, events[rows])
            for k in range(draws):
                sums[name][k] += bins[name].fill(values, weights[k])
            squares[name] += bins[name].fill(values, spread)
            on_edge[name] += bins[name].on_last_edge(values)
    return {name: _weighted_band(its, sums[name], squares[name], n, on_edge[name]) for name, its in bins.items()}


def labelled(
    bands: Mapping[str, HistogramBand],
    observables: Mapping[str, Sequence[Any]],
    bins: Binning,
    columns: Sequence[str],
    units: Sequence[str],
    calibration: str,
) -> dict[str, HistogramBand]:
    """The bands with the labels and units of their observables, and whether their sigma is calibrated."""
    found = {}
    for name, band in bands.items():
        label, unit = label_for(name, observables[name][0], bins[name], columns, units)
        found[name] = replace(band, label=label, unit=unit, calibration=calibration)
    return found


@door(source=instance((EventSample, str, os.PathLike), "an EventSample or the path of a file"))
def sample_histograms(
    source: EventSample | str | os.PathLike[str], observables: Mapping[str, tuple[Any, ...]]
) -> dict[str, HistogramBand]:
    """Histograms with the posterior's band from generated events that carry log-weights; the posterior is not needed.

    Procedure (b): every draw weights the same events by ``p(x|theta_k) / p(x)``.

    Args:
        source: events made with ``log_weights=True``, or a file of them, which is streamed.
        observables: by name ``(observable, bins)`` or ``(observable, number of bins, (low, high))``, with bins as in
            :meth:`~pyrogen.Posterior.histogram`; an observable is a function of events ``[m, d]`` (tensor) to values
            ``[m]``, or a column's name or index.

    Raises:
        ValueError: events without log-weights, with event weights, or an observable or bins that do not fit.
    """
    with uninterrupted():
        from scipy.sparse import csr_array

    bins = bins_of(observables)
    parts = iter([source]) if isinstance(source, EventSample) else stream(source)
    sums: dict[str, Any] = dict.fromkeys(bins, 0.0)
    squares: dict[str, Any] = dict.fromkeys(bins, 0.0)
    on_edge, n = dict.fromkeys(bins, 0), 0
    for part in parts:
        if part.log_weights is None or part.weights is not None:
            wrong = "no log-weights" if part.log_weights is None else "event weights besides their log-weights"
            raise ValueError(f"the events have {wrong}; make them with posterior.generate(n, log_weights=True)")
        weights, events = np.exp(part.log_weights), part.tensor(torch.float64)
        for name, (observable, *_) in observables.items():
            known = observable if callable(observable) else column_index(observable, part.names)
            values = observable_values(observable_of(known, part.multiplicity), events)
            numbers = bins[name].numbers(values)
            rows = np.flatnonzero((numbers >= 0) & (numbers < len(bins[name])))
            shape = (len(bins[name]), len(rows))
            one_hot = csr_array((np.ones(len(rows)), (numbers[rows], np.arange(len(rows)))), shape)
            on_edge[name] += bins[name].on_last_edge(values)
            sums[name] = sums[name] + (one_hot @ weights[rows]).T
            squares[name] = squares[name] + one_hot @ np.square(weights[rows] - 1).mean(1)
        n += len(part)
    bands = {name: _weighted_band(its, sums[name], squares[name], n, on_edge[name]) for name, its in bins.items()}
    return labelled(bands, observables, bins, part.names, part.units, str(part.provenance.get("calibration", "")))


def _weighted_band(
    bins: Bins, sums: NDArray[np.float64], squares: NDArray[np.float64], n: int, on_edge: int
) -> HistogramBand:
    noise = weighted_noise(sums / n, squares / n, n)
    return HistogramBand(bins.edges, sums / n, n, "b", noise, bins.closed, on_edge / n)


def observable_values(function: Callable[[Tensor], Tensor], events: Tensor) -> NDArray[np.float64]:
    """Checked values ``[m]`` of an observable of events ``[m, d]``.

    Events that do not have what it needs, by its ``missing(events)``, get infinity, which is in no bin.

    Raises:
        ValueError: values of another shape, NaN or infinite.
        TypeError: something that is no numbers.
    """
    values = made_per_event(function(events), len(events), "the observable")
    missing = missing_in(function, events, "the observable")
    out = np.zeros(len(values), dtype=bool) if missing is None else missing.cpu().numpy()
    bad = ~(np.isfinite(values) | out)
    if bad.any():
        told = f"the observable is NaN or infinite for {bad.sum()} of {len(events)} events"
        raise ValueError(f"{told}. {way_out(missing is not None)}")
    return np.where(out, np.inf, values) if out.any() else values
