"""Which rows of a batch a part of a flow is evaluated at, where not every event has what the part describes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyrogen.flows.compiled import is_wanted


@dataclass(frozen=True)
class Rows:
    """Rows of a batch of events, along its last dimension but that of the columns.

    Attributes:
        index: ``[..., M]``; None: all rows.
        there: which of these rows count, ``[..., M]``; None: all of them.
    """

    index: Tensor | None
    there: Tensor | None

    @classmethod
    def of(cls, has: Tensor) -> Rows | None:
        """The rows that a part sees, for those that have what it describes, ``has [..., N]``; None: no row at all.

        Rows are taken out of the batch where this is possible (:func:`can_choose`). Otherwise the part sees all rows,
        and those that do not count are masked. Numbers are the same either way, up to rounding.
        """
        if not can_choose(has):
            return cls(None, has)
        if has.ndim == 1:
            index = has.nonzero()[:, 0]
            most = len(index)
        else:  # of several batches, as many rows as the longest of them needs
            most = int(has.sum(-1).max())
            index = torch.sort((~has).byte(), dim=-1, stable=True).indices[..., :most]
        if most == 0:
            return None
        if has.ndim == 1:
            return cls(None if most == len(has) else index, None)
        return cls(None, has) if most == has.shape[-1] else cls(index, has.gather(-1, index))

    def take(self, values: Tensor) -> Tensor:
        """These rows ``[..., M, c]`` of ``values [..., N, c]``."""
        if self.index is None:
            return values
        if self.index.ndim == 1:
            return values[self.index]
        return values.gather(-2, self.index.unsqueeze(-1).expand(*self.index.shape, values.shape[-1]))

    def add(self, total: Tensor, found: Tensor) -> Tensor:
        """``total [..., N]`` with the numbers ``found [..., M]`` of these rows added, where they count."""
        if self.there is not None:
            found = torch.where(self.there, found, 0.0)
        if self.index is None:
            return total + found
        if self.index.ndim == 1:
            return total.index_add(-1, self.index, found)
        return total.scatter_add(-1, self.index, found)

    def put(self, values: Tensor, changed: Tensor) -> Tensor:
        """``values [N, c]`` with these rows replaced by ``changed [M, c]``."""
        return changed if self.index is None else values.index_copy(0, self.index, changed)


def can_choose(has: Tensor) -> bool:
    """Whether rows can be taken out of a batch, whose number is then another one for each batch.

    A card would have to be waited for, and no graph could be recorded; compiled code is made for one number of rows;
    and :func:`torch.func.vmap` does not let a part of its batches through.
    """
    if has.device.type != "cpu" or torch.compiler.is_compiling() or is_wanted():
        return False
    return has.ndim > 0 and torch._C._functorch.maybe_current_level() is None
