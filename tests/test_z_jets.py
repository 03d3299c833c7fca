"""Z + jets: from particles to rows, runs in memory and to a file, and the committed sample."""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from killing import stopped_at

import pyrogen as pg
from pyrogen import events
from pyrogen.events import jets, z_production

COMMITTED = Path(__file__).parents[1] / "examples" / "data" / "z_jets_5k.h5"
REASON = 'needs pip install "pyrogen[pythia,fastjet]"'
LAYOUT = events.Multiplicity(shared=6, each=4, most=3)


@pytest.fixture(scope="module")
def committed():
    return events.read(COMMITTED)


# --- from particles to rows -------------------------------------------------------------------------------


def particle(kind, pt, eta, phi, mother=0, final=True, mass=0.0):
    pz = pt * np.sinh(eta)
    p = {"px": pt * np.cos(phi), "py": pt * np.sin(phi), "pz": pz, "e": np.sqrt(pt**2 + pz**2 + mass**2)}
    return {"id": kind, "status": 1 if final else -1, "mother1": mother, "p": p}


def record(*others):
    """A Z (row 0) that decays to mu- (row 1, with a copy in row 3) and mu+ (row 2), and other particles from row 4."""
    return [
        particle(23, 60, 0.5, 0.1, final=False),
        particle(13, 41, 0.0, 1.0, final=False),
        particle(-13, 50, 1.0, -0.7, mother=0),
        particle(13, 40, 0.0, 1.0, mother=1),
        *others,
    ]


def hand_made():
    """Two events: one with a jet of two particles, one of a single photon, and what is no jet; one without a jet."""
    ak = pytest.importorskip("awkward")
    first = record(
        particle(511, 40, -2.0, 2.0, mother=0, final=False),
        particle(13, 30, -2.0, 2.0, mother=4, mass=0.1),  # from a hadron's decay: part of the jet
        particle(211, 25, -2.2, 2.2, mother=4, mass=0.14),
        particle(22, 70, 3.0, -3.0),
        particle(14, 500, 3.0, -3.0),  # a neutrino
        particle(-211, 15, 0.0, 0.0),  # below 20 GeV
    )
    return ak.Array([first, record(particle(22, 15, 3.0, -3.0))])


def vector_of(event, *rows):
    """The sum of the four-vectors of some particles as pt, eta, phi, m."""
    px, py, pz, energy = np.sum([[event[row]["p"][c] for c in ("px", "py", "pz", "e")] for row in rows], 0)
    pt = np.hypot(px, py)
    return [pt, np.arcsinh(pz / pt), np.arctan2(py, px), np.sqrt(max(energy**2 - px**2 - py**2 - pz**2, 0))]


def check_rows(particles, jets_found):
    rows, counts = jets.z_jets_rows(particles, 20.0, 0.4, 3, 50.0)
    assert counts.tolist() == [len(jets_found), 0] and rows.shape == (1, 18)
    LAYOUT.check(rows)
    expected = [50, 1.0, -0.7, 40, 0.0, 1.0, *np.ravel(jets_found)]
    np.testing.assert_allclose(rows[0, : len(expected)], expected, rtol=1e-9, atol=1e-4)  # of m = 0, rounding is left


def test_jets_of_a_hand_made_event():
    pytest.importorskip("fastjet", reason=REASON)
    particles = hand_made()
    event = particles[0].to_list()
    check_rows(particles, [vector_of(event, 7), vector_of(event, 5, 6)])
    # With a small radius the two particles are two jets.
    rows, counts = jets.z_jets_rows(particles, 20.0, 0.1, 2, 50.0)
    assert counts.tolist() == [3, 0] and rows.shape == (1, 14)
    assert rows[0, [6, 10]] == pytest.approx([70, 30])  # the two hardest
    assert jets.z_jets_rows(particles, 10.0, 0.4, 3, 50.0)[1].tolist() == [3, 1]
    assert jets.z_jets_rows(particles, 20.0, 0.4, 3, 200.0)[1].tolist() == [0, 0]  # the mass of the muons is 96 GeV


def test_muons_of_the_z_and_what_is_clustered(monkeypatch):
    """Without fastjet: every particle above the threshold is a jet."""

    def each_is_a_jet(momenta, pt_min, radius):
        import awkward as ak

        pt = np.hypot(momenta.px, momenta.py)
        order = ak.argsort(pt, axis=1, ascending=False)
        return momenta[order][pt[order] > pt_min]

    particles = hand_made()
    event = particles[0].to_list()
    monkeypatch.setattr(jets, "cluster", each_is_a_jet)
    check_rows(particles, [vector_of(event, row) for row in (7, 5, 6)])
    assert jets.decay_muons(particles)[1].tolist() == [[2, 3], [2, 3]]
    with pytest.raises(RuntimeError, match=r"must have one mu\+ from the Z; Pythia made one with 2"):
        jets.decay_muons(type(particles)([event, record(particle(-13, 9, 0.0, 0.0))]))
    event[3]["mother1"] = 4
    with pytest.raises(RuntimeError, match="must have one mu- from the Z; Pythia made one with 0"):
        jets.decay_muons(type(particles)([event]))


# --- runs -------------------------------------------------------------------------------------------------


class Generator:
    """In place of Pythia: its 'particles' are rows of muons and jets, and the numbers of jets."""

    made = 0

    def __init__(self, settings):
        self.settings = settings
        self.random = np.random.default_rng(int(settings[-1].rpartition("=")[2]))

    def nextBatch(self, n):  # noqa: N802
        Generator.made += 1
        counts = self.random.poisson(0.6, n)
        rows = self.random.uniform(1, 2, (n, 18))
        rows[np.arange(18) >= LAYOUT.width(1) + 4 * (counts[:, None] - 1)] = np.nan
        return SimpleNamespace(prt=(rows[counts > 0], counts))

    def infoPython(self):  # noqa: N802
        return SimpleNamespace(sigmaGen=lambda: 2e-6, sigmaErr=lambda: 1e-8)


@pytest.fixture
def fake(monkeypatch):
    """Blocks of 40 generated events, of which some 18 have a jet, in batches of 10."""
    monkeypatch.setattr(z_production, "BLOCK", 40)
    monkeypatch.setattr(z_production, "BATCH", 10)
    monkeypatch.setattr(z_production, "started", Generator)
    monkeypatch.setattr(z_production, "z_jets_rows", lambda particles, *_: particles)
    monkeypatch.setattr(z_production, "_require_extras", lambda caller: None)
    monkeypatch.setattr(z_production, "_versions", lambda: {"pythia8mc": "8.3", "fastjet": "3.5"})
    Generator.made = 0


def same(a, b):
    return np.array_equal(a.values, b.values, equal_nan=True) and a.provenance == b.provenance


def test_fewer_events_are_the_first_of_more(fake):
    many = events.z_jets(100, seed=3, progress=False)
    assert len(many) == 100 and many.multiplicity == LAYOUT and many.names[:7] == ("pt_mu+", *many.names[1:6], "pt_j1")
    assert same(many, events.z_jets(100, seed=3, progress=False))
    for n in (1, 18, 40, 99):
        few = events.z_jets(n, seed=3, progress=False)
        assert np.array_equal(few.values, many.values[:n], equal_nan=True)
    assert not np.array_equal(events.z_jets(9, seed=4, progress=False).values, many.values[:9], equal_nan=True)


def test_provenance_counts_all_generated_events(fake):
    told = events.z_jets(100, seed=3, progress=False).provenance
    assert told["generated"] == 10 * Generator.made == sum(told["events_by_jets"].values())
    assert len(told["block_seeds"]) == -(-told["generated"] // 40) == len({*told["block_seeds"]})
    by_jets = {int(jet): found for jet, found in told["events_by_jets"].items()}
    with_jets = told["generated"] - by_jets[0]
    assert with_jets >= 100 and with_jets - 100 < 10  # it ends with the batch that has enough
    total = sum(sigma for sigma, _ in told["cross_sections_pb"].values())
    assert told["cross_section_generated_pb"][0] == pytest.approx(2000)
    # The estimates of the blocks are independent: errors fall with the root of their number, by shares of events.
    shares = np.array([40] * (told["generated"] // 40) + [told["generated"] % 40]) / told["generated"]
    assert told["cross_section_generated_pb"][1] == pytest.approx(10 * np.sqrt((shares**2).sum()))
    assert told["cross_section_pb"] == pytest.approx(total) == pytest.approx(2000 * with_jets / told["generated"])
    assert list(told["cross_sections_pb"]) == ["1", "2", "3 or more"]
    three, error = told["cross_sections_pb"]["3 or more"]
    p = sum(found for jet, found in by_jets.items() if jet >= 3) / told["generated"]
    assert three == pytest.approx(2000 * p)
    spread = np.hypot(p * told["cross_section_generated_pb"][1], 2000 * np.sqrt(p * (1 - p) / told["generated"]))
    assert error == pytest.approx(spread)


def test_arguments_are_settings(fake):
    told = events.z_jets(5, underlying_event=True, energy=8000, pt_min=30, radius=0.6, progress=False).provenance
    assert "Beams:eCM = 8000" in told["settings"] and "PartonLevel:MPI = on" in told["settings"]
    assert "R = 0.6, E scheme, pT > 30 GeV" in told["jets"] and told["beams"][0]["energy"] == 4000
    assert "PartonLevel:MPI = off" in events.z_jets(5, progress=False).provenance["settings"]
    assert len({setting.partition(" =")[0] for setting in told["settings"]}) == len(told["settings"])


def run(path, n=50, **options):
    return events.z_jets_to(path, n, **{"seed": 3, "progress": False} | options)


def test_a_file_has_the_events_of_memory(fake, tmp_path):
    assert run(tmp_path / "a.h5") == tmp_path / "a.h5"
    assert same(events.read(tmp_path / "a.h5"), events.z_jets(50, seed=3, progress=False))
    assert os.listdir(tmp_path) == ["a.h5"]


@pytest.mark.parametrize(("how", "stride"), [("kill", 5), ("interrupt", 11)])
def test_stopped_at_any_step_it_goes_on_to_the_same_bits(fake, tmp_path, how, stride):
    whole = run(tmp_path / "whole.h5").read_bytes()
    for step in itertools.count(1, stride):
        folder = tmp_path / f"{step}"
        folder.mkdir()
        if not stopped_at(step, lambda: run(folder / "a.h5"), folder, how):  # noqa: B023 (called at once)
            break
        run(folder / "a.h5")
        assert (folder / "a.h5").read_bytes() == whole and os.listdir(folder) == ["a.h5"], step
    assert step > 40


def test_finished_blocks_are_kept_and_other_settings_refused(fake, tmp_path, monkeypatch):
    whole = run(tmp_path / "whole.h5").read_bytes()
    batches, path = Generator.made, tmp_path / "a.h5"

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(z_production, "_provenance", stop)
        run(path)
    assert Generator.made == 2 * batches and not path.exists()
    for other in ({"n": 49}, {"seed": 4}, {"pt_min": 21}, {"underlying_event": True}):
        with pytest.raises(ValueError, match=f"the parts of another run, with other {next(iter(other))}; finish"):
            run(path, **other)
    run(path)
    assert Generator.made == 2 * batches and path.read_bytes() == whole


def test_a_full_disk_keeps_the_blocks_before(fake, tmp_path, monkeypatch):
    whole, path = run(tmp_path / "whole.h5").read_bytes(), tmp_path / "a.h5"
    save = pg.EventSample.save

    def until_full(sample, part):
        if part.name == "000001.h5":
            raise OSError(28, "No space left on device")
        save(sample, part)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(pg.EventSample, "save", until_full)
        run(path)
    assert sorted(os.listdir(tmp_path / "a.h5.parts")) == ["000000.h5", "job.json"] and not path.exists()
    run(path)
    assert path.read_bytes() == whole


# --- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n": 0}, "n is 0; it must be a whole number of at least 1"),
        ({"seed": -1}, "seed is -1; it must be a whole number of at least 0"),
        ({"underlying_event": "on"}, "underlying_event is 'on'; it must be True or False"),
        ({"energy": 0}, "energy is 0; it must be positive"),
        ({"pt_min": 0}, "pt_min is 0; it must be positive"),
        ({"radius": np.inf}, "radius is inf; it must be positive and finite"),
        ({"jets": 0}, "jets is 0; it must be a whole number of at least 1"),
    ],
)
def test_wrong_arguments(fake, tmp_path, given, message):
    with pytest.raises(ValueError, match=message):
        events.z_jets(**{"n": 1} | given)
    with pytest.raises(ValueError, match=message):
        events.z_jets_to(tmp_path / "a.h5", **{"n": 1} | given)
    assert Generator.made == 0 and os.listdir(tmp_path) == []


def test_files_that_cannot_be_written_are_refused_before_the_work(fake, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        run(tmp_path / "nowhere" / "a.h5")
    (tmp_path / "folder.h5").mkdir()
    with pytest.raises(IsADirectoryError):
        run(tmp_path / "folder.h5")
    with pytest.raises(ValueError, match="unknown suffix"):
        run(tmp_path / "a.txt")
    with pytest.raises(ValueError, match=r"LHE would lose the multiplicity; write .*\.h5"):
        run(tmp_path / "a.lhe")
    assert Generator.made == 0 and os.listdir(tmp_path) == ["folder.h5"]


@pytest.mark.parametrize("missing", ["pythia8mc", "awkward", "fastjet"])
def test_missing_extras_are_named_both(monkeypatch, tmp_path, missing):
    for module in ("pythia8mc", "awkward", "fastjet"):
        monkeypatch.setitem(sys.modules, module, None if module == missing else SimpleNamespace())
    message = rf'needs {missing}; install it with: pip install "pyrogen\[pythia,fastjet\]"'
    with pytest.raises(ImportError, match=f"z_jets {message}"):
        events.z_jets(1)
    with pytest.raises(ImportError, match=f"z_jets_to {message}"):
        events.z_jets_to(tmp_path / "a.h5", 1)
    assert os.listdir(tmp_path) == []


def test_what_pythia_refuses(monkeypatch):
    class Pythia:
        def __init__(self, *_):
            pass

        def readString(self, setting):  # noqa: N802
            return "eCM" not in setting or unknown == 0

        def init(self):
            return False

    monkeypatch.setitem(sys.modules, "pythia8mc", SimpleNamespace(Pythia=Pythia))
    monkeypatch.setattr(z_production, "_require_extras", lambda caller: None)
    unknown = 1
    with pytest.raises(RuntimeError, match="does not know the setting 'Beams:eCM = 13000'"):
        events.z_jets(1, progress=False)
    unknown = 0
    with pytest.raises(RuntimeError, match="Pythia did not start with these settings: Beams:eCM = 13000;"):
        events.z_jets(1, progress=False)


def test_no_jet_at_all_ends_the_run(fake, monkeypatch):
    monkeypatch.setattr(z_production, "z_jets_rows", lambda *_: (np.empty((0, 18)), np.zeros(10, int)))
    with pytest.raises(RuntimeError, match="none of 40 generated events has a jet with pT > 1000 GeV"):
        events.z_jets(1, pt_min=1000, progress=False)


# --- the committed sample ---------------------------------------------------------------------------------


def test_committed_sample(committed):
    assert committed.multiplicity == LAYOUT and len(committed) == 5000 and committed.weights is None
    assert COMMITTED.stat().st_size < 400_000
    told = committed.provenance
    assert told["version"] == "8.317.2" and told["seed"] == 1 and sum(told["events_by_jets"].values()) > 20_000
    # Four standard deviations around what 424,543 events gave: 76.4 %, 18.2 %, 5.3 %.
    shares = np.bincount(committed.counts, minlength=4)[1:] / 5000
    for share, expected in zip(shares, (0.7642, 0.1823, 0.0535), strict=True):
        assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / 5000)
    pt = committed.values[:, 6::4]
    assert np.nanmin(pt) >= 20 and not (np.diff(pt, axis=1) > 0).any()
    assert np.nanmax(np.abs(committed.values[:, [2, 5, 8, 12, 16]])) <= np.float32(np.pi)
    mass = events.z_jets_observables()["M_pair"](committed).numpy()
    assert mass.min() > 50 and abs(np.mean((mass > 76) & (mass < 106)) - 0.937) < 4 * np.sqrt(0.06 / 5000)


def test_committed_sample_is_what_the_function_makes(committed):
    for module in ("pythia8mc", "fastjet"):
        pytest.importorskip(module, reason=REASON)
    again = events.z_jets(60, seed=committed.provenance["seed"], progress=False)
    assert again.provenance["settings"] == committed.provenance["settings"]
    assert again.provenance["block_seeds"] == committed.provenance["block_seeds"]
    assert np.array_equal(again.values.astype(np.float32), committed.values[:60].astype(np.float32), equal_nan=True)
