"""Many chains of conditional flows, each with weights of its own, evaluated together and without gradients."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pyrogen.flows.chain import ChainFlow
from pyrogen.flows.conditioner import Conditioner
from pyrogen.flows.coupling import check_inputs
from pyrogen.flows.multiplicity import MultiplicityFlow
from pyrogen.flows.networks import Networks, is_altered, plain_layers, without_gradients
from pyrogen.flows.numbers import NumberOfObjects, drawn, log_probabilities
from pyrogen.flows.parts import Part
from pyrogen.flows.shower import ShowerFlow


class PartNetworks:
    """K networks of a flow with parts, each of which is a :class:`~pyrogen.CouplingFlow`.

    Args:
        flow: a flow of ``kind`` for which :meth:`fits` is true; of its own weights none is used.
        weights: by the names of the flow's parameters, ``[K, *shape]``.
    """

    kind: ClassVar[type[ChainFlow] | type[MultiplicityFlow]]

    def __init__(self, flow: Any, weights: Mapping[str, Tensor]) -> None:
        self.flow: Any
        self.flow, self.weights = flow, weights
        self.count = len(next(iter(weights.values())))
        self._parts: dict[nn.Module, Networks] = {}
        for i, part in enumerate(flow.parts):
            start = f"parts.{i}.flow."
            own = {name.removeprefix(start): value for name, value in weights.items() if name.startswith(start)}
            self._parts[part] = Networks(part.flow, own)

    @classmethod
    def fits(cls, flow: Any, names: Iterable[str] | None = None) -> bool:
        """Whether a flow is made of pyrogen's own parts, as :meth:`Networks.fits` says."""
        if type(flow) is not cls.kind:
            return False
        parts: Iterable[Any] = flow.parts
        found = [name for name, _ in flow.named_parameters()] if names is None else list(names)
        known = cls.beside(flow)
        if known is None or any(map(is_altered, [flow, *parts])) or any(type(x) is not Part for x in parts):
            return False
        for i, part in enumerate(parts):
            start = f"parts.{i}.flow."
            its = [name.removeprefix(start) for name in found if name.startswith(start)]
            if not Networks.fits(part.flow, its):
                return False
            known |= {start + name for name in its}
        return known == set(found)

    @classmethod
    def beside(cls, flow: Any) -> set[str] | None:
        """Parameters of a flow that are not in its parts; None where they are not as this class knows them."""
        return set()

    def latent(self, n: int, like: Tensor) -> Tensor:
        """As ``_latent`` of the flow."""
        return self.flow._latent(n, like)


class ChainNetworks(PartNetworks):
    """K networks of the architecture of a :class:`~pyrogen.ChainFlow`, part by part."""

    kind = ChainFlow

    @without_gradients
    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log densities ``[K, N]`` of events ``x [N, d]`` with conditions ``context [N, k]``."""
        given = self.flow._given(x, check_inputs(x, context, self.flow.features, self.flow.context))
        return torch.stack([self._parts[part].log_prob(own, conditions) for part, own, conditions in given]).sum(0)

    @without_gradients
    def events(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Events ``[1, N, d]`` of latent values ``z [N, d]``, of the first network."""
        made = self.flow._filled(z, context, lambda part, values, given: self._parts[part].events(values, given)[0])
        return made.unsqueeze(0)


class ShowerNetworks:
    """K networks of the architecture of a :class:`~pyrogen.ShowerFlow`; arguments as :class:`PartNetworks`."""

    def __init__(self, flow: ShowerFlow, weights: Mapping[str, Tensor]) -> None:
        self.flow = flow
        self._chain = ChainNetworks(flow.chain, {name.removeprefix("chain."): w for name, w in weights.items()})
        self.latent = self._chain.latent

    @staticmethod
    def fits(flow: nn.Module, names: Iterable[str]) -> bool:
        """As :meth:`PartNetworks.fits`."""
        if type(flow) is not ShowerFlow or is_altered(flow):
            return False
        return ChainNetworks.fits(flow.chain, [name.removeprefix("chain.") for name in names])

    @without_gradients
    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log densities ``[K, N]`` of showers ``x [N, d]`` of incident energies ``context [N, 1]``."""
        u, log_jacobian, fits = self.flow._inner(x, context)
        return torch.where(fits, self._chain.log_prob(u, self.flow._seen(context)) + log_jacobian, -math.inf)

    @without_gradients
    def events(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Showers ``[1, N, d]`` of latent values ``z [N, d]``, of the first network."""
        context = check_inputs(z, context, self.flow.features, 1)
        return self.flow._outer(self._chain.events(z, self.flow._seen(context))[0], context).unsqueeze(0)


class MultiplicityNetworks(PartNetworks):
    """K networks of the architecture of a :class:`~pyrogen.MultiplicityFlow`, part by part."""

    kind = MultiplicityFlow

    @classmethod
    def beside(cls, flow: MultiplicityFlow) -> set[str] | None:
        if type(flow.number) is not NumberOfObjects:
            return None
        odds = flow.number.odds
        if type(odds) is Conditioner and not plain_layers(odds.layers):
            return None
        if any(map(is_altered, [flow.number, *flow.number.modules()])):
            return None
        return {f"number.{name}" for name, _ in flow.number.named_parameters()}

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


def together(flow: nn.Module, names: Iterable[str], weights: Mapping[str, Tensor]) -> Any:
    """K networks of a flow, with weights ``[K, *shape]``; None where they cannot be evaluated together."""
    names = list(names)
    for kind in (Networks, ChainNetworks, ShowerNetworks, MultiplicityNetworks):
        if kind.fits(flow, names):  # type: ignore[attr-defined]
            return kind(flow, weights)  # type: ignore[abstract, arg-type]
    return None
