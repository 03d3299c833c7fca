"""CATHODE as a user finds it: by the example's command line."""

import json

import numpy as np
from test_examples import call, is_png


def test_the_dijets_of_the_repository(tmp_path):
    printed = call("cathode", "--quick", "--out", tmp_path)
    told = json.loads((tmp_path / "cathode.json").read_text())
    assert [row["efficiency"] for row in told["table"]] == [0.3, 0.1, 0.03, 0.01]
    assert told["settings"]["flows"] == 3 and len(told["true_background"]) == 4
    for row, truth in zip(told["table"], told["true_background"], strict=True):
        assert row["observed"] >= truth and row["corrected"] > 0 and row["sigma_corrected"] > 0
    assert all(is_png(tmp_path / f"{name}.png") for name in ("template", "significance", "mass"))
    assert all((tmp_path / f"flow{k}.h5").exists() for k in range(3))
    assert "CATHODE, mjj from 3.4 to 3.6 TeV" in printed and "true background after each cut" in printed


def test_bad_files(tmp_path):
    assert "none.h5" in call("cathode", tmp_path / "none.h5", "--out", tmp_path, code=1)
    np.savez(tmp_path / "two.npz", data=np.zeros((3, 5)), test=np.zeros((3, 5)))
    assert "part" in call("cathode", tmp_path / "two.npz", "--out", tmp_path, code=1)
