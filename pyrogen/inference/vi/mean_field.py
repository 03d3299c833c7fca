"""The objective of many mean-field trainings in one batch: R samples, R guides, one step for all of them."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from pyrogen.bayes.last_layers import POINT, chosen_by
from pyrogen.bayes.model import BayesianFlow
from pyrogen.bayes.side_by_side import log_prob_side_by_side, stands_side_by_side
from pyrogen.inference.problems import NotBatchedError
from pyrogen.inference.run.data import ManySamples
from pyrogen.inference.run.potential import independent_starts
from pyrogen.inference.vi.batched import Batched
from pyrogen.inference.vi.settings import SVISettings
from pyrogen.posterior.weights import MeanField, PartlyRandom, WeightPosterior
from pyrogen.seeds import manual_seed, stream, untouched


class ManyMeanFields(Batched):
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
        samples, n, _ = data.events.shape
        mean = independent_starts(model, samples, stream(settings.seed, 1))
        #: Which weights ``[P]`` are random; None: all.
        self.random = chosen_by(settings.guide, model)
        # A softplus of free numbers, as in Pyro's AutoNormal, so that the learning rates mean the same.
        width = torch.full_like(mean, settings.init_scale)
        super().__init__(settings, {"mean": mean}, {"free_width": width + torch.log(-torch.expm1(-width))})
        self.model, self.data = model, data
        self.mean, self.free_width = self.parameters["mean"], self.parameters["free_width"]
        self.validation_events = settings.held_out_events(n)
        self.size = n - self.validation_events
        self.effective_size = float(self.size)
        # The bits of earlier versions: others would move events of their checkpoints between training and validation.
        manual_seed(stream(settings.seed), settings.device)
        order = torch.rand(self.networks, n).argsort(1) if self.validation_events else None
        self.training = None if order is None else order[:, self.validation_events :]
        self.validation = None if order is None else order[:, : self.validation_events]
        obstacle = "switched off" if not settings.local_reparameterization else model.local_obstacle()
        self.side_by_side = stands_side_by_side(model, data.events[0, :3])
        self.local, self.local_reason = obstacle is None, obstacle or "activations drawn per event"
        self._check_batch()

    def _check_batch(self) -> None:
        try:
            with untouched(self.data.events.device):
                for local in {self.local, False}:
                    rows = torch.zeros(self.networks, 2, dtype=torch.long, device=self.mean.device)
                    self.losses(rows, local)[0].sum().backward()
        except Exception as error:  # whatever a foreign flow does that vmap refuses
            raise NotBatchedError(f"{type(error).__name__}: {error}".splitlines()[0]) from error
        self.optimizer.zero_grad(set_to_none=True)

    def shuffled(self) -> Tensor:
        order = torch.rand(self.networks, self.size).argsort(1)
        return order if self.training is None else self.training.gather(1, order)

    def losses(self, rows: Tensor, local: bool) -> tuple[Tensor, Tensor, Tensor]:
        width = self._width()
        nll = -self._log_prob(rows, width, local).mean(1)
        ratio = (width / self.model.prior_scales).square()
        offset = ((self.mean - self.model.prior_centres) / self.model.prior_scales).square()
        kl = 0.5 * (ratio + offset - 1 - ratio.log())
        if self.random is not None:  # points have the density of their prior, and no entropy
            kl = torch.where(self.random, kl, 0.5 * offset)
        kl = kl.sum(1) / self.size
        return nll + self.settings.kl_factor * kl, nll, kl

    def _width(self) -> Tensor:
        """Widths of all weights ``[R, P]``."""
        width = F.softplus(self.free_width)
        return width if self.random is None else torch.where(self.random, width, POINT * self.model.prior_scales)

    def _log_prob(self, rows: Tensor, width: Tensor, local: bool) -> Tensor:
        """Log densities ``[R, M]`` of the events in ``rows [R, M]``, each row by its own network."""
        rows = rows.to(self.data.events.device)
        owner = torch.arange(self.networks, device=rows.device)[:, None]
        events = self.data.events[owner, rows]
        if local:
            batched = torch.func.vmap(self.model.local_log_prob, randomness="different")
            return (self.model.local_log_prob if self.side_by_side else batched)(self.mean, width, events)
        theta = self.mean + width * torch.randn_like(self.mean)
        if self.side_by_side:
            return log_prob_side_by_side(self.model, theta, events)
        return torch.func.vmap(self.model.log_prob)(theta, events)

    @torch.no_grad()
    def validation_nll(self, local: bool) -> Tensor:
        if self.validation is None:
            return super().validation_nll(local)
        total = torch.zeros(self.networks, dtype=torch.float64, device=self.mean.device)
        for rows in self.validation.split(self.validated_at_once, 1):
            total -= self._log_prob(rows.to(total.device), self._width(), local).sum(1).double()
        return total / self.validation_events

    def weights(self, r: int) -> WeightPosterior:
        loc, scale = self.mean[r], F.softplus(self.free_width[r])
        return MeanField(loc=loc, scale=scale) if self.random is None else PartlyRandom.of(loc, scale, self.random)
