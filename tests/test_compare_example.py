"""The comparison of all backends runs as a user runs it: as a script, from the command line."""

import json
import math

import h5py
import pytest
from test_examples import call, is_png, run

import pyrogen as pg

BACKENDS = ["SVI", "Laplace", "Ensemble", "Bootstrap", "SGLD", "SGHMC", "AdamMCMC", "NUTS", "HMC"]
FILES = ["svi", "laplace", "ensemble", "bootstrap", "sgld", "sghmc", "adam-mcmc", "nuts", "hmc"]


def test_all_backends_on_the_wedge(tmp_path):
    options = ("--quick", "--target", "wedge", "--out", tmp_path)
    printed = run("compare_backends", *options)
    out = tmp_path / "wedge"
    assert is_png(out / "backends.png")
    summary = json.loads((out / "summary.json").read_text())
    rows = summary["rows"]
    assert [row["backend"] for row in rows] == BACKENDS
    assert summary["reference"] == "HMC"
    for row, name in zip(rows, FILES, strict=True):
        posterior = pg.load(out / f"{name}.h5")
        assert posterior.info.training_events == summary["events"] == 300
        # Rough, but no guess: a flat density has a total variation of 1/4.
        assert row["tv_truth"] < 0.2
        assert row["mean"] == pytest.approx(row["truth"], abs=0.2)
        assert row["sigma"] > 0
        assert 0 <= row["within_1"] <= row["within_2"] <= 1
        assert math.isfinite(row["held_out"])
        assert row["seconds"] > 0
        assert row["gradients"] > 0
        sampled = name in FILES[4:]
        assert (row["rhat"] is not None) == (row["ess"] is not None) == sampled
        assert len(summary["sigma"][row["backend"]]) == len(summary["t"]) == 21
    lines = printed.splitlines()
    header = next(i for i, line in enumerate(lines) if line.startswith("backend"))
    assert [line.split()[0] for line in lines[header + 1 : header + 10]] == BACKENDS

    # Repeated with a part of the backends: what is there is used again, and gives the same numbers.
    before = (out / "hmc.h5").stat().st_mtime_ns
    printed = call("compare_backends", *options, "--backends", "hmc", "svi")
    assert f"hmc: from {out / 'hmc.h5'}" in printed
    assert (out / "hmc.h5").stat().st_mtime_ns == before
    again = json.loads((out / "summary.json").read_text())["rows"]
    assert [row["backend"] for row in again] == ["SVI", "HMC"]
    for key in ("sigma", "rms_bias", "tv_truth", "rhat", "gradients"):
        assert again[1][key] == rows[-1][key]

    message = call("compare_backends", *options, "--backends", "svi", "--seed", 1, code=1)
    assert "svi.h5 holds a posterior of other settings" in message
    with h5py.File(out / "svi.h5", "r+") as file:
        file.attrs["pyrogen_kind"] = "other"
    assert "svi.h5" in call("compare_backends", *options, "--backends", "svi", code=1)


def test_the_ring_without_hmc(tmp_path):
    few = ("--quick", "--events", 100, "--target", "ring", "--backends", "ensemble", "sghmc", "--out", tmp_path)
    printed = call("compare_backends", *few)
    assert "distances are to Ensemble" in printed
    summary = json.loads((tmp_path / "ring" / "summary.json").read_text())
    assert [row["backend"] for row in summary["rows"]] == ["Ensemble", "SGHMC"]
    assert summary["events"] == 100
    assert (summary["t"][0], summary["t"][-1]) == (2.0, 6.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "camel"], "invalid choice: 'camel'"),
        (["--backends", "svi", "gibbs"], "invalid choice: 'gibbs'"),
        (["--events", "0"], "at least 1"),
        (["--seed", "-1"], "at least 0"),
    ],
)
def test_bad_arguments(arguments, message, tmp_path):
    assert message in call("compare_backends", *arguments, cwd=tmp_path, code=2)
    assert list(tmp_path.iterdir()) == []
