"""Mean shapes of showers: how the energy is spread along and across, in closed form. Parametric, not simulated.

Electromagnetic showers follow Grindhammer and Peters (hep-ex/0001020), called [G] here; hadronic ones the idea of Bock,
Hansl-Kofanecka and Shah (Nucl. Instrum. Meth. 186 (1981) 533), called [Bo], with radii chosen by hand. Depths t are in
radiation lengths, radii in Moliere radii, energies in GeV.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..signals import uninterrupted

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Mixture:
    """What a shower sees of a sampling calorimeter of two materials in thin plates; formulas of [G] sec. 3.1.

    Attributes:
        radiation_length, moliere_radius, interaction_length: in mm.
        critical_energy: in GeV.
        charge: effective Z.
        frequency: F_S, radiation lengths per pair of plates: how often the shower is sampled.
        ratio: e/mip.
        minimal: mean energy loss of a minimum-ionising particle, in GeV per mm.
    """

    radiation_length: float
    moliere_radius: float
    interaction_length: float
    critical_energy: float
    charge: float
    frequency: float
    ratio: float
    minimal: float


#: 2 mm of lead and 4 mm of liquid argon, by the formulas of [G] and the constants of the Review of Particle Physics
#: (lead: X0 = 6.37 g/cm2, E_c = 7.43 MeV, lambda = 199.6 g/cm2, dE/dx = 1.122 MeV cm2/g; argon: 19.55, 32.84, 119.7,
#: 1.508).
LEAD_ARGON = Mixture(
    radiation_length=15.6,
    moliere_radius=35.5,
    interaction_length=374.0,
    critical_energy=9.31e-3,
    charge=69.4,
    frequency=2.60,
    ratio=0.69,
    minimal=0.565e-3,
)
CONVERSION = 9 / 7  # mean depth at which a photon makes a pair


@dataclass(frozen=True)
class Longitudinal:
    """Gamma distributions of the energy in depth, ``f(t) = b (b t)^(a - 1) exp(-b t) / Gamma(a)`` [G eq. 2].

    Attributes:
        shape: a ``[N]``.
        rate: b ``[N]``.
        start: depth ``[N]`` at which the shower begins.
    """

    shape: Array
    rate: Array
    start: Array

    @property
    def mean(self) -> Array:
        """Mean depth of the energy ``[N]``."""
        return self.start + self.shape / self.rate

    def between(self, depths: Array) -> Array:
        """Share of the energy between neighbouring ``depths [S + 1]``, ``[N, S]``."""
        with uninterrupted():
            from scipy.special import gammainc
        behind = np.clip(depths - self.start[:, None], 0, None)
        return np.diff(gammainc(self.shape[:, None], self.rate[:, None] * behind), axis=1)


def mean_electron(energies: Array, material: Mixture = LEAD_ARGON) -> Longitudinal:
    """The mean profile of electrons of ``energies [N]`` [G app. A.1.1 and A.2.1]."""
    log_y = _log_y(energies, material)
    maximum = log_y - 0.858 - 0.59 / material.frequency - 0.53 * (1 - material.ratio)
    shape = 0.21 + (0.492 + 2.38 / material.charge) * log_y - 0.476 / material.frequency
    return Longitudinal(shape, (shape - 1) / maximum, np.zeros_like(maximum))


def electrons(energies: Array, noise: Array, material: Mixture = LEAD_ARGON) -> Longitudinal:
    """Profiles of single electrons: their maximum and shape fluctuate together [G eqs. 11 to 14, app. A.1.2, A.2.2].

    Args:
        energies: ``[N]``.
        noise: independent standard normal numbers ``[N, 2]``.
        material: of the calorimeter.
    """
    log_y = _log_y(energies, material)
    maximum = np.log(log_y - 0.812 - 0.59 / material.frequency - 0.53 * (1 - material.ratio))
    shape = np.log(0.81 + (0.458 + 2.26 / material.charge) * log_y - 0.476 / material.frequency)
    spreads = (np.minimum(0.5, 1 / (a + b * log_y)) for a, b in ((-2.5, 1.25), (-0.82, 0.79)))
    correlation = 0.784 - 0.023 * log_y
    together, apart = (np.sqrt((1 + sign * correlation) / 2) for sign in (1, -1))
    maximum_spread, shape_spread = spreads
    t = np.exp(maximum + maximum_spread * (together * noise[:, 0] + apart * noise[:, 1]))
    a = np.exp(shape + shape_spread * (together * noise[:, 0] - apart * noise[:, 1]))
    t, a = np.maximum(t, 1.0), np.maximum(a, 1.1)
    return Longitudinal(a, (a - 1) / t, np.zeros_like(t))


def hadronic(energies: Array, noise: Array, material: Mixture = LEAD_ARGON) -> Longitudinal:
    """Profiles of the hadronic part of showers, without their start: gamma distributions in interaction lengths [Bo].

    The shape is 0.6165 + 0.3183 ln E and the rate 0.9099 - 0.0237 ln E per interaction length; both are multiplied by
    the same log-normal number of width 0.3, chosen by hand, so that the mean depth of a shower stays.

    Args:
        energies: ``[N]``.
        noise: standard normal numbers ``[N]``.
        material: of the calorimeter.
    """
    log_e = np.log(np.maximum(energies, 0.5))
    varied = np.exp(0.3 * noise)
    per_length = material.radiation_length / material.interaction_length
    return Longitudinal(
        (0.6165 + 0.3183 * log_e) * varied, (0.9099 - 0.0237 * log_e) * per_length * varied, np.zeros_like(log_e)
    )


@dataclass(frozen=True)
class Radial:
    """Radial profiles, ``f(r) = p 2 r R_C^2 / (r^2 + R_C^2)^2 + (1 - p) 2 r R_T^2 / (r^2 + R_T^2)^2`` [G eq. 22].

    Attributes:
        core, tail: radii R_C and R_T ``[N, S]``, the medians of both parts.
        weight: p ``[N, S]``.
    """

    core: Array
    tail: Array
    weight: Array


def electron_radii(energies: Array, tau: Array, material: Mixture = LEAD_ARGON) -> Radial:
    """Radial profiles of electromagnetic showers [G app. A.1.3 and A.2.3], in Moliere radii.

    Args:
        energies: ``[N]``.
        tau: depths ``[N, S]`` in units of the depth of the maximum.
        material: of the calorimeter.
    """
    log_e, z = np.log(energies)[:, None], material.charge
    mip, rare = 1 - material.ratio, np.exp(-tau) / material.frequency
    core = 0.0251 + 0.00319 * log_e + (0.1162 - 0.000381 * z) * tau - 0.0203 * mip + 0.0397 * rare
    k = tau - 0.645
    tail = (0.659 - 0.00309 * z) * (np.exp(-2.59 * k) + np.exp((0.3585 + 0.0421 * log_e) * k))
    tail = tail - 0.14 * mip - 0.495 * rare
    p = (0.401 + 0.00187 * z - tau) / (1.313 - 0.0686 * log_e)
    weight = (2.632 - 0.00094 * z) * np.exp(p - np.exp(p))
    weight = weight + mip * (0.348 - 0.642 / material.frequency * np.exp(-((tau - 1) ** 2)))
    return Radial(np.maximum(core, 0.01), np.clip(tail, 0.05, 10.0), np.clip(weight, 0.0, 1.0))


def hadronic_radii(depths: Array, material: Mixture = LEAD_ARGON) -> Radial:
    """Radial profiles of hadronic showers, chosen by hand: a core of 0.03 and a tail of 0.2 interaction lengths, which
    widen by as much again per interaction length behind the start.

    Args:
        depths: behind the start, in interaction lengths, ``[N, S]``.
        material: of the calorimeter.
    """
    unit = material.interaction_length / material.moliere_radius * (1 + depths)
    return Radial(0.03 * unit, 0.2 * unit, np.full_like(unit, 0.5))


def in_cells(radius: Array, columns: Array, rows: Array) -> Array:
    """Share of a part of the radial profile in each cell of a table.

    ``R^2 / (pi (x^2 + y^2 + R^2)^2)`` has the integral over the rectangle from the origin to (x, y) ::

        1 / (2 pi) [ x / a atan(y / a) + y / b atan(x / b) ],  a^2 = x^2 + R^2,  b^2 = y^2 + R^2

    Args:
        radius: R ``[N]``.
        columns, rows: edges of the cells ``[N, C + 1]`` and ``[N, R + 1]``, relative to the axis of the shower.

    Returns:
        ``[N, R, C]``; the rest is outside of the table.
    """
    x, y = columns[:, None, :], rows[:, :, None]
    a, b = (np.sqrt(edge * edge + radius[:, None, None] ** 2) for edge in (x, y))
    corners = (x / a * np.arctan(y / a) + y / b * np.arctan(x / b)) / (2 * np.pi)
    return np.diff(np.diff(corners, axis=1), axis=2)


def _log_y(energies: Array, material: Mixture) -> Array:
    """ln(E / E_c); below 50 E_c, where the formulas of [G] end, that of 50 E_c."""
    return np.log(np.maximum(energies / material.critical_energy, 50.0))
