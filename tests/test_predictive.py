"""Log predictive densities, differences between them, leave-one-out and Pareto k, where the answer is known."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from known import Location
from test_comparison import Shift, chains, log_normal

import pyrogen as pg
from pyrogen.diagnostics import effective_parameters, elpd, guide_pareto_k
from pyrogen.diagnostics.arviz_io import pareto_smooth
from pyrogen.posterior import MeanField


def test_elpd_is_that_of_the_mean_density(monkeypatch):
    means = np.array([[[0.0, 0.0], [2.0, 0.0]]])
    events = torch.randn(500, 2, dtype=torch.float64)
    densities = sum(log_normal(events, torch.tensor(m)).exp() for m in means[0]) / 2
    found = elpd(chains(means), events)
    np.testing.assert_allclose(found.pointwise, densities.log())
    assert found.mean == pytest.approx(float(densities.log().mean()))
    assert found.error == pytest.approx(float(densities.log().std()) / math.sqrt(500))
    monkeypatch.setattr("pyrogen.posterior.predictor.DENSITIES_AT_ONCE", 64)
    np.testing.assert_allclose(elpd(chains(means), events).pointwise, found.pointwise)
    far = elpd(chains(means), torch.cat([events, torch.full((1, 2), 1e200, dtype=torch.float64)]))
    assert far.mean == -math.inf and math.isnan(far.error)
    with pytest.raises(ValueError, match="events holds 1 event"):
        elpd(chains(means), events[:1])


@pytest.mark.parametrize("draws", [2, 29, 30])
def test_few_weights_have_no_tail_to_smooth(draws):
    """They are normalised and otherwise left alone, and k says that nothing is known of the tail."""
    log_weights = np.random.default_rng(0).normal(size=(3, draws))
    smoothed, k = pareto_smooth(log_weights + 700.0)
    np.testing.assert_allclose(np.exp(smoothed).sum(1), 1.0)
    alone = np.allclose(smoothed, log_weights - np.log(np.exp(log_weights).sum(1, keepdims=True)))
    assert alone == np.isinf(k).all() == (draws <= 29)
    smoothed, k = pareto_smooth(np.stack([np.zeros(draws), log_weights[0]]))  # equal weights have none either
    np.testing.assert_allclose(smoothed[0], -math.log(draws))
    assert np.isinf(k[0]) and np.isinf(k[1]) == (draws <= 29)


def test_differences_are_of_the_same_events():
    """Means at 0 and at (d, 0): log p differs by d^2/2 - d x, so n events by n d^2/2 within d sqrt(n)."""
    n, d = 2000, 0.3
    events = torch.randn(n, 2, dtype=torch.float64)
    right, off = (elpd(chains(np.full((1, 1, 2), [m, 0.0])), events) for m in (0.0, d))
    difference, error = right.minus(off)
    assert error == pytest.approx(d * math.sqrt(n), rel=4 / math.sqrt(2 * n))
    assert difference == pytest.approx(n * d**2 / 2, abs=4 * error)
    assert error < 0.5 * right.error * n  # the pairs share most of their fluctuation
    assert right.minus(right) == (0.0, 0.0) and right.unreliable == 0.0
    with pytest.raises(ValueError, match="2000 and 10 events"):
        right.minus(elpd(chains(np.zeros((1, 1, 2))), events[:10]))


def test_training_events_are_left_out():
    """A location known to 1/sqrt(n): leaving one out, exactly N(x_i; mean of the others, 1 + 1/(n-1))."""
    n = 50
    events = torch.randn(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    draws = events.mean(0).numpy() + np.random.default_rng(1).normal(size=(1, 4000, 2)) / math.sqrt(n)
    found = elpd(chains(draws), events, trained=True)
    others, variance = (events.sum(0) - events) / (n - 1), 1 + 1 / (n - 1)
    exact = -0.5 * (events - others).square().sum(1) / variance - math.log(2 * math.pi * variance)
    np.testing.assert_allclose(found.pointwise, exact, atol=0.03)
    assert found.unreliable == 0
    # An event that alone decides where the location is cannot be left out by weights, and k says so.
    outlier = torch.cat([events, torch.tensor([[40.0, 0.0]])])
    assert elpd(chains(draws), outlier, trained=True).unreliable > 0
    with pytest.raises(ValueError, match="not finite in 1 cases"):
        elpd(chains(np.zeros((1, 1, 2))), torch.tensor([[1e200, 0.0], [0.0, 0.0]], dtype=torch.float64), trained=True)


@pytest.mark.parametrize(("setting", "temperature"), [("temperature", 0.1), ("kl_weight", 0.1), ("temperature", 4.0)])
def test_training_events_of_a_tempered_posterior_are_left_out(setting, temperature):
    """A location known to sqrt(T/n): refits without x_i predict N(x_i; mean of the others, 1 + T/(n-1)).

    With 1/p in place of p^(-1/T) the sum would be off by (1 - T) times 2, the number of weights.
    """
    n = 50
    events = torch.randn(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    noise = np.random.default_rng(1).normal(size=(1, 8000, 2))
    posterior = chains(events.mean(0).numpy() + noise * math.sqrt(temperature / n))
    posterior.info = pg.posterior.RunInfo(tempered=True, settings={setting: temperature}, training_events=n)
    found = elpd(posterior, events, trained=True)
    others, variance = (events.sum(0) - events) / (n - 1), 1 + temperature / (n - 1)
    exact = -0.5 * (events - others).square().sum(1) / variance - math.log(2 * math.pi * variance)
    np.testing.assert_allclose(found.pointwise, exact, atol=0.06)
    assert found.pointwise.sum() == pytest.approx(float(exact.sum()), abs=0.3)


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        ({"tempered": True}, "do not tell the temperature"),
        ({"effective_size": 7.0, "training_events": 10}, r"p\^\(-w\)"),
        ({"backend": "Ensemble", "is_posterior": False}, "networks of Ensemble are single trainings"),
        ({"training_events": 8, "validation_events": 2}, "10 events the posterior was trained on 8"),
    ],
)
def test_training_events_that_cannot_be_left_out_are_refused(info, reason):
    posterior, events = chains(np.random.default_rng(1).normal(size=(1, 60, 2))), torch.randn(10, 2)
    posterior.info = pg.posterior.RunInfo(**info)
    with pytest.raises(ValueError, match=reason):
        elpd(posterior, events, trained=True)
    elpd(posterior, events)


def test_pareto_k_of_a_tempered_guide():
    """The exact Gaussian of the tempered posterior, 10 n events and the prior: its ratios are constant."""
    n, temperature = 400, 0.1
    events = torch.randn(n, 2, dtype=torch.float64)
    model = pg.BayesianFlow(Shift(), prior_scale=2.0, preprocessing=None)
    precision = n / temperature + 0.25
    arrays = {"loc": events.sum(0) / temperature / precision, "scale": torch.full((2,), precision**-0.5).double()}
    info = pg.posterior.RunInfo(tempered=True, settings={"kl_weight": temperature})
    assert guide_pareto_k(pg.Posterior(model, MeanField(**arrays), info=info), events, draws=1000) < 0.5
    unknown = pg.Posterior(model, MeanField(**arrays), info=replace(info, settings={}))
    with pytest.raises(ValueError, match="do not tell the temperature"):
        guide_pareto_k(unknown, events)


@pytest.mark.parametrize("scale", [0.5, 1.0])
def test_pareto_k_of_a_guide(scale):
    """A guide narrower than the posterior by s: ratios with a tail of shape 1 - s^2. The exact one has none."""
    n = 400
    events = torch.randn(n, 2, dtype=torch.float64)
    model = pg.BayesianFlow(Shift(), prior_scale=2.0, preprocessing=None)
    precision = n + 0.25
    arrays = {"loc": events.sum(0) / precision, "scale": torch.full((2,), scale * precision**-0.5).double()}
    k = guide_pareto_k(pg.Posterior(model, MeanField(**arrays)), events, draws=4000)
    if scale == 1:
        assert k < 0.5  # ratios are constant to rounding errors
    else:
        # The estimate comes from a tail of 3 sqrt(4000) = 190 ratios, and the limit is approached slowly.
        assert k == pytest.approx(1 - scale**2, abs=0.3)
        assert k > 0.5
    with pytest.raises(ValueError, match="'draws' has no density"):
        guide_pareto_k(chains(np.zeros((2, 50, 2))), events)
    with pytest.raises(ValueError, match="at least 50"):
        guide_pareto_k(pg.Posterior(model, MeanField(**arrays)), events, draws=10)


def test_effective_parameters_of_a_conjugate_model():
    """log p = const - |x - mean|^2 / 2: its variance at x is |x - m|^2 s^2 + s^4, so N E var = 2 for N s^2 = 1."""
    model = pg.BayesianFlow(Location(2), prior_scale=100.0, preprocessing=None)
    n = 400
    weights = MeanField(loc=torch.zeros(2), scale=torch.full((2,), n**-0.5))
    posterior = pg.Posterior(model, weights, info=pg.posterior.RunInfo(training_events=n))
    events = torch.randn(4000, 2)
    # The variance over 400 draws of two numbers is known to sqrt(2 / (2 * 399)); that over events adds less.
    assert effective_parameters(posterior, events, 400) == pytest.approx(2, rel=4 * math.sqrt(1 / 399))
    with pytest.raises(ValueError, match="how many events"):
        effective_parameters(pg.Posterior(model, weights), events)


def test_weights_are_not_silently_ignored():
    weighted = pg.EventSample(torch.randn(20, 2), weights=torch.rand(20) + 0.1)
    posterior = chains(np.zeros((1, 60, 2)))
    posterior.info = replace(posterior.info, training_events=20)
    for call in (elpd, guide_pareto_k, effective_parameters):
        with pytest.raises(ValueError, match="events has weights"):
            call(posterior, weighted)
    arrays = {"loc": torch.zeros(2).double(), "scale": torch.ones(2).double()}
    model = pg.BayesianFlow(Shift(), preprocessing=None)
    guide = pg.Posterior(model, MeanField(**arrays), info=pg.posterior.RunInfo(training_events=30))
    with pytest.raises(ValueError, match="20 events, the posterior was trained on 30"):
        guide_pareto_k(guide, torch.randn(20, 2))
