"""The classical background of a bump hunt: the dijet function, fitted to the sidebands of a window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pyrogen.checks import POSITIVE, check_settings, optional, require, require_extra, whole_or_none
from pyrogen.labelled import Labelled
from pyrogen.printing import Brief
from pyrogen.signals import uninterrupted

from .dijet import DijetFunction, fit_all, inverse, log_likelihood, score_and_information, score_variance
from .windows import Windows

Array = NDArray[np.float64]

LHC = {"TeV": 13.0, "GeV": 13_000.0, "MeV": 13e6}  #: Centre-of-mass energy of the LHC by the unit of the masses.
WIDE = 2.0  # ratio of the ends of a range from which on the function takes four parameters
UNLIKE = 200.0  # an energy beyond this multiple of the range is one in another unit
CALLS = 10_000  # of the likelihood at most
FULL = 5.0  # expected events of a bin of the goodness of fit


def _parameters(name: str, value: Any) -> int:
    found = whole_or_none(value)
    require(found in (2, 3, 4), name, value, "None, 2, 3 or 4")
    return int(found)  # type: ignore[arg-type]


def _bins(name: str, value: Any) -> int:
    found = whole_or_none(value)
    require(found is not None and 10 <= found <= 10_000, name, value, "a whole number from 10 to 10,000")
    return int(found)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True, repr=False)
class SidebandFit(Brief):
    """Background of a window from the dijet function, fitted to all of the range outside the window.

    ``f(m) = p1 (1 - x)^p2 / x^(p3 + p4 log x)`` with ``x = m / sqrt(s)``, by the Poisson likelihood of fine bins whose
    expected numbers are integrals of f. The data are fitted by iminuit (extra ``fits``), pseudo-spectra by Fisher
    scoring, many at once; both find the same maximum. ``delta_B^2 = g^T C g`` with the gradient g of B by the
    parameters and their covariance C, the inverse Fisher information; for weighted events it follows from ``sum w^2``.

    Args:
        energy: ``sqrt(s)``, in the unit of the masses; None: 13 TeV.
        parameters: 2: ``p1 / x^p3``; 3: that times ``(1 - x)^p2``; 4: all. None: 4 where the range spans a factor of
            two or more, else 3. After a hard cut, with some tens of events, 2 is enough.
        bins: number of equal bins on the range; those of the windows are added.
    """

    energy: float | None = None
    parameters: int | None = None
    bins: int = 100

    def __post_init__(self) -> None:
        check_settings(self, energy=optional(POSITIVE), parameters=optional(_parameters), bins=_bins)

    @property
    def name(self) -> str:
        """What it is called in tables and figures."""
        return "sideband fit"


@dataclass(frozen=True, repr=False)
class SpectrumFit(Labelled):
    """The dijet function, fitted to a spectrum of which a window may be left out.

    Attributes:
        values: parameters by name, ``log_p1, p3, p2, p4`` or the first of these; ``p1`` in events per unit of mass.
        covariance: of them, ``[P, P]``.
        edges: of the bins ``[B + 1]``.
        expected: events in each bin, ``[B]``, in those left out too.
        correlated: covariance ``[B, B]`` of ``expected``.
        used: which bins were fitted, ``[B]``.
        chi2: Pearson's, of the used bins, merged until each has five expected events.
        ndf: their number, less the parameters.
        energy: ``sqrt(s)``.
    """

    _dims: ClassVar[Mapping[str, str]] = {
        "edges": "bin_edge",
        "expected": "bin",
        "correlated": "bin other_bin",
        "used": "bin",
        "covariance": "parameter other_parameter",
        "sigma": "bin",
    }

    values: dict[str, float]
    covariance: Array
    edges: Array
    expected: Array
    correlated: Array
    used: NDArray[np.bool_]
    chi2: float
    ndf: int
    energy: float

    @property
    def errors(self) -> dict[str, float]:
        """Uncertainty of every parameter by its name."""
        return dict(zip(self.values, np.sqrt(np.diag(self.covariance)).tolist(), strict=True))

    @property
    def sigma(self) -> Array:
        """Uncertainty of ``expected``, ``[B]``."""
        return np.sqrt(np.clip(np.diag(self.correlated), 0, None))

    @property
    def goodness(self) -> float:
        """Probability of a larger chi2; NaN without degrees of freedom."""
        with uninterrupted():
            from scipy import special
        return float(special.gammaincc(self.ndf / 2, self.chi2 / 2)) if self.ndf > 0 else float("nan")

    def _summary(self) -> str:
        told = [f"{name} = {value:.5g} +- {self.errors[name]:.2g}" for name, value in self.values.items()]
        return ", ".join([*told, f"chi2/ndf = {self.chi2:.1f}/{self.ndf} (p = {self.goodness:.2g})"])


def resolved(settings: SidebandFit, range: tuple[float, float], unit: str) -> SidebandFit:
    """The same settings with numbers for what is None.

    Raises:
        ValueError: a range that is not between zero and the energy, or a unit without a default energy.
    """
    low, high = range
    energy = settings.energy
    if energy is None:
        require(unit in LHC, "unit", unit, f"one of {', '.join(LHC)}, or give SidebandFit(energy=sqrt(s))")
        energy = LHC[unit]
    if not 0 < low < high < energy:
        raise ValueError(
            f"range is {range}; the dijet function needs masses between 0 and the energy, {energy:g} {unit}. Are "
            f"the masses in {unit}? Else give unit, or SidebandFit(energy=sqrt(s) in the unit of the masses)"
        )
    if settings.energy is not None:
        require(energy < UNLIKE * high, "energy", energy, f"in the unit of the masses, which end at {high:g}")
    return replace(settings, energy=energy, parameters=settings.parameters or (4 if high >= WIDE * low else 3))


def function_of(settings: SidebandFit, edges: Array) -> DijetFunction:
    """The function on these bins; settings without None."""
    assert settings.energy is not None and settings.parameters is not None
    return DijetFunction(settings.energy, settings.parameters, edges)


def estimate_by_fit(
    settings: SidebandFit, counts: Array, squares: Array | None, windows: Windows
) -> tuple[Array, Array]:
    """Background and its uncertainty, ``[F, W]`` each, of spectra ``counts [F, B]``; NaN where a fit fails."""
    function = function_of(settings, windows.edges)
    mean, sigma = (np.full((len(counts), len(windows.low)), np.nan) for _ in range(2))
    for w, inside in enumerate(windows.inside):
        fit = fit_all(function, counts, ~inside, squares)
        expected, slopes = function.expected(fit.theta, inside)
        gradient = slopes.sum(1)
        variance = np.einsum("fp,fpq,fq->f", gradient, fit.covariance, gradient)
        good = fit.converged & (variance >= 0)
        mean[good, w], sigma[good, w] = expected.sum(-1)[good], np.sqrt(variance[good])
    return mean, sigma


def fit_by_minuit(
    settings: SidebandFit, edges: Array, counts: Array, squares: Array | None, used: NDArray[np.bool_], what: str
) -> SpectrumFit:
    """Fit one spectrum ``counts [B]`` in the bins ``used [B]`` with iminuit.

    Raises:
        ImportError: iminuit is missing.
        ValueError: too few events, or a fit that does not converge; the message says of ``what``.
    """
    require_extra("iminuit", "fits", "bump_hunt")
    with uninterrupted():
        from iminuit import Minuit

    function = function_of(settings, edges)
    check_filled(counts, squares, used, len(function.names), what)
    n = counts[used]
    perfect = float(log_likelihood(n[None], np.maximum(n, 1e-300)[None])[0])  # keeps the loss near zero, and precise

    def loss(theta: Array) -> float:
        gained = float(log_likelihood(n[None], function.expected(theta[None], used)[0])[0])
        return perfect - gained if np.isfinite(gained) else 1e300

    def gradient(theta: Array) -> Array:
        mean, slope = (its[0] for its in function.expected(theta[None], used))
        return -((n / mean - 1) @ slope)

    minuit = Minuit(loss, function.start(counts[None], used)[0], grad=gradient)
    minuit.errordef, minuit.tol = Minuit.LIKELIHOOD, 1e-3
    minuit.migrad(ncall=CALLS)
    if not minuit.valid:
        raise ValueError(
            f"data: the fit of {what} does not converge, with {n.sum():g} events and {len(function.names)} parameters; "
            "give SidebandFit of fewer parameters, a wider range, or narrower windows"
        )
    theta = np.array(minuit.values)
    mean, slope = function.expected(theta[None])
    fitted = n[None], mean[:, used], slope[:, used]
    covariance = inverse(score_and_information(*fitted)[1])
    if squares is not None:
        covariance = covariance @ score_variance(n[None], squares[None, used], *fitted[1:]) @ covariance
    covariance, mean, slope = covariance[0], mean[0], slope[0]
    turn = function.to_parameters
    chi2, merged = _chi2(n, mean[used], 1.0 if squares is None else squares.sum() / counts.sum())
    return SpectrumFit(
        dict(zip(function.names, (turn @ theta).tolist(), strict=True)),
        turn @ covariance @ turn.T,
        edges,
        mean,
        slope @ covariance @ slope.T,
        used,
        chi2,
        merged - len(theta),
        float(settings.energy or 0),
    )


def check_filled(counts: Array, squares: Array | None, used: NDArray[np.bool_], parameters: int, what: str) -> None:
    """Refuse a spectrum with so few events, or so few bins, that they do not determine the parameters."""
    total = counts[used].sum()
    size = total if squares is None else total**2 / max(squares[used].sum(), 1e-300)
    filled = int((counts[used] > 0).sum())
    if size <= parameters or filled <= parameters:
        raise ValueError(
            f"data has {size:.3g} events in {filled} bins of {what}; a fit of {parameters} parameters needs more. Give "
            "SidebandFit of fewer parameters, or a wider range"
        )


def _chi2(counts: Array, expected: Array, scale: float) -> tuple[float, int]:
    """Pearson's chi2 of neighbouring bins merged until each has enough expected events, and the number of them."""
    group = np.floor(np.minimum(np.cumsum(expected) / scale, 1e15) / FULL).astype(int)
    starts = np.append(0, np.flatnonzero(np.diff(group) > 0) + 1)
    seen, mean = np.add.reduceat(counts, starts), np.add.reduceat(expected, starts)
    return float((np.square(seen - mean) / (mean * scale)).sum()), len(starts)
