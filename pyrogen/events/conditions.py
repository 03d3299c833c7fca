"""The scale of conditions: what a conditional flow is given besides events."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from .preprocessing import Standardise, moments
from .sample import EventsLike, as_sample


class StandardiseContext(Standardise):
    """As :class:`Standardise`, for conditions ``[N, k]``; constant columns and flags are no error.

    A column that holds only 0 and 1 (one-hot categories, flags) is not changed, since a rare category would become a
    large number. A constant column becomes 0. Events count by the absolute value of their weight.
    """

    kind = "standardise_context"

    def fit(self, events: EventsLike, weights: ArrayLike | Tensor | None = None) -> StandardiseContext:
        sample = as_sample(events, weights)
        sizes = None if sample.weights is None else np.abs(sample.weights)
        counted = sample.values if sizes is None else sample.values[sizes > 0]
        mean, std = moments(sample.values, sizes)
        constant = counted.min(axis=0) == counted.max(axis=0)
        flags = ((counted == 0) | (counted == 1)).all(axis=0)
        mean = np.where(flags, 0.0, np.where(constant, counted[0], mean))
        self._set([mean, np.where(flags | constant, 1.0, std)])
        return self
