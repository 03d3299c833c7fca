"""Bijections from the events' own units to those a network likes, with their log-Jacobians.

They are part of the model: log p(x) = log p(u) + log|du/dx|, so every density is in the units of the events.
The constants are float64 buffers: they move with ``.to(device)``, are kept by ``state_dict`` and take part in
no gradient. They are cast to the dtype of the events, so float32 events stay float32.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from pyrogen.printing import brief

from ..checks import NOT_NEGATIVE, array, door, each, instance, require
from .sample import EventSample, EventsLike

_KINDS: dict[str, type[Bijection]] = {}  # by the name in their configuration


class Bijection(nn.Module, ABC):
    """An invertible map of events that can be fitted to them.

    Before it is fitted it acts as the identity, so that a model with it is a proper density at any time.
    """

    kind: ClassVar[str]
    """The name in :meth:`config`."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "kind" in vars(cls):
            _KINDS[cls.kind] = cls

    def extra_repr(self) -> str:
        return "" if self.fitted else "not fitted"

    @property
    @abstractmethod
    def fitted(self) -> bool:
        """Whether the constants are set, by :meth:`fit` or by hand. Survives saving and loading."""

    @abstractmethod
    def fit(self, events: EventsLike, weights: ArrayLike | Tensor | None = None) -> Self:
        """Set the constants from events, replacing those there were.

        Args:
            events: ``[N, d]``.
            weights: ``[N]``; if left out, those of an ``EventSample``, or none.

        Returns:
            Itself.

        Raises:
            ValueError: events or weights that :class:`EventSample` would refuse, or a feature without spread.
        """

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """From events ``x [..., d]`` to ``u [..., d]`` and log|du/dx| ``[...]``, summed over the features.

        Raises:
            ValueError: not the number of features it was fitted to, or not floating point.
        """

    @abstractmethod
    def inverse(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """From ``u [..., d]`` back to events ``x [..., d]`` and log|dx/du| ``[...]``.

        Raises:
            ValueError: as in :meth:`forward`.
        """

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """All that :func:`from_config` needs, in plain JSON types; the constants keep every bit."""

    @classmethod
    @abstractmethod
    def _from_config(cls, config: Mapping[str, Any]) -> Self: ...


class Identity(Bijection):
    """u = x. Nothing to fit."""

    kind = "identity"
    fitted = True

    def fit(self, events: EventsLike, weights: ArrayLike | Tensor | None = None) -> Self:
        as_sample(events, weights)
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x.new_zeros(x.shape[:-1])

    def inverse(self, u: Tensor) -> tuple[Tensor, Tensor]:
        return u, u.new_zeros(u.shape[:-1])

    def config(self) -> dict[str, Any]:
        return {"kind": self.kind}

    @classmethod
    def _from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls()


class FittedConstants(Bijection):
    """A bijection with constants: float64 buffers of one shape, ``[d]`` or ``[]``, each.

    Shape ``[]`` (one number for all features) is how they start, when d is not yet known.
    """

    constants: ClassVar[tuple[str, ...]]
    """Names of the buffers."""
    start: ClassVar[tuple[float, ...]]
    """What they are before the fit."""
    condition: ClassVar[str]
    """What :meth:`valid` asks for, in words."""

    _is_fitted: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, value in zip(self.constants, self.start, strict=True):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float64))
        self.register_buffer("_is_fitted", torch.tensor(False))

    def extra_repr(self) -> str:
        if not self.fitted:
            return super().extra_repr()
        return ", ".join(f"{name}={brief(getattr(self, name))}" for name in self.constants)

    @abstractmethod
    def valid(self, *constants: Tensor) -> Tensor:
        """Whether constants make a bijection, one truth value per feature."""

    @property
    def fitted(self) -> bool:
        return bool(self._is_fitted)

    def config(self) -> dict[str, Any]:
        values = {name: getattr(self, name).tolist() for name in self.constants}
        return {"kind": self.kind, "fitted": self.fitted, **values}

    @classmethod
    def _from_config(cls, config: Mapping[str, Any]) -> Self:
        new = cls()
        new._set([config[name] for name in cls.constants], fitted=bool(config["fitted"]))
        return new

    def _set(self, constants: Sequence[ArrayLike], fitted: bool = True) -> None:
        """Put new constants into the buffers, on the device where they are."""
        arrays = [np.array(constant, dtype=np.float64) for constant in constants]
        fine = arrays[0].ndim < 2 and len({array.shape for array in arrays}) == 1 and np.isfinite(arrays).all()
        if not (fine and bool(self.valid(*map(torch.from_numpy, arrays)).all())):
            raise ValueError(
                f"{type(self).__name__} needs finite {' and '.join(self.constants)} of one shape, [d] or []; "
                f"{self.condition}; got {' and '.join(str(array.tolist()) for array in arrays)}"
            )
        device = self._is_fitted.device
        for name, value in zip(self.constants, arrays, strict=True):
            setattr(self, name, torch.from_numpy(value).to(device))
        self._is_fitted = torch.tensor(fitted, device=device)

    def _cast(self, x: Tensor, dtype: torch.dtype | None = None) -> list[Tensor]:
        """The constants in the dtype of ``x [..., d]`` (or another), expanded to ``[d]``."""
        name = type(self).__name__
        if not x.is_floating_point():
            raise ValueError(f"{name} needs floating-point events; got {x.dtype}")
        values = [getattr(self, constant).to(dtype or x.dtype) for constant in self.constants]
        # Without this check a [N, 1] tensor would silently be spread over all d features.
        if values[0].ndim == 1 and x.shape[-1:] != values[0].shape:
            raise ValueError(f"{name} was fitted to {len(values[0])} features; got events of shape {list(x.shape)}")
        return [value.expand(x.shape[-1]) for value in values]

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        # The constants take the shape of those that are loaded: a fresh bijection does not know d.
        for name in self.constants:
            if prefix + name in state_dict:
                setattr(self, name, getattr(self, name).new_empty(state_dict[prefix + name].shape))
        super()._load_from_state_dict(state_dict, prefix, *args)


class _Affine(FittedConstants):
    """u = (x − shift) / scale with one shift and scale per feature, made from two constants."""

    start = (0.0, 1.0)  # the identity

    @abstractmethod
    def _shift_and_scale(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Shift and scale (positive) from the two constants."""

    def valid(self, *constants: Tensor) -> Tensor:
        return self._shift_and_scale(*constants)[1] > 0

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
        mean = np.average(sample.values, axis=0, weights=sample.weights)
        variance = np.average((sample.values - mean) ** 2, axis=0, weights=sample.weights)
        # Only negative weights can do this.
        for column, value in enumerate(variance):
            if not value > 0:
                raise ValueError(
                    f"column {column} ({sample.names[column]}) has weighted variance {value:.6g}; negative "
                    "weights outweigh the positive ones away from its mean, so it cannot be standardised"
                )
        self._set([mean, np.sqrt(variance)])
        return self

    def _shift_and_scale(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        return first, second


class UnitBox(_Affine):
    """u = (x − low) / (high − low): the box [low, high] becomes [0, 1] in every feature.

    Points outside the box come out outside [0, 1]; a flow on the unit box gives them density zero.

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


PARTS = each(instance(Bijection, "a bijection of pyrogen.events"), "a sequence of bijections", 1)


class Composite(Bijection):
    """A bijection made of others."""

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
        return cls(from_config(part) for part in config["parts"])


class Chain(Composite):
    """Bijections one after the other, the first one nearest to the events.

    Its fit passes the events through and fits each part to what reaches it; parts that are fitted already,
    such as a :class:`UnitBox` with given limits, stay as they are.
    """

    kind = "chain"

    def fit(self, events: EventsLike, weights: ArrayLike | Tensor | None = None) -> Self:
        sample = as_sample(events, weights)
        x = torch.tensor(sample.values, device=next((buffer.device for buffer in self.buffers()), None))
        for part in self.parts:
            if not part.fitted:
                part.fit(x, sample.weights)
            x, _ = part(x)
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


def from_config(config: Mapping[str, Any]) -> Bijection:
    """The bijection that :meth:`Bijection.config` described.

    Raises:
        ValueError: an unknown kind, or an entry that is missing or out of range.
    """
    kind = config.get("kind")
    if kind not in _KINDS:
        raise ValueError(f"unknown preprocessing {kind!r}; known are {', '.join(sorted(_KINDS))}")
    try:
        return _KINDS[kind]._from_config(config)
    except KeyError as error:
        raise ValueError(f"the configuration of preprocessing {kind!r} lacks {error}") from error


def as_sample(events: EventsLike, weights: ArrayLike | Tensor | None) -> EventSample:
    """Events and weights, checked and in float64."""
    if isinstance(events, EventSample):
        if weights is None:
            return events
        return EventSample(events.values, events.names, weights=weights)
    return EventSample(events, weights=weights)


def _check_spread(sample: EventSample) -> None:
    counted = sample.values if sample.weights is None else sample.values[sample.weights != 0]
    for column in np.flatnonzero(counted.min(axis=0) == counted.max(axis=0)):
        raise ValueError(
            f"column {column} ({sample.names[column]}) is constant, {counted[0, column]} in every event; "
            "a feature without spread has no density: leave it out"
        )
