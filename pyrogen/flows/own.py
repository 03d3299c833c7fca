"""pyrogen's own flows: those that are made again from their ``config``, and whose parts are known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from pyrogen.flows.chain import ChainFlow
from pyrogen.flows.compiled import ONLY_OURS
from pyrogen.flows.coupling import CouplingFlow
from pyrogen.flows.multiplicity import MultiplicityFlow
from pyrogen.flows.shower import ShowerFlow

OWN: dict[str, type[nn.Module]] = {
    flow.__name__: flow for flow in (CouplingFlow, ChainFlow, ShowerFlow, MultiplicityFlow)
}
DTYPES = {"float32": torch.float32, "float64": torch.float64}


def is_own(flow: Any) -> bool:
    """Whether a flow is one of pyrogen's own, or derived from one."""
    return isinstance(flow, tuple(OWN.values()))


def compile_obstacle(flow: Any) -> str | None:
    """Why the steps of a flow cannot be compiled; None where they can."""
    if isinstance(flow, MultiplicityFlow):  # code is compiled for one number of rows
        return "the parts of a MultiplicityFlow see other rows in every batch"
    return None if is_own(flow) else ONLY_OURS


def rebuilt(name: str, config: Mapping[str, Any]) -> nn.Module:
    """The flow of a class in :data:`OWN` with this ``config``; its weights and mixings are those of its seed."""
    return OWN[name](**{**config, "dtype": DTYPES[config["dtype"]]})
