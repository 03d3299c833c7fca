"""Bijections from the events' own units to those a network likes, with their log-Jacobians.

They are part of the model: log p(x) = log p(u) + log|du/dx|, so every density is in the units of the events.
The constants are float64 buffers: they move with ``.to(device)``, are kept by ``state_dict`` and take part in
no gradient. They are cast to the dtype of the events, so float32 events stay float32.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..checks import NOT_NEGATIVE, array, door, require
from .bijection import FittedConstants, Fixed
from .sample import EventSample, EventsLike, as_sample


class Identity(Fixed):
    """u = x. Nothing to fit."""

    kind = "identity"
    everywhere = True

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x.new_zeros(x.shape[:-1])

    def inverse(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return u, u.new_zeros(u.shape[:-1])


class _Affine(FittedConstants):
    """u = (x − shift) / scale with one shift and scale per feature, made from two constants."""

    start = (0.0, 1.0)  # the identity
    everywhere = True

    @abstractmethod
    def _shift_and_scale(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Shift and scale (positive) from the two constants."""

    def valid(self, *constants: Tensor) -> Tensor:
        scale = self._shift_and_scale(*constants)[1]
        return (scale > 0) & scale.isfinite()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        shift, scale = self._shift_and_scale(*self._cast(x))
        return (x - shift) / scale, -scale.log().sum().expand(x.shape[:-1])

    def inverse(self, u: Tensor) -> tuple[Tensor, Tensor]:
        shift, scale = self._shift_and_scale(*self._cast(u))
        return u * scale + shift, scale.log().sum().expand(u.shape[:-1])


class Standardise(_Affine):
    """u = (x − mean) / std: every feature gets mean 0 and standard deviation 1, weighted where events are.

    The variance is Σ w (x − mean)² / Σ w. Before the fit: the identity.
    """

    kind = "standardise"
    constants = ("mean", "std")
    condition = "std must be positive"
    mean: Tensor
    std: Tensor

    def fit(self, events: EventsLike, weights: ArrayLike | Tensor | None = None) -> Self:
        sample = as_sample(events, weights)
        _check_spread(sample)
        mean, std = moments(sample.values, sample.weights)
        # Only negative weights can do this.
        for column in np.flatnonzero(~(std > 0)):
            value = np.average((sample.values - mean) ** 2, axis=0, weights=sample.weights)[column]
            raise ValueError(
                f"column {column} ({sample.names[column]}) has weighted variance {value:.6g}; negative "
                "weights outweigh the positive ones away from its mean, so it cannot be standardised"
            )
        self._set([mean, std])
        return self

    def _shift_and_scale(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        return first, second


class UnitBox(_Affine):
    """u = (x − low) / (high − low): the box [low, high] becomes [0, 1] in every feature.

    Points outside the box come out outside [0, 1]: a flow on the unit box, or :class:`Probit`, gives them density zero.

    Args:
        low: lower limits, ``[d]`` or one number for all features; to be fitted if left out.
        high: upper limits, likewise.
        margin: a fit puts the limits beyond the smallest and the largest value by this fraction of their
            distance, so that new events a little further out still have a density.

    Raises:
        ValueError: only one of the limits, low ≥ high, or a negative margin.
    """

    kind = "unit_box"
    constants = ("low", "high")
    condition = "low must be below high"
    low: Tensor
    high: Tensor

    @door(margin=NOT_NEGATIVE)
    def __init__(self, low: ArrayLike | None = None, high: ArrayLike | None = None, margin: float = 0.05) -> None:
        super().__init__()
        self.margin = margin
        if (low is None) != (high is None):
            raise ValueError(f"give both low and high, or none of them; got low={low!r}, high={high!r}")
        if low is not None and high is not None:
            require(np.size(low) > 0 and np.size(high) > 0, "low, high", (low, high), "numbers, one or [d]")
            self._set(np.broadcast_arrays(array()("low", low), array()("high", high)))

    def fit(self, events: EventsLike, weights: ArrayLike | Tensor | None = None) -> Self:
        sample = as_sample(events, weights)
        _check_spread(sample)
        low, high = sample.values.min(axis=0), sample.values.max(axis=0)
        edge = self.margin * (high - low)
        self._set([low - edge, high + edge])
        return self

    def config(self) -> dict[str, Any]:
        return super().config() | {"margin": self.margin}

    @classmethod
    def _from_config(cls, config: Mapping[str, Any]) -> Self:
        new = super()._from_config(config)
        new.margin = float(config["margin"])
        return new

    def _shift_and_scale(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        # Subtracted after the cast: x = high then gives exactly 1 in every dtype.
        return first, second - first


def moments(
    values: NDArray[np.float64], weights: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weighted mean and standard deviation ``[d]`` of ``[N, d]``; NaN where negative weights leave no variance.

    Powers of two are taken out, so that squares of 1e200 and 1e-200 are no infinity and no zero.
    """
    unit = _unit(values)
    mean = np.average(values / unit, axis=0, weights=weights)
    distance = values / unit - mean
    distance_unit = _unit(distance)
    variance = np.average((distance / distance_unit) ** 2, axis=0, weights=weights)
    with np.errstate(invalid="ignore"):
        return mean * unit, np.sqrt(variance) * distance_unit * unit


def _unit(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A power of two near the largest number of each column: dividing by it is exact."""
    return np.ldexp(1.0, np.frexp(np.abs(values).max(axis=0))[1].clip(-1000, 1000))


def _check_spread(sample: EventSample) -> None:
    counted = sample.values if sample.weights is None else sample.values[sample.weights != 0]
    for column in np.flatnonzero(counted.min(axis=0) == counted.max(axis=0)):
        raise ValueError(
            f"column {column} ({sample.names[column]}) is constant, {counted[0, column]} in every event; "
            "a feature without spread has no density: leave it out"
        )
