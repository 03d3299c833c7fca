"""How far a generator is off, in units of its sigma [C fig. 12] (arXiv:2305.16774): of one posterior, or of several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyrogen.checks import TEXT, dictionary, door, instance, require
from pyrogen.diagnostics.control.pulls import WeightPulls

from .sheet import AX, Place, Sheet
from .style import BANDS, CONTROL, PREDICTION, TRUTH, VALIDATION, colours, legend_above, styled

HINTS = {"ClassifierWeights": "give weight_pulls(weights, posterior)"}
ONE = instance(WeightPulls, "a WeightPulls, from weight_pulls", HINTS)
SEVERAL = dictionary(ONE)
EDGE = 4.0  # pulls of bins beyond are drawn here


def PULLS(name: str, value: Any) -> dict[str, WeightPulls]:
    """One result, which gets no name, or several by name."""
    if not isinstance(value, Mapping):
        what = "a WeightPulls, from weight_pulls, or a dictionary of several by name"
        return {"": instance(WeightPulls, what, HINTS)(name, value)}
    require(len(value) > 0, name, value, "at least one WeightPulls by name")
    return SEVERAL(name, value)


@styled
@door(pulls=PULLS, title=TEXT, ax=AX)
def plot_weight_pulls(
    pulls: WeightPulls | Mapping[str, WeightPulls], *, title: str = "", ax: Place | None = None
) -> Figure:
    """Pulls of the density, w against its relative uncertainty, and pulls of histograms, if there are any [C fig. 12].

    Args:
        pulls: what :func:`~pyrogen.diagnostics.weight_pulls` found; of several posteriors a dictionary by name, up to
            about five stay readable. Of one result, the grey Gaussian has the width that the noise of the classifier
            alone gives; the dashed black one is the standard one.
        title: above the figure.
        ax: where to draw, see :mod:`pyrogen.plotting`.

    Raises:
        ValueError: an empty dictionary.
    """
    # The door has made a dictionary of both; a type checker does not know.
    several: dict[str, WeightPulls] = dict(pulls) if isinstance(pulls, Mapping) else {"": pulls}
    names = list(dict.fromkeys(name for its in several.values() for name in its.histograms))
    palette = colours(len(several)) if len(several) > 1 else [PREDICTION]
    shown = [(name, its, colour) for (name, its), colour in zip(several.items(), palette, strict=True)]
    sheet = Sheet(ax, 17 if names else 12, 5.2 + 0.3 * max(len(shown) - 2, 0))
    panels = sheet.panels(["pulls", "sigma against w", "pulls of histograms"][: 3 if names else 2])
    sheet.title(title)
    _pull_histogram(panels[0], shown)
    _sigma_by_weight(panels[1], shown)
    if names:
        _histogram_pulls(panels[2], shown, names)
    return sheet.figure


Shown = list[tuple[str, WeightPulls, str]]


def _pull_histogram(axis: Axes, shown: Shown) -> None:
    widest = max(max(pulls.width, 0.5 * abs(pulls.centre)) for _, pulls, _ in shown)
    half = float(np.clip(4 * widest, 3.0, 8.0))
    grid = np.linspace(-half, half, 81)
    lowest, highest = np.inf, 0.4
    for name, pulls, colour in shown:
        size = pulls.weights / pulls.weights.sum()
        density, _ = np.histogram(np.clip(pulls.pull, -half, half), grid, weights=size / (grid[1] - grid[0]))
        label = f"{name or pulls.sample}: width {pulls.width:.2f}"
        if name and np.isfinite(pulls.floor):
            label += f" (noise {pulls.floor:.2f})"
        axis.stairs(density, grid, color=colour, linewidth=2, label=label)
        lowest, highest = min(lowest, density[density > 0].min()), max(highest, density.max())
    x = np.linspace(-half, half, 300)
    gaussians: list[tuple[float, str, str]] = [(1.0, TRUTH, "N(0, 1)")]
    floor = shown[0][1].floor
    if len(shown) == 1 and floor > 0 and np.isfinite(floor):
        gaussians.append((floor, CONTROL, f"classifier's noise: {floor:.2f}"))
    for width, colour, label in gaussians:
        shape = np.exp(-0.5 * (x / width) ** 2) / (width * np.sqrt(2 * np.pi))
        axis.plot(x, shape, color=colour, linewidth=1.5, linestyle="--", label=label)
        highest = max(highest, shape.max())
    axis.set(xlabel=r"$t = \mu\,(1 - w)/\sigma$", ylabel="density", xlim=(-half, half), yscale="log")
    axis.set_ylim(0.5 * lowest, 1.5 * highest)
    legend_above(axis, 1, fontsize="small")


def _sigma_by_weight(axis: Axes, shown: Shown) -> None:
    limits = [np.quantile(pulls.w, [0.005, 0.995]) for _, pulls, _ in shown]
    low, high = min(its[0] for its in limits), max(its[1] for its in limits)
    if low == high:
        low, high = 0.9 * low, 1.1 * high
    top = max(float(max(np.quantile(pulls.relative, 0.98), pulls.high.max())) for _, pulls, _ in shown)
    if len(shown) == 1:
        pulls = shown[0][1]
        inside = (pulls.w >= low) & (pulls.w <= high) & (pulls.relative <= top)
        density: Any = {"gridsize": 40, "cmap": "Greys", "bins": "log", "mincnt": 1, "linewidths": 0, "alpha": 0.7}
        density["rasterized"] = True
        axis.hexbin(pulls.w[inside], pulls.relative[inside], **density)
    for name, pulls, colour in shown:
        errors = [pulls.median - pulls.low, pulls.high - pulls.median]
        widths = [pulls.at - pulls.edges[:-1], pulls.edges[1:] - pulls.at]
        label = name or "median and 68 % in bins of $w$"
        colour = VALIDATION if len(shown) == 1 else colour
        axis.errorbar(pulls.at, pulls.median, errors, widths, fmt="o", color=colour, capsize=3, label=label)
    axis.set(xlabel="$w$ of the classifier", ylabel=r"$\sigma/\mu$ of the generator", xlim=(low, high))
    axis.set_ylim(0, 1.1 * top)
    legend_above(axis, 1, fontsize="small")


def _histogram_pulls(axis: Axes, shown: Shown, names: list[str]) -> None:
    for level, opacity in BANDS:
        axis.axvspan(-level, level, color=CONTROL if len(shown) > 1 else PREDICTION, alpha=0.4 * opacity, linewidth=0)
    rows = [(name, each, pulls, colour) for name in names for each, pulls, colour in shown if name in pulls.histograms]
    for row, (name, _, pulls, colour) in enumerate(rows):
        its = pulls.histograms[name]
        found = its.pull[np.isfinite(its.pull)]
        spread = np.linspace(-0.25, 0.25, len(found)) if len(found) > 1 else np.zeros(len(found))
        style: Any = {"markersize": 4, "color": TRUTH if len(shown) == 1 else colour}
        axis.plot(np.clip(found, -EDGE, EDGE), row + spread, "o", **style)
        axis.text(1.02, row, f"{its.width:.2f}", transform=axis.get_yaxis_transform(), va="center", fontsize="small")
    axis.text(1.02, len(rows) - 0.4, "width", transform=axis.get_yaxis_transform(), va="bottom", fontsize="small")
    # The colours tell the posteriors apart; each group of rows has the name of its observable.
    middle = [np.mean([row for row, its in enumerate(rows) if its[0] == name]) for name in names]
    axis.set_yticks(middle, names, fontsize="medium")
    axis.tick_params(axis="y", which="minor", left=False, right=False)
    axis.set(xlim=(-1.1 * EDGE, 1.1 * EDGE), ylim=(-0.6, len(rows) - 0.4), xlabel="pulls of histogram bins")
