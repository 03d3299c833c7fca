"""What a training of variational inference minimises: the part that differs, under a loop that all share."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from pyrogen.inference.vi.settings import SVISettings
from pyrogen.posterior.weights import WeightPosterior


class Step(NamedTuple):
    """What a step found for each of R networks, ``[R]``.

    Attributes:
        nll: negative log-likelihood per event, before the step.
        kl: KL over the number of events.
        norm: of the gradient, before it was clipped.
        finite: whether all of these are, and so whether the network took the step.
    """

    nll: Tensor
    kl: Tensor
    norm: Tensor
    finite: Tensor


class Objective(ABC):
    """R losses that one step lowers together, each in the parameters of its own network.

    A new one has its parameters in two groups of :attr:`optimizer` (means first, then widths) and implements the
    abstract methods; :class:`~pyrogen.inference.vi.training.Training` does the rest. Batches and learning rates come
    as arguments and all that a step finds goes back as tensors, so that a step can be compiled or captured as a graph
    by whoever gives ``Training(advance=...)`` another way to run it.

    Attributes:
        settings: the backend.
        networks: R.
        size: training events of each network.
        validation_events: events of each that are held out.
        effective_size: events that the KL is divided by.
        optimizer: Adam over the two groups of parameters.
        local: whether activations can be drawn per event.
        local_reason: why, or why not.
    """

    first_stream: ClassVar[int]
    """The epochs' random numbers come from the streams of the seed from this one on; those below are taken."""

    settings: SVISettings
    networks: int
    size: int
    validation_events: int
    effective_size: float
    optimizer: torch.optim.Optimizer
    local: bool
    local_reason: str

    @property
    def batch_size(self) -> int:
        """Events of a step: as the settings say, or all there are."""
        return min(self.settings.batch_size, self.size)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches of a pass over the training events."""
        return self.size // self.batch_size

    @abstractmethod
    def shuffled(self) -> Tensor:
        """Rows ``[R, size]`` of the training events in an order drawn from the global random state."""

    @abstractmethod
    def losses(self, rows: Tensor, local: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Loss to differentiate, negative log-likelihood per event and KL over N: ``[R]`` each.

        Args:
            rows: the batch of every network, ``[R, M]``.
            local: draw activations per event.
        """

    @abstractmethod
    def clip(self) -> Tensor:
        """Clip the gradient of every network by its own norm; returns the norms ``[R]`` from before."""

    @abstractmethod
    def take(self, finite: Tensor) -> None:
        """A step of Adam for the networks whose loss and gradient are ``finite [R]``; the others stay as they are."""

    @abstractmethod
    def validation_nll(self, local: bool) -> Tensor:
        """Negative log-likelihood per held-out event ``[R]``; NaN where none are held out."""

    @abstractmethod
    def remember(self, better: Tensor) -> None:
        """Keep the networks marked in ``better [R]`` as they are now, as the best of their training."""

    @abstractmethod
    def recall(self, kept: Tensor) -> None:
        """Put what was kept of the networks marked in ``kept [R]`` in the place of the present ones."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """The parameters, present and kept ones, by name: what a checkpoint holds besides Adam's moments."""

    @abstractmethod
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what :meth:`tensors` gave."""

    @abstractmethod
    def weights(self, r: int) -> WeightPosterior:
        """The weight posterior of network ``r``."""

    def in_epoch(self, first: bool) -> contextlib.AbstractContextManager[Any]:
        """A context around every epoch."""
        return contextlib.nullcontext()

    def step(self, rows: Tensor, rates: tuple[float, float], local: bool) -> Step:
        """One step of all networks.

        Args:
            rows: the batch of every network, ``[R, M]``.
            rates: learning rates of means and widths.
            local: draw activations per event.
        """
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        loss, nll, kl = self.losses(rows, local)
        loss.sum().backward()
        norm = self.clip()
        nll, kl = nll.detach().double(), kl.detach().double()
        finite = (nll + kl + norm).isfinite()
        self.take(finite)
        return Step(nll, kl, norm, finite)

    def adam_tensors(self) -> dict[str, Tensor]:
        """Adam's moments by name."""
        found: dict[str, Tensor] = {}
        for index, state in self.optimizer.state_dict()["state"].items():
            found |= {f"adam.{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
        return found

    def load_adam(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what :meth:`adam_tensors` gave."""
        adam: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            _, index, entry = name.split(".", 2)
            adam.setdefault(int(index), {})[entry] = value
        self.optimizer.load_state_dict({"state": adam, "param_groups": self.optimizer.state_dict()["param_groups"]})
