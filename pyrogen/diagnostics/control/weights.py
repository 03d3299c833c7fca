"""Weights p_data / p_model of every event by cross-fitting: no classifier scores an event that it was trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pyrogen.checks import BOOLEAN, FRACTION, FUNCTION, SEED, dictionary, door, optional, require, whole
from pyrogen.classifier import Features
from pyrogen.diagnostics.classifier_samples import checked_samples
from pyrogen.diagnostics.classifier_training import Network
from pyrogen.diagnostics.control.inputs import Inputs, assign_folds, check_independent, check_not_trained_on, check_tail
from pyrogen.diagnostics.control.result import ClassifierWeights, Trainings
from pyrogen.diagnostics.control.trees import Trees
from pyrogen.diagnostics.roc import roc_auc
from pyrogen.events import EventSample, EventsLike
from pyrogen.seeds import stream
from pyrogen.threads import chosen_threads

Array = NDArray[np.float64]


class Learner(Protocol):
    """What trains a classifier: :class:`Network`, :class:`Trees`, or something of a user's own."""

    def check(self, sizes: dict[str, int], samples: dict[str, EventSample]) -> None:
        """Raise an error where parts of these sizes cannot be learned from."""

    def describe(self) -> dict[str, Any]:
        """Its settings in JSON types, ``method`` among them."""

    def train(
        self,
        truth: EventSample,
        generated: EventSample,
        features: Features | None,
        seed: int,
        label: str | None,
        missing: tuple[int, ...] = (),
    ) -> Any:
        """A classifier with ``log_ratio(events) -> [n]``, ``history`` and ``kept_epoch``, see :class:`Network`."""


def METHOD(name: str, value: Any) -> Learner:
    if isinstance(value, str):
        require(value in ("network", "trees"), name, value, '"network", "trees", or settings: Network(...), Trees(...)')
        return Network() if value == "network" else Trees()
    if isinstance(value, type) or not all(hasattr(value, part) for part in ("check", "describe", "train")):
        raise TypeError(
            f'{name} is {value!r:.80}; it must be "network", "trees", or settings: Network(...), Trees(...)'
        )
    return value


@door(
    observables=optional(dictionary(FUNCTION, 'functions of events by name, such as {"M": f}')),
    features=optional(FUNCTION),
    method=METHOD,
    folds=whole(2),
    ensemble=whole(1),
    tail=optional(FRACTION),
    seed=SEED,
    progress=BOOLEAN,
)
@chosen_threads()
def classifier_weights(
    truth: Any,
    generated: Any,
    *,
    observables: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
    features: Features | None = None,
    method: str | Learner = "network",
    folds: int = 2,
    ensemble: int = 2,
    control: bool | EventsLike = True,
    trained_on: Any = None,
    tail: float | None = None,
    seed: int = 0,
    progress: bool = True,
) -> ClassifierWeights:
    """Weights w(x) = p_data(x) / p_model(x) of every event of both samples, and whether to believe them [C].

    Cross-fitting: both samples are split into folds, and the events of each fold are scored by classifiers that were
    trained on all other folds. So all events have a weight, and none from a classifier that has seen it. Events that
    are in a sample several times, or in both, would break that: give independent ones.

    **Control.** The same is done with two halves of the true events, of which no difference is right: its AUC and the
    width of its log w are the floor below which nothing means anything. A half has fewer events than the samples have,
    so that its floor is too high: :attr:`ClassifierWeights.floor` scales it.

    Args:
        truth: events ``[N, d]`` that the generator was not trained on: a tensor, an array or an
            :class:`~pyrogen.EventSample`, whose weights count. Single weights may be negative for networks, not for
            trees.
        generated: events ``[M, d]``.
        observables: functions of events ``[n, d]`` (a float64 tensor) to values ``[n]``, by name, which the classifier
            sees besides the columns: a mass with a sharp peak, say. NaN where an event of a varying number of objects
            does not have one.
        features: what the classifier sees in place of the columns, as in :class:`Classifier`.
        method: ``"network"``, ``"trees"`` (extra ``trees``), or their settings: :class:`Network` (``Network.paper()``
            is table 1 of [C]), :class:`Trees`.
        folds: K of the cross-fitting; classifiers are trained on the fraction 1 - 1/K of the events.
        ensemble: number of trainings in each fold, whose log w are averaged.
        control: True for halves of the truth, false for no control; or further true events, against which all of the
            truth is held. It takes as long again.
        trained_on: the training events of the generator, or its posterior: the truth must not be among them. Of
            generated events that tell in their provenance what they come from, this is checked in any case.
        tail: a fraction of the events that has to be large enough to be seen: ten events of it in each sample.
        seed: the same seed gives the same bits on one thread. Global random numbers are not touched.
        progress: show a progress bar for each training.

    Raises:
        ValueError: what :func:`classifier_test` refuses; truth among the training events; events that are in both
            samples; variables that are constant over both samples; fewer events than folds or tail need; negative
            weights for trees.
        ImportError: scikit-learn is missing.
        TrainingDivergedError: a loss that is not finite.
    """
    learner = METHOD("method", method)  # a default does not pass the door
    plan = Plan(Inputs(features, observables or {}), learner, folds, ensemble, progress)
    samples = checked_samples(truth, generated, features)
    check_not_trained_on(samples["truth"], samples["generated"], trained_on)
    check_tail(samples, tail)
    prepared = plan.prepare(samples, stream(seed, "weights"), "classifier")
    check_independent(samples)
    others = None
    if _wanted(control):
        pair = _control_samples(samples["truth"], control, stream(seed, "weights", "control"))
        try:
            others = plan.prepare(pair, stream(seed, "weights", "control", "folds"), "control")
        except ValueError as error:
            raise ValueError(f"of true against true events, for the control: {error}; or control=False") from error
    found = prepared()
    return found if others is None else replace(found, control=others())


def _wanted(control: Any) -> bool:
    return bool(control) if isinstance(control, bool | np.bool_) else True


def _control_samples(truth: EventSample, control: Any, seed: int) -> dict[str, EventSample]:
    """The two true samples, called as those of the test."""
    if not isinstance(control, bool | np.bool_):
        try:
            pair = checked_samples(truth, control, None)
            check_independent({"truth": truth, "control": pair["generated"]})
            return pair
        except (ValueError, TypeError) as error:
            raise type(error)(f"control: {str(error).replace('generated', 'control')}") from error
    half = assign_folds("truth, for the control,", truth, 2, seed)
    return {"truth": truth[half == 0], "generated": truth[half == 1]}


class Plan:
    """What is done with two samples; all checks come before the first training."""

    def __init__(self, inputs: Inputs, method: Learner, folds: int, ensemble: int, progress: bool) -> None:
        self.inputs, self.method, self.folds, self.ensemble = inputs, method, folds, ensemble
        self.progress = progress

    def prepare(self, samples: dict[str, EventSample], seed: int, label: str) -> Callable[[], ClassifierWeights]:
        """Check the samples; what is returned does the work."""
        features, missing = self.inputs.checked(samples)
        folds = {
            name: assign_folds(name, each, self.folds, stream(seed, "folds", name)) for name, each in samples.items()
        }
        smallest = {name: int((fold != 0).sum()) for name, fold in folds.items()}
        self.method.check(smallest, samples)
        return lambda: self._run(samples, folds, features, missing, seed, label)

    def _run(
        self,
        samples: dict[str, EventSample],
        folds: dict[str, NDArray[np.int64]],
        features: Features | None,
        missing: tuple[int, ...],
        seed: int,
        label: str,
    ) -> ClassifierWeights:
        members = {name: np.full((self.ensemble, len(each)), np.nan) for name, each in samples.items()}
        classifiers: list[Any] = []
        for k in range(self.folds):
            rest, own = ({name: samples[name][rows] for name, rows in parts.items()} for parts in _split(folds, k))
            for e in range(self.ensemble):
                of = f"{label} {len(classifiers) + 1}/{self.folds * self.ensemble}" if self.progress else None
                own_seed = stream(seed, "fold", k, e)
                trained = self.method.train(rest["truth"], rest["generated"], features, own_seed, of, missing)
                classifiers.append(trained)
                for name, sample in own.items():
                    members[name][e, folds[name] == k] = np.asarray(trained.log_ratio(sample))
        for name, its in members.items():
            bad = np.argwhere(~np.isfinite(its))
            if len(bad):
                raise ValueError(f"the classifier's log-ratio of event {bad[0, 1]} of {name} is not finite")
        true, made = members["truth"], members["generated"]
        weights = [each.weights for each in samples.values()]
        return ClassifierWeights(
            truth=samples["truth"],
            generated=samples["generated"],
            log_w_truth=true.mean(0),
            log_w_generated=made.mean(0),
            spread_truth=_spread(true),
            spread_generated=_spread(made),
            fold_truth=folds["truth"],
            fold_generated=folds["generated"],
            trainings=Trainings(
                loss=_curves(classifiers, "loss"),
                validation_loss=_curves(classifiers, "validation_loss"),
                kept=np.array([each.kept_epoch for each in classifiers], dtype=np.int64),
                auc=np.array([roc_auc(a, b, *weights)[0] for a, b in zip(true, made, strict=True)]),
            ),
            settings=self._settings(seed),
            classifiers=tuple(classifiers),
        )

    def _settings(self, seed: int) -> dict[str, Any]:
        return self.method.describe() | {
            "folds": self.folds,
            "ensemble": self.ensemble,
            "observables": list(self.inputs.observables),
            "features": self.inputs.features is not None,
            "seed": seed,
        }


def _split(folds: dict[str, NDArray[np.int64]], k: int) -> tuple[dict[str, NDArray[np.bool_]], ...]:
    """Masks of the events of all folds but one, and of this one."""
    return {name: its != k for name, its in folds.items()}, {name: its == k for name, its in folds.items()}


def _spread(members: Array) -> Array:
    """Standard deviation over the ensemble ``[E, n]``; NaN for a single training."""
    return members.std(0, ddof=1) if len(members) > 1 else np.full(members.shape[1], np.nan)


def _curves(classifiers: list[Any], name: str) -> Array:
    """A loss of all trainings, ``[T, epochs]``, NaN behind the end of each."""
    each = [np.asarray(one.history.get(name, ())) for one in classifiers]
    table = np.full((len(each), max(map(len, each))), np.nan)
    for row, values in zip(table, each, strict=True):
        row[: len(values)] = values
    return table
