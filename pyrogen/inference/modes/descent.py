"""What the backends that follow Adam share: their settings, and its loop with curve, checkpoint and progress bar."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from pyrogen.bayes.model import BayesianFlow
from pyrogen.checks import positive, whole_number
from pyrogen.files import check_writable
from pyrogen.inference.mcmc.chains import State
from pyrogen.inference.mcmc.many import fit_one_by_one
from pyrogen.inference.run.adam import Adam
from pyrogen.inference.run.checkpoint import load_checkpoint, run_identity, save_checkpoint
from pyrogen.inference.run.data import TrainingData
from pyrogen.inference.run.potential import Potential, Whitened
from pyrogen.inference.runs import check_dtype, describe, prepare, run_info
from pyrogen.posterior.posterior import Posterior

RECORDS = 200  # points of a training curve


@dataclass(frozen=True, kw_only=True)
class Optimised(ABC):
    """Settings that the backends which minimise a potential by Adam share.

    Adam moves the weights themselves, not their ratios to the prior's widths: so ``lr`` means what it means in any
    training, and the prior acts through the potential alone.

    Args:
        steps: steps of Adam; its rate falls to zero as a cosine.
        batch_size: events per step and network, drawn with replacement; the whole sample where it has no more.
        lr: Adam's learning rate at the first step.
        seed: seeds starting points and mini-batches; the global random state is left alone.
        dtype: ``torch.float32``, ``torch.float64``, or None for the flow's own.
        device: a torch device.
        compile: compile the gradient with :func:`torch.compile`: half a minute to several, and about half the time per
            gradient; the bits then differ a little.
        checkpoint: HDF5 file with the state of the run. If it exists the run goes on from it, to the same bits as an
            uninterrupted one.
        checkpoint_seconds: time between two checkpoints: what a killed run loses at most.
        progress: show a progress bar.

    Raises:
        ValueError: an argument out of range.
    """

    steps: int = 4000
    batch_size: int = 512
    lr: float = 5e-3
    seed: int = 0
    dtype: torch.dtype | None = None
    device: str = "cpu"
    compile: bool = False
    checkpoint: Any = None
    checkpoint_seconds: float = 30.0
    progress: bool = True

    def __post_init__(self) -> None:
        for name, least in {"steps": 1, "batch_size": 1, "seed": 0}.items():
            object.__setattr__(self, name, whole_number(name, getattr(self, name), least))
        positive(self, "lr", "checkpoint_seconds")
        check_dtype(self)

    def fit(self, model: BayesianFlow, events: Any, weights: Any = None, context: Any = None) -> Posterior:
        """Train, or go on training from the checkpoint.

        Args:
            model: the Bayesian flow; it is copied.
            events: ``[N, d]``, a tensor, an array or an :class:`~pyrogen.EventSample` (whose weights then count).
            weights: event weights ``[N]`` of either sign with a positive sum.
            context: conditions ``[N, k]`` of a conditional flow.

        Returns:
            The posterior, with the training curve in ``posterior.history`` and what is wrong with it in
            ``posterior.info["warnings"]``.

        Raises:
            ValueError: events, weights or context that cannot be trained on, or a foreign checkpoint.
            SamplingError: no network with a finite potential is left.
            OSError: the checkpoint cannot be written.
        """
        if self.checkpoint is not None:
            check_writable(self.checkpoint)
        return self._fit(*prepare(self, model, events, weights, context))

    def fit_many(self, model: BayesianFlow, samples: Any) -> list[Posterior]:
        """Train on R independent samples ``[R, N, d]``, one after another, each with a seed of its own.

        Raises:
            ValueError: samples that cannot be trained on; the first is named.
        """
        return fit_one_by_one(self, model, samples, f"{type(self).__name__} is not batched over samples")

    @abstractmethod
    def _fit(self, model: BayesianFlow, data: TrainingData) -> Posterior:
        """The posterior of a prepared model on checked data."""

    def describe(self) -> dict[str, Any]:
        """All settings that decide the result, in JSON types."""
        return describe(self, "checkpoint", "checkpoint_seconds", "progress")


class Descent:
    """Adam's way down a potential, for C networks at once, in the coordinates of the weights themselves.

    Args:
        settings: the backend.
        model: the prepared Bayesian flow.
        data: its checked training events.
        starts: weights ``[C, P]`` to start from, unless a checkpoint holds later ones.
        seed: seeds the mini-batches.
        likelihood_only: leave out the prior.

    Attributes:
        state: all tensors of the run: ``position [C, P]`` (the weights), Adam's moments, ``loss [C, records]`` in nats
            per event (NaN where a step's was not finite), ``skipped [C]``: steps left out because the potential or
            its gradient was not finite.
    """

    def __init__(
        self,
        settings: Optimised,
        model: BayesianFlow,
        data: TrainingData,
        starts: Tensor,
        seed: int,
        likelihood_only: bool = False,
    ) -> None:
        self.settings, self.data = settings, data
        self.potential = Potential(model, data, likelihood_only=likelihood_only, compile=settings.compile)
        scale = torch.ones_like(self.potential.prior_scale)
        self.target = Whitened(self.potential, torch.zeros_like(scale), scale)
        self.generator = torch.Generator(model.device).manual_seed(seed)
        self.identity = run_identity(settings.describe(), model, data, backend=type(settings).__name__)
        self.adam = Adam(settings.steps, settings.lr, settings.batch_size)
        self.records = min(RECORDS, settings.steps)
        self.done, self.seconds = 0, 0.0
        found = None if settings.checkpoint is None else load_checkpoint(settings.checkpoint, self.identity)
        if found is None:
            curve = torch.zeros(len(starts), self.records, dtype=torch.float64, device=starts.device)
            self.state: State = self.adam.begin(starts) | {"loss": curve, "skipped": torch.zeros_like(curve[:, 0])}
            return
        saved, tensors = found
        self.done, self.seconds, self.potential.gradients = saved["done"], saved["seconds"], saved["gradients"]
        self.generator.set_state(tensors.pop("generator"))
        self.state = {name: tensor.to(model.device) for name, tensor in tensors.items()}

    def run(self) -> Tensor:
        """All steps that are left; returns the weights ``[C, P]`` at the end."""
        settings, state = self.settings, self.state
        before, saved = time.monotonic() - self.seconds, time.monotonic()
        with tqdm(
            total=settings.steps,
            initial=self.done,
            desc=type(settings).__name__,
            unit="step",
            disable=not settings.progress,
            mininterval=0.5 if sys.stderr.isatty() else 30,
        ) as bar:
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
                if settings.checkpoint is not None and (
                    time.monotonic() - saved > settings.checkpoint_seconds or self.done == settings.steps
                ):
                    self.save()
                    saved = time.monotonic()
                bar.update()
                told = " ".join(f"{one:.4f}" for one in loss.tolist()[:8])
                bar.set_postfix_str(f"loss per event {told}{' ...' if len(loss) > 8 else ''}", refresh=False)
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

    def curve(self) -> dict[str, NDArray[np.float64]]:
        """The training curve: ``loss [C, records]`` in nats per event, and the ``step [records]`` each mean ends at."""
        steps = np.array([self._first(record + 1) for record in range(self.records)], dtype=np.float64)
        return {"loss": self.state["loss"].cpu().numpy(), "step": steps}

    def info(self, problems: list[str]) -> dict[str, Any]:
        """How the result came about, in JSON types."""
        return run_info(self.settings, self.data) | {
            "exact": False,
            "training_events": self.potential.size,
            "effective_size": self.potential.effective_size,
            "gradients": self.potential.gradients,
            "seconds": self.seconds,
            "warnings": problems,
        }
