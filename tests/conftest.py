import importlib
import signal
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib
import pytest
import torch
from matplotlib.figure import Figure

import pyrogen as pg
from pyrogen.diagnostics import advice

matplotlib.use("Agg")
torch.set_num_threads(1)
# A shell that runs the tests in the background lets them, and what they start, ignore Ctrl-C; they need it.
for which in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(which) is signal.SIG_IGN:
        signal.signal(which, signal.default_int_handler if which == signal.SIGINT else signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _seeded():
    """Every test starts from the same global random state, whatever ran before it."""
    torch.manual_seed(20210421)


@pytest.fixture(scope="module")
def wedge():
    """500 events of the wedge."""
    torch.manual_seed(1)
    return pg.targets.Wedge().sample((500,))


@pytest.fixture
def run_here(tmp_path, monkeypatch):
    """Runs the ``main`` of an imported example with arguments, in ``tmp_path``, which it returns."""

    def call(script, *arguments):
        threads = torch.get_num_threads()
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            patch.setattr(sys, "argv", [script.__file__, *map(str, arguments)])
            try:
                script.main()
            finally:
                torch.set_num_threads(threads)
        return tmp_path

    return call


@pytest.fixture
def short(monkeypatch):
    """Two passes over the events, or 20 steps: for all that a script does before and after its trainings."""
    few = {pg.SVI: {"epochs": 2}, pg.GAN: {"epochs": 2}, pg.Bootstrap: {"steps": 20}, pg.Ensemble: {"steps": 20}}
    for backend, length in few.items():
        for name in ("fit", "fit_many"):
            monkeypatch.setattr(backend, name, shortened(getattr(backend, name), length))


def shortened(fit, length):
    return lambda backend, *given, **more: fit(replace(backend, **length), *given, **more)


@pytest.fixture
def sparse(monkeypatch):
    """Advice and histograms look at 500 events per draw at most: most of the time of a small run is their generation.

    For what is said of a posterior, and how it is written and drawn. Other tests look at the numbers.
    """
    look, histograms = advice.Look, pg.Posterior.histograms

    def few(posterior, observables, *, n=100_000, context=None, **more):
        return histograms(posterior, observables, n=n if context is not None else min(n, 500), context=context, **more)

    monkeypatch.setattr(pg.Posterior, "histograms", few)
    monkeypatch.setattr(
        advice,
        "Look",
        lambda posterior, sample, support, generated, *more: look(
            posterior, sample, support, min(generated, 500), *more
        ),
    )


@pytest.fixture
def quickly_drawn(monkeypatch):
    """All figures are drawn without their layout, which takes three fourths of the time and which another test sees."""
    savefig = Figure.savefig

    def drawn_once(figure, *arguments, bbox_inches=None, **options):
        figure.set_layout_engine("none")
        savefig(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", drawn_once)


@pytest.fixture(scope="module")
def example():
    """Imports an example as a module: a process of its own would import everything again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[1] / "examples")
        yield importlib.import_module
