"""The recipes: whole runs with the settings of the package, as the command runs them."""

import inspect
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from devices import pretend_card
from test_examples import is_png, numbers

import pyrogen as pg
from pyrogen.diagnostics.look_at_run import FEWEST_STEPS
from pyrogen.recipes import DrellYan, Toy, ZJets, backends, drell_yan, toy_settings, z_jets

ROOT = Path(__file__).parents[1]
FIGURES = ("lines", "map", "marginals", "marginal_sigma", "correlation", "training")


def test_a_quick_toy(tmp_path, capsys, monkeypatch, quickly_drawn, sparse):
    """The ring; ``examples/wedge_svi.py`` does the same on the wedge."""
    out = tmp_path / "made" / "ring"
    monkeypatch.setitem(toy_settings.MODES["quick"]["evaluation"], "generated", 1000)
    summary = Toy("ring", quick=True, epochs=12).run(out)
    assert all(is_png(out / f"{name}.png") for name in FIGURES)
    assert pg.load(out / "posterior.h5").info.training_events == 20_000

    assert json.loads((out / "summary.json").read_text()) == summary
    assert all(map(math.isfinite, numbers(summary)))
    table = summary["table"]
    assert list(table) == ["r", "p", "sigma", "truth", "pull"]
    assert {len(column) for column in table.values()} == {9}
    # A quick fit is rough, but no guess: a Gaussian of the same mean and width is off by 0.44 on the wedge.
    assert summary["rms_bias"] < 0.1 * max(table["truth"])
    assert summary["within_2_sigma"] > 0.6
    assert len(summary["fit"]["values"]) == 2
    assert summary["settings"]["seed"] == 0
    assert summary["settings"]["transform"] == "bernstein"

    printed = capsys.readouterr().out
    lines = printed.splitlines()
    header = next(i for i, line in enumerate(lines) if line.split() == ["r", "p", "sigma", "truth", "pull"])
    first = [float(word) for word in lines[header + 1].split()]
    assert first == pytest.approx([column[0] for column in table.values()], abs=6e-3)
    for words in ("rms bias", "within 2 sigma", "repeat the command", "Does sigma cover the truth?"):
        assert words in printed
    for path in out.iterdir():
        assert path.name == "run_checkpoint.h5" or str(path) in printed


@pytest.fixture
def coarse(monkeypatch, quickly_drawn, sparse):
    """Few draws, points and bins, for runs whose numbers are not looked at."""
    few = {"draws": 4, "points": 9, "cells": 8, "generated": 300, "bins": 8}
    monkeypatch.setitem(toy_settings.MODES["quick"], "evaluation", few)


@pytest.fixture
def one_figure(monkeypatch):
    """Of six figures only that of the training is drawn."""
    recipe = sys.modules[Toy.__module__]
    save = recipe.save_figure
    monkeypatch.setattr(recipe, "save_figure", lambda its, path: save(its, path) if path.stem == "training" else path)


#: Every backend once, and all targets: the flow of the ramps and that of the ring.
BACKENDS = {
    "hmc": "wedge",
    "nuts": "kicker",
    "sgld": "wedge",
    "sghmc": "kicker",
    "adam-mcmc": "kicker",
    "ensemble": "ring",
    "bootstrap": "wedge",
    "laplace": "kicker",
}


@pytest.mark.parametrize("backend", BACKENDS)
def test_another_backend_in_the_same_recipe(backend, request, tmp_path, capsys, coarse):
    if backend not in ("ensemble", "hmc"):  # five of the figures know a posterior and not its backend
        request.getfixturevalue("one_figure")
    summary = Toy(BACKENDS[backend], quick=True, backend=backend).run(tmp_path)
    drawn = FIGURES if backend in ("ensemble", "hmc") else ("training",)
    assert {path.stem for path in tmp_path.glob("*.png") if is_png(path)} == {*drawn}
    posterior = pg.load(tmp_path / "posterior.h5")
    assert posterior.info.backend.lower() == backend.replace("-", "")
    assert summary["settings"]["backend"] == backend
    assert summary["settings"]["events"] == posterior.info.training_events == 300
    assert "rms bias" in capsys.readouterr().out


@pytest.mark.parametrize("recipe", [Toy, DrellYan, ZJets], ids=lambda recipe: recipe.__name__)
def test_the_device_is_that_of_the_training(recipe, tmp_path, monkeypatch):
    """The posterior and all that is predicted with it stay there."""

    class ReachedError(Exception):
        pass

    def reached(backend, *rest):
        raise ReachedError(backend.device)

    monkeypatch.setattr(sys.modules[recipe.__module__], "fitted", reached)
    target = ("ring",) if recipe is Toy else ()
    with pretend_card():
        for device in ("cpu", "cuda"):
            for more in ({}, {"backend": "hmc"}) if recipe is Toy else ({},):
                with pytest.raises(ReachedError, match=device):
                    recipe(*target, quick=True, device=device, **more).run(tmp_path)
    with pytest.raises(ValueError, match="device is 'gpu'"):
        recipe(*target, quick=True, device="gpu")


def test_what_the_toys_take_by_default():
    table_1 = backends.make_model("paper", toy_settings.TRANSFORMS["paper"], ring=False)
    assert table_1.weights == 44_840
    assert toy_settings.make_settings("paper", "affine", False, None) == {
        "epochs": 300,
        "batch_size": 512,
        "lr": 1e-3,
        "lr_widths": 1e-2,
        "widths_after": 0.6,
    }
    for ring in (False, True):
        model = backends.make_model("default", toy_settings.TRANSFORMS["default"], ring)
        # The mean-field guide of more weights than events would be no default, nor a training too short to judge.
        assert model.weights < 2_000
        settings = toy_settings.make_settings("default", "bernstein", ring, None)
        assert settings["epochs"] >= 60 and 300_000 // settings["batch_size"] * settings["epochs"] > FEWEST_STEPS
    assert backends.events_of("bootstrap", "default") == 300_000
    assert backends.events_of("hmc", "default") == 2_000
    assert backends.make_toy_backend("bootstrap", "default", 0, None).batch_size == 2000
    far = torch.tensor([[0.0, 9.5]], dtype=torch.float64)  # one in ten samples of 300,000 has an event beyond 9
    for transform in ("bernstein", "rqs"):
        inner, _ = backends.make_model("default", transform, ring=True).preprocessing(far)
        assert ((inner > 0) & (inner < 1)).all()


RUN = """
import sys
from pyrogen.recipes import Toy
Toy("wedge", quick=True, events=600, transform="rqs", epochs=40).run(sys.argv[1])
"""


def test_a_run_stopped_by_ctrl_c_goes_on_to_the_same_end_and_another_one_is_refused(
    tmp_path, capsys, coarse, one_figure
):
    few = Toy("wedge", quick=True, events=600, transform="rqs", epochs=40)
    whole = few.run(tmp_path / "whole")

    checkpoint = tmp_path / "killed" / "run_checkpoint.h5"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    command = [sys.executable, "-c", RUN, str(checkpoint.parent)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        while not checkpoint.exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, message = process.communicate(timeout=60)
    assert f"SVI was stopped by Ctrl-C; the run is saved in {checkpoint}." in message.splitlines()[-1]
    assert [path for path in checkpoint.parent.iterdir() if path.suffix != ".tmp"] == [checkpoint]
    capsys.readouterr()
    again = few.run(checkpoint.parent)
    assert f"going on from {checkpoint}" in capsys.readouterr().out
    for key in ("table", "rms_bias", "within_2_sigma", "pull_rms", "fit"):
        assert again[key] == whole[key]

    with pytest.raises(pg.CheckpointMismatchError, match="epochs: 40 in the file, 2 in this run") as refused:
        Toy("wedge", quick=True, events=600, transform="rqs", epochs=2).run(checkpoint.parent)
    assert "another folder" in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"events": -5}, "events is -5; it must be a whole number of at least 1"),
        ({"events": 10, "quick": True}, "events is 10; it must be at least 512"),
        ({"transform": "cubic"}, "transform is 'cubic'; it must be one of bernstein"),
        ({"backend": "gibbs"}, "backend is 'gibbs'"),
        ({"target": "gamma"}, "target is 'gamma'; it must be one of wedge, kicker, ring"),
        ({"backend": "hmc", "transform": "rqs"}, "transform is 'rqs'; it must be left out: backend hmc has"),
        ({"backend": "hmc", "paper": True}, "paper is True; it must be left out: backend hmc has"),
        ({"quick": True, "paper": True}, "paper is True; it must be left out where quick is given"),
        ({"draws": 1}, "draws is 1; it must be a whole number of at least 2"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**63}, "seed is 9223372036854775808"),
        ({"threads": 2000}, "threads is 2000; it must be at most 1,024"),
        # What would end the run after the training.
        ({"backend": "hmc", "events": 2}, "events is 2; it must be at least 3, to fit the true form"),
        ({"backend": "ensemble", "draws": 21}, "draws is 21; it must be at most 20"),
        ({"backend": "bootstrap", "draws": 33}, "draws is 33; it must be at most 32"),
        ({"backend": "hmc", "quick": True, "draws": 21}, "draws is 21; it must be at most 20"),
    ],
)
def test_wrong_settings_of_a_toy(settings, message):
    with pytest.raises(ValueError, match="^" + message.replace(".", r"\.")):
        Toy(**{"target": "wedge"} | settings)


def test_a_folder_that_cannot_be_written_is_told_before_any_work(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="^out is .*file"):
        Toy("wedge", quick=True).run(tmp_path / "file")


def test_what_does_not_fit_into_memory(tmp_path):
    with pytest.raises(MemoryError, match="300,000,000,000,000"):
        Toy("wedge", events=300_000_000_000_000).run(tmp_path)


def test_every_kind_of_run_has_a_folder_of_its_own():
    recipes = [
        Toy("wedge"),
        Toy("ring"),
        Toy("wedge", quick=True),
        Toy("wedge", paper=True),
        Toy("wedge", transform="affine"),
        Toy("wedge", backend="hmc"),
        DrellYan(),
        DrellYan(quick=True),
        DrellYan(coordinates="cartesian"),
        ZJets(quick=True),
        ZJets(discflow=True),
    ]
    folders = [str(each.folder) for each in recipes]
    assert folders[0] == "out/toy_wedge" and folders[2] == "out/toy_wedge_quick" and len({*folders}) == len(recipes)
    assert Toy("wedge", paper=True, transform="affine").folder == recipes[3].folder  # what it is anyway


def test_every_setting_is_described():
    for recipe in (Toy, DrellYan, ZJets):
        told = inspect.cleandoc(recipe.__doc__).partition("Attributes:")[2]
        assert [field.name for field in fields(recipe) if f"\n    {field.name}: " not in told] == []


def test_the_package_brings_its_samples_along():
    """An installed package has no folder `examples`; both are what the scripts there have made."""
    for sample in (drell_yan.SAMPLE, z_jets.SAMPLE):
        assert sample.is_relative_to(Path(pg.__file__).parent)
        assert sample.read_bytes() == (ROOT / "examples" / "data" / sample.name).read_bytes()
    assert sum(sample.stat().st_size for sample in (drell_yan.SAMPLE, z_jets.SAMPLE)) < 450_000  # of the wheel


def test_without_an_extra_the_recipes_say_what_else_to_give(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pythia8mc", None)
    for recipe, sample in ((DrellYan(), "drell_yan"), (ZJets(), "z_jets")):
        with pytest.raises(ImportError, match=rf"{sample} needs pythia8mc.*\n.*--events FILE.*--quick"):
            recipe.run(tmp_path / "none")
    monkeypatch.setitem(sys.modules, "hist", None)
    with pytest.raises(ImportError, match=r"pyrogen\[lhc\]"):
        DrellYan(quick=True).run(tmp_path / "none")
    assert not (tmp_path / "none").exists()
