"""Tables of numbers as samples: which columns are events and which are weights, and errors that name the file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..files import FileFormatError
from .sample import EventSample

WEIGHTS = ("weight", "weights")
UNCERTAINTIES = ("uncertainty", "uncertainties")
INDEX = "index"  # the row numbers of pandas
_LOG_WEIGHT = re.compile(r"log_weight_(\d+)|log_weights\[(\d+)\]")


def part(path: Path, first: int, columns: Sequence[str] | None, content: dict[str, Any]) -> EventSample:
    """A part of the sample in a file, its errors naming the file.

    Args:
        path: the file.
        first: number of the part's first event in it.
        columns: names of the columns to keep, in this order; all if None.
        content: arguments of :class:`EventSample`.

    Raises:
        ValueError: a column that is not there.
        FileFormatError: content that is no sample.
    """
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
    try:
        return EventSample(**content, part=first)
    except (TypeError, ValueError) as error:
        raise FileFormatError(f"{path} holds no sample of events: {error}") from error


def whole(path: Path, parts: Sequence[EventSample]) -> EventSample:
    """The sample that parts of a file make up; the last of them knows all there is to say of their origin."""
    try:
        return EventSample.concatenate(parts, parts[-1].provenance)
    except ValueError as error:
        raise FileFormatError(f"{path} holds no sample of events: {error}") from error


def expand(name: str, column: np.ndarray) -> dict[str, np.ndarray]:
    """A column of several numbers for each event as ``name[0], name[1], ...``."""
    if column.ndim == 1:
        return {name: column}
    flat = column.reshape(len(column), int(np.prod(column.shape[1:])))  # of no event too
    return {f"{name}[{i}]": flat[:, i] for i in range(flat.shape[1])}


def from_records(records: np.ndarray) -> dict[str, Any]:
    """What :func:`from_columns` gives, of records with named fields."""
    columns: dict[str, np.ndarray] = {}
    for name in records.dtype.names or ():
        columns |= expand(name, records[name])
    return from_columns(columns)


def from_columns(columns: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Arguments of :class:`EventSample`: values and names, and what the names tell to be weights and their kin."""
    columns = dict(columns)
    extras: dict[str, Any] = {}
    logs = sorted((int(found[1] or found[2]), name) for name in columns if (found := _LOG_WEIGHT.fullmatch(name)))
    if logs and len(logs) < len(columns):
        extras["log_weights"] = np.column_stack([columns.pop(name) for _, name in logs])
    for what, labels in (("weights", WEIGHTS), ("uncertainties", UNCERTAINTIES)):
        present = [columns.pop(name) for name in labels if name in columns and len(columns) > 1]
        if present:
            extras[what] = present[0]
    if len(columns) > 1:
        columns.pop(INDEX, None)
    return {"values": np.column_stack(list(columns.values())), "names": list(columns), **extras}


def to_columns(sample: EventSample) -> dict[str, np.ndarray]:
    """One column for each number of an event: the values, then ``weight``, ``uncertainty``, ``log_weight_0``, ...

    Raises:
        ValueError: a column of the sample that would be taken for one of the latter.
    """
    taken = [name for name in sample.names if is_reserved(name)]
    if taken:
        raise ValueError(
            f"a table with one row per event needs the column name {', '.join(map(repr, taken))} for weights, "
            'uncertainties or row numbers; rename the column, or write .h5 with layout="columns"'
        )
    columns = dict(zip(sample.names, sample.values.T, strict=True))
    if sample.weights is not None:
        columns["weight"] = sample.weights
    if sample.uncertainties is not None:
        columns["uncertainty"] = sample.uncertainties
    if sample.log_weights is not None:
        columns |= {f"log_weight_{k}": column for k, column in enumerate(sample.log_weights.T)}
    return columns


def is_reserved(name: str) -> bool:
    """Whether a column of this name is no feature of the events."""
    return name in (*WEIGHTS, *UNCERTAINTIES, INDEX) or _LOG_WEIGHT.fullmatch(name) is not None
