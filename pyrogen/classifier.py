"""The network that tells true from generated events: a diagnostic tests with it, a training learns from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pyrogen.bayes.inputs import as_tensor
from pyrogen.checks import FUNCTION, HIDDEN, SHARE, door, each, optional, whole
from pyrogen.events import EventsLike, check_events
from pyrogen.events.containers import Table, check_same_order, table_of
from pyrogen.memory import in_chunks, row_bytes, rows_at_once
from pyrogen.printing import Shown

Features = Callable[[Tensor], Tensor]

LARGEST_LOG_RATIO = 15.0  # a factor of 3e6: more than samples of millions of events can tell
SCORED_AT_ONCE = 65_536  # events, on a CPU


class Classifier(Shown, nn.Module):
    """A network that tells true from generated events; its logit is the log-ratio of their densities.

    A leaky-ReLU network sees ``asinh((f(x) - centre) / scale)``: centre is the median and scale half the central 68 %
    of each variable, unweighted and over both classes of the training events. For a Gaussian these are its mean and
    standard deviation, but a few events far out, as generators make them, do not move them; asinh tames the tails and
    loses nothing.

    The logit is ``b tanh(raw / b)`` with b = 15. Within that bound nothing changes; but the cross-entropy of events
    with negative weights has no minimum without it, as the network could send the logit of each of them to infinity.

    Args:
        inputs: number k of variables the network sees.
        hidden: widths of its layers.
        features: makes them, ``[N, k]``, of events ``[N, d]`` (float64); None: the events themselves.
        missing: which of the variables some events do not have (NaN), such as the jets of events without any. The
            network sees the centre in their place, and a flag for each of these variables.
        dropout: fraction of the outputs of each layer that a training sets to zero at random.

    Attributes:
        columns: names of the columns of the training events; None where they had none.
        history: after the training, ``loss`` and ``validation_loss`` of each epoch, in nats per event of equally
            frequent classes: log 2 = 0.693 is that of a guess.
        kept_epoch: the epoch whose network it is, counted from 1.
    """

    centre: Tensor
    scale: Tensor

    @door(
        inputs=whole(1),
        hidden=HIDDEN,
        features=optional(FUNCTION),
        missing=each(whole(0), "a sequence of numbers of variables, such as (4, 5)"),
        dropout=SHARE,
    )
    def __init__(
        self,
        inputs: int,
        hidden: Sequence[int] = (64, 64, 64),
        features: Features | None = None,
        missing: Sequence[int] = (),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.missing = sorted(set(missing))
        if self.missing and self.missing[-1] >= inputs:
            raise ValueError(f"missing is {list(missing)}; it must name variables below inputs, {inputs}")
        self.register_buffer("centre", torch.zeros(inputs, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(inputs, dtype=torch.float64))
        layers: list[nn.Module] = []
        widths = (inputs + len(self.missing), *hidden)
        for fan_in, fan_out in pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out), nn.LeakyReLU(0.1)]
            if dropout:
                layers.append(nn.Dropout(dropout))
        self.network = nn.Sequential(*layers, nn.Linear(widths[-1], 1))
        self.features = features
        self.columns: tuple[str, ...] | None = None
        self.history: dict[str, NDArray[np.float64]] = {}
        self.kept_epoch = 0

    def __repr__(self) -> str:
        widths = [layer.in_features for layer in self.network if isinstance(layer, nn.Linear)]
        kept = f", epoch {self.kept_epoch} of {len(self.history['loss'])}" if self.history else ", not trained"
        return f"Classifier({' -> '.join(map(str, [*widths, 1]))}{kept})"

    def standardise(self, events: Tensor) -> Tensor:
        """What the network sees of events ``[N, d]``: ``[N, k]``."""
        return self._scaled(events.double() if self.features is None else self.features(events.double()).double())

    def logit(self, standardised: Tensor) -> Tensor:
        """Log-ratio ``[N]`` of what :meth:`standardise` gives."""
        raw = self.network(standardised)[:, 0]
        return LARGEST_LOG_RATIO * torch.tanh(raw / LARGEST_LOG_RATIO)

    def forward(self, events: Tensor) -> Tensor:
        """Log-ratio ``[N]`` of events ``[N, d]``, with gradients."""
        return self.logit(self.standardise(events))

    @torch.no_grad()
    def log_ratio(self, events: EventsLike) -> Tensor:
        """log p_truth(x) / p_generated(x), ``[N]`` in float64, at events ``[N, d]`` of any kind.

        Raises:
            ValueError: another number of variables than that of the training, its columns in another order, or NaN in
                a variable that all of its events had.
        """
        check_same_order("the events", table_of(events), "the training", Table(np.empty((0, 0)), self.columns))
        check_events(events, multiplicity=getattr(events, "multiplicity", None))
        x = as_tensor(events, torch.float64, self.centre.device)
        needed = row_bytes([weights.shape for weights in self.network.parameters()], x.dtype)
        step = rows_at_once(x.device, needed, cpu=SCORED_AT_ONCE)
        found = torch.cat([scores for _, scores in in_chunks(lambda rows: self(x[rows]).double(), len(x), step)])
        if not found.isfinite().all():
            bad = (~found.isfinite()).nonzero()[:, 0]
            raise ValueError(
                f"the log-ratio of {len(bad)} of {len(x)} events is {found[bad[0]]}, the first of them event {bad[0]}: "
                "there is NaN or infinity in a variable that all events of the training had"
            )
        return found

    def _scaled(self, seen: Tensor) -> Tensor:
        if seen.ndim != 2 or seen.shape[1] != len(self.centre):
            raise ValueError(f"the classifier sees {len(self.centre)} variables; these events give {list(seen.shape)}")
        scaled = torch.asinh((seen - self.centre) / self.scale).to(next(self.network.parameters()).dtype)
        if not self.missing:
            return scaled
        flags = seen[:, self.missing].isnan()
        scaled[:, self.missing] = torch.where(flags, 0.0, scaled[:, self.missing])
        return torch.cat([scaled, flags.to(scaled.dtype)], 1)

    def _fit_scales(self, seen: Tensor) -> None:
        columns = [column[~np.isnan(column)] for column in seen.numpy().T] if self.missing else seen.numpy().T
        nobody = [i for i, column in enumerate(columns) if len(column) == 0]
        if nobody:
            raise ValueError(
                f"variable {nobody[0]} of what the classifier sees is NaN in all of {len(seen)} events; leave it out"
            )
        low, centre, high = np.array([np.quantile(column, [0.158655, 0.5, 0.841345]) for column in columns]).T
        scale = (high - low) / 2
        with np.errstate(over="ignore"):
            spread = np.array([column.std() for column in columns])
        scale = np.where(scale > 0, scale, spread)  # where most events share one value
        scale = np.where([np.ptp(column) > 0 for column in columns], scale, 1.0)
        if not (np.isfinite(scale) & (scale > 0)).all():
            column = int(np.argmin(np.isfinite(scale) & (scale > 0)))
            raise ValueError(
                f"variable {column} of what the classifier sees has width {scale[column]}; give it in units in which "
                "it is neither so large nor so small"
            )
        self.centre.copy_(torch.from_numpy(centre))
        self.scale.copy_(torch.from_numpy(scale))
