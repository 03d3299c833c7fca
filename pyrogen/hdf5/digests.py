"""Digests of the content of HDF5 files: what was written is what is read, or there is an error.

The checksums of HDF5 are not enough: that of a chunk of zeros is zero, so a chunk that was zeroed passes, and single
numbers have none. So every file has one SHA-256 over all of its content, in its attribute ``pyrogen_digest``. Of large
tables, which are read in parts, it covers the digests of blocks of rows instead of the rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Any

import h5py
import numpy as np

from ..files import FileFormatError
from .structure import check_length, objects

DIGEST = "pyrogen_digest"
_ROWS = "rows_per_block"


def content_digest(file: h5py.File, apart: Collection[str] = ()) -> str:
    """SHA-256 over the names, attributes, types, shapes and numbers of everything in a file.

    Args:
        file: the file.
        apart: names of datasets whose numbers don't count, but their types and shapes do: others have digests of them.
    """
    found = hashlib.sha256()

    def add(*pieces: bytes) -> None:
        for piece in pieces:
            found.update(len(piece).to_bytes(8, "little"))  # where one ends and the next begins counts too
            found.update(piece)

    for name, item in objects(file):
        add(type(item).__name__.encode(), name.encode())
        for key in sorted(item.attrs):
            if (name, key) != ("/", DIGEST):
                check_length(item, key)
                add(b"attribute", key.encode(), *_pieces(item.attrs[key]))
        if isinstance(item, h5py.Dataset):
            if name.lstrip("/") in apart:
                add(repr(item.dtype).encode(), repr(item.shape).encode())
            else:
                add(*_pieces(item[()]))
    return found.hexdigest()


def seal(file: h5py.File, apart: Collection[str] = ()) -> None:
    """Store the digest of a file that is complete."""
    file.attrs[DIGEST] = np.bytes_(content_digest(file, apart))


def check_seal(file: h5py.File, apart: Collection[str] = ()) -> None:
    """Compare the content of a file with its digest.

    Raises:
        FileFormatError: another digest, or none.
    """
    stored = file.attrs.get(DIGEST)
    if stored is None:
        raise FileFormatError(f"{file.filename} is damaged or incomplete: it has no attribute {DIGEST!r}")
    if stored != content_digest(file, apart).encode():
        raise FileFormatError(
            f"{file.filename} is damaged, or was changed by another program: its content does not have the digest "
            "that is stored in it"
        )


class BlockDigests:
    """Digests of the rows of a dataset, in blocks, while these are written.

    Args:
        rows: rows of a block.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._done: list[bytes] = []
        self._block, self._filled = hashlib.sha256(), 0

    def add(self, array: np.ndarray) -> None:
        """Take in the next rows."""
        while len(array):
            now = array[: self._rows - self._filled]
            self._block.update(np.ascontiguousarray(now).view(np.uint8).data)
            self._filled += len(now)
            array = array[len(now) :]
            if self._filled == self._rows:
                self._done.append(self._block.digest())
                self._block, self._filled = hashlib.sha256(), 0

    def create(self, group: h5py.Group, name: str) -> None:
        """Make the dataset that they are stored in."""
        group.create_dataset(
            name, (0, 32), np.uint8, maxshape=(None, 32), chunks=(256, 32), compression="gzip", fletcher32=True
        ).attrs[_ROWS] = self._rows

    def store(self, dataset: h5py.Dataset) -> None:
        """Write them."""
        digests = self._done + ([self._block.digest()] if self._filled else [])
        dataset.resize(len(digests), axis=0)
        dataset[...] = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)

    @classmethod
    def resume(cls, checked: CheckedRows) -> BlockDigests:
        """Those of a dataset that is there, to go on behind its last row."""
        found = cls(checked.rows)
        whole, rest = divmod(len(checked), checked.rows)
        found._done = checked.digests[:whole]
        if rest:
            found.add(checked[len(checked) - rest :])
        return found


class CheckedRows:
    """The rows of a dataset that has digests of blocks; every row that is given out was compared with them.

    Raises:
        FileFormatError: other rows than those that were written, naming the file and the rows.
    """

    def __init__(self, dataset: h5py.Dataset, stored: h5py.Dataset) -> None:
        self.dataset, self.rows = dataset, int(stored.attrs[_ROWS])
        self.digests = [row.tobytes() for row in stored[()]]
        self._last: tuple[int, Any] = (-1, None)
        if self.rows < 1 or len(self.digests) != -(-len(dataset) // self.rows):
            raise FileFormatError(
                f"{dataset.file.filename} is damaged or incomplete: {stored.name} does not go with {dataset.name}"
            )

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, rows: slice) -> np.ndarray:
        first, last, _ = rows.indices(len(self))
        blocks = range(first // self.rows, -(-last // self.rows))
        parts = [self._block(i)[max(first - i * self.rows, 0) : last - i * self.rows] for i in blocks]
        return np.concatenate(parts) if parts else self.dataset[first:last]

    def _block(self, i: int) -> np.ndarray:
        """Block number ``i``; the last one is kept, as the next part may begin in it."""
        if self._last[0] != i:
            first = i * self.rows
            block = self.dataset[first : first + self.rows]
            if hashlib.sha256(np.ascontiguousarray(block).view(np.uint8).data).digest() != self.digests[i]:
                raise FileFormatError(
                    f"{self.dataset.file.filename} is damaged: rows {first} to {first + len(block) - 1} of "
                    f"{self.dataset.name} are not those that were written"
                )
            self._last = i, block
        return self._last[1]


def _pieces(value: Any) -> tuple[bytes, bytes, bytes]:
    """Type, shape and numbers of the value of an attribute or dataset."""
    if isinstance(value, str):
        return b"text", b"", value.encode()
    array = np.asarray(value)
    if array.dtype.hasobject:
        raise TypeError(f"{array.dtype} is no type of number")
    return repr(array.dtype).encode(), repr(array.shape).encode(), array.tobytes()
