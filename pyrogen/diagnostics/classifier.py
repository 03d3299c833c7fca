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
from torch.nn.functional import softplus

from pyrogen.checks import BOOLEAN, FRACTION, FUNCTION, HIDDEN, POSITIVE, SEED, check_settings, door, optional, whole
from pyrogen.classifier import Classifier, Features
from pyrogen.diagnostics.classifier_samples import checked_samples, part_size, random_split, variables
from pyrogen.diagnostics.roc import roc_auc
from pyrogen.events import EventSample, EventsLike
from pyrogen.inference.problems import TrainingDivergedError
from pyrogen.printing import Brief
from pyrogen.progress import bar
from pyrogen.schedules import learning_rate_factor
from pyrogen.seeds import seeded, stream
from pyrogen.signals import load_optimizers
from pyrogen.threads import chosen_threads

Array = NDArray[np.float64]

MIN_EPOCHS, MIN_STEPS = 20, 3_000  # of a training, where the epochs are not given
VALIDATION = 0.2  # fraction of the training events that choose the epoch


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


@door(trainings=whole(1), held_out=FRACTION, seed=SEED, progress=BOOLEAN)
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
    training = _Training(features, hidden, epochs, batch_size, lr)
    samples = checked_samples(truth, generated, features)
    splits = []  # all of them before the first training: what is wrong with one shows at once
    for r in range(trainings):
        generator = torch.Generator().manual_seed(stream(seed, "classifier", r, "split"))
        splits.append([random_split(name, sample, held_out, "held-out", generator) for name, sample in samples.items()])
        for name, (rest, _) in zip(samples, splits[-1], strict=True):
            part_size(name, len(rest), training.validation, "validation")

    aucs, errors, classifiers, sizes = [], [], [], (0, 0)
    for r, split in enumerate(splits):
        (true, true_test), (fake, fake_test) = (
            [sample[part.numpy()] for part in parts] for sample, parts in zip(samples.values(), split, strict=True)
        )
        label = f"classifier {r + 1}/{trainings}"
        classifier = training.run(true, fake, stream(seed, "classifier", r, "training"), label if progress else None)
        true_scores, fake_scores = (classifier.log_ratio(sample).numpy() for sample in (true_test, fake_test))
        auc, error = roc_auc(true_scores, fake_scores, true_test.weights, fake_test.weights)
        aucs.append(auc)
        errors.append(error)
        classifiers.append(classifier)
        sizes = len(true_test), len(fake_test)
    return ClassifierResult(np.array(aucs), np.array(errors), tuple(classifiers), sizes)


@door(seed=SEED, progress=BOOLEAN)
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
    validation: float = VALIDATION,
    seed: int = 0,
    progress: bool = True,
) -> Classifier:
    """Train a classifier between true and generated events, by binary cross-entropy and Adam.

    Weights are scaled so that both classes have the same total: the logit is log p_truth / p_generated for any sizes
    of the samples. The learning rate falls to zero as a cosine, and of all epochs the one with the smallest
    cross-entropy of the validation events is kept.

    Args:
        truth: events ``[N, d]``: a tensor, an array or an :class:`~pyrogen.EventSample`, whose weights count.
        generated: events ``[M, d]``.
        features: as in :class:`Classifier`.
        hidden: widths of the layers.
        epochs: passes over the training events; by default 20, or as many as make 3,000 steps.
        batch_size: events of a step, of both classes.
        lr: learning rate at the start.
        validation: fraction of each sample that chooses the epoch.
        seed: seeds split, network and batches.
        progress: show a progress bar.

    Raises:
        ValueError, TrainingDivergedError: as in :func:`classifier_test`.
    """
    training = _Training(features, hidden, epochs, batch_size, lr, validation)
    samples = checked_samples(truth, generated, features)
    return training.run(samples["truth"], samples["generated"], seed, "classifier" if progress else None)


@dataclass(frozen=True)
class _Training:
    """Checked settings of a training, and the training."""

    features: Features | None
    hidden: Sequence[int]
    epochs: int | None
    batch_size: int
    lr: float
    validation: float = VALIDATION

    def __post_init__(self) -> None:
        check_settings(
            self,
            features=optional(FUNCTION),
            hidden=HIDDEN,
            epochs=optional(whole(1)),
            batch_size=whole(1),
            lr=POSITIVE,
            validation=FRACTION,
        )

    def run(self, truth: EventSample, generated: EventSample, seed: int, label: str | None) -> Classifier:
        """Train on checked events; ``label`` is that of the progress bar, None for none."""
        with seeded(stream(seed, "classifier")):
            samples = {"truth": truth, "generated": generated}
            splits = [random_split(name, sample, self.validation, "validation") for name, sample in samples.items()]
            seen = [variables(name, sample, self.features) for name, sample in samples.items()]
            missing = torch.cat(seen).isnan().any(0).nonzero()[:, 0].tolist()
            classifier = Classifier(seen[0].shape[1], self.hidden, self.features, missing)
            classifier.columns = truth.names
            classifier._fit_scales(torch.cat([x[rows] for x, (rows, _) in zip(seen, splits, strict=True)]))
            training, validation = (
                _Labelled.join(classifier, samples, seen, [split[part] for split in splits]) for part in (0, 1)
            )
            self._descend(classifier, training, validation, label)
        return classifier.eval().requires_grad_(False)

    def _descend(self, classifier: Classifier, training: _Labelled, validation: _Labelled, label: str | None) -> None:
        size = len(training.signs)
        steps = math.ceil(size / self.batch_size)
        epochs = max(MIN_EPOCHS, math.ceil(MIN_STEPS / steps)) if self.epochs is None else self.epochs
        total = epochs * steps
        load_optimizers()
        optimizer = torch.optim.Adam(classifier.network.parameters(), lr=self.lr)
        history: dict[str, list[float]] = {"loss": [], "validation_loss": []}
        best, best_loss = classifier.network.state_dict(), math.inf
        with bar(total, label or "", "step", show=label is not None, brief=True) as shown:
            for epoch in range(epochs):
                loss_sum = 0.0
                for i, rows in enumerate(torch.randperm(size).tensor_split(steps)):
                    factor = learning_rate_factor("cosine", epoch * steps + i, total, 0)
                    optimizer.param_groups[0]["lr"] = self.lr * factor
                    loss = training.loss(classifier, rows)
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()
                    optimizer.step()
                    loss_sum += float(loss.detach())
                    shown.update()
                with torch.no_grad():
                    latest = float(validation.loss(classifier))
                if not math.isfinite(latest + loss_sum):
                    raise TrainingDivergedError(
                        f"the classifier's loss is {loss_sum / steps:.6g} in epoch {epoch + 1}, and that of its "
                        f"validation events {latest:.6g}; try a smaller lr (now {self.lr})"
                    )
                history["loss"].append(loss_sum / steps)
                history["validation_loss"].append(latest)
                shown.set_postfix_str(f"epoch {epoch + 1}/{epochs}, validation loss {latest:.4f}", refresh=False)
                if latest < best_loss:
                    best_loss, classifier.kept_epoch = latest, epoch + 1
                    best = {name: value.clone() for name, value in classifier.network.state_dict().items()}
        classifier.network.load_state_dict(best)
        classifier.history = {name: np.array(values) for name, values in history.items()}


@dataclass(frozen=True)
class _Labelled:
    """Events of both classes as the network sees them ``[N, k]``, +1 for true and -1 for generated ones, weights."""

    inputs: Tensor
    signs: Tensor
    weights: Tensor

    @classmethod
    def join(
        cls, classifier: Classifier, samples: dict[str, EventSample], seen: list[Tensor], rows: list[Tensor]
    ) -> _Labelled:
        size = sum(map(len, rows))
        inputs, signs, weights = [], [], []
        for sign, sample, x, its in zip((1.0, -1.0), samples.values(), seen, rows, strict=True):
            inputs.append(classifier._scaled(x[its]))
            signs.append(torch.full((len(its),), sign))
            w = torch.tensor(np.ones(len(sample)) if sample.weights is None else sample.weights)[its]
            weights.append((w * (size / 2 / w.sum())).float())  # mean one, and the same total for both classes
        return cls(torch.cat(inputs), torch.cat(signs), torch.cat(weights))

    def loss(self, classifier: Classifier, rows: Tensor | None = None) -> Tensor:
        """Weighted binary cross-entropy of some of the events, or all."""
        inputs, signs, weights = self.inputs, self.signs, self.weights
        if rows is not None:
            inputs, signs, weights = inputs[rows], signs[rows], weights[rows]
        return (weights * softplus(-signs * classifier.logit(inputs))).mean()
