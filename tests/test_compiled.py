"""Compiled steps of a flow: the same numbers, in the backends that ask for them; and what is told where they fail."""

from dataclasses import replace

import pytest
import torch

import pyrogen as pg
from pyrogen.flows import compiled as module
from pyrogen.flows.compiled import CompiledSteps
from pyrogen.inference.run.potential import APART

EVENTS = torch.rand(60, 3, generator=torch.Generator().manual_seed(3))
FLOW = pg.CouplingFlow(3, 3, (8, 8), mixing="random")


@pytest.fixture
def by_hand(monkeypatch):
    """Steps that take the way of compiled ones, without a compiler, which would take a minute."""

    class Calls(list):
        """Steps that were called, and what they were given."""

        given = ()

    calls = Calls()

    def compiled(step):
        def run(*args):
            calls.append(step)
            calls.given += (args,)
            with monkeypatch.context() as here:
                here.setattr(torch.compiler, "is_compiling", lambda: True)
                return step(*args)

        return run

    monkeypatch.setattr(module, "_compiled", compiled)
    monkeypatch.setattr(module, "compiled_whole", compiled)
    return calls


@pytest.mark.parametrize("features, hidden", [(1, (4,)), (2, (8,)), (3, (8, 8)), (5, (3, 2, 1))])
def test_products_of_few_features_are_the_same_numbers(features, hidden, by_hand):
    """Densities, their gradients by events and weights, and generated events."""
    transform = "rqs" if features == 1 else "affine"
    flow = pg.CouplingFlow(features, 3, hidden, transform, dtype=torch.float64)
    x = torch.randn(20, features, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def all_of_it():
        leaf = x.clone().requires_grad_()
        value = flow.log_prob(leaf)
        return [value, *torch.autograd.grad(value.sum(), [leaf, *flow.parameters()]), *flow(x)]

    plain = all_of_it()
    assert not by_hand
    for one, other in zip(plain, CompiledSteps(True).run(all_of_it), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    assert len(by_hand) == 6


def test_networks_side_by_side_are_the_same_numbers(by_hand):
    settings = pg.HMC(progress=False, dtype=torch.float64)
    model, data = settings.checked(pg.BayesianFlow(FLOW), EVENTS)
    theta = (
        model.initial_theta + 0.1 * torch.randn(3, model.weights, generator=torch.Generator().manual_seed(2)).double()
    )
    plain, fast = (pg.inference.run.potential.Potential(model, data, compile=wanted) for wanted in (False, True))
    for one, other in zip(plain.value_and_gradient(theta), fast.value_and_gradient(theta), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    assert by_hand and plain.compiled.told is None and fast.compiled.told == "steps of the flow compiled by torch"


def test_layers_with_hooks_keep_them(by_hand):
    flow = pg.CouplingFlow(3, 2, (8,))
    flow.blocks[0].conditioner.layers[0].register_forward_hook(lambda layer, inputs, outputs: 2 * outputs)
    plain = flow.log_prob(EVENTS)
    torch.testing.assert_close(CompiledSteps(True).run(lambda: flow.log_prob(EVENTS)), plain)
    assert by_hand


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "backend",
    [
        pg.SVI(epochs=2, batch_size=20, widths_after=0.5, progress=False),
        pg.HMC(chains=2, warmup=2, draws=2, start_steps=5, max_steps=3, progress=False),
        pg.SGLD(chains=2, warmup=2, draws=2, start_steps=5, thinning=2, batch_size=20, progress=False),
        pg.Ensemble(members=2, steps=5, batch_size=20, progress=False),
        pg.Bootstrap(replicas=3, steps=5, batch_size=20, progress=False),
        pg.Laplace(steps=5, batch_size=20, polish=0, progress=False),
    ],
    ids=lambda backend: type(backend).__name__,
)
def test_compile_means_the_same_in_every_backend(backend, by_hand):
    backend = replace(backend, dtype=torch.float64)
    plain = backend.fit(pg.BayesianFlow(FLOW), EVENTS)
    assert not by_hand and plain.info.compiled is None
    fast = replace(backend, compile=True).fit(pg.BayesianFlow(FLOW), EVENTS)
    assert by_hand and fast.info.compiled == "steps of the flow compiled by torch"
    # Eigenvectors of Laplace's covariance are defined up to more than rounding.
    one, other = (next(iter(posterior.weights.arrays.values())) for posterior in (plain, fast))
    torch.testing.assert_close(other, one, rtol=1e-6, atol=1e-6)


def test_without_a_compiler_steps_run_as_they_are(monkeypatch):
    from torch._dynamo.exc import BackendCompilerFailed

    def compiled(step):
        def run(*args):
            raise BackendCompilerFailed(lambda: None, RuntimeError("no C++ compiler"), None)

        return run

    monkeypatch.setattr(module, "_compiled", compiled)
    monkeypatch.setattr(module, "compiled_whole", compiled)
    backend = pg.SVI(epochs=2, batch_size=20, progress=False)
    plain = backend.fit(pg.BayesianFlow(FLOW), EVENTS)
    told = replace(backend, compile=True).fit(pg.BayesianFlow(FLOW), EVENTS)
    assert told.info.compiled.startswith("not compiled: BackendCompilerFailed") and "C++" in told.info.compiled
    assert torch.equal(told.weights.arrays["loc"], plain.weights.arrays["loc"])


def test_other_errors_are_not_swallowed():
    def work():
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        CompiledSteps(True).run(work)


def test_within_vmap_steps_stay_as_they_are(by_hand):
    theta = torch.zeros(2)
    work = CompiledSteps(True).run
    found = work(lambda: torch.func.vmap(lambda t: FLOW.log_prob(EVENTS + t).sum())(theta))
    assert found.shape == (2,) and not by_hand


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_flow_of_ones_own_is_told_not_to_be_compiled():
    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.mean = torch.nn.Parameter(torch.zeros(3))

        def log_prob(self, x):
            return -0.5 * (x - self.mean).square().sum(-1)

        def sample(self, n):
            return self.mean + torch.randn(n, 3)

    for backend in (pg.Ensemble(members=2, steps=3, progress=False), pg.SVI(epochs=1, progress=False)):
        found = replace(backend, compile=True).fit(pg.BayesianFlow(Own()), EVENTS)
        assert found.info.compiled == "not compiled: only steps of pyrogen's own flows are"


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_networks_that_do_not_stand_side_by_side_are_told_not_to_be_compiled():
    flow = pg.CouplingFlow(3, blocks=1, hidden=(4,), activation="silu")
    found = pg.Ensemble(members=2, steps=3, compile=True, progress=False).fit(pg.BayesianFlow(flow), EVENTS)
    assert found.info.compiled == f"not compiled: {APART}"


def test_predictions_can_be_compiled(by_hand):
    posterior = pg.SVI(epochs=2, batch_size=20, progress=False).fit(pg.BayesianFlow(FLOW), EVENTS)
    plain, log_prob = posterior.density(EVENTS, 5), posterior.log_prob(EVENTS, 3)
    assert not posterior.compile and not by_hand
    posterior.compile = True
    assert posterior.compile
    torch.testing.assert_close(posterior.density(EVENTS, 5).mean, plain.mean, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(posterior.log_prob(EVENTS, 3), log_prob, rtol=1e-4, atol=1e-4)
    assert {len(args[2]) for args in by_hand.given} == {64}  # 60 events: one shape for many numbers of them
    assert by_hand and posterior.predictor.compiled.told == "steps of the flow compiled by torch"
    posterior.compile = False
    assert torch.equal(posterior.log_prob(EVENTS, 3), log_prob)
    with pytest.raises(ValueError, match="compile is 'yes'; it must be True or False"):
        posterior.compile = "yes"
