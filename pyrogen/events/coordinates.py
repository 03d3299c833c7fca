"""Coordinates of a lepton pair in which a network learns easily, exact both ways, with their Jacobians.

An event is the Cartesian momenta ``px(l+), py(l+), pz(l+), pz(l-)`` of two leptons of one mass whose transverse momenta
balance: four numbers (arXiv:2104.04543, sec. 4). :class:`LeptonPair` turns them into physical coordinates, the
elementwise maps :class:`Resonance`, :class:`BeamLimit`, :class:`Squash` and :class:`~pyrogen.events.UnitBox` turn
these into fractions of what is possible, and :class:`Probit` into numbers that are nearly normal.
:func:`lepton_pair_coordinates` chains them. Densities stay per GeV^4 of the Cartesian momenta.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..checks import BOOLEAN, POSITIVE, TEXT, door, is_number, optional, require
from .bijection import Bijection, FittedConstants, Fixed
from .composites import Chain, Columns
from .elementwise import Probit, Squash
from .kinematics import PAIR_COLUMNS
from .leptons import RECOIL_COLUMNS
from .preprocessing import Standardise, UnitBox
from .resonance import Resonance, beyond
from .sample import EventsLike, as_sample

COORDINATES = {
    "mass": ("M", "y", "eta*", "phi"),
    "log-pt": ("log pT", "y(l+)", "y(l-)", "phi"),
    "recoil": ("M", "y", "log qT", "phi_q", "eta*", "phi*"),
}
"""Names of the coordinates, by choice: of ``"mass"`` the invariant mass (GeV) and the rapidity of the pair and the
pseudorapidity of l+ in the pair's rest frame (``tanh(eta*) = cos(theta*)``); of ``"log-pt"`` the logarithm of the
transverse momentum (GeV) and the rapidities of the leptons; of both the azimuth of l+ in (-pi, pi]. ``"recoil"``:
:class:`RecoilingPair`."""
ON_THE_AXIS = 1e-8  # smallest pT over mass in the rest frame: less is rounding, also in float32
PERIODIC = {"mass": (3,), "log-pt": (3,), "recoil": (3, 5)}
"""Which of them are angles: what to give ``CouplingFlow(periodic=...)``."""


class LeptonPair(Fixed):
    """Cartesian momenta of a balanced lepton pair to ``"mass"`` or ``"log-pt"`` coordinates; nothing to fit.

    With mT^2 = pT^2 + m^2, y = asinh(pz / mT), M = 2 mT cosh((y+ - y-)/2) and p* = sqrt(M^2/4 - m^2) the Jacobians are
    ``|dx / d(M, y, eta*, phi)| = E+ E- pT^2 / p*`` and ``|dx / d(log pT, y+, y-, phi)| = E+ E- pT^2``. Rapidities keep
    the mass exact where pz cancels: the invariant mass of TeV leptons survives float32.

    Args:
        coordinates: ``"mass"`` or ``"log-pt"``.
        lepton_mass: mass of each lepton in GeV; 0 for electrons and muons at LHC energies.
    """

    kind = "lepton_pair"

    def __init__(self, coordinates: str = "mass", lepton_mass: float = 0.0) -> None:
        super().__init__()
        require(coordinates in ("mass", "log-pt"), "coordinates", coordinates, '"mass" or "log-pt"')
        self.coordinates, self.lepton_mass = coordinates, _checked_mass(lepton_mass)

    def renamed(self, names: Sequence[str]) -> Sequence[str]:
        return COORDINATES[self.coordinates]

    def explain(self, x: Tensor) -> str:
        return "Leptons along the beam (px = py = 0) have no azimuth and no finite rapidity: leave these events out"

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        px, py, pz_plus, pz_minus = _unbind(self, x)
        pt = torch.hypot(px, py)
        mt = torch.hypot(pt, torch.full_like(pt, self.lepton_mass))
        y_plus, y_minus = torch.asinh(pz_plus / mt), torch.asinh(pz_minus / mt)
        phi = torch.atan2(py, px)
        log_jacobian = -2 * pt.log() - _log_energies(mt, y_plus, y_minus)
        if self.coordinates == "log-pt":
            return torch.stack([pt.log(), y_plus, y_minus, phi], -1), log_jacobian
        half = (y_plus - y_minus) / 2
        pz_star = mt * torch.sinh(half)
        columns = [2 * mt * torch.cosh(half), (y_plus + y_minus) / 2, torch.asinh(pz_star / pt), phi]
        return torch.stack(columns, -1), log_jacobian + torch.hypot(pz_star, pt).log()

    def inverse(self, u: Tensor) -> tuple[Tensor, Tensor]:
        mass = self.lepton_mass
        if self.coordinates == "log-pt":
            log_pt, y_plus, y_minus, phi = _unbind(self, u)
            pt, log_p_star = log_pt.exp(), torch.zeros_like(log_pt)
            mt = torch.hypot(pt, torch.full_like(pt, mass))
        else:
            pair_mass, y, eta_star, phi = _unbind(self, u)
            p_star = ((pair_mass / 2 - mass) * (pair_mass / 2 + mass)).sqrt()
            pt = p_star / torch.cosh(eta_star)
            mt = torch.hypot(pt, torch.full_like(pt, mass))
            half = torch.asinh(p_star * torch.tanh(eta_star) / mt)
            y_plus, y_minus, log_p_star = y + half, y - half, p_star.log()
        log_jacobian = 2 * pt.log() + _log_energies(mt, y_plus, y_minus) - log_p_star
        momenta = [pt * torch.cos(phi), pt * torch.sin(phi), mt * torch.sinh(y_plus), mt * torch.sinh(y_minus)]
        return torch.stack(momenta, -1), log_jacobian

    def config(self) -> dict[str, Any]:
        return {"kind": self.kind, "coordinates": self.coordinates, "lepton_mass": self.lepton_mass}

    @classmethod
    def _from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(config["coordinates"], config["lepton_mass"])


class RecoilingPair(Fixed):
    """Cartesian momenta ``[N, 6]`` of a lepton pair that something recoils against, to physical coordinates.

    They are the mass M and rapidity y of the pair, log and azimuth of its transverse momentum qT, and the
    pseudorapidity and azimuth of l+ in the pair's rest frame (boosted along the beam, then along qT; its axes are the
    beam and qT). From two-body phase space,
    ``|d^6 p / d(M, y, log qT, phi_q, eta*, phi*)| = E+ E- p* qT^2 / cosh^2 eta*``.

    Args:
        lepton_mass: in GeV.
    """

    kind = "recoiling_pair"

    def __init__(self, lepton_mass: float = 0.0) -> None:
        super().__init__()
        self.lepton_mass = _checked_mass(lepton_mass)

    def renamed(self, names: Sequence[str]) -> Sequence[str]:
        return COORDINATES["recoil"]

    def explain(self, x: Tensor) -> str:
        return (
            "A lepton along the beam (px = py = 0), or a pair without transverse momentum, has no finite coordinates: "
            "leave these events out (a balanced pair has the four columns of pg.events.lepton_pair(sample))"
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        p, q = (_unbind(self, x)[i : i + 3] for i in (0, 3))
        m = torch.full_like(p[0], self.lepton_mass)
        mt = [torch.hypot(torch.hypot(k[0], k[1]), m) for k in (p, q)]
        rapidities = [torch.asinh(k[2] / t) for k, t in zip((p, q), mt, strict=True)]
        half = (rapidities[0] - rapidities[1]) / 2
        # In the frame of the mean rapidity nothing is large that cancels.
        y = sum(rapidities) / 2 + torch.atanh((mt[0] - mt[1]) / (mt[0] + mt[1]) * torch.tanh(half))
        product = mt[0] * mt[1]
        mass = (2 * m**2 + 2 * product * torch.cosh(2 * half) - 2 * (p[0] * q[0] + p[1] * q[1])).sqrt()
        qx, qy = p[0] + q[0], p[1] + q[1]
        qt = torch.hypot(qx, qy)
        pair_mt = torch.hypot(mass, qt)
        energy, pz = mt[0] * torch.cosh(rapidities[0] - y), mt[0] * torch.sinh(rapidities[0] - y)
        across, along = (p[1] * qx - p[0] * qy) / qt, (p[0] * qx + p[1] * qy) / qt
        along = (pair_mt * along - qt * energy) / mass
        # Rounding takes leptons onto the beam axis of this frame, where there is a density, but no pseudorapidity.
        pt = torch.hypot(along, across).maximum(ON_THE_AXIS * mass)
        log_jacobian = -_log_recoil(mt, rapidities, qt, torch.hypot(pt, pz), pt)
        columns = [mass, y, qt.log(), torch.atan2(qy, qx), torch.asinh(pz / pt), torch.atan2(across, along)]
        return torch.stack(columns, -1), log_jacobian

    def inverse(self, u: Tensor) -> tuple[Tensor, Tensor]:
        mass, y, log_qt, phi_q, eta, phi = _unbind(self, u)
        qt = log_qt.exp()
        p_star = ((mass / 2 - self.lepton_mass) * (mass / 2 + self.lepton_mass)).sqrt()
        pt, pz = p_star / torch.cosh(eta), p_star * torch.tanh(eta)
        pair_mt = torch.hypot(mass, qt)
        momenta, mts, rapidities = [], [], []
        for sign in (1, -1):
            across, along = sign * pt * torch.sin(phi), sign * pt * torch.cos(phi)
            along = (pair_mt * along + qt * mass / 2) / mass
            momenta += [along * torch.cos(phi_q) - across * torch.sin(phi_q)]
            momenta += [along * torch.sin(phi_q) + across * torch.cos(phi_q)]
            mts.append(torch.hypot(torch.hypot(along, across), torch.full_like(along, self.lepton_mass)))
            rapidities.append(y + torch.asinh(sign * pz / mts[-1]))
            momenta.append(mts[-1] * torch.sinh(rapidities[-1]))
        return torch.stack(momenta, -1), _log_recoil(mts, rapidities, qt, p_star, pt)

    def config(self) -> dict[str, Any]:
        return {"kind": self.kind, "lepton_mass": self.lepton_mass}

    @classmethod
    def _from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(config["lepton_mass"])


def _log_recoil(mt: Sequence[Tensor], rapidities: Sequence[Tensor], qt: Tensor, p_star: Tensor, pt: Tensor) -> Tensor:
    """log(E+ E- p* qT^2 / cosh^2 eta*) with cosh eta* = p* / pT."""
    energies = sum(t.log() + torch.cosh(y).log() for t, y in zip(mt, rapidities, strict=True))
    return energies + 2 * qt.log() + 2 * pt.log() - p_star.log()


def _checked_mass(lepton_mass: float) -> float:
    good = is_number(lepton_mass) and 0 <= lepton_mass < math.inf
    require(good, "lepton_mass", lepton_mass, "zero or a mass in GeV")
    return float(lepton_mass)


def _log_energies(mt: Tensor, y_plus: Tensor, y_minus: Tensor) -> Tensor:
    """log(E+ E-) of E = mT cosh y."""
    return 2 * mt.log() + torch.cosh(y_plus).log() + torch.cosh(y_minus).log()


def _unbind(bijection: Bijection, x: Tensor) -> tuple[Tensor, ...]:
    """The columns of events, checked."""
    columns = PAIR_COLUMNS if isinstance(bijection, LeptonPair) else RECOIL_COLUMNS
    if not x.is_floating_point():
        raise ValueError(f"{type(bijection).__name__} needs floating-point events; got {x.dtype}")
    if x.shape[-1] != len(columns):
        recoil = "" if isinstance(bijection, LeptonPair) else ", recoil=True"
        raise ValueError(
            f"{type(bijection).__name__} needs the {len(columns)} columns {', '.join(columns)}; got events of shape "
            f"{list(x.shape)}. Make them with pg.events.lepton_pair(sample{recoil})"
        )
    return x.unbind(-1)


class BeamLimit(FittedConstants):
    """Mass and rapidity ``(M, y, ...)`` to ``(M / (1 - (M/s)^4)^(1/4), y / log(s/M), ...)`` with s the beams' energy.

    Momentum fractions ``x = M e^(+-y) / s`` of the partons do not exceed one: the mass ends at s, the rapidity at
    ``log(s/M)``, of which the fraction in (-1, 1) is given. Without these limits a network that gives one event in a
    thousand too large a rapidity gives it an energy far beyond that of the beams. Masses well below s do not change.

    Args:
        energy: centre-of-mass energy of the beams in GeV; fitted if left out: a little above the largest M e^|y|.
    """

    kind = "beam_limit"
    constants = ("energy",)
    start = (1.0,)
    condition = "energy must be positive"
    energy: Tensor

    @door(energy=optional(POSITIVE))
    def __init__(self, energy: float | None = None) -> None:
        super().__init__()
        if energy is not None:
            self._set([float(energy)])

    def fit(self, events: EventsLike, weights: ArrayLike | Tensor | None = None) -> Self:
        values = as_sample(events, weights).values
        if not (values[:, 0] > 0).all():
            row = int(values[:, 0].argmin())
            raise ValueError(
                f"masses must be positive; the smallest is {values[row, 0]:.6g} (row {row}): leave these events out"
            )
        self._set([beyond(values[:, 0] * np.exp(np.abs(values[:, 1])))])
        return self

    def valid(self, *constants: Tensor) -> Tensor:
        return constants[0] > 0

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mass, y, rest, energy = self._split(x)
        if not self.fitted:
            return x, x.new_zeros(x.shape[:-1])
        # Masses at the limit count as the largest below.
        power = (mass / energy).pow(4).clamp(max=1 - 2 * torch.finfo(x.dtype).eps)
        room = -power.log() / 4
        stretch = -torch.log1p(-power) / 4
        # So do rapidities that rounding has put beyond it.
        free = torch.cat([mass * stretch.exp(), (y / room).clamp(-1, 1), *rest], -1)
        return free, (5 * stretch - room.log())[..., 0]

    def inside(self, x: Tensor) -> Tensor:
        mass, y, rest, energy = self._split(x)
        if not self.fitted:
            return super().inside(x)
        largest = energy * (1 + 100 * torch.finfo(x.dtype).eps)
        fits = (mass > 0) & (mass * y.abs().exp() <= largest)
        return torch.cat(
            [fits & (mass <= largest), fits, *(torch.ones_like(part, dtype=torch.bool) for part in rest)], -1
        )

    def explain(self, x: Tensor) -> str:
        reached = float((x[:, 0] * x[:, 1].abs().exp()).max())
        return (
            f"M e^|y| cannot exceed the energy of the beams, {float(self.energy):.6g} GeV, but reaches {reached:.6g} "
            "GeV: give the centre-of-mass energy (in GeV, like the events), or leave it out to fit it"
        )

    def inverse(self, u: Tensor) -> tuple[Tensor, Tensor]:
        free, fraction, rest, energy = self._split(u)
        if not self.fitted:
            return u, u.new_zeros(u.shape[:-1])
        shrink = torch.log1p((free / energy).pow(4)) / 4
        # log(energy / M) without the cancellation near the limit
        room = torch.log1p((energy / free).pow(4)) / 4
        x = torch.cat([free * (-shrink).exp(), fraction * room, *rest], -1)
        return x, (room.log() - 5 * shrink)[..., 0]

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, list[Tensor], Tensor]:
        if not x.is_floating_point() or x.shape[-1] < 2:
            raise ValueError(f"BeamLimit needs floating-point columns M, y, ...; got {x.dtype} {list(x.shape)}")
        return x[..., :1], x[..., 1:2], [x[..., 2:]], self.energy.to(x.dtype)


@door(coordinates=TEXT, circle=BOOLEAN, mass_low=optional(POSITIVE), energy=optional(POSITIVE))
def lepton_pair_coordinates(
    coordinates: str = "mass",
    *,
    circle: bool = True,
    lepton_mass: float = 0.0,
    mass_low: float | None = None,
    energy: float | None = None,
) -> Bijection:
    """The preprocessing of a lepton pair, to be given to :class:`~pyrogen.BayesianFlow`.

    * ``"cartesian"``: the momenta as they are, standardised ([A] sec. 4).
    * ``"log-pt"``: log pT and the two rapidities, standardised, and the azimuth.
    * ``"mass"``: mass, rapidity, angle in the rest frame and azimuth of a balanced pair. The distribution function of a
      fitted Breit-Wigner and power law flattens the mass, so that the Z peak is no peak any more; rapidities end where
      the energy of the beams does, and angles where they must.
    * ``"recoil"``: the same for the six columns of a pair with recoil, with log and azimuth of its transverse momentum.

    Everything but angles is made roughly standard normal.

    Args:
        coordinates: one of these four.
        circle: azimuths from 0 to 1 once around: give the flow ``periodic=PERIODIC[coordinates]``. Otherwise they are
            cut at pi and put on the line, for affine flows.
        lepton_mass: in GeV.
        mass_low: lower limit of the pair's mass in GeV, where the generator has a cut; by default just below the
            smallest mass of the training events. Events below have no density.
        energy: centre-of-mass energy in GeV; by default just above the largest M e^|y| of the training events.

    Raises:
        ValueError: unknown coordinates, or limits that do not belong to them.
    """
    require(
        coordinates in ("cartesian", *COORDINATES), "coordinates", coordinates, f"cartesian, {', '.join(COORDINATES)}"
    )
    if coordinates in ("cartesian", "log-pt"):
        require(mass_low is None and energy is None, "mass_low, energy", (mass_low, energy), f"None for {coordinates}")
    if coordinates == "cartesian":
        return Standardise()
    physical = RecoilingPair(lepton_mass) if coordinates == "recoil" else LeptonPair(coordinates, lepton_mass)
    columns: list[Bijection] = [Standardise() for _ in COORDINATES[coordinates]]
    for index in PERIODIC[coordinates]:
        angle = UnitBox([-math.pi], [math.pi])
        columns[index] = angle if circle else Chain([angle, Probit()])
    if coordinates == "log-pt":
        return Chain([physical, Columns(columns)])
    columns[0] = Chain([Resonance(mass_low), Probit()])
    columns[1] = Chain([UnitBox([-1.0], [1.0]), Probit(), Standardise()])
    columns[-2] = Chain([Squash(0.0, 0.5), Probit()])
    return Chain([physical, BeamLimit(energy), Columns(columns)])
