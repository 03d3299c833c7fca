"""The settings of a GAN."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from pyrogen.checks import (
    BETAS,
    BOOLEAN,
    HIDDEN,
    NATURAL,
    NOT_NEGATIVE,
    PATH,
    POSITIVE,
    SEED,
    SHARE,
    check_settings,
    number,
    optional,
    whole,
)
from pyrogen.printing import Shown, brief


@dataclass(frozen=True, kw_only=True, repr=False)
class GANSettings(Shown):
    """What decides the training of a GAN.

    Args:
        noise: uniform numbers in [-1, 1] that an event is made of; for more columns than the default has numbers, give
            more.
        hidden: widths of the hidden layers, of the generator (ELU) and of the discriminator (leaky ReLU).
        embedding: widths of the layers that embed differences of events; the last one is the number of statistics of
            the batch.
        dropout: fraction of the outputs of every hidden layer that is set to zero at random.
        penalty: factor gamma of the gradient penalty; 0: none.
        smearing: true events are moved by uniform numbers up to this before the discriminator sees them, in units of
            what the networks see.
        epochs: passes over the events. The last events of an epoch that fill no batch are left out; which ones these
            are changes.
        batch_size: events of a batch, at least 2.
        lr: learning rate of Adam, of both networks.
        betas: of Adam.
        decay: factor on the learning rate after every tenth of the training.
        average: the generator that is kept is a running average over the steps, in which the one before counts this
            much; 0: the last one.
        standardise: let the networks see columns of mean 0 and standard deviation 4, whatever their units. The paper
            does without; its camel back has a standard deviation of 4.1.
        seed: seeds everything that is drawn; the global random state is left alone. The same seed gives the same bits
            on one thread.
        checkpoint: HDF5 file with the state of the run. If it exists the run goes on from it, to the same bits as an
            uninterrupted one.
        checkpoint_every: epochs between two checkpoints.
        progress: show a progress bar.

    Raises:
        ValueError: an argument out of range.
    """

    noise: int = 8
    hidden: tuple[int, ...] = (64, 64, 64)
    embedding: tuple[int, ...] = (32, 32, 16)
    dropout: float = 0.5
    penalty: float = 0.01
    smearing: float = 0.1
    epochs: int = 1000
    batch_size: int = 10
    lr: float = 1e-3
    betas: tuple[float, float] = (0.5, 0.9)
    decay: float = 0.9
    average: float = 0.999
    standardise: bool = True
    seed: int = 0
    checkpoint: str | os.PathLike[str] | None = None
    checkpoint_every: int = 50
    progress: bool = True

    #: Settings that do not decide the result.
    incidental: ClassVar[tuple[str, ...]] = ("checkpoint", "checkpoint_every", "progress")

    def __post_init__(self) -> None:
        check_settings(
            self,
            noise=NATURAL,
            hidden=HIDDEN,
            embedding=HIDDEN,
            dropout=SHARE,
            penalty=NOT_NEGATIVE,
            smearing=NOT_NEGATIVE,
            epochs=NATURAL,
            batch_size=whole(2),
            lr=POSITIVE,
            betas=BETAS,
            decay=number("in (0, 1]", lambda value: 0 < value <= 1),
            average=SHARE,
            standardise=BOOLEAN,
            seed=SEED,
            checkpoint=optional(PATH),
            checkpoint_every=NATURAL,
            progress=BOOLEAN,
        )
        if not self.embedding:
            raise ValueError("embedding is (); it must have at least one layer, the last one of the statistics")

    def _facts(self) -> dict[str, Any]:
        return {entry.name: brief(getattr(self, entry.name)) for entry in fields(self)}

    def __repr__(self) -> str:
        """The settings that are not the defaults."""
        changed = [entry.name for entry in fields(self) if getattr(self, entry.name) != entry.default]
        return f"{type(self).__name__}({', '.join(f'{name}={brief(getattr(self, name))}' for name in changed)})"

    def describe(self) -> dict[str, Any]:
        """All settings that decide the result, in JSON types."""
        told = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name not in self.incidental}
        return json.loads(json.dumps(told))
