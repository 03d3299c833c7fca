"""Mean images of calorimeter showers, layer by layer."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pyrogen.checks import TEXT, door, instance
from pyrogen.events import Showers

from .sheet import AX, Place, Sheet
from .style import styled

SHOWERS = instance(Showers, "pyrogen.events.Showers", {"EventSample": "pg.events.Showers(events, energies, geometry)"})
DARKEST = 1e-4  # of the brightest cell: the colours end there
RATIO = (0.8, 1.2)


@styled
@door(truth=SHOWERS, generated=SHOWERS, truth_label=TEXT, ax=AX)
def plot_shower_images(
    truth: Showers, generated: Showers, *, truth_label: str = "truth", ax: Place | None = None
) -> Figure:
    """Mean energy of each cell in true and generated showers, and their ratio; one row for each layer.

    Cells that are empty in all true showers stay white in the ratio.

    Args:
        truth: true showers.
        generated: generated ones, with the same cells.
        truth_label: what the truth is called, such as ``"held-out showers"``.
        ax: where to draw, see :mod:`pyrogen.plotting`.

    Raises:
        ValueError: showers of different cells.
    """
    if truth.geometry.sizes != generated.geometry.sizes:
        raise ValueError(
            f"generated has layers of {list(generated.geometry.sizes)} cells, truth of {list(truth.geometry.sizes)}; "
            "compare showers of the same calorimeter"
        )
    layers = list(zip(truth.geometry.numbers, truth.images, generated.images, strict=True))
    sheet = Sheet(ax, 15, 3.6 * len(layers))
    parts = (truth_label, "generated", "generated / truth")
    names = [f"layer {number}, {part}" for number, *_ in layers for part in parts]
    axes = sheet.panels(names, len(layers), 3)
    for k, (number, *images) in enumerate(layers):
        row = axes[3 * k : 3 * k + 3]
        true, new = (np.asarray(its).mean(0) for its in images)
        top = max(float(true.max()), float(new.max()), 1e-9)
        norm = LogNorm(top * DARKEST, top)
        for axis, image, title in zip(row, (true, new), (truth_label, "generated"), strict=False):
            shown = axis.imshow(image, norm=norm, cmap="viridis", aspect="auto", origin="lower")
            axis.set_title(f"layer {number}, {title}", fontsize="medium")
        sheet.figure.colorbar(shown, ax=row[:2], label="mean energy [GeV]")
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(true > 0, new / true, np.nan)
        shown = row[2].imshow(ratio, vmin=RATIO[0], vmax=RATIO[1], cmap="RdBu_r", aspect="auto", origin="lower")
        row[2].set_title(f"layer {number}, generated / truth", fontsize="medium")
        sheet.figure.colorbar(shown, ax=row[2], extend="both")
        for axis in row:
            axis.set(xlabel="column", ylabel="row")
            axis.minorticks_off()
            if not sheet.lent:
                axis.tick_params(top=False, right=False)
            for direction in (axis.xaxis, axis.yaxis):
                direction.set_major_locator(MaxNLocator(integer=True))
    return sheet.figure
