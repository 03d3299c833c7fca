"""Generated against true distributions with the posterior's band, as in [A] (arXiv:2104.04543) figs. 8 and 9."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from pyrogen.checks import BOOLEAN, TEXT, check_settings, door, each, instance, is_number, optional
from pyrogen.posterior import HistogramBand
from pyrogen.posterior.uhi import edges_and_counts, is_histogram, label_of
from pyrogen.printing import Brief

from .sheet import AX, Place, Sheet
from .style import (
    BANDS,
    PREDICTION,
    TRUTH,
    arrangement,
    arrows_outside,
    legend_above,
    ratio_axis,
    styled,
    with_unit,
)

COLUMNS = 3  # panels side by side at most
HINTS = {
    "Posterior": "make one with posterior.histogram(observable, bins)",
    "MarginalResult": 'take one of its bands: result.bands["a"]',
    "HistogramBand": "wrap it: HistogramPanel(band, counts)",
}


@dataclass(frozen=True, repr=False)
class HistogramPanel(Brief):
    """One distribution to draw: the posterior's band, and what it is compared to.

    Attributes:
        band: what ``posterior.histogram`` found, B bins.
        counts: None: the band is drawn alone; or true events (or sum of their weights) in the same bins, ``[B]``; or a
            whole histogram: a ``hist.Hist``
            or what follows the UHI protocol. Then its flow bins are in ``total``, its variances give the ``errors``,
            and its axis ``label`` and ``unit`` (``"$p_T$ [GeV]"``), unless they are given.
        total: true events (or sum of weights) in all, those outside the bins among them; by default the sum of
            ``counts``. The band counts events outside its edges in its normalisation, too.
        errors: errors of ``counts``, ``[B]``; by default Poisson, their square root. Weighted events have
            ``sqrt(sum of squared weights)``.
        label: name of the observable; by default that of the histogram's axis or of the band, or ``"x"``.
        unit: its unit; by default likewise, where the label is not given either.
        log: logarithmic density or not; None leaves it to the ``log`` of the plotting function.

    Raises:
        ValueError: a histogram with other edges than the band's, with several axes, or without known variances; or one
            that treats events on the last edge in another way than the band, which has such events.
    """

    band: HistogramBand
    counts: ArrayLike | Any = None
    total: float | None = None
    errors: ArrayLike | None = None
    label: str = ""
    unit: str = ""
    log: bool | None = None

    def __post_init__(self) -> None:
        """Take a histogram apart."""
        kind = instance(HistogramBand, "a HistogramBand, from posterior.histogram", HINTS)
        check_settings(self, band=kind, label=TEXT, unit=TEXT, log=optional(BOOLEAN))
        found: dict[str, Any] = {}
        booked = self.counts is not None and is_histogram(self.counts)
        if not self.label:
            label, unit = label_of(self.counts) if booked else ("", "")
            label, unit = (label, unit) if label else (self.band.label, self.band.unit)
            found |= {"label": label or "x", "unit": self.unit or unit}
        if booked:
            name, histogram = self.label or found["label"], edges_and_counts(self.counts)
            found["counts"] = histogram.values
            _same_edges(name, histogram.edges, self.band.edges)
            _same_convention(name, histogram.closed, self.band)
            if self.total is None:
                found["total"] = histogram.total
            if self.errors is None:
                if histogram.variances is None:
                    raise ValueError(
                        f"the histogram of {name} does not know its variances (weights without weight storage); "
                        "book it with storage=hist.storage.Weight(), or give errors"
                    )
                found["errors"] = np.sqrt(histogram.variances)
        for field, value in found.items():
            object.__setattr__(self, field, value)
        if self.counts is not None:
            self.truth()

    def _summary(self) -> str:
        truth = "no truth"
        if self.counts is not None:
            truth = f"truth of {np.sum(self.counts) if self.total is None else self.total:g} events"
        return f"{with_unit(self.label, self.unit)}, {truth}, {self.band!r}"

    def truth(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """True density per bin and its error, ``[B]`` each.

        Raises:
            ValueError: no counts; counts or errors that do not fit the bins; or no events.
        """
        if self.counts is None:
            raise ValueError(f"the panel of {self.label} has no counts, and this needs a truth to compare to")
        counts = _numbers("counts", self.counts)
        errors = np.sqrt(np.abs(counts)) if self.errors is None else _numbers("errors", self.errors)
        for name, values in (("counts", counts), ("errors", errors)):
            if values.shape != self.band.mean.shape:
                raise ValueError(
                    f"{name} of {self.label} has shape {list(values.shape)}; the band has {len(self.band.mean)} bins"
                )
            if not np.isfinite(values).all() or (name == "errors" and (values < 0).any()):
                raise ValueError(f"{name} of {self.label} must be finite, and errors not negative")
        total = counts.sum() if self.total is None else self.total
        if not (is_number(total) and 0 < total < np.inf):
            raise ValueError(f"the total of {self.label} is {total}; without events there is nothing to compare to")
        scale = total * self.band.widths
        return counts / scale, errors / scale


def checked_panels(panels: Any) -> tuple[HistogramPanel, ...]:
    """The panels of a figure.

    Raises:
        ValueError: no panels.
        TypeError: something else.
    """
    if isinstance(panels, (HistogramPanel, HistogramBand)):
        raise TypeError(
            f"panels is a single {type(panels).__name__}; it must be a list: [HistogramPanel(band, counts)]"
        )
    found = each(instance(HistogramPanel, "a HistogramPanel", HINTS), "a list of HistogramPanel")("panels", panels)
    if not found:
        raise ValueError("panels is empty; give at least one histogram to draw")
    return found


def _numbers(name: str, values: Any) -> NDArray[np.float64]:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} is {values!r}; it must be numbers, one for each bin, or a histogram") from error


def _same_edges(name: str, edges: NDArray[np.float64], wanted: NDArray[np.float64]) -> None:
    if edges.shape != wanted.shape or (np.abs(edges - wanted) > 1e-6 * np.diff(wanted).min()).any():
        raise ValueError(
            f"the histogram of {name} has {len(edges) - 1} bins with edges {_brief(edges)}, the band {len(wanted) - 1} "
            f"with {_brief(wanted)}; give posterior.histogram the histogram itself, or its axis, as bins"
        )


def _same_convention(name: str, closed: bool, band: HistogramBand) -> None:
    """Whether the upper edge of the last bin belongs to it must be the same for both, if events lie there."""
    if closed != band.closed and band.on_last_edge > 0:
        inside = ("the histogram", "the band") if closed else ("the band", "the histogram")
        raise ValueError(
            f"{100 * band.on_last_edge:.3g} % of the generated {name} lie on the last edge, {band.edges[-1]:g}: "
            f"{inside[0]} counts such events in its last bin, {inside[1]} does not; give posterior.histogram the "
            "histogram itself, or its axis, as bins"
        )


def _brief(edges: NDArray[np.float64]) -> str:
    return np.array2string(edges, threshold=8, edgeitems=3, precision=6)


@door(label=TEXT, unit=TEXT, truth_label=TEXT, log=BOOLEAN, ax=AX)
def plot_histogram(
    band: HistogramBand,
    counts: ArrayLike | Any = None,
    *,
    total: float | None = None,
    errors: ArrayLike | None = None,
    label: str = "",
    unit: str = "",
    truth_label: str = "truth",
    log: bool = False,
    ax: Place | None = None,
) -> Figure:
    """One generated distribution with its posterior band over the truth, and their ratio below; the band alone on None.

    Arguments as in :class:`HistogramPanel` and :func:`plot_histograms`.
    """
    panel = HistogramPanel(band, counts, total, errors, label, unit)
    return plot_histograms([panel], truth_label=truth_label, log=log, ax=ax)


@styled
@door(truth_label=TEXT, log=BOOLEAN, ax=AX)
def plot_histograms(
    panels: Sequence[HistogramPanel], *, truth_label: str = "truth", log: bool = False, ax: Place | None = None
) -> Figure:
    """Generated distributions with one and two sigma of the posterior, the truth with its errors, ratio panels.

    Triangles point to ratios outside the panel.

    Args:
        panels: what to draw, up to three in a row.
        truth_label: what the truth is called in the legend, such as ``"training events"``.
        log: logarithmic densities, for panels that do not say themselves.
        ax: where to draw, see :mod:`pyrogen.plotting`.

    Raises:
        ValueError: no panels, or one that does not fit together.
    """
    panels = checked_panels(panels)
    rows, columns = arrangement(len(panels), COLUMNS)
    sheet = Sheet(ax, 6.2 * columns, 5.8 * rows)
    names: list[str] = []
    cells: list[Any] = []
    for i, panel in enumerate(panels):
        (row, column), compared = divmod(i, columns), panel.counts is not None
        names += [panel.label, f"ratio of {panel.label}"] if compared else [panel.label]
        rest = [(2 * row, column), (2 * row + 1, column)]
        cells += rest if compared else [(slice(2 * row, 2 * row + 2), column)]
    free = iter(sheet.panels(names, 2 * rows, columns, heights=(3, 1) * rows, cells=cells))
    for panel in panels:
        compared = panel.counts is not None
        axes = [next(free), next(free)] if compared else [next(free)]
        if compared:
            sheet.align(*axes)
        _distribution(axes[0], panel, truth_label, log if panel.log is None else panel.log)
        if compared:
            _ratio(axes[1], panel, truth_label)
        for axis in axes:
            axis.set_xlim(panel.band.edges[0], panel.band.edges[-1])
        axes[0].set_ylabel(with_unit(f"density of {panel.label}", f"1/{panel.unit}" if panel.unit else ""))
        axes[-1].set_xlabel(with_unit(panel.label, panel.unit))
    return sheet.figure


def _distribution(axis: Axes, panel: HistogramPanel, truth_label: str, log: bool) -> None:
    band = panel.band
    mean, std = band.density(), band.density_sigma()
    for k, opacity in BANDS:
        label = rf"$\pm {k if k > 1 else ''}\sigma$"
        axis.stairs(
            mean + k * std, band.edges, baseline=mean - k * std, fill=True, color=PREDICTION, alpha=opacity, label=label
        )
    axis.stairs(mean, band.edges, baseline=None, color=PREDICTION, linewidth=1.8, label="generated")
    if panel.counts is not None:
        density, error = panel.truth()
        axis.errorbar(band.centres, density, error, label=truth_label, **_POINTS)
    axis.set_yscale("log" if log else "linear")
    if not log:
        axis.set_ylim(bottom=0)
    legend_above(axis, 2)


def _ratio(axis: Axes, panel: HistogramPanel, truth_label: str) -> None:
    """Generated over truth with the band; the truth's own error bars sit on one. Bins without truth stay blank."""
    band = panel.band
    density, error = panel.truth()
    density = np.where(density > 0, density, np.nan)
    middle, sigma = band.density() / density, band.density_sigma() / density
    for k, opacity in BANDS:
        axis.stairs(
            middle + k * sigma, band.edges, baseline=middle - k * sigma, fill=True, color=PREDICTION, alpha=opacity
        )
    axis.stairs(middle, band.edges, baseline=None, color=PREDICTION, linewidth=1.8)
    axis.errorbar(band.centres, np.where(np.isfinite(density), 1.0, np.nan), error / density, **_POINTS)
    drawn = np.concatenate([middle - 2 * sigma - 1, middle + 2 * sigma - 1, error / density])
    # A long name would not fit beside so low a panel.
    ratio_axis(axis, f"gen. / {truth_label if len(truth_label) <= 8 else 'truth'}", drawn, shown=0.85)
    arrows_outside(axis, band.centres, middle, PREDICTION)


_POINTS: dict[str, Any] = {"fmt": "o", "markersize": 3.5, "linewidth": 1.2, "color": TRUTH}
