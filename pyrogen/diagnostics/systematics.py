"""Systematic uncertainties of histograms: nuisance parameters varied in the conditions of a flow ([B] sec. 5.3).

[B] is arXiv:2110.13632. A flow that was trained on events of :func:`pyrogen.events.with_nuisances` knows p(x|a). Its
weight draws give the training uncertainty at each a, and a change of a the systematic one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pyrogen.bayes.inputs import EDGE, as_tensor, checked_context, in_order
from pyrogen.checks import (
    BOOLEAN,
    COUNT,
    SEED,
    door,
    instance,
    optional,
    require,
    whole,
)
from pyrogen.diagnostics.shifts import PriorDraws, Shift, Systematics
from pyrogen.events.nuisances import NUISANCES, Nuisance, Rate, RateEstimate
from pyrogen.posterior.bands import PROCEDURE
from pyrogen.posterior.binning import bins_of
from pyrogen.posterior.histograms import labelled, observable_values
from pyrogen.posterior.posterior import POSTERIOR, Posterior
from pyrogen.posterior.predictor import check_generated
from pyrogen.posterior.responses import Filled, Migrating, Weighted, own_events, weighted_events
from pyrogen.seeds import stream
from pyrogen.threads import chosen_threads
from pyrogen.warn import warn

Array = NDArray[np.float64]
#: Largest part of a prior outside of the range that nobody needs to know.
OUTSIDE = 0.05


@door(
    posterior=POSTERIOR,
    nuisances=NUISANCES,
    n=whole(2),
    draws=COUNT,
    procedure=PROCEDURE,
    prior=BOOLEAN,
    rate=optional(instance(Rate, "a pyrogen.events.Rate, as with_nuisances(...).rate")),
    seed=SEED,
)
@chosen_threads()
def systematics(
    posterior: Posterior,
    observables: Mapping[str, tuple[Any, ...]],
    nuisances: Nuisance | Sequence[Nuisance],
    *,
    context: Any = None,
    n: int = 100_000,
    draws: int | None = None,
    procedure: str = "b",
    prior: bool = False,
    rate: Rate | None = None,
    seed: int = 0,
) -> dict[str, Systematics]:
    """Histograms with training and systematic uncertainties, by the name of the observable.

    Every weight draw generates n events at the nominal values of the nuisance parameters; this histogram is that of
    ``posterior.histograms(..., context=nominal values, seed=seed)``. Those at other values share its random numbers, so
    that their differences have little noise of the events:

    * (a) the draw generates events of its own there, from the same latent points. Only events that cross the edge of a
      bin add noise.
    * (b) the same events are weighted by ``p(x|theta_k, a) / p(x|theta_k, nominal)``. Only what the weights differ from
      one adds noise: the smaller a shift, the less. It fails where a parameter moves events to where there were none.

    Args:
        posterior: of a flow whose conditions contain the parameters: by their names, or else the last conditions in
            this order, as :func:`~pyrogen.events.with_nuisances` made them.
        observables: by name ``(observable, bins)`` or ``(observable, number of bins, (low, high))``, as for
            :meth:`~pyrogen.Posterior.histograms`.
        nuisances: one parameter or several. Their weight functions are not used.
        context: the other conditions, if there are any: ``[n, k]``, or one row for all events.
        n: number of events of every weight draw and value.
        draws: number of weight draws K, at least 2; None: 50, or all where fewer are stored.
        procedure: ``"a"`` or ``"b"``.
        prior: also generate events with values from the prior (the Gaussian within the range), one for each weight
            draw.
        rate: the total cross section as a function of the parameters.
        seed: seeds weight draws, events and values.

    Raises:
        ValueError: a parameter that is no condition of the flow, values outside of the range of the training,
            conditions that do not fit, and as :meth:`~pyrogen.Posterior.histograms`.

    Warns:
        UserWarning: more than 5 % of a prior lie outside of the range; weights of (b) that do not do.
    """
    bins = bins_of(observables)
    functions = {name: posterior.predictor.observable(wanted[0]) for name, wanted in observables.items()}
    draws, known = posterior.weights.count(draws, least=2), NUISANCES("nuisances", nuisances)
    conditions = _Conditions(posterior, known, context, n)
    points = [{each.name: value} for each in known for value in (each.down, each.up) if value is not None]
    rows: list[Any] = [np.broadcast_to(conditions.row(point), (draws, len(known))) for point in [{}, *points]]
    rows += [_prior_values(posterior, conditions, draws, seed)] if prior else []
    pairs = [(0, i) for i in range(1, len(rows))]
    pairs += [(i, i + 1) for i, point in enumerate(points, 1) if i < len(points) and point.keys() == points[i].keys()]
    kind = Migrating if procedure == "a" else Weighted
    filled = {name: kind(its, len(rows), draws, n, pairs) for name, its in bins.items()}

    def contexts(k: int) -> list[Array]:
        return [conditions.at(its[k]) for its in rows]

    parts = (own_events if procedure == "a" else weighted_events)(posterior.predictor, n, draws, contexts, seed)
    for k, events, weights in parts:
        for each in events:
            check_generated(each, posterior.names, posterior.model.multiplicity)
        for name, function in functions.items():
            filled[name].fill(k, [observable_values(function, each) for each in events], weights)
    bands = labelled(
        {name: its.band() for name, its in filled.items()},
        observables,
        bins,
        posterior.names,
        posterior.units,
        posterior.info.note,
    )
    return {
        name: Systematics(
            band,
            _shifts(filled[name], known, rate),
            _prior_draws(filled[name], rows[-1]) if prior else None,
        )
        for name, band in bands.items()
    }


class _Conditions:
    """The conditions of the events, with the columns of the nuisance parameters to be filled in.

    Raises:
        ValueError: a parameter that is no condition, or other conditions that do not fit.
    """

    def __init__(self, posterior: Posterior, nuisances: Sequence[Nuisance], context: Any, n: int) -> None:
        self.nuisances, info = nuisances, posterior.info
        own = [nuisance.name for nuisance in nuisances]
        size = posterior.model.context
        size = len(info.context_names or own) if size is None else size
        names = list(info.context_names or [*(f"condition {i}" for i in range(size - len(own))), *own])
        for name in own:
            right = f"a condition of the posterior: {', '.join(names) if size else 'its flow has none'}"
            require(name in names[:size] and size >= len(own), "nuisances", name, right)
        self.columns = [names.index(name) for name in own]
        others = [i for i in range(size) if i not in self.columns]
        if info.context_names is not None and others and context is not None:
            context = in_order(context, tuple(names[i] for i in others), what="context")
        given = checked_context(context, len(others), n) if others or context is not None else None
        self.table = np.zeros((1 if given is None else n, size))
        if given is not None:
            self.table[:, others] = as_tensor(given, torch.float64).numpy()
        self.trained = None if info.context_range is None else [info.context_range[i] for i in self.columns]
        for nuisance in nuisances:
            for value in (nuisance.nominal, nuisance.up, nuisance.down):
                if value is not None:
                    self._check(nuisance, value)

    def limits(self, nuisance: Nuisance) -> tuple[float, float]:
        """The range of a parameter: its own, where it was trained."""
        low, high = nuisance.low, nuisance.high
        if self.trained is not None:
            trained = self.trained[self.nuisances.index(nuisance)]
            edge = EDGE * (trained[1] - trained[0])
            low, high = max(low, trained[0] - edge), min(high, trained[1] + edge)
        return low, high

    def _check(self, nuisance: Nuisance, value: float) -> None:
        low, high = self.limits(nuisance)
        if not low <= value <= high:
            raise ValueError(
                f"nuisances: {nuisance.name} = {value:g} is outside of the range of the training, {low:.4g} to "
                f"{high:.4g}; the flow would extrapolate. Take a smaller sigma, or train on a larger range"
            )

    def row(self, point: Mapping[str, float]) -> list[float]:
        """Values of the parameters: those of a point, the nominal ones else."""
        return [point.get(nuisance.name, nuisance.nominal) for nuisance in self.nuisances]

    def at(self, values: Sequence[float]) -> Array:
        """All conditions ``[n, k]``, or one row for all events ``[1, k]``."""
        table = self.table.copy()
        table[:, self.columns] = values
        return table[0] if len(table) == 1 else table


def _prior_values(posterior: Posterior, conditions: _Conditions, draws: int, seed: int) -> Array:
    """Values ``[K, J]`` of the parameters from their priors within the ranges, spread evenly over these.

    Warns:
        UserWarning: a prior of which more than 5 % lie outside.
    """
    rng, columns = np.random.default_rng(stream(seed, "systematics", "prior")), []
    for nuisance in conditions.nuisances:
        ends = torch.tensor(conditions.limits(nuisance), dtype=torch.float64)
        low, high = torch.special.ndtr((ends - nuisance.nominal) / nuisance.sigma).tolist()
        outside = 1 - (high - low) * (2 if nuisance.one_sided else 1)
        if outside > OUTSIDE:
            prior = f"{nuisance.name} ({nuisance.nominal:g} +- {nuisance.sigma:g})"
            warn(
                f"{outside:.1%} of the prior of {prior} lie outside of the range of the training, {ends[0]:.4g} to "
                f"{ends[1]:.4g}, and are left out: train on a larger range"
            )
        unit = (rng.permutation(draws) + rng.random(draws)) / draws
        normal = torch.special.ndtri(torch.tensor(low + (high - low) * unit)).numpy()
        columns.append(nuisance.nominal + nuisance.sigma * normal)
    return np.stack(columns, 1)


def _shifts(filled: Filled, nuisances: Sequence[Nuisance], rate: Rate | None) -> dict[str, Shift]:
    found, nominal, point = {}, filled.probabilities(0), 1
    for nuisance in nuisances:
        rates = None
        if rate is not None:
            up = rate(**{nuisance.name: nuisance.up})
            down = _mirrored(up) if nuisance.down is None else rate(**{nuisance.name: nuisance.down})
            rates = (down, up)
        if nuisance.down is None:
            up_draws = filled.probabilities(point) - nominal
            down_draws, noise, used = -up_draws, filled.noise(0, point), 1
        else:
            down_draws, up_draws = (filled.probabilities(point + i) - nominal for i in (0, 1))
            noise, used = filled.noise(point, point + 1) / 4, 2
        values = (nuisance.down, nuisance.up)
        found[nuisance.name] = Shift(nuisance.name, values, up_draws, down_draws, noise, rates)
        point += used
    return found


def _mirrored(rate: RateEstimate) -> RateEstimate:
    """The rate of the side of a one-sided parameter that has no events: r to the power of minus one sigma."""
    return RateEstimate(1 / rate.value, rate.error / rate.value**2)


def _prior_draws(filled: Filled, values: Array) -> PriorDraws:
    last = len(filled.sums) - 1
    draws = filled.probabilities(last)
    shifts = draws - filled.probabilities(0)
    return PriorDraws(values, draws, shifts, filled.own_noise(last), filled.noise(0, last))
