"""Calibration and amplification in bins of equal true probability, as for the gamma ring of [F] (arXiv:2408.00838).

Each weight draw of a posterior generates events of its own, which fill n x n bins that all have the same true
probability. How often the truth 1/n^2 lies in the central intervals of a bin is its calibration; how many training
events a counting experiment would need for the same errors, in units of those it had, is the amplification.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from pyrogen.checks import whole_number
from pyrogen.diagnostics.calibration import Calibration, calibration_of
from pyrogen.inference.posterior import Posterior
from pyrogen.targets.base import Target

Array = NDArray[np.float64]
CHUNK = 16_384  # events generated at once


@dataclass(frozen=True)
class QuantileBinResult:
    """Probabilities of B quantile bins in K weight draws of R trainings.

    Attributes:
        counts: generated events in every bin, ``[R, K, B]``.
        events: events that every draw generated.
        training_events: events N that every posterior was trained on.
    """

    counts: NDArray[np.int64] = field(repr=False)
    events: int
    training_events: int

    @property
    def bins(self) -> int:
        """Number of bins B."""
        return self.counts.shape[2]

    @property
    def noise_variance(self) -> Array:
        """Variance of a bin's fraction from the finite number of generated events, unbiased estimate, ``[R, B]``."""
        p = self.counts / self.events
        return (p * (1 - p) / (self.events - 1)).mean(1)

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

    def calibration(self, subtract_noise: bool = True) -> Calibration:
        """How often the truth, 1/B in every bin, lies in the central intervals ([F] sec. 4)."""
        truth = np.full(self.bins, 1 / self.bins)
        return calibration_of(self.probabilities(subtract_noise), truth, label="quantile bin")

    def amplification(self) -> tuple[float, float]:
        """Amplification ``G = sum_bins mean^2 / variance / N`` ([F] sec. 5), and its error.

        mean^2 / variance is the number of Poisson events that would give a bin's relative error. With the noise of the
        generated events subtracted, the variance of a single bin may come out as zero; so sums over bins and trainings
        are taken first, ``G = B sum mean^2 / sum variance / N``. For bins of equal probability and equal relative error
        it is the same. The error is that of a jackknife over the trainings; NaN for a single one.

        Raises:
            ValueError: the noise of the generated events explains all of the variance.
        """
        p = self.counts / self.events
        trainings, draws, bins = p.shape
        squares, noise = np.square(p.mean(1)).sum(1), self.noise_variance.sum(1)
        variances = p.var(1, ddof=1).sum(1) - noise
        # Three times the error of a variance of so many numbers that only the noise had a part in.
        if variances.sum() <= 3 * noise.sum() * np.sqrt(2 / (trainings * (draws - 1) * bins)):
            raise ValueError(
                f"the {self.events} events of a draw fluctuate as much as the draws differ, in {bins} bins: "
                "generate more events per draw, or take fewer bins"
            )

        def gain(some: NDArray[np.bool_]) -> float:
            return float(bins * squares[some].sum() / variances[some].sum() / self.training_events)

        every = np.ones(trainings, dtype=bool)
        if trainings == 1:
            return gain(every), float("nan")
        without = [gain(np.arange(trainings) != r) for r in range(trainings)]
        return gain(every), float(np.sqrt((trainings - 1) * np.var(without)))


def quantile_bins(
    posteriors: Sequence[Posterior],
    target: Target,
    bins: Sequence[int] = (5, 10, 20),
    *,
    events: int = 20_000,
    draws: int = 50,
    seed: int = 0,
) -> dict[int, QuantileBinResult]:
    """Fill quantile bins of the truth with the events of every weight draw.

    Args:
        posteriors: R posteriors of one model on independent samples of one size, from ``backend.fit_many``.
        target: the truth, whose ``quantile_bins`` are filled.
        bins: numbers n of bins along each coordinate; all are filled with the same events.
        events: events per weight draw.
        draws: weight draws per posterior (at most all stored).
        seed: seeds the weight draws and the events.

    Returns:
        The result for every n, of n^d bins.

    Raises:
        ValueError: no posteriors, or numbers out of range.
    """
    if not len(posteriors):
        raise ValueError("posteriors is empty; give those of several independent trainings")
    events = whole_number("events", events, 2)
    count = min([whole_number("draws", draws, 2), *(p.weights.stored for p in posteriors if p.weights.stored)])
    cells = {n: target.quantile_bins(n) for n in bins}
    counts = {n: np.zeros((len(posteriors), count, cells[n].n_bins), dtype=np.int64) for n in bins}
    sizes = {int(p.info.get("training_events", 0)) for p in posteriors}
    if len(sizes) > 1:
        raise ValueError(f"the posteriors were trained on samples of {sorted(sizes)} events; they must be of one size")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for r, posterior in enumerate(tqdm(posteriors, desc="quantile bins", unit="training", delay=3)):
            for k, theta in enumerate(posterior.weights.draws(count, seed)):
                for start in range(0, events, CHUNK):
                    x = posterior.model.sample_events(theta, min(CHUNK, events - start)).double()
                    for n, cell in cells.items():
                        counts[n][r, k] += cell.counts(x).numpy()
    return {n: QuantileBinResult(counts[n], events, max(sizes)) for n in bins}


@dataclass(frozen=True)
class AmplificationFit:
    """``G = a n_bins^b`` ([F] sec. 5), fitted in the logarithms.

    Attributes:
        a: factor, and ``a_error``.
        b: exponent, and ``b_error``.
    """

    a: float
    a_error: float
    b: float
    b_error: float

    def __call__(self, n_bins: ArrayLike) -> Array:
        """G at these numbers of bins."""
        return self.a * np.asarray(n_bins, dtype=np.float64) ** self.b


def fit_amplification(n_bins: ArrayLike, gains: ArrayLike, errors: ArrayLike) -> AmplificationFit:
    """Fit ``G = a n_bins^b`` by weighted least squares of log G.

    Args:
        n_bins: numbers of bins, ``[n]``, at least two.
        gains: amplifications, ``[n]``.
        errors: their errors, ``[n]``.

    Raises:
        ValueError: shapes that differ, or numbers that are not positive and finite.
    """
    arrays = [np.asarray(values, dtype=np.float64) for values in (n_bins, gains, errors)]
    if arrays[0].ndim != 1 or len(arrays[0]) < 2 or len({array.shape for array in arrays}) > 1:
        raise ValueError("n_bins, gains and errors must be vectors of one length, two points or more")
    if not all((np.isfinite(array) & (array > 0)).all() for array in arrays):
        raise ValueError("n_bins, gains and errors must be positive and finite")
    x, y, sigma = np.log(arrays[0]), np.log(arrays[1]), arrays[2] / arrays[1]
    design = np.stack([np.ones_like(x), x], 1) / sigma[:, None]
    covariance = np.linalg.inv(design.T @ design)
    log_a, b = covariance @ design.T @ (y / sigma)
    a = float(np.exp(log_a))
    return AmplificationFit(a, a * float(np.sqrt(covariance[0, 0])), float(b), float(np.sqrt(covariance[1, 1])))
