"""Every kernel leaves known distributions as they are; a kernel that is broken on purpose does not."""

import math

import numpy as np
import pytest
import torch

import pyrogen as pg
from pyrogen.inference.mcmc import adam_mcmc, sgmcmc
from pyrogen.inference.mcmc.adaptation import mass_windows

DTYPE = torch.float64


class Gaussian:
    """U of a Gaussian with zero mean; a gradient of a mini-batch has the given variance, times size / batch."""

    def __init__(self, covariance, noise=0.0, size=1000):
        self.covariance, self.precision = covariance, torch.linalg.inv(covariance)
        self.mean = torch.zeros(len(covariance), dtype=DTYPE)
        self.noise, self.size = noise, size
        self.generator = torch.Generator().manual_seed(11)

    def value_and_gradient(self, position, rows=None):
        gradient = position @ self.precision
        value = 0.5 * (position * gradient).sum(1)
        if rows is not None:
            width = math.sqrt(self.noise * self.size / rows.shape[1])
            gradient = gradient + width * torch.randn(gradient.shape, generator=self.generator, dtype=DTYPE)
        return value, gradient

    def batches(self, chains, batch_size, generator):
        return torch.zeros(chains, batch_size, dtype=torch.long)

    def launch(self, name, function, generator, *inputs):
        return function(*inputs)


class Banana(Gaussian):
    """x0 ~ N(0, 1), x1 | x0 ~ N((x0^2 - 1) / 4, 0.5^2): mean 0, variances 1 and 0.375, third moments known."""

    def __init__(self):
        super().__init__(torch.diag(torch.tensor([1.0, 0.375], dtype=DTYPE)))

    def value_and_gradient(self, position, rows=None):
        x, y = position.unbind(1)
        residual = (y - 0.25 * (x**2 - 1)) / 0.25
        return 0.5 * x**2 + 0.125 * residual**2, torch.stack([x - 0.5 * x * residual, residual], 1)


def correlated(d, rho=0.9):
    distance = (torch.arange(d)[:, None] - torch.arange(d)).abs()
    return (rho**distance).to(DTYPE)


def badly_scaled(d):
    return torch.diag(torch.logspace(-2, 2, d, dtype=DTYPE))  # widths from 0.1 to 10


TARGETS = {
    "1": lambda: Gaussian(torch.tensor([[4.0]], dtype=DTYPE)),
    "2, correlated": lambda: Gaussian(correlated(2)),
    "10, badly scaled": lambda: Gaussian(badly_scaled(10)),
    "50, correlated": lambda: Gaussian(correlated(50, 0.6)),
    "banana": Banana,
}


def sample(kernel, target, chains=256, warmup=150, draws=100, thinning=1, start=None, seed=3):
    """Draws ``[chains, draws, d]`` of a kernel, without a model around it."""
    generator = torch.Generator().manual_seed(seed)
    d = len(target.covariance)
    position = torch.randn(chains, d, generator=generator, dtype=DTYPE) if start is None else start
    state = kernel.begin(target, position, generator)
    kept = []
    for step in range((warmup + draws) * thinning):
        kernel.advance(target, state, step, warmup * thinning, generator)
        if step >= warmup * thinning and (step + 1) % thinning == 0:
            kept.append(state["position"])
    return torch.stack(kept, 1)


def check(draws, target):
    """Means and variances within 4 standard errors (from the independent chains), which are small enough to tell."""
    assert draws.isfinite().all()
    means = draws.mean(1)
    error = means.std(0) / math.sqrt(len(means))
    assert ((means.mean(0) - target.mean).abs() < 4 * error).all()
    squares = (draws - target.mean).square().mean(1) / target.covariance.diag()
    error = squares.std(0) / math.sqrt(len(squares))
    assert (error < 0.035).all()
    assert ((squares.mean(0) - 1).abs() < 4 * error).all(), squares.mean(0)


def hmc(**settings):
    return pg.HMC(**{"trajectory": 1.6, "max_steps": 100} | settings)


@pytest.mark.parametrize("name", TARGETS)
def test_hmc_is_stationary(name):
    draws = sample(hmc(), TARGETS[name](), chains=512, warmup=100)
    check(draws, TARGETS[name]())
    if name == "banana":
        x, y = draws.flatten(0, 1).unbind(1)
        assert (x**2 * y).mean() == pytest.approx(0.5, abs=0.05)  # E x0^2 (x0^2 - 1) / 4


@pytest.mark.parametrize("mass", ["diagonal", "unit"])
def test_hmc_correlation_between_weights(mass):
    target = TARGETS["2, correlated"]()
    flat = sample(hmc(mass=mass), target).flatten(0, 1)
    assert torch.corrcoef(flat.T)[0, 1] == pytest.approx(0.9, abs=0.01)


def test_hmc_adapts_its_mass_to_bad_scales():
    """Steps needed for widths from 0.1 to 10 are those for widths of one, give or take."""
    target, steps = TARGETS["10, badly scaled"](), {}
    for mass in ("diagonal", "unit"):
        generator, kernel = torch.Generator().manual_seed(0), hmc(mass=mass, max_steps=10_000)
        state = kernel.begin(target, torch.randn(32, 10, generator=generator, dtype=DTYPE), generator)
        for step in range(200):
            told = kernel.advance(target, state, step, 200, generator)
        steps[mass] = 1.6 / float(told["step_size"].median())
        widths = state["width"].median(0).values
    assert steps["diagonal"] < 5
    assert torch.allclose(widths, torch.ones(10, dtype=DTYPE))  # of the unit mass
    assert steps["unit"] > 8


def test_hmc_without_its_metropolis_test_is_seen(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *size, **kwargs: torch.zeros(size[0] if size[0] else (), dtype=DTYPE))
    with pytest.raises(AssertionError):
        check(sample(hmc(target_acceptance=0.5), TARGETS["50, correlated"]()), TARGETS["50, correlated"]())


@pytest.mark.parametrize("target_acceptance", [0.65, 0.8, 0.9])
def test_hmc_accepts_what_it_aims_at(target_acceptance):
    """The step must not end too small: with 0.94 accepted for a target of 0.8 half of the gradients are wasted."""
    target, kernel = TARGETS["50, correlated"](), hmc(target_acceptance=target_acceptance)
    generator = torch.Generator().manual_seed(5)
    state = kernel.begin(target, stationary(target, 256), generator)
    told = [kernel.advance(target, state, step, 150, generator)["acceptance"] for step in range(250)]
    # 256 chains by 100 draws: their mean is known to a few thousandths; what is left is that of finite windows.
    assert torch.stack(told[150:]).mean() == pytest.approx(target_acceptance, abs=0.045)


def test_a_short_window_ends_at_the_target():
    """Acceptance of trajectories whose error of the energy has the width of the squared step, in one window."""
    averaging, generator = pg.HMC()._averaging(), torch.Generator().manual_seed(2)
    for start in (0.4, 0.7, 1.3):
        state = {}
        averaging.start(state, torch.full((4000,), start, dtype=DTYPE))
        for _ in range(50):
            width = state["step_size"] ** 2
            change = width**2 / 2 + width * torch.randn(4000, generator=generator, dtype=DTYPE)
            averaging.update(state, torch.exp(-change).clamp(max=1))
        averaging.finish(state)
        mean = torch.erfc(state["step_size"] ** 2 / 2**1.5).mean()  # of min(1, exp(-change))
        assert mean == pytest.approx(0.8, abs=0.03)


def test_windows_cover_the_warmup():
    for warmup in (0, 1, 5, 20, 100, 500, 2000):
        ends = mass_windows(warmup)
        assert ends == sorted(ends) and ends[0] >= 0 and ends[-1] <= warmup
        assert warmup < 20 or len(ends) > 1


def stationary(target, chains, seed=8):
    """Exact draws ``[chains, d]`` of a target."""
    z = torch.randn(chains, len(target.covariance), generator=torch.Generator().manual_seed(seed), dtype=DTYPE)
    if isinstance(target, Banana):
        return torch.stack([z[:, 0], 0.25 * (z[:, 0] ** 2 - 1) + 0.5 * z[:, 1]], 1)
    return z @ torch.linalg.cholesky(target.covariance).T


def adam(target, draws=20, **settings):
    """Draws of AdamMCMC that starts in equilibrium: it has to stay there."""
    start = stationary(target, 1024)
    return sample(pg.AdamMCMC(**settings), target, 1024, warmup=20, draws=draws, thinning=20, start=start)


@pytest.mark.parametrize(
    ("name", "elongation"), [*((name, 1.0) for name in TARGETS), ("1", 3.0), ("2, correlated", 3.0), ("banana", 0.0)]
)
def test_adam_mcmc_is_stationary(name, elongation):
    target = TARGETS[name]()
    # What the learning of the warm-up moved is forgotten more slowly by wide weights.
    check(adam(target, 80 if name == "10, badly scaled" else 20, elongation=elongation), target)


def test_adam_mcmc_at_a_temperature():
    target = TARGETS["2, correlated"]()
    target.covariance = 2 * target.covariance  # of the draws; the precision stays
    draws = adam(target, temperature=2.0)
    check(draws, target)


@pytest.mark.parametrize(
    "break_it",
    {
        "no reverse proposal": lambda here: lambda self, theta, proposal: torch.zeros(len(theta), dtype=DTYPE),
        "no elongation in the density": lambda here: (
            lambda self, theta, proposal: -0.5 * ((proposal - theta - self.drift) / self.width).square().sum(1)
        ),
        "no determinant": lambda here: (
            lambda self, theta, proposal: here(self, theta, proposal) + 0.5 * (1 + self.along.square().sum(1)).log()
        ),
    }.items(),
    ids=lambda item: item[0],
)
def test_a_broken_adam_proposal_is_seen(break_it, monkeypatch):
    monkeypatch.setattr(adam_mcmc._Proposal, "log_density", break_it[1](adam_mcmc._Proposal.log_density))
    with pytest.raises(AssertionError):
        check(adam(TARGETS["1"](), elongation=3.0), TARGETS["1"]())


def test_adam_moments_that_live_on_would_be_seen(monkeypatch):
    """The published kernel keeps learning its moments from the chain's own past: the reason to fix them."""

    class Live(pg.AdamMCMC):
        def advance(self, target, state, step, warmup_steps, generator):
            told = super().advance(target, state, step, 10**9, generator)
            return told

    target = TARGETS["1"]()
    live = Live(step_size=2.0, betas=(0.9, 0.1))
    with pytest.raises(AssertionError):
        check(sample(live, target, 1024, warmup=20, draws=20, thinning=20, start=stationary(target, 1024)), target)


def variance_of(kernel, target, **settings):
    draws = sample(kernel, target, **{"chains": 1024, "warmup": 10, "draws": 20, "thinning": 10} | settings)
    return float(draws.square().mean())


@pytest.mark.parametrize("step_size", [1.0, 0.5, 0.25])
def test_sgld_has_the_documented_bias(step_size):
    target = Gaussian(torch.eye(4, dtype=DTYPE))
    expected = 1 / (1 - step_size**2 / 4)
    kernel = pg.SGLD(step_size=step_size, batch_size=None)
    assert variance_of(kernel, target, thinning=round(10 / step_size)) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("step_size", [1.5, 1.0, 0.5])
def test_sghmc_has_the_right_variance_at_any_step(step_size):
    target = Gaussian(torch.eye(4, dtype=DTYPE))
    kernel = pg.SGHMC(step_size=step_size, batch_size=None)
    assert variance_of(kernel, target) == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
@pytest.mark.parametrize("method", [pg.SGLD, pg.SGHMC])
def test_temperature_scales_the_variance(method, temperature):
    target = Gaussian(torch.eye(4, dtype=DTYPE))
    kernel = method(step_size=0.3, batch_size=None, temperature=temperature)
    assert variance_of(kernel, target, thinning=20) == pytest.approx(temperature, rel=0.04)


@pytest.mark.parametrize("method", [pg.SGLD, pg.SGHMC])
def test_gradient_noise_heats_as_documented(method):
    """Mini-batches of 100 of 1,000 events, whose gradients have variance 10 per coordinate."""
    step_size = {pg.SGLD: 0.3, pg.SGHMC: 0.05}[method]
    target = Gaussian(torch.eye(4, dtype=DTYPE), noise=1.0)
    heat = {pg.SGLD: step_size**2 * 10 / 4, pg.SGHMC: step_size * 10 / 2}[method]
    assert heat > 0.2
    measured = variance_of(method(step_size=step_size, batch_size=100), target, thinning=40)
    assert measured == pytest.approx(1 + heat, rel=0.05)


@pytest.mark.parametrize("preconditioner", ["none", "rmsprop"])
@pytest.mark.parametrize("method", [pg.SGLD, pg.SGHMC])
def test_the_automatic_step_keeps_the_excess_within_its_tolerance(method, preconditioner):
    """Gradient noise of the Fisher information of 1,000 events, as a likelihood has it, in batches of 250."""
    precision = torch.full((6,), 40.0, dtype=DTYPE)
    target = Gaussian(torch.diag(1 / precision), noise=40.0)
    kernel = method(batch_size=250, tolerance=0.1, preconditioner=preconditioner)
    draws = sample(kernel, target, chains=512, warmup=20, draws=20, thinning=30, start=stationary(target, 512))
    excess = draws.square().mean() * 40 - 1
    assert 0.02 < excess < 0.2
    generator = torch.Generator().manual_seed(1)
    state = kernel.begin(target, draws[:, -1], generator)
    for step in range(200):
        told = kernel.advance(target, state, step, 200, generator)
    assert told["excess_temperature"].mean() == pytest.approx(0.1, rel=0.05)


def test_rmsprop_steps_follow_the_gradients():
    target = Gaussian(badly_scaled(10))
    kernel = pg.SGLD(preconditioner="rmsprop", batch_size=None, step_size=0.2)
    draws = sample(kernel, target, chains=256, warmup=60, draws=40, thinning=20, start=torch.randn(256, 10).double())
    ratio = draws.square().mean((0, 1)) / target.covariance.diag()
    assert (ratio[:6] - 1).abs().max() < 0.15  # widths up to 1.3; wider ones have not been crossed yet


def test_a_cycle_finds_the_other_mode():
    """Two modes 8 widths apart: a chain at a constant step stays in its own, cyclical ones visit both."""

    class Modes(Gaussian):
        def value_and_gradient(self, position, rows=None):
            x = position[:, 0]  # of U = -ln of the sum of both Gaussians
            value = 0.5 * (x.abs() - 4) ** 2 - (-8 * x.abs()).exp().log1p()
            gradient = position - 4 * (4 * position).tanh()
            return value, gradient + 3 * torch.randn(position.shape, generator=self.generator, dtype=DTYPE)

    target, start = Modes(torch.eye(1, dtype=DTYPE)), torch.full((64, 1), 4.0, dtype=DTYPE)
    visited = {}
    for schedule in ("constant", "cyclical"):
        kernel = pg.SGLD(
            schedule=schedule, cycles=8, draws=80, thinning=5, step_size=0.3, exploration=0.9, batch_size=50
        )
        draws = sample(kernel, target, chains=64, warmup=0, draws=80, thinning=5, start=start)
        visited[schedule] = float((draws < 0).any(1).double().mean())
    assert visited["constant"] < 0.1
    assert visited["cyclical"] > 0.5


def test_cyclical_steps_fall_and_the_first_part_gives_no_draws():
    kernel = pg.SGLD(schedule="cyclical", cycles=3, draws=8, thinning=4, exploration=0.5)
    moves = [kernel._factors(step) for step in range(24)]
    assert [len(each) for each in moves] == ([13] + [1] * 11) * 2  # cycles begin with a transition: 3 draws of 4 steps
    cycle = [factor for each in moves[:12] for factor in each]
    assert cycle == sorted(cycle, reverse=True)
    assert cycle[12] == pytest.approx(1.0)
    assert cycle[0] == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize(
    ("draws", "cycles", "shares"), [(10, 3, [4, 3, 3]), (10, 6, [2, 2, 1, 2, 2, 1]), (5, 5, [1] * 5)]
)
def test_cycles_share_the_draws_evenly(draws, cycles, shares):
    kernel = pg.SGLD(schedule="cyclical", cycles=cycles, draws=draws, thinning=3, exploration=0.7)
    moves = [len(kernel._factors(step)) for step in range(3 * draws)]
    starts = [step for step, number in enumerate(moves) if number > 1]  # cycles begin with moves that give no draws
    assert np.diff([*starts, 3 * draws]).tolist() == [3 * share for share in shares]


@pytest.mark.parametrize("method", [pg.SGLD, pg.SGHMC])
def test_a_cycle_keeps_the_variance_of_slow_weights(method):
    """Cycles shorter than the relaxation time: moves without noise would leave a fifth of the variance."""
    target = Gaussian(torch.eye(2, dtype=DTYPE))
    kernel = method(schedule="cyclical", cycles=20, draws=40, thinning=5, step_size=0.1, batch_size=None)
    draws = sample(kernel, target, 1024, warmup=0, draws=40, thinning=5, start=stationary(target, 1024))
    assert draws[:, 20:].square().mean() == pytest.approx(1, abs=0.08)


def test_noise_of_half_batches_measures_the_variance():
    target = Gaussian(torch.eye(3, dtype=DTYPE), noise=2.0)
    kernel = pg.SGLD(batch_size=200, step_size=0.1)
    generator = torch.Generator().manual_seed(0)
    state = kernel.begin(target, torch.zeros(2000, 3, dtype=DTYPE), generator)
    for _ in range(20):
        kernel._measure(target, state, generator)
    variance, curvature = kernel._noise_and_curvature(target, state)
    # The smallest is the average over the chains: no chain goes below it.
    assert variance.min() == pytest.approx(10.0, rel=0.05)  # 2 * 1000 / 200
    assert curvature.min() == pytest.approx(3.0, rel=0.05)  # 1 of the prior + 2 of the Fisher information


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        (pg.HMC, {"chains": 0}, "chains is 0"),
        (pg.HMC, {"draws": 2.5}, "draws is 2.5"),
        (pg.HMC, {"start": "here"}, "start is 'here'; it must be one of initial, prior, map"),
        (pg.HMC, {"whiten": True}, "whiten is True; it must be False where start is not a mean-field Posterior"),
        (pg.HMC, {"jitter": 1.0}, "jitter is 1.0"),
        (pg.HMC, {"mass": "dense"}, "mass is 'dense'; it must be one of diagonal, unit"),
        (pg.HMC, {"target_acceptance": 1.0}, "target_acceptance is 1.0; it must be between 0 and 1"),
        (pg.HMC, {"step_size": -1.0}, "step_size is -1.0; it must be positive"),
        (pg.HMC, {"dtype": torch.float16}, "dtype is torch.float16"),
        (pg.SGLD, {"batch_size": 1}, "batch_size is 1"),
        (pg.SGLD, {"schedule": "cosine"}, "schedule is 'cosine'"),
        (pg.SGLD, {"temperature": 0.0}, "temperature is 0.0"),
        (pg.SGLD, {"preconditioner": "adam"}, "preconditioner is 'adam'"),
        (
            pg.SGLD,
            {"schedule": "cyclical", "cycles": 9, "draws": 5},
            "cycles is 9; it must be at most the number of draws",
        ),
        (pg.SGHMC, {"friction": math.inf}, "friction is inf"),
        (pg.AdamMCMC, {"betas": (0.9, 1.0)}, r"betas is \(0.9, 1.0\)"),
        (pg.AdamMCMC, {"elongation": -1.0}, "elongation is -1.0"),
    ],
)
def test_bad_settings(method, settings, message):
    with pytest.raises(ValueError, match=message):
        method(**settings)


def test_what_is_exact_is_called_so():
    assert pg.HMC().exact and pg.AdamMCMC().exact
    assert not pg.SGLD().exact and not pg.SGHMC().exact
    assert not pg.AdamMCMC(batch_size=10).exact and not pg.AdamMCMC(temperature=0.5).exact
    assert sgmcmc.StochasticGradient.exact is False
