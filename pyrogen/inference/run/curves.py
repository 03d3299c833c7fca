"""Curves of a run: rows of numbers that only ever grow, and that a checkpoint stores in little time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Curve:
    """Rows of float64, a number or ``[R]`` each; an array that grows. A list of lists takes long to be turned into one.

    Args:
        rows: the first rows, ``[n]`` or ``[n, R]``.
    """

    def __init__(self, rows: ArrayLike = ()) -> None:
        self._room = np.array(rows, dtype=np.float64)
        self._rows = len(self._room)

    def append(self, row: ArrayLike) -> None:
        """Add a row."""
        new = np.asarray(row, dtype=np.float64)
        if self._rows == len(self._room):
            larger = np.empty((max(64, 2 * self._rows), *new.shape))
            larger[: self._rows] = self._room.reshape(self._rows, *new.shape)
            self._room = larger
        self._room[self._rows] = new
        self._rows += 1

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, i: Any) -> Any:
        return self._room[: self._rows][i]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """A copy, to which no later row is added."""
        return self._room[: self._rows].astype(dtype or np.float64)
