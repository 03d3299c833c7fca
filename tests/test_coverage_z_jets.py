"""Coverage in the bins of Z + jets: the script as a user runs it, its bins, and the error of the truth."""

import dataclasses
import importlib
import json
import math

import numpy as np
import pytest
import torch
from test_examples import EXAMPLES, call, is_png, numbers

import pyrogen as pg
from pyrogen.coverage import calibration_of

SAMPLE = EXAMPLES / "data" / "z_jets_5k.h5"


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        return importlib.import_module("coverage_z_jets")


def test_every_number_of_jets_is_counted(tmp_path):
    printed = call("coverage_z_jets", "--quick", "--out", tmp_path)
    assert "3 samples of 1,000 Z + jets events" in printed and "whose own error is in the intervals" in printed
    result = json.loads((tmp_path / "bootstrap.json").read_text())
    assert result["target"] == "Z + jets" and list(result["groups"])[:3] == ["1 jet", "2 jets", "3 jets"]
    assert {"angles of two jets", "all others"} <= set(result["groups"])
    assert {"number of jets", "1: M_pair", "2: delta_r_j1j2", "3: ht"} <= set(result["observables"])
    assert result["truth"] == 5_000 - 3 * 1_000
    one, two = result["coverage_1"][0], result["coverage_2"][0]
    assert 0 <= one <= two <= 1 and all(map(math.isfinite, numbers(result["groups"])))
    assert is_png(tmp_path / "bootstrap.png")
    again = call("coverage_z_jets", "--quick", "--out", tmp_path)  # the fits and the bins are kept
    assert "delete it to fill them afresh" in again
    overview = call("coverage_overview", tmp_path, "--figure", tmp_path / "all.png")
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
    alone, found = script.coverage_bins.calibrations(script.STUDY, counts, 10, n, truth)
    for name, one in found.items():
        assert one.truth.min() * n >= script.coverage_bins.LEAST, name
        assert np.array_equal(one.truth, alone[name].truth)
    assert "3: delta_r_j2j3" not in found  # no bin of it expects ten of 1,000 events
    assert found["1 jet"].ranks.shape[1] == sum(one.ranks.shape[1] for name, one in found.items() if name[:2] == "1:")


def test_the_error_of_the_truth_is_in_the_intervals(script):
    """An exact posterior covers a truth that is counted with as few events as it was trained on."""
    random, p, sets, n, draws = np.random.default_rng(1), np.linspace(0.01, 0.09, 40), 60, 20_000, 200
    error = np.sqrt(p * (1 - p) / n)
    centres = p + error * random.standard_normal((sets, 1, 40))
    values = centres + error * random.standard_normal((sets, draws, 40))
    counted = p + error * random.standard_normal((sets, 40))  # of every training its own: then 2,400 intervals count
    alone = calibration_of(values, counted)
    found = script.coverage_bins.with_error(alone, values, n, random)
    tolerance = 4 * math.sqrt(0.683 * 0.317 / (sets * 40))
    assert alone.fraction()[0] == pytest.approx(math.erf(0.5), abs=tolerance)  # within 1 of sqrt(2) sigma
    assert found.fraction()[0] == pytest.approx(math.erf(math.sqrt(0.5)), abs=tolerance)
    assert alone.pull_width()[0] == pytest.approx(math.sqrt(2), rel=4 / math.sqrt(2 * sets * 40))
    assert found.pull_width()[0] == pytest.approx(1, rel=4 / math.sqrt(2 * sets * 40))


def test_a_truth_of_many_events_has_no_error(script):
    truth = pg.events.read(SAMPLE)
    many = dataclasses.replace(script.STUDY, few=False)
    random = np.random.default_rng(2)
    counts = {name: random.integers(1, 99, (2, 3, len(edges) - 1)) for name, edges in many.edges.items()}
    alone, found = script.coverage_bins.calibrations(many, counts, 1_000, 5_000, truth)
    assert all(found[name] is alone[name] for name in found)


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
    assert message in call("coverage_z_jets", "--quick", "--out", tmp_path, *arguments, code=2)


def test_a_bin_of_noise_alone_does_not_hide_the_others(script):
    """Sigma over spread of one bin in four without any sigma is that of the other three."""
    random = np.random.default_rng(3)
    values = random.standard_normal((200, 1, 4)) + 2 * random.standard_normal((200, 50, 4)) * [1, 1, 1, 0]
    found = calibration_of(values, np.zeros(4))
    assert found.sigma_ratio()[0] < 1e-3
    assert script.coverage_bins.sigma_ratio(found)[0] == pytest.approx(
        2 / math.sqrt(1 + 4 / 50), rel=4 / math.sqrt(2 * 200 * 3)
    )
