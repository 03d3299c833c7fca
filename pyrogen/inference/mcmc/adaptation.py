"""How kernels adapt themselves in the warm-up: step sizes by dual averaging, and the windows of a mass matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pyrogen.inference.mcmc.contract import State


@dataclass
class DualAveraging:
    """Adapts a log step size per chain so that the mean acceptance meets a target (Hoffman and Gelman, JMLR 2014).

    Its tensors ``[C]`` live in a kernel's state under ``step_...``, so that checkpoints hold them.

    Attributes:
        target: mean acceptance probability to meet.
        gamma: how firmly the log step is held: a single acceptance probability moves it by about ``1 / gamma`` times
            its error over the square root of the number of steps.
        delay: how much the first steps count.
        decay: how fast the average forgets the first steps.
        boldness: factor by which the first steps are drawn upwards.
    """

    target: float
    gamma: float = 0.05
    delay: float = 10.0
    decay: float = 0.75
    boldness: float = 3.0

    def start(self, state: State, step_size: Tensor) -> None:
        """Begin anew around ``step_size [C]``."""
        log_step = step_size.log()
        state["step_size"] = step_size.clone()
        state["step_centre"] = log_step + math.log(self.boldness)
        state["step_error"], state["step_log_mean"] = torch.zeros_like(log_step), log_step.clone()
        state["step_count"] = torch.zeros_like(log_step)

    def update(self, state: State, acceptance: Tensor) -> None:
        """Learn from the acceptance probabilities ``[C]`` of one step."""
        state["step_count"] = count = state["step_count"] + 1
        weight = 1 / (count + self.delay)
        state["step_error"] = (1 - weight) * state["step_error"] + weight * (self.target - acceptance)
        log_step = state["step_centre"] - count.sqrt() / self.gamma * state["step_error"]
        forget = count**-self.decay
        state["step_log_mean"] = forget * log_step + (1 - forget) * state["step_log_mean"]
        state["step_size"] = log_step.exp()

    def finish(self, state: State) -> None:
        """Fix the step size at its average."""
        state["step_size"] = state["step_log_mean"].exp()


def mass_windows(warmup: int) -> list[int]:
    """Steps at which the windows of the mass matrix begin and end: each twice as long as the one before.

    Before the first, a sixth of the warm-up finds the typical set; after the last, a tenth, or where that is less 50
    steps or a third, settles the step size for the final widths.
    """
    first, last = warmup // 6, warmup - max(warmup // 10, min(50, warmup // 3))
    ends, length = [first], 25
    while last - ends[-1] >= 3 * length:  # room for this window and the next, twice as long
        ends.append(ends[-1] + length)
        length *= 2
    if last - first >= 10:
        ends.append(last)
    return ends
