"""Where a figure is drawn: on a new one, in a figure of the user's, or on axes of the user's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from pyrogen.checks import each, instance, optional, require

from .style import legend_above, new_figure

#: What ``ax`` may be.
Place = Axes | Sequence[Axes] | Figure | SubFigure

ONE = instance(Axes, "an Axes of matplotlib")
RIGHT = "an Axes of matplotlib, a flat list of Axes (one for each panel), a Figure or a SubFigure"


def _place(name: str, value: Any) -> Any:
    """Where to draw: checked as far as it can be without knowing the panels."""
    if isinstance(value, Axes):
        return value
    if isinstance(value, (Figure, SubFigure)):
        require(
            not value.axes, name, value, f"a Figure without axes; this one has {len(value.axes)}: give some of them"
        )
        require(
            isinstance(value.get_layout_engine(), ConstrainedLayoutEngine), name, value,
            'a Figure that makes room for its labels: plt.figure(layout="constrained")',
        )  # fmt: skip
        return value
    flat = not (isinstance(value, np.ndarray) and value.ndim > 1)
    require(flat, name, value, f"{RIGHT}. Panels have an order of their own, so a table of Axes is not taken")
    axes = each(ONE, RIGHT, 1)(name, value)
    require(len({id(axis) for axis in axes}) == len(axes), name, value, "different Axes for different panels")
    require(len({id(_root(axis)) for axis in axes}) == 1, name, value, "Axes of one figure")
    return axes


#: The check of every argument ``ax``.
AX = optional(_place)


def _root(place: Any) -> Figure:
    while not isinstance(place, Figure):
        place = place.figure
    return place


class Sheet:
    """Hands out the panels of a figure, and knows where its legend and its title belong.

    Attributes:
        lent: the user's axes, whose layout, ticks and fonts are left alone; None where the panels are made here.
    """

    def __init__(self, ax: Place | None, width: float, height: float) -> None:
        """Start on ``ax``, or on a new figure of this size in inches."""
        self.lent: tuple[Axes, ...] | None = None
        if ax is None or isinstance(ax, (Figure, SubFigure)):
            self._within: Figure | SubFigure = new_figure(width, height) if ax is None else ax
        else:
            self.lent = (ax,) if isinstance(ax, Axes) else tuple(ax)
            self._within = _root(self.lent[0])

    @property
    def figure(self) -> Figure:
        """The whole figure, which a plotting function gives back."""
        return _root(self._within)

    def panels(
        self,
        names: Sequence[str],
        rows: int = 1,
        columns: int = 0,
        *,
        heights: Sequence[float] | None = None,
        cells: Sequence[Any] = (),
        sharey: bool = False,
    ) -> list[Axes]:
        """One panel for each name.

        Args:
            names: what the panels are called in an error.
            rows: of the grid.
            columns: of the grid; 0: as many as there are panels.
            heights: of the rows, relative to each other.
            cells: the place of each panel in the grid; by default row by row.
            sharey: one scale for all.

        Raises:
            ValueError: the user's axes are more or fewer.
        """
        if self.lent is not None:
            count = f"{len(names)} Axes" if len(names) > 1 else "one Axes"
            told = f"ax has {len(self.lent)}; it must be {count}, in this order: {', '.join(names)}"
            if len(self.lent) != len(names):
                raise ValueError(told)
            return list(self.lent)
        grid = self._within.add_gridspec(rows, columns or len(names), height_ratios=heights)
        places = cells or [divmod(i, columns or len(names)) for i in range(len(names))]
        made: list[Axes] = []
        for place in places:
            made.append(self._within.add_subplot(grid[place], sharey=made[0] if made and sharey else None))
        if sharey:
            for axis in made[1:]:
                axis.tick_params(labelleft=False)
        return made

    def pairs(
        self, names: Sequence[str], below: str, rows: int, columns: int, heights: tuple[float, float]
    ) -> list[tuple[Axes, Axes]]:
        """Two panels for each name, one above the other, with one x axis."""
        cells = [
            (2 * (i // columns) + half, i % columns) for i in range(len(names)) for half in (0, 1)
        ]  # a panel, and what belongs to it
        axes = self.panels(
            [told for name in names for told in (name, f"{below} of {name}" if len(names) > 1 else below)],
            2 * rows,
            columns,
            heights=heights * rows,
            cells=cells,
        )
        found = list(zip(axes[::2], axes[1::2], strict=True))
        for top, bottom in found:
            self.align(top, bottom)
        return found

    def align(self, top: Axes, bottom: Axes) -> None:
        """One x axis for two panels, with numbers below the lower one; those of the user's stay as they are."""
        if self.lent is None:
            top.sharex(bottom)
            top.tick_params(labelbottom=False)
            self._within.align_ylabels([top, bottom])

    def legend(self, handles: Any, labels: Any, columns: int, loc: str = "outside upper center", **look: Any) -> None:
        """One legend of all panels: beside them, or in the first of the user's axes."""
        if self.lent is None:
            options: Any = {"loc": loc, "ncols": columns, **look}
            self._within.legend(handles, labels, **options)
        else:
            legend_above(self.lent[0], min(columns, 2), handles=handles, labels=labels, fontsize="small")

    def title(self, text: str) -> None:
        """A title above the figure, or above the first of the user's axes; none without a text."""
        if text and self.lent is None:
            self._within.suptitle(text, fontsize="large")
        elif text and self.lent is not None:
            self.lent[0].set_title(text)
