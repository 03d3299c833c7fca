"""The objective of one training with a Pyro guide: the ELBO of [A] eq. 16."""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import pyro
import torch
from torch import Tensor

from pyrogen.bayes.guide import ELBO, AutoNormal, start_at_initial_weights
from pyrogen.bayes.model import BayesianFlow, normalise_weights
from pyrogen.inference.run.data import TrainingData
from pyrogen.inference.vi.objective import Objective, make_adam
from pyrogen.inference.vi.settings import SVISettings
from pyrogen.posterior.guides import start_at, weights_of
from pyrogen.posterior.weights import WeightPosterior
from pyrogen.seeds import manual_seed, stream
from pyrogen.signals import uninterrupted


class GuideObjective(Objective):
    """Pyro's ELBO of a model and any autoguide over it, on events that may have weights and conditions.

    Args:
        settings: the backend.
        model: the prepared Bayesian flow.
        data: its checked training events.
    """

    first_stream: ClassVar[int] = 1
    networks = 1

    def __init__(self, settings: SVISettings, model: BayesianFlow, data: TrainingData) -> None:
        self.settings, self.model, self.data = settings, model, data
        self.validation_events = settings.held_out_events(len(data.events))
        self.size = len(data.events) - self.validation_events
        # The bits of earlier versions: others would move events of their checkpoints between training and validation.
        manual_seed(stream(settings.seed), settings.device)
        order = torch.randperm(len(data.events))
        self.training, self.validation = order[self.validation_events :], order[: self.validation_events]
        self.event_weights = None if data.weights is None else self._normalised(data.weights)
        # The ELBO divides by N, for weighted events by the effective sample size.
        self.effective_size = float(
            self.size if self.event_weights is None else self.event_weights[self.training].sum()
        )
        example = data.events[:1], None, None if data.context is None else data.context[:1]
        # Autoguides make their parameters when they first see the model, where they make networks of their own on the
        # model's device. For some of them torch then imports SymPy.
        with torch.device(model.device), pyro.poutine.block(), uninterrupted():
            self.guide = _make_guide(settings, model)
            self.guide(*example)
        begun = data.start or (data.prior if isinstance(self.guide, AutoNormal) else None)
        if begun is not None:
            start_at(self.guide, begun.weights)
        self.local, self.local_reason = self._can_be_local()
        self.elbo = ELBO(local=False, num_particles=settings.num_particles, kl_weight=settings.kl_factor)
        means: list[Tensor] = []
        widths: list[Tensor] = []
        for name, parameter in self.guide.named_parameters():
            (widths if "scale" in name or "cov" in name else means).append(parameter)
        self.parameters = [*means, *widths]
        self.optimizer = make_adam([means, widths], settings.betas)
        self._best: dict[str, Tensor] = {}

    def _normalised(self, weights: Tensor) -> Tensor:
        """Weights of all events in units in which those for training sum to their effective sample size."""
        for what, rows in (("training", self.training), ("validation", self.validation)):
            total = float(weights[rows].sum())
            if len(rows) and not total > 0:
                raise ValueError(
                    f"the weights of the {len(rows)} {what} events do not have a positive sum, but {total:.6g}; "
                    "give another seed or validation fraction, or more events"
                )
        chosen = weights[self.training]
        return weights * (normalise_weights(chosen).sum() / chosen.sum())

    def _can_be_local(self) -> tuple[bool, str]:
        if not self.settings.local_reparameterization:
            return False, "switched off"
        if not isinstance(self.guide, AutoNormal):
            return False, f"{type(self.guide).__name__} has no independent Normal posterior under the site's own name"
        obstacle = self.model.local_obstacle()
        return obstacle is None, obstacle or "activations drawn per event"

    def in_epoch(self, first: bool) -> contextlib.AbstractContextManager[Any]:
        return pyro.validation_enabled(first)

    def shuffled(self) -> Tensor:
        return self.training[torch.randperm(self.size)].to(self.data.events.device)[None]

    def losses(self, rows: Tensor, local: bool) -> tuple[Tensor, Tensor, Tensor]:
        self.elbo.local = local
        return self._losses(rows[0], self.size)

    def _losses(self, rows: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
        data = self.data
        loss = self.elbo.differentiable_loss(
            self.model,
            self.guide,
            data.events[rows],
            self._weights_of(rows),
            None if data.context is None else data.context[rows],
            size=size,
        )
        nll, kl = (part.double()[None] / self.effective_size for part in self.elbo.parts)
        return (loss / self.effective_size)[None], nll, kl

    def _weights_of(self, rows: Tensor) -> Tensor | None:
        """Weights ``[M]`` of the events in ``rows``."""
        return None if self.event_weights is None else self.event_weights[rows]

    def clip(self) -> Tensor:
        return torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.clip or math.inf).detach()[None]

    @torch.no_grad()
    def validation_nll(self, local: bool) -> Tensor:
        """Negative log-likelihood per held-out event, in the units of the training's."""
        if not len(self.validation):
            return torch.tensor([math.nan], dtype=torch.float64)
        self.elbo.local = local
        total = weight = 0.0
        for rows in self.validation.split(self.validated_at_once):
            rows = rows.to(self.data.events.device)
            total += float(self._losses(rows, len(rows))[1]) * self.effective_size
            weight += len(rows) if self.event_weights is None else float(self.event_weights[rows].sum())
        return torch.tensor([total / weight], dtype=torch.float64)

    def remember(self, better: Tensor) -> None:
        self._best = {name: value.detach().clone() for name, value in self.guide.state_dict().items()}

    def recall(self, kept: Tensor) -> None:
        self.guide.load_state_dict(self._best)

    def tensors(self) -> dict[str, Tensor]:
        tensors = {f"guide.{name}": value for name, value in self.guide.state_dict().items()}
        return tensors | {f"best.{name}": value for name, value in self._best.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        groups: dict[str, dict[str, Tensor]] = {"guide": {}, "best": {}}
        for name, value in tensors.items():
            group, _, rest = name.partition(".")
            groups[group][rest] = value
        self.guide.load_state_dict(groups["guide"])
        self._best = groups["best"]

    def weights(self, r: int) -> WeightPosterior:
        return weights_of(self.guide, seed=self.settings.seed)


def _make_guide(settings: SVISettings, model: BayesianFlow) -> Any:
    """Build the guide; means start at the flow's own weights and widths small, where the guide takes such arguments."""
    wanted = {"init_loc_fn": start_at_initial_weights(model), "init_scale": settings.init_scale}
    given = settings.guide.keywords if isinstance(settings.guide, partial) else {}
    accepted = inspect.signature(settings.guide).parameters
    usable = {name: value for name, value in wanted.items() if name in accepted and name not in given}
    guide = settings.guide(model, **usable)
    if not isinstance(guide, torch.nn.Module):
        raise TypeError(
            f"guide made a {type(guide).__name__} of the model; it must make a Pyro guide, a torch.nn.Module"
        )
    return guide
