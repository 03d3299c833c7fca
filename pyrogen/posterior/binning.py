"""Bins of an observable, and the bin that each value belongs to: the conventions of numpy and of ``hist``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyrogen.checks import column_index, is_number, whole_number
from pyrogen.posterior.uhi import closed_above, edges_of, is_axis, is_histogram, label_of, own_index, the_axis

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Bins:
    """B bins, and the bin of every value.

    Plain edges follow numpy: the last bin contains its upper edge. An axis of ``hist`` or ``boost_histogram`` decides
    itself, by its ``index``, so that its bins are filled as the axis would fill them. Any other axis that follows the
    UHI protocol leaves the upper edge to the overflow, as ROOT does.

    Attributes:
        edges: bin edges, ``[B + 1]``.
        closed: whether the last bin contains its upper edge.
        index: the axis' own function from values to bin numbers; None: the edges decide.
        label: name in the label of the axis, empty where there is none.
        unit: unit there.
    """

    edges: Array
    closed: bool = True
    index: Callable[[Array], NDArray[np.int_]] | None = None
    label: str = ""
    unit: str = ""

    def __len__(self) -> int:
        return len(self.edges) - 1

    def numbers(self, values: Array) -> NDArray[np.int_]:
        """Number of the bin of every value, ``[m]``; -1 or B for values outside all bins."""
        if self.index is not None:
            return np.asarray(self.index(values))
        numbers = np.searchsorted(self.edges, values, side="right") - 1
        if self.closed:
            numbers[values == self.edges[-1]] -= 1
        return numbers

    def fill(self, values: Array, weights: Array | None = None) -> Array:
        """Number of values, or sum of their weights, in every bin, ``[B]``."""
        if self.index is None and self.closed:
            return np.histogram(values, self.edges, weights=weights)[0]
        return np.histogram(self.numbers(values), np.arange(len(self) + 1) - 0.5, weights=weights)[0]

    def on_last_edge(self, values: Array) -> int:
        """Number of values exactly on the upper edge of the last bin, where the conventions differ."""
        return int(np.count_nonzero(values == self.edges[-1]))


def make_bins(bins: Any, limits: Sequence[float] | None = None, *, what: str = "bins") -> Bins:
    """Bins from all that describes them.

    Args:
        bins: the edges ``[B + 1]``, an axis or a one-dimensional histogram of ``hist`` (or what follows the UHI
            protocol), the ``(counts, edges)`` of ``numpy.histogram``, or a number of bins.
        limits: lowest and highest edge of a number of bins.
        what: name of the argument, for errors.

    Raises:
        ValueError: edges that are no numbers, infinite or do not increase; a number of bins without limits, or limits
            without one; an axis that is circular or grows (the bins of a band are fixed) or has categories.
    """
    if isinstance(bins, Bins):
        return bins
    if _is_number_of_bins(bins):
        if limits is None:
            raise ValueError(f"{what} is {bins!r}; a number of bins needs range=(low, high); or give the edges")
        low, high = _limits(limits)
        return Bins(np.linspace(low, high, whole_number(what, bins, 1) + 1))
    found = _bins_with_edges(what, bins)
    if limits is not None:
        raise ValueError(f"range is {limits!r}, but {what} has edges of its own; give range with a number of bins only")
    return found


def label_for(name: str, observable: Any, bins: Bins, columns: Sequence[str], units: Sequence[str]) -> tuple[str, str]:
    """Label and unit of an observable: of its axis, its own, or of the column that it is; else its name."""
    if bins.label:
        return bins.label, bins.unit
    if callable(observable):
        own = getattr(observable, "label", ""), getattr(observable, "unit", "")
        return (str(own[0]), str(own[1])) if own[0] else (name, "")
    index = column_index(observable, columns)
    return columns[index], units[index]


def bins_of(observables: Mapping[str, Sequence[Any]]) -> dict[str, Bins]:
    """Bins of several observables, by name.

    Args:
        observables: by name ``(observable, bins)`` or ``(observable, number of bins, (low, high))``.

    Raises:
        ValueError: no observables, an entry of another form, and as :func:`make_bins`.
    """
    form = "(observable, bins) or (observable, number of bins, (low, high))"
    if not isinstance(observables, Mapping):
        raise ValueError(f"observables is {observables!r}; it must be a mapping from a name to {form}")
    if not observables:
        raise ValueError(f"observables is empty; give a mapping from a name to {form}")
    for name, wanted in observables.items():
        if not isinstance(wanted, (tuple, list)) or len(wanted) not in (2, 3):
            raise ValueError(f"observables[{name!r}] is {wanted!r}; it must be {form}")
    return {
        name: make_bins(*wanted[1:], what=f"bins of {name!r}" if name else "bins")
        for name, wanted in observables.items()
    }


def _bins_with_edges(what: str, bins: Any) -> Bins:
    if not is_axis(bins) and (isinstance(bins, tuple) or not is_histogram(bins)):
        return Bins(_increasing(what, bins[1] if is_histogram(bins) else bins))
    axis = the_axis(bins)
    for trait, name, effect in (
        ("circular", "circular", "wraps events from outside around"),
        ("growth", "growing", "grows for events outside"),
    ):
        if getattr(axis.traits, trait, False):
            raise ValueError(
                f"{what} is a {name} axis, which {effect}; the bins of a band are fixed: give the edges instead"
            )
    return Bins(_increasing(what, edges_of(axis)), closed_above(axis), own_index(axis), *label_of(axis))


def _is_number_of_bins(bins: Any) -> bool:
    return (
        bins is None or is_number(bins) or isinstance(bins, bool) or (isinstance(bins, np.ndarray) and bins.ndim == 0)
    )


def _limits(limits: Any) -> tuple[float, float]:
    pair = list(limits) if isinstance(limits, (Sequence, np.ndarray)) and not isinstance(limits, str) else []
    if len(pair) != 2 or not all(map(is_number, pair)) or not np.isfinite(pair).all() or not pair[0] < pair[1]:
        raise ValueError(f"range is {limits!r}; it must be (low, high), two finite numbers with low < high")
    return float(pair[0]), float(pair[1])


def _increasing(what: str, edges: Any) -> Array:
    try:
        found = np.asarray(edges, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        found = np.empty(0)
    if found.ndim != 1 or len(found) < 2 or not np.isfinite(found).all() or not (np.diff(found) > 0).all():
        raise ValueError(f"{what} is {edges!r}; bin edges must be at least two finite, increasing numbers")
    return found
