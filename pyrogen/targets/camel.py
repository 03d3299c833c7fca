"""The camel back, two Gaussian humps in one dimension [D]."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.special import ndtr

from pyrogen.checks import POSITIVE

from .base import Target, invert
from .radial import log_normal


class CamelBack(Target):
    """The camel back p(x) = (N(x; -separation / 2, width) + N(x; separation / 2, width)) / 2 [D] eq. 1.

    One-dimensional, with ``event_shape`` (1,). The defaults put the humps of [D] at -4 and 4.

    Args:
        separation: distance between the two means, > 0.
        width: Gaussian width of each hump, > 0.
        dtype: precision of the samples, float32 or float64; None is torch's default.

    Raises:
        ValueError: if ``separation`` or ``width`` is not a finite number > 0, or ``dtype`` is neither float32
            nor float64.
    """

    def __init__(self, separation: float = 8.0, width: float = 1.0, dtype: torch.dtype | None = None) -> None:
        self.separation, self.width = POSITIVE("separation", separation), POSITIVE("width", width)
        super().__init__(1, dtype, separation=self.separation, width=self.width)

    @property
    def _hump(self) -> float:
        return self.separation / 2

    @property
    def _anchor(self) -> Tensor:
        return torch.tensor([self._hump], dtype=torch.float64)

    def _inside(self, x: Tensor) -> Tensor:
        return torch.isfinite(x[..., 0])

    def _log_density(self, x: Tensor) -> Tensor:
        left = log_normal(x[..., 0], -self._hump, self.width)
        right = log_normal(x[..., 0], self._hump, self.width)
        return torch.logaddexp(left, right) - math.log(2)

    def _draw(self, shape: torch.Size) -> Tensor:
        side = 2 * torch.randint(2, (*shape, 1)).double() - 1
        return side * self._hump + self.width * torch.randn(*shape, 1, dtype=torch.float64)

    def _to_unit(self, x: Tensor) -> Tensor:
        return (ndtr((x + self._hump) / self.width) + ndtr((x - self._hump) / self.width)) / 2

    def _from_unit(self, u: Tensor) -> Tensor:
        reach = self._hump + 10 * self.width  # all but 1e-23 of the probability
        return invert(self._to_unit, u, -reach, reach)
