"""The draws of any posterior as chains, in blocks of bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrogen.checks import whole_number
from pyrogen.posterior.posterior import Posterior
from pyrogen.posterior.weights import StoredDraws

# Largest number of weights held, in the parts of the draws that are evaluated. Parts of random streams too, so the
# same on every device.
WEIGHTS_AT_ONCE = 1 << 22
Rows = NDArray[np.int64]


def as_chains(posterior: Posterior, draws: int | None = None, seed: int = 0) -> Posterior:
    """A posterior with stored draws: itself, or one chain of independent draws of a distribution over the weights.

    The networks of an ensemble are no chains either: they become the draws of one.

    Args:
        posterior: any posterior.
        draws: how many draws of a distribution; None: 50.
        seed: seeds them.
    """
    weights = posterior.weights
    if weights.stored is None:
        stored = torch.stack(list(weights.draws(weights.count(draws), seed)))[None]
    elif weights.arrays["draws"].shape[1] == 1:
        stored = weights.arrays["draws"].transpose(0, 1)
    else:
        return posterior
    return _over(posterior, stored)


def spaced_rows(length: int, draws: int | None) -> Rows:
    """``draws`` evenly spaced ones of ``length`` draws; None: all.

    Raises:
        ValueError: more than there are.
    """
    draws = length if draws is None else whole_number("draws", draws, 1)
    if draws > length:
        raise ValueError(f"draws is {draws}, but the posterior holds {length} draws per chain")
    return np.linspace(0, length - 1, draws).round().astype(np.int64)


def blocks(posterior: Posterior, rows: Rows) -> Iterator[tuple[int, Posterior]]:
    """Parts of a posterior with stored draws ``[chains, draws, P]``, of few draws each.

    Yields:
        The place in ``rows`` of the part's first draw, and a posterior over these draws of all chains alone: it
        evaluates them all, in the order of chains and draws.
    """
    stored = posterior.weights.arrays["draws"]
    step = max(1, WEIGHTS_AT_ONCE // (len(stored) * stored.shape[2]))
    for start in range(0, len(rows), step):
        part = stored[:, torch.from_numpy(rows[start : start + step])]
        yield start, _over(posterior, part)


def _over(posterior: Posterior, draws: Tensor) -> Posterior:
    """The posterior over these draws ``[chains, draws, P]`` of it alone."""
    return Posterior(
        posterior.model, StoredDraws(draws), posterior.history, posterior.info, progress=posterior.progress
    )
