"""What a bump hunt finds: numbers for each window, and how often chance does as well somewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pyrogen.labelled import Labelled
from pyrogen.printing import Brief

from .counting import z_of
from .spectrum import SpectrumFit

Array = NDArray[np.float64]
CONFIDENCE = 0.95


@dataclass(frozen=True, repr=False)
class Trials(Brief):
    """Complete scans of pseudo-spectra without a signal: how often chance alone does as well, in any window.

    Attributes:
        largest: largest local significance of each scan, ``[T]``; NaN where a fit failed. Those count as exceeding.
        observed: that of the data.
    """

    largest: Array
    observed: float

    @property
    def exceeding(self) -> int:
        """Scans that reach at least the significance of the data, and those that failed."""
        return int((~(self.largest < self.observed)).sum())

    @property
    def failed(self) -> int:
        """Scans of which a fit failed."""
        return int(np.isnan(self.largest).sum())

    @property
    def p_value(self) -> float:
        """Global p-value: the fraction that exceeds. Zero where none does: see :attr:`limit`."""
        return self.exceeding / len(self.largest)

    @property
    def error(self) -> float:
        """Binomial error of the global p-value; where none or all exceed, that of one more or one less."""
        n = len(self.largest)
        k = min(max(self.exceeding, 1), n - 1) if n > 1 else 1
        return math.sqrt(k * (n - k) / n) / n if n > 1 else 1.0

    @property
    def limit(self) -> float:
        """Upper limit of the global p-value at 95 % confidence, where no scan exceeds; else NaN."""
        n = len(self.largest)
        return 1 - (1 - CONFIDENCE) ** (1 / n) if not self.exceeding else math.nan

    @property
    def significance(self) -> float:
        """Global significance, one-sided; where no scan exceeds, a lower limit at 95 % confidence."""
        return float(z_of(self.p_value if self.exceeding else self.limit))

    def text(self) -> str:
        """The global p-value in words."""
        n = len(self.largest)
        failed = f", {self.failed} of them with a fit that failed" if self.failed else ""
        if not self.exceeding:
            return f"global p-value < {self.limit:.2g} (95 % CL, none of {n:,} scans), > {self.significance:.1f} sigma"
        return (
            f"global p-value {self.p_value:.2g} +- {self.error:.1g} ({self.exceeding} of {n:,} scans{failed}), "
            f"{self.significance:.1f} sigma"
        )

    def _summary(self) -> str:
        return self.text()


@dataclass(frozen=True, repr=False)
class BumpHuntResult(Labelled):
    """A scan of W windows.

    Attributes:
        low: lower ends of the windows ``[W]``.
        high: upper ends ``[W]``.
        observed: O, events in the window, sum of weights, or mean over generators ``[W]``.
        observed_sigma: delta_O, what is known of O besides its Poisson noise: zero for real events ``[W]``.
        background: B ``[W]``.
        background_sigma: delta_B ``[W]``.
        signal_sigma: delta_S ``[W]``; with the spread of a posterior that of O - B of the same draw.
        significance: signed, ``[W]``: ``S / sqrt(delta_S^2 + B)``, or ``S / delta_S`` where delta_S has the Poisson
            noise of the data in it (:attr:`poisson`).
        p_value: local p-value of an excess ``[W]``, of :func:`excess_p_value`; of a posterior by Student's t.
        poisson: whether B was added for the Poisson noise of the data.
        method: how the background was found.
        range: lower and upper end of the spectrum.
        edges: bin edges of the spectrum ``[B + 1]``.
        counts: events ``[B]``, sums of weights, or means over generators.
        errors: of counts ``[B]``.
        fit: of the dijet function to all of the spectrum, without a signal; None where there was none to be done.
        fits: of the sidebands of each window.
        trials: scans of pseudo-spectra; None where none were asked for.
        label: name of the mass.
        unit: its unit.
    """

    _dims: ClassVar[Mapping[str, str]] = {
        "low": "window",
        "high": "window",
        "observed": "window",
        "observed_sigma": "window",
        "background": "window",
        "background_sigma": "window",
        "signal_sigma": "window",
        "significance": "window",
        "p_value": "window",
        "z": "window",
        "edges": "bin_edge",
        "counts": "bin",
        "errors": "bin",
    }
    _at: ClassVar[tuple[str, ...]] = ("low", "high")

    low: Array
    high: Array
    observed: Array
    observed_sigma: Array
    background: Array
    background_sigma: Array
    signal_sigma: Array
    significance: Array
    p_value: Array
    poisson: bool
    method: str
    range: tuple[float, float]
    edges: Array
    counts: Array
    errors: Array
    fit: SpectrumFit | None = None
    fits: tuple[SpectrumFit, ...] = ()
    trials: Trials | None = None
    label: str = "mass"
    unit: str = ""

    @property
    def signal(self) -> Array:
        """S = O - B ``[W]``."""
        return self.observed - self.background

    @property
    def z(self) -> Array:
        """Signed one-sided significance of the local p-value ``[W]``."""
        return z_of(self.p_value)

    @property
    def best(self) -> int:
        """The window with the smallest local p-value."""
        return int(np.argmin(self.p_value))

    @property
    def goodness(self) -> Array:
        """p-value of chi2 of the fit of the sidebands of each window ``[W]``; NaN where there was none."""
        return np.array([fit.goodness for fit in self.fits]) if self.fits else np.full(len(self.low), np.nan)

    def _units(self) -> dict[str, str]:
        return dict.fromkeys(("low", "high", "edges"), self.unit)

    def _labels(self) -> dict[str, str]:
        return {"edges": self.label}

    def _summary(self) -> str:
        b = self.best
        found = f"{len(self.low)} windows, largest {self.z[b]:.2f} sigma at {self.low[b]:.4g} to {self.high[b]:.4g}"
        return f"{self.method}: {found}{f' {self.unit}' if self.unit else ''}"

    def text(self) -> str:
        """A table of the windows, and the largest excess of all."""
        unit = f" [{self.unit}]" if self.unit else ""
        rows = [
            f"{self.method}; {self.label}{unit}",
            f"{'low':>9} {'high':>9} {'O':>10} {'B':>10} {'delta_B':>8} {'S':>9} {'delta_S':>8} {'signif.':>8} "
            f"{'local p':>9} {'z':>6}",
        ]
        for w in range_of(self.low):
            rows.append(
                f"{self.low[w]:9.4g} {self.high[w]:9.4g} {self.observed[w]:10.1f} {self.background[w]:10.1f} "
                f"{self.background_sigma[w]:8.1f} {self.signal[w]:9.1f} {self.signal_sigma[w]:8.1f} "
                f"{self.significance[w]:8.2f} {self.p_value[w]:9.2g} {self.z[w]:6.2f}"
            )
        if self.trials is not None:
            rows.append(self.trials.text())
        return "\n".join(rows)


def range_of(values: Array) -> list[int]:
    """Indices of an array."""
    return list(range(len(values)))
