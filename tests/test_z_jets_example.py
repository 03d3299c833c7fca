"""examples/z_jets.py as a user runs it, on the committed sample."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
import torch

import pyrogen as pg

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def script(example):
    return example("z_jets")


@pytest.fixture
def run(script, run_here):
    return functools.partial(run_here, script)


def test_quick_run_on_the_committed_sample(run, script, monkeypatch, capsys):
    monkeypatch.setattr(script, "FIGURES", {jets: names[:2] for jets, names in script.FIGURES.items()})
    # So few events that no classifier is trained, which takes longest.
    arguments = ("--quick", "--epochs", 2, "--draws", 3, "--train", 2000, "--generate", 600)
    out = run(*arguments) / "out" / "z_jets_quick_resonance_rqs"
    figures = {f"{kind}_{jets}.png" for kind in ("kinematics", "uncertainties") for jets in (1, 2, 3)}
    assert {path.name for path in out.iterdir()} >= figures | {"training.png", "posterior.h5", "generated.h5"}
    summary = json.loads((out / "summary.json").read_text())
    assert summary["numbers"]["mean"] == pytest.approx([0.77, 0.18, 0.055], abs=0.03)  # of 2,000 training events
    assert summary["2 jets"]["distance"]["below"] == 0  # the hole is closed
    assert set(summary["3 jets"]["wasserstein"]) == set(summary["3 jets"]["bins"])
    generated = pg.events.read(out / "generated.h5")
    assert generated.multiplicity == pg.events.Multiplicity(6, 4, 3) and set(generated.counts) == {1, 2, 3}
    assert generated.log_weights.shape == (600, 3)
    told = capsys.readouterr().out
    assert "number of jets   posterior" in told and "W1/floor" in told and "closer than 0.4" in told


def test_coordinates_of_the_paper_with_a_discriminator(run, script, monkeypatch):
    for name in ("plot_kinematics", "plot_uncertainties", "plot_training", "save_figure"):
        monkeypatch.setattr(script, name, lambda *_, **__: None)
    arguments = ("--quick", "--coordinates", "paper", "--discflow", "--epochs", 1, "--draws", 2, "--train", 1500)
    out = run(*arguments, "--generate", 1500, "--out", "run")
    summary = json.loads((out / "run" / "summary.json").read_text())
    assert summary["discflow"] and set(summary["2 jets"]["distance"]) == {"below", "true_below", "ratio_above"}
    assert pg.load(out / "run" / "posterior.h5").info.reweighted


def test_polar_coordinates_of_the_second_jet(script):
    for coordinates, polar in (("resonance", 0), ("polar", 1)):
        model = script.make_model(coordinates, {"blocks": 1, "hidden": (4,)})
        assert (model.preprocessing.parts[0].coordinates, model.preprocessing.parts[0].polar) == ("resonance", polar)


def test_discriminator_sees_mass_and_distances(script):
    sample = pg.events.read(script.SAMPLE)
    seen = script.hidden_features(sample.tensor(torch.float64))
    assert seen.shape == (len(sample), 5)
    there = torch.stack([torch.as_tensor(sample.counts >= n) for n in (1, 1, 2, 3, 3)], 1)
    assert torch.equal(seen.isfinite(), there)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--train", 100), "too few to learn from"),
        (("--events", "missing.h5"), "missing.h5"),
        (("--events", "plain.h5"), "this script needs two leptons and 1 to 3 jets"),
        (("--epochs", 0), "whole number"),
    ],
)
def test_bad_arguments(run, arguments, message, capsys, tmp_path):
    pg.EventSample(torch.randn(600, 4)).save(tmp_path / "plain.h5")
    with pytest.raises(SystemExit):
        run("--quick", *arguments)
    assert message in capsys.readouterr().err
