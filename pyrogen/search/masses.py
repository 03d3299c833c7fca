"""The masses of a bump hunt: what is refused of them, and their spectrum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyrogen.checks import column_index
from pyrogen.events.containers import table_of
from pyrogen.events.sample import as_sample
from pyrogen.printing import Brief

from .windows import Windows

Array = NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class Spectrum(Brief):
    """Masses in bins.

    Attributes:
        counts: events or sums of weights ``[B]``.
        squares: sums of squared weights ``[B]``; None: events without weights.
    """

    counts: Array
    squares: Array | None

    @property
    def scale(self) -> float:
        """``sum w^2 / sum w``; one without weights."""
        return 1.0 if self.squares is None else float(self.squares.sum() / self.counts.sum())


def masses_of(data: Any, column: Any, weights: Any, unit: str | None, windows: Windows) -> tuple[Array, Any, str, str]:
    """Checked masses ``[N]``, their weights, and name and unit."""
    label = "mass"
    table = table_of(data, "data")
    if table.values.ndim != 1:
        sample = as_sample(data)
        if sample.uncertainties is not None or sample.log_weights is not None:
            raise ValueError(
                "data has uncertainties or log_weights of a generator, which a count does not use; give "
                "GeneratedMasses(source=posterior), or EventSample(values, names, units) of events without them"
            )
        if column is None and sample.features > 1:
            raise ValueError(f"column is None; say which of {', '.join(sample.names)} is the mass")
        index = column_index(0 if column is None else column, sample.names)
        label, own = sample.names[index], sample.units[index]
        if unit is not None and own and unit != own:
            raise ValueError(f"unit is {unit!r}, and the column {label} of data has the unit {own!r}; give one of them")
        unit = unit or own
        weights = sample.weights if weights is None else weights
        values = np.asarray(sample.column(index), dtype=np.float64)
    else:
        if column is not None:
            raise ValueError(f"column is {column!r}, and data is an array of masses; leave it out")
        values = np.asarray(table.values, dtype=np.float64)
        label = table.names[0] if table.names else label
        unit = unit or (table.units[0] if table.units else "")
    if not len(values):
        raise ValueError("data is empty; a spectrum needs events")
    unit = unit or "TeV"
    _check_masses(values, windows, label, unit)
    if weights is None:
        return values, None, label, unit
    found = np.asarray(weights, dtype=np.float64)
    if found.shape != values.shape:
        raise ValueError(f"weights has shape {list(found.shape)}; data has {len(values)} masses")
    bad = np.flatnonzero(~(np.isfinite(found) & (found >= 0)))
    if bad.size or not found.sum() > 0:
        at = bad[0] if bad.size else 0
        raise ValueError(
            f"weights is {found[at]:g} for event {at}; a spectrum needs finite weights that are not negative, and a "
            "positive sum: the likelihood of a negative number of events is not defined"
        )
    return values, found, label, unit


def _check_masses(values: Array, windows: Windows, label: str, unit: str) -> None:
    low, high = windows.range
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise ValueError(f"data: {label} is {values[bad[0]]} in {bad.size:,} of {values.size:,} events, first {bad[0]}")
    outside = np.flatnonzero((values < low) | (values > high))
    if outside.size:
        ratio = float(np.median(np.abs(values))) / high
        other = " (are masses and range in the same unit?)" if ratio > 100 or ratio < 0.01 else ""
        raise ValueError(
            f"data: {outside.size:,} of {values.size:,} events have a {label} outside the range {windows.range} "
            f"{unit}, the first of them, event {outside[0]}, {values[outside[0]]:.10g}{other}; leave them out, or give "
            "another range"
        )


def spectrum_of(masses: Array, weights: Array | None, edges: Array) -> Spectrum:
    if weights is None:
        return Spectrum(np.histogram(masses, edges)[0].astype(np.float64), None)
    counts = np.histogram(masses, edges, weights=weights)[0]
    return Spectrum(counts, np.histogram(masses, edges, weights=weights**2)[0])
