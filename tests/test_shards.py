"""Chains, replicas and members shared out among runs: the same bits wherever these run, judged together."""

import multiprocessing
import os
import runpy
import socket
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_scale import Here

import pyrogen as pg
from pyrogen.inference.mcmc.judge import split_rhat

QUIET = {"progress": False}
EVENTS = torch.randn(60, 2, generator=torch.Generator().manual_seed(1))
SGLD = pg.SGLD(chains=4, warmup=5, draws=20, thinning=1, batch_size=30, start="initial", step_size=0.01, **QUIET)
BOOTSTRAP = pg.Bootstrap(replicas=7, steps=5, **QUIET)
ENSEMBLE = pg.Ensemble(members=3, steps=5, **QUIET)


@pytest.fixture(autouse=True)
def no_word_of_short_runs():
    """These runs are far too short for good chains."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pg.SamplingWarning)
        yield


def model():
    torch.manual_seed(0)
    return pg.BayesianFlow(pg.CouplingFlow(2, 1, (4,)))


def draws(posterior):
    return posterior.weights.arrays["draws"]


def test_shards_have_all_chains_and_seeds_of_their_own():
    shards = [pg.shard(replace(SGLD, checkpoint="a/run.h5"), i, 3) for i in range(3)]
    assert [one.chains for one in shards] == [1, 1, 2] and len({one.seed for one in shards} | {0}) == 4
    assert shards[1].checkpoint == Path("a/run.shard1.h5")
    for backend, message in (
        (pg.SVI(), r"backend is pg.SVI, one training, which cannot be shared out; take a sampler"),
        (replace(SGLD, chains=2), "chains is 2; it must be at least 3, as there are 3 shards"),
        (BOOTSTRAP, "replicas is 7; it must be at least 9, 3 for each of the 3 shards"),
    ):
        with pytest.raises(ValueError, match=message):
            pg.shard(backend, 0, 3)
    with pytest.raises(ValueError, match="index is 3; it must be less than shards, which is 3"):
        pg.shard(SGLD, 3, 3)


@pytest.mark.parametrize("backend", [SGLD, BOOTSTRAP, ENSEMBLE], ids=lambda backend: type(backend).__name__)
def test_runs_in_shards_are_the_same_on_an_executor_and_merged_by_hand(backend):
    here = pg.fit_shards(backend, model(), EVENTS, shards=2)
    there = pg.fit_shards(backend, model(), EVENTS, shards=2, executor=Here())
    parts = [pg.shard(backend, i, 2).fit(model(), EVENTS) for i in range(2)]
    by_hand = pg.merge(parts)
    for other in (there, by_hand):
        assert torch.equal(draws(here), draws(other)) and here.info.findings == other.info.findings
        assert all(np.array_equal(here.history[name], other.history[name]) for name in other.history)
    name, _ = backend.countable
    count = getattr(backend, name)
    assert here.info.settings == backend.describe() and len(draws(here)) == count
    assert [run["seed"] for run in here.info.details["merged"]] == [part.info.settings["seed"] for part in parts]
    assert torch.equal(here.log_prob(EVENTS, 3), by_hand.log_prob(EVENTS, 3))
    assert len(torch.unique(draws(here)[:, -1], dim=0)) == count  # no chain is there twice
    with pytest.raises(ValueError, match=r"posteriors\[1\] and posteriors\[0\] both have the seed"):
        pg.merge([here, pg.merge(parts[::-1])])  # nor in what was merged before


def test_r_hat_is_that_of_all_chains():
    """Two runs that agree in themselves, and not with each other."""
    parts = [pg.shard(SGLD, i, 2).fit(model(), EVENTS) for i in range(2)]
    noise = np.random.default_rng(0).normal(size=(2, 2, 20))
    for part, values, shift in zip(parts, noise, (0.0, 9.0), strict=True):
        part.history["potential"] = values + shift
        assert split_rhat(part.history["potential"]) < 1.5
        part.info = replace(part.info, findings=(pg.posterior.Finding("odd", f"shift {shift}", "Look"),))
    merged = pg.merge(parts)
    told = [str(finding) for finding in merged.info.findings]
    assert merged.info.chains == 4 and merged.history["potential"].shape == (4, 20)
    assert f"split R-hat of the potential is {split_rhat(merged.history['potential']):.2f}" in told[0]
    assert told[1:] == ["odd: run 0: shift 0.0. Look.", "odd: run 1: shift 9.0. Look."]
    with pytest.warns(pg.SamplingWarning, match="the chains disagree"):
        pg.merge(parts)


def test_replicas_are_held_against_those_of_all_runs():
    parts = [pg.shard(replace(BOOTSTRAP, replicas=12), i, 2).fit(model(), EVENTS) for i in range(2)]
    theta = draws(parts[1]).clone()
    theta[4] += 3.0
    parts[1] = pg.Posterior(parts[1].model, pg.posterior.StoredDraws(theta), dict(parts[1].history), parts[1].info)
    parts[1].probes = parts[0].probes
    parts[1].history["final_nll"] = parts[1].history["final_nll"] + np.eye(6)[4] * 1e4
    merged = pg.merge(parts)
    assert merged.info.details["left_out"] == [10] and merged.info.details["replicas"] == 12
    assert len(draws(merged)) == 11 and merged.info.findings[0].problem == "replicas left out"
    assert 0.05 < merged.info.details["sigma_error"] < 1  # 0.2 for 11 replicas, if they were Gaussian


def test_what_does_not_belong_together_is_refused():
    fitted = pg.shard(ENSEMBLE, 0, 2).fit(model(), EVENTS)
    other = {
        "both have the seed": fitted,
        "data_sha256": pg.shard(ENSEMBLE, 1, 2).fit(model(), EVENTS + 1),
        "the setting steps: 6, not 5": pg.shard(replace(ENSEMBLE, steps=6), 1, 2).fit(model(), EVENTS),
        "the model": pg.shard(ENSEMBLE, 1, 2).fit(pg.BayesianFlow(pg.CouplingFlow(2, 1, (5,))), EVENTS),
        "holds mean_field, not draws": pg.SVI(epochs=1, batch_size=60, **QUIET).fit(model(), EVENTS),
        "in backend": pg.shard(BOOTSTRAP, 1, 2).fit(model(), EVENTS),
    }
    for message, wrong in other.items():
        with pytest.raises(ValueError, match=rf"posteriors\[[01]\].*({message})"):
            pg.merge([fitted, wrong])


def process(rank, port, folder, wrong):
    """One of two processes, as torchrun starts them."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    events = EVENTS * torch.nan if wrong and rank else EVENTS
    try:
        posterior = pg.fit_distributed(SGLD, model(), events, shards=4)
        posterior.save(folder / f"{rank}.h5")
    except pg.PartsError as error:
        (folder / f"{rank}.txt").write_text(str(error))


def two_processes(folder, wrong=False):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    started = [context.Process(target=process, args=(rank, port, folder, wrong)) for rank in range(2)]
    for one in started:
        one.start()
    for one in started:
        one.join()
    return sorted(os.listdir(folder))


def test_two_processes_of_torchrun_make_the_posterior_of_one(tmp_path):
    assert two_processes(tmp_path) == ["0.h5", "1.h5"]
    alone = pg.fit_distributed(SGLD, model(), EVENTS, shards=4)
    for rank in (0, 1):
        found = pg.load(tmp_path / f"{rank}.h5")
        assert torch.equal(draws(found), draws(alone)) and found.info.chains == 4
        assert found.info.findings == alone.info.findings and found.info.settings == alone.info.settings


def test_a_process_that_fails_is_named_in_all(tmp_path):
    assert two_processes(tmp_path, wrong=True) == ["0.txt", "1.txt"]
    for rank in (0, 1):
        assert "1 of 2 processes failed (process 1: ValueError" in (tmp_path / f"{rank}.txt").read_text()


def test_the_jobs_of_an_array_make_one_posterior_and_one_sample(tmp_path, monkeypatch):
    script = Path(__file__).parents[1] / "examples" / "cluster" / "array.py"
    monkeypatch.chdir(tmp_path)

    def job(step, task=None):
        monkeypatch.setattr("sys.argv", [str(script), step, "--quick"])
        if task is not None:
            monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(task))
        monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "2")
        runpy.run_path(str(script), run_name="__main__")

    for step, last in (("train", "merge"), ("generate", "join")):
        for task in (0, 1):
            job(step, task)
        job(last)
    posterior = pg.load("posterior.h5")
    assert posterior.info.chains == 4 and len(posterior.info.details["merged"]) == 2
    assert len(pg.events.read("events.json")) == 1000
