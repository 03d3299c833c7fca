"""Systematic uncertainties as conditions: nuisance parameters that weight events ([B] sec. 5.3, arXiv:2110.13632)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..checks import (
    FINITE,
    FUNCTION,
    POSITIVE,
    SEED,
    TEXT,
    check_settings,
    door,
    each,
    instance,
    optional,
    require,
    whole,
)
from ..printing import Brief, Shown
from ..seeds import stream
from ..warn import warn
from .containers import table_of
from .sample import EventSample, EventsLike, as_sample
from .validation import check_events, made_per_event

Array = NDArray[np.float64]
#: Rows that a weight function gets at once.
ROWS = 1 << 18
#: One weight with this part of the total that is this many times the mean, or an effective size below this part of the
#: rows, is warned of.
SHARE, HUGE, FEW = 0.01, 50.0, 0.1


@dataclass(frozen=True)
class Nuisance(Shown):
    """A nuisance parameter a: p(x|a) = w(x, a) p(x) / Z(a), with Z(a) the mean of w(x, a) over the events.

    A flow with the condition a learns p(x|a) for all a between ``low`` and ``high``. The prior of a, for predictions,
    is a Gaussian: ``nominal`` and ``sigma``. A range of two or three sigma on both sides of the nominal value is a good
    choice, since a network is worst at the ends of what it has seen. Where ``nominal`` is an end of the range, the
    parameter is one-sided: templates of the other side are mirrored.

    Args:
        name: of the condition, and of the parameter in a fit.
        weight: w(x, a), a function of events ``[m, d]`` and values ``[m]`` (tensors in float64) to weights ``[m]``,
            finite and not negative. None: the events were made at several values of a, and need no weights.
        low: lowest value of the training.
        high: highest value of the training.
        nominal: the value of the nominal prediction.
        sigma: standard deviation of the prior.

    Raises:
        ValueError: a range that does not increase, or that does not hold the nominal value and one sigma on both sides
            (on one side for a one-sided parameter).
    """

    name: str
    weight: Callable[[Tensor, Tensor], Tensor] | None
    low: float
    high: float
    nominal: float = 0.0
    sigma: float = 1.0

    def __post_init__(self) -> None:
        check_settings(
            self, name=TEXT, weight=optional(FUNCTION), low=FINITE, high=FINITE, nominal=FINITE, sigma=POSITIVE
        )
        require(bool(self.name), "name", self.name, "a text that is not empty")
        require(self.low < self.high, "high", self.high, f"above low = {self.low:g}")
        right = f"between low = {self.low:g} and high = {self.high:g}"
        require(self.low <= self.nominal <= self.high, "nominal", self.nominal, right)
        for end in self.ends:
            right = f"at most {abs(end - self.nominal):g}: the range of {self.name} ends at {end:g}"
            require(self.sigma <= abs(end - self.nominal), "sigma", self.sigma, right)

    @property
    def ends(self) -> tuple[float, ...]:
        """The ends of the range at which the prior goes on: both, or one of a one-sided parameter."""
        return tuple(end for end in (self.low, self.high) if end != self.nominal)

    @property
    def one_sided(self) -> bool:
        """Whether the nominal value is an end of the range."""
        return len(self.ends) == 1

    @property
    def up(self) -> float:
        """The value one sigma above the nominal one; below it where the range ends above."""
        return self.nominal - self.sigma if self.nominal == self.high else self.nominal + self.sigma

    @property
    def down(self) -> float | None:
        """The value one sigma below the nominal one; None for a one-sided parameter."""
        return None if self.one_sided else self.nominal - self.sigma

    def config(self) -> dict[str, Any]:
        """All but the weight function, in JSON types."""
        return {name: getattr(self, name) for name in ("name", "low", "high", "nominal", "sigma")}


def _nuisances(name: str, value: Any) -> tuple[Nuisance, ...]:
    """One nuisance parameter or several, of different names."""
    kind = instance(Nuisance, "a pyrogen.events.Nuisance")
    found = (value,) if isinstance(value, Nuisance) else each(kind, "a Nuisance, or a list of them", 1)(name, value)
    names = [nuisance.name for nuisance in found]
    require(len(set(names)) == len(names), name, names, "nuisance parameters of different names")
    return found


NUISANCES = _nuisances


class RateEstimate(NamedTuple):
    """Z(a) / Z(nominal): the change of the total cross section, and its statistical error from the events."""

    value: float
    error: float


@dataclass(frozen=True, repr=False)
class Rate(Brief):
    """The total cross section as a function of the nuisance parameters, over that at their nominal values.

    Z(a) is the mean of w(x, a) over the events. A density forgets it: p(x|a) is normalised at each a. Call it with
    values by name, ``rate(a=0.5)``; parameters left out have their nominal values.

    Attributes:
        sample: the events.
        nuisances: the parameters.
    """

    sample: EventSample
    nuisances: tuple[Nuisance, ...]

    def __call__(self, **values: float) -> RateEstimate:
        """The rate and its error.

        Both means are over the same events, so that the error is of their ratio r alone: it is
        ``sqrt(sum_i v_i^2 (w(x_i, a) - r w(x_i, nominal))^2) / sum_i v_i w(x_i, nominal)`` with event weights v.

        Raises:
            ValueError: an unknown parameter, a value outside of its range, or weights that are negative or infinite.
        """
        known = {nuisance.name: nuisance for nuisance in self.nuisances}
        for name, value in values.items():
            require(name in known, "the nuisance parameter", name, f"one of {', '.join(known)}")
            check_inside(known[name], FINITE(name, value))
        sums = np.zeros(5)
        for rows in _chunks(len(self.sample)):
            v = np.ones(rows.stop - rows.start) if self.sample.weights is None else self.sample.weights[rows]
            nominal, varied = (
                v * self._weights(rows, [found.get(n.name, n.nominal) for n in self.nuisances])
                for found in ({}, values)
            )
            sums += [nominal.sum(), varied.sum(), nominal @ nominal, nominal @ varied, varied @ varied]
        below, above, square, product, squares = sums
        require(bool(below > 0), "the sum of the weights at the nominal values", below, "positive")
        ratio = above / below
        variance = squares - 2 * ratio * product + ratio**2 * square
        return RateEstimate(float(ratio), float(np.sqrt(max(variance, 0.0)) / abs(below)))

    def _weights(self, rows: slice, values: Sequence[float]) -> Array:
        columns = np.broadcast_to(np.asarray(values), (rows.stop - rows.start, len(values)))
        return _weights_of(self.sample, rows, columns, self.nuisances)

    def _summary(self) -> str:
        return f"{', '.join(n.name for n in self.nuisances)}; of {len(self.sample):,} events"


@dataclass(frozen=True, repr=False)
class NuisanceSample(Brief):
    """Events to train a conditional flow on: ``fit(model, found.sample, context=found.context)``.

    Attributes:
        sample: the events with the weights w(x, a); M copies of N events have N M rows.
        context: the conditions ``[N M, k]``: those that were given, then one column for each nuisance parameter.
        nuisances: the parameters.
        rate: the total cross section as a function of them.
        copies: values of a for each event, M, those at the nominal values among them.
        effective_size: number of unweighted events with the same statistical power. The copies of an event count as
            one: they say no more of p(x) than the event itself.
        kl_weight: what ``pg.SVI(kl_weight=...)``, or the temperature of a sampler, has to be so that the likelihood
            counts ``effective_size`` events; 1 without copies.
    """

    sample: EventSample
    context: EventSample
    nuisances: tuple[Nuisance, ...]
    rate: Rate
    copies: int
    effective_size: float
    kl_weight: float = field(default=1.0)

    def _summary(self) -> str:
        names = ", ".join(f"{n.name} in [{n.low:g}, {n.high:g}]" for n in self.nuisances)
        return f"{len(self.sample):,} rows, {names}, effective size {self.effective_size:,.0f}"


@door(nuisances=NUISANCES, copies=whole(1), at_nominal=whole(0), seed=SEED)
def with_nuisances(
    events: EventsLike,
    nuisances: Nuisance | Sequence[Nuisance],
    *,
    context: EventsLike | None = None,
    copies: int = 1,
    at_nominal: int = 0,
    seed: int = 0,
) -> NuisanceSample:
    """Events with values of nuisance parameters and the weights that belong to them, to train a conditional flow on.

    Every event gets values a that are uniform in their ranges and independent of x, and the weight w(x, a): the product
    of those of all parameters. The weighted events have the density ``p(x) w(x, a) / (high - low)`` in x and a, whose
    conditional density is ``w(x, a) p(x) / Z(a)``. So a conditional flow learns p(x|a) normalised at each a, whatever
    Z(a) is; Z(a) decides only how many events there are near each a, and is kept in ``rate``.

    A network is worst at the ends of what it has seen, and of a one-sided parameter the nominal value is an end:
    ``at_nominal=1`` adds every event once more at the nominal values of all parameters. The conditional density does
    not depend on how often each a occurs.

    Args:
        events: N events; weights of theirs are multiplied by w.
        nuisances: one parameter or several.
        context: further conditions ``[N, k]``, which become the first columns.
        copies: values of a for every event. The values of one event are spread over the range. More copies lower the
            noise of the drawn values; they are no new events: train with ``kl_weight=found.kl_weight``.
        at_nominal: further copies of every event at the nominal values.
        seed: seeds the values.

    Raises:
        ValueError: a weight that is negative, NaN or infinite at a drawn value, at the nominal one or at an end of the
            range (the parameter, its value and the event are named), weights without a positive sum there, parameters
            without a weight function, a context that does not fit.

    Warns:
        UserWarning: one weight is more than 1 % of the total and 50 times the mean, or the effective size is below a
            tenth of the rows.
    """
    sample, parameters = as_sample(events), NUISANCES("nuisances", nuisances)
    for nuisance in parameters:
        if nuisance.weight is None:
            raise ValueError(f"nuisances has {nuisance.name} without a weight function; give Nuisance(weight=...)")
    _check_at_ends(sample, parameters)
    drawn = _draw(len(sample), parameters, copies, at_nominal, seed)
    made = {"nuisances": [nuisance.config() for nuisance in parameters], "copies": copies, "seed": seed}
    made |= {"at_nominal": at_nominal} if at_nominal else {}
    copies += at_nominal
    repeated = sample[np.repeat(np.arange(len(sample)), copies)] if copies > 1 else sample
    conditions = _conditions(context, len(sample), copies, drawn, parameters)
    factors = [_weights_of(repeated, rows, drawn[rows], parameters) for rows in _chunks(len(repeated))]
    weights = np.concatenate(factors) * (1.0 if repeated.weights is None else repeated.weights)
    weighted = EventSample(repeated, weights=weights, provenance=sample.provenance | {"with_nuisances": made})
    _tell_of_huge(weighted, drawn, parameters, copies)
    together = weights.reshape(-1, copies).sum(1)
    effective = float(together.sum() ** 2 / np.square(together).sum())
    counted = weighted.effective_size / effective if copies > 1 else 1.0
    return NuisanceSample(weighted, conditions, parameters, Rate(sample, parameters), copies, effective, counted)


def check_inside(nuisance: Nuisance, value: float, what: str = "the range of the training") -> None:
    """Refuse a value of a parameter outside of its range.

    Raises:
        ValueError: the parameter, the value and the range.
    """
    if not nuisance.low <= value <= nuisance.high:
        raise ValueError(
            f"{nuisance.name} is {value:g}, outside of {what}, {nuisance.low:g} to {nuisance.high:g}: train on that "
            "range too"
        )


def _draw(n: int, nuisances: Sequence[Nuisance], copies: int, at_nominal: int, seed: int) -> Array:
    """Values ``[n (copies + at_nominal), k]``: the copies of an event are in different of ``copies`` equal parts."""
    rng = np.random.default_rng(stream(seed, "nuisances"))
    columns = []
    for nuisance in nuisances:
        part = rng.permuted(np.broadcast_to(np.arange(copies), (n, copies)), axis=1)
        unit = (part + rng.random((n, copies))) / copies
        spread = nuisance.low + (nuisance.high - nuisance.low) * unit
        columns.append(np.column_stack([spread, np.full((n, at_nominal), nuisance.nominal)]).ravel())
    return np.stack(columns, 1)


def _chunks(n: int) -> Iterator[slice]:
    return (slice(first, min(first + ROWS, n)) for first in range(0, n, ROWS))


def _weights_of(sample: EventSample, rows: slice, values: Array, nuisances: Sequence[Nuisance]) -> Array:
    """The product ``[m]`` of the weights of some rows at values ``[m, k]``."""
    product = np.ones(rows.stop - rows.start)
    for nuisance, column in zip(nuisances, values.T, strict=True):
        events = torch.tensor(sample.values[rows])  # a copy for each: a weight function may compute in place
        product *= _checked_weights(nuisance, events, torch.tensor(column), sample, rows.start)
    return product


def _checked_weights(nuisance: Nuisance, events: Tensor, a: Tensor, sample: EventSample, first: int) -> Array:
    """Weights ``[m]`` of a parameter.

    Raises:
        ValueError: negative, NaN or infinite weights, or another shape.
        TypeError: no numbers.
    """
    found = nuisance.weight(events, a.clone())  # type: ignore[misc]
    weights = made_per_event(found, len(events), f"the weight of {nuisance.name}")
    bad = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if len(bad):
        row = bad[0]
        event = ", ".join(
            f"{name}={value:g}" for name, value in zip(sample.names, sample.values[first + row], strict=True)
        )
        cure = "Choose a smaller range, or another weight function"
        if np.isnan(weights[row]) and not np.isfinite(sample.values[first + row]).all():
            cure = "Columns of objects that are not there are NaN: give such events a weight too, with torch.where"
        raise ValueError(
            f"the weight of {nuisance.name} is {weights[row]:g} at {nuisance.name} = {float(a[row]):g} for event "
            f"{first + row} ({event}), and {len(bad)} of {len(weights)} weights are negative, NaN or infinite: there "
            f"is no density p(x|a) there. {cure}"
        )
    return weights


def _check_at_ends(sample: EventSample, nuisances: Sequence[Nuisance]) -> None:
    for nuisance in nuisances:
        for value in (nuisance.low, nuisance.nominal, nuisance.high):
            total = 0.0
            for rows in _chunks(len(sample)):
                found = _weights_of(sample, rows, np.full((rows.stop - rows.start, 1), value), [nuisance])
                total += found.sum() if sample.weights is None else found @ sample.weights[rows]
            if not total > 0:
                raise ValueError(
                    f"the weights at {nuisance.name} = {value:g} have the sum {total:g} over all events; it must be "
                    "positive: there is no density p(x|a) there. Choose another range, or another weight function"
                )


def _tell_of_huge(sample: EventSample, drawn: Array, nuisances: Sequence[Nuisance], copies: int) -> None:
    size = np.abs(sample.weights)  # type: ignore[arg-type]
    largest, effective = int(size.argmax()), sample.effective_size
    ratio = size[largest] / size.mean()
    if (ratio > HUGE and ratio > SHARE * len(sample)) or effective < FEW * len(sample):
        at = ", ".join(f"{n.name} = {value:.4g}" for n, value in zip(nuisances, drawn[largest], strict=True))
        warn(
            f"the largest weight, of event {largest // copies} at {at}, is {ratio:.3g} times the mean; the effective "
            f"size is {effective:,.0f} of {len(sample):,} rows. Few events decide what the flow learns there: choose a "
            "smaller range"
        )


def _conditions(
    context: EventsLike | None, n: int, copies: int, drawn: Array, nuisances: Sequence[Nuisance]
) -> EventSample:
    names = [nuisance.name for nuisance in nuisances]
    if context is None:
        return EventSample(drawn, names)
    table = table_of(context, "context")
    values = table.values[:, None] if table.values.ndim == 1 else table.values
    check_events(values, None, "context", table.names)
    given = EventSample(values, table.names, table.units)
    if len(given) != n:
        raise ValueError(f"context has {len(given)} rows for {n} events; it needs one row per event")
    for name in names:
        require(name not in given.names, "nuisances", name, "no parameter whose name is a column of context")
    values = np.column_stack([np.repeat(given.values, copies, axis=0), drawn])
    return EventSample(values, [*given.names, *names], [*given.units, *[""] * len(names)])
