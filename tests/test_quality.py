"""Distances with their floor, and the width of a peak, on samples whose answers are known."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance

import pyrogen as pg
from pyrogen import EventSample
from pyrogen.diagnostics import peak_width, sample_quality, wasserstein
from pyrogen.diagnostics.quality import sorted_distance


def normal(n, seed, mean=0.0, columns=2):
    return np.random.default_rng(seed).normal(mean, 1, (n, columns))


BOTH = {"x": "x0", "radius": lambda x: x.norm(dim=1)}


def test_the_distance_is_that_of_scipy():
    rng = np.random.default_rng(0)
    for digits in (0, 12):  # with ties and without
        a, b = rng.normal(size=70).round(digits), rng.normal(0.3, 2, 50).round(digits)
        v, w = rng.exponential(size=70), rng.exponential(size=50)
        both, weights, first = np.concatenate([a, b]), np.concatenate([v, w]), np.arange(120) < 70
        order = np.argsort(both)
        for its, expected in (
            (weights, wasserstein_distance(a, b, v, w)),
            (np.ones(120), wasserstein_distance(a, b)),
        ):
            assert sorted_distance(both[order], its[order], first[order]) == pytest.approx(expected, rel=1e-10)


def test_a_shift_is_its_distance_and_sizes_are_fair():
    truth, reference = normal(4000, 1), normal(2000, 2)
    generated = normal(5000, 3, 0.5)
    table = sample_quality(truth, generated, torch.from_numpy(reference), {"first": 0, "second": lambda x: x[:, 1]})
    assert table.names == ("first", "second")
    assert table.sizes == (4000, 2000)  # the first events of the larger sample
    np.testing.assert_allclose(table.distance, wasserstein(generated[:2000], truth))
    np.testing.assert_allclose(table.reference, wasserstein(reference, truth))
    np.testing.assert_allclose(table.distance, 0.5, atol=4 * math.sqrt(1 / 2000 + 1 / 4000))
    np.testing.assert_allclose(table.ratio, table.distance / table.floor)
    assert np.all(table.excess > 10)
    longer = sample_quality(truth, generated[:2000], np.concatenate([reference, generated]), {"first": 0})
    assert longer.distance[0] == table.distance[0]
    assert longer.floor[0] == table.floor[0]


def test_the_floor_is_the_distance_of_fresh_true_samples():
    tables = [sample_quality(normal(800, (1, i)), normal(400, (2, i)), normal(400, (3, i)), BOTH) for i in range(300)]
    distance, floor, std, reference = (
        np.array([getattr(table, name) for table in tables]) for name in ("distance", "floor", "floor_std", "reference")
    )
    spread = distance.std(0)
    for independent in (distance, reference):  # a perfect generator, and the reference
        assert np.all(np.abs(independent.mean(0) - floor.mean(0)) < 4 * spread / np.sqrt(300))
    np.testing.assert_allclose(np.sqrt((std**2).mean(0)), spread, rtol=0.2)  # of 300, skew
    excess = np.array([table.excess for table in tables])
    assert np.all(np.abs(excess.mean(0)) < 0.3)
    # The mean of ten re-partitions fluctuates less than one distance.
    assert np.all(floor.std(0) < 0.6 * spread)


def test_weights_count():
    truth, generated, reference = normal(20_000, 1), normal(20_000, 2, 0.5), normal(20_000, 3)
    weights = np.exp(0.25 - 0.5 * generated.sum(1))
    plain = sample_quality(truth, generated, reference, BOTH)
    weighted = sample_quality(truth, EventSample(generated, weights=7 * weights), reference, BOTH)
    assert np.all(plain.ratio > 10)
    assert np.all(weighted.ratio < 4)
    assert weighted.effective_sizes == pytest.approx((20_000, weights.sum() ** 2 / (weights**2).sum(), 20_000))
    assert "effectively 20,000, " in weighted.text()
    assert "effectively" not in plain.text()
    # Truth and reference of one kind of weights have the floor of that kind.
    truth, reference = (EventSample(normal(20_000, i, 0.5), weights=weights) for i in (2, 4))
    both = sample_quality(truth, generated, reference, BOTH)
    assert both.distance[0] == pytest.approx(wasserstein(EventSample(generated), truth)[0])
    assert both.effective_sizes[0] == truth.effective_size


def test_copies_count_once_and_not_in_the_floor():
    random = np.random.default_rng(1)
    sample = pg.EventSample(random.normal(size=(900, 1)), ["x"], weights=random.exponential(size=900))
    copied = pg.diagnostics.unweight(sample, maximum=0.5).events
    truth, reference = (random.normal(size=(2000, 1)) for _ in range(2))
    table = sample_quality(truth, copied, reference, {"x": 0})
    counts = np.unique(copied.values, return_counts=True)[1]
    assert table.effective_sizes == pytest.approx((2000, counts.sum() ** 2 / np.sum(counts**2), len(copied)))
    assert "effectively 2,000" in table.text()
    for samples, name in (((copied, truth, reference), "truth"), ((truth, reference, copied), "reference")):
        with pytest.raises(ValueError, match=f"{name} has [\\d,]+ events that are copies of others of it"):
            sample_quality(*samples, {"x": 0})


def test_columns_units_and_text():
    truth = EventSample(normal(500, 1), ("M", "pT"), ("GeV", ""))
    observables = {"mass": "M", "pT": "pT", "sum": lambda x: x.sum(1), "numpy": lambda x: x.numpy()[:, 0]}
    table = sample_quality(truth, normal(500, 2), normal(400, 3).tolist(), observables, partitions=4)
    assert table.units == ("GeV", "", "", "")  # arrays have the columns of the sample with names
    assert table.distance[3] == table.distance[0]
    lines = table.text().splitlines()
    assert lines[0].split() == ["observable", "W1", "floor", "+-", "W1/floor", "reference"]
    assert lines[1].startswith("mass [GeV]")
    assert f"{table.ratio[0]:.2f}" in lines[1]
    assert lines[-1] == "500 true events, 400 generated and as many of the reference; floor of 4 re-partitions"


def test_seeds():
    samples = normal(300, 1), normal(300, 2), normal(300, 3)
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    tables = [sample_quality(*samples, BOTH, seed=seed) for seed in (0, 0, 1)]
    assert np.array_equal(np.random.get_state()[1], before)
    assert np.array_equal(tables[0].floor, tables[1].floor)
    assert not np.array_equal(tables[0].floor, tables[2].floor)
    assert np.array_equal(tables[0].distance, tables[2].distance)


def test_an_observable_of_one_value_gives_no_error():
    table = sample_quality(normal(50, 1), normal(50, 2), normal(50, 3), {"one": lambda x: 0 * x[:, 0]})
    assert table.distance[0] == table.floor[0] == 0
    assert np.isnan(table.ratio[0])
    assert np.isnan(table.excess[0])


GOOD = normal(20, 0)
NEGATIVE = EventSample(GOOD, weights=np.where(np.arange(20) == 3, -1.0, 1.0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((GOOD, GOOD, GOOD, {}), "observables is empty"),
        ((GOOD[:0], GOOD, GOOD, BOTH), "truth: empty sample"),
        ((GOOD, GOOD * np.nan, GOOD, BOTH), "generated: 20 of 20 rows hold NaN"),
        ((GOOD, GOOD, GOOD[:, :1], BOTH), "reference has 1 columns and truth has 2"),
        ((GOOD, NEGATIVE, GOOD, BOTH), "generated has 1 negative weights; the distance needs positive ones"),
        ((GOOD, GOOD, NEGATIVE, BOTH), "reference has 1 negative weights"),
        ((GOOD, GOOD, GOOD, {"m": "M"}), "no column 'M'; the 2 columns are x0, x1"),
        ((GOOD, GOOD, GOOD, {"m": lambda x: x}), r"observable 'm' of truth has shape \[20, 2\]"),
        ((abs(GOOD), GOOD, GOOD, {"m": lambda x: x[:, 0].log()}), "observable 'm' of generated is NaN or infinite for"),
    ],
)
def test_bad_samples_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        sample_quality(*arguments)
    with pytest.raises(ValueError, match="partitions is 1"):
        sample_quality(GOOD, GOOD, GOOD, BOTH, partitions=1)


# --- the peak ---


def z_peak(n, rng, flat=0):
    """A Breit-Wigner at 91.2 of width 2.5 and flat events in 76 to 106."""
    return np.concatenate([91.2 + 1.25 * rng.standard_cauchy(n), rng.uniform(76, 106, flat)])


@pytest.mark.parametrize("kind", ["peak", "flat background", "weights", "negative weights"])
def test_pulls_of_the_peak(kind):
    rng = np.random.default_rng(1)
    pulls = []
    for _ in range(50):
        flat = 0 if kind == "peak" else rng.poisson(1000)
        x = z_peak(rng.poisson(3000), rng, flat)
        part = 1000 / (1000 + 3000 * 2 / math.pi * math.atan(15 / 1.25)) if flat else 0.0
        weights = None
        if kind == "weights":  # one event in the peak of ten, with the weight of ten
            x = x[(np.abs(x - 91.2) > 3) | (rng.random(len(x)) < 0.1)]
            weights = np.where(np.abs(x - 91.2) > 3, 1.0, 10.0)
        elif kind == "negative weights":
            weights = rng.choice([-1, 1], len(x), p=[0.15, 0.85])
        fit = peak_width(x, weights)
        pulls.append(
            [
                (fit.location - 91.2) / fit.location_error,
                (fit.width - 2.5) / fit.width_error,
                (fit.background - part) / fit.background_error,
            ]
        )
    # Mean 0 and width 1 within four standard deviations of 50 pulls; the width is slightly skew.
    assert np.all(np.abs(np.mean(pulls, 0)) < 0.63)
    assert np.all(np.abs(np.std(pulls, 0) - 1) < 0.42)


def test_a_million_masses():
    x = z_peak(1_000_000, np.random.default_rng(2))
    fit = peak_width(torch.from_numpy(x))
    assert fit.width == pytest.approx(2.5, abs=4 * fit.width_error)
    assert fit.location == pytest.approx(91.2, abs=4 * fit.location_error)
    assert fit.width_error < 0.006
    assert fit.fraction == pytest.approx(np.mean((x > 76) & (x < 106)))
    assert fit.events == pytest.approx(fit.fraction * 1e6)
    assert "width 2.5" in fit.text() or "width 2.49" in fit.text()
    # Other bins, another window and other units are the same peak.
    assert peak_width(x, bins=500).width == pytest.approx(fit.width, abs=0.1 * fit.width_error)
    assert peak_width(x, window=(80, 100)).width == pytest.approx(fit.width, abs=4 * fit.width_error)
    scaled = peak_width(1000 * x, window=(76_000, 106_000))
    assert scaled.width == pytest.approx(1000 * fit.width, rel=1e-5)
    assert scaled.width_error == pytest.approx(1000 * fit.width_error, rel=1e-3)


def test_equal_weights_are_none_and_doubled_events_are_no_new_ones():
    x = z_peak(5000, np.random.default_rng(3), 500)
    plain, weighted, doubled = peak_width(x), peak_width(x, np.full(len(x), 2.0)), peak_width(np.tile(x, 2))
    assert weighted.width == pytest.approx(plain.width, rel=1e-6)
    assert weighted.width_error == pytest.approx(plain.width_error, rel=1e-4)
    assert doubled.width == pytest.approx(plain.width, rel=1e-6)
    assert doubled.width_error == pytest.approx(plain.width_error / 2**0.5, rel=1e-4)


RNG = np.random.default_rng(4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((z_peak(50, RNG),), r"of 50 values are in the window 76 to 106, effectively .* needs at least 100"),
        ((z_peak(500, RNG), None, (200, 300)), "of 500 values are in the window 200 to 300"),
        ((RNG.uniform(76, 106, 5000),), "there is no peak in the window"),
        ((76 + RNG.exponential(10, 5000),), "there is no peak in the window"),
        ((np.full(500, 91.2),), "less than two bins"),
        ((z_peak(500, RNG), None, (106, 76)), r"window is \(106, 76\); it must be \(low, high\)"),
        ((np.array([91.0, np.nan]),), "values: 1 of 2 rows hold NaN"),
        ((np.ones((200, 2)),), r"values has shape \[200, 2\]"),
        ((z_peak(500, RNG), np.ones(3)), "weights must hold one number per event"),
        ((z_peak(500, RNG), -np.ones(500)), "sum of the weights must be positive"),
    ],
)
def test_what_is_no_peak_is_said(arguments, message):
    with pytest.raises(ValueError, match=message):
        peak_width(*arguments)
    with pytest.raises(ValueError, match="bins is 3"):
        peak_width(z_peak(500, RNG), bins=3)
