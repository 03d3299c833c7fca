"""The probabilities of the number of objects of an event."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyrogen.flows.conditioner import Conditioner
from pyrogen.flows.fused import is_fused


class NumberOfObjects(nn.Module):
    """P(n) of K numbers of objects, one after another: P(n = a), P(n = a + 1 | n > a), and so on.

    Each of these K - 1 probabilities is the logistic function of a log-odds. The likelihood is a product of binomial
    ones, so the log-odds are independent of each other in the posterior, as mean field assumes. Without conditions
    they are K - 1 weights themselves, counted from those of the training events (:meth:`centre_on`).

    Args:
        count: K.
        context: number of conditions.
        hidden: units of the hidden layers of a network from the conditions to the log-odds.
        activation: a name in :data:`~pyrogen.flows.conditioner.ACTIVATIONS`.
    """

    centre: Tensor

    def __init__(self, count: int, context: int, hidden: Sequence[int], activation: str) -> None:
        super().__init__()
        self.count = count
        self.register_buffer("centre", torch.zeros(count - 1))
        self.odds: nn.Module | None = None
        if count > 1:
            # Of a constant 1, and without a bias: no weight is redundant, and all weights are those of linear layers.
            linear = nn.Linear(1, count - 1, bias=False)
            self.odds = Conditioner(context, hidden, count - 1, activation) if context else linear
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start at the log-odds of the events again, where a plain layer would start at random."""
        if isinstance(self.odds, nn.Linear):
            nn.init.zeros_(self.odds.weight)

    def log_odds(self, like: Tensor, context: Tensor | None) -> Tensor:
        """Log-odds ``[..., K - 1]`` of events whose shape ``[...]`` and type are those of ``like``."""
        if self.odds is None:
            return like.new_zeros(*like.shape, 0)
        if context is not None:
            return self.odds(context) + self.centre
        if is_fused():  # weights [C, K - 1, 1] of C networks
            weight: Tensor = self.odds.weight  # type: ignore[assignment]
            return (weight.mT + self.centre).expand(*like.shape, self.count - 1)
        return self.odds(like.new_ones(*like.shape, 1)) + self.centre

    @torch.no_grad()
    def centre_on(self, sums: Tensor) -> None:
        """Count the log-odds from those of events: there a training starts, and there the prior has its centre.

        A learning rate that suits networks would take thousands of steps to the log-odds of rare numbers.

        Args:
            sums: events (or sums of their weights) with each of the K numbers, ``[K]``; negative sums count as 0.
        """
        sums = sums.double().clamp(min=0)
        further = sums.flip(0).cumsum(0).flip(0)[1:]
        smallest = 0.5 * sums.sum().clamp(max=1.0)  # half an event: log-odds stay finite
        self.centre.copy_((sums[:-1] + smallest).log() - (further + smallest).log())

    def log_probabilities(self, like: Tensor, context: Tensor | None = None) -> Tensor:
        """log P(n) ``[..., K]`` of the numbers, from the smallest on; arguments as in :meth:`log_odds`."""
        return log_probabilities(self.log_odds(like, context))

    def extra_repr(self) -> str:
        return f"{self.count} numbers"


def log_probabilities(log_odds: Tensor) -> Tensor:
    """log P ``[..., K]`` of K cases from the log-odds ``[..., K - 1]`` of each one against all that follow."""
    none = log_odds.new_zeros(*log_odds.shape[:-1], 1)
    here, further = F.logsigmoid(log_odds), F.logsigmoid(-log_odds)
    return torch.cat([here, none], -1) + torch.cat([none, further.cumsum(-1)], -1)


def drawn(uniform: Tensor, log_probabilities: Tensor) -> Tensor:
    """The case ``[...]`` that each number ``uniform [...]`` of [0, 1) falls to, for log P ``[..., K]``."""
    upper = log_probabilities.exp().cumsum(-1)[..., :-1]
    return (uniform.unsqueeze(-1) >= upper).sum(-1)
