"""Cells of a calorimeter without energy, which have no density: noise below the threshold fills them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from ..checks import POSITIVE, SEED, door
from .bijection import Fixed

ROUNDING = 1e-6  # of the threshold: of files in float32


class ThresholdNoise(Fixed):
    """Zero-suppressed energies as numbers without gaps: empty cells count as energies below the threshold.

    A training replaces each zero by a number that is uniform between 0 and the threshold, drawn once. The flow learns
    the density of energies with this noise, per unit, which integrates to one. The probability that a cell is empty is
    that of an energy below the threshold. Generated energies below the threshold become 0.

    The density at a zero is that in the middle of the noise, at half the threshold. Others between 0 and the threshold
    are as they are.

    It must be the first bijection of its column.

    Args:
        threshold: smallest energy that a cell may have, in the unit of the columns.
        seed: seeds the noise; the same row, seed and column give the same.

    Raises:
        ValueError: in a training: negative energies, or energies between 0 and the threshold.
    """

    kind = "threshold_noise"

    @door(threshold=POSITIVE, seed=SEED)
    def __init__(self, threshold: float, seed: int = 0) -> None:
        super().__init__()
        self.threshold, self.seed = threshold, seed

    def inside(self, x: Tensor) -> Tensor:
        return x >= 0

    def explain(self, x: Tensor) -> str:
        return "Energies of cells are not negative: leave these events out"

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.where(x == 0, self.threshold / 2, x), x.new_zeros(x.shape[:-1])

    def inverse(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return torch.where(u < self.threshold * (1 - ROUNDING), 0.0, u), u.new_zeros(u.shape[:-1])

    def dequantised(self, x: Tensor, names: Sequence[str], column: int = 0) -> Tensor:
        low = (x != 0) & (x < self.threshold * (1 - ROUNDING))
        if low.any():
            row, i = low.nonzero()[0].tolist()
            raise ValueError(
                f"{int(low.sum())} energies are not 0 and below the threshold, {self.threshold:g}; the first is row "
                f"{row}, column {column + i} ({names[i]}): {float(x[row, i]):.6g}. Give the flow and ThresholdNoise a "
                "lower threshold, or suppress them: showers.suppressed(threshold)"
            )
        noise = 1 - np.random.default_rng([self.seed, column]).uniform(size=tuple(x.shape))
        return torch.where(x == 0, self.threshold * (1 - ROUNDING) * torch.from_numpy(noise).to(x), x)

    def config(self) -> dict[str, Any]:
        return super().config() | {"threshold": self.threshold, "seed": self.seed}

    @classmethod
    def _from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(config["threshold"], config["seed"])

    def extra_repr(self) -> str:
        return f"threshold={self.threshold:g}"
