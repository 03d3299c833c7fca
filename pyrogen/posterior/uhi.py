"""Histograms of the Scikit-HEP packages, in and out: edges and counts of theirs, a ``hist.Hist`` of ours.

Anything that follows the UHI ``PlottableHistogram`` protocol is read (``hist``, ``boost_histogram``, the ``TH1`` of
``uproot``), and so are the ``(counts, edges)`` of ``numpy.histogram``. Only writing needs the package ``hist``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pyrogen.checks import require_extra

if TYPE_CHECKING:
    import hist


class Counts(NamedTuple):
    """What a one-dimensional histogram holds.

    Attributes:
        edges: bin edges, ``[B + 1]``.
        values: events, or sum of their weights, per bin, ``[B]``.
        variances: variance of every value, ``[B]``: sum of squared weights, or the events themselves; None where the
            histogram does not know them, as one with plain storage that was filled with weights.
        total: events or sum of weights in all, those in the under- and overflow bins among them where it has such.
        closed: whether the last bin contains its upper edge, see :func:`closed_above`.
    """

    edges: NDArray[np.float64]
    values: NDArray[np.float64]
    variances: NDArray[np.float64] | None
    total: float
    closed: bool = True


def is_histogram(thing: Any) -> bool:
    """Whether it is a histogram: by the UHI protocol, or ``(counts, edges)`` as from ``numpy.histogram``."""
    if isinstance(thing, tuple) and len(thing) == 2:
        return np.ndim(thing[0]) > 0 and np.ndim(thing[1]) > 0
    return callable(getattr(thing, "values", None)) and hasattr(thing, "axes") and hasattr(thing, "kind")


def is_axis(thing: Any) -> bool:
    """Whether it is the axis of a histogram, by the UHI protocol: it has edges and traits."""
    return hasattr(thing, "edges") and hasattr(thing, "traits")


def edges_and_counts(histogram: Any) -> Counts:
    """Edges, counts, their variances and the total of a one-dimensional histogram.

    Args:
        histogram: what follows the UHI protocol, or ``(counts, edges)`` as from ``numpy.histogram``: these are taken
            for numbers of events, so that their variances are the counts.

    Raises:
        ValueError: two or more dimensions, a histogram of means, categories for bins, edges that are infinite.
        TypeError: not a histogram.
    """
    if not is_histogram(histogram):
        raise TypeError(
            f"histogram is a {type(histogram).__name__}; it must follow the UHI protocol or be (counts, edges)"
        )
    if isinstance(histogram, tuple):
        values, edges = np.asarray(histogram[0], dtype=np.float64), _finite(histogram[1])
        if values.shape != (len(edges) - 1,):
            raise ValueError(f"{len(edges)} edges need {len(edges) - 1} counts; got shape {list(values.shape)}")
        return Counts(edges, values, np.abs(values), float(values.sum()))
    edges = edges_of(histogram)
    if histogram.kind != "COUNT":
        raise ValueError(f"the histogram holds kind {str(histogram.kind)!r}; only counts can be compared to events")
    values, variances = np.asarray(histogram.values(), dtype=np.float64), histogram.variances()
    try:
        everything = histogram.values(flow=True)
    except TypeError:  # not part of the protocol, though hist, boost_histogram and uproot have it
        everything = values
    known = None if variances is None else np.asarray(variances, dtype=np.float64)
    return Counts(edges, values, known, float(np.sum(everything)), closed_above(histogram))


def edges_of(thing: Any) -> NDArray[np.float64]:
    """Bin edges ``[B + 1]`` of an axis, or of the only axis of a histogram.

    Raises:
        ValueError: two or more dimensions, categories for bins, edges that are infinite.
    """
    axis = the_axis(thing)
    if len(axis) and (isinstance(axis[0], str) or not getattr(axis.traits, "ordered", True)):
        raise ValueError("the bins of the histogram are categories; they have no edges")
    # A property in hist and boost_histogram, a method in uproot, and no part of the protocol.
    edges = getattr(axis, "edges", None)
    if edges is None:
        edges = [axis[0][0], *(axis[i][1] for i in range(len(axis)))]
    return _finite(edges() if callable(edges) else edges)


def closed_above(thing: Any) -> bool:
    """Whether the last bin contains its upper edge: that of numpy does, that of an axis with an overflow bin does not.

    An axis of ``hist`` or ``boost_histogram`` says so itself; all others leave that edge to the overflow, as ROOT does.
    """
    if isinstance(thing, tuple):
        return True
    index = own_index(the_axis(thing))
    return index is not None and bool(index(edges_of(thing)[-1:])[0] == len(the_axis(thing)) - 1)


def own_index(axis: Any) -> Callable[[Any], Any] | None:
    """The function of an axis from values to bin numbers: ``hist`` and ``boost_histogram`` have one, others do not."""
    return axis.index if is_axis(axis) and callable(getattr(axis, "index", None)) else None


def axis_label(label: str, unit: str) -> str:
    """Name and unit in one, ``"$p_T$ [GeV]"``, as :func:`label_of` takes them apart."""
    return f"{label} [{unit}]" if unit else label


def label_of(histogram: Any) -> tuple[str, str]:
    """Name and unit in the label of an axis, or of a histogram's: ``"$p_T$ [GeV]"`` has both; empty where none is."""
    if isinstance(histogram, tuple) or not (is_axis(histogram) or is_histogram(histogram)):
        return "", ""
    axis = the_axis(histogram)
    label = getattr(axis, "label", None) or (axis.member("fTitle") if hasattr(axis, "member") else "")
    name, bracket, unit = str(label).strip().rpartition(" [")
    return (name.strip(), unit[:-1]) if bracket and unit.endswith("]") else (str(label).strip(), "")


def the_axis(thing: Any) -> Any:
    """The axis itself, or the only one of a histogram."""
    if not hasattr(thing, "axes"):
        return thing
    if len(thing.axes) != 1:
        raise ValueError(f"the histogram has {len(thing.axes)} axes; project it to one, as with histogram.project(0)")
    return thing.axes[0]


def weighted_hist(
    edges: NDArray[np.float64], values: NDArray[np.float64], variances: NDArray[np.float64], label: str, name: str
) -> hist.Hist:
    """A ``hist.Hist`` of weight storage with these values and variances, ``[B]``, and no flow bins.

    Raises:
        ImportError: ``hist`` is missing.
    """
    require_extra("hist", "lhc", "HistogramBand.to_hist")
    import hist

    axis = hist.axis.Variable(edges, name=name, label=label or name, underflow=False, overflow=False)
    filled = hist.Hist(axis, storage=hist.storage.Weight())
    filled[...] = np.stack([values, variances], axis=-1)
    return filled


def _finite(edges: Any) -> NDArray[np.float64]:
    edges = np.asarray(edges, dtype=np.float64)
    if edges.ndim != 1 or len(edges) < 2 or not np.isfinite(edges).all():
        raise ValueError(f"the edges of a histogram must be at least two finite numbers; got {edges.tolist()}")
    return edges
