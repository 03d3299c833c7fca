"""Objectives of R networks in one batch: all but the loss itself."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from pyrogen.inference.vi.objective import Objective, along, make_adam
from pyrogen.inference.vi.settings import SVISettings


class Batched(Objective):
    """R networks whose parameters are rows of the same tensors, each with a gradient and a step of its own.

    A subclass implements ``losses``, ``shuffled`` and ``weights``, and ``validation_nll`` if it holds events out. It
    sets ``first_stream``, ``size`` and ``effective_size``.

    Args:
        settings: the backend.
        means: parameters ``[R, ...]`` by name that move at the rate ``lr``.
        widths: parameters ``[R, ...]`` by name that move at the rate ``lr_widths``.
    """

    local, local_reason = False, "not asked for"
    validation_events = 0

    def __init__(self, settings: SVISettings, means: Mapping[str, Tensor], widths: Mapping[str, Tensor]) -> None:
        self.settings = settings
        groups = [
            {name: value.detach().clone().requires_grad_() for name, value in its.items()} for its in (means, widths)
        ]
        self.parameters = groups[0] | groups[1]
        self.networks = len(next(iter(self.parameters.values())))
        self.optimizer = make_adam([list(its.values()) for its in groups], settings.betas)
        self._best: dict[str, Tensor] = {}

    def clip(self) -> Tensor:
        gradients = [parameter.grad for parameter in self.parameters.values() if parameter.grad is not None]
        norm = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0).sqrt()
        factor = ((self.settings.clip or math.inf) / (norm + 1e-6)).clamp(max=1)
        for gradient in gradients:
            gradient.mul_(along(factor, gradient))
        return norm

    def validation_nll(self, local: bool) -> Tensor:
        return torch.full((self.networks,), math.nan, dtype=torch.float64)

    @torch.no_grad()
    def remember(self, better: Tensor) -> None:
        now = {name: parameter.detach() for name, parameter in self.parameters.items()}
        before = self._best or now
        self._best = {
            name: torch.where(along(better.to(value.device), value), value, before[name]) for name, value in now.items()
        }

    @torch.no_grad()
    def recall(self, kept: Tensor) -> None:
        for name, parameter in self.parameters.items():
            rows = kept.to(parameter.device)
            parameter[rows] = self._best[name][rows]

    def tensors(self) -> dict[str, Tensor]:
        return self.parameters | {f"best.{name}": value for name, value in self._best.items()}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(tensors[name])
            if f"best.{name}" in tensors:
                self._best[name] = tensors[f"best.{name}"].to(parameter)
