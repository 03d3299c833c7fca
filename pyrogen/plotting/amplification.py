"""What generators are worth in quantiles of the truth: the figures of [D] (arXiv:2008.06545)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator, PercentFormatter

from pyrogen.checks import NATURAL, dictionary, door, each, instance, one_of, optional, whole
from pyrogen.diagnostics.amplification.result import Amplification, QuantileError

from .sheet import AX, Place, Sheet
from .style import TRUTH, arrangement, colours, styled, symbol

STUDY = instance(Amplification, "an Amplification, from pyrogen.diagnostics.amplification")
TRUE_EVENTS = (100, 200, 300, 500, 1_000)
AXES = {"quantiles": "number of quantiles", "training_events": "training events", "features": "features $d$"}
WIDEST_NAME = 22  # letters of a line above a map


def _studies(name: str, value: Any) -> tuple[Amplification, ...]:
    """One study, or several."""
    if isinstance(value, Amplification):
        return (value,)
    return each(STUDY, "a study of amplification, or several of them", 1)(name, value)


@styled
@door(
    results=dictionary(STUDY, "studies of amplification by name"),
    band=one_of("spread", "error", "none"),
    true_events=each(NATURAL, "numbers of true events, such as (100, 1000)", 1),
    ax=AX,
)
def plot_quantile_error(
    results: Mapping[str, Amplification],
    *,
    band: str = "spread",
    true_events: Sequence[int] = TRUE_EVENTS,
    ax: Place | None = None,
) -> Figure:
    """Quantile error against the number of generated events, one panel for each kind of quantiles [D figs. 2, 4, 6].

    Lines are means over the trainings. Dotted: samples of true events; the grey band is the standard deviation of
    samples as large as the training sample.

    Args:
        results: by name; the first one says which quantiles are shown, and the others need to have them.
        band: ``"spread"``: standard deviation over the trainings; ``"error"``: that of their mean, for many lines;
            ``"none"``.
        true_events: sizes of the samples of true events that are drawn.
        ax: where to draw, see :mod:`pyrogen.plotting`.

    Raises:
        ValueError: nothing to draw, other targets or training events, or a study without these quantiles.
    """
    first = _first(results)
    labels = [row.label for row in first.rows]
    rows, columns = arrangement(len(labels), 3)
    sheet = Sheet(ax, 6.4 * columns, 0.9 + 5.4 * rows)
    panels = sheet.panels(labels, rows, columns)
    for axis, label in zip(panels, labels, strict=True):
        for (name, result), (colour, style) in zip(results.items(), _looks(len(results)), strict=True):
            row = _row(name, result, label)
            mean, spread = row.mse.mean(0), row.mse.std(0, ddof=1)
            axis.plot(row.sizes, mean, style, color=colour, label=name)
            if band != "none":
                half = spread / np.sqrt(row.trainings) if band == "error" else spread
                low = np.maximum(mean - half, mean / 10)
                axis.fill_between(row.sizes, low, mean + half, color=colour, alpha=0.18, lw=0)
        axis.set(xscale="log", yscale="log", xlabel="generated events")
        axis.set_title(re.sub(r"^(\d+\^\d+ = [\d,]+)", r"$\1$", label).replace(",", "{,}"), fontsize="medium")
        axis.set_xlim(first.sizes[0], first.sizes[-1])
        ends = [float(_row(name, result, label).mse[:, -1].mean()) for name, result in results.items()]
        _true_samples(axis, _row("", first, label), true_events, ends)
    for axis in panels if sheet.lent else panels[::columns]:
        axis.set_ylabel("quantile error MSE")
    handles, names = panels[0].get_legend_handles_labels()
    sheet.legend(handles, names, arrangement(len(names), 3 * columns)[1])
    return sheet.figure


def _true_samples(axis: Axes, row: QuantileError, true_events: Sequence[int], ends: list[float]) -> None:
    """The exact errors of samples of true events, and limits that show them and the ends of all lines."""
    mean, spread = row.true_error(row.training_events)
    axis.axhspan(max(mean - spread, mean / 10), mean + spread, color="grey", alpha=0.25, lw=0, zorder=0)
    levels = [row.true_error(n)[0] for n in true_events]
    where: dict[str, Any] = {"transform": axis.get_yaxis_transform(), "va": "center", "fontsize": "small"}
    for n, level in zip(true_events, levels, strict=True):
        axis.axhline(level, color=TRUTH, linestyle=":", linewidth=1.3)
        axis.text(1.015, level, f"{n:,}", **where)
    axis.plot([], [], ":", color=TRUTH, label="so many true events")
    shown = [*levels, *ends, mean]
    axis.set_ylim(0.6 * min(shown), 4 * max(shown))


@styled
@door(results=dictionary(STUDY, "studies of amplification by name"), training=whole(0), ax=AX)
def plot_quantile_deviation(
    results: Mapping[str, Amplification], *, training: int = 0, ax: Place | None = None
) -> Figure:
    """Relative deviation of one training's events in every quantile of two features [D fig. 5], a map for each study.

    Args:
        results: by name, of two features; ``memorised`` events stand for the training sample. The first quantiles that
            are not projected are shown.
        training: which of the trainings.
        ax: where to draw, see :mod:`pyrogen.plotting`.

    Raises:
        ValueError: nothing to draw, other features than two, other targets, projected quantiles only, or no such
            training.
    """
    first = _first(results)
    if first.features != 2:
        raise ValueError(f"results are of {first.features} features; a map needs two")
    full = [row for row in first.rows if row.coordinate is None]
    if not full:
        raise ValueError("results hold projected quantiles only; a map needs those of both coordinates")
    rows = {name: _row(name, result, full[0].label) for name, result in results.items()}
    if training >= min(row.trainings for row in rows.values()):
        raise ValueError(
            f"training is {training}; the trainings are 0 to {min(r.trainings for r in rows.values()) - 1}"
        )
    height, width = arrangement(len(rows), 4)
    sheet = Sheet(ax, 4.6 * width + 1.2, 5.2 * height)
    panels = sheet.panels([*rows], height, width)
    for axis, (name, row) in zip(panels, rows.items(), strict=True):
        grid = row.deviation[training].reshape(row.bins, row.bins)
        image = axis.imshow(grid, origin="lower", cmap="RdBu_r", vmin=-1, vmax=1)
        axis.set_xlabel(f"quantile of {symbol(first.coordinates[1])}")
        axis.minorticks_off()
        ticks = np.arange(row.bins)
        axis.set_xticks(ticks, ticks + 1)
        axis.set_yticks(ticks, ticks + 1)
        rms = np.sqrt(np.mean(np.square(grid)))
        axis.text(0.5, 1.01, f"rms {rms:.0%}", transform=axis.transAxes, ha="center", va="bottom", fontsize="small")
        axis.set_title(fill(name, WIDEST_NAME), pad=22, fontsize="medium")
        axis.set_ylabel(f"quantile of {symbol(first.coordinates[0])}")
    bar = sheet.figure.colorbar(image, ax=panels, extend="max", shrink=0.8, format=PercentFormatter(1.0, decimals=0))
    bar.set_label("relative deviation from the truth")
    return sheet.figure


@styled
@door(
    results=dictionary(_studies, "studies of amplification by name"),
    against=one_of(*AXES),
    quantiles=optional(each(NATURAL, "numbers of quantiles, such as (50, 49, 243)", 1)),
    ax=AX,
)
def plot_factor(
    results: Mapping[str, Amplification | Sequence[Amplification]],
    *,
    against: str = "quantiles",
    quantiles: Sequence[int] | None = None,
    ax: Place | None = None,
) -> Figure:
    """Amplification factor against the number of quantiles [D fig. 7 right], of training events, or of features.

    Points with errors; an arrow upwards is a lower limit at 95 % confidence. Projected quantiles are left out.

    Args:
        results: one study or several by name: several of other numbers of training events or features.
        against: ``"quantiles"``, ``"training_events"`` or ``"features"``. Against training events every kind of
            quantiles has a line of its own.
        quantiles: show these total numbers of quantiles alone; None: all.
        ax: where to draw, see :mod:`pyrogen.plotting`.

    Raises:
        ValueError: nothing to draw.
    """
    lines: dict[str, list[tuple[float, QuantileError]]] = {}
    for name, studies in results.items():
        for study in cast(Sequence[Amplification], studies):
            shown = [
                row for row in study.rows if row.coordinate is None and row.quantiles in (quantiles or [row.quantiles])
            ]
            for row in shown:
                line = f"{name}, {row.label}" if against == "training_events" and len(shown) > 1 else name
                x = study.features if against == "features" else getattr(row, against)
                lines.setdefault(line, []).append((float(x), row))
    if not lines:
        raise ValueError(
            "results hold nothing to draw; give studies of quantiles of all coordinates, and their numbers"
        )
    sheet = Sheet(ax, 8, 6.4)
    (axis,) = sheet.panels(["factor"])
    for k, ((name, points), (colour, style)) in enumerate(zip(lines.items(), _looks(len(lines)), strict=True)):
        points = sorted(points, key=lambda point: point[0])
        side = k - (len(lines) - 1) / 2  # points at one x stand beside each other
        x = np.array([at + 0.02 * side if against == "features" else at * 1.015**side for at, _ in points])
        known = np.array([row.resolved for _, row in points])
        value, error = np.array([row.factor if row.resolved else (row.factor_limit, 0.0) for _, row in points]).T
        axis.plot([], [], f"o{style}", color=colour, label=name)
        axis.errorbar(x[known], value[known], error[known], fmt=f"o{style}", color=colour, capsize=3)
        axis.errorbar(x[~known], value[~known], 0.3 * value[~known], fmt="_", lolims=True, color=colour)
    axis.axhline(1, color=TRUTH, linewidth=1, linestyle="--")
    axis.set(xscale="linear" if against == "features" else "log", yscale="log")
    axis.set(xlabel=AXES[against], ylabel="amplification factor $G$")
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:,g}" if f"{value:e}"[0] in "235" else ""))
    ticks = sorted({at for points in lines.values() for at, _ in points})
    axis.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
    axis.xaxis.set_minor_locator(NullLocator())
    sheet.legend(*axis.get_legend_handles_labels(), arrangement(len(lines), 3)[1], fontsize="small")
    return sheet.figure


def _looks(n: int) -> list[tuple[str, str]]:
    """Colours and styles of n lines: dashed ones, where the colours come again."""
    every = colours(n)
    return [(colour, "--" if colour in every[:k] else "-") for k, colour in enumerate(every)]


def _first(results: Mapping[str, Amplification]) -> Amplification:
    """The first of several studies of one target."""
    if not results:
        raise ValueError("results is empty; give at least one study of amplification")
    first, *others = results.values()
    for name, other in zip([*results][1:], others, strict=True):
        if (other.target, other.training_events) != (first.target, first.training_events):
            raise ValueError(
                f"{name} is of {other.training_events:,} events of {other.target}, the first of "
                f"{first.training_events:,} of {first.target}: draw them in figures of their own"
            )
    return first


def _row(name: str, result: Amplification, label: str) -> QuantileError:
    found = [row for row in result.rows if row.label == label]
    if not found:
        raise ValueError(f"{name} has {', '.join(row.label for row in result.rows)}, and no {label}")
    return found[0]
