"""The examples run as a user runs them: as scripts, from the command line."""

import contextlib
import importlib
import importlib.metadata
import io
import json
import math
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import pyrogen as pg
from pyrogen.diagnostics.look_at_run import FEWEST_STEPS

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
TOYS = ("wedge_svi", "kicker_svi", "ring_svi")
savefig = Figure.savefig


def start(script, *arguments, cwd=ROOT):
    """Start an example with the pyrogen of this repository."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    command = [sys.executable, str(EXAMPLES / f"{script}.py"), *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run(script, *arguments, cwd=ROOT, code=0):
    """Run an example to its end; returns what it printed, or its message where it is expected to fail."""
    with start(script, *arguments, cwd=cwd) as process:
        printed, message = process.communicate(timeout=300)
    assert process.returncode == code, printed + message
    assert "Traceback" not in message, message
    return message if code else printed


def drawn_once(figure, *arguments, bbox_inches=None, **options):
    """A figure's ``savefig`` that leaves out its layout, and with it three fourths of its time."""
    figure.set_layout_engine("none")
    savefig(figure, *arguments, **options)


def call(script, *arguments, cwd=ROOT, code=0, layout=True, folder=EXAMPLES):
    """The same as :func:`run` in this process: where a process of its own would do little else than import torch.

    Without ``layout``, all figures are still drawn: for runs of a script whose layout another test sees.
    """
    if not layout:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Figure, "savefig", drawn_once)
            return call(script, *arguments, cwd=cwd, code=code, folder=folder)
    printed, message, kept = io.StringIO(), io.StringIO(), (sys.argv, sys.path[:])
    sys.argv, sys.path[:0] = [f"{script}.py", *map(str, arguments)], [str(folder)]
    found = 0
    try:
        with contextlib.chdir(cwd), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(message):
            runpy.run_path(str(folder / f"{script}.py"), run_name="__main__")
    except SystemExit as end:
        found = end.code
    finally:
        sys.argv, sys.path[:] = kept
    assert found == code, printed.getvalue() + message.getvalue()
    return (message if code else printed).getvalue()


def numbers(value):
    """All numbers of a JSON structure."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for inner in value for number in numbers(inner)]
    return [value] if isinstance(value, (int, float)) else []


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("script", TOYS)
def test_quick_toys(script, tmp_path):
    how = run if script == "wedge_svi" else call  # one of them as from a shell
    printed = how(script, "--quick", "--out", tmp_path / "made" / script)
    out = tmp_path / "made" / script
    for name in ("lines", "map", "marginals", "marginal_sigma", "correlation", "training"):
        assert is_png(out / f"{name}.png")
    assert pg.load(out / "posterior.h5").info.training_events == 20_000

    summary = json.loads((out / "summary.json").read_text())
    assert all(map(math.isfinite, numbers(summary)))
    table = summary["table"]
    coordinate = "r" if script == "ring_svi" else "x"
    assert list(table) == [coordinate, "p", "sigma", "truth", "pull"]
    assert {len(column) for column in table.values()} == {9}
    # A quick fit is rough, but no guess: a Gaussian of the same mean and width is off by 0.44 on the wedge.
    assert summary["rms_bias"] < 0.1 * max(table["truth"])
    assert summary["within_2_sigma"] > 0.6
    assert len(summary["fit"]["values"]) == 2
    assert summary["settings"]["seed"] == 0
    assert summary["settings"]["transform"] == "bernstein"
    if script == "wedge_svi":  # even this one arrives
        assert not any(finding["serious"] for finding in summary["advice"])

    lines = printed.splitlines()
    header = next(i for i, line in enumerate(lines) if line.split() == [coordinate, "p", "sigma", "truth", "pull"])
    first = [float(word) for word in lines[header + 1].split()]
    assert first == pytest.approx([column[0] for column in table.values()], abs=6e-3)
    assert "rms bias" in printed
    assert "within 2 sigma" in printed
    assert "repeat the command" in printed
    for path in out.iterdir():
        assert path.name == "run_checkpoint.h5" or str(path) in printed


@pytest.mark.parametrize("script", TOYS)
@pytest.mark.parametrize("backend", ["hmc", "nuts", "sgld", "sghmc", "adam-mcmc", "ensemble", "bootstrap", "laplace"])
def test_another_backend_in_the_same_script(script, backend, tmp_path):
    printed = call(script, "--quick", "--backend", backend, "--out", tmp_path, layout=False)
    for name in ("lines", "map", "marginals", "marginal_sigma", "training"):
        assert is_png(tmp_path / f"{name}.png")
    posterior = pg.load(tmp_path / "posterior.h5")
    assert posterior.info.backend.lower() == backend.replace("-", "")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["settings"]["backend"] == backend
    assert summary["settings"]["events"] == posterior.info.training_events == 300
    assert "rms bias" in printed


def test_what_the_toys_take_by_default(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    backends, toy = (importlib.import_module(name) for name in ("backends", "toy"))
    table_1 = backends.make_model("paper", toy.TRANSFORMS["paper"], ring=False)
    assert table_1.weights == 44_840
    assert toy.make_settings("paper", "affine", False, None) == {
        "epochs": 300,
        "batch_size": 512,
        "lr": 1e-3,
        "lr_widths": 1e-2,
        "widths_after": 0.6,
    }
    for ring in (False, True):
        model = backends.make_model("default", toy.TRANSFORMS["default"], ring)
        # The mean-field guide of more weights than events would be no default, nor a training too short to judge.
        assert model.weights < 2_000
        settings = toy.make_settings("default", "bernstein", ring, None)
        assert settings["epochs"] >= 60 and 300_000 // settings["batch_size"] * settings["epochs"] > FEWEST_STEPS
    assert backends.events_of("bootstrap", "default") == 300_000
    assert backends.events_of("hmc", "default") == 2_000
    assert backends.make_toy_backend("bootstrap", "default", 0, None).batch_size == 2000
    far = torch.tensor([[0.0, 9.5]], dtype=torch.float64)  # one in ten samples of 300,000 has an event beyond 9
    for transform in ("bernstein", "rqs"):
        inner, _ = backends.make_model("default", transform, ring=True).preprocessing(far)
        assert ((inner > 0) & (inner < 1)).all()


def test_a_run_stopped_by_ctrl_c_goes_on_to_the_same_end_and_another_one_is_refused(tmp_path):
    few = ("--quick", "--events", "600", "--transform", "rqs", "--epochs", "60", "--out")
    call("wedge_svi", *few, tmp_path / "whole", layout=False)

    checkpoint = tmp_path / "killed" / "run_checkpoint.h5"
    with start("wedge_svi", *few, checkpoint.parent) as process:
        while not checkpoint.exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, message = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in message
    assert message.splitlines()[-1].startswith(f"SVI was stopped by Ctrl-C; the run is saved in {checkpoint}.")
    assert [path for path in checkpoint.parent.iterdir() if path.suffix != ".tmp"] == [checkpoint]
    assert f"going on from {checkpoint}" in call("wedge_svi", *few, checkpoint.parent, layout=False)
    whole, again = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("whole", "killed"))
    for key in ("table", "rms_bias", "within_2_sigma", "pull_rms", "fit"):
        assert again[key] == whole[key]

    message = call("wedge_svi", *few, checkpoint.parent, "--epochs", 2, code=1)
    assert "epochs: 60 in the file, 2 in this run" in message
    assert "--out" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--events", "-5"], "'-5' is not a whole number of at least 1"),
        (["--events", "many"], "'many' is not a whole number"),
        (["--events", "10", "--quick"], "fewer than the 512 of one batch"),
        (["--transform", "cubic"], "invalid choice: 'cubic'"),
        (["--backend", "gibbs"], "invalid choice: 'gibbs'"),
        (["--backend", "hmc", "--transform", "rqs"], "no --paper, --transform, --epochs"),
        (["--quick", "--paper"], "not allowed with"),
        (["--draws", "1"], "at least 2"),
        (["--seed", "-1"], "at least 0"),
        (["--quick", "--out", EXAMPLES / "toy.py"], "--out"),
        (["--quick", "--out", ""], "--out: a path without a name"),
        (["--threads", "2000"], "--threads: 2000 is more than 1,024"),
        (["--seed", str(2**63)], "--seed: 9223372036854775808 is more than"),
        # What would end the run after the training.
        (["--backend", "hmc", "--events", "2"], "--events 2: the fit of the true form needs 3 events or more"),
        (["--backend", "ensemble", "--draws", "21"], "--draws 21: the posterior of --backend ensemble holds 20"),
        (["--backend", "bootstrap", "--draws", "33"], "--draws 33: the posterior of --backend bootstrap holds 32"),
        (["--backend", "hmc", "--quick", "--draws", "21"], "--draws 21: the posterior of --backend hmc holds 20"),
    ],
)
def test_bad_arguments_of_a_toy(arguments, message, tmp_path):
    assert message in call("wedge_svi", *arguments, cwd=tmp_path, code=2)
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_fit_into_memory_ends_with_a_line(tmp_path):
    told = call("wedge_svi", "--events", "300_000_000_000_000", "--out", tmp_path, code=1)
    assert told.startswith("error: ") and "300,000,000,000,000" in told


def test_bad_arguments_end_a_process(tmp_path):
    message = run("wedge_svi", "--events", "-5", cwd=tmp_path, code=2)
    assert "'-5' is not a whole number of at least 1" in message and "usage: wedge_svi.py" in message


def check_own(out, columns, events):
    assert is_png(out / "histograms.png")
    assert is_png(out / "training.png")
    summary = json.loads((out / "summary.json").read_text())
    assert [row["name"] for row in summary["columns"]] == columns
    assert all(map(math.isfinite, numbers(summary["columns"])))
    for row in summary["columns"]:
        assert abs(row["mean_generated"] - row["mean_truth"]) < row["std_truth"]
        assert row["std_generated"] == pytest.approx(row["std_truth"], rel=0.5)
        assert row["chi2"] / row["bins"] < 5
    posterior = pg.load(out / "posterior.h5")
    assert list(posterior.info.names) == columns
    generated = pg.events.read(out / "generated.h5")
    assert len(generated) == events
    assert list(generated.names) == columns
    assert (generated.uncertainties > 0).all()


def test_own_events_takes_the_committed_sample(tmp_path):
    printed = run("own_events", "--quick", cwd=tmp_path)
    out = tmp_path / "out" / "own_events_quick"
    check_own(out, ["px_e+", "py_e+", "pz_e+", "pz_e-"], 2000)
    assert pg.events.read(out / "generated.h5").units == ("GeV",) * 4
    assert "chi2/bins" in printed
    assert "4,000 training events" in printed


def test_own_events_from_a_foreign_file(tmp_path):
    rng = np.random.default_rng(0)
    table = np.column_stack([rng.normal(50, 5, 2000), rng.exponential(1, 2000), rng.uniform(-3, 3, 2000)])
    with h5py.File(tmp_path / "mine.h5", "w") as file:
        file["jets"] = table
        file["other"] = np.zeros((10, 2))
    options = ["--dataset", "jets", "--quick", "--generate", 300, "--epochs", 40, "--out", tmp_path / "all"]
    call("own_events", tmp_path / "mine.h5", *options, layout=False)
    check_own(tmp_path / "all", ["x0", "x1", "x2"], 300)

    options = ["--dataset", "jets", "--quick", "--epochs", 20, "--transform", "affine", "--columns", "x2", "x0"]
    call("own_events", tmp_path / "mine.h5", *options, "--generate", 200, "--out", tmp_path / "two", layout=False)
    check_own(tmp_path / "two", ["x2", "x0"], 200)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.h5"], "no such file"),
        (["--columns", "mass"], "no column 'mass'"),
        ([EXAMPLES / "toy.py"], "cannot read"),
        (["--generate", "0"], "at least 1"),
        (["--transform", "cubic"], "invalid choice"),
    ],
)
def test_bad_arguments_of_own_events(arguments, message, tmp_path):
    assert message in call("own_events", *arguments, cwd=tmp_path, code=2)
    assert list(tmp_path.iterdir()) == []


def test_no_example_hides_an_installed_package():
    """A script's folder comes first on sys.path: where its name is that of a package, others import the script."""
    packages = {*importlib.metadata.packages_distributions(), *sys.stdlib_module_names, "coverage", "numba", "torch"}
    assert not packages & {path.stem for folder in ("examples", "benchmarks") for path in (ROOT / folder).glob("*.py")}
