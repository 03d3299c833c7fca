"""Samples of events in many files, which a JSON file lists with their checksums."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import FileFormatError, write_bytes
from .format import LAYOUT, PER_EVENT, Format, format_of
from .sample import EventSample

SUFFIX = ".json"
FORMAT, VERSION = "pyrogen events in parts", 1


@dataclass(frozen=True)
class Part:
    """One of the files.

    Attributes:
        file: its path, from the folder of the manifest.
        events: how many it has.
        sha256: of the whole file.
    """

    file: str
    events: int
    sha256: str


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_manifest(path: Path, parts: Sequence[Part], made: Mapping[str, Any]) -> None:
    """Write the list of the parts of a sample.

    Args:
        path: the manifest.
        parts: in the order of the events.
        made: how they were made, in JSON types.

    Raises:
        OSError: the file cannot be written.
    """
    told = {"format": FORMAT, "version": VERSION, "events": sum(part.events for part in parts), "made": made}
    content = told | {"parts": [vars(part) for part in parts]}
    write_bytes(path, (json.dumps(content, indent=1) + "\n").encode())


def read_manifest(path: Path) -> list[Part]:
    """The parts that a manifest lists.

    Raises:
        FileFormatError: it is no manifest, damaged, or of a newer version.
    """
    try:
        content = json.loads(path.read_bytes())
        if content["format"] != FORMAT:
            raise KeyError("format")
        newer = content["version"] > VERSION
        parts = [Part(str(one["file"]), int(one["events"]), str(one["sha256"])) for one in content["parts"]]
    except (ValueError, KeyError, TypeError) as error:
        raise FileFormatError(
            f"{path} is no list of event files that pyrogen wrote, or it is damaged; only such JSON files are read"
        ) from error
    if newer:
        raise FileFormatError(f"{path} has version {content['version']}; this pyrogen reads up to {VERSION}")
    if not parts or sum(part.events for part in parts) != content.get("events"):
        raise FileFormatError(f"{path} is damaged: the events of its parts do not sum to its number of events")
    return parts


class Manifest(Format, suffixes=(SUFFIX,)):
    """JSON files that list HDF5 files of events with their numbers of events and SHA-256.

    ``Posterior.generate_to("events.json", n)`` writes them, and leaves its parts as they are. Reading checks the
    SHA-256 of every part before its events are given out. Such a file::

        {"format": "pyrogen events in parts", "version": 1, "events": 100000,
         "made": {"posterior": ..., "seed": 0, "n": 100000, ...},
         "parts": [{"file": "events.json.parts/000000.h5", "events": 50000, "sha256": ...}, ...]}
    """

    label = "JSON"
    keeps = (*PER_EVENT, LAYOUT)
    why_whole = "it lists parts, which Posterior.generate_to makes"

    def parts(self, chunk: int, columns: tuple[str, ...] | None, options: Any) -> Iterator[EventSample]:
        waiting: list[EventSample] = []
        for part in read_manifest(self.path):
            file = format_of(self._checked(part), "read")
            for sample in file.parts(chunk, columns, file.reading()):
                waiting.append(sample)
                while sum(map(len, waiting)) >= chunk:
                    joined = waiting[0] if len(waiting) == 1 else EventSample.concatenate(waiting)
                    yield joined[:chunk] if len(joined) > chunk else joined
                    waiting = [joined[chunk:]] if len(joined) > chunk else []
        if waiting:
            yield EventSample.concatenate(waiting)

    def _checked(self, part: Part) -> Path:
        """The file of a part, after a look at its checksum.

        Raises:
            FileFormatError: it is missing, or its content is another one.
        """
        path = self.path.parent / part.file
        again = "repeat the generate_to that made it, which makes this part again"
        if not path.exists():
            raise FileFormatError(f"{self.path} lists {path}, which is missing; {again}")
        if sha256_of(path) != part.sha256:
            raise FileFormatError(f"{path} is damaged: its SHA-256 is not the one that {self.path} has; {again}")
        return path
