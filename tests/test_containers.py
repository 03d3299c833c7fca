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
        (awkward.Array([[1.0], [1.0, 2.0]]), ValueError, "as many numbers in each event"),
        (awkward.Array([{"a": {"b": 1.0}}]), TypeError, "fields within fields"),
        (xarray.Dataset({"a": ("x", [1.0]), "b": ("y", [1.0])}), ValueError, "different dimensions"),
        (type("Frame", (), {"columns": ["a"]})(), TypeError, "events: Frame has named columns in a way"),
    ],
)
def test_containers_that_are_no_table(values, error, message):
    with pytest.raises(error, match=message):
        EventSample(values)


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
    with pytest.raises(ValueError, match="weights: the row labels .* are in no order, and the events have none"):
        EventSample(frame[["x", "y"]].to_numpy(), weights=shuffled.w)
    with pytest.raises(ValueError, match="row labels .* of 6 rows are not those of the 3 events"):
        EventSample(frame[["x", "y"]][:3], weights=frame.w)
    twice = pandas.concat([frame, frame])
    assert np.array_equal(EventSample(twice[["x", "y"]], weights=twice.w).weights, np.tile(frame.w, 2))
    with pytest.raises(ValueError, match="row labels"):
        EventSample(twice[["x", "y"]], weights=pandas.concat([frame, frame[::-1]]).w)


# --- the doors ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    frame = pandas.DataFrame({"pt": torch.randn(200), "eta": 5 + torch.randn(200), "weight": 1.0})
    model = pg.BayesianFlow(pg.CouplingFlow(2, blocks=2, hidden=(4,)))
    return frame, pg.SVI(epochs=2, progress=False).fit(model, frame)


def test_a_frame_trains_with_its_names_and_weights(trained):
    frame, posterior = trained
    assert posterior.info.names == ("pt", "eta")
    weighted = frame.assign(weight=np.where(np.arange(200) < 100, 1.0, 3.0))
    model, svi = posterior.model, pg.SVI(epochs=1, progress=False)
    a = svi.fit(model, weighted)
    b = svi.fit(model, frame[["pt", "eta"]].to_numpy(), weights=weighted.weight.to_numpy())
    c = svi.fit(model, frame[["pt", "eta"]], weights=weighted.weight.sample(frac=1, random_state=0))
    assert a.info.effective_size == b.info.effective_size == c.info.effective_size < 200
    assert torch.equal(a.weights.arrays["loc"], b.weights.arrays["loc"])
    assert torch.equal(a.weights.arrays["loc"], c.weights.arrays["loc"])


def test_columns_are_chosen_by_name(trained):
    frame, posterior = trained
    events = frame[["pt", "eta"]]
    expected = posterior.log_prob(events.to_numpy())
    assert torch.equal(posterior.log_prob(events[["eta", "pt"]]), expected)
    assert torch.equal(posterior.log_prob(EventSample(events[["eta", "pt"]])), expected)
    assert torch.equal(posterior.log_prob(events.rename(columns={"pt": "x0", "eta": "x1"})), expected)
    diagnostics = pg.diagnostics
    assert diagnostics.elpd(posterior, events[["eta", "pt"]]).mean == diagnostics.elpd(posterior, events).mean
    for other in (events.rename(columns={"eta": "phi"}), frame.assign(run=1)):
        with pytest.raises(ValueError, match=r"but the posterior was trained on \('pt', 'eta'\); choose them by name"):
            posterior.log_prob(other)


def test_conditions_are_chosen_by_name(trained, tmp_path):
    frame, _ = trained
    events, context = frame[["pt", "eta"]], frame.assign(a=frame.pt - 1, b=frame.eta * 2)[["a", "b"]]
    model = pg.BayesianFlow(pg.CouplingFlow(2, blocks=1, hidden=(4,), context=2))
    shuffled = context.sample(frac=1, random_state=0)  # the rows follow the labels
    posterior = pg.SVI(epochs=1, progress=False).fit(model, events, context=shuffled)
    posterior.save(tmp_path / "a.h5")
    for same in (posterior, pg.load(tmp_path / "a.h5")):
        assert same.info.context_names == ("a", "b")
        expected = same.log_prob(events.to_numpy(), context=context.to_numpy())
        assert torch.equal(same.log_prob(events, context=shuffled[["b", "a"]]), expected)
        with pytest.raises(ValueError, match=r"columns of context are \('a', 'c'\), .* trained on \('a', 'b'\)"):
            same.log_prob(events, context=context.rename(columns={"b": "c"}))
    for n, given in ((200, context), (20, context[:20])):
        pg.load(tmp_path / "a.h5").generate_to(tmp_path / "b.h5", n, draws=2, context=given)
        assert len(pg.events.read(tmp_path / "b.h5")) == n


def test_units_of_the_training(trained):
    frame, posterior = trained
    model, events = posterior.model, EventSample(frame, units=["GeV", ""])
    in_gev = pg.SVI(epochs=1, progress=False).fit(model, events)
    in_gev.log_prob(events), in_gev.log_prob(frame)
    with pytest.raises(ValueError, match="column pt is in MeV, but the posterior was trained in GeV; convert it"):
        in_gev.log_prob(EventSample(frame, units=["MeV", ""]))


def test_two_samples_with_their_columns_in_another_order(trained):
    frame, _ = trained
    for compare in (pg.diagnostics.wasserstein, lambda a, b: pg.diagnostics.train_classifier(a, b)):
        with pytest.raises(ValueError, match="has the columns pt, eta, .* in another order: eta, pt"):
            compare(frame[["pt", "eta"]], frame[["eta", "pt"]])
    weighted = frame.assign(weight=np.where(frame.pt > 0, 1.0, 0.0))
    assert pg.diagnostics.wasserstein(frame, weighted)[0] > 0.3


def test_weights_in_a_frame_are_not_lost(trained):
    frame, posterior = trained
    for call in (
        lambda: pg.diagnostics.elpd(posterior, frame),
        lambda: pg.to_inference_data(posterior, observed=frame),
        lambda: pg.SVI(epochs=1, progress=False).fit(
            pg.BayesianFlow(pg.CouplingFlow(2, blocks=1, hidden=(4,), context=3)), frame[["pt", "eta"]], context=frame
        ),
    ):
        with pytest.raises(ValueError, match="weights"):
            call()


# --- one dimension -----------------------------------------------------------------------------------------------


def test_one_feature_in_one_dimension():
    x = torch.linspace(-1, 1, 50)
    flow = pg.CouplingFlow(1, blocks=1, hidden=(4,), transform="rqs")
    model, svi = pg.BayesianFlow(flow), pg.SVI(epochs=1, progress=False)
    posterior, same = svi.fit(model, x), svi.fit(model, x[:, None])
    assert torch.equal(posterior.weights.arrays["loc"], same.weights.arrays["loc"])
    expected = posterior.log_prob(x[:, None])
    for given in (x, x.numpy(), x.tolist(), pandas.Series(x.numpy(), name="pt")):
        assert torch.equal(posterior.log_prob(given), expected)
    with pytest.raises(ValueError, match=r"shape \[N, d\]"):
        posterior.log_prob(torch.tensor(1.0))


@pytest.mark.parametrize("k", [1, 2])
def test_one_condition_for_all_events(k):
    torch.manual_seed(0)
    x, context = torch.randn(60, 2), torch.rand(60, k)
    model = pg.BayesianFlow(pg.CouplingFlow(2, blocks=1, hidden=(4,), context=k))
    svi = pg.SVI(epochs=1, progress=False)
    posterior = svi.fit(model, x, context=context)
    row = [0.5, 0.25][:k]
    expected = posterior.log_prob(x, context=torch.tensor(row).expand(60, k))
    for given in (row, torch.tensor(row), np.array(row)) + ((0.5,) if k == 1 else ()):
        assert torch.equal(posterior.log_prob(x, context=given), expected)
        assert torch.equal(
            posterior.sample(7, context=given), posterior.sample(7, context=torch.tensor(row).expand(7, k))
        )
    if k == 1:
        assert torch.equal(posterior.log_prob(x, context=context[:, 0]), posterior.log_prob(x, context=context))
        assert torch.equal(
            svi.fit(model, x, context=context[:, 0]).weights.arrays["loc"], posterior.weights.arrays["loc"]
        )
    for wrong in (torch.rand(k + 1), torch.rand(1, k), 0.5 if k > 1 else torch.rand(59)):
        with pytest.raises(ValueError, match="context"):
            posterior.log_prob(x, context=wrong)
    with pytest.raises(ValueError, match="context"):
        svi.fit(model, x, context=row)  # in training one row for all would tell nothing


def test_plain_values_as_before():
    values = np.arange(6, dtype="f4").reshape(3, 2)
    assert table_of(values).values is values and table_of(values).names is None
    tensor = torch.arange(4.0).reshape(2, 2)
    assert np.shares_memory(table_of(tensor).values, tensor.numpy())
