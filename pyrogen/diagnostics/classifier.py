"""Can a classifier tell generated events from true ones? AUC 0.5: it can not (arXiv:2305.16774)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrogen.checks import BOOLEAN, FRACTION, FUNCTION, SEED, door, optional, whole
from pyrogen.classifier import Classifier, Features
from pyrogen.diagnostics.classifier_samples import checked_samples, random_split
from pyrogen.diagnostics.classifier_training import VALIDATION, Network
from pyrogen.diagnostics.roc import roc_auc
from pyrogen.events import EventsLike
from pyrogen.printing import Brief
from pyrogen.seeds import stream
from pyrogen.threads import chosen_threads

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class ClassifierResult(Brief):
    """Area under the ROC curve of classifiers between truth and generated events, each trained on another split.

    Attributes:
        auc: ``[T]``, probability that a true event looks truer than a generated one, on held-out events; 0.5 for a
            perfect generator.
        error: ``[T]`` statistical error of each, of the held-out events alone, by :func:`roc_auc`.
        classifiers: the T networks.
        held_out: numbers of held-out true and generated events.
    """

    auc: Array
    error: Array
    classifiers: tuple[Classifier, ...]
    held_out: tuple[int, int]

    @property
    def mean(self) -> float:
        """AUC, mean over the trainings."""
        return float(self.auc.mean())

    @property
    def spread(self) -> float:
        """Standard deviation of the AUC over the trainings: of network, training and split; NaN for a single one."""
        return float(self.auc.std(ddof=1)) if len(self.auc) > 1 else math.nan

    @property
    def statistical(self) -> float:
        """Statistical error of one training, root mean square: that of the mean is at most this.

        The held-out events of the trainings overlap, so that it does not fall with the square root of T.
        """
        return float(np.sqrt(np.mean(self.error**2)))

    def log_ratio(self, events: EventsLike) -> Tensor:
        """log p_truth(x) / p_generated(x), ``[N]``: mean over the classifiers."""
        return torch.stack([classifier.log_ratio(events) for classifier in self.classifiers]).mean(0)

    def weights(self, events: EventsLike) -> Tensor:
        """``w = C / (1 - C) = p_truth / p_generated`` at each event, ``[N]``; weights of the events do not enter.

        Each classifier knows those events of the test that it was trained on: histograms of w are for other ones.
        """
        return self.log_ratio(events).exp()

    def _summary(self) -> str:
        return self.text().removeprefix("classifier ")

    def text(self) -> str:
        """One line."""
        count = len(self.auc)
        several = f" +- {self.spread:.4f} (spread of {count} trainings)" if count > 1 else ""
        return (
            f"classifier AUC {self.mean:.4f} +- {self.statistical:.4f} (statistics){several} on "
            f"{self.held_out[0]:,} true and {self.held_out[1]:,} generated held-out events"
        )


@door(features=optional(FUNCTION), trainings=whole(1), held_out=FRACTION, seed=SEED, progress=BOOLEAN)
@chosen_threads()
def classifier_test(
    truth: Any,
    generated: Any,
    *,
    features: Features | None = None,
    trainings: int = 3,
    hidden: Sequence[int] = (64, 64, 64),
    epochs: int | None = None,
    batch_size: int = 1024,
    lr: float = 1e-3,
    held_out: float = 0.5,
    seed: int = 0,
    progress: bool = True,
) -> ClassifierResult:
    """How well a classifier tells generated events from true ones, on events it was not trained on.

    A learned classifier is at most as good as the best one: 0.5 means that this one found no difference in that many
    events. For truth give events that the generator was not trained on.

    Args:
        truth: events ``[N, d]``: a tensor, an array or an :class:`~pyrogen.EventSample`, whose weights count. Single
            weights may be negative.
        generated: events ``[M, d]``.
        features: as in :class:`Classifier`, NaN where an event of a varying number of objects does not have one;
            observables with sharp structures, such as a mass, help it to see them.
        trainings: number T of trainings, each from another start and with other held-out events.
        hidden, epochs, batch_size, lr: as in :func:`train_classifier`.
        held_out: fraction of each sample that the AUC is evaluated on.
        seed: the same seed gives the same bits on one thread. Global random numbers are not touched.
        progress: show a progress bar.

    Raises:
        ValueError: empty samples, numbers that are not finite, too few events, different columns, weights without
            positive sum, or settings out of range.
        TrainingDivergedError: a loss that is not finite.
    """
    network = Network(hidden=hidden, epochs=epochs, batch_size=batch_size, lr=lr)
    samples = checked_samples(truth, generated, features)
    splits = []  # all of them before the first training: what is wrong with one shows at once
    for r in range(trainings):
        generator = torch.Generator().manual_seed(stream(seed, "classifier", r, "split"))
        splits.append([random_split(name, sample, held_out, "held-out", generator) for name, sample in samples.items()])
        network.check({name: len(rest) for name, (rest, _) in zip(samples, splits[-1], strict=True)}, samples)

    aucs, errors, classifiers, sizes = [], [], [], (0, 0)
    for r, split in enumerate(splits):
        (true, true_test), (fake, fake_test) = (
            [sample[part.numpy()] for part in parts] for sample, parts in zip(samples.values(), split, strict=True)
        )
        label = f"classifier {r + 1}/{trainings}"
        own = stream(seed, "classifier", r, "training")
        classifier = network.train(true, fake, features, own, label if progress else None)
        true_scores, fake_scores = (classifier.log_ratio(sample).numpy() for sample in (true_test, fake_test))
        auc, error = roc_auc(true_scores, fake_scores, true_test.weights, fake_test.weights)
        aucs.append(auc)
        errors.append(error)
        classifiers.append(classifier)
        sizes = len(true_test), len(fake_test)
    return ClassifierResult(np.array(aucs), np.array(errors), tuple(classifiers), sizes)


@door(features=optional(FUNCTION), seed=SEED, progress=BOOLEAN)
@chosen_threads()
def train_classifier(
    truth: Any,
    generated: Any,
    *,
    features: Features | None = None,
    hidden: Sequence[int] = (64, 64, 64),
    epochs: int | None = None,
    batch_size: int = 1024,
    lr: float = 1e-3,
    dropout: float = 0.0,
    schedule: str = "cosine",
    validation: float = VALIDATION,
    seed: int = 0,
    progress: bool = True,
) -> Classifier:
    """Train a classifier between true and generated events, by binary cross-entropy and Adam.

    Weights are scaled so that both classes have the same total: the logit is log p_truth / p_generated for any sizes
    of the samples. Of all epochs the one with the smallest cross-entropy of the validation events is kept.

    Args:
        truth: events ``[N, d]``: a tensor, an array or an :class:`~pyrogen.EventSample`, whose weights count.
        generated: events ``[M, d]``.
        features: as in :class:`Classifier`.
        hidden, epochs, batch_size, lr, dropout, schedule: as in :class:`Network`.
        validation: fraction of each sample that chooses the epoch.
        seed: seeds split, network and batches.
        progress: show a progress bar.

    Raises:
        ValueError, TrainingDivergedError: as in :func:`classifier_test`.
    """
    network = Network(
        hidden=hidden,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        dropout=dropout,
        schedule=schedule,
        validation=validation,
    )
    samples = checked_samples(truth, generated, features)
    label = "classifier" if progress else None
    return network.train(samples["truth"], samples["generated"], features, seed, label)
