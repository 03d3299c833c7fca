"""Events in a plain numpy file: ``[N, d]``, ``[N]``, or records with named fields."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..checks import check_settings, optional
from ..files import FileFormatError
from .format import Format, NoOptions
from .multiplicity import LAYOUT, Multiplicity
from .sample import EventSample
from .tables import content_of, from_records, part, reason


@dataclass(frozen=True)
class _Reading:
    multiplicity: Multiplicity | None = None

    def __post_init__(self) -> None:
        check_settings(self, multiplicity=optional(LAYOUT))


class Npy(Format, suffixes=(".npy",)):
    """Files ``.npy`` of one numpy array: values ``[N, d]`` or ``[N]``, or records with named fields.

    The fields of records are the columns; some names mean weights and their kin, as in
    :class:`~pyrogen.events.hdf5.Hdf5`. Only the values of a sample can be written, and only as a whole. Nothing is
    ever unpickled. The format has no checksums: only a wrong size of the file is noticed.

    Options of reading:

    * ``multiplicity``: the layout of the columns that are read, where the file has NaN for objects that are not there.

    There are no options of writing.
    """

    label = "npy"
    reading = _Reading
    why_whole = ".npy has its size at its beginning"

    def parts(self, chunk: int, columns: tuple[str, ...] | None, options: _Reading) -> Iterator[EventSample]:
        header = _header(self.path)
        with open(self.path, "rb") as stream:
            for first in range(0, max(header.rows, 1), chunk):
                rows = _rows(stream, header, slice(first, min(first + chunk, header.rows)))
                content: dict[str, Any] = {"values": rows}
                if rows.dtype.names:
                    content = content_of(self.path, partial(from_records, rows))
                content["provenance"] = {"file": self.path.name}
                yield part(self.path, first, columns, content, options.multiplicity)

    def write(self, sample: EventSample, temporary: Path, options: NoOptions) -> None:
        stream = io.BytesIO()  # numpy's own writing to a file does not say why the disk refuses it
        np.lib.format.write_array(stream, sample.values, allow_pickle=False)
        temporary.write_bytes(stream.getvalue())


@dataclass(frozen=True)
class _Header:
    """What the beginning of a file says: its shape, the type of its numbers, their order, and where they begin."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    by_columns: bool
    offset: int

    @property
    def rows(self) -> int:
        return self.shape[0]


def _header(path: Path) -> _Header:
    """The header, which must account for the whole file."""
    try:
        # Never np.load, which looks for pickles and zip archives too.
        with np.errstate(over="ignore"):  # of sizes that no file has
            array = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # the parser of the header has many ways to fail
        raise FileFormatError(f"{path} is not a whole .npy file of numbers: {reason(error)}") from error
    if array.ndim == 0:
        raise FileFormatError(f"{path} holds no sample of events: a single number, not an array [N, d]")
    said, there = array.offset + array.nbytes, path.stat().st_size
    if said != there:
        raise FileFormatError(f"{path} is not a whole .npy file: it should have {said} bytes and has {there}")
    by_columns = array.flags.f_contiguous and not array.flags.c_contiguous
    return _Header(path, array.shape, array.dtype, by_columns, array.offset)


def _rows(stream: BinaryIO, header: _Header, rows: slice) -> np.ndarray:
    """Some rows, read: a mapping would end the process where somebody shortens the file."""
    n = rows.stop - rows.start
    numbers = math.prod(header.shape[1:])
    if not header.by_columns:
        stream.seek(header.offset + rows.start * numbers * header.dtype.itemsize)
        return _read(stream, header, (n, *header.shape[1:]))
    columns = np.empty((numbers, n), header.dtype)
    for i in range(numbers):
        stream.seek(header.offset + (i * header.rows + rows.start) * header.dtype.itemsize)
        columns[i] = _read(stream, header, (n,))
    return columns.T.reshape(n, *header.shape[1:], order="F")


def _read(stream: BinaryIO, header: _Header, shape: tuple[int, ...]) -> np.ndarray:
    """The next numbers of a file, read-only, so that a sample takes them without a copy."""
    numbers = np.empty(shape, header.dtype)
    if numbers.nbytes and stream.readinto(numbers.reshape(-1).view(np.uint8)) < numbers.nbytes:  # type: ignore[attr-defined]
        raise FileFormatError(f"{header.path} became shorter while it was read")
    numbers.flags.writeable = False
    return numbers
