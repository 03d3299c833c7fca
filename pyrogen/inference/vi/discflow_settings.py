"""Settings of a training with a discriminator, checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pyrogen.checks import FUNCTION, HIDDEN, NOT_NEGATIVE, POSITIVE, SHARE, check_settings, is_number, optional, require
from pyrogen.inference.vi.settings import SVISettings, described_function


@dataclass(frozen=True, kw_only=True)
class DiscFlowSettings(SVISettings):
    """What a discriminator is told, besides the settings of variational inference.

    Args:
        alpha: power of the ratio ``D/(1-D)`` at the end; 0: the training of :class:`~pyrogen.SVI`, to the same bits.
        ramp: fractions of all steps between which the power rises from 0 to ``alpha``. The discriminator learns from
            half of the first one on.
        observables: function of events ``[N, d]`` (float64, in the events' units) to further variables ``[N, m]`` that
            the discriminator sees besides the events, such as a mass; NaN where an event does not have one.
        discriminator_hidden: widths of the layers of the discriminator.
        discriminator_lr: its learning rate, which follows the schedule of the flow's.
        least_effective: the training stops where the weights of a batch are worth less than this fraction of its
            events, on average over an epoch.
    """

    alpha: float = 1.0
    ramp: tuple[float, float] = (0.3, 0.8)
    observables: Callable[[Tensor], Tensor] | None = None
    discriminator_hidden: tuple[int, ...] = (64, 64, 64)
    discriminator_lr: float = 1e-3
    least_effective: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(
            self,
            alpha=NOT_NEGATIVE,
            ramp=_ramp,
            observables=optional(FUNCTION),
            discriminator_hidden=HIDDEN,
            discriminator_lr=POSITIVE,
            least_effective=SHARE,
        )

    def _described(self) -> dict[str, Any]:
        told = None if self.observables is None else described_function(self.observables)
        return super()._described() | {"observables": told}


def _ramp(name: str, value: Any) -> tuple[float, float]:
    pair = isinstance(value, tuple | list) and len(value) == 2 and all(is_number(each) for each in value)
    require(pair and 0 <= value[0] <= value[1] <= 1, name, value, "two numbers between 0 and 1, the first not larger")
    return float(value[0]), float(value[1])
