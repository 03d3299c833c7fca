"""The course of sampled chains."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from pyrogen.checks import door

from .sheet import AX, Place, Sheet
from .style import HISTORY, TRUTH, arrangement, colours, styled

COLOURS = colours(7)  # chains, in turn
LABELS = {
    "potential": "potential U [nats]",
    "acceptance": "acceptance probability",
    "excess_temperature": "excess temperature",
    "step_size": "step size",
}


@styled
@door(history=HISTORY, ax=AX)
def plot_chains(history: Mapping[str, ArrayLike], *, ax: Place | None = None) -> Figure:
    """Potential, acceptance (or excess temperature) and step size of every chain against the transition.

    The warm-up lies left of the dashed line. Chains whose potentials do not mix have not met.

    Args:
        history: ``posterior.history`` of a sampled backend, ``[chains, draws]`` each, with the warm-up's as
            ``warmup_...``.
        ax: where to draw, see :mod:`pyrogen.plotting`.

    Raises:
        ValueError: no record of a potential, or one that is not finite.
    """
    curves = {name: np.asarray(values, dtype=np.float64) for name, values in history.items()}
    if curves.get("potential", np.empty(0)).ndim != 2:
        raise ValueError(
            f"the history has no potential [chains, draws]; it has {', '.join(map(str, curves)) or 'nothing'}"
        )
    if not np.isfinite(curves["potential"]).all():
        raise ValueError("potential in the history has numbers that are NaN or infinite")
    names = [name for name in LABELS if name in curves]
    rows, columns = arrangement(len(names), 3)
    sheet = Sheet(ax, 5.8 * columns, 4.8 * rows)
    axes = sheet.panels([LABELS[name].partition(" [")[0] for name in names], rows, columns)
    for axis, name in zip(axes, names, strict=True):
        warmup = curves.get(f"warmup_{name}", np.empty((len(curves[name]), 0)))
        values = np.concatenate([warmup, curves[name]], 1)
        first = np.arange(values.shape[1]) + 1
        for chain, course in enumerate(values):
            label = f"chain {chain + 1}" if chain < len(COLOURS) else None
            axis.plot(first, course, color=COLOURS[chain % len(COLOURS)], linewidth=1.0, alpha=0.8, label=label)
        if warmup.shape[1]:
            axis.axvline(warmup.shape[1], color=TRUTH, linestyle="--", linewidth=1.2, label="end of warm-up")
        if name == "potential":
            # The fall from the start would squeeze everything that is of interest.
            low, high = np.quantile(curves[name], [0, 1])
            margin = 0.5 * max(high - low, 1e-9)
            axis.set_ylim(low - margin, high + margin)
        if name == "step_size" and values.max() > 5 * values.min() > 0:
            axis.set_yscale("log")
        axis.set_xlabel("transition")
        axis.set_ylabel(LABELS[name])
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    handles, labels = axes[0].get_legend_handles_labels()
    sheet.legend(handles, labels, arrangement(len(labels), 6)[1])
    return sheet.figure
