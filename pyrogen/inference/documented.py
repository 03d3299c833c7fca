"""Docstrings that tell all arguments of a class, those that it inherits too."""

from __future__ import annotations

import inspect
import re

SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises")
_HEADING = re.compile(rf"^({'|'.join(SECTIONS)}):$")
_ENTRY = re.compile(r"^    (\w+(?:, \w+)*):")


def inherit_arguments(cls: type) -> None:
    """Complete the section ``Args:`` of a class by the arguments that stand in the docstrings of its bases alone.

    So every class tells all of its arguments where users look for them, and each text is written once. A class that
    says nothing of its errors says what its bases do.
    """
    if not cls.__doc__:
        return
    text, sections = _parts(cls.__doc__)
    entries = _entries(sections.get("Args", ""))
    raises = sections.get("Raises", "")
    for base in cls.__mro__[1:]:
        theirs = _parts(base.__doc__ or "")[1]
        known = {name for names, _ in entries for name in names}
        entries += [(names, entry) for names, entry in _entries(theirs.get("Args", "")) if not known.issuperset(names)]
        raises = raises or theirs.get("Raises", "")
    if entries:
        sections["Args"] = "\n".join(entry for _, entry in entries)
    if raises:
        sections["Raises"] = raises
    written = [f"{name}:\n{sections[name]}" for name in SECTIONS if name in sections]
    cls.__doc__ = "\n\n".join([text, *written]) + "\n"


def _parts(doc: str) -> tuple[str, dict[str, str]]:
    """The text of a docstring, and its sections by name."""
    text: list[str] = []
    sections: dict[str, list[str]] = {}
    current = text
    for line in inspect.cleandoc(doc).splitlines():
        heading = _HEADING.match(line)
        if heading:
            current = sections.setdefault(heading[1], [])
        elif line and not line.startswith(" ") and current is not text:
            current = text  # a paragraph behind a section belongs to the text
            text += ["", line]
        else:
            current.append(line)
    paragraphs = re.sub(r"\n{3,}", "\n\n", "\n".join(text).strip())
    return paragraphs, {name: "\n".join(lines).rstrip() for name, lines in sections.items()}


def _entries(section: str) -> list[tuple[tuple[str, ...], str]]:
    """The entries of a section ``Args:``: the names that each explains, and its text."""
    found: list[tuple[tuple[str, ...], str]] = []
    for line in section.splitlines():
        entry = _ENTRY.match(line)
        if entry:
            found.append((tuple(entry[1].split(", ")), line))
        elif found and line:
            names, lines = found[-1]
            found[-1] = names, f"{lines}\n{line}"
    return found
