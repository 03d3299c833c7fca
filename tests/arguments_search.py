"""Calls of the room `search` that work, for the table of `tests/arguments.py`."""

import numpy as np

from pyrogen import search


def regions():
    return search.Regions(signal=(3.4, 3.6), window=(3.3, 3.7))


def masses():
    return np.random.default_rng(1).uniform(3.3, 3.7, 60)


def search_calls(call, lazily):
    """By the name that a user writes."""
    return {
        "search.Regions": call(search.Regions, signal=(3.4, 3.6), window=(3.3, 3.7)),
        "search.Regions.inside": call(regions().inside, mass=masses()),
        "search.Regions.in_signal": call(regions().in_signal, mass=masses()),
    }


#: What functions of the room make and give back; users read them.
SEARCH_RESULTS = set()
#: Kinds of values that look wrong and are right, by the call and the argument.
SEARCH_RIGHT = {
    ("search.Regions.inside", "mass"): ("an empty list",),
    ("search.Regions.in_signal", "mass"): ("an empty list",),
}
