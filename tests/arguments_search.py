"""Calls of the room `search` that work, for the table of `tests/arguments.py`."""

import functools

import numpy as np

from pyrogen import search
from pyrogen.diagnostics import Network


def regions():
    return search.Regions(signal=(3.4, 3.6), window=(3.3, 3.7))


def masses():
    return np.random.default_rng(1).uniform(3.3, 3.7, 60)


def features(seed, n=100):
    return np.random.default_rng(seed).normal(size=(n, 2))


QUICK = {"method": Network(hidden=(2,), epochs=1), "folds": 2, "ensemble": 1, "progress": False}


@functools.cache
def scores():
    return search.anomaly_scores(features(1), features(2), **QUICK)


def search_calls(call, lazily):
    """By the name that a user writes."""
    return {
        "search.Regions": call(search.Regions, signal=(3.4, 3.6), window=(3.3, 3.7)),
        "search.Regions.inside": call(regions().inside, mass=masses()),
        "search.Regions.in_signal": call(regions().in_signal, mass=masses()),
        "search.anomaly_scores": call(search.anomaly_scores, data=features(1), template=features(2), **QUICK),
        "search.Scores.of": call(lambda **given: scores().of(**given), events=features(3)),
        "search.Scores.members_of": call(lambda **given: scores().members_of(**given), events=features(3)),
    }


#: What functions of the room make and give back; users read them.
SEARCH_RESULTS = {"search.Scores"}
#: Kinds of values that look wrong and are right, by the call and the argument.
SEARCH_RIGHT = {
    ("search.Regions.inside", "mass"): ("an empty list",),
    ("search.Regions.in_signal", "mass"): ("an empty list",),
}
