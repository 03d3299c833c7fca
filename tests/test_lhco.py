"""The readers of the LHC Olympics 2020: files in their layouts, as pandas writes them by PyTables, made by h5py."""

from __future__ import annotations

import pickle

import h5py
import numpy as np
import pytest

from pyrogen import FileFormatError, events
from pyrogen.events import lhc_olympics as reader

REASON = 'needs pip install "pyrogen[fastjet]"'
COLUMNS = (*reader.FEATURES, "label")


def text(value):
    return np.bytes_(value)


def leaf(group, called, values, storage, **attributes):
    item = group.create_dataset(called, data=values, **storage)
    for key, value in {"CLASS": text("ARRAY"), "FLAVOR": text("numpy"), "VERSION": text("2.4")}.items():
        item.attrs[key] = value
    item.attrs["TITLE"] = h5py.Empty("S1")
    for key, value in attributes.items():
        item.attrs[key] = value


def frame(path, blocks, order, key="df", **storage):
    """What ``DataFrame.to_hdf(path, key, format="fixed")`` of pandas 3.1 and PyTables 3.11 writes.

    Args:
        path: the file.
        blocks: tables ``[N, columns]`` by the tuples of the names of their columns.
        order: the names of all columns.
        key: of the frame.
        storage: for the tables.
    """

    def names(group, name, labels):
        numbers = all(isinstance(label, int) for label in labels)
        kind = {"kind": text("integer" if numbers else "string"), "name": text("N."), "transposed": np.uint8(1)}
        leaf(group, name, np.array(labels, np.int64 if numbers else "S"), {}, **kind)

    with h5py.File(path, "w") as file:
        file.attrs["CLASS"], file.attrs["PYTABLES_FORMAT_VERSION"] = text("GROUP"), text("2.1")
        group = file.create_group(key)
        group.attrs["pandas_type"], group.attrs["encoding"] = text("frame"), text("UTF-8")
        group.attrs["nblocks"], group.attrs["ndim"] = len(blocks), 2
        names(group, "axis0", order)
        names(group, "axis1", range(len(next(iter(blocks.values())))))
        for i, (items, values) in enumerate(blocks.items()):
            names(group, f"block{i}_items", items)
            leaf(group, f"block{i}_values", values, storage, transposed=np.uint8(1))
    return path


def table(path, records):
    """What ``format="table"`` writes, but for the index of PyTables."""
    with h5py.File(path, "w") as file:
        group = file.create_group("df")
        group.attrs["pandas_type"] = text("frame_table")
        group.attrs["non_index_axes"] = text(pickle.dumps([(1, ["a"])], 0))
        group.create_dataset("table", data=records, chunks=True, maxshape=(None,))
        index = group.create_group("_i_table/index")
        index.create_dataset("sorted", (0, 8), np.float64, chunks=(1, 8), maxshape=(None, 8))
    return path


def high_level(n=40, seed=0):
    """Jets, and the features of both by another way, in TeV."""
    rng = np.random.default_rng(seed)
    pt, eta, phi, m = (rng.uniform(low, high, (n, 2)) for low, high in ((1200, 1800), (-1, 1), (-3, 3), (20, 500)))
    phi[:, 1] = phi[:, 0] + np.pi
    tau = rng.uniform(0.1, 1, (n, 2, 3))
    jets = np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), m], -1)
    rows = np.concatenate([jets, tau], -1).reshape(n, 14)
    rapidity = np.arcsinh(pt * np.sinh(eta) / np.hypot(pt, m))
    mt = np.hypot(pt, m)
    angle = np.cos(phi[:, 0] - phi[:, 1])
    mjj = np.sqrt((m**2).sum(1) + 2 * (mt.prod(1) * np.cosh(rapidity[:, 0] - rapidity[:, 1]) - pt.prod(1) * angle))
    light = m.argmin(1)
    ratio = tau[..., 1] / tau[..., 0]
    at = np.arange(n)
    expected = np.column_stack([mjj, m.min(1), m.max(1) - m.min(1), ratio[at, light], ratio[at, 1 - light]])
    return np.column_stack([rows, at % 3 == 0]), expected * [1e-3, 1e-3, 1e-3, 1, 1]


@pytest.fixture
def features(tmp_path):
    return frame(tmp_path / "events.features.h5", {COLUMNS: high_level()[0]}, COLUMNS)


def read(path, **options):
    return events.lhco(path, progress=False, **options)


# --- high-level features ----------------------------------------------------------------------------------


def test_features(features):
    found, expected = read(features), high_level()[1]
    np.testing.assert_allclose(found.events.values, expected, rtol=1e-12)
    assert found.events.names == ("mjj", "mj1", "delta_mj", "tau21_1", "tau21_2")
    assert found.events.units == ("TeV", "TeV", "TeV", "", "")
    assert found.signal.tolist() == [i % 3 == 0 for i in range(40)]
    in_gev = read(features, unit="GeV")
    np.testing.assert_allclose(in_gev.events.values, expected * [1e3, 1e3, 1e3, 1, 1], rtol=1e-12)
    assert in_gev.events.units[0] == "GeV" and "40 events" in repr(found)


def test_all_layouts_of_pandas_give_the_same(features, tmp_path):
    rows, names = high_level()[0], list(COLUMNS)
    whole = read(features)
    packed = frame(tmp_path / "zlib.h5", {COLUMNS: rows}, COLUMNS, key="x", compression="gzip", chunks=(7, 15))
    split = {tuple(names[:14]): rows[:, :14], ("label",): rows[:, 14:].astype(np.int64)}
    two = frame(tmp_path / "two.h5", split, COLUMNS)
    order = np.random.default_rng(1).permutation(15)
    mixed = frame(tmp_path / "m.h5", {tuple(names[i] for i in order): rows[:, order]}, COLUMNS)
    records = np.empty(40, [("index", np.int64), *((name, np.float64) for name in names)])
    records["index"] = np.arange(40)
    for i, name in enumerate(names):
        records[name] = rows[:, i]
    for path in (packed, two, mixed, table(tmp_path / "t.h5", records)):
        found = read(path)
        assert np.array_equal(found.events.values, whole.events.values), path
        assert np.array_equal(found.signal, whole.signal)


def test_parts_of_a_file(features, monkeypatch):
    whole = read(features)
    monkeypatch.setattr(reader, "CHUNK", 7)
    assert np.array_equal(read(features).events.values, whole.events.values)
    some = read(features, first=5, n=20)
    assert np.array_equal(some.events.values, whole.events.values[5:25]) and some.events.provenance["rows"] == [5, 25]
    low, high = np.quantile(whole.events.values[:, 0], [0.25, 0.75])
    inside = read(features, window=(low, high))
    chosen = (whole.events.values[:, 0] >= low) & (whole.events.values[:, 0] <= high)
    assert np.array_equal(inside.events.values, whole.events.values[chosen])
    assert np.array_equal(inside.signal, whole.signal[chosen])
    assert inside.events.provenance["left_out_by_window"] == 40 - chosen.sum()


def test_to_a_file(features, tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "CHUNK", 7)
    output = events.lhco_to(features, tmp_path / "o.h5", progress=False, window=(2.5, 3.5))
    found, expected = events.Dijets.read(output), read(features, window=(2.5, 3.5))
    assert np.array_equal(found.events.values, expected.events.values)
    assert np.array_equal(found.signal, expected.signal) and 0 < len(found) < 40
    assert events.read(output).names[-1] == "signal"
    with pytest.raises(ValueError, match="output is .*; it must be another file than path"):
        events.lhco_to(features, features)
    with pytest.raises(ValueError, match="none of the events 0 to 39 of .* has two jets and a mass of 9 to 9.5 TeV"):
        events.lhco_to(features, tmp_path / "none.h5", progress=False, window=(9, 9.5))
    assert not (tmp_path / "none.h5").exists()


def test_jets_without_tau(tmp_path):
    rows = high_level()[0]
    rows[3, 4:7] = 0  # a single particle
    rows[4, 5] = np.nan
    path = frame(tmp_path / "a.h5", {COLUMNS: rows}, COLUMNS)
    with pytest.raises(FileFormatError, match=r"event 4 has no two jets, or NaN .* as 1 of the events 0 to 39"):
        read(path)
    found = read(path, missing="skip")
    assert len(found) == 39 and found.events.provenance["left_out_without_two_jets"] == 1
    assert found.events.values[3, 3 if rows[3, 3] < rows[3, 10] else 4] == 0
    assert not found.signal[4] and found.signal[5]  # the label moves with its event


def test_no_labels(tmp_path):
    rows = high_level()[0]
    path = frame(tmp_path / "a.h5", {COLUMNS[:14]: rows[:, :14]}, COLUMNS[:14])
    with pytest.raises(FileFormatError, match="has no labels, but the columns pxj1.*; read it with labelled=False"):
        read(path)
    found = read(path, labelled=False)
    assert found.signal is None and "no labels" in repr(found)
    assert events.Dijets.read(events.lhco_to(path, tmp_path / "b.h5", labelled=False, progress=False)).signal is None


# --- particles --------------------------------------------------------------------------------------------


def subjettiness_by_hand(constituents, n):
    """Winner-take-all kT by hand: pairs with the smallest distance become the harder one's direction."""
    axes = [tuple(c) for c in constituents]

    def turn(a, b):
        return (a - b + np.pi) % (2 * np.pi) - np.pi

    while len(axes) > n:
        pairs = [(i, j) for i in range(len(axes)) for j in range(i)]
        i, j = min(
            pairs,
            key=lambda ij: (
                min(axes[ij[0]][0], axes[ij[1]][0]) ** 2
                * ((axes[ij[0]][1] - axes[ij[1]][1]) ** 2 + turn(axes[ij[0]][2], axes[ij[1]][2]) ** 2)
            ),
        )
        a, b = axes[i], axes[j]
        winner = a if a[0] > b[0] else b
        axes = [axis for k, axis in enumerate(axes) if k not in (i, j)] + [(a[0] + b[0], *winner[1:])]
    distance = [[np.hypot(c[1] - a[1], turn(c[2], a[2])) for a in axes] for c in constituents]
    pt = np.array([c[0] for c in constituents])
    return float((pt * np.min(distance, 1)).sum() / pt.sum())


def particles(n=12, seed=0):
    """Events with two jets far apart, and their particles (pT, eta, phi) of each."""
    rng = np.random.default_rng(seed)
    rows, jets = np.zeros((n, 2101)), []
    for i in range(n):
        axis = rng.uniform(-np.pi, np.pi)
        both = []
        for side, eta in enumerate((0.5, -0.4)):
            k = rng.integers(4, 12)
            both.append(
                np.column_stack(
                    [
                        rng.uniform(100, 400, k),
                        eta + rng.uniform(-0.3, 0.3, k),
                        axis + np.pi * side + rng.uniform(-0.3, 0.3, k),
                    ]
                )
            )
        flat = np.concatenate(both)
        flat[:, 2] = (flat[:, 2] + np.pi) % (2 * np.pi) - np.pi
        flat = flat[np.argsort(-flat[:, 0])]
        rows[i, : flat.size] = flat.ravel()
        rows[i, 2100] = i % 2
        jets.append(both)
    return rows, jets


def test_particles(tmp_path, monkeypatch):
    pytest.importorskip("fastjet", reason=REASON)
    rows, jets = particles()
    numbers = tuple(range(2101))
    path = frame(tmp_path / "p.h5", {numbers: rows}, numbers)
    monkeypatch.setattr(reader, "PARTICLE_CHUNK", 5)
    found = read(path)
    for i, both in enumerate(jets):
        momenta = []
        for pt, eta, phi in (jet.T for jet in both):
            p = [pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), pt * np.cosh(eta)]
            momenta.append(np.sum(p, 1))
        mass = np.array([np.sqrt(p[3] ** 2 - (p[:3] ** 2).sum()) for p in momenta])
        total = np.sum(momenta, 0)
        tau21 = [subjettiness_by_hand(jet, 2) / subjettiness_by_hand(jet, 1) for jet in both]
        light = mass.argmin()
        expected = [np.sqrt(total[3] ** 2 - (total[:3] ** 2).sum()) / 1e3, mass.min() / 1e3, np.ptp(mass) / 1e3]
        expected += [tau21[light], tau21[1 - light]]
        np.testing.assert_allclose(found.events.values[i], expected, rtol=1e-6)
    assert found.signal.tolist() == [i % 2 == 1 for i in range(12)]
    records = np.empty(12, [("index", np.int64), ("values_block_0", np.float64, (2101,))])
    records["index"], records["values_block_0"] = np.arange(12), rows
    assert np.array_equal(read(table(tmp_path / "t.h5", records)).events.values, found.events.values)


def test_particles_without_two_jets_or_labels(tmp_path):
    pytest.importorskip("fastjet", reason=REASON)
    rows = particles()[0][:, :2100]
    rows[7, 3:] = 0  # one particle
    rows[8] = 0
    numbers = tuple(range(2100))
    path = frame(tmp_path / "p.h5", {numbers: rows}, numbers)
    with pytest.raises(FileFormatError, match="no labels, but 2100 columns; read it with labelled=False"):
        read(path)
    with pytest.raises(FileFormatError, match="event 7 has no two jets, or NaN in a feature, as 2 of the events"):
        read(path, labelled=False)
    found = read(path, labelled=False, missing="skip")
    assert len(found) == 10 and np.isfinite(found.events.values).all()
    rows[2, 3] = -1.0
    with pytest.raises(FileFormatError, match=r"particle 1 of event 2 has pT = -1, eta = .*; pT must be positive"):
        read(frame(path, {numbers: rows}, numbers), labelled=False)


# --- numpy ------------------------------------------------------------------------------------------------


def test_numpy_files(tmp_path):
    rows, expected = high_level()
    np.save(tmp_path / "innerdata_train.npy", np.column_stack([expected, rows[:, -1]]))
    found = read(tmp_path / "innerdata_train.npy")
    np.testing.assert_allclose(found.events.values, expected, rtol=1e-12)
    assert found.signal.sum() == 14
    np.savez(tmp_path / "a.npz", data=expected, data_label=rows[:, -1], test=expected[:9], test_label=rows[:9, -1])
    with pytest.raises(ValueError, match="part is None; .* has the tables data, test"):
        read(tmp_path / "a.npz")
    assert len(read(tmp_path / "a.npz", part="test")) == 9
    np.testing.assert_allclose(read(tmp_path / "a.npz", part="data").events.values, expected, rtol=1e-12)
    np.save(tmp_path / "five.npy", expected)
    with pytest.raises(FileFormatError, match="has 5 columns; it must have 6: mjj, .* and the label"):
        read(tmp_path / "five.npy")
    assert read(tmp_path / "five.npy", labelled=False).signal is None
    np.savez(tmp_path / "o.npz", data=np.array([object()] * 5), data_label=np.zeros(5))
    with pytest.raises(FileFormatError, match="data holds no numbers"):
        read(tmp_path / "o.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:400])
    with pytest.raises(FileFormatError, match="is not a whole .npz file"):
        read(tmp_path / "cut.npz", part="data")


# --- what is refused --------------------------------------------------------------------------------------


def test_other_columns_units_and_labels(tmp_path):
    rows = high_level()[0]
    path = tmp_path / "a.h5"
    others = ("pxj1", *(f"y{i}" for i in range(14)))
    with pytest.raises(FileFormatError, match="has 15 columns, pxj1, y0, y1, y2.*without pyj1, pzj1, mj1 here"):
        read(frame(path, {others: rows}, others))
    more = (*COLUMNS, "mystery")
    with pytest.raises(FileFormatError, match="has columns that features do not have: mystery"):
        read(frame(path, {more: np.column_stack([rows, rows[:, 0]])}, more))
    in_tev = rows.copy()
    in_tev[:, [*range(4), *range(7, 11)]] *= 1e-3
    with pytest.raises(FileFormatError, match=r"the mass of two jets is 0.00\d+ TeV in the median .* must be in GeV"):
        read(frame(path, {COLUMNS: in_tev}, COLUMNS))
    wrong = rows.copy()
    wrong[11, -1] = 0.5
    with pytest.raises(FileFormatError, match="the label of event 11 is 0.5; it must be 0 or 1"):
        read(frame(path, {COLUMNS: wrong}, COLUMNS))
    frame(path, {COLUMNS: rows}, COLUMNS)
    with pytest.raises(FileFormatError, match="has labels; leave out labelled=False"):
        read(path, labelled=False)
    with pytest.raises(ValueError, match="first is 40; it must be below 40"):
        read(path, first=40)
    with pytest.raises(ValueError, match="n is 41; it must be at most 40"):
        read(path, n=41)
    with pytest.raises(ValueError, match="part is 'data'; it must be left out"):
        read(path, part="data")
    with pytest.raises(ValueError, match="must be a file of the LHC Olympics"):
        read(tmp_path / "a.csv")


def test_pickled_names_are_never_read(tmp_path, monkeypatch):
    def never(*_, **__):
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "loads", never)
    path = tmp_path / "a.h5"
    frame(path, {COLUMNS: high_level()[0]}, COLUMNS)
    with h5py.File(path, "a") as file:
        del file["df/axis0"]
        names = file.create_dataset("df/axis0", (1,), h5py.vlen_dtype(np.uint8))
        names[0] = np.frombuffer(pickle.dumps(list(COLUMNS)), np.uint8)
    with pytest.raises(FileFormatError, match=r"column names in /df/axis0 are pickled.*never unpickles; with pandas"):
        read(path)
    records = np.zeros(5, [("index", np.int64), ("values_block_0", np.float64, (15,))])
    with pytest.raises(FileFormatError, match="names of its 15 columns are pickled, which is never read; with"):
        read(table(path, records))
    records = np.zeros(5, [("index", np.int64), ("values_block_0", "f8", (14,)), ("values_block_1", "i8", (1,))])
    with pytest.raises(FileFormatError, match="columns in several blocks, and their order is pickled"):
        read(table(path, records))


def test_foreign_and_truncated_files(features, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read(tmp_path / "nothing.h5")
    cut = tmp_path / "cut.h5"
    cut.write_bytes(features.read_bytes()[:3000])
    with pytest.raises(FileFormatError, match="not a whole HDF5 file"):
        read(cut)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["x"] = np.zeros(3)
    with pytest.raises(FileFormatError, match="must hold one frame of pandas, as DataFrame.to_hdf writes it; it has x"):
        read(tmp_path / "b.h5")
    with h5py.File(features, "a") as file:
        del file["df/block0_values"]
    with pytest.raises(FileFormatError, match="the blocks of /df do not hold each of its columns once"):
        read(features)
    frame(features, {COLUMNS: high_level()[0][:, :14]}, COLUMNS)
    with pytest.raises(FileFormatError, match=r"block0_values is \[40, 14\] of float64; it must be numbers \[N, 15\]"):
        read(features)


def test_unknown_compression(features, monkeypatch):
    from pyrogen.events import pandas_hdf5

    frame(features, {COLUMNS: high_level()[0]}, COLUMNS, compression="gzip", chunks=(7, 15))
    monkeypatch.setattr(pandas_hdf5.h5py.h5z, "filter_avail", lambda code: False)
    monkeypatch.setattr(pandas_hdf5, "_try_plugins", lambda: None)
    with pytest.raises(FileFormatError, match="is compressed by deflate.*pip install hdf5plugin; or .* ptrepack"):
        read(features)
