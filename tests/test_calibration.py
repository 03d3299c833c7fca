"""Calibration on posteriors that are right, too narrow or shifted by construction."""

import math
import warnings

import numpy as np
import pytest
import torch
from known import Line, Location

import pyrogen as pg
from pyrogen.coverage.calibration import ONE_SIGMA
from pyrogen.diagnostics import (
    Calibration,
    bootstrap_calibration,
    calibration_along_lines,
    calibration_of,
    simulation_based_calibration,
)
from pyrogen.diagnostics.quantile_bins import quantile_bins
from pyrogen.inference.run.potential import independent_starts
from pyrogen.posterior import MeanField, StoredDraws
from pyrogen.seeds import stream

R, K, B = 400, 60, 5


def exact(scale=1.0, shift=0.0, trainings=R, seed=0):
    """Draws around an estimate with unit error: truth ~ N(estimate, 1), so sigma = 1 is right by construction."""
    rng = np.random.default_rng(seed)
    estimate = rng.normal(0, 1, (trainings, 1, B))
    return calibration_of(estimate + shift + scale * rng.normal(0, 1, (trainings, K, B)), np.zeros(B))


def test_an_exact_posterior_covers_what_it_says():
    found = exact()
    for level in (0.3, ONE_SIGMA, 0.95):
        fraction, error = found.fraction(level)
        # R B independent intervals: the binomial error is known, and the one on record must be it.
        binomial = math.sqrt(level * (1 - level) / (R * B))
        assert abs(fraction - level) < 4 * binomial
        assert error == pytest.approx(binomial, rel=0.2)
    assert found.verdict == "calibrated" and "nothing here speaks against" in found.text()
    width, error = found.pull_width()
    # The draws' own mean and standard deviation carry noise of 1/K.
    assert abs(width - 1) < 4 * error + 2 / K
    assert error == pytest.approx(1 / math.sqrt(2 * R * B), rel=0.2)
    ratio, error = found.sigma_ratio()
    assert abs(ratio - 1) < 4 * error
    assert found.score < 0.02 and found.uniformity() > 1e-3


@pytest.mark.parametrize(("scale", "verdict"), [(0.5, "too narrow"), (2.0, "too wide")])
def test_a_wrong_sigma_is_flagged_with_its_size(scale, verdict):
    found = exact(scale)
    assert found.verdict == verdict and verdict in found.text()
    fraction, error = found.fraction()
    assert abs(fraction - math.erf(scale / math.sqrt(2))) < 4 * error + 1 / K
    assert found.pull_width()[0] == pytest.approx(1 / scale, rel=0.1)
    assert found.sigma_ratio()[0] == pytest.approx(scale, rel=0.2)
    assert found.uniformity() < 1e-6


def test_tails_are_seen_where_one_sigma_looks_right():
    """Two quantities: one far off its band, the other far inside. One sigma covers half of them, 2 sigma no more."""
    rng = np.random.default_rng(7)
    draws = rng.normal(0, 1, (R, K, 10))
    truth = np.concatenate([np.full(1, 5.0), np.zeros(9)])
    found = calibration_of(draws, truth, at=np.arange(10.0), label="x")
    assert found.verdict == "uneven" and "too narrow at others; at x = 0 only 0%" in found.text()
    assert found.worst() == (0.0, 0.0)
    # Right within one sigma, but with the tails of a Student t: outside 2 sigma far too often.
    tails = rng.standard_t(2, (R, 1, B)) * 0.76
    heavy = calibration_of(tails + rng.normal(0, 1, (R, K, B)), np.zeros(B))
    assert abs(heavy.fraction()[0] - ONE_SIGMA) < 3 * heavy.fraction()[1] + 0.02
    assert heavy.verdict == "too narrow"


def smooth(correlation, trainings=20, quantities=200, seed=0, scale=1.0):
    """An exact posterior (times ``scale``) whose deviations are correlated along a line, as those of densities are."""
    rng = np.random.default_rng(seed)
    shape = (trainings, K + 1, quantities)
    noise = rng.normal(size=shape)
    for i in range(1, quantities):
        noise[..., i] = correlation * noise[..., i - 1] + math.sqrt(1 - correlation**2) * noise[..., i]
    return calibration_of(noise[:, :1] + scale * noise[:, 1:], np.zeros(quantities))


@pytest.mark.parametrize("correlation", [0.7, 0.95, 0.999])
def test_few_trainings_of_correlated_points_do_not_accuse_an_exact_posterior(correlation):
    """With 20 trainings all two-sigma intervals often hold the truth: that is no certainty."""
    verdicts = [smooth(correlation, seed=seed).verdict for seed in range(40)]
    assert verdicts.count("calibrated") >= 38
    # A sigma three times too wide is found where the points are not all the same one.
    if correlation < 0.99:
        assert [smooth(correlation, seed=seed, scale=3.0).verdict for seed in range(20)].count("too wide") >= 18


def test_every_training_has_draws_of_its_own():
    """The same noise in the weights of all trainings would move all their intervals together, by 1/sqrt(30) sigma."""
    posteriors, shifts = known_posteriors(1.0)[:60], []
    for seed in range(6):
        found = calibration_along_lines(posteriors, Truth(), [1.5], [0.5], 30, seed=seed)
        assert found.verdict == "calibrated"
        shifts.append(float((found.means - found.truth).mean() / found.sigma.mean()))
    assert np.std(shifts) < 3 / math.sqrt(30 * len(posteriors))


def test_few_effective_draws_are_mentioned():
    noise = np.random.default_rng(0).normal(size=(8, 100, 2))
    slow = noise.copy()
    for k in range(1, 100):
        slow[:, k] = 0.9 * slow[:, k - 1] + math.sqrt(1 - 0.81) * noise[:, k]
    for draws, few in ((noise, False), (slow, True)):
        posteriors = [pg.Posterior(location(), StoredDraws(torch.from_numpy(its[None]).float())) for its in 0.1 * draws]
        found = calibration_along_lines(posteriors, Truth(), [1.0, 2.0], draws=100)
        assert ("independent draws" in found.text()) == few
        assert (found.effective_draws < 30) == few


def test_a_bias_is_not_taken_for_a_spread():
    found = exact(shift=0.5)
    assert np.allclose(found.bias, 0.5, atol=4 / math.sqrt(R))
    assert np.allclose(found.spread, 1, atol=4 / math.sqrt(2 * R))


def test_quantities_that_move_together_do_not_pretend_to_be_many():
    """The same deviation in all B quantities: R independent intervals, not R B."""
    rng = np.random.default_rng(3)
    estimate = rng.normal(0, 1, (R, 1, 1))
    found = calibration_of(estimate + rng.normal(0, 1, (R, K, 1)) + np.zeros(50), np.zeros(50))
    assert found.fraction()[1] == pytest.approx(math.sqrt(ONE_SIGMA * (1 - ONE_SIGMA) / R), rel=0.15)
    by_quantity, errors = found.by_quantity()
    assert by_quantity.shape == errors.shape == (50,)


def test_deviations_that_cancel_are_no_independent_intervals():
    """What is too high at one point is too low at another, as in a density that stays normalised."""
    rng = np.random.default_rng(5)
    one = rng.normal(0, 1, (R, 1, 1)) + rng.normal(0, 1, (R, K, 1))
    found = calibration_of(np.concatenate([one, -one], 2), np.zeros(2))
    assert found.independent_intervals == pytest.approx(R, rel=0.1)


def test_certainty_of_few_trainings_has_an_error():
    found = exact(10.0, trainings=8)
    fraction, error = found.fraction()
    assert fraction > 0.98 and error > 0.01


def test_ties_lie_in_the_middle_of_their_draws():
    found = calibration_of(np.zeros((1, 9, 1)), np.zeros(1))
    assert found.ranks[0, 0] == 4.5
    assert found.covered(0.5)[0, 0] == pytest.approx(1)


@pytest.mark.parametrize(
    ("values", "truth", "message"),
    [
        (np.zeros((2, 5)), np.zeros(5), "trainings, draws, quantities"),
        (np.zeros((2, 1, 5)), np.zeros(5), "2 draws"),
        (np.zeros((2, 4, 5)), np.zeros(4), "one per quantity"),
        (np.full((2, 4, 5), np.nan), np.zeros(5), "40 numbers"),
        (np.zeros((2, 4, 5)), np.full(5, np.inf), "truth holds 5"),
    ],
)
def test_bad_draws_are_refused(values, truth, message):
    with pytest.raises(ValueError, match=message):
        calibration_of(values, truth)


def test_a_level_is_a_probability():
    with pytest.raises(ValueError, match="level is 68"):
        exact(trainings=3).covered(68)


class Truth:
    """Events ~ N(0, 1) in the plane, with lines of constant y."""

    line_label, line_range, line_positions = "x", (-2.0, 2.0), (-0.5, 0.5)

    def line(self, t, position):
        return torch.stack([t, torch.full_like(t, position)], -1)

    def line_density(self, t):
        return (-0.5 * t.square() - 0.125).exp() / (2 * math.pi)


def location(**kwargs):
    return pg.BayesianFlow(Location(2), preprocessing=None, **kwargs)


def known_posteriors(scale, trainings=100, n=100):
    """The exact posteriors of the location of ``n`` events (flat prior), their widths times ``scale``."""
    model = location(prior_scale=100.0)
    means = torch.randn(trainings, 2, generator=torch.Generator().manual_seed(5)) / math.sqrt(n)
    width = torch.full((2,), scale / math.sqrt(n))
    return [pg.Posterior(model, MeanField(loc=m, scale=width)) for m in means]


@pytest.mark.parametrize(("scale", "verdict"), [(1.0, "calibrated"), (0.5, "too narrow")])
def test_densities_along_lines(scale, verdict):
    """ln p = const - |x - mean|^2 / 2 is not linear in the mean, but its intervals are those of the mean where it is
    monotonic: far from the centre, and for n = 100 nearly everywhere."""
    found = calibration_along_lines(known_posteriors(scale), Truth(), t=[-2.0, -1.0, 1.0, 2.0], draws=50)
    assert found.verdict == verdict
    assert found.at.tolist() == [-2.0, -1.0, 1.0, 2.0] * 2 and found.label == "x"
    assert found.sigma_ratio()[0] == pytest.approx(scale, rel=4 / math.sqrt(2 * 99))


def test_no_posteriors_no_calibration():
    with pytest.raises(ValueError, match="posteriors is empty"):
        calibration_along_lines([], Truth())
    with pytest.raises(ValueError, match="posteriors is empty"):
        quantile_bins([], pg.targets.GammaRing())


class Conjugate:
    """A backend that knows the exact posterior, with widths times ``scale``."""

    def __init__(self, scale=1.0):
        self.scale = scale

    def fit_many(self, model, samples):
        precision = samples.shape[1] + 1.0
        means, width = samples.sum(1) / precision, torch.full((2,), self.scale / math.sqrt(precision))
        return [
            pg.Posterior(model, MeanField(loc=mean, scale=width), info=pg.posterior.RunInfo(sample=r))
            for r, mean in enumerate(means)
        ]


def test_simulation_based_calibration_of_an_exact_backend():
    found = simulation_based_calibration(Conjugate(), location(), 10, 150, probes=6, draws=50)
    assert found.verdict == "calibrated", found.text()
    assert found.uniformity() > 1e-3
    wrong = simulation_based_calibration(Conjugate(0.5), location(), 10, 60, probes=6, draws=50)
    assert wrong.verdict == "too narrow" and wrong.uniformity() < 1e-6


def test_one_draw_is_refused_before_the_trainings():
    """It has no sigma, which was found out only after all samples had been learned."""

    class Learner:
        def fit_many(self, *given):
            pytest.fail("the trainings were begun")

    posterior = known_posteriors(1.0)[0]
    for call in (
        lambda: simulation_based_calibration(Learner(), location(), 10, 5, draws=1),
        lambda: bootstrap_calibration(Learner(), posterior, 10, 5, draws=1),
    ):
        with pytest.raises(ValueError, match="draws is 1; it must be a whole number of at least 2"):
            call()


def test_no_training_starts_where_its_data_come_from(monkeypatch):
    """With the same seed for both, the backend's starts were the very weights that had made the events."""
    starts = []

    class Starts(Conjugate):
        def fit_many(self, model, samples):
            starts.append(independent_starts(model, len(samples), stream(0, 1)))
            return super().fit_many(model, samples)

    made, generate = [], pg.BayesianFlow.sample_events

    def watched(model, theta, *given):
        made.append(theta)
        return generate(model, theta, *given)

    monkeypatch.setattr(pg.BayesianFlow, "sample_events", watched)
    simulation_based_calibration(Starts(), location(), 10, 5, probes=4, draws=10, seed=0)
    (found,) = starts
    assert found.shape == (5, 2) and len(made) == 9
    assert not any((theta - start).abs().min() < 1e-3 for theta in made for start in found)


@pytest.mark.parametrize(("scale", "verdict"), [(1.0, "calibrated"), (0.4, "too narrow"), (2.5, "too wide")])
def test_bootstrap_finds_a_wrong_sigma_without_knowing_the_truth(scale, verdict):
    model = location(prior_scale=1.0)
    weights = MeanField(loc=torch.tensor([0.3, -0.2]), scale=torch.full((2,), 0.1))
    posterior = pg.Posterior(model, weights, info=pg.posterior.RunInfo(training_events=100))
    found = bootstrap_calibration(Conjugate(scale), posterior, trainings=80, probes=10, draws=50)
    assert found.trainings == 80 and found.ranks.shape == (80, 11)
    assert found.verdict == verdict, found.text()
    with pytest.raises(ValueError, match="size is None"):
        bootstrap_calibration(Conjugate(), pg.Posterior(model, weights))


class ConjugateLine:
    """The exact posterior of the slope of a Line, its width times ``scale``."""

    def __init__(self, scale=1.0):
        self.scale = scale

    def fit_many(self, model, samples, context):
        found = []
        for r, (y, c) in enumerate(zip(samples, context, strict=True)):
            precision = c.square().sum(0) + 1.0
            weights = MeanField(loc=(c * y).sum(0) / precision, scale=self.scale / precision.sqrt())
            found.append(pg.Posterior(model, weights, info=pg.posterior.RunInfo(sample=r)))
        return found


@pytest.mark.parametrize(("scale", "verdict"), [(1.0, "calibrated"), (0.4, "too narrow"), (2.5, "too wide")])
def test_bootstrap_of_a_conditional_flow_draws_its_conditions_from_those_of_the_events(scale, verdict):
    conditional = pg.BayesianFlow(Line(1), preprocessing=None, prior_scale=1.0)
    context = 1 + torch.rand(400, 1, generator=torch.Generator().manual_seed(0))
    weights = MeanField(loc=torch.tensor([0.3]), scale=torch.tensor([0.03]))
    prepared = conditional.prepare(torch.randn(400, 1), context=context)
    posterior = pg.Posterior(prepared, weights, info=pg.posterior.RunInfo(training_events=400))
    found = bootstrap_calibration(ConjugateLine(scale), posterior, None, 80, context=context, probes=6, draws=50)
    assert found.verdict == verdict, found.text()
    with pytest.raises(ValueError, match="context is None.*the flow is conditional"):
        bootstrap_calibration(ConjugateLine(), posterior)
    with pytest.raises(ValueError, match="model is .*without conditions"):
        simulation_based_calibration(ConjugateLine(), prepared, 10)


def test_simulation_based_calibration_of_hmc():
    backend = pg.HMC(chains=1, warmup=60, draws=60, start_steps=50, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pg.SamplingWarning)
        found = simulation_based_calibration(backend, location(), 10, 60, probes=4, draws=60)
    assert found.verdict == "calibrated", found.text()
    assert found.uniformity() > 1e-3


def test_simulation_based_calibration_needs_a_model_that_stays():
    with pytest.raises(ValueError, match="not fitted"):
        simulation_based_calibration(Conjugate(), pg.BayesianFlow(Location(2)), 10)
    with pytest.raises(ValueError, match="trainings"):
        simulation_based_calibration(Conjugate(), location(), 10, 1)


def test_one_training_knows_no_spread():
    found = exact(trainings=1)
    assert math.isnan(found.sigma_ratio()[0]) and np.isnan(found.spread).all()
    assert isinstance(found, Calibration) and "spread of the trainings" not in found.text()
