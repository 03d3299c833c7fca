"""Histograms and tails of weights p_data / p_model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pyrogen.labelled import Labelled

Array = NDArray[np.float64]
Pair = tuple[Array, Array]  # log w of true and generated events, or the weights of these events
TWICE = 2**0.5  # on errors of sums over events of all folds, where the samples do not differ
NARROWEST = 1e-3  # half of the range of w that is drawn where all weights are the same
SHOWN = (0.02, 0.98)  # quantiles of w between which linear histograms lie


@dataclass(frozen=True, eq=False, repr=False)
class WeightHistograms(Labelled):
    """Fractions of the events in bins of w, with statistical errors; what is outside is in the outermost bins.

    Attributes:
        edges: in w, ``[B + 1]``.
        truth, truth_error: of the true events, ``[B]``.
        generated, generated_error: of the generated events, ``[B]``.
        control, control_error: of both samples of the control together, ``[B]``; None without a control.
    """

    _dims: ClassVar[Mapping[str, str]] = {
        "edges": "bin_edge",
        "truth": "bin",
        "truth_error": "bin",
        "generated": "bin",
        "generated_error": "bin",
        "control": "bin",
        "control_error": "bin",
    }

    edges: Array
    truth: Array
    truth_error: Array
    generated: Array
    generated_error: Array
    control: Array | None = None
    control_error: Array | None = None


@dataclass(frozen=True, eq=False, repr=False)
class TailFractions(Labelled):
    """Fractions of the events in the tails of w: below cuts smaller than one, above all others.

    A cut is fixed, and no classifier has seen the event that it scored. So the difference of both samples in a tail is
    evidence by itself, whatever the classifier has learned: see :attr:`significance`.

    Attributes:
        cuts: on w, ``[C]``.
        truth, truth_error: fraction of the true events and its error, ``[C]``. Where there is no event, or all are,
            the error is that of one event.
        generated, generated_error: of the generated events, ``[C]``.
        control, control_error: of both samples of the control together, ``[C]``; NaN without a control.
        events: (effective) number of events of both samples in the tail, ``[C]``.
    """

    _dims: ClassVar[Mapping[str, str]] = {
        "cuts": "cut",
        "truth": "cut",
        "truth_error": "cut",
        "generated": "cut",
        "generated_error": "cut",
        "control": "cut",
        "control_error": "cut",
        "events": "cut",
        "significance": "cut",
    }
    _at: ClassVar[tuple[str, ...]] = ("cuts",)

    cuts: Array
    truth: Array
    truth_error: Array
    generated: Array
    generated_error: Array
    control: Array
    control_error: Array
    events: Array

    @property
    def significance(self) -> Array:
        """Excess of generated events below cuts smaller than one, of true events above all others, ``[C]``.

        It is in units of sqrt(2) times the statistical errors, since every pair of folds counts twice, each training
        what scores the other: at most a standard Gaussian where the samples do not differ.
        """
        excess = np.where(self.cuts < 1, self.generated - self.truth, self.truth - self.generated)
        return excess / (TWICE * np.hypot(self.truth_error, self.generated_error))

    def text(self) -> str:
        """The table as plain text."""
        lines = [f"{'tail':>10}  {'truth':>18}  {'generated':>18}  {'control':>18}  sigma"]
        columns = ("truth", "generated", "control")
        for i, cut in enumerate(self.cuts):
            cells = [f"{getattr(self, c)[i]:.5f} +- {getattr(self, c + '_error')[i]:.5f}" for c in columns]
            sign = "<" if cut < 1 else ">"
            lines.append(f"w {sign} {cut:<6.4g}  {'  '.join(cells)}  {self.significance[i]:5.1f}")
        return "\n".join(lines)


def tail_fractions(log_w: Pair, weights: Pair, control: Pair | None, cuts: Sequence[float]) -> TailFractions:
    """Fractions beyond the cuts; ``control`` as of :func:`together`."""
    at = np.asarray(cuts, dtype=np.float64)
    true, made = (_tails(x, w, at) for x, w in zip(log_w, weights, strict=True))
    floor = (np.full(len(at), np.nan),) * 3 if control is None else _tails(*control, at)
    return TailFractions(at, true[0], true[1], made[0], made[1], floor[0], floor[1], true[2] + made[2])


def _tails(log_w: Array, weights: Array, cuts: Array) -> tuple[Array, Array, Array]:
    """Fractions in the tails, their errors, and effective numbers of events in them."""
    share = weights / weights.sum()
    inside = np.where(cuts[:, None] < 1, log_w < np.log(cuts)[:, None], log_w > np.log(cuts)[:, None])
    fraction = inside @ share
    squares = inside @ share**2
    # The variance of a ratio of sums: events outside of the tail change its fraction, too.
    variance = squares * (1 - 2 * fraction) + fraction**2 * np.sum(share**2)
    some = inside.any(1) & ~inside.all(1)
    error = np.sqrt(np.maximum(variance, np.where(some, 0.0, np.sum(share**2) ** 2)))
    events = np.divide((inside @ np.abs(share)) ** 2, squares, out=np.zeros(len(cuts)), where=squares > 0)
    return fraction, error, events


def weight_histograms(
    log_w: Pair, weights: Pair, control: Pair | None, bins: int, limits: tuple[float, float] | None, log: bool
) -> WeightHistograms:
    """Histograms of w; arguments as of :func:`tail_fractions` and :meth:`ClassifierWeights.histograms`."""
    if log:
        every = np.concatenate(log_w)
        low, high = (every.min(), every.max()) if limits is None else np.log(limits)
        room = max(1e-9, NARROWEST - (high - low) / 2 if limits is None else 0.0)
        edges = np.exp(np.linspace(low - room, high + room, bins + 1))
    else:
        edges = np.linspace(*(limits or _middle([*log_w, *(() if control is None else control[:1])])), bins + 1)
    parts = [_histogram(x, w, edges) for x, w in zip(log_w, weights, strict=True)]
    if control is not None:
        parts.append(_histogram(*control, edges))
    return WeightHistograms(edges, *(each for part in parts for each in part))


def _middle(log_w: Sequence[Array]) -> tuple[float, float]:
    """Where most of each sample is in w, and one: symmetric around it, but for what would be below zero."""
    ends = np.exp([np.quantile(each, SHOWN) for each in log_w])
    half = float(max(np.abs(ends - 1).max(), NARROWEST))
    return max(0.0, 1 - half), 1 + half


def together(log_w: Pair, weights: Pair) -> Pair:
    """log w and weights of both samples in one, each with the same total."""
    return np.concatenate(log_w), np.concatenate([its / (2 * its.sum()) for its in weights])


def _histogram(log_w: Array, weights: Array, edges: Array) -> tuple[Array, Array]:
    share = weights / weights.sum()
    numbers = np.clip(np.searchsorted(edges, np.exp(log_w), "right") - 1, 0, len(edges) - 2)
    count = len(edges) - 1
    return np.bincount(numbers, share, count).astype(np.float64), np.sqrt(np.bincount(numbers, share**2, count))
