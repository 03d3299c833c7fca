"""Adam on a CPU, for processes that train and do nothing else with torch's optimizers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

EPSILON = 1e-8
RATE = 1e-3  # until another one is set, as in torch


class CpuAdam:
    """What ``torch.optim.Adam`` does on a CPU, to the same bits [Kingma and Ba, arXiv:1412.6980].

    The first of torch's optimizers in a process imports torch's compiler, which takes as long as ``import pyro``.

    Args:
        groups: groups of parameters, each with a rate of its own: ``param_groups[i]["lr"]``.
        betas: what is kept of the moments in a step.
    """

    def __init__(self, groups: Sequence[Sequence[Tensor]], betas: tuple[float, float]) -> None:
        self.param_groups: list[dict[str, Any]] = [{"params": list(group), "lr": RATE} for group in groups]
        self.betas = betas
        self.state: dict[Tensor, dict[str, Tensor]] = {}

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        for parameter in self._parameters():
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """A step of all parameters that have a gradient."""
        beta1, beta2 = self.betas
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                if parameter not in self.state:
                    first, second = torch.zeros_like(parameter), torch.zeros_like(parameter)
                    self.state[parameter] = {"step": torch.tensor(0.0), "exp_avg": first, "exp_avg_sq": second}
                state = self.state[parameter]
                state["step"] += 1
                steps = state["step"].item()
                first = state["exp_avg"].lerp_(gradient, 1 - beta1)
                second = state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
                width = (second.sqrt() / (1 - beta2**steps) ** 0.5).add_(EPSILON)
                parameter.addcdiv_(first, width, value=-group["lr"] / (1 - beta1**steps))

    def state_dict(self) -> dict[str, Any]:
        """The moments by the number of their parameter, and the rates."""
        numbers = {parameter: i for i, parameter in enumerate(self._parameters())}
        groups = [{"params": [numbers[p] for p in group["params"]], "lr": group["lr"]} for group in self.param_groups]
        return {"state": {numbers[p]: dict(state) for p, state in self.state.items()}, "param_groups": groups}

    def load_state_dict(self, found: Mapping[str, Any]) -> None:
        """Take up what :meth:`state_dict` of this or of torch's Adam gave."""
        for group, rates in zip(self.param_groups, found["param_groups"], strict=True):
            group["lr"] = rates["lr"]
        parameters = self._parameters()
        self.state = {
            parameters[i]: {name: value.detach().clone() for name, value in state.items()}
            for i, state in found["state"].items()
        }

    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.param_groups for parameter in group["params"]]
