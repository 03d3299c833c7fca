"""A histogram with its training and systematic uncertainties: covariances, correlations, templates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pyrogen.checks import BOOLEAN, POSITIVE, TEXT, door, number, one_of, require
from pyrogen.diagnostics.templates import Templates
from pyrogen.events.nuisances import RateEstimate
from pyrogen.posterior.bands import HistogramBand, correlation_of
from pyrogen.posterior.variations import eigen_variations
from pyrogen.printing import Brief
from pyrogen.signals import uninterrupted

if TYPE_CHECKING:
    import xarray

Array = NDArray[np.float64]
PARTS = ("training", "systematic", "total")
PART = one_of(*PARTS)
KEPT = ("label", "unit", "calibration")  # what a Dataset takes over from that of the band


@dataclass(frozen=True, repr=False)
class Shift(Brief):
    """What one sigma of a nuisance parameter changes in a histogram of B bins, for each of K weight draws.

    Both histograms are of the same random numbers, so that they have little noise of their own: see
    :func:`systematics`.

    Attributes:
        name: of the parameter.
        values: of the parameter: down and up. Down is None for a one-sided parameter, whose down is up mirrored.
        up: probability of each bin at ``nominal + sigma`` minus that at ``nominal``, ``[K, B]``.
        down: the same at ``nominal - sigma``.
        noise: covariance ``[B, B]`` that the finite number of events gives the rows of ``(up - down) / 2``.
        rates: total cross section down and up over the nominal one, with errors; None where it is not known. Where down
            is up mirrored, its rate is one over that of up.
    """

    name: str
    values: tuple[float | None, float]
    up: Array
    down: Array
    noise: Array
    rates: tuple[RateEstimate, RateEstimate] | None = None

    @property
    def draws(self) -> Array:
        """The symmetric shift ``(up - down) / 2`` of every weight draw, ``[K, B]``."""
        return (self.up - self.down) / 2

    @property
    def mean(self) -> Array:
        """The symmetric shift, ``[B]``."""
        return self.draws.mean(0)

    @property
    def error(self) -> Array:
        """Error of :attr:`mean` from the finite number of generated events, ``[B]``."""
        return np.sqrt(np.clip(np.diagonal(self.noise), 0, None) / len(self.up))

    @property
    def training_sigma(self) -> Array:
        """Training uncertainty of the shift itself, ``[B]``, without the noise of the events."""
        return np.sqrt(np.clip(self.draws.var(0, ddof=1) - np.diagonal(self.noise), 0, None))

    def _summary(self) -> str:
        down, up = self.values
        return f"{self.name} = {'mirrored' if down is None else f'{down:g}'}, {up:g}; {len(self.mean)} bins"


@dataclass(frozen=True, repr=False)
class PriorDraws(Brief):
    """Histograms of K weight draws, each at its own values of the nuisance parameters, drawn from their prior.

    They make no use of shifts at one sigma: responses that are not linear, and shifts that differ from one weight draw
    to the next, are in their covariance.

    Attributes:
        values: of the parameters, ``[K, J]``.
        draws: probability of each bin, ``[K, B]``.
        shifts: the same minus that of the same weight draw at the nominal values, ``[K, B]``.
        noise: covariance ``[B, B]`` that the finite number of events gives the rows of ``draws``.
        shift_noise: the same of ``shifts``.
    """

    values: Array
    draws: Array
    shifts: Array
    noise: Array
    shift_noise: Array

    def total(self) -> Array:
        """Covariance ``[B, B]`` over weight draws and prior together, without the noise of the events."""
        return np.cov(self.draws, rowvar=False).reshape(self.noise.shape) - self.noise

    def systematic(self) -> Array:
        """Covariance ``[B, B]`` of the shifts over the prior, without the noise of the events."""
        return np.cov(self.shifts, rowvar=False).reshape(self.noise.shape) - self.shift_noise


@dataclass(frozen=True, repr=False)
class Systematics(Brief):
    """A histogram of B bins with its training and systematic uncertainties.

    Covariances are of the probabilities per bin. ``part`` is ``"training"`` (over the weight draws, without the noise
    of the generated events), ``"systematic"`` (the sum over the parameters of the outer product of their shifts) or
    ``"total"``, the sum of both. With ``rate=True`` the shifts contain the change of the total cross section: they are
    of ``r(a) p(bin|a)``.

    Attributes:
        band: the histogram at the nominal values, with the training uncertainty.
        shifts: by parameter.
        prior: histograms over the prior of the parameters, where they were asked for.
    """

    band: HistogramBand
    shifts: dict[str, Shift]
    prior: PriorDraws | None = None

    def _summary(self) -> str:
        return f"{', '.join(self.shifts)}; {self.band!r}"

    @property
    def nominal(self) -> Array:
        """Probability per bin at the nominal values, ``[B]``."""
        return self.band.mean

    def to_xarray(self) -> xarray.Dataset:
        """The histogram and what changes it, as a Dataset.

        Probabilities per bin: ``nominal [bin]``, ``down`` and ``up [parameter, bin]``, ``sigma [part, bin]`` and
        ``covariance [part, bin, other_bin]`` with the parts training, systematic and total; without the change of the
        total cross section, which is ``rates [parameter, way]`` where it is known.
        """
        band = self.band.to_xarray()
        with uninterrupted():
            import xarray
        varied = [self.varied(name) for name in self.shifts]
        rates = [
            (math.nan, math.nan) if shift.rates is None else tuple(rate.value for rate in shift.rates)
            for shift in self.shifts.values()
        ]
        bins = len(self.nominal)
        return xarray.Dataset(
            {
                "nominal": ("bin", self.nominal),
                "down": (("parameter", "bin"), np.reshape([down for down, _ in varied], (-1, bins))),
                "up": (("parameter", "bin"), np.reshape([up for _, up in varied], (-1, bins))),
                "rates": (("parameter", "way"), np.reshape(rates, (-1, 2))),
                "sigma": (("part", "bin"), np.stack([self.sigma(part) for part in PARTS])),
                "covariance": (("part", "bin", "other_bin"), np.stack([self.covariance(part) for part in PARTS])),
            },
            {
                "parameter": list(self.shifts),
                "part": list(PARTS),
                "way": ["down", "up"],
                "edges": band["edges"],
                "bin": band["bin"],
            },
            {"result": "Systematics", **{name: band.attrs[name] for name in KEPT if name in band.attrs}},
        )

    @door(name=TEXT, rate=BOOLEAN)
    def varied(self, name: str, rate: bool = False) -> tuple[Array, Array]:
        """Probability per bin one sigma down and up, ``[B]`` each.

        Raises:
            ValueError: an unknown parameter, or a rate that is not known.
        """
        require(name in self.shifts, "name", name, f"one of {', '.join(self.shifts)}")
        shift = self.shifts[name]
        down, up = self.nominal + shift.down.mean(0), self.nominal + shift.up.mean(0)
        if not rate:
            return down, up
        if shift.rates is None:
            raise ValueError(f"rate is True, but the rate of {name} is not known; give systematics(rate=sample.rate)")
        down = (
            shift.rates[0].value * down if shift.values[0] is not None else 2 * self.nominal - shift.rates[1].value * up
        )
        return down, shift.rates[1].value * up

    @door(name=TEXT, rate=BOOLEAN)
    def shift(self, name: str, rate: bool = False) -> Array:
        """What one sigma of a parameter changes, half the difference of up and down, ``[B]``."""
        down, up = self.varied(name, rate)
        return (up - down) / 2

    @door(part=PART, rate=BOOLEAN)
    def covariance(self, part: str = "total", rate: bool = False) -> Array:
        """Covariance of the bins, ``[B, B]``."""
        found = np.zeros((len(self.nominal), len(self.nominal)))
        if part != "systematic":
            found += self.band.covariance(subtract_noise=True)
        if part != "training":
            for name in self.shifts:
                shift = self.shift(name, rate)
                found += np.outer(shift, shift)
        return found

    @door(part=PART, rate=BOOLEAN)
    def sigma(self, part: str = "total", rate: bool = False) -> Array:
        """Uncertainty of every bin, ``[B]``."""
        return np.sqrt(np.clip(np.diagonal(self.covariance(part, rate)), 0, None))

    @door(part=PART, rate=BOOLEAN)
    def correlation(self, part: str = "total", rate: bool = False) -> Array:
        """Correlation of the bins, ``[B, B]``; NaN for bins without an uncertainty."""
        return correlation_of(self.covariance(part, rate), self.sigma(part, rate))

    @door(
        total=POSITIVE,
        fraction=number("above 0 and at most 1", lambda value: 0 < value <= 1),
        name=TEXT,
    )
    def templates(self, total: float = 1.0, fraction: float = 0.99, name: str = "generator") -> Templates:
        """Templates for a fit: nominal, up and down of each parameter, and variations for the training uncertainty.

        Args:
            total: number of events (or cross section) that they are scaled to, those outside the edges among them.
            fraction: of the training variance that the variations have, see
                :meth:`~pyrogen.HistogramBand.variations`. The rest is taken for independent from bin to bin.
            name: first part of the names of the variations. Histograms of several channels need different ones.
        """
        training = total**2 * self.band.covariance(subtract_noise=True)
        variations = eigen_variations(self.band.edges, total * self.nominal, training, fraction)
        noise = np.diagonal(self.band._known_noise()) / len(self.band.draws)
        both = {parameter: self.varied(parameter) for parameter in self.shifts}
        return Templates(
            variations,
            {parameter: total * down for parameter, (down, _) in both.items()},
            {parameter: total * up for parameter, (_, up) in both.items()},
            {n: (s.rates[0].value, s.rates[1].value) for n, s in self.shifts.items() if s.rates is not None},
            total * np.sqrt(np.clip(noise, 0, None)),
            name,
            self.band.label,
            self.band.unit,
        )
