"""How many true events generated ones count as: histograms, regions and the best test [G] (arXiv:2509.08048)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from pyrogen.checks import COUNT, TEXT, door, each, instance, require
from pyrogen.diagnostics.amplification.averaging import AveragingAmplification
from pyrogen.diagnostics.amplification.cells import Cells
from pyrogen.diagnostics.amplification.differential import MEAN_DISTANCE, DifferentialAmplification
from pyrogen.posterior import Worth

from .sheet import AX, Place, Sheet
from .style import PREDICTION, TRUTH, VALIDATION, arrangement, legend_above, styled, with_error, with_unit

Array = NDArray[np.float64]

COLUMNS = 3  # panels side by side at most
WORTH = instance(
    Worth,
    "a Worth, from posterior.worth",
    {"Posterior": "call posterior.worth(observables)", "HistogramBand": "wrap it: pg.Worth.of(band, training_events)"},
)
AVERAGING = instance(
    AveragingAmplification, "an AveragingAmplification, from averaging_amplification", {"Posterior": "call it first"}
)
DIFFERENTIAL = instance(
    DifferentialAmplification,
    "a DifferentialAmplification, from differential_amplification",
    {"ClassifierWeights": "give differential_amplification(weights, training_events)"},
)


@styled
@door(
    worths=each(WORTH, "a sequence of Worth, such as list(posterior.worth(observables).values())", 1),
    title=TEXT,
    ax=AX,
)
def plot_worth(worths: Sequence[Worth], *, title: str = "", ax: Place | None = None) -> Figure:
    """Every histogram with its band, and below it the number of true events that each bin counts as.

    Arrows are lower limits. Dotted is the number of training events: above it a bin is amplified. The dashed line is
    the number of the histogram. Grey are bins with less than one training event.

    Args:
        worths: what ``posterior.worth`` found.
        title: above the figure.
        ax: where to draw, see :mod:`pyrogen.plotting`.
    """
    rows, columns = arrangement(len(worths), COLUMNS)
    sheet = Sheet(ax, 6.4 * columns, 6.2 * rows)
    sheet.title(title)
    pairs = sheet.pairs([worth.name for worth in worths], "number of events", rows, columns, (3, 2))
    for (top, bottom), worth in zip(pairs, worths, strict=True):
        _band(top, worth)
        _numbers(bottom, worth)
    return sheet.figure


def _band(axis: Axes, worth: Worth) -> None:
    band = worth.band
    density, sigma = band.density(), band.density_sigma(subtract_noise=True)
    axis.stairs(density, band.edges, color=PREDICTION, linewidth=1.5)
    axis.stairs(
        density + sigma,
        band.edges,
        baseline=np.clip(density - sigma, 0, None),
        fill=True,
        color=PREDICTION,
        alpha=0.35,
        label=r"posterior, 1$\sigma$",
    )
    axis.set(xlim=band.edges[[0, -1]], ylabel=with_unit("density", f"1/{band.unit}" if band.unit else ""))
    filled = density[density > 0]
    if len(filled) and filled.max() > 30 * filled.min():
        axis.set_yscale("log")
        axis.set_ylim(filled.min() / 2, filled.max() * 2)
    legend_above(axis, 1)


def _numbers(axis: Axes, worth: Worth) -> None:
    band = worth.band
    low, high, sure = band.edges[:-1], band.edges[1:], ~worth.limit & np.isfinite(worth.n_eff)
    x, y, error = band.centres[sure], worth.n_eff[sure], worth.error[sure]
    half = (high - low)[sure] / 2
    style: Any = {"fmt": "o", "markersize": 3.5, "color": PREDICTION, "elinewidth": 1.2}
    axis.set_yscale("log")
    axis.errorbar(x, y, [np.minimum(error, 0.9 * y), error], half, label="bins", **style)
    limits = worth.limit & np.isfinite(worth.n_eff)
    if limits.any():
        axis.plot(band.centres[limits], worth.n_eff[limits], "^", color=PREDICTION, markersize=6, label="lower limit")
    total = worth.total[0]
    if np.isfinite(total):
        told = f"histogram: {'> ' * bool(np.isnan(worth.total[1]))}{_short(total)}"
        axis.axhline(total, color=VALIDATION, linestyle="--", linewidth=1.5, label=told)
    if worth.training_events is not None:
        label = f"training: {_short(worth.training_events)}"
        axis.axhline(worth.training_events, color=TRUTH, linestyle=":", linewidth=1.5, label=label)
        for i in np.flatnonzero(worth.training_in_bins < 1):
            axis.axvspan(low[i], high[i], color="grey", alpha=0.25, linewidth=0)
    axis.set(xlim=band.edges[[0, -1]], xlabel=with_unit(worth.name, band.unit), ylabel=r"$N_\mathrm{eff}$")
    legend_above(axis, 2, fontsize="small")


def _short(number: float) -> str:
    """A number of events in a few characters."""
    return f"{float(f'{number:.2g}'):,.0f}"


@styled
@door(result=AVERAGING, cells=COUNT, title=TEXT, ax=AX)
def plot_amplification_map(
    result: AveragingAmplification, *, cells: int | None = None, title: str = "", ax: Place | None = None
) -> Figure:
    """Two panels: G of every cell of two observables, and G of all of them against the number of cells.

    A triangle marks a lower limit. The outermost cells reach farther than the panel.

    Args:
        result: what :func:`~pyrogen.diagnostics.averaging_amplification` found in two observables (in one or more than
            two there is the second panel alone).
        cells: number of cells of the map; None: the largest.
        title: above the figure.
        ax: where to draw, see :mod:`pyrogen.plotting`.

    Raises:
        ValueError: another number of cells than those that were filled.
    """
    chosen = max(result.cells) if cells is None else cells
    require(chosen in result.cells, "cells", cells, f"one of {', '.join(map(str, result.cells))}")
    flat = len(result.names) == 2
    sheet = Sheet(ax, 14.5 if flat else 7.5, 6.2)
    sheet.title(title)
    panels = sheet.panels(["map of the cells", "G against the number of cells"][0 if flat else 1 :])
    if flat:
        _map(sheet.figure, panels[0], result.cells[chosen], result.worths[chosen])
    _against_cells(panels[-1], result)
    return sheet.figure


def _map(figure: Figure, axis: Axes, boxes: Cells, worth: Worth) -> None:
    gain, limits = worth.gains[0], _limits(boxes)
    finite = gain[np.isfinite(gain) & (gain > 0)]
    # One is the middle of the colours: red cells are worth less than the training events in them.
    reach = max(float(np.abs(np.log10(finite)).max()) if len(finite) else 0.3, 0.3)
    norm, colours = LogNorm(10**-reach, 10**reach), "RdBu"
    mesh = axis.scatter([], [], c=[], norm=norm, cmap=colours)
    for i in range(len(boxes)):
        low = np.maximum(boxes.low[i], limits[:, 0])
        size = np.minimum(boxes.high[i], limits[:, 1]) - low
        colour = mesh.to_rgba(gain[i]) if np.isfinite(gain[i]) else "white"
        axis.add_patch(Rectangle(tuple(low), *size, facecolor=colour, edgecolor="white", linewidth=0.6))
        if worth.limit[i]:
            axis.plot(*(low + size / 2), "^", color=TRUTH, markersize=4)
    axis.set(xlim=limits[0], ylim=limits[1])
    axis.set_xlabel(with_unit(boxes.names[0], boxes.units[0]))
    axis.set_ylabel(with_unit(boxes.names[1], boxes.units[1]))
    bar = figure.colorbar(mesh, ax=axis, label=f"G of {len(boxes)} cells")
    _plain(bar.ax.yaxis, 10 ** (2 * reach))


def _limits(boxes: Cells) -> Array:
    """What is shown of every observable, ``[d, 2]``: all cuts and a fifth of their range on either side."""
    found = []
    for low, high in zip(boxes.low.T, boxes.high.T, strict=True):
        cuts = np.concatenate([low[np.isfinite(low)], high[np.isfinite(high)], [] if np.isfinite(low).any() else [0.0]])
        room = 0.2 * (np.ptp(cuts) or 1.0)
        found.append((cuts.min() - room, cuts.max() + room))
    return np.array(found)


def _plain(which: Any, ratio: float) -> None:
    """Plain numbers on a logarithmic axis, as many as fit."""
    which.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if ratio < 300 else (1.0,)))
    which.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    which.set_minor_formatter(NullFormatter())


def _against_cells(axis: Axes, result: AveragingAmplification) -> None:
    n, gain, error = result.gains
    sure = np.isfinite(error)
    lower = np.minimum(error, 0.9 * gain)
    style: Any = {"fmt": "o", "color": PREDICTION, "capsize": 3}
    axis.errorbar(n[sure], gain[sure], [lower[sure], error[sure]], label="all cells", **style)
    axis.plot(n[~sure], gain[~sure], "^", color=PREDICTION, label="lower limit" if not sure.all() else None)
    for i, count in enumerate(result.worths):
        each_gain = result.worths[count].gains[0]
        known = each_gain[np.isfinite(each_gain)]
        label = "single cells" if i == 0 else None
        axis.plot(np.full(len(known), count * 1.08), known, "_", color=VALIDATION, alpha=0.6, label=label)
    axis.axhline(1, color=TRUTH, linestyle=":", linewidth=1.5)
    axis.set(xscale="log", yscale="log", xlabel="number of cells", ylabel=r"$G = N_\mathrm{eff}/N_\mathrm{train}$")
    axis.set_xticks(n, [f"{int(count):,}" for count in n])
    axis.xaxis.set_minor_formatter(NullFormatter())
    low, high = axis.get_ylim()
    _plain(axis.yaxis, high / low)
    legend_above(axis, 2, fontsize="small")


@styled
@door(result=DIFFERENTIAL, title=TEXT, ax=AX)
def plot_differential(result: DifferentialAmplification, *, title: str = "", ax: Place | None = None) -> Figure:
    """Two panels: the distance from the truth against the number of generated events, and what regions are worth.

    Points and the grey line, as many true events, have the noise of both samples. The horizontal band is the distance
    without it: where the dotted line meets it, there is the number of true events that the generator is worth.

    Args:
        result: what :func:`~pyrogen.diagnostics.differential_amplification` found.
        title: above the figure.
        ax: where to draw, see :mod:`pyrogen.plotting`.
    """
    sheet = Sheet(ax, 14.5, 6.0)
    sheet.title(title)
    curve, regions = sheet.panels(["distance", "regions"])
    _distances(curve, result)
    _regions(regions, result)
    return sheet.figure


def _distances(axis: Axes, result: DifferentialAmplification) -> None:
    total, n = result.total, result.sizes.astype(np.float64)
    axis.plot(n, result.distances, "o", color=PREDICTION, label="generated")
    axis.plot(n, result.floor, color="grey", label="true events")
    most = 3 * max(n[-1], total.events[0] if np.isfinite(total.events[0]) else 0.0)
    line = np.geomspace(n[0], most, 50)
    axis.plot(line, MEAN_DISTANCE / np.sqrt(line), color=TRUTH, linestyle=":", label=r"true: $0.87/\sqrt{n}$")
    distance, error = total.distance
    if total.limit:
        limit = MEAN_DISTANCE / np.sqrt(total.events[0])
        axis.axhline(limit, color=VALIDATION, linestyle="--", label="95 % upper limit")
    else:
        axis.axhspan(max(distance - error, 0.1 * distance), distance + error, color=VALIDATION, alpha=0.3, linewidth=0)
        axis.axhline(distance, color=VALIDATION, label=f"D = {with_error(distance, error)}")
    axis.axvline(total.training_events, ymax=0.8, color=TRUTH, linewidth=1, linestyle="--")
    axis.text(total.training_events, 0.02, " training events", transform=axis.get_xaxis_transform(), fontsize="small")
    axis.set(xscale="log", yscale="log", xlabel="number of events $n$", ylabel="distance D in $\\log w$")
    legend_above(axis, 2, fontsize="small")


def _regions(axis: Axes, result: DifferentialAmplification) -> None:
    found = [result.total, *result.regions.values()][::-1]
    for row, its in enumerate(found):
        gain, error = its.gain
        if its.limit:
            axis.plot(gain, row, ">", color=PREDICTION, markersize=9)
        else:
            axis.errorbar(gain, row, xerr=[[min(error, 0.9 * gain)], [error]], fmt="o", color=PREDICTION, capsize=3)
    axis.axvline(1, color=TRUTH, linestyle=":", linewidth=1.5)
    axis.set_yticks(range(len(found)), [its.name for its in found], fontsize="small")
    axis.tick_params(axis="y", which="minor", left=False, right=False)
    axis.set(xscale="log", ylim=(-0.6, len(found) - 0.4), xlabel=r"differential G (arrow: lower limit)")
    low, high = axis.get_xlim()
    axis.set_xlim(min(low, 0.5), max(high, 2.0))
    low, high = axis.get_xlim()
    _plain(axis.xaxis, high / low)
