"""Events in HDF5: pyrogen's own files, and any table of a user's."""

from __future__ import annotations

import contextlib
import shutil
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..checks import require
from ..files import (
    FileFormatError,
    damage_named,
    growing_hdf5,
    kind_of,
    open_any_hdf5,
    open_hdf5,
    read_json,
    uninterrupted,
    write_json,
)
from .format import PER_EVENT, Continuation, Format, PartWriter
from .sample import EventSample
from .tables import UNCERTAINTIES, WEIGHTS, content_of, from_columns, from_records, part, to_columns

KIND = "events"
VERSIONS = {"columns": 1, "rows": 2}
"""The format version of each layout: a pyrogen that knows no rows says so, and reads the other as ever."""

_LABELS = ("names", "units", "provenance")
_TABLE = "events"  # the one dataset of the layout "rows"
_EVENTS_PER_CHUNK = 16_384
_BYTES_PER_CHUNK = 2**19  # two fit into HDF5's cache, so that adding a few events doesn't compress a chunk again

Content = Callable[[slice], dict[str, Any]]


@dataclass(frozen=True)
class _Reading:
    dataset: str | None = None


@dataclass(frozen=True)
class _Writing:
    layout: str | None = None

    def __post_init__(self) -> None:
        require(self.layout in (None, *VERSIONS), "layout", self.layout, '"columns" or "rows"')


class Hdf5(Format, suffixes=(".h5", ".hdf5")):
    """HDF5 files, ``.h5`` and ``.hdf5``: pyrogen's own keep everything that a sample has; a user's own are read.

    Options of reading:

    * ``dataset``: the table of a user's own file that holds several.

    Options of writing:

    * ``layout``: ``"columns"`` (the default) or ``"rows"``; of a file that is appended to, its own.

    Layout ``"columns"`` of pyrogen's own file, kind ``"events"``, version 1 (root attributes as in
    :mod:`pyrogen.files`); all datasets grow, chunked, with gzip and fletcher32 checksums::

        values          [N, d] float64
        weights         [N] float64, where the sample has weights
        uncertainties   [N] float64, relative, where the sample has them
        log_weights     [N, K] float64, of K posterior draws, where the sample has them
        names           JSON (UTF-8 bytes), a list of d strings
        units           JSON (UTF-8 bytes), a list of d strings
        provenance      JSON (UTF-8 bytes), an object

    Layout ``"rows"``, version 2, has one table in place of the first four, which pandas reads with
    ``pandas.DataFrame(file["events"][:])``::

        events          [N] records of float64: the columns, then weight, uncertainty, log_weight_0, log_weight_1, ...

    A user's own file is read where it holds exactly one table, anywhere in it:

    * a two-dimensional numeric dataset ``[N, d]`` of any name: its columns are called ``x0, x1, ...``;
    * a one-dimensional dataset of records with numeric fields, as pandas, PyTables and many ntuple dumps write:
      the fields are the columns, a field of several numbers gives ``name[0], name[1], ...``;
    * failing these, a group with one-dimensional numeric datasets of one length: their names, sorted, are the
      columns.

    A dataset, field or branch called ``weight`` or ``weights`` next to the columns holds the event weights,
    ``uncertainty`` or ``uncertainties`` the relative uncertainties and ``log_weight_0, ...`` or ``log_weights[0], ...``
    the log weights; among columns one called ``index`` (the row numbers of pandas) is left out.
    """

    label = "HDF5"
    keeps = PER_EVENT
    reading = _Reading
    writing = _Writing

    def parts(self, chunk: int, columns: tuple[str, ...] | None, options: _Reading) -> Iterator[EventSample]:
        path = self.path
        with open_any_hdf5(path) as file, damage_named(path):
            if kind_of(file) is None:
                yield from _slices(path, chunk, columns, *_foreign(file, path, options.dataset))
                return
        if options.dataset is not None:
            raise ValueError(f"{path} is a pyrogen file with one sample; leave out dataset={options.dataset!r}")
        with open_hdf5(path, KIND, max(VERSIONS.values())) as file:
            yield from _slices(path, chunk, columns, *_own(file, path))

    def writer(self, temporary: Path, first: EventSample, options: _Writing) -> PartWriter:
        return _Writer(temporary, first, options.layout or "columns")

    def resume(self, options: _Writing) -> Continuation:
        layout = _layout_of(self.path)
        require(options.layout in (None, layout), "layout", options.layout, f"that of {self.path}, {layout!r}")
        first = next(self.parts(1, None, _Reading()))
        return Continuation(first, lambda temporary: _Writer(temporary, first, layout, self))


def _slices(path: Path, chunk: int, columns: tuple[str, ...] | None, n: int, content: Content) -> Iterator[EventSample]:
    for first in range(0, max(n, 1), chunk):  # of no event at least one, for the error
        rows = slice(first, first + chunk)
        yield part(path, first, columns, content_of(path, partial(content, rows)))


# --- pyrogen's own ------------------------------------------------------------------------------------------


def _layout_of(path: Path) -> str:
    """The layout of a file of pyrogen's."""
    with open_hdf5(path, KIND, max(VERSIONS.values())) as file:
        return "rows" if _TABLE in file else "columns"


def _own(file: h5py.File, path: Path) -> tuple[int, Content]:
    labels = {name: read_json(file, name) for name in _LABELS}
    if _TABLE in file:
        records = file[_TABLE]
        return len(records), lambda rows: from_records(records[rows]) | labels
    if "values" not in file:
        raise FileFormatError(f"{path} is damaged or incomplete: it has no dataset 'values'")
    arrays = {name: file[name] for name in ("values", *PER_EVENT) if name in file}
    n = _common_length(path, arrays)
    return n, lambda rows: {name: array[rows] for name, array in arrays.items()} | labels


def _common_length(path: Path, arrays: dict[str, h5py.Dataset]) -> int:
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise FileFormatError(f"{path} holds no sample of events: its datasets have different lengths: {listed}")
    return next(iter(lengths.values()))


class _Writer(PartWriter):
    """Writes samples into a file of pyrogen's, one behind the other.

    Args:
        temporary: the file to write.
        first: a sample like those to come; its provenance is kept.
        layout: ``"columns"`` or ``"rows"``.
        old: a file whose events come first.

    Raises:
        ValueError: column names that rows can't have.
        OSError: the disk is full or read-only.
    """

    def __init__(self, temporary: Path, first: EventSample, layout: str, old: Hdf5 | None = None) -> None:
        self._rows = layout == "rows"
        self._stack = contextlib.ExitStack()
        copied = old is not None and _can_grow(old.path)
        if old is not None and copied:
            shutil.copyfile(old.path, temporary)
        opened = growing_hdf5(temporary) if copied else growing_hdf5(temporary, KIND, VERSIONS[layout])
        with uninterrupted():
            self._file, self._check = self._stack.enter_context(opened)
        self._temporary, self._checksums, self._whole = temporary, dict[str, _Checksum](), True
        if not copied:
            try:
                with uninterrupted():
                    self._create(first)
                if old is not None:
                    for events in old.parts(_EVENTS_PER_CHUNK, None, _Reading()):
                        self.write(events)
            except BaseException:
                self.close()
                raise

    def write(self, sample: EventSample) -> None:
        self._whole = False
        with uninterrupted():
            try:
                self._add(sample)
            finally:
                self._check()  # what went wrong first, before what HDF5 says of its consequences
        self._whole = True

    def _add(self, sample: EventSample) -> None:
        # In a function of its own: HDF5 writes when a dataset is forgotten too, and there signals have to wait as well.
        for name, array in self._arrays(sample).items():
            dataset, n = self._file[name], len(array)
            checksum = self._checksums.setdefault(name, _Checksum(len(dataset)))
            dataset.resize(len(dataset) + n, axis=0)
            dataset[-n:] = array
            checksum.add(array)

    def close(self) -> None:
        with uninterrupted():
            self._stack.close()
        if not self._whole:
            return  # an error is on its way, and the file will be thrown away
        with h5py.File(self._temporary, "r") as file:
            for name, checksum in self._checksums.items():
                checksum.compare(file[name])

    def _create(self, first: EventSample) -> None:
        for name, array in self._arrays(first).items():
            row = array.dtype.itemsize * int(np.prod(array.shape[1:]))
            rows = max(64, min(_EVENTS_PER_CHUNK, _BYTES_PER_CHUNK // row))
            self._file.create_dataset(
                name,
                (0, *array.shape[1:]),
                array.dtype,
                maxshape=(None, *array.shape[1:]),
                chunks=(rows, *array.shape[1:]),
                shuffle=True,
                compression="gzip",
                fletcher32=True,
            )
        for name in _LABELS:
            write_json(self._file, name, getattr(first, name))

    def _arrays(self, sample: EventSample) -> dict[str, np.ndarray]:
        if not self._rows:
            arrays = {name: getattr(sample, name) for name in ("values", *PER_EVENT)}
            return {name: array for name, array in arrays.items() if array is not None}
        columns = to_columns(sample)
        records = np.empty(len(sample), [(name, np.float64) for name in columns])
        for name, column in columns.items():
            records[name] = column
        return {_TABLE: records}


class _Checksum:
    """What was written of a dataset from its row ``first`` on, to be held against what the file has of it.

    Checksums of chunks are not enough: that of a chunk of zeros, which was never written, is right.
    """

    def __init__(self, first: int) -> None:
        self.first = self.last = first
        self._value = 0

    def add(self, array: np.ndarray) -> None:
        """Take in the next rows."""
        self.last += len(array)
        self._value = zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data, self._value)

    def compare(self, dataset: h5py.Dataset) -> None:
        """Raise an OSError unless the dataset holds what was taken in."""
        found = _Checksum(self.first)
        for start in range(self.first, len(dataset), _EVENTS_PER_CHUNK):
            found.add(dataset[start : start + _EVENTS_PER_CHUNK])
        if (found.last, found._value) != (self.last, self._value):
            raise OSError(
                f"rows {self.first} to {self.last - 1} of {dataset.name} do not read back as they were written"
            )


def _can_grow(path: Path) -> bool:
    """Whether the datasets of a file have no last length; those of early files have."""
    with open_hdf5(path, KIND, max(VERSIONS.values())) as file:
        return file[_TABLE if _TABLE in file else "values"].maxshape[0] is None


# --- a user's own -------------------------------------------------------------------------------------------


def _foreign(file: h5py.File, path: Path, dataset: str | None) -> tuple[int, Content]:
    """Number of events and content of a dataset, or of a group of columns."""
    item = _only_table(file, path) if dataset is None else _named(file, path, dataset)
    made = {"provenance": {"file": path.name, "dataset": item.name}}
    if isinstance(item, h5py.Group):
        columns = _columns_of(item)
    elif item.dtype.names:
        return len(item), lambda rows: from_records(item[rows]) | made
    elif item.ndim == 1:
        columns = {item.name.rsplit("/", 1)[-1]: item}
    else:
        arrays = {"values": item}
        beside = _columns_of(item.parent)
        for what, names in (("weights", WEIGHTS), ("uncertainties", UNCERTAINTIES)):
            present = [beside[name] for name in names if name in beside]
            if len(present) > 1:
                raise FileFormatError(f"{path}: the datasets {' and '.join(names)} are both {what}; only one can count")
            if present:
                arrays[what] = present[0]
        n = _common_length(path, arrays)
        return n, lambda rows: {name: array[rows] for name, array in arrays.items()} | made
    n = _common_length(path, columns)
    return n, lambda rows: from_columns({name: column[rows] for name, column in columns.items()}) | made


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
