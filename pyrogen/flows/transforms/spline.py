"""The rational-quadratic spline."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from pyrogen.flows.transforms.bins import BinnedSpline, at


class RationalQuadraticSpline(BinnedSpline, name="rqs"):
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

    slope_factor = 5.0

    def _more_parameters(self) -> int:
        return self.bins + 1 if self.free_edges else self.bins if self.periodic is not None else self.bins - 1

    def _references(self, sizes: Tensor) -> Tensor:
        """2 over the slope ``[..., bins + 1, k, N]`` of each knot whose free factor is 1, a harmonic mean."""
        widths, heights = sizes.unbind(-4)
        steep = widths / heights
        inner = steep[..., :-1, :, :] + steep[..., 1:, :, :]
        first, last = steep[..., :1, :, :], steep[..., -1:, :, :]
        ends = (2 * first, 2 * last) if self.free_edges else (torch.full_like(first, 2.0),) * 2
        if self.periodic is not None:  # the ends of a circle are one knot, between the last bin and the first
            joint, circle = first + last, self.periodic[:, None]
            ends = (torch.where(circle, joint, ends[0]), torch.where(circle, joint, ends[1]))
        return torch.cat([ends[0], inner, ends[1]], -3)

    def _factors(self, raw: Tensor) -> Tensor:
        """Raw numbers ``[..., bins + 1, k, N]`` of the factors of all knots, 0 where the slope is not free."""
        if self.periodic is None:
            return raw if self.free_edges else F.pad(raw, (0, 0, 0, 0, 1, 1))
        circle = self.periodic[:, None]
        first, last = raw[..., :1, :, :], raw[..., self.bins :, :, :]
        if not self.free_edges:
            first = last = first * circle
        else:
            last = torch.where(circle, first, last)
        return torch.cat([first, raw[..., 1 : self.bins, :, :], last], -3)

    def _bin(self, value: Tensor, axis: int, raw: Tensor) -> tuple[Tensor, ...]:
        """Corners ``x0, z0``, sizes ``w, h`` and edge slopes ``d0, d1`` of the bin that holds each value.

        Arguments as of :meth:`_corners`.
        """
        sizes, both, corners = self._corners(value, axis, raw)
        # Slopes of two knots are worked out, not those of all.
        limit, free = math.log(self.slope_factor), at(self._factors(raw[..., 2 * self.bins :, :, :]), both)
        # limit * tanh(free / limit), in a quarter of the time
        factor = (torch.sigmoid(free * (2 / limit)) * (2 * limit) - limit).exp()
        d0, d1 = (2 * factor / at(self._references(sizes), both)).unbind(-3)
        return *corners, d0, d1

    def _inverse(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        # Clipping before the spline's arithmetic keeps values and gradients finite for the rows that `where` drops.
        clipped = x.clamp(self.low, self.high)
        x0, z0, width, height, d0, d1 = self._bin(clipped, 0, raw)
        theta = ((clipped - x0) / width).clamp(0, 1)
        slope, rest = height / width, 1 - theta
        mixed = theta * rest
        denominator = slope + (d1 + d0 - 2 * slope) * mixed
        z = z0 + height * (slope * theta * theta + d0 * mixed) / denominator
        log_derivative = self._log_derivative(theta, rest, slope, d0, d1, denominator)
        inside = clipped == x
        return torch.where(inside, z.clamp(self.low, self.high), x), torch.where(inside, log_derivative, 0.0)

    def _forward(self, z: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        clipped = z.clamp(self.low, self.high)
        x0, z0, width, height, d0, d1 = self._bin(clipped, 1, raw)
        slope = height / width
        # Solve z(theta) = z0 + dz for theta, with the root formula that does not cancel [1906.04032, eq. 6-8].
        dz = (clipped - z0).clamp(min=0)
        curvature = d1 + d0 - 2 * slope
        a = height * (slope - d0) + dz * curvature
        b = height * d0 - dz * curvature
        c = -slope * dz
        theta = (2 * c / (-b - (b * b - 4 * a * c).clamp(min=0).sqrt())).clamp(0, 1)
        rest = 1 - theta
        denominator = slope + curvature * theta * rest
        log_derivative = self._log_derivative(theta, rest, slope, d0, d1, denominator)
        x = (x0 + theta * width).clamp(self.low, self.high)
        inside = clipped == z
        return torch.where(inside, x, z), torch.where(inside, -log_derivative, 0.0)

    @staticmethod
    def _log_derivative(
        theta: Tensor, rest: Tensor, slope: Tensor, d0: Tensor, d1: Tensor, denominator: Tensor
    ) -> Tensor:
        numerator = d1 * theta * theta + 2 * slope * theta * rest + d0 * rest * rest
        ratio = slope / denominator
        return (numerator * ratio * ratio).log()
