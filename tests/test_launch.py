"""Steps in one launch: what a card replays is what the step does, or it is not replayed at all."""

import dataclasses
import math

import pyro
import pytest
import torch
from graphs import taped  # noqa: F401
from torch import nn

import pyrogen as pg
from pyrogen.inference.mcmc import chains
from pyrogen.inference.run.potential import Potential, Whitened
from pyrogen.inference.vi.guided import GuideObjective
from pyrogen.launch import ON_CPU, ONE_LAUNCH, Launch
from pyrogen.seeds import untouched

EVENTS = torch.rand(200, 2, generator=torch.Generator().manual_seed(3))
FLOW = pg.CouplingFlow(2, 2, (8,))
SETTINGS = {
    "SVI": pg.SVI(epochs=4, batch_size=50, validation=0.2, progress=False),
    "SVI, weights drawn per batch": pg.SVI(
        epochs=3, batch_size=50, local_reparameterization=False, num_particles=2, kl_weight=0.5, progress=False
    ),
    "SVI, low rank": pg.SVI(
        epochs=2, batch_size=50, guide=pyro.infer.autoguide.AutoLowRankMultivariateNormal, progress=False
    ),
    "HMC": pg.HMC(chains=2, warmup=6, draws=3, start_steps=10, max_steps=8, progress=False),
    "NUTS": pg.NUTS(chains=1, warmup=3, draws=2, start_steps=5, max_tree_depth=3, progress=False),
    "SGLD": pg.SGLD(chains=2, warmup=4, draws=2, thinning=3, batch_size=50, start_steps=10, progress=False),
    "SGHMC": pg.SGHMC(chains=2, warmup=4, draws=2, thinning=3, batch_size=50, start_steps=10, progress=False),
    "AdamMCMC": pg.AdamMCMC(chains=2, warmup=4, draws=2, thinning=3, start_steps=10, progress=False),
    "Ensemble": pg.Ensemble(members=3, steps=20, batch_size=50, progress=False),
    "Bootstrap": pg.Bootstrap(replicas=3, steps=20, batch_size=50, progress=False),
    "Laplace": pg.Laplace(steps=20, batch_size=50, progress=False),
}


class Shift(nn.Module):
    """Events ~ N(location, 1): the posterior is a Gaussian."""

    features = 2

    def __init__(self):
        super().__init__()
        self.location = nn.Parameter(torch.zeros(2))

    def log_prob(self, x):
        return -0.5 * (x - self.location).square().sum(-1) - math.log(2 * math.pi)

    def sample(self, n):
        return self.location + torch.randn(n, 2)


def both(run):
    """What a run gives step by step, and in launches."""
    Launch.allowed = False
    try:
        plain = run()
    finally:
        Launch.allowed = True
    return plain, run()


def arrays(posterior):
    return posterior.weights.arrays


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", SETTINGS)
def test_a_replayed_run_has_the_bits_of_the_run(name, taped):  # noqa: F811
    """Batches, noise, rates, moments, steps left out and sums are those of the step, not of its recording."""
    backend = SETTINGS[name]
    plain, fast = both(lambda: backend.fit(pg.BayesianFlow(FLOW), EVENTS))
    assert fast.info.launch == ONE_LAUNCH, fast.info.launch
    assert taped.replays > 5 and "switched off" in plain.info.launch
    assert fast.info.gradients == pytest.approx(plain.info.gradients)
    for key, value in arrays(plain).items():
        assert torch.equal(arrays(fast)[key], value)
    for key, curve in plain.history.items():
        if key != "seconds":
            assert curve.tobytes() == fast.history[key].tobytes(), key


def test_many_trainings_in_one_launch(taped):  # noqa: F811
    """Each network of a batch has its own bits in a replay too."""
    samples = torch.rand(3, 100, 2, generator=torch.Generator().manual_seed(4))
    backend = pg.SVI(epochs=4, batch_size=50, progress=False)
    plain, fast = both(lambda: backend.fit_many(pg.BayesianFlow(FLOW), samples))
    assert taped.replays > 5 and fast[0].info.launch == ONE_LAUNCH
    for one, other in zip(plain, fast, strict=True):
        assert torch.equal(arrays(one)["loc"], arrays(other)["loc"])
        assert torch.equal(arrays(one)["scale"], arrays(other)["scale"])


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ["SVI", "HMC"])
def test_a_killed_replayed_run_resumes_to_the_same_bits(name, taped, tmp_path, monkeypatch):  # noqa: F811
    from baselines import kill_at_save

    from pyrogen.inference.mcmc import chains
    from pyrogen.inference.vi import training

    changes = {"checkpoint_every": 1} if name == "SVI" else {"checkpoint_seconds": 1e-9}
    backend = dataclasses.replace(SETTINGS[name], checkpoint=tmp_path / "run.h5", **changes)
    whole = SETTINGS[name].fit(pg.BayesianFlow(FLOW), EVENTS)
    kill_at_save(monkeypatch, 3, training if name == "SVI" else chains)
    with pytest.raises(KeyboardInterrupt):
        backend.fit(pg.BayesianFlow(FLOW), EVENTS)
    again = backend.fit(pg.BayesianFlow(FLOW), EVENTS)
    assert all(torch.equal(arrays(again)[key], value) for key, value in arrays(whole).items())


def test_each_group_of_parameters_has_its_own_rate(taped):  # noqa: F811
    """Where rates are tensors, as a card needs them."""
    backend = SETTINGS["SVI"]
    model, data = backend.checked(pg.BayesianFlow(FLOW), EVENTS)
    with untouched(), pyro.get_param_store().scope(), pyro.validation_enabled(False):
        objective = GuideObjective(backend, model, data)
        objective.step(torch.arange(50)[None], torch.tensor([0.5, 0.25]).double(), False)
    assert [float(group["lr"]) for group in objective.optimizer.param_groups] == [0.5, 0.25]


def test_what_a_graph_would_freeze_is_found_out(taped):  # noqa: F811
    """A number that Python makes anew at every call: the replay repeats the old one, and is not used."""
    calls = [0]

    def step(x):
        calls[0] += 1
        return (x * calls[0],)

    launch = Launch(step, "cpu")
    assert launch(torch.ones(2))[0].tolist() != [] and not launch.recorded
    assert launch.told == "operation by operation: the recorded step does not repeat what the step does"
    before = calls[0]
    assert launch(torch.ones(2))[0].tolist() == [before + 1] * 2  # called as it is


def test_a_step_that_reads_a_number_runs_as_it_is(taped):  # noqa: F811
    launch = Launch(lambda x: (x / float(x.sum()),), "cpu")
    assert launch(torch.ones(2))[0].tolist() == [0.5, 0.5]
    assert launch.told.startswith("operation by operation: RuntimeError: called a synchronizing")


def test_random_numbers_of_the_host_are_not_frozen(taped, monkeypatch):  # noqa: F811
    from pyrogen import launch as module

    monkeypatch.undo()
    monkeypatch.setattr(module, "_graphs_on", lambda device: True)
    monkeypatch.setattr(module, "_beside", lambda device: torch.no_grad())
    monkeypatch.setattr(module, "_without_waiting", torch.no_grad)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.zeros(1))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: None)
    launch = Launch(lambda x: (x + torch.rand(2),), "cpu")
    launch(torch.ones(2))
    assert launch.told == "operation by operation: the step draws random numbers on the CPU"


def test_the_cpu_has_no_graphs():
    launch = Launch(lambda x: (x,), "cpu")
    assert not launch.recorded and launch.told == ON_CPU


def test_recording_leaves_no_trace(taped):  # noqa: F811
    """The first call of a recorded step does what the step does once, with the random numbers that come next."""

    def run(recorded):
        torch.manual_seed(7)
        state = torch.zeros(3)

        def step(x):
            state.add_(x * torch.randn(3))
            return (state * 2,)

        launch = Launch(step, "cpu", lambda: [state]) if recorded else step
        found = [launch(torch.full((3,), float(i)))[0].clone() for i in range(4)]
        return torch.stack([*found, state, torch.rand(3)])

    with torch.random.fork_rng():
        assert torch.equal(run(True), run(False))


def test_each_shape_has_a_graph_of_its_own(taped):  # noqa: F811
    launch = Launch(lambda x, y: (x.sum(0) if y is None else x.sum(0) + y,), "cpu")
    assert launch(torch.ones(3, 2), None)[0].tolist() == [3, 3]
    assert launch(torch.ones(5, 2), None)[0].tolist() == [5, 5]
    assert launch(torch.ones(3, 2), torch.ones(2))[0].tolist() == [4, 4]
    assert launch(2 * torch.ones(3, 2), None)[0].tolist() == [6, 6]
    assert len(launch._graphs) == 3 and launch.recorded


def test_a_part_of_a_recorded_step_is_no_launch_of_its_own(taped):  # noqa: F811
    inner = Launch(lambda x: (2 * x,), "cpu")
    outer = Launch(lambda x: (inner(x)[0] + 1,), "cpu")
    assert outer(torch.ones(2))[0].tolist() == [3, 3] and outer(torch.zeros(2))[0].tolist() == [1, 1]
    assert outer.recorded and len(outer._graphs) == 1 and not inner._graphs
    assert inner(torch.ones(2))[0].tolist() == [2, 2] and len(inner._graphs) == 1


def test_a_later_step_leaves_the_results_of_an_earlier_one(taped):  # noqa: F811
    backend = SETTINGS["Ensemble"]
    model, data = backend.checked(pg.BayesianFlow(FLOW), EVENTS)
    target = Whitened(Potential(model, data), torch.zeros(model.weights), torch.ones(model.weights))
    generator, start = torch.Generator().manual_seed(1), model.initial_theta[None]
    one = target.launch("half", lambda x: (x / 2, x), generator, start)
    other = target.launch("half", lambda x: (x / 2, x), generator, one[0])
    assert torch.equal(one[0], start / 2) and torch.equal(other[0], start / 4)
    value, gradient = target.value_and_gradient(start)
    kept = value.clone(), gradient.clone()
    target.value_and_gradient(start + 1)
    assert torch.equal(value, kept[0]) and torch.equal(gradient, kept[1])


@pytest.mark.parametrize("compile", [False, True])
def test_predictions_of_many_chunks_in_one_launch_each(compile, taped, monkeypatch):  # noqa: F811
    """The same densities, whatever the sizes of the chunks; a few evaluations are not worth a recording."""
    from pyrogen.flows import compiled
    from pyrogen.posterior import predictor

    monkeypatch.setattr(compiled, "_compiled", lambda step: step)
    posterior = SETTINGS["SVI"].fit(pg.BayesianFlow(FLOW), EVENTS)
    posterior.compile, before = compile, taped.replays
    few = posterior.log_prob(EVENTS, 20)
    assert taped.replays == before
    monkeypatch.setattr(predictor, "EVENTS_AT_ONCE", 60)  # 200 events: three whole chunks and one of 20
    many = posterior.log_prob(EVENTS, 20)
    assert taped.replays >= before + 80 and posterior.predictor.launch.recorded, posterior.predictor.launch.told
    torch.testing.assert_close(many, few, rtol=1e-5, atol=1e-5)


def test_known_posterior_from_replayed_gradients(taped):  # noqa: F811
    """HMC on a conjugate Gaussian, gradients replayed: mean and variance within three standard errors."""
    n, chains, draws = 50, 8, 100
    events = EVENTS[:n] - 0.5
    posterior = pg.HMC(chains=chains, warmup=60, draws=draws, start_steps=10, progress=False).fit(
        pg.BayesianFlow(Shift(), preprocessing=None), events
    )
    found = arrays(posterior)["draws"].double().flatten(0, 1)
    mean, variance = events.double().sum(0) / (n + 1), 1 / (n + 1)
    error = (variance / (chains * draws / 4)) ** 0.5  # a quarter of the draws, were they correlated so much
    assert ((found.mean(0) - mean).abs() < 3 * error).all()
    assert (found.var(0) / variance - 1).abs().max() < 3 * (2 / (chains * draws / 4)) ** 0.5
    assert posterior.info.launch == ONE_LAUNCH and taped.replays > 100


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_run_of_an_earlier_version_goes_on_in_launches(taped, monkeypatch, tmp_path):  # noqa: F811
    """What its state lacks is there before steps are recorded, or every step would miss it anew."""
    load, transition = chains.load_checkpoint, chains.SamplingRun.transition

    def old(*args):
        found = load(*args)
        if found is not None:
            found[1].pop("centre")
        return found

    def killed(self, state):
        if self.done == 4:
            raise KeyboardInterrupt
        return transition(self, state)

    monkeypatch.setattr(chains, "load_checkpoint", old)
    events, found = torch.randn(40, 2, generator=torch.Generator().manual_seed(1)), []
    for allowed in (False, True):
        monkeypatch.setattr(Launch, "allowed", allowed)
        backend = pg.AdamMCMC(
            chains=2,
            warmup=2,
            draws=6,
            start_steps=3,
            step_size=0.01,
            batch_size=20,
            progress=False,
            checkpoint=tmp_path / f"{allowed}.h5",
            checkpoint_seconds=1e-9,
        )
        model = pg.BayesianFlow(pg.CouplingFlow(2, blocks=2, hidden=(4,)))
        with monkeypatch.context() as here, pytest.raises(KeyboardInterrupt):
            here.setattr(chains.SamplingRun, "transition", killed)
            backend.fit(model, events)
        found.append(backend.fit(model, events).history["excess_temperature"])
    assert taped.replays and found[1] == pytest.approx(found[0], abs=1e-3)
