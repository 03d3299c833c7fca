"""Networks side by side, with derivatives by hand: densities and gradients are those of single networks."""

import pytest
import torch
from torch import nn

import pyrogen as pg
from pyrogen.bayes.side_by_side import log_prob_side_by_side, stands_side_by_side
from pyrogen.flows.fused import first_derivatives, is_fused
from pyrogen.flows.transforms.affine import Affine
from pyrogen.flows.transforms.bernstein import Bernstein
from pyrogen.inference.run.data import TrainingData
from pyrogen.inference.run.potential import Potential

BOX = {"transform": "bernstein", "base": "uniform", "bins": 5}
FLOWS = {
    "tanh": {"features": 2, "hidden": (5,), "activation": "tanh", **BOX},
    "relu": {"features": 2, "hidden": (5, 4), **BOX},
    "without hidden layers": {"features": 2, "hidden": (), **BOX},
    "five features": {"features": 5, "hidden": (5,), "activation": "tanh", "mixing": "random", **BOX},
    "one feature, conditions": {"features": 1, "hidden": (4,), "context": 2, **BOX},
    "affine": {"features": 3, "hidden": (5, 5), "context": 1, "activation": "tanh"},
    "spline": {"features": 2, "hidden": (5,), "transform": "rqs"},
    "cubic spline": {"features": 2, "hidden": (5,), "transform": "cubic"},
    "angles": {"features": 3, "hidden": (5,), "transform": "rqs", "periodic": (0, 2)},
}
CHAINS, EVENTS = 3, 40


def setting(name, own):
    torch.manual_seed(1)
    flow = pg.CouplingFlow(blocks=3, dtype=torch.float64, **FLOWS[name])
    model = pg.BayesianFlow(flow, preprocessing=None)
    shape = (CHAINS, EVENTS) if own else (EVENTS,)
    events = torch.rand(*shape, flow.features, dtype=torch.float64)
    events[..., :3, 0] = torch.tensor([0.0, 1.0, 1e-9], dtype=torch.float64)  # the edges of the box
    context = torch.randn(*shape, flow.context, dtype=torch.float64) if flow.context else None
    return model, torch.randn(CHAINS, model.weights, dtype=torch.float64), events, context


@pytest.mark.parametrize("own", [False, True], ids=["same events", "own events"])
@pytest.mark.parametrize("name", FLOWS)
def test_densities_and_gradients_are_those_of_single_networks(name, own):
    model, theta, events, context = setting(name, own)
    two, conditions = (events[:2] if own else events), (context[:2] if own and context is not None else context)
    assert stands_side_by_side(model, two, conditions)
    leaf = theta.clone().requires_grad_()
    found = log_prob_side_by_side(model, leaf, events, context)
    assert found.shape == (CHAINS, EVENTS) and found.isfinite().all()
    direction = torch.randn_like(found)
    gradient = torch.autograd.grad((found * direction).sum(), leaf)[0]
    for c in range(CHAINS):
        single = theta[c].clone().requires_grad_()
        log_prob = model.log_prob(single, *(v if v is None or not own else v[c] for v in (events, context)))
        wanted = torch.autograd.grad((log_prob * direction[c]).sum(), single)[0]
        assert torch.allclose(found[c], log_prob, rtol=0, atol=1e-10)
        assert (gradient[c] - wanted).abs().max() < 1e-10 * wanted.abs().max()


def test_the_derivative_of_the_polynomial_by_its_argument():
    """At and beyond the edges too; from float32, whose logarithms end there."""
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.float64, 1e-10)):
        transform = Bernstein(6)
        x = torch.tensor([[-0.5], [1e-30], [1e-6], [0.3], [0.99], [1.0], [1.5]], dtype=dtype).requires_grad_()
        parameters = torch.randn(7, 1, 6, generator=torch.Generator().manual_seed(2)).to(dtype).requires_grad_()
        plain = transform.inverse(x, parameters)
        with first_derivatives():
            fused = transform.inverse(x, parameters)
        for which in (0, 1):
            assert torch.allclose(plain[which], fused[which], atol=tolerance)
            one, two = (
                torch.autograd.grad(both[which].sum(), (x, parameters), retain_graph=True) for both in (plain, fused)
            )
            # Where 1 - x is zero plain autograd forgets that x still acts on it.
            where = torch.tensor([True, True, True, True, True, False, True])
            assert torch.allclose(one[0][where], two[0][where], rtol=tolerance, atol=tolerance)
            assert torch.allclose(one[1], two[1], rtol=tolerance, atol=tolerance)
        assert fused[0][[0, -1], 0].tolist() == [-0.5, 1.5] and fused[1][[0, -1], 0].tolist() == [0.0, 0.0]
    x = torch.tensor([[1.0]], dtype=torch.float64).requires_grad_()
    inside = torch.tensor([[1.0 - 1e-7]], dtype=torch.float64).requires_grad_()
    with first_derivatives():
        edge, near = (
            torch.autograd.grad(transform.inverse(at, parameters[:1])[1].sum(), at)[0].item() for at in (x, inside)
        )
    assert edge == pytest.approx(near, rel=1e-5)


def test_second_derivatives_are_refused():
    model, theta, events, _ = setting("tanh", own=False)
    leaf = theta.requires_grad_()
    gradient = torch.autograd.grad(log_prob_side_by_side(model, leaf, events).sum(), leaf, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="does not require grad|once_differentiable"):
        torch.autograd.grad(gradient.sum(), leaf)


def test_what_does_not_stand_side_by_side():
    def stands(flow):
        return stands_side_by_side(pg.BayesianFlow(flow), torch.rand(5, 2))

    assert stands(pg.CouplingFlow(2, blocks=2, hidden=(4,)))
    assert not stands(pg.CouplingFlow(2, blocks=2, hidden=(4,), activation="silu"))
    flow = pg.CouplingFlow(2, blocks=2, hidden=(4,))
    flow.blocks[0].transform.scale = nn.Parameter(torch.ones(3))  # weights outside the conditioners
    assert not stands(flow)
    flow = pg.CouplingFlow(2, blocks=2, hidden=(4,))
    flow.blocks[0].conditioner.layers[0].weight = flow.blocks[1].conditioner.layers[0].weight  # tied
    assert not stands(flow)


def test_the_flow_has_its_own_weights_back():
    model, theta, events, _ = setting("affine", own=False)
    own = [parameter.clone() for parameter in model.flow.parameters()]
    with pytest.raises(ValueError, match="context"):
        log_prob_side_by_side(model, theta, events)  # an error on the way
    parameters = list(model.flow.parameters())
    assert all(torch.equal(a, b) and isinstance(b, nn.Parameter) for a, b in zip(own, parameters, strict=True))
    assert not is_fused()


class OneNetwork(Affine):
    """A transform that counts on ``[N, k]``: it would mix the networks of a batch."""

    def inverse(self, x, parameters):
        z, log_derivative = super().inverse(x, parameters)
        return z + 0.1 * z.mean(0) * (z.ndim > 2), log_derivative


class TwoDimensions(Affine):
    def inverse(self, x, parameters):
        n, k = x.shape
        return super().inverse(x, parameters)


@pytest.mark.parametrize("transform", [OneNetwork, TwoDimensions, Affine])
def test_a_transform_that_does_not_know_several_networks_is_batched_by_vmap(transform):
    flow = pg.CouplingFlow(2, blocks=2, hidden=(4,), seed=3)
    flow.blocks[0].transform = transform()
    model = pg.BayesianFlow(flow)
    events = torch.randn(20, 2, generator=torch.Generator().manual_seed(1))
    model = model.prepare(events)
    potential = Potential(model, TrainingData.check(model, events, None, None, events.dtype, "cpu"))
    assert potential.batched and potential.side_by_side == (transform is Affine)
    assert potential.value(model.initial_theta[None]).isfinite().all()
