"""What all sampled backends share: their settings, and how a step size adapts itself."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrogen.bayes.model import BayesianFlow
from pyrogen.checks import positive, require, whole_number
from pyrogen.files import check_writable
from pyrogen.inference.mcmc.chains import SamplingRun, State, draws_path
from pyrogen.inference.mcmc.many import sample_many
from pyrogen.inference.mcmc.pyro_kernel import PyroKernel
from pyrogen.inference.run.potential import Whitened
from pyrogen.inference.runs import check_dtype, describe, prepare
from pyrogen.posterior.posterior import Posterior

STARTS = ("initial", "prior", "map")


@dataclass(frozen=True, kw_only=True)
class Sampler(ABC):
    """Settings that all sampled backends share.

    A *transition* is ``thinning`` steps of the kernel; after ``warmup`` transitions every one gives a draw of every
    chain. Chains are a batch dimension: one gradient evaluation serves all.

    Args:
        chains: number of chains C, independent of each other.
        warmup: transitions before the first draw is kept, in which the kernel adapts itself.
        draws: draws kept per chain.
        thinning: kernel steps per transition.
        start: where the chains start: ``"map"``: ``start_steps`` steps of Adam on U from independent initialisations
            of the network's layers; ``"initial"``: those initialisations; ``"prior"``: draws of the prior; or a
            trained :class:`~pyrogen.Posterior`: draws of it. From one guide the chains all start in
            one mode: their agreement says nothing about others.
        start_steps: steps of Adam for ``"map"``.
        dispersion: factor on the widths of a variational posterior to start from; of a sampled one the chains start
            at draws of its own.
        whiten: sample in coordinates in units of the start posterior's widths instead of the prior's; needs a
            mean-field posterior as ``start``.
        seed: seeds starting points and all noise; the global random state is left alone.
        dtype: ``torch.float32``, ``torch.float64``, or None for the flow's own.
        device: a torch device.
        compile: compile the gradient with :func:`torch.compile`: half a minute to several, and about half the time per
            gradient; the bits then differ a little.
        checkpoint: HDF5 file with the state of the run; the draws are streamed to a second one beside it,
            ``NAME.draws.h5``, which the returned posterior keeps reading: draws are never all in memory. If the files
            exist the run goes on from them, to the same bits as an uninterrupted one.
        checkpoint_seconds: time between two checkpoints, which are made after whole transitions. A killed run loses
            what came after the last one; the way to the starting points is not saved.
        progress: show a progress bar.

    Raises:
        ValueError: an argument out of range.
    """

    chains: int = 4
    warmup: int = 500
    draws: int = 500
    thinning: int = 1
    start: str | Posterior = "map"
    start_steps: int = 500
    dispersion: float = 1.5
    whiten: bool = False
    seed: int = 0
    dtype: torch.dtype | None = None
    device: str = "cpu"
    compile: bool = False
    checkpoint: Any = None
    checkpoint_seconds: float = 30.0
    progress: bool = True

    #: Names of what each step tells of every chain, besides ``potential``.
    statistics: ClassVar[tuple[str, ...]] = ()
    #: Whether the draws follow the posterior exactly, given time; what the result says of it.
    exact: ClassVar[bool] = True
    #: The loop around the kernel.
    loop: ClassVar[type[SamplingRun]] = SamplingRun

    def __post_init__(self) -> None:
        smallest = {"chains": 1, "warmup": 0, "draws": 1, "thinning": 1, "start_steps": 1, "seed": 0}
        for name, least in smallest.items():
            object.__setattr__(self, name, whole_number(name, getattr(self, name), least))
        positive(self, "dispersion", "checkpoint_seconds")
        if not isinstance(self.start, Posterior):
            require(self.start in STARTS, "start", self.start, f"one of {', '.join(STARTS)}, or a trained Posterior")
        mean_field = isinstance(self.start, Posterior) and self.start.weights.family == "mean_field"
        require(
            not self.whiten or mean_field,
            "whiten",
            self.whiten,
            "False where start is not a mean-field Posterior (train one with pg.SVI and give start=posterior)",
        )
        check_dtype(self)

    def fit(self, model: BayesianFlow, events: Any, weights: Any = None, context: Any = None) -> Posterior:
        """Sample the posterior of the weights, or go on from the checkpoint.

        Args:
            model: the Bayesian flow; it is copied.
            events: ``[N, d]``, a tensor, an array or an :class:`~pyrogen.EventSample` (whose weights then count).
            weights: event weights ``[N]`` of either sign with a positive sum.
            context: conditions ``[N, k]`` of a conditional flow.

        Returns:
            The posterior, its draws ``[chains, draws, P]`` in ``posterior.weights``, the statistics of every
            transition ``[chains, draws]`` in ``posterior.history`` (of the warm-up as ``warmup_...``), and in
            ``posterior.info["warnings"]`` what is wrong with the chains.

        Raises:
            ValueError: events, weights or context that cannot be sampled from, or a foreign checkpoint.
            SamplingError: a chain whose potential is not finite.
            OSError: the files cannot be written.
        """
        self._check_files()
        return self.prepare(model, events, weights, context).run()

    def fit_many(self, model: BayesianFlow, samples: Any) -> list[Posterior]:
        """Sample the posteriors of R independent samples, such as a coverage study needs, in one batch of chains.

        Every sample gets ``chains`` chains of its own. One gradient evaluation serves all, where the samples are of
        one size and without event weights; otherwise (and for NUTS) they are sampled one after another, and
        ``posterior.info["batched_reason"]`` says why. Trajectories have the same number of steps in all chains.

        Args:
            model: the Bayesian flow; it is copied. Preprocessing constants that are not yet set are fitted to all
                samples together.
            samples: R samples of events, ``[R, N, d]`` or a sequence of ``[N, d]``.

        Returns:
            R posteriors, as from :meth:`fit`; ``gradients`` and ``seconds`` in their ``info`` are those of the whole
            run.

        Raises:
            ValueError: samples that cannot be sampled from (the first is named), or a foreign checkpoint.
            SamplingError: a chain whose potential is not finite.
            OSError: the files cannot be written.
        """
        self._check_files()
        return sample_many(self, model, samples)

    def _check_files(self) -> None:
        if self.checkpoint is not None:
            check_writable(self.checkpoint)
            check_writable(draws_path(self.checkpoint))

    def prepare(self, model: BayesianFlow, events: Any, weights: Any = None, context: Any = None) -> SamplingRun:
        """What :meth:`fit` runs, before its first step: the data checked and the model prepared for them.

        Raises:
            ValueError: as :meth:`fit`.
        """
        model, data = prepare(self, model, events, weights, context)
        if isinstance(self.start, Posterior):
            self._check_start(self.start, model)
        return self.loop(self, model, data)

    def _check_start(self, start: Posterior, model: BayesianFlow) -> None:
        theirs, ours = start.model.describe(), model.describe()
        if start.weights.size != model.weights:
            raise ValueError(
                f"start is a posterior over {start.weights.size} weights, the model has {model.weights}; "
                "train it on the same flow"
            )
        for what in ("parameters", "preprocessing"):
            if theirs[what] != ours[what]:
                raise ValueError(f"start is a posterior over a flow with other {what}; train it on the same model")
        if start.weights.stored is not None and start.weights.stored < self.chains:
            raise ValueError(
                f"chains is {self.chains}, but start holds {start.weights.stored} draws: not one for every chain"
            )

    @property
    def noisy_potential(self) -> bool:
        """Whether the kernel knows the potential of a mini-batch only."""
        return getattr(self, "batch_size", None) is not None

    def problems(self, history: dict[str, NDArray[np.float64]]) -> list[str]:
        """What is wrong with the kernel's own statistics ``[C, draws]``, in words with advice."""
        return []

    def kernel(self, model: BayesianFlow) -> PyroKernel:
        """This sampler as a kernel for :class:`pyro.infer.MCMC`, which then runs single chains of it.

        Raises:
            ValueError: a ``checkpoint``, which Pyro's loop cannot write.
        """
        return PyroKernel(self, model)

    @abstractmethod
    def begin(self, target: Whitened, position: Tensor, generator: torch.Generator) -> State:
        """The kernel's state at the chains' starting points ``position [C, P]``.

        It holds at least ``"position" [C, P]`` and ``"potential" [C]``; everything the kernel remembers between two
        steps is in it, so that a checkpoint holds it all. Besides these two only ``"gradient"`` may depend on where
        the chain is now: a chain that is moved from outside gets these three anew and keeps the rest.
        """

    @abstractmethod
    def advance(
        self, target: Whitened, state: State, step: int, warmup_steps: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """One step of all chains, in place; adapts the kernel where ``step < warmup_steps``.

        Returns:
            The :attr:`statistics` of the step, ``[C]`` each.
        """

    def describe(self) -> dict[str, Any]:
        """All settings that decide the result, in JSON types."""
        told = describe(self, "checkpoint", "checkpoint_seconds", "progress", "start")
        return told | {"start": self.start if isinstance(self.start, str) else "posterior"}


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


@dataclass
class DualAveraging:
    """Adapts a log step size per chain so that the mean acceptance meets a target (Hoffman and Gelman, JMLR 2014).

    Its tensors ``[C]`` live in a kernel's state under ``step_...``, so that checkpoints hold them.
    """

    target: float
    gamma: float = 0.05
    delay: float = 10.0
    decay: float = 0.75

    def start(self, state: State, step_size: Tensor) -> None:
        """Begin anew around ``step_size [C]``."""
        log_step = step_size.log()
        state["step_size"] = step_size.clone()
        state["step_centre"] = log_step + math.log(3.0)
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
