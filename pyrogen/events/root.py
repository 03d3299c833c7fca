"""Events in ROOT files, through uproot: one TTree or RNTuple with one number for each event in each branch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..checks import require_extra
from ..files import FileFormatError
from .format import PER_EVENT, Format, NoOptions, PartWriter
from .sample import EventSample
from .tables import expand, from_columns, is_reserved, part, to_columns

_TREE = "events"
_LABELS = "pyrogen"
_TREES = ("TTree", "TNtuple", "TNtupleD", "ROOT::RNTuple", "ROOT::Experimental::RNTuple")
_NUMBER_TYPES = {
    "bool",
    "float",
    "double",
    *(f"std::{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32, 64)),
}


@dataclass(frozen=True)
class _Reading:
    dataset: str | None = None


class Root(Format, suffixes=(".root",)):
    """Files ``.root``; they need the packages of ``pip install "pyrogen[lhc]"``.

    A file of pyrogen's keeps everything that a sample has. Its tree ``events`` has the columns as branches of float64,
    then ``weight``, ``uncertainty``, ``log_weight_0``, ``log_weight_1``, ...; names, units and provenance are JSON in a
    TObjString ``pyrogen``. The same events give the same numbers, but not the same bits: uproot writes the time and a
    number of its own into every file.

    Of other files the flat branches of one TTree or RNTuple are read: one number for each event, or as many in each,
    which are called ``name[0], name[1], ...``. Some names mean weights and their kin, as in
    :class:`~pyrogen.events.hdf5.Hdf5`.

    Options of reading:

    * ``dataset``: the tree, of a file that holds several.

    There are no options of writing.
    """

    label = "ROOT"
    keeps = PER_EVENT
    reading = _Reading

    def parts(self, chunk: int, columns: tuple[str, ...] | None, options: _Reading) -> Iterator[EventSample]:
        require_extra("uproot", "lhc", "reading ROOT files")
        import uproot

        path = self.path
        try:
            file = uproot.open({str(path): None})  # a plain string would be split at a colon
        except Exception as error:  # uproot has no class of its own for this
            raise FileFormatError(f"{path} is not a whole ROOT file: {error}") from error
        with file:
            there = path.stat().st_size
            if there < file.file.fEND:  # uproot reads what is left without a word
                raise FileFormatError(
                    f"{path} is not a whole ROOT file: it should have {file.file.fEND} bytes and has {there}; "
                    "copy or make it again"
                )
            name = _tree_name(path, file, options.dataset)
            tree = file[name]
            units: dict[str, str] = {}
            provenance: dict[str, Any] = {"file": path.name, "dataset": name}
            if name == _TREE and file.classnames(cycle=False).get(_LABELS) == "TObjString":
                units, provenance = _own_labels(path, str(file[_LABELS]))
            wanted = _wanted(path, tree, name, columns)
            for first, arrays in _arrays(path, tree, wanted, chunk):
                content = from_columns(arrays) | {"provenance": provenance}
                content["units"] = [units.get(column, "") for column in content["names"]]
                yield part(path, first, columns, content)

    def writer(self, temporary: Path, first: EventSample, options: NoOptions) -> PartWriter:
        return _Writer(temporary, first)


def _own_labels(path: Path, text: str) -> tuple[dict[str, str], dict[str, Any]]:
    """Units by name, and the provenance, of a file of pyrogen's."""
    try:
        labels = json.loads(text)
        return dict(zip(labels["names"], labels["units"], strict=True)), labels["provenance"]
    except (ValueError, KeyError, TypeError) as error:
        raise FileFormatError(f"{path}: its object {_LABELS!r} is not what pyrogen writes: {error!r}") from error


def _tree_name(path: Path, file: Any, dataset: str | None) -> str:
    trees = sorted(name for name, kind in file.classnames(cycle=False).items() if kind in _TREES)
    if dataset is not None:
        if dataset not in trees:
            raise ValueError(f"{path} has no tree {dataset!r}; its trees are {', '.join(trees) or 'none'}")
        return dataset
    if len(trees) > 1:
        raise ValueError(f'{path} holds several trees; choose one with dataset="name": {", ".join(trees)}')
    if not trees:
        raise ValueError(f"{path} holds no TTree or RNTuple of events")
    return trees[0]


def _wanted(path: Path, tree: Any, name: str, columns: tuple[str, ...] | None) -> set[str]:
    """Names of the branches to read: those of the columns, of weights and their kin."""
    found = dict(tree.items(full_paths=False))  # the names that tree.iterate gives
    branches = {branch: _numbers_per_event(found[branch]) for branch in found if not _is_group(found[branch])}
    flat = [branch for branch, shape in branches.items() if shape is not None]
    uneven = [branch for branch, shape in branches.items() if shape is None]
    if columns is None:
        if uneven:
            raise ValueError(
                f"{path}: branch {uneven[0]!r} of tree {name!r} ({found[uneven[0]].typename}) is not one number for "
                f"each event; choose others with columns=[...]: {', '.join(flat) or 'there are none'}"
            )
        return set(flat)
    holders = {
        column: branch
        for branch in flat
        for column in expand(branch, np.empty((0, *branches[branch])))  # type: ignore[misc]
    }
    for column in columns:
        if column in uneven:
            raise ValueError(
                f"{path}: branch {column!r} of tree {name!r} ({found[column].typename}) is not one number for each "
                "event; leave it out of columns, or write one number of it into a branch of its own"
            )
        if column not in holders:
            raise ValueError(f"{path} has no column {column!r}; those of tree {name!r} are {', '.join(holders)}")
    return {branch for column, branch in holders.items() if column in columns or is_reserved(column)}


def _is_group(branch: Any) -> bool:
    """Whether it is only the parent of branches, which are listed too."""
    import uproot

    return isinstance(getattr(branch, "interpretation", None), uproot.AsGrouped)


def _numbers_per_event(branch: Any) -> tuple[int, ...] | None:
    """The shape of what a branch holds for each event; None where it differs from event to event or is no number."""
    import uproot

    if not hasattr(branch, "interpretation"):  # a field of an RNTuple
        array = re.fullmatch(r"std::array<(.+),\s*(\d+)>", branch.typename)
        number = array[1] if array else branch.typename
        return None if number not in _NUMBER_TYPES else (int(array[2]),) if array else ()
    kind = branch.interpretation
    if not isinstance(kind, uproot.AsDtype) or kind.to_dtype.base.kind not in "biuf":
        return None
    return kind.to_dtype.shape


def _arrays(path: Path, tree: Any, wanted: set[str], chunk: int) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Columns of the events from the first on, ``chunk`` at a time."""
    # By a function: names may have characters that mean something in uproot's expressions.
    arrays = tree.iterate(filter_name=lambda name: name in wanted, step_size=chunk, library="np")
    first = 0
    while True:
        try:
            found = next(arrays, None)
        except Exception as error:  # whatever a damaged file leads to
            raise FileFormatError(f"{path} is damaged or incomplete behind event {first}: {error}") from error
        if found is None:
            break
        columns = {name: column for branch, array in found.items() for name, column in expand(branch, array).items()}
        yield first, columns
        first += len(next(iter(columns.values())))
    if first == 0:
        raise FileFormatError(f"{path} holds no sample of events: its tree is empty")


class _Writer(PartWriter):
    """Writes samples into the tree ``events`` of a new ROOT file, one behind the other.

    Args:
        temporary: the file to write.
        first: a sample like those to come; its provenance is kept.

    Raises:
        ValueError: column names that stand for weights and their kin.
        OSError: the disk is full or read-only.
    """

    def __init__(self, temporary: Path, first: EventSample) -> None:
        require_extra("uproot", "lhc", "writing ROOT files")
        import uproot

        columns = to_columns(first)
        self._disk = open(temporary, "w+b")  # noqa: SIM115 (closed in close)
        self._file = uproot.recreate(self._disk)
        self._tree = self._file.mktree(_TREE, dict.fromkeys(columns, np.float64))
        labels = {name: getattr(first, name) for name in ("names", "units", "provenance")}
        self._file[_LABELS] = json.dumps(labels, sort_keys=True)

    def write(self, sample: EventSample) -> None:
        self._tree.extend({name: np.ascontiguousarray(column) for name, column in to_columns(sample).items()})

    def close(self) -> None:
        with self._disk:
            self._file.close()
