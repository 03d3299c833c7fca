"""Does a backend recover networks that made the events? Calibration that needs no known truth.

Networks of the prior, or of a trained posterior, generate samples; the backend learns each of them back, and the
network that made a sample has to lie in the credible intervals as often as they say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pyrogen.bayes.model import BayesianFlow
from pyrogen.checks import SEED, array, door, having, instance, optional, require, whole
from pyrogen.coverage.calibration import Calibration, count_intervals
from pyrogen.executors import EXECUTOR
from pyrogen.posterior.posterior import POSTERIOR, Posterior
from pyrogen.seeds import seeded, stream

Array = NDArray[np.float64]


class Learner(Protocol):
    """What learns networks back: any backend."""

    def fit_many(self, model: BayesianFlow, samples: Any, context: Any = None) -> list[Posterior]:
        """Posteriors of R samples ``[R, N, d]`` with conditions ``[R, N, k]``."""
        ...


LEARNER = having("a backend, such as pg.SVI()", "fit_many")
DRAWS = optional(whole(2))  # one has no sigma
MODEL = instance(BayesianFlow, "a pyrogen.BayesianFlow")


@door(
    backend=LEARNER,
    model=MODEL,
    size=whole(1),
    trainings=whole(2),
    probes=whole(1),
    draws=DRAWS,
    seed=SEED,
    executor=optional(EXECUTOR),
)
def simulation_based_calibration(
    backend: Learner,
    model: BayesianFlow,
    size: int,
    trainings: int = 40,
    *,
    probes: int = 20,
    draws: int | None = None,
    seed: int = 0,
    executor: Any = None,
) -> Calibration:
    """Simulation-based calibration (Talts et al., arXiv:1804.06788): is the backend's posterior that of the model?

    Weights are drawn from the prior, each gives a sample of events, and the backend learns it back. For the exact
    posterior the true value of any quantity is then a draw like all others, whatever the flow and the prior: this
    tests the backend alone, where coverage of a given truth tests flow and prior too. The quantities are log p at
    probe points, and the log-likelihood of the sample itself (the last one).

    Args:
        backend: with ``fit_many``. Small models are meant: every training counts once.
        model: the Bayesian flow, with ``preprocessing=None`` or one whose constants are set.
        size: events per sample.
        trainings: number R of samples.
        probes: number of probe points, drawn from the prior predictive density.
        draws: weight draws, or all where fewer are stored; None: 100.
        seed: seeds weights, events and probe points.
        executor: where the samples are learned, as in :meth:`~pyrogen.inference.Backend.fit_many`.

    Raises:
        ValueError: a preprocessing that would be fitted to the events (its density would then be another one), a
            conditional flow, or numbers out of range.
    """
    require(not model.context, "model", model, "that of a flow without conditions: their distribution is not known")
    if not model.preprocessing.fitted:
        raise ValueError(
            "the model's preprocessing is not fitted, so that every fit would change the model; give "
            "BayesianFlow(preprocessing=None), or a bijection with its constants"
        )
    with seeded(stream(seed, "recovery", 1), model.device), torch.no_grad():
        thetas = [model.prior().sample() for _ in range(trainings)]
        points = torch.cat([model.sample_events(model.prior().sample(), 1) for _ in range(probes)])
    return KnownNetworks.of(model, thetas, size, points, seed).learned_by(backend, draws, executor)


@door(
    backend=LEARNER,
    posterior=POSTERIOR,
    size=optional(whole(1)),
    trainings=whole(2),
    probes=whole(1),
    draws=DRAWS,
    context=optional(array(1, 2)),
    seed=SEED,
    executor=optional(EXECUTOR),
)
def bootstrap_calibration(
    backend: Learner,
    posterior: Posterior,
    size: int | None = None,
    trainings: int = 20,
    *,
    context: ArrayLike | Tensor | None = None,
    probes: int = 100,
    draws: int | None = None,
    seed: int = 0,
    executor: Any = None,
) -> Calibration:
    """Is sigma right for events like mine, whose truth nobody knows? A parametric bootstrap (Efron 1979).

    The networks of a trained posterior stand in for the truth: each of R of its weight draws generates a sample, the
    backend learns it back, and the network that made it must lie in the credible intervals. With one draw for every
    sample, not one for all, an exact posterior is calibrated here as in :func:`simulation_based_calibration`, to the
    extent that the posterior is narrow against the prior.

    Args:
        backend: the backend in question, with ``fit_many``; not necessarily the one that made the posterior.
        posterior: trained on the events in question.
        size: events per sample; by default as many as the posterior was trained on (of weighted ones, their effective
            number).
        trainings: number R of samples.
        context: conditions ``[n, k]`` of the events of a conditional flow. Samples and probe points draw theirs from
            these, with replacement: their distribution is not learned, and so needs no network that stands for it.
        probes: number of probe points, drawn from the posterior predictive density; log p there are the quantities,
            and the log-likelihood of the sample (the last one).
        draws: weight draws, or all where fewer are stored; None: 100.
        seed: seeds weight draws, events and probe points.
        executor: where the samples are learned, as in :meth:`~pyrogen.inference.Backend.fit_many`.

    Raises:
        ValueError: a conditional flow without conditions, or numbers out of range.
    """
    trained = posterior.info.size if size is None else size
    if trained is None:
        raise ValueError("size is None, and the posterior does not tell how many events it was trained on; give size")
    return known_networks(posterior, round(trained), trainings, probes, seed, context).learned_by(
        backend, draws, executor
    )


def known_networks(
    posterior: Posterior,
    size: int,
    trainings: int,
    probes: int,
    seed: int,
    context: Any = None,
    weights: Tensor | None = None,
) -> KnownNetworks:
    """Networks of a posterior, a sample of each, and probe points of the predictive density.

    Args:
        posterior: whose weight draws the networks are.
        size: events per sample.
        trainings: number R of networks.
        probes: number of probe points.
        seed: seeds all of it.
        context: conditions ``[N, k]``, from which those of samples and probe points are drawn with replacement.
        weights: of the conditions, positive, ``[N]``.

    Raises:
        ValueError: fewer weight draws than trainings, or conditions that do not fit the flow.
    """
    count = posterior.weights.at_most(trainings)
    if count < trainings:
        raise ValueError(
            f"trainings is {trainings}, but the posterior holds {count} weight draws; give at most as many"
        )
    conditions = None
    if posterior.model.context or context is not None:
        require(context is not None, "context", context, "the conditions of the events: the flow is conditional")
        table = torch.as_tensor(context)
        table = table[:, None] if table.ndim == 1 else table
        table = posterior.predictor.conditions(table, len(table))
        shares = None if weights is None else (weights.double() / weights.double().sum()).cpu().numpy()
        drawn = np.random.default_rng(stream(seed, "recovery", 5)).choice(
            len(table), trainings * size + probes, p=shares
        )
        conditions = torch.as_tensor(table)[torch.from_numpy(drawn)]
    thetas = list(posterior.weights.draws(trainings, stream(seed, "recovery", 1)))
    last = None if conditions is None else conditions[trainings * size :]
    points = posterior.sample(probes, context=last, seed=stream(seed, "recovery", 2))
    return KnownNetworks.of(posterior.model, thetas, size, points, seed, conditions)


@dataclass(frozen=True)
class KnownNetworks:
    """R networks, a sample of each, and what a backend that learns the samples is asked for.

    Attributes:
        model: the flow that the networks are weights of.
        samples: ``[R, N, d]``.
        points: at which log p is asked for, ``[B, d]``.
        truth: log p of each network at the points, and summed over its sample (the last one), ``[R, B + 1]``.
        seed: seeds the weight draws of those that learned.
        context: conditions of the samples, ``[R, N, k]``, or None.
        at: those of the points, ``[B, k]``, or None.
    """

    model: BayesianFlow
    samples: Tensor
    points: Tensor
    truth: Array
    seed: int
    context: Tensor | None = None
    at: Tensor | None = None

    @classmethod
    def of(
        cls,
        model: BayesianFlow,
        thetas: list[Tensor],
        size: int,
        points: Tensor,
        seed: int,
        conditions: Tensor | None = None,
    ) -> KnownNetworks:
        """Samples of ``size`` events each, and the truth, of networks of which the weights are known.

        ``conditions [R N + B, k]`` are those of the samples and then of the points.
        """
        events = len(thetas) * size
        at = None if conditions is None else conditions[events:].to(points)
        context = None if conditions is None else conditions[:events].to(points).reshape(len(thetas), size, -1)
        with seeded(stream(seed, "recovery", 3), model.device), torch.no_grad():
            samples = torch.stack(
                [model.sample_events(theta, size, _row(context, r)) for r, theta in enumerate(thetas)]
            )
            truth = np.stack(
                [
                    _quantities(partial(model.log_prob, theta), points, samples[r], at, _row(context, r))
                    for r, theta in enumerate(thetas)
                ]
            )
        return cls(model, samples, points, truth, stream(seed, "recovery", 4), context, at)

    def learned_by(self, backend: Learner, draws: int | None, executor: Any = None) -> Calibration:
        """The intervals of a backend that learns the samples, held against the truth."""
        given: dict[str, Any] = {} if self.context is None else {"context": self.context}
        if executor is not None:
            given["executor"] = executor
        posteriors = backend.fit_many(self.model, self.samples, **given)
        # A replica that was left out must not spoil what took long to train.
        draws = None if draws is None else min(posterior.weights.at_most(draws) for posterior in posteriors)

        def values(posterior: Posterior, count: int, own: int) -> Array:
            r = posterior.info.sample or 0

            def log_prob(x: Tensor, context: Tensor | None = None) -> Tensor:
                return posterior.log_prob(x, count, context=context, seed=own)

            return _quantities(log_prob, self.points, self.samples[r], self.at, _row(self.context, r))

        at = np.arange(self.truth.shape[1])
        return count_intervals(posteriors, values, self.truth, draws, at, "probe point", self.seed)


def _row(table: Tensor | None, r: int) -> Tensor | None:
    return None if table is None else table[r]


def _quantities(
    log_prob: Callable[..., Tensor], points: Tensor, sample: Tensor, at: Tensor | None, context: Tensor | None
) -> Array:
    """``[..., B + 1]``: log p at the probe points, and summed over the sample, with the conditions of both."""
    parts = [log_prob(points, at), log_prob(sample, context).sum(-1, keepdim=True)]
    return torch.cat(parts, -1).double().cpu().numpy()
