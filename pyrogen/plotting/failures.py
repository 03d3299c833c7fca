"""The tails of the weights in the observables in which a generator fails: [C] (arXiv:2305.16774) fig. 19."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from pyrogen.checks import BOOLEAN, NATURAL, TEXT, door, each, instance, optional
from pyrogen.diagnostics import Failures, ObservableFailure, TailHistogram

from .sheet import AX, Place, Sheet
from .style import (
    FIT,
    PREDICTION,
    TRUTH,
    VALIDATION,
    arrangement,
    arrows_outside,
    ratio_axis,
    styled,
    with_unit,
)

COLUMNS = 3
WIDE, HIGH = 32, 24  # letters of a label that fit beside a panel of densities


@styled
@door(
    failures=instance(Failures, "a Failures, from find_failures"),
    most=NATURAL,
    names=optional(each(TEXT, "names of observables, such as ['m_ab']", 1)),
    log=BOOLEAN,
    ax=AX,
)
def plot_failures(
    failures: Failures,
    most: int = 3,
    *,
    names: Sequence[str] | None = None,
    log: bool = False,
    ax: Place | None = None,
) -> Figure:
    """Distributions of generated events with small w, true ones with large w, and all, with generated over truth below.

    All are normalised to one. Where the generator fails, the tails are somewhere else than all events; a tail of too
    few events is not drawn. The title says what the failure is called, and what share of the classifier's information
    the observable has.

    Args:
        failures: what :func:`~pyrogen.diagnostics.find_failures` found.
        most: how many observables to draw, the best ones, up to three in a row.
        names: the observables to draw instead.
        log: logarithmic densities.
        ax: where to draw, see :mod:`pyrogen.plotting`.

    Raises:
        ValueError: a name that is not among the observables.
    """
    rows = failures.rows[:most] if names is None else tuple(_row(failures, name) for name in names)
    high, wide = arrangement(len(rows), COLUMNS)
    sheet = Sheet(ax, 5.6 * wide, 5.4 * high + 0.5)
    pairs = sheet.pairs([row.name for row in rows], "ratio", high, wide, (3, 1))
    entries: dict[str, Any] = {}
    for (top, bottom), row in zip(pairs, rows, strict=True):
        _densities(top, row.histogram, failures.cuts, log)
        _ratio(bottom, row.histogram)
        _dress(top, bottom, row)
        handles, labels = top.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    sheet.legend(list(entries.values()), list(entries), 4 if wide > 1 else 2)
    return sheet.figure


def _row(failures: Failures, name: str) -> ObservableFailure:
    try:
        return failures[name]
    except KeyError as error:
        raise ValueError(f"names: {error.args[0]}") from None


def _densities(axis: Axes, its: TailHistogram, cuts: tuple[float, float], log: bool) -> None:
    tails = (
        (its.small, its.small_error, VALIDATION, f"generated, $w<{cuts[0]:.2g}$"),
        (its.large, its.large_error, FIT, f"truth, $w>{cuts[1]:.2g}$"),
    )
    for density, error, colour, label in tails:
        if density is not None and error is not None:
            axis.stairs(density, its.edges, fill=True, color=colour, alpha=0.25)
            axis.stairs(density, its.edges, baseline=None, color=colour, linewidth=1.8, label=label)
            _errors(axis, its.edges, density, error, colour)
    axis.stairs(its.truth, its.edges, baseline=None, color=TRUTH, linewidth=1.6, label="truth, all")
    axis.stairs(
        its.generated, its.edges, baseline=None, color=PREDICTION, linewidth=1.8, linestyle="--", label="generated, all"
    )
    if log:
        axis.set_yscale("log")
        positive = np.concatenate([part[part > 0] for part in (its.truth, its.generated)])
        highest = [part.max() for part in (its.truth, its.generated, its.small, its.large) if part is not None]
        if len(positive):
            axis.set_ylim(positive.min() / 2, 3 * max(highest))
    else:
        axis.set_ylim(bottom=0)


def _errors(
    axis: Axes, edges: NDArray[np.float64], density: NDArray[np.float64], error: NDArray[np.float64], colour: str
) -> None:
    seen = density > 0
    middle = 0.5 * (edges[1:] + edges[:-1])
    axis.errorbar(middle[seen], density[seen], error[seen], fmt="none", ecolor=colour, elinewidth=1.0, alpha=0.8)


def _ratio(axis: Axes, its: TailHistogram) -> None:
    middle = 0.5 * (its.edges[1:] + its.edges[:-1])
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = its.generated / its.truth
        error = np.hypot(its.generated_error / its.truth, ratio * its.truth_error / its.truth)
    good = np.isfinite(ratio) & (its.truth > 0)
    ratio_axis(axis, "generated\n/ truth", (ratio - 1)[good & (error < 0.3)])
    axis.errorbar(middle[good], ratio[good], error[good], fmt="o", color=PREDICTION, markersize=3.5, elinewidth=1.2)
    arrows_outside(axis, middle[good], ratio[good], PREDICTION)


def _dress(top: Axes, bottom: Axes, row: ObservableFailure) -> None:
    for axis in (top, bottom):
        axis.set_xlim(row.histogram.edges[0], row.histogram.edges[-1])
    bottom.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 4, 5, 10]))
    per = f"1/({row.unit})" if re.search(r"[/\s]", row.unit) else f"1/{row.unit}"
    _fitting(bottom.xaxis.label, with_unit(row.label, row.unit), WIDE)
    _fitting(top.yaxis.label, with_unit("density", per if row.unit else ""), HIGH)
    what = "no significant difference" if row.mode is None else row.mode.kind
    if row.follows:
        what = "follows from the first"
    share = f" ({max(row.share, 0.0):.0%} of the information)" if np.isfinite(row.share) else ""
    top.set_title(what + share, fontsize="small")


def _fitting(label: Text, text: str, most: int) -> None:
    """Write a label of at most so many letters a line: in several lines, and in smaller letters where it must be.

    A line ends behind a space, an underscore or a slash. Formulas are not split.
    """
    lines = [""]
    for part in [text] if "$" in text else re.findall(r"[^\s_/]*[\s_/]*", text):
        if lines[-1] and len((lines[-1] + part).rstrip()) > most:
            lines.append("")
        lines[-1] += part
    length = max(len(re.sub(r"\\[a-z]+|[${}\\]", "", line).rstrip()) for line in lines)
    label.set_text("\n".join(line.rstrip() for line in lines))
    label.set_fontsize(float(label.get_fontsize()) * min(1.0, most / max(length, 1), 3 / len(lines)))
