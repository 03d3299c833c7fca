"""The Drell-Yan recipe and examples/drell_yan.py: on 5,000 events, and on an LHE file with jets beside the leptons."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_examples import call, is_png

import pyrogen as pg
from pyrogen.diagnostics import classifier_training
from pyrogen.recipes import DrellYan, drell_yan

FIGURES = {"kinematics.png", "uncertainties.png", "training.png"}


@pytest.fixture(autouse=True)
def _short_classifiers(monkeypatch):
    """3,000 steps of a classifier take longer than all the rest; how well it learns is seen in test_classifier.py."""
    monkeypatch.setattr(classifier_training, "MIN_STEPS", 100)


def lhe_with_jets(path: Path, n: int = 700, jets: int = 100) -> Path:
    """Pairs of electrons or muons on a Z peak; the last ones recoil against a gluon."""
    rng = np.random.default_rng(0)
    lines = ['<LesHouchesEvents version="1.0">', "<init>", "2212 2212 3500 3500 0 0 0 0 3 1", "10 0.1 10 1", "</init>"]
    half = 45.6 + 1.25 * np.tan(np.pi * 0.45 * rng.uniform(-1, 1, n)) / 2
    cosine, phi, y = rng.uniform(-1, 1, n), rng.uniform(0, 2 * np.pi, n), rng.normal(0, 1, n)
    for i in range(n):
        sine = np.sqrt(1 - cosine[i] ** 2)
        star = half[i] * np.array([sine * np.cos(phi[i]), sine * np.sin(phi[i]), cosine[i]])
        particles = []
        for sign, pdg in ((1, -11 - 2 * (i % 2)), (-1, 11 + 2 * (i % 2))):
            px, py, pz = sign * star
            pz, energy = np.cosh(y[i]) * pz + np.sinh(y[i]) * half[i], np.sinh(y[i]) * pz + np.cosh(y[i]) * half[i]
            particles.append([pdg, px, py, pz, energy])
        if i >= n - jets:
            particles[0][1] += 30.0
            particles[0][4] = float(np.linalg.norm(particles[0][1:4]))
            particles.append([21, -30.0, 0.0, 0.0, 30.0])
        lines += ["<event>", f"{len(particles)} 1 0.01 91 0.007 0.12"]
        for pdg, *p in particles:
            lines.append(f"{pdg} 1 0 0 0 0 " + " ".join(f"{x:.10e}" for x in p) + " 0.0 0. 9.")
        lines.append("</event>")
    path.write_text("\n".join([*lines, "</LesHouchesEvents>", ""]))
    return path


def test_quick_run_on_the_sample_of_the_package(tmp_path, capsys, quickly_drawn, sparse):
    summary = DrellYan(quick=True, epochs=4, draws=4, log_weights=True).run(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= FIGURES | {
        "posterior.h5",
        "held_out.h5",
        "generated.h5",
        "summary.json",
    }
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert set(summary["wasserstein"]) == {"E", "px", "pT", "pz", "E_pair", "M_pair"}
    assert all(entry["floor"] > 0 for entry in summary["wasserstein"].values())
    assert 0.3 < summary["auc"]["mean"] < 0.9 and summary["peak"]["ratio"] > 0
    generated = pg.events.read(tmp_path / "generated.h5")
    assert len(generated) == 1000 and generated.features == 8 and generated.log_weights.shape == (1000, 4)
    assert pg.events.lepton_balance(generated).all() and generated.uncertainties.min() > 0
    band = pg.sample_histograms(tmp_path / "generated.h5", {"E": ("E_e+", 10, (0, 1000))})["E"]
    assert 0.8 < band.mean.sum() <= 1
    printed = capsys.readouterr().out
    assert "AUC" in printed and "W1/floor" in printed


@pytest.fixture
def not_drawn(monkeypatch):
    """For runs whose figures are those of other tests."""
    for name in ("plot_kinematics", "plot_uncertainties", "plot_training", "save_figure"):
        monkeypatch.setattr(drell_yan, name, lambda *_, **__: None)


@pytest.mark.parametrize("settings", [{"transform": "affine"}, {"coordinates": "cartesian"}], ids=str)
def test_other_flows(tmp_path, settings, not_drawn, sparse):
    DrellYan(quick=True, epochs=2, draws=3, generate=600, **settings).run(tmp_path)


def test_a_file_with_jets_says_what_fits(tmp_path, capsys, not_drawn, sparse):
    path, out = lhe_with_jets(tmp_path / "z.lhe"), tmp_path / "out"
    with pytest.raises(ValueError, match="(?s)100 of 700 events.*30 GeV.*--select balanced"):
        DrellYan(quick=True, events=path).run(out)
    assert not out.exists()
    DrellYan(quick=True, events=path, select="balanced", epochs=2, draws=3).run(out)
    assert "600 events" in capsys.readouterr().out
    assert pg.events.read(out / "generated.h5").names[0] == "px_l+"
    limits = pg.load(out / "posterior.h5").model.describe()["preprocessing"]["parts"][1]
    assert limits["energy"] == 7000.0  # of the beams, from the file


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"events": "missing.h5"}, "no such file"),
        ({"events": "events.txt"}, "unknown suffix"),
        ({"quick": True, "coordinates": "recoil"}, "px_e-"),
        ({"coordinates": "cartesian", "mass_low": 50}, "mass_low is 50.0; it must be left out"),
        ({"events": "events.h5", "leptons": "mu"}, "leptons is 'mu'; it must be left out: only LHE files"),
        ({"quick": True, "dataset": "jets"}, "dataset is 'jets'; it must be left out"),
        ({"select": "recoiling"}, "select is 'recoiling'; it must be left out"),
        ({"generate": 0}, "generate is 0"),
    ],
)
def test_bad_input_is_told_before_any_work(tmp_path, settings, message):
    with pytest.raises((ValueError, OSError), match=message):
        DrellYan(**settings).run(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_tutorial(tmp_path, short, sparse):
    printed = call("drell_yan", "--quick", cwd=tmp_path)
    out = tmp_path / "out" / "drell_yan_quick"
    assert is_png(out / "kinematics.png") and is_png(out / "training.png")
    generated = pg.events.read(out / "generated.h5")
    assert len(generated) == 1000 and generated.features == 8 and generated.uncertainties.min() > 0
    summary = json.loads((out / "summary.json").read_text())
    assert set(summary["wasserstein"]) == {"E", "pT", "pz", "M_pair"} and summary["widths_of_peak"]["held out"] > 0
    assert "W1/floor" in printed and "median uncertainty" in printed


def test_the_tutorial_reads_an_lhe_file(tmp_path, short, sparse):
    path = lhe_with_jets(tmp_path / "z.lhe", jets=0)
    printed = call("drell_yan", "--quick", "--events", path, "--out", tmp_path / "out", layout=False)
    assert "no Z peak in the" in printed  # of so few events
    assert pg.load(tmp_path / "out" / "posterior.h5").info.names[0] == "px_l+"
