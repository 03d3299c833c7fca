"""pg.LastLayers: partly random networks, on a posterior with a ridge where mean field is wrong by a known factor."""

import math
from dataclasses import replace
from functools import partial

import pyro.distributions as dist
import pytest
import torch
from baselines import kill_at_save
from known import Location
from torch import nn

import pyrogen as pg
from pyrogen.bayes.last_layers import last_layers, random_weights
from pyrogen.diagnostics import advise
from pyrogen.inference.vi import training as training_module

N, FEATURES, INPUTS = 20, 12, 8  # features are repetitions, over which a trained width is averaged
EVENTS = 0.3 + torch.randn(N, FEATURES, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
SAMPLES = torch.randn(3, 60, 2, generator=torch.Generator().manual_seed(3))
BIAS = partial(pg.LastLayers, random=("*.bias",))


class Sum(nn.Module):
    """Events ~ N(w_1 + ... + w_8 + b, 1): they tell the sum of nine parameters, and nothing else of them."""

    features = FEATURES

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(INPUTS, FEATURES)

    def log_prob(self, x):
        return dist.Normal(self.layer(torch.ones(len(x), INPUTS).to(x)), 1.0).log_prob(x).sum(-1)

    def sample(self, n):
        return self.layer(torch.ones(n, INPUTS).to(self.layer.bias)) + torch.randn(n, FEATURES).to(self.layer.bias)


def svi(**kwargs):
    settings = {"epochs": 400, "batch_size": N, "lr": 2e-2, "lr_widths": 5e-2, "dtype": torch.float64}
    return pg.SVI(**settings | {"progress": False} | kwargs)


def flow():
    return pg.BayesianFlow(pg.CouplingFlow(2, 2, (6,), seed=1), preprocessing=None)


def variance_of_sum(posterior):
    """Variance of the predicted mean, from the widths, which are independent; mean of the features."""
    return float(posterior.weights.arrays["scale"].square().sum()) / FEATURES


@pytest.mark.parametrize("many", [False, True])
def test_it_follows_the_ridge_that_mean_field_leaves(many):
    """The sum of K = 9 parameters with prior variance 1 has the posterior variance 1 / (N + 1/K). Mean field has the
    conditional variance 1 / (N + 1) in each of them, K times that in the sum, and sigma is sqrt(K) = 3 times too wide.
    With one of them random it is 1 / (N + 1)."""
    k = INPUTS + 1

    def fitted(guide):
        model = pg.BayesianFlow(Sum(), preprocessing=None)
        backend = svi(guide=guide, epochs=250, init_scale=0.05)
        if not many:
            return backend.fit(model, EVENTS)
        posterior = backend.fit_many(model, torch.stack([EVENTS + 1, EVENTS]))[1]
        assert posterior.info.batched
        return posterior

    found, mean_field = fitted(BIAS), fitted(pg.AutoNormal)
    exact = 1 / (N + 1 / k)
    assert variance_of_sum(found) == pytest.approx(1 / (N + 1), rel=0.15)
    assert variance_of_sum(mean_field) / exact == pytest.approx(k * (N + 1 / k) / (N + 1), rel=0.15)
    # Points are at the maximum of their posterior, and so the sum is at its mean.
    weight, bias = found.weights.arrays["loc"].split([FEATURES * INPUTS, FEATURES])
    assert torch.allclose(weight.view(FEATURES, INPUTS).sum(1) + bias, EVENTS.mean(0) * N * exact, atol=0.03)


@pytest.mark.parametrize("many", [False, True])
def test_the_kl_is_that_of_the_random_weights_and_the_prior_at_the_points(many):
    backend, model = svi(epochs=2, lr=1e-12, lr_widths=1e-12, guide=BIAS), pg.BayesianFlow(Sum(), 2.0)
    posterior = backend.fit_many(model, EVENTS[None])[0] if many else backend.fit(model, EVENTS)
    theta, ratio = posterior.weights.arrays["loc"] / 2.0, (1e-3 / 2.0) ** 2
    kl = 0.5 * theta.square().sum() + FEATURES * 0.5 * (ratio - 1 - math.log(ratio))
    assert posterior.history["kl"][-1] * N == pytest.approx(float(kl), rel=1e-6)


@pytest.mark.parametrize("many", [False, True])
def test_points_make_no_noise_in_the_training(many):
    """Of nine weights of width 1 one adds 1/2 per feature to the negative log-likelihood, nine would add 9/2."""
    rates = {"lr": 1e-12, "lr_widths": 1e-12, "widths_after": 0.0}
    backend, model = svi(epochs=50, init_scale=1.0, guide=BIAS, **rates), pg.BayesianFlow(Sum(), preprocessing=None)
    posterior = backend.fit_many(model, EVENTS[None])[0] if many else backend.fit(model, EVENTS)
    at_means = -float(posterior.model.log_prob(posterior.weights.arrays["loc"], EVENTS).mean())
    # An event's own noise has the variance of 12 times about 2, and there are 1,000 of them: six errors.
    assert posterior.history["nll"].mean() - at_means == pytest.approx(FEATURES / 2, abs=6 * (24 / 1000) ** 0.5)


def test_last_layers_of_every_network_are_random():
    model = flow()
    expected = ["blocks.0.conditioner.layers.2", "blocks.1.conditioner.layers.2"]
    assert last_layers(model.flow) == expected
    posterior = svi(epochs=2, dtype=None, guide=pg.LastLayers).fit(model, SAMPLES[0])
    scale, random = posterior.weights.arrays["scale"], random_weights(model)
    by_name = model.packing.unpack(random)
    assert all(bool(own.all()) == (name.rpartition(".")[0] in expected) for name, own in by_name.items())
    assert (scale[~random] == 0).all() and (scale[random] > 0).all()
    assert posterior.info.local_reparameterization
    one, other = posterior.weights.draws(2, 0)
    assert torch.equal(one[~random], other[~random]) and not (one[random] == other[random]).any()


@pytest.mark.parametrize("many", [False, True])
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, monkeypatch, many):
    backend = svi(epochs=6, dtype=None, guide=pg.LastLayers)

    def run(own):
        return own.fit_many(flow(), SAMPLES) if many else [own.fit(flow(), SAMPLES[0])]

    whole = run(backend)
    again = replace(backend, checkpoint=tmp_path / "run.h5")
    with monkeypatch.context() as patched:
        kill_at_save(patched, 3, training_module)
        with pytest.raises(KeyboardInterrupt):
            run(again)
    for one, other in zip(run(again), whole, strict=True):
        assert all(torch.equal(one.weights.arrays[name], other.weights.arrays[name]) for name in ("loc", "scale"))
        assert (one.history["loss"] == other.history["loss"]).all()


def test_a_saved_posterior_predicts_the_same(tmp_path):
    posterior = svi(epochs=2, dtype=None, guide=pg.LastLayers).fit(flow(), SAMPLES[0])
    posterior.save(tmp_path / "p.h5")
    loaded = pg.load(tmp_path / "p.h5")
    assert loaded.weights.family == "partly_random" and not loaded.weights.independent
    assert torch.equal(loaded.log_prob(SAMPLES[1], 4), posterior.log_prob(SAMPLES[1], 4))
    with pytest.raises(ValueError, match="no density over the weights"):
        loaded.weights.log_prob(loaded.model.initial_theta)


def test_the_guide_goes_to_a_device_as_a_whole():
    guide = pg.LastLayers(flow())
    guide(SAMPLES[0])
    guide.to("meta")
    assert {value.device.type for value in [*guide.parameters(), *guide.buffers(), guide.random]} == {"meta"}
    assert guide._get_loc_and_scale("theta")[1].device.type == "meta"  # made of the guide's tensors alone
    assert not set(guide.state_dict()) & {"random", "_widths_of_points"}  # as in files of older versions


def test_advice_knows_which_widths_there_are():
    """Eight of nine weights are points: their widths are zero, and neither have moved nor pull."""

    def problems(**settings):
        backend = svi(guide=BIAS, widths_after=0.0, **settings)
        advice = advise(backend.fit(pg.BayesianFlow(Sum(), preprocessing=None), EVENTS), EVENTS)
        return {finding.problem for finding in advice.findings}

    assert {"partly random", "guide collapsed to its initial width"} <= problems(epochs=30, lr_widths=1e-5)
    assert "widths still growing" in problems(epochs=30, lr_widths=3e-2)
    trained = problems(epochs=300)
    assert "partly random" in trained
    assert not {"mean field", "guide collapsed to its initial width", "widths still growing"} & trained


def test_what_cannot_be_random_is_named():
    model = pg.BayesianFlow(Sum())
    with pytest.raises(ValueError, match="random holds '\\*.bais', which matches none of the parameters"):
        svi(guide=partial(pg.LastLayers, random=("*.bais",))).fit(model, EVENTS)
    with pytest.raises(ValueError, match="random holds '\\*.bais'"):
        svi(guide=partial(pg.LastLayers, random=("*.bais",))).fit_many(model, EVENTS[None])
    with pytest.raises(ValueError, match="goes on with the guide pg.AutoNormal"):
        started = svi(epochs=1, guide=BIAS).fit(model, EVENTS)
        svi(guide=BIAS).fit(model, EVENTS, start=started)


@pytest.mark.parametrize("random", [(), "*.bias", (1,)])
def test_many_samples_check_the_patterns_as_one_does(random):
    """Without the check () trains no width at all, and a text is taken letter by letter."""
    backend, model = svi(epochs=1, guide=partial(pg.LastLayers, random=random)), pg.BayesianFlow(Sum())
    with pytest.raises(ValueError, match="random is "):
        backend.fit(model, EVENTS)
    with pytest.raises(ValueError, match="random is "):
        backend.fit_many(model, EVENTS[None])


def test_a_last_layer_with_weight_norm_is_random_as_a_whole():
    flow = Sum()
    nn.utils.parametrizations.weight_norm(flow.layer)
    assert random_weights(pg.BayesianFlow(flow, preprocessing=None)).all()


def test_a_flow_that_is_a_linear_layer_itself_is_random():
    class Layer(nn.Linear):
        features = 2
        log_prob = sample = nn.Linear.forward

    assert random_weights(pg.BayesianFlow(Layer(1, 2), preprocessing=None)).all()


def test_a_flow_without_linear_layers_is_refused():
    with pytest.raises(ValueError, match="has no torch.nn.Linear whose weights could be the last layer"):
        svi(guide=pg.LastLayers).fit(pg.BayesianFlow(Location(2)), SAMPLES[0])
