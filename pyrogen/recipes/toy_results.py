"""What a fitted toy says: the numbers and figures of its recipe."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from pyrogen.diagnostics import LikelihoodFit, LineResult, MarginalResult, ShapeFit, fit_shape, likelihood_fit, marginal
from pyrogen.plotting import HistogramPanel, plot_histograms
from pyrogen.posterior import Posterior


def fits(lines: LineResult, target: Any, events: torch.Tensor) -> tuple[ShapeFit | None, LikelihoodFit | None]:
    """The fit-like shape of the uncertainty, and the true form fitted to the events, where iminuit is there."""
    try:
        shape = fit_shape(lines.sigma, lines.sigma_spread, target.sensitivities(torch.from_numpy(lines.t)))
        return shape, likelihood_fit(target, events)
    except ImportError as error:
        print(f"no fit-like curve: {error}")
        return None, None


def marginal_sigma(posterior: Posterior, target: Any, lines: LineResult, evaluation: dict[str, int]) -> MarginalResult:
    """The coordinate along the lines, with the other one integrated out, and its uncertainty by both procedures."""
    return marginal(
        posterior,
        target.line_coordinate,
        evaluation["bins"] // 2,  # sigma of a bin needs more events than its content
        range=(float(lines.t[0]), float(lines.t[-1])),
        n=evaluation["generated"],
        draws=evaluation["draws"],
        label=lines.label,
    )


def median_ratio(sigma: MarginalResult, lines: LineResult, measure: np.ndarray) -> dict[str, float]:
    """Sigma of the marginal distribution over that along lines, median over the bins, by procedure."""
    ratios = {name: sigma.ratio_to_lines(lines, measure, name) for name in sigma.bands}
    return {name: float(np.nanmedian(ratio)) for name, ratio in ratios.items()}


def marginals(
    posterior: Posterior,
    events: torch.Tensor,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    evaluation: dict[str, int],
) -> Figure:
    """Generated and training distributions of x and y."""
    wanted = {"x": (0, evaluation["bins"], x_range), "y": (1, evaluation["bins"], y_range)}
    bands = posterior.histograms(wanted, n=evaluation["generated"], draws=evaluation["draws"])
    panels = []
    for column, (label, band) in enumerate(bands.items()):
        counts = np.histogram(events[:, column].double().numpy(), band.edges)[0]
        panels.append(HistogramPanel(band, counts, total=len(events), label=label))
    return plot_histograms(panels, truth_label="training events")


def summarise(lines: LineResult, shape: ShapeFit | None, reference: LikelihoodFit | None) -> dict[str, Any]:
    """All numbers of the table and of the summary, for JSON."""
    step = max(1, (len(lines.t) - 1) // 8)  # a table of about 9 points
    columns = {lines.label: lines.t, "p": lines.density, "sigma": lines.sigma, "truth": lines.truth, "pull": lines.pull}
    fit = None
    if shape is not None:
        fit = {"values": shape.values, "errors": shape.errors, "chi2": shape.chi2, "ndf": shape.ndf}
    true_form = None
    if reference is not None:
        # Of root mean squares: the reference may have a node.
        ratio = float(np.sqrt(np.mean(lines.sigma**2) / np.mean(reference.sigma(lines.t) ** 2)))
        true_form = {"values": reference.values, "errors": reference.errors, "sigma_over_its_sigma": ratio}
    return {
        "table": {key: values[::step].tolist() for key, values in columns.items()},
        "rms_bias": lines.rms_bias,
        "within_2_sigma": lines.within(2.0),
        "pull_rms": lines.pull_rms,
        "rms_bias_of_each_line": [lines.line(i).rms_bias for i in range(len(lines.positions))],
        "relative_sigma": lines.relative[::step].tolist(),
        "sigma_minima": lines.minima.tolist(),
        "fit": fit,
        "fit_of_true_form": true_form,
    }


def last_values(history: dict[str, np.ndarray]) -> dict[str, Any]:
    """The last entry of every curve (of every chain), where it is finite."""
    return {
        key: values[..., -1].tolist()
        for key, values in history.items()
        if values.shape[-1] and np.isfinite(values[..., -1]).all()
    }


def print_summary(summary: dict[str, Any], label: str) -> None:
    """The table and the summary line."""
    table = summary["table"]
    print(f"\n{label:>6} {'p':>9} {'sigma':>9} {'truth':>9} {'pull':>7}")
    for row in zip(*table.values(), strict=True):
        print("{:6.3f} {:9.4f} {:9.4f} {:9.4f} {:7.2f}".format(*row))
    parts = [
        f"rms bias {summary['rms_bias']:.4f}",
        f"within 2 sigma {summary['within_2_sigma']:.1%}",
        f"pull rms {summary['pull_rms']:.2f}",
    ]
    if summary["sigma_minima"]:
        parts.append(f"sigma has minima at {label} = " + ", ".join(f"{t:.2f}" for t in summary["sigma_minima"]))
    if summary["fit"]:
        values, errors = summary["fit"]["values"], summary["fit"]["errors"]
        parts += [f"{key} {value:.4f} +- {errors[key]:.4f}" for key, value in values.items()]
    ratios = summary["marginal_over_lines"]
    parts.append(f"marginal sigma / sigma along lines {ratios['a']:.2f} (a), {ratios['b']:.2f} (b)")
    print("\n" + ", ".join([*parts, f"{summary['seconds_all']:.0f} s"]))
