"""Amplification of regions and of the best test, without the truth, where both are known."""

import math
import warnings
from dataclasses import replace

import matplotlib.figure
import numpy as np
import pytest
import torch
from known import Location
from scipy.stats import norm

import pyrogen as pg
from pyrogen import diagnostics, plotting
from pyrogen.diagnostics import (
    ClassifierWeights,
    Network,
    Trainings,
    averaging_amplification,
    classifier_weights,
    differential_amplification,
)
from pyrogen.diagnostics.amplification.cells import Cells
from pyrogen.diagnostics.amplification.differential import MEAN_DISTANCE, _equivalent, kolmogorov_smirnov
from pyrogen.posterior import MeanField, RunInfo

N = 10_000


def posterior(scales=(1.0,), **info):
    """N events of Gaussians of unknown means; a scale of 2 is a sigma twice as large as that of N events."""
    model = pg.BayesianFlow(Location(len(scales)), preprocessing=None).prepare(torch.randn(100, len(scales)))
    weights = MeanField(loc=torch.zeros(len(scales)), scale=torch.tensor(scales) / math.sqrt(N))
    return pg.Posterior(model, weights, None, RunInfo(**{"training_events": N} | info), progress=False)


def expected(cells):
    """G of all cells of a Gaussian in one dimension, whose mean alone is unknown."""
    edges = np.append(cells.low[:, 0], np.inf)
    p, slope = np.diff(norm.cdf(edges)), np.diff(norm.pdf(edges))
    return (p * (1 - p)).sum() / np.square(slope).sum()


def test_cells_have_equal_probability_and_fill_space():
    rng = np.random.default_rng(1)
    values, weights = rng.normal(size=(6_000, 3)), rng.exponential(size=6_000)
    cells = Cells.of(values, 13, ("a", "b", "c"), ("GeV", "", ""), weights)
    content = np.bincount(cells.numbers(values), weights, minlength=13) / weights.sum()
    assert content == pytest.approx(np.full(13, 1 / 13), abs=8 * weights.max() / weights.sum())
    anywhere = 10 * rng.normal(size=(500, 3))
    inside = (anywhere[:, None] >= cells.low) & (anywhere[:, None] < cells.high)
    assert (inside.all(-1).sum(1) == 1).all()  # every point is in one box
    assert np.array_equal(inside.all(-1).argmax(1), cells.numbers(anywhere))
    assert len(Cells.of(values, 1, ("a", "b", "c"), ("", "", ""))) == 1


def test_a_cell_in_words():
    values = np.stack(np.meshgrid(np.arange(8.0), np.arange(8.0)), -1).reshape(-1, 2)
    cells = Cells.of(values, 4, ("M", "pT"), ("GeV", ""))
    assert list(np.bincount(cells.numbers(values))) == [16] * 4  # the cuts are values of the events
    assert [cells.words(i) for i in (0, 3)] == ["M below 4 GeV, pT below 4", "M above 4 GeV, pT above 4"]
    assert Cells.of(values, 8, ("M", "pT"), ("GeV", "")).words(0) == "M below 2 GeV, pT below 4"
    assert Cells.of(values, 1, ("M", "pT"), ("GeV", "")).words(0) == "everywhere"
    for count, message in ((65, "give fewer cells than 65"), (100, "give fewer cells than 100")):
        with pytest.raises(ValueError, match=message):
            Cells.of(values, count, ("M", "pT"), ("GeV", ""))


def test_gain_against_the_number_of_cells():
    found = averaging_amplification(posterior(), cells=(4, 16), n=20_000, draws=60)
    for n, gain, error in zip(*found.gains, strict=True):
        assert gain == pytest.approx(expected(found.cells[int(n)]), abs=4 * error) and error < 0.3 * gain
    assert found.names == ("x0",) and found.training_events == N and found.below_one() == []
    assert "10,000 training events; sigma not calibrated" in found.text() and "16" in repr(found)


def test_regions_that_are_worth_less_than_their_training_events():
    """Of 10,000 training events, the mean of the first feature is known as 100 events know it."""
    observables = {"left": lambda x: x[:, 0], "right": lambda x: x[:, 1]}
    found = averaging_amplification(posterior((10.0, 0.3)), observables, cells=(4,), n=20_000, draws=60)
    gain, error = found.worths[4].gain
    assert gain < 0.2 and [cell for cell, *_ in found.below_one()] != []
    assert "G = 0.0" in found.text() and " at left " in found.text() and "right" in found.text()
    assert found.below_one(4)[0][1] <= found.below_one(4)[-1][1] < 1 and error > 0
    with pytest.raises(ValueError, match="cells is 5; it must be one of 4"):
        found.below_one(5)


class Shifted:
    """One of several generators, each with a mean of its own."""

    def __init__(self, number, sigma):
        self.mean = sigma * float(np.random.default_rng(number).normal())

    def sample(self, n, seed=0):
        return torch.as_tensor(np.random.default_rng(seed).normal(self.mean, 1.0, (n, 1)))


def test_what_independent_generators_differ_by():
    generators = [Shifted(i, 0.05) for i in range(40)]  # as 400 training events each
    found = averaging_amplification(generators, cells=(2, 8), training_events=400, n=20_000)
    for n, gain, error in zip(*found.gains, strict=True):
        assert gain == pytest.approx(expected(found.cells[int(n)]), abs=4 * error)
    assert found.calibration == "the spread of 40 generators"
    with pytest.raises(ValueError, match="give training_events=N"):
        averaging_amplification(generators)
    with pytest.raises(ValueError, match="generator is .*at least 5 generators"):
        averaging_amplification(generators[:4], training_events=400)
    with pytest.raises(ValueError, match=r"generator\[2\] is generator\[0\]"):
        averaging_amplification([*generators[:2], generators[0], *generators[2:]], training_events=400)


def test_generators_that_know_their_training_events_or_differ():
    rng = torch.Generator().manual_seed(3)
    samples = [torch.randn(100, 2, generator=rng) for _ in range(6)]
    known = [diagnostics.memorised(sample) for sample in samples]
    weighted = [Shifted(i, 0.05) for i in range(6)]
    for one in weighted:
        one.info = RunInfo(training_events=100, effective_size=90.5)
    with pytest.raises(ValueError, match="give training_events=N"):
        averaging_amplification(weighted, cells=(2,), n=1_000)
    assert averaging_amplification(weighted, cells=(2,), n=1_000, training_events=90.5).training_events == 90.5
    assert averaging_amplification(known, cells=(4,), n=1_000).training_events == 100
    with pytest.raises(ValueError, match=r"generator\[0\] was trained on 100 events, and not on 50"):
        averaging_amplification(known, cells=(4,), n=1_000, training_events=50)
    with pytest.raises(ValueError, match=r"generator\[6\] was trained on 99 events, and not on 100"):
        averaging_amplification([*known, diagnostics.memorised(samples[0][1:])], cells=(4,), n=1_000)
    with pytest.raises(ValueError, match=r"generator\[6\] was trained on the events of generator\[2\]"):
        averaging_amplification([*known, diagnostics.kernel_density(samples[2])], cells=(4,), n=1_000)
    with pytest.raises(ValueError, match=r"generator\[6\] gave \[1000, 3\] for 1000 events of 2 columns"):
        averaging_amplification([*known, diagnostics.memorised(samples[0][:, [0, 1, 1]])], cells=(4,), n=1_000)


def test_wrong_references_and_posteriors_are_refused():
    with pytest.raises(ValueError, match="reference has 2 columns and the posterior makes 1"):
        averaging_amplification(posterior(), reference=pg.EventSample(np.zeros((50, 2)) + np.arange(50)[:, None]))
    two = posterior((1.0, 1.0), names=("a", "b"))
    both = np.random.default_rng(1).normal([0.0, 5.0], 1.0, (500, 2))
    turned = pg.EventSample(both[:, ::-1], ["b", "a"])
    found = averaging_amplification(two, cells=(4,), reference=turned, n=200, draws=5)
    assert found.names == ("a", "b") and np.nanmin(found.cells[4].high[:, 1]) > 2
    with pytest.raises(ValueError, match="reference has the columns a, c, and the posterior makes a, b"):
        averaging_amplification(two, reference=pg.EventSample(both, ["a", "c"]), n=200, draws=5)
    with pytest.raises(ValueError, match="reference has negative weights"):
        averaging_amplification(
            posterior(), reference=pg.EventSample(np.arange(50.0)[:, None], weights=np.r_[-1.0, np.ones(49)])
        )
    with pytest.raises(ValueError, match="cannot be divided in x0: give fewer cells"):
        averaging_amplification(posterior(), reference=np.zeros((500, 1)), n=100)
    with pytest.raises(ValueError, match="observable 'x' is NaN or infinite"):
        averaging_amplification(posterior(), {"x": lambda x: x[:, 0] / 0}, n=100)


def gaussians(shift, n, seed, weighted=False, folds=1):
    """Exact log-ratios of N(0, 1) against N(shift, 1); weighted: the truth is drawn twice as wide."""
    rng = np.random.default_rng(seed)
    width = 2.0 if weighted else 1.0
    truth, made = rng.normal(0, width, n), rng.normal(shift, 1, n)
    weights = norm.pdf(truth) / norm.pdf(truth, 0, 2) if weighted else None
    ratios = [shift**2 / 2 - shift * x for x in (truth, made)]
    return ClassifierWeights(
        pg.EventSample(truth[:, None], ["x"], weights=weights),
        pg.EventSample(made[:, None], ["x"]),
        *ratios,
        *(np.full(n, np.nan) for _ in range(2)),
        *(np.arange(n) % folds for _ in range(2)),
        Trainings(np.zeros((1, 1)), np.zeros((1, 1)), np.zeros(1, dtype=np.int64), np.zeros(1)),
    )


@pytest.mark.parametrize("weighted", [False, True])
def test_the_distance_of_two_gaussians_has_no_bias(weighted):
    """Two normal distributions at a distance d overlap but for 2 Phi(d / 2) - 1."""
    exact = 2 * norm.cdf(0.1) - 1
    samples = (gaussians(0.2, 4_000, seed, weighted) for seed in range(150))
    found = [differential_amplification(its, 100, points=2).total for its in samples]
    distance, error = np.array([its.distance for its in found]).T
    assert distance.mean() == pytest.approx(exact, abs=4 * distance.std() / math.sqrt(150))
    assert distance.std() == pytest.approx(error.mean(), rel=4 / math.sqrt(300))
    events, events_error = np.array([its.events for its in found]).T
    assert np.isfinite(events_error).mean() > 0.9
    assert np.nanmean(np.where(np.isfinite(events_error), events, np.nan)) == pytest.approx(
        (MEAN_DISTANCE / exact) ** 2, rel=0.1
    )
    assert np.mean(events_error[np.isfinite(events_error)]) == pytest.approx(events.std(), rel=0.4)


def test_the_inverse_square_of_a_distance_has_no_bias():
    """Without the correction it would be 8 % too large for an error of 15 %."""
    events = [_equivalent(d, 0.15, 0.15, 1.0) for d in np.random.default_rng(1).normal(1.0, 0.15, 20_000)]
    value, error = np.array([each for each in events if math.isfinite(each[1])]).T
    assert len(value) > 19_000 and value.mean() == pytest.approx(MEAN_DISTANCE**2, rel=0.02)
    assert error.mean() == pytest.approx(value.std(), rel=0.15)


def test_a_distance_within_its_noise_gives_a_limit_that_holds():
    limits = []
    for seed in range(60):
        found = differential_amplification(gaussians(0.01, 2_000, seed), 100, points=2).total
        limits.append(found.events[0] if found.limit else math.inf)
    assert np.mean(np.array(limits) < (MEAN_DISTANCE / (2 * norm.cdf(0.005) - 1)) ** 2) >= 0.9
    assert np.isfinite(limits).mean() > 0.95 and "worth > " in found.text() and math.isnan(found.gain[1])
    # Folds that train each other count twice; a classifier that sees nothing has no error, and knows nothing.
    assert differential_amplification(gaussians(0.01, 2_000, 0, folds=2), 100).total.events[0] < limits[0]
    blind = gaussians(0.0, 2_000, 0)
    blind.log_w_truth[:] = blind.log_w_generated[:] = -0.1
    found = differential_amplification(blind, 100).total
    assert found.events[0] == pytest.approx((MEAN_DISTANCE / (1.645 * 0.5 * math.sqrt(2 / 2_000))) ** 2)


def test_regions_have_their_own_distance():
    """Right of zero the truth falls as N(0, 1), the generator as N(0.5, 1); below it they are taken for the same."""
    weights = gaussians(0.5, 100_000, 1)
    regions = {"right": ("x", 0.0, math.inf), "left": lambda x: x[:, 0] < 0}
    found = differential_amplification(weights, 1_000, regions=regions)
    x = np.linspace(0, 12, 200_001)
    for name, sign in (("right", 1), ("left", -1)):
        p, q = norm.pdf(sign * x), norm.pdf(sign * x, 0.5)
        exact = 0.5 * np.abs(p / p.sum() - q / q.sum()).sum()
        its = found.regions[name]
        assert its.distance[0] == pytest.approx(exact, abs=4 * its.distance[1]) and its.distance[1] < 0.01
        assert (
            its.training_events == pytest.approx(500, rel=0.02) and its.gain[0] == its.events[0] / its.training_events
        )
    assert found.text().count("\n") == 2
    for region, message in (
        (("x", 30, 40), "region 'r' has 0 effective events of the truth"),
        (("x", 1, 0), r"regions\['r'\] is .*low < high"),
        (lambda x: x[:, 0], "region 'r' gives float64"),
        ("x", "a function that gives true or false, or"),
    ):
        with pytest.raises(ValueError, match=message):
            differential_amplification(weights, 1_000, regions={"r": region})


def test_a_classifier_that_misses_a_difference_is_told_of():
    """No column can be farther apart than the likelihood ratio; a blind classifier has the same ratio everywhere."""
    right = gaussians(0.5, 2_000, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        differential_amplification(right, 100, regions={"right": ("x", 0.0, math.inf)})
        differential_amplification(gaussians(0.0, 2_000, 1), 100)
    blind = replace(right, log_w_truth=np.zeros(2_000), log_w_generated=np.zeros(2_000))
    with pytest.warns(
        UserWarning, match="all events: the distance in x alone is 0.2.*the number of events is too large"
    ):
        differential_amplification(blind, 100)


def test_the_curve_and_the_distance_of_kolmogorov_and_smirnov():
    assert kolmogorov_smirnov(np.array([1.0, 2.0]), np.array([2.0, 3.0]), np.ones(2), np.ones(2)) == 0.5
    assert kolmogorov_smirnov(np.array([1.0, 1.0]), np.array([1.0]), np.ones(2), np.ones(1)) == 0
    assert kolmogorov_smirnov(np.array([1.0, 2.0]), np.array([1.5]), np.array([3.0, 1.0]), np.ones(1)) == 0.75
    found = differential_amplification(gaussians(0.0, 3_000, 1), 100, points=4)
    assert list(found.sizes) == [100, 311, 965, 3_000]
    shift = np.random.default_rng(5)
    distances = []
    for _ in range(40):
        a, b = shift.normal(size=3_000), shift.normal(size=1_000)
        distances.append(kolmogorov_smirnov(a, b, np.ones(3_000), np.ones(1_000)))
    expected_distance = MEAN_DISTANCE * math.sqrt(1 / 3_000 + 1 / 1_000)
    assert np.mean(distances) == pytest.approx(expected_distance, rel=4 * 0.3 / math.sqrt(40))


def test_a_trained_classifier_finds_the_distance():
    rng = np.random.default_rng(3)
    truth, made = rng.normal(0, 1, (4_000, 1)), rng.normal(0.5, 1, (4_000, 1))
    method = Network(hidden=(8,), epochs=6, batch_size=200, lr=1e-2)
    weights = classifier_weights(truth, made, method=method, ensemble=1, seed=1, progress=False)
    found = differential_amplification(weights, 100)
    assert found.total.distance[0] == pytest.approx(2 * norm.cdf(0.25) - 1, abs=0.04)
    assert found.control is not None and abs(found.control.distance[0]) < 5 * found.control.distance[1]
    assert "truth against truth: D = " in found.text() and found.total.gain[0] == found.total.events[0] / 100


def test_figures():
    two = averaging_amplification(posterior((1.0, 1.0)), cells=(4, 9), n=2_000, draws=6)
    one = averaging_amplification(posterior(), cells=(4,), n=2_000, draws=6)
    worths = posterior().worth({"x": (0, np.linspace(-3, 3, 9)), "y": (0, [-9.0, 5.0, 9.0])}, n=2_000, draws=6)
    far, near = (differential_amplification(gaussians(shift, 500, 1), 100) for shift in (0.5, 0.0))
    figures = [
        plotting.plot_worth(list(worths.values()), title="worth"),
        plotting.plot_amplification_map(two),
        plotting.plot_amplification_map(one, title="one"),
        plotting.plot_differential(far),
        plotting.plot_differential(near),
    ]
    assert all(isinstance(figure, matplotlib.figure.Figure) for figure in figures)
    drawn = [axis for axis in figures[0].axes if axis.get_visible()]
    assert len(drawn) == 4 and drawn[0].get_ylabel() == "density"
    assert len(figures[1].axes[0].patches) == 9 and len(figures[2].axes) == 1
    with pytest.raises(ValueError, match="cells is 5; it must be one of 4, 9"):
        plotting.plot_amplification_map(two, cells=5)
    with pytest.raises(TypeError, match="every entry of worths is a HistogramBand.*wrap it"):
        plotting.plot_worth([worths["x"].band])
