"""The windows of a scan over a mass spectrum, on bins that end where they do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pyrogen.checks import FRACTION, LIMITS, NATURAL, door, each, number, require
from pyrogen.printing import Brief

from .regions import Regions

Array = NDArray[np.float64]
MERGED = 1e-3  # of a bin: an edge of the grid that is closer to one of a window is left out
EVEN = 1e-9  # relative difference of two edges that are one

PAIRS = each(LIMITS, "a sequence of (low, high), or pg.search.Regions", 1)


@door(range=LIMITS, n=NATURAL, overlap=number("a fraction in [0, 1)", lambda value: 0 <= value < 1), margin=FRACTION)
def mass_windows(
    range: tuple[float, float], n: int, overlap: float = 0.5, margin: float = 0.15
) -> tuple[tuple[float, float], ...]:
    """``n`` windows in the inner part of a range of masses, all with the same ratio ``high / low``.

    Their widths grow with the mass, as the resolution does.

    Args:
        range: lower and upper end, above zero; the windows keep a distance from both, see ``margin``.
        n: number of windows.
        overlap: of two neighbours, as a fraction of a window.
        margin: part that is left free for sidebands at each end of the range, as a fraction of ``log(high / low)``.

    Raises:
        ValueError: a range that does not start above zero, or a margin that leaves nothing.
    """
    low, high = range
    require(low > 0, "range", range, "above zero")
    require(margin < 0.5, "margin", margin, "below 0.5")
    logs = np.log(high / low)
    first, length = np.log(low) + margin * logs, (1 - 2 * margin) * logs
    width = length / (1 + (n - 1) * (1 - overlap))
    starts = first + np.arange(n) * (1 - overlap) * width
    return tuple((float(np.exp(start)), float(np.exp(start + width))) for start in starts)


@dataclass(frozen=True, repr=False)
class Windows(Brief):
    """Windows on a spectrum, on bins whose edges are those of a grid, of the windows and of their sidebands.

    Attributes:
        low: lower ends ``[W]``; an event there is in the window.
        high: upper ends ``[W]``; an event there is not.
        range: lower and upper end of the spectrum; both are in it.
        alone: whether it is one window that came as :class:`Regions`.
        edges: of the bins ``[B + 1]``.
    """

    low: Array
    high: Array
    range: tuple[float, float]
    alone: bool = False
    edges: Array = field(default_factory=lambda: np.zeros(0))

    def on(self, bins: int, more: ArrayLike = ()) -> Windows:
        """The same windows with bins: an equal grid, the ends of the windows, and ``more`` edges."""
        needed = np.unique(np.concatenate([self.low, self.high, self.range, np.ravel(more)]))
        needed = needed[np.append(True, np.diff(needed) > EVEN * (self.range[1] - self.range[0]))]
        grid, step = np.linspace(*self.range, bins + 1, retstep=True)
        near = np.abs(grid[:, None] - needed[None]).min(1) < MERGED * step
        edges = np.sort(np.concatenate([grid[~near], needed]))
        return Windows(self.low, self.high, self.range, self.alone, edges)

    def on_edges(self, edges: Array, name: str) -> Windows:
        """The same windows on bins that are given.

        Raises:
            ValueError: an end of a window that is no edge.
        """
        for low, high in self.pairs:
            for end in (low, high):
                if np.abs(edges - end).min() > EVEN * (edges[-1] - edges[0]):
                    raise ValueError(
                        f"windows has ({low:g}, {high:g}), and {name} has no edge at {end:g}; give windows on its edges"
                    )
        return Windows(self.low, self.high, self.range, self.alone, edges)

    @property
    def pairs(self) -> list[tuple[float, float]]:
        """``(low, high)`` of each window."""
        return list(zip(self.low.tolist(), self.high.tolist(), strict=True))

    def bins(self, low: ArrayLike, high: ArrayLike) -> NDArray[np.bool_]:
        """Which bins ``[W, B]`` are between ``low [W]`` and ``high [W]``."""
        middle = (self.edges[1:] + self.edges[:-1]) / 2
        return (middle > np.asarray(low)[:, None]) & (middle < np.asarray(high)[:, None])

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Which bins ``[W, B]`` belong to which window."""
        return self.bins(self.low, self.high)

    def sums(self, counts: Array, ends: Array | None = None) -> Array:
        """Events ``[F, W]`` of spectra ``counts [F, B]`` in the windows, or between other ``ends [W, 2]``."""
        chosen = self.inside if ends is None else self.bins(ends[:, 0], ends[:, 1])
        return counts @ chosen.T.astype(np.float64)


def windows_of(windows: Any, range: tuple[float, float] | None) -> Windows:
    """Checked windows of a scan.

    Raises:
        ValueError: no windows, no range, or a window that leaves no sideband in it.
    """
    if isinstance(windows, Regions):
        require(range is None or range == windows.window, "range", range, f"None, or the window {windows.window}")
        low, high = windows.signal
        return Windows(np.array([low]), np.array([high]), windows.window, alone=True)
    if not isinstance(windows, Iterable) or isinstance(windows, str):
        raise TypeError(f"windows is {windows!r}; it must be a sequence of (low, high), or pg.search.Regions")
    pairs = np.array(PAIRS("windows", windows), dtype=np.float64)
    if range is None:
        raise ValueError("range is None; give the (low, high) of the spectrum: the sidebands end there")
    for low, high in pairs:
        if not range[0] < low < high < range[1]:
            apart = high < range[0] / 100 or low > range[1] * 100
            unit = " (are windows and range in the same unit?)" if apart else ""
            raise ValueError(
                f"windows has ({low:g}, {high:g}); it must be inside the range {range}, with a sideband on both "
                f"sides{unit}"
            )
    return Windows(pairs[:, 0], pairs[:, 1], range)


def named(pair: tuple[float, float]) -> str:
    """A window for a message."""
    return f"the window {pair[0]:g} to {pair[1]:g}"
