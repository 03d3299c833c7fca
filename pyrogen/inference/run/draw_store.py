"""Storage of weight draws while a sampler runs: in memory, and from time to time in an HDF5 file."""

from __future__ import annotations

import hashlib
import os
import tempfile
import weakref
import zlib
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from pyrogen.files import FileFormatError, naming_failed_write
from pyrogen.hdf5 import Kind, open_hdf5, text_of, write_empty_hdf5

KIND = Kind("draws", version=2, sealed=2, apart=("draws",))  # whose digests stand in the checkpoint
IN_MEMORY = 2**30
"""Draws of more bytes lie in a scratch file without a name, which the system takes into memory as far as it likes."""

Block = tuple[int, int, str | int]


class DrawStore:
    """Room for draws ``[chains, draws, P]``, of which the first ``kept`` of every chain are filled.

    With a path, :meth:`flush` writes the draws to an HDF5 file whose structure is complete from the beginning: the
    dataset is contiguous and allocated at once, so a process killed in the middle of a write leaves a whole file. How
    many of its draws count, and their digests, stand in the run's checkpoint (:attr:`checksums`). The draws of the run
    never are the file itself: whatever others do to it, they stay what they were.

    Args:
        shape: ``(chains, draws, P)``.
        dtype: type of the draws.
        path: the HDF5 file, or None for memory.
        run: digest of the run's identity; a file of another run is refused.
        checksums: ``[(first, last, SHA-256), ...]`` of the blocks that count, where the run goes on from a checkpoint
            (a CRC-32 in those of version 1 and 2); None where it begins.

    Raises:
        FileFormatError: the file is missing, foreign, of another run, or a block fails its checksum.
        OSError: the file cannot be written.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        dtype: torch.dtype,
        path: Path | None = None,
        run: str = "",
        checksums: list[Block] | None = None,
    ) -> None:
        self.path = path
        self.checksums: list[Block] = [(first, last, value) for first, last, value in checksums or []]
        ends = [0, *(last for _, last, _ in self.checksums)]
        if [first for first, _, _ in self.checksums] != ends[:-1]:
            raise FileFormatError(f"the checkpoint of {path} has no whole list of the draws that count")
        self._flushed = self.kept = ends[-1]
        numbers = np.dtype(str(dtype).removeprefix("torch."))
        if path is None:
            self.draws = torch.zeros(shape, dtype=dtype)
            return
        if checksums is None:
            if path.exists():
                self._check_own(path, run)
            self._create(path, shape, numbers, run)
        with open_hdf5(path, KIND) as file:
            dataset = file["draws"]
            found = (dataset.shape, dataset.dtype, text_of(file, "run"))
            if found != (shape, numbers, run):
                raise FileFormatError(
                    f"{path} holds draws {found[0]} of another run; this one needs {shape}. "
                    "Give another checkpoint file"
                )
            self._offset = dataset.id.get_offset()
        self.draws = torch.from_numpy(_room(shape, numbers, path))
        self._file = open(path, "r+b", buffering=0)  # noqa: SIM115 (open as long as the store lives)
        weakref.finalize(self, self._file.close)
        for first, last, checksum in self.checksums:
            for at, piece in self._pieces(first, last):
                self._file.seek(at)
                rest = piece
                while size := self._file.readinto(rest):
                    rest = rest[size:]
            if self._checksum(first, last, crc=isinstance(checksum, int)) != checksum:
                raise FileFormatError(
                    f"{path} is damaged: draws {first} to {last - 1} do not have the checksum on record in the "
                    "checkpoint. Delete both files to start afresh"
                )

    @staticmethod
    def _check_own(path: Path, run: str) -> None:
        """A run that begins replaces draws of its own that were not yet in a checkpoint, but nothing else."""
        try:
            with open_hdf5(path, KIND) as file:
                own = text_of(file, "run") == run
        except FileFormatError:
            own = False
        if not own:
            raise FileFormatError(
                f"{path} exists, but its checkpoint does not, and it does not hold draws of this run; move it away, or "
                "give another checkpoint file"
            )

    @staticmethod
    def _create(path: Path, shape: tuple[int, int, int], numbers: np.dtype, run: str) -> None:
        def fill(file: h5py.File) -> None:
            file.attrs["run"] = np.bytes_(run)
            plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plan.set_layout(h5py.h5d.CONTIGUOUS)
            plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            kind = h5py.h5t.py_create(numbers, logical=True)
            h5py.h5d.create(file.id, b"draws", kind, h5py.h5s.create_simple(shape), plan)

        write_empty_hdf5(path, KIND, fill, room=int(np.prod(shape)) * numbers.itemsize)

    def append(self, theta: Tensor) -> None:
        """Keep ``theta [chains, P]`` as the next draw of every chain."""
        self.draws[:, self.kept] = theta.to(self.draws)
        self.kept += 1

    def flush(self) -> None:
        """Bring all draws to the disk; what was flushed survives the process.

        Raises:
            FileFormatError: somebody else changed the file meanwhile; the draws in memory are as they were.
            OSError: the disk is full or read-only.
        """
        if self.path is None or self.kept == self._flushed:
            return
        self._check_there()
        with naming_failed_write(self.path):
            for at, piece in self._pieces(self._flushed, self.kept):
                self._file.seek(at)
                rest = piece
                while len(rest):
                    rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        self.checksums.append((self._flushed, self.kept, self._checksum(self._flushed, self.kept)))
        self._flushed = self.kept

    def _check_there(self) -> None:
        own = os.fstat(self._file.fileno())
        whole = own.st_size >= self._offset + self.draws.numel() * self.draws.element_size()
        if not (whole and self.path is not None and self.path.exists() and os.path.samestat(own, self.path.stat())):
            raise FileFormatError(
                f"{self.path} was removed, replaced or cut short by somebody else, and no draws can be added to it. "
                "Delete it and its checkpoint to start afresh"
            )

    def _pieces(self, first: int, last: int) -> Iterator[tuple[int, memoryview]]:
        """Where the draws from ``first`` to ``last - 1`` lie in the file, and their bytes in memory."""
        flat = self.draws.flatten(0, 1).numpy()
        for start, stop in self._rows(first, last):
            rows = flat[start:stop]
            yield self._offset + start * flat[0].nbytes, rows.reshape(-1).view(np.uint8).data

    def _rows(self, first: int, last: int) -> list[tuple[int, int]]:
        """The draws from ``first`` to ``last - 1`` of every chain, counted through chain after chain."""
        length = self.draws.shape[1]
        return [(c * length + first, c * length + last) for c in range(len(self.draws))]

    def _checksum(self, first: int, last: int, crc: bool = False) -> str | int:
        value, digest = 0, hashlib.sha256()
        for _, piece in self._pieces(first, last):
            value = zlib.crc32(piece, value) if crc else 0
            digest.update(piece)
        return value if crc else digest.hexdigest()


class ChainStore(DrawStore):
    """The same file for chains that run one after another: ``kept`` and the blocks count through chain after chain."""

    def append(self, theta: Tensor) -> None:
        """Keep ``theta [P]`` as the next draw of the chain that is being filled."""
        self.draws[divmod(self.kept, self.draws.shape[1])] = theta.to(self.draws)
        self.kept += 1

    def _rows(self, first: int, last: int) -> list[tuple[int, int]]:
        return [(first, last)]


def _room(shape: tuple[int, int, int], numbers: np.dtype, path: Path) -> np.ndarray:
    """Room for draws that nobody else has access to."""
    size = int(np.prod(shape)) * numbers.itemsize
    if size <= IN_MEMORY:
        return np.zeros(shape, numbers)
    with naming_failed_write(path), tempfile.TemporaryFile(dir=path.parent) as scratch:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(scratch.fileno(), 0, size)  # a mapped file on a full disk would kill the process
        else:
            scratch.truncate(size)
        return np.memmap(scratch, numbers, "r+", 0, shape)
