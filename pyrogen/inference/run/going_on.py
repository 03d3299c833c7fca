"""A run that goes on from a posterior: which model, which columns, and what the new posterior tells of the old one."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from pyrogen.bayes.evaluation import first_difference
from pyrogen.bayes.model import BayesianFlow
from pyrogen.checks import require
from pyrogen.events import EventsLike
from pyrogen.flows import MultiplicityFlow, ShowerFlow
from pyrogen.inference.run.checkpoint import digest
from pyrogen.inference.run.data import TrainingData
from pyrogen.posterior.posterior import Posterior

KEPT = (
    *("backend", "training_events", "data_sha256", "epochs_done", "chains", "gradients", "seconds"),
    *("started_from", "prior_from"),
)


def model_of(start: Posterior, model: BayesianFlow, dtype: torch.dtype | None, name: str = "start") -> BayesianFlow:
    """The model of a posterior, with the constants of its preprocessing, after checking that ``model`` is the same.

    ``name`` is that of the argument which the posterior is.

    Raises:
        ValueError: not a posterior, or one of another flow, prior, preprocessing or type; the text says which.
    """
    require(isinstance(start, Posterior), name, start, "a trained pyrogen.Posterior")
    _same(name, "dtype", str(start.model.dtype), str(dtype or model.dtype), "give the backend dtype={}")
    theirs, ours = (_flatten(one.describe()) for one in (start.model, model))
    entries = ["flow", "flow_config", "features", "weights", "parameters", "prior_scale"]
    for entry in entries if name == "prior" else [*entries, "prior_sha256"]:
        if entry == "features" and ours["features"] is None:
            continue
        for key in [key for key in theirs | ours if key == entry or key.startswith(f"{entry}.")]:
            advice = f"train with the model of the posterior, {name}.model"
            _same(name, key, theirs.get(key), ours.get(key), advice)
    for entry in ("preprocessing", "context_preprocessing"):
        _check_preprocessing(name, entry, getattr(start.model, entry, None), getattr(model, entry, None))
    if isinstance(model.flow, MultiplicityFlow | ShowerFlow) and not model.flow.is_centred:
        model = model.packing.copied(model)
        model.flow._centre_like(start.model.flow)  # type: ignore[operator]
    for entry, buffer in start.model.flow_buffers().items():
        other = dict(model.flow_buffers()).get(entry)
        if other is None or other.shape != buffer.shape or not torch.equal(buffer.cpu(), other.cpu()):
            raise ValueError(
                f"{name} is a posterior over another flow: its buffer {entry} differs; train with the model of the "
                f"posterior, {name}.model"
            )
    _check_flow(name, start, model)
    return start.model


def model_with_prior(prior: Posterior, model: BayesianFlow, dtype: torch.dtype | None) -> BayesianFlow:
    """The model of a posterior whose distribution of the weights is the prior, after the checks of :func:`model_of`.

    Raises:
        ValueError: as :func:`model_of`, or a posterior that is not mean-field.
    """
    found = model_of(prior, model, dtype, "prior")
    weights = prior.weights
    if not weights.independent:
        raise ValueError(
            f"prior holds {weights.family}; a prior is a centre and a width for every weight, as pg.SVI with the guide "
            "pg.AutoNormal finds them"
        )
    return found.with_prior(weights.arrays["loc"], weights.arrays["scale"])


def _same(name: str, what: str, theirs: Any, ours: Any, advice: str) -> None:
    if theirs != ours:
        raise ValueError(
            f"{name} is a posterior over another model: {what} is {theirs} there, and {ours} here; "
            + advice.format(theirs)
        )


def _flatten(description: Mapping[str, Any]) -> dict[str, Any]:
    """A description of a model, with the arguments of its flow by name."""
    flat = dict(description)
    config = flat.pop("flow_config") or {}
    return flat | {f"flow_config.{name}": value for name, value in config.items()}


def _check_preprocessing(name: str, what: str, theirs: Any, ours: Any) -> None:
    """Constants that are not yet set are taken from the posterior; those that are have to be the same."""
    different = type(theirs) is not type(ours)
    if not different and ours is not None and ours.fitted:
        different = theirs.config() != ours.config()
    if different:
        raise ValueError(
            f"{name} is a posterior over a model with another {what}: {theirs} there, and {ours} here; train with the "
            f"model of the posterior, {name}.model"
        )


@torch.no_grad()
def _check_flow(name: str, start: Posterior, model: BayesianFlow) -> None:
    """Check that both flows have one density for the same weights, at events that the posterior remembers."""
    if start.probes is None:
        return
    theta = start.model.initial_theta
    events, context = start.probes.events.to(theta.device), start.probes.context
    inner = start.model.preprocessing(events)[0].to(theta)
    given = () if context is None else (context.to(theta),)
    packings = start.model.packing, model.packing.copied(model).to(theta).packing
    theirs, ours = (packing.call(theta, "log_prob", inner, *given) for packing in packings)
    row = first_difference(theirs, ours)
    if row is not None:
        raise ValueError(
            f"{name} is a posterior over another flow: with the same weights log p is "
            f"{float(theirs[row]):.6g} there and {float(ours[row]):.6g} here. A plain attribute differs, or the code; "
            f"train with the model of the posterior, {name}.model"
        )


def columns_in_order(start: Posterior, events: EventsLike, context: Any) -> tuple[Any, Any]:
    """Events and conditions with their columns in the order of a posterior; those without names as they are.

    Raises:
        ValueError: they have other names or units.
    """
    return start.predictor.in_order(events), start.predictor.conditions_in_order(context)


def columns_of(start: Posterior, data: TrainingData, role: str = "start") -> TrainingData:
    """Training data in the order of a posterior, with its names and units where they have none of their own.

    ``role`` is what the posterior is to the run: ``"start"``, or ``"prior"``.
    """
    own, theirs = data.units or (), start.info.units or ()
    return replace(
        data,
        start=start if role == "start" else None,
        prior=start if role == "prior" else None,
        names=data.names or start.info.names,
        units=tuple(mine or other for mine, other in itertools.zip_longest(own, theirs)) or None,
        context_names=data.context_names or start.info.context_names,
    )


def weights_digests(start: Posterior) -> dict[str, str]:
    """Digests of the weights of a posterior, by which a checkpoint knows where its run started."""
    return {name: digest(array) for name, array in start.weights.arrays.items()}


def told_of(start: Posterior) -> dict[str, Any]:
    """What a posterior tells of the one that its run started from, in JSON types."""
    told = {name: getattr(start.info, name) for name in KEPT}
    told["seed"] = start.info.settings.get("seed")
    return {name: value for name, value in told.items() if value is not None}


def rounds(start: Posterior) -> int:
    """How many runs led to a posterior, one going on from another."""
    count, told = 1, start.info.started_from
    while told is not None:
        count, told = count + 1, told.get("started_from")
    return count
