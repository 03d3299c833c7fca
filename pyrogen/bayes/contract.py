"""What a flow of any kind gets and has to give."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pyrogen.checks import is_number


def check_output(flow: nn.Module, method: str, output: Any, shape: torch.Size) -> Tensor:
    """What a method of the flow gave, if it is a tensor of this shape: another one would broadcast in silence.

    Raises:
        ValueError: something else, with the flow, the method and what would be right.
    """
    if isinstance(output, Tensor) and output.shape == shape:
        return output
    got = f"shape {list(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
    right = "one number per event" if method == "log_prob" else "one row per event"
    raise ValueError(
        f"{method} of the flow {type(flow).__name__} gives {got}; it must give a tensor of shape {list(shape)}, {right}"
    )


def told(flow: nn.Module, name: str) -> int | None:
    """A whole number that a flow tells by an attribute; None where that is missing, or something else."""
    number: Any = getattr(flow, name, None)
    return int(number) if is_number(number) and number == int(number) else None


def given(context: Tensor | None) -> tuple[Tensor, ...]:
    """Context as an optional positional argument: flows without conditions need not know the word."""
    return () if context is None else (context,)
