"""The affine transform."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor

from pyrogen.flows.transforms.base import Transform, TransformOptions


class Affine(Transform, name="affine"):
    """The affine (RealNVP) transform ``x = z exp(s) + t`` of [A] sec. 2.2.

    ``s = clamp tanh(raw / clamp)`` is softly clamped to (-clamp, clamp): no block can stretch a feature by more than
    ``exp(clamp)``, which keeps the training stable. All raw parameters zero give the identity.

    Args:
        clamp: bound on the log-scale, positive.
    """

    only_gaussian = True
    default_mixing = "rotation"  # where the features are independent, no block that only alternates learns anything
    parameters_per_feature = 2

    def __init__(self, clamp: float = 2.0) -> None:
        super().__init__()
        if not clamp > 0:
            raise ValueError(f"clamp is {clamp}; it bounds the log-scale of a block and must be positive")
        self.clamp = clamp

    @classmethod
    def from_options(cls, options: TransformOptions) -> Self:
        return cls(options.clamp)

    def extra_repr(self) -> str:
        return f"clamp={self.clamp:g}"

    def forward(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = parameters.unbind(-1)
        log_scale = self.clamp * torch.tanh(raw / self.clamp)
        return z * log_scale.exp() + shift, log_scale

    def inverse(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = parameters.unbind(-1)
        log_scale = -self.clamp * torch.tanh(raw / self.clamp)  # of the inverse; its sign costs no operation here
        return (x - shift) * log_scale.exp(), log_scale
