"""The distance that jets keep from each other: closed by a bijection, cut away, or smoothed by weights.

Jets of the anti-kT algorithm with radius R are farther apart than R in rapidity and azimuth,
``Delta R^2 = (y_i - y_j)^2 + (phi_i - phi_j)^2``. (A jet that grows can still move a little closer: 1 in 10^5 pairs.)
A flow is a deformation of a plane without holes. It fills the hole a little and rounds its edge.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from .kinematics import wrapped

Arc = tuple[Tensor, Tensor]
"""Centre and half the width of an arc of azimuth that is closed."""


def close_arcs(azimuth: Tensor, arcs: Iterable[Arc]) -> tuple[Tensor, Tensor]:
    """Azimuth with arcs closed one after the other, and log of the derivative; points in an arc come to its centre.

    Around the centre of an arc of half-width h, ``|phi'| = (|phi| - h) pi / (pi - h)``. The opposite point stays.
    """
    log_slope = torch.zeros_like(azimuth)
    for center, half in arcs:
        away = wrapped(azimuth - center)
        stretch = math.pi / (math.pi - half)
        azimuth = wrapped(center + torch.copysign(torch.relu(away.abs() - half), away) * stretch)
        log_slope = log_slope + stretch.log()
    return azimuth, log_slope


def open_arcs(azimuth: Tensor, arcs: Iterable[Arc]) -> tuple[Tensor, Tensor]:
    """The inverse of :func:`close_arcs`."""
    log_slope = torch.zeros_like(azimuth)
    for center, half in reversed(list(arcs)):
        away = wrapped(azimuth - center)
        stretch = math.pi / (math.pi - half)
        azimuth = wrapped(center + away / stretch + torch.copysign(half, away))
        log_slope = log_slope - stretch.log()
    return azimuth, log_slope


def arcs_of(rapidity: Tensor, earlier: Iterable[tuple[Tensor, Tensor]], radius: float) -> list[Arc]:
    """The arcs that discs around earlier jets cut out of the circle of azimuths at a rapidity.

    At the rapidity difference dy the disc of radius R leaves no azimuths within ``sqrt(R^2 - dy^2)`` of its centre.
    Each arc is told in the azimuths that the arcs before leave, so that discs may overlap.

    Args:
        rapidity: of the jet, any shape.
        earlier: rapidity and azimuth of each earlier jet, of the same shape.
        radius: R.
    """
    arcs: list[Arc] = []
    for center_rapidity, center in earlier:
        room = radius**2 - (rapidity - center_rapidity) ** 2
        crossed = room > 0
        half = torch.where(crossed, torch.where(crossed, room, 1.0).sqrt(), 0.0)
        low, high = (close_arcs(wrapped(center + side), arcs)[0] for side in (-half, half))
        width = torch.relu(wrapped(high - low))
        arcs.append((wrapped(low + width / 2), width / 2))
    return arcs


def rapidity(pt: Tensor, eta: Tensor, mass: Tensor) -> tuple[Tensor, Tensor]:
    """Rapidity y, and the log of dy/deta = |p| / E."""
    mt = torch.hypot(pt, mass)
    y = torch.asinh(pt * torch.sinh(eta) / mt)
    return y, pt.log() + eta.cosh().log() - mt.log() - y.cosh().log()


def separations(pt: Tensor, eta: Tensor, phi: Tensor, mass: Tensor) -> list[Tensor]:
    """Delta R of jet j = 1, 2, ... to the j jets before it, ``[..., j]`` each, from columns ``[..., most]`` of all."""
    y = rapidity(pt, eta, mass)[0]
    return [
        torch.hypot(y[..., j : j + 1] - y[..., :j], wrapped(phi[..., j : j + 1] - phi[..., :j]))
        for j in range(1, y.shape[-1])
    ]
