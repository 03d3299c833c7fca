"""Events in a plain numpy file: ``[N, d]``, ``[N]``, or records with named fields."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..files import FileFormatError
from .format import Format, NoOptions
from .sample import EventSample
from .tables import from_records, part


class Npy(Format, suffixes=(".npy",)):
    """Files ``.npy`` of one numpy array: values ``[N, d]`` or ``[N]``, or records with named fields.

    The fields of records are the columns; some names mean weights and their kin, as in
    :class:`~pyrogen.events.hdf5.Hdf5`. Only the values of a sample can be written, and only as a whole. There are no
    options. Nothing is ever unpickled.
    """

    label = "npy"
    why_whole = ".npy has its size at its beginning"

    def parts(self, chunk: int, columns: tuple[str, ...] | None, options: NoOptions) -> Iterator[EventSample]:
        n = len(_mapped(self.path))
        for first in range(0, max(n, 1), chunk):
            # Mapped anew for each part: a mapping keeps all that was read of it in memory.
            rows = _mapped(self.path)[first : first + chunk]
            content = from_records(rows) if rows.dtype.names else {"values": rows}
            yield part(self.path, first, columns, content | {"provenance": {"file": self.path.name}})

    def write(self, sample: EventSample, temporary: Path, options: NoOptions) -> None:
        stream = io.BytesIO()  # numpy's own writing to a file does not say why the disk refuses it
        np.lib.format.write_array(stream, sample.values, allow_pickle=False)
        temporary.write_bytes(stream.getvalue())


def _mapped(path: Path) -> np.ndarray:
    """The array, its numbers still on the disk; never np.load, which looks for pickles and zip archives too."""
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # the parser of the header has many ways to fail
        raise FileFormatError(f"{path} is not a whole .npy file of numbers: {error}") from error
    if array.ndim == 0:
        raise FileFormatError(f"{path} holds no sample of events: a single number, not an array [N, d]")
    return array
