"""Coordinates of lepton pairs: exact both ways, with the right Jacobian, in the peak and in the tails."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import pyrogen as pg
from pyrogen.events import (
    PERIODIC,
    BeamLimit,
    Columns,
    LeptonPair,
    Probit,
    RecoilingPair,
    Resonance,
    Squash,
    Standardise,
    UnitBox,
    lepton_pair_coordinates,
)
from pyrogen.events.bijection import from_config

SAMPLE = Path(__file__).parents[1] / "examples" / "data" / "drell_yan_5k.h5"
ELECTRON, MUON = 0.0, 0.10566


def pairs(n: int, columns: int = 4, seed: int = 0, mass: float = 0.0) -> torch.Tensor:
    """Momenta from soft and central to TeV and along the beam."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, columns)) * np.exp(rng.uniform(-1, 6, (n, columns)))
    return torch.from_numpy(x)


def masses(n: int, seed: int = 0) -> np.ndarray:
    """Nine tenths a Breit-Wigner at 91.2 GeV of width 2.5 GeV, one tenth (50/M)^3, above 50 GeV."""
    rng = np.random.default_rng(seed)
    top = math.atan2(1.25, 50 - 91.2)
    peak = 91.2 + 1.25 / np.tan(top * rng.uniform(size=n))
    return np.where(rng.uniform(size=n) < 0.9, peak, 50 * rng.uniform(size=n) ** (-1 / 3))


def jacobian(bijection: object, x: torch.Tensor) -> torch.Tensor:
    each = torch.func.vmap(torch.func.jacrev(lambda row: bijection(row[None])[0][0]))  # type: ignore[operator]
    return each(x).slogdet().logabsdet


BIJECTIONS = {
    "mass": (LeptonPair("mass"), 4),
    "mass, muons": (LeptonPair("mass", MUON), 4),
    "log-pt": (LeptonPair("log-pt"), 4),
    "log-pt, muons": (LeptonPair("log-pt", MUON), 4),
    "recoil": (RecoilingPair(), 6),
    "recoil, muons": (RecoilingPair(MUON), 6),
}


@pytest.mark.parametrize("name", BIJECTIONS)
def test_physical_coordinates_are_exact_both_ways(name):
    bijection, columns = BIJECTIONS[name]
    x = pairs(20_000, columns)
    u, log_jacobian = bijection(x)
    back, log_inverse = bijection.inverse(u)
    # A component may be tiny beside the others; the vector cannot know it better than its own rounding.
    assert ((back - x).norm(dim=1) / x.norm(dim=1)).max() < 1e-9
    assert (log_jacobian + log_inverse).abs().max() < 1e-9
    assert (jacobian(bijection, x[:500]) - log_jacobian[:500]).abs().max() < 1e-7


def test_physical_coordinates_are_what_their_names_say():
    x = pairs(1000)
    p, q = pg.events.pair_momenta(x)
    k = pg.events.kinematics
    u, _ = LeptonPair("mass")(x)
    # Through the momenta's own arithmetic, which cancels where the leptons are nearly parallel.
    expected = torch.stack([k.mass(p + q), k.rapidity(p + q), (k.eta(p) - k.eta(q)) / 2, k.phi(p)], -1)
    assert torch.allclose(u, expected, rtol=1e-6, atol=1e-9)
    u, _ = LeptonPair("log-pt")(x)
    assert torch.allclose(u, torch.stack([k.pt(p).log(), k.eta(p), k.eta(q), k.phi(p)], -1))
    x = pairs(1000, 6)
    p, q = pg.events.pair_momenta(x)
    u, _ = RecoilingPair()(x)
    assert torch.allclose(u[:, 0], k.mass(p + q), rtol=1e-6)
    assert torch.allclose(u[:, 1], k.rapidity(p + q), rtol=1e-6, atol=1e-9)
    assert torch.allclose(u[:, 2], k.pt(p + q).log(), atol=1e-9) and torch.allclose(u[:, 3], k.phi(p + q))


def test_the_rest_frame_of_a_recoiling_pair_is_that_of_a_balanced_one_in_the_limit():
    x = pairs(200)
    six = torch.stack([x[:, 0], x[:, 1], x[:, 2], -x[:, 0], -x[:, 1], x[:, 3]], -1)
    six[:, 3] += 1e-6  # a recoil along x
    balanced, recoiling = LeptonPair("mass")(x)[0], RecoilingPair()(six)[0]
    assert torch.allclose(recoiling[:, [0, 1, 4]], balanced[:, :3], rtol=1e-3, atol=1e-3)
    assert torch.allclose(recoiling[:, 5], balanced[:, 3], atol=1e-2)  # the axis of qT is x


@pytest.mark.parametrize("coordinates", ["mass", "log-pt"])
@pytest.mark.parametrize("circle", [True, False])
def test_round_trip_of_the_drell_yan_sample(coordinates, circle):
    x = torch.tensor(pg.events.read(SAMPLE).values)
    whole = lepton_pair_coordinates(coordinates, circle=circle).fit(x)
    u, log_jacobian = whole(x)
    back, log_inverse = whole.inverse(u)
    assert ((back - x).abs() / x.abs()).max() < 1e-9
    assert (log_jacobian + log_inverse).abs().max() < 1e-6
    assert (jacobian(whole, x[:300]) - log_jacobian[:300]).abs().max() < 1e-6
    line = u[:, :3] if circle else u
    # Standard normal by construction or by the fit, of 5,000 events.
    assert line.mean(0).abs().max() < 0.1 and (line.std(0) - 1).abs().max() < 0.15
    if circle:
        assert u[:, 3].min() >= 0 and u[:, 3].max() <= 1 and abs(float(u[:, 3].mean()) - 0.5) < 0.02


def test_rapidities_end_where_the_beams_do():
    x = torch.tensor([[91.0, 1.0, 7.0], [50.0, -3.0, 7.0]], dtype=torch.float64)
    limit = BeamLimit(13_000)
    u, log_jacobian = limit(x)
    assert torch.allclose(u[:, 1], x[:, 1] / (13_000 / x[:, 0]).log()) and torch.equal(u[:, 2], x[:, 2])
    assert torch.allclose(u[:, 0], x[:, 0], rtol=1e-8)
    heavy = torch.tensor([[12_000.0, 0.05], [6_000.0, -0.5]], dtype=torch.float64)
    v, log_heavy = limit(heavy)
    assert torch.allclose(limit.inverse(v)[0], heavy) and torch.allclose(jacobian(limit, heavy), log_heavy)
    assert torch.allclose(limit.inverse(v)[1], -log_heavy) and v[0, 0] > 13_000
    assert torch.allclose(jacobian(limit, x), log_jacobian)
    edges = torch.tensor([[91.0, 1.0], [1e6, -1.0]], dtype=torch.float64)
    mass, y = limit.inverse(edges)[0].unbind(1)
    assert torch.allclose(mass * y.abs().exp(), torch.tensor(13_000.0).double())
    fitted = BeamLimit().fit(x)
    assert 50 * math.exp(3) < float(fitted.energy) < 100_000  # two events know little of the limit
    events = pg.events.read(SAMPLE)
    whole = lepton_pair_coordinates("mass").fit(events)
    torch.manual_seed(0)
    wild = torch.cat(
        [3 * torch.randn(10_000, 3, dtype=torch.float64).clamp(-1.6, 1.6), torch.rand(10_000, 1).double()], -1
    )
    made = whole.inverse(wild)[0]
    p, q = pg.events.pair_momenta(made)
    energy = float(whole.parts[1].energy)
    fraction = ((p + q)[:, 3] + (p + q)[:, 2].abs()) / energy
    assert fraction.max() <= 1 + 1e-9 and fraction.max() > 0.9


def test_float32_keeps_the_mass_of_tev_leptons():
    x = torch.tensor([[30.0, 34.0, 3000.0, 2900.0], [45.0, 3.0, -5000.0, -5300.0]], dtype=torch.float64)
    exact, rounded = LeptonPair("mass")(x)[0], LeptonPair("mass")(x.float())[0]
    assert ((rounded - exact).abs() / exact.abs()).max() < 1e-5


def test_resonance_flattens_a_peak_on_a_background():
    x = masses(50_000)
    bijection = Resonance().fit(x[:, None])
    low, location, width, fraction, power = (float(c) for c in bijection._cast(torch.zeros(1, 1)))
    # Errors of a maximum-likelihood fit to 50,000 events: 5 standard deviations of an ideal Cauchy.
    assert low < x.min() and low > 49.9
    assert abs(location - 91.2) < 5 * 1.25 * math.sqrt(2 / 45_000)
    assert abs(width - 2.5) < 5 * 2.5 * math.sqrt(2 / 45_000)
    assert abs(fraction - 0.9) < 0.02 and abs(power - 3) < 0.5
    u = bijection(torch.from_numpy(x)[:, None])[0].numpy()
    counts = np.histogram(u, 20, (0, 1))[0]
    assert ((counts - 2500) ** 2 / 2500).sum() < 60  # chi2 of 15 to 19 degrees of freedom


def test_resonance_round_trip_in_the_peak_and_the_far_tail():
    bijection = Resonance(low=50.0).fit(masses(10_000)[:, None])
    x = torch.cat([torch.linspace(50, 200, 5001), torch.logspace(2.3, 4.1, 500)])[:, None].double()
    u, log_slope = bijection(x)
    back, log_inverse = bijection.inverse(u)
    assert ((back - x).abs() / x).max() < 1e-9 and (log_slope + log_inverse).abs().max() < 1e-6
    assert float(u[0]) == 1 and (u.diff(dim=0)[:5000] < 0).all()
    assert (jacobian(bijection, x[1:]) - log_slope[1:]).abs().max() < 1e-9
    single = bijection(x.float())[0]
    assert ((bijection.inverse(single)[0] - x).abs() / x)[x < 3000].max() < 1e-3


def test_resonance_weights_and_limits():
    x = masses(20_000)
    twice = Resonance(50.0).fit(np.concatenate([x, x])[:, None])
    weighted = Resonance(50.0).fit(x[:, None], np.full(len(x), 3.0))
    assert torch.allclose(twice.location, weighted.location, rtol=1e-4)
    # Events of the peak outweigh the others: the fraction rises.
    heavy = Resonance(50.0).fit(x[:, None], np.where(abs(x - 91.2) < 5, 10.0, 1.0))
    assert heavy.fraction > weighted.fraction
    with pytest.raises(ValueError, match="begin at 50.* lower limit low = 60"):
        Resonance(60.0).fit(x[:, None])
    with pytest.raises(ValueError, match="low is -1"):
        Resonance(-1.0)
    with pytest.raises(ValueError, match="constant|without spread"):
        Resonance(50.0).fit(np.full((100, 1), 91.0))


@pytest.mark.parametrize(
    "bijection", [Squash(1.0, 2.0), Probit(), Columns([Squash(0.0, 0.5), UnitBox([-1.0], [1.0])])], ids=str
)
def test_elementwise_maps(bijection):
    torch.manual_seed(0)
    u = torch.rand(500, 2, dtype=torch.float64)
    x = u if isinstance(bijection, Probit) else 3 * torch.randn(500, 2, dtype=torch.float64)
    v, log_slope = bijection(x)
    back, log_inverse = bijection.inverse(v)
    assert torch.allclose(back, x, atol=1e-10) and torch.allclose(log_slope, -log_inverse, atol=1e-8)
    assert torch.allclose(jacobian(bijection, x), log_slope, atol=1e-9)


def test_squash_fit_makes_a_logistic_uniform():
    rng = np.random.default_rng(0)
    x = rng.logistic(3.0, 2.0, (100_000, 1))
    u = Squash().fit(x)(torch.from_numpy(x))[0]
    assert abs(float(u.mean()) - 0.5) < 5e-3 and abs(float(u.std()) - 12**-0.5) < 3e-3


def test_saved_with_the_posterior(tmp_path):
    events = pg.events.read(SAMPLE)[:600]
    preprocessing = lepton_pair_coordinates("mass")
    flow = pg.CouplingFlow(4, 2, (8,), "rqs", mixing="random", periodic=PERIODIC["mass"])
    model = pg.BayesianFlow(flow, preprocessing=preprocessing)
    posterior = pg.SVI(epochs=1, batch_size=200, progress=False).fit(model, events)
    posterior.save(tmp_path / "p.h5")
    loaded = pg.load(tmp_path / "p.h5")
    assert torch.equal(loaded.log_prob(events, 3), posterior.log_prob(events, 3))
    assert torch.equal(loaded.sample(50, 2), posterior.sample(50, 2))
    config = posterior.model.preprocessing.config()
    assert from_config(config).config() == config and config["parts"][2]["parts"][0]["parts"][0]["fitted"]


def test_densities_are_per_unit_of_the_momenta():
    """The integral over momenta, by importance sampling with the events of another network, is one."""
    events = pg.events.read(SAMPLE)
    flow = pg.CouplingFlow(4, 2, (8,), "rqs", mixing="random", periodic=(3,))
    model = pg.BayesianFlow(flow, preprocessing=lepton_pair_coordinates("mass")).prepare(
        torch.tensor(events.values), dtype=torch.float64
    )
    torch.manual_seed(1)
    one, other = model.initial_theta, model.initial_theta + 0.1 * torch.randn_like(model.initial_theta)
    x = model.sample_events(one, 20_000)
    ratio = (model.log_prob(other, x) - model.log_prob(one, x)).exp()
    assert abs(float(ratio.mean()) - 1) < 5 * float(ratio.std()) / 20_000**0.5
    assert float(ratio.std()) > 0.05


def test_errors():
    with pytest.raises(ValueError, match="needs the 4 columns px_e\\+.*lepton_pair\\(sample\\)"):
        LeptonPair()(torch.ones(3, 6))
    with pytest.raises(ValueError, match="needs the 6 columns.*recoil=True"):
        RecoilingPair()(torch.ones(3, 4))
    with pytest.raises(ValueError, match="floating-point"):
        LeptonPair()(torch.ones(3, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match="coordinates is 'polar'"):
        LeptonPair("polar")
    with pytest.raises(ValueError, match="coordinates is 'polar'; it must be cartesian"):
        lepton_pair_coordinates("polar")
    with pytest.raises(ValueError, match="mass_low, energy is \\(50"):
        lepton_pair_coordinates("log-pt", mass_low=50.0)
    with pytest.raises(ValueError, match="lepton_mass is -1"):
        LeptonPair(lepton_mass=-1)
    with pytest.raises(ValueError, match="Columns has 1 bijections"):
        Columns([Probit()])(torch.rand(3, 2))
    with pytest.raises(ValueError, match="both location and scale"):
        Squash(location=1.0)
    assert isinstance(lepton_pair_coordinates("cartesian", circle=False), Standardise)
