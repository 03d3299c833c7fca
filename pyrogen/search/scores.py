"""Anomaly scores: log-ratios of data and template, each from classifiers that have not seen the event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pyrogen.checks import BOOLEAN, MAPPING, SEED, array, door, optional, whole
from pyrogen.diagnostics.control.inputs import assign_folds, check_independent
from pyrogen.diagnostics.control.trees import Trees
from pyrogen.diagnostics.control.weights import Learner
from pyrogen.events import EventSample, EventsLike
from pyrogen.printing import Brief
from pyrogen.progress import bar
from pyrogen.search.samples import METHODS, check_variables, checked, weights_of_members, with_weights
from pyrogen.seeds import stream
from pyrogen.threads import chosen_threads

Array = NDArray[np.float64]
BINS = 255  # of a column, for trees


@dataclass(frozen=True, kw_only=True, repr=False)
class Scores(Brief):
    """Anomaly scores of data and template events: the mean over an ensemble of log p_data(x) / p_template(x).

    The mean is that of the log-ratios: the score is the logarithm of the geometric mean of the ratios. Every event of
    data and template is scored by classifiers that were trained on the other folds. Both are treated alike, so that
    the template shows what a cut leaves of the background.

    Other events are scored by the classifiers of all folds. This mean over the folds makes their scores a little
    better than those of data and template.

    Attributes:
        data_members: ``[E, N]``, log-ratio of each data event in each member of the ensemble.
        template_members: ``[E, M]``, of each template event.
        data_fold, template_fold: ``[N]`` and ``[M]``, the fold of each event, from 0 on.
        also_members: ``[E, n]`` of each further sample, by its name: the mean over the folds.
        data_weights: ``[N]``; None: each event counts once.
        template_weights: ``[M]``, or ``[E, M]`` for each member; None: each event counts once.
        names, units: of the columns that the classifiers take.
        settings: how the scores were made, in JSON types.
        classifiers: of each fold, the members of the ensemble, each with ``log_ratio(events)``.
    """

    data_members: Array
    template_members: Array
    data_fold: NDArray[np.int64]
    template_fold: NDArray[np.int64]
    also_members: Mapping[str, Array]
    data_weights: Array | None
    template_weights: Array | None
    names: tuple[str, ...]
    units: tuple[str, ...]
    settings: dict[str, Any]
    classifiers: tuple[tuple[Any, ...], ...]

    @property
    def data(self) -> Array:
        """Score of each data event, ``[N]``."""
        return self.data_members.mean(0)

    @property
    def template(self) -> Array:
        """Score of each template event, ``[M]``."""
        return self.template_members.mean(0)

    @property
    def data_spread(self) -> Array:
        """Standard deviation of the log-ratios over the ensemble, ``[N]``; NaN for a single member."""
        return _spread(self.data_members)

    @property
    def template_spread(self) -> Array:
        """Standard deviation of the log-ratios over the ensemble, ``[M]``; NaN for a single member."""
        return _spread(self.template_members)

    @property
    def also(self) -> dict[str, Array]:
        """Scores ``[n]`` of the further samples, by their names."""
        return {name: members.mean(0) for name, members in self.also_members.items()}

    def of(self, events: EventsLike) -> Array:
        """Scores ``[n]`` of other events: the mean over all folds and members.

        Raises:
            ValueError: other columns or units than those of the data.
        """
        return self.members_of(events).mean(0)

    def members_of(self, events: EventsLike) -> Array:
        """Log-ratios ``[E, n]`` of other events in each member of the ensemble: the mean over all folds.

        Raises:
            ValueError: other columns or units than those of the data.
        """
        columns = EventSample(np.zeros((1, len(self.names))), self.names, self.units)
        sample = checked("events", events, columns, "the data")
        folds = [_log_ratios(members, sample) for members in self.classifiers]
        return np.mean(folds, axis=0)

    def _summary(self) -> str:
        (ensemble, n), m = self.data_members.shape, self.template_members.shape[1]
        return f"{n:,} data and {m:,} template events, {len(self.classifiers)} folds, {ensemble} members"


@door(
    method=METHODS,
    folds=whole(2),
    ensemble=whole(1),
    template_weights=optional(array(1, 2)),
    also=optional(MAPPING),
    seed=SEED,
    progress=BOOLEAN,
)
@chosen_threads()
def anomaly_scores(
    data: EventsLike,
    template: EventsLike,
    *,
    method: str | Learner | Sequence[Learner] = "trees",
    folds: int = 5,
    ensemble: int = 10,
    template_weights: ArrayLike | None = None,
    also: Mapping[str, EventsLike] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Scores:
    """Score data events against a template of the background: log p_data(x) / p_template(x).

    Where the template is the background, this is log(1 - f + f p_signal / p_background) with f the fraction of signal:
    it grows with p_signal / p_background, the optimal score, and no label is needed.

    Data and template are split into folds. The events of each fold are scored by an ensemble of classifiers that were
    trained on all other folds, whose log-ratios are averaged. The members differ by their seed, that is by the events
    that they leave out to watch the loss, and for networks by the start too. Both classes have the same total weight in
    each training, so that the sizes of the samples do not count.

    Args:
        data: events of the signal region ``[N, d]``: the features alone, without the mass. Weights count.
        template: events of the background ``[M, d]`` in the same columns and units. Weights count.
        method: ``"trees"`` (extra ``trees``), ``"network"``, ``"both"`` (an ensemble of each), or settings:
            :class:`~pyrogen.diagnostics.Trees`, :class:`~pyrogen.diagnostics.Network`, or a sequence of them.
        folds: K; classifiers are trained on the fraction 1 - 1/K of the events.
        ensemble: number of trainings E in each fold, of each method.
        template_weights: ``[M]``, or ``[E, M]`` with other weights for each member of the ensemble, such as the ratios
            of the densities of E posterior draws. The spread over the ensemble then contains that of the template.
        also: further samples by name that are scored only, such as labelled test events or sideband events.
        seed: the same seed gives the same bits on one thread. Global random numbers are not touched.
        progress: show a progress bar.

    Raises:
        ValueError: other columns or units than those of the data; a column that is constant, or in which data and
            template have nothing in common; too few events for the folds; weights that are negative, of another shape,
            or given twice; copies of events, or events that are in both samples.
        ImportError: scikit-learn is missing.
        TrainingDivergedError: a loss that is not finite.
    """
    own = checked("data", data)
    samples = {"data": own, "template": checked("template", template, own)}
    check_variables(samples, overlap=True)
    others = {name: checked(f"also[{name!r}]", each, own) for name, each in (also or {}).items()}
    weights = weights_of_members("template", samples["template"], template_weights, ensemble)
    learners = METHODS("method", method)  # a default does not pass the door
    return cross_fit(samples, learners, folds, ensemble, weights, others, seed, progress)


def cross_fit(
    samples: dict[str, EventSample],
    learners: Sequence[Learner],
    folds: int,
    ensemble: int,
    weights: Array | None,
    also: Mapping[str, EventSample],
    seed: int,
    progress: bool,
) -> Scores:
    """Scores of two checked samples, of which the first takes the place of the data; errors use their names.

    ``weights`` are those of the second sample, ``[M]`` or one row for each member of the ensemble.
    """
    check_independent(samples)
    (first, data), (second, template) = samples.items()
    each_alike = weights is None or weights.ndim == 1
    rows = [weights] if weights is None or weights.ndim == 1 else list(weights)
    templates = [with_weights(template, row) for row in rows]
    data_fold = assign_folds(first, data, folds, stream(seed, "scores", "data"))
    template_fold = [assign_folds(second, one, folds, stream(seed, "scores", "template")) for one in templates][0]
    smallest = {first: int((data_fold != 0).sum()), second: int((template_fold != 0).sum())}
    for learner in learners:
        learner.check(smallest, {first: data, second: template})
    binned = Bins(np.concatenate([data.values, template.values]))
    members = len(learners) * ensemble
    scores = np.full((members, len(data)), np.nan), np.full((members, len(template)), np.nan)
    further = {name: np.zeros((members, len(sample))) for name, sample in also.items()}
    classifiers: list[list[Any]] = []
    with bar(folds * members, "scores", "training", show=progress) as shown:
        for k in range(folds):
            classifiers.append([])
            own = data[data_fold == k], template[template_fold == k]
            rest = data[data_fold != k]
            for m in range(members):
                learner, e = learners[m // ensemble], m % ensemble
                turn = templates[0 if each_alike else e][template_fold != k]
                seen = binned if isinstance(learner, Trees) else None
                trained = learner.train(rest, turn, seen, stream(seed, "scores", k, m), None)
                classifiers[k].append(trained)
                for table, fold, events in zip(scores, (data_fold, template_fold), own, strict=True):
                    table[m, fold == k] = np.asarray(trained.log_ratio(events))
                for name, sample in also.items():
                    further[name][m] += np.asarray(trained.log_ratio(sample)) / folds
                shown.update()
    return Scores(
        data_members=scores[0],
        template_members=scores[1],
        data_fold=data_fold,
        template_fold=template_fold,
        also_members=further,
        data_weights=None if data.weights is None else np.asarray(data.weights, dtype=np.float64),
        template_weights=weights,
        names=data.names,
        units=data.units,
        settings={
            "methods": [learner.describe() for learner in learners],
            "folds": folds,
            "ensemble": ensemble,
            "seed": seed,
        },
        classifiers=tuple(tuple(each) for each in classifiers),
    )


class Bins:
    """Columns as numbers of bins of equal population, which are made once of both samples, whatever their labels.

    Trees sort every column into 255 such bins anyway. For weighted events scikit-learn takes most of the time of a
    training to find them, and no time where they are there.
    """

    def __init__(self, values: NDArray[Any]) -> None:
        share = np.linspace(0, 1, BINS + 1)[1:-1]
        self.edges = [torch.from_numpy(np.unique(np.quantile(column, share))) for column in values.T]

    def __call__(self, events: Tensor) -> Tensor:
        columns = zip(self.edges, events.T, strict=True)
        return torch.stack([torch.searchsorted(edges, column.contiguous()) for edges, column in columns], 1).double()


def _log_ratios(members: Sequence[Any], sample: EventSample) -> Array:
    return np.stack([np.asarray(each.log_ratio(sample)) for each in members])


def _spread(members: Array) -> Array:
    return members.std(0, ddof=1) if len(members) > 1 else np.full(members.shape[1], np.nan)
