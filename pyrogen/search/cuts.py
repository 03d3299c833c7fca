"""What is left after a cut on the score, and what of it the sidebands explain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyrogen.labelled import Labelled
from pyrogen.search.background import MassFit, Template
from pyrogen.search.scoring import Scored
from pyrogen.search.shares import SearchSample

Array = NDArray[np.float64]
SLICES = 4  # of the mass in each region
LEAST = 0.5  # sideband events that pass, where none does


@dataclass(frozen=True, kw_only=True, repr=False)
class CutTable(Labelled):
    """Events and background after C cuts, the loosest first.

    Attributes:
        efficiency: fraction of the background that the cut leaves, ``[C]``. It decides the thresholds. Where many
            events have the same score, as few small trees give it, more are left: ``background`` says how many.
        thresholds: on the score, for each fold, ``[folds, C]``; an event at the threshold passes.
        observed: O, events of the signal region that pass, ``[C]``.
        background: B, mean over the posterior draws.
        sigma_posterior: from the spread of the draws. The flows learned different events, so their variances add. A
            mean of K draws differs from the mean of all of them, too: a variance is multiplied by ``1 + 1/K``.
        sigma_mass: from the fit of the mass spectrum.
        sigma_template: from the number of generated events.
        corrected: the sideband events that pass, times the ratio of signal region to sidebands that the flows predict,
            ``[C]``; NaN with fewer than three flows. What all flows get wrong in the same way cancels.
        sigma_corrected: of the number of these events, and of the ratio.
        sideband_observed: events that pass, ``[C, 2]``: lower and upper sideband.
        sideband_background, sideband_sigma: what the flows say there, and the spread of the draws, ``[C, 2]``. The
            number of events before the cut is the observed one.
        slice_edges: of slices of the mass, four in each region, ``[S + 1]``.
        slice_observed: events that pass in each slice, ``[C, S]``.
        slice_background, slice_sigma: what the flows say, and the spread of the draws with the noise of the generated
            events. Before the cut there are as many events as the fit of the masses says in the signal region, and as
            many as were observed beside it.
        slice_efficiency, slice_error: fraction of the generated background that passes, and its binomial error; NaN in
            a slice without events before the cut.
    """

    _dims: ClassVar[Mapping[str, str]] = {
        "efficiency": "cut",
        "thresholds": "fold cut",
        "observed": "cut",
        "background": "cut",
        "sigma_posterior": "cut",
        "sigma_mass": "cut",
        "sigma_template": "cut",
        "corrected": "cut",
        "sigma_corrected": "cut",
        "sideband_observed": "cut sideband",
        "sideband_background": "cut sideband",
        "sideband_sigma": "cut sideband",
        "slice_edges": "slice_edge",
        "slice_observed": "cut slice",
        "slice_background": "cut slice",
        "slice_sigma": "cut slice",
        "slice_efficiency": "cut slice",
        "slice_error": "cut slice",
        "sigma": "cut",
    }
    _at: ClassVar[tuple[str, ...]] = ("efficiency",)

    efficiency: Array
    thresholds: Array
    observed: Array
    background: Array
    sigma_posterior: Array
    sigma_mass: Array
    sigma_template: Array
    corrected: Array
    sigma_corrected: Array
    sideband_observed: Array
    sideband_background: Array
    sideband_sigma: Array
    slice_edges: Array
    slice_observed: Array
    slice_background: Array
    slice_sigma: Array
    slice_efficiency: Array
    slice_error: Array

    @property
    def sigma(self) -> Array:
        """delta_B, all three together, ``[C]``."""
        return np.sqrt(self.sigma_posterior**2 + self.sigma_mass**2 + self.sigma_template**2)

    def __len__(self) -> int:
        return len(self.efficiency)

    def _summary(self) -> str:
        return f"{len(self)} cuts, background efficiencies {self.efficiency[0]:g} to {self.efficiency[-1]:g}"


def cuts_of(
    sample: SearchSample,
    fit: MassFit,
    scored: Scored,
    backgrounds: Sequence[Template],
    sidebands: Sequence[Template],
    efficiency: Array,
) -> CutTable:
    """Apply cuts that leave these fractions ``[C]`` of the generated background."""
    thresholds = np.stack([np.quantile(its, 1 - efficiency) for its in scored.backgrounds])
    passed = scored.members.mean(0) >= thresholds[sample.scored_by].T  # [C, N]
    slices = _Slices.of(sample, fit, backgrounds, sidebands)
    rows = [
        _row(sample, fit, scored, backgrounds, sidebands, thresholds[:, c], passed[c])
        | slices.row(sample, scored, backgrounds, sidebands, thresholds[:, c], passed[c])
        for c in range(len(efficiency))
    ]
    table = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return CutTable(efficiency=efficiency, thresholds=thresholds, slice_edges=slices.edges, **table)


def _row(
    sample: SearchSample,
    fit: MassFit,
    scored: Scored,
    backgrounds: Sequence[Template],
    sidebands: Sequence[Template],
    thresholds: Array,
    passed: NDArray[np.bool_],
) -> dict[str, Any]:
    """One cut in the three regions."""
    inside = np.full((sample.folds, 1), fit.total / sample.folds)  # background events of each fold
    everywhere = [np.zeros(len(template), dtype=np.int64) for template in backgrounds]
    found = _predicted(sample, scored.backgrounds, backgrounds, thresholds, inside, everywhere)
    sides = [sample.side == side for side in (0, 2)]
    before = np.stack([np.bincount(sample.scored_by[rows], minlength=sample.folds) for rows in sides], -1)
    which = [(template.mass >= sample.regions.signal[0]).astype(np.int64) for template in sidebands]
    beside = _predicted(sample, scored.sidebands, sidebands, thresholds, before.astype(np.float64), which)
    corrected, sigma = _corrected(sample, found, beside, float((passed & ~sample.in_signal).sum()), fit)
    return {
        "corrected": corrected,
        "sigma_corrected": sigma,
        "observed": float((passed & sample.in_signal).sum()),
        "background": float(found.mean[0]),
        "sigma_posterior": float(np.sqrt(found.posterior[0])),
        "sigma_template": float(np.sqrt(found.noise[0])),
        "sigma_mass": float(found.mean[0] * fit.sigma / fit.total),
        "sideband_observed": np.array([(passed & rows).sum() for rows in sides], dtype=np.float64),
        "sideband_background": beside.mean,
        "sideband_sigma": beside.sigma,
    }


def _corrected(
    sample: SearchSample, inside: _Predicted, beside: _Predicted, observed: float, fit: MassFit
) -> tuple[float, float]:
    """The background by the transfer factor of the flows, from the ``observed`` sideband events, and its sigma."""
    b, p = float(inside.mean.sum()), float(beside.mean.sum())
    if not sample.checked or min(b, p) <= 0:
        return np.nan, np.nan
    factor, seen = b / p, max(observed, LEAST)
    # What a draw changes inside and beside alike cancels.
    spread = sum(
        (its.sum(1) - factor * others.sum(1)).var(ddof=1) * (1 + 1 / len(its))
        for its, others in zip(inside.draws, beside.draws, strict=True)
    )
    relative = spread / b**2 + (fit.sigma / fit.total) ** 2
    relative += inside.noise.sum() / b**2 + beside.noise.sum() / p**2 + 1 / seen
    return factor * seen, factor * seen * float(np.sqrt(relative))


@dataclass(frozen=True)
class _Slices:
    """Slices of the mass in all regions: edges, events of each fold before the cut ``[folds, S]``, generated events."""

    edges: Array
    before: Array
    inside: list[NDArray[np.int64]]
    beside: list[NDArray[np.int64]]

    @classmethod
    def of(
        cls, sample: SearchSample, fit: MassFit, backgrounds: Sequence[Template], sidebands: Sequence[Template]
    ) -> _Slices:
        cuts = (sample.regions.window[0], *sample.regions.signal, sample.regions.window[1])
        ends = zip(cuts, cuts[1:], strict=False)
        edges = np.unique(np.concatenate([np.linspace(low, high, SLICES + 1) for low, high in ends]))
        numbers = _numbers(sample.mass, edges)
        before = np.zeros((sample.folds, len(edges) - 1))
        np.add.at(before, (sample.scored_by, numbers), 1.0)
        middle = (fit.edges[1:] + fit.edges[:-1]) / 2
        before[:, SLICES : 2 * SLICES] = np.histogram(middle, edges, weights=fit.expected)[0][SLICES : 2 * SLICES]
        before[:, SLICES : 2 * SLICES] /= sample.folds
        inside, beside = ([_numbers(its.mass, edges) for its in these] for these in (backgrounds, sidebands))
        return cls(edges, before, inside, beside)

    def row(
        self,
        sample: SearchSample,
        scored: Scored,
        backgrounds: Sequence[Template],
        sidebands: Sequence[Template],
        thresholds: Array,
        passed: NDArray[np.bool_],
    ) -> dict[str, Array]:
        """One cut."""
        first = _predicted(sample, scored.backgrounds, backgrounds, thresholds, self.before, self.inside)
        second = _predicted(sample, scored.sidebands, sidebands, thresholds, self.before, self.beside)
        mean = first.mean + second.mean
        size = self.before.sum(0)
        return {
            "slice_observed": np.histogram(sample.mass[passed], self.edges)[0].astype(np.float64),
            "slice_background": mean,
            "slice_sigma": np.hypot(first.sigma, second.sigma),
            "slice_efficiency": _over(mean, size),
            "slice_error": _over(np.sqrt(first.noise + second.noise), size),
        }


def _over(values: Array, size: Array) -> Array:
    """Fractions; NaN of nothing."""
    return np.divide(values, size, out=np.full(len(size), np.nan), where=size > 0)


def _numbers(mass: Array, edges: Array) -> NDArray[np.int64]:
    """The slice of each mass; the last one has its upper end."""
    return np.clip(np.searchsorted(edges, mass, "right") - 1, 0, len(edges) - 2)


class _Predicted(NamedTuple):
    """Background that passes, the variance of its draws, and that of the generated events, ``[P]`` each.

    ``draws`` are those of each flow, ``[K, P]``.
    """

    mean: Array
    posterior: Array
    noise: Array
    draws: list[Array]

    @property
    def sigma(self) -> Array:
        return np.sqrt(self.posterior + self.noise)


def _predicted(
    sample: SearchSample,
    scores: Sequence[Array],
    templates: Sequence[Template],
    thresholds: Array,
    before: Array,
    parts: Sequence[NDArray[np.int64]],
) -> _Predicted:
    """Background that passes the cut in P parts of the mass.

    Args:
        sample: the search.
        scores: of the generated events, for each fold.
        templates: of each flow.
        thresholds: of each fold.
        before: events before the cut, ``[folds, P]``.
        parts: the part of each generated event of each flow; a part without generated events counts nothing.
    """
    mean, posterior, noise = np.zeros((3, before.shape[1]))
    of_flows = []
    for flow, (template, part) in enumerate(zip(templates, parts, strict=True)):
        folds = [k for k in range(sample.folds) if sample.flow_of(k) == flow]
        passing = np.stack([scores[k] >= thresholds[k] for k in folds])
        of_flows.append(np.zeros((template.draws, before.shape[1])))
        for p in np.unique(part):
            inside = part == p
            # How many events each generated event stands for, over all folds in which it passes.
            stands = before[folds, p] @ passing[:, inside]
            weights = template.weights[:, inside]
            draws = (weights @ stands.astype(np.float32)).astype(np.float64) / weights.sum(1, dtype=np.float64)
            of_flows[-1][:, p] = draws
            mean[p] += draws.mean()
            posterior[p] += draws.var(ddof=1) * (1 + 1 / len(draws))
            # Where none passes, or all do, the error is that of one event more or less.
            noise[p] += (stands.var() or before[folds, p].sum() ** 2 / inside.sum()) / inside.sum()
    return _Predicted(mean, posterior, noise, of_flows)
