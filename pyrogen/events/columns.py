"""Columns by name: which are features of the events, and which are weights and their kin."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

WEIGHTS = ("weight", "weights")
UNCERTAINTIES = ("uncertainty", "uncertainties")
INDEX = "index"  # the row numbers of pandas
_LOG_WEIGHT = re.compile(r"log_weight_(\d+)|log_weights\[(\d+)\]")


def expand(name: str, column: np.ndarray) -> dict[str, np.ndarray]:
    """A column of several numbers for each event as ``name[0], name[1], ...``."""
    if column.ndim == 1:
        return {name: column}
    flat = column.reshape(len(column), int(np.prod(column.shape[1:])))  # of no event too
    return {f"{name}[{i}]": flat[:, i] for i in range(flat.shape[1])}


def spread(pairs: Iterable[tuple[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Columns by name, those of several numbers for each event by :func:`expand`.

    Raises:
        ValueError: two columns of one name, such as ``v[0]`` and the first number of ``v``.
    """
    columns: dict[str, np.ndarray] = {}
    for name, column in pairs:
        for label, numbers in expand(name, column).items():
            if label in columns:
                raise ValueError(f"two columns have the name {label!r}; rename one of them")
            columns[label] = numbers
    return columns


def from_columns(columns: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Arguments of :class:`~pyrogen.EventSample`: values, names, and what the names tell to be weights and their kin.

    Raises:
        ValueError: two columns for the same, such as ``weight`` and ``weights``.
    """
    columns = dict(columns)
    extras: dict[str, Any] = {}
    logs = sorted((int(found[1] or found[2]), name) for name in columns if (found := _LOG_WEIGHT.fullmatch(name)))
    _check_single("log weights of a draw", [name for k, name in logs if [j for j, _ in logs].count(k) > 1])
    if logs and len(logs) < len(columns):
        extras["log_weights"] = np.column_stack([columns.pop(name) for _, name in logs])
    for what, labels in (("weights", WEIGHTS), ("uncertainties", UNCERTAINTIES)):
        _check_single(what, [name for name in labels if name in columns])
        present = [columns.pop(name) for name in labels if name in columns and len(columns) > 1]
        if present:
            extras[what] = present[0]
    if len(columns) > 1:
        columns.pop(INDEX, None)
    return {"values": np.column_stack(list(columns.values())), "names": list(columns), **extras}


def to_columns(sample: Any) -> dict[str, np.ndarray]:
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


def _check_single(what: str, names: list[str]) -> None:
    if len(names) > 1:
        raise ValueError(f"the columns {', '.join(names)} are all {what}, and only one can count; leave the others out")
