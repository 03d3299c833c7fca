"""Records from JSON: frozen dataclasses, whose entries are checked by the types that they have there."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

R = TypeVar("R")


def record_of(kind: type[R], content: Mapping[str, Any], where: str) -> R:
    """A dataclass of what :func:`dataclasses.asdict` made of it, also after it was JSON.

    Raises:
        ValueError: an entry that does not exist, is missing or has another type, by name.
    """
    check(isinstance(content, Mapping), where, content, "a mapping")
    hints = get_type_hints(kind)
    for entry in fields(kind):  # type: ignore[arg-type]
        given = entry.name in content or entry.default is not MISSING or entry.default_factory is not MISSING
        check(given, f"{where}.{entry.name}", "missing", _told(hints[entry.name]))
    for name, value in content.items():
        check(name in hints, f"{where}.{name}", value, "left out: there is no such entry")
        check(_is_a(value, hints[name]), f"{where}.{name}", value, _told(hints[name]))
    return kind(**{name: _converted(value, hints[name], f"{where}.{name}") for name, value in content.items()})


def check(good: bool, name: str, value: Any, right: str) -> None:
    """Raise a ValueError with the name and the value of an entry, and what is right, unless it is good."""
    if not good:
        raise ValueError(f"{name} is {str(value)[:80]!r}; it must be {right}")


def _told(hint: Any) -> str:
    """A type in words."""
    return str(hint) if get_args(hint) else str(getattr(hint, "__name__", hint))


def _is_a(value: Any, hint: Any) -> bool:
    """Whether a value of JSON can stand for one of a type."""
    kind = get_origin(hint) or hint
    if hint is Any:
        return True
    if kind in (Union, types.UnionType):
        return any(_is_a(value, one) for one in get_args(hint))
    if kind is tuple:
        first, *others = get_args(hint)
        fits = isinstance(value, (list, tuple)) and (... in others or len(value) == 1 + len(others))
        return fits and all(_is_a(one, first) for one in value)
    if is_dataclass(kind):
        return isinstance(value, Mapping)
    if kind is float:
        kind = (int, float)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _converted(value: Any, hint: Any, where: str) -> Any:
    """A checked value of JSON as one of its type: tuples for lists, records for mappings."""
    kind = get_origin(hint) or hint
    if kind in (Union, types.UnionType):
        return _converted(value, next(one for one in get_args(hint) if _is_a(value, one)), where)
    if kind is tuple:
        return tuple(_converted(one, get_args(hint)[0], f"{where}.{i}") for i, one in enumerate(value))
    if is_dataclass(kind):
        return record_of(kind, value, where)  # type: ignore[arg-type]
    return float(value) if kind is float else value
