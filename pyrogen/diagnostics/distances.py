"""Distances between densities and between samples of events."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pyrogen.bayes.inputs import check_rows
from pyrogen.checks import COUNT, POSITIVE, SEED, array, check_memory, door, shown, whole
from pyrogen.events import EventsLike
from pyrogen.events.containers import check_same_order, table_of
from pyrogen.events.doors import PLAIN_EVENTS
from pyrogen.events.validation import as_rows
from pyrogen.posterior.posterior import POSTERIOR, Posterior
from pyrogen.signals import uninterrupted

Array = NDArray[np.float64]
Range = tuple[tuple[float, float], tuple[float, float]]


@door(p=array(), q=array(), cell=POSITIVE, tolerance=POSITIVE)
def total_variation(p: ArrayLike | Tensor, q: ArrayLike | Tensor, cell: float, *, tolerance: float = 0.05) -> float:
    """Total variation distance ``1/2 sum_i |p_i - q_i| cell`` of two densities on a grid, between 0 and 1.

    It is the largest difference in the probability of any set of cells.

    Args:
        p: densities at the centres of the cells, any shape.
        q: the other densities, same shape.
        cell: volume of a cell.
        tolerance: how far the sum of each density over the grid may be from one.

    Raises:
        ValueError: shapes that differ, a volume that is not positive, densities that are negative or not finite, or a
            density that does not sum to one: the grid is then too small, or too coarse.
    """
    a, b = _array(p), _array(q)
    if a.shape != b.shape:
        raise ValueError(f"p has shape {list(a.shape)} and q has {list(b.shape)}; both must be on the same grid")
    for name, values in (("p", a), ("q", b)):
        if not (np.isfinite(values) & (values >= 0)).all():
            raise ValueError(f"{name} must be finite and not negative, got values {values.min()} to {values.max()}")
        if abs(values.sum() * cell - 1) > tolerance:
            raise ValueError(
                f"{name} sums to {values.sum() * cell:.4g} over the grid; it must be 1 within {tolerance}: let the "
                "grid cover all of the density, in smaller cells"
            )
    return float(0.5 * np.abs(a - b).sum() * cell)


@door(posterior_a=POSTERIOR, posterior_b=POSTERIOR, cells=whole(1), draws=COUNT, seed=SEED)
def predictive_distance(
    posterior_a: Posterior,
    posterior_b: Posterior,
    grid_range: Range,
    cells: int = 60,
    *,
    draws: int | None = None,
    seed: int = 0,
) -> float:
    """Total variation distance of two predictive densities in two dimensions, on a grid.

    Args:
        posterior_a: a posterior over densities of two features.
        posterior_b: the other one.
        grid_range: ``((x_low, x_high), (y_low, y_high))`` of the grid.
        cells: cells along each direction; densities are taken at their centres.
        draws: weight draws of each predictive density; None: 50, or all where fewer are stored.
        seed: seeds the weight draws.

    Raises:
        ValueError: as in :func:`total_variation`, a range that does not increase, or other than two features.
    """
    centres, cell = grid_centres(grid_range, cells)
    a, b = (grid_density(posterior, centres, draws, seed) for posterior in (posterior_a, posterior_b))
    return total_variation(a, b, cell)


@door(a_events=PLAIN_EVENTS, b_events=PLAIN_EVENTS)
def wasserstein(a_events: EventsLike, b_events: EventsLike) -> Array:
    """Wasserstein-1 distance of each column's distribution, ``[d]`` in the unit of the column.

    Two samples of n events of one distribution still are of the order of its width / sqrt(n) apart.

    Args:
        a_events: events ``[N, d]``, a tensor, an array or an :class:`~pyrogen.EventSample`, whose weights count.
        b_events: events ``[M, d]``.

    Raises:
        ValueError: empty samples, numbers that are not finite, negative weights, or different numbers of columns.
    """
    with uninterrupted():
        from scipy.stats import wasserstein_distance  # here: scipy.stats takes a second, and comes with ArviZ

    tables = [table_of(its, name) for name, its in (("a_events", a_events), ("b_events", b_events))]
    weights = [positive_weights(name, its) for name, its in zip(("a_events", "b_events"), tables, strict=True)]
    check_same_order("b_events", tables[1], "a_events", tables[0])
    a, b = (event_table(name, its.values) for name, its in zip(("a_events", "b_events"), tables, strict=True))
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"a_events has {a.shape[1]} columns and b_events has {b.shape[1]}; they must be the same")
    return np.array([wasserstein_distance(a[:, i], b[:, i], *weights) for i in range(a.shape[1])])


def positive_weights(name: str, events: EventsLike) -> Array | None:
    """The weights of a sample, checked not to be negative."""
    weights = table_of(events, name).weights
    if weights is not None and (weights < 0).any():
        raise ValueError(f"{name} has {int((weights < 0).sum())} negative weights; the distance needs positive ones")
    return weights


def grid_density(posterior: Posterior, points: Tensor, draws: int | None, seed: int) -> Array:
    """Predictive density ``[n]`` at points ``[n, 2]``."""
    if posterior.model.features != 2:
        raise ValueError(f"the posterior is over {posterior.model.features} features; a grid has two")
    return posterior.density(points, draws, seed=seed).mean.cpu().numpy()


def grid_centres(grid_range: Range, cells: int) -> tuple[Tensor, float]:
    """Centres of the cells ``[cells^2, 2]`` and their area."""
    check_memory("cells", cells, 16.0 * cells**2, "give fewer cells along each direction")
    try:
        sides = np.asarray(grid_range, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        sides = np.empty(0)
    if sides.shape != (2, 2) or not np.isfinite(sides).all() or not (sides[:, 0] < sides[:, 1]).all():
        raise ValueError(
            f"grid_range is {shown(grid_range)}; it must be ((x_low, x_high), (y_low, y_high)), increasing"
        )
    middle = (np.arange(cells) + 0.5) / cells
    x, y = (torch.from_numpy(low + (high - low) * middle) for low, high in sides)
    return torch.cartesian_prod(x, y), float(np.prod((sides[:, 1] - sides[:, 0]) / cells))


def _array(values: Any) -> Array:
    return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.float64)


def event_table(name: str, events: EventsLike, posterior: Posterior | None = None) -> Array:
    """Checked events ``[N, d]`` of any kind, without weights; their columns in the order of a posterior's training."""
    table = table_of(events, name)
    if table.weights is not None:
        raise ValueError(f"{name} has weights, which would not be counted; give unweighted events")
    if posterior is not None:
        table = table_of(posterior.predictor.in_order(table), name)
    features = None if posterior is None else posterior.model.features
    values = np.asarray(as_rows(table.values, features), dtype=np.float64)
    layout = None if posterior is None else posterior.model.multiplicity
    if layout is not None:
        check_rows(values, features, name, table.names, layout)
    elif values.ndim != 2 or len(values) == 0 or not np.isfinite(values).all():
        raise ValueError(f"{name} has shape {list(values.shape)}; it must be finite numbers [N, d] with N > 0")
    return values
