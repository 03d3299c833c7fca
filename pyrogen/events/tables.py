"""Tables of numbers as samples: which columns are events and which are weights, and errors that name the file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..checks import require
from ..files import FileFormatError
from .columns import UNCERTAINTIES as UNCERTAINTIES
from .columns import WEIGHTS as WEIGHTS
from .columns import expand as expand
from .columns import from_columns, spread
from .columns import to_columns as to_columns
from .multiplicity import Multiplicity, selected
from .sample import EventSample

Made = TypeVar("Made")


def part(
    path: Path,
    first: int,
    columns: Sequence[str] | None,
    content: dict[str, Any],
    multiplicity: Multiplicity | None = None,
) -> EventSample:
    """A part of the sample in a file, its errors naming the file.

    Args:
        path: the file.
        first: number of the part's first event in it.
        columns: names of the columns to keep, in this order; all if None.
        content: arguments of :class:`EventSample`; ``multiplicity`` among them is that of all columns.
        multiplicity: the layout of the columns that are kept, of a file that does not say it.

    Raises:
        ValueError: a column that is not there, columns that are no layout, or another layout than that of the file.
        FileFormatError: content that is no sample.
    """
    if content["values"].ndim == 1:
        content = content | {"values": content["values"][:, None]}
    if columns is not None:
        names = tuple(content.get("names") or (f"x{i}" for i in range(content["values"].shape[1])))
        missing = [name for name in columns if name not in names]
        if missing:
            raise ValueError(
                f"{path} has no column {', '.join(map(repr, missing))}; its columns are {', '.join(names)}"
            )
        chosen = [names.index(name) for name in columns]  # before any check: what is left out may be anything
        content = content | {"values": content["values"][:, chosen], "names": columns}
        if content.get("units") is not None:
            content["units"] = [content["units"][i] for i in chosen]
        if content.get("multiplicity") is not None:
            content["multiplicity"] = selected(content["multiplicity"], chosen, names)
    if multiplicity is not None:
        known = content.get("multiplicity", multiplicity)
        require(known == multiplicity, "multiplicity", multiplicity, f"that of {path}, {known}, or be left out")
        content = content | {"multiplicity": multiplicity}
    try:
        return EventSample(**content, part=first)
    except (TypeError, ValueError) as error:
        raise FileFormatError(f"{path} holds no sample of events: {error}") from error


def content_of(path: Path, make: Callable[[], Made]) -> Made:
    """What ``make`` gives for :func:`part`, its errors naming the file.

    Raises:
        FileFormatError: columns that are no sample, such as two of one name.
    """
    try:
        return make()
    except FileFormatError:
        raise
    except (TypeError, ValueError) as error:
        raise FileFormatError(f"{path} holds no sample of events: {reason(error)}") from error


def reason(error: Exception) -> str:
    """What an error says; its class, where it says nothing."""
    return str(error) or type(error).__name__


def whole(path: Path, parts: Sequence[EventSample]) -> EventSample:
    """The sample that parts of a file make up; the last of them knows all there is to say of their origin."""
    try:
        return EventSample.concatenate(parts, parts[-1].provenance)
    except ValueError as error:
        raise FileFormatError(f"{path} holds no sample of events: {error}") from error


def from_records(records: np.ndarray) -> dict[str, Any]:
    """What :func:`from_columns` gives, of records with named fields."""
    return from_columns(spread((name, records[name]) for name in records.dtype.names or ()))
