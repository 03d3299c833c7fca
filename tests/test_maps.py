"""Maps of posteriors whose density and sigma are known in every cell, and the figures that show them."""

import math
import warnings

import numpy as np
import pytest
import torch
from known import Location
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm
from torch import nn

import pyrogen as pg
from pyrogen.diagnostics.maps import UncertaintyMap, uncertainty_map
from pyrogen.plotting import save_figure
from pyrogen.plotting.maps import plot_map
from pyrogen.posterior import MeanField, RunInfo

SPREAD = 0.2
WEST, EAST, SOUTH, NORTH = -2.0, 3.0, -1.5, 1.0  # four different numbers: no cell takes the place of another


def location(at=(0.3, -0.5), spread=SPREAD, **info):
    """Events ~ N(location, 1), the location itself ~ N(at, spread^2)."""
    weights = {"loc": torch.tensor(at), "scale": torch.full((len(at),), spread)}
    model = pg.BayesianFlow(Location(len(at)), preprocessing=None)
    return pg.Posterior(model, MeanField(**weights), info=RunInfo(**info))


def normal(x, variance):
    return np.exp(-(x**2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)


def known_moments(x_edges, y_edges, at=(0.3, -0.5)):
    """Mean and standard deviation of prod_i N(x_i; m_i, 1) over m_i ~ N(at_i, s^2), two Gaussian integrals:

    <N(x; m, 1)> = N(x; at, 1 + s^2), and N(x; m, 1)^2 = N(x; m, 1/2) / sqrt(4 pi).
    """
    x, y = (((edges[1:] + edges[:-1]) / 2 - its) for edges, its in zip((x_edges, y_edges), at, strict=True))
    mean, square = (
        np.outer(normal(x, width + SPREAD**2), normal(y, width + SPREAD**2)) / norm
        for width, norm in ((1, 1), (0.5, 4 * math.pi))
    )
    return mean, np.sqrt(square - mean**2)


def test_density_and_sigma_in_every_cell_are_the_known_ones():
    draws = 3000
    found = uncertainty_map(location(), ("x", WEST, EAST), ("y", SOUTH, NORTH), 7, draws=draws)
    assert found.density.shape == found.sigma.shape == found.relative.shape == (7, 7)
    np.testing.assert_allclose(found.x_edges, np.linspace(WEST, EAST, 8))
    np.testing.assert_allclose(found.y_edges, np.linspace(SOUTH, NORTH, 8))
    density, sigma = known_moments(found.x_edges, found.y_edges)
    assert np.abs((found.density - density) / sigma).max() < 5 / math.sqrt(draws)
    # p is linear in the location (kurtosis 3) but near the peak, where it is quadratic (kurtosis 9): a standard
    # deviation of K such numbers is known to sqrt((9 - 1) / 4K).
    np.testing.assert_allclose(found.sigma, sigma, rtol=5 * math.sqrt(2 / draws))
    np.testing.assert_allclose(found.relative, found.sigma / found.density)
    assert found.truth is None and found.pull is None and found.at is None
    assert found.labels == ("x", "y") and found.units == ("", "")
    same = uncertainty_map(location(), ("x0", WEST, EAST), ("x1", SOUTH, NORTH), 7, draws=draws)
    assert same.labels == ("x", "y") and np.array_equal(same.sigma, found.sigma)


def test_first_and_second_direction_are_not_mixed_up():
    posterior = location()
    upright = uncertainty_map(posterior, (0, WEST, EAST), (1, SOUTH, NORTH), 5)
    turned = uncertainty_map(posterior, ("y", SOUTH, NORTH), ("x", WEST, EAST), 5)
    np.testing.assert_allclose(turned.density, upright.density.T)
    np.testing.assert_allclose(turned.sigma, upright.sigma.T)
    assert turned.labels == ("y", "x")
    centres = torch.tensor(
        [[(upright.x_edges[1] + upright.x_edges[2]) / 2, (upright.y_edges[3] + upright.y_edges[4]) / 2]]
    )
    one = posterior.density(centres)
    assert upright.density[1, 3] == pytest.approx(one.mean.item(), rel=1e-5)
    assert upright.sigma[1, 3] == pytest.approx(one.std.item(), rel=1e-4)


def test_draws_and_seed_are_those_of_the_posterior():
    posterior, plane = location(), (("x", WEST, EAST), ("y", SOUTH, NORTH), 3)
    same = uncertainty_map(posterior, *plane), uncertainty_map(posterior, *plane, draws=50, seed=0)
    assert np.array_equal(same[0].sigma, same[1].sigma)
    assert not np.array_equal(same[0].sigma, uncertainty_map(posterior, *plane, seed=1).sigma)
    assert not np.array_equal(same[0].sigma, uncertainty_map(posterior, *plane, draws=49).sigma)


def test_pull_is_in_units_of_sigma_and_blank_off_the_support():
    """The truth: an event density that is known, and zero for y > 0."""

    class HalfPlane:
        def log_prob(self, x):
            density = torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(-1)
            return torch.where(x[:, 1] > 0, -math.inf, density)

    found = uncertainty_map(location(), ("x", WEST, EAST), ("y", -1.0, 1.0), 6, target=HalfPlane())
    x, y = ((edges[1:] + edges[:-1]) / 2 for edges in (found.x_edges, found.y_edges))
    np.testing.assert_allclose(found.truth[:, y < 0], np.outer(normal(x, 1), normal(y[y < 0], 1)))
    assert (found.truth[:, y > 0] == 0).all() and np.isnan(found.pull[:, y > 0]).all()
    np.testing.assert_allclose(
        found.pull[:, y < 0], ((found.density - found.truth) / found.sigma)[:, y < 0], rtol=1e-12
    )
    certain = uncertainty_map(location(spread=0.0), ("x", WEST, EAST), ("y", -1.0, 1.0), 6, target=HalfPlane())
    assert np.isnan(certain.pull).all()  # nothing to divide by


def test_a_truth_that_is_the_posterior_mean_has_pulls_of_the_draws_alone():
    draws = 400
    truth = torch.distributions.MultivariateNormal(
        torch.tensor([0.3, -0.5]).double(), (1 + SPREAD**2) * torch.eye(2).double()
    )
    found = uncertainty_map(location(), ("x", WEST, EAST), ("y", SOUTH, NORTH), 9, target=truth, draws=draws)
    assert np.abs(found.pull).max() < 5 / math.sqrt(draws)


def test_the_plane_of_three_features_has_names_units_and_a_place():
    names, units = ["pT", "eta", "mass"], ["GeV", "", "TeV"]
    posterior = location((0.3, -0.5, 1.0), names=names, units=units)
    found = uncertainty_map(posterior, ("mass", -1, 2), ("pT", 0, 1), 4, at={"eta": 0.25})
    assert found.labels == ("mass", "pT") and found.units == ("TeV", "GeV")
    assert found.at == {"eta": 0.25} and found.at_units == ("",)
    same = uncertainty_map(posterior, (2, -1, 2), (0, 0, 1), 4, at={1: 0.25})
    assert np.array_equal(found.density, same.density) and same.at == {"eta": 0.25}
    x, y = (found.x_edges[2] + found.x_edges[3]) / 2, (found.y_edges[0] + found.y_edges[1]) / 2
    assert found.density[2, 0] == pytest.approx(posterior.density(torch.tensor([[y, 0.25, x]])).mean.item(), rel=1e-5)

    held = uncertainty_map(posterior, ("pT", 0, 1), ("eta", 0, 1), 2, at={"mass": 1})
    assert held.at == {"mass": 1.0} and held.at_units == ("TeV",)
    plain = uncertainty_map(location((0.0,) * 4), ("x3", 0, 1), ("x0", 0, 1), 2, at={"x1": 0, "x2": 0})
    assert plain.labels == ("x3", "x0") and plain.at == {"x1": 0, "x2": 0}


class Shifted(nn.Module):
    """Events ~ N(condition * slope, 1) in the plane."""

    features, context = 2, 1

    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.ones(2))

    def log_prob(self, x, context):
        return torch.distributions.Normal(context * self.slope, 1.0).log_prob(x).sum(-1)

    def sample(self, n, context):
        return context * self.slope + torch.randn(n, 2)


def test_one_condition_holds_for_the_whole_plane():
    weights = MeanField(loc=torch.tensor([1.0, -2.0]), scale=torch.full((2,), 0.1))
    posterior = pg.Posterior(pg.BayesianFlow(Shifted(), preprocessing=None), weights)
    plane = ("x", WEST, EAST), ("y", SOUTH, NORTH), 5
    found = uncertainty_map(posterior, *plane, context=[0.5])
    expected = uncertainty_map(location((0.5, -1.0), 0.05), *plane)  # the same draws of the slope, halved
    np.testing.assert_allclose(found.density, expected.density, rtol=1e-4)
    np.testing.assert_allclose(found.sigma, expected.sigma, rtol=1e-3)
    for context, message in (([[0.5]] * 25, r"context has shape \[25, 1\].*one row"), ([1.0, 2.0], "1 columns")):
        with pytest.raises(ValueError, match=message):
            uncertainty_map(posterior, *plane, context=context)
    with pytest.raises(ValueError, match="give context"):
        uncertainty_map(posterior, *plane)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": ("z", 0, 1)}, r"unknown feature 'z'; give an index or one of \['a', 'b', 'c'\]"),
        ({"x": (3, 0, 1)}, "unknown feature 3"),
        ({"x": (-1, 0, 1)}, "unknown feature -1"),
        ({"x": (True, 0, 1)}, "unknown feature True"),
        ({"at": {"z": 0}}, "unknown feature 'z'"),
        ({"x": ("b", 0, 1)}, "x is 'b', y is 'b' and at holds .*; give two different directions"),
        ({"at": None}, r"at holds \[\]; .*each of the others once: \['c'\]"),
        ({"at": {"c": 0, "a": 0}}, r"at holds \['a', 'c'\]"),
        ({"at": {"c": 0, 2: 1}}, "at holds"),
        ({"at": {"c": math.nan}}, "NaN"),
        ({"x": ("a", 1, 1)}, r"x is \('a', 1, 1\); its range must be finite and increase"),
        ({"y": ("b", 2, 1)}, r"y is \('b', 2, 1\)"),
        ({"y": ("b", 0, math.inf)}, "y is .* finite"),
        ({"cells": 0}, "cells is 0; it must be a whole number of at least 1"),
        ({"cells": 2.5}, "cells is 2.5"),
        ({"draws": 1}, "draws is 1"),
    ],
)
def test_bad_planes_are_named(change, message):
    arguments = {"x": ("a", 0, 1), "y": ("b", 0, 1), "cells": 3, "at": {"c": 0.0}} | change
    with pytest.raises(ValueError, match=message):
        uncertainty_map(location((0.0,) * 3, names=["a", "b", "c"]), **arguments)


def test_one_feature_is_no_plane():
    with pytest.raises(ValueError, match="features are 1; a map needs two"):
        uncertainty_map(location((0.0,)), ("x", 0, 1), ("y", 0, 1))


def panels(figure):
    """By name, what each panel draws, ``[nx, ny]``, and its colour scale; all drawn without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()
    axes = [axis for axis in figure.axes if axis.get_label() != "<colorbar>"]
    bars = [axis for axis in figure.axes if axis.get_label() == "<colorbar>"]
    found = {}
    for axis, bar in zip(axes, bars, strict=True):
        (mesh,) = (its for its in axis.collections if isinstance(its, QuadMesh))
        found[bar.get_xlabel()] = np.ma.filled(np.ma.masked_invalid(mesh.get_array()), np.nan).T, mesh.norm, axis
    return found


@pytest.fixture
def by_hand():
    """Three cells of every kind: outside the support, seen by the flow, missed by it."""
    density = np.array([[0.5, 0.2, 1e-5], [1.0, 0.4, 2e-5]])
    truth = np.array([[0.0, 0.3, 0.1], [1.2, 0.0, 0.2]])
    sigma = np.array([[0.1, 0.05, 1e-5], [0.1, 0.6, 1e-5]])
    edges = np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, 2.0, 3.0])
    return UncertaintyMap(*edges, density, sigma, sigma / density, truth, ("pT", "mass"), ("GeV", "GeV"))


@pytest.mark.parametrize("log", [False, True])
def test_panels_show_the_numbers_and_blank_the_rest(by_hand, log):
    found = panels(plot_map(by_hand, log=log))
    unit = " [GeV$^{-2}$]"
    true, predicted, pull, sigma, relative = found
    assert [true, predicted, sigma] == [
        name + unit for name in ("true density", "predicted density $p$", r"uncertainty $\sigma$")
    ]
    inside = by_hand.truth > 0
    seen = inside & (by_hand.density > 1e-3)
    for name, values, where in (
        (true, by_hand.truth, inside),
        (predicted, by_hand.density, inside),
        (pull, (by_hand.density - by_hand.truth) / by_hand.sigma, inside),  # what the flow has missed, too
        (sigma, by_hand.sigma, seen),
        (relative, by_hand.relative, seen),
    ):
        np.testing.assert_allclose(found[name][0], np.where(where, values, np.nan), err_msg=name)
    for name, top in ((true, 1.2), (predicted, 1.2), (sigma, 0.1)):
        norm = found[name][1]
        assert norm.vmax == pytest.approx(top) and isinstance(norm, LogNorm) == log
        assert norm.vmin == pytest.approx(1e-3 * top if log else 0)
    assert (found[pull][1].vmin, found[pull][1].vmax) == (-4, 4)
    assert (found[relative][1].vmin, found[relative][1].vmax) == (0, pytest.approx(0.25))
    for _, _, axis in found.values():
        assert (axis.get_xlabel(), axis.get_ylabel()) == ("pT [GeV]", "mass [GeV]")
        assert axis.get_aspect() == 1 and (axis.get_xlim(), axis.get_ylim()) == ((0, 2), (0, 3))


@pytest.mark.parametrize("log", [False, True])
def test_a_plane_without_truth_or_without_uncertainty(log, tmp_path):
    posterior = location((0.3, -0.5, 1.0), names=["pT", "eta", "mass"], units=["GeV", "", "GeV"])
    plane = ("pT", -2, 2), ("eta", -9, 9), 8
    figure = plot_map(uncertainty_map(posterior, *plane, at={"mass": 0.5}), log=log)
    assert [*panels(figure)] == [
        # Per GeV of the mass as well: the density is that of all features, not of the plane.
        "predicted density $p$ [GeV$^{-2}$]",
        r"uncertainty $\sigma$ [GeV$^{-2}$]",
        r"relative uncertainty $\sigma / p$",
    ]
    assert figure.get_suptitle() == "at mass = 0.5 GeV"
    assert all(axis.get_aspect() == "auto" for _, _, axis in panels(figure).values())  # GeV are not numbers
    assert save_figure(figure, tmp_path / "map.png").stat().st_size > 10_000

    certain = location(spread=0.0)
    found = panels(
        plot_map(uncertainty_map(certain, ("x", -2, 2), ("y", -2, 2), 4, target=pg.targets.Wedge()), log=log)
    )
    assert len(found) == 5 and not any("[" in name for name in found)
    assert all(norm.vmax > norm.vmin for _, norm, _ in found.values())
