"""The smooth polynomial of the unit box."""

from __future__ import annotations

import math
from typing import Any, Self

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pyrogen.checks import whole_number
from pyrogen.flows.fused import is_fused
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
        # Of densities: the n-th part of the sums of all that follow. Of their shares: sums with factors 1, k, n - 1 - k
        # (the difference of the first two would lose all digits near the upper edge).
        self.register_constant("following", torch.ones_like(unit).triu(1) / n)
        self.register_constant(
            "moments", torch.stack([torch.ones(n), torch.arange(n), torch.arange(n).flip(0)]).double()
        )
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
        if is_fused() and x.dtype == parameters.dtype:
            constants = (self.constant(name, x) for name in ("powers", "log_factors", "following", "moments"))
            z, log_slope = _Inverse.apply(x.movedim(-1, -2), parameters.movedim(-3, -1), self.floor, *constants)
            return z.movedim(-1, -2), log_slope.movedim(-1, -2)
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


class _Inverse(torch.autograd.Function):
    """:meth:`Bernstein.inverse` of ``x [..., k, N]`` for ``parameters [..., k, degree, N]``, once differentiable.

    With fractions w, densities d and their integrals I: ``dz/dx = slope``, ``dz/dw = I``, ``d slope/dw = d``, and
    ``d slope/dx = sum_k w_k d_k (k/x - (degree - 1 - k)/(1 - x))``.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        parameters: Tensor,
        floor: float,
        powers: Tensor,
        log_factors: Tensor,
        following: Tensor,
        moments: Tensor,
    ) -> tuple[Tensor, Tensor]:
        if x.ndim == 3 and x.stride(0) == 0:
            x = x[:1]  # the same events for all networks: their densities serve all
        clipped = x.clamp(0, 1)
        inside = x == clipped
        fractions = torch.softmax(parameters, -2)
        edges = torch.stack([clipped, 1 - clipped], -2).clamp_(min=torch.finfo(x.dtype).tiny)
        densities = torch.matmul(powers, edges.log()).add_(log_factors).exp_()
        integrals = torch.matmul(following, densities).addcmul_(densities, clipped.unsqueeze(-2), value=1 / len(powers))
        weighted = fractions * densities
        found = torch.matmul(moments, weighted)
        slope = found.select(-2, 0) + floor
        z = torch.mul(fractions, integrals, out=weighted).sum(-2).add_(clipped, alpha=floor).clamp_(0, 1)
        ctx.save_for_backward(inside, edges, fractions, densities, integrals, found)
        ctx.floor = floor
        ctx.set_materialize_grads(False)
        return torch.where(inside, z, x), torch.where(inside, slope.log(), 0.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_z: Tensor | None, by_log: Tensor | None) -> tuple[Tensor | None, ...]:
        inside, edges, fractions, densities, integrals, found = ctx.saved_tensors
        density, from_low, from_high = found.unbind(-2)
        slope = density + ctx.floor
        by_slope = torch.zeros_like(slope) if by_log is None else torch.where(inside, by_log, 0.0) / slope
        by_fractions = densities * by_slope.unsqueeze(-2)
        if by_z is not None:
            by_fractions.addcmul_(integrals, torch.where(inside, by_z, 0.0).unsqueeze(-2))
        by_parameters = by_fractions.mul_(fractions)
        by_parameters.addcmul_(fractions, by_parameters.sum(-2, keepdim=True), value=-1)
        by_x = None
        if ctx.needs_input_grad[0]:
            low, high = edges.unbind(-2)
            by_x = by_slope * (from_low / low - from_high / high)
            if by_z is not None:
                by_x = by_x + by_z * torch.where(inside, slope, 1.0)
        return by_x, by_parameters, None, None, None, None, None
