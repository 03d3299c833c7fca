"""The linear and the quadratic ramp on the unit square [A sec. 3.1, 3.2]."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pyrogen.checks import FINITE, door

from .base import PARAMETER, LineTarget


class _Ramp(LineTarget):
    """p(x, y) = k x^(k-1) on 0 < x <= 1, 0 <= y <= 1: x is the largest of k uniform numbers."""

    power: int
    line_label = "x"
    line_positions = (0.2, 0.35, 0.5, 0.65, 0.8)
    upper_edge = "x_max"  # the parameter at which the density ends in a step

    def __init__(self, dtype: torch.dtype | None = None) -> None:
        super().__init__(2, dtype)

    @property
    def line_range(self) -> tuple[float, float]:
        """[A] drops x < 0.1 and x > 0.9, where a flow on an open space smears the edges."""
        return 0.1, 0.9

    @door(position=FINITE)
    def line(self, t: Tensor, position: float) -> Tensor:
        """Return the points [n, 2] at x = t [n] and y = ``position``.

        Raises:
            ValueError: if ``t`` is not a vector of floating point numbers or ``position`` not in [0, 1].
        """
        self._check_line(t)
        if not 0 <= position <= 1:
            raise ValueError(f"position must be a y in [0, 1], got {position!r}")
        return torch.stack([t, torch.full_like(t, position)], dim=-1)

    def line_density(self, t: Tensor) -> Tensor:
        """Return p = k x^(k-1) [n] at x = t [n], zero outside [0, 1]."""
        self._check_line(t)
        return torch.where((t >= 0) & (t <= 1), self.power * t ** (self.power - 1), 0.0)

    def line_coordinate(self, x: Tensor) -> Tensor:
        """Return x of events [..., 2], as [...].

        Raises:
            ValueError: if ``x`` has another last dimension than 2 or is not floating point.
        """
        self._check_shape("x", x)
        return x[..., 0]

    def line_measure(self, t: Tensor) -> Tensor:
        """Return 1, the length in y, [n]."""
        self._check_line(t)
        return torch.ones_like(t)

    @property
    def _anchor(self) -> Tensor:
        return torch.tensor([0.5, 0.5], dtype=torch.float64)

    def _inside(self, x: Tensor) -> Tensor:
        # x = 0 has density zero, so its log density is -inf and it is not in the support.
        return (x[..., 0] > 0) & (x <= 1).all(-1) & (x[..., 1] >= 0)

    def _log_density(self, x: Tensor) -> Tensor:
        return math.log(self.power) + (self.power - 1) * x[..., 0].log()

    def _draw(self, shape: torch.Size) -> Tensor:
        uniform = torch.rand(*shape, self.power + 1, dtype=torch.float64)
        return torch.stack([uniform[..., 1:].amax(-1), uniform[..., 0]], dim=-1)

    def _to_unit(self, x: Tensor) -> Tensor:
        return torch.stack([x[..., 0].clamp(0, 1) ** self.power, x[..., 1]], dim=-1)

    def _from_unit(self, u: Tensor) -> Tensor:
        return torch.stack([u[..., 0] ** (1 / self.power), u[..., 1]], dim=-1)


class Wedge(_Ramp):
    """The wedge ramp p(x, y) = 2x on the unit square [A] eq. 17.

    The support is 0 < x <= 1, 0 <= y <= 1: at x = 0 the density vanishes.

    Args:
        dtype: precision of the samples, float32 or float64; None is torch's default.

    Raises:
        ValueError: if ``dtype`` is neither float32 nor float64.
    """

    power = 2

    @property
    def parameters(self) -> dict[str, float]:
        """True values of the parameters of `parametric_density`."""
        return {"a": 2.0, "x_max": 1.0}

    @door(a=PARAMETER, x_max=PARAMETER)
    def parametric_density(self, t: Tensor, *, a: Any = 2.0, x_max: Any = 1.0) -> Tensor:
        """Return p = a (x - x_max/2) + 1/x_max [n] at x = t [n], zero outside [0, x_max] [A] eqs. 18, 21.

        Normalised for every slope ``a`` and upper end point ``x_max``, which may be tensors that require gradients.
        """
        self._check_line(t)
        return torch.where((t >= 0) & (t <= x_max), a * (t - x_max / 2) + 1 / x_max, 0.0)

    def parameter_limits(self, t: Tensor) -> dict[str, tuple[float, float]]:
        """Return the slopes ``a`` at which p is nowhere negative, ``|a| <= 2`` for an edge at the largest t [n] = 1."""
        self._check_line(t)
        steepest = 2 / float(t.max()) ** 2
        return {"a": (-steepest, steepest)}

    def sensitivities(self, t: Tensor) -> dict[str, Tensor]:
        """Return ``|dp/da| = |x - 1/2|`` and ``|dp/dx_max| = 1 + a/2 = 2``, each [n], at x = t [n] [A] eqs. 18-23.

        p = a (x - 1/2) + 1 with slope a = 2. The third parameter of [A] eq. 23, the lower end point, enters
        with 1 - a/2 = 0 and is left out.
        """
        self._check_line(t)
        return {"delta_a": (t - 0.5).abs(), "delta_x_max": torch.full_like(t, 2.0)}


class Kicker(_Ramp):
    """The kicker ramp p(x, y) = 3x^2 on the unit square [A] eq. 24.

    The support is 0 < x <= 1, 0 <= y <= 1: at x = 0 the density vanishes.

    Args:
        dtype: precision of the samples, float32 or float64; None is torch's default.

    Raises:
        ValueError: if ``dtype`` is neither float32 nor float64.
    """

    power = 3

    @property
    def parameters(self) -> dict[str, float]:
        """True values of the parameters of `parametric_density`."""
        return {"x_min": 0.0, "x_max": 1.0}

    @door(x_min=PARAMETER, x_max=PARAMETER)
    def parametric_density(self, t: Tensor, *, x_min: Any = 0.0, x_max: Any = 1.0) -> Tensor:
        """Return p = 3 (x - x_min)^2 / (x_max - x_min)^3 [n] at x = t [n], zero outside [x_min, x_max] [A] eq. 25.

        The end points may be tensors that require gradients.
        """
        self._check_line(t)
        return torch.where((t >= x_min) & (t <= x_max), 3 * (t - x_min) ** 2 / (x_max - x_min) ** 3, 0.0)

    def parameter_limits(self, t: Tensor) -> dict[str, tuple[float, float]]:
        """Return where the lower end point ``x_min`` may lie: below all of t [n]."""
        self._check_line(t)
        return {"x_min": (-math.inf, float(t.min()))}

    def sensitivities(self, t: Tensor) -> dict[str, Tensor]:
        """Return ``|dp/dx_min| = 9x |x - 2/3|`` and ``|dp/dx_max| = 9x^2``, each [n], at x = t [n] [A] sec. 3.2.

        p = 3 (x - x_min)^2 / (x_max - x_min)^3 at the end points (0, 1).
        """
        self._check_line(t)
        return {"delta_x_min": 9 * t * (t - 2 / 3).abs(), "delta_x_max": 9 * t.square()}
