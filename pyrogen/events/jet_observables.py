"""Observables of two muons and jets: functions of NaN-padded rows, which :func:`pyrogen.events.z_jets` makes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checks import door, require, whole
from .containers import table_of
from .jets import check_z_jets_order, z_jets_columns, z_jets_layout
from .kinematics import Observable, mass, pt, wrapped

MUON_MASS = 0.1056584  # GeV
_MUONS = ("mu+", "mu-")

Function = Callable[["_Columns"], Tensor]
_Columns = Callable[[str, str], Tensor]  # the column of a quantity and an object


@door(jets=whole(1))
def z_jets_observables(jets: int = 3) -> Mapping[str, Observable]:
    """The observables of Z + jets of arXiv:2110.13632, figs. 3 to 9, and some more.

    Args:
        jets: most jets of an event.

    Returns:
        By name: ``pt_``, ``eta_`` of ``mu+, mu-, j1, ...``, ``m_`` of the jets; ``M_pair`` and ``pt_pair`` of the two
        muons; ``delta_r_`` and ``delta_phi_`` of all pairs, such as ``delta_r_j1j2``, ``delta_r_mu+j1`` and
        ``delta_r_mu+mu-``; ``ht``, the sum of the jets' pT, and ``jets``, their number. They take events
        ``[N, 6 + 4 jets]`` with the columns of :func:`z_jets`, a tensor, an array or an
        :class:`~pyrogen.EventSample`, and give values ``[N]`` in float64, NaN where an object is missing.
        ``objects`` of each says how many jets it needs.
    """
    muons, all_jets = _MUONS, tuple(f"j{j}" for j in range(1, jets + 1))
    grid = np.linspace
    found: dict[str, Observable] = {}

    def add(name: str, function: Function, label: str, unit: str, edges: np.ndarray, log: bool, *needs: str) -> None:
        most = max((int(each[1:]) for each in needs if each in all_jets), default=0)
        found[name] = Observable(lambda events: function(_columns(events, jets)), label, unit, edges, log, most)

    for a in (*muons, *all_jets):
        low, high = (0, 200) if a in muons else (20, 320)
        add(f"pt_{a}", _column("pt", a), rf"$p_T({_tex(a)})$", "GeV", grid(low, high, 51), True, a)
        add(f"eta_{a}", _column("eta", a), rf"$\eta({_tex(a)})$", "", grid(-6, 6, 49), False, a)
    for a in all_jets:
        add(f"m_{a}", _column("m", a), rf"$m({_tex(a)})$", "GeV", grid(0, 30, 61), False, a)
    add("M_pair", lambda of: mass(_pair(of)), r"$M(\mu^+\mu^-)$", "GeV", _peak(), True)
    add("pt_pair", lambda of: pt(_pair(of)), r"$p_T(\mu^+\mu^-)$", "GeV", grid(0, 300, 61), True)
    for a, b in itertools.combinations((*muons, *all_jets), 2):
        between = f"({_tex(a)}, {_tex(b)})"
        add(f"delta_r_{a}{b}", _delta_r(a, b), rf"$\Delta R{between}$", "", grid(0, 8, 81), False, a, b)
        add(
            f"delta_phi_{a}{b}",
            _delta_phi(a, b),
            rf"$\Delta\phi{between}$",
            "rad",
            np.pi * grid(-1, 1, 49),
            False,
            a,
            b,
        )
    add("ht", lambda of: _ht(of, all_jets), r"$H_T$", "GeV", grid(20, 520, 51), True, "j1")
    add("jets", lambda of: _number(of, all_jets), "number of jets", "", np.arange(0.5, jets + 1), True)
    return found


def _columns(events: Any, jets: int) -> _Columns:
    """The columns of events by quantity and object, in float64.

    Raises:
        ValueError: another number of columns, or columns in another order.
    """
    names = z_jets_columns(jets)[0]
    if isinstance(events, Tensor):
        x = events.double()
    else:
        table = table_of(events)
        check_z_jets_order(table.names, jets)
        x = torch.as_tensor(np.array(table.values)).double()
    right = z_jets_layout(jets).features
    require(
        x.ndim == 2 and x.shape[1] == right,
        "events",
        list(x.shape),
        f"[N, {right}]: pt, eta, phi of mu+ and mu-, then pt, eta, phi, m of {jets} jets",
    )
    return lambda quantity, which: x[:, names.index(f"{quantity}_{which}")]


def _tex(which: str) -> str:
    return rf"\mu^{which[-1]}" if which in _MUONS else f"j_{which[1:]}"


def _column(quantity: str, which: str) -> Function:
    return lambda of: of(quantity, which)


def _delta_phi(a: str, b: str) -> Function:
    return lambda of: wrapped(of("phi", a) - of("phi", b))


def _delta_r(a: str, b: str) -> Function:
    return lambda of: torch.hypot(of("eta", a) - of("eta", b), _delta_phi(a, b)(of))


def _pair(of: _Columns) -> Tensor:
    """Four-vectors ``[N, 4]`` of the two muons together."""
    return sum(_momentum(of, muon) for muon in _MUONS)  # type: ignore[return-value]


def _momentum(of: _Columns, muon: str) -> Tensor:
    transverse, eta, phi = (of(quantity, muon) for quantity in ("pt", "eta", "phi"))
    p = torch.stack([transverse * phi.cos(), transverse * phi.sin(), transverse * eta.sinh()], -1)
    return torch.cat([p, (p.square().sum(-1, keepdim=True) + MUON_MASS**2).sqrt()], -1)


def _ht(of: _Columns, jets: tuple[str, ...]) -> Tensor:
    momenta = torch.stack([of("pt", jet) for jet in jets], -1)
    return torch.where(momenta[:, 0].isnan(), momenta[:, 0], momenta.nansum(-1))


def _number(of: _Columns, jets: tuple[str, ...]) -> Tensor:
    return sum((~of("pt", jet).isnan()).double() for jet in jets)  # type: ignore[return-value]


def _peak() -> np.ndarray:
    """Bin edges of the mass of the pair, narrow at the Z."""
    grid = np.linspace
    return np.concatenate([grid(50, 80, 16), grid(82, 87, 6), grid(87.5, 95, 16), grid(96, 106, 11), grid(110, 150, 9)])
