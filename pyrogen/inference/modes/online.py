"""Online bagging: the replicas of a bootstrap, which learn from a stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyrogen.bayes.model import BayesianFlow
from pyrogen.inference.modes.judging import judged, probed
from pyrogen.inference.modes.resampling import SCHEMES, split_mix
from pyrogen.inference.problems import report
from pyrogen.inference.run.adam import Adam
from pyrogen.inference.run.data import TrainingData
from pyrogen.inference.run.potential import Potential, independent_starts
from pyrogen.inference.run.stream import Rows, Seen
from pyrogen.inference.run.stream_buffer import EventBuffer
from pyrogen.inference.run.stream_learner import Learner, Taken
from pyrogen.posterior.info import Finding
from pyrogen.posterior.posterior import Posterior
from pyrogen.posterior.weights import StoredDraws, WeightPosterior
from pyrogen.seeds import stream

if TYPE_CHECKING:
    from pyrogen.inference.modes.descent import Optimised

NEEDS_A_SIZE = "multinomial"  # which says how often each of N events is drawn, and needs to know N


class StreamPotential(Potential):
    """What R replicas minimise, for the events up to now, of which a buffer holds some.

    The weight of an event in a replica is a function of the replica's key and of the event's number in the stream
    (:mod:`~pyrogen.inference.modes.resampling`): it stays the same as long as the event is there, and a sample of the
    same events in the same order has the same weights in :class:`~pyrogen.Bootstrap` offline.

    Args:
        scheme: a name in :data:`~pyrogen.inference.modes.resampling.SCHEMES`.
        keys: a random number for each replica, ``[R]``.
        model: the prepared model.
        data: the first events.
        buffer: where the events are.
        compile: compile the steps of the flow.

    Attributes:
        totals: sums of the weights of all events up to now, by replica, ``[R]``.
    """

    def __init__(
        self,
        scheme: str,
        keys: Tensor,
        model: BayesianFlow,
        data: TrainingData,
        buffer: EventBuffer,
        compile: bool = False,
    ) -> None:
        self.scheme, self.keys, self.buffer = scheme, keys, buffer
        self.totals = torch.zeros(len(keys), dtype=torch.float64, device=keys.device)
        self.seen = Seen(1, 1.0, 1.0)
        own = replace(data, events=buffer.events, weights=None, context=buffer.context)
        super().__init__(model, own, compile=compile)

    def drawn(self, numbers: Tensor, weights: Tensor | None) -> Tensor:
        """Weights ``[R, M]`` of the events with these numbers in the stream and own weights ``[M]``, in float64."""
        bits = split_mix(self.keys, numbers.expand(len(self.keys), -1))
        found = SCHEMES[self.scheme](bits, 0)[1]
        assert found is not None
        return found if weights is None else found * weights.double()

    def _rows(self, rows: Any, chains: int = 1) -> tuple[Tensor, Tensor | None, Tensor | None]:
        if isinstance(rows, slice):
            rows = torch.arange(*rows.indices(len(self.events)), device=self.events.device)
        if rows.ndim == 2:  # the same for all
            rows = rows[0]
        own = None if self.buffer.weights is None else self.buffer.weights[rows]
        keys, self.keys = self.keys, self.keys[:chains]
        weights = self.drawn(self.buffer.numbers[rows], own)
        self.keys = keys
        # Over all events up to now they sum to the effective number of events.
        factor = self.seen.effective_size / self.totals[:chains]
        factor = torch.where(factor.isfinite(), factor, 1.0)[:, None]
        shape = (chains, *[-1] * self.events.ndim)
        context = None if self.context is None else self.context[rows].expand(*shape)
        return self.events[rows].expand(*shape), (weights * factor).to(self.model.dtype), context


class ReplicaLearner(Learner):
    """R networks, each with bootstrap weights and an anchor of its own, trained by Adam.

    All of them see the same batch; the weights make the difference.

    Args:
        settings: the backend, :class:`~pyrogen.Bootstrap`.
        model: the prepared model.
        data: the first events.
        buffer: where the events are.
        early: findings from before the training.

    Raises:
        ValueError: a resampling that needs the number of events.
    """

    def __init__(
        self,
        settings: Optimised,
        model: BayesianFlow,
        data: TrainingData,
        buffer: EventBuffer,
        early: tuple[Finding, ...],
    ) -> None:
        scheme, networks = settings.resampling, settings.replicas  # type: ignore[attr-defined]
        if scheme == NEEDS_A_SIZE:
            raise ValueError(
                'resampling is "multinomial", which needs the number of events, and a stream has none; give '
                'resampling="poisson", which is the same in the limit, or "dirichlet"'
            )
        self.settings, self.model, self.buffer, self.early = settings, model, buffer, early
        keys = [stream(settings.seed, "bootstrap sample", r) for r in range(networks)]
        self.potential = StreamPotential(
            scheme, torch.tensor(keys, dtype=torch.int64, device=model.device), model, data, buffer, settings.compile
        )
        generator = torch.Generator().manual_seed(stream(settings.seed, "anchors"))
        noise = torch.randn(networks, model.weights, generator=generator, dtype=model.dtype)
        self.potential.prior_centre = self.potential.prior_centre + self.potential.prior_scale * noise.to(model.device)
        self.adam = Adam(1, settings.lr)
        self.state = self.adam.begin(independent_starts(model, networks, stream(settings.seed, 1)))
        self.skipped = torch.zeros(networks, dtype=torch.float64, device=model.device)
        self.averaged = []

    @property
    def parameters(self) -> list[Tensor]:
        return [self.state["position"]]

    def admit(self, rows: Rows, first: int) -> None:
        numbers = torch.arange(first, first + len(rows), device=self.model.device)
        own = None if rows.weights is None else rows.weights.to(self.model.device)
        self.potential.totals += self.potential.drawn(numbers, own).sum(1)

    def step(self, places: Tensor, seen: Seen, factor: float, number: int) -> Taken:
        potential, state = self.potential, self.state
        potential.size, potential.effective_size, potential.seen = seen.events, seen.effective_size, seen
        position = state["position"]
        value, gradient = potential.value_and_gradient(position, places.expand(len(position), -1))
        beta1, beta2 = self.adam.betas
        numbers = (self.settings.lr * factor, 1 - beta1 ** (number + 1), 1 - beta2 ** (number + 1))
        names = ("position", "first", "second")
        first, second = state["first"], state["second"]
        told = torch.tensor(numbers, dtype=torch.float64).to(value)
        moved = self.adam.moved(position, first, second, value, gradient, told)
        state.update(zip(names, moved, strict=False))
        scaled = (position - potential.prior_centre) / potential.prior_scale
        kl = 0.5 * scaled.double().square().sum(1) / seen.effective_size
        finite = moved[-1].isfinite()
        self.skipped += ~finite
        return Taken(value / seen.effective_size - kl, kl, finite)

    def tensors(self) -> dict[str, Tensor]:
        return self.state | {"totals": self.potential.totals, "skipped": self.skipped}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        found = {name: value.to(self.model.device) for name, value in tensors.items()}
        self.potential.totals, self.skipped = found.pop("totals"), found.pop("skipped")
        self.state = found

    def weights(self) -> StoredDraws:
        return StoredDraws(self.averaged[0].clone()[:, None])

    @torch.no_grad()
    def finish(self, posterior: Posterior) -> Posterior:
        theta = posterior.weights.arrays["draws"][:, 0]
        rows = probed(len(self.buffer.events), self.buffer.weights).to(theta.device)
        context = None if self.buffer.context is None else self.buffer.context[rows]
        density = torch.stack([self.model.log_prob(its, self.buffer.events[rows], context).double() for its in theta])
        after = f"after {posterior.info.training_events} events; try a smaller lr (now {self.settings.lr})"
        found = judged(-density.mean(1), density, self.skipped, after)
        report(found.findings)
        good = ~found.failed
        weights = StoredDraws(theta[good][:, None])
        info = replace(
            posterior.info,
            findings=(*posterior.info.findings, *self.early, *found.findings),
            details={**posterior.info.details, **found.details},
        )
        kept: dict[int, WeightPosterior] = {
            n: StoredDraws(its.arrays["draws"][good]) for n, its in posterior.snapshots.items()
        }
        judged_one = Posterior(
            self.model, weights, posterior.history, info, progress=posterior.progress, probes=posterior.probes
        )
        judged_one.snapshots = kept
        return judged_one

    def told(self) -> dict[str, Any]:
        return {"compiled": self.potential.compiled.told, "launch": self.potential.launch.told}
