"""The classifiers of CATHODE: of each fold, between the data of the others and the template of the other flows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyrogen.diagnostics.control.trees import Trees
from pyrogen.diagnostics.control.weights import Learner
from pyrogen.events import EventSample
from pyrogen.progress import bar
from pyrogen.search.background import Template
from pyrogen.search.scores import Bins
from pyrogen.search.shares import SearchSample
from pyrogen.seeds import stream

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What the classifiers say.

    Attributes:
        classifiers: of each fold, the members.
        members: log-ratio of each event in each member, ``[E, N]``, by the classifiers of ``sample.scored_by``.
        backgrounds: scores ``[M]`` of the generated events of its flow in the signal region, for each fold.
        sidebands: the same in the sidebands.
    """

    classifiers: tuple[tuple[Any, ...], ...]
    members: Array
    backgrounds: tuple[Array, ...]
    sidebands: tuple[Array, ...]


def score(
    sample: SearchSample,
    templates: Sequence[Template],
    backgrounds: Sequence[Template],
    sidebands: Sequence[Template],
    learners: Sequence[Learner],
    ensemble: int,
    seed: int,
    progress: bool,
) -> Scored:
    """Train the classifiers of all folds, and score what belongs to each."""
    count = len(learners) * ensemble
    members = np.full((count, len(sample)), np.nan)
    classifiers, scores = [], ([], [])  # type: ignore[var-annotated]
    data = sample.features[sample.in_signal]
    fold = sample.fold[sample.in_signal]
    binned = Bins(np.concatenate([data.values, *(each.events.values for each in templates)]))
    with bar(sample.folds * count, "CATHODE", "training", show=progress) as shown:
        for k in range(sample.folds):
            flow, others = sample.flow_of(k), [templates[each] for each in sample.others(k)]
            rest, own = data[fold != k], sample.scored_by == k
            values = np.concatenate([each.events.values for each in others])
            sums = [np.zeros(len(backgrounds[flow])), np.zeros(len(sidebands[flow]))]
            trained = []
            for m in range(count):
                # Other draws in other folds; each draw is used as often as the next.
                draw = m % ensemble + (k // sample.flows) * ensemble
                weights = np.concatenate([each.weights[draw % each.draws] for each in others])
                weighted = EventSample(values, data.names, data.units, weights)
                learner, number = learners[m // ensemble], stream(seed, "classifier", k, m)
                found = learner.train(rest, weighted, binned if isinstance(learner, Trees) else None, number, None)
                members[m, own] = np.asarray(found.log_ratio(sample.features[own]))
                for total, its in zip(sums, (backgrounds[flow], sidebands[flow]), strict=True):
                    total += np.asarray(found.log_ratio(its.events))
                trained.append(found)
                shown.update()
            classifiers.append(tuple(trained))
            for where, total in zip(scores, sums, strict=True):
                where.append(total / count)
    return Scored(
        classifiers=tuple(classifiers), members=members, backgrounds=tuple(scores[0]), sidebands=tuple(scores[1])
    )
