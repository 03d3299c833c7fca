"""Figures of CATHODE: template and data in the signal region, significance of all cuts, mass before and after a cut."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pyrogen.checks import door, instance, optional, require, whole
from pyrogen.search.cathode_result import Cathode

from .sheet import AX, Place, Sheet
from .style import (
    BANDS,
    FIT,
    FOURTH,
    PREDICTION,
    TRUTH,
    VALIDATION,
    arrangement,
    arrows_outside,
    legend_above,
    plain_numbers,
    ratio_axis,
    styled,
    with_unit,
)

Array = NDArray[np.float64]
RESULT = instance(Cathode, "a Cathode, from pg.search.cathode")
BINS = 40
SHOWN = (0.002, 0.998)  # quantiles of a feature between which it is drawn


@styled
@door(result=RESULT, bins=whole(2), ax=AX)
def plot_template(result: Cathode, *, bins: int = BINS, ax: Place | None = None) -> Figure:
    """Features in the signal region: data, and the generated background with the band of its posterior.

    The background has the number of events of the fit of the masses, whose uncertainty is not in the band.

    Args:
        result: of :func:`pyrogen.search.cathode`.
        bins: of each feature.
        ax: where to draw, see :mod:`pyrogen.plotting`.
    """
    own = result.sample.features[result.sample.in_signal]
    rows, columns = arrangement(own.features, 4)
    sheet = Sheet(ax, 5.2 * columns, 5.6 * rows)
    pairs = sheet.pairs(own.names, "ratio", rows, columns, (3, 1.3))
    for i, ((axis, ratio), name, unit) in enumerate(zip(pairs, own.names, own.units, strict=True)):
        values = own.values[:, i]
        low, high = np.quantile(values, SHOWN)
        edges = np.linspace(low, high, bins + 1)
        counts = np.histogram(values, edges)[0].astype(np.float64)
        draws = [
            np.stack([np.histogram(its.events.values[:, i], edges, weights=w)[0] for w in its.weights]) / len(its)
            for its in result.templates
        ]
        mean = np.mean([each.mean(0) for each in draws], axis=0) * result.mass_fit.total
        spread = np.sqrt(np.sum([each.var(0, ddof=1) for each in draws], axis=0)) / len(draws) * result.mass_fit.total
        _with_band(axis, edges, mean, spread, "generated background")
        centres = (edges[1:] + edges[:-1]) / 2
        axis.errorbar(centres, counts, np.sqrt(counts), fmt="o", color=TRUTH, markersize=3.5, label="data")
        axis.set(ylabel="events per bin", xlim=(edges[0], edges[-1]), ylim=(0, 1.1 * counts.max()))
        with np.errstate(divide="ignore", invalid="ignore"):
            _with_band(ratio, edges, np.ones(bins), spread / mean, None)
            ratio.errorbar(centres, counts / mean, np.sqrt(counts) / mean, fmt="o", color=TRUTH, markersize=3.5)
            ratio_axis(ratio, "ratio", counts / mean - 1)
            arrows_outside(ratio, centres, counts / mean, TRUTH)
        ratio.set(xlabel=with_unit(name, unit), xlim=(edges[0], edges[-1]))
    legend_above(pairs[0][0], 1)
    return sheet.figure


@styled
@door(result=RESULT, ax=AX)
def plot_significance(result: Cathode, *, ax: Place | None = None) -> Figure:
    """Significance of each cut with and without the uncertainty of the background, and what that is made of.

    Args:
        result: of :func:`pyrogen.search.cathode`.
        ax: where to draw, see :mod:`pyrogen.plotting`.
    """
    table = result.table
    sheet = Sheet(ax, 14, 5.4)
    left, right = sheet.panels(["significance", "relative uncertainty"])
    left.plot(table.efficiency, result.significance_without_sigma, "s--", color=VALIDATION, label=r"$S/\sqrt{B}$")
    left.plot(table.efficiency, result.significance, "o-", color=PREDICTION, label=r"$S/\sqrt{B + \sigma_B^2}$")
    left.plot(table.efficiency, result.z, "d:", color=TRUTH, label="from the Poisson p-value")
    if np.isfinite(result.z_corrected).all():
        left.plot(table.efficiency, result.z_corrected, "^-", color=FIT, label="corrected by the sidebands")
    left.axhline(0, color=TRUTH, linewidth=1)
    left.set(xscale="log", xlabel="fraction of the background left", ylabel=r"significance [$\sigma$]")
    left.invert_xaxis()
    legend_above(left, 1)
    parts = {
        r"$1/\sqrt{B}$": (1 / np.sqrt(table.background), ":", TRUTH),
        r"all of $\sigma_B/B$": (table.sigma / table.background, "-", PREDICTION),
        "posterior of the flows": (table.sigma_posterior / table.background, "--", VALIDATION),
        "fit of the masses": (table.sigma_mass / table.background, "-.", FIT),
        "generated events": (table.sigma_template / table.background, ":", FOURTH),
    }
    for label, (values, style, colour) in parts.items():
        right.plot(table.efficiency, values, style, marker="o", markersize=4, color=colour, label=label)
    right.set(xscale="log", yscale="log", xlabel="fraction of the background left", ylabel="relative uncertainty")
    right.invert_xaxis()
    plain_numbers(right.yaxis)
    for axis in (left, right):
        plain_numbers(axis.xaxis)
    legend_above(right, 2, fontsize="small")
    return sheet.figure


@styled
@door(result=RESULT, cut=optional(whole(0)), ax=AX)
def plot_mass_after_cut(result: Cathode, cut: int | None = None, *, ax: Place | None = None) -> Figure:
    """Mass spectrum before and after a cut, with the background that the flows predict.

    Args:
        result: of :func:`pyrogen.search.cathode`.
        cut: its number in the table, from 0; None: that of the largest significance.
        ax: where to draw, see :mod:`pyrogen.plotting`.

    Raises:
        ValueError: there is no such cut.
    """
    table, sample = result.table, result.sample
    if cut is None:
        cut = int(np.argmax(result.z if np.isnan(result.z_corrected).any() else result.z_corrected))
    require(cut < len(table), "cut", cut, f"below {len(table)}, the number of cuts")
    sheet = Sheet(ax, 14, 5.6)
    before, after = sheet.panels(["before the cut", "after the cut"])
    edges = table.slice_edges
    fit = result.mass_fit
    all_edges = np.concatenate([fit.sideband_edges[0], fit.edges[1:], fit.sideband_edges[1][1:]])
    expected = np.concatenate([fit.sideband_expected[0], fit.expected, fit.sideband_expected[1]])
    centres = (all_edges[1:] + all_edges[:-1]) / 2
    summed = np.histogram(centres, edges, weights=expected)[0]
    relative = np.where((edges[:-1] >= sample.regions.signal[0]) & (edges[1:] <= sample.regions.signal[1]), 1.0, 0.0)
    counts = np.histogram(sample.mass, edges)[0].astype(np.float64)
    _spectrum(before, result, counts, summed, summed * relative * fit.sigma / fit.total, "fit of the sidebands")
    before.set_title("before the cut\n", fontsize="medium")
    _spectrum(after, result, table.slice_observed[cut], table.slice_background[cut], table.slice_sigma[cut], "flows")
    told = f"{result.z[cut]:.1f}$\\sigma$ over the flows"
    if np.isfinite(result.z_corrected[cut]):
        told += f", {result.z_corrected[cut]:.1f}$\\sigma$ corrected"
    after.set_title(f"{table.efficiency[cut]:.2g} of the background left:\n{told}", fontsize="medium")
    return sheet.figure


def _spectrum(axis: Axes, result: Cathode, counts: Array, mean: Array, sigma: Array, label: str) -> None:
    edges, sample = result.table.slice_edges, result.sample
    centres = (edges[1:] + edges[:-1]) / 2
    # The slices of the regions have different widths: events per the narrowest one.
    narrow = float(np.diff(edges).min())
    errors = np.sqrt(counts)
    counts, errors, mean, sigma = (each * narrow / np.diff(edges) for each in (counts, errors, mean, sigma))
    axis.axvspan(*sample.regions.signal, color="#bbbbbb", alpha=0.35, linewidth=0, label="signal region")
    _with_band(axis, edges, mean, sigma, label)
    axis.errorbar(centres, counts, errors, fmt="o", color=TRUTH, markersize=5, label="data")
    high = max(float((counts + errors).max()), float((mean + 2 * sigma).max()))
    low = min(float((counts - errors).min()), float((mean - 2 * sigma).min()))
    axis.set(
        xlabel=with_unit(sample.name, sample.unit),
        ylabel=f"events / {narrow:.3g} {sample.unit}".rstrip(),
        xlim=(edges[0], edges[-1]),
        ylim=(max(0.0, low - 0.5 * (high - low)), 1.05 * high),
    )
    legend_above(axis, 2, fontsize="small")


def _with_band(axis: Axes, edges: Array, mean: Array, sigma: Array, label: str | None) -> None:
    options: dict[str, Any] = {"color": PREDICTION, "linewidth": 0}
    for level, opacity in BANDS:
        axis.stairs(mean + level * sigma, edges, baseline=mean - level * sigma, fill=True, alpha=opacity, **options)
    axis.stairs(mean, edges, color=PREDICTION, linewidth=1.8, label=label, baseline=None)
