"""Many trainings and large generated samples on executors: the same bits as here, whatever is killed."""

import functools
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import pyrogen as pg
from pyrogen.executors import TRIES, run_parts

SOME = {"n": 60, "draws": 3, "chunk": 10, "progress": False}  # six parts


@pytest.fixture(scope="module")
def posterior():
    return trained(pg.BayesianFlow(pg.CouplingFlow(2, 1, (4,))), torch.randn(200, 2))


def trained(model, events, **given):
    return pg.SVI(epochs=1, batch_size=100, progress=False).fit(model, events, **given)


@pytest.fixture(scope="module")
def whole(posterior, tmp_path_factory):
    """The file of a run without an executor."""
    return posterior.generate_to(tmp_path_factory.mktemp("whole") / "a.h5", **SOME).read_bytes()


@pytest.fixture
def pool():
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
        yield pool


class Future:
    """No more than pyrogen asks for."""

    def __init__(self, work):
        self._work = work

    def result(self):
        return self._work()


class Here:
    """An executor that has only ``submit``, and carries what it is given as engines do.

    Args:
        before: called with the number of the call and its arguments, before it is made.
    """

    def __init__(self, before=lambda number, arguments: None):
        self.before, self.calls = before, 0

    def submit(self, function, *arguments):
        self.calls += 1
        number, sent = self.calls, pickle.dumps((function, arguments))

        def work():
            self.before(number, arguments)
            function, given = pickle.loads(sent)
            return pickle.loads(pickle.dumps(function(*given)))

        return Future(work)


def fails_in(*numbers, error=ConnectionError):
    def before(number, _):
        if number in numbers:
            raise error("lost") if error is ConnectionError else error

    return before


def killed_once(flag, sample):
    """A ``finish`` that kills its worker when it is first called."""
    try:
        Path(flag).open("x").close()
    except FileExistsError:
        return sample
    os.kill(os.getpid(), signal.SIGKILL)


def warned(sample):
    warnings.warn(f"{len(sample)} odd events", UserWarning, stacklevel=1)
    return sample


# --- generated files ----------------------------------------------------------------------------------------


def test_an_executor_with_submit_alone_gives_the_same_bits(posterior, whole, tmp_path):
    executor = Here()
    path = posterior.generate_to(tmp_path / "a.h5", executor=executor, **SOME)
    assert path.read_bytes() == whole and executor.calls == 6 and os.listdir(tmp_path) == ["a.h5"]


def test_a_pool_whose_worker_is_killed_is_named_and_a_repeat_goes_on(posterior, whole, pool, tmp_path):
    finish = functools.partial(killed_once, tmp_path / "flag")
    some = SOME | {"finish": finish, "finish_name": "same"}
    with pytest.raises(pg.PartsError, match=r"BrokenProcessPool.* was killed, .* make a new executor; . of 6 parts .*"):
        posterior.generate_to(tmp_path / "a.h5", executor=pool, **some)
    assert not (tmp_path / "a.h5").exists()
    kept = len(list((tmp_path / "a.h5.parts").glob("*.h5")))
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as fresh:
        posterior.generate_to(tmp_path / "a.h5", executor=fresh, **some)
    assert (tmp_path / "a.h5").read_bytes() == whole and kept < 6


def test_a_dask_cluster_loses_nothing_when_a_worker_is_killed(posterior, whole, tmp_path):
    distributed = pytest.importorskip("distributed", reason='needs pip install "pyrogen[dask]"')
    finish = functools.partial(killed_once, tmp_path / "flag")
    here = [one.weights for one in fit_here()]
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster,
        distributed.Client(cluster) as client,
    ):
        for nanny in cluster.workers.values():
            nanny.auto_restart = False  # the other worker does the work of both: a new one takes seconds to start
        some = SOME | {"finish": finish, "finish_name": "same", "executor": client}
        path = posterior.generate_to(tmp_path / "a.h5", **some)
        assert (tmp_path / "flag").exists() and path.read_bytes() == whole  # a worker was killed in between
        assert len(client.scheduler_info()["workers"]) == 1
        for one, other in zip(here, fit_here(client), strict=True):
            assert same(one, other.weights)


def test_parts_that_fail_are_tried_again_and_the_others_kept(posterior, whole, tmp_path):
    executor = Here(fails_in(2, 7))  # part 1 in its first two tries
    assert posterior.generate_to(tmp_path / "a.h5", executor=executor, **SOME).read_bytes() == whole
    assert executor.calls == 8
    executor = Here(fails_in(3, 7, 8))
    with pytest.raises(
        pg.PartsError,
        match=r"generate b.h5: 1 of 6 parts failed .*\(part 2: ConnectionError: lost\); 5 are finished. They are kept "
        r"in b.h5.parts. Repeat the call to go on",
    ):
        posterior.generate_to(tmp_path / "b.h5", executor=executor, **SOME)
    assert executor.calls == 5 + TRIES
    executor = Here()
    assert posterior.generate_to(tmp_path / "b.h5", executor=executor, **SOME).read_bytes() == whole
    assert executor.calls == 1


def wrong(sample):
    raise ValueError("no such column")


def test_an_error_that_would_come_again_is_not_tried_again(posterior, tmp_path):
    executor = Here()
    with pytest.raises(pg.PartsError, match=r"6 of 6 parts .*part 0: ValueError: no such column \(in wrong, .*and 1 m"):
        posterior.generate_to(tmp_path / "a.h5", executor=executor, finish=wrong, **SOME)
    assert executor.calls == 6


def test_warnings_of_workers_come_back(posterior, tmp_path):
    with pytest.warns(UserWarning, match="part .: 10 odd events") as caught:
        posterior.generate_to(tmp_path / "a.h5", executor=Here(), finish=warned, **SOME)
    assert [str(one.message)[:6] for one in caught] == [f"part {i}" for i in range(6)]
    assert caught[0].filename == __file__


def test_ctrl_c_cancels_and_says_how_to_go_on(posterior, tmp_path):
    executor = Here(fails_in(4, error=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt, match="stopped by Ctrl-C; 3 of 6 parts are finished. They are kept"):
        posterior.generate_to(tmp_path / "a.h5", executor=executor, **SOME)
    assert len(list((tmp_path / "a.h5.parts").glob("*.h5"))) == 3
    cancelled = []

    class Cancelled(Future):
        def cancel(self):
            cancelled.append(self)

    class Lasting(Here):
        def submit(self, function, *arguments):
            return Cancelled(super().submit(function, *arguments).result)

    with pytest.raises(KeyboardInterrupt):
        run_parts(
            Lasting(fails_in(2, error=KeyboardInterrupt)),
            abs,
            {str(i): (i,) for i in range(5)},
            lambda *_: None,
            what="count",
            go_on="",
            progress=False,
        )
    assert len(cancelled) == 4


def test_a_list_of_parts_is_checked_and_mended(posterior, whole, tmp_path):
    path = posterior.generate_to(tmp_path / "a.json", executor=Here(), **SOME)
    told = json.loads(path.read_text())
    assert told["events"] == 60 and told["made"]["seed"] == 0 and len(told["parts"]) == 6
    (tmp_path / "a.h5").write_bytes(whole)
    expected, found = pg.events.read(tmp_path / "a.h5"), pg.events.read(path)
    assert np.array_equal(found.values, expected.values) and found.provenance == expected.provenance
    assert np.array_equal(found.uncertainties, expected.uncertainties) and found.names == expected.names
    assert [len(part) for part in pg.events.stream(path, chunk=25)] == [25, 25, 10]
    part = tmp_path / told["parts"][2]["file"]
    good = part.read_bytes()
    part.write_bytes(good[:-9] + bytes([good[-9] ^ 1]) + good[-8:])
    with pytest.raises(pg.FileFormatError, match="000002.h5 is damaged: its SHA-256 .* repeat the generate_to"):
        pg.events.read(path)
    part.unlink()
    with pytest.raises(pg.FileFormatError, match="lists .*000002.h5, which is missing"):
        pg.events.read(path)
    executor = Here()
    posterior.generate_to(path, executor=executor, **SOME)
    assert executor.calls == 1 and part.read_bytes() == good and json.loads(path.read_text()) == told
    middle = bytearray(good)
    middle[len(good) // 2] ^= 1
    part.write_bytes(middle)
    posterior.generate_to(path, executor=executor, **SOME)
    assert part.read_bytes() == good and sorted(os.listdir(tmp_path / "a.json.parts"))[-1] == "job.json"
    other = posterior.generate_to(tmp_path / "b.json", **SOME | {"seed": 1})  # a whole part of another run
    shutil.copy(tmp_path / "b.json.parts" / part.name, part)
    posterior.generate_to(path, executor=executor, **SOME)
    assert part.read_bytes() == good and json.loads(path.read_text()) == told != json.loads(other.read_text())
    for content in ("[]", "{", json.dumps(told | {"events": 61})):
        path.write_text(content)
        with pytest.raises(pg.FileFormatError, match="pyrogen wrote|damaged"):
            pg.events.read(path)
    path.write_text(json.dumps(told | {"version": 2}))
    with pytest.raises(pg.FileFormatError, match="version 2; this pyrogen reads up to 1"):
        pg.events.read(path)
    with pytest.raises(ValueError, match="layout"):
        posterior.generate_to(path, layout="rows", **SOME)


def test_shares_of_several_jobs_make_one_file(posterior, whole, tmp_path):
    path = tmp_path / "a.h5"
    for i in (1, 0):
        folder = posterior.generate_to(path, share=(i, 2), **SOME)
        assert not path.exists()
    assert sorted(os.listdir(folder)) == [*(f"00000{i}.h5" for i in range(6)), "job.json"]
    assert posterior.generate_to(path, executor=Here(fails_in(1)), **SOME).read_bytes() == whole  # nothing is made
    assert os.listdir(tmp_path) == ["a.h5"]
    with pytest.raises(ValueError, match=r"share is \(2, 2\); it must be \(i, S\)"):
        posterior.generate_to(path, share=(2, 2), **SOME)


def test_conditions_go_to_their_parts(tmp_path):
    context = torch.linspace(-5, 5, 60)[:, None]
    model = pg.BayesianFlow(pg.CouplingFlow(2, 1, (4,), context=1))
    conditional = trained(model, torch.randn(60, 2) + context, context=context)
    paths = [
        conditional.generate_to(tmp_path / f"{i}.h5", context=context, executor=executor, **SOME)
        for i, executor in enumerate((None, Here()))
    ]
    assert paths[0].read_bytes() == paths[1].read_bytes()


# --- trainings ----------------------------------------------------------------------------------------------


SAMPLES = torch.randn(3, 50, 2, generator=torch.Generator().manual_seed(1)) + 3


def fit_here(executor=None, **settings):
    """Trainings on three samples, one after another."""
    torch.manual_seed(0)
    model = pg.BayesianFlow(pg.CouplingFlow(2, 1, (4,)))
    if executor is None:  # samples with names and of several sizes are no batch
        executor = Here()
    backend = pg.SVI(**{"epochs": 2, "batch_size": 25, "progress": False} | settings)
    return backend.fit_many(model, SAMPLES, executor=executor)


def same(one, other):
    return all(torch.equal(array, other.arrays[name]) for name, array in one.arrays.items())


def test_trainings_on_an_executor_are_those_one_after_another(pool):
    torch.manual_seed(0)
    model = pg.BayesianFlow(pg.CouplingFlow(2, 1, (4,)))
    samples = [
        pg.EventSample(SAMPLES[r][: 50 - r], ["a", "b"], ["GeV", ""], weights=torch.ones(50 - r)) for r in (0, 1)
    ]
    backend = pg.SVI(epochs=2, batch_size=25, progress=False)
    expected = backend.fit_many(model, samples)  # no batch, as they differ in size
    assert expected[0].info.batched is False
    for one, other in zip(expected, backend.fit_many(model, samples, executor=pool), strict=True):
        assert same(one.weights, other.weights) and other.names == ("a", "b") and other.units == ("GeV", "")
        changes = "seconds", "batched_reason"
        mine, theirs = (
            {k: v for k, v in vars(posterior.info).items() if k not in changes} for posterior in (one, other)
        )
        assert mine == theirs and other.info.batched_reason == "each sample is trained by itself on an executor"
        assert torch.equal(one.log_prob(SAMPLES[0], 3), other.log_prob(SAMPLES[0], 3))


def test_trainings_go_on_from_their_checkpoints(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    alone = fit_here()
    with pytest.raises(pg.PartsError, match="train 3 samples: 1 of 3 .*sample 1: Con.*Those are in their checkpoints"):
        fit_here(Here(fails_in(2, 4, 5)), checkpoint="run.h5")
    assert sorted(path.name for path in tmp_path.glob("run.*.h5")) == ["run.0.h5", "run.2.h5"]
    before = Path("run.0.h5").stat().st_mtime_ns
    for one, other in zip(alone, fit_here(checkpoint="run.h5"), strict=True):
        assert same(one.weights, other.weights)
    assert Path("run.0.h5").stat().st_mtime_ns == before
    with pytest.raises(pg.PartsError, match='Nothing is saved. With checkpoint="run.h5"'):
        fit_here(Here(fails_in(1, 4, 5)))


def test_coverage_studies_train_on_an_executor(posterior):
    executor = Here()
    backend = pg.SVI(epochs=1, batch_size=100, progress=False)
    some = {"trainings": 2, "probes": 3, "draws": 5}
    pg.diagnostics.bootstrap_calibration(backend, posterior, 50, executor=executor, **some)
    assert executor.calls == 2


def test_what_is_no_executor_is_refused(posterior, tmp_path):
    with pytest.raises(TypeError, match="executor is a int; it must be an executor, such as concurrent.futures"):
        posterior.generate_to(tmp_path / "a.h5", executor=4, **SOME)
