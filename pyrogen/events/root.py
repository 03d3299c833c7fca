"""Events in ROOT files, through uproot: one TTree or RNTuple with one number for each event in each branch."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..checks import require, require_extra
from ..files import FileFormatError
from .columns import expand, from_columns, is_reserved, spread
from .format import LAYOUT, PER_EVENT, Format, PartWriter
from .multiplicity import Multiplicity, selected
from .objects import MORE
from .root_labels import LABELS, TITLE, TREE, Checksums, Labels, check_no_labels, own_labels
from .root_objects import ObjectBranches, Reading
from .root_writing import RootWriter, Writing
from .sample import EventSample
from .tables import content_of, part, reason, to_columns

_LARGEST_COMPRESSION = 10_000  # of equal numbers
_SMALL = 2**26  # bytes that need no question
_TREES = ("TTree", "TNtuple", "TNtupleD", "ROOT::RNTuple", "ROOT::Experimental::RNTuple")
_NUMBER_TYPES = {
    "bool",
    "float",
    "double",
    *(f"std::{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32, 64)),
}


class Root(Format, suffixes=(".root",)):
    """Files ``.root``; they need the packages of ``pip install "pyrogen[lhc]"``.

    A file of pyrogen's keeps everything that a sample has. Its tree ``events`` has the columns as branches of float64,
    then ``weight``, ``uncertainty``, ``log_weight_0``, ``log_weight_1``, ...; names, units, provenance and checksums
    of all branches are JSON in a TObjString ``pyrogen``. What does not agree with it is refused. The same events give
    the same numbers, but not the same bits: uproot writes the time and a number of its own into every file.

    Of other files the flat branches of one TTree or RNTuple are read: one number for each event, or as many in each,
    which are called ``name[0], name[1], ...``; fields of records are called ``record.field``. Two branches of one name
    are refused. Some names mean weights and their kin, as in
    :class:`~pyrogen.events.hdf5.Hdf5`.

    Options of reading:

    * ``dataset``: the tree, of a file that holds several.
    * ``multiplicity``: the layout of the columns that are read, where a user's own file has NaN for objects that are
      not there.

    A tree with lists of objects, such as ``Jet_pt[nJet]`` or vectors, is read with the options

    * ``objects``: the branches of the lists, ``["Jet_pt", "Jet_eta", ...]``, or by the name of the field,
      ``{"pt": "Jet_pt", ...}``. The columns are ``pt_Jet1, eta_Jet1, ..., pt_Jet2, ...``.
    * ``shared``: the branches with one number for each event, ``["met", ...]``, or by the name of the column. Branches
      of weights and their kin are read besides, others are not.
    * ``most``, ``least`` (1): the largest and the smallest number of objects; others are an error.
    * ``surplus``: ``"leading"`` keeps the leading ones of more than ``most`` objects (``"error"``); the provenance has
      the number of such events.
    * ``unsorted``: ``"sort"`` sorts objects by falling pT that are not (``"error"``).
    * ``label``: what the columns call an object; ``"j"`` of a mapping, else the name of the collection.

    Options of writing:

    * ``objects``: a name, such as ``"Jet"``; the columns ``pt_j1, eta_j1, ..., pt_j2, ...`` of events with a varying
      number of objects are written as lists ``Jet_pt[nJet], Jet_eta[nJet], ...``, as ROOT knows them. They are read
      back as the columns.
    """

    label = "ROOT"
    keeps = (*PER_EVENT, LAYOUT)
    reading = Reading
    writing = Writing

    def parts(self, chunk: int, columns: tuple[str, ...] | None, options: Reading) -> Iterator[EventSample]:
        require_extra("uproot", "lhc", "reading ROOT files")
        import uproot

        path = self.path
        with open(path, "rb") as disk:  # by its path, uproot would split it at colons
            with _damage(path, "is not a whole ROOT file"):
                file = uproot.open(disk)
                end = file.file.fEND
            if self.path.stat().st_size < end:  # uproot reads what is left without a word
                raise FileFormatError(
                    f"{path} is not a whole ROOT file: it should have {end} bytes and has {path.stat().st_size}; "
                    "copy or make it again"
                )
            with _damage(path, "is damaged"):
                kinds = file.classnames(cycle=False)
                own = own_labels(path, {name: str(file[name]) for name, kind in kinds.items() if kind == "TObjString"})
            name = _tree_name(path, kinds, options.dataset)
            with _damage(path, f"is damaged: its tree {name!r} cannot be read"):
                tree = file[name]
                branches = _branches(tree)
                title = getattr(tree, "title", "")
            if name != TREE and TREE not in kinds:
                check_no_labels(path, own)
            own = own if name == TREE else None
            if own is None and title == TITLE:
                raise FileFormatError(f"{path} is damaged: its object {LABELS!r} is missing")
            if own is not None:
                own.check_branches(path, list(branches))
            provenance = {"file": path.name, "dataset": name} if own is None else own.provenance
            lists = options.branches()
            if lists is not None:
                require(own is None, "objects", options.objects, f"left out: {path} is a file of pyrogen's")
            elif own is not None and own.objects is not None:
                lists = ObjectBranches.written(own)
            if lists is not None:
                yield from _objects(path, tree, branches, lists, chunk, columns, provenance, own, options.multiplicity)
                return
            wanted = _wanted(path, branches, name, columns)
            layout = options.multiplicity if own is None else _own_layout(path, own, columns, options.multiplicity)
            with _damage(path, f"is damaged: its tree {name!r} cannot be read"):
                _check_sizes(path, tree, branches, wanted, chunk)
            for first, arrays in _arrays(path, tree, wanted, chunk, own):
                content = content_of(path, partial(from_columns, arrays)) | {"provenance": provenance}
                content["units"] = [own.units.get(column, "") if own else "" for column in content["names"]]
                yield part(path, first, columns, content, layout)

    def writer(self, temporary: Path, first: EventSample, options: Writing) -> PartWriter:
        return RootWriter(temporary, first, options)


def _objects(
    path: Path,
    tree: Any,
    branches: dict[str, _Branch],
    lists: ObjectBranches,
    chunk: int,
    columns: tuple[str, ...] | None,
    provenance: dict[str, Any],
    own: Labels | None,
    multiplicity: Multiplicity | None,
) -> Iterator[EventSample]:
    """The parts of a sample of events with lists of objects."""
    checksums = Checksums()
    wanted = lists.wanted(path, tree.name, {name: branch.shape for name, branch in branches.items()})
    _check_single(path, branches, wanted)
    with _damage(path, f"is damaged: its tree {tree.name!r} cannot be read"):
        _check_sizes(path, tree, branches, wanted, chunk)
    first = many = 0
    arrays = tree.iterate(filter_name=lambda name: name in wanted, step_size=chunk, library="ak")
    while True:
        with _damage(path, f"is damaged or incomplete after event {first}"):
            found = next(arrays, None)
        if found is None:
            break
        content, more = content_of(path, partial(lists.content, found, first))
        many += more
        content["provenance"] = provenance | ({MORE: many} if many else {})
        if own is not None:
            content["units"] = [own.units.get(column, "") for column in content["names"]]
            checksums.add(to_columns(part(path, first, None, content)))
        yield part(path, first, columns, content, multiplicity)
        first += len(found)
    if own is not None:
        own.check_content(path, first, checksums)
    if first == 0:
        raise FileFormatError(f"{path} holds no sample of events: its tree is empty")


def _own_layout(
    path: Path, own: Labels, columns: tuple[str, ...] | None, asked: Multiplicity | None
) -> Multiplicity | None:
    """The layout of the columns that are kept of a file of pyrogen's."""
    if own.multiplicity is None:
        return asked
    chosen = [own.names.index(name) for name in columns or own.names if name in own.names]
    known = selected(own.multiplicity, chosen, own.names)
    require(asked in (None, known), "multiplicity", asked, f"that of {path}, {known}, or be left out")
    return known


@contextlib.contextmanager
def _damage(path: Path, what: str) -> Iterator[None]:
    """Whatever uproot raises of a damaged file names the file."""
    try:
        yield
    except FileFormatError:
        raise
    except Exception as error:  # uproot has no class of its own for this
        raise FileFormatError(f"{path} {what}: {reason(error)}") from error


def _tree_name(path: Path, kinds: dict[str, str], dataset: str | None) -> str:
    trees = sorted(name for name, kind in kinds.items() if kind in _TREES)
    if dataset is not None:
        if dataset not in trees:
            raise ValueError(f"{path} has no tree {dataset!r}; its trees are {', '.join(trees) or 'none'}")
        return dataset
    if len(trees) > 1:
        raise ValueError(f'{path} holds several trees; choose one with dataset="name": {", ".join(trees)}')
    if not trees:
        raise ValueError(f"{path} holds no TTree or RNTuple of events")
    return trees[0]


@dataclass(frozen=True)
class _Branch:
    """A branch of a TTree or a field of an RNTuple.

    Attributes:
        path: its name with those of its parents.
        branch: of uproot.
        kind: its type in C++.
        shape: of what it holds for each event; None where it differs from event to event or is no number.
        twice: whether another one has its name.
    """

    path: str
    branch: Any
    kind: str
    shape: tuple[int, ...] | None
    twice: bool = False


def _branches(tree: Any) -> dict[str, _Branch]:
    """The branches by name; fields of records in an RNTuple are called ``record.field``."""
    found: dict[str, _Branch] = {}
    records = "RNTuple" in tree.classname
    items = tree.items()
    names = [name for name, _ in (items if records else tree.items(full_paths=False))]
    for name, (full, branch) in zip(names, items, strict=True):
        if _is_group(branch, records):
            continue
        shape = None if records and _is_in_collection(branch) else _numbers_per_event(branch)
        found[name] = _Branch(full, branch, branch.typename, shape, twice=name in found)
    return found


def _wanted(path: Path, branches: dict[str, _Branch], name: str, columns: tuple[str, ...] | None) -> set[str]:
    """Names of the branches to read: those of the columns, of weights and their kin."""
    flat = [branch for branch, it in branches.items() if it.shape is not None]
    uneven = [branch for branch, it in branches.items() if it.shape is None]
    if columns is None:
        if uneven:
            raise ValueError(
                f"{path}: branch {uneven[0]!r} of tree {name!r} ({branches[uneven[0]].kind}) is not one number for "
                f"each event; choose others with columns=[...]: {', '.join(flat) or 'there are none'}. If it is a "
                "list of objects, such as jets, read(..., shared=[...], objects=[...], most=3) reads it"
            )
        _check_single(path, branches, flat)
        return set(flat)
    holders = {
        column: branch
        for branch in flat
        for column in expand(branch, np.empty((0, *branches[branch].shape)))  # type: ignore[misc]
    }
    for column in columns:
        if column in uneven:
            raise ValueError(
                f"{path}: branch {column!r} of tree {name!r} ({branches[column].kind}) is not one number for each "
                "event; leave it out of columns, or write one number of it into a branch of its own"
            )
        if column not in holders:
            raise ValueError(f"{path} has no column {column!r}; those of tree {name!r} are {', '.join(holders)}")
    wanted = {branch for column, branch in holders.items() if column in columns or is_reserved(column)}
    _check_single(path, branches, wanted)
    return wanted


def _check_single(path: Path, branches: dict[str, _Branch], wanted: Iterable[str]) -> None:
    for name in wanted:
        if branches[name].twice:
            raise ValueError(
                f"{path}: several branches have the name {name!r}, the last is {branches[name].path!r}; only one can "
                "be a column: rename them, or leave it out with columns=[...]"
            )


def _is_in_collection(field: Any) -> bool:
    """Whether an event may have several of a field of an RNTuple; the items of collections have no name."""
    parent = field.parent
    while hasattr(parent, "is_anonymous"):
        if parent.is_anonymous:
            return True
        parent = parent.parent
    return False


def _is_group(branch: Any, field: bool) -> bool:
    """Whether it is only the parent of branches, which are listed too."""
    import uproot

    if field:
        return len(branch.fields) > 0
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


def _check_sizes(path: Path, tree: Any, branches: dict[str, _Branch], wanted: set[str], chunk: int) -> None:
    """Check what a tree says of its size against its branches and the file, before memory is taken for it."""
    entries = int(tree.num_entries)
    for name in wanted:
        offsets = getattr(branches[name].branch, "entry_offsets", [entries])
        if offsets[-1] != entries:
            raise FileFormatError(f"{path} is damaged: its branch {name!r} has {offsets[-1]} of {entries} events")
    numbers = sum(math.prod(branches[name].shape or ()) for name in wanted)
    need, there = 8 * numbers * min(chunk, entries), path.stat().st_size
    if need > _SMALL and need > _LARGEST_COMPRESSION * there:
        raise FileFormatError(
            f"{path} is damaged: it has {there} bytes, and its {numbers} numbers for each of {entries} events need "
            "far more memory than a file of this size can fill"
        )


def _arrays(
    path: Path, tree: Any, wanted: set[str], chunk: int, own: Labels | None
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Columns of the events from the first on, ``chunk`` at a time."""
    # By a function: names may have characters that mean something in uproot's expressions.
    arrays = tree.iterate(filter_name=lambda name: name in wanted, step_size=chunk, library="np")
    first = 0
    checksums = Checksums()
    while True:
        with _damage(path, f"is damaged or incomplete after event {first}"):
            found = next(arrays, None)
        if found is None:
            break
        columns = content_of(path, lambda: spread(pair for item in found.items() for pair in _fields(*item)))  # noqa: B023
        if own is not None:
            checksums.add(columns)
        yield first, columns
        first += len(next(iter(columns.values())))
    if own is not None:
        own.check_content(path, first, checksums)
    if first == 0:
        raise FileFormatError(f"{path} holds no sample of events: its tree is empty")


def _fields(name: str, array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """A column, or the columns of a record."""
    if array.dtype.names is None:
        yield name, array
    for field in array.dtype.names or ():
        yield from _fields(f"{name}.{field}", array[field])
