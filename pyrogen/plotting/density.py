"""Density maps in two dimensions, as in [A] (arXiv:2104.04543) figs. 1, 3 and 5."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from .style import new_figure, styled, with_unit

VISIBLE = 1e-3  # of the largest density: below, a relative uncertainty concerns nobody


@styled
def plot_density_2d(
    x_edges: ArrayLike,
    y_edges: ArrayLike,
    estimate: Any,
    truth: Any = None,
    *,
    labels: tuple[str, str] = ("x", "y"),
    units: tuple[str, str] = ("", ""),
) -> Figure:
    """Maps of the true density, the predicted mean density and the relative uncertainty.

    Cells outside the support (true density, or where the truth is not given predicted density, zero) stay blank, as
    does the relative uncertainty where the predicted density is below a thousandth of its maximum.

    Args:
        x_edges: cell edges along the first feature, ``[nx + 1]``.
        y_edges: cell edges along the second feature, ``[ny + 1]``.
        estimate: a :class:`~pyrogen.DensityEstimate` at the centres of the cells, ``[nx * ny]`` with y running
            fastest, or ``[nx, ny]``.
        truth: the true density there, in the same order; left out if None.
        labels: names of the two features.
        units: their units.

    Raises:
        ValueError: numbers that do not fill the grid.
    """
    x, y = np.asarray(x_edges, dtype=np.float64), np.asarray(y_edges, dtype=np.float64)
    shape = len(x) - 1, len(y) - 1
    mean, std = _grid("estimate.mean", estimate.mean, shape), _grid("estimate.std", estimate.std, shape)
    true = None if truth is None else _grid("truth", truth, shape)
    supported = (mean if true is None else true) > 0
    relative = np.divide(std, mean, out=np.full(shape, np.nan), where=mean > VISIBLE * mean.max())
    densities = [("predicted density", mean)] if true is None else [("true density", true), ("predicted density", mean)]
    top = max(values[supported].max(initial=0) for _, values in densities)

    maps = [(name, values, "viridis", top) for name, values in densities]
    # A density that is not known to better than itself is not known: no shades for that.
    worst = np.nanmax(np.where(supported, relative, np.nan), initial=0.0)
    maps.append((r"relative uncertainty $\sigma / p$", relative, "magma_r", min(worst, 1.0)))
    # Features of one unit keep their proportions: a ring looks round.
    proportion = (y[-1] - y[0]) / (x[-1] - x[0])
    equal = units[0] == units[1] and 1 / 3 <= proportion <= 3
    figure = new_figure(5.3 * len(maps), 4.3 * (float(proportion) if equal else 1.0) + 1.7)
    density_unit = " ".join(f"{unit}$^{{-1}}$" for unit in units if unit)
    for axis, (name, values, colours, limit) in zip(figure.subplots(1, len(maps), squeeze=False)[0], maps, strict=True):
        # pcolormesh wants rows along y.
        blank = np.ma.masked_invalid(np.where(supported, values, np.nan)).T
        mesh = axis.pcolormesh(x, y, blank, cmap=colours, vmin=0, vmax=limit, rasterized=True)
        axis.set_aspect("equal" if equal else "auto")
        beyond = "max" if values is relative and worst > 1 else "neither"
        bar = figure.colorbar(mesh, ax=axis, location="top", pad=0.02, aspect=25, extend=beyond)
        bar.set_label(with_unit(name, "" if values is relative else density_unit))
        bar.locator = MaxNLocator(5)  # labels of one size do not run into each other
        axis.set_xlabel(with_unit(labels[0], units[0]))
        axis.set_ylabel(with_unit(labels[1], units[1]))
    return figure


def _grid(name: str, values: Any, shape: tuple[int, int]) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.size != shape[0] * shape[1]:
        raise ValueError(
            f"{name} has shape {list(array.shape)}; the edges make a grid of {shape[0]} x {shape[1]} cells"
        )
    return array.reshape(shape)
