"""A stream of batches of events as a training reads it: every batch checked, every event counted, none kept."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrogen.bayes.inputs import as_tensor, checked_context, checked_events, named_columns
from pyrogen.bayes.model import BayesianFlow
from pyrogen.bayes.scales import LOST, SHARE
from pyrogen.events import EventSample, check_weights
from pyrogen.events.containers import table_of
from pyrogen.inference.run.data import check_on_support
from pyrogen.inference.run.repeats import Repeats, row_hashes

EMPTY_BATCHES = 1000  # in a row, after which a stream is taken to have ended without saying so


class StreamError(ValueError):
    """A stream gave something that the training cannot take; the text says what, and after how many events."""


@dataclass(frozen=True)
class Rows:
    """Some events of a stream, in float64.

    Attributes:
        events: ``[n, d]``.
        weights: ``[n]`` or None.
        context: conditions ``[n, k]`` or None.
    """

    events: Tensor
    weights: Tensor | None = None
    context: Tensor | None = None

    def __len__(self) -> int:
        return len(self.events)

    def __getitem__(self, part: slice) -> Rows:
        return Rows(*(None if value is None else value[part] for value in self._parts()))  # type: ignore[arg-type]

    def _parts(self) -> list[Tensor | None]:
        return [getattr(self, each.name) for each in fields(self)]

    @property
    def table(self) -> np.ndarray:
        """All numbers of the events side by side, ``[n, d + 1 + k]``; zeros have no sign."""
        columns = [value.reshape(len(self), -1) for value in self._parts() if value is not None]
        return np.ascontiguousarray(torch.cat(columns, 1).cpu().numpy()) + 0.0

    @staticmethod
    def joined(parts: list[Rows]) -> Rows:
        """Parts of a stream in one piece."""
        values = zip(*(part._parts() for part in parts), strict=True)
        return Rows(*(None if its[0] is None else torch.cat(its) for its in values))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Seen:
    """What a training saw of its stream.

    Attributes:
        events: number of events.
        weight, square: sums of their weights and of the squares of these; without weights the number of events.
    """

    events: int = 0
    weight: float = 0.0
    square: float = 0.0

    @property
    def effective_size(self) -> float:
        """``(sum w)^2 / sum w^2``."""
        return self.weight**2 / self.square

    def and_more(self, rows: Rows) -> Seen:
        """With these rows."""
        n = len(rows)
        weight, square = (float(n), float(n)) if rows.weights is None else _sums(rows.weights)
        return Seen(self.events + n, self.weight + weight, self.square + square)


def _sums(weights: Tensor) -> tuple[float, float]:
    return float(weights.sum()), float(weights.square().sum())


class Feed:
    """Reads a stream: batches of any size go in, as many events as are asked for come out, in their order.

    Args:
        model: the Bayesian flow, as the user gave it; :attr:`prepared` is set as soon as there is one.
        stream: the batches.

    Attributes:
        seen: what was given out.
        names, units, context_names: of the columns, as the first batch had them.
        context_range: lowest and highest condition that was given out, by column.
        prepared: the model with the constants of its preprocessing, by which later events are checked.
        spread: standard deviation of the first events, by column.
    """

    def __init__(self, model: BayesianFlow, stream: Iterable[Any]) -> None:
        self.model, self._stream = model, iterator_of(stream)
        self.seen = Seen()
        self.names: tuple[str, ...] | None = None
        self.units: tuple[str, ...] | None = None
        self.context_names: tuple[str, ...] | None = None
        self.context_range: Tensor | None = None
        self.prepared: BayesianFlow | None = None
        self.spread: Tensor | None = None
        self.repeats = Repeats()
        self._digest = hashlib.sha256()
        self._waiting: list[Rows] = []
        self._batches = self._pulled = 0
        self._columns: int | None = None
        self._weighted: bool | None = None
        self._unit: float | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of all numbers that were given out, whatever the sizes of the batches."""
        return self._digest.hexdigest()

    def take(self, n: int) -> Rows | None:
        """The next n events, fewer at the end of the stream, None after it.

        Raises:
            StreamError: a batch that cannot be taken, or events that came before.
        """
        while sum(map(len, self._waiting)) < n:
            batch = self._pull()
            if batch is None:
                break
            self._waiting.append(batch)
        if not self._waiting:
            return None
        together = Rows.joined(self._waiting)
        rows, rest = together[:n], together[n:]
        table = rows.table
        self.repeats.look(row_hashes(table), self.seen.events)
        self._digest.update(table.tobytes())
        self._waiting = [rest] if len(rest) else []
        rows = self._in_units(rows)
        self.seen = self.seen.and_more(rows)
        if rows.context is not None:
            before = [] if self.context_range is None else [self.context_range.T]
            both = torch.cat([rows.context, *before])
            self.context_range = torch.stack([both.amin(0), both.amax(0)], 1)
        return rows

    def _in_units(self, rows: Rows) -> Rows:
        """The rows with weights in units of their mean absolute value among the first events.

        Raises:
            StreamError: the weights up to here have no positive sum.
        """
        if rows.weights is None:
            return rows
        if self._unit is None:
            self._unit = float(rows.weights.abs().mean()) or 1.0
        rows = Rows(rows.events, rows.weights / self._unit, rows.context)
        seen = self.seen.and_more(rows)
        if not (seen.weight > 0 and seen.effective_size >= 1):
            raise StreamError(
                f"the weights of the first {seen.events} events cancel almost completely (sum {seen.weight:.3g} in "
                "units of their mean absolute value); there is nothing left to learn from"
            )
        return rows

    def _pull(self) -> Rows | None:
        """The next batch that has events, checked; None at the end."""
        for _ in range(EMPTY_BATCHES):
            try:
                batch = next(self._stream)
            except StopIteration:
                return None
            where = f"batch {self._batches} of the stream, after {self._pulled} events"
            try:
                rows = self._checked(batch)
            except (ValueError, TypeError) as error:
                raise StreamError(f"{where}: {error}") from error
            self._batches += 1
            if rows is not None:
                self._pulled += len(rows)
                return rows
        raise StreamError(
            f"the stream gave {EMPTY_BATCHES} empty batches in a row after {self._pulled} events; a stream that is at "
            "its end should end"
        )

    def _checked(self, batch: Any) -> Rows | None:
        """The rows of a batch; None where it has none.

        Raises:
            ValueError: other columns, units or kinds of weights than before, or events that cannot be learned from.
        """
        events, context = self._parts(batch)
        if _is_empty(events):
            return None
        self._same_columns(*(named_columns(table_of(events)), table_of(events).units))
        if self.names is not None and named_columns(table_of(events)) != self.names:
            events = EventSample(events, part=0).select(self.names)
        table = checked_events(events, self.model.features or self._columns, multiplicity=self.model.multiplicity)
        n = len(table.values)
        self._columns = table.values.shape[1]
        if self._weighted not in (None, table.weights is not None):
            had, has = ("weights", "none") if self._weighted else ("no weights", "some")
            raise ValueError(f"the events before had {had}, and these have {has}; give all of them weights, or none")
        self._weighted = table.weights is not None
        weights = None
        if table.weights is not None:
            check_weights(table.weights, n, positive_sum=False)
            weights = as_tensor(table.weights, torch.float64)
        conditions = checked_context(context, self.model.context, n, table.labels, spread=False)
        if conditions is not None:
            names = named_columns(table_of(context, "context"))
            if self._batches and names != self.context_names:
                raise ValueError(f"the conditions have the columns {names}, and had {self.context_names} before")
            self.context_names = names
        exact = as_tensor(table.values, torch.float64)
        labels = self.names or tuple(f"x{i}" for i in range(exact.shape[1]))
        dequantised = self.model.preprocessing.dequantised(exact, labels)
        if not torch.allclose(dequantised, exact, rtol=0, atol=0, equal_nan=True):
            raise ValueError(
                "the preprocessing has a Dequantise, which adds the same numbers to every batch of a stream; add "
                "uniform numbers in (-0.5, 0.5) in the stream yourself, and leave it out"
            )
        if self.prepared is not None:
            self._fits(self.prepared, exact, labels)
        return Rows(exact, weights, None if conditions is None else as_tensor(conditions, torch.float64))

    def _parts(self, batch: Any) -> tuple[Any, Any]:
        """Events and conditions of a batch."""
        if isinstance(batch, tuple) and len(batch) == 2 and not hasattr(batch, "_fields"):
            if self.model.context == 0:
                raise ValueError("it is a pair (events, context), but the flow has no conditions; give events alone")
            return batch
        if self.model.context:
            raise ValueError(
                f"the flow is conditional on {self.model.context} numbers per event; every batch must be a pair "
                "(events, context)"
            )
        return batch, None

    def _same_columns(self, names: tuple[str, ...] | None, units: tuple[str, ...] | None) -> None:
        """Check that a batch has the columns of the first one; they may stand in another order."""
        if not self._batches:
            self.names, self.units = names, units
            return
        if sorted(names or ()) != sorted(self.names or ()):
            theirs, ours = (", ".join(its) if its else "no names" for its in (names, self.names))
            raise ValueError(f"its columns are {theirs}, and those before were {ours}; a stream keeps its columns")
        own = dict(zip(names or (), units or (), strict=False))
        for name, unit in zip(self.names or (), self.units or (), strict=False):
            if own.get(name, "") != unit:
                raise ValueError(
                    f"column {name} is in {own.get(name) or 'no unit'}, and was in {unit or 'no unit'} before; convert "
                    "it"
                )

    def _fits(self, model: BayesianFlow, events: Tensor, labels: tuple[str, ...]) -> None:
        """Check that the constants of the first events can take later ones."""
        rounded = events.to(model.input_dtype)
        try:
            check_on_support(model, rounded.to(model.device), labels)
        except ValueError as error:
            raise ValueError(f"{error} (the constants of the preprocessing are those of the first events)") from error
        moved = (events - rounded.double()).abs()
        bad = ((moved > LOST * self.spread) & (self.spread > 0)).double().mean(0) > SHARE  # type: ignore[operator]
        if bad.any():
            raise ValueError(
                f"{rounded.dtype} does not hold column {labels[int(bad.nonzero()[0, 0])]} of these events, though it "
                "held those of the first ones; give dtype=torch.float64, or subtract a constant"
            )


def iterator_of(stream: Any) -> Iterator[Any]:
    """The iterator of a stream of batches.

    Raises:
        TypeError: a single sample, a path, or something that cannot be iterated over.
    """
    right = "an iterator of batches, such as pg.events.stream(path) or a generator"
    if isinstance(stream, (str, os.PathLike)):
        raise TypeError(f"stream is the path {os.fspath(stream)!r}; it must be {right}")
    if isinstance(stream, (Tensor, np.ndarray, EventSample, Mapping)) or hasattr(stream, "columns"):
        raise TypeError(f"stream is one {type(stream).__name__}; it must be {right}. For one sample take fit")
    if not isinstance(stream, Iterable):
        raise TypeError(f"stream is a {type(stream).__name__}; it must be {right}")
    return iter(stream)


def _is_empty(events: Any) -> bool:
    return hasattr(events, "__len__") and not isinstance(events, Mapping) and len(events) == 0
