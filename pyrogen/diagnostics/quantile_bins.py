"""Calibration and amplification in bins of equal true probability, as for the gamma ring of [F] (arXiv:2408.00838).

Each weight draw of a posterior generates events of its own, which fill n x n bins that all have the same true
probability. How often the truth 1/n^2 lies in the central intervals of a bin is its calibration; how many training
events a counting experiment would need for the same errors, in units of those it had, is the amplification.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from pyrogen.checks import BOOLEAN, COUNT, SEED, dictionary, door, each, having, whole
from pyrogen.coverage import Calibration, calibration_of
from pyrogen.posterior.posterior import POSTERIOR, Posterior
from pyrogen.printing import Brief
from pyrogen.progress import bar
from pyrogen.seeds import seeded, stream
from pyrogen.targets.base import Target

Array = NDArray[np.float64]
MOST_NOISE = 0.8  # of the variance of a bin over the draws
FILLED_AT_ONCE = 16_384  # events generated and filled; a part of the random stream, so the same on every device


@dataclass(frozen=True, repr=False)
class QuantileBinResult(Brief):
    """Probabilities of B quantile bins in K weight draws of R trainings.

    Attributes:
        counts: generated events in every bin, ``[R, K, B]``.
        events: events that every draw generated.
        training_events: events N that every posterior was trained on.
    """

    counts: NDArray[np.int64]
    events: int
    training_events: int

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
        p = self.counts / self.events
        return (p * (1 - p) / (self.events - 1)).mean(1)

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

    def amplification(self) -> tuple[float, float]:
        """Amplification ``G = sum_bins mean^2 / variance / N`` ([F] sec. 5), and its error.

        mean^2 / variance is the number of Poisson events that would give a bin's relative error. The variance of a bin
        is the mean over the trainings, the noise of the generated events subtracted. The square of the mean is that of
        products of different trainings: the square of each would hold the spread of the trainings too, which adds B/N
        where sigma is as large as that. Of a single training it does. The error is that of a jackknife over the
        trainings, NaN for a single one.

        Raises:
            ValueError: the noise of the generated events explains the variance of a bin, within three errors.
        """
        gains = self._jackknife()
        trainings = len(gains) - 1
        error = np.sqrt((trainings - 1) * np.var(gains[1:])) if trainings > 1 else np.nan
        return float(gains[0]), float(error)

    def _jackknife(self) -> Array:
        """G of all trainings, and of all but each of them, ``[1 + R]`` (``[2]`` for a single one, twice the same)."""
        p = self.counts / self.events
        trainings, draws, _ = p.shape
        means, totals, noise = p.mean(1), p.var(1, ddof=1), self.noise_variance

        def gain(some: NDArray[np.bool_]) -> float:
            variance = totals[some].mean(0) - noise[some].mean(0)
            error = totals[some].mean(0) * np.sqrt(2 / (some.sum() * (draws - 1)))
            if (variance <= 3 * error).any():
                raise ValueError(
                    f"the {self.events} events of a draw fluctuate as much as the draws differ, in "
                    f"{int((variance <= 3 * error).sum())} of {self.bins} bins: generate more events per draw, or take "
                    "fewer bins"
                )
            return float((_square_of_mean(means[some]) / variance).sum() / self.training_events)

        every = np.ones(trainings, dtype=bool)
        without = [np.arange(trainings) != r for r in range(trainings)] if trainings > 1 else [every]
        return np.array([gain(some) for some in (every, *without)])


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
    events=whole(2),
    draws=COUNT,
    seed=SEED,
)
def quantile_bins(
    posteriors: Sequence[Posterior],
    target: Target,
    bins: Sequence[int] = (5, 10, 20),
    *,
    events: int = 20_000,
    draws: int | None = None,
    seed: int = 0,
) -> dict[int, QuantileBinResult]:
    """Fill quantile bins of the truth with the events of every weight draw.

    Args:
        posteriors: R posteriors of one model on independent samples of one size, from ``backend.fit_many``.
        target: the truth, whose ``quantile_bins`` are filled.
        bins: numbers n of bins along each coordinate; all are filled with the same events.
        events: events per weight draw.
        draws: weight draws per posterior; None: 50, or all where fewer are stored.
        seed: seeds the weight draws and the events.

    Returns:
        The result for every n, of n^d bins.

    Raises:
        ValueError: no posteriors, or numbers out of range.
    """
    if not len(posteriors):
        raise ValueError("posteriors is empty; give those of several independent trainings")
    count = min(posterior.weights.count(draws, least=2) for posterior in posteriors)
    cells = {n: target.quantile_bins(n) for n in bins}
    counts = {n: np.zeros((len(posteriors), count, cells[n].n_bins), dtype=np.int64) for n in bins}
    sizes = {p.info.training_events or 0 for p in posteriors}
    if len(sizes) > 1:
        raise ValueError(f"the posteriors were trained on samples of {sorted(sizes)} events; they must be of one size")
    shown = bar(len(posteriors), "quantile bins", "training", show=posteriors[0].progress, brief=True)
    with seeded(stream(seed, "quantile bins"), posteriors[0].model.device), torch.no_grad(), shown:
        for r, posterior in enumerate(posteriors):
            for k, theta in enumerate(posterior.weights.draws(count, stream(seed, "quantile bins", r))):
                for start in range(0, events, FILLED_AT_ONCE):
                    x = posterior.model.sample_events(theta, min(FILLED_AT_ONCE, events - start)).double().cpu()
                    for n, cell in cells.items():
                        counts[n][r, k] += cell.counts(x).numpy()
            shown.update()
    return {n: QuantileBinResult(counts[n], events, max(sizes)) for n in bins}


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


@door(results=dictionary(having("a QuantileBinResult", "counts", "bins")))
def fit_amplification(results: Mapping[int, QuantileBinResult]) -> AmplificationFit:
    """Fit ``G = a n_bins^b`` by least squares of log G, every number of bins with the same weight.

    All numbers of bins see the same trainings and events, so their gains depend on each other. The errors are those of
    a jackknife of the whole fit over the trainings; NaN for a single one.

    Args:
        results: what :func:`quantile_bins` found, of the same trainings.

    Raises:
        ValueError: fewer than two numbers of bins, different trainings, and as
            :meth:`QuantileBinResult.amplification`.
    """
    trainings = {len(result.counts) for result in results.values()}
    if len(results) < 2 or len(trainings) > 1:
        raise ValueError(
            f"results are {len(results)} numbers of bins of {sorted(trainings)} trainings; a fit needs two numbers of "
            "bins or more, of the same trainings"
        )
    x = np.log([result.bins for result in results.values()])
    y = np.log([result._jackknife() for result in results.values()])
    b, log_a = np.polyfit(x, y, 1)  # [1 + R] each: of all trainings, and of all but one
    a, several = np.exp(log_a), len(b) - 1

    def error(values: Array) -> float:
        return float(np.sqrt((several - 1) * np.var(values[1:]))) if several > 1 else float("nan")

    return AmplificationFit(float(a[0]), error(a), float(b[0]), error(b))
