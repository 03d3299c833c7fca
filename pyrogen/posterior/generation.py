"""Generated events with their uncertainties."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from pyrogen.checks import whole_number
from pyrogen.events import EventSample
from pyrogen.events.networks import GENERATOR
from pyrogen.posterior.info import RunInfo
from pyrogen.posterior.predictor import Predictor, check_generated
from pyrogen.posterior.rounding import tell_without_density

VERSION = 2  # of what a run's seed and numbers mean; 1 had shares of networks that were equal in each part only
EVENTS_PER_PART = 50_000  # events generated, and saved for a resumed run, at a time
Finish = Callable[[EventSample], EventSample]


def enough_events(n: int, draws: int, what: str) -> int:
    """``n``, if every one of ``draws`` networks can give an event: weights that take p(x) for their mean need that.

    Raises:
        ValueError: fewer.
    """
    n = whole_number("n", n, 1)
    if n < draws:
        raise ValueError(
            f"n is {n}; {what} each of the {draws} weight draws gives events, so n must be at least {draws}, or draws "
            f"at most {n}"
        )
    return n


def generate_sample(
    predictor: Predictor,
    info: RunInfo,
    n: int,
    draws: int,
    context: Any,
    seed: int,
    log_weights: bool,
    part: int | None = None,
    first: int = 0,
) -> EventSample:
    """``n`` events of ``draws`` networks in equal shares, with ``sigma(x)/p(x)`` and, on request, the log-weights.

    Args:
        predictor: what generates.
        info: how the posterior came about: names, units and provenance of the events.
        n: number of events.
        draws: number of weight draws, at least 2.
        context: conditions ``[n, k]``.
        seed: seeds the weight draws and the events.
        log_weights: keep ``log p(x|theta_k) / p(x)`` of every draw.
        part: number of the part of a larger run; parts differ in their events, not in their weight draws.
        first: number of events in the parts before.
    """
    events = predictor.sample(n, draws, context, seed, part, first)
    check_generated(events, predictor.names, predictor.model.multiplicity)
    uncertainties, kept = np.empty(n), np.empty((n, draws)) if log_weights else None
    lost = 0
    for rows, block in predictor.log_prob_blocks(events, context, draws, seed, "density"):
        rounded = block.isneginf().all(0)
        lost += int(rounded.sum())
        block = torch.where(rounded, 0.0, block)
        # The predictive density is the mean over the draws: their weights p(x|theta_k) / p(x) have the mean one.
        relative = torch.log_softmax(block.double(), 0) + np.log(draws)
        uncertainties[rows] = relative.exp().std(0).cpu().numpy()
        if kept is not None:
            kept[rows] = relative.T.cpu().numpy()
    tell_without_density(lost, n, "their uncertainty is given as 0")
    return EventSample(
        events.double().cpu().numpy(),
        names=info.names,
        units=info.units,
        uncertainties=uncertainties,
        log_weights=kept,
        multiplicity=predictor.model.multiplicity,
        provenance={
            "generator": GENERATOR,
            "backend": info.backend,
            "draws": draws,
            "seed": seed,
            "training_data_sha256": info.data_sha256 or "unknown",
            "calibration": info.note,
        },
    )


def finished(sample: EventSample, finish: Finish | None) -> EventSample:
    """What a user's function makes of a sample.

    Raises:
        TypeError: no sample.
    """
    if finish is None:
        return sample
    found = finish(sample)
    if not isinstance(found, EventSample):
        raise TypeError(f"finish gave a {type(found).__name__}; it must give an EventSample")
    return found
