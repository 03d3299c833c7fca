"""The bump hunt against known answers: p-values, fits, sidebands, trials."""

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import trapezoid
from spectra import ENERGY, RANGE, dijet, falling, fraction

import pyrogen as pg
from pyrogen.search import (
    GeneratedMasses,
    GivenBackground,
    Regions,
    SidebandCounting,
    SidebandFit,
    bump_hunt,
    excess_p_value,
    excess_significance,
    mass_windows,
)
from pyrogen.search.dijet import DijetFunction, fit_all
from pyrogen.search.windows import windows_of

WINDOWS = mass_windows(RANGE, 8)
INNER = mass_windows((2.2, 5.0), 8)
ONE = [(3.3, 3.7)]
quiet = {"range": RANGE, "progress": False}


def uniform(p, least=1e-3):
    """Kolmogorov test of p-values; a seeded test fails once in 1/least changes of the seed."""
    assert stats.kstest(p, "uniform").pvalue > least, np.histogram(p, 10, (0, 1))[0]


@pytest.mark.parametrize(("on", "off", "tau"), [(7, 3, 2.0), (120, 100, 1.0), (30, 400, 20.0)])
def test_gamma_is_the_exact_binomial_test_of_a_count_in_a_sideband(on, off, tau):
    exact = stats.binom.sf(on - 1, on + off, 1 / (1 + tau))
    assert excess_p_value(on, off / tau, np.sqrt(off) / tau) == pytest.approx(exact, rel=1e-9)


def test_p_values_of_a_known_background_are_poisson():
    for method in ("gamma", "gaussian"):
        found = excess_p_value([0, 1, 7, 150], [0.3, 1, 1, 120], 0, method)
        assert found == pytest.approx(stats.poisson.sf(np.array([0, 1, 7, 150]) - 1, [0.3, 1, 1, 120]), rel=1e-9)


def test_p_value_of_a_gaussian_background_is_the_average_over_it():
    b = np.clip(stats.norm.ppf((np.arange(200_000) + 0.5) / 200_000), -8, 8) * 6 + 25
    average = stats.poisson.sf(39, b[b > 0]).mean()
    assert excess_p_value(40, 25, 6, "gaussian") == pytest.approx(average, rel=2e-3)


def test_the_formula_claims_too_much_for_few_events_and_agrees_for_many():
    assert excess_significance(7, 1, 0) == pytest.approx(6.0)
    assert stats.norm.isf(excess_p_value(7, 1, 0)) == pytest.approx(3.8, abs=0.05)
    for z in (1, 2, 3):
        n = round(500 + z * np.sqrt(500 + 15**2))
        assert stats.norm.isf(excess_p_value(n, 500, 15)) == pytest.approx(excess_significance(n, 500, 15), abs=0.15)


def test_the_fit_has_the_integrals_of_the_dijet_function():
    edges = np.linspace(*RANGE, 41)
    function = DijetFunction(ENERGY, 4, edges)
    wanted = np.array([1.0, 5.0, 9.0, 0.1])  # log p1, p3, p2, p4
    theta = np.linalg.solve(function.to_parameters, wanted)
    fine = np.linspace(edges[:-1], edges[1:], 2001)
    exact = trapezoid(np.e * dijet(fine), fine, axis=0)
    assert function.expected(theta[None])[0][0] == pytest.approx(exact, rel=1e-6)


def test_minuit_and_scoring_find_the_same_fit():
    masses = falling(20_000, 1)
    found = bump_hunt(masses, WINDOWS, **quiet)
    edges, inside = found.edges, windows_of(WINDOWS, RANGE).on(100).inside
    function = DijetFunction(ENERGY, 4, edges)
    for w, fit in enumerate(found.fits):
        scored = fit_all(function, found.counts[None], ~inside[w])
        expected, slope = function.expected(scored.theta, inside[w])
        variance = slope.sum(1) @ scored.covariance[0] @ slope.sum(1)[0]
        assert scored.converged.all() and fit.goodness > 1e-3
        assert expected.sum() == pytest.approx(found.background[w], abs=0.01 * found.background_sigma[w])
        assert np.sqrt(variance[0]) == pytest.approx(found.background_sigma[w], rel=0.01)
        assert fit.expected == pytest.approx(function.expected(scored.theta)[0][0], rel=1e-3)


def test_parameters_of_the_fit_are_those_of_the_truth():
    found = bump_hunt(falling(200_000, 3), ONE, background=SidebandFit(parameters=3), **quiet).fit
    flat = bump_hunt(falling(200_000, 3), ONE, **quiet).fit
    assert found.chi2 / found.ndf < 1.5 and flat.goodness > 1e-3
    pull = (np.array([*flat.values.values()])[1:] - [5.0, 9.0, 0.1]) / np.array([*flat.errors.values()])[1:]
    assert np.abs(pull).max() < 4


@pytest.mark.parametrize("method", ["fit", "counting"])
def test_background_and_its_error_scatter_as_they_say(method):
    """Pulls of B against the truth over 100 samples: mean and width within 4 of their errors."""
    found = [bump_hunt(falling(5_000, s), ONE, background=method, **quiet) for s in range(100)]
    truth = 5_000 * fraction(*ONE[0])
    pulls = np.array([(each.background[0] - truth) / each.background_sigma[0] for each in found])
    assert abs(pulls.mean()) < 4 / np.sqrt(100)
    assert pulls.std() == pytest.approx(1, abs=4 / np.sqrt(200))
    uniform([each.p_value[0] for each in found])


def test_shapes_of_counting_are_exact_where_they_say():
    windows = windows_of(ONE, RANGE)
    rising = lambda m: m + 0.1 * m**2 / 2  # noqa: E731
    decay = lambda m: -np.exp(-2 * m)  # noqa: E731
    for shape, integral in (("linear", rising), ("exponential", decay)):
        for width in (1.0, 1.7):
            events = {}
            for centre in np.linspace(2.001, 6.999, 5_000):
                events[centre] = integral(centre + 0.0005) - integral(centre - 0.0005)
            found = bump_hunt(
                np.array([*events]),
                ONE,
                background=SidebandCounting(shape=shape, width=width),
                weights=np.array([*events.values()]),
                **quiet,
            )
            truth = integral(3.7) - integral(3.3)
            assert found.background[0] == pytest.approx(truth, rel=1e-3), shape
    assert not windows.alone


def test_windows_take_the_events_that_regions_do():
    regions = Regions(signal=(3.4, 3.6), window=(3.3, 3.7))
    masses = np.concatenate([np.random.default_rng(1).uniform(3.3, 3.7, 500), [3.3, 3.4, 3.6, 3.7]])
    for method in ("fit", "counting"):
        found = bump_hunt(masses, regions, background=method)
        assert found.observed[0] == regions.in_signal(masses).sum()
        assert found.counts.sum() == len(masses)
    assert found.background[0] == pytest.approx((~regions.in_signal(masses)).sum(), rel=0.05)  # as wide as the signal


def test_few_events_after_a_cut():
    regions = Regions(signal=(3.4, 3.6), window=(3.3, 3.7))
    masses = np.concatenate([np.linspace(3.31, 3.39, 8), np.linspace(3.62, 3.69, 6), np.linspace(3.45, 3.55, 45)])
    for background in ("counting", SidebandFit(parameters=2)):
        found = bump_hunt(masses, regions, background=background, toys=100, progress=False)
        assert found.p_value[0] < 1e-3 and found.z[0] > 3 and found.trials.p_value < 0.05


def test_a_resonance_is_found_where_it_is():
    found = bump_hunt(falling(20_000, 2, signal=250), WINDOWS, toys=200, **quiet)
    low, high = found.low[found.best], found.high[found.best]
    assert low < 3.5 < high and found.z.max() > 4 and found.trials.exceeding == 0
    assert found.trials.limit == pytest.approx(1 - 0.05 ** (1 / 200)) and "95 % CL" in found.text()
    assert found.signal[found.best] == pytest.approx(250, abs=4 * np.hypot(found.signal_sigma[found.best], 24))


def fit_expected(found):
    """A smooth spectrum with the total of the counts."""
    fit = bump_hunt(falling(5_000, 1), ONE, **quiet).fit
    return np.interp(found.edges[1:], fit.edges[1:], np.cumsum(fit.expected), left=0)


def test_trials_are_deterministic_and_make_a_global_p_value_that_is_uniform():
    given = {"background": "counting", **quiet}
    first = bump_hunt(falling(5_000, 1), INNER, toys=150, seed=3, **given)
    again = bump_hunt(falling(5_000, 1), INNER, toys=150, seed=3, **given)
    other = bump_hunt(falling(5_000, 1), INNER, toys=150, seed=4, **given)
    assert np.array_equal(first.trials.largest, again.trials.largest)
    assert not np.array_equal(first.trials.largest, other.trials.largest)
    assert first.trials.p_value >= first.p_value.min()
    expected = np.diff(fit_expected(first), prepend=0)
    rng = np.random.default_rng(9)
    centres = (first.edges[1:] + first.edges[:-1]) / 2
    p = []
    for _ in range(60):
        masses = np.repeat(centres, rng.poisson(expected))
        p.append(bump_hunt(masses, INNER, toys=100, **given).trials.p_value)
    uniform(np.array(p) + rng.uniform(0, 0.01, 60))


def test_trials_know_their_errors():
    trials = pg.search.Trials(np.array([1.0, 2.0, 3.0, np.nan]), 2.5)
    assert (trials.exceeding, trials.failed, trials.p_value) == (2, 1, 0.5)
    assert trials.error == pytest.approx(0.25) and np.isnan(trials.limit) and trials.significance == pytest.approx(0)


def test_weights_of_one_size_change_nothing_but_the_scale():
    masses = falling(3_000, 5, signal=60)
    for method in ("fit", "counting"):
        plain = bump_hunt(masses, INNER, background=method, toys=50, **quiet)
        heavy = bump_hunt(masses, INNER, background=method, weights=np.full(len(masses), 3.0), toys=50, **quiet)
        assert heavy.background == pytest.approx(3 * plain.background, rel=1e-3)
        assert heavy.background_sigma == pytest.approx(3 * plain.background_sigma, rel=0.05)
        assert heavy.significance == pytest.approx(plain.significance, abs=0.05)
        assert heavy.trials.p_value == pytest.approx(plain.trials.p_value, abs=0.1)


def test_weighted_backgrounds_scatter_as_they_say():
    truth, pulls, p = 4_000 * 1.5 * fraction(*ONE[0]), [], []
    for s in range(120):
        masses = falling(4_000, s)
        weights = np.random.default_rng(10_000 + s).choice([1.0, 2.0], len(masses))
        found = bump_hunt(masses, ONE, weights=weights, **quiet)
        pulls.append((found.background[0] - truth) / found.background_sigma[0])
        p.append(found.p_value[0])
    assert np.std(pulls) == pytest.approx(1, abs=4 / np.sqrt(240))
    uniform(p)


def test_a_given_background_comes_with_all_its_correlations():
    edges = np.linspace(*RANGE, 26)
    draws = np.random.default_rng(1).dirichlet(np.full(25, 40.0), 30)
    band = pg.HistogramBand(edges, draws, 10_000, "a")
    windows, masses = [(3.0, 3.6), (3.4, 4.0)], falling(500, 1)
    given = GivenBackground.of(band, 500.0)
    found = bump_hunt(masses, windows, background=given, toys=200, **quiet)
    sums = 500 * np.stack([draws[:, 5:8].sum(1), draws[:, 7:10].sum(1)], 1)
    assert found.background == pytest.approx(sums.mean(0))
    assert found.background_sigma == pytest.approx(sums.std(0, ddof=1))
    assert found.trials.p_value == pytest.approx(2 * found.p_value.min(), abs=0.1) or found.p_value.min() > 0.3
    plain = GivenBackground(sums.mean(0), covariance=np.cov(sums.T))
    assert np.allclose(bump_hunt(masses, windows, background=plain, **quiet).p_value, found.p_value)


def test_trials_of_a_given_background_have_its_error_in_them():
    """One window: the global p-value is the local one."""
    masses = falling(5_000, 1)
    n = ((masses >= 3.3) & (masses < 3.7)).sum()
    given = GivenBackground([n - 25.0], sigma=[12.0])
    found = bump_hunt(masses, ONE, background=given, p_value="gaussian", toys=2_000, **quiet)
    assert found.trials.p_value == pytest.approx(found.p_value[0], abs=4 * found.trials.error + 0.01)


def resampled(masses, edges, draws, rng):
    """Bootstrap samples of the events: what perfect replicas of a bootstrap would generate."""
    counts = np.histogram(masses, edges)[0]
    made = rng.multinomial(len(masses), counts / len(masses), draws) / len(masses)
    return pg.HistogramBand(edges, made, len(masses), "a")


def test_the_spread_of_a_posterior_has_the_noise_of_the_data_and_that_of_trainings_has_not():
    """120 samples. Draws of a posterior: uniform p-values; with B added twice they are too narrow around 1/2."""
    edges, rng = windows_of(ONE, RANGE).on(60).edges, np.random.default_rng(1)
    p, twice, same = [], [], []
    for s in range(120):
        masses = falling(4_000, s)
        band = resampled(masses, edges, 24, rng)
        posterior = GeneratedMasses(source=band, events=len(masses))
        found = bump_hunt(posterior, ONE, **quiet)
        p.append(found.p_value[0])
        twice.append(found.signal[0] / np.sqrt(found.signal_sigma[0] ** 2 + found.background[0]))
        exact = np.repeat(np.histogram(masses, edges)[0][None] / len(masses), 8, 0)
        ensemble = exact * (1 + 0.002 * rng.standard_normal(exact.shape))  # the noise of trainings
        trained = GeneratedMasses(
            source=pg.HistogramBand(edges, ensemble, 1, "a"), events=len(masses), spread="training"
        )
        same.append(bump_hunt(trained, ONE, **quiet).p_value[0])
    uniform(p)
    uniform(same)
    assert np.std(stats.norm.isf(p)) == pytest.approx(1, abs=4 / np.sqrt(240))
    assert np.std(twice) == pytest.approx(np.sqrt(0.5), abs=0.12)


def test_the_formula_of_the_talk():
    """O and B from the two halves, errors of their means; B with the error of the sidebands besides."""
    rng = np.random.default_rng(1)
    spectra = [falling(20_000, 1)[rng.integers(0, 19_000, 19_000)] for _ in range(6)]
    source = GeneratedMasses(source=spectra, events=5_000, spread="training")
    found = bump_hunt(source, ONE, background="counting", **quiet)
    counts = np.array([5_000 * np.mean((each >= 3.3) & (each < 3.7)) for each in spectra[:3]])
    assert found.observed[0] == pytest.approx(counts.mean())
    assert found.observed_sigma[0] == pytest.approx(np.sqrt(2 / 6) * counts.std(ddof=1))
    assert found.signal_sigma[0] == pytest.approx(np.hypot(found.observed_sigma[0], found.background_sigma[0]))
    wanted = found.signal / np.sqrt(found.signal_sigma**2 + found.background)
    assert found.significance == pytest.approx(wanted)


def test_trials_of_draws_follow_their_correlations():
    edges, rng = windows_of(WINDOWS, RANGE).on(40).edges, np.random.default_rng(1)
    band = resampled(falling(4_000, 2), edges, 200, rng)
    found = bump_hunt(GeneratedMasses(source=band, events=4_000), WINDOWS, background="counting", toys=1_000, **quiet)
    # Eight windows that overlap by half and look at sidebands of each other count as some four to eight.
    tail = np.mean(found.trials.largest > 2)
    assert 3 < tail / stats.norm.sf(2) < 9


def test_flows_of_the_mass_alone_are_integrated():
    flow = pg.CouplingFlow(1, blocks=1, hidden=(), transform="bernstein", bins=8, base="uniform")
    model = pg.BayesianFlow(flow, preprocessing=pg.events.UnitBox(*RANGE))
    masses = falling(400, 1)[:, None]
    posterior = pg.Bootstrap(replicas=4, steps=50, seed=0, progress=False).fit(model, masses)
    found = bump_hunt(GeneratedMasses(source=posterior), ONE, background=SidebandFit(parameters=3), **quiet)
    drawn = posterior.histogram(0, [*RANGE[:1], 3.3, 3.7, RANGE[1]], n=20_000).draws * len(masses)
    assert found.observed[0] == pytest.approx(drawn[:, 1].mean(), abs=4 * np.sqrt(0.25 * len(masses) ** 2 / 80_000))
    assert found.counts.sum() == pytest.approx(len(masses), rel=1e-3)
    real = bump_hunt(masses, ONE, background=GeneratedMasses(source=posterior), column=0, **quiet)
    assert real.observed[0] == ((masses >= 3.3) & (masses < 3.7)).sum()
    listed = bump_hunt(GeneratedMasses(source=[posterior] * 4, spread="training"), ONE, **quiet)
    assert listed.observed[0] == pytest.approx(found.observed[0], rel=1e-6) and listed.observed_sigma[0] < 1e-6
