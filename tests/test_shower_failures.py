"""The failures of arXiv:2305.16774, sec. 4, planted in parametric showers: found and named without being told."""

import functools
import importlib
from pathlib import Path

import pytest

from pyrogen.diagnostics import Trees

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def planted():
    pytest.importorskip("sklearn", reason="needs the extra trees")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        failures = importlib.import_module("failures")
        patch.setattr(failures, "showers", functools.cache(failures.showers))  # the true ones are those of all tests
        yield failures


@pytest.mark.parametrize("failure", ["empty layer", "threshold", "sparsity", "none"])
def test_a_planted_failure_of_showers(failure, planted):
    """The rates over many samples are those of ``benchmarks/failures.py --showers``."""
    found = planted.shower_study(failure, 1, 2_500, Trees(iterations=40), False)
    assert planted.rightly(found, *planted.SHOWERS[failure]), found.text()
    assert len(found.rows) < 50  # observables, and none of the 90 cells
    if failure == "empty layer":
        assert found.modes[0].regions[0].missing > 0.03 and " at " in found.modes[0].text()
    if failure == "threshold":
        region = found.modes[0].regions[0]
        assert region.missing < -0.3 and region.high == pytest.approx(1e-3, rel=0.03)
