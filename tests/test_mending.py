"""Pulls of a generator by its classifier weights, and what mends it, where the answer is known."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_classifier_weights import SHIFT, Moments, normal

import pyrogen as pg
from pyrogen import EventSample
from pyrogen.diagnostics import (
    ClassifierWeights,
    classifier_weights,
    closure,
    reweight,
    two_sample_test,
    unweight,
    weight_pulls,
)
from pyrogen.plotting import plot_weight_pulls
from pyrogen.posterior import MeanField, RunInfo, sample_histograms

QUICK = {"progress": False, "ensemble": 1, "control": False, "method": Moments()}


def exact_weights(truth, generated, log_ratio, control=None):
    """A result with these log-weights, of samples that nobody was trained on."""
    made = classifier_weights(truth, generated, **QUICK)
    log_w = [np.asarray(log_ratio(each.tensor(torch.float64))) for each in (made.truth, made.generated)]
    return replace(made, log_w_truth=log_w[0], log_w_generated=log_w[1], control=control)


@pytest.fixture(scope="module")
def gaussians():
    """N(1/2, 1) as truth and N(0, 1) with a sigma and draws as generated events, with the exact ratio."""
    x = normal(20_000, 0, 2)
    rng = np.random.default_rng(3)
    draws = rng.normal(0, 0.1, 8)  # each draw is N(draw, 1)
    log_weights = x.numpy() * draws - draws**2 / 2
    generated = EventSample(x, uncertainties=np.full(len(x), 0.1), log_weights=log_weights)
    return exact_weights(normal(20_000, SHIFT, 1), generated, lambda x: SHIFT * x[:, 0] - SHIFT**2 / 2)


@pytest.fixture(scope="module")
def posterior():
    """A posterior over two columns that nobody has trained."""
    events = normal(60, 0, 1, 2).float()
    model = pg.BayesianFlow(pg.CouplingFlow(2, blocks=2, hidden=(4,)), preprocessing=None).prepare(events)
    theta = model.initial_theta
    info = RunInfo(training_events=60, effective_size=60.0)
    return pg.Posterior(model, MeanField(loc=theta, scale=0.05 + 0 * theta), None, info, progress=False)


def test_pulls_are_deviations_in_units_of_sigma():
    rng = np.random.default_rng(1)
    sigma, normal_numbers = rng.uniform(0.05, 0.2, 4000), rng.normal(size=4000)
    generated = EventSample(normal(4000, 0, 2), uncertainties=np.where(np.arange(4000) < 7, 0, sigma))
    found = classifier_weights(normal(4000, 0, 1), generated, **QUICK | {"control": True})
    pulls = weight_pulls(replace(found, log_w_generated=np.log1p(-sigma * normal_numbers)))
    # Deviations that are independent, and of the size of sigma: a standard Gaussian.
    assert pulls.pull == pytest.approx(normal_numbers[7:]) and pulls.left_out == 7
    assert pulls.width == pytest.approx(1, abs=0.06) and abs(pulls.centre) < 0.06  # 4 / sqrt(4000)
    assert pulls.floor == pytest.approx(found.floor / np.median(sigma), rel=0.02)
    # Large deviations are where sigma is large: the medians in bins of w have a valley at w = 1.
    assert pulls.median[0] > pulls.median[5] < pulls.median[-1] and len(pulls.edges) == 11
    assert (pulls.low < pulls.median).all() and (pulls.median < pulls.high).all()
    inside = (pulls.w >= pulls.edges[2]) & (pulls.w < pulls.edges[3])
    assert pulls.median[2] == pytest.approx(np.median(sigma[7:][inside]), rel=0.01)
    assert "median" in pulls.text() and "7 events have no finite pull" in pulls.text()


def test_pulls_of_a_posterior_and_of_its_histograms(posterior):
    generated = posterior.generate(3000)
    found = exact_weights(posterior.sample(2000, seed=5), EventSample(generated.values), lambda x: 0 * x[:, 0] + 0.1)
    pulls = weight_pulls(found, posterior, draws=20, seed=1)
    relative = posterior.density(found.generated, 20, seed=1).relative.numpy()
    assert pulls.relative == pytest.approx(relative) and pulls.pull == pytest.approx(-np.expm1(0.1) / relative)
    observables = {"x": (0, 6, (-2.0, 2.0)), "r": (lambda x: x.norm(dim=1), 4, (0.0, 3.0))}
    pulls = weight_pulls(found, posterior, sample="truth", observables=observables, draws=20, n=4000, seed=1)
    assert pulls.sample == "truth" and len(pulls.pull) == 2000
    band = posterior.histograms(observables, n=4000, draws=20, seed=1)["r"]
    radius = np.linalg.norm(found.truth.values, axis=1)
    counts = np.histogram(radius, band.edges)[0] / 2000
    by_hand = (band.mean - counts) / np.sqrt(band.std**2 + counts / 2000)
    assert pulls.histograms["r"].pull == pytest.approx(by_hand)
    assert 0.2 < pulls.histograms["x"].width < 3  # the truth is the posterior's own
    figure = plot_weight_pulls(pulls)
    histogram, sigma, bins = figure.axes
    assert f"truth: width {pulls.width:.2f}" in [text.get_text() for text in histogram.get_legend().get_texts()]
    assert [text.get_text() for text in bins.get_yticklabels()] == ["x", "r"]
    assert bins.lines[1].get_xdata() == pytest.approx(np.clip(by_hand, -4, 4))
    assert len(plot_weight_pulls(replace(pulls, histograms={})).axes) == 2
    with pytest.raises(
        ValueError, match="posterior is None; it is needed for sigma of the generated events.* give the posterior, or"
    ):
        weight_pulls(found)
    with pytest.raises(ValueError, match="posterior is None; it is needed for the histograms"):
        weight_pulls(found, observables=observables)


def test_cross_fitted_weights_mend_a_sample(gaussians):
    mended = reweight(gaussians)
    assert mended.events.weights == pytest.approx(gaussians.w_generated / gaussians.w_generated.mean())
    x = mended.events.column(0)
    mean = np.average(x, weights=mended.events.weights)
    assert mean == pytest.approx(SHIFT, abs=4 * np.exp(SHIFT**2 / 2) / 20_000**0.5)
    # (sum w)^2 / sum w^2 of a ratio of Gaussians: N exp(-SHIFT^2).
    assert mended.effective_size == pytest.approx(20_000 * math.exp(-(SHIFT**2)), rel=0.03)
    assert mended.unclipped_size == pytest.approx(mended.effective_size) and mended.lost_share == 0
    clipped = reweight(gaussians, largest=2.0)
    w = gaussians.w_generated
    assert clipped.clipped == (w > 2).sum() and clipped.effective_size > clipped.unclipped_size
    assert clipped.unclipped_size == pytest.approx(mended.effective_size)
    assert clipped.lost_share == pytest.approx(1 - w.clip(max=2).sum() / w.sum())
    assert "without clipping" in clipped.text()


def test_further_events_are_those_that_no_classifier_has_seen(gaussians):
    own, other = gaussians.generated, EventSample(normal(500, 0, 9))
    assert np.array_equal(reweight(gaussians, own).events.weights, reweight(gaussians).events.weights)
    found = reweight(gaussians, other).events
    expected = gaussians.log_ratio(other).exp().numpy()
    assert found.weights == pytest.approx(expected / expected.mean())
    with pytest.raises(ValueError, match="generated has 3 of the 20,000 events that these weights come from"):
        reweight(gaussians, EventSample(np.r_[other.values, own.values[:3]]))
    with pytest.raises(ValueError, match="generated is None"):
        reweight(pg.diagnostics.Classifier(1, (4,)))


def test_the_band_of_the_posterior_survives_both(gaussians):
    """Draw k is N(a_k, 1); times w it is N(a_k + 1/2, 1), whatever is done to get there."""
    mended = reweight(gaussians).events
    plain = unweight(mended, seed=1).events
    draws = gaussians.generated.log_weights
    a = (draws[1] - draws[0]) / (gaussians.generated.values[1] - gaussians.generated.values[0])  # of x a - a^2 / 2
    for events, own in ((mended, mended.weights), (plain, np.ones(len(plain)))):
        for k in range(8):
            weights = own * np.exp(events.log_weights[:, k])
            mean = np.average(events.column(0), weights=weights)
            effective = weights.sum() ** 2 / np.sum(weights**2)
            assert abs(mean - SHIFT - a[k]) < 5 / effective**0.5
    band = sample_histograms(plain, {"x": (0, [-9.0, SHIFT, 9.0])})["x"]
    expected = [0.5 * (1 + math.erf(-each / 2**0.5)) for each in a]
    assert band.draws[:, 0] / band.draws.sum(1) == pytest.approx(expected, abs=0.02)


def test_unweighting_accepts_in_proportion_to_the_weight():
    rng = np.random.default_rng(4)
    weights = rng.choice([0.2, 1.0, 2.5], 30_000)
    sample = EventSample(weights, ("w",), weights=weights)
    found = unweight(sample, seed=3)
    assert found.events.weights is None and found.maximum == 2.5 and found.overweight == found.repeated == 0
    assert found.efficiency == pytest.approx(weights.mean() / 2.5)
    assert len(found.events) == pytest.approx(30_000 * found.efficiency, rel=0.03)
    for value in (0.2, 1.0):
        count, n = (found.events.column(0) == value).sum(), (weights == value).sum()
        assert abs(count / n - value / 2.5) < 4 * (value / 2.5 / n) ** 0.5
    assert (found.events.column(0) == 2.5).sum() == (weights == 2.5).sum()
    # At a smaller maximum events of weight 2.5 come twice, and half of them once more.
    n = (weights == 2.5).sum()
    many = unweight(sample, maximum=1.0, seed=3)
    copies = (many.events.column(0) == 2.5).sum()
    assert many.overweight == n and abs(copies / n - 2.5) < 4 * 0.5 / n**0.5 and many.repeated == copies - n
    assert many.overweight_share == pytest.approx(1.5 * n / weights.sum())
    cut = unweight(sample, maximum=1.0, overweights="cut", seed=3)
    assert (cut.events.column(0) == 2.5).sum() == n and cut.repeated == 0 and "which is cut off" in cut.text()
    assert "events are copies" in unweight(sample, maximum=2.49, seed=3).text()
    assert np.array_equal(found.events.values, unweight(sample, seed=3).events.values)
    for wrong, message in (
        (EventSample(weights), "no weights"),
        (EventSample([[1.0], [2]], weights=[-1, 3]), "negative"),
    ):
        with pytest.raises(ValueError, match=message):
            unweight(wrong)


def test_closure_on_an_observable_that_the_classifier_never_saw(gaussians):
    truth = normal(20_000, SHIFT, 7)
    cube = {"cube": lambda x: x[:, 0] ** 3, "x": 0}
    for after in (reweight(gaussians), unweight(reweight(gaussians).events)):
        table = closure(truth, gaussians.generated, after, cube)
        assert (table.before.ratio > 10).all() and (table.after.ratio < 3).all()
        assert (
            table.before.names == ("cube", "x") and "before/floor  after/floor" in table.text() and "->" in repr(table)
        )
    spoiled = closure(truth, gaussians.generated, gaussians.generated, cube)
    assert (spoiled.after.ratio > 10).all()


def test_the_floor_of_closure_is_that_of_independent_events():
    """Samples without any fault are at their floor, also where they are worth few events."""
    found = []  # weighted events are worth exp(-1.5^2) = 0.1 of them: their floor is 2.3 times that of all
    for seed in range(8):
        truth = normal(16_000, 0, seed, 2)
        truth[:, 0] += 1.5
        made = EventSample(normal(8000, 0, 100 + seed, 2))
        x = made.column(0)
        weighted = EventSample(made, weights=np.exp(1.5 * x - 1.125))
        copied = unweight(weighted, maximum=float(np.quantile(weighted.weights, 0.5)), seed=seed)
        tables = [closure(truth, made, each, {"x": 0, "y": 1}, partitions=5) for each in (weighted, copied)]
        assert tables[0].after.effective_sizes[1] == pytest.approx(weighted.effective_size)
        assert tables[1].after.effective_sizes[1] < 0.5 * len(copied.events)
        found.append([table.after.ratio[1] for table in tables])
    # A single W1 scatters by 45 %: the sum of 8, each of which is independent of the weights in y, by 16 %.
    assert np.mean(found, 0) == pytest.approx(1, abs=0.5)


def test_events_are_not_reweighted_twice(gaussians):
    with pytest.raises(ValueError, match="would count twice in events that were reweighted before"):
        reweight(gaussians, reweight(gaussians).events)
    once = EventSample(gaussians.generated, weights=np.full(len(gaussians.generated), 0.1))
    assert reweight(gaussians, once).effective_size == pytest.approx(reweight(gaussians).effective_size)


@pytest.mark.parametrize("told", [True, False])
def test_copies_are_refused(told, tmp_path):
    weights = np.random.default_rng(1).exponential(size=600)
    made = unweight(EventSample(normal(600, 0, 2, 2), weights=weights), maximum=1.0)
    assert made.repeated > 50 and made.events.provenance == {"copies": made.repeated}
    events = made.events if told else EventSample(made.events.values)
    message = f"generated has {made.repeated} events that are copies of others of it"
    for test in (two_sample_test, classifier_weights):
        with pytest.raises(ValueError, match=message):
            test(normal(500, 0, 1, 2), events, method=Moments(), progress=False)
    once = unweight(EventSample(normal(600, 0, 2, 2), weights=weights), maximum=1.0, overweights="cut")
    assert once.events.provenance == {}
    two_sample_test(normal(500, 0, 1, 2), once.events, method=Moments(), toys=2, progress=False)
    if told:  # a part without any copy, and one that a file has kept
        made.events.save(tmp_path / "copies.h5")
        with pytest.raises(ValueError, match=message):
            two_sample_test(normal(500, 0, 1, 2), pg.events.read(tmp_path / "copies.h5"), progress=False)
        _, first = np.unique(made.events.values, axis=0, return_index=True)
        two_sample_test(normal(500, 0, 1, 2), made.events[first], method=Moments(), toys=2, progress=False)


def test_events_that_are_alike_by_chance_are_no_copies():
    random, options = np.random.default_rng(1), {"method": Moments(), "toys": 2, "progress": False}
    atoms = [np.where(random.random((500, 1)) < share, 0.0, random.normal(size=(500, 2))) for share in (0.01, 0.3)]
    two_sample_test(*atoms, **options)
    grid = [random.integers(0, 40, (500, 2)).astype(float) for _ in range(2)]
    two_sample_test(grid[0], grid[1], **options)
    two_sample_test(grid[0][:100], grid[1], **options)
    other = grid[1] // 8 * 8 + 0.5  # discrete, too, but never where the others are
    two_sample_test(grid[0], other, **options)


def test_p_values_without_a_difference_are_uniform():
    p = []
    for seed in range(60):
        samples = normal(60, 0, 2 * seed, 2), normal(80, 0, 2 * seed + 1, 2)
        p.append(two_sample_test(*samples, method=Moments(), toys=19, seed=seed, progress=False).p_value)
    # Multiples of 1/20, uniform: mean 0.525 and variance (400 - 1) / 12 / 400.
    assert np.mean(p) == pytest.approx(0.525, abs=4 * 0.288 / 60**0.5)
    assert abs(np.mean(np.array(p) <= 0.25) - 0.25) < 4 * (0.25 * 0.75 / 60) ** 0.5
    assert set(np.round(np.array(p) * 20, 9)) <= set(range(1, 21))


def test_power_and_statistic():
    truth, generated = normal(400, 0, 1, 2), normal(500, 0, 2, 2)
    generated[:, 1] = 0.6 * generated[:, 0] + 0.8 * generated[:, 1]  # a correlation, and the same marginals
    found = two_sample_test(truth, generated, method=Moments(), toys=39, progress=False)
    assert found.p_value == 1 / 40 and found.pull > 5 and found.toys.mean() < 0 < found.statistic
    assert "p = 0.025, the smallest of 39 permutations; t is" in found.text()
    again = two_sample_test(truth, generated, method=Moments(), toys=39, progress=False)
    assert again.statistic == found.statistic and np.array_equal(again.toys, found.toys)
    # Of exact weights t / 2 / N is the divergence of both densities.
    exact = exact_weights(normal(20_000, SHIFT, 1), normal(30_000, 0, 2), lambda x: SHIFT * x[:, 0] - SHIFT**2 / 2)
    from pyrogen.diagnostics.control.two_samples import _statistic

    assert _statistic(exact) / 40_000 == pytest.approx(SHIFT**2 / 2, abs=4 * SHIFT / 20_000**0.5)
    with pytest.raises(ValueError, match="generated has weights"):
        two_sample_test(truth, EventSample(generated, weights=np.ones(500)), progress=False)
    assert isinstance(exact, ClassifierWeights)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_classifier_that_finds_nothing():
    """Trees that cannot split give the same statistic for all permutations."""
    trees = pg.diagnostics.Trees(smallest_leaf=500)
    found = two_sample_test(normal(200, 0, 1, 2), normal(200, 9, 2, 2), method=trees, toys=3, progress=False)
    assert found.p_value == 1 and found.pull == 0 and "0.0 standard deviations" in found.text()


def test_two_samples_do_not_share_events():
    events = EventSample(np.random.default_rng(0).normal(size=(200, 2)))
    with pytest.raises(ValueError, match="generated shares 150 events with truth"):
        two_sample_test(events, events[50:], toys=2, progress=False)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_figure_of_pulls_where_the_classifier_has_no_noise():
    generated = EventSample(normal(500, 0, 2), uncertainties=np.full(500, 0.1))
    pulls = replace(weight_pulls(classifier_weights(normal(500, 0, 1), generated, **QUICK)), floor=0.0)
    figure = plot_weight_pulls(pulls)
    assert not any("noise" in text.get_text() for text in figure.axes[0].get_legend().get_texts())
