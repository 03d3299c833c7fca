"""Bump hunts with the spectra of generators that were trained on the data."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyrogen.signals import uninterrupted

from .bump_result import BumpHuntResult
from .counting import SidebandCounting, excess_p_value, excess_significance, sidebands_of, z_of
from .given import GeneratedMasses, GivenBackground, in_windows, spectra_of
from .masses import spectrum_of
from .spectrum import SidebandFit, check_filled, resolved
from .toys import estimate, of_draws, run_trials
from .windows import Windows, named

Array = NDArray[np.float64]
BINS = 100  # of a spectrum that is shown, where no fit says how many


def on_bins(background: Any, windows: Windows, unit: str) -> tuple[Any, Windows]:
    """Settings without None, and the windows with the bins that they need."""
    if isinstance(background, GivenBackground):
        if background.edges is None:
            in_windows(background, windows)  # refuses another number of windows
            return background, windows.on(BINS)
        return background, windows.on_edges(np.asarray(background.edges), "background")
    if isinstance(background, SidebandFit):
        background = resolved(background, windows.range, unit)
        return background, windows.on(background.bins)
    return background, windows.on(BINS, sidebands_of(background, windows))


def check_positive(mean: Array, windows: Windows) -> None:
    """Refuse a background ``[W]`` that expects nothing in a window."""
    for value, pair in zip(mean, windows.pairs, strict=True):
        if not value > 0:
            raise ValueError(f"background is {value:g} in {named(pair)}; it must be above zero")


def _sidebands_of_draws(
    settings: SidebandFit | SidebandCounting, spectra: Array, windows: Windows, parameters: int
) -> tuple[Array, Array]:
    """Background of every generator and the statistical error that data of its size would give it, ``[K, W]``."""
    for inside, pair in zip(windows.inside, windows.pairs, strict=True):
        check_filled(spectra.mean(0), None, ~inside, parameters, f"the sidebands of {named(pair)}")
    mean, sigma = estimate(settings, spectra, None, windows)
    bad = np.argwhere(~np.isfinite(mean))
    if len(bad):
        draw, window = bad[0]
        raise ValueError(
            f"data: {len(bad)} of {mean.size} fits to sidebands of generators do not converge, first of generator "
            f"{draw}, {named(windows.pairs[window])}; give SidebandFit of fewer parameters, or more draws to n"
        )
    return mean, sigma


def of_generators(
    data: GeneratedMasses,
    windows: Windows,
    background: Any,
    column: Any,
    weights: Any,
    unit: str | None,
    toys: int,
    seed: int,
    progress: bool,
) -> BumpHuntResult:
    """O and B both from generators, as ``data.spread`` says."""
    for name, value in (("column", column), ("weights", weights)):
        if value is not None:
            raise ValueError(f"{name} is {value!r}; leave it out: GeneratedMasses has its own")
    if isinstance(background, GeneratedMasses):
        raise TypeError("background is a GeneratedMasses, and data as well; give how B follows from the sidebands")
    if unit is not None and data.unit and unit != data.unit:
        raise ValueError(f"unit is {unit!r}, and the masses of data have the unit {data.unit!r}; give one of them")
    posterior = data.spread == "posterior"
    if toys and not posterior:
        raise ValueError(
            f"toys is {toys}; it must be 0 with spread='training': every pseudo-spectrum would need trainings of its "
            "own. Take the trials of the fit, bump_hunt(masses, ..., toys=...)"
        )
    unit = unit or data.unit or "TeV"
    settings, binned, spectra = _generated(data, background, windows, unit)
    observed = binned.sums(spectra)
    if isinstance(settings, GivenBackground):
        mean, covariance = in_windows(settings, binned)
        check_positive(mean, binned)
        mean, fitted = (np.broadcast_to(each, observed.shape) for each in (mean, np.sqrt(np.diag(covariance))))
    else:
        parameters = settings.parameters or 1 if isinstance(settings, SidebandFit) else 1
        mean, fitted = _sidebands_of_draws(settings, spectra, binned, parameters)
    trials = None
    if posterior:
        given = fitted[0] if isinstance(settings, GivenBackground) else np.zeros(len(windows.low))
        found = _of_posterior(observed, mean, given)
        if toys:
            trials = run_trials(of_draws(observed - mean), toys, float(z_of(found[-1]).max()), seed, progress)
    else:
        found = _of_trainings(observed, mean, fitted)
    o, delta_o, b, delta_b, delta_s, significance, p = found
    return BumpHuntResult(
        binned.low, binned.high, o, delta_o, b, delta_b, delta_s, significance, p, not posterior,
        f"{data.name}; {settings.name}", binned.range, binned.edges, spectra.mean(0), spectra.std(0, ddof=1),
        None, (), trials, data.label or "mass", unit,
    )  # fmt: skip


def _of_posterior(observed: Array, mean: Array, given: Array) -> tuple[Array, ...]:
    """O, B, their uncertainties, significance and p-value ``[W]`` from draws ``[K, W]`` with the noise of the data.

    The mean over K draws is known to ``std / sqrt(K)``, and the standard deviation from K - 1 degrees of freedom: so
    ``S / (std sqrt(1 + 1/K))`` has Student's t distribution.
    """
    draws = len(observed)
    delta_o, delta_b, delta_s = (
        np.sqrt(1 + 1 / draws) * each.std(0, ddof=1) for each in (observed, mean, observed - mean)
    )
    delta_b, delta_s = np.hypot(delta_b, given), np.hypot(delta_s, given)
    if not (delta_s > 0).all():
        raise ValueError("data: the generators do not differ; spread='posterior' needs draws of a posterior")
    with uninterrupted():
        from scipy import special
    o, b = observed.mean(0), mean.mean(0)
    significance = (o - b) / delta_s
    return o, delta_o, b, delta_b, delta_s, significance, special.stdtr(draws - 1, -significance)


def _of_trainings(observed: Array, mean: Array, fitted: Array) -> tuple[Array, ...]:
    """The same from trainings on the same events: O from one half of them, B from the other (Kasieczka 2023).

    ``fitted [K, W]`` is the statistical error of B, which does not fall with the number of trainings.
    """
    draws = len(observed)
    if draws % 2 or draws < 4:
        raise ValueError(
            f"data has {draws} generators; spread='training' needs an even number of at least 4, one half for O, one "
            "for B"
        )
    half = draws // 2
    o, b = observed[:half].mean(0), mean[half:].mean(0)
    delta_o = observed[:half].std(0, ddof=1) / np.sqrt(half)
    delta_b = np.hypot(mean[half:].std(0, ddof=1) / np.sqrt(half), fitted[half:].mean(0))
    delta_s = np.hypot(delta_o, delta_b)
    return o, delta_o, b, delta_b, delta_s, excess_significance(o, b, delta_b, delta_o), excess_p_value(o, b, delta_s)


def _generated(data: GeneratedMasses, background: Any, windows: Windows, unit: str) -> tuple[Any, Windows, Array]:
    """Settings without None, windows with bins, and spectra ``[K, B]`` of the generators on them."""
    settings, binned = on_bins(background, windows, unit)
    edges = getattr(data.source, "edges", None)
    if edges is not None:
        binned = windows.on_edges(_inside(edges, windows), "the band")
        return settings, binned, spectra_of(data, edges)[:, _rows(edges, windows)]
    return settings, binned, spectra_of(data, binned.edges)


def by_generators(
    masses: Array,
    weights: Any,
    background: GeneratedMasses,
    windows: Windows,
    label: str,
    unit: str,
    how: str,
    toys: int,
) -> BumpHuntResult:
    """O from real events, B from the sidebands of generators."""
    if toys:
        raise ValueError(
            f"toys is {toys}; it must be 0 with a background of generators: every pseudo-spectrum would need trainings "
            "of its own. Take the trials of the fit, background='fit'"
        )
    if background.unit and background.unit != unit:
        raise ValueError(f"background has masses in {background.unit!r}, data in {unit!r}; they must be the same")
    settings, binned, spectra = _generated(background, background.sidebands, windows, unit)
    spectrum = spectrum_of(masses, weights, binned.edges)
    parameters = settings.parameters or 1 if isinstance(settings, SidebandFit) else 1
    each, fitted = _sidebands_of_draws(settings, spectra, binned, parameters)
    b, draws = each.mean(0), len(each)
    if background.spread == "posterior":
        sigma = each.std(0, ddof=1) * np.sqrt(1 + 1 / draws)
    else:
        sigma = np.hypot(each.std(0, ddof=1) / np.sqrt(draws), fitted.mean(0))
    observed, scale = binned.sums(spectrum.counts), spectrum.scale
    p = excess_p_value(observed, b, sigma, how, scale=scale)
    errors = np.sqrt(spectrum.counts if spectrum.squares is None else spectrum.squares)
    return BumpHuntResult(
        binned.low, binned.high, observed, np.zeros(len(b)), b, sigma, sigma,
        excess_significance(observed / scale, b / scale, sigma / scale), p, True, f"{background.name}; {settings.name}",
        binned.range, binned.edges, spectrum.counts, errors, None, (), None, label, unit,
    )  # fmt: skip


def _rows(edges: Array, windows: Windows) -> NDArray[np.bool_]:
    middle = (edges[1:] + edges[:-1]) / 2
    return (middle > windows.range[0]) & (middle < windows.range[1])


def _inside(edges: Array, windows: Windows) -> Array:
    """Edges of a band within the range, whose ends are among them."""
    for end in windows.range:
        if np.abs(edges - end).min() > 1e-9 * (edges[-1] - edges[0]):
            raise ValueError(
                f"range is {windows.range}; the band has no edge at {end:g}, so that it does not end there"
            )
    rows = _rows(edges, windows)
    return np.append(edges[:-1][rows], edges[1:][rows][-1])
