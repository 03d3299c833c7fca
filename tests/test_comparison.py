"""Convergence, distances and the table of backends on cases whose answer is known."""

import json
import math
import warnings

import numpy as np
import pytest
import torch
from matplotlib.collections import PolyCollection
from torch import nn

import pyrogen as pg
from pyrogen.coverage.chains import diagnose
from pyrogen.diagnostics import (
    LineResult,
    band_overlap,
    compare,
    coverage,
    function_space,
    predictive_distance,
    probe_points,
    total_variation,
    wasserstein,
)
from pyrogen.plotting import plot_backends
from pyrogen.posterior import Finding, MeanField, RunInfo, StoredDraws

FAR = torch.tensor([[1000.0, 0.0], [0.0, 1000.0]])  # here log p is linear in the mean, so it mixes as the mean does
GRID = ((-6.0, 6.0), (-6.0, 6.0))


def log_normal(x, mean=0.0):
    return -0.5 * (x - mean).square().sum(-1) - math.log(2 * math.pi)


class Shift(nn.Module):
    """A Gaussian of unit width in the plane; its weights are its mean."""

    features = 2

    def __init__(self):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def log_prob(self, x):
        return log_normal(x, self.mean)

    def sample(self, n):
        return self.mean + torch.randn(n, 2, dtype=torch.float64)


class Gaussian:
    """The truth: mean 0, width 1."""

    line_label, line_range, line_positions = "x", (-2.0, 2.0), (-0.5, 0.5)

    def line(self, t, position):
        return torch.stack([t, torch.full_like(t, position)], -1)

    def line_density(self, t):
        return self.log_prob(self.line(t, 0.5)).exp()

    def log_prob(self, x):
        return log_normal(x)

    def sample(self, shape):
        return torch.randn(*shape, 2, dtype=torch.float64)


def chains(means, **kwargs):
    """A posterior with stored means ``[chains, draws, 2]``."""
    model = pg.BayesianFlow(Shift(), preprocessing=None)
    return pg.Posterior(model, StoredDraws(torch.as_tensor(means)), **kwargs)


def shifted(x, spread=0.0, draws=50):
    means = np.random.default_rng(1).normal(0, spread, (2, draws, 2)) if spread else np.zeros((2, draws, 2))
    return chains(means + np.array([x, 0.0]))


def autoregressive(correlation, shape, seed=0):
    """Chains with variance one, each step correlated with the one before."""
    noise = np.random.default_rng(seed).normal(size=shape)
    values = noise.copy()
    for i in range(1, shape[1]):
        values[:, i] = correlation * values[:, i - 1] + math.sqrt(1 - correlation**2) * noise[:, i]
    return values


# --- convergence ---


@pytest.mark.parametrize("correlation", [0.0, 0.6, 0.9])
def test_the_effective_sample_size_of_correlated_chains(correlation):
    rhat, bulk, tail = diagnose(autoregressive(correlation, (4, 10_000)))
    assert bulk == pytest.approx(40_000 * (1 - correlation) / (1 + correlation), rel=0.1)
    assert 1000 < tail < 44_000
    assert rhat < 1.01


def test_convergence_of_a_posterior_is_that_of_its_log_density():
    means = autoregressive(0.6, (4, 500, 2))
    found = function_space(chains(means, history={"potential": means[:, :, 0]}), FAR)
    np.testing.assert_allclose(found.ess_bulk, 2000 * 0.4 / 1.6, rtol=0.25)
    assert found.rhat.shape == found.ess_tail.shape == (2,)
    assert found.largest_rhat == found.rhat.max() < 1.02
    assert found.smallest_ess == min(found.ess_bulk.min(), found.ess_tail.min())
    # The potential is the mean of the first column here, which log p at the first point follows.
    assert found.potential_ess == pytest.approx(found.ess_bulk[0], rel=0.02)
    assert found.potential_rhat == pytest.approx(found.rhat[0], abs=1e-3)


def test_chains_that_have_not_met_are_found():
    means = np.random.default_rng(0).normal(size=(4, 300, 2))
    means[0, :, 1] += 1.0
    found = function_space(chains(means), FAR)
    assert found.rhat[0] < 1.02
    assert found.rhat[1] > 1.05
    assert found.largest_rhat == found.rhat[1]
    assert found.ess_bulk[1] < 100 < found.ess_bulk[0]
    assert math.isnan(found.potential_rhat)

    drift = np.random.default_rng(0).normal(size=(1, 400, 2))
    assert function_space(chains(drift), FAR).largest_rhat < 1.03
    drift[:, :200] += 1.0
    assert function_space(chains(drift), FAR).largest_rhat > 1.05


def test_draws_are_evaluated_in_their_order_whatever_the_chunks(monkeypatch):
    means = np.random.default_rng(0).normal(size=(3, 20, 2))
    points = torch.randn(5, 2, dtype=torch.float64)
    expected = np.array([[[log_normal(x, m) for x in points] for m in torch.tensor(c)] for c in means])
    whole = function_space(chains(means), points)
    np.testing.assert_allclose(whole.log_prob, expected)
    monkeypatch.setattr("pyrogen.diagnostics.stored_draws.WEIGHTS_AT_ONCE", 20)  # three draws at a time
    pieces = function_space(chains(means), points)
    np.testing.assert_array_equal(pieces.log_prob, whole.log_prob)
    np.testing.assert_array_equal(pieces.rhat, whole.rhat)
    thinned = function_space(chains(means), points, draws=5)
    np.testing.assert_allclose(thinned.log_prob, expected[:, [0, 5, 10, 14, 19]])


def test_chains_that_never_moved_do_not_count_as_converged():
    found = function_space(chains(np.ones((2, 10, 2))), FAR)
    assert found.largest_rhat == math.inf
    assert found.smallest_ess == 0


def test_what_cannot_be_judged_is_named():
    guide = MeanField(loc=torch.zeros(2), scale=torch.ones(2))
    model = pg.BayesianFlow(Shift(), preprocessing=None)
    with pytest.raises(ValueError, match="mean_field distribution without stored chains"):
        function_space(pg.Posterior(model, guide), FAR)
    with pytest.raises(ValueError, match="1 draws in each of 10 chains; convergence needs at least 4"):
        function_space(chains(np.ones((10, 1, 2))), FAR)
    with pytest.raises(ValueError, match="at least 8 per chain"):
        function_space(chains(np.ones((1, 7, 2))), FAR)
    means = np.random.default_rng(0).normal(size=(2, 6, 2))
    with pytest.raises(ValueError, match="draws is 3; it must be a whole number of at least 4"):
        function_space(chains(means), FAR, draws=3)
    with pytest.raises(ValueError, match="draws is 7, but the posterior holds 6"):
        function_space(chains(means), FAR, draws=7)
    means[1, 4] = np.inf
    with pytest.raises(ValueError, match=r"log p is -inf at probe point 0 in draw 4 of chain 1 \(2 of 24 values"):
        function_space(chains(means), FAR)


def test_probe_points():
    target = pg.targets.Wedge()
    state = torch.random.get_rng_state()
    points = probe_points(target, 7, seed=3)
    assert torch.equal(points, probe_points(target, 7, seed=3))
    assert not torch.equal(points, probe_points(target, 7, seed=4))
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(3)  # events drawn like this are not met again
    assert not torch.isin(points[:, 0], target.sample((7,))[:, 0]).any()
    events = np.arange(20.0).reshape(10, 2)
    for given in (events, torch.tensor(events), pg.EventSample(events)):
        picked = probe_points(given, 10, seed=1)
        assert sorted(picked[:, 0].tolist()) == events[:, 0].tolist()
    with pytest.raises(ValueError, match="n is 11, but the events have shape"):
        probe_points(events, 11)


# --- distances ---


@pytest.mark.parametrize("distance", [0.0, 0.3, 2.0])
def test_distances_of_two_gaussians(distance):
    expected = math.erf(distance / 2 / math.sqrt(2))  # 2 Phi(distance / 2) - 1
    a, b = shifted(0.0), shifted(distance)
    assert predictive_distance(a, b, ((-6.0, 8.0), (-6.0, 6.0)), 80) == pytest.approx(expected, abs=2e-3)
    shift = wasserstein(a.sample(20_000, seed=1), b.sample(20_000, seed=2))
    np.testing.assert_allclose(shift, [distance, 0], atol=0.03)
    # Weights that leave every other event out.
    events = b.sample(2000, seed=3).numpy()
    half = pg.EventSample(events, weights=np.tile([1.0, 0.0], 1000))
    np.testing.assert_allclose(wasserstein(half, events[::2]), 0, atol=1e-12)
    with pytest.raises(ValueError, match="a_events has 1 negative weights"):
        wasserstein(pg.EventSample(events, weights=np.r_[-1.0, np.ones(1999)]), events)
    x = np.random.default_rng(0).normal(size=(40_000, 1))
    # W1 is the area between the cumulative distributions; between widths 1 and 2 it is sqrt(2 / pi).
    np.testing.assert_allclose(wasserstein(x[:20_000], 2 * x[20_000:]), math.sqrt(2 / math.pi), rtol=0.03)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones(4), np.ones(3), 0.25), r"p has shape \[4\] and q has \[3\]"),
        ((np.ones(4), np.ones(4), 0.0), "cell is 0.0"),
        ((np.ones(4), np.full(4, 0.9), 0.25), "q sums to 0.9 over the grid"),
        ((np.array([2.0, -1.0]), np.ones(2), 1.0), "p must be finite and not negative"),
        ((np.array([np.nan, 1.0]), np.ones(2), 1.0), "p must be finite"),
    ],
)
def test_bad_densities_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        total_variation(*arguments)


def test_bad_distances_are_named():
    assert total_variation([2.0, 0.0], [0.0, 2.0], 0.5) == 1.0
    with pytest.raises(ValueError, match="grid_range is"):
        predictive_distance(shifted(0.0), shifted(0.0), ((1.0, 0.0), (0.0, 1.0)))
    with pytest.raises(ValueError, match="p sums to 0.25"):
        predictive_distance(shifted(0.0), shifted(0.0), ((0.0, 6.0), (0.0, 6.0)))
    with pytest.raises(ValueError, match="a_events has 2 columns and b_events has 3"):
        wasserstein(np.ones((4, 2)), np.ones((4, 3)))
    with pytest.raises(ValueError, match="b_events: 4 of 4 rows hold NaN"):
        wasserstein(np.ones((4, 2)), np.full((4, 2), np.nan))


# --- the table ---


def test_bands_overlap_as_their_widths_do():
    lines = {s: some_lines(s) for s in (0.1, 0.2)}
    assert band_overlap(lines[0.1], lines[0.1]) == 1
    assert band_overlap(lines[0.1], lines[0.2]) == pytest.approx(0.5) == band_overlap(lines[0.2], lines[0.1], 2)
    far = LineResult(lines[0.1].t, lines[0.1].positions, lines[0.1].means + 5, lines[0.1].stds, lines[0.1].truth)
    assert band_overlap(lines[0.1], far) == 0
    with pytest.raises(ValueError, match="same points"):
        band_overlap(lines[0.1], lines[0.1].line(0))


@pytest.fixture
def posteriors():
    """The reference, one with half its width, one that is off by half a unit."""
    model = pg.BayesianFlow(Shift(), preprocessing=None)
    half = {"loc": torch.zeros(2).double(), "scale": torch.full((2,), 0.05).double()}
    info = RunInfo(epochs_done=7, gradients=14.0, seconds=3.0)
    svi = pg.Posterior(model, MeanField(**half), {"seconds": np.array([1.0, 3.0])}, info)
    hmc = shifted(0.0, 0.1, 250)
    hmc.info = RunInfo(gradients=1234.0, seconds=5.0, findings=(Finding("divergent", "1 %", "Try more"),))
    return {"SVI": svi, "HMC": hmc, "Ensemble": chains(np.array([[[0.5, 0.1]], [[0.5, -0.1]]]))}


def test_the_table_of_backends(posteriors):
    settings = {"grid_range": GRID, "cells": 50, "held_out": 2000, "generated": 4000}  # 200 draws where there are
    settings["trained_on"] = torch.randn(100, 2)
    found = compare(posteriors, Gaussian(), **settings)
    rows = {row["backend"]: row for row in json.loads(json.dumps(found.rows, allow_nan=False))}
    svi, hmc, ensemble = (rows[name] for name in posteriors)
    assert list(found.lines) == list(rows) == ["SVI", "HMC", "Ensemble"]
    # sigma of the density is proportional to that of the mean.
    assert svi["sigma_ratio"] == pytest.approx(0.5, rel=0.1)
    assert hmc["sigma_ratio"] == 1.0
    assert hmc["within_2"] == found.lines["HMC"].within(2)
    assert hmc["rms_bias"] < 0.005 < ensemble["rms_bias"]
    offset = math.erf(0.25 / math.sqrt(2))
    assert ensemble["tv_truth"] == pytest.approx(offset, abs=0.01)
    assert ensemble["tv_reference"] == pytest.approx(offset, abs=0.02)
    assert ensemble["w1_reference"] == pytest.approx([0.5, 0.0], abs=0.06)
    assert 0 < hmc["tv_reference"] < 0.01  # between its own halves
    assert max(hmc["w1_reference"]) < 0.1
    # Half the squared distance of the means, in nats.
    assert svi["held_out"] - ensemble["held_out"] == pytest.approx(0.125, abs=0.03)
    assert (hmc["elpd_difference"], hmc["elpd_difference_error"]) == (0.0, 0.0)
    assert ensemble["elpd_difference"] == pytest.approx(-2000 * 0.125, abs=4 * ensemble["elpd_difference_error"])
    assert ensemble["elpd_difference_error"] == pytest.approx(0.5 * math.sqrt(2000), rel=0.1)
    assert svi["band_overlap"] == pytest.approx(0.5, abs=0.1) and hmc["band_overlap"] == 1
    assert svi["pareto_k"] is not None and hmc["pareto_k"] is None
    assert svi["held_out_error"] == pytest.approx(1 / math.sqrt(2000), rel=0.1)
    assert hmc["rhat"] < 1.05
    assert hmc["ess"] > 200
    assert [svi["rhat"], svi["ess"], ensemble["rhat"], ensemble["gradients"]] == [None] * 4
    assert (svi["gradients"], svi["seconds"], svi["warnings"]) == (14.0, 3.0, 0)
    assert (hmc["gradients"], hmc["seconds"], hmc["warnings"]) == (1234.0, 5.0, 1)

    header, *body, note = found.text().splitlines()
    assert [line.split()[0] for line in body] == ["SVI", "HMC", "Ensemble"]
    assert {len(line) for line in body} == {len(header)}
    assert "1,234" in body[1]
    assert "HMC" in note
    assert "halves" in note
    again = compare({"HMC": posteriors["HMC"], "SVI": posteriors["SVI"]}, Gaussian(), "SVI", **settings)
    assert again.rows[0]["sigma_ratio"] == pytest.approx(1 / svi["sigma_ratio"], rel=0.02)
    assert again.rows[1]["tv_reference"] is None
    with pytest.raises(ValueError, match="reference is 'NUTS'; it must be one of 'SVI', 'HMC', 'Ensemble'"):
        compare(posteriors, Gaussian(), "NUTS", grid_range=GRID)
    with pytest.raises(ValueError, match="draws is 200, but this posterior holds 2 stored weight draws"):
        compare(posteriors, Gaussian(), draws=200, **settings)


def test_one_backend_that_went_wrong_does_not_cost_the_others_their_numbers(posteriors):
    far = chains(np.array([[[50.0, 0.1]], [[50.0, -0.1]]]))  # outside the grid: its density sums to nothing
    settings = {"grid_range": GRID, "cells": 30, "held_out": 100, "generated": 200}
    with pytest.warns(UserWarning, match="Ensemble: "):
        found = compare(posteriors | {"Ensemble": far}, Gaussian(), **settings)
    rows = {row["backend"]: row for row in found.rows}
    assert rows["Ensemble"]["tv_truth"] is None
    assert rows["SVI"]["tv_truth"] is not None
    assert "Ensemble" in found.text()


def test_coverage():
    lines = LineResult(np.arange(4.0), np.zeros(1), np.array([[0.5, 1.5, 2.5, 0.0]]), np.ones((1, 4)), np.zeros(4))
    assert coverage(lines) == {1.0: 0.5, 2.0: 0.75}
    assert coverage(lines, (3,)) == {3: 1.0}


def test_a_sampled_flow_converges_and_arviz_is_quiet():
    flow = pg.CouplingFlow(2, blocks=2, hidden=(4,), transform="bernstein", base="uniform", bins=4, activation="tanh")
    hmc = pg.HMC(chains=2, warmup=10, draws=10, max_steps=5, start_steps=20, progress=False)
    events = pg.targets.Wedge().sample((100,))
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        posterior = hmc.fit(pg.BayesianFlow(flow, "fan-in"), events)
        found = function_space(posterior, probe_points(events, 6))
    assert found.log_prob.shape == (2, 10, 6)
    expected = posterior.log_prob(probe_points(events, 6), draws=20).reshape(2, 10, 6)
    np.testing.assert_array_equal(found.log_prob, expected)
    assert np.isfinite([found.largest_rhat, found.smallest_ess, found.potential_rhat, found.potential_ess]).all()


# --- the figure ---


def some_lines(sigma):
    t = np.linspace(0.1, 0.9, 9)
    stds = sigma * np.array([[0.9], [1.1]]) * np.ones(9)
    return LineResult(t, np.array([0.2, 0.8]), np.tile(2.1 * t, (2, 1)), stds, 2 * t, "x")


def test_every_backend_is_drawn_against_truth_and_reference():
    lines = {
        "SVI": some_lines(0.1),
        "HMC": some_lines(0.2),
        "SGLD": some_lines(0.3),
        "NUTS": some_lines(0.2),
        "Laplace": some_lines(0.2),
    }
    figure = plot_backends(lines, "HMC", unit="GeV", density_unit="1/GeV")
    pairs = list(zip(figure.axes[::2], figure.axes[1::2], strict=True))
    assert [upper.get_title() for upper, _ in pairs] == ["SVI", "HMC (reference)", "SGLD", "NUTS", "Laplace"]
    for (upper, lower), (name, result) in zip(pairs, lines.items(), strict=True):
        prediction, truth = upper.lines
        np.testing.assert_allclose(prediction.get_ydata(), result.density)
        np.testing.assert_allclose(truth.get_ydata(), result.truth)
        one, two = (c for c in upper.collections if isinstance(c, PolyCollection))
        for band, k in ((one, 1), (two, 2)):
            edges = band.get_paths()[0].vertices
            at_end = edges[np.isclose(edges[:, 0], 0.9), 1]
            expected = result.density[-1] + k * result.sigma[-1] * np.array([-1, 1])
            np.testing.assert_allclose([at_end.min(), at_end.max()], expected)
        curves = [line.get_ydata() for line in lower.lines]
        np.testing.assert_allclose(curves[0], result.sigma)
        assert len(curves) == (1 if name == "HMC" else 2)
        np.testing.assert_allclose(curves[-1], lines["HMC"].sigma)
        assert upper.get_ylim() == pairs[0][0].get_ylim()
        assert lower.get_ylim() == pairs[0][1].get_ylim()
    # Whatever has nothing below it names the coordinate; the first column names what is drawn.
    assert [lower.get_xlabel() for _, lower in pairs] == ["", "", "$x$ [GeV]", "$x$ [GeV]", "$x$ [GeV]"]
    assert "density" in pairs[3][0].get_ylabel()
    entries = [text.get_text() for text in figure.legends[0].get_texts()]
    assert entries == [r"$\pm \sigma$", r"$\pm 2\sigma$", "prediction", "truth", r"$\sigma$ of HMC"]


def test_one_wild_backend_does_not_flatten_the_others():
    lines = {"SVI": some_lines(0.1), "HMC": some_lines(0.1), "SGLD": some_lines(30.0)}
    upper, lower = plot_backends(lines, "HMC").axes[:2]
    assert upper.get_ylim()[1] < 5
    assert lower.get_ylim()[1] < 0.5
    upper, lower = plot_backends(lines, "HMC", log=True).axes[:2]
    assert upper.get_ylim()[1] < 5
    assert lower.get_yscale() == "log"
    low, high = lower.get_ylim()
    assert low < 0.1 < 30 < high
    assert len(plot_backends({"SVI": some_lines(0.1)}).axes) == 2
    plot_backends({"SVI": some_lines(0.0)}, log=True)  # nothing to take the logarithm of
    with pytest.raises(ValueError, match="reference is 'NUTS'"):
        plot_backends(lines, "NUTS")
    with pytest.raises(ValueError, match="lines is empty"):
        plot_backends({})
    other = LineResult(*(getattr(lines["SVI"], name) for name in ("t", "positions", "means", "stds", "truth")), "r")
    with pytest.raises(ValueError, match="the lines are along r, x"):
        plot_backends({"SVI": lines["SVI"], "ring": other})
