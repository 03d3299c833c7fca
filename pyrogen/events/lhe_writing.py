"""Writing Les Houches files: momenta of particles of the final state, one event behind the other."""

from __future__ import annotations

import contextlib
import gzip
import io
import re
from pathlib import Path
from typing import Any

import numpy as np

from ..checks import require_extra
from .format import PartWriter
from .normalisation import WEIGHTS_IN_PB
from .particles import COMPONENTS, id_of
from .sample import EventSample

FINAL = 1  # the status of particles of the final state
# IDWTUP of the Les Houches accord; -3 with weights that sum up to the cross section is a custom of MadGraph's.
_UNWEIGHTED, _SUM_IS_CROSS_SECTION, _MEAN_IS_CROSS_SECTION = 3, -3, -4


class LheWriter(PartWriter):
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
                pylhe.LHEParticle(pdg, FINAL, 0, 0, 0, 0, px, py, pz, e, m, 0.0, 9.0)  # a spin of 9: unknown
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
    if told.get("weights") == WEIGHTS_IN_PB:
        strategy = _SUM_IS_CROSS_SECTION
    values = (told.get("cross_section_pb", 0.0), told.get("cross_section_error_pb", 0.0))
    processes = [pylhe.LHEProcInfo(*values, 1.0, 0)]
    a, b = beams
    info = pylhe.LHEInitInfo(a["pdg"], b["pdg"], a["energy"], b["energy"], 0, 0, 0, 0, strategy, len(processes))
    return pylhe.LHEInit(info, processes, [])
