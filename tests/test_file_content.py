"""Mutants of pyrogen's HDF5 files: zeroed blocks, flipped bits, other structure. None is read as something else."""

import hashlib
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from test_foreign_hdf5 import put

import pyrogen as pg
from pyrogen import events
from pyrogen.inference.run.checkpoint import load_checkpoint, save_checkpoint
from pyrogen.inference.run.curves import Curve

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


def test_no_attribute_has_a_variable_length(kind, written, tmp_path):
    """These lie in a heap of the file, and where it is damaged HDF5 can read them without an end."""
    path = tmp_path / "a.h5"
    shutil.copy(written / f"{kind}.h5", path)
    with h5py.File(path, "r+") as file:
        assert not any(file.attrs.get_id(name).dtype.hasobject for name in file.attrs)
        file.attrs["more"] = "text"
    with pytest.raises(pg.FileFormatError, match=r"a\.h5 .*its attribute 'more' has a variable length"):
        FILES[kind][1](path)


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


@pytest.mark.parametrize("name", ["a.npy", "a.h5"])
def test_a_checksum_beside_a_file_is_compared(tmp_path, name):
    """As sha256sum writes it, in any of its forms."""
    path, sidecar = tmp_path / name, tmp_path / f"{name}.sha256"
    events.write(events.EventSample(np.arange(12.0).reshape(6, 2)), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    other = f"{'0' * 64}  b.npy\n"
    for text in (
        f"{digest}  {name}\n",
        f"{other}{digest} *some/{name}\n",
        f"SHA256 ({name}) = {digest}",
        digest.upper(),
    ):
        sidecar.write_text(text)
        assert len(events.read(path)) == 6 and len(next(events.stream(path, chunk=2))) == 2
    for text in ("", "none\n", f"{other}{other}"):
        sidecar.write_text(text)
        with pytest.raises(pg.FileFormatError, match=rf"{name}\.sha256 holds no SHA-256 of {name}"):
            events.read(path)
    sidecar.write_text(f"{digest}  {name}\n")
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    for read in (events.read, events.stream):
        with pytest.raises(pg.FileFormatError, match=rf"{name} is damaged, or newer than its checksum: .*{digest}"):
            read(path)


def test_events_are_added_to_files_of_the_first_version(tmp_path):
    path = tmp_path / "a.h5"
    shutil.copy(OLD.with_name("v1_generated.h5"), path)
    old = events.read(path)
    events.append(old, path)
    assert len(events.read(path)) == 2 * len(old) and np.array_equal(events.read(path).values[500:], old.values)
    with h5py.File(path) as file:
        assert file.attrs["pyrogen_format_version"] == 3 and "pyrogen_digest" in file.attrs
