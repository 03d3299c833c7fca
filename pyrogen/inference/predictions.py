"""What a posterior predicts: densities and histograms with their uncertainties."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pyrogen.checks import whole_number


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
    """

    edges: NDArray[np.float64]
    draws: NDArray[np.float64]
    events: int
    procedure: str

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean probability per bin, ``[B]``."""
        return self.draws.mean(0)

    @property
    def std(self) -> NDArray[np.float64]:
        """Standard deviation of the bin probability over the weight draws, ``[B]``."""
        return self.draws.std(0, ddof=1)

    @property
    def widths(self) -> NDArray[np.float64]:
        """Bin widths, to turn probabilities into densities: ``mean / widths``."""
        return np.diff(self.edges)


def make_edges(bins: Any, limits: tuple[float, float] | None) -> NDArray[np.float64]:
    """Bin edges ``[B + 1]`` from edges, or from a number of bins and their limits, checked."""
    if np.ndim(bins) == 0:
        if limits is None:
            raise ValueError(f"bins={bins} needs range=(low, high); or give the edges themselves")
        bins = np.linspace(*limits, whole_number("bins", bins, 1) + 1)
    edges = np.asarray(bins, dtype=np.float64)
    if edges.ndim != 1 or len(edges) < 2 or not np.isfinite(edges).all() or not (np.diff(edges) > 0).all():
        raise ValueError(f"bin edges must be at least two increasing numbers; got {edges.tolist()}")
    return edges
