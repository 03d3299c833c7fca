"""AdamMCMC: proposals along the direction of Adam, with a Metropolis-Hastings test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pyrogen.checks import BETAS, FRACTION, NOT_NEGATIVE, POSITIVE, check_settings, optional, whole
from pyrogen.inference.mcmc.adaptation import DualAveraging
from pyrogen.inference.mcmc.contract import State
from pyrogen.inference.mcmc.judge import LARGEST_EXCESS, find_heat
from pyrogen.inference.mcmc.sampler import Sampler
from pyrogen.inference.mcmc.steps import metropolis, normal
from pyrogen.inference.run.potential import Whitened
from pyrogen.posterior.info import Finding, History


@dataclass(frozen=True, kw_only=True)
class AdamMCMC(Sampler):
    """Metropolis-Hastings with proposals along Adam's direction, after Bieringer et al., arXiv:2312.14027.

    From theta with gradient g, the moments m and v of the gradients seen so far and ``D = 1 / (sqrt(v) + 1e-8)``:

        d(theta) = D (beta1 m + (1 - beta1) g(theta))
        theta' ~ N(theta - (eps^2 / 2) d(theta), Sigma(theta)),  Sigma = eps^2 T D + (elongation eps^2 / 2)^2 T d d^T

    accepted with probability ``min(1, exp(-(U(theta') - U(theta)) / T) q(theta|theta') / q(theta'|theta))``, where both
    densities q are of exactly this form: the way back is scored with the gradient, direction and covariance *there*,
    and with the same m and v.

    On all events (``batch_size=None``) the draws follow the posterior exactly. That asks that m and v do not depend on
    the chain's past: they are learned in the first half of the warm-up; then v is fixed, and the momentum, whose mean
    is zero in equilibrium, is left out (beta1 = 0). On mini-batches the test compares estimates of U from one batch,
    and m and v go on: an approximation, whose noise acts like a temperature above T. ``info.exact`` says which.

    ``history["excess_temperature"]`` measures that heat, relative to T (1: variances twice too large). For any density
    exp(-U/T'), ``E sum_i s_i (theta_i - c_i) dU/dtheta_i = T' sum_i s_i`` (the virial theorem; "configurational
    temperature" in Wenzel et al., arXiv:2002.02405). The gradient is that of each step's own batch, which theta does
    not know; c is where the chain was at the end of the warm-up, and s the mean square gradient, so that weights count
    as the events decide them. Single records are noisy, means over a chain tell. Weights that a chain has not yet
    explored lower the mean.

    Args:
        batch_size: events of a mini-batch, or None for all.
        step_size: eps; None: adapted in the warm-up to ``target_acceptance``.
        target_acceptance: 0.574 is the best rate of Langevin proposals.
        betas: decay of the moments, as in Adam.
        elongation: width of the noise along d, in units of the step along d.
        temperature: T of the density exp(-U/T) that is sampled; 1 is the posterior. On mini-batches a T below one
            weighs against the noise of the test; nothing says which T is right.
    """

    thinning: int = 20
    batch_size: int | None = None
    step_size: float | None = None
    target_acceptance: float = 0.574
    betas: tuple[float, float] = (0.9, 0.999)
    elongation: float = 1.0
    temperature: float = 1.0

    statistics: ClassVar[tuple[str, ...]] = ("acceptance", "step_size", "excess_temperature")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(
            self,
            batch_size=optional(whole(1)),
            step_size=optional(POSITIVE),
            target_acceptance=FRACTION,
            betas=BETAS,
            elongation=NOT_NEGATIVE,
            temperature=POSITIVE,
        )

    @property
    def exact(self) -> bool:  # type: ignore[override]
        """Whether the draws follow the posterior exactly."""
        return self.batch_size is None and self.temperature == 1

    def begin(self, target: Whitened, position: Tensor, generator: torch.Generator) -> State:
        value, gradient = target.value_and_gradient(position)
        chains = len(position)
        zeros = torch.zeros(chains, dtype=position.dtype, device=position.device)
        state: State = {
            "position": position,
            "potential": value,
            "gradient": gradient,
            "first": torch.zeros_like(position),
            "second": torch.zeros_like(position),
            "count": zeros,
            "centre": position,
        }
        self._remember(state)
        # In units in which the preconditioned curvature of an informed weight is about one.
        size = (gradient.square() / (gradient.abs() + 1e-8)).mean(1).clamp(min=1e-3)
        self._averaging().start(state, size**-0.5 if self.step_size is None else zeros + self.step_size)
        return state

    def _averaging(self) -> DualAveraging:
        return DualAveraging(self.target_acceptance)

    def _remember(self, state: State) -> None:
        """Take the gradient where the chain is now into the moments."""
        beta1, beta2 = self.betas
        state["first"] = beta1 * state["first"] + (1 - beta1) * state["gradient"]
        state["second"] = beta2 * state["second"] + (1 - beta2) * state["gradient"].square()
        state["count"] = state["count"] + 1

    def take_up(self, state: State) -> None:
        state.setdefault("centre", state["position"])

    def phase(self, step: int, warmup_steps: int) -> str | None:
        half = warmup_steps // 2
        if step == warmup_steps or step + 1 in (half, warmup_steps):  # where something begins or ends
            return None
        return "learn" if step < half else "adapt" if step < warmup_steps else "sample"

    def advance(
        self, target: Whitened, state: State, step: int, warmup_steps: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        warming, stochastic = step < warmup_steps, self._stochastic(target)
        rows = None
        if stochastic:
            assert self.batch_size is not None
            rows = target.batches(len(state["position"]), self.batch_size, generator)
            state["potential"], state["gradient"] = target.value_and_gradient(state["position"], rows)
        if step == warmup_steps:
            state["centre"] = state["position"]
        excess = self._excess(state) if stochastic else torch.zeros_like(state["step_size"])
        live = stochastic or step < warmup_steps // 2
        step_size = state["step_size"].clone()
        here = _Proposal(self, state, state["gradient"], step_size, live)
        position = here.draw(state["position"], generator)
        value, gradient = target.value_and_gradient(position, rows)
        there = _Proposal(self, state, gradient, step_size, live)
        log_ratio = (
            (state["potential"] - value) / self.temperature
            + there.log_density(position, state["position"])
            - here.log_density(state["position"], position)
        )
        new = {"position": position, "potential": value, "gradient": gradient}
        acceptance, _ = metropolis(state, new, log_ratio, generator)
        if live:
            self._remember(state)
        acceptance = acceptance.to(step_size)
        if warming and self.step_size is None:
            averaging = self._averaging()
            averaging.update(state, acceptance)
            if step + 1 == warmup_steps // 2:
                averaging.start(state, state["step_log_mean"].exp())  # proposals without momentum need another step
            if step + 1 == warmup_steps:
                averaging.finish(state)
        return {"acceptance": acceptance, "step_size": step_size, "excess_temperature": excess}

    def _excess(self, state: State) -> Tensor:
        """One record ``[C]`` of the excess temperature, from a gradient that is not correlated with the position."""
        share = state["second"] / state["second"].sum(1, keepdim=True)
        virial = (share * (state["position"] - state["centre"]) * state["gradient"]).sum(1)
        return virial / self.temperature - 1

    def findings(self, history: History) -> Sequence[Finding]:
        advice = "Try a larger batch_size (None takes all events, and is exact), a smaller step_size, or SGHMC"
        return find_heat(history, LARGEST_EXCESS, advice)

    def _stochastic(self, target: Whitened) -> bool:
        return self.batch_size is not None and self.batch_size < target.size


class _Proposal:
    """The Gaussian ``q(. | theta)`` of every chain, for given moments and the gradient ``[C, P]`` at theta."""

    def __init__(self, settings: AdamMCMC, state: State, gradient: Tensor, step_size: Tensor, live: bool) -> None:
        beta1, beta2 = settings.betas if live else (0.0, settings.betas[1])
        count = state["count"][:, None]
        second = state["second"] / (1 - settings.betas[1] ** count)
        first = beta1 * state["first"] + (1 - beta1) * gradient
        first = first / (1 - beta1 ** (count + 1))
        root = (second.sqrt() + 1e-8) ** -0.5  # square root of D
        self.step = step_size[:, None]
        self.drift = -0.5 * self.step.square() * root.square() * first
        noise = math.sqrt(settings.temperature)
        self.width = self.step * root * noise
        # Sigma = width (1 + e e^T) width
        self.along = settings.elongation * noise * self.drift / self.width

    def draw(self, theta: Tensor, generator: torch.Generator) -> Tensor:
        """One proposal for every chain at ``theta [C, P]``."""
        noise = normal(theta, generator)
        along = torch.randn(len(theta), 1, generator=generator, dtype=theta.dtype, device=theta.device)
        return theta + self.drift + self.width * (noise + along * self.along)

    def log_density(self, theta: Tensor, proposal: Tensor) -> Tensor:
        """``log q(proposal | theta)`` ``[C]`` in float64, without the constants and the determinant of D, which are
        the same on the way there and back."""
        residual = ((proposal - theta - self.drift) / self.width).double()
        along = self.along.double()
        stretched = 1 + along.square().sum(1)
        square = residual.square().sum(1) - (residual * along).sum(1).square() / stretched
        return -0.5 * (square + stretched.log())
