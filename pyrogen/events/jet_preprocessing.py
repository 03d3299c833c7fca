"""The preprocessing of a lepton pair with jets, made of :class:`LeptonsAndJets`, elementwise maps and a whitening."""

from __future__ import annotations

from dataclasses import dataclass

from ..checks import BOOLEAN, NATURAL, NOT_NEGATIVE, POSITIVE, SEED, door, optional, require
from ..printing import Brief
from .bijection import Bijection
from .composites import Chain, PaddedColumns
from .elementwise import Positive, Probit, Squash
from .jet_variables import KIND, UNIFORM, LeptonsAndJets
from .multiplicity import Multiplicity
from .power_law import PowerLaw
from .preprocessing import Identity
from .resonance import Resonance
from .whitening import WhitenPerMultiplicity


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
    polar=SEED,
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
    polar: int = 0,
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

    With ``polar=1`` rapidity and azimuth of the second jet are told by Delta R and the direction theta from the leading
    jet, ``(dy, dphi) = Delta R (cos(theta), sin(theta))``. The edge at R is then the lower limit of a column
    (:class:`Positive`), and sharp whatever the network learns. Directions with ``|dphi| > pi`` are closed. ``polar=2``
    does so for the third jet too, and so on; arcs in the discs around the jets between are closed, which are still
    edges for the network. (With six jets in such coordinates it happens that no direction is left; then the generated
    jet is too close to another, and its density is zero.) In a study ``polar=1`` was best: with
    ``polar=2`` pseudorapidities of the third jet were off (docs/z_jets.md).

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
        polar: how many jets from the second on are told by distance and direction, for ``"resonance"``.

    Raises:
        ValueError: an unknown kind, or numbers out of range or that do not belong to it.
    """
    physical = kind == "resonance"
    require(physical or radius in (None, 0), "radius", radius, "None for the coordinates of the paper")
    require(physical or mass_low is None, "mass_low", mass_low, "None for the coordinates of the paper")
    require(physical or lepton_mass == 0, "lepton_mass", lepton_mass, "0 for the coordinates of the paper")
    hole = (0.4 if physical else 0.0) if radius is None else radius
    rows = LeptonsAndJets(
        kind, most, least, pt_min=pt_min, circle=circle, radius=hole, lepton_mass=lepton_mass, polar=polar
    )
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
        for j in range(1, min(most, 1 + polar)):
            columns[layout.columns(j).start + 1] = Positive(hole)
        parts.append(PaddedColumns(layout, columns))
        differences = [layout.columns(j).start + 1 for j in range(1, most)]
    parts.append(WhitenPerMultiplicity(layout, leave, differences))
    return JetCoordinates(Chain(parts), layout, azimuths if circle else (), (uniform,))
