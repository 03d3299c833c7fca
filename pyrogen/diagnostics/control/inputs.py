"""What a classifier control is given, checked before any work: variables, folds, and events of the training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrogen.bayes.inputs import data_digest, scaled_weights
from pyrogen.classifier import Features
from pyrogen.diagnostics.classifier_samples import SMALLEST_PART, variables
from pyrogen.diagnostics.control.copies import check_no_copies
from pyrogen.events import EventSample, check_events
from pyrogen.events.containers import check_same_order, table_of
from pyrogen.events.observing import missing_in, of_sample
from pyrogen.posterior.posterior import Posterior

Observables = Mapping[str, Callable[[Tensor], Tensor]]
TAIL_EVENTS = 10  # of each sample that a tail must have to be seen
MOST_SHARED = 10  # events of two samples that may be alike by chance


@dataclass(frozen=True)
class Inputs:
    """The variables ``[N, k]`` that a classifier sees: all columns, or what ``features`` makes, and observables."""

    features: Features | None
    observables: Observables

    def __call__(self, events: Tensor) -> Tensor:
        """Those of events ``[N, d]``; NaN where an event says that it does not have an observable."""
        own = self._own(events)
        # Copies: a function may change the events that it is given.
        added = [torch.as_tensor(each(events.clone())).detach().to(own)[:, None] for each in self.observables.values()]
        seen, missing = torch.cat([own, *added], 1), self.missing(events)
        return seen if missing is None else torch.where(missing, torch.nan, seen)

    def missing(self, events: Tensor) -> Tensor | None:
        """Which observables the events say that they do not have, ``[N, k]``; None where no observable says that."""
        found = {name: missing_in(each, events.clone(), name) for name, each in self.observables.items()}
        if all(mask is None for mask in found.values()):
            return None
        none = torch.zeros(len(events), dtype=torch.bool)
        masks = [none if mask is None else mask for mask in found.values()]
        return torch.cat([torch.zeros(self._own(events).shape, dtype=torch.bool), torch.stack(masks, 1)], 1)

    def _own(self, events: Tensor) -> Tensor:
        return events if self.features is None else self.features(events.clone())

    def checked(self, samples: Mapping[str, EventSample]) -> tuple[Features | None, tuple[int, ...]]:
        """The function for the classifiers, and which of the variables some events do not have.

        Raises:
            ValueError: an observable that is no number for an event that has it, or the same number for all events.
        """
        for label, function in self.observables.items():
            for name, sample in samples.items():
                of_sample(function, sample, f"observables[{label!r}] of {name}", undeclared=True)
        own: Features | None = None if self.features is None and not self.observables else self
        seen = torch.cat([variables(name, sample, own) for name, sample in samples.items()]).numpy()
        count = seen.shape[1] - len(self.observables)
        names = next(iter(samples.values())).names if self.features is None else [f"feature {i}" for i in range(count)]
        _check_constant(seen, [*names, *self.observables])
        return own, tuple(np.flatnonzero(np.isnan(seen).any(0)).tolist())


def _check_constant(seen: NDArray[np.float64], names: list[str]) -> None:
    for name, column in zip(names, seen.T, strict=True):
        there = column[~np.isnan(column)]
        if len(there) == 0:
            raise ValueError(f"no event of truth and generated has {name}; leave it out: sample.select(names)")
        if np.ptp(there) == 0:
            raise ValueError(
                f"{name} is {there[0]:.6g} in all events of truth and generated, so that it can tell nothing; leave it "
                "out: sample.select(names)"
            )


def assign_folds(name: str, sample: EventSample, folds: int, seed: int) -> NDArray[np.int64]:
    """The fold of every event, at random and of equal sizes (to one event).

    Raises:
        ValueError: too few events for so many folds, or weights of a fold, or of all others, without a positive sum.
    """
    least = folds * SMALLEST_PART
    if len(sample) < least:
        raise ValueError(
            f"{name} has {len(sample)} events for {folds} folds; each needs at least {SMALLEST_PART}, so give {least} "
            "events or fewer folds"
        )
    fold = np.arange(len(sample)) % folds
    np.random.default_rng(seed).shuffle(fold)
    if sample.weights is not None:
        sums = np.bincount(fold, sample.weights, folds)
        for k, own in enumerate(sums):
            if not 0 < own < sums.sum():
                raise ValueError(
                    f"{name}: the weights of fold {k} sum to {own:.6g}, those of the others to {sums.sum() - own:.6g}; "
                    "both must be positive: give another seed, fewer folds, or more events"
                )
    return fold


def check_tail(samples: Mapping[str, EventSample], tail: float | None) -> None:
    """Raise a ValueError where a sample is too small to have ten (effective) events in a tail of this fraction."""
    if tail is None:
        return
    for name, sample in samples.items():
        if sample.effective_size * tail < TAIL_EVENTS:
            raise ValueError(
                f"{name} is worth {sample.effective_size:,.0f} events, of which a tail of {tail:g} has "
                f"{sample.effective_size * tail:.2g}; at least {TAIL_EVENTS} are needed to see it: give "
                f"{TAIL_EVENTS / tail:,.0f} events, or ask for a larger tail"
            )


def check_not_trained_on(truth: EventSample, generated: EventSample, trained_on: Any) -> None:
    """Raise a ValueError where true events are those that the generator was trained on.

    Args:
        truth: the true events.
        generated: whose provenance tells of the training, where a posterior made them.
        trained_on: the training events, or the posterior, or None.
    """
    told = (
        "a classifier would then judge how well the generator learned these events by heart; give true events that it "
        "has not seen"
    )
    if isinstance(trained_on, Posterior):
        known = trained_on.info.data_sha256
    else:
        known = generated.provenance.get("training_data_sha256")
    if known is not None and known in _digests(truth):
        raise ValueError(f"truth is the sample that the generator was trained on (digest {known[:12]}); {told}")
    if trained_on is None or isinstance(trained_on, Posterior):
        return
    table = table_of(trained_on, "trained_on")
    check_events(np.nan_to_num(table.values), truth.features, what="trained_on")
    check_same_order("trained_on", table, "truth", table_of(truth))
    rows = same_rows(truth.values, np.asarray(table.values))
    if len(rows):
        raise ValueError(
            f"truth shares {len(rows):,} of its {len(truth):,} events with trained_on, the first is event {rows[0]}; "
            f"{told}"
        )


def check_independent(samples: Mapping[str, EventSample]) -> None:
    """Raise a ValueError where the samples share events: a classifier would score what it saw under the other name.

    Copies within a sample are refused, too. Events of discrete values are alike by chance, and then within a sample,
    too: that is no reason.
    """
    check_no_copies(samples)
    (this, a), (what, b) = samples.items()
    rows = same_rows(a.values, b.values)
    alike = sum(len(each) - len(np.unique(_as_items(np.array(each.values)))) for each in (a, b))
    if len(rows) > max(MOST_SHARED, 3 * alike):
        raise ValueError(
            f"{what} shares {len(rows):,} events with {this}, the first is event {rows[0]} of {this}; classifiers "
            "would score events that they saw with the other label: give independent events"
        )


def _digests(truth: EventSample) -> Iterator[str]:
    """The digests that a training on this sample may have: its numbers in single or double precision."""
    for events, weights in (
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
        (torch.float64, torch.float32),
    ):
        tensors = {"events": truth.tensor(events)}
        if truth.weights is not None:
            tensors["weights"] = scaled_weights(truth.weights).to(weights)
        yield data_digest(tensors)


def same_rows(ours: NDArray[np.float64], others: NDArray[Any]) -> NDArray[np.int64]:
    """Numbers of our rows that are among the others, exactly; rows that we have several times do not count."""
    # What one side has in single precision only can be found in nothing better; of one column, chance would find it.
    rounded = others.dtype == np.float32 or np.array_equal(ours, ours.astype(np.float32), equal_nan=True)
    dtype = np.float32 if rounded and others.shape[1] > 1 else np.float64
    a, b = (_as_items(np.ascontiguousarray(table, dtype=dtype)) for table in (ours, others))
    _, first, counts = np.unique(a, return_index=True, return_counts=True)
    single = np.sort(first[counts == 1])
    return single[np.isin(a[single], b)]


def _as_items(table: NDArray[Any]) -> NDArray[Any]:
    """Each row as one item; zeros of both signs are the same."""
    table = table + 0.0
    return table.view(np.dtype((np.void, table.dtype.itemsize * table.shape[1])))[:, 0]
