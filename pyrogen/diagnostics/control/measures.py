"""Measures of the field beside the AUC, each with what true events would get: FPD, KPD, energy distance, PRDC."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyrogen.checks import BOOLEAN, NATURAL, POSITIVE, SEED, dictionary, door, each, one_of, optional, require, whole
from pyrogen.diagnostics.control.copies import check_random_splits, independent_size, told_copies
from pyrogen.diagnostics.quality import checked_samples, finite_observable, mean_one
from pyrogen.events import EventSample
from pyrogen.events.observing import OBSERVED, Observed
from pyrogen.printing import Brief
from pyrogen.progress import bar
from pyrogen.seeds import stream
from pyrogen.threads import chosen_threads

from . import estimators

Array = NDArray[np.float64]
Estimator = Callable[[Array, Array, Array, Array, np.random.Generator], tuple[float, ...]]


@dataclass(frozen=True)
class _Kind:
    """A measure: the names of its numbers, whether larger is worse, counts weights, and looks at all pairs."""

    labels: tuple[str, ...]
    estimator: Estimator
    distance: bool = True
    weighted: bool = True
    pairs: bool = False


KINDS = {
    "fpd": _Kind(("FPD",), estimators.fpd),
    "kpd": _Kind(("KPD",), estimators.kpd),
    "energy": _Kind(("energy distance",), estimators.energy_distance, pairs=True),
    "sliced": _Kind(("sliced W1",), estimators.sliced_wasserstein),
    "prdc": _Kind(
        ("precision", "recall", "density", "coverage"), estimators.prdc, distance=False, weighted=False, pairs=True
    ),
}
LEAST = 100  # events of each side: the tenth part of a batch of KPD


@dataclass(frozen=True, eq=False, repr=False)
class SampleMeasures(Brief):
    """Measures of a generated sample against the truth, next to those of true events against true events.

    Attributes:
        names: n measures.
        value: ``[n]``, of the generated events.
        floors: ``[n, splits]``, of true events in their place, for each random split.
        distances: ``[n]``, True where larger is worse and the sign counts; for the others (precision, recall, density,
            coverage) a value on either side of the floor is a difference.
        features: what the samples were compared in.
        sizes: events: of the truth, of the generated sample, and of the true events in its place.
        left_out: measures that were not taken, with the reason.
    """

    names: tuple[str, ...]
    value: Array
    floors: Array
    distances: NDArray[np.bool_]
    features: tuple[str, ...]
    sizes: tuple[int, int, int]
    left_out: Mapping[str, str]

    @property
    def floor(self) -> Array:
        """``[n]``: mean over the splits."""
        return self.floors.mean(1)

    @property
    def floor_std(self) -> Array:
        """``[n]``: standard deviation over the splits, how much a single value fluctuates."""
        return self.floors.std(1, ddof=1)

    @property
    def significance(self) -> Array:
        """``[n]``: (value - floor) / floor_std, with the sign turned for precision, recall, density and coverage.

        Positive is worse than true events. It is Gaussian to the extent that the floor is; NaN where the floor does not
        fluctuate and the value is at it.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.distances, 1, -1) * (self.value - self.floor) / self.floor_std

    @property
    def p_value(self) -> Array:
        """``[n]``: part of the floors that are at least as extreme, the value counted in: at least 1 / (splits + 1)."""
        centre = np.where(self.distances, 0.0, self.floor)
        away, its = self.value - centre, self.floors - centre[:, None]
        sided = np.where(self.distances, away, np.abs(away))
        its = np.where(self.distances[:, None], its, np.abs(its))
        return (1 + (its >= sided[:, None]).sum(1)) / (1 + its.shape[1])

    @door(sigmas=POSITIVE)
    def found(self, sigmas: float = 3.0) -> tuple[str, ...]:
        """Names of the measures that see a difference: beyond so many standard deviations of the floor."""
        seen = np.where(self.distances, self.significance, np.abs(self.significance)) > sigmas
        return tuple(name for name, its in zip(self.names, seen, strict=True) if its)

    def _summary(self) -> str:
        parts = zip(self.names, self.significance, strict=True)
        return ", ".join(f"{name}: {number:+.1f} sigma" for name, number in parts)

    def text(self) -> str:
        """The table as aligned plain text."""
        rows = [["measure", "value", "floor", "+-", "sigma", "p"]]
        columns = (self.value, self.floor, self.floor_std, self.significance, self.p_value)
        for name, value, floor, std, sigma, p in zip(self.names, *columns, strict=True):
            rows.append([name, f"{value:.4g}", f"{floor:.4g}", f"{std:.2g}", f"{sigma:+.1f}", f"{p:.3f}"])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
            for row in rows
        ]
        truth, generated, instead = self.sizes
        lines.append(
            f"{generated:,} generated events against {truth:,} true ones in {', '.join(self.features)}; the floor is "
            f"{instead:,} true events in their place, {self.floors.shape[1]} random splits"
        )
        return "\n".join([*lines, *(f"{name} left out: {reason}" for name, reason in self.left_out.items())])


@door(
    observables=optional(dictionary(OBSERVED)),
    which=optional(each(one_of(*KINDS), 'names of measures, such as ("fpd", "kpd")', 1)),
    scale=one_of("std", "max"),
    splits=whole(5),
    most_pairs=whole(LEAST),
    neighbours=NATURAL,
    seed=SEED,
    progress=BOOLEAN,
)
@chosen_threads()
def sample_measures(
    truth: Any,
    generated: Any,
    observables: Mapping[str, Observed] | None = None,
    *,
    reference: Any = None,
    which: Sequence[str] | None = None,
    scale: str = "std",
    splits: int = 20,
    most_pairs: int = 2_000,
    neighbours: int = 5,
    seed: int = 0,
    progress: bool = True,
) -> SampleMeasures:
    """Measures of generated events in many dimensions, each with the floor that true events in their place have.

    * ``fpd``, ``kpd``: Frechet and kernel physics distance (arXiv:2211.10295), of means and covariances, and of all
      moments up to the fourth. At 50,000 events their sizes and batches are those of jetnet; subsamples have no event
      twice, so that both fluctuate around zero for samples of one distribution.
    * ``energy``: energy distance. ``sliced``: mean W1 over 30 random directions.
    * ``prdc``: precision, recall, density and coverage (arXiv:2002.09797), of unweighted events.

    The floor: truth and reference are pooled and split at random into parts of the same sizes, several times. All
    features are divided by a scale of the truth first. None of these measures knows correlations of features that it is
    not given: give masses and distances as observables.

    Args:
        truth: held-out events ``[N, d]``: a tensor, an array or an :class:`~pyrogen.EventSample`, whose (positive)
            weights count.
        generated: events ``[M, d]``; the first ones where there are more than true events in their place. Where they
            have weights or are copies, the floor has as many true events in their place as they are worth.
        observables: the features by name: a function of events ``[n, d]`` (a float64 tensor) that gives ``[n]``, or the
            name or index of a column. None: all columns.
        reference: true events independent of ``truth`` for the floor; weights of the same kind as those of ``truth``,
            of any norm. None: half of ``truth`` at random, or as many as there are generated events where these are
            fewer; the value is then that of the other part.
        which: names of measures; None: all that can be taken of these samples.
        scale: "std": features are centred and divided by the standard deviation of the truth; "max": divided by its
            largest absolute value, as in jetnet, for numbers that compare with published FPD and KPD.
        splits: number of random splits.
        most_pairs: events of each side that the energy distance and ``prdc`` look at; their time grows as its square.
        neighbours: of ``prdc``.
        seed: seeds splits, batches and directions.
        progress: show a progress bar.

    Raises:
        ValueError: fewer than 100 (effective) events of a side, also among ``most_pairs`` of them; numbers that are not
            finite, events of a varying number of objects in observables that not all have, features that are constant,
            negative weights, weights or copies with ``prdc``, copies among the true events, different columns.
    """
    given = {"truth": truth, "generated": generated} | ({} if reference is None else {"reference": reference})
    samples = checked_samples(**given)
    check_random_splits(**{name: sample for name, sample in samples.items() if name != "generated"})
    kinds, left_out = _kinds(samples, which)
    names, values = _features(samples, observables, scale)
    rng = np.random.default_rng(stream(seed, "measures"))
    pool, others, weights = values["truth"], values["generated"], {n: mean_one(s) for n, s in samples.items()}
    pooled = weights["truth"]
    if reference is None:
        order = rng.permutation(len(pool))  # the events in the place of the generated ones are at the end
        pool, pooled = pool[order], pooled[order]
        room = len(pool) // 2
    else:
        room = len(values["reference"])
        pool = np.concatenate([pool, values["reference"]])
        pooled = np.concatenate([pooled, weights["reference"]])
    used = min(room, len(others))
    instead = _as_good_as(samples["generated"][:used], pooled)
    size = len(pool) - (instead if reference is None else room)
    for name, number in (("truth", size), ("generated", used), ("the true events in their place", instead)):
        require(number >= LEAST, name, number, f"at least {LEAST} (effective) events, for {splits} splits of the truth")
    # Of a part of the generated events: as many true events as this part is worth.
    fewer = min(instead, _as_good_as(samples["generated"][: min(used, most_pairs)], pooled))
    if any(kind.pairs for kind in kinds.values()) and fewer < LEAST:
        raise ValueError(
            f"most_pairs is {most_pairs:,}, and so many of the generated events are worth {fewer}; give a larger one, "
            f"such as {math.ceil(1.2 * most_pairs * LEAST / max(fewer, 1)):,}, or leave out the energy distance"
        )

    value: list[tuple[float, ...]] = []
    floors: list[list[tuple[float, ...]]] = []
    with bar(len(kinds) * (splits + 1), "measures", "split", show=progress, brief=True) as shown:
        for name, kind in kinds.items():
            own = functools.partial(estimators.prdc, neighbours=neighbours) if name == "prdc" else kind.estimator
            most = most_pairs if kind.pairs else len(pool)
            there = fewer if kind.pairs else instead
            found = []
            for split in range(splits + 1):
                its_rng = np.random.default_rng(stream(seed, "measures", name, split))
                # The first one is the value.
                order = its_rng.permutation(len(pool)) if split else np.arange(len(pool))
                first = order[:size][:most]
                if split:
                    second = order[-there:]
                    y, v = pool[second], pooled[second]
                else:
                    y, v = others[:used][:most], weights["generated"][:used][:most]
                found.append(own(pool[first], pooled[first], y, v, its_rng))
                shown.update()
            value.append(found[0])
            floors.append(found[1:])
    return SampleMeasures(
        tuple(label for kind in kinds.values() for label in kind.labels),
        np.concatenate([np.array(each) for each in value]),
        np.concatenate([np.array(each).T for each in floors]),
        np.array([kind.distance for kind in kinds.values() for _ in kind.labels]),
        names,
        (size, used, instead),
        left_out,
    )


def _kinds(samples: Mapping[str, EventSample], which: Sequence[str] | None) -> tuple[dict[str, _Kind], dict[str, str]]:
    """The measures to take, and those that these samples do not allow with the reason."""
    weighted = [name for name, sample in samples.items() if sample.weights is not None]
    reason = ""
    if weighted:
        reason = f"it counts neighbours, and {' and '.join(weighted)} has weights; unweight the events first"
    elif told_copies(samples["generated"]):
        reason = 'it counts neighbours, and generated has copies; unweight the events with overweights="cut"'
    left_out = {name: reason for name, kind in KINDS.items() if reason and not kind.weighted}
    for name in which or ():
        require(name not in left_out, "which", name, f"another measure: {left_out.get(name)}")
    wanted = KINDS if which is None else which
    return {name: KINDS[name] for name in wanted if name not in left_out}, left_out if which is None else {}


def _features(
    samples: Mapping[str, EventSample], observables: Mapping[str, Observed] | None, scale: str
) -> tuple[tuple[str, ...], dict[str, Array]]:
    """Names of the features, and their scaled values ``[N, k]`` of each sample."""
    truth = samples["truth"]
    wanted: Mapping[str, Observed] = {name: name for name in truth.names} if observables is None else observables
    require(len(wanted) > 0, "observables", wanted, "functions of events, or columns, by name")
    values = {
        which: np.stack([finite_observable(name, what, which, sample) for name, what in wanted.items()], -1)
        for which, sample in samples.items()
    }
    own, weights = values["truth"], mean_one(truth)
    if scale == "std":
        centre = np.average(own, 0, weights)
        width = np.sqrt(np.average((own - centre) ** 2, 0, weights))
    else:
        centre, width = np.zeros(own.shape[1]), np.abs(own).max(0)
    for name, column, its in zip(wanted, own.T, width, strict=True):
        if not its > 0 or np.ptp(column) == 0:
            raise ValueError(f"{name} is {column[0]:.6g} in all true events, so that it has no scale; leave it out")
    return tuple(wanted), {which: (array - centre) / width for which, array in values.items()}


def _as_good_as(sample: EventSample, true_weights: Array) -> int:
    """How many true events are worth as much as a sample with weights or copies; at most as many as it has."""
    efficiency = true_weights.sum() ** 2 / np.sum(true_weights**2) / len(true_weights)
    return min(len(sample), round(independent_size(sample) / efficiency))
