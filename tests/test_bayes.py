"""The Bayesian lifting: prior, packed weights, data plate, exact KL, local reparameterization, plain Pyro."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoLowRankMultivariateNormal
from pyro.infer.autoguide import AutoNormal as PyroAutoNormal
from torch import nn

import pyrogen as pg
from pyrogen.bayes import LocalReparameterizationError, normalise_weights
from pyrogen.bayes.noise import SHARED
from pyrogen.bayes.packing import WeightPacking


@pytest.fixture(autouse=True)
def _empty_param_store():
    pyro.clear_param_store()


def small_model(**kwargs) -> pg.BayesianFlow:
    return pg.BayesianFlow(pg.CouplingFlow(2, blocks=2, hidden=(8,)), **kwargs)


class GaussianLocation(nn.Module):
    """Events ~ N(theta, I): the posterior is known in closed form."""

    def __init__(self, features: int = 2) -> None:
        super().__init__()
        self.features = features
        self.location = nn.Parameter(torch.zeros(features))

    def log_prob(self, x):
        return dist.Normal(self.location, 1.0).log_prob(x).sum(-1)

    def sample(self, n):
        return self.location + torch.randn(n, self.features)


def test_packing_round_trip_and_functional_call():
    flow = pg.CouplingFlow(2, blocks=3, hidden=(8, 8), mixing="alternate")
    packing = WeightPacking(flow)
    theta = packing.pack()
    assert theta.shape == (packing.size,)
    for name, parameter in flow.named_parameters():
        assert torch.equal(packing.unpack(theta)[name], parameter)
    x = torch.randn(10, 2)
    assert torch.equal(packing.call(theta, "log_prob", x), flow.log_prob(x))
    other = pg.CouplingFlow(2, blocks=3, hidden=(8, 8), mixing="alternate", seed=5)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    assert torch.equal(packing.call(WeightPacking(other).pack(), "log_prob", x), other.log_prob(x))
    with pytest.raises(ValueError, match="this model needs one vector"):
        packing.unpack(torch.zeros(3, packing.size))


def test_lifting_copies_the_flow_and_starts_at_its_weights():
    flow = pg.CouplingFlow(2, blocks=2, hidden=(8,))
    model = pg.BayesianFlow(flow, preprocessing=None)
    x = torch.randn(10, 2)
    assert torch.equal(model.log_prob(model.initial_theta, x), flow.log_prob(x))
    with torch.no_grad():
        next(flow.parameters()).add_(1)
    assert not torch.equal(model.initial_theta, WeightPacking(flow).pack())
    assert all(p.requires_grad for p in flow.parameters())


def test_model_trace_has_one_packed_site_and_a_scaling_plate():
    model = small_model()
    events = torch.randn(50, 2)
    trace = poutine.trace(model).get_trace(events, size=1000)
    trace.compute_log_prob()
    assert trace.nodes["theta"]["value"].shape == (model.weights,)
    assert [name for name, site in trace.nodes.items() if site["type"] == "sample" and name != "data"] == [
        "theta",
        "events",
    ]
    expected = 1000 / 50 * model.log_prob(trace.nodes["theta"]["value"], events).sum()
    assert trace.nodes["events"]["log_prob_sum"] == pytest.approx(expected.item(), rel=1e-5)


def test_event_weights_of_either_sign_multiply_the_likelihood():
    model = small_model()
    events, weights = torch.randn(50, 2), torch.linspace(-0.5, 2, 50)
    trace = poutine.trace(model).get_trace(events, weights, size=100)
    trace.compute_log_prob()
    expected = 2 * (weights * model.log_prob(trace.nodes["theta"]["value"], events)).sum()
    assert trace.nodes["events"]["log_prob_sum"] == pytest.approx(expected.item(), rel=1e-5)


def test_normalised_weights_sum_to_the_effective_size():
    weights = torch.tensor([1.0, 2.0, -0.5, 3.0])
    assert normalise_weights(weights).sum() == pytest.approx(5.5**2 / 14.25)
    assert normalise_weights(torch.full((10,), 7.0)) == pytest.approx(torch.ones(10))


def test_prior_widths_by_pattern():
    model = small_model(prior_scale={"*.bias": 0.1, "blocks.0.*": 2.0, "*": 1.0})
    widths = model.packing.unpack(model.prior().stddev)
    assert (widths["blocks.0.conditioner.layers.0.bias"] == 0.1).all()
    assert (widths["blocks.0.conditioner.layers.0.weight"] == 2.0).all()
    assert (widths["blocks.1.conditioner.layers.0.weight"] == 1.0).all()


def test_densities_are_per_unit_of_the_events_own_variables():
    """Events in other units: the density changes by the Jacobian, here 1/(3 * 100)."""
    theta, x = small_model().initial_theta, torch.randn(1000, 2)
    scale = torch.tensor([3.0, 100.0])
    plain, scaled = small_model().prepare(x), small_model().prepare(x * scale)
    assert torch.allclose(scaled.log_prob(theta, x * scale), plain.log_prob(theta, x) - math.log(300), atol=1e-4)
    assert scaled.sample_events(theta, 1000).std(0)[1] > 50


def test_prepare_leaves_the_model_alone_and_keeps_fitted_constants():
    model = small_model()
    assert not model.preprocessing.fitted
    prepared = model.prepare(5 + torch.randn(100, 2), dtype=torch.float64)
    assert not model.preprocessing.fitted and model.dtype == torch.float32
    assert prepared.preprocessing.fitted and prepared.dtype == torch.float64
    again = prepared.prepare(torch.randn(100, 2))
    assert again.preprocessing.config() == prepared.preprocessing.config()


# --- Guide and ELBO ---------------------------------------------------------------------------------------------


def with_guide(model, example, init_scale=0.1, guide=pg.AutoNormal):
    guide = guide(model, init_scale=init_scale)
    guide(example)
    return guide


def test_guide_is_a_pyro_autonormal_and_starts_at_the_flow():
    model = small_model()
    guide = with_guide(model, torch.randn(5, 2), init_scale=1e-3)
    assert isinstance(guide, PyroAutoNormal)
    assert torch.equal(guide.median()["theta"], model.initial_theta)
    assert torch.allclose(guide._get_loc_and_scale("theta")[1], torch.tensor(1e-3), rtol=1e-3)


@pytest.mark.parametrize("elbo", [TraceMeanField_ELBO(), pg.ELBO(local=True), pg.ELBO(local=False)])
def test_kl_is_exact_without_data(elbo):
    """Weight zero on every event: the loss is the KL, in closed form, with no variance at all."""
    model, events = small_model(prior_scale=0.7), torch.randn(5, 2)
    guide = with_guide(model, events)
    losses = torch.tensor([elbo.loss(model, guide, events, torch.zeros(5)) for _ in range(10)])
    loc, scale = guide._get_loc_and_scale("theta")
    exact = (0.5 * (loc**2 + scale**2) / 0.7**2 - 0.5 - (scale / 0.7).log()).sum()
    assert len(losses.unique()) == 1
    assert losses[0] == pytest.approx(exact.item(), rel=1e-5)


def test_pyros_own_autonormal_has_no_exact_kl_here():
    """Why pg.AutoNormal exists; when this fails, Pyro has learned it and ours can go."""
    model, events = small_model(), torch.randn(5, 2)
    guide = with_guide(model, events, guide=PyroAutoNormal)
    losses = torch.tensor([TraceMeanField_ELBO().loss(model, guide, events, torch.zeros(5)) for _ in range(10)])
    assert losses.std() > 0.1


def test_local_reparameterization_gives_every_event_its_own_noise():
    """50 identical rows: 50 different densities; with one weight draw they are all the same."""
    model = small_model()
    events = torch.ones(50, 2)
    guide = with_guide(model, events)
    loc, scale = guide._get_loc_and_scale("theta")
    assert len(model.local_log_prob(loc, scale, events).unique()) == 50
    theta = guide()["theta"]
    assert model.log_prob(theta, events).std() < 1e-6


def test_local_reparameterization_has_the_distribution_of_weight_draws():
    """Log density at one point over 6,000 local draws against 6,000 weight draws: mean and spread agree.

    On a CPU some events share the magnitudes of their noise, so that many local draws count as one.
    """
    torch.manual_seed(3)
    model = small_model()
    n, point = 6_000, torch.tensor([[0.3, -0.7]])
    loc = model.initial_theta + 0.3 * torch.randn(model.weights)
    scale = torch.full_like(loc, 0.15)
    local = model.local_log_prob(loc, scale, point.expand(SHARED * n, -1))
    drawn = torch.stack([model.log_prob(loc + scale * torch.randn_like(loc), point)[0] for _ in range(n)])
    # Standard error of a mean and of a spread, times 4.
    error = 4 * drawn.std() / math.sqrt(n) * math.sqrt(2)
    assert abs(local.mean() - drawn.mean()) < error
    quantiles = torch.tensor([0.16, 0.84])
    low, high = (local.quantile(quantiles) - drawn.quantile(quantiles)) / drawn.std()
    assert abs(low) < 0.1 and abs(high) < 0.1


class Twisted(nn.Module):
    """A flow-like module that uses its linear layers in one of several ways."""

    features = 2

    def __init__(self, use: str) -> None:
        super().__init__()
        self.layer, self.use = nn.Linear(2, 2), use
        self.other = nn.Linear(2, 2)
        if use == "set":
            self.layer = nn.Linear(1, 2)
        elif use == "attended":
            self.register_buffer("places", torch.ones(2, 2))
        elif use == "hooked":
            self.layer.register_forward_hook(lambda module, inputs, output: 2 * output)
        if use == "tied":
            self.other = self.layer
        elif use == "shared weight":
            self.other.weight = self.layer.weight

    def log_prob(self, x):
        if self.use == "bypassed":
            first = nn.functional.linear(x, self.layer.weight)
        elif self.use == "set":
            first = self.layer(x.unsqueeze(-1)).sum(-2)
        elif self.use == "attended":
            first = x @ self.layer(self.places)
        elif self.use == "batch":
            first = x + self.layer(x.mean(0))
        else:
            first = self.layer(x)
        second = self.layer(first) if self.use == "twice" else first
        return -self.other(second).square().sum(-1)

    def sample(self, n):
        return torch.randn(n, 2)


@pytest.mark.parametrize(
    ("use", "reason"),
    [
        ("twice", "is called 2 times"),
        ("tied", "are the same parameter"),
        ("shared weight", "are the same parameter"),
        ("bypassed", "does not work with noisy linear layers"),
        ("set", "layer acts on 14 rows of 7 events"),
        ("attended", "layer acts on 2 rows of 7 events"),
        ("batch", "layer acts on 1 rows of 7 events"),
        ("hooked", "layer has hooks"),
    ],
)
def test_flows_that_local_reparameterization_does_not_cover_fall_back(use, reason):
    """The obstacle is named; both ELBOs are then the same, one weight draw a step."""
    model, events = pg.BayesianFlow(Twisted(use), preprocessing=None), torch.ones(20, 2)
    assert reason in model.local_obstacle()
    with pytest.raises(LocalReparameterizationError, match=reason):
        model.local_log_prob(model.initial_theta, model.initial_theta.abs(), events)
    guide = with_guide(model, events)
    losses = []
    for local in (True, False):
        torch.manual_seed(1)
        losses.append(pg.ELBO(local=local).loss(model, guide, events))
    assert losses[0] == losses[1]


class Sum(nn.Module):
    """A deep set: one number a x_1 + b x_2 with a = b, of which log p is a square."""

    features = 2

    def __init__(self) -> None:
        super().__init__()
        self.phi = nn.Linear(1, 1, bias=False)

    def log_prob(self, x):
        return -0.5 * self.phi(x.unsqueeze(-1)).sum(-2).square().sum(-1)

    def sample(self, n):
        return torch.randn(n, 2)


def test_the_elbo_of_a_deep_set_is_that_of_weight_draws():
    """log p = -(w (x1 + x2))^2 / 2 with w ~ N(m, s^2) has the mean -(m^2 + s^2)(x1 + x2)^2 / 2.

    Noise of their own for x1 and x2 would give -(m^2 (x1 + x2)^2 + s^2 (x1^2 + x2^2)) / 2.
    """
    model, events, m, s = pg.BayesianFlow(Sum(), preprocessing=None), torch.tensor([[1.0, 2.0]]), 0.5, 0.8
    guide = with_guide(model, events)
    with torch.no_grad():
        guide._get_loc_and_scale("theta")[0].fill_(m)
        guide.scales.theta = torch.full((1,), s)
    elbo, draws = pg.ELBO(num_particles=1000), 1000  # noise of their own would be seven standard errors off
    elbo.loss(model, guide, events)
    exact, deviation = 4.5 * (m**2 + s**2), 4.5 * math.sqrt(2 * s**4 + 4 * m**2 * s**2)
    assert float(elbo.parts[0]) == pytest.approx(exact, abs=4 * deviation / math.sqrt(draws))
    settings = pg.SVI(epochs=1, batch_size=5, progress=False)
    for posterior in (settings.fit(model, torch.randn(5, 2)), settings.fit_many(model, torch.randn(2, 5, 2))[0]):
        assert not posterior.info.local_reparameterization
        assert "phi acts on 14 rows of 7 events" in posterior.info.local_reparameterization_reason


def test_rows_are_counted_in_training_too():
    """A set whose length only the events tell passes the check on examples of length one, and not the training."""
    model = pg.BayesianFlow(Sum(), preprocessing=None)
    model.flow.sample, model._features = lambda n: torch.randn(n, 1), None
    assert model.local_obstacle() is None
    with pytest.raises(LocalReparameterizationError, match="phi acts on 10 rows of 5 events"):
        model.local_log_prob(model.initial_theta, model.initial_theta.abs(), torch.randn(5, 2))


def test_other_modules_are_covered_where_their_layers_allow():
    assert pg.BayesianFlow(Twisted("plainly")).local_obstacle() is None
    assert "location belongs to a GaussianLocation" in pg.BayesianFlow(GaussianLocation()).local_obstacle()


def test_elbo_parts_add_up():
    model, events = small_model(), torch.randn(20, 2)
    guide = with_guide(model, events)
    elbo = pg.ELBO()
    loss = elbo.loss(model, guide, events, size=500)
    nll, kl = elbo.parts
    assert float(nll + kl) == pytest.approx(loss, rel=1e-5)
    assert float(kl) == pytest.approx(TraceMeanField_ELBO().loss(model, guide, events, torch.zeros(20)), rel=1e-4)


# --- Plain Pyro tools -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guide", [PyroAutoNormal, pg.AutoNormal, AutoLowRankMultivariateNormal])
@pytest.mark.parametrize("elbo", [Trace_ELBO, TraceMeanField_ELBO])
def test_pyros_svi(guide, elbo):
    """Pyro's SVI learns the location of shifted events."""
    events = 3 + torch.randn(500, 2)
    model = pg.BayesianFlow(GaussianLocation())
    guide = guide(model, init_scale=0.1)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.03}), elbo())
    for _ in range(400):
        svi.step(events[torch.randint(500, (100,))], size=500)
    assert guide.median()["theta"] == pytest.approx(events.mean(0), abs=0.15)


def test_pyros_predictive():
    model, events = small_model(), torch.randn(30, 2)
    prior = Predictive(model, num_samples=3)(size=100)
    assert prior["events"].shape == (3, 100, 2) and prior["theta"].squeeze().shape == (3, model.weights)
    guide = with_guide(model, events)
    predicted = Predictive(model, guide=guide, num_samples=4)(size=100)
    assert predicted["events"].shape == (4, 100, 2)


def test_poutine_condition_replay_and_block():
    model, events = small_model(), torch.randn(30, 2)
    theta = model.initial_theta + 0.1
    trace = poutine.trace(poutine.condition(model, data={"theta": theta})).get_trace(events)
    assert trace.nodes["theta"]["is_observed"]
    replayed = poutine.trace(poutine.replay(model, trace=poutine.trace(model).get_trace(events))).get_trace(events)
    assert torch.isfinite(torch.as_tensor(replayed.log_prob_sum()))
    hidden = poutine.trace(poutine.block(model, hide=["theta"])).get_trace(events)
    assert "theta" not in hidden.nodes


def test_vectorized_particles_are_refused_in_words():
    model, events = small_model(), torch.randn(30, 2)
    guide = with_guide(model, events)
    with pytest.raises(ValueError, match="not vectorized|vectorized particles"):
        Trace_ELBO(num_particles=3, vectorize_particles=True).loss(model, guide, events)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: pg.BayesianFlow(nn.Linear(2, 2)), TypeError, "it lacks log_prob and sample"),
        (lambda: small_model(prior_scale=0.0), ValueError, "prior_scale is 0.0"),
        (lambda: small_model(prior_scale={"blocks.0.*": 1.0}), ValueError, "no pattern of prior_scale matches"),
        (lambda: small_model(preprocessing="whiten"), ValueError, "unknown preprocessing 'whiten'"),
        (lambda: small_model()(), ValueError, "neither events to score nor a size"),
        (lambda: small_model()(torch.randn(5, 2), size=3), ValueError, "size is 3, less than the 5 events"),
        (lambda: small_model()(torch.randn(5, 2), torch.ones(5, 1)), ValueError, r"weights of shape \[5, 1\] for 5"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()
