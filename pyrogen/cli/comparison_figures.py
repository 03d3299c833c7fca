"""Figures of two posteriors side by side."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pyrogen.plotting.style import (
    PREDICTION,
    TRUTH,
    VALIDATION,
    arrangement,
    legend_above,
    new_figure,
    styled,
    with_unit,
)
from pyrogen.posterior import HistogramBand

REACH = 5.0  # largest difference that is drawn, in sigma


@styled
def density_figure(densities: Mapping[str, NDArray[np.float64]], pulls: NDArray[np.float64]) -> Figure:
    """Densities of two posteriors at the same events, and their difference in units of its sigma.

    Args:
        densities: ``[n]`` each, positive, by name.
        pulls: ``[n]``; larger ones than five are drawn at five.
    """
    (name_a, a), (name_b, b) = densities.items()
    figure = new_figure(13, 5.2)
    left, right = figure.subplots(1, 2)
    left.loglog(a, b, ".", color=PREDICTION, markersize=4, alpha=0.5)
    ends = [min(a.min(), b.min()), max(a.max(), b.max())]
    left.plot(ends, ends, color=TRUTH, linewidth=1)
    left.set_xlabel(f"density of {name_a}")
    left.set_ylabel(f"density of {name_b}")
    right.hist(np.clip(pulls, -REACH, REACH), 40, (-REACH, REACH), color=PREDICTION, alpha=0.6)
    right.set_xlabel(rf"({name_b} $-$ {name_a}) / $\sigma$ of both")
    right.set_ylabel("events")
    return figure


@styled
def band_figure(bands: Mapping[str, Mapping[str, HistogramBand]]) -> Figure:
    """Histograms of several posteriors with their one sigma bands, a panel for each observable.

    Args:
        bands: by posterior, then by observable.
    """
    observables = next(iter(bands.values()))
    rows, columns = arrangement(len(observables), 3)
    figure = new_figure(6.2 * columns, 4.8 * rows)
    for axis, key in zip(np.atleast_1d(figure.subplots(rows, columns)).flat, observables, strict=False):
        for (name, its), colour in zip(bands.items(), (PREDICTION, VALIDATION), strict=True):
            band = its[key]
            mean, sigma = band.density(), band.density_sigma()
            axis.stairs(mean + sigma, band.edges, baseline=mean - sigma, fill=True, color=colour, alpha=0.35)
            axis.stairs(mean, band.edges, baseline=None, color=colour, linewidth=1.8, label=name)
        unit = next(iter(bands.values()))[key].unit
        axis.set_ylim(bottom=0)
        axis.set_xlim(band.edges[0], band.edges[-1])
        axis.set_xlabel(with_unit(key, unit))
        axis.set_ylabel(with_unit(f"density of {key}", f"1/{unit}" if unit else ""))
        legend_above(axis, 2)
    return figure
