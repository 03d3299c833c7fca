"""Generated events streamed to a file, in a run that can be resumed, here or on the workers of an executor."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pyrogen.bayes.inputs import as_tensor
from pyrogen.checks import require, whole_number
from pyrogen.events import EventWriter
from pyrogen.events.format import check_keeps, format_of
from pyrogen.events.manifest import SUFFIX, Part, read_manifest, sha256_of, write_manifest
from pyrogen.events.parts import PartsFolder
from pyrogen.events.reading import stream
from pyrogen.executors import run_parts
from pyrogen.files import check_writable, target_of
from pyrogen.posterior.elsewhere import flow_to_send, make_part
from pyrogen.posterior.fingerprint import UnknownStateError, fingerprint
from pyrogen.posterior.generation import VERSION, Finish, finished, generate_sample
from pyrogen.posterior.info import RunInfo
from pyrogen.posterior.predictor import Predictor
from pyrogen.progress import bar


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
    executor: Any,
    share: tuple[int, int] | None,
    save: Callable[[Path], None],
    **layout: Any,
) -> Path:
    """The work of :meth:`Posterior.generate_to`; ``save`` writes the posterior to a file, for workers.

    Finished chunks wait in a folder beside the file, each written in one piece; a run that is repeated takes those that
    are there and whole. At the end they are put together in the file, which appears in one piece, and the folder goes.
    Where the file is a list of parts, they stay. A run of a share makes its parts only.
    """
    listed = Path(path).suffix.lower() == SUFFIX
    if listed:
        require(not layout, "layout", layout, f"left out: {path} lists the parts, which are HDF5 files of columns")
        check_writable(path)
    writer = None if listed else EventWriter(path, **layout)  # which checks its arguments before any work is done
    if finish is None:
        has = {"uncertainties": True, "log_weights": log_weights, "multiplicity": predictor.model.multiplicity}
        check_keeps(format_of(Path(path).absolute(), "read"), [name for name, there in has.items() if there])
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
    folder = PartsFolder(target, job, kept=listed)
    with folder.filling("generate events to", share) as needed:
        if not needed:
            return Path(path)
        bounds = np.linspace(0, n, parts + 1).round().astype(int).tolist()
        mine = range(parts) if share is None else range(share[0], parts, share[1])
        missing = folder.missing(mine, _listed(target, job) if listed else {})
        made: dict[int, Part] = {}

        def rows(i: int) -> tuple[int, int, Any]:
            first, last = bounds[i], bounds[i + 1]
            return first, last - first, None if given is None else given[first:last]

        def take(name: str, told: tuple[int, str]) -> None:
            i = int(name.removeprefix("part "))
            made[i] = Part(folder.part(i).relative_to(target.parent).as_posix(), *told)

        if executor is None:
            total, left = (sum(rows(i)[1] for i in some) for some in (mine, missing))
            with bar(
                total, f"generate {target.name}", " events", show=progress, scaled=True, done=total - left
            ) as shown:
                for i in missing:
                    first, size, conditions = rows(i)
                    sample = generate_sample(predictor, info, size, draws, conditions, seed, log_weights, i, first)
                    finished(sample, finish).save(folder.part(i))
                    shown.update(size)
        elif missing:
            save(folder.posterior)
            model = predictor.model
            sent = str(folder.posterior), flow_to_send(model.flow), str(model.device), predictor.compiled.active
            calls = {}
            for i in missing:
                first, size, conditions = rows(i)
                own = None if conditions is None else conditions.cpu().numpy()
                of_part = str(folder.part(i)), i, first, size, draws, own, seed, log_weights, finish
                calls[f"part {i}"] = (*sent, *of_part)
            run_parts(
                executor,
                make_part,
                calls,
                take,
                what=f"generate {target.name}",
                go_on=f"They are kept in {target.name}.parts. Repeat the call to go on from there",
                done=len(mine) - len(missing),
                progress=progress,
            )
        if share is not None:
            return folder.path
        if writer is None:
            for i in set(range(parts)) - set(made):
                file = folder.part(i)
                take(f"part {i}", (sum(map(len, stream(file))), sha256_of(file)))
            write_manifest(target, [made[i] for i in range(parts)], job)
            return Path(path)
        with writer:
            for i in range(parts):
                writer.write(folder.read(i))
    return Path(path)


def _listed(target: Path, job: Mapping[str, Any]) -> dict[str, str]:
    """The SHA-256 of the parts, by name, in the list of the same run that is there; nothing where there is none."""
    try:
        made, parts = json.loads(target.read_bytes())["made"], read_manifest(target)
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {Path(part.file).name: part.sha256 for part in parts} if made == json.loads(json.dumps(job)) else {}


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
