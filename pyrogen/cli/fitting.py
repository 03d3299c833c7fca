"""``fit``, ``calibrate``, ``resume`` and ``diagnose``: from a card to a finished run folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from pyrogen.bayes import BayesianFlow
from pyrogen.cli.building import Data, make_backend, make_model, read_data, run_settings
from pyrogen.cli.diagnosis import diagnose
from pyrogen.cli.finding import card_of, command_of, posterior_of
from pyrogen.cli.parsing import Card, parse_card
from pyrogen.cli.predicting import draws_for
from pyrogen.cli.problems import OK, CommandError, Stopped, one_line
from pyrogen.cli.report import write_figures, write_report
from pyrogen.cli.run_folder import RunFolder
from pyrogen.cli.settings import Run
from pyrogen.events import EventSample, read
from pyrogen.files import FileFormatError, target_of
from pyrogen.hdf5 import package_versions
from pyrogen.inference import Backend, CheckpointMismatchError, calibrate
from pyrogen.posterior import Posterior
from pyrogen.threads import set_threads

log = logging.getLogger("pyrogen.cli")


def fit(arguments: Sequence[str], command: str = "fit") -> int:
    """``pyrogen fit`` and ``pyrogen calibrate``: ``[card.yaml] [--flags]``.

    Raises:
        CommandError: a mistake in the card or the command; nothing was done.
    """
    card = parse_card(command, arguments)
    if isinstance(card, str):
        print(card)
        return OK
    return run_card(card, command)


def resume(folder: str) -> int:
    """``pyrogen resume RUN``.

    Raises:
        CommandError: no run folder.
    """
    there = RunFolder(folder)
    there.check_is_run()
    card = card_of(there)
    return run_card(card, command_of(card))


def run_card(card: Card, command: str) -> int:
    """Run a card, go on with its run, or say that it is finished.

    Raises:
        CommandError: a mistake in the card; nothing was done.
    """
    run = run_settings(card)
    card = card.with_whole_path()
    folder = RunFolder(run.run)
    if folder.path.exists() and not folder.path.is_dir():
        raise CommandError(f"run is {run.run!r}, which is a file; give a folder")
    set_threads(run.threads)
    # All of this can go wrong by a mistake in the card: it comes before the folder is made.
    data = read_data(card, run)
    model = make_model(card, run, data.learned.features, 0 if data.context is None else data.context.features)
    backend = make_backend(card, run, target_of(folder.checkpoint))
    _check(card, backend, model, data)
    with folder.alone():
        there = card_of(folder).values if folder.card.exists() else None
        folder.begin(card, there)
        for note in card.notes:
            log.info("%s", note)
        damage = _damage(folder) if folder.finished else None
        if damage is not None:
            log.warning("%s", f"{damage}; it is made again")
        elif folder.finished:
            date = folder.read_summary().get("date", "?")
            more = f"pyrogen show {folder.path} tells what is in it. Delete the folder to run it again"
            log.info("%s", f"the run in {folder.path} is finished ({date}); {more}")
            return OK
        try:
            _run(card, run, folder, data, model, backend, command)
        except (ValueError, TypeError) as error:
            if folder.checkpoint.exists() or folder.posterior.exists():
                folder.write_summary(_ended("failed", command, one_line(error)))
                raise
            folder.card.unlink()  # nothing was trained: the mistake is in the card, and a better one may take its place
            raise CommandError(card.placed(error)) from error
        except Stopped as stop:
            saved = "; the run is saved" if folder.checkpoint.exists() else "; there was nothing to save yet"
            stop.go_on = f"{saved}. Go on with: pyrogen resume {folder.path}"
            folder.write_summary(_ended("stopped", command, str(stop)))
            raise
        except Exception as error:
            folder.write_summary(_ended("failed", command, one_line(error)))
            raise
    return OK


def _damage(folder: RunFolder) -> str | None:
    """What is missing or damaged in a finished run."""
    for name in folder.read_summary().get("files", ()):
        if not (folder.path / name).exists():
            return f"{folder.path / name} is missing"
    try:
        posterior_of(folder.path)
    except (CommandError, FileFormatError, OSError) as error:
        return one_line(error)
    return None


def _ended(status: str, command: str, told: str) -> dict[str, Any]:
    """The summary of a run that did not come to its end."""
    return {"status": status, "command": command, "date": _now(), "versions": package_versions(), "message": told}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _check(card: Card, backend: Backend, model: BayesianFlow, data: Data) -> None:
    """Check that the backend can learn these events with this model."""
    try:
        backend.checked(model, data.learned, None, data.context)
    except (ValueError, TypeError) as error:
        raise CommandError(f"{card.settings['events']['file']}: {error}") from error


def _run(
    card: Card, run: Run, folder: RunFolder, data: Data, model: BayesianFlow, backend: Backend, command: str
) -> None:
    started = time.monotonic()
    held_out = 0 if data.held_out is None else len(data.held_out)
    file = card.settings["events"]["file"]
    log.info("%s", f"{len(data.learned):,} events to learn, {held_out:,} held out, from {file}; seed {run.seed}")
    log.info("%s", f"{type(model.flow).__name__} of {model.weights:,} weights, {replace(backend, checkpoint=None)!r}")
    if folder.checkpoint.exists():
        log.info("%s", f"going on from {folder.checkpoint}")
    try:
        if command == "calibrate":
            posterior = calibrate(
                backend, model, data.learned, None, data.context, seed=run.seed, **card.section("calibrate")
            )
        else:
            posterior = backend.fit(model, data.learned, None, data.context)
    except FileFormatError as error:
        raise FileFormatError(f"{error}. Delete this file, and the training begins anew") from error
    except CheckpointMismatchError as error:
        raise CommandError(
            f"the events of {card.settings['events']['file']}, or pyrogen itself, changed since the run in "
            f"{folder.path} began:\n{error}"
        ) from error
    if data.held_out is not None:
        data.held_out.save(folder.held_out)
    if data.held_out_context is not None:
        data.held_out_context.save(folder.held_out_context)
    posterior.save(folder.posterior)
    if run.generate:
        context = None if data.context is None else _conditions(data.context, run.generate)
        draws = draws_for(posterior, run.draws, run.generate)
        options: dict[str, Any] = {"context": context, "seed": run.seed, "log_weights": run.log_weights}
        posterior.generate_to(folder.generated, run.generate, draws, **options)
        log.info("%s", f"{run.generate:,} generated events: {folder.generated}")
    seconds = {"training": posterior.info.seconds, "fit": round(time.monotonic() - started, 3)}
    look(folder, card, posterior, data.held_out, data.held_out_context, command, seconds=seconds, started=started)


def _conditions(context: EventSample, n: int) -> EventSample:
    """Conditions for n events: those of the training, again and again."""
    return context[[i % len(context) for i in range(n)]]


def look(
    folder: RunFolder,
    card: Card,
    posterior: Posterior,
    held_out: EventSample | None,
    context: EventSample | None,
    command: str,
    *,
    truth: str | None = None,
    seconds: Mapping[str, Any],
    started: float,
) -> None:
    """Diagnose a run, and write its figures, report and summary."""
    run = run_settings(card)
    wanted: dict[str, Any] = {"draws": run.draws, "seed": run.seed, "compared": run.compared, "truth": truth}
    found = diagnose(posterior, held_out, context, **wanted)
    for heading, text in found.text.items():
        log.info("%s", f"\n{heading}\n{text}")
    figures = write_figures(folder.figures, found.figures)
    facts = {
        "command": f"pyrogen {command}",
        "run folder": folder.path.name,
        "training events": f"{posterior.info.training_events:,}",
        "held-out events": f"{0 if held_out is None else len(held_out):,}",
        "flow": f"{type(posterior.model.flow).__name__}, {posterior.model.weights:,} weights",
        "backend": posterior.info.backend,
        "sigma": posterior.info.note,
        "versions": ", ".join(f"{name} {version}" for name, version in package_versions().items()),
    }
    title = f"pyrogen: {folder.path.resolve().name}"
    write_report(folder.report, title, facts, found.text, figures, card.text())
    files = [folder.posterior, folder.held_out, folder.held_out_context, folder.generated, *figures, folder.report]
    summary = {
        "status": "finished",
        "command": command,
        "date": _now(),
        "versions": package_versions(),
        "seconds": {**seconds, "this command": round(time.monotonic() - started, 3)},
        "backend": posterior.info.backend,
        "weights": posterior.model.weights,
        "events": {
            "training": posterior.info.training_events,
            "held out": 0 if held_out is None else len(held_out),
            "training_sha256": posterior.info.data_sha256,
        },
        **found.found,
        "files": [str(path.relative_to(folder.path)) for path in files if path.exists()],
    }
    folder.write_summary(summary)
    serious = found.found["verdicts"]["serious findings"]
    log.info("%s", f"\nfinished: {folder.path} ({serious} serious findings); open {folder.report} in a browser")


def diagnose_run(folder: str, truth: str | None = None, threads: int = 1) -> int:
    """``pyrogen diagnose RUN``: look at a finished run again.

    Args:
        folder: of the run.
        truth: name of the target that the events are of.
        threads: CPU threads.

    Raises:
        CommandError: no run folder, or a run without a posterior.
    """
    there = RunFolder(folder)
    card = card_of(there)
    set_threads(threads)
    posterior = posterior_of(there.path)
    started = time.monotonic()
    with there.alone():
        seconds = there.read_summary().get("seconds", {"training": posterior.info.seconds})
        held_out = read(there.held_out) if there.held_out.exists() else None
        context = read(there.held_out_context) if there.held_out_context.exists() else None
        command = command_of(card)
        look(there, card, posterior, held_out, context, command, truth=truth, seconds=seconds, started=started)
    return OK
