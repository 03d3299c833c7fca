"""Where bijections are defined: density zero outside, an integral of one over all space, training events refused."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import pyrogen as pg
from pyrogen.events import (
    BeamLimit,
    Chain,
    Columns,
    Dequantise,
    Fixed,
    LeptonPair,
    Log,
    Positive,
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
RNG = np.random.default_rng(0)
MASSES = np.where(RNG.uniform(size=4000) < 0.8, RNG.normal(91, 3, 4000).clip(61), 60 * RNG.uniform(size=4000) ** -0.3)
PT = RNG.exponential(30.0, 1000)


class Reciprocal(Fixed):
    """u = 1/x on positive numbers: a bijection as a user writes it, without a word on its domain."""

    kind = "reciprocal of the tests"

    def forward(self, x):
        u = x.rsqrt().square()  # NaN below zero
        return u, 2 * u.log().sum(-1)

    def inverse(self, u):
        return 1 / u, -2 * u.log().sum(-1)


def log_density(bijection, x, base):
    u, log_jacobian = bijection(x)
    if base == "uniform":
        return torch.where(((u >= 0) & (u <= 1)).all(-1), 0.0, -torch.inf) + log_jacobian
    return torch.distributions.Normal(0.0, 1.0).log_prob(u).sum(-1) + log_jacobian


CHAINS = {  # bijection, base, range of the integral
    "unit box": (lambda: UnitBox(2.0, 5.0), "uniform", (-5, 12)),
    "unit box, normal": (lambda: UnitBox(2.0, 5.0), "normal", (-20, 30)),
    "unit box, probit": (lambda: Chain([UnitBox(2.0, 5.0), Probit()]), "normal", (-5, 12)),
    "probit": (Probit, "normal", (-3, 4)),
    "squash": (lambda: Squash(1.0, 2.0), "uniform", (-60, 60)),
    "squash, probit": (lambda: Chain([Squash(1.0, 2.0), Probit()]), "normal", (-60, 60)),
    "resonance": (lambda: Resonance(60.0).fit(MASSES[:, None]), "uniform", (1, 20_000)),
    "resonance, probit": (lambda: Chain([Resonance(60.0), Probit()]).fit(MASSES[:, None]), "normal", (1, 20_000)),
    "log": (lambda: Chain([Log(), Standardise()]).fit(PT[:, None]), "normal", (-50, 5000)),
    "positive": (lambda: Chain([Positive(), Standardise()]).fit(PT[:, None]), "normal", (-50, 500)),
    "above 20": (lambda: Chain([Positive(20.0), Standardise()]).fit(20 + PT[:, None]), "normal", (-50, 500)),
    "dequantise": (lambda: Chain([Dequantise(), UnitBox(-0.5, 9.5)]), "uniform", (-5, 12)),
    "a user's": (Reciprocal, "normal", None),
}


@pytest.mark.parametrize("name", CHAINS)
def test_the_integral_over_all_space_is_one(name):
    make, base, limits = CHAINS[name]
    if limits is None:  # p(x) = N(1/x) / x^2 for x > 0: the half of a normal that 1/x can be
        x, expected = torch.logspace(-1.2, 4, 200_001, dtype=torch.float64), 0.5
        x = torch.cat([-x.flip(0), x])
    else:
        x, expected = torch.linspace(*limits, 1_000_001, dtype=torch.float64), 1.0
    log_p = log_density(make(), x[:, None], base)
    assert not log_p.isnan().any()
    assert float(torch.trapezoid(log_p.exp(), x)) == pytest.approx(expected, abs=2e-3)


def test_the_integral_over_masses_and_rapidities_is_one():
    """Beam limit and resonance together, on a grid that reaches beyond all limits."""
    y = RNG.uniform(-0.9, 0.9, 4000) * np.log(2000 / MASSES)
    chain = Chain(
        [
            BeamLimit(2000.0),
            Columns([Chain([Resonance(60.0), Probit()]), Chain([UnitBox(-1.0, 1.0), Probit(), Standardise()])]),
        ]
    ).fit(np.column_stack([MASSES, y]))
    mass, rapidity = torch.linspace(20, 2500, 4001).double(), torch.linspace(-8, 8, 501).double()
    grid = torch.cartesian_prod(mass, rapidity)
    p = log_density(chain, grid, "normal").exp().reshape(4001, 501)
    assert float(torch.trapezoid(torch.trapezoid(p, rapidity), mass)) == pytest.approx(1, abs=1e-2)
    beyond = grid[:, 0] * grid[:, 1].abs().exp() > 2000
    assert (p.reshape(-1)[beyond] == 0).all() and (p.reshape(-1)[~beyond & (grid[:, 0] > 60)] > 0).all()


def test_the_integral_over_lepton_momenta_is_one():
    """By importance sampling from a model whose limits are wider than those of the one that is integrated."""
    events = pg.events.read(SAMPLE)
    p, q = pg.events.pair_momenta(events)
    keep = pg.events.kinematics.mass(p + q).numpy() > 62
    flow = pg.CouplingFlow(4, 2, (8,), "rqs", mixing="random", periodic=(3,))
    narrow, wide = (
        pg.BayesianFlow(flow, preprocessing=lepton_pair_coordinates("mass", mass_low=low, energy=energy)).prepare(
            torch.tensor(events[keep].values), dtype=torch.float64
        )
        for low, energy in ((62.0, 13_000.0), (20.0, 100_000.0))
    )
    torch.manual_seed(1)
    x = wide.sample_events(wide.initial_theta, 40_000)
    log_ratio = narrow.log_prob(narrow.initial_theta, x) - wide.log_prob(wide.initial_theta, x)
    ratio = log_ratio.exp()
    assert (ratio == 0).double().mean() > 0.01  # below the mass or beyond the energy
    assert abs(float(ratio.mean()) - 1) < 5 * float(ratio.std()) / 200


@pytest.mark.parametrize(
    ("bijection", "outside", "inside"),
    [
        (Probit(), [[1.5], [-0.1]], [[0.5], [0.0], [1.0]]),
        (Log(), [[0.0], [-1.0]], [[1e-30]]),
        (Positive(20.0).fit([[21.0], [50.0]]), [[20.0], [-5.0]], [[20.001], [1e6]]),
        (Resonance(60.0).fit(MASSES[:, None]), [[59.99], [0.0], [-3.0]], [[60.0], [1e4]]),
        (BeamLimit(100.0), [[101.0, 0.0], [50.0, 1.0], [0.0, 0.0], [-1.0, 0.0]], [[50.0, 0.5], [99.0, 0.0]]),
        (LeptonPair(), [[0.0, 0.0, 1.0, 2.0]], [[1e-3, 0.0, 1.0, 2.0]]),
        (LeptonPair("log-pt"), [[0.0, 0.0, 1.0, 2.0]], [[1e-3, 0.0, 1.0, 2.0]]),
        (RecoilingPair(), [[1.0, 0.0, 5.0, -1.0, 0.0, 2.0]], [[1.0, 0.0, 5.0, -1.1, 0.5, 2.0]]),
        (Reciprocal(), [[0.0], [-1.0]], [[2.0]]),
        (Chain([UnitBox(0.0, 2.0), Probit()]), [[-0.1], [2.1]], [[1.0]]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, torch.nn.Module) else "",
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_outside_has_no_density(bijection, outside, inside, dtype):
    u, log_jacobian = bijection(torch.tensor(outside, dtype=dtype))
    assert (log_jacobian == -torch.inf).all() and u.isfinite().all() and u.dtype == log_jacobian.dtype == dtype
    u, log_jacobian = bijection(torch.tensor(inside, dtype=dtype))
    assert log_jacobian.isfinite().all() and u.isfinite().all()
    with pytest.raises(
        ValueError, match=f"{len(outside)} of {len(outside) + 1} events are outside of .*; the first is row 1"
    ):
        bijection.check(torch.tensor([inside[0], *outside], dtype=dtype))


def test_outside_leaves_gradients_finite():
    """A query outside of the domain must not put a NaN into the gradient of the others."""
    model = pg.BayesianFlow(pg.CouplingFlow(1, 2, (4,), "rqs"), preprocessing=Chain([Log(), Standardise()])).prepare(
        torch.tensor(PT[:, None]).float()
    )
    theta = model.initial_theta.clone().requires_grad_()
    log_prob = model.log_prob(theta, torch.tensor([[-3.0], [10.0], [0.0]]))
    assert (log_prob[[0, 2]] == -torch.inf).all() and log_prob[1].isfinite()
    assert torch.autograd.grad(log_prob[1], theta)[0].isfinite().all()


def fit(preprocessing, events, flow=None, **more):
    model = pg.BayesianFlow(flow or pg.CouplingFlow(4, 1, (4,), "rqs"), preprocessing=preprocessing)
    return pg.SVI(epochs=1, batch_size=100, progress=False).fit(model, events, **more)


def test_training_events_outside_are_refused_by_name():
    events = pg.events.read(SAMPLE)
    with pytest.raises(
        ValueError,
        match=r"events are outside of BeamLimit; the first is row \d+, column \d \((M|y)\).*cannot exceed the "
        r"energy of the beams, 100 GeV, but reaches .*give the centre-of-mass energy",
    ):
        fit(lepton_pair_coordinates("mass", energy=100.0), events, pg.CouplingFlow(4, 1, (4,), "rqs"))
    values = events.values.copy()
    values[7, :2] = 0
    broken = pg.events.EventSample(values, events.names)
    for coordinates in ("mass", "log-pt"):
        with pytest.raises(
            ValueError, match=r"1 of \d+ events are outside of LeptonPair; the first is row 7, .*px = py = 0"
        ):
            fit(lepton_pair_coordinates(coordinates), broken)
    with pytest.raises(ValueError, match=r"masses of M begin at .* \(row \d+\).*lower limit low = 85: cut these"):
        fit(lepton_pair_coordinates("mass", mass_low=85.0), events)


def test_constants_given_beforehand_are_checked_with_every_backend():
    pt = pg.events.EventSample(np.column_stack([RNG.normal(size=1000), PT + 1]), ["eta", "pt"])
    limits = Columns([Standardise(), Chain([UnitBox(0.0, 100.0), Probit()])]).fit(pt[PT < 90])
    message = r"events are outside of Probit; the first is row \d+, column 0 \(pt\): 1\.\d+. Probit maps numbers in"
    for backend in (pg.HMC(chains=2, warmup=2, draws=2, progress=False), pg.Laplace(progress=False)):
        with pytest.raises(ValueError, match=message):
            backend.fit(pg.BayesianFlow(pg.CouplingFlow(2, 1, (4,)), preprocessing=limits), pt)
    with pytest.raises(ValueError, match=r"events are outside of Probit"):
        pg.SVI(epochs=1, progress=False).fit_many(
            pg.BayesianFlow(pg.CouplingFlow(2, 1, (4,)), preprocessing=limits), [pt.values, pt.values]
        )


@pytest.mark.parametrize(
    ("bijection", "message"),
    [
        (Log(), r"1 of 3 events are outside of Log; the first is row 1, column 1 \(x1\): 0. Only positive numbers"),
        (
            Positive(),
            r"outside of Positive; the first is row 1, column 1 \(x1\): 0. Positive maps numbers above its lower",
        ),
        (Chain([Standardise(), Log()]), r"outside of Log; the first is row 0, column 0"),
        (Columns([Standardise(), Log()]), r"1 of 3 events are outside of Log; the first is row 1, column 0 \(x1\): 0"),
        (Reciprocal(), r"1 of 3 events are outside of Reciprocal; the first is row 1, column 1 .*another bijection"),
    ],
)
def test_a_fit_checks_what_it_is_fitted_to(bijection, message):
    with pytest.raises(ValueError, match=message):
        bijection.fit([[1.0, 2.0], [3.0, 0.0], [2.0, 5.0]])


@pytest.mark.parametrize(
    "bijection", [Log(), Positive(), Positive(-3.0), Dequantise(4), Chain([Dequantise(), Standardise()])], ids=str
)
def test_new_elementwise_maps(bijection):
    x = torch.tensor(np.column_stack([PT, PT[::-1]]) + 1e-9).round(decimals=0).clamp(min=1)
    whole = bijection if bijection.fitted else bijection.fit(x)
    u, log_jacobian = whole(x)
    back, log_inverse = whole.inverse(u)
    assert torch.allclose(back, x, rtol=1e-12) and torch.allclose(log_jacobian, -log_inverse, atol=1e-9)
    slope = torch.func.vmap(torch.func.jacrev(lambda row: whole(row[None])[0][0]))(x[:100]).slogdet().logabsdet
    assert torch.allclose(slope, log_jacobian[:100], atol=1e-9)
    config = whole.config()
    assert from_config(config).config() == config and torch.equal(from_config(config)(x)[0], u)
    assert torch.equal(whole(x.float())[0].double().round(decimals=2), u.float().double().round(decimals=2))


def test_positive_far_from_its_limit():
    bijection = Positive().fit([[1.0], [3.0]])
    u = torch.tensor([[-700.0], [-50.0], [0.0], [50.0], [1e6]], dtype=torch.float64)
    x, log_slope = bijection.inverse(u)
    assert (x > 0).all() and torch.allclose(bijection(x)[0], u) and torch.allclose(bijection(x)[1], -log_slope)
    assert x[-1].item() == pytest.approx(2e6) and x[1].item() == pytest.approx(2 * math.exp(-50))  # linear, a logarithm
    assert (bijection.inverse(torch.full((1, 1), -1000.0))[0] > 0).all()
    assert Positive().fit([[1.0], [3.0]], [3.0, -1.0]).scale.tolist() == [1.5]  # (3 * 1 + 1 * 3) / 4
    with pytest.raises(ValueError, match="low is '3'"):
        Positive("3")
