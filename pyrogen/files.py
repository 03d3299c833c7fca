"""Writing files so that nothing is lost: to a temporary name beside the target, flushed to the disk and renamed.

At every moment the path holds either the old file or the whole new one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from .locks import PathInUseError, unless_written, writing


class FileFormatError(ValueError):
    """A file is truncated, damaged, foreign, of another kind, or newer than this pyrogen reads; the text names it."""


def target_of(path: str | os.PathLike[str]) -> Path:
    """The file that is written for a path: absolute, so that a change of the working folder means nothing to it, and
    behind all links, which stay what they are."""
    return Path(os.path.realpath(path))


def check_writable(path: str | os.PathLike[str]) -> Path:
    """Check *before* long work that a file can be written at ``path``.

    Returns:
        The path.

    Raises:
        OSError: the folder does not exist or does not accept new files, or what is there is no file, or read-only.
    """
    target = target_of(path)
    _check_target(target)
    _remove_leftovers(target)
    probe = _temporary_name(target)
    try:
        probe.touch()
    except OSError as error:
        raise OSError(error.errno, f"cannot write {path}: {os.strerror(error.errno or 0)}") from error
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
    return Path(path)


def write_bytes(path: str | os.PathLike[str], content: bytes | memoryview) -> None:
    """Replace the file at ``path`` by ``content``, or leave it as it was.

    Raises:
        OSError: the disk is full or read-only, or the folder is missing; the old file, if any, is untouched.
    """
    with replacing(path) as temporary, naming_failed_write(path):
        temporary.write_bytes(content)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], *, alone: bool = False) -> Iterator[Path]:
    """Give a temporary name beside ``path``; what was written there replaces the file when the block ends well.

    The new file is flushed to the disk before it takes the place of the old one, and has its mode and, where the system
    allows it, its owner. After an exception it is removed and the old file, if any, stays as it was; so it does when
    the process is killed. A link stays, and the file that it leads to is replaced.

    Args:
        path: the file.
        alone: wait until no other block writes the file, and keep others out: for a file that is added to.

    Raises:
        OSError: the disk is full or read-only, or what is there is no file, or read-only; the old file is untouched.
        PathInUseError: the wait was too long.
    """
    target = target_of(path)
    _check_target(target)
    with contextlib.ExitStack() as stack:
        with naming_failed_write(target):
            stack.enter_context(writing(target, alone=alone))
        temporary = _temporary_name(target)
        try:
            yield temporary
            with naming_failed_write(target):
                _keep_mode(target, temporary)
                with open(temporary, "rb+") as stream:
                    os.fsync(stream.fileno())
                os.replace(temporary, target)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    # The rename itself survives a power cut only once the folder is flushed (not possible on every system).
    with contextlib.suppress(OSError):
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextlib.contextmanager
def naming_failed_write(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn an error of the disk into one that names the file and says that an old one is unchanged."""
    try:
        yield
    except PathInUseError:  # which says it all
        raise
    except OSError as error:
        kept = "the file that was there is unchanged" if Path(path).exists() else "nothing was written"
        if error.errno is None:
            raise OSError(f"cannot write {path}: {error}; {kept}") from error
        raise OSError(error.errno, f"cannot write {path}: {os.strerror(error.errno)}; {kept}") from error


def _check_target(target: Path) -> None:
    """Raise an OSError where no file can be put."""
    try:
        if target.is_dir():
            raise IsADirectoryError(f"{target} is a folder; give the name of a file in it, such as {target / 'run.h5'}")
        if not target.parent.is_dir():
            raise FileNotFoundError(
                f"cannot write {target}: the folder {target.parent} does not exist; create it first"
            )
        there = target.exists()
    except PermissionError as error:
        raise PermissionError(error.errno, f"cannot write {target}: {error.strerror}") from error
    if there and not target.is_file():
        raise OSError(errno.EINVAL, f"cannot write {target}: it is a device or a pipe; give the name of a file")
    if there and not os.access(target, os.W_OK):
        raise PermissionError(
            errno.EACCES,
            f"cannot write {target}: the file is read-only; allow writing (chmod u+w), or give another name",
        )


def _keep_mode(old: Path, new: Path) -> None:
    """Give a new file the owner, the group and the permissions of the old one, if there is one."""
    with contextlib.suppress(FileNotFoundError):
        told, own = old.stat(), new.stat()
        if (told.st_uid, told.st_gid) != (own.st_uid, own.st_gid):
            with contextlib.suppress(PermissionError):  # only some users may
                os.chown(new, told.st_uid, told.st_gid)
        os.chmod(new, stat.S_IMODE(told.st_mode) & 0o777)


def _remove_leftovers(target: Path) -> None:
    """Remove what killed processes left beside ``target``, unless somebody writes it just now."""
    name = re.compile(rf"\.{re.escape(target.name)}\.([0-9a-f]{{16}}\.tmp|lock)")
    leftovers = []
    with contextlib.suppress(PermissionError):  # a folder may be written and yet not be listed
        leftovers = [path for path in target.parent.iterdir() if name.fullmatch(path.name)]
    if not leftovers:
        return
    with unless_written(target) as free:  # which removes the lock at its end
        for leftover in leftovers if free else ():
            if leftover.suffix == ".tmp":
                with contextlib.suppress(OSError):
                    leftover.unlink()


def _temporary_name(target: Path) -> Path:
    """A name that nobody else has, whatever its machine, container, process or thread."""
    return target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
