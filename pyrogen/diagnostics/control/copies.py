"""Events that a sample has several times: they are not independent, and whoever counts on that must know."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pyrogen.events import EventSample

COPIES = "copies"
"""What a provenance calls the number of events that are copies of another one, made by :func:`unweight`."""
SHARE = 0.01  # of the rows: as many of single precision may be alike by chance
CONTINUOUS = 0.9  # of the different rows: values of the finest column
MOST_ALIKE = 10  # rows of a sample that may be alike by chance


def check_no_copies(samples: Mapping[str, EventSample]) -> None:
    """Raise a ValueError where one of two samples has copies: other folds would train on the events that they score.

    A provenance that tells of copies is believed. Without it, rows that one sample has several times and the other one
    never are copies, where a column has about as many different values as there are different rows: discrete events are
    alike by chance.
    """
    (_, first), (_, second) = samples.items()
    for (name, own), other in zip(samples.items(), (second, first), strict=True):
        rows, counts = _counted(own)
        number = int((counts - 1).sum())
        if number and (own.provenance.get(COPIES) or _look_copied(rows, counts, own, other)):
            raise ValueError(
                f"{name} has {number:,} events that are copies of others of it, which are not independent; give every "
                'event once, with its weight if it has one: pg.diagnostics.unweight(sample, overweights="cut") makes '
                "no copies"
            )


def check_random_splits(**true: EventSample) -> None:
    """Raise a ValueError where true events tell of copies: a random split would have the same events on both sides."""
    for name, sample in true.items():
        number = told_copies(sample)
        if number:
            raise ValueError(
                f"{name} has {number:,} events that are copies of others of it, so that its random "
                "splits would have too low a floor; give every event once, with its weight if it has one: "
                'pg.diagnostics.unweight(sample, overweights="cut") makes no copies'
            )


def told_copies(sample: EventSample) -> int:
    """How many events are copies of another one, of a sample whose provenance tells of copies; else 0."""
    return len(sample) - len(np.unique(_as_items(sample))) if sample.provenance.get(COPIES) else 0


def independent_size(sample: EventSample) -> float:
    """How many independent events a sample is worth: its effective size, with the copies that it tells of as one."""
    if not sample.provenance.get(COPIES):
        return sample.effective_size
    weights = np.ones(len(sample)) if sample.weights is None else np.asarray(sample.weights)
    _, which = np.unique(_as_items(sample), return_inverse=True)
    sums = np.bincount(which, weights)
    return float(sums.sum() ** 2 / np.sum(sums**2))


def _look_copied(rows: NDArray[np.void], counts: NDArray[np.int64], own: EventSample, other: EventSample) -> bool:
    finest = max(len(np.unique(column)) for column in own.values.T)
    if own.features == 1 or finest < CONTINUOUS * len(rows):
        return False
    theirs = np.isin(rows, _as_items(other))
    alone = int(((counts > 1) & ~theirs).sum())
    return alone > max(MOST_ALIKE, SHARE * len(rows), 3 * int(theirs.sum()) * max(1, len(own) / len(other)))


def _counted(sample: EventSample) -> tuple[NDArray[np.void], NDArray[np.int64]]:
    """The different rows, and how often each comes."""
    rows, counts = np.unique(_as_items(sample), return_counts=True)
    return rows, counts


def _as_items(sample: EventSample) -> NDArray[np.void]:
    """Each row as one item; zeros of both signs are the same."""
    table = np.ascontiguousarray(sample.values + 0.0)
    return table.view(np.dtype((np.void, table.dtype.itemsize * table.shape[1])))[:, 0]
