"""Many networks side by side, with first derivatives written by hand: where samplers spend their time.

Inside :func:`first_derivatives` the linear layers of a :class:`~pyrogen.flows.conditioner.Conditioner` have weights
``[C, outputs, inputs]`` and biases ``[C, outputs]`` of C networks in place of their own; its inputs and outputs are
``[C, N, ...]``. Transforms too may take a faster way. The numbers agree with those of single networks up to
rounding errors. What is gained:

* No :func:`torch.func.vmap`, which takes longer than the operations on some thousand numbers that it batches.
* Features come first, ``[C, features, N]``: products with a batch of narrow matrices are three times faster so.
* ``tanh`` comes from the logistic function, which costs a quarter.
* A network or a transform is one node of the graph, and keeps only what its derivative needs.

There are no second derivatives: asking for them is an error.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_here = threading.local()


@contextmanager
def first_derivatives() -> Iterator[None]:
    """In this thread, flows have the weights of C networks, and need no more than first derivatives."""
    before = is_fused()
    _here.fused = True
    try:
        yield
    finally:
        _here.fused = before


def is_fused() -> bool:
    """Whether flows have the weights of C networks here, and need no more than first derivatives."""
    return getattr(_here, "fused", False)


def can_stand_side_by_side(layers: nn.Sequential) -> bool:
    """Whether these are linear layers with biases and one kind of :data:`ACTIVATIONS` between them."""
    linear, between = list(layers)[::2], {type(layer) for layer in list(layers)[1::2]}
    known = not between or (len(between) == 1 and between <= ACTIVATIONS.keys())
    return known and all(type(layer) is nn.Linear and layer.bias is not None for layer in linear)


def side_by_side(layers: nn.Sequential, inputs: Tensor) -> Tensor:
    """Outputs ``[C, N, outputs]`` of C multilayer perceptrons, whose weights are in the layers, for inputs
    ``[C, N, inputs]``."""
    weights = [weights for layer in list(layers)[::2] for weights in (layer.weight, layer.bias)]
    activation = type(layers[1]) if len(layers) > 1 else None
    outputs: Tensor = _Networks.apply(inputs.mT.contiguous(), activation, *weights)
    return outputs.mT


def _tanh(weight: Tensor, bias: Tensor, inputs: Tensor) -> Tensor:
    return _affine(2 * weight, 2 * bias, inputs).sigmoid_().mul_(2).sub_(1)


def _relu(weight: Tensor, bias: Tensor, inputs: Tensor) -> Tensor:
    return _affine(weight, bias, inputs).relu_()


def _affine(weight: Tensor, bias: Tensor, inputs: Tensor) -> Tensor:
    return torch.baddbmm(bias.unsqueeze(-1), weight, inputs)


def _tanh_backward(gradient: Tensor, values: Tensor) -> Tensor:
    return torch.ops.aten.tanh_backward.grad_input(gradient, values, grad_input=gradient)


def _relu_backward(gradient: Tensor, values: Tensor) -> Tensor:
    return torch.ops.aten.threshold_backward.grad_input(gradient, values, 0, grad_input=gradient)


#: Hidden layers with an activation, and the gradient in front of it from that behind it and the layer's values, in
#: place: memory that is not in the cache costs as much as the computation.
ACTIVATIONS: dict[type[nn.Module], tuple[Callable[..., Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    nn.Tanh: (_tanh, _tanh_backward),
    nn.ReLU: (_relu, _relu_backward),
}


class _Networks(torch.autograd.Function):
    """Multilayer perceptrons of inputs ``[C, inputs, N]``."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, activation: type[nn.Module] | None, *weights: Tensor) -> Tensor:
        values = [inputs]
        for weight, bias in zip(weights[:-2:2], weights[1:-2:2], strict=True):
            assert activation is not None
            values.append(ACTIVATIONS[activation][0](weight, bias, values[-1]))
        ctx.activation = activation
        ctx.save_for_backward(*weights[::2], *values)
        return _affine(weights[-2], weights[-1], values[-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        layers = len(ctx.saved_tensors) // 2
        weights, values = ctx.saved_tensors[:layers], ctx.saved_tensors[layers:]
        found: list[Tensor] = []
        gradient = gradient.contiguous()  # features first, or every product would be in the slow order
        for layer in reversed(range(layers)):
            found[:0] = [torch.bmm(gradient, values[layer].mT), gradient.sum(-1)]
            if layer:
                gradient = ACTIVATIONS[ctx.activation][1](torch.bmm(weights[layer].mT, gradient), values[layer])
        first = torch.bmm(weights[0].mT, gradient) if ctx.needs_input_grad[0] else None
        return first, None, *found
