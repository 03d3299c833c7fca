"""A killed run goes on to the same bits; a checkpoint of anything else is refused; no file is ever half written."""

import itertools
import json
import os
import resource
import signal
import stat
import subprocess
import sys
from dataclasses import replace
from functools import partial

import h5py
import numpy as np
import pytest
import torch
from killing import forked, kill_again_and_again

import pyrogen as pg
from pyrogen import files
from pyrogen.hdf5 import read_json

TRAIN = """
import sys, torch, pyrogen as pg
torch.set_num_threads(1)
torch.manual_seed(7)
events = pg.targets.Wedge().sample((1500,))
model = pg.BayesianFlow(pg.CouplingFlow(2, blocks=3, hidden=(16,)))
settings = dict(epochs=12, batch_size=100, lr=5e-3, validation=0.1, patience=100, seed=5, progress=False)
svi = pg.SVI(**settings, checkpoint=sys.argv[1])
svi.fit(model, events).save(sys.argv[2])
"""


def train(checkpoint, posterior):
    """In a process that has been forked for it."""
    sys.argv = ["train", checkpoint, posterior]
    exec(TRAIN, {})


def content(path):
    """All numbers of a posterior file but the times."""
    arrays = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: arrays.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    info = json.loads(arrays.pop("info").tobytes())
    assert info.pop("seconds") > 0
    arrays |= {"info": np.frombuffer(json.dumps(info, sort_keys=True).encode(), np.uint8)}
    return {name: value for name, value in arrays.items() if name not in ("history/seconds", "package_versions")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What an uninterrupted run finds, in a process that shares nothing with the others."""
    folder = tmp_path_factory.mktemp("whole")
    subprocess.run([sys.executable, "-c", TRAIN, folder / "checkpoint.h5", folder / "posterior.h5"], check=True)
    return content(folder / "posterior.h5")


def test_killed_again_and_again_it_ends_with_the_same_bits(tmp_path, whole):
    """SIGKILL at several moments of one run, resumed each time, against an uninterrupted run."""
    checkpoint = tmp_path / "checkpoint.h5"
    again = partial(train, checkpoint, tmp_path / "killed.h5")
    kills = kill_again_and_again(again, checkpoint, (0.0, 0.1, 0.04))
    assert kills >= 2, "the run ended before it could be killed several times"
    assert forked(again) == 0
    killed = content(tmp_path / "killed.h5")
    assert whole.keys() == killed.keys()
    for name, value in whole.items():
        assert np.array_equal(value, killed[name], equal_nan=value.dtype.kind == "f"), name
    assert not list(tmp_path.glob(".killed.h5*"))


def svi(tmp_path, **kwargs):
    return pg.SVI(**{"epochs": 2, "batch_size": 50, "progress": False, "checkpoint": tmp_path / "run.h5"} | kwargs)


def model(**kwargs):
    return pg.BayesianFlow(pg.CouplingFlow(2, **{"blocks": 2, "hidden": (8,)} | kwargs))


def test_killed_inside_a_write_it_ends_with_the_same_bits(tmp_path, whole):
    """Killed just before a rename, and before the first checkpoint: temporary files are left behind and cleaned up."""

    def train_until(moment, *paths):
        replace, writes = os.replace, itertools.count(1)

        def kill(*names):
            if next(writes) == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            return replace(*names)

        files.os.replace = kill
        train(*paths)

    paths = (tmp_path / "checkpoint.h5", tmp_path / "killed.h5")
    for moment in (1, 4):
        assert forked(train_until, moment, *paths) == -signal.SIGKILL
        assert list(tmp_path.glob(".checkpoint.h5.*.tmp"))
    assert forked(train, *paths) == 0
    killed = content(tmp_path / "killed.h5")
    for name, value in whole.items():
        assert np.array_equal(value, killed[name], equal_nan=value.dtype.kind == "f"), name
    assert not list(tmp_path.glob(".*.tmp"))


EVENTS = torch.randn(200, 2, generator=torch.Generator().manual_seed(1))


def test_a_finished_run_is_not_repeated(tmp_path):
    first = svi(tmp_path).fit(model(), EVENTS)
    written = (tmp_path / "run.h5").stat().st_mtime_ns
    again = svi(tmp_path).fit(model(), EVENTS)
    assert torch.equal(first.weights.arrays["loc"], again.weights.arrays["loc"])
    assert (tmp_path / "run.h5").stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("settings", "flow", "events", "message"),
    [
        ({"batch_size": 40}, {}, EVENTS, "settings.batch_size: 50 in the file, 40 in this run"),
        ({"lr": 0.5}, {}, EVENTS, "settings.lr: 0.001 in the file, 0.5 in this run"),
        ({"seed": 1}, {}, EVENTS, "settings.seed: 0 in the file, 1 in this run"),
        ({"guide": lambda m: pg.AutoNormal(m, init_scale=0.5)}, {}, EVENTS, "initial_guide.scales.theta_unconstrained"),
        ({"epochs": 3}, {}, EVENTS, "settings.epochs: 2 in the file, 3 in this run"),
        ({"dtype": torch.float64}, {}, EVENTS, "settings.dtype: None in the file, 'float64' in this run"),
        ({}, {"blocks": 3}, EVENTS, "model.flow_config.blocks: 2 in the file, 3 in this run"),
        ({}, {"seed": 3}, EVENTS, "model.initial_weights: .* in the file"),
        ({}, {}, EVENTS[:150], r"data.events: \[200, 2\] in the file, \[150, 2\] in this run"),
        ({}, {}, EVENTS + 1e-3, "data.sha256: "),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_by_name(tmp_path, settings, flow, events, message):
    svi(tmp_path).fit(model(), EVENTS)
    with pytest.raises(pg.CheckpointMismatchError, match=message):
        svi(tmp_path, **settings).fit(model(**flow), events)


def test_settings_in_numpy_types_and_early_stops_resume(tmp_path):
    settings = {
        "lr": np.float64(2e-2),
        "betas": (np.float64(0.9), 0.999),
        "checkpoint_every": 3,
        "epochs": 100,
        "batch_size": 10,
    }
    stop = {"validation": 0.5, "patience": 3, "lr_widths": 0.05, "widths_after": 0.1}
    torch.manual_seed(0)
    events = torch.randn(60, 2)
    first = svi(tmp_path, **settings, **stop).fit(model(), events)
    assert first.info.epochs_done < 100
    again = svi(tmp_path, **settings, **stop).fit(model(), events)
    assert replace(again.info, seconds=0.0) == replace(first.info, seconds=0.0)
    assert torch.equal(first.weights.arrays["loc"], again.weights.arrays["loc"])


def test_a_posterior_is_no_checkpoint_and_the_other_way_round(tmp_path):
    posterior = svi(tmp_path).fit(model(), EVENTS)
    posterior.save(tmp_path / "posterior.h5")
    with pytest.raises(pg.FileFormatError, match="is a pyrogen checkpoint file; expected a pyrogen posterior file"):
        pg.load(tmp_path / "run.h5")
    with pytest.raises(pg.FileFormatError, match="is a pyrogen posterior file; expected a pyrogen checkpoint file"):
        svi(tmp_path, checkpoint=tmp_path / "posterior.h5").fit(model(), EVENTS)


# --- Damaged, foreign, newer files ------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    posterior = svi(tmp_path, checkpoint=None).fit(model(), EVENTS)
    posterior.save(tmp_path / "posterior.h5")
    return tmp_path / "posterior.h5"


@pytest.mark.parametrize("kept", [0, 10, 1000, 0.5, 0.99])
def test_truncated_file(saved, kept):
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(kept if kept > 1 or kept == 0 else kept * len(whole))])
    with pytest.raises(pg.FileFormatError, match=r"posterior.h5 is (empty|not a whole HDF5 file|damaged)"):
        pg.load(saved)


def test_damaged_content(saved):
    """A bit flipped in the weights is noticed by their checksum."""
    with h5py.File(saved) as file:
        dataset = file["weights/loc"]
        offset = dataset.id.get_chunk_info(0).byte_offset
    damaged = bytearray(saved.read_bytes())
    damaged[offset + 5] ^= 1
    saved.write_bytes(bytes(damaged))
    with pytest.raises(pg.FileFormatError, match="is damaged or incomplete"):
        pg.load(saved)


def test_missing_content(saved):
    with h5py.File(saved, "r+") as file:
        del file["weights/scale"]
    with pytest.raises(pg.FileFormatError, match=r"posterior\.h5 is damaged, or was changed by another program"):
        pg.load(saved)


def test_newer_version(saved):
    with h5py.File(saved, "r+") as file:
        file.attrs["pyrogen_format_version"] = 99
    with pytest.raises(pg.FileFormatError, match="posterior format version 99; this pyrogen reads versions 1 to 3"):
        pg.load(saved)


def test_foreign_files(tmp_path):
    (tmp_path / "text.h5").write_text("x,y\n1,2\n")
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["data"] = [1, 2]
    with pytest.raises(pg.FileFormatError, match="is not a whole HDF5 file"):
        pg.load(tmp_path / "text.h5")
    with pytest.raises(pg.FileFormatError, match="not one of pyrogen's"):
        pg.load(tmp_path / "foreign.h5")
    with pytest.raises(FileNotFoundError, match="no such file"):
        pg.load(tmp_path / "missing.h5")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        pg.load(tmp_path)


def test_files_say_what_wrote_them(saved):
    with h5py.File(saved) as file:
        versions = read_json(file, "package_versions")
        assert {"python", "pyrogen", "torch", "pyro-ppl", "numpy", "h5py"} <= versions.keys()
        assert versions["torch"] == torch.__version__.split("+")[0] or versions["torch"] == torch.__version__
        assert json.loads(file["info"][()].tobytes())["backend"] == "SVI"


# --- Disks that are full or read-only ---------------------------------------------------------------------------


def test_full_disk_leaves_the_old_file(saved):
    """A real failed write: the system refuses files beyond a size limit, as a full disk does."""
    old = saved.read_bytes()

    def save():
        posterior = pg.load(saved)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        with pytest.raises(OSError, match="cannot write .*posterior.h5: File too large; the file .* is unchanged"):
            posterior.save(saved)

    assert forked(save) == 0
    assert saved.read_bytes() == old
    assert [p.name for p in saved.parent.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_disk_that_fails_late_leaves_the_old_file(saved, monkeypatch, step):
    old, posterior = saved.read_bytes(), pg.load(saved)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, step, fail)
    with pytest.raises(OSError, match="No space left on device; the file that was there is unchanged"):
        posterior.save(saved)
    assert saved.read_bytes() == old and [p for p in saved.parent.iterdir() if p.name.startswith(".")] == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to read-only folders")
def test_read_only_folder(saved):
    posterior, folder = pg.load(saved), saved.parent
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(OSError, match="Permission denied; the file that was there is unchanged"):
            posterior.save(saved)
        with pytest.raises(OSError, match="Permission denied"):
            svi(folder).fit(model(), EVENTS)
    finally:
        folder.chmod(stat.S_IRWXU)
    pg.load(saved)


def test_read_only_file_system(saved, monkeypatch):
    posterior, old = pg.load(saved), saved.read_bytes()

    def refuse(*_args, **_kwargs):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(OSError, match="Read-only file system; the file that was there is unchanged"):
        posterior.save(saved)
    monkeypatch.undo()
    assert saved.read_bytes() == old


def test_missing_folder_and_folder_as_file(saved):
    posterior = pg.load(saved)
    with pytest.raises(FileNotFoundError, match="cannot write .*missing does not exist; create it first"):
        posterior.save(saved.parent / "missing" / "p.h5")
    with pytest.raises(IsADirectoryError, match="is a folder; give the name of a file in it"):
        svi(saved.parent, checkpoint=saved.parent).fit(model(), EVENTS)


def test_checkpoint_that_cannot_be_written_stops_the_run(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError, match="cannot write .*run.h5: No space left on device"):
        svi(tmp_path).fit(model(), EVENTS)


def test_a_run_with_chained_preprocessing_is_resumed(tmp_path):
    """Its description is a list of mappings, which come back from a file with their entries in another order."""
    chain = pg.events.Chain([pg.events.UnitBox(-9, 9), pg.events.Standardise()])
    events = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    model = pg.BayesianFlow(pg.CouplingFlow(2, 2, (4,)), preprocessing=chain)
    svi = pg.SVI(epochs=2, batch_size=50, checkpoint=tmp_path / "run.h5", progress=False)
    first, again = svi.fit(model, events), svi.fit(model, events)
    assert torch.equal(first.weights.arrays["loc"], again.weights.arrays["loc"])
    other = pg.BayesianFlow(pg.CouplingFlow(2, 2, (4,)), preprocessing=pg.events.Chain([pg.events.UnitBox(-8, 9)]))
    with pytest.raises(pg.CheckpointMismatchError, match="model.preprocessing.parts.0.low"):
        svi.fit(other, events)
