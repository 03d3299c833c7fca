"""Locks between processes, on files beside a path: who writes it, and which run it belongs to.

A lock is the system's own (``flock``): it ends with its process, also with one that is killed, and counts for every
process that sees the folder, in another container or on another machine too. Where the system or the disk has no such
locks (Windows, some network disks) these functions do nothing: there, keep two processes away from one path.
"""

from __future__ import annotations

import contextlib
import os
import platform
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from .warn import warn

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PATIENCE = 60.0  # seconds that a writer waits for another one
_PAUSE = 0.02  # seconds between two tries
_QUIET = 2.0  # seconds of waiting before it says so
_BRIEF = 0.5  # seconds in which a lock may look taken because its file is being removed

_held: list[tuple[Path, int]] = []  # locks of this process, with the thread that holds them


class PathInUseError(OSError):
    """Another process, or another thread of this one, works on the same file; the text names it."""


@contextlib.contextmanager
def writing(path: Path, *, alone: bool = False) -> Iterator[None]:
    """A block that writes temporary files of ``path``, which nobody removes meanwhile.

    Args:
        path: the file, with all links resolved.
        alone: no other block writes the file at the same time: what it holds may be read, and written again with more.

    Raises:
        PathInUseError: other writers were still there after a minute.
    """
    with _locked(path.with_name(f".{path.name}.lock"), f"write {path}", shared=not alone, patience=PATIENCE):
        yield


@contextlib.contextmanager
def running(path: Path, what: str) -> Iterator[None]:
    """A block that is the only run of its kind with the file ``path``.

    Args:
        path: the file, with all links resolved.
        what: what the run does, for the error.

    Raises:
        PathInUseError: there is another one.
    """
    with _locked(path.with_name(f".{path.name}.run.lock"), f"{what} {path}", shared=False, patience=_BRIEF):
        yield


@contextlib.contextmanager
def unless_written(path: Path) -> Iterator[bool]:
    """A block that knows whether nobody writes ``path``; until its end nobody begins to."""
    lock = path.with_name(f".{path.name}.lock")
    try:
        descriptor = _try(lock, shared=False)
    except (OSError, _NoLocksError):  # nobody knows
        descriptor = None
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            _release(descriptor, lock)


@contextlib.contextmanager
def _locked(lock: Path, what: str, *, shared: bool, patience: float) -> Iterator[None]:
    try:
        descriptor = _wait(lock, what, shared, patience)
    except _NoLocksError:
        yield
        return
    process, mine = os.getpid(), (lock, threading.get_ident())
    _held.append(mine)
    try:
        if not shared:
            _sign(descriptor)
        yield
    finally:
        _held.remove(mine)
        if os.getpid() == process:
            _release(descriptor, lock)
        else:  # a child of the process: the lock is its parent's
            os.close(descriptor)


class _NoLocksError(Exception):
    """The system or the disk has no locks."""


def _wait(lock: Path, what: str, shared: bool, patience: float) -> int:
    """Take a lock; returns its descriptor."""
    start, told = time.monotonic(), False
    while (descriptor := _try(lock, shared)) is None:
        waited = time.monotonic() - start
        if (lock, threading.get_ident()) in _held:
            raise PathInUseError(
                f"cannot {what}: this thread is still doing so in an outer block; end that block first"
            )
        if waited > patience:
            raise PathInUseError(
                f"cannot {what}: {_holder(lock)} is doing so. Wait until it ends, or stop it, and try again; or give "
                "another path"
            )
        if waited > _QUIET and not told:
            warn(f"waiting to {what}, until {_holder(lock)} is done")
            told = True
        time.sleep(_PAUSE)
    return descriptor


def _try(lock: Path, shared: bool) -> int | None:
    """The descriptor of a lock, None where others hold it."""
    if fcntl is None:
        raise _NoLocksError
    while True:
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        except PermissionError:
            if not lock.exists():
                raise
            descriptor = os.open(lock, os.O_RDONLY)  # that of another user
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:
            os.close(descriptor)
            lock.unlink(missing_ok=True)
            raise _NoLocksError from error
        if _is_at(descriptor, lock):
            return descriptor
        os.close(descriptor)  # its holder removed it meanwhile; others would lock the new one


def _release(descriptor: int, lock: Path) -> None:
    """Give a lock up; the last of its holders removes its file."""
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(descriptor, lock):
            lock.unlink()
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing is not enough where a child has a copy of the descriptor
    os.close(descriptor)


def _is_at(descriptor: int, lock: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(lock))
    except FileNotFoundError:
        return False


def _sign(descriptor: int) -> None:
    """Leave word of who holds a lock."""
    with contextlib.suppress(OSError):
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {platform.node()}".encode(), 0)


def _holder(lock: Path) -> str:
    try:
        return lock.read_text() or "another writer"
    except OSError:
        return "another writer"
