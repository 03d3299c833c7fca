"""Coordinates of a lepton pair with jets in which a network learns easily, exact both ways, with their Jacobians.

An event is a row of ``Multiplicity(shared=6, each=4, most)``: transverse momentum (GeV), pseudorapidity and azimuth of
l+ and of l-, then transverse momentum, pseudorapidity, azimuth and mass of each jet, sorted by falling pT, NaN where no
jet is. :class:`LeptonsAndJets` turns it into physical coordinates, :func:`jet_coordinates` chains this with elementwise
maps and :class:`WhitenPerMultiplicity`. Densities stay those of the row, per GeV and so on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..checks import BOOLEAN, NATURAL, NOT_NEGATIVE, POSITIVE, SEED, door, one_of, optional, require
from ..printing import Brief
from .bijection import Bijection
from .composites import Chain, PaddedColumns
from .coordinates import RecoilingPair
from .elementwise import Probit, Squash
from .holes import arcs_of, close_arcs, open_arcs, rapidity, separations
from .jets import check_z_jets_order
from .kinematics import wrapped
from .multiplicity import Multiplicity
from .padded import PaddedBijection
from .power_law import PowerLaw
from .preprocessing import Identity
from .resonance import Resonance
from .sample import EventsLike, as_sample
from .whitening import WhitenPerMultiplicity

SHARED, EACH = 6, 4
LOG_TURN = math.log(2 * math.pi)
JET_COORDINATES = {
    "paper": (("log pT+", "eta+", "phi+", "log pT-", "eta-", "dphi-"), ("log pT", "eta", "dphi", "m")),
    "resonance": (("M", "y", "log qT", "phi_q", "eta*", "phi*"), ("pT", "y", "dphi", "m")),
}
"""Names of the coordinates of the leptons and of each jet, by kind."""
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
    """

    kind = "leptons_and_jets"
    fitted = True

    @door(kind=KIND, pt_min=NOT_NEGATIVE, circle=BOOLEAN, radius=NOT_NEGATIVE)
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
    ) -> None:
        super().__init__(Multiplicity(SHARED, EACH, most, least))
        self.coordinates, self.pt_min, self.circle, self.radius = kind, pt_min, circle, radius
        require(radius < 1.5, "radius", radius, "less than 1.5, so that azimuths are left")
        require(self.physical or radius == 0, "radius", radius, "0 for the coordinates of the paper")
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
        return [*leptons, *(f"{name}_j{j + 1}" for j in range(self.layout.most) for name in jet)]

    def filler(self, x: Tensor) -> Tensor:
        jet = torch.tensor([self.pt_min + 1.0, 0.0, 0.0, 1.0], dtype=x.dtype, device=x.device)
        return torch.cat([jet.new_zeros(SHARED), jet.repeat(self.layout.most)])

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
            angle, arc_terms = self._across_holes(close_arcs, y, wrapped(angle))
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
            angle, arc_terms = self._across_holes(open_arcs, y, angle)
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
        return {"kind": self.kind, "coordinates": self.coordinates, **numbers, **limits, "circle": self.circle}

    @classmethod
    def _from_config(cls, config: Mapping[str, Any]) -> Self:
        options = {name: config[name] for name in ("pt_min", "circle", "radius", "lepton_mass")}
        return cls(config["coordinates"], config["most"], config["least"], **options)

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

    def _across_holes(self, act: Any, y: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
        """Close or open the holes around earlier jets in the azimuths, relative to jet 1, of the jets from the second.

        ``y`` is the rapidity relative to jet 1, but of jet 1, whose place is the origin.
        """
        ys, angles = y.unbind(-1), list(angle.unbind(-1))
        origin = torch.zeros_like(ys[0])
        places, terms = [(origin, origin)], [origin]
        for j in range(1, self.layout.most if self.radius > 0 else 1):
            before = angles[j]
            angles[j], term = act(before, arcs_of(ys[j], places, self.radius))
            places.append((ys[j], before if act is close_arcs else angles[j]))
            terms.append(term)
        terms += [origin] * (self.layout.most - len(terms))
        return torch.stack(angles, -1), torch.stack(terms, -1)

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


@dataclass(frozen=True, repr=False)
class JetCoordinates(Brief):
    """What :func:`jet_coordinates` gives.

    Attributes:
        preprocessing: the bijection, for :class:`~pyrogen.BayesianFlow`.
        layout: of the rows, before and after.
        periodic: columns that are angles from 0 to 1, for the flow.
        uniform: the column that is an azimuth, uniform from 0 to 1 by symmetry, for the flow.
    """

    preprocessing: Bijection
    layout: Multiplicity
    periodic: tuple[int, ...]
    uniform: tuple[int, ...]

    def _summary(self) -> str:
        return f"{self.layout}, periodic={self.periodic}, uniform={self.uniform}"


@door(
    kind=KIND,
    most=NATURAL,
    least=SEED,
    pt_min=NOT_NEGATIVE,
    circle=BOOLEAN,
    radius=optional(NOT_NEGATIVE),
    mass_low=optional(POSITIVE),
)
def jet_coordinates(
    kind: str = "resonance",
    most: int = 3,
    least: int = 1,
    *,
    pt_min: float = 20.0,
    circle: bool = True,
    radius: float | None = None,
    lepton_mass: float = 0.0,
    mass_low: float | None = None,
) -> JetCoordinates:
    """The preprocessing of a lepton pair with jets, and what the flow has to know of it::

        coordinates = pg.events.jet_coordinates("resonance", most=3)
        flow = pg.MultiplicityFlow(
            **coordinates.layout.config(), periodic=coordinates.periodic, uniform=coordinates.uniform
        )
        model = pg.BayesianFlow(flow, preprocessing=coordinates.preprocessing)

    * ``"paper"``, arXiv:2110.13632 sec. 2: log pT of the leptons, log(pT - pt_min) of the jets, pseudorapidities,
      azimuths relative to l+, masses; whitened for each number of jets. The mass is told by sqrt(m / pT), which is
      nearly normal (the paper takes log m, with a long tail towards jets of one pion). Nothing knows the Z peak, the
      order of the jets or their distance.
    * ``"resonance"``: mass M, rapidity and transverse momentum qT of the pair and the angles of l+ in its rest frame
      (:class:`RecoilingPair`), with a fitted peak that makes M flat (:class:`Resonance`). The leading jet's pT is made
      flat by a fitted :class:`PowerLaw`; of each further jet the fraction (pT - pt_min) / (pT' - pt_min) of the one
      before is taken, so the order is exact. Jets have rapidity and azimuth, from the second jet on relative to the
      leading one; azimuths from which the discs Delta R < ``radius`` around earlier jets are cut out, so no generated
      jets are closer. All but angles is made nearly normal and whitened, rapidity differences standardised alone.

    *The distance of jets.* At fixed rapidities the allowed azimuths of a jet are a circle without arcs. Each arc is
    closed to a point by stretching the rest linearly (at most by pi / (pi - radius), 1.15), one after the other, also
    where discs overlap. The map is exact for any number of jets. In truth the density falls to zero at the edge of the
    disc; the network still has to learn this dip, now at a fixed point, and cannot put events beyond it. ``radius=0``
    leaves the hole to the network, which fills it in part: see :func:`separated_jets` and :func:`separation_weights`.

    Args:
        kind: ``"paper"`` or ``"resonance"``.
        most: largest number of jets; the last one may stand for more.
        least: smallest number of jets.
        pt_min: cut on their transverse momentum in GeV.
        circle: azimuths from 0 to 1 once around, ``periodic`` for the flow; otherwise ``artanh(dphi / pi)``, for affine
            flows. The first azimuth is always from 0 to 1.
        radius: of the jets, for ``"resonance"``; 0.4 if left out, 0 for none.
        lepton_mass: in GeV, for ``"resonance"``.
        mass_low: lower limit of the pair's mass in GeV, for ``"resonance"``, where the generator has a cut; by default
            just below the smallest mass of the training events.

    Raises:
        ValueError: an unknown kind, or numbers out of range or that do not belong to it.
    """
    physical = kind == "resonance"
    require(physical or radius in (None, 0), "radius", radius, "None for the coordinates of the paper")
    require(physical or mass_low is None, "mass_low", mass_low, "None for the coordinates of the paper")
    require(physical or lepton_mass == 0, "lepton_mass", lepton_mass, "0 for the coordinates of the paper")
    hole = (0.4 if physical else 0.0) if radius is None else radius
    rows = LeptonsAndJets(kind, most, least, pt_min=pt_min, circle=circle, radius=hole, lepton_mass=lepton_mass)
    layout, (uniform,) = rows.layout, UNIFORM[kind]
    azimuths = (5, *(layout.columns(j).start + 2 for j in range(most)))
    leave = (uniform, *azimuths) if circle else (uniform,)
    parts: list[Bijection] = [rows]
    differences: list[int] = []
    if physical:
        columns: list[Bijection] = [Identity() for _ in range(layout.features)]
        columns[0] = Chain([Resonance(mass_low), Probit()])
        columns[4] = Chain([Squash(0.0, 0.5), Probit()])
        for j in range(most):
            columns[layout.columns(j).start] = Probit() if j else Chain([PowerLaw(pt_min), Probit()])
        parts.append(PaddedColumns(layout, columns))
        differences = [layout.columns(j).start + 1 for j in range(1, most)]
    parts.append(WhitenPerMultiplicity(layout, leave, differences))
    return JetCoordinates(Chain(parts), layout, azimuths if circle else (), (uniform,))
