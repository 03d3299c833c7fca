"""Writing ROOT files: samples into a tree, one behind the other, objects as columns or as lists."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..checks import TEXT, check_settings, optional, require, require_extra
from .format import LAYOUT, PartWriter
from .objects import awkward, fields_of, lists_of
from .root_labels import LABELS, TITLE, TREE, Checksums, labels_text
from .sample import EventSample
from .tables import to_columns


@dataclass(frozen=True)
class Writing:
    """The options of writing ROOT files."""

    objects: str | None = None

    def __post_init__(self) -> None:
        check_settings(self, objects=optional(TEXT))


class RootWriter(PartWriter):
    """Writes samples into the tree ``events`` of a new ROOT file, one behind the other.

    Args:
        temporary: the file to write.
        first: a sample like those to come; its provenance is kept.
        options: whether objects become lists, and how these are called.

    Raises:
        ValueError: column names that stand for weights and their kin, or of objects that are to be lists and have none.
        OSError: the disk is full or read-only.
    """

    def __init__(self, temporary: Path, first: EventSample, options: Writing) -> None:
        require_extra("uproot", "lhc", "writing ROOT files")
        import uproot

        self._objects = options.objects
        content = self._content(first)
        self._labels: dict[str, Any] = {name: getattr(first, name) for name in ("names", "units", "provenance")}
        self._labels["branches"] = list(content)
        if first.multiplicity is not None:
            self._labels[LAYOUT] = first.multiplicity.config()
        if self._objects is not None:
            fields = content[self._objects].fields
            flat = [name for name in content if name != self._objects]
            lists = [f"n{self._objects}", *(f"{self._objects}_{field}" for field in fields)]
            taken = sorted(set(flat) & set(lists))
            require(not taken, "objects", self._objects, f"another name: {', '.join(taken)} is a column")
            self._labels |= {"objects": self._objects, "branches": [*flat, *lists]}
        self._disk = open(temporary, "w+b")  # noqa: SIM115 (closed in close)
        self._file = uproot.recreate(self._disk)
        kinds = {name: np.float64 if isinstance(c, np.ndarray) else c.type.content for name, c in content.items()}
        self._tree = self._file.mktree(TREE, kinds, title=TITLE)
        self._checksums, self._entries = Checksums(), 0

    def write(self, sample: EventSample) -> None:
        self._tree.extend(self._content(sample))
        columns = to_columns(sample)
        if self._objects is not None:  # where lists end, the reader puts a NaN of its own
            columns = {name: np.where(np.isnan(column), np.nan, column) for name, column in columns.items()}
        self._checksums.add(columns)
        self._entries += len(sample)

    def close(self) -> None:
        with self._disk:
            self._file[LABELS] = labels_text(self._labels, self._entries, self._checksums)
            self._file.close()

    def _content(self, sample: EventSample) -> dict[str, Any]:
        """What the tree gets of a sample, by name: numbers, or a list of records."""
        columns = {name: np.ascontiguousarray(column) for name, column in to_columns(sample).items()}
        if self._objects is None:
            return columns
        layout = sample.multiplicity
        if layout is None:
            raise ValueError(
                f"objects is {self._objects!r}; it must be left out, because the sample has no multiplicity"
            )
        fields, _ = fields_of(layout, sample.names)
        lists = awkward().zip(dict(zip(fields, lists_of(layout, sample.values), strict=True)))
        return {name: column for name, column in columns.items() if name not in sample.names[layout.shared :]} | {
            self._objects: lists
        }
