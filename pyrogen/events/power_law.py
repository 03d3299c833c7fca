"""A falling power law above a lower limit, made flat."""

from __future__ import annotations

import math
from typing import Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..checks import FINITE, door
from ..signals import uninterrupted
from .bijection import FittedConstants
from .resonance import FIT_EVENTS
from .sample import EventsLike, as_sample


class PowerLaw(FittedConstants):
    """u = P(x' > x) = (1 + (x - low) / scale)^-power: a falling spectrum above a cut onto (0, 1).

    The Lomax distribution, which a transverse momentum above its cut follows roughly: ``Chain([PowerLaw(20.0),
    Probit()])`` makes it nearly normal, with the cut as an exact edge. ``scale`` and ``power`` are fitted by maximum
    likelihood; negative weights count as zero there. High numbers come near u = 0, where float32 numbers are dense.
    Numbers at or below the limit have no density.

    Args:
        low: the lower limit, in the unit of the column: that of a cut.

    Raises:
        ValueError: ``low`` is not finite; in the fit: events at or below it, or all the same.
    """

    kind = "power_law"
    constants = ("low", "scale", "power")
    start = (0.0, 1.0, 1.0)
    condition = "scale and power must be positive"
    low: Tensor
    scale: Tensor
    power: Tensor

    @door(low=FINITE)
    def __init__(self, low: float = 0.0) -> None:
        super().__init__()
        self.low = torch.tensor(low, dtype=torch.float64)

    def fit(self, events: EventsLike, weights: ArrayLike | Tensor | None = None) -> Self:
        sample = as_sample(events, weights)
        self.check(sample)
        low = float(self.low.flatten()[0])
        columns = [[low, *_fit_power_law(column - low, sample.weights)] for column in sample.values.T]
        self._set(list(np.transpose(columns)))
        return self

    def valid(self, *constants: Tensor) -> Tensor:
        return (constants[1] > 0) & (constants[2] > 0)

    def inside(self, x: Tensor) -> Tensor:
        return x > self._cast(x)[0]

    def explain(self, x: Tensor) -> str:
        low = self._cast(x)[0].tolist()
        return f"PowerLaw maps numbers above its lower limit {low}: leave these events out, or give low= below them"

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        low, scale, power = self._cast(x)
        log_sum = torch.log1p((x - low) / scale)
        return (-power * log_sum).exp(), (power.log() - scale.log() - (power + 1) * log_sum).sum(-1)

    def inverse(self, u: Tensor) -> tuple[Tensor, Tensor]:
        low, scale, power = self._cast(u)
        log_sum = -u.clamp(torch.finfo(u.dtype).tiny, 1).log() / power
        x = low + scale * torch.expm1(log_sum)
        # Rounding must not lead onto the limit, where there is no density.
        x = torch.maximum(x, torch.nextafter(low, torch.full_like(low, torch.inf)))
        return x, (scale.log() - power.log() + (power + 1) * log_sum).sum(-1)


def _fit_power_law(distances: NDArray[np.float64], weights: NDArray[np.float64] | None) -> tuple[float, float]:
    """Scale and power of distances ``[N]`` from the limit, by maximum likelihood."""
    with uninterrupted():
        from scipy.optimize import minimize  # here: it takes a fifth as long as torch

    step = -(-len(distances) // FIT_EVENTS)
    x = torch.tensor(distances[::step])
    w = torch.ones_like(x) if weights is None else torch.tensor(weights[::step].clip(min=0))
    if not float(x.max()) > float(x.min()):
        raise ValueError(f"all events are {float(x.min()):.6g} above the limit; there is no spectrum to fit")
    unit = float((w * x).sum() / w.sum())

    def loss(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        raw = torch.tensor(values, requires_grad=True)
        log_scale, log_power = raw
        terms = log_power - log_scale - (log_power.exp() + 1) * torch.log1p(x / unit * (-log_scale).exp())
        mean = -(w * terms).sum() / w.sum()
        mean.backward()
        return float(mean.detach()), raw.grad.numpy()  # type: ignore[union-attr]

    # With a power of 100 it is as good as an exponential, of which the likelihood has no maximum.
    bounds = [(math.log(1e-3), math.log(1e3)), (math.log(0.1), math.log(100.0))]
    found = minimize(loss, [math.log(2.0), math.log(3.0)], jac=True, bounds=bounds, method="L-BFGS-B")
    if not (found.success and np.isfinite(found.x).all()):
        raise ValueError(f"the fit of a power law to {len(distances)} events did not end: {found.message}")
    return unit * math.exp(found.x[0]), math.exp(found.x[1])
