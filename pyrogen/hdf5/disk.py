"""HDF5 files that grow on the disk: whatever goes wrong inside of HDF5 is raised outside of it."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """A block in which signals wait, to be handled at its end.

    HDF5 calls :class:`Disk` and drops what is raised in there. The KeyboardInterrupt of a Ctrl-C, or whatever else the
    handler of a signal raises, would be lost, and the file would go on with a piece missing.
    """
    if threading.current_thread() is not threading.main_thread():  # signals are handled in the main thread alone
        yield
        return
    waiting: list[tuple[int, Any]] = []
    every = [which for which in signal.valid_signals() if isinstance(which, signal.Signals)]
    handlers = {which: handler for which in every if callable(handler := signal.getsignal(which))}

    def wait(number: int, frame: Any) -> None:
        waiting.append((number, frame))

    try:
        for which in handlers:
            signal.signal(which, wait)
        yield
    finally:
        for which, handler in handlers.items():
            signal.signal(which, handler)
        for number, frame in waiting:
            handlers[signal.Signals(number)](number, frame)


class Disk(io.RawIOBase):
    """A file that remembers what went wrong with it, and takes no more from then on.

    HDF5 drops exceptions that are raised in here, and crashes the process where a write fails. So every call ends well,
    and :meth:`check` raises the first exception outside of HDF5: of a full disk, of a lack of memory, of anything.
    """

    def __init__(self, raw: io.FileIO | io.BytesIO) -> None:
        self._raw = raw
        self._error: BaseException | None = None

    def check(self) -> None:
        if self._error is not None:
            raise self._error

    def _keep(self, error: BaseException) -> None:
        # Without its traceback, whose frames would keep objects of h5py alive beyond Python's end, where they crash it.
        self._error = self._error or error.with_traceback(None)

    def write(self, content: Any) -> int:
        size = len(content)
        try:
            rest = memoryview(content).cast("B")
            size = len(rest)
            while len(rest) and self._error is None:
                rest = rest[self._raw.write(rest) :]
        except BaseException as error:  # noqa: B036 (raised by check)
            self._keep(error)
        return size

    def truncate(self, size: int | None = None) -> int:
        try:
            return self._raw.truncate(size)
        except BaseException as error:  # noqa: B036 (raised by check)
            self._keep(error)
            return size or 0

    def readinto(self, buffer: Any) -> int:
        try:
            return self._raw.readinto(buffer)
        except BaseException as error:  # noqa: B036 (raised by check)
            self._keep(error)
            return 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self._raw.seek(offset, whence)
        except BaseException as error:  # noqa: B036 (raised by check)
            self._keep(error)
            return offset

    def tell(self) -> int:
        return self._raw.tell()
