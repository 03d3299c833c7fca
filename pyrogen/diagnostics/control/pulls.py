"""Whether the Bayesian sigma of a generator covers how far it is off (arXiv:2305.16774)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrogen.checks import COUNT, MAPPING, SEED, column_index, door, instance, one_of, optional, whole
from pyrogen.diagnostics.control.calibration import weighted_quantiles
from pyrogen.diagnostics.control.result import CENTRAL, ClassifierWeights, event_weights
from pyrogen.events import EventSample
from pyrogen.events.of_objects import observable_of
from pyrogen.labelled import Labelled
from pyrogen.posterior.binning import bins_of
from pyrogen.posterior.histograms import observable_values, sample_histograms
from pyrogen.posterior.posterior import POSTERIOR, Posterior

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class HistogramPulls(Labelled):
    """A histogram of the posterior against that of the true events.

    Attributes:
        edges: ``[B + 1]``.
        predicted, predicted_error: probability per bin and its standard deviation over the weight draws, ``[B]``, which
            includes the noise of the generated events.
        truth, truth_error: fraction of the true events and its statistical error, ``[B]``.
    """

    _dims: ClassVar[Mapping[str, str]] = {
        "edges": "bin_edge",
        "predicted": "bin",
        "predicted_error": "bin",
        "truth": "bin",
        "truth_error": "bin",
        "pull": "bin",
    }

    edges: Array
    predicted: Array
    predicted_error: Array
    truth: Array
    truth_error: Array

    @property
    def pull(self) -> Array:
        """(predicted - truth) over both errors in quadrature, ``[B]``; NaN where both are zero."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return (self.predicted - self.truth) / np.hypot(self.predicted_error, self.truth_error)

    @property
    def width(self) -> float:
        """Root mean square of the pulls: about one where sigma is right."""
        pull = self.pull[np.isfinite(self.pull)]
        return float(np.sqrt(np.mean(pull**2))) if len(pull) else math.nan


@dataclass(frozen=True, eq=False, repr=False)
class WeightPulls(Labelled):
    """Pulls t(x) = mu(x) [1 - w(x)] / sigma(x) of the density at every event [C eq. 9].

    mu and sigma are mean and standard deviation of the density over the posterior, and w mu stands for the true
    density: t is how far the generator is off at x, in units of its own sigma.

    **What the width means.** If the deviations at different points were independent, and sigma right, t would be a
    standard Gaussian. They are not independent: a posterior knows the density in a few directions, along which it
    moves at all points together. So one posterior gives, in effect, a few pulls and not n of them, and the width is
    that of a few numbers: of a calibrated posterior it is often well below one, and may be above. Besides, w is
    smoother than the density, since a classifier does not follow what it cannot see. The noise of the
    classifier makes the pulls wider: :attr:`floor` is the width that it alone would give. A width below the floor says
    nothing; a width far above one says that sigma is too small somewhere. The pulls of a few bins are far less
    correlated: judge sigma by the :attr:`histograms`.

    Attributes:
        sample: ``"generated"`` or ``"truth"``.
        pull: ``[n]``.
        w: ``[n]``, p_data / p_model.
        relative: ``[n]``, sigma / mu.
        weights: of the events, ``[n]``.
        edges: quantiles of w, ``[B + 1]``.
        at: medians of w between them, ``[B]``.
        low, median, high: of sigma / mu in these bins of w, ``[B]``: median and central 68 % [C fig. 12].
        floor: width of t that the noise of the classifier alone gives: the width of log w without a difference over the
            median of sigma / mu. NaN without a control. :attr:`own_width` is the width without it.
        left_out: number of events without a finite pull: sigma is zero, or infinite.
        histograms: by the name of the observable.
    """

    _dims: ClassVar[Mapping[str, str]] = {
        "pull": "event",
        "w": "event",
        "relative": "event",
        "weights": "event",
        "edges": "w_bin_edge",
        "at": "w_bin",
        "low": "w_bin",
        "median": "w_bin",
        "high": "w_bin",
    }
    _within: ClassVar[tuple[str, ...]] = ("left_out",)  # in a Dataset the name of something else

    sample: str
    pull: Array
    w: Array
    relative: Array
    weights: Array
    edges: Array
    at: Array
    low: Array
    median: Array
    high: Array
    floor: float
    left_out: int = 0
    histograms: dict[str, HistogramPulls] = field(default_factory=dict)

    def _attributes(self) -> dict[str, Any]:
        return super()._attributes() | {"events_without_pull": self.left_out}

    @property
    def centre(self) -> float:
        """Median of the pulls."""
        return float(weighted_quantiles(self.pull, np.array([0.5]), np.abs(self.weights))[0])

    @property
    def width(self) -> float:
        """Half the width of the central 68 % of the pulls."""
        low, high = weighted_quantiles(self.pull, np.array(CENTRAL), np.abs(self.weights))
        return float(high - low) / 2

    @property
    def own_width(self) -> float:
        """The width without the noise of the classifier, ``sqrt(width^2 - floor^2)``; 0 where the noise is larger.

        The noise is independent of how far the generator is off, so both add in quadrature. Where the floor is not well
        below the width, this is a small difference of large numbers: take more true events. NaN without a control.
        """
        return math.sqrt(max(self.width**2 - self.floor**2, 0.0)) if math.isfinite(self.floor) else math.nan

    @property
    def inside(self) -> float:
        """Share of the events with a pull between -1 and 1: 68 % of a standard Gaussian."""
        size = np.abs(self.weights)
        return float(size[np.abs(self.pull) < 1].sum() / size.sum())

    def _summary(self) -> str:
        return f"{len(self.pull):,} {self.sample} events, median {self.centre:.3g}, width {self.width:.3g}"

    def text(self) -> str:
        """A few lines."""
        lines = [
            f"pulls of the density at {len(self.pull):,} {self.sample} events: median {self.centre:.2f}, width "
            f"{self.width:.2f}, {self.inside:.0%} within 1; " + self._noise()
        ]
        if self.left_out:
            lines.append(f"{self.left_out:,} events have no finite pull")
        lines += [f"pulls of the histogram of {name}: width {its.width:.2f}" for name, its in self.histograms.items()]
        return "\n".join(lines)

    def _noise(self) -> str:
        if not math.isfinite(self.floor):
            return "the noise of the classifier is not known, without a control"
        if self.floor >= self.width:
            return f"the noise of the classifier alone gives {self.floor:.2f}: they say nothing of sigma"
        return f"the noise of the classifier alone gives {self.floor:.2f}, without it {self.own_width:.2f}"


WEIGHTS = instance(ClassifierWeights, "a ClassifierWeights, from classifier_weights")


@door(
    weights=WEIGHTS,
    posterior=optional(POSTERIOR),
    sample=one_of("generated", "truth"),
    observables=optional(MAPPING),
    bins=whole(1),
    n=whole(2),
    draws=COUNT,
    seed=SEED,
)
def weight_pulls(
    weights: ClassifierWeights,
    posterior: Posterior | None = None,
    *,
    sample: str = "generated",
    observables: Mapping[str, tuple[Any, ...]] | None = None,
    bins: int = 10,
    n: int = 100_000,
    draws: int | None = None,
    context: Any = None,
    seed: int = 0,
) -> WeightPulls:
    """Deviations of the generator from the data in units of its sigma, event by event and in histograms.

    Args:
        weights: of a classifier between true and generated events.
        posterior: of the generator. It is not needed for generated events that carry their relative uncertainty or
            their log-weights (of ``posterior.generate``, also from a file); for histograms they need log-weights.
        sample: at which events.
        observables: by name ``(observable, bins)`` or ``(observable, number of bins, (low, high))`` as in
            :meth:`~pyrogen.Posterior.histograms`: the posterior's histograms are held against the true events.
        bins: quantiles of w in which sigma / mu is summarised.
        n: generated events per draw of the histograms.
        draws: number of weight draws; None: 50, or all where fewer are stored.
        context: conditions of a conditional flow, ``[events, k]`` without observables.
        seed: seeds weight draws and events.

    Raises:
        ValueError: no posterior where one is needed; events that do not fit it; no event with a finite pull.
    """
    events: EventSample = getattr(weights, sample)
    relative = _carried(events) if sample == "generated" else None
    if posterior is None and observables and weights.generated.log_weights is None:
        raise ValueError(
            "posterior is None; it is needed for the histograms of generated events without log_weights, which "
            "posterior.generate(n, log_weights=True) gives"
        )
    if posterior is None and relative is None:
        instead = ", or events of posterior.generate(n, log_weights=True)" if sample == "generated" else ""
        raise ValueError(
            f"posterior is None; it is needed for sigma of the {sample} events, which do not carry it: give the "
            f"posterior{instead}"
        )
    functions = bins_of(observables) if observables else {}
    if relative is None:
        assert posterior is not None
        relative = posterior.density(events, draws, context=context, seed=seed).relative.cpu().numpy()
    log_w = weights.log_w_generated if sample == "generated" else weights.log_w_truth
    there = (relative > 0) & np.isfinite(relative)
    if not there.any():
        raise ValueError(f"sigma is zero or infinite at all {len(events):,} {sample} events; there is no pull")
    relative, w, size = relative[there], np.exp(log_w[there]), event_weights(events)[there]
    found = {}
    if observables and posterior is not None:
        bands = posterior.histograms(observables, n=n, draws=draws, seed=seed, context=context)
        for name, its in functions.items():
            function = posterior.predictor.observable(observables[name][0])
            values = observable_values(function, _rows(posterior, weights.truth))
            found[name] = _against(bands[name], its, values, weights)
    elif observables:
        bands, true = sample_histograms(weights.generated, observables), weights.truth.tensor(torch.float64)
        for name, its in functions.items():
            values = observable_values(_function(weights.truth, observables[name][0]), true)
            found[name] = _against(bands[name], its, values, weights)
    middle = weighted_quantiles(relative, np.array([0.5]), np.abs(size))[0]
    return WeightPulls(
        sample,
        (1 - w) / relative,
        w,
        relative,
        size,
        *_binned(w, relative, np.abs(size), bins),
        floor=weights.floor / float(middle),
        left_out=int((~there).sum()),
        histograms=found,
    )


def _carried(events: EventSample) -> Array | None:
    """sigma / mu of generated events, if they carry it, or the log-weights of the draws [A eq. 2]."""
    if events.uncertainties is not None:
        return np.asarray(events.uncertainties)
    if events.log_weights is None or events.log_weights.shape[1] < 2:
        return None
    return np.asarray(np.exp(events.log_weights).std(1, ddof=1))  # as torch's std, by which uncertainties are made


def _rows(posterior: Posterior, truth: EventSample) -> torch.Tensor:
    """The true events with the columns in the order of the posterior."""
    return torch.as_tensor(np.array(posterior.predictor.checked(truth, "truth").values), dtype=torch.float64)


def _function(truth: EventSample, observable: Any) -> Callable[[Tensor], Tensor]:
    """An observable, or a column by name or index, of events in the order of the samples."""
    known = observable if callable(observable) else column_index(observable, truth.names)
    return observable_of(known, truth.multiplicity)


def _against(band: Any, its: Any, values: Array, weights: ClassifierWeights) -> HistogramPulls:
    share = weights.weights[0] / weights.weights[0].sum()
    counts, squares = its.fill(values, share), its.fill(values, share**2)
    return HistogramPulls(band.edges, band.mean, band.std, counts, np.sqrt(squares))


def _binned(w: Array, relative: Array, size: Array, bins: int) -> tuple[Array, Array, Array, Array, Array]:
    """Quantiles of w, and between them the median of w, and central 68 % and median of sigma / mu."""
    edges = np.unique(weighted_quantiles(w, np.linspace(0, 1, bins + 1), size))
    if len(edges) == 1:
        edges = np.repeat(edges, 2)
    where = np.clip(np.searchsorted(edges, w, "right") - 1, 0, len(edges) - 2)
    levels = np.array([CENTRAL[0], 0.5, CENTRAL[1]])
    rows = [weighted_quantiles(relative[where == b], levels, size[where == b]) for b in range(len(edges) - 1)]
    at = [weighted_quantiles(w[where == b], levels[1:2], size[where == b])[0] for b in range(len(edges) - 1)]
    low, median, high = np.array(rows).T
    return edges, np.array(at), low, median, high
