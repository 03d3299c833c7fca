"""Coordinates of a lepton pair with jets, the hole around jets, and the weights and cuts for it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from padded import check_padded

import pyrogen as pg
from pyrogen.events import (
    Chain,
    EventSample,
    LeptonsAndJets,
    Multiplicity,
    PowerLaw,
    Probit,
    jet_coordinates,
    separated_jets,
    separation_weights,
)
from pyrogen.events.bijection import from_config
from pyrogen.events.holes import arcs_of, close_arcs, open_arcs, rapidity, separations, wrapped

LAYOUT = Multiplicity(6, 4, 3)


def make_events(n=900, seed=3, radius=0.4):
    """Events of the right form: a resonance that recoils against jets, with a third of each number of jets."""
    rng = np.random.default_rng(seed)
    m = 20 * n
    mass, y, qt = 91 + 1.2 * rng.standard_t(2, m).clip(-20, 20), rng.normal(0, 1.3, m), 10 + rng.gamma(2, 15, m)
    angles = np.column_stack([mass, y, np.log(qt), rng.uniform(-np.pi, np.pi, m), rng.normal(0, 0.8, m)])
    u = np.column_stack([angles, rng.uniform(-np.pi, np.pi, m)])
    p = pg.events.RecoilingPair().inverse(torch.tensor(u))[0].reshape(m, 2, 3).numpy()
    pt = np.hypot(p[..., 0], p[..., 1])
    leptons = np.stack([pt, np.arcsinh(p[..., 2] / pt), np.arctan2(p[..., 1], p[..., 0])], -1).reshape(m, 6)
    jet_pt = -np.sort(-(20 + 25 * rng.pareto(3, (m, 3))), axis=1)
    jet_mass = jet_pt * (0.05 + rng.normal(0.4, 0.08, (m, 3)).clip(0.1) ** 2)
    jets = np.stack([jet_pt, rng.normal(0, 1.5, (m, 3)), rng.uniform(-np.pi, np.pi, (m, 3)), jet_mass], -1)
    x = torch.tensor(np.column_stack([leptons, jets.reshape(m, 12)]))
    near = torch.cat(separations(*x[:, 6:].unflatten(-1, (3, 4)).unbind(-1)), -1)
    x = x[(near > radius).all(-1)][:n].clone()
    counts = 1 + torch.arange(n) % 3
    x[torch.arange(18) >= 6 + 4 * counts[:, None]] = torch.nan
    return x


def on_the_edges():
    """Rows next to what is allowed: the cut, equal momenta, azimuths of pi, jets that touch, a jet of one pion."""
    x = make_events(9)[[2, 5, 8]].repeat(2, 1)
    x[0, 6], x[0, 10], x[0, 14] = 20.001, 20.001, 20.001
    x[1, 2], x[1, 5], x[1, 8] = math.pi, -math.pi, math.pi
    x[2, 9], x[2, 13] = 0.13498, 1e-6
    for row, (dy, dphi) in ((3, (0.0, 0.4001)), (4, (0.39, 0.09)), (5, (-0.1, -0.39))):
        y = rapidity(x[row, 6], x[row, 7], x[row, 9])[0] + dy
        mt = torch.hypot(x[row, 10], x[row, 13])
        x[row, 11] = torch.asinh(mt * torch.sinh(y) / x[row, 10])
        x[row, 12] = wrapped(x[row, 8] + dphi)
        x[row, 15] = -x[row, 7] + 1
    return x


@pytest.mark.parametrize("circle", [True, False])
@pytest.mark.parametrize("kind", ["paper", "resonance"])
def test_contract(kind, circle):
    x = make_events()
    coordinates = jet_coordinates(kind, circle=circle)
    assert not coordinates.preprocessing.fitted
    check_padded(coordinates.preprocessing.fit(x), x[:240], tolerance=1e-7, single=2e-3)
    u = coordinates.preprocessing(x)[0]
    for column in (*coordinates.periodic, *coordinates.uniform):
        assert (u[:, column].nan_to_num(0.5) - 0.5).abs().max() <= 0.5


@pytest.mark.parametrize(
    "options", [{"kind": "paper", "radius": 0.0}, {}, {"radius": 0.0}, {"lepton_mass": 0.1}, {"polar": 2}]
)
def test_the_physical_map_on_the_edges(options):
    rows = LeptonsAndJets(**options)
    x = on_the_edges()
    u, log_jacobian = rows(x)
    assert log_jacobian.isfinite().all()
    back, inverse = rows.inverse(u)
    # The same direction: pi is -pi.
    for column in (2, 5, 8, 12, 16):
        assert wrapped(back[:, column] - x[:, column]).abs().max() < 1e-7
        back[:, column] = x[:, column]
    torch.testing.assert_close(back, x, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(inverse, -log_jacobian, rtol=1e-7, atol=1e-7)
    single = rows(x.float())[1]
    torch.testing.assert_close(single.double(), log_jacobian, rtol=1e-3, atol=5e-2)


def test_fewer_jets_and_none():
    x = make_events()
    few = x[LAYOUT.counts(x) < 3][:, :14]
    none = few.clone()
    none[::3, 6:] = torch.nan
    for kind in ("paper", "resonance"):
        check_padded(jet_coordinates(kind, most=2).preprocessing.fit(few), few[:100], 1e-7, 2e-3)
        check_padded(jet_coordinates(kind, most=2, least=0).preprocessing.fit(none), none[:100], 1e-7, 2e-3)


def test_what_the_coordinates_are():
    x = make_events(300)
    u = LeptonsAndJets("resonance", radius=0.0)(x)[0]
    pair = four_vector(x[:, :3]) + four_vector(x[:, 3:6])
    mass = (pair[:, 0] ** 2 - (pair[:, 1:] ** 2).sum(1)).sqrt()
    torch.testing.assert_close(u[:, 0], mass, rtol=1e-9, atol=0)
    torch.testing.assert_close(u[:, 2], torch.hypot(pair[:, 1], pair[:, 2]).log(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(u[:, 3], torch.atan2(pair[:, 2], pair[:, 1]) / (2 * math.pi) + 0.5, rtol=0, atol=1e-9)
    three = LAYOUT.counts(x) == 3
    pt, eta, phi, jet_mass = x[three, 6:].unflatten(-1, (3, 4)).unbind(-1)
    y = rapidity(pt, eta, jet_mass)[0]
    jets = u[three, 6:].unflatten(-1, (3, 4))
    torch.testing.assert_close(jets[:, 0, 0], pt[:, 0])
    torch.testing.assert_close(jets[:, 1:, 0], (pt[:, 1:] - 20) / (pt[:, :-1] - 20))
    torch.testing.assert_close(jets[:, 1:, 1], y[:, 1:] - y[:, :1])
    torch.testing.assert_close(jets[:, 1:, 2], wrapped(phi[:, 1:] - phi[:, :1]) / (2 * math.pi) + 0.5)
    paper = LeptonsAndJets("paper", circle=False, radius=0.0)(x)[0]
    share = wrapped(x[:, 5] - x[:, 2]) / math.pi
    torch.testing.assert_close(paper[:, 5], torch.atanh(share))
    torch.testing.assert_close(paper[three, 6], (pt[:, 0] - 20).log())


def four_vector(lepton):
    pt, eta, phi = lepton.unbind(-1)
    return torch.stack([pt * eta.cosh(), pt * phi.cos(), pt * phi.sin(), pt * eta.sinh()], -1)


def test_everything_but_the_first_azimuth_keeps_when_the_event_is_turned():
    x = make_events(300)
    turned = x.clone()
    for column in (2, 5, 8, 12, 16):
        turned[:, column] = wrapped(x[:, column] + 1.7)
    for kind, (azimuth,) in (("paper", (2,)), ("resonance", (3,))):
        preprocessing = jet_coordinates(kind).preprocessing.fit(x)
        u, v = (preprocessing(rows) for rows in (x, turned))
        difference = (u[0] - v[0]).nan_to_num(0.0)
        assert wrapped(2 * math.pi * difference[:, azimuth] + 1.7).abs().max() < 1e-9
        difference[:, azimuth] = 0
        circle = torch.tensor([column in jet_coordinates(kind).periodic for column in range(18)])
        difference = torch.where(circle, difference - difference.round(), difference)
        assert difference.abs().max() < 1e-6
        torch.testing.assert_close(u[1], v[1], rtol=1e-9, atol=1e-9)


def test_generated_jets_are_ordered_and_apart():
    coordinates = jet_coordinates("resonance")
    coordinates.preprocessing.fit(make_events())
    u = torch.randn(20_000, 18, dtype=torch.float64)
    turns = [*coordinates.periodic, *coordinates.uniform]
    u[:, turns] = torch.rand(20_000, len(turns), dtype=torch.float64)
    # Close to the holes in rapidity, too.
    u[:10_000, [11, 15]] *= 0.1
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        x = coordinates.preprocessing.inverse(u.to(dtype))[0].double()
        assert x.isfinite().all() and (x[:, 6] >= x[:, 10]).all() and (x[:, 10] >= x[:, 14]).all()
        assert (x[:, 14] > 20).all() and (x[:, [9, 13, 17]] > 0).all()
        nearest = torch.cat(separations(*x[:, 6:].unflatten(-1, (3, 4)).unbind(-1)), -1).amin()
        assert 0.4 - tolerance < nearest < 0.41  # up to the edge
    free = jet_coordinates("resonance", radius=0).preprocessing.fit(make_events(radius=0.0))
    assert separated_jets(free.inverse(u)[0]).total < 0.99


def test_the_holes_close_exactly():
    """On a grid around two jets: onto the whole circle, one to one, also where the discs overlap or touch the edges."""
    radius = 0.4
    azimuth = torch.linspace(-math.pi, math.pi, 4001, dtype=torch.float64)[:-1]
    first = (torch.tensor(0.0).double(), torch.tensor(0.0).double())
    for second in ((0.0, 0.5), (0.3, 0.3), (-0.2, -0.75), (0.0, 3.0), (0.1, -3.1), (0.0, 0.81), (2.0, 1.0)):
        center = tuple(torch.tensor(value).double() for value in second)
        for y in (-0.5, -0.4, -0.3, -1e-9, 0.0, 0.15, 0.3, 0.39999, 0.4, 0.6):
            arcs = arcs_of(torch.full_like(azimuth, y), [first, center], radius)
            distance = [torch.hypot(y - a, wrapped(azimuth - b)) for a, b in (first, center)]
            free = (distance[0] >= radius) & (distance[1] >= radius)
            closed, log_slope = close_arcs(azimuth, arcs)
            back, inverse = open_arcs(closed[free], [(a[free], b[free]) for a, b in arcs])
            assert wrapped(back - azimuth[free]).abs().max() < 1e-9
            torch.testing.assert_close(inverse, -log_slope[free])
            # One to one and onto: around the circle the order stays, and allowed steps sum up to one turn.
            turn = wrapped(closed.roll(-1) - closed)
            assert (turn > -1e-12).all() and turn.sum().item() == pytest.approx(2 * math.pi, abs=1e-9)
            inner = ~free & ~free.roll(-1)
            assert turn[inner].abs().sum() < 1e-9
            # What comes back is allowed, whatever the network gives.
            opened = open_arcs(azimuth, arcs)[0]
            for a, b in (first, center):
                assert torch.hypot(y - a, wrapped(opened - b)).min() > radius - 1e-9


def test_the_edge_and_the_opposite_point():
    zero = torch.zeros(3).double()
    arcs = arcs_of(zero, [(zero, zero)], 0.4)
    azimuth = torch.tensor([0.4, -0.4, -math.pi], dtype=torch.float64)
    closed, log_slope = close_arcs(azimuth, arcs)
    assert wrapped(closed - torch.tensor([0.0, 0.0, math.pi], dtype=torch.float64)).abs().max() < 1e-12
    torch.testing.assert_close(log_slope, torch.full_like(zero, math.log(math.pi / (math.pi - 0.4))))


def test_the_whole_density_integrates_to_one():
    """A third jet that is uniform in the closed azimuth and in rapidity: its density over the allowed plane."""
    x = make_events(3)[2:].clone()
    x[:, [7, 8, 11, 12]] = torch.tensor([0.2, 3.0, 0.5, -2.9]).double()  # discs that overlap, across pi
    rows = LeptonsAndJets()
    eta, phi = torch.linspace(-1, 1.5, 500).double(), (torch.arange(500).double() + 0.5) / 500 * 2 * math.pi - math.pi
    grid = torch.cartesian_prod(eta, phi)
    events = x.repeat(len(grid), 1)
    events[:, 15], events[:, 16] = grid[:, 0], grid[:, 1]
    u, log_jacobian = rows(events)
    rest = rows(events[:1])[1] - jet_terms(rows, events[:1])
    terms = (log_jacobian - rest).exp().reshape(500, 500)
    length = torch.trapezoid(terms.sum(1) * (2 * math.pi / 500), eta)
    low, high = (rapidity(events[0, 14], torch.tensor(value).double(), events[0, 17])[0] for value in (-1.0, 1.5))
    assert length.item() == pytest.approx(float(high - low), rel=2e-3)


def jet_terms(rows, x):
    """The terms of rapidity and azimuth of the last jet in the log-Jacobian."""
    terms = rows.map(x, rows.layout.counts(x))[1]
    return terms[:, 15:17].sum(-1)


def test_the_power_law_is_fitted():
    generator = np.random.default_rng(5)
    truth = 20 + 30 * generator.pareto(4.0, 40_000)
    fitted = PowerLaw(20.0).fit(truth)
    # The error of the power is about power (power + 1) / sqrt(N) of a Lomax fit, 0.1, strongly correlated with scale.
    assert fitted.power.item() == pytest.approx(4.0, abs=0.5) and fitted.scale.item() == pytest.approx(30.0, rel=0.15)
    x = torch.tensor(truth[:100, None])
    u, log_jacobian = fitted(x)
    torch.testing.assert_close(fitted.inverse(u)[0], x, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(fitted.inverse(u)[1], -log_jacobian, rtol=1e-9, atol=1e-9)
    slope = torch.autograd.functional.jacobian(lambda x: fitted(x)[0].sum(), x)
    torch.testing.assert_close(log_jacobian.exp(), slope[:, 0].abs())
    edge = torch.tensor([[20.0], [19.0], [20.0 + 1e-9]], dtype=torch.float64)
    assert fitted(edge)[1].isfinite().tolist() == [False, False, True]
    for dtype in (torch.float32, torch.float64):
        assert (fitted.inverse(torch.tensor([[0.0], [1.0]], dtype=dtype))[0] > 20).all()
    counts = np.histogram(fitted(torch.tensor(truth[:, None]))[0].numpy(), 10, (0, 1))[0]
    assert np.abs(counts - 4000).max() < 5 * math.sqrt(4000)
    # Weights count as events do, negative ones not at all.
    doubled = PowerLaw(20.0).fit(np.concatenate([truth[:500], truth[:250]]))
    weights = np.where(np.arange(501) < 250, 2.0, 1.0)
    weights[-1] = -1.0
    weighted = PowerLaw(20.0).fit(np.append(truth[:500], 900.0), weights)
    for name in ("scale", "power"):
        assert getattr(weighted, name).item() == pytest.approx(getattr(doubled, name).item(), rel=1e-3)
    rebuilt = from_config(json.loads(json.dumps(Chain([fitted, Probit()]).config())))
    assert torch.equal(rebuilt(x)[0], Probit()(u)[0])
    with pytest.raises(ValueError, match=r"the first is row 1, column 0 \(x0\): 19. PowerLaw maps numbers above"):
        PowerLaw(20.0).fit([21.0, 19.0])
    with pytest.raises(ValueError, match="there is no spectrum to fit"):
        PowerLaw(20.0).fit([21.0, 21.0])


def test_events_that_do_not_fit_are_named():
    rows = LeptonsAndJets()
    names = rows.renamed([""] * 18)
    for column, value, label in (
        (0, -1.0, "log|M"),
        (2, 4.0, r"column 2"),
        (6, 19.0, r"column 6 \(pT_j1\): 19"),
        (10, 500.0, r"column 10 \(pT_j2\): 500"),
        (9, 0.0, r"column 9 \(m_j1\): 0"),
        (16, -4.0, r"column 16 \(dphi_j3\): -4"),
    ):
        x = make_events(30)
        x[5, column] = value
        with pytest.raises(ValueError, match=f"1 of 30 events .* the first is row 5, .*{label}"):
            rows.check(x, names)
    x = make_events(30)
    x[5, 11:13] = x[5, 7:9] + 0.1
    with pytest.raises(ValueError, match=r"row 5, column 12 \(dphi_j2\).*farther apart than radius = 0.4"):
        rows.check(x, names)
    LeptonsAndJets(radius=0.0).check(x)
    with pytest.raises(ValueError, match="rows of 18 columns"):
        rows(x[:, :14])
    for options, message in (
        ({"kind": "mass"}, "kind is 'mass'; it must be one of paper, resonance"),
        ({"kind": "paper", "radius": 0.4}, "radius is 0.4; it must be None for the coordinates of the paper"),
        ({"kind": "paper", "mass_low": 50.0}, "mass_low is 50.0; it must be None"),
        ({"radius": 1.6}, "radius is 1.6; it must be less than 1.5"),
        ({"most": 0}, "most is 0"),
        ({"least": 4}, "least is 4; it must be at most most = 3"),
    ):
        with pytest.raises(ValueError, match=message):
            jet_coordinates(**options)


def test_rejection_and_its_efficiency():
    x = make_events(300, radius=0.0)
    expected = []
    for row in x:
        n = int(LAYOUT.counts(row))
        pt, eta, phi, mass = row[6 : 6 + 4 * n].unflatten(-1, (n, 4)).unbind(-1)
        y = rapidity(pt, eta, mass)[0]
        far = [math.hypot(y[i] - y[j], wrapped(phi[i] - phi[j])) >= 0.4 for i in range(n) for j in range(i)]
        expected.append(all(far))
    found = separated_jets(x)
    assert found.keep.tolist() == expected and not all(expected)
    counts = LAYOUT.counts(x).numpy()
    assert found.efficiency == {n: pytest.approx(np.mean(found.keep[counts == n])) for n in (1, 2, 3)}
    assert found.efficiency[1] == 1.0 and found.total == pytest.approx(np.mean(expected))
    weights = np.random.default_rng(1).uniform(0.5, 2, 300)
    weighted = separated_jets(EventSample(x, weights=weights, multiplicity=LAYOUT))
    assert weighted.total == pytest.approx(np.average(expected, weights=weights))
    assert separated_jets(x[:, :10][counts == 1]).total == 1.0


def test_weights_that_soften_the_edge():
    x = make_events(300, radius=0.0)
    deltas = separations(*x[:, 6:].unflatten(-1, (3, 4)).unbind(-1))
    pairs = torch.cat(deltas, -1)
    factor = ((pairs - 0.4) / 0.6).clamp(0, 1).nan_to_num(1.0)
    weights = separation_weights(x, 0.4, 1.0)
    np.testing.assert_allclose(weights, factor.prod(-1).numpy(), rtol=1e-12)
    assert (weights == 0).any() and (weights == 1).any() and ((weights > 0) & (weights < 1)).any()
    assert (weights[LAYOUT.counts(x).numpy() == 1] == 1).all()
    with pytest.raises(ValueError, match="low is 1.0; it must be below high = 0.5"):
        separation_weights(x, 1.0, 0.5)


def test_a_model_learns_and_generates_in_these_coordinates():
    x = make_events(300)
    for kind, polar in (("paper", 0), ("resonance", 0), ("resonance", 1)):
        coordinates = jet_coordinates(kind, polar=polar)
        flow = pg.MultiplicityFlow(
            **coordinates.layout.config(),
            blocks=2,
            hidden=(8,),
            transform="rqs",
            bins=4,
            periodic=coordinates.periodic,
            uniform=coordinates.uniform,
        )
        model = pg.BayesianFlow(flow, preprocessing=coordinates.preprocessing)
        posterior = pg.SVI(epochs=2, batch_size=100, progress=False).fit(model, EventSample(x, multiplicity=LAYOUT))
        assert torch.as_tensor(posterior.log_prob(x, draws=2)).isfinite().all()
        generated = torch.as_tensor(posterior.sample(200))
        assert generated[:, :10].isfinite().all() and (generated[:, 6] > 20).all()
        if kind == "resonance":
            assert separated_jets(generated.double(), 0.4 - 1e-5).total == 1.0
