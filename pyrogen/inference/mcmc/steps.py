"""Steps that several kernels take: noise, and the test of Metropolis and Hastings."""

from __future__ import annotations

import torch
from torch import Tensor

from pyrogen.inference.mcmc.contract import State


def normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers of the shape and type of ``like``."""
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)


def metropolis(state: State, new: State, log_ratio: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The Metropolis-Hastings test: chains that pass it take what is ``new`` into their state.

    Args:
        state: tensors ``[C]`` or ``[C, P]`` by name; changed in place.
        new: what the chains have under some of these names at their proposals.
        log_ratio: logarithm of the ratio of the densities, proposals included, ``[C]``; NaN is a rejection.
        generator: draws the test.

    Returns:
        Acceptance probabilities ``[C]`` in float64, and which chains passed.
    """
    acceptance = torch.exp(log_ratio.nan_to_num(nan=-torch.inf).clamp(max=0))
    uniform = torch.rand(len(acceptance), generator=generator, dtype=torch.float64, device=acceptance.device)
    accepted = uniform < acceptance
    for name, values in new.items():
        state[name] = torch.where(accepted if values.ndim == 1 else accepted[:, None], values, state[name])
    return acceptance, accepted
