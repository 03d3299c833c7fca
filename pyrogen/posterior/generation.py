"""Generated events with their uncertainties, in memory or streamed to a file in a run that can be resumed."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pyrogen.bayes.inputs import as_tensor
from pyrogen.checks import require, whole_number
from pyrogen.events import EventSample, EventWriter
from pyrogen.events.networks import GENERATOR
from pyrogen.events.parts import PartsFolder
from pyrogen.files import target_of
from pyrogen.posterior.fingerprint import UnknownStateError, fingerprint
from pyrogen.posterior.info import RunInfo
from pyrogen.posterior.predictor import Predictor, check_generated
from pyrogen.posterior.rounding import tell_without_density
from pyrogen.progress import bar

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


def generate_to_file(
    predictor: Predictor,
    info: RunInfo,
    path: str | os.PathLike[str],
    n: int,
    draws: int,
    context: Any,
    seed: int,
    log_weights: bool,
    finish: Finish | None,
    finish_name: str | None,
    chunk: int,
    progress: bool,
    **layout: Any,
) -> Path:
    """The work of :meth:`Posterior.generate_to`.

    Finished chunks wait in a folder beside the file, each written in one piece; a run that is repeated takes those that
    are there. At the end they are put together in the file, which appears in one piece, and the folder goes.
    """
    writer = EventWriter(path, **layout)  # which checks its arguments before any work is done
    context = predictor.conditions(context, n)
    parts = -(-n // whole_number("chunk", chunk, draws))
    given = None if context is None else as_tensor(context, predictor.model.input_dtype)
    job = {
        "version": VERSION,
        "posterior": _digest(predictor, info),
        "n": n,
        "draws": draws,
        "seed": seed,
        "log_weights": log_weights,
        "chunk": chunk,
        "context": None if given is None else hashlib.sha256(given.numpy().tobytes()).hexdigest(),
        "finish": _told(finish, finish_name),
    }
    if predictor.model.device.type != "cpu":
        job["device"] = predictor.model.device.type  # whose random numbers are others
    target = target_of(path)
    folder = PartsFolder(target, job)
    with folder.filling("generate events to") as needed:
        if not needed:
            return Path(path)
        bounds = np.linspace(0, n, parts + 1).round().astype(int)
        with bar(n, f"generate {target.name}", " events", show=progress, scaled=True) as shown:
            for i, (first, last) in enumerate(itertools.pairwise(bounds.tolist())):
                if not folder.part(i).exists():
                    conditions = None if given is None else given[first:last]
                    sample = generate_sample(
                        predictor, info, last - first, draws, conditions, seed, log_weights, i, first
                    )
                    _finished(sample, finish).save(folder.part(i))
                shown.update(last - first)
        with writer:
            for i in range(parts):
                writer.write(folder.read(i))
    return Path(path)


def _told(finish: Finish | None, name: str | None) -> str | None:
    """What a run knows of ``finish``.

    Raises:
        ValueError: it cannot be told.
    """
    if name is not None:
        require(isinstance(name, str) and finish is not None, "finish_name", name, "a string, given with a finish")
        return f"called {name}"
    if finish is None:
        return None
    require(callable(finish), "finish", finish, "a function of an EventSample that gives an EventSample")
    try:
        return fingerprint(finish)
    except UnknownStateError as error:
        raise ValueError(
            f"pyrogen cannot see whether finish is the same when the run goes on: {error}. Give it a name, "
            'finish_name="...", and a new name whenever it does something else'
        ) from error


def _finished(sample: EventSample, finish: Finish | None) -> EventSample:
    if finish is None:
        return sample
    found = finish(sample)
    if not isinstance(found, EventSample):
        raise TypeError(f"finish gave a {type(found).__name__}; it must give an EventSample")
    return found


def _digest(predictor: Predictor, info: RunInfo) -> str:
    """What decides the events, and what their file says of where they come from."""
    told = [info.names, info.units, info.backend, info.data_sha256]
    if info.calibration is not None:
        told.append(info.note)
    digest = hashlib.sha256(json.dumps([predictor.model.describe(), *told], sort_keys=True).encode())
    for name, array in sorted(predictor.weights.arrays.items()):
        digest.update(name.encode())
        digest.update(array.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
