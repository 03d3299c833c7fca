"""Maximum-likelihood fits of the true forms: normalised densities, exact derivatives, errors that are what they say."""

import math
import sys
import warnings

import numpy as np
import pytest
import torch

import pyrogen as pg
from pyrogen.diagnostics.likelihood_fit import LikelihoodFit, likelihood_fit

SAMPLES, N = 64, 2000


class Gentle(pg.targets.Wedge):
    """The form of the wedge with the slope 1, well away from the limits of it."""

    parameters = {"a": 1.0, "x_max": 1.0}

    def _draw(self, shape):
        u = torch.rand(*shape, 2, dtype=torch.float64)
        return torch.stack([(0.25 + 2 * u[..., 0]).sqrt() - 0.5, u[..., 1]], -1)  # inverts x/2 + x^2/2


WEDGE, KICKER, GENTLE = pg.targets.Wedge(), pg.targets.Kicker(), Gentle()
RING, FULL = pg.targets.GaussianRing(), pg.targets.FullRing()
BROAD = pg.targets.GaussianRing(2.0, 3.0)  # a quarter is cut off at r = 0: its mean and width are correlated
TARGETS = [WEDGE, KICKER, RING, FULL, BROAD, pg.targets.FullRing(2.0, 3.0)]
REGULAR = [(KICKER, "x_min"), (GENTLE, "a"), (RING, "mu"), (RING, "w"), (FULL, "mu"), (FULL, "w"), (BROAD, "mu")]


@pytest.fixture(scope="module")
def fits():
    """Fits to many samples of a target, each made once."""
    made = {}

    def fits_of(target, n=N, samples=SAMPLES):
        if (key := (repr(target), type(target), n, samples)) not in made:
            with torch.random.fork_rng():
                torch.manual_seed(20210421)
                made[key] = [likelihood_fit(target, target.sample((n,))) for _ in range(samples)]
        return made[key]

    return fits_of


def at_truth(target, covariance=None):
    """What a fit would be that finds the truth."""
    covariance = np.eye(2) if covariance is None else covariance
    return LikelihoodFit(target.parameters, covariance, 100, target.upper_edge, (), target)


def within(low, high, n=9):
    return torch.linspace(low, high, n, dtype=torch.float64)


# --- the forms ---


@pytest.mark.parametrize("target", TARGETS, ids=repr)
def test_the_form_is_that_of_the_target(target):
    t = torch.cat([within(-1, 1.5, 51), within(2, 9, 29)])
    form = target.parametric_density(t, **target.parameters)
    torch.testing.assert_close(form, target.line_density(t), rtol=1e-12, atol=1e-15)
    assert torch.equal(form, target.parametric_density(t))  # the truth is the default
    x = target.sample((1000,)).double()
    radius = x.square().sum(-1).sqrt() if target.upper_edge is None else x[:, 0]
    torch.testing.assert_close(target.line_coordinate(x), radius)


@pytest.mark.parametrize(
    ("target", "values"),
    [
        *((WEDGE, {"a": a, "x_max": edge}) for a, edge in ((2.0, 1.0), (-1.5, 1.1), (0.0, 0.9), (2.2, 0.95))),
        *((KICKER, {"x_min": low, "x_max": high}) for low, high in ((0.0, 1.0), (-0.3, 0.9), (0.2, 1.2))),
        *(
            (ring, {"mu": mu, "w": w})
            for ring in (RING, FULL)
            for mu, w in ((4.0, 1.0), (3.0, 0.7), (0.5, 2.0), (0, 1))
        ),
    ],
)
def test_the_form_integrates_to_one_for_all_parameters(target, values):
    """Gauss-Legendre: exact for the polynomials between the edges of the ramps."""
    low, high = values.get("x_min", 0.0), values.get("x_max", values.get("mu", 0) + 10 * values.get("w", 0))
    nodes, weights = np.polynomial.legendre.leggauss(150)
    t = torch.from_numpy(low + (high - low) * (nodes + 1) / 2)
    total = (target.parametric_density(t, **values) * target.line_measure(t)).numpy() @ weights * (high - low) / 2
    assert total == pytest.approx(1, abs=1e-10)
    outside = torch.tensor([low - 1e-6, -5.0] + ([high + 1e-6] if target.upper_edge else []), dtype=torch.float64)
    assert (target.parametric_density(outside, **values) == 0).all()


@pytest.mark.parametrize("target", TARGETS, ids=repr)
def test_gradients_are_those_of_finite_differences_and_of_autograd(target):
    t = within(*target.line_range)
    parameters = {name: torch.tensor(value, dtype=t.dtype) for name, value in target.parameters.items()}
    reverse = torch.autograd.functional.jacobian(
        lambda *values: target.parametric_density(t, **dict(zip(parameters, values, strict=True))),
        tuple(parameters.values()),
    )
    gradients = at_truth(target).gradients(t)
    assert [*gradients] == [*target.parameters]
    for name, exact in zip(parameters, reverse, strict=True):
        up, down = (
            target.parametric_density(t, **target.parameters | {name: target.parameters[name] + step})
            for step in (1e-6, -1e-6)
        )
        np.testing.assert_allclose(gradients[name], exact, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(gradients[name], (up - down) / 2e-6, rtol=1e-6, atol=1e-8)


def test_gradients_have_the_signs_and_sizes_of_the_paper():
    """[A] eqs. 18-31; the sensitivities of the targets are without their signs."""
    t = within(0.1, 0.9)
    x = t.numpy()
    wedge, kicker = at_truth(WEDGE).gradients(t), at_truth(KICKER).gradients(t)
    np.testing.assert_allclose(wedge["a"], x - 0.5, atol=1e-12)
    np.testing.assert_allclose(wedge["x_max"], -2.0)
    np.testing.assert_allclose(kicker["x_min"], 9 * x * (x - 2 / 3), atol=1e-12)
    np.testing.assert_allclose(kicker["x_max"], -9 * x**2)
    for target in (WEDGE, KICKER, RING, FULL):
        t = within(*target.line_range)
        for name, expected in target.sensitivities(t).items():
            gradient = at_truth(target).gradients(t)[name.removeprefix("delta_")]
            # Of the rings [A] leaves out what the cut-off and the mirror peak change, below 1e-3 p.
            np.testing.assert_allclose(np.abs(gradient), expected, atol=1e-3 * target.line_density(t).max())


def test_sigma_counts_the_covariance_with_its_signs():
    t = within(0.1, 0.9)
    g, h = at_truth(WEDGE).gradients(t).values()
    covariance = np.array([[0.04, -0.003], [-0.003, 0.0009]])
    fit = at_truth(WEDGE, covariance)
    np.testing.assert_allclose(fit.sigma(t) ** 2, 0.04 * g**2 + 0.0009 * h**2 - 2 * 0.003 * g * h, rtol=1e-12)
    assert fit.errors == pytest.approx({"a": 0.2, "x_max": 0.03})
    np.testing.assert_allclose(fit.density(t), 2 * t)
    outside = [-0.5, 1.5]
    assert not fit.density(outside).any() and not fit.sigma(outside).any()
    with pytest.raises(ValueError, match="t must be at least one finite number"):
        fit.sigma([math.nan])


# --- the fits ---


@pytest.mark.parametrize(("target", "name"), REGULAR, ids=lambda its: its if isinstance(its, str) else repr(its))
def test_pulls_of_regular_parameters_are_normal(target, name, fits):
    pulls = np.array([(fit.values[name] - target.parameters[name]) / fit.errors[name] for fit in fits(target)])
    assert abs(pulls.mean()) < 4 / math.sqrt(SAMPLES)
    assert pulls.std() == pytest.approx(1, abs=4 / math.sqrt(2 * SAMPLES))
    assert all(fit.converged and fit.at_limit == () and fit.events == N for fit in fits(target))


@pytest.mark.parametrize(("target", "height"), [(WEDGE, 2.0), (KICKER, 3.0), (GENTLE, 1.5)], ids=repr)
def test_edges_are_exponential(target, height, fits):
    """The gap between the true edge and the largest event, in units of 1 / (N p(edge)), has the density exp(-gap)."""
    found = fits(target)
    gaps = np.array([(1 - fit.values["x_max"]) / fit.errors["x_max"] for fit in found])
    assert (gaps > 0).all()
    for power, moment, variance in ((1, 1, 1), (2, 2, 20)):
        assert np.mean(gaps**power) == pytest.approx(moment, abs=4 * math.sqrt(variance / SAMPLES))
    assert np.mean(gaps < math.log(2)) == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(SAMPLES))
    for fit in found[:5]:
        assert fit.errors["x_max"] == pytest.approx(1 / (N * fit.density([fit.values["x_max"]])[0]), rel=1e-12)
        assert fit.errors["x_max"] == pytest.approx(1 / (N * height), rel=0.1)  # p there is fitted, too
        assert fit.covariance[0, 1] == fit.covariance[1, 0] == 0
        assert fit.edge == "x_max" and "the largest event" in fit.text()


def test_errors_are_those_expected_for_the_number_of_events(fits):
    for ring in (RING, FULL):
        assert ring.upper_edge is None and fits(ring)[0].edge is None
        for name, expected, spread in (("mu", 1 / math.sqrt(N), 2), ("w", 1 / math.sqrt(2 * N), 14)):
            mean = np.mean([fit.errors[name] for fit in fits(ring)])
            # The information sums squares of scores, z and z^2 - 1 with the variances 2 and 14 relative to their means.
            assert mean == pytest.approx(expected, rel=4 * math.sqrt(spread / (4 * N * SAMPLES)) + 2 / N)
    # Scores of the kicker, 3 - 2/x, have no fourth moment: the median knows more than the mean.
    median = np.median([fit.errors["x_min"] for fit in fits(KICKER)])
    assert median == pytest.approx(1 / math.sqrt(3 * N), rel=0.1)


def test_the_steepest_slope_of_the_wedge_is_a_limit(fits):
    """Its truth is the limit: half of all samples would like a negative density, and end at it."""
    found = fits(WEDGE)
    limited = [fit for fit in found if fit.at_limit]
    assert len(limited) / SAMPLES == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(SAMPLES))
    for fit in found:
        limit = 2 / fit.values["x_max"] ** 2
        if fit.at_limit:
            assert fit.at_limit == ("a",) and fit.values["a"] == pytest.approx(limit, rel=1e-12)
            assert "at its limit" in fit.text() and fit.converged
            assert fit.density([0.0])[0] == pytest.approx(0, abs=1e-12)
        else:
            assert fit.values["a"] < limit and "at its limit" not in fit.text()
    # The error is the width of the likelihood to the side that is left, and the others' half of a Gaussian.
    pulls = np.array([(fit.values["a"] - 2) / fit.errors["a"] for fit in found if not fit.at_limit])
    assert np.sqrt(np.mean(pulls**2)) == pytest.approx(1, abs=4 / math.sqrt(2 * len(pulls)))


def test_the_slope_of_the_wedge_gains_a_little_more_than_the_root_of_n(fits):
    few, many = (
        np.mean([fit.errors["a"] * math.sqrt(fit.events) for fit in fits(WEDGE, n, 20)]) for n in (1000, 30_000)
    )
    assert 0.6 * few < many < 0.9 * few


def test_a_limit_is_found_where_other_parameters_move_with_it():
    """The maximum of the likelihood on mu >= 0, by its conditions: no slope in w, and one in mu that leads outside."""
    ring, limited = pg.targets.GaussianRing(0.3, 1.0), 0
    for _ in range(20):
        x = ring.sample((40,)).double()
        fit = likelihood_fit(ring, x)
        mu, w = (torch.tensor(value, dtype=x.dtype, requires_grad=True) for value in fit.values.values())
        ring.parametric_density(ring.line_coordinate(x), mu=mu, w=w).log().sum().backward()
        assert abs(w.grad) * fit.errors["w"] < 0.05
        if fit.at_limit:
            assert fit.at_limit == ("mu",) and mu == 0 and mu.grad * fit.errors["mu"] < 0.05 and fit.converged
        else:
            assert mu > 0 and abs(mu.grad) * fit.errors["mu"] < 0.05
        limited += len(fit.at_limit)
    assert 0 < limited < 20


@pytest.mark.parametrize("target", [KICKER, GENTLE, RING, FULL, BROAD], ids=repr)
def test_sigma_is_the_spread_of_the_fitted_density_over_samples(target, fits):
    t = within(*target.line_range)
    densities = np.array([fit.density(t) for fit in fits(target)])
    sigma = np.sqrt(np.mean([fit.sigma(t) ** 2 for fit in fits(target)], 0))
    # Gaussian but where the edge of a ramp is most of it, or the density quadratic in a parameter: there kurtosis 9.
    assert np.median(densities.std(0) / sigma) == pytest.approx(1, abs=4 / math.sqrt(2 * SAMPLES))
    np.testing.assert_allclose(densities.std(0), sigma, rtol=4 * math.sqrt(2 / SAMPLES))
    # Where an edge is all of sigma, its estimate, the largest event, is off by one sigma in the mean.
    truth = target.parametric_density(t, **target.parameters).numpy()
    assert (np.abs(densities.mean(0) - truth) < (1 + 4 / math.sqrt(SAMPLES)) * sigma).all()


def test_events_of_any_kind_give_the_same_fit():
    x = KICKER.sample((500,))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # limits such as w = 0 must not divide by zero aloud
        fit, ring = likelihood_fit(KICKER, x), likelihood_fit(RING, RING.sample((50,)))
    for same in (x.double(), x.numpy(), pg.EventSample(x, names=("x", "y"))):
        found = likelihood_fit(KICKER, same)
        assert found.values == fit.values and np.array_equal(found.covariance, fit.covariance)
    assert ring.names == ("mu", "w") and ring.covariance.shape == (2, 2)
    assert fit.text().startswith("maximum-likelihood fit of the true form to 500 events: x_min = ")


@pytest.mark.parametrize(
    ("target", "events", "message"),
    [
        (pg.targets.GammaRing(), [[5.0, 0.0]] * 9, r"target is GammaRing\(.*; it must have a parametric form"),
        (WEDGE, pg.EventSample(np.full((9, 2), 0.5), weights=np.ones(9)), "events have weights; .* unweighted"),
        (WEDGE, np.full((2, 2), 0.5), "events has 2 rows; a fit of a, x_max needs at least 3"),
        (WEDGE, np.full((9, 3), 0.5), "2 columns"),
        (WEDGE, np.full((9, 2), np.nan), "NaN"),
        (WEDGE, [[0.5, 0.5]] * 3 + [[1.5, 0.5]], r"1 of 4 events lie outside .* Wedge\(\); the first is row 3: \[1.5"),
        (RING, [[1.0, 1.0], [1.0, -1.0], [2.0, -1.0]], "2 of 3 events lie outside the support of GaussianRing"),
        (WEDGE, [[0.5, 0.1], [0.5, 0.2], [0.5, 0.3]], "events all have x = 0.5"),
    ],
)
def test_bad_events_are_named(target, events, message):
    with pytest.raises(ValueError, match=message):
        likelihood_fit(target, events if isinstance(events, pg.EventSample) else np.asarray(events))


def test_parameters_without_information_are_named():
    """A ring folded at its middle looks the same for mu and -mu: no slope of the likelihood at mu = 0, no error."""
    radius = np.linspace(0.01, 1, 400) ** 3  # more events at r = 0 than any |N(mu, w)| has
    with pytest.raises(ValueError, match="do not determine mu, w: their information is singular"):
        likelihood_fit(FULL, np.stack([radius, 0 * radius], -1))


def test_missing_iminuit_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "iminuit", None)
    with pytest.raises(ImportError, match=r'likelihood_fit needs iminuit; .* "pyrogen\[fits\]"'):
        likelihood_fit(WEDGE, WEDGE.sample((10,)))
