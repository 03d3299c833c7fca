"""Drell-Yan events from Pythia 8: pp → Z/γ* → e⁺e⁻ at 13 TeV, leading order (arXiv:2104.04543, sec. 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..checks import BOOLEAN, check_memory, door, require, require_extra, whole
from ..progress import bar
from ..signals import uninterrupted
from .kinematics import PAIR_COLUMNS
from .sample import EventSample

SETTINGS = (
    "Beams:eCM = 13000",
    "PDF:pSet = 13",  # NNPDF2.3 QED LO, α_s(M_Z) = 0.130
    "WeakSingleBoson:ffbar2gmZ = on",
    "WeakZ0:gmZmode = 0",  # Z, γ* and their interference
    "23:onMode = off",
    "23:onIfAny = 11",
    "PhaseSpace:mHatMin = 50",
    "PartonLevel:all = off",
    "HadronLevel:all = off",
)
"""The physics settings; the seed is added to them."""

MAX_SEED = 900_000_000  # Pythia's own; 0 would take the clock
_MAX_FAILURES = 100  # in a row; Pythia fails on single events at times
_BALANCE = 1e-6  # GeV


@door(n=whole(1), seed=whole(1), progress=BOOLEAN)
def drell_yan(n: int, seed: int = 1, progress: bool = True) -> EventSample:
    """Generate Drell-Yan events with Pythia 8.

    The two transverse momenta balance and the electron mass is negligible, so four momentum components
    describe an event: px(e⁻) = −px(e⁺), py(e⁻) = −py(e⁺), ``E = |p|``.

    Args:
        n: number of events.
        seed: of Pythia's random numbers, 1 to 900,000,000; the same seed gives the same events, and fewer of
            them are the first ones of more.
        progress: show a progress bar.

    Returns:
        Unweighted events ``[n, 4]`` in GeV, columns ``px_e+, py_e+, pz_e+, pz_e-``. The provenance holds the
        version, the settings, the seed and the cross section in pb.

    Raises:
        ValueError: ``n`` is below 1 or the seed is out of range.
        ImportError: Pythia is not installed.
        RuntimeError: Pythia refuses a setting, does not start, or makes events that are not of this kind.
    """
    require(seed <= MAX_SEED, "seed", seed, f"at most {MAX_SEED}, the largest of Pythia's seeds")
    check_memory("n", n, 32.0 * n, "generate fewer at a time, with other seeds")
    require_extra("pythia8mc", "pythia", "drell_yan")
    settings = [*SETTINGS, *seed_settings(seed)]
    generator = started(settings)
    values = np.empty((n, 4))
    with bar(n, "Drell-Yan", " events", show=progress) as shown:
        for row in values:
            failures = 0
            while not generator.next():
                failures += 1
                if failures == _MAX_FAILURES:
                    raise RuntimeError(f"Pythia failed on {failures} events in a row")
            row[:] = _momenta(generator.process)
            shown.update()

    info = generator.infoPython()  # a snapshot, so taken at the end
    provenance = {
        "process": "p p -> Z/gamma* -> e+ e- at 13 TeV, leading order, m(e+ e-) > 50 GeV, NNPDF2.3 QED LO",
        "generator": "Pythia",
        "version": f"{generator.settings.parm('Pythia:versionNumber'):.3f}",
        "settings": settings,
        "seed": seed,
        "beams": [{"pdg": 2212, "energy": 6500.0}] * 2,
        "cross_section_pb": info.sigmaGen() * 1e9,  # Pythia counts in mb
        "cross_section_error_pb": info.sigmaErr() * 1e9,
    }
    return EventSample(values, PAIR_COLUMNS, ("GeV",) * 4, provenance=provenance)


def seed_settings(seed: int) -> list[str]:
    """The settings for a seed, 1 to 900,000,000."""
    return ["Random:setSeed = on", f"Random:seed = {seed}"]


def started(settings: Sequence[str]) -> Any:
    """A Pythia that is ready to generate.

    Raises:
        RuntimeError: it does not know a setting, or does not start.
    """
    with uninterrupted():
        import pythia8mc
    generator = pythia8mc.Pythia("", False)  # no banner
    for setting in ["Print:quiet = on", *settings]:
        if not generator.readString(setting):
            raise RuntimeError(f"Pythia does not know the setting {setting!r}; pyrogen is tested with 8.317")
    if not generator.init():
        raise RuntimeError("Pythia did not start with these settings: " + "; ".join(settings))
    return generator


def _momenta(record: object) -> tuple[float, float, float, float]:
    """px, py, pz of the positron and pz of the electron from the record of the hard process."""
    leptons = {particle.id(): particle for particle in record if particle.isFinal()}  # type: ignore[attr-defined]
    if leptons.keys() != {11, -11}:
        raise RuntimeError(f"expected one e+ and one e- in the final state; Pythia made particles {sorted(leptons)}")
    electron, positron = leptons[11], leptons[-11]
    imbalance = max(abs(electron.px() + positron.px()), abs(electron.py() + positron.py()))
    if imbalance > _BALANCE:
        raise RuntimeError(f"e+ and e- do not balance in the transverse plane: {imbalance} GeV are left over")
    return positron.px(), positron.py(), positron.pz(), electron.pz()
