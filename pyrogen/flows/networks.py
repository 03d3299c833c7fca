"""Many coupling flows of one architecture, each with weights of its own, evaluated together and without gradients.

Predictions need no gradients, but many networks at the same events. Here events are the last dimension, ``[K, d, N]``:
rows of N numbers are what vector instructions take, one matrix product serves all K networks, and activations
overwrite each other. The numbers are those of :class:`CouplingFlow`, to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pyrogen.flows.conditioner import Conditioner
from pyrogen.flows.coupling import CouplingBlock, CouplingFlow
from pyrogen.flows.mixings import Alternate, Mixing, Permutation, Rotation


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
    def fits(flow: nn.Module) -> bool:
        """Whether a flow is made of pyrogen's own parts, but for its transforms and mixings, which may be anybody's."""
        return type(flow) is CouplingFlow and all(
            type(block) is CouplingBlock
            and type(block.conditioner) is Conditioner
            and all(type(layer) is nn.Linear or not list(layer.parameters()) for layer in block.conditioner.layers)
            for block in flow.blocks
        )

    @torch.inference_mode()
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

    @torch.inference_mode()
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
        self.layers: list[tuple[Tensor, Tensor] | nn.Module] = []
        for i, layer in enumerate(block.conditioner.layers):
            if not isinstance(layer, nn.Linear):
                self.layers.append(layer)
                continue
            name = f"blocks.{number}.conditioner.layers.{i}."
            matrix, bias = weights[name + "weight"], weights[name + "bias"].unsqueeze(-1)
            if block.transformed > 1 and i == len(block.conditioner.layers) - 1:
                # All features of a parameter stand together, so that each parameter is a row.
                matrix, bias = (
                    each.unflatten(1, (block.transformed, -1)).transpose(1, 2).flatten(1, 2) for each in (matrix, bias)
                )
            self.layers.append((matrix[0], bias[0]) if len(matrix) == 1 else (matrix, bias))

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
        for layer in self.layers:
            if isinstance(layer, tuple):
                matrix, bias = layer
                hidden = (torch.addmm if matrix.ndim == 2 else torch.baddbmm)(bias, matrix, hidden)
            else:
                hidden = torch.relu_(hidden) if type(layer) is nn.ReLU else layer(hidden)
        return hidden


def _mixed(mixing: nn.Module, values: Tensor, inverse: bool) -> Tensor:
    """Rows ``[..., d, N]`` on the other side of a mixing."""
    if isinstance(mixing, Alternate):
        return values
    if isinstance(mixing, Permutation):
        return values.index_select(-2, mixing._back if inverse else mixing.order)
    if isinstance(mixing, Rotation):
        return torch.matmul(mixing.rotation.mT if inverse else mixing.rotation, values)
    assert isinstance(mixing, Mixing)
    return (mixing.inverse if inverse else mixing.forward)(values.mT).mT.clone(memory_format=torch.contiguous_format)
