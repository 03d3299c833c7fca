"""What every writer of files keeps: links, modes, other people's files; and two that write at once."""

import itertools
import os
import stat
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from killing import stopped_at

import pyrogen as pg
from pyrogen import events, files, locks
from pyrogen.diagnostics.arviz_io import write_inference_data
from pyrogen.events import EventSample, EventWriter


class Data:
    """What is written as NetCDF, without ArviZ."""

    def to_netcdf(self, path, engine):
        with open(path, "wb") as stream:
            stream.write(b"a tree")


def momenta():
    return EventSample(
        [[0.0, 0.0, 5.0, 5.0]], [f"{c}_e+" for c in ("px", "py", "pz", "E")], ["GeV"] * 4, weights=np.array([2.0])
    )


def parts(path):
    with EventWriter(path) as writer:
        writer.write(momenta())
        writer.write(momenta())


@pytest.fixture(scope="module")
def fitted():
    torch.manual_seed(0)
    model = pg.BayesianFlow(pg.CouplingFlow(2, 1, (4,)))
    return pg.SVI(epochs=1, batch_size=100, progress=False).fit(model, torch.randn(200, 2))


WRITERS = {
    "a.json": lambda path, _: files.write_bytes(path, b"{}"),
    "a.nc": lambda path, _: write_inference_data(Data(), path),
    "a.npy": lambda path, _: EventSample([[1.0]]).save(path),
    "a.lhe": lambda path, _: momenta().save(path),
    "a.lhe.gz": lambda path, _: parts(path),
    "a.root": lambda path, _: parts(path),
    "a.h5": lambda path, _: parts(path),
    "append.h5": lambda path, _: events.append(momenta(), path),
    "posterior.h5": lambda path, fitted: fitted.save(path),
    "generated.h5": lambda path, fitted: fitted.generate_to(path, 5, 2, progress=False),
    "checkpoint.h5": lambda path, fitted: pg.SVI(epochs=1, batch_size=100, progress=False, checkpoint=path).fit(
        fitted.model, torch.randn(100, 2, generator=torch.Generator().manual_seed(1))
    ),
}


@pytest.fixture(params=WRITERS)
def name(request):
    return request.param


@pytest.fixture
def write(name, fitted):
    return lambda path: WRITERS[name](path, fitted)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_link_stays_and_its_file_is_written(write, name, tmp_path):
    there = tmp_path / "there"
    there.mkdir()
    link, old = tmp_path / name, there / f"real.{name}"
    link.symlink_to(old.relative_to(tmp_path))
    write(link)  # which leads nowhere yet
    assert link.is_symlink() and old.is_file() and not old.is_symlink() and os.listdir(there) == [old.name]
    first = old.stat().st_ino
    if name != "checkpoint.h5":  # a finished run is not written again
        write(link)
        assert link.is_symlink() and old.stat().st_ino != first
    assert sorted(os.listdir(tmp_path)) == sorted([name, "there"]) and os.listdir(there) == [old.name]


def test_modes_are_those_of_the_old_file_or_of_the_umask(write, name, tmp_path):
    path, before = tmp_path / name, os.umask(0o027)
    try:
        write(path)
        assert mode(path) == 0o640
        if name != "checkpoint.h5":
            path.chmod(0o606)
            write(path)
            assert mode(path) == 0o606
    finally:
        os.umask(before)


def test_names_that_mean_something_elsewhere(write, name, tmp_path):
    """Brackets, stars and colons; what a killed writer left behind is removed, what belongs to another name is not."""
    path = tmp_path / f"[a]*? b:{name}"
    leftover = tmp_path / f".{path.name}.0123456789abcdef.tmp"
    others = [f".{path.name}.more.0123456789abcdef.tmp", f".{path.name}.tmp", f".{path.name}.lock.tmp"]
    for file in (leftover, *(tmp_path / other for other in others)):
        file.touch()
    files.check_writable(path)
    write(path)
    assert sorted(os.listdir(tmp_path)) == sorted([path.name, *others])


def test_what_is_no_file_or_read_only_is_not_replaced(write, name, tmp_path, monkeypatch):
    pipe = tmp_path / name
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="cannot write .*it is a device or a pipe"):
        write(pipe)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    pipe.unlink()
    pipe.mkdir()
    with pytest.raises(IsADirectoryError, match="is a folder; give the name of a file in it"):
        write(pipe)
    with pytest.raises(FileNotFoundError, match="cannot write .*does not exist; create it first"):
        write(tmp_path / "missing" / name)
    pipe.rmdir()
    pipe.write_text("precious")
    monkeypatch.setattr(os, "access", lambda path, how: False)  # the rights of a superuser know no read-only file
    with pytest.raises(PermissionError, match="cannot write .*the file is read-only; allow writing"):
        write(pipe)
    assert pipe.read_text() == "precious" and os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "generated.h5"])  # which has its own test
@pytest.mark.parametrize(("how", "stride"), [("kill", 1), ("interrupt", 2)])
def test_stopped_at_any_step_a_file_is_the_old_or_the_new_one(write, name, tmp_path, how, stride):
    path = tmp_path / name
    write(path)
    old = path.read_bytes()
    if name == "checkpoint.h5":
        path.unlink()  # a finished run is not written again
    for step in itertools.count(stride, stride):
        stopped = stopped_at(step, lambda: write(path), tmp_path, how)
        assert path.exists() or name == "checkpoint.h5"
        files.check_writable(path)
        assert set(os.listdir(tmp_path)) <= {name, f".{name}.run.lock"}  # all else is gone
        if path.exists() and (new := path.read_bytes()) != old:
            assert abs(len(new) - len(old)) < 0.1 * len(old)  # the new file, and no piece of it
            break
        if not stopped:
            break
    assert step > 5
    write(path)
    assert os.listdir(tmp_path) == [name]


def test_a_read_only_folder_is_told_before_the_work(tmp_path):
    path, (inward, outward) = tmp_path / "closed" / "a.h5", os.pipe()
    path.parent.mkdir()
    path.parent.chmod(0o555)

    def try_to_write(_):
        if os.getuid() == 0:  # who may write anywhere
            os.setgid(65534)
            os.setuid(65534)
        for write in (files.check_writable, lambda path: files.write_bytes(path, b"")):
            try:
                write(path)
            except OSError as error:
                os.write(outward, f"{error}\n".encode())

    assert forked(try_to_write, 1) == [0]
    os.close(outward)
    with open(inward) as told:
        lines = told.read().splitlines()
    assert len(lines) == 2 and all(f"cannot write {path}: Permission denied" in line for line in lines), lines


@pytest.mark.parametrize("end", [".h5", ".lhe", ".lhe.gz", ".npy"])
def test_the_same_events_give_the_same_bits_at_any_time_under_any_name(tmp_path, monkeypatch, end):
    sample = momenta() if "lhe" in end else EventSample([[1.0, 2.0]])
    found = []
    for name, now in (("a", 1.5e9), ("other", 1.6e9)):
        monkeypatch.setattr("time.time", lambda now=now: now)
        sample.save(tmp_path / f"{name}{end}")
        found.append((tmp_path / f"{name}{end}").read_bytes())
    assert found[0] == found[1]


def test_the_same_events_give_the_same_numbers_in_root(tmp_path):
    for name in ("a.root", "b.root"):
        momenta().save(tmp_path / name)
    first, second = (events.read(tmp_path / name) for name in ("a.root", "b.root"))
    assert first.values.tobytes() == second.values.tobytes() and first.provenance == second.provenance


def test_a_new_working_folder_changes_nothing(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    momenta().save(tmp_path / "old.h5")
    monkeypatch.chdir(tmp_path)
    writers = [EventWriter("new.h5"), EventWriter("old.h5", append=True), EventWriter("a.root")]
    for writer in writers:
        with writer:
            os.chdir(tmp_path / "there")
            writer.write(momenta())
    os.chdir(tmp_path)
    with files.replacing("a.json") as temporary:
        os.chdir(tmp_path / "there")
        temporary.write_text("{}")
    assert os.listdir(tmp_path / "there") == [] and len(events.read(tmp_path / "old.h5")) == 2
    assert sorted(os.listdir(tmp_path)) == ["a.json", "a.root", "new.h5", "old.h5", "there"]


def test_a_checkpoint_stays_where_it_was_named(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    checked = pg.SVI.checked

    def leave(self, *arguments):
        os.chdir(tmp_path / "there")
        return checked(self, *arguments)

    monkeypatch.setattr(pg.SVI, "checked", leave)
    svi = pg.SVI(epochs=1, batch_size=50, progress=False, checkpoint="run.h5")
    svi.fit(pg.BayesianFlow(pg.CouplingFlow(2, 1, (4,))), torch.randn(100, 2))
    assert sorted(os.listdir(tmp_path)) == ["run.h5", "there"] and os.listdir(tmp_path / "there") == []


def test_two_trainings_with_one_checkpoint_are_told(tmp_path, monkeypatch):
    model, x, path = pg.BayesianFlow(pg.CouplingFlow(2, 1, (4,))), torch.randn(100, 2), tmp_path / "run.h5"
    svi = pg.SVI(epochs=1, batch_size=50, progress=False, checkpoint=path)
    (tmp_path / "link.h5").symlink_to(path)
    with locks.running(path, "train"), ThreadPoolExecutor(1) as pool:
        for checkpoint in (path, tmp_path / "link.h5"):
            other = pg.SVI(epochs=1, batch_size=50, progress=False, checkpoint=checkpoint)
            for fit in (lambda s: s.fit(model, x), lambda s: s.fit_many(model, [x, x])):
                with pytest.raises(
                    pg.PathInUseError, match=rf"run.h5: process {os.getpid()} on .* is doing so. Wait until it ends"
                ):
                    pool.submit(fit, other).result()
    svi.fit(model, x)
    assert sorted(os.listdir(tmp_path)) == ["link.h5", "run.h5"]


def forked(work, count):
    """Do some work in several processes at once."""
    children = []
    for i in range(count):
        child = os.fork()
        if not child:
            code = 1
            try:
                work(i)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def test_events_that_many_append_at_once_are_all_there(tmp_path):
    """To a file that is missing at the beginning, from processes and threads."""
    path = tmp_path / "a.h5"

    def add(i):
        for k in range(4):
            events.append(EventSample([[10.0 * i + k]]), path)

    assert forked(add, 4) == [0] * 4
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(4, 8)))
    assert sorted(events.read(path).values[:, 0]) == [10.0 * i + k for i in range(8) for k in range(4)]
    assert os.listdir(tmp_path) == ["a.h5"]


def test_nobody_removes_what_a_living_process_writes(tmp_path, monkeypatch):
    """Its number says nothing: in another container, or on another machine, there is no process of that number."""
    path = tmp_path / "a.h5"
    with monkeypatch.context() as patch, EventWriter(path) as writer:
        patch.setattr(os, "getpid", lambda: 2**22 + 1)
        writer.write(momenta())
        patch.undo()
        assert forked(lambda _: files.check_writable(path), 1) == [0]
        assert forked(lambda _: momenta().save(path), 1) == [0]
        patch.setattr(os, "getpid", lambda: 2**22 + 1)
        writer.write(momenta())
    assert len(events.read(path)) == 2


def test_a_lock_ends_with_its_process_and_is_told_while_it_lasts(tmp_path, monkeypatch):
    path = tmp_path / "a.h5"
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        with locks.writing(path, alone=True):
            os.write(ready[1], b"x")
            os.read(go[0], 1)
            os._exit(9)  # as a kill does
    os.read(ready[0], 1)
    monkeypatch.setattr(locks, "PATIENCE", 0.3)
    monkeypatch.setattr(locks, "_QUIET", 0.1)
    with (
        pytest.warns(UserWarning, match=rf"waiting to write .*a.h5, until process {child} on .* is done"),
        pytest.raises(
            pg.PathInUseError, match=rf"cannot write .*a.h5: process {child} on .* is doing so. Wait until it ends"
        ),
    ):
        momenta().save(path)
    os.write(go[1], b"x")
    os.waitpid(child, 0)
    assert os.listdir(tmp_path) == [".a.h5.lock"]
    momenta().save(path)
    assert os.listdir(tmp_path) == ["a.h5"]
    for end in (*ready, *go):
        os.close(end)


def test_a_lock_file_that_its_holder_removed_is_no_lock(tmp_path, monkeypatch):
    """Others would lock the next one of its name."""
    path, lock, take, calls = tmp_path / "a.h5", tmp_path / ".a.h5.lock", locks.fcntl.flock, []

    def removed_meanwhile(descriptor, how):
        calls.append(how)
        if len(calls) == 1:
            lock.unlink()
        take(descriptor, how)

    monkeypatch.setattr(locks.fcntl, "flock", removed_meanwhile)
    with locks.writing(path, alone=True), locks.unless_written(path) as free:
        assert not free and lock.exists()
    assert os.listdir(tmp_path) == []


def test_locks_keep_writers_apart(tmp_path):
    """Many threads take and leave one lock; never are two inside, and never is one inside beside those that share."""
    path, inside, worst = tmp_path / "a.h5", [], []

    def visit(i):
        for _ in range(10):
            with locks.writing(path, alone=i % 2 == 0):
                inside.append(i % 2)
                worst.append(0 in inside and len(inside) > 1)
                inside.remove(i % 2)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(visit, range(6)))
    assert len(worst) == 60 and not any(worst) and os.listdir(tmp_path) == []


def test_without_locks_files_are_written_and_nothing_is_removed(tmp_path, monkeypatch):
    def unknown(*_):
        raise OSError(95, "Operation not supported")

    leftover = tmp_path / ".a.h5.0123456789abcdef.tmp"
    leftover.touch()
    for patch in (
        lambda: monkeypatch.setattr(locks.fcntl, "flock", unknown),
        lambda: monkeypatch.setattr(locks, "fcntl", None),
    ):
        patch()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            momenta().save(tmp_path / "a.h5")
            events.append(momenta(), tmp_path / "a.h5")
            with locks.running(tmp_path / "a.h5", "train"):
                pass
        assert len(events.read(tmp_path / "a.h5")) == 2
        assert sorted(os.listdir(tmp_path)) == [leftover.name, "a.h5"]
