"""Checksums in a file beside: formats such as ``.npy`` and plain ``.lhe`` have none of their own."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from ..files import FileFormatError


def check_sidecar(path: Path) -> None:
    """Compare a file with its SHA-256 in ``<name>.sha256`` beside it, as ``sha256sum`` writes it, if there is one.

    Raises:
        FileFormatError: another checksum, or none of this file.
    """
    sidecar = path.with_name(f"{path.name}.sha256")
    if not sidecar.is_file():
        return
    lines = [line for line in sidecar.read_text(errors="replace").splitlines() if line.strip()]
    wanted = {digest for name, digest in map(_entry, lines) if digest and (len(lines) == 1 or name == path.name)}
    if not wanted:
        raise FileFormatError(f"{sidecar} holds no SHA-256 of {path.name}; write it with sha256sum, or delete it")
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found not in wanted:
        raise FileFormatError(
            f"{path} is damaged, or newer than its checksum: its SHA-256 is {found}, but {sidecar.name} has "
            f"{' or '.join(sorted(wanted))}. Copy the file again, or make the checksum again if you changed the file"
        )


def _entry(line: str) -> tuple[str, str]:
    """Name and SHA-256 in a line ``sha256  name`` or ``SHA256 (name) = sha256``; no SHA-256 where there is none."""
    found = re.search(r"\b[0-9a-fA-F]{64}\b", line)
    if found is None:
        return line, ""
    rest = line.replace(found[0], "").strip(" \t*=").removeprefix("SHA256 (").removesuffix(")")
    return Path(rest).name, found[0].lower()
