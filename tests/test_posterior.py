"""Predictions of a posterior: known answers, both histogram procedures, bounded memory, exact files."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from known import Location

import pyrogen as pg
from pyrogen.posterior import MeanField, RunInfo, StoredDraws
from pyrogen.posterior.weights import make_weights


def location_posterior(mean=0.0, width=0.3, features=1, **info) -> pg.Posterior:
    """A posterior known in closed form: location ~ N(mean, width^2)."""
    weights = MeanField(loc=torch.full((features,), mean), scale=torch.full((features,), width))
    return pg.Posterior(pg.BayesianFlow(Location(features), preprocessing=None), weights, info=RunInfo(**info))


def flow_posterior(**flow) -> pg.Posterior:
    events = pg.targets.Wedge().sample((500,))
    model = pg.BayesianFlow(pg.CouplingFlow(2, **{"blocks": 2, "hidden": (8,)} | flow))
    return pg.SVI(epochs=2, batch_size=100, lr=1e-2, progress=False).fit(model, events)


def normal(x, mean, variance):
    return math.exp(-0.5 * (x - mean) ** 2 / variance) / math.sqrt(2 * math.pi * variance)


def test_density_and_uncertainty_have_their_known_values():
    """<N(x; m, 1)> over m ~ N(0, s^2) is N(x; 0, 1 + s^2); <N^2> is a Gaussian integral too."""
    s, draws = 0.3, 4000
    posterior = location_posterior(0.0, s)
    x = torch.tensor([[-2.0], [0.0], [0.5], [1.5]])
    estimate = posterior.density(x, draws=draws)
    for i, point in enumerate(x[:, 0].tolist()):
        mean = normal(point, 0, 1 + s**2)
        second_moment = normal(point, 0, 0.5 + s**2) / (2 * math.sqrt(math.pi))
        sigma = math.sqrt(second_moment - mean**2)
        assert float(estimate.mean[i]) == pytest.approx(mean, abs=4 * sigma / math.sqrt(draws))
        # Relative error of a standard deviation: sqrt((kurtosis - 1) / 4 draws), kurtosis below 9 here; four of them.
        assert float(estimate.std[i]) == pytest.approx(sigma, rel=4 * math.sqrt(2 / draws))
    assert torch.allclose(estimate.relative, estimate.std / estimate.mean)


def test_log_prob_of_each_draw():
    posterior = location_posterior(0.0, 0.3)
    x = torch.randn(7, 1)
    log_prob = posterior.log_prob(x, draws=5)
    for k, theta in enumerate(posterior.weights.draws(5, 0)):
        assert torch.allclose(log_prob[k], torch.distributions.Normal(theta, 1.0).log_prob(x)[:, 0])


def test_relative_uncertainty_stays_finite_where_the_density_underflows():
    """At x = 60 a Gaussian's density is e^-1800, no number; the ratio sigma/p is dominated by the largest draw."""
    estimate = location_posterior(0.0, 0.3).density(torch.tensor([[60.0]]), 20)
    assert estimate.mean == 0 and 1 < estimate.relative < math.sqrt(20)


def test_numpy_numbers_are_numbers():
    posterior = location_posterior()
    n, draws, bins = np.int64(10), np.int32(5), np.int64(4)
    assert posterior.sample(n, draws).shape == (10, 1)
    assert posterior.histogram(np.int64(0), bins, range=(-1, 1), n=n, draws=draws).mean.shape == (4,)
    with pytest.raises(ValueError, match="n is True"):
        posterior.sample(True)


@pytest.mark.parametrize("flow", [{}, {"transform": "rqs"}, {"transform": "rqs", "base": "uniform"}], ids=str)
def test_every_weight_draw_integrates_to_one(flow):
    """A trained posterior with its preprocessing, in float32, widths made large: midpoint rule to 1 %."""
    posterior = flow_posterior(**flow)
    posterior.weights.arrays["scale"].fill_(0.15)
    low, high = (0.0, 1.0) if flow.get("base") else (-9.0, 10.0)
    cells = 300 if flow.get("base") else 900
    axis = torch.linspace(low, high, 2 * cells + 1)[1::2]
    density = posterior.log_prob(torch.cartesian_prod(axis, axis), 5).double().exp()
    assert (density.mean(1) * (high - low) ** 2).numpy() == pytest.approx(1, abs=0.01)


def test_two_calls_agree_and_more_draws_start_with_the_fewer():
    posterior, x = flow_posterior(), torch.rand(20, 2)
    assert torch.equal(posterior.log_prob(x, 5), posterior.log_prob(x, 5))
    assert torch.equal(posterior.log_prob(x, 5), posterior.log_prob(x, 9)[:5])
    assert not torch.equal(posterior.log_prob(x, 5), posterior.log_prob(x, 5, seed=1))
    assert torch.equal(posterior.sample(50), posterior.sample(50))
    assert not torch.equal(posterior.sample(50), posterior.sample(50, seed=1))
    state = torch.get_rng_state()
    posterior.sample(50)
    assert torch.equal(state, torch.get_rng_state())


GAUSSIANS = ("mean_field", "low_rank", "low_rank_precision", "multivariate")


def gaussian(family):
    """Arrays of a Gaussian over three weights, and its covariance."""
    torch.manual_seed(3)
    loc, factor, diagonal = torch.randn(3), torch.randn(3, 1), torch.rand(3) + 0.2
    scale, vectors, shrink = diagonal.sqrt(), factor / factor.norm(), torch.tensor([0.3])
    covariance = factor @ factor.T + torch.diag(diagonal)
    narrowed = torch.diag(scale) @ (torch.eye(3) - 0.91 * vectors @ vectors.T) @ torch.diag(scale)
    return {
        "mean_field": ({"loc": loc, "scale": scale}, torch.diag(diagonal)),
        "low_rank": ({"loc": loc, "cov_factor": factor, "cov_diag": diagonal}, covariance),
        "low_rank_precision": ({"loc": loc, "scale": scale, "vectors": vectors, "shrink": shrink}, narrowed),
        "multivariate": ({"loc": loc, "scale_tril": torch.linalg.cholesky(covariance)}, covariance),
    }[family]


@pytest.mark.parametrize("family", GAUSSIANS)
def test_weight_draws_have_the_covariance_of_their_family(family):
    arrays, expected = gaussian(family)
    draws = torch.stack(list(make_weights(family, arrays).draws(20_000, 0)))
    # Standard error of a covariance of n draws: at most variance * sqrt(2 / n); five of the largest.
    error = 5 * float(expected.diagonal().max()) * math.sqrt(2 / 20_000)
    assert (draws.T.cov() - expected).abs().max() < error
    assert (draws.mean(0) - arrays["loc"]).abs().max() < 5 * math.sqrt(float(expected.diagonal().max()) / 20_000)


@pytest.mark.parametrize("family", GAUSSIANS)
def test_the_density_of_weights_is_that_of_their_gaussian(family):
    arrays, covariance = gaussian(family)
    normal = torch.distributions.MultivariateNormal(arrays["loc"].double(), covariance.double())
    for theta in torch.randn(5, 3):
        expected = float(normal.log_prob(theta.double()))
        assert make_weights(family, arrays).log_prob(theta) == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_families_without_a_density_say_so():
    for family, arrays in (("point", {"loc": torch.zeros(3)}), ("draws", {"draws": torch.zeros(1, 2, 3)})):
        with pytest.raises(ValueError, match=f"'{family}' has no density"):
            make_weights(family, arrays).log_prob(torch.zeros(3))


def test_stored_draws_are_thinned_evenly_and_not_exceeded():
    stored = torch.arange(20.0).reshape(2, 10, 1)
    weights = StoredDraws(stored)
    assert [float(t) for t in weights.draws(3, 0)] == [0.0, 10.0, 19.0]
    with pytest.raises(ValueError, match="holds 20 stored weight draws"):
        list(weights.draws(21, 0))


def test_context_for_a_flow_without_conditions():
    with pytest.raises(ValueError, match="the flow has no conditions"):
        flow_posterior().log_prob(torch.zeros(5, 2), context=torch.zeros(5, 1))


def test_replicates_are_those_of_each_draw_and_leave_the_random_state_alone(monkeypatch):
    monkeypatch.setattr("pyrogen.posterior.predictor.GENERATED_AT_ONCE", 400)
    draws = torch.arange(6.0).reshape(1, 3, 2)
    posterior = pg.Posterior(pg.BayesianFlow(Location(2), preprocessing=None), StoredDraws(draws))
    state = torch.get_rng_state()
    found = {}
    for k, events in posterior.replicates(900, seed=1):
        assert torch.equal(state, torch.get_rng_state())
        torch.rand(1)  # what a caller does in between changes nothing
        state = torch.get_rng_state()
        found.setdefault(k, []).append(events)
    assert [len(part) for part in found[2]] == [400, 400, 100]
    for k, parts in found.items():
        events = torch.cat(parts)
        assert torch.allclose(events.mean(0), draws[0, k], atol=5 / 30)
        assert len(events.unique(dim=0)) == 900  # no part repeats another's noise
    first = torch.cat([events for k, events in posterior.replicates(900, 1, seed=1)])
    assert torch.equal(first, torch.cat(found[0]))


def test_latents_are_not_the_noise_of_the_weights():
    """Nor the numbers that a script gets after ``torch.manual_seed`` of the same seed."""
    posterior = location_posterior(features=8)
    noise = [(theta - 0.0) / 0.3 for theta in posterior.weights.draws(4, seed=3)]
    torch.manual_seed(3)
    seen = torch.stack([*noise, torch.randn(8)])
    latents = [(events - 0.3 * noise[k])[0] for k, events in posterior.replicates(1, 4, seed=3)]
    latents.append(posterior.sample(1, 1, seed=3)[0] - 0.3 * noise[0])
    latents.append(posterior.predictor.sample(1, 1, seed=3, part=0)[0] - 0.3 * noise[0])
    assert (torch.stack(latents)[:, None] - seen).abs().amax(-1).min() > 0.1


def test_samples_follow_the_predictive_distribution():
    """Mean 1 and variance 1 + s^2 at 50,000 events of 500 networks; the networks' own spread dominates the error."""
    n, draws, s = 50_000, 500, 0.3
    events = location_posterior(1.0, s).sample(n, draws)
    assert events.shape == (n, 1)
    assert float(events.mean()) == pytest.approx(1, abs=4 * math.sqrt(s**2 / draws + 1 / n))
    assert float(events.var()) == pytest.approx(1 + s**2, abs=4 * (s**2 * math.sqrt(2 / draws) + math.sqrt(2 / n)))
    first, second = events[: n // 2].mean(), events[n // 2 :].mean()
    # Shuffled: both halves hold all networks. In order, their means would differ by about s sqrt(4 / draws) = 0.027.
    assert abs(float(first - second)) < 4 * math.sqrt(4 * (1 + s**2) / n)


def test_conditional_samples_keep_the_order_of_their_conditions():
    flow = pg.CouplingFlow(1, blocks=2, hidden=(8,), context=1)
    context = torch.rand(500, 1)
    fit = pg.SVI(epochs=30, batch_size=100, lr=1e-2, progress=False)
    posterior = fit.fit(pg.BayesianFlow(flow), 5 * context + 0.01 * torch.randn(500, 1), context=context)
    at = torch.linspace(0, 1, 333)[:, None]
    events = posterior.sample(333, 7, context=at)
    assert torch.corrcoef(torch.cat([events, at], 1).T)[0, 1] > 0.95


def test_generated_events_carry_their_relative_uncertainty():
    posterior = location_posterior(names=("mass",), units=("GeV",))
    sample = posterior.generate(1000, draws=20)
    assert isinstance(sample, pg.EventSample) and sample.names == ("mass",) and sample.units == ("GeV",)
    relative = posterior.density(sample.values, 20).relative
    assert sample.uncertainties == pytest.approx(relative.numpy(), rel=1e-5)
    assert sample.provenance["draws"] == 20


@pytest.mark.parametrize("procedure", ["a", "b"])
def test_histogram_has_the_known_mean_and_spread(procedure):
    """Bin probabilities of N(m, 1) with m ~ N(0, s^2): mean and spread by quadrature over m."""
    s, n, draws = 0.3, 40_000, 400
    edges = torch.linspace(-3, 3, 7)
    band = location_posterior(0.0, s).histogram(0, edges.numpy(), n=n, draws=draws, procedure=procedure)
    m = torch.linspace(-6 * s, 6 * s, 2001)
    density = torch.exp(-0.5 * (m / s) ** 2)
    density /= density.sum()
    per_draw = torch.distributions.Normal(0, 1).cdf(edges[:, None] - m).diff(dim=0)
    mean = (per_draw * density).sum(1)
    std = ((per_draw - mean[:, None]) ** 2 * density).sum(1).sqrt().numpy()
    # The spread of (a) contains the binomial noise of n events [A sec. 3.5]; (b)'s is of the same order in the mean.
    noise = np.sqrt(mean.numpy() * (1 - mean.numpy()) / n)
    assert band.mean == pytest.approx(mean.numpy(), abs=4 * float(np.max(std / math.sqrt(draws) + noise)))
    expected = np.hypot(std, noise) if procedure == "a" else std
    assert band.std == pytest.approx(expected, rel=4 * math.sqrt(2 / draws))
    assert band.draws.shape == (draws, 6) and band.procedure == procedure
    assert band.widths == pytest.approx(np.ones(6))


def test_both_histogram_procedures_agree_on_a_flow():
    """Same posterior, many events: means within the events' own noise, spreads of one size [A sec. 3.5]."""
    posterior, n, draws = flow_posterior(), 20_000, 40
    posterior.weights.arrays["scale"].fill_(0.05)  # a spread well above the events' own noise
    a, b = (posterior.histogram("x1", 5, range=(-0.2, 1.2), n=n, draws=draws, procedure=p) for p in "ab")
    noise = np.sqrt(b.mean * (1 - b.mean) / n)
    assert np.abs(a.mean - b.mean).max() < 5 * noise.max() * (1 + 1 / math.sqrt(draws))
    assert b.std.max() > 5 * noise.max()
    # Both see the same 40 networks, so that their spreads differ by little more than noise / sqrt(draws).
    assert np.abs(a.std - np.hypot(b.std, noise)).max() < noise.max()


def test_histogram_counts_what_lies_outside_in_the_normalisation():
    band = location_posterior().histogram(lambda events: events[:, 0], [0.0, 100.0], n=10_000, draws=20)
    assert band.mean[0] == pytest.approx(0.5, abs=0.3)


def test_chunks_change_nothing(monkeypatch):
    posterior, x = location_posterior(), torch.randn(100, 1)
    whole = posterior.density(x, 10), posterior.log_prob(x, 10)
    monkeypatch.setattr("pyrogen.posterior.predictor.EVENTS_AT_ONCE", 7)
    chunked = posterior.density(x, 10), posterior.log_prob(x, 10)
    # Not to the bit: vectorised loops treat the last few numbers of a block differently.
    assert torch.allclose(whole[0].std, chunked[0].std) and torch.allclose(whole[1], chunked[1])


def test_memory_stays_bounded():
    """200 draws at 100,000 points would be 160 MB of densities in float64 alone; the process may grow by 50 MB."""
    code = """
import resource, torch, pyrogen as pg
flow = pg.CouplingFlow(2, blocks=1, hidden=(4,))
fit = pg.SVI(epochs=1, batch_size=100, progress=False)
posterior = fit.fit(pg.BayesianFlow(flow), torch.randn(100, 2))
x = torch.randn(100_000, 2)
posterior.density(x[:100], 200)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
posterior.density(x, 200)
posterior.histogram(0, 10, range=(-3, 3), n=100_000, draws=50, procedure="b")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(output.stdout) < 50_000  # kB


# --- Files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flow",
    [
        {},
        {"mixing": "alternate"},
        {"mixing": "random", "activation": "tanh"},
        {"transform": "rqs", "bins": 4},
        {"transform": "rqs", "base": "uniform", "bins": 4},
    ],
    ids=str,
)
def test_loaded_posterior_predicts_the_same_bits(tmp_path, flow):
    posterior = flow_posterior(**flow)
    posterior.save(tmp_path / "posterior.h5")
    loaded = pg.load(tmp_path / "posterior.h5")
    x = torch.rand(50, 2)
    assert torch.equal(loaded.log_prob(x, 5), posterior.log_prob(x, 5))
    assert torch.equal(loaded.sample(100, 5), posterior.sample(100, 5))
    assert loaded.info == posterior.info
    assert all(np.array_equal(loaded.history[k], v, equal_nan=True) for k, v in posterior.history.items())
    assert torch.equal(loaded.model.initial_theta, posterior.model.initial_theta)
    assert loaded.model.describe() == posterior.model.describe()


@pytest.mark.parametrize(
    ("family", "arrays"),
    [
        ("low_rank", {"loc": torch.randn(2), "cov_factor": torch.randn(2, 1), "cov_diag": torch.ones(2)}),
        ("multivariate", {"loc": torch.randn(2), "scale_tril": torch.eye(2)}),
        ("point", {"loc": torch.randn(2)}),
        ("draws", {"draws": torch.randn(2, 5, 2)}),
    ],
)
def test_every_family_survives_its_file(tmp_path, family, arrays):
    model = pg.BayesianFlow(Location(2), preprocessing=pg.events.UnitBox([0, 0], [2, 3]))
    posterior, x = pg.Posterior(model, make_weights(family, arrays)), torch.rand(4, 2)
    posterior.save(tmp_path / "p.h5")
    loaded = pg.load(tmp_path / "p.h5", flow=Location(2))
    assert loaded.weights.family == family and torch.equal(loaded.log_prob(x, 4), posterior.log_prob(x, 4))


def test_conditional_posterior_survives_its_file(tmp_path):
    flow, x, context = pg.CouplingFlow(2, blocks=2, hidden=(8,), context=1), torch.randn(200, 2), torch.rand(200, 1)
    posterior = pg.SVI(epochs=1, batch_size=50, progress=False).fit(pg.BayesianFlow(flow), x, context=context)
    posterior.save(tmp_path / "p.h5")
    loaded = pg.load(tmp_path / "p.h5")
    assert torch.equal(loaded.log_prob(x, 3, context=context), posterior.log_prob(x, 3, context=context))
    assert torch.equal(loaded.sample(200, 3, context=context), posterior.sample(200, 3, context=context))


def test_float64_posterior_keeps_its_bits(tmp_path):
    model = pg.BayesianFlow(pg.CouplingFlow(2, blocks=2, hidden=(8,)), prior_scale={"*.bias": 0.5, "*": 1.0})
    fit = pg.SVI(epochs=1, batch_size=100, dtype=torch.float64, progress=False)
    posterior = fit.fit(model, torch.randn(200, 2))
    posterior.save(tmp_path / "p.h5")
    x = torch.randn(5, 2, dtype=torch.float64)
    assert torch.equal(pg.load(tmp_path / "p.h5").log_prob(x, 3), posterior.log_prob(x, 3))


def test_other_flows_are_loaded_around_a_module(tmp_path):
    posterior = location_posterior(features=2)
    posterior.save(tmp_path / "p.h5")
    loaded = pg.load(tmp_path / "p.h5", flow=Location(2))
    assert torch.equal(loaded.log_prob(torch.ones(3, 2), 3), posterior.log_prob(torch.ones(3, 2), 3))
    with pytest.raises(pg.FileFormatError, match=r"over a Location; give pg.load\(path, flow=...\)"):
        pg.load(tmp_path / "p.h5")
    with pytest.raises(pg.FileFormatError, match="differ in name or shape"):
        pg.load(tmp_path / "p.h5", flow=Location(3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: p.density(torch.zeros(5, 2), draws=1), "needs at least two weight draws"),
        (lambda p: p.density(torch.zeros(5, 2), draws=0), "draws is 0"),
        (lambda p: p.log_prob(torch.zeros(5, 3)), "must have 2 columns; got 3"),
        (lambda p: p.log_prob(torch.full((5, 2), math.nan)), "5 of 5 rows hold NaN"),
        (lambda p: p.log_prob(torch.zeros(0, 2)), "empty sample"),
        (lambda p: p.sample(0), "n is 0"),
        (lambda p: p.sample(10, draws=-1), "draws is -1"),
        (lambda p: p.sample(2.5), "n is 2.5"),
        (lambda p: p.density(pg.EventSample(np.zeros((5, 2)), names=("a", "c"))), "was trained on"),
        (lambda p: p.histogram(0, [0, 1], n=20, draws=50, procedure="b"), "n is 20; .* at least 50"),
        (lambda p: p.histogram(True, [0, 1]), "no column True"),
        (lambda p: p.generate(-1), "n is -1"),
        (lambda p: p.histogram(0, 10), r"needs range=\(low, high\)"),
        (lambda p: p.histogram(0, [1.0, 0.0]), "increasing numbers"),
        (lambda p: p.histogram("mass", [0, 1]), "no column 'mass'"),
        (lambda p: p.histogram(5, [0, 1]), "no column 5"),
        (lambda p: p.histogram(0, [0, 1], procedure="c"), "procedure is 'c'"),
        (lambda p: p.histogram(lambda e: e, [0, 1], n=10), r"the observable gave shape \[10, 2\]"),
        (lambda p: p.histogram(lambda e: e[:, 0] / 0, [0, 1], n=10), "the observable is NaN or infinite"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call(location_posterior(features=2, names=("a", "b")))
