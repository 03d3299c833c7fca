"""What a GAN learns from: samples of events, checked before any work is done, and scaled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrogen.bayes.inputs import as_tensor, data_digest, named_columns
from pyrogen.bayes.model import BayesianFlow
from pyrogen.events.containers import table_of
from pyrogen.events.validation import check_dimensions, check_finite_rows, check_no_layout

WIDTH = 4.0  # standard deviation of what the networks see: about that of the camel back of [D]


@dataclass(frozen=True)
class Sample:
    """A checked training sample.

    Attributes:
        events: ``[N, d]`` in float64.
        names, units: of the columns, where the events had them.
        digest: SHA-256 of the events, by which results and checkpoints know them.
        centre, scale: ``[d]``; the networks see ``(events - centre) / scale``.
    """

    events: Tensor
    names: tuple[str, ...] | None
    units: tuple[str, ...] | None
    digest: str
    centre: Tensor
    scale: Tensor

    @property
    def scaled(self) -> Tensor:
        """What the networks see, ``[N, d]`` in float32."""
        return ((self.events - self.centre) / self.scale).float()


REFUSED = {
    "weights": "a GAN learns from batches of events that count the same: unweight the events first",
    "context": "a GAN takes no conditions: give the conditions as columns of the events",
}


def refuse(name: str, value: Any) -> None:
    """Refuse event weights or conditions, where there are any.

    Raises:
        ValueError: there are.
    """
    if value is not None:
        raise ValueError(
            f"{name} is given; {REFUSED[name]}, or train a flow, such as pg.SVI(...).fit(model, events, {name}=...)"
        )


def refuse_model(events: Any) -> None:
    """Refuse a model in the place of the events, where other trainings take one.

    Raises:
        TypeError: it is a model.
    """
    if isinstance(events, BayesianFlow | torch.nn.Module):
        raise TypeError(f"events is a {type(events).__name__}; a GAN has networks of its own: gan.fit(events)")


def checked(events: Any, batch_size: int, standardise: bool) -> Sample:
    """A sample that a GAN can learn from.

    Raises:
        TypeError: no events.
        ValueError: NaN or infinite events, a varying number of objects, weights, a constant column, or fewer events
            than a batch.
    """
    refuse_model(events)
    table = table_of(events, "events")
    values = table.values[:, None] if table.values.ndim == 1 else table.values
    check_dimensions(values, None, "events")
    check_no_layout(table, "events")
    check_finite_rows(values, "events", table.names)
    refuse("weights", table.weights)
    if len(values) < batch_size:
        raise ValueError(f"{len(values)} events are fewer than a batch; give batch_size (now {batch_size}) or more")
    exact = as_tensor(values, torch.float64)
    names = named_columns(table)
    return Sample(exact, names, table.units, data_digest({"events": exact}), *scales(exact, names, standardise))


def scales(events: Tensor, names: Sequence[str] | None, standardise: bool) -> tuple[Tensor, Tensor]:
    """Centre and scale ``[d]`` of the columns: mean and standard deviation over 4, or 0 and 1.

    Raises:
        ValueError: a constant column, or one whose scale no number holds.
    """
    centre, scale = events.mean(0), events.std(0, correction=0)
    constant = events.amax(0) == events.amin(0)
    bad = constant | ~centre.isfinite() | ~scale.isfinite() | (scale == 0)
    if bad.any():
        column = int(bad.nonzero()[0])
        label = names[column] if names else f"x{column}"
        what = "is the same in all events" if constant[column] else "has numbers too large or too small to scale"
        raise ValueError(f"events: column {column} ({label}) {what}; leave it out, or give it in other units")
    if not standardise:
        return torch.zeros_like(centre), torch.ones_like(scale)
    return centre, scale / WIDTH


def checked_samples(samples: Any, batch_size: int, standardise: bool) -> list[Sample]:
    """R samples of one size, each checked.

    Raises:
        TypeError, ValueError: as :func:`checked`, naming the sample; no several samples; other sizes or columns than
            those of the first.
    """
    several = isinstance(samples, Tensor | np.ndarray | Sequence) and not isinstance(samples, str)
    if not several or len(samples) == 0 or getattr(samples, "ndim", 3) != 3:
        raise ValueError("samples must be several samples of events: a sequence of [N, d], or an array [R, N, d]")
    found: list[Sample] = []
    for r, each in enumerate(samples):
        try:
            found.append(checked(each, batch_size, standardise))
        except (TypeError, ValueError) as error:
            raise type(error)(f"samples[{r}]: {error}") from error
        for what, mine, first in (
            ("shape", list(found[r].events.shape), list(found[0].events.shape)),
            ("names", found[r].names, found[0].names),
            ("units", found[r].units, found[0].units),
        ):
            if mine != first:
                raise ValueError(
                    f"samples[{r}] has the {what} {mine}, and samples[0] has {first}; all must have the same, as they "
                    "are trained in one batch"
                )
    return found
