"""Bijections made of others: one after the other, or one for each column."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from ..checks import door, each, instance
from .bijection import Bijection, from_config
from .elementwise import Dequantise
from .sample import EventSample, EventsLike, as_sample

PARTS = each(instance(Bijection, "a bijection of pyrogen.events"), "a sequence of bijections", 1)


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

    def config(self) -> dict[str, Any]:
        return {"kind": self.kind, "parts": [part.config() for part in self.parts]}

    @classmethod
    def _from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls([from_config(part) for part in config["parts"]])


class Chain(Composite):
    """Bijections one after the other, the first one nearest to the events.

    Its fit passes the events through and fits each part to what reaches it; parts that are fitted already,
    such as a :class:`UnitBox` with given limits, stay as they are.

    Raises:
        ValueError: a ``Dequantise`` that is not the first.
    """

    kind = "chain"

    def __init__(self, parts: Iterable[Bijection]) -> None:
        super().__init__(parts)
        if any(isinstance(module, Dequantise) for part in self.parts[1:] for module in part.modules()):
            raise ValueError(
                "Dequantise must be first in a Chain: another bijection before it changes the whole numbers"
            )

    def fit(self, events: EventsLike, weights: ArrayLike | Tensor | None = None) -> Self:
        sample = as_sample(events, weights)
        x = torch.tensor(sample.values, device=next((buffer.device for buffer in self.buffers()), None))
        names: Sequence[str] = sample.names
        for part in self.parts:
            if not part.fitted:
                part.fit(EventSample(x, names, weights=sample.weights))
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
        return self.parts[0].dequantised(x, names, column) if len(self.parts) else x


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
        return [new for part, name in zip(self.parts, names, strict=True) for new in part.renamed([name])]

    def outside(self, x: Tensor, names: Sequence[str]) -> str | None:
        self._check(x)
        problems = (part.outside(x[:, i : i + 1], names[i : i + 1]) for i, part in enumerate(self.parts))
        return next((problem for problem in problems if problem is not None), None)

    def dequantised(self, x: Tensor, names: Sequence[str], column: int = 0) -> Tensor:
        self._check(x)
        new = [part.dequantised(x[:, i : i + 1], names[i : i + 1], column + i) for i, part in enumerate(self.parts)]
        return torch.cat(new, -1)

    def _each(self, values: Tensor, act: Callable[[Bijection, Tensor], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        self._check(values)
        pairs = [act(part, values[..., i : i + 1]) for i, part in enumerate(self.parts)]
        return torch.cat([pair[0] for pair in pairs], -1), torch.stack([pair[1] for pair in pairs]).sum(0)

    def _check(self, values: Any) -> None:
        if values.shape[-1] != len(self.parts):
            raise ValueError(f"Columns has {len(self.parts)} bijections; got events of shape {list(values.shape)}")
