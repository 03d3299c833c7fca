"""What samplers find wrong with their own chains: heat, modes, trajectories that are cut; and what they say of it."""

import numpy as np
import pytest
import torch
from test_samplers import DTYPE, Gaussian, stationary
from test_sampling import CONTEXT, EVENTS, QUIET, RAMP, SMALL, linear_model, small_flow, with_checkpoint

import pyrogen as pg
from pyrogen.diagnostics import advise
from pyrogen.inference.mcmc.judge import find_problems, split_rhat


class Batches(Gaussian):
    """Independent weights of precision ``h``; U of a batch of M of N events is centred on the batch's own mean."""

    def __init__(self, h, size):
        super().__init__(torch.diag(1 / torch.as_tensor(h, dtype=DTYPE)), size=size)

    def value_and_gradient(self, position, rows=None):
        return super().value_and_gradient(position if rows is None else position - rows)

    def batches(self, chains, batch_size, generator):
        noise = torch.randn(chains, len(self.mean), generator=generator, dtype=DTYPE)
        return noise * (self.covariance.diag() * self.size / batch_size).sqrt()


@pytest.mark.parametrize(
    ("precisions", "settings"),
    [
        ([400.0, 400.0], {"batch_size": 20}),
        ([400.0, 400.0], {"batch_size": 20, "step_size": 0.1}),
        ([400.0] * 5 + [300.0] * 5, {"batch_size": 100, "betas": (0.0, 0.99), "elongation": 0.0}),
        ([100.0], {"batch_size": 40, "temperature": 4.0}),
        ([400.0, 400.0], {"batch_size": 200, "step_size": 0.2}),
    ],
)
def test_adam_mcmc_on_mini_batches_measures_its_heat(precisions, settings):
    """Variances of the draws, over T / precision, are one plus the excess temperature: 1.1 to 14.

    256 chains, of which the first 500 steps are left out, in which they forget where they were at 300; the error of
    both is below three per cent.
    """
    target, sampler = Batches(precisions, 400), pg.AdamMCMC(**settings)
    generator = torch.Generator().manual_seed(3)
    state = sampler.begin(target, stationary(target, 256), generator)
    squares, excess = [], []
    for step in range(1000):
        before = state["position"]
        told = sampler.advance(target, state, step, 300, generator)
        if step >= 500:
            squares.append(before.square() / target.covariance.diag() / sampler.temperature)
            excess.append(told["excess_temperature"])
    ratio, measured = torch.stack(squares).mean(), 1 + torch.stack(excess).mean()
    assert measured == pytest.approx(float(ratio), rel=0.06), (ratio, measured)
    assert 1.05 < ratio < 20


def test_a_chain_that_is_too_hot_is_named():
    with pytest.warns(pg.SamplingWarning, match="too hot: excess temperatures of"):
        pg.SGLD(chains=2, warmup=5, draws=5, thinning=4, start_steps=20, step_size=0.05, batch_size=10, **QUIET).fit(
            linear_model(), EVENTS, context=CONTEXT
        )


def test_adam_mcmc_on_small_batches_is_named_too_hot():
    """Batches of 5 of 200 events; how hot it is, is measured in test_samplers."""
    with pytest.warns(pg.SamplingWarning, match="too hot: excess temperatures of"):
        pg.AdamMCMC(chains=2, warmup=20, draws=40, thinning=10, batch_size=5, start_steps=50, **QUIET).fit(
            linear_model(), EVENTS, context=CONTEXT
        )


def test_adam_mcmc_on_all_events_has_no_heat():
    posterior = SMALL["AdamMCMC"].fit(small_flow(), RAMP)
    assert (posterior.history["excess_temperature"] == 0).all()


def test_a_checkpoint_without_todays_statistics_goes_on(tmp_path, monkeypatch):
    """Files of earlier versions: what they did not record is NaN, and nothing is said of it."""
    advance, steps = pg.AdamMCMC.advance, []

    def older(self, target, state, *arguments):
        state.setdefault("centre", state["position"])  # of today's, which no checkpoint has then
        told = advance(self, target, state, *arguments)
        del state["centre"]
        steps.append(told.pop("excess_temperature"))
        if len(steps) == 4:
            raise KeyboardInterrupt
        return told

    sampler = pg.AdamMCMC(chains=2, warmup=2, draws=2, start_steps=5, batch_size=50, **QUIET | {"thinning": 1})
    sampler = with_checkpoint(sampler, tmp_path / "run.h5")
    with monkeypatch.context() as then, pytest.raises(KeyboardInterrupt):
        then.setattr(pg.AdamMCMC, "advance", older)
        sampler.fit(small_flow(), RAMP)
    excess = sampler.fit(small_flow(), RAMP).history["excess_temperature"]
    assert np.isnan(excess[:, 0]).all() and np.isfinite(excess[:, 1]).all()


class TwoModes(torch.nn.Module):
    """x ~ N(w^2, 1), and y in [-1, 1] leans to one side as w does: of events symmetric in y, U(w) = U(-w)."""

    features = 2

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.ones(1))

    def log_prob(self, x):
        lean = 0.8 * torch.tanh(self.w)
        return torch.log((1 + lean * x[:, 1]) / 2) - 0.5 * (x[:, 0] - self.w.square()).square()

    def sample(self, n):
        return torch.randn(n, 2)


def test_modes_of_equal_potential_are_seen_by_fit():
    half = torch.stack([1 + torch.randn(100), 2 * torch.rand(100) - 1], -1)
    events = torch.cat([half, half * torch.tensor([1.0, -1.0])])
    sampler = pg.HMC(chains=4, warmup=40, draws=40, start="prior", max_steps=20, seed=3, progress=False)
    with pytest.warns(pg.SamplingWarning, match="the chains disagree: split R-hat of log p is"):
        posterior = sampler.fit(pg.BayesianFlow(TwoModes(), preprocessing=None), events)
    signs = posterior.weights.arrays["draws"].sign().mean(1)[:, 0]
    assert set(signs.tolist()) == {-1.0, 1.0}
    assert split_rhat(posterior.history["potential"]) < 1.1


def test_chains_are_judged_in_function_space():
    rng = np.random.default_rng(0)
    same = {"potential": rng.normal(size=(4, 60))}
    draws = torch.randn(4, 60, 1)
    log_prob = rng.normal(size=(4, 60, 20))
    assert find_problems(same, draws, log_prob) == []
    apart = log_prob.copy()
    apart[2:, :, 7] += 5
    (finding,) = find_problems(same, draws, apart)
    assert finding.problem == "the chains disagree" and "at the worst of 20 training events" in finding.found
    # A density that is the same for all draws, or zero, says nothing; nor do a few draws.
    log_prob[:, :, 3], log_prob[0, 0, 4] = -1.0, -np.inf
    assert find_problems(same, draws, log_prob) == []
    assert find_problems({"potential": same["potential"][:, :10]}, draws[:, :10], apart[:, :10]) == []


@pytest.mark.filterwarnings("ignore::pyrogen.SamplingWarning")
def test_trajectories_of_nuts_that_are_cut_are_named(tmp_path):
    """From the initial step a trajectory needs more than three steps to turn back."""
    settings = {"chains": 2, "warmup": 1, "draws": 8, "start_steps": 20} | QUIET
    events = 0.1 * torch.randn(20, 1)
    context = torch.randn(20, 3)
    found = {}
    for depth in (2, 10):
        posterior = pg.NUTS(max_tree_depth=depth, **settings).fit(linear_model(), events, context=context)
        cut, steps = posterior.history["cut"], posterior.history["steps"]
        np.testing.assert_array_equal(cut, steps == 2**depth - 1)
        found[depth] = [f for f in posterior.info.findings if f.problem == "trajectories cut short"]
    assert "max_tree_depth=2 (3 steps)" in found[2][0].found and not found[10]


@pytest.mark.filterwarnings("ignore::pyrogen.SamplingWarning")
@pytest.mark.parametrize("sampler", [pg.SGLD, pg.SGHMC, pg.AdamMCMC])
def test_a_temperature_is_told_everywhere(sampler, tmp_path):
    settings = {"chains": 2, "warmup": 2, "draws": 4, "thinning": 1, "start_steps": 5, "batch_size": 50} | QUIET
    fits = sampler(temperature=0.5, **settings)
    posteriors = [fits.fit(small_flow(), RAMP), *fits.fit_many(small_flow(), [RAMP, RAMP.flip(0)])]
    posteriors[0].save(tmp_path / "tempered.h5")
    for posterior in (*posteriors, pg.load(tmp_path / "tempered.h5")):
        assert posterior.info.tempered and posterior.info.event_power == 2 and not posterior.info.exact
        assert f"Posterior({sampler.__name__}, tempered, draws" in repr(posterior)
    assert "tempered" in advise(posteriors[0], RAMP)
    plain = sampler(**settings).fit(small_flow(), RAMP)
    assert not plain.info.tempered and plain.info.event_power == 1 and "tempered" not in repr(plain)
