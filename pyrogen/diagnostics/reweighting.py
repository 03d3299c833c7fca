"""Event weights from a classifier: generated events that count as often as true ones would."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pyrogen.checks import POSITIVE, door, having, instance, optional
from pyrogen.classifier import Classifier
from pyrogen.diagnostics.classifier import ClassifierResult
from pyrogen.diagnostics.control.inputs import same_rows
from pyrogen.diagnostics.control.result import ClassifierWeights, event_weights
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
        unclipped_size: the effective size that the ratios would give without the clipping.
        lost_share: what the clipping has taken of the sum of all weights, before it was scaled to be kept: the truth
            that is missing where the generator has far too few events.
    """

    events: EventSample
    effective_size: float
    before: float
    clipped: int
    clipped_share: float
    unclipped_size: float
    lost_share: float

    def text(self) -> str:
        """One line."""
        return (
            f"{len(self.events):,} events reweighted by a classifier: worth {self.effective_size:,.0f} events "
            f"({self.effective_size / self.before:.1%} of before; {self.unclipped_size:,.0f} without clipping), "
            f"{self.clipped:,} ratios clipped, which carry {self.clipped_share:.2%} of the weight and lost "
            f"{self.lost_share:.2%}"
        )


@door(
    classifier=having("a trained classifier, as of train_classifier or classifier_test", "log_ratio"),
    generated=optional(
        instance(EventSample, "a pg.EventSample", {"Tensor": "make one with pg.EventSample(events)"}),
    ),
    largest=POSITIVE,
)
def reweight(
    classifier: Classifier | ClassifierResult | ClassifierWeights,
    generated: EventSample | None = None,
    *,
    largest: float = 100.0,
) -> Reweighted:
    """Multiply the weights of generated events by ``w = D/(1-D) = p_truth / p_generated`` of a classifier.

    Histograms of the result are those of the truth, as far as the classifier knows the ratio of the densities. The sum
    of the weights is kept. ``log_weights`` stay as they are: a histogram with ``weights * exp(log_weights[:, k])`` is
    that of draw k of the posterior times w. So the band of the posterior survives; it knows nothing of the error of the
    classifier. Where the generator has no events, weights cannot make any.

    Args:
        classifier: trained on true events and on generated ones of the same generator, best on others than these; or
            the :class:`ClassifierWeights` of :func:`classifier_weights`, whose events have weights from classifiers
            that did not see them.
        generated: events ``[N, d]``, an :class:`~pyrogen.EventSample`; its weights count. By default the generated
            events of the :class:`ClassifierWeights`. Further events of that generator are scored by the mean of all its
            classifiers.
        largest: ratios above are set to this: one event with a huge weight ruins a histogram.

    Raises:
        ValueError: a ratio that is not finite; no events; the events of the :class:`ClassifierWeights` with other
            weights than these had, such as events that were reweighted before; further events among which are some of
            those that the :class:`ClassifierWeights` come from.
    """
    events, ratio = _ratio(classifier, generated)
    if not np.isfinite(ratio).all():
        raise ValueError(
            f"the classifier's ratio is {ratio[~np.isfinite(ratio)][0]} at event {np.argmin(np.isfinite(ratio))}"
        )
    clipped = ratio > largest
    own = np.ones(len(events)) if events.weights is None else events.weights
    full, kept = own * ratio, own * ratio.clip(max=largest)
    weights = kept * (own.sum() / kept.sum())
    result = EventSample(events, weights=weights)
    return Reweighted(
        result,
        result.effective_size,
        events.effective_size,
        int(clipped.sum()),
        clipped_share=float(weights[clipped].sum() / weights.sum()),
        unclipped_size=float(full.sum() ** 2 / np.sum(full**2)),
        lost_share=float(1 - kept.sum() / full.sum()),
    )


def _ratio(
    classifier: Classifier | ClassifierResult | ClassifierWeights, generated: EventSample | None
) -> tuple[EventSample, NDArray[np.float64]]:
    """The events, and their ratio of densities."""
    if not isinstance(classifier, ClassifierWeights):
        if generated is None:
            raise ValueError("generated is None; give the generated events that the classifier is to reweight")
        return generated, classifier.log_ratio(generated).exp().double().numpy()
    own = classifier.generated
    if generated is None:
        return own, classifier.w_generated
    if np.array_equal(generated.values, own.values, equal_nan=True):
        before, now = (event_weights(each) / event_weights(each).mean() for each in (own, generated))
        if not np.allclose(before, now, rtol=1e-5):  # those of single precision are the same
            raise ValueError(
                "generated has other weights than these events had when the classifiers were trained: w is the ratio "
                "to the events as they were, and would count twice in events that were reweighted before. Give the "
                "events with their old weights, or train anew"
            )
        return generated, classifier.w_generated
    if generated.features == own.features and len(seen := same_rows(generated.values, own.values)):
        raise ValueError(
            f"generated has {len(seen):,} of the {len(own):,} events that these weights come from, the first is event "
            f"{seen[0]}: their classifiers were trained on them. Give all of them in their order, or only others"
        )
    return generated, classifier.log_ratio(generated).exp().numpy()
