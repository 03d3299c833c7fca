"""Weights of Les Houches files: what they sum up to, and samples of several processes put together."""

from __future__ import annotations

import numpy as np
import pytest
from test_lhe import TAIL, event

from pyrogen import events
from pyrogen.events import EventSample, EventWriter
from pyrogen.files import FileFormatError

INIT = """<LesHouchesEvents version='3.0'>
<init>
 2212 2212 6.5e3 6.5e3 0 0 1 1 {strategy} 1
 {sigma} {error} 1.0 1
</init>
"""


@pytest.fixture
def lhe(tmp_path):
    """Writes events of given weights into a file of a strategy and a cross section."""

    def write(name, strategy, sigma, weights, error=0.01):
        head = INIT.format(strategy=strategy, sigma=sigma, error=error)
        text = head + "".join(event(11, -11, weight=float(w), scale=i) for i, w in enumerate(weights, 1)) + TAIL
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def shares(samples):
    together = EventSample.concatenate(samples)
    n = len(samples[0])
    return together.weights[:n].sum() / together.weights.sum()


def test_processes_get_the_shares_of_their_cross_sections(lhe, tmp_path):
    """1,000 events of 5 pb and 100 events of 1 pb: 83 to 17, whatever the weights of the files are."""
    files = {
        "mean": lhe("mean.lhe", -4, 5.0, np.full(1000, 5.0)),
        "one": lhe("one.lhe", 3, 5.0, np.ones(1000)),
        "signed": lhe("signed.lhe", -3, 5.0, np.where(np.arange(1000) < 900, 1, -1)),
        "sum": lhe("sum.lhe", 3, 5.0, np.full(1000, 0.005)),
        "maximum": lhe("maximum.lhe", 1, 5.0, np.linspace(0, 10, 1000)),
    }
    other = lhe("other.lhe", -4, 1.0, np.full(100, 1.0))
    small = events.read(other, weights="pb")
    assert small.weights.tolist() == [0.01] * 100 and small.provenance["weights"] == "pb"
    for name, path in files.items():
        large = events.read(path, weights="pb")
        assert large.total_weight == pytest.approx(5.0), name
        assert shares([large, small]) == pytest.approx(5 / 6), name
        parts = list(events.stream(path, weights="pb", chunk=300))
        assert np.array_equal(EventSample.concatenate(parts).weights, large.weights)
        message = (
            rf'sample 1 comes from other.lhe with a cross section of 1 pb, sample 0 from {name}.lhe .*weights="pb"'
        )
        for first in (events.read(path), large):
            with pytest.raises(ValueError, match=message):
                EventSample.concatenate([first, events.read(other)])
    with pytest.raises(ValueError, match="cross section of 1 pb"), EventWriter(tmp_path / "all.h5") as writer:
        for path in (files["mean"], other):
            for part in events.stream(path):
                writer.write(part)


def test_events_left_out_keep_their_share(lhe):
    path = lhe("a.lhe", -4, 6.0, [6.0] * 3)
    path.write_text(path.read_text().replace(TAIL, event(13, -13, weight=6.0) * 3 + TAIL))
    with pytest.warns(UserWarning, match="3 of 6 events"):
        sample = events.read(path, particles=[11, -11], missing="skip", weights="pb")
    assert sample.total_weight == pytest.approx(3.0)


def test_runs_of_one_process_are_put_together_as_they_are(lhe):
    a, b = lhe("a.lhe", -4, 5.00, [5.0] * 30, 0.02), lhe("b.lhe", -4, 5.03, [5.03] * 10, 0.02)
    together = EventSample.concatenate([events.read(a), events.read(b)])
    assert together.weights.tolist() == [5.0] * 30 + [5.03] * 10
    plain = EventSample(together.values[:1], together.names, together.units, weights=[1.0])
    assert len(EventSample.concatenate([together, plain])) == 41  # whose weights nobody knows


def test_weights_in_pb_survive_a_file(lhe, tmp_path):
    sample = events.read(lhe("a.lhe", -4, 6.0, np.linspace(1, 11, 50)), weights="pb")
    for some in (sample, sample[10:20]):
        for name in ("b.lhe", "b.h5"):
            some.save(tmp_path / name)
        assert np.array_equal(events.read(tmp_path / "b.lhe", weights="pb").weights, some.weights)
        assert events.read(tmp_path / "b.lhe").provenance["weighting_strategy"] == -3
        assert np.array_equal(events.read(tmp_path / "b.h5").weights, some.weights)


@pytest.mark.parametrize(
    ("strategy", "sigma", "weights", "message"),
    [
        (7, 5.0, [2.0, 3.0, 4.0], r"a\.lhe: the weighting strategy \(IDWTUP\) 7 is not known"),
        (3, 0.0, [1.0, 1.0], r"a\.lhe: the events are unweighted, with a sum of 2, and the cross section is 0 pb"),
        (-3, 2.0, [1.0, -1.0], "with a sum of 0"),
    ],
)
def test_weights_that_are_no_cross_sections(lhe, strategy, sigma, weights, message):
    with pytest.raises(FileFormatError, match=message):
        events.read(lhe("a.lhe", strategy, sigma, weights), weights="pb")
    with pytest.raises(ValueError, match='weights is \'fb\'; it must be "file" or "pb"'):
        events.read(lhe("a.lhe", strategy, sigma, weights), weights="fb")
