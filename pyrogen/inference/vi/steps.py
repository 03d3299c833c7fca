"""The steps of an epoch: batch, rates, loss, gradient, clipping, Adam and sums, on a card all in one launch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrogen.inference.vi.objective import Objective
from pyrogen.launch import Launch


class Told(NamedTuple):
    """What the steps of an epoch found so far for each of R networks, ``[R]``.

    Attributes:
        nll, kl: sums over the steps that were finite.
        skipped: steps that were not.
        in_a_row: the most of these in a row.
        last: negative log-likelihood, KL over N and gradient norm of the last step, ``[3, R]``.
    """

    nll: NDArray[np.float64]
    kl: NDArray[np.float64]
    skipped: NDArray[np.float64]
    in_a_row: NDArray[np.float64]
    last: NDArray[np.float64]


class Steps:
    """Takes the steps of an objective, and sums up what they find where they run: a card need not wait for a reader.

    Args:
        objective: what is minimised.
    """

    def __init__(self, objective: Objective) -> None:
        self.objective, self.device = objective, objective.device
        networks, steps = objective.networks, objective.steps_per_epoch
        self._number = torch.zeros(1, dtype=torch.long, device=self.device)
        self._batches = torch.zeros(steps, networks, objective.batch_size, dtype=torch.long, device=self.device)
        self._rates = torch.zeros(steps, 2, dtype=torch.float64, device=self.device)
        # Sums of nll and KL, steps left out, those in a row now and at most, and the last step's three numbers.
        self._sums = torch.zeros(8, networks, dtype=torch.float64, device=self.device)
        self._launches = {
            local: Launch(partial(self._step, local), self.device, self._changed, obstacle=objective.unrecorded)
            for local in (False, True)
        }

    @property
    def recorded(self) -> bool:
        """Whether steps run in one launch."""
        return all(launch.recorded for launch in self._launches.values())

    @property
    def told(self) -> str:
        """How the steps run, and why."""
        launches = list(self._launches.values())
        return next((launch.told for launch in launches if not launch.recorded), launches[0].told)

    def begin(self, order: Tensor, rates: Sequence[tuple[float, float]]) -> None:
        """Begin an epoch.

        Args:
            order: rows ``[R, size]`` of the training events of every network.
            rates: learning rates of means and widths in every step.
        """
        steps, networks, batch = self._batches.shape
        chosen = order[:, : steps * batch].reshape(networks, steps, batch).transpose(0, 1)
        self._batches.copy_(chosen)
        self._rates.copy_(torch.tensor(rates, dtype=torch.float64))
        self._sums.zero_()
        self._number.zero_()

    def take(self, local: bool) -> None:
        """The next step of all networks; ``local``: draw activations per event."""
        self._launches[local]()

    def now(self) -> Told:
        """What was found since the beginning of the epoch; a card is waited for."""
        values = self._sums.cpu().numpy()
        return Told(values[0], values[1], values[2], values[4], values[5:])

    def _changed(self) -> Iterable[Tensor]:
        return [self._number, self._sums, *self.objective.changed()]

    @torch.no_grad()
    def _step(self, local: bool) -> tuple[Tensor, ...]:
        rows = self._batches.index_select(0, self._number)[0]
        rates = self._rates.index_select(0, self._number)[0]
        with torch.enable_grad():
            found = self.objective.step(rows, rates, local)
        parts = torch.stack([found.nll, found.kl])
        bad = (~found.finite).double()
        self._sums[:2] += torch.where(found.finite, parts, 0.0)
        self._sums[2] += bad
        # With activations drawn per event, one event in many millions can overflow. Its step is left out and counted;
        # a loss that stays there is an error.
        self._sums[3].add_(1.0).mul_(bad)
        torch.maximum(self._sums[3], self._sums[4], out=self._sums[4])
        self._sums[5:] = torch.stack([found.nll, found.kl, found.norm.double()])
        self._number += 1
        return ()
