"""Kinematics of four-vectors ``[..., 4] = (px, py, pz, E)`` in GeV, on batches of plain tensors or arrays.

Observables are computed in float64, whatever the events are stored in. Transverse quantities are relative to the
beam, the z axis; angles are in radians.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrogen.printing import Brief

from ..checks import NOT_NEGATIVE, TEXT, door, instance
from .containers import Table, check_same_order, table_of
from .doors import SAMPLE
from .sample import EventSample

COMPONENTS = ("px", "py", "pz", "E")
PAIR_COLUMNS = ("px_e+", "py_e+", "pz_e+", "pz_e-")
"""What is left of two leptons of one mass whose transverse momenta balance."""


@door(sample=SAMPLE, particle=TEXT)
def momenta(sample: EventSample, particle: str) -> Tensor:
    """Four-vectors ``[N, 4]`` of a particle from its columns ``px_<particle>``, ``py_...``, ``pz_...``, ``E_...``.

    Without an energy the particle counts as massless.

    Raises:
        ValueError: a column is missing.
    """
    wanted = [f"{component}_{particle}" for component in COMPONENTS]
    missing = [name for name in wanted[:3] if name not in sample.names]
    if missing:
        raise ValueError(
            f"{particle} needs the columns {', '.join(wanted)}; {', '.join(missing)} missing. There are "
            f"{', '.join(sample.names)}"
        )
    p = torch.from_numpy(np.stack([sample.column(name) for name in wanted[:3]], -1))
    if wanted[3] in sample.names:
        return torch.cat([p, torch.tensor(sample.column(wanted[3]))[:, None]], -1)
    return torch.cat([p, p.norm(dim=-1, keepdim=True)], -1)


@door(lepton_mass=NOT_NEGATIVE)
def pair_momenta(events: Any, lepton_mass: float = 0.0) -> tuple[Tensor, Tensor]:
    """Four-vectors ``[N, 4]`` of both leptons of a pair.

    Args:
        events: ``[N, 4]`` (px, py, pz of l+ and pz of l-: transverse momenta balance) or ``[N, 6]`` (px, py, pz of
            both), a tensor, an array or an :class:`~pyrogen.EventSample`.
        lepton_mass: in GeV.

    Raises:
        ValueError: other than four or six columns, or the four in another order.
    """
    if isinstance(events, Tensor):
        x = events.double()
    else:
        table = table_of(events)
        check_same_order("the sample", table, "a lepton pair", Table(table.values, PAIR_COLUMNS))
        x = torch.as_tensor(np.array(table.values)).double()
    if x.ndim != 2 or x.shape[1] not in (4, 6):
        raise ValueError(
            f"events of a lepton pair have 4 columns (balanced) or 6 (px, py, pz of both); got {list(x.shape)}"
        )
    plus = x[:, :3]
    minus = x[:, 3:] if x.shape[1] == 6 else torch.stack([-x[:, 0], -x[:, 1], x[:, 3]], -1)

    def with_energy(p: Tensor) -> Tensor:
        return torch.cat([p, (p.square().sum(-1, keepdim=True) + lepton_mass**2).sqrt()], -1)

    return with_energy(plus), with_energy(minus)


def energy(p: Tensor) -> Tensor:
    """E."""
    return p[..., 3]


def pt(p: Tensor) -> Tensor:
    """Transverse momentum."""
    return torch.hypot(p[..., 0], p[..., 1])


def phi(p: Tensor) -> Tensor:
    """Azimuth in (-pi, pi]."""
    return torch.atan2(p[..., 1], p[..., 0])


def eta(p: Tensor) -> Tensor:
    """Pseudorapidity, infinite along the beam."""
    return torch.asinh(p[..., 2] / pt(p))


def rapidity(p: Tensor) -> Tensor:
    """Rapidity ``asinh(pz / mT)``."""
    return torch.asinh(p[..., 2] / torch.hypot(pt(p), mass(p)))


def mass(p: Tensor) -> Tensor:
    """Invariant mass; zero where rounding makes its square negative."""
    momentum = p[..., :3].norm(dim=-1)
    return ((p[..., 3] - momentum) * (p[..., 3] + momentum)).clamp(min=0).sqrt()


def delta_phi(p: Tensor, q: Tensor) -> Tensor:
    """Difference of the azimuths, in [-pi, pi]."""
    return wrapped(phi(p) - phi(q))


def wrapped(angle: Tensor) -> Tensor:
    """An angle, or a difference of angles, in [-pi, pi]."""
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi


def delta_r(p: Tensor, q: Tensor) -> Tensor:
    """Distance ``sqrt((Delta eta)^2 + (Delta phi)^2)``."""
    return torch.hypot(eta(p) - eta(q), delta_phi(p, q))


@dataclass(frozen=True, repr=False)
class Observable(Brief):
    """A function of events with what a figure needs to know of it.

    Attributes:
        function: events ``[N, d]`` to values ``[N]``.
        label: for axes, TeX allowed.
        unit: of the values.
        edges: bin edges that show its features.
        log: whether its distribution is drawn on a logarithmic axis.
        objects: how many objects, such as jets, an event must have; of events with fewer the value is NaN.
        missing: a function of the same events that gives True (a tensor ``[N]`` of bools) for those that do not have
            the observable, such as the centre of a layer without energy; None: all have it. Their value counts as NaN:
            they are in no bin of a histogram, and comparisons hold the events that have it against each other, and how
            many these are. NaN of any other event is an error.
    """

    function: Callable[[Any], Tensor]
    label: str
    unit: str
    edges: np.ndarray
    log: bool = True
    objects: int = 0
    missing: Callable[[Any], Tensor] | None = None

    def _summary(self) -> str:
        name = f"{self.label} [{self.unit}]" if self.unit else self.label
        return f"{name}, {len(self.edges) - 1} bins from {self.edges[0]:g} to {self.edges[-1]:g}"

    def __call__(self, events: Any) -> Tensor:
        """Values ``[N]`` in float64."""
        return self.function(events)

    @door(columns=instance(slice, "a slice, such as slice(0, 90)"))
    def of_columns(self, columns: slice) -> Observable:
        """The same of wider events, of which it sees these columns."""
        missing = None if self.missing is None else _OfColumns(self.missing, columns.start, columns.stop)
        return replace(self, function=_OfColumns(self.function, columns.start, columns.stop), missing=missing)


@dataclass(frozen=True)
class _OfColumns:
    """A function of some columns of events; two of one function and the same columns are equal."""

    function: Callable[[Any], Tensor]
    start: int | None
    stop: int | None

    def __call__(self, events: Any) -> Tensor:
        return self.function(events[:, self.start : self.stop])


@door(lepton_mass=NOT_NEGATIVE, lepton=TEXT)
def lepton_pair_observables(lepton_mass: float = 0.0, lepton: str = "e") -> Mapping[str, Observable]:
    """The six observables of [A] figs. 9 and 10: E, px, pT, pz of l+, E and M of the pair; and more of the pair.

    Args:
        lepton_mass: in GeV.
        lepton: how labels call it.

    Returns:
        By name; the first six are those of the figures. They take events as :func:`pair_momenta` does.
    """

    def of_plus(function: Callable[[Tensor], Tensor]) -> Callable[[Any], Tensor]:
        return lambda events: function(pair_momenta(events, lepton_mass)[0])

    def of_pair(function: Callable[[Tensor], Tensor]) -> Callable[[Any], Tensor]:
        return lambda events: function(sum(pair_momenta(events, lepton_mass)))  # type: ignore[arg-type]

    plus, pair = f"{lepton}^+", f"{lepton}^+{lepton}^-"
    grid, joined = np.linspace, np.concatenate
    fine = joined([grid(50, 80, 16), grid(82, 87, 6), grid(87.5, 95, 16), grid(96, 101, 6), grid(103, 113, 6)])
    return {
        "E": Observable(of_plus(energy), rf"$E({plus})$", "GeV", grid(0, 2000, 51)),
        "px": Observable(of_plus(lambda p: p[..., 0]), rf"$p_x({plus})$", "GeV", grid(-80, 80, 65)),
        "pT": Observable(of_plus(pt), rf"$p_T({plus})$", "GeV", grid(0, 80, 65), log=False),
        "pz": Observable(of_plus(lambda p: p[..., 2]), rf"$p_z({plus})$", "GeV", grid(-2500, 2500, 51)),
        "E_pair": Observable(of_pair(energy), rf"$E({pair})$", "GeV", grid(50, 4050, 51)),
        "M_pair": Observable(of_pair(mass), rf"$M({pair})$", "GeV", joined([fine, [115, 120, 130, 150]])),
        "y_pair": Observable(of_pair(rapidity), rf"$y({pair})$", "", grid(-5, 5, 51), log=False),
        "eta": Observable(of_plus(eta), rf"$\eta({plus})$", "", grid(-6, 6, 61), log=False),
        "delta_r": Observable(
            lambda events: delta_r(*pair_momenta(events, lepton_mass)),
            rf"$\Delta R({plus}, {lepton}^-)$",
            "",
            joined([grid(0, 3, 16), grid(3.1, 6, 30)]),
            log=False,
        ),
    }
