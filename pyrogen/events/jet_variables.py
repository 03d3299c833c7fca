"""Coordinates of a lepton pair with jets in which a network learns easily, exact both ways, with their Jacobians.

An event is a row of ``Multiplicity(shared=6, each=4, most)``: transverse momentum (GeV), pseudorapidity and azimuth of
l+ and of l-, then transverse momentum, pseudorapidity, azimuth and mass of each jet, sorted by falling pT, NaN where no
jet is. :class:`LeptonsAndJets` turns it into physical coordinates. Densities stay those of the row, per GeV and so on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..checks import BOOLEAN, NOT_NEGATIVE, SEED, door, one_of, require
from .coordinates import RecoilingPair
from .holes import rapidity, separations
from .jets import check_z_jets_order
from .kinematics import wrapped
from .multiplicity import Multiplicity
from .padded import PaddedBijection
from .polar import close_holes, open_holes
from .sample import EventsLike, as_sample

SHARED, EACH = 6, 4
LOG_TURN = math.log(2 * math.pi)
JET_COORDINATES = {
    "paper": (("log pT+", "eta+", "phi+", "log pT-", "eta-", "dphi-"), ("log pT", "eta", "dphi", "m")),
    "resonance": (("M", "y", "log qT", "phi_q", "eta*", "phi*"), ("pT", "y", "dphi", "m")),
}
"""Names of the coordinates of the leptons and of each jet, by kind."""
POLAR = ("pT", "dR", "theta", "m")
"""Those of a jet that is told by its distance and direction from the leading one."""
UNIFORM = {"paper": (2,), "resonance": (3,)}
"""The column that is an azimuth, uniform by symmetry: all other azimuths are relative to it."""
MASS_SCALE = 0.05  # of sqrt(m / pT), which is 0.40 +- 0.08: linear there, logarithmic towards m = 0
KIND = one_of(*JET_COORDINATES)


class LeptonsAndJets(PaddedBijection):
    """Rows of two leptons and jets to the physical coordinates of :func:`jet_coordinates`; nothing to fit.

    Args:
        kind: ``"paper"`` or ``"resonance"``.
        most: largest number of jets.
        least: smallest number of jets.
        pt_min: cut on the transverse momentum of jets, in GeV.
        circle: angles from 0 to 1 once around; otherwise ``artanh(dphi / pi)``. (``phi+`` and ``phi_q`` are always from
            0 to 1.)
        radius: ``"resonance"`` alone: jets are farther apart than this in rapidity and azimuth; 0: no such hole.
        lepton_mass: in GeV; ``"paper"`` does not need it.
        polar: ``"resonance"`` alone: so many jets from the second on are told by their distance and direction from the
            leading one.
    """

    kind = "leptons_and_jets"
    fitted = True

    @door(kind=KIND, pt_min=NOT_NEGATIVE, circle=BOOLEAN, radius=NOT_NEGATIVE, polar=SEED)
    def __init__(
        self,
        kind: str = "resonance",
        most: int = 3,
        least: int = 1,
        *,
        pt_min: float = 20.0,
        circle: bool = True,
        radius: float = 0.4,
        lepton_mass: float = 0.0,
        polar: int = 0,
    ) -> None:
        super().__init__(Multiplicity(SHARED, EACH, most, least))
        self.coordinates, self.pt_min, self.circle, self.radius, self.polar = kind, pt_min, circle, radius, polar
        require(radius < 1.5, "radius", radius, "less than 1.5, so that azimuths are left")
        require(self.physical or radius == 0, "radius", radius, "0 for the coordinates of the paper")
        require(self.physical or not polar, "polar", polar, "0 for the coordinates of the paper")
        self.pair = RecoilingPair(lepton_mass)

    @property
    def physical(self) -> bool:
        """Whether the leptons are told by the resonance they come from, and jets by fractions and differences."""
        return self.coordinates == "resonance"

    def fit(self, events: EventsLike, weights: ArrayLike | Tensor | None = None) -> Self:
        self.check(as_sample(events, weights, self.layout))
        return self

    def outside(self, x: Tensor, names: Sequence[str]) -> str | None:
        check_z_jets_order(names, self.layout.most)
        return super().outside(x, names)

    def renamed(self, names: Sequence[str]) -> Sequence[str]:
        leptons, jet = JET_COORDINATES[self.coordinates]
        jets = [jet, *([POLAR] * self.polar + [jet] * self.layout.most)[: self.layout.most - 1]]
        return [*leptons, *(f"{name}_j{j}" for j, its in enumerate(jets, 1) for name in its)]

    def filler(self, x: Tensor) -> Tensor:
        # Apart: two jets at one place have no direction from each other.
        jets = [(self.pt_min + 1.0, float(j), 0.0, 1.0) for j in range(self.layout.most)]
        row = torch.tensor(jets, dtype=x.dtype, device=x.device).flatten()
        return torch.cat([row.new_zeros(SHARED), row])

    def map(self, x: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        leptons, lepton_terms, reference = self._map_leptons(x[..., :SHARED])
        pt, eta, phi, mass = self._jets(x)
        above = pt - self.pt_min
        shape, shape_terms = _map_mass(mass, pt)
        if self.physical:
            y, y_terms = rapidity(pt, eta, mass)
            y = torch.cat([y[..., :1], y[..., 1:] - y[..., :1]], -1)
            size = torch.cat([pt[..., :1], above[..., 1:] / above[..., :-1]], -1)
            size_terms = torch.cat([torch.zeros_like(above[..., :1]), -above[..., :-1].log()], -1)
            angle = torch.cat([phi[..., :1] - reference, phi[..., 1:] - phi[..., :1]], -1)
            y, angle, arc_terms = close_holes(y, wrapped(angle), self.radius, self.polar)
        else:
            y, size, angle = eta, above.log(), wrapped(phi - reference)
            y_terms, size_terms, arc_terms = torch.zeros_like(eta), -size, torch.zeros_like(phi)
        angle, angle_terms = self._from_angle(angle)
        return _joined(leptons, [size, y, angle, shape]), _joined(
            lepton_terms, [size_terms, y_terms, arc_terms + angle_terms, shape_terms]
        )

    def unmap(self, u: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        leptons, lepton_terms, reference = self._unmap_leptons(u[..., :SHARED])
        size, y, angle, shape = self._jets(u)
        angle, angle_terms = self._to_angle(angle)
        if self.physical:
            above = torch.cumprod(torch.cat([size[..., :1] - self.pt_min, size[..., 1:]], -1), -1)
            size_terms = torch.cat([torch.zeros_like(above[..., :1]), above[..., :-1].log()], -1)
        else:
            above, size_terms = size.exp(), size
        # Rounding must not lead onto the cut, where there is no density.
        cut = torch.full_like(above, self.pt_min)
        pt = torch.maximum(self.pt_min + above, torch.nextafter(cut, torch.full_like(cut, torch.inf)))
        mass, shape_terms = _unmap_mass(shape, pt)
        if self.physical:
            y, angle, arc_terms = open_holes(y, angle, self.radius, self.polar)
            first = wrapped(angle[..., :1] + reference)
            phi = torch.cat([first, wrapped(angle[..., 1:] + first)], -1)
            y = torch.cat([y[..., :1], y[..., 1:] + y[..., :1]], -1)
            eta = torch.asinh(torch.hypot(pt, mass) * torch.sinh(y) / pt)
            y_terms = -rapidity(pt, eta, mass)[1]
        else:
            eta, phi = y, wrapped(angle + reference)
            y_terms = arc_terms = torch.zeros_like(y)
        return _joined(leptons, [pt, eta, phi, mass]), _joined(
            lepton_terms, [size_terms, y_terms, arc_terms + angle_terms, shape_terms]
        )

    def accepts(self, x: Tensor) -> Tensor:
        tolerance = 100 * torch.finfo(x.dtype).eps
        turn = math.pi * (1 + tolerance)
        pt, eta, phi, mass = self._jets(x)
        good_pt, good_phi = pt > self.pt_min, phi.abs() <= turn
        if self.physical:
            good_pt = good_pt & torch.cat([torch.ones_like(good_pt[..., :1]), pt[..., 1:] <= pt[..., :-1]], -1)
            alone = torch.full_like(pt[..., 0], torch.inf)  # no jet is before the first one
            nearest = torch.stack([alone, *(delta.amin(-1) for delta in separations(pt, eta, phi, mass))], -1)
            good_phi = good_phi & (nearest >= self.radius * (1 - tolerance))
        jets = [good_pt, torch.ones_like(good_pt), good_phi, mass > 0]
        good = torch.ones_like(x[..., :SHARED], dtype=torch.bool)
        leptons = torch.stack([x[..., 0] > 0, good[..., 1], x[..., 2].abs() <= turn], -1)
        leptons = torch.cat([leptons, torch.stack([x[..., 3] > 0, good[..., 4], x[..., 5].abs() <= turn], -1)], -1)
        return _joined(leptons, jets)

    def explain(self, x: Tensor) -> str:
        text = (
            f"Transverse momenta of jets must exceed pt_min = {self.pt_min:g} GeV, those of leptons 0, azimuths must "
            "be from -pi to pi, masses of jets positive"
        )
        if self.physical:
            text += (
                "; jets must be sorted by falling transverse momentum, and be farther apart than "
                f"radius = {self.radius:g} in rapidity and azimuth (anti-kT leaves 1 pair in 10^5 that is not)"
            )
        return f"{text}: leave these events out, see pg.events.separated_jets"

    def config(self) -> dict[str, Any]:
        numbers = {"most": self.layout.most, "least": self.layout.least}
        limits = {"pt_min": self.pt_min, "radius": self.radius, "lepton_mass": self.pair.lepton_mass}
        told = {"kind": self.kind, "coordinates": self.coordinates, **numbers, **limits}
        return told | {"circle": self.circle, "polar": self.polar}

    @classmethod
    def _from_config(cls, config: Mapping[str, Any]) -> Self:
        options = {name: config[name] for name in ("pt_min", "circle", "radius", "lepton_mass")}
        polar = config.get("polar", 0)  # not in older files
        return cls(config["coordinates"], config["most"], config["least"], **options, polar=polar)

    def _jets(self, rows: Tensor) -> tuple[Tensor, ...]:
        """The four columns of the jets, each ``[..., most]``."""
        return rows[..., SHARED:].unflatten(-1, (self.layout.most, EACH)).unbind(-1)

    def _map_leptons(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Coordinates of the leptons, terms of the log-Jacobian, and the azimuth ``[..., 1]`` that jets refer to."""
        pt, eta, phi = x.unflatten(-1, (2, 3)).unbind(-1)
        if not self.physical:
            angle, term = self._from_angle(wrapped(phi[..., 1:] - phi[..., :1]))
            azimuths = torch.cat([_turns(phi[..., :1]), angle], -1)
            terms = torch.stack([-pt.log().sum(-1) - LOG_TURN, term[..., 0]], -1)
            return torch.stack([pt.log(), eta, azimuths], -1).flatten(-2), _first(terms), phi[..., :1]
        momenta = torch.stack([pt * phi.cos(), pt * phi.sin(), pt * eta.sinh()], -1).flatten(-2)
        u, log_jacobian = self.pair.forward(momenta)
        log_jacobian = log_jacobian + (2 * pt.log() + eta.cosh().log()).sum(-1) - LOG_TURN
        angle, term = self._from_angle(u[..., 5:])
        columns = torch.cat([u[..., :3], _turns(u[..., 3:4]), u[..., 4:5], angle], -1)
        # Jets are opposite to the pair.
        return columns, _first(torch.stack([log_jacobian, term[..., 0]], -1)), u[..., 3:4] + math.pi

    def _unmap_leptons(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        angle, term = self._to_angle(u[..., 5:])
        if not self.physical:
            log_pt, eta, phi = u[..., (0, 3)], u[..., (1, 4)], 2 * math.pi * u[..., 2:3] - math.pi
            both = torch.cat([phi, wrapped(angle + phi)], -1)
            terms = torch.stack([log_pt.sum(-1) + LOG_TURN, term[..., 0]], -1)
            return torch.stack([log_pt.exp(), eta, both], -1).flatten(-2), _first(terms), phi
        phi = 2 * math.pi * u[..., 3:4] - math.pi
        momenta, log_jacobian = self.pair.inverse(torch.cat([u[..., :3], phi, u[..., 4:5], angle], -1))
        px, py, pz = momenta.unflatten(-1, (2, 3)).unbind(-1)
        pt = torch.hypot(px, py)
        eta = torch.asinh(pz / pt)
        log_jacobian = log_jacobian - (2 * pt.log() + eta.cosh().log()).sum(-1) + LOG_TURN
        leptons = torch.stack([pt, eta, torch.atan2(py, px)], -1).flatten(-2)
        return leptons, _first(torch.stack([log_jacobian, term[..., 0]], -1)), phi + math.pi

    def _from_angle(self, angle: Tensor) -> tuple[Tensor, Tensor]:
        """Angles from -pi to pi as parts of a turn, or on the line, and the log-derivative."""
        if self.circle:
            return _turns(angle), torch.full_like(angle, -LOG_TURN)
        edge = 1 - torch.finfo(angle.dtype).eps
        share = (angle / math.pi).clamp(-edge, edge)
        return torch.atanh(share), -math.log(math.pi) - torch.log1p(-share * share)

    def _to_angle(self, u: Tensor) -> tuple[Tensor, Tensor]:
        if self.circle:
            return 2 * math.pi * u - math.pi, torch.full_like(u, LOG_TURN)
        # log(1 - tanh^2) without the cancellation
        log_slope = 2 * (math.log(2) - u.abs() - torch.nn.functional.softplus(-2 * u.abs()))
        return math.pi * torch.tanh(u), math.log(math.pi) + log_slope


def _map_mass(mass: Tensor, pt: Tensor) -> tuple[Tensor, Tensor]:
    """u with ``sqrt(m / pT) = s log(1 + exp(u))``, and log(du/dm)."""
    root = (mass / pt).sqrt()
    t = root / MASS_SCALE
    log_rest = (-torch.expm1(-t)).log()
    return t + log_rest, root.log() - (2 * MASS_SCALE * mass).log() - log_rest


def _unmap_mass(u: Tensor, pt: Tensor) -> tuple[Tensor, Tensor]:
    root = MASS_SCALE * torch.nn.functional.softplus(u)
    log_slope = pt.log() + (2 * MASS_SCALE * root).log() + torch.nn.functional.logsigmoid(u)
    return pt * root * root, log_slope


def _turns(angle: Tensor) -> Tensor:
    """Angles from -pi to pi as parts of a turn, from 0 to 1."""
    return (angle + math.pi) / (2 * math.pi)


def _first(terms: Tensor) -> Tensor:
    """Terms of the leptons, of which all are there, as six columns."""
    return torch.nn.functional.pad(terms, (0, SHARED - terms.shape[-1]))


def _joined(leptons: Tensor, jets: Sequence[Tensor]) -> Tensor:
    """Rows of the columns of the leptons and those of the jets, each ``[..., most]``."""
    return torch.cat([leptons, torch.stack(list(jets), -1).flatten(-2)], -1)
