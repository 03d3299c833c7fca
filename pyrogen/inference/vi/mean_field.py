"""The objective of many mean-field trainings in one batch: R samples, R guides, one step for all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from pyrogen.bayes.model import BayesianFlow
from pyrogen.inference.problems import NotBatchedError
from pyrogen.inference.run.data import ManySamples
from pyrogen.inference.run.potential import independent_starts
from pyrogen.inference.vi.objective import Objective
from pyrogen.inference.vi.settings import SVISettings
from pyrogen.inference.vi.split import held_out_events
from pyrogen.posterior.weights import MeanField, WeightPosterior
from pyrogen.seeds import stream, untouched

VALIDATED_AT_ONCE = 4096  # held-out events of all networks together


class ManyMeanFields(Objective):
    """The loss of :class:`~pyrogen.SVI` for means ``[R, P]`` and widths ``[R, P]``, each row on a sample of its own.

    Args:
        settings: the backend.
        model: the prepared Bayesian flow.
        data: R checked samples.

    Raises:
        NotBatchedError: a flow that :func:`torch.func.vmap` cannot batch.
    """

    first_stream: ClassVar[int] = 2

    def __init__(self, settings: SVISettings, model: BayesianFlow, data: ManySamples) -> None:
        self.settings, self.model, self.data = settings, model, data
        self.networks, n, _ = data.events.shape
        self.validation_events = held_out_events(settings, n)
        self.size = n - self.validation_events
        self.effective_size = float(self.size)
        torch.manual_seed(stream(settings.seed, 0))
        order = torch.rand(self.networks, n).argsort(1) if self.validation_events else None
        self.training = None if order is None else order[:, self.validation_events :]
        self.validation = None if order is None else order[:, : self.validation_events]
        self.mean = independent_starts(model, self.networks, stream(settings.seed, 1)).requires_grad_()
        # A softplus of free numbers, as in Pyro's AutoNormal, so that the learning rates mean the same.
        width = torch.full_like(self.mean, settings.init_scale)
        self.free_width = (width + torch.log(-torch.expm1(-width))).detach().requires_grad_()
        obstacle = "switched off" if not settings.local_reparameterization else model.local_obstacle()
        self.local, self.local_reason = obstacle is None, obstacle or "activations drawn per event"
        groups = [{"params": [self.mean]}, {"params": [self.free_width]}]
        self.optimizer = torch.optim.Adam(groups, betas=settings.betas)
        self._best: list[Tensor] = []
        self._check_batch()

    def _check_batch(self) -> None:
        try:
            with untouched(self.data.events.device):
                for local in {self.local, False}:
                    rows = torch.zeros(self.networks, 2, dtype=torch.long)
                    self.losses(rows, local)[0].sum().backward()
        except Exception as error:  # whatever a foreign flow does that vmap refuses
            raise NotBatchedError(f"{type(error).__name__}: {error}".splitlines()[0]) from error
        self.optimizer.zero_grad(set_to_none=True)

    def shuffled(self) -> Tensor:
        order = torch.rand(self.networks, self.size).argsort(1)
        return order if self.training is None else self.training.gather(1, order)

    def losses(self, rows: Tensor, local: bool) -> tuple[Tensor, Tensor, Tensor]:
        width = F.softplus(self.free_width)
        nll = -self._log_prob(rows, width, local).mean(1)
        ratio = (width / self.model.prior_scales).square()
        kl = 0.5 * (ratio + (self.mean / self.model.prior_scales).square() - 1 - ratio.log()).sum(1) / self.size
        return nll + self.settings.kl_weight * kl, nll, kl

    def _log_prob(self, rows: Tensor, width: Tensor, local: bool) -> Tensor:
        """Log densities ``[R, M]`` of the events in ``rows [R, M]``, each row by its own network."""
        owner = torch.arange(self.networks, device=rows.device)[:, None]
        events = self.data.events[owner, rows.to(self.data.events.device)]
        if local:
            batched = torch.func.vmap(self.model.local_log_prob, randomness="different")
            return batched(self.mean, width, events)
        theta = self.mean + width * torch.randn_like(self.mean)
        return torch.func.vmap(self.model.log_prob)(theta, events)

    def clip(self) -> Tensor:
        gradients = [parameter.grad for parameter in (self.mean, self.free_width)]
        norm = torch.stack([g.square().sum(1) for g in gradients if g is not None]).sum(0).sqrt()
        factor = (self.settings.clip or math.inf) / (norm + 1e-6)
        for gradient in gradients:
            if gradient is not None:
                gradient.mul_(factor.clamp(max=1)[:, None])
        return norm

    def take(self, finite: Tensor) -> None:
        kept = []
        if not finite.all():
            for parameter in (self.mean, self.free_width):
                if parameter.grad is not None:
                    parameter.grad[~finite] = 0.0
            states = [values for state in self.optimizer.state.values() for values in state.values()]
            tensors = [self.mean, self.free_width, *(values for values in states if values.ndim == 2)]
            kept = [(tensor, tensor.detach()[~finite].clone()) for tensor in tensors]
        self.optimizer.step()
        with torch.no_grad():
            for tensor, rows in kept:
                tensor[~finite] = rows

    @torch.no_grad()
    def validation_nll(self, local: bool) -> Tensor:
        total = torch.zeros(self.networks, dtype=torch.float64, device=self.mean.device)
        if self.validation is None:
            return total + math.nan
        for rows in self.validation.split(max(1, VALIDATED_AT_ONCE // self.networks), 1):
            total -= self._log_prob(rows, F.softplus(self.free_width), local).sum(1).double()
        return total / self.validation_events

    @torch.no_grad()
    def remember(self, better: Tensor) -> None:
        now = [self.mean.detach(), self.free_width.detach()]
        before = self._best or now
        better = better.to(self.mean.device)[:, None]
        self._best = [torch.where(better, new, old) for new, old in zip(now, before, strict=True)]

    @torch.no_grad()
    def recall(self, kept: Tensor) -> None:
        rows = kept.to(self.mean.device)
        for parameter, best in zip((self.mean, self.free_width), self._best, strict=True):
            parameter[rows] = best[rows]

    def tensors(self) -> dict[str, Tensor]:
        best = dict(zip(("best.mean", "best.free_width"), self._best, strict=False))
        return {"mean": self.mean, "free_width": self.free_width} | best

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        self.mean.copy_(tensors["mean"])
        self.free_width.copy_(tensors["free_width"])
        self._best = [tensors[name].to(self.mean) for name in ("best.mean", "best.free_width") if name in tensors]

    def weights(self, r: int) -> WeightPosterior:
        return MeanField(loc=self.mean[r], scale=F.softplus(self.free_width[r]))
