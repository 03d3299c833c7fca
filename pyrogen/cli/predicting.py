"""``generate`` and ``density``: what a finished run predicts, in files of events."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pyrogen.cli.building import read_events
from pyrogen.cli.finding import posterior_of
from pyrogen.cli.problems import OK, CommandError, Stopped
from pyrogen.cli.run_folder import RunFolder
from pyrogen.events import EventSample
from pyrogen.events.format import check_keeps, format_of
from pyrogen.files import check_writable
from pyrogen.posterior import Posterior
from pyrogen.threads import set_threads

log = logging.getLogger("pyrogen.cli")

DENSITY, SIGMA = "density", "density_sigma"  # columns that `density` adds


def generate(
    source: str,
    n: int,
    output: str,
    draws: int | None = None,
    seed: int = 0,
    log_weights: bool = False,
    context: str | None = None,
    threads: int = 1,
    device: str = "cpu",
) -> int:
    """New events, each with its relative uncertainty. A killed command goes on when it is repeated.

    Args:
        source: run folder, or file of a posterior.
        n: number of events.
        output: file to write; its suffix says the format (.h5, .parquet, .root); .json lists files of
            parts, for large samples.
        draws: weight draws; null is 50, or all where fewer are stored.
        seed: seed of weight draws and events.
        log_weights: keep the weights of all draws, for bands of any histogram later on.
        context: file with the conditions of a conditional flow; one row for each event, or one row for all.
        threads: CPU threads.
        device: cpu, or a GPU such as cuda.

    Raises:
        CommandError: no posterior, conditions that are missing or do not fit, or a file that cannot be written.
    """
    posterior = _prepared(source, output, threads, device)
    conditions = None if context is None else _conditions(posterior, context)
    if conditions is None and posterior.model.context:
        raise CommandError(f"{source} is conditional; give its conditions: --context FILE with {_names(posterior)}")
    count = draws_for(posterior, draws, n)
    options: dict[str, Any] = {"context": conditions, "seed": seed, "log_weights": log_weights}
    try:
        posterior.generate_to(output, n, count, chunk=max(50_000, count), **options)
    except Stopped as stop:
        stop.go_on = "; finished parts are kept. Repeat the command to go on"
        raise
    log.info("%s", f"{n:,} events of {count} weight draws: {output}")
    return OK


def density(
    source: str,
    events: str,
    output: str,
    dataset: str | None = None,
    draws: int | None = None,
    seed: int = 0,
    threads: int = 1,
    device: str = "cpu",
) -> int:
    """The density at given events, with its uncertainty.

    The output holds the events with all their columns and two more, density and density_sigma, per unit of the events'
    own variables; and the relative uncertainty of each event.

    Args:
        source: run folder, or file of a posterior.
        events: file of events, with the columns that were learned, and the conditions.
        output: file to write; its suffix says the format (.h5, .parquet, .root).
        dataset: table to read, of a file that holds several.
        draws: weight draws; null is 50, or all where fewer are stored.
        seed: seed of the weight draws.
        threads: CPU threads.
        device: cpu, or a GPU such as cuda.

    Raises:
        CommandError: no posterior, events that do not fit to it, or a file that cannot be written.
    """
    if os.path.exists(events) and os.path.exists(output) and os.path.samefile(events, output):
        raise CommandError(f"-o is {output!r}, the file of the events itself; give another name")
    posterior = _prepared(source, output, threads, device, keeps=True)
    names = list(posterior.info.context_names or ()) or None
    columns = list(posterior.names) if posterior.info.names else None
    sample, context = read_events(events, dataset, columns, {"context": names})
    if posterior.model.context and context is None:
        raise CommandError(f"{source} is conditional, and its conditions have no names; use the Python interface")
    whole = _whole(events, dataset, sample, posterior)
    found = posterior.density(sample, draws, context=context, seed=seed)
    mean, sigma = found.mean.double().cpu().numpy(), found.std.double().cpu().numpy()
    units = [theirs or ours for theirs, ours in zip(sample.units, posterior.units, strict=True) if theirs or ours]
    unit = f"1/({' '.join(units)})" if len(units) > 1 else f"1/{units[0]}" if units else ""
    relative = np.divide(sigma, mean, out=np.zeros_like(mean), where=mean > 0)
    about = {"density": {"backend": posterior.info.backend, "sigma": posterior.info.note}}
    result = _with_columns(whole, {DENSITY: mean, SIGMA: sigma}, unit, relative, whole.provenance | about)
    result.save(output)
    outside = int((mean == 0).sum())
    told = f"; {outside} of them have no density" if outside else ""
    middle = f", median relative uncertainty {np.median(relative[mean > 0]):.1%}" if outside < len(mean) else ""
    log.info("%s", f"density of {len(sample):,} events{middle}{told}: {output}")
    return OK


def _whole(events: str, dataset: str | None, sample: EventSample, posterior: Posterior) -> EventSample:
    """The events with all columns of their file, and with the units of the posterior where the file has none.

    Raises:
        CommandError: a column with a name that is taken.
    """
    try:
        whole, _ = read_events(events, dataset, None, {})
    except CommandError as error:
        log.warning("%s", f"warning: the other columns are left out: {error}")
        whole = sample
    taken = [name for name in (DENSITY, SIGMA) if name in whole.names]
    if taken:
        raise CommandError(f"{events} has a column {taken[0]!r} already; rename it")
    if whole.uncertainties is not None or whole.log_weights is not None:
        log.warning(
            "%s", f"warning: the uncertainties and log weights of {events} are replaced by those of the density"
        )
    known = dict(zip(posterior.names, posterior.units, strict=True)) if posterior.info.names else {}
    blank = [name for name, unit in zip(whole.names, whole.units, strict=True) if not unit and known.get(name)]
    for name in blank:
        log.info("%s", f"{events} has no unit of {name}: it is taken to be in {known[name]}")
    units = [unit or known.get(name, "") for name, unit in zip(whole.names, whole.units, strict=True)]
    return EventSample(whole, units=units)


def _with_columns(
    sample: EventSample, more: dict[str, np.ndarray], unit: str, relative: np.ndarray, provenance: dict[str, Any]
) -> EventSample:
    """A sample with more columns of one unit: behind the others, or in front of objects that not every event has."""
    layout = sample.multiplicity
    at = sample.features if layout is None else layout.shared
    values = np.insert(sample.values, [at] * len(more), np.column_stack([*more.values()]), axis=1)
    names, units = (
        [*labels[:at], *new, *labels[at:]]
        for labels, new in ((sample.names, [*more]), (sample.units, [unit] * len(more)))
    )
    return EventSample(
        values,
        names,
        units,
        weights=sample.weights,
        uncertainties=relative,
        provenance=provenance,
        multiplicity=None if layout is None else replace(layout, shared=layout.shared + len(more)),
    )


def draws_for(posterior: Posterior, draws: int | None, n: int) -> int:
    """Weight draws for a file of n events: where none are asked for, fewer for few events, as each gives some."""
    count = posterior.weights.count(draws, least=2)
    return count if draws is not None else max(2, min(count, n))


def _prepared(source: str, output: str, threads: int, device: str, *, keeps: bool = False) -> Posterior:
    """The posterior, after all that can be checked before it is loaded; ``keeps``: the file must keep uncertainties."""
    set_threads(threads)
    if os.path.isdir(output):
        raise CommandError(f"-o is {output!r}, which is a folder; give the name of a file, such as {output}/events.h5")
    if _is_of_run(source, Path(output)):
        raise CommandError(f"-o is {output!r}, a file of the run itself; give another name")
    if keeps:
        check_keeps(format_of(Path(output).absolute(), "write"), ["uncertainties"])
    try:
        check_writable(output)
    except OSError as error:
        raise CommandError(f"-o: {error}") from error
    return posterior_of(source).to(device)


def _is_of_run(source: str, output: Path) -> bool:
    """Whether a file is the posterior, or one that the run wrote and still needs."""
    folder = RunFolder(source)
    own = (source, folder.card, folder.checkpoint, folder.posterior, folder.held_out, folder.held_out_context)
    return output.exists() and any(os.path.exists(path) and os.path.samefile(path, output) for path in own)


def _conditions(posterior: Posterior, file: str) -> EventSample:
    names = list(posterior.info.context_names or ()) or None
    sample, _ = read_events(Path(file), None, names, {})
    return sample


def _names(posterior: Posterior) -> str:
    names = posterior.info.context_names
    return f"the columns {', '.join(names)}" if names else f"{posterior.model.context} columns"
