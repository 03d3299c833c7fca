"""examples/z_jets_systematics.py as a user runs it, on the committed sample."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import pyrogen as pg

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def script(example):
    return example("z_jets_systematics")


@pytest.fixture
def run(script, run_here):
    return lambda *arguments: run_here(script, *arguments) / "out" / "z_jets_systematics_quick"


def test_quick_run(run, script, monkeypatch, capsys):
    pytest.importorskip("pyhf", reason="needs pip install pyhf")
    few = script.MODES["quick"] | {"n": 500, "draws": 4, "coarser": 10}
    monkeypatch.setitem(script.MODES, "quick", few)
    monkeypatch.setattr(script, "SHOWN", {"pt_j1": 1, "jets": 1})
    out = run("--quick", "--epochs", 1)
    names = set(script.SHOWN)
    assert {path.name for path in out.iterdir()} >= {f"{name}.png" for name in names} | {"posterior.h5"}
    summary = json.loads((out / "summary.json").read_text())
    assert set(summary) > names and all(summary[name]["fit"]["error"] > 0 for name in names)
    assert capsys.readouterr().out.count("the events have 0.35") == 2
    assert pg.load(out / "posterior.h5").info.context_names == ("a",)


def test_held_out_events_at_a_value_of_the_parameter(script):
    values = [[0.0] * 6 + [pt, 0, 0, 0] + [np.nan] * 8 for pt in (15.0, 115.0, 215.0)]
    sample = pg.EventSample(values, weights=[1.0, 2.0, 1.0], multiplicity=pg.events.Multiplicity(6, 4, 3))
    wanted = (lambda events: events[:, 6], [0, 100, 200, 300])
    sums, errors = script.filled(sample, wanted, 0.5)
    assert sums.tolist() == errors.tolist() == [1.0, 2 * 1.5, 3.0]


def test_without_pyhf_there_is_no_fit(script, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyhf", None)
    assert script.fit(None, np.ones(3), 3.0) is None
    assert "pip install pyhf iminuit" in capsys.readouterr().out


def test_other_events_are_refused(run, tmp_path, capsys):
    pg.EventSample(torch.randn(600, 4)).save(tmp_path / "plain.h5")
    with pytest.raises(SystemExit):
        run("--events", "plain.h5")
    assert "needs two leptons and 1 to 3 jets" in capsys.readouterr().err
