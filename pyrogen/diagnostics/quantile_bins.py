"""Calibration and amplification in bins of equal true probability, as for the gamma ring of [F] (arXiv:2408.00838).

Each weight draw of a posterior generates events of its own, which fill n x n bins that all have the same true
probability. How often the truth 1/n^2 lies in the central intervals of a bin is its calibration; how many training
events a counting experiment would need for the same errors, in units of those it had, is the amplification.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pyrogen.bayes.model import BayesianFlow
from pyrogen.checks import (
    BOOLEAN,
    COUNT,
    NATURAL,
    SEED,
    check_settings,
    dictionary,
    door,
    each,
    having,
    optional,
    whole,
)
from pyrogen.coverage import Calibration, calibration_of
from pyrogen.labelled import Labelled
from pyrogen.posterior.posterior import POSTERIOR, Posterior
from pyrogen.printing import Brief
from pyrogen.progress import bar
from pyrogen.seeds import seeded, stream
from pyrogen.targets.base import Target

Array = NDArray[np.float64]
MOST_NOISE = 0.8  # of the variance of a bin over the draws
EVENTS = 20_000  # of a weight draw, where no number is asked for
FILLED_AT_ONCE = 16_384  # events generated and filled, so few that they stay in the cache; a part of the random stream
FILLED_AT_ONCE_ON_CARD = 1 << 20  # where starting the work takes longer than doing it


@dataclass(frozen=True, repr=False)
class QuantileBinResult(Labelled):
    """Probabilities of B quantile bins in K weight draws of R trainings.

    Attributes:
        counts: generated events in every bin, ``[R, K, B]``.
        events: events that every draw generated, at least 2.
        training_events: events N that every posterior was trained on, at least 1.

    Raises:
        ValueError: fewer events than that.
    """

    _dims: ClassVar[Mapping[str, str]] = {
        "counts": "training draw bin",
    }

    counts: NDArray[np.int64]
    events: int
    training_events: int

    def __post_init__(self) -> None:
        check_settings(self, events=whole(2), training_events=NATURAL)

    def _summary(self) -> str:
        trainings, draws, bins = self.counts.shape
        return (
            f"{bins} bins, {trainings} trainings on {self.training_events:,} events, {draws} draws of {self.events:,} "
            "events"
        )

    @property
    def bins(self) -> int:
        """Number of bins B."""
        return self.counts.shape[2]

    @property
    def noise_variance(self) -> Array:
        """Variance of a bin's fraction from the finite number of generated events, unbiased estimate, ``[R, B]``."""
        return self._moments(self.counts)[2]

    @door(subtract_noise=BOOLEAN)
    def probabilities(self, subtract_noise: bool = True) -> Array:
        """Bin probabilities of the draws, ``[R, K, B]``.

        Args:
            subtract_noise: draw them towards their mean until their variance, averaged over the trainings, is that of
                the posterior alone, without the Poisson noise of the generated events (to the mean itself in a bin
                where the noise explains all of it).
        """
        p = self.counts / self.events
        if not subtract_noise:
            return p
        mean, variance = p.mean(1, keepdims=True), p.var(1, ddof=1).mean(0)
        factor = np.sqrt(np.clip(1 - self.noise_variance.mean(0) / np.maximum(variance, 1e-300), 0, None))
        return mean + factor * (p - mean)

    def noise_share(self) -> float:
        """Fraction of the variance over the draws that is noise of the generated events, mean over bins and trainings.

        Near one nothing is left of the posterior to be seen: generate more events, or take fewer bins.
        """
        variance = (self.counts / self.events).var(1, ddof=1)
        return float(self.noise_variance.mean() / variance.mean())

    @door(subtract_noise=BOOLEAN)
    def calibration(self, subtract_noise: bool = True) -> Calibration:
        """How often the truth, 1/B in every bin, lies in the central intervals ([F] sec. 4).

        Raises:
            ValueError: noise to be subtracted that is more than four fifths of the variance: in single bins it then
                explains all of it or too little, and an exact posterior would look too narrow.
        """
        if subtract_noise and self.noise_share() > MOST_NOISE:
            raise ValueError(
                f"{self.noise_share():.0%} of the variance in {self.bins} bins is noise of the {self.events} events of "
                "a draw: generate more events per draw, or take fewer bins"
            )
        truth = np.full(self.bins, 1 / self.bins)
        return calibration_of(self.probabilities(subtract_noise), truth, label="quantile bin")

    @door(subtract_noise=BOOLEAN)
    def amplification(self, subtract_noise: bool = True) -> tuple[float, float]:
        """Amplification ``G = sum_bins mean^2 / variance / N`` ([F] sec. 5), and its error.

        mean^2 / variance is the number of Poisson events that would give a bin's relative error. The variance of a bin
        is the mean over the trainings. The square of the mean is that of products of different trainings: the square
        of each would hold the spread of the trainings too, which adds B/N where sigma is as large as that. Of a single
        training it does. The inverse of a variance that few draws give is too large on average; the factor for normal
        draws, ``1 + 2 / (R (K - 1) - 2)`` without the noise, is taken out.

        The error is that of a jackknife over the trainings. Of a single training it is that of a jackknife over its
        draws, taken for independent: it does not hold by how much other trainings differ.

        Args:
            subtract_noise: take the noise of the generated events from the variance, for G of the posterior alone.
                Otherwise it stays in, as in [F]. G of a posterior without any width is then finite, :attr:`largest`.

        Raises:
            ValueError: too few draws; the noise of the generated events, where it is subtracted, explains the variance
                of a bin within three errors; or a bin that all draws fill alike.
        """
        gains = self._jackknife(subtract_noise)
        return float(gains[0]), _jackknife_error(gains)

    @property
    def largest(self) -> float:
        """G of draws that all are the truth, where the noise of their M events stays in: ``B M / N / (1 - 1/B)``.

        The variance of a bin of probability p = 1/B is p (1 - p) / M, so its mean^2 / variance is M p / (1 - p). With
        the posterior's own number g of Poisson events a bin has 1 / (1/g + 1/m), for m = M/B generated ones.
        """
        return math.inf if self.bins == 1 else self.events / self.training_events * self.bins / (self.bins - 1)

    def _jackknife(self, subtract_noise: bool = True) -> Array:
        """G of all, and of all but each of the trainings (of the draws, of a single training), ``[1 + R or 1 + K]``."""
        every = self._moments(self.counts)
        trainings, draws, _ = self.counts.shape
        if trainings > 1:
            means, totals, noises = every
            parts = np.arange(trainings)
            without = [
                self._gain((means[m], totals[m], noises[m]), draws, subtract_noise) for m in parts != parts[:, None]
            ]
        else:
            left = (self._moments(np.delete(self.counts, k, 1)) for k in range(draws))
            without = [self._gain(moments, draws - 1, subtract_noise) for moments in left]
        return np.array([self._gain(every, draws, subtract_noise), *without])

    def _moments(self, counts: NDArray[np.int64]) -> tuple[Array, Array, Array]:
        """Mean, variance over the draws and noise of every bin in each training, ``[R, B]``."""
        p = counts / self.events
        return p.mean(1), p.var(1, ddof=1), (p * (1 - p)).mean(1) / (self.events - 1)

    def _gain(self, moments: tuple[Array, Array, Array], draws: int, subtract_noise: bool) -> float:
        """G of trainings with these moments of so many draws."""
        means, totals, noises = moments
        freedom = len(means) * (draws - 1)
        if freedom <= 2:
            raise ValueError(
                f"{self.counts.shape[1]} draws of {len(self.counts)} trainings are too few for a variance and its "
                "error: give 5 draws or more"
            )
        total = totals.mean(0)
        variance = total - noises.mean(0) if subtract_noise else total
        least = 3 * total * np.sqrt(2 / freedom) if subtract_noise else 0.0
        if (variance <= least).any():
            what = "fluctuate as much as the draws differ" if subtract_noise else "are the same in all draws"
            raise ValueError(
                f"the {self.events} events of a draw {what}, in {int((variance <= least).sum())} of {self.bins} bins: "
                "generate more events per draw, or take fewer bins"
            )
        too_large = 1 + 2 / (freedom - 2) * np.square(total / variance)  # the mean of 1 / variance, times variance
        return float((_square_of_mean(means) / variance / too_large).sum() / self.training_events)


def _jackknife_error(values: Array) -> float:
    """Error of ``values[0]``, where the others are what is found without one of the parts each."""
    parts = len(values) - 1
    return float(np.sqrt((parts - 1) * np.var(values[1:])))


def _square_of_mean(values: Array) -> Array:
    """Unbiased estimate ``[B]`` of the square of the mean of ``values [R, B]``; the square itself of a single one."""
    count = len(values)
    if count == 1:
        return np.square(values[0])
    return (np.square(values.sum(0)) - np.square(values).sum(0)) / (count * (count - 1))


@door(
    posteriors=each(POSTERIOR, "a sequence of posteriors"),
    target=having("a target", "quantile_bins"),
    bins=each(whole(1), "numbers of bins, such as (5, 10)", 1),
    events=optional(whole(2)),
    events_per_bin=optional(whole(2)),
    draws=COUNT,
    seed=SEED,
)
def quantile_bins(
    posteriors: Sequence[Posterior],
    target: Target,
    bins: Sequence[int] = (5, 10, 20),
    *,
    events: int | None = None,
    events_per_bin: int | None = None,
    draws: int | None = None,
    seed: int = 0,
) -> dict[int, QuantileBinResult]:
    """Fill quantile bins of the truth with the events of every weight draw.

    Args:
        posteriors: R posteriors of one model on independent samples of one size, from ``backend.fit_many``.
        target: the truth, whose ``quantile_bins`` are filled.
        bins: numbers n of bins along each coordinate; all are filled with the same events.
        events: events per weight draw, the same for every n; None: 20,000.
        events_per_bin: in place of ``events``, as many for every n that a bin holds this number on average, as in [F]:
            the first ``events_per_bin * n^d`` of the draw's events.
        draws: weight draws per posterior; None: 50, or all where fewer are stored.
        seed: seeds the weight draws and the events.

    Returns:
        The result for every n, of n^d bins.

    Raises:
        ValueError: no posteriors, one that does not know its number of training events, numbers out of range, or both
            ``events`` and ``events_per_bin``.
    """
    if not len(posteriors):
        raise ValueError("posteriors is empty; give those of several independent trainings")
    if events is not None and events_per_bin is not None:
        raise ValueError(f"events is {events} and events_per_bin is {events_per_bin}; give one of them")
    sizes = {_training_events(f"posteriors[{r}]", posterior) for r, posterior in enumerate(posteriors)}
    if len(sizes) > 1:
        raise ValueError(f"the posteriors were trained on samples of {sorted(sizes)} events; they must be of one size")
    count = min(posterior.weights.count(draws, least=2) for posterior in posteriors)
    cells = {n: target.quantile_bins(n) for n in bins}
    wanted = {n: events_per_bin * cells[n].n_bins if events_per_bin else events or EVENTS for n in bins}
    counts = {n: np.zeros((len(posteriors), count, cells[n].n_bins), dtype=np.int64) for n in bins}
    shown = bar(len(posteriors) * count, "quantile bins", "draw", show=posteriors[0].progress, brief=True)
    with seeded(stream(seed, "quantile bins"), posteriors[0].model.device), torch.no_grad(), shown:
        for r, posterior in enumerate(posteriors):
            for k, theta in enumerate(posterior.weights.draws(count, stream(seed, "quantile bins", r))):
                for start, x in _events_of(posterior.model, theta, max(wanted.values())):
                    for n, cell in cells.items():
                        if start < wanted[n]:
                            counts[n][r, k] += cell.counts(x[: wanted[n] - start]).cpu().numpy()
                shown.update()
    return {n: QuantileBinResult(counts[n], wanted[n], max(sizes)) for n in bins}


def _training_events(name: str, posterior: Posterior) -> int:
    """The number of training events of a posterior."""
    found = posterior.info.training_events
    if not found:
        raise ValueError(
            f"{name} does not know how many events it was trained on, which the amplification needs: make it with "
            "info=pg.posterior.RunInfo(training_events=N)"
        )
    return found


def _events_of(model: BayesianFlow, theta: Tensor, events: int) -> Iterator[tuple[int, Tensor]]:
    """Blocks of events ``[n, d]`` of a network, in double precision, and how many came before."""
    at_once = FILLED_AT_ONCE if model.device.type == "cpu" else FILLED_AT_ONCE_ON_CARD
    for start in range(0, events, at_once):
        yield start, model.sample_events(theta, min(at_once, events - start)).double()


@dataclass(frozen=True, repr=False)
class AmplificationFit(Brief):
    """``G = a n_bins^b`` ([F] sec. 5).

    Attributes:
        a: factor, and ``a_error``.
        b: exponent, and ``b_error``.
    """

    a: float
    a_error: float
    b: float
    b_error: float

    def _summary(self) -> str:
        return f"G = a n_bins^b, a = {self.a:.4g} +- {self.a_error:.2g}, b = {self.b:.4g} +- {self.b_error:.2g}"

    def __call__(self, n_bins: ArrayLike) -> Array:
        """G at these numbers of bins."""
        return self.a * np.asarray(n_bins, dtype=np.float64) ** self.b


@door(results=dictionary(having("a QuantileBinResult", "counts", "bins")), subtract_noise=BOOLEAN)
def fit_amplification(results: Mapping[int, QuantileBinResult], *, subtract_noise: bool = True) -> AmplificationFit:
    """Fit ``G = a n_bins^b`` by least squares of log G, every number of bins with the same weight.

    All numbers of bins see the same trainings and events, so their gains depend on each other. The errors are those of
    a jackknife of the whole fit over the trainings; of a single one, over its draws.

    Args:
        results: what :func:`quantile_bins` found, of the same trainings and draws.
        subtract_noise: as for :meth:`QuantileBinResult.amplification`.

    Raises:
        ValueError: fewer than two numbers of bins, different trainings or draws, and as
            :meth:`QuantileBinResult.amplification`.
    """
    shapes = {result.counts.shape[:2] for result in results.values()}
    numbers = {result.bins for result in results.values()}
    if len(numbers) < 2 or len(shapes) > 1:
        found = ", ".join(f"{draws} draws of {trainings} trainings" for trainings, draws in sorted(shapes))
        raise ValueError(
            f"results are {len(numbers)} numbers of bins, with {found or 'nothing'}; a fit needs two numbers of bins "
            "or more, of the same trainings and draws"
        )
    x = np.log([result.bins for result in results.values()])
    y = np.log([result._jackknife(subtract_noise) for result in results.values()])
    b, log_a = np.polyfit(x, y, 1)  # of all, and of all but one of the trainings or draws
    a = np.exp(log_a)
    return AmplificationFit(float(a[0]), _jackknife_error(a), float(b[0]), _jackknife_error(b))
