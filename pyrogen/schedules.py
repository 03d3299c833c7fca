"""Learning-rate schedules as functions of the training's progress: no state to save, the same bits after a resume."""

from __future__ import annotations

import math
from collections.abc import Callable


def _cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))


def _constant(progress: float) -> float:
    return 1.0


def _exponential(progress: float) -> float:
    return 1e-2**progress


#: Factor on the learning rates at a progress from 0 (first step) to 1 (last step).
SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": _cosine,
    "constant": _constant,
    "exponential": _exponential,
}


def learning_rate_factor(schedule: str, step: int, total: int, warmup: int) -> float:
    """Factor on the learning rates at ``step`` of ``total``: linear over ``warmup`` steps, then the schedule."""
    if step < warmup:
        return (step + 1) / warmup
    return SCHEDULES[schedule]((step - warmup) / max(total - warmup, 1))
