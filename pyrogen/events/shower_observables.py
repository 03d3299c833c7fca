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
ROUNDING = 1e-12  # of the largest number there may be


@door(geometry=GEOMETRY, highest=POSITIVE)
def shower_observables(geometry: ShowerGeometry, highest: float = 100.0) -> Mapping[str, Observable]:
    """The observables of arXiv:2305.16774 sec. 4 (and of CaloGAN, arXiv:1712.10321 sec. III) and some more.

    Args:
        geometry: the cells.
        highest: incident energy up to which bin edges reach, in GeV.

    Returns:
        By name, with i the number of a layer: ``E_i`` its energy, ``fraction_i`` its share of the total ``E``,
        ``brightest_i`` the energy of its brightest cell and ``brightest_fraction_i`` that by ``E_i``, ``sparsity_i``
        the share of its cells without energy, ``faintest_i`` the smallest energy of a cell that has some (the threshold
        shows there); where cells have a place ``eta_i``, ``phi_i``, ``width_eta_i`` and
        ``width_phi_i``: mean and standard deviation of their positions weighted by energy. ``depth`` and
        ``depth_width`` are those of the layer's place, 0, 1, ..., and ``brightest`` and ``faintest`` are of all cells.

        They take cells ``[N, voxels]`` in GeV, a tensor, an array, an :class:`~pyrogen.EventSample` or any other
        events, and give values ``[N]`` in float64. What a layer (or a shower) without energy does not have is NaN:
        shares, places, widths, the brightest and the faintest cell. Each says so by its ``missing``.
    """
    add, grid = _Collection(geometry), np.linspace
    everywhere, last = slice(None), max(len(geometry.layers) - 1, 1)
    add("E", lambda x: x.sum(-1), "$E$", "GeV", grid(0, 1.2 * highest, 61))
    add("brightest", lambda x: x.amax(-1), r"$E^\max$", "GeV", grid(0, 0.6 * highest, 61), everywhere)
    add("faintest", _faintest, r"$E^\min$", "GeV", grid(0, 1e-4 * highest, 51), everywhere)
    for which, name, label, edges in (
        (0, "depth", "mean layer", grid(0, last, 61)),
        (1, "depth_width", "spread of the layer", grid(0, 1, 51)),
    ):
        add(name, partial(_depth, geometry, which), label, "", edges, everywhere)
    for i, (number, layer, columns) in enumerate(zip(geometry.numbers, geometry.layers, geometry.columns, strict=True)):
        n, at, size = f"_{number}", f"_{{{number}}}", layer.voxels
        add(f"E{n}", _of(columns, lambda x: x.sum(-1)), f"$E_{{{number}}}$", "GeV", grid(0, highest, 51))
        add(f"fraction{n}", _fraction(geometry, i), f"$E_{{{number}}}/E$", "", grid(0, 1, 51), everywhere)
        for name, function, label, unit, edges in (
            ("brightest", lambda x: x.amax(-1), rf"$E^\max{at}$", "GeV", grid(0, 0.6 * highest, 61)),
            ("brightest_fraction", lambda x: x.amax(-1) / x.sum(-1), rf"$E^\max{at}/E{at}$", "", grid(0, 1, 51)),
            ("faintest", _faintest, rf"$E^\min{at}$", "GeV", grid(0, 1e-4 * highest, 51)),
        ):
            add(name + n, _of(columns, function), label, unit, edges, columns)
        edges = (np.arange(size + 2) - 0.5) / size
        add(f"sparsity{n}", _of(columns, lambda x: (x == 0).double().mean(-1)), f"sparsity, layer {number}", "", edges)
        if layer.columns is not None:
            _add_places(add, layer, columns, number)
    return add.found


class _Collection:
    """Observables by name, to which one is added by a call."""

    def __init__(self, geometry: ShowerGeometry) -> None:
        self.found: dict[str, Observable] = {}
        self._geometry = geometry
        self._empty: dict[Any, Function] = {}

    def __call__(
        self, name: str, function: Function, label: str, unit: str, edges: np.ndarray, needs: slice | None = None
    ) -> None:
        """Add a function of cells ``[N, voxels]`` of float64; ``needs``: the cells of which some must have energy."""
        geometry, missing = self._geometry, None
        if needs is not None:  # one function for all that need the same cells
            key = needs.start, needs.stop
            missing = self._empty.setdefault(key, lambda events: ~(_cells(events, geometry)[:, needs] > 0).any(-1))
        self.found[name] = Observable(
            lambda events: _where(missing, function(_cells(events, geometry)), events),
            label,
            unit,
            edges,
            True,
            0,
            missing,
        )


def _where(missing: Function | None, values: Tensor, events: Any) -> Tensor:
    """NaN for the showers that do not have what the values are."""
    return values if missing is None else torch.where(missing(events), torch.nan, values)


def _add_places(add: _Collection, layer: ShowerLayer, columns: slice, number: int) -> None:
    """Means and widths along eta and phi of a layer whose cells have a place."""
    for axis in ("eta", "phi"):
        place = torch.from_numpy(getattr(layer, axis))
        reach = float(place.abs().max()) or 1.0
        mean, width = (partial(_moment, columns, place, which) for which in (0, 1))
        edges = np.linspace(-reach, reach, 61), np.linspace(0, reach, 61)
        add(f"{axis}_{number}", mean, rf"$\langle\{axis}\rangle_{{{number}}}$", "mm", edges[0], columns)
        add(f"width_{axis}_{number}", width, rf"$\sigma_{{\{axis},{number}}}$", "mm", edges[1], columns)


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
    return lambda x: _rounded(x[:, geometry.columns[i]].sum(-1) / x.sum(-1), 1.0)


def _faintest(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.inf).amin(-1)


def _depths(x: Tensor, geometry: ShowerGeometry) -> tuple[Tensor, Tensor]:
    """Energies ``[N, layers]`` and the places of the layers."""
    layers = torch.stack([x[:, columns].sum(-1) for columns in geometry.columns], -1)
    return layers, torch.arange(layers.shape[1], device=x.device).double()


def _depth(geometry: ShowerGeometry, which: int, x: Tensor) -> Tensor:
    return _moments(*_depths(x, geometry))[which]


def _moments(weights: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of ``places [c]`` with ``weights [N, c]``; NaN where all weights are zero."""
    places = places.to(weights.device)
    reach = float(places.abs().max()) or 1.0
    shares = weights / weights.sum(-1, keepdim=True)  # 0 / 0 is NaN
    mean = _rounded((shares * places).sum(-1), reach)
    variance = (shares * (places - mean[:, None]) ** 2).sum(-1)
    return mean, _rounded(variance, reach**2).sqrt()


def _rounded(values: Tensor, scale: float) -> Tensor:
    """Without the last digits, so that all showers of one place, or of no width, have the same number."""
    step = ROUNDING * scale
    return (values / step).round() * step
