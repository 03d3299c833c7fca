"""Other ways to score events, beside which a search has to stand: CWoLa, idealised, supervised, density ratio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from pyrogen.bayes import BayesianFlow
from pyrogen.checks import BOOLEAN, COUNT, MAPPING, SEED, array, door, having, instance, optional, whole
from pyrogen.diagnostics.control.weights import Learner
from pyrogen.events import EventSample, EventsLike
from pyrogen.events.containers import numbers_of
from pyrogen.flows import CouplingFlow
from pyrogen.inference import Bootstrap
from pyrogen.posterior import Posterior
from pyrogen.printing import Brief
from pyrogen.search.regions import Regions
from pyrogen.search.samples import (
    METHODS,
    check_columns,
    check_not_mass,
    check_variables,
    checked,
    weights_of_members,
    with_weights,
)
from pyrogen.search.scores import Scores, cross_fit
from pyrogen.seeds import seeded, stream
from pyrogen.threads import chosen_threads

Array = NDArray[np.float64]
REGIONS = instance(Regions, "the regions of a search: pg.search.Regions(signal=(low, high), window=(low, high))")
POSTERIOR = instance(Posterior, "a Posterior, what a backend's fit returns")
PAIRS = 10  # weight draws of a density ratio
TRAINING: Mapping[str, Any] = {
    "method": METHODS,
    "folds": whole(2),
    "ensemble": whole(1),
    "also": optional(MAPPING),
    "seed": SEED,
    "progress": BOOLEAN,
}


@door(mass=array(1), regions=REGIONS, **TRAINING)
@chosen_threads()
def cwola(
    events: EventsLike,
    mass: ArrayLike,
    regions: Regions,
    *,
    method: str | Learner | Sequence[Learner] = "trees",
    folds: int = 5,
    ensemble: int = 10,
    also: Mapping[str, EventsLike] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Scores:
    """CWoLa hunting (arXiv:1805.02664): the signal region against its sidebands, without a template.

    Lower and upper sideband have the same total weight, so that what grows with the mass cancels to first order.
    Features that depend on the mass remain a difference of the background: the weakness of the method.

    Args:
        events: events of the window ``[N, d]``, the features without the mass. Weights count.
        mass: ``[N]``, in the unit of the regions.
        regions: signal region and window.
        method, folds, ensemble, also, seed, progress: as in :func:`anomaly_scores`.

    Returns:
        Scores whose data are the events in the signal region, in their order, and whose template are the events of both
        sidebands, in their order, with the weights of the training.

    Raises:
        ValueError: as in :func:`anomaly_scores`; masses outside the window, or an empty region.
    """
    own, values = _with_mass("events", events, mass, regions)
    check_columns("events", own)
    check_not_mass("events", own, values)
    signal = regions.in_signal(values)
    sidebands, beside = own[~signal], values[~signal]
    weights = np.ones(len(sidebands)) if sidebands.weights is None else np.array(sidebands.weights, dtype=np.float64)
    lower = beside < regions.signal[0]
    for which, name in ((lower, "lower"), (~lower, "upper")):
        total = weights[which].sum()
        if not total > 0:
            raise ValueError(f"the weights of events in the {name} sideband sum to {total}; it must be positive")
        weights[which] *= len(sidebands) / 2 / total
    samples = {"signal region": own[signal], "sidebands": with_weights(sidebands, None)}
    check_variables(samples, overlap=True)
    return _baseline("cwola", samples, method, folds, ensemble, also, seed, progress, weights)


@door(**TRAINING)
@chosen_threads()
def idealised(
    data: EventsLike,
    background: EventsLike,
    *,
    method: str | Learner | Sequence[Learner] = "trees",
    folds: int = 5,
    ensemble: int = 10,
    also: Mapping[str, EventsLike] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Scores:
    """The idealised anomaly detector: data against true background, the best that a template can be.

    Args:
        data: events of the signal region ``[N, d]``. Weights count.
        background: other events, of the background alone, in the same region ``[M, d]``: a study has labels for that.
        method, folds, ensemble, also, seed, progress: as in :func:`anomaly_scores`.

    Raises:
        ValueError: as in :func:`anomaly_scores`.
    """
    own = checked("data", data)
    samples = {"data": own, "background": checked("background", background, own)}
    check_variables(samples, overlap=True)
    return _baseline("idealised", samples, method, folds, ensemble, also, seed, progress)


@door(**TRAINING)
@chosen_threads()
def supervised(
    signal: EventsLike,
    background: EventsLike,
    *,
    method: str | Learner | Sequence[Learner] = "trees",
    folds: int = 5,
    ensemble: int = 10,
    also: Mapping[str, EventsLike] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Scores:
    """Signal against background by their labels: the best that any score can do with so many events.

    Args:
        signal: events of the signal ``[N, d]``. Weights count.
        background: events of the background ``[M, d]``. Weights count.
        method, folds, ensemble, also, seed, progress: as in :func:`anomaly_scores`.

    Returns:
        Scores whose data are the signal, and whose template is the background.

    Raises:
        ValueError: as in :func:`anomaly_scores`; no signal.
    """
    own = checked("signal", signal)
    samples = {"signal": own, "background": checked("background", background, own, "signal")}
    check_variables(samples, overlap=False)
    return _baseline("supervised", samples, method, folds, ensemble, also, seed, progress)


@dataclass(frozen=True, kw_only=True, repr=False)
class DensityRatio(Brief):
    """The density ratio of two posteriors as an anomaly score: the mean over their draws of a log-ratio.

    Attributes:
        inside: posterior of p(x) in the signal region.
        beside: posterior of p(x | m), trained on the sidebands.
        data_members: ``[E, N]``, log-ratio of each data event, for pairs of weight draws.
        names, units: of the columns.
        seed: of the draws.
    """

    inside: Posterior
    beside: Posterior
    data_members: Array
    names: tuple[str, ...]
    units: tuple[str, ...]
    seed: int

    @property
    def data(self) -> Array:
        """Score of each data event, ``[N]``."""
        return self.data_members.mean(0)

    @property
    def data_spread(self) -> Array:
        """Standard deviation over the draws, ``[N]``; NaN for a single draw."""
        return self.data_members.std(0, ddof=1) if len(self.data_members) > 1 else np.full(self.data.shape, np.nan)

    @door(mass=array(1))
    def of(self, events: EventsLike, mass: ArrayLike) -> Array:
        """Scores ``[n]`` of other events of the signal region and their masses ``[n]``.

        Raises:
            ValueError: other columns or units than those of the data, or masses that are not one number per event.
        """
        return self.members_of(events, mass).mean(0)

    @door(mass=array(1))
    def members_of(self, events: EventsLike, mass: ArrayLike) -> Array:
        """Log-ratios ``[E, n]`` of other events; arguments as in :meth:`of`."""
        columns = EventSample(np.zeros((1, len(self.names))), self.names, self.units)
        sample = checked("events", events, columns, "the data")
        return _log_ratios(self.inside, self.beside, sample, _masses(mass, sample), len(self.data_members), self.seed)


@door(mass=array(1), inside=POSTERIOR, beside=POSTERIOR, draws=COUNT, seed=SEED)
def density_ratio(
    data: EventsLike,
    mass: ArrayLike,
    inside: Posterior,
    beside: Posterior,
    *,
    draws: int | None = None,
    seed: int = 0,
) -> DensityRatio:
    """Score events by log p_SR(x) - log p_SB(x | m), two densities, as in ANODE (arXiv:2001.04990).

    ``inside`` was trained on the very data, so that it knows these events a little too well: scores of data are larger
    than those of other events.

    Args:
        data: events of the signal region ``[N, d]``, the features without the mass.
        mass: ``[N]``, the condition of ``beside``.
        inside: posterior trained on the events of the signal region, such as :func:`signal_region_posterior` makes.
        beside: posterior of a flow with ``context=1``, the mass, trained on the sidebands.
        draws: pairs of weight draws; None: 10, or as many as both posteriors hold where these are fewer.
        seed: of the draws.

    Raises:
        ValueError: masses that are not one finite number per event; weights, which would not count; events that are not
            those of the posteriors.
    """
    sample = checked("data", data)
    if sample.weights is not None:
        raise ValueError("data has weights, and a density ratio does not use them; give the events without weights")
    if draws is None:
        draws = inside.weights.at_most(beside.weights.at_most(PAIRS))
    members = _log_ratios(inside, beside, sample, _masses(mass, sample), draws, seed)
    return DensityRatio(
        inside=inside, beside=beside, data_members=members, names=sample.names, units=sample.units, seed=seed
    )


@door(
    backend=optional(having("a backend, such as pg.SVI(...)", "fit")),
    flow=optional(instance(torch.nn.Module, "a flow, such as pg.CouplingFlow(features=d)")),
    seed=SEED,
)
def signal_region_posterior(data: EventsLike, *, backend: Any = None, flow: Any = None, seed: int = 0) -> Posterior:
    """A posterior of p(x) in the signal region, for :func:`density_ratio`.

    Args:
        data: events of the signal region ``[N, d]``, the features without the mass. Weights count.
        backend: what trains; None: ``pg.Bootstrap(replicas=10, seed=seed)``.
        flow: the flow; None: ``pg.CouplingFlow(features=d, blocks=6, hidden=(32, 32), transform="rqs")``.
        seed: of the flow's start, and of the backend by default.

    Raises:
        ValueError: what :func:`anomaly_scores` refuses of the data, and what the backend refuses.
    """
    sample = checked("data", data)
    check_columns("data", sample)
    if flow is None:
        with seeded(stream(seed, "search", "signal region")):
            flow = CouplingFlow(features=sample.features, blocks=6, hidden=(32, 32), transform="rqs")
    trains = Bootstrap(replicas=10, seed=seed) if backend is None else backend
    return trains.fit(BayesianFlow(flow), sample)


def _with_mass(name: str, events: EventsLike, mass: ArrayLike, regions: Regions) -> tuple[EventSample, Array]:
    own = checked(name, events)
    return own, regions.populated(_masses(mass, own))


def _masses(mass: ArrayLike, sample: EventSample) -> Array:
    values = np.asarray(numbers_of(mass, "mass"), dtype=np.float64)
    if values.shape != (len(sample),):
        raise ValueError(f"mass has the shape {list(values.shape)}; there are {len(sample)} events, one mass for each")
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise ValueError(f"mass is {values[bad[0]]} in {bad.size:,} of {len(values):,} events, first {bad[0]}")
    return values


def _baseline(
    baseline: str,
    samples: dict[str, EventSample],
    method: Any,
    folds: int,
    ensemble: int,
    also: Mapping[str, EventsLike] | None,
    seed: int,
    progress: bool,
    weights: Array | None = None,
) -> Scores:
    """Scores of two checked samples; ``weights`` are those of the second one instead of its own."""
    (first, own), (second, other) = samples.items()
    others = {name: checked(f"also[{name!r}]", each, own, first) for name, each in (also or {}).items()}
    weights = weights_of_members(second, other, weights, ensemble)
    found = cross_fit(samples, METHODS("method", method), folds, ensemble, weights, others, seed, progress)
    return replace(found, settings={"baseline": baseline} | found.settings)


def _log_ratios(inside: Posterior, beside: Posterior, sample: EventSample, mass: Array, draws: int, seed: int) -> Array:
    """``[E, n]``, for pairs of draws."""
    above = inside.log_prob(sample, draws, seed=seed)
    below = beside.log_prob(sample, draws, context=torch.tensor(mass)[:, None], seed=seed)
    difference = (above.double() - below.double()).numpy()
    if not np.isfinite(difference).all():
        bad = np.argwhere(~np.isfinite(difference))[0]
        raise ValueError(
            f"the log-ratio of event {bad[1]} is {difference[tuple(bad)]} in draw {bad[0]}: a posterior has no density "
            "there; leave out events beyond its support"
        )
    return difference
