"""Writing samples of events, whole or part by part; the suffix of a file decides the format."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..checks import BOOLEAN, PATH, door, having
from ..files import check_writable, naming_failed_write, replacing
from ..printing import Shown
from .format import (
    Continuation,
    PartWriter,
    Sample,
    check_can_append,
    check_loss,
    chosen_options,
    format_of,
    suffixes_of,
)

SAMPLE = having("an EventSample", "values", "names", "units")


@door(sample=SAMPLE, path=PATH)
def write(sample: Sample, path: str | os.PathLike[str], **options: Any) -> None:
    """Write events to a file; its format says what it keeps, and refuses what it would lose.

    The file is replaced in one piece: whatever fails, an old one stays as it was.

    Args:
        sample: the events, an :class:`EventSample`.
        path: the file.
        options: those of the format, such as ``layout`` of HDF5; its class (:class:`pyrogen.events.hdf5.Hdf5`)
            describes them. None is an option left out.

    Raises:
        ValueError: a suffix that cannot be written, an option that the format has no use for, or something of the
            sample that the format would lose.
        TypeError: an option that no format has.
        OSError: the file cannot be written.
        ImportError: a package that the format needs is missing.
    """
    path = Path(path).absolute()
    file = format_of(path, "write")
    if file.can("writer"):
        if "append" in options:
            raise TypeError("write() replaces the file; EventWriter(path, append=True) and append() go on behind it")
        with EventWriter(path, **options) as writer:
            writer.write(sample)
        return
    chosen = chosen_options(file, "writing", options)
    check_loss(file, sample)
    check_writable(path)
    with replacing(path) as temporary, naming_failed_write(path):
        file.write(sample, temporary, chosen)


@door(sample=SAMPLE, path=PATH)
def append(sample: Sample, path: str | os.PathLike[str], **options: Any) -> None:
    """Add events to a file, or create it; see :class:`EventWriter` for the formats that can, and for errors."""
    with EventWriter(path, append=True, **options) as writer:
        writer.write(sample)


class EventWriter(Shown):
    """Writes a file of events part by part, however large it gets::

        with pg.events.EventWriter("generated.h5") as writer:
            for part in parts:
                writer.write(part)

    The first sample decides the columns, their units and whether there are weights, uncertainties and log weights; its
    provenance is kept. The file appears under its name when the block is left without an exception; until then, and
    after an exception or a kill, the old file, if any, is there as it was.

    Args:
        path: the file; ``.h5``, ``.root`` or ``.lhe.gz``, say, but not ``.npy``, which has its size at its beginning.
        append: go on behind the events of the file that is there, which HDF5 files can. Its events are copied first,
            so the disk must have room for both files. It may be missing. The block waits for other writers of the
            file, of this and other processes, and keeps them out until its end.
        options: those of the format, as in :func:`write`.

    Raises:
        ValueError: a suffix or option that is not possible.
        TypeError: an option that no format has.
        OSError: the folder does not exist or does not accept new files.
        PathInUseError: others were writing the file for more than a minute (raised at the beginning of the block).
        FileFormatError: an old file to go on with that is not pyrogen's, or damaged.
    """

    @door(path=PATH, append=BOOLEAN)
    def __init__(self, path: str | os.PathLike[str], *, append: bool = False, **options: Any) -> None:
        self.path = Path(path).absolute()  # the working folder may change before the end
        self._format = format_of(self.path, "write")
        if not self._format.can("writer"):
            raise ValueError(
                f"cannot write {path} part by part: {self._format.why_whole}; "
                f"write {', '.join(suffixes_of(['writer']))} instead"
            )
        self._options = chosen_options(self._format, "writing", options)
        if append:
            check_can_append(self._format)
        check_writable(self.path)
        self._append = append
        self._first: Sample | None
        self._old: Continuation | None
        self._seen: tuple[int, int, int] | None
        self._resume()  # for its errors
        self._writer: PartWriter | None = None
        self._temporary: Path | None = None
        self._broken = False
        self._stack = contextlib.ExitStack()

    def __repr__(self) -> str:
        state = "ready" if self._temporary is None else "open"
        return f"EventWriter({self.path.name}, {self._format.label}, {state})"

    def __enter__(self) -> Self:
        self._temporary = self._stack.enter_context(replacing(self.path, alone=self._append))
        self._stack.push(self._close)
        with contextlib.ExitStack() as undo:
            undo.push(self._stack)
            self._resume()  # others may have added events since
            undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @door(sample=SAMPLE)
    def write(self, sample: Sample) -> None:
        """Add events.

        Raises:
            ValueError: they do not fit behind the first, or the format would lose something of theirs.
            OSError: the disk is full or read-only; the old file is untouched.
            RuntimeError: outside of a with block.
        """
        if self._temporary is None:
            raise RuntimeError(f"write events within a block: with EventWriter({self.path.name!r}) as writer: ...")
        if self._first is not None:
            known = "those before" if self._old is None else f"{self.path}"
            self._first.check_like(sample, "the sample to write", known)
        check_loss(self._format, sample)
        self._first = self._first or sample
        try:
            with naming_failed_write(self.path):
                if self._writer is None:
                    self._writer = self._open(self._temporary, self._first)
                self._writer.write(sample)
        except BaseException:
            self._broken = True  # a part of it may be in the file
            raise

    def _resume(self) -> None:
        """Get ready to go on behind the events that are in the file now."""
        self._old = self._first = self._seen = None
        if self._append and self.path.exists():
            self._old = self._format.resume(self._options)
            self._first = self._old.first
            self._seen = _state(self.path)

    def _close(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the temporary file; what is raised here keeps it from taking the place of the old one."""
        temporary, self._temporary = self._temporary, None
        if error is not None or self._broken:
            if self._writer is not None:
                with contextlib.suppress(Exception):  # the first error is the one to tell
                    self._writer.close()
            if error is None:
                raise RuntimeError(f"nothing was written to {self.path}: an error on the way was caught and ignored")
            return
        if self._first is None:
            raise ValueError(f"nothing was written to {self.path}: there was no sample of events to write")
        with naming_failed_write(self.path):
            # Without a sample to append, the file is as before.
            writer = self._writer or self._open(temporary, self._first)  # type: ignore[arg-type]
            writer.close()
        if self._append and _state(self.path) != self._seen:  # by means that know no locks
            raise RuntimeError(f"nothing was appended to {self.path}: somebody else changed it meanwhile; try again")

    def _open(self, temporary: Path, first: Sample) -> PartWriter:
        if self._old is not None:
            return self._old.open(temporary)
        return self._format.writer(temporary, first, self._options)


def _state(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file is replaced or written to; None where there is none."""
    if not path.exists():
        return None
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns
