"""A Pyro guide that learns from a stream, by the ELBO of the events up to now."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pyrogen.bayes.model import BayesianFlow
from pyrogen.inference.run.data import TrainingData
from pyrogen.inference.run.stream import Rows, Seen
from pyrogen.inference.run.stream_buffer import EventBuffer
from pyrogen.inference.run.stream_learner import Learner, Taken
from pyrogen.inference.vi.guided import GuideObjective
from pyrogen.inference.vi.settings import SVISettings
from pyrogen.posterior.info import Finding
from pyrogen.posterior.weights import WeightPosterior

WIDTHS_AFTER = 100  # steps before the widths move: the means find the density first


class StreamObjective(GuideObjective):
    """The loss of :class:`~pyrogen.SVI` for a batch of a buffer that stands for all events up to now.

    Args:
        settings: the backend.
        model: the prepared model.
        data: the first events.
        buffer: where the events are.
    """

    def __init__(self, settings: SVISettings, model: BayesianFlow, data: TrainingData, buffer: EventBuffer) -> None:
        super().__init__(settings, model, replace(data, events=buffer.events, weights=None, context=buffer.context))
        self.buffer, self.factor = buffer, 1.0

    def stands_for(self, seen: Seen) -> None:
        """Let batches stand for these events: their weights sum to the effective size, which the KL is divided by."""
        self.size, self.effective_size = seen.events, seen.effective_size
        self.factor = seen.effective_size / seen.weight

    def _weights_of(self, rows: Tensor) -> Tensor | None:
        return None if self.buffer.weights is None else self.buffer.weights[rows] * self.factor


class GuideLearner(Learner):
    """Trains a guide on a stream.

    Args:
        settings: the backend.
        model: the prepared model.
        data: the first events.
        buffer: where the events are.
    """

    def __init__(self, settings: SVISettings, model: BayesianFlow, data: TrainingData, buffer: EventBuffer) -> None:
        self.settings, self.model, self.buffer = settings, model, buffer
        self.objective = StreamObjective(settings, model, data, buffer)
        #: Sum of the rates of the widths: how many e-folds a small width can have grown, at most.
        self.reach = torch.zeros((), dtype=torch.float64)
        self.averaged = []

    @property
    def parameters(self) -> list[Tensor]:
        return self.objective.parameters

    def admit(self, rows: Rows, first: int) -> None:
        return  # the sums that the objective needs come with every step

    def step(self, places: Tensor, seen: Seen, factor: float, number: int) -> Taken:
        moves = number >= WIDTHS_AFTER
        rates = torch.tensor([self.settings.lr * factor, self.settings.lr_widths * factor * moves])
        self.reach += float(rates[1])
        self.objective.stands_for(seen)
        with self.objective.in_epoch(False):
            found = self.objective.step(places[None], rates, self.objective.local and moves)
        return Taken(found.nll, found.kl, found.finite)

    def tensors(self) -> dict[str, Tensor]:
        return self.objective.tensors() | self.objective.adam_tensors() | {"reach": self.reach}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        tensors = dict(tensors)
        self.reach = tensors.pop("reach")
        self.objective.load_adam({name: value for name, value in tensors.items() if name.startswith("adam.")})
        self.objective.load({name: value for name, value in tensors.items() if not name.startswith("adam.")})

    @torch.no_grad()
    def weights(self) -> WeightPosterior:
        now = [each.detach().clone() for each in self.parameters]
        for parameter, mean in zip(self.parameters, self.averaged, strict=True):
            parameter.copy_(mean)
        found = self.objective.weights(0)
        for parameter, before in zip(self.parameters, now, strict=True):
            parameter.copy_(before)
        return found

    def findings(self, steps: int) -> Iterator[Finding]:
        reach = float(self.reach)
        if reach < math.log(1 / min(self.settings.init_scale, 1.0)):
            yield Finding(
                "too few steps for the widths",
                f"in {steps} steps at a rate of {self.settings.lr_widths:g} a width can grow from "
                f"{self.settings.init_scale:g} to {self.settings.init_scale * math.exp(max(reach, 0.0)):.2g} at most",
                "Take more passes, smaller batches or a larger lr_widths: until then sigma is too small",
            )

    def told(self) -> dict[str, Any]:
        return {
            "tempered": self.settings.kl_factor != 1,
            "local_reparameterization": self.objective.local,
            "local_reparameterization_reason": self.objective.local_reason,
            "compiled": self.objective.compiled.told,
        }
