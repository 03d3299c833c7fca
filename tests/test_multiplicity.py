"""Rows of events with a varying number of objects."""

import numpy as np
import pytest
import torch

from pyrogen.events import Multiplicity

LAYOUT = Multiplicity(shared=2, each=3, most=3)


def rows(*counts: int) -> np.ndarray:
    """One row for each number of objects, with the numbers 1, 2, ... in it."""
    table = np.full((len(counts), LAYOUT.features), np.nan)
    for row, count in zip(table, counts, strict=True):
        row[: LAYOUT.width(count)] = np.arange(1, LAYOUT.width(count) + 1)
    return table


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_counts_and_columns_of_rows(kind):
    table = kind(rows(1, 3, 2, 0))
    assert LAYOUT.counts(table).tolist() == [1, 3, 2, 0]
    exists = LAYOUT.exists(table)
    assert exists.sum(-1).tolist() == [5, 11, 8, 2]
    assert exists[0].tolist() == [True] * 5 + [False] * 6
    assert table[1][LAYOUT.columns(2)].tolist() == [9, 10, 11]


def test_layout_survives_its_description():
    assert Multiplicity.from_config(LAYOUT.config()) == LAYOUT
    assert list(LAYOUT.numbers) == [1, 2, 3]


def test_rows_that_fit_pass():
    LAYOUT.check(rows(1, 2, 3))
    Multiplicity(2, 3, 3, least=0).check(rows(0))


def changed(row: int, column: int, value: float) -> np.ndarray:
    table = rows(1, 2, 3)
    table[row, column] = value
    return table


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (rows(1)[:, :10], "must have 11 columns, 2 shared and 3 for each of 3 objects"),
        (changed(2, 0, np.nan), "1 of 3 rows .* the first is row 7, column 0"),
        (changed(2, 6, np.nan), "row 7, column 6"),
        (changed(2, 6, np.inf), "row 7, column 6"),
        (changed(0, 9, 0.0), "row 5, column 9"),  # a zero that looks like a number
        (changed(0, 8, 0.0), "row 5, column 5"),  # an object behind one that is not there
        (rows(1, 0), "1 of 2 events have fewer than 1 objects; the first is row 6, with 0"),
    ],
)
def test_rows_that_do_not_fit_are_named(table, message):
    with pytest.raises(ValueError, match=message):
        LAYOUT.check(table, first=5)


@pytest.mark.parametrize("bad", [{"shared": -1}, {"each": 0}, {"most": 0}, {"least": 4}, {"shared": 0, "least": 0}])
def test_layouts_that_cannot_be_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad)) if len(bad) == 1 else "least"):
        Multiplicity(**{"shared": 2, "each": 3, "most": 3, "least": 1} | bad)
