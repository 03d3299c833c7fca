"""The observables of Z + jets on the committed sample, against the package vector."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_z_jets import COMMITTED, LAYOUT

import pyrogen as pg
from pyrogen import events


@pytest.fixture(scope="module")
def committed():
    return events.read(COMMITTED)


def momentum(sample, which):
    vector = pytest.importorskip("vector")
    rows = {name: sample.column(f"{name}_{which}") for name in ("pt", "eta", "phi")}
    mass = np.full(len(sample), 0.1056584) if which.startswith("mu") else sample.column(f"m_{which}")
    return vector.array(rows | {"mass": mass})


def expected(name, sample):
    """What the package vector says."""
    kind, _, rest = name.rpartition("_")
    if name == "ht":
        return np.nansum(sample.values[:, 6::4], axis=1)
    if name == "jets":
        return sample.counts.astype(float)
    if rest == "pair":
        pair = momentum(sample, "mu+") + momentum(sample, "mu-")
        return {"M": pair.mass, "pt": pair.pt}[kind]
    if kind in ("pt", "eta", "m"):
        p = momentum(sample, rest)
        return {"pt": p.pt, "eta": p.eta, "m": p.mass}[kind]
    half = 3 if rest.startswith("mu") else 2
    p, q = momentum(sample, rest[:half]), momentum(sample, rest[half:])
    return {"delta_r": p.deltaR(q), "delta_phi": p.deltaphi(q)}[kind]


OBSERVABLES = events.z_jets_observables()


@pytest.mark.parametrize("name", OBSERVABLES)
def test_observables_are_those_of_vector(committed, name):
    found = OBSERVABLES[name](committed).numpy()
    np.testing.assert_allclose(found, expected(name, committed), rtol=1e-6, atol=1e-6)
    # NaN exactly where an object is missing, and most values are in the bins.
    assert np.array_equal(np.isnan(found), committed.counts < OBSERVABLES[name].objects)
    there, edges = found[~np.isnan(found)], OBSERVABLES[name].edges
    assert np.mean((there >= edges[0]) & (there <= edges[-1])) > 0.97 and (np.diff(edges) > 0).all()


def test_observables_take_events_of_all_kinds(committed):
    assert len(OBSERVABLES) == 37 and len(events.z_jets_observables(1)) == 17
    name, table = "delta_r_j1j2", committed.values[:50]
    found = OBSERVABLES[name](table)
    assert found.dtype == torch.float64 and found.shape == (50,)
    assert torch.equal(OBSERVABLES[name](torch.tensor(table)).nan_to_num(-1), found.nan_to_num(-1))
    assert torch.allclose(OBSERVABLES[name](torch.tensor(table).float()), found, rtol=1e-5, equal_nan=True)
    two = committed[committed.counts <= 2].values[:, :14]
    assert torch.equal(events.z_jets_observables(2)["ht"](two), OBSERVABLES["ht"](committed[committed.counts <= 2]))


def test_observables_refuse_other_events(committed):
    with pytest.raises(ValueError, match=r"events is \[50, 14\]; it must be \[N, 18\]: pt, eta, phi of mu\+ and mu-"):
        OBSERVABLES["ht"](committed.values[:50, :14])
    names = [*committed.names[3:6], *committed.names[:3], *committed.names[6:]]
    moved = pg.EventSample(committed.values, names, multiplicity=LAYOUT)
    with pytest.raises(ValueError, match="in another order"):
        OBSERVABLES["ht"](moved)
