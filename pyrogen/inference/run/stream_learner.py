"""What learns from a stream: the part of an online training that differs from backend to backend."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyrogen.bayes.model import BayesianFlow
from pyrogen.inference.run.stream import Rows, Seen
from pyrogen.inference.run.stream_buffer import EventBuffer
from pyrogen.posterior.info import Finding
from pyrogen.posterior.posterior import Posterior
from pyrogen.posterior.weights import WeightPosterior

AVERAGED = 3  # power of the average over steps: step t counts as t^3


class Taken(NamedTuple):
    """What a step found for each of R networks, ``[R]``: loss and KL per event, and whether both are finite."""

    nll: Tensor
    kl: Tensor
    finite: Tensor


class Learner(ABC):
    """Networks that learn from batches of a buffer.

    Attributes:
        model: the prepared model.
        buffer: the events that steps refer to by their places.
        averaged: the mean of every parameter over the steps, which predictions are made with. Step t (from 1) enters
            with the share ``4 / (t + 3)`` (polynomial decay; Shamir and Zhang, arXiv:1212.1824): it counts as ``t^3``
            in the end, so that the beginning is forgotten, and the length of the average grows with the training.
    """

    model: BayesianFlow
    buffer: EventBuffer
    averaged: list[Tensor]

    @property
    @abstractmethod
    def parameters(self) -> list[Tensor]:
        """What is trained."""

    @abstractmethod
    def admit(self, rows: Rows, first: int) -> None:
        """Take note of events that enter the buffer, the first of which has this number in the stream."""

    @abstractmethod
    def step(self, places: Tensor, seen: Seen, factor: float, number: int) -> Taken:
        """One step on a batch.

        Args:
            places: the batch, ``[M]``.
            seen: the events up to now, which the batch stands for.
            factor: on the learning rates.
            number: of the step, from 0.
        """

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds besides the averages."""

    @abstractmethod
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what :meth:`tensors` gave."""

    @abstractmethod
    def weights(self) -> WeightPosterior:
        """The weight posterior of the averaged parameters."""

    def finish(self, posterior: Posterior) -> Posterior:
        """The posterior at the end of the run, judged."""
        return posterior

    def findings(self, steps: int) -> Iterator[Finding]:
        """What is wrong with a training that ends after so many steps."""
        return iter(())

    def told(self) -> dict[str, Any]:
        """Entries of its :class:`~pyrogen.posterior.RunInfo` that the backend has."""
        return {}

    @torch.no_grad()
    def average(self, step: int) -> None:
        """Let the parameters after step number ``step``, counted from 1, enter the average."""
        if step == 1:
            self.averaged = [each.detach().clone() for each in self.parameters]
            return
        for mean, value in zip(self.averaged, self.parameters, strict=True):
            mean.lerp_(value, (AVERAGED + 1) / (step + AVERAGED))

    def centre(self) -> Tensor:
        """One network ``[P]`` that stands for all: the centre of a distribution, or a draw."""
        weights = self.weights()
        return weights.arrays["loc"] if "loc" in weights.arrays else next(weights.draws(1, 0))
