"""Calls of the room `search` that work, for the table of `tests/arguments.py`."""

import numpy as np

import pyrogen as pg
from pyrogen import search


def regions():
    return search.Regions(signal=(3.4, 3.6), window=(3.3, 3.7))


def masses():
    return np.random.default_rng(1).uniform(3.3, 3.7, 60)


def band():
    draws = np.random.default_rng(1).dirichlet(np.ones(8), 6)
    return pg.HistogramBand(np.linspace(3.3, 3.7, 9), draws, 1000, "a")


def spectra():
    return [np.random.default_rng(i).uniform(3.3, 3.7, 200) for i in range(6)]


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
        "plotting.plot_spectrum": lazily(lambda: pg.plotting.plot_spectrum, result=hunted()),
        "plotting.plot_scan": lazily(lambda: pg.plotting.plot_scan, results=hunted()),
        "plotting.plot_p_values": lazily(lambda: pg.plotting.plot_p_values, p_values={"fit": [0.2, 0.7]}),
        "search.mass_windows": call(search.mass_windows, range=(2.0, 7.0), n=5),
    }


#: What functions of the room make and give back; users read them.
SEARCH_RESULTS = {"search.BumpHuntResult", "search.SpectrumFit", "search.Trials"}
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
}
