"""The training of [D] sec. 2: discriminator and generator in turn, for R samples in one batch."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from pyrogen.adversarial.networks import (
    Uniform,
    discriminate,
    discriminator_weights,
    generate,
    generator_weights,
    masks,
)
from pyrogen.adversarial.settings import GANSettings
from pyrogen.inference.problems import TrainingDivergedError
from pyrogen.inference.run.checkpoint import load_checkpoint, save_checkpoint
from pyrogen.inference.run.curves import Curve
from pyrogen.inference.run.stopping import SafePoints
from pyrogen.inference.vi.objective import load_moments, make_adam, moments_of
from pyrogen.progress import bar
from pyrogen.seeds import stream

CURVES = ("discriminator_loss", "generator_loss", "penalty", "seconds")


def gradient_penalty(logits: Tensor, batch: Tensor) -> Tensor:
    """Penalty ``[R]`` on the gradient of the logits phi: arXiv:1705.09367 eq. 21, without its factor gamma / 2.

    ``E_true[(1 - D)^2 |grad phi|^2] + E_generated[D^2 |grad phi|^2]`` with ``D = sigmoid(phi)``: where the
    discriminator is sure and right, its slope is free. The gradient at an event is that of the logits of its whole
    batch, which all depend on the event through the batch statistics.

    Args:
        logits: ``[R, 2, n]`` of a batch of true events and one of generated events.
        batch: the events ``[R, 2, n, d]``.
    """
    (slope,) = torch.autograd.grad(logits.sum(), batch, create_graph=True)
    wrong = torch.stack([torch.sigmoid(-logits[:, 0]), torch.sigmoid(logits[:, 1])], 1)
    return (wrong.square() * slope.square().sum(3)).mean(2).sum(1)


class Training:
    """R trainings in one batch, from the beginning or the checkpoint to the end.

    Args:
        settings: the GAN.
        events: what the networks see of the training events, ``[R, N, d]``.
        seeds: one of every training, which alone decides its random numbers.
        identity: what makes the run this run, for its checkpoint.

    Attributes:
        average: the generators' weights, averaged over the last steps; those that generate.
        history: :data:`CURVES`, one row per epoch: ``[R]``, of ``seconds`` a number.
    """

    def __init__(
        self, settings: GANSettings, events: Tensor, seeds: Sequence[int], identity: Mapping[str, Any]
    ) -> None:
        self.settings, self.events, self.seeds, self.identity = settings, events, seeds, identity
        uniform = self._stream("start")
        features = events.shape[2]
        self.generator = generator_weights(uniform, settings.noise, settings.hidden, features)
        self.discriminator = discriminator_weights(uniform, features, settings.embedding, settings.hidden)
        self.average = {name: value.clone() for name, value in self.generator.items()}
        self.adams = [
            make_adam([[value.requires_grad_() for value in each.values()]], settings.betas)
            for each in (self.generator, self.discriminator)
        ]
        self.history = {name: Curve() for name in CURVES}
        self._unsaved: tuple[dict[str, Any], dict[str, Tensor]] | None = None

    def run(self) -> None:
        """Train to the end.

        Raises:
            TrainingDivergedError: a loss that is NaN or infinite, naming the sample.
        """
        settings, steps = self.settings, self.events.shape[1] // self.settings.batch_size
        first = self._resume()
        started = time.monotonic() - (self.history["seconds"][-1] if first else 0.0)
        label = "GAN" if len(self.seeds) == 1 else f"{len(self.seeds)} GANs"
        shown = bar(settings.epochs * steps, label, "step", show=settings.progress, done=first * steps)
        with shown, SafePoints(self._save_unsaved) as safe_point:
            for epoch in range(first, settings.epochs):
                # Every epoch has random numbers of its own, so that a checkpoint needs none.
                row = self._epoch(epoch, steps, shown, safe_point)
                self.history["seconds"].append(time.monotonic() - started)
                for name, value in row.items():
                    self.history[name].append(value)
                done = epoch + 1
                if settings.checkpoint is not None:
                    self._unsaved = self._state()
                    if done % settings.checkpoint_every == 0 or done == settings.epochs:
                        self._save_unsaved()

    def curves(self, r: int) -> dict[str, np.ndarray]:
        """The curves of training ``r``, ``[epochs]`` by name."""
        table = {name: np.asarray(rows, dtype=np.float64) for name, rows in self.history.items()}
        return {name: rows if rows.ndim == 1 else rows[:, r] for name, rows in table.items()}

    def _stream(self, *name: int | str) -> Uniform:
        return Uniform([stream(seed, "gan", *name) for seed in self.seeds])

    def _epoch(self, epoch: int, steps: int, shown: Any, safe_point: SafePoints) -> dict[str, Any]:
        settings, uniform = self.settings, self._stream("epoch", epoch)
        rate = settings.lr * settings.decay ** (10 * epoch // settings.epochs)
        for adam in self.adams:
            adam.param_groups[0]["lr"] = rate
        n, rows = settings.batch_size, uniform(self.events.shape[1]).argsort(1)
        losses = []
        for i in range(steps):
            chosen = rows[:, i * n : (i + 1) * n, None].expand(-1, -1, self.events.shape[2])
            true = self.events.gather(1, chosen)
            discriminator_loss, penalty = self._discriminator_step(true, uniform)
            losses.append(torch.stack([discriminator_loss, self._generator_step(uniform, epoch * steps + i), penalty]))
            shown.update()
            safe_point()
        means = torch.stack(losses).mean(0)  # [3, R]
        self._check_finite(means, epoch)
        shown.set_postfix_str(
            f"epoch {epoch + 1}/{settings.epochs}, losses {means[0].mean():.3f}, {means[1].mean():.3f}"
        )
        return dict(zip(CURVES, means.tolist(), strict=False))

    def _fake(self, uniform: Uniform) -> Tensor:
        settings, n = self.settings, self.settings.batch_size
        noise = uniform.symmetric(n, settings.noise)
        return generate(self.generator, noise, masks(uniform, n, settings.hidden, settings.dropout))

    def _logits(self, batches: Tensor, uniform: Uniform) -> Tensor:
        rows = batches.shape[1] * batches.shape[2]
        dropped = masks(uniform, rows, self.settings.hidden, self.settings.dropout)
        return discriminate(self.discriminator, batches, dropped)

    def _discriminator_step(self, true: Tensor, uniform: Uniform) -> tuple[Tensor, Tensor]:
        """A step on true events ``[R, n, d]``; returns the cross-entropy and the penalty, ``[R]`` each."""
        settings = self.settings
        with torch.no_grad():
            fake = self._fake(uniform)
        smeared = true + settings.smearing * uniform.symmetric(*true.shape[1:])
        batch = torch.stack([smeared, fake], 1).requires_grad_(settings.penalty > 0)
        logits = self._logits(batch, uniform)
        loss = softplus(-logits[:, 0]).mean(1) + softplus(logits[:, 1]).mean(1)
        penalty = gradient_penalty(logits, batch) if settings.penalty > 0 else torch.zeros_like(loss)
        self._step(1, self.discriminator, loss + 0.5 * settings.penalty * penalty)
        return loss.detach(), penalty.detach()

    def _generator_step(self, uniform: Uniform, step: int) -> Tensor:
        """A step that makes generated events look true; returns the loss ``-log D`` ``[R]``."""
        logits = self._logits(self._fake(uniform)[:, None], uniform)
        loss = softplus(-logits[:, 0]).mean(1)
        self._step(0, self.generator, loss)
        kept = min(self.settings.average, (1 + step) / (10 + step))  # the first steps are soon forgotten
        with torch.no_grad():
            for name, value in self.average.items():
                value.lerp_(self.generator[name], 1 - kept)
        return loss.detach()

    def _step(self, which: int, weights: Mapping[str, Tensor], loss: Tensor) -> None:
        """A step of Adam; the gradients of R trainings do not mix, as each weight is of one of them."""
        self.adams[which].zero_grad(set_to_none=True)
        loss.sum().backward(inputs=list(weights.values()))
        self.adams[which].step()

    def _check_finite(self, means: Tensor, epoch: int) -> None:
        bad = ~means.isfinite().all(0)
        if bad.any():
            r = int(bad.nonzero()[0])
            which = f"sample {r}: " if len(self.seeds) > 1 else ""
            raise TrainingDivergedError(
                f"{which}a loss was NaN or infinite in epoch {epoch + 1} (discriminator {means[0, r]:.6g}, generator "
                f"{means[1, r]:.6g}, gradient penalty {means[2, r]:.6g}); try a smaller lr (now {self.settings.lr}), "
                "with another checkpoint file if there is one"
            )

    def _parts(self) -> dict[str, dict[str, Tensor]]:
        return {"generator": self.generator, "discriminator": self.discriminator, "average": self.average}

    def _state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What a checkpoint holds; a copy, as the run goes on in place."""
        tensors = {f"{part}:{name}": value for part, each in self._parts().items() for name, value in each.items()}
        for i, adam in enumerate(self.adams):
            tensors |= {f"adam{i}:{name}": value for name, value in moments_of(adam).items()}
        history = {name: Curve(np.asarray(rows)) for name, rows in self.history.items()}
        return {"history": history}, {name: value.detach().clone() for name, value in tensors.items()}

    def _save_unsaved(self) -> None:
        """Write the state after the last whole epoch, unless the checkpoint has it already."""
        if self._unsaved is not None:
            assert self.settings.checkpoint is not None
            save_checkpoint(self.settings.checkpoint, self.identity, *self._unsaved)
            self._unsaved = None

    @torch.no_grad()
    def _resume(self) -> int:
        """Take up the state in the checkpoint file, if there is one; returns the number of epochs done."""
        path = self.settings.checkpoint
        found = None if path is None else load_checkpoint(path, self.identity)
        if found is None:
            return 0
        state, tensors = found
        self.history = {name: state["history"][name] for name in CURVES}
        for part, each in self._parts().items():
            for name, value in each.items():
                value.copy_(tensors[f"{part}:{name}"])
        for i, adam in enumerate(self.adams):
            head = f"adam{i}:"
            load_moments(adam, {name[len(head) :]: value for name, value in tensors.items() if name.startswith(head)})
        return len(self.history["seconds"])
