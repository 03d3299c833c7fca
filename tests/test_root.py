"""ROOT files: trees of other programs, what can't be a column, and files that are broken; see also test_event_files."""

from __future__ import annotations

import json
import sys

import awkward
import numpy as np
import pytest
import uproot

from pyrogen import events
from pyrogen.events import EventSample
from pyrogen.files import FileFormatError

FLAT = ["pt", "eta", "n", "good", "v[0]", "v[1]", "a/b", "p*"]


def make_tree(file, name, columns):
    """A TTree; uproot makes an RNTuple of ``file[name] = columns``."""
    types = {column: "var * float64" if column == "jet_pt" else (x.dtype, x.shape[1:]) for column, x in columns.items()}
    file.mktree(name, types).extend(columns)


@pytest.fixture
def path(tmp_path):
    """A file as an experiment may have it: two trees, an RNTuple, a jagged branch, weights."""
    rng = np.random.default_rng(0)
    columns = {
        "pt": rng.exponential(size=20).astype("f4"),
        "eta": rng.normal(size=20),
        "n": np.arange(20, dtype="i4"),
        "good": np.arange(20) % 2 == 0,
        "v": rng.normal(size=(20, 2)),
        "a/b": np.ones(20),
        "p*": np.zeros(20),
        "weight": rng.normal(1.0, 1.0, size=20),
        "log_weight_1": np.ones(20),
        "log_weight_0": np.zeros(20),
    }
    jets = awkward.Array([[1.0] * (i % 3) for i in range(20)])
    with uproot.recreate(tmp_path / "a.root") as file:
        make_tree(file, "flat", columns)
        some = {name: columns[name] for name in ("pt", "n", "weight")}
        make_tree(file, "folder/jagged", some | {"jet_pt": jets})
        file.mkrntuple("new", some | {"jet_pt": jets})
        file.mkrntuple("flat_new", columns)
        file["note"] = "not a tree"
    return tmp_path / "a.root"


def expected(path):
    with uproot.open(path) as file:
        arrays = file["flat"].arrays(library="np")
    v = arrays.pop("v")
    arrays |= {"v[0]": v[:, 0], "v[1]": v[:, 1]}
    return np.column_stack([arrays[name].astype("f8") for name in FLAT]), arrays["weight"]


@pytest.mark.parametrize("chunk", [1, 7, 20, 100])
@pytest.mark.parametrize("tree", ["flat", "flat_new"])
def test_tree_of_another_program(path, chunk, tree):
    values, weights = expected(path)
    sample = events.read(path, tree)
    assert sorted(sample.names) == sorted(FLAT)
    assert np.array_equal(sample.select(FLAT).values, values) and np.array_equal(sample.weights, weights)
    assert sample.log_weights.tolist() == [[0.0, 1.0]] * 20
    assert sample.provenance == {"file": "a.root", "dataset": tree}
    parts = list(events.stream(path, dataset=tree, chunk=chunk))
    assert [part.part for part in parts] == list(range(0, 20, chunk))
    assert np.array_equal(EventSample.concatenate(parts).values, sample.values)
    chosen = events.read(path, tree, columns=["v[1]", "pt"])
    assert np.array_equal(chosen.values, values[:, [5, 0]]) and np.array_equal(chosen.weights, weights)


@pytest.mark.parametrize("tree", ["folder/jagged", "new"])
def test_jagged_branches(path, tree):
    with pytest.raises(ValueError, match=rf"a\.root: branch 'jet_pt' of tree '{tree}' .* columns=\[\.\.\.\]: .*pt"):
        events.read(path, tree)
    with pytest.raises(ValueError, match="branch 'jet_pt' of tree .* is not one number for each event; leave it out"):
        events.read(path, tree, columns=["jet_pt", "pt"])
    sample = events.read(path, tree, columns=["pt"])
    assert np.array_equal(sample.column("pt"), expected(path)[0][:, 0])
    assert np.array_equal(sample.weights, expected(path)[1])


def test_choice_of_the_tree(path, tmp_path):
    with pytest.raises(ValueError, match='several trees; choose one with dataset="name": flat, flat_new, folder/'):
        events.read(path)
    with pytest.raises(ValueError, match="has no tree 'note'; its trees are flat, flat_new, folder/jagged, new"):
        events.read(path, "note")
    with pytest.raises(ValueError, match="has no column 'phi'; those of tree 'flat' are pt, eta, .*v.0"):
        events.read(path, "flat", columns=["pt", "phi"])
    with uproot.recreate(tmp_path / "none.root") as file:
        file["note"] = "nothing"
    with pytest.raises(ValueError, match="holds no TTree or RNTuple"):
        events.read(tmp_path / "none.root")
    with uproot.recreate(tmp_path / "one.root") as file:
        file.mktree("only", {"x": "f8"})
    with pytest.raises(FileFormatError, match=r"one\.root holds no sample of events: its tree is empty"):
        events.read(tmp_path / "one.root")


def test_nan_names_file_and_event(tmp_path):
    with uproot.recreate(tmp_path / "a.root") as file:
        columns = {"x": np.where(np.arange(20) == 13, np.nan, 1.0), "y": np.ones(20)}
        make_tree(file, "tree", columns)
    stream = events.stream(tmp_path / "a.root", chunk=5)
    assert len(next(stream)) == len(next(stream)) == 5
    with pytest.raises(FileFormatError, match=r"a\.root holds no sample .* row 13, column 0 \(x\): nan"):
        next(stream)
    assert len(events.read(tmp_path / "a.root", columns=["y"])) == 20


def test_broken_files(path):
    content = path.read_bytes()
    for length in (0, 1, 50, 500, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(FileFormatError, match=r"a\.root is not a whole ROOT file"):
            events.read(path, "flat")
    path.write_bytes(b"pt eta\n" * 100)
    with pytest.raises(FileFormatError, match=r"a\.root is not a whole ROOT file: not a ROOT file"):
        events.read(path, "flat")


def test_damaged_basket(tmp_path):
    path, rng = tmp_path / "a.root", np.random.default_rng(0)
    events.write(EventSample(rng.normal(size=(5000, 2))), path)
    with uproot.open(path) as file:
        start = int(file["events"]["x0"].member("fBasketSeek")[0])
    content = bytearray(path.read_bytes())
    content[start + 100 : start + 30_000] = bytes(29_900)
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"a\.root is damaged or incomplete after event 0"):
        events.read(path)


def test_own_file_for_users_of_root(tmp_path):
    sample = EventSample(
        [[1.0, 2.0], [3.0, 4.0]],
        ("pT", "η"),
        ("GeV", ""),
        [1.0, 2.0],
        [0.1, 0.2],
        {"a": "µ"},
        log_weights=[[0.5], [-0.5]],
    )
    events.write(sample, tmp_path / "a.root")
    with uproot.open(tmp_path / "a.root") as file:
        tree = file["events"]
        assert tree.keys() == ["pT", "η", "weight", "uncertainty", "log_weight_0"]
        assert tree["log_weight_0"].array(library="np").tolist() == [0.5, -0.5]
    for name in ("weights", "log_weight_0"):
        with pytest.raises(ValueError, match=f"needs the column name '{name}'"):
            events.write(EventSample([1.0], names=[name]), tmp_path / "b.root")
    with uproot.update(tmp_path / "a.root") as file:
        file["pyrogen"] = "no JSON"
    with pytest.raises(FileFormatError, match=r"a\.root: its object 'pyrogen' is not what pyrogen writes"):
        events.read(tmp_path / "a.root")


def test_without_uproot(path, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "uproot", None)
    with pytest.raises(ImportError, match=r'reading ROOT files needs uproot; .*pip install "pyrogen\[lhc\]"'):
        events.read(path, "flat")
    with pytest.raises(ImportError, match="writing ROOT files needs uproot"):
        events.write(EventSample([1.0]), tmp_path / "b.root")
    assert not (tmp_path / "b.root").exists()


# --- what a file says of itself -----------------------------------------------------------------------------------


def own_file(tmp_path, n=300):
    """A file of pyrogen's with all that a sample can have, and the sample."""
    rng = np.random.default_rng(3)
    sample = EventSample(
        rng.normal(size=(n, 2)),
        ["pt", "eta"],
        ["GeV", ""],
        rng.uniform(size=n),
        rng.uniform(size=n),
        {"made": "by hand"},
        log_weights=rng.normal(size=(n, 2)),
    )
    sample.save(tmp_path / "a.root")
    return tmp_path / "a.root", sample


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"uncertainty", b"uncertaanty", "its branches are not those that were written .*uncertaanty, uncertainty"),
        (b"weight", b"weighu", "its branches are not those that were written"),
        (b"log_weight_1", b"log_weight_7", "its branches are not those that were written"),
        (b"pyrogen", b"pyrogfn", "is damaged: its object 'pyrogen' is called 'pyrogfn'"),
    ],
)
def test_a_damaged_name_is_no_feature(tmp_path, old, new, message):
    path, _ = own_file(tmp_path)
    plain = path.read_bytes()
    assert old in plain  # in the tree or in the directory; the JSON is compressed
    path.write_bytes(plain.replace(old, new))
    with pytest.raises(FileFormatError, match=rf"a\.root.*{message}"):
        events.read(path)


def labels_of(path) -> str:
    with uproot.open(path) as file:
        return str(file["pyrogen"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("GeV", "MeV", "its digest is wrong"),
        ("by hand", "by hend", "its digest is wrong"),
        ('"digest"', '"dihest"', "its entries are"),
        ("{", "[" * 100_000, "recursion"),
    ],
)
def test_damaged_labels(tmp_path, old, new, message):
    path, _ = own_file(tmp_path)
    text = labels_of(path)
    assert old in text
    with uproot.update(path) as file:
        file["pyrogen"] = text.replace(old, new)
    with pytest.raises(
        FileFormatError, match=rf"a\.root: its object 'pyrogen' is not what pyrogen writes: .*{message}"
    ):
        events.read(path)


def test_numbers_of_an_own_file_have_checksums(tmp_path):
    path, sample = own_file(tmp_path, 40)
    text = labels_of(path)
    for name in ("values", "weights", "uncertainties", "log_weights"):
        changed = getattr(sample, name).copy()
        changed[(17, 1) if changed.ndim == 2 else 17] *= 1 + 1e-15
        own = {"weights": sample.weights, "uncertainties": sample.uncertainties, "log_weights": sample.log_weights}
        other = EventSample(
            **{"values": sample.values, "names": sample.names, "units": sample.units} | own | {name: changed}
        )
        other.save(path)
        with uproot.update(path) as file:
            file["pyrogen"] = text
        with pytest.raises(FileFormatError, match=r"a\.root is damaged: the checksum of its branch '.*' is wrong"):
            events.read(path)
    parts = events.stream(path, chunk=10)
    assert [len(next(parts)) for _ in range(4)] == [10] * 4
    with pytest.raises(FileFormatError, match="the checksum of its branch 'log_weight_1'"):
        next(parts)
    sample[:20].save(path)
    with uproot.update(path) as file:
        file["pyrogen"] = text
    with pytest.raises(FileFormatError, match="is damaged: it has 20 events, and 40 were written"):
        events.read(path)


def test_early_files_have_no_checksums(tmp_path):
    path, sample = own_file(tmp_path)
    early = {name: getattr(sample, name) for name in ("names", "units", "provenance")}
    with uproot.update(path) as file:
        file["pyrogen"] = json.dumps(early)
    again = events.read(path)
    assert again.units == sample.units and np.array_equal(again.log_weights, sample.log_weights)
    with uproot.update(path) as file:
        file["pyrogen"] = json.dumps(early | {"names": ["pt", "phi"]})
    with pytest.raises(FileFormatError, match=r"its branches are not those .*eta, phi"):
        events.read(path)


def test_an_own_file_that_lost_its_labels(tmp_path):
    path, _ = own_file(tmp_path)
    with uproot.update(path) as file:
        del file["pyrogen;1"]
    with pytest.raises(FileFormatError, match=r"a\.root is damaged: its object 'pyrogen' is missing"):
        events.read(path)


def test_two_branches_of_one_name(tmp_path):
    path = tmp_path / "a.root"
    with uproot.recreate(path) as file:
        make_tree(file, "tree", {"abc1": np.ones(5), "abc2": np.zeros(5), "x": np.arange(5.0)})
    path.write_bytes(path.read_bytes().replace(b"abc2", b"abc1"))
    with pytest.raises(ValueError, match=r"a\.root: several branches have the name 'abc1'"):
        events.read(path)
    with pytest.raises(ValueError, match="several branches have the name 'abc1'"):
        events.read(path, columns=["x", "abc1"])
    assert events.read(path, columns=["x"]).values[:, 0].tolist() == [0, 1, 2, 3, 4]
    with uproot.recreate(path) as file:
        make_tree(file, "tree", {"v": np.ones((5, 2)), "v[0]": np.zeros(5)})
    with pytest.raises(FileFormatError, match=r"a\.root holds no sample of events: two columns have the name 'v\[0\]'"):
        events.read(path)
    with uproot.recreate(path) as file:
        make_tree(file, "tree", {"x": np.ones(5), "weight": np.ones(5), "weights": np.zeros(5)})
    with pytest.raises(FileFormatError, match=r"a\.root .* the columns weight, weights are all weights"):
        events.read(path)


def test_records_of_an_rntuple(tmp_path):
    path = tmp_path / "a.root"
    lepton = awkward.Array([{"pt": float(i), "eta": -float(i)} for i in range(5)])
    jets = awkward.Array([[{"pt": 1.0}] * i for i in range(5)])
    with uproot.recreate(path) as file:
        file.mkrntuple("tuple", {"l1": lepton, "l2": lepton, "met": np.arange(5.0), "jets": jets})
    with pytest.raises(ValueError, match=r"branch .jets.pt. of tree .tuple. .* choose others .*: l1.pt, l1.eta, l2.pt"):
        events.read(path)
    for chunk in (2, 5):
        sample = EventSample.concatenate(events.stream(path, chunk=chunk, columns=["l2.eta", "met", "l1.pt"]))
        assert np.array_equal(sample.values, np.arange(5.0)[:, None] * [-1, 1, 1])
    with pytest.raises(ValueError, match=r"branch 'jets.*' .* is not one number for each event"):
        events.read(path, columns=["jets.pt"])


def test_paths_with_colons(tmp_path):
    for name in ("a:b.root", "file:a.root", "dir:x/a.root", "b.root:tree/a::b.root"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        EventSample([1.0, 2.0]).save(tmp_path / name)
        assert len(events.read(tmp_path / name)) == 2


@pytest.mark.parametrize("seed", range(3))
def test_damaged_files_are_refused_by_name(tmp_path, seed):
    """Bytes, zeros and cuts anywhere: the same sample or an error with the name of the file, never another sample."""
    path, sample = own_file(tmp_path, 50)
    content, rng = path.read_bytes(), np.random.default_rng(seed)
    for _ in range(40):
        damaged, start = bytearray(content), int(rng.integers(len(content)))
        size = int(rng.choice([1, 1, 4, 100]))
        damaged[start : start + size] = rng.choice([bytes(size), b"\xff" * size, rng.bytes(size), b""])
        path.write_bytes(damaged)
        try:
            again = events.read(path)
        except (FileFormatError, ValueError) as error:
            assert str(path) in str(error)
            continue
        assert again.values.tobytes() == sample.values.tobytes() and again.names == sample.names
        assert again.units == sample.units and again.provenance == sample.provenance
        for name in ("weights", "uncertainties", "log_weights"):
            assert getattr(again, name).tobytes() == getattr(sample, name).tobytes()


def test_sizes_that_no_file_has(tmp_path):
    path = tmp_path / "a.root"
    with uproot.recreate(path) as file:
        make_tree(file, "tree", {"x": np.ones(5)})
    content = path.read_bytes()
    entries = content.rfind((5).to_bytes(8, "big"))
    assert entries > 0
    path.write_bytes(content.replace((5).to_bytes(8, "big"), (10**12).to_bytes(8, "big")))
    with pytest.raises(FileFormatError, match=r"a\.root is damaged"):
        events.read(path)
