"""Mean images of calorimeter showers, layer by layer."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pyrogen.checks import TEXT, door, instance
from pyrogen.events import Showers

from .style import new_figure, styled

SHOWERS = instance(Showers, "pyrogen.events.Showers", {"EventSample": "pg.events.Showers(events, energies, geometry)"})
DARKEST = 1e-4  # of the brightest cell: the colours end there
RATIO = (0.8, 1.2)


@styled
@door(truth=SHOWERS, generated=SHOWERS, truth_label=TEXT)
def plot_shower_images(truth: Showers, generated: Showers, *, truth_label: str = "truth") -> Figure:
    """Mean energy of each cell in true and generated showers, and their ratio; one row for each layer.

    Cells that are empty in all true showers stay white in the ratio.

    Args:
        truth: true showers.
        generated: generated ones, with the same cells.
        truth_label: what the truth is called, such as ``"held-out showers"``.

    Raises:
        ValueError: showers of different cells.
    """
    if truth.geometry.sizes != generated.geometry.sizes:
        raise ValueError(
            f"generated has layers of {list(generated.geometry.sizes)} cells, truth of {list(truth.geometry.sizes)}; "
            "compare showers of the same calorimeter"
        )
    layers = list(zip(truth.geometry.numbers, truth.images, generated.images, strict=True))
    figure = new_figure(15, 3.6 * len(layers))
    axes = figure.subplots(len(layers), 3, squeeze=False)
    for row, (number, *images) in zip(axes, layers, strict=True):
        true, new = (np.asarray(its).mean(0) for its in images)
        top = max(float(true.max()), float(new.max()), 1e-9)
        norm = LogNorm(top * DARKEST, top)
        for axis, image, title in zip(row, (true, new), (truth_label, "generated"), strict=False):
            shown = axis.imshow(image, norm=norm, cmap="viridis", aspect="auto", origin="lower")
            axis.set_title(f"layer {number}, {title}", fontsize="medium")
        figure.colorbar(shown, ax=list(row[:2]), label="mean energy [GeV]")
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(true > 0, new / true, np.nan)
        shown = row[2].imshow(ratio, vmin=RATIO[0], vmax=RATIO[1], cmap="RdBu_r", aspect="auto", origin="lower")
        row[2].set_title(f"layer {number}, generated / truth", fontsize="medium")
        figure.colorbar(shown, ax=row[2], extend="both")
        for axis in row:
            axis.set(xlabel="column", ylabel="row")
            axis.minorticks_off()
            axis.tick_params(top=False, right=False)
            for direction in (axis.xaxis, axis.yaxis):
                direction.set_major_locator(MaxNLocator(integer=True))
    return figure
