"""How pyrogen predicted before predictions were batched, kept to be compared with: draw after draw, and the spline of that time."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

import pyrogen as pg
from pyrogen.flows import RationalQuadraticSpline

CHUNK = 4096


class SplineBefore(RationalQuadraticSpline, name="rqs before"):
    """The spline that works out the slopes of all knots, along the last dimension."""

    def _knots_along(self, raw: Tensor) -> Tensor:
        fractions = self.min_bin + (1 - self.min_bin * self.bins) * torch.softmax(raw, -1)
        inner = self.low + (self.high - self.low) * torch.cumsum(fractions[..., :-1], -1)
        return F.pad(F.pad(inner, (1, 0), value=self.low), (0, 1), value=self.high)

    def _slopes(self, raw: Tensor, mean_slopes: Tensor) -> Tensor:
        left, right = mean_slopes[..., :-1], mean_slopes[..., 1:]
        reference = 2 * left * right / (left + right)
        if self.periodic is None and not self.free_edges:
            return F.pad(self._near(reference, raw), (1, 1), value=1.0)
        edges = mean_slopes[..., [0, -1]]
        if self.periodic is not None:
            periodic = self.periodic[:, None]
            joint = 2 * edges.prod(-1, keepdim=True) / edges.sum(-1, keepdim=True)
            edges = torch.where(periodic, joint, edges)
            raw = torch.cat([raw[..., : self.bins], torch.where(periodic, raw[..., :1], raw[..., -1:])], -1)
        slopes = self._near(torch.cat([edges[..., :1], reference, edges[..., 1:]], -1), raw)
        if self.free_edges:
            return slopes
        return torch.where(periodic, slopes, F.pad(slopes[..., 1:-1], (1, 1), value=1.0))

    def _near(self, reference: Tensor, raw: Tensor) -> Tensor:
        limit = math.log(self.slope_factor)
        return reference * (limit * torch.tanh(raw / limit)).exp()

    def _bin_of(self, value: Tensor, axis: int, parameters: Tensor) -> tuple[Tensor, ...]:
        x_knots, z_knots = (self._knots_along(p) for p in parameters[..., : 2 * self.bins].split(self.bins, -1))
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
        clipped = x.clamp(self.low, self.high)
        x0, z0, width, height, d0, d1 = self._bin_of(clipped, 0, parameters)
        theta = ((clipped - x0) / width).clamp(0, 1)
        slope = height / width
        mixed = theta * (1 - theta)
        denominator = slope + (d1 + d0 - 2 * slope) * mixed
        z = z0 + height * (slope * theta**2 + d0 * mixed) / denominator
        log_derivative = _log_derivative(theta, slope, d0, d1, denominator)
        return torch.where(inside, z.clamp(self.low, self.high), x), torch.where(inside, log_derivative, 0.0)

    def forward(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        inside = (z >= self.low) & (z <= self.high)
        clipped = z.clamp(self.low, self.high)
        x0, z0, width, height, d0, d1 = self._bin_of(clipped, 1, parameters)
        slope = height / width
        dz = (clipped - z0).clamp(min=0)
        curvature = d1 + d0 - 2 * slope
        a, b, c = height * (slope - d0) + dz * curvature, height * d0 - dz * curvature, -slope * dz
        theta = (2 * c / (-b - (b**2 - 4 * a * c).clamp(min=0).sqrt())).clamp(0, 1)
        log_derivative = _log_derivative(theta, slope, d0, d1, slope + curvature * theta * (1 - theta))
        x = (x0 + theta * width).clamp(self.low, self.high)
        return torch.where(inside, x, z), torch.where(inside, -log_derivative, 0.0)


def _log_derivative(theta: Tensor, slope: Tensor, d0: Tensor, d1: Tensor, denominator: Tensor) -> Tensor:
    numerator = d1 * theta**2 + 2 * slope * theta * (1 - theta) + d0 * (1 - theta) ** 2
    return 2 * slope.log() + numerator.log() - 2 * denominator.log()


@torch.no_grad()
def log_prob(model: pg.BayesianFlow, thetas: Tensor, x: Tensor) -> Tensor:
    """Log densities ``[K, N]``: chunk after chunk, and in it draw after draw."""
    return torch.cat(
        [torch.stack([model.log_prob(theta, chunk) for theta in thetas]) for chunk in x.split(CHUNK)], 1
    )


@torch.no_grad()
def generate(model: pg.BayesianFlow, thetas: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Events ``[n, d]`` of the draws in equal shares, and their log-weights ``[K, n]``."""
    parts = [(theta, torch.arange(n // len(thetas)).split(4 * CHUNK)) for theta in thetas]
    events = torch.cat([model.sample_events(theta, len(rows)) for theta, its in parts for rows in its])
    return events, torch.log_softmax(log_prob(model, thetas, events).double(), 0)
