"""Marginal distributions and their uncertainty by both procedures of [A] (arXiv:2104.04543) sec. 3.5, eqs. 32-35."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pyrogen.checks import BOOLEAN, COUNT, LIMITS, SEED, TEXT, array, door, optional, require, whole
from pyrogen.diagnostics.lines import LINES, LineResult
from pyrogen.posterior.bands import PROCEDURE, HistogramBand
from pyrogen.posterior.binning import make_bins
from pyrogen.posterior.posterior import POSTERIOR, Posterior
from pyrogen.printing import Brief
from pyrogen.signals import uninterrupted

if TYPE_CHECKING:
    import xarray

Array = NDArray[np.float64]
PROCEDURES = ("a", "b")


@dataclass(frozen=True, repr=False)
class MarginalResult(Brief):
    """One marginal distribution in B bins.

    Attributes:
        bands: by procedure, ``"a"`` (every weight draw generates its own events) and ``"b"`` (the same events for all
            draws, weighted by their densities).
        truth: true density in the bins, ``[B]``, or None.
        label: name of the observable.
        unit: its unit.
    """

    bands: dict[str, HistogramBand]
    truth: Array | None = None
    label: str = "x"
    unit: str = ""

    def _summary(self) -> str:
        name = f"{self.label} [{self.unit}]" if self.unit else self.label
        known = "" if self.truth is None else ", truth"
        return (
            f"{name}: {len(self.centres)} bins from {self.edges[0]:g} to {self.edges[-1]:g}, "
            f"procedures {' and '.join(self.bands)}{known}"
        )

    @property
    def edges(self) -> Array:
        """Bin edges ``[B + 1]``."""
        return next(iter(self.bands.values())).edges

    @property
    def centres(self) -> Array:
        """Middles of the bins, ``[B]``."""
        return next(iter(self.bands.values())).centres

    def to_xarray(self) -> xarray.Dataset:
        """Densities of the bins by procedure as a Dataset ``[procedure, bin]``, and the truth ``[bin]``.

        Sigma is without the noise of the generated events. Each of the bands has a ``to_xarray`` of its own, which
        holds the rest.
        """
        band = next(iter(self.bands.values())).to_xarray()
        with uninterrupted():
            import xarray
        told, dims = band["density"].attrs, ("procedure", "bin")
        found = xarray.Dataset(
            {
                "density": (dims, np.stack([self.density(name) for name in self.bands]), told),
                "sigma": (dims, np.stack([self.sigma(name) for name in self.bands]), told),
                "relative": (dims, np.stack([self.relative(name) for name in self.bands])),
            },
            {"procedure": list(self.bands), "edges": band["edges"], "bin": band["bin"]},
            {"result": "MarginalResult", "label": self.label, "unit": self.unit},
        )
        return found if self.truth is None else found.assign(truth=("bin", self.truth, told))

    @door(procedure=PROCEDURE)
    def density(self, procedure: str = "a") -> Array:
        """Mean density in the bins, ``[B]``, per unit of the observable."""
        return self.bands[procedure].density()

    @door(procedure=PROCEDURE, subtract_noise=BOOLEAN)
    def sigma(self, procedure: str = "a", subtract_noise: bool = True) -> Array:
        """Its standard deviation over the weight draws, ``[B]``; by default without the noise of the events."""
        return self.bands[procedure].density_sigma(subtract_noise)

    @door(procedure=PROCEDURE, subtract_noise=BOOLEAN)
    def relative(self, procedure: str = "a", subtract_noise: bool = True) -> Array:
        """Its relative uncertainty, ``[B]``; infinite in a bin that no event fell into."""
        return self.bands[procedure].relative(subtract_noise)

    @door(procedure=PROCEDURE, subtract_noise=BOOLEAN)
    def sigma_error(self, procedure: str = "a", subtract_noise: bool = True) -> Array:
        """Error of sigma from the finite number of draws, ``[B]``.

        The relative error of a variance of K Gaussian numbers is ``sqrt(2 / (K - 1))``; that of the total variance
        stays where the noise is subtracted.
        """
        band = self.bands[procedure]
        variance_error = np.square(band.std / band.widths) * math.sqrt(2 / (len(band.draws) - 1))
        sigma = self.sigma(procedure, subtract_noise)
        return np.divide(variance_error, 2 * sigma, out=np.full_like(sigma, np.nan), where=sigma > 0)

    @door(lines=LINES, measure=array(0, 1), procedure=PROCEDURE)
    def ratio_to_lines(self, lines: LineResult, measure: Array | float = 1.0, procedure: str = "a") -> Array:
        """Sigma over that of the density along lines of the same coordinate, at the middles of the bins, ``[B]``.

        One where all lines deviate together, as if the network had learned a function of this coordinate alone
        ([A] sec. 3.5, eq. 35); less where the deviations of the lines are independent of each other and average out.

        Args:
            lines: density along lines.
            measure: at the points of the lines ``[n]``, what turns their density into that of the coordinate alone.
            procedure: whose sigma.

        Returns:
            NaN in bins whose middle lies outside the points of the lines.
        """
        right = f"one number, or one for each of the {len(lines.t)} points of the lines"
        require(np.shape(measure) in ((), np.shape(lines.t)), "measure", measure, right)
        expected = np.interp(self.centres, lines.t, lines.sigma * measure, left=np.nan, right=np.nan)
        return self.sigma(procedure) / expected


@door(
    posterior=POSTERIOR,
    range=optional(LIMITS),
    n=whole(1),
    draws=COUNT,
    truth=optional(array(1)),
    label=optional(TEXT),
    unit=optional(TEXT),
    seed=SEED,
)
def marginal(
    posterior: Posterior,
    observable: Callable[[Tensor], Tensor] | str | int,
    bins: Sequence[float] | Array | int | Any,
    *,
    range: tuple[float, float] | None = None,
    n: int = 100_000,
    draws: int | None = None,
    context: Any = None,
    truth: ArrayLike | None = None,
    label: str | None = None,
    unit: str | None = None,
    seed: int = 0,
) -> MarginalResult:
    """The marginal distribution of an observable, its uncertainty by both procedures.

    Args:
        posterior: the posterior.
        observable: a function of events ``[m, d]`` to values ``[m]``, or a column's name or index.
        bins: as in :meth:`~pyrogen.Posterior.histogram`: edges, a ``hist`` axis, or a number of bins on ``range``.
        range: lowest and highest edge for a number of bins.
        n: number of events, per draw (a) and in all (b).
        draws: weight draws K; None: 50, or all where fewer are stored.
        context: conditions ``[n, k]`` of a conditional flow, one row per event, or one row for all.
        truth: true density in the bins, ``[B]``.
        label: name of the observable; by default that of the axis, of the observable or of the column.
        unit: its unit; by default likewise.
        seed: seeds weight draws and events.

    Raises:
        ValueError: as :meth:`~pyrogen.Posterior.histogram`, or a truth that does not fit the bins.
    """
    binning = make_bins(bins, range)
    true = None if truth is None else np.asarray(truth, dtype=np.float64)
    if true is not None and true.shape != (len(binning),):
        raise ValueError(f"truth has shape {list(true.shape)}; there are {len(binning)} bins")
    settings: dict[str, Any] = {"n": n, "draws": draws, "context": context, "seed": seed}
    bands = {name: posterior.histogram(observable, binning, procedure=name, **settings) for name in PROCEDURES}
    known = bands["a"]
    label = (known.label or "observable") if label is None else label
    unit = known.unit if unit is None else unit
    return MarginalResult(
        {name: replace(band, label=label, unit=unit) for name, band in bands.items()}, true, label, unit
    )
