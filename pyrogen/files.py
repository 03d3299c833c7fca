"""Reading and writing pyrogen's HDF5 files so that nothing is lost and nothing foreign gets in.

A file is written to a temporary name beside its target, flushed to the disk and renamed: at every moment the path
holds either the old file or the whole new one. All but samples of events, which may be large, are built in memory.
Every file carries its kind, its format version and the versions of the packages that wrote it; all content is numbers
and JSON, so reading one never runs code.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import platform
import re
import secrets
import shutil
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .locks import PathInUseError, unless_written, writing


class FileFormatError(ValueError):
    """A file is truncated, foreign, of another kind, or newer than this pyrogen can read."""


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the numbers in a file."""
    versions = {"python": platform.python_version()}
    for name in ("pyrogen", "torch", "pyro-ppl", "numpy", "h5py"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


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


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
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


def write_hdf5(path: str | os.PathLike[str], kind: str, version: int, fill: Callable[[h5py.File], None]) -> None:
    """Write an HDF5 file of pyrogen in one piece.

    Args:
        path: the file; its folder must exist.
        kind: what the file holds, such as ``"posterior"``; checked on reading.
        version: format version of this kind.
        fill: called with the open file (in memory) to write groups, datasets and attributes.

    Raises:
        OSError: see :func:`write_bytes`.
    """
    # The HDF5 1.10 layout and fixed-length strings keep checksums on metadata too: a flipped bit is then an error,
    # where older layouts read wrong numbers now and then.
    with h5py.File("in-memory", "w", driver="core", backing_store=False, libver=("v110", "v110")) as file:
        _label(file, kind, version)
        fill(file)
        file.flush()
        image = file.id.get_file_image()
    write_bytes(path, image)


@contextlib.contextmanager
def growing_hdf5(
    temporary: Path, kind: str | None = None, version: int = 1
) -> Iterator[tuple[h5py.File, Callable[[], None]]]:
    """Open an HDF5 file that grows on the disk, however large it gets; to be used within :func:`replacing`.

    Args:
        temporary: the file; new, or with no ``kind`` a copy of a file of pyrogen that is added to.
        kind: what a new file holds.
        version: format version of this kind.

    Yields:
        The file, and a function that raises what went wrong inside of HDF5, if anything did; also raised at the end.
    """
    with open(temporary, "r+b" if kind is None else "w+b", buffering=0) as raw:
        disk = _Disk(raw)
        try:
            with h5py.File(disk, "r+" if kind is None else "w", libver=("v110", "v110")) as file:
                if kind is not None:
                    _label(file, kind, version)
                yield file, disk.check
        finally:
            disk.check()


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """A block in which signals wait, to be handled at its end.

    HDF5 calls :class:`_Disk` and drops what is raised in there. The KeyboardInterrupt of a Ctrl-C, or whatever else the
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


class _Disk(io.RawIOBase):
    """A file that remembers what went wrong with it, and takes no more from then on.

    HDF5 drops exceptions that are raised in here, and crashes the process where a write fails. So every call ends well,
    and :meth:`check` raises the first exception outside of HDF5: of a full disk, of a lack of memory, of anything.
    """

    def __init__(self, raw: io.FileIO) -> None:
        self._raw = raw
        self._error: BaseException | None = None

    def check(self) -> None:
        if self._error is not None:
            raise self._error

    def write(self, content: Any) -> int:
        size = len(content)
        try:
            rest = memoryview(content).cast("B")
            size = len(rest)
            while len(rest) and self._error is None:
                rest = rest[self._raw.write(rest) :]
        except BaseException as error:  # noqa: B036 (raised by check)
            self._error = self._error or error
        return size

    def truncate(self, size: int | None = None) -> int:
        try:
            return self._raw.truncate(size)
        except BaseException as error:  # noqa: B036 (raised by check)
            self._error = self._error or error
            return size or 0

    def readinto(self, buffer: Any) -> int:
        try:
            return self._raw.readinto(buffer)
        except BaseException as error:  # noqa: B036 (raised by check)
            self._error = self._error or error
            return 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self._raw.seek(offset, whence)
        except BaseException as error:  # noqa: B036 (raised by check)
            self._error = self._error or error
            return offset

    def tell(self) -> int:
        return self._raw.tell()


def write_empty_hdf5(
    path: str | os.PathLike[str], kind: str, version: int, fill: Callable[[h5py.File], None], room: int
) -> None:
    """Create an HDF5 file of pyrogen with room for arrays that are filled in later, in place.

    Args:
        path: the file; an old one is replaced.
        kind: what the file holds.
        version: format version of this kind.
        fill: called with the open file to create its (empty) datasets.
        room: bytes that the arrays will take.

    Raises:
        OSError: the disk has not that much room, or is read-only; an old file is untouched.
    """
    path = Path(path)
    free = shutil.disk_usage(path.parent).free
    if room > free:
        raise OSError(
            errno.ENOSPC, f"cannot write {path}: it needs {room / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free"
        )
    with replacing(path) as temporary:
        with h5py.File(temporary, "w", libver=("v110", "v110")) as file:
            _label(file, kind, version)
            fill(file)
        # Reserved now: a mapped file that runs into a full disk later kills its process.
        if hasattr(os, "posix_fallocate"):
            with open(temporary, "rb+") as stream:
                os.posix_fallocate(stream.fileno(), 0, max(temporary.stat().st_size, room))


@contextlib.contextmanager
def open_hdf5(path: str | os.PathLike[str], kind: str, newest_version: int) -> Iterator[h5py.File]:
    """Open an HDF5 file of pyrogen for reading, after checking that it is one.

    Args:
        path: the file.
        kind: what the file has to hold.
        newest_version: the newest format version that the caller understands.

    Raises:
        FileNotFoundError: no such file.
        FileFormatError: not HDF5, truncated or damaged, foreign, of another kind, or of a newer version.
    """
    path = Path(path)
    with open_any_hdf5(path) as file, damage_named(path):
        found = kind_of(file)
        if found is None:
            raise FileFormatError(f"{path} is an HDF5 file, but not one of pyrogen's; expected a pyrogen {kind} file")
        if found != kind:
            raise FileFormatError(f"{path} is a pyrogen {found} file; expected a pyrogen {kind} file")
        version = int(file.attrs.get("pyrogen_format_version", 0))
        if not 1 <= version <= newest_version:
            raise FileFormatError(
                f"{path} has {kind} format version {version}; this pyrogen reads versions 1 to {newest_version}: "
                "update pyrogen to read it"
            )
        yield file


def _label(file: h5py.File, kind: str, version: int) -> None:
    """What every file of pyrogen says of itself."""
    file.attrs["pyrogen_kind"] = np.bytes_(kind)
    file.attrs["pyrogen_format_version"] = version
    write_json(file, "package_versions", package_versions())


def kind_of(file: h5py.File) -> str | None:
    """What kind of pyrogen file this is; None for a foreign one."""
    found = file.attrs.get("pyrogen_kind")
    return found.decode() if isinstance(found, bytes) else found


@contextlib.contextmanager
def damage_named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what h5py says of a damaged file that could still be opened into an error naming the file."""
    try:
        yield
    except (KeyError, OSError, RuntimeError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{path} is damaged or incomplete: {error}") from error


@contextlib.contextmanager
def open_any_hdf5(path: str | os.PathLike[str]) -> Iterator[h5py.File]:
    """Open any HDF5 file for reading, with an error that says what is wrong where it is none."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; expected an HDF5 file")
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    if path.stat().st_size == 0:
        raise FileFormatError(f"{path} is empty; expected an HDF5 file")
    try:
        file = h5py.File(path, "r")
    except PermissionError:
        raise
    except OSError as error:
        raise FileFormatError(
            f"{path} is not a whole HDF5 file (truncated, damaged or another format): {error}"
        ) from error
    with file:
        yield file


def write_array(group: h5py.Group, name: str, values: Any) -> None:
    """Store an array; with a checksum on every chunk, so that a damaged file is noticed on reading."""
    array = np.asarray(values)
    if array.size and array.ndim:
        group.create_dataset(name, data=array, chunks=True, fletcher32=True)
    else:
        group.create_dataset(name, data=array)


def write_json(group: h5py.Group, name: str, value: Any) -> None:
    """Store a plain structure (dicts, lists, strings, numbers) as JSON in UTF-8 bytes, with a checksum."""
    write_array(group, name, np.frombuffer(json.dumps(value, sort_keys=True).encode(), np.uint8))


def read_json(group: h5py.Group, name: str) -> Any:
    """Read what :func:`write_json` stored."""
    return json.loads(group[name][()].tobytes())


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
        raise OSError(errno.EINVAL, f"cannot write {target}: it is a device or pipe, and no ordinary file")
    if there and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, f"cannot write {target}: the file is read-only; it is unchanged")


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
