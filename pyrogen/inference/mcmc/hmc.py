"""Hamiltonian Monte Carlo with all chains in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pyrogen.checks import FRACTION, POSITIVE, SHARE, check_settings, one_of, optional, whole
from pyrogen.inference.mcmc.adaptation import DualAveraging, mass_windows
from pyrogen.inference.mcmc.contract import State
from pyrogen.inference.mcmc.sampler import Sampler
from pyrogen.inference.mcmc.steps import metropolis, normal
from pyrogen.inference.run.potential import Whitened
from pyrogen.posterior.info import Finding, History

DIVERGENCE = 1000.0  # error of the energy above which a trajectory counts as divergent, as in Stan


@dataclass(frozen=True, kw_only=True)
class HMC(Sampler):
    """Hamiltonian Monte Carlo (Duane et al. 1987; Neal, arXiv:1206.1901) on the full data.

    Momenta ``p ~ N(0, M)``, then leapfrog steps of ``H = U(theta) + p^T M^-1 p / 2``, and a Metropolis test on the
    change of H: the draws follow the posterior exactly. In the warm-up every chain adapts its step size by dual
    averaging (Hoffman and Gelman, JMLR 2014, with constants for short windows) and its diagonal mass matrix in windows
    of growing length; afterwards both are fixed (``docs/sampling.md``). No chain learns from another: those of several
    samples in one batch stay independent. Trajectories last ``trajectory`` times a factor uniform in ``1 +- jitter``,
    the same number of steps for all chains.

    Args:
        trajectory: mean length of a trajectory, in units in which the mass matrix makes every weight's posterior
            width one; pi/2 would carry independent Gaussian weights to an independent draw.
        jitter: relative half-width of the trajectory's uniform factor, so that no orbit closes.
        target_acceptance: mean acceptance probability that the step size is adapted to.
        mass: ``"diagonal"`` or ``"unit"`` (the prior's or the guide's widths alone).
        step_size: initial step size; None: found by doubling and halving. It is adapted in the warm-up.
        max_steps: most leapfrog steps in a trajectory.
    """

    trajectory: float = 1.6
    jitter: float = 0.4
    target_acceptance: float = 0.8
    mass: str = "diagonal"
    step_size: float | None = None
    max_steps: int = 400

    statistics: ClassVar[tuple[str, ...]] = ("acceptance", "step_size", "energy", "diverging", "steps")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(
            self,
            trajectory=POSITIVE,
            jitter=SHARE,
            target_acceptance=FRACTION,
            mass=one_of("diagonal", "unit"),
            step_size=optional(POSITIVE),
            max_steps=whole(1),
        )

    def begin(self, target: Whitened, position: Tensor, generator: torch.Generator) -> State:
        value, gradient = target.value_and_gradient(position)
        chains = len(position)
        state: State = {
            "position": position,
            "potential": value,
            "gradient": gradient,
            "width": torch.ones_like(position),  # of the posterior: M = diag(1 / width^2)
            "mean": torch.zeros_like(position),  # of the window, and the sum of squares around it (Welford)
            "squares": torch.zeros_like(position),
            "count": torch.zeros(chains, dtype=position.dtype, device=position.device),
        }
        step = torch.full((chains,), self.step_size or 0.1, dtype=position.dtype, device=position.device)
        if self.step_size is None:
            step = self._reasonable_step(target, state, step, generator)
        self._averaging().start(state, step)
        return state

    def _averaging(self) -> DualAveraging:
        # With the constants of the paper (0.05 and 10) the log step of a single chain swings so widely that its average
        # over a window of 50 steps ends too low: 0.88 are accepted for a target of 0.8, and up to half of the
        # gradients are wasted. The initial step is one that works, so there is no need to be bold.
        return DualAveraging(self.target_acceptance, gamma=0.2, boldness=1.0)

    def advance(
        self, target: Whitened, state: State, step: int, warmup_steps: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        warming, windows = step < warmup_steps, mass_windows(warmup_steps)
        steps = self._steps(state, generator)
        if warming and step < windows[0]:
            steps = min(steps, 32)  # the way to the typical set does not need whole trajectories
        momentum = normal(state["position"], generator)
        step_size = state["step_size"].clone()
        position, value, gradient, momentum_end = self._leapfrog(target, state, momentum, step_size, steps)
        energy, energy_end = (
            u + 0.5 * p.double().square().sum(1) for u, p in ((state["potential"], momentum), (value, momentum_end))
        )
        change = (energy_end - energy).nan_to_num(nan=torch.inf)
        new = {"position": position, "potential": value, "gradient": gradient}
        acceptance, accepted = metropolis(state, new, -change, generator)
        acceptance = acceptance.to(step_size)
        if warming:
            self._adapt(state, acceptance, step, warmup_steps, windows)
        return {
            "acceptance": acceptance,
            "step_size": step_size,
            "energy": torch.where(accepted, energy_end, energy),
            "diverging": (change > DIVERGENCE).to(step_size),
            "steps": torch.full_like(step_size, steps),
        }

    def findings(self, history: History) -> Sequence[Finding]:
        if np.mean(history["steps"] >= self.max_steps) < 0.5:
            return []
        return [
            Finding(
                "trajectories cut short",
                f"most trajectories end after max_steps={self.max_steps} steps, before their length of "
                f"{self.trajectory}, and the chains take shorter ways than they should",
                "Try a larger max_steps, or a smoother flow, whose steps are longer",
            )
        ]

    def _steps(self, state: State, generator: torch.Generator) -> int:
        """Leapfrog steps of the next trajectory: random, but independent of where the chains are."""
        factor = 1 + self.jitter * (2 * float(torch.rand((), generator=generator, device=generator.device)) - 1)
        return min(self.max_steps, max(1, round(factor * self.trajectory / float(state["step_size"].median()))))

    @staticmethod
    def _leapfrog(
        target: Whitened, state: State, momentum: Tensor, step_size: Tensor, steps: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Leapfrog steps from the state; momenta are in units of ``1 / width``."""
        stride = step_size[:, None] * state["width"]
        position, value, gradient = state["position"], state["potential"], state["gradient"]
        momentum = momentum - 0.5 * stride * gradient
        kicks = stride.new_full((), 1.0), stride.new_full((), 0.5)  # made where the chains are

        def leap(position: Tensor, momentum: Tensor, stride: Tensor, kick: Tensor) -> tuple[Tensor, ...]:
            position = position + stride * momentum
            value, gradient = target.value_and_gradient(position)
            return position, value, gradient, momentum - kick * stride * gradient

        for i in range(steps):
            found = target.launch("leapfrog", leap, None, position, momentum, stride, kicks[i == steps - 1])
            position, value, gradient, momentum = found
        return position, value, gradient, momentum

    def _reasonable_step(self, target: Whitened, state: State, step: Tensor, generator: torch.Generator) -> Tensor:
        """Double or halve every chain's step until the acceptance of one leapfrog step crosses one half."""
        direction, going = torch.zeros_like(step), torch.ones_like(step, dtype=torch.bool)
        for _ in range(40):
            momentum = normal(state["position"], generator)
            _, value, _, end = self._leapfrog(target, state, momentum, step, 1)
            change = value - state["potential"] + 0.5 * (end.square() - momentum.square()).sum(1)
            side = torch.where(change.nan_to_num(nan=torch.inf) < 0.7, 1.0, -1.0).to(step)
            going = going & ((direction == 0) | (side == direction))
            if not going.any():
                break
            direction = torch.where(direction == 0, side, direction)
            step = torch.where(going, step * 2.0**direction, step)
        return step

    def _adapt(self, state: State, acceptance: Tensor, step: int, warmup_steps: int, windows: list[int]) -> None:
        averaging = self._averaging()
        averaging.update(state, acceptance)
        if self.mass == "diagonal" and windows[0] <= step < windows[-1]:
            state["count"] = state["count"] + 1
            offset = state["position"] - state["mean"]
            state["mean"] = state["mean"] + offset / state["count"][:, None]
            state["squares"] = state["squares"] + offset * (state["position"] - state["mean"])
            if step + 1 in windows[1:]:
                self._take_widths(state)
                averaging.start(state, state["step_log_mean"].exp())
        if step + 1 == warmup_steps:
            averaging.finish(state)

    @staticmethod
    def _take_widths(state: State) -> None:
        """Widths from the positions of the window, their squares drawn a little towards 1e-3, as Stan does."""
        n = state["count"][:, None]
        state["width"] = ((n * state["squares"] / (n - 1) + 5 * 1e-3) / (n + 5)).sqrt()
        for name in ("mean", "squares", "count"):
            state[name] = torch.zeros_like(state[name])
