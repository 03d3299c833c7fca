"""Rings in the plane: a radius from a one-dimensional distribution, a uniform angle [A sec. 3.3, D, F]."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from pyrogen.checks import FINITE, POSITIVE, door, optional

from .base import PARAMETER, LineTarget, Target
from .radial import FoldedNormal, RadialLaw, ShiftedGamma, TruncatedNormal


class _Ring(Target):
    """p(x, y) = P(r) / (arc r) for angles 0 <= phi <= arc, with the radial law P(r).

    The arc is 2 pi, or pi for the half plane y > 0. The unit coordinates are those of (r, phi).
    """

    arc = 2 * math.pi

    def __init__(self, law: RadialLaw, dtype: torch.dtype | None, **parameters: float) -> None:
        self._law = law
        super().__init__(2, dtype, **parameters)

    @property
    def unit_names(self) -> tuple[str, ...]:
        """The radius and the angle."""
        return ("r", "phi")

    @property
    def _anchor(self) -> Tensor:
        return torch.tensor([0.0, self._law.typical], dtype=torch.float64)

    def _inside(self, x: Tensor) -> Tensor:
        r = torch.hypot(x[..., 0], x[..., 1])
        inside = (r > self._law.inner) & torch.isfinite(r)
        return inside & (x[..., 1] > 0) if self.arc == math.pi else inside

    def _log_density(self, x: Tensor) -> Tensor:
        r = torch.hypot(x[..., 0], x[..., 1])
        return self._law.log_prob(r) - r.log() - math.log(self.arc)

    def _draw(self, shape: torch.Size) -> Tensor:
        # 1 - rand is in (0, 1]. In double precision sin(pi) > 0: the half ring never leaves y > 0.
        angle = self.arc * (1 - torch.rand(shape, dtype=torch.float64))
        # The rounding of x and y to the precision of the samples must not carry an event over the inner edge.
        edge = self._law.inner * (1 + 4 * torch.finfo(self.dtype).eps)
        return self._polar(self._law.draw(shape).clamp(min=edge), angle)

    def _to_unit(self, x: Tensor) -> Tensor:
        r = torch.hypot(x[..., 0], x[..., 1])
        if self.arc == math.pi:  # below the half plane, take the angle of the nearest point on y = 0
            angle = torch.atan2(torch.where(x[..., 1] > 0, x[..., 1], 0.0), x[..., 0])
        else:
            angle = torch.atan2(x[..., 1], x[..., 0])
            angle = torch.where(angle < 0, angle + self.arc, angle)
        return torch.stack([self._law.cdf(r), angle / self.arc], dim=-1)

    def _from_unit(self, u: Tensor) -> Tensor:
        return self._polar(self._law.icdf(u[..., 0]), self.arc * u[..., 1])

    @staticmethod
    def _polar(r: Tensor, angle: Tensor) -> Tensor:
        return torch.stack([r * angle.cos(), r * angle.sin()], dim=-1)


class _PeakedRing(_Ring, LineTarget):
    """A ring with a Gaussian peak in r, and its line of constant angle."""

    line_label = "r"
    upper_edge = None

    def __init__(self, law: TruncatedNormal | FoldedNormal, dtype: torch.dtype | None) -> None:
        self.radius, self.width = law.mean, law.width
        super().__init__(law, dtype, radius=law.mean, width=law.width)

    @property
    def line_range(self) -> tuple[float, float]:
        """Two widths to either side of the peak, but no closer to the origin than a tenth of the radius."""
        return max(self.radius - 2 * self.width, 0.1 * self.radius), self.radius + 2 * self.width

    @door(position=FINITE)
    def line(self, t: Tensor, position: float) -> Tensor:
        """Return the points [n, 2] at r = t [n] and the angle ``position`` in radians.

        Raises:
            ValueError: if ``t`` is not a vector of floating point numbers or ``position`` not in (0, arc),
                with an arc of pi for the half ring and 2 pi (ends included) for the full ring.
        """
        self._check_line(t)
        half = self.arc == math.pi
        if not (0 < position < self.arc if half else 0 <= position <= self.arc):
            interval = "(0, pi)" if half else "[0, 2 pi]"
            raise ValueError(f"position must be an angle in {interval}, got {position!r}")
        return torch.stack([t * math.cos(position), t * math.sin(position)], dim=-1)

    def line_density(self, t: Tensor) -> Tensor:
        """Return the Cartesian density P(r) / (arc r) [n] at r = t [n], zero for r <= 0 [A] eq. 30."""
        self._check_line(t)
        r = torch.where(t > 0, t, self.radius).double()
        density = (self._law.log_prob(r) - r.log()).exp() / self.arc
        return torch.where(t > 0, density, 0.0).to(t.dtype)

    def line_coordinate(self, x: Tensor) -> Tensor:
        """Return the radius of events [..., 2], as [...].

        Raises:
            ValueError: if ``x`` has another last dimension than 2 or is not floating point.
        """
        self._check_shape("x", x)
        return torch.hypot(x[..., 0], x[..., 1])

    def line_measure(self, t: Tensor) -> Tensor:
        """Return the length of the arc at r = t, ``arc * t`` [n]."""
        self._check_line(t)
        return self.arc * t

    @property
    def parameters(self) -> dict[str, float]:
        """True values of the parameters of `parametric_density`."""
        return {"mu": self.radius, "w": self.width}

    @door(mu=optional(PARAMETER), w=optional(PARAMETER))
    def parametric_density(self, t: Tensor, *, mu: Any = None, w: Any = None) -> Tensor:
        """Return p = P(r; mu, w) / (arc r) [n] at r = t [n], zero for r <= 0 [A] eq. 30.

        The radial law is that of the ring, normalised for every mean ``mu`` and width ``w`` (by default the true
        ones), which may be tensors that require gradients: N(r; mu, w) / Phi(mu / w) on the half ring, N(r; mu, w) +
        N(r; -mu, w) on the full one.
        """
        self._check_line(t)
        mu, w = self.radius if mu is None else mu, self.width if w is None else w
        r = torch.where(t > 0, t, self.radius)
        return torch.where(t > 0, self._radial_density(r, mu, w) / (self.arc * r), 0.0)

    @staticmethod
    @abstractmethod
    def _radial_density(r: Tensor, mu: Any, w: Any) -> Tensor:
        """P(r; mu, w), written out so that it can be differentiated by its parameters."""

    def parameter_limits(self, t: Tensor) -> dict[str, tuple[float, float]]:
        """Return where the parameters may lie: both above zero."""
        self._check_line(t)
        return {"mu": (0.0, math.inf), "w": (0.0, math.inf)}

    def sensitivities(self, t: Tensor) -> dict[str, Tensor]:
        """Return the derivatives of p = N(r; mu, w) / r * const at r = t [n], each [n] [A] sec. 3.3.

        ``delta_mu``: ``p |r - mu| / w^2``; ``delta_w``: ``p |(r - mu)^2 / w^3 - 1 / w|``. As in [A], the constant is
        held fixed and only the main peak moves. At the defaults and within two widths of the peak, the
        cut-off at r = 0 and the mirror peak of the full ring would change these by less than 1e-3 p.
        """
        self._check_line(t)
        density, distance = self.line_density(t), t - self.radius
        return {
            "delta_mu": density * distance.abs() / self.width**2,
            "delta_w": density * (distance.square() / self.width**3 - 1 / self.width).abs(),
        }


def _normal(r: Tensor, mu: Any, w: Any) -> Tensor:
    return (-(((r - mu) / w) ** 2) / 2).exp() / (w * math.sqrt(2 * math.pi))


class GaussianRing(_PeakedRing):
    """The Gaussian half ring: r ~ N(radius, width) with r > 0, phi ~ U(0, pi) [A] eqs. 28-30.

    p(x, y) = N(r; radius, width) / (Phi(radius / width) pi r) on the half plane y > 0.

    Args:
        radius: peak of r, > 0.
        width: Gaussian width of r, > 0.
        dtype: precision of the samples, float32 or float64; None is torch's default.

    Raises:
        ValueError: if ``radius`` or ``width`` is not a finite number > 0, or ``dtype`` is neither float32 nor
            float64.
    """

    arc = math.pi
    line_positions = tuple(k * math.pi / 6 for k in range(1, 6))

    def __init__(self, radius: float = 4.0, width: float = 1.0, dtype: torch.dtype | None = None) -> None:
        super().__init__(TruncatedNormal(POSITIVE("radius", radius), POSITIVE("width", width)), dtype)

    @staticmethod
    def _radial_density(r: Tensor, mu: Any, w: Any) -> Tensor:
        kept = torch.special.erfc(torch.as_tensor(-mu / w, dtype=r.dtype) / math.sqrt(2)) / 2
        return _normal(r, mu, w) / kept


class FullRing(_PeakedRing):
    """The full Gaussian ring: P(r) = N(r; radius, width) + N(r; -radius, width), phi ~ U(0, 2 pi) [D] eq. 3.

    p(x, y) = P(r) / (2 pi r) in the plane without the origin, where the density diverges.

    Args:
        radius: peak of r, > 0.
        width: Gaussian width of r, > 0.
        dtype: precision of the samples, float32 or float64; None is torch's default.

    Raises:
        ValueError: if ``radius`` or ``width`` is not a finite number > 0, or ``dtype`` is neither float32 nor
            float64.
    """

    line_positions = tuple(k * math.pi / 3 for k in range(6))

    def __init__(self, radius: float = 4.0, width: float = 1.0, dtype: torch.dtype | None = None) -> None:
        super().__init__(FoldedNormal(POSITIVE("radius", radius), POSITIVE("width", width)), dtype)

    @staticmethod
    def _radial_density(r: Tensor, mu: Any, w: Any) -> Tensor:
        return _normal(r, mu, w) + _normal(r, -mu, w)


class GammaRing(_Ring):
    """The gamma ring: r = radius + Gamma(shape, scale), phi ~ U(0, 2 pi) [F].

    p(x, y) = Gamma(r - radius; shape, scale) / (2 pi r) on r > radius; the inner edge, where the density
    is zero (shape > 1) or diverges (shape < 1), is not in the support.

    Args:
        radius: inner edge of the ring, > 0.
        shape: shape of the gamma distribution, > 0.
        scale: scale of the gamma distribution, > 0; its mean is shape * scale.
        dtype: precision of the samples, float32 or float64; None is torch's default.

    Raises:
        ValueError: if ``radius``, ``shape`` or ``scale`` is not a finite number > 0, or ``dtype`` is neither
            float32 nor float64.
    """

    def __init__(
        self, radius: float = 4.0, shape: float = 2.0, scale: float = 0.5, dtype: torch.dtype | None = None
    ) -> None:
        self.radius, self.gamma_shape = POSITIVE("radius", radius), POSITIVE("shape", shape)
        self.scale = POSITIVE("scale", scale)
        law = ShiftedGamma(self.radius, self.gamma_shape, self.scale)
        super().__init__(law, dtype, radius=self.radius, shape=self.gamma_shape, scale=self.scale)
