"""The buffers of a flow: what a file has to keep of it besides its weights and arguments."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pyrogen.flows import is_own, upgrade_buffers


def flow_buffers(flow: nn.Module) -> dict[str, Tensor]:
    """A flow's buffers by name.

    Of one of pyrogen's own those that are not derived from its arguments; of another flow all, since
    nobody knows which of them decide the density.
    """
    if not is_own(flow):
        return dict(flow.named_buffers())
    parameters, state = dict(flow.named_parameters()), flow.state_dict(keep_vars=True)
    return {name: value for name, value in state.items() if name not in parameters}


def load_flow_buffers(flow: nn.Module, buffers: Mapping[str, Tensor]) -> None:
    """Set the buffers that :func:`flow_buffers` gave.

    Raises:
        ValueError: buffers of other names or shapes than the flow's.
    """
    if is_own(flow):  # their own loading knows the names of its earlier versions
        buffers = upgrade_buffers(buffers)
    wanted = flow_buffers(flow)
    if wanted.keys() != buffers.keys():
        raise ValueError(
            f"the file has other buffers than the flow: {sorted(buffers)} in the file, {sorted(wanted)} in the flow"
        )
    wrong = [name for name in wanted if wanted[name].shape != buffers[name].shape]
    if wrong:
        raise ValueError(f"buffers of the flow have another shape in the file: {', '.join(wrong)}")
    if is_own(flow):
        flow.load_state_dict(dict(buffers), strict=False)  # which also sets what is derived from them
        return
    with torch.no_grad():
        for name, buffer in wanted.items():
            buffer.copy_(buffers[name])
