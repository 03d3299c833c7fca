"""The samples that a classifier learns from: checked, as the variables it sees, and split at random."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyrogen.classifier import Features
from pyrogen.events import EventSample, check_events
from pyrogen.events.containers import check_same_order, table_of
from pyrogen.events.observing import missing_in

SMALLEST_PART = 10  # events of each class in each part of a split


def checked_samples(truth: Any, generated: Any, features: Features | None) -> dict[str, EventSample]:
    """Both samples, by the name of the argument, after all checks that need no split."""
    samples = {}
    for name, events in (("truth", truth), ("generated", generated)):
        if not isinstance(events, EventSample):
            check_events(events, what=name)
            events = EventSample(events)
        samples[name] = events
    a, b = samples.values()
    check_same_columns(a, "generated", b)
    widths = [variables(name, sample, features).shape[1] for name, sample in samples.items()]
    if widths[0] != widths[1]:
        raise ValueError(f"features makes {widths[0]} variables of truth and {widths[1]} of generated; give one number")
    return samples


def check_same_columns(truth: EventSample, what: str, other: EventSample) -> None:
    """Raise a ValueError where a sample, which the error calls ``what``, has other columns than the truth.

    Names may all be others, but not some of them; a unit may be missing.
    """
    if truth.features != other.features:
        raise ValueError(f"truth has {truth.features} columns and {what} has {other.features}; they must be the same")
    if truth.multiplicity != other.multiplicity:
        raise ValueError(
            f"truth has the layout {truth.multiplicity} and {what} has {other.multiplicity}; they must be the same"
        )
    check_same_order(what, table_of(other), "truth", table_of(truth))
    if set(truth.names) & set(other.names) and truth.names != other.names:
        raise ValueError(
            f"truth has the columns {', '.join(truth.names)}, {what} has {', '.join(other.names)}; choose the same "
            "with sample.select(names)"
        )
    for name, own, its in zip(truth.names, truth.units, other.units, strict=True):
        if own and its and own != its:
            raise ValueError(f"{name} is in {own} in truth and in {its} in {what}; convert its column")


def variables(name: str, sample: EventSample, features: Features | None) -> Tensor:
    """The variables of all events, ``[N, k]`` in float64; NaN where an event does not have one of them."""
    events = sample.tensor(torch.float64)
    if features is None:
        return events
    seen = features(events)
    if not isinstance(seen, Tensor) or seen.ndim != 2 or len(seen) != len(events):
        shape = list(seen.shape) if isinstance(seen, Tensor) else type(seen).__name__
        raise ValueError(f"features({name}) is {shape}; it must be a tensor [{len(events)}, k], one row per event")
    # Objects that are not there have no observables either; other events must say what they do not have.
    out = missing_in(features, events, f"features({name})") if sample.multiplicity is None else seen.isnan()
    check_events(seen if out is None else torch.where(out, 0.0, seen), what=f"features({name})")
    return seen.detach().double()


def random_split(
    name: str, sample: EventSample, share: float, part: str, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Rows of a random split: the rest, and the part; both with a positive sum of weights."""
    count = part_size(name, len(sample), share, part)
    order = torch.randperm(len(sample), generator=generator)
    rows = order[count:], order[:count]
    if sample.weights is not None:
        for its, what in zip(rows, ("other", part), strict=True):
            total = float(sample.weights[its.numpy()].sum())
            if not total > 0:
                raise ValueError(
                    f"{name}: the weights of the {len(its)} {what} events do not have a positive sum, but "
                    f"{total:.6g}; give another seed, or more events"
                )
    return rows


def part_size(name: str, size: int, share: float, part: str) -> int:
    """How many events the part has; an error where it or the rest has too few."""
    count = round(share * size)
    if min(count, size - count) < SMALLEST_PART:
        training = "training " if part == "validation" else ""  # those of other folds or parts are not among them
        raise ValueError(
            f"{name}: of {size} {training}events {count} are for the {part} part and {size - count} are left; both "
            f"need at least {SMALLEST_PART}: give more events or another fraction"
        )
    return count
