"""An interrupt, or any other exception, in the middle of writing events: it is raised, and the old file stays."""

import os
import signal
import subprocess
import sys
import threading
import time

import h5py
import numpy as np
import pytest

from pyrogen import events
from pyrogen.events import EventSample, EventWriter
from pyrogen.hdf5 import disk


def sample(n=3000, seed=0, **more):
    return EventSample(np.random.default_rng(seed).normal(size=(n, 3)), weights=np.ones(n), **more)


def write(path, how):
    """A file of 2 parts, in one of the ways of writing; the old file has 100 events."""
    layout = {"layout": "rows"} if how == "rows" else {}
    with EventWriter(path, append=how == "append", **layout) as writer:
        for seed in (1, 2):
            writer.write(sample(seed=seed))


class Faulty:
    """The disk of a file, which does something at one of its calls."""

    def __init__(self, monkeypatch, act, at=None):
        self.calls, self.act, self.at, outer = 0, act, at, self
        real = {name: getattr(disk.Disk, name) for name in ("write", "truncate", "readinto", "seek")}

        class Raw:
            """What the disk writes to."""

            def __init__(self, raw):
                self.raw = raw

            def __getattr__(self, name):
                found = getattr(self.raw, name)
                if name not in real:
                    return found

                def call(*arguments):
                    outer.calls += 1
                    if outer.calls == outer.at:
                        outer.act()
                    return found(*arguments)

                return call

        init = disk.Disk.__init__
        monkeypatch.setattr(disk.Disk, "__init__", lambda self, raw: init(self, Raw(raw)))


def interrupt():
    raise KeyboardInterrupt


def out_of_memory():
    raise MemoryError("no memory")


def ctrl_c():
    signal.raise_signal(signal.SIGINT)


ACTS = [interrupt, out_of_memory, ctrl_c]


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
@pytest.mark.parametrize("how", ["columns", "rows", "append"])
def test_an_exception_at_any_call_of_hdf5_is_raised_and_the_old_file_stays(monkeypatch, tmp_path, how, act):
    """In a callback of HDF5 it would be dropped, and the file would have a piece of zeros."""
    path = tmp_path / "a.h5"
    sample(100).save(path, **({"layout": "rows"} if how == "rows" else {}))
    old = path.read_bytes()
    with monkeypatch.context() as patch:
        count = Faulty(patch, act)
        write(tmp_path / "b.h5", "rows" if how == "rows" else "columns")
    assert count.calls > 20
    handler = signal.getsignal(signal.SIGINT)
    expected = MemoryError if act is out_of_memory else KeyboardInterrupt
    for at in range(1 + ACTS.index(act), count.calls + 1, len(ACTS)):  # together they take every call
        with monkeypatch.context() as patch:
            faulty = Faulty(patch, act, at)
            try:
                write(path, how)
            except expected:
                assert path.read_bytes() == old and sorted(os.listdir(tmp_path)) == ["a.h5", "b.h5"]
            else:
                assert faulty.calls < at  # there were fewer calls than in the other file
                path.write_bytes(old)
        assert signal.getsignal(signal.SIGINT) is handler


OPENING = """
import sys
import pytest
from test_interrupts import Faulty, interrupt, sample, write
sample(100).save(sys.argv[1])
for how in ("rows", "append"):
    for at in (1, 2, 3):
        with pytest.MonkeyPatch.context() as patch:
            try:
                Faulty(patch, interrupt, at)
                write(sys.argv[1], how)
            except KeyboardInterrupt as error:
                kept = error
"""


def test_after_an_interrupt_while_a_file_is_opened_the_process_ends_well(tmp_path):
    """It crashed at its end if objects of h5py were still alive then."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *filter(None, sys.path)])}
    command = [sys.executable, "-c", OPENING, tmp_path / "a.h5"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0 and not done.stderr, done.stderr


@pytest.mark.parametrize("how", ["columns", "rows", "append"])
def test_what_does_not_read_back_is_no_file(monkeypatch, tmp_path, how):
    """Rows that HDF5 did not write read as zeros, and no checksum of its own tells."""
    path = tmp_path / "a.h5"
    sample(100).save(path)
    old = path.read_bytes()
    real, calls = h5py.Dataset.__setitem__, []

    def forgetful(dataset, rows, values):
        calls.append(dataset.name)
        if len(calls) != 4:
            real(dataset, rows, values)

    monkeypatch.setattr(h5py.Dataset, "__setitem__", forgetful)
    if how == "rows":
        told = pytest.raises(
            OSError, match=r"cannot write .*a\.h5: rows 0 to 11999 of /events do not read back as they"
        )
        with told, EventWriter(path, layout="rows") as writer:
            for _ in range(4):
                writer.write(sample())
    else:
        first, last = (100, 6099) if how == "append" else (0, 5999)
        with pytest.raises(OSError, match=rf"a\.h5: rows {first} to {last} of /weights do not .* is unchanged"):
            write(path, how)
    assert len(calls) > 3 and path.read_bytes() == old and os.listdir(tmp_path) == ["a.h5"]


def test_signals_wait_only_in_the_block_and_only_in_the_main_thread():
    seen = []
    before = signal.signal(signal.SIGUSR1, lambda *_: seen.append("handled"))
    try:
        with disk.uninterrupted():
            signal.raise_signal(signal.SIGUSR1)
            assert seen == []
            with disk.uninterrupted():
                signal.raise_signal(signal.SIGUSR1)
            assert seen == []
        assert seen == ["handled", "handled"]

        def elsewhere():
            with disk.uninterrupted():
                seen.append("elsewhere")

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert seen[-1] == "elsewhere"
        with pytest.raises(KeyboardInterrupt), disk.uninterrupted():
            signal.raise_signal(signal.SIGINT)
            seen.append("to the end")
        assert seen[-1] == "to the end"
    finally:
        signal.signal(signal.SIGUSR1, before)


SCRIPT = """
import os, sys
import numpy as np
from pyrogen.events import EventSample, EventWriter
values = np.random.default_rng(1).normal(size=(60_000, 6))
for path in sys.argv[1:]:  # a process for each, which begins here, where all is imported, and ends as the script does
    child = os.fork()
    if child == 0:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    sys.exit()
os.dup2(os.open(path + ".told", os.O_CREAT | os.O_WRONLY), 2)
print(os.getpid(), flush=True)
with EventWriter(path) as writer:
    for _ in range(40):
        writer.write(EventSample(values, log_weights=values))
print("whole", flush=True)
"""


def test_ctrl_c_ends_a_script_and_leaves_the_old_file(tmp_path):
    paths = {delay: tmp_path / f"{delay}" / "a.h5" for delay in (0.02, 0.1, 0.25, 0.5)}
    for path in paths.values():
        path.parent.mkdir()
        sample(100).save(path)
    old = path.read_bytes()
    command = [sys.executable, "-c", SCRIPT, *map(str, paths.values())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for delay, path in paths.items():
            child = int(process.stdout.readline())
            time.sleep(delay)
            os.kill(child, signal.SIGINT)
            ended, told = process.stdout.readline(), path.with_name("a.h5.told")
            assert ended in (f"{-signal.SIGINT}\n", "1\n"), ended  # and not that the file is whole
            error = told.read_text()
            told.unlink()
            assert "Exception ignored" not in error and error.rstrip().endswith("KeyboardInterrupt"), error
            assert path.read_bytes() == old and os.listdir(path.parent) == ["a.h5"]
            assert len(events.read(path)) == 100
    assert process.returncode == 0
