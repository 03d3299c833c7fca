"""Networks of a Bayesian flow with drawn weights, for predictions: their densities and events, without gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from pyrogen.bayes.contract import check_output
from pyrogen.bayes.model import BayesianFlow
from pyrogen.flows.chain_networks import together
from pyrogen.flows.compiled import CompiledSteps
from pyrogen.memory import in_chunks


class DrawnNetworks:
    """K networks of a model. pyrogen's own flows are evaluated together, others one after another.

    Args:
        model: the model.
        thetas: their weights ``[K, P]``.
        compiled: what runs densities as compiled code, network by network, where that is asked for.
    """

    def __init__(self, model: BayesianFlow, thetas: Tensor, compiled: CompiledSteps | None = None) -> None:
        self.model, self.thetas, self._compiled = model, thetas, compiled or CompiledSteps(False)
        self._together = together(model.flow, model.packing.names, model.packing.split(thetas))

    @torch.no_grad()
    def log_prob(self, inner: Tensor, *conditions: Tensor) -> Tensor:
        """Log densities ``[K, N]`` of events ``[N, d]`` and conditions ``[N, k]``, both in the flow's variables."""
        if self._together is not None and not self._compiled.active:
            return self._together.log_prob(inner, *conditions)
        n, given = len(inner), (inner, *conditions)
        if self._compiled.active:
            given = tuple(_padded(each) for each in given)
        each = (partial(self._one, theta, *given) for theta in self.thetas)
        return torch.stack([self._compiled.run(one) for one in each])[:, :n]

    def _one(self, theta: Tensor, inner: Tensor, *conditions: Tensor) -> Tensor:
        """Log densities ``[N]`` of one network ``theta [P]``."""
        found = self.model.packing.call(theta, "log_prob", inner, *conditions)
        return check_output(self.model.flow, "log_prob", found, inner.shape[:-1])

    @torch.no_grad()
    def sample(self, parts: Sequence[int], context: Tensor | None, rows: int) -> Iterator[Tensor]:
        """Events ``[m, d]`` of the first network, in the units of the events.

        Args:
            parts: sizes of the parts of the random stream, which decide the random numbers.
            context: conditions ``[sum of parts, k]``.
            rows: number of events evaluated at once, which decides nothing but memory and speed.
        """
        if self._together is None:
            start = 0
            for n in parts:
                given = None if context is None else context[start : start + n]
                yield self.model.sample_events(self.thetas[0], n, given)
                start += n
            return
        latent = torch.cat([self._together.latent(n, self.thetas) for n in parts])
        conditions = self.model._conditions(context)
        networks = self._together

        def events(some: slice) -> Tensor:
            inner = networks.events(latent[some], *(each[some] for each in conditions))[0]
            inner = inner.clone(memory_format=torch.contiguous_format)  # outside of inference mode
            return self.model.preprocessing.inverse(inner.to(self.model.input_dtype))[0]

        for _, found in in_chunks(events, len(latent), rows):
            yield found


def _padded(rows: Tensor) -> Tensor:
    """The rows, and the last one repeated up to a power of two: code is compiled for each number of rows."""
    size = 1 << (len(rows) - 1).bit_length()
    return torch.cat([rows, rows[-1:].expand(size - len(rows), *rows.shape[1:])])
