"""What a search is given, checked before any work: columns, units, weights, and the methods of its classifiers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pyrogen.diagnostics.classifier_samples import check_same_columns
from pyrogen.diagnostics.classifier_training import Network
from pyrogen.diagnostics.control.trees import Trees
from pyrogen.diagnostics.control.weights import METHOD, Learner
from pyrogen.events import EventSample, EventsLike
from pyrogen.events.containers import numbers_of

Array = NDArray[np.float64]

TREES = Trees(lr=0.05, leaves=31, smallest_leaf=20, patience=10)  #: of a search: see benchmarks/lhco.py
NETWORK = Network(epochs=20)  #: of a search
OUTER = (0.05, 0.95)  # quantiles between which two samples must have something in common
LABELS = ("signal", "is_signal", "issignal", "label", "labels", "truth", "target")  # columns that know the answer


def METHODS(name: str, value: Any) -> tuple[Learner, ...]:
    """The settings of one or several methods."""
    if isinstance(value, str) and value in ("trees", "network", "both"):
        known: dict[str, tuple[Learner, ...]] = {"trees": (TREES,), "network": (NETWORK,), "both": (TREES, NETWORK)}
        return known[value]
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        return tuple(METHOD(f"every entry of {name}", each) for each in value)
    try:
        return (METHOD(name, value),)
    except (ValueError, TypeError) as error:
        right = '"trees", "network", "both", or settings: Trees(...), Network(...), or several of them'
        raise type(error)(f"{str(error).partition('; it must be')[0]}; it must be {right}") from error


def checked(what: str, events: EventsLike, like: EventSample | None = None, this: str = "data") -> EventSample:
    """Events as a sample without negative weights, with the columns and units of another one.

    Args:
        what: how errors call it.
        events: the events.
        like: the other sample; None: there is none.
        this: how errors call the other one.

    Raises:
        ValueError, TypeError: what :class:`~pyrogen.EventSample` refuses; other columns or units; negative weights.
    """
    try:
        sample = events if isinstance(events, EventSample) else EventSample(events)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{what}: {error}") from error
    if sample.multiplicity is not None:
        raise ValueError(f"{what} has a varying number of objects in an event; choose columns that all events have")
    if len(sample) == 0:
        raise ValueError(f"{what} has no events")
    if like is not None:
        try:
            check_same_columns(like, what, sample)
        except ValueError as error:
            raise ValueError(str(error).replace("truth", this)) from error
    if sample.weights is not None:
        check_not_negative(f"the weights of {what}", sample.weights)
    return sample


def check_not_negative(what: str, weights: NDArray[Any]) -> None:
    """Raise a ValueError where some weights are negative."""
    negative = np.flatnonzero(weights < 0)
    if negative.size:
        raise ValueError(
            f"{what}: {negative.size:,} of {weights.size:,} are negative, the first is "
            f"{weights.flat[negative[0]]:.6g}; a search counts events, so give weights of at least 0"
        )


def check_columns(what: str, sample: EventSample) -> None:
    """Raise a ValueError for events that carry a label among their features, or what a search does not use."""
    for name, column in zip(sample.names, sample.values.T, strict=True):
        if name.lower() in LABELS and np.isin(column, (0.0, 1.0)).all():
            raise ValueError(
                f"{what}: the column {name} has zeros and ones alone: it is a label and no feature, and a score would "
                "learn it; leave it out with sample.select(names), or read the file with pg.events.Dijets.read"
            )
    if sample.uncertainties is not None or sample.log_weights is not None:
        raise ValueError(
            f"{what}: the events have uncertainties or log_weights of a generator, which a score does not use; give "
            "EventSample(values, names, units), and template_weights where the draws of a posterior have weights"
        )


def check_not_mass(what: str, sample: EventSample, mass: NDArray[np.float64]) -> None:
    """Raise a ValueError for a column that rises or falls with the mass ``[N]`` in all events: it is the mass."""
    for name, column in zip(sample.names, sample.values.T, strict=True):
        for sign in (1, -1):
            ordered = column[np.lexsort((sign * column, mass))]
            if ordered[0] != ordered[-1] and (np.diff(sign * ordered) >= 0).all():
                raise ValueError(
                    f"{what}: the column {name} is a function of the mass. A score that knows the mass knows the "
                    "signal region, and a cut on it would make a bump by itself: leave the column out"
                )


def check_variables(samples: Mapping[str, EventSample], overlap: bool) -> None:
    """Raise a ValueError for a column that is a label, constant, or in which the samples are far apart.

    Args:
        samples: two of them, by the names of errors.
        overlap: whether samples that are far apart are refused.
    """
    (first, a), (second, b) = samples.items()
    for what, sample in samples.items():
        check_columns(what, sample)
    for name, own, its in zip(a.names, a.values.T, b.values.T, strict=True):
        if own.min() == own.max() == its.min() == its.max():
            raise ValueError(f"{name} is {own[0]:.6g} in all events of {first} and {second}; leave it out")
        (low, high), (least, most) = np.quantile(own, OUTER), np.quantile(its, OUTER)
        if overlap and (high < least or most < low):
            raise ValueError(
                f"{name} is mostly {low:.4g} to {high:.4g} in {first} and {least:.4g} to {most:.4g} in {second}: "
                "these have nothing in common; are both in the same unit?"
            )


def weights_of_members(name: str, sample: EventSample, given: ArrayLike | None, ensemble: int) -> Array | None:
    """Weights of a sample, its own or given ones: ``[M]``, ``[E, M]`` for each member of an ensemble, or None.

    Raises:
        ValueError: both; another shape; negative, or not finite, or without a positive sum.
    """
    if given is None:
        return None if sample.weights is None else np.asarray(sample.weights, dtype=np.float64)
    what = f"{name}_weights"
    if sample.weights is not None:
        raise ValueError(f"{name} has weights of its own, and {what} are given; give one of them, or their product")
    weights = np.array(numbers_of(given, what), dtype=np.float64)
    if weights.shape not in ((len(sample),), (ensemble, len(sample))):
        raise ValueError(
            f"{what} has the shape {list(weights.shape)}; it must be [{len(sample)}], or "
            f"[{ensemble}, {len(sample)}] with weights for each of the ensemble={ensemble} members"
        )
    if not np.isfinite(weights).all():
        raise ValueError(f"{what}: {int((~np.isfinite(weights)).sum()):,} of {weights.size:,} are NaN or infinite")
    check_not_negative(what, weights)
    if not (np.atleast_2d(weights).sum(1) > 0).all():
        raise ValueError(f"{what}: their sum is zero; it must be positive")
    return weights


def with_weights(sample: EventSample, weights: Array | None) -> EventSample:
    """The values, names and units of a sample, with other weights."""
    return EventSample(sample.values, sample.names, sample.units, weights)
