"""Writing files so that nothing is lost: to a temporary name beside the target, flushed to the disk and renamed.

At every moment the path holds either the old file or the whole new one.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

_COUNTER = itertools.count()


class FileFormatError(ValueError):
    """A file is truncated, foreign, of another kind, or newer than this pyrogen can read."""


def check_writable(path: str | os.PathLike[str]) -> Path:
    """Check *before* long work that a file can be written at ``path``.

    Returns:
        The path.

    Raises:
        OSError: the folder does not exist or does not accept new files.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give the name of a file in it, such as {path / 'run.h5'}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: the folder {path.parent} does not exist; create it first")
    _remove_leftovers(path)
    probe = _temporary_name(path)
    try:
        probe.touch()
    except OSError as error:
        raise OSError(error.errno, f"cannot write {path}: {os.strerror(error.errno or 0)}") from error
    finally:
        probe.unlink(missing_ok=True)
    return path


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Replace the file at ``path`` by ``content``, or leave it as it was.

    Raises:
        OSError: the disk is full or read-only, or the folder is missing; the old file, if any, is untouched.
    """
    with replacing(path) as temporary, naming_failed_write(path):
        temporary.write_bytes(content)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary name beside ``path``; what was written there replaces the file when the block ends well.

    The new file is flushed to the disk before it takes the place of the old one. After an exception it is removed and
    the old file, if any, stays as it was; so it does when the process is killed.

    Raises:
        OSError: the disk is full or read-only; the old file is untouched.
    """
    path = Path(path)
    # Numbered: two writers of one process may be at work on the same path.
    temporary = path.with_name(f".{path.name}.{next(_COUNTER)}.{os.getpid()}.tmp")
    try:
        yield temporary
        with naming_failed_write(path):
            with open(temporary, "rb+") as stream:
                os.fsync(stream.fileno())
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    # The rename itself survives a power cut only once the folder is flushed (not possible on every system).
    with contextlib.suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextlib.contextmanager
def naming_failed_write(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn an error of the disk into one that names the file and says that an old one is unchanged."""
    try:
        yield
    except OSError as error:
        kept = "the file that was there is unchanged" if Path(path).exists() else "nothing was written"
        if error.errno is None:
            raise OSError(f"cannot write {path}: {error}; {kept}") from error
        raise OSError(error.errno, f"cannot write {path}: {os.strerror(error.errno)}; {kept}") from error


def _remove_leftovers(path: Path) -> None:
    """Remove temporary files that killed processes left beside ``path``."""
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        process = leftover.name.split(".")[-2]
        if process.isdigit() and not _is_running(int(process)):
            with contextlib.suppress(OSError):
                leftover.unlink()


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _temporary_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")
