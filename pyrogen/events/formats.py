"""Reading and writing samples of events; the suffix decides the format.

======================  ==============================================================================
``.h5``, ``.hdf5``      everything a sample has, without loss (layout below); or a user's own HDF5 file
``.npy``                a plain numpy array ``[N, d]``
======================  ==============================================================================

Layout of pyrogen's own file, kind ``"events"``, version 1 (root attributes as in :mod:`pyrogen.files`)::

    values          [N, d] float64; chunked, gzip, fletcher32 checksums
    weights         [N] float64, where the sample has weights
    uncertainties   [N] float64, relative, where the sample has them
    names           JSON (UTF-8 bytes), a list of d strings
    units           JSON (UTF-8 bytes), a list of d strings
    provenance      JSON (UTF-8 bytes), an object

A user's own HDF5 file is read where it holds exactly one table, anywhere in it:

* a two-dimensional numeric dataset ``[N, d]`` of any name: its columns are called ``x0, x1, ...``;
* a one-dimensional dataset of records with numeric fields, as pandas, PyTables and many ntuple dumps write:
  the fields are the columns, a field of several numbers gives ``name[0], name[1], ...``;
* failing these, a group with one-dimensional numeric datasets of one length: their names, sorted, are the
  columns.

A dataset or field called ``weight`` or ``weights`` next to the columns holds the event weights, and among
columns one called ``index`` (the row numbers of pandas) is left out. Where there are several tables,
``dataset="name"`` picks one. No format is ever unpickled.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..files import (
    FileFormatError,
    damage_named,
    kind_of,
    open_any_hdf5,
    open_hdf5,
    read_json,
    write_array,
    write_bytes,
    write_hdf5,
    write_json,
)
from .sample import EventSample

KIND = "events"
VERSION = 1

_LATER = (".lhe", ".lhe.gz", ".root")
_WEIGHTS = ("weight", "weights")
_INDEX = "index"


def read(path: str | os.PathLike[str], dataset: str | None = None) -> EventSample:
    """Read events from a file; the module docstring says what it may hold.

    Args:
        path: the file; ``.h5``, ``.hdf5`` or ``.npy``.
        dataset: name of the dataset or group in a user's own HDF5 file that holds several.

    Returns:
        The sample. That of a user's own file says in its provenance where it came from.

    Raises:
        FileNotFoundError: no such file.
        FileFormatError: truncated, damaged or foreign, a newer version, or content that is no sample.
        ValueError: a suffix that cannot be read, or a choice of dataset that is missing or not possible.
    """
    path = Path(path)
    return _by_suffix(path, _READERS, "read")(path, dataset)


def write(sample: EventSample, path: str | os.PathLike[str]) -> None:
    """Write events to a file; ``.h5`` and ``.hdf5`` keep everything, ``.npy`` only the values.

    The file is replaced in one piece: whatever fails, an old one stays as it was.

    Raises:
        ValueError: a suffix that cannot be written, or weights or uncertainties that ``.npy`` would lose.
        OSError: the file cannot be written.
    """
    path = Path(path)
    _by_suffix(path, _WRITERS, "write")(sample, path)


def _by_suffix(path: Path, table: dict[str, Any], verb: str) -> Any:
    for suffix, function in table.items():
        if path.name.lower().endswith(suffix):
            return function
    later = path.name.lower().endswith(_LATER)
    reason = "this format is planned, but not there yet" if later else f"unknown suffix {path.suffix!r}"
    raise ValueError(f"cannot {verb} {path}: {reason}; pyrogen can {verb} {', '.join(table)}")


# --- pyrogen's own HDF5 -------------------------------------------------------------------------------------


def _write_hdf5(sample: EventSample, path: Path) -> None:
    def fill(file: h5py.File) -> None:
        file.create_dataset(
            "values", data=sample.values, chunks=True, shuffle=True, compression="gzip", fletcher32=True
        )
        for name in ("weights", "uncertainties"):
            if getattr(sample, name) is not None:
                write_array(file, name, getattr(sample, name))
        for name in ("names", "units", "provenance"):
            write_json(file, name, getattr(sample, name))

    write_hdf5(path, KIND, VERSION, fill)


def _read_hdf5(path: Path, dataset: str | None) -> EventSample:
    with open_any_hdf5(path) as file, damage_named(path):
        if kind_of(file) is None:
            return _read_foreign(file, path, dataset)
    if dataset is not None:
        raise ValueError(f"{path} is a pyrogen file with one sample; leave out dataset={dataset!r}")
    with open_hdf5(path, KIND, VERSION) as file:
        arrays = {name: file[name][()] for name in ("values", "weights", "uncertainties") if name in file}
        labels = {name: read_json(file, name) for name in ("names", "units", "provenance")}
    if "values" not in arrays:
        raise FileFormatError(f"{path} is damaged or incomplete: it has no dataset 'values'")
    return _sample(path, **arrays, **labels)


def _sample(path: Path, **content: Any) -> EventSample:
    """A sample whose errors name the file."""
    try:
        return EventSample(**content)
    except (TypeError, ValueError) as error:
        raise FileFormatError(f"{path} holds no sample of events: {error}") from error


# --- a user's own HDF5 --------------------------------------------------------------------------------------


def _read_foreign(file: h5py.File, path: Path, dataset: str | None) -> EventSample:
    item = _only_table(file, path) if dataset is None else _named(file, path, dataset)
    return _sample(path, **_table(item), provenance={"file": path.name, "dataset": item.name})


def _table(item: h5py.Dataset | h5py.Group) -> dict[str, Any]:
    """Values, names and weights of a dataset, or of a group of columns."""
    if isinstance(item, h5py.Group):
        return _from_columns({name: child[()] for name, child in _columns_of(item).items()})
    if item.dtype.names:
        return _from_records(item[()])
    if item.ndim == 1:
        return _from_columns({item.name.rsplit("/", 1)[-1]: item[()]})
    beside = _columns_of(item.parent)
    weights = [beside[name][()] for name in _WEIGHTS if name in beside]
    return {"values": item[()], "weights": weights[0] if weights else None}


def _from_records(records: np.ndarray) -> dict[str, Any]:
    columns = {}
    for name in records.dtype.names or ():
        field = records[name]
        if field.ndim == 1:
            columns[name] = field
        else:
            flat = field.reshape(len(records), -1)
            columns |= {f"{name}[{i}]": flat[:, i] for i in range(flat.shape[1])}
    return _from_columns(columns)


def _from_columns(columns: dict[str, np.ndarray]) -> dict[str, Any]:
    weights = [columns.pop(name) for name in _WEIGHTS if name in columns and len(columns) > 1]
    if len(columns) > 1:
        columns.pop(_INDEX, None)
    return {
        "values": np.column_stack(list(columns.values())),
        "names": list(columns),
        "weights": weights[0] if weights else None,
    }


def _only_table(file: h5py.File, path: Path) -> h5py.Dataset | h5py.Group:
    items: list[h5py.Dataset | h5py.Group] = [file["/"]]
    file.visititems(lambda _, item: items.append(item))  # does not follow links out of the file
    datasets = [item for item in items if isinstance(item, h5py.Dataset)]
    tables = [item for item in datasets if _is_table(item)] or [
        item for item in items if isinstance(item, h5py.Group) and _is_group_of_columns(item)
    ]
    if len(tables) == 1:
        return tables[0]
    if tables:
        raise ValueError(f'{path} holds several tables; choose one with dataset="name": {_listed(tables)}')
    raise ValueError(
        f"{path} holds no table of events (a numeric dataset [N, d], records of numbers, or a group of "
        f"columns of one length); it holds {_listed(datasets) or 'no dataset at all'}"
    )


def _named(file: h5py.File, path: Path, dataset: str) -> h5py.Dataset | h5py.Group:
    datasets: list[h5py.Dataset] = []
    file.visititems(lambda _, item: datasets.append(item) if isinstance(item, h5py.Dataset) else None)
    if dataset not in file:
        raise ValueError(f"{path} has no dataset {dataset!r}; it holds {_listed(datasets)}")
    item = file[dataset]
    if isinstance(item, h5py.Group):
        usable = _is_group_of_columns(item)
    else:
        usable = _is_table(item) or (item.ndim == 1 and item.dtype.kind in "biuf")
    if not usable:
        raise ValueError(
            f"dataset {dataset!r} of {path} is no table of events: it should be numeric [N, d] or [N], "
            f"records of numbers, or a group of columns of one length; the file holds {_listed(datasets)}"
        )
    return item


def _is_table(item: h5py.Dataset) -> bool:
    if item.dtype.names:
        return item.ndim == 1 and all(field.base.kind in "biuf" for field, *_ in item.dtype.fields.values())
    return item.ndim == 2 and item.dtype.kind in "biuf"


def _is_group_of_columns(group: h5py.Group) -> bool:
    return len({len(column) for column in _columns_of(group).values()}) == 1


def _columns_of(group: h5py.Group) -> dict[str, h5py.Dataset]:
    """The one-dimensional numeric datasets directly in a group, sorted by name; links are not followed."""
    columns = {}
    for name in sorted(group):
        if isinstance(group.get(name, getlink=True), h5py.HardLink):
            child = group[name]
            if isinstance(child, h5py.Dataset) and child.ndim == 1 and child.dtype.kind in "biuf":
                columns[name] = child
    return columns


def _listed(items: list[Any]) -> str:
    def shape(item: h5py.Dataset | h5py.Group) -> str:
        return f"{list(item.shape)}" if isinstance(item, h5py.Dataset) else f"columns {', '.join(_columns_of(item))}"

    return "; ".join(f"{item.name.lstrip('/') or '/'} {shape(item)}" for item in items)


# --- .npy ---------------------------------------------------------------------------------------------------


def _write_npy(sample: EventSample, path: Path) -> None:
    lost = [name for name in ("weights", "uncertainties") if getattr(sample, name) is not None]
    if lost:
        raise ValueError(f"cannot write {path}: .npy would lose the {' and '.join(lost)}; write .h5 instead")
    stream = io.BytesIO()
    np.lib.format.write_array(stream, sample.values, allow_pickle=False)
    write_bytes(path, stream.getvalue())


def _read_npy(path: Path, dataset: str | None) -> EventSample:
    if dataset is not None:
        raise ValueError(f"{path} holds one array; leave out dataset={dataset!r}")
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    with open(path, "rb") as stream:
        try:
            # Not np.load, which also takes zip archives and, by its magic, looks for pickles.
            array = np.lib.format.read_array(stream, allow_pickle=False)
        except Exception as error:  # the parser of the header has many ways to fail
            raise FileFormatError(f"{path} is not a whole .npy file of numbers: {error}") from error
    content = _from_records(array) if array.dtype.names else {"values": array}
    return _sample(path, **content, provenance={"file": path.name})


_READERS: dict[str, Callable[[Path, str | None], EventSample]] = {
    ".h5": _read_hdf5,
    ".hdf5": _read_hdf5,
    ".npy": _read_npy,
}
_WRITERS: dict[str, Callable[[EventSample, Path], None]] = {
    ".h5": _write_hdf5,
    ".hdf5": _write_hdf5,
    ".npy": _write_npy,
}
