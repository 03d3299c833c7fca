"""A bounded buffer of events, each of which is used a fixed number of times and then makes room for another one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pyrogen.inference.run.stream import Rows

NAMES = ("events", "weights", "context", "left", "numbers")


class EventBuffer:
    """Events in places; which event stands where does not matter, for batches are drawn at random.

    Args:
        rows: the first events; there are as many places.
        passes: how often every event is used.
        dtype: of events and conditions.
        weight_dtype: of the weights.
        device: of all of them.

    Attributes:
        events: ``[B, d]``; those in a place whose event is used up are stale.
        weights: ``[B]`` or None.
        context: ``[B, k]`` or None.
        left: how often the event in each place is still to be used, ``[B]``; 0: the place is free.
        numbers: which event of the stream it is, counted from 0, ``[B]``.
    """

    def __init__(
        self, rows: Rows, passes: int, dtype: torch.dtype, weight_dtype: torch.dtype, device: torch.device
    ) -> None:
        size = len(rows)
        self.passes = passes
        self.events = rows.events.to(device, dtype, copy=True)
        self.weights = None if rows.weights is None else rows.weights.to(device, weight_dtype, copy=True)
        self.context = None if rows.context is None else rows.context.to(device, dtype, copy=True)
        self.left = torch.full((size,), passes, dtype=torch.int32, device=device)
        self.numbers = torch.arange(size, device=device)

    @property
    def free(self) -> int:
        """Number of free places."""
        return int((self.left == 0).sum())

    def add(self, rows: Rows, first: int) -> None:
        """Put events into free places.

        Args:
            rows: the events, no more than there are free places.
            first: number of the first of them in the stream.
        """
        places = (self.left == 0).nonzero()[: len(rows), 0]
        self.events[places] = rows.events.to(self.events)
        if self.weights is not None and rows.weights is not None:
            self.weights[places] = rows.weights.to(self.weights)
        if self.context is not None and rows.context is not None:
            self.context[places] = rows.context.to(self.context)
        self.left[places] = self.passes
        self.numbers[places] = torch.arange(first, first + len(rows), device=self.numbers.device)

    def draw(self, batch_size: int) -> Tensor:
        """Places ``[M]`` of a batch of different events, drawn from the global random state; each is then used once.

        M is ``batch_size``, or what is left.
        """
        there = self.left.nonzero()[:, 0]
        rows = there[torch.randperm(len(there))[:batch_size].to(there.device)]
        self.left[rows] -= 1
        return rows

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds."""
        found = {name: getattr(self, name) for name in NAMES}
        return {name: value for name, value in found.items() if value is not None}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what :meth:`tensors` gave, in place: others look at these tensors."""
        for name, value in tensors.items():
            getattr(self, name).copy_(value)
