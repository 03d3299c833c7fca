"""Ctrl-C and the signals of batch systems: a run saves its state before it ends, and says how to go on."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

import pyrogen as pg
from pyrogen.bayes.model import BayesianFlow
from pyrogen.inference.run import checkpoint, stopping

BACKENDS = {
    "SVI": {"epochs": 12, "batch_size": 20, "widths_after": 0.9, "checkpoint_every": 4},
    "HMC": {"chains": 2, "warmup": 12, "draws": 12, "max_steps": 4, "start_steps": 3},
    "NUTS": {"chains": 3, "warmup": 3, "draws": 3, "max_tree_depth": 2, "start_steps": 3},
    "SGLD": {"chains": 2, "warmup": 6, "draws": 6, "batch_size": 20, "start_steps": 3},
    "SGHMC": {"chains": 2, "warmup": 6, "draws": 6, "batch_size": 20, "start_steps": 3},
    "AdamMCMC": {"chains": 2, "warmup": 6, "draws": 6, "start_steps": 3},
    "Ensemble": {"members": 2, "steps": 30, "batch_size": 20},
    "Bootstrap": {"replicas": 3, "steps": 30, "batch_size": 20},
    "Laplace": {"steps": 20, "batch_size": 20, "polish": 5, "structure": "diagonal"},
}

EVENTS = torch.randn(60, 2, generator=torch.Generator().manual_seed(1))


def model():
    return pg.BayesianFlow(pg.CouplingFlow(2, blocks=1, hidden=(4,)))


def make(name, settings, checkpoint=None):
    return getattr(pg, name)(**settings, progress=False, checkpoint=checkpoint)


ENDED = """
import json, os, signal, sys, warnings
import torch
from test_stopping import BACKENDS, EVENTS, BayesianFlow, make, model
torch.set_num_threads(1)
warnings.simplefilter("ignore")

def ended(backend, how, at):
    # A process that sends itself the signal at some call of the flow; returns how it ended, and what it said.
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(write, 2)
        calls, real = [0], BayesianFlow._inner
        def call(*arguments):
            calls[0] += 1
            if calls[0] == at:
                os.kill(os.getpid(), how)
            return real(*arguments)
        BayesianFlow._inner = call
        backend.fit(model(), EVENTS)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as told:
        said = told.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said

hows = signal.SIGTERM, signal.SIGINT, signal.SIGHUP
for name, path, moments in json.loads(sys.argv[1]):
    backend = make(name, BACKENDS[name], path)
    # Flushed: a child that ends writes what its parent has not written yet.
    print(json.dumps([ended(backend, how, at) for how, at in zip(hows, moments, strict=True)]), flush=True)
"""

SAVED = "the run is saved in {}. Repeat it, and it goes on from there to the same bits"


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """Runs in processes that begin where torch has imported no optimizer yet, and what was printed there."""
    folder = tmp_path_factory.mktemp("stopped")
    runs = [("SVI", str(folder / "svi.h5"), (18, 10, 10)), ("HMC", str(folder / "hmc.h5"), (30, 20, 20))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, "-c", ENDED + IMPORTING, json.dumps(runs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    return runs, done.stdout.splitlines()


def test_signals_end_the_process_after_the_state_was_saved(there):
    """As they would have ended it without us: exit status 130 and 143 in a shell, and a line that says how to go on."""
    runs, lines = there
    hows = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    for (name, path, _), line in zip(runs, lines[:-2], strict=True):
        for how, (code, said) in zip(hows, json.loads(line), strict=True):
            assert code == -how and len(said.splitlines()) < 18, said
            by = "Ctrl-C" if how == signal.SIGINT else how.name
            assert said.splitlines()[-1].endswith(f"{name} was stopped by {by}; {SAVED.format(path)}"), said
        settings = BACKENDS[name]
        same_bits(make(name, settings).fit(model(), EVENTS), make(name, settings, path).fit(model(), EVENTS))


IMPORTING = """
import importlib.abc
SETTINGS = BACKENDS["Laplace"]

class CtrlC(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torch._inductor.config":
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
assert "torch._dynamo" not in sys.modules
sys.meta_path.insert(0, CtrlC())
try:
    make("Laplace", SETTINGS).fit(model(), EVENTS)
except KeyboardInterrupt as stop:
    print(stop)
print(make("Laplace", SETTINGS).fit(model(), EVENTS))
"""


def test_ctrl_c_while_torch_imports_its_optimizers_leaves_them_whole(there):
    """In a notebook the next training would fail with an import error for ever."""
    stopped, trained = there[1][-2:]
    assert stopped.startswith("Laplace was stopped by Ctrl-C; nothing is saved.")
    assert trained.startswith("Posterior(Laplace")


def same_bits(one, other):
    assert one.weights.arrays.keys() == other.weights.arrays.keys()
    for name, array in one.weights.arrays.items():
        assert torch.equal(array, other.weights.arrays[name]), name


@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend_goes_on_to_the_same_bits(monkeypatch, tmp_path, name):
    """Interrupted again and again, each time a little later in what is left of the run."""
    path = tmp_path / "run.h5"
    backend, said = make(name, BACKENDS[name], path), []
    for _ in range(200):
        try:
            interrupted(monkeypatch, backend, {15 + 3 * len(said)})
        except KeyboardInterrupt as stop:
            said.append(str(stop).partition("; ")[2])
            continue
        break
    assert len(said) > 1
    assert set(said) <= {
        SAVED.format(path),
        f"there was nothing to save in {path} yet. Repeat the run, and it begins anew",
    }
    assert said[-1] == SAVED.format(path)
    same_bits(make(name, BACKENDS[name]).fit(model(), EVENTS), backend.fit(model(), EVENTS))


def interrupted(monkeypatch, backend, moments, how=signal.SIGINT, times=1):
    """Run a backend that is sent a signal at some calls of its flow; returns how many calls there were."""
    calls, real = [], BayesianFlow._inner

    def call(*arguments):
        calls.append(None)
        if len(calls) in moments:
            for _ in range(times):
                signal.raise_signal(how)
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(BayesianFlow, "_inner", call)
        backend.fit(model(), EVENTS)
    return len(calls)


@pytest.mark.parametrize("name", BACKENDS)
def test_without_a_checkpoint_it_says_how_there_would_be_one(monkeypatch, name):
    handlers = [signal.getsignal(which) for which in stopping.ENDING]
    told = rf'{name} was stopped by Ctrl-C; nothing is saved. With {name}\(checkpoint="run.h5"\) a stopped run'
    with pytest.raises(KeyboardInterrupt, match=told) as stop:
        interrupted(monkeypatch, make(name, BACKENDS[name]), {12})
    assert type(stop.value) is KeyboardInterrupt and len(stop.traceback) < 7  # which ends a script with status 130
    assert [signal.getsignal(which) for which in stopping.ENDING] == handlers


def test_the_state_is_that_of_the_last_whole_step(monkeypatch, tmp_path):
    """Wherever in a step the signal comes, and whether or not it was time for a checkpoint."""
    for name, at in (("HMC", 30), ("Ensemble", 14), ("SVI", 22)):
        backend = make(name, BACKENDS[name], tmp_path / f"{name}.h5")
        with pytest.raises(KeyboardInterrupt, match="the run is saved in"):
            interrupted(monkeypatch, backend, {at})
        with checkpoint.open_hdf5(tmp_path / f"{name}.h5", checkpoint.KIND) as file:
            state, curves = checkpoint.read_json(file, "state"), checkpoint.read_json(file, "curves")
            loss = file[f"curve/{curves.index(['history', 'loss'])}"][()] if name == "SVI" else None
        assert (len(loss) if name == "SVI" else state["done"]) > 0


def test_a_second_signal_does_not_wait(monkeypatch, tmp_path):
    with pytest.raises(KeyboardInterrupt, match="there was nothing to save"):
        interrupted(monkeypatch, make("HMC", BACKENDS["HMC"], tmp_path / "run.h5"), {29}, times=2)
    saved = []
    with pytest.raises(KeyboardInterrupt), stopping.SafePoints(lambda: saved.append(1)):
        signal.raise_signal(signal.SIGINT)
        saved.append("went on")
        signal.raise_signal(signal.SIGINT)
        saved.append("not here")
    assert saved == ["went on"]


def test_a_signal_while_the_state_is_saved_ends_that_too():
    done = []

    def save():
        done.append("begun")
        signal.raise_signal(signal.SIGINT)
        done.append("ended")

    with pytest.raises(KeyboardInterrupt), stopping.SafePoints(save) as safe_point:
        signal.raise_signal(signal.SIGINT)
        safe_point()
    assert done == ["begun"]


def test_handlers_of_the_user_are_called_at_safe_points_and_the_run_goes_on(monkeypatch, tmp_path):
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        settings = BACKENDS["HMC"]
        posterior = make("HMC", settings).fit(model(), EVENTS)
        interrupted(monkeypatch, make("HMC", settings, tmp_path / "run.h5"), {29, 31, 40}, signal.SIGTERM)
        assert seen == [signal.SIGTERM] * 3
        again = make("HMC", settings, tmp_path / "run.h5").fit(model(), EVENTS)
        assert torch.equal(again.weights.arrays["draws"], posterior.weights.arrays["draws"])

        def leave(number, frame):
            raise SystemExit(7)

        signal.signal(signal.SIGTERM, leave)  # what it raises leaves the run as it is, after the state was saved
        with pytest.raises(SystemExit):
            interrupted(monkeypatch, make("HMC", settings, tmp_path / "other.h5"), {40}, signal.SIGTERM)
        assert (tmp_path / "other.h5").exists() and signal.getsignal(signal.SIGTERM) is leave
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        interrupted(monkeypatch, make("HMC", settings), {29, 31}, signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_many_samples_one_after_another_go_on_too(monkeypatch, tmp_path):
    samples = [EVENTS[:40], EVENTS]  # of two sizes, and so no batch
    backend = make("Ensemble", BACKENDS["Ensemble"], tmp_path / "run.h5")
    whole = make("Ensemble", BACKENDS["Ensemble"]).fit_many(model(), samples)
    calls, real = [], BayesianFlow._inner

    def call(*arguments):
        calls.append(None)
        if len(calls) == 60:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(BayesianFlow, "_inner", call)
        with pytest.raises(KeyboardInterrupt, match=r"saved in .*run\.1\.h5"):
            backend.fit_many(model(), samples)
    for one, other in zip(whole, backend.fit_many(model(), samples), strict=True):
        assert torch.equal(one.weights.arrays["draws"], other.weights.arrays["draws"])


def test_in_another_thread_signals_are_left_alone():
    found = []

    def work():
        found.append(make("Ensemble", BACKENDS["Ensemble"]).fit(model(), EVENTS))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(found) == 1
