"""Observables of those events that have the objects they need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..checks import FUNCTION, TENSOR, door, optional, require, whole
from ..printing import Shown
from .multiplicity import LAYOUT, Multiplicity


class OfObjects(Shown):
    """An observable of the events with a certain number of objects; all others are outside of every histogram.

    The function sees the rows of these events only, so NaN that it gives are errors, as anywhere. The second jet's
    pT of all events that have one, and Delta eta of events with exactly two jets::

        layout = pg.events.Multiplicity(shared=6, each=4, most=3)
        pt_2 = pg.events.OfObjects(lambda x: x[:, 10], layout, least=2)
        delta_eta = pg.events.OfObjects(lambda x: x[:, 7] - x[:, 11], layout, least=2, most=2)
        posterior.histograms({"pt": (pt_2, 50, (20, 300)), "delta eta": (delta_eta, 40, (-4, 4))})

    A histogram is a fraction of all events: its sum is the probability of these numbers of objects.

    Args:
        function: events ``[m, d]`` to values ``[m]``.
        multiplicity: the layout of the events.
        least: fewest objects of an event that counts.
        most: most objects; None: as many as there are.

    Raises:
        ValueError: numbers that the layout does not have.
    """

    @door(function=FUNCTION, multiplicity=LAYOUT, least=whole(0), most=optional(whole(0)))
    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        multiplicity: Multiplicity,
        least: int,
        most: int | None = None,
    ) -> None:
        self.function, self.multiplicity, self.least = function, multiplicity, least
        self.most = multiplicity.most if most is None else most
        require(least <= multiplicity.most, "least", least, f"at most {multiplicity.most}, which the layout has")
        require(self.most >= max(least, multiplicity.least), "most", most, f"at least {max(least, multiplicity.least)}")
        for name in ("label", "unit", "edges", "log"):  # what a figure needs to know
            if hasattr(function, name):
                setattr(self, name, getattr(function, name))

    @door(events=TENSOR)
    def missing(self, events: Tensor) -> Tensor:
        """Which events ``[m, d]`` do not count, ``[m]``."""
        layout = self.multiplicity
        right = f"[m, {layout.features}], rows of {layout}, the multiplicity of this observable"
        require(events.ndim == 2 and events.shape[1] == layout.features, "events", list(events.shape), right)
        counts = self.multiplicity.counts(events)
        out = (counts < self.least) | (counts > self.most)
        says = getattr(self.function, "missing", None)
        if says is not None:
            out[~out] = says(events[~out])
        return out

    def __call__(self, events: Tensor) -> Tensor:
        """Values ``[m]`` of events ``[m, d]``; NaN for those that do not count."""
        there = ~self.missing(events)
        found: Any = self.function(events[there])
        found = torch.as_tensor(found)
        if found.shape != (int(there.sum()),):
            raise ValueError(
                f"the observable gave shape {list(found.shape)} for {int(there.sum())} events; it must be [events]"
            )
        dtype = found.dtype if found.is_floating_point() else torch.float64
        values = torch.full((len(events),), torch.nan, dtype=dtype, device=found.device)
        values[there] = found.to(dtype)
        return values

    def __repr__(self) -> str:
        return f"OfObjects({self.function!r}, {self.multiplicity}, {self.least}, {self.most})"


def observable_of(observable: Any, multiplicity: Multiplicity | None) -> Callable[[Tensor], Tensor]:
    """A function of events ``[m, d]``, or a number of a column, as a function that knows which events have its objects.

    A function tells by ``objects`` how many an event must have, as :class:`~pyrogen.events.Observable` does.
    """
    if callable(observable):
        needed = getattr(observable, "objects", 0)
        return OfObjects(observable, multiplicity, needed) if multiplicity is not None and needed else observable
    column = int(observable)
    if multiplicity is None or column < multiplicity.width(multiplicity.least):
        return lambda events: events[:, column]
    needed = 1 + (column - multiplicity.shared) // multiplicity.each
    return OfObjects(lambda events: events[:, column], multiplicity, needed)
