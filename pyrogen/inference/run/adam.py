"""Adam on the potential of many networks at once: starting points of samplers, ensembles, Laplace's maximum."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyrogen.inference.run.potential import Whitened
from pyrogen.progress import bar


@dataclass(frozen=True)
class Adam:
    """Adam in the coordinates of a :class:`Whitened` potential, for C networks at once; the rate falls as a cosine.

    Its state is a dictionary of tensors, so that a checkpoint can hold it.
    """

    steps: int
    lr: float = 0.02
    batch_size: int | None = None
    betas: tuple[float, float] = (0.9, 0.999)

    def begin(self, position: Tensor) -> dict[str, Tensor]:
        """The state at the starting points ``position [C, P]``."""
        zeros = torch.zeros_like(position)
        return {"position": position.clone(), "first": zeros, "second": zeros.clone()}

    def advance(self, target: Whitened, state: dict[str, Tensor], step: int, generator: torch.Generator) -> Tensor:
        """One step in place; returns the potential ``[C]`` before it (of the mini-batch, scaled to the sample).

        A network whose potential or gradient is not finite stays where it is, and its potential is returned as NaN.
        """
        chains = len(state["position"])
        rows = None
        if self.batch_size is not None and self.batch_size < target.size:
            rows = target.batches(chains, self.batch_size, generator)
        value, gradient = target.value_and_gradient(state["position"], rows)
        finite = (gradient.isfinite().all(1) & value.isfinite())[:, None]
        gradient = torch.where(finite, gradient, 0.0)
        beta1, beta2 = self.betas
        state["first"] = beta1 * state["first"] + (1 - beta1) * gradient
        state["second"] = beta2 * state["second"] + (1 - beta2) * gradient.square()
        first = state["first"] / (1 - beta1 ** (step + 1))
        second = state["second"] / (1 - beta2 ** (step + 1))
        lr = self.lr * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / self.steps))).item()
        state["position"] = state["position"] - lr * torch.where(finite, first / (second.sqrt() + 1e-8), 0.0)
        return torch.where(finite[:, 0], value, torch.nan)

    def run(self, target: Whitened, position: Tensor, generator: torch.Generator, progress: bool = False) -> Tensor:
        """All steps from ``position [C, P]``; returns where they end."""
        state = self.begin(position)
        with bar(self.steps, "start", "step", show=progress, brief=True) as shown:
            for step in range(self.steps):
                self.advance(target, state, step, generator)
                shown.update()
        return state["position"]
