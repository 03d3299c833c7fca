"""Is the uncertainty right? Credible intervals of many independent trainings, held against the truth.

One posterior on one sample of events has one deviation from the truth, which neighbouring points share: it says little
about its intervals. So the same model learns R independent samples (``backend.fit_many``), and every interval is
counted R times.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pyrogen.checks import FRACTION, TEXT, array, door, each, optional, require
from pyrogen.coverage.chains import diagnose, has_chains
from pyrogen.posterior.calibrated import VAGUE
from pyrogen.posterior.posterior import Posterior
from pyrogen.printing import Brief
from pyrogen.progress import bar
from pyrogen.seeds import stream
from pyrogen.signals import uninterrupted

Array = NDArray[np.float64]
ONE_SIGMA = math.erf(1 / math.sqrt(2))  # 68.3 %
TWO_SIGMA = math.erf(math.sqrt(2))  # 95.4 %
LEVELS = tuple(np.linspace(0.05, 0.95, 19).round(2).tolist())
FEW_EFFECTIVE = 50
DRAWS = 100  # weight draws where none are asked for
JUDGED = 20  # quantities of which the effective number of draws is found
TOLERANCE = 3.0  # standard errors by which a coverage may miss its level


@dataclass(frozen=True, repr=False)
class Calibration(Brief):
    """Central credible intervals of B quantities in R independent trainings, and the truth.

    Attributes:
        ranks: how many of the K draws lie below the truth, ``[R, B]``; a tie counts half.
        means: mean over the draws, ``[R, B]``.
        sigmas: standard deviation over the draws, ``[R, B]``.
        truth: ``[B]`` or, where it differs from training to training, ``[R, B]``.
        draws: number K of draws.
        at: what tells the quantities apart, such as the coordinate t along a line, ``[B]``.
        label: name of ``at``.
        effective_draws: effective number of draws of a sampler's chain, median over quantities and trainings; NaN where
            the draws are independent. Ranks take draws for independent: with few effective ones an exact sampler looks
            too narrow (64 % within 1 sigma, pulls of 1.14 for 10; 68 % and 1.02 for 50).
    """

    ranks: Array
    means: Array
    sigmas: Array
    truth: Array
    draws: int
    at: Array
    label: str = "quantity"
    effective_draws: float = math.nan

    def _summary(self) -> str:
        size = f"{self.ranks.shape[1]} quantities (by {self.label}) in {self.trainings} trainings"
        return f"{size}, {self.draws} draws; {self.verdict}"

    @property
    def trainings(self) -> int:
        """Number R of independent trainings."""
        return len(self.ranks)

    @door(level=FRACTION)
    def covered(self, level: float = ONE_SIGMA) -> Array:
        """How much of the truth's place among the draws lies in the central interval of this level, ``[R, B]``.

        K draws cut the line into K + 1 pieces, and a true posterior puts the truth into each of them with the same
        probability. A piece that lies half inside the interval counts half: so the mean is the level exactly.

        Raises:
            ValueError: a level that is not between 0 and 1.
        """
        level = FRACTION("level", level)
        low, high = (1 - level) / 2, (1 + level) / 2
        first, last = self.ranks / (self.draws + 1), (self.ranks + 1) / (self.draws + 1)
        inside = np.clip(np.minimum(last, high) - np.maximum(first, low), 0, None)
        return inside * (self.draws + 1)

    @door(level=FRACTION)
    def fraction(self, level: float = ONE_SIGMA) -> tuple[float, float]:
        """Fraction of all intervals of this level that hold the truth, and its binomial error.

        The error is that of intervals which are right, ``sqrt(level (1 - level) / n)``, for
        :attr:`independent_intervals` n of them.
        """
        return float(self.covered(level).mean()), math.sqrt(level * (1 - level) / self.independent_intervals)

    @property
    def independent_intervals(self) -> float:
        """As how many independent intervals the R times B count, which share their deviation within a training.

        From the places of the truth among the draws, u in (-1/2, 1/2): R times the variance of single ones over the
        variance of the means of trainings, at least R and at most R times B. The smaller number counts, for u and for
        abs(u): the deviations of a density have both signs, since it stays normalised, and average out in u; whether
        an interval covers depends on abs(u). Neither vanishes where all intervals of a level happen to cover.
        """
        if self.trainings == 1:
            return 1.0
        place = (self.ranks + 0.5) / (self.draws + 1) - 0.5
        signed = np.square(place).mean() / max(np.square(place.mean(1)).mean(), 1e-300)
        absolute = np.abs(place).var() / max(np.abs(place).mean(1).var(ddof=1), 1e-300)
        return self.trainings * float(np.clip(min(signed, absolute), 1, self.ranks.shape[1]))

    @door(level=FRACTION)
    def by_quantity(self, level: float = ONE_SIGMA) -> tuple[Array, Array]:
        """Fraction of the R trainings whose interval holds the truth, and its binomial error, ``[B]`` each."""
        found = self.covered(level).mean(0)
        return found, np.full(len(found), math.sqrt(level * (1 - level) / self.trainings))

    @door(levels=each(FRACTION, "probabilities between 0 and 1, such as (0.5, 0.9)", 1))
    def curve(self, levels: Sequence[float] = LEVELS) -> tuple[Array, Array, Array]:
        """Nominal levels, fractions found and their errors, ``[L]`` each.

        Raises:
            ValueError: no levels, or one that is not between 0 and 1.
        """
        found = np.array([self.fraction(level) for level in levels])
        return np.asarray(levels, dtype=np.float64), found[:, 0], found[:, 1]

    @property
    def score(self) -> float:
        """Calibration score: mean distance ``|found - nominal|`` over the levels 5 % to 95 % ([F] sec. 4)."""
        nominal, found, _ = self.curve()
        return float(np.abs(found - nominal).mean())

    @property
    def pulls(self) -> Array:
        """(mean - truth) / sigma, ``[R, B]``."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return (self.means - self.truth) / self.sigmas

    def pull_width(self) -> tuple[float, float]:
        """Root mean square of the pulls, 1 where sigma is right, and its error from the spread over the trainings."""
        squares = np.square(self.pulls).mean(1)
        width = float(np.sqrt(squares.mean()))
        if self.trainings == 1:
            return width, math.nan
        if math.isinf(width):  # a sigma is zero
            return width, math.inf
        return width, float(squares.std(ddof=1) / math.sqrt(self.trainings) / (2 * width))

    @property
    def bias(self) -> Array:
        """Mean deviation from the truth over the trainings, ``[B]``: what more independent samples do not remove."""
        return (self.means - self.truth).mean(0)

    @property
    def spread(self) -> Array:
        """Standard deviation of the predicted mean over the trainings, ``[B]``; NaN for a single training.

        It is what an honest sigma should be as large as, but for the bias: the frequentist answer to how far the
        prediction would move on another sample of the same size.
        """
        if self.trainings == 1:
            return np.full(self.means.shape[1], np.nan)
        return (self.means - self.truth).std(0, ddof=1)

    @property
    def sigma(self) -> Array:
        """Predicted uncertainty, root mean square over the trainings, ``[B]``."""
        return np.sqrt(np.square(self.sigmas).mean(0))

    def sigma_ratio(self) -> tuple[float, float]:
        """Predicted sigma over the spread of the trainings, geometric mean over the quantities, and its error.

        The error is that of R standard deviations of fully correlated quantities, ``1 / sqrt(2 (R - 1))`` relative.
        """
        if self.trainings == 1:
            return math.nan, math.nan
        with np.errstate(divide="ignore"):
            ratio = float(np.exp(np.mean(np.log(self.sigma / self.spread))))
        return ratio, ratio / math.sqrt(2 * (self.trainings - 1))

    @property
    def verdict(self) -> str:
        """``"too narrow"``, ``"too wide"``, ``"uneven"`` or ``"calibrated"``.

        By the coverage of one and of two sigma, within three errors each; ``"uneven"`` where one is too large and the
        other too small: sigma is then too wide at most points and too narrow at some.
        """
        signs = set()
        for level in (ONE_SIGMA, TWO_SIGMA):
            found, error = self.fraction(level)
            if abs(found - level) > TOLERANCE * error:
                signs.add("too narrow" if found < level else "too wide")
        if len(signs) > 1:
            return "uneven"
        return signs.pop() if signs else "calibrated"

    def worst(self) -> tuple[float, float]:
        """Coordinate ``at`` where the two-sigma intervals hold the truth least often, and the fraction that do."""
        covered = self.covered(TWO_SIGMA).mean(0)
        at = np.unique(self.at)
        by_coordinate = [covered[self.at == one].mean() for one in at]
        place = int(np.argmin(by_coordinate))
        return float(at[place]), float(by_coordinate[place])

    def text(self) -> str:
        """What was found, in words."""
        found, error = self.fraction()
        two, two_error = self.fraction(TWO_SIGMA)
        width, width_error = self.pull_width()
        ratio, ratio_error = self.sigma_ratio()
        consequence = {
            "calibrated": "on the whole nothing here speaks against sigma"
            + (", but so few trainings could not tell much" if error > VAGUE else ""),
            "too wide": "sigma is too wide"
            + (f": {1 / width:.2f} times the size that would give pulls of one" if width < 1 else ""),
            "too narrow": f"sigma is too narrow, by a factor {width:.2f} in the pulls",
            "uneven": "sigma is too wide at most points and too narrow at others",
        }[self.verdict]
        at, least = self.worst()
        if least < TWO_SIGMA - TOLERANCE * math.sqrt(TWO_SIGMA * (1 - TWO_SIGMA) / self.trainings):
            others = self.at != at
            one_else, two_else = (self.covered(level)[:, others] for level in (ONE_SIGMA, TWO_SIGMA))
            consequence += f"; at {self.label} = {at:.3g} only {least:.0%} lie within 2 sigma"
            if others.any():
                consequence += f", elsewhere {one_else.mean():.1%} and {two_else.mean():.1%} within 1 and 2 sigma"
        if self.effective_draws < FEW_EFFECTIVE:
            consequence += (
                f"; the chains are worth only {self.effective_draws:.0f} independent draws, with which an exact "
                "sampler looks too narrow"
            )
        if self.trainings == 1:
            trainings, several = "1 training", ""
        else:
            trainings = f"{self.trainings} trainings"
            several = f" +- {width_error:.2f}, sigma / spread of the trainings {ratio:.2f} +- {ratio_error:.2f}"
        return (
            f"{trainings}, {self.ranks.shape[1]} intervals each: the truth is within 1 sigma (68.3 %) "
            f"in {found:.1%} +- {error:.1%}, within 2 sigma (95.4 %) in {two:.1%} +- {two_error:.1%}; pull width "
            f"{width:.2f}{several}; calibration score {self.score:.3f}. {consequence}."
        )

    def uniformity(self) -> float:
        """Probability of ranks at least as uneven, were all intervals right (Kolmogorov and Smirnov).

        Every quantity is tested over its R trainings, the smallest of the B probabilities counts, times B. Quantities
        that depend on each other make it too large, never too small.
        """
        with uninterrupted():
            from scipy.stats import kstest  # here: scipy.stats takes a second, and comes with ArviZ

        middle = (self.ranks + 0.5) / (self.draws + 1)
        smallest = min(kstest(column, "uniform").pvalue for column in middle.T)
        return float(min(1.0, smallest * self.ranks.shape[1]))


@door(values=array(), truth=array(), at=optional(array()), label=TEXT)
def calibration_of(
    values: ArrayLike, truth: ArrayLike, at: ArrayLike | None = None, label: str = "quantity"
) -> Calibration:
    """The calibration of any quantities whose truth is known.

    Args:
        values: K draws of B quantities in R trainings, ``[R, K, B]``.
        truth: their true values, ``[B]`` or ``[R, B]``.
        at: a coordinate ``[B]`` that tells the quantities apart; by default they are counted.
        label: its name.

    Raises:
        ValueError: shapes that do not fit, fewer than two draws, or numbers that are not finite.
    """
    draws, true = np.asarray(values, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if draws.ndim != 3 or 0 in draws.shape or draws.shape[1] < 2:
        raise ValueError(
            f"values has shape {list(draws.shape)}; it must be [trainings, draws, quantities], 2 draws or more"
        )
    if true.shape not in (draws.shape[2:], (draws.shape[0], draws.shape[2])):
        raise ValueError(
            f"truth has shape {list(true.shape)}; values of shape {list(draws.shape)} need one per quantity"
        )
    for name, numbers in (("values", draws), ("truth", true)):
        if not np.isfinite(numbers).all():
            raise ValueError(f"{name} holds {int((~np.isfinite(numbers)).sum())} numbers that are not finite")
    return _calibration(
        [(_rank(one, t), one.mean(0), one.std(0, ddof=1)) for one, t in _pairs(draws, true)],
        true,
        draws.shape[1],
        at,
        label,
    )


def count_intervals(
    posteriors: Sequence[Posterior],
    quantities: Callable[[Posterior, int, int], Array],
    truth: Array,
    draws: int | None,
    at: ArrayLike,
    label: str,
    seed: int,
) -> Calibration:
    """The calibration of ``quantities(posterior, draws, seed) -> [K, B]``, one posterior after another.

    Every training has a seed of its own: with the same noise in the weights of all, its deviation from what infinitely
    many draws would give is the same for all, and does not average out.
    """
    if not len(posteriors):
        raise ValueError("posteriors is empty; give those of several independent trainings")
    count = min(posterior.weights.count(draws, DRAWS, least=2) for posterior in posteriors)
    true = np.broadcast_to(truth, (len(posteriors), truth.shape[-1]))
    rows, effective = [], []
    shown = bar(len(posteriors), "calibration", "training", show=posteriors[0].progress, brief=True)
    for r, (posterior, own) in enumerate(zip(posteriors, true, strict=True)):
        values = quantities(posterior, count, stream(seed, "calibration", r))
        rows.append((_rank(values, own), values.mean(0), values.std(0, ddof=1)))
        if has_chains(posterior):
            chains = len(posterior.weights.arrays["draws"])
            chains = chains if count % chains == 0 and count >= 4 * chains else 1
            some = np.linspace(0, values.shape[1] - 1, min(JUDGED, values.shape[1])).round().astype(int)
            effective += [diagnose(values[:, i].reshape(chains, -1))[1] for i in some]
        shown.update()
    shown.close()
    found = _calibration(rows, truth, count, at, label)
    return replace(found, effective_draws=float(np.median(effective))) if effective else found


def _rank(values: Array, truth: Array) -> Array:
    return (values < truth).sum(0) + 0.5 * (values == truth).sum(0)


def _pairs(draws: Array, truth: Array) -> Any:
    return zip(draws, np.broadcast_to(truth, (draws.shape[0], draws.shape[2])), strict=True)


def _calibration(rows: list[Any], truth: Array, draws: int, at: ArrayLike | None, label: str) -> Calibration:
    ranks, means, sigmas = (np.stack(column) for column in zip(*rows, strict=True))
    where = np.arange(ranks.shape[1]) if at is None else np.asarray(at)
    require(where.shape == ranks.shape[1:], "at", where, f"one number for each of the {ranks.shape[1]} quantities")
    return Calibration(ranks, means, sigmas, truth, draws, where.astype(np.float64), label)
