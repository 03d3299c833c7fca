"""Adam on the potential of many networks at once: starting points of samplers, ensembles, Laplace's maximum."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyrogen.inference.run.potential import Whitened
from pyrogen.progress import bar

NAMES = ("position", "first", "second")  # of the tensors of its state


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
        numbers = torch.tensor(self._numbers(step), dtype=torch.float64).to(state["position"].device, non_blocking=True)
        found = target.launch(
            f"{self}",
            lambda *its: self._advanced(target, generator, *its),
            generator,
            *(state[name] for name in NAMES),
            numbers,
        )
        state.update(zip(NAMES, found, strict=False))
        return found[-1]

    def rate(self, step: int) -> float:
        """Learning rate at a step."""
        return self.lr * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / self.steps))).item()

    def _numbers(self, step: int) -> tuple[float, float, float]:
        """Learning rate and the corrections of both moments at a step."""
        beta1, beta2 = self.betas
        return self.rate(step), 1 - beta1 ** (step + 1), 1 - beta2 ** (step + 1)

    def _advanced(
        self,
        target: Whitened,
        generator: torch.Generator,
        position: Tensor,
        first: Tensor,
        second: Tensor,
        numbers: Tensor,
    ) -> tuple[Tensor, ...]:
        """Position and moments after a step, and the potential before it."""
        rows = None
        if self.batch_size is not None and self.batch_size < target.size:
            rows = target.batches(len(position), self.batch_size, generator)
        value, gradient = target.value_and_gradient(position, rows)
        return self.moved(position, first, second, value, gradient, numbers)

    def moved(
        self, position: Tensor, first: Tensor, second: Tensor, value: Tensor, gradient: Tensor, numbers: Tensor
    ) -> tuple[Tensor, ...]:
        """Position and moments after a step along a gradient ``[C, P]``, and its value ``[C]``, NaN where it is none.

        ``numbers`` are the learning rate and the corrections of both moments.
        """
        finite = (gradient.isfinite().all(1) & value.isfinite())[:, None]
        gradient = torch.where(finite, gradient, 0.0)
        beta1, beta2 = self.betas
        lr, correction1, correction2 = numbers.unbind()
        first = beta1 * first + (1 - beta1) * gradient
        second = beta2 * second + (1 - beta2) * gradient.square()
        direction = first / correction1 / ((second / correction2).sqrt() + 1e-8)
        position = position - lr * torch.where(finite, direction, 0.0)
        return position, first, second, torch.where(finite[:, 0], value, torch.nan)

    def run(self, target: Whitened, position: Tensor, generator: torch.Generator, progress: bool = False) -> Tensor:
        """All steps from ``position [C, P]``; returns where they end."""
        state = self.begin(position)
        with bar(self.steps, "start", "step", show=progress, brief=True) as shown:
            for step in range(self.steps):
                self.advance(target, state, step, generator)
                shown.update()
        return state["position"]
