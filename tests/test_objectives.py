"""The training loop under an objective that it does not know, and what it gives every step."""

import numpy as np
import pyro
import pytest
import torch
from baselines import kill_at_save
from known import Location

import pyrogen as pg
from pyrogen.inference.run.checkpoint import run_identity
from pyrogen.inference.vi import training as training_module
from pyrogen.inference.vi.batched import Batched
from pyrogen.inference.vi.guided import GuideObjective
from pyrogen.inference.vi.training import CURVES, Training
from pyrogen.posterior import Point
from pyrogen.seeds import untouched

EVENTS = torch.randn(90, 2, generator=torch.Generator().manual_seed(1)) + torch.tensor([1.0, -0.5])


class Bootstrapped(Batched):
    """Maximum likelihood of R networks on one sample, each with event weights of its own."""

    first_stream = 0

    def __init__(self, settings, model, data, networks):
        super().__init__(settings, {"theta": model.initial_theta.repeat(networks, 1)}, {})
        self.model, self.events, self.size = model, data.events, len(data.events)
        self.effective_size = float(self.size)
        self.event_weights = torch.distributions.Exponential(1.0).sample((networks, self.size))

    def shuffled(self):
        return torch.randperm(self.size).expand(self.networks, -1)

    def losses(self, rows, local):
        log_prob = torch.func.vmap(self.model.log_prob, (0, None))(self.parameters["theta"], self.events[rows[0]])
        nll = -(self.event_weights.gather(1, rows) * log_prob).mean(1)
        return nll, nll, torch.zeros_like(nll)

    def weights(self, r):
        return Point(loc=self.parameters["theta"][r])


def bootstrapped(path=None, epochs=400, **changes):
    settings = pg.SVI(epochs=epochs, batch_size=90, lr=5e-2, checkpoint=path, progress=False, **changes)
    model, data = settings.checked(pg.BayesianFlow(Location(), preprocessing=None), EVENTS)
    with untouched():
        torch.manual_seed(5)
        objective = Bootstrapped(settings, model, data, networks=4)
        training = Training(settings, objective, run_identity(settings.describe(), model, data), "bootstrap")
        training.run()
    return objective, training


def test_an_objective_that_the_loop_does_not_know():
    """The maxima are the weighted means, known in closed form; every network has its own."""
    objective, training = bootstrapped()
    weights = objective.event_weights / objective.event_weights.sum(1, keepdim=True)
    means = torch.stack([objective.weights(r).arrays["loc"] for r in range(4)])
    assert means.numpy() == pytest.approx((weights @ EVENTS).numpy(), abs=1e-3)
    curves = training.curves(2)
    assert set(curves) == set(CURVES) and all(len(curve) == 400 for curve in curves.values())
    assert (training.epochs_done == 400).all() and (training.kept_epoch == 400).all()


def test_its_killed_run_ends_with_the_same_bits(tmp_path, monkeypatch):
    whole = bootstrapped(epochs=6)[0]
    saves = kill_at_save(monkeypatch, 3, training_module)
    with pytest.raises(KeyboardInterrupt):
        bootstrapped(tmp_path / "run.h5", epochs=6)
    again, training = bootstrapped(tmp_path / "run.h5", epochs=6)
    assert (
        torch.equal(again.parameters["theta"], whole.parameters["theta"])
        and len(training.history["loss"]) == 6
        and len(saves) == 6
    )


def test_steps_see_their_batches_and_rates(monkeypatch):
    """Every event is in one batch of an epoch; rates rise and fall; widths move from where they are told to."""
    settings = pg.SVI(epochs=3, batch_size=30, lr_warmup=0.2, widths_after=0.5, progress=False)
    model, data = settings.checked(pg.BayesianFlow(pg.CouplingFlow(2, 2, (8,))), EVENTS)
    calls = []
    with untouched(), pyro.get_param_store().scope():
        objective = GuideObjective(settings, model, data)
        step = objective.step

        def noted(rows, rates, local):
            calls.append((rows, rates.tolist(), local))
            return step(rows, rates, local)

        monkeypatch.setattr(objective, "step", noted)
        Training(settings, objective, {}, "SVI").run()
    assert len(calls) == 9 and {tuple(rows.shape) for rows, _, _ in calls} == {(1, 30)}
    for epoch in range(3):
        rows = torch.cat([rows[0] for rows, _, _ in calls[3 * epoch : 3 * epoch + 3]])
        assert sorted(rows.tolist()) == list(range(90))
    assert [local for _, _, local in calls] == [False] * 4 + [True] * 5  # widths move in the second half
    assert [rates[1] > 0 for _, rates, _ in calls] == [False] * 4 + [True] * 5
    assert np.argmax([rates[0] for _, rates, _ in calls]) in (1, 2)


def test_each_network_of_a_batch_has_its_own_gradient_and_step():
    """One that is not finite stays where it is, with its moments; the others do what they would do alone."""
    objective, _ = bootstrapped(epochs=1, clip=1e-3)
    theta = objective.parameters["theta"]
    other = bootstrapped(epochs=1, clip=1e-3)[0]
    before = theta.detach().clone()
    moments = [value.clone() for value in objective.optimizer.state[theta].values() if value.ndim]
    objective.event_weights[1] = torch.nan
    rows = torch.arange(90).expand(4, -1)
    step, whole = (each.step(rows, torch.tensor([0.1, 0.1]).double(), False) for each in (objective, other))
    assert step.finite.tolist() == [True, False, True, True] and whole.finite.all()
    assert torch.equal(theta[1], before[1])
    assert all(
        torch.equal(a[1], b[1])
        for a, b in zip(objective.optimizer.state[theta].values(), [0, *moments], strict=True)
        if a.ndim
    )
    assert torch.equal(theta[[0, 2, 3]], other.parameters["theta"][[0, 2, 3]])
    assert not torch.equal(theta[0], before[0]) and (step.norm[[0, 2, 3]] > 1e-3).all()
