"""The potential of C chains in one batch is that of C single networks, by plain autograd."""

import math

import pytest
import torch
from torch import nn

import pyrogen as pg
from pyrogen.events import Standardise
from pyrogen.inference.run import potential as potential_module
from pyrogen.inference.run.data import TrainingData
from pyrogen.inference.run.potential import Potential, Whitened, independent_starts

CHAINS, EVENTS = 3, 60
FLOWS = {
    "affine": {"features": 2, "blocks": 3, "hidden": (6,)},
    "bernstein": {"features": 2, "blocks": 2, "hidden": (5,), "transform": "bernstein", "base": "uniform", "bins": 4},
    "bernstein, five features": {
        "features": 5,
        "blocks": 2,
        "hidden": (5,),
        "transform": "bernstein",
        "base": "uniform",
        "bins": 4,
        "mixing": "random",
    },
    "rqs": {"features": 3, "blocks": 2, "hidden": (5,), "transform": "rqs", "activation": "silu"},
    "context": {"features": 2, "blocks": 2, "hidden": (6, 6), "context": 2, "activation": "tanh"},
}


class ForeignFlow(nn.Module):
    """A Gaussian that asks for the value of a weight, which vmap cannot give."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        sign = 1.0 if self.layer.bias[0].item() > 0 else -1.0
        return -0.5 * (self.layer(x) * sign).square().sum(-1)

    def sample(self, n: int) -> torch.Tensor:
        return torch.randn(n, 2)


def make(name="affine", *, weighted=False, preprocessing=None, **options):
    """A potential in float64 and weights for its chains."""
    flow = ForeignFlow() if name == "foreign" else pg.CouplingFlow(**FLOWS[name])
    features, context = getattr(flow, "features", 2), getattr(flow, "context", 0)
    events = torch.rand(EVENTS, features, dtype=torch.float64)
    weights = torch.rand(EVENTS, dtype=torch.float64) - 0.2 if weighted else None
    conditions = torch.randn(EVENTS, context, dtype=torch.float64) if context else None
    model = pg.BayesianFlow(flow, prior_scale={"*.bias": 0.5, "*": 2.0}, preprocessing=preprocessing)
    model = model.prepare(events, weights, dtype=torch.float64)
    data = TrainingData.check(model, events, weights, conditions, torch.float64, "cpu")
    theta = 0.5 * torch.randn(CHAINS, model.weights, dtype=torch.float64)
    return Potential(model, data, **options), data, theta


def expected(potential, data, theta, rows=None, prior=True):
    """The same by plain autograd, one chain after another."""
    values, gradients = [], []
    for c in range(CHAINS):
        leaf = theta[c].clone().requires_grad_()
        chosen = torch.arange(EVENTS) if rows is None else rows[c]
        context = None if data.context is None else data.context[chosen]
        log_prob = potential.model.log_prob(leaf, data.events[chosen], context)
        if data.weights is not None:
            w = data.weights
            log_prob = (w * w.sum() / w.square().sum())[chosen] * log_prob
        value = -EVENTS / len(chosen) * log_prob.sum()
        if prior:
            value = value + 0.5 * (leaf / potential.prior_scale).square().sum()
        values.append(value.detach())
        gradients.append(torch.autograd.grad(value, leaf)[0])
    return torch.stack(values), torch.stack(gradients)


def check(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == torch.float64 and one.shape == other.shape
        assert (one - other).abs().max() < 1e-10 * other.abs().max()


@pytest.mark.parametrize("numbers", [potential_module.EVENTS_TIMES_CHAINS, 50], ids=["whole", "in chunks"])
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("name", [*FLOWS, "foreign"])
def test_batch_of_chains_is_every_chain_by_itself(name, weighted, numbers, monkeypatch):
    monkeypatch.setattr(potential_module, "EVENTS_TIMES_CHAINS", numbers)
    potential, data, theta = make(name, weighted=weighted)
    assert potential.batched == (name != "foreign")
    wanted = expected(potential, data, theta)
    check(potential.value_and_gradient(theta), wanted)
    check([potential.value(theta)], wanted[:1])
    rows = potential.batches(CHAINS, 40, torch.Generator().manual_seed(0))
    assert rows.shape == (CHAINS, 40) and not torch.equal(rows[0], rows[1])
    check(potential.value_and_gradient(theta, rows), expected(potential, data, theta, rows))
    assert potential.gradients == pytest.approx(1 + 40 / EVENTS)


def test_jacobian_of_the_preprocessing_counts():
    potential, data, theta = make(preprocessing=Standardise())
    check(potential.value_and_gradient(theta), expected(potential, data, theta))
    # By hand: the density of the standardised events, per unit of the events themselves.
    mean, std = (getattr(potential.model.preprocessing, name) for name in Standardise.constants)
    flow = potential.model.flow
    wanted = []
    for c in range(CHAINS):
        nn.utils.vector_to_parameters(theta[c], flow.parameters())
        log_prob = flow.log_prob((data.events - mean) / std) - std.log().sum()
        wanted.append(-log_prob.sum() + 0.5 * (theta[c] / potential.prior_scale).square().sum())
    check([potential.value(theta)], [torch.stack(wanted).detach()])


def test_weights_count_as_their_effective_sample_size():
    potential, data, _ = make(weighted=True)
    w = data.weights
    assert potential.effective_size == pytest.approx(float(w.sum() ** 2 / w.square().sum()))
    assert make()[0].effective_size == EVENTS


def test_likelihood_only():
    potential, data, theta = make(likelihood_only=True)
    wanted = expected(potential, data, theta, prior=False)
    check(potential.value_and_gradient(theta), wanted)
    check([potential.value(theta)], wanted[:1])


def test_obstacle_says_why_chains_are_not_batched():
    assert make()[0].obstacle is None
    assert "item()" in make("foreign")[0].obstacle


@pytest.mark.parametrize("per_chain", [False, True])
def test_whitened_gradient_is_by_its_coordinates(per_chain):
    potential, data, theta = make()
    location = torch.randn(theta.shape if per_chain else theta.shape[1:], dtype=torch.float64)
    target = Whitened(potential, location, torch.rand(theta.shape[1], dtype=torch.float64) + 0.5)
    position = target.position(theta)
    assert torch.allclose(target.theta(position), theta, rtol=0, atol=1e-12)
    value, gradient = expected(potential, data, theta)
    check(target.value_and_gradient(position), (value, gradient * target.scale))
    direction, step = torch.randn_like(position), 1e-6
    slope = (target.value(position + step * direction) - target.value(position - step * direction)) / (2 * step)
    found = (target.value_and_gradient(position)[1] * direction).sum(1)
    assert torch.allclose(found, slope, rtol=1e-5, atol=1e-3)
    assert target.size == EVENTS


def test_independent_starts_are_torchs_initial_weights():
    model = pg.BayesianFlow(pg.CouplingFlow(2, blocks=2, hidden=(100, 100)))
    state = torch.get_rng_state()
    one, two, other = (independent_starts(model, 4, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one, two) and not torch.equal(one, other)
    assert all(not torch.equal(one[i], one[j]) for i in range(4) for j in range(i))
    for name, part in zip(model.packing.names, one.split(model.packing.sizes, 1), strict=True):
        inputs = 100 if not name.endswith("layers.0.weight") and not name.endswith("layers.0.bias") else 1
        bound = inputs**-0.5  # of a uniform distribution: torch.nn.Linear.reset_parameters
        assert part.abs().max() <= bound
        n = part.numel()
        if n >= 100:
            assert abs(part.mean()) < 5 * bound / math.sqrt(3 * n)
            assert part.std().item() == pytest.approx(bound / math.sqrt(3), rel=5 / math.sqrt(2 * n))


def test_starts_of_layers_that_torch_cannot_initialise_are_draws_of_the_prior():
    class Bare(ForeignFlow):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.shift = nn.Identity(), nn.Parameter(torch.zeros(5000))

    starts = independent_starts(pg.BayesianFlow(Bare(), prior_scale=0.3), 2, 0)
    assert starts.std(1).tolist() == pytest.approx([0.3, 0.3], rel=0.05)
