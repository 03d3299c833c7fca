"""HDF5 files of a user's that point elsewhere, or declare more than they hold: refused before they are read."""

import h5py
import numpy as np
import pytest

import pyrogen as pg
from pyrogen import events
from pyrogen.hdf5 import structure


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
        file.create_dataset(name, data=np.zeros((2**17, 2)), chunks=(2**14, 2), compression="gzip")
    elif how == "large chunk":
        file.create_dataset(name, data=np.ones((10, 2)), chunks=(2**15, 2), maxshape=(None, 2), compression="gzip")
    elif how == "null":
        file[name] = h5py.Empty("f8")
    elif how == "text":
        file[name] = "text"


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
