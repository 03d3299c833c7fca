"""Baselines of a search: what is trained against what, scores that are known, and what is refused."""

import functools

import numpy as np
import pytest
import torch

import pyrogen as pg
from pyrogen import EventSample, search
from pyrogen.diagnostics import Network, Trees, roc_auc
from pyrogen.posterior import MeanField, RunInfo
from pyrogen.search import (
    Regions,
    anomaly_scores,
    cwola,
    density_ratio,
    idealised,
    signal_region_posterior,
    supervised,
)

REGIONS = Regions(signal=(3.4, 3.6), window=(3.3, 3.7))
QUICK = {"method": Network(hidden=(4,), epochs=2), "folds": 2, "ensemble": 1, "progress": False}
TREES = QUICK | {"method": Trees(iterations=20, leaves=4)}


def events(n, seed, signal=0):
    """Two columns that know nothing of the mass; signal at 3 in the first, in the signal region."""
    rng = np.random.default_rng(seed)
    x, mass = rng.normal(size=(n, 2)), rng.uniform(3.3, 3.7, n)
    x[:signal, 0] += 3
    mass[:signal] = rng.uniform(3.45, 3.55, signal)
    return EventSample(x, ["m", "tau"], ["TeV", ""]), mass


def test_cwola_finds_signal_and_sees_both_sidebands_alike():
    sample, mass = events(4_000, 1, signal=300)
    keep = ~((mass > 3.6) & (np.arange(4_000) % 2 == 0))  # half of the upper sideband
    sample, mass = sample[keep], mass[keep]
    test, _ = events(1_000, 2, signal=500)
    found = cwola(sample, mass, REGIONS, also={"test": test}, **TREES)
    inside = REGIONS.in_signal(mass)
    assert len(found.data) == inside.sum() and len(found.template) == (~inside).sum()
    beside = mass[~inside]
    lower, upper = (found.template_weights[beside < 3.4].sum(), found.template_weights[beside > 3.5].sum())
    assert lower == pytest.approx(upper) and (beside < 3.4).sum() > 1.5 * (beside > 3.5).sum()
    area, error = roc_auc(found.also["test"][:500], found.also["test"][500:])
    assert area > 0.8
    plain, masses = events(2_000, 3)
    nothing = cwola(plain, masses, REGIONS, **TREES)
    area, error = roc_auc(nothing.data, nothing.template)
    assert abs(area - 0.5) < 4 * error


def test_cwola_keeps_the_weights_of_events():
    sample, mass = events(400, 1)
    weights = np.random.default_rng(4).uniform(0.5, 1.5, 400)
    found = cwola(EventSample(sample, weights=weights), mass, REGIONS, **QUICK)
    inside = REGIONS.in_signal(mass)
    assert np.array_equal(found.data_weights, weights[inside])
    lower = mass[~inside] < 3.4
    ratio = found.template_weights / weights[~inside]
    assert np.ptp(ratio[lower]) < 1e-12 and np.ptp(ratio[~lower]) < 1e-12


def test_idealised_is_the_score_against_true_background():
    data, background = events(300, 1)[0], events(300, 2)[0]
    found, same = idealised(data, background, seed=3, **QUICK), anomaly_scores(data, background, seed=3, **QUICK)
    assert np.array_equal(found.data, same.data) and np.array_equal(found.template, same.template)
    assert found.settings == {"baseline": "idealised"} | same.settings


def test_supervised_knows_the_labels():
    """Signal at 3 sigma has an area of Phi(3 / sqrt 2) = 0.983."""
    signal, background = events(2_000, 1, signal=2_000)[0], events(2_000, 2)[0]
    found = supervised(signal, background, **TREES)
    area, error = roc_auc(found.data, found.template)
    assert abs(area - 0.983) < 4 * error + 0.005
    far = EventSample(signal.values + 50, signal.names, signal.units)
    assert supervised(far, background, **TREES).data.mean() > 1  # nothing in common is right here


def posterior(seed, context=0):
    flow = pg.CouplingFlow(2, blocks=1, hidden=(4,), context=context)
    x = torch.randn(60, 2, generator=torch.Generator().manual_seed(seed))
    given = torch.randn(60, 1) if context else None
    model = pg.BayesianFlow(flow, preprocessing=None).prepare(x, context=given)
    theta = model.initial_theta
    info = RunInfo(training_events=60, effective_size=60.0)
    return pg.Posterior(model, MeanField(loc=theta, scale=0.1 + 0 * theta), None, info, progress=False)


@functools.cache
def ratio():
    sample, mass = events(50, 1)
    return density_ratio(sample, mass, posterior(1), posterior(2, context=1), draws=3)


def test_the_density_ratio_is_that_of_two_posteriors():
    sample, mass = events(50, 1)
    found = ratio()
    above = found.inside.log_prob(sample, 3)
    below = found.beside.log_prob(sample, 3, context=torch.tensor(mass)[:, None])
    assert found.data_members.shape == (3, 50)
    assert np.allclose(found.data_members, (above.double() - below.double()).numpy())
    assert np.array_equal(found.of(sample, mass), found.data)
    assert np.array_equal(found.data_spread, found.data_members.std(0, ddof=1))
    moved = found.of(sample, mass + 0.5)
    assert not np.array_equal(moved, found.data)  # the mass counts


def test_the_density_ratio_takes_the_draws_that_there_are():
    sample, mass = events(50, 1)
    few = pg.posterior.StoredDraws(torch.randn(1, 4, posterior(1).model.weights, generator=torch.manual_seed(1)))
    inside = pg.Posterior(posterior(1).model, few)
    assert len(density_ratio(sample, mass, posterior(1), posterior(2, context=1)).data_members) == 10
    assert len(density_ratio(sample, mass, inside, posterior(2, context=1)).data_members) == 4
    with pytest.raises(ValueError, match="draws is 10, but this posterior holds 4"):
        density_ratio(sample, mass, inside, posterior(2, context=1), draws=10)


def test_the_posterior_of_the_signal_region_takes_any_backend():
    sample, _ = events(100, 1)
    trains = pg.SVI(epochs=1, batch_size=50, seed=0, progress=False)
    flow = pg.CouplingFlow(2, blocks=1, hidden=(4,))
    found = signal_region_posterior(sample, backend=trains, flow=flow)
    assert found.log_prob(sample, 2).shape == (2, 100)


MASS = np.linspace(3.3, 3.7, 100)
BAD = {
    "empty": (
        lambda: cwola(events(100, 1)[0], np.full(100, 3.35), REGIONS),
        "no event has a mass in the signal region",
    ),
    "outside": (lambda: cwola(events(100, 1)[0], MASS * 1000, REGIONS), "outside the window.* same unit"),
    "length": (lambda: cwola(events(100, 1)[0], MASS[:50], REGIONS), r"mass has the shape \[50\]; there are 100"),
    "folds": (lambda: cwola(events(100, 1)[0], MASS, REGIONS, folds=10), "has .* events for 10 folds"),
    "no signal": (lambda: supervised(np.zeros((0, 2)), events(100, 1)[0]), "signal"),
    "units": (
        lambda: supervised(events(100, 1)[0], EventSample(events(100, 2)[0].values, ["m", "tau"], ["GeV", ""])),
        "m is in TeV in signal and in GeV in background",
    ),
    "names": (lambda: idealised(events(100, 1)[0], events(100, 2)[0].select(["m"])), "background has 1"),
    "weights": (
        lambda: density_ratio(
            EventSample(events(50, 1)[0], weights=np.ones(50)), events(50, 1)[1], posterior(1), posterior(2, 1)
        ),
        "data has weights",
    ),
    "mass": (lambda: ratio().of(events(50, 1)[0], np.full(50, np.nan)), "mass is nan in 50 of 50"),
    "columns": (lambda: ratio().of(events(50, 1)[0].select(["m"]), MASS[:50]), "events has 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_by_name(case):
    make, text = BAD[case]
    with pytest.raises(ValueError, match=text):
        make()


def test_labels_and_the_mass_among_the_features_are_refused():
    """A column of zeros and ones called signal, as files of pg.events.Dijets have it; and the mass, for CWoLa."""
    rng = np.random.default_rng(5)
    regions, mass = search.Regions(signal=(3.4, 3.6), window=(3.3, 3.7)), np.linspace(3.3, 3.7, 200)
    values, other = rng.normal(size=(2, 200, 2))
    label = rng.random(200) < 0.1

    def labelled(table, column):
        return pg.EventSample(np.column_stack([table, column]), ("x", "y", "signal"))

    calls = (
        lambda: search.cwola(labelled(values, label), mass, regions),
        lambda: search.anomaly_scores(labelled(values, label), labelled(other, 0 * mass)),
        lambda: search.idealised(labelled(values, label), labelled(other, 0 * mass)),
        lambda: search.supervised(labelled(values, 1 + 0 * mass), labelled(other, 0 * mass)),
        lambda: search.signal_region_posterior(labelled(values, label)),
    )
    for call in calls:
        with pytest.raises(ValueError, match="the column signal has zeros and ones alone: it is a label"):
            call()
    with pytest.raises(ValueError, match="events: the column c is a function of the mass"):
        search.cwola(pg.EventSample(np.column_stack([values, -mass]), ("a", "b", "c")), mass, regions)
    with pytest.raises(ValueError, match="template: the events have uncertainties or log_weights"):
        search.anomaly_scores(values, pg.EventSample(other, ("x", "y"), log_weights=np.zeros((200, 3))))


def test_one_score_for_all_events_has_a_histogram():
    flat = pg.diagnostics.Trees(iterations=1, leaves=2, smallest_leaf=900, patience=0)
    values = np.random.default_rng(6).normal(size=(2, 200, 2))
    found = search.anomaly_scores(*values, method=flat, folds=2, ensemble=1, progress=False)
    histogram = search.score_histogram(found, bins=5)
    assert (np.diff(histogram.edges) > 0).all() and histogram.data.sum() == 200
