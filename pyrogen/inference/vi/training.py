"""The training loop of stochastic variational inference."""

from __future__ import annotations

import inspect
import math
import sys
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyro
import torch
from torch import Tensor
from tqdm import tqdm

from pyrogen.bayes.guide import ELBO, AutoNormal, start_at_initial_weights
from pyrogen.bayes.model import BayesianFlow, normalise_weights
from pyrogen.inference.run.checkpoint import digest, load_checkpoint, run_identity, save_checkpoint
from pyrogen.inference.run.data import TrainingData
from pyrogen.inference.runs import run_info
from pyrogen.posterior.posterior import Posterior
from pyrogen.posterior.weights import WeightPosterior
from pyrogen.schedules import learning_rate_factor
from pyrogen.seeds import stream

if TYPE_CHECKING:
    from pyrogen.inference.vi.svi import SVI

HISTORY = ("loss", "nll", "kl", "validation_nll", "learning_rate", "skipped_steps", "seconds")
MOST_SKIPPED = 20  # steps in a row without a finite gradient, before the training is given up


class TrainingDivergedError(RuntimeError):
    """The loss or its gradient was NaN or infinite for many steps in a row."""


@dataclass
class Training:
    """One run of :class:`~pyrogen.SVI`: its tensors, its random numbers and its curve."""

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
        torch.manual_seed(stream(svi.seed, 0))
        order = torch.randperm(n)
        self.training, self.validation = order[held_out:], order[:held_out]
        self.weights = None if self.data.weights is None else self._normalised()
        # The ELBO divides by N, for weighted events by the effective sample size.
        self.effective_size = self.size if self.weights is None else float(self.weights[self.training].sum())
        self.steps_per_epoch = self.size // svi.batch_size
        self.guide = _make_guide(svi, self.model)
        example = self.data.events[:1], None, None if self.data.context is None else self.data.context[:1]
        with pyro.poutine.block():
            self.guide(*example)  # autoguides make their parameters when they first see the model
        self.widths_start = round(svi.widths_after * svi.epochs * self.steps_per_epoch)
        initial_guide = {name: digest(value) for name, value in self.guide.state_dict().items()}
        self.identity = run_identity(svi.describe(), self.model, self.data, initial_guide=initial_guide)
        self.local, self.local_reason = self._local()
        self.elbo = ELBO(local=False, num_particles=svi.num_particles, kl_weight=svi.kl_weight)
        means: list[Tensor] = []
        widths: list[Tensor] = []
        for name, parameter in self.guide.named_parameters():
            (widths if "scale" in name or "cov" in name else means).append(parameter)
        groups = [{"params": means, "lr": svi.lr}, {"params": widths, "lr": svi.lr_widths}]
        self.optimizer = torch.optim.Adam(groups, betas=svi.betas)

    def _normalised(self) -> Tensor:
        """Weights of all events in units in which those for training sum to their effective sample size."""
        assert self.data.weights is not None
        for what, rows in (("training", self.training), ("validation", self.validation)):
            total = float(self.data.weights[rows].sum())
            if len(rows) and not total > 0:
                raise ValueError(
                    f"the weights of the {len(rows)} {what} events do not have a positive sum, but {total:.6g}; "
                    "give another seed or validation fraction, or more events"
                )
        chosen = self.data.weights[self.training]
        return self.data.weights * (normalise_weights(chosen).sum() / chosen.sum())

    def _local(self) -> tuple[bool, str]:
        if not self.svi.local_reparameterization:
            return False, "switched off"
        if not isinstance(self.guide, AutoNormal):
            return False, f"{type(self.guide).__name__} has no independent Normal posterior under the site's own name"
        obstacle = self.model.local_obstacle()
        return obstacle is None, obstacle or "activations drawn per event"

    def run(self) -> Posterior:
        """Train from the beginning or the checkpoint to the end."""
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
                torch.manual_seed(stream(svi.seed, epoch + 1))
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
        warmup = round(svi.warmup * total)
        means, widths = self.optimizer.param_groups
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        nll_sum = kl_sum = factor = 0.0
        skipped = in_a_row = 0
        for i in range(self.steps_per_epoch):
            step = epoch * self.steps_per_epoch + i
            factor = learning_rate_factor(svi.schedule, step, total, warmup)
            means["lr"], widths["lr"] = svi.lr * factor, svi.lr_widths * factor if step >= self.widths_start else 0.0
            self.elbo.local = self.local and step >= self.widths_start
            loss, nll, kl = self._loss(order[i * batch_size : (i + 1) * batch_size], self.size)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(parameters, svi.clip or math.inf)
            if math.isfinite(nll + kl + float(norm)):
                self.optimizer.step()
                nll_sum, kl_sum, in_a_row = nll_sum + nll, kl_sum + kl, 0
            else:
                # With activations drawn per event, one event in many millions can overflow. Its step is left out and
                # counted; a loss that stays there is an error.
                skipped, in_a_row = skipped + 1, in_a_row + 1
                if in_a_row >= min(MOST_SKIPPED, self.steps_per_epoch):
                    raise TrainingDivergedError(
                        f"the loss or its gradient was NaN or infinite in {in_a_row} steps in a row, up to epoch "
                        f"{epoch + 1}, step {i + 1} (negative log-likelihood {nll:.6g}, KL/N {kl:.6g}, gradient norm "
                        f"{float(norm):.6g}); try a smaller lr (now {svi.lr}) or clip (now {svi.clip}), with another "
                        "checkpoint file if there is one"
                    )
            bar.update()
            if i % 20 == 0:
                bar.set_postfix_str(
                    f"epoch {epoch + 1}/{svi.epochs}, nll {nll:.4f}, KL/N {kl:.4f}",
                    refresh=False,
                )
        taken = max(self.steps_per_epoch - skipped, 1)
        nll, kl = nll_sum / taken, kl_sum / taken
        return {
            "loss": nll + svi.kl_weight * kl,
            "nll": nll,
            "kl": kl,
            "validation_nll": self._validation_nll(),
            "learning_rate": svi.lr * factor,
            "skipped_steps": float(skipped),
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
        loss = row["validation_nll"] + self.svi.kl_weight * row["kl"]
        moved = len(self.history["loss"]) * self.steps_per_epoch > self.widths_start
        # Before the widths have moved there is no posterior to stop at, however good its means.
        if self.svi.patience is not None and moved and loss < self.best_loss:
            self.best_loss, self.best_epoch = loss, len(self.history["loss"])
            self.best = {name: value.detach().clone() for name, value in self.guide.state_dict().items()}

    def _stopped(self) -> bool:
        """Whether early stopping has waited long enough for a better validation loss."""
        waited = len(self.history["loss"]) - self.best_epoch
        return self.svi.patience is not None and self.best is not None and waited >= self.svi.patience

    def _save(self) -> None:
        assert self.svi.checkpoint is not None
        tensors = {f"guide.{name}": value for name, value in self.guide.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in (self.best or {}).items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
        state = {"history": self.history, "best_loss": self.best_loss, "best_epoch": self.best_epoch}
        save_checkpoint(self.svi.checkpoint, self.identity, state, tensors)

    def _resume(self) -> int:
        """Take up the state in the checkpoint file, if there is one; returns the number of epochs done."""
        found = None if self.svi.checkpoint is None else load_checkpoint(self.svi.checkpoint, self.identity)
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
        return run_info(self.svi, self.data) | {
            "tempered": self.svi.kl_weight != 1,
            "local_reparameterization": self.local,
            "local_reparameterization_reason": self.local_reason,
            "training_events": self.size,
            "effective_size": self.effective_size,
            "validation_events": len(self.validation),
            "epochs_done": len(self.history["loss"]),
            "kept_epoch": self.best_epoch if self.best is not None else len(self.history["loss"]),
        }


def _make_guide(svi: SVI, model: BayesianFlow) -> Any:
    """Build the guide; means start at the flow's own weights and widths small, where the guide takes such arguments."""
    wanted = {"init_loc_fn": start_at_initial_weights(model), "init_scale": svi.init_scale}
    given = svi.guide.keywords if isinstance(svi.guide, partial) else {}
    accepted = inspect.signature(svi.guide).parameters
    return svi.guide(model, **{name: value for name, value in wanted.items() if name in accepted and name not in given})
