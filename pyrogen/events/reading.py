"""Reading samples of events, whole or part by part; the suffix of a file decides the format."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..checks import BOOLEAN, NATURAL, PATH, TEXT, door, each, optional
from ..log import LOG
from ..progress import bar
from .format import Format, chosen_options, format_of
from .sample import EventSample
from .sidecar import check_sidecar
from .tables import whole

EVENTS_PER_PART = 65_536
COLUMNS = optional(each(TEXT, "a sequence of names", 1))


@door(path=PATH, dataset=optional(TEXT), columns=COLUMNS, progress=BOOLEAN)
def read(
    path: str | os.PathLike[str],
    dataset: str | None = None,
    *,
    columns: Sequence[str] | None = None,
    progress: bool = False,
    **options: Any,
) -> EventSample:
    """Read all events of a file; arguments and errors are those of :func:`stream`.

    Returns:
        The sample. That of a user's own file says in its provenance where it came from.
    """
    file = format_of(Path(path), "read")
    parts = _parts(file, EVENTS_PER_PART, columns, progress, {"dataset": dataset, **options})
    sample = file.finish(whole(file.path, list(parts)))
    LOG.info("read %s: %r", file.path, sample)
    return sample


@door(path=PATH, chunk=NATURAL, columns=COLUMNS, progress=BOOLEAN)
def stream(
    path: str | os.PathLike[str],
    *,
    chunk: int = EVENTS_PER_PART,
    columns: Sequence[str] | None = None,
    progress: bool = False,
    **options: Any,
) -> Iterator[EventSample]:
    """Read events from a file part by part, however large it is.

    Args:
        path: the file.
        chunk: events of each part but the last, which may have fewer.
        columns: names of the columns to keep, in this order; what others hold does not matter.
        progress: show a bar.
        options: those of the format, such as ``dataset`` of HDF5 and ROOT files that hold several tables, or
            ``particles``, ``others`` and ``missing`` of LHE files. The classes of the formats describe them, and what
            a file may hold: :class:`pyrogen.events.hdf5.Hdf5`, :class:`pyrogen.events.root.Root`,
            :class:`pyrogen.events.lhe.Lhe`, :class:`pyrogen.events.parquet.Parquet`,
            :class:`pyrogen.events.npy.Npy`. None is an option left out.

    Yields:
        Parts of the sample. Those of a user's own file say in their provenance where they came from.

    Raises:
        FileNotFoundError: no such file.
        FileFormatError: truncated, damaged or foreign, a newer version, or content that is no sample of events; where
            one event is to blame the message has its number.
        ValueError: a suffix that cannot be read, an option that the format has no use for, or a dataset or column that
            is not there.
        TypeError: an option that no format has.
        ImportError: a package that the format needs is missing.
    """
    return _parts(format_of(Path(path), "read"), chunk, columns, progress, options)


def _parts(
    file: Format, chunk: int, columns: Sequence[str] | None, progress: bool, options: Mapping[str, Any]
) -> Iterator[EventSample]:
    """Check what was asked for, at once, and start to read."""
    chosen = chosen_options(file, "reading", options)
    if columns is not None:
        columns = tuple(columns)
    if file.path.is_dir():
        raise IsADirectoryError(f"{file.path} is a folder; expected a file of events")
    if not file.path.exists():
        raise FileNotFoundError(f"no such file: {file.path}")
    check_sidecar(file.path)
    return _with_bar(file.parts(chunk, columns, chosen), file.path.name, progress)


def _with_bar(parts: Iterator[EventSample], name: str, progress: bool) -> Iterator[EventSample]:
    with bar(None, name, " events", show=progress) as shown:
        for part in parts:
            shown.update(len(part))
            yield part
