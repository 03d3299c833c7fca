"""Are two samples of one distribution? A likelihood-ratio test with a learned ratio, and its null from permutations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyrogen.checks import BOOLEAN, FUNCTION, SEED, dictionary, door, optional, whole
from pyrogen.classifier import Features
from pyrogen.diagnostics.classifier_samples import checked_samples
from pyrogen.diagnostics.control.inputs import Inputs, Observables, check_independent
from pyrogen.diagnostics.control.result import ClassifierWeights
from pyrogen.diagnostics.control.weights import METHOD, Learner, Plan
from pyrogen.events import EventSample
from pyrogen.printing import Brief
from pyrogen.progress import bar
from pyrogen.seeds import stream
from pyrogen.threads import chosen_threads

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class TwoSampleTest(Brief):
    """What :func:`two_sample_test` found.

    Attributes:
        statistic: t of the two samples.
        toys: ``[T]``, t of random permutations of their events.
        sizes: events of both.
    """

    statistic: float
    toys: Array
    sizes: tuple[int, int]

    @property
    def p_value(self) -> float:
        """(1 + number of toys with at least this t) / (1 + T): at least 1 / (1 + T)."""
        return float((1 + (self.toys >= self.statistic).sum()) / (1 + len(self.toys)))

    @property
    def significance(self) -> float:
        """The p-value in one-sided sigma of a Gaussian; at its smallest p-value it is a lower limit."""
        return NormalDist().inv_cdf(1 - self.p_value) if self.p_value < 1 else -np.inf

    @property
    def pull(self) -> float:
        """(t - mean) / std of the toys: says more than the p-value where no toy reaches t.

        It is zero, or infinite, where all toys are alike: their classifiers found nothing to split.
        """
        away, scatter = float(self.statistic - self.toys.mean()), float(self.toys.std(ddof=1))
        return away / scatter if scatter > 0 else math.copysign(math.inf, away) if away else 0.0

    def text(self) -> str:
        """One line."""
        least = f", the smallest of {len(self.toys)} permutations" if (self.toys < self.statistic).all() else ""
        return (
            f"t = {self.statistic:.1f}, without a difference {self.toys.mean():.1f} +- {self.toys.std(ddof=1):.1f} "
            f"({len(self.toys)} permutations): p = {self.p_value:.3g}{least}; "
            f"t is {self.pull:.1f} standard deviations off"
        )


@door(
    observables=optional(dictionary(FUNCTION, 'functions of events by name, such as {"M": f}')),
    features=optional(FUNCTION),
    method=METHOD,
    toys=whole(2),
    folds=whole(2),
    ensemble=whole(1),
    seed=SEED,
    progress=BOOLEAN,
)
@chosen_threads()
def two_sample_test(
    truth: Any,
    generated: Any,
    *,
    observables: Observables | None = None,
    features: Features | None = None,
    method: str | Learner = "trees",
    toys: int = 100,
    folds: int = 2,
    ensemble: int = 1,
    seed: int = 0,
    progress: bool = True,
) -> TwoSampleTest:
    """Test whether true and generated events are of one distribution, with an exact p-value.

    The statistic is that of a likelihood-ratio test with a learned ratio w = p_truth / p_generated (NPLM, D'Agnolo and
    Wulzer, arXiv:1806.02350, eq. 13), of N true events with the M generated ones as reference::

        t = 2 [ sum_truth log w - N/M sum_generated (w - 1) ]

    Here w is cross-fitted: no event is scored by a classifier that it trained. So t is below zero on average where
    there is nothing to learn. Its distribution is found by permutations: the events of both samples are mixed, dealt
    out anew and everything is trained again. Where the samples do not differ, t of the data is one more of these, and
    the p-value uniform, whatever the classifier is; a better classifier makes the test more powerful. A hundred
    permutations need a hundred times the training: take trees, or a small network.

    Args:
        truth: events ``[N, d]`` without weights: with them, the samples cannot be exchanged; see :func:`unweight`.
        generated: events ``[M, d]``.
        observables, features, method, folds, ensemble: as in :func:`classifier_weights`.
        toys: number T of permutations; the smallest p-value is 1 / (1 + T).
        seed: seeds permutations, folds and trainings.
        progress: show a progress bar.

    Raises:
        ValueError: weighted events, events that are in both samples, and as :func:`classifier_weights`.
    """
    samples = checked_samples(truth, generated, features)
    for name, sample in samples.items():
        if sample.weights is not None:
            raise ValueError(
                f"{name} has weights; a permutation test needs events of unit weight: pg.diagnostics.unweight(sample)"
            )
    plan = Plan(Inputs(features, observables or {}), METHOD("method", method), folds, ensemble, False)
    first = plan.prepare(samples, stream(seed, "two samples"), "")
    check_independent(samples)
    pooled = np.concatenate([each.values for each in samples.values()])
    a = samples["truth"]
    generator = np.random.default_rng(stream(seed, "permutations"))
    found = []
    with bar(toys + 1, "two-sample test", "training", show=progress) as shown:
        statistic = _statistic(first())
        shown.update()
        for r in range(toys):
            order = generator.permutation(len(pooled))
            parts = order[: len(a)], order[len(a) :]
            names = ("truth", "generated")
            mixed = {
                name: EventSample(pooled[rows], a.names, a.units, multiplicity=a.multiplicity)
                for name, rows in zip(names, parts, strict=True)
            }
            found.append(_statistic(plan.prepare(mixed, stream(seed, "two samples", r), "")()))
            shown.update()
    return TwoSampleTest(statistic, np.array(found), (len(samples["truth"]), len(samples["generated"])))


def _statistic(found: ClassifierWeights) -> float:
    n, m = len(found.truth), len(found.generated)
    return float(2 * (found.log_w_truth.sum() - n / m * np.expm1(found.log_w_generated).sum()))
