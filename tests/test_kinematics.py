"""Observables against the vector package, and the columns of lepton pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import vector

import pyrogen as pg
from pyrogen.events import (
    LEPTONS,
    EventSample,
    four_vectors,
    kinematics,
    lepton_balance,
    lepton_pair,
    lepton_pair_observables,
    momenta,
    pair_momenta,
)


def four_momenta(n: int = 500, seed: int = 0, mass: float = 0.3) -> torch.Tensor:
    p = np.random.default_rng(seed).normal(size=(n, 3)) * [30, 30, 300]
    return torch.from_numpy(np.column_stack([p, np.sqrt((p**2).sum(1) + mass**2)]))


def as_vector(p: torch.Tensor) -> vector.MomentumNumpy4D:
    return vector.array({name: p[:, i].numpy() for i, name in enumerate(("px", "py", "pz", "E"))})


@pytest.mark.parametrize(
    ("name", "attribute"),
    [("energy", "E"), ("pt", "pt"), ("phi", "phi"), ("eta", "eta"), ("rapidity", "rapidity"), ("mass", "mass")],
)
def test_observables_of_one_particle(name, attribute):
    p = four_momenta(mass=20.0)
    expected = torch.from_numpy(np.asarray(getattr(as_vector(p), attribute)))
    assert torch.allclose(getattr(kinematics, name)(p), expected, rtol=1e-9)


def test_observables_of_two_particles():
    p, q = four_momenta(seed=0), four_momenta(seed=1)
    a, b = as_vector(p), as_vector(q)
    assert np.allclose(kinematics.delta_r(p, q), a.deltaR(b))
    assert np.allclose(kinematics.delta_phi(p, q), a.deltaphi(b))
    assert np.allclose(kinematics.mass(p + q), (a + b).mass)
    assert kinematics.delta_phi(p, q).abs().max() > 3  # beyond which a plain difference would have to be wrapped


def test_observables_of_the_pair():
    x = torch.randn(200, 4, dtype=torch.float64) * torch.tensor([30, 30, 300, 300])
    p, q = pair_momenta(x, 0.1)
    a, b = as_vector(p), as_vector(q)
    assert np.allclose((a + b).pt, 0, atol=1e-10) and np.allclose(a.mass, 0.1, rtol=1e-3)
    expected = {
        "E": a.E,
        "px": a.px,
        "pT": a.pt,
        "pz": a.pz,
        "E_pair": (a + b).E,
        "M_pair": (a + b).mass,
        "y_pair": (a + b).rapidity,
        "eta": a.eta,
        "delta_r": a.deltaR(b),
    }
    observables = lepton_pair_observables(0.1)
    assert observables.keys() == expected.keys()
    for name, observable in observables.items():
        assert np.allclose(observable(x), expected[name], rtol=1e-6), name
        assert np.allclose(observable(x.numpy()), expected[name], rtol=1e-6)
        assert (np.diff(observable.edges) > 0).all() and observable.label


def with_recoil(n: int = 50, recoil: float = 0.0) -> EventSample:
    rng = np.random.default_rng(0)
    p, q = rng.normal(size=(2, n, 3)) * [30, 30, 200]
    q[:, :2] = -p[:, :2]
    q[n // 2 :, 0] += recoil
    energies = [np.linalg.norm(k, axis=1)[:, None] for k in (p, q)]
    names = [f"{c}_{lepton}" for lepton in ("l+", "l-") for c in ("px", "py", "pz", "E")]
    values = np.column_stack([p, energies[0], q, energies[1]])
    return EventSample(values, names, ["GeV"] * 8, weights=rng.normal(1, 0.5, n), provenance={"a": 1})


def test_balanced_pairs_have_four_columns_and_come_back():
    sample = with_recoil()
    pair = lepton_pair(sample)
    assert pair.names == ("px_l+", "py_l+", "pz_l+", "pz_l-") and pair.units == ("GeV",) * 4
    assert np.array_equal(pair.weights, sample.weights) and pair.provenance == {"a": 1}
    back = four_vectors(pair)
    assert back.names == sample.names and np.allclose(back.values, sample.values)
    assert np.array_equal(lepton_pair(pair).values, pair.values)
    assert lepton_balance(sample).all() and lepton_balance(pair).all()


def test_pairs_with_recoil_say_what_fits():
    sample = with_recoil(recoil=12.5)
    with pytest.raises(ValueError, match=r"25 of 50 events .* event 25 they sum to 12.5 GeV.*recoil.*the 25 events"):
        lepton_pair(sample)
    assert lepton_balance(sample).sum() == 25
    assert len(lepton_pair(sample[lepton_balance(sample)])) == 25
    with pytest.raises(ValueError, match="25 of 50 events have no recoil.*first is event 0"):
        lepton_pair(sample, recoil=True)
    six = lepton_pair(sample[~lepton_balance(sample)], recoil=True)
    assert six.features == 6 and np.allclose(four_vectors(six).values, sample.values[25:])


def test_errors_name_what_is_missing():
    sample = with_recoil()
    with pytest.raises(ValueError, match="px_mu\\+, .* missing"):
        lepton_pair(sample, "mu+", "mu-")
    with pytest.raises(ValueError, match="do not name one pair of leptons"):
        lepton_pair(EventSample(np.ones((3, 2)), ["a", "b"]))
    with pytest.raises(ValueError, match="has not the mass 5 GeV; the first is event 0"):
        lepton_pair(sample, lepton_mass=5.0)
    with pytest.raises(ValueError, match="4 columns .* or 6"):
        pair_momenta(torch.ones(3, 5))
    with pytest.raises(ValueError, match="there are|There are"):
        momenta(sample, "tau+")
    assert set(LEPTONS["l"]) == {"l+", "l-"}


def test_massless_without_energies():
    sample = pg.EventSample([[3.0, 4.0, 12.0]], ["px_e+", "py_e+", "pz_e+"])
    assert momenta(sample, "e+").tolist() == [[3.0, 4.0, 12.0, 13.0]]
