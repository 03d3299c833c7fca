"""The calibration of histograms: bins of observables in many trainings, held against other true events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pyrogen.bayes.inputs import as_tensor
from pyrogen.checks import BOOLEAN, COUNT, NOT_NEGATIVE, SEED, TEXT, dictionary, door, each, optional, require, whole
from pyrogen.coverage.calibration import TWO_SIGMA, Calibration, calibration_of
from pyrogen.diagnostics.quantile_bins import QuantileBinResult
from pyrogen.events import EventsLike
from pyrogen.events.doors import ROWS
from pyrogen.posterior.binning import bins_of
from pyrogen.posterior.histograms import observable_values
from pyrogen.posterior.posterior import POSTERIOR, Posterior
from pyrogen.printing import Brief
from pyrogen.seeds import stream

Array = NDArray[np.float64]
ALL = "all"  # the group of all bins
ROUNDING = 1e-9  # of a spread: a smaller sigma is none
GROUPS = dictionary(each(TEXT, "names of observables"), "a dictionary of names of observables")


@dataclass(frozen=True, repr=False)
class BinCalibration(Brief):
    """How often the error bars of histograms hold the truth, over R trainings.

    Attributes:
        intervals: the calibration of every observable, every group, and ``"all"`` bins. Its quantities are the
            probabilities of the bins, and its intervals contain the error of the truth.
        alone: the same of sigma alone, as if the truth were known exactly.
        observables: names of the observables among the keys; all bins of the others expect too few events.
        truth_events: number of events of the truth, of weighted ones their effective number; infinite where their
            error was left out.
    """

    intervals: dict[str, Calibration]
    alone: dict[str, Calibration]
    observables: tuple[str, ...]
    truth_events: float

    def _summary(self) -> str:
        whole_of = self.intervals[ALL]
        found, error = whole_of.fraction()
        return (
            f"{whole_of.ranks.shape[1]} bins of {len(self.observables)} observables in {whole_of.trainings} trainings, "
            f"{found:.1%} +- {error:.1%} within 1 sigma: {whole_of.verdict}"
        )

    @door(name=TEXT)
    def sigma_ratio(self, name: str = ALL) -> tuple[float, float]:
        """Sigma over the spread of the trainings, and its error, in the bins that have a sigma.

        In other bins the noise of the generated events explains all of it: there more events are needed.

        Raises:
            ValueError: an unknown name.
        """
        require(name in self.alone, "name", name, f"one of {', '.join(self.alone)}")
        alone = self.alone[name]
        kept = _has_sigma(alone)
        cut = {key: getattr(alone, key)[:, kept] for key in ("ranks", "means", "sigmas")}
        left = replace(alone, **cut, truth=alone.truth[..., kept], at=alone.at[kept])
        return left.sigma_ratio() if kept.any() else (0.0, 0.0)

    def text(self) -> str:
        """A table of all observables and groups, and the verdict on all bins."""
        width = max(10, *map(len, self.intervals))
        with_error = np.isfinite(self.truth_events)
        lines = [f"truth: {self.truth_events:,.0f} events, whose own error is in the intervals"] if with_error else []
        lines.append(
            f"{'bins of':{width}} {'bins':>5} {'within 1 sigma':>16} {'2 sigma':>15} {'pull width':>12} {'score':>6} "
            "sigma / spread"
        )
        for name, one in self.intervals.items():
            within = [f"{100 * f:.1f} +- {100 * e:.1f} %" for f, e in (one.fraction(), one.fraction(TWO_SIGMA))]
            pull, ratio = (f"{value:.2f} +- {error:.2f}" for value, error in (one.pull_width(), self.sigma_ratio(name)))
            lines.append(
                f"{name:{width}} {one.ranks.shape[1]:5} {within[0]:>16} {within[1]:>15} {pull:>12} {one.score:6.3f} "
                f"{ratio:>14}"
            )
        silent = sum(int((~_has_sigma(self.alone[name])).sum()) for name in self.observables)
        if silent:
            lines.append(f"{silent} bins have no sigma beside the noise of the generated events; generate more events")
        verdict = f"{ALL}: {self.intervals[ALL].verdict}" if with_error else self.alone[ALL].text()
        return "\n".join([*lines, "", verdict])


@door(
    posteriors=each(POSTERIOR, "a sequence of posteriors"),
    truth=ROWS,
    n=whole(2),
    draws=COUNT,
    least=NOT_NEGATIVE,
    groups=optional(GROUPS),
    truth_error=BOOLEAN,
    seed=SEED,
)
def calibration_in_bins(
    posteriors: Sequence[Posterior],
    observables: Mapping[str, tuple[Any, ...]],
    truth: EventsLike,
    *,
    n: int = 100_000,
    draws: int | None = None,
    least: float = 10.0,
    groups: Mapping[str, Sequence[str]] | None = None,
    truth_error: bool = True,
    seed: int = 0,
) -> BinCalibration:
    """How often the truth lies in the error bars of histograms, over many trainings.

    Every weight draw generates its own events, and the noise of these events is taken out of sigma, as in
    :meth:`QuantileBinResult.probabilities`. The truth is a sample of other events of the same kind.

    Args:
        posteriors: R posteriors of one model on independent samples of one size, from ``backend.fit_many``.
        observables: as in ``posterior.histograms``: by name ``(observable, bins)`` or ``(observable, number of bins,
            (low, high))``.
        truth: events ``[N, d]`` that no training has seen, many more than one training has. Their weights count.
        n: events that every weight draw generates.
        draws: weight draws; None: 50, or all where fewer are stored.
        least: bins in which the truth expects fewer training events than this are left out.
        groups: observables whose bins are also counted together, by the name of the group.
        truth_error: the truth has an error of its own, from the number of its events, which belongs to the intervals.
            False for a truth of so many events that it may be taken for exact.
        seed: seeds the weight draws, the events, and the scatter by the error of the truth.

    Returns:
        The calibration of every observable and group that has a bin left, and of all bins together (``"all"``).

    Raises:
        ValueError: no posteriors, trainings of different sizes, groups of unknown observables or with the name of one,
            or no bin that expects ``least`` events.
    """
    if not len(posteriors):
        raise ValueError("posteriors is empty; give those of several independent trainings")
    sizes = sorted({posterior.info.size or 0 for posterior in posteriors})
    if len(sizes) > 1 or not sizes[0]:
        raise ValueError(f"the posteriors were trained on samples of {sizes} events; they must be of one known size")
    bins, first = bins_of(observables), posteriors[0].predictor
    for group, names in (groups or {}).items():
        require(group not in {*bins, ALL}, "groups", group, "names that no observable has, and not 'all'")
        for name in names:
            require(name in bins, f"groups[{group!r}]", name, f"observables out of {', '.join(bins)}")
    table = first.checked(truth, "truth")
    events = as_tensor(table.values, torch.float64)
    weights = np.ones(len(events)) if table.weights is None else np.asarray(table.weights, dtype=np.float64)
    shares, errors = {}, {}
    for name, (observable, *_) in observables.items():
        values = observable_values(first.observable(observable), events)
        shares[name] = p = bins[name].fill(values, weights) / weights.sum()
        squares = bins[name].fill(values, np.square(weights))
        # An event in the bin moves the fraction by w (1 - p), one outside of it by -w p.
        variance = squares * (1 - p) ** 2 + (np.square(weights).sum() - squares) * p**2
        errors[name] = np.sqrt(np.clip(variance, 0, None)) / weights.sum()
    count = min(posterior.weights.count(draws, least=2) for posterior in posteriors)
    filled = [
        posterior.histograms(observables, n=n, draws=count, seed=stream(seed, "calibration in bins", r))
        for r, posterior in enumerate(posteriors)
    ]
    counts = {name: np.rint(np.stack([its[name].draws for its in filled]) * n).astype(np.int64) for name in bins}
    effective = float(weights.sum() ** 2 / np.square(weights).sum())
    chosen = errors if truth_error else None
    return judge_bins(counts, n, sizes[0], shares, chosen, effective, least, groups or {}, seed)


def judge_bins(
    counts: Mapping[str, NDArray[np.int64]],
    n: int,
    training_events: float,
    shares: Mapping[str, Array],
    errors: Mapping[str, Array] | None,
    truth_events: float,
    least: float,
    groups: Mapping[str, Sequence[str]],
    seed: int,
) -> BinCalibration:
    """The calibration of bins that are filled.

    Args:
        counts: generated events by observable, ``[R, K, B]``.
        n: events that every draw generated.
        training_events: events of a training.
        shares: true probabilities of the bins by observable, ``[B]``.
        errors: their errors, ``[B]``; None: they are known exactly.
        truth_events: events of the truth.
        least: training events that a bin has to expect.
        groups: observables of each group.
        seed: seeds the scatter by the errors.
    """
    values, true, wrong = {}, {}, {}
    for name, share in shares.items():
        kept = share * training_events >= least
        values[name] = QuantileBinResult(counts[name], n, max(1, round(training_events))).probabilities()[..., kept]
        true[name] = share[kept]
        wrong[name] = np.zeros(kept.sum()) if errors is None else errors[name][kept]
    for group, names in {**groups, ALL: list(shares)}.items():
        values[group] = np.concatenate([values[name] for name in names], -1)
        true[group], wrong[group] = (np.concatenate([these[name] for name in names]) for these in (true, wrong))
    left = [name for name in values if len(true[name])]
    require(ALL in left, "least", least, f"so few that some bin expects as many of {training_events:,.0f} events")
    alone = {name: calibration_of(values[name], true[name], label="bin") for name in left}
    observables = tuple(name for name in left if name in shares)
    if errors is None:
        return BinCalibration(alone, alone, observables, np.inf)
    random = np.random.default_rng(stream(seed, "truth"))
    intervals = {name: with_truth_error(alone[name], values[name], wrong[name], random) for name in left}
    return BinCalibration(intervals, alone, observables, truth_events)


def with_truth_error(alone: Calibration, values: Array, error: Array, random: np.random.Generator) -> Calibration:
    """The calibration of what the posterior says about the counted truth: its draws, with the error of the count.

    Pulls have the error in their sigma; the ranks are those of draws that scatter by it, as the true fraction does.

    Args:
        alone: the calibration without it.
        values: draws of the probabilities, ``[R, K, B]``.
        error: of the truth, ``[B]`` or ``[R, B]``.
        random: what the scatter is drawn from.
    """
    error = np.broadcast_to(error, alone.means.shape)
    scattered = calibration_of(values + error[:, None] * random.standard_normal(values.shape), alone.truth)
    return replace(alone, ranks=scattered.ranks, sigmas=np.hypot(alone.sigmas, error))


def _has_sigma(alone: Calibration) -> NDArray[np.bool_]:
    """In which bins something is left of sigma, but for rounding, ``[B]``."""
    return alone.sigma > ROUNDING * alone.spread
