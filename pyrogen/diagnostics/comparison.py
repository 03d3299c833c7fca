"""How far two posteriors are from each other and from the truth, and a table of all backends on one sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pyrogen.checks import (
    COUNT,
    POSITIVE,
    SEED,
    TEXT,
    dictionary,
    door,
    each,
    having,
    optional,
    whole,
)
from pyrogen.coverage.chains import has_chains
from pyrogen.diagnostics.convergence import function_space, probe_points
from pyrogen.diagnostics.distances import Range, event_table, grid_centres, grid_density, total_variation, wasserstein
from pyrogen.diagnostics.lines import LINES, LineResult, density_along_lines
from pyrogen.diagnostics.predictive import elpd, guide_pareto_k
from pyrogen.events.doors import EVENTS
from pyrogen.posterior.posterior import POSTERIOR, Posterior
from pyrogen.posterior.weights import StoredDraws
from pyrogen.printing import Brief
from pyrogen.warn import warn

Array = NDArray[np.float64]
DRAWS = 200  # weight draws of a prediction where none are asked for
LEVELS = (1.0, 2.0)  # numbers of sigma at which coverage is counted


@door(lines=LINES, levels=each(POSITIVE, "numbers of sigma, such as (1, 2)", 1))
def coverage(lines: LineResult, levels: Sequence[float] = LEVELS) -> dict[float, float]:
    """Fraction of all points of all lines at which the truth is within k sigma, for every k of ``levels``.

    Raises:
        ValueError: no levels, or one that is not positive.
    """
    return {k: lines.within(k) for k in levels}


@door(a=LINES, b=LINES, k=POSITIVE)
def band_overlap(a: LineResult, b: LineResult, k: float = 1.0) -> float:
    """How far two k-sigma bands agree: length common to both over length covered by either, mean over all points.

    1 for the same bands, 0 for bands that nowhere meet; with the same centre it is the smaller sigma over the larger.

    Raises:
        ValueError: lines of other points.
    """
    if a.means.shape != b.means.shape or not (np.array_equal(a.t, b.t) and np.array_equal(a.positions, b.positions)):
        raise ValueError("the two results are not on the same points of the same lines")
    low, high = (np.stack([line.means + sign * k * line.stds for line in (a, b)]) for sign in (-1, 1))
    common = np.clip(high.min(0) - low.max(0), 0, None)
    either = (high - low).sum(0) - common
    return float(np.divide(common, either, out=np.zeros_like(common), where=either > 0).mean())


@dataclass(frozen=True, repr=False)
class Comparison(Brief):
    """Several posteriors of one sample, compared with a reference and the truth.

    Attributes:
        rows: one dictionary per backend, in JSON types; None stands for what a backend does not have. ``mean``,
            ``sigma``: predicted density and uncertainty, averaged along the lines; ``truth``: the true density
            likewise; ``sigma_ratio``: sigma over the reference's, geometric mean over the points; ``band_overlap``: of
            the one-sigma band with the reference's, by :func:`band_overlap`; ``rms_bias``; ``within_1``, ``within_2``:
            fraction of points with the truth within 1 and 2 sigma; ``tv_reference``, ``tv_truth``: total variation of
            the predictive densities; ``w1_reference``: Wasserstein-1 distance of every column; ``held_out``,
            ``held_out_error``: log predictive density in nats per event; ``elpd_difference``,
            ``elpd_difference_error``: to the reference, in nats for all held-out events; ``pareto_k``: of the guide,
            by :func:`~pyrogen.diagnostics.guide_pareto_k`, where the training events are given; ``rhat``, ``ess``: of
            the worst probe point; ``gradients``: passes over the sample of every chain; ``seconds``; ``warnings``: how
            many.
            The row of a reference with stored draws has its distances between two halves of its chains: the noise
            that distances to it have.
        lines: density and uncertainty along the lines, by backend.
        reference: name of the reference.
    """

    rows: list[dict[str, Any]]
    lines: dict[str, LineResult]
    reference: str

    def _summary(self) -> str:
        return f"{', '.join(str(row['backend']) for row in self.rows)}; reference {self.reference}"

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


@door(
    posteriors=dictionary(POSTERIOR),
    target=having("a target", "log_prob", "sample", "line"),
    reference=TEXT,
    cells=whole(1),
    draws=COUNT,
    probes=whole(1),
    held_out=whole(2),
    generated=whole(1),
    trained_on=optional(EVENTS),
    seed=SEED,
)
def compare(
    posteriors: Mapping[str, Posterior],
    target: Any,
    reference: str = "HMC",
    *,
    grid_range: Range,
    cells: int = 60,
    t: ArrayLike | Tensor | None = None,
    draws: int | None = None,
    probes: int = 100,
    held_out: int = 5_000,
    generated: int = 20_000,
    trained_on: Any = None,
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
        draws: weight draws of every prediction; None: 200, or all where fewer are stored.
        probes: number of probe points for R-hat and ESS.
        held_out: number of held-out events, drawn from the target.
        generated: events generated by every posterior for the Wasserstein distances.
        trained_on: the training events ``[N, 2]``, for the guides' Pareto k; None: not computed.
        seed: seeds weight draws and events.

    Raises:
        ValueError: a reference that is not among the posteriors, and as in :func:`total_variation`.
    """
    if reference not in posteriors:
        raise ValueError(f"reference is {reference!r}; it must be one of {', '.join(map(repr, posteriors))}")
    trained_on = None if trained_on is None else event_table("trained_on", trained_on)
    centres, cell = grid_centres(grid_range, cells)
    truth = target.log_prob(centres).exp()
    events = probe_points(target, held_out, seed)
    probe = probe_points(target, probes, seed + 1)

    lines, densities, samples, scores = {}, {}, {}, {}
    for i, (name, posterior) in enumerate(posteriors.items()):
        count = posterior.weights.count(draws, DRAWS)
        lines[name] = density_along_lines(posterior, target, t, draws=count, seed=seed)
        densities[name] = grid_density(posterior, centres, count, seed)
        samples[name] = posterior.sample(generated, count, seed=seed + i)  # the same noise would hide distances
        scores[name] = elpd(posterior, events, draws=count, seed=seed)
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
        difference, difference_error = scores[name].minus(scores[reference])
        gaussian = posterior.weights.has_density
        k = None
        if gaussian and trained_on is not None:
            k = _if_possible(name, guide_pareto_k, posterior, trained_on)
        chains = _if_possible(name, function_space, posterior, probe) if has_chains(posterior) else None
        row = {
            "backend": name,
            "mean": float(line.density.mean()),
            "sigma": float(line.sigma.mean()),
            "truth": float(line.truth.mean()),
            "sigma_ratio": _geometric_mean(line.sigma, lines[reference].sigma),
            "band_overlap": band_overlap(line, lines[reference]),
            "rms_bias": line.rms_bias,
            "within_1": within[1.0],
            "within_2": within[2.0],
            "tv_reference": distances[0],
            "tv_truth": _if_possible(name, total_variation, densities[name], truth, cell),
            "w1_reference": distances[1],
            "held_out": scores[name].mean,
            "held_out_error": scores[name].error,
            "elpd_difference": difference,
            "elpd_difference_error": difference_error,
            "pareto_k": k,
            "rhat": None if chains is None else chains.largest_rhat,
            "ess": None if chains is None else chains.smallest_ess,
            **_cost(posterior),
            "warnings": len(posterior.info.findings),
        }
        rows.append({key: _json(value) for key, value in row.items()})
    return Comparison(rows, lines, reference)


def _if_possible(name: str, number: Callable[..., Any], *arguments: Any) -> Any:
    """A number of the table, or None and a warning: one backend that went wrong must not cost all others theirs."""
    try:
        return number(*arguments)
    except ValueError as error:
        warn(f"{name}: {error}")
        return None


_COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("backend", "backend", "s"),
    ("mean", "mean", ".4f"),
    ("sigma", "sigma", ".4f"),
    ("sigma/ref", "sigma_ratio", ".2f"),
    ("overlap", "band_overlap", ".2f"),
    ("rms bias", "rms_bias", ".4f"),
    ("in 1 s", "within_1", ".1%"),
    ("in 2 s", "within_2", ".1%"),
    ("TV ref", "tv_reference", ".4f"),
    ("TV truth", "tv_truth", ".4f"),
    ("W1 ref", "w1_reference", ".4f"),
    ("held-out", "held_out", ".4f"),
    ("elpd - ref", "elpd_difference", ".2f"),
    ("+-", "elpd_difference_error", ".2f"),
    ("k", "pareto_k", ".2f"),
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
    posterior: Posterior, centres: Tensor, cell: float, draws: int | None, generated: int, seed: int
) -> tuple[float | None, list[float] | None]:
    """Distances between two halves of the draws: every other chain, or the halves of a single one."""
    stored = posterior.weights.arrays.get("draws")
    if stored is None or stored.shape[:2].numel() < 4:
        return None, None
    parts = (stored[::2], stored[1::2]) if len(stored) > 1 else stored.tensor_split(2, 1)
    halves = [Posterior(posterior.model, StoredDraws(part)) for part in parts]
    counts = [half.weights.at_most(draws or DRAWS) for half in halves]
    a, b = (grid_density(half, centres, count, seed) for half, count in zip(halves, counts, strict=True))
    events = [
        half.sample(generated, count, seed=seed + i) for i, (half, count) in enumerate(zip(halves, counts, strict=True))
    ]
    return total_variation(a, b, cell), wasserstein(*events).tolist()


def _cost(posterior: Posterior) -> dict[str, float | None]:
    """Gradient evaluations, in passes over the sample, and seconds; None where the posterior does not tell."""
    return {"gradients": posterior.info.gradients, "seconds": posterior.info.seconds}


def _geometric_mean(values: Array, others: Array) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.exp(np.mean(np.log(values / others))))
