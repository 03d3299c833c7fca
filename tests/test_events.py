"""EventSample, its files, the committed Drell-Yan sample and the generator behind it."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from pyrogen import events
from pyrogen.events import EventSample, check_events, check_weights
from pyrogen.files import FileFormatError
from pyrogen.hdf5 import Kind, write_hdf5

COMMITTED = Path(__file__).parents[1] / "examples" / "data" / "drell_yan_5k.h5"
EXACT = ("values", "weights", "uncertainties", "names", "units", "provenance")


def make_sample(n: int = 50, weighted: bool = True) -> EventSample:
    generator = np.random.default_rng(3)
    return EventSample(
        generator.normal(size=(n, 3)) * [1.0, 1e3, 1e-3],
        names=("pT", "η", "m"),
        units=("GeV", "", "GeV"),
        weights=generator.normal(1.0, 1.0, size=n) if weighted else None,
        uncertainties=generator.exponential(size=n) if weighted else None,
        provenance={"generator": "numpy", "seed": 3, "cuts": ["pT > 0", None], "nested": {"x": 0.1}},
    )


def assert_same(a: EventSample, b: EventSample) -> None:
    for name in EXACT:
        left, right = getattr(a, name), getattr(b, name)
        if isinstance(left, np.ndarray):
            assert left.dtype == right.dtype == np.float64 and left.tobytes() == right.tobytes(), name
        else:
            assert left == right, name


# --- the sample -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor, lambda x: torch.tensor(x, dtype=torch.bfloat16)])
def test_takes_lists_arrays_and_tensors(kind):
    sample = EventSample(kind([[1, 2], [3, 4]]))
    assert sample.values.dtype == np.float64 and sample.values.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert (len(sample), sample.features, sample.names, sample.units) == (2, 2, ("x0", "x1"), ("", ""))
    assert EventSample(kind([1, 2, 3, 4])).values.shape == (4, 1)
    assert len(EventSample(torch.ones(2, 2, requires_grad=True))) == 2


def test_is_a_read_only_copy():
    values, provenance = np.zeros((3, 2)), {"list": [1]}
    sample = EventSample(values, provenance=provenance)
    values[0, 0], provenance["list"][0] = 7.0, 7
    assert sample.values[0, 0] == 0.0 and sample.provenance == {"list": [1]}
    with pytest.raises(ValueError, match="read-only"):
        sample.values[0, 0] = 1.0
    with pytest.raises(AttributeError, match="cannot assign to field 'values'"):
        sample.values = values


def test_column_by_name_and_index():
    sample = make_sample()
    assert np.array_equal(sample.column("η"), sample.values[:, 1])
    assert np.array_equal(sample.column(-1), sample.values[:, 2])
    for missing in ("eta", 3, -4):
        with pytest.raises(ValueError, match=f"no column {missing!r}; the 3 columns are pT, η, m"):
            sample.column(missing)


@pytest.mark.parametrize("selection", [slice(2, 9, 3), np.arange(50) % 2 == 0, [4, 1, 1, -1], torch.tensor([5, 7])])
def test_selection_keeps_all_that_belongs_to_the_events(selection):
    sample = make_sample()
    selected = sample[selection]
    rows = np.arange(50)[selection]
    for name in ("values", "weights", "uncertainties"):
        assert np.array_equal(getattr(selected, name), getattr(sample, name)[rows])
    for name in ("names", "units", "provenance"):
        assert getattr(selected, name) == getattr(sample, name)


def test_selections_that_are_none():
    sample = make_sample()
    for selection in (3, "pT", (slice(None), 0)):
        with pytest.raises(TypeError, match="indexed by a slice, a boolean mask or an array of row numbers"):
            sample[selection]
    with pytest.raises(TypeError, match="row numbers must be integers and masks booleans; got float64"):
        sample[[0.5]]
    for empty in ([], slice(0, 0), np.zeros(50, dtype=bool)):
        with pytest.raises(ValueError, match=r"empty sample, there is no event in it \(shape \[0, 3\]\)"):
            sample[empty]


def test_weights_and_their_effective_size():
    sample = EventSample([1.0, 2.0, 3.0], weights=[2.0, -1.0, 2.0])
    assert sample.total_weight == 3.0
    assert sample.effective_size == 1.0  # 3² / (4 + 1 + 4)
    assert EventSample([1.0, 2.0]).total_weight == EventSample([1.0, 2.0]).effective_size == 2.0


def test_tensor_and_text():
    sample = make_sample()
    assert sample.tensor().dtype == torch.get_default_dtype()
    assert np.array_equal(sample.tensor(torch.float64).numpy(), sample.values)
    assert repr(sample) == "EventSample(50 events; pT [GeV], η, m [GeV]; weights; uncertainties)"
    lines = sample.summary().splitlines()
    assert lines[0].startswith("50 events, total weight ") and len(lines) == 5
    assert f"{sample.column('pT').mean():.4g}" in lines[2]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"values": np.zeros((2, 3, 4))}, ValueError, r"must have shape \[N, d\].*got shape \[2, 3, 4\]"),
        ({"values": np.zeros((0, 3))}, ValueError, "events: empty sample"),
        ({"values": []}, ValueError, "events: empty sample"),
        ({"values": np.zeros((3, 0))}, ValueError, r"at least one column; got shape \[3, 0\]"),
        ({"values": [[1.0], [1.0, 2.0]]}, ValueError, "events must be a table with rows of one length"),
        ({"values": ["1.0", "2.0"]}, TypeError, "events must be real numbers; got <U3"),
        ({"values": np.ones(3, dtype=complex)}, TypeError, "events must be real numbers; got complex128"),
        ({"names": ("a",)}, ValueError, "names must be one string for each of the 2 columns; got 1"),
        ({"names": "ab"}, TypeError, "names must be a sequence of 2 strings; got 'ab'"),
        ({"names": ("a", "a")}, ValueError, "names must differ from each other; repeated: a"),
        ({"units": ("", 1)}, TypeError, "units must be a sequence of 2 strings"),
        ({"weights": [1.0]}, ValueError, r"weights must hold one number per event, shape \[3\].*\[1\]"),
        (
            {"weights": [1.0, np.nan, 1.0]},
            ValueError,
            "weights: 1 of 3 are NaN .* the first is nan at event 1",
        ),
        ({"weights": [1.0, -1.0, 0.0]}, ValueError, "sum of the weights must be positive; it is 0 over 3"),
        ({"weights": [1.0, -3.0, 0.0]}, ValueError, "sum of the weights must be positive; it is -2 over 3"),
        (
            {"uncertainties": [0.1, -0.1, 0.1]},
            ValueError,
            "not be negative; 1 are, the first is -0.1 at event 1",
        ),
        ({"uncertainties": [0.1, 0.1, np.inf]}, ValueError, "uncertainties: 1 of 3 are NaN or infinite"),
        ({"provenance": {"x": np.zeros(2)}}, TypeError, "provenance must be plain enough for JSON"),
        ({"provenance": "Pythia"}, TypeError, "provenance must be a dict; got str"),
    ],
)
def test_construction_errors(arguments, error, message):
    with pytest.raises(error, match=message):
        EventSample(**{"values": np.ones((3, 2)), **arguments})


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_checks_say_how_many_rows_and_where(kind):
    values = np.zeros((10, 3))
    values[4, 2], values[4, 1], values[7, 0] = np.nan, -np.inf, np.inf
    message = r"events: 2 of 10 rows hold NaN or infinity; the first is row 4, column 1 \({}\): -inf"
    with pytest.raises(ValueError, match=message.format("x1")):
        EventSample(kind(values))
    with pytest.raises(ValueError, match=message.format("py")):
        EventSample(kind(values), names=("px", "py", "pz"))
    with pytest.raises(ValueError, match="probes: 2 of 10 rows .* the first is row 4, column 1: -inf"):
        check_events(kind(values), what="probes")
    with pytest.raises(ValueError, match=r"events must have 2 columns; got 3 \(shape \[10, 3\]\)"):
        check_events(kind(values), features=2)
    with pytest.raises(ValueError, match=r"must have shape \[N, d\]"):
        check_events(kind(values[0]))
    with pytest.raises(ValueError, match="sum of the weights must be positive; it is 0 over 3"):
        check_weights(kind([0.0, 0.0, 0.0]), 3)
    check_events(kind(values[:4]), features=3)
    check_weights(kind([2.0, -1.0, 0.0]), 3)


# --- files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("suffix", [".h5", ".hdf5", ".H5"])
def test_hdf5_keeps_every_bit(tmp_path, suffix, weighted):
    sample = make_sample(weighted=weighted)
    sample.save(tmp_path / f"events{suffix}")
    assert_same(events.read(tmp_path / f"events{suffix}"), sample)


def test_npy_keeps_the_values(tmp_path):
    sample = make_sample(weighted=False)
    events.write(sample, tmp_path / "events.npy")
    again = events.read(tmp_path / "events.npy")
    assert again.values.tobytes() == sample.values.tobytes()
    assert again.provenance == {"file": "events.npy"}
    with pytest.raises(ValueError, match=r"npy would lose the weights and uncertainties; write .*\.h5"):
        make_sample().save(tmp_path / "weighted.npy")
    assert not (tmp_path / "weighted.npy").exists()


def test_suffixes_and_choices_that_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read .*unknown suffix '\.txt'; pyrogen can read .*\.h5, .*\.lhe\.gz"):
        events.read(tmp_path / "a.txt")
    for suffix, message in ((".h5", "a pyrogen file with one sample"), (".npy", "is no HDF5 or ROOT file")):
        make_sample(weighted=False).save(tmp_path / f"a{suffix}")
        with pytest.raises(ValueError, match=f"{message}; leave out dataset='values'"):
            events.read(tmp_path / f"a{suffix}", dataset="values")
    with pytest.raises(ValueError, match=r"unknown suffix '\.csv'; pyrogen can write .*\.h5, \.hdf5, .*\.npy"):
        make_sample().save(tmp_path / "a.csv")


@pytest.mark.parametrize("suffix", [".h5", ".npy"])
def test_missing_truncated_and_foreign_files(tmp_path, suffix):
    path = tmp_path / f"events{suffix}"
    with pytest.raises(FileNotFoundError, match=f"no such file: .*events{suffix}"):
        events.read(path)
    make_sample(weighted=False).save(path)
    whole = path.read_bytes()
    lengths = (0, 1, 100, len(whole) // 2, len(whole) - 1)
    for content in (b"px py pz\n1 2 3\n", *(whole[:length] for length in lengths)):
        path.write_bytes(content)
        with pytest.raises(FileFormatError, match=rf"events\{suffix} is (empty|not a whole)"):
            events.read(path)


def test_damaged_values_are_noticed(tmp_path):
    path = tmp_path / "events.h5"
    make_sample(2000).save(path)
    with h5py.File(path) as file:
        assert file["values"].compression == "gzip" and file["values"].fletcher32
        chunk = file["values"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset + chunk.size // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"events\.h5 is damaged or incomplete"):
        events.read(path)


def test_never_unpickles(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([print, None]), allow_pickle=True)
    with pytest.raises(FileFormatError, match="not a whole .npy file of numbers: .*Python objects"):
        events.read(tmp_path / "objects.npy")


def test_other_kind_newer_version_and_missing_parts(tmp_path):
    path = tmp_path / "file.h5"
    write_hdf5(path, Kind("posterior", 1, 1), lambda file: None)
    with pytest.raises(FileFormatError, match="is a pyrogen posterior file; expected a pyrogen events file"):
        events.read(path)
    write_hdf5(path, Kind("events", 4, 4), lambda file: None)
    with pytest.raises(FileFormatError, match="has events format version 4; this pyrogen reads versions 1 to 3"):
        events.read(path)
    write_hdf5(path, Kind("events", 1, 1), lambda file: None)
    with pytest.raises(FileFormatError, match="is damaged or incomplete"):
        events.read(path)


@pytest.mark.parametrize("suffix", [".h5", ".npy"])
@pytest.mark.parametrize("function", ["replace", "fsync"])
def test_failing_save_leaves_the_old_file(tmp_path, monkeypatch, function, suffix):
    path = tmp_path / f"events{suffix}"
    make_sample(10, weighted=False).save(path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, function, full)
    with pytest.raises(OSError, match="No space left on device; the file that was there is unchanged"):
        make_sample(20, weighted=False).save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


# --- a user's own file ------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path):
    """An open HDF5 file of the user's, and the values to put there."""
    with h5py.File(tmp_path / "own.h5", "w") as file:
        yield file, np.arange(12.0).reshape(4, 3)


def read_own(file: h5py.File, dataset: str | None = None) -> EventSample:
    path = file.filename
    file.close()
    return events.read(path, dataset)


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "u8"])
def test_one_table_of_any_name(own, dtype):
    file, values = own
    file.create_dataset("deep/down/jets", data=values.astype(dtype))
    file["title"] = "not a table"
    sample = read_own(file)
    assert np.array_equal(sample.values, values) and sample.names == ("x0", "x1", "x2")
    assert sample.weights is None
    assert sample.provenance == {"file": "own.h5", "dataset": "/deep/down/jets"}


def test_weights_next_to_the_table(own):
    file, values = own
    file["data/table"], file["data/weights"] = values, [1.0, 2.0, 3.0, -1.0]
    assert read_own(file).weights.tolist() == [1.0, 2.0, 3.0, -1.0]


def test_several_tables_need_a_name(own):
    file, values = own
    file["train"], file["more/test"], file["cube"] = values, values[:2], np.zeros((2, 2, 2))
    path = file.filename
    file.close()
    message = r'several tables; choose one with dataset="name": more/test \[2, 3\]; train \[4, 3\]'
    with pytest.raises(ValueError, match=message):
        events.read(path)
    assert len(events.read(path, dataset="more/test")) == 2
    with pytest.raises(ValueError, match=r"no dataset 'tset'; it holds cube \[2, 2, 2\]; more/test \[2, 3\]"):
        events.read(path, dataset="tset")
    with pytest.raises(ValueError, match="dataset 'cube' of .* is no table of events"):
        events.read(path, dataset="cube")


def test_group_of_columns(own):
    file, values = own
    file["tree/py"], file["tree/px"], file["tree/weight"] = values[:, 1], values[:, 0], np.ones(4)
    file["tree/index"] = np.arange(4)
    sample = read_own(file)
    assert sample.names == ("px", "py")
    assert np.array_equal(sample.values, values[:, :2]) and sample.weights.tolist() == [1.0] * 4


def test_columns_of_different_length(own):
    file, values = own
    file["a"], file["b"] = values[:, 0], values[:2, 1]
    path = file.filename
    file.close()
    with pytest.raises(ValueError, match=r"holds no table of events .*; it holds a \[4\]; b \[2\]"):
        events.read(path)
    sample = events.read(path, dataset="b")
    assert sample.names == ("b",) and sample.values.tolist() == [[1.0], [4.0]]


def test_records(own, tmp_path):
    file, values = own
    records = np.zeros(4, dtype=[("index", "i8"), ("pt", "f4"), ("p", "f8", (2,)), ("weight", "f8")])
    records["index"], records["pt"], records["p"] = np.arange(4), values[:, 0], values[:, 1:]
    records["weight"] = 2.0
    np.save(tmp_path / "own.npy", records)
    file["frame/table"] = records
    for sample in (read_own(file), events.read(tmp_path / "own.npy")):
        assert sample.names == ("pt", "p[0]", "p[1]")
        assert np.array_equal(sample.values, values) and sample.total_weight == 8.0


def test_links_out_of_the_file_are_not_followed(own, tmp_path):
    file, values = own
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["table"], other["column"] = values, values[:, 0]
    file["table"] = h5py.ExternalLink("other.h5", "/table")
    file["column"] = h5py.ExternalLink("other.h5", "/column")
    with pytest.raises(ValueError, match="holds no table of events .*; it holds no dataset at all"):
        read_own(file)


def test_own_file_with_nan_names_the_file(own):
    file, values = own
    values[2, 1] = np.nan
    file["table"] = values
    with pytest.raises(FileFormatError, match=r"own\.h5 holds no sample .*: 1 of 4 rows .* row 2, column 1"):
        read_own(file)


# --- Drell-Yan --------------------------------------------------------------------------------------------


def test_committed_drell_yan_sample():
    sample = events.read(COMMITTED)
    assert sample.names == ("px_e+", "py_e+", "pz_e+", "pz_e-") and sample.units == ("GeV",) * 4
    assert len(sample) == 5000 and sample.weights is None
    px, py, pz_positron, pz_electron = sample.values.T
    pt = np.hypot(px, py)
    energy = np.hypot(pt, pz_positron) + np.hypot(pt, pz_electron)
    mass = np.sqrt(energy**2 - (pz_positron + pz_electron) ** 2)
    assert mass.min() > 50 and (pt <= mass / 2 * (1 + 1e-9)).all()
    # Four standard deviations around what a million events gave: 91.8 % near the Z, median pT 35.6 GeV.
    assert abs(np.mean((mass > 76) & (mass < 106)) - 0.918) < 4 * np.sqrt(0.918 * 0.082 / 5000)
    assert abs(np.mean(pt < 35.6) - 0.5) < 4 * np.sqrt(0.25 / 5000)
    counts, edges = np.histogram(mass, bins=np.arange(86.0, 97.0))
    assert edges[counts.argmax()] in (90.0, 91.0)
    error = sample.provenance["cross_section_error_pb"]
    assert abs(sample.provenance["cross_section_pb"] - 1518.8) < 4 * error
    assert COMMITTED.stat().st_size < 250_000


def test_drell_yan_is_reproducible_and_silent(capfd):
    pytest.importorskip("pythia8mc", reason='needs pip install "pyrogen[pythia]"')
    first = events.drell_yan(100, seed=5, progress=False)
    assert capfd.readouterr() == ("", "")
    assert_same(first, events.drell_yan(100, seed=5, progress=False))
    assert not np.array_equal(first.values, events.drell_yan(100, seed=6, progress=False).values)

    committed = events.read(COMMITTED)
    again = events.drell_yan(100, seed=committed.provenance["seed"], progress=False)
    assert again.provenance["settings"] == committed.provenance["settings"]
    # Not bit for bit: another mathematics library may round the last digit in another way.
    np.testing.assert_allclose(again.values, committed.values[:100], rtol=1e-9, atol=1e-9)


def test_drell_yan_arguments(monkeypatch):
    for n in (0, -1):
        with pytest.raises(ValueError, match=f"n is {n}; it must be a whole number of at least 1"):
            events.drell_yan(n)
    with pytest.raises(ValueError, match="seed is 0; it must be a whole number of at least 1"):
        events.drell_yan(1, seed=0)
    with pytest.raises(ValueError, match="seed is 900000001; it must be at most 900000000"):
        events.drell_yan(1, seed=900_000_001)
    monkeypatch.setitem(sys.modules, "pythia8mc", None)
    with pytest.raises(ImportError, match=r'pip install "pyrogen\[pythia\]"'):
        events.drell_yan(1)
