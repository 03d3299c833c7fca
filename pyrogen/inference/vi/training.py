"""The training loop of variational inference: one for every objective."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrogen.inference.problems import TrainingDivergedError
from pyrogen.inference.run.checkpoint import load_checkpoint, save_checkpoint
from pyrogen.inference.run.curves import Curve
from pyrogen.inference.run.stopping import SafePoints
from pyrogen.inference.vi.objective import Objective
from pyrogen.inference.vi.settings import SVISettings
from pyrogen.inference.vi.steps import Steps, Told
from pyrogen.posterior.info import History
from pyrogen.progress import Bar, bar
from pyrogen.schedules import learning_rate_factor
from pyrogen.seeds import manual_seed, stream

CURVES = ("loss", "nll", "kl", "validation_nll", "learning_rate", "skipped_steps", "seconds")
MOST_SKIPPED = 20  # steps in a row without a finite gradient, before the training is given up
TOLD_EVERY = 20  # steps between two updates of what the progress bar says


class Training:
    """One run of :class:`~pyrogen.SVI`: epochs, schedule, steps left out, early stopping, checkpoint, progress.

    Args:
        settings: the backend.
        objective: what is minimised, for R networks at once.
        identity: what makes the run this run, for its checkpoint.
        label: name of the progress bar.

    Attributes:
        history: :data:`CURVES` and those of the objective, one row per epoch: ``[R]``, of ``seconds`` a number.
        best_epoch: the epoch ``[R]`` that every network was kept at; 0: not kept.
    """

    def __init__(
        self,
        settings: SVISettings,
        objective: Objective,
        identity: Mapping[str, Any],
        label: str,
    ) -> None:
        self.settings, self.objective, self.identity, self.label = settings, objective, identity, label
        self.history = {name: Curve() for name in (*CURVES, *objective.own_curves)}
        self.best_loss = np.full(objective.networks, np.inf)
        self.best_epoch = np.zeros(objective.networks, dtype=int)
        self._unsaved: tuple[dict[str, Any], dict[str, Tensor]] | None = None
        if settings.validation > 0 and not objective.validation_events:
            raise ValueError(f"validation is {settings.validation}, but {type(objective).__name__} holds no events out")
        self.total = settings.epochs * objective.steps_per_epoch
        self.lr_warmup = round(settings.lr_warmup * self.total)
        self.widths_start = round(settings.widths_after * self.total)
        self.steps = Steps(objective)

    def run(self) -> None:
        """Train from the beginning or the checkpoint to the end."""
        settings, steps = self.settings, self.objective.steps_per_epoch
        first = self._resume()
        started = time.monotonic() - (self.history["seconds"][-1] if first else 0.0)
        shown = bar(self.total, self.label, "step", show=settings.progress, done=first * steps)
        with shown, SafePoints(self._save_unsaved) as safe_point:
            for epoch in range(first, settings.epochs):
                if self._stopped(epoch).all():
                    break
                # Every epoch has random numbers of its own, so that a checkpoint needs none.
                manual_seed(stream(settings.seed, self.objective.first_stream + epoch), settings.device)
                # Pyro's own checks read what a card has to be waited for.
                with self.objective.in_epoch(first=epoch == first and not self.steps.recorded):
                    row = self._epoch(epoch, shown, safe_point)
                row["seconds"] = time.monotonic() - started
                for name, curve in self.history.items():
                    curve.append(row[name])
                self._remember_best(row)
                done = epoch + 1
                if settings.checkpoint is not None and (
                    done % settings.checkpoint_every == 0 or done == settings.epochs
                ):
                    self._save()
                elif settings.checkpoint is not None:
                    state, tensors = self._state()
                    self._unsaved = state, {name: value.detach().clone() for name, value in tensors.items()}
        kept = self.best_epoch > 0
        if kept.any():
            self.objective.recall(torch.from_numpy(kept))

    @property
    def epochs_done(self) -> NDArray[np.int_]:
        """Epochs ``[R]`` of every network, up to where it stopped."""
        done = len(self.history["loss"])
        patience = self.settings.patience
        if patience is None:
            return np.full(self.objective.networks, done)
        return np.where(self.best_epoch > 0, np.minimum(done, self.best_epoch + patience), done)

    @property
    def kept_epoch(self) -> NDArray[np.int_]:
        """The epoch ``[R]`` that the result of every network is from."""
        return np.where(self.best_epoch > 0, self.best_epoch, self.epochs_done)

    def curves(self, r: int) -> History:
        """The training curve of network ``r``, ``[epochs]`` by name."""
        done = self.epochs_done[r]
        table = {name: np.asarray(rows, dtype=np.float64) for name, rows in self.history.items()}
        return {name: (rows if rows.ndim == 1 else rows[:, r])[:done] for name, rows in table.items()}

    def _epoch(self, epoch: int, shown: Bar[Any], safe_point: SafePoints) -> dict[str, Any]:
        settings, objective, count = self.settings, self.objective, self.objective.steps_per_epoch
        factors = [self._factor(epoch * count + i) for i in range(count)]
        moving = [epoch * count + i >= self.widths_start for i in range(count)]
        rates = [
            (settings.lr * factor, settings.lr_widths * factor * moves)
            for factor, moves in zip(factors, moving, strict=True)
        ]
        self.steps.begin(objective.shuffled(), rates)
        for i in range(count):
            self.steps.take(objective.local and moving[i])
            shown.update()
            # A card works on while Python looks the other way.
            if not self.steps.recorded or i % TOLD_EVERY == 0 or i == count - 1:
                found = self.steps.now()
                self._give_up(found, epoch, i)
                if i % TOLD_EVERY == 0:
                    nll, kl = found.last[:2].mean(1)
                    told = f"epoch {epoch + 1}/{settings.epochs}, nll {nll:.4f}, KL/N {kl:.4f}"
                    shown.set_postfix_str(told, refresh=False)
            safe_point()
        taken = (count - found.skipped).clip(min=1)
        nll, kl = found.nll / taken, found.kl / taken
        return {
            "loss": (nll + settings.kl_factor * kl).tolist(),
            "nll": nll.tolist(),
            "kl": kl.tolist(),
            "validation_nll": objective.validation_nll(objective.local and moving[-1]).tolist(),
            "learning_rate": [rates[-1][0]] * objective.networks,
            "skipped_steps": found.skipped.tolist(),
            **objective.epoch_figures(),
        }

    def _factor(self, number: int) -> float:
        return learning_rate_factor(self.settings.schedule, number, self.total, self.lr_warmup)

    def _give_up(self, found: Told, epoch: int, i: int) -> None:
        """End a training whose loss stays where it is not finite."""
        r = int(found.in_a_row.argmax())
        if found.in_a_row[r] < min(MOST_SKIPPED, self.objective.steps_per_epoch):
            return
        which = f"sample {r}: " if self.objective.networks > 1 else ""
        nll, kl, norm = found.last[:, r]
        raise TrainingDivergedError(
            f"{which}the loss or its gradient was NaN or infinite in {int(found.in_a_row[r])} steps in a row, up to "
            f"epoch {epoch + 1}, step {i + 1} (negative log-likelihood {nll:.6g}, KL/N {kl:.6g}, gradient norm "
            f"{norm:.6g}); try a smaller lr (now {self.settings.lr}) or clip (now {self.settings.clip}), with another "
            "checkpoint file if there is one"
        )

    def _remember_best(self, row: dict[str, Any]) -> None:
        done = len(self.history["loss"])
        # Before the widths have moved there is no posterior to stop at, however good its means.
        if self.settings.patience is None or done * self.objective.steps_per_epoch <= self.widths_start:
            return
        loss = np.asarray(row["validation_nll"]) + self.settings.kl_factor * np.asarray(row["kl"])
        better = (loss < self.best_loss) & ~self._stopped(done - 1)
        if better.any():
            self.best_loss[better], self.best_epoch[better] = loss[better], done
            self.objective.remember(torch.from_numpy(better))

    def _stopped(self, done: int) -> NDArray[np.bool_]:
        """Which networks ``[R]`` have waited long enough for a better validation loss after ``done`` epochs."""
        waited = done - self.best_epoch
        return (self.best_epoch > 0) & (waited >= (self.settings.patience or math.inf))

    def _save(self) -> None:
        self._unsaved = self._state()
        self._save_unsaved()

    def _save_unsaved(self) -> None:
        """Write the state after the last whole epoch, unless the checkpoint has it already."""
        if self._unsaved is not None:
            assert self.settings.checkpoint is not None
            save_checkpoint(self.settings.checkpoint, self.identity, *self._unsaved)
            self._unsaved = None

    def _state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What a checkpoint holds: numbers in JSON types, and tensors by name."""
        state = {
            "history": self.history,
            "best_loss": self.best_loss.tolist(),
            "best_epoch": self.best_epoch.tolist(),
        }
        return state, self.objective.tensors() | self.objective.adam_tensors()

    def _resume(self) -> int:
        """Take up the state in the checkpoint file, if there is one; returns the number of epochs done."""
        path = self.settings.checkpoint
        found = None if path is None else load_checkpoint(path, self.identity)
        if found is None:
            return 0
        state, tensors = found
        networks = self.objective.networks
        missing = [[math.nan] * networks] * len(state["history"]["loss"])  # curves that older files do not have
        for name in self.history:
            rows = state["history"].get(name, missing)
            # Files of the first version have numbers in place of rows of one number.
            self.history[name] = Curve(rows if name == "seconds" else np.reshape(rows, (len(rows), networks)))
        self.best_loss = np.reshape(state.get("best_loss", self.best_loss), networks).astype(float)
        self.best_epoch = np.reshape(state.get("best_epoch", self.best_epoch), networks).astype(int)
        self.objective.load_adam({name: value for name, value in tensors.items() if name.startswith("adam.")})
        self.objective.load({name: value for name, value in tensors.items() if not name.startswith("adam.")})
        return len(self.history["loss"])
