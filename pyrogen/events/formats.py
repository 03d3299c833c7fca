"""Reading and writing samples of events; the suffix decides the format.

======================  ==============================================================================
``.h5``, ``.hdf5``      everything a sample has, without loss (layouts below); or a user's own HDF5 file
``.root``               the same in a tree ``events``; or the flat branches of any TTree or RNTuple
``.lhe``, ``.lhe.gz``   momenta (GeV) and weights of chosen final-state particles
``.npy``                a plain numpy array ``[N, d]``
======================  ==============================================================================

ROOT and LHE need the packages of ``pip install "pyrogen[lhc]"``. Events are numbered from 0, in errors too. No format
is ever unpickled.

Layout ``"columns"`` of pyrogen's own HDF5 file, kind ``"events"``, version 1 (root attributes as in
:mod:`pyrogen.files`); all datasets grow, chunked, with gzip and fletcher32 checksums::

    values          [N, d] float64
    weights         [N] float64, where the sample has weights
    uncertainties   [N] float64, relative, where the sample has them
    log_weights     [N, K] float64, of K posterior draws, where the sample has them
    names           JSON (UTF-8 bytes), a list of d strings
    units           JSON (UTF-8 bytes), a list of d strings
    provenance      JSON (UTF-8 bytes), an object

Layout ``"rows"``, version 2, has one table in place of the first four, which pandas reads with
``pandas.DataFrame(file["events"][:])``::

    events          [N] records of float64: the columns, then weight, uncertainty, log_weight_0, log_weight_1, ...

A ROOT file of pyrogen's has these columns as branches of its tree ``events``, and names, units and provenance as JSON
in a TObjString ``pyrogen``.

A user's own HDF5 file is read where it holds exactly one table, anywhere in it:

* a two-dimensional numeric dataset ``[N, d]`` of any name: its columns are called ``x0, x1, ...``;
* a one-dimensional dataset of records with numeric fields, as pandas, PyTables and many ntuple dumps write:
  the fields are the columns, a field of several numbers gives ``name[0], name[1], ...``;
* failing these, a group with one-dimensional numeric datasets of one length: their names, sorted, are the
  columns.

A dataset, field or branch called ``weight`` or ``weights`` next to the columns holds the event weights, ``uncertainty``
or ``uncertainties`` the relative uncertainties and ``log_weight_0, ...`` or ``log_weights[0], ...`` the log weights;
among columns one called ``index`` (the row numbers of pandas) is left out. Where there are several tables,
``dataset="name"`` picks one.

The weights of an LHE file are always kept, equal ones too: they carry the cross section, so that samples of several
processes can be put together. Only where every weight is 1 does :func:`read` leave them out. The cross sections of the
``<init>`` block (pb) and the number of events left out are in the provenance. Weights of variations (``<rwgt>``) are
not read.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from tqdm import tqdm

from ..checks import require, whole_number
from ..files import check_writable, naming_failed_write, replacing
from . import hdf5, lhe, npy, root
from .sample import EventSample
from .tables import Choices, whole

Reader = Callable[[Path, Choices], Iterator[EventSample]]

_READERS: dict[str, Reader] = {
    ".h5": hdf5.parts,
    ".hdf5": hdf5.parts,
    ".npy": npy.parts,
    ".root": root.parts,
    ".lhe": lhe.parts,
    ".lhe.gz": lhe.parts,
}
_HDF5 = (".h5", ".hdf5")
_LHE = (".lhe", ".lhe.gz")
_CHUNK = 65_536


def stream(
    path: str | os.PathLike[str],
    *,
    chunk: int = _CHUNK,
    dataset: str | None = None,
    columns: Sequence[str] | None = None,
    particles: Mapping[str, int | Sequence[int]] | Sequence[int] | None = None,
    others: str | None = None,
    missing: str = "error",
    progress: bool = False,
) -> Iterator[EventSample]:
    """Read events from a file part by part, however large it is; the module docstring says what it may hold.

    Args:
        path: the file.
        chunk: events of each part but the last, which may have fewer.
        dataset: the table of a user's own HDF5 file, or the tree of a ROOT file, that holds several.
        columns: names of the columns to keep, in this order; what others hold does not matter.
        particles: of an LHE file, PDG ids by name, such as ``{"l+": (-11, -13), "l-": (11, 13)}``, or a sequence of
            ids, which are then called ``e+, g, ...``; the columns are ``px_<name>, py_<name>, pz_<name>, E_<name>``.
            An event must have exactly one particle (of status 1) for each name; names with the same ids, such as
            ``{"j1": pg.events.JETS, "j2": pg.events.JETS}``, take theirs in order of falling pT. If left out, those
            of the first event, which all events must share.
        others: of an LHE file, what to do with events that have final-state particles besides: ``"keep"`` them and
            ignore the particles (the default where ``particles`` is given), ``"skip"`` them, or ``"error"``.
        missing: of an LHE file, what to do with events that lack one of the particles or have one too many:
            ``"error"`` or ``"skip"``.
        progress: show a bar.

    Yields:
        Parts of the sample. Those of a user's own file say in their provenance where they came from; the last part of
        an LHE file also says how many events were left out.

    Raises:
        FileNotFoundError: no such file.
        FileFormatError: truncated, damaged or foreign, a newer version, or content that is no sample of events; where
            one event is to blame the message has its number.
        ValueError: a suffix that cannot be read, a choice that the format has no use for, or a dataset or column that
            is not there.
        ImportError: a package for ROOT or LHE files is missing.
    """
    path = Path(path)
    reader = _READERS[_suffix(path, "read")]
    given = {"particles": particles, "others": others, "missing": None if missing == "error" else missing}
    useless = [name for name, value in given.items() if value is not None]
    if useless and not path.name.lower().endswith(_LHE):
        raise ValueError(f"{path} is no LHE file; leave out {', '.join(f'{name}={given[name]!r}' for name in useless)}")
    require(others in (None, "keep", "skip", "error"), "others", others, '"keep", "skip" or "error"')
    require(missing in ("error", "skip"), "missing", missing, '"error" or "skip"')
    if columns is not None:
        require(not isinstance(columns, str) and len(columns) > 0, "columns", columns, "a sequence of names")
        columns = tuple(columns)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; expected a file of events")
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    choices = Choices(whole_number("chunk", chunk, 1), dataset, columns, particles, others, missing)
    return _with_bar(reader(path, choices), path, progress)


def read(
    path: str | os.PathLike[str],
    dataset: str | None = None,
    *,
    columns: Sequence[str] | None = None,
    particles: Mapping[str, int | Sequence[int]] | Sequence[int] | None = None,
    others: str | None = None,
    missing: str = "error",
    progress: bool = False,
) -> EventSample:
    """Read all events of a file; arguments and errors are those of :func:`stream`.

    Returns:
        The sample. That of a user's own file says in its provenance where it came from.
    """
    path = Path(path)
    chosen: dict[str, Any] = {"dataset": dataset, "columns": columns, "particles": particles}
    sample = whole(path, list(stream(path, **chosen, others=others, missing=missing, progress=progress)))
    if path.name.lower().endswith(_LHE) and np.all(sample.weights == 1):
        return EventSample(sample.values, sample.names, sample.units, provenance=sample.provenance)
    return sample


def write(sample: EventSample, path: str | os.PathLike[str], *, layout: str | None = None) -> None:
    """Write events to a file; HDF5 and ROOT keep everything, LHE momenta and weights, ``.npy`` only the values.

    The file is replaced in one piece: whatever fails, an old one stays as it was.

    Args:
        sample: the events.
        path: the file.
        layout: of HDF5, ``"columns"`` (the default) or ``"rows"``.

    Raises:
        ValueError: a suffix that cannot be written, or something of the sample that the format would lose.
        OSError: the file cannot be written.
        ImportError: a package for ROOT or LHE files is missing.
    """
    path = Path(path)
    if _suffix(path) == ".npy":
        require(layout is None, "layout", layout, "left out for .npy")
        return npy.write(sample, path)
    with EventWriter(path, layout=layout) as writer:
        writer.write(sample)


def append(sample: EventSample, path: str | os.PathLike[str]) -> None:
    """Add events to an HDF5 file of pyrogen's, or create it; see :class:`EventWriter` for its errors."""
    with EventWriter(path, append=True) as writer:
        writer.write(sample)


class _Writer(Protocol):
    def write(self, sample: EventSample) -> None: ...

    def close(self) -> None: ...


class EventWriter:
    """Writes a file of events part by part, however large it gets::

        with pg.events.EventWriter("generated.h5") as writer:
            for part in parts:
                writer.write(part)

    The first sample decides the columns, their units and whether there are weights, uncertainties and log weights; its
    provenance is kept. The file appears under its name when the block is left without an exception; until then, and
    after an exception or a kill, the old file, if any, is there as it was.

    Args:
        path: the file; ``.h5``, ``.hdf5``, ``.root``, ``.lhe`` or ``.lhe.gz``.
        layout: of HDF5, ``"columns"`` (the default) or ``"rows"``.
        append: of HDF5, go on behind the events of the file that is there, in its layout. Its events are copied first,
            so the disk must have room for both files. It may be missing.

    Raises:
        ValueError: a suffix or choice that is not possible.
        OSError: the folder does not exist or does not accept new files.
        FileFormatError: an old file to go on with that is not pyrogen's, or damaged.
    """

    def __init__(self, path: str | os.PathLike[str], *, layout: str | None = None, append: bool = False) -> None:
        self.path = Path(path)
        self._suffix = _suffix(self.path)
        if self._suffix == ".npy":
            raise ValueError(f"cannot write {path} part by part: .npy has its size at its beginning; write .h5 instead")
        require(layout in (None, *hdf5.VERSIONS), "layout", layout, '"columns" or "rows"')
        if self._suffix not in _HDF5 and (layout is not None or append):
            raise ValueError(f"{path} is no HDF5 file; leave out layout and append, or write .h5 instead")
        check_writable(self.path)
        self._old = self.path if append and self.path.exists() else None
        self._layout = layout or "columns"
        self._first: EventSample | None = None
        if self._old is not None:
            self._layout = hdf5.layout_of(self._old)
            require(layout in (None, self._layout), "layout", layout, f"that of {path}, {self._layout!r}")
            self._first = next(hdf5.parts(self._old, Choices(chunk=1)))
            self._seen = _state(self._old)
        self._writer: _Writer | None = None
        self._temporary: Path | None = None
        self._broken = False
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._temporary = self._stack.enter_context(replacing(self.path))
        self._stack.push(self._close)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def write(self, sample: EventSample) -> None:
        """Add events.

        Raises:
            ValueError: they do not fit behind the first, or the format would lose something of theirs.
            OSError: the disk is full or read-only; the old file is untouched.
            RuntimeError: outside of a with block.
        """
        if self._temporary is None:
            raise RuntimeError('write events within a block: with EventWriter("events.h5") as writer: ...')
        if self._first is not None:
            known = "those before" if self._old is None else f"{self.path}"
            self._first.check_like(sample, "the sample to write", known)
        self._first = self._first or sample
        try:
            with naming_failed_write(self.path):
                if self._writer is None:
                    self._writer = self._open(self._temporary, self._first)
                self._writer.write(sample)
        except BaseException:
            self._broken = True  # a part of it may be in the file
            raise

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
        if self._old is not None and _state(self._old) != self._seen:
            raise RuntimeError(f"nothing was appended to {self.path}: somebody else changed it meanwhile; try again")

    def _open(self, temporary: Path, first: EventSample) -> _Writer:
        if self._suffix in _HDF5:
            return hdf5.Writer(temporary, first, self._layout, self._old)
        if self._suffix == ".root":
            return root.Writer(temporary, first)
        return lhe.Writer(temporary, first, zipped=self._suffix.endswith(".gz"))


def _state(path: Path) -> tuple[int, int, int]:
    """What changes when a file is replaced or written to."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _suffix(path: Path, verb: str = "write") -> str:
    """The suffix that decides the format."""
    for suffix in sorted(_READERS, key=len, reverse=True):
        if path.name.lower().endswith(suffix):
            return suffix
    raise ValueError(f"cannot {verb} {path}: unknown suffix {path.suffix!r}; pyrogen can {verb} {', '.join(_READERS)}")


def _with_bar(parts: Iterator[EventSample], path: Path, progress: bool) -> Iterator[EventSample]:
    with tqdm(desc=path.name, unit=" events", disable=not progress) as bar:
        for part in parts:
            bar.update(len(part))
            yield part
