"""Known distortions of a sample: generators whose failure is planted, so that tests of generators can be tested.

A distorted sample stands for a generator with one failure mode of arXiv:2305.16774, secs. 2 and 3: a missing tail or
mode, a wrong boundary, a smeared or shifted feature. What the best classifier would learn is known: the log-ratio
``log p_true(x) / p_distorted(x)``.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..checks import FUNCTION, SEED, door, each, instance, optional
from ..printing import Brief
from ..seeds import stream
from .containers import check_same_order, table_of
from .doors import SAMPLE
from .observing import observed
from .sample import EventSample, EventsLike, as_sample

Array = NDArray[np.float64]
LogFunction = Callable[[Tensor], Array]
"""Events ``[n, d]`` in float64 to ``[n]``."""


@dataclass(frozen=True, eq=False, repr=False)
class Distorted(Brief):
    """A distorted sample with what is known of it.

    Attributes:
        truth: the sample before.
        sample: the distorted one; its provenance says what was done.
        steps: what was done, in words, one text for each distortion.
        unknown: why the log-ratio is not known; None: it is.
    """

    truth: EventSample
    sample: EventSample
    steps: tuple[str, ...]
    unknown: str | None
    _ratio: LogFunction
    _density: LogFunction | None
    _true_density: LogFunction | None

    def log_ratio(self, events: EventsLike) -> Array:
        """``log p_true(x) / p_distorted(x)`` at events ``[n, d]``: ``[n]``, what a perfect classifier learns.

        It is +inf where only the truth has events, and -inf where only the distorted sample has.

        Raises:
            ValueError: a ratio that is not known (``unknown`` says why), or events with other columns.
        """
        if self.unknown:
            raise ValueError(f"the ratio of the densities is not known: {self.unknown}")
        table = table_of(events)
        check_same_order("events", table, "the truth", table_of(self.truth))
        sample = as_sample(events, None, self.truth.multiplicity)
        if sample.features != self.truth.features:
            raise ValueError(f"events have {sample.features} columns; they must have {self.truth.features}")
        return self._ratio(sample.tensor(torch.float64))

    def _summary(self) -> str:
        return f"{len(self.sample)} of {len(self.truth)} events; {'; '.join(self.steps)}"

    def text(self) -> str:
        """One line for each distortion, and whether the ratio is known."""
        known = f"log-ratio not known: {self.unknown}" if self.unknown else "log-ratio known at every event"
        size = f"{len(self.sample):,} events from {len(self.truth):,} true ones"
        return "\n".join([f"{size}; {known}", *(f"  {i}. {step}" for i, step in enumerate(self.steps, 1))])


class Distortion(Brief, ABC):
    """One distortion, without a sample; :func:`distort` applies it."""

    @abstractmethod
    def check(self, sample: EventSample) -> None:
        """Check that it can be applied to a sample with these columns.

        Raises:
            ValueError: columns that are not there.
        """

    @abstractmethod
    def applied(self, before: Distorted, rng: np.random.Generator) -> Distorted:
        """What it makes of a sample that may be distorted already."""


class Weighting(Distortion):
    """A distortion that makes events rarer or more frequent where they are: ``p_distorted = p f / <f>``.

    ``<f>`` is the mean of f over the sample, so the ratio ``<f> / f`` is exact up to the statistical error of that
    number. Nothing has to be known of p.
    """

    as_weights = False

    @abstractmethod
    def factor(self, sample: EventSample) -> tuple[LogFunction, str]:
        """The function f of events, finite and not negative, and what it does in words."""

    def applied(self, before: Distorted, rng: np.random.Generator) -> Distorted:
        """See :class:`Distortion`."""
        sample, name = before.sample, type(self).__name__
        function, words = self.factor(sample)
        factors = function(sample.tensor(torch.float64))
        weights = np.ones(len(sample)) if sample.weights is None else sample.weights
        mean = float(weights @ factors / weights.sum())
        if not mean > 0 or not (kept := factors > 0).any() or not weights[kept].sum() > 0:
            raise ValueError(f"{name}: {words}: nothing would be left of the {len(sample)} events")
        if factors.min() == factors.max():
            raise ValueError(f"{name}: {words}: this changes none of the {len(sample)} events")
        if self.as_weights:
            after = EventSample(sample, weights=weights * factors)
        else:
            after = sample[rng.random(len(sample)) < factors / factors.max()]
        gone = f"{1 - mean:.3%} of the weight gone" if factors.max() == 1 else f"{len(after):,} events"

        def log_share(events: Tensor) -> Array:
            with np.errstate(divide="ignore"):
                return np.log(function(events)) - np.log(mean)

        ratio, density = before._ratio, before._density
        return dataclasses.replace(
            before,
            sample=after,
            steps=(*before.steps, f"{words}; {gone}"),
            _ratio=lambda events: ratio(events) - log_share(events),
            _density=None if density is None else lambda events: density(events) + log_share(events),
        )


class Transformation(Distortion):
    """A distortion that moves events. The ratio is known where the density of the truth is."""

    @abstractmethod
    def moved(self, events: Tensor, names: Sequence[str], rng: np.random.Generator) -> Tensor:
        """The events ``[N, d]`` after it."""

    @abstractmethod
    def undone(self, events: Tensor, names: Sequence[str], z: float) -> tuple[Tensor, Array]:
        """Where events ``[n, d]`` came from if the noise was z, and the log of the Jacobian ``[n]`` of this step."""

    @abstractmethod
    def words(self, sample: EventSample) -> str:
        """What it does."""

    def nodes(self) -> tuple[Array, Array]:
        """Values of the noise z, and their log-probabilities: a quadrature of its distribution."""
        return np.zeros(1), np.zeros(1)

    def applied(self, before: Distorted, rng: np.random.Generator) -> Distorted:
        """See :class:`Distortion`."""
        sample = before.sample
        values = self.moved(sample.tensor(torch.float64), sample.names, rng).numpy()
        after = with_values(sample, values)
        density, truth = before._density, before._true_density
        if density is None or truth is None:
            which = "the truth is not given" if truth is None else "what it moves is not known"
            because = before.unknown or f"{type(self).__name__} moves events, and log_density of {which}"
            return dataclasses.replace(
                before, sample=after, steps=(*before.steps, self.words(sample)), unknown=because, _density=None
            )
        moved = self._pushed(density, sample.names)

        def ratio(events: Tensor) -> Array:
            with np.errstate(invalid="ignore"):
                return truth(events) - moved(events)

        steps = (*before.steps, self.words(sample))
        return dataclasses.replace(before, sample=after, steps=steps, _ratio=ratio, _density=moved)

    def _pushed(self, density: LogFunction, names: Sequence[str]) -> LogFunction:
        """The log-density of the moved events: the mean over the noise of that where they came from."""

        def pushed(events: Tensor) -> Array:
            total = np.full(len(events), -np.inf)
            for z, log_probability in zip(*self.nodes(), strict=True):
                earlier, log_jacobian = self.undone(events, names, float(z))
                total = np.logaddexp(total, density(earlier) + log_jacobian + log_probability)
            return total

        return pushed


def with_values(sample: EventSample, values: Array) -> EventSample:
    """Other values ``[N, d]`` with all else of a sample."""
    return EventSample(
        values,
        sample.names,
        sample.units,
        sample.weights,
        sample.uncertainties,
        sample.provenance,
        log_weights=sample.log_weights,
        part=sample.part,
        multiplicity=sample.multiplicity,
    )


@door(
    sample=SAMPLE,
    distortions=each(
        instance(Distortion, "a distortion of pyrogen.events, such as TailCut"),
        "a list of distortions, such as [TailCut('pt', missing=0.01)]",
        1,
    ),
    seed=SEED,
    log_density=optional(FUNCTION),
)
def distort(
    sample: EventSample,
    distortions: Sequence[Distortion],
    *,
    seed: int = 0,
    log_density: Callable[[Tensor], Tensor] | None = None,
) -> Distorted:
    """Apply known distortions to a sample, one after the other.

    Weights, names, units, objects that are not there, and all columns that a distortion does not speak of stay as they
    are. Compare the result with *other* true events: it shares its events with ``sample``.

    Args:
        sample: true events.
        distortions: what to do, in this order: :class:`TailCut`, :class:`MissingMode`, :class:`Hole`,
            :class:`FilledHole`, :class:`Reweighting`, :class:`Shift`, :class:`Smear`, :class:`SmearMass`.
        seed: seeds what is random.
        log_density: log p_true of events ``[n, d]`` (a float64 tensor), ``[n]``, where it is known, as the ``log_prob``
            of :mod:`pyrogen.targets`. Distortions that move events need it for their ratio; others do not.

    Returns:
        The distorted sample, and the log-ratio of the densities at any event where it is known.

    Raises:
        ValueError: columns that are not there (all are checked before the first distortion), a distortion that would
            leave nothing, or that would change nothing.
    """
    for each_one in distortions:
        each_one.check(sample)
    density = None if log_density is None else _as_log_function(log_density, sample.names)
    state = Distorted(sample, sample, (), None, lambda events: np.zeros(len(events)), density, density)
    for i, each_one in enumerate(distortions):
        state = each_one.applied(state, np.random.default_rng(stream(seed, "distort", i)))
    provenance = sample.provenance | {"distortions": list(state.steps), "distortion_seed": seed}
    return dataclasses.replace(state, sample=EventSample(state.sample, provenance=provenance))


def _as_log_function(log_density: Callable[[Tensor], Tensor], names: Sequence[str]) -> LogFunction:
    return lambda events: observed(log_density, events, names, "log_density")
