"""Stochastic-gradient samplers: Langevin dynamics (SGLD) and Hamiltonian dynamics with friction (SGHMC)."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pyrogen.checks import POSITIVE, SHARE, check_settings, one_of, optional, require, whole
from pyrogen.inference.mcmc.contract import State
from pyrogen.inference.mcmc.judge import LARGEST_EXCESS, find_heat
from pyrogen.inference.mcmc.sampler import Sampler
from pyrogen.inference.mcmc.steps import normal
from pyrogen.inference.run.potential import Whitened
from pyrogen.posterior.info import Finding, History

REMEMBERED = 0.98  # decay of the running averages in the warm-up


@dataclass(frozen=True, kw_only=True)
class StochasticGradient(Sampler):
    """What SGLD and SGHMC share: mini-batches, the step size and its schedule, the preconditioner.

    Their draws are approximate in two ways, both vanishing with the step: the equations of motion are discretised, and
    the noise of the mini-batch gradient heats the chain. ``history["excess_temperature"]`` is an estimate of the sum,
    relative to the temperature wanted (0.1: variances 10 % too large), along the directions in which the gradient is
    noisy. There is no Metropolis test.

    Args:
        batch_size: events of each chain's mini-batch, drawn anew every step; None: all events, no gradient noise.
        step_size: in the units of a leapfrog step of :class:`~pyrogen.HMC`; None: chosen in the warm-up so that the
            excess temperature is ``tolerance``.
        tolerance: see ``step_size``.
        schedule: ``"constant"``, or ``"cyclical"`` (Zhang et al., arXiv:1902.03932): every cycle begins with large
            steps, which may find another mode, and goes on with falling ones, from which the draws are taken; several
            modes in one chain. Other than there, the large steps have their noise too: without it, weights that relax
            more slowly than a cycle lasts end with a fifth of their variance. ``step_size`` is that of the first draw.
        cycles: number of cycles, for ``"cyclical"``; they share the draws evenly, to one draw.
        exploration: fraction of every cycle that gives no draws.
        preconditioner: ``"none"``, or ``"rmsprop"`` (Li et al., arXiv:1512.07666): every weight's step in units of
            its gradient's root mean square. It is learned in the warm-up and fixed afterwards; so it needs no
            correction for its own changes, which pSGLD leaves out.
        temperature: T of the density exp(-U/T) that is sampled; 1 is the posterior, anything else a tempered one.
    """

    thinning: int = 20
    batch_size: int | None = 512
    step_size: float | None = None
    tolerance: float = 0.1
    schedule: str = "constant"
    cycles: int = 4
    exploration: float = 0.5
    preconditioner: str = "none"
    temperature: float = 1.0

    statistics: ClassVar[tuple[str, ...]] = ("step_size", "excess_temperature")
    exact: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(
            self,
            batch_size=optional(whole(2)),
            step_size=optional(POSITIVE),
            tolerance=POSITIVE,
            schedule=one_of("constant", "cyclical"),
            cycles=whole(1),
            exploration=SHARE,
            preconditioner=one_of("none", "rmsprop"),
            temperature=POSITIVE,
        )
        require(
            self.schedule == "constant" or self.cycles <= self.draws,
            "cycles",
            self.cycles,
            f"at most the number of draws, {self.draws}",
        )

    def begin(self, target: Whitened, position: Tensor, generator: torch.Generator) -> State:
        zeros = torch.zeros(len(position), dtype=position.dtype, device=position.device)
        state: State = {
            "position": position,
            "potential": zeros.double(),
            "gradient": torch.zeros_like(position),
            "step_size": zeros + (self.step_size or 0.0),
            "mean_square": torch.zeros_like(position),  # of the gradient
            "difference": torch.zeros_like(position),  # between the gradients of the last two half batches
            "noise": zeros.clone(),  # running averages of |difference|^2 and (difference . the one before)^2
            "noise_square": zeros.clone(),
            "count": zeros.clone(),
        }
        self._extend(state, generator)
        # The first step size comes from the gradient's noise where the chains start; a few batches give it a scale.
        for _ in range(20):
            self._measure(target, state, generator)
        self._take_step_size(target, state)
        self._gradient(target, state, generator)
        return state

    def phase(self, step: int, warmup_steps: int) -> str | None:
        if self._measures(step, warmup_steps):
            return "measure and move"
        return "move" if step < warmup_steps or self.schedule == "constant" else None

    @staticmethod
    def _measures(step: int, warmup_steps: int) -> bool:
        # Now and then is enough, and keeps the warm-up as cheap as the rest.
        return step < warmup_steps and step % 5 == 0

    def advance(
        self, target: Whitened, state: State, step: int, warmup_steps: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        if self._measures(step, warmup_steps):
            self._measure(target, state, generator)
            self._take_step_size(target, state)
        step_size = state["step_size"]
        for factor in [1.0] if step < warmup_steps else self._factors(step - warmup_steps):
            step_size = factor * state["step_size"]
            self._move(target, state, step_size, generator)
        return {"step_size": step_size, "excess_temperature": self._excess(target, state, step_size)}

    def _factors(self, step: int) -> list[float]:
        """Factors on the step size of the moves up to the next one that may give a draw."""
        if self.schedule == "constant":
            return [1.0]
        cycle = step // self.thinning * self.cycles // self.draws
        first, end = (-(-i * self.draws // self.cycles) * self.thinning for i in (cycle, cycle + 1))
        length = end - first  # moves of a cycle that may give draws
        explored = round(length * self.exploration / (1 - self.exploration))
        within = step - first
        moves = range(explored + length) if within == 0 else range(explored + within, explored + length)
        moves = moves[: explored + 1] if within == 0 else moves[:1]
        start = explored / (explored + length)

        def factor(move: int) -> float:
            r = move / (explored + length)
            return math.sqrt((1 + math.cos(math.pi * r)) / (1 + math.cos(math.pi * start)))

        return [factor(move) for move in moves]

    def findings(self, history: History) -> Sequence[Finding]:
        advice = "Try a smaller step_size (None chooses one), or a larger batch_size"
        return find_heat(history, max(LARGEST_EXCESS, 2 * self.tolerance), advice)

    def _rows(self, target: Whitened, chains: int, generator: torch.Generator, part: float = 1.0) -> Tensor | None:
        if self.batch_size is None or self.batch_size >= target.size:
            return None if part == 1.0 else target.batches(chains, max(1, round(part * target.size)), generator)
        return target.batches(chains, max(1, round(part * self.batch_size)), generator)

    def _gradient(self, target: Whitened, state: State, generator: torch.Generator) -> None:
        rows = self._rows(target, len(state["position"]), generator)
        state["potential"], state["gradient"] = target.value_and_gradient(state["position"], rows)

    def _root(self, state: State) -> Tensor:
        """Square root of the preconditioner, ``[C, P]``; 1 is the scale of the prior (or the guide)."""
        if self.preconditioner == "none":
            return torch.ones_like(state["position"])
        return (1 + state["mean_square"]) ** -0.25

    def _measure(self, target: Whitened, state: State, generator: torch.Generator) -> None:
        """Learn the noise of the gradient from two half batches.

        The difference d of two such gradients has covariance 4 V, with V that of the whole batch. Averages of |d|^2 =
        4 tr V and of the squared product of two independent ones, 16 tr V^2, give tr V^2 / tr V: the variance of the
        gradient along the directions in which it is noisy.
        """
        chains = len(state["position"])
        gradients = [
            target.value_and_gradient(state["position"], self._rows(target, chains, generator, 0.5))[1]
            for _ in range(2)
        ]
        mean = 0.5 * (gradients[0] + gradients[1])
        keep = torch.clamp(state["count"] / (state["count"] + 1), max=REMEMBERED)
        state["mean_square"] = keep[:, None] * state["mean_square"] + (1 - keep[:, None]) * mean.square()
        difference = self._root(state) * (gradients[0] - gradients[1])
        product = (difference * state["difference"]).sum(1).square()
        state["noise"] = keep * state["noise"] + (1 - keep) * difference.square().sum(1)
        keep_product = torch.clamp((state["count"] - 1).clamp(min=0) / state["count"].clamp(min=1), max=REMEMBERED)
        state["noise_square"] = keep_product * state["noise_square"] + (1 - keep_product) * product
        state["difference"] = difference
        state["count"] = state["count"] + 1

    def _noise_and_curvature(self, target: Whitened, state: State) -> tuple[Tensor, Tensor]:
        """Variance ``[C]`` of the batch's gradient along its noisy directions, and the curvature of U there.

        The curvature is that of the Fisher information: a batch of M of N events has V = (N/M) F.
        """
        batch = min(self.batch_size or target.size, target.size)
        tiny = torch.finfo(state["noise"].dtype).tiny
        own = state["noise_square"] / (4 * state["noise"]).clamp(min=tiny)
        # A chain's own few measurements scatter, and a step that is too large throws it out: it may take a smaller
        # step than the average over the chains asks for, but no larger one.
        variance = torch.maximum(own, state["noise_square"].mean() / (4 * state["noise"].mean()).clamp(min=tiny))
        curvature = 1 + variance * batch / target.size
        return (torch.zeros_like(variance) if batch == target.size else variance), curvature

    def _take_step_size(self, target: Whitened, state: State) -> None:
        if self.step_size is None:
            variance, curvature = self._noise_and_curvature(target, state)
            state["step_size"] = self._step_for(variance / self.temperature, curvature)

    @abstractmethod
    def _step_for(self, variance: Tensor, curvature: Tensor) -> Tensor:
        """The step size ``[C]`` whose excess temperature is the tolerance."""

    @abstractmethod
    def _excess(self, target: Whitened, state: State, step_size: Tensor) -> Tensor:
        """Estimate of the excess temperature ``[C]``, relative."""

    @abstractmethod
    def _extend(self, state: State, generator: torch.Generator) -> None:
        """Add what the kernel needs besides to its state."""

    @abstractmethod
    def _move(self, target: Whitened, state: State, step_size: Tensor, generator: torch.Generator) -> None:
        """One step in place."""


@dataclass(frozen=True, kw_only=True)
class SGLD(StochasticGradient):
    """Stochastic-gradient Langevin dynamics (Welling and Teh 2011) on mini-batches.

    ``theta <- theta - (eps^2 / 2) A grad U~ + eps sqrt(T A) xi``, with U~ the mini-batch estimate of U scaled to the
    whole sample, A the preconditioner and xi standard normal. For a Gaussian of curvature h the variance comes out
    ``1 / (1 - eps^2 A h / 4)`` times too large, plus ``eps^2 A V / 4`` for gradients of variance V.
    """

    def _extend(self, state: State, generator: torch.Generator) -> None:
        pass

    def _step_for(self, variance: Tensor, curvature: Tensor) -> Tensor:
        return 2 * (self.tolerance / (variance + curvature)).sqrt()

    def _excess(self, target: Whitened, state: State, step_size: Tensor) -> Tensor:
        variance, curvature = self._noise_and_curvature(target, state)
        return step_size.square() * (variance / self.temperature + curvature) / 4

    def _move(self, target: Whitened, state: State, step_size: Tensor, generator: torch.Generator) -> None:
        stride = step_size[:, None] * self._root(state)
        noise = math.sqrt(self.temperature) * normal(stride, generator)
        state["position"] = state["position"] - 0.5 * stride.square() * state["gradient"] + stride * noise
        self._gradient(target, state, generator)


@dataclass(frozen=True, kw_only=True)
class SGHMC(StochasticGradient):
    """Stochastic-gradient Hamiltonian Monte Carlo with friction (Chen et al., arXiv:1402.4102) on mini-batches.

    Langevin dynamics with momentum, ``dr = -grad U~ dt - gamma r dt + sqrt(2 gamma T) dW``, in the splitting BAOAB
    (Leimkuhler and Matthews 2013): half a kick, half a drift, the exact friction and noise, half a drift, half a kick.
    Without gradient noise its positions have exactly the right variance in a Gaussian, at any stable step. Gradients
    of variance V heat it by ``eps V / (2 gamma)``.

    Args:
        friction: gamma, in inverse units of the time in which an HMC trajectory of pi/2 decorrelates weights of unit
            width.
    """

    friction: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, friction=POSITIVE)

    def _extend(self, state: State, generator: torch.Generator) -> None:
        state["momentum"] = math.sqrt(self.temperature) * normal(state["position"], generator)

    def _step_for(self, variance: Tensor, curvature: Tensor) -> Tensor:
        # e v / (2 gamma) + e^2 h / 4 = tolerance
        linear = variance / (2 * self.friction)
        return 2 * self.tolerance / (linear + (linear.square() + self.tolerance * curvature).sqrt())

    def _excess(self, target: Whitened, state: State, step_size: Tensor) -> Tensor:
        variance, curvature = self._noise_and_curvature(target, state)
        return step_size * variance / (2 * self.friction * self.temperature) + step_size.square() * curvature / 4

    def _move(self, target: Whitened, state: State, step_size: Tensor, generator: torch.Generator) -> None:
        step = step_size[:, None]
        half = 0.5 * step * self._root(state)
        keep = torch.exp(-self.friction * step)
        momentum = state["momentum"] - half * state["gradient"]
        position = state["position"] + half * momentum
        momentum = keep * momentum + (self.temperature * (1 - keep.square())).sqrt() * normal(position, generator)
        state["position"] = position + half * momentum
        self._gradient(target, state, generator)
        state["momentum"] = momentum - half * state["gradient"]
