"""HDF5 files of pyrogen: what each says of itself, how it is written, and what is checked when it is opened.

Every file carries its kind, its format version and the versions of the packages that wrote it; all content is numbers
and JSON, so reading one never runs code. All but samples of events, which may be large, are built in memory.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..files import FileFormatError, naming_failed_write, replacing, write_bytes
from .digests import DIGEST, check_seal, seal
from .disk import Disk
from .structure import check_structure

_LAYOUT = {"libver": ("v110", "v110")}
"""The HDF5 1.10 layout keeps checksums on metadata: a flipped bit there is an error before anything is read."""


_DAMAGE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    json.JSONDecodeError,
    UnicodeDecodeError,
)
"""What h5py, json and our own reading raise where a file does not hold what it should."""


#: Packages that decide the numbers in a file, and their modules.
PACKAGES = {"pyrogen": "pyrogen", "torch": "torch", "pyro-ppl": "pyro", "numpy": "numpy", "h5py": "h5py"}
#: What reads kinds of files that are easily mixed up.
READERS = {"GAN": "pg.GANSampler.load", "posterior": "pg.load"}


@dataclass(frozen=True)
class Kind:
    """A kind of file of pyrogen's.

    Attributes:
        name: what such a file holds.
        version: the format version that is written, and the newest that is read.
        sealed: the first version whose files have a digest of their content.
        apart: datasets whose numbers this digest does not cover; others have digests of them.
    """

    name: str
    version: int
    sealed: int
    apart: tuple[str, ...] = ()


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the numbers in a file."""
    versions = {"python": platform.python_version()}
    for name, module in PACKAGES.items():
        try:
            # A module knows its build ("2.13.0+cu130"), which its metadata may leave out.
            known = getattr(sys.modules.get(module), "__version__", None)
            versions[name] = str(known or metadata.version(name))
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def write_hdf5(path: str | os.PathLike[str], kind: Kind, fill: Callable[[h5py.File], None]) -> None:
    """Write an HDF5 file of pyrogen in one piece.

    Args:
        path: the file; its folder must exist.
        kind: what the file holds; checked on reading.
        fill: called with the open file (in memory) to write groups, datasets and attributes.

    Raises:
        OSError: see :func:`write_bytes`.
    """
    # Not by HDF5's own files in memory: the images of them that HDF5 1.14 gives have a wrong checksum.
    memory = io.BytesIO()
    with _file_on(Disk(memory), "w") as file:
        _label(file, kind)
        fill(file)
        seal(file, kind.apart)
    write_bytes(path, memory.getbuffer())


@contextlib.contextmanager
def growing_hdf5(temporary: Path, kind: Kind | None = None) -> Iterator[tuple[h5py.File, Callable[[], None]]]:
    """Open an HDF5 file that grows on the disk, however large it gets; to be used within :func:`replacing`.

    Args:
        temporary: the file; new, or with no ``kind`` a copy of a file of pyrogen that is added to.
        kind: what a new file holds.

    The caller seals the file when it is complete.

    Yields:
        The file, and a function that raises what went wrong inside of HDF5, if anything did; also raised at the end.
    """
    with open(temporary, "r+b" if kind is None else "w+b", buffering=0) as raw:
        disk = Disk(raw)
        with _file_on(disk, "r+" if kind is None else "w") as file:
            if kind is not None:
                _label(file, kind)
            yield file, disk.check


@contextlib.contextmanager
def _file_on(disk: Disk, mode: str) -> Iterator[h5py.File]:
    """An HDF5 file on a disk. What goes wrong with the disk is raised, and not what HDF5 makes of it."""
    failed: BaseException | None = None
    try:
        with h5py.File(disk, mode, **_LAYOUT) as file:
            yield file
    except BaseException as error:  # noqa: B036 (raised below)
        failed = error
    try:
        # Not while the error of HDF5 is handled, which would live on as the context of the other one. Its frames hold
        # objects of h5py, and where these outlive Python, the process crashes at its end.
        disk.check()
        if failed is not None:
            raise failed
    finally:
        del failed


def write_empty_hdf5(path: str | os.PathLike[str], kind: Kind, fill: Callable[[h5py.File], None], room: int) -> None:
    """Create an HDF5 file of pyrogen with room for arrays that are filled in later, in place.

    Args:
        path: the file; an old one is replaced.
        kind: what the file holds; its arrays are ``apart``.
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
    with replacing(path) as temporary, naming_failed_write(path):
        try:
            with h5py.File(temporary, "w", **_LAYOUT) as file:
                _label(file, kind)
                fill(file)
                seal(file, kind.apart)
        except RuntimeError as error:  # what h5py makes of an error of the disk
            raise OSError(str(error)) from error
        with open(temporary, "rb+") as stream:
            # Reserved now: that the disk is too small is found before any work is done.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(stream.fileno(), 0, max(temporary.stat().st_size, room))


@contextlib.contextmanager
def open_hdf5(path: str | os.PathLike[str], kind: Kind) -> Iterator[h5py.File]:
    """Open an HDF5 file of pyrogen for reading, after checking that it is one, and that it is as it was written.

    Args:
        path: the file.
        kind: what the file has to hold.

    Raises:
        FileNotFoundError: no such file.
        FileFormatError: not HDF5, truncated or damaged, foreign, of another kind, of a newer version, or with links
            to other files.
    """
    path = Path(path)
    with open_any_hdf5(path) as file, damage_named(path):
        try:
            check_own(file, path, kind)
        except FileFormatError:
            raise
        except ValueError as error:  # which HDF5 raises too now and then
            raise FileFormatError(f"{path} is damaged or incomplete: {error}") from error
        yield file


def check_own(file: h5py.File, path: Path, kind: Kind) -> None:
    """The work of :func:`open_hdf5` for a file that is open."""
    found = kind_of(file)
    if found is None and is_labelled(file):
        raise FileFormatError(f"{path} is damaged or incomplete: it has no attribute 'pyrogen_kind'")
    if found is None:
        raise FileFormatError(f"{path} is an HDF5 file, but not one of pyrogen's; expected a pyrogen {kind.name} file")
    if found != kind.name:
        hint = f": {READERS[found]} reads it" if found in READERS else ""
        raise FileFormatError(f"{path} is a pyrogen {found} file; expected a pyrogen {kind.name} file{hint}")
    version = version_of(file)
    if not 1 <= version <= kind.version:
        raise FileFormatError(
            f"{path} has {kind.name} format version {version}; this pyrogen reads versions 1 to {kind.version}: "
            "update pyrogen to read it"
        )
    check_structure(file)
    if version >= kind.sealed or DIGEST in file.attrs:  # an old version with a digest is a changed file
        check_seal(file, kind.apart)


def _label(file: h5py.File, kind: Kind) -> None:
    """What every file of pyrogen says of itself."""
    file.attrs["pyrogen_kind"] = np.bytes_(kind.name)
    file.attrs["pyrogen_format_version"] = kind.version
    write_json(file, "package_versions", package_versions())


def kind_of(file: h5py.File) -> str | None:
    """What kind of pyrogen file this is; None for a foreign one."""
    return text_of(file, "pyrogen_kind") if "pyrogen_kind" in file.attrs else None


def text_of(file: h5py.File, attribute: str) -> str:
    """An attribute that is a text: of fixed length, or in files of earlier versions of any."""
    found = file.attrs[attribute]
    return found.decode() if isinstance(found, bytes) else str(found)


def is_labelled(file: h5py.File) -> bool:
    """Whether a file says that it is of pyrogen's, be it in part."""
    return any(name.startswith("pyrogen_") for name in file.attrs)


def version_of(file: h5py.File) -> int:
    """The format version of a file of pyrogen's; 0 where it has none."""
    return int(file.attrs.get("pyrogen_format_version", 0))


@contextlib.contextmanager
def damage_named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what h5py says of a damaged file that could still be opened into an error naming the file."""
    try:
        yield
    except _DAMAGE as error:
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
