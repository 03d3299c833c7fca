"""The noise of local reparameterization: standard normal, uncorrelated between events, and an unbiased gradient."""

import math

import pytest
import torch

import pyrogen as pg
from pyrogen.bayes import local, noise
from pyrogen.bayes.compiled import compile_local
from pyrogen.bayes.noise import SHARED, Noise

EVENTS, UNITS = 2 * SHARED - 1, (3, 2)


def test_every_event_has_independent_normal_noise_uncorrelated_with_other_events():
    """Mean, covariance and fourth moment of 5 numbers of 7 events over 6,000 draws."""
    torch.manual_seed(0)
    n, like = 6_000, torch.zeros(0)
    drawn = []
    for _ in range(n):
        layers = Noise.draw(EVENTS, sum(UNITS), like).layers(UNITS)
        drawn.append(torch.cat([own.of_layer(EVENTS, units) for own, units in zip(layers, UNITS, strict=True)], 1))
    values = torch.stack(drawn).flatten(1).double()  # [n, events x units]
    error = 5 / math.sqrt(n)  # of a product of two of them, whose variance is at most 3 (for x y of one magnitude)
    assert values.mean(0).abs().max() < error
    covariance = values.T @ values / n
    assert (covariance - torch.eye(values.shape[1])).abs().max() < math.sqrt(3) * error
    assert (values.pow(4).mean(0) - 3).abs().max() < math.sqrt(96) * error  # E x^8 - 9 = 96
    own = values.unflatten(1, (EVENTS, -1))[:, 0]
    squares = (own.square() - 1).T @ (own.square() - 1) / n
    assert (squares - 2 * torch.eye(own.shape[1])).abs().max() < math.sqrt(60) * error  # E (x^2 - 1)^4 = 60


def gradients(model, mean, scale, events, steps):
    """Gradients ``[steps, 2 P]`` of the mean log density by mean and scale."""
    found = []
    for _ in range(steps):
        loss = model.local_log_prob(mean, scale, events).mean()
        found.append(torch.cat(torch.autograd.grad(loss, (mean, scale))))
    return torch.stack(found).double()


def test_shared_magnitudes_leave_the_gradient_unbiased(monkeypatch):
    """Its mean over 1,500 steps agrees with that of noise drawn anew for every event, for 5 standard errors."""
    torch.manual_seed(1)
    model = pg.BayesianFlow(pg.CouplingFlow(2, 2, (5,), activation="tanh"), preprocessing=None)
    events = 0.5 * torch.randn(4 * SHARED, 2)
    mean, scale = model.initial_theta.clone().requires_grad_(), torch.full((model.weights,), 0.1).requires_grad_()
    shared = gradients(model, mean, scale, events, 1500)
    monkeypatch.setattr(noise, "SHARED", 1)
    plain = gradients(model, mean, scale, events, 1500)
    error = ((shared.var(0) + plain.var(0)) / len(plain)).sqrt()
    assert ((shared.mean(0) - plain.mean(0)).abs() < 5 * error + 1e-9).all()


@pytest.mark.parametrize("events", [1, SHARED - 1, SHARED, EVENTS])
def test_noise_is_the_same_from_the_same_random_state(events):
    """Also for several networks at once, each with noise of its own."""
    like = torch.zeros(0, dtype=torch.float64)
    draws = []
    for _ in range(2):
        torch.manual_seed(4)
        draws.append(Noise.draw(events, 3, like).of_layer(events, 3))
    assert torch.equal(*draws) and draws[0].shape == (events, 3) and draws[0].dtype == torch.float64
    many = torch.func.vmap(lambda _: Noise.draw(events, 3, like).of_layer(events, 3), randomness="different")
    assert len(many(torch.zeros(2)).unique()) >= 2 * 3 * math.ceil(events / SHARED)


@pytest.mark.parametrize("bias", [True, False])
def test_the_arithmetic_for_a_card_is_that_for_a_cpu(bias, monkeypatch):
    """Means and variances in one product, and noise without signs: value and gradient from the same numbers."""
    module = torch.nn.Sequential(torch.nn.Linear(2, 3, bias=bias), torch.nn.Tanh(), torch.nn.Linear(3, 1, bias=bias))
    module.log_prob = lambda x: module(x)[:, 0]
    flow = local.LocalFlow(module)
    flow._noisy.log_prob = lambda x: flow._noisy(x)[:, 0]
    size = sum(parameter.numel() for parameter in module.parameters())
    mean, variance = torch.randn(size, requires_grad=True), torch.rand(size, requires_grad=True)
    given, x = Noise(torch.randn(6 * 4), None), torch.randn(6, 2)
    found = []
    for in_one in (False, True):
        monkeypatch.setattr(local, "_in_one_product", lambda values, in_one=in_one: in_one)
        value = flow.log_prob_given(given, mean, variance, x)
        found.append([value, *torch.autograd.grad(value.sum(), (mean, variance))])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("shape", [(6,), (2, 6)])
def test_compiled_local_densities_are_those_of_the_code(shape, monkeypatch):
    """Value and gradient from the same random state; batches of another size are not compiled.

    The compiler's front end alone is tried here: its back end takes a minute.
    """
    whole = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *args, **kwargs: whole(*args, **kwargs, backend="aot_eager"))
    model = pg.BayesianFlow(pg.CouplingFlow(2, 1, (3,)), preprocessing=None)
    mean = model.initial_theta.expand(*shape[:-1], -1).clone().requires_grad_()
    scale, events = torch.full_like(mean, 0.1).requires_grad_(), torch.randn(*shape, 2)
    call = model.local_log_prob if len(shape) == 1 else model.local_log_probs
    found = []
    for _ in range(2):
        torch.manual_seed(5)
        value = call(mean, scale, events)
        found.append([value, *torch.autograd.grad(value.sum(), (mean, scale))])
        assert value.shape == shape
        assert compile_local(model, *shape) is None
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
    assert call(mean, scale, events[..., :4, :]).shape == (*shape[:-1], 4)


def test_what_cannot_be_compiled_goes_on_as_it_is(monkeypatch):
    def refuse(*args, **kwargs):
        def call(*args, **kwargs):
            raise RuntimeError("no compiler\nat all")

        return call

    monkeypatch.setattr(torch, "compile", refuse)
    model = pg.BayesianFlow(pg.CouplingFlow(2, 1, (3,)))
    assert compile_local(model, 6) == "RuntimeError: no compiler"
    assert model.local_log_prob(model.initial_theta, model.initial_theta.abs(), torch.randn(6, 2)).shape == (6,)
