"""examples/showers.py as a user runs it, and examples/classifier_control.py on its results."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import pyrogen as pg

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def call(tmp_path, monkeypatch):
    def run(name, *arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(str(EXAMPLES))
        script = importlib.import_module(name)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        if name == "classifier_control":
            monkeypatch.setitem(script.MODES, "quick", {"events": 2_000, "splits": 2, "toys": 1})
            monkeypatch.setattr(script, "LEAST", 10_000)  # other measures have tests of their own
        threads = torch.get_num_threads()
        script.main()
        torch.set_num_threads(threads)

    return run


def test_a_file_of_showers_from_learning_to_mending(call, tmp_path, capsys):
    showers = pg.events.showers(2_500, "gamma", (1, 20), progress=False)
    pg.events.write_showers(showers, tmp_path / "mine.hdf5")
    options = ["--quick", "--file", "mine.hdf5", "--epochs", 2, "--draws", 3, "--out", "made"]
    call("showers", *options)
    printed = capsys.readouterr().out
    assert "2,000 training showers" in printed and "brightest_2 [GeV]" in printed and "500 generated showers" in printed
    out = tmp_path / "made"
    figures = ("training", "showers", "layer_0", "layer_1", "layer_2", "images")
    assert all((out / f"{name}.png").stat().st_size > 10_000 for name in figures)
    truth = pg.events.read_showers(out / "held_out.hdf5")
    rows = {each.tobytes() for each in pg.events.read_showers("mine.hdf5").values}
    assert len(truth) == 500 and all(each.tobytes() in rows for each in truth.values)
    made = pg.events.read(out / "generated.h5")
    assert len(made) == 500 and made.log_weights.shape == (500, 3) and (made.uncertainties > 0).all()
    row = json.loads((out / "summary.json").read_text())["observables"]["eta_2"]
    assert row["has_truth"] == pytest.approx(np.mean(truth.layer_energies[:, 2] > 0))
    before = (out / "posterior.h5").read_bytes()
    call("showers", *options)  # goes on from the end of the run
    assert (out / "posterior.h5").read_bytes() == before and "going on from" in capsys.readouterr().out

    pytest.importorskip("sklearn", reason="needs the extra trees")
    call("classifier_control", "made", "--quick")
    printed = capsys.readouterr().out
    assert "250 true and 250 generated events" in printed and "has " in printed
    assert "are too few for other measures" in printed
    folder = tmp_path / "out" / "classifier_control_made"
    assert {"weights.png", "failures.png", "pulls.png", "summary.json"} <= {path.name for path in folder.iterdir()}
    again = pg.events.read(folder / "reweighted.h5")
    assert again.names[-1] == "E_inc" and np.allclose(again.column("E_inc"), truth.energies[:250])


def test_the_boundaries_of_layers_on_the_command_line(call, tmp_path, capsys):
    """A file of the CaloChallenge without its binning file; it gets as far as the number of its showers."""
    with h5py.File(tmp_path / "theirs.hdf5", "w") as file:
        file["incident_energies"], file["showers"] = np.full((50, 1), 5_000.0), np.full((50, 20), 100.0)
    for geometry, message in (("0,8,20", "50 showers; too few"), ("0,8,19", "20 voxels"), ("0,8,x", "no such file")):
        with pytest.raises(SystemExit):
            call("showers", "--quick", "--file", "theirs.hdf5", "--geometry", geometry)
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--file", "missing.hdf5"], "missing.hdf5"),
        (["--particle", "muon"], "invalid choice"),
        (["--events", "100"], "100 showers; too few"),
        (["--threshold", "-1"], "threshold"),
        (["--geometry", "0,8,20"], "give --file, too"),
        (["--particle", "pi+", "--file", "mine.hdf5"], "leave it out with --file"),
    ],
)
def test_bad_arguments(call, arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit):
        call("showers", "--quick", *arguments)
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to read-only folders")
def test_a_folder_without_the_right_to_write(call, tmp_path, capsys):
    (tmp_path / "made").mkdir(mode=0o555)
    with pytest.raises(SystemExit):
        call("showers", "--quick", "--events", "250", "--out", "made")
    assert "Permission denied" in capsys.readouterr().err
