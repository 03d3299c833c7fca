"""Figures of a bump hunt: the spectrum with its fit, the scan, and whether its p-values are uniform."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from pyrogen.checks import TEXT, array, dictionary, door, instance, optional, require, whole
from pyrogen.search import BumpHuntResult

from .sheet import AX, Place, Sheet
from .style import BANDS, FIT, PREDICTION, TRUTH, VALIDATION, colours, legend_above, styled, with_unit

RESULT = instance(BumpHuntResult, "a BumpHuntResult, from pg.search.bump_hunt")
SHOWN = 40  # bins of the figure at most; finer ones are summed
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


@styled
@door(result=RESULT, bins=whole(2), ax=AX)
def plot_spectrum(result: BumpHuntResult, *, bins: int = SHOWN, ax: Place | None = None) -> Figure:
    """The spectrum with the fit of the whole range, its band, and the windows; pulls in the panel below.

    Without a fit the background of the windows is drawn, with its error. The window with the largest excess is shaded.

    Args:
        result: of a scan.
        bins: of the figure at most; neighbours of the result's bins are summed.
        ax: where to draw, see :mod:`pyrogen.plotting`.
    """
    sheet = Sheet(ax, 8.2, 7.2)
    ((top, low),) = sheet.pairs(["spectrum"], "pull", 1, 1, (3, 1))
    rows = _groups(result.edges, bins)
    edges = result.edges[np.append(rows, len(result.edges) - 1)]
    widths = np.diff(edges)
    counts, variance = (np.add.reduceat(its, rows) for its in (result.counts, np.square(result.errors)))
    centres, seen = (edges[1:] + edges[:-1]) / 2, counts > 0
    errors = np.sqrt(variance)
    best = result.best
    for axis in (top, low):
        axis.axvspan(result.low[best], result.high[best], color=VALIDATION, alpha=0.15, linewidth=0)
    top.errorbar(
        centres[seen], (counts / widths)[seen], (errors / widths)[seen], fmt="o", color=TRUTH, markersize=4,
        linewidth=1.2, label="data" if result.poisson or result.fit else "generators",
    )  # fmt: skip
    if result.fit is not None:
        _fit(top, low, result, rows, edges, counts, errors)
    middle, half = (result.high + result.low) / 2, (result.high - result.low) / 2
    if result.fit is None or len(result.low) == 1:
        top.errorbar(
            middle, result.background / (2 * half), result.background_sigma / (2 * half), xerr=half, fmt="none",
            color=FIT, linewidth=2, label="background in windows",
        )  # fmt: skip
    if result.fit is None:
        low.errorbar(middle, result.significance, xerr=half, fmt="o", color=FIT, markersize=4)
        low.set_ylabel(r"significance [$\sigma$]", fontsize="medium")
    top.set_yscale("log")
    positive = (counts / widths)[seen]
    top.set_ylim(0.3 * positive.min(), 5 * positive.max())
    for w, (first, last) in enumerate(zip(result.low, result.high, strict=True)):
        height = 0.02 + 0.02 * (w % 2)  # of neighbours that overlap
        top.plot([first, last], [height] * 2, color=VALIDATION, linewidth=1.5, transform=top.get_xaxis_transform())
    top.set_ylabel(f"events / {result.unit or 'unit'}")
    for axis in (top, low):
        axis.set_xlim(*result.range)
    top.legend(loc="upper right", title=result.method, title_fontsize="small")
    low.axhline(0, color=TRUTH, linewidth=1)
    low.set_xlabel(with_unit(result.label, result.unit))
    return sheet.figure


def _fit(
    top: Axes, low: Axes, result: BumpHuntResult, rows: NDArray[Any], edges: NDArray[Any], counts: Any, errors: Any
) -> None:
    fit = result.fit
    assert fit is not None
    widths = np.diff(edges)
    expected = np.add.reduceat(fit.expected, rows)
    ends = np.append(rows, len(fit.expected))
    groups = [slice(a, b) for a, b in zip(ends[:-1], ends[1:], strict=True)]
    sigma = np.sqrt(np.clip([fit.correlated[g, g].sum() for g in groups], 0, None))
    for k, opacity in BANDS:
        top.stairs(
            (expected + k * sigma) / widths, edges, baseline=(expected - k * sigma) / widths, fill=True,
            color=PREDICTION, alpha=opacity, linewidth=0,
        )  # fmt: skip
    told = f"dijet function, $\\chi^2$/ndf = {fit.chi2:.0f}/{fit.ndf}"
    top.stairs(expected / widths, edges, baseline=None, color=PREDICTION, label=told)
    scale = np.square(errors).sum() / counts.sum()
    pulls = _pulls(counts / scale, expected / scale)
    low.stairs(pulls, edges, fill=True, color=PREDICTION, alpha=0.6)
    low.set_ylabel("pull", fontsize="medium")
    reach = max(3.5, float(1.1 * np.abs(pulls).max()))
    low.set_ylim(-reach, reach)


def _pulls(seen: NDArray[np.float64], expected: NDArray[np.float64]) -> NDArray[np.float64]:
    """Signed roots of the deviance: pulls of the Poisson distribution, also of few events."""
    ratio = np.where(seen > 0, seen, 1.0) / expected
    deviance = 2 * (np.where(seen > 0, seen * np.log(ratio), 0.0) - (seen - expected))
    return np.sign(seen - expected) * np.sqrt(np.clip(deviance, 0, None))


def _groups(edges: NDArray[np.float64], bins: int) -> NDArray[np.intp]:
    """First bins of the groups of neighbours that make at most so many bins of about one width."""
    wanted = np.linspace(edges[0], edges[-1], bins + 1)[:-1]
    return np.unique(np.clip(np.searchsorted(edges, wanted - 1e-9 * (edges[-1] - edges[0])), 0, len(edges) - 2))


@styled
@door(
    results=lambda name, value: (
        {value.method: value} if isinstance(value, BumpHuntResult) else dictionary(RESULT)(name, value)
    ),
    ax=AX,
)
def plot_scan(results: BumpHuntResult | Mapping[str, BumpHuntResult], *, ax: Place | None = None) -> Figure:
    """Local significance of every window against its mass, for one method or several; the global one is written in.

    Args:
        results: one scan, or several by the names of their methods.
        ax: where to draw, see :mod:`pyrogen.plotting`.
    """
    require(len(results) > 0, "results", results, "at least one BumpHuntResult")  # type: ignore[arg-type]
    sheet = Sheet(ax, 8.6, 6.2)
    (axis,) = sheet.panels(["scan"])
    shift = np.linspace(-0.18, 0.18, len(results)) if len(results) > 1 else [0.0]  # type: ignore[arg-type]
    for (name, result), colour, marker, moved in zip(
        results.items(), colours(len(results)), MARKERS * 9, shift, strict=False  # type: ignore[union-attr, arg-type]
    ):  # fmt: skip
        told = f"{name}\n({_global(result)})" if result.trials is not None else name
        half = (result.high - result.low) / 2
        axis.errorbar(
            result.low + half * (1 + moved), result.z, xerr=half if len(results) == 1 else None, fmt=marker,  # type: ignore[arg-type]
            color=colour, markersize=6, linewidth=1, label=told,
        )  # fmt: skip
    low, high = axis.get_ylim()
    axis.set_ylim(min(low, -2.5), max(high + 0.5, 3.5))
    for level in range(int(np.ceil(axis.get_ylim()[0])), int(axis.get_ylim()[1]) + 1):
        axis.axhline(level, color="dimgrey" if level else TRUTH, linewidth=0.6 if level else 1.2, zorder=0)
    axis.set_xlabel(with_unit(result.label, result.unit))
    axis.set_ylabel(r"local significance [$\sigma$]")
    axis.xaxis.set_major_locator(MaxNLocator(6))
    legend_above(axis, 2, fontsize="small")
    return sheet.figure


def _global(result: BumpHuntResult) -> str:
    trials = result.trials
    assert trials is not None
    if not trials.exceeding:
        return f"global p < {trials.limit:.1g}, > {trials.significance:.1f}$\\sigma$"
    return f"global p = {trials.p_value:.2g} $\\pm$ {trials.error:.1g}, {trials.significance:.1f}$\\sigma$"


@styled
@door(p_values=dictionary(array(1)), title=optional(TEXT), ax=AX)
def plot_p_values(
    p_values: Mapping[str, ArrayLike | Sequence[float]], *, title: str | None = None, ax: Place | None = None
) -> Figure:
    """Fraction of samples without a signal with a p-value below p, against p: on the diagonal where it is right.

    The band is one and two binomial standard deviations of the smallest set.

    Args:
        p_values: ``[T]`` by the name of the method; T samples without a signal.
        title: of the figure.
        ax: where to draw, see :mod:`pyrogen.plotting`.
    """
    require(len(p_values) > 0, "p_values", p_values, "at least one array")
    found = {name: np.sort(np.asarray(its, dtype=np.float64)) for name, its in p_values.items()}
    for name, its in found.items():
        require(len(its) > 0 and bool(((its >= 0) & (its <= 1)).all()), f"p_values[{name!r}]", its, "between 0 and 1")
    sheet = Sheet(ax, 7.2, 6.4)
    (axis,) = sheet.panels(["p-values"])
    grid = np.linspace(0, 1, 201)
    error = np.sqrt(grid * (1 - grid) / min(map(len, found.values())))
    for k, opacity in BANDS:
        axis.fill_between(grid, -k * error, k * error, color="grey", alpha=opacity, linewidth=0)
    for (name, its), colour in zip(found.items(), colours(len(found)), strict=True):
        axis.step(its, np.arange(1, len(its) + 1) / len(its) - its, where="post", color=colour, label=name)
    axis.axhline(0, color=TRUTH, linewidth=1)
    axis.set_xlim(0, 1)
    axis.set_xlabel("local p-value p")
    axis.set_ylabel("fraction of samples below p, minus p")
    if title:
        axis.set_title(title, fontsize="medium")
    legend_above(axis, 1, fontsize="small")
    return sheet.figure
