"""The file of a sampler's draws: what others do to it, and what its checkpoint says of it."""

import json
import os

import h5py
import pytest
import torch
from known import Line

import pyrogen as pg
from pyrogen.files import FileFormatError
from pyrogen.inference.run import draw_store
from pyrogen.inference.run.checkpoint import load_checkpoint, save_checkpoint
from pyrogen.inference.run.draw_store import ChainStore, DrawStore


def sample(folder):
    """A short run with a checkpoint."""
    events = torch.randn(40, 1, generator=torch.Generator().manual_seed(0))
    hmc = pg.HMC(chains=2, warmup=20, draws=6, max_steps=5, seed=1, checkpoint=folder / "run.h5", progress=False)
    return hmc.fit(pg.BayesianFlow(Line(), preprocessing=None), events, context=torch.ones(40, 3))


def identity_of(folder):
    """The identity of the run of a checkpoint."""
    with h5py.File(folder / "run.h5") as file:
        return json.loads(file["identity"][()].tobytes())


@pytest.mark.parametrize("memory", [2**30, 0])
@pytest.mark.parametrize("store", [DrawStore, ChainStore])
def test_draws_of_a_run_are_not_its_file(tmp_path, monkeypatch, memory, store):
    """Cutting a mapped file short would kill the process, and changing it would change the posterior."""
    monkeypatch.setattr(draw_store, "IN_MEMORY", memory)
    path, draws = tmp_path / "draws.h5", torch.rand(2, 5, 30)
    store = store((2, 5, 30), torch.float32, path, "this run")
    rows = draws.flatten(0, 1) if isinstance(store, ChainStore) else draws.unbind(1)
    for row in rows[:3]:
        store.append(row)
    store.flush()
    for row in rows[3:]:
        store.append(row)
    with h5py.File(path, "r+") as file:
        file["draws"][...] = 7.0
    assert torch.equal(store.draws, draws)
    store.flush()
    assert [block[:2] for block in store.checksums] == [(0, 3), (3, len(rows))]
    with pytest.raises(FileFormatError, match=r"draws\.h5 is damaged: draws 0 to 2 do not have the checksum"):
        type(store)((2, 5, 30), torch.float32, path, "this run", store.checksums)
    os.truncate(path, 100)
    assert torch.equal(store.draws, draws) and os.listdir(tmp_path) == ["draws.h5"]


HARMS = [lambda path: os.truncate(path, 100), os.unlink, lambda path: path.replace(f"{path}_")]


@pytest.mark.parametrize("harm", HARMS)
def test_a_file_of_draws_that_others_changed_gets_no_more_of_them(tmp_path, harm):
    path, draws = tmp_path / "draws.h5", torch.rand(2, 30)
    store = DrawStore((2, 5, 30), torch.float32, path, "this run")
    store.append(draws)
    store.flush()
    store.append(draws)
    harm(path)
    with pytest.raises(FileFormatError, match=r"draws\.h5 was removed, replaced or cut short by somebody else"):
        store.flush()
    assert torch.equal(store.draws[:, 1], draws)


@pytest.mark.filterwarnings("ignore::pyrogen.SamplingWarning")
def test_a_checkpoint_counts_all_of_its_draws(tmp_path):
    sample(tmp_path)
    run = identity_of(tmp_path)
    state, tensors = load_checkpoint(tmp_path / "run.h5", run)
    for checksums in ([], [[0, 3, "x"], [4, 6, "y"]]):
        save_checkpoint(tmp_path / "run.h5", run, state | {"checksums": checksums}, tensors)
        with pytest.raises(FileFormatError, match=r"run\.(h5 .*counts 0 draws|draws\.h5 has no whole list)"):
            sample(tmp_path)
