"""How sigma(x) and its shape depend on the number of training events: [A] (arXiv:2104.04543) sec. 3.4."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pyrogen.checks import BOOLEAN, COUNT, SEED, array, dictionary, door, having, optional, require_extra
from pyrogen.diagnostics.fit_shape import ShapeFit, fit_shape
from pyrogen.diagnostics.likelihood_fit import LikelihoodFit
from pyrogen.diagnostics.lines import LINE_TARGET, LineResult, density_along_lines
from pyrogen.posterior.posterior import POSTERIOR, Posterior
from pyrogen.printing import Brief

Array = NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class SizeScan(Brief):
    """Uncertainty along lines for several numbers N of training events.

    Attributes:
        lines: density and uncertainty along the lines, by N, increasing.
        shapes: the fit-like shape of each sigma.
        ensembles: the same lines for ensembles of deterministic networks, by N; their sigma is the spread of the
            members. Empty where there are none.
        references: fits of the true functional form to the same events, by N; empty where there are none.
    """

    lines: dict[int, LineResult]
    shapes: dict[int, ShapeFit]
    ensembles: dict[int, LineResult] = field(default_factory=dict)
    references: dict[int, LikelihoodFit] = field(default_factory=dict)

    def _summary(self) -> str:
        return f"sigma along lines for {', '.join(f'{n:,}' for n in self.sizes)} training events"

    @property
    def sizes(self) -> tuple[int, ...]:
        """The numbers of training events."""
        return tuple(self.lines)

    @door(ensemble=BOOLEAN)
    def sigma(self, ensemble: bool = False) -> Array:
        """Mean of sigma over the lines, ``[sizes]``; of the ensembles on request, NaN where there is none."""
        source = self.ensembles if ensemble else self.lines
        return np.array([source[n].sigma.mean() if n in source else np.nan for n in self.sizes])

    @door(ensemble=BOOLEAN)
    def exponent(self, ensemble: bool = False) -> tuple[float, float]:
        """Slope of log sigma against log N, by least squares over points and sizes, and its error.

        -1/2 is what a fit of few regular parameters has. The error is the spread of the slopes of single points along
        the lines, which depend on each other: it says how uniform the fall is, not how well it would be repeated.

        Raises:
            ValueError: fewer than two sizes.
        """
        source = self.ensembles if ensemble else self.lines
        if len(source) < 2:
            raise ValueError(f"there are {len(source)} sizes; a slope needs two")
        x = np.log(list(source))
        y = np.log([line.sigma for line in source.values()])
        slopes = (x - x.mean()) @ (y - y.mean(0)) / np.square(x - x.mean()).sum()
        return float(slopes.mean()), float(slopes.std(ddof=1)) if len(slopes) > 1 else float("nan")

    def structure(self) -> Array:
        """How much of sigma(x)'s variation along the lines the fit-like shape explains, ``[sizes]``.

        ``1 - chi2(shape) / chi2(constant)``: near one where sigma has the shape of a fit of the true form, zero or
        below where a constant describes it as well.
        """
        found = []
        for n, line in self.lines.items():
            errors = self.shapes[n].bars
            weights = errors**-2
            flat = float(np.square((line.sigma - np.average(line.sigma, weights=weights)) / errors).sum())
            found.append(1 - self.shapes[n].chi2 / flat if flat > 0 else np.nan)
        return np.array(found)

    def ensemble_ratio(self) -> tuple[Array, Array]:
        """Sigma of the ensembles over that of the posteriors: median over the points and half the width of the central
        68 %, ``[sizes]`` each; NaN where there is no ensemble."""
        median, width = np.full((2, len(self.sizes)), np.nan)
        for i, n in enumerate(self.sizes):
            if n in self.ensembles:
                ratio = self.ensembles[n].sigma / self.lines[n].sigma
                low, median[i], high = np.quantile(ratio, (0.16, 0.5, 0.84))
                width[i] = (high - low) / 2
        return median, width

    def text(self) -> str:
        """A table, and the power laws."""
        names = list(next(iter(self.shapes.values())).values)
        header = ["events", "sigma", "bias", "pull", "structure", *names, "chi2/ndf", "true form", "ensemble/sigma"]
        rows, structure, ratios = [header], self.structure(), self.ensemble_ratio()[0]
        for i, (n, line) in enumerate(self.lines.items()):
            shape = self.shapes[n]
            reference = f"{self.references[n].sigma(line.t).mean():.2g}" if n in self.references else "-"
            rows.append(
                [f"{n:,}", f"{line.sigma.mean():.4g}", f"{line.rms_bias:.4g}", f"{line.pull_rms:.2f}"]
                + [f"{structure[i]:.2f}", *(f"{shape.values[name]:.4g} +- {shape.errors[name]:.1g}" for name in names)]
                + [f"{shape.chi2 / shape.ndf:.2f}", reference, f"{ratios[i]:.2f}" if np.isfinite(ratios[i]) else "-"]
            )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        told = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        for name, ensemble in (("sigma", False), ("spread of the ensembles", True)):
            if len(self.ensembles if ensemble else self.lines) > 1:
                slope, error = self.exponent(ensemble)
                told.append(f"{name} ~ N^({slope:.2f} +- {error:.2f})")
        return "\n".join(told)


@door(
    posteriors=dictionary(POSTERIOR),
    target=LINE_TARGET,
    t=optional(array()),
    ensembles=optional(dictionary(POSTERIOR)),
    references=optional(dictionary(having("a LikelihoodFit", "sigma"))),
    draws=COUNT,
    seed=SEED,
)
def scan_training_size(
    posteriors: Mapping[int, Posterior],
    target: Any,
    t: ArrayLike | Tensor | None = None,
    *,
    ensembles: Mapping[int, Posterior] | None = None,
    references: Mapping[int, LikelihoodFit] | None = None,
    draws: int | None = None,
    seed: int = 0,
) -> SizeScan:
    """Evaluate posteriors of one model on samples of different sizes.

    Args:
        posteriors: by number of training events.
        target: the truth, a line target of :mod:`pyrogen.targets`.
        t: points along the lines; by default those of :func:`~pyrogen.diagnostics.density_along_lines`.
        ensembles: ensembles of deterministic networks (``pg.Ensemble(objective="likelihood")``), by the same numbers.
        references: what :func:`~pyrogen.diagnostics.likelihood_fit` makes of the same events.
        draws: weight draws of every prediction; None: 50, or all where fewer are stored.
        seed: seeds the weight draws.

    Raises:
        ImportError: iminuit is missing.
        ValueError: no posteriors, or a posterior that was trained on another number of events than its key.
    """
    require_extra("iminuit", "fits", "scan_training_size")
    if not posteriors:
        raise ValueError("posteriors is empty; give one for every number of training events")

    def evaluate(some: Mapping[int, Posterior], what: str) -> dict[int, LineResult]:
        found = {}
        for n in sorted(some):
            trained = some[n].info.training_events or n
            if trained != n:
                raise ValueError(f"the {what} for {n} events was trained on {trained}; give it under that number")
            if n not in posteriors:
                raise ValueError(f"there is a {what} for {n} events, but no posterior")
            found[n] = density_along_lines(some[n], target, t, draws=draws, seed=seed)
        return found

    lines = evaluate(posteriors, "posterior")
    shapes = {}
    for n, line in lines.items():
        sensitivities = target.sensitivities(torch.from_numpy(line.t))
        shapes[n] = fit_shape(line.sigma, line.sigma_spread, sensitivities)
    return SizeScan(lines, shapes, evaluate(ensembles or {}, "ensemble"), dict(references or {}))
