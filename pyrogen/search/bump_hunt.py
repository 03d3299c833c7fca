"""The bump hunt: windows that are scanned over a spectrum of masses, for events above a background."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pyrogen.checks import BOOLEAN, LIMITS, SEED, TEXT, array, door, instance, one_of, optional, whole
from pyrogen.events import EventsLike
from pyrogen.events.doors import PLAIN_EVENTS

from .bump_result import BumpHuntResult
from .counting import METHODS, SidebandCounting, excess_p_value, excess_significance, sidebands_of, z_of
from .generated import by_generators, check_positive, of_generators, on_bins
from .given import GeneratedMasses, GivenBackground, in_windows
from .masses import Spectrum, masses_of, spectrum_of
from .regions import Regions
from .spectrum import SidebandFit, SpectrumFit, fit_by_minuit, resolved
from .toys import estimate, of_given, of_spectrum, run_trials
from .windows import Windows, named, windows_of

Array = NDArray[np.float64]
Background = SidebandFit | SidebandCounting | GivenBackground | GeneratedMasses
NAMED = {"fit": SidebandFit, "counting": SidebandCounting}


def _background(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return one_of(*NAMED)(name, value)
    return instance(
        (SidebandFit, SidebandCounting, GivenBackground, GeneratedMasses),
        '"fit", "counting", or a SidebandFit, SidebandCounting, GivenBackground or GeneratedMasses',
        {
            "HistogramBand": "give GivenBackground.of(band, total)",
            "Posterior": "give GeneratedMasses(source=posterior)",
            "Regions": "regions are the windows",
        },
    )(name, value)


def _data(name: str, value: Any) -> Any:
    return value if isinstance(value, GeneratedMasses) else PLAIN_EVENTS(name, value)


@door(
    data=_data,
    range=optional(LIMITS),
    background=_background,
    column=optional(lambda name, value: value if isinstance(value, str) else whole(0)(name, value)),
    weights=optional(array(1)),
    unit=optional(TEXT),
    p_value=one_of(*METHODS),
    toys=whole(0),
    seed=SEED,
    progress=BOOLEAN,
)
def bump_hunt(
    data: EventsLike | GeneratedMasses,
    windows: Regions | Sequence[tuple[float, float]],
    *,
    range: tuple[float, float] | None = None,
    background: str | SidebandFit | SidebandCounting | GivenBackground | GeneratedMasses = "fit",
    column: str | int | None = None,
    weights: ArrayLike | None = None,
    unit: str | None = None,
    p_value: str = "gamma",
    toys: int = 0,
    seed: int = 0,
    progress: bool = True,
) -> BumpHuntResult:
    """Scan windows over a spectrum: S = O - B with its uncertainty, local and global significance.

    ``docs/searches.md`` has the formulas, and says which background is right when.

    Args:
        data: masses ``[N]``; events with a ``column`` of the mass; or :class:`GeneratedMasses`, the spectra of
            generators that were trained on the data, from which O and B are taken both.
        windows: ``(low, high)`` of each window, or :class:`Regions` for a single one. An event at ``low`` is in the
            window, an event at ``high`` is not.
        range: lower and upper end of the spectrum; both are in it. With regions their window.
        background: ``"fit"`` or :class:`SidebandFit`: the dijet function, fitted to all outside the window;
            ``"counting"`` or :class:`SidebandCounting`: two sidebands; :class:`GivenBackground`: an estimate with its
            error, from anywhere; :class:`GeneratedMasses`: sidebands of generators, for masses as data.
        column: of the mass among events, by name or index.
        weights: ``[N]``, not negative; None: those of the events. O is then the sum of weights, and ``sum w^2`` its
            variance.
        unit: of the masses; None: that of the events, or TeV.
        p_value: ``"gamma"`` or ``"gaussian"``, see :func:`excess_p_value`.
        toys: pseudo-spectra for the global p-value, 0: none. They are drawn from the dijet function, fitted to all but
            the window with the largest excess (a signal must not become part of them), or from the given background,
            and scanned like the data. For draws of a posterior they are Gaussian with the correlations of the draws
            between the windows.
        seed: seeds the pseudo-spectra.
        progress: show a progress bar.

    Raises:
        ValueError: masses that are NaN or outside the range, negative weights, windows without sidebands, units that
            do not fit, too few events for a fit, or a fit that does not converge.
        TypeError: data of another kind.
        ImportError: iminuit is missing, for a fit.
    """
    background = NAMED[background]() if isinstance(background, str) else background
    scanned = windows_of(windows, range)
    if isinstance(data, GeneratedMasses):
        return of_generators(data, scanned, background, column, weights, unit, toys, seed, progress)
    masses, its, label, unit = masses_of(data, column, weights, unit, scanned)
    if isinstance(background, GeneratedMasses):
        return by_generators(masses, its, background, scanned, label, unit, p_value, toys)
    settings, binned = on_bins(background, scanned, unit)
    spectrum = spectrum_of(masses, its, binned.edges)
    counts, squares, scale = spectrum.counts, spectrum.squares, spectrum.scale
    mean, sigma, fits = _estimated(settings, spectrum, binned)
    observed = binned.sums(counts)
    p = excess_p_value(observed, mean, sigma, p_value, scale=scale)
    significance = excess_significance(observed / scale, mean / scale, sigma / scale)
    fit = _fitted(settings, spectrum, binned, np.zeros(len(counts), bool), unit, False)
    trials = None
    if toys:
        if isinstance(settings, GivenBackground):
            scan = of_given(settings, scale, binned, p_value)
        else:
            best = int(np.argmin(p))
            form = fits[best] if fits else _fitted(settings, spectrum, binned, binned.inside[best], unit, True)
            assert form is not None
            scan = of_spectrum(settings, form.expected, scale, squares is not None, binned, p_value)
        trials = run_trials(scan, toys, float(z_of(p).max()), seed, progress)
    return BumpHuntResult(
        binned.low, binned.high, observed, np.zeros(len(mean)), mean, sigma, sigma, significance, p, True,
        settings.name, binned.range, binned.edges, counts, np.sqrt(counts if squares is None else squares),
        fit, fits, trials, label, unit,
    )  # fmt: skip


def _estimated(settings: Any, spectrum: Spectrum, windows: Windows) -> tuple[Array, Array, tuple[SpectrumFit, ...]]:
    """Background of the data and its uncertainty ``[W]``, and the fits that gave them."""
    counts, squares = spectrum.counts, spectrum.squares
    if isinstance(settings, GivenBackground):
        mean, covariance = in_windows(settings, windows)
        check_positive(mean, windows)
        return mean, np.sqrt(np.clip(np.diag(covariance), 0, None)), ()
    if isinstance(settings, SidebandFit):
        fits = tuple(
            fit_by_minuit(settings, windows.edges, counts, squares, ~inside, f"the sidebands of {named(pair)}")
            for inside, pair in zip(windows.inside, windows.pairs, strict=True)
        )
        inside = windows.inside.astype(np.float64)
        mean = np.array([its @ fit.expected for its, fit in zip(inside, fits, strict=True)])
        variance = np.array([its @ fit.correlated @ its for its, fit in zip(inside, fits, strict=True)])
        return mean, np.sqrt(variance), fits
    for side, name in zip(sidebands_of(settings, windows), ("lower", "upper"), strict=True):
        _check_sidebands(windows.sums(counts, side), side, name)
    mean, sigma = estimate(settings, counts[None], None if squares is None else squares[None], windows)
    return mean[0], sigma[0], ()


def _fitted(
    settings: Any, spectrum: Spectrum, windows: Windows, without: NDArray[np.bool_], unit: str, needed: bool
) -> SpectrumFit | None:
    """The dijet function in all bins but ``without [B]``; None where the background comes from elsewhere."""
    if not isinstance(settings, SidebandFit):
        if not needed:
            return None
        settings = resolved(SidebandFit(parameters=2 if windows.alone else None), windows.range, unit)
    what = "all of the range but the largest excess" if without.any() else "all of the range"
    return fit_by_minuit(settings, windows.edges, spectrum.counts, spectrum.squares, ~without, what)


def _check_sidebands(events: Array, ends: Array, name: str) -> None:
    for found, (low, high) in zip(events, ends.tolist(), strict=True):
        if not found > 0:
            raise ValueError(
                f"data has no event in the {name} sideband, {low:g} to {high:g}; give wider sidebands, "
                "SidebandCounting(width=...), or background='fit'"
            )
