"""What classifiers say of a generator: weights, ROC curve, calibration and losses [C] (arXiv:2305.16774)."""

from __future__ import annotations

from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from pyrogen.checks import TEXT, door, instance
from pyrogen.diagnostics.control.result import ClassifierWeights

from .sheet import AX, Place, Sheet
from .style import CONTROL, PREDICTION, TRUTH, VALIDATION, legend_above, styled, with_error

WEIGHTS = instance(
    ClassifierWeights,
    "a ClassifierWeights, from classifier_weights",
    {"ClassifierResult": "classifier_test keeps no weights of the events; use classifier_weights"},
)
LETTERS = 110  # of a line of the title
CURVES = 12  # trainings that are drawn one by one
LABELLED = ((1.0, 2.0, 5.0), (1.0, 3.0), (1.0,))  # of a logarithmic axis over one, two and more decades


@styled
@door(weights=WEIGHTS, title=TEXT, ax=AX)
def plot_classifier_weights(weights: ClassifierWeights, *, title: str = "", ax: Place | None = None) -> Figure:
    """Weights of true and generated events in linear and logarithmic bins, tails, ROC, calibration and losses.

    Grey is the control, truth against truth: of half as many events, if no other true events were given, so that it is
    wider than the floor. Weights outside of the first panel are in its outermost bins. Calibration: truth over
    generated events in bins of w, which are on the diagonal if the weights are right [C eq. 11].

    Args:
        weights: what :func:`~pyrogen.diagnostics.classifier_weights` found.
        title: above the figure.
        ax: where to draw, see :mod:`pyrogen.plotting`.
    """
    sheet = Sheet(ax, 17, 9.4)
    names = ["weights", "weights on a logarithmic scale", "tails", "ROC curve", "calibration", "losses"]
    linear, logarithmic, tails, roc, calibration, losses = sheet.panels(names, 2, 3)
    sheet.title(fill(title, LETTERS))
    for axis, log in ((linear, False), (logarithmic, True)):
        _histogram(axis, weights, log)
    _tails(tails, weights)
    _roc(roc, weights)
    _calibration(calibration, weights)
    _losses(losses, weights)
    return sheet.figure


def _histogram(axis: Axes, weights: ClassifierWeights, log: bool) -> None:
    found = weights.histograms(50, log=log)
    widths = np.diff(np.log10(found.edges) if log else found.edges)
    if found.control is not None and found.control_error is not None:
        axis.stairs(found.control / widths, found.edges, fill=True, color=CONTROL, alpha=0.35, label="truth vs truth")
    for name, colour in (("truth", TRUTH), ("generated", PREDICTION)):
        values, error = getattr(found, name) / widths, getattr(found, f"{name}_error") / widths
        axis.stairs(values, found.edges, color=colour, linewidth=2, label=name)
        low = np.clip(values - error, 0, None)
        axis.stairs(values + error, found.edges, baseline=low, fill=True, color=colour, alpha=0.2)
    axis.axvline(1, color=TRUTH, linewidth=1, linestyle=":")
    axis.set_xlabel(r"$w = p_\mathrm{data}/p_\mathrm{model}$")
    if log:
        axis.set(xscale="log", yscale="log", ylabel=r"density in $\log_{10}w$", xlim=found.edges[[0, -1]])
        some = np.concatenate([found.truth[found.truth > 0], found.generated[found.generated > 0]])
        axis.set_ylim(bottom=0.5 * some.min() / widths[0])
        _decades(axis, *found.edges[[0, -1]])
    else:
        # The control may leave the panel: it is far narrower than samples that differ.
        highest = max(found.truth.max(), found.generated.max()) / widths[0]
        axis.set(ylabel="density", xlim=found.edges[[0, -1]], ylim=(0, 1.25 * highest))
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.ticklabel_format(axis="x", useOffset=False)
    legend_above(axis, 2)


def _decades(axis: Axes, low: float, high: float) -> None:
    """Plain numbers on a logarithmic axis of weights, as many as fit."""
    decades = np.log10(high / low)
    subs = LABELLED[0 if decades < 2 else 1 if decades < 4 else 2]
    if decades < 0.8:
        axis.xaxis.set_major_locator(MaxNLocator(4))
    else:
        axis.xaxis.set_major_locator(LogLocator(subs=subs))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def _tails(axis: Axes, weights: ClassifierWeights) -> None:
    found = weights.tails()
    at = np.arange(len(found.cuts))
    shown: list[tuple[str, str, str, float]] = [("truth", TRUTH, "o", -0.15), ("generated", PREDICTION, "s", 0.0)]
    if weights.control is not None:
        shown.append(("control", CONTROL, "D", 0.15))
    for name, colour, marker, shift in shown:
        label = "truth vs truth" if name == "control" else name
        values, errors = getattr(found, name), getattr(found, f"{name}_error")
        there = values > 0
        lower = np.minimum(errors, 0.9 * values)  # a logarithmic axis has no zero
        style: Any = {"fmt": marker, "color": colour, "capsize": 3, "label": label}
        axis.errorbar(at[there] + shift, values[there], [lower[there], errors[there]], **style)
        # No event in the tail: less than one event, at about this confidence.
        axis.plot(at[~there] + shift, errors[~there], "v", color=colour)
    axis.set_xticks(at, [f"$w {'<' if cut < 1 else '>'} {cut:g}$" for cut in found.cuts], fontsize="small")
    axis.tick_params(axis="x", which="minor", bottom=False, top=False)
    axis.set(yscale="log", ylabel="fraction of events", xlim=(-0.6, len(at) - 0.4))
    legend_above(axis, 2)


def _roc(axis: Axes, weights: ClassifierWeights) -> None:
    axis.plot([0, 1], [0, 1], color=TRUTH, linewidth=1, linestyle="--")
    if weights.control is not None:
        axis.plot(*weights.control.roc(), color=CONTROL, label=f"truth vs truth: {_area(weights.control)}")
    axis.plot(*weights.roc(), color=PREDICTION, label=f"AUC {_area(weights)}")
    axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="generated events above cut", ylabel="true events above cut")
    axis.legend(loc="lower right")


def _area(weights: ClassifierWeights) -> str:
    """The AUC with its error, without the rounding of samples that do not overlap."""
    area, error = (round(number, 9) for number in weights.auc)
    return with_error(area, error) if error > 0 else f"{area:.3f}"


def _calibration(axis: Axes, weights: ClassifierWeights) -> None:
    found = weights.calibration()
    there = (found.w > 0) & (found.ratio > 0)
    w, ratio, error = found.w[there], found.ratio[there], found.error[there]
    ends = np.array([min(w.min(), ratio.min()), max(w.max(), ratio.max())]) * [0.9, 1.1]
    axis.plot(ends, ends, color=TRUTH, linewidth=1, linestyle="--")
    label = rf"$\chi^2/$ndf {found.chi2:.1f}/{found.ndf:.0f}, p = {found.p_value:.2g}"
    lower = np.minimum(error, 0.9 * ratio)
    axis.errorbar(w, ratio, [lower, error], fmt="o", color=PREDICTION, capsize=2, label=label)
    axis.set(xlabel="$w$ of the classifier", ylabel=r"$N_\mathrm{truth}/N_\mathrm{generated}$", xlim=ends, ylim=ends)
    for which in (axis.xaxis, axis.yaxis):
        which.set_major_locator(MaxNLocator(4))
    if ends[1] / ends[0] > 3:
        axis.set(xscale="log", yscale="log")
        for which in (axis.xaxis, axis.yaxis):
            which.set_major_locator(LogLocator(subs=LABELLED[0] if ends[1] / ends[0] < 100 else LABELLED[2]))
            which.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            which.set_minor_formatter(NullFormatter())
    axis.legend(loc="upper left")


def _losses(axis: Axes, weights: ClassifierWeights) -> None:
    found = weights.trainings
    curves = (("training", found.loss, PREDICTION, "-"), ("validation", found.validation_loss, VALIDATION, "--"))
    for name, table, colour, style in curves:
        for row in table[:CURVES]:
            axis.plot(np.arange(1, len(row) + 1), row, color=colour, linestyle=style, linewidth=1, alpha=0.5)
        if table.size:
            axis.plot([], [], color=colour, linestyle=style, label=name)
    axis.axhline(np.log(2), color=TRUTH, linewidth=1, linestyle=":", label="guess: log 2")
    axis.set(
        xlabel="number of trees" if weights.settings.get("method") == "trees" else "epoch", ylabel="loss per event"
    )
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=3))
    axis.set_ylim(*_limits(found.loss, found.validation_loss))
    legend_above(axis, 2)


def _limits(*tables: NDArray[np.float64]) -> tuple[float, float]:
    """Of the losses, log 2 among them; the first epochs of a few trainings may leave the panel."""
    values = np.concatenate([table[np.isfinite(table)] for table in tables] + [np.array([np.log(2)])])
    low, high = float(values.min()), float(max(np.quantile(values, 0.98), np.log(2)))
    room = 0.08 * max(high - low, 1e-4)
    return low - room, high + room
