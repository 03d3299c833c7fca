"""Dijets from Pythia 8 and fastjet: QCD jets, and W' -> X Y -> four quarks, as in the R&D data of the LHC Olympics."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checks import (
    BOOLEAN,
    LIMITS,
    PATH,
    POSITIVE,
    SEED,
    check_memory,
    check_settings,
    door,
    each,
    require,
    require_extra,
    whole,
)
from ..files import target_of
from ..progress import Bar, bar
from ..seeds import stream
from ..signals import uninterrupted
from .dijet_sample import NAMES, Dijets, features, sample_of
from .jets import visible_without
from .parts import PartsFolder
from .pythia import MAX_SEED, seed_settings, started
from .sample import EventSample
from .substructure import masses, subjettiness, two_hardest
from .writing import EventWriter

EXTRAS = "pythia,fastjet"
BLOCK = 5_000  # generated events that share a seed of Pythia
BATCH = 250  # generated events in memory at a time; the events do not depend on it
MILLIBARN = 1e9  # pb; Pythia counts in mb
GEV = 1000.0  # in a TeV
LOOSE_PT, LOOSE_MASS = 0.8, 0.8  # cuts on partons, as shares of those on jets
_ROWS = 16_384  # of a part that is written
_VERSION = 1  # of what a seed means
_X, _Y = 9000001, 9000002
_WIDTH = 0.01  # of the three particles, in parts of their masses
_KINDS = ("background", "signal")


@dataclass(frozen=True)
class Process:
    """What decides the events of a seed; the arguments of :func:`dijets`."""

    window: tuple[float, float] = (3.3, 3.7)
    pt_min: float = 1.2
    masses: tuple[float, float, float] = (3.5, 0.5, 0.1)
    radius: float = 1.0
    underlying_event: bool = False
    energy: float = 13.0

    def __post_init__(self) -> None:
        check_settings(
            self,
            window=LIMITS,
            pt_min=POSITIVE,
            masses=each(POSITIVE, "three masses in TeV, of W', X and Y, such as (3.5, 0.5, 0.1)", 3),
            radius=POSITIVE,
            underlying_event=BOOLEAN,
            energy=POSITIVE,
        )
        require(len(self.masses) == 3, "masses", self.masses, "three, of W', X and Y")
        parent, *others = self.masses
        require(sum(others) < parent, "masses", self.masses, "(W', X, Y) with X and Y together lighter than W'")
        low, high = self.window
        require(low > 0 and high < self.energy, "window", self.window, f"masses in TeV below {self.energy:g}")
        require(2 * self.pt_min < self.energy, "pt_min", self.pt_min, f"in TeV, below {self.energy / 2:g}")

    def settings(self, kind: str) -> list[str]:
        """Those of Pythia for a kind of events, without a seed."""
        common = [
            f"Beams:eCM = {self.energy * GEV:.12g}",
            "PDF:pSet = 13",  # NNPDF2.3 QED LO
            f"PartonLevel:MPI = {'on' if self.underlying_event else 'off'}",
        ]
        if kind == "background":
            return [
                *common,
                "HardQCD:all = on",
                f"PhaseSpace:pTHatMin = {LOOSE_PT * self.pt_min * GEV:.12g}",
                f"PhaseSpace:mHatMin = {LOOSE_MASS * self.window[0] * GEV:.12g}",
            ]
        mass, x, y = (GEV * each for each in self.masses)
        # meMode 100: the branching ratio as it is told, isotropic.
        return [
            *common,
            "NewGaugeBoson:ffbar2Wprime = on",
            f"34:m0 = {mass:.12g}",
            f"34:mWidth = {_WIDTH * mass:.12g}",
            "34:doForceWidth = on",
            f"34:oneChannel = 1 1.0 100 {_X} {_Y}",
            f"{_X}:new = X+ X- 1 3 0 {x:.12g} {_WIDTH * x:.12g} {0.5 * x:.12g} {1.5 * x:.12g} 0",
            f"{_X}:isResonance = on",
            f"{_X}:oneChannel = 1 0.5 100 2 -1",
            f"{_X}:addChannel = 1 0.5 100 4 -3",
            f"{_Y}:new = Y0 void 1 0 0 {y:.12g} {_WIDTH * y:.12g} {0.5 * y:.12g} {1.5 * y:.12g} 0",
            f"{_Y}:isResonance = on",
            f"{_Y}:oneChannel = 1 0.25 100 1 -1",
            *(f"{_Y}:addChannel = 1 0.25 100 {quark} {-quark}" for quark in (2, 3, 4)),
        ]


@door(n=whole(0), seed=SEED, signal=whole(0), progress=BOOLEAN)
def dijets(
    n: int,
    seed: int = 1,
    *,
    signal: int = 0,
    window: tuple[float, float] = (3.3, 3.7),
    pt_min: float = 1.2,
    masses: tuple[float, float, float] = (3.5, 0.5, 0.1),
    radius: float = 1.0,
    underlying_event: bool = False,
    energy: float = 13.0,
    progress: bool = True,
) -> Dijets:
    """Generate QCD dijets, and a resonance W' -> X Y -> q q q q among them, with Pythia 8 and fastjet.

    The events are those of the R&D data of the LHC Olympics (arXiv:2101.08320, sec. 2.1), but for the detector, which
    is not simulated. Leading order with parton shower and hadronisation. All final particles but neutrinos make the
    jets: anti-kT, E scheme, pseudorapidity up to 2.5. The two hardest are the event; the hardest has pT > ``pt_min``,
    and their mass is in the window. For :math:`\\tau_N` see :mod:`pyrogen.events.substructure`.

    Partons of the background have pT above 0.8 ``pt_min`` and a mass above 0.8 of the lower end of the window. This
    leaves out 6.6 % of the events in the default window: those that owe their mass or pT to the shower. W' has spin 1,
    X and Y have none, and all are 1 % wide; their decays are isotropic. X makes a u and an anti-d or a c and an anti-s,
    Y a pair of d, u, s or c.

    A block of 5,000 generated events has a seed of its own. fastjet prints its reference once; please cite it
    (arXiv:1111.6097), Pythia (arXiv:2203.11601) and anti-kT (arXiv:0802.1189).

    Args:
        n: number of background events, all in the window.
        seed: the same seed gives the same events. Fewer background events are the first ones of more, and so are the
            signal events; the order in which both are mixed depends on their numbers.
        signal: number of signal events, all in the window, at random places among the others.
        window: lowest and highest mass of both jets, in TeV.
        pt_min: smallest transverse momentum of the harder jet, in TeV.
        masses: of W', X and Y, in TeV.
        radius: R of anti-kT.
        underlying_event: with the interactions of the other partons of the two protons (Pythia's MPI), at about three
            times the cost. The LHC Olympics have none.
        energy: of the collision, in TeV.
        progress: show a progress bar.

    Returns:
        The events ``[n + signal, 5]``, masses in TeV, and their labels. The provenance holds versions, settings, seeds
        and, for each kind, the number of generated events, the cross section in pb in the window, and its error.

    Raises:
        ValueError: an argument out of range; no event at all is wanted.
        MemoryError: more events than the memory holds; :func:`dijets_to` writes them to a file.
        ImportError: Pythia or fastjet is not installed.
        RuntimeError: Pythia does not start, or 5,000 events have none in the window.
    """
    process = Process(window, pt_min, masses, radius, underlying_event, energy)
    _check_numbers(n, signal)
    check_memory("n", n + signal, 3 * 8.0 * (len(NAMES) + 1) * (n + signal), "dijets_to(path, n) writes them to a file")
    _require_extras("dijets")
    blocks: dict[str, list[tuple[NDArray[np.float64], Tally]]] = {kind: [] for kind in _KINDS}
    with bar(n + signal, "dijets", " events", show=progress) as shown:
        for kind, left in zip(_KINDS, (n, signal), strict=True):
            while left:
                blocks[kind].append(_block(process, kind, seed, len(blocks[kind]), left, shown))
                left -= len(blocks[kind][-1][0])
    told = _provenance(process, seed, {kind: [tally for _, tally in blocks[kind]] for kind in _KINDS})
    rows = {kind: iter([table for table, _ in blocks[kind]]) for kind in _KINDS}
    mixed, labels = zip(*_mixed(rows, _places(n, signal, seed)), strict=True)
    return Dijets(sample_of(np.concatenate(mixed), "TeV", told), np.concatenate(labels))


@door(path=PATH, n=whole(0), seed=SEED, signal=whole(0), progress=BOOLEAN)
def dijets_to(
    path: str | os.PathLike[str],
    n: int,
    seed: int = 1,
    *,
    signal: int = 0,
    window: tuple[float, float] = (3.3, 3.7),
    pt_min: float = 1.2,
    masses: tuple[float, float, float] = (3.5, 0.5, 0.1),
    radius: float = 1.0,
    underlying_event: bool = False,
    energy: float = 13.0,
    progress: bool = True,
    **layout: Any,
) -> Path:
    """:func:`dijets` to a file, in memory for one block only. A killed run goes on when it is repeated.

    :meth:`Dijets.read` reads the file. Its last column, ``signal``, holds the labels. Finished blocks are kept in the
    folder ``<path>.parts`` until the file is whole. The events are those of :func:`dijets`, bit by bit.

    Args:
        path: the file, as :class:`EventWriter` writes it. An old one is replaced at the end.
        n: number of background events.
        seed, signal, window, pt_min, masses, radius, underlying_event, energy, progress: as :func:`dijets`.
        **layout: for :class:`EventWriter`, such as ``layout="rows"``.

    Returns:
        The path.

    Raises:
        ValueError: an argument out of range, or parts of another run.
        ImportError, RuntimeError: as :func:`dijets`.
        PathInUseError: another process, or another part of this one, generates this file.
        OSError: the file cannot be written.
    """
    process = Process(window, pt_min, masses, radius, underlying_event, energy)
    _check_numbers(n, signal)
    writer = EventWriter(path, **layout)  # which checks its arguments before any work is done
    _require_extras("dijets_to")
    target = target_of(path)
    job = {"version": _VERSION, "process": "dijets", "n": n, "signal": signal, "seed": seed}
    folder = PartsFolder(target, job | asdict(process) | _versions())
    with folder.filling("generate events to") as needed:
        if not needed:
            return Path(path)
        parts: dict[str, list[int]] = {kind: [] for kind in _KINDS}
        tallies: dict[str, list[Tally]] = {kind: [] for kind in _KINDS}
        done = 0
        with bar(n + signal, f"dijets {target.name}", " events", show=progress, scaled=True) as shown:
            for kind, left in zip(_KINDS, (n, signal), strict=True):
                while left:
                    k, finished = len(parts[kind]), folder.part(done).exists()
                    if not finished:
                        rows, tally = _block(process, kind, seed, k, left, shown)
                        EventSample(rows, NAMES, provenance=asdict(tally)).save(folder.part(done))
                    block = folder.read(done)
                    if finished:  # a new one shows its events as they come
                        shown.update(len(block))
                    tallies[kind].append(Tally(**block.provenance))
                    parts[kind].append(done)
                    left -= len(block)
                    done += 1
        told = _provenance(process, seed, tallies)
        tables = {kind: (folder.read(i).values for i in parts[kind]) for kind in _KINDS}
        with writer:
            for mixed, labels in _mixed(tables, _places(n, signal, seed)):
                writer.write(Dijets(sample_of(mixed, "TeV", told), labels).table())
    return Path(path)


@dataclass(frozen=True)
class Tally:
    """What is known of all generated events of a block: their number, that of those in the window, and Pythia's cross
    section of all with its error, in pb."""

    generated: int
    found: int
    cross_section: float
    error: float


def _block(
    process: Process, kind: str, seed: int, k: int, wanted: int, shown: Bar[Any]
) -> tuple[NDArray[np.float64], Tally]:
    """The first ``wanted`` events of the block number ``k``, or all of it, and what was generated for them."""
    generator = started([*process.settings(kind), *seed_settings(_seed_of(seed, kind, k))])
    tables: list[NDArray[np.float64]] = []
    generated = found = missing = 0
    while generated + missing < BLOCK and wanted:
        particles = generator.nextBatch(BATCH).prt
        generated, missing = generated + len(particles), missing + BATCH - len(particles)  # some fail
        rows = dijet_rows(particles, process)
        found += len(rows)
        tables.append(rows[:wanted])
        wanted -= len(tables[-1])
        shown.update(len(tables[-1]))
    if not found:
        low, high = process.window
        raise RuntimeError(
            f"none of {generated:,} generated {kind} events has a mass of {low:g} to {high:g} TeV and a jet with pT > "
            f"{process.pt_min:g} TeV; take a window or masses that fit, or a lower pt_min"
        )
    info = generator.infoPython()  # a snapshot
    tally = Tally(generated, found, info.sigmaGen() * MILLIBARN, info.sigmaErr() * MILLIBARN)
    return np.concatenate(tables), tally


def dijet_rows(particles: Any, process: Process) -> NDArray[np.float64]:
    """The events of Pythia's records that pass, as rows of :func:`features` in GeV, ``[M, 5]``."""
    with uninterrupted():
        import awkward as ak
    momenta = visible_without(particles, np.empty((len(particles), 0), int))
    _, jets, constituents = two_hardest(momenta, process.radius)
    mass = masses(jets.sum(1)) / GEV
    pt = np.hypot(jets[:, 0, 0], jets[:, 0, 1]) / GEV
    chosen = (pt > process.pt_min) & (mass >= process.window[0]) & (mass <= process.window[1])
    if not chosen.any():
        return np.empty((0, len(NAMES)))
    each_jet = ak.flatten(constituents[chosen], axis=1)
    tau = np.stack([subjettiness(each_jet, axes, process.radius) for axes in (1, 2)], -1).reshape(-1, 2, 2)
    kept = jets[chosen]
    return features(np.concatenate([kept[..., :3], masses(kept)[..., None]], -1), tau)


def _places(n: int, signal: int, seed: int) -> NDArray[np.bool_]:
    """Which of all events are signal."""
    places = np.zeros(n + signal, dtype=bool)
    places[np.random.default_rng(stream(seed, "dijets", "places")).permutation(n + signal)[:signal]] = True
    return places


def _mixed(
    tables: Mapping[str, Iterator[NDArray[np.float64]]], places: NDArray[np.bool_]
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.bool_]]]:
    """Rows of both kinds at their places, part by part, and their labels."""
    waiting = {kind: np.empty((0, len(NAMES))) for kind in _KINDS}
    for first in range(0, len(places), _ROWS):
        labels = places[first : first + _ROWS]
        rows = np.empty((len(labels), len(NAMES)))
        for kind, where in zip(_KINDS, (~labels, labels), strict=True):
            needed = int(where.sum())
            while len(waiting[kind]) < needed:
                waiting[kind] = np.concatenate([waiting[kind], next(tables[kind])])
            rows[where], waiting[kind] = waiting[kind][:needed], waiting[kind][needed:]
        yield rows, labels


def _seed_of(seed: int, kind: str, k: int) -> int:
    """Pythia's seed for a block."""
    return 1 + stream(seed, "dijets", kind, k) % MAX_SEED


def _provenance(process: Process, seed: int, tallies: Mapping[str, Sequence[Tally]]) -> dict[str, Any]:
    low, high = process.window
    made: dict[str, Any] = {}
    for kind, blocks in tallies.items():
        if not blocks:
            continue
        generated, found = (sum(getattr(block, name) for block in blocks) for name in ("generated", "found"))
        share = found / generated
        total = sum(block.cross_section * block.generated for block in blocks) / generated
        error = float(np.hypot.reduce([block.error * block.generated for block in blocks])) / generated
        spread = float(np.sqrt(share * (1 - share) / generated))
        made[kind] = {
            "settings": process.settings(kind),
            "block_seeds": [_seed_of(seed, kind, k) for k in range(len(blocks))],
            "generated": generated,
            "in_window": found,
            "cross_section_pb": total * share,
            "cross_section_error_pb": float(np.hypot(error * share, total * spread)),
        }
    w, x, y = process.masses
    return {
        "process": (
            f"p p -> two jets at {process.energy:g} TeV, leading order with parton shower and hadronisation, "
            f"underlying event {'on' if process.underlying_event else 'off'}, NNPDF2.3 QED LO, no detector; "
            f"signal: W' ({w:g} TeV) -> X ({x:g} TeV) Y ({y:g} TeV) -> q q q q"
        ),
        "jets": (
            f"anti-kT, R = {process.radius:g}, E scheme, |eta| < 2.5, of all final particles but neutrinos; the "
            f"hardest has pT > {process.pt_min:g} TeV, the mass of the hardest two is {low:g} to {high:g} TeV"
        ),
        "tau": "N-subjettiness with beta = 1 and the axes of exclusive kT subjets, winner-take-all scheme",
        "generator": "Pythia",
        "version": _versions()["pythia8mc"],
        "fastjet": _versions()["fastjet"],
        "seed": seed,
        "block_size": BLOCK,
        "beams": [{"pdg": 2212, "energy": process.energy * GEV / 2}] * 2,
        **made,
    }


def _check_numbers(n: int, signal: int) -> None:
    require(n + signal > 0, "n", n, "at least 1, or signal at least 1")


def _require_extras(caller: str) -> None:
    require_extra("pythia8mc", EXTRAS, caller)
    require_extra("awkward", EXTRAS, caller)
    require_extra("fastjet", EXTRAS, caller)


def _versions() -> dict[str, str]:
    return {"pythia8mc": metadata.version("pythia8mc"), "fastjet": metadata.version("fastjet")}
