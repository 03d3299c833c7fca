"""Steps of a flow as code that torch compiles: one piece for all blocks that are alike.

The operations between two matrix products become one. A whole flow takes minutes to compile, a block takes seconds,
and serves all blocks of the same shape. A card that replays a graph takes half the time then. On a CPU every call of a
compiled block costs Python about what it saves. There it pays to compile a whole training step with activations drawn
per event, which has the most operations.
"""

from __future__ import annotations

import functools
import importlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Step = TypeVar("Step", bound=Callable[..., Any])
Result = TypeVar("Result")
ERRORS = ("InductorError", "CppCompileError", "InvalidCxxCompiler")  # as versions of torch have them
PIECES = 128  #: of compiled code for one step, before torch gives up and runs it as it is.
ONLY_OURS = "only steps of pyrogen's own flows are"
NARROW = 2  #: Features of an input, or of an output, up to which a product is a sum of few terms.

_here = threading.local()


class CompiledSteps:
    """Runs work in which flows of this thread run their steps as compiled code, if that is asked for and works.

    Steps within :func:`torch.func.vmap` stay as they are: torch does not compile them.

    Args:
        wanted: whether it is asked for.
        obstacle: why it cannot be, where that is known before.

    Attributes:
        told: whether steps are compiled, or why not; None where nobody asked.
        active: whether steps are compiled, as far as is known.
    """

    def __init__(self, wanted: bool, obstacle: str | None = None) -> None:
        self.told: str | None = None
        self.active, self._first = wanted and obstacle is None, True
        if wanted:
            self.told = "steps of the flow compiled by torch" if obstacle is None else f"not compiled: {obstacle}"

    def run(self, work: Callable[[], Result]) -> Result:
        """The result of ``work``, which must be possible to do once more where its compilation failed."""
        if not self.active:
            return work()
        before, _here.wanted = getattr(_here, "wanted", False), True
        first, self._first = self._first, False
        if first:  # a card that records must not be asked for its random state
            random = torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        try:
            return work()
        except _failures() as error:  # no compiler, or something of a user's that torch cannot compile
            words = " ".join(str(error).split())
            self.active, self.told = False, f"not compiled: {type(error).__name__}: {words[:200]}"
        finally:
            _here.wanted = before
        if first:
            torch.set_rng_state(random[0])
            torch.cuda.set_rng_state_all(random[1])
        return work()


def _failures() -> tuple[type[Exception], ...]:
    """What torch raises where it cannot compile."""
    dynamo, inductor = (importlib.import_module(f"torch.{name}.exc") for name in ("_dynamo", "_inductor"))
    of_inductor = (getattr(inductor, name) for name in ERRORS if hasattr(inductor, name))
    return (dynamo.TorchDynamoException, *of_inductor)


def is_wanted() -> bool:
    """Whether code is to be compiled here: in :meth:`CompiledSteps.run`, outside of :func:`torch.func.vmap`."""
    if torch.compiler.is_compiling():  # a part of what is compiled
        return False
    return getattr(_here, "wanted", False) and torch._C._functorch.maybe_current_level() is None


def maybe_compiled(step: Step) -> Step:
    """A step as it is, or as compiled code where that is wanted."""
    return _compiled(step) if is_wanted() else step


@functools.cache
def _compiled(step: Step) -> Step:
    # Flows of one process share the code of a step, and each needs some pieces of its own: torch's limit is for one.
    for limit in ("recompile_limit", "cache_size_limit"):  # the second until torch 2.5
        if hasattr(torch._dynamo.config, limit):
            setattr(torch._dynamo.config, limit, max(PIECES, getattr(torch._dynamo.config, limit)))
    return torch.compile(step, dynamic=False)  # type: ignore[return-value]


def compiled_whole(function: Step) -> Step:
    """A function as one piece of compiled code for each shape of its arguments, which takes up to a minute."""
    return torch.compile(function, dynamic=False)  # type: ignore[return-value]


def is_fusible(layers: nn.Sequential) -> bool:
    """Whether every other layer, from the first on, is a plain linear one, whose weights are all that it has."""
    linear = list(layers)[::2]
    return all(type(each) is nn.Linear and not (each._forward_hooks or each._forward_pre_hooks) for each in linear)


def fusible(layers: nn.Sequential, values: Tensor) -> Tensor:
    """Outputs ``[..., outputs]`` of a multilayer perceptron, or of C of them with weights ``[C, ...]``, for inputs
    ``[..., inputs]``, in operations that a compiler can join: few features need no matrix product."""
    for layer in layers:
        values = linear(values, layer.weight, layer.bias) if isinstance(layer, nn.Linear) else layer(values)
    return values


def linear(values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A linear layer of ``values [..., N, inputs]`` with weights ``[..., outputs, inputs]``, as a compiler likes it."""
    outputs, inputs = weight.shape[-2:]
    offset = 0.0 if bias is None else bias.unsqueeze(-2)
    if inputs <= NARROW:
        rows = weight.mT.unsqueeze(-3)  # [..., 1, inputs, outputs]
        terms = [values[..., i : i + 1] * rows[..., i, :] for i in range(inputs)]
        return torch.stack(terms).sum(0) + offset if len(terms) > 1 else terms[0] + offset
    if outputs <= NARROW:
        columns = weight.unsqueeze(-3)  # [..., 1, outputs, inputs]
        return torch.stack([(values * columns[..., i, :]).sum(-1) for i in range(outputs)], -1) + offset
    return values @ weight.mT + offset
