"""Events in a plain numpy file: ``[N, d]``, ``[N]``, or records with named fields."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..files import FileFormatError, write_bytes
from .sample import PER_EVENT, EventSample
from .tables import Choices, from_records, part


def parts(path: Path, choices: Choices) -> Iterator[EventSample]:
    """The events of a file in parts."""
    if choices.dataset is not None:
        raise ValueError(f"{path} holds one array; leave out dataset={choices.dataset!r}")
    n = len(_mapped(path))
    for first in range(0, max(n, 1), choices.chunk):
        # Mapped anew for each part: a mapping keeps all that was read of it in memory.
        rows = _mapped(path)[first : first + choices.chunk]
        content = from_records(rows) if rows.dtype.names else {"values": rows}
        yield part(path, first, choices.columns, content | {"provenance": {"file": path.name}})


def write(sample: EventSample, path: Path) -> None:
    """Write the values, in one piece.

    Raises:
        ValueError: the sample has more than values.
    """
    lost = [name for name in PER_EVENT if getattr(sample, name) is not None]
    if lost:
        raise ValueError(f"cannot write {path}: .npy would lose the {' and '.join(lost)}; write .h5 instead")
    stream = io.BytesIO()
    np.lib.format.write_array(stream, sample.values, allow_pickle=False)
    write_bytes(path, stream.getvalue())


def _mapped(path: Path) -> np.ndarray:
    """The array, its numbers still on the disk; never np.load, which looks for pickles and zip archives too."""
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # the parser of the header has many ways to fail
        raise FileFormatError(f"{path} is not a whole .npy file of numbers: {error}") from error
    if array.ndim == 0:
        raise FileFormatError(f"{path} holds no sample of events: a single number, not an array [N, d]")
    return array
