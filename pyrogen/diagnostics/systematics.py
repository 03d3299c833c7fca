"""Systematic uncertainties of histograms: nuisance parameters varied in the conditions of a flow ([B] sec. 5.3).

[B] is arXiv:2110.13632. A flow that was trained on events of :func:`pyrogen.events.with_nuisances` knows p(x|a). Its
weight draws give the training uncertainty at each a, and a change of a the systematic one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pyrogen.bayes.inputs import as_tensor, checked_context, in_order
from pyrogen.checks import (
    BOOLEAN,
    COUNT,
    POSITIVE,
    SEED,
    TEXT,
    door,
    instance,
    number,
    one_of,
    optional,
    require,
    whole,
)
from pyrogen.diagnostics.templates import Templates
from pyrogen.events.nuisances import NUISANCES, Nuisance, Rate, RateEstimate
from pyrogen.posterior.bands import HistogramBand, multinomial_noise
from pyrogen.posterior.binning import Bins, bins_of
from pyrogen.posterior.histograms import labelled, observable_values
from pyrogen.posterior.posterior import POSTERIOR, Posterior
from pyrogen.posterior.predictor import check_generated
from pyrogen.posterior.variations import eigen_variations
from pyrogen.printing import Brief
from pyrogen.seeds import stream
from pyrogen.threads import chosen_threads
from pyrogen.warn import warn

Array = NDArray[np.float64]
PART = one_of("training", "systematic", "total")
#: By this fraction of its width a value may be outside of the range of the drawn conditions, which do not reach the
#: ends.
EDGE = 0.02
#: Largest part of a prior outside of the range that nobody needs to know.
OUTSIDE = 0.05


@dataclass(frozen=True, repr=False)
class Shift(Brief):
    """What one sigma of a nuisance parameter changes in a histogram of B bins, for each of K weight draws.

    The events of all values of the parameter are made of the same latent points, so that only events that cross the
    edge of a bin add noise.

    Attributes:
        name: of the parameter.
        values: of the parameter: down and up. Down is None for a one-sided parameter, whose down is up mirrored.
        up: probability of each bin at ``nominal + sigma`` minus that at ``nominal``, ``[K, B]``.
        down: the same at ``nominal - sigma``.
        noise: covariance ``[B, B]`` that the finite number of events gives the rows of ``(up - down) / 2``.
        rates: total cross section down and up over the nominal one, with errors; None where it is not known.
    """

    name: str
    values: tuple[float | None, float]
    up: Array
    down: Array
    noise: Array
    rates: tuple[RateEstimate, RateEstimate] | None = None

    @property
    def draws(self) -> Array:
        """The symmetric shift ``(up - down) / 2`` of every weight draw, ``[K, B]``."""
        return (self.up - self.down) / 2

    @property
    def mean(self) -> Array:
        """The symmetric shift, ``[B]``."""
        return self.draws.mean(0)

    @property
    def error(self) -> Array:
        """Error of :attr:`mean` from the finite number of generated events, ``[B]``."""
        return np.sqrt(np.clip(np.diagonal(self.noise), 0, None) / len(self.up))

    @property
    def training_sigma(self) -> Array:
        """Training uncertainty of the shift itself, ``[B]``, without the noise of the events."""
        return np.sqrt(np.clip(self.draws.var(0, ddof=1) - np.diagonal(self.noise), 0, None))

    def _summary(self) -> str:
        down, up = self.values
        return f"{self.name} = {'mirrored' if down is None else f'{down:g}'}, {up:g}; {len(self.mean)} bins"


@dataclass(frozen=True, repr=False)
class PriorDraws(Brief):
    """Histograms of K weight draws, each at its own values of the nuisance parameters, drawn from their prior.

    They make no use of shifts at one sigma: responses that are not linear, and shifts that differ from one weight draw
    to the next, are in their covariance.

    Attributes:
        values: of the parameters, ``[K, J]``.
        draws: probability of each bin, ``[K, B]``.
        shifts: the same minus that of the same weight draw at the nominal values, ``[K, B]``.
        noise: covariance ``[B, B]`` that the finite number of events gives the rows of ``draws``.
        shift_noise: the same of ``shifts``.
    """

    values: Array
    draws: Array
    shifts: Array
    noise: Array
    shift_noise: Array

    def total(self) -> Array:
        """Covariance ``[B, B]`` over weight draws and prior together, without the noise of the events."""
        return np.cov(self.draws, rowvar=False).reshape(self.noise.shape) - self.noise

    def systematic(self) -> Array:
        """Covariance ``[B, B]`` of the shifts over the prior, without the noise of the events."""
        return np.cov(self.shifts, rowvar=False).reshape(self.noise.shape) - self.shift_noise


@dataclass(frozen=True, repr=False)
class Systematics(Brief):
    """A histogram of B bins with its training and systematic uncertainties.

    Covariances are of the probabilities per bin. ``part`` is ``"training"`` (over the weight draws, without the noise
    of the generated events), ``"systematic"`` (the sum over the parameters of the outer product of their shifts) or
    ``"total"``, the sum of both. With ``rate=True`` the shifts contain the change of the total cross section: they are
    of ``r(a) p(bin|a)``.

    Attributes:
        band: the histogram at the nominal values, with the training uncertainty.
        shifts: by parameter.
        prior: histograms over the prior of the parameters, where they were asked for.
    """

    band: HistogramBand
    shifts: dict[str, Shift]
    prior: PriorDraws | None = None

    def _summary(self) -> str:
        return f"{', '.join(self.shifts)}; {self.band!r}"

    @property
    def nominal(self) -> Array:
        """Probability per bin at the nominal values, ``[B]``."""
        return self.band.mean

    @door(name=TEXT, rate=BOOLEAN)
    def varied(self, name: str, rate: bool = False) -> tuple[Array, Array]:
        """Probability per bin one sigma down and up, ``[B]`` each.

        Raises:
            ValueError: an unknown parameter, or a rate that is not known.
        """
        require(name in self.shifts, "name", name, f"one of {', '.join(self.shifts)}")
        shift = self.shifts[name]
        down, up = self.nominal + shift.down.mean(0), self.nominal + shift.up.mean(0)
        if not rate:
            return down, up
        if shift.rates is None:
            raise ValueError(f"rate is True, but the rate of {name} is not known; give systematics(rate=sample.rate)")
        down = (
            shift.rates[0].value * down if shift.values[0] is not None else 2 * self.nominal - shift.rates[1].value * up
        )
        return down, shift.rates[1].value * up

    @door(name=TEXT, rate=BOOLEAN)
    def shift(self, name: str, rate: bool = False) -> Array:
        """What one sigma of a parameter changes, half the difference of up and down, ``[B]``."""
        down, up = self.varied(name, rate)
        return (up - down) / 2

    @door(part=PART, rate=BOOLEAN)
    def covariance(self, part: str = "total", rate: bool = False) -> Array:
        """Covariance of the bins, ``[B, B]``."""
        found = np.zeros((len(self.nominal), len(self.nominal)))
        if part != "systematic":
            found += self.band.covariance(subtract_noise=True)
        if part != "training":
            for name in self.shifts:
                shift = self.shift(name, rate)
                found += np.outer(shift, shift)
        return found

    @door(part=PART, rate=BOOLEAN)
    def sigma(self, part: str = "total", rate: bool = False) -> Array:
        """Uncertainty of every bin, ``[B]``."""
        return np.sqrt(np.clip(np.diagonal(self.covariance(part, rate)), 0, None))

    @door(part=PART, rate=BOOLEAN)
    def correlation(self, part: str = "total", rate: bool = False) -> Array:
        """Correlation of the bins, ``[B, B]``; NaN for bins without an uncertainty."""
        covariance, sigma = self.covariance(part, rate), self.sigma(part, rate)
        product = np.outer(sigma, sigma)
        return np.divide(covariance, product, out=np.full_like(covariance, np.nan), where=product > 0)

    @door(
        total=POSITIVE,
        fraction=number("above 0 and at most 1", lambda value: 0 < value <= 1),
        name=TEXT,
    )
    def templates(self, total: float = 1.0, fraction: float = 0.99, name: str = "generator") -> Templates:
        """Templates for a fit: nominal, up and down of each parameter, and variations for the training uncertainty.

        Args:
            total: number of events (or cross section) that they are scaled to, those outside the edges among them.
            fraction: of the training variance that the variations have, see
                :meth:`~pyrogen.HistogramBand.variations`. The rest is taken for independent from bin to bin.
            name: first part of the names of the variations. Histograms of several channels need different ones.
        """
        training = total**2 * self.band.covariance(subtract_noise=True)
        variations = eigen_variations(self.band.edges, total * self.nominal, training, fraction)
        noise = np.diagonal(self.band._known_noise()) / len(self.band.draws)
        both = {parameter: self.varied(parameter) for parameter in self.shifts}
        return Templates(
            variations,
            {parameter: total * down for parameter, (down, _) in both.items()},
            {parameter: total * up for parameter, (_, up) in both.items()},
            {n: (s.rates[0].value, s.rates[1].value) for n, s in self.shifts.items() if s.rates is not None},
            total * np.sqrt(np.clip(noise, 0, None)),
            name,
            self.band.label,
            self.band.unit,
        )


@door(
    posterior=POSTERIOR,
    nuisances=NUISANCES,
    n=whole(2),
    draws=COUNT,
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
    prior: bool = False,
    rate: Rate | None = None,
    seed: int = 0,
) -> dict[str, Systematics]:
    """Histograms with training and systematic uncertainties, by the name of the observable.

    Every weight draw generates n events at the nominal values of the nuisance parameters, and again, from the same
    latent points, one sigma up and down in each. The nominal histogram is that of
    ``posterior.histograms(..., context=nominal values, seed=seed)``.

    Args:
        posterior: of a flow whose conditions contain the parameters: by their names, or else the last conditions in
            this order, as :func:`~pyrogen.events.with_nuisances` made them.
        observables: by name ``(observable, bins)`` or ``(observable, number of bins, (low, high))``, as for
            :meth:`~pyrogen.Posterior.histograms`.
        nuisances: one parameter or several. Their weight functions are not used.
        context: the other conditions, if there are any: ``[n, k]``, or one row for all events.
        n: number of events of every weight draw and value.
        draws: number of weight draws K, at least 2; None: 50, or all where fewer are stored.
        prior: also generate events with values from the prior (the Gaussian within the range), one for each weight
            draw.
        rate: the total cross section as a function of the parameters.
        seed: seeds weight draws, events and values.

    Raises:
        ValueError: a parameter that is no condition of the flow, values outside of the range of the training,
            conditions that do not fit, and as :meth:`~pyrogen.Posterior.histograms`.

    Warns:
        UserWarning: more than 5 % of a prior lie outside of the range; only with ``prior``.
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
    filled = {name: _Filled(its, len(rows), draws, n, pairs) for name, its in bins.items()}

    def contexts(k: int) -> list[Array]:
        return [conditions.at(its[k]) for its in rows]

    for k, parts in posterior.predictor.replicates_at(n, draws, contexts, seed, "systematics"):
        for events in parts:
            check_generated(events, posterior.names)
        for name, function in functions.items():
            filled[name].fill(k, [observable_values(function, events) for events in parts])
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


class _Filled:
    """Histograms of K weight draws at several points of the conditions, and joint ones of pairs of points.

    Args:
        bins: B bins.
        points: number of points.
        draws: number of weight draws K.
        events: number n of events of each.
        pairs: of points.
    """

    def __init__(self, bins: Bins, points: int, draws: int, events: int, pairs: Sequence[tuple[int, int]]) -> None:
        self.bins, self.events, self.on_edge = bins, events, 0
        self.counts = np.zeros((points, draws, len(bins)))
        self.joint = {pair: np.zeros((len(bins) + 1, len(bins) + 1)) for pair in pairs}

    def fill(self, k: int, values: Sequence[Array]) -> None:
        """Some events of a draw: their values ``[m]`` at each point, in the same order."""
        size = len(self.bins) + 1  # the last one has all that is outside
        numbers = [self.bins.numbers(each) % size for each in values]
        for counts, its in zip(self.counts, numbers, strict=True):
            counts[k] += np.bincount(its, minlength=size)[:-1]
        for (i, j), joint in self.joint.items():
            joint += np.bincount(numbers[i] * size + numbers[j], minlength=size**2).reshape(size, size)
        self.on_edge += self.bins.on_last_edge(values[0])

    def probabilities(self, point: int) -> Array:
        """``[K, B]``."""
        return self.counts[point] / self.events

    def band(self) -> HistogramBand:
        """The histogram at the first point."""
        draws, edges = self.probabilities(0), self.bins.edges
        noise, on_edge = multinomial_noise(draws, self.events), self.on_edge / (self.events * len(draws))
        return HistogramBand(edges, draws, self.events, "a", noise, self.bins.closed, on_edge)

    def noise(self, i: int, j: int) -> Array:
        """Covariance ``[B, B]`` that the events give the rows of the difference of two points.

        An event in bin b at one point and in c at the other counts +1 in b and -1 in c: 0 where both are the same. The
        covariance is that of these numbers over the events, divided by n, averaged over the draws.
        """
        first, second = self.probabilities(i), self.probabilities(j)
        joint = self.joint[i, j][:-1, :-1] / (self.events * len(first))
        difference = first - second
        squares = np.diag((first + second).mean(0)) - joint - joint.T
        return (squares - difference.T @ difference / len(first)) / (self.events - 1)


def _shifts(filled: _Filled, nuisances: Sequence[Nuisance], rate: Rate | None) -> dict[str, Shift]:
    found, nominal, point = {}, filled.probabilities(0), 1
    for nuisance in nuisances:
        rates = None
        if rate is not None:
            up = rate(**{nuisance.name: nuisance.up})
            rates = (up if nuisance.down is None else rate(**{nuisance.name: nuisance.down}), up)
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


def _prior_draws(filled: _Filled, values: Array) -> PriorDraws:
    last = len(filled.counts) - 1
    draws = filled.probabilities(last)
    noise = multinomial_noise(draws, filled.events)
    assert noise is not None  # there are two events at least
    return PriorDraws(values, draws, draws - filled.probabilities(0), noise, filled.noise(0, last))
