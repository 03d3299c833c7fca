"""Local log densities of a Bayesian flow, compiled: fewer and larger operations, after minutes of compilation."""

from __future__ import annotations

import torch

from pyrogen.bayes.contract import given
from pyrogen.bayes.model import BayesianFlow
from pyrogen.seeds import untouched


def compile_local(model: BayesianFlow, *shape: int) -> str | None:
    """Compile the local log densities of batches of one size.

    Values and gradients are those of the code as it is, up to rounding; the noise has the same bits.

    Args:
        model: a prepared model.
        *shape: number of events ``N`` for ``model.local_log_prob``, or ``R, N`` for ``model.local_log_probs``.

    Returns:
        Why that is not possible here, the code then runs as it is; None where it was done.
    """
    obstacle = model.local_obstacle()
    if obstacle is not None:
        return obstacle
    local = model.locally()
    local.compile(*shape)
    try:
        with untouched(model.device), torch.enable_grad():
            theta = model.initial_theta.detach().expand(*shape[:-1], -1)
            weights = [theta.clone().requires_grad_(), torch.ones_like(theta).requires_grad_()]
            events = theta.new_zeros(*shape, model.features or 1)
            if len(shape) > 1:
                found = local.log_probs(weights[0], weights[1], events)
            else:
                context = theta.new_zeros(*shape, model.context) if model.context else None
                found = local.log_prob(weights[0], weights[1], events, *given(context))
            torch.autograd.grad(found.sum(), weights)
    except Exception as error:  # whatever a compiler, or its absence, raises
        local.interpret()
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None
