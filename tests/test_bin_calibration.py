"""The calibration of histograms: exact posteriors of a location, of which the truth is known."""

import math

import numpy as np
import pytest
import torch
from known import Location

import pyrogen as pg
from pyrogen.coverage import calibration_of
from pyrogen.diagnostics import bin_calibration, calibration_in_bins
from pyrogen.posterior import MeanField, RunInfo

N = 400  # training events
BINS = {"x": ("a", 6, (-1.5, 1.5)), "far": ("a", [8.0, 9.0])}


def exact(mean, scale=1.0, events=N):
    """The posterior of a location that is known from ``N`` events, with ``scale`` times the right width."""
    model = pg.BayesianFlow(Location(1), preprocessing=None).prepare(torch.zeros(2, 1))
    weights = MeanField(loc=torch.tensor([mean], dtype=torch.float32), scale=torch.full((1,), scale / math.sqrt(N)))
    return pg.Posterior(model, weights, None, RunInfo(training_events=events, names=("a",)), progress=False)


def trainings(count, scale=1.0):
    means = np.random.default_rng(3).normal(0, 1 / math.sqrt(N), count)
    return [exact(float(mean), scale) for mean in means]


def truth(n, seed=5, **more):
    values = np.random.default_rng(seed).normal(size=(n, 1))
    return pg.EventSample(values, ["a"], **more)


def test_exact_posteriors_cover_and_wide_ones_are_called_wide():
    """One parameter moves all bins: 60 trainings are 60 independent intervals."""
    error, known = 4 * math.sqrt(0.683 * 0.317 / 60), truth(300_000)
    for scale, ratio in ((1.0, 1.0), (2.5, 2.5)):
        options = {"n": 3_000, "draws": 30, "truth_error": False, "groups": {"both": ["x", "far"]}}
        found = calibration_in_bins(trainings(60, scale), BINS, known, **options)
        within, _ = found.intervals["all"].fraction()
        assert within == pytest.approx(math.erf(ratio / math.sqrt(2)), abs=error)
        # 60 standard deviations of 59 degrees of freedom, and the noise of 3,000 events that is taken out
        assert found.sigma_ratio()[0] == pytest.approx(ratio, rel=4 / math.sqrt(2 * 59))
        assert set(found.intervals) == {"x", "both", "all"} and found.observables == ("x",)  # nothing is far
        assert found.intervals["x"].ranks.shape == (60, 6) and found.truth_events == math.inf
    assert "too wide" in found.text() and "within 1 sigma" in found.text() and "too wide" in repr(found)


def test_the_error_of_the_truth_is_in_the_intervals():
    """An exact posterior covers a truth that is counted with as few events as it was trained on."""
    random, p, sets, n, draws = np.random.default_rng(1), np.linspace(0.01, 0.09, 40), 60, 20_000, 200
    error = np.sqrt(p * (1 - p) / n)
    centres = p + error * random.standard_normal((sets, 1, 40))
    values = centres + error * random.standard_normal((sets, draws, 40))
    counted = p + error * random.standard_normal((sets, 40))  # of every training its own: then 2,400 intervals count
    alone = calibration_of(values, counted)
    found = bin_calibration.with_truth_error(alone, values, error, random)
    tolerance = 4 * math.sqrt(0.683 * 0.317 / (sets * 40))
    assert alone.fraction()[0] == pytest.approx(math.erf(0.5), abs=tolerance)  # within 1 of sqrt(2) sigma
    assert found.fraction()[0] == pytest.approx(math.erf(math.sqrt(0.5)), abs=tolerance)
    assert alone.pull_width()[0] == pytest.approx(math.sqrt(2), rel=4 / math.sqrt(2 * sets * 40))
    assert found.pull_width()[0] == pytest.approx(1, rel=4 / math.sqrt(2 * sets * 40))


def test_weights_of_the_truth_count():
    """Weights of 1 and 3: the shares are weighted, and the error is that of the sum of the squares."""
    weights = np.where(np.arange(20_000) % 2, 3.0, 1.0)
    plain, weighted = (
        calibration_in_bins(trainings(3), {"x": BINS["x"]}, truth(20_000, **more), n=500, draws=5)
        for more in ({}, {"weights": weights})
    )
    assert plain.truth_events == 20_000 and weighted.truth_events == pytest.approx(4**2 / (2 * 10) * 20_000)
    values = truth(20_000).values[:, 0]
    share = np.histogram(values, 6, (-1.5, 1.5), weights=weights)[0] / weights.sum()
    assert weighted.alone["x"].truth == pytest.approx(share)
    added = np.square(weighted.intervals["x"].sigmas) - np.square(weighted.alone["x"].sigmas)
    assert np.sqrt(added) == pytest.approx(
        np.sqrt(share * (1 - share) / weighted.truth_events) * np.ones((3, 1)), rel=0.1
    )


def test_a_bin_of_noise_alone_does_not_hide_the_others():
    """Sigma over spread of one bin in four without any sigma is that of the other three."""
    random = np.random.default_rng(3)
    values = random.standard_normal((200, 1, 4)) + 2 * random.standard_normal((200, 50, 4)) * [1, 1, 1, 0]
    alone = calibration_of(values, np.zeros(4))
    found = bin_calibration.BinCalibration({"all": alone}, {"all": alone}, (), 100)
    assert alone.sigma_ratio()[0] < 1e-3
    assert found.sigma_ratio()[0] == pytest.approx(2 / math.sqrt(1 + 4 / 50), rel=4 / math.sqrt(2 * 200 * 3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"posteriors": []}, "posteriors is empty"),
        ({"groups": {"x": ["far"]}}, "groups is 'x'"),
        ({"groups": {"both": ["y"]}}, r"groups\['both'\] is 'y'; it must be observables out of x, far"),
        ({"least": 401.0}, "least is 401.0; it must be so few that some bin expects as many of 400 events"),
        ({"truth": pg.EventSample(np.zeros((3, 1)), ["b"])}, "truth|events"),
        ({"observables": {"x": ("b", 3, (0, 1))}}, "'b'"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    given = {"posteriors": trainings(2), "observables": BINS, "truth": truth(100), "n": 100, "draws": 4}
    with pytest.raises(ValueError, match=message):
        calibration_in_bins(**given | change)


def test_trainings_of_different_sizes_are_refused():
    one, two = exact(0.0), exact(0.0, events=7)
    with pytest.raises(ValueError, match="of one known size"):
        calibration_in_bins([one, two], BINS, truth(100), n=100, draws=4)
