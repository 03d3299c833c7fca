"""benchmarks/classifier_control.py as a user runs it, on toys and on the results of another example."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from studies import imported

import pyrogen as pg

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def script():
    pytest.importorskip("sklearn", reason="needs the extra trees")
    return imported("classifier_control")


@pytest.fixture
def run(script, run_here, monkeypatch):
    monkeypatch.setitem(script.MODES, "quick", {"events": 2_000, "splits": 5, "toys": 2})
    return functools.partial(run_here, script)


def test_the_results_of_another_example(run, tmp_path, capsys, quickly_drawn):
    """Lepton pairs of a flow that never learned: the script finds what the classifier is to see by itself."""
    sample = pg.events.lepton_pair(pg.events.read(EXAMPLES / "data" / "drell_yan_5k.h5"))
    folder = tmp_path / "made"
    folder.mkdir()
    sample[3_000:].save(folder / "held_out.h5")
    model = pg.BayesianFlow(pg.CouplingFlow(4, blocks=2, hidden=(8,)))
    pg.SVI(epochs=2, batch_size=500, progress=False).fit(model, sample[:3_000]).save(folder / "posterior.h5")
    out = run("--quick", folder) / "out" / "classifier_control_made"
    assert {"pulls.png", "summary.json"} <= {path.name for path in out.iterdir()}
    printed = capsys.readouterr().out
    assert "The samples differ" in printed and "\nM_pair " in printed and "mass peak" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--truth", "a.h5"), "give --truth and --generated together"),
        (("folder", "--truth", "a.h5", "--generated", "b.h5"), "give a folder, or --truth and --generated"),
        (("missing",), "missing is no folder; give the folder in which"),
        (("--fault", "hole", "--truth", "a.h5", "--generated", "b.h5"), "--fault is of the toy"),
        (("--fault", "bug"), "invalid choice"),
        (("--events", "20"), "give more events"),
    ],
)
def test_bad_arguments(run, arguments, message, capsys):
    with pytest.raises(SystemExit):
        run("--quick", *arguments)
    assert message in capsys.readouterr().err


def test_folders_that_are_no_results(run, tmp_path, capsys):
    folder = tmp_path / "empty"
    folder.mkdir()
    for make, message in ((None, "has no posterior.h5; give"), ("posterior.h5", "has neither held_out.h5 nor")):
        if make:
            (folder / make).touch()
        with pytest.raises(SystemExit):
            run("--quick", folder)
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run("--quick", folder / "posterior.h5")
    assert "posterior.h5 is a file; give" in capsys.readouterr().err
