"""The scales that a network sees: which bijections it gets, and whether its numbers hold what it is given."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from pyrogen.events.bijection import Bijection
from pyrogen.events.multiplicity import Multiplicity
from pyrogen.events.preprocessing import Identity, Standardise
from pyrogen.events.threshold import ThresholdNoise
from pyrogen.events.whitening import WhitenPerMultiplicity
from pyrogen.flows import ShowerFlow

LOST = 1e-4  # a rounding by more than this part of a standard deviation moves what a network sees
SHARE = 0.01  # of the events may be rounded by more


def own_bijection(given: Bijection | str | None, default: Bijection, name: str) -> Bijection:
    """The model's own copy of the argument ``name``: a bijection, ``"auto"`` for the default, or None for none.

    Raises:
        ValueError: another string.
        TypeError: anything else.
    """
    if given is None:
        return Identity()
    if isinstance(given, Bijection):
        return copy.deepcopy(given)
    if isinstance(given, str):
        if given == "auto":
            return default
        raise ValueError(f'unknown {name} {given!r}; give "auto", None or a bijection')
    raise TypeError(f'{name} is {given!r}; give "auto", None or a bijection such as pg.events.UnitBox()')


def default_bijection(flow: nn.Module, multiplicity: Multiplicity | None) -> Bijection:
    """What ``preprocessing="auto"`` means for a flow of plain events, or of a varying number of objects."""
    if isinstance(flow, ShowerFlow):  # which has scales of its own
        return ThresholdNoise(flow.threshold) if flow.threshold else Identity()
    if getattr(flow, "on_unit_box", False):
        return Identity()
    if multiplicity is None:
        return Standardise()
    return WhitenPerMultiplicity(multiplicity, leave=getattr(flow, "unit_columns", ()))


def input_dtype(dtype: torch.dtype, *tables: Tensor | None) -> torch.dtype:
    """The type in which events and conditions ``[N, ...]`` reach the preprocessing of a model of ``dtype``.

    It is that of the model, unless this would round them to another place or to infinity: times of 1.7e9 s that
    spread by 30 s need float64 until their mean is subtracted.
    """
    held = all(table is None or _holds(dtype, table.double()) for table in tables)
    return dtype if held else torch.float64


def _holds(dtype: torch.dtype, values: Tensor) -> bool:
    """Whether ``dtype`` holds float64 numbers ``[N, d]``, but for NaN, without a loss that a network would see."""
    if values.isnan().any():  # objects that are not there
        return all(_holds(dtype, column[~column.isnan()][:, None]) for column in values.T)
    if not len(values):
        return True
    rounded = values.to(dtype).double()
    if not rounded.isfinite().all():
        return False
    moved = (values - rounded).abs()
    spread = values.std(0, correction=0)
    # The second is what happens to numbers below the smallest of the type.
    lost = (moved > LOST * spread) & (spread > 0) | (moved > LOST * values.abs())
    return bool(lost.double().mean(0).max() <= SHARE)
