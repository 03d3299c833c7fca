"""The random numbers of local reparameterization: standard normal, for every unit of every event."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

SHARED = 4  #: events that share the magnitudes of their noise on a CPU


class Noise(NamedTuple):
    """Standard normal numbers for the activations of a batch of events.

    On a CPU normal numbers are expensive: a million take as long as the products of a training step. There
    :data:`SHARED` events share the magnitudes of their noise, with signs drawn for each of them. The noise of an event
    is then exactly N(0, 1), independent from unit to unit, and that of different events is uncorrelated: the gradient
    has the same expectation.

    Attributes:
        values: ``[rows * units]``, one layer after another; rows is the number of events, or of magnitudes.
        signs: ``[SHARED, units]``, 1 or -1; None: every event has values of its own.
    """

    values: Tensor
    signs: Tensor | None

    @classmethod
    def draw(cls, events: int, units: int, like: Tensor, *networks: int) -> Noise:
        """Noise for ``units`` units of every event, from torch's global random state, of the type of ``like``.

        With a number of networks both parts have a first axis for them.
        """
        if like.device.type != "cpu":
            return cls(_normal(*networks, events * units, like=like), None)
        values = _normal(*networks, -(-events // SHARED) * units, like=like)
        signs = _normal(*networks, SHARED, units, like=like)
        return cls(values, torch.ones_like(signs).copysign(signs))

    def layers(self, units: Sequence[int]) -> list[Noise]:
        """The same for every layer by itself, given the numbers of their units."""
        rows = len(self.values) // sum(units)
        values = self.values.split([rows * c for c in units])
        if self.signs is None:
            return [Noise(own, None) for own in values]
        return [Noise(*own) for own in zip(values, self.signs.split(list(units), -1), strict=True)]

    def of_layer(self, events: int, units: int) -> Tensor:
        """The numbers ``[events, units]``, if these are the units of one layer."""
        values = self.values.view(-1, units)
        return values if self.signs is None else (values * self.signs[:, None]).flatten(0, 1)[:events]


def _normal(*shape: int, like: Tensor) -> Tensor:
    """Standard normal numbers of the type of ``like``, on its device."""
    return torch.randn(shape, dtype=like.dtype, device=like.device)
