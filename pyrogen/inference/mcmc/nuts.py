"""The No-U-Turn sampler of Pyro on the packed weights: the reference for the kernels written here."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pyro
import torch
from pyro import poutine
from torch import Tensor

from pyrogen.bayes.model import THETA
from pyrogen.checks import FRACTION, check_settings, one_of, whole
from pyrogen.inference.mcmc.chains import SamplingRun
from pyrogen.inference.mcmc.contract import State
from pyrogen.inference.mcmc.sampler import Sampler
from pyrogen.inference.run.draw_store import ChainStore, DrawStore
from pyrogen.inference.run.potential import Whitened
from pyrogen.inference.run.stopping import SafePoints
from pyrogen.posterior.info import Finding, History
from pyrogen.posterior.posterior import Posterior
from pyrogen.progress import Bar
from pyrogen.seeds import seeded, stream

MOST_CUT = 0.05  # of a chain's trajectories, before a warning


class _Energy(torch.autograd.Function):
    """``U`` of one chain with the gradient that the potential worked out in chunks of bounded memory."""

    @staticmethod
    def forward(ctx: Any, position: Tensor, target: Whitened) -> Tensor:
        with torch.enable_grad():
            value, gradient = target.value_and_gradient(position.detach().to(target.scale)[None])
        ctx.save_for_backward(gradient[0].to(position))
        return value[0].to(position)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return grad_outputs[0] * gradient, None


class _Kernel(pyro.infer.NUTS):
    """Pyro's kernel, which takes every step as it always does, and notes the leaves of each trajectory's tree."""

    #: Energy before the transition, and of every leaf its potential, energy, acceptance, and whether it diverged.
    energy: Tensor
    leaves: list[tuple[Tensor, Tensor, Tensor, Tensor]]

    def sample(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        self.leaves = []
        return super().sample(params)

    def _build_basetree(
        self, z: Any, r: Any, z_grads: Any, log_slice: Tensor, direction: int, energy_current: Tensor
    ) -> Any:
        leaf = super()._build_basetree(z, r, z_grads, log_slice, direction, energy_current)
        # With multinomial sampling a leaf's weight is minus its energy above that of the start.
        energy = energy_current - leaf.weight
        self.energy = energy_current
        self.leaves.append((leaf.z_proposal_pe, energy, leaf.sum_accept_probs, leaf.diverging))
        return leaf

    @property
    def potential(self) -> Tensor:
        """U where the chain is now, in float64."""
        potential: Any = self._potential_energy_last
        return potential

    def told(self, step_size: float) -> dict[str, Tensor]:
        """Statistics ``[1]`` of the last transition, which was made with ``step_size``."""
        _, _, acceptances, diverging = zip(*self.leaves, strict=True)
        # The new state is one of the leaves, or the old one, where no subtree was accepted.
        energies = [energy for potential, energy, _, _ in self.leaves if potential is self.potential]
        row = {
            "acceptance": torch.stack(acceptances).mean(),
            "step_size": torch.tensor(step_size),
            "energy": energies[0] if energies else self.energy,
            "diverging": torch.stack(diverging).any(),
            "steps": torch.tensor(len(self.leaves)),
            "cut": torch.tensor(len(self.leaves) >= 2**self._max_tree_depth - 1),
        }
        return {name: value.double()[None] for name, value in row.items()}


@dataclass
class NutsRun(SamplingRun):
    """Chains one after another, each with a kernel of its own that lives as long as the chain."""

    chain: int = 0
    _kernel: _Kernel | None = None
    _position: Tensor | None = None  # where the kernel left the chain

    draw_store = ChainStore

    @property
    def draws_done(self) -> int:
        """Draws of all chains that are finished."""
        return len(self.statistics.get("potential", [])) * self.kernel.draws

    def sample_chains(self) -> Tensor:
        """All transitions of one chain after another, from the first that the checkpoint does not hold."""
        chains = self.kernel.chains
        store, starts = self._resume()
        finished = len(self.statistics.get("potential", []))
        before, self.done = time.monotonic() - self.seconds, 0
        # Finished chains are saved already, and of an unfinished one nothing can be.
        with self.bar(chains, finished) as shown, SafePoints(lambda: None) as self._safe_point:
            for chain in range(finished, chains):
                gradients = self.potential.gradients
                rows = self._sample_chain(
                    chain, {name: values[[chain]] for name, values in starts.items()}, store, shown
                )
                for name, values in rows.items():
                    self.statistics.setdefault(name, []).append(values)
                # They are counted in units of one for every chain, and these served one chain.
                self.potential.gradients = gradients + (self.potential.gradients - gradients) / chains
                self.seconds = time.monotonic() - before
                self._save(store, starts)
        self.statistics = {name: list(map(list, zip(*rows, strict=True))) for name, rows in self.statistics.items()}
        return store.draws

    def _sample_chain(self, chain: int, state: State, store: DrawStore, shown: Bar[Any]) -> dict[str, list[float]]:
        """All transitions of one chain; their statistics."""
        self.chain, self.done, self._kernel = chain, 0, None
        rows: dict[str, list[float]] = {}
        while self.done < self.total:
            row = self.transition(state)
            for name, values in row.items():
                rows.setdefault(name, []).append(values.item())
            if self.done >= self.kernel.warmup:
                store.append(self.target.theta(state["position"])[0])
            self.done += 1
            shown.update()
            shown.set_postfix_str(f"chain {chain}, {self._progress(row)}", refresh=False)
            self._safe_point()
        return rows

    def advance(self, state: State, step: int, warmup_steps: int) -> dict[str, Tensor]:
        seed = stream(self.kernel.seed, 2, self.chain + 1, step + 1)
        # Pyro takes its random numbers from the global state, and would tell handlers around us of every one of them.
        with seeded(seed, self.model.device), poutine.block():
            # In float64 the energies of a trajectory, and so its acceptance, are not those of rounding errors.
            position = {THETA: state["position"][0].double()}
            if self._kernel is None:
                self._kernel = self._new_kernel(position, warmup_steps)
            elif state["position"] is not self._position:
                self._kernel.clear_cache()  # the chain was moved from outside
            step_size = self._kernel.step_size
            position = self._kernel.sample(position)
        state["position"] = self._position = position[THETA].to(state["position"])[None]
        state["potential"] = self._kernel.potential[None]
        return self._kernel.told(step_size)

    def _new_kernel(self, position: dict[str, Tensor], warmup_steps: int) -> _Kernel:
        sampler = self.kernel
        assert isinstance(sampler, NUTS)
        kernel = _Kernel(
            potential_fn=lambda params: _Energy.apply(params[THETA], self.target),
            adapt_mass_matrix=sampler.mass != "unit",
            full_mass=sampler.mass == "dense",
            target_accept_prob=sampler.target_acceptance,
            max_tree_depth=sampler.max_tree_depth,
        )
        kernel.initial_params = {name: values.clone() for name, values in position.items()}
        kernel.setup(warmup_steps)
        return kernel

    def posterior(self, draws: Tensor, history: dict[str, np.ndarray]) -> Posterior:
        posterior = super().posterior(draws, history)
        posterior.info = replace(posterior.info, batching="Pyro's kernel knows one chain: one after another")
        return posterior


@dataclass(frozen=True, kw_only=True)
class NUTS(Sampler):
    """The No-U-Turn sampler (Hoffman and Gelman, JMLR 15, 2014) of Pyro itself: the reference for :class:`HMC`.

    Pyro's kernel :class:`pyro.infer.NUTS` samples the packed weights in the coordinates of the other samplers, with
    its own adaptation of step size and mass matrix in the warm-up. Each of its steps doubles a trajectory until it
    turns back, and draws from it by multinomial sampling (Betancourt, arXiv:1701.02434).

    It knows a single chain: chains run one after another, and each gradient serves one of them, where the samplers
    written here share it among all. Nor can its state be written to a file. A checkpoint therefore holds finished
    chains, and a run that was killed repeats its unfinished chain from the start. As every chain has random numbers
    of its own, it ends with the same bits; ``checkpoint_seconds`` has no meaning here.

    Args:
        target_acceptance: mean acceptance probability of a trajectory's points that the step size is adapted to.
        max_tree_depth: a trajectory has at most ``2^max_tree_depth - 1`` steps.
        mass: ``"diagonal"``, ``"dense"`` (which needs ``P^2`` numbers) or ``"unit"`` (the prior's or the guide's widths
            alone).

    Of its history, ``"steps"`` counts the leapfrog steps, each of them one gradient; ``"cut"`` is 1 for a trajectory
    that was cut at ``max_tree_depth`` before it turned back; ``"energy"`` is that of the draw
    with its momentum; ``"step_size"`` that of the transition. ``info.gradients`` counts, as for the other samplers,
    gradients per chain, the search for a first step size included.
    """

    target_acceptance: float = 0.8
    max_tree_depth: int = 10
    mass: str = "diagonal"

    statistics: ClassVar[tuple[str, ...]] = ("acceptance", "step_size", "energy", "diverging", "steps", "cut")
    loop: ClassVar[type[SamplingRun]] = NutsRun

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(
            self, target_acceptance=FRACTION, max_tree_depth=whole(1), mass=one_of("diagonal", "dense", "unit")
        )

    def findings(self, history: History) -> Sequence[Finding]:
        cut = history["cut"]
        shares = np.array([np.mean(chain[np.isfinite(chain)] > 0) if np.isfinite(chain).any() else 0 for chain in cut])
        if (shares <= MOST_CUT).all():
            return []
        return [
            Finding(
                "trajectories cut short",
                f"{', '.join(f'{share:.0%}' for share in shares)} of the trajectories of each chain reach "
                f"max_tree_depth={self.max_tree_depth} ({2**self.max_tree_depth - 1} steps) before they turn back: "
                "neighbouring draws are more correlated than they should be",
                "Try a larger max_tree_depth, a longer warmup, or a smoother flow, whose steps are longer",
            )
        ]

    def begin(self, target: Whitened, position: Tensor, generator: torch.Generator) -> State:
        return {"position": position, "potential": target.value(position)}

    def advance(
        self, target: Whitened, state: State, step: int, warmup_steps: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        raise NotImplementedError("a step of NUTS needs the live kernel of its chain: NutsRun.advance makes it")
