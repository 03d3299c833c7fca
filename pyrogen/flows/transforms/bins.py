"""What splines share: the bins of their box, and the search for the bin of each value."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import ClassVar, Self

import torch
from torch import Tensor

from pyrogen.checks import whole_number
from pyrogen.flows.transforms.base import Transform, TransformOptions


class BinnedSpline(Transform):
    """A monotonic spline on ``[low, high]`` with bins of free widths and heights, the identity outside.

    A new one says how many parameters it takes beyond the ``2 * bins`` for the sizes of the bins
    (:meth:`_more_parameters`), and implements :meth:`_inverse` and :meth:`_forward`, which get rows of N numbers: what
    a CPU computes with fastest.

    Args:
        bins: number of bins, at least 2.
        low: lower edge of the box.
        high: upper edge of the box.
        free_edges: whether the outermost slopes are free.
        periodic: which features are angles, one truth value for each; empty: none.
    """

    fits_unit_box = True
    can_be_periodic = True
    periodic: Tensor | None
    # Edges with slope 1 need larger bins, since a flat bin may not lie beside them.
    smallest: ClassVar[tuple[float, float]] = (0.05, 0.4)
    """Smallest bin as a part of a uniform one: where the edges are free, and where they are not."""

    def __init__(
        self,
        bins: int = 10,
        low: float = -5.0,
        high: float = 5.0,
        free_edges: bool = False,
        periodic: Sequence[bool] = (),
    ) -> None:
        super().__init__()
        bins = whole_number("bins", bins, 2)
        if not low < high:
            raise ValueError(f"the spline's box [{low}, {high}] is empty; low must be below high")
        self.bins, self.low, self.high, self.free_edges = bins, low, high, free_edges
        self.register_buffer("periodic", torch.tensor(list(periodic)) if any(periodic) else None, persistent=False)
        self.min_bin = self.smallest[0 if free_edges else 1] / bins
        self.parameters_per_feature = 2 * bins + self._more_parameters()

    @classmethod
    def from_options(cls, options: TransformOptions) -> Self:
        if options.base == "uniform":
            return cls(options.bins, 0.0, 1.0, free_edges=True, periodic=options.periodic)
        return cls(options.bins, -options.bound, options.bound, periodic=options.periodic)

    def extra_repr(self) -> str:
        text = f"{self.bins} bins on [{self.low:g}, {self.high:g}]"
        if self.free_edges:
            text += ", free edges"
        if self.periodic is not None:
            text += f", {int(self.periodic.sum())} of {len(self.periodic)} periodic"
        return text

    def _sizes(self, raw: Tensor) -> Tensor:
        """Sizes ``[..., 2, bins, k, N]`` of the bins along x and z, from raw parameters ``[..., P, k, N]``."""
        raw = raw[..., : 2 * self.bins, :, :].unflatten(-3, (2, self.bins))
        # A softmax in powers of 2, which take a third of the time.
        powers = (raw - raw.detach().amax(-3, keepdim=True)).mul_(1 / math.log(2)).exp2()
        box = self.high - self.low
        total = powers.sum(-3, keepdim=True)
        scale = box * (1 - self.min_bin * self.bins) / total
        return torch.addcmul(total.new_full((), box * self.min_bin), powers, scale)

    def _knots(self, sizes: Tensor) -> Tensor:
        """Knots ``[..., 2, bins + 1, k, N]`` of bins of these sizes, the edges of the box included."""
        # Adding row by row: torch.cumsum has vector instructions along the last dimension only.
        parts = sizes.unbind(-3)
        low, high = (torch.full_like(parts[0], edge) for edge in (self.low, self.high))
        return torch.stack([*accumulate(parts[:-1], initial=low), high], -3)

    def _places(self, value: Tensor, knots: Tensor) -> Tensor:
        """Where :func:`at` finds both knots of the bin that holds each value, ``[..., 2, k, N]``.

        Args:
            value: inside the box, ``[..., k, N]``.
            knots: those to search, ``[..., bins + 1, k, N]``.
        """
        # 1 for every knot below the value, else 0 (also for NaN); comparisons give truth values, which add up slowly
        beyond = (value.unsqueeze(-3) - knots[..., 1:-1, :, :]).detach().sign_().relu_()
        number = beyond.sum(-3).long()
        row = number.shape[-2:].numel()
        own = number * row + torch.arange(row, device=value.device).view(number.shape[-2:])
        return torch.stack([own, own + row], -3)

    def _corners(self, value: Tensor, axis: int, raw: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """The bin that holds each value: sizes of all bins, :meth:`_places`, corner ``x0, z0`` and sizes ``w, h``.

        Args:
            value: inside the box, ``[..., k, N]``.
            axis: the knots to search: 0 for x (events), 1 for z.
            raw: raw parameters ``[..., P, k, N]``.
        """
        sizes = self._sizes(raw)
        knots = self._knots(sizes)
        both = self._places(value, knots[..., axis, :, :, :])
        (x0, x1), (z0, z1) = (at(each, both).unbind(-3) for each in knots.unbind(-4))
        return sizes, both, (x0, z0, x1 - x0, z1 - z0)

    def inverse(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return _in_rows(self._inverse, x, parameters)

    def forward(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return _in_rows(self._forward, z, parameters)

    @abstractmethod
    def _more_parameters(self) -> int:
        """Parameters of each feature beyond those for the sizes of the bins."""

    @abstractmethod
    def _inverse(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """:meth:`inverse` of ``x [..., k, N]`` with raw parameters ``[..., P, k, N]``."""

    @abstractmethod
    def _forward(self, z: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """:meth:`forward` of ``z [..., k, N]`` with raw parameters ``[..., P, k, N]``."""


def at(rows: Tensor, places: Tensor) -> Tensor:
    """The numbers ``[..., m, k, N]`` at some ``places [..., m, k, N]`` among the numbers of ``rows [..., R, k, N]``."""
    if rows.ndim == 3:  # the fastest way to pick
        return rows.flatten().index_select(0, places.flatten()).view(places.shape)
    return rows.flatten(-3).gather(-1, places.flatten(-3)).view(places.shape)


def _in_rows(
    function: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], values: Tensor, parameters: Tensor
) -> tuple[Tensor, Tensor]:
    """Call a function of ``[..., k, N]`` and ``[..., P, k, N]`` with ``[..., N, k]`` and ``[..., N, k, P]``."""
    if values.ndim == 1:
        found, log_derivative = _in_rows(function, values[None], parameters[None])
        return found[0], log_derivative[0]
    found, log_derivative = function(values.mT.contiguous(), parameters.transpose(-1, -3).contiguous())
    return found.mT, log_derivative.mT
