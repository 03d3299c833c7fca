"""The recipe of Z + jets and examples/z_jets.py, on 5,000 events."""

from __future__ import annotations

import json

import pytest
import torch
from test_examples import call, is_png

import pyrogen as pg
from pyrogen.recipes import ZJets, z_jets, z_jets_results


def test_quick_run_on_the_sample_of_the_package(tmp_path, monkeypatch, capsys, quickly_drawn, sparse):
    few = {jets: names[:1] for jets, names in z_jets_results.FIGURES.items()}
    monkeypatch.setattr(z_jets_results, "FIGURES", few)
    # So few events that no classifier is trained, which takes longest.
    summary = ZJets(quick=True, epochs=2, draws=3, train=2000, generate=600).run(tmp_path)
    figures = {f"{kind}_{jets}.png" for kind in ("kinematics", "uncertainties") for jets in (1, 2, 3)}
    assert {path.name for path in tmp_path.iterdir()} >= figures | {"training.png", "posterior.h5", "generated.h5"}
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert summary["numbers"]["mean"] == pytest.approx([0.77, 0.18, 0.055], abs=0.03)  # of 2,000 training events
    assert summary["2 jets"]["distance"]["below"] == 0  # the hole is closed
    assert set(summary["3 jets"]["wasserstein"]) == set(summary["3 jets"]["bins"])
    generated = pg.events.read(tmp_path / "generated.h5")
    assert generated.multiplicity == pg.events.Multiplicity(6, 4, 3) and set(generated.counts) == {1, 2, 3}
    assert generated.log_weights.shape == (600, 3)
    told = capsys.readouterr().out
    assert "number of jets   posterior" in told and "W1/floor" in told and "closer than 0.4" in told


def test_coordinates_of_the_paper_with_a_discriminator(tmp_path, monkeypatch):
    for name in ("plot_kinematics", "plot_uncertainties", "plot_training", "save_figure"):
        monkeypatch.setattr(z_jets, name, lambda *_, **__: None)
    recipe = ZJets(quick=True, coordinates="paper", discflow=True, epochs=1, draws=2, train=1500, generate=1500)
    summary = recipe.run(tmp_path)
    assert summary["discflow"] and set(summary["2 jets"]["distance"]) == {"below", "true_below", "ratio_above"}
    assert pg.load(tmp_path / "posterior.h5").info.reweighted


def test_polar_coordinates_of_the_second_jet():
    for coordinates, polar in (("resonance", 0), ("polar", 1)):
        model = z_jets.make_model(coordinates, {"blocks": 1, "hidden": (4,)})
        assert (model.preprocessing.parts[0].coordinates, model.preprocessing.parts[0].polar) == ("resonance", polar)


def test_discriminator_sees_mass_and_distances():
    sample = pg.events.read(z_jets.SAMPLE)
    seen = z_jets.hidden_features(sample.tensor(torch.float64))
    assert seen.shape == (len(sample), 5)
    there = torch.stack([torch.as_tensor(sample.counts >= n) for n in (1, 1, 2, 3, 3)], 1)
    assert torch.equal(seen.isfinite(), there)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": 100}, "125 events are too few to learn from"),
        ({"events": "missing.h5"}, "missing.h5"),
        ({"events": "plain.h5"}, "plain.h5 has the layout None; this needs two leptons and 1 to 3 jets"),
        ({"epochs": 0}, "epochs is 0; it must be a whole number"),
        ({"coordinates": "mass"}, "coordinates is 'mass'; it must be one of resonance, polar, paper"),
    ],
)
def test_bad_settings(settings, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pg.EventSample(torch.randn(600, 4)).save("plain.h5")
    with pytest.raises((ValueError, OSError), match=message):
        ZJets(**{"quick": True} | settings).run("out")
    assert not (tmp_path / "out").exists()


def test_the_tutorial(tmp_path, short, sparse):
    printed = call("z_jets", "--quick", cwd=tmp_path, layout=False)
    out = tmp_path / "out" / "z_jets_quick"
    assert is_png(out / "two_jets.png") and is_png(out / "training.png")
    generated = pg.events.read(out / "generated.h5")
    assert len(generated) == 5000 and generated.log_weights.shape == (5000, 20)
    found = json.loads((out / "summary.json").read_text())["jets"]
    assert found["mean"] == pytest.approx(found["truth"], abs=0.03)
    assert "number of jets   posterior" in printed
