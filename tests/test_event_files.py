"""Files of events part by part, in HDF5 and numpy's format: streams, writers, what is kept and what is refused."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal

import h5py
import numpy as np
import pandas
import pytest
from killing import forked
from test_events import COMMITTED, make_sample

from pyrogen import events
from pyrogen.events import EventSample, EventWriter
from pyrogen.files import FileFormatError
from pyrogen.locks import PathInUseError

EXACT = ("values", "weights", "uncertainties", "log_weights", "names", "units", "provenance")
FULL = [("a.h5", "columns"), ("a.hdf5", "rows"), ("a.root", None)]


def full_sample(n: int = 50, draws: int = 3, seed: int = 0) -> EventSample:
    """A sample with all that one can have, infinities among the log weights."""
    base, rng = make_sample(n), np.random.default_rng(seed)
    log_weights = rng.normal(size=(n, draws))
    log_weights[1, 0] = -np.inf
    # The total is positive, that of the first events is not.
    weights = np.where(np.arange(n) < 5, -0.1, base.weights + 1)
    return EventSample(
        base.values + seed,
        base.names,
        base.units,
        weights,
        base.uncertainties,
        base.provenance,
        log_weights=log_weights,
    )


def assert_same(a: EventSample, b: EventSample) -> None:
    for name in EXACT:
        left, right = getattr(a, name), getattr(b, name)
        if isinstance(left, np.ndarray):
            assert left.dtype == right.dtype == np.float64 and left.tobytes() == right.tobytes(), name
        else:
            assert left == right, name


def split(sample: EventSample) -> list[EventSample]:
    """Parts of which the first has no positive sum of weights."""
    pieces = []
    for first, last in ((0, 5), (5, 30), (30, len(sample))):
        extras = {name: getattr(sample, name)[first:last] for name in ("weights", "uncertainties", "log_weights")}
        labels = {name: getattr(sample, name) for name in ("names", "units", "provenance")}
        pieces.append(EventSample(sample.values[first:last], **labels, **extras, part=first))
    return pieces


# --- streams ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "layout"), FULL)
def test_everything_comes_back_whole_and_in_parts(tmp_path, name, layout):
    sample = full_sample()
    events.write(sample, tmp_path / name, layout=layout)
    assert_same(events.read(tmp_path / name), sample)
    for chunk in (1, 7, 25, 50, 1000):
        parts = list(events.stream(tmp_path / name, chunk=chunk))
        assert [len(part) for part in parts[:-1]] == [chunk] * (len(parts) - 1) and len(parts) == -(-50 // chunk)
        assert [part.part for part in parts] == list(range(0, 50, chunk))
        assert_same(EventSample.concatenate(parts), sample)
    chosen = events.read(tmp_path / name, columns=["m", "pT"])
    assert_same(chosen, sample.select(["m", "pT"]))
    with pytest.raises(ValueError, match=rf"{name} has no column 'eta'.*pT, η, m"):
        events.read(tmp_path / name, columns=["eta"])


def tables(path, name):
    """The same foreign table in every shape that is read, of 20 events."""
    rng = np.random.default_rng(1)
    values, weights = rng.normal(size=(20, 2)), rng.normal(1.0, 1.0, size=20)
    if name in ("plain.npy", "fortran.npy"):
        np.save(path, values if name == "plain.npy" else np.asfortranarray(values))
        return values, None
    with h5py.File(path, "w") as file:
        if name == "table.h5":
            file["deep/table"], file["deep/weight"] = values, weights
        elif name == "columns.h5":
            file["x1"], file["x0"], file["weights"] = values[:, 1], values[:, 0], weights
        else:
            records = np.zeros(20, [("index", "i8"), ("x0", "f8"), ("x1", "f8"), ("weight", "f8")])
            records["x0"], records["x1"], records["weight"] = *values.T, weights
            file["records"] = records
    return values, weights


@pytest.mark.parametrize("name", ["plain.npy", "fortran.npy", "table.h5", "columns.h5", "records.h5"])
def test_streams_of_foreign_tables(tmp_path, name):
    values, weights = tables(tmp_path / name, name)
    for chunk in (1, 3, 20):
        sample = EventSample.concatenate(events.stream(tmp_path / name, chunk=chunk))
        assert np.array_equal(sample.values, values) and sample.names == ("x0", "x1")
        assert sample.weights is None if weights is None else np.array_equal(sample.weights, weights)
        assert_same(sample, events.read(tmp_path / name))
    assert np.array_equal(events.read(tmp_path / name, columns=["x1"]).values, values[:, 1:])
    with pytest.raises(ValueError, match=rf"{name} has no column 'pt', 'eta'; its columns are x0, x1"):
        events.read(tmp_path / name, columns=["pt", "x0", "eta"])


def test_errors_count_events_in_the_file_not_in_the_part(tmp_path):
    values = np.zeros((20, 2))
    values[13, 1] = np.nan
    np.save(tmp_path / "a.npy", values)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["table"] = values
    for name in ("a.npy", "a.h5"):
        stream = events.stream(tmp_path / name, chunk=5)
        assert len(next(stream)) == len(next(stream)) == 5
        with pytest.raises(FileFormatError, match=rf"{name} holds no sample .* row 13, column 1( \(x1\))?: nan"):
            next(stream)
        assert len(events.read(tmp_path / name, columns=["x0"])) == 20  # what is left out may be anything


def test_what_only_the_whole_can_tell(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["table"], file["weight"] = np.zeros((4, 2)), [1.0, -2.0, 1.0, -1.0]
        file["other/table"], file["other/weight"] = np.zeros((4, 2)), np.ones(3)
        file["empty/table"] = np.zeros((0, 2))
    assert len(list(events.stream(tmp_path / "a.h5", dataset="table", chunk=2))) == 2
    with pytest.raises(FileFormatError, match=r"a\.h5 holds no sample .*: the sum of the weights .* is -1 over 4"):
        events.read(tmp_path / "a.h5", "table")
    with pytest.raises(FileFormatError, match="different lengths: values 4, weights 3"):
        events.read(tmp_path / "a.h5", "other/table")
    with pytest.raises(FileFormatError, match="empty sample"):
        next(events.stream(tmp_path / "a.h5", dataset="empty/table"))


def test_foreign_records_with_all_that_a_sample_has(tmp_path):
    kinds = [("pt", "f4"), ("weights", "f8"), ("uncertainty", "f8"), ("log_weight_10", "f8"), ("log_weight_2", "f8")]
    records = np.zeros(4, kinds)
    records["pt"], records["weights"], records["uncertainty"] = np.arange(4), 2.0, 0.5
    records["log_weight_10"], records["log_weight_2"] = 10.0, 2.0
    several = np.zeros(4, [("pt", "f8"), ("log_weights", "f8", (2,))])
    several["log_weights"] = [2.0, 10.0]
    for name, table in (("a.npy", records), ("b.npy", several)):
        np.save(tmp_path / name, table)
        sample = events.read(tmp_path / name)
        assert sample.names == ("pt",) and sample.log_weights.tolist() == [[2.0, 10.0]] * 4
    sample = events.read(tmp_path / "a.npy")
    assert sample.total_weight == 8.0 and sample.uncertainties.tolist() == [0.5] * 4


def test_rows_are_one_flat_table(tmp_path):
    sample = full_sample()
    events.write(sample, tmp_path / "a.h5", layout="rows")
    with h5py.File(tmp_path / "a.h5") as file:
        frame = pandas.DataFrame(file["events"][:])
        assert file["events"].maxshape == (None,) and file["events"].fletcher32
    extras = ["weight", "uncertainty", "log_weight_0", "log_weight_1", "log_weight_2"]
    assert list(frame.columns) == ["pT", "η", "m", *extras]
    assert np.array_equal(frame["log_weight_2"], sample.log_weights[:, 2])
    for name in ("weight", "index", "log_weight_3"):
        with pytest.raises(ValueError, match=f"needs the column name '{name}' .*; rename the column"):
            events.write(EventSample([1.0], names=[name]), tmp_path / "b.h5", layout="rows")
        assert not (tmp_path / "b.h5").exists()


def test_choices_that_a_format_has_no_use_for(tmp_path):
    path = tmp_path / "a.h5"
    make_sample().save(path)
    for choice in ({"particles": [11]}, {"others": "skip"}, {"missing": "skip"}):
        with pytest.raises(ValueError, match=rf"a\.h5 is no LHE file; leave out {next(iter(choice))}="):
            events.read(path, **choice)
    events.read(path, missing="error", others=None)  # asks for nothing
    with pytest.raises(ValueError, match="chunk is 0; it must be a whole number of at least 1"):
        events.stream(path, chunk=0)
    for columns in ("pT", []):
        with pytest.raises(ValueError, match="columns is .*; it must be a sequence of names"):
            events.read(path, columns=columns)
    with pytest.raises(FileNotFoundError, match="no such file: .*b.h5"):
        events.stream(tmp_path / "b.h5")
    with pytest.raises(IsADirectoryError, match="is a folder; expected a file of events"):
        events.stream((tmp_path / "c.h5").mkdir() or tmp_path / "c.h5")


# --- writers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "layout"), FULL)
def test_writer_takes_parts(tmp_path, name, layout):
    sample = full_sample()
    with EventWriter(tmp_path / name, layout=layout) as writer:
        for part in split(sample):
            writer.write(part)
            assert not (tmp_path / name).exists()
        for wrong in (make_sample(5), make_sample(5, weighted=False), sample.select(["m", "pT", "η"])):
            with pytest.raises(ValueError, match="the sample to write has .*, those before has"):
                writer.write(wrong)
    assert_same(events.read(tmp_path / name), sample)
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize(("name", "layout"), [*FULL, ("a.lhe.gz", None)])
def test_writer_that_fails_leaves_the_old_file(tmp_path, monkeypatch, name, layout):
    path, sample = tmp_path / name, EventSample(np.ones((3, 4)), [f"{c}_e+" for c in ("px", "py", "pz", "E")])
    events.write(sample, path, layout=layout)
    before = path.read_bytes()
    with pytest.raises(KeyError, match="mine"), EventWriter(path, layout=layout) as writer:
        writer.write(sample)
        raise KeyError("mine")
    with pytest.raises(FileNotFoundError, match="no such file: .*missing.h5"), EventWriter(path) as writer:
        writer.write(sample)
        writer.write(events.read(tmp_path / "missing.h5"))
    with pytest.raises(ValueError, match="nothing was written to .*: there was no sample"), EventWriter(path):
        pass
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match=rf"cannot write .*{name}: No space left on device; the file that was there is"):
        events.write(sample, path, layout=layout)
    assert path.read_bytes() == before and os.listdir(tmp_path) == [name]


def fail(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("name", ["a.h5", "a.root"])
def test_full_disk(tmp_path, name):
    path, sample = tmp_path / name, EventSample(np.random.default_rng(0).normal(size=(20_000, 3)))

    def fill(append):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails then, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
        told = pytest.raises(OSError, match="File too large; the file that was there is unchanged")
        with told, EventWriter(path, append=append) as writer:
            for _ in range(10):
                writer.write(sample)

    events.write(EventSample(np.zeros((2, 3))), path)
    for append in (True, False) if name == "a.h5" else (False,):
        assert forked(fill, append) == 0
    assert os.listdir(tmp_path) == [name] and len(events.read(path)) == 2


@pytest.mark.parametrize("append", [True, False])
def test_killed_writer_leaves_the_old_file(tmp_path, append):
    path = tmp_path / "a.h5"
    make_sample().save(path)
    before = path.read_bytes()

    def write():
        with EventWriter(path, append=append) as writer:
            writer.write(events.read(path))
            os.kill(os.getpid(), signal.SIGKILL)

    assert forked(write) == -signal.SIGKILL
    assert path.read_bytes() == before and len(os.listdir(tmp_path)) == 3  # with the lock
    make_sample().save(path)  # the next writer tidies up
    assert os.listdir(tmp_path) == ["a.h5"]


def test_an_error_that_was_caught_does_not_pass_for_success(tmp_path, monkeypatch):
    with pytest.raises(RuntimeError, match="was caught and ignored"), EventWriter(tmp_path / "a.h5") as writer:
        writer.write(make_sample())
        monkeypatch.setattr(h5py.Dataset, "resize", fail)
        with pytest.raises(OSError, match="cannot write .*nothing was written"):
            writer.write(make_sample())
    assert os.listdir(tmp_path) == []
    with pytest.raises(RuntimeError, match="within a block"):
        writer.write(make_sample())


def test_writer_arguments(tmp_path):
    for name, arguments, message in (
        ("a.npy", {}, "part by part: .npy has its size at its beginning; write .arrow"),
        ("a.root", {"append": True}, "a.root is no HDF5 file; leave out append=True"),
        (
            "a.root",
            {"layout": "rows"},
            "a.root is no HDF5 file; leave out layout='rows'; .* writing ROOT files: objects",
        ),
        ("a.h5", {"layout": "flat"}, 'layout is \'flat\'; it must be "columns" or "rows"'),
        ("a.txt", {}, "unknown suffix '.txt'"),
    ):
        with pytest.raises(ValueError, match=message):
            EventWriter(tmp_path / name, **arguments)
    with pytest.raises(ValueError, match="a.npy is no HDF5 file; leave out layout='rows'"):
        events.write(make_sample(weighted=False), tmp_path / "a.npy", layout="rows")
    with pytest.raises(FileNotFoundError, match="does not exist; create it first"):
        EventWriter(tmp_path / "no" / "a.h5")


# --- append -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["columns", "rows"])
def test_append(tmp_path, layout):
    path, samples = tmp_path / "a.h5", [full_sample(seed=seed) for seed in range(3)]
    events.write(samples[0], path, layout=layout)
    for sample in samples[1:]:
        events.append(sample, path)
    assert_same(events.read(path), EventSample.concatenate(samples))
    other = "rows" if layout == "columns" else "columns"
    with pytest.raises(ValueError, match=f"layout is '{other}'; it must be that of .*a.h5, '{layout}'"):
        EventWriter(path, layout=other, append=True)
    with pytest.raises(ValueError, match=r"the sample to write has weights and uncertainties, .*a\.h5 has"):
        events.append(make_sample(), path)
    with EventWriter(path, append=True):
        pass
    assert len(events.read(path)) == 150 and os.listdir(tmp_path) == ["a.h5"]


def test_append_creates_and_takes_early_and_no_foreign_files(tmp_path):
    events.append(make_sample(), tmp_path / "new.h5")
    assert len(events.read(tmp_path / "new.h5")) == 50
    early = shutil.copy(COMMITTED, tmp_path / "early.h5")  # its datasets can't grow
    events.append(events.read(COMMITTED)[:7], early)
    assert len(events.read(early)) == 5007 and events.read(early).provenance == events.read(COMMITTED).provenance
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["table"] = np.zeros((4, 2))
    with pytest.raises(FileFormatError, match="not one of pyrogen's"):
        events.append(EventSample(np.zeros((4, 2))), tmp_path / "foreign.h5")


def test_a_file_that_others_change_during_an_append_keeps_their_events(tmp_path):
    path, other = tmp_path / "a.h5", tmp_path / "b.h5"
    for begin in (make_sample().save, lambda path: path.unlink()):
        begin(path)
        make_sample(50).save(other)
        with pytest.raises(RuntimeError, match="somebody else changed it meanwhile; try again"):  # noqa: SIM117
            with EventWriter(path, append=True) as writer:
                writer.write(make_sample())
                other.replace(path)  # which knows no locks
        assert len(events.read(path)) == 50 and os.listdir(tmp_path) == ["a.h5"]
    with pytest.raises(PathInUseError, match="cannot write .*a.h5: this thread is still doing so in an outer block"):  # noqa: SIM117
        with EventWriter(path, append=True) as writer:
            writer.write(make_sample())
            events.append(make_sample(), path)
    assert len(events.read(path)) == 50 and os.listdir(tmp_path) == ["a.h5"]
