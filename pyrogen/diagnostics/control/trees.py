"""Gradient-boosted trees between two samples: scikit-learn's, which need no tuning (extra ``trees``)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrogen.checks import FRACTION, NOT_NEGATIVE, POSITIVE, check_settings, require_extra, whole
from pyrogen.classifier import Features
from pyrogen.diagnostics.classifier_samples import part_size, variables
from pyrogen.events import EventSample
from pyrogen.printing import Brief, Shown
from pyrogen.seeds import stream


@dataclass(frozen=True, kw_only=True, repr=False)
class Trees(Brief):
    """Settings of gradient-boosted trees, scikit-learn's ``HistGradientBoostingClassifier`` (extra ``trees``).

    They sort every variable into 255 bins of equal population. They do not resolve what is narrower than such a bin,
    for example a sharp peak in a variable of long tails. Where an event does not have a variable (NaN), they learn on
    which side it goes. They cannot take negative weights.

    Attributes:
        iterations: most trees, one after the other.
        lr: shrinkage of each tree.
        leaves: most leaves of a tree.
        smallest_leaf: fewest events of a leaf.
        l2: ridge penalty on the leaves.
        validation: fraction of the training events on which the loss is watched.
        patience: the training stops after so many trees without a better loss; these last trees stay. 0: never.
    """

    iterations: int = 300
    lr: float = 0.1
    leaves: int = 15
    smallest_leaf: int = 50
    l2: float = 0.0
    validation: float = 0.2
    patience: int = 5

    def __post_init__(self) -> None:
        check_settings(
            self,
            iterations=whole(1),
            lr=POSITIVE,
            leaves=whole(2),
            smallest_leaf=whole(1),
            l2=NOT_NEGATIVE,
            validation=FRACTION,
            patience=whole(0),
        )

    def describe(self) -> dict[str, Any]:
        """The settings in JSON types."""
        return {"method": "trees"} | asdict(self)

    def check(self, sizes: dict[str, int], samples: dict[str, EventSample]) -> None:
        """Raise an error where scikit-learn is missing, or the events cannot be learned from.

        Raises:
            ImportError: scikit-learn is missing.
            ValueError: too few events, or negative weights.
        """
        require_extra("sklearn", "trees", 'method="trees"')
        for name, size in sizes.items():
            part_size(name, size, self.validation, "validation")
        for name, sample in samples.items():
            negative = 0 if sample.weights is None else int((sample.weights < 0).sum())
            if negative:
                raise ValueError(
                    f"{name} has {negative:,} negative weights of {len(sample):,}, which trees cannot learn from; "
                    'use method="network"'
                )

    def train(
        self,
        truth: EventSample,
        generated: EventSample,
        features: Features | None,
        seed: int,
        label: str | None,
        missing: Iterable[int] = (),
    ) -> TreeClassifier:
        """Train on checked events; arguments as in :meth:`Network.train`. There is no progress bar."""
        require_extra("sklearn", "trees", 'method="trees"')
        from sklearn.ensemble import HistGradientBoostingClassifier

        samples = {"truth": truth, "generated": generated}
        seen = [variables(name, sample, features).numpy() for name, sample in samples.items()]
        weights = []
        for sample in samples.values():
            w = np.ones(len(sample)) if sample.weights is None else sample.weights
            weights.append(w * ((len(truth) + len(generated)) / 2 / w.sum()))  # the same total for both classes
        model = HistGradientBoostingClassifier(
            learning_rate=self.lr,
            max_iter=self.iterations,
            max_leaf_nodes=self.leaves,
            min_samples_leaf=self.smallest_leaf,
            l2_regularization=self.l2,
            early_stopping=self.patience > 0,
            validation_fraction=self.validation,
            n_iter_no_change=max(self.patience, 1),
            random_state=stream(seed, "trees") % 2**32,
        )
        labels = np.repeat([1, 0], [len(truth), len(generated)])
        with _on_the_same_threads():
            model.fit(np.concatenate(seen), labels, sample_weight=np.concatenate(weights))
        return TreeClassifier(model, features)


class TreeClassifier(Shown):
    """Trained trees; their raw score is the log-ratio of the densities.

    Attributes:
        history: ``loss`` and, where it was watched, ``validation_loss`` after each tree, in nats per event of equally
            frequent classes: log 2 = 0.693 is that of a guess.
        kept_epoch: number of trees.
    """

    def __init__(self, model: Any, features: Features | None) -> None:
        self.model, self.features = model, features
        scores = {"loss": model.train_score_, "validation_loss": model.validation_score_}
        self.history: dict[str, NDArray[np.float64]] = {
            name: -np.asarray(its, dtype=np.float64)[1:] for name, its in scores.items() if len(its)
        }
        self.kept_epoch = int(model.n_iter_)

    def __repr__(self) -> str:
        return f"TreeClassifier({self.kept_epoch} trees)"

    def log_ratio(self, events: EventSample) -> Tensor:
        """log p_truth(x) / p_generated(x), ``[N]`` in float64."""
        sample = events if isinstance(events, EventSample) else EventSample(events)
        with _on_the_same_threads():
            return torch.from_numpy(self.model.decision_function(variables("events", sample, self.features).numpy()))


def _on_the_same_threads() -> Any:
    """A block in which scikit-learn computes on as many threads as torch."""
    require_extra("threadpoolctl", "trees", 'method="trees"')
    from threadpoolctl import threadpool_limits

    return threadpool_limits(torch.get_num_threads(), user_api="openmp")
