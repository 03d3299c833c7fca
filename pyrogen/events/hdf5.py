"""Events in HDF5: pyrogen's own files, and any table of a user's."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from ..checks import check_settings, optional, require
from ..files import FileFormatError
from ..hdf5 import (
    BlockDigests,
    CheckedRows,
    Kind,
    check_own,
    damage_named,
    growing_hdf5,
    is_labelled,
    open_any_hdf5,
    open_hdf5,
    read_json,
    seal,
    uninterrupted,
    version_of,
    write_json,
)
from .format import LAYOUT, PER_EVENT, Continuation, Format, PartWriter
from .hdf5_tables import Content, common_length, table_of
from .multiplicity import LAYOUT as MULTIPLICITY
from .multiplicity import Multiplicity
from .sample import EventSample
from .tables import content_of, from_records, part, to_columns

_LABELS = ("names", "units", "provenance")
_TABLE = "events"  # the one dataset of the layout "rows"
_DIGESTS = "digests"  # the group with those of the blocks of each table
KIND = Kind("events", version=3, sealed=3, apart=("values", *PER_EVENT, _TABLE))
LAYOUTS = ("columns", "rows")
_EVENTS_PER_CHUNK = 16_384
_BYTES_PER_CHUNK = 2**19  # two fit into HDF5's cache, so that adding a few events doesn't compress a chunk again


@dataclass(frozen=True)
class _Reading:
    dataset: str | None = None
    multiplicity: Multiplicity | None = None

    def __post_init__(self) -> None:
        check_settings(self, multiplicity=optional(MULTIPLICITY))


@dataclass(frozen=True)
class _Writing:
    layout: str | None = None

    def __post_init__(self) -> None:
        require(self.layout in (None, *LAYOUTS), "layout", self.layout, '"columns" or "rows"')


class Hdf5(Format, suffixes=(".h5", ".hdf5")):
    """HDF5 files, ``.h5`` and ``.hdf5``: pyrogen's own keep everything that a sample has; a user's own are read.

    Options of reading:

    * ``dataset``: the table of a user's own file that holds several.
    * ``multiplicity``: the layout of the columns that are read, where a user's own file has NaN for objects that are
      not there.

    Options of writing:

    * ``layout``: ``"columns"`` (the default) or ``"rows"``; of a file that is appended to, its own.

    Layout ``"columns"`` of pyrogen's own file, kind ``"events"``, version 3 (root attributes as in
    :mod:`pyrogen.hdf5`); all tables grow, chunked, with gzip and fletcher32 checksums::

        values          [N, d] float64
        weights         [N] float64, where the sample has weights
        uncertainties   [N] float64, relative, where the sample has them
        log_weights     [N, K] float64, of K posterior draws, where the sample has them
        digests/values  [blocks, 32] uint8: the SHA-256 of each block of rows, of every table; attribute rows_per_block
        names           JSON (UTF-8 bytes), a list of d strings
        units           JSON (UTF-8 bytes), a list of d strings
        provenance      JSON (UTF-8 bytes), an object
        multiplicity    JSON (UTF-8 bytes), an object with shared, each, most and least, where the sample has a layout

    Layout ``"rows"`` has one table in place of the first four, which pandas reads with
    ``pandas.DataFrame(file["events"][:])``::

        events          [N] records of float64: the columns, then weight, uncertainty, log_weight_0, log_weight_1, ...

    Files of version 1 (columns) and 2 (rows) have no digests; they are read as ever.

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
    keeps = (*PER_EVENT, LAYOUT)
    reading = _Reading
    writing = _Writing

    def parts(self, chunk: int, columns: tuple[str, ...] | None, options: _Reading) -> Iterator[EventSample]:
        path = self.path
        with open_any_hdf5(path) as file, damage_named(path):
            if not is_labelled(file):
                found = table_of(file, path, options.dataset)
                yield from _slices(path, chunk, columns, *found, options.multiplicity)
                return
        if options.dataset is not None:
            raise ValueError(f"{path} is a pyrogen file with one sample; leave out dataset={options.dataset!r}")
        with open_hdf5(path, KIND) as file:
            yield from _slices(path, chunk, columns, *_own(file, path), options.multiplicity)

    def writer(self, temporary: Path, first: EventSample, options: _Writing) -> PartWriter:
        return _Writer(temporary, first, options.layout or "columns")

    def resume(self, options: _Writing) -> Continuation:
        with open_hdf5(self.path, KIND) as file:
            layout = "rows" if _TABLE in file else "columns"
            require(options.layout in (None, layout), "layout", options.layout, f"that of {self.path}, {layout!r}")
            # Early files have no digests, and are written anew.
            grows = version_of(file) == KIND.version
            first = next(_slices(self.path, 1, None, *_own(file, self.path)))
        return Continuation(first, lambda temporary: _Writer(temporary, first, layout, self, grows))


def _slices(
    path: Path,
    chunk: int,
    columns: tuple[str, ...] | None,
    n: int,
    content: Content,
    multiplicity: Multiplicity | None = None,
) -> Iterator[EventSample]:
    for first in range(0, max(n, 1), chunk):  # of no event at least one, for the error
        rows = slice(first, first + chunk)
        yield part(path, first, columns, content_of(path, partial(content, rows)), multiplicity)


# --- pyrogen's own ------------------------------------------------------------------------------------------


def _own(file: h5py.File, path: Path) -> tuple[int, Content]:
    labels = {name: read_json(file, name) for name in _LABELS}
    if LAYOUT in file:
        labels[LAYOUT] = Multiplicity.from_config(read_json(file, LAYOUT))
    if _TABLE in file:
        records = _table(file, _TABLE)
        return len(records), lambda rows: from_records(records[rows]) | labels
    if "values" not in file:
        raise FileFormatError(f"{path} is damaged or incomplete: it has no dataset 'values'")
    arrays = {name: _table(file, name) for name in ("values", *PER_EVENT) if name in file}
    n = common_length(path, arrays)
    return n, lambda rows: {name: array[rows] for name, array in arrays.items()} | labels


def _table(file: h5py.File, name: str) -> h5py.Dataset | CheckedRows:
    """A dataset with one row per event; in files without digests (versions 1 and 2) it is read as it is."""
    return CheckedRows(file[name], file[_DIGESTS][name]) if version_of(file) >= KIND.sealed else file[name]


class _Writer(PartWriter):
    """Writes samples into a file of pyrogen's, one behind the other.

    Args:
        temporary: the file to write.
        first: a sample like those to come; its provenance is kept.
        layout: ``"columns"`` or ``"rows"``.
        old: a file whose events come first.
        grows: whether events can be added to a copy of it as it is.

    Raises:
        ValueError: column names that rows can't have.
        OSError: the disk is full or read-only.
    """

    def __init__(
        self, temporary: Path, first: EventSample, layout: str, old: Hdf5 | None = None, grows: bool = False
    ) -> None:
        self._rows = layout == "rows"
        self._stack = contextlib.ExitStack()
        copied = old is not None and grows
        if old is not None and copied:
            shutil.copyfile(old.path, temporary)
        opened = growing_hdf5(temporary) if copied else growing_hdf5(temporary, KIND)
        with uninterrupted():
            self._file, self._check = self._stack.enter_context(opened)
        self._temporary, self._whole = temporary, True
        self._digests: dict[str, BlockDigests] = {}
        self._first: dict[str, int] = {}  # the first row of each table that is new
        if copied:
            try:
                with uninterrupted():
                    check_own(self._file, temporary, KIND)
                    self._resume()
            except BaseException:
                self._whole = False
                self.close()
                raise
        else:
            try:
                with uninterrupted():
                    self._create(first)
                if old is not None:
                    for events in old.parts(_EVENTS_PER_CHUNK, None, _Reading()):
                        self.write(events)
            except BaseException:
                self._whole = False
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
            dataset.resize(len(dataset) + n, axis=0)
            dataset[-n:] = array
            self._digests[name].add(array)

    def close(self) -> None:
        """Finish the file, and hold what is new in it against what was written."""
        with uninterrupted():
            try:
                if self._whole:
                    for name, digests in self._digests.items():
                        digests.store(self._file[_DIGESTS][name])
                    seal(self._file, KIND.apart)
            finally:
                self._stack.close()
        if not self._whole:
            return  # an error is on its way, and the file will be thrown away
        with h5py.File(self._temporary, "r") as file:
            for name, first in self._first.items():
                rows = _table(file, name)
                try:
                    for start in range(first, len(rows), _EVENTS_PER_CHUNK):
                        rows[start : start + _EVENTS_PER_CHUNK]
                except FileFormatError as error:
                    raise OSError(
                        f"rows {first} to {len(rows) - 1} of /{name} do not read back as they were written"
                    ) from error

    def _resume(self) -> None:
        """Get ready to go on behind the rows that are there."""
        for name in self._file[_DIGESTS]:
            rows = _table(self._file, name)
            self._digests[name], self._first[name] = BlockDigests.resume(rows), len(rows)

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
            self._digests[name], self._first[name] = BlockDigests(rows), 0
            self._digests[name].create(self._file.require_group(_DIGESTS), name)
        for name in _LABELS:
            write_json(self._file, name, getattr(first, name))
        if first.multiplicity is not None:
            write_json(self._file, LAYOUT, first.multiplicity.config())

    def _arrays(self, sample: EventSample) -> dict[str, np.ndarray]:
        if not self._rows:
            arrays = {name: getattr(sample, name) for name in ("values", *PER_EVENT)}
            return {name: array for name, array in arrays.items() if array is not None}
        columns = to_columns(sample)
        records = np.empty(len(sample), [(name, np.float64) for name in columns])
        for name, column in columns.items():
            records[name] = column
        return {_TABLE: records}
