"""Elementwise maps between the line, the unit interval and what is nearly normal, and a bijection for each column."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..checks import FINITE, POSITIVE, door, optional
from .preprocessing import Bijection, Composite, FittedConstants, Standardise, as_sample
from .sample import EventsLike


class Columns(Composite):
    """One bijection for each column; each is fitted to its own column, unless it is fitted already.

    Args:
        parts: one bijection per column.
    """

    kind = "columns"

    def fit(self, events: EventsLike, weights: ArrayLike | Tensor | None = None) -> Self:
        sample = as_sample(events, weights)
        self._check(sample.values)
        for i, part in enumerate(self.parts):
            if not part.fitted:
                part.fit(sample.values[:, i : i + 1], sample.weights)
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._each(x, "forward")

    def inverse(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return self._each(u, "inverse")

    def _each(self, values: Tensor, direction: str) -> tuple[Tensor, Tensor]:
        self._check(values)
        pairs = [getattr(part, direction)(values[..., i : i + 1]) for i, part in enumerate(self.parts)]
        return torch.cat([pair[0] for pair in pairs], -1), torch.stack([pair[1] for pair in pairs]).sum(0)

    def _check(self, values: Any) -> None:
        if values.shape[-1] != len(self.parts):
            raise ValueError(f"Columns has {len(self.parts)} bijections; got events of shape {list(values.shape)}")


class Squash(FittedConstants):
    """u = 1 / (1 + exp(-(x - location) / scale)), the distribution function of a logistic: the line onto (0, 1).

    A fit takes the mean and ``scale = sqrt(3) std / pi``, with which a logistic distribution becomes uniform.
    ``Squash(0, 0.5)`` turns a pseudorapidity into ``(1 + cos(theta)) / 2``.
    """

    kind = "squash"
    constants = ("location", "scale")
    start = (0.0, 1.0)
    condition = "scale must be positive"
    location: Tensor
    scale: Tensor

    @door(location=optional(FINITE), scale=optional(POSITIVE))
    def __init__(self, location: float | None = None, scale: float | None = None) -> None:
        super().__init__()
        if location is not None and scale is not None:
            self._set([location, scale])
        elif (location is None) != (scale is None):
            raise ValueError(f"give both location and scale, or none; got location={location!r}, scale={scale!r}")

    def fit(self, events: EventsLike, weights: ArrayLike | Tensor | None = None) -> Self:
        standard = Standardise().fit(events, weights)
        self._set([standard.mean.numpy(), standard.std.numpy() * math.sqrt(3) / math.pi])
        return self

    def valid(self, *constants: Tensor) -> Tensor:
        return constants[1] > 0

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        location, scale = self._cast(x)
        t = (x - location) / scale
        log_slope = -torch.nn.functional.softplus(t) - torch.nn.functional.softplus(-t) - scale.log()
        return torch.sigmoid(t), log_slope.sum(-1)

    def inverse(self, u: Tensor) -> tuple[Tensor, Tensor]:
        location, scale = self._cast(u)
        u = _inside(u)
        log_slope = scale.log() - u.log() - torch.log1p(-u)
        return location + scale * (u.log() - torch.log1p(-u)), log_slope.sum(-1)


class Probit(Bijection):
    """u = Phi^-1(x), the normal quantile: the unit interval onto the line, uniform to standard normal; nothing to fit.

    Values on the edges of the box, or beyond, count as the nearest ones inside.
    """

    kind = "probit"
    fitted = True

    def fit(self, events: EventsLike, weights: ArrayLike | Tensor | None = None) -> Self:
        as_sample(events, weights)
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        u = torch.special.ndtri(_inside(x))
        return u, -_log_normal(u).sum(-1)

    def inverse(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return torch.special.ndtr(u), _log_normal(u).sum(-1)

    def config(self) -> dict[str, Any]:
        return {"kind": self.kind}

    @classmethod
    def _from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls()


def _log_normal(u: Tensor) -> Tensor:
    return -0.5 * u**2 - 0.5 * math.log(2 * math.pi)


def _inside(u: Tensor) -> Tensor:
    """Values in the open unit interval: the edges are where generated numbers are rounded to."""
    kind = torch.finfo(u.dtype)
    return u.clamp(kind.tiny, 1 - kind.eps / 2)
