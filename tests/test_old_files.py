"""Files of the first version: posteriors, generated events and checkpoints that users have.

They were written by the release that had version 1, from the events in ``v1_events.npy``. ``v1_svi_run.h5`` is the
checkpoint of the run whose posterior is ``v1_svi.h5``, and so on.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import pyrogen as pg
from pyrogen.inference.mcmc import chains
from pyrogen.inference.modes import descent
from pyrogen.inference.vi.training import Training

DATA = Path(__file__).parent / "data"
FAMILIES = {
    "svi": "mean_field",
    "random": "mean_field",
    "hmc": "draws",
    "ensemble": "draws",
    "laplace_full": "multivariate",
}


@pytest.fixture(scope="module")
def events():
    return torch.from_numpy(np.load(DATA / "v1_events.npy"))


def old(name):
    return h5py.File(DATA / f"v1_{name}.h5")


def old_json(file, name):
    return json.loads(file[name][()].tobytes())


@pytest.mark.parametrize("name", FAMILIES)
def test_a_posterior_loads_with_all_of_its_numbers(name):
    posterior = pg.load(DATA / f"v1_{name}.h5")
    with old(name) as file:
        assert file.attrs["pyrogen_format_version"] == 1
        assert posterior.weights.family == file.attrs["family"] == FAMILIES[name]
        assert posterior.weights.arrays.keys() == file["weights"].keys()
        for key, array in posterior.weights.arrays.items():
            assert np.array_equal(array.numpy(), file["weights"][key][()])
        assert np.array_equal(posterior.model.initial_theta.numpy(), file["initial_weights"][()])
        assert posterior.history.keys() == file["history"].keys()
        for key, values in posterior.history.items():
            assert np.array_equal(values, file["history"][key][()], equal_nan=True)
        config = posterior.model.describe()["flow_config"]
        was = old_json(file, "model")["flow_config"]
        assert {key: config[key] for key in was} == was
    points = torch.rand(20, posterior.model.features)
    assert posterior.log_prob(points).isfinite().all()
    density = posterior.density(points)
    assert (density.mean > 0).all() and density.std.isfinite().all()
    assert posterior.sample(50, seed=1).isfinite().all()


@pytest.mark.parametrize(("name", "buffer", "own"), [("svi", "rotations", "rotation"), ("random", "orders", "order")])
def test_the_mixings_of_a_posterior_are_those_of_the_file(name, buffer, own):
    flow = pg.load(DATA / f"v1_{name}.h5").model.flow
    with old(name) as file:
        stored = file["flow_buffers"][buffer][()]
    assert len(stored) == len(flow.mixings) == 3
    for mixing, values in zip(flow.mixings, stored, strict=True):
        assert np.array_equal(getattr(mixing, own).numpy(), values)


def test_buffers_that_the_file_holds_count_and_not_the_seed(tmp_path):
    """A flow made anew has others where the random numbers of a library have changed since."""
    shutil.copy(DATA / "v1_random.h5", tmp_path / "other.h5")
    with h5py.File(tmp_path / "other.h5", "r+") as file:
        file["flow_buffers/orders"][...] = [[1, 0, 2]] * 3
    flow = pg.load(tmp_path / "other.h5").model.flow
    assert [mixing.order.tolist() for mixing in flow.mixings] == [[1, 0, 2]] * 3


@pytest.mark.parametrize("name", FAMILIES)
def test_the_record_of_a_posterior_is_carried_over(name):
    info = pg.load(DATA / f"v1_{name}.h5").info
    with old(name) as file:
        was = old_json(file, "info")
    settings = was.pop("settings")
    if info.backend == "SVI":
        settings["lr_warmup"] = settings.pop("warmup")  # its name since
    assert info.settings == settings
    details = {}
    for key, value in was.items():
        if key == "chains_batched":
            assert info.batching == value
        elif key == "warnings":
            assert len(info.findings) == len(value)
            for finding, warning in zip(info.findings, value, strict=True):
                assert finding.found in warning and finding.advice in warning
        elif hasattr(info, key):
            assert getattr(info, key) == value
        else:
            details[key] = value
    assert info.details == details and bool(details) == (name == "laplace_full")
    assert info.backend in {"SVI", "HMC", "Ensemble", "Laplace"} and info.training_events == 500
    assert info.is_posterior == (name != "ensemble")
    assert len(info.findings) == (2 if name == "laplace_full" else 0)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_was_loaded_is_saved_in_the_present_version(name, tmp_path):
    posterior = pg.load(DATA / f"v1_{name}.h5")
    posterior.save(tmp_path / "new.h5")
    with h5py.File(tmp_path / "new.h5") as file:
        assert file.attrs["pyrogen_format_version"] == 3
    again = pg.load(tmp_path / "new.h5")
    points = torch.rand(20, posterior.model.features)
    assert again.info == posterior.info
    assert torch.equal(again.log_prob(points), posterior.log_prob(points))


def test_generated_events_are_read_with_their_weights():
    sample = pg.events.read(DATA / "v1_generated.h5")
    with old("generated") as file:
        assert np.array_equal(sample.values, file["values"][()])
        assert np.array_equal(sample.uncertainties, file["uncertainties"][()])
        assert np.array_equal(sample.log_weights, file["log_weights"][()])
        assert sample.provenance.items() >= old_json(file, "provenance").items()
    assert sample.values.shape == (500, 2) and sample.log_weights.shape == (500, 6)
    assert sample.names == ("x0", "x1")
    band = pg.sample_histograms(sample, {"x0": ("x0", 5, (0.0, 1.0))})["x0"]
    assert np.isfinite(band.mean).all() and (band.std > 0).all()


QUIET = {"progress": False}
RUNS = {
    "svi": (pg.SVI(epochs=4, batch_size=64, seed=3, **QUIET), Training, "_epoch"),
    "hmc": (pg.HMC(warmup=10, draws=6, chains=2, start_steps=20, seed=4, **QUIET), chains.SamplingRun, "transition"),
    "ensemble": (pg.Ensemble(members=3, steps=30, batch_size=64, seed=1, **QUIET), descent.Adam, "advance"),
}


def old_run(name, folder):
    """The model of a run, and a copy of its checkpoint."""
    for part in ("run.h5", "run.draws.h5"):
        if (DATA / f"v1_{name}_{part}").exists():
            shutil.copy(DATA / f"v1_{name}_{part}", folder / part)
    # The model of the file: the bits of initial weights may differ between machines.
    return pg.load(DATA / f"v1_{name}.h5").model, folder / "run.h5"


@pytest.mark.parametrize("name", RUNS)
def test_a_finished_run_is_taken_from_its_checkpoint(name, events, tmp_path, monkeypatch):
    """No step is taken anew, and the posterior is the one that was saved then."""
    backend, work, method = RUNS[name]
    model, checkpoint = old_run(name, tmp_path)
    monkeypatch.setattr(work, method, None)
    posterior = replace(backend, checkpoint=checkpoint).fit(model, events)
    with old(name) as file:
        for key, array in posterior.weights.arrays.items():
            assert np.array_equal(array.numpy(), file["weights"][key][()])
        for key in file["history"]:
            # The losses of an ensemble are computed anew; another processor may round them differently.
            np.testing.assert_allclose(posterior.history[key], file["history"][key][()], rtol=1e-6, err_msg=key)
        was = old_json(file, "info")
    assert posterior.info.data_sha256 == was["data_sha256"]
    assert posterior.info.training_events == 500


@pytest.mark.parametrize("name", RUNS)
def test_the_same_run_without_its_checkpoint_does_work(name, events, monkeypatch):
    backend, work, method = RUNS[name]
    monkeypatch.setattr(work, method, None)
    with pytest.raises(TypeError, match="not callable"):
        backend.fit(pg.load(DATA / f"v1_{name}.h5").model, events)


@pytest.mark.parametrize("name", RUNS)
def test_an_old_checkpoint_of_another_run_is_refused(name, events, tmp_path):
    backend = RUNS[name][0]
    model, checkpoint = old_run(name, tmp_path)
    other = replace(backend, seed=99, checkpoint=checkpoint)
    with pytest.raises(pg.CheckpointMismatchError, match="settings.seed: . in the file, 99 in this run") as caught:
        other.fit(model, events)
    assert str(caught.value).count(" in this run") == 1  # and nothing else differs
    with pytest.raises(pg.CheckpointMismatchError, match="data.sha256"):
        replace(backend, checkpoint=checkpoint).fit(model, events.flip(0))


def test_the_time_of_a_training_is_told_as_before():
    posterior = pg.load(DATA / "v1_svi.h5")
    assert posterior.info.seconds == posterior.history["seconds"][-1] > 0 and posterior.info.gradients == 4.0
