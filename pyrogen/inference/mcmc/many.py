"""One model trained on many independent samples at once: what a coverage study needs, affordably.

The samples are a batch dimension, as the chains of a sampler are: one gradient evaluation serves all of them. A backend
that cannot be batched so trains on one sample after another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm import trange

from pyrogen.bayes.model import BayesianFlow
from pyrogen.events import EventSample
from pyrogen.inference.mcmc.chains import SamplingRun
from pyrogen.inference.run.data import TrainingData, check_on_support
from pyrogen.inference.run.potential import Potential, independent_starts
from pyrogen.posterior.posterior import Posterior
from pyrogen.seeds import stream

if TYPE_CHECKING:
    from pyrogen.inference.mcmc.sampler import Sampler


@dataclass(frozen=True)
class ReplicaData(TrainingData):
    """R checked samples of the same size: as :class:`TrainingData`, with events ``[R, N, d]`` and no weights.

    Attributes:
        digests: SHA-256 of every sample.
    """

    digests: tuple[str, ...] = ()


def prepare_replicas(settings: Any, model: BayesianFlow, samples: Any) -> tuple[BayesianFlow, ReplicaData]:
    """The model prepared for R checked samples of one size, in the ``dtype`` and on the ``device`` of the settings.

    Constants of the preprocessing that are not yet set are fitted to all samples together: there is one model.

    Raises:
        ValueError: samples that cannot be learned from, the number of the first one named.
    """
    parts = _checked(settings, model, samples)
    events = torch.stack([part.events for part in parts])
    model = model.prepare(events.flatten(0, 1), dtype=settings.dtype, device=settings.device)
    check_on_support(model, events.flatten(0, 1))
    digests = tuple(part.digest for part in parts)
    together = hashlib.sha256("".join(digests).encode()).hexdigest()
    return model, ReplicaData(events, None, None, parts[0].names, parts[0].units, together, digests)


def _checked(settings: Any, model: BayesianFlow, samples: Any) -> list[TrainingData]:
    if isinstance(samples, EventSample) or len(samples) == 0 or getattr(samples, "ndim", 3) != 3:
        raise ValueError("samples must be several samples of events: a sequence of [N, d], or an array [R, N, d]")
    if model.context:
        raise ValueError("fit_many takes no conditions; fit a conditional flow to one sample after another")
    parts = []
    for r, sample in enumerate(samples):
        try:
            dtype = settings.dtype or model.dtype
            parts.append(TrainingData.check(model, sample, None, None, dtype, settings.device))
        except ValueError as error:
            raise ValueError(f"sample {r}: {error}") from error
        if parts[r].events.shape[1] != parts[0].events.shape[1]:
            raise ValueError(
                f"sample {r} has {parts[r].events.shape[1]} features, sample 0 has {parts[0].events.shape[1]}"
            )
    return parts


def obstacle(samples: Any) -> str | None:
    """Why samples cannot be one batch; None where they can."""
    sizes = {len(sample) for sample in samples}
    if len(sizes) > 1:
        return f"the samples have between {min(sizes)} and {max(sizes)} events"
    if any(isinstance(sample, EventSample) and sample.weights is not None for sample in samples):
        return "the samples have event weights"
    return None


def fit_one_by_one(backend: Any, model: BayesianFlow, samples: Sequence[Any], reason: str) -> list[Posterior]:
    """A posterior for every sample, one after another: each with a seed, a start and a checkpoint of its own.

    As in one batch, constants of the preprocessing that are not yet set are fitted to all samples together.
    """
    parts = _checked(backend, model, samples)
    weights = [part.weights for part in parts if part.weights is not None]
    if weights and len(weights) < len(parts):
        raise ValueError(
            f"{len(weights)} of {len(parts)} samples have event weights; give all of them weights, or none"
        )
    together = torch.cat([part.events for part in parts])
    model = model.prepare(together, torch.cat(weights) if weights else None, dtype=backend.dtype, device=backend.device)
    starts = independent_starts(model, len(parts), stream(backend.seed, 2))
    posteriors = []
    for r in trange(len(samples), desc="samples", unit="sample", disable=not backend.progress):
        changes: dict[str, Any] = {"seed": stream(backend.seed, r, 1) % 2**31, "progress": False}
        if backend.checkpoint is not None:
            path = Path(backend.checkpoint)
            changes["checkpoint"] = path.with_name(f"{path.stem}.{r}{path.suffix}")
        model.initial_theta.copy_(starts[r])  # of this copy of the model, which fit copies again
        posteriors.append(replace(backend, **changes).fit(model, samples[r]))
        posteriors[-1].info |= {"sample": r, "samples": len(samples), "batched": False, "batched_reason": reason}
    return posteriors


class ReplicaPotential(Potential):
    """The potentials of C chains on R samples: the first C/R chains see the first sample, and so on."""

    def __init__(self, model: BayesianFlow, data: ReplicaData, *, compile: bool = False) -> None:
        self.samples = data.events
        super().__init__(model, data, compile=compile)
        self.size = data.events.shape[1]
        self.effective_size = self.size

    def _rows(self, rows: Any, chains: int = 1) -> tuple[Tensor, Tensor | None, Tensor | None]:
        each = max(1, chains // len(self.samples))
        if isinstance(rows, Tensor) and rows.ndim == 2:  # every chain has rows of its own
            owner = torch.arange(chains, device=rows.device) // each
            return self.samples[owner[:, None], rows], None, None
        return self.samples[:, rows].repeat_interleave(each, 0)[:chains], None, None


class ReplicaRun(SamplingRun):
    """The loop of a sampler whose chains are shared out among R samples."""

    data: ReplicaData

    def make_potential(self) -> Potential:
        return ReplicaPotential(self.model, self.data, compile=self.sampler.compile)

    def posteriors(self) -> list[Posterior]:
        """One posterior per sample, of its own chains."""
        draws = self.sample_chains()
        history = self.history()
        each = self.sampler.chains // len(self.data.events)
        found = []
        for r in range(len(self.data.events)):
            mine = slice(r * each, (r + 1) * each)
            posterior = self.posterior(draws[mine], {name: values[mine] for name, values in history.items()})
            posterior.info |= {"sample": r, "samples": len(self.data.events), "batched": True}
            posterior.info["data_sha256"] = self.data.digests[r]
            found.append(posterior)
        return found


def sample_many(sampler: Sampler, model: BayesianFlow, samples: Any) -> list[Posterior]:
    """What :meth:`~pyrogen.inference.mcmc.sampler.Sampler.fit_many` does."""
    reason = obstacle(samples)
    if sampler.loop is not SamplingRun:
        reason = f"{type(sampler).__name__} runs one chain after another"
    elif isinstance(sampler.start, Posterior):
        reason = "the chains start at one posterior's draws"
    if reason is not None:
        return fit_one_by_one(sampler, model, samples, reason)
    model, data = prepare_replicas(sampler, model, samples)
    return ReplicaRun(replace(sampler, chains=sampler.chains * len(data.events)), model, data).posteriors()
