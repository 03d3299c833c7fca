"""Marginal distributions of a flow whose densities, bins and covariances are known: sigma with and without noise."""

import math
import warnings

import numpy as np
import pytest
import torch
from known import Line
from torch import nn

import pyrogen as pg
from pyrogen.diagnostics import density_along_lines
from pyrogen.diagnostics.marginals import MarginalResult, marginal
from pyrogen.plotting.maps import plot_correlation, plot_marginal_sigma
from pyrogen.posterior import MeanField, RunInfo

SLOPE, ERROR = 1.0, 0.15
EDGES = np.array([0.0, 0.1, 0.3, 0.5, 0.6, 0.8, 1.0])  # of two widths, none around 1/2


class Ramps(nn.Module):
    """p(x, y) = (1 + a (x - 1/2)) (1 + c (y - 1/2)) on the unit square, its weights the slopes a and c.

    The marginal in x is 1 + a (x - 1/2), whatever c is, and linear: its probability in a bin of centre x and width W
    is W (1 + a (x - 1/2)), so that sigma there is W |x - 1/2| sigma_a to the last digit.
    """

    features = 2

    def __init__(self):
        super().__init__()
        self.slopes = nn.Parameter(torch.tensor([SLOPE, 0.0], dtype=torch.float64))

    def log_prob(self, x):
        return (1 + self.slopes * (x - 0.5)).log().sum(-1)

    def sample(self, n):
        u, a = torch.rand(n, 2, dtype=torch.float64), self.slopes
        return 2 * u / (1 - a / 2 + ((1 - a / 2).square() + 2 * a * u).sqrt())


def ramps(error=ERROR, y_error=0.0, **info):
    loc, scale = (torch.tensor(its, dtype=torch.float64) for its in ([SLOPE, 0.0], [error, y_error]))
    weights = MeanField(loc=loc, scale=scale)
    return pg.Posterior(pg.BayesianFlow(Ramps(), preprocessing=None), weights, info=RunInfo(**info))


def slopes(posterior, draws, seed=0):
    """Mean and standard deviation of the slopes a and c of these very draws."""
    its = torch.stack([*posterior.weights.draws(draws, seed)]).numpy()
    return its.mean(0), its.std(0, ddof=1)


def probabilities(edges, slope=SLOPE):
    return np.diff(edges) * (1 + slope * (middle(edges) - 0.5))


def middle(edges):
    return (edges[1:] + edges[:-1]) / 2


def multinomial(p, n):
    """Covariance of the fractions of n events in bins of probability p."""
    return (np.diag(p) - np.outer(p, p)) / n


def wishart(covariance, degrees):
    """Standard deviations of the elements of a sample covariance of Gaussian numbers."""
    variance = np.diag(covariance)
    return np.sqrt((np.outer(variance, variance) + covariance**2) / degrees)


def test_the_marginal_sigma_over_a_trivial_y_is_the_one_dimensional_one():
    """[A] sec. 3.5: y adds nothing. Both procedures, without their noise, find what the density along lines has."""
    n, draws = 10_000, 200
    posterior = ramps()
    found = marginal(posterior, 0, 8, range=(0, 1), n=n, draws=draws)
    (slope, _), (spread, _) = slopes(posterior, draws)
    assert spread == pytest.approx(ERROR, rel=5 / math.sqrt(2 * (draws - 1)))
    distance = np.abs(found.centres - 0.5)
    lines = density_along_lines(posterior, pg.targets.Wedge(), found.centres, [0.2, 0.7], draws, seed=0)
    np.testing.assert_allclose(lines.sigma, distance * spread, rtol=1e-10)
    np.testing.assert_allclose(lines.sigma_spread, 0, atol=1e-10)

    # (a): s^2 of these draws is exact, their noise nu has K - 1 degrees of freedom, the product of both is in between.
    p, width = probabilities(found.edges, slope), 1 / 8
    exact, noise = (distance * spread * width) ** 2, p * (1 - p) / n
    error = np.sqrt((4 * exact * noise + 2 * noise**2) / (draws - 1)) / width**2
    assert (np.abs(found.sigma("a") ** 2 - lines.sigma**2) < 5 * error).all()
    # Noise is most of it in the middle, and seen as such.
    total = (exact + noise) / width**2
    assert (np.abs(found.sigma("a", False) ** 2 - total) < 5 * error).all()
    assert found.sigma("a", False).min() > 1.5 * lines.sigma.min()
    # (b): every draw sees the same n p events of a bin, and in those next to 1/2 they spread in |x - 1/2| by 1/3.
    assert (np.abs(found.sigma("b") / lines.sigma - 1) < 5 * math.sqrt(4 / 3) / np.sqrt(n * p)).all()

    for procedure in "ab":
        difference = found.density(procedure) - (1 + slope * (found.centres - 0.5))
        assert (np.abs(difference) < 5 * np.sqrt(p / n) / width).all()


def test_ratio_to_the_lines_is_one_where_they_deviate_together():
    n, draws = 20_000, 30
    found = marginal(ramps(), 0, 10, range=(0, 1), n=n, draws=draws)
    lines = density_along_lines(ramps(), pg.targets.Wedge(), [0.1, 0.5, 0.9], draws=draws)  # a kink at 1/2
    ratio = found.ratio_to_lines(lines, procedure="b")
    assert np.isnan(ratio[[0, -1]]).all()  # the lines do not reach the middles of these bins
    tolerance = 5 * math.sqrt(4 / 3) / np.sqrt(n * probabilities(found.edges))
    assert (np.abs(ratio - 1) < tolerance)[1:-1].all()
    np.testing.assert_allclose(found.ratio_to_lines(lines, np.array([1.0, 2.0, 3.0]), "b")[-2], ratio[-2] / 3)
    np.testing.assert_allclose(found.ratio_to_lines(lines)[1:-1], (ratio * found.sigma() / found.sigma("b"))[1:-1])


def test_bins_in_which_nothing_varies_have_no_sigma():
    """The middle one of three: x - 1/2 averages to zero in it."""
    n, draws = 5000, 30
    found = marginal(ramps(), 0, [0.0, 0.4, 0.6, 1.0], n=n, draws=draws)
    noise = 0.2 * 0.8 / n
    for procedure in "ab":
        variance = found.bands[procedure].covariance(subtract_noise=True)[1, 1]
        assert abs(variance) < 5 * noise * math.sqrt(2 / (draws - 1))
    assert found.sigma("a", False)[1] == pytest.approx(math.sqrt(noise) / 0.2, rel=5 / math.sqrt(2 * draws))


@pytest.mark.parametrize("n", [300, 30_000])
def test_noise_of_own_events_is_multinomial(n):
    """Draws that are all the same differ by nothing else. A fifth of the events lies outside the bins."""
    draws, edges = 60, np.linspace(0, 0.8, 41)
    band = ramps(0.0).histogram(0, edges, n=n, draws=draws)
    p = probabilities(edges)
    expected, error = multinomial(p, n), wishart(multinomial(p, n), draws - 1)
    # The noise is known from the events of all draws together.
    assert (np.abs(band.noise / expected - 1) < 5 * np.sqrt(np.add.outer(1 / p, 1 / p) / (n * draws))).all()
    assert (np.abs(band.covariance() - expected) < 5 * error).all()
    left = band.covariance(subtract_noise=True)
    assert (np.abs(left) < 5 * error).all() and (np.diag(left) < 0).any()
    share = (np.diag(band.covariance()) / np.diag(band.noise)).mean()
    assert share == pytest.approx(1, abs=4 * math.sqrt(2 / (len(p) * (draws - 1))))
    np.testing.assert_allclose(band.sigma() ** 2, np.diag(band.covariance()))
    np.testing.assert_allclose(band.sigma(), band.std)
    np.testing.assert_allclose(band.sigma(True) ** 2, np.clip(np.diag(left), 0, None), atol=1e-20)


def test_noise_of_weighted_events_is_that_of_their_weights():
    """The slope in y varies, that in x does not: all that rows of x differ by is how the y of a bin happen to lie."""
    n, draws, edges, y_error = 20_000, 4, np.linspace(0, 1, 101), 0.3
    shares = []
    for seed in range(4):
        posterior = ramps(0.0, y_error)
        band = posterior.histogram(0, edges, n=n, draws=draws, procedure="b", seed=seed)
        (_, mean), (_, spread) = slopes(posterior, draws, seed)
        # w_k - 1 = (c_k - c) (y - 1/2) / (1 + c (y - 1/2)), y with the density 1 + c (y - 1/2), c the mean of c_k
        y = (np.arange(1000) + 0.5) / 1000 - 0.5
        expected = probabilities(edges) * spread**2 * np.mean(y**2 / (1 + mean * y)) / n
        noise = np.diag(band.noise)
        # An event counts (y - 1/2)^2, whose relative standard deviation is sqrt(4/5): with its bin's Poisson 1.34.
        assert (np.abs(noise / expected - 1) < 5 * 1.34 / np.sqrt(n * probabilities(edges))).all()
        assert noise.sum() == pytest.approx(expected.sum(), rel=5 * 1.34 / math.sqrt(n))
        shares.append(np.diag(band.covariance()) / noise)
    # Rows of one sample of events have one deviation per bin, whatever the number of draws.
    assert np.mean(shares) == pytest.approx(1, abs=4 * math.sqrt(2 / np.size(shares)))

    same = ramps(0.0).histogram(0, edges, n=n, draws=draws, procedure="b")
    np.testing.assert_allclose(same.covariance(), 0, atol=1e-20)
    np.testing.assert_allclose(same.noise, 0, atol=1e-20)


def test_noise_is_unbiased_even_for_few_events():
    """With n - 1 in the denominator; n would be a quarter too little."""
    draws, edges, n = 1000, np.linspace(0, 1, 5), 4
    band = ramps(0.0).histogram(0, edges, n=n, draws=draws)
    p = probabilities(edges)
    np.testing.assert_allclose(np.diag(band.noise), p * (1 - p) / n, rtol=5 / math.sqrt(n * draws * p.min()))
    share = (np.diag(band.covariance()) / np.diag(band.noise)).mean()
    assert share == pytest.approx(1, abs=5 * math.sqrt(2 / ((len(p) - 1) * draws)))  # four bins, three of them free


def test_error_of_sigma_is_its_deviation_over_trainings():
    """Half of the variance is noise here."""
    draws, trainings = 20, 120
    edges = np.array([0.0, 0.25])
    true = (ERROR * 0.375) ** 2
    p = probabilities(edges)
    n = int((p * (1 - p))[0] / (true / 16))
    found = [marginal(ramps(), 0, edges, n=n, draws=draws, seed=seed) for seed in range(trainings)]
    deviations = [its.bands["a"].covariance(True)[0, 0] * 16 - true for its in found]
    errors = np.array([2 * its.sigma() * its.sigma_error() for its in found])  # of sigma^2
    assert np.array_equal(np.isnan(errors), [its.sigma() == 0 for its in found])
    ratio = math.sqrt(np.mean(np.square(deviations)) / np.nanmean(errors**2))
    # Deviations of a chi^2 of 19 degrees of freedom have kurtosis 3 + 12/19.
    assert ratio == pytest.approx(1, abs=4 * math.sqrt((2 + 12 / 19) / (4 * trainings)))
    assert np.mean(deviations) == pytest.approx(0, abs=4 * np.std(deviations) / math.sqrt(trainings))
    raw = [2 * its.sigma("a", False) * its.sigma_error("a", False) for its in found]
    np.testing.assert_allclose(raw, [its.sigma("a", False) ** 2 * math.sqrt(2 / 19) for its in found])


def test_covariance_of_bins_is_the_outer_product_of_their_derivatives():
    draws, n = 50, 50_000
    posterior = ramps()
    (slope, _), (spread, _) = slopes(posterior, draws)
    derivative = (middle(EDGES) - 0.5) * np.diff(EDGES)
    expected, p = np.outer(derivative, derivative) * spread**2, probabilities(EDGES, slope)
    own, weighted = (posterior.histogram("x0", EDGES, n=n, draws=draws, procedure=its) for its in "ab")

    error = wishart(expected + multinomial(p, n), draws - 1)
    assert (np.abs(own.covariance(subtract_noise=True) - expected) < 5 * error).all()
    assert (np.abs(own.covariance() - expected - multinomial(p, n)) < 5 * error).all()
    np.testing.assert_allclose(own.covariance(), np.cov(own.draws.T))
    relative = 5 * math.sqrt(4 / 3) / np.sqrt(n * p)
    ratio = weighted.covariance(subtract_noise=True) / expected
    assert (np.abs(ratio - 1) < relative[:, None] + relative).all()

    # One slope moves all bins: together on one side of 1/2, against each other across it.
    signs = np.sign(np.outer(derivative, derivative))
    np.testing.assert_allclose(weighted.correlation(), signs, atol=1e-6)
    strong = np.abs(derivative) > 0.03
    both = np.ix_(strong, strong)
    # What is left of the noise changes a correlation of one in second order only: by its share over sqrt(K).
    share = (np.diag(multinomial(p, n)) / np.diag(expected))[strong].max()
    assert share < 0.2
    np.testing.assert_allclose(own.correlation(subtract_noise=True)[both], signs[both], atol=share)
    assert (np.abs(own.correlation()) < 1 + 1e-12).all()
    np.testing.assert_allclose(np.diag(own.correlation()), 1)


def test_a_bin_that_never_varies_has_no_correlation():
    band = pg.HistogramBand(np.array([0.0, 1, 2]), np.array([[0.2, 0.5], [0.3, 0.5]]), 100, "a")
    np.testing.assert_array_equal(np.isnan(band.correlation()), [[False, True], [True, True]])


@pytest.mark.parametrize("subtract", [False, True])
def test_toys_have_the_mean_and_the_covariance_of_the_band(subtract):
    band, n = ramps().histogram(0, EDGES, n=2000, draws=50), 20_000
    toys = band.toys(n, subtract_noise=subtract)
    values, vectors = np.linalg.eigh(band.covariance(subtract))
    assert (values.min() < -1e-9) == subtract  # most of what (a) with 2000 events shows is noise
    covariance = vectors @ np.diag(np.clip(values, 0, None)) @ vectors.T
    assert toys.shape == (n, len(EDGES) - 1)
    assert (np.abs(toys.mean(0) - band.mean) < 5 * np.sqrt(np.diag(covariance) / n)).all()
    assert (np.abs(np.cov(toys.T) - covariance) < 5 * wishart(covariance, n) + 1e-12).all()
    assert np.array_equal(toys, band.toys(n, 0, subtract))
    assert not np.array_equal(toys, band.toys(n, 1, subtract))


def test_toys_know_the_directions_of_the_draws_alone():
    toys = ramps().histogram(0, 12, range=(0, 1), n=2000, draws=4).toys(100)
    singular = np.linalg.svd(toys - toys.mean(0), compute_uv=False)
    assert (singular[3:] < 1e-6 * singular[0]).all() and singular[2] > 1e-3 * singular[0]
    np.testing.assert_allclose(toys.sum(1), 1, atol=1e-10)  # as every draw: nothing lies outside the bins


@pytest.mark.parametrize("procedure", ["a", "b"])
def test_histograms_of_several_observables_are_those_of_each(procedure):
    def total(events):
        return events.sum(-1)

    posterior = ramps(y_error=0.2)
    settings = {"n": 3000, "draws": 10, "procedure": procedure, "seed": 3}
    found = posterior.histograms({"x": (0, EDGES), "y": ("x1", 5, (0.1, 0.9)), "sum": (total, 4, (0, 2))}, **settings)
    assert [*found] == ["x", "y", "sum"]
    for name, one in {
        "x": posterior.histogram(0, EDGES, **settings),
        "y": posterior.histogram(1, 5, range=(0.1, 0.9), **settings),
        "sum": posterior.histogram(total, 4, range=(0, 2), **settings),
    }.items():
        for attribute in ("edges", "draws", "noise"):
            assert np.array_equal(getattr(found[name], attribute), getattr(one, attribute)), (name, attribute)
        assert (found[name].events, found[name].procedure) == (3000, procedure)
    with pytest.raises(ValueError, match="observables is empty"):
        posterior.histograms({})
    with pytest.raises(ValueError, match=r"needs range=\(low, high\)"):
        posterior.histograms({"x": (0, 5)})


def test_a_marginal_knows_the_name_and_unit_of_its_column():
    few = {"n": 100, "draws": 3}
    posterior = ramps(names=["pT", "eta"], units=["GeV", ""])
    for column in ("pT", 0, -2, np.int64(0)):
        found = marginal(posterior, column, 2, range=(0, 1), **few)
        assert (found.label, found.unit) == ("pT", "GeV")
    found = marginal(posterior, lambda x: x[:, 0], 2, range=(0, 1), label="mass", unit="TeV", truth=[0.8, 1.2], **few)
    assert (found.label, found.unit, found.truth.tolist()) == ("mass", "TeV", [0.8, 1.2])
    assert [*found.bands] == ["a", "b"] and found.centres.tolist() == [0.25, 0.75]
    assert marginal(posterior, lambda x: x[:, 0], 2, range=(0, 1), **few).label == "observable"
    assert marginal(ramps(), 1, 2, range=(0, 1), **few).label == "x1"


def test_a_conditional_flow_has_a_marginal_for_its_conditions():
    weights = MeanField(loc=torch.tensor([1.0, -2.0]), scale=torch.full((2,), 1e-6))
    posterior = pg.Posterior(pg.BayesianFlow(Line(context=2), preprocessing=None), weights, progress=False)
    # Events ~ N(3 - 2, 1): half of them lie above 1, and 0.3413 within a width on either side.
    for context in (torch.tensor([3.0, 1.0]), torch.tensor([[3.0, 1.0]]).expand(4000, 2)):
        found = marginal(posterior, 0, [0.0, 1.0, 2.0], n=4000, draws=4, context=context)
        assert np.abs(found.density("a") - 0.3413).max() < 4 * np.sqrt(0.3413 * 0.6587 / 16_000)
        assert np.abs(found.density("b") - 0.3413).max() < 4 * np.sqrt(0.3413 * 0.6587 / 4000)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: marginal(ramps(), 0, 3, range=(0, 1), n=100, truth=[1.0, 1.0]), r"truth has shape \[2\].*3 bins"),
        (lambda: marginal(ramps(), 0, 3, n=100), r"needs range=\(low, high\)"),
        (lambda: marginal(ramps(), 0, [0.0, 0.0], n=100), "increasing"),
        (lambda: marginal(ramps(), "pT", [0.0, 1.0], n=100), "no column 'pT'"),
        (lambda: marginal(ramps(), 0, [0.0, 1.0], n=100, draws=1), "draws is 1"),
        (lambda: marginal(ramps(), 0, [0.0, 1.0], n=10, draws=20), "n is 10"),
        (lambda: ramps().histogram(0, [0.0, 1.0], n=1, draws=2).covariance(True), "does not know the noise"),
        (lambda: pg.HistogramBand(np.arange(3), np.ones((2, 2)), 9, "a").sigma(True), "does not know the noise"),
        (lambda: pg.HistogramBand(np.arange(3), np.ones((2, 2)), 9, "a").toys(9, 0, True), "does not know the noise"),
        (lambda: pg.HistogramBand(np.arange(3), np.ones((2, 2)), 9, "a").toys(0), "n is 0"),
    ],
)
def test_bad_marginals_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def drawn(figure):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()
    return figure.axes


def test_the_figure_of_sigma_shows_both_procedures_and_the_lines():
    posterior = ramps(names=["m", "y"], units=["GeV", ""])
    found = marginal(posterior, "m", 5, range=(0, 1), n=3000, draws=20)
    lines = density_along_lines(posterior, pg.targets.Wedge(), positions=[0.3, 0.6], draws=20)
    top, bottom = drawn(plot_marginal_sigma(found, lines))
    for container, below, name in zip(top.containers, bottom.containers, "ab", strict=True):
        points, _, (bars,) = container
        np.testing.assert_allclose(points.get_ydata(), found.sigma(name))
        known = found.sigma(name) > 0
        lengths = np.array([np.diff(segment[:, 1])[0] for segment in bars.get_segments() if len(segment)])
        np.testing.assert_allclose(lengths[np.isfinite(lengths)], 2 * found.sigma_error(name)[known])
        ratio = below[0].get_ydata()[found.sigma() > 0]
        np.testing.assert_allclose(
            ratio, (found.sigma(name) / np.where(found.sigma() > 0, found.sigma(), 1))[found.sigma() > 0]
        )
    for patch, name in zip(top.patches, "ab", strict=True):
        np.testing.assert_allclose(patch.get_data().values, found.sigma(name, False))
    (curve,) = (line for line in top.lines if len(line.get_xdata()) == len(lines.t))
    np.testing.assert_allclose(curve.get_ydata(), lines.sigma)
    assert bottom.get_xlabel() == "m [GeV]" and top.get_ylabel().endswith("(m) [1/GeV]")
    assert len(top.get_legend().get_texts()) == 4
    assert top.get_xlim() == bottom.get_xlim() == (0, 1) and top.get_ylim()[0] < 0  # a sigma of zero is seen
    low, high = bottom.get_ylim()
    assert (low + high) / 2 == pytest.approx(1)
    assert len(drawn(plot_marginal_sigma(marginal(ramps(0.0), 0, 4, range=(0, 1), n=100, draws=5)))) == 2


def test_the_figure_of_correlations_shows_the_matrix():
    band = ramps().histogram(0, EDGES, n=3000, draws=30)
    for subtract in (False, True):
        axis, bar = drawn(plot_correlation(band, label="m", unit="GeV", subtract_noise=subtract))
        (mesh,) = axis.collections
        shown = np.ma.masked_invalid(band.correlation(subtract))
        np.testing.assert_allclose(np.ma.filled(mesh.get_array(), 9).ravel(), np.ma.filled(shown, 9).ravel())
        assert (mesh.norm.vmin, mesh.norm.vmax) == (-1, 1)
        assert axis.get_xlabel() == axis.get_ylabel() == "m [GeV]" and "correlation" in bar.get_ylabel()
    with pytest.raises(ValueError, match="does not know the noise"):
        plot_correlation(pg.HistogramBand(band.edges, band.draws, 9, "a"), subtract_noise=True)


def test_a_result_without_truth_is_a_result():
    band = ramps().histogram(0, EDGES, n=1000, draws=5)
    assert MarginalResult({"a": band}).truth is None


def test_bins_without_a_sigma_have_no_correlation():
    """Identical draws: the noise explains what they differ by, or more than that."""
    band = ramps(0.0).histogram(0, 6, range=(0, 1), n=200, draws=20)
    correlation, none = band.correlation(True), band.sigma(True) == 0
    assert none.any() and np.isnan(correlation[none]).all() and np.isnan(correlation[:, none]).all()
    assert np.isfinite(correlation[~none][:, ~none]).all()
