"""``compare``: two runs at the same events: densities, histograms, agreement."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyrogen.cli.building import read_events
from pyrogen.cli.diagnosis import compared_columns, edges_of, posterior_column
from pyrogen.cli.finding import posterior_of
from pyrogen.cli.problems import OK, CommandError
from pyrogen.cli.report import write_figures, write_report
from pyrogen.cli.run_folder import RunFolder
from pyrogen.diagnostics import agreement, elpd, wasserstein
from pyrogen.events import EventSample
from pyrogen.files import check_writable, write_bytes
from pyrogen.hdf5 import package_versions
from pyrogen.posterior import HistogramBand, Posterior
from pyrogen.seeds import stream
from pyrogen.signals import uninterrupted
from pyrogen.threads import set_threads

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger("pyrogen")


def compare(
    run_a: str,
    run_b: str,
    output: str | None = None,
    events: str | None = None,
    probes: int = 5_000,
    generated: int = 20_000,
    draws: int | None = None,
    seed: int = 0,
    threads: int = 1,
) -> int:
    """How far two runs agree: their densities at the same events, their histograms, their generated events.

    Args:
        run_a: run folder, or file of a posterior.
        run_b: the other one, of the same columns.
        output: folder for comparison.json, figures and report.html; null is RUN_A/compare_RUN_B.
        events: file of events at which the densities are compared; null is the held-out events of RUN_A.
        probes: events of that file, at most.
        generated: events that each generates.
        draws: weight draws; null is 50, or all where fewer are stored.
        seed: seed of weight draws and events.
        threads: CPU threads.

    Raises:
        CommandError: runs of other columns, or no events to compare at.
    """
    set_threads(threads)
    a, b = posterior_of(run_a), posterior_of(run_b)
    sample, context = _probes(run_a, a, events)
    _check_same(run_a, a, run_b, b)
    rows = np.sort(np.random.default_rng(stream(seed, "compare probes")).permutation(len(sample))[:probes])
    sample, context = sample[rows], None if context is None else context[rows]
    default = Path(run_a) / f"compare_{Path(run_b).resolve().name}" if Path(run_a).is_dir() else Path("comparison")
    folder = Path(output) if output else default
    folder.mkdir(parents=True, exist_ok=True)
    check_writable(folder / "comparison.json")
    names = _labels(run_a, run_b)
    found, text, figures = _compared({names[0]: a, names[1]: b}, sample, context, generated, draws, seed)
    written = write_figures(folder / "figures", figures)
    content = {"a": str(run_a), "b": str(run_b), "probes": len(sample), "versions": package_versions(), **found}
    write_bytes(folder / "comparison.json", (json.dumps(content, indent=1) + "\n").encode())
    facts = {name: repr(posterior) for name, posterior in zip(names, (a, b), strict=True)}
    write_report(folder / "report.html", f"pyrogen: {names[0]} and {names[1]}", facts, text, written)
    for heading, paragraph in text.items():
        log.info("%s", f"{heading}\n{paragraph}\n")
    log.info("%s", f"{folder / 'report.html'}, comparison.json and {len(written)} figures")
    return OK


def _probes(run: str, posterior: Posterior, events: str | None) -> tuple[EventSample, EventSample | None]:
    columns = list(posterior.names) if posterior.info.names else None
    names = list(posterior.info.context_names or ()) or None
    if events is not None:
        return read_events(events, None, columns, {"context": names})
    folder = RunFolder(run)
    if not folder.held_out.exists():
        raise CommandError(f"{run} has no held-out events (held_out.h5); give events to compare at: --events FILE")
    sample, _ = read_events(folder.held_out, None, columns, {})
    context = folder.held_out_context
    return sample, read_events(context, None, names, {})[0] if context.exists() else None


def _check_same(run_a: str, a: Posterior, run_b: str, b: Posterior) -> None:
    if a.model.features != b.model.features or {*a.names} != {*b.names}:
        raise CommandError(f"{run_a} has the columns {', '.join(a.names)}, {run_b} has {', '.join(b.names)}")
    if (a.model.context or 0) != (b.model.context or 0):
        raise CommandError(f"{run_a} has {a.model.context or 0} conditions, {run_b} has {b.model.context or 0}")


def _labels(run_a: str, run_b: str) -> tuple[str, str]:
    names = [Path(run).resolve().name for run in (run_a, run_b)]
    return (names[0], names[1]) if names[0] != names[1] else (f"A {names[0]}", f"B {names[1]}")


def _compared(
    posteriors: dict[str, Posterior],
    sample: EventSample,
    context: EventSample | None,
    generated: int,
    draws: int | None,
    seed: int,
) -> tuple[dict[str, Any], dict[str, str], dict[str, Figure]]:
    """Numbers, words and figures."""
    with uninterrupted():
        from pyrogen.cli.comparison_figures import band_figure, density_figure

    (name_a, a), (name_b, b) = posteriors.items()
    density = {name: each.density(sample, draws, context=context, seed=seed) for name, each in posteriors.items()}
    mean = {name: its.mean.double().cpu().numpy() for name, its in density.items()}
    std = {name: its.std.double().cpu().numpy() for name, its in density.items()}
    both = np.hypot(std[name_a], std[name_b])
    there = (mean[name_a] > 0) & (mean[name_b] > 0) & (both > 0)
    pulls = (mean[name_b] - mean[name_a])[there] / both[there]
    ratio = np.log(mean[name_b][there] / mean[name_a][there])
    found: dict[str, Any] = {
        "densities": {
            "events_with_density": int(there.sum()),
            "median_log_ratio": float(np.median(ratio)) if len(ratio) else None,
            "rms_log_ratio": float(np.sqrt(np.mean(ratio**2))) if len(ratio) else None,
            "within_1_sigma": float(np.mean(np.abs(pulls) < 1)) if len(pulls) else None,
            "within_2_sigma": float(np.mean(np.abs(pulls) < 2)) if len(pulls) else None,
            "median_relative_sigma": {
                name: float(np.median(std[name][there] / mean[name][there])) if there.any() else None for name in mean
            },
        }
    }
    numbers = found["densities"]
    lines = [f"{int(there.sum()):,} of {len(sample):,} events have a density in both."]
    if len(pulls):
        lines.append(
            f"ln p({name_b}) / p({name_a}): median {numbers['median_log_ratio']:.3g}, "
            f"rms {numbers['rms_log_ratio']:.3g}"
        )
        lines.append(
            f"They differ by less than 1 sigma of both at {numbers['within_1_sigma']:.0%}, by less than 2 sigma at "
            f"{numbers['within_2_sigma']:.0%} of the events."
        )
        middle = ", ".join(f"{name} {value:.1%}" for name, value in numbers["median_relative_sigma"].items())
        lines.append(f"Median relative sigma: {middle}.")
    if sample.weights is None and a.model.multiplicity is None and context is None:
        scores = {name: elpd(each, sample, draws=draws, seed=seed) for name, each in posteriors.items()}
        difference, error = scores[name_b].minus(scores[name_a])
        if np.isfinite(difference):
            found["elpd_difference"] = [difference, error]
            lines.append(
                f"Log predictive density of all events, {name_b} minus {name_a}: {difference:.1f} +- {error:.1f}."
            )
    text = {"Densities at the same events": "\n".join(lines)}
    figures: dict[str, Figure] = {}
    if len(pulls):
        figures["densities.png"] = density_figure({name: its[there] for name, its in mean.items()}, pulls)
    bands = _bands(posteriors, sample, context, draws, seed, generated)
    if bands:
        figures["bands.png"] = band_figure(bands)
    if a.model.multiplicity is None:
        n = generated if context is None else len(sample)
        order = list(a.names)
        made = {
            name: _generated(each, n, draws, context, stream(seed, "compare", i) % 2**31, order)
            for i, (name, each) in enumerate(posteriors.items())
        }
        result = agreement(made[name_a], made[name_b])
        distances = wasserstein(made[name_a], made[name_b]).tolist()
        found["generated"] = {
            "different": [", ".join(name) for name, bad in zip(result.names, result.significant, strict=True) if bad],
            "compared": len(result.names),
            "wasserstein": dict(zip(made[name_a].names, distances, strict=True)),
        }
        told = ", ".join(f"{name} {value:.3g}" for name, value in found["generated"]["wasserstein"].items())
        text["Generated events"] = f"{result.text()}\nWasserstein-1 distance: {told}"
    return found, text, figures


def _generated(
    posterior: Posterior, n: int, draws: int | None, context: Any, seed: int, order: list[str]
) -> EventSample:
    events = posterior.sample(n, draws, context=context, seed=seed).double().cpu().numpy()
    return EventSample(events, posterior.names).select(order)


def _bands(
    posteriors: dict[str, Posterior],
    sample: EventSample,
    context: EventSample | None,
    draws: int | None,
    seed: int,
    generated: int,
) -> dict[str, dict[str, HistogramBand]]:
    """Bands of both in every column, by the name of the posterior."""
    wanted = edges_of(sample, compared_columns(next(iter(posteriors.values())), sample))
    n = generated if context is None else len(sample)
    bands = {}
    for name, posterior in posteriors.items() if wanted else ():
        columns = {key: (posterior_column(posterior, sample, key), bins) for key, (_, bins) in wanted.items()}
        bands[name] = posterior.histograms(columns, n=n, draws=draws, context=context, seed=seed)
    return bands
