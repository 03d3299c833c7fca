"""The observed site of a Bayesian flow: the distribution of the events for given weights, and weights of events."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from pyro.distributions import constraints
from pyro.distributions.torch_distribution import TorchDistribution
from pyro.poutine.messenger import Messenger
from torch import Tensor


class _Model(Protocol):
    """What the distribution asks of a :class:`~pyrogen.BayesianFlow`."""

    @property
    def features(self) -> int | None: ...

    def log_prob(self, theta: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor: ...

    def local_log_prob(self, mean: Tensor, scale: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor: ...

    def sample_events(self, theta: Tensor, n: int, context: Tensor | None = None) -> Tensor: ...

    def local_obstacle(self) -> str | None: ...


class FlowDistribution(TorchDistribution):
    """The events' distribution for given weights: what the observed site of :class:`BayesianFlow` samples from.

    Args:
        model: the Bayesian flow.
        theta: one weight vector ``[P]``.
        n: number of events in the batch.
        context: conditions ``[n, k]``.
        posterior: ``(mean [P], scale [P])`` of independent Gaussian weights; the log density is then computed with
            local reparameterization, in place of the fixed ``theta``.
    """

    arg_constraints: dict[str, Any] = {}
    support = constraints.real_vector

    def __init__(
        self,
        model: _Model,
        theta: Tensor,
        n: int,
        context: Tensor | None = None,
        posterior: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.model, self.theta, self.context, self.posterior = model, theta, context, posterior
        super().__init__(torch.Size((n,)), torch.Size((model.features or 1,)), validate_args=False)

    def localized(self, mean: Tensor, scale: Tensor) -> FlowDistribution:
        """The same, for weights ~ N(mean, scale^2) by local reparameterization."""
        return FlowDistribution(self.model, self.theta, self.batch_shape[0], self.context, (mean, scale))

    def expand(self, batch_shape: Any, _instance: Any = None) -> FlowDistribution:
        if tuple(batch_shape) != tuple(self.batch_shape):
            raise ValueError(
                f"cannot expand a batch of {self.batch_shape[0]} events to {list(batch_shape)}; "
                "vectorized particles and chains are not supported: run them one after another"
            )
        return self

    def log_prob(self, value: Tensor) -> Tensor:
        if self.posterior is not None:
            return self.model.local_log_prob(*self.posterior, value, self.context)
        return self.model.log_prob(self.theta, value, self.context)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        if sample_shape:
            raise ValueError(f"one set of {self.batch_shape[0]} events at a time; got sample_shape {sample_shape}")
        with torch.no_grad():
            return self.model.sample_events(self.theta, self.batch_shape[0], self.context)


class EventWeights(Messenger):
    """Multiplies each event's log-likelihood by its weight; Pyro's own ``poutine.scale`` refuses signs and zeros."""

    def __init__(self, weights: Tensor | None) -> None:
        super().__init__()
        self.weights = weights

    def _pyro_sample(self, msg: Any) -> None:
        if self.weights is not None:
            msg["scale"] = msg["scale"] * self.weights
