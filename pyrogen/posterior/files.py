"""Posteriors in HDF5 files: numbers and JSON, never code."""

from __future__ import annotations

import copy
import os
from typing import TYPE_CHECKING

import h5py
import torch
from torch import nn

from pyrogen.bayes.model import BayesianFlow
from pyrogen.events.preprocessing import from_config
from pyrogen.files import FileFormatError, open_hdf5, read_json, write_array, write_hdf5, write_json
from pyrogen.flows import CouplingFlow
from pyrogen.posterior.weights import FAMILIES, WeightPosterior

if TYPE_CHECKING:
    from pyrogen.posterior.posterior import Posterior

KIND, VERSION = "posterior", 1


def save(posterior: Posterior, path: str | os.PathLike[str]) -> None:
    """The work of :meth:`Posterior.save`."""

    def fill(file: h5py.File) -> None:
        write_json(file, "model", posterior.model.describe())
        write_json(file, "info", posterior.info)
        file.attrs["family"] = posterior.weights.family
        for name, array in posterior.weights.arrays.items():
            write_array(file, f"weights/{name}", array.cpu().numpy())
        write_array(file, "initial_weights", posterior.model.initial_theta.cpu().numpy())
        for name, buffer in posterior.model._flow.named_buffers():
            write_array(file, f"flow_buffers/{name}", buffer.cpu().numpy())
        for name, values in posterior.history.items():
            write_array(file, f"history/{name}", values)

    write_hdf5(path, KIND, VERSION, fill)


def load(path: str | os.PathLike[str], flow: nn.Module | None = None) -> Posterior:
    """Load a posterior that :meth:`Posterior.save` wrote; it predicts bit for bit the same.

    Args:
        path: the HDF5 file.
        flow: the flow, for a posterior over a flow that is not a :class:`~pyrogen.CouplingFlow` (files hold numbers,
            never code); its parameters must have the names and shapes of the saved one.

    Raises:
        FileNotFoundError: no such file.
        FileFormatError: not a posterior, truncated, damaged, of a newer version, or not fitting ``flow``.
    """
    from pyrogen.posterior.posterior import Posterior  # which saves itself by way of this module

    with open_hdf5(path, KIND, VERSION) as file:
        description = read_json(file, "model")
        if flow is None:
            if description["flow"] != CouplingFlow.__name__:
                raise FileFormatError(
                    f"{path} holds a posterior over a {description['flow']}; give pg.load(path, flow=...) such a flow"
                )
            config = dict(description["flow_config"])
            flow = CouplingFlow(**config | {"dtype": _dtype(config["dtype"])})
        flow = copy.deepcopy(flow).to(_dtype(description["dtype"]))  # the caller's module stays as it is
        model = BayesianFlow(flow, description["prior_scale"], from_config(description["preprocessing"]))
        model._features = description["features"]
        if model.describe()["parameters"] != description["parameters"]:
            raise FileFormatError(
                f"the parameters of the flow given differ in name or shape from those saved in {path}"
            )
        with torch.no_grad():
            for name, buffer in model._flow.named_buffers():
                buffer.copy_(torch.from_numpy(file["flow_buffers"][name][()]))
            model.initial_theta.copy_(torch.from_numpy(file["initial_weights"][()]))
        family = str(file.attrs["family"])
        arrays = {name: torch.from_numpy(file["weights"][name][()]) for name in FAMILIES[family]}
        history = {name: data[()] for name, data in file["history"].items()} if "history" in file else {}
        return Posterior(model, WeightPosterior(family, arrays), history, read_json(file, "info"))


def _dtype(name: str) -> torch.dtype:
    return {"float32": torch.float32, "float64": torch.float64}[name]
