"""The examples run as a user runs them: as scripts, from the command line."""

import contextlib
import importlib
import importlib.metadata
import io
import json
import math
import os
import re
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from matplotlib.figure import Figure

import pyrogen as pg

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
TUTORIALS = ("wedge_svi", "kicker_svi", "ring_svi", "own_events", "drell_yan", "z_jets")
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
        printed, message = process.communicate(timeout=550)
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


def test_the_first_script_of_the_readme(tmp_path, sparse):
    out = tmp_path / "out" / "wedge_svi_quick"
    printed = call("wedge_svi", "--quick", cwd=tmp_path)
    for name in ("lines", "map", "histograms", "training"):
        assert is_png(out / f"{name}.png")
    assert pg.load(out / "posterior.h5").info.training_events == 20_000
    assert len(pg.events.read(out / "generated.h5")) == 1000
    summary = json.loads((out / "summary.json").read_text())
    assert all(map(math.isfinite, numbers(summary)))
    # A quick fit is rough, but no guess: a Gaussian of the same mean and width is off by 0.44.
    assert summary["rms_bias"] < 0.2 and summary["within_2_sigma"] > 0.6
    assert summary["ok"]  # by its own advice even this one arrives
    lines = printed.splitlines()
    header = next(i for i, line in enumerate(lines) if line.split() == ["x", "p", "sigma", "truth", "pull"])
    assert [float(word) for word in lines[header + 1].split()] == pytest.approx(summary["table"][0], abs=6e-3)
    assert "Does sigma cover the truth?" in printed
    for path in out.iterdir():
        assert str(path.relative_to(tmp_path)) in printed


@pytest.mark.parametrize(
    ("arguments", "figures"),
    [
        (("kicker_svi",), ("lines", "map", "marginal_sigma", "correlation", "training")),
        (("ring_svi",), ("lines", "map", "histograms", "training")),
        (("wedge_svi", "--backend", "hmc"), ("lines", "map", "histograms", "training")),
    ],
    ids=" ".join,
)
def test_other_toys(arguments, figures, tmp_path, short, sparse):
    printed = call(*arguments, "--quick", "--out", tmp_path, layout=False)
    assert all(is_png(tmp_path / f"{name}.png") for name in figures)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert len(summary["table"]) == 9 and all(map(math.isfinite, numbers(summary)))
    assert "rms bias" in printed and str(tmp_path / "posterior.h5") in printed
    assert pg.load(tmp_path / "posterior.h5").info.backend == ("HMC" if "hmc" in arguments else "SVI")


def test_bad_arguments_end_a_process(tmp_path):
    message = run("wedge_svi", "--backend", "gibbs", cwd=tmp_path, code=2)
    assert "invalid choice: 'gibbs'" in message and "usage: wedge_svi.py" in message
    assert list(tmp_path.iterdir()) == []


def test_tutorials_are_short_and_hide_nothing():
    """A reader sees the API, and not what the scripts share."""
    scripts = {path.stem: path.read_text() for path in EXAMPLES.glob("*.py")}
    for name in TUTORIALS:
        assert len(scripts[name].splitlines()) <= 120, name
        assert not re.findall(rf"^(?:import|from) (?:{'|'.join(scripts)})\b", scripts[name], re.MULTILINE), name
        assert "def " not in scripts[name], name


@pytest.fixture
def shorter(monkeypatch):
    """15 of 40 passes over the events, with which a generated column still looks like the true one."""
    fit = pg.SVI.fit
    monkeypatch.setattr(pg.SVI, "fit", lambda svi, *given, **more: fit(replace(svi, epochs=15), *given, **more))


def check_own(out, columns, events):
    assert is_png(out / "histograms.png")
    assert is_png(out / "training.png")
    summary = json.loads((out / "summary.json").read_text())
    assert list(summary["columns"]) == columns
    assert all(map(math.isfinite, numbers(summary["columns"])))
    truth, generated = pg.events.read(out / "held_out.h5"), pg.events.read(out / "generated.h5")
    for name, row in summary["columns"].items():
        spread = truth.column(name).std()
        assert abs(row["mean_generated"] - row["mean_truth"]) < spread
        assert generated.column(name).std() == pytest.approx(spread, rel=0.5)
        assert row["chi2"] / row["bins"] < 5
    posterior = pg.load(out / "posterior.h5")
    assert list(posterior.info.names) == columns
    assert len(generated) == events
    assert list(generated.names) == columns
    assert (generated.uncertainties > 0).all()


def test_own_events_takes_the_committed_sample(tmp_path, shorter, sparse):
    printed = call("own_events", "--quick", cwd=tmp_path, layout=False)
    out = tmp_path / "out" / "own_events_quick"
    check_own(out, ["px_e+", "py_e+", "pz_e+", "pz_e-"], 2000)
    assert pg.events.read(out / "generated.h5").units == ("GeV",) * 4
    assert "chi2/bins" in printed
    assert "4,000 training events" in printed


def test_own_events_from_a_foreign_file(tmp_path, shorter, sparse):
    rng = np.random.default_rng(0)
    table = np.column_stack([rng.normal(50, 5, 2000), rng.exponential(1, 2000), rng.uniform(-3, 3, 2000)])
    with h5py.File(tmp_path / "mine.h5", "w") as file:
        file["jets"] = table
        file["other"] = np.zeros((10, 2))
    options = ["--dataset", "jets", "--quick", "--out", tmp_path / "two"]
    call("own_events", tmp_path / "mine.h5", *options, "--columns", "x2", "x0", layout=False)
    check_own(tmp_path / "two", ["x2", "x0"], 2000)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.h5"], "no such file"),
        (["--columns", "mass"], "no column 'mass'"),
        ([EXAMPLES / "own_events.py"], "cannot read"),
    ],
)
def test_bad_arguments_of_own_events(arguments, message, tmp_path):
    with pytest.raises((ValueError, OSError), match=message):
        call("own_events", *arguments, cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_example_hides_an_installed_package():
    """A script's folder comes first on sys.path: where its name is that of a package, others import the script."""
    packages = {*importlib.metadata.packages_distributions(), *sys.stdlib_module_names, "coverage", "numba", "torch"}
    assert not packages & {path.stem for folder in ("examples", "benchmarks") for path in (ROOT / folder).glob("*.py")}
