"""Classifier weights in HDF5 files: both samples and their log-weights, without the classifiers."""

from __future__ import annotations

import os
from dataclasses import fields
from typing import Any

import h5py
import numpy as np

from pyrogen.events import EventSample, Multiplicity
from pyrogen.events.format import PER_EVENT
from pyrogen.files import FileFormatError, check_writable
from pyrogen.hdf5 import Kind, open_hdf5, read_json, write_array, write_hdf5, write_json

KIND = Kind("classifier weights", version=1, sealed=1)

SAMPLES = ("truth", "generated")
PER_SAMPLE = ("log_w", "spread", "fold")
CONTROL = "control"


def write(path: str | os.PathLike[str], found: Any) -> None:
    """The work of :meth:`ClassifierWeights.save`."""
    check_writable(path)  # which also removes what a killed process left
    write_hdf5(path, KIND, lambda file: _fill(file, found))


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a :class:`ClassifierWeights` is made of, by name; that of its control likewise.

    Raises:
        FileNotFoundError, FileFormatError: as :func:`pyrogen.load`.
    """
    with open_hdf5(path, KIND) as file:
        try:
            return _parts(file)
        except FileFormatError:
            raise
        except (KeyError, ValueError, TypeError) as error:
            raise FileFormatError(f"{path} is damaged or incomplete: {error}") from error


def _fill(group: h5py.Group, found: Any) -> None:
    for name in SAMPLES:
        sample = getattr(found, name)
        for entry in ("values", *PER_EVENT):
            if getattr(sample, entry) is not None:
                write_array(group, f"{name}/{entry}", getattr(sample, entry))
        layout = None if sample.multiplicity is None else sample.multiplicity.config()
        about = {"names": sample.names, "units": sample.units, "provenance": sample.provenance, "multiplicity": layout}
        write_json(group[name], "about", about)
        for entry in PER_SAMPLE:
            write_array(group, f"{entry}_{name}", getattr(found, f"{entry}_{name}"))
    for field in fields(found.trainings):
        write_array(group, f"trainings/{field.name}", getattr(found.trainings, field.name))
    write_json(group, "settings", found.settings)
    if found.control is not None:
        _fill(group.create_group(CONTROL), found.control)


def _parts(group: h5py.Group) -> dict[str, Any]:
    parts: dict[str, Any] = {"settings": read_json(group, "settings")}
    for name in SAMPLES:
        about = read_json(group[name], "about")
        layout = None if about["multiplicity"] is None else Multiplicity.from_config(about["multiplicity"])
        own = {entry: group[name][entry][()] for entry in PER_EVENT if entry in group[name]}
        labels = {label: about[label] for label in ("names", "units", "provenance")}
        parts[name] = EventSample(group[name]["values"][()], multiplicity=layout, **labels, **own)
        for entry in PER_SAMPLE:
            parts[f"{entry}_{name}"] = np.asarray(group[f"{entry}_{name}"][()])
    parts["trainings"] = {name: np.asarray(each[()]) for name, each in group["trainings"].items()}
    if CONTROL in group:
        parts[CONTROL] = _parts(group[CONTROL])
    return parts
