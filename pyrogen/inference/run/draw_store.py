"""Storage of weight draws while a sampler runs: in memory, or streamed to an HDF5 file."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from pyrogen.files import FileFormatError
from pyrogen.hdf5 import Kind, open_hdf5, write_empty_hdf5

KIND = Kind("draws", version=2, sealed=2, apart=("draws",))  # whose digests stand in the checkpoint


class DrawStore:
    """Room for draws ``[chains, draws, P]``, of which the first ``kept`` of every chain are filled.

    With a path, the draws lie in an HDF5 file whose structure is complete from the beginning: the dataset is
    contiguous, allocated at once and mapped into memory, so that a run holds in memory only what the system likes to,
    and a process killed in the middle of a write leaves a whole file. How many of its draws count, and their
    checksums, stand in the run's checkpoint (:attr:`checksums`).

    Args:
        shape: ``(chains, draws, P)``.
        dtype: type of the draws.
        path: the HDF5 file, or None for memory.
        run: digest of the run's identity; a file of another run is refused.
        checksums: ``[(first, last, crc32), ...]`` of the blocks that count, where the run goes on from a checkpoint;
            None where it begins.

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
        checksums: list[tuple[int, int, int]] | None = None,
    ) -> None:
        self.path = path
        self.checksums = [tuple(block) for block in checksums or []]
        self._flushed = self.kept = self.checksums[-1][1] if self.checksums else 0
        self._map: np.memmap | None = None
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
            found = (dataset.shape, dataset.dtype, file.attrs["run"])
            if found != (shape, numbers, run):
                raise FileFormatError(
                    f"{path} holds draws {found[0]} of another run; this one needs {shape}. "
                    "Give another checkpoint file"
                )
            offset = dataset.id.get_offset()
        self._map = np.memmap(path, numbers, "r+", offset, shape)
        self.draws = torch.from_numpy(self._map)
        for first, last, checksum in self.checksums:
            if self._checksum(first, last) != checksum:
                raise FileFormatError(
                    f"{path} is damaged: draws {first} to {last - 1} do not have the checksum on record in the "
                    "checkpoint. Delete both files to start afresh"
                )

    @staticmethod
    def _check_own(path: Path, run: str) -> None:
        """A run that begins replaces draws of its own that were not yet in a checkpoint, but nothing else."""
        try:
            with open_hdf5(path, KIND) as file:
                own = file.attrs["run"] == run
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
            file.attrs["run"] = run
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
        """Bring all draws to the disk; what was flushed survives the process."""
        if self._map is None:
            return
        if self.kept > self._flushed:
            self.checksums.append((self._flushed, self.kept, self._checksum(self._flushed, self.kept)))
            self._flushed = self.kept
        self._map.flush()
        descriptor = os.open(str(self.path), os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _checksum(self, first: int, last: int) -> int:
        value = 0
        for chain in self.draws:
            value = zlib.crc32(np.ascontiguousarray(chain[first:last].numpy()).data, value)
        return value


class ChainStore(DrawStore):
    """The same file for chains that run one after another: ``kept`` and the blocks count through chain after chain."""

    def append(self, theta: Tensor) -> None:
        """Keep ``theta [P]`` as the next draw of the chain that is being filled."""
        self.draws[divmod(self.kept, self.draws.shape[1])] = theta.to(self.draws)
        self.kept += 1

    def _checksum(self, first: int, last: int) -> int:
        return zlib.crc32(self.draws.flatten(0, 1)[first:last].numpy().data)
