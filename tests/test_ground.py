"""The ground floor: seeds and progress bars."""

import io
import sys

import numpy as np
import pytest
import torch

import pyrogen as pg
from pyrogen import progress
from pyrogen.seeds import seeded, stream, untouched


def test_streams_are_independent_of_each_other_and_of_the_seeds_nearby():
    numbers = (0, 1, 2, 3, 2**32, 2**32 + 1, 2**63)
    names = [(), *((a,) for a in numbers), *((a, b) for a in numbers for b in numbers)]
    names += [(0, 0, 0), (1, 0, 0), (0, 0, 0, 0, 0)]
    names += [("a",), ("b",), ("a", 0), ("a", 1), ("a", 0, 0), ("1",), ("a", "b")]
    seeds = {stream(seed, *name) for seed in (*range(20), 2**32, 2**32 + 1) for name in names}
    assert len(seeds) == 22 * len(names) and all(0 <= seed < 2**63 for seed in seeds)
    assert stream(3, 1, 2) == stream(3, 1, 2) == stream(np.int64(3), np.uint64(1), 2)


def test_streams_that_met_no_other_have_the_bits_of_earlier_versions():
    """SVI takes its epochs from them, and goes on from old checkpoints to the bits that an old run would have had."""
    for name in ((5,), (5, 1), (5, 0, 1), (5, 7, 2)):
        state = np.random.SeedSequence(name).generate_state(1, np.uint64)[0]
        assert stream(*name) == int(state) >> 1


def test_a_seeded_block_is_reproducible_and_leaves_the_random_state_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with seeded(7):
        first = torch.rand(3)
    with pytest.raises(KeyError), untouched():
        torch.rand(3)
        raise KeyError
    assert torch.equal(torch.rand(3), expected)
    with seeded(7):
        assert torch.equal(torch.rand(3), first)


def test_a_bar_says_what_is_done_and_how_much_was_done_before(monkeypatch):
    told = io.StringIO()
    monkeypatch.setattr(sys, "stderr", told)
    with progress.bar(10, "sampling", "event", done=4) as shown:
        assert shown.n == 4 and shown.mininterval == progress.LOG_INTERVAL  # no terminal
        shown.update(6)
    assert "sampling" in told.getvalue() and "10/10" in told.getvalue()


def test_a_terminal_sees_the_bar_move(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    assert progress.bar(1, "x", "step").mininterval < 1


def test_the_switch_of_a_bar_silences_it(monkeypatch):
    told = io.StringIO()
    monkeypatch.setattr(sys, "stderr", told)
    with progress.bar(10, "sampling", "event", show=False) as shown:
        shown.update(10)
    assert told.getvalue() == ""


@pytest.mark.parametrize("show", [True, False])
def test_the_switch_of_a_posterior_reaches_all_its_bars(monkeypatch, wedge, show):
    """The fit, densities, events, histograms and what diagnostics make of them."""
    shown = []

    def bar(*arguments, **options):
        shown.append(options.get("show", True))
        return real(*arguments, **options)

    real = progress.bar
    modules = ["posterior.predictor", "posterior.generation_files", "inference.vi.training", "coverage.calibration"]
    for name in modules:
        monkeypatch.setattr(f"pyrogen.{name}.bar", bar)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    model = pg.BayesianFlow(pg.CouplingFlow(2, 2, (4,)))
    posterior = pg.SVI(epochs=1, progress=show).fit(model, wedge)
    posterior.density(wedge[:3], 2)
    posterior.generate(10, 2)
    posterior.histogram(0, 3, range=(0, 1), n=10, draws=2)
    pg.diagnostics.calibration_along_lines([posterior], pg.targets.Wedge(), t=[0.5], draws=2)
    assert len(shown) >= 7 and set(shown) == {show}
    posterior.progress = not show
    posterior.density(wedge[:3], 2)
    assert shown[-1] is not show


def test_a_file_of_events_heeds_the_switch_too(monkeypatch, wedge, tmp_path):
    posterior = pg.SVI(epochs=1, progress=False).fit(pg.BayesianFlow(pg.CouplingFlow(2, 2, (4,))), wedge)
    told = io.StringIO()
    monkeypatch.setattr(sys, "stderr", told)
    posterior.generate_to(tmp_path / "quiet.h5", 20, 2)
    assert told.getvalue() == ""
    posterior.generate_to(tmp_path / "told.h5", 20, 2, progress=True)
    assert "told.h5" in told.getvalue()
