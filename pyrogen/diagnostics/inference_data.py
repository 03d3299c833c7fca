"""A posterior as ArviZ sees one: draws of what the networks predict, not of their weights."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrogen.bayes.inputs import as_tensor
from pyrogen.checks import BOOLEAN, COUNT, MAPPING, SEED, array, dictionary, door, optional, whole
from pyrogen.diagnostics.arviz_io import make_inference_data
from pyrogen.diagnostics.convergence import log_prob_of_chains, probe_points
from pyrogen.diagnostics.stored_draws import Rows, as_chains, blocks, spaced_rows
from pyrogen.events import EventsLike
from pyrogen.events.containers import table_of
from pyrogen.events.doors import ROWS
from pyrogen.posterior.binning import Bins, bins_of
from pyrogen.posterior.histograms import observable_values
from pyrogen.posterior.posterior import POSTERIOR, Posterior
from pyrogen.posterior.predictor import check_generated
from pyrogen.seeds import stream
from pyrogen.warn import warn

Array = NDArray[np.float64]
Arrays = dict[str, tuple[tuple[str, ...], Any]]
PROBES = 20  # where none are given
GENERATED = 1_000  # events of every draw, where no observed ones say how many
LARGEST = 1 << 28  # numbers in log_likelihood: 2 GB
SAMPLE = ("chain", "draw")
NAMES = {"acceptance": "acceptance_rate", "steps": "n_steps", "cut": "reached_max_treedepth"}  # what ArviZ calls them


def _probe_points(name: str, value: Any) -> Any:
    return dictionary(array())(name, value) if isinstance(value, Mapping) else ROWS(name, value)


@door(
    posterior=POSTERIOR,
    observed=optional(ROWS),
    probes=optional(_probe_points),
    draws=COUNT,
    weights=BOOLEAN,
    generated=optional(whole(0)),
    histograms=optional(MAPPING),
    context=optional(array(1, 2)),
    probe_context=optional(array(1, 2)),
    seed=SEED,
)
def to_inference_data(
    posterior: Posterior,
    probes: Any = None,
    observed: EventsLike | None = None,
    *,
    draws: int | None = None,
    weights: bool = False,
    generated: int | None = None,
    histograms: Mapping[str, tuple[Any, ...]] | None = None,
    context: Any = None,
    probe_context: Any = None,
    seed: int = 0,
) -> Any:
    """A posterior as ArviZ ``InferenceData`` (``xarray.DataTree`` with ArviZ 1), for its summaries and plots.

    Networks whose hidden units are exchanged are the same, so ``posterior`` holds what they predict: convergence is
    judged there. Chains and draws of a sampler are kept; a distribution over the weights (SVI, Laplace) gives one
    chain of independent draws, an ensemble one chain of its members.

    ``posterior``: ``log_density [chain, draw, probe]`` at the probe points; ``log_likelihood_total``, that of all
    observed events; ``theta [chain, draw, weight]`` on request. ``log_likelihood``: ``events [chain, draw, event]`` of
    the observed events. ``posterior_predictive``: events that every draw generates, one variable ``[chain, draw,
    event]`` per column, and ``hist_NAME [chain, draw, bin_NAME]``, bin probabilities. ``observed_data``: the same of
    the observed events. ``sample_stats``: what the sampler recorded of every draw (``lp``, ``energy``, ``diverging``,
    ``acceptance_rate``, ``step_size``, ...), or the training curve ``[epoch]`` of SVI with its ``elbo`` in nats.
    ``constant_data``: coordinates of the probe points, edges of histograms, number of training events.

    ``az.loo`` leaves one event out of those that were trained on: it takes ``observed`` to be the training events. Of
    held-out events nothing needs to be left out, and what ``az.loo`` prints there is not their expected log density;
    :func:`~pyrogen.diagnostics.elpd` is. Its ratios ``1/p`` are wrong for a tempered posterior, for one of weighted
    events and for an ensemble: there the group ``log_likelihood`` is left out, with a warning, and ``az.loo`` refuses.

    Args:
        posterior: of any backend.
        probes: points ``[n, d]``, or points ``[d]`` by name; None: 20 of the observed events, or of generated ones.
        observed: events ``[N, d]`` without weights, held-out ones or those trained on; None: none.
        draws: draws of every chain, evenly spaced (None: all), or of a distribution (None: 50).
        weights: whether to include the weights themselves.
        generated: events that every draw generates; None: as many as observed, at most 1000; 0: none.
        histograms: as in :meth:`~pyrogen.Posterior.histograms`; filled with ``generated`` events of every draw.
        context: conditions ``[N, k]`` of the observed events of a conditional flow, or one row for all; generated
            events have the first ``generated`` of them.
        probe_context: conditions ``[n, k]`` of the probe points, where these are given, or one row for all.
        seed: seeds draws, probe points and events.

    Raises:
        ValueError: probe points or events that are not finite or of the wrong shape, or without density in a draw;
            weighted events, of which ArviZ knows nothing; more draws than stored.
    """
    held = as_chains(posterior, draws, seed)
    stored = held.weights.arrays["draws"]
    rows = spaced_rows(stored.shape[1], draws)
    events = _observed(observed, posterior)
    if context is not None:
        context = posterior.predictor.conditions(context, len(context) if events is None else len(events))
    where, points, probe_context = _probes(posterior, probes, events, context, probe_context, seed)
    if generated is None:
        generated = GENERATED if events is None else min(len(events), GENERATED)
    if histograms and not generated:
        raise ValueError("generated is 0; histograms need events of every draw")

    evaluated = len(stored) * len(rows), 0 if events is None else len(events)
    if math.prod(evaluated) > LARGEST:
        raise ValueError(
            f"{evaluated[0]:,} draws at {evaluated[1]:,} observed events are more than the {LARGEST:,} numbers that "
            "are held in memory; give fewer draws, or a part of the events"
        )
    groups: dict[str, Arrays] = {"posterior": {}, "log_likelihood": {}, "posterior_predictive": {}, "observed_data": {}}
    if events is not None:
        likelihood = log_prob_of_chains(held, events, rows, context, what="observed event")
        if (obstacle := _loo_obstacle(posterior)) is None:
            groups["log_likelihood"]["events"] = ((*SAMPLE, "event"), likelihood)
        else:
            warn(f"the group log_likelihood is left out: {obstacle}")
        groups["posterior"]["log_likelihood_total"] = (SAMPLE, likelihood.sum(-1))
        for i, name in enumerate(posterior.names):
            groups["observed_data"][name] = (("event",), events[:, i].numpy())
    groups["posterior"]["log_density"] = ((*SAMPLE, "probe"), log_prob_of_chains(held, points, rows, probe_context))
    groups["constant_data"] = {"probe_points": (("probe", "feature"), points.numpy())}
    if weights:
        groups["posterior"]["theta"] = ((*SAMPLE, "weight"), stored[:, torch.from_numpy(rows)].cpu().numpy())
    coords: dict[str, Any] = {"probe": where, "feature": posterior.names}
    if generated:
        given = None if context is None else as_tensor(context, torch.float64)[:generated]
        replicated = _replicates(held, rows, generated, given, seed)
        for i, name in enumerate(posterior.names):
            groups["posterior_predictive"][name] = ((*SAMPLE, "event"), replicated[..., i])
        coords |= _histograms(posterior, histograms or {}, replicated, events, groups)
    if weights:
        coords["weight"] = _weight_names(posterior)
    groups["sample_stats"] = _statistics(posterior, rows, stored.shape[:2])
    if posterior.info.training_events is not None:
        groups["constant_data"]["training_events"] = ((), posterior.info.training_events)
    return make_inference_data(groups, coords, _attributes(posterior))


def _loo_obstacle(posterior: Posterior) -> str | None:
    """Why ``az.loo`` would be wrong for this posterior; None where it is right."""
    info = posterior.info
    if info.leave_one_out_obstacle is not None or info.event_power == 1:
        return info.leave_one_out_obstacle
    return (
        f"the posterior counts every event {info.event_power:g} times, and az.loo would take it for one; "
        "elpd(posterior, events, trained=True) takes the power into account"
    )


def _observed(observed: EventsLike | None, posterior: Posterior) -> Tensor | None:
    if observed is None:
        return None
    observed = posterior.predictor.in_order(observed)
    if table_of(observed).weights is not None:
        raise ValueError(
            "observed has weights, and ArviZ counts every event once; give unweighted events, such as sample.values"
        )
    return as_tensor(posterior.predictor.checked(observed).values, torch.float64)


def _probes(
    posterior: Posterior, probes: Any, events: Tensor | None, context: Any, probe_context: Any, seed: int
) -> tuple[list[str], Tensor, Any]:
    """Labels of the probe points, their coordinates ``[n, d]``, and their conditions."""
    if probes is None:
        if events is None and posterior.model.context:
            raise ValueError("the flow is conditional; give probes and probe_context, or observed and context")
        if events is None:
            points = posterior.sample(PROBES, seed=seed).double().cpu()
        elif context is None:
            points = probe_points(events, min(PROBES, len(events)), seed)
        else:
            points = events[:PROBES]
            probe_context = as_tensor(context, torch.float64)[:PROBES]
    elif isinstance(probes, Mapping):
        points = torch.stack([torch.as_tensor(point).double().cpu() for point in probes.values()])
        posterior.predictor.checked(points)
        return list(map(str, probes)), points, _probe_context(posterior, probe_context, len(points))
    else:
        points = as_tensor(posterior.predictor.in_order(probes), torch.float64)
    points = as_tensor(posterior.predictor.checked(points).values, torch.float64)
    probe_context = _probe_context(posterior, probe_context, len(points))
    labels = ["(" + ", ".join(f"{value:.4g}" for value in point) + ")" for point in points.tolist()]
    if len(set(labels)) < len(labels):  # a label must find its point again
        labels = [f"{i}: {label}" for i, label in enumerate(labels)]
    return labels, points, probe_context


def _probe_context(posterior: Posterior, given: Any, n: int) -> Any:
    """Checked conditions of n probe points.

    Raises:
        ValueError: they are missing, or do not fit.
    """
    if given is None and posterior.model.context:
        raise ValueError(
            f"the flow is conditional: give probe_context=[{n}, {posterior.model.context}], the conditions of the "
            "probe points, which are the second argument. The events of context are observed=..."
        )
    return posterior.predictor.conditions(given, n)


def _replicates(held: Posterior, rows: Rows, generated: int, context: Any, seed: int) -> Array:
    """Events ``[chains, draws, generated, d]`` that the draws make."""
    found = []
    for start, part in blocks(held, rows):
        chains, draws = part.weights.arrays["draws"].shape[:2]
        events: list[list[Tensor]] = [[] for _ in range(chains * draws)]
        own = stream(seed, "replicates", start) if start else seed
        for k, more in part.replicates(generated, chains * draws, context=context, seed=own):
            events[k].append(more)
        found.append(torch.stack([torch.cat(its) for its in events]).unflatten(0, (chains, draws)))
    replicated = torch.cat(found, 1)
    check_generated(replicated.flatten(0, 2), held.names, held.model.multiplicity)
    return replicated.double().cpu().numpy()


def _histograms(
    posterior: Posterior,
    histograms: Mapping[str, tuple[Any, ...]],
    replicated: Array,
    events: Tensor | None,
    groups: dict[str, Arrays],
) -> dict[str, Array]:
    """Add histograms of the generated and the observed events; returns the centres of their bins."""
    coords = {}
    for name, bins in (bins_of(histograms) if histograms else {}).items():
        edges = bins.edges
        dim, function = f"bin_{name}", posterior.predictor.observable(histograms[name][0])

        def fill(sample: Tensor, bins: Bins = bins, function: Any = function) -> Array:
            return bins.fill(observable_values(function, sample)) / len(sample)

        flat = replicated.reshape(-1, *replicated.shape[2:])
        filled = np.stack([fill(torch.from_numpy(sample)) for sample in flat])
        groups["posterior_predictive"][f"hist_{name}"] = (
            (*SAMPLE, dim),
            filled.reshape(*replicated.shape[:2], -1),
        )
        if events is not None:
            groups["observed_data"][f"hist_{name}"] = ((dim,), fill(events))
        groups["constant_data"][f"edges_{name}"] = ((f"edge_{name}",), edges)
        coords[dim] = (edges[1:] + edges[:-1]) / 2
    return coords


def _statistics(posterior: Posterior, rows: Rows, shape: Sequence[int]) -> Arrays:
    """What a sampler recorded of its draws, or the training curve."""
    found: Arrays = {}
    epochs = posterior.info.epochs_done
    for name, values in posterior.history.items():
        if values.shape == (epochs,):
            found[name] = (("epoch",), values)
        elif values.shape == tuple(shape):
            found[NAMES.get(name, name)] = (SAMPLE, values[:, rows])
    for name in {"diverging", NAMES["cut"]} & found.keys():
        found[name] = (SAMPLE, found[name][1] > 0)
    if "potential" in found:
        found["lp"] = (SAMPLE, -found.pop("potential")[1])
    if {"nll", "kl"} <= found.keys() and posterior.info.effective_size is not None:
        total = found["nll"][1] + found["kl"][1]
        found["elbo"] = (("epoch",), -posterior.info.effective_size * total)
    return found


def _weight_names(posterior: Posterior) -> list[str]:
    packing = posterior.model.packing
    return [
        f"{name}[{','.join(map(str, place))}]"
        for name, shape in zip(packing.names, packing.shapes, strict=True)
        for place in np.ndindex(*shape)
    ]


def _attributes(posterior: Posterior) -> dict[str, Any]:
    info = posterior.info
    units = {name: unit for name, unit in zip(posterior.names, posterior.units, strict=True) if unit}
    return {
        "inference_library": "pyrogen",
        "backend": info.backend,
        "weight_posterior": posterior.weights.family,
        "weights": posterior.weights.size,
        "tempered": int(info.tempered),
        "settings": json.dumps(dict(info.settings)),
        "units": json.dumps(units),
        "warnings": json.dumps(info.warnings),
        "calibration": info.note,
    }
