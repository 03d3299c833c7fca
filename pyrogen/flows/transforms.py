"""Elementwise, invertible transforms with conditioned parameters: what a coupling block does to half of the features.

A transform maps latent values ``z`` to event values ``x``, one feature at a time, with parameters that the conditioner
network predicts for every event. Adding one means writing a class with ``parameters_per_feature``, ``forward`` and
``inverse`` and a line in :data:`TRANSFORMS`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from pyrogen.checks import whole_number


class Transform(Protocol):
    """What :class:`~pyrogen.flows.coupling.CouplingBlock` needs of a transform."""

    parameters_per_feature: int

    def forward(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``z [..., k]`` with ``parameters [..., k, P]`` to ``x [..., k]`` and log|dx/dz| ``[..., k]``."""
        ...

    def inverse(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``x [..., k]`` back to ``z [..., k]``, with log|dz/dx| ``[..., k]``."""
        ...


class Affine:
    """The affine (RealNVP) transform ``x = z exp(s) + t`` of [A] sec. 2.2.

    ``s = clamp tanh(raw / clamp)`` is softly clamped to (-clamp, clamp): no block can stretch a feature by more than
    ``exp(clamp)``, which keeps the training stable. All raw parameters zero give the identity.
    """

    parameters_per_feature = 2

    def __init__(self, clamp: float = 2.0) -> None:
        if not clamp > 0:
            raise ValueError(f"clamp is {clamp}; it bounds the log-scale of a block and must be positive")
        self.clamp = clamp

    def _scale_and_shift(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = parameters.unbind(-1)
        return self.clamp * torch.tanh(raw / self.clamp), shift

    def forward(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        log_scale, shift = self._scale_and_shift(parameters)
        return z * log_scale.exp() + shift, log_scale

    def inverse(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        log_scale, shift = self._scale_and_shift(parameters)
        return (x - shift) * (-log_scale).exp(), -log_scale


class RationalQuadraticSpline:
    """Monotonic rational-quadratic spline (Durkan et al., arXiv:1906.04032), the identity outside its box.

    ``inverse`` (from events to latent space, the direction of every training step) evaluates the rational function,
    ``forward`` solves the quadratic equation. On ``[low, high]`` there are ``bins`` bins with free widths and heights,
    and free slopes at the inner knots. With ``free_edges`` the two outermost slopes are free as well (a density with
    a hard edge ends at any height); without, they are 1, so that the spline joins its linear tails smoothly. All raw
    parameters zero give the identity.

    The slope at a knot is the harmonic mean of the two bins beside it times a free factor, softly clamped to
    [1/``slope_factor``, ``slope_factor``]. A slope independent of its bins can make the function so flat inside a bin
    that no float32 number tells its values apart: with raw parameters ~ N(0, 3^2) the inverse is then lost
    completely. Tied slopes and a smallest bin keep it within 1e-4.

    Features marked in ``periodic`` (one truth value per feature) live on a circle (Rezende et al., arXiv:2002.02428):
    the slopes at both ends of the box are the same, so that the density has no step where the circle was cut.
    """

    slope_factor = 5.0

    def __init__(
        self,
        bins: int = 10,
        low: float = -5.0,
        high: float = 5.0,
        free_edges: bool = False,
        periodic: Sequence[bool] = (),
    ) -> None:
        bins = whole_number("bins", bins, 2)
        if not low < high:
            raise ValueError(f"the spline's box [{low}, {high}] is empty; low must be below high")
        self.bins, self.low, self.high, self.free_edges = bins, low, high, free_edges
        self._periodic = torch.tensor(list(periodic)) if any(periodic) else None
        free_slopes = bins + 1 if free_edges else bins if any(periodic) else bins - 1
        self.parameters_per_feature = 2 * bins + free_slopes
        # Smallest bin as a fraction of the box. Edges with slope 1 need more, since a flat bin may not lie beside them.
        self.min_bin = (0.05 if free_edges else 0.4) / bins

    def _knots(self, raw: Tensor) -> Tensor:
        fractions = self.min_bin + (1 - self.min_bin * self.bins) * torch.softmax(raw, -1)
        inner = self.low + (self.high - self.low) * torch.cumsum(fractions[..., :-1], -1)
        return F.pad(F.pad(inner, (1, 0), value=self.low), (0, 1), value=self.high)

    def _slopes(self, raw: Tensor, mean_slopes: Tensor) -> Tensor:
        """Slopes ``[..., bins + 1]`` at the knots, from free factors and the bins' mean slopes ``[..., bins]``."""
        left, right = mean_slopes[..., :-1], mean_slopes[..., 1:]
        reference = 2 * left * right / (left + right)
        if self._periodic is None and not self.free_edges:
            return F.pad(self._near(reference, raw), (1, 1), value=1.0)
        edges = mean_slopes[..., [0, -1]]
        if self._periodic is not None:  # its ends are one knot, between the last bin and the first
            periodic = self._periodic.to(raw.device)[:, None]
            joint = 2 * edges.prod(-1, keepdim=True) / edges.sum(-1, keepdim=True)
            edges = torch.where(periodic, joint, edges)
            raw = torch.cat([raw[..., : self.bins], torch.where(periodic, raw[..., :1], raw[..., -1:])], -1)
        slopes = self._near(torch.cat([edges[..., :1], reference, edges[..., 1:]], -1), raw)
        if self.free_edges:
            return slopes
        return torch.where(periodic, slopes, F.pad(slopes[..., 1:-1], (1, 1), value=1.0))

    def _near(self, reference: Tensor, raw: Tensor) -> Tensor:
        """Slopes within the allowed factor of a reference."""
        limit = math.log(self.slope_factor)
        return reference * (limit * torch.tanh(raw / limit)).exp()

    def _bin(self, value: Tensor, axis: int, parameters: Tensor) -> tuple[Tensor, ...]:
        """Corners ``x0, y0``, sizes ``w, h`` and edge slopes ``d0, d1`` of the bin that holds each value.

        ``axis`` names the knots to search: 0 for x (events), 1 for z.
        """
        x_knots, z_knots = (self._knots(part) for part in parameters[..., : 2 * self.bins].split(self.bins, -1))
        slopes = self._slopes(parameters[..., 2 * self.bins :], z_knots.diff(dim=-1) / x_knots.diff(dim=-1))
        searched = x_knots if axis == 0 else z_knots
        index = (value.unsqueeze(-1) >= searched[..., 1:-1]).sum(-1, keepdim=True)

        def pick(values: Tensor, index: Tensor) -> Tensor:
            return values.gather(-1, index).squeeze(-1)

        x0, z0 = pick(x_knots, index), pick(z_knots, index)
        width, height = pick(x_knots, index + 1) - x0, pick(z_knots, index + 1) - z0
        return x0, z0, width, height, pick(slopes, index), pick(slopes, index + 1)

    def inverse(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        inside = (x >= self.low) & (x <= self.high)
        # Clipping before the spline's arithmetic keeps values and gradients finite for the rows that `where` drops.
        clipped = x.clamp(self.low, self.high)
        x0, z0, width, height, d0, d1 = self._bin(clipped, 0, parameters)
        theta = ((clipped - x0) / width).clamp(0, 1)
        slope = height / width
        mixed = theta * (1 - theta)
        denominator = slope + (d1 + d0 - 2 * slope) * mixed
        z = z0 + height * (slope * theta**2 + d0 * mixed) / denominator
        log_derivative = self._log_derivative(theta, slope, d0, d1, denominator)
        return (
            torch.where(inside, z.clamp(self.low, self.high), x),
            torch.where(inside, log_derivative, torch.zeros_like(x)),
        )

    def forward(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        inside = (z >= self.low) & (z <= self.high)
        clipped = z.clamp(self.low, self.high)
        x0, z0, width, height, d0, d1 = self._bin(clipped, 1, parameters)
        slope = height / width
        # Solve z(theta) = z0 + dz for theta, with the root formula that does not cancel [1906.04032, eq. 6-8].
        dz = (clipped - z0).clamp(min=0)
        curvature = d1 + d0 - 2 * slope
        a = height * (slope - d0) + dz * curvature
        b = height * d0 - dz * curvature
        c = -slope * dz
        theta = (2 * c / (-b - (b**2 - 4 * a * c).clamp(min=0).sqrt())).clamp(0, 1)
        denominator = slope + curvature * theta * (1 - theta)
        log_derivative = self._log_derivative(theta, slope, d0, d1, denominator)
        x = (x0 + theta * width).clamp(self.low, self.high)
        return torch.where(inside, x, z), torch.where(inside, -log_derivative, torch.zeros_like(z))

    @staticmethod
    def _log_derivative(theta: Tensor, slope: Tensor, d0: Tensor, d1: Tensor, denominator: Tensor) -> Tensor:
        numerator = d1 * theta**2 + 2 * slope * theta * (1 - theta) + d0 * (1 - theta) ** 2
        return 2 * slope.log() + numerator.log() - 2 * denominator.log()


class Bernstein:
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

    low, high = 0.0, 1.0
    floor = 0.01  # the uniform part of the density, and the smallest slope

    def __init__(self, degree: int = 10) -> None:
        self.degree = n = whole_number("bins", degree, 2)
        self.parameters_per_feature = n
        # Beta density k, times 1 - floor, is exp(powers[k] @ (log x, log(1 - x)) + log_factors[k]).
        factors = [math.log((1 - self.floor) * n * math.comb(n - 1, k)) for k in range(n)]
        self._powers = torch.tensor([[k, n - 1 - k] for k in range(n)], dtype=torch.float64)
        self._log_factors = torch.tensor(factors, dtype=torch.float64)[:, None]
        # Takes the densities to themselves and to the sums of all that follow.
        self._sums = torch.cat([torch.eye(n), torch.ones(n, n).triu(1)])

    def _fractions(self, parameters: Tensor) -> Tensor:
        """Mixture fractions ``[degree, ...]`` of ``parameters [..., degree]``: sums over the first axis are fast."""
        return torch.softmax(parameters.movedim(-1, 0), 0)

    def _value_and_slope(self, x: Tensor, fractions: Tensor) -> tuple[Tensor, Tensor]:
        """The polynomial and its derivative at ``x [...]`` in [0, 1] for mixture fractions ``[degree, ...]``.

        The integral of Beta density k up to x is ``(x density_k + sum_{j > k} density_j) / degree``.
        """
        powers, log_factors, sums = self._powers.to(x), self._log_factors.to(x), self._sums.to(x)
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
