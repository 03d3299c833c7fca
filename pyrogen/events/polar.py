"""Coordinates of jets around the leading one, without the holes that the jets leave around each other.

A jet has a place ``(dy, dphi)``, rapidity and azimuth relative to the leading one. Either the arcs of azimuth that are
not allowed at its rapidity are closed, or the place is told by distance and direction,
``(dy, dphi) = Delta R (cos(theta), sin(theta))``. Then arcs of theta are closed at its Delta R: those with
``|dphi| > pi``, and those in the discs of the jets between, and in the images of these discs a turn away.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from .holes import Arc, arcs_of, close_arcs, open_arcs
from .kinematics import wrapped

TURN = 2 * math.pi
Place = tuple[Tensor, Tensor]
"""Rapidity and azimuth relative to the leading jet."""


class Directions:
    """The circle of directions at a distance, without arcs; arcs may overlap and cover each other.

    The arcs are closed to points, and the rest is stretched evenly to a whole turn, so the log-derivative is
    ``log(2 pi / what is left)``. The direction ``anchor`` stays. (Where nothing is left, no direction is allowed. The
    map then gives directions that are not, and finite numbers.)

    Args:
        arcs: centre and half the width of each.
        anchor: a direction.
    """

    def __init__(self, arcs: Iterable[Arc], anchor: Tensor) -> None:
        self.anchor = anchor
        centers, halves = (torch.stack(list(parts), -1) for parts in zip(*arcs, strict=True))
        low = torch.remainder(centers - halves - anchor[..., None], TURN)
        high = low + 2 * halves
        turn = torch.full_like(low, TURN)
        # An arc over the anchor is two: from the anchor on, and up to it.
        starts = torch.cat([low, torch.zeros_like(low)], -1)
        ends = torch.cat([torch.minimum(high, turn), torch.relu(high - turn)], -1)
        starts, order = starts.sort(-1)
        ends = torch.take_along_dim(ends, order, -1).cummax(-1).values
        self.starts = torch.maximum(starts, torch.nn.functional.pad(ends[..., :-1], (1, 0)))  # where those before end
        self.widths = torch.relu(ends - self.starts)
        self.edges = self.starts - (self.widths.cumsum(-1) - self.widths)
        """The points that the arcs are closed to, before the stretch."""
        left = TURN - self.widths.sum(-1)
        self.stretch = TURN / left.clamp(min=torch.finfo(left.dtype).eps)
        up_to_the_anchor = torch.where(ends >= TURN - 4 * torch.finfo(ends.dtype).eps, self.edges, TURN)
        self.last = torch.minimum(up_to_the_anchor.amin(-1), left)

    def close(self, direction: Tensor) -> Tensor:
        """Directions with the arcs closed; those in an arc come to its point."""
        away = torch.remainder(direction - self.anchor, TURN)
        within = torch.minimum(torch.relu(away[..., None] - self.starts), self.widths)
        return wrapped(self.anchor + (away - within.sum(-1)) * self.stretch)

    def open(self, direction: Tensor) -> Tensor:
        """The inverse of :meth:`close`."""
        away = torch.remainder(direction - self.anchor, TURN) / self.stretch
        away = torch.minimum(away, self.last)
        behind = (away[..., None] > self.edges) | (self.starts <= 0)
        return wrapped(self.anchor + away + torch.where(behind, self.widths, 0.0).sum(-1))


def directions(distance: Tensor, earlier: Sequence[Place], radius: float) -> Directions:
    """The directions in which a jet can be.

    Args:
        distance: Delta R from the leading jet, any shape.
        earlier: places of the jets between, of the same shape.
        radius: R, which jets are farther apart than; 0: they may be anywhere.
    """
    arcs = _beyond_pi(distance)
    anchor = torch.full_like(distance, math.pi)
    for y, azimuth in earlier if radius > 0 else ():
        arcs += [_disc(distance, y, azimuth + image, radius) for image in (0.0, TURN, -TURN)]
    if earlier:  # as far as can be from the next disc: its point stays at its centre
        anchor = wrapped(torch.atan2(earlier[0][1], earlier[0][0]) + math.pi)
    return Directions(arcs, anchor)


def close_holes(y: Tensor, azimuth: Tensor, radius: float, polar: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Coordinates of jets without holes around other jets, and log-Jacobian terms, ``[..., most]`` each.

    Args:
        y: rapidity, from the second jet on relative to the first; ``[..., most]``.
        azimuth: likewise. The first column of both stays.
        radius: R.
        polar: so many jets from the second on get distance and direction; the rest keep the rapidity, and get the
            azimuth with arcs closed.
    """
    return _each_jet([_enter, _close], y, azimuth, radius, polar)


def open_holes(y: Tensor, azimuth: Tensor, radius: float, polar: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """The inverse of :func:`close_holes`: rapidities, azimuths, terms."""
    return _each_jet([_leave, _open], y, azimuth, radius, polar)


def _each_jet(
    acts: Sequence[Callable[[Place, Sequence[Place], float], tuple[Place, Place, Tensor]]],
    one: Tensor,
    other: Tensor,
    radius: float,
    polar: int,
) -> tuple[Tensor, Tensor, Tensor]:
    columns = list(zip(one.unbind(-1), other.unbind(-1), strict=True))
    new, terms = [columns[0]], [torch.zeros_like(columns[0][0])]
    earlier: list[Place] = []
    for j, column in enumerate(columns[1:]):
        result, place, term = acts[j >= polar](column, earlier, radius)
        new.append(result)
        terms.append(term)
        earlier.append(place)
    first, second = (torch.stack(parts, -1) for parts in zip(*new, strict=True))
    return first, second, torch.stack(terms, -1)


def _close(place: Place, earlier: Sequence[Place], radius: float) -> tuple[Place, Place, Tensor]:
    azimuth, log_slope = close_arcs(place[1], _arcs(place[0], earlier, radius))
    return (place[0], azimuth), place, log_slope


def _open(closed: Place, earlier: Sequence[Place], radius: float) -> tuple[Place, Place, Tensor]:
    azimuth, log_slope = open_arcs(closed[1], _arcs(closed[0], earlier, radius))
    place = closed[0], azimuth
    return place, place, log_slope


def _arcs(y: Tensor, earlier: Sequence[Place], radius: float) -> list[Arc]:
    """The arcs of azimuth that the discs of the leading jet and of those between cut out."""
    origin = torch.zeros_like(y)
    return arcs_of(y, [(origin, origin), *earlier], radius) if radius > 0 else []


def _enter(place: Place, earlier: Sequence[Place], radius: float) -> tuple[Place, Place, Tensor]:
    distance = _above(torch.hypot(*place), radius)
    circle = directions(distance, earlier, radius)
    direction = circle.close(torch.atan2(place[1], place[0]))
    return (distance, direction), place, circle.stretch.log() - distance.log()


def _leave(polar: Place, earlier: Sequence[Place], radius: float) -> tuple[Place, Place, Tensor]:
    distance = _above(polar[0], radius)
    circle = directions(distance, earlier, radius)
    direction = circle.open(polar[1])
    place = distance * direction.cos(), wrapped(distance * direction.sin())
    return place, place, distance.log() - circle.stretch.log()


def _above(distance: Tensor, radius: float) -> Tensor:
    """Distances that are above R: on R, where rounding can lead, there is no density."""
    low = torch.full_like(distance, radius)
    low = torch.nextafter(low, torch.full_like(low, torch.inf)).clamp(min=torch.finfo(low.dtype).tiny)
    return torch.maximum(distance, low)


def _beyond_pi(distance: Tensor) -> list[Arc]:
    """The directions with ``|dphi| > pi``: within acos(pi / Delta R) of both azimuth axes."""
    room = distance**2 - math.pi**2
    half = torch.where(room > 0, torch.atan2(_root(room), torch.full_like(room, math.pi)), 0.0)
    quarter = torch.full_like(half, math.pi / 2)
    return [(quarter, half), (-quarter, half)]


def _disc(distance: Tensor, y: Tensor, azimuth: Tensor, radius: float) -> Arc:
    """The arc that the disc around a place cuts out of the circle of directions at a distance.

    By the law of cosines ``cos(half) = (r^2 + r'^2 - R^2) / (2 r r')``, written with half the angle, which keeps small
    arcs exact.
    """
    far = torch.hypot(y, azimuth).clamp(min=radius)
    room = radius**2 - (distance - far) ** 2
    half = torch.where(room > 0, 2 * torch.asin(_root(room) / (2 * (distance * far).sqrt())), 0.0)
    return torch.atan2(azimuth, y), half


def _root(room: Tensor) -> Tensor:
    """The square root of what is positive, and 1 elsewhere: a gradient without NaN."""
    return torch.where(room > 0, room, 1.0).sqrt()
