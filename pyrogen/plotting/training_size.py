"""Sigma against the number of training events: [A] (arXiv:2104.04543) sec. 3.4, fig. 7."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from pyrogen.checks import TEXT, door, instance
from pyrogen.diagnostics.training_size import SizeScan

from .sheet import AX, Place, Sheet
from .style import PREDICTION, TRUTH, VALIDATION, colours, plain_numbers, styled, with_error, with_unit


@styled
@door(scan=instance(SizeScan, "a SizeScan, from scan_training_size"), unit=TEXT, density_unit=TEXT, ax=AX)
def plot_training_size(scan: SizeScan, *, unit: str = "", density_unit: str = "", ax: Place | None = None) -> Figure:
    """Two panels: sigma along the lines for every number of training events, and its mean against that number.

    Dashed in the first: the fit-like shapes; dotted: the spread of ensembles.

    Args:
        scan: what :func:`~pyrogen.diagnostics.scan_training_size` found.
        unit: unit of t.
        density_unit: unit of the density.
        ax: where to draw, see :mod:`pyrogen.plotting`.
    """
    sheet = Sheet(ax, 14, 6.2)
    curves, sizes = sheet.panels(["sigma along the lines", "sigma against the number of events"])
    for (n, line), colour in zip(scan.lines.items(), colours(len(scan.sizes)), strict=True):
        curves.errorbar(
            line.t, line.sigma, line.sigma_spread, fmt="o", markersize=4, capsize=2, color=colour, label=f"{n:,} events"
        )
        curves.plot(line.t, scan.shapes[n].curve(), color=colour, linestyle="--", linewidth=1.5)
        if n in scan.ensembles:
            curves.plot(line.t, scan.ensembles[n].sigma, color=colour, linestyle=":")
    curves.plot([], [], color="grey", linestyle="--", label="fit-like shapes")
    if scan.ensembles:
        curves.plot([], [], color="grey", linestyle=":", label="spread of ensembles")
    label = next(iter(scan.lines.values())).label
    curves.set(xlabel=with_unit(f"${label}$", unit), yscale="log")
    curves.set_ylabel(with_unit(rf"absolute uncertainty $\sigma$(${label}$)", density_unit))
    low, high = curves.get_ylim()
    curves.set_ylim(low, high * (high / low) ** 0.35)  # head room for the legend
    curves.legend(loc="upper center", ncols=2, fontsize="small")

    events = np.array(scan.sizes, dtype=np.float64)
    for ensemble, colour, name in ((False, PREDICTION, r"$\sigma$"), (True, VALIDATION, "spread of ensembles")):
        if not (scan.ensembles or not ensemble):
            continue
        values = scan.sigma(ensemble)
        known = np.isfinite(values)
        slope = f": slope {with_error(*scan.exponent(ensemble))}" if known.sum() > 1 else ""
        sizes.plot(events[known], values[known], "o-", color=colour, label=name + slope)
    if scan.references:
        fitted = [size for size in scan.sizes if size in scan.references]
        means = [scan.references[size].sigma(scan.lines[size].t).mean() for size in fitted]
        sizes.plot(fitted, means, "s--", color=TRUTH, linewidth=1.5, label="maximum-likelihood fit of the true form")
    sizes.set(xscale="log", yscale="log", xlabel="training events $N$")
    sizes.set_xticks(events, [f"{n:,}" for n in scan.sizes])
    sizes.xaxis.set_minor_formatter(NullFormatter())
    sizes.set_ylabel(with_unit("mean uncertainty along the lines", density_unit))
    low, high = sizes.get_ylim()
    sizes.set_ylim(low, high * (high / low) ** 0.25)
    sizes.legend(loc="upper right", fontsize="small")
    for axis in (curves, sizes):
        plain_numbers(axis.yaxis)
    return sheet.figure
