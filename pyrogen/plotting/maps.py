"""Maps of density and uncertainty, and the sigma of marginal distributions: [A] (arXiv:2104.04543) figs. 1, 3, 5, 8."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pyrogen.checks import BOOLEAN, TEXT, array, door, instance, optional
from pyrogen.diagnostics import LineResult
from pyrogen.diagnostics.maps import UncertaintyMap
from pyrogen.diagnostics.marginals import MarginalResult
from pyrogen.posterior import HistogramBand

from .histograms import HINTS
from .sheet import AX, Place, Sheet
from .style import (
    FIT,
    PREDICTION,
    VALIDATION,
    arrangement,
    arrows_outside,
    ratio_axis,
    styled,
    with_unit,
)

VISIBLE = 1e-3  # of the largest density: below, an uncertainty concerns nobody
PULLS = 4.0  # colours of a map of pulls end here
WIDEST = 3.0  # ratio of bin widths up to which a correlation is drawn to scale
NAMED = 11  # bin edges that are named one by one
COLUMNS = 3  # panels side by side: more are too small on a slide


@styled
@door(result=instance(UncertaintyMap, "an UncertaintyMap, from uncertainty_map"), log=BOOLEAN, ax=AX)
def plot_map(result: UncertaintyMap, *, log: bool = False, ax: Place | None = None) -> Figure:
    """Panels of one plane: truth, prediction, pull (without a truth the prediction alone), sigma and sigma/p.

    Cells outside the support stay blank, as do uncertainties where the predicted density is below a thousandth of its
    maximum, and pulls where the true one is, too.

    Args:
        result: what :func:`~pyrogen.diagnostics.uncertainty_map` found.
        log: logarithmic colours for densities and absolute uncertainty.
        ax: where to draw, see :mod:`pyrogen.plotting`.
    """
    supported = (result.density if result.truth is None else result.truth) > 0
    visible = supported & (result.density > VISIBLE * result.density.max())
    top = max(result.density[supported].max(initial=0), 0 if result.truth is None else result.truth.max())
    unit = _per((*result.units, *result.at_units))

    def scale(highest: float) -> Normalize:
        highest = highest or 1.0  # nothing to show, but no scale of zero length either
        return LogNorm(VISIBLE * highest, highest) if log else Normalize(0, highest)

    def shown(values: Any, where: Any) -> Any:
        return np.where(where, values, np.nan)

    panels: list[tuple[str, Any, str, Normalize, str]] = []
    if result.truth is not None:
        panels.append(("true density", shown(result.truth, supported), "viridis", scale(top), unit))
    panels.append(("predicted density $p$", shown(result.density, supported), "viridis", scale(top), unit))
    if result.truth is not None:
        pull = shown(result.pull, visible | (result.truth > VISIBLE * top))
        panels.append((r"pull $(p - $truth$)\,/\,\sigma$", pull, "RdBu_r", Normalize(-PULLS, PULLS), ""))
    sigma, relative = shown(result.sigma, visible), shown(result.relative, visible)
    panels.append((r"uncertainty $\sigma$", sigma, "magma_r", scale(float(np.nanmax(sigma, initial=0.0))), unit))
    # A density that is not known to better than itself is not known: no shades for that.
    worst = min(float(np.nanmax(relative, initial=0.0)), 1.0) or 1.0
    panels.append((r"relative uncertainty $\sigma / p$", relative, "magma_r", Normalize(0, worst), ""))

    x, y = result.x_edges, result.y_edges
    proportion = (y[-1] - y[0]) / (x[-1] - x[0])
    equal = result.units[0] == result.units[1] and 1 / 3 <= proportion <= 3
    rows, columns = arrangement(len(panels), COLUMNS)
    sheet = Sheet(ax, 4.9 * columns, rows * (3.9 * (float(proportion) if equal else 1.0) + 1.7))
    names = ["truth", "prediction", "pull", "uncertainty", "relative uncertainty"]
    names = [name for name in names if result.truth is not None or name not in ("truth", "pull")]
    axes = sheet.panels(names, rows, 2 * columns, cells=_centred(len(panels), rows, columns))
    for axis, (name, values, colours, norm, its_unit) in zip(axes, panels, strict=True):
        mesh = axis.pcolormesh(x, y, np.ma.masked_invalid(values).T, cmap=colours, norm=norm, rasterized=True)
        axis.set_aspect("equal" if equal else "auto")
        beyond = _extend(values, norm)
        bar = sheet.figure.colorbar(mesh, ax=axis, location="top", pad=0.02, aspect=25, extend=beyond)
        bar.set_label(with_unit(name, its_unit))
        if not isinstance(norm, LogNorm):
            bar.locator = MaxNLocator(5, steps=[1, 2, 5, 10])  # short labels do not run into each other
        axis.set_xlabel(with_unit(result.labels[0], result.units[0]))
        axis.set_ylabel(with_unit(result.labels[1], result.units[1]))
    if result.at:
        held = zip(result.at.items(), result.at_units or ("",) * len(result.at), strict=True)
        sheet.title("at " + ", ".join(f"{name} = {value:g} {its}".rstrip() for (name, value), its in held))
    return sheet.figure


def _centred(n: int, rows: int, columns: int) -> list[tuple[int, slice]]:
    """Places of n panels; a last row that is not full stands in the middle, so that no place looks forgotten.

    Half a panel is the unit.
    """
    shift = rows * columns - n
    starts = [(i // columns, 2 * (i % columns) + shift * (i // columns == rows - 1)) for i in range(n)]
    return [(row, slice(start, start + 2)) for row, start in starts]


def _per(units: Sequence[str]) -> str:
    """The unit of a density: one over all units, ``GeV^-2`` where there are two of them."""
    powers = Counter(unit for unit in units if unit)
    return " ".join(f"{unit}$^{{-{power}}}$" for unit, power in powers.items())


def _extend(values: Any, norm: Normalize) -> str:
    finite = values[np.isfinite(values)]
    above = bool(finite.size and norm.vmax is not None and finite.max() > norm.vmax)
    below = bool(finite.size and norm.vmin is not None and finite.min() < norm.vmin and norm.vmin != 0)
    return {(False, False): "neither", (True, False): "max", (False, True): "min", (True, True): "both"}[above, below]


@styled
@door(
    result=instance(MarginalResult, "a MarginalResult, from marginal"),
    lines=optional(instance(LineResult, "a LineResult, from density_along_lines")),
    measure=array(0, 1),
    ax=AX,
)
def plot_marginal_sigma(
    result: MarginalResult, lines: LineResult | None = None, measure: Any = 1.0, *, ax: Place | None = None
) -> Figure:
    """The uncertainty of a marginal distribution by both procedures, and that along lines beside it ([A] fig. 8).

    Thin steps are the raw spread over the draws, with the noise of the generated events; points are without it, and at
    zero where the noise explains all of it.

    Args:
        result: what :func:`~pyrogen.diagnostics.marginal` found.
        lines: density along lines of the same coordinate, on a target of which the other coordinate is trivial: its
            sigma is what the marginal's would be if the deviations were the same on all lines. Where they are
            independent from line to line, the marginal averages them away.
        measure: at the points of the lines, what turns their density into that of the coordinate alone.
        ax: where to draw, see :mod:`pyrogen.plotting`.
    """
    sheet = Sheet(ax, 8, 7.2)
    ((top, bottom),) = sheet.pairs(["uncertainty"], "ratio", 1, 1, (3, 1))
    colours = {"a": PREDICTION, "b": VALIDATION}
    shift = 0.12 * np.diff(result.edges)
    reference, deviations = result.sigma("a"), []
    for sign, (name, colour) in zip((-1, 1), colours.items(), strict=True):
        top.stairs(result.sigma(name, False), result.edges, baseline=None, color=colour, linewidth=1, alpha=0.6)
        points: Any = {"fmt": "o", "markersize": 4.5, "capsize": 2, "color": colour, "linewidth": 1.4}
        label = {"a": "(a) own events of every draw", "b": "(b) same events, weighted"}[name]
        sigma, error = result.sigma(name), result.sigma_error(name)
        top.errorbar(result.centres + sign * shift, sigma, error, label=label, **points)
        ratio, width = (
            np.divide(v, reference, where=reference > 0, out=np.full_like(v, np.nan)) for v in (sigma, error)
        )
        bottom.errorbar(result.centres + sign * shift, ratio, width, **points)
        deviations += [ratio - width - 1, ratio + width - 1]
    top.plot([], [], color="grey", linewidth=1, label="with the noise of the events")
    if lines is not None:
        top.plot(lines.t, lines.sigma * measure, color=FIT, label="along lines, mean of them")
    top.set_ylabel(with_unit(rf"uncertainty $\sigma$({result.label})", f"1/{result.unit}" if result.unit else ""))
    highest = top.get_ylim()[1]
    top.set_ylim(-0.04 * highest, 1.45 * highest)
    for axis in (top, bottom):
        axis.set_xlim(result.edges[0], result.edges[-1])
    top.legend(loc="upper left", fontsize="small")
    ratio_axis(bottom, "ratio to (a)", np.concatenate(deviations), shown=0.85)
    for name, sign in (("a", -1), ("b", 1)):
        ratio = np.divide(result.sigma(name), reference, where=reference > 0, out=np.full_like(reference, np.nan))
        arrows_outside(bottom, result.centres + sign * shift, ratio, colours[name])
    bottom.set_xlabel(with_unit(result.label, result.unit))
    return sheet.figure


@styled
@door(
    band=instance(HistogramBand, "a HistogramBand, from posterior.histogram", HINTS),
    label=TEXT,
    unit=TEXT,
    subtract_noise=BOOLEAN,
    ax=AX,
)
def plot_correlation(
    band: HistogramBand,
    *,
    label: str = "",
    unit: str = "",
    subtract_noise: bool = False,
    ax: Place | None = None,
) -> Figure:
    """Correlation between the bins of a histogram over the weight draws; bins that do not vary stay blank.

    Args:
        band: what :meth:`~pyrogen.Posterior.histogram` found.
        label: name of the observable; by default that of the band.
        unit: its unit; by default that of the band, where the label is not given either.
        subtract_noise: without the noise of the generated events.
        ax: where to draw, see :mod:`pyrogen.plotting`.
    """
    label, unit = (label, unit) if label else (band.label or "observable", unit or band.unit)
    sheet = Sheet(ax, 6.6, 5.4)
    (axis,) = sheet.panels(["correlation"])
    values = np.ma.masked_invalid(band.correlation(subtract_noise))
    # Bins of very different widths are drawn equally large: the narrow ones would not be seen.
    even = band.widths.max() <= WIDEST * band.widths.min()
    edges = band.edges if even else np.arange(len(band.edges), dtype=np.float64)
    mesh = axis.pcolormesh(edges, edges, values, cmap="RdBu_r", vmin=-1, vmax=1, rasterized=True)
    sheet.figure.colorbar(mesh, ax=axis, label="correlation between bins", pad=0.02)
    axis.set(xlabel=with_unit(label, unit), ylabel=with_unit(label, unit), aspect="equal")
    if not even or len(edges) <= NAMED:
        step = -(-len(edges) // NAMED)
        names = [f"{edge:.4g}" for edge in band.edges[::step]]
        axis.set_xticks(edges[::step], names, rotation=45)
        axis.set_yticks(edges[::step], names)
        axis.minorticks_off()
    return sheet.figure
