"""Dijets: labels beside events, jets and what is in them, the source in memory and to a file, the committed sample."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from killing import stopped_at

import pyrogen as pg
from pyrogen import events
from pyrogen.events import dijet_production, dijet_sample, substructure

COMMITTED = Path(__file__).parents[1] / "examples" / "data" / "dijets_8k.h5"
REASON = 'needs pip install "pyrogen[pythia,fastjet]"'
NAMES = ("mjj", "mj1", "delta_mj", "tau21_1", "tau21_2")


def sample(n=6):
    values = np.random.default_rng(0).uniform(0.1, 1, (n, 5)) + [3, 0, 0, 0, 0]
    return pg.EventSample(values, NAMES, ("TeV",) * 3 + ("",) * 2, provenance={"a": 1})


# --- labels -----------------------------------------------------------------------------------------------


def test_labels_are_no_column_of_the_events(tmp_path):
    found = events.Dijets(sample(), [0, 1, 0, 0, 1, 0])
    assert found.events.names == NAMES and found.signal.dtype == bool and not found.signal.flags.writeable
    path = found.save(tmp_path / "d.h5")
    back = events.Dijets.read(path)
    assert np.array_equal(back.events.values, found.events.values) and np.array_equal(back.signal, found.signal)
    assert back.events.units == found.events.units and back.events.provenance == {"a": 1}
    assert events.read(path).names == (*NAMES, "signal")
    with pytest.raises(ValueError, match="without the column 'signal', which is a label and no feature"):
        events.Dijets(events.read(path))
    mask = found.events.column("mjj") > 3.5
    for chosen in (mask, np.array([4, 1]), slice(1, 5, 2)):
        assert np.array_equal(found[chosen].events.values, found.events.values[chosen])
        assert np.array_equal(found[chosen].signal, found.signal[chosen])
    unknown = events.Dijets(sample())
    assert unknown[:2].signal is None and unknown.table() is unknown.events
    assert repr(found).startswith("Dijets(6 events, 2 of them signal, mjj from 3.")


def test_weights_stay_with_labelled_events(tmp_path):
    weighted = pg.EventSample(sample().values, NAMES, weights=np.arange(1.0, 7), uncertainties=np.full(6, 0.1))
    back = events.Dijets.read(events.Dijets(weighted, np.ones(6)).save(tmp_path / "d.h5"))
    assert np.array_equal(back.events.weights, weighted.weights) and back.signal.all()
    assert np.array_equal(back.events.uncertainties, weighted.uncertainties)


@pytest.mark.parametrize(
    ("signal", "message"),
    [
        ([0, 1], r"signal is \[0, 1\]; it must be \[6\], one label for each event"),
        ([0, 1, 2, 0, 0, 0], "signal is 2 in event 2; it must be 0 or 1"),
        ([0, 1, np.nan, 0, 0, 0], "signal is nan in event 2"),
        (["a"] * 6, "signal has entries of <U1; they must be 0 and 1"),
    ],
)
def test_wrong_labels(signal, message):
    with pytest.raises((ValueError, TypeError), match=message):
        events.Dijets(sample(), signal)


def test_features_order_the_jets_by_mass():
    jets = np.array([[[1500, 0, 0, 300], [-1400, 0, 100, 80]], [[1500, 0, 0, 50], [-1400, 0, 0, 90]]], float)
    tau = np.array([[[0.4, 0.1], [0.2, 0.1]], [[0.0, 0.0], [0.5, 0.2]]])
    rows = dijet_sample.features(jets, tau)
    np.testing.assert_allclose(rows[:, 1:], [[80, 220, 0.5, 0.25], [50, 40, 0.0, 0.4]])
    energy = [np.hypot(1500, 300) + np.sqrt(1400**2 + 100**2 + 80**2), np.hypot(1500, 50) + np.hypot(1400, 90)]
    p2 = np.array([100**2 + 100**2, 100**2])
    np.testing.assert_allclose(rows[:, 0], np.sqrt(np.square(energy) - p2))


# --- jets and what is in them -----------------------------------------------------------------------------


def momenta(*event):
    """Massless particles (pT, eta, phi)."""
    pt, eta, phi = np.array(event, float).reshape(-1, 3).T
    p = (pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), pt * np.cosh(eta))
    return [dict(zip(("px", "py", "pz", "E"), one, strict=True)) for one in zip(*p, strict=True)]


def awkward_of(*lists):
    ak = pytest.importorskip("awkward")
    return ak.Array(list(lists), with_name="Momentum4D")


def test_two_hardest_jets():
    pytest.importorskip("fastjet", reason=REASON)
    first = [(500, 0.1, 3.1), (450, -0.2, -3.1), (700, 0.5, 0.0), (2000, 2.9, 1.5), (60, -1.5, 1.5)]
    found, jets, inside = substructure.two_hardest(
        awkward_of(momenta(*first), momenta(first[2]), momenta(*first[2:])), 1.0
    )
    assert found.tolist() == [0, 2] and jets.shape == (2, 2, 4)
    # The two particles at phi = pi are one jet, of more pT than the third; the jet at eta = 2.9 does not count.
    assert np.hypot(jets[0, 0, 0], jets[0, 0, 1]) == pytest.approx(948, abs=3) and len(inside[0, 0]) == 2
    assert np.hypot(*jets[0, 1, :2]) == pytest.approx(700) and np.hypot(*jets[1, 1, :2]) == pytest.approx(60)
    px, py, pz, energy = jets[0, 0]
    by_hand = 2 * 500 * 450 * (np.cosh(0.3) - np.cos(3.1 + 3.1))
    assert substructure.masses(jets)[0, 0] ** 2 == pytest.approx(by_hand, rel=1e-9)
    assert substructure.masses(np.array([1.0, 0, 0, 1 - 1e-12])) == 0


def test_subjettiness_of_jets_of_few_particles():
    pytest.importorskip("fastjet", reason=REASON)
    pair, triple = [(300, 0.0, 3.1), (100, 0.3, -3.1)], [(300, 0.0, 3.1), (100, 0.3, -3.1), (50, 0.4, -3.1)]
    jets = awkward_of(momenta((300, 0.2, 1.0)), momenta(*pair), momenta(*triple))
    apart = np.hypot(0.3, 2 * np.pi - 6.2)
    far = np.hypot(0.4, 2 * np.pi - 6.2)
    expected = [0, 100 * apart / 400, (100 * apart + 50 * far) / 450]
    np.testing.assert_allclose(substructure.subjettiness(jets, 1, 1.0), expected, rtol=1e-6)
    np.testing.assert_allclose(substructure.subjettiness(jets, 1, 0.5), np.multiply(2, expected), rtol=1e-6)
    # The softest particle goes with the one 0.1 from it, which is harder and so gives the axis.
    np.testing.assert_allclose(substructure.subjettiness(jets, 2, 1.0), [0, 0, 50 * 0.1 / 450], rtol=1e-6)
    assert substructure.subjettiness(jets[:0], 2, 1.0).shape == (0,)


def test_fastjet_leaves_warnings_as_they_are():
    pytest.importorskip("fastjet", reason=REASON)
    import warnings

    form = warnings.formatwarning
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        substructure.subjettiness(awkward_of(momenta((300, 0.0, 0.0), (100, 0.3, 0.0))), 1, 1.0)
    assert warnings.formatwarning is form


# --- runs -------------------------------------------------------------------------------------------------


class Generator:
    """In place of Pythia: its 'particles' are rows of features in GeV, some in the window; one event fails."""

    made = 0

    def __init__(self, settings):
        seed = int(settings[-1].rpartition("=")[2])
        self.signal = any("ffbar2Wprime" in setting for setting in settings)
        self.random = np.random.default_rng(seed)

    def nextBatch(self, n):  # noqa: N802 (Pythia's name)
        type(self).made += 1
        rows = self.random.uniform(0, 1, (n - 1, 5)) * [2000, 100, 300, 1, 1] + [2500, 50 + 1000 * self.signal, 0, 0, 0]
        return SimpleNamespace(prt=rows)

    def infoPython(self):  # noqa: N802
        return SimpleNamespace(sigmaGen=lambda: 2e-9, sigmaErr=lambda: 1e-11)


@pytest.fixture
def fake(monkeypatch):
    def rows_of(particles, process):
        mass = particles[:, 0] / 1000
        return particles[(mass >= process.window[0]) & (mass <= process.window[1])]

    monkeypatch.setattr(dijet_production, "started", Generator)
    monkeypatch.setattr(dijet_production, "dijet_rows", rows_of)
    monkeypatch.setattr(dijet_production, "BLOCK", 40)
    monkeypatch.setattr(dijet_production, "BATCH", 10)
    monkeypatch.setattr(dijet_production, "_ROWS", 7)
    monkeypatch.setattr(dijet_production, "require_extra", lambda *_: None)
    monkeypatch.setattr(dijet_production.metadata, "version", lambda name: "1")
    Generator.made = 0


def made(n=50, seed=3, **options):
    return events.dijets(n, seed, progress=False, **options)


def same(a, b):
    return (
        np.array_equal(a.events.values, b.events.values)
        and np.array_equal(a.signal, b.signal)
        and a.events.provenance == b.events.provenance
        and a.events.units == b.events.units
    )


def test_both_kinds_are_mixed_and_fewer_are_the_first_of_more(fake):
    found = made(50, signal=20)
    assert len(found) == 70 and found.signal.sum() == 20 and found.events.names == NAMES
    assert np.array_equal(found.events.values[:, 1] > 1, found.signal)  # the light jet of the fake's signal
    assert found.signal[:35].any() and found.signal[35:].any()
    assert ((found.events.values[:, 0] >= 3.3) & (found.events.values[:, 0] <= 3.7)).all()
    assert same(found, made(50, signal=20)) and not same(found, made(50, 4, signal=20))
    few = made(9, signal=4)
    for kind in (True, False):
        whole = found.events.values[found.signal == kind]
        part = few.events.values[few.signal == kind]
        assert np.array_equal(part, whole[: len(part)])
    assert made(0, signal=5).signal.all() and not made(5).signal.any()
    assert np.array_equal(made(50).events.values, found.events.values[~found.signal])


def test_provenance_counts_all_generated_events(fake):
    told = made(50, signal=20).events.provenance
    for kind in ("background", "signal"):
        part = told[kind]
        assert len(part["block_seeds"]) == len({*part["block_seeds"]}) == -(-part["generated"] // 36)
        share = part["in_window"] / part["generated"]
        assert part["cross_section_pb"] == pytest.approx(2 * share)
        shares = np.array([36] * (part["generated"] // 36) + [part["generated"] % 36]) / part["generated"]
        error = np.hypot(
            0.01 * np.sqrt((shares**2).sum()) * share, 2 * np.sqrt(share * (1 - share) / part["generated"])
        )
        assert part["cross_section_error_pb"] == pytest.approx(error)
    assert told["background"]["generated"] + told["signal"]["generated"] == 9 * Generator.made
    assert not {*told["background"]["block_seeds"]} & {*told["signal"]["block_seeds"]}
    assert "signal" not in made(5).events.provenance and told["beams"][0]["energy"] == 6500


def test_arguments_are_settings(fake):
    told = made(
        2, signal=2, window=(2.8, 4.0), pt_min=1.0, masses=(3, 0.4, 0.2), underlying_event=True, energy=14, radius=0.8
    ).events.provenance
    background, signal = told["background"]["settings"], told["signal"]["settings"]
    assert {"Beams:eCM = 14000", "PartonLevel:MPI = on"} <= {*background} & {*signal}
    assert {"PhaseSpace:pTHatMin = 800", "PhaseSpace:mHatMin = 2240", "HardQCD:all = on"} <= {*background}
    assert {"34:m0 = 3000", "34:mWidth = 30", "9000001:new = X+ X- 1 3 0 400 4 200 600 0"} <= {*signal}
    assert "R = 0.8" in told["jets"] and "pT > 1 TeV" in told["jets"] and "2.8 to 4 TeV" in told["jets"]


def to_file(path, **options):
    return events.dijets_to(path, 30, 3, **{"signal": 9, "progress": False} | options)


def test_a_file_has_the_events_of_memory(fake, tmp_path):
    assert to_file(tmp_path / "a.h5") == tmp_path / "a.h5"
    assert same(events.Dijets.read(tmp_path / "a.h5"), made(30, signal=9)) and os.listdir(tmp_path) == ["a.h5"]


def test_stopped_at_some_steps_it_goes_on_to_the_same_bits(fake, tmp_path):
    whole = to_file(tmp_path / "whole.h5").read_bytes()
    for step in (9, 31):
        folder = tmp_path / f"{step}"
        folder.mkdir()
        if not stopped_at(step, lambda: to_file(folder / "a.h5"), folder, "kill"):  # noqa: B023 (called at once)
            break
        to_file(folder / "a.h5")
        assert (folder / "a.h5").read_bytes() == whole and os.listdir(folder) == ["a.h5"], step
    assert step == 31


def test_parts_of_another_run_are_refused(fake, tmp_path, monkeypatch):
    path = tmp_path / "a.h5"

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(dijet_production, "_provenance", stop)
        to_file(path)
    for other in ({"signal": 8}, {"pt_min": 1.3}, {"masses": (3.0, 0.5, 0.1)}):
        with pytest.raises(ValueError, match=f"the parts of another run, with other {next(iter(other))}; finish"):
            to_file(path, **other)
    batches = Generator.made
    to_file(path)
    assert Generator.made == batches  # all blocks were there


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n": 0}, "n is 0; it must be at least 1, or signal at least 1"),
        ({"signal": -1}, "signal is -1; it must be a whole number of at least 0"),
        ({"window": (3.7, 3.3)}, "window is .3.7, 3.3.; it must be .low, high."),
        ({"window": (3300, 3700)}, "window is .3300.0, 3700.0.; it must be masses in TeV below 13"),
        ({"pt_min": 1200}, "pt_min is 1200.0; it must be in TeV, below 6.5"),
        ({"masses": (3.5, 0.5)}, "masses is .3.5, 0.5.; it must be three masses in TeV"),
        ({"masses": (0.5, 0.4, 0.2)}, "masses is .*; it must be .W', X, Y. with X and Y together lighter than W'"),
        ({"energy": -1}, "energy is -1; it must be positive"),
        ({"underlying_event": 1}, "underlying_event is 1; it must be True or False"),
        ({"radius": 0}, "radius is 0; it must be positive"),
    ],
)
def test_wrong_arguments(given, message, tmp_path):
    for function, path in ((events.dijets, ()), (events.dijets_to, (tmp_path / "a.h5",))):
        with pytest.raises(ValueError, match=message):
            function(*path, **{"n": 5, "progress": False} | given)
    assert os.listdir(tmp_path) == []


def test_no_event_in_the_window(fake):
    with pytest.raises(RuntimeError, match="none of 36 generated background events has a mass of 8 to 9 TeV"):
        made(5, window=(8, 9))


# --- Pythia itself ----------------------------------------------------------------------------------------


def test_pythia_makes_the_resonance(monkeypatch):
    pytest.importorskip("pythia8mc", reason=REASON)
    pytest.importorskip("fastjet", reason=REASON)
    monkeypatch.setattr(dijet_production, "BATCH", 50)
    found = made(4, 1, signal=60)
    mjj, mj1, delta, tau1, tau2 = found.events.values[found.signal].T
    assert abs(np.median(mjj) - 3.5) < 0.03 and abs(np.median(mj1) - 0.1) < 0.02
    assert abs(np.median(mj1 + delta) - 0.5) < 0.03
    both = found.events.values[:, 3:]
    assert (both > 0).all() and (both < 1).all()
    assert np.median(tau2) < 0.35  # two quarks, where one parton has about 0.5


# --- the committed sample ---------------------------------------------------------------------------------


def test_committed_sample():
    found = events.Dijets.read(COMMITTED)
    assert COMMITTED.stat().st_size < 300_000
    assert len(found) == 8120 and found.signal.sum() == 120
    values, signal = found.events.values, found.signal
    assert found.events.names == NAMES and ((values[:, 0] >= 3.1) & (values[:, 0] <= 3.9)).all()
    assert (values[:, 1:3] >= 0).all() and ((values[:, 3:] >= 0) & (values[:, 3:] < 1)).all()
    assert np.median(values[signal, 0]) == pytest.approx(3.5, abs=0.03)
    heavy = values[:, 1] + values[:, 2]
    assert np.median(heavy[signal]) == pytest.approx(0.5, abs=0.03)
    # The spectrum of the background falls.
    counts = np.histogram(values[~signal, 0], np.linspace(3.1, 3.9, 5))[0]
    assert (np.diff(counts) < 0).all()
    told = found.events.provenance
    assert told["seed"] == 1 and told["background"]["in_window"] >= 8000 and told["signal"]["in_window"] >= 120


def test_a_jet_without_mass_has_a_density():
    mass = np.linspace(0.0, 0.5, 50)
    ratios = np.linspace(0.0, 1.0, 50)
    sample = pg.EventSample(np.column_stack([mass, mass[::-1], ratios, ratios[::-1]]))
    coordinates = pg.events.dijet_coordinates().fit(sample)
    inner, log_jacobian = coordinates(sample.tensor())
    assert inner.isfinite().all() and log_jacobian.isfinite().all()
    assert coordinates.inverse(inner)[0].numpy() == pytest.approx(sample.values, abs=1e-6)
