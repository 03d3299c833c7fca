"""What a coupling block needs of a transform, and what a transform tells about itself."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from pyrogen.flows.registry import Named
from pyrogen.printing import Compact


@dataclass(frozen=True)
class TransformOptions:
    """What a flow tells the transform of each block, which takes what it needs.

    Attributes:
        base: the flow's latent space, ``"normal"`` or ``"uniform"``.
        bins: bins of a spline, degree of a polynomial.
        bound: the box [-bound, bound] of a transform that acts on a part of the line.
        clamp: bound on a log-scale.
        periodic: which of the transformed features are angles, one truth value each; empty: none.
    """

    base: str = "normal"
    bins: int = 10
    bound: float = 5.0
    clamp: float = 2.0
    periodic: tuple[bool, ...] = ()


class Transform(Named, Compact, nn.Module):
    """An elementwise, invertible map of latent values ``z`` to event values ``x``.

    A subclass ``class Mine(Transform, name="mine")`` sets ``parameters_per_feature`` and implements ``forward`` and
    ``inverse``; its class attributes state what it supports. ``CouplingFlow(transform="mine")`` then knows it. The
    identity at raw parameters near zero is a good start for the training. Arrays that it computes with go into
    :meth:`register_constant`. It gets the :class:`TransformOptions` of its flow through :meth:`from_options`.

    Attributes:
        parameters_per_feature: how many parameters P it takes from the network for each feature.
        fits_unit_box: it can map the unit box onto itself: ``base="uniform"`` is allowed.
        needs_unit_box: it does nothing elsewhere: no other base makes sense.
        can_be_periodic: it heeds ``TransformOptions.periodic``; the circle is the box from ``low`` to ``high``.
        only_gaussian: it takes a Gaussian feature to a Gaussian one, whatever its parameters.
        default_mixing: the mixing of a flow of several features that is told none.
        low, high: the interval that it acts on; outside it is the identity.
    """

    parameters_per_feature: int
    fits_unit_box: ClassVar[bool] = False
    needs_unit_box: ClassVar[bool] = False
    can_be_periodic: ClassVar[bool] = False
    only_gaussian: ClassVar[bool] = False
    default_mixing: ClassVar[str] = "alternate"
    low: float = -math.inf
    high: float = math.inf

    def __init__(self) -> None:
        super().__init__()
        self._exact: dict[str, Tensor] = {}

    @classmethod
    def from_options(cls, options: TransformOptions) -> Self:
        """The transform of a block, from the options of its flow; one without options need not override this."""
        return cls()

    @abstractmethod
    def forward(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``z [..., k]`` with ``parameters [..., k, P]`` to ``x [..., k]`` and log|dx/dz| ``[..., k]``."""

    @abstractmethod
    def inverse(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``x [..., k]`` back to ``z [..., k]``, with log|dz/dx| ``[..., k]``."""

    def register_constant(self, name: str, values: Tensor) -> None:
        """Keep an array of exact numbers as a buffer ``name``: it moves with the module, no ``state_dict`` holds it.

        Args:
            name: of the buffer, which has the floating-point type of the module; see :meth:`constant`.
            values: the numbers in float64.
        """
        self._exact[name] = values
        self.register_buffer(name, values.to(torch.get_default_dtype()), persistent=False)

    def constant(self, name: str, like: Tensor) -> Tensor:
        """The constant in the type of ``like``, to full precision also where that is not the module's type."""
        buffer: Tensor = getattr(self, name)
        return buffer if buffer.dtype == like.dtype else self._exact[name].to(like)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        # Casting a buffer to float32 and back would lose digits: each type is made from the exact numbers.
        for name, exact in self._exact.items():
            setattr(self, name, exact.to(getattr(self, name)))
        return self
