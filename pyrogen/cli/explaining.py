"""Mistakes in cards and flags, in one line: where, what, and what would be right."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from pyrogen.cli import classes
from pyrogen.cli.problems import CommandError, nearest

Given = tuple[str, Any, str]  # the name of a key or flag, its value, and where it stands
_FILLED = {  # settings of the classes that a card has elsewhere
    "seed": "the key seed of the card is for all of the run",
    "device": "the key device of the card is for all of the run",
    "checkpoint": "it is in the run folder",
    "progress": "the command shows it",
    "features": "the columns of the events say it",
    "context": "events.context says it",
}
_KEY = re.compile(r'key "([\w.-]+)"')


def check_keys(
    card: Mapping[str, Any],
    keys: Mapping[str, Any],
    places: Mapping[str, str],
    kinds: Mapping[str, type[Any]],
    command: str,
) -> None:
    """Refuse keys that do not exist."""
    sections = {key.partition(".")[0] for key in keys if "." in key}
    top = sections | {key for key in keys if "." not in key}
    for name, value in card.items():
        where = f"{places.get(str(name), 'the card')}: "
        if name not in top:
            inside = [key for key in keys if key.endswith(f".{name}")]
            hint = f"; it belongs below {inside[0].partition('.')[0]}:" if inside else nearest(str(name), sorted(top))
            if name == "calibrate":
                hint = "; such a card is for pyrogen calibrate"
            raise CommandError(f"{where}there is no key {name!r} in a card of pyrogen {command}{hint}")
        if name not in sections:
            continue
        own = [key.partition(".")[2] for key in keys if key.startswith(f"{name}.")]
        if value is not None and not isinstance(value, Mapping):
            raise CommandError(f"{where}{name} is {value!r}; it must be a section with keys such as {own[0]}")
        for key in value or {}:
            if key not in own:
                what = f"{name} ({kinds[name].__name__})" if name in kinds else name
                place = places.get(f"{name}.{key}", "the card")
                raise CommandError(f"{place}: there is no key {key!r} in {what}{_hint_for(str(name), str(key), own)}")


def _hint_for(section: str, key: str, own: Sequence[str]) -> str:
    """What to do instead of a key that a section does not have."""
    if key in classes.FILLED.get(section, ()):
        return f"; {_FILLED[key]}"
    owners = classes.owners(section, key)
    if owners:
        return f"; {', '.join(owners)} {'have' if len(owners) > 1 else 'has'} it"
    return nearest(key, own)


def explained(error: Exception, keys: Mapping[str, Any], given: Mapping[str, Given]) -> str:
    """An error of jsonargparse in one line: the place, the key, the value and what would be right.

    Args:
        error: what it raised.
        keys: the actions of its parser by key.
        given: what was given, by key.
    """
    text = str(error)
    unknown = re.search(r"[uU]nrecognized arguments: (\S+)", text)
    if unknown:
        flag = unknown[1].partition("=")[0]
        if not flag.startswith("-"):
            return f"unexpected argument {flag!r}; flags begin with --"
        section, _, key = flag.removeprefix("--").partition(".")
        if any(name.startswith(f"{section}.") for name in keys) and classes.owners(section, key):
            return f"there is no flag {flag}{_hint_for(section, key, ())}"
        return f"there is no flag {flag}{nearest(flag, [f'--{name}' for name in keys])}"
    bare = re.search(r"argument (?:-\w/)?--([\w.]+): expected", text)
    if bare:
        return f"--{bare[1]} needs a value: {words(hint_of(keys, bare[1]))}"
    missing = re.search(r"arguments are required: (.+)", text)
    if missing:
        name = missing[1].split(",")[0]
        flags = getattr(keys.get(name), "option_strings", None)
        return f"{' or '.join(flags or [name])} is missing; --help tells what it is"
    key = _KEY.search(text)
    if key is None or key[1] not in keys:
        return " ".join(text.split())
    name, value, place = given.get(key[1], (key[1], None, ""))
    return f"{place}{name} is {value!r}; it must be {words(hint_of(keys, key[1]))}"


def hint_of(keys: Mapping[str, Any], key: str) -> Any:
    return getattr(keys.get(key), "_typehint", None)


def words(hint: Any) -> str:
    """A type in words of people."""
    simple: dict[Any, str] = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "a text",
        type(None): "null",
        torch.dtype: "float32 or float64",
    }
    if hint in simple:
        return simple[hint]
    if typing.get_origin(hint) is typing.Literal:
        return f"one of {', '.join(map(str, typing.get_args(hint)))}"
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(words(each) for each in inner))
    if origin is tuple and inner and inner[-1] is not Ellipsis:
        return f"{len(inner)} {words(inner[0]).removeprefix('a ')}s in brackets, such as [0.9, 0.99]"
    if origin in (list, tuple) or "Sequence" in str(origin):
        kind = words(inner[0]).removeprefix("a ") if inner else "value"
        return f"a list of {kind}s in brackets, such as {'[pt, eta]' if inner[:1] == (str,) else '[32, 32]'}"
    if origin is dict:
        return "a mapping of names to numbers"
    return f"a {getattr(hint, '__name__', hint)}"


def plain_text(text: str) -> str:
    """The text of a docstring without its markup."""
    return re.sub(r":\w+:`~?(?:\w+\.)*([^`]*)`", r"\1", text).replace("``", "")
