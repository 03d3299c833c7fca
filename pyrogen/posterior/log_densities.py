"""Log densities of every weight draw with all that belongs to them, for xarray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pyrogen.labelled import Coordinates, Labelled
from pyrogen.printing import listed, span

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class LogDensities(Labelled):
    """Log density of N events in K weight draws, with the events.

    Attributes:
        log_prob: ``[K, N]`` in nats, of the density per ``unit``; -inf where a draw has no density.
        events: ``[N, d]``.
        names, units: of the columns.
        unit: of the density, such as ``1/GeV^2``; empty where the columns have no units.
        calibration: whether sigma is calibrated, in a few words.
    """

    _dims: ClassVar[Mapping[str, str]] = {"log_prob": "draw event"}
    _within: ClassVar[tuple[str, ...]] = ("events",)

    log_prob: Array
    events: Array
    names: tuple[str, ...]
    units: tuple[str, ...]
    unit: str = ""
    calibration: str = ""

    def _summary(self) -> str:
        draws, events = self.log_prob.shape
        return (
            f"{events:,} events of {listed(self.names)}, {draws} draws, log p = {span(self.log_prob, '.3g')}, "
            f"{self.calibration}"
        )

    def _units(self) -> dict[str, str]:
        return {"log_prob": "nat"}

    def _labels(self) -> dict[str, str]:
        return {"log_prob": f"log density per {self.unit.removeprefix('1/')}" if self.unit else "log density"}

    def _coordinates(self) -> Coordinates:
        """The columns of the events."""
        told = ({"units": unit} if unit else {} for unit in self.units)
        columns = zip(self.names, self.events.T, told, strict=True)
        return {name: ("event", column, unit) for name, column, unit in columns}
