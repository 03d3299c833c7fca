"""What a posterior predicts: densities and histograms with their uncertainties."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pyrogen.checks import BOOLEAN, POSITIVE, SEED, TEXT, check_memory, door, one_of, whole, whole_number
from pyrogen.posterior.uhi import edges_of, is_axis, is_histogram, the_axis, weighted_hist

if TYPE_CHECKING:
    import hist

PROCEDURE = one_of("a", "b")  #: of own events, or of weighted ones


@dataclass(frozen=True)
class DensityEstimate:
    """Predictive density and its uncertainty at N points [A sec. 2.1].

    Attributes:
        mean: ``p(x) = <p(x|theta)>``, ``[N]``, per unit of the events' variables.
        std: ``sigma(x)``, the standard deviation of ``p(x|theta)`` over the posterior, ``[N]``.
        relative: ``sigma(x) / p(x)``, ``[N]``; infinite where no draw has any density. It is computed from ratios of
            densities, so that it stays finite where p itself is too small for a number.
    """

    mean: Tensor
    std: Tensor
    relative: Tensor


@dataclass(frozen=True)
class HistogramBand:
    """A histogram with the posterior's uncertainty [A eqs. 32-34].

    Attributes:
        edges: bin edges ``[B + 1]``.
        draws: probability of each bin in every weight draw, ``[K, B]``; events outside the edges count in the
            normalisation, so that a row need not sum to one.
        events: number of events (procedure a: per draw; procedure b: in all).
        procedure: ``"a"`` (each draw generates its own events) or ``"b"`` (the same events weighted per draw).
        noise: covariance ``[B, B]`` that the finite number of events alone gives the rows of ``draws``: of (a) the
            Poisson part, multinomial to be exact. None where it is not known.
    """

    edges: NDArray[np.float64]
    draws: NDArray[np.float64]
    events: int
    procedure: str
    noise: NDArray[np.float64] | None = None

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean probability per bin, ``[B]``."""
        return self.draws.mean(0)

    @property
    def std(self) -> NDArray[np.float64]:
        """Standard deviation of the bin probability over the weight draws, the noise of the events in it, ``[B]``."""
        return self.draws.std(0, ddof=1)

    @property
    def widths(self) -> NDArray[np.float64]:
        """Bin widths, to turn probabilities into densities: ``mean / widths``."""
        return np.diff(self.edges)

    @door(subtract_noise=BOOLEAN)
    def covariance(self, subtract_noise: bool = False) -> NDArray[np.float64]:
        """Covariance of the bin probabilities over the weight draws, ``[B, B]``.

        Args:
            subtract_noise: without the part of the finite number of events. The difference is unbiased, and so may have
                negative eigenvalues where the noise is nearly all there is.

        Raises:
            ValueError: the noise is not known.
        """
        rows = self.draws - self.mean
        total = rows.T @ rows / (len(rows) - 1)
        return total - self._known_noise() if subtract_noise else total

    @door(subtract_noise=BOOLEAN)
    def sigma(self, subtract_noise: bool = False) -> NDArray[np.float64]:
        """Uncertainty of every bin, ``[B]``: :attr:`std`, on request without the noise of the events.

        Zero in a bin where the noise exceeds what the draws differ by: generate more events to see the rest.

        Raises:
            ValueError: the noise is not known.
        """
        return np.sqrt(np.clip(np.diagonal(self.covariance(subtract_noise)), 0, None))

    @door(subtract_noise=BOOLEAN)
    def correlation(self, subtract_noise: bool = False) -> NDArray[np.float64]:
        """Correlation of the bins over the weight draws, ``[B, B]``; NaN for bins that do not vary.

        With the noise subtracted it is an estimate that may exceed one where the noise is most of the variance.
        """
        covariance, sigma = self.covariance(subtract_noise), self.sigma(subtract_noise)
        product = np.outer(sigma, sigma)
        return np.divide(covariance, product, out=np.full_like(covariance, np.nan), where=product > 0)

    @door(n=whole(1), seed=SEED, subtract_noise=BOOLEAN)
    def toys(self, n: int, seed: int = 0, subtract_noise: bool = False) -> NDArray[np.float64]:
        """``n`` histograms ``[n, B]`` drawn from the Gaussian of this mean and covariance.

        K draws know at most K - 1 directions; the toys vary in these alone. With the noise subtracted, directions in
        which it explains everything are left out.

        Raises:
            ValueError: n is not a positive whole number, or the noise is not known.
        """
        check_memory("n", n, 8.0 * n * len(self.mean), "draw fewer toys at a time, with other seeds")
        values, vectors = np.linalg.eigh(self.covariance(subtract_noise))
        noise = np.random.default_rng(seed).standard_normal((n, len(values)))
        return self.mean + (noise * np.sqrt(np.clip(values, 0, None))) @ vectors.T

    @door(total=POSITIVE, label=TEXT, name=TEXT, subtract_noise=BOOLEAN)
    def to_hist(self, total: float = 1.0, label: str = "", name: str = "", subtract_noise: bool = False) -> hist.Hist:
        """The band as a ``hist.Hist`` with the posterior's variances, for plots, fits and files (extra ``lhc``).

        A histogram keeps no correlations between its bins, though the band's are strong: :meth:`covariance` has them.
        It has no flow bins: how much is outside the edges is known, ``1 - mean.sum()``, but not on which side. So its
        sum is less than ``total`` by the events that fall outside.

        Args:
            total: number of events (or cross section) to scale the probabilities to: the values are ``total * mean``,
                the variances ``(total * sigma)^2``. There is no Poisson variance of ``total`` events in them.
            label: of the axis, such as ``"$p_T$ [GeV]"``; by default the name.
            name: of the axis, to address it by.
            subtract_noise: variances without the noise of the generated events, see :meth:`sigma`.

        Raises:
            ImportError: ``hist`` is missing.
            ValueError: ``total`` is not positive, or the noise is not known.
        """
        variances = np.square(total * self.sigma(subtract_noise))
        return weighted_hist(self.edges, total * self.mean, variances, label, name)

    def _known_noise(self) -> NDArray[np.float64]:
        if self.noise is None:
            raise ValueError("this band does not know the noise of its events, so that it cannot be subtracted")
        return self.noise


def multinomial_noise(draws: NDArray[np.float64], events: int) -> NDArray[np.float64] | None:
    """Covariance ``[B, B]`` of fractions ``draws [K, B]`` of ``events`` each, unbiased; None for a single event."""
    if events < 2:
        return None
    return (np.diag(draws.mean(0)) - draws.T @ draws / len(draws)) / (events - 1)


def weighted_noise(draws: NDArray[np.float64], squares: NDArray[np.float64], events: int) -> NDArray[np.float64] | None:
    """Covariance ``[B, B]`` among rows that differ only in the weights of the same events.

    The rows are means over the events of ``w_k 1_b``, where the mean of ``w_k`` over k is one. What they differ by,
    means of ``(w_k - 1) 1_b``, has this variance over events, and K/(K-1) times as much counts in a variance with
    K - 1 degrees of freedom.

    Args:
        draws: ``[K, B]``.
        squares: means over the events of ``(w_k - 1)^2 1_b``, averaged over k, ``[B]``.
        events: number of events.
    """
    if events < 2:
        return None
    offset = draws - draws.mean(0)
    return (np.diag(squares) - offset.T @ offset / len(draws)) / (events - 1) * len(draws) / (len(draws) - 1)


def make_edges(bins: Any, limits: tuple[float, float] | None = None) -> NDArray[np.float64]:
    """Bin edges ``[B + 1]``, checked.

    Args:
        bins: the edges, an axis or a one-dimensional histogram of ``hist`` (or what follows the UHI protocol), or a
            number of bins.
        limits: of a number of bins.

    Raises:
        ValueError: edges that are infinite or do not increase, a number without limits, an axis that is circular (it
            would wrap events from outside around, the band does not) or has categories.
    """
    if is_axis(bins) or (is_histogram(bins) and not isinstance(bins, tuple)):
        if the_axis(bins).traits.circular:
            raise ValueError("bins is a circular axis, which wraps events from outside around; give its edges instead")
        bins = edges_of(bins)
    elif np.ndim(bins) == 0:
        if limits is None:
            raise ValueError(f"bins={bins} needs range=(low, high); or give the edges themselves")
        bins = np.linspace(*limits, whole_number("bins", bins, 1) + 1)
    edges = np.asarray(bins, dtype=np.float64)
    if edges.ndim != 1 or len(edges) < 2 or not np.isfinite(edges).all() or not (np.diff(edges) > 0).all():
        raise ValueError(f"bin edges must be at least two increasing numbers; got {edges.tolist()}")
    return edges
