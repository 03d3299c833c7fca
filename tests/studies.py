"""How tests run the studies in benchmarks/: in this process, as from the command line."""

import importlib
from functools import partial

import pytest
from test_examples import ROOT, call

BENCHMARKS = ROOT / "benchmarks"
run = partial(call, folder=BENCHMARKS)


def imported(name):
    """A study as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        return importlib.import_module(name)
