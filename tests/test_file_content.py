"""Mutants of pyrogen's HDF5 files: zeroed blocks, flipped bits, other structure. None is read as something else."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import pyrogen as pg
from pyrogen import events
from pyrogen.bayes.model import BayesianFlow
from pyrogen.hdf5 import structure
from pyrogen.inference.run.checkpoint import load_checkpoint, save_checkpoint
from pyrogen.inference.run.curves import Curve
from pyrogen.posterior.description import check_description

OLD = Path(__file__).parent / "data" / "v1_svi.h5"
IDENTITY = {"model": {"flow": "mine"}}


def sample(n=300, seed=0, columns=2):
    rng = np.random.default_rng(seed)
    return events.EventSample(
        rng.normal(size=(n, columns)), weights=np.ones(n), log_weights=rng.normal(size=(n, 3)), units=["GeV"] * columns
    )


def write_posterior(path):
    pg.load(OLD).save(path)


def write_checkpoint(path):
    tensors = {"adam.step": torch.tensor(7.0), "adam.zero": torch.zeros(50), "w": torch.arange(50.0)}
    save_checkpoint(path, IDENTITY, {"done": 3, "history": [[0.5], [0.25]]}, tensors)


def write_columns(path):
    events.write(sample(), path)
    events.append(sample(seed=1), path)


def write_rows(path):
    events.write(sample(), path, layout="rows")


def read_posterior(path):
    posterior = pg.load(path)
    return {name: array.numpy().tobytes() for name, array in posterior.weights.arrays.items()}


def read_checkpoint(path):
    return load_checkpoint(path, IDENTITY)[1]["adam.step"].item()


def read_events(path):
    found = events.read(path)
    return found.values.tobytes(), found.weights.tobytes(), found.log_weights.tobytes(), found.units


FILES = {
    "posterior": (write_posterior, read_posterior),
    "checkpoint": (write_checkpoint, read_checkpoint),
    "columns": (write_columns, read_events),
    "rows": (write_rows, read_events),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """One file of every kind."""
    folder = tmp_path_factory.mktemp("written")
    for kind, (write, _) in FILES.items():
        write(folder / f"{kind}.h5")
    return folder


@pytest.fixture(params=FILES)
def kind(request):
    return request.param


def blocks(path):
    """Where the numbers of each dataset lie in a file."""
    found = []

    def visit(name, item):
        if isinstance(item, h5py.Dataset) and item.chunks:
            chunks = [item.id.get_chunk_info(i) for i in range(item.id.get_num_chunks())]
            found.extend((name, chunk.byte_offset, chunk.size) for chunk in chunks)
        elif isinstance(item, h5py.Dataset):
            found.append((name, item.id.get_offset(), item.id.get_storage_size()))

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


def test_what_was_written_is_read(kind, written):
    FILES[kind][1](written / f"{kind}.h5")


def test_zeroed_blocks_and_flipped_bits_are_refused(kind, written, tmp_path):
    """The checksum of HDF5 of a block of zeros is right, and single numbers have none."""
    whole, path, read = (written / f"{kind}.h5").read_bytes(), tmp_path / "a.h5", FILES[kind][1]
    for name, offset, size in blocks(written / f"{kind}.h5"):
        zeroed, flipped = bytearray(whole), bytearray(whole)
        zeroed[offset : offset + size] = bytes(size)
        flipped[offset + size // 2] ^= 1
        for mutant in (zeroed, flipped):
            if bytes(mutant) != whole:
                path.write_bytes(mutant)
                with pytest.raises(pg.FileFormatError, match=r"a\.h5"):
                    pytest.fail(f"{name}: {read(path)}")


def change(path, name, how):
    """Another structure or other numbers of the same type; False where it cannot be."""
    with h5py.File(path, "r+") as file:
        item = file[name]
        if how == "remove":
            del file[name]
        elif how == "rename":
            file.move(name, f"{name}_")
        elif how == "attribute":
            item.attrs["more"] = 1
        elif how in ("zeros", "negative", "longer", "other type"):
            if isinstance(item, h5py.Group) or (how == "negative" and item.dtype.kind != "f"):
                return False
            values = item[()]
            if how == "zeros":
                changed = np.zeros_like(values)
            elif how == "negative":
                changed = -values - 1
            elif how == "longer":
                changed = np.stack([values, values])
            else:
                changed = np.frombuffer(values.tobytes(), np.int8)
            if changed.tobytes() == values.tobytes() and changed.dtype == values.dtype:
                return False
            del file[name]
            file[name] = changed
        else:
            del file[name]
            put(file, name, how)
    return True


def put(file, name, how):
    """Something in a file that no file of pyrogen's has."""
    if how == "external link":
        file[name] = h5py.ExternalLink("other.h5", "/secret")
    elif how == "soft link":
        file[name] = h5py.SoftLink("/package_versions")
    elif how == "hard link":
        file[name] = file["/"]
    elif how == "external storage":
        file.create_dataset(name, (3, 2), "f8", external=[("other.bin", 0, 48)])
    elif how == "virtual":
        layout = h5py.VirtualLayout((3, 2), "f8")
        layout[:] = h5py.VirtualSource(".", name, (3, 2))  # of itself
        file.create_virtual_dataset(name, layout)
    elif how == "never written":
        file.create_dataset(name, (10**9, 2), "f8", chunks=(1000, 2))
    elif how == "bomb":
        file.create_dataset(name, (2**17, 2), "f8", chunks=(2**14, 2), compression="gzip")[...] = 0.0
    elif how == "large chunk":
        file.create_dataset(name, (10, 2), "f8", chunks=(2**15, 2), maxshape=(None, 2), compression="gzip")[...] = 1.0
    elif how == "null":
        file[name] = h5py.Empty("f8")
    elif how == "text":
        file[name] = "text"


CHANGES = ("remove", "rename", "attribute", "zeros", "negative", "longer", "other type", "null", "text")
STRUCTURES = ("external link", "soft link", "hard link", "external storage", "virtual", "never written")


def test_any_other_structure_is_refused(kind, written, tmp_path):
    names = []
    with h5py.File(written / f"{kind}.h5") as file:
        file.visit(names.append)
    names = [name for name in names if not name.startswith("history/") or name == "history/loss"]
    path = tmp_path / "a.h5"
    for name in names:
        for how in (*CHANGES, *STRUCTURES):
            shutil.copy(written / f"{kind}.h5", path)
            if change(path, name, how):
                with pytest.raises(pg.FileFormatError, match=r"a\.h5"):
                    pytest.fail(f"{name}, {how}: {FILES[kind][1](path)}")


def test_the_labels_of_a_file_count(kind, written, tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(written / f"{kind}.h5") as file:
        names = list(file.attrs)
    assert {"pyrogen_kind", "pyrogen_format_version", "pyrogen_digest"} <= set(names)
    for name in names:
        for value in (None, 1, 2, "x", np.bytes_("draws"), h5py.Empty("f8")):
            shutil.copy(written / f"{kind}.h5", path)
            with h5py.File(path, "r+") as file:
                del file.attrs[name]
                if value is not None:
                    file.attrs[name] = value
            with pytest.raises(pg.FileFormatError, match=r"a\.h5"):
                pytest.fail(f"{name}, {value}: {FILES[kind][1](path)}")


def test_curves_of_a_checkpoint_are_arrays(tmp_path):
    """As JSON those of a long run took seconds to write; their numbers stay as they are."""
    rng = np.random.default_rng(0)
    rows, numbers = Curve(), Curve([0.25])
    for i in range(200):
        rows.append([rng.normal(), np.nan if i % 3 else -np.inf])
        numbers.append(rng.normal())
    state = {"history": {"loss": rows, "seconds": numbers, "empty": Curve()}, "done": 200}
    save_checkpoint(tmp_path / "a.h5", IDENTITY, state, {})
    found, _ = load_checkpoint(tmp_path / "a.h5", IDENTITY)
    assert found["done"] == 200 and found["history"].keys() == state["history"].keys()
    for name, curve in state["history"].items():
        assert np.asarray(found["history"][name]).tobytes() == np.asarray(curve).tobytes()
        assert len(found["history"][name]) == len(curve)
    assert np.asarray(rows).shape == (200, 2) and np.asarray(numbers).shape == (201,) and numbers[0] == 0.25
    with h5py.File(tmp_path / "a.h5") as file:
        assert len(file["state"]) < 200
    found["history"]["empty"].append([1.0, 2.0])
    assert np.asarray(found["history"]["empty"]).tolist() == [[1.0, 2.0]]


# --- events in blocks ---------------------------------------------------------------------------------------


def changed_events(path, row):
    """A file of which one number was changed by another program, its checksums and all."""
    events.write(sample(20_000), path)
    with h5py.File(path, "r+") as file:
        assert file["values"].chunks[0] == 16_384  # the rows of a block
        file["values"][row, 0] += 1.0


def test_a_stream_hands_out_nothing_that_was_not_checked(tmp_path):
    path = tmp_path / "a.h5"
    changed_events(path, 17_000)
    stream = events.stream(path, chunk=5_000, columns=["x1"])  # the changed column is not asked for
    parts = [next(stream) for _ in range(3)]
    assert np.array_equal(np.concatenate([part.values for part in parts])[:, 0], sample(20_000).values[:15_000, 1])
    with pytest.raises(pg.FileFormatError, match=r"a\.h5 is damaged: rows 16384 to 19999 of /values are not those"):
        next(stream)
    changed_events(path, 0)
    with pytest.raises(pg.FileFormatError, match="rows 0 to 16383 of /values"):
        next(events.stream(path, chunk=1))


def test_events_are_not_appended_to_changed_ones(tmp_path):
    path = tmp_path / "a.h5"
    changed_events(path, 17_000)  # in the last block, which appending goes on with
    before = path.read_bytes()
    with pytest.raises(pg.FileFormatError, match="rows 16384 to 19999 of /values"):
        events.append(sample(), path)
    assert path.read_bytes() == before
    changed_events(path, 3)
    with pytest.raises(pg.FileFormatError, match="rows 0 to 16383 of /values"):
        events.append(sample(), path)


@pytest.mark.parametrize("layout", ["columns", "rows"])
def test_files_that_grew_in_steps_are_those_written_at_once(tmp_path, layout):
    """Blocks that end within a part and behind it."""
    whole = sample(40_000, columns=4)
    with events.EventWriter(tmp_path / "a.h5", layout=layout) as writer:
        writer.write(whole)
    for i, rows in enumerate((slice(0, 10_000), slice(10_000, 16_384), slice(16_384, 39_999), slice(39_999, 40_000))):
        (events.append if i else events.write)(whole[rows], tmp_path / "b.h5", layout=layout)
    found = []
    for name in ("a.h5", "b.h5"):
        assert np.array_equal(events.read(tmp_path / name).log_weights, whole.log_weights)
        with h5py.File(tmp_path / name) as file:
            found.append({key: item[()].tobytes() for key, item in file["digests"].items()})
    assert found[0] == found[1] and found[0]


def test_events_are_added_to_files_of_the_first_version(tmp_path):
    path = tmp_path / "a.h5"
    shutil.copy(OLD.with_name("v1_generated.h5"), path)
    old = events.read(path)
    events.append(old, path)
    assert len(events.read(path)) == 2 * len(old) and np.array_equal(events.read(path).values[500:], old.values)
    with h5py.File(path) as file:
        assert file.attrs["pyrogen_format_version"] == 3 and "pyrogen_digest" in file.attrs


# --- what stands in files without a digest, and in those that somebody made --------------------------------------


@pytest.mark.parametrize(
    ("name", "values", "told"),
    [
        ("weights/loc", lambda v: np.full_like(v, np.nan), "weights: loc holds NaN"),
        ("weights/scale", lambda v: -v, "weights: scale holds negative numbers"),
        ("weights/scale", lambda v: v[:5], r"weights: scale has the shape \[5\]"),
        ("weights/loc", lambda v: v[:, None], r"weights: loc has the shape \[102, 1\]"),
        ("weights/loc", lambda v: v.astype(int), "weights: loc holds torch.int64"),
        ("weights/loc", lambda v: "text", "weights: /weights/loc holds no numbers"),
        ("history/loss", lambda v: "text", "history: /history/loss holds no numbers"),
        ("initial_weights", lambda v: v[:-1], "model: parameters is a list of 102 weights; it must be one of 101"),
        ("initial_weights", lambda v: v + np.inf, "initial_weights: it is no vector of finite"),
        ("flow_buffers/rotations", lambda v: v + np.nan, "model: flow_buffers/rotations holds NaN"),
    ],
)
def test_numbers_that_no_posterior_has(tmp_path, name, values, told):
    path = tmp_path / "a.h5"
    shutil.copy(OLD, path)
    with h5py.File(path, "r+") as file:
        old = file[name][()]
        del file[name]
        file[name] = values(old)
    with pytest.raises(pg.FileFormatError, match=rf"a\.h5: {told}"):
        pg.load(path)


@pytest.mark.parametrize(
    ("family", "arrays", "told"),
    [
        ("draws", {"draws": (2, 0, 102)}, r"draws has the shape \[2, 0, 102\]"),
        ("draws", {"draws": (3, 102)}, r"draws has the shape \[3, 102\]"),
        ("low_rank", {"loc": (102,), "cov_factor": (3, 102), "cov_diag": (102,)}, "cov_factor has the shape"),
        (
            "low_rank_precision",
            {"loc": (102,), "scale": (102,), "vectors": (102, 3), "shrink": (2,)},
            "vectors has the",
        ),
        ("multivariate", {"loc": (102,), "scale_tril": (102, 2)}, "scale_tril has the shape"),
        ("point", {"loc": (101,)}, "loc has the shape"),
        ("none", {"loc": (102,)}, "unknown family 'none'"),
    ],
)
def test_arrays_of_other_shapes(tmp_path, family, arrays, told):
    path = tmp_path / "a.h5"
    shutil.copy(OLD, path)
    with h5py.File(path, "r+") as file:
        del file["weights"]
        file.attrs["family"] = family
        for name, shape in arrays.items():
            file[f"weights/{name}"] = np.ones(shape, np.float32)
    with pytest.raises(pg.FileFormatError, match=rf"a\.h5: weights: {told}"):
        pg.load(path)


def change_json(path, name, entry, value):
    shutil.copy(OLD, path)
    with h5py.File(path, "r+") as file:
        content = json.loads(file[name][()].tobytes())
        place = content
        *outer, last = entry
        for key in outer:
            place = place[key]
        place[last] = value
        del file[name]
        file[name] = np.frombuffer(json.dumps(content).encode(), np.uint8)


@pytest.mark.parametrize("value", [None, "text", -1, 0.5, [], [[1]], {}, {"a": 1}, True, 10**12])
def test_json_of_the_wrong_type_names_file_and_entry(tmp_path, value):
    """Every entry of the description and of the record; some may have several types."""
    path, refused = tmp_path / "a.h5", 0
    with h5py.File(OLD) as file:
        content = {name: json.loads(file[name][()].tobytes()) for name in ("model", "info")}
    entries = [(name, (key,)) for name in content for key in content[name]]
    entries += [("model", (key, inner)) for key in ("flow_config", "preprocessing") for inner in content["model"][key]]
    for name, entry in entries:
        change_json(path, name, entry, value)
        try:
            pg.load(path)
        except pg.FileFormatError as error:
            assert str(error).startswith(f"{path}: {name}: "), error
            refused += 1
    assert refused >= 15


def test_a_description_may_not_ask_for_more_than_the_file_holds():
    description = json.loads(json.dumps(pg.load(OLD).model.describe()))
    check_description(description, 102)
    part = {"kind": "chain", "parts": [{"kind": "identity"}] * 1001}
    wrong = [description | {"preprocessing": part}]
    for name, value in {"blocks": 10**9, "hidden": [10**9], "features": 10**9, "bins": 10**9, "context": 10**9}.items():
        wrong.append(description | {"flow_config": description["flow_config"] | {name: value}})
    for one in wrong:
        with pytest.raises(ValueError, match="it must be (possible with the 102 weights|at most 1000 parts)"):
            check_description(one, 102)
    for flow in (
        pg.CouplingFlow(1, 1, ()),
        pg.CouplingFlow(9, 3, (5, 7), context=4),
        pg.CouplingFlow(4, 2, (3,), "rqs"),
    ):
        model = BayesianFlow(flow).prepare(torch.rand(50, flow.config["features"]))
        check_description(json.loads(json.dumps(model.describe())), model.weights)


# --- a user's own files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["external storage", "virtual", "never written", "bomb", "large chunk"])
def test_tables_that_are_not_in_the_file_are_refused(monkeypatch, tmp_path, how):
    monkeypatch.setattr(structure, "FREE", 2**18)
    monkeypatch.setattr(structure, "LARGEST_CHUNK", 2**18)
    (tmp_path / "other.bin").write_bytes(bytes(48))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        put(file, "table", how)
    told = {
        "external storage": "stored in another file, 'other.bin'",
        "virtual": "a virtual dataset",
        "never written": "not all of it was written",
        "bomb": "declares arrays of 2,097,152 bytes",
        "large chunk": "has chunks of 524,288 bytes",
    }
    for dataset in (None, "table"):
        with pytest.raises(pg.FileFormatError, match=rf"a\.h5.*{told[how]}"):
            events.read(tmp_path / "a.h5", dataset)


@pytest.mark.parametrize("how", ["external link", "soft link"])
def test_links_are_not_followed(tmp_path, how):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["secret"] = np.ones((3, 2))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["package_versions"] = np.zeros((3, 2))
        put(file, "link", how)
        put(file, "weighted/weights", how)
        file["weighted/table"] = np.zeros((3, 2))
        file["columns/x"] = np.zeros(3)
        put(file, "columns/y", how)
    for dataset in ("link", "link/secret", "weighted/table", "columns"):
        with pytest.raises(pg.FileFormatError, match=r"a\.h5: /.* is a link to .*; pyrogen follows no links"):
            events.read(tmp_path / "a.h5", dataset)
    assert not events.read(tmp_path / "a.h5", "package_versions").values.any()  # a link elsewhere does no harm


def test_sizes_that_are_right_are_read(tmp_path):
    """Equal numbers compress far: below a bound they are what they are."""
    zeros = events.EventSample(np.zeros((200_000, 4)))
    events.write(zeros, tmp_path / "a.h5")
    size = (tmp_path / "a.h5").stat().st_size
    assert zeros.values.nbytes > structure.LARGEST_RATIO * size and zeros.values.nbytes < structure.FREE
    assert np.array_equal(events.read(tmp_path / "a.h5").values, zeros.values)
