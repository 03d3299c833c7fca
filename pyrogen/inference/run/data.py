"""What a backend is given to learn from: events, weights and context, checked before any work is done."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrogen.bayes.inputs import (
    as_tensor,
    checked_context,
    checked_events,
    data_digest,
    named_columns,
    scaled_weights,
)
from pyrogen.bayes.model import BayesianFlow
from pyrogen.bayes.scales import input_dtype
from pyrogen.events import EventsLike, check_weights
from pyrogen.events.containers import numbers_of, table_of
from pyrogen.events.sample import as_sample
from pyrogen.flows import is_own
from pyrogen.inference.problems import report
from pyrogen.inference.run.existence import obstacles, obstacles_of_objects
from pyrogen.posterior.info import Finding
from pyrogen.posterior.posterior import Posterior
from pyrogen.printing import Brief


@dataclass(frozen=True, repr=False)
class TrainingData(Brief):
    """Checked training events.

    Attributes:
        events: ``[N, d]``, in the model's type or, where this would not hold them, in float64; so is the context.
        weights: event weights ``[N]`` in units of their mean absolute value, or None.
        context: conditions ``[N, k]`` or None.
        names, units: column names and units, where the events had them.
        digest: SHA-256 of all numbers, by which a checkpoint knows its data.
        findings: what makes a density of them doubtful.
        start: the posterior that the run goes on from, if any.
        prior: the posterior that is the prior of the run, if any.
        context_names: column names of the conditions, where they had them.
    """

    events: Tensor
    weights: Tensor | None
    context: Tensor | None
    names: tuple[str, ...] | None
    units: tuple[str, ...] | None
    digest: str
    findings: tuple[Finding, ...] = field(default=(), kw_only=True)
    start: Posterior | None = field(default=None, kw_only=True)
    prior: Posterior | None = field(default=None, kw_only=True)
    context_names: tuple[str, ...] | None = field(default=None, kw_only=True)

    @property
    def context_range(self) -> tuple[tuple[float, float], ...] | None:
        """Lowest and highest condition, by column; None without conditions."""
        if self.context is None:
            return None
        rows = self.context.double().flatten(0, -2)
        return tuple(zip(rows.amin(0).tolist(), rows.amax(0).tolist(), strict=True))

    @classmethod
    def check(
        cls, model: BayesianFlow, events: Any, weights: Any, context: Any, dtype: torch.dtype, device: str
    ) -> TrainingData:
        """Check everything that a user can get wrong, with errors that say what, where and what would be right.

        Raises:
            ValueError: NaN or infinite events, wrong shapes, an empty sample, weights of wrong length or without a
                positive sum, a context that does not fit the flow, events that have no density.
        """
        table = checked_events(events, model.features, multiplicity=model.multiplicity)
        events, names, units, n = table.values, table.names, table.units, len(table.values)
        weights = table.weights if weights is None else numbers_of(weights, "weights", table.labels)
        if weights is not None:
            check_weights(weights, n)
            weights = scaled_weights(weights)
            effective = float(weights.sum() ** 2 / weights.square().sum())
            if effective < 1:
                raise ValueError(
                    f"the weights have an effective sample size (sum w)^2 / sum w^2 of {effective:.3g}: positive and "
                    "negative weights cancel almost completely, and nothing is left to learn from"
                )
        context_names = None if context is None else named_columns(table_of(context, "context"))
        context = checked_context(context, model.context, n, table.labels, spread=False)
        given = {"events": events, "weights": weights, "context": context}
        exact = {name: as_tensor(value, torch.float64) for name, value in given.items() if value is not None}
        labels = names or tuple(f"x{i}" for i in range(exact["events"].shape[1]))
        exact["events"] = model.preprocessing.dequantised(exact["events"], labels)
        findings = _obstacles(model, exact["events"], exact.get("weights"), labels, exact.get("context"))
        inputs = torch.float64 if model.wide else input_dtype(dtype, exact["events"], exact.get("context"))
        tensors = {
            name: value.to(dtype=dtype if name == "weights" else inputs, device=device) for name, value in exact.items()
        }
        return cls(
            tensors["events"],
            tensors.get("weights"),
            tensors.get("context"),
            names,
            units,
            data_digest(tensors),
            findings=findings,
            context_names=context_names,
        )


def _obstacles(
    model: BayesianFlow, events: Tensor, weights: Tensor | None, names: Sequence[str], context: Tensor | None
) -> tuple[Finding, ...]:
    """What makes a density of the events doubtful.

    Raises:
        ValueError: there is no density. Of flows of another kind, which may know of probabilities, it is doubtful.
    """
    find = obstacles if model.multiplicity is None else partial(obstacles_of_objects, model.multiplicity)
    w, conditions = (None if each is None else each.cpu().numpy() for each in (weights, context))
    findings = find(events.cpu().numpy(), w, names, conditions)
    if is_own(model.flow):
        for finding in findings:
            if finding.serious:
                raise ValueError(f"these events have no density: {finding.found}. {finding.advice}")
    return tuple(findings)


def prepare(
    model: BayesianFlow, events: EventsLike, weights: Any, context: Any, dtype: torch.dtype | None, device: str
) -> tuple[BayesianFlow, TrainingData]:
    """The model prepared for checked data.

    Raises:
        ValueError: events, weights or context that cannot be learned from.
    """
    data = TrainingData.check(model, events, weights, context, dtype or model.dtype, device)
    report(data.findings)
    model = model.prepare(data.events, data.weights, data.context, names=data.names, dtype=dtype, device=device)
    check_on_support(model, data.events, data.names)
    return model, data


def check_on_support(model: BayesianFlow, events: Tensor, names: Sequence[str] | None) -> None:
    """Check that training events have a density: say so before the training meets an infinite loss.

    Raises:
        ValueError: events outside of a bijection of the preprocessing, or of the unit box of the flow.
    """
    model.preprocessing.check(events, names)
    if not model.on_unit_box:
        return
    inner = model.preprocessing(events)[0]
    outside = ((inner < 0) | (inner > 1)).any(-1).nonzero()[:, 0]
    if len(outside):
        first = int(outside[0])
        raise ValueError(
            f"{len(outside)} of {len(events)} events lie outside the unit box of the flow; the first is row {first}: "
            f"{events[first].tolist()}. Give BayesianFlow(preprocessing=pg.events.UnitBox(low, high)), or a flow with "
            'base="normal"'
        )


@dataclass(frozen=True)
class ManySamples(TrainingData):
    """R checked samples of the same size: as :class:`TrainingData`, with events ``[R, N, d]`` and no weights.

    Attributes:
        digests: SHA-256 of every sample.
    """

    digests: tuple[str, ...] = ()


def check_samples(model: BayesianFlow, samples: Any, context: Any = None) -> None:
    """Check that there are several samples, and conditions for each where the flow is conditional.

    Raises:
        ValueError: a single sample, none, or conditions that do not fit.
    """
    several = isinstance(samples, Tensor | np.ndarray | Sequence) and not isinstance(samples, str)
    if not several or len(samples) == 0 or getattr(samples, "ndim", 3) != 3:
        raise ValueError("samples must be several samples of events: a sequence of [N, d], or an array [R, N, d]")
    if context is not None:
        several = isinstance(context, Tensor | np.ndarray | Sequence) and not isinstance(context, str)
        if not several or len(context) != len(samples) or getattr(context, "ndim", 3) != 3:
            raise ValueError(
                f"context must be the conditions of {len(samples)} samples: a sequence of [N, k], or an array [R, N, k]"
            )
    elif model.context:
        raise ValueError("context is None, and the flow is conditional; give the conditions of every sample, [R, N, k]")


def in_one_order(samples: Any) -> Any:
    """Samples with their columns in the order of the first one, where they have names.

    Raises:
        ValueError: a sample with other names or units, by its number.
    """
    if isinstance(samples, Tensor | np.ndarray):
        return samples
    first, ordered = table_of(samples[0]), []
    names = named_columns(first)
    for r, sample in enumerate(samples):
        table = table_of(sample)
        own = named_columns(table)
        if names is None or own is None or own == names:
            ordered.append(sample)
        elif sorted(own) == sorted(names):
            ordered.append(as_sample(sample).select(names))
        else:
            raise ValueError(f"sample {r} has the columns {', '.join(own)}, and sample 0 has {', '.join(names)}")
        units = dict(zip(own or (), table.units or (), strict=False))
        for name, unit in zip(names or (), first.units or (), strict=False):
            if unit and units.get(name) not in (None, "", unit):
                raise ValueError(
                    f"column {name} is in {units[name]} in sample {r}, and in {unit} in sample 0; convert it"
                )
    return ordered


def why_apart(samples: Any) -> str | None:
    """Why samples cannot be one batch; None where they can."""
    sizes = {len(sample) for sample in samples}
    if len(sizes) > 1:
        return f"the samples have between {min(sizes)} and {max(sizes)} events"
    if any(table_of(sample).weights is not None for sample in samples):
        return "the samples have event weights"
    return None


def prepare_many(
    model: BayesianFlow, samples: Any, dtype: torch.dtype | None, device: str
) -> tuple[BayesianFlow, ManySamples]:
    """The model prepared for R checked samples of one size.

    Constants of the preprocessing that are not yet set are fitted to all samples together: there is one model.

    Raises:
        ValueError: samples that cannot be learned from, the number of the first one named.
    """
    parts = _checked(model, samples, dtype, device)
    events = torch.cat([part.events.double() for part in parts])
    model = model.prepare(events, names=parts[0].names, dtype=dtype, device=device)
    events = events.to(model.input_dtype)
    check_on_support(model, events, parts[0].names)
    events = events.reshape(len(parts), -1, events.shape[-1])
    digests = tuple(part.digest for part in parts)
    digest = hashlib.sha256("".join(digests).encode()).hexdigest()
    findings = _once(parts)
    report(findings)
    return model, ManySamples(events, None, None, parts[0].names, parts[0].units, digest, digests, findings=findings)


def _once(parts: Sequence[TrainingData]) -> tuple[Finding, ...]:
    """What makes a density of samples doubtful, each problem once: all samples of a bootstrap repeat their events."""
    found: dict[str, dict[int, Finding]] = {}
    for r, part in enumerate(parts):
        for finding in part.findings:
            found.setdefault(finding.problem, {}).setdefault(r, finding)
    return tuple(
        replace(first, found=f"{len(its)} of {len(parts)} samples; in the first of them, sample {r}, {first.found}")
        for its in found.values()
        for r, first in [next(iter(its.items()))]
    )


def prepare_together(
    model: BayesianFlow, samples: Any, dtype: torch.dtype | None, device: str, context: Any = None
) -> BayesianFlow:
    """The model prepared for all samples together, which may differ in size and have weights.

    Raises:
        ValueError: as :func:`prepare_many`, and where only some of the samples have weights.
    """
    parts = _checked(model, samples, dtype, device, context)
    weights = [part.weights for part in parts if part.weights is not None]
    if weights and len(weights) < len(parts):
        raise ValueError(
            f"{len(weights)} of {len(parts)} samples have event weights; give all of them weights, or none"
        )
    together = torch.cat([part.events for part in parts])
    w = torch.cat(weights) if weights else None
    conditions = [part.context for part in parts if part.context is not None]
    c = torch.cat(conditions) if conditions else None
    model = model.prepare(together, w, c, names=parts[0].names, dtype=dtype, device=device)
    check_on_support(model, together.to(model.input_dtype), parts[0].names)
    return model


def _checked(
    model: BayesianFlow, samples: Any, dtype: torch.dtype | None, device: str, context: Any = None
) -> list[TrainingData]:
    parts: list[TrainingData] = []
    for r, sample in enumerate(samples):
        try:
            its = None if context is None else context[r]
            parts.append(TrainingData.check(model, sample, None, its, dtype or model.dtype, device))
        except ValueError as error:
            raise ValueError(f"sample {r}: {error}") from error
        if parts[r].events.shape[1] != parts[0].events.shape[1]:
            raise ValueError(
                f"sample {r} has {parts[r].events.shape[1]} features, sample 0 has {parts[0].events.shape[1]}"
            )
    return parts
