"""Lists of objects, one for each event, as the padded columns of a sample."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..checks import check_settings, one_of, require, require_extra, whole
from .columns import from_columns, spread
from .multiplicity import Multiplicity

MORE = "events_with_more_objects"
"""The entry of a provenance: of how many events only the leading objects were kept."""


def awkward() -> Any:
    """The package awkward.

    Raises:
        ImportError: it is missing.
    """
    require_extra("awkward", "lhc", "lists of objects")
    import awkward

    return awkward


@dataclass(frozen=True)
class Limits:
    """Which numbers of objects an event may have, and what becomes of others.

    Args:
        most: largest number of objects that is kept.
        least: smallest number of objects; events with fewer are an error.
        surplus: ``"error"`` of an event with more than ``most``, or the ``"leading"`` ones are kept.
        unsorted: ``"error"`` of objects that are not sorted by falling pT, ``"sort"`` them, or ``"keep"`` their
            order. Objects without a field ``pt`` keep theirs.
    """

    most: int
    least: int = 1
    surplus: str = "error"
    unsorted: str = "error"

    def __post_init__(self) -> None:
        check_settings(
            self,
            most=whole(1),
            least=whole(0),
            surplus=one_of("error", "leading"),
            unsorted=one_of("error", "sort", "keep"),
        )
        require(self.least <= self.most, "least", self.least, f"at most most = {self.most}")


def padded_objects(fields: Mapping[str, Any], limits: Limits, first: int = 0) -> np.ndarray:
    """Columns ``[N, most * each]`` of the objects of events: NaN where no object is.

    Args:
        fields: lists of numbers (arrays of awkward, ``N * var * number``) by the name of the field.
        limits: which numbers of objects there may be.
        first: number of the first event, for errors.

    Raises:
        ValueError: lists of different lengths, too few or too many objects, unsorted ones, numbers that are not finite;
            the first such event is named.
        TypeError: lists of something else than real numbers.
    """
    ak = awkward()

    counts = _counts(fields, first)
    _check_counts(counts, limits, first)
    for name, lists in fields.items():
        _check_numbers(name, lists, counts, first)
    fields = _sorted(fields, limits, first)
    return np.stack(
        [ak.to_numpy(ak.fill_none(ak.pad_none(lists, limits.most, clip=True), np.nan)) for lists in fields.values()],
        axis=-1,
    ).reshape(len(counts), limits.most * len(fields))


def with_objects(
    shared: Iterable[tuple[str, np.ndarray]], objects: np.ndarray, fields: Sequence[str], label: str, limits: Limits
) -> dict[str, Any]:
    """Arguments of a sample: shared columns, weights and their kin by name, then objects, and the layout.

    Args:
        shared: names and columns.
        objects: what :func:`padded_objects` gives.
        fields: names of the fields of an object.
        label: what the columns ``<field>_<label><number>`` call an object.
        limits: those of the objects.

    Raises:
        ValueError: two columns of one name.
    """
    names = [f"{field}_{label}{i}" for i in range(1, limits.most + 1) for field in fields]
    content = from_columns(spread([*shared, *zip(names, objects.T, strict=True)]))
    layout = Multiplicity(len(content["names"]) - len(names), len(fields), limits.most, limits.least)
    return content | {"multiplicity": layout}


def fields_of(multiplicity: Multiplicity, names: Sequence[str]) -> tuple[list[str], str]:
    """Fields and label of objects by the names of all columns: ``pt, eta`` and ``j`` of ``pt_j1, eta_j1, pt_j2, ...``.

    Raises:
        ValueError: columns of objects that are called otherwise.
    """
    layout, columns = multiplicity, list(names[multiplicity.shared :])
    pairs = [name.partition("_") for name in columns[: layout.each]]
    fields, label = [field for field, _, _ in pairs], pairs[0][2].removesuffix("1")
    if columns != [f"{field}_{label}{i}" for i in range(1, layout.most + 1) for field in fields]:
        raise ValueError(
            "names of the columns of objects must be <field>_<label><number>, such as pt_j1, eta_j1, pt_j2, eta_j2; "
            f"got {', '.join(columns)}"
        )
    return fields, label


def lists_of(multiplicity: Multiplicity, values: np.ndarray) -> list[Any]:
    """The numbers of objects of rows ``[N, d]`` as lists of awkward, ``N * var * float64`` of each field."""
    ak = awkward()
    counts = multiplicity.counts(values)
    blocks = values[:, multiplicity.shared :].reshape(len(values), multiplicity.most, multiplicity.each)
    there = blocks[np.arange(multiplicity.most) < counts[:, None]]
    return [ak.unflatten(np.ascontiguousarray(column), counts) for column in there.T]


def _counts(fields: Mapping[str, Any], first: int) -> np.ndarray:
    """Number of objects of each event, the same in all fields."""
    ak = awkward()

    for name, lists in fields.items():
        if lists.ndim != 2:
            raise TypeError(f"the field {name!r} of objects must be one real number for each; got {lists.type}")
        nothing = np.flatnonzero(ak.to_numpy(ak.is_none(lists, axis=0)))
        if len(nothing):
            raise ValueError(
                f"{len(nothing)} of {len(lists)} events have no list of objects but None; the first is event "
                f"{first + nothing[0]}. Leave such events out beforehand, or give them an empty list"
            )
    numbers = {name: ak.to_numpy(ak.num(lists, axis=1)) for name, lists in fields.items()}
    (name, counts), *others = numbers.items()
    for other, found in others:
        different = np.flatnonzero(found != counts)
        if len(different):
            event = different[0]
            raise ValueError(
                f"event {first + event} has {counts[event]} numbers {name!r} and {found[event]} {other!r}; the fields "
                "of objects must be equally many"
            )
    return counts


def _check_counts(counts: np.ndarray, limits: Limits, first: int) -> None:
    few, many = np.flatnonzero(counts < limits.least), np.flatnonzero(counts > limits.most)
    if len(few):
        raise ValueError(
            f"{len(few)} of {len(counts)} events have fewer than least={limits.least} objects; the first is event "
            f"{first + few[0]} with {counts[few[0]]}. Leave such events out beforehand, or give a smaller least"
        )
    if len(many) and limits.surplus == "error":
        raise ValueError(
            f"{len(many)} of {len(counts)} events have more than most={limits.most} objects; the first is event "
            f'{first + many[0]} with {counts[many[0]]}. Give a larger most, up to {counts.max()}, or surplus="leading" '
            "to keep the leading ones"
        )


def _check_numbers(name: str, lists: Any, counts: np.ndarray, first: int) -> None:
    """All numbers must be real and finite: a NaN would be taken for the end of a list."""
    ak = awkward()

    flat = np.ma.asarray(ak.to_numpy(ak.flatten(lists, axis=1), allow_missing=True))
    if flat.dtype.kind not in "biuf":
        raise TypeError(f"the field {name!r} of objects must be real numbers; got {flat.dtype}")
    bad = np.flatnonzero(np.ma.getmaskarray(flat) | ~np.isfinite(flat.data))
    if len(bad):
        event = int(np.searchsorted(np.cumsum(counts), bad[0], side="right"))
        raise ValueError(
            f"{len(bad)} numbers {name!r} of objects are missing, NaN or infinite; the first is in event "
            f"{first + event}. Leave such objects or events out beforehand"
        )


def _sorted(fields: Mapping[str, Any], limits: Limits, first: int) -> Mapping[str, Any]:
    """The fields in order of falling pT, where there is one."""
    ak = awkward()

    momentum = next((lists for name, lists in fields.items() if "pt" in re.split("[_.]", name.lower())), None)
    if momentum is None:
        return fields
    rising = np.flatnonzero(ak.to_numpy(ak.any(momentum[:, 1:] > momentum[:, :-1], axis=1)))
    if not len(rising) or limits.unsorted == "keep":
        return fields
    if limits.unsorted == "error":
        raise ValueError(
            f"{len(rising)} of {len(momentum)} events have objects that are not sorted by falling pT; the first is "
            f'event {first + rising[0]}. Give unsorted="sort" to sort them, or "keep"'
        )
    order = ak.argsort(momentum, axis=1, ascending=False, stable=True)
    return {name: lists[order] for name, lists in fields.items()}
