"""Samples of events with a varying number of objects."""

import numpy as np
import pytest
import torch

import pyrogen as pg
from pyrogen.events import Multiplicity, check_events
from pyrogen.events.sample import as_sample

LAYOUT = Multiplicity(shared=2, each=2, most=3)
NAMES = ["pt_l", "eta_l", "pt_j1", "eta_j1", "pt_j2", "eta_j2", "pt_j3", "eta_j3"]
COUNTS = [1, 3, 2, 1, 2]


def rows() -> np.ndarray:
    """Numbers from 0 on, padded with NaN."""
    table = np.arange(40.0).reshape(5, 8)
    for row, count in zip(table, COUNTS, strict=True):
        row[LAYOUT.width(count) :] = np.nan
    return table


def sample(**options) -> pg.EventSample:
    return pg.EventSample(rows(), NAMES, ["GeV", ""] * 4, multiplicity=LAYOUT, **options)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a, b, equal_nan=True)


def test_rows_are_kept_and_counted():
    events = sample()
    assert same(events.values, rows())
    assert events.counts.tolist() == COUNTS
    assert pg.EventSample(np.ones((2, 3))).counts is None


def test_rows_that_do_not_fit_are_named():
    table = rows()
    table[2, 3] = np.nan
    with pytest.raises(ValueError, match=r"1 of 5 rows do not fit .* row 12, column 3 \(eta_j1\): nan"):
        pg.EventSample(table, NAMES, multiplicity=LAYOUT, part=10)
    with pytest.raises(ValueError, match="must have 8 columns"):
        pg.EventSample(table[:, :6], multiplicity=LAYOUT)
    with pytest.raises(TypeError, match="multiplicity"):
        pg.EventSample(rows(), multiplicity=3)


def test_nan_without_a_layout_is_refused_with_the_cure_where_it_looks_like_objects():
    with pytest.raises(ValueError, match=r"row 0, column 4 \(pt_j2\): nan\. If the NaN .* multiplicity="):
        pg.EventSample(rows(), NAMES)
    gap = rows()
    gap[0, 1] = np.nan
    infinite = rows()
    infinite[1, 0] = np.inf
    for table in (gap, infinite):
        with pytest.raises(ValueError, match="NaN or infinity") as error:
            pg.EventSample(table)
        assert "multiplicity" not in str(error.value)


def test_layout_stays_with_the_events():
    events = sample(weights=np.arange(1.0, 6), provenance={"seed": 3})
    for copy in (
        events[1:],
        events[[0, 2]],
        events[events.counts > 1],
        as_sample(events, np.ones(5)),
        as_sample(events),
        pg.EventSample(events),
        pg.EventSample.concatenate([events, events]),
    ):
        assert copy.multiplicity == LAYOUT
    joined = pg.EventSample.concatenate([events[:2], events[2:]])
    assert same(joined.values, events.values)
    assert same(events.tensor(torch.float64).numpy(), rows())


def test_other_layouts_do_not_go_together():
    plain = sample().with_count(3)
    other = pg.EventSample(plain.values, plain.names, plain.units, multiplicity=Multiplicity(2, 2, 3, least=3))
    for wrong in (plain, other):
        with pytest.raises(ValueError, match="sample 1 has multiplicity=.*sample 0 has multiplicity=Multiplicity"):
            pg.EventSample.concatenate([sample(), wrong])


@pytest.mark.parametrize(
    ("names", "layout"),
    [
        (["eta_l"], None),
        (["eta_j1", "pt_l"], None),  # every event has a first object
        (NAMES[:4], Multiplicity(2, 2, 1)),
        (NAMES[:6], Multiplicity(2, 2, 2)),
        (["eta_l", *NAMES[2:6]], Multiplicity(1, 2, 2)),
        (NAMES[2:], Multiplicity(0, 2, 3)),
        ([NAMES[1], NAMES[0], *NAMES[2:]], LAYOUT),
    ],
)
def test_columns_that_are_a_layout_can_be_chosen(names, layout):
    chosen = sample(weights=np.ones(5)).select(names)
    assert chosen.multiplicity == layout
    assert chosen.names == tuple(names)
    assert same(chosen.values, rows()[:, [NAMES.index(name) for name in names]])
    assert chosen.weights is not None


@pytest.mark.parametrize(
    "names",
    [
        ["pt_j2"],
        NAMES[:5],  # half an object
        NAMES[:2] + NAMES[4:6],  # the second without the first
        NAMES[:2] + NAMES[4:6] + NAMES[2:4],
        NAMES[2:6] + NAMES[:2],  # shared behind objects
        NAMES[:2] + ["eta_j1", "pt_j1", "pt_j2", "eta_j2"],
        [*NAMES, "pt_l"],
    ],
)
def test_other_columns_are_refused_with_a_reason(names):
    with pytest.raises(ValueError, match=r"no column '.*_j[23]', so .* sample\.with_count\(n\)\.select"):
        sample().select(names)


def test_events_with_one_number_of_objects_are_a_plain_sample():
    events = sample(
        weights=np.arange(1.0, 6), uncertainties=np.full(5, 0.1), log_weights=np.zeros((5, 2)), provenance={"seed": 3}
    )
    two = events.with_count(2)
    assert two.multiplicity is None
    assert two.names == tuple(NAMES[:6])
    assert two.units == ("GeV", "") * 3
    assert same(two.values, rows()[[2, 4], :6])
    assert two.weights.tolist() == [3, 5]
    assert two.uncertainties.shape == (2,)
    assert two.log_weights.shape == (2, 2)
    assert two.provenance == {"seed": 3}


def test_numbers_of_objects_that_there_are_not():
    with pytest.raises(ValueError, match="n is 4; it must be one of 1 to 3"):
        sample().with_count(4)
    with pytest.raises(ValueError, match="n is 3; .* 3 in 0 events"):
        sample()[[0, 2]].with_count(3)
    with pytest.raises(ValueError, match="no multiplicity"):
        pg.EventSample(np.ones((2, 2))).with_count(1)


@pytest.mark.parametrize("padding", [0.0, -999.0, np.inf, np.nan])
def test_padding_is_replaced(padding):
    values = np.where(np.isnan(rows()), padding, rows())
    events = pg.EventSample.padded(values, COUNTS, LAYOUT, NAMES, weights=np.ones(5))
    assert same(events.values, rows())
    assert events.names == tuple(NAMES)
    assert events.multiplicity == LAYOUT
    assert events.weights is not None
    tensors = pg.EventSample.padded(torch.tensor(values), torch.tensor(COUNTS), LAYOUT)
    assert same(tensors.values, rows())


def test_padded_names_of_tables_count():
    table = {name: np.nan_to_num(column) for name, column in zip(NAMES, rows().T, strict=True)}
    events = pg.EventSample.padded(table | {"weight": np.arange(1, 6)}, COUNTS, LAYOUT)
    assert events.names == tuple(NAMES)
    assert events.weights.tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([1, 3, 2, 4, 2], "1 of 5 are no whole number from 1 to 3; the first is 4 in row 3"),
        ([1, 0, 2, 1, 2], "the first is 0 in row 1"),
        ([1, 3, 1.5, 1, 2], "the first is 1.5 in row 2"),
        ([1, 3, np.nan, 1, 2], "the first is nan in row 2"),
        ([1, 3], "counts is .* one number for each event"),
    ],
)
def test_wrong_counts_are_named(counts, message):
    with pytest.raises(ValueError, match=message):
        pg.EventSample.padded(np.nan_to_num(rows()), counts, LAYOUT)


def test_padded_objects_that_are_there_must_be_finite():
    with pytest.raises(ValueError, match="1 of 5 rows .* row 0 with 2 objects, column 4: nan"):
        pg.EventSample.padded(rows(), [2, 3, 2, 1, 2], LAYOUT)
    with pytest.raises(ValueError, match=r"values is .* \[N, 8\]"):
        pg.EventSample.padded(rows()[:, :7], COUNTS, LAYOUT)


def test_text_tells_the_numbers_of_objects_and_uses_those_that_are_there():
    events = sample()
    told = "objects: 1 in 2 events, 2 in 2 events, 3 in 1 events"
    assert told in repr(events)
    assert told in events.summary()
    assert "nan" not in events.summary()
    line = next(line for line in events.summary().splitlines() if line.startswith("pt_j2"))
    assert line.split()[2:] == ["22.67", "9.978", "12", "36"]  # of 12, 20 and 36


def test_text_of_an_object_that_no_event_has():
    assert "pt_j3 [GeV] no event has it" in sample()[[0, 2]].summary()


def test_functions_of_plain_events_refuse_a_layout():
    with pytest.raises(ValueError, match=r"events have a varying number of objects .*with_count"):
        check_events(sample())
    check_events(sample(), multiplicity=LAYOUT)
    check_events(torch.tensor(rows()), multiplicity=LAYOUT)
    with pytest.raises(ValueError, match="NaN or infinity"):
        check_events(torch.tensor(rows()))
    with pytest.raises(ValueError, match="truth have a varying number"):
        pg.diagnostics.agreement(sample(), sample())
    with pytest.raises(ValueError, match="a_events have a varying number"):
        pg.diagnostics.wasserstein(sample(), sample())
