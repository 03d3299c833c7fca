"""Plain numpy files: every layout of numbers, and headers that say what the file does not hold."""

from __future__ import annotations

import numpy as np
import pytest

from pyrogen import events
from pyrogen.events import EventSample
from pyrogen.files import FileFormatError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.npy"


def test_rows_of_every_order(path):
    values = np.arange(60.0).reshape(20, 3)
    for stored in (
        values,
        np.asfortranarray(values),
        values.astype(">f4"),
        values[:, ::-1],
        np.asfortranarray(values[:1]),
    ):
        np.save(path, stored)
        for chunk in (1, 7, 100):
            sample = EventSample.concatenate(events.stream(path, chunk=chunk))
            assert np.array_equal(sample.values, stored)
            assert np.array_equal(events.read(path, columns=["x2", "x0"]).values, stored[:, [2, 0]])
    np.save(path, values[:, 0])
    assert np.array_equal(events.read(path, columns=["x0"]).values[:, 0], values[:, 0])


def test_records(path):
    records = np.zeros(5, [("pt", "f4"), ("p", "f8", (2,)), ("weight", "f8")])
    records["weight"] = np.arange(1, 6)
    np.save(path, records)
    sample = events.read(path)
    assert sample.names == ("pt", "p[0]", "p[1]") and sample.weights.tolist() == [1, 2, 3, 4, 5]
    for fields, message in (
        ([("pt", "f8"), ("weight", "f8"), ("weights", "f8")], "weight, weights are all weights"),
        ([("p", "f8", (2,)), ("p[0]", "f8")], r"two columns have the name 'p\[0\]'"),
        ([("p", [("x", "f8")]), ("q", "f8")], "holds no sample of events"),
        ([("p", "S3"), ("q", "f8")], "holds no sample of events"),
    ):
        np.save(path, np.ones(5, fields) if "S3" not in str(fields) else np.zeros(5, fields))
        with pytest.raises(FileFormatError, match=rf"a\.npy .*{message}"):
            events.read(path)


@pytest.mark.parametrize(
    "shape", ["(1000000000, 2)", "(2, 1000000000)", "(4,)", "(1,2)", "(-5, 2)", "(1000000000000000000, 9)"]
)
def test_sizes_that_the_file_does_not_have(path, shape):
    np.save(path, np.ones((5, 2)))
    content = path.read_bytes()
    said = b"'shape': (5, 2), }"
    assert said in content
    path.write_bytes(content.replace(said + b" " * 30, (f"'shape': {shape}, }}".encode()).ljust(len(said) + 30)))
    with pytest.raises(FileFormatError, match=r"a\.npy is not a whole \.npy file"):
        events.read(path)


@pytest.mark.parametrize(
    "array",
    [np.array([{"a": 1}], dtype=object), np.array(["x"]), np.ones((2, 2), complex), np.ones(()), np.ones((2, 2, 2))],
)
def test_arrays_that_are_no_table_of_numbers(path, array):
    np.save(path, array, allow_pickle=True)
    with pytest.raises(
        FileFormatError, match=r"a\.npy (is not a whole \.npy file of numbers|holds no sample of events)"
    ):
        events.read(path)


def test_a_file_that_becomes_shorter_while_it_is_read(path):
    """A mapping of it would end the process."""
    np.save(path, np.ones((100_000, 2)))
    parts = events.stream(path, chunk=1000)
    next(parts)
    path.write_bytes(path.read_bytes()[:50_000])
    with pytest.raises(FileFormatError, match=r"a\.npy became shorter while it was read"):
        list(parts)


def test_damaged_headers_are_refused_by_name(path):
    np.save(path, np.random.default_rng(0).normal(size=(50, 2)))
    content, rng = path.read_bytes(), np.random.default_rng(1)
    for _ in range(150):
        damaged, start = bytearray(content), int(rng.integers(128))
        damaged[start : start + int(rng.integers(1, 5))] = rng.bytes(int(rng.integers(0, 5)))
        path.write_bytes(damaged)
        try:
            sample = events.read(path)
        except FileFormatError as error:
            assert str(path) in str(error)
        else:  # what cannot be noticed: another type of number of the same size, and the order of the axes
            assert sample.values.size in (50, 100, 200)
