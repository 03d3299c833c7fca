"""Expected log predictive density: which posterior predicts better, and is the difference real?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from pyrogen.checks import BOOLEAN, COUNT, SEED, door, having, whole
from pyrogen.diagnostics.arviz_io import pareto_smooth
from pyrogen.diagnostics.distances import event_table
from pyrogen.events import EventsLike
from pyrogen.events.doors import ROWS
from pyrogen.labelled import Labelled
from pyrogen.posterior.posterior import POSTERIOR, Posterior
from pyrogen.posterior.weights import DRAWS
from pyrogen.threads import chosen_threads

Array = NDArray[np.float64]
DRAWS_IF_TRAINED = 400  # weight draws where none are asked for, of events that have to be forgotten first
DRAWS_OF_VARIANCE = 100
GOOD_K = 0.7  # above, a mean over importance weights is not to be trusted (arXiv:1507.02646)


@dataclass(frozen=True, repr=False)
class Elpd(Labelled):
    """Log predictive density of N events that a posterior does not know.

    Attributes:
        pointwise: log of the predictive density ``<p(x|theta)>`` of every event, ``[N]`` in nats.
        pareto_k: shape of the tail of every event's importance weights, ``[N]``, where each of the training events was
            left out in turn; None for held-out events.
    """

    _dims: ClassVar[Mapping[str, str]] = {
        "pointwise": "event",
        "pareto_k": "event",
    }

    pointwise: Array
    pareto_k: Array | None = None

    def _summary(self) -> str:
        value = f"{self.mean:.5g} +- {self.error:.2g} nats per event, {len(self.pointwise):,} events"
        return value + ("" if self.pareto_k is None else f" left out in turn, {self.unreliable:.1%} unreliable")

    @property
    def mean(self) -> float:
        """Nats per event; -inf where the predictive density of an event is zero."""
        return float(self.pointwise.mean())

    @property
    def error(self) -> float:
        """Standard error of :attr:`mean` from the spread over events; NaN where that is infinite.

        The same events make differences between posteriors much better known than either value: :meth:`minus`.
        """
        if not np.isfinite(self.pointwise).all():
            return math.nan
        return float(self.pointwise.std(ddof=1) / math.sqrt(len(self.pointwise)))

    @door(other=having("an Elpd", "pointwise"))
    def minus(self, other: Elpd) -> tuple[float, float]:
        """Difference summed over the events, in nats, and its standard error from the paired differences.

        Raises:
            ValueError: other numbers of events: differences are of the same events.
        """
        if len(self.pointwise) != len(other.pointwise):
            raise ValueError(
                f"{len(self.pointwise)} and {len(other.pointwise)} events cannot be compared; give the same events"
            )
        if not (np.isfinite(self.pointwise).all() and np.isfinite(other.pointwise).all()):
            return math.nan, math.nan
        difference = self.pointwise - other.pointwise
        return float(difference.sum()), float(difference.std(ddof=1) * math.sqrt(len(difference)))

    @property
    def unreliable(self) -> float:
        """Fraction of events left out whose k is above 0.7: their value is not to be trusted; 0 for held-out ones."""
        return 0.0 if self.pareto_k is None else float(np.mean(self.pareto_k > GOOD_K))


@door(posterior=POSTERIOR, events=ROWS, trained=BOOLEAN, draws=COUNT, seed=SEED)
@chosen_threads()
def elpd(
    posterior: Posterior,
    events: EventsLike,
    *,
    trained: bool = False,
    draws: int | None = None,
    context: Any = None,
    seed: int = 0,
) -> Elpd:
    """Log predictive density of events, held-out ones or those trained on.

    Held-out events are the better choice where there are enough of them. A training event must first be forgotten by
    the posterior: by importance weights ``1 / p(x_n|theta)``, Pareto-smoothed (Vehtari et al., arXiv:1507.04544),
    which says by k where that fails. A posterior tempered by T (``temperature`` or ``kl_weight``) counts every event
    1/T times: there the weights are ``p(x_n|theta)^(-1/T)``.

    Args:
        posterior: the posterior.
        events: events ``[N, d]``, at least two.
        trained: whether these are the events that the posterior was trained on.
        draws: weight draws; None: 50, or all where fewer are stored; for training events 400, or all that are stored.
        context: conditions ``[N, k]`` of a conditional flow.
        seed: seeds the weight draws.

    Raises:
        ValueError: events that are weighted, not finite, of the wrong shape, or fewer than two; training events at
            which a draw has no density; with ``trained=True`` a posterior of weighted events, an ensemble, or more
            events than it was trained on.
    """
    values = event_table("events", events, posterior)
    if len(values) < 2:
        raise ValueError(f"events holds {len(values)} event; a standard error needs at least two")
    power = _power_of_training_event(posterior, len(values)) if trained else 1.0
    default = DRAWS if not trained else posterior.weights.stored or DRAWS_IF_TRAINED
    draws = posterior.weights.count(draws, default)
    pointwise, shapes = [], []
    for _, block in posterior.predictor.log_prob_blocks(values, context, draws, seed, "log predictive density"):
        log_density = block.double()
        if not trained:
            pointwise.append((torch.logsumexp(log_density, 0) - math.log(draws)).cpu().numpy())
            continue
        if not log_density.isfinite().all():
            raise ValueError(f"log p is not finite in {int((~log_density.isfinite()).sum())} cases of training events")
        ratio = log_density.T.cpu().numpy()
        weights, k = pareto_smooth(-power * ratio)
        pointwise.append(np.logaddexp.reduce(weights + ratio, axis=1))
        shapes.append(k)
    return Elpd(np.concatenate(pointwise), np.concatenate(shapes) if trained else None)


def _power_of_training_event(posterior: Posterior, events: int) -> float:
    """Power to which the density of a training event counts in the posterior.

    Raises:
        ValueError: events that cannot be left out.
    """
    info = posterior.info
    if (obstacle := info.leave_one_out_obstacle) is not None:
        raise ValueError(f"trained is True, but {obstacle}; give held-out events")
    if info.training_events is not None and events > info.training_events:
        raise ValueError(
            f"trained is True, but of the {events} events the posterior was trained on {info.training_events} at most "
            f"({info.validation_events} were held out for validation); give events that it was trained on"
        )
    assert info.event_power is not None
    return info.event_power


@door(posterior=POSTERIOR, events=ROWS, draws=whole(50), seed=SEED)
@chosen_threads()
def guide_pareto_k(
    posterior: Posterior, events: EventsLike, *, draws: int = 400, context: Any = None, seed: int = 0
) -> float:
    """How far a Gaussian over the weights is from the posterior it stands for (Yao et al., arXiv:1802.02538).

    The shape k of the tail of the importance ratios ``p(events|theta) prior(theta) / q(theta)``, with
    ``p(events|theta)^(1/T)`` for a guide trained with ``kl_weight=T``. Below 0.5 the guide is
    close, up to 0.7 usable; above, draws of the guide do not cover the posterior of the *weights*. With hundreds of
    weights that is the rule, and says less about the predictions: :func:`~pyrogen.diagnostics.bootstrap_calibration`
    tests those.

    Args:
        posterior: with a Gaussian over the weights, from SVI or Laplace.
        events: the training events ``[N, d]``, all of them, unweighted.
        draws: weight draws, each of which is evaluated at all events.
        context: their conditions ``[N, k]``.
        seed: seeds the weight draws.

    Raises:
        ValueError: a posterior of stored draws or a single point, which has no density; other events than it was
            trained on, by their number; fewer than 50 draws.
    """
    values = event_table("events", events, posterior)
    info = posterior.info
    trained = len(values) if info.training_events is None else info.training_events
    if trained != len(values) or info.is_weighted:
        raise ValueError(
            f"events holds {len(values)} events, the posterior was trained on {trained} (effectively "
            f"{trained if info.size is None else info.size:g}); give all of them, unweighted"
        )
    if (power := info.event_power) is None:
        raise ValueError("the posterior is tempered, but its settings do not tell the temperature")
    prior, weights = posterior.model.prior(), posterior.weights
    weights.log_prob(posterior.model.initial_theta)  # refuses before any work is done
    ratios = [float(prior.log_prob(theta).sum()) - weights.log_prob(theta) for theta in weights.draws(draws, seed)]
    total = torch.tensor(ratios, dtype=torch.float64)
    for _, block in posterior.predictor.log_prob_blocks(values, context, draws, seed, "importance ratios"):
        total += power * block.double().sum(1).cpu()
    return float(pareto_smooth(total.numpy())[1][0])


@door(posterior=POSTERIOR, events=ROWS, draws=COUNT, seed=SEED)
@chosen_threads()
def effective_parameters(
    posterior: Posterior, events: EventsLike, draws: int | None = None, *, context: Any = None, seed: int = 0
) -> float:
    """Effective number of parameters p_WAIC (Watanabe 2010; Gelman et al., arXiv:1307.5928).

    The variance of ``log p(x|theta)`` over the weight draws, summed over the training events: their number times the
    mean of ``(sigma/p)^2``, as long as that is small. What a fit of k parameters to its own form would have is k; of a
    posterior tempered by T it is T k.

    Args:
        posterior: the posterior, whose ``info`` tells the number of its training events.
        events: events ``[n, d]`` distributed as the training events, those themselves or new ones, of any number.
        draws: weight draws; None: 100, or all where fewer are stored.
        context: conditions ``[n, k]`` of a conditional flow.
        seed: seeds the weight draws.

    Raises:
        ValueError: an unknown number of training events, weighted events, or a draw without density at an event.
    """
    size = posterior.info.size
    if size is None:
        raise ValueError("the posterior does not tell how many events it was trained on")
    count = posterior.weights.count(draws, DRAWS_OF_VARIANCE, least=2)
    log_prob = posterior.log_prob(event_table("events", events, posterior), count, context=context, seed=seed).double()
    if not log_prob.isfinite().all():
        raise ValueError(f"log p is not finite in {int((~log_prob.isfinite()).sum())} of {log_prob.numel()} cases")
    return float(size * log_prob.var(0).mean())
