"""The noise of local reparameterization: standard normal, uncorrelated between events, and an unbiased gradient."""

import math

import pytest
import torch

import pyrogen as pg
from pyrogen.bayes import local, noise
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
def test_means_and_variances_in_one_product(bias):
    """As on a card, and for networks side by side: value and gradient from the same numbers."""
    module = torch.nn.Sequential(torch.nn.Linear(2, 3, bias=bias), torch.nn.Tanh(), torch.nn.Linear(3, 1, bias=bias))
    module.log_prob = lambda x: module(x)[..., 0]
    flow = local.LocalFlow(module)
    flow._noisy.log_prob = lambda x: flow._noisy(x)[..., 0]
    size = sum(parameter.numel() for parameter in module.parameters())
    mean, variance = torch.randn(2, size, requires_grad=True), torch.rand(2, size, requires_grad=True)
    numbers, x = torch.randn(2, 6, 4), torch.randn(2, 6, 2)

    def given(values):  # [..., rows, units]: one layer after another
        return Noise(torch.cat([part.flatten() for part in values.split([3, 1], -1)]), None)

    side = flow.log_prob_given(given(numbers), mean, variance, x)
    alone = torch.stack([flow.log_prob_given(given(numbers[r]), mean[r], variance[r], x[r]) for r in range(2)])
    torch.testing.assert_close(side, alone)
    found = (torch.autograd.grad(value.sum(), (mean, variance)) for value in (side, alone))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
