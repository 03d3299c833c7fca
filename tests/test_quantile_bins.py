"""Quantile bins: their calibration, and the amplification, where both are known."""

import math

import numpy as np
import pytest
import torch

import pyrogen as pg
from pyrogen.coverage.calibration import ONE_SIGMA
from pyrogen.diagnostics.quantile_bins import QuantileBinResult, fit_amplification, quantile_bins
from pyrogen.posterior import MeanField


def bin_counts(spread, events=4000, trainings=100, draws=50, n=1000, seed=1):
    """Bins of probability 1/4: estimates off by their Poisson error of n events, and draws around them ``spread`` times
    as wide, each seen through a finite number of generated events."""
    rng = np.random.default_rng(seed)
    centre = rng.multinomial(n, [0.25] * 4, trainings) / n
    p = centre[:, None] + spread * (rng.multinomial(n, [0.25] * 4, (trainings, draws)) / n - 0.25)
    p = np.clip(p, 0, None)
    return QuantileBinResult(rng.multinomial(events, p / p.sum(-1, keepdims=True)), events, n)


def test_bins_are_calibrated_without_the_noise_of_their_events():
    for events in (500, 50_000):  # 500 generated events fluctuate more than the posterior
        result = bin_counts(1.0, events)
        assert result.noise_share() == pytest.approx(1 / (1 + events / 1000), rel=0.1)
        found = result.calibration()
        assert found.sigma_ratio()[0] == pytest.approx(1, rel=0.15)
        # Noise of the subtraction itself smears the single intervals of 500 events.
        assert found.fraction()[0] == pytest.approx(ONE_SIGMA, abs=4 * found.fraction()[1] + 0.02)
    assert bin_counts(1.0, 500).calibration(subtract_noise=False).verdict == "too wide"
    assert bin_counts(0.5, 50_000).calibration().verdict == "too narrow"


def test_bins_in_which_nothing_but_noise_is_left_are_refused():
    result = bin_counts(1.0, 100)  # ten times as much noise as posterior
    with pytest.raises(ValueError, match="9[0-2]% of the variance in 4 bins is noise"):
        result.calibration()
    assert result.calibration(subtract_noise=False).verdict == "too wide"


@pytest.mark.parametrize("spread", [0.5, 1.0])
def test_amplification_of_a_sample_is_one(spread):
    """Poisson errors of N events: p (1 - p) / N, where G counts p / N, so G = 1 / (1 - p) / spread^2."""
    gain, error = bin_counts(spread).amplification()
    assert gain == pytest.approx(4 / 3 / spread**2, abs=4 * error + 0.01)
    # Variances of 4 bins and 50 draws in each of 100 trainings, widened by the noise that was subtracted.
    widened = 1 + 1000 / 4000 / spread**2
    assert error / gain == pytest.approx(widened * math.sqrt(2 / (100 * 3 * 49)), rel=0.4)
    with pytest.raises(ValueError, match="generate more events"):
        bin_counts(0.0).amplification()


def test_bins_of_different_relative_error_add_up():
    """[F]: sum of mean^2 / variance over the bins, not the ratio of their sums."""
    rng = np.random.default_rng(4)
    mean, sigma = np.array([0.5, 0.3, 0.2]), np.array([0.05, 0.01, 0.004])
    p = np.clip(mean + sigma * rng.normal(size=(20, 200, 3)), 0, None)
    result = QuantileBinResult(np.round(p * 1e7).astype(np.int64), 10**7, 100)
    gain, error = result.amplification()
    assert gain == pytest.approx((mean**2 / sigma**2).sum() / 100, abs=4 * error)
    with pytest.raises(ValueError, match="two numbers of bins"):
        fit_amplification({3: result})
    with pytest.raises(ValueError, match="results are 1 numbers of bins"):  # a line through one point
        fit_amplification({3: result, 4: result})


def test_amplification_fit_finds_its_parameters():
    """Relative errors that fall with the number of bins n as n^((1 - b) / 2) give G = a n^b."""
    a, b, size = 0.01, 0.9, 1000
    pulls = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        common = rng.normal(size=(12, 30, 1))  # what all bins and numbers of bins share
        results = {}
        for n in (4, 8, 16):
            relative = (a * size * n ** (b - 1)) ** -0.5
            noise = math.sqrt(0.5) * (common + rng.normal(size=(12, 30, n)))
            p = (1 + relative * noise) / n
            results[n] = QuantileBinResult(np.round(p * 1e9).astype(np.int64), 10**9, size)
        fit = fit_amplification(results)
        pulls.append([(fit.a - a) / fit.a_error, (fit.b - b) / fit.b_error])
    # A jackknife of 12 trainings knows its errors to 1 / sqrt(22).
    assert np.abs(np.mean(pulls, 0)).max() < 4 / math.sqrt(40) + 0.2
    assert np.abs(np.std(pulls, 0) - 1).max() < 4 / math.sqrt(80) + 0.2
    assert fit(np.array([100.0]))[0] == pytest.approx(a * 100**b, rel=0.5)


class Perfect(torch.nn.Module):
    """Every draw is the truth."""

    features = 2

    def __init__(self, target, kept=None):
        super().__init__()
        self.nothing = torch.nn.Parameter(torch.zeros(1))
        self.target, self.kept = target, kept

    def log_prob(self, x):
        return self.target.log_prob(x) + 0 * self.nothing

    def sample(self, n):
        x = self.target.sample((n,))
        if self.kept is not None:  # copies of the flow share the list
            self.kept.append(x)
        return x

    def __deepcopy__(self, memo):
        return Perfect(self.target, self.kept)


def perfect(target, kept=None):
    model = pg.BayesianFlow(Perfect(target, kept), preprocessing=None)
    weights = MeanField(loc=torch.zeros(1), scale=torch.ones(1))
    return pg.Posterior(model, weights, info=pg.posterior.RunInfo(training_events=500))


def test_quantile_bins_of_a_posterior():
    """Every draw is the truth: uniform bins, no variance beyond that of the events."""
    target = pg.targets.GammaRing()
    posteriors = [perfect(target)] * 2
    state = torch.get_rng_state()
    found = quantile_bins(posteriors, target, (2, 4), events=2000, draws=40)
    assert torch.equal(state, torch.get_rng_state())
    for n, result in found.items():
        assert result.counts.shape == (2, 40, n * n) and result.training_events == 500
        assert (result.counts.sum(-1) == 2000).all()
        # 80 independent histograms of B bins: their variance over draws is the noise, within 4 / sqrt(B 80 / 2).
        assert result.noise_share() == pytest.approx(1, abs=4 / math.sqrt(n * n * 40))
        expected = 2000 / n**2
        chi2 = (np.square(result.counts - expected) / expected).sum() / (80 * (n * n - 1))
        assert chi2 == pytest.approx(1, abs=4 * math.sqrt(2 / (80 * (n * n - 1))))


@pytest.mark.parametrize("trainings", [2, 300])
def test_amplification_has_nothing_of_the_spread_of_the_trainings(trainings):
    """Counting N events in B bins: G = sum p^2 / (p (1 - p) / N) / N = B / (B - 1).

    With the spread of the trainings, B / N more: 1.4 here. The product of two means is off by the products of their
    errors, sqrt(B) / N in all, of R trainings by less; the tolerance adds that of their variances.
    """
    bins, n, draws = 40, 100, 1000
    rng = np.random.default_rng(0)
    centre = rng.multinomial(n, np.full(bins, 1 / bins), trainings) / n
    spread = rng.normal(0, math.sqrt((1 - 1 / bins) / bins / n), (trainings, draws, bins))
    counts = np.rint(1e9 * (centre[:, None] + spread)).astype(np.int64)
    result = QuantileBinResult(counts, 1_000_000_000, n)
    gain = float(result._jackknife()[0])
    error = math.sqrt(2 * bins / (trainings * (trainings - 1))) / n + math.sqrt(2 / (bins * trainings * draws))
    assert gain == pytest.approx(bins / (bins - 1), abs=4 * error)
    assert trainings == 2 or abs(gain - 1.4) > 8 * error


def test_events_per_bin_are_the_first_ones_of_the_same_stream():
    target, kept = pg.targets.GammaRing(), []
    posterior = perfect(target, kept)
    kept.clear()
    found = quantile_bins([posterior], target, (2, 3, 6), events_per_bin=1000, draws=2)
    events = torch.cat(kept).double().reshape(2, 36_000, 2)  # of two draws, in several blocks
    assert len(kept) > 2
    for n, result in found.items():
        assert result.events == 1000 * n * n
        for k in range(2):
            assert result.counts[0, k].tolist() == target.quantile_bins(n).counts(events[k, : 1000 * n * n]).tolist()
    assert quantile_bins([posterior], target, (3,), draws=2)[3].events == 20_000
    with pytest.raises(ValueError, match="events is 9 and events_per_bin is 5; give one of them"):
        quantile_bins([posterior], target, (3,), events=9, events_per_bin=5, draws=2)


def normal_bins(rng, bins=30, per_bin=1000, g=400.0, draws=60, trainings=1, n=500):
    """Bins worth g Poisson events, seen through 1,000 generated events each."""
    relative = rng.normal(0, g**-0.5, (trainings, draws, bins))
    return QuantileBinResult(rng.poisson(per_bin * (1 + relative)), per_bin * bins, n)


def test_the_largest_amplification_is_that_of_the_generated_events():
    """All draws the truth: mean^2 / variance = M p / (1 - p), so G = M / N B / (B - 1) with the noise left in."""
    bins, per_bin = 9, 1000
    counts = np.random.default_rng(1).multinomial(bins * per_bin, np.full(bins, 1 / bins), (4, 300))
    result = QuantileBinResult(counts, bins * per_bin, 500)
    assert result.largest == pytest.approx(9000 / 500 * 9 / 8)
    gain, error = result.amplification(subtract_noise=False)
    assert gain == pytest.approx(result.largest, abs=4 * error) and error < 0.04 * gain
    with pytest.raises(ValueError, match="fluctuate as much as the draws differ"):
        result.amplification()


@pytest.mark.parametrize("draws", [6, 60])
def test_amplification_of_a_single_training_with_the_noise(draws):
    """A bin is worth 1 / (1/g + 1/m) events. Six draws give a variance whose inverse is 5/3 times too large."""
    found = [normal_bins(np.random.default_rng(seed), draws=draws).amplification(False) for seed in range(60)]
    gains, errors = np.array(found).T
    expected = 30 / (1 / 400 + 1 / 1000) / 500
    # The inverse of a variance of nu = K - 1 spreads by sqrt(2 / (nu - 4)), in each of 30 bins of 60 trainings.
    assert gains.mean() == pytest.approx(expected, rel=4 * math.sqrt(2 / (draws - 5) / 1800) + 0.003)
    if draws == 60:  # the jackknife knows the spread
        assert np.sqrt(np.square(errors).mean()) == pytest.approx(gains.std(), rel=4 / math.sqrt(2 * 60) + 0.05)


def test_fit_of_a_single_training_has_the_error_of_its_draws():
    pulls = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        results = {n: normal_bins(rng, bins=n * n, g=100.0, draws=30) for n in (2, 4, 6)}
        fit = fit_amplification(results, subtract_noise=False)
        pulls.append([(fit.b - 1) / fit.b_error, math.log(fit.a * 500 * (1 / 100 + 1 / 1000)) / (fit.a_error / fit.a)])
    # Worth 1 / (1/100 + 1/1000) events in every bin, whatever their number: G = a n_bins.
    assert np.abs(np.mean(pulls, 0)).max() < 4 / math.sqrt(30) + 0.2
    assert np.abs(np.std(pulls, 0) - 1).max() < 4 / math.sqrt(60) + 0.2
    results[6] = normal_bins(rng, bins=36, draws=29)
    with pytest.raises(ValueError, match="with 29 draws of 1 trainings, 30 draws of 1 trainings; a fit needs"):
        fit_amplification(results)


def test_no_training_events_are_refused_where_they_come_in():
    counts, target = np.full((1, 6, 4), 250), pg.targets.GammaRing()
    for events, training_events, message in (
        (1000, 0, "training_events is 0; it must be a whole number of at least 1"),
        (1000, None, "training_events is None"),
        (1, 500, "events is 1; it must be a whole number of at least 2"),
    ):
        with pytest.raises(ValueError, match=message):
            QuantileBinResult(counts, events, training_events)
    known = perfect(target)
    unknown = pg.Posterior(known.model, known.weights)
    with pytest.raises(ValueError, match=r"posteriors\[1\] does not know how many events it was trained on"):
        quantile_bins([known, unknown], target, (2,), draws=2)


def test_too_few_draws_and_bins_without_variance():
    with pytest.raises(ValueError, match="3 draws of 1 trainings are too few"):
        normal_bins(np.random.default_rng(0), draws=3).amplification(subtract_noise=False)
    same = QuantileBinResult(np.full((1, 6, 4), 250), 1000, 500)
    with pytest.raises(ValueError, match="the 1000 events of a draw are the same in all draws, in 4 of 4 bins"):
        same.amplification(subtract_noise=False)
