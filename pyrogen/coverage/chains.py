"""Chains that are long enough to be judged, and how many independent draws of a quantity they are worth."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pyrogen.posterior.posterior import Posterior
from pyrogen.signals import uninterrupted

Array = NDArray[np.float64]
TAILS = (0.05, 0.95)  # quantiles of which the tail ESS is the smaller one; ArviZ 1 has no default
FEWEST = 4  # draws per chain: two for each half


def import_arviz() -> Any:
    """ArviZ, imported where it is used, as that takes seconds, and without its announcement of its next version."""
    with warnings.catch_warnings(), uninterrupted():
        warnings.filterwarnings("ignore", message=r"\s*ArviZ is undergoing", category=FutureWarning)
        import arviz
    return arviz


def has_chains(posterior: Posterior) -> bool:
    """Whether a posterior stores chains that are long enough for :func:`~pyrogen.diagnostics.function_space`."""
    stored = posterior.weights.arrays.get("draws")
    return stored is not None and stored.shape[1] >= fewest_draws(stored)


def diagnose(values: Array) -> tuple[float, float, float]:
    """Rank-normalised split R-hat, bulk ESS and tail ESS of one quantity ``[chains, draws]``."""
    if np.ptp(values) == 0:
        return float("inf"), 0.0, 0.0  # ArviZ would count every repetition of a constant as an independent draw
    arviz = import_arviz()
    several = values
    if len(values) == 1:  # of which ArviZ makes no R-hat
        half = values.shape[1] // 2
        several = np.concatenate([values[:, :half], values[:, -half:]])
    return (
        float(arviz.rhat(several, method="rank")),
        float(arviz.ess(values, method="bulk")),
        float(arviz.ess(values, method="tail", prob=TAILS)),
    )


def fewest_draws(stored: Tensor) -> int:
    """The fewest draws per chain of stored ones ``[chains, draws, P]`` that can be judged."""
    return FEWEST if len(stored) > 1 else 2 * FEWEST
