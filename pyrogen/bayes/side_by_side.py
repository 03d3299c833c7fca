"""Log densities of many weight vectors at once, and their first derivatives, without :func:`torch.func.vmap`."""

from __future__ import annotations

from torch import Tensor

from pyrogen.bayes.model import BayesianFlow
from pyrogen.flows import CouplingFlow
from pyrogen.flows.conditioner import Conditioner
from pyrogen.flows.fused import can_stand_side_by_side, first_derivatives


def stands_side_by_side(model: BayesianFlow) -> bool:
    """Whether all weights of the flow are in conditioners that :mod:`pyrogen.flows.fused` knows."""
    if not isinstance(model.flow, CouplingFlow):
        return False
    networks = [module for module in model.flow.modules() if type(module) is Conditioner]
    owned = sum(p.numel() for network in networks for p in network.parameters())
    return owned == model.weights and all(can_stand_side_by_side(network.layers) for network in networks)


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
