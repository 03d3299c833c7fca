"""Large jets and what is in them: the two hardest of an event, their masses, and their N-subjettiness.

N-subjettiness (arXiv:1011.2268) of a jet with constituents k and N axes, with beta = 1:

    tau_N = sum_k pT_k min(dR_1k, ..., dR_Nk) / (R sum_k pT_k)

where dR is the distance in rapidity and azimuth. The axes are those of N exclusive kT subjets in the winner-take-all
scheme (arXiv:1401.2158, sec. 3), without further minimisation. A jet of at most N constituents has tau_N = 0.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..signals import uninterrupted

ETA_MAX = 2.5  #: Jets have smaller |eta|.
_COMPONENTS = ("px", "py", "pz", "E")
_WIDE = 1000.0  # R of kT that puts all constituents of a jet into one; it has no effect on exclusive jets


def two_hardest(momenta: Any, radius: float) -> tuple[NDArray[np.int64], NDArray[np.float64], Any]:
    """The two hardest anti-kT jets of each event (E scheme, |eta| < 2.5), the harder one first.

    Args:
        momenta: of the particles, an awkward array ``N * var * {px, py, pz, E}`` in GeV.
        radius: R of anti-kT.

    Returns:
        The numbers ``[M]`` of the events that have two jets, the jets ``[M, 2, 4]`` (px, py, pz, E in GeV), and their
        constituents, an awkward array ``M * 2 * var * {px, py, pz, E}``.
    """
    with uninterrupted():
        import awkward as ak
        import fastjet
    sequence = fastjet.ClusterSequence(momenta, fastjet.JetDefinition(fastjet.antikt_algorithm, radius))
    jets, members = sequence.inclusive_jets(), sequence.constituent_index()
    pt = np.hypot(jets.px, jets.py)
    central = abs(jets.pz) < np.sinh(ETA_MAX) * pt
    order = ak.argsort(ak.where(central, pt, -1.0), axis=1, ascending=False)[:, :2]
    found = ak.to_numpy(ak.sum(central, axis=1)) > 1
    events = np.flatnonzero(found)
    order = order[found]
    chosen = jets[found][order]
    table = np.stack([_table(chosen[name], 2) for name in _COMPONENTS], -1)
    members = members[found][order]
    return events, table, ak.concatenate([momenta[found][members[:, i]][:, np.newaxis] for i in range(2)], axis=1)


def masses(jets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Masses of jets ``[..., 4]`` (px, py, pz, E); 0 where rounding makes their square negative."""
    momentum = (jets[..., :3] ** 2).sum(-1)
    return np.sqrt(np.maximum(jets[..., 3] ** 2 - momentum, 0))


def subjettiness(constituents: Any, axes: int, radius: float) -> NDArray[np.float64]:
    """tau_N of jets with N ``axes``, see above.

    Args:
        constituents: an awkward array ``M * var * {px, py, pz, E}``.
        axes: N.
        radius: R, which only sets the scale.

    Returns:
        ``[M]``.
    """
    with uninterrupted():
        import awkward as ak
        import fastjet
    found = np.zeros(len(constituents))
    many = ak.to_numpy(ak.num(constituents)) > axes
    if not many.any():
        return found
    inside = constituents[many]
    kt = fastjet.JetDefinition(fastjet.kt_algorithm, _WIDE, fastjet.WTA_pt_scheme)
    sequence = fastjet.ClusterSequence(inside, kt)
    with _quiet():
        subjets = sequence.exclusive_jets(n_jets=axes)
    numbers = ak.to_numpy(ak.num(inside))
    pt, y, phi = (ak.to_numpy(ak.flatten(part)) for part in _pt_y_phi(inside))
    _, axis_y, axis_phi = (np.repeat(_table(part, axes), numbers, axis=0) for part in _pt_y_phi(subjets))
    turn = np.abs(phi[:, None] - axis_phi)
    distance = np.hypot(y[:, None] - axis_y, np.minimum(turn, 2 * np.pi - turn)).min(1)
    first = np.concatenate([[0], np.cumsum(numbers)[:-1]])
    found[many] = np.add.reduceat(pt * distance, first) / (radius * np.add.reduceat(pt, first))
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the warning that fastjet gives for exclusive jets of every algorithm, and with Python's own format of
    warnings afterwards, which it replaces."""
    form = warnings.formatwarning
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        warnings.formatwarning = form


def _pt_y_phi(p: Any) -> tuple[Any, Any, Any]:
    """Transverse momentum, rapidity and azimuth."""
    pt = np.hypot(p.px, p.py)
    return pt, np.arcsinh(p.pz / np.sqrt(np.maximum(p.E**2 - p.pz**2, 1e-24))), np.arctan2(p.py, p.px)


def _table(lists: Any, width: int) -> NDArray[np.float64]:
    with uninterrupted():
        import awkward as ak
    return np.asarray(ak.to_numpy(ak.to_regular(lists, axis=1)), dtype=np.float64).reshape(-1, width)
