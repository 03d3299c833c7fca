"""``generate`` and ``density``: what a finished run predicts, in files of events."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np

from pyrogen.cli.building import read_events
from pyrogen.cli.finding import posterior_of
from pyrogen.cli.problems import OK, CommandError, Stopped
from pyrogen.events import EventSample
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
        output: file to write; its suffix says the format (.h5, .root, .npy, .lhe).
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

    The output holds the events and two more columns, density and density_sigma, per unit of the events' own variables;
    and the relative uncertainty of each event.

    Args:
        source: run folder, or file of a posterior.
        events: file of events, with the columns that were learned, and the conditions.
        output: file to write; its suffix says the format (.h5, .root, .npy).
        dataset: table to read, of a file that holds several.
        draws: weight draws; null is 50, or all where fewer are stored.
        seed: seed of the weight draws.
        threads: CPU threads.
        device: cpu, or a GPU such as cuda.

    Raises:
        CommandError: no posterior, events that do not fit to it, or a file that cannot be written.
    """
    posterior = _prepared(source, output, threads, device)
    names = list(posterior.info.context_names or ()) or None
    columns = list(posterior.names) if posterior.info.names else None
    sample, context = read_events(events, dataset, columns, {"context": names})
    if posterior.model.context and context is None:
        raise CommandError(f"{source} is conditional, and its conditions have no names; use the Python interface")
    found = posterior.density(sample, draws, context=context, seed=seed)
    mean, sigma = found.mean.double().cpu().numpy(), found.std.double().cpu().numpy()
    units = [unit for unit in sample.units if unit]
    unit = f"1/({' '.join(units)})" if len(units) > 1 else f"1/{units[0]}" if units else ""
    taken = [name for name in (DENSITY, SIGMA) if name in sample.names]
    if taken:
        raise CommandError(f"{events} has a column {taken[0]!r} already; rename it")
    relative = np.divide(sigma, mean, out=np.zeros_like(mean), where=mean > 0)
    result = EventSample(
        np.column_stack([sample.values, mean, sigma]),
        [*sample.names, DENSITY, SIGMA],
        [*sample.units, unit, unit],
        weights=sample.weights,
        uncertainties=relative,
        provenance=sample.provenance | {"density": {"backend": posterior.info.backend, "sigma": posterior.info.note}},
    )
    result.save(output)
    outside = int((mean == 0).sum())
    told = f"; {outside} of them have no density" if outside else ""
    middle = f", median relative uncertainty {np.median(relative[mean > 0]):.1%}" if outside < len(mean) else ""
    log.info("%s", f"density of {len(sample):,} events{middle}{told}: {output}")
    return OK


def draws_for(posterior: Posterior, draws: int | None, n: int) -> int:
    """Weight draws for a file of n events: where none are asked for, fewer for few events, as each gives some."""
    count = posterior.weights.count(draws, least=2)
    return count if draws is not None else max(2, min(count, n))


def _prepared(source: str, output: str, threads: int, device: str) -> Posterior:
    """The posterior, after all that can be checked before it is loaded."""
    set_threads(threads)
    if os.path.isdir(output):
        raise CommandError(f"-o is {output!r}, which is a folder; give the name of a file, such as {output}/events.h5")
    try:
        check_writable(output)
    except OSError as error:
        raise CommandError(f"-o: {error}") from error
    return posterior_of(source).to(device)


def _conditions(posterior: Posterior, file: str) -> EventSample:
    names = list(posterior.info.context_names or ()) or None
    sample, _ = read_events(Path(file), None, names, {})
    return sample


def _names(posterior: Posterior) -> str:
    names = posterior.info.context_names
    return f"the columns {', '.join(names)}" if names else f"{posterior.model.context} columns"
