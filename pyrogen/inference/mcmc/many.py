"""Chains on many samples in one batch: what a coverage study needs, affordably.

The samples are a batch dimension, as the chains of a sampler are: one gradient evaluation serves all of them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pyrogen.bayes.model import BayesianFlow
from pyrogen.inference.mcmc.chains import SamplingRun
from pyrogen.inference.run.data import ManySamples
from pyrogen.inference.run.potential import Potential
from pyrogen.posterior.posterior import Posterior


class ManyPotential(Potential):
    """The potentials of C chains on R samples: the first C/R chains see the first sample, and so on."""

    def __init__(self, model: BayesianFlow, data: ManySamples, *, compile: bool = False) -> None:
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


class ManyRun(SamplingRun):
    """The loop of a sampler whose chains are shared out among R samples."""

    data: ManySamples

    def make_potential(self) -> Potential:
        return ManyPotential(self.model, self.data, compile=self.kernel.compile)

    def posteriors(self) -> list[Posterior]:
        """One posterior per sample, of its own chains."""
        draws = self.sample_chains()
        history = self.history()
        each = self.kernel.chains // len(self.data.events)
        found = []
        for r in range(len(self.data.events)):
            mine = slice(r * each, (r + 1) * each)
            posterior = self.posterior(draws[mine], {name: values[mine] for name, values in history.items()})
            samples, own = len(self.data.events), self.data.digests[r]
            posterior.info = replace(posterior.info, sample=r, samples=samples, batched=True, data_sha256=own)
            found.append(posterior)
        return found
