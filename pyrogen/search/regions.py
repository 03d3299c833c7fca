"""The signal region of a resonance search, and the sidebands from which its background is learned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pyrogen.checks import LIMITS, array, check_settings, door, require
from pyrogen.printing import Brief

UNITS = 100.0  # a mass beyond this multiple of the window, or below its inverse, is one in another unit


@dataclass(frozen=True, kw_only=True, repr=False)
class Regions(Brief):
    """A signal region in the mass, and sidebands on both of its sides up to the ends of a window.

    Attributes:
        signal: lower and upper end of the signal region, in the unit of the mass. An event at the lower end is in it,
            an event at the upper end is not.
        window: lower and upper end of the masses that take part; the sidebands are the window without the signal
            region. Both ends are in it.

    Raises:
        ValueError: limits that do not rise, or a signal region that leaves no sideband on one of its sides.
    """

    signal: tuple[float, float]
    window: tuple[float, float]

    def __post_init__(self) -> None:
        check_settings(self, signal=LIMITS, window=LIMITS)
        (low, high), (first, last) = self.signal, self.window
        require(
            first < low and high < last,
            "signal",
            self.signal,
            f"inside the window {self.window}, with a sideband on both sides",
        )

    @property
    def sidebands(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Lower and upper sideband."""
        return (self.window[0], self.signal[0]), (self.signal[1], self.window[1])

    @door(mass=array(1))
    def inside(self, mass: ArrayLike) -> NDArray[np.bool_]:
        """Which masses ``[N]`` are in the window, so that ``events[regions.inside(mass)]`` can be given to a search."""
        values = np.asarray(mass, dtype=np.float64)
        return (values >= self.window[0]) & (values <= self.window[1])

    @door(mass=array(1))
    def in_signal(self, mass: ArrayLike) -> NDArray[np.bool_]:
        """Which masses ``[N]`` are in the signal region."""
        values = np.asarray(mass, dtype=np.float64)
        return (values >= self.signal[0]) & (values < self.signal[1])

    @door(mass=array(1))
    def populated(self, mass: ArrayLike, name: str = "mass") -> NDArray[np.float64]:
        """Masses ``[N]`` in float64, all of them in the window, some in each of its three parts.

        Args:
            mass: the masses.
            name: of the mass, for the messages.

        Raises:
            ValueError: not one number per event, NaN or infinity, masses outside the window, or an empty signal region
                or sideband; the text says how many, and where.
        """
        values = np.asarray(mass, dtype=np.float64)
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            raise ValueError(f"{name} is {values[bad[0]]} in {bad.size:,} of {values.size:,} events, first {bad[0]}")
        outside = np.flatnonzero(~self.inside(values))
        if outside.size:
            raise ValueError(
                f"{outside.size:,} of {values.size:,} events have a {name} outside the window {self.window}, the "
                f"first of them, event {outside[0]}, {values[outside[0]]:.10g}{self._unit(values)}; give "
                "events[regions.inside(mass)], or another window"
            )
        signal = self.in_signal(values)
        for what, (low, high), many in (
            ("signal region", self.signal, int(signal.sum())),
            ("lower sideband", self.sidebands[0], int((values < self.signal[0]).sum())),
            ("upper sideband", self.sidebands[1], int((values >= self.signal[1]).sum())),
        ):
            if not many:
                raise ValueError(f"no event has a {name} in the {what}, {low} to {high}")
        return values

    def _unit(self, values: NDArray[np.float64]) -> str:
        """A word where the masses look as if they had another unit."""
        ratio = float(np.median(np.abs(values))) / max(map(abs, self.window))
        apart = ratio > UNITS or ratio < 1 / UNITS
        return " (are masses and regions in the same unit?)" if apart else ""
