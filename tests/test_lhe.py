"""Les Houches files: which particles become columns, weights, what is left out, and every way a file can be broken."""

from __future__ import annotations

import gzip
import os
import sys
import warnings

import numpy as np
import pytest

from pyrogen import events
from pyrogen.events import JETS, EventSample, EventWriter
from pyrogen.files import FileFormatError

HEAD = """<LesHouchesEvents version="3.0">
<header>
# a comment
</header>
<init>
 2212 2212 6.5e3 6.5e3 0 0 247000 247000 -4 2
 1.5e+01 3.0e-01 1.0 1
 2.5e+01 4.0e-01 1.0 2
<generator name='toy' version='1.2'>by hand</generator>
</init>
"""
TAIL = "</LesHouchesEvents>\n"
LEPTONS = {"l+": (-11, -13), "l-": (11, 13)}
TWO_JETS = {"j1": JETS, "j2": JETS}


def event(*ids: int, weight: object = 1.0, scale: float = 1.0, announced: int | None = None) -> str:
    """An event as MadGraph writes it: particle i (from 1) of the final state has px = i scale, E = 10 i scale."""
    lines = [f" {len(ids) + 3 if announced is None else announced} 1 {weight} 9.1e1 7.5e-3 1.18e-1"]
    lines += [f" {pdg} -1 0 0 501 0 0. 0. {sign}50. 50. 0. 0. 9." for pdg, sign in ((2, "+"), (-2, "-"))]
    lines += [" 23 2 1 2 0 0 0. 0. 0. 100. 91. 0. 9."]  # in between: not of the final state
    for i, pdg in enumerate(ids, 1):
        lines.append(f" {pdg} 1 3 3 0 0 {i * scale} {-i} {2 * i} {10 * i * scale} 0.0 0. 1.")
    lines.append("# 1 2.0 3")
    body = "\n".join(lines)
    clustering = '<clustering>\n<clus scale="90.3"> 4 5 -1 -1</clus>\n</clustering>\n'
    return f"<event>\n{body}\n{clustering}<rwgt>\n<wgt id='1'> 9.9 </wgt>\n</rwgt>\n</event>\n"


@pytest.fixture
def lhe(tmp_path):
    """Writes events into a file, plain or gzipped."""

    def write(*texts: str, name: str = "a.lhe", head: str = HEAD, tail: str = TAIL):
        content = (head + "".join(texts) + tail).encode()
        path = tmp_path / name
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return path

    return write


def assert_same(a: EventSample, b: EventSample) -> None:
    assert a.values.tobytes() == b.values.tobytes()
    assert np.array_equal(a.weights, b.weights)
    for name in ("names", "units", "provenance"):
        assert getattr(a, name) == getattr(b, name)


# --- what is read -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.lhe", "A.LHE.gz"])
def test_particles_of_the_final_state(lhe, name):
    path = lhe(event(-11, 11, weight=2.5), event(13, -13, weight=-0.5, scale=2.0), name=name)
    sample = events.read(path, particles=LEPTONS)
    assert sample.names == tuple(f"{c}_{name}" for name in ("l+", "l-") for c in ("px", "py", "pz", "E"))
    assert sample.units == ("GeV",) * 8
    # The positive lepton comes first in the first event and second in the second.
    assert sample.values.tolist() == [[1, -1, 2, 10, 2, -2, 4, 20], [4, -2, 4, 40, 2, -1, 2, 20]]
    assert sample.weights.tolist() == [2.5, -0.5]
    assert sample.provenance == {
        "file": name,
        "beams": [{"pdg": 2212, "energy": 6500.0}] * 2,
        "weighting_strategy": -4,
        "processes": [
            {"id": 1, "cross_section_pb": 15.0, "cross_section_error_pb": 0.3},
            {"id": 2, "cross_section_pb": 25.0, "cross_section_error_pb": 0.4},
        ],
        "cross_section_pb": 40.0,
        "cross_section_error_pb": 0.5,
        "generators": ["toy 1.2"],
    }
    chosen = events.read(path, particles=LEPTONS, columns=["E_l-", "px_l+"])
    assert chosen.names == ("E_l-", "px_l+") and chosen.values.tolist() == [[20, 1], [20, 4]]
    with pytest.raises(ValueError, match=r"has no column 'm'; its columns are px_l\+, "):
        events.read(path, particles=LEPTONS, columns=["m"])


def test_names_of_a_sequence_of_ids_and_of_the_first_event(lhe):
    path = lhe(event(-11, 11, 21, 21, 1000022), event(21, 11, 1000022, -11, 21))
    names = ("e+", "e-", "g1", "g2", "pdg1000022")
    for particles in (None, [-11, 11, 21, 21, 1000022]):
        sample = events.read(path, particles=particles)
        assert sample.names == tuple(f"{c}_{name}" for name in names for c in ("px", "py", "pz", "E"))
    # The second event: gluons in order of falling pT are its fifth and its first.
    assert sample.values[:, ::4].tolist() == [[1, 2, 4, 3, 5], [4, 2, 5, 1, 3]]


def test_jets_in_order_of_falling_transverse_momentum(lhe):
    path = lhe(event(-11, 21, 11, -3), event(1, -11, 11, 2))
    sample = events.read(path, particles=TWO_JETS | {"e": 11})
    assert sample.names[::4] == ("px_j1", "px_j2", "px_e")
    assert sample.values[:, ::4].tolist() == [[4, 2, 3], [4, 1, 3]]


def test_weights_are_kept_unless_all_are_one(lhe):
    for weights, kept in (((1.0, 1.0), None), ((0.3, 0.3), [0.3, 0.3]), ((1.0, -0.5), [1.0, -0.5])):
        path = lhe(*(event(11, -11, weight=w) for w in weights))
        sample = events.read(path)
        assert sample.weights is None if kept is None else sample.weights.tolist() == kept
        assert next(events.stream(path)).weights.tolist() == list(weights)
    path = lhe(*(event(11, weight=w) for w in (1.0, -2.0)))
    with pytest.raises(FileFormatError, match=r"a\.lhe holds no sample .* must be positive; it is -1"):
        events.read(path)
    assert len(list(events.stream(path, chunk=1))) == 2


@pytest.mark.filterwarnings("ignore:.*were left out")
@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
def test_stream_equals_read(lhe, chunk):
    ids = [(-11, 11), (-13, 13, 21), (-11, 11), (-11, 12), (11, -11), (-11, 11, 21), (13, -13), (11,)]
    path = lhe(*(event(*some, weight=1 + i, scale=i) for i, some in enumerate(ids, 1)))
    choices = {"particles": LEPTONS, "others": "skip", "missing": "skip"}
    whole = events.read(path, **choices)
    parts = list(events.stream(path, chunk=chunk, **choices))
    assert [len(part) for part in parts[:-1]] == [chunk] * (len(parts) - 1)
    assert_same(EventSample.concatenate(parts, parts[-1].provenance), whole)
    assert whole.weights.tolist() == [2, 4, 6, 8]
    # The last part knows also of those left out behind the last event that was taken.
    assert whole.provenance["left_out"] == {"with other particles": 2, "without the particles wanted": 2}


def test_events_left_out_are_counted_and_warned_of(lhe):
    path = lhe(event(-11, 11), event(-11, 11, 21), event(-13, 13))
    with pytest.warns(UserWarning, match=r"a\.lhe: 1 of 3 events were left out: 1 without the particles wanted"):
        assert len(events.read(path, particles=[11, -11], missing="skip")) == 2
    with pytest.warns(UserWarning, match="1 of 3 events were left out: 1 with other particles"):
        assert len(events.read(path, particles=LEPTONS, others="skip")) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(events.read(path, particles=LEPTONS)) == 3  # others are ignored
    with pytest.raises(FileFormatError, match=r"a\.lhe holds no sample .*: all 3 were left out \(3 without"):
        events.read(path, particles=[25], missing="skip")


def test_progress(lhe, capsys):
    events.read(lhe(event(11), event(11)), progress=True)
    assert "2 events" in capsys.readouterr().err


# --- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ids", "choices", "message"),
    [
        ((13, -13), {"particles": [11, -11]}, r"final state mu-, mu\+, and particles asks for one each of e-, e\+;"),
        ((11, -11, -11), {"particles": [11, -11]}, r"final state e-, 2 e\+, .*give missing=\"skip\""),
        ((11, -11, 21), {"particles": {"e": 11}, "others": "error"}, 'final state e-, e.*others="skip" .*"keep"'),
        ((11, -11, 21), {}, r"final state e-, e\+, g, and the first event has e-, e\+; .*others=\"skip\""),
        ((11, 21), {"particles": TWO_JETS}, ".*one each of j1, j2; .*missing="),
        ((), {}, "final state no particle"),
    ],
)
def test_content_that_does_not_match(lhe, ids, choices, message):
    first = (1, 21) if choices.get("particles") is TWO_JETS else (11, -11)
    if choices.get("others") == "error":
        first = (11,)
    path = lhe(event(*first), event(*first), event(*ids))
    with pytest.raises(FileFormatError, match=rf"a\.lhe: event 2 \(counted from 0\) has the {message}"):
        events.read(path, **choices)


@pytest.mark.parametrize(
    ("choices", "error", "message"),
    [
        ({"particles": {}}, ValueError, "must name at least one particle"),
        ({"particles": "e+"}, TypeError, "a mapping of names to PDG ids, or a sequence of ids"),
        ({"particles": {"e": "e-"}}, TypeError, r"particles\['e'\] is 'e-'; it must be a PDG id or a sequence"),
        ({"particles": {"l": (11, 13), "m": 13}}, ValueError, "mu- is in several groups that differ"),
        ({"others": "drop"}, ValueError, "others is 'drop'; it must be"),
        ({"missing": "keep"}, ValueError, "missing is 'keep'; it must be"),
        (
            {"dataset": "events"},
            ValueError,
            "is no HDF5 or ROOT file; leave out dataset='events'; .*: particles, others, missing, weights",
        ),
    ],
)
def test_choices_that_are_none(lhe, choices, error, message):
    with pytest.raises(error, match=message):
        events.read(lhe(event(11)), **choices)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (event(11, announced=9), r"event 300 \(counted from 0\) announces 9 particles and has 4; remove it"),
        (event(11).replace("2 10.0 0.0", "2 1o.0 0.0"), r"event 300 \(counted from 0\) is malformed: .*'1o.0'; remove"),
        (event(11).replace("2 10.0 0.0", "2"), r"event 300 \(counted from 0\) is malformed: .*index"),
        (event(11).replace("2 10.0 0.0", "2 nan 0.0"), r"event 300 \(counted from 0\) has a momentum .* NaN"),
        (event(11).replace("2 10.0 0.0", "2 1e999 0.0"), "event 300 .* NaN or infinite"),
        (event(11, weight="inf"), "event 300 .* has a momentum or weight that is NaN or infinite"),
        (event(11, weight="many"), "event 300 .* is malformed: .*'many'"),
        ("<event></event>", "event 300 .* is malformed: <event> block has no text"),
        ("<event>\n</wrong>\n", r"is no longer XML at event 300 .* mismatched tag.* </LesHouchesEvents>"),
    ],
)
@pytest.mark.parametrize("name", ["a.lhe", "a.lhe.gz"])
def test_broken_events(lhe, broken, message, name):
    path = lhe(*[event(11)] * 300, broken, event(11), name=name)
    with pytest.raises(FileFormatError, match=rf"{name}:? {message}"):
        events.read(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whatever filters the user has set
        assert sum(len(part) for part in take(events.stream(path, chunk=100))) >= 200


def test_numbers_of_events_count_those_left_out(lhe):
    path = lhe(event(11), event(13), event(11), event(13), event(11), event(11, weight="nan"))
    parts = events.stream(path, particles=[11], missing="skip", chunk=2)
    assert len(next(parts)) == 2
    with pytest.raises(FileFormatError, match=r"event 5 \(counted from 0\) has a momentum"), pytest.warns(UserWarning):
        next(parts)


def take(parts):
    """The parts up to an error."""
    with pytest.raises(FileFormatError):
        yield from parts


def test_broken_files(lhe):
    path = lhe(event(11), tail="")
    with pytest.raises(FileFormatError, match=r"no longer XML at event 1 .*no </LesHouchesEvents> .*the 1 events"):
        events.read(path)
    for content in (b"", HEAD.encode()[:60], b"px py pz\n1 2 3\n", (HEAD + TAIL).encode(), b"<html></html>"):
        path.write_bytes(content)
        with pytest.raises(FileFormatError, match=r"a\.lhe (is empty|does not begin|holds no sample.*it has none)"):
            events.read(path)
    path = lhe(*(event(11, scale=i) for i in range(1, 2000)), name="a.lhe.gz")
    content = path.read_bytes()
    for end in (len(content) // 2, len(content) - 1, len(content) - 8):
        path.write_bytes(content[:end])
        with pytest.raises(FileFormatError, match=r"a\.lhe\.gz is a truncated or damaged gzip file, behind event \d+"):
            events.read(path)
    content = bytearray(lhe(event(11), tail=TAIL + "\n" * 300_000, name="a.lhe.gz").read_bytes())
    content[-8] ^= 1  # the checksum, which stands far behind the last event
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match="behind event 1 .*CRC check failed"):
        events.read(path)


def test_without_pylhe(lhe, monkeypatch):
    path = lhe(event(11))
    monkeypatch.setitem(sys.modules, "pylhe", None)
    with pytest.raises(ImportError, match=r'reading LHE files needs pylhe; .*pip install "pyrogen\[lhc\]"'):
        events.read(path)


# --- what is written --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["b.lhe", "b.lhe.gz"])
@pytest.mark.parametrize("weighted", [True, False])
def test_written_events_come_back_bit_for_bit(tmp_path, name, weighted):
    rng = np.random.default_rng(2)
    p = rng.normal(size=(40, 2, 3)) * [30.0, 30.0, 200.0]
    energy = np.sqrt((p**2).sum(-1, keepdims=True)) * [[[1.0], [1.5]]]
    names = [f"{c}_{particle}" for particle in ("mu+", "pdg1000022") for c in ("px", "py", "pz", "E")]
    weights = rng.normal(1.0, 1.0, size=40) if weighted else None
    values = np.concatenate([p, energy], -1).reshape(40, 8)
    sample = EventSample(values, names, ["GeV"] * 8, weights, provenance={"cross_section_pb": 7.5})
    events.write(sample, tmp_path / "once.lhe")
    with EventWriter(tmp_path / name) as writer:
        for rows in (slice(0, 1), slice(1, 40)):
            some = None if weights is None else weights[rows]
            writer.write(EventSample(values[rows], names, ["GeV"] * 8, some, provenance=sample.provenance, part=0))
    for file in ("once.lhe", name):
        again = events.read(tmp_path / file)
        assert again.values.tobytes() == values.tobytes() and again.names == sample.names
        assert again.weights is None if weights is None else again.weights.tobytes() == weights.tobytes()
        assert again.provenance["cross_section_pb"] == 7.5
        assert again.provenance["weighting_strategy"] == (-4 if weighted else 3)


def test_masses_are_never_imaginary(tmp_path):
    import pylhe

    for energy, mass in ((4.0, 0.0), (13.0, 12.0)):
        sample = EventSample([[3.0, 4.0, 0.0, energy]], [f"{c}_h" for c in ("px", "py", "pz", "E")])
        events.write(sample, tmp_path / "b.lhe")
        (only,) = pylhe.LHEFile.fromfile(tmp_path / "b.lhe").events
        assert [(p.id, p.status, p.m) for p in only.particles] == [(25, 1, mass)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"names": ["px_h", "py_h", "pz_h", "m_h"]},
            "needs px_<name>, .* no other column; .* px_h, .*m_h",
        ),
        ({"names": [f"{c}_jet" for c in ("px", "py", "pz", "E")]}, "no PDG id is known for jet; .*px_pdg<id>"),
        ({"units": ["TeV"] * 4}, "momenta in GeV; the units are TeV"),
        ({"uncertainties": [0.1], "log_weights": [[0.0]]}, "would lose the uncertainties and log_weights; write .*h5"),
    ],
)
def test_what_lhe_has_no_place_for(tmp_path, arguments, message):
    names = {"names": [f"{c}_h" for c in ("px", "py", "pz", "E")]}
    with pytest.raises(ValueError, match=message):
        events.write(EventSample(np.ones((1, 4)), **(names | arguments)), tmp_path / "b.lhe")
    assert os.listdir(tmp_path) == []
