"""Bijections made of others: one after the other, or one for each column."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from ..checks import door, each, instance
from ..printing import listed
from .bijection import Bijection, from_config
from .elementwise import Dequantise
from .multiplicity import Multiplicity
from .padded import PaddedBijection
from .sample import EventSample, EventsLike, as_sample
from .threshold import ThresholdNoise

_FIRST = (Dequantise, ThresholdNoise)
PARTS = each(instance(Bijection, "a bijection of pyrogen.events"), "a sequence of bijections", 1)


def _parts_in_a_line(whole: Composite | PaddedColumns) -> str:
    state = whole.extra_repr()
    return listed(map(repr, whole.parts)) + (f"; {state}" if state else "")


class Composite(Bijection):
    """A bijection made of others, each of which knows its own domain."""

    everywhere = True

    @door(parts=PARTS)
    def __init__(self, parts: Iterable[Bijection]) -> None:
        super().__init__()
        self.parts: Sequence[Bijection] = nn.ModuleList(parts)  # type: ignore[assignment]

    @property
    def fitted(self) -> bool:
        return all(part.fitted for part in self.parts)

    def _summary(self) -> str:
        return _parts_in_a_line(self)

    def config(self) -> dict[str, Any]:
        return {"kind": self.kind, "parts": [part.config() for part in self.parts]}

    @classmethod
    def _from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls([from_config(part) for part in config["parts"]])


class Chain(Composite):
    """Bijections one after the other, the first one nearest to the events.

    Its fit passes the events through and fits each part to what reaches it; parts that are fitted already,
    such as a :class:`UnitBox` with given limits, stay as they are.

    Events with a varying number of objects need parts that know their layout, such as :class:`PaddedColumns`.

    Raises:
        ValueError: a ``Dequantise`` or ``ThresholdNoise`` that is not the first; parts of different layouts, or of one
            and of none.
    """

    kind = "chain"

    def __init__(self, parts: Iterable[Bijection]) -> None:
        super().__init__(parts)
        late = [module for part in self.parts[1:] for module in part.modules() if isinstance(module, _FIRST)]
        if late:
            raise ValueError(
                f"{type(late[0]).__name__} must be first in a Chain: another bijection before it changes its numbers"
            )
        for part in self.parts:
            if part.layout != self.layout:
                raise ValueError(
                    f"{type(part).__name__} is for {_rows_of(part.layout)}, and {type(self.parts[0]).__name__} for "
                    f"{_rows_of(self.layout)}; all parts of a Chain need the same layout. PaddedColumns takes "
                    "bijections of single columns to padded rows"
                )

    @property
    def layout(self) -> Multiplicity | None:  # type: ignore[override]
        return self.parts[0].layout

    def fit(self, events: EventsLike, weights: ArrayLike | Tensor | None = None) -> Self:
        sample = as_sample(events, weights, self.layout)
        x = torch.tensor(sample.values, device=next((buffer.device for buffer in self.buffers()), None))
        names: Sequence[str] = sample.names
        for part in self.parts:
            if not part.fitted:
                part.fit(EventSample(x, names, weights=sample.weights, multiplicity=self.layout))
            part.check(x, names)
            x, names = part(x)[0], part.renamed(names)
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(x.shape[:-1])
        for part in self.parts:
            x, log_jacobian = part(x)
            total = total + log_jacobian
        return x, total

    def inverse(self, u: Tensor) -> tuple[Tensor, Tensor]:
        total = u.new_zeros(u.shape[:-1])
        for part in reversed(self.parts):
            u, log_jacobian = part.inverse(u)
            total = total + log_jacobian
        return u, total

    def renamed(self, names: Sequence[str]) -> Sequence[str]:
        for part in self.parts:
            names = part.renamed(names)
        return names

    def outside(self, x: Tensor, names: Sequence[str]) -> str | None:
        for part in self.parts:
            problem = part.outside(x, names)
            if problem is not None:
                return problem
            x, names = part(x)[0], part.renamed(names)
        return None

    def dequantised(self, x: Tensor, names: Sequence[str], column: int = 0) -> Tensor:
        return self.parts[0].dequantised(x, names, column)


class Columns(Composite):
    """One bijection for each column; each is fitted to its own column, unless it is fitted already.

    Args:
        parts: one bijection per column.
    """

    kind = "columns"

    def fit(self, events: EventsLike, weights: ArrayLike | Tensor | None = None) -> Self:
        sample = as_sample(events, weights)
        self._check(sample.values)
        for i, (part, name) in enumerate(zip(self.parts, sample.names, strict=True)):
            if not part.fitted:
                part.fit(EventSample(sample.values[:, i], [name], weights=sample.weights))
        self.check(sample)
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._each(x, Bijection.__call__)

    def inverse(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return self._each(u, lambda part, values: part.inverse(values))

    def renamed(self, names: Sequence[str]) -> Sequence[str]:
        return _renamed(self.parts, names)

    def outside(self, x: Tensor, names: Sequence[str]) -> str | None:
        self._check(x)
        return _outside(self.parts, x, names)

    def dequantised(self, x: Tensor, names: Sequence[str], column: int = 0) -> Tensor:
        self._check(x)
        return _dequantised(self.parts, x, names, column)

    def _each(self, values: Tensor, act: Callable[[Bijection, Tensor], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        self._check(values)
        pairs = [act(part, values[..., i : i + 1]) for i, part in enumerate(self.parts)]
        return torch.cat([pair[0] for pair in pairs], -1), torch.stack([pair[1] for pair in pairs]).sum(0)

    def _check(self, values: Any) -> None:
        if values.shape[-1] != len(self.parts):
            raise ValueError(f"Columns has {len(self.parts)} bijections; got events of shape {list(values.shape)}")


class PaddedColumns(PaddedBijection):
    """One bijection for each column of rows padded with NaN; each is fitted to the numbers there are in its column.

    Args:
        layout: of the rows.
        parts: one bijection of a single column per column of the row.

    Raises:
        ValueError: another number of parts; in the fit: an object that no event has.
    """

    kind = "padded_columns"

    @door(parts=PARTS)
    def __init__(self, layout: Multiplicity, parts: Iterable[Bijection]) -> None:
        super().__init__(layout)
        self.parts: Sequence[Bijection] = nn.ModuleList(parts)  # type: ignore[assignment]
        if len(self.parts) != layout.features:
            raise ValueError(
                f"parts has {len(self.parts)} bijections; the rows have {layout.features} columns: {layout}"
            )
        for part in self.parts:
            if part.layout is not None:
                raise ValueError(f"{type(part).__name__} is for whole rows; every part must map a single column")

    def _summary(self) -> str:
        return _parts_in_a_line(self)

    @property
    def fitted(self) -> bool:
        return all(part.fitted for part in self.parts)

    def fit(self, events: EventsLike, weights: ArrayLike | Tensor | None = None) -> Self:
        sample = as_sample(events, weights, self.layout)
        counts = self.layout.counts(sample.values)
        for i, (part, name) in enumerate(zip(self.parts, sample.names, strict=True)):
            rows = self.layout.exists(sample.values)[:, i]
            if part.fitted:
                continue
            if not rows.any():
                raise ValueError(
                    f"no event has the object of column {i} ({name}): the {len(rows)} events have at most "
                    f"{int(counts.max())}. Take Multiplicity(most={int(counts.max())}), or more events"
                )
            own = None if sample.weights is None else sample.weights[rows]
            part.fit(EventSample(sample.values[rows, i], [name], weights=own))
        self.check(torch.tensor(sample.values), sample.names)
        return self

    def map(self, x: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        return self._each(x, Bijection.__call__)

    def unmap(self, u: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        return self._each(u, lambda part, values: part.inverse(values))

    def filler(self, x: Tensor) -> Tensor:
        half = torch.full((1,), 0.5, dtype=x.dtype, device=x.device)
        always = self.layout.width(self.layout.least)
        with torch.no_grad():
            return torch.cat([half if i < always else part.inverse(half)[0] for i, part in enumerate(self.parts)])

    def renamed(self, names: Sequence[str]) -> Sequence[str]:
        return _renamed(self.parts, names)

    def outside(self, x: Tensor, names: Sequence[str]) -> str | None:
        return self.misfit(x, names) or _outside(self.parts, self.filled(x), names)

    def dequantised(self, x: Tensor, names: Sequence[str], column: int = 0) -> Tensor:
        new = _dequantised(self.parts, self.filled(x), names, column)
        return torch.where(self.layout.exists(x), new, torch.nan)

    def config(self) -> dict[str, Any]:
        layout, parts = self.layout.config(), [part.config() for part in self.parts]
        return {"kind": self.kind, "layout": layout, "parts": parts}

    @classmethod
    def _from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(Multiplicity.from_config(config["layout"]), [from_config(part) for part in config["parts"]])

    def _each(self, values: Tensor, act: Callable[[Bijection, Tensor], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        pairs = [act(part, values[..., i : i + 1]) for i, part in enumerate(self.parts)]
        return torch.cat([pair[0] for pair in pairs], -1), torch.stack([pair[1] for pair in pairs], -1)


def _renamed(parts: Iterable[Bijection], names: Sequence[str]) -> list[str]:
    """Names after one bijection for each column."""
    return [new for part, name in zip(parts, names, strict=True) for new in part.renamed([name])]


def _outside(parts: Iterable[Bijection], x: Tensor, names: Sequence[str]) -> str | None:
    """What is wrong in the first column of ``x [N, d]`` with values outside of its bijection."""
    problems = (part.outside(x[:, i : i + 1], names[i : i + 1]) for i, part in enumerate(parts))
    return next((problem for problem in problems if problem is not None), None)


def _dequantised(parts: Iterable[Bijection], x: Tensor, names: Sequence[str], column: int) -> Tensor:
    """:meth:`Bijection.dequantised` of each column of ``x [N, d]``, of which the first is ``column`` of the sample."""
    new = [part.dequantised(x[:, i : i + 1], names[i : i + 1], column + i) for i, part in enumerate(parts)]
    return torch.cat(new, -1)


def _rows_of(layout: Multiplicity | None) -> str:
    return "events without NaN" if layout is None else f"rows of {layout}"
