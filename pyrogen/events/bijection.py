"""What bijections have in common: where they are defined, their constants and their configuration."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from ..printing import Compact, brief
from .multiplicity import Multiplicity
from .sample import EventSample, EventsLike, as_sample

_KINDS: dict[str, type[Bijection]] = {}  # by the name in their configuration


class Bijection(Compact, nn.Module, ABC):
    """An invertible map of events that can be fitted to them.

    Before it is fitted it acts as the identity, so that a model with it is a proper density at any time.

    *Where it is defined.* Called as a function, ``bijection(x)``, it gives events outside of its domain the
    log-Jacobian -inf: their density is zero. Outside are events that :meth:`inside` does not accept, and those that
    :meth:`forward` does not map to finite numbers. Training events outside are refused before any work is done.

    A bijection of your own has ``kind``, ``fitted``, ``fit``, ``forward``, ``inverse``, ``config``, ``_from_config``;
    :class:`Fixed` has all but ``forward``, ``inverse`` and ``kind`` where nothing is to be fitted.
    """

    kind: ClassVar[str]
    """The name in :meth:`config`."""
    everywhere: ClassVar[bool] = False
    """Whether all real numbers are inside, so that nothing has to be looked at."""
    layout: Multiplicity | None = None
    """How rows padded with NaN are laid out; None where all columns of all events are numbers."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "kind" in vars(cls):
            _KINDS[cls.kind] = cls

    def extra_repr(self) -> str:
        return "" if self.fitted else "not fitted"

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`forward`; events outside get u = 0 and the log-Jacobian -inf."""
        u, log_jacobian = super().__call__(x)
        if self.everywhere:
            return u, log_jacobian
        there = self.inside(x).all(-1) & (u.sum(-1) + log_jacobian).isfinite()
        # A finite number for those outside: whatever comes next, and its gradient, stays finite.
        return torch.where(there[..., None], u, 0.0), torch.where(there, log_jacobian, -torch.inf)

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
            ValueError: events or weights that :class:`EventSample` would refuse, a feature without spread, or events
                outside of the domain.
        """

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """From events ``x [..., d]`` to ``u [..., d]`` and log|du/dx| ``[...]``, summed over the features.

        What it gives for events outside does not matter.

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

    def inside(self, x: Tensor) -> Tensor:
        """Which values of events ``x [..., d]`` are in the domain, ``[..., d]``; all, unless a subclass knows better.

        What :meth:`forward` maps to NaN or infinity is outside in any case.
        """
        return torch.ones_like(x, dtype=torch.bool)

    def explain(self, x: Tensor) -> str:
        """Why events ``x [n, d]`` are outside, and what to do, for an error."""
        return f"{type(self).__name__} does not map them to finite numbers: leave them out, or take another bijection"

    def renamed(self, names: Sequence[str]) -> Sequence[str]:
        """Names of the features after the map, from those before."""
        return names

    def outside(self, x: Tensor, names: Sequence[str]) -> str | None:
        """What is wrong with events ``x [N, d]`` where some are outside, with the first of them and its column."""
        rows = (self(x)[1] == -torch.inf).nonzero()[:, 0]
        if not len(rows):
            return None
        first = x[rows[:1]]
        fine = self.inside(first)[0]
        if fine.all():  # then it is the result that tells
            fine = self._finite(first)[0]
        column = int(fine.int().argmin())
        return (
            f"{len(rows)} of {len(x)} events are outside of {type(self).__name__}; the first is row {int(rows[0])}, "
            f"column {column} ({names[column]}): {float(first[0, column]):.9g}. {self.explain(x[rows])}"
        )

    def _finite(self, x: Tensor) -> Tensor:
        """Which values of events ``x [..., d]`` are mapped to finite numbers."""
        return self.forward(x)[0].isfinite()

    def check(self, events: EventsLike, names: Sequence[str] | None = None) -> None:
        """Check that events ``[N, d]`` are in the domain.

        Args:
            events: the events.
            names: of their columns, for the error; those of an ``EventSample`` if left out.

        Raises:
            ValueError: events are outside, with their number, the first of them, its column and what to do.
        """
        x = events if isinstance(events, Tensor) else torch.tensor(as_sample(events, None, self.layout).values)
        if names is None:
            names = events.names if isinstance(events, EventSample) else tuple(f"x{i}" for i in range(x.shape[-1]))
        with torch.no_grad():
            problem = self.outside(x, names)
        if problem is not None:
            raise ValueError(problem)

    def dequantised(self, x: Tensor, names: Sequence[str], column: int = 0) -> Tensor:
        """What to train on in place of events ``x [N, d]``: themselves, unless a part is a ``Dequantise``.

        Args:
            x: the events.
            names: of their columns, for errors.
            column: which column of the sample the first one is.
        """
        return x


class Fixed(Bijection):
    """A bijection with nothing to fit."""

    fitted = True

    def fit(self, events: EventsLike, weights: ArrayLike | Tensor | None = None) -> Self:
        self.check(as_sample(events, weights))
        return self

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
    _seen: tuple[Tensor | None, int | None, bool] = (None, None, False)
    """The flag, its version and what it said: a flag on a card would have to be waited for, in every step."""

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
        flag = self._is_fitted
        if self._seen[0] is not flag or self._seen[1] != _version(flag):  # whoever set or changed it
            self._remember(bool(flag))
        return self._seen[2]

    def _remember(self, fitted: bool) -> None:
        """What the flag says, as long as nobody sets or changes it."""
        self._seen = (self._is_fitted, _version(self._is_fitted), fitted)

    def _apply(self, *args: Any, **keywords: Any) -> Self:  # moves to another device, and casts
        fitted = self.fitted
        super()._apply(*args, **keywords)
        self._remember(fitted)
        return self

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
        self._remember(fitted)

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


def _version(flag: Tensor) -> int | None:
    """Counts the changes of a tensor in place; None of a tensor made in inference mode, which counts none."""
    return None if flag.is_inference() else flag._version


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
