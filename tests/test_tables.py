"""Tables of Arrow and pandas, in and out: names, units, weights, layouts and provenance travel or are refused."""

import json

import numpy as np
import pandas
import pyarrow
import pytest
import xarray
from pyarrow import parquet

import pyrogen as pg
from pyrogen.events import EventSample, Multiplicity
from pyrogen.files import FileFormatError


def sample(layout=False):
    rng = np.random.default_rng(1)
    names, units, values = ["met", "pt_j1", "pt_j2"], ["GeV", "GeV", "TeV"], rng.uniform(size=(7, 3))
    if layout:
        values[::2, 2] = np.nan
    return EventSample(
        values,
        names,
        units,
        rng.uniform(size=7),
        rng.uniform(size=7),
        {"source": "a test", "nested": {"a": [1, 2.5]}},
        log_weights=rng.normal(size=(7, 2)),
        multiplicity=Multiplicity(1, 1, 2) if layout else None,
    )


def check_same(found, wanted, provenance=True):
    for name in ("values", "weights", "uncertainties", "log_weights"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    assert (found.names, found.units, found.multiplicity) == (wanted.names, wanted.units, wanted.multiplicity)
    assert not provenance or found.provenance == wanted.provenance


OUT = {
    "pandas": lambda s: s.to_pandas(),
    "arrow": lambda s: s.to_arrow(),
    "record batch": lambda s: s.to_arrow().combine_chunks().to_batches()[0],
    "xarray": lambda s: s.to_xarray(),
}


@pytest.mark.parametrize("layout", [False, True])
@pytest.mark.parametrize("kind", OUT)
def test_there_and_back(kind, layout):
    check_same(EventSample(OUT[kind](sample(layout))), sample(layout))


def test_what_the_tables_look_like():
    table, frame, dataset = sample().to_arrow(), sample().to_pandas(), sample().to_xarray()
    names = ["met", "pt_j1", "pt_j2", "weight", "uncertainty", "log_weight_0", "log_weight_1"]
    assert table.column_names == list(frame.columns) == list(dataset) == names
    assert table.schema.field("pt_j2").metadata == {b"units": b"TeV"} and table.schema.field("weight").metadata is None
    assert frame.attrs["units"] == {"met": "GeV", "pt_j1": "GeV", "pt_j2": "TeV"}
    assert isinstance(frame, pandas.DataFrame) and frame[["met", "weight"]].dtypes.eq(np.float64).all()
    assert dataset["pt_j1"].attrs == {"units": "GeV"} and dataset["met"].dims == ("event",)
    assert isinstance(dataset, xarray.Dataset) and json.loads(dataset.attrs["pyrogen"])["provenance"]["nested"]
    array = sample(True).to_awkward("jets")
    assert array.jets.pt.tolist()[0] == [sample(True).values[0, 1]]
    own = EventSample(np.ones((3, 2)), ["weight", "b"])
    for export in (own.to_pandas, own.to_arrow, own.to_xarray):
        with pytest.raises(ValueError, match="needs the column name 'weight' for weights"):
            export()


def test_cuts_and_chosen_columns_of_pandas_keep_what_still_fits():
    frame = sample(True).to_pandas()
    cut = EventSample(frame[frame.met > 0.3])
    check_same(cut, sample(True)[sample(True).column("met") > 0.3])
    few = EventSample(frame[["met", "weight"]])
    assert few.units == ("GeV",) and few.multiplicity is None and np.array_equal(few.weights, sample().weights)
    with pytest.raises(ValueError, match="pt_j2"):  # NaN, and columns that are no layout
        EventSample(frame[["met", "pt_j2"]])


def test_an_awkward_array_keeps_its_units():
    plain = EventSample(np.ones((3, 2)), ["a", "b"], ["GeV", ""], provenance={"x": 1})
    check_same(EventSample(plain.to_awkward()), plain)


class Stream:
    """What any package offers whose tables Arrow can read."""

    def __init__(self, table):
        self._table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self._table.__arrow_c_stream__(requested_schema)


def test_whatever_has_a_stream_of_arrow():
    check_same(EventSample(Stream(sample().to_arrow())), sample())
    posterior_columns = pg.events.check_events(Stream(pyarrow.table({"a": [1.0, 2.0], "b": [3.0, 4.0]})), 2)
    assert posterior_columns is None


def test_polars():
    polars = pytest.importorskip("polars")
    frame = polars.from_arrow(sample().to_arrow())
    check_same(EventSample(frame, units=sample().units), sample(), provenance=False)
    with pytest.raises(ValueError, match="column met"):
        EventSample(frame.with_columns(polars.lit(None, polars.Float64).alias("met")))


MU = pyarrow.StructArray.from_arrays([pyarrow.array([1.0, 2.0]), pyarrow.array([0.1, 0.2])], ["pt", "eta"])


def test_columns_of_every_kind():
    v = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array([1, 2, 3, 4], pyarrow.int8()), 2)
    deep = pyarrow.StructArray.from_arrays([MU], ["in"])
    table = pyarrow.table(
        {
            "mu": MU,
            "v": v,
            "flag": [True, False],
            "n": pyarrow.array([3, 4]).dictionary_encode(),
            "half": pyarrow.array(np.array([1, 2], np.float16)),
            "deep": deep,
        }
    )
    found = EventSample(table)
    assert found.names == ("pt_mu", "eta_mu", "v[0]", "v[1]", "flag", "n", "half", "pt_in_deep", "eta_in_deep")
    np.testing.assert_array_equal(found.values, [[1, 0.1, 1, 2, 1, 3, 1, 1, 0.1], [2, 0.2, 3, 4, 0, 4, 2, 2, 0.2]])
    chunked = pyarrow.concat_tables([table.slice(1), table.slice(0, 1)])  # rows in pieces, which begin in mid-array
    np.testing.assert_array_equal(EventSample(chunked).values, found.values[::-1])
    assert EventSample(table.select(["mu"]).slice(1)).values.tolist() == [[2.0, 0.2]]


WRONG = {
    "a missing number": (
        {"a": [1.0, None]},
        ValueError,
        "1 of 2 rows have masked or missing entries; .*row 1, column a",
    ),
    "a missing record": (
        {"mu": pyarrow.array([{"pt": 1.0}, None], pyarrow.struct([("pt", pyarrow.float64())]))},
        ValueError,
        "row 1, column pt_mu",
    ),
    "a missing number of a record": ({"mu": pyarrow.array([{"pt": 1.0}, {"pt": None}])}, ValueError, "column pt_mu"),
    "a missing list": (
        {"v": pyarrow.array([[1.0], None], pyarrow.list_(pyarrow.float64(), 1))},
        ValueError,
        "column v",
    ),
    "lists": ({"jets": [[1.0], [2.0, 3.0]]}, TypeError, "column 'jets' has lists of different lengths .*from_awkward"),
    "texts": ({"a": ["x", "y"]}, TypeError, "column 'a' must be real numbers"),
    "times": ({"a": pyarrow.array([1, 2], pyarrow.timestamp("s"))}, TypeError, "column 'a' must be real numbers"),
    "two of a name": ({"mu": MU, "pt_mu": [1.0, 2.0]}, ValueError, "repeated: pt_mu"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_would_be_lost_is_refused_by_name(kind):
    columns, error, message = WRONG[kind]
    with pytest.raises(error, match=message):
        EventSample(pyarrow.table(columns))


def test_units_and_weights_of_fields():
    schema = pyarrow.schema(
        [
            pyarrow.field("pt", pyarrow.float32(), metadata={b"unit": b"GeV"}),
            pyarrow.field("weight", pyarrow.float64()),
        ]
    )
    found = EventSample(pyarrow.table([[1.0, 2.0], [0.5, 2.0]], schema=schema))
    assert found.units == ("GeV",) and found.weights.tolist() == [0.5, 2.0]
    wrong = schema.set(1, schema.field(1).with_metadata({b"units": b"pb"}))
    with pytest.raises(ValueError, match="the unit pb of 'weight' would be lost"):
        EventSample(pyarrow.table([[1.0, 2.0], [0.5, 2.0]], schema=wrong))
    damaged = pyarrow.table({"a": [1.0]}).replace_schema_metadata({b"pyrogen": b"{"})
    with pytest.raises(FileFormatError, match="the labels of pyrogen in the metadata are damaged"):
        EventSample(damaged)


def test_the_index_of_pandas_is_no_column():
    frame = pandas.DataFrame({"a": [1.0, 2.0]}, index=pandas.Index([7, 9], name="event"))
    assert EventSample(pyarrow.Table.from_pandas(frame)).names == EventSample(frame).names == ("a",)


@pytest.mark.parametrize("suffix", [".parquet", ".feather", ".arrow"])
@pytest.mark.parametrize("layout", [False, True])
def test_files_keep_everything(tmp_path, suffix, layout):
    path = tmp_path / f"events{suffix}"
    sample(layout).save(path)
    check_same(pg.events.read(path), sample(layout))
    first = path.read_bytes()
    with pg.events.EventWriter(path) as writer:
        for rows in (slice(0, 1), slice(1, 5), slice(5, 7)):
            writer.write(sample(layout)[rows])
    check_same(pg.events.read(path), sample(layout))
    parts = list(pg.events.stream(path, chunk=3))
    assert [len(part) for part in parts] == [3, 3, 1] and [part.part for part in parts] == [0, 3, 6]
    check_same(EventSample.concatenate(parts), sample(layout))
    chosen = pg.events.read(path, columns=["met", "pt_j1"])
    check_same(chosen, sample(layout).select(["met", "pt_j1"]))
    sample(layout).save(path)
    assert path.read_bytes() == first  # the same events, the same bits
    with pytest.raises(ValueError, match="has no column 'eta'; its columns are met, pt_j1, pt_j2"):
        pg.events.read(path, columns=["eta"])


def test_a_file_of_others(tmp_path):
    path = tmp_path / "others.parquet"
    table = pyarrow.table({"run": ["a", "b"], "mu": MU, "w": [[1.0], [2.0, 3.0]], "weight": [1.0, 3.0]})
    parquet.write_table(table, path, row_group_size=1)
    found = pg.events.read(path, columns=["eta_mu"])
    assert found.names == ("eta_mu",) and found.weights.tolist() == [1.0, 3.0]
    assert found.provenance == {"file": "others.parquet"}
    for columns, message in ((None, "column 'w' has lists"), (["run"], "column 'run' must be real numbers")):
        with pytest.raises(FileFormatError, match=message):
            pg.events.read(path, columns=columns)
    nulls = tmp_path / "nulls.parquet"
    parquet.write_table(pyarrow.table({"a": [1.0, None]}), nulls)
    with pytest.raises(FileFormatError, match="row 1, column a"):
        pg.events.read(nulls)
    jets = tmp_path / "jets.parquet"
    parquet.write_table(pyarrow.table({"met": [1.0, 2.0], "pt": [3.0, np.nan]}), jets)
    assert pg.events.read(jets, multiplicity=Multiplicity(1, 1, 1, 0)).counts.tolist() == [1, 0]


@pytest.mark.parametrize("suffix", [".parquet", ".feather"])
def test_damage_is_found(tmp_path, suffix):
    path = tmp_path / f"events{suffix}"
    sample().save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with pytest.raises(FileFormatError, match="is not a whole file of"):
        pg.events.read(path)
    if suffix == ".parquet":
        place = whole.index(np.float64(sample().values[3, 0]).tobytes())
        path.write_bytes(whole[:place] + b"\xff" + whole[place + 1 :])
        with pytest.raises(FileFormatError, match="is damaged: Parquet: .*(CRC|crc)"):
            pg.events.read(path)
    path.write_bytes(b"no table")
    with pytest.raises(FileFormatError, match="is not a whole file of"):
        pg.events.read(path)
