"""Many chains of conditional flows, each with weights of its own, evaluated together and without gradients."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from pyrogen.flows.conditioner import Conditioner
from pyrogen.flows.multiplicity import MultiplicityFlow, Part
from pyrogen.flows.networks import Networks, is_altered, plain_layers, without_gradients
from pyrogen.flows.numbers import NumberOfObjects, drawn, log_probabilities


class ChainNetworks:
    """K networks of the architecture of a :class:`~pyrogen.MultiplicityFlow`, part by part.

    Args:
        flow: a flow for which :meth:`fits` is true; of its own weights none is used.
        weights: by the names of the flow's parameters, ``[K, *shape]``.
    """

    def __init__(self, flow: MultiplicityFlow, weights: Mapping[str, Tensor]) -> None:
        self.flow, self.weights = flow, weights
        self.count = len(next(iter(weights.values())))
        self._parts: dict[nn.Module, Networks] = {}
        for i, part in enumerate(flow.parts):
            start = f"parts.{i}.flow."
            own = {name.removeprefix(start): value for name, value in weights.items() if name.startswith(start)}
            self._parts[part] = Networks(part.flow, own)  # type: ignore[arg-type]

    @staticmethod
    def fits(flow: nn.Module, names: Iterable[str] | None = None) -> bool:
        """Whether a flow is made of pyrogen's own parts, as :meth:`Networks.fits` says."""
        if type(flow) is not MultiplicityFlow or type(flow.number) is not NumberOfObjects:
            return False
        odds = flow.number.odds
        if type(odds) is Conditioner and not plain_layers(odds.layers):
            return False
        own = [flow, flow.number, *flow.number.modules(), *flow.parts]
        if any(map(is_altered, own)) or any(type(part) is not Part for part in flow.parts):
            return False
        found = [name for name, _ in flow.named_parameters()] if names is None else list(names)
        known = {f"number.{name}" for name, _ in flow.number.named_parameters()}
        for i, part in enumerate(flow.parts):
            start = f"parts.{i}.flow."
            its = [name.removeprefix(start) for name in found if name.startswith(start)]
            if not Networks.fits(part.flow, its):  # type: ignore[arg-type]
                return False
            known |= {start + name for name in its}
        return known == set(found)

    def latent(self, n: int, like: Tensor) -> Tensor:
        """As :meth:`MultiplicityFlow._latent`."""
        return self.flow._latent(n, like)

    @without_gradients
    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log densities ``[K, N]`` of events ``x [N, d]`` with conditions ``context [N, k]``."""
        flow, context = self.flow, self.flow._check(x, context)
        values, number, fits = flow._opened(x)
        case = (number - flow.least).clamp(min=0).expand(self.count, -1).unsqueeze(-1)
        total = self._log_probabilities(x, context).gather(-1, case).squeeze(-1)
        for part, rows in flow._with_rows(number):
            own, conditions = rows.take(values[..., part.columns]), part.conditions(rows, values, number, context)
            total = rows.add(total, self._parts[part].log_prob(own, conditions))
        return torch.where(fits, total, -math.inf)

    @without_gradients
    def events(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Events ``[1, N, d]`` of random numbers ``z [N, 1 + d]`` from :meth:`latent`, of the first network."""
        flow, context = self.flow, self.flow._check(z[..., 1:], context)
        number = flow.least + drawn(z[:, 0], self._log_probabilities(z, context)[0])
        made = flow._filled(z, number, context, lambda part, values, given: self._parts[part].events(values, given)[0])
        return made.unsqueeze(0)

    def _log_probabilities(self, x: Tensor, context: Tensor | None) -> Tensor:
        """log P of the numbers of objects of events ``x [N, ...]``, ``[K, N, numbers]``."""
        number = self.flow.number
        if number.odds is None:
            return x.new_zeros(self.count, len(x), 1)
        if context is None:
            log_odds = self.weights["number.odds.weight"].mT  # [K, 1, numbers - 1]
            return log_probabilities(log_odds + number.centre).expand(-1, len(x), -1)
        values = context.expand(self.count, -1, -1)
        for i, layer in enumerate(number.odds.layers):  # type: ignore[arg-type, union-attr]
            if isinstance(layer, nn.Linear):
                weight, bias = (self.weights[f"number.odds.layers.{i}.{name}"] for name in ("weight", "bias"))
                values = torch.baddbmm(bias.unsqueeze(1), values, weight.mT)
            else:
                values = layer(values)
        return log_probabilities(values + number.centre)


def together(flow: nn.Module, names: Iterable[str], weights: Mapping[str, Tensor]) -> Networks | ChainNetworks | None:
    """K networks of a flow, with weights ``[K, *shape]``; None where they cannot be evaluated together."""
    names = list(names)
    if Networks.fits(flow, names):
        return Networks(flow, weights)  # type: ignore[arg-type]
    return ChainNetworks(flow, weights) if ChainNetworks.fits(flow, names) else None  # type: ignore[arg-type]
