"""A flow as a density: the same number at every call, and for every event whatever other events come with it."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from pyrogen.seeds import untouched
from pyrogen.warn import warn

CHECKED = 8  # events at which a density is checked
#: How far two calls may differ, as a part of 1 + |log p|: rounding depends on the size of a batch.
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}


class Density(Protocol):
    """What a Bayesian flow is here (its own file imports this one)."""

    @property
    def initial_theta(self) -> Tensor: ...

    def log_prob(self, theta: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor: ...


def in_evaluation_mode(flow: nn.Module) -> nn.Module:
    """Put a flow in evaluation mode, and say so where that changes what it computes.

    In training mode dropout makes a density a random number, and batch normalisation makes it depend on the other
    events of the batch: neither is the density of an event.

    Raises:
        ValueError: batch normalisation that has no running averages, and so mixes events in either mode.
    """
    for name, layer in flow.named_modules():
        if isinstance(layer, _BatchNorm) and layer.running_mean is None:
            raise ValueError(
                f"{name} is a {type(layer).__name__} without running averages: the density of an event would depend on "
                "the other events of its batch. Use track_running_stats=True, or another normalisation"
            )
    changed = [
        f"{name} ({type(layer).__name__})"
        for name, layer in flow.named_modules()
        if layer.training and (isinstance(layer, _BatchNorm) or (isinstance(layer, _DropoutNd) and layer.p > 0))
    ]
    if changed:
        warn(
            f"a Bayesian flow is used in evaluation mode, in training and in predictions: {', '.join(changed)} would "
            "give no density of a single event otherwise. Dropout is off, and batch normalisation takes its running "
            "averages as they are. Call flow.eval() before, to leave out this warning"
        )
    return flow.eval()


def check_density(model: Density, events: Tensor, context: Tensor | None = None) -> None:
    """Check that log densities at some of the ``events [N, d]`` do not change from call to call or with the batch.

    Raises:
        ValueError: they do; there is nothing that a posterior could be a posterior of.
    """
    events, context = events[:CHECKED], None if context is None else context[:CHECKED]
    half = (len(events) + 1) // 2
    parts = [slice(0, half), slice(half, None)] if len(events) > 2 else [slice(None)]
    with untouched(events.device), torch.no_grad():
        first, again = (model.log_prob(model.initial_theta, events, context) for _ in range(2))
        apart = [
            model.log_prob(model.initial_theta, events[rows], None if context is None else context[rows])
            for rows in parts
        ]
    row = first_difference(first, again)
    if row is not None:
        raise ValueError(
            f"the flow gives another density at every call: log p of event {row} is {float(first[row]):.6g}, then "
            f"{float(again[row]):.6g}. Something in it draws random numbers or changes as it is called; switch that off"
        )
    row = first_difference(first, torch.cat(apart))
    if row is not None:
        raise ValueError(
            f"the density of an event depends on the other events of its batch: log p of event {row} is "
            f"{float(first[row]):.6g} with {len(events)} events and {float(torch.cat(apart)[row]):.6g} with {half}. "
            "Something in the flow normalises by the batch; every event needs a density of its own"
        )


def first_difference(one: Tensor, other: Tensor) -> int | None:
    """The first event whose log densities ``[..., N]`` differ by more than rounding; None where none do."""
    tolerance = TOLERANCE.get(one.dtype, 1e-3)
    scale = 1 + torch.minimum(one.abs(), other.abs()).nan_to_num(0.0)
    same = ((one - other).abs() <= tolerance * scale) | (one == other) | (one.isnan() & other.isnan())
    different = (~same).reshape(-1, one.shape[-1]).any(0).nonzero()
    return int(different[0]) if len(different) else None
