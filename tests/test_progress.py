"""Progress bars in a terminal, a notebook, a file and where nobody looks; the log of what is not progress."""

import importlib.util
import logging
import os
import sys
import types
import warnings

import numpy as np
import pytest
from killing import forked

import pyrogen as pg
from pyrogen import log, progress

RUN = """
import os
from pyrogen.progress import bar

def work():
    with bar(4, "work", "step") as outer:
        for i in range(2):
            with bar(3, "part", "piece", brief=True) as inner:
                inner.update(3)
            outer.update(2)

work()
os.environ["PYROGEN_PROGRESS"] = "0"
work()
"""


def without_a_terminal(files):
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.dup2(os.open(files[number], os.O_RDWR | os.O_CREAT), number)
        setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115
    exec(RUN, {})
    sys.stdout.flush()
    sys.stderr.flush()


def test_a_log_file_gets_lines_and_a_silent_batch_job_nothing(tmp_path, monkeypatch):
    """In a process of its own that has no terminal."""
    files = [tmp_path / name for name in ("stdin", "stdout", "stderr")]
    files[0].touch()
    monkeypatch.delenv(progress.SWITCH, raising=False)
    assert forked(without_a_terminal, files) == 0
    assert files[1].read_bytes() == b""
    lines = files[2].read_text().split("\n")
    assert "\r" not in "".join(lines) and lines[-1] == ""
    assert [line.split(":")[0] for line in lines[:-1]] == ["work", "work"]  # its beginning and its end; no short work
    assert "100%" in lines[1] and "4/4" in lines[1]


def test_a_notebook_without_widgets_has_a_bar_of_text(monkeypatch, capsys):
    """It moves, and nothing is said of the widgets that are not there."""
    shell = types.SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    for name in ("ipywidgets", "IPython.html", "IPython.html.widgets"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("tqdm.auto", "tqdm.autonotebook", "tqdm.notebook"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    spec = importlib.util.spec_from_file_location("progress_of_a_notebook", progress.__file__)
    fresh = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spec.loader.exec_module(fresh)
    assert fresh._is_watched() and not sys.stderr.isatty()
    with fresh.bar(2, "work", "step") as shown:
        shown.update(2)
    assert "\rwork: 100%" in capsys.readouterr().err


@pytest.fixture
def err(monkeypatch, capsys):
    """What was written to standard error since it was asked last; afterwards all switches are as at the start."""
    monkeypatch.delenv(progress.SWITCH, raising=False)
    yield lambda: capsys.readouterr().err
    pg.set_progress(None)
    pg.set_verbosity(None)


def test_a_terminal_has_a_bar_that_moves(err, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress.bar(2, "work", "step") as shown:
        shown.update(2)
    assert "\rwork: 100%" in err()


def test_the_switch_of_the_process_and_that_of_the_environment(err, monkeypatch):
    def is_shown(show=True):
        with progress.bar(2, "work", "step", show=show) as shown:
            return not shown.disable

    assert is_shown() and not is_shown(False)
    pg.set_progress(False)
    assert not is_shown()
    monkeypatch.setenv(progress.SWITCH, "0")
    pg.set_progress(True)
    assert is_shown() and not is_shown(False)  # the nearer switch says no
    pg.set_progress(None)
    assert not is_shown()
    monkeypatch.setenv(progress.SWITCH, "no")
    with pytest.raises(ValueError, match="PYROGEN_PROGRESS is 'no'; it must be 0"):
        is_shown()


def test_a_fit_says_nothing_where_bars_are_off(err):
    pg.set_progress(False)
    fit()
    assert err() == ""


def fit(**settings):
    events = np.random.default_rng(1).normal(size=(60, 2))
    backend = pg.SVI(**{"epochs": 12, "batch_size": 10, "lr_widths": 0.5, "seed": 1} | settings)
    return backend.fit(pg.BayesianFlow(pg.CouplingFlow(2, 1, (4,))), events)


def test_the_log_tells_what_begins_and_ends_and_files(tmp_path, caplog):
    caplog.set_level(logging.DEBUG, logger="pyrogen")
    posterior = fit(progress=False, checkpoint=tmp_path / "run.h5")
    posterior.save(tmp_path / "posterior.h5")
    pg.load(tmp_path / "posterior.h5")
    pg.EventSample(np.ones((3, 1))).save(tmp_path / "events.h5")
    pg.events.read(tmp_path / "events.h5")
    fit(progress=False, checkpoint=tmp_path / "run.h5")
    told = [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "pyrogen"]
    wanted = [
        ("INFO", "begins: SVI("),
        ("DEBUG", "saved the checkpoint "),
        ("INFO", "ends: SVI("),
        ("INFO", "saved the posterior "),
        ("INFO", "loaded the posterior "),
        ("INFO", "read "),
        ("INFO", "begins: SVI("),
        ("INFO", "goes on from the checkpoint "),
        ("INFO", "ends: SVI("),
    ]
    places = iter(told)
    for level, words in wanted:  # in this order, with others between them
        assert any(found == level and message.startswith(words) for found, message in places), (level, words, told)
    assert "60 events, 18 weights" in told[0][1]


def test_verbosity_writes_beside_the_bars(err):
    assert any(isinstance(handler, logging.NullHandler) for handler in log.LOG.handlers)
    pg.set_verbosity("info")
    pg.set_verbosity("info")  # once is enough
    log.LOG.debug("hidden")
    with progress.bar(2, "work", "step") as shown:
        log.LOG.info("in between")
        shown.update(2)
    lines = err().splitlines()
    assert len(lines) == 3
    (line,) = [line for line in lines if "in between" in line]
    assert line.endswith(" INFO pyrogen: in between") and "work" not in line
    pg.set_verbosity(None)
    log.LOG.info("no more")
    assert err() == ""
    for wrong in ("loud", 10, "INFO"):
        with pytest.raises(ValueError, match=r"level is .*one of debug, info, warning, error"):
            pg.set_verbosity(wrong)


def test_what_nobody_must_miss(err, monkeypatch):
    monkeypatch.setattr(log.LOG, "propagate", False)  # pytest listens at the root
    log.tell("saved in run.h5")
    assert err() == "saved in run.h5\n"
    pg.set_verbosity("warning")
    log.tell("saved again")
    told = err()
    assert told.count("saved again") == 1 and "WARNING pyrogen: saved again" in told


def test_in_notebook(monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: None))
    assert not progress.in_notebook()
    shell = types.SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    assert progress.in_notebook()
