"""Deep ensembles: maxima in closed form, resumed runs, members that are named."""

import numpy as np
import pytest
import torch
from baselines import EVENTS, PRIOR, WEIGHTS, Fragile, kill_at_save, location, same_bits, wedge_model

import pyrogen as pg
from pyrogen.inference.modes import descent, ensemble


def fit_ensemble(model, events, weights=None, **kwargs):
    defaults = {"members": 3, "steps": 300, "lr": 0.05, "batch_size": 10_000, "progress": False}
    return pg.Ensemble(**defaults | kwargs).fit(model, events, weights)


@pytest.mark.parametrize("weighting", WEIGHTS)
@pytest.mark.parametrize("objective", ["map", "likelihood"])
def test_ensemble_of_a_location_ends_at_the_maximum(objective, weighting):
    """All members at n xbar / (n + 1/s^2), without the prior at xbar; the loss is the potential per event."""
    w = torch.ones(60).double() if WEIGHTS[weighting] is None else WEIGHTS[weighting]
    w = w * w.sum() / w.square().sum()
    n, strength = float(w.sum()), 1 / PRIOR**2 if objective == "map" else 0.0
    maximum = (w[:, None] * EVENTS).sum(0) / (n + strength)
    posterior = fit_ensemble(location(), EVENTS, WEIGHTS[weighting], objective=objective, dtype=torch.float64)
    draws = posterior.weights.arrays["draws"]
    assert draws.shape == (3, 1, 3) and not torch.equal(draws[0], draws[1])
    assert draws.numpy() == pytest.approx(maximum.expand(3, 1, 3).numpy(), abs=1e-3)
    likelihood = float((w * torch.distributions.Normal(maximum, 1.0).log_prob(EVENTS).sum(-1)).sum())
    loss = (-likelihood + 0.5 * strength * float(maximum.square().sum())) / n
    assert posterior.history["final_loss"] == pytest.approx(loss, abs=1e-5)
    assert posterior.history["loss"].shape == (3, 200)
    assert posterior.history["loss"][:, -1] == pytest.approx(loss, abs=1e-4)
    assert posterior.info.warnings == () and posterior.info.exact is False
    assert posterior.info.gradients == 300 and posterior.info.settings["objective"] == objective


def test_ensemble_members_of_a_flow_differ_and_come_from_the_seed(wedge, tmp_path):
    settings = {"steps": 60, "lr": 0.01, "batch_size": 100}
    posterior = fit_ensemble(wedge_model(), wedge, **settings)
    assert posterior.info.gradients == pytest.approx(60 * 100 / 500)
    assert len({float(u) for u in posterior.history["final_loss"]}) == 3
    assert posterior.history["loss"].shape == (3, 60) and list(posterior.history["step"]) == list(range(1, 61))
    assert (posterior.history["loss"][:, -10:].mean(1) < posterior.history["loss"][:, :10].mean(1)).all()
    assert same_bits(posterior, fit_ensemble(wedge_model(), wedge, **settings))
    assert not same_bits(posterior, fit_ensemble(wedge_model(), wedge, seed=1, **settings))
    posterior.save(tmp_path / "ensemble.h5")
    loaded = pg.load(tmp_path / "ensemble.h5")
    assert torch.equal(loaded.log_prob(wedge[:20]), posterior.log_prob(wedge[:20]))
    assert posterior.log_prob(wedge[:20]).shape == (3, 20)


def test_ensemble_resumes_with_the_same_bits(wedge, tmp_path, monkeypatch):
    settings = {"steps": 40, "lr": 0.01, "batch_size": 100, "checkpoint_seconds": 1e-9}
    whole = fit_ensemble(wedge_model(), wedge, **settings)
    for moment in (1, 7, 20):
        kill_at_save(monkeypatch, moment)
        with pytest.raises(KeyboardInterrupt):
            fit_ensemble(wedge_model(), wedge, checkpoint=tmp_path / "run.h5", **settings)
        monkeypatch.undo()
    for _ in range(2):  # to the end, and from the end
        assert same_bits(whole, fit_ensemble(wedge_model(), wedge, checkpoint=tmp_path / "run.h5", **settings))
    with pytest.raises(pg.CheckpointMismatchError, match="settings.members: 3 in the file, 4 in this run"):
        fit_ensemble(wedge_model(), wedge, checkpoint=tmp_path / "run.h5", members=4, **settings)


@pytest.mark.filterwarnings("ignore:training got stuck. member")
def test_the_curve_has_the_mean_of_the_steps_between_its_points():
    """450 steps in 200 records of two or three: a constant rate of zero makes every mean the potential itself."""
    posterior = fit_ensemble(location(), EVENTS, steps=450, lr=1e-12)
    steps = posterior.history["step"]
    assert len(steps) == 200 and steps[-1] == 450 and set(np.diff(steps)) == {2, 3}
    final = np.broadcast_to(posterior.history["final_loss"][:, None], (3, 200))
    assert posterior.history["loss"] == pytest.approx(final, rel=1e-5)


def starts_at(monkeypatch, *firsts):
    starts = torch.zeros(len(firsts), 3, dtype=torch.float64)
    starts[:, 0] = torch.tensor(firsts)
    monkeypatch.setattr(descent, "independent_starts", lambda *_: starts)


def test_a_member_with_nan_is_named(monkeypatch):
    starts_at(monkeypatch, 0.0, 6.0, 0.0)
    with pytest.warns(pg.SamplingWarning, match=r"member 1 \(of 3\) ends with a loss of nan") as caught:
        posterior = fit_ensemble(pg.BayesianFlow(Fragile(3), preprocessing=None), EVENTS, dtype=torch.float64)
    assert posterior.info.warnings == (str(caught[0].message),)
    assert np.isnan(posterior.history["loss"][1]).all() and np.isfinite(posterior.history["loss"][[0, 2]]).all()
    starts_at(monkeypatch, 6.0, 6.0, 6.0)
    with pytest.raises(pg.SamplingError, match="the loss of all 3 members is NaN or infinite after 300 steps"):
        fit_ensemble(pg.BayesianFlow(Fragile(3), preprocessing=None), EVENTS, dtype=torch.float64)


def test_members_left_behind_or_with_skipped_steps_are_named():
    final = torch.tensor([1.0, 1.001, 1.002, 1.3, 0.999]).double()
    skipped = torch.tensor([0.0, 3.0, 0.0, 0.0, 0.0])
    problems = ensemble.find_problems(final, skipped)
    assert len(problems) == 2
    assert "the loss of member 1 (of 5) was NaN or infinite in 3 steps" in str(problems[0])
    far = "member 3 (of 5) ends at a loss of 1.3000 nats per event, far above the others' median of 1.0010"
    assert far in str(problems[1])
    wide = torch.linspace(0.0, 1.0, 7).double()  # members that all differ: none of them is far
    assert ensemble.find_problems(wide, torch.zeros(7)) == []
    assert ensemble.find_problems(torch.tensor([2.0]).double(), torch.zeros(1)) == []
