"""Settings of variational inference, checked: what objectives and the training loop know of the backend."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from pyrogen.bayes.guide import AutoNormal
from pyrogen.checks import (
    BETAS,
    BOOLEAN,
    FUNCTION,
    POSITIVE,
    SHARE,
    check_settings,
    door,
    is_number,
    number,
    one_of,
    optional,
    require,
    whole,
)
from pyrogen.inference.backend import Backend
from pyrogen.schedules import SCHEDULES

CALIBRATED = "calibrated"  # a kl_weight that is to be found


@dataclass(frozen=True, kw_only=True)
class SVISettings(Backend):
    """What a training of variational inference is asked for.

    Args:
        epochs: passes over the training events.
        batch_size: events per step, or all training events where there are no more; the incomplete last batch of an
            epoch is left out (events are shuffled anew).
        lr: Adam's learning rate for posterior means.
        lr_widths: learning rate for posterior widths, which grow from ``init_scale`` up to the prior's width.
        schedule: ``"cosine"``, ``"constant"`` or ``"exponential"`` (to a hundredth).
        lr_warmup: fraction of all steps over which the rates rise linearly from zero.
        widths_after: fraction of all steps before the posterior widths move. First the means find the density, with
            one weight draw per batch (the widths are tiny, and such a step costs half), then the widths grow to what
            the data allow. The loss is the same throughout. Widths that grow from the first step hide the gradient of
            the means: the same number of steps then ends at a worse fit (``benchmarks/head_start.py``).
        betas: Adam's decay rates.
        clip: largest norm of the gradient of the loss per event, or None.
        guide: :class:`~pyrogen.AutoNormal`, :class:`~pyrogen.LastLayers` (the last layers alone are random), or any
            Pyro autoguide class or factory ``model -> guide``.
        init_scale: initial posterior width of every weight, for guides that take one.
        local_reparameterization: draw activations per event instead of weights per batch, where guide and layers
            allow; ``posterior.info.local_reparameterization`` says what was done,
            ``posterior.info.local_reparameterization_reason`` why.
        num_particles: draws averaged per step.
        kl_weight: factor on the KL. Any other than 1 is no Bayesian posterior of these events, and
            ``posterior.info.tempered`` says so: with ``kl_weight=T`` every event counts ``1/T`` times, and the
            widths of weights that the data determine shrink by ``sqrt(T)``. ``"calibrated"``: the T with which 68.3 %
            of the intervals at 68.3 % hold the truth, found by :func:`pyrogen.calibrate` with its own defaults and the
            seed of these settings, at the cost of 40 to 60 fits. ``fit_many`` finds it on the first sample, for all.
        validation: fraction of the events held out; their negative log-likelihood per event joins the curve.
        patience: stop after this many epochs without a better validation loss (held-out likelihood and KL), and keep
            the best; None: never.
        checkpoint: HDF5 file with the state of the run, replaced after every ``checkpoint_every`` epochs. If the file
            exists the run goes on from it, to the same bits as an uninterrupted one.
        checkpoint_every: epochs between two checkpoints.

    Raises:
        ValueError: an argument out of range.
    """

    epochs: int = 300
    batch_size: int = 512
    lr: float = 1e-3
    lr_widths: float = 1e-2
    schedule: str = "cosine"
    lr_warmup: float = 0.02
    widths_after: float = 0.2
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float | None = 10.0
    guide: Callable[..., Any] = AutoNormal
    init_scale: float = 1e-3
    local_reparameterization: bool = True
    num_particles: int = 1
    kl_weight: float | str = 1.0
    validation: float = 0.0
    patience: int | None = None
    checkpoint_every: int = 1

    incidental: ClassVar[tuple[str, ...]] = (*Backend.incidental, "checkpoint_every")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(
            self,
            epochs=whole(1),
            batch_size=whole(1),
            lr=POSITIVE,
            lr_widths=POSITIVE,
            schedule=one_of(*SCHEDULES),
            lr_warmup=SHARE,
            widths_after=SHARE,
            betas=BETAS,
            clip=optional(number("positive, or None", lambda value: value > 0)),
            guide=FUNCTION,
            init_scale=POSITIVE,
            local_reparameterization=BOOLEAN,
            num_particles=whole(1),
            kl_weight=_kl_weight,
            validation=SHARE,
            patience=optional(whole(1)),
            checkpoint_every=whole(1),
        )
        require(
            self.patience is None or self.validation > 0,
            "validation",
            self.validation,
            "positive where patience is given: early stopping needs held-out events",
        )

    @door(n=whole(1))
    def held_out_events(self, n: int) -> int:
        """Number of validation events among ``n``.

        Raises:
            ValueError: none of the events, or all of them.
        """

        held_out = round(self.validation * n)
        if self.validation > 0 and held_out == 0:
            raise ValueError(f"validation is {self.validation}: of {n} events that holds out none; give a larger one")
        if held_out == n:
            raise ValueError(f"validation is {self.validation}: of {n} events that leaves none for the training")
        return held_out

    @property
    def kl_factor(self) -> float:
        """``kl_weight`` as the number that a training needs.

        Raises:
            ValueError: it is ``"calibrated"``, and nobody has found it.
        """
        if isinstance(self.kl_weight, str):
            raise ValueError(
                f"kl_weight is {self.kl_weight!r}, which {type(self).__name__} cannot find; it must be a number here"
            )
        return self.kl_weight

    def _check_run(self) -> None:
        super()._check_run()
        _ = self.kl_factor  # before any work

    def _described(self) -> dict[str, Any]:
        return {"guide": described_function(self.guide)}


def _kl_weight(name: str, value: Any) -> float | str:
    right = f"positive and finite, or {CALIBRATED!r}"
    known = value == CALIBRATED if isinstance(value, str) else is_number(value) and 0 < value < math.inf
    require(known, name, value, right)
    return value if isinstance(value, str) else float(value)


def described_function(guide: Any) -> str:
    if isinstance(guide, partial):
        arguments = ", ".join(f"{name}={_shown(value)}" for name, value in sorted(guide.keywords.items()))
        return f"{described_function(guide.func)}({arguments})"
    return f"{guide.__module__}.{getattr(guide, '__qualname__', type(guide).__qualname__)}"


def _shown(value: Any) -> str:
    """A function by its name: its address would be another one in the next process."""
    return described_function(value) if callable(value) else repr(value)
