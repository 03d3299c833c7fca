"""From the particles of simulated events to two muons and jets: who comes from the Z, and anti-kT (arXiv:0802.1189).

Particles are an awkward array of Pythia's event records, ``N * var`` particles with the fields ``id`` (PDG),
``status`` (positive in the final state), ``mother1`` (row of the mother) and ``p`` (``px, py, pz, e`` in GeV).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..signals import uninterrupted
from .containers import Table, check_same_order
from .multiplicity import Multiplicity

MUON, Z = 13, 23
_NEUTRINOS = (12, 14, 16)
_COMPONENTS = ("px", "py", "pz", "e")
_LONGEST_LINE = 100  # copies of one muon in an event record, at most


def z_jets_layout(most: int = 3) -> Multiplicity:
    """Two muons (pT, eta, phi) and one to ``most`` jets (pT, eta, phi, m)."""
    return Multiplicity(6, 4, most)


def z_jets_columns(most: int = 3) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names and units of the columns."""
    names = [f"{quantity}_{muon}" for muon in ("mu+", "mu-") for quantity in ("pt", "eta", "phi")]
    names += [f"{quantity}_j{j}" for j in range(1, most + 1) for quantity in ("pt", "eta", "phi", "m")]
    units = {"pt": "GeV", "eta": "", "phi": "rad", "m": "GeV"}
    return tuple(names), tuple(units[name.partition("_")[0]] for name in names)


def check_z_jets_order(names: Sequence[str] | None, most: int) -> None:
    """Raise a ValueError where columns have the names of :func:`z_jets_columns` in another order."""
    nothing = np.empty((0, 0))
    given = Table(nothing, None if names is None else tuple(names))
    check_same_order("the sample", given, "Z + jets", Table(nothing, z_jets_columns(most)[0]))


def z_jets_rows(
    particles: Any, pt_min: float, radius: float, most: int, mass_min: float
) -> tuple[np.ndarray, np.ndarray]:
    """The events with at least one jet as rows of :func:`z_jets_layout`, and the number of jets of all events.

    Args:
        particles: the events.
        pt_min: smallest transverse momentum of a jet, in GeV.
        radius: R of the anti-kT algorithm.
        most: jets that a row has room for; of more the hardest are kept.
        mass_min: smallest mass of the two muons, in GeV.

    Returns:
        Rows ``[M, 6 + 4 most]`` and the full numbers of jets ``[N]``, 0 too where the mass is too small.

    Raises:
        RuntimeError: an event without exactly one mu+ and one mu- from the Z.
    """
    with uninterrupted():
        import awkward as ak
    muons, where = decay_muons(particles)
    jets = cluster(visible_without(particles, where), pt_min, radius)
    counts = np.where(_mass(muons.sum(1)) > mass_min, ak.to_numpy(ak.num(jets)), 0)
    rows = np.full((len(counts), z_jets_layout(most).features), np.nan)
    for i in range(2):
        rows[:, 3 * i : 3 * i + 3] = _pt_eta_phi_m(muons[:, i])[:, :3]
    padded = ak.pad_none(jets, most, clip=True)
    for j in range(most):
        momenta = [ak.to_numpy(ak.fill_none(padded[name][:, j], np.nan)) for name in ("px", "py", "pz", "E")]
        rows[:, z_jets_layout(most).columns(j)] = _pt_eta_phi_m(np.stack(momenta, -1))
    return rows[counts > 0], counts


def decay_muons(particles: Any) -> tuple[np.ndarray, np.ndarray]:
    """mu+ and mu- from the Z, found by their mothers: a muon of a hadron's decay is none.

    Returns:
        Four-vectors ``[N, 2, 4]`` (px, py, pz, E), mu+ first, and the rows of both in their events, ``[N, 2]``.

    Raises:
        RuntimeError: an event without exactly one of each.
    """
    with uninterrupted():
        import awkward as ak
    kind = abs(particles.id)
    index = ak.local_index(particles.id)[(particles.status > 0) & (kind == MUON)]
    mother = particles.mother1[index]
    for _ in range(_LONGEST_LINE):
        copies = kind[mother] == MUON
        if not ak.any(copies):
            break
        mother = ak.where(copies, particles.mother1[mother], mother)
    index = index[particles.id[mother] == Z]
    muons = particles[index]
    momenta, rows = [], []
    for sign, name in ((-MUON, "mu+"), (MUON, "mu-")):
        chosen = muons.id == sign
        numbers = ak.to_numpy(ak.sum(chosen, axis=1))
        if (numbers != 1).any():
            wrong = numbers[numbers != 1][0]
            raise RuntimeError(f"every event must have one {name} from the Z; Pythia made one with {wrong}")
        momenta.append(np.stack([ak.to_numpy(muons.p[chosen][name][:, 0]) for name in _COMPONENTS], -1))
        rows.append(ak.to_numpy(index[chosen][:, 0]))
    return np.stack(momenta, 1), np.stack(rows, 1)


def visible_without(particles: Any, where: np.ndarray) -> Any:
    """Momenta of the final particles but the neutrinos and those in the rows ``where [N, k]`` of their events."""
    with uninterrupted():
        import awkward as ak
    keep, index, kind = particles.status > 0, ak.local_index(particles.id), abs(particles.id)
    for row in where.T:
        keep = keep & (index != row)
    for neutrino in _NEUTRINOS:
        keep = keep & (kind != neutrino)
    p = particles[keep].p
    return ak.zip({"px": p.px, "py": p.py, "pz": p.pz, "E": p.e}, with_name="Momentum4D")


def cluster(momenta: Any, pt_min: float, radius: float) -> Any:
    """Jets of the anti-kT algorithm (E scheme), the hardest first: ``N * var`` with ``px, py, pz, E`` in GeV."""
    with uninterrupted():
        import awkward as ak
        import fastjet
    definition = fastjet.JetDefinition(fastjet.antikt_algorithm, radius)
    jets = fastjet.ClusterSequence(momenta, definition).inclusive_jets(pt_min)
    return jets[ak.argsort(np.hypot(jets.px, jets.py), axis=1, ascending=False)]


def _mass(p: np.ndarray) -> np.ndarray:
    px, py, pz, energy = p.T
    return np.sqrt(np.maximum(energy**2 - px**2 - py**2 - pz**2, 0))


def _pt_eta_phi_m(p: np.ndarray) -> np.ndarray:
    px, py, pz, _ = p.T
    pt = np.hypot(px, py)
    return np.stack([pt, np.arcsinh(pz / pt), np.arctan2(py, px), _mass(p)], -1)
