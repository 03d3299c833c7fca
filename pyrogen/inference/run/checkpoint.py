"""Checkpoints: the whole state of a run in one HDF5 file, so that a killed run goes on to the same bits."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
import torch
from torch import Tensor

from pyrogen.bayes.model import BayesianFlow
from pyrogen.files import target_of
from pyrogen.flows import is_own
from pyrogen.hdf5 import Kind, open_hdf5, read_json, write_array, write_hdf5, write_json
from pyrogen.inference.run.curves import Curve
from pyrogen.inference.run.data import TrainingData
from pyrogen.locks import running
from pyrogen.log import LOG

KIND = Kind("checkpoint", version=3, sealed=3)
Settings = TypeVar("Settings", bound=Any)


class CheckpointMismatchError(ValueError):
    """The checkpoint at the given path belongs to another model, configuration or data set."""


@contextlib.contextmanager
def only_run(settings: Settings) -> Iterator[Settings]:
    """The same settings for a run that has its checkpoint for itself, wherever the working folder goes meanwhile.

    Args:
        settings: a dataclass with the field ``checkpoint``.

    Raises:
        PathInUseError: there is another run with this checkpoint.
    """
    if settings.checkpoint is None:
        yield settings
        return
    path = target_of(settings.checkpoint)
    with running(path, "train with the checkpoint"):
        yield replace(settings, checkpoint=path)


def digest(*tensors: Tensor) -> str:
    """SHA-256 of the numbers of tensors, one after another."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def run_identity(
    settings: Mapping[str, Any], model: BayesianFlow, data: TrainingData, **more: str | Mapping[str, str]
) -> dict[str, Any]:
    """What makes a run this run, in JSON types: a checkpoint of anything else is refused.

    Made before any work, so that what JSON cannot hold is found out then and not when the result is saved.

    Args:
        settings: all settings of the backend that decide the result.
        model: the prepared model.
        data: its checked training events.
        more: what decides the result besides, by name: the backend's name, digests of further tensors.
    """
    identity = {
        "settings": settings,
        "model": model.describe() | {"initial_weights": digest(model.initial_theta)},
        "flow_buffers": _buffer_digests(model),
        "data": {"events": list(data.events.shape), "sha256": data.digest},
    }
    return json.loads(json.dumps(identity | more))


def _buffer_digests(model: BayesianFlow) -> dict[str, str]:
    """Digests of the flow's buffers by name; those of pyrogen's own flows, which are all of one kind, together."""
    buffers = model.flow_buffers()
    if is_own(model.flow):
        return {"mixings": digest(*buffers.values())} if buffers else {}
    return {name: digest(buffer) for name, buffer in buffers.items()}


def name_of(identity: Mapping[str, Any]) -> str:
    """A short name of a run, by which files beside its checkpoint know it."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def save_checkpoint(
    path: str | os.PathLike[str], identity: Mapping[str, Any], state: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write a checkpoint in one piece.

    Args:
        path: the file.
        identity: what the run is (model, settings, data), in JSON types; :func:`load_checkpoint` compares it.
        state: counters in JSON types, and curves (:class:`~pyrogen.inference.run.curves.Curve`), which are stored as
            arrays: a long run writes them again and again.
        tensors: all tensors of the run's state, by name.
    """

    curves: list[tuple[list[str], Curve]] = []
    counters = _without_curves(state, [], curves)

    def fill(file: h5py.File) -> None:
        write_json(file, "identity", identity)
        write_json(file, "state", counters)
        write_json(file, "curves", [place for place, _ in curves])
        for i, (_, curve) in enumerate(curves):
            write_array(file, f"curve/{i}", curve)
        group = file.create_group("tensors")
        for name, tensor in tensors.items():
            write_array(group, name, tensor.detach().cpu().numpy())

    write_hdf5(path, KIND, fill)
    LOG.debug("saved the checkpoint %s", path)


def load_checkpoint(
    path: str | os.PathLike[str], identity: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Read the checkpoint at ``path`` if there is one, after checking that it belongs to this run.

    Returns:
        ``(state, tensors)`` as saved, or None where the file does not exist. The state has the name that the run had
        when it began as ``"run"``.

    Raises:
        CheckpointMismatchError: naming every entry of ``identity`` that differs.
        FileFormatError: not a checkpoint, truncated, damaged or of a newer version.
    """
    if not Path(path).exists():
        return None
    with open_hdf5(path, KIND) as file:
        saved = read_json(file, "identity")
        found = _flatten(_up_to_date(saved))
        wanted = _flatten(json.loads(json.dumps(identity)))
        differences = [
            f"{key}: {found.get(key, 'absent')} in the file, {wanted.get(key, 'absent')} in this run"
            for key in sorted(found.keys() | wanted.keys())
            if found.get(key) != wanted.get(key)
        ]
        if differences:
            raise CheckpointMismatchError(
                f"the checkpoint {path} belongs to another run:\n  "
                + "\n  ".join(differences)
                + "\nRepeat that run's model, settings and data to go on with it, or give another checkpoint file."
            )
        tensors = {name: torch.from_numpy(np.array(data[()])) for name, data in file["tensors"].items()}
        state = read_json(file, "state")
        # Until version 2 curves were lists in the state.
        for i, (*outer, last) in enumerate(read_json(file, "curves") if "curves" in file else ()):
            place = state
            for name in outer:
                place = place[name]
            place[last] = Curve(file[f"curve/{i}"][()])
        LOG.info("goes on from the checkpoint %s", path)
        return {"run": name_of(saved)} | state, tensors


def _without_curves(state: Mapping[str, Any], where: list[str], found: list[tuple[list[str], Curve]]) -> dict[str, Any]:
    """The state without its curves, which go to ``found`` with the names that lead to them."""
    left: dict[str, Any] = {}
    for name, value in state.items():
        if isinstance(value, Curve):
            found.append(([*where, name], value))
        else:
            left[name] = _without_curves(value, [*where, name], found) if isinstance(value, Mapping) else value
    return left


def _up_to_date(identity: dict[str, Any]) -> dict[str, Any]:
    """The identity of a run in today's words, from a file of any version."""
    settings, buffers = dict(identity.get("settings", {})), dict(identity.get("flow_buffers", {}))
    if "epochs" in settings and "warmup" in settings:  # of variational inference, until version 1
        settings["lr_warmup"] = settings.pop("warmup")
    if "epochs" in settings:
        settings.setdefault("compile", False)  # which it could not be, until version 3
    if identity.get("model", {}).get("flow_config"):  # a coupling flow had at most one buffer, until version 1
        buffers = dict(zip(["mixings"], buffers.values(), strict=False))
    return identity | {"settings": settings, "flow_buffers": buffers}


def _flatten(value: Any, prefix: str = "") -> dict[str, str]:
    """Nested settings as ``{"model.prior_scale": "1.0", ...}``, so that a difference has a name."""
    if isinstance(value, list) and any(isinstance(inner, Mapping) for inner in value):
        value = dict(enumerate(value))  # mappings compare by their entries, in whatever order a file has them
    if isinstance(value, Mapping):
        flat: dict[str, str] = {}
        for key, inner in value.items():
            flat |= _flatten(inner, f"{prefix}.{key}" if prefix else str(key))
        return flat
    return {prefix: repr(value)}
