"""What a ROOT file of pyrogen says of itself: names, units, provenance, its branches and their checksums."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..files import FileFormatError
from .columns import is_reserved
from .format import LAYOUT
from .multiplicity import Multiplicity
from .tables import reason

TREE, LABELS, TITLE = "events", "pyrogen", "events of pyrogen"
_EARLY = {"names", "units", "provenance"}  # what the first files had
_ENTRIES = _EARLY | {"branches", "entries", "checksums", "digest"}
_WITH_LAYOUT = _ENTRIES | {LAYOUT}  # of events with a varying number of objects
_WITH_LISTS = _WITH_LAYOUT | {"objects"}  # which are in lists


class Checksums:
    """CRC-32 of columns by name, part after part."""

    def __init__(self) -> None:
        self.values: dict[str, int] = {}

    def add(self, columns: Mapping[str, np.ndarray]) -> None:
        """Take in the next rows."""
        for name, column in columns.items():
            numbers = np.ascontiguousarray(column, "<f8").view(np.uint8).data
            self.values[name] = zlib.crc32(numbers, self.values.get(name, 0))


@dataclass(frozen=True)
class Labels:
    """What a file says of itself; branches, entries and checksums are None in early files."""

    names: tuple[str, ...]
    units: dict[str, str]
    provenance: dict[str, Any]
    branches: list[str] | None
    entries: int | None
    checksums: dict[str, int] | None
    multiplicity: Multiplicity | None = None
    objects: str | None = None

    def check_branches(self, path: Path, found: list[str]) -> None:
        """Raise a FileFormatError where the branches are not those that were written."""
        expected = self.branches or [*self.names, *(name for name in found if is_reserved(name))]
        if sorted(found) != sorted(expected):
            odd = ", ".join(sorted(set(found) ^ set(expected)))
            raise FileFormatError(f"{path} is damaged: its branches are not those that were written ({odd})")

    def check_content(self, path: Path, entries: int, found: Checksums) -> None:
        """Raise a FileFormatError where what was read is not what was written."""
        if self.checksums is None:
            return
        if entries != self.entries:
            raise FileFormatError(f"{path} is damaged: it has {entries} events, and {self.entries} were written")
        wrong = [name for name, value in found.values.items() if self.checksums.get(name) != value]
        if wrong:
            raise FileFormatError(f"{path} is damaged: the checksum of its branch {wrong[0]!r} is wrong")


def labels_text(told: Mapping[str, Any], entries: int, checksums: Checksums) -> str:
    """The text of the object ``pyrogen``."""
    content = {**told, "entries": entries, "checksums": checksums.values}
    return json.dumps(content | {"digest": _digest(content)}, sort_keys=True)


def own_labels(path: Path, texts: Mapping[str, str]) -> Labels | None:
    """What a file of pyrogen's says of itself, of the texts in it by name; None for other files.

    Raises:
        FileFormatError: a text that is damaged, or stands under another name.
    """
    if LABELS not in texts:
        for name, text in texts.items():
            if sum(f'"{entry}"' in text for entry in _EARLY) >= 2:
                raise FileFormatError(f"{path} is damaged: its object {LABELS!r} is called {name!r}")
        return None
    try:
        content = json.loads(texts[LABELS])
        if set(content) not in (_EARLY, _ENTRIES, _WITH_LAYOUT, _WITH_LISTS):
            raise ValueError(f"its entries are {', '.join(map(str, content))}")
        if "digest" in content and content.pop("digest") != _digest(content):
            raise ValueError("its digest is wrong")
        names, units, provenance = content["names"], content["units"], content["provenance"]
        if not isinstance(provenance, dict):
            raise ValueError("its provenance is no dict")
        layout = Multiplicity.from_config(content[LAYOUT]) if LAYOUT in content else None
        branches, entries, checksums = (content.get(entry) for entry in ("branches", "entries", "checksums"))
        labels = dict(zip(names, units, strict=True))
        return Labels(tuple(names), labels, provenance, branches, entries, checksums, layout, content.get("objects"))
    except Exception as error:  # whatever JSON can hold
        raise FileFormatError(f"{path}: its object {LABELS!r} is not what pyrogen writes: {reason(error)}") from error


def check_no_labels(path: Path, own: Labels | None) -> None:
    """Raise a FileFormatError where a file of pyrogen's has lost its tree."""
    if own is not None:
        raise FileFormatError(f"{path} is damaged: its tree {TREE!r} is missing")


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
