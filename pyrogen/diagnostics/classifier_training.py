"""How the network of a classifier between two samples is trained."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from pyrogen.checks import FRACTION, HIDDEN, POSITIVE, SHARE, check_settings, one_of, optional, whole
from pyrogen.classifier import Classifier, Features
from pyrogen.diagnostics.classifier_samples import part_size, random_split, variables
from pyrogen.events import EventSample
from pyrogen.inference.problems import TrainingDivergedError
from pyrogen.printing import Brief
from pyrogen.progress import bar
from pyrogen.schedules import SCHEDULES, learning_rate_factor
from pyrogen.seeds import seeded, stream
from pyrogen.signals import load_optimizers

MIN_EPOCHS, MIN_STEPS = 20, 3_000  # of a training, where the epochs are not given
VALIDATION = 0.2  # fraction of the training events that choose the epoch
PLATEAU = "plateau"


@dataclass(frozen=True, kw_only=True, repr=False)
class Network(Brief):
    """Settings of a :class:`Classifier` and of its training, by binary cross-entropy and Adam.

    The defaults are affordable on two cores. :meth:`paper` has those of arXiv:2305.16774.

    Attributes:
        hidden: widths of the layers, leaky ReLU between them.
        epochs: passes over the training events; by default 20, or as many as make 3,000 steps.
        batch_size: events of a step, of both classes.
        lr: learning rate at the start.
        dropout: fraction of the outputs of each layer set to zero at random.
        schedule: of the learning rate: ``"cosine"`` falls to zero, ``"exponential"`` to a hundredth, ``"constant"``
            stays, and ``"plateau"`` multiplies it by ``decay`` after more than ``patience`` epochs without a better
            loss of the validation events.
        decay, patience: of the schedule ``"plateau"``.
        validation: fraction of each sample that is left out of the training and chooses the epoch.
        keep: the network of the ``"best"`` epoch by the loss of the validation events, or of the ``"last"``.
    """

    hidden: Sequence[int] = (64, 64, 64)
    epochs: int | None = None
    batch_size: int = 1024
    lr: float = 1e-3
    dropout: float = 0.0
    schedule: str = "cosine"
    decay: float = 0.1
    patience: int = 5
    validation: float = VALIDATION
    keep: str = "best"

    def __post_init__(self) -> None:
        check_settings(
            self,
            hidden=HIDDEN,
            epochs=optional(whole(1)),
            batch_size=whole(1),
            lr=POSITIVE,
            dropout=SHARE,
            schedule=one_of(*SCHEDULES, PLATEAU),
            decay=FRACTION,
            patience=whole(0),
            validation=FRACTION,
            keep=one_of("best", "last"),
        )

    @classmethod
    def paper(cls) -> Self:
        """Table 1 of arXiv:2305.16774, for events: five layers of 256, dropout 10 %, 50 epochs, reduced on plateau.

        It is made for samples of 200,000 to 3 million events. A step takes about ten times as long as by default.
        The table does not say which epoch is kept; here it is the best.
        """
        return cls(hidden=(256,) * 5, epochs=50, dropout=0.1, schedule=PLATEAU)

    def describe(self) -> dict[str, Any]:
        """The settings in JSON types."""
        return {"method": "network"} | asdict(self) | {"hidden": list(self.hidden)}

    def check(self, sizes: dict[str, int], samples: dict[str, EventSample]) -> None:
        """Raise a ValueError where training parts of these ``sizes`` have too few events for this training."""
        for name, size in sizes.items():
            part_size(name, size, self.validation, "validation")

    def train(
        self,
        truth: EventSample,
        generated: EventSample,
        features: Features | None,
        seed: int,
        label: str | None,
        missing: Iterable[int] = (),
    ) -> Classifier:
        """Train on checked events.

        Args:
            truth, generated: the events.
            features: as in :class:`Classifier`.
            seed: seeds split, network and batches.
            label: of the progress bar; None for none.
            missing: variables that some events do not have, besides those that these events do not have.
        """
        with seeded(stream(seed, "classifier")):
            samples = {"truth": truth, "generated": generated}
            splits = [random_split(name, sample, self.validation, "validation") for name, sample in samples.items()]
            seen = [variables(name, sample, features) for name, sample in samples.items()]
            holes = {*missing, *torch.cat(seen).isnan().any(0).nonzero()[:, 0].tolist()}
            classifier = Classifier(seen[0].shape[1], self.hidden, features, sorted(holes), self.dropout)
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
        plateau = None
        if self.schedule == PLATEAU:
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=self.decay, patience=self.patience)
        history: dict[str, list[float]] = {"loss": [], "validation_loss": []}
        best, best_loss = classifier.network.state_dict(), math.inf
        with bar(total, label or "", "step", show=label is not None, brief=True) as shown:
            for epoch in range(epochs):
                loss_sum = 0.0
                for i, rows in enumerate(torch.randperm(size).tensor_split(steps)):
                    if plateau is None:
                        factor = learning_rate_factor(self.schedule, epoch * steps + i, total, 0)
                        optimizer.param_groups[0]["lr"] = self.lr * factor
                    loss = training.loss(classifier, rows)
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()
                    optimizer.step()
                    loss_sum += float(loss.detach())
                    shown.update()
                latest = validation.loss_without_noise(classifier)
                if not math.isfinite(latest + loss_sum):
                    raise TrainingDivergedError(
                        f"the classifier's loss is {loss_sum / steps:.6g} in epoch {epoch + 1}, and that of its "
                        f"validation events {latest:.6g}; try a smaller lr (now {self.lr})"
                    )
                if plateau is not None:
                    plateau.step(latest)
                history["loss"].append(loss_sum / steps)
                history["validation_loss"].append(latest)
                shown.set_postfix_str(f"epoch {epoch + 1}/{epochs}, validation loss {latest:.4f}", refresh=False)
                if latest < best_loss or self.keep == "last":
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

    @torch.no_grad()
    def loss_without_noise(self, classifier: Classifier) -> float:
        """That of all events, with dropout switched off."""
        classifier.eval()
        found = float(self.loss(classifier))
        classifier.train()
        return found
