"""Elementwise maps between the line, the unit interval, positive numbers and what is nearly normal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..checks import FINITE, POSITIVE, SEED, door, optional
from .bijection import FittedConstants, Fixed
from .preprocessing import Standardise
from .sample import EventsLike, as_sample


class Squash(FittedConstants):
    """u = 1 / (1 + exp(-(x - location) / scale)), the distribution function of a logistic: the line onto (0, 1).

    A fit takes the mean and ``scale = sqrt(3) std / pi``, with which a logistic distribution becomes uniform.
    ``Squash(0, 0.5)`` turns a pseudorapidity into ``(1 + cos(theta)) / 2``.
    """

    kind = "squash"
    constants = ("location", "scale")
    start = (0.0, 1.0)
    condition = "scale must be positive"
    everywhere = True
    location: Tensor
    scale: Tensor

    @door(location=optional(FINITE), scale=optional(POSITIVE))
    def __init__(self, location: float | None = None, scale: float | None = None) -> None:
        super().__init__()
        if location is not None and scale is not None:
            self._set([location, scale])
        elif (location is None) != (scale is None):
            raise ValueError(f"give both location and scale, or none; got location={location!r}, scale={scale!r}")

    def fit(self, events: EventsLike, weights: ArrayLike | Tensor | None = None) -> Self:
        standard = Standardise().fit(events, weights)
        self._set([standard.mean.numpy(), standard.std.numpy() * math.sqrt(3) / math.pi])
        return self

    def valid(self, *constants: Tensor) -> Tensor:
        return constants[1] > 0

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        location, scale = self._cast(x)
        t = (x - location) / scale
        log_slope = -torch.nn.functional.softplus(t) - torch.nn.functional.softplus(-t) - scale.log()
        return torch.sigmoid(t), log_slope.sum(-1)

    def inverse(self, u: Tensor) -> tuple[Tensor, Tensor]:
        location, scale = self._cast(u)
        u = _inside(u)
        log_slope = scale.log() - u.log() - torch.log1p(-u)
        return location + scale * (u.log() - torch.log1p(-u)), log_slope.sum(-1)


class Probit(Fixed):
    """u = Phi^-1(x), the normal quantile: the unit interval onto the line, uniform to standard normal; nothing to fit.

    Values on the edges of the box count as the nearest ones inside; those beyond are outside.
    """

    kind = "probit"

    def inside(self, x: Tensor) -> Tensor:
        return (x >= 0) & (x <= 1)

    def explain(self, x: Tensor) -> str:
        return (
            "Probit maps numbers in [0, 1]: put a bijection before it that gives such numbers, for example "
            "UnitBox(low, high) with limits that hold all events"
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        u = torch.special.ndtri(_inside(x))
        return u, -_log_normal(u).sum(-1)

    def inverse(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return torch.special.ndtr(u), _log_normal(u).sum(-1)


class Log(Fixed):
    """u = log x: positive numbers onto the line; nothing to fit. For numbers that spread over orders of magnitude.

    Other numbers have density zero, and are refused in a training.
    """

    kind = "log"

    def inside(self, x: Tensor) -> Tensor:
        return x > 0

    def explain(self, x: Tensor) -> str:
        return "Only positive numbers have a logarithm: leave these events out, or shift the column"

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        u = x.log()
        return u, -u.sum(-1)

    def inverse(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return u.exp(), u.sum(-1)


class Positive(FittedConstants):
    """Numbers above a lower limit onto the line: ``x = low + scale log(1 + exp(u))``, a softplus.

    Near the limit u is a logarithm, far above it is linear: tails stay as they are. For transverse momenta, energies,
    masses. Numbers at or below the limit have density zero. ``scale`` is fitted: the mean distance from the limit.

    Args:
        low: the lower limit, in the unit of the column: zero, or that of a cut.

    Raises:
        ValueError: ``low`` is not finite; in the fit: events at or below it.
    """

    kind = "positive"
    constants = ("low", "scale")
    start = (0.0, 1.0)
    condition = "scale must be positive"
    low: Tensor
    scale: Tensor

    @door(low=FINITE)
    def __init__(self, low: float = 0.0) -> None:
        super().__init__()
        self.given_low = low

    def fit(self, events: EventsLike, weights: ArrayLike | Tensor | None = None) -> Self:
        sample = as_sample(events, weights)
        sizes = None if sample.weights is None else np.abs(sample.weights)
        scale = np.average(np.abs(sample.values - self.given_low), axis=0, weights=sizes)
        # No event above the limit is told by the check, not by the scale.
        self._set([np.full(sample.features, self.given_low), np.where(scale > 0, scale, 1.0)])
        self.check(sample)
        return self

    def config(self) -> dict[str, Any]:
        return super().config() | {"given_low": self.given_low}

    @classmethod
    def _from_config(cls, config: Mapping[str, Any]) -> Self:
        new = super()._from_config(config)
        new.given_low = float(config["given_low"])
        return new

    def valid(self, *constants: Tensor) -> Tensor:
        return constants[1] > 0

    def inside(self, x: Tensor) -> Tensor:
        return x > self._cast(x)[0] if self.fitted else super().inside(x)

    def explain(self, x: Tensor) -> str:
        low = self._cast(x)[0].tolist()
        return f"Positive maps numbers above its lower limit {low}: leave these events out, or give low= below them"

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if not self.fitted:
            return x, x.new_zeros(x.shape[:-1])
        low, scale = self._cast(x)
        t = (x - low) / scale
        log_rest = (-torch.expm1(-t)).log()
        return t + log_rest, -(log_rest + scale.log()).sum(-1)

    def inverse(self, u: Tensor) -> tuple[Tensor, Tensor]:
        if not self.fitted:
            return u, u.new_zeros(u.shape[:-1])
        low, scale = self._cast(u)
        slope = torch.nn.functional.logsigmoid(u) + scale.log()
        x = low + scale * torch.logaddexp(u, torch.zeros_like(u))
        # Rounding must not lead onto the limit, where there is no density.
        return torch.maximum(x, torch.nextafter(low, torch.full_like(low, torch.inf))), slope.sum(-1)


class Dequantise(Fixed):
    """Whole numbers (multiplicities, charges) as numbers on the line, and back: they have no density of their own.

    A training replaces each number n by n + r with r uniform in (-1/2, 1/2). The flow learns the density of n + r, per
    unit, which integrates to one; at the whole number n it is the probability of n, as far as the flow is flat from
    n - 1/2 to n + 1/2. Generated numbers are rounded. Densities between whole numbers are those of n + r.

    It must be the first bijection of its column: ``Chain([Dequantise(), Standardise()])``.

    Args:
        seed: seeds r; the same row, seed and column give the same r.

    Raises:
        ValueError: in a training: numbers that are not whole.
    """

    kind = "dequantise"
    everywhere = True

    @door(seed=SEED)
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x.new_zeros(x.shape[:-1])

    def inverse(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return u.round(), u.new_zeros(u.shape[:-1])

    def dequantised(self, x: Tensor, names: Sequence[str], column: int = 0) -> Tensor:
        broken = (x != x.round()).nonzero()
        if len(broken):
            row, i = broken[0].tolist()
            raise ValueError(
                f"Dequantise is for whole numbers; {len(broken)} values are not, the first is row {row}, column "
                f"{column + i} ({names[i]}): {float(x[row, i]):.9g}. Give this column another bijection, or scale it "
                "so that its steps are 1"
            )
        noise = np.random.default_rng([self.seed, column]).uniform(-0.5, 0.5, tuple(x.shape))
        return x + torch.from_numpy(noise).to(x)

    def config(self) -> dict[str, Any]:
        return super().config() | {"seed": self.seed}

    @classmethod
    def _from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(config["seed"])


def _log_normal(u: Tensor) -> Tensor:
    return -0.5 * u**2 - 0.5 * math.log(2 * math.pi)


def _inside(u: Tensor) -> Tensor:
    """Values in the open unit interval: the edges are where generated numbers are rounded to."""
    kind = torch.finfo(u.dtype)
    return u.clamp(kind.tiny, 1 - kind.eps / 2)
