"""A short run of the two benchmarks that damage files and kill operations; each runs at length as a script."""

import importlib
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def script(name):
    """A benchmark as a module, under the name that its processes find it by."""
    if str(BENCHMARKS) not in sys.path:
        sys.path.append(str(BENCHMARKS))
    return importlib.import_module(name)


@pytest.mark.parametrize("kind", script("mutants").KINDS)
def test_no_damage_is_silent(kind):
    counts, bad = script("mutants").try_format(kind, 24, seed=0)
    assert not bad, "\n".join(map(str, bad))
    assert counts["refused"] > 7 and sum(counts.values()) == 24


@pytest.mark.parametrize("name", ["save a posterior", "write .h5", "generate to a file", "HMC"])
def test_no_kill_loses_anything(name):
    kills = script("kills")
    moments = list(kills.kill_everywhere(name, stride=17, sizes=kills.SIZES[::3]))
    assert len(moments) > 4
    assert not [moment for moment in moments if moment[1] is not None]
