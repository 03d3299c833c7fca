"""The look that all figures share: to be read on a slide."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import fields, is_dataclass
from functools import wraps
from pathlib import Path
from types import MappingProxyType
from typing import Any, ParamSpec

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Transform
from numpy.typing import NDArray

from pyrogen.checks import PATH, array, dictionary, door, instance, whole
from pyrogen.files import write_bytes

HISTORY = dictionary(array(), "a dictionary of curves", {"Posterior": "give posterior.history"})
P = ParamSpec("P")

TRUTH = "black"
PREDICTION = "#0f5fa8"
FIT = "#009e73"
VALIDATION = "#d1661b"
CONTROL = "#8a8a8a"
FOURTH = "#d070b0"
BANDS = ((1, 0.40), (2, 0.18))  # (number of sigma, opacity)

#: Settings of matplotlib that all figures share.
STYLE: Mapping[str, Any] = MappingProxyType(
    {
        "font.size": 15,
        "axes.labelsize": 17,
        "legend.fontsize": 13,
        "legend.frameon": False,
        "lines.linewidth": 2.0,
        "xtick.major.pad": 7,
        "xtick.direction": "in",
        "ytick.direction": "in",
        "xtick.top": True,
        "ytick.right": True,
        "xtick.minor.visible": True,
        "ytick.minor.visible": True,
        "mathtext.fontset": "dejavusans",
    }
)
#: Settings of a file: text stays text, and no name or number depends on the time.
_FILE: Any = {"svg.fonttype": "none", "svg.hashsalt": "pyrogen", "pdf.fonttype": 42, "ps.fonttype": 42}
_NO_DATE: dict[str, dict[str, Any]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "svgz": {"Date": None}}


def styled(plot: Callable[P, Figure]) -> Callable[P, Figure]:
    """Run a plotting function under the shared style and leave matplotlib's global settings as they were.

    On axes of the user's the settings of the user hold. What its results tell of the calibration of their sigma becomes
    a small line below the figure.
    """

    @wraps(plot)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Figure:
        ax: Any = kwargs.get("ax")
        lent = ax is not None and not isinstance(ax, (Figure, SubFigure))
        style: Any = dict(STYLE)
        with nullcontext() if lent else matplotlib.rc_context(style):
            figure = plot(*args, **kwargs)
            told = caption(_notes([*args, *kwargs.values()]))
            if told:
                _note(told, figure if ax is None else ax if isinstance(ax, (Axes, SubFigure, Figure)) else [*ax][-1])
            return figure

    return wrapper


def _note(told: str, place: Figure | SubFigure | Axes) -> None:
    """A small line below a figure, or below the x label of a panel."""
    look: dict[str, Any] = {"ha": "right", "fontsize": "x-small", "color": "dimgrey"}
    if isinstance(place, Axes):
        where: Any = ("axes fraction", place.xaxis.label)
        place.annotate(told, (1, 0), xycoords=where, xytext=(0, -2), textcoords="offset points", va="top", **look)
    else:
        place.supxlabel(told, x=0.99, **look)


def caption(notes: Iterable[tuple[str, str]]) -> str:
    """One line of ``(name, note)``; without the names where all notes are the same."""
    notes = list(dict.fromkeys(notes))
    different = list(dict.fromkeys(note for _, note in notes))
    if len(different) > 1:
        different = [f"{name}: {note}" if name else note for name, note in notes]
    return f"\u03c3: {'; '.join(different)}".replace("+-", "\u00b1") if different else ""


def _notes(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """What results say of their calibration, with their names where they came in a dictionary."""
    note = getattr(value, "calibration", None)
    if isinstance(note, str):
        if note:
            yield name, note
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from _notes(each, str(key))
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _notes(each, name)
    elif is_dataclass(value):
        for entry in fields(value):
            yield from _notes(getattr(value, entry.name), name)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure in inches that pyplot knows nothing about."""
    return Figure(figsize=(width, height), dpi=120, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.05))


@door(figure=instance(Figure, "a matplotlib Figure"), path=PATH)
def save_figure(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure in one piece, in the format of the suffix (``.png``, ``.pdf``, ``.svg``).

    Text stays text in a PDF or an SVG: it can be searched and edited. No file has a date in it: a figure that is made
    again from the same numbers gives the same bytes, with the same versions of the packages.

    Returns:
        The path.

    Raises:
        ValueError: a suffix that matplotlib cannot write.
        OSError: the file cannot be written; an old file at ``path`` is left as it was.
    """
    path = Path(path)
    image, kind = io.BytesIO(), path.suffix.removeprefix(".").lower() or "png"
    with matplotlib.rc_context(_FILE):
        figure.savefig(image, format=kind, bbox_inches="tight", metadata=_NO_DATE.get(kind))
    write_bytes(path, image.getvalue())
    return path


def with_unit(label: str, unit: str) -> str:
    """An axis label: ``pT [GeV]``, or the label alone for what has no unit."""
    return f"{label} [{unit}]" if unit else label


def symbol(name: str) -> str:
    """A plain name as mathematics: ``delta_x_max`` becomes the formula for Delta x_max."""
    word, *rest = name.removeprefix("delta_").split("_")
    greek = {"mu", "sigma", "phi", "theta", "alpha", "beta", "gamma"}
    letter = rf"\{word}" if word in greek else word if len(word) == 1 else rf"\mathrm{{{word}}}"
    index = rf"_\mathrm{{{','.join(rest)}}}" if rest else ""
    difference = r"\Delta " if name.startswith("delta_") else ""
    return f"${difference}{letter}{index}$"


def with_error(value: float, error: float) -> str:
    """``0.040 ± 0.003``: as many digits as the error makes sense of, two where its first is a 1."""
    if not 1e-5 < error < math.inf:
        return f"{value:.3g} $\\pm$ {error:.1g}"
    exponent = math.floor(math.log10(error))
    digits = max(0, -exponent + (error < 2 * 10.0**exponent))
    return f"{value:.{digits}f} $\\pm$ {error:.{digits}f}"


def ratio_axis(axis: Axes, label: str, deviations: NDArray[Any], shown: float = 0.95) -> None:
    """Dress a ratio panel: a line at one, and symmetric limits that contain most of what is drawn.

    Args:
        axis: the panel.
        label: of its y axis.
        deviations: from one, of all that is drawn.
        shown: fraction of them inside the limits; a few points with huge errors must not flatten all others.
    """
    axis.axhline(1, color=TRUTH, linewidth=1, linestyle="--")
    finite = np.abs(deviations[np.isfinite(deviations)])
    reach = np.quantile(finite, shown) if finite.size else 0.1
    half = float(np.clip(1.25 * reach, 0.02, 1.0))
    axis.set_ylim(1 - half, 1 + half)
    axis.set_ylabel(label, fontsize="medium")


def plain_numbers(axis: Axis) -> None:
    """Plain numbers, as many as fit, on a logarithmic axis over less than three decades; others stay as they are."""
    low, high = sorted(axis.get_view_interval())
    if axis.get_scale() != "log" or low < 1e-4 or high >= 1e6 or high >= 1e3 * low:
        return
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 100 * low else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(NullFormatter())


def arrangement(n: int, most: int) -> tuple[int, int]:
    """Rows and columns of n panels, at most so many side by side, as even as possible: four make two rows of two."""
    rows = -(-n // most)
    return rows, -(-n // rows)


def arrows_outside(axis: Axes, x: NDArray[Any], y: NDArray[Any], colour: str) -> None:
    """Triangles at the upper and lower edge of a panel where points ``(x, y)`` lie outside of its limits."""
    low, high = axis.get_ylim()
    for outside, marker, height in ((y > high, "^", 0.94), (y < low, "v", 0.06)):
        triangles(axis, x[outside], np.full(int(outside.sum()), height), marker, colour, axis.get_xaxis_transform())


def triangles(
    axis: Axes,
    x: NDArray[Any],
    y: NDArray[Any],
    marker: str,
    colour: str,
    transform: Transform | None = None,
    label: str | None = None,
) -> None:
    """Triangles with a white rim, which stay visible on a band."""
    if len(x):
        where = axis.transData if transform is None else transform
        style: dict[str, Any] = {"markersize": 5.5, "markeredgecolor": "white", "markeredgewidth": 0.6}
        axis.plot(x, y, marker, color=colour, transform=where, label=label, **style)


def legend_above(axis: Axes, columns: int, **options: Any) -> None:
    """A legend at the upper edge of a panel, whose upper limit is raised until the legend lies above all data."""
    legend = axis.legend(loc="upper center", ncols=columns, **options)
    rows = -(-sum(text.get_text().count("\n") + 1 for text in legend.get_texts()) // columns)
    inches = axis.get_window_extent().height / axis.figure.dpi
    share = min((1.3 * rows + 1.0) * float(legend.get_texts()[0].get_fontsize()) / 72 / inches, 0.6)
    low, high = axis.get_ylim()
    if axis.get_yscale() == "log":
        axis.set_ylim(low, high * (high / low) ** (share / (1 - share)))
    else:
        axis.set_ylim(low, high + (high - low) * share / (1 - share))


@door(n=whole(0))
def colours(n: int) -> list[str]:
    """``n`` colours that stay apart from each other, from black and from white, also for colour-blind eyes.

    They begin again after seven: use other markers or dashes then.
    """
    palette = (PREDICTION, VALIDATION, FIT, FOURTH, "#7cc8f2", "#6b3a10", "#505050")
    return [palette[i % len(palette)] for i in range(n)]
