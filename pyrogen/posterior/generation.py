"""Generated events with their uncertainties, in memory or streamed to a file in a run that can be resumed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pyrogen.checks import whole_number
from pyrogen.events import EventSample, EventWriter, read
from pyrogen.files import write_bytes
from pyrogen.posterior.info import RunInfo
from pyrogen.posterior.predictor import Predictor
from pyrogen.progress import bar

EVENTS_PER_PART = 50_000  # events generated, and saved for a resumed run, at a time
Finish = Callable[[EventSample], EventSample]


def generate_sample(
    predictor: Predictor,
    info: RunInfo,
    n: int,
    draws: int,
    context: Any,
    seed: int,
    log_weights: bool,
    part: int | None = None,
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
    """
    events = predictor.sample(n, draws, context, seed, part)
    uncertainties, kept = np.empty(n), np.empty((n, draws)) if log_weights else None
    for rows, block in predictor.log_prob_blocks(events, context, draws, seed, "density"):
        # The predictive density is the mean over the draws: their weights p(x|theta_k) / p(x) have the mean one.
        relative = torch.log_softmax(block.double(), 0) + np.log(draws)
        uncertainties[rows] = relative.exp().std(0).cpu().numpy()
        if kept is not None:
            kept[rows] = relative.T.cpu().numpy()
    return EventSample(
        events.double().cpu().numpy(),
        names=info.names,
        units=info.units,
        uncertainties=uncertainties,
        log_weights=kept,
        provenance={
            "generator": "pyrogen posterior",
            "backend": info.backend,
            "draws": draws,
            "seed": seed,
            "training_data_sha256": info.data_sha256 or "unknown",
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
    chunk: int,
    progress: bool,
    **layout: Any,
) -> Path:
    """The work of :meth:`Posterior.generate_to`.

    Finished chunks wait in a folder beside the file, each written in one piece; a run that is repeated takes those that
    are there. At the end they are put together in the file, which appears in one piece, and the folder goes.
    """
    path, writer = Path(path), EventWriter(path, **layout)  # which checks its arguments before any work is done
    context = predictor.conditions(context, n)
    parts = -(-n // whole_number("chunk", chunk, draws))
    bounds = np.linspace(0, n, parts + 1).round().astype(int)
    job = {
        "posterior": _digest(predictor, info),
        "n": n,
        "draws": draws,
        "seed": seed,
        "log_weights": log_weights,
        "chunk": chunk,
        "context": None if context is None else hashlib.sha256(np.asarray(context).tobytes()).hexdigest(),
        "finish": None if finish is None else getattr(finish, "__qualname__", type(finish).__qualname__),
    }
    folder = path.with_name(f"{path.name}.parts")
    _open_folder(folder, job)
    with bar(n, f"generate {path.name}", " events", show=progress, scaled=True) as shown:
        for i in range(parts):
            rows, part = slice(bounds[i], bounds[i + 1]), folder / f"{i:06d}.h5"
            if not part.exists():
                given = None if context is None else context[rows]
                sample = generate_sample(
                    predictor, info, rows.stop - rows.start, draws, given, seed, log_weights, part=i
                )
                (sample if finish is None else finish(sample)).save(part)
            shown.update(rows.stop - rows.start)
    with writer:
        for i in range(parts):
            writer.write(read(folder / f"{i:06d}.h5"))
    shutil.rmtree(folder)
    return path


def _open_folder(folder: Path, job: dict[str, Any]) -> None:
    """Make the folder of the parts, or check that the one there belongs to this run."""
    label = folder / "job.json"
    if folder.exists():
        found = json.loads(label.read_text()) if label.exists() else None
        if found != job and any(folder.iterdir()):
            differ = [key for key in job if found is None or found.get(key) != job[key]]
            raise ValueError(
                f"{folder} holds the parts of another run, with other {', '.join(differ)}; finish that run with its "
                "own arguments, or delete the folder"
            )
    folder.mkdir(exist_ok=True)
    write_bytes(label, json.dumps(job).encode())


def _digest(predictor: Predictor, info: RunInfo) -> str:
    """What decides the events, and what their file says of where they come from."""
    told = info.names, info.units, info.backend, info.data_sha256
    digest = hashlib.sha256(json.dumps([predictor.model.describe(), *told], sort_keys=True).encode())
    for name, array in sorted(predictor.weights.arrays.items()):
        digest.update(name.encode())
        digest.update(array.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
