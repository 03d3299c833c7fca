"""Can events have a density at all? What rules one out, or makes it doubtful, is found before the training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pyrogen.events.multiplicity import Multiplicity
from pyrogen.posterior.info import Finding

Array = NDArray[np.float64]

FEWEST = 100  # events from which on repetitions say something
FEW_VALUES = 100  # of a column: no more are discrete, if every tenth event or fewer has a new one
REPEATED, DOUBTFUL = 0.5, 0.9  # parts of the events that are different from each other
SPIKE = 0.01  # of the events at exactly one value
HEAVIEST, HEAVY = 0.5, 0.1  # parts of the total weight in one event
SAME = 1e-9  # of the range of a column: values closer than that differ by the rounding of the computer
PLANE, NEARLY_A_PLANE = 1e-12, 1e-8  # smallest eigenvalue of the correlations


def obstacles(
    events: Array, weights: Array | None, names: Sequence[str], conditions: Array | None = None
) -> list[Finding]:
    """Why there is no density of events, or perhaps not the one that is wanted.

    Args:
        events: ``[N, d]``, finite.
        weights: ``[N]`` or None. Events of weight zero do not count.
        names: of the columns.
        conditions: ``[N, k]`` or None. An event that comes back at another condition is no repetition.

    Returns:
        Findings; the serious ones rule a density out: a column that is constant or has a few values only, columns on a
        plane, events that repeat each other, one event with most of the weight.
    """
    if weights is not None:
        found = list(_heavy(weights))
        events, conditions = events[weights != 0], None if conditions is None else conditions[weights != 0]
    else:
        found = []
    if len(events) < 2:
        return found
    labels = [_label(i, name) for i, name in enumerate(names)]
    constant = events.min(axis=0) == events.max(axis=0)
    found += [
        Finding(
            "no density",
            f"{labels[i]} is constant, {events[0, i]} in every event",
            "A feature without spread has no density: leave it out",
        )
        for i in np.flatnonzero(constant)
    ]
    if not constant.any():
        found += _planes(events, labels)
    if len(events) >= FEWEST:
        found += _repetitions(events, labels, conditions)
    return found


def obstacles_of_objects(
    layout: Multiplicity, events: Array, weights: Array | None, names: Sequence[str], conditions: Array | None = None
) -> list[Finding]:
    """As :func:`obstacles`, of events with a varying number of objects, ``[N, d]`` with NaN where no object is.

    Of each object those events count that have it, with the columns up to it.
    """
    first, counts = layout.width(layout.least), layout.counts(events)
    found = obstacles(events[:, :first], weights, names[:first], conditions)
    for count in layout.numbers[1:]:
        have = counts >= count if weights is None else (counts >= count) & (weights != 0)
        new = layout.columns(count - 1)
        labels = [_label(i, names[i]) for i in range(new.start, new.stop)]
        given = None if conditions is None else conditions[have]
        its = obstacles(events[have, : new.stop], None, names[: new.stop], given) if have.any() else []
        found += [each for each in its if any(label in each.found for label in labels)]
    return found


def _label(column: int, name: str) -> str:
    return f"column {column} ({name})"


def _heavy(weights: Array) -> Iterator[Finding]:
    sizes = np.abs(weights) / np.abs(weights).sum()
    heaviest = int(sizes.argmax())
    share = float(sizes[heaviest])
    what = f"event {heaviest} of {len(weights)} has {share:.0%} of the total weight"
    if share > HEAVIEST and len(weights) >= 10:
        yield Finding(
            "no density", what, "The density would be a spike there: check this weight, or leave the event out"
        )
    elif share > HEAVY and len(weights) >= FEWEST:
        yield Finding("a heavy event", what, "The density may become a spike there: check this weight", serious=False)


def _planes(events: Array, labels: Sequence[str]) -> Iterator[Finding]:
    n, d = events.shape
    if d < 2 or n <= d:  # fewer events than features always lie on a plane
        return
    centred = events / np.abs(events).max(axis=0)  # so that squares are no infinity
    largest = np.abs(centred).max(axis=0)
    centred = centred - centred.mean(axis=0)
    std = centred.std(axis=0)
    if not (std > 0).all():  # a spread below the rounding: nothing can be said
        return
    values, vectors = np.linalg.eigh(np.corrcoef(centred / std, rowvar=False))
    # What is exact in float32 was rounded to it.
    single = np.abs(events).max() < 1e38 and (events.astype(np.float32) == events).all()
    rounding = d * float(np.square(np.finfo(np.float32 if single else np.float64).eps * largest / std).max())
    if values[0] > max(NEARLY_A_PLANE, rounding):
        return
    part = np.abs(vectors[:, 0])
    columns = " and ".join(labels[int(i)] for i in np.flatnonzero(part > 0.05 * part.max()))
    exact = bool(values[0] <= max(PLANE, rounding))  # a record of the run in JSON takes no numpy bool
    how = "exactly" if exact else f"up to a relative spread of {values[0] ** 0.5:.1g}"
    yield Finding(
        "no density" if exact else "nearly no density",
        f"{columns} depend on each other linearly, {how}",
        "Events on a plane have no density: leave one of these columns out",
        serious=exact,
    )


def _repetitions(events: Array, labels: Sequence[str], conditions: Array | None) -> Iterator[Finding]:
    n = len(events)
    most, discrete = 0, False
    for label, column in zip(labels, events.T, strict=True):
        values, counts = np.unique(column, return_counts=True)
        most = max(most, len(values))
        if len(values) <= min(FEW_VALUES, n / 10):
            discrete = True
            yield _discrete(label, column, values)
            continue
        tenth, top = np.sort(counts)[[-10, -1]]
        if top > SPIKE * n and top > 5 * tenth:
            yield Finding(
                "a spike",
                f"{top / n:.0%} of the events have {label} at exactly {values[counts.argmax()]:.6g}",
                "A density has no spikes: leave these events out, or describe them separately",
                serious=False,
            )
    whole = events if conditions is None else np.hstack([events, conditions])
    most = max(most, *(len(np.unique(column)) for column in whole.T[len(labels) :]), 0)
    if discrete or most >= DOUBTFUL * n:
        return
    rows, counts = np.unique(whole, axis=0, return_counts=True)
    if len(rows) < DOUBTFUL * n and not _rounding_repeats(events, counts):
        yield Finding(
            "repeated events",
            f"only {len(rows)} of {n} events are different",
            "Repetitions count as independent events and make the density spikes with too small an uncertainty: give "
            "each event once, with the number of its repetitions as weight "
            "(values, counts = np.unique(events, axis=0, return_counts=True))",
            serious=len(rows) < REPEATED * n,
        )


def _rounding_repeats(events: Array, counts: NDArray[np.int_]) -> bool:
    """Whether events ``[N, d]`` repeat because every column is rounded: a mass to 0.01 GeV, counts of a converter.

    Such columns have more values than a flow resolves (those that have fewer are told by themselves), and a density
    as good as that before the rounding.

    Args:
        events: ``[N, d]``.
        counts: how often each different event is there.
    """
    by_chance = float(len(events)) ** 2
    for column in events.T:
        values, repetitions = np.unique(column, return_counts=True)
        gaps = np.diff(values)
        gaps = gaps[gaps > SAME * (values[-1] - values[0])]
        if not len(gaps):  # the range is beyond the largest number
            return False
        steps = gaps / gaps.min()
        if (np.abs(steps - np.round(steps)) < 0.1).mean() < DOUBTFUL:  # of random gaps 20 % are
            return False
        by_chance *= float(np.square(repetitions / len(events)).sum())
    # Pairs of equal events; where columns depend on each other there are more than independent ones give.
    return float(np.square(counts).sum()) - len(events) < 10 * by_chance


def _discrete(label: str, column: Array, values: Array) -> Finding:
    found = f"{label} has {len(values)} different values in {len(column)} events"
    if (values == np.round(values)).all():
        found += ", all of them whole numbers"
        cure = "Give it pg.events.Dequantise() in BayesianFlow(preprocessing=pg.events.Columns([...]))"
    else:
        cure = "Scale it so that its steps are 1 and give it pg.events.Dequantise()"
    return Finding("no density", found, f"{cure}, make it a condition (context), or train on each value separately")
