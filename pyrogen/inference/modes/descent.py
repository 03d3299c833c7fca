"""What the backends that follow Adam share: their settings, and its loop with curve, checkpoint and progress bar."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from pyrogen.bayes.model import BayesianFlow
from pyrogen.checks import POSITIVE, check_settings, whole
from pyrogen.inference.backend import Backend
from pyrogen.inference.run.adam import Adam
from pyrogen.inference.run.checkpoint import load_checkpoint, run_identity, save_checkpoint
from pyrogen.inference.run.data import TrainingData
from pyrogen.inference.run.going_on import weights_digests
from pyrogen.inference.run.potential import Potential, Whitened, independent_starts
from pyrogen.inference.run.stopping import SafePoints
from pyrogen.posterior.info import History
from pyrogen.posterior.posterior import Posterior
from pyrogen.posterior.weights import WeightPosterior
from pyrogen.progress import bar

RECORDS = 200  # points of a training curve


@dataclass(frozen=True, kw_only=True)
class Optimised(Backend):
    """Settings that the backends which minimise a potential by Adam share.

    Adam moves the weights themselves, not their ratios to the prior's widths: so ``lr`` means what it means in any
    training, and the prior acts through the potential alone.

    Args:
        steps: steps of Adam; its rate falls to zero as a cosine.
        batch_size: events per step and network, drawn with replacement; the whole sample where it has no more.
        lr: Adam's learning rate at the first step.
        checkpoint_seconds: time between two checkpoints: what a killed run loses at most.

    Raises:
        ValueError: an argument out of range.
    """

    steps: int = 4000
    batch_size: int = 512
    lr: float = 5e-3
    checkpoint_seconds: float = 30.0

    incidental: ClassVar[tuple[str, ...]] = (*Backend.incidental, "checkpoint_seconds")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, steps=whole(1), batch_size=whole(1), lr=POSITIVE, checkpoint_seconds=POSITIVE)


def check_as_many(name: str, networks: int, start: Posterior, right: str) -> None:
    """Check that a run of several networks goes on from a posterior of as many.

    Args:
        name: the setting that says how many.
        networks: its value.
        start: the posterior.
        right: what to give instead.

    Raises:
        ValueError: it holds another number of networks, or is a distribution.
    """
    stored = start.weights.stored
    if stored != networks:
        held = start.weights.family if stored is None else f"{stored} networks"
        raise ValueError(f"{name} is {networks}, and start holds {held}; {right}")


def starts_of(model: BayesianFlow, data: TrainingData, networks: int, seed: int) -> Tensor:
    """Weights ``[C, P]`` to start from: those of the posterior that the run goes on from, or new initialisations."""
    if data.start is None:
        return independent_starts(model, networks, seed)
    return data.start.weights.arrays["draws"].flatten(0, 1).to(model.initial_theta)


class Descent:
    """Adam's way down a potential, for C networks at once, in the coordinates of the weights themselves.

    Args:
        settings: the backend.
        potential: of the C networks.
        data: the checked training events.
        starts: weights ``[C, P]`` to start from, unless a checkpoint holds later ones.
        seed: seeds the mini-batches.
        label: name of the progress bar; None: that of the backend.

    Attributes:
        state: all tensors of the run: ``position [C, P]`` (the weights), Adam's moments, ``loss [C, records]`` in nats
            per event (NaN where a step's was not finite), ``skipped [C]``: steps left out because the potential or
            its gradient was not finite.
    """

    def __init__(
        self,
        settings: Optimised,
        potential: Potential,
        data: TrainingData,
        starts: Tensor,
        seed: int,
        label: str | None = None,
    ) -> None:
        self.settings, self.potential, self.data = settings, potential, data
        self.label, model = label or type(settings).__name__, potential.model
        scale = torch.ones_like(self.potential.prior_scale)
        self.target = Whitened(self.potential, torch.zeros_like(scale), scale)
        self.generator = torch.Generator(model.device).manual_seed(seed)
        start = {} if data.start is None else {"start": weights_digests(data.start)}
        self.identity = run_identity(settings.describe(), model, data, backend=type(settings).__name__, **start)
        self.adam = Adam(settings.steps, settings.lr, settings.batch_size)
        self.records = min(RECORDS, settings.steps)
        self.done, self.seconds = 0, 0.0
        found = None if settings.checkpoint is None else load_checkpoint(settings.checkpoint, self.identity)
        if found is None:
            curve = torch.zeros(len(starts), self.records, dtype=torch.float64, device=starts.device)
            self.state: dict[str, Tensor] = self.adam.begin(starts) | {
                "loss": curve,
                "skipped": torch.zeros_like(curve[:, 0]),
            }
            return
        saved, tensors = found
        self.done, self.seconds, self.potential.gradients = saved["done"], saved["seconds"], saved["gradients"]
        self.generator.set_state(tensors.pop("generator"))
        self.state = {name: tensor.to(model.device) for name, tensor in tensors.items()}

    def run(self) -> Tensor:
        """All steps that are left; returns the weights ``[C, P]`` at the end."""
        settings, state = self.settings, self.state
        before, saved = time.monotonic() - self.seconds, time.monotonic()
        shown = bar(settings.steps, self.label, "step", show=settings.progress, done=self.done)
        with shown, SafePoints(self.save) as safe_point:
            while self.done < settings.steps:
                value = self.adam.advance(self.target, state, self.done, self.generator)
                loss = value / self.potential.effective_size
                record = self.done * self.records // settings.steps
                first, last = self._first(record), self._first(record + 1)
                # A mean over the steps of the record: one mini-batch alone is noise.
                state["loss"][:, record] += torch.where(loss.isfinite(), loss, torch.nan) / (last - first)
                state["skipped"] += ~loss.isfinite()
                self.done += 1
                self.seconds = time.monotonic() - before
                if time.monotonic() - saved > settings.checkpoint_seconds or self.done == settings.steps:
                    self.save()
                    saved = time.monotonic()
                shown.update()
                told = " ".join(f"{one:.4f}" for one in loss.tolist()[:8])
                shown.set_postfix_str(f"loss per event {told}{' ...' if len(loss) > 8 else ''}", refresh=False)
                safe_point()
        return self.target.theta(state["position"])

    def _first(self, record: int) -> int:
        """The first step of a record."""
        return -(-record * self.settings.steps // self.records)

    def save(self) -> None:
        """Write the checkpoint, if there is to be one."""
        if self.settings.checkpoint is not None:
            saved = {"done": self.done, "seconds": self.seconds, "gradients": self.potential.gradients}
            tensors = self.state | {"generator": self.generator.get_state()}
            save_checkpoint(self.settings.checkpoint, self.identity, saved, tensors)

    def curve(self) -> History:
        """The training curve: ``loss [C, records]`` in nats per event, and where each mean ends.

        That is ``step [records]``, and ``learning_rate [records]`` is the rate there.
        """
        steps = np.array([self._first(record + 1) for record in range(self.records)], dtype=np.float64)
        rates = np.array([self.adam.rate(int(step) - 1) for step in steps])
        return {"loss": self.state["loss"].cpu().numpy(), "step": steps, "learning_rate": rates}

    def posterior(self, weights: WeightPosterior, history: History, **entries: Any) -> Posterior:
        """The result of the run, with what every run of Adam tells of itself."""
        return self.settings._posterior(
            self.potential.model,
            weights,
            self.curve() | history,
            self.data,
            training_events=self.potential.size,
            effective_size=float(self.potential.effective_size),
            gradients=self.potential.gradients,
            seconds=self.seconds,
            launch=self.target.told,
            compiled=self.potential.compiled.told,
            **entries,
        )
