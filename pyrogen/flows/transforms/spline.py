"""The rational-quadratic spline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from pyrogen.checks import whole_number
from pyrogen.flows.transforms.base import Transform, TransformOptions


class RationalQuadraticSpline(Transform, name="rqs"):
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

    Args:
        bins: number of bins, at least 2.
        low: lower edge of the box.
        high: upper edge of the box.
        free_edges: whether the outermost slopes are free.
        periodic: which features are angles, one truth value for each; empty: none.
    """

    fits_unit_box = True
    can_be_periodic = True
    slope_factor = 5.0
    periodic: Tensor | None

    def __init__(
        self,
        bins: int = 10,
        low: float = -5.0,
        high: float = 5.0,
        free_edges: bool = False,
        periodic: Sequence[bool] = (),
    ) -> None:
        super().__init__()
        bins = whole_number("bins", bins, 2)
        if not low < high:
            raise ValueError(f"the spline's box [{low}, {high}] is empty; low must be below high")
        self.bins, self.low, self.high, self.free_edges = bins, low, high, free_edges
        self.register_buffer("periodic", torch.tensor(list(periodic)) if any(periodic) else None, persistent=False)
        free_slopes = bins + 1 if free_edges else bins if any(periodic) else bins - 1
        self.parameters_per_feature = 2 * bins + free_slopes
        # Smallest bin as a fraction of the box. Edges with slope 1 need more, since a flat bin may not lie beside them.
        self.min_bin = (0.05 if free_edges else 0.4) / bins

    @classmethod
    def from_options(cls, options: TransformOptions) -> Self:
        if options.base == "uniform":
            return cls(options.bins, 0.0, 1.0, free_edges=True, periodic=options.periodic)
        return cls(options.bins, -options.bound, options.bound, periodic=options.periodic)

    def extra_repr(self) -> str:
        text = f"{self.bins} bins on [{self.low:g}, {self.high:g}]"
        if self.free_edges:
            text += ", free edges"
        if self.periodic is not None:
            text += f", {int(self.periodic.sum())} of {len(self.periodic)} periodic"
        return text

    def _knots(self, raw: Tensor) -> Tensor:
        fractions = self.min_bin + (1 - self.min_bin * self.bins) * torch.softmax(raw, -1)
        inner = self.low + (self.high - self.low) * torch.cumsum(fractions[..., :-1], -1)
        return F.pad(F.pad(inner, (1, 0), value=self.low), (0, 1), value=self.high)

    def _slopes(self, raw: Tensor, mean_slopes: Tensor) -> Tensor:
        """Slopes ``[..., bins + 1]`` at the knots, from free factors and the bins' mean slopes ``[..., bins]``."""
        left, right = mean_slopes[..., :-1], mean_slopes[..., 1:]
        reference = 2 * left * right / (left + right)
        if self.periodic is None and not self.free_edges:
            return F.pad(self._near(reference, raw), (1, 1), value=1.0)
        edges = mean_slopes[..., [0, -1]]
        if self.periodic is not None:  # its ends are one knot, between the last bin and the first
            periodic = self.periodic[:, None]
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
