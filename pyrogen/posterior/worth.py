"""How many true events a histogram of generated events counts as [G] (arXiv:2509.08048)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from pyrogen.checks import COUNT, POSITIVE, door, instance, number, optional
from pyrogen.labelled import Coordinates, Labelled
from pyrogen.posterior.bands import HistogramBand
from pyrogen.posterior.effective import BinVariance, Numbers

Array = NDArray[np.float64]

GAINED = 0.1  # fraction of the variance that more events than the saturation point could still gain
BAND = instance(
    HistogramBand,
    "a HistogramBand, from posterior.histogram",
    {"Posterior": "call posterior.worth(observables)", "MarginalResult": 'give one of its bands: result.bands["a"]'},
)
EVENTS = number("a number of at least 1, or infinity", lambda value: value >= 1)


@dataclass(frozen=True, eq=False, repr=False)
class Worth(Labelled):
    """How many true events give the bins of a histogram the errors that the posterior gives them.

    The posterior knows the probability p of a bin to sigma. ``N_eff = p (1 - p) / sigma^2`` true events would know it
    as well, however many events are generated; n generated ones count for ``1 / (1 / N_eff + 1 / n)``.

    Three things are not in it. It is as right as sigma: half of sigma is four times N_eff, so that the posterior has to
    be calibrated. What all networks get wrong alike, such as an edge that the flow cannot make, is no sigma. And the
    posterior's draws are taken for independent: those of a slow chain know sigma less well than ``error`` says.

    Attributes:
        band: the histogram, B bins.
        n_eff: ``[B]``: the number for every bin; where ``error`` is NaN a lower limit at 95 %, as the spread of the
            draws is lost in the noise of the generated events; NaN in a bin that no event fell into.
        error: ``[B]``, standard error of it.
        total: the number for the histogram, and its error: as many true events have the same variance, summed over
            all bins. The error of a limit is NaN; both are where no event is in the bins, or all are in one.
        worst: the number, and its error, for the combination ``sum_b c_b x_b`` of the fractions x in the bins that is
            worth the fewest events. A fit to the histogram may be limited by it, as the bins of a posterior move
            together. It is found by half of the draws and measured with the others, so that the worst may be a bit
            lower still. Bins with a limit only take no part; NaN where fewer than two are left.
        combination: ``[B]``, its coefficients c, with ``sum_b c_b p_b = 0`` and ``sum_b c_b^2 p_b = 1`` for p of sum
            one; NaN in bins that take no part.
        training_events: number of training events, of weighted ones their effective number; None where unknown.
    """

    _dims: ClassVar[Mapping[str, str]] = {
        "n_eff": "bin",
        "error": "bin",
        "combination": "bin",
    }

    band: HistogramBand
    n_eff: Array
    error: Array
    total: tuple[float, float]
    worst: tuple[float, float]
    combination: Array
    training_events: float | None = None

    @classmethod
    @door(band=BAND, training_events=optional(POSITIVE))
    def of(cls, band: HistogramBand, training_events: float | None = None) -> Self:
        """The worth of a band, such as one of :func:`pyrogen.sample_histograms`.

        Args:
            band: of at least 5 weight draws.
            training_events: number of training events, of weighted ones their effective number, for the gain.

        Raises:
            ValueError: fewer draws, or a band whose noise of the generated events is not known.
        """
        if band.noise is None:
            raise ValueError("the band does not know the noise of its events, which has to be subtracted")
        variance = BinVariance(band.draws, band.noise)
        each, total = variance.each(), variance.together()
        worst, combination = variance.worst(~each.limit & (band.mean > 0))
        return cls(band, each.value, each.error, _pair(total), _pair(worst), combination, training_events)

    def _coordinates(self) -> Coordinates:
        band = self.band.to_xarray()
        return {name: (band[name].dims, band[name].values, band[name].attrs) for name in ("edges", "bin")}

    def _summary(self) -> str:
        sign = ">" if math.isnan(self.total[1]) and not math.isnan(self.total[0]) else "="
        gain = "" if self.training_events is None else f", G {sign} {rounded(*self.gain)}"
        return f"{self.name}: N_eff {sign} {rounded(*self.total)}{gain}; {len(self.n_eff)} bins, {self.calibration}"

    @property
    def name(self) -> str:
        """What the histogram is of."""
        return self.band.label or "histogram"

    @property
    def calibration(self) -> str:
        """Whether sigma is calibrated, in a few words."""
        return self.band.calibration

    @property
    def calibrated(self) -> bool:
        """Whether sigma is known to be right."""
        return self.calibration.startswith("calibrated")

    @property
    def limit(self) -> NDArray[np.bool_]:
        """``[B]``: bins of which only a lower limit of the number is known."""
        return np.isnan(self.error) & ~np.isnan(self.n_eff)

    @property
    def training_in_bins(self) -> Array:
        """``[B]``: training events that are expected in every bin, ``p N``; NaN where N is not known."""
        return self.band.mean * (math.nan if self.training_events is None else self.training_events)

    @property
    def gains(self) -> tuple[Array, Array]:
        """Amplification ``G = N_eff / N`` of every bin and its error, ``[B]``; NaN where N is not known."""
        events = math.nan if self.training_events is None else self.training_events
        return self.n_eff / events, self.error / events

    @property
    def gain(self) -> tuple[float, float]:
        """Amplification ``G = N_eff / N`` of the histogram, and its error; NaN where N is not known."""
        events = math.nan if self.training_events is None else self.training_events
        return self.total[0] / events, self.total[1] / events

    @property
    def saturation(self) -> float:
        """Generated events M beyond which any number of further ones lowers the variance by less than 10 %: 9 N_eff.

        The error then falls by less than 5 %. A lower limit where ``total`` is one.
        """
        return (1 / GAINED - 1) * self.total[0]

    @door(n=EVENTS)
    def at(self, n: float) -> tuple[float, float]:
        """What n generated events count for in this histogram, and its error: ``1 / N = 1 / N_eff + 1 / n``."""
        value, error = self.total
        if math.isnan(value):
            return value, error
        share = 1 / (1 + value / n) if math.isfinite(value) else 0.0
        return (value * share, error * share**2) if share > 0 else (float(n), math.nan)

    @door(n=COUNT)
    def text(self, n: int | None = None) -> str:
        """What one has to know, in words.

        Args:
            n: number of generated events in the histogram; None: any number.
        """
        value, error = self.total if n is None else self.at(n)
        if math.isnan(value):
            return "All generated events are outside the histogram, or all in one bin: there is no error of theirs."
        what = "any number of" if n is None else f"{n:,}"
        limit = math.isnan(error)
        least, sign = ("at least ", ">") if limit else ("", "=")
        gain, saturated = "", f"; more than {_two_digits(self.saturation)} add less than 10 %"
        if self.training_events is not None:
            events = self.training_events
            gain = f" (G {sign} {rounded(value / events, error / events)} for {events:,.0f} training events)"
        first = (
            f"{what} generated events count as {least}{rounded(value, error)} true events in this histogram{gain}"
            f"{'' if limit else saturated}"
        )
        return ". ".join([first[0].upper() + first[1:], *self._remarks()]) + "."

    def _remarks(self) -> list[str]:
        found = []
        least, error = self.worst
        if least + (0 if math.isnan(error) else 2 * error) < self.total[0]:
            found.append(
                f"One combination of the bins counts as {rounded(least, error)} events only: a fit to them all may be "
                "limited by it"
            )
        bins, few = len(self.n_eff), int((self.training_in_bins < 1).sum())
        if few:
            found.append(
                f"In {few} of {bins} bins there is less than one training event: their number rests on the flow alone"
            )
        if self.limit.any():
            found.append(
                f"Of {int(self.limit.sum())} of {bins} bins there is a lower limit only: generate more events (n)"
            )
        if not self.calibrated:
            found.append(
                f"Sigma is {self.calibration or 'of unknown calibration'}, and so is this number: where sigma is too "
                "small by a factor f, it is too large by f^2"
            )
        return found


def _pair(found: Numbers) -> tuple[float, float]:
    return float(found.value), float(found.error)


def rounded(value: float, error: float) -> str:
    """``34,000 +- 3,000``: with the digits that the error makes sense of; the value alone where it has none."""
    if not math.isfinite(value) or not 0 < error < math.inf:
        return _two_digits(value)
    digits = -math.floor(math.log10(error)) + (error < 2 * 10.0 ** math.floor(math.log10(error)))
    shown = max(digits, 0)
    return f"{round(value, digits):,.{shown}f} +- {round(error, digits):,.{shown}f}"


def _two_digits(value: float) -> str:
    if not math.isfinite(value) or value == 0:
        return "infinitely many" if value > 0 else f"{value}"
    digits = 1 - math.floor(math.log10(abs(value)))
    return f"{round(value, digits):,.{max(digits, 0)}f}"
