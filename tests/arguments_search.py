"""Calls of the room `search` that work, for the table of `tests/arguments.py`."""

import functools
import warnings

import numpy as np
import torch

import pyrogen as pg
from pyrogen import plotting, search
from pyrogen.diagnostics import Network
from pyrogen.posterior import MeanField, RunInfo


def regions():
    return search.Regions(signal=(3.4, 3.6), window=(3.3, 3.7))


def masses():
    return np.random.default_rng(1).uniform(3.3, 3.7, 60)


def band():
    draws = np.random.default_rng(1).dirichlet(np.ones(8), 6)
    return pg.HistogramBand(np.linspace(3.3, 3.7, 9), draws, 1000, "a")


def spectra():
    return [np.random.default_rng(i).uniform(3.3, 3.7, 200) for i in range(6)]


def features(seed, n=100):
    return np.random.default_rng(seed).normal(size=(n, 2))


QUICK = {"method": Network(hidden=(2,), epochs=1), "folds": 2, "ensemble": 1, "progress": False}


@functools.cache
def scores():
    return search.anomaly_scores(features(1), features(2), **QUICK)


def signal_scores():
    return np.arange(30) + 0.5


@functools.cache
def curve():
    return search.sic_curve(signal_scores(), np.arange(40.0))


def many_masses():
    return np.linspace(3.3, 3.7, 400)


def sideband(context):
    flow = pg.CouplingFlow(2, blocks=1, hidden=(4,), context=context)
    own = pg.BayesianFlow(flow, preprocessing=None)
    own = own.prepare(torch.randn(60, 2), context=torch.randn(60, 1) if context else None)
    info = RunInfo(training_events=60, effective_size=60.0)
    return pg.Posterior(own, MeanField(loc=own.initial_theta, scale=0 * own.initial_theta + 0.05), None, info)


@functools.cache
def two_densities():
    return {"data": features(4), "mass": many_masses()[:100], "inside": sideband(0), "beside": sideband(1)}


@functools.cache
def ratio():
    return search.density_ratio(**two_densities(), draws=2)


def trainer():
    return pg.SVI(epochs=1, batch_size=50, seed=0, progress=False)


def search_events(n=800):
    rng = np.random.default_rng(3)
    return pg.EventSample(np.column_stack([rng.uniform(3.3, 3.7, n), rng.normal(size=(n, 2))]), ("m", "x", "y"))


def search_settings():
    flow = pg.CouplingFlow(2, blocks=1, hidden=(2,), context=1)
    backend = pg.Bootstrap(replicas=3, steps=1, batch_size=20, progress=False)
    own = {"regions": regions(), "model": pg.BayesianFlow(flow, prior_scale="fan-in"), "mass": "m", "energy": 13.0}
    quick = {
        "method": Network(hidden=(2,), epochs=1),
        "flows": 2,
        "folds": 2,
        "ensemble": 1,
        "cuts": [0.5, 0.2],
        "parameters": 2,
    }
    return own | quick | {"backend": backend, "progress": False}


@functools.cache
def cathode():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of three replicas of one step
        return search.cathode(search_events(), **search_settings())


def hunted():
    return search.bump_hunt(masses(), regions(), background="counting", progress=False)


def search_calls(call, lazily):
    """By the name that a user writes."""
    return {
        "search.Regions": call(search.Regions, signal=(3.4, 3.6), window=(3.3, 3.7)),
        "search.Regions.inside": call(regions().inside, mass=masses()),
        "search.Regions.in_signal": call(regions().in_signal, mass=masses()),
        "search.SidebandCounting": call(search.SidebandCounting, width=1.0),
        "search.SidebandFit": call(search.SidebandFit, energy=13.0, parameters=2, bins=20),
        "search.GivenBackground": call(search.GivenBackground, mean=[5.0], sigma=[1.0]),
        "search.GivenBackground.of": call(search.GivenBackground.of, band=band(), total=100.0),
        "search.GeneratedMasses": call(search.GeneratedMasses, source=spectra(), events=100.0),
        "search.bump_hunt": call(
            search.bump_hunt, data=masses(), windows=regions(), background="counting", progress=False
        ),
        "search.excess_p_value": call(search.excess_p_value, observed=12, background=8.0, sigma=1.0, scale=1.0),
        "search.excess_significance": call(search.excess_significance, observed=12, background=8.0, sigma=1.0),
        "plotting.plot_spectrum": lazily(lambda: plotting.plot_spectrum, result=hunted()),
        "plotting.plot_scan": lazily(lambda: plotting.plot_scan, results=hunted()),
        "plotting.plot_p_values": lazily(lambda: plotting.plot_p_values, p_values={"fit": [0.2, 0.7]}),
        "search.mass_windows": call(search.mass_windows, range=(2.0, 7.0), n=5),
        "search.cathode": call(search.cathode, events=search_events(), **search_settings()),
        "search.Cathode.of": lambda: (cathode().of, {"events": search_events().select(["x", "y"])}),
        "search.Cathode.passed": lambda: (cathode().passed, {"cut": 0}),
        "search.Cathode.after": lambda: (cathode().after, {"cut": 0}),
        "search.MassFit.draw": lambda: (cathode().mass_fit.draw, {"n": 3, "seed": 0}),
        "search.Template.fractions": lambda: (
            cathode().templates[0].fractions,
            {"passed": np.zeros(len(cathode().templates[0]), dtype=bool)},
        ),
        "search.SearchSample.flow_of": lambda: (cathode().sample.flow_of, {"fold": 0}),
        "search.SearchSample.others": lambda: (cathode().sample.others, {"fold": 0}),
        "search.SearchSample.sideband": lambda: (cathode().sample.sideband, {"flow": 0}),
        "plotting.plot_template": lambda: (plotting.plot_template, {"result": cathode()}),
        "plotting.plot_significance": lambda: (plotting.plot_significance, {"result": cathode()}),
        "plotting.plot_mass_after_cut": lambda: (plotting.plot_mass_after_cut, {"result": cathode(), "cut": 0}),
        "search.anomaly_scores": call(search.anomaly_scores, data=features(1), template=features(2), **QUICK),
        "search.cwola": call(search.cwola, events=features(5, 400), mass=many_masses(), regions=regions(), **QUICK),
        "search.idealised": call(search.idealised, data=features(1), background=features(2), **QUICK),
        "search.supervised": call(search.supervised, signal=features(1), background=features(2), **QUICK),
        "search.density_ratio": lambda: (search.density_ratio, {**two_densities(), "draws": 2}),
        "search.DensityRatio.of": lambda: (ratio().of, {"events": features(6), "mass": many_masses()[:100]}),
        "search.DensityRatio.members_of": lambda: (
            ratio().members_of,
            {"events": features(6), "mass": many_masses()[:100]},
        ),
        "search.signal_region_posterior": lambda: (
            search.signal_region_posterior,
            {"data": features(7), "backend": trainer(), "flow": pg.CouplingFlow(2, blocks=1, hidden=(4,))},
        ),
        "search.sic_curve": call(search.sic_curve, signal=signal_scores(), background=np.arange(40.0)),
        "search.SicCurve.at_signal": lambda: (curve().at_signal, {"efficiency": [0.5]}),
        "search.SicCurve.at_background": lambda: (curve().at_background, {"efficiency": [0.5]}),
        "search.SicCurves": lambda: (search.SicCurves, {"curves": [curve(), curve()]}),
        "search.SicCurves.at_signal": lambda: (search.SicCurves([curve()]).at_signal, {"efficiency": [0.5]}),
        "search.SicCurves.at_background": lambda: (search.SicCurves([curve()]).at_background, {"efficiency": [0.5]}),
        "search.score_histogram": lambda: (search.score_histogram, {"scores": scores(), "bins": 5}),
        "plotting.plot_sic": lambda: (plotting.plot_sic, {"curves": {"a": curve()}}),
        "plotting.plot_scores": lambda: (plotting.plot_scores, {"histogram": search.score_histogram(scores())}),
        "search.Scores.of": call(lambda **given: scores().of(**given), events=features(3)),
        "search.Scores.members_of": call(lambda **given: scores().members_of(**given), events=features(3)),
    }


#: What functions of the room make and give back; users read them.
SEARCH_RESULTS = {
    "search.BumpHuntResult",
    "search.Cathode",
    "search.CutTable",
    "search.DensityRatio",
    "search.MassFit",
    "search.ScoreHistogram",
    "search.Scores",
    "search.SearchSample",
    "search.SicCurve",
    "search.SpectrumFit",
    "search.Template",
    "search.Trials",
}
#: Kinds of values that look wrong and are right, by the call and the argument.
NUMBERS = ("a half", "a numpy number", "True", "an empty list")
SEARCH_RIGHT = {
    **{
        (f"search.excess_{what}", name): NUMBERS
        for what in ("p_value", "significance")
        for name in ("observed", "background", "sigma", "observed_sigma", "scale")
    },
    ("search.GivenBackground", "name"): ("a text",),
    ("plotting.plot_p_values", "title"): ("a text",),
    ("search.Regions.inside", "mass"): ("an empty list",),
    ("search.Regions.in_signal", "mass"): ("an empty list",),
    ("search.SicCurve.at_signal", "efficiency"): ("an empty list",),
    ("search.SicCurve.at_background", "efficiency"): ("an empty list",),
    ("search.SicCurves.at_signal", "efficiency"): ("an empty list",),
    ("search.SicCurves.at_background", "efficiency"): ("an empty list",),
    ("plotting.plot_sic", "title"): ("a text",),
    ("plotting.plot_scores", "title"): ("a text",),
}
