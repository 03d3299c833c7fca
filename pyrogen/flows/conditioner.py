"""The network of a coupling block, which predicts the parameters of its transform."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyrogen.flows.compiled import fusible, is_fusible
from pyrogen.flows.fused import is_fused, side_by_side
from pyrogen.printing import Shown

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "elu": nn.ELU, "tanh": nn.Tanh}


class Conditioner(Shown, nn.Module):
    """A multilayer perceptron with torch's usual initial weights.

    (A last layer that starts at zero makes every block the identity, which is a saddle point for affine blocks: one
    block alone cannot improve on a Gaussian, and a deep flow stays there for hundreds of steps.)

    Args:
        inputs: number of inputs; with none, the network sees a constant 1 and predicts free parameters.
        hidden: units of each hidden layer.
        outputs: number of outputs.
        activation: a name in :data:`ACTIVATIONS`.
    """

    def __init__(self, inputs: int, hidden: Sequence[int], outputs: int, activation: str = "relu") -> None:
        super().__init__()
        self.constant_input = inputs == 0
        self.sizes, self.activation = [max(inputs, 1), *hidden, outputs], activation
        layers: list[nn.Module] = []
        for width_in, width_out in zip(self.sizes, self.sizes[1:], strict=False):
            layers += [nn.Linear(width_in, width_out), ACTIVATIONS[activation]()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs ``[..., inputs]`` to ``[..., outputs]``; for C networks at once see :mod:`pyrogen.flows.fused`."""
        if self.constant_input:
            inputs = inputs.new_ones(*inputs.shape[:-1], 1)
        if torch.compiler.is_compiling() and is_fusible(self.layers):
            return fusible(self.layers, inputs)
        if is_fused():
            return side_by_side(self.layers, inputs)
        return self.layers(inputs)

    def __repr__(self) -> str:
        # One line: the layers one below another would hide the rest of a printed flow.
        first = "a constant" if self.constant_input else str(self.sizes[0])
        return f"{type(self).__name__}({' -> '.join([first, *map(str, self.sizes[1:])])}, {self.activation})"
