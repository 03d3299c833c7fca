"""Eigen-variations of a histogram's covariance: the uncertainty of a band as independent templates for a fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pyrogen.labelled import Labelled

Array = NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class Variations(Labelled):
    """Independent one-sigma variations of a histogram with B bins, the largest first.

    A fit takes every variation for one nuisance parameter alpha_i with a standard normal constraint: the template is
    ``nominal + sum_i alpha_i shifts_i``, whose covariance is that of the band (:attr:`rest` aside). Another band
    has other variations: its parameters are not these.

    Attributes:
        edges: bin edges, ``[B + 1]``.
        nominal: the template itself, ``[B]``.
        shifts: what one sigma of each of K variations changes, ``[K, B]``. The largest change of each is positive.
        rest: standard deviation of every bin that the variations left out would give, ``[B]``: zero if there are none.
            A fit that wants all of the variance takes it for independent from bin to bin.
        kept: fraction of the variance, summed over the bins, that the K variations have.
    """

    _dims: ClassVar[Mapping[str, str]] = {
        "edges": "bin_edge",
        "nominal": "bin",
        "shifts": "variation bin",
        "rest": "bin",
        "up": "variation bin",
        "down": "variation bin",
    }

    edges: Array
    nominal: Array
    shifts: Array
    rest: Array
    kept: float

    @property
    def up(self) -> Array:
        """Templates at plus one sigma of each variation, ``[K, B]``."""
        return self.nominal + self.shifts

    @property
    def down(self) -> Array:
        """Templates at minus one sigma, ``[K, B]``; a bin may be negative where sigma exceeds its content."""
        return self.nominal - self.shifts

    def __len__(self) -> int:
        return len(self.shifts)

    def modifiers(self, name: str = "generator") -> list[dict[str, Any]]:
        """The variations as modifiers of a sample in a HistFactory or pyhf specification, in JSON types.

        One ``histosys`` for each, named ``name_0, name_1, ...``; ``nominal`` is the sample's ``data``. Up and down are
        symmetric, so that all interpolations of pyhf are linear in alpha, and the fit sees the Gaussian of this
        covariance.
        """
        return [
            {"name": f"{name}_{i}", "type": "histosys", "data": {"hi_data": up.tolist(), "lo_data": down.tolist()}}
            for i, (up, down) in enumerate(zip(self.up, self.down, strict=True))
        ]

    def _summary(self) -> str:
        return f"{len(self)} variations of {len(self.nominal)} bins, {self.kept:.2%} of the variance"


def eigen_variations(edges: Array, nominal: Array, covariance: Array, fraction: float) -> Variations:
    """The largest variations of a covariance ``[B, B]`` that have at least this fraction of its variance.

    Directions of negative variance, as an estimate with subtracted noise may have them, are left out.
    """
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1], vectors[:, ::-1]
    rounding = max(1e-12 * values[0], (1e-14 * np.abs(nominal).max()) ** 2)
    seen = values > rounding  # what rounding leaves of zero is no variation
    total = values[seen].sum()
    reached = np.cumsum(values[seen]) / total if total > 0 else np.empty(0)
    count = min(int(np.searchsorted(reached, fraction - 1e-12)) + 1, len(reached))
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(0)[None], 0)
    shifts = (vectors * np.sign(largest) * np.sqrt(np.clip(values, 0, None))).T
    left = np.square(shifts[count:][seen[count:]]).sum(0)
    return Variations(edges, nominal, shifts[:count], np.sqrt(left), float(reached[count - 1]) if count else 1.0)
