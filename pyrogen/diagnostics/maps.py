"""Density and uncertainty maps on a plane through phase space: [A] (arXiv:2104.04543) sec. 2.1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from pyrogen.checks import (
    COUNT,
    MAPPING,
    SEED,
    array,
    check_memory,
    door,
    having,
    is_number,
    optional,
    require,
    whole,
)
from pyrogen.labelled import Labelled, inverse_unit
from pyrogen.posterior.posterior import POSTERIOR, Posterior
from pyrogen.printing import span

Array = NDArray[np.float64]
Axis = tuple[str | int, float, float]


@dataclass(frozen=True, repr=False)
class UncertaintyMap(Labelled):
    """Density and uncertainty in the cells of a grid, at their centres.

    Attributes:
        x_edges: cell edges along the first direction, ``[nx + 1]``.
        y_edges: along the second, ``[ny + 1]``.
        density: predicted density p, ``[nx, ny]``, per unit of all the events' variables.
        sigma: its standard deviation over the weight draws, ``[nx, ny]``.
        relative: sigma / p, ``[nx, ny]``; infinite where p is zero.
        truth: the true density, ``[nx, ny]``, or None.
        labels: names of the two directions.
        units: their units.
        at: where the other features are held, by name.
        at_units: their units, in the same order. The density is per unit of them, too.
        calibration: whether sigma is calibrated, in a few words for figures; empty where that is not known.
    """

    _dims: ClassVar[Mapping[str, str]] = {
        "x_edges": "x_edge",
        "y_edges": "y_edge",
        "density": "x y",
        "sigma": "x y",
        "relative": "x y",
        "truth": "x y",
    }

    x_edges: Array
    y_edges: Array
    density: Array
    sigma: Array
    relative: Array
    truth: Array | None = None
    labels: tuple[str, str] = ("x", "y")
    units: tuple[str, str] = ("", "")
    at: Mapping[str, float] | None = None
    at_units: tuple[str, ...] = ()
    calibration: str = ""

    def _units(self) -> dict[str, str]:
        density = inverse_unit([*self.units, *self.at_units])
        return dict(zip(("x_edges", "y_edges"), self.units, strict=True)) | dict.fromkeys(
            ("density", "sigma", "truth"), density
        )

    def _labels(self) -> dict[str, str]:
        return dict(zip(("x_edges", "y_edges"), self.labels, strict=True))

    def _summary(self) -> str:
        x, y = (
            f"{name} = {span(its, 'g')}" for name, its in zip(self.labels, (self.x_edges, self.y_edges), strict=True)
        )
        held = "".join(f", {name} = {value:g}" for name, value in (self.at or {}).items())
        known = "" if self.truth is None else ", truth"
        return f"{len(self.x_edges) - 1} x {len(self.y_edges) - 1} cells: {x}, {y}{held}{known}"

    @property
    def pull(self) -> Array | None:
        """(density - truth) / sigma, ``[nx, ny]``; NaN outside the support of the truth. None without a truth."""
        if self.truth is None:
            return None
        inside = (self.truth > 0) & (self.sigma > 0)
        return np.divide(self.density - self.truth, self.sigma, out=np.full_like(self.sigma, np.nan), where=inside)


def _axis(name: str, value: Any) -> Axis:
    try:
        feature, low, high = value
    except (TypeError, ValueError):
        feature, low, high = None, None, None
    good = isinstance(feature, str | int) and is_number(low) and is_number(high)
    require(good, name, value, "(name or index of the feature, low, high)")
    return feature, low, high  # type: ignore[arg-type, return-value]


@door(
    posterior=POSTERIOR,
    x=_axis,
    y=_axis,
    cells=whole(1),
    context=optional(array()),
    at=optional(MAPPING),
    target=optional(having("a target", "log_prob")),
    draws=COUNT,
    seed=SEED,
)
def uncertainty_map(
    posterior: Posterior,
    x: Axis,
    y: Axis,
    cells: int = 60,
    *,
    at: Mapping[str | int, float] | None = None,
    target: Any = None,
    draws: int | None = None,
    context: Any = None,
    seed: int = 0,
) -> UncertaintyMap:
    """Evaluate a posterior on a plane.

    Args:
        posterior: the posterior, over two features or more.
        x: first direction, ``(name or index of the feature, low, high)``.
        y: second direction.
        cells: number of cells along each direction.
        at: values of all other features, by name or index.
        target: the truth, with ``log_prob``; None: not known.
        draws: weight draws; None: 50, or all where fewer are stored.
        context: one row of conditions ``[k]`` of a conditional flow, for all points.
        seed: seeds the weight draws.

    Raises:
        ValueError: unknown features, ranges that do not increase, features that are neither directions nor held, more
            than one row of conditions.
    """
    features = posterior.model.features
    if features is None or features < 2:
        raise ValueError(f"the posterior's features are {features}; a map needs two")
    names, units = list(posterior.names), posterior.units
    known = {name: i for i, name in enumerate(names)}
    if features == 2 and not posterior.info.names:
        names = ["x", "y"]  # to be read on a figure; x0 and x1, as elsewhere, are understood too
        known |= {"x": 0, "y": 1}
    where = [_index(axis[0], known) for axis in (x, y)]
    held = {_index(name, known): float(value) for name, value in (at or {}).items()}
    wanted = set(range(features)) - set(where)
    if where[0] == where[1] or wanted != set(held) or len(held) < len(at or {}):
        raise ValueError(
            f"x is {names[where[0]]!r}, y is {names[where[1]]!r} and at holds {sorted(names[i] for i in held)}; give "
            f"two different directions, and at for each of the others once: {sorted(names[i] for i in wanted)}"
        )
    check_memory("cells", cells, 8.0 * cells**2 * features, "give fewer cells along each direction")
    edges = _edges("x", x, cells), _edges("y", y, cells)
    centres = [torch.from_numpy((its[1:] + its[:-1]) / 2) for its in edges]
    points = torch.empty(cells * cells, features, dtype=torch.float64)
    points[:, where] = torch.cartesian_prod(*centres)
    for index, value in held.items():
        points[:, index] = value
    if context is not None:
        context = torch.as_tensor(context)
        if context.ndim != 1:
            raise ValueError(
                f"context has shape {list(context.shape)}; a map needs one row [k], the same for all points"
            )
        context = context.expand(len(points), -1)
    estimate = posterior.density(points, draws, context=context, seed=seed)
    density, sigma, relative = (
        values.cpu().numpy().reshape(cells, cells) for values in (estimate.mean, estimate.std, estimate.relative)
    )
    truth = None if target is None else target.log_prob(points).exp().double().numpy().reshape(cells, cells)
    return UncertaintyMap(
        edges[0],
        edges[1],
        density,
        sigma,
        relative,
        truth,
        (names[where[0]], names[where[1]]),
        (units[where[0]], units[where[1]]),
        {names[i]: value for i, value in held.items()} or None,
        tuple(units[i] for i in held),
        posterior.info.note,
    )


def _index(name: str | int, known: Mapping[str, int]) -> int:
    index = known.get(name, name) if isinstance(name, str) else name
    if isinstance(index, (str, bool)) or index not in known.values():
        raise ValueError(f"unknown feature {name!r}; give an index or one of {list(known)}")
    return index


def _edges(name: str, axis: Axis, cells: int) -> Array:
    low, high = float(axis[1]), float(axis[2])
    if not (np.isfinite([low, high]).all() and low < high):
        raise ValueError(f"{name} is {axis}; its range must be finite and increase")
    return np.linspace(low, high, cells + 1)
