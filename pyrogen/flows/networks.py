"""Many coupling flows of one architecture, each with weights of its own, evaluated together and without gradients.

Predictions need no gradients, but many networks at the same events. Here events are the last dimension, ``[K, d, N]``:
rows of N numbers are what vector instructions take, and one matrix product serves all K networks. The numbers are those
of :class:`CouplingFlow`, to rounding.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from pyrogen.flows.conditioner import ACTIVATIONS, Conditioner
from pyrogen.flows.coupling import CouplingBlock, CouplingFlow
from pyrogen.flows.mixings import Alternate, Mixing, Permutation, Rotation
from pyrogen.flows.spaces import Latent

Method = TypeVar("Method", bound=Callable[..., Any])

KNOWN = set(ACTIVATIONS.values())  # which act on every number by itself
OWN = ("weight", "bias")  # parameters of a linear layer
METHODS = {"forward", "inverse", "log_prob", "sample"}

#: Inference mode saves a twentieth of the time of ``no_grad``.
inference = torch.inference_mode


def without_gradients(method: Method) -> Method:
    @functools.wraps(method)
    def quiet(*args: Any, **kwargs: Any) -> Any:
        with inference():
            return method(*args, **kwargs)

    return quiet  # type: ignore[return-value]


class Networks:
    """K networks of the architecture of ``flow``.

    Args:
        flow: a flow for which :meth:`fits` is true; of its own weights none is used.
        weights: by the names of the flow's parameters, ``[K, *shape]``.
    """

    def __init__(self, flow: CouplingFlow, weights: Mapping[str, Tensor]) -> None:
        self.flow = flow
        self.count = len(next(iter(weights.values())))
        self._blocks = [_Block(block, i, weights) for i, block in enumerate(flow.blocks)]  # type: ignore[arg-type]

    @staticmethod
    def fits(flow: nn.Module, names: Iterable[str] | None = None) -> bool:
        """Whether a flow is made of pyrogen's own parts, but for its transforms and mixings, which may be anybody's.

        All its parameters must be where the weights are looked for: in linear layers of its conditioners, with known
        activations between them, and no two layers the same. Hooks and methods of single objects would be lost.

        Args:
            flow: the flow.
            names: of its parameters, where they are known; to find them takes longer than all else.
        """
        if type(flow) is not CouplingFlow or type(flow.latent) is not Latent:
            return False
        parts, looked_for = [flow, flow.latent, *flow.mixings], set()
        for i, block in enumerate(flow.blocks):
            if type(block) is not CouplingBlock or type(block.conditioner) is not Conditioner:
                return False
            layers = list(block.conditioner.layers)
            if not plain_layers(layers):
                return False
            parts += [block, block.conditioner, block.conditioner.layers, *layers]
            looked_for |= {f"blocks.{i}.conditioner.layers.{k}.{of}" for k in range(0, len(layers), 2) for of in OWN}
        found = (name for name, _ in flow.named_parameters()) if names is None else names
        return looked_for == set(found) and not any(map(is_altered, parts))

    def latent(self, n: int, like: Tensor) -> Tensor:
        """``n`` latent values ``[n, d]``, of the type and on the device of ``like``."""
        return self.flow.latent.sample(n, like)

    @without_gradients
    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log densities ``[K, N]`` of events ``x [N, d]`` with conditions ``context [N, k]``."""
        flow, context = self.flow, self.flow._check(x, context)
        if flow.event_angles is not None:
            x = flow.event_angles.to_box(x)
        values, given = self._rows(x), None if context is None else self._rows(context)
        log_det = values.new_zeros(*values.shape[:-2], values.shape[-1])
        for mixing, block in zip(reversed(flow.mixings), reversed(self._blocks), strict=True):
            log_det += block.apply(values, given, inverse=True)
            values = _mixed(mixing, values, inverse=True)
        z = values.mT
        if flow.latent_angles is not None:
            z = flow.latent_angles.from_box(z)
        return (flow.latent.log_prob(z) + log_det).view(self.count, len(x))

    @without_gradients
    def events(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Events ``[K, N, d]`` of latent values ``z [N, d]`` with conditions ``context [N, k]``."""
        flow, context = self.flow, self.flow._check(z, context)
        if flow.latent_angles is not None:
            z = flow.latent_angles.to_box(z)
        values, given = self._rows(z), None if context is None else self._rows(context)
        for mixing, block in zip(flow.mixings, self._blocks, strict=True):
            values = _mixed(mixing, values, inverse=False)
            block.apply(values, given, inverse=False)
        x = values.mT.view(self.count, *z.shape)
        return x if flow.event_angles is None else flow.event_angles.from_box(x)

    def _rows(self, values: Tensor) -> Tensor:
        """A copy of ``values [N, d]`` for every network, ``[K, d, N]``; of one network ``[d, N]``."""
        shape = (self.count, *values.mT.shape) if self.count > 1 else values.mT.shape
        return values.mT.expand(shape).clone(memory_format=torch.contiguous_format)


class _Block:
    """A coupling block of K networks, on rows.

    Args:
        block: the block.
        number: its place in the flow.
        weights: those of the whole flow.
    """

    def __init__(self, block: CouplingBlock, number: int, weights: Mapping[str, Tensor]) -> None:
        self.block = block
        features, kept = block.kept + block.transformed, block.kept
        self.moved = slice(0, features - kept) if block.first else slice(kept, features)
        self.kept = slice(features - kept, features) if block.first else slice(0, kept)
        layers = list(block.conditioner.layers)
        self.matrices: list[tuple[Tensor, Tensor]] = []  # [K, out, in] and [K, out]
        self.activations = [layer for layer in layers if not isinstance(layer, nn.Linear)]
        for i, layer in enumerate(layers):
            if isinstance(layer, nn.Linear):
                name = f"blocks.{number}.conditioner.layers.{i}."
                self.matrices.append((weights[name + "weight"], weights[name + "bias"]))
        if block.transformed > 1:  # all features of a parameter stand together, so that each parameter is a row
            matrix, bias = self.matrices[-1]
            self.matrices[-1] = tuple(  # type: ignore[assignment]
                each.unflatten(1, (block.transformed, -1)).transpose(1, 2).flatten(1, 2) for each in (matrix, bias)
            )

    def apply(self, values: Tensor, context: Tensor | None, inverse: bool) -> Tensor:
        """Transform some of the rows of ``values [..., d, N]`` in place; gives the log-derivative ``[..., N]``."""
        transform = self.block.transform
        raw = self._parameters(values[..., self.kept, :], context)
        parameters = raw.unflatten(-2, (-1, self.block.transformed)).transpose(-1, -3)  # [..., N, k, P]
        moved = values[..., self.moved, :]
        new, log_derivative = (transform.inverse if inverse else transform.forward)(moved.mT, parameters)
        moved.copy_(new.mT)
        return log_derivative[..., 0] if self.block.transformed == 1 else log_derivative.sum(-1)

    def _parameters(self, kept: Tensor, context: Tensor | None) -> Tensor:
        """What the network predicts, ``[..., P k, N]``, from the kept rows and the conditions."""
        block, inputs = self.block, [kept]
        if block.circles is not None and block.lines is not None:
            angle = block._turn * kept.index_select(-2, block.circles)
            inputs = [kept.index_select(-2, block.lines), torch.cos(angle), torch.sin(angle)]
        if context is not None:
            inputs.append(context)
        hidden = torch.cat(inputs, -2) if len(inputs) > 1 else kept
        if block.conditioner.constant_input:
            hidden = kept.new_ones(*kept.shape[:-2], 1, kept.shape[-1])
        return self._one(hidden) if hidden.ndim == 2 else self._several(hidden)

    def _one(self, hidden: Tensor) -> Tensor:
        """The layers of a single network; one operation for matrix, bias and ReLU."""
        *inner, (matrix, bias) = self.matrices
        hidden = hidden.mT
        for (its_matrix, its_bias), activation in zip(inner, self.activations, strict=True):
            if type(activation) is nn.ReLU:
                hidden = torch._addmm_activation(its_bias[0], hidden, its_matrix[0].mT)
            else:
                hidden = activation(torch.addmm(its_bias[0], hidden, its_matrix[0].mT))
        return torch.addmm(bias[0].unsqueeze(-1), matrix[0], hidden.mT)

    def _several(self, hidden: Tensor) -> Tensor:
        """The layers of K networks; one operation for the matrices of all."""
        for i, (matrix, bias) in enumerate(self.matrices):
            if i:
                activation = self.activations[i - 1]
                hidden = torch.relu_(hidden) if type(activation) is nn.ReLU else activation(hidden)
            hidden = torch.baddbmm(bias.unsqueeze(-1), matrix, hidden)
        return hidden


def plain_layers(layers: Iterable[nn.Module]) -> bool:
    """Whether layers are linear ones with biases and known activations between them."""
    layers = list(layers)
    linear = all(type(layer) is nn.Linear and layer.bias is not None for layer in layers[::2])
    return linear and len(layers) % 2 == 1 and {type(layer) for layer in layers[1::2]} <= KNOWN


def is_altered(module: nn.Module) -> bool:
    """Whether a module has hooks, or methods that its class does not have."""
    return bool(module._forward_hooks or module._forward_pre_hooks) or not METHODS.isdisjoint(vars(module))


def _mixed(mixing: nn.Module, values: Tensor, inverse: bool) -> Tensor:
    """Rows ``[..., d, N]`` on the other side of a mixing."""
    if type(mixing) is Alternate:  # a subclass may do something else
        return values
    if type(mixing) is Permutation:
        return values.index_select(-2, mixing._back if inverse else mixing.order)
    if type(mixing) is Rotation:
        return torch.matmul(mixing.rotation.mT if inverse else mixing.rotation, values)
    assert isinstance(mixing, Mixing)
    return (mixing.inverse if inverse else mixing)(values.mT).mT.clone(memory_format=torch.contiguous_format)
