"""Sampled backends from the outside: known posteriors, killed runs, files, warnings, one line to swap."""

import dataclasses
import os
import sys
from functools import partial

import h5py
import numpy as np
import pytest
import torch
from killing import forked, kill_again_and_again
from known import Line

import pyrogen as pg
from pyrogen.files import FileFormatError
from pyrogen.inference.mcmc.chains import draws_path
from pyrogen.inference.mcmc.judge import find_problems
from pyrogen.inference.run.draw_store import DrawStore

N, PRIOR = 200, 0.5
GENERATOR = torch.Generator().manual_seed(4)
CONTEXT = torch.randn(N, 3, generator=GENERATOR) @ torch.tensor([[1.0, 0.6, 0.0], [0.0, 0.8, 0.0], [0.0, 0.0, 0.3]])
EVENTS = (CONTEXT @ torch.tensor([0.5, -1.0, 0.2]) + torch.randn(N, generator=GENERATOR))[:, None]
WEIGHTS = torch.rand(N, generator=GENERATOR) + 0.5


def known_posterior(weights=None):
    w = torch.ones(N) if weights is None else weights * weights.sum() / weights.square().sum()
    precision = CONTEXT.T @ (w[:, None] * CONTEXT) + torch.eye(3) / PRIOR**2
    covariance = torch.linalg.inv(precision)
    return covariance @ CONTEXT.T @ (w * EVENTS[:, 0]), covariance


def linear_model():
    return pg.BayesianFlow(Line(), prior_scale=PRIOR, preprocessing=None)


QUIET = {"progress": False, "seed": 1}
#: Settings, and how far variances may be off: 4 standard errors of the number of draws, and the documented bias.
MANY = {"chains": 128, "draws": 12, "thinning": 15, "start_steps": 100} | QUIET
BACKENDS = {
    "HMC": (pg.HMC(**MANY | {"warmup": 60, "thinning": 1}), 0.15),
    "HMC, from the prior": (pg.HMC(**MANY | {"warmup": 60, "thinning": 1, "start": "prior", "mass": "unit"}), 0.15),
    "SGLD": (pg.SGLD(**MANY | {"thinning": 25}, warmup=16, batch_size=None, tolerance=0.05), 0.2),
    "SGHMC": (pg.SGHMC(**MANY, warmup=12, batch_size=None), 0.2),
    "SGLD, mini-batches": (pg.SGLD(**MANY | {"thinning": 30}, warmup=20, batch_size=50), 0.3),
    "AdamMCMC": (pg.AdamMCMC(**MANY, warmup=8), 0.15),
    "Laplace": (pg.Laplace(steps=100, progress=False), 0.12),
    "NUTS": (pg.NUTS(chains=2, warmup=60, draws=150, start_steps=50, **QUIET), 0.35),
}


@pytest.mark.parametrize("name", BACKENDS)
def test_known_posterior_is_recovered(name):
    backend, tolerance = BACKENDS[name]
    posterior = backend.fit(linear_model(), EVENTS, context=CONTEXT)
    draws = torch.stack(list(posterior.weights.draws(posterior.weights.stored or 4000, 0))).double()
    mean, covariance = (value.double() for value in known_posterior())
    width = covariance.diag().sqrt()
    few = len(draws) < 1000
    assert ((draws.mean(0) - mean).abs() < (0.25 if few else 0.15) * width).all()
    ratio = torch.cov(draws.T).diag() / covariance.diag()
    assert ((ratio - 1).abs() < tolerance).all(), ratio
    assert (torch.corrcoef(draws.T) - covariance / torch.outer(width, width)).abs().max() < (0.25 if few else 0.1)
    assert posterior.info.backend == name.split(",")[0]
    assert posterior.info.warnings == ()


def test_weighted_events_count_by_their_effective_size():
    posterior = pg.HMC(chains=128, warmup=50, draws=12, start_steps=50, **QUIET).fit(
        linear_model(), EVENTS, weights=WEIGHTS, context=CONTEXT
    )
    mean, covariance = known_posterior(WEIGHTS)
    draws = posterior.weights.arrays["draws"].flatten(0, 1)
    assert ((draws.mean(0) - mean).abs() < 0.15 * covariance.diag().sqrt()).all()
    assert ((draws.var(0) / covariance.diag() - 1).abs() < 0.15).all()


def test_coordinates_whitened_by_a_guide():
    """The same posterior, from over-dispersed draws of a guide and in its units, where the step is about one."""
    guide = pg.SVI(epochs=60, batch_size=100, lr=5e-2, lr_widths=5e-2, widths_after=0.0, init_scale=0.05, **QUIET)
    guide = guide.fit(linear_model(), EVENTS, context=CONTEXT)
    settings = {"chains": 128, "warmup": 50, "draws": 24, "mass": "unit"} | QUIET
    white = pg.HMC(start=guide, whiten=True, **settings).fit(linear_model(), EVENTS, context=CONTEXT)
    plain = pg.HMC(start=guide, **settings).fit(linear_model(), EVENTS, context=CONTEXT)
    mean, covariance = known_posterior()
    for posterior in (white, plain):
        draws = posterior.weights.arrays["draws"].flatten(0, 1)
        assert ((draws.mean(0) - mean).abs() < 0.15 * covariance.diag().sqrt()).all()
        assert ((draws.var(0) / covariance.diag() - 1).abs() < 0.15).all()
    assert white.history["step_size"].mean() > 3 * plain.history["step_size"].mean()
    with pytest.raises(ValueError, match="start is a posterior over 3 weights, the model has"):
        pg.HMC(start=guide).fit(small_flow(), RAMP)


def small_flow():
    flow = pg.CouplingFlow(2, blocks=2, hidden=(4,), transform="bernstein", base="uniform", bins=4, activation="tanh")
    return pg.BayesianFlow(flow, prior_scale="fan-in")


RAMP = pg.targets.Wedge().sample((200,))
SMALL = {
    "HMC": pg.HMC(chains=2, warmup=8, draws=5, start_steps=10, max_steps=20, **QUIET),
    "SGLD": pg.SGLD(chains=2, warmup=8, draws=5, start_steps=10, thinning=3, batch_size=50, **QUIET),
    "SGLD, cyclical": pg.SGLD(
        chains=2, warmup=8, draws=5, start_steps=10, thinning=3, batch_size=50, schedule="cyclical", cycles=2, **QUIET
    ),
    "SGHMC": pg.SGHMC(chains=2, warmup=8, draws=5, start_steps=10, thinning=3, preconditioner="rmsprop", **QUIET),
    "AdamMCMC": pg.AdamMCMC(chains=2, warmup=8, draws=5, start_steps=10, thinning=3, **QUIET),
    "AdamMCMC, mini-batches": pg.AdamMCMC(
        chains=2, warmup=8, draws=5, start_steps=10, thinning=3, batch_size=50, **QUIET
    ),
}


def with_checkpoint(sampler, path):
    return dataclasses.replace(sampler, checkpoint=path, checkpoint_seconds=1e-9)


@pytest.mark.filterwarnings("ignore::pyrogen.SamplingWarning")
@pytest.mark.parametrize("name", SMALL)
def test_an_interrupted_run_goes_on_to_the_same_bits(name, tmp_path, monkeypatch):
    sampler = SMALL[name]
    whole = sampler.fit(small_flow(), RAMP)
    # In the warm-up, in the middle of a transition, and after the first and the fourth draw.
    advance, thinning = type(sampler).advance, sampler.thinning
    moments = {3 * thinning, 8 * thinning + thinning // 2, 9 * thinning, 12 * thinning}

    def interrupted(self, target, state, step, *arguments):
        if step in moments:
            moments.remove(step)
            raise KeyboardInterrupt
        return advance(self, target, state, step, *arguments)

    monkeypatch.setattr(type(sampler), "advance", interrupted)
    interruptions = 0
    while True:
        try:
            posterior = with_checkpoint(sampler, tmp_path / "run.h5").fit(small_flow(), RAMP)
            break
        except KeyboardInterrupt:
            interruptions += 1
    assert interruptions >= 3 and not moments
    assert torch.equal(posterior.weights.arrays["draws"], whole.weights.arrays["draws"])
    assert posterior.history.keys() == whole.history.keys()
    for key, values in whole.history.items():
        assert np.array_equal(posterior.history[key], values), key
    assert posterior.info.gradients == pytest.approx(whole.info.gradients)
    points = torch.rand(5, 2)
    assert torch.equal(posterior.log_prob(points), whole.log_prob(points))
    assert torch.isfinite(whole.density(points).relative).all()


RUN = """
import sys, torch, warnings, pyrogen as pg
torch.set_num_threads(1)
torch.manual_seed(7)
warnings.simplefilter("ignore")
events = pg.targets.Wedge().sample((100,))
flow = pg.CouplingFlow(2, blocks=2, hidden=(4,), transform="bernstein", base="uniform", bins=4, activation="tanh")
model = pg.BayesianFlow(flow, prior_scale="fan-in")
sampler = pg.SGHMC(chains=3, warmup=10, draws=30, thinning=2, start_steps=20, seed=5, progress=False,
                   checkpoint=sys.argv[1], checkpoint_seconds=1e-9)
sampler.fit(model, events).save(sys.argv[2])
"""


def run(*paths):
    """In a process that has been forked for it."""
    sys.argv = ["run", *paths]
    exec(RUN, {})


def test_killed_again_and_again_it_ends_with_the_same_bits(tmp_path):
    # In processes forked from this one; test_checkpoint.py compares them with one that shares nothing with them.
    assert forked(run, tmp_path / "whole.h5", tmp_path / "whole_posterior.h5") == 0
    checkpoint = tmp_path / "run.h5"
    again = partial(run, checkpoint, tmp_path / "posterior.h5")
    assert kill_again_and_again(again, checkpoint, (0.0, 0.1)) >= 2
    assert forked(again) == 0
    one, two = (pg.load(tmp_path / name) for name in ("whole_posterior.h5", "posterior.h5"))
    assert torch.equal(one.weights.arrays["draws"], two.weights.arrays["draws"])
    for name, values in one.history.items():
        assert np.array_equal(values, two.history[name]), name


def checkpointed(tmp_path, **settings):
    sampler = pg.HMC(
        **{"chains": 2, "warmup": 20, "draws": 6, "max_steps": 5, "start_steps": 10, "checkpoint": tmp_path / "run.h5"}
        | QUIET
        | settings
    )
    return sampler.fit(small_flow(), RAMP)


@pytest.mark.filterwarnings("ignore::pyrogen.SamplingWarning")
def test_draws_lie_in_the_file_and_a_finished_run_is_not_repeated(tmp_path):
    posterior = checkpointed(tmp_path)
    assert draws_path(tmp_path / "run.h5") == tmp_path / "run.draws.h5"
    with h5py.File(tmp_path / "run.draws.h5") as file:
        assert np.array_equal(file["draws"][()], posterior.weights.arrays["draws"].numpy())
    written = (tmp_path / "run.h5").stat().st_mtime_ns
    assert torch.equal(checkpointed(tmp_path).weights.arrays["draws"], posterior.weights.arrays["draws"])
    assert (tmp_path / "run.h5").stat().st_mtime_ns == written
    posterior.save(tmp_path / "posterior.h5")
    loaded = pg.load(tmp_path / "posterior.h5")
    assert loaded.weights.arrays["draws"].shape == (2, 6, small_flow().weights)
    assert torch.equal(loaded.log_prob(RAMP[:9]), posterior.log_prob(RAMP[:9]))
    assert np.array_equal(loaded.history["energy"], posterior.history["energy"])


@pytest.mark.filterwarnings("ignore::pyrogen.SamplingWarning")
def test_foreign_damaged_and_missing_files_are_refused(tmp_path):
    checkpointed(tmp_path)
    with pytest.raises(pg.CheckpointMismatchError, match=r"settings.seed: 1 in the file, 2 in this run"):
        checkpointed(tmp_path, seed=2)
    path = tmp_path / "run.draws.h5"
    content = bytearray(path.read_bytes())
    content[-9] ^= 1  # one bit of the last draw
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"run.draws.h5 is damaged: draws 0 to 5 do not have the checksum"):
        checkpointed(tmp_path)
    path.write_bytes(content[:-100])
    with pytest.raises(FileFormatError, match="run.draws.h5"):
        checkpointed(tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="run.draws.h5"):
        checkpointed(tmp_path)


def test_a_full_disk_is_met_before_any_work(tmp_path, monkeypatch):
    usage = os.statvfs(tmp_path)
    too_many = 2 * usage.f_bavail * usage.f_frsize // (2 * 4 * small_flow().weights)
    with pytest.raises(OSError, match=r"cannot write .*run.draws.h5: it needs .* GB, and .* GB are free"):
        checkpointed(tmp_path, draws=int(too_many))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError, match="create it first"):
        pg.HMC(checkpoint=tmp_path / "missing" / "run.h5").fit(small_flow(), RAMP)


def test_draws_beyond_the_last_checkpoint_do_not_count(tmp_path):
    store = DrawStore((2, 5, 3), torch.float32, tmp_path / "draws.h5", "this run")
    first, second = torch.rand(2, 3), torch.rand(2, 3)
    store.append(first)
    store.flush()
    saved = list(store.checksums)
    store.append(second)  # and the process dies here
    again = DrawStore((2, 5, 3), torch.float32, tmp_path / "draws.h5", "this run", saved)
    assert again.kept == 1
    again.append(first + 1)
    assert torch.equal(again.draws[:, :2], torch.stack([first, first + 1], 1))
    with pytest.raises(FileFormatError, match="another run"):
        DrawStore((2, 5, 3), torch.float32, tmp_path / "draws.h5", "that run", saved)


class Broken(Line):
    """A density that is NaN where the first slope is beyond a limit."""

    limit = -9.0

    def log_prob(self, x, context):
        return super().log_prob(x, context) + (self.slope[0] - self.limit).log() * 0


def test_a_potential_that_is_not_a_number_is_an_error_not_an_average():
    model = pg.BayesianFlow(Broken(), prior_scale=PRIOR, preprocessing=None)
    with pytest.raises(
        pg.SamplingError, match=r"chain 0, 1 \(of 2\).*NaN or infinite in transition .*smaller step_size"
    ):
        pg.SGLD(chains=2, warmup=5, draws=50, start_steps=10, step_size=30.0, batch_size=None, **QUIET).fit(
            model, EVENTS, context=CONTEXT
        )
    Broken.limit = 9.0
    try:
        with pytest.raises(pg.SamplingError, match="starting points"):
            pg.HMC(chains=2, **QUIET).fit(model, EVENTS, context=CONTEXT)
    finally:
        Broken.limit = -9.0


def test_chains_that_never_moved_are_named():
    with pytest.warns(pg.SamplingWarning, match="chain 0, 1 never moved"):
        posterior = pg.AdamMCMC(chains=2, warmup=0, draws=5, start_steps=50, thinning=2, step_size=1e4, **QUIET).fit(
            linear_model(), EVENTS, context=CONTEXT
        )
    assert "never moved" in posterior.info.warnings[0]


def test_problems_in_words():
    rng = np.random.default_rng(0)
    good = {
        "potential": rng.normal(size=(3, 200)),
        "acceptance": np.full((3, 200), 0.8),
        "step_size": np.full((3, 200), 0.1),
    }
    draws = torch.randn(3, 200, 2)
    assert find_problems(good, draws) == []
    apart = good["potential"] + np.array([[0.0], [0.0], [50.0]])
    assert "the chains disagree: split R-hat" in str(find_problems(good | {"potential": apart}, draws)[0])
    assert "divergent" in str(find_problems(good | {"diverging": np.full((3, 200), 0.02)}, draws)[0])
    acceptance = np.array([[0.8], [0.01], [0.8]]) * np.ones((3, 200))
    assert "chain 1 accepted less than 5 %" in str(find_problems(good | {"acceptance": acceptance}, draws)[0])
    step_size = np.array([[0.1], [0.1], [1e-6]]) * np.ones((3, 200))
    assert "step size of chain 2 collapsed to 1.0e-06" in str(find_problems(good | {"step_size": step_size}, draws)[0])


def test_trajectories_cut_short_are_named():
    with pytest.warns(pg.SamplingWarning, match="most trajectories end after max_steps=2 steps"):
        pg.HMC(chains=2, warmup=30, draws=30, start_steps=50, max_steps=2, **QUIET).fit(
            linear_model(), EVENTS, context=CONTEXT
        )


def test_chains_on_mini_batches_are_judged_by_the_same_events():
    """The potential on record is that of all events, not of the noisy batch."""
    posterior = SMALL["SGLD"].fit(small_flow(), RAMP)
    theta = posterior.weights.arrays["draws"][:, -1]
    inner = [-posterior.model.log_prob(one, RAMP.float()).double().sum() for one in theta]
    prior = [0.5 * (one / posterior.model.prior_scales).double().square().sum() for one in theta]
    expected = torch.stack(inner) + torch.stack(prior)
    assert torch.allclose(torch.from_numpy(posterior.history["potential"][:, -1]), expected.detach(), rtol=1e-5)


def test_starting_at_the_draws_of_another_sampler():
    model = small_flow().prepare(RAMP)
    # Draws of our own: a chain repeats a draw whose proposal was rejected, and then two starts may rightly agree.
    stored = 0.1 * torch.randn(2, 10, model.weights, generator=torch.Generator().manual_seed(3))
    first = pg.Posterior(model, pg.posterior.StoredDraws(stored))
    again = pg.HMC(chains=15, warmup=0, draws=1, step_size=1e-6, max_steps=1, start=first, **QUIET)
    with pytest.warns(pg.SamplingWarning):
        posterior = again.fit(small_flow(), RAMP)
    nearest = torch.cdist(posterior.weights.arrays["draws"][:, 0], stored.flatten(0, 1)).min(1)
    assert (nearest.values < 1e-3).all() and len(set(nearest.indices.tolist())) == 15
    with pytest.raises(ValueError, match="chains is 30, but start holds 20 draws"):
        pg.HMC(chains=30, start=first, **QUIET).fit(small_flow(), RAMP)


def test_a_foreign_file_in_the_place_of_the_draws_is_left_alone(tmp_path):
    (tmp_path / "run.draws.h5").write_text("notes")
    with pytest.raises(FileFormatError, match="run.draws.h5 exists, but its checkpoint does not"):
        checkpointed(tmp_path)
    assert (tmp_path / "run.draws.h5").read_text() == "notes"


def test_predictions_take_all_draws_where_few_are_stored():
    model = small_flow().prepare(RAMP)
    stored = torch.randn(3, 4, model.weights, generator=torch.Generator().manual_seed(0))
    posterior = pg.Posterior(model, pg.posterior.StoredDraws(stored))
    assert posterior.log_prob(RAMP[:2].float()).shape == (12, 2)
    with pytest.raises(ValueError, match="draws is 13, but this posterior holds 12 stored weight draws"):
        posterior.log_prob(RAMP[:2].float(), draws=13)


def test_seed_and_global_random_state():
    sampler = SMALL["SGLD"]
    before = torch.get_rng_state()
    one, two = (sampler.fit(small_flow(), RAMP).weights.arrays["draws"] for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one, two)
    assert not torch.equal(one[0], one[1])
