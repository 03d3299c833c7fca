"""NUTS, Pyro's own kernel behind our interface, and our samplers as kernels of Pyro's own loop."""

import math
import pickle

import h5py
import pyro
import pytest
import torch
from known import Line, Location
from pyro.infer import MCMC
from pyro.ops.stats import effective_sample_size

import pyrogen as pg
from pyrogen.inference.mcmc import nuts
from pyrogen.inference.run.data import TrainingData
from pyrogen.inference.run.draw_store import ChainStore
from pyrogen.inference.run.potential import Potential, Whitened
from pyrogen.posterior import MeanField, Point

QUIET = {"progress": False, "start": "initial"}


def model(flow=None):
    return pg.BayesianFlow(flow or Location(2), preprocessing=None)


@pytest.fixture(scope="module")
def events():
    return torch.randn(50, 2, generator=torch.Generator().manual_seed(5)) + torch.tensor([1.0, -0.5])


def check_moments(draws, mean, variance):
    """Means and variances of ``draws [C, n, P]`` within 4 standard errors, from the effective number of draws."""
    draws = draws.double()
    error = (draws.var((0, 1)) / effective_sample_size(draws, 0, 1).clamp(max=draws.shape[:2].numel())).sqrt()
    assert ((draws.mean((0, 1)) - mean).abs() < 4 * error).all()
    squares = (draws - mean).square()
    error = (squares.var((0, 1)) / effective_sample_size(squares, 0, 1).clamp(max=draws.shape[:2].numel())).sqrt()
    assert ((squares.mean((0, 1)) - variance).abs() < 4 * error).all()
    assert (error < 0.3 * variance).all()  # enough draws to tell anything


def check_location(draws, events):
    n = len(events) + 1
    check_moments(draws, events.double().sum(0) / n, torch.full((2,), 1 / n, dtype=torch.float64))


@pytest.fixture(scope="module")
def located(events):
    state = torch.get_rng_state()
    posterior = pg.NUTS(chains=2, warmup=40, draws=100, seed=3, **QUIET).fit(model(), events)
    assert torch.equal(state, torch.get_rng_state())  # the global random state is left alone
    return posterior


def test_location(located, events):
    draws = located.weights.arrays["draws"]
    assert draws.shape == (2, 100, 2)
    assert draws.dtype == torch.float32
    check_location(draws, events)
    assert not torch.equal(draws[0], draws[1])


def test_history(located, events):
    names = {"acceptance", "step_size", "energy", "diverging", "steps", "cut", "potential"}
    assert set(located.history) == names | {f"warmup_{name}" for name in names}
    for name in names:
        assert located.history[name].shape == (2, 100)
        assert located.history[f"warmup_{name}"].shape == (2, 40)
    history = located.history
    assert 0.6 < history["acceptance"].mean() <= 1
    assert (history["step_size"] == history["step_size"][:, :1]).all()  # fixed after the warm-up
    assert len(set(history["warmup_step_size"][0])) > 30
    assert (history["steps"] >= 1).all()
    # A draw comes with a momentum ~ N(0, M), whose energy is a chi-squared number of P = 2 degrees of freedom over 2.
    kinetic = history["energy"] - history["potential"]
    assert (kinetic >= -1e-9).all()
    assert abs(kinetic.mean() - 1) < 4 / math.sqrt(100)
    assert located.info.backend == "NUTS"
    assert located.info.exact
    assert located.info.warnings == ()
    # Every leapfrog step is a gradient; finding first step sizes takes some more.
    steps = (history["steps"].sum() + history["warmup_steps"].sum()) / 2
    assert steps < located.info.gradients < steps + 60
    last = located.weights.arrays["draws"][:, -1]
    expected = Potential(located.model, checked(located.model, events)).value(last)
    assert history["potential"][:, -1] == pytest.approx(expected.numpy(), rel=1e-5)


def checked(model, events, context=None):
    return TrainingData.check(model, events, None, context, torch.float32, "cpu")


def test_energy_has_the_gradient_of_the_potential(events):
    lifted = model()
    target = Whitened(Potential(lifted, checked(lifted, events)), torch.tensor([0.3, 0.1]), torch.tensor([0.5, 2.0]))
    position = torch.tensor([0.7, -0.2], dtype=torch.float64, requires_grad=True)
    value = nuts._Energy.apply(position, target)
    (3 * value).backward()
    theta = (torch.tensor([0.3, 0.1]) + torch.tensor([0.5, 2.0]) * position.detach()).requires_grad_()
    expected = -lifted.log_prob(theta, events).sum() + 0.5 * theta.square().sum()
    (gradient,) = torch.autograd.grad(expected, theta)
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(position.grad, 3 * gradient.double() * torch.tensor([0.5, 2.0]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mass", ["dense", "unit"])
def test_mass_and_whitening(events, mass):
    n = len(events) + 1
    lifted = model()
    guide = MeanField(loc=events.sum(0) / n, scale=torch.full((2,), n**-0.5))
    start = pg.Posterior(lifted.prepare(events), guide)
    sampler = pg.NUTS(
        chains=1, warmup=30, draws=110, thinning=2, mass=mass, start=start, whiten=True, seed=2, progress=False
    )
    posterior = sampler.fit(lifted, events)
    check_location(posterior.weights.arrays["draws"], events)
    if mass == "unit":  # in units of the posterior's widths the step is about one
        assert 0.3 < posterior.history["step_size"].mean() < 3


def test_agrees_with_hmc():
    generator = torch.Generator().manual_seed(11)
    context = torch.randn(40, 3, generator=generator) @ torch.tensor([[1.0, 0.8, 0.5], [0.0, 0.5, 0.3], [0, 0, 0.6]])
    x = context @ torch.tensor([[0.5], [-1.0], [0.3]]) + torch.randn(40, 1, generator=generator)
    covariance = torch.linalg.inv((context.T @ context + torch.eye(3)).double())
    mean = covariance @ (context.T @ x)[:, 0].double()
    assert abs(covariance[0, 1]) > 0.5 * (covariance[0, 0] * covariance[1, 1]).sqrt()
    for sampler in (
        pg.NUTS(chains=2, warmup=30, draws=90, seed=1, **QUIET),
        pg.HMC(chains=8, warmup=50, draws=80, seed=1, **QUIET),
    ):
        draws = sampler.fit(model(Line()), x, context=context).weights.arrays["draws"]
        # Sums of slopes have the correlations in their variances.
        turned = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 1, 1]], dtype=torch.float64)
        check_moments(draws.double() @ turned.T, turned @ mean, (turned @ covariance @ turned.T).diagonal())


def test_interrupted_run_resumes_to_the_same_bits(events, tmp_path, monkeypatch):
    settings = {"chains": 3, "warmup": 8, "draws": 7, "seed": 4} | QUIET
    whole = pg.NUTS(**settings).fit(model(), events)
    sampler = pg.NUTS(**settings, checkpoint=tmp_path / "run.h5")
    sample, calls = nuts._Kernel.sample, []

    def interrupted(kernel, params):
        calls.append(1)
        if len(calls) == 15 + 11:
            raise KeyboardInterrupt
        return sample(kernel, params)

    with monkeypatch.context() as patch:
        patch.setattr(nuts._Kernel, "sample", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sampler.fit(model(), events)
        assert len(calls) == 26
        calls[:] = [1] * 100
        torch.manual_seed(99)  # the global random state has no part in it
        resumed = sampler.fit(model(), events)
        assert len(calls) == 100 + 2 * 15  # the first chain came from the file
    again = sampler.fit(model(), events)  # all of them do
    for posterior in (resumed, again):
        assert torch.equal(whole.weights.arrays["draws"], posterior.weights.arrays["draws"])
        assert all((values == posterior.history[name]).all() for name, values in whole.history.items())
        assert posterior.info.gradients == whole.info.gradients


def test_chains_from_one_point_differ(events):
    start = pg.Posterior(model().prepare(events), Point(loc=events.mean(0)))
    posterior = pg.NUTS(chains=2, warmup=4, draws=3, start=start, progress=False).fit(model(), events)
    first, second = posterior.weights.arrays["draws"]
    assert not torch.equal(first, second)


@pytest.mark.filterwarnings("ignore::pyrogen.SamplingWarning")  # after two steps of warm-up
def test_damaged_draws_are_refused(events, tmp_path):
    sampler = pg.NUTS(chains=2, warmup=2, draws=4, seed=4, checkpoint=tmp_path / "run.h5", **QUIET)
    sampler.fit(model(), events)
    with h5py.File(tmp_path / "run.draws.h5", "r+") as file:
        file["draws"][1, 2, 0] += 1
    with pytest.raises(pg.FileFormatError, match="damaged: draws 4 to 7"):
        sampler.fit(model(), events)


def test_chain_store_fills_chain_after_chain():
    store = ChainStore((2, 3, 1), torch.float32)
    for i in range(5):
        store.append(torch.tensor([float(i + 1)]))
    assert store.draws[..., 0].tolist() == [[1, 2, 3], [4, 5, 0]]


def test_wedge_flow():
    flow = pg.CouplingFlow(
        features=2, blocks=2, hidden=(4,), transform="bernstein", base="uniform", bins=3, activation="tanh"
    )
    sampler = pg.NUTS(chains=1, warmup=6, draws=3, max_tree_depth=4, progress=False, start_steps=20)
    events = pg.targets.Wedge().sample((100,))
    posterior = sampler.fit(pg.BayesianFlow(flow, prior_scale="fan-in"), events)
    assert (posterior.history["steps"] <= 15).all()
    assert posterior.log_prob(events[:5]).isfinite().all()


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("target_acceptance", 1.0, "between 0 and 1"),
        ("max_tree_depth", 0, "at least 1"),
        ("mass", "full", "dense"),
        ("chains", 0, "at least 1"),
    ],
)
def test_bad_arguments(name, value, told):
    with pytest.raises(ValueError, match=f"{name} is .*{told}"):
        pg.NUTS(**{name: value})


def run(kernel, events, draws=150, warmup=60, **settings):
    pyro.set_rng_seed(1)
    mcmc = MCMC(kernel, num_samples=draws, warmup_steps=warmup, disable_progbar=True, **settings)
    mcmc.run(events)
    return mcmc


def test_pyro_loop_on_hmc(events, capsys):
    kernel = pg.HMC(seed=2, start="initial", thinning=2).kernel(model())
    mcmc = run(kernel, events, draws=150)
    draws = mcmc.get_samples()["theta"]
    assert draws.shape == (150, 2)
    check_location(draws[None], events)
    told = mcmc.diagnostics()
    assert 0.6 < told["acceptance rate"]["chain 0"] <= 1
    assert told["divergences"]["chain 0"] == []
    mcmc.summary()
    assert "theta[1]" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:num_chains=2 is more than available_cpu")
def test_pyro_chains_differ_and_repeat(events, monkeypatch):
    monkeypatch.setattr("pyro.infer.mcmc.api.mp.cpu_count", lambda: 2)  # one after another
    kernel = pg.HMC(seed=2, start="initial").kernel(model())
    first, again = (
        run(kernel, events, draws=5, warmup=4, num_chains=2).get_samples(group_by_chain=True)["theta"] for _ in "12"
    )
    assert first.shape == (2, 5, 2)
    assert not torch.equal(first[0], first[1])
    assert torch.equal(first, again)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_pyro_chains_in_processes(events, monkeypatch, context):
    monkeypatch.setattr("pyro.infer.mcmc.api.mp.cpu_count", lambda: 3)
    kernel = pg.HMC(seed=2, start="initial").kernel(model())
    mcmc = run(kernel, events, draws=4, warmup=3, num_chains=2, mp_context=context)
    draws = mcmc.get_samples(group_by_chain=True)["theta"]
    assert draws.shape == (2, 4, 2)
    assert not torch.equal(draws[0], draws[1])
    assert set(mcmc.diagnostics()["acceptance rate"]) == {"chain 0", "chain 1"}


@pytest.mark.parametrize("sampler", [pg.HMC(start="initial"), pg.NUTS(start="initial"), pg.SGHMC(start="initial")])
def test_kernel_starts_and_moves_where_it_is_told(events, sampler):
    kernel = pickle.loads(pickle.dumps(sampler.kernel(model())))
    with pytest.raises(ValueError, match="not known before setup"):
        _ = kernel.initial_params
    with pytest.raises(RuntimeError, match="before setup"):
        kernel.sample({"theta": torch.zeros(2)})
    start = torch.tensor([30.0, -20.0])
    kernel.initial_params = {"theta": start}
    kernel.setup(2, events)
    torch.testing.assert_close(kernel.initial_params["theta"], start)
    params = {"theta": start}
    for _ in range(3):
        params = kernel.sample(params)
    step_size = kernel.logging()["step size"]
    # From so far away a transition swings along the line through the centre, with an amplitude as large.
    far = torch.tensor([-1e4, 1e4])
    moved = kernel.sample({"theta": far})["theta"]
    assert moved.norm() > 300
    assert abs(moved.sum()) < 0.1 * moved.norm()
    assert kernel.logging()["step size"] == step_size  # what it learned is kept
    kernel.cleanup()
    with pytest.raises(ValueError, match="not known before setup"):
        _ = kernel.initial_params


def test_kernel_errors(events, tmp_path):
    with pytest.raises(ValueError, match=r"checkpoint is .*must be None"):
        pg.HMC(checkpoint=tmp_path / "run.h5").kernel(model())
    kernel = pg.HMC(start="initial").kernel(model())
    with pytest.raises(ValueError, match=r"initial_params is \['loc'\]"):
        kernel.initial_params = {"loc": torch.zeros(2)}
    kernel.initial_params = {"theta": torch.zeros(3)}
    with pytest.raises(ValueError, match=r"theta is \[3\]; it must be a tensor of shape \[2\]"):
        kernel.setup(2, events)
    with pytest.raises(ValueError, match="NaN"):
        pg.HMC().kernel(model()).setup(2, events * math.nan)
