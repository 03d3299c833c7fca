"""A stand-in for CUDA graphs on the CPU: what a step does is put on a tape, and a replay does just that again.

As with a graph, the memory of all tensors and every number that Python worked out are those of the recording.
"""

import contextlib

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pyrogen import launch
from pyrogen.inference.vi import batched, guided, objective


class Tape(TorchDispatchMode):
    """Notes all operations that run under it."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing")
        found = function(*args, **(kwargs or {}))
        self.operations.append((function, args, kwargs or {}, found))
        return found

    def replay(self):
        for function, args, kwargs, found in self.operations:
            again = function(*args, **kwargs)
            for old, new in zip(tree_leaves(found), tree_leaves(again), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class TapedGraph(launch._Graph):
    """A graph that is a tape."""

    replays = 0

    def __init__(self, function, given, device, generators=()):
        self._given, self._device = given, device
        with torch.random.fork_rng(), Tape() as self._graph:
            self._found = function(*given)

    @torch.inference_mode()  # predictions' own tensors can be written to in no other
    def replay(self, inputs):
        type(self).replays += 1
        return super().replay(inputs)


class CardAdam(torch.optim.Optimizer):
    """Adam with rates and counters that are tensors, as that of a card."""

    def __init__(self, groups, betas):
        named = [{"params": list(group), "lr": torch.zeros(())} for group in groups]
        super().__init__(named, {"betas": betas})
        for group in groups:
            for parameter in group:
                moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
                self.state[parameter] = {"step": torch.zeros(()), **moments}

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for parameter in group["params"]:
                state = self.state[parameter]
                state["step"] += 1
                state["exp_avg"].lerp_(parameter.grad, 1 - beta1)
                state["exp_avg_sq"].mul_(beta2).addcmul_(parameter.grad, parameter.grad, value=1 - beta2)
                first = state["exp_avg"] / (1 - beta1 ** state["step"])
                second = state["exp_avg_sq"] / (1 - beta2 ** state["step"])
                parameter.sub_(group["lr"] * first / (second.sqrt() + 1e-8))


class Waits(TorchDispatchMode):
    """Refuses to read a number, for which a card would be waited for."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("called a synchronizing CUDA operation")
        return function(*args, **(kwargs or {}))


@pytest.fixture
def taped(monkeypatch):
    """Steps on the CPU run as tapes, as they run as graphs on a card."""
    monkeypatch.setattr(launch, "_graphs_on", lambda device: True)
    monkeypatch.setattr(launch, "_Graph", TapedGraph)
    monkeypatch.setattr(launch, "_on", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(launch, "_beside", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(launch, "_without_waiting", Waits)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.get_rng_state())
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: torch.set_rng_state(state))
    monkeypatch.setattr(launch._State, "host_is_untouched", lambda self: True)
    monkeypatch.setattr(objective.Objective, "waits", True)
    for module in (batched, guided):
        monkeypatch.setattr(module, "make_adam", CardAdam)
    monkeypatch.setattr(TapedGraph, "replays", 0)
    return TapedGraph
