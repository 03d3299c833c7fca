"""Log densities of many weight vectors at once, and their first derivatives, without :func:`torch.func.vmap`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyrogen.bayes.model import BayesianFlow
from pyrogen.flows import is_own
from pyrogen.flows.conditioner import Conditioner
from pyrogen.flows.fused import can_stand_side_by_side, first_derivatives
from pyrogen.flows.numbers import NumberOfObjects


def stands_side_by_side(model: BayesianFlow, events: Tensor, context: Tensor | None = None) -> bool:
    """Whether networks can be evaluated side by side, and agree there with single ones.

    All weights must be in conditioners that :mod:`pyrogen.flows.fused` knows, and the transforms must see C networks
    as they see more events, which those of users might not.

    Args:
        model: the model.
        events: some events ``[M, d]``, or ``[2, M, d]`` for two networks.
        context: their conditions, likewise.
    """
    if not is_own(model.flow):
        return False
    networks = [module for module in model.flow.modules() if type(module) is Conditioner]
    free = [module.odds for module in model.flow.modules() if type(module) is NumberOfObjects]
    owned = sum(p.numel() for network in networks for p in network.parameters())
    owned += sum(each.weight.numel() for each in free if type(each) is nn.Linear)
    if owned != model.weights or not all(can_stand_side_by_side(network.layers) for network in networks):
        return False
    theta = model.initial_theta * torch.tensor([[1.0], [0.5]]).to(model.initial_theta)
    own = 0 if events.ndim == 3 else None
    try:
        with torch.no_grad():
            single = torch.func.vmap(model.log_prob, (0, own, None if context is None else own))(theta, events, context)
            found = log_prob_side_by_side(model, theta, events, context)
    except Exception:  # whatever a transform does with values of one more dimension
        return False
    return torch.allclose(found, single, rtol=1e-3, atol=1e-3, equal_nan=True)


def log_prob_side_by_side(model: BayesianFlow, theta: Tensor, events: Tensor, context: Tensor | None = None) -> Tensor:
    """Log densities ``[C, M]``, once differentiable, of a model that :func:`stands_side_by_side`.

    Args:
        model: the model.
        theta: weights of C networks ``[C, P]``.
        events: ``[M, d]`` for all of them, or ``[C, M, d]``.
        context: conditions, likewise.
    """

    def every(values: Tensor) -> Tensor:
        return values if values.ndim == 3 else values.expand(len(theta), *values.shape)

    inner, log_jacobian = model._inner(events)
    conditions = [every(values) for values in model._conditions(context)]
    with first_derivatives():
        log_density = model.packing.call_side_by_side(theta, "log_prob", every(inner), *conditions)
    return log_density + log_jacobian
