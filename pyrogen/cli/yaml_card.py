"""YAML run cards: read with the line of every key, and written with a comment on every key."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from pyrogen.cli.problems import CommandError

WIDTH = 100  # characters of a line of a card


class _Loader(yaml.SafeLoader):
    """Plain YAML, in which ``1e-3`` is a number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d[\d_]*\.?|\.\d)[\d_]*([eE][-+]?\d+)$"), list("-+.0123456789")
)


def value_of(text: str) -> Any:
    """The value of a flag, as it would stand in a card.

    Raises:
        ValueError: no YAML.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{text!r} cannot be read: {_told(error)}") from None


def read_card(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """A card, and where each of its keys stands.

    Returns:
        The card, and by key with its sections (``"backend.epochs"``) ``"card.yaml, line 7"``.

    Raises:
        CommandError: no such file, no YAML, no mapping, or a key that is there twice.
    """
    if path.is_dir():
        raise CommandError(
            f"{path} is a folder; give a run card, a YAML file (pyrogen resume {path} goes on with a run)"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CommandError(f"no such card: {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{path} cannot be read as a card: {getattr(error, 'strerror', None) or error}") from None
    try:
        node = yaml.compose(text, _Loader)
        if node is None:
            return {}, {}
        if not isinstance(node, yaml.MappingNode):
            raise CommandError(f"{path} is no run card: it must have lines such as 'events: events.h5'")
        places = {key: f"{path}, line {line}" for key, line in _lines(node, str(path))}
        return yaml.load(text, _Loader), places
    except yaml.YAMLError as error:
        raise CommandError(f"{path} is no YAML: {_told(error)}") from None


def _lines(node: yaml.MappingNode, path: str, before: str = "") -> Iterator[tuple[str, int]]:
    seen: dict[str, int] = {}
    for name, value in node.value:
        line = name.start_mark.line + 1
        key = f"{before}{name.value}"
        if key in seen:
            raise CommandError(f"{path}, line {line}: {key} is there twice, first in line {seen[key]}; leave one out")
        seen[key] = line
        yield key, line
        if isinstance(value, yaml.MappingNode):
            yield from _lines(value, path, f"{key}.")


def _told(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f"line {mark.line + 1}: " if mark is not None else ""
    return where + str(getattr(error, "problem", None) or error).splitlines()[0]


def written(card: Mapping[str, Any], told: Mapping[str, str], before: str = "") -> str:
    """A card as YAML.

    Args:
        card: sections and values, in JSON types.
        told: what keys mean, by key with its sections; they become comments.
        before: the section.
    """
    lines: list[str] = []
    indent = "  " * before.count(".")
    for name, value in card.items():
        key = f"{before}{name}"
        comment = " ".join(told.get(key, "").split())
        lines += textwrap.wrap(comment, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
        if isinstance(value, Mapping) and value and key.count(".") == 0:
            lines += [f"{indent}{name}:", written(value, told, f"{key}.").rstrip("\n")]
        else:
            lines.append(f"{indent}{name}: {_flow(value)}")
    return "\n".join(lines) + "\n"


def _flow(value: Any) -> str:
    """A value in one line: JSON, which is YAML, but for words that need no quotes."""
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z./][\w./-]*", value) and value_of(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False)
