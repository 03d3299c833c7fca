"""Whether a stream repeats itself: a bounded memory of some of its events, chosen by their numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

KEPT = 4096  # events that are remembered
IN_A_ROW = 16  # repeats at one distance, after which a stream is refused
WINDOW = 64  # remembered events among which repeats are counted
MANY = 0.5  # of them: that the stream has few different events, or is read again in another order

STEP, FIRST, SECOND = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


class RepeatedStreamError(ValueError):
    """A stream gave events that came before, in the same order: they would count twice."""


def row_hashes(table: NDArray[np.float64]) -> NDArray[np.uint64]:
    """64 bits for every row ``[n, c]``: the same for the same numbers."""
    found = np.full(len(table), STEP)
    for column in table.view(np.uint64).T:
        found = _mixed(found + column)
    return found


def _mixed(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finish of SplitMix64 (Steele, Lea and Flood 2014)."""
    bits = (bits ^ (bits >> np.uint64(30))) * FIRST
    bits = (bits ^ (bits >> np.uint64(27))) * SECOND
    return bits ^ (bits >> np.uint64(31))


class Repeats:
    """Looks for events that came before.

    It remembers the events whose hash ends in enough zeros: whether an event is remembered depends on its numbers
    alone, so that an event that comes again is always looked up. The memory is bounded: with more events fewer are
    remembered, and it takes longer to notice.

    Attributes:
        share: part of the last :data:`WINDOW` remembered events that had come before.
        found_after: number of events after which more than :data:`MANY` of these were repeats; None: never.
        active: whether to look at all.
    """

    def __init__(self) -> None:
        self.mask = 0
        self.hashes = np.zeros(0, dtype=np.uint64)  # sorted
        self.numbers = np.zeros(0, dtype=np.int64)  # of the events, when they came first
        self.distance, self.run = -1, 0
        self.recent = np.zeros(0, dtype=bool)
        self.found_after: int | None = None
        self.active = True

    @property
    def share(self) -> float:
        """Part of the last remembered events that had come before."""
        return float(self.recent.mean()) if len(self.recent) else 0.0

    def look(self, hashes: NDArray[np.uint64], first: int) -> None:
        """Look at the events number ``first`` and following, given their hashes ``[n]``.

        Raises:
            RepeatedStreamError: they are events that came before, in the same order.
        """
        chosen = np.flatnonzero((hashes & np.uint64(self.mask)) == 0)
        if not len(chosen) or not self.active:
            return
        own, numbers = hashes[chosen], chosen + first
        # Of events that are there twice the first one is remembered; `unique` gives its place.
        known, places = np.unique(np.concatenate([self.hashes, own]), return_index=True)
        when = np.concatenate([self.numbers, numbers])[places]
        before = when[np.searchsorted(known, own)]
        self._follow(numbers, before)
        self.hashes, self.numbers = known, when
        while len(self.hashes) > KEPT:
            self.mask = 2 * self.mask + 1
            kept = (self.hashes & np.uint64(self.mask)) == 0
            self.hashes, self.numbers = self.hashes[kept], self.numbers[kept]

    def _follow(self, numbers: NDArray[np.int64], before: NDArray[np.int64]) -> None:
        """Follow at which distances events repeat others: ``before [n]`` is where events ``numbers [n]`` came first."""
        distances = numbers - before
        starts = np.flatnonzero(np.diff(distances, prepend=self.distance))  # runs of one distance
        lengths = np.diff(np.append(starts, len(distances)))
        carried = int(starts[0]) if len(starts) else len(distances)  # how many go on with the last run
        runs = [(self.distance, self.run + carried, 0)]
        runs += list(zip(distances[starts].tolist(), lengths.tolist(), starts.tolist(), strict=True))
        for distance, length, at in runs:
            if distance > 0 and length >= IN_A_ROW:
                raise RepeatedStreamError(
                    f"the stream repeats itself: near event {numbers[at]} come the events that came {distance} events "
                    "before, in the same order. They would count twice, and sigma would be too small. Give every event "
                    "once; passes says how often it is used"
                )
        self.distance, self.run = runs[-1][:2]
        self.recent = np.concatenate([self.recent, distances > 0])[-WINDOW:]
        if self.found_after is None and len(self.recent) == WINDOW and self.share > MANY:
            self.found_after = int(numbers[-1])

    def now(self) -> tuple[Any, ...]:
        """All of it as it is now, for :func:`told`; no array of it is ever changed in place."""
        return self.mask, self.hashes, self.numbers, self.distance, self.run, self.recent, self.found_after

    def load(self, state: dict[str, Any]) -> None:
        """Take up what :func:`told` made of it."""
        self.mask, self.distance, self.run = state["mask"], state["distance"], state["run"]
        self.hashes = np.array([int(each, 16) for each in state["hashes"]], dtype=np.uint64)
        self.numbers = np.array(state["numbers"], dtype=np.int64)
        self.recent = np.array(state["recent"], dtype=bool)
        self.found_after = state["found_after"]


def told(now: tuple[Any, ...]) -> dict[str, Any]:
    """What :meth:`Repeats.now` gave, in JSON types; hashes as text, for they have 64 bits."""
    mask, hashes, numbers, distance, run, recent, found_after = now
    return {
        "mask": mask,
        "hashes": [f"{each:016x}" for each in hashes],
        "numbers": numbers.tolist(),
        "distance": distance,
        "run": run,
        "recent": recent.tolist(),
        "found_after": found_after,
    }
