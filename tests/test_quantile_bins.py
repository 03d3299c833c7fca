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


def test_quantile_bins_of_a_posterior():
    """Every draw is the truth: uniform bins, no variance beyond that of the events."""
    target = pg.targets.GammaRing()

    class Perfect(torch.nn.Module):
        features = 2

        def __init__(self):
            super().__init__()
            self.nothing = torch.nn.Parameter(torch.zeros(1))

        def log_prob(self, x):
            return target.log_prob(x) + 0 * self.nothing

        def sample(self, n):
            return target.sample((n,))

    model = pg.BayesianFlow(Perfect(), preprocessing=None)
    weights = MeanField(loc=torch.zeros(1), scale=torch.ones(1))
    posteriors = [pg.Posterior(model, weights, info=pg.posterior.RunInfo(training_events=500))] * 2
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
