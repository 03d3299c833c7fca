"""The folder in which the finished parts of a generated file wait until the file is whole."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..files import FileFormatError, write_bytes
from ..locks import running
from .manifest import sha256_of
from .reading import read, stream
from .sample import EventSample


class PartsFolder:
    """The folder ``<path>.parts``, with the label ``job.json`` that says which run it belongs to.

    The label is there before the first part and until the last one is gone, so that a run can be killed at any moment.

    Args:
        target: the file to be.
        job: what makes the run this run, in JSON types.
        kept: whether the folder stays, as its parts are the result.
    """

    def __init__(self, target: Path, job: dict[str, Any], *, kept: bool = False) -> None:
        self.kept = kept
        self._target, self._job = target, json.loads(json.dumps(job))
        self._folder = target.with_name(f"{target.name}.parts")
        self._label = self._folder / "job.json"

    @contextlib.contextmanager
    def filling(self, what: str, share: tuple[int, int] | None = None) -> Iterator[bool]:
        """A block that makes the missing parts and puts them together in the file; afterwards the folder is gone.

        Args:
            what: what the run does with the file, for the error.
            share: ``(i, S)`` of a run that makes the parts of share i of S and leaves them in the folder: runs of
                different shares may go on at the same time.

        Yields:
            Whether there is anything to do: not if a kill came after the file was whole.

        Raises:
            ValueError: as :meth:`open`.
            PathInUseError: another run makes the file.
        """
        if share is not None:
            i, shares = share
            with running(self._target.with_name(f"{self._target.name}.{i}-of-{shares}"), what):
                self.open()
                yield True
            return
        with running(self._target, what):
            needed = self.kept or not self.is_finished()
            if needed:
                self.open()
            yield needed
            if needed:
                self.finish()
            self.remove()

    def part(self, i: int) -> Path:
        """The file of the part number ``i``."""
        return self._folder / f"{i:06d}.h5"

    @property
    def path(self) -> Path:
        """The folder."""
        return self._folder

    @property
    def posterior(self) -> Path:
        """The file in which the posterior goes to workers."""
        return self._folder / "posterior.hdf5"

    def missing(self, parts: Iterable[int], known: Mapping[str, str] | None = None) -> list[int]:
        """Those of the parts that are to be made: they are not there, or their checksums are wrong.

        Args:
            parts: their numbers.
            known: the SHA-256 of files of parts, by name, where an earlier call listed them.
        """
        return [i for i in parts if not self._is_whole(i) or not self._is_known(i, known or {})]

    def _is_known(self, i: int, known: Mapping[str, str]) -> bool:
        path = self.part(i)
        return path.name not in known or sha256_of(path) == known[path.name]

    def _is_whole(self, i: int) -> bool:
        try:
            return self.part(i).exists() and sum(map(len, stream(self.part(i)))) > 0
        except FileFormatError:
            return False

    def read(self, i: int) -> EventSample:
        """The events of the part number ``i``.

        Raises:
            FileFormatError: it is damaged.
        """
        try:
            return read(self.part(i))
        except FileFormatError as error:
            raise FileFormatError(
                f"{error}; delete {self.part(i)} and repeat the call, which makes it again"
            ) from error

    def open(self) -> None:
        """Make the folder, or check that the one there belongs to this run.

        Raises:
            ValueError: it has parts of another run, or nothing that says of which.
        """
        if self._folder.exists():
            self._check()
        self._folder.mkdir(exist_ok=True)
        write_bytes(self._label, json.dumps(self._job).encode())

    def finish(self) -> None:
        """Note that the file is whole, before the parts go."""
        write_bytes(self._label, json.dumps(self._job | {"file": _state(self._target)}).encode())

    def is_finished(self) -> bool:
        """Whether the file that is there is the whole one of this run."""
        try:
            return self._told() == self._job | {"file": _state(self._target)}
        except (OSError, ValueError):
            return False

    def remove(self) -> None:
        """Remove the folder, its label last; of parts that are kept, what else is in it."""
        for path in self._folder.iterdir():
            if path != self._label and not (self.kept and path.suffix == ".h5"):
                path.unlink()
        if self.kept:
            return
        self._label.unlink()
        self._folder.rmdir()

    def _told(self) -> Any:
        return json.loads(self._label.read_bytes())

    def _check(self) -> None:
        if not any(path.suffix == ".h5" for path in self._folder.iterdir()):
            return  # killed before its first part
        try:
            found = self._told()
            different = [key for key in self._job if found.get(key) != self._job[key]]
        except (OSError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{self._folder} holds parts of a run, but {self._label.name} in it, which says of which run, is "
                "missing or damaged; delete the folder to generate all parts anew"
            ) from error
        if "version" in different:
            raise ValueError(
                f"{self._folder} holds parts that another version of pyrogen made; finish the run with that version, "
                "or delete the folder to begin anew"
            )
        if different:
            raise ValueError(
                f"{self._folder} holds the parts of another run, with other {', '.join(different)}; finish that run "
                "with its own arguments, or delete the folder"
            )


def _state(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]
