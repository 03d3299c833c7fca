"""Distributions of a radius r >= 0, the part in which rings and the shell differ from each other.

Each has ``log_prob(r)``, ``cdf(r)``, its inverse ``icdf(u)`` and ``draw(shape)``, all in double precision.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.special import gammainc, ndtr, ndtri

from .base import invert


def log_normal(r: Tensor, mean: float, width: float) -> Tensor:
    """Return the log density of N(r; mean, width)."""
    return -((r - mean) / width).square() / 2 - math.log(width * math.sqrt(2 * math.pi))


def normal_cdf(z: float) -> float:
    """Return the cumulative probability of the standard normal, accurate in the lower tail too."""
    return math.erfc(-z / math.sqrt(2)) / 2


class RadialLaw(Protocol):
    """The distribution of a radius above ``inner``, normalised to one in r."""

    @property
    def inner(self) -> float: ...
    @property
    def typical(self) -> float: ...
    def log_prob(self, r: Tensor) -> Tensor: ...
    def cdf(self, r: Tensor) -> Tensor: ...
    def icdf(self, u: Tensor) -> Tensor: ...
    def draw(self, shape: torch.Size) -> Tensor: ...


@dataclass(frozen=True)
class TruncatedNormal:
    """N(r; mean, width) cut off at r = 0 and normalised again, by Phi(mean / width)."""

    mean: float
    width: float
    inner: float = 0.0

    @property
    def typical(self) -> float:
        """A radius of high density."""
        return self.mean

    @property
    def _kept(self) -> float:
        return normal_cdf(self.mean / self.width)

    def log_prob(self, r: Tensor) -> Tensor:
        return log_normal(r, self.mean, self.width) - math.log(self._kept)

    def cdf(self, r: Tensor) -> Tensor:
        cut = normal_cdf(-self.mean / self.width)
        return (ndtr((r - self.mean) / self.width) - cut) / self._kept

    def icdf(self, u: Tensor) -> Tensor:
        # Counted from above, (1 - u) Phi(mean / width) keeps its relative precision in the upper tail.
        return self.mean - self.width * ndtri((1 - u) * self._kept)

    def draw(self, shape: torch.Size) -> Tensor:
        # rand is in [0, 1), so that the quantile stays finite.
        return self.icdf(torch.rand(shape, dtype=torch.float64))


@dataclass(frozen=True)
class FoldedNormal:
    """|N(mean, width)|: P(r) = N(r; mean, width) + N(r; -mean, width), one over r >= 0 as it stands."""

    mean: float
    width: float
    inner: float = 0.0

    @property
    def typical(self) -> float:
        """A radius of high density."""
        return self.mean

    def log_prob(self, r: Tensor) -> Tensor:
        return torch.logaddexp(log_normal(r, self.mean, self.width), log_normal(r, -self.mean, self.width))

    def cdf(self, r: Tensor) -> Tensor:
        return ndtr((r - self.mean) / self.width) - ndtr((-r - self.mean) / self.width)

    def icdf(self, u: Tensor) -> Tensor:
        # Ten widths hold all but 1e-23 of the probability, less than a double can tell from one.
        return invert(self.cdf, u, 0.0, self.mean + 10 * self.width)

    def draw(self, shape: torch.Size) -> Tensor:
        return (self.mean + self.width * torch.randn(shape, dtype=torch.float64)).abs()


@dataclass(frozen=True)
class ShiftedGamma:
    """r = inner + Gamma(shape, scale)."""

    inner: float
    shape: float
    scale: float

    @property
    def typical(self) -> float:
        """A radius of high density."""
        return self.inner + self.shape * self.scale

    def log_prob(self, r: Tensor) -> Tensor:
        t = (r - self.inner) / self.scale
        return (self.shape - 1) * t.log() - t - math.lgamma(self.shape) - math.log(self.scale)

    def cdf(self, r: Tensor) -> Tensor:
        t = (r - self.inner).clamp(min=0) / self.scale
        return gammainc(torch.full_like(t, self.shape), t)

    def icdf(self, u: Tensor) -> Tensor:
        # P(t > k + sqrt(2 k c) + c) <= exp(-c) for shape k; c = 40 is beyond the precision of a double.
        reach = self.shape + math.sqrt(80 * self.shape) + 40
        return invert(self.cdf, u, self.inner, self.inner + self.scale * reach)

    def draw(self, shape: torch.Size) -> Tensor:
        return self.inner + self.scale * torch._standard_gamma(torch.full(shape, self.shape, dtype=torch.float64))
