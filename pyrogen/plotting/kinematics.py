"""Kinematic distributions as LHC papers show them, and their uncertainties: [A] (arXiv:2104.04543) figs. 9 and 10."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from pyrogen.checks import BOOLEAN, TEXT, door, require_extra

from .histograms import COLUMNS, HistogramPanel, checked_panels
from .sheet import AX, Place, Sheet
from .style import BANDS, PREDICTION, TRUTH, arrangement, arrows_outside, styled, triangles, with_unit

if TYPE_CHECKING:
    from pyrogen.posterior import HistogramBand

SIDEWAYS = "small"  # font size of y labels: the longest is as long as its axis
HATCHES: dict[str, Any] = {"facecolor": "none", "edgecolor": "#404040", "hatch": "//////", "linewidth": 0, "alpha": 0.7}
HALF_HEIGHTS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)  # of ratio panels
Draw = Callable[[Axes, Axes, HistogramPanel], None]


@styled
@door(truth_label=TEXT, log=BOOLEAN, llabel=TEXT, rlabel=TEXT, ax=AX)
def plot_kinematics(
    panels: Sequence[HistogramPanel],
    *,
    truth_label: str = "truth",
    log: bool = True,
    llabel: str = "",
    rlabel: str = "",
    ax: Place | None = None,
) -> Figure:
    """Generated distributions with one and two sigma of the posterior over the truth, and their ratios [A fig. 9].

    The truth is a black step, its statistical errors are hatched (``mplhep.histplot``), in the ratio around one. The
    band is :attr:`HistogramBand.std`, which has the noise of the generated events in it: :func:`plot_uncertainties`
    shows what the weights alone contribute. Bins without truth stay blank in the ratio; triangles point to ratios
    outside the panel. Extra ``lhc``.

    Args:
        panels: what to draw, up to three in a row.
        truth_label: what the truth is called in the legend, such as ``"Pythia"``.
        log: logarithmic densities, for panels that do not say themselves.
        llabel: text above the first panel, such as ``"pyrogen simulation"``.
        rlabel: text above the last panel of the first row, such as ``r"$\\sqrt{s}=13$ TeV"``.
        ax: where to draw, see :mod:`pyrogen.plotting`.

    Raises:
        ImportError: ``mplhep`` is missing.
        ValueError: no panels, or one that does not fit together.
    """
    require_extra("mplhep", "lhc", "plot_kinematics")

    def draw(top: Axes, bottom: Axes, panel: HistogramPanel) -> None:
        _distribution(top, panel, truth_label, log if panel.log is None else panel.log)
        _ratio(bottom, panel)

    return _grid(panels, draw, "ratio", (3, 1), (llabel, rlabel), ax)


@styled
@door(truth_label=TEXT, subtract_noise=BOOLEAN, llabel=TEXT, rlabel=TEXT, ax=AX)
def plot_uncertainties(
    panels: Sequence[HistogramPanel],
    *,
    truth_label: str = "truth",
    subtract_noise: bool = True,
    llabel: str = "",
    rlabel: str = "",
    ax: Place | None = None,
) -> Figure:
    """Absolute and relative uncertainty of the posterior beside the statistical error of the truth [A fig. 10].

    The shading is the error of the uncertainty itself, one sigma for the K weight draws of the band. Where that error
    includes zero, because nearly all that the draws differ by is the noise of the generated events, a triangle at the
    upper end of it takes the place of the line: more events per draw would show the rest.

    Args:
        panels: what to draw, up to three in a row.
        truth_label: what the truth is called in the legend.
        subtract_noise: without the noise of the generated events, where the band knows it; the legend says so.
        llabel: text above the first panel.
        rlabel: text above the last panel of the first row.
        ax: where to draw, see :mod:`pyrogen.plotting`.

    Raises:
        ValueError: no panels, or one that does not fit together.
    """

    def draw(top: Axes, bottom: Axes, panel: HistogramPanel) -> None:
        band, (density, error) = panel.band, panel.truth()
        with np.errstate(divide="ignore", invalid="ignore"):
            percent = np.where(band.mean > 0, 100 / band.mean, np.nan)
            relative = np.where(density > 0, 100 * error / density, np.nan)
        for axis, scale, truth in ((top, 1 / band.widths, error), (bottom, percent, relative)):
            truth = np.where(truth > 0, truth, np.nan)
            axis.stairs(
                truth, band.edges, baseline=None, color=TRUTH, linewidth=1.1, label=f"{truth_label}, stat. error"
            )
            drawn = _uncertainty(axis, band, scale, subtract_noise and band.noise is not None)
            _log_axis(axis, np.concatenate([drawn, truth]), 1.3)
        top.set_ylabel(with_unit(r"$\sigma$", f"1/{panel.unit}" if panel.unit else ""), fontsize=SIDEWAYS)
        bottom.set_ylabel(r"$\sigma\,/\,p$ [%]", fontsize=SIDEWAYS)
        _plain_decades(bottom)

    return _grid(panels, draw, "relative uncertainty", (1, 1), (llabel, rlabel), ax)


def _grid(
    panels: Sequence[HistogramPanel],
    draw: Draw,
    below: str,
    heights: tuple[float, float],
    labels: tuple[str, str],
    ax: Place | None,
) -> Figure:
    """A figure of panels with two axes each, and one legend above all of them."""
    panels = checked_panels(panels)
    rows, columns = arrangement(len(panels), COLUMNS)
    sheet = Sheet(ax, 5.3 * columns, 4.4 * rows + (0.6 if columns > 1 else 0.9))
    entries: dict[str, tuple[Artist, ...]] = {}
    pairs = sheet.pairs([panel.label for panel in panels], below, rows, columns, heights)
    llabel, rlabel = labels
    for i, ((top, bottom), panel) in enumerate(zip(pairs, panels, strict=True)):
        draw(top, bottom, panel)
        _dress(top, bottom, panel)
        if i < columns and (llabel or rlabel):  # of all in the row, so that they are equally high
            top.set_title((llabel if i == 0 else "") or " ", loc="left", fontsize="medium", fontweight="bold")
            top.set_title((rlabel if i == columns - 1 else "") or " ", loc="right", fontsize="medium")
        entries = _legend_entries(top) | entries
    several = len(entries) if columns > 1 else 2 if max(map(len, entries)) < 20 else 1
    handles: Any = list(entries.values())  # matplotlib draws a tuple of artists as one, which its types do not know
    sheet.legend(handles, list(entries), several)
    return sheet.figure


def _dress(top: Axes, bottom: Axes, panel: HistogramPanel) -> None:
    for axis in (top, bottom):
        axis.set_xlim(panel.band.edges[0], panel.band.edges[-1])
    bottom.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 4, 5, 10]))
    bottom.set_xlabel(with_unit(panel.label, panel.unit), loc="right")


def _legend_entries(axis: Axes) -> dict[str, tuple[Artist, ...]]:
    """What is drawn, by label; artists of one label, such as a line and its errors, share an entry."""
    entries: dict[str, tuple[Artist, ...]] = {}
    for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
        entries[label] = (*entries.get(label, ()), handle)
    return entries


def _distribution(axis: Axes, panel: HistogramPanel, truth_label: str, log: bool) -> None:
    import mplhep

    band = panel.band
    mean, std = band.density(), band.density_sigma()
    density, error = panel.truth()
    _prediction(axis, mean, std, band.edges, labelled=True)
    shared: dict[str, Any] = {"ax": axis, "flow": "none", "label": truth_label}
    mplhep.histplot(density, band.edges, yerr=error, histtype="band", **HATCHES, **shared)
    mplhep.histplot(density, band.edges, yerr=False, histtype="step", edges=False, color=TRUTH, linewidth=1.2, **shared)
    if log:
        # Bins that only the prediction fills may be emptier than all others by many decades.
        lowest = density[density > 0].min(initial=np.inf) / 10
        _log_axis(axis, np.concatenate([density, mean[mean > lowest], [mean.max()]]), 2.0)
    else:
        axis.set_ylim(0, 1.08 * max((density + error).max(), (mean + 2 * std).max()))
    axis.set_ylabel(_density_label(panel), loc="top", fontsize=SIDEWAYS)


def _ratio(axis: Axes, panel: HistogramPanel) -> None:
    """Generated over truth with the band, the truth's errors around one."""
    import mplhep

    band = panel.band
    density, error = panel.truth()
    density = np.where(density > 0, density, np.nan)
    ratio, sigma, spread = band.mean / band.widths / density, band.std / band.widths / density, error / density
    _prediction(axis, ratio, sigma, band.edges)
    mplhep.histplot(
        np.where(spread >= 0, 1.0, np.nan), band.edges, yerr=spread, histtype="band", ax=axis, flow="none", **HATCHES
    )
    axis.axhline(1, color=TRUTH, linewidth=1.2)
    half = _half_height(np.concatenate([np.abs(ratio - 1) + sigma, spread]))
    axis.set_ylim(1 - half, 1 + half)
    arrows_outside(axis, band.centres, ratio, PREDICTION)
    axis.set_ylabel("ratio", fontsize=SIDEWAYS)


def _prediction(axis: Axes, mean: NDArray[Any], std: NDArray[Any], edges: NDArray[Any], labelled: bool = False) -> None:
    """One and two sigma around a step."""
    for k, opacity in BANDS:
        name = rf"$\pm {k if k > 1 else ''}\sigma$" if labelled else None
        axis.stairs(
            mean + k * std, edges, baseline=mean - k * std, fill=True, color=PREDICTION, alpha=opacity, label=name
        )
    axis.stairs(mean, edges, baseline=None, color=PREDICTION, linewidth=1.8, label="generated" if labelled else None)


def _uncertainty(axis: Axes, band: HistogramBand, scale: NDArray[Any], subtracted: bool) -> NDArray[Any]:
    """Sigma per bin times a scale, with its own error; returns what the axis has to show.

    The variance over K Gaussian draws has the relative error ``sqrt(2 / (K - 1))``; subtracting the noise leaves that
    absolute error as it is.
    """
    error = band.sigma() ** 2 * np.sqrt(2 / (len(band.draws) - 1))
    variance = np.diagonal(band.covariance(subtracted))
    seen = variance > error
    low, middle, high = (
        np.where(seen, np.sqrt(np.clip(variance + sign * error, 0, None)) * scale, np.nan) for sign in (-1, 0, 1)
    )
    limit = np.where(~seen & (error > 0), np.sqrt(np.clip(variance, 0, None) + error) * scale, np.nan)
    name = "posterior, event noise subtracted" if subtracted else "posterior with event noise"
    axis.stairs(high, band.edges, baseline=low, fill=True, color=PREDICTION, alpha=0.25, linewidth=0, label=name)
    axis.stairs(middle, band.edges, baseline=None, color=PREDICTION, linewidth=1.8, label=name)
    if np.isfinite(limit).any():
        triangles(axis, band.centres, limit, "v", PREDICTION, label=r"its upper limit ($1\sigma$)")
    return np.concatenate([low, high, limit])


def _half_height(deviations: NDArray[np.float64]) -> float:
    """Half height of a ratio panel: a round number that has nine in ten of the deviations inside."""
    finite = deviations[np.isfinite(deviations)]
    reach = 1.1 * np.quantile(finite, 0.9) if finite.size else 0
    return next(half for half in HALF_HEIGHTS if half >= min(reach, HALF_HEIGHTS[-1]))


def _log_axis(axis: Axes, values: NDArray[np.float64], room: float) -> None:
    """A logarithmic axis around the positive values with a factor of room; left as it is if there are none."""
    positive = values[np.isfinite(values) & (values > 0)]
    if positive.size:
        axis.set_yscale("log")
        axis.set_ylim(positive.min() / room, positive.max() * room)


def _plain_decades(axis: Axes) -> None:
    """Per cent as 1, 10, 100; with numbers in between where an axis spans little."""
    low, high = axis.get_ylim()
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 30 * low else (1,)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def _density_label(panel: HistogramPanel) -> str:
    """``1/N dN/dE [1/GeV]``, with the panel's label as the variable."""
    label = panel.label
    formula = len(label) > 2 and label[0] == label[-1] == "$" and "$" not in label[1:-1]
    variable = label[1:-1] + "$" if formula else f"${label}"
    return with_unit(rf"$1/N\;\mathrm{{d}}N/\mathrm{{d}}{variable}", f"1/{panel.unit}" if panel.unit else "")
