"""Bijections of rows padded with NaN: events with a varying number of objects.

A padded bijection maps the columns that are there, and leaves NaN where they were, both ways. So ``u`` tells the number
of objects as ``x`` does, and the log-Jacobian sums over what is there.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .bijection import Bijection
from .multiplicity import LAYOUT, Multiplicity


class PaddedBijection(Bijection):
    """A bijection of rows ``[..., d]`` of a :class:`Multiplicity`, NaN in the columns of objects that are not there.

    Outside of its domain are also rows that do not fit the layout: NaN or infinity within an object, an object behind
    one that is not there, too few objects. They get 0 in the columns that are there, and the log-Jacobian -inf.

    A bijection of your own has ``kind``, ``fitted``, ``fit``, ``config``, ``_from_config`` as any has, and :meth:`map`
    and :meth:`unmap` in place of ``forward`` and ``inverse``, :meth:`accepts` in place of ``inside``. They get rows
    without NaN: :meth:`filler` is put into the columns that are not there, and what becomes of it is thrown away. What
    an object becomes must not depend on later objects.

    Args:
        layout: of the rows.
    """

    layout: Multiplicity

    def __init__(self, layout: Multiplicity) -> None:
        super().__init__()
        self.layout = LAYOUT("layout", layout)

    @abstractmethod
    def map(self, x: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """From filled rows ``x [..., d]`` with ``counts [...]`` objects to ``u [..., d]`` and the log-Jacobian.

        The log-Jacobian is ``[..., d]``: one term for each column, of which those that are there are summed.
        """

    @abstractmethod
    def unmap(self, u: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """From filled rows ``u [..., d]`` back to ``x [..., d]`` and the log-Jacobian ``[..., d]`` of this way."""

    def accepts(self, x: Tensor) -> Tensor:
        """Which values of filled rows ``x [..., d]`` are in the domain, ``[..., d]``; all, unless a subclass says."""
        return torch.ones_like(x, dtype=torch.bool)

    def filler(self, x: Tensor) -> Tensor:
        """Numbers ``[d]`` (or one) of the kind of ``x`` that :meth:`map` can take where no object is; 0 if left out."""
        return torch.zeros((), dtype=x.dtype, device=x.device)

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`forward`; events outside get u = 0 in the columns that are there, and the log-Jacobian -inf."""
        u, log_jacobian = nn.Module.__call__(self, x)
        exists = self.layout.exists(x)
        total = torch.where(exists, u, 0.0).sum(-1) + log_jacobian
        there = self.inside(x).all(-1) & total.isfinite()
        # Rows with too few objects as the fewest there may be: whatever comes next finds events.
        least = torch.arange(x.shape[-1], device=x.device) < self.layout.width(self.layout.least)
        blank = torch.where(exists | least, 0.0, torch.nan).to(u)
        return torch.where(there[..., None], u, blank), torch.where(there, log_jacobian, -torch.inf)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._on_filled(x, self.map, self.filled(x))

    def inverse(self, u: Tensor) -> tuple[Tensor, Tensor]:
        exists = self._exists(u)
        # One half is in the range of all elementwise bijections.
        return self._on_filled(u, self.unmap, torch.where(exists, u, 0.5))

    def _on_filled(self, rows: Tensor, act: Any, filled: Tensor) -> tuple[Tensor, Tensor]:
        exists = self.layout.exists(rows)
        new, terms = act(filled, self.layout.counts(rows))
        return torch.where(exists, new, torch.nan), torch.where(exists, terms, 0.0).sum(-1)

    def filled(self, x: Tensor) -> Tensor:
        """Rows with :meth:`filler` where no object is."""
        return torch.where(self._exists(x), x, self.filler(x))

    def _exists(self, rows: Tensor) -> Tensor:
        if not rows.is_floating_point():
            raise ValueError(f"{type(self).__name__} needs floating-point events; got {rows.dtype}")
        if rows.shape[-1:] != (self.layout.features,):
            raise ValueError(
                f"{type(self).__name__} is for rows of {self.layout.features} columns ({self.layout}); got events of "
                f"shape {list(rows.shape)}"
            )
        return self.layout.exists(rows)

    def inside(self, x: Tensor) -> Tensor:
        exists = self._exists(x)
        fits = (x.isfinite() == exists) & (self.layout.counts(x) >= self.layout.least)[..., None]
        return fits & (self.accepts(self.filled(x)) | ~exists)

    def _finite(self, x: Tensor) -> Tensor:
        return self.forward(x)[0].isfinite() | ~self.layout.exists(x)

    def misfit(self, x: Tensor, names: Sequence[str]) -> str | None:
        """What is wrong with rows ``[N, d]`` that do not fit the layout, with the first of them and its column."""
        self._exists(x)  # the number of columns
        try:
            self.layout.check(x.detach().cpu().numpy(), "events", names)
        except ValueError as error:
            return str(error)
        return None

    def outside(self, x: Tensor, names: Sequence[str]) -> str | None:
        return self.misfit(x, names) or super().outside(x, names)
