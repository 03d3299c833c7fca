"""Places of jets by distance and direction from the leading one: exact, onto all that is allowed, and nothing else."""

from __future__ import annotations

import math

import pytest
import torch
from padded import check_padded
from test_jet_variables import LAYOUT, make_events

from pyrogen.events import LeptonsAndJets, jet_coordinates
from pyrogen.events.bijection import from_config
from pyrogen.events.holes import rapidity, separations, wrapped
from pyrogen.events.polar import Directions, close_holes, directions, open_holes

RADIUS = 0.4
PLACES = ((0.5, 0.1), (-0.1, -3.0), (3.4, 1.0), (-0.5, 3.1), (0.0, 0.45), (-5.0, -2.9))
"""Of a second jet: near, at pi, where directions beyond pi are closed, near pi and on the axis, and far."""


def events_with(most, radius=RADIUS):
    """Events of all numbers of jets up to ``most``: those of make_events, and a fourth jet beside the third."""
    x = make_events(900, radius=radius)
    counts = LAYOUT.counts(x)
    if most < 4:
        return x[counts <= most][:, : 6 + 4 * most]
    fourth = torch.full((len(x), 4), torch.nan, dtype=x.dtype)
    rows = (counts == 3) & (torch.arange(len(x)) % 2 == 0)
    fourth[rows] = x[rows, 14:]
    fourth[rows, 0] = 20 + (x[rows, 14] - 20) * torch.linspace(0.1, 0.9, int(rows.sum()), dtype=x.dtype)
    fourth[rows, 2] = wrapped(x[rows, 16] + radius + 0.2)
    x = torch.cat([x, fourth], 1)
    near = torch.cat(separations(*jets(x)), -1).nan_to_num(9.0)
    return x[(near > radius).all(-1)]


def jets(x):
    """Transverse momenta, pseudorapidities, azimuths and masses, ``[N, most]`` each."""
    return x[:, 6:].unflatten(-1, (-1, 4)).unbind(-1)


@pytest.mark.parametrize(
    ("most", "polar", "options"),
    [(2, 1, {}), (3, 1, {}), (4, 3, {}), (3, 2, {"radius": 0.0, "circle": False}), (4, 2, {"radius": 1.2})],
)
def test_contract(most, polar, options):
    x = events_with(most, options.get("radius", RADIUS))
    coordinates = jet_coordinates("resonance", most=most, polar=polar, **options)
    rows = torch.cat([x[coordinates.layout.counts(x) == n][:40] for n in coordinates.layout.numbers])
    check_padded(coordinates.preprocessing.fit(x), rows, tolerance=1e-7, single=2e-3)


def everywhere(distance, places):
    """A grid of directions, the closed ones, and whether each direction is allowed."""
    grid = torch.linspace(-math.pi, math.pi, 4001, dtype=torch.float64)[:-1]
    earlier = [tuple(torch.full_like(grid, value) for value in place) for place in places]
    circle = directions(torch.full_like(grid, distance), earlier, RADIUS)
    return grid, circle, allowed(distance, grid, places)


def allowed(distance, direction, places, radius=RADIUS):
    y, azimuth = distance * direction.cos(), distance * direction.sin()
    free = azimuth.abs() <= math.pi
    for its_y, its_azimuth in places:
        free = free & (torch.hypot(y - its_y, wrapped(azimuth - its_azimuth)) >= radius)
    return free


@pytest.mark.parametrize(
    "places", [(), *((place,) for place in PLACES), PLACES[:2], PLACES[2:4], ((0.5, 0.1), (-0.5, -0.1)), PLACES]
)
def test_directions_close_exactly(places):
    """One to one and onto the whole circle, evenly stretched, whatever arcs cover; what comes back is allowed."""
    for distance in (0.4001, 0.5, 0.7, 3.0, math.pi, 3.2, 3.6, 5.9, 12.0):
        grid, circle, free = everywhere(distance, places)
        closed = circle.close(grid)
        assert wrapped(circle.open(closed)[free] - grid[free]).abs().max() < 1e-9
        turn = wrapped(closed.roll(-1) - closed)
        assert (turn > -1e-12).all() and turn.sum().item() == pytest.approx(2 * math.pi, abs=1e-9)
        assert turn[~free & ~free.roll(-1)].abs().sum() < 1e-9
        # Steps on the grid miss at most one cell on each side of an arc.
        assert circle.stretch[0].item() == pytest.approx(1 / free.double().mean().item(), rel=0.02)
        both = free & free.roll(-1)
        step = 2 * math.pi / len(grid) * circle.stretch[0].item()
        inner = both & (turn < 1.5 * step)  # an arc may be thinner than a step
        torch.testing.assert_close(turn[inner], torch.full_like(turn[inner], step), rtol=1e-6, atol=1e-9)
        assert inner.sum() > 0.98 * both.sum()
        for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
            earlier = [tuple(torch.full_like(grid, value, dtype=dtype) for value in place) for place in places]
            again = directions(torch.full_like(grid, distance, dtype=dtype), earlier, RADIUS)
            around = grid.to(dtype)
            around[:3] = again.anchor[:3]  # which an arc can be over
            around[1] = torch.nextafter(around[1], around[1] + 1)
            around[2] = torch.nextafter(around[2], around[2] - 1)
            opened = again.open(around).double()
            assert ((distance * opened.sin()).abs() <= math.pi + tolerance).all()
            assert allowed(distance, opened, places, RADIUS - tolerance)[distance * opened.sin().abs() < math.pi].all()


def test_nothing_left_gives_finite_numbers():
    anchor = torch.zeros(5, dtype=torch.float64)
    arcs = [(anchor + center, anchor + 1.6) for center in (0.0, 1.6, 3.2, 4.8)]
    circle = Directions(arcs, anchor)
    direction = torch.linspace(-3, 3, 5, dtype=torch.float64)
    assert circle.stretch.log().isfinite().all()
    assert circle.close(direction).isfinite().all() and circle.open(direction).isfinite().all()
    # Six jets: four discs leave no direction. What comes out anyway has no density.
    places = [(1.1 * RADIUS * math.cos(a), 1.1 * RADIUS * math.sin(a)) for a in (0.0, math.pi / 2, math.pi, -1.57)]
    free = everywhere(1.2 * RADIUS, places)[2]
    assert not free.any()
    y, azimuth = (torch.tensor([[0.0, *(place[i] for place in places), 0.0]]).double() for i in (0, 1))
    distance, direction, _ = close_holes(y, azimuth, RADIUS, 9)
    distance[:, -1] = 1.2 * RADIUS
    back = open_holes(distance, direction, RADIUS, 9)
    assert all(part.isfinite().all() for part in back)
    assert torch.hypot(back[0][0, 1:5] - back[0][0, 5], back[1][0, 1:5] - back[1][0, 5]).min() < RADIUS


@pytest.mark.parametrize("place", PLACES[:4])
def test_the_density_integrates_to_one(place):
    """Uniform in Delta R up to 4.5 and in the closed direction: the density of rapidity and azimuth over the plane."""
    n, reach = 600, 4.5
    y = (torch.arange(n).double() + 0.5) / n * 2 * reach - reach
    azimuth = (torch.arange(n).double() + 0.5) / n * 2 * math.pi - math.pi
    grid = torch.cartesian_prod(y, azimuth)
    free = torch.hypot(grid[:, 0] - place[0], wrapped(grid[:, 1] - place[1])) >= RADIUS
    free &= (torch.hypot(*grid.T) >= RADIUS) & (torch.hypot(*grid.T) < reach)
    columns = [torch.stack([torch.zeros(n * n), torch.full((n * n,), place[i]), grid[:, i]], -1) for i in (0, 1)]
    terms = close_holes(*columns, RADIUS, 2)[2][:, 2]
    total = terms[free].exp().sum() * (2 * reach / n) * (2 * math.pi / n) / (2 * math.pi) / (reach - RADIUS)
    # A cell is 0.015 wide: the edges of the discs and of the circle make an error of some per mille.
    assert total.item() == pytest.approx(1, abs=5e-3)


@pytest.mark.parametrize("polar", [1, 3])
def test_generated_jets_are_ordered_and_apart(polar):
    x = events_with(4)
    coordinates = jet_coordinates("resonance", most=4, polar=polar)
    coordinates.preprocessing.fit(x)
    generator = torch.Generator().manual_seed(5)
    u = torch.randn(5_000, 22, dtype=torch.float64, generator=generator)
    turns = [*coordinates.periodic, *coordinates.uniform]
    u[:, turns] = torch.rand(5_000, len(turns), dtype=torch.float64, generator=generator)
    u[:3_000, [11, 15, 19]] = 0.2 * u[:3_000, [11, 15, 19]] - 1.5  # all near the leading jet
    u[:100, 11] = -40.0  # onto the edge
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        new, log_jacobian = coordinates.preprocessing.inverse(u.to(dtype))
        assert new.isfinite().all() and log_jacobian.isfinite().all()
        assert (new[:, [6, 10, 14]] >= new[:, [10, 14, 18]]).all() and (new[:, [8, 12, 16, 20]].abs() <= 3.1416).all()
        deltas = separations(*jets(new.double()))
        assert min(delta.min() for delta in deltas) > RADIUS - tolerance
        assert deltas[0].min() < RADIUS + 1e-6 and deltas[1].min() < RADIUS + 0.02  # up to the edges
        # Back, also from the edge, where rounding leads to either side.
        inside = coordinates.preprocessing(new)[1].isfinite()
        assert inside[100:].double().mean() > 0.999 and inside[:100].double().mean() > 0.9


def test_there_and_back_from_the_other_side():
    """All of the plane of distances and directions is reached: what is opened is closed again to the same numbers."""
    generator = torch.Generator().manual_seed(6)
    distance = RADIUS + 3 * torch.rand(20_000, 4, generator=generator, dtype=torch.float64) ** 2
    distance[10_000:] *= 2
    direction = 2 * math.pi * torch.rand(20_000, 4, generator=generator, dtype=torch.float64) - math.pi
    y, azimuth, terms = open_holes(distance, direction, RADIUS, 9)
    assert (azimuth[:, 1:].abs() <= math.pi).all()
    again = close_holes(y, azimuth, RADIUS, 9)
    torch.testing.assert_close(again[0][:, 1:], distance[:, 1:], rtol=1e-12, atol=1e-12)
    assert wrapped(again[1] - direction).abs().max() < 1e-5  # the root of the precision where a disc is just touched
    assert wrapped(again[1] - direction).abs().median() < 1e-14
    torch.testing.assert_close(again[2], -terms, rtol=1e-5, atol=1e-5)
    assert torch.equal(y[:, 0], distance[:, 0]) and torch.equal(azimuth[:, 0], direction[:, 0])


def test_what_the_coordinates_are():
    x = make_events(300)
    rows = LeptonsAndJets(polar=1)
    assert rows.renamed([""] * 18)[7::4] == ["y_j1", "dR_j2", "y_j3"]
    assert rows.renamed([""] * 18)[8::4] == ["dphi_j1", "theta_j2", "dphi_j3"]
    u, plain = rows(x)[0], LeptonsAndJets(radius=0.0)(x)[0]
    assert torch.equal(u[:, :10], plain[:, :10])
    assert torch.equal(u[:, 14:].nan_to_num(), LeptonsAndJets()(x)[0][:, 14:].nan_to_num())  # closed as without it
    two = LAYOUT.counts(x) >= 2
    pt, eta, phi, mass = jets(x[two])
    y = rapidity(pt, eta, mass)[0]
    dy, dphi = y[:, 1] - y[:, 0], wrapped(phi[:, 1] - phi[:, 0])
    torch.testing.assert_close(u[two, 11], torch.hypot(dy, dphi))
    near = u[two, 11] < math.pi  # no arc is closed
    theta = torch.atan2(dphi, dy) / (2 * math.pi) + 0.5
    torch.testing.assert_close(u[two, 12][near], theta[near])
    assert not torch.allclose(u[two, 12][~near], theta[~near])


def test_options_and_old_files():
    with pytest.raises(ValueError, match="polar is 1; it must be 0 for the coordinates of the paper"):
        jet_coordinates("paper", polar=1)
    x = make_events(300)
    for polar in (0, 1, 2):
        rows = LeptonsAndJets(polar=polar)
        config = rows.config()
        assert torch.equal(from_config(config)(x)[1], rows(x)[1])
        del config["polar"]  # a file of a version without it
        assert torch.equal(from_config(config)(x)[1], LeptonsAndJets()(x)[1])
