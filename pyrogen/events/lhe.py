"""Events in Les Houches files, through pylhe: momenta of chosen particles of the final state.

Only particles of status 1 count. Events are numbered from 0.
"""

from __future__ import annotations

import contextlib
import warnings
import zlib
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..checks import require, require_extra
from ..files import FileFormatError
from ..warn import warn
from .format import Format, NoOptions, PartWriter
from .lhe_objects import Partons
from .lhe_text import LheText, opened
from .lhe_writing import FINAL, LheWriter
from .normalisation import WEIGHTS_IN_PB, to_picobarn
from .objects import MORE
from .particles import Content, in_words
from .sample import EventSample
from .tables import part, reason

_EVENTS_PER_BLOCK = 256  # so often pylhe's warnings are turned into errors, which takes as long as half an event
_PARTICLES_PER_BLOCK = 2**16


@dataclass(frozen=True)
class _Reading:
    particles: Mapping[str, int | Sequence[int]] | Sequence[int] | None = None
    others: str | None = None
    missing: str = "error"
    weights: str = "file"
    objects: Sequence[int] | None = None
    most: int | None = None
    least: int | None = None
    pt_min: float | None = None
    surplus: str | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        self.partons()
        require(self.others in (None, "keep", "skip", "error"), "others", self.others, '"keep", "skip" or "error"')
        require(self.missing in ("error", "skip"), "missing", self.missing, '"error" or "skip"')
        require(self.weights in ("file", WEIGHTS_IN_PB), "weights", self.weights, '"file" or "pb"')

    def partons(self) -> Partons | None:
        """The particles that are objects; None where all events have the same particles."""
        given = {name: getattr(self, name) for name in ("most", "least", "pt_min", "surplus", "label")}
        given = {name: value for name, value in given.items() if value is not None}
        if self.objects is None:
            require(not given, ", ".join(given), tuple(given.values()), "left out where objects is")
            return None
        require(
            self.particles is not None, "particles", None, "given with objects: what every event has, such as leptons"
        )
        require("most" in given, "most", None, "given with objects: the largest number of them")
        found = Partons(tuple(Content({"objects": self.objects}).ids()), **given)
        assert self.particles is not None
        twice = set(found.ids) & set(Content(self.particles).ids())
        require(
            not twice,
            "objects",
            self.objects,
            f"other ids than those of particles; both have {in_words(sorted(twice))}",
        )
        return found


class Lhe(Format, suffixes=(".lhe", ".lhe.gz")):
    """Les Houches files, ``.lhe`` and ``.lhe.gz``; they need the packages of ``pip install "pyrogen[lhc]"``.

    Momenta (GeV) and weights of chosen particles of the final state are read: columns ``px_<name>, py_<name>,
    pz_<name>, E_<name>``. Weights are those of the file, equal ones too. Only where every weight is 1 does
    :func:`~pyrogen.events.read` leave them out. What they sum up to differs from file to file: samples of different
    cross sections are put together only where they were read with ``weights="pb"``. The cross sections of the
    ``<init>`` block (pb) and the number of events left out are in the provenance, of a stream in that of its last
    part. Weights of variations (``<rwgt>``) are not read. Ampersands and Latin-1 in the text are accepted; lines,
    headers and events of more than 8 MiB, and files of several documents, are refused.

    Options of reading:

    * ``particles``: PDG ids by name, such as ``{"l+": (-11, -13), "l-": (11, 13)}``, or a sequence of ids, which are
      then called ``e+, g, ...``. An event must have exactly one particle (of status 1) for each name; names with the
      same ids, such as ``{"j1": pg.events.JETS, "j2": pg.events.JETS}``, take theirs in order of falling pT. If left
      out, those of the first event, which all events must share.
    * ``others``: what to do with events that have final-state particles besides: ``"keep"`` them and ignore the
      particles (the default where ``particles`` is given), ``"skip"`` them, or ``"error"``.
    * ``missing``: what to do with events that lack one of the particles or have one too many: ``"error"`` or
      ``"skip"``.
    * ``weights``: ``"file"``, or ``"pb"``: those of all events of the file, also of those left out, sum up to its cross
      section in pb. Its weighting strategy (IDWTUP) says how; the file is read twice. Equal weights are kept.

    Events with a varying number of partons, as matched generators make them, are read with the options

    * ``objects``: PDG ids of what becomes an object, such as ``pg.events.JETS``. Each gives the columns ``pt_j1,
      eta_j1, phi_j1, m_j1, pt_j2, ...``, by falling pT, with the mass that the file says. The ``particles``, which
      must be given, then have the columns ``pt_<name>, eta_<name>, phi_<name>``; their mass is not read.
    * ``most``, ``least`` (1): the largest and the smallest number of objects. An event with fewer is an error, or is
      left out with ``missing="skip"``.
    * ``surplus``: what to do with an event that has more: ``"error"`` (the default), keep the ``"leading"`` ones (the
      provenance has the number of such events), or ``"skip"`` it.
    * ``pt_min`` (0): partons with more transverse momentum (GeV) are objects, the others are ignored.
    * ``label``: what the columns call an object (``"j"``).

    Samples of such columns, of particles with a known PDG id, can be written, with weights and nothing else for each
    event. Weights that were read with ``weights="pb"`` get the strategy -3, all others -4. Masses follow from energy
    and momentum, and are 0 where rounding makes the square negative. There are no incoming particles, mothers or
    colours: the file is for analyses, not for a parton shower. The same events give the same bits, compressed or not.
    There are no options of writing.
    """

    label = "LHE"
    keeps = ("weights",)
    reading = _Reading

    def parts(self, chunk: int, columns: tuple[str, ...] | None, options: _Reading) -> Iterator[EventSample]:
        require_extra("pylhe", "lhc", "reading LHE files")
        path = self.path
        if path.stat().st_size == 0:
            raise FileFormatError(f"{path} is empty; expected an LHE file")
        factor = 1.0
        if options.weights == WEIGHTS_IN_PB:
            with opened(path) as text:
                factor = _factor(path, *_begin(path, text))
        with opened(path) as text:
            provenance, events = _begin(path, text)
            if options.weights == WEIGHTS_IN_PB:
                provenance["weights"] = WEIGHTS_IN_PB
            yield from _Selection(path, columns, options, provenance, factor).parts(events, chunk)

    def finish(self, sample: EventSample) -> EventSample:
        """The sample without weights that say nothing, all of them 1."""
        if np.all(sample.weights == 1) and sample.provenance.get("weights") != WEIGHTS_IN_PB:
            labels = sample.names, sample.units
            return EventSample(sample.values, *labels, provenance=sample.provenance, multiplicity=sample.multiplicity)
        return sample

    def writer(self, temporary: Path, first: EventSample, options: NoOptions) -> PartWriter:
        return LheWriter(temporary, first, zipped=self.path.name.lower().endswith(".gz"))


def _begin(path: Path, text: LheText) -> tuple[dict[str, Any], Iterator[Any]]:
    """What the beginning of a file tells of its events, and the events."""
    import pylhe

    try:
        with _parse_errors():
            file = pylhe.LHEFile.frombuffer(text, with_attributes=False)  # type: ignore[arg-type]
        provenance = _provenance(path, file.init)
    except FileFormatError:
        raise
    except Exception as error:  # whatever a damaged file leads to
        raise FileFormatError(
            f"{path} does not begin like an LHE file (<LesHouchesEvents>, an optional <header>, <init>), or is "
            f"truncated there: {reason(error)}"
        ) from error
    announced, found = file.init.initInfo.numProcesses, len(file.init.procInfo)
    if announced != found:
        raise FileFormatError(f"{path}: its <init> block announces {announced} processes and has {found}")
    return provenance, _events(path, file, text)


def _factor(path: Path, provenance: dict[str, Any], events: Iterator[Any]) -> float:
    """What turns the weights of a file into shares of its cross section in pb."""
    weights = np.array([event.eventinfo.weight for event in events])
    if not len(weights):
        return 1.0  # there is a better error
    try:
        return to_picobarn(provenance["weighting_strategy"], provenance["cross_section_pb"], weights)
    except ValueError as error:
        raise FileFormatError(f"{path}: {error}") from error


def _events(path: Path, file: Any, text: LheText) -> Iterator[Any]:
    """The events one by one, with errors that say which is broken."""
    n = 0
    events = iter(file.events)
    broken: Exception | None = None
    while broken is None:
        block: list[Any] = []
        particles = 0
        try:
            with _parse_errors():
                while len(block) < _EVENTS_PER_BLOCK and particles < _PARTICLES_PER_BLOCK:
                    event = next(events, None)
                    if event is None:
                        break
                    block.append(event)
                    particles += len(event.particles)
                if not block:
                    text.finish()  # pylhe stops at the closing tag; the checksum of gzip comes later
        except Exception as error:  # whatever a damaged file leads to
            broken = error
        for event in block:
            if len(event.particles) != event.eventinfo.nparticles:
                raise FileFormatError(
                    f"{path}: event {n} (counted from 0) announces {event.eventinfo.nparticles} particles and has "
                    f"{len(event.particles)}; remove it, or make the file again"
                )
            yield event
            n += 1
        if not block and broken is None:
            return
    if isinstance(broken, FileFormatError):
        raise broken
    if isinstance(broken, RuntimeWarning):
        told = f"is no longer XML at event {n} (counted from 0): {str(broken).removeprefix('Parse Error: ')}. It may "
        told += f"be truncated (no </LesHouchesEvents> at its end); copy or make it again, or keep the {n} events "
        raise FileFormatError(f"{path} {told}before and close it with that tag") from broken
    if isinstance(broken, (OSError, EOFError, zlib.error)):
        raise FileFormatError(
            f"{path} is a truncated or damaged gzip file, behind event {n} (counted from 0): {broken}; copy or make it "
            "again"
        ) from broken
    raise FileFormatError(
        f"{path}: event {n} (counted from 0) is malformed: {reason(broken)}; remove it, or make the file again"
    ) from broken


class _Selection:
    """Which events are taken, and what of them."""

    def __init__(
        self,
        path: Path,
        columns: tuple[str, ...] | None,
        options: _Reading,
        provenance: dict[str, Any],
        factor: float,
    ) -> None:
        self._path, self._columns, self._options, self._factor = path, columns, options, factor
        self._content = None if options.particles is None else Content(options.particles)
        self._others = options.others or ("keep" if options.particles is not None else "error")
        self._skipped: Counter[str] = Counter()
        self._partons, self._more = options.partons(), 0
        self._provenance = provenance

    def parts(self, events: Iterator[Any], chunk: int) -> Iterator[EventSample]:
        """The samples, each with its provenance so far; the last is given at the end, so that it tells all."""
        rows: list[array[float]] = []
        numbers: list[int] = []
        number, first = -1, 0
        for number, event in enumerate(events):
            row = self._row(event, number)
            if row is None:
                continue
            if len(rows) == chunk:
                yield self._sample(rows, numbers, first)
                first += len(rows)
                rows, numbers = [], []
            rows.append(array("d", row))  # a quarter of the memory of a list
            numbers.append(number)
        skipped = sum(self._skipped.values())
        reasons = ", ".join(f"{n} {why}" for why, n in self._skipped.items())
        if not rows:
            cure = f"all {skipped} were left out ({reasons}); choose other particles" if skipped else "it has none"
            raise FileFormatError(f"{self._path} holds no sample of events: {cure}")
        if skipped:
            warn(f"{self._path}: {skipped} of {number + 1} events were left out: {reasons}")
        yield self._sample(rows, numbers, first)

    def _row(self, event: Any, number: int) -> list[float] | None:
        """Momenta and weight; None where the event is left out."""
        final = [particle for particle in event.particles if particle.status == FINAL]
        if self._content is None:
            ids = [particle.id for particle in final]
            if not ids:
                raise FileFormatError(
                    f"{self._path}: event 0 has no particle in the final state; say which count with particles=..."
                )
            self._content = Content(ids)
        objects: list[Any] = []
        if self._partons is not None:
            objects, final = self._partons.split(final)
        row, others = self._content.row(final)
        if row is None:
            if self._options.missing == "error":
                raise self._mismatch(final, number, 'missing="skip" to leave such events out')
            self._skipped["without the particles wanted"] += 1
            return None
        if others and self._others != "keep":
            if self._others == "error":
                raise self._mismatch(
                    final, number, 'others="skip" to leave such events out, or others="keep" to ignore these particles'
                )
            self._skipped["with other particles"] += 1
            return None
        if self._partons is not None and not self._add_objects(row, objects, number):
            return None
        row.append(event.eventinfo.weight)
        return row

    def _add_objects(self, row: list[float], objects: list[Any], number: int) -> bool:
        """Add the objects of an event to its row; False where it is left out."""
        wanted = self._partons
        assert wanted is not None
        told = f"{self._path}: event {number} (counted from 0) has {len(objects)} objects"
        if len(objects) < wanted.least:
            if self._options.missing == "error":
                raise FileFormatError(
                    f'{told}, fewer than least={wanted.least}; give missing="skip" to leave such events out, or '
                    "a smaller least"
                )
            self._skipped[f"with fewer than {wanted.least} objects"] += 1
            return False
        if len(objects) > wanted.most:
            if wanted.surplus == "error":
                raise FileFormatError(
                    f'{told}, more than most={wanted.most}; give surplus="leading" to keep the leading ones, "skip" to '
                    "leave such events out, or a larger most"
                )
            if wanted.surplus == "skip":
                self._skipped[f"with more than {wanted.most} objects"] += 1
                return False
            self._more += 1
        try:
            row += wanted.row(objects)
        except ValueError as error:
            raise FileFormatError(
                f"{self._path}: event {number} (counted from 0) has {error}; remove it, or make the file again"
            ) from error
        return True

    def _mismatch(self, final: list[Any], number: int, cure: str) -> FileFormatError:
        wanted = ", ".join(self._content.names) if self._content is not None else ""
        asks = "the first event has" if self._options.particles is None else "particles asks for one each of"
        return FileFormatError(
            f"{self._path}: event {number} (counted from 0) has the final state "
            f"{in_words(particle.id for particle in final)}, and {asks} {wanted}; choose particles="
            f'{{"name": ids, ...}} that all events have, or give {cure}'
        )

    def _sample(self, rows: list[array[float]], numbers: list[int], first: int) -> EventSample:
        assert self._content is not None
        table = np.array(rows)
        always = 4 * len(self._content.names)  # behind these are objects, which are checked
        bad = np.flatnonzero(~(np.isfinite(table[:, :always]).all(axis=1) & np.isfinite(table[:, -1])))
        if len(bad):
            raise FileFormatError(
                f"{self._path}: event {numbers[bad[0]]} (counted from 0) has a momentum or weight that is NaN or "
                "infinite; remove it, or make the file again"
            )
        names = self._content.columns()
        provenance = self._provenance | ({"left_out": dict(self._skipped)} if self._skipped else {})
        provenance |= {MORE: self._more} if self._more else {}
        content: dict[str, Any] = {"values": table[:, :-1], "names": names, "units": ("GeV",) * len(names)}
        if self._partons is not None:
            content = self._partons.content(self._content.names, table[:, :-1])
        content |= {"weights": table[:, -1] * self._factor, "provenance": provenance}
        return part(self._path, first, self._columns, content)


def _provenance(path: Path, init: Any) -> dict[str, Any]:
    """What the <init> block tells; cross sections in pb, energies in GeV."""
    beams, processes = init.initInfo, init.procInfo
    return {
        "file": path.name,
        "beams": [{"pdg": beams.beamA, "energy": beams.energyA}, {"pdg": beams.beamB, "energy": beams.energyB}],
        "weighting_strategy": beams.weightingStrategy,
        "processes": [
            {"id": p.procId, "cross_section_pb": p.xSection, "cross_section_error_pb": p.error} for p in processes
        ],
        "cross_section_pb": sum(p.xSection for p in processes),
        "cross_section_error_pb": sum(p.error**2 for p in processes) ** 0.5,
        "generators": [f"{g.name} {g.version}".strip() for g in init.generators],
    }


@contextlib.contextmanager
def _parse_errors() -> Iterator[None]:
    """pylhe warns of broken XML and stops as if the file ended there; that must be an error."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Parse Error", RuntimeWarning)
        yield
