"""Coverage of credible intervals, and predicted against actual spread over independent trainings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from pyrogen.checks import BOOLEAN, FRACTION, MAPPING, TEXT, dictionary, door, instance, optional
from pyrogen.coverage.calibration import LEVELS, ONE_SIGMA, TWO_SIGMA, Calibration
from pyrogen.diagnostics.quantile_bins import AmplificationFit

from .sheet import AX, Place, Sheet
from .style import TRUTH, arrangement, colours, plain_numbers, styled, symbol, with_error, with_unit

WIDEST_NAME = 40  # letters of a line of a name in the legend
SHOWN = 4.0  # pulls beyond are counted in the outermost bin


@styled
@door(calibrations=MAPPING, unit=TEXT, density_unit=TEXT, log=BOOLEAN, ax=AX)
def plot_calibration(
    calibrations: Mapping[str, Calibration],
    *,
    unit: str = "",
    density_unit: str = "",
    log: bool = True,
    ax: Place | None = None,
) -> Figure:
    """Three panels: coverage against the nominal level, pulls, and sigma against the spread of the trainings.

    Args:
        calibrations: what to compare, by name; up to about five stay readable. Names may be long.
        unit: unit of the coordinate ``at``.
        density_unit: unit of the density.
        log: logarithmic sigma.
        ax: where to draw, see :mod:`pyrogen.plotting`.

    Raises:
        ValueError: nothing to draw.
    """
    for found in calibrations.values():
        instance(Calibration, "a Calibration, from calibration_along_lines")("every entry of calibrations", found)
    if not calibrations:
        raise ValueError("calibrations is empty; give at least one to draw")
    sheet = Sheet(ax, 17, 5.8)
    coverage, pulls, sizes = sheet.panels(["coverage", "pulls", "uncertainty"])
    grid = np.linspace(-SHOWN, SHOWN, 33)
    names: list[Line2D] = []
    for (name, found), colour in zip(calibrations.items(), colours(len(calibrations)), strict=True):
        nominal, fraction, error = found.curve(LEVELS)
        coverage.fill_between(nominal, fraction - error, fraction + error, color=colour, alpha=0.25, linewidth=0)
        coverage.plot(nominal, fraction, color=colour)
        trainings = f"{found.trainings} training{'s' * (found.trainings > 1)}"
        names.append(Line2D([], [], color=colour, label=fill(f"{name} ({trainings})", WIDEST_NAME)))
        values = np.clip(found.pulls[np.isfinite(found.pulls)], -SHOWN, SHOWN)
        density, _ = np.histogram(values, grid, density=True)
        width = with_error(*found.pull_width()) if found.trainings > 1 else f"{found.pull_width()[0]:.2f}"
        pulls.stairs(density, grid, color=colour, linewidth=2, label=f"width {width}")
        at, sigma, spread = _by_coordinate(found)
        sizes.plot(at, sigma, color=colour)
        if found.trainings > 1:
            sizes.plot(at, spread, color=colour, linestyle="--")
    coverage.plot([0, 1], [0, 1], color=TRUTH, linewidth=1.2, linestyle="--", label="exact")
    coverage.set(xlim=(0, 1), ylim=(0, 1), xlabel="credibility of the interval", ylabel="truth inside")
    for axis in (coverage.xaxis, coverage.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    coverage.legend(loc="best")
    x = np.linspace(-SHOWN, SHOWN, 200)
    pulls.plot(x, np.exp(-0.5 * x**2) / np.sqrt(2 * np.pi), color=TRUTH, linewidth=1.2, linestyle="--", label="N(0, 1)")
    pulls.set(xlabel=r"pull (prediction $-$ truth) / $\sigma$", ylabel="density", xlim=(-SHOWN, SHOWN))
    pulls.set_ylim(0, pulls.get_ylim()[1] * (1.05 + 0.1 * (len(calibrations) + 1)))  # head room for the legend
    pulls.legend(loc="upper left")
    first = next(iter(calibrations.values()))
    sizes.set(xlabel=with_unit(f"${first.label}$" if len(first.label) == 1 else first.label, unit))
    sizes.set_ylabel(with_unit("uncertainty of the density", density_unit))
    sizes.set_yscale("log" if log else "linear")
    low, high = sizes.get_ylim()
    sizes.set_ylim(low, high * (high / low) ** 0.35 if log else high * 1.4)
    plain_numbers(sizes.yaxis)
    if any(found.trainings > 1 for found in calibrations.values()):
        for label, style in ((r"predicted $\sigma$", "-"), ("spread of the trainings", "--")):
            sizes.plot([], [], color="grey", linestyle=style, label=label)
        sizes.legend(loc="upper left", ncols=2, fontsize="small", columnspacing=1.0)
    sheet.legend(names, [each.get_label() for each in names], arrangement(len(names), 4)[1])
    return sheet.figure


@styled
@door(calibrations=MAPPING, tolerance=FRACTION, ax=AX)
def plot_coverage(
    calibrations: Mapping[str, Calibration], *, tolerance: float = 0.03, ax: Place | None = None
) -> Figure:
    """Coverage at one and two sigma and width of the pulls, one row for each of many studies.

    Args:
        calibrations: by name. The colour is that of the first word, such as the backend's.
        tolerance: half width of the grey band around the nominal coverage.
        ax: where to draw, see :mod:`pyrogen.plotting`.

    Raises:
        ValueError: nothing to draw, or a tolerance that is not between 0 and 1.
    """
    if not calibrations:
        raise ValueError("calibrations is empty; give at least one to draw")
    for found in calibrations.values():
        instance(Calibration, "a Calibration, from calibration_along_lines")("every entry of calibrations", found)
    names = list(map(str, calibrations))
    kinds = list(dict.fromkeys(map(_kind, names)))
    colour_of = dict(zip(kinds, colours(len(kinds)), strict=True))
    sheet = Sheet(ax, 14, 1.6 + 0.36 * len(calibrations))
    panels = sheet.panels(["coverage at one sigma", "coverage at two sigma", "width of the pulls"], sharey=True)
    one, two, pulls = panels
    rows = np.arange(len(calibrations))
    for axis, level in ((one, ONE_SIGMA), (two, TWO_SIGMA)):
        axis.axvspan(level - tolerance, min(level + tolerance, 1), color="lightgrey", linewidth=0)
        axis.axvline(level, color=TRUTH, linewidth=1, linestyle="--")
        axis.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axis.xaxis.set_major_locator(MaxNLocator(5, min_n_ticks=3))
        axis.set_xlabel(f"truth within {'1' if axis is one else '2'}$\\sigma$")
    pulls.axvline(1, color=TRUTH, linewidth=1, linestyle="--")
    pulls.set(xlabel="width of the pulls", xscale="log")
    for row, name, found in zip(rows, names, calibrations.values(), strict=True):
        style: Any = {"color": colour_of[_kind(name)], "fmt": "o", "capsize": 2}
        for axis, level in ((one, ONE_SIGMA), (two, TWO_SIGMA)):
            fraction, error = found.fraction(level)
            axis.errorbar(fraction, row, xerr=error, **style)
        width, error = found.pull_width()
        pulls.errorbar(width, row, xerr=error if np.isfinite(error) else None, **style)
    for axis in (one, two):
        axis.set_xlim(right=min(axis.get_xlim()[1], 1.01))
    low, high = pulls.get_xlim()
    pulls.set_xlim(min(low, 0.5), max(high, 2.0))
    for axis_format in (pulls.xaxis.set_major_formatter, pulls.xaxis.set_minor_formatter):
        axis_format(FuncFormatter(lambda value, _: f"{value:g}" if value in (0.5, 1, 2, 3, 5, 10) else ""))
    one.set_yticks(rows, names, fontsize="small")
    for axis in panels:
        axis.tick_params(axis="y", which="minor", left=False, right=False)
        axis.set_ylim(len(rows) - 0.4, -0.6)
        if axis is not one and sheet.lent:
            axis.set_yticks(rows, [""] * len(rows))
    return sheet.figure


@styled
@door(
    n_bins=MAPPING,
    gains=MAPPING,
    errors=MAPPING,
    fits=MAPPING,
    published=optional(dictionary(instance(AmplificationFit, "an AmplificationFit"))),
    ax=AX,
)
def plot_amplification(
    n_bins: Mapping[str, np.ndarray],
    gains: Mapping[str, np.ndarray],
    errors: Mapping[str, np.ndarray],
    fits: Mapping[str, AmplificationFit],
    published: Mapping[str, AmplificationFit] | None = None,
    *,
    ax: Place | None = None,
) -> Figure:
    """Amplification against the number of quantile bins, with the fitted power laws ([F] fig. 7).

    Args:
        n_bins: numbers of bins by name, ``[n]``.
        gains: amplifications, ``[n]``.
        errors: their errors, ``[n]``.
        fits: ``G = a n_bins^b`` by name.
        published: further power laws to draw for comparison.
        ax: where to draw, see :mod:`pyrogen.plotting`.

    Raises:
        ValueError: nothing to draw, or other names in one of the arguments than in the others.
    """
    for fit in (*fits.values(), *(published or {}).values()):
        instance(AmplificationFit, "an AmplificationFit, from fit_amplification")("every entry of fits", fit)
    if not n_bins:
        raise ValueError("n_bins is empty; give at least one to draw")
    for argument, its in (("gains", gains), ("errors", errors), ("fits", fits)):
        if its.keys() != n_bins.keys():
            raise ValueError(
                f"{argument} has {', '.join(map(str, its)) or 'nothing'}; it must have the names of n_bins: "
                f"{', '.join(map(str, n_bins))}"
            )
    sheet = Sheet(ax, 8, 6.2)
    (axis,) = sheet.panels(["amplification"])
    for (name, n), colour in zip(n_bins.items(), colours(len(n_bins)), strict=True):
        fit = fits[name]
        parameters = (("a", fit.a, fit.a_error), ("b", fit.b, fit.b_error))
        label = f"{name}: " + ", ".join(f"{symbol(p)} = {with_error(value, error)}" for p, value, error in parameters)
        axis.errorbar(n, gains[name], errors[name], fmt="o", color=colour, capsize=2, label=label)
        axis.plot(n, fit(n), color=colour)
    every = np.sort(np.concatenate(list(n_bins.values())))
    for (name, fit), style in zip((published or {}).items(), ("--", ":", "-."), strict=False):
        axis.plot(every, fit(every), color="grey", linestyle=style, label=name)
    axis.axhline(1, color=TRUTH, linewidth=1)
    axis.set(xscale="log", yscale="log", xlabel="number of quantile bins", ylabel="amplification $G$")
    axis.legend(loc="upper left", fontsize="small")
    low, high = axis.get_ylim()
    entries = len(n_bins) + len(published or {})
    axis.set_ylim(low, high * (high / low) ** max(0.3, 0.07 * entries))  # head room for the legend
    plain_numbers(axis.xaxis)
    plain_numbers(axis.yaxis)
    return sheet.figure


def _kind(name: str) -> str:
    return re.split(r"[\s,:]", name)[0]


def _by_coordinate(found: Calibration) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sigma and spread averaged over the quantities that share a coordinate: over the lines."""
    at, where = np.unique(found.at, return_inverse=True)
    counts = np.bincount(where)
    sigma, spread = (np.bincount(where, values) / counts for values in (found.sigma, found.spread))
    return at, sigma, spread
