"""examples/showers.py as a user runs it, and benchmarks/classifier_control.py on its results."""

from __future__ import annotations

import sys

import h5py
import numpy as np
import pytest
import torch
from studies import imported
from test_examples import call

import pyrogen as pg


def test_a_file_of_showers_from_learning_to_mending(tmp_path, monkeypatch, capsys, quickly_drawn, sparse):
    showers = pg.events.showers(2_500, "gamma", (1, 20), progress=False)
    pg.events.write_showers(showers, tmp_path / "mine.hdf5")
    options = ["--quick", "--file", "mine.hdf5", "--epochs", 2, "--out", "made"]
    printed = call("showers", *options, cwd=tmp_path, layout=False)
    assert "brightest_2 [GeV]" in printed and "500 generated showers" in printed
    out = tmp_path / "made"
    figures = ("training", "showers", "layer_0", "layer_1", "layer_2", "images")
    assert all((out / f"{name}.png").stat().st_size > 10_000 for name in figures)
    truth = pg.events.read_showers(out / "held_out.hdf5")
    rows = {each.tobytes() for each in pg.events.read_showers(tmp_path / "mine.hdf5").values}
    assert len(truth) == 500 and all(each.tobytes() in rows for each in truth.values)
    made = pg.events.read(out / "generated.h5")
    assert len(made) == 500 and made.log_weights.shape == (500, 10) and (made.uncertainties > 0).all()

    pytest.importorskip("sklearn", reason="needs the extra trees")
    script = imported("classifier_control")
    monkeypatch.setitem(script.MODES, "quick", {"events": 2_000, "splits": 2, "toys": 1})
    monkeypatch.setattr(script, "LEAST", 10_000)  # other measures have tests of their own
    monkeypatch.setattr(sys, "argv", ["classifier_control.py", "made", "--quick"])
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    script.main()
    torch.set_num_threads(threads)
    printed = capsys.readouterr().out
    assert "250 true and 250 generated events" in printed and "has " in printed
    assert "are too few for other measures" in printed
    folder = tmp_path / "out" / "classifier_control_made"
    assert {"weights.png", "failures.png", "pulls.png", "summary.json"} <= {path.name for path in folder.iterdir()}
    again = pg.events.read(folder / "reweighted.h5")
    assert again.names[-1] == "E_inc" and np.allclose(again.column("E_inc"), truth.energies[:250])


def test_the_boundaries_of_layers_on_the_command_line(tmp_path):
    """A file of the CaloChallenge without its binning file."""
    with h5py.File(tmp_path / "theirs.hdf5", "w") as file:
        file["incident_energies"], file["showers"] = np.full((50, 1), 5_000.0), np.full((50, 20), 100.0)
    for geometry, message in (("0,8,19", "20 voxels"), ("0,8,x", "no such file")):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            call("showers", "--quick", "--file", "theirs.hdf5", "--geometry", geometry, cwd=tmp_path)
