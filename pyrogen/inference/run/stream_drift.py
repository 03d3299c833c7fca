"""Whether the events of a stream change: windows of them against a window from its beginning."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

WINDOW = 2048  # events of the reference, and of every window that is held against it


@dataclass(frozen=True)
class Alarm:
    """A window whose events differ from the first ones.

    Attributes:
        events_seen: events of the stream up to the end of the window.
        column: the column that differs most.
        distance: the largest distance of the two cumulative distributions (Kolmogorov and Smirnov).
        p_value: how often so large a one occurs without a change, in one column of one window.
    """

    events_seen: int
    column: str
    distance: float
    p_value: float


class Drift:
    """Kolmogorov-Smirnov tests of windows against a reference, whose false alarms are bounded over the whole stream.

    Window j is tested at the level ``rate 6 / (pi^2 j^2)``, shared by its columns: whatever the length of the stream,
    the probability of a false alarm is at most ``rate`` (Bonferroni; the windows need not be independent, though they
    share their reference). Columns with ties, such as rounded ones, give fewer alarms. For weighted events the
    cumulative distributions are weighted and their sizes are effective ones, which is an approximation.

    Args:
        labels: names of the columns.
        rate: probability of any false alarm in the whole stream.

    Attributes:
        alarms: the windows that differ, the first and the last ones; :attr:`raised` counts all of them.
        tested: number of windows that were held against the reference.
    """

    def __init__(self, labels: Sequence[str], rate: float) -> None:
        self.labels, self.rate = tuple(labels), rate
        self.reference: NDArray[np.float64] | None = None  # [n, columns + 1], weights last
        self.parts: list[NDArray[np.float64]] = []
        self.alarms: list[Alarm] = []
        self.tested = self.raised = 0

    def add(self, columns: NDArray[np.float64], weights: NDArray[np.float64] | None, events_seen: int) -> Alarm | None:
        """Look at some more events ``[n, columns]``; returns an alarm, where these complete a window that differs."""
        weights = np.ones(len(columns)) if weights is None else weights
        self.parts.append(np.column_stack([columns, weights]))
        if sum(map(len, self.parts)) < WINDOW:
            return None
        window, self.parts = np.concatenate(self.parts), []
        if self.reference is None:
            self.reference = window
            return None
        self.tested += 1
        level = self.rate * 6 / (math.pi * self.tested) ** 2 / len(self.labels)
        found = [distance_of(self.reference[:, [i, -1]], window[:, [i, -1]]) for i in range(len(self.labels))]
        i = min(range(len(found)), key=lambda i: found[i][1])
        if found[i][1] >= level:
            return None
        alarm = Alarm(events_seen, self.labels[i], *found[i])
        self.raised += 1
        self.alarms = [*self.alarms[:1], alarm]
        return alarm

    def state(self) -> dict[str, Any]:
        """Counters and alarms, in JSON types."""
        return {"tested": self.tested, "raised": self.raised, "alarms": [asdict(alarm) for alarm in self.alarms]}

    def arrays(self) -> dict[str, NDArray[np.float64]]:
        """The events that it remembers."""
        width = len(self.labels) + 1
        waiting = np.concatenate(self.parts) if self.parts else np.zeros((0, width))
        return {"reference": np.zeros((0, width)) if self.reference is None else self.reference, "waiting": waiting}

    def load(self, state: dict[str, Any], arrays: dict[str, NDArray[np.float64]]) -> None:
        """Take up what :meth:`state` and :meth:`arrays` gave."""
        self.tested, self.raised = state["tested"], state["raised"]
        self.alarms = [Alarm(**alarm) for alarm in state["alarms"]]
        self.reference = arrays["reference"] if len(arrays["reference"]) else None
        self.parts = [arrays["waiting"]] if len(arrays["waiting"]) else []


def distance_of(first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[float, float]:
    """Kolmogorov-Smirnov distance of two samples and its p-value, each given as values and weights ``[n, 2]``.

    NaN, as of objects that are not there, count as the largest value.
    """
    columns = [np.where(np.isnan(sample[:, 0]), np.inf, sample[:, 0]) for sample in (first, second)]
    sizes, upto, at = [], [], np.unique(np.concatenate(columns))
    for values, sample in zip(columns, (first, second), strict=True):
        order = np.argsort(values, kind="stable")
        total = np.concatenate([[0.0], np.cumsum(sample[order, 1])])
        upto.append(total[np.searchsorted(values[order], at, side="right")] / total[-1])
        sizes.append(total[-1] ** 2 / np.square(sample[:, 1]).sum())
    distance = float(np.abs(upto[0] - upto[1]).max())
    return distance, kolmogorov(distance, sizes[0] * sizes[1] / (sizes[0] + sizes[1]))


def kolmogorov(distance: float, size: float) -> float:
    """Probability of a larger distance for samples of one distribution, of the harmonic size ``n m / (n + m)``.

    The limit distribution, with the correction of M. A. Stephens (J. R. Stat. Soc. B 32 (1970) 115) for finite sizes.
    """
    x = (math.sqrt(size) + 0.12 + 0.11 / math.sqrt(size)) * distance
    if x < 0.3:  # where the series converges slowly, to a probability of more than 0.9999
        return 1.0
    return min(1.0, 2 * sum((-1) ** (k - 1) * math.exp(-2 * (k * x) ** 2) for k in range(1, 20)))
