"""Coverage in the bins of Z + jets: the script as a user runs it, its bins, and the error of the truth."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from studies import imported, run
from test_examples import EXAMPLES, is_png, numbers

import pyrogen as pg

SAMPLE = EXAMPLES / "data" / "z_jets_5k.h5"


@pytest.fixture(scope="module")
def script():
    return imported("coverage_z_jets")


def test_every_number_of_jets_is_counted(tmp_path, sparse):
    quick = ("coverage_z_jets", "--quick", "--generate", 4_000, "--out", tmp_path)
    printed = run(*quick)
    assert "3 samples of 1,000 Z + jets events" in printed and "whose own error is in the intervals" in printed
    result = json.loads((tmp_path / "bootstrap.json").read_text())
    assert result["target"] == "Z + jets" and list(result["groups"])[:3] == ["1 jet", "2 jets", "3 jets"]
    assert {"angles of two jets", "all others"} <= set(result["groups"])
    assert {"number of jets", "1: M_pair", "2: delta_r_j1j2", "3: ht"} <= set(result["observables"])
    assert result["truth"] == 5_000 - 3 * 1_000
    one, two = result["coverage_1"][0], result["coverage_2"][0]
    assert 0 <= one <= two <= 1 and all(map(math.isfinite, numbers(result["groups"])))
    assert is_png(tmp_path / "bootstrap.png")
    again = run(*quick)  # the fits and the bins are kept
    assert "delete it to fill them afresh" in again
    overview = run("coverage_overview", tmp_path, "--figure", tmp_path / "all.png")
    ratio, error = result["sigma_over_spread"]  # of sigma alone, as in the table of the script
    row = next(line for line in overview.splitlines() if line.startswith("| Z + jets | 1,000 | spline | Bootstrap |"))
    assert f"| {ratio:.2f} \u00b1 {error:.2f} |" in row


def test_bins_hold_the_events_with_each_number_of_jets(script):
    truth = pg.events.read(SAMPLE)
    observables, found = pg.events.z_jets_observables(), script.STUDY.fill(torch.tensor(truth.values))
    assert set(found) == set(script.STUDY.edges)
    assert found[script.NUMBERS].tolist() == np.bincount(truth.counts, minlength=4)[1:].tolist()
    for jets, names in script.FIGURES.items():
        rows = truth[truth.counts == jets]
        for name in names:
            edges = script.STUDY.edges[script.key(name, jets)]
            values = observables[name](rows).numpy()
            expected = np.histogram(values[values < edges[-1]], edges)[0]
            assert found[script.key(name, jets)].tolist() == expected.tolist(), (jets, name)


def test_bins_of_few_events_are_left_out(script):
    truth, n = pg.events.read(SAMPLE), 1_000
    counts = {
        name: np.ones((2, 3, len(edges) - 1), dtype=np.int64) * [[[1]], [[2]]]
        for name, edges in script.STUDY.edges.items()
    }
    result = script.coverage_bins.judged(script.STUDY, counts, 10, n, truth, 0)
    found = result.intervals
    for name, one in found.items():
        assert one.truth.min() * n >= script.coverage_bins.LEAST, name
        assert np.array_equal(one.truth, result.alone[name].truth)
    assert "3: delta_r_j2j3" not in found  # no bin of it expects ten of 1,000 events
    assert found["1 jet"].ranks.shape[1] == sum(one.ranks.shape[1] for name, one in found.items() if name[:2] == "1:")


def test_a_truth_of_many_events_has_no_error(script):
    truth = pg.events.read(SAMPLE)
    many = dataclasses.replace(script.STUDY, few=False)
    random = np.random.default_rng(2)
    counts = {name: random.integers(1, 99, (2, 3, len(edges) - 1)) for name, edges in many.edges.items()}
    found = script.coverage_bins.judged(many, counts, 1_000, 5_000, truth, 0)
    assert all(found.intervals[name] is found.alone[name] for name in found.intervals)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--train", "none.h5"), "no such file"),
        (("--train", SAMPLE, "--truth", SAMPLE), "as --train is; without it"),
        (("--train", EXAMPLES / "data" / "drell_yan_5k.h5"), "this script needs two leptons, 1 to 3 jets"),
        (("--truth", EXAMPLES / "data" / "drell_yan_5k.h5"), "this script needs two leptons, 1 to 3 jets"),
        (("--events", "2000"), "6,000 training events leave none of 5,000 for the truth"),
        (("--events", "2000", "--truth", SAMPLE), "3 samples of 2,000 events need 6,000; --train has 5,000"),
        (("--sets", "2", "--events", "2500"), "5,000 training events leave none of 5,000 for the truth"),
        (("--kl-weight", "0.1"), "an option of svi"),
        (("--set", "replicas=1"), "--set: replicas"),
    ],
)
def test_bad_arguments(tmp_path, arguments, message):
    assert message in run("coverage_z_jets", "--quick", "--out", tmp_path, *arguments, code=2)
