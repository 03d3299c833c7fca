"""Every diagnostic of posteriors on a pretended card, and of events there."""

import copy
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from devices import on_card, pretend_card
from on_devices import EVENTS, model, same, same_numbers, settings

import pyrogen as pg
from pyrogen import diagnostics as dg

EDGES = np.linspace(-0.2, 1.2, 4)
COMPARED = {"grid_range": ((-3, 4), (-3, 4)), "cells": 30, "draws": 2, "probes": 3, "held_out": 9, "generated": 20}
pytestmark = pytest.mark.filterwarnings("ignore::pyrogen.SamplingWarning")


@pytest.fixture(scope="module")
def pairs():
    """A mean-field and a sampled posterior, both on both devices."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        here = [settings(pg.SVI).fit(model(), EVENTS), settings(pg.SGHMC, draws=8).fit(model(), EVENTS)]
    with pretend_card():
        return list(zip(here, [posterior.to("cuda") for posterior in here], strict=True))


FIXED = pg.BayesianFlow(pg.CouplingFlow(2, 1, (3,)), preprocessing=None)
SVI_ON_CARD = settings(pg.SVI, epochs=1, validation=0.0, patience=None)
DIAGNOSTICS = {
    "density_along_lines": lambda p, x: dg.density_along_lines(p, pg.targets.Wedge(), draws=2).stds,
    "uncertainty_map": lambda p, x: dg.uncertainty_map(p, (0, 0, 1), (1, 0, 1), cells=3, draws=2).sigma,
    "elpd": lambda p, x: dg.elpd(p, x, draws=2).pointwise,
    "elpd of training events": lambda p, x: dg.elpd(p, x[:40], trained=True, draws=4).pointwise,
    "effective_parameters": lambda p, x: dg.effective_parameters(p, x, 4),
    "marginal": lambda p, x: dg.marginal(p, 0, EDGES, n=9, draws=2).bands["a"].draws,
    "inference data": lambda p, x: np.asarray(
        dg.to_inference_data(p, probes=x[:3], observed=x, draws=4, generated=3)["posterior"]["log_density"]
    ),
    "inference data at named points": lambda p, x: np.asarray(
        dg.to_inference_data(p, probes={"a": x[0], "b": x[1]}, draws=4, generated=0)["posterior"]["log_density"]
    ),
    "calibration_along_lines": lambda p, x: dg.calibration_along_lines([p, p], pg.targets.Wedge(), draws=2).ranks,
    "quantile_bins": lambda p, x: dg.quantile_bins([p, p], pg.targets.Wedge(), [2], events=9, draws=2)[2].counts,
    "agreement": lambda p, x: dg.agreement(torch.cat([x, x]), p.sample(80, 2)).chi2,
    "wasserstein": lambda p, x: dg.wasserstein(p.sample(9, 2), x),
    "compare": lambda p, x: dg.compare({"a": p, "b": p}, pg.targets.Wedge(), "a", **COMPARED).rows[1]["w1_reference"],
    "predictive_distance": lambda p, x: dg.predictive_distance(
        p, p.to("cpu"), COMPARED["grid_range"], cells=30, draws=2
    ),
    "classifier_test": lambda p, x: (
        dg.classifier_test(torch.cat([x, x]), p.sample(100, 2), trainings=1, hidden=(4,), epochs=1, progress=False).auc
    ),
    "sample_quality": lambda p, x: (
        dg.sample_quality(x[:20], p.sample(20, 2), x[20:40], {"x": 0}, partitions=2).distance
    ),
    "simulation_based_calibration": lambda p, x: (
        dg.simulation_based_calibration(
            replace(SVI_ON_CARD, device=str(p.device)), FIXED, 20, 2, probes=3, draws=2
        ).ranks
    ),
    "bootstrap_calibration": lambda p, x: (
        dg.bootstrap_calibration(replace(SVI_ON_CARD, device=str(p.device)), p, 20, 2, probes=3, draws=2).ranks
    ),
}


@pytest.mark.parametrize("name", DIAGNOSTICS)
def test_diagnostics(name, pairs):
    for here, there in pairs:
        expected = DIAGNOSTICS[name](here, EVENTS)
        with pretend_card():
            found = DIAGNOSTICS[name](there, EVENTS.to("cuda"))
        assert same_numbers(found, expected)


def test_advise(pairs):
    options = {"generated": 200, "draws": 2, "support": pg.targets.Wedge()}
    for here, there in pairs:
        expected = dg.advise(here, EVENTS, **options)
        with pretend_card():
            assert dg.advise(there, EVENTS.to("cuda"), **options).text() == expected.text()


def test_diagnostics_of_one_kind(pairs):
    (guide, guide_there), (chains, chains_there) = pairs
    expected = dg.guide_pareto_k(guide, EVENTS[:40], draws=50), dg.function_space(chains, EVENTS[:3]).rhat
    with pretend_card():
        there = EVENTS.to("cuda")
        assert same_numbers(dg.guide_pareto_k(guide_there, there[:40], draws=50), expected[0])
        assert same_numbers(dg.function_space(chains_there, there[:3]).rhat, expected[1])


def test_targets_take_events_on_the_card():
    target = pg.targets.Wedge()
    with pretend_card():
        found = target.log_prob(EVENTS.to("cuda"))
        assert on_card(found) and same(found, target.log_prob(EVENTS))


PAIRS = torch.tensor(pg.events.read(Path(__file__).parents[1] / "examples" / "data" / "drell_yan_5k.h5").values[:50])
PREPROCESSINGS = {
    **{name: (pg.events.lepton_pair_coordinates(name), PAIRS) for name in ("mass", "log-pt", "cartesian")},
    "log": (pg.events.Log(), EVENTS.abs() + 1),
    "positive": (pg.events.Positive(), EVENTS.abs() + 1),
    "box": (pg.events.UnitBox((-20.0, -20.0), (20.0, 20.0)), EVENTS),
    "chain": (pg.events.Chain([pg.events.Log(), pg.events.Standardise()]), EVENTS.abs() + 1),
}


@pytest.mark.parametrize("name", PREPROCESSINGS)
def test_preprocessing_never_waits_for_the_card(name):
    """A step that waits cannot be recorded: it would run operation by operation, ten times slower."""
    bijection, events = PREPROCESSINGS[name]
    fitted = bijection.fit(events)
    expected, _ = fitted(events)
    with pretend_card() as card:
        there, x = copy.deepcopy(fitted).to("cuda"), events.to("cuda")
        card.reset()
        u, log_jacobian = there(x)
        assert there.fitted and card.waits == 0
        if name != "mass":  # whose inverse iterates until it has converged
            there.inverse(u)
            assert card.waits == 0
        assert same(u, expected) and on_card(log_jacobian)
