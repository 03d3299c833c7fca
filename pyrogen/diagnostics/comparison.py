"""How far two posteriors are from each other and from the truth, and a table of all backends on one sample."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pyrogen.checks import whole_number
from pyrogen.diagnostics.convergence import function_space, has_chains, probe_points
from pyrogen.diagnostics.lines import LineResult, density_along_lines
from pyrogen.events import EventSample
from pyrogen.inference.posterior import Posterior
from pyrogen.inference.weights import WeightPosterior

Array = NDArray[np.float64]
Range = tuple[tuple[float, float], tuple[float, float]]
NUMBERS = 1 << 22  # largest number of log densities [draws, events] held at once
LEVELS = (1.0, 2.0)  # numbers of sigma at which coverage is counted


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
    if not 0 < cell < math.inf:
        raise ValueError(f"cell is {cell}; it must be the volume of a grid cell, positive and finite")
    for name, values in (("p", a), ("q", b)):
        if not (np.isfinite(values) & (values >= 0)).all():
            raise ValueError(f"{name} must be finite and not negative, got values {values.min()} to {values.max()}")
        if abs(values.sum() * cell - 1) > tolerance:
            raise ValueError(
                f"{name} sums to {values.sum() * cell:.4g} over the grid; it must be 1 within {tolerance}: let the "
                "grid cover all of the density, in smaller cells"
            )
    return float(0.5 * np.abs(a - b).sum() * cell)


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
        draws: weight draws of each predictive density (at most all stored); None: 50.
        seed: seeds the weight draws.

    Raises:
        ValueError: as in :func:`total_variation`, a range that does not increase, or other than two features.
    """
    centres, cell = _grid(grid_range, cells)
    a, b = (_density(posterior, centres, draws, seed) for posterior in (posterior_a, posterior_b))
    return total_variation(a, b, cell)


def wasserstein(a_events: Any, b_events: Any) -> Array:
    """Wasserstein-1 distance of each column's distribution, ``[d]`` in the unit of the column.

    Two samples of n events of one distribution still are of the order of its width / sqrt(n) apart.

    Args:
        a_events: events ``[N, d]``, a tensor, an array or an :class:`~pyrogen.EventSample`.
        b_events: events ``[M, d]``.

    Raises:
        ValueError: empty samples, numbers that are not finite, or different numbers of columns.
    """
    from scipy.stats import wasserstein_distance  # here: scipy.stats takes a second, and comes with ArviZ

    a, b = _events("a_events", a_events), _events("b_events", b_events)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"a_events has {a.shape[1]} columns and b_events has {b.shape[1]}; they must be the same")
    return np.array([wasserstein_distance(a[:, i], b[:, i]) for i in range(a.shape[1])])


def held_out_log_likelihood(
    posterior: Posterior, events: Any, draws: int | None = None, seed: int = 0
) -> tuple[float, float]:
    """Mean log of the predictive density ``<p(x|theta)>`` of events that were not trained on.

    Args:
        posterior: the posterior.
        events: held-out events ``[N, d]``, at least two.
        draws: weight draws (at most all stored); None: 50.
        seed: seeds the weight draws.

    Returns:
        The mean in nats per event, and its standard error from the spread over events. The mean is -inf, and its error
        NaN, where the predictive density of an event is zero. The same events make differences between posteriors
        much better known than either value.

    Raises:
        ValueError: events that are not finite, of the wrong shape, or fewer than two.
    """
    values = _events("events", events)
    if len(values) < 2:
        raise ValueError(f"events holds {len(values)} event; a standard error needs at least two")
    draws = _capped(posterior, draws)
    step = max(1, NUMBERS // draws)
    parts = []
    for start in range(0, len(values), step):
        log_density = posterior.log_prob(values[start : start + step], draws, seed=seed).double()
        parts.append(torch.logsumexp(log_density, 0) - math.log(draws))
    log_density = torch.cat(parts)
    if log_density.isinf().any():
        return float(log_density.mean()), math.nan
    return float(log_density.mean()), float(log_density.std() / math.sqrt(len(values)))


def coverage(lines: LineResult, levels: Sequence[float] = LEVELS) -> dict[float, float]:
    """Fraction of all points of all lines at which the truth is within k sigma, for every k of ``levels``."""
    return {k: lines.within(k) for k in levels}


@dataclass(frozen=True)
class Comparison:
    """Several posteriors of one sample, compared with a reference and the truth.

    Attributes:
        rows: one dictionary per backend, in JSON types; None stands for what a backend does not have. ``mean``,
            ``sigma``: predicted density and uncertainty, averaged along the lines; ``truth``: the true density
            likewise; ``sigma_ratio``: sigma over the reference's, geometric mean over the points; ``rms_bias``;
            ``within_1``, ``within_2``: fraction of points with the truth within 1 and 2 sigma; ``tv_reference``,
            ``tv_truth``: total variation of the predictive densities; ``w1_reference``: Wasserstein-1 distance of every
            column; ``held_out``, ``held_out_error``: log-likelihood in nats per event; ``rhat``, ``ess``: of the worst
            probe point; ``gradients``: passes over the sample of every chain; ``seconds``; ``warnings``: how many.
            The row of a reference with stored draws has its distances between two halves of its chains: the noise
            that distances to it have.
        lines: density and uncertainty along the lines, by backend.
        reference: name of the reference.
    """

    rows: list[dict[str, Any]]
    lines: dict[str, LineResult]
    reference: str

    def text(self) -> str:
        """The table as aligned plain text, the distances of several columns by the largest."""
        cells = [[title for title, _, _ in _COLUMNS]]
        cells += [[_cell(row, key, form) for _, key, form in _COLUMNS] for row in self.rows]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(r, widths, strict=True)))
            for r in cells
        ]
        lines.append(f"true mean density {self.rows[0]['truth']:.4f}; distances are to {self.reference}")
        if any(row["backend"] == self.reference and row["tv_reference"] is not None for row in self.rows):
            lines[-1] += ", its own between two halves of its chains"
        return "\n".join(lines)


def compare(
    posteriors: Mapping[str, Posterior],
    target: Any,
    reference: str = "HMC",
    *,
    grid_range: Range,
    cells: int = 60,
    t: ArrayLike | Tensor | None = None,
    draws: int = 200,
    probes: int = 100,
    held_out: int = 5_000,
    generated: int = 20_000,
    seed: int = 0,
) -> Comparison:
    """Compare posteriors of one sample, say those of several backends, with a reference and with the truth.

    Args:
        posteriors: posteriors over densities of two features, by name.
        target: the truth, a line target of :mod:`pyrogen.targets`.
        reference: the name of the posterior that the others are held against.
        grid_range: range ``((x_low, x_high), (y_low, y_high))`` of the grid for total variations.
        cells: its cells along each direction.
        t: points along the lines; by default those of :func:`density_along_lines`.
        draws: weight draws of every prediction; where fewer are stored, all.
        probes: number of probe points for R-hat and ESS.
        held_out: number of held-out events, drawn from the target.
        generated: events generated by every posterior for the Wasserstein distances.
        seed: seeds weight draws and events.

    Raises:
        ValueError: a reference that is not among the posteriors, and as in :func:`total_variation`.
    """
    if reference not in posteriors:
        raise ValueError(f"reference is {reference!r}; it must be one of {', '.join(map(repr, posteriors))}")
    centres, cell = _grid(grid_range, cells)
    truth = target.log_prob(centres).exp()
    events = probe_points(target, whole_number("held_out", held_out, 2), seed)
    probe = probe_points(target, probes, seed + 1)

    lines, densities, samples = {}, {}, {}
    for i, (name, posterior) in enumerate(posteriors.items()):
        count = _capped(posterior, draws)
        lines[name] = density_along_lines(posterior, target, t, draws=count, seed=seed)
        densities[name] = _density(posterior, centres, count, seed)
        samples[name] = posterior.sample(generated, count, seed=seed + i)  # the same noise would hide distances
    rows = []
    for name, posterior in posteriors.items():
        line = lines[name]
        distances: tuple[float | None, list[float] | None]
        if name == reference:
            distances = _own_noise(posterior, centres, cell, draws, generated, seed)
        else:
            distances = (
                _if_possible(name, total_variation, densities[name], densities[reference], cell),
                wasserstein(samples[name], samples[reference]).tolist(),
            )
        within = coverage(line)
        log_likelihood, error = held_out_log_likelihood(posterior, events, draws, seed)
        chains = _if_possible(name, function_space, posterior, probe) if has_chains(posterior) else None
        row = {
            "backend": name,
            "mean": float(line.density.mean()),
            "sigma": float(line.sigma.mean()),
            "truth": float(line.truth.mean()),
            "sigma_ratio": _geometric_mean(line.sigma, lines[reference].sigma),
            "rms_bias": line.rms_bias,
            "within_1": within[1.0],
            "within_2": within[2.0],
            "tv_reference": distances[0],
            "tv_truth": _if_possible(name, total_variation, densities[name], truth, cell),
            "w1_reference": distances[1],
            "held_out": log_likelihood,
            "held_out_error": error,
            "rhat": None if chains is None else chains.largest_rhat,
            "ess": None if chains is None else chains.smallest_ess,
            **_cost(posterior),
            "warnings": len(posterior.info.get("warnings", [])),
        }
        rows.append({key: _json(value) for key, value in row.items()})
    return Comparison(rows, lines, reference)


def _if_possible(name: str, number: Callable[..., Any], *arguments: Any) -> Any:
    """A number of the table, or None and a warning: one backend that went wrong must not cost all others theirs."""
    try:
        return number(*arguments)
    except ValueError as error:
        warnings.warn(f"{name}: {error}", stacklevel=3)
        return None


_COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("backend", "backend", "s"),
    ("mean", "mean", ".4f"),
    ("sigma", "sigma", ".4f"),
    ("sigma/ref", "sigma_ratio", ".2f"),
    ("rms bias", "rms_bias", ".4f"),
    ("in 1 s", "within_1", ".1%"),
    ("in 2 s", "within_2", ".1%"),
    ("TV ref", "tv_reference", ".4f"),
    ("TV truth", "tv_truth", ".4f"),
    ("W1 ref", "w1_reference", ".4f"),
    ("held-out", "held_out", ".4f"),
    ("+-", "held_out_error", ".4f"),
    ("R-hat", "rhat", ".3f"),
    ("ESS", "ess", ".0f"),
    ("gradients", "gradients", ",.0f"),
    ("seconds", "seconds", ",.0f"),
    ("warnings", "warnings", "d"),
)


def _cell(row: dict[str, Any], key: str, form: str) -> str:
    value = row[key]
    value = max(value) if isinstance(value, list) else value
    return "-" if value is None else format(value, form)


def _json(value: Any) -> Any:
    """None for numbers that JSON does not know."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _own_noise(
    posterior: Posterior, centres: Tensor, cell: float, draws: int, generated: int, seed: int
) -> tuple[float | None, list[float] | None]:
    """Distances between two halves of the draws: every other chain, or the halves of a single one."""
    stored = posterior.weights.arrays.get("draws")
    if stored is None or stored.shape[:2].numel() < 4:
        return None, None
    parts = (stored[::2], stored[1::2]) if len(stored) > 1 else stored.tensor_split(2, 1)
    halves = [Posterior(posterior.model, WeightPosterior("draws", {"draws": part})) for part in parts]
    counts = [_capped(half, draws) for half in halves]
    a, b = (_density(half, centres, count, seed) for half, count in zip(halves, counts, strict=True))
    events = [
        half.sample(generated, count, seed=seed + i) for i, (half, count) in enumerate(zip(halves, counts, strict=True))
    ]
    return total_variation(a, b, cell), wasserstein(*events).tolist()


def _cost(posterior: Posterior) -> dict[str, float | None]:
    """Gradient evaluations, in passes over the sample, and seconds; None where the posterior does not tell."""
    info, history = posterior.info, posterior.history
    gradients, seconds = info.get("gradients"), info.get("seconds")
    if gradients is None and "epochs_done" in info:
        gradients = float(info["epochs_done"] * info["settings"].get("num_particles", 1))
    if seconds is None and len(history.get("seconds", ())):
        seconds = float(history["seconds"][-1])
    return {"gradients": gradients, "seconds": seconds}


def _geometric_mean(values: Array, others: Array) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.exp(np.mean(np.log(values / others))))


def _capped(posterior: Posterior, draws: int | None) -> int:
    """A number of weight draws that the posterior has."""
    draws = 50 if draws is None else whole_number("draws", draws, 1)
    return min(draws, posterior.weights.stored or draws)


def _density(posterior: Posterior, points: Tensor, draws: int | None, seed: int) -> Array:
    if posterior.model.features != 2:
        raise ValueError(f"the posterior is over {posterior.model.features} features; a grid has two")
    return posterior.density(points, _capped(posterior, draws), seed=seed).mean.cpu().numpy()


def _grid(grid_range: Range, cells: int) -> tuple[Tensor, float]:
    """Centres of the cells ``[cells^2, 2]`` and their area."""
    cells = whole_number("cells", cells, 1)
    sides = np.asarray(grid_range, dtype=np.float64)
    if sides.shape != (2, 2) or not np.isfinite(sides).all() or not (sides[:, 0] < sides[:, 1]).all():
        raise ValueError(f"grid_range is {grid_range}; it must be ((x_low, x_high), (y_low, y_high)), increasing")
    middle = (np.arange(cells) + 0.5) / cells
    x, y = (torch.from_numpy(low + (high - low) * middle) for low, high in sides)
    return torch.cartesian_prod(x, y), float(np.prod((sides[:, 1] - sides[:, 0]) / cells))


def _array(values: Any) -> Array:
    return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.float64)


def _events(name: str, events: Any) -> Array:
    values = _array(events.values if isinstance(events, EventSample) else events)
    if values.ndim != 2 or len(values) == 0 or not np.isfinite(values).all():
        raise ValueError(f"{name} has shape {list(values.shape)}; it must be finite numbers [N, d] with N > 0")
    return values
