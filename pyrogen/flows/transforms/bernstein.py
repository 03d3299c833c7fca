"""The smooth polynomial of the unit box."""

from __future__ import annotations

import math
from typing import Self

import torch
from torch import Tensor

from pyrogen.checks import whole_number
from pyrogen.flows.transforms.base import Transform, TransformOptions


class Bernstein(Transform, name="bernstein"):
    """Smooth monotonic polynomial of the unit box: a Bernstein polynomial with increasing coefficients.

    Its slope, the conditional density that the block gives to a uniform latent feature, is a mixture of the Beta
    densities ``Beta(k + 1, degree - k)``, k = 0 ... degree - 1, with 1 % of a uniform density, which keeps the inverse
    within 1e-4 in float32. ``log|dz/dx|`` has as many derivatives in the event and in the weights as one likes, and
    its derivative by a raw parameter is never larger than one; a spline's has kinks at the knots, where events pass
    from bin to bin. Samplers that follow gradients take ten times longer steps for it (``docs/sampling.md``).
    ``inverse`` (events to latent space, every training step) is the polynomial; ``forward`` solves it for its root by
    Newton steps kept inside a bracket. All raw parameters zero give the identity; outside the box it is the identity.

    Args:
        degree: number of Beta densities, at least 2.
    """

    fits_unit_box = True
    needs_unit_box = True
    low, high = 0.0, 1.0
    floor = 0.01  # the uniform part of the density, and the smallest slope

    def __init__(self, degree: int = 10) -> None:
        super().__init__()
        self.degree = n = whole_number("bins", degree, 2)
        self.parameters_per_feature = n
        # Beta density k, times 1 - floor, is exp(powers[k] @ (log x, log(1 - x)) + log_factors[k]).
        factors = [math.log((1 - self.floor) * n * math.comb(n - 1, k)) for k in range(n)]
        self.register_constant("powers", torch.tensor([[k, n - 1 - k] for k in range(n)], dtype=torch.float64))
        self.register_constant("log_factors", torch.tensor(factors, dtype=torch.float64)[:, None])
        # Takes the densities to themselves and to the sums of all that follow.
        unit = torch.eye(n, dtype=torch.float64)
        self.register_constant("sums", torch.cat([unit, torch.ones_like(unit).triu(1)]))

    @classmethod
    def from_options(cls, options: TransformOptions) -> Self:
        return cls(options.bins)

    def extra_repr(self) -> str:
        return f"degree={self.degree}"

    def _fractions(self, parameters: Tensor) -> Tensor:
        """Mixture fractions ``[degree, ...]`` of ``parameters [..., degree]``: sums over the first axis are fast."""
        return torch.softmax(parameters.movedim(-1, 0), 0)

    def _value_and_slope(self, x: Tensor, fractions: Tensor) -> tuple[Tensor, Tensor]:
        """The polynomial and its derivative at ``x [...]`` in [0, 1] for mixture fractions ``[degree, ...]``.

        The integral of Beta density k up to x is ``(x density_k + sum_{j > k} density_j) / degree``.
        """
        powers, log_factors, sums = (self.constant(name, x) for name in ("powers", "log_factors", "sums"))
        logs = torch.stack([x, 1 - x]).clamp(min=torch.finfo(x.dtype).tiny).log().reshape(2, -1)
        densities = (powers @ logs + log_factors).exp()
        density, following = ((sums @ densities).view(2, self.degree, *x.shape) * fractions).sum(1)
        slope = self.floor + density
        value = (following + x * (slope + self.floor * (self.degree - 1))) / self.degree
        return value.clamp(0, 1), slope

    def inverse(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        clipped = x.clamp(0, 1)
        inside = x == clipped
        z, slope = self._value_and_slope(clipped, self._fractions(parameters))
        return torch.where(inside, z, x), torch.where(inside, slope.log(), 0.0)

    def forward(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        inside = (z >= 0) & (z <= 1)
        clipped, fractions = z.clamp(0, 1), self._fractions(parameters)
        with torch.no_grad():
            x = self._root(clipped, fractions)
        # A last Newton step from the root: it changes no digit, but carries the derivative [implicit function theorem].
        value, slope = self._value_and_slope(x, fractions)
        x = (x + (clipped - value) / slope.detach()).clamp(0, 1)
        slope = self._value_and_slope(x, fractions)[1]
        return torch.where(inside, x, z), torch.where(inside, -slope.log(), 0.0)

    def _root(self, z: Tensor, fractions: Tensor) -> Tensor:
        """Where the polynomial is ``z``: Newton steps, and the middle of the bracket where a step leaves it."""
        low, high, x = torch.zeros_like(z), torch.ones_like(z), z
        for _ in range(200):  # each step halves the bracket or better; a handful is the rule
            value, slope = self._value_and_slope(x, fractions)
            low, high = torch.where(value <= z, x, low), torch.where(value >= z, x, high)
            step = x + (z - value) / slope
            step = torch.where((step > low) & (step < high), step, (low + high) / 2)
            moved, x = (step - x).abs().max() if z.numel() else 0.0, step
            if moved <= 2 * torch.finfo(z.dtype).eps:
                break
        return x
