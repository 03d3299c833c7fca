"""Lists of objects in trees of ROOT, such as ``Jet_pt[nJet]``: which branches they are, and their padded columns."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..checks import TEXT, check_settings, optional, require
from .columns import is_reserved
from .multiplicity import LAYOUT, Multiplicity
from .objects import Limits, awkward, fields_of, padded_objects, with_objects
from .root_labels import Labels

Names = Mapping[str, str] | Sequence[str]


@dataclass(frozen=True)
class ObjectBranches:
    """Which branches of a tree make up events with a varying number of objects.

    Args:
        shared: branches with one number for each event, by the name of the column.
        fields: branches with a list for each event, by the name of the field.
        label: what columns call an object: ``pt_Jet1``.
        limits: which numbers of objects there may be.
    """

    shared: Mapping[str, str]
    fields: Mapping[str, str]
    label: str
    limits: Limits

    @classmethod
    def of(cls, shared: Names, objects: Names, label: str | None, limits: Limits) -> ObjectBranches:
        """From the options of a user: mappings, or names of branches such as ``Jet_pt, Jet_eta``."""
        for what, names in (("shared", shared), ("objects", objects)):
            flat = list(names.items() if isinstance(names, Mapping) else [(name, name) for name in names])
            good = not isinstance(names, str) and all(isinstance(word, str) for pair in flat for word in pair)
            require(good and (flat != [] or what == "shared"), what, names, "names of branches, or {name: branch}")
        columns = shared if isinstance(shared, Mapping) else {name: name for name in shared}
        if isinstance(objects, Mapping):
            return cls(columns, objects, label or "j", limits)
        pairs = [re.split("[_.]", name, maxsplit=1) for name in objects]
        collections = {collection for collection, *_ in pairs}
        if len(collections) != 1 or not all(field and all(field) for _, *field in pairs):
            right = 'branches of one collection, such as "Jet_pt", "Jet_eta", or {"pt": "jetpt", "eta": "jeteta"}'
            require(False, "objects", objects, right)
        fields = {field: branch for (_, field), branch in zip(pairs, objects, strict=True)}
        return cls(columns, fields, label or collections.pop(), limits)

    @classmethod
    def written(cls, own: Labels) -> ObjectBranches:
        """Those of a file of pyrogen's, which may be in any order."""
        layout = own.multiplicity
        assert layout is not None
        fields, label = fields_of(layout, own.names)
        branches = {field: f"{own.objects}_{field}" for field in fields}
        limits = Limits(layout.most, layout.least, unsorted="keep")
        return cls({name: name for name in own.names[: layout.shared]}, branches, label, limits)

    def wanted(self, path: Any, tree: str, shapes: Mapping[str, tuple[int, ...] | None]) -> set[str]:
        """The branches to read, with those of weights and their kin.

        Raises:
            ValueError: a branch that is not there, or that has not one number for each event, or not a list.
        """
        flat = [name for name, shape in shapes.items() if shape == ()]
        lists = [name for name, shape in shapes.items() if shape is None]
        for what, branches, able in (("shared", self.shared, flat), ("objects", self.fields, lists)):
            for branch in branches.values():
                if branch not in able:
                    kind = "one number for each event" if what == "shared" else "a list of numbers for each event"
                    raise ValueError(
                        f"{path}: {what} has {branch!r}, which is no branch of tree {tree!r} with {kind}; those are "
                        f"{', '.join(able) or 'none'}"
                    )
        return {*self.shared.values(), *self.fields.values(), *filter(is_reserved, flat)}

    def content(self, arrays: Any, first: int) -> tuple[dict[str, Any], int]:
        """Arguments of a sample, and the number of events with more objects than are kept.

        Args:
            arrays: records of awkward, with the branches as fields.
            first: number of the first event, for errors.
        """
        ak = awkward()

        lists = {field: _branch(arrays, branch) for field, branch in self.fields.items()}
        for field, values in lists.items():
            if values.ndim != 2 or values.fields:
                name = self.fields[field]
                raise ValueError(f"the branch {name!r} is no list of numbers for each event: {values.type}")
        padded = padded_objects(lists, self.limits, first)
        columns = {name: np.asarray(_branch(arrays, branch)) for name, branch in self.shared.items()}
        kin = [name for name in arrays.fields if is_reserved(name) and name not in self.shared.values()]
        columns |= {name: np.asarray(arrays[name]) for name in kin}
        many = int(ak.sum(ak.num(next(iter(lists.values())), axis=1) > self.limits.most))
        return with_objects(columns.items(), padded, list(lists), self.label, self.limits), many


def _branch(arrays: Any, name: str) -> Any:
    """A branch of a TTree, or a field of an RNTuple, which may be within a record: ``Jet.pt``."""
    return arrays[name] if name in arrays.fields else arrays[tuple(name.split("."))]


@dataclass(frozen=True)
class Reading:
    """The options of reading ROOT files."""

    dataset: str | None = None
    multiplicity: Multiplicity | None = None
    shared: Names | None = None
    objects: Names | None = None
    label: str | None = None
    most: int | None = None
    least: int | None = None
    surplus: str | None = None
    unsorted: str | None = None

    def __post_init__(self) -> None:
        check_settings(self, multiplicity=optional(LAYOUT), label=optional(TEXT))
        given = {name: getattr(self, name) for name in ("shared", "label", "most", "least", "surplus", "unsorted")}
        given = {name: value for name, value in given.items() if value is not None}
        if self.objects is None:
            require(not given, ", ".join(given), tuple(given.values()), "left out where objects is")
            return
        require(self.multiplicity is None, "multiplicity", self.multiplicity, "left out where objects is given")
        for name, right in (("shared", "the branches that every event has once"), ("most", "the most objects to keep")):
            require(name in given, name, None, f"given with objects: {right}")
        self.branches()

    def branches(self) -> ObjectBranches | None:
        """What to read of a tree with lists of objects."""
        if self.objects is None or self.shared is None:
            return None
        named = ("most", "least", "surplus", "unsorted")
        limits = {name: getattr(self, name) for name in named if getattr(self, name) is not None}
        return ObjectBranches.of(self.shared, self.objects, self.label, Limits(**limits))
