"""The objective of a flow whose events a discriminator weights: arXiv:2110.13632, sec. 4."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pyro
import torch
from torch import Tensor

from pyrogen.bayes.model import THETA, BayesianFlow
from pyrogen.inference.problems import TrainingDivergedError
from pyrogen.inference.run.data import TrainingData
from pyrogen.inference.vi.discflow_settings import DiscFlowSettings
from pyrogen.inference.vi.discriminator import SCALED_BY, Discriminator
from pyrogen.inference.vi.guided import GuideObjective
from pyrogen.inference.vi.objective import Step
from pyrogen.seeds import seeded, stream


class DiscriminatedObjective(GuideObjective):
    """The ELBO of events that count ``w = (D/(1-D))^alpha`` times, w divided by its mean over the batch.

    At every step the flow of one weight draw generates a batch. The discriminator gives the weights of the true batch,
    and then learns from both batches. It has random numbers of its own, so that with ``alpha=0`` all others are those
    of :class:`~pyrogen.SVI`.

    Args:
        settings: the backend.
        model: the prepared Bayesian flow.
        data: its checked training events.
    """

    own_curves = ("discriminator_loss", "weight_spread", "effective_share", "alpha")
    unrecorded: ClassVar[str | None] = "a discriminator takes part in every step"
    settings: DiscFlowSettings

    def __init__(self, settings: DiscFlowSettings, model: BayesianFlow, data: TrainingData) -> None:
        super().__init__(settings, model, data)
        rows = self.training[:SCALED_BY].to(data.events.device)
        self.discriminator = Discriminator(
            data.events[rows],
            None if data.context is None else data.context[rows],
            settings.observables,
            settings.discriminator_hidden,
            stream(settings.seed, "discriminator"),
        )
        self.steps_done = 0
        self._factors: Tensor | None = None
        self._figures: list[tuple[float, float, float, float]] = []

    @property
    def alpha(self) -> float:
        """The power at the present step."""
        first, last = self.settings.ramp
        done = self._progress
        share = 1.0 if done >= last else 0.0 if done <= first else (done - first) / (last - first)
        return self.settings.alpha * share

    @property
    def _progress(self) -> float:
        return self.steps_done / (self.settings.epochs * self.steps_per_epoch)

    def step(self, rows: Tensor, rates: Tensor, local: bool) -> Step:
        # The discriminator begins before its weights count.
        if self.settings.alpha > 0 and self._progress >= self.settings.ramp[0] / 2:
            with seeded(stream(self.settings.seed, "discriminator", self.steps_done), self.settings.device):
                self._discriminate(rows[0], float(rates[0]) / self.settings.lr)
        found = super().step(rows, rates, local)
        self.steps_done += 1
        self._factors = None  # held-out events count as they are
        return found

    def _discriminate(self, rows: Tensor, rate: float) -> None:
        """Weights of the events in ``rows [M]``; then a step of the discriminator, at ``rate`` of its lr."""
        context = None if self.data.context is None else self.data.context[rows]
        true = self.discriminator.standardise(self.data.events[rows], context)
        alpha = self.alpha
        weights = ratio_weights(self.discriminator.log_ratio(true), alpha)
        if alpha > 0:
            self._factors = weights.to(self.model.dtype)
        with torch.no_grad(), pyro.poutine.block():
            theta = pyro.poutine.trace(self.guide).get_trace(self.data.events[:1]).nodes[THETA]["value"]
            generated = self.model.sample_events(theta.detach(), len(rows), context)
        ones = torch.ones(len(rows), dtype=true.dtype, device=true.device)
        its = ones if self.event_weights is None else (self.event_weights[rows] / self._mean_weight).to(true)
        # Conditions are those of the true events: they count alike in both classes.
        counts = its, (ones if context is None else its)
        loss = self.discriminator.learn(
            true, self.discriminator.standardise(generated, context), counts, rate * self.settings.discriminator_lr
        )
        self._figures.append((loss, float(weights.std(correction=0)), effective_share(weights), alpha))

    @property
    def _mean_weight(self) -> float:
        assert self.event_weights is not None
        return self.effective_size / self.size

    def _weights_of(self, rows: Tensor) -> Tensor | None:
        own = super()._weights_of(rows)
        if self._factors is None:
            return own
        return self._factors if own is None else own * self._factors

    def epoch_figures(self) -> dict[str, list[float]]:
        figures, self._figures = self._figures, []
        nothing = [math.nan] * 3 + [self.alpha]
        means = np.mean(figures, 0).tolist() if figures else nothing
        row = dict(zip(self.own_curves, ([value] for value in means), strict=True))
        share, least = row["effective_share"][0], self.settings.least_effective
        if figures and not math.isfinite(row["discriminator_loss"][0]):
            raise TrainingDivergedError(
                f"the discriminator's loss is {row['discriminator_loss'][0]}, so that no event is weighted; try a "
                f"smaller discriminator_lr (now {self.settings.discriminator_lr:g}), with another checkpoint file if "
                "there is one"
            )
        if figures and self.alpha > 0 and not share >= least:
            raise TrainingDivergedError(
                f"the weights (D/(1-D))^alpha of a batch are worth {100 * share:.2g} % of its events at alpha = "
                f"{row['alpha'][0]:.3g}, less than least_effective = {100 * least:.2g} %: few events decide each step "
                f"(the discriminator's loss is {row['discriminator_loss'][0]:.3f}, that of a guess 0.693). The flow is "
                "too far from the events to be corrected so. Use a better flow or preprocessing, a longer training "
                "before the ramp, or a smaller alpha, with another checkpoint file if there is one"
            )
        return row

    def tensors(self) -> dict[str, Tensor]:
        own = {f"discriminator.{name}": value for name, value in self.discriminator.tensors().items()}
        return super().tensors() | own | {"discriminator.steps": torch.tensor(self.steps_done)}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        prefix = "discriminator."
        own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        self.steps_done = int(own.pop("steps"))
        self.discriminator.load(own)
        super().load({name: value for name, value in tensors.items() if not name.startswith(prefix)})


def ratio_weights(log_ratio: Tensor, alpha: float) -> Tensor:
    """``(D/(1-D))^alpha`` ``[M]`` divided by its mean, of the logits of D. A ratio that is not finite counts as 1."""
    powers = alpha * log_ratio.double().nan_to_num(0.0, 0.0, 0.0)
    weights = (powers - powers.max()).exp()
    return weights / weights.mean()


def effective_share(weights: Tensor) -> float:
    """``(sum w)^2 / sum w^2`` as a fraction of the number of events."""
    return float(weights.sum() ** 2 / weights.square().sum() / len(weights))
