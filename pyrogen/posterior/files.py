"""Posteriors in HDF5 files: numbers and JSON, never code."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace

import h5py
import numpy as np
import torch
from torch import Tensor, nn

from pyrogen.bayes.model import BayesianFlow
from pyrogen.files import FileFormatError, check_writable
from pyrogen.flows.own import OWN
from pyrogen.hdf5 import Kind, open_hdf5, read_json, text_of, write_array, write_hdf5, write_json
from pyrogen.log import LOG
from pyrogen.posterior.description import check_description
from pyrogen.posterior.info import History, RunInfo
from pyrogen.posterior.probes import Probes
from pyrogen.posterior.weights import FAMILIES, WeightPosterior, make_weights

KIND = Kind("posterior", version=3, sealed=3)

Content = tuple[BayesianFlow, WeightPosterior, History, RunInfo, Probes | None, dict[int, WeightPosterior]]


def write(
    path: str | os.PathLike[str],
    model: BayesianFlow,
    weights: WeightPosterior,
    history: History,
    info: RunInfo,
    probes: Probes | None = None,
    snapshots: Mapping[int, WeightPosterior] | None = None,
) -> None:
    """The work of :meth:`~pyrogen.Posterior.save`."""
    if FAMILIES.get(weights.family) is not type(weights):
        raise ValueError(
            f"{type(weights).__name__} has the family {weights.family!r} of another class, as which it would be "
            "loaded; give the class a family of its own"
        )
    check_writable(path)  # which also removes what a killed process left

    def fill(file: h5py.File) -> None:
        write_json(file, "model", model.describe())
        write_json(file, "info", info.to_json())
        file.attrs["family"] = np.bytes_(weights.family)
        for name, array in weights.arrays.items():
            write_array(file, f"weights/{name}", array.cpu().numpy())
        write_array(file, "initial_weights", model.initial_theta.cpu().numpy())
        if model.has_own_prior:
            write_array(file, "prior/centres", model.prior_centres.cpu().numpy())
            write_array(file, "prior/scales", model.prior_scales.cpu().numpy())
        for name, buffer in model.flow_buffers().items():
            write_array(file, f"flow_buffers/{name}", buffer.cpu().numpy())
        for name, values in history.items():
            write_array(file, f"history/{name}", values)
        if probes is not None:
            for name, array in probes.arrays(model, weights).items():
                write_array(file, f"probes/{name}", array.numpy())
        for n, earlier in (snapshots or {}).items():
            for name, array in earlier.arrays.items():
                write_array(file, f"snapshots/{n}/{name}", array.cpu().numpy())

    write_hdf5(path, KIND, fill)
    LOG.info("saved the posterior %s", path)


def read(path: str | os.PathLike[str], flow: nn.Module | None = None) -> Content:
    """The work of :func:`pyrogen.load`: what a :class:`~pyrogen.Posterior` is made of."""
    with open_hdf5(path, KIND) as file:
        with _entry(path, "initial_weights"):
            initial = _numbers(file["initial_weights"])
            fine = initial.ndim == 1 and initial.is_floating_point() and bool(initial.isfinite().all())
            _check(fine, "it is no vector of finite floating-point numbers")
        with _entry(path, "model"):
            description = read_json(file, "model")
            check_description(description, len(initial))
            buffers = _arrays(file, "flow_buffers")
            for name, buffer in buffers.items() if description["flow"] in OWN else ():
                _check(bool(buffer.isfinite().all()), f"flow_buffers/{name} holds NaN or infinite numbers")
            model = BayesianFlow.from_description(description, initial, buffers, flow, _arrays(file, "prior"))
        with _entry(path, "weights"):
            weights = make_weights(text_of(file, "family"), _arrays(file, "weights"))
            weights.check(len(initial))
        with _entry(path, "probes"):
            probes = Probes.checked(_arrays(file, "probes"), model, weights)
        with _entry(path, "history"):
            history: History = {name: array.numpy() for name, array in _arrays(file, "history").items()}
        with _entry(path, "info"):
            info = RunInfo.from_json(read_json(file, "info"))
        if info.seconds is None and len(history.get("seconds", ())):  # as in files of version 1
            info = replace(info, seconds=float(history["seconds"][-1]))
        with _entry(path, "snapshots"):
            snapshots = _snapshots(_arrays(file, "snapshots"), weights)
        return model, weights, history, info, probes, snapshots


def _snapshots(arrays: dict[str, Tensor], weights: WeightPosterior) -> dict[int, WeightPosterior]:
    """What the weights were earlier, by numbers of events; they are of the family of the weights themselves."""
    parts: dict[int, dict[str, Tensor]] = {}
    for name, array in arrays.items():
        n, _, own = name.partition("/")
        _check(n.isdigit(), f"{n} is no number of events")
        parts.setdefault(int(n), {})[own] = array
    found = {n: make_weights(weights.family, parts[n]) for n in sorted(parts)}
    for earlier in found.values():
        earlier.check(weights.size)
    return found


@contextlib.contextmanager
def _entry(path: str | os.PathLike[str], name: str) -> Iterator[None]:
    """Whatever is wrong with an entry of a file, the error names the file and the entry."""
    try:
        yield
    except FileFormatError:
        raise
    except Exception as error:
        told = error if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise FileFormatError(f"{path}: {name}: {told}") from error


def _arrays(file: h5py.File, group: str) -> dict[str, Tensor]:
    """All arrays of a group, single numbers among them."""
    found: dict[str, Tensor] = {}
    if group in file:
        file[group].visititems(
            lambda name, item: found.update({name: _numbers(item)}) if isinstance(item, h5py.Dataset) else None
        )
    return found


def _numbers(dataset: h5py.Dataset) -> Tensor:
    _check(dataset.dtype.kind in "biuf" and dataset.shape is not None, f"{dataset.name} holds no numbers")
    return torch.from_numpy(np.asarray(dataset[()]))


def _check(good: bool, told: str) -> None:
    if not good:
        raise ValueError(told)
