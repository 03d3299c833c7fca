"""Figures of an anomaly search: significance improvement of several methods, and histograms of a score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pyrogen.checks import TEXT, dictionary, door, instance, one_of, require
from pyrogen.search import SicCurve, SicCurves
from pyrogen.search.histogram import ScoreHistogram

from .sheet import AX, Place, Sheet
from .style import PREDICTION, TRUTH, VALIDATION, colours, legend_above, ratio_axis, styled

CURVES = dictionary(
    instance((SicCurve, SicCurves), "a SicCurve or SicCurves"), 'curves by name, such as {"CWoLa": SicCurves([...])}'
)
DASHES = ("-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)))
GRID = np.linspace(0.0, 1.0, 201)


@styled
@door(curves=CURVES, against=one_of("signal", "background"), title=TEXT, ax=AX)
def plot_sic(
    curves: Mapping[str, SicCurve | SicCurves],
    *,
    against: str = "signal",
    title: str = "",
    ax: Place | None = None,
) -> Figure:
    """Significance improvement of several methods, with bands of one standard deviation over the trainings.

    The band of a single curve is its statistical error. The legend has the largest improvement of each method; dotted
    is a cut that does not look at the events.

    Args:
        curves: of each method, by its name.
        against: the efficiency below the curves: of the ``"signal"``, or of the ``"background"``, on a log axis.
        title: above the figure.
        ax: where to draw, see :mod:`pyrogen.plotting`.
    """
    require(len(curves) > 0, "curves", curves, 'at least one curve by name, such as {"CWoLa": SicCurves([...])}')
    sheet = Sheet(ax, 8.0, 6.0)
    (axis,) = sheet.panels(["significance improvement"])
    low = min(0.5, *(_first(each) for each in curves.values()))
    x = GRID if against == "signal" else np.geomspace(low, 1.0, 201)
    for i, (colour, (name, each)) in enumerate(zip(colours(len(curves)), curves.items(), strict=True)):
        if isinstance(each, SicCurves):
            mean, spread = each.at_signal(x) if against == "signal" else each.at_background(x)
            best, error = each.maximum
            place, centre = x, mean
        else:
            place = each.signal_efficiency if against == "signal" else each.background_efficiency
            centre, spread, best, error = each.sic, each.sic_error, each.maximum, each.maximum_error
        told = f"{best:.1f}" if not np.isfinite(error) else f"{best:.1f} $\\pm$ {error:.1f}"
        axis.plot(place, centre, color=colour, linestyle=DASHES[i % len(DASHES)], label=f"{name}: {told}")
        if np.isfinite(spread).any():
            axis.fill_between(place, centre - spread, centre + spread, color=colour, alpha=0.25, linewidth=0)
    axis.plot(x, np.sqrt(x), color=TRUTH, linestyle=":", linewidth=1.5, label="no information")
    if against == "background":
        axis.set_xscale("log")
    axis.set_xlim(0 if against == "signal" else low, 1)
    axis.set_ylim(bottom=0)
    axis.set_xlabel(rf"{against} efficiency $\epsilon_{against[0].upper()}$")
    axis.set_ylabel(r"significance improvement $\epsilon_S / \sqrt{\epsilon_B}$")
    if title:
        axis.set_title(title)
    legend_above(axis, columns=2)
    return sheet.figure


@styled
@door(histogram=instance(ScoreHistogram, "a ScoreHistogram, from pg.search.score_histogram(scores)"), title=TEXT, ax=AX)
def plot_scores(histogram: ScoreHistogram, *, title: str = "", ax: Place | None = None) -> Figure:
    """Scores of data and template, and of signal where it is known; below, data divided by template.

    Args:
        histogram: what :func:`~pyrogen.search.score_histogram` found.
        title: above the figure.
        ax: where to draw, see :mod:`pyrogen.plotting`.
    """
    sheet = Sheet(ax, 8.0, 7.0)
    ((top, below),) = sheet.pairs(["scores"], "ratio", 1, 1, (3, 1.3))
    edges, data, template = histogram.edges, histogram.data, histogram.template
    centre = (edges[1:] + edges[:-1]) / 2
    top.stairs(template, edges, color=PREDICTION, linewidth=2, label="template, scaled to data")
    low, high = template - histogram.template_error, template + histogram.template_error
    top.stairs(high, edges, baseline=low, fill=True, color=PREDICTION, alpha=0.25)
    if histogram.signal is not None:
        top.stairs(histogram.signal, edges, fill=True, color=VALIDATION, alpha=0.6, label="signal in data")
    there = data > 0
    style: Any = {"color": TRUTH, "linestyle": "none", "marker": "o", "markersize": 4, "linewidth": 1.2}
    top.errorbar(centre[there], data[there], histogram.data_error[there], label="data", **style)
    top.set_yscale("log")
    seen = np.concatenate([each[each > 0] for each in (data, template)])
    top.set_ylim(0.5 * min(seen.min(), 1.0), 2 * seen.max())
    top.set_ylabel("events per bin")
    if title:
        top.set_title(title)
    legend_above(top, columns=2)
    both = there & (template > 0)
    ratio = data[both] / template[both]
    below.errorbar(centre[both], ratio, histogram.data_error[both] / template[both], **style)
    relative = histogram.template_error[both] / template[both]
    for x, width, its in zip(centre[both], np.diff(edges)[both], relative, strict=True):
        below.fill_between([x - width / 2, x + width / 2], 1 - its, 1 + its, color=PREDICTION, alpha=0.25, linewidth=0)
    ratio_axis(below, "data / template", ratio - 1, shown=1.0)
    below.set_ylim(0, max(2.0, min(1.2 * float((ratio[np.isfinite(ratio)]).max()), 10.0)) if both.any() else 2.0)
    below.yaxis.set_major_locator(MaxNLocator(4))
    below.set_xlabel(r"score: mean of $\log\,p_\mathrm{data} / p_\mathrm{template}$")
    for axis in (top, below):
        axis.set_xlim(edges[0], edges[-1])
    return sheet.figure


def _first(curves: SicCurve | SicCurves) -> float:
    """The smallest background efficiency of all trainings."""
    each = curves.curves if isinstance(curves, SicCurves) else [curves]
    return min(float(one.background_efficiency[0]) for one in each)
