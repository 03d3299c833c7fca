"""The mass of a resonance on a smooth background, made flat."""

from __future__ import annotations

import math
from typing import Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..checks import POSITIVE, door, optional
from ..signals import uninterrupted
from .bijection import FittedConstants
from .sample import EventsLike, as_sample

FIT_EVENTS = 200_000  # the constants need no more
GAP = 20.0  # a fitted limit lies this many mean distances of the outermost values beyond the last one


class Resonance(FittedConstants):
    """u = P(mass > x) of a Breit-Wigner and a falling power law above a lower limit: the mass onto (0, 1).

    ``P(mass > x) = f A(x) / A(low) + (1 - f) (low / x)^power``, the two channels of a peak and its continuum, with
    ``A(x) = arctan2(1, t)`` and ``t = ((x / location)^power - 1) 2 location / (power width)``. Near the peak t is
    ``(x - location) 2 / width``, that of a Breit-Wigner, whose tail of 1/mass^2 would be far too heavy at high masses.
    What is left for the network is a smooth function of u. High masses come near u = 0, where float32 numbers are
    dense. The lower limit is u = 1; masses below have no density.

    Args:
        low: lower limit of the mass, where the generator has a cut; fitted if left out: a little below the lowest mass.

    The other constants, ``location`` and ``width`` of the peak (full width at half maximum), ``fraction`` f and
    ``power``, are fitted to the events by maximum likelihood.
    """

    kind = "resonance"
    constants = ("low", "location", "width", "fraction", "power")
    start = (1.0, 2.0, 1.0, 0.5, 1.0)
    condition = "low, width and power must be positive, 0 < fraction < 1"
    low: Tensor
    location: Tensor
    width: Tensor
    fraction: Tensor
    power: Tensor

    @door(low=optional(POSITIVE))
    def __init__(self, low: float | None = None) -> None:
        super().__init__()
        self.given_low = low

    def fit(self, events: EventsLike, weights: ArrayLike | Tensor | None = None) -> Self:
        sample = as_sample(events, weights)
        columns = []
        for column, name in zip(sample.values.T, sample.names, strict=True):
            low = max(-beyond(-column), 0.9 * column.min()) if self.given_low is None else self.given_low
            if not 0 < low <= column.min():
                row = int(column.argmin())
                raise ValueError(
                    f"the masses of {name} begin at {column[row]:.6g} (row {row}); they must be positive, and not "
                    f"below the lower limit low = {low:.6g}: cut these events, or give a lower limit below them"
                )
            columns.append([low, *fit_resonance(column, low, sample.weights)])
        self._set(list(np.transpose(columns)))
        return self

    def valid(self, *constants: Tensor) -> Tensor:
        low, _, width, fraction, power = constants
        return (low > 0) & (width > 0) & (power > 0) & (fraction > 0) & (fraction < 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        constants = self._cast(x)
        # Below the limit the power law has no meaning, and rounding at the limit must not lead beyond 1.
        u, density = _survival(torch.maximum(x, constants[0]), *constants)
        return u.clamp(max=1).to(x.dtype), density.log().sum(-1)

    def inside(self, x: Tensor) -> Tensor:
        return x >= self._cast(x)[0]

    def explain(self, x: Tensor) -> str:
        return (
            f"Masses begin at low = {self._cast(x)[0].tolist()}, the smallest here is {float(x.min()):.6g}: cut these "
            "events, or give a lower limit below them"
        )

    def inverse(self, u: Tensor) -> tuple[Tensor, Tensor]:
        constants = self._cast(u, torch.float64)
        wide = u.double().clamp(torch.finfo(torch.float32).tiny, 1)
        x = _invert(wide, *constants)
        density = _survival(x, *constants)[1]
        return x.to(u.dtype), -density.log().sum(-1).to(u.dtype)


def _survival(
    x: Tensor, low: Tensor, location: Tensor, width: Tensor, fraction: Tensor, power: Tensor
) -> tuple[Tensor, Tensor]:
    """P(mass > x) and the density -dP/dx."""
    unit, whole = _peak_scales(low, location, width, power)
    ratio = x / location
    t = torch.expm1(power * ratio.log()) * unit
    peak = torch.atan2(torch.ones_like(t), t) / whole
    tail = (low / x) ** power
    slope = 2 * ratio ** (power - 1) / width  # dt/dx
    density = fraction * slope / (whole * (1 + t**2)) + (1 - fraction) * power * tail / x
    return fraction * peak + (1 - fraction) * tail, density


def _peak_scales(low: Tensor, location: Tensor, width: Tensor, power: Tensor) -> tuple[Tensor, Tensor]:
    """The factor of t, and A(low)."""
    unit = 2 * location / (power * width)
    return unit, torch.atan2(torch.ones_like(unit), torch.expm1(power * (low / location).log()) * unit)


def _invert(u: Tensor, *constants: Tensor) -> Tensor:
    """Where P(mass > x) is u in (0, 1]: Newton steps in log x, halving the bracket where they leave it."""
    low, location, width, _, power = constants
    # The answer lies between those of the two channels alone.
    unit, whole = _peak_scales(low, location, width, power)
    peak = location.log() + torch.log1p((1 / torch.tan(u * whole) / unit).clamp(min=-1 + 1e-12)) / power
    channels = torch.stack([low.log() - u.log() / power, torch.maximum(peak, low.log())])
    a, b = channels.amin(0) - 1e-12, channels.amax(0) + 1e-12
    t, last = (a + b) / 2, math.inf
    for _ in range(100):
        value, density = _survival(t.exp(), *constants)
        a, b = torch.where(value >= u, t, a), torch.where(value <= u, t, b)
        step = t + (value - u) / (density * t.exp())
        step = torch.where((step >= a) & (step <= b), step, (a + b) / 2)
        moved, t = (float((step - t).abs().max()) if t.numel() else 0.0), step
        if moved < 1e-9 and moved >= last / 2:  # Newton's steps shrink faster, until they are rounding alone
            break
        last = moved
    return t.exp()


def beyond(values: NDArray[np.float64]) -> float:
    """A little above the largest value: by the distances of the largest ten, not by the range of all."""
    k = min(10, len(values) - 1)
    largest = np.partition(values, len(values) - 1 - k)[-1 - k :]
    return float(largest.max() + GAP * (largest.max() - largest.min()) / max(k, 1))


def fit_resonance(
    masses: NDArray[np.float64], low: float, weights: NDArray[np.float64] | None = None
) -> tuple[float, float, float, float]:
    """Location, width, fraction and power of :class:`Resonance`, by maximum likelihood.

    Args:
        masses: ``[N]``, above ``low``.
        low: lower limit.
        weights: ``[N]``; negative ones count as zero here, since a likelihood with them need not have a maximum.

    Raises:
        ValueError: all masses are the same, or the fit does not end.
    """
    with uninterrupted():
        from scipy.optimize import minimize  # here: it takes a fifth as long as torch

    step = -(-len(masses) // FIT_EVENTS)
    x = torch.tensor(masses[::step])
    w = torch.ones_like(x) if weights is None else torch.tensor(weights[::step].clip(min=0))
    if not float(x.max()) > float(x.min()):
        raise ValueError(f"all masses are {float(x.min())}; a distribution without spread has no shape to fit")
    # The fullest of fine bins between the quartiles; half the interquartile range is wide for a peak.
    quartiles = np.quantile(x.numpy(), [0.1, 0.25, 0.75, 0.9])
    counts, edges = np.histogram(x.numpy(), 100, range=(quartiles[0], quartiles[3]), weights=w.numpy())
    peak = edges[counts.argmax()] + (edges[1] - edges[0]) / 2
    first = [peak / low, math.log((quartiles[2] - quartiles[1]) / low), 1.0, math.log(2.0)]

    def loss(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        raw = torch.tensor(values, requires_grad=True)
        location, width, power = raw[0] * low, raw[1].exp() * low, raw[3].exp()
        limit = torch.tensor(low, dtype=torch.float64)
        density = _survival(x, limit, location, width, torch.sigmoid(raw[2]), power)[1]
        mean = -(w * density.log()).sum() / w.sum()
        mean.backward()
        return float(mean.detach()), raw.grad.numpy()  # type: ignore[union-attr]

    bounds = [(0.1, None), (math.log(1e-6), math.log(1e3)), (-7.0, 7.0), (math.log(0.05), math.log(50.0))]
    found = minimize(loss, first, jac=True, bounds=bounds, method="L-BFGS-B")
    if not (found.success and np.isfinite(found.x).all()):
        raise ValueError(f"the fit of a resonance to {len(masses)} masses did not end: {found.message}")
    a, b, c, d = found.x
    return float(a * low), float(math.exp(b) * low), float(1 / (1 + math.exp(-c))), float(math.exp(d))
