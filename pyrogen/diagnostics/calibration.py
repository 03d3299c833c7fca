"""Is the uncertainty right? Credible intervals of many independent trainings, held against the truth.

One posterior on one sample of events has one deviation from the truth, which neighbouring points share: it says little
about its intervals. So the same model learns R independent samples (``backend.fit_many``), and every interval is
counted R times.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from tqdm import tqdm

from pyrogen.bayes.model import BayesianFlow
from pyrogen.checks import whole_number
from pyrogen.diagnostics.lines import POINTS, HasLines
from pyrogen.inference.posterior import Posterior

Array = NDArray[np.float64]
ONE_SIGMA = math.erf(1 / math.sqrt(2))  # 68.3 %
LEVELS = tuple(np.linspace(0.05, 0.95, 19).round(2).tolist())
TOLERANCE = 3.0  # standard errors by which a coverage may miss its level
VAGUE = 0.05  # error of the coverage from which on three of them allow nearly everything


@dataclass(frozen=True)
class Calibration:
    """Central credible intervals of B quantities in R independent trainings, and the truth.

    Attributes:
        ranks: how many of the K draws lie below the truth, ``[R, B]``; a tie counts half.
        means: mean over the draws, ``[R, B]``.
        sigmas: standard deviation over the draws, ``[R, B]``.
        truth: ``[B]`` or, where it differs from training to training, ``[R, B]``.
        draws: number K of draws.
        at: what tells the quantities apart, such as the coordinate t along a line, ``[B]``.
        label: name of ``at``.
    """

    ranks: Array = field(repr=False)
    means: Array = field(repr=False)
    sigmas: Array = field(repr=False)
    truth: Array = field(repr=False)
    draws: int
    at: Array = field(repr=False)
    label: str = "quantity"

    @property
    def trainings(self) -> int:
        """Number R of independent trainings."""
        return len(self.ranks)

    def covered(self, level: float = ONE_SIGMA) -> Array:
        """How much of the truth's place among the draws lies in the central interval of this level, ``[R, B]``.

        K draws cut the line into K + 1 pieces, and a true posterior puts the truth into each of them with the same
        probability. A piece that lies half inside the interval counts half: so the mean is the level exactly.

        Raises:
            ValueError: a level that is not between 0 and 1.
        """
        if not 0 < level < 1:
            raise ValueError(f"level is {level}; it must be a probability between 0 and 1, such as 0.683")
        low, high = (1 - level) / 2, (1 + level) / 2
        first, last = self.ranks / (self.draws + 1), (self.ranks + 1) / (self.draws + 1)
        inside = np.clip(np.minimum(last, high) - np.maximum(first, low), 0, None)
        return inside * (self.draws + 1)

    def fraction(self, level: float = ONE_SIGMA) -> tuple[float, float]:
        """Fraction of all intervals of this level that hold the truth, and its binomial error.

        The B quantities of one training are not independent. The binomial error is that of as many independent
        intervals as the spread over the trainings is worth: at least R, at most R times B.
        """
        per_training = self.covered(level).mean(1)
        found = float(per_training.mean())
        n = float(self.trainings)
        if self.trainings > 1:
            variance = per_training.var(ddof=1) / self.trainings
            n = float(np.clip(found * (1 - found) / max(variance, 1e-12), n, n * self.ranks.shape[1]))
        return found, _binomial_error(found, n)

    def by_quantity(self, level: float = ONE_SIGMA) -> tuple[Array, Array]:
        """Fraction of the R trainings whose interval holds the truth, and its binomial error, ``[B]`` each."""
        found = self.covered(level).mean(0)
        return found, np.array([_binomial_error(one, self.trainings) for one in found])

    def curve(self, levels: Sequence[float] = LEVELS) -> tuple[Array, Array, Array]:
        """Nominal levels, fractions found and their errors, ``[L]`` each."""
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
        """``"too narrow"``, ``"too wide"`` or ``"calibrated"``: the coverage of one sigma, within three errors."""
        found, error = self.fraction()
        if abs(found - ONE_SIGMA) <= TOLERANCE * error:
            return "calibrated"
        return "too narrow" if found < ONE_SIGMA else "too wide"

    def text(self) -> str:
        """What was found, in words."""
        found, error = self.fraction()
        two, two_error = self.fraction(math.erf(math.sqrt(2)))
        width, width_error = self.pull_width()
        ratio, ratio_error = self.sigma_ratio()
        consequence = {
            "calibrated": "nothing here speaks against sigma"
            + (", but so few trainings could not tell much" if error > VAGUE else ""),
            "too wide": f"sigma is too wide: {1 / width:.2f} times the size that would give pulls of one",
            "too narrow": f"sigma is too narrow: it would have to be {width:.2f} times larger to give pulls of one",
        }[self.verdict]
        several = "" if self.trainings == 1 else f", sigma / spread of the trainings {ratio:.2f} +- {ratio_error:.2f}"
        return (
            f"{self.trainings} trainings, {self.ranks.shape[1]} intervals each: the truth is within 1 sigma (68.3 %) "
            f"in {found:.1%} +- {error:.1%}, within 2 sigma (95.4 %) in {two:.1%} +- {two_error:.1%}; pull width "
            f"{width:.2f} +- {width_error:.2f}{several}; calibration score {self.score:.3f}. {consequence}."
        )

    def uniformity(self) -> float:
        """Probability of ranks at least as uneven, were all intervals right (Kolmogorov and Smirnov).

        Every quantity is tested over its R trainings, the smallest of the B probabilities counts, times B. Quantities
        that depend on each other make it too large, never too small.
        """
        from scipy.stats import kstest  # here: scipy.stats takes a second, and comes with ArviZ

        middle = (self.ranks + 0.5) / (self.draws + 1)
        smallest = min(kstest(column, "uniform").pvalue for column in middle.T)
        return float(min(1.0, smallest * self.ranks.shape[1]))


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
    for name, array in (("values", draws), ("truth", true)):
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds {int((~np.isfinite(array)).sum())} numbers that are not finite")
    return _calibration(
        [(_rank(one, t), one.mean(0), one.std(0, ddof=1)) for one, t in _pairs(draws, true)],
        true,
        draws.shape[1],
        at,
        label,
    )


def calibration_along_lines(
    posteriors: Sequence[Posterior],
    target: HasLines,
    t: ArrayLike | Tensor | None = None,
    positions: Sequence[float] | None = None,
    draws: int = 100,
    seed: int = 0,
) -> Calibration:
    """Calibration of the density along lines of a target, as in :func:`~pyrogen.diagnostics.density_along_lines`.

    Args:
        posteriors: R posteriors of one model on independent samples of one size, from ``backend.fit_many``.
        target: the truth.
        t: points ``[n]`` along the lines; by default 33 on ``target.line_range``.
        positions: constant coordinates of the L lines; by default ``target.line_positions``.
        draws: weight draws (at most all stored).
        seed: seeds the weight draws.

    Returns:
        B = L n quantities, line by line, with ``at`` the coordinate t.

    Raises:
        ValueError: no posteriors, or points that are not finite.
    """
    line = torch.linspace(*target.line_range, POINTS, dtype=torch.float64) if t is None else torch.as_tensor(t).double()
    if line.ndim != 1 or not len(line) or not line.isfinite().all():
        raise ValueError(f"t must be a vector of finite numbers, got {t!r}")
    where = list(target.line_positions if positions is None else positions)
    points = torch.cat([target.line(line, float(position)) for position in where])
    truth = target.line_density(line).double().numpy()

    def density(posterior: Posterior, count: int) -> Array:
        return posterior.log_prob(points, count, seed=seed).double().exp().cpu().numpy()

    return _calibrate(
        posteriors, density, np.tile(truth, len(where)), draws, np.tile(line.numpy(), len(where)), target.line_label
    )


def simulation_based_calibration(
    backend: Any,
    model: BayesianFlow,
    size: int,
    trainings: int = 40,
    *,
    probes: int = 20,
    draws: int = 100,
    seed: int = 0,
) -> Calibration:
    """Simulation-based calibration (Talts et al., arXiv:1804.06788): is the backend's posterior that of the model?

    Weights are drawn from the prior, each gives a sample of events, and the backend learns it back. For the exact
    posterior the true value of any quantity is then a draw like all others, whatever the flow and the prior: this
    tests the backend alone, where coverage of a given truth tests flow and prior too. The quantities are log p at
    probe points, and the log-likelihood of the sample itself (the last one).

    Args:
        backend: with ``fit_many``. Small models are meant: every training counts once.
        model: the Bayesian flow, with ``preprocessing=None`` or one whose constants are set.
        size: events per sample.
        trainings: number R of samples.
        probes: number of probe points, drawn from the prior predictive density.
        draws: weight draws (at most all stored).
        seed: seeds weights, events and probe points.

    Raises:
        ValueError: a preprocessing that would be fitted to the events (its density would then be another one), a
            conditional flow, or numbers out of range.
    """
    whole_number("trainings", trainings, 2)
    if not model._preprocessing.fitted:
        raise ValueError(
            "the model's preprocessing is not fitted, so that every fit would change the model; give "
            "BayesianFlow(preprocessing=None), or a bijection with its constants"
        )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        thetas = [model.prior().sample() for _ in range(trainings)]
        points = torch.cat(
            [_generate(model, model.prior().sample(), 1) for _ in range(whole_number("probes", probes, 1))]
        )
    return _recovery(backend, model, thetas, size, points, draws, seed)


def bootstrap_calibration(
    backend: Any,
    posterior: Posterior,
    size: int | None = None,
    trainings: int = 20,
    *,
    probes: int = 100,
    draws: int = 100,
    seed: int = 0,
) -> Calibration:
    """Is sigma right for events like mine, whose truth nobody knows? A parametric bootstrap (Efron 1979).

    The networks of a trained posterior stand in for the truth: each of R of its weight draws generates a sample, the
    backend learns it back, and the network that made it must lie in the credible intervals. With one draw for every
    sample, not one for all, an exact posterior is calibrated here as in :func:`simulation_based_calibration`, to the
    extent that the posterior is narrow against the prior.

    Args:
        backend: the backend in question, with ``fit_many``; not necessarily the one that made the posterior.
        posterior: trained on the events in question.
        size: events per sample; by default as many as the posterior was trained on.
        trainings: number R of samples.
        probes: number of probe points, drawn from the posterior predictive density; log p there are the quantities,
            and the log-likelihood of the sample (the last one).
        draws: weight draws (at most all stored).
        seed: seeds weight draws, events and probe points.

    Raises:
        ValueError: a conditional flow, or numbers out of range.
    """
    size = posterior.info.get("training_events") if size is None else size
    if size is None:
        raise ValueError("size is None, and the posterior does not tell how many events it was trained on; give size")
    whole_number("trainings", trainings, 2)
    count = min(trainings, posterior.weights.stored or trainings)
    if count < trainings:
        raise ValueError(
            f"trainings is {trainings}, but the posterior holds {count} weight draws; give at most as many"
        )
    thetas = list(posterior.weights.draws(trainings, seed))
    points = posterior.sample(whole_number("probes", probes, 1), seed=seed + 1)
    return _recovery(backend, posterior.model, thetas, size, points, draws, seed)


def _recovery(
    backend: Any, model: BayesianFlow, thetas: list[Tensor], size: Any, points: Tensor, draws: int, seed: int
) -> Calibration:
    """How well a backend recovers log p of known networks from their own events."""
    size = whole_number("size", size, 1)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        samples = torch.stack([_generate(model, theta, size) for theta in thetas])

        def quantities(log_prob: Callable[[Tensor], Tensor], r: int) -> Array:
            """``[..., B]``: log p at the probe points, and summed over the sample."""
            parts = [log_prob(points), log_prob(samples[r]).sum(-1, keepdim=True)]
            return torch.cat(parts, -1).double().cpu().numpy()

        truth = np.stack([quantities(partial(model.log_prob, theta), r) for r, theta in enumerate(thetas)])
    posteriors = backend.fit_many(model, samples)

    def values(posterior: Posterior, count: int) -> Array:
        return quantities(lambda x: posterior.log_prob(x, count, seed=seed), posterior.info["sample"])

    return _calibrate(posteriors, values, truth, draws, np.arange(len(points) + 1), "probe point")


def _generate(model: BayesianFlow, theta: Tensor, n: int) -> Tensor:
    if model.context:
        raise ValueError("the flow is conditional; this calibration knows no distribution of its conditions")
    return model.sample_events(theta, n)


def effective_parameters(posterior: Posterior, events: Any, draws: int = 100, seed: int = 0) -> float:
    """Effective number of parameters p_WAIC (Watanabe 2010; Gelman et al., arXiv:1307.5928).

    The variance of ``log p(x|theta)`` over the weight draws, summed over the training events: their number times the
    mean of ``(sigma/p)^2``, as long as that is small. What a fit of k parameters to its own form would have is k.

    Args:
        posterior: the posterior, whose ``info`` tells the number of its training events.
        events: events ``[n, d]`` distributed as the training events, those themselves or new ones, of any number.
        draws: weight draws (at most all stored).
        seed: seeds the weight draws.

    Raises:
        ValueError: an unknown number of training events, or a draw without density at an event.
    """
    size = posterior.info.get("effective_size", posterior.info.get("training_events"))
    if size is None:
        raise ValueError("the posterior does not tell how many events it was trained on")
    count = min(whole_number("draws", draws, 2), posterior.weights.stored or draws)
    log_prob = posterior.log_prob(events, count, seed=seed).double()
    if not log_prob.isfinite().all():
        raise ValueError(f"log p is not finite in {int((~log_prob.isfinite()).sum())} of {log_prob.numel()} cases")
    return float(size * log_prob.var(0).mean())


def _calibrate(
    posteriors: Sequence[Posterior],
    quantities: Callable[[Posterior, int], Array],
    truth: Array,
    draws: int,
    at: ArrayLike,
    label: str,
) -> Calibration:
    """The calibration of ``quantities(posterior, draws) -> [K, B]``, one posterior after another."""
    if not len(posteriors):
        raise ValueError("posteriors is empty; give those of several independent trainings")
    count = min([whole_number("draws", draws, 2), *(p.weights.stored for p in posteriors if p.weights.stored)])
    true = np.broadcast_to(truth, (len(posteriors), truth.shape[-1]))
    rows = []
    for posterior, own in zip(tqdm(posteriors, desc="calibration", unit="training", delay=3), true, strict=True):
        values = quantities(posterior, count)
        rows.append((_rank(values, own), values.mean(0), values.std(0, ddof=1)))
    return _calibration(rows, truth, count, at, label)


def _rank(values: Array, truth: Array) -> Array:
    return (values < truth).sum(0) + 0.5 * (values == truth).sum(0)


def _pairs(draws: Array, truth: Array) -> Any:
    return zip(draws, np.broadcast_to(truth, (draws.shape[0], draws.shape[2])), strict=True)


def _calibration(rows: list[Any], truth: Array, draws: int, at: ArrayLike | None, label: str) -> Calibration:
    ranks, means, sigmas = (np.stack(column) for column in zip(*rows, strict=True))
    where = np.arange(ranks.shape[1]) if at is None else np.asarray(at)
    return Calibration(ranks, means, sigmas, truth, draws, where.astype(np.float64), label)


def _binomial_error(found: float, n: float) -> float:
    """Error of a fraction of n trials; half a success more and half a failure more, so that it is never zero."""
    fraction = (found * n + 0.5) / (n + 1)
    return math.sqrt(fraction * (1 - fraction) / n)
