"""What a sample has besides its table: log weights, parts of a larger one, samples put together, chosen columns."""

from __future__ import annotations

import numpy as np
import pytest
from test_event_files import assert_same, full_sample, split

from pyrogen.events import EventSample


def test_log_weights_stay_with_their_events():
    sample = full_sample()
    assert np.array_equal(sample[[7, 3]].log_weights, sample.log_weights[[7, 3]])
    assert np.array_equal(sample.select(["m"]).log_weights, sample.log_weights)
    assert repr(sample).endswith("weights; uncertainties; log_weights)")


@pytest.mark.parametrize(
    ("log_weights", "error", "message"),
    [
        (np.zeros(3), ValueError, r"one row per event and one column per draw, shape \[3, K\]; got shape \[3\]"),
        (np.zeros((2, 3)), ValueError, r"got shape \[2, 3\]"),
        (np.zeros((3, 0)), ValueError, r"got shape \[3, 0\]"),
        ([[0.0], [-np.inf], [np.inf]], ValueError, "finite or -inf; 1 of 3 .* the first is inf at event 2, draw 0"),
        ([[0.0, np.nan], [0, 0], [0, 0]], ValueError, "the first is nan at event 0, draw 1"),
        ([["a"], ["b"], ["c"]], TypeError, "log_weights must be real numbers"),
    ],
)
def test_log_weights_that_are_none(log_weights, error, message):
    with pytest.raises(error, match=message):
        EventSample(np.ones((3, 2)), log_weights=log_weights)


def test_part_of_a_sample():
    part = EventSample([1.0, 2.0], weights=[1.0, -3.0], part=70)
    assert part.total_weight == -2.0 and part[:1].part == part.select(["x0"]).part == 70
    for arguments, message in (
        ({"values": [1.0, np.nan]}, "the first is row 71, column 0"),
        ({"values": [1.0, 2.0], "weights": [np.inf, 1.0]}, "is inf at event 70"),
        ({"values": [1.0, 2.0], "uncertainties": [1.0, -1.0]}, "is -1.0 at event 71"),
        ({"values": [1.0, 2.0], "log_weights": [[0.0], [np.nan]]}, "is nan at event 71, draw 0"),
    ):
        with pytest.raises(ValueError, match=message):
            EventSample(**arguments, part=70)


def test_concatenate():
    sample = full_sample()
    parts = split(sample)
    assert parts[0].total_weight < 0
    assert_same(EventSample.concatenate(parts), sample)
    assert EventSample.concatenate(parts).part is None
    assert EventSample.concatenate(parts, {"a": 1}).provenance == {"a": 1}
    with pytest.raises(ValueError, match="sum of the weights must be positive"):
        EventSample.concatenate(parts[:1])
    with pytest.raises(ValueError, match="samples is empty"):
        EventSample.concatenate([])
    with pytest.raises(ValueError, match=r"sample 1 has the names \['m', 'pT', 'η'\], sample 0 has \['pT'.*select"):
        EventSample.concatenate([sample, sample.select(["m", "pT", "η"])])
    with pytest.raises(ValueError, match="sample 1 has the units .*convert"):
        EventSample.concatenate([EventSample([1.0]), EventSample([1.0], units=["GeV"])])
    with pytest.raises(ValueError, match="sample 2 has log_weights of 1 draws, sample 0 has log_weights of 2 draws"):
        EventSample.concatenate([EventSample([1.0], log_weights=np.zeros((1, k))) for k in (2, 2, 1)])
    with pytest.raises(ValueError, match="sample 1 has no weights.* sample 0 has weights; .*np.ones"):
        EventSample.concatenate([EventSample([1.0], weights=[2.0]), EventSample([1.0])])


def test_select():
    sample = full_sample()
    chosen = sample.select(("m", "pT"))
    assert chosen.names == ("m", "pT") and chosen.units == ("GeV", "GeV")
    assert np.array_equal(chosen.values, sample.values[:, [2, 0]]) and np.array_equal(chosen.weights, sample.weights)
    with pytest.raises(ValueError, match="no column 'eta'; the 3 columns are pT, η, m"):
        sample.select(["m", "eta"])
    with pytest.raises(ValueError, match="repeated: m"):
        sample.select(["m", "m"])
    with pytest.raises(ValueError, match="at least one column"):
        sample.select([])
    with pytest.raises(TypeError, match="sequence of column names; got 'pT'"):
        sample.select("pT")
