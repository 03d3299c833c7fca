"""From a generator's four-vectors to the columns of a lepton pair, checked, and back."""

from __future__ import annotations

import math

import numpy as np
import torch

from ..checks import BOOLEAN, NOT_NEGATIVE, TEXT, door, optional
from .doors import SAMPLE
from .kinematics import momenta, pair_momenta
from .sample import EventSample

RECOIL_COLUMNS = ("px_e+", "py_e+", "pz_e+", "px_e-", "py_e-", "pz_e-")
LEPTONS: dict[str, dict[str, int | tuple[int, ...]]] = {
    "e": {"e+": -11, "e-": 11},
    "mu": {"mu+": -13, "mu-": 13},
    "l": {"l+": (-11, -13), "l-": (11, 13)},
}
"""What to give ``read(particles=...)``: the pair of electrons, of muons, or of either."""
BALANCE = 1e-6  # of the pair's energy: what is left of balanced momenta written with seven digits


@door(sample=SAMPLE, plus=optional(TEXT), minus=optional(TEXT), recoil=BOOLEAN, lepton_mass=optional(NOT_NEGATIVE))
def lepton_pair(
    sample: EventSample,
    plus: str | None = None,
    minus: str | None = None,
    *,
    recoil: bool = False,
    lepton_mass: float | None = None,
) -> EventSample:
    """The columns by which a network learns a lepton pair.

    Args:
        sample: events with the columns ``px_<plus>``, ``py_<plus>``, ... of both leptons; or already in the columns
            that are asked for.
        plus: name of the positive lepton in the columns; None: the one that there is, of e+, mu+ and l+.
        minus: name of the negative one, likewise.
        recoil: keep all six momentum components. Without it the transverse momenta must balance, and four are left.
        lepton_mass: in GeV; None: as small as it is for electrons and muons, not checked.

    Returns:
        ``[N, 4]``, ``px, py, pz`` of l+ and ``pz`` of l-, or ``[N, 6]``; with weights and provenance.

    Raises:
        ValueError: columns are missing, or events do not fit: pairs that do not balance without ``recoil``, pairs that
            balance exactly with it, or masses that are not ``lepton_mass``. It says which event, why, and what does.
    """
    plus, minus = _names(sample, plus, minus)
    names = [f"{c}_{plus}" for c in ("px", "py", "pz")]
    names += [f"{c}_{minus}" for c in (("px", "py", "pz") if recoil else ("pz",))]
    both = all(f"{c}_{minus}" in sample.names for c in ("px", "py"))
    if not both:
        if recoil or any(name not in sample.names for name in names):
            momenta(sample, plus)
            momenta(sample, minus)  # one of them says what is missing
        return _columns(sample, names)
    p, q = momenta(sample, plus), momenta(sample, minus)
    if lepton_mass is not None:
        _check_mass(p, plus, lepton_mass)
        _check_mass(q, minus, lepton_mass)
    imbalance, balanced = _balance(p, q)
    if recoil:
        _check_recoil(balanced)
    elif not balanced.all():
        wrong = (~balanced).nonzero()[:, 0]
        first = int(wrong[0])
        raise ValueError(
            f"{len(wrong)} of {len(sample)} events have leptons whose transverse momenta do not balance: in event "
            f"{first} they sum to {float(imbalance[first]):.4g} GeV, so something else recoils (jets, photons or "
            "transverse momentum of the initial state). The four coordinates (px, py, pz of one lepton and pz of the "
            f"other) describe only pairs that balance. What fits: the {int(balanced.sum())} events that do "
            '(lepton_balance(sample) finds them; of an LHE file read(..., others="skip") leaves out those with other '
            "particles), or six dimensions for the others, lepton_pair(..., recoil=True)"
        )
    return _columns(sample, names)


@door(sample=SAMPLE, plus=optional(TEXT), minus=optional(TEXT))
def lepton_balance(sample: EventSample, plus: str | None = None, minus: str | None = None) -> np.ndarray:
    """A mask ``[N]`` of events whose leptons balance in the transverse plane; arguments as in :func:`lepton_pair`."""
    plus, minus = _names(sample, plus, minus)
    if f"px_{minus}" not in sample.names:
        return np.ones(len(sample), dtype=bool)  # four columns, of a pair that balances
    return _balance(momenta(sample, plus), momenta(sample, minus))[1].numpy()


@door(sample=SAMPLE)
def collision_energy(sample: EventSample) -> float | None:
    """Centre-of-mass energy of the beams in GeV, from the provenance of LHE files and Pythia; None: it does not say."""
    beams = sample.provenance.get("beams")
    if isinstance(beams, list) and len(beams) == 2 and all(isinstance(beam, dict) for beam in beams):
        energies = [float(beam.get("energy", 0)) for beam in beams]
        return 2 * math.sqrt(energies[0] * energies[1]) or None
    for setting in sample.provenance.get("settings", []):
        name, _, value = str(setting).partition("=")
        if name.strip() == "Beams:eCM":
            return float(value)
    return None


@door(sample=SAMPLE, lepton_mass=NOT_NEGATIVE)
def four_vectors(sample: EventSample, lepton_mass: float = 0.0) -> EventSample:
    """The inverse of :func:`lepton_pair`: all eight components of both four-vectors, for an analysis or an LHE file.

    Weights, uncertainties and log-weights are kept.
    """
    plus, minus = _names(sample, None, None)
    p, q = pair_momenta(sample, lepton_mass)
    names = [f"{component}_{lepton}" for lepton in (plus, minus) for component in ("px", "py", "pz", "E")]
    return EventSample(
        torch.cat([p, q], -1),
        names,
        ["GeV"] * 8,
        sample.weights,
        sample.uncertainties,
        sample.provenance,
        log_weights=sample.log_weights,
    )


def _balance(p: torch.Tensor, q: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Transverse momentum of the pairs in GeV, and whether it is none."""
    imbalance = torch.hypot(p[:, 0] + q[:, 0], p[:, 1] + q[:, 1])
    return imbalance, imbalance <= BALANCE * (p[:, 3] + q[:, 3])


def _columns(sample: EventSample, names: list[str]) -> EventSample:
    values = sample.select(names).values
    return EventSample(values, names, ["GeV"] * len(names), sample.weights, sample.uncertainties, sample.provenance)


def _names(sample: EventSample, plus: str | None, minus: str | None) -> tuple[str, str]:
    """The names of the leptons in the columns."""
    there = [lepton for lepton in LEPTONS if f"px_{lepton}+" in sample.names]
    if (plus is None or minus is None) and len(there) != 1:
        raise ValueError(
            f"the columns {', '.join(sample.names)} {'do not name' if not there else 'name more than'} one pair of "
            "leptons (px_e+, ..., px_mu+, ... or px_l+, ...); give plus and minus, or read the events with "
            "particles=pg.events.LEPTONS['l']"
        )
    return plus or f"{there[0]}+", minus or f"{there[0]}-"


def _check_recoil(balanced: torch.Tensor) -> None:
    if balanced.any():
        raise ValueError(
            f"{int(balanced.sum())} of {len(balanced)} events have no recoil: the transverse momenta of their leptons "
            f"balance exactly, the first is event {int(balanced.nonzero()[0])}. In six dimensions they lie on a "
            "surface without volume, and have no density there. Take the others, sample[~lepton_balance(sample)], and "
            "learn the balanced ones in four dimensions"
        )


def _check_mass(p: torch.Tensor, name: str, lepton_mass: float) -> None:
    squares = p[:, 3] ** 2 - p[:, :3].square().sum(-1)
    wrong = ((squares - lepton_mass**2).abs() > 1e-6 * p[:, 3] ** 2).nonzero()[:, 0]
    if len(wrong):
        first = int(wrong[0])
        found = float(squares[first].clamp(min=0).sqrt())
        raise ValueError(
            f"{len(wrong)} of {len(p)} events have an {name} that has not the mass {lepton_mass:.6g} GeV; the first "
            f"is event {first}, with {found:.6g} GeV. Give lepton_mass={found:.4g}"
        )
