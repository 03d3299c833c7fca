"""Diagnostics on posteriors whose density and uncertainty are put in by hand."""

import sys

import numpy as np
import pytest
import torch

import pyrogen as pg
from pyrogen.diagnostics import density_along_lines, fit_shape

LINE_TARGETS = [pg.targets.Wedge(), pg.targets.Kicker(), pg.targets.GaussianRing(), pg.targets.FullRing()]


class KnownPosterior:
    """Predicts mean = truth + offset * sigma with a given sigma at every point."""

    def __init__(self, target, sigma, offset=0.0):
        self.target, self.sigma, self.offset, self.calls = target, sigma, offset, []

    def density(self, x, draws=50, *, seed=0):
        self.calls.append((len(x), draws, seed))
        std = self.sigma(x)
        offset = torch.randn(len(x), dtype=std.dtype) if self.offset == "normal" else self.offset
        mean = self.target.log_prob(x).exp() + offset * std
        return pg.DensityEstimate(mean, std, std / mean)


def constant(value):
    return lambda x: torch.full((len(x),), value, dtype=torch.float64)


@pytest.mark.parametrize("target", LINE_TARGETS, ids=repr)
def test_a_perfect_posterior_has_no_bias(target):
    result = density_along_lines(KnownPosterior(target, constant(0.01)), target)
    lines, n = len(target.line_positions), 33
    assert result.means.shape == result.stds.shape == (lines, n)
    assert result.t.shape == result.truth.shape == result.density.shape == result.pull.shape == (n,)
    assert (result.t[0], result.t[-1]) == pytest.approx(target.line_range)
    assert result.label == target.line_label
    np.testing.assert_allclose(result.density, target.line_density(torch.from_numpy(result.t)), rtol=1e-12)
    assert result.rms_bias < 1e-12
    assert result.pull_rms < 1e-10
    assert result.within(1e-9) == 1.0
    np.testing.assert_allclose(result.sigma, 0.01)
    np.testing.assert_allclose(result.sigma_spread, 0, atol=1e-15)


def test_minima_of_sigma_are_found():
    target = pg.targets.Wedge()
    t = torch.linspace(0.1, 0.9, 33, dtype=torch.float64)
    result = density_along_lines(KnownPosterior(target, lambda x: 0.1 + (x[:, 0] - 0.5).abs()), target, t)
    assert result.minima == pytest.approx([0.5])
    rising = density_along_lines(KnownPosterior(target, lambda x: x[:, 0]), target, t)
    assert len(rising.minima) == 0


def test_gaussian_deviations_are_covered_as_often_as_they_should():
    target = pg.targets.Wedge()
    t = torch.linspace(0.1, 0.9, 4000, dtype=torch.float64)
    result = density_along_lines(KnownPosterior(target, constant(0.02), "normal"), target, t)
    # 20,000 points: three binomial standard deviations are 1 % and 0.45 %.
    assert result.within(1) == pytest.approx(0.6827, abs=0.010)
    assert result.within(2) == pytest.approx(0.9545, abs=0.0045)
    assert result.within() == result.within(2.0)
    assert result.pull_rms == pytest.approx(1, abs=0.016)
    assert result.rms_bias == pytest.approx(0.02, rel=0.016)
    # Averages over five lines deviate less by sqrt(5), and the spread over the lines is the deviation itself.
    assert np.sqrt(np.mean(result.pull**2)) == pytest.approx(5**-0.5, rel=0.05)
    assert np.sqrt(np.mean(result.density_spread**2)) == pytest.approx(0.02, rel=0.05)


def test_a_constant_offset_is_the_pull():
    target = pg.targets.Kicker()
    result = density_along_lines(KnownPosterior(target, constant(0.1), -1.5), target, positions=[0.5])
    np.testing.assert_allclose(result.pull, -1.5, atol=1e-9)
    assert result.rms_bias == pytest.approx(0.15)
    assert result.pull_rms == pytest.approx(1.5)
    assert result.within(1.4) == 0.0
    assert result.within(1.6) == 1.0


def test_averages_and_spreads_over_lines():
    target = pg.targets.Wedge()
    posterior = KnownPosterior(target, lambda x: 0.1 * x[:, 1] * x[:, 0])  # sigma/p = y / 20
    result = density_along_lines(posterior, target, [0.25, 0.5, 1.0], [0.2, 0.4, 0.6])
    np.testing.assert_allclose(result.sigma, 0.04 * result.t)
    np.testing.assert_allclose(result.sigma_spread, 0.02 * result.t)
    np.testing.assert_allclose(result.relative, 0.02)
    np.testing.assert_allclose(result.relative_spread, 0.01)
    second = result.line(1)
    assert second.positions.tolist() == [0.4]
    np.testing.assert_allclose(second.sigma, result.stds[1])
    np.testing.assert_allclose(second.relative_spread, 0)
    # All lines are evaluated with the same weight draws, in one go.
    assert posterior.calls == [(9, None, 0)]  # None: as many as the posterior gives
    density_along_lines(posterior, target, [0.5], [0.5], draws=7, seed=3)
    assert posterior.calls[-1] == (1, 7, 3)


def test_zero_density_and_zero_sigma_give_no_nan():
    target = pg.targets.Wedge()
    # The line leaves the support at t = 1.5, where neither has any density.
    result = density_along_lines(KnownPosterior(target, constant(0.0)), target, [0.5, 1.5])
    assert result.truth.tolist() == [1.0, 0.0]
    np.testing.assert_array_equal(result.pull, 0)
    np.testing.assert_array_equal(result.relative, [0, np.inf])
    wrong = density_along_lines(KnownPosterior(pg.targets.Kicker(), constant(0.0)), target, [0.5])
    assert wrong.pull.tolist() == [-np.inf]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"t": []}, "t must be at least one finite number"),
        ({"t": [0.1, float("nan")]}, "t must be at least one finite number"),
        ({"t": [[0.1]]}, "t must be at least one finite number"),
        ({"positions": []}, "positions must be at least one finite number"),
        ({"positions": [1.5]}, r"position must be a y in \[0, 1\]"),
    ],
)
def test_bad_lines_are_named(arguments, message):
    target = pg.targets.Wedge()
    with pytest.raises(ValueError, match=message):
        density_along_lines(KnownPosterior(target, constant(0.1)), target, **arguments)


def test_a_real_posterior_on_lines():
    target = pg.targets.Wedge()
    flow = pg.CouplingFlow(2, blocks=2, hidden=(8,), transform="rqs", base="uniform", bins=4)
    posterior = pg.SVI(epochs=2, batch_size=500, progress=False).fit(pg.BayesianFlow(flow), target.sample((1000,)))
    t = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    result = density_along_lines(posterior, target, t, [0.3, 0.7], draws=6, seed=1)
    expected = posterior.density(target.line(t, 0.7), draws=6, seed=1)
    np.testing.assert_allclose(result.means[1], expected.mean, rtol=1e-5)
    np.testing.assert_allclose(result.stds[1], expected.std, rtol=1e-4)


# --- the fit-like shape ---


@pytest.mark.parametrize("target", LINE_TARGETS, ids=repr)
def test_known_shape_is_found_again(target):
    t = torch.linspace(*target.line_range, 41, dtype=torch.float64)
    sensitivities = target.sensitivities(t)
    truth = dict(zip(sensitivities, (0.04, 0.015), strict=True))
    sigma = np.sqrt(sum((s.numpy() * truth[name]) ** 2 for name, s in sensitivities.items()))

    exact = fit_shape(sigma, 0.05 * sigma, sensitivities)
    assert exact.converged
    assert exact.ndf == 39
    assert exact.chi2 < 1e-4
    assert exact.values == pytest.approx(truth, rel=1e-3)
    np.testing.assert_allclose(exact.curve(), sigma, rtol=1e-3)

    pulls, chi2s = [], []
    for seed in range(30):
        noise = np.random.default_rng(seed).normal(size=len(t))
        fit = fit_shape(sigma * (1 + 0.05 * noise), 0.05 * sigma, sensitivities, floor=1e-6)
        pulls += [(fit.values[name] - truth[name]) / fit.errors[name] for name in truth]
        chi2s.append(fit.chi2 / fit.ndf)
    assert np.sqrt(np.mean(np.square(pulls))) == pytest.approx(1, abs=0.35)
    assert np.mean(chi2s) == pytest.approx(1, abs=0.15)


def test_a_parameter_that_is_not_there_comes_out_zero_not_negative():
    target = pg.targets.Wedge()
    t = torch.linspace(0.01, 0.99, 51, dtype=torch.float64)
    sensitivities = target.sensitivities(t)
    sigma = 0.02 * sensitivities["delta_x_max"].numpy()
    noisy = sigma * (1 - 0.01 * np.linspace(-1, 1, 51) ** 2)  # would like a negative (Delta a)^2
    fit = fit_shape(noisy, 0.05 * sigma, sensitivities)
    assert fit.values["delta_x_max"] == pytest.approx(0.02, rel=0.02)
    assert 0 <= fit.values["delta_a"] < 0.01
    assert 0 < fit.errors["delta_a"] < 0.05


def test_wedge_shape_has_its_minimum_in_the_middle_and_can_be_drawn_anywhere():
    target = pg.targets.Wedge()
    t = torch.linspace(0.1, 0.9, 33, dtype=torch.float64)
    fit = fit_shape(0.04 * (t - 0.5).abs(), torch.zeros(33), {"delta_a": target.sensitivities(t)["delta_a"]})
    assert fit.values["delta_a"] == pytest.approx(0.04, rel=1e-4)
    fine = torch.linspace(0, 1, 101, dtype=torch.float64)
    curve = fit.curve({"delta_a": target.sensitivities(fine)["delta_a"]})
    assert fine[curve.argmin()] == 0.5
    with pytest.raises(ValueError, match="parameters"):
        fit.curve({"delta_b": fine})


def test_the_floor_keeps_one_point_from_ruling_the_fit():
    sigma, error = np.full(20, 0.5), np.full(20, 0.05)
    sigma[3], error[3] = 0.6, 0.0
    fit = fit_shape(sigma, error, {"delta": np.ones(20)}, floor=0.1)
    assert fit.values["delta"] == pytest.approx(0.505, abs=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sensitivities": {}}, "at least one parameter"),
        ({"sensitivities": {"delta": np.ones(4)}}, "delta has shape"),
        ({"sensitivities": {"delta": np.zeros(5)}}, "delta is zero at every point"),
        ({"error": np.ones(3)}, "error has shape"),
        ({"error": -np.ones(5)}, "error must be finite and not negative"),
        ({"sigma": np.array([1, 2, np.nan, 4, 5])}, "sigma must be finite"),
        ({"sigma": np.zeros(5)}, "sigma is zero"),
        ({"sigma": np.ones(1), "error": np.ones(1), "sensitivities": {"delta": np.ones(1)}}, "more points"),
        ({"floor": 0.0}, "floor"),
    ],
)
def test_bad_fits_are_named(change, message):
    arguments = {"sigma": np.ones(5), "error": np.ones(5), "sensitivities": {"delta": np.ones(5)}} | change
    with pytest.raises(ValueError, match=message):
        fit_shape(**arguments)


def test_missing_iminuit_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "iminuit", None)
    with pytest.raises(ImportError, match=r'pip install "pyrogen\[fits\]"'):
        fit_shape(np.ones(5), np.ones(5), {"delta": np.ones(5)})
