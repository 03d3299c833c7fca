"""What a finished run looks like: advice, generated against held-out events, coverage, figures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pyrogen import targets
from pyrogen.cli.problems import CommandError, nearest
from pyrogen.diagnostics import advise, agreement, density_along_lines
from pyrogen.events import EventSample
from pyrogen.posterior import Posterior
from pyrogen.seeds import stream
from pyrogen.signals import uninterrupted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CENTRE = (0.01, 0.99)  # of the held-out events: a far tail would squeeze the rest into one bin
TRUTHS = {
    "wedge": targets.Wedge,
    "kicker": targets.Kicker,
    "ring": targets.GaussianRing,
    "full-ring": targets.FullRing,
    "gamma-ring": targets.GammaRing,
}


@dataclass(frozen=True)
class Diagnosis:
    """What was found.

    Attributes:
        text: for people, a paragraph for each part.
        found: the same in JSON types.
        figures: by file name.
    """

    text: dict[str, str]
    found: dict[str, Any]
    figures: dict[str, Figure] = field(default_factory=dict)


def diagnose(
    posterior: Posterior,
    held_out: EventSample | None,
    context: EventSample | None,
    *,
    draws: int | None = None,
    seed: int = 0,
    compared: int = 20_000,
    truth: str | None = None,
) -> Diagnosis:
    """Look at a posterior.

    Args:
        posterior: the posterior.
        held_out: events that it did not learn, or None.
        context: their conditions, or None.
        draws: weight draws of predictions.
        seed: seeds all that is drawn.
        compared: events that are generated, for each draw of a band and in all.
        truth: name of the target that the events are of, where it is known.

    Raises:
        CommandError: no such target.
    """
    target = None if truth is None else target_named(truth)
    looked: dict[str, Any] = {"draws": draws, "seed": seed, "generated": min(compared, 10_000)}
    advice = advise(posterior, held_out, support=target, context=context, **looked)
    record = posterior.info.calibration
    text = {"Advice": advice.text(), "Calibration": posterior.info.note if record is None else str(record)}
    found: dict[str, Any] = {
        "findings": [asdict(finding) for finding in advice.findings],
        "verdicts": {
            "serious findings": sum(finding.serious for finding in advice.findings),
            "converged": advice.converged,
            "calibration": posterior.info.note,
        },
    }
    if record is not None:
        found["calibration"] = {
            "one_sigma": record.one_sigma,
            "two_sigma": record.two_sigma,
            "pull_width": record.pull_width,
            "factor": record.factor,
        }
    figures = dict(_training(posterior))
    if held_out is None:
        text["Comparison"] = "No events were held out (held_out: 0), so generated events are compared with nothing."
    else:
        told, numbers, drawn = _comparison(posterior, held_out, context, draws, seed, compared)
        text["Generated and held-out events"] = told
        found |= numbers
        figures |= drawn
    if target is not None:
        told, numbers, drawn = _against(posterior, target, draws, seed)
        text["Coverage of the known truth"] = told
        found |= numbers
        figures |= drawn
    return Diagnosis(text, _json(found), figures)


def target_named(name: str) -> Any:
    """A target of :mod:`pyrogen.targets` with lines, by name.

    Raises:
        CommandError: there is none.
    """
    if name not in TRUTHS:
        raise CommandError(f"--truth is {name!r}, which is no known density{nearest(name, TRUTHS)}")
    return TRUTHS[name]()


def _training(posterior: Posterior) -> Iterator[tuple[str, Figure]]:
    """The curves of the run, of those kinds that there are figures for."""
    with uninterrupted():
        from pyrogen.plotting import plot_chains, plot_training

    for name, plot in (("training.png", plot_training), ("chains.png", plot_chains)):
        try:
            yield name, plot(posterior.history)
        except ValueError:  # a run of another kind, without such curves
            continue


def compared_columns(posterior: Posterior, sample: EventSample) -> list[str]:
    """The columns that every event has."""
    layout = posterior.model.multiplicity
    return list(sample.names if layout is None else sample.names[: layout.shared])


def edges_of(sample: EventSample, names: list[str]) -> dict[str, tuple[str, Any]]:
    """Observables with bins that hold the central events, for :meth:`pyrogen.Posterior.histograms`."""
    bins = max(10, min(40, round(0.6 * len(sample) ** 0.5)))
    wanted = {}
    for name in names:
        low, high = np.quantile(sample.column(name), CENTRE)
        if low < high:
            wanted[name] = (name, np.linspace(low, high, bins + 1))
    return wanted


def panels_of(
    posterior: Posterior, sample: EventSample, context: Any, draws: int | None, seed: int, compared: int
) -> list[Any]:
    """A panel for every column: the posterior's band and the sample's histogram with its errors."""
    with uninterrupted():
        from pyrogen.plotting import HistogramPanel

    wanted = edges_of(sample, compared_columns(posterior, sample))
    if not wanted:
        return []
    n = compared if context is None else len(sample)
    columns = {name: (posterior_column(posterior, sample, name), bins) for name, (_, bins) in wanted.items()}
    bands = posterior.histograms(columns, n=n, draws=draws, context=context, seed=seed)
    weights = np.ones(len(sample)) if sample.weights is None else sample.weights
    units = dict(zip(sample.names, sample.units, strict=True))
    return [
        HistogramPanel(
            band,
            counts=np.histogram(sample.column(name), band.edges, weights=weights)[0],
            total=sample.total_weight,
            errors=np.sqrt(np.histogram(sample.column(name), band.edges, weights=weights**2)[0]),
            label=name,
            unit=units[name],
        )
        for name, band in bands.items()
    ]


def posterior_column(posterior: Posterior, sample: EventSample, name: str) -> int:
    """Number of a column in the events of a posterior, which may have learned columns without names."""
    names = posterior.names
    return list(names).index(name) if names and name in names else list(sample.names).index(name)


def chi2_of(panel: Any) -> tuple[float, int]:
    """chi2 of a panel with the errors of both, and its number of filled bins."""
    density, error = panel.truth()
    filled = error > 0
    pull = (panel.band.density() - density)[filled] / np.hypot(error, panel.band.density_sigma())[filled]
    return float(np.sum(pull**2)), int(filled.sum())


def _comparison(
    posterior: Posterior, held_out: EventSample, context: Any, draws: int | None, seed: int, compared: int
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    with uninterrupted():
        from pyrogen.plotting import plot_histograms

    panels = panels_of(posterior, held_out, context, draws, stream(seed, "diagnose histograms") % 2**31, compared)
    rows = []
    for panel in panels:
        chi2, bins = chi2_of(panel)
        rows.append({"name": panel.label, "unit": panel.unit, "chi2": chi2, "bins": bins})
    lines = [f"{row['name']}: chi2 {row['chi2']:.1f} in {row['bins']} bins" for row in rows]
    found: dict[str, Any] = {"columns": rows}
    figures = {"histograms.png": plot_histograms(panels, truth_label="held-out events")} if panels else {}
    if posterior.model.multiplicity is not None:
        lines.append("Columns of objects that not every event has are not compared.")
    elif held_out.effective_size >= 60:
        n = compared if context is None else len(held_out)
        events = posterior.sample(n, draws, context=context, seed=stream(seed, "diagnose events") % 2**31)
        made = EventSample(events.double().cpu().numpy(), held_out.names)
        result = agreement(held_out, made)
        lines.append(result.text())
        found["verdicts of columns"] = {
            "different": [", ".join(name) for name, bad in zip(result.names, result.significant, strict=True) if bad],
            "compared": len(result.names),
        }
    else:
        lines.append(f"{held_out.effective_size:.0f} held-out events are too few for a test; it takes 60.")
    return "\n".join(lines), found, figures


def _against(
    posterior: Posterior, target: Any, draws: int | None, seed: int
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    with uninterrupted():
        from pyrogen.plotting import plot_lines

    lines = density_along_lines(posterior, target, draws=draws, seed=seed)
    found = {"within_1_sigma": lines.within(1), "within_2_sigma": lines.within(2), "rms_bias": lines.rms_bias}
    told = (
        f"The true density is within 1 sigma at {lines.within(1):.0%} and within 2 sigma at {lines.within(2):.0%} of "
        f"{lines.means.size} points; nominal are 68 % and 95 %. The points of one training move together: coverage in "
        "the strict sense takes many trainings (pyrogen calibrate)."
    )
    return told, {"coverage of the truth": found}, {"lines.png": plot_lines(lines)}


def _json(value: Any) -> Any:
    """JSON types; None for numbers that JSON does not know."""
    if isinstance(value, Mapping):
        return {str(name): _json(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json(each) for each in value]
    if isinstance(value, (np.generic,)):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
