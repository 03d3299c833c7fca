"""Density and uncertainty along lines, as in [A] (arXiv:2104.04543) figs. 2, 4 and 6."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyrogen.checks import TEXT, door, instance, optional
from pyrogen.diagnostics import LikelihoodFit, LineResult, ShapeFit

from .sheet import AX, Place, Sheet
from .style import (
    BANDS,
    FIT,
    PREDICTION,
    TRUTH,
    arrows_outside,
    legend_above,
    ratio_axis,
    styled,
    symbol,
    with_error,
    with_unit,
)


@styled
@door(
    result=instance(LineResult, "a LineResult, from density_along_lines"),
    shape=optional(instance(ShapeFit, "a ShapeFit, from fit_shape")),
    reference=optional(instance(LikelihoodFit, "a LikelihoodFit, from likelihood_fit")),
    unit=TEXT,
    density_unit=TEXT,
    ax=AX,
)
def plot_lines(
    result: LineResult,
    shape: ShapeFit | None = None,
    reference: LikelihoodFit | None = None,
    *,
    unit: str = "",
    density_unit: str = "",
    ax: Place | None = None,
) -> Figure:
    """Three panels: density with its error band on the truth (and their ratio), relative and absolute uncertainty.

    All curves are averages over the lines; the error bars are the spread over the lines.

    Args:
        result: what :func:`~pyrogen.diagnostics.density_along_lines` found.
        shape: the fit-like curve of :func:`~pyrogen.diagnostics.fit_shape` at the points of ``result``.
        reference: the true form fitted to the same events, whose uncertainty is drawn beside the network's.
        unit: unit of t.
        density_unit: unit of the density.
        ax: where to draw, see :mod:`pyrogen.plotting`.
    """
    sheet = Sheet(ax, 17, 5.6)
    names = ["density", "ratio", "relative uncertainty", "absolute uncertainty"]
    cells = [(0, 0), (1, 0), (slice(None), 1), (slice(None), 2)]
    density, ratio, relative, absolute = sheet.panels(names, 2, 3, heights=(3, 1), cells=cells)
    sheet.align(density, ratio)
    t = rf"${result.label}$"

    _density(density, result)
    density.set_ylabel(with_unit(f"density $p$({t})", density_unit))
    _ratio(ratio, result)

    lines = f"mean and spread of {len(result.positions)} lines" if len(result.positions) > 1 else "one line"
    points: dict[str, Any] = {
        "fmt": "o",
        "markersize": 4.5,
        "capsize": 2,
        "color": PREDICTION,
        "linewidth": 1.4,
        "label": lines,
    }
    relative.errorbar(result.t, result.relative, result.relative_spread, **points)
    relative.set_ylabel(rf"relative uncertainty $\sigma$({t}) / $p$({t})")
    absolute.errorbar(result.t, result.sigma, result.sigma_spread, **points)
    absolute.set_ylabel(with_unit(rf"absolute uncertainty $\sigma$({t})", density_unit))
    if shape is not None:
        absolute.plot(result.t, shape.curve(), color=FIT, label=_describe(shape), zorder=3)
    if reference is not None:
        curve = reference.sigma(result.t)
        absolute.plot(result.t, curve, color=TRUTH, linestyle=":", label="maximum-likelihood fit of the true form")
    extra = 0.23 * (shape is not None) + 0.07 * (reference is not None)
    for axis in (relative, absolute):
        # Head room for the legend, which would otherwise lie on the points.
        axis.set_ylim(0, axis.get_ylim()[1] * (1.12 + extra * (axis is absolute)))
        axis.legend(loc="upper center" if axis is absolute else "upper right", reverse=True)
    for axis in (ratio, relative, absolute):
        axis.set_xlabel(with_unit(t, unit))
    return sheet.figure


def _density(axis: Axes, result: LineResult) -> None:
    for k, opacity in BANDS:
        low, high = result.density - k * result.sigma, result.density + k * result.sigma
        axis.fill_between(
            result.t,
            low,
            high,
            color=PREDICTION,
            alpha=opacity,
            linewidth=0,
            label=rf"$\pm {k if k > 1 else ''}\sigma$",
        )
    axis.plot(result.t, result.density, color=PREDICTION, label="prediction")
    axis.plot(result.t, result.truth, color=TRUTH, linestyle="--", linewidth=1.5, label="truth")
    axis.set_ylim(bottom=0)
    legend_above(axis, 2)


def _ratio(axis: Axes, result: LineResult) -> None:
    truth = np.where(result.truth > 0, result.truth, np.nan)
    middle, sigma = result.density / truth, result.sigma / truth
    for k, opacity in BANDS:
        axis.fill_between(
            result.t, middle - k * sigma, middle + k * sigma, color=PREDICTION, alpha=opacity, linewidth=0
        )
    axis.plot(result.t, middle, color=PREDICTION)
    ratio_axis(axis, "pred. / truth", np.concatenate([middle - 2 * sigma, middle + 2 * sigma]) - 1)
    arrows_outside(axis, result.t, middle, PREDICTION)


def _describe(shape: ShapeFit) -> str:
    parameters = [f"{symbol(name)} = {with_error(value, shape.errors[name])}" for name, value in shape.values.items()]
    return "\n".join(["fit-like shape", *parameters])
