"""Stochastic variational inference on many samples of events in one batch of mean-field guides."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from pyrogen.bayes.guide import AutoNormal
from pyrogen.bayes.model import BayesianFlow
from pyrogen.inference.mcmc.many import ReplicaData, fit_one_by_one, obstacle, prepare_replicas
from pyrogen.inference.run.checkpoint import load_checkpoint, run_identity, save_checkpoint
from pyrogen.inference.run.potential import independent_starts
from pyrogen.inference.runs import run_info
from pyrogen.inference.vi.training import MOST_SKIPPED, TrainingDivergedError
from pyrogen.posterior.posterior import Posterior
from pyrogen.posterior.weights import WeightPosterior
from pyrogen.schedules import learning_rate_factor
from pyrogen.seeds import stream

if TYPE_CHECKING:
    from pyrogen.inference.vi.svi import SVI

HISTORY = ("loss", "nll", "kl", "skipped_steps", "learning_rate", "seconds")


def train_many(svi: SVI, model: BayesianFlow, samples: Any) -> list[Posterior]:
    """What :meth:`~pyrogen.SVI.fit_many` does."""
    reason = obstacle(samples)
    if svi.guide is not AutoNormal:
        reason = "only the mean-field guide pg.AutoNormal is batched"
    elif svi.validation > 0 or svi.num_particles > 1:
        reason = "validation events and several particles are not batched"
    if reason is None:
        model, data = prepare_replicas(svi, model, samples)
        training = ReplicaTraining(svi, model, data)
        reason = training.obstacle
    if reason is not None:
        return fit_one_by_one(svi, model, samples, reason)
    devices = [torch.device(svi.device)] if torch.device(svi.device).type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        return training.run()


@dataclass
class ReplicaTraining:
    """One run on R samples: means ``[R, P]`` and widths ``[R, P]``, trained by the loss of :class:`~pyrogen.SVI`."""

    svi: SVI
    model: BayesianFlow
    data: ReplicaData
    history: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in HISTORY})

    def __post_init__(self) -> None:
        svi = self.svi
        self.samples, self.size, _ = self.data.events.shape
        if self.size < svi.batch_size:
            raise ValueError(
                f"{self.size} training events per sample are fewer than a batch of {svi.batch_size}; "
                f"give a batch_size of at most {self.size} or more events"
            )
        self.steps_per_epoch = self.size // svi.batch_size
        self.widths_start = round(svi.widths_after * svi.epochs * self.steps_per_epoch)
        self.identity = run_identity(svi.describe(), self.model, self.data, backend="SVI on many samples")
        self.prior: Tensor = self.model._buffers["_prior_scales"]  # type: ignore[assignment]
        self.mean = independent_starts(self.model, self.samples, stream(svi.seed, 1)).requires_grad_()
        # A softplus of free numbers, as in Pyro's AutoNormal, so that the learning rates mean the same.
        width = torch.full_like(self.mean, svi.init_scale)
        self.free_width = (width + torch.log(-torch.expm1(-width))).detach().requires_grad_()
        self.local = svi.local_reparameterization and self.model.local_obstacle() is None
        groups = [{"params": [self.mean], "lr": svi.lr}, {"params": [self.free_width], "lr": svi.lr_widths}]
        self.optimizer = torch.optim.Adam(groups, betas=svi.betas)
        self.obstacle = self._obstacle()

    def _obstacle(self) -> str | None:
        try:
            with torch.random.fork_rng(devices=[]):
                for local in {self.local, False}:
                    rows = torch.zeros(self.samples, 2, dtype=torch.long)
                    self._loss(rows, local)[0].sum().backward()
        except Exception as error:  # whatever a foreign flow does that vmap refuses
            return f"{type(error).__name__}: {error}".splitlines()[0]
        self.optimizer.zero_grad(set_to_none=True)
        return None

    def _loss(self, rows: Tensor, local: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, negative log-likelihood and KL/N ``[R]`` in nats per event; ``rows [R, M]`` are the batches."""
        width = F.softplus(self.free_width)
        owner = torch.arange(self.samples, device=rows.device)[:, None]
        events = self.data.events[owner, rows.to(self.data.events.device)]
        log_prob: Tensor
        if local:
            batched = torch.func.vmap(self.model.local_log_prob, randomness="different")
            log_prob = batched(self.mean, width, events)
        else:
            theta = self.mean + width * torch.randn_like(self.mean)
            log_prob = torch.func.vmap(self.model.log_prob)(theta, events)
        nll = -log_prob.mean(1)
        ratio = (width / self.prior).square()
        kl = 0.5 * (ratio + (self.mean / self.prior).square() - 1 - ratio.log()).sum(1) / self.size
        return nll + self.svi.kl_weight * kl, nll, kl

    def run(self) -> list[Posterior]:
        """Train from the beginning or the checkpoint to the end."""
        svi = self.svi
        first = self._resume()
        started = time.monotonic() - (self.history["seconds"][-1] if first else 0.0)
        with tqdm(
            total=svi.epochs * self.steps_per_epoch,
            initial=first * self.steps_per_epoch,
            desc=f"SVI on {self.samples} samples",
            unit="step",
            disable=not svi.progress,
            mininterval=0.5 if sys.stderr.isatty() else 30,
        ) as bar:
            for epoch in range(first, svi.epochs):
                # Every epoch has random numbers of its own, so that a checkpoint needs none.
                torch.manual_seed(stream(svi.seed, epoch + 2))
                row = self._epoch(epoch, bar) | {"seconds": time.monotonic() - started}
                for name in HISTORY:
                    self.history[name].append(row[name])
                if svi.checkpoint is not None and ((epoch + 1) % svi.checkpoint_every == 0 or epoch + 1 == svi.epochs):
                    self._save()
        return [self._posterior(r) for r in range(self.samples)]

    def _epoch(self, epoch: int, bar: tqdm[Any]) -> dict[str, Any]:
        svi = self.svi
        total = svi.epochs * self.steps_per_epoch
        order = torch.rand(self.samples, self.size).argsort(1)
        means, widths = self.optimizer.param_groups
        sums = torch.zeros(3, self.samples, dtype=torch.float64, device=self.mean.device)
        skipped = torch.zeros(self.samples, dtype=torch.float64, device=self.mean.device)
        in_a_row, factor = torch.zeros_like(skipped), 0.0
        for i in range(self.steps_per_epoch):
            step = epoch * self.steps_per_epoch + i
            factor = learning_rate_factor(svi.schedule, step, total, round(svi.warmup * total))
            moving = step >= self.widths_start
            means["lr"], widths["lr"] = svi.lr * factor, svi.lr_widths * factor if moving else 0.0
            self.optimizer.zero_grad(set_to_none=True)
            rows = order[:, i * svi.batch_size : (i + 1) * svi.batch_size]
            parts = self._loss(rows, self.local and moving)
            parts[0].sum().backward()
            finite = self._clip(parts[0].detach().isfinite())
            self._step(finite)
            sums += torch.where(finite, torch.stack([part.detach() for part in parts]).double(), 0.0)
            skipped += ~finite
            in_a_row = torch.where(finite, 0.0, in_a_row + 1)
            if (in_a_row >= min(MOST_SKIPPED, self.steps_per_epoch)).any():
                raise TrainingDivergedError(
                    f"sample {int(in_a_row.argmax())}: the loss or its gradient was NaN or infinite in "
                    f"{int(in_a_row.max())} steps in a row, up to epoch {epoch + 1}; try a smaller lr (now {svi.lr}) "
                    f"or clip (now {svi.clip}), with another checkpoint file if there is one"
                )
            bar.update()
        loss, nll, kl = (sums / (self.steps_per_epoch - skipped).clamp(min=1)).tolist()
        bar.set_postfix_str(
            f"epoch {epoch + 1}/{svi.epochs}, nll {np.mean(nll):.4f}, KL/N {np.mean(kl):.4f}", refresh=False
        )
        rate = [svi.lr * factor] * self.samples
        return {"loss": loss, "nll": nll, "kl": kl, "skipped_steps": skipped.tolist(), "learning_rate": rate}

    def _clip(self, finite: Tensor) -> Tensor:
        """Clip the gradient of every sample by its own norm, and set those that are not finite to zero.

        Returns which samples have a finite gradient, of those with a ``finite`` loss.
        """
        gradients = [parameter.grad for parameter in (self.mean, self.free_width)]
        norm = torch.stack([g.square().sum(1) for g in gradients if g is not None]).sum(0).sqrt()
        finite = finite & norm.isfinite()
        factor = (self.svi.clip or math.inf) / (norm + 1e-6)
        for gradient in gradients:
            if gradient is not None:
                gradient.mul_(factor.clamp(max=1)[:, None])
                gradient[~finite] = 0.0
        return finite

    def _step(self, finite: Tensor) -> None:
        """A step of Adam, which leaves samples without a finite gradient, and their moments, as they were."""
        kept = []
        if not finite.all():
            states = [values for state in self.optimizer.state.values() for values in state.values()]
            tensors = [self.mean, self.free_width, *(values for values in states if values.ndim == 2)]
            kept = [(tensor, tensor.detach()[~finite].clone()) for tensor in tensors]
        self.optimizer.step()
        with torch.no_grad():
            for tensor, rows in kept:
                tensor[~finite] = rows

    def _posterior(self, r: int) -> Posterior:
        width = F.softplus(self.free_width[r])
        history = {
            name: np.asarray(values) if name == "seconds" else np.asarray(values)[:, r]
            for name, values in self.history.items()
        }
        info = run_info(self.svi, self.data) | {
            "data_sha256": self.data.digests[r],
            "sample": r,
            "samples": self.samples,
            "batched": True,
            "tempered": self.svi.kl_weight != 1,
            "local_reparameterization": self.local,
            "training_events": self.size,
            "effective_size": self.size,
            "validation_events": 0,
            "epochs_done": self.svi.epochs,
            "kept_epoch": self.svi.epochs,
        }
        return Posterior(
            self.model, WeightPosterior("mean_field", {"loc": self.mean[r], "scale": width}), history, info
        )

    def _save(self) -> None:
        assert self.svi.checkpoint is not None
        tensors = {"mean": self.mean, "free_width": self.free_width}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
        save_checkpoint(self.svi.checkpoint, self.identity, {"history": self.history}, tensors)

    def _resume(self) -> int:
        """Take up the state in the checkpoint file, if there is one; returns the number of epochs done."""
        found = None if self.svi.checkpoint is None else load_checkpoint(self.svi.checkpoint, self.identity)
        if found is None:
            return 0
        self.history, tensors = found[0]["history"], found[1]
        adam: dict[int, dict[str, Tensor]] = {}
        with torch.no_grad():
            self.mean.copy_(tensors.pop("mean"))
            self.free_width.copy_(tensors.pop("free_width"))
        for name, value in tensors.items():
            _, index, entry = name.split(".")
            adam.setdefault(int(index), {})[entry] = value
        self.optimizer.load_state_dict({"state": adam, "param_groups": self.optimizer.state_dict()["param_groups"]})
        return len(self.history["loss"])
