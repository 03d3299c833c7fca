"""Stochastic variational inference: the backend that trains a guide by the ELBO of [A] eq. 16."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyro
import torch

from pyrogen.bayes.guide import AutoNormal
from pyrogen.bayes.model import BayesianFlow
from pyrogen.checks import is_number, require, whole_number
from pyrogen.files import check_writable
from pyrogen.inference.runs import check_dtype, describe, prepare
from pyrogen.inference.vi.svi_replicas import train_many
from pyrogen.inference.vi.training import Training
from pyrogen.posterior.posterior import Posterior
from pyrogen.schedules import SCHEDULES


@dataclass(frozen=True, kw_only=True)
class SVI:
    """Trains a variational posterior over the weights of a :class:`~pyrogen.BayesianFlow`.

    The loss per event is ``-sum_m w_m log p(x_m|theta) / sum_m w_m + KL(q||prior) / N`` in nats [A eq. 16], with N the
    number of training events (for weighted events the effective sample size), and nothing else divided.

    Args:
        epochs: passes over the training events.
        batch_size: events per step; the incomplete last batch of an epoch is left out (events are shuffled anew).
        lr: Adam's learning rate for posterior means.
        lr_widths: learning rate for posterior widths, which travel from ``init_scale`` to as far as the prior.
        schedule: ``"cosine"``, ``"constant"`` or ``"exponential"`` (to a hundredth).
        warmup: fraction of all steps over which the rates rise linearly from zero.
        widths_after: fraction of all steps before the posterior widths move. First the means find the density, with
            one weight draw per batch (the widths are tiny, and such a step costs half), then the widths grow to what
            the data allow. The loss is the same throughout. Widths that grow from the first step hide the gradient of
            the means: the same number of steps then ends at a worse fit (``benchmarks/head_start.py``).
        betas: Adam's decay rates.
        clip: largest norm of the gradient of the loss per event, or None.
        guide: :class:`~pyrogen.AutoNormal` or any Pyro autoguide class or factory ``model -> guide``.
        init_scale: initial posterior width of every weight, for guides that take one.
        local_reparameterization: draw activations per event instead of weights per batch, where guide and layers
            allow; ``posterior.info["local_reparameterization"]`` says what was done, and why not.
        num_particles: draws averaged per step.
        kl_weight: factor on the KL. Any other than 1 is no Bayesian posterior of these events, and
            ``posterior.info["tempered"]`` says so: with ``kl_weight=T`` every event counts ``1/T`` times, and the
            widths of weights that the data determine shrink by ``sqrt(T)``.
        validation: fraction of the events held out; their negative log-likelihood per event joins the curve.
        patience: stop after this many epochs without a better validation loss, and keep the best; None: never.
        seed: seeds the split, the batches and all noise; the global random state is left alone. The same seed gives
            the same bits on one thread.
        dtype: ``torch.float32``, ``torch.float64``, or None for the flow's own.
        device: a torch device.
        checkpoint: HDF5 file with the state of the run, replaced after every ``checkpoint_every`` epochs. If the file
            exists the run goes on from it, to the same bits as an uninterrupted one.
        checkpoint_every: epochs between two checkpoints.
        progress: show a progress bar.

    Raises:
        ValueError: an argument out of range.
    """

    epochs: int = 300
    batch_size: int = 512
    lr: float = 1e-3
    lr_widths: float = 1e-2
    schedule: str = "cosine"
    warmup: float = 0.02
    widths_after: float = 0.2
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float | None = 10.0
    guide: Callable[..., Any] = AutoNormal
    init_scale: float = 1e-3
    local_reparameterization: bool = True
    num_particles: int = 1
    kl_weight: float = 1.0
    validation: float = 0.0
    patience: int | None = None
    seed: int = 0
    dtype: torch.dtype | None = None
    device: str = "cpu"
    checkpoint: str | os.PathLike[str] | None = None
    checkpoint_every: int = 1
    progress: bool = True

    def __post_init__(self) -> None:
        smallest = {"epochs": 1, "batch_size": 1, "num_particles": 1, "checkpoint_every": 1, "seed": 0}
        if self.patience is not None:
            smallest["patience"] = 1
        for name, least in smallest.items():
            object.__setattr__(self, name, whole_number(name, getattr(self, name), least))
        for name in ("lr", "lr_widths", "init_scale", "kl_weight", "warmup", "widths_after", "validation"):
            require(is_number(getattr(self, name)), name, getattr(self, name), "a number")
            object.__setattr__(self, name, float(getattr(self, name)))
        for name in ("lr", "lr_widths", "init_scale", "kl_weight"):
            require(0 < getattr(self, name) < math.inf, name, getattr(self, name), "positive and finite")
        require(self.schedule in SCHEDULES, "schedule", self.schedule, f"one of {', '.join(SCHEDULES)}")
        require(0 <= self.warmup < 1, "warmup", self.warmup, "a fraction of the steps in [0, 1)")
        require(0 <= self.widths_after < 1, "widths_after", self.widths_after, "a fraction of the steps in [0, 1)")
        require(self.clip is None or self.clip > 0, "clip", self.clip, "positive, or None")
        require(0 <= self.validation < 1, "validation", self.validation, "a fraction of the events in [0, 1)")
        require(
            self.patience is None or self.validation > 0,
            "validation",
            self.validation,
            "positive where patience is given: early stopping needs held-out events",
        )
        check_dtype(self)

    def fit(self, model: BayesianFlow, events: Any, weights: Any = None, context: Any = None) -> Posterior:
        """Train, or go on training from the checkpoint.

        Args:
            model: the Bayesian flow; it is copied, so that several fits start from the same state.
            events: ``[N, d]``, a tensor, an array or an :class:`~pyrogen.EventSample` (whose weights then count).
            weights: event weights ``[N]`` of either sign with a positive sum.
            context: conditions ``[N, k]`` of a conditional flow.

        Returns:
            The posterior, with the training curve in ``posterior.history``.

        Raises:
            ValueError: events, weights or context that cannot be trained on, or a foreign checkpoint.
            TrainingDivergedError: the loss or its gradient was NaN or infinite for 20 steps in a row (a single such
                step is left out, and counted in ``history["skipped_steps"]``).
            OSError: the checkpoint cannot be written.
        """
        if self.checkpoint is not None:
            check_writable(self.checkpoint)
        model, data = prepare(self, model, events, weights, context)
        devices = [torch.device(self.device)] if torch.device(self.device).type == "cuda" else []
        with (
            torch.random.fork_rng(devices=devices),
            pyro.get_param_store().scope(),
        ):
            return Training(self, model, data).run()

    def fit_many(self, model: BayesianFlow, samples: Any) -> list[Posterior]:
        """Train on R independent samples, such as a coverage study needs, in one batch where that is possible.

        Mean-field guides of samples of one size without event weights train together: one step serves all of them, at
        the same batch size and rates as in :meth:`fit`. Anything else trains on one sample after another, and
        ``posterior.info["batched_reason"]`` says why.

        Args:
            model: the Bayesian flow; it is copied. Preprocessing constants that are not yet set are fitted to all
                samples together. Every sample starts from an initialisation of its own.
            samples: R samples of events, ``[R, N, d]`` or a sequence of ``[N, d]``.

        Returns:
            R posteriors, as from :meth:`fit`.

        Raises:
            ValueError: samples that cannot be trained on (the first is named), or a foreign checkpoint.
            TrainingDivergedError: as in :meth:`fit`, naming the sample.
            OSError: the checkpoint cannot be written.
        """
        if self.checkpoint is not None:
            check_writable(self.checkpoint)
        return train_many(self, model, samples)

    def describe(self) -> dict[str, Any]:
        """All settings that decide the result, in JSON types."""
        told = describe(self, "checkpoint", "checkpoint_every", "progress")
        return told | {"guide": _guide_name(self.guide), "betas": list(self.betas)}


def _guide_name(guide: Any) -> str:
    if isinstance(guide, partial):
        arguments = ", ".join(f"{name}={_shown(value)}" for name, value in sorted(guide.keywords.items()))
        return f"{_guide_name(guide.func)}({arguments})"
    return f"{guide.__module__}.{getattr(guide, '__qualname__', type(guide).__qualname__)}"


def _shown(value: Any) -> str:
    """A function by its name: its address would be another one in the next process."""
    return _guide_name(value) if callable(value) else repr(value)
