"""Odd layouts, columns in another order, and settings that do not go together: all work or are refused by name."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from test_jet_variables import make_events

import pyrogen as pg
from pyrogen.events import (
    EventSample,
    Multiplicity,
    OfObjects,
    WhitenPerMultiplicity,
    jet_coordinates,
    separated_jets,
    separation_weights,
)
from pyrogen.events.jets import z_jets_columns

LAYOUT = Multiplicity(6, 4, 3)


@pytest.mark.parametrize("kind", ["paper", "resonance"])
def test_coordinates_of_one_jet_at_most(kind):
    x = make_events(300)[:, :10]
    coordinates = jet_coordinates(kind, most=1)
    u, log_jacobian = coordinates.preprocessing.fit(x)(x)
    back, inverse = coordinates.preprocessing.inverse(u)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(inverse, -log_jacobian)


@pytest.mark.parametrize(
    "use",
    [separated_jets, separation_weights, lambda sample: jet_coordinates("paper").preprocessing.fit(sample)],
    ids=["separated_jets", "separation_weights", "fit"],
)
def test_columns_in_another_order_are_refused(use):
    names, swapped = z_jets_columns()[0], [3, 4, 5, 0, 1, 2, *range(6, 18)]
    x = make_events(300).numpy()
    with pytest.raises(ValueError, match=r"in another order: pt_mu-"):
        use(EventSample(x[:, swapped], [names[i] for i in swapped], multiplicity=LAYOUT))
    use(EventSample(x, names, multiplicity=LAYOUT))


def test_efficiency_of_events_without_weight_is_nan_without_a_warning():
    x = make_events(30)
    weights = (LAYOUT.counts(x) != 2).double()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = separated_jets(EventSample(x, weights=weights, multiplicity=LAYOUT))
    assert np.isnan(found.efficiency[2])
    assert found.efficiency[1] == found.efficiency[3] == found.total == 1


def test_paper_has_no_lepton_mass():
    with pytest.raises(ValueError, match=r"lepton_mass is 0.1; it must be 0 for the coordinates of the paper"):
        jet_coordinates("paper", lepton_mass=0.1)


def test_observable_of_another_layout_is_refused():
    events = torch.zeros(2, 4)  # of Multiplicity(1, 1, 3): three objects, more than the observable knows of
    observable = OfObjects(lambda x: x[:, 2], Multiplicity(1, 1, 2), 2)
    for act in (observable, observable.missing):
        with pytest.raises(ValueError, match=r"events is \[2, 4\]; it must be \[m, 3\], rows of Multiplicity"):
            act(events)


def test_objects_alone_are_no_columns_of_events_without_objects():
    sample = EventSample(np.array([[1.0, np.nan], [1.0, 2.0]]), ["a", "b"], multiplicity=Multiplicity(1, 1, 1, 0))
    with pytest.raises(ValueError, match=r"names: events with fewer than 1 objects have no column 'b'"):
        sample.select(["b"])
    assert sample.select(["a", "b"]).multiplicity == sample.multiplicity


def test_whitening_does_not_advise_what_was_done():
    layout = Multiplicity(1, 1, 2)
    x = torch.tensor([[0.0, 1.0, torch.nan], [1.0, 3.0, torch.nan], [1.0, 2.0, 3.0]])
    with pytest.raises(ValueError, match=r"1 events have 2 objects.* or Multiplicity\(most=1\)$"):
        WhitenPerMultiplicity(layout, alone=range(3)).fit(x)
    with pytest.raises(ValueError, match=r"alone=range\(3\), which needs 2$"):
        WhitenPerMultiplicity(layout).fit(x)


def test_reference_lists_every_public_flow_and_backend():
    text = (Path(__file__).parents[1] / "docs" / "api.md").read_text()
    listed = set(re.findall(r"[A-Za-z]\w+", text))
    classes = [name for name in pg.__all__ if isinstance(getattr(pg, name), type)]
    rooms = ("pyrogen.flows", "pyrogen.bayes", "pyrogen.inference", "pyrogen.posterior")
    assert {name for name in classes if getattr(pg, name).__module__.startswith(rooms)} <= listed
