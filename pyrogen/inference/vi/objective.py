"""What a training of variational inference minimises: the part that differs, under a loop that all share."""

from __future__ import annotations

import contextlib
import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from pyrogen.flows.compiled import CompiledSteps
from pyrogen.flows.own import compile_obstacle
from pyrogen.inference.vi.cpu_adam import CpuAdam
from pyrogen.inference.vi.settings import SVISettings
from pyrogen.posterior.weights import WeightPosterior
from pyrogen.signals import load_optimizers

#: Held-out events of all networks that are evaluated at once, on a CPU and on a card: their noise depends on it.
VALIDATED_AT_ONCE, VALIDATED_ON_A_CARD = 4096, 1 << 20


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
    as arguments and all that a step finds goes back as tensors, so that a card can record a step as a graph. A loss
    that branches on numbers, or draws random numbers on the CPU, cannot be recorded: its steps run as they are.

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
    own_curves: ClassVar[tuple[str, ...]] = ()
    """Curves that it adds to those of every training, see :meth:`epoch_figures`."""
    unrecorded: ClassVar[str | None] = None
    """Why its steps must not be recorded as a graph; None where they may."""

    settings: SVISettings
    networks: int
    size: int
    validation_events: int
    effective_size: float
    optimizer: CpuAdam | torch.optim.Adam
    local: bool
    local_reason: str

    @property
    def waits(self) -> bool:
        """Whether to read a number means to wait for a card."""
        return self.device.type != "cpu"

    @property
    def validated_at_once(self) -> int:
        """Held-out events of each network that are evaluated at once."""
        return max(1, (VALIDATED_ON_A_CARD if self.waits else VALIDATED_AT_ONCE) // self.networks)

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

    def epoch_figures(self) -> dict[str, list[float]]:
        """A row ``[R]`` of each of :attr:`own_curves`, of the epoch that just ended.

        Raises:
            TrainingDivergedError: one of them says that to go on makes no sense.
        """
        return {}

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self._trained()[0].device

    def changed(self) -> list[Tensor]:
        """All tensors that a step changes in place: parameters, moments, and rates where these are tensors."""
        rates = [group["lr"] for group in self.optimizer.param_groups if isinstance(group["lr"], Tensor)]
        return [*self._trained(), *self._moments(), *rates]

    def _trained(self) -> list[Tensor]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def _moments(self) -> list[Tensor]:
        return [value for state in self.optimizer.state.values() for value in state.values()]

    def take(self, finite: Tensor) -> None:
        """A step of Adam for the networks whose loss and gradient are ``finite [R]``; the others stay as they are."""
        if not self.waits:
            if finite.all():
                self.optimizer.step()
            if finite.all() or not finite.any():
                return
        parameters = self._trained()
        # Adam counts the steps of all networks of a batch together.
        tensors = [each for each in [*parameters, *self._moments()] if each.ndim > 0 or self.networks == 1]
        kept = [each.detach().clone() for each in tensors]
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad = torch.where(along(finite, parameter), parameter.grad, 0.0)
        self.optimizer.step()
        with torch.no_grad():
            for each, before in zip(tensors, kept, strict=True):
                each.copy_(torch.where(along(finite, each), each, before))

    def step(self, rows: Tensor, rates: Tensor, local: bool) -> Step:
        """One step of all networks.

        Args:
            rows: the batch of every network, ``[R, M]``.
            rates: learning rates of means and widths, ``[2]``.
            local: draw activations per event.
        """
        for i, group in enumerate(self.optimizer.param_groups):
            if isinstance(group["lr"], Tensor):
                group["lr"].copy_(rates[i])
            else:
                group["lr"] = float(rates[i])
        nll, kl = self.compiled.run(lambda: self._gradients(rows, local))
        norm = self.clip()
        nll, kl = nll.detach().double(), kl.detach().double()
        finite = (nll + kl + norm).isfinite()
        self.take(finite)
        return Step(nll, kl, norm, finite)

    def _gradients(self, rows: Tensor, local: bool) -> tuple[Tensor, Tensor]:
        """Negative log-likelihood per event and KL over N; the gradients of the loss go to the parameters."""
        self.optimizer.zero_grad(set_to_none=True)
        loss, nll, kl = self.losses(rows, local)
        loss.sum().backward()
        return nll, kl

    @functools.cached_property
    def compiled(self) -> CompiledSteps:
        """What compiles the steps of the flow, if that is asked for."""
        flow = getattr(getattr(self, "model", None), "flow", None)
        return CompiledSteps(self.settings.compile, compile_obstacle(flow))

    def adam_tensors(self) -> dict[str, Tensor]:
        """Adam's moments by name."""
        return {f"adam.{name}": value for name, value in moments_of(self.optimizer).items()}

    def load_adam(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what :meth:`adam_tensors` gave."""
        load_moments(self.optimizer, {name.partition(".")[2]: value for name, value in tensors.items()})


def moments_of(optimizer: CpuAdam | torch.optim.Adam) -> dict[str, Tensor]:
    """Adam's moments by the number of their parameter and their name, ``"0.exp_avg"``."""
    found: dict[str, Tensor] = {}
    for index, state in optimizer.state_dict()["state"].items():
        found |= {f"{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
    return found


def load_moments(optimizer: CpuAdam | torch.optim.Adam, tensors: Mapping[str, Tensor]) -> None:
    """Take up what :func:`moments_of` gave."""
    adam: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, _, entry = name.partition(".")
        adam.setdefault(int(index), {})[entry] = value
    optimizer.load_state_dict({"state": adam, "param_groups": optimizer.state_dict()["param_groups"]})


def along(rows: Tensor, like: Tensor) -> Tensor:
    """One number per network ``[R]`` in the shape ``[R, 1, ...]`` that goes with tensors ``[R, ...]``."""
    return rows.reshape([-1, *[1] * (like.ndim - 1)] if like.ndim else [])


def make_adam(groups: Sequence[Sequence[Tensor]], betas: tuple[float, float]) -> CpuAdam | torch.optim.Adam:
    """Adam over groups of parameters; on a card one that can be recorded: all that it needs is there from the start."""
    device = next(parameter.device for group in groups for parameter in group)
    if device.type == "cpu":
        return CpuAdam(groups, betas)
    load_optimizers()
    rates = [torch.zeros((), device=device) for _ in groups]
    named = [{"params": list(group), "lr": rate} for group, rate in zip(groups, rates, strict=True)]
    adam = torch.optim.Adam(named, lr=rates[0], betas=betas, capturable=True, fused=True)
    for parameter in (parameter for group in groups for parameter in group):
        moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
        adam.state[parameter] = {"step": torch.zeros((), device=device), **moments}
    return adam
