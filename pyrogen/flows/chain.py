"""A chain of conditional flows: blocks of columns, each conditional on the blocks before it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyrogen.checks import TEXT, check_memory, door, each, whole, whole_number
from pyrogen.flows.coupling import SETTINGS, check_inputs
from pyrogen.flows.parts import Made, Part, blocks_of_parts, widths_of_parts
from pyrogen.flows.rows import Rows
from pyrogen.printing import Compact
from pyrogen.seeds import stream

SIZES = each(whole(1), "numbers of columns of each block, such as (3, 35, 35, 17)", 1)
_ALL = Rows(None, None)


class ChainFlow(Compact, nn.Module):
    """A normalizing flow of blocks of columns, one after the other::

        log p(x | c) = sum_i log p(block i | all blocks before it, c)

    Every term is a :class:`~pyrogen.CouplingFlow`. It suits features with an order of their own: global ones first, and
    many others that depend on them.

    Args:
        sizes: number of columns of each block; the blocks lie side by side in a row.
        blocks: coupling blocks of every part, or a sequence with one number for each.
        hidden: units of each hidden layer of a coupling block's network, or one such sequence for each part.
        transform: as in :class:`~pyrogen.CouplingFlow`; so are ``base``, ``mixing``, ``bins``, ``bound``, ``clamp``,
            ``activation`` and ``dtype``.
        context: number of conditions per event, which all parts see.
        seed: seeds the initial weights and fixed mixings.

    Raises:
        ValueError: an argument out of range, or one that does not go with the others, with what would be right.
    """

    @door(
        sizes=SIZES,
        context=whole(0),
        base=TEXT,
        **SETTINGS,
    )
    def __init__(
        self,
        sizes: Sequence[int],
        *,
        blocks: int | Sequence[int] = 8,
        hidden: Sequence[int] | Sequence[Sequence[int]] = (64, 64),
        transform: str = "rqs",
        context: int = 0,
        base: str = "normal",
        mixing: str | None = None,
        bins: int = 10,
        bound: float = 5.0,
        clamp: float = 2.0,
        activation: str = "relu",
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        depths, widths = blocks_of_parts(blocks, len(sizes)), widths_of_parts(hidden, len(sizes))
        options: dict[str, Any] = {
            "transform": transform,
            "base": base,
            "mixing": mixing,
            "bins": bins,
            "bound": float(bound),
            "clamp": float(clamp),
            "activation": activation,
        }
        self.config: dict[str, Any] = {
            "sizes": list(sizes),
            "blocks": depths,
            "hidden": widths,
            "context": context,
            **options,
            "seed": seed,
            "dtype": str(dtype).removeprefix("torch."),
        }
        self.features, self.context, self.base = sum(sizes), context, base
        chain = []
        for i, end in enumerate(itertools.accumulate(sizes)):
            own = {"blocks": depths[i], "hidden": widths[i], "seed": stream(seed, "part", i)}
            start = end - sizes[i]
            chain.append(Part(range(start, end), range(start), (), range(1), context, options | own))
        self.parts: Sequence[Part] = nn.ModuleList(chain)  # type: ignore[assignment]
        self.to(dtype)

    @property
    def on_unit_box(self) -> bool:
        """True where the flow's events live in the unit box."""
        return self.base == "uniform"

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log density of events.

        Args:
            x: events ``[..., features]``.
            context: conditions ``[..., context]``, only for a conditional flow.

        Returns:
            ``[...]`` in nats; -inf outside the unit box of a uniform base.
        """
        context = check_inputs(x, context, self.features, self.context)
        return torch.stack([part.flow.log_prob(own, given) for part, own, given in self._given(x, context)]).sum(0)

    def sample(self, n: int, context: Tensor | None = None) -> Tensor:
        """``n`` events ``[n, features]`` through torch's global random state; ``context [n, context]``."""
        n = whole_number("n", n, 0)
        check_memory("n", n, 8.0 * n * self.features, "generate fewer events at a time")
        return self._events(self._latent(n, next(self.parameters())), context)

    def _latent(self, n: int, like: Tensor) -> Tensor:
        """Latent values ``[n, features]`` of the type and on the device of ``like``."""
        return torch.cat([part.flow.latent.sample(n, like) for part in self.parts], -1)

    def _events(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Events ``[n, features]`` of latent values ``z [n, features]``."""
        return self._filled(z, context, lambda part, latent, given: part.flow(latent, given)[0])

    def _filled(self, z: Tensor, context: Tensor | None, made: Made) -> Tensor:
        """Events as :meth:`_events`; ``made`` gives the columns of a part."""
        context = check_inputs(z, context, self.features, self.context)
        found = z[..., :0]
        for part in self.parts:
            conditions = part.conditions(_ALL, found, None, context)
            found = torch.cat([found, made(part, z[..., part.columns], conditions)], -1)
        return found

    def _given(self, x: Tensor, context: Tensor | None) -> Iterator[tuple[Part, Tensor, Tensor | None]]:
        """The parts, each with its columns of events, and what it sees of the others."""
        for part in self.parts:
            yield part, x[..., part.columns], part.conditions(_ALL, x, None, context)

    def extra_repr(self) -> str:
        weights, dtype = sum(p.numel() for p in self.parameters()), next(self.parameters()).dtype
        return (
            f'sizes={self.config["sizes"]}, context={self.context}, base="{self.base}", weights={weights:,}, '
            f"dtype={str(dtype).removeprefix('torch.')}"
        )
