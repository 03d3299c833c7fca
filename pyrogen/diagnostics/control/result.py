"""The weights p_data / p_model of every event of a true and a generated sample, and all that they say."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrogen.checks import BOOLEAN, LIMITS, PATH, POSITIVE, door, each, one_of, optional, require, whole
from pyrogen.diagnostics.classifier_samples import check_same_columns
from pyrogen.diagnostics.control import files
from pyrogen.diagnostics.control.calibration import (
    CalibrationCurve,
    calibration_curve,
    straight_line,
    weighted_quantiles,
)
from pyrogen.diagnostics.control.recalibration import recalibrated
from pyrogen.diagnostics.control.tables import (
    TWICE,
    TailFractions,
    WeightHistograms,
    tail_fractions,
    together,
    weight_histograms,
)
from pyrogen.diagnostics.control.verdict import belief, told
from pyrogen.diagnostics.roc import roc_auc
from pyrogen.events import EventSample, EventsLike
from pyrogen.labelled import Labelled
from pyrogen.printing import Brief

Array = NDArray[np.float64]

CUTS = (0.5, 0.8, 1.25, 2.0)
CENTRAL = (0.158655, 0.841345)  # one sigma of a Gaussian
ROC_POINTS = 500
ROUNDING = 1e-9  # of an area and its error
OVERCONFIDENT = 0.2  # of log w: what is less is noise of a few thousand events, or does no harm


@dataclass(frozen=True, eq=False, repr=False)
class Trainings(Brief):
    """How the T = folds x ensemble trainings went, those of the first fold first.

    Attributes:
        loss, validation_loss: of each epoch or tree, ``[T, epochs]`` in nats per event of equally frequent classes, NaN
            behind the last epoch of a training: log 2 = 0.693 is that of a guess.
        kept: the epoch that was kept, or the number of trees, ``[T]``.
        auc: ``[ensemble]``, of the weights of single trainings.
    """

    loss: Array
    validation_loss: Array
    kept: NDArray[np.int64]
    auc: Array


@dataclass(frozen=True, eq=False, repr=False)
class ClassifierWeights(Labelled):
    """Log-weights log w(x) = log p_data(x) / p_model(x) [C eq. 1] of every event, from classifiers that never saw it.

    Attributes:
        truth, generated: both samples, of N and M events.
        log_w_truth, log_w_generated: ``[N]`` and ``[M]``: mean over the trainings of the ensemble. Weights of the
            events do not enter: w is the ratio of the densities of the weighted events.
        spread_truth, spread_generated: ``[N]`` and ``[M]``, standard deviation of log w over the trainings of the
            ensemble, of one of them: the error of the mean is smaller; NaN for a single training.
        fold_truth, fold_generated: the fold of each event, whose classifiers were trained on all other folds.
        trainings: losses, and AUC of single trainings.
        settings: what was asked for, in JSON types.
        control: the same for true events against true events; None without.
        classifiers: the trained classifiers, those of the first fold first; empty after loading and recalibrating.
    """

    _dims: ClassVar[Mapping[str, str]] = {
        f"{name}_{sample}": f"{sample}_event"
        for sample in ("truth", "generated")
        for name in ("log_w", "w", "spread", "fold")
    }
    _within: ClassVar[tuple[str, ...]] = ("classifiers",)

    truth: EventSample
    generated: EventSample
    log_w_truth: Array
    log_w_generated: Array
    spread_truth: Array
    spread_generated: Array
    fold_truth: NDArray[np.int64]
    fold_generated: NDArray[np.int64]
    trainings: Trainings
    settings: dict[str, Any] = field(default_factory=dict)
    control: ClassifierWeights | None = None
    classifiers: tuple[Any, ...] = ()

    def _summary(self) -> str:
        auc, error = self.auc
        made = f"{self.settings.get('method', 'classifier')}, {self.settings.get('folds', '?')} folds"
        checked = "no control" if self.control is None else f"floor {self.floor:.3g}"
        return (
            f"{len(self.truth):,} true and {len(self.generated):,} generated events; {made}; AUC {auc:.4f} +- "
            f"{error:.4f}; width of log w {self.width:.3g}, {checked}"
        )

    def text(self) -> str:
        """A short report that ends with a verdict in plain words."""
        return told(self)

    @property
    def w_truth(self) -> Array:
        """w at the true events, ``[N]``."""
        return np.exp(self.log_w_truth)

    @property
    def w_generated(self) -> Array:
        """w at the generated events, ``[M]``; their mean is one where the classifier is right."""
        return np.exp(self.log_w_generated)

    @property
    def weights(self) -> tuple[Array, Array]:
        """The weights of true and generated events, ones where they have none."""
        return event_weights(self.truth), event_weights(self.generated)

    @property
    def log_w(self) -> tuple[Array, Array]:
        """``log_w_truth`` and ``log_w_generated``."""
        return self.log_w_truth, self.log_w_generated

    @property
    def auc(self) -> tuple[float, float]:
        """Area under the ROC curve by [C eq. 6], and its error.

        The error is that of :func:`~pyrogen.diagnostics.roc_auc`: how much the area would change with other events
        and the same classifiers. Other trainings are not in it; ``trainings.auc`` has those of the single ones. Where
        the samples do not differ, the area scatters by up to sqrt(2) times this error (1.25 to 1.4 in toys), because
        every pair of folds counts twice: each trains what scores the other. :attr:`auc_significance` includes that.
        """
        return roc_auc(*self.log_w, self.truth.weights, self.generated.weights)

    @property
    def auc_significance(self) -> float:
        """(AUC - 0.5) over sqrt(2) times its error: at most a standard Gaussian where the samples do not differ."""
        auc, error = self.auc
        if abs(auc - 0.5) < ROUNDING:  # of classifiers that found nothing to split, the error is zero, too
            return 0.0
        return (auc - 0.5) / (TWICE * error) if error > ROUNDING else math.copysign(math.inf, auc - 0.5)

    @property
    def fold_auc(self) -> tuple[Array, Array]:
        """AUC of each fold alone and its error, ``[folds]``: of events that one ensemble has scored."""
        found = []
        for k in range(int(self.fold_truth.max()) + 1):
            rows = self.fold_truth == k, self.fold_generated == k
            its = [
                None if w is None else w[r]
                for w, r in zip((self.truth.weights, self.generated.weights), rows, strict=True)
            ]
            found.append(roc_auc(self.log_w_truth[rows[0]], self.log_w_generated[rows[1]], *its))
        auc, error = np.array(found).T
        return auc, error

    def roc(self) -> tuple[Array, Array]:
        """The ROC curve: fractions of generated and of true events with a larger w, ``[n]`` each, from 0 to 1."""
        cuts = np.sort(np.concatenate(self.log_w))[::-1]
        cuts = np.array([np.inf, *cuts[np.linspace(0, len(cuts) - 1, ROC_POINTS).astype(int)], -np.inf])
        return _above(self.log_w_generated, cuts, self.weights[1]), _above(self.log_w_truth, cuts, self.weights[0])

    @property
    def width(self) -> float:
        """Half the width of the central 68 % of log w, over both samples, with the sizes of the event weights."""
        x, size = together(self.log_w, self.weights)
        low, high = weighted_quantiles(x, np.array(CENTRAL), np.abs(size))
        return float(high - low) / 2

    @property
    def floor(self) -> float:
        """The width that samples of these sizes would have without any difference; NaN without a control.

        It is that of the control times ``sqrt((1/N + 1/M) / (1/n + 1/m))``, n and m the (effective) sizes of the two
        samples of the control: halves of the truth, if no other true events were given. The noise of a classifier falls
        like that or faster: for trees and equal Gaussians in four columns the width is 0.13 with 2,500 events each,
        0.061 with 10,000 and 0.013 with 40,000, where the training stops nearly at once. The width of one control
        scatters by 10 to 30 % (trees, equal Gaussians, 500 to 40,000 events); that of equal samples was 0.4 to 1.4
        times this floor.
        """
        if self.control is None:
            return math.nan
        own, halves = (
            1 / each.truth.effective_size + 1 / each.generated.effective_size for each in (self, self.control)
        )
        return self.control.width * math.sqrt(own / halves)

    @property
    def normalisation(self) -> tuple[float, float]:
        """Mean of w over the generated events and its statistical error: one where the classifier is right."""
        v = self.weights[1] / self.weights[1].sum()
        mean = float(v @ self.w_generated)
        return mean, float(np.sqrt(np.sum((v * (self.w_generated - mean)) ** 2)))

    @door(bins=whole(2))
    def calibration(self, bins: int = 20) -> CalibrationCurve:
        """The calibration curve [C eq. 11] in so many bins of w, fewer where events are few."""
        return calibration_curve(self.log_w, self.weights, bins)

    @property
    def slope(self) -> tuple[float, float]:
        """The factor on log w that fits best, and its error: one where weights are right, 0 where they are noise."""
        factor, _, error = straight_line(self.log_w, self.weights)
        return factor, error

    @property
    def overfitted(self) -> bool:
        """Whether the classifiers learned their events by heart, with weights that other events do not confirm.

        That is, :attr:`slope` is less than one by more than three errors, and that makes more than 0.2 in log w (root
        mean square over the events).
        """
        factor, error = self.slope
        return bool(factor + 3 * error < 1 and (1 - factor) * self.scatter > OVERCONFIDENT)

    @property
    def scatter(self) -> float:
        """Standard deviation of log w over the events of both samples, with the sizes of their weights."""
        x, size = together(self.log_w, self.weights)
        return math.sqrt(np.average((x - np.average(x, weights=size)) ** 2, weights=np.abs(size)))

    @property
    def verdict(self) -> str:
        """Whether the weights can be believed, in a word; :meth:`text` says it in a sentence.

        The first of these that holds:

        * ``"overfitted"``: see :attr:`overfitted`.
        * ``"unchecked"``: the calibration curve has a single bin, or the classifiers found nothing to split.
        * ``"unconfirmed"``: :attr:`slope` is not above zero by two errors, times sqrt(2) as pairs of folds count twice
          (2.8 errors). So other events do not confirm the weights: they may be nothing but noise, as they mostly are
          where the samples do not differ. Take w = 1.
        * ``"calibrated"``: the p-value of the calibration is at least 1 %, and the slope is one within three errors.
        * ``"close"``: the weights are off by more than their errors, and by at most 5 %.
        * ``"not calibrated"``: by more. :meth:`recalibrated` mends that.
        """
        return belief(self)

    @door(method=one_of("isotonic", "slope"))
    def recalibrated(self, method: str = "isotonic") -> ClassifierWeights:
        """The same with weights put right by their own calibration curve, that of the events of all other folds.

        The order of the events stays about the same, and so do the AUC and the spread; what the classifier does not
        see, no calibration brings back. The control is treated likewise.

        Args:
            method: ``"isotonic"``: the measured ratio in up to 20 bins of w, made monotonous, with lines between and
                constant beyond them. ``"slope"``: ``s log w + a`` with the best s and a, for few events, or negative
                weights.

        Raises:
            ValueError: negative weights for the isotonic curve.
        """
        true, made = recalibrated(self.log_w, self.weights, (self.fold_truth, self.fold_generated), method)
        control = None if self.control is None else self.control.recalibrated(method)
        settings = self.settings | {"recalibrated": method}
        # The classifiers do not have this correction.
        return replace(self, log_w_truth=true, log_w_generated=made, control=control, settings=settings, classifiers=())

    @door(cuts=each(POSITIVE, "a sequence of cuts on w, such as (0.5, 2.0)", 1))
    def tails(self, cuts: Sequence[float] = CUTS) -> TailFractions:
        """Fractions of the events in the tails of w: below cuts smaller than one, above all others."""
        return tail_fractions(self.log_w, self.weights, self._control_together(), cuts)

    @door(bins=whole(1), range=optional(LIMITS), log=BOOLEAN)
    def histograms(
        self, bins: int = 60, range: tuple[float, float] | None = None, log: bool = False
    ) -> WeightHistograms:
        """Histograms of w on both samples, and on those of the control.

        Args:
            bins: their number.
            range: in w; by default around one, with at least 96 % of each sample, in logarithmic bins all weights.
                Weights outside are in the outermost bins.
            log: bins of equal width in log w.
        """
        require(not log or range is None or range[0] > 0, "range", range, "positive for logarithmic bins")
        return weight_histograms(self.log_w, self.weights, self._control_together(), bins, range, log)

    @door(path=PATH)
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write both samples and all numbers to an HDF5 file, in one piece; the classifiers are not kept.

        Raises:
            OSError: the file cannot be written; an old file at ``path`` is left as it was.
        """
        files.write(path, self)

    @classmethod
    @door(path=PATH)
    def load(cls, path: str | os.PathLike[str]) -> ClassifierWeights:
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: no such file.
            FileFormatError: another file, or a damaged one.
        """
        return _made_of(files.read(path))

    def _control_together(self) -> tuple[Array, Array] | None:
        return None if self.control is None else together(self.control.log_w, self.control.weights)

    def log_ratio(self, events: EventsLike) -> Tensor:
        """log w of other events, ``[n]``: mean over all classifiers. The events must not be those of the samples.

        Raises:
            ValueError: these weights were loaded from a file, which has no classifiers, or recalibrated; events with
                other columns.
        """
        if not self.classifiers:
            raise ValueError(
                "these weights have no classifiers: they were loaded from a file, which has none, or recalibrated; "
                "make them anew for other events"
            )
        sample = (
            events if isinstance(events, EventSample) else EventSample(events, multiplicity=self.truth.multiplicity)
        )
        check_same_columns(self.truth, "events", sample)
        return torch.stack([torch.as_tensor(each.log_ratio(sample)) for each in self.classifiers]).mean(0)


def _made_of(parts: dict[str, Any]) -> ClassifierWeights:
    control = _made_of(parts.pop(files.CONTROL)) if files.CONTROL in parts else None
    return ClassifierWeights(**parts | {"trainings": Trainings(**parts["trainings"]), "control": control})


def event_weights(sample: EventSample) -> Array:
    """Weights ``[N]`` of the events, ones where they have none."""
    return np.ones(len(sample)) if sample.weights is None else np.asarray(sample.weights)


def _above(log_w: Array, cuts: Array, weights: Array) -> Array:
    order = np.argsort(log_w)
    below = np.concatenate([[0.0], np.cumsum(weights[order])])
    return 1 - below[np.searchsorted(log_w[order], cuts, "right")] / below[-1]
