"""Named arrays to ArviZ, and to files: all that depends on the version of ArviZ is in here, and knows numpy alone.

ArviZ 0.2x works on ``arviz.InferenceData``, ArviZ 1 on ``xarray.DataTree``. Both are groups of ``xarray.Dataset``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pyrogen.checks import MAPPING, PATH, dictionary, door, having, optional
from pyrogen.coverage.chains import import_arviz
from pyrogen.files import check_writable, naming_failed_write, replacing
from pyrogen.signals import uninterrupted

#: A group: arrays by name, each with the names of its dimensions.
Group = Mapping[str, tuple[Sequence[str], Any]]
FEW = 29  #: Weights whose tail, a fifth of them, is too short to fit a shape to.
ARVIZ = optional(having("the module arviz", "__version__"))


@door(groups=dictionary(MAPPING), coords=optional(MAPPING), attrs=optional(MAPPING), arviz=ARVIZ)
def make_inference_data(
    groups: Mapping[str, Group],
    coords: Mapping[str, Sequence[Any]] | None = None,
    attrs: Mapping[str, Any] | None = None,
    arviz: Any = None,
) -> Any:
    """Arrays in groups as what the installed ArviZ works on.

    Args:
        groups: by name, such as ``"posterior"``; empty ones are left out.
        coords: labels of dimensions, as many as the dimension is long; those of ``chain``, ``draw`` and all others
            that are not given are counted from zero.
        attrs: attributes of every group; numbers and strings, so that they fit into a file.
        arviz: the ArviZ module; None: the one that is installed.

    Returns:
        ``arviz.InferenceData`` (ArviZ below 1) or ``xarray.DataTree``.

    Raises:
        ValueError: an array whose shape does not fit its dimensions or their labels; no group with content.
    """
    with uninterrupted():
        import xarray

    labels = {name: np.asarray(values) for name, values in (coords or {}).items()}
    datasets = {}
    for group, arrays in groups.items():
        lengths: dict[str, int] = {}
        for name, (dims, values) in arrays.items():
            shape = np.shape(values)
            if len(shape) != len(dims):
                raise ValueError(f"{group}/{name} has shape {list(shape)} and the dimensions {list(dims)}")
            for dim, length in zip(dims, shape, strict=True):
                wanted = len(labels[dim]) if dim in labels else lengths.setdefault(dim, length)
                if length != wanted:
                    raise ValueError(f"{group}/{name} is {length} long in {dim!r}, which has {wanted} entries")
                lengths[dim] = length
        if arrays:
            own = {dim: labels[dim] if dim in labels else np.arange(length) for dim, length in lengths.items()}
            content = {name: (tuple(dims), np.asarray(values)) for name, (dims, values) in arrays.items()}
            datasets[group] = xarray.Dataset(content, coords=own, attrs=dict(attrs or {}))
    if not datasets:
        raise ValueError("groups hold no arrays; there is nothing to convert")
    return _combine(datasets, arviz)


def _combine(datasets: Mapping[str, Any], arviz: Any) -> Any:
    with uninterrupted():
        import xarray

    arviz = import_arviz() if arviz is None else arviz
    # Not by hasattr: ArviZ 1 answers to the old name, with a DataTree that is built in another way.
    if _version(arviz) >= 1:
        return xarray.DataTree.from_dict(datasets)
    return arviz.InferenceData(**datasets)


def pareto_smooth(log_weights: Any, arviz: Any = None) -> tuple[Any, Any]:
    """Pareto-smoothed importance sampling (Vehtari et al., arXiv:1507.02646).

    Args:
        log_weights: logarithms of S importance weights for each of n quantities, ``[n, S]``, up to a constant.
        arviz: as in :func:`make_inference_data`.

    Returns:
        Smoothed log weights ``[n, S]`` that sum to one, and the shape k ``[n]`` of the tail: above 0.7 a mean over the
        weights is not to be trusted, above 1 it does not exist. Where no shape can be fitted, k is infinite and the
        weights are those given: at most 29 of them, or a tail of equal ones.
    """
    values = np.atleast_2d(np.asarray(log_weights, dtype=np.float64))
    given = values - np.logaddexp.reduce(values, axis=1, keepdims=True)
    if values.shape[1] <= FEW:
        return given, np.full(len(values), np.inf)
    arviz = import_arviz() if arviz is None else arviz
    if _version(arviz) < 1:
        smoothed, k = arviz.psislw(values)
        return np.atleast_2d(smoothed), np.atleast_1d(k)
    with uninterrupted():
        from arviz_stats.base import array_stats

    smoothed, k = given.copy(), np.full(len(values), np.inf)
    for i, row in enumerate(values):
        with contextlib.suppress(ValueError):  # of a tail of equal weights
            smoothed[i], k[i] = array_stats.psislw(-row, axis=-1)  # which takes log-likelihoods, to be divided by
    return smoothed, np.where(np.isnan(k), np.inf, k)


def _version(arviz: Any) -> int:
    return int(arviz.__version__.split(".")[0])


@door(data=having("an InferenceData or a DataTree", "to_netcdf"), path=PATH)
def write_inference_data(data: Any, path: str | os.PathLike[str]) -> Path:
    """Write to a NetCDF-4 file, which is an HDF5 file, in one piece: built beside its target, flushed and renamed.

    Args:
        data: what :func:`make_inference_data` or ArviZ made.
        path: the file; an old one is replaced.

    Returns:
        The path.

    Raises:
        OSError: the file cannot be written; an old file at ``path`` is left as it was.
    """
    check_writable(path)
    with replacing(path) as temporary, naming_failed_write(path):
        data.to_netcdf(str(temporary), engine="h5netcdf")
    return Path(path)


@door(path=PATH, arviz=ARVIZ)
def read_inference_data(path: str | os.PathLike[str], arviz: Any = None) -> Any:
    """Read what :func:`write_inference_data` or ArviZ wrote, into memory.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no such file format, or a truncated file.
    """
    with uninterrupted():
        import xarray

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        with xarray.open_datatree(path, engine="h5netcdf") as tree:
            groups = {name: node.to_dataset(inherit=False).load() for name, node in tree.children.items()}
    except (OSError, RuntimeError, KeyError) as error:
        raise ValueError(f"{path} is truncated or no NetCDF-4 file: {error}") from error
    if not groups:
        raise ValueError(f"{path} holds no groups; it is none of ArviZ's files")
    return _combine(groups, arviz)
