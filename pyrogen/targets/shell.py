"""The Gaussian spherical shell in d dimensions [D]."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from pyrogen.checks import POSITIVE, whole_number

from .base import Target, invert
from .radial import FoldedNormal


def sine_power_integral(m: int, angle: Tensor) -> Tensor:
    """Return the integral of sin^m from 0 to ``angle``, by partial integration down to m = 0 or 1."""
    if m == 0:
        return angle
    if m == 1:
        return 1 - angle.cos()
    return ((m - 1) * sine_power_integral(m - 2, angle) - angle.cos() * angle.sin() ** (m - 1)) / m


def polar_cdf(m: int, angle: Tensor) -> Tensor:
    """Return the cumulative probability of a polar angle in [0, pi] with density proportional to sin^m."""
    total = math.sqrt(math.pi) * math.exp(math.lgamma((m + 1) / 2) - math.lgamma(m / 2 + 1))
    return sine_power_integral(m, angle) / total


class Shell(Target):
    """The spherical shell: the radius of the full ring, an isotropic direction in d dimensions [D] eq. 4.

    p(x) = P(r) / (S r^(d-1)) with P(r) = N(r; radius, width) + N(r; -radius, width) and the surface
    S = 2 pi^(d/2) / Gamma(d/2) of the unit sphere; the origin, where the density diverges, is excluded. The
    direction is uniform on the sphere: its polar angles are not uniform, the k-th of the d - 2 has a
    density proportional to sin^(d-1-k). The unit coordinates are those of r, the polar angles, the azimuth.

    Args:
        features: number of dimensions d, at least 2; [D] has 5.
        radius: peak of r, > 0.
        width: Gaussian width of r, > 0.
        dtype: precision of the samples, float32 or float64; None is torch's default.

    Raises:
        ValueError: if ``features`` is not an integer >= 2, ``radius`` or ``width`` not a finite number > 0,
            or ``dtype`` is neither float32 nor float64.
    """

    def __init__(
        self, features: int = 5, radius: float = 4.0, width: float = 1.0, dtype: torch.dtype | None = None
    ) -> None:
        features = whole_number("features", features, 2)
        self.radius, self.width = POSITIVE("radius", radius), POSITIVE("width", width)
        self._law = FoldedNormal(self.radius, self.width)
        super().__init__(features, dtype, features=features, radius=self.radius, width=self.width)

    @property
    def unit_names(self) -> tuple[str, ...]:
        """The radius, the polar angles and the azimuth."""
        return ("r", *(f"theta{k + 1}" for k in range(self.features - 2)), "phi")

    @property
    def _anchor(self) -> Tensor:
        return torch.full((self.features,), self.radius / math.sqrt(self.features), dtype=torch.float64)

    def _inside(self, x: Tensor) -> Tensor:
        r = torch.linalg.vector_norm(x, dim=-1)
        return (r > 0) & torch.isfinite(r)

    def _log_density(self, x: Tensor) -> Tensor:
        r, d = torch.linalg.vector_norm(x, dim=-1), self.features
        log_surface = math.log(2) + d / 2 * math.log(math.pi) - math.lgamma(d / 2)
        return self._law.log_prob(r) - (d - 1) * r.log() - log_surface

    def _draw(self, shape: torch.Size) -> Tensor:
        direction = torch.randn(*shape, self.features, dtype=torch.float64)
        direction = direction / torch.linalg.vector_norm(direction, dim=-1, keepdim=True)
        return self._law.draw(shape)[..., None] * direction

    def _to_unit(self, x: Tensor) -> Tensor:
        units = [self._law.cdf(torch.linalg.vector_norm(x, dim=-1))]
        for k in range(self.features - 2):
            polar = torch.atan2(torch.linalg.vector_norm(x[..., k + 1 :], dim=-1), x[..., k])
            units.append(polar_cdf(self.features - 2 - k, polar))
        azimuth = torch.atan2(x[..., -1], x[..., -2]) / (2 * math.pi)
        units.append(torch.where(azimuth < 0, azimuth + 1, azimuth))
        return torch.stack(units, dim=-1)

    def _from_unit(self, u: Tensor) -> Tensor:
        rest = self._law.icdf(u[..., 0])  # the length of the components that are still to come
        components = []
        for k in range(self.features - 2):
            polar = invert(partial(polar_cdf, self.features - 2 - k), u[..., k + 1], 0.0, math.pi)
            components.append(rest * polar.cos())
            rest = rest * polar.sin()
        azimuth = 2 * math.pi * u[..., -1]
        return torch.stack([*components, rest * azimuth.cos(), rest * azimuth.sin()], dim=-1)
