"""What the loop of the chains asks of a sampler: its settings, and two functions that move a batch of chains."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from pyrogen.bayes.model import BayesianFlow
from pyrogen.checks import BOOLEAN, POSITIVE, check_settings, require, whole
from pyrogen.events import EventsLike
from pyrogen.inference.backend import Backend
from pyrogen.inference.run.data import TrainingData
from pyrogen.inference.run.potential import Whitened
from pyrogen.posterior.info import Finding, History
from pyrogen.posterior.posterior import Posterior

STARTS = ("initial", "prior", "map")

State = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Kernel(Backend):
    """Settings that all sampled backends share, and the contract of their kernels.

    A *transition* is ``thinning`` steps of the kernel; after ``warmup`` transitions every one gives a draw of every
    chain. Chains are a batch dimension: one gradient evaluation serves all.

    Args:
        chains: number of chains C, independent of each other.
        warmup: transitions before the first draw is kept, in which the kernel adapts itself.
        draws: draws kept per chain.
        thinning: kernel steps per transition.
        start: where the chains start: ``"map"``: ``start_steps`` steps of Adam on the potential (minus the log of the
            posterior) from independent initialisations of the network's layers; ``"initial"``: those initialisations;
            ``"prior"``: draws of the prior; or a trained :class:`~pyrogen.Posterior`: draws of it. From one guide the
            chains all start in one mode: their agreement says nothing about others.
        start_steps: steps of Adam for ``"map"``.
        dispersion: factor on the widths of a variational posterior to start from; if ``start`` is a sampled posterior,
            the chains start at its draws.
        whiten: sample in coordinates in units of the start posterior's widths instead of the prior's; needs a
            mean-field posterior as ``start``.
        checkpoint: HDF5 file with the state of the run; the draws are streamed to a second one beside it,
            ``NAME.draws.h5``, which the returned posterior keeps reading: draws are never all in memory. If the files
            exist the run goes on from them, to the same bits as an uninterrupted one.
        checkpoint_seconds: time between two checkpoints, which are made after whole transitions. A killed run loses
            what came after the last one, and repeats the steps to the starting points if there is none.

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
    checkpoint_seconds: float = 30.0

    incidental: ClassVar[tuple[str, ...]] = (*Backend.incidental, "checkpoint_seconds", "start")

    countable: ClassVar[tuple[str, int] | None] = ("chains", 1)
    #: Names of what each step tells of every chain, besides ``potential``.
    statistics: ClassVar[tuple[str, ...]] = ()
    #: Whether the draws follow the posterior exactly, given time; what the result says of it.
    exact: ClassVar[bool] = True

    @property
    def _kept(self) -> int:
        return self.chains * self.draws

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(
            self,
            chains=whole(1),
            warmup=whole(0),
            draws=whole(1),
            thinning=whole(1),
            start_steps=whole(1),
            dispersion=POSITIVE,
            whiten=BOOLEAN,
            checkpoint_seconds=POSITIVE,
        )
        if not isinstance(self.start, Posterior):
            known = isinstance(self.start, str) and self.start in STARTS
            require(known, "start", self.start, f"one of {', '.join(STARTS)}, or a trained Posterior")
        mean_field = isinstance(self.start, Posterior) and self.start.weights.independent
        require(
            not self.whiten or mean_field,
            "whiten",
            self.whiten,
            "False where start is not a mean-field Posterior (train one with pg.SVI and give start=posterior)",
        )

    def _described(self) -> dict[str, Any]:
        return {"start": self.start if isinstance(self.start, str) else "posterior"}

    def checked(
        self, model: BayesianFlow, events: EventsLike, weights: Any = None, context: Any = None
    ) -> tuple[BayesianFlow, TrainingData]:
        model, data = super().checked(model, events, weights, context)
        if isinstance(self.start, Posterior):
            self._check_start(self.start, model)
        return model, data

    def _check_start(self, start: Posterior, model: BayesianFlow) -> None:
        theirs, ours = start.model.describe(), model.describe()
        if start.weights.size != model.weights:
            raise ValueError(
                f"start is a posterior over {start.weights.size} weights, the model has {model.weights}; "
                "train it on the same flow"
            )
        for what in ("parameters", "preprocessing", "context_preprocessing"):
            if theirs.get(what) != ours.get(what):
                raise ValueError(f"start is a posterior over a flow with other {what}; train it on the same model")
        if start.weights.stored is not None and start.weights.stored < self.chains:
            raise ValueError(
                f"chains is {self.chains}, but start holds {start.weights.stored} draws: not one for every chain"
            )

    @property
    def noisy_potential(self) -> bool:
        """Whether the kernel knows the potential of a mini-batch only."""
        return getattr(self, "batch_size", None) is not None

    @property
    def tempered(self) -> bool:
        """Whether the target is the posterior to a power other than 1."""
        return getattr(self, "temperature", 1.0) != 1.0

    def findings(self, history: History) -> Sequence[Finding]:
        """What is wrong with the kernel's own statistics ``[C, draws]``."""
        return []

    def take_up(self, state: State) -> None:
        """Complete, in place, a state from the checkpoint of an earlier version, which held less."""
        return

    def phase(self, step: int, warmup_steps: int) -> str | None:
        """A name for steps that do the same operations on the state, whatever their number: a card records one of them
        and replays it. None: a step that is unlike others, which runs as it is."""
        return None

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
