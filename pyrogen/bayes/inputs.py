"""Events, weights and conditions as the tensors that a model takes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrogen.events.containers import Table, numbers_of, table_of
from pyrogen.events.multiplicity import Multiplicity
from pyrogen.events.validation import as_rows, check_dimensions, check_events
from pyrogen.warn import warn

#: The conditions of a training do not reach the ends of their range: by this fraction of its width others may be
#: outside of those that were drawn.
EDGE = 0.02


def as_tensor(values: Any, dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
    """Events, weights or conditions (tensor, array, list, EventSample or another container) as a tensor."""
    if not isinstance(values, Tensor):
        array = table_of(values, "values").values
        # A copy that torch can share: it knows neither foreign byte orders nor negative strides nor read-only arrays.
        values = torch.as_tensor(np.array(array, dtype=array.dtype.newbyteorder("=")))
    return values.detach().to(dtype=dtype, device=device)


def scaled_weights(weights: Any) -> Tensor:
    """Checked event weights ``[N]`` in units of their mean absolute value: only their ratios matter in a training."""
    found = as_tensor(weights, torch.float64)
    # In these units their squares fit into a float32.
    found = torch.ldexp(found, -torch.frexp(found.abs().max()).exponent.clamp(-1000, 1000))
    return found / found.abs().mean()


def data_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the ``events``, ``weights`` and ``context`` of a training, by which a run knows its data."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {list(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def checked_events(
    events: Any, features: int | None, what: str = "events", multiplicity: Multiplicity | None = None
) -> Table:
    """Events in any container as a checked table ``[N, d]``; ``[N]`` does for one feature.

    Args:
        events: the events.
        features: the d that is needed, if it is known.
        what: how errors call them.
        multiplicity: the layout of events with a varying number of objects that is needed; None: all numbers are
            finite.

    Raises:
        ValueError: as :func:`pyrogen.events.check_events`, or :meth:`pyrogen.events.Multiplicity.check`; events of
            another layout.
        TypeError: no real numbers.
    """
    # A tensor stays on its device.
    table = Table(events) if isinstance(events, Tensor) else table_of(events, what)  # type: ignore[arg-type]
    values = as_rows(table.values, features)
    own = table.multiplicity
    if own is not None and own != multiplicity:
        needed = "rows of finite numbers" if multiplicity is None else f"events of {multiplicity}"
        raise ValueError(f"{what} have the layout {own}; the flow describes {needed}: build pg.MultiplicityFlow for it")
    check_rows(values, features, what, table.names, multiplicity)
    return replace(table, values=values)


def check_rows(
    values: Any,
    features: int | None,
    what: str = "events",
    names: Sequence[str] | None = None,
    multiplicity: Multiplicity | None = None,
) -> None:
    """Check rows ``[N, d]``, an array or a tensor; arguments and errors as of :func:`checked_events`."""
    if multiplicity is None:
        check_events(values, features, what, names)
        return
    table = table_of(values, what).values
    check_dimensions(table, multiplicity.features, what)
    multiplicity.check(table, what, names)


def in_order(
    values: Any, trained: tuple[str, ...] | None, units: tuple[str, ...] | None = None, what: str = "events"
) -> Any:
    """Events or conditions whose columns have the names of the training, in its order; others as they are.

    Args:
        values: in any container.
        trained: names of the columns in the training, where they had any.
        units: their units.
        what: how errors call the values.

    Raises:
        ValueError: other names, or columns in another unit.
    """
    if trained is None or isinstance(values, Tensor):
        return values
    table = table_of(values, what)
    names = named_columns(table)
    if names is None:
        return values
    if sorted(names) != sorted(trained):
        raise ValueError(
            f"the columns of {what} are {names}, but the posterior was trained on {tuple(trained)}; give these"
        )
    order = [names.index(name) for name in trained]
    ordered = table.values if table.values.ndim == 1 else table.values[:, order]
    own = None if table.units is None else tuple(table.units[i] for i in order)
    for name, unit, known in zip(trained, own or (), units or (), strict=False):
        if unit and known and unit != known:
            raise ValueError(f"column {name} is in {unit}, but the posterior was trained in {known}; convert it")
    return replace(table, values=ordered, names=tuple(trained), units=own)


def named_columns(table: Table) -> tuple[str, ...] | None:
    """The names of a table's columns; None where they are ``x0, x1, ...``, which say nothing."""
    default = tuple(f"x{i}" for i in range(len(table.names or ())))
    return None if table.names in (None, default) else table.names


def checked_context(
    context: Any, expected: int | None, n: int, labels: Any = None, spread: bool = True
) -> np.ndarray | Tensor | None:
    """Conditions ``[n, k]`` of n events, or None for a flow without conditions.

    Args:
        context: ``[n, k]``; ``[n]`` does for one condition. One row ``[k]``, or one number for one condition, stands
            for all events.
        expected: the k of the flow; 0: it has no conditions; None: any number.
        n: number of events.
        labels: row labels of the events (pandas index), to which those of the context must fit.
        spread: whether one row may stand for all events.

    Raises:
        ValueError: a context where the flow has none, none where it has one, another shape, NaN or infinity.
        TypeError: no real numbers.
    """
    if expected == 0 and context is not None:
        raise ValueError("context was given, but the flow has no conditions; build it with context=k")
    if expected and context is None:
        many = "numbers" if expected > 1 else "number"
        raise ValueError(f"the flow is conditional on {expected} {many} per event; give context=[{n}, {expected}]")
    if context is None:
        return None
    values = context if isinstance(context, Tensor) else numbers_of(context, "context", labels)
    if expected == 1 and tuple(values.shape) == (n,):
        values = values[:, None]
    elif spread and expected and _is_row(tuple(values.shape), expected):
        row = values.reshape(1, expected)
        values = row.expand(n, -1) if isinstance(row, Tensor) else np.broadcast_to(row, (n, expected))
    check_events(values, expected, what="context")
    if len(values) != n:
        raise ValueError(f"context has {len(values)} rows for {n} events; it needs one row per event")
    return values


def warn_outside(context: Tensor, trained: Sequence[tuple[float, float]] | None, names: Sequence[str] | None) -> None:
    """Warn of conditions ``[n, k]`` outside the range of the training, by more than :data:`EDGE` of its width.

    Args:
        context: the conditions.
        trained: lowest and highest condition of the training, by column; None: not on record.
        names: of the columns, where they have any.
    """
    if trained is None or len(trained) != context.shape[-1]:
        return
    low, high = torch.tensor(trained, dtype=torch.float64, device=context.device).T
    edge = EDGE * (high - low) + 1e-6 * torch.maximum(low.abs(), high.abs())  # of float32
    outside = (context < low - edge) | (context > high + edge)
    if outside.any():
        worst = int(outside.sum(0).argmax())
        name = f"condition {worst}" if names is None else names[worst]
        first = float(context[outside[:, worst], worst][0])
        warn(
            f"{name} is {first:g}, outside of the range of the training, {low[worst]:.4g} to {high[worst]:.4g}, as are "
            f"{outside[:, worst].double().mean():.1%} of the conditions: there the flow extrapolates, and sigma does "
            "not tell how far it is off"
        )


def _is_row(shape: tuple[int, ...], expected: int) -> bool:
    """Whether a shape is that of the conditions of one event."""
    return shape == (expected,) or (expected == 1 and shape == ())
