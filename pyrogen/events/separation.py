"""Jets that keep their distance: those that do not, cut away with the efficiency, and weights that soften the edge."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..checks import POSITIVE, door, require
from ..printing import Brief
from .containers import table_of
from .holes import separations
from .jet_variables import EACH, SHARED
from .jets import check_z_jets_order
from .multiplicity import Multiplicity
from .sample import EventsLike, as_sample
from .validation import check_dimensions


@dataclass(frozen=True, repr=False)
class JetSeparation(Brief):
    """Which events have jets that are far enough apart.

    Attributes:
        keep: ``[N]``: all jets are farther apart than the radius.
        efficiency: by the number of jets: the (weighted) fraction of events that are kept, NaN where the sum of their
            weights is zero.
        total: the fraction of all events that are kept.
    """

    keep: NDArray[np.bool_]
    efficiency: Mapping[int, float]
    total: float


@door(radius=POSITIVE)
def separated_jets(events: EventsLike, radius: float = 0.4) -> JetSeparation:
    """The events whose jets are farther apart than ``radius`` in rapidity and azimuth: rejection, with its efficiency.

    For generated events: a network fills the hole a little, unless :func:`jet_coordinates` closes it. Kept events have
    the density ``p(x) / total``, and p(x) alone is not normalised any more: subtract ``log(total)`` of a large
    generated sample from its log-density. The shares of the numbers of jets change by ``efficiency[n] / total``;
    generate more of each number to keep them. Above the radius the distribution of Delta R stays what the network made
    of it: it has the right edge, and what went into the hole is missing just above.

    For training events: anti-kT leaves 1 pair in 10^5 that is closer, since a jet can move while it grows; a bijection
    that closes the hole refuses these events.

    Args:
        events: rows ``[N, 6 + 4 most]`` of two leptons and jets, see :class:`LeptonsAndJets`; NaN where no jet is.
        radius: R of the jets.

    Raises:
        ValueError: rows of another layout, or the columns of :func:`z_jets` in another order.
    """
    deltas, counts, weights = _pairs(events)
    keep = np.ones(len(counts), dtype=bool)
    for delta in deltas:
        keep &= ~(delta < radius).any(axis=1)  # NaN where a jet is missing
    efficiency = {int(n): _fraction(keep, weights * (counts == n)) for n in np.unique(counts)}
    return JetSeparation(keep, efficiency, _fraction(keep, weights))


@door(low=POSITIVE, high=POSITIVE)
def separation_weights(events: EventsLike, low: float = 0.4, high: float = 0.8) -> NDArray[np.float64]:
    """Weights ``[N]`` that soften the edge at the radius of jets in the training, arXiv:2110.13632 sec. 2.

    The product over all pairs of jets of ``f(Delta R)``: 0 below ``low``, 1 above ``high``, linear between. A network
    trained on weighted events learns ``p f``, whose edge is soft. Its generated events are weighted back by 1/f; those
    with f = 0 are left out. Near ``low`` these weights have no bound: in a study with two jets and 110,000 generated
    events their effective size was 0.01 %, and 80 % without the events with f < 0.05, but then Delta R below 0.5 was
    wrong by factors (docs/z_jets.md). Closing the hole (:func:`jet_coordinates`) is better. Densities
    of the trained model are those of ``p f / <f>``, with <f> the mean weight of the training events: multiply by
    ``<f> / f``.

    Args:
        events: rows ``[N, 6 + 4 most]`` of two leptons and jets, see :class:`LeptonsAndJets`; NaN where no jet is.
        low: where f starts, the radius of the jets.
        high: where f is 1.

    Raises:
        ValueError: ``low`` not below ``high``, or rows of another layout.
    """
    require(low < high, "low", low, f"below high = {high:g}")
    deltas, counts, _ = _pairs(events)
    weights = np.ones(len(counts))
    for delta in deltas:
        weights *= np.nan_to_num(np.clip((delta - low) / (high - low), 0, 1), nan=1.0).prod(axis=1)
    return weights


def _pairs(events: EventsLike) -> tuple[list[NDArray[np.float64]], NDArray[np.int_], NDArray[np.float64]]:
    """Delta R of each jet from the second on to those before it, numbers of jets ``[N]`` and weights ``[N]``."""
    table = table_of(events)
    check_dimensions(table.values, None, "events")
    most = max((table.values.shape[1] - SHARED) // EACH, 1)
    layout = Multiplicity(SHARED, EACH, most, least=0)
    check_z_jets_order(table.names, most)
    sample = as_sample(events, None, layout)
    pt, eta, phi, mass = torch.tensor(sample.values[:, SHARED:]).unflatten(-1, (most, EACH)).unbind(-1)
    deltas = [delta.numpy() for delta in separations(pt, eta, phi, mass)]
    weights = np.ones(len(sample)) if sample.weights is None else sample.weights
    return deltas, layout.counts(sample.values), weights


def _fraction(keep: NDArray[np.bool_], weights: NDArray[np.float64]) -> float:
    total = float(weights.sum())
    return float(weights[keep].sum()) / total if total else math.nan
