"""The bands of several backends over the truth, and their uncertainties against that of a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pyrogen.checks import BOOLEAN, MAPPING, TEXT, door, instance, optional
from pyrogen.diagnostics import LineResult

from .sheet import AX, Place, Sheet
from .style import BANDS, PREDICTION, TRUTH, VALIDATION, arrangement, arrows_outside, styled, with_unit

COLUMNS = 4  # pairs of panels side by side: what is still readable on a slide


@styled
@door(lines=MAPPING, reference=optional(TEXT), log=BOOLEAN, unit=TEXT, density_unit=TEXT, ax=AX)
def plot_backends(
    lines: Mapping[str, LineResult],
    reference: str | None = None,
    *,
    log: bool = False,
    unit: str = "",
    density_unit: str = "",
    ax: Place | None = None,
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
        ax: where to draw, see :mod:`pyrogen.plotting`.

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
    sheet = Sheet(ax, 4.4 * columns + 1, 5.6 * rows)
    pairs = sheet.pairs([*lines], "sigma", rows, columns, (3, 2))
    for i, ((upper, lower), (name, result)) in enumerate(zip(pairs, lines.items(), strict=True)):
        _density(upper, result)
        _sigma(lower, result, None if reference in (None, name) else lines[str(reference)])
        upper.set_title(f"{name} (reference)" if name == reference else name, fontsize="medium")
        # In a grid of our own the outer panels alone have labels.
        outer, last = i % columns == 0 or sheet.lent, i + columns >= len(lines) or sheet.lent
        if last:
            lower.set_xlabel(with_unit(rf"${result.label}$", unit))
        if outer:
            upper.set_ylabel(with_unit(rf"density $p$(${result.label}$)", density_unit))
            lower.set_ylabel(with_unit(rf"$\sigma$(${result.label}$)", density_unit))
        if not sheet.lent:
            upper.tick_params(labelleft=outer)
            lower.tick_params(labelbottom=last, labelleft=outer)
    ends = [end(result.t.min() if end is min else result.t.max() for result in lines.values()) for end in (min, max)]
    for upper, lower in pairs:
        _limits(upper, lower, lines, reference, log)
        room = 0.05 * (ends[1] - ends[0])
        for axis in (upper, lower):
            axis.set_xlim(ends[0] - room, ends[1] + room)
    for (upper, lower), result in zip(pairs, lines.values(), strict=True):
        arrows_outside(upper, result.t, result.density, PREDICTION)
        arrows_outside(lower, result.t, np.where(result.sigma > 0, result.sigma, np.nan), PREDICTION)
    _legend(sheet, [axis for pair in pairs for axis in pair], reference)
    return sheet.figure


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


def _legend(sheet: Sheet, axes: Sequence[Axes], reference: str | None) -> None:
    """One legend for all panels, in the margin: in the panels it would lie on the bands."""
    entries: dict[str, Any] = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        entries.update(zip(labels, handles, strict=True))
    if "reference" in entries:
        entries[rf"$\sigma$ of {reference}"] = entries.pop("reference")
    sheet.legend(list(entries.values()), list(entries), len(entries))
