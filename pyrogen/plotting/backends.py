"""The bands of several backends over the truth, and their uncertainties against that of a reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyrogen.checks import BOOLEAN, MAPPING, TEXT, door, instance, optional
from pyrogen.diagnostics import LineResult

from .style import BANDS, PREDICTION, TRUTH, VALIDATION, arrangement, arrows_outside, new_figure, styled, with_unit

COLUMNS = 4  # pairs of panels side by side: what is still readable on a slide


@styled
@door(lines=MAPPING, reference=optional(TEXT), log=BOOLEAN, unit=TEXT, density_unit=TEXT)
def plot_backends(
    lines: Mapping[str, LineResult],
    reference: str | None = None,
    *,
    log: bool = False,
    unit: str = "",
    density_unit: str = "",
) -> Figure:
    """A pair of panels for every backend: its density with the error band over the truth, below it its sigma.

    The reference's sigma is drawn in the lower panel of every backend, and all pairs have the same axes. Curves are
    averages over the lines; the shade around sigma is its spread over the lines.

    Args:
        lines: what :func:`~pyrogen.diagnostics.density_along_lines` found, by name of the backend.
        reference: name of the one that the others are held against; None: none is.
        log: draw sigma on a logarithmic scale, for backends whose sigma differ by large factors.
        unit: unit of t.
        density_unit: unit of the density.

    Raises:
        ValueError: no lines, a reference that is not among them, or results along different coordinates.
    """
    for result in lines.values():
        instance(LineResult, "a LineResult, from density_along_lines")("every entry of lines", result)
    if not lines:
        raise ValueError("lines is empty; give at least one backend's result")
    if reference is not None and reference not in lines:
        raise ValueError(f"reference is {reference!r}; it must be one of {', '.join(map(repr, lines))}, or None")
    labels = {result.label for result in lines.values()}
    if len(labels) > 1:
        raise ValueError(f"the lines are along {', '.join(sorted(labels))}; all backends need the same coordinate")

    rows, columns = arrangement(len(lines), COLUMNS)
    figure = new_figure(4.4 * columns + 1, 5.6 * rows)
    grid = figure.add_gridspec(2 * rows, columns, height_ratios=(3, 2) * rows)
    pairs: list[tuple[Axes, Axes]] = []
    for i, (name, result) in enumerate(lines.items()):
        row, column = divmod(i, columns)
        above, below = pairs[0] if pairs else (None, None)
        upper = figure.add_subplot(grid[2 * row, column], sharex=above, sharey=above)
        lower = figure.add_subplot(grid[2 * row + 1, column], sharex=upper, sharey=below)
        pairs.append((upper, lower))
        _density(upper, result)
        _sigma(lower, result, None if reference in (None, name) else lines[str(reference)])
        upper.set_title(f"{name} (reference)" if name == reference else name, fontsize="medium")
        upper.tick_params(labelbottom=False, labelleft=column == 0)
        last = i + columns >= len(lines)  # nothing below this pair
        lower.tick_params(labelbottom=last, labelleft=column == 0)
        if last:
            lower.set_xlabel(with_unit(rf"${result.label}$", unit))
        if column == 0:
            upper.set_ylabel(with_unit(rf"density $p$(${result.label}$)", density_unit))
            lower.set_ylabel(with_unit(rf"$\sigma$(${result.label}$)", density_unit))
    _limits(*pairs[0], lines, reference, log)
    for (upper, lower), result in zip(pairs, lines.values(), strict=True):
        arrows_outside(upper, result.t, result.density, PREDICTION)
        arrows_outside(lower, result.t, np.where(result.sigma > 0, result.sigma, np.nan), PREDICTION)
    _legend(figure, reference)
    return figure


def _density(axis: Axes, result: LineResult) -> None:
    for k, opacity in BANDS:
        low, high = result.density - k * result.sigma, result.density + k * result.sigma
        label = rf"$\pm {k if k > 1 else ''}\sigma$"
        axis.fill_between(result.t, low, high, color=PREDICTION, alpha=opacity, linewidth=0, label=label)
    axis.plot(result.t, result.density, color=PREDICTION, label="prediction")
    axis.plot(result.t, result.truth, color=TRUTH, linestyle="--", linewidth=1.5, label="truth")


def _sigma(axis: Axes, result: LineResult, reference: LineResult | None) -> None:
    low, high = result.sigma - result.sigma_spread, result.sigma + result.sigma_spread
    axis.fill_between(result.t, low, high, color=PREDICTION, alpha=BANDS[1][1], linewidth=0)
    axis.plot(result.t, result.sigma, color=PREDICTION)
    if reference is not None:
        axis.plot(reference.t, reference.sigma, color=VALIDATION, linestyle="-.", label="reference")


def _limits(upper: Axes, lower: Axes, lines: Mapping[str, LineResult], reference: str | None, log: bool) -> None:
    """Limits for all panels that one backend gone astray cannot stretch until nothing else is seen."""
    heights = {name: float(np.max(result.density + 2 * result.sigma)) for name, result in lines.items()}
    widths = {name: float(np.max(result.sigma + result.sigma_spread)) for name, result in lines.items()}
    for axis, values, factor in ((upper, heights, 1.3), (lower, widths, 4.0)):
        usual = float(np.median(list(values.values()))) if reference is None else values[reference]
        top = min(max(values.values()), factor * usual)
        axis.set_ylim(0, 1.08 * top if top > 0 else 1.0)
    sigmas = np.concatenate([result.sigma for result in lines.values()])
    if log and (sigmas > 0).any():
        lowest, highest = float(sigmas[sigmas > 0].min()), float(sigmas.max())
        lower.set_yscale("log")
        lower.set_ylim(max(0.7 * lowest, 1e-4 * highest), 1.4 * highest)


def _legend(figure: Figure, reference: str | None) -> None:
    """One legend for all panels, in the margin: in the panels it would lie on the bands."""
    entries: dict[str, Any] = {}
    for axis in figure.axes:
        handles, labels = axis.get_legend_handles_labels()
        entries.update(zip(labels, handles, strict=True))
    if "reference" in entries:
        entries[rf"$\sigma$ of {reference}"] = entries.pop("reference")
    figure.legend(entries.values(), entries.keys(), loc="outside upper center", ncols=len(entries))
