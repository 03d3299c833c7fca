"""Online against offline training: error and sigma against the number of events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from pyrogen.checks import MAPPING, TEXT, dictionary, door, require

from .sheet import AX, Place, Sheet
from .style import FIT, PREDICTION, VALIDATION, plain_numbers, styled

#: Colour and marker of every way to use the events.
LOOKS = {"online": (PREDICTION, "o"), "offline": (FIT, "s"), "subset": (VALIDATION, "D")}
LABELS = {
    "online": "online, each event while in the buffer",
    "offline": "offline, all events stored",
    "subset": "offline, a stored subset of the buffer's size",
}
FIGURES = ("error", "sigma")
#: Labels of the two panels.
MEASURES = {
    "density": (r"median error $|p - p_{\mathrm{true}}| / p_{\mathrm{true}}$", r"median $\sigma / p$"),
    "bins": (r"rms error $|n - n_{\mathrm{true}}| / n_{\mathrm{true}}$ of bins", r"rms $\sigma / n$ of bins"),
}


@styled
@door(
    curves=dictionary(MAPPING, 'a dictionary such as {"online": {"events": [...], "error": [...]}}'),
    title=TEXT,
    of=TEXT,
    ax=AX,
)
def plot_online(
    curves: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    title: str = "",
    of: str = "density",
    ax: Place | None = None,
) -> Figure:
    """Error and sigma, both relative, against the events that a training had seen.

    Args:
        curves: for ``"online"``, ``"offline"`` and ``"subset"`` lists of one length: ``"events"``, ``"error"`` and
            ``"sigma"``.
        title: above the figure.
        of: what they are the error and sigma of: ``"density"`` (medians over true events) or ``"bins"`` (root mean
            squares over the bins of histograms).
        ax: where to draw, see :mod:`pyrogen.plotting`.

    Raises:
        ValueError: another name, lists of several lengths, or another ``of``.
    """
    require(of in MEASURES, "of", of, f"one of {', '.join(MEASURES)}")
    for name, curve in curves.items():
        require(name in LOOKS, "curves", name, f"by the names {', '.join(LOOKS)}")
        lengths = {len(curve.get(entry, ())) for entry in ("events", *FIGURES)}
        require(lengths != {0} and len(lengths) == 1, f"curves[{name!r}]", curve, "lists events, error, sigma")
    sheet = Sheet(ax, 12.0, 5.6)
    sheet.title(title)
    axes = sheet.panels(FIGURES)
    for axis, entry in zip(axes, FIGURES, strict=True):
        for name, curve in curves.items():
            colour, marker = LOOKS[name]
            style: Any = {"color": colour, "marker": marker, "markersize": 7, "label": LABELS[name]}
            axis.plot(curve["events"], curve[entry], **style)
        axis.set(xscale="log", yscale="log", xlabel="events seen")
    low, high = (end(axis.get_ylim()[i] for axis in axes) for i, end in enumerate((min, max)))
    for axis, label in zip(axes, MEASURES[of], strict=True):
        axis.set(ylim=(low, high), ylabel=label)
        plain_numbers(axis.xaxis)
        plain_numbers(axis.yaxis)
    handles, labels = axes[0].get_legend_handles_labels()
    sheet.legend(handles, labels, 1, "outside lower center")
    return sheet.figure
