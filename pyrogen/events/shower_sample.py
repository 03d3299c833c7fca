"""Calorimeter showers: the energies of all cells, and the energy of the particle that hit the calorimeter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ..checks import NOT_NEGATIVE, door, instance, optional, require
from ..printing import Shown
from .containers import numbers_of
from .sample import EventSample, EventsLike
from .shower_geometry import GEOMETRY, ShowerGeometry

ENERGY = "E_inc"  # name of the condition


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Showers(Shown):
    """Showers in a calorimeter. A conditional flow learns ``showers.events`` given ``showers.context``::

        posterior = pg.SVI().fit(model, showers.events, context=showers.context)

    Args:
        values: energies of the cells ``[N, voxels]`` in GeV, layer by layer; none is negative.
        energies: of the incident particles ``[N]`` in GeV.
        geometry: the cells.
        overflow: energies ``[N, layers]`` in GeV that each layer has outside of its cells, where they are known.
        provenance: where the showers come from; of an :class:`EventSample` its own, if left out.

    Raises:
        ValueError: other shapes, NaN, negative energies of cells, or incident energies that are not positive; the first
            wrong shower is named.
        TypeError: no real numbers.

    Attributes:
        events: the cells as an :class:`EventSample`, with a name for each (``E1_5_7``: layer 1, row 5, column 7).
        context: the incident energies as an :class:`EventSample` of one column, ``E_inc``, in GeV.
        energies, geometry, overflow: as given, in float64.
    """

    events: EventSample
    context: EventSample
    geometry: ShowerGeometry
    overflow: NDArray[np.float64] | None

    @door(geometry=GEOMETRY)
    def __init__(
        self,
        values: EventsLike,
        energies: ArrayLike | torch.Tensor,
        geometry: ShowerGeometry,
        overflow: ArrayLike | torch.Tensor | None = None,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        names, units = geometry.names, ("GeV",) * geometry.voxels
        given = values if isinstance(values, EventSample) else EventSample(values)
        require(
            given.features == geometry.voxels,
            "values",
            given.values,
            f"[N, {geometry.voxels}], the cells of {geometry!r}",
        )
        if given.names not in (names, EventSample(np.zeros((1, given.features))).names):
            raise ValueError(f"values have the columns {', '.join(given.names[:3])}, ...; {names[0]}, ... are needed")
        _check_positive("values", given.values, "not negative", given.values >= 0)
        incident = np.asarray(numbers_of(energies, "energies"), np.float64)
        n = len(given)
        require(incident.shape in ((n,), (n, 1)), "energies", energies, f"[{n}], one for each shower")
        _check_positive("energies", incident, "positive and finite", (incident > 0) & np.isfinite(incident))
        beside = None if overflow is None else np.array(numbers_of(overflow, "overflow"), np.float64)
        if beside is not None:
            wanted = (n, len(geometry.layers))
            require(beside.shape == wanted, "overflow", overflow, f"{list(wanted)}, a number for each layer")
            _check_positive("overflow", beside, "finite and not negative", np.isfinite(beside) & (beside >= 0))
            beside.flags.writeable = False
        told = given.provenance if provenance is None else provenance
        extras = {name: getattr(given, name) for name in ("weights", "uncertainties", "log_weights")}
        store = object.__setattr__
        store(self, "events", EventSample(given.values, names, units, provenance=told, part=given.part, **extras))
        store(self, "context", EventSample(incident.reshape(n, 1), [ENERGY]))  # conditions have no units
        store(self, "geometry", geometry)
        store(self, "overflow", beside)

    def __len__(self) -> int:
        """Number of showers N."""
        return len(self.events)

    @property
    def values(self) -> NDArray[np.float64]:
        """Energies of all cells ``[N, voxels]`` in GeV."""
        return self.events.values

    @property
    def energies(self) -> NDArray[np.float64]:
        """Incident energies ``[N]`` in GeV."""
        return self.context.values[:, 0]

    @property
    def layer_energies(self) -> NDArray[np.float64]:
        """Energies of the layers ``[N, layers]`` in GeV, without overflow."""
        return np.stack([self.values[:, columns].sum(1) for columns in self.geometry.columns], 1)

    @property
    def images(self) -> list[NDArray[np.float64]]:
        """Energies of the cells of each layer as a table, ``[N, rows, columns]`` in GeV."""
        found = zip(self.geometry.columns, self.geometry.layers, strict=True)
        return [self.values[:, columns].reshape(len(self), *layer.shape) for columns, layer in found]

    def __getitem__(self, selection: slice | ArrayLike | torch.Tensor) -> Showers:
        """The showers of a slice, a mask ``[N]`` or an array of row numbers; as :class:`EventSample` does."""
        events, energies = self.events[selection], self.context[selection].values[:, 0]
        rows = np.arange(len(self))[np.asarray(selection) if not isinstance(selection, slice) else selection]
        return Showers(events, energies, self.geometry, None if self.overflow is None else self.overflow[rows])

    @door(threshold=NOT_NEGATIVE)
    def suppressed(self, threshold: float) -> Showers:
        """The same showers after zero-suppression: cells below ``threshold`` (GeV) have no energy."""
        told = self.events.provenance | {
            "threshold_GeV": max(threshold, self.events.provenance.get("threshold_GeV", 0))
        }
        values = np.where(self.values < threshold, 0.0, self.values)
        weights = self.events.weights
        sample = EventSample(values, self.events.names, self.events.units, weights, provenance=told)
        return Showers(sample, self.energies, self.geometry, self.overflow)

    def __repr__(self) -> str:
        energies, layers, kind = self.energies, len(self.geometry.layers), self.events.provenance.get("source", "")
        told = f", {kind}" if kind else ""
        return (
            f"Showers({len(self)} showers of {energies.min():.4g} to {energies.max():.4g} GeV in "
            f"{self.geometry.voxels} cells of {layers} layers{told})"
        )


SHOWERS = instance(Showers, "a pyrogen.events.Showers")
OPTIONAL_GEOMETRY = optional(GEOMETRY)


def _check_positive(name: str, values: NDArray[np.float64], right: str, fine: NDArray[np.bool_]) -> None:
    """Raise a ValueError that names the first shower with a wrong number, where there is one."""
    if not fine.all():
        first = np.argwhere(~fine)[0]
        where = f"shower {first[0]}" + (f", column {first[1]}" if len(first) > 1 else "")
        raise ValueError(
            f"{name} must be {right}; {int((~fine).sum())} are not, the first is {values[tuple(first)]:.6g} in {where}"
        )
