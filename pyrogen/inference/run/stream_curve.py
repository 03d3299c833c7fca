"""The curve of a training without an end: a bounded number of points, however long it runs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pyrogen.inference.run.curves import Curve
from pyrogen.posterior.info import History

MOST = 512  # points


class OpenCurve:
    """Figures of rounds; from some number of points on each point is the mean of 2, 4, 8, ... rounds.

    Args:
        means: names of figures whose mean over the rounds is kept.
        ends: names of those that are kept as they are at the last of the rounds.
    """

    def __init__(self, means: tuple[str, ...], ends: tuple[str, ...]) -> None:
        self.means, self.ends = means, ends
        self.stride = 1
        self.points: dict[str, list[float]] = {name: [] for name in (*means, *ends)}
        self.waiting: list[dict[str, float]] = []

    def append(self, row: Mapping[str, float]) -> None:
        """Add the figures of a round."""
        self.waiting.append({name: float(row[name]) for name in self.points})
        if len(self.waiting) < self.stride:
            return
        for name, value in self._merged(self.waiting).items():
            self.points[name].append(value)
        self.waiting = []
        if len(self.points[self.ends[0]]) >= MOST:
            rows = [dict(zip(self.points, its, strict=True)) for its in zip(*self.points.values(), strict=True)]
            pairs = [self._merged(rows[i : i + 2]) for i in range(0, len(rows), 2)]
            self.points = {name: [pair[name] for pair in pairs] for name in self.points}
            self.stride *= 2

    def _merged(self, rows: list[dict[str, float]]) -> dict[str, float]:
        merged = {name: rows[-1][name] for name in self.ends}
        for name in self.means:
            values = np.array([row[name] for row in rows])
            good = values[~np.isnan(values)]
            merged[name] = float(good.mean()) if len(good) else float("nan")
        return merged

    def history(self) -> History:
        """All points, the last one of the rounds that wait for others."""
        last = [self._merged(self.waiting)] if self.waiting else []
        return {
            name: np.array([*values, *(each[name] for each in last)], dtype=np.float64)
            for name, values in self.points.items()
        }

    def state(self) -> dict[str, object]:
        """All of it, for a checkpoint."""
        waiting = {name: Curve([row[name] for row in self.waiting]) for name in self.points}
        return {
            "stride": self.stride,
            "points": {name: Curve(values) for name, values in self.points.items()},
            "waiting": waiting,
        }

    def load(self, state: Mapping[str, object]) -> None:
        """Take up what :meth:`state` gave."""
        points, waiting = ({n: np.asarray(v).tolist() for n, v in state[key].items()} for key in ("points", "waiting"))  # type: ignore[attr-defined]
        self.stride, self.points = int(state["stride"]), points  # type: ignore[call-overload]
        rows = zip(*waiting.values(), strict=True)
        self.waiting = [dict(zip(waiting, its, strict=True)) for its in rows]
