"""What a posterior predicts: densities and histograms with their uncertainties."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pyrogen.checks import (
    BOOLEAN,
    POSITIVE,
    SEED,
    TEXT,
    check_memory,
    door,
    number,
    one_of,
    whole,
)
from pyrogen.labelled import Labelled, inverse_unit
from pyrogen.posterior.uhi import axis_label, weighted_hist
from pyrogen.posterior.variations import Variations, eigen_variations
from pyrogen.printing import span
from pyrogen.signals import uninterrupted

if TYPE_CHECKING:
    import hist
    from matplotlib.figure import Figure

PROCEDURE = one_of("a", "b")  #: of own events, or of weighted ones


@dataclass(frozen=True, repr=False)
class DensityEstimate(Labelled):
    """Predictive density and its uncertainty at N points [A sec. 2.1].

    Attributes:
        mean: ``p(x) = <p(x|theta)>``, ``[N]``, per unit of the events' variables.
        std: ``sigma(x)``, the standard deviation of ``p(x|theta)`` over the posterior, ``[N]``.
        relative: ``sigma(x) / p(x)``, ``[N]``; infinite where no draw has any density. It is computed from ratios of
            densities, so that it stays finite where p itself is too small for a number.
        unit: of the density, such as ``1/GeV^2``; empty where the columns have no units.
        calibration: whether sigma is calibrated, in a few words; empty where that is not known.

    Lines, maps, marginals and bands have the names :attr:`density`, :attr:`sigma` and ``relative``, too.
    """

    _dims: ClassVar[Mapping[str, str]] = {
        "mean": "event",
        "std": "event",
        "relative": "event",
    }

    mean: Tensor
    std: Tensor
    relative: Tensor
    unit: str = ""
    calibration: str = ""

    @property
    def density(self) -> Tensor:
        """The same as ``mean``."""
        return self.mean

    @property
    def sigma(self) -> Tensor:
        """The same as ``std``."""
        return self.std

    def _units(self) -> dict[str, str]:
        return {"mean": self.unit, "std": self.unit}

    def _labels(self) -> dict[str, str]:
        return {"mean": "density", "std": "standard deviation over the weight draws", "relative": "std / mean"}

    def _summary(self) -> str:
        p = f"p = {span(self.mean, '.3g')}{f' {self.unit}' if self.unit else ''}"
        known = f", {self.calibration}" if self.calibration else ""
        return f"{self.mean.numel():,} points, {p}, sigma/p = {span(self.relative, '.2g')}{known}"


@dataclass(frozen=True, repr=False)
class HistogramBand(Labelled):
    """A histogram with the posterior's uncertainty [A eqs. 32-34].

    :attr:`mean`, :attr:`std`, :meth:`sigma` and :meth:`covariance` are probabilities per bin; :meth:`density` and
    :meth:`density_sigma` are per unit of the observable, as figures show them.

    Attributes:
        edges: bin edges ``[B + 1]``.
        draws: probability of each bin in every weight draw, ``[K, B]``; events outside the edges count in the
            normalisation, so that a row need not sum to one.
        events: number of events (procedure a: per draw; procedure b: in all).
        procedure: ``"a"`` (each draw generates its own events) or ``"b"`` (the same events weighted per draw).
        noise: covariance ``[B, B]`` that the finite number of events alone gives the rows of ``draws``: of (a) the
            Poisson part, multinomial to be exact. None where it is not known.
        closed: whether the last bin contains its upper edge: as in numpy for plain edges; not with an axis of ``hist``
            that has an overflow bin.
        on_last_edge: fraction of the events exactly on that edge, where the two conventions differ.
        label: name of the observable, for figures; empty where it has none.
        unit: its unit.
        calibration: whether sigma is calibrated, in a few words for figures; empty where that is not known.
    """

    _dims: ClassVar[Mapping[str, str]] = {
        "edges": "bin_edge",
        "draws": "draw bin",
        "noise": "bin other_bin",
        "mean": "bin",
        "std": "bin",
        "density": "bin",
        "density_sigma": "bin",
    }

    edges: NDArray[np.float64]
    draws: NDArray[np.float64]
    events: int
    procedure: str
    noise: NDArray[np.float64] | None = None
    closed: bool = True
    on_last_edge: float = 0.0
    label: str = ""
    unit: str = ""
    calibration: str = ""

    def _units(self) -> dict[str, str]:
        density = inverse_unit([self.unit])
        return {"edges": self.unit, "density": density, "density_sigma": density}

    def _labels(self) -> dict[str, str]:
        return {"edges": self.label, "mean": "probability of the bin"}

    def _summary(self) -> str:
        draws, bins = self.draws.shape
        each = "each" if self.procedure == "a" else "for all"
        edges = f"{bins} bins from {self.edges[0]:g} to {self.edges[-1]:g}"
        name = f"{self.label}: " if self.label else ""
        return (
            f"{name}{edges}, {draws} draws, {self.events:,} events {each}, "
            f"{self.mean.sum():.1%} of them inside, procedure {self.procedure!r}"
        )

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

    @property
    def centres(self) -> NDArray[np.float64]:
        """Middles of the bins, ``[B]``."""
        return (self.edges[1:] + self.edges[:-1]) / 2

    def density(self) -> NDArray[np.float64]:
        """Mean density in every bin, ``[B]``, per unit of the observable: ``mean / widths``."""
        return self.mean / self.widths

    @door(subtract_noise=BOOLEAN)
    def density_sigma(self, subtract_noise: bool = False) -> NDArray[np.float64]:
        """Uncertainty of the density in every bin, ``[B]``: :meth:`sigma` per unit of the observable."""
        return self.sigma(subtract_noise) / self.widths

    @door(subtract_noise=BOOLEAN)
    def relative(self, subtract_noise: bool = False) -> NDArray[np.float64]:
        """Relative uncertainty of every bin, ``[B]``; infinite in a bin that no event fell into."""
        mean = self.mean
        return np.divide(self.sigma(subtract_noise), mean, out=np.full_like(mean, np.inf), where=mean > 0)

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
        return correlation_of(self.covariance(subtract_noise), self.sigma(subtract_noise))

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

    @door(
        fraction=number("above 0 and at most 1", lambda value: 0 < value <= 1), total=POSITIVE, subtract_noise=BOOLEAN
    )
    def variations(self, fraction: float = 0.99, total: float = 1.0, subtract_noise: bool = False) -> Variations:
        """The uncertainty as K independent pairs of templates, for a template fit: eigenvectors of the covariance.

        Every pair is one nuisance parameter with a standard normal constraint, a ``histosys`` of HistFactory and pyhf
        (:meth:`~pyrogen.posterior.Variations.modifiers`). The squares of the variations add up to the covariance.

        Args:
            fraction: of the variance, summed over the bins, that the variations have at least; 1: all of it. D draws
                have at most D - 1 variations.
            total: number of events (or cross section) that the templates are scaled to, those outside the edges among
                them.
            subtract_noise: without the noise of the generated events, see :meth:`covariance`. Directions in which the
                noise explains everything are left out.

        Raises:
            ValueError: a fraction or total out of range, or the noise is not known.
        """
        return eigen_variations(self.edges, total * self.mean, total**2 * self.covariance(subtract_noise), fraction)

    def plot(self, data: Any = None, **options: Any) -> Figure:
        """The band as a figure, with data and the ratio to them where they are given.

        Args:
            data: events per bin ``[B]``, or a histogram (``hist`` and others, or ``(counts, edges)`` of numpy), drawn
                as points with errors; None: the band alone.
            **options: of :func:`pyrogen.plotting.plot_histogram`, such as ``label="$p_T$", unit="GeV", log=True``.

        Raises:
            ValueError: data that do not fit the bins.
        """
        # By its name at run time: figures are made of posteriors, and not the other way round.
        with uninterrupted():
            plotting = importlib.import_module("pyrogen.plotting")
        return plotting.plot_histogram(self, data, **options)

    @door(total=POSITIVE, label=TEXT, name=TEXT, subtract_noise=BOOLEAN)
    def to_hist(self, total: float = 1.0, label: str = "", name: str = "", subtract_noise: bool = False) -> hist.Hist:
        """The band as a ``hist.Hist`` with the posterior's variances, for plots, fits and files (extra ``lhc``).

        A histogram keeps no correlations between its bins, though the band's are strong: :meth:`covariance` has them.
        It has no flow bins: how much is outside the edges is known, ``1 - mean.sum()``, but not on which side. So its
        sum is less than ``total`` by the events that fall outside.

        Args:
            total: number of events (or cross section) to scale the probabilities to: the values are ``total * mean``,
                the variances ``(total * sigma)^2``. There is no Poisson variance of ``total`` events in them.
            label: of the axis, such as ``"$p_T$ [GeV]"``; by default that of the band, or the name.
            name: of the axis, to address it by.
            subtract_noise: variances without the noise of the generated events, see :meth:`sigma`.

        Raises:
            ImportError: ``hist`` is missing.
            ValueError: ``total`` is not positive, or the noise is not known.
        """
        variances = np.square(total * self.sigma(subtract_noise))
        return weighted_hist(self.edges, total * self.mean, variances, label or axis_label(self.label, self.unit), name)

    def _known_noise(self) -> NDArray[np.float64]:
        if self.noise is None:
            raise ValueError("this band does not know the noise of its events, so that it cannot be subtracted")
        return self.noise


def correlation_of(covariance: NDArray[np.float64], sigma: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlation ``[B, B]`` of bins with this covariance and sigma ``[B]``; NaN for bins without a sigma."""
    product = np.outer(sigma, sigma)
    return np.divide(covariance, product, out=np.full_like(covariance, np.nan), where=product > 0)


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
