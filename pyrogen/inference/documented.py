"""Docstrings that tell all arguments of a class, those that it inherits too."""

from __future__ import annotations

import inspect
import re

_ENTRY = re.compile(r"^    (\w+(?:, \w+)*):")


def inherit_arguments(cls: type) -> None:
    """Complete the section ``Args:`` of a class by the arguments that stand in the docstring of its base alone.

    So every class tells all of its arguments where users look for them, and each text is written once.
    """
    own, theirs = inspect.cleandoc(cls.__doc__ or ""), inspect.cleandoc(cls.__mro__[1].__doc__ or "")
    inherited = _arguments(theirs)
    if not own or not inherited:
        return
    known = {name for names, _ in _arguments(own) for name in names}
    missing = [text for names, text in inherited if not known.issuperset(names)]
    if "\nArgs:\n" not in own:
        own += "\n\nArgs:\n"
    before, _, after = own.partition("\nArgs:\n")
    entries, blank, rest = after.partition("\n\n")
    lines = [entries.rstrip("\n"), *missing] if entries.strip() else missing
    cls.__doc__ = f"{before}\nArgs:\n" + "\n".join(lines) + blank + rest


def _arguments(text: str) -> list[tuple[tuple[str, ...], str]]:
    """The entries of the section ``Args:``: the names that each explains, and its text."""
    _, _, section = text.partition("\nArgs:\n")
    found: list[tuple[tuple[str, ...], str]] = []
    for line in section.partition("\n\n")[0].splitlines():
        entry = _ENTRY.match(line)
        if entry:
            found.append((tuple(entry[1].split(", ")), line))
        elif found:
            names, lines = found[-1]
            found[-1] = names, f"{lines}\n{line}"
    return found
