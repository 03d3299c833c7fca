"""The table of commands, and how the arguments of one become a call."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import logging
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyrogen.cli.comparing import compare
from pyrogen.cli.explaining import Given, explained, hint_of
from pyrogen.cli.fitting import diagnose_run, fit, resume
from pyrogen.cli.parsing import flag_name, keys_of, new_parser, whole_number
from pyrogen.cli.predicting import density, generate
from pyrogen.cli.problems import OK, CommandError, Stopped, nearest
from pyrogen.cli.showing import show
from pyrogen.locks import running
from pyrogen.signals import uninterrupted

log = logging.getLogger("pyrogen.cli")


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        summary: what it does, in a line.
        example: of its use.
        call: what does it, and returns an exit code. None: a card decides, ``arguments -> exit code``.
        given: arguments without a flag, in their order.
        short: short names of flags.
    """

    summary: str
    example: str
    call: Callable[..., int]
    given: tuple[str, ...] = ()
    short: Mapping[str, str] = field(default_factory=dict)
    card: bool = False


def _resume(run: str) -> int:
    """Go on with a run that was stopped, to the same bits as one that was not.

    Args:
        run: the run folder.
    """
    return resume(run)


def _diagnose(run: str, truth: str | None = None, threads: int = 1) -> int:
    """Look at a finished run again; write its figures, report.html and summary.json.

    Args:
        run: the run folder.
        truth: known density of the events, for coverage (wedge, kicker, ring, full-ring, gamma-ring).
        threads: CPU threads.
    """
    return diagnose_run(run, truth, threads)


COMMANDS: dict[str, Command] = {
    "fit": Command("learn events, by a run card", "pyrogen fit card.yaml --seed 1", lambda a: fit(a), card=True),
    "resume": Command("go on with a run that was stopped", "pyrogen resume run", _resume, ("run",)),
    "generate": Command(
        "new events, each with its uncertainty",
        "pyrogen generate run -n 100000 -o new.h5",
        generate,
        ("source",),
        {"n": "-n", "output": "-o"},
    ),
    "density": Command(
        "the density at given events, with its uncertainty",
        "pyrogen density run events.h5 -o density.h5",
        density,
        ("source", "events"),
        {"output": "-o"},
    ),
    "diagnose": Command("advice, figures and a report on a run", "pyrogen diagnose run", _diagnose, ("run",)),
    "compare": Command(
        "two runs at the same events",
        "pyrogen compare run other_run",
        compare,
        ("run_a", "run_b"),
        {"output": "-o"},
    ),
    "calibrate": Command(
        "learn events so that sigma holds the truth as often as it says",
        "pyrogen calibrate card.yaml",
        lambda a: fit(a, "calibrate"),
        card=True,
    ),
    "show": Command("what is in a file or run folder", "pyrogen show run/posterior.h5", show, ("file",)),
}
#: Whole runs in one command: the class in :mod:`pyrogen.recipes`, what it does, and its argument without a flag.
RECIPES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "toy": ("Toy", "a density that is known in closed form: wedge, kicker or ring", ("target",)),
    "drell-yan": ("DrellYan", "Drell-Yan lepton pairs, from a generator's file to new events", ()),
    "z-jets": ("ZJets", "Z + 1, 2, 3 jets, from a file or Pythia to new events", ()),
}


def overview() -> str:
    """The help of ``pyrogen`` itself."""
    width = max(map(len, [*COMMANDS, *RECIPES]))
    rows = [f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items()]
    rows += [f"  {name:{width}}  {summary}" for name, (_, summary, _) in RECIPES.items()]
    return "\n".join(
        [
            "usage: pyrogen COMMAND [arguments] [--debug]",
            "",
            "Generative networks for collider events, with an uncertainty that can be checked.",
            "",
            *rows,
            "",
            "pyrogen COMMAND --help tells its arguments. pyrogen fit --print_config writes a card with all settings.",
            "Exit codes: 0 done; 1 the run failed; 2 a mistake in the command, the card or a file;",
            "130 and 143 stopped by Ctrl-C and SIGTERM, to be resumed.",
        ]
    )


def run_command(name: str, arguments: Sequence[str]) -> int:
    """Run a command of the table, or a recipe.

    Raises:
        CommandError: a mistake in the arguments.
    """
    if name in RECIPES:
        return _run_recipe(name, arguments)
    command = COMMANDS[name]
    if command.card:
        return command.call(arguments)
    given = _parsed(name, command.call, arguments, command.given, command.short, command.example)
    return OK if given is None else command.call(**given)


def _parsed(
    name: str,
    call: Callable[..., Any],
    arguments: Sequence[str],
    given: Sequence[str],
    short: Mapping[str, str],
    example: str = "",
    more: Mapping[str, tuple[Any, str]] | None = None,
) -> dict[str, Any] | None:
    """The arguments of a call, with their types from its signature; None where ``--help`` was asked for.

    Raises:
        CommandError: a mistake in them.
    """
    with uninterrupted():
        from docstring_parser import parse

    documented = parse(inspect.getdoc(call) or "")
    texts = {p.arg_name: " ".join((p.description or "").split()) for p in documented.params}
    description = documented.short_description or ""
    parser = new_parser(f"pyrogen {name}", description + (f" Example: {example}" if example else ""))
    target = call.__init__ if inspect.isclass(call) else call  # type: ignore[misc]
    hints = typing.get_type_hints(target)
    parameters = inspect.signature(call).parameters
    for key in [*given, *(other for other in parameters if other not in given)]:
        options: dict[str, Any] = {"type": hints[key], "help": texts.get(key, "")}
        default = parameters[key].default
        if key in given:
            parser.add_argument(key, **options)
            continue
        flags = [short[key]] if key in short else []
        if hints[key] is bool and default is False:
            parser.add_argument(*flags, f"--{key}", action="store_true", help=texts.get(key, ""))
            continue
        needed = default is inspect.Parameter.empty
        parser.add_argument(*flags, f"--{key}", **options, **({"required": True} if needed else {"default": default}))
    for key, (kind, text) in (more or {}).items():
        parser.add_argument(*([short[key]] if key in short else []), f"--{key}", type=kind, default=None, help=text)
    parts = [token.partition("=") for token in arguments]
    tokens = [flag_name(name) + is_whole + value for name, is_whole, value in parts]
    if {"-h", "--help"} & {*tokens}:
        print(parser.format_help())
        return None
    keys = keys_of(parser)
    known = {flag: key for key, action in keys.items() for flag in action.option_strings}
    written = _known_flags(tokens, known, keys)
    try:
        return parser.parse_args(written).as_dict()
    except Exception as error:  # argparse's own, and those of types
        raise CommandError(explained(error, keys, _given(tokens, given, short))) from None


def _known_flags(tokens: Sequence[str], known: Mapping[str, str], keys: Mapping[str, Any]) -> list[str]:
    """The same tokens, with whole numbers written out.

    Raises:
        CommandError: a flag that does not exist; jsonargparse would take ``--backend.lr`` as a part of ``--backend``.
    """
    found = list(tokens)
    for i, token in enumerate(found):
        flag, is_whole, value = token.partition("=")
        if flag.startswith("--") and flag not in known:
            raise CommandError(f"there is no flag {flag}{nearest(flag, sorted(known))}")
        if flag in known:
            hint = hint_of(keys, known[flag])
            if is_whole:
                found[i] = f"{flag}={whole_number(hint, value)}"
            elif i + 1 < len(found):
                found[i + 1] = str(whole_number(hint, found[i + 1]))
    return found


def _given(tokens: Sequence[str], given: Sequence[str], short: Mapping[str, str]) -> dict[str, Given]:
    """What was given, by key, for errors."""
    long = {flag: key for key, flag in short.items()}
    found: dict[str, Given] = {}
    positions, rest = list(given), list(tokens)
    while rest:
        token = rest.pop(0)
        name, is_whole, value = token.partition("=")
        if not token.startswith("-"):
            if positions:
                key = positions.pop(0)
                found[key] = (key.upper(), token, "")
            continue
        key = long.get(name, name.lstrip("-"))
        if not is_whole and rest and not rest[0].startswith("--"):
            value = rest.pop(0)
        found[key] = (name, value, "")
    return found


def _run_recipe(name: str, arguments: Sequence[str]) -> int:
    """A recipe: its fields are the flags.

    Raises:
        CommandError: a mistake in them.
    """
    class_name, _, given = RECIPES[name]
    try:
        recipe = getattr(importlib.import_module("pyrogen.recipes"), class_name)
    except ModuleNotFoundError as error:
        if error.name != "pyrogen.recipes":
            raise
        raise CommandError(f"pyrogen {name} is not in this version of pyrogen") from None
    out = {"output": (str | None, "folder for the results; null is a folder of its own below out")}
    found = _parsed(name, recipe, arguments, given, {"output": "-o"}, more=out)
    if found is None:
        return OK
    output = found.pop("output")
    try:
        settings = recipe(**{key: value for key, value in found.items() if key in _fields(recipe)})
    except (ValueError, TypeError) as error:
        key = str(error).split(" ")[0]
        raise CommandError(f"--{error}" if key in found else str(error)) from error
    folder = Path(output) if output else Path(getattr(settings, "folder", Path("out") / name))
    folder.mkdir(parents=True, exist_ok=True)
    with running(folder.resolve() / "summary.json", f"run pyrogen {name} for"):
        try:
            summary = settings.run(folder)
        except Stopped as stop:
            stop.go_on = ". Repeat the command to go on"
            raise
    log.info("%s", f"finished: {folder} ({len(summary)} entries in summary.json)")
    return OK


def _fields(recipe: Any) -> set[str]:
    return {each.name for each in dataclasses.fields(recipe)}
