"""What a fit of a few parameters would make of the density: its shape of sigma(t), fitted to the measured one.

[A] (arXiv:2104.04543) reads off its uncertainty maps that a flow learns a density in the way of such a fit: the green
lines of its figs. 2, 4 and 6.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pyrogen.checks import POSITIVE, array, dictionary, door, optional, require_extra
from pyrogen.printing import Brief

Array = NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class ShapeFit(Brief):
    """Fitted uncertainties of the parameters of a density.

    Attributes:
        values: Delta of every parameter, at least zero, by name.
        errors: its error from the curvature of chi2, by name.
        chi2: at the minimum.
        ndf: points minus parameters.
        sensitivities: ``|dp/d parameter|`` at the fitted points, ``[n]`` by name.
        bars: the error bars of sigma that chi2 counts with, ``[n]``.
        converged: whether the minimiser found a valid minimum.
    """

    values: dict[str, float]
    errors: dict[str, float]
    chi2: float
    ndf: int
    sensitivities: dict[str, Array]
    bars: Array
    converged: bool = True

    def _summary(self) -> str:
        return ", ".join(
            [f"{name} = {value:.4g} +- {self.errors[name]:.2g}" for name, value in self.values.items()]
            + [f"chi2/ndf = {self.chi2:.4g}/{self.ndf}"]
            + ["not converged"] * (not self.converged)
        )

    @door(sensitivities=optional(dictionary(array(1))))
    def curve(self, sensitivities: Mapping[str, Any] | None = None) -> Array:
        """The fitted sigma(t) ``[n]``, at the fitted points or at any others.

        Args:
            sensitivities: ``{name: [n]}`` at other points, such as ``target.sensitivities(t)``.

        Raises:
            ValueError: other names than those fitted.
        """
        given = self.sensitivities if sensitivities is None else _as_arrays(sensitivities)
        if given.keys() != self.values.keys():
            raise ValueError(f"the fit has the parameters {sorted(self.values)}, got sensitivities {sorted(given)}")
        return np.sqrt(sum((given[name] * delta) ** 2 for name, delta in self.values.items()))


@door(sigma=array(1), error=array(1), sensitivities=dictionary(array(1)), floor=POSITIVE)
def fit_shape(sigma: ArrayLike, error: ArrayLike, sensitivities: Mapping[str, Any], *, floor: float = 0.02) -> ShapeFit:
    """Fit ``sigma(t)^2 = sum_i (sensitivity_i(t) Delta_i)^2`` by least squares [A eqs. 20, 23, 27, 31].

    chi2 takes the points as independent. Those of a line are not, so chi2/ndf compares shapes with each other and is
    no goodness of fit, and the errors say how well the curve determines a Delta, not how right the assumed shape is.

    Args:
        sigma: measured uncertainties ``[n]``, such as ``result.sigma`` of :func:`density_along_lines`.
        error: their error bars ``[n]``, such as ``result.sigma_spread``.
        sensitivities: ``|dp/d parameter|`` at the same points, ``{name: [n]}``, such as ``target.sensitivities(t)``.
        floor: smallest error bar, as a fraction of the mean of sigma. A spread over a few lines is now and then
            accidentally tiny (and for one line zero), and such a point must not rule the fit.

    Raises:
        ImportError: iminuit is missing.
        ValueError: shapes that differ, numbers that are negative or not finite, no parameters, or no more points than
            parameters.
    """
    require_extra("iminuit", "fits", "fit_shape")
    from iminuit import Minuit

    names = list(sensitivities)
    columns = _as_arrays(sensitivities)
    measured, bars = np.asarray(sigma, dtype=np.float64), np.asarray(error, dtype=np.float64)
    _check(measured, {"error": bars} | columns, names)
    bars = np.maximum(bars, floor * measured.mean())
    squares = np.stack([columns[name] ** 2 for name in names])

    def chi2(deltas: Array) -> float:
        return float(np.sum(((measured - np.sqrt(deltas**2 @ squares)) / bars) ** 2))

    # sigma is even in every Delta, so the bound Delta >= 0 needs nothing but dropping the sign in the end. Bounds in
    # the minimiser would bend the parabola that the errors are read from, just where a Delta is small.
    minimiser = Minuit(chi2, _start(measured, squares), name=names)
    minimiser.errordef = Minuit.LEAST_SQUARES
    minimiser.migrad()
    minimiser.hesse()
    return ShapeFit(
        values={name: abs(float(minimiser.values[name])) for name in names},
        errors={name: float(minimiser.errors[name]) for name in names},
        chi2=float(minimiser.fval),
        ndf=len(measured) - len(names),
        sensitivities=columns,
        bars=bars,
        converged=bool(minimiser.valid),
    )


def _start(measured: Array, squares: Array) -> Array:
    """Every parameter alone would explain the mean of sigma^2: the right order of magnitude, and away from zero."""
    return np.sqrt(np.mean(measured**2) / (len(squares) * squares.mean(1)))


def _as_arrays(sensitivities: Mapping[str, Any]) -> dict[str, Array]:
    return {name: np.asarray(values, dtype=np.float64) for name, values in sensitivities.items()}


def _check(measured: Array, others: dict[str, Array], names: list[str]) -> None:
    if not names:
        raise ValueError("sensitivities is empty; give at least one parameter")
    if measured.ndim != 1 or len(measured) <= len(names):
        raise ValueError(
            f"sigma has shape {list(measured.shape)}; a fit of {', '.join(names)} needs a vector of more points"
        )
    for name, values in {"sigma": measured, **others}.items():
        if values.shape != measured.shape:
            raise ValueError(f"{name} has shape {list(values.shape)}; sigma has {list(measured.shape)}")
        if not (np.isfinite(values) & (values >= 0)).all():
            raise ValueError(
                f"{name} must be finite and not negative, got values from {values.min()} to {values.max()}"
            )
    for name in ("sigma", *names):
        if not (measured if name == "sigma" else others[name]).any():
            raise ValueError(f"{name} is zero at every point; there is nothing to fit")
