"""From a card to what a fit takes: events, flow, model and backend; all checks that need no training."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import pyrogen.events as room
from pyrogen.bayes import BayesianFlow
from pyrogen.cli import classes
from pyrogen.cli.parsing import Card
from pyrogen.cli.problems import CommandError, nearest, one_line
from pyrogen.cli.settings import Run
from pyrogen.events import EventSample
from pyrogen.inference import Backend
from pyrogen.seeds import seeded, stream

log = logging.getLogger("pyrogen.cli")

FEWEST = 10  # events to learn, and held-out events: with fewer nothing can be said


@dataclass(frozen=True)
class Data:
    """The events of a card.

    Attributes:
        learned: the events to learn.
        context: their conditions, or None.
        held_out: the events to compare with, or None.
        held_out_context: their conditions, or None.
    """

    learned: EventSample
    context: EventSample | None
    held_out: EventSample | None
    held_out_context: EventSample | None


def run_settings(card: Card) -> Run:
    """The settings of the run itself.

    Raises:
        CommandError: a value out of range.
    """
    try:
        return Run(**{name: value for name, value in card.settings.items() if not isinstance(value, dict)})
    except ValueError as error:
        raise CommandError(card.placed(error)) from None


def read_data(card: Card, run: Run) -> Data:
    """The events of a card, those to learn and those to compare with.

    Raises:
        CommandError: no file, columns that are not there, NaN, or too few events.
    """
    section = card.section("events")
    if section["file"] is None:
        raise CommandError("events.file is missing; give it in the card (events: events.h5), or as --events.file")
    place = card.places.get("events.file", "")
    place = f"{place}: " if place and not place.startswith("--") else ""
    sample, context = read_events(section["file"], section["dataset"], section["columns"], section, place)
    order = np.random.default_rng(stream(run.seed, "held out")).permutation(len(sample))
    number = round(run.held_out * len(sample))
    held, learned = np.sort(order[:number]), np.sort(order[number:])
    for what, rows in (("learn", learned), ("hold out", held)):
        if len(rows) < FEWEST and (len(rows) or what == "learn"):
            raise CommandError(
                f"{place}{section['file']} holds {len(sample)} events, of which {len(rows)} would be left to {what}; "
                f"there must be at least {FEWEST}"
            )
    try:
        return Data(
            sample[learned],
            None if context is None else context[learned],
            sample[held] if number else None,
            context[held] if number and context is not None else None,
        )
    except ValueError as error:
        raise CommandError(f"{place}{section['file']}: {error}") from None


def read_events(
    file: str | Path,
    dataset: str | None,
    columns: list[str] | None,
    more: Mapping[str, Any],
    place: str = "",
) -> tuple[EventSample, EventSample | None]:
    """Events and their conditions from a file.

    Args:
        file: of events.
        dataset: table of a file that holds several.
        columns: to learn; None: all that are neither weights nor conditions.
        more: ``weights`` and ``context``, as in a card.
        place: of the file's name, for errors.

    Raises:
        CommandError: no such file, a column that it does not have, or values that are no events.
    """
    weights, conditions = more.get("weights"), more.get("context")
    for key, names in (("columns", columns), ("context", conditions)):
        if names == []:
            raise CommandError(f"{place}events.{key} is []; it must be a list of names, or null")
    try:
        wanted = [*(columns or ()), *(conditions or ()), *([weights] if weights else ())]
        sample = _read(file, dataset, wanted if columns else None)
        for name in wanted:
            if name not in sample.names:
                taken = (
                    " (it is the event weight already)" if name in ("weight", "weights") and _weighted(sample) else ""
                )
                raise CommandError(f"{file} has no column {name!r}{taken}{nearest(name, sample.names)}")
        context = None if conditions is None else sample.select(conditions)
        apart = {*(conditions or ()), weights}
        chosen = columns or [name for name in sample.names if name not in apart]
        if not chosen:
            raise CommandError(f"{file} has no column to learn besides the conditions and the weights")
        twice = sorted(apart & {*chosen} - {None})
        if twice:
            raise CommandError(f"the column {twice[0]!r} cannot be learned and be a weight or a condition as well")
        events = sample if tuple(chosen) == sample.names else sample.select(chosen)
        if weights:
            own: Any = {"provenance": sample.provenance, "multiplicity": events.multiplicity}
            events = EventSample(events.values, events.names, events.units, sample.column(weights), **own)
        if context is not None:
            if any(context.units):
                told = ", ".join(f"{name} [{unit}]" for name, unit in zip(context.names, context.units, strict=True))
                log.info("%s", f"posteriors keep no units of conditions: remember those of {told}")
            context = EventSample(context.values, context.names)
        return events, context
    except Exception as error:
        if isinstance(error, (CommandError, ValueError, OSError, TypeError, ImportError)):
            told = one_line(error)
            raise CommandError(f"{place}{told if str(file) in told else f'{file}: {told}'}") from error
        raise


def _read(file: str | Path, dataset: str | None, columns: list[str] | None) -> EventSample:
    """The events of a file, at least these columns of them; the others may hold anything, such as texts."""
    if columns is None:
        return room.read(file, dataset=dataset)
    try:
        return room.read(file, dataset=dataset, columns=list(dict.fromkeys(columns)))
    except ValueError as error:
        if "has no column" in str(error):
            with contextlib.suppress(ValueError):  # all of the file tells which column was meant
                return room.read(file, dataset=dataset)
        raise


def _weighted(sample: EventSample) -> bool:
    return sample.weights is not None


def make_model(card: Card, run: Run, features: int, context: int) -> BayesianFlow:
    """The model of a card, for so many columns of events and of conditions.

    Raises:
        CommandError: a setting that flow or model refuses.
    """
    kind = classes.named("flow", card.settings["flow"]["class"])
    filled = {"features": features, "context": context, "seed": run.seed}
    with seeded(run.seed):  # flows of the user's own take torch's random numbers
        flow = _placed(card, classes.made, "flow", kind, card.section("flow"), filled)
    section = card.section("model")
    try:
        preprocessing = bijection(section["preprocessing"])
        scale = section["prior_scale"]
        return BayesianFlow(flow, scale, preprocessing)
    except (ValueError, TypeError) as error:
        first = str(error).split(" ")[0]
        text = f"model.{error}" if first in section else str(error)
        raise CommandError(card.placed(CommandError(text))) from error


def make_backend(card: Card, run: Run, checkpoint: Path | None) -> Backend:
    """The backend of a card.

    Raises:
        CommandError: a setting that it refuses.
    """
    kind = classes.named("backend", card.settings["backend"]["class"])
    filled = {"seed": run.seed, "device": run.device, "checkpoint": checkpoint, "progress": True}
    return _placed(card, classes.made, "backend", kind, card.section("backend"), filled)


def bijection(wanted: Any) -> Any:
    """The preprocessing of a card: a word, the name of a bijection, or a list of these with settings.

    Raises:
        CommandError: there is none of that name, or it refuses its settings.
    """
    if wanted in ("auto", None) or wanted == "none":
        return None if wanted == "none" else "auto"
    if isinstance(wanted, list):
        if not wanted:
            raise CommandError("model.preprocessing is []; give at least one bijection, or none")
        return room.Chain([bijection(each) for each in wanted])
    name = wanted
    settings: Mapping[str, Any] = {}
    if isinstance(wanted, Mapping):
        if len(wanted) != 1:
            raise CommandError(
                f"model.preprocessing has {dict(wanted)}; it must be one name with settings in each entry"
            )
        name, settings = next(iter(wanted.items()))
    known = [each for each in room.__all__ if _is_bijection(getattr(room, each))]
    if not isinstance(name, str) or name not in known:
        if isinstance(name, str) and "." in name:
            found = classes.imported(name, "model.preprocessing")
            return found(**settings) if callable(found) else found
        hint = nearest(str(name), ["auto", "none", *known])
        raise CommandError(f"model.preprocessing is {name!r}, which is no bijection of pyrogen.events{hint}")
    try:
        return getattr(room, name)(**(settings or {}))
    except (TypeError, ValueError) as error:
        raise CommandError(f"model.preprocessing: {name}: {error}") from None


def _is_bijection(thing: Any) -> bool:
    return isinstance(thing, type) and issubclass(thing, room.Bijection) and thing is not room.Bijection


def _placed(card: Card, make: Any, *arguments: Any) -> Any:
    try:
        return make(*arguments)
    except CommandError as error:
        raise CommandError(card.placed(error)) from error
