"""Z + jets from Pythia 8 and fastjet: p p -> Z/gamma* -> mu+ mu- with one or more jets (arXiv:2110.13632, sec. 2)."""

from __future__ import annotations

import functools
import itertools
import math
import operator
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from ..checks import BOOLEAN, PATH, POSITIVE, SEED, check_memory, check_settings, door, require_extra, whole
from ..files import target_of
from ..progress import Bar, bar
from ..seeds import stream
from .format import check_loss, format_of
from .jets import z_jets_columns, z_jets_layout, z_jets_rows
from .parts import PartsFolder
from .pythia import MAX_SEED, seed_settings, started
from .sample import EventSample
from .writing import EventWriter

EXTRAS = "pythia,fastjet"
PDF = "NNPDF2.3 QED LO"
MASS_MIN = 50.0  # of the muon pair, in GeV
BLOCK = 50_000  # generated events that share a seed of Pythia
MILLIBARN = 1e9  # pb; Pythia counts in mb
BATCH = 500  # generated events in memory at a time; the events do not depend on it
_VERSION = 1  # of what a seed means
_OFF = ("TimeShower:QEDshowerByL", "TimeShower:QEDshowerByQ", "SpaceShower:QEDshowerByL", "SpaceShower:QEDshowerByQ")


@dataclass(frozen=True)
class Process:
    """What decides the events of a seed; the arguments of :func:`z_jets`."""

    underlying_event: bool = False
    energy: float = 13000.0
    pt_min: float = 20.0
    radius: float = 0.4
    jets: int = 3

    def __post_init__(self) -> None:
        check_settings(self, underlying_event=BOOLEAN, energy=POSITIVE, pt_min=POSITIVE, radius=POSITIVE, jets=whole(1))

    def settings(self) -> list[str]:
        """Those of Pythia, without a seed."""
        return [
            f"Beams:eCM = {self.energy:.12g}",
            "PDF:pSet = 13",  # NNPDF2.3 QED LO
            "WeakSingleBoson:ffbar2gmZ = on",
            "WeakZ0:gmZmode = 0",  # Z, gamma* and their interference
            "23:onMode = off",
            "23:onIfAny = 13",
            f"PhaseSpace:mHatMin = {MASS_MIN:g}",
            f"PartonLevel:MPI = {'on' if self.underlying_event else 'off'}",
            *(f"{shower} = off" for shower in _OFF),  # no photon jets, and muons as the Z made them
        ]


@dataclass
class Tally:
    """What is known of all generated events of some blocks, also of those without a jet.

    Attributes:
        jets: number of events by their number of jets, from 0.
        cross_section, error: of all, in pb; Pythia's own estimate.
    """

    jets: list[int]
    cross_section: float
    error: float

    @property
    def generated(self) -> int:
        return sum(self.jets)

    def __add__(self, other: Tally) -> Tally:
        """That of both: the cross section is the mean, the errors are independent."""
        mine, others = (tally.generated / (self.generated + other.generated) for tally in (self, other))
        return Tally(
            [a + b for a, b in itertools.zip_longest(self.jets, other.jets, fillvalue=0)],
            mine * self.cross_section + others * other.cross_section,
            math.hypot(mine * self.error, others * other.error),
        )

    def share(self, numbers: slice) -> list[float]:
        """Cross section in pb, and its error, of the events whose number of jets is in a slice."""
        part = sum(self.jets[numbers]) / self.generated
        spread = math.sqrt(part * (1 - part) / self.generated)
        return [self.cross_section * part, math.hypot(self.error * part, self.cross_section * spread)]


@door(n=whole(1), seed=SEED, progress=BOOLEAN)
def z_jets(
    n: int,
    seed: int = 1,
    *,
    underlying_event: bool = False,
    energy: float = 13000.0,
    pt_min: float = 20.0,
    radius: float = 0.4,
    jets: int = 3,
    progress: bool = True,
) -> EventSample:
    """Generate p p -> Z/gamma* -> mu+ mu- events with one or more jets, with Pythia 8 and fastjet.

    Leading order with parton shower (QCD) and hadronisation, m(mu+ mu-) > 50 GeV; no photons from the muons or quarks,
    no detector. The muons are those from the Z, without cuts. All other final particles but neutrinos make the jets:
    anti-kT, E scheme, at any pseudorapidity. Events without a jet are left out: of 100 generated events 24 have jets
    with the default arguments, 18 % of these two and 5 % three or more. Two jets are at least R apart in rapidity and
    azimuth, but for a few in 100,000, towards which a softer jet grew later; in pseudorapidity, but for ten.

    A block of 50,000 generated events has a seed of its own. fastjet prints its reference once; please cite it
    (arXiv:1111.6097), Pythia (arXiv:2203.11601) and anti-kT (arXiv:0802.1189).

    Args:
        n: number of events, all with at least one jet.
        seed: the same seed gives the same events, and fewer of them are the first ones of more.
        underlying_event: with the interactions of the other partons of the two protons (Pythia's MPI). They add soft
            jets, at about ten times the cost.
        energy: of the collision, in GeV.
        pt_min: smallest transverse momentum of a jet, in GeV.
        radius: R of anti-kT.
        jets: most jets of an event that are kept, the hardest; the last multiplicity is inclusive.
        progress: show a progress bar.

    Returns:
        Unweighted events ``[n, 6 + 4 jets]`` with the columns ``pt_mu+, eta_mu+, phi_mu+, pt_mu-, ..., pt_j1, eta_j1,
        phi_j1, m_j1, pt_j2, ...`` in GeV and rad, phi in [-pi, pi], jets by falling pT, NaN where there is no jet. The
        provenance holds versions, settings, the seed and, of all generated events, how many have how many jets and the
        cross sections in pb: ``cross_section_pb`` is that of events with a jet, ``cross_sections_pb`` has those of each
        multiplicity, with errors.

    Raises:
        ValueError: an argument out of range.
        MemoryError: more events than the memory holds; :func:`z_jets_to` writes them to a file.
        ImportError: Pythia or fastjet is not installed.
        RuntimeError: Pythia does not start, or 50,000 events have no jet at all.
    """
    process = Process(underlying_event, energy, pt_min, radius, jets)
    size = 2 * 8.0 * z_jets_layout(process.jets).features * n  # batches, and the table of them
    check_memory("n", n, size, "z_jets_to(path, n) writes them to a file and holds a block at a time")
    _require_extras("z_jets")
    blocks: list[tuple[np.ndarray, Tally]] = []
    left = n
    with bar(n, "Z + jets", " events", show=progress) as shown:
        while left:
            blocks.append(_block(process, seed, len(blocks), left, shown))
            left -= len(blocks[-1][0])
    tables, tallies = zip(*blocks, strict=True)
    return _sample(np.concatenate(tables), process, _provenance(process, seed, tallies))


@door(path=PATH, n=whole(1), seed=SEED, progress=BOOLEAN)
def z_jets_to(
    path: str | os.PathLike[str],
    n: int,
    seed: int = 1,
    *,
    underlying_event: bool = False,
    energy: float = 13000.0,
    pt_min: float = 20.0,
    radius: float = 0.4,
    jets: int = 3,
    progress: bool = True,
    **layout: Any,
) -> Path:
    """:func:`z_jets` to a file, in memory for one block only. A killed run goes on when it is repeated.

    Finished blocks are kept in the folder ``<path>.parts`` until the file is whole; the file of a resumed run has the
    same bits as that of an uninterrupted one (``.root`` the same numbers: uproot writes the time into it). An old file
    at the path is replaced at the end. Events and provenance are those of :func:`z_jets`.

    Two processes make two samples at a time, with two seeds and two paths; :func:`append` joins their files.

    Args:
        path: the file, as :class:`EventWriter` writes it.
        n: number of events.
        seed, underlying_event, energy, pt_min, radius, jets, progress: as :func:`z_jets`.
        **layout: for :class:`EventWriter`, such as ``layout="rows"``.

    Returns:
        The path.

    Raises:
        ValueError: an argument out of range, a format that cannot hold such events, or parts of another run.
        ImportError, RuntimeError: as :func:`z_jets`.
        PathInUseError: another process, or another part of this one, generates this file.
        OSError: the file cannot be written.
    """
    process = Process(underlying_event, energy, pt_min, radius, jets)
    writer = EventWriter(path, **layout)  # which checks its arguments before any work is done
    check_loss(format_of(Path(path), "write"), _sample(np.ones((1, z_jets_layout(process.jets).features)), process, {}))
    _require_extras("z_jets_to")
    target = target_of(path)
    job = {"version": _VERSION, "process": "z_jets", "n": n, "seed": seed, **asdict(process), **_versions()}
    folder = PartsFolder(target, job)
    with folder.filling("generate events to") as needed:
        if not needed:
            return Path(path)
        tallies: list[Tally] = []
        left = n
        with bar(n, f"Z + jets {target.name}", " events", show=progress, scaled=True) as shown:
            while left:
                k = len(tallies)
                finished = folder.part(k).exists()
                if not finished:
                    rows, tally = _block(process, seed, k, left, shown)
                    _sample(rows, process, asdict(tally)).save(folder.part(k))
                block = folder.read(k)
                if finished:  # a new one shows its events as they come
                    shown.update(len(block))
                tallies.append(Tally(**block.provenance))
                left -= len(block)
        provenance = _provenance(process, seed, tallies)
        with writer:
            for k in range(len(tallies)):
                writer.write(_sample(folder.read(k).values, process, provenance))
    return Path(path)


def _block(process: Process, seed: int, k: int, wanted: int, shown: Bar[Any]) -> tuple[np.ndarray, Tally]:
    """The first ``wanted`` events of the block number ``k``, or all of it, and the tally of what was generated."""
    tables: list[np.ndarray] = []
    for rows, tally in _batches(process, seed, k):
        tables.append(rows[:wanted])
        wanted -= len(tables[-1])
        shown.update(len(tables[-1]))
        latest = tally
        if not wanted:
            break
    return np.concatenate(tables), latest


def _batches(process: Process, seed: int, k: int) -> Iterator[tuple[np.ndarray, Tally]]:
    """The block number ``k``: rows of each batch, and the tally of all its batches so far.

    Raises:
        RuntimeError: Pythia does not start, fails, or none of all events has a jet.
    """
    generator = started([*process.settings(), *seed_settings(_seed_of(seed, k))])
    jets = np.zeros(1, dtype=int)
    for _ in range(BLOCK // BATCH):
        particles = generator.nextBatch(BATCH).prt
        rows, counts = z_jets_rows(particles, process.pt_min, process.radius, process.jets, MASS_MIN)
        numbers = np.bincount(counts, minlength=len(jets))
        numbers[: len(jets)] += jets
        jets = numbers
        info = generator.infoPython()  # a snapshot
        yield rows, Tally(jets.tolist(), info.sigmaGen() * MILLIBARN, info.sigmaErr() * MILLIBARN)
    if jets[1:].sum() == 0:
        raise RuntimeError(
            f"none of {jets.sum():,} generated events has a jet with pT > {process.pt_min:g} GeV; take a lower pt_min"
        )


def _seed_of(seed: int, k: int) -> int:
    """Pythia's seed for a block."""
    return 1 + stream(seed, "z_jets", k) % MAX_SEED


def _sample(rows: np.ndarray, process: Process, provenance: dict[str, Any]) -> EventSample:
    names, units = z_jets_columns(process.jets)
    return EventSample(rows, names, units, provenance=provenance, multiplicity=z_jets_layout(process.jets))


def _provenance(process: Process, seed: int, tallies: Sequence[Tally]) -> dict[str, Any]:
    total = functools.reduce(operator.add, tallies)
    cross_section, error = total.share(slice(1, None))
    shares = {str(number): total.share(slice(number, number + 1)) for number in range(1, process.jets)}
    shares[f"{process.jets} or more"] = total.share(slice(process.jets, None))
    return {
        "process": (
            f"p p -> Z/gamma* -> mu+ mu- with jets at {process.energy / 1000:g} TeV, leading order with parton shower "
            f"and hadronisation, underlying event {'on' if process.underlying_event else 'off'}, no QED radiation, "
            f"m(mu+ mu-) > {MASS_MIN:g} GeV, at least one jet, {PDF}"
        ),
        "jets": (
            f"anti-kT, R = {process.radius:g}, E scheme, pT > {process.pt_min:g} GeV, of all final particles but "
            f"neutrinos and the muons from the Z; the {process.jets} hardest"
        ),
        "generator": "Pythia",
        "version": _versions()["pythia8mc"],
        "fastjet": _versions()["fastjet"],
        "settings": process.settings(),
        "seed": seed,
        "block_size": BLOCK,
        "block_seeds": [_seed_of(seed, k) for k in range(len(tallies))],
        "beams": [{"pdg": 2212, "energy": process.energy / 2}] * 2,
        "generated": total.generated,
        "events_by_jets": {str(number): found for number, found in enumerate(total.jets)},
        "cross_section_pb": cross_section,
        "cross_section_error_pb": error,
        "cross_section_generated_pb": [total.cross_section, total.error],
        "cross_sections_pb": shares,
    }


def _require_extras(caller: str) -> None:
    require_extra("pythia8mc", EXTRAS, caller)
    require_extra("awkward", EXTRAS, caller)
    require_extra("fastjet", EXTRAS, caller)


def _versions() -> dict[str, str]:
    return {"pythia8mc": metadata.version("pythia8mc"), "fastjet": metadata.version("fastjet")}
