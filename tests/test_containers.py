"""Containers of events: what they carry besides numbers counts or is refused, whatever package they are of."""

from __future__ import annotations

import awkward
import numpy as np
import pandas
import pytest
import torch
import xarray

import pyrogen as pg
from pyrogen.events import EventSample, check_events
from pyrogen.events.containers import numbers_of, table_of

VALUES = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
WEIGHTS = np.array([0.5, 1.5, 2.5])
COLUMNS = {"pt": VALUES[:, 0], "eta": VALUES[:, 1], "weight": WEIGHTS}


class Column:
    """A column of polars (null_count is a method) or Arrow (a number)."""

    def __init__(self, values, method=True, missing=()):
        self._values, self._method, self._missing = np.asarray(values), method, list(missing)

    @property
    def null_count(self):
        return (lambda: len(self._missing)) if self._method else len(self._missing)

    def is_null(self):
        return np.isin(np.arange(len(self._values)), self._missing)

    def __len__(self):
        return len(self._values)

    def __array__(self, dtype=None, copy=None):
        return self._values.astype(object) if self._missing else self._values


class PolarsFrame:
    def __init__(self, columns, missing=()):
        self._columns = {name: Column(column, True, missing) for name, column in columns.items()}

    @property
    def columns(self):
        return list(self._columns)

    def null_count(self):
        raise AssertionError("the columns know")

    def __getitem__(self, name):
        return self._columns[name]


class ArrowTable:
    def __init__(self, columns, missing=()):
        self._columns = {name: Column(column, False, missing) for name, column in columns.items()}

    @property
    def column_names(self):
        return list(self._columns)

    def column(self, i):
        return list(self._columns.values())[i]


class Astropy(np.ndarray):
    """An array with a unit, as astropy has it."""

    unit = property(lambda self: self._unit)
    value = property(lambda self: self.view(np.ndarray))

    @classmethod
    def of(cls, values, unit):
        made = np.array(values, dtype=float).view(cls)
        made._unit = unit
        return made


class Pint:
    def __init__(self, magnitude, units):
        self._magnitude, self._units = magnitude, units

    magnitude = property(lambda self: self._magnitude)
    units = property(lambda self: self._units)


def records():
    made = np.empty(3, [(name, "f8") for name in COLUMNS])
    for name, column in COLUMNS.items():
        made[name] = column
    return made


NAMED = {
    "pandas": lambda: pandas.DataFrame(COLUMNS),
    "pandas of Arrow-like integers": lambda: pandas.DataFrame(COLUMNS).astype({"pt": "Int64", "eta": "Float64"}),
    "polars": lambda: PolarsFrame(COLUMNS),
    "arrow": lambda: ArrowTable(COLUMNS),
    "awkward": lambda: awkward.zip(COLUMNS),
    "records": records,
    "masked records": lambda: records().view(np.ma.MaskedArray),
    "xarray": lambda: xarray.Dataset({name: ("event", column) for name, column in COLUMNS.items()}),
    "mapping": lambda: {name: torch.tensor(column) for name, column in COLUMNS.items()},
    "mapping of Series": lambda: {name: pandas.Series(column) for name, column in COLUMNS.items()},
}


@pytest.mark.parametrize("kind", NAMED)
def test_names_and_weights_of_every_container(kind):
    sample = EventSample(NAMED[kind]())
    assert sample.names == ("pt", "eta") and np.array_equal(sample.values, VALUES)
    assert np.array_equal(sample.weights, WEIGHTS)
    check_events(NAMED[kind](), 2)


UNITS = {
    "astropy": lambda: Astropy.of(VALUES, "GeV"),
    "pint": lambda: Pint(VALUES, "GeV"),
    "DataArray": lambda: xarray.DataArray(VALUES, dims=("event", "feature"), attrs={"units": "GeV"}),
    "Dataset": lambda: xarray.Dataset({n: ("event", VALUES[:, i], {"units": "GeV"}) for i, n in enumerate("ab")}),
    "mapping": lambda: {"a": Pint(VALUES[:, 0], "GeV"), "b": Astropy.of(VALUES[:, 1], "GeV")},
}


@pytest.mark.parametrize("kind", UNITS)
def test_units_of_every_container(kind):
    sample = EventSample(UNITS[kind]())
    assert sample.units == ("GeV", "GeV") and np.array_equal(sample.values, VALUES)
    assert EventSample(UNITS[kind](), units=["MeV", "MeV"]).units == ("MeV", "MeV")
    with pytest.raises(ValueError, match="context: the unit GeV would be lost"):
        numbers_of(UNITS[kind](), "context")


def test_units_that_are_none_and_weights_with_a_unit():
    assert EventSample(Astropy.of(VALUES, "")).units == EventSample(Pint(VALUES, "dimensionless")).units == ("", "")
    assert np.array_equal(EventSample(VALUES, weights=Pint(WEIGHTS, "dimensionless")).weights, WEIGHTS)
    with pytest.raises(ValueError, match="weights: the unit pb would be lost"):
        EventSample(VALUES, weights=Astropy.of(WEIGHTS, "pb"))
    for values in ({"a": VALUES[:, 0], "weight": Pint(WEIGHTS, "pb")},):
        with pytest.raises(ValueError, match="the unit pb of 'weight' would be lost"):
            EventSample(values)


def test_names_of_a_data_array_and_whole_numbers_for_names():
    array = xarray.DataArray(VALUES, dims=("event", "feature"), coords={"feature": ["eta", "pt"]})
    assert EventSample(array).names == ("eta", "pt")
    frame = pandas.DataFrame(VALUES)
    assert EventSample(frame).names == ("x0", "x1") and EventSample(frame[[1, 0]]).names == ("x1", "x0")
    assert EventSample(frame[0].rename("pt")).names == ("pt",) and EventSample(awkward.Array(VALUES)).names[0] == "x0"


def nullable():
    return pandas.DataFrame({"a": [1.0, 2.0], "b": pandas.array([1, None], "Int64")})


MISSING = {
    "masked": (np.ma.masked_array(VALUES, VALUES == 20.0), "row 1, column 1"),
    "masked rows in a list": (list(np.ma.masked_array(VALUES, VALUES == 20.0)), "row 1, column 1"),
    "masked column": ({"a": [1.0, 2.0], "b": np.ma.masked_array([1.0, 2.0], [False, True])}, "row 1"),
    "pandas": (nullable(), "row 1, column b"),
    "awkward": (awkward.Array([[1.0, 2.0], [3.0, None]]), "row 1, column 1"),
    "awkward records": (awkward.Array([{"a": 1.0, "b": None}]), "row 0, column b"),
    "polars": (PolarsFrame({"a": [1.0, 2.0, 3.0]}, missing=[2]), "row 2, column a"),
    "arrow": (ArrowTable({"a": [1.0, 2.0, 3.0]}, missing=[1, 2]), "row 1, column a"),
}


@pytest.mark.parametrize("kind", MISSING)
def test_masked_and_missing_entries_are_refused(kind):
    values, where = MISSING[kind]
    for take in (EventSample, check_events):
        with pytest.raises(ValueError, match=f"rows have masked or missing entries; the first is {where}"):
            take(values)


def test_masked_weights_and_masks_that_mask_nothing():
    with pytest.raises(ValueError, match="weights: 1 of 3 rows have masked .* row 2"):
        EventSample(VALUES, weights=np.ma.masked_array(WEIGHTS, [0, 0, 1]))
    assert np.array_equal(EventSample(np.ma.masked_array(VALUES)).values, VALUES)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        (pandas.DataFrame({"a": [1.0], "b": ["x"]}), TypeError, "column 'b' must be real numbers"),
        (pandas.DataFrame({"a": pandas.array(["x"], "string")}), TypeError, "column 'a' must be real numbers"),
        (pandas.DataFrame([[1.0, 2.0]], columns=["a", "a"]), ValueError, "differ from each other; repeated: a"),
        (pandas.DataFrame({("a", "b"): [1.0]}), TypeError, r"names must be strings; got \('a', 'b'\)"),
        (pandas.DataFrame(COLUMNS).reset_index(), ValueError, "the column 'index' looks like row numbers"),
        (pandas.DataFrame(COLUMNS | {"weights": WEIGHTS}), ValueError, "weight, weights are all weights"),
        ({"v": VALUES, "v[0]": WEIGHTS}, ValueError, r"two columns have the name 'v\[0\]'"),
        ({"a": [1.0], "b": [1.0, 2.0]}, ValueError, "the columns have different lengths: {'a': 1, 'b': 2}"),
        ({}, ValueError, "at least one column"),
        (awkward.Array([[1.0], [1.0, 2.0]]), ValueError, "the same number of values in each event"),
        (awkward.Array([{"a": {"b": 1.0}}]), TypeError, "fields within fields"),
        (xarray.Dataset({"a": ("x", [1.0]), "b": ("y", [1.0])}), ValueError, "different dimensions"),
        (type("Frame", (), {"columns": ["a"]})(), TypeError, "events: Frame has named columns in a way"),
    ],
)
def test_containers_that_are_no_table(values, error, message):
    with pytest.raises(error, match=message):
        EventSample(values)


def test_a_data_array_on_its_side():
    array = xarray.DataArray(VALUES.T, dims=("feature", "event"), coords={"feature": ["a", "b"]})
    with pytest.raises(ValueError, match="names are along the first dimension 'feature'; give its transpose"):
        EventSample(array)
    assert EventSample(array.T).names == ("a", "b")


def test_a_sample_of_a_sample_and_lists_of_tensors():
    sample = EventSample(VALUES, ["a", "b"], ["GeV", ""], WEIGHTS, provenance={"made": "by hand"})
    same = EventSample(sample)
    assert same.names == sample.names and same.units == sample.units and same.provenance == sample.provenance
    assert np.array_equal(same.weights, WEIGHTS) and EventSample(sample, weights=WEIGHTS * 2).weights[0] == 1
    rows = [torch.tensor(row, requires_grad=True) for row in VALUES]
    assert np.array_equal(EventSample(rows).values, VALUES)


def test_rows_chosen_by_pandas_and_masks():
    frame = frame_of(6)
    sample = EventSample(frame)
    assert sample[frame.x > 3].values[:, 0].tolist() == [4, 5]
    with pytest.raises(ValueError, match="the selection of rows: the row labels .* are not sorted"):
        sample[(frame.x > 3).sample(frac=1, random_state=1)]
    with pytest.raises(ValueError, match="the selection of rows: 1 of 6 rows have masked"):
        sample[np.ma.masked_array(frame.x > 3, frame.x == 2)]


def test_pairs_of_leptons_in_another_order():
    columns = dict(zip(pg.events.kinematics.PAIR_COLUMNS, np.ones((4, 3)), strict=True))
    pg.events.pair_momenta(columns)
    with pytest.raises(ValueError, match=r"a lepton pair has the columns px_e\+, .* in another order: pz_e-, "):
        pg.events.pair_momenta(dict(reversed(columns.items())))


def test_names_given_too():
    frame = pandas.DataFrame(VALUES, columns=["a", "b"])
    assert EventSample(frame, ["pt", "eta"]).names == ("pt", "eta")
    with pytest.raises(ValueError, match="names are b, a, but the columns of the events are a, b, in another order"):
        EventSample(frame, ["b", "a"])


# --- rows of pandas ----------------------------------------------------------------------------------------------


def frame_of(n: int) -> pandas.DataFrame:
    return pandas.DataFrame({"x": np.arange(n, dtype=float), "y": np.arange(n) ** 2.0, "w": 1.0 + np.arange(n)})


def test_weights_behind_a_cut():
    cut = frame_of(6)[lambda frame: frame.x > 2]
    for events in (cut[["x", "y"]], cut[["x", "y"]].to_numpy()):
        sample = EventSample(events, weights=cut.w)
        assert np.array_equal(sample.weights, sample.values[:, 0] + 1)


def test_weights_in_another_order_follow_the_labels():
    frame = frame_of(6)
    shuffled = frame.sample(frac=1, random_state=1)
    assert list(shuffled.index) != list(frame.index)
    for events, weights in ((shuffled, frame), (frame, shuffled), (shuffled, shuffled)):
        sample = EventSample(events[["x", "y"]], weights=weights.w, log_weights=np.log(weights[["w"]]))
        assert np.array_equal(sample.weights, sample.values[:, 0] + 1)
        assert np.array_equal(sample.log_weights[:, 0], np.log(sample.weights))
    mixed = EventSample({"x": frame.x, "y": shuffled.y})
    assert np.array_equal(mixed.values[:, 1], mixed.values[:, 0] ** 2)
    with pytest.raises(ValueError, match="weights: the row labels .* are not sorted, and the events have none"):
        EventSample(frame[["x", "y"]].to_numpy(), weights=shuffled.w)
    with pytest.raises(ValueError, match="row labels .* of 6 rows are not those of the 3 events"):
        EventSample(frame[["x", "y"]][:3], weights=frame.w)
    twice = pandas.concat([frame, frame])
    assert np.array_equal(EventSample(twice[["x", "y"]], weights=twice.w).weights, np.tile(frame.w, 2))
    with pytest.raises(ValueError, match="row labels"):
        EventSample(twice[["x", "y"]], weights=pandas.concat([frame, frame[::-1]]).w)


def test_plain_values_as_before():
    values = np.arange(6, dtype="f4").reshape(3, 2)
    assert table_of(values).values is values and table_of(values).names is None
    tensor = torch.arange(4.0).reshape(2, 2)
    assert np.shares_memory(table_of(tensor).values, tensor.numpy())
