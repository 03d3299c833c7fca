"""Events of unit weight from weighted ones, and whether mended events have the distributions of the truth."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from pyrogen.checks import POSITIVE, SEED, dictionary, door, instance, one_of, optional, require, whole
from pyrogen.diagnostics.control.copies import COPIES
from pyrogen.diagnostics.quality import QualityTable, quality_table
from pyrogen.events import EventSample
from pyrogen.events.doors import PLAIN_EVENTS
from pyrogen.events.observing import OBSERVED
from pyrogen.printing import Brief
from pyrogen.seeds import stream


@dataclass(frozen=True, eq=False, repr=False)
class Unweighted(Brief):
    """What :func:`unweight` made.

    Attributes:
        events: without weights; ``log_weights`` and all else are as before. Where some are copies, the provenance tells
            how many, as ``"copies"``.
        efficiency: expected number of events over that before: mean weight over ``maximum``.
        maximum: the weight that is always accepted.
        overweight: number of events with a larger weight.
        overweight_share: what their weights above the maximum carry of the sum of all weights: what repeated events
            carry, or what is lost.
        overweights: what was done with them, ``"repeat"`` or ``"cut"``.
        repeated: number of events that are copies of another one.
    """

    events: EventSample
    efficiency: float
    maximum: float
    overweight: int
    overweight_share: float
    overweights: str
    repeated: int

    def text(self) -> str:
        """One line."""
        told = "no weight is above the maximum"
        if self.overweight:
            fate = "which is cut off" if self.overweights == "cut" else f"{self.repeated:,} events are copies"
            told = f"{self.overweight:,} weights above carry {self.overweight_share:.2%} more, {fate}"
        return (
            f"{len(self.events):,} events of unit weight, efficiency {self.efficiency:.2%} at a maximal weight of "
            f"{self.maximum:.4g}; {told}"
        )


@door(
    sample=instance(
        EventSample, "a pg.EventSample with weights", {"Reweighted": "give its events: reweight(...).events"}
    ),
    maximum=optional(POSITIVE),
    overweights=one_of("repeat", "cut"),
    seed=SEED,
)
def unweight(
    sample: EventSample, *, maximum: float | None = None, overweights: str = "repeat", seed: int = 0
) -> Unweighted:
    """Events of unit weight, by accepting each with the probability weight / maximum.

    ``log_weights`` stay with their events: a histogram with ``exp(log_weights[:, k])`` of the accepted events has the
    same expectation as one with ``weights * exp(log_weights[:, k])`` of all. So the band of the posterior is kept, also
    for :func:`~pyrogen.posterior.sample_histograms`.

    Args:
        sample: events with positive weights, such as ``reweight(...).events``.
        maximum: the weight that is always accepted, by default the largest: then no weight is above it, and one event
            can make the efficiency small. A smaller one accepts more events, and has overweights.
        overweights: ``"repeat"``: an event of weight 2.3 maximum comes twice and, with probability 0.3, once more; the
            expectation stays right, but copies are not independent: classifiers and permutation tests refuse them.
            ``"cut"``: it comes once, and what is above is lost.
        seed: seeds the choice.

    Raises:
        ValueError: no weights, negative ones, or no event accepted.
    """
    weights = sample.weights
    if weights is None:
        raise ValueError("sample has no weights; its events are of unit weight already")
    if (weights < 0).any():
        raise ValueError(f"sample has {int((weights < 0).sum()):,} negative weights; unweighting needs positive ones")
    top = float(weights.max()) if maximum is None else maximum
    chance = weights / top
    often = np.minimum(chance, 1.0) if overweights == "cut" else chance
    whole_part = np.floor(often)
    random = np.random.default_rng(stream(seed, "unweight")).random(len(often))
    copies = (whole_part + (random < often - whole_part)).astype(np.int64)
    rows = np.repeat(np.arange(len(sample)), copies)
    if not len(rows):
        raise ValueError(f"no event was accepted: maximum is {top:.4g}, the largest weight {weights.max():.4g}")
    above = np.clip(weights - top, 0, None)
    chosen, repeated = sample[rows], int((copies[copies > 1] - 1).sum())
    told = {COPIES: repeated + chosen.provenance.get(COPIES, 0)} if repeated else {}
    events = EventSample(
        chosen.values,
        chosen.names,
        chosen.units,
        uncertainties=chosen.uncertainties,
        provenance=chosen.provenance | told,
        log_weights=chosen.log_weights,
        multiplicity=chosen.multiplicity,
    )
    return Unweighted(
        events,
        float(often.mean()),
        top,
        overweight=int((weights > top).sum()),
        overweight_share=float(above.sum() / weights.sum()),
        overweights=overweights,
        repeated=repeated,
    )


@dataclass(frozen=True, eq=False, repr=False)
class Closure(Brief):
    """Distances of observables from the truth before and after mending, in units of their floor.

    Attributes:
        before, after: tables of :func:`~pyrogen.diagnostics.sample_quality`, of the same observables, each with the
            floor of its own number of events: of weighted ones the effective number counts, and copies count as one.
    """

    before: QualityTable
    after: QualityTable

    def _summary(self) -> str:
        rows = zip(self.before.names, self.before.ratio, self.after.ratio, strict=True)
        return "W1/floor " + ", ".join(f"{name}: {a:.3g} -> {b:.3g}" for name, a, b in rows)

    def text(self) -> str:
        """The table as aligned plain text."""
        width = max(len("observable"), *map(len, self.before.names))
        lines = [
            f"{'observable':{width}}  {'W1 before':>10}  {'W1 after':>10}  {'before/floor':>12}  {'after/floor':>11}"
        ]
        for i, name in enumerate(self.before.names):
            distances = f"{self.before.distance[i]:10.4g}  {self.after.distance[i]:10.4g}"
            lines.append(f"{name:{width}}  {distances}  {self.before.ratio[i]:12.2f}  {self.after.ratio[i]:11.2f}")
        return "\n".join(lines)


def _as_events(name: str, value: Any) -> Any:
    return PLAIN_EVENTS(name, getattr(value, "events", value))  # of what reweight and unweight made


@door(
    truth=PLAIN_EVENTS,
    before=_as_events,
    after=_as_events,
    observables=dictionary(OBSERVED),
    reference=optional(PLAIN_EVENTS),
    partitions=whole(2),
    seed=SEED,
)
def closure(
    truth: Any,
    before: Any,
    after: Any,
    observables: Mapping[str, Callable[[Tensor], Tensor] | str | int],
    *,
    reference: Any = None,
    partitions: int = 10,
    seed: int = 0,
) -> Closure:
    """How far generated events are from the truth before and after mending, beside the floor of true events.

    It shows something only for observables that the classifier has not seen, and for true events that it was not
    trained on: what it was trained on it can bend into place.

    Args:
        truth: true events ``[N, d]`` that no classifier has seen, with or without (positive) weights.
        before: the generated events.
        after: the mended events: a sample, or what :func:`reweight` or :func:`unweight` made.
        observables: what to compare, by name, as for :func:`sample_quality`.
        reference: further true events for the floor; None: half of the truth, chosen at random.
        partitions: number of random partitions for the floor.
        seed: seeds them.

    Raises:
        ValueError: as :func:`sample_quality`.
    """
    if reference is None:
        whole_truth = truth if isinstance(truth, EventSample) else EventSample(truth)
        require(len(whole_truth) > 1, "truth", len(whole_truth), "at least two events, or give a reference")
        order = np.random.default_rng(stream(seed, "closure")).permutation(len(whole_truth))
        truth, reference = whole_truth[order[: len(order) // 2]], whole_truth[order[len(order) // 2 :]]
    if not observables:
        raise ValueError("observables is empty; give functions of events, or columns, by name")
    given = {"before": before, "after": after}
    both = {name: each if isinstance(each, EventSample) else EventSample(each) for name, each in given.items()}
    tables = [
        _at_its_size(quality_table(truth, its, reference, observables, partitions, seed, both)) for its in both.values()
    ]
    return Closure(*tables)


def _at_its_size(table: QualityTable) -> QualityTable:
    """The table with the floor of as many true events as the generated ones are worth; it falls with their root."""
    truth, own, reference = table.effective_sizes
    scale = math.sqrt((1 / truth + 1 / own) / (1 / truth + 1 / reference))
    return replace(table, floor=scale * table.floor, floor_std=scale * table.floor_std)
