"""A histogram with its training and systematic uncertainties, on one panel with a ratio below."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from pyrogen.checks import BOOLEAN, TEXT, door, instance
from pyrogen.diagnostics.shifts import Systematics

from .histograms import _POINTS, HistogramPanel
from .sheet import AX, Place, Sheet
from .style import PREDICTION, VALIDATION, arrows_outside, colours, legend_above, ratio_axis, styled, with_unit

Array = NDArray[np.float64]
TOTAL = "0.55"
HINTS = {
    "dict": 'take one of them: found["name"]',
    "HistogramBand": "plot_histogram(band) draws it",
    "Posterior": "make one with pg.diagnostics.systematics(posterior, observables, nuisances)",
}
#: Part of the uncertainty, label, and how it is filled: total below, systematic and training above it.
PARTS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("total", "total", {"color": TOTAL, "alpha": 0.45, "linewidth": 0}),
    ("systematic", "systematic", {"color": VALIDATION, "alpha": 0.45, "linewidth": 0}),
    ("training", "training", {"facecolor": "none", "edgecolor": PREDICTION, "hatch": "////", "linewidth": 0}),
)


@styled
@door(
    result=instance(Systematics, "a Systematics of pyrogen.diagnostics", HINTS),
    label=TEXT,
    unit=TEXT,
    truth_label=TEXT,
    log=BOOLEAN,
    rate=BOOLEAN,
    ax=AX,
)
def plot_systematics(
    result: Systematics,
    counts: ArrayLike | Any = None,
    *,
    total: float | None = None,
    errors: ArrayLike | None = None,
    label: str = "",
    unit: str = "",
    truth_label: str = "data",
    log: bool = False,
    rate: bool = False,
    ax: Place | None = None,
) -> Figure:
    """A histogram with one sigma of its training, systematic and total uncertainty, and the ratio to it below.

    Lines are the templates one sigma up (dashed) and down (dotted) of every nuisance parameter.

    Args:
        result: one entry of what :func:`pyrogen.diagnostics.systematics` found.
        counts: events per bin ``[B]`` or a histogram to compare to, as for :class:`HistogramPanel`.
        total: as for :class:`HistogramPanel`; with ``errors``, ``label`` and ``unit`` likewise.
        errors: errors of ``counts``.
        label: name of the observable.
        unit: its unit.
        truth_label: what ``counts`` are called in the legend.
        log: logarithmic density.
        rate: with the change of the total cross section.
        ax: where to draw, see :mod:`pyrogen.plotting`.

    Raises:
        ValueError: counts that do not fit the bins, or a rate that is not known.
    """
    panel = HistogramPanel(result.band, counts, total, errors, label, unit)
    sheet = Sheet(ax, 7.0, 6.2)
    ((upper, lower),) = sheet.pairs([panel.label], "ratio", 1, 1, (2, 1))
    density, widths = result.band.density(), result.band.widths
    ratio = np.divide(1, density, out=np.full_like(density, np.nan), where=density > 0)
    drawn = []
    for axis, scale in ((upper, np.ones_like(density)), (lower, ratio)):
        drawn.append(_uncertainties(axis, result, density, widths, scale, rate))
        if counts is not None:
            truth, error = panel.truth()
            axis.errorbar(result.band.centres, truth * scale, error * scale, label=truth_label, **_POINTS)
            drawn.append(truth * scale - 1)
    upper.set_yscale("log" if log else "linear")
    if not log:
        upper.set_ylim(bottom=0)
    legend_above(upper, 2)
    upper.set_ylabel(with_unit(f"density of {panel.label}", f"1/{panel.unit}" if panel.unit else ""))
    ratio_axis(lower, "ratio to nominal", np.concatenate(drawn[1 if counts is None else 2 :]), shown=0.98)
    if counts is not None:
        arrows_outside(lower, result.band.centres, panel.truth()[0] * ratio, _POINTS["color"])
    lower.set_xlabel(with_unit(panel.label, panel.unit))
    for axis in (upper, lower):
        axis.set_xlim(result.band.edges[0], result.band.edges[-1])
    return sheet.figure


def _uncertainties(axis: Axes, result: Systematics, density: Array, widths: Array, scale: Array, rate: bool) -> Array:
    """Draw nominal histogram, bands and templates, times ``scale``; returns the deviations from one that it drew."""
    edges, drawn = result.band.edges, []
    for part, label, look in PARTS:
        sigma = result.sigma(part, rate) / widths
        low, high = ((density + sign * sigma) * scale for sign in (-1, 1))
        axis.stairs(high, edges, baseline=low, fill=True, label=label, **look)
        drawn += [low - 1, high - 1]
    for name, colour in zip(result.shifts, colours(len(result.shifts) + 2)[2:], strict=True):
        for values, dashes in zip(result.varied(name, rate), (":", "--"), strict=True):
            line = values / widths * scale
            told = rf"{name} $\pm\sigma$" if dashes == "--" else None
            axis.stairs(line, edges, baseline=None, color=colour, linestyle=dashes, linewidth=1.4, label=told)
            drawn.append(line - 1)
    axis.stairs(density * scale, edges, baseline=None, color=PREDICTION, linewidth=1.8, label="generated")
    return np.concatenate(drawn)
