"""Stochastic variational inference: the backend that trains a guide by the ELBO of [A] eq. 16."""

from __future__ import annotations

import hashlib
import inspect
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor
from tqdm import tqdm

from pyrogen.bayes.guide import ELBO, AutoNormal, start_at_initial_weights
from pyrogen.bayes.local import LocalReparameterizationError
from pyrogen.bayes.model import BayesianFlow, normalise_weights
from pyrogen.files import check_writable
from pyrogen.inference.checkpoint import load_checkpoint, save_checkpoint
from pyrogen.inference.data import TrainingData
from pyrogen.inference.posterior import Posterior
from pyrogen.inference.schedules import SCHEDULES, learning_rate_factor
from pyrogen.inference.weights import WeightPosterior

HISTORY = ("loss", "nll", "kl", "validation_nll", "learning_rate", "seconds")


class TrainingDivergedError(RuntimeError):
    """The loss or its gradient became NaN or infinite."""


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
            one weight draw per batch (the widths are tiny), then the widths grow to what the data allow. Without this
            head start the widths of a deep flow run off to the prior before the means have learned anything.
        betas: Adam's decay rates.
        clip: largest norm of the gradient of the loss per event, or None.
        guide: :class:`~pyrogen.AutoNormal` or any Pyro autoguide class or factory ``model -> guide``.
        init_scale: initial posterior width of every weight, for guides that take one.
        local_reparameterization: draw activations per event instead of weights per batch, where guide and layers
            allow; ``posterior.info["local_reparameterization"]`` says what was done, and why not.
        num_particles: draws averaged per step.
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
    validation: float = 0.0
    patience: int | None = None
    seed: int = 0
    dtype: torch.dtype | None = None
    device: str = "cpu"
    checkpoint: str | os.PathLike[str] | None = None
    checkpoint_every: int = 1
    progress: bool = True

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "num_particles", "checkpoint_every"):
            _require(_is_count(getattr(self, name), 1), name, getattr(self, name), "a whole number of at least 1")
        _require(_is_count(self.seed, 0), "seed", self.seed, "a whole number of at least 0")
        for name in ("lr", "lr_widths", "init_scale"):
            _require(0 < getattr(self, name) < math.inf, name, getattr(self, name), "positive and finite")
        _require(self.schedule in SCHEDULES, "schedule", self.schedule, f"one of {', '.join(SCHEDULES)}")
        _require(0 <= self.warmup < 1, "warmup", self.warmup, "a fraction of the steps in [0, 1)")
        _require(0 <= self.widths_after < 1, "widths_after", self.widths_after, "a fraction of the steps in [0, 1)")
        _require(self.clip is None or self.clip > 0, "clip", self.clip, "positive, or None")
        _require(0 <= self.validation < 1, "validation", self.validation, "a fraction of the events in [0, 1)")
        _require(self.patience is None or _is_count(self.patience, 1), "patience", self.patience, "at least 1, or None")
        _require(
            self.patience is None or self.validation > 0,
            "validation",
            self.validation,
            "positive where patience is given: early stopping needs held-out events",
        )
        _require(
            self.dtype in (None, torch.float32, torch.float64), "dtype", self.dtype, "torch.float32 or torch.float64"
        )

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
            TrainingDivergedError: the loss became NaN or infinite.
            OSError: the checkpoint cannot be written.
        """
        if self.checkpoint is not None:
            check_writable(self.checkpoint)
        data = TrainingData.check(model, events, weights, context, self.dtype or model.dtype, self.device)
        model = model.prepare(data.events, data.weights, dtype=self.dtype, device=self.device)
        _check_on_support(model, data.events)
        devices = [torch.device(self.device)] if torch.device(self.device).type == "cuda" else []
        with (
            torch.random.fork_rng(devices=devices),
            pyro.get_param_store().scope(),
        ):
            return _Run(self, model, data).train()

    def describe(self) -> dict[str, Any]:
        """All settings that decide the result, in JSON types."""
        names = [
            name for name in self.__dataclass_fields__ if name not in ("checkpoint", "checkpoint_every", "progress")
        ]
        settings = {name: getattr(self, name) for name in names}
        return settings | {
            "guide": _guide_name(self.guide),
            "betas": list(self.betas),
            "dtype": None if self.dtype is None else str(self.dtype).removeprefix("torch."),
        }


@dataclass
class _Run:
    """One training: its tensors, its random numbers and its curve."""

    svi: SVI
    model: BayesianFlow
    data: TrainingData
    history: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in HISTORY})
    best: dict[str, Tensor] | None = None
    best_loss: float = math.inf
    best_epoch: int = 0

    def __post_init__(self) -> None:
        svi, n = self.svi, len(self.data.events)
        held_out = round(svi.validation * n)
        if svi.validation > 0 and held_out == 0:
            raise ValueError(f"validation is {svi.validation}: of {n} events that holds out none; give a larger one")
        self.size = n - held_out
        if self.size < svi.batch_size:
            raise ValueError(
                f"{self.size} training events are fewer than a batch of {svi.batch_size}; "
                f"give a batch_size of at most {self.size} or more events"
            )
        _seed(svi.seed, 0)
        order = torch.randperm(n)
        self.training, self.validation = order[held_out:], order[:held_out]
        self.weights = None if self.data.weights is None else self._normalised(self.training)
        # The ELBO divides by N, for weighted events by the effective sample size.
        self.effective_size = self.size if self.weights is None else float(self.weights[self.training].sum())
        self.steps_per_epoch = self.size // svi.batch_size
        self.guide = _make_guide(svi, self.model)
        example = self.data.events[:1], None, None if self.data.context is None else self.data.context[:1]
        with pyro.poutine.block():
            self.guide(*example)  # autoguides make their parameters when they first see the model
        self.local, self.local_reason = self._local()
        self.elbo = ELBO(local=False, num_particles=svi.num_particles)
        means: list[Tensor] = []
        widths: list[Tensor] = []
        for name, parameter in self.guide.named_parameters():
            (widths if "scale" in name or "cov" in name else means).append(parameter)
        groups = [{"params": means, "lr": svi.lr}, {"params": widths, "lr": svi.lr_widths}]
        self.optimizer = torch.optim.Adam(groups, betas=svi.betas)

    def _normalised(self, rows: Tensor) -> Tensor:
        """Weights of all events in units in which those of ``rows`` sum to their effective sample size."""
        assert self.data.weights is not None
        chosen = self.data.weights[rows]
        if not chosen.sum() > 0:
            raise ValueError("the weights of the events left for training do not have a positive sum")
        return self.data.weights * (normalise_weights(chosen).sum() / chosen.sum())

    def _local(self) -> tuple[bool, str]:
        if not self.svi.local_reparameterization:
            return False, "switched off"
        if not isinstance(self.guide, AutoNormal):
            return False, f"{type(self.guide).__name__} has no independent Normal posterior under the site's own name"
        try:
            self.model.check_local()
        except LocalReparameterizationError as error:
            return False, str(error)
        return True, "activations drawn per event"

    def train(self) -> Posterior:
        svi = self.svi
        first = self._resume()
        total = svi.epochs * self.steps_per_epoch
        started = time.monotonic() - (self.history["seconds"][-1] if first else 0.0)
        with tqdm(
            total=total,
            initial=first * self.steps_per_epoch,
            desc="SVI",
            unit="step",
            disable=not svi.progress,
            mininterval=0.5 if sys.stderr.isatty() else 30,  # a log file gets a line now and then
        ) as bar:
            for epoch in range(first, svi.epochs):
                if self._stopped():
                    break
                # Every epoch has random numbers of its own, so that a checkpoint needs none.
                _seed(svi.seed, epoch + 1)
                with pyro.validation_enabled(epoch == first):
                    row = self._epoch(epoch, total, bar)
                row["seconds"] = time.monotonic() - started
                for name in HISTORY:
                    self.history[name].append(row[name])
                self._remember_best(row)
                if svi.checkpoint is not None and ((epoch + 1) % svi.checkpoint_every == 0 or epoch + 1 == svi.epochs):
                    self._save()
        if self.best is not None:
            self.guide.load_state_dict(self.best)
        return Posterior(
            self.model,
            WeightPosterior.from_guide(self.guide, seed=svi.seed),
            history={name: np.asarray(values) for name, values in self.history.items()},
            info=self._info(),
        )

    def _epoch(self, epoch: int, total: int, bar: tqdm[Any]) -> dict[str, float]:
        svi, batch_size = self.svi, self.svi.batch_size
        order = self.training[torch.randperm(self.size)].to(self.data.events.device)
        warmup, widths_start = round(svi.warmup * total), round(svi.widths_after * total)
        means, widths = self.optimizer.param_groups
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        nll_sum = kl_sum = factor = 0.0
        for i in range(self.steps_per_epoch):
            step = epoch * self.steps_per_epoch + i
            factor = learning_rate_factor(svi.schedule, step, total, warmup)
            means["lr"], widths["lr"] = svi.lr * factor, svi.lr_widths * factor if step >= widths_start else 0.0
            self.elbo.local = self.local and step >= widths_start
            loss, nll, kl = self._loss(order[i * batch_size : (i + 1) * batch_size], self.size)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(parameters, svi.clip or math.inf)
            if not math.isfinite(nll + kl + float(norm)):
                raise TrainingDivergedError(
                    f"the loss became NaN or infinite in epoch {epoch + 1}, step {i + 1} (negative log-likelihood "
                    f"{nll:.6g}, KL/N {kl:.6g}, gradient norm {float(norm):.6g}); try a smaller lr (now {svi.lr}) or "
                    f"clip (now {svi.clip})"
                    + ("" if svi.checkpoint is None else f"; {svi.checkpoint} holds the last whole epoch saved")
                )
            self.optimizer.step()
            nll_sum, kl_sum = nll_sum + nll, kl_sum + kl
            bar.update()
            if i % 20 == 0:
                bar.set_postfix_str(
                    f"epoch {epoch + 1}/{svi.epochs}, loss {nll + kl:.4f} = nll {nll:.4f} + KL/N {kl:.4f}",
                    refresh=False,
                )
        nll, kl = nll_sum / self.steps_per_epoch, kl_sum / self.steps_per_epoch
        return {
            "loss": nll + kl,
            "nll": nll,
            "kl": kl,
            "validation_nll": self._validation_nll(),
            "learning_rate": svi.lr * factor,
        }

    def _loss(self, rows: Tensor, size: int) -> tuple[Tensor, float, float]:
        """Loss per event, and its two parts."""
        data = self.data
        loss = self.elbo.differentiable_loss(
            self.model,
            self.guide,
            data.events[rows],
            None if self.weights is None else self.weights[rows],
            None if data.context is None else data.context[rows],
            size=size,
        )
        assert self.elbo.parts is not None
        nll, kl = self.elbo.parts
        return loss / self.effective_size, float(nll) / self.effective_size, float(kl) / self.effective_size

    @torch.no_grad()
    def _validation_nll(self) -> float:
        """Negative log-likelihood per held-out event, in the units of the training's."""
        if not len(self.validation):
            return math.nan
        total = weight = 0.0
        for rows in self.validation.split(4096):
            rows = rows.to(self.data.events.device)
            _, nll, _ = self._loss(rows, len(rows))
            total += nll * self.effective_size
            weight += len(rows) if self.weights is None else float(self.weights[rows].sum())
        return total / weight

    def _remember_best(self, row: dict[str, float]) -> None:
        loss = row["validation_nll"] + row["kl"]
        if self.svi.patience is not None and loss < self.best_loss:
            self.best_loss, self.best_epoch = loss, len(self.history["loss"])
            self.best = {name: value.detach().clone() for name, value in self.guide.state_dict().items()}

    def _stopped(self) -> bool:
        """Whether early stopping has waited long enough for a better validation loss."""
        waited = len(self.history["loss"]) - self.best_epoch
        return self.svi.patience is not None and self.best is not None and waited >= self.svi.patience

    def _identity(self) -> dict[str, Any]:
        """What makes this run this run: a checkpoint of anything else is refused."""
        weights = self.model.initial_theta.cpu().numpy().tobytes()
        return {
            "settings": self.svi.describe(),
            "model": self.model.describe() | {"initial_weights": hashlib.sha256(weights).hexdigest()},
            "data": {"events": list(self.data.events.shape), "sha256": self.data.digest},
        }

    def _save(self) -> None:
        assert self.svi.checkpoint is not None
        tensors = {f"guide.{name}": value for name, value in self.guide.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in (self.best or {}).items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
        state = {"history": self.history, "best_loss": self.best_loss, "best_epoch": self.best_epoch}
        save_checkpoint(self.svi.checkpoint, self._identity(), state, tensors)

    def _resume(self) -> int:
        """Take up the state in the checkpoint file, if there is one; returns the number of epochs done."""
        found = None if self.svi.checkpoint is None else load_checkpoint(self.svi.checkpoint, self._identity())
        if found is None:
            return 0
        state, tensors = found
        self.history, self.best_loss = state["history"], state["best_loss"]
        self.best_epoch = state["best_epoch"]
        groups: dict[str, dict[str, Tensor]] = {"guide": {}, "best": {}, "adam": {}}
        for name, value in tensors.items():
            group, _, rest = name.partition(".")
            groups[group][rest] = value
        self.guide.load_state_dict(groups["guide"])
        self.best = groups["best"] or None
        adam: dict[int, dict[str, Tensor]] = {}
        for name, value in groups["adam"].items():
            index, _, entry = name.partition(".")
            adam.setdefault(int(index), {})[entry] = value
        self.optimizer.load_state_dict({"state": adam, "param_groups": self.optimizer.state_dict()["param_groups"]})
        return len(self.history["loss"])

    def _info(self) -> dict[str, Any]:
        return {
            "backend": "SVI",
            "settings": self.svi.describe(),
            "local_reparameterization": self.local,
            "local_reparameterization_reason": self.local_reason,
            "training_events": self.size,
            "effective_size": self.effective_size,
            "validation_events": len(self.validation),
            "epochs_done": len(self.history["loss"]),
            "kept_epoch": self.best_epoch if self.best is not None else len(self.history["loss"]),
            "data_sha256": self.data.digest,
            "names": self.data.names,
            "units": self.data.units,
        }


def _make_guide(svi: SVI, model: BayesianFlow) -> Any:
    """Build the guide; means start at the flow's own weights and widths small, where the guide takes such arguments."""
    wanted = {"init_loc_fn": start_at_initial_weights(model), "init_scale": svi.init_scale}
    given = svi.guide.keywords if isinstance(svi.guide, partial) else {}
    accepted = inspect.signature(svi.guide).parameters
    return svi.guide(model, **{name: value for name, value in wanted.items() if name in accepted and name not in given})


def _guide_name(guide: Callable[..., Any]) -> str:
    if isinstance(guide, partial):
        arguments = ", ".join(f"{name}={value!r}" for name, value in sorted(guide.keywords.items()))
        return f"{_guide_name(guide.func)}({arguments})"
    return f"{guide.__module__}.{guide.__qualname__}"


def _check_on_support(model: BayesianFlow, events: Tensor) -> None:
    """A flow on the unit box has no density outside: say so before the training meets an infinite loss."""
    if not getattr(model._flow, "on_unit_box", False):
        return
    inner = model._preprocessing(events)[0]
    outside = ((inner < 0) | (inner > 1)).any(-1).nonzero()[:, 0]
    if len(outside):
        first = int(outside[0])
        raise ValueError(
            f"{len(outside)} of {len(events)} events lie outside the unit box of the flow; the first is row {first}: "
            f"{events[first].tolist()}. Give BayesianFlow(preprocessing=pg.events.UnitBox(low, high)), or a flow with "
            'base="normal"'
        )


def _seed(seed: int, stream: int) -> None:
    torch.manual_seed(int(np.random.SeedSequence([seed, stream]).generate_state(1, np.uint64)[0] >> np.uint64(1)))


def _is_count(value: Any, smallest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= smallest


def _require(condition: bool, name: str, value: Any, right: str) -> None:
    if not condition:
        raise ValueError(f"{name} is {value!r}; it must be {right}")
