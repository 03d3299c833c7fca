"""Partons of Les Houches files as objects: events with a varying number of them, as matched generators make."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..checks import NOT_NEGATIVE, TEXT, check_settings, one_of, require, whole
from .multiplicity import Multiplicity

SHARED, FIELDS = ("pt", "eta", "phi"), ("pt", "eta", "phi", "m")


@dataclass(frozen=True)
class Partons:
    """Which particles of the final state are objects, and how many of them an event may have.

    Args:
        ids: their PDG ids.
        most, least: how many an event may have.
        pt_min: in GeV; only particles with more transverse momentum are objects, the others do not count.
        surplus: ``"error"`` of an event with more than ``most``, ``"leading"``: the leading ones are kept, or
            ``"skip"`` the event.
        label: what columns call an object.
    """

    ids: Sequence[int]
    most: int
    least: int = 1
    pt_min: float = 0.0
    surplus: str = "error"
    label: str = "j"

    def __post_init__(self) -> None:
        check_settings(
            self,
            most=whole(1),
            least=whole(0),
            pt_min=NOT_NEGATIVE,
            surplus=one_of("error", "leading", "skip"),
            label=TEXT,
        )
        require(self.least <= self.most, "least", self.least, f"at most most = {self.most}")

    def split(self, final: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """The objects of an event, by falling pT, and the particles that are none."""
        others = [particle for particle in final if particle.id not in self.ids]
        found = [particle for particle in final if particle.id in self.ids and _pt(particle) > self.pt_min]
        return sorted(found, key=_pt, reverse=True), others

    def row(self, objects: Sequence[Any]) -> list[float]:
        """``px, py, pz, m`` of the leading objects, then NaN.

        Raises:
            ValueError: numbers that are not finite.
        """
        numbers = [number for p in objects[: self.most] for number in (p.px, p.py, p.pz, abs(p.m))]
        if not all(map(math.isfinite, numbers)):
            raise ValueError("a momentum or mass that is NaN or infinite")
        return numbers + [math.nan] * (4 * self.most - len(numbers))

    def content(self, names: Sequence[str], table: np.ndarray) -> dict[str, Any]:
        """Arguments of a sample.

        Args:
            names: of the particles that every event has.
            table: their momenta ``px, py, pz, E``, then what :meth:`row` gives, ``[N, 4 (particles + most)]``.
        """
        momenta = table.reshape(len(table), -1, 4)
        pt = np.hypot(momenta[..., 0], momenta[..., 1])
        with np.errstate(divide="ignore", invalid="ignore"):  # of a particle along the beam: infinite, which is refused
            eta = np.arcsinh(momenta[..., 2] / pt)
        vectors = np.stack([pt, eta, np.arctan2(momenta[..., 1], momenta[..., 0]), momenta[..., 3]], axis=-1)
        shared = vectors[:, : len(names), :3].reshape(len(table), -1)
        objects = vectors[:, len(names) :].reshape(len(table), -1)
        labels = [(field, name) for name in names for field in SHARED]
        labels += [(field, f"{self.label}{i}") for i in range(1, self.most + 1) for field in FIELDS]
        return {
            "values": np.hstack([shared, objects]),
            "names": [f"{field}_{name}" for field, name in labels],
            "units": ["GeV" if field in ("pt", "m") else "" for field, _ in labels],
            "multiplicity": Multiplicity(shared.shape[1], len(FIELDS), self.most, self.least),
        }


def _pt(particle: Any) -> float:
    return math.hypot(particle.px, particle.py)
