"""Files of events with a varying number of objects."""

import h5py
import numpy as np
import pytest
from test_multiplicity_sample import LAYOUT, NAMES, rows, same, sample

import pyrogen as pg
from pyrogen import events
from pyrogen.events import Multiplicity
from pyrogen.files import FileFormatError

KEEPING = [("a.h5", {}), ("a.h5", {"layout": "rows"}), ("a.root", {})]


def full():
    return sample(
        weights=np.arange(1.0, 6), uncertainties=np.full(5, 0.1), log_weights=np.zeros((5, 2)), provenance={"seed": 3}
    )


def equal(a, b):
    return (
        same(a.values, b.values)
        and (a.names, a.units, a.multiplicity, a.provenance) == (b.names, b.units, b.multiplicity, b.provenance)
        and all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("weights", "uncertainties"))
    )


@pytest.mark.parametrize(("name", "options"), KEEPING)
def test_files_keep_the_layout(tmp_path, name, options):
    path = tmp_path / name
    full().save(path, **options)
    assert equal(events.read(path), full())
    assert events.read(path, multiplicity=LAYOUT).multiplicity == LAYOUT
    parts = list(events.stream(path, chunk=2))
    assert [part.multiplicity for part in parts] == [LAYOUT] * 3
    assert equal(pg.EventSample.concatenate(parts), full())


@pytest.mark.parametrize(("name", "options"), KEEPING)
def test_columns_of_a_file_follow_the_rules_of_select(tmp_path, name, options):
    path = tmp_path / name
    full().save(path, **options)
    for names in (NAMES[:6], ["eta_j1", "pt_l"]):
        assert equal(events.read(path, columns=names), full().select(names))
    with pytest.raises(ValueError, match="no column 'pt_j2'"):
        events.read(path, columns=["pt_j2"])
    with pytest.raises(ValueError, match=r"multiplicity is .*it must be that of .*, or be left out"):
        events.read(path, multiplicity=Multiplicity(2, 3, 2))


@pytest.mark.parametrize(("name", "options"), KEEPING)
def test_parts_are_written_one_behind_the_other(tmp_path, name, options):
    path = tmp_path / name
    with events.EventWriter(path, **options) as writer:
        writer.write(full()[:2])
        writer.write(full()[2:])
        with pytest.raises(ValueError, match="multiplicity=None"):
            writer.write(full().with_count(3).select(NAMES))
    assert equal(events.read(path), full())


@pytest.mark.parametrize("options", [{}, {"layout": "rows"}])
def test_events_are_appended_to_files_of_their_layout_alone(tmp_path, options):
    path = tmp_path / "a.h5"
    for part in (full()[:2], full()[2:]):
        events.append(part, path, **options)
    assert equal(events.read(path), full())
    with pytest.raises(ValueError, match="multiplicity=None"):
        events.append(full().with_count(3), path)
    assert equal(events.read(path), full())


def test_a_plain_file_has_no_layout(tmp_path):
    full().with_count(2).save(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        assert "multiplicity" not in file
    assert events.read(tmp_path / "a.h5").multiplicity is None


def gap():
    table = rows()
    table[3, 3] = np.nan
    return table


def test_foreign_files_need_to_be_told_the_layout(tmp_path):
    def hdf5(path, table):
        with h5py.File(path, "w") as file:
            file["table"] = table

    for path, write in ((tmp_path / "a.npy", np.save), (tmp_path / "a.h5", hdf5)):
        write(path, rows())
        with pytest.raises(FileFormatError, match=r"NaN or infinity.*multiplicity=.*pg\.events\.read"):
            events.read(path)
        assert same(events.read(path, multiplicity=LAYOUT).values, rows())
        two = events.read(path, multiplicity=Multiplicity(2, 2, 2), columns=[f"x{i}" for i in range(6)])
        assert same(two.values, rows()[:, :6])
        write(path, gap())
        with pytest.raises(FileFormatError, match=r"a\.(npy|h5) holds no sample .*row 3, column 3 \(x3\): nan"):
            events.read(path, multiplicity=LAYOUT)
        with pytest.raises(FileFormatError, match="row 3, column 3"):
            list(events.stream(path, multiplicity=LAYOUT, chunk=2))


def test_records_of_numpy_can_have_a_layout(tmp_path):
    table = np.rec.fromarrays(rows().T, names=NAMES)
    np.save(tmp_path / "a.npy", np.asarray(table))
    found = events.read(tmp_path / "a.npy", multiplicity=LAYOUT)
    assert found.names == tuple(NAMES)
    assert same(found.values, rows())


@pytest.mark.parametrize("name", ["a.npy", "a.lhe"])
def test_formats_that_would_lose_the_layout_refuse_it(tmp_path, name):
    with pytest.raises(ValueError, match=r"would lose the multiplicity; write .*\.h5, .* or \.root instead"):
        sample().save(tmp_path / name)
    assert not (tmp_path / name).exists()


def test_wrong_layouts_of_the_option_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", rows())
    with pytest.raises(TypeError, match="multiplicity"):
        events.read(tmp_path / "a.npy", multiplicity=3)
    with pytest.raises(FileFormatError, match="must have 14 columns"):
        events.read(tmp_path / "a.npy", multiplicity=Multiplicity(2, 4, 3))
