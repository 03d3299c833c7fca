"""Events in Les Houches files, through pylhe: momenta of chosen particles of the final state.

Only particles of status 1 count. Events are numbered from 0.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import itertools
import re
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..checks import require, require_extra
from ..files import FileFormatError
from ..warn import warn
from .format import Format, NoOptions, PartWriter
from .particles import COMPONENTS, Content, id_of, in_words
from .sample import EventSample
from .tables import part

_EVENTS_PER_BLOCK = 256  # so often pylhe's warnings are turned into errors, which takes as long as half an event
_FINAL = 1
_BROKEN = (ValueError, IndexError, OverflowError, KeyError, AttributeError, RuntimeWarning)
_UNWEIGHTED, _MEAN_IS_CROSS_SECTION = 3, -4  # IDWTUP of the Les Houches accord


@dataclass(frozen=True)
class _Reading:
    particles: Mapping[str, int | Sequence[int]] | Sequence[int] | None = None
    others: str | None = None
    missing: str = "error"

    def __post_init__(self) -> None:
        require(self.others in (None, "keep", "skip", "error"), "others", self.others, '"keep", "skip" or "error"')
        require(self.missing in ("error", "skip"), "missing", self.missing, '"error" or "skip"')


class Lhe(Format, suffixes=(".lhe", ".lhe.gz")):
    """Les Houches files, ``.lhe`` and ``.lhe.gz``; they need the packages of ``pip install "pyrogen[lhc]"``.

    Momenta (GeV) and weights of chosen particles of the final state are read: columns ``px_<name>, py_<name>,
    pz_<name>, E_<name>``. Weights are always kept, equal ones too: they carry the cross section, so that samples of
    several processes can be put together. Only where every weight is 1 does :func:`~pyrogen.events.read` leave them
    out. The cross sections of the ``<init>`` block (pb) and the number of events left out are in the provenance, of a
    stream in that of its last part. Weights of variations (``<rwgt>``) are not read.

    Options of reading:

    * ``particles``: PDG ids by name, such as ``{"l+": (-11, -13), "l-": (11, 13)}``, or a sequence of ids, which are
      then called ``e+, g, ...``. An event must have exactly one particle (of status 1) for each name; names with the
      same ids, such as ``{"j1": pg.events.JETS, "j2": pg.events.JETS}``, take theirs in order of falling pT. If left
      out, those of the first event, which all events must share.
    * ``others``: what to do with events that have final-state particles besides: ``"keep"`` them and ignore the
      particles (the default where ``particles`` is given), ``"skip"`` them, or ``"error"``.
    * ``missing``: what to do with events that lack one of the particles or have one too many: ``"error"`` or
      ``"skip"``.

    Samples of such columns, of particles with a known PDG id, can be written, with weights and nothing else for each
    event. Masses follow from energy and momentum, and are 0 where rounding makes the square negative. There are no
    incoming particles, mothers or colours: the file is for analyses, not for a parton shower. The same events give the
    same bits, compressed or not. There are no options of writing.
    """

    label = "LHE"
    keeps = ("weights",)
    reading = _Reading

    def parts(self, chunk: int, columns: tuple[str, ...] | None, options: _Reading) -> Iterator[EventSample]:
        require_extra("pylhe", "lhc", "reading LHE files")
        import pylhe

        path = self.path
        if path.stat().st_size == 0:
            raise FileFormatError(f"{path} is empty; expected an LHE file")
        with _decompressed(path) as stream:
            try:
                with _parse_errors():
                    file = pylhe.LHEFile.frombuffer(_Kept(stream), with_attributes=False)  # type: ignore[arg-type]
            except (*_BROKEN, OSError, EOFError, zlib.error, StopIteration) as error:
                raise FileFormatError(
                    f"{path} does not begin like an LHE file (<LesHouchesEvents>, an optional <header>, <init>), or is "
                    f"truncated there: {error}"
                ) from error
            selection = _Selection(path, columns, options, _provenance(path, file.init))
            yield from selection.parts(_events(path, file, stream), chunk)

    def finish(self, sample: EventSample) -> EventSample:
        """The sample without weights that say nothing, all of them 1."""
        if np.all(sample.weights == 1):
            return EventSample(sample.values, sample.names, sample.units, provenance=sample.provenance)
        return sample

    def writer(self, temporary: Path, first: EventSample, options: NoOptions) -> PartWriter:
        return _Writer(temporary, first, zipped=self.path.name.lower().endswith(".gz"))


def _events(path: Path, file: Any, stream: IO[bytes]) -> Iterator[Any]:
    """The events one by one, with errors that say which is broken."""
    n = 0
    events = iter(file.events)
    broken = None
    while broken is None:
        block = []
        try:
            with _parse_errors():
                for event in itertools.islice(events, _EVENTS_PER_BLOCK):
                    block.append(event)
                if not block:
                    while stream.read(2**20):  # pylhe stops at the closing tag; the checksum of gzip comes later
                        pass
        except (*_BROKEN, OSError, EOFError, zlib.error) as error:
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
    if isinstance(broken, RuntimeWarning):
        reason = f"is no longer XML at event {n} (counted from 0): {str(broken).removeprefix('Parse Error: ')}. It may "
        reason += f"be truncated (no </LesHouchesEvents> at its end); copy or make it again, or keep the {n} events "
        raise FileFormatError(f"{path} {reason}before and close it with that tag") from broken
    if isinstance(broken, (OSError, EOFError, zlib.error)):
        raise FileFormatError(
            f"{path} is a truncated or damaged gzip file, behind event {n} (counted from 0): {broken}; copy or make it "
            "again"
        ) from broken
    raise FileFormatError(
        f"{path}: event {n} (counted from 0) is malformed: {broken}; remove it, or make the file again"
    ) from broken


class _Selection:
    """Which events are taken, and what of them."""

    def __init__(
        self, path: Path, columns: tuple[str, ...] | None, options: _Reading, provenance: dict[str, Any]
    ) -> None:
        self._path, self._columns, self._options = path, columns, options
        self._content = None if options.particles is None else Content(options.particles)
        self._others = options.others or ("keep" if options.particles is not None else "error")
        self._skipped: Counter[str] = Counter()
        self._provenance = provenance

    def parts(self, events: Iterator[Any], chunk: int) -> Iterator[EventSample]:
        """The samples, each with its provenance so far; the last is given at the end, so that it tells all."""
        rows: list[list[float]] = []
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
            rows.append(row)
            numbers.append(number)
        skipped = sum(self._skipped.values())
        reasons = ", ".join(f"{n} {reason}" for reason, n in self._skipped.items())
        if not rows:
            cure = f"all {skipped} were left out ({reasons}); choose other particles" if skipped else "it has none"
            raise FileFormatError(f"{self._path} holds no sample of events: {cure}")
        if skipped:
            warn(f"{self._path}: {skipped} of {number + 1} events were left out: {reasons}")
        yield self._sample(rows, numbers, first)

    def _row(self, event: Any, number: int) -> list[float] | None:
        """Momenta and weight; None where the event is left out."""
        final = [particle for particle in event.particles if particle.status == _FINAL]
        if self._content is None:
            ids = [particle.id for particle in final]
            if not ids:
                raise FileFormatError(
                    f"{self._path}: event 0 has no particle in the final state; say which count with particles=..."
                )
            self._content = Content(ids)
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
        row.append(event.eventinfo.weight)
        return row

    def _mismatch(self, final: list[Any], number: int, cure: str) -> FileFormatError:
        wanted = ", ".join(self._content.names) if self._content is not None else ""
        asks = "the first event has" if self._options.particles is None else "particles asks for one each of"
        return FileFormatError(
            f"{self._path}: event {number} (counted from 0) has the final state "
            f"{in_words(particle.id for particle in final)}, and {asks} {wanted}; choose particles="
            f'{{"name": ids, ...}} that all events have, or give {cure}'
        )

    def _sample(self, rows: list[list[float]], numbers: list[int], first: int) -> EventSample:
        assert self._content is not None
        table = np.array(rows)
        bad = np.flatnonzero(~np.isfinite(table).all(axis=1))
        if len(bad):
            raise FileFormatError(
                f"{self._path}: event {numbers[bad[0]]} (counted from 0) has a momentum or weight that is NaN or "
                "infinite; remove it, or make the file again"
            )
        names = self._content.columns()
        provenance = self._provenance | ({"left_out": dict(self._skipped)} if self._skipped else {})
        content = {"values": table[:, :-1], "names": names, "units": ("GeV",) * len(names), "weights": table[:, -1]}
        return part(self._path, first, self._columns, content | {"provenance": provenance})


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


@contextlib.contextmanager
def _decompressed(path: Path) -> Iterator[IO[bytes]]:
    with open(path, "rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        if not zipped:
            yield raw
            return
        with gzip.GzipFile(fileobj=raw) as stream:
            yield stream  # type: ignore[misc]


class _Kept:
    """A stream that pylhe doesn't close, so that the rest of it can be read."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.read = stream.read

    def __enter__(self) -> _Kept:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class _Writer(PartWriter):
    """Writes samples of momenta as LHE events, one behind the other: their final-state particles alone.

    Args:
        temporary: the file to write.
        first: a sample like those to come; beams and cross sections are taken from its provenance.
        zipped: whether to compress.

    Raises:
        ValueError: other columns or units, or uncertainties and log weights, which LHE has no place for.
        OSError: the disk is full or read-only.
    """

    def __init__(self, temporary: Path, first: EventSample, zipped: bool) -> None:
        require_extra("pylhe", "lhc", "writing LHE files")
        import pylhe

        self._ids = _ids_of_columns(first)
        # 17 digits give every number back.
        places = {name: f"{{{name}:.17g}}" for name in ("px", "py", "pz", "e", "m", "weight")}
        default = pylhe.DEFAULT_FORMAT
        self._format = pylhe.LHEXMLFormat(
            eventinfo=re.sub(r"\{weight:[^}]*\}", places["weight"], default.eventinfo),
            particle=re.sub(r"\{(px|py|pz|e|m):[^}]*\}", lambda found: places[found[1]], default.particle),
        )
        self._files = contextlib.ExitStack()
        raw: Any = self._files.enter_context(temporary.open("wb"))
        if zipped:  # without the name and the time that gzip keeps: the same events give the same bits
            raw = self._files.enter_context(gzip.GzipFile("", "wb", 6, raw, mtime=0))
        self._stream: Any = self._files.enter_context(io.TextIOWrapper(raw, encoding="utf-8"))
        init = _init(first)
        pylhe.LHEFile(init=init).write(_WithoutEnd(self._stream), lheformat=self._format)

    def write(self, sample: EventSample) -> None:
        import pylhe

        momenta = sample.select([f"{c}_{name}" for name in self._ids for c in COMPONENTS]).values
        momenta = momenta.reshape(len(sample), -1, 4)
        masses = np.sqrt(np.maximum(momenta[..., 3] ** 2 - np.square(momenta[..., :3]).sum(-1), 0))
        weights = np.ones(len(sample)) if sample.weights is None else sample.weights
        for momentum, mass, weight in zip(momenta.tolist(), masses.tolist(), weights.tolist(), strict=True):
            particles = [
                pylhe.LHEParticle(pdg, _FINAL, 0, 0, 0, 0, px, py, pz, e, m, 0.0, 9.0)  # a spin of 9: unknown
                for pdg, (px, py, pz, e), m in zip(self._ids.values(), momentum, mass, strict=True)
            ]
            info = pylhe.LHEEventInfo(len(particles), 0, weight, -1.0, -1.0, -1.0)  # -1: unknown
            self._stream.write(pylhe.LHEEvent(info, particles).tolhe(self._format) + "\n")

    def close(self) -> None:
        with self._files:
            self._stream.write("</LesHouchesEvents>\n")


class _WithoutEnd:
    """Lets all pass but the closing tag, which comes behind the last event."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        if text != "</LesHouchesEvents>":
            self._stream.write(text)


def _ids_of_columns(sample: EventSample) -> dict[str, int]:
    """PDG ids by particle name."""
    names = dict.fromkeys(column.partition("_")[2] for column in sample.names)
    expected = {f"{component}_{name}" for name in names for component in COMPONENTS}
    if set(sample.names) != expected:
        raise ValueError(
            f"an LHE file needs px_<name>, py_<name>, pz_<name>, E_<name> of every particle and no other column; "
            f"the columns are {', '.join(sample.names)}"
        )
    if not set(sample.units) <= {"GeV", ""}:
        raise ValueError(f"an LHE file needs momenta in GeV; the units are {', '.join(sample.units)}")
    ids = {name: id_of(name) for name in names}
    unknown = [name for name, pdg in ids.items() if pdg is None]
    if unknown:
        raise ValueError(
            f"no PDG id is known for {', '.join(unknown)}; call the columns px_e+, px_g, ..., or px_pdg<id> with the id"
        )
    return ids  # type: ignore[return-value]


def _init(sample: EventSample) -> Any:
    """The <init> block, from the provenance of a sample that was read from an LHE file, else with zeros."""
    import pylhe

    told = sample.provenance
    beams = told.get("beams")
    if not (isinstance(beams, list) and len(beams) == 2 and all({"pdg", "energy"} <= set(beam) for beam in beams)):
        beams = [{"pdg": 2212, "energy": 0.0}] * 2  # that of something else may be called beams too
    strategy = told.get("weighting_strategy", _UNWEIGHTED if sample.weights is None else _MEAN_IS_CROSS_SECTION)
    values = (told.get("cross_section_pb", 0.0), told.get("cross_section_error_pb", 0.0))
    processes = [pylhe.LHEProcInfo(*values, 1.0, 0)]
    a, b = beams
    info = pylhe.LHEInitInfo(a["pdg"], b["pdg"], a["energy"], b["energy"], 0, 0, 0, 0, strategy, len(processes))
    return pylhe.LHEInit(info, processes, [])
