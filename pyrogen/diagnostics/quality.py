"""Quality of generated events: distances of observables with the floor that even true events have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pyrogen.checks import SEED, dictionary, door, whole
from pyrogen.diagnostics.control.copies import check_random_splits, independent_size
from pyrogen.diagnostics.distances import positive_weights
from pyrogen.events import EventSample, check_events
from pyrogen.events.containers import check_same_order, table_of
from pyrogen.events.doors import PLAIN_EVENTS
from pyrogen.events.observing import OBSERVED, Observed, of_sample
from pyrogen.labelled import Labelled
from pyrogen.seeds import stream

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class QualityTable(Labelled):
    """Wasserstein-1 distances of observables of a generated sample from the truth, next to their floor.

    An observable that some events do not have, by its ``missing`` (see :class:`~pyrogen.events.Observable`), is
    compared among the events that have it. Before it stands a row of its own, ``"has <name>"``: the difference of the
    fractions of events that have it. Observables that say so by one function share this row.

    Attributes:
        names: of the n rows: observables, and ``"has <name>"``.
        units: of the distances, ``""`` where not known.
        distance: ``[n]``, of the generated events from the truth.
        floor: ``[n]``, what a perfect generator would have: distance of two samples of true events of these sizes,
            mean over random re-partitions.
        floor_std: ``[n]``, standard deviation of it over the re-partitions: how much a single distance fluctuates.
        reference: ``[n]``, distance of the reference itself from the truth: one draw of the floor.
        sizes: events used: of the truth, and of both the generated sample and the reference.
        effective_sizes: (sum w)^2 / sum w^2 of truth, generated sample and reference; events and their copies count as
            one. A generated sample of a smaller one than the reference has a higher floor of its own.
        partitions: number of re-partitions.
    """

    _dims: ClassVar[Mapping[str, str]] = {
        "names": "observable",
        "units": "observable",
        "distance": "observable",
        "floor": "observable",
        "floor_std": "observable",
        "reference": "observable",
        "ratio": "observable",
    }
    _at: ClassVar[tuple[str, ...]] = ("names", "units")

    names: tuple[str, ...]
    units: tuple[str, ...]
    distance: Array
    floor: Array
    floor_std: Array
    reference: Array
    sizes: tuple[int, int]
    effective_sizes: tuple[float, float, float]
    partitions: int

    def _summary(self) -> str:
        ratios = ", ".join(f"{name}: {ratio:.3g}" for name, ratio in zip(self.names, self.ratio, strict=True))
        return f"W1/floor {ratios}"

    @property
    def ratio(self) -> Array:
        """``[n]`` distance over floor: 1 for a perfect generator; NaN where both are zero."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.distance / self.floor

    @property
    def excess(self) -> Array:
        """``[n]`` (distance - floor) / floor_std; the distribution of the floor is skew, so 3 is no 3 sigma."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return (self.distance - self.floor) / self.floor_std

    def text(self) -> str:
        """The table as aligned plain text."""
        rows = [["observable", "W1", "floor", "+-", "W1/floor", "reference"]]
        for i, (name, unit) in enumerate(zip(self.names, self.units, strict=True)):
            numbers = (self.distance[i], self.floor[i], self.floor_std[i])
            label = f"{name} [{unit}]" if unit else name
            cells = [f"{number:.4g}" for number in numbers]
            rows.append([label, *cells, f"{self.ratio[i]:.2f}", f"{self.reference[i]:.4g}"])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
            for row in rows
        ]
        used = f"{self.sizes[0]:,} true events, {self.sizes[1]:,} generated and as many of the reference"
        if self.effective_sizes != (self.sizes[0], self.sizes[1], self.sizes[1]):
            used += "; effectively {:,.0f}, {:,.0f} and {:,.0f}".format(*self.effective_sizes)
        return "\n".join([*lines, f"{used}; floor of {self.partitions} re-partitions"])


@door(
    truth=PLAIN_EVENTS,
    generated=PLAIN_EVENTS,
    reference=PLAIN_EVENTS,
    observables=dictionary(OBSERVED),
    partitions=whole(2),
    seed=SEED,
)
def sample_quality(
    truth: Any,
    generated: Any,
    reference: Any,
    observables: Mapping[str, Observed],
    *,
    partitions: int = 10,
    seed: int = 0,
) -> QualityTable:
    """Wasserstein-1 distance of each observable of generated events from the truth, and the floor it can reach.

    Two finite samples of one distribution are not at distance zero. The floor is that distance: truth and reference
    are pooled and split at random into parts of the same sizes, several times. So that it is fair, the first n events
    of generated sample and reference are used, n the smaller of their numbers: shuffle samples that are in an order.
    Weights are scaled to mean one in each sample; those of truth and reference should be of the same kind.

    Args:
        truth: held-out events ``[N, d]``: a tensor, an array or an :class:`~pyrogen.EventSample`, whose (positive)
            weights count.
        generated: events ``[M, d]``.
        reference: true events independent of ``truth``, such as those of the training.
        observables: what to compare, by name: a function of events ``[n, d]`` (a float64 tensor) that gives ``[n]``,
            or the name or index of a column.
        partitions: number of random partitions for the floor.
        seed: seeds them.

    Raises:
        ValueError: no observables, empty samples, numbers that are not finite (but for events that say that they do not
            have the observable), negative weights, different columns, copies among the true events.
    """
    if not observables:
        raise ValueError("observables is empty; give functions of events, or columns, by name")
    return quality_table(truth, generated, reference, observables, partitions, seed)


def quality_table(
    truth: Any,
    generated: Any,
    reference: Any,
    observables: Mapping[str, Observed],
    partitions: int,
    seed: int,
    also: Mapping[str, EventSample] | None = None,
) -> QualityTable:
    """:func:`sample_quality`, with rows for what events of further samples do not have, too."""
    samples = checked_samples(truth=truth, generated=generated, reference=reference)
    check_random_splits(truth=samples["truth"], reference=samples["reference"])
    n = min(len(samples["generated"]), len(samples["reference"]))
    samples = {name: sample if name == "truth" else sample[:n] for name, sample in samples.items()}
    total = len(samples["truth"])
    weights = {name: mean_one(sample) for name, sample in samples.items()}
    rows = _rows(observables, samples, with_holes(observables, {**samples, **(also or {})}))
    pooled = np.concatenate([weights["truth"], weights["reference"]])
    generator = np.random.default_rng(stream(seed, "quality"))
    in_truth = np.zeros((partitions + 1, total + n), dtype=bool)
    in_truth[:, :total] = True  # the first row stays: the reference itself
    for row in in_truth[1:]:
        generator.shuffle(row)

    distance, floors = [], []
    for _, _, table in rows:
        both = np.concatenate([table["truth"], table["generated"]])
        signed = np.concatenate([weights["truth"], weights["generated"]])
        order = _in_order(both)
        distance.append(sorted_distance(both[order], signed[order], in_truth[0][order]))
        both = np.concatenate([table["truth"], table["reference"]])
        order = _in_order(both)
        both, sorted_weights = both[order], pooled[order]
        floors.append([sorted_distance(both, sorted_weights, row[order]) for row in in_truth])
    floor = np.array(floors)
    return QualityTable(
        tuple(name for name, _, _ in rows),
        tuple(unit for _, unit, _ in rows),
        np.array(distance),
        floor[:, 1:].mean(1),
        floor[:, 1:].std(1, ddof=1),
        floor[:, 0],
        (total, n),
        (samples["truth"].effective_size, independent_size(samples["generated"]), samples["reference"].effective_size),
        partitions,
    )


def checked_samples(*, positive: bool = True, **given: Any) -> dict[str, EventSample]:
    """Checked samples by name, one of them ``truth``; arrays have the columns of the first sample with names.

    Args:
        positive: whether negative weights are refused.
        given: the samples.
    """
    tables = {name: table_of(events, name) for name, events in given.items()}
    named = [EventSample(table) for table in tables.values() if table.names is not None]
    samples = {}
    for name, events in given.items():
        check_same_order(name, tables[name], "truth", tables["truth"])
        if not isinstance(events, EventSample):
            check_events(events, what=name)
            events = EventSample(tables[name])
            if tables[name].names is None and named and named[0].features == events.features:
                events = EventSample(events.values, named[0].names, named[0].units)
        if positive:
            positive_weights(name, events)
        samples[name] = events
        if events.features != samples["truth"].features:
            raise ValueError(
                f"{name} has {events.features} columns and truth has {samples['truth'].features}; they must be the same"
            )
    return samples


def values_with_holes(name: str, what: Observed, which: str, sample: EventSample) -> Array:
    """An observable ``[n]`` of a sample; NaN for the events that say that they do not have it."""
    return of_sample(what, sample, f"observable {name!r} of {which}")


def finite_observable(name: str, what: Observed, which: str, sample: EventSample) -> Array:
    """An observable ``[n]`` of a sample, which all of its events must have."""
    array = values_with_holes(name, what, which, sample)
    lacking = int(np.isnan(array).sum())
    if lacking:
        raise ValueError(
            f"{lacking} of {len(sample)} events of {which} do not have the observable {name!r}, and this needs "
            f"a number for each; leave it out{_how_to_choose(sample)}"
        )
    return array


def _how_to_choose(sample: EventSample) -> str:
    return "" if sample.multiplicity is None else ", or take the events with n objects, sample.with_count(n)"


def with_holes(observables: Mapping[str, Observed], samples: Mapping[str, EventSample]) -> frozenset[str]:
    """The observables that some events of some sample do not have; one of those that say so by one function."""
    found: dict[Any, str] = {}
    objects = samples["truth"].multiplicity is not None
    for name, what in observables.items():
        says = getattr(what, "missing", None)
        if says in found or (says is None and not objects):
            continue
        if any(np.isnan(values_with_holes(name, what, which, its)).any() for which, its in samples.items()):
            found[says or name] = name
    return frozenset(found.values())


def _rows(
    observables: Mapping[str, Observed], samples: Mapping[str, EventSample], holes: frozenset[str]
) -> list[tuple[str, str, dict[str, Array]]]:
    """Name, unit and values of each sample, of all rows of a table."""
    rows = []
    for name, what in observables.items():
        values = {which: values_with_holes(name, what, which, sample) for which, sample in samples.items()}
        if name in holes:
            rows.append((f"has {name}", "", {which: 1.0 - np.isnan(its) for which, its in values.items()}))
        rows.append((name, _unit(what, samples["truth"]), values))
    return rows


def _in_order(values: Array) -> NDArray[np.int64]:
    """The rows that are numbers, in the order of these."""
    order = np.argsort(values)  # NaN last
    return order[: np.count_nonzero(~np.isnan(values))]


def _unit(what: Any, truth: EventSample) -> str:
    if callable(what):
        return str(getattr(what, "unit", ""))
    return truth.units[truth.names.index(what) if isinstance(what, str) else what]


def mean_one(sample: EventSample) -> Array:
    """The weights ``[N]`` of a sample, scaled to a mean of one; ones where it has none."""
    return np.ones(len(sample)) if sample.weights is None else sample.weights * (len(sample) / sample.total_weight)


def sorted_distance(values: Array, weights: Array, first: NDArray[np.bool_]) -> float:
    """Wasserstein-1 distance of two samples in one sorted array: integral of |difference of their CDFs|.

    NaN where one of them has no event.
    """
    ours, theirs = np.where(first, weights, 0.0), np.where(first, 0.0, weights)
    if min(ours.sum(), theirs.sum()) <= 0:
        return np.nan
    difference = np.cumsum(ours / ours.sum() - theirs / theirs.sum())
    return float(np.abs(difference[:-1]) @ np.diff(values))
