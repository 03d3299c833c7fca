"""Parts of a chain of conditional flows: each describes some columns of a row, given those before."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyrogen.checks import HIDDEN, NATURAL, each, require, whole_number, whole_or_none
from pyrogen.flows.coupling import CouplingFlow
from pyrogen.flows.rows import Rows

#: What gives the values ``[..., c]`` of the columns of a part, from latent ones and from what the part sees.
Made = Callable[["Part", Tensor, Tensor | None], Tensor]


class Part(nn.Module):
    """A flow of some columns of a row, conditional on columns before them, on the number of objects and on conditions.

    Args:
        columns: that it describes.
        before: columns that it is conditional on.
        angles: which of those are angles from 0 to 1; it sees their cosine and sine.
        numbers: the numbers of objects that its events may have, from the smallest to the largest.
        context: number of conditions.
        options: of its :class:`~pyrogen.CouplingFlow`.
    """

    columns: Tensor
    lines: Tensor
    circles: Tensor

    def __init__(
        self,
        columns: Sequence[int],
        before: Sequence[int],
        angles: Sequence[int],
        numbers: range,
        context: int,
        options: dict[str, Any],
    ) -> None:
        super().__init__()
        circles = [column for column in before if column in angles]
        lines = [column for column in before if column not in angles]
        for name, indices in (("columns", columns), ("lines", lines), ("circles", circles)):
            self.register_buffer(name, torch.tensor(list(indices), dtype=torch.long), persistent=False)
        self.least = numbers[0]
        #: Inputs that tell the number of objects: none where there is one number only.
        self.choices = len(numbers) if len(numbers) > 1 else 0
        seen = len(lines) + 2 * len(circles) + self.choices + context
        periodic = [i for i, column in enumerate(columns) if column in angles]
        self.flow = CouplingFlow(len(columns), context=seen, periodic=periodic, **options)

    def conditions(self, rows: Rows, values: Tensor, number: Tensor | None, context: Tensor | None) -> Tensor | None:
        """What the flow sees of some rows of ``values [..., d]`` with ``number [...]`` objects, ``[..., k]``."""
        values, parts = rows.take(values), []
        if len(self.lines):
            parts.append(values[..., self.lines])
        if len(self.circles):
            angle = 2 * math.pi * values[..., self.circles]
            parts += [torch.cos(angle), torch.sin(angle)]
        if self.choices and number is not None:
            numbers = torch.arange(self.least, self.least + self.choices, device=number.device)
            parts.append((rows.take(number.unsqueeze(-1)) == numbers).to(values.dtype))
        if context is not None:
            parts.append(rows.take(context))
        return torch.cat(parts, -1) if parts else None

    def extra_repr(self) -> str:
        return f"columns {self.columns[0]} to {self.columns[-1]}"


def blocks_of_parts(blocks: int | Sequence[int], parts: int) -> list[int]:
    """Blocks of every part."""
    if whole_or_none(blocks) is not None:
        return [whole_number("blocks", blocks, 1)] * parts
    right = f"a whole number, or one for each of the {parts} parts"
    found = list(each(NATURAL, right)("blocks", blocks))
    require(len(found) == parts, "blocks", blocks, right)
    return found


def widths_of_parts(hidden: Sequence[Any], parts: int) -> list[list[int]]:
    """Hidden layers of every part."""
    right = f"the widths of the hidden layers, such as (64, 64), or such a sequence for each of the {parts} parts"
    own = isinstance(hidden, Sequence) and any(isinstance(entry, Sequence) for entry in hidden)
    if not own:
        return [list(HIDDEN("hidden", hidden))] * parts
    require(len(hidden) == parts, "hidden", hidden, right)
    return [list(HIDDEN("every entry of hidden", entry)) for entry in hidden]
