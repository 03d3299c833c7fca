"""From a run card and flags to checked settings, by jsonargparse: the types and the help come from the signatures."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pyrogen.cli import classes
from pyrogen.cli.explaining import Given, check_keys, explained, hint_of, plain_text
from pyrogen.cli.problems import CommandError
from pyrogen.cli.settings import Events, Model, Run
from pyrogen.cli.yaml_card import read_card, written
from pyrogen.inference import calibrate
from pyrogen.signals import uninterrupted

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

LISTS = ("columns", "context")  # keys of the events that may be texts with commas
CHOSEN = {"flow": "coupling", "backend": "svi"}  # sections that name a class, and the default
CALIBRATE = {"backend", "model", "events", "weights", "context", "posterior", "seed"}  # what the card says elsewhere
ORDER = ("events", "flow", "model", "backend", "calibrate")  # of the sections in a card
Flag = tuple[str, str | None]  # its name and its value
BARE = ("--help", "-h", "--print_config")  # flags without a value


@dataclass(frozen=True)
class Card:
    """A run card with all its settings, checked for their names and types.

    Attributes:
        values: sections and settings, in JSON types and in the order of the card file.
        settings: the same as Python objects.
        told: what the keys mean.
        places: where a key was given, such as ``"card.yaml, line 3"``.
        notes: what of the card does not count, and why.
    """

    values: dict[str, Any]
    settings: dict[str, Any]
    told: Mapping[str, str]
    places: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """The card as YAML, with a comment on every key."""
        return written(self.values, self.told)

    def section(self, name: str) -> dict[str, Any]:
        """Settings of a section, as Python objects."""
        return dict(self.settings[name])

    def with_whole_path(self) -> Card:
        """The same card with the whole path of its events: a run goes on from wherever it is resumed."""
        file = self.settings["events"]["file"]
        if file is None:
            return self
        whole = {"file": os.path.abspath(os.path.expanduser(file))}
        values = self.values | {"events": self.values["events"] | whole}
        return replace(self, values=values, settings=self.settings | {"events": self.settings["events"] | whole})

    def placed(self, error: BaseException) -> str:
        """An error with the place of the key that it names first, if that was given."""
        text = str(error)
        key = re.match(r"[\w.]+", text)
        place = self.places.get(key[0]) if key else None
        return f"{place}: {text}" if place and not place.startswith("--") else text


def new_parser(prog: str, description: str = "") -> ArgumentParser:
    """A parser of jsonargparse that raises its errors, and takes no abbreviations."""
    with uninterrupted():
        from jsonargparse import ArgumentParser
        from jsonargparse.typing import register_type

    # A second registration of the same type is an error, unless it is the same.
    with contextlib.suppress(ValueError):
        register_type(torch.dtype, _dtype_name, _dtype)
    return ArgumentParser(prog=prog, description=description, exit_on_error=False, allow_abbrev=False)


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _dtype(name: Any) -> torch.dtype:
    found = {"float32": torch.float32, "float64": torch.float64}.get(str(name).removeprefix("torch."))
    if found is None:
        raise ValueError("no such type")
    return found


def card_parser(command: str, kinds: Mapping[str, type[Any]], names: Mapping[str, str]) -> ArgumentParser:
    """The parser of a card whose flow and backend are of these classes.

    Args:
        command: ``"fit"`` or ``"calibrate"``.
        kinds: classes by section.
        names: their names, as in the card.
    """
    parser = new_parser(f"pyrogen {command}", "Every flag below is a key of the card, and counts in its place.")
    parser.add_class_arguments(Events, "events")
    for section, kind in kinds.items():
        parser.add_argument(f"--{section}.class", type=str, default=names[section], help=_choices(section))
        own = classes.parameters(section, kind)
        apart = {name: p for name, p in own.items() if classes.is_by_name(p) or p.default is p.empty}
        skip: set[str | int] = {name for name in inspect.signature(kind).parameters if name not in own or name in apart}
        parser.add_class_arguments(kind, section, skip=skip, fail_untyped=False)
        for name, parameter in apart.items():
            needed = parameter.default is parameter.empty  # jsonargparse would ask for it in every step of the parsing
            default = None if needed else getattr(parameter.default, "__name__", parameter.default)
            hint = str if classes.is_by_name(parameter) else typing.get_type_hints(kind.__init__).get(name, Any)
            options: dict[str, Any] = {"type": hint | None, "default": default, "help": _help_of(kind, name)}
            parser.add_argument(f"--{section}.{name}", **options)
        if section == "flow":
            parser.add_class_arguments(Model, "model")
    if command == "calibrate":
        parser.add_function_arguments(calibrate, "calibrate", skip={*CALIBRATE})
    parser.add_class_arguments(Run, None)
    return parser


def _choices(section: str) -> str:
    return f"{', '.join(classes.FAMILIES[section])}, or the path of a class of your own, such as my_module.MyClass"


def _help_of(kind: type[Any], name: str) -> str:
    with uninterrupted():
        from docstring_parser import parse

    found = {parameter.arg_name: parameter.description for parameter in parse(kind.__doc__ or "").params}
    return found.get(name) or ""


def parse_card(command: str, arguments: Sequence[str]) -> Card | str:
    """The card that a command line means.

    Args:
        command: ``"fit"`` or ``"calibrate"``.
        arguments: ``[card.yaml] [--flags]``.

    Returns:
        The card; or the text of ``--help`` or ``--print_config``.

    Raises:
        CommandError: a key that does not exist, a value of the wrong type, or a card that cannot be read.
    """
    files, flags = _split(arguments)
    if len(files) > 1:
        raise CommandError(f"unexpected argument {files[1]!r}: there is one card; flags begin with --")
    card, places = read_card(Path(files[0])) if files else ({}, {})
    return parse_values(command, card, places, flags)


def parse_values(
    command: str, card: dict[str, Any], places: Mapping[str, str], flags: Sequence[Flag] = ()
) -> Card | str:
    """The same of a card that was read, and flags with their values."""
    card, places, flags = _long_forms(card, places, flags)
    names, kinds, notes = {}, {}, []
    for section in CHOSEN:
        names[section], kinds[section], left = _chosen(section, card, places, dict(flags))
        if left is not None:
            card[section] = {}
            notes += left
    parser = card_parser(command, kinds, names)
    if any(name in ("--help", "-h") for name, _ in flags):
        return parser.format_help()
    keys = keys_of(parser)
    check_keys(card, keys, places, kinds, command)
    settings = _parsed(parser, keys, card, places, flags)
    for section, kind in kinds.items():
        for name, parameter in classes.parameters(section, kind).items():
            if parameter.default is parameter.empty and settings[section][name] is None:
                raise CommandError(f"{section}.{name} is missing; give it in the card, or as --{section}.{name}")
    told = {key: plain_text(str(action.help or "")) for key, action in keys.items()}
    if any(name == "--print_config" for name, _ in flags):
        return written(_plain(settings), told)
    given_at = places | {name.removeprefix("--"): name for name, _ in flags}
    return Card(_plain(settings), settings, told, given_at, tuple(notes))


def _long_forms(
    card: Mapping[str, Any], places: Mapping[str, str], flags: Sequence[Flag]
) -> tuple[dict[str, Any], dict[str, str], list[Flag]]:
    """The card without its short forms, such as ``backend: hmc`` or ``--events events.h5``."""
    card, places, flags = dict(card), dict(places), list(flags)
    for section in ("events", *CHOSEN):
        first = "file" if section == "events" else "class"
        if isinstance(card.get(section), str):
            card[section] = {first: card[section]}
            places.setdefault(f"{section}.{first}", places.get(section, section))
        flags = [(f"{name}.{first}" if name == f"--{section}" else name, value) for name, value in flags]
    for key in LISTS:  # `columns: pt, eta` and `--events.columns pt,eta`
        own = card.get("events")
        if isinstance(own, Mapping) and isinstance(own.get(key), str):
            card["events"] = {**own, key: _names(own[key])}
        for i, (name, value) in enumerate(flags):
            if name == f"--events.{key}" and value and not value.lstrip().startswith("[") and value != "null":
                flags[i] = (name, json.dumps(_names(value)))
    return card, places, flags


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _chosen(
    section: str, card: Mapping[str, Any], places: Mapping[str, str], flags: Mapping[str, str | None]
) -> tuple[str, type[Any], list[str] | None]:
    """The class of a section by name, and itself; and where a flag replaced that of the card, what no longer counts."""
    own = card.get(section)
    own = own if isinstance(own, Mapping) else {}
    flag, in_card = flags.get(f"--{section}.class"), own.get("class", CHOSEN[section])
    name = in_card if flag is None else flag
    with _at(places.get(f"{section}.class") if flag is None else None):
        kind = classes.named(section, name)
    if flag is None or not own or classes.named(section, in_card) is kind:
        return name, kind, None
    left = ", ".join(str(key) for key in own if key != "class")
    told = f"{section} {flag} takes the place of that of the card"
    return name, kind, [f"{told}; its {left} are left out"] if left else []


def _parsed(
    parser: ArgumentParser,
    keys: Mapping[str, Any],
    card: Mapping[str, Any],
    places: Mapping[str, str],
    flags: Sequence[Flag],
) -> dict[str, Any]:
    """All settings, in the order of a card.

    Raises:
        CommandError: a value of the wrong type, or a flag that does not exist.
    """
    tokens: list[str] = []
    for name, value in flags:
        if name not in BARE:
            hint = hint_of(keys, name.removeprefix("--"))
            switch = value is None and hint is bool
            tokens += [name, *(["true"] if switch else [] if value is None else [str(whole_number(hint, value))])]
    filled = {name: _with_whole_numbers(keys, name, value) for name, value in card.items() if value not in (None, {})}
    try:
        found = parser.parse_args(tokens, namespace=parser.parse_object(filled)).as_dict()
    except Exception as error:  # argparse's own, and what a type of the user's raises
        given: dict[str, Given] = {key: (key, _value(card, key), f"{places[key]}: ") for key in keys if key in places}
        given |= {name.removeprefix("--"): (name, value, "") for name, value in flags}
        raise CommandError(explained(error, keys, given)) from None
    return {name: found[name] for name in ORDER if name in found} | found


def whole_number(hint: Any, value: Any) -> Any:
    """``1e6`` as the whole number that it is, where a type wants one; anything else as it is.

    YAML reads ``1e6`` as a text and ``1.0e+6`` as a number with a point.
    """
    kinds = {hint, *typing.get_args(hint)}
    if int not in kinds or float in kinds:
        return value
    is_text = isinstance(value, str) and re.fullmatch(r"\d+(\.\d*)?[eE]\+?\d{1,2}", value) is not None
    if is_text or isinstance(value, float):
        number = float(value)
        if number.is_integer() and abs(number) < 2**53:  # beyond, numbers with a point leave out whole ones
            return int(number)
    return value


def _with_whole_numbers(keys: Mapping[str, Any], key: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _with_whole_numbers(keys, f"{key}.{name}", each) for name, each in value.items()}
    return whole_number(hint_of(keys, key), value)


def _split(arguments: Sequence[str]) -> tuple[list[str], list[Flag]]:
    """Files, and flags with their values."""
    files: list[str] = []
    flags: list[Flag] = []
    rest = list(arguments)
    while rest:
        token = rest.pop(0)
        name, is_whole, value = token.partition("=")
        if not token.startswith("-") or token == "-":
            files.append(token)
        elif is_whole:
            flags.append((flag_name(name), value))
        elif flag_name(token) in BARE:
            flags.append((flag_name(token), None))
        else:
            has_value = bool(rest) and not rest[0].startswith("--")
            flags.append((flag_name(token), rest.pop(0) if has_value else None))
    return files, flags


def flag_name(token: str) -> str:
    """The name of a flag; ``--held-out`` is ``--held_out`` too."""
    return "--" + token[2:].replace("-", "_") if token.startswith("--") else token


@contextlib.contextmanager
def _at(place: str | None) -> Iterator[None]:
    try:
        yield
    except CommandError as error:
        raise CommandError(f"{place}: {error}" if place else str(error)) from None


def keys_of(parser: ArgumentParser) -> dict[str, Any]:
    """The actions of a parser by key, without those of whole sections."""
    found = {action.dest: action for action in parser._actions if action.dest not in ("help", "print_config")}
    return {key: action for key, action in found.items() if not any(other.startswith(f"{key}.") for other in found)}


def _value(card: Mapping[str, Any], key: str) -> Any:
    found: Any = card
    for name in key.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _plain(value: Any) -> Any:
    """Settings in JSON types."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return _dtype_name(value) if isinstance(value, torch.dtype) else value
