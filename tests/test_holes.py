"""Observables that some events do not have: they say so themselves, and any other NaN is a fault."""

import dataclasses

import numpy as np
import pytest
import torch

import pyrogen as pg
from pyrogen.diagnostics import classifier_weights, closure, find_failures, sample_measures, sample_quality
from pyrogen.diagnostics.control.result import ClassifierWeights
from pyrogen.events import Multiplicity, Observable
from pyrogen.events.observing import missing_in, of_sample

SAYS = Observable(
    lambda x: torch.where(x[:, 0] > 0, x[:, 1], torch.nan),
    "y",
    "mm",
    np.linspace(-3, 3, 31),
    missing=lambda x: x[:, 0] <= 0,
)
SILENT = dataclasses.replace(SAYS, missing=None)
ELSEWHERE = dataclasses.replace(SAYS, missing=lambda x: x[:, 0] <= -1)


def sample(n, seed, empty=0.3, shift=0.0):
    """A layer's energy, zero in some events, and a place."""
    rng = np.random.default_rng(seed)
    energy = np.where(rng.random(n) < empty, 0.0, 1 + rng.exponential(1, n))
    return pg.EventSample(np.stack([energy, rng.normal(shift, 1, n)], 1), ["E", "y"])


def test_what_an_event_says_that_it_does_not_have_is_nan():
    events = sample(50, 1)
    empty = events.column("E") == 0
    assert np.array_equal(np.isnan(of_sample(SAYS, events, "y")), empty)
    measured = dataclasses.replace(SAYS, function=lambda x: x[:, 1])  # a number where there is none
    assert np.array_equal(of_sample(measured, events, "y"), np.where(empty, np.nan, events.column("y")), equal_nan=True)
    infinite = dataclasses.replace(SAYS, function=lambda x: x[:, 1] / x[:, 0].sign())
    assert np.array_equal(np.isnan(of_sample(infinite, events, "y")), empty)
    with pytest.raises(ValueError, match=r"missing\(events\) of y is .* it must be a tensor of 50 bools"):
        missing_in(dataclasses.replace(SAYS, missing=lambda x: x[:, 0]), events.tensor(), "y")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (SILENT, "give a pg.events.Observable with missing= or objects=, which says"),
        (ELSEWHERE, r"missing\(events\) does not name these"),
        (dataclasses.replace(SAYS, function=lambda x: x[:, 1] / (x[:, 0] - x[:1, 0])), "does not name these"),
    ],
)
def test_any_other_nan_or_infinity_is_refused_everywhere(wrong, told):
    truth, made, other = (sample(60, seed) for seed in (1, 2, 3))
    message = rf"is NaN or infinite for \d+ of \d+ events; the first is (nan|-?inf) at event \d+.*{told}"
    weights = weighted(truth, made)
    for look in (
        lambda: of_sample(wrong, truth, "y"),
        lambda: classifier_weights(truth, made, observables={"y": wrong}, progress=False),
        lambda: find_failures(weights, {"y": wrong}),
        lambda: sample_quality(truth, made, other, {"y": wrong}),
        lambda: closure(truth, made, other, {"y": wrong}),
        lambda: sample_measures(truth, made, {"y": wrong}, progress=False),
    ):
        with pytest.raises(ValueError, match=message):
            look()


def weighted(truth, made, log_w=None):
    """Weights as of a classifier that knows log w of both samples."""
    rng = np.random.default_rng(5)
    sizes = len(truth), len(made)
    log_w = [np.zeros(n) for n in sizes] if log_w is None else log_w
    return ClassifierWeights(
        truth=truth,
        generated=made,
        log_w_truth=log_w[0],
        log_w_generated=log_w[1],
        spread_truth=np.zeros(sizes[0]),
        spread_generated=np.zeros(sizes[1]),
        fold_truth=rng.integers(0, 2, sizes[0]),
        fold_generated=rng.integers(0, 2, sizes[1]),
        trainings=None,
        settings={},
        classifiers=(),
    )


def test_trees_and_networks_see_holes():
    """The column alone separates nothing; whether a layer is empty does: AUC = 0.5 + (0.4 - 0.1) / 2."""
    blind = sample(1000, 1, empty=0.4), sample(1000, 2, empty=0.1)
    options = {"observables": {"y": SAYS}, "ensemble": 1, "control": False, "progress": False}
    for method in (pg.diagnostics.Trees(iterations=20), pg.diagnostics.Network(hidden=(8,), epochs=3)):
        found = classifier_weights(*blind, method=method, features=lambda x: x[:, 1:], **options)
        assert method.describe()["method"] == "network" or found.auc[0] == pytest.approx(0.65, abs=0.04)
        again = found.classifiers[0].log_ratio(sample(50, 3))
        assert again.isfinite().all()


def test_distances_of_events_that_have_it_and_of_how_many_these_are():
    truth, reference, made = sample(4000, 1), sample(4000, 2), sample(4000, 3, empty=0.2, shift=0.5)
    twin = dataclasses.replace(SAYS, function=lambda x: 2 * x[:, 1])  # says so by the same function
    found = sample_quality(truth, made, reference, {"E": "E", "y": SAYS, "twice": twin})
    assert found.names == ("E", "has y", "y", "twice") and found.units == ("", "", "mm", "mm")
    lacking = [np.mean(each.column("E") == 0) for each in (truth, made)]
    assert found.distance[1] == pytest.approx(lacking[0] - lacking[1])
    assert found.distance[2] == pytest.approx(0.5, abs=3 * np.sqrt(2 / 2800))
    assert found.distance[3] == pytest.approx(2 * found.distance[2])
    error = np.sqrt(2 * 0.3 * 0.7 / 4000)
    assert found.floor[1] == pytest.approx(error * np.sqrt(2 / np.pi), rel=0.6)  # mean of |x| of a Gaussian
    assert found.ratio[1] > 8 and found.ratio[2] > 8
    fine = sample_quality(*(each[each.column("E") > 0] for each in (truth, made, reference)), {"y": SAYS})
    assert fine.names == ("y",)


def test_closure_has_the_same_rows_before_and_after():
    truth, made = sample(400, 1, empty=0.0), sample(400, 2)
    mended = made[made.column("E") > 0]
    found = closure(truth, made, mended, {"y": SAYS})
    assert found.before.names == found.after.names == ("has y", "y")
    used = made.column("E")[:200]  # as many as half of the truth, which is the reference
    assert found.before.distance[0] == pytest.approx(np.mean(used == 0)) and found.after.distance[0] == 0
    never = sample(400, 3, empty=1.0)
    assert np.isnan(closure(truth, never, made, {"y": SAYS}).before.distance[1])
    with pytest.raises(ValueError, match="observables is empty"):
        closure(truth, made, mended, {})


def test_measures_of_many_features_need_numbers():
    with pytest.raises(ValueError, match=r"\d+ of 200 events of truth do not have the observable 'y'.*leave it out"):
        sample_measures(sample(200, 1), sample(200, 2), {"y": SAYS}, progress=False)


def test_objects_and_holes_go_together():
    layout = Multiplicity(1, 2, 2, least=0)
    rows = np.array(
        [[1.0, 1, 2, 3, 4], [1, 0, 5, np.nan, np.nan], [1, -1, 6, 7, 8], [1, np.nan, np.nan, np.nan, np.nan]]
    )
    events = pg.EventSample(rows, multiplicity=layout)
    first = Observable(lambda x: x[:, 2], "", "", np.array([0.0, 1.0]), objects=1, missing=lambda x: x[:, 1] <= 0)
    assert np.array_equal(of_sample(first, events, "y"), [2, np.nan, np.nan, np.nan], equal_nan=True)
    assert np.array_equal(of_sample("x2", events, "x2"), [2, 5, 6, np.nan], equal_nan=True)


def test_an_observable_of_some_columns():
    wide = sample(30, 1).tensor()
    wide = torch.cat([torch.full((30, 1), 7.0).to(wide), wide], 1)
    part = SAYS.of_columns(slice(1, 3))
    assert torch.equal(part(wide).isnan(), part.missing(wide)) and part.unit == "mm"
    assert torch.equal(part(wide)[~part.missing(wide)], wide[:, 2][wide[:, 1] > 0])
    assert SAYS.of_columns(slice(1, 3)).missing == part.missing != SAYS.of_columns(slice(0, 2)).missing
