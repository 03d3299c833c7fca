"""Observables of calorimeter showers: functions of the energies of all cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checks import POSITIVE, door, require
from .containers import table_of
from .kinematics import Observable
from .shower_geometry import GEOMETRY, ShowerGeometry, ShowerLayer

Function = Callable[[Tensor], Tensor]


@door(geometry=GEOMETRY, highest=POSITIVE)
def shower_observables(geometry: ShowerGeometry, highest: float = 100.0) -> Mapping[str, Observable]:
    """The observables of arXiv:2305.16774 sec. 4 (and of CaloGAN, arXiv:1712.10321 sec. III) and some more.

    Args:
        geometry: the cells.
        highest: incident energy up to which bin edges reach, in GeV.

    Returns:
        By name, with i the number of a layer: ``E_i`` its energy, ``fraction_i`` its share of the total ``E``,
        ``brightest_i`` the energy of its brightest cell and ``brightest_fraction_i`` that by ``E_i``, ``sparsity_i``
        the share of its cells without energy; where cells have a place ``eta_i``, ``phi_i``, ``width_eta_i`` and
        ``width_phi_i``: mean and standard deviation of their positions weighted by energy. ``depth`` and
        ``depth_width`` are those of the layer's place, 0, 1, ..., and ``brightest`` is the brightest cell of all.

        They take cells ``[N, voxels]`` in GeV, a tensor, an array, an :class:`~pyrogen.EventSample` or any other
        events, and give values ``[N]`` in float64. What a layer (or a shower) without energy does not have is NaN:
        shares, places, widths and the brightest cell.
    """
    grid, found = np.linspace, {}

    def add(name: str, function: Function, label: str, unit: str, edges: np.ndarray, log: bool = True) -> None:
        found[name] = Observable(lambda events: function(_cells(events, geometry)), label, unit, edges, log)

    add("E", lambda x: x.sum(-1), "$E$", "GeV", grid(0, 1.2 * highest, 61))
    add("brightest", lambda x: _brightest(x, x.sum(-1)), "brightest cell", "GeV", grid(0, 0.6 * highest, 61))
    add(
        "depth",
        lambda x: _moments(*_depths(x, geometry))[0],
        "mean layer",
        "",
        grid(0, max(len(geometry.layers) - 1, 1), 61),
    )
    add("depth_width", lambda x: _moments(*_depths(x, geometry))[1], "spread of the layer", "", grid(0, 1, 51))
    for i, (number, layer, columns) in enumerate(zip(geometry.numbers, geometry.layers, geometry.columns, strict=True)):
        n = f"_{number}"
        add(f"E{n}", _of(columns, lambda x: x.sum(-1)), f"$E_{{{number}}}$", "GeV", grid(0, highest, 51))
        add(f"fraction{n}", _fraction(geometry, i), f"$E_{{{number}}}/E$", "", grid(0, 1, 51))
        add(
            f"brightest{n}",
            _of(columns, lambda x: _brightest(x, x.sum(-1))),
            f"brightest cell, layer {number}",
            "GeV",
            grid(0, 0.6 * highest, 61),
        )
        add(
            f"brightest_fraction{n}",
            _of(columns, lambda x: _brightest(x, x.sum(-1)) / x.sum(-1)),
            f"brightest cell by energy, layer {number}",
            "",
            grid(0, 1, 51),
        )
        size = layer.voxels
        add(
            f"sparsity{n}",
            _of(columns, lambda x: (x == 0).double().mean(-1)),
            f"sparsity, layer {number}",
            "",
            (np.arange(size + 2) - 0.5) / size,
        )
        if layer.columns is not None:
            _add_places(add, layer, columns, number)
    return found


def _add_places(add: Callable[..., None], layer: ShowerLayer, columns: slice, number: int) -> None:
    """Means and widths along eta and phi of a layer whose cells have a place."""
    for axis in ("eta", "phi"):
        place = torch.from_numpy(getattr(layer, axis))
        reach = float(place.abs().max()) or 1.0
        mean, width = (partial(_moment, columns, place, which) for which in (0, 1))
        where = f"layer {number}"
        add(f"{axis}_{number}", mean, rf"$\langle\{axis}\rangle$, {where}", "mm", np.linspace(-reach, reach, 61))
        add(f"width_{axis}_{number}", width, rf"$\sigma_\{axis}$, {where}", "mm", np.linspace(0, reach, 61))


def _moment(columns: slice, place: Tensor, which: int, x: Tensor) -> Tensor:
    return _moments(x[:, columns], place)[which]


def _cells(events: Any, geometry: ShowerGeometry) -> Tensor:
    """Energies ``[N, voxels]`` in float64.

    Raises:
        ValueError: another number of columns, or columns of another name.
    """
    if isinstance(events, Tensor):
        x = events.double()
    else:
        table = table_of(events)
        default = tuple(f"x{i}" for i in range(len(table.names or ())))
        require(
            table.names is None or tuple(table.names) in (geometry.names, default),
            "events",
            events,
            f"showers of {geometry!r}, with the columns {geometry.names[0]}, ..., {geometry.names[-1]}",
        )
        x = torch.as_tensor(np.array(table.values)).double()
    wanted = f"[N, {geometry.voxels}], the cells of {geometry!r}"
    require(x.ndim == 2 and x.shape[1] == geometry.voxels, "events", list(x.shape), wanted)
    return x


def _of(columns: slice, function: Function) -> Function:
    """A function of the cells of one layer."""
    return lambda x: function(x[:, columns])


def _fraction(geometry: ShowerGeometry, i: int) -> Function:
    return lambda x: x[:, geometry.columns[i]].sum(-1) / x.sum(-1)


def _brightest(x: Tensor, total: Tensor) -> Tensor:
    return torch.where(total > 0, x.amax(-1), torch.nan)


def _depths(x: Tensor, geometry: ShowerGeometry) -> tuple[Tensor, Tensor]:
    """Energies ``[N, layers]`` and the places of the layers."""
    layers = torch.stack([x[:, columns].sum(-1) for columns in geometry.columns], -1)
    return layers, torch.arange(layers.shape[1], device=x.device).double()


def _moments(weights: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of ``places [c]`` with ``weights [N, c]``; NaN where all weights are zero."""
    places = places.to(weights.device)
    shares = weights / weights.sum(-1, keepdim=True)  # 0 / 0 is NaN
    mean = (shares * places).sum(-1)
    return mean, (shares * (places - mean[:, None]) ** 2).sum(-1).sqrt()
