"""Event weights from a classifier: generated events that count as often as true ones would."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pyrogen.checks import POSITIVE, door, having, instance
from pyrogen.classifier import Classifier
from pyrogen.diagnostics.classifier import ClassifierResult
from pyrogen.events import EventSample
from pyrogen.printing import Brief


@dataclass(frozen=True, eq=False, repr=False)
class Reweighted(Brief):
    """What :func:`reweight` made.

    Attributes:
        events: the generated events with their new weights; ``log_weights`` and all else are as before.
        effective_size: ``(sum w)^2 / sum w^2`` of the new weights.
        before: that of the weights before.
        clipped: number of events whose ratio was set to the largest one allowed.
        clipped_share: what these events carry of the sum of all weights.
    """

    events: EventSample
    effective_size: float
    before: float
    clipped: int
    clipped_share: float

    def text(self) -> str:
        """One line."""
        return (
            f"{len(self.events):,} events reweighted by a classifier: worth {self.effective_size:,.0f} events "
            f"({self.effective_size / self.before:.1%} of before), {self.clipped:,} ratios clipped, which carry "
            f"{self.clipped_share:.2%} of the weight"
        )


@door(
    classifier=having("a trained classifier, as of train_classifier or classifier_test", "log_ratio"),
    generated=instance(EventSample, "a pg.EventSample", {"Tensor": "make one with pg.EventSample(events)"}),
    largest=POSITIVE,
)
def reweight(
    classifier: Classifier | ClassifierResult, generated: EventSample, *, largest: float = 100.0
) -> Reweighted:
    """Multiply the weights of generated events by ``w = D/(1-D) = p_truth / p_generated`` of a classifier.

    Histograms of the result are those of the truth, as far as the classifier knows the ratio of the densities. The sum
    of the weights is kept. ``log_weights`` stay as they are: a histogram with ``weights * exp(log_weights[:, k])`` is
    that of draw k of the posterior times w. So the band of the posterior survives; it knows nothing of the error of the
    classifier. Where the generator has no events, weights cannot make any.

    Args:
        classifier: trained on true events and on generated ones of the same generator, best on others than these.
        generated: events ``[N, d]``, an :class:`~pyrogen.EventSample`; its weights count.
        largest: ratios above are set to this: one event with a huge weight ruins a histogram.

    Raises:
        ValueError: a ratio that is not finite.
    """
    ratio = classifier.log_ratio(generated).exp().double().numpy()
    if not np.isfinite(ratio).all():
        raise ValueError(
            f"the classifier's ratio is {ratio[~np.isfinite(ratio)][0]} at event {np.argmin(np.isfinite(ratio))}"
        )
    clipped = ratio > largest
    own = np.ones(len(generated)) if generated.weights is None else generated.weights
    weights = own * ratio.clip(max=largest)
    weights = weights * (own.sum() / weights.sum())
    events = EventSample(generated, weights=weights)
    share = float(weights[clipped].sum() / weights.sum())
    return Reweighted(events, events.effective_size, generated.effective_size, int(clipped.sum()), share)
