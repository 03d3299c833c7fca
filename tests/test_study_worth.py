"""benchmarks/worth_toys.py as a user runs it: the number of events without the truth beside the one with it."""

import json
import math

import pytest
from studies import run
from test_examples import numbers

TOYS = (("camel", (10, 20, 50)), ("ring", (25, 49)))


def test_the_toys(tmp_path):
    printed = run("worth_toys", "--quick", "--out", tmp_path)
    told = json.loads((tmp_path / "summary.json").read_text())
    assert [(row["target"], row["bins"]) for row in told] == [(t, n) for t, k in TOYS for n in k]
    assert all(math.isfinite(number) for number in numbers(told)) and "bias" in printed
    for row in told:
        assert row["ratio"][0] == pytest.approx(row["without"][0] / row["with"][0])


def test_bad_arguments(tmp_path):
    assert "--backend" in run("worth_toys", "--backend", "gan", "--out", tmp_path, code=2)
