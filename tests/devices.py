"""A pretend card: what ``device="cuda"`` asks of code, seen on a machine without one.

Inside ``with pretend_card() as card:`` torch behaves as if it had one CUDA device. A tensor "on the card" holds one of
the CPU, on which all its operations run, with real numbers. Everything else is as strict as with a card. Operands on
two devices, a generator of another device and numpy are refused with torch's own errors. ``card`` counts what takes
long on a card: copies between the devices, and operations that wait for it. A run gives the bits of the same run on
the CPU (unless ``own_random_state=True``): a difference is a fault of the code, not of a card's rounding.

How: for torch's C++ a tensor on the card is one of the meta device, whose operations come to
:meth:`_Operations.__torch_dispatch__`. What Python says and hears of devices is translated in
:meth:`_Calls.__torch_function__`. Forward-mode differentiation (``jacfwd``) is beyond it: torch itself crashes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from pyrogen.flows import networks

CARD = torch.device("cuda:0")
INSIDE = torch.device("meta")  # what a tensor on the card is for torch's C++
CPU = torch.device("cpu")
aten = torch.ops.aten
Tensor = torch.Tensor

#: Operations that take a number on the CPU (0-dimensional) for a tensor on the card as little as any other tensor.
STRICT = {"cat", "stack", "mm", "bmm", "addmm", "baddbmm", "mv", "dot", "gather", "index_select", "scatter", "bincount"}
#: Operations that take indices on the CPU for a tensor on the card: torch copies them, unseen.
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}
#: Operations whose result has a size, or is a number, that the CPU has to wait for.
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "unique_dim", "is_nonzero"}


@dataclass
class Card:
    """What a pretend card counts.

    Attributes:
        to_card: sizes (numbers of elements) of the tensors that were copied from the CPU to the card, in order.
        to_cpu: likewise, from the card to the CPU.
        waits: operations that waited for the card, copies to the CPU among them.
        random: the card's global generator; None: that of the CPU serves both, so that runs have the same bits.
    """

    to_card: list[int] = field(default_factory=list)
    to_cpu: list[int] = field(default_factory=list)
    waits: int = 0
    random: torch.Generator | None = None

    def reset(self) -> None:
        """Count from zero."""
        self.to_card, self.to_cpu, self.waits = [], [], 0


_cards: list[Card] = []  # the one in use


class OnCard(Tensor):
    """A tensor on the pretend card; ``held`` has its numbers."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> OnCard:
        wrapper = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=INSIDE,
        )
        wrapper.held = held
        return wrapper

    def __repr__(self, **_: Any) -> str:
        return f"{self.held!r} on the card"

    def __format__(self, form: str) -> str:
        return format(self.item(), form) if self.ndim == 0 else object.__format__(self, form)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            new = self.detach().clone().requires_grad_(self.requires_grad)
            if isinstance(self, torch.nn.Parameter):
                new = torch.nn.Parameter(new, self.requires_grad)
            memo[id(self)] = new
        return memo[id(self)]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _held(value: Any) -> Any:
    return value.held if isinstance(value, OnCard) else value


def _map(function: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return type(value)([_map(function, entry) for entry in value])
    if isinstance(value, dict):
        return {name: _map(function, entry) for name, entry in value.items()}
    return function(value)


def _tensors(values: Iterable[Any], found: list[Tensor]) -> list[Tensor]:
    """All tensors among arguments, added to ``found``."""
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (tuple, list)):
            _tensors(value, found)
    return found


def _two_devices(found: str = "at least two devices, cuda:0 and cpu!") -> RuntimeError:
    return RuntimeError(f"Expected all tensors to be on the same device, but found {found}")


def _check_devices(name: str, args: Any, tensors: list[Tensor]) -> bool:
    """Whether an operation runs on the card; its operands ``tensors`` must be on one device, as torch asks."""
    if any(tensor.device == INSIDE and not isinstance(tensor, OnCard) for tensor in tensors):
        raise RuntimeError(f"the pretend card does not know how to make what {name} was given")
    if not any(isinstance(tensor, OnCard) for tensor in tensors):
        return False
    if name == "copy_":
        return True
    if name in INDEXING:
        target, indices = args[0], args[1]
        for index in indices:
            if isinstance(index, OnCard) and not isinstance(target, OnCard):
                raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
            if isinstance(index, Tensor) and not isinstance(index, OnCard):
                _cards[-1].to_card.append(index.numel())
        tensors = [target, *args[2:3]]
    numbers = name not in STRICT
    for tensor in tensors:
        if not isinstance(tensor, OnCard) and not (numbers and tensor.ndim == 0):
            raise _two_devices()
    if name.endswith("_") and isinstance(args[0], Tensor) and not isinstance(args[0], OnCard):
        raise _two_devices()
    return True


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    """An operation, on whichever device it belongs."""
    card, name = _cards[-1], func.overloadpacket.__name__
    target = kwargs.get("device")
    tensors = _tensors((*args, *kwargs.values()), [])
    on_card = _check_devices(name, args, tensors)
    if not on_card and target != INSIDE:
        return func(*args, **kwargs)
    if name == "copy_" and on_card:
        to, source = args[0], args[1]
        if isinstance(to, OnCard) != isinstance(source, OnCard):
            _count(card, source, isinstance(to, OnCard))
        _held(to).copy_(_held(source))
        return to
    if target is not None:
        if name == "_to_copy" and (target == INSIDE) != on_card:
            _count(card, args[0], target == INSIDE)
        on_card = target == INSIDE
        kwargs = kwargs | {"device": CPU}
    if name in WAITING or (name in INDEXING and any(_is_mask(index) for index in args[1])):
        card.waits += on_card
    random = on_card and card.random is not None and torch.Tag.nondeterministic_seeded in func.tags
    own = random and kwargs.get("generator") is None
    with _global_state(card) if own else contextlib.nullcontext():
        found = func(*_map(_held, args), **_map(_held, kwargs))
    if not on_card:
        return found
    # Operations in place give the tensor itself that they were given.
    given = {id(value.held): value for value in tensors if isinstance(value, OnCard)}
    return _map(lambda x: given[id(x)] if id(x) in given else OnCard(x) if isinstance(x, Tensor) else x, found)


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)


def _count(card: Card, source: Tensor, to_card: bool) -> None:
    (card.to_card if to_card else card.to_cpu).append(source.numel())
    card.waits += not to_card


@contextlib.contextmanager
def _global_state(card: Card) -> Iterator[None]:
    """The card's global random state in the place of the CPU's."""
    assert card.random is not None
    before = torch.default_generator.get_state()
    torch.default_generator.set_state(card.random.get_state())
    yield
    card.random.set_state(torch.default_generator.get_state())
    torch.default_generator.set_state(before)


class _Operations(TorchDispatchMode):
    """All operations, those that make tensors of nothing among them."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _device_of(tensor: Tensor) -> torch.device:
    """The device of a tensor, as Python is to hear it."""
    return CARD if tensor.device == INSIDE else tensor.device


def _inside(value: Any) -> Any:
    """Names of the card as torch's C++ is to hear them."""
    if isinstance(value, torch.device) and value.type == "cuda":
        device = value
    elif isinstance(value, str) and value.partition(":")[0] == "cuda":
        device = torch.device(value)
    else:
        return value
    if device.index not in (None, 0):
        raise RuntimeError("CUDA error: invalid device ordinal")
    return INSIDE


FROM_DATA = {torch.tensor, torch.as_tensor, torch.asarray}
NEEDING_NUMPY = {Tensor.numpy, Tensor.__array__}
TO_NUMBERS = {Tensor.tolist, Tensor.__bool__, Tensor.__float__, Tensor.__int__, Tensor.__index__, Tensor.item}
PROPERTIES = {
    Tensor.is_cuda.__get__: lambda on_card: on_card,  # type: ignore[attr-defined]
    Tensor.is_cpu.__get__: lambda on_card: not on_card,  # type: ignore[attr-defined]
    Tensor.is_meta.__get__: lambda on_card: False,  # type: ignore[attr-defined]
}


class _Calls(TorchFunctionMode):
    """All calls of torch's functions and methods from Python."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # In here torch's own answers are heard: no mode is active.
        if func == Tensor.device.__get__:  # type: ignore[attr-defined]
            return _device_of(args[0])
        if func in PROPERTIES:
            return PROPERTIES[func](_device_of(args[0]) == CARD)
        if func in NEEDING_NUMPY and _device_of(args[0]) == CARD:
            raise TypeError(
                "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory "
                "first."
            )
        if func in TO_NUMBERS and isinstance(args[0], OnCard):
            _cards[-1].waits += 1
            return func(args[0].held, *args[1:], **kwargs)
        if func is torch.device:
            return func(*args, **kwargs)
        if func in FROM_DATA or func is Tensor.new_tensor:
            return self._from_data(func, args, kwargs)
        if func in (Tensor.__getitem__, Tensor.__setitem__) and _device_of(args[0]) == CARD:
            args = args[0], _index(args[1]), *args[2:]
        generator = kwargs.get("generator")
        if generator is not None:
            self._check_generator(generator, args, kwargs)
        return func(*map(_inside, args), **{name: _inside(value) for name, value in kwargs.items()})

    def _from_data(self, func: Any, args: Any, kwargs: Any) -> Tensor:
        if func is Tensor.new_tensor:
            kwargs = {"dtype": args[0].dtype, "device": _device_of(args[0])} | kwargs
            func, args = torch.tensor, args[1:]
        device = kwargs.get("device")
        if isinstance(args[0], OnCard):
            found = args[0].clone() if func is torch.tensor else args[0]
            return found.to(dtype=kwargs.get("dtype") or found.dtype, device=_inside(device or CARD))
        if device is None or _inside(device) != INSIDE:
            return func(*args, **kwargs)
        made = func(*args, **{name: value for name, value in kwargs.items() if name not in ("device", "requires_grad")})
        return made.to(INSIDE).requires_grad_(kwargs.get("requires_grad", False))

    @staticmethod
    def _check_generator(generator: torch.Generator, args: Any, kwargs: Any) -> None:
        tensor = next((value for value in args if isinstance(value, Tensor)), None)
        device = _device_of(tensor) if tensor is not None else torch.device(kwargs.get("device") or "cpu")
        if device.type != generator.device.type:
            raise RuntimeError(
                f"Expected a '{device.type}' device type for generator but found '{generator.device.type}'"
            )


def _index(index: Any) -> Any:
    """An index of a tensor on the card, lists and arrays of numbers in it as the tensors that torch makes of them."""
    if isinstance(index, tuple):
        return tuple(map(_index, index))
    return torch.as_tensor(index).to(INSIDE) if isinstance(index, (list, np.ndarray)) else index


class _Generator(torch.Generator):
    """Torch's generator, of the card where that is asked for."""

    def __new__(cls, device: Any = "cpu") -> _Generator:
        made = super().__new__(cls, "cpu")
        made._device = CARD if _inside(torch.device(device)) == INSIDE else torch.device(device)
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self._device


def _stand_ins(card: Card) -> dict[str, Any]:
    """Functions of ``torch.cuda``."""
    random = card.random or torch.default_generator

    def get_rng_state(device: Any = "cuda") -> Tensor:
        return random.get_state()

    def set_rng_state(state: Tensor, device: Any = "cuda") -> None:
        random.set_state(state)

    def manual_seed(seed: int) -> None:
        random.manual_seed(seed)

    return {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_name": lambda device=None: "Pretend card",
        "device": contextlib.nullcontext,
        "synchronize": lambda device=None: None,
        "get_rng_state": get_rng_state,
        "set_rng_state": set_rng_state,
        "get_rng_state_all": lambda: [get_rng_state()],
        "set_rng_state_all": lambda states: set_rng_state(states[0]),
        "manual_seed": manual_seed,
        "manual_seed_all": manual_seed,
        "mem_get_info": lambda device=None: (4 << 30, 8 << 30),
        "memory_reserved": lambda device=None: 0,
        "memory_allocated": lambda device=None: 0,
        "empty_cache": lambda: None,
        "_is_in_bad_fork": lambda: False,
        "is_current_stream_capturing": lambda: False,
    }


@contextlib.contextmanager
def pretend_card(own_random_state: bool = False) -> Iterator[Card]:
    """A block in which torch has one card, ``"cuda"`` or ``"cuda:0"``.

    Args:
        own_random_state: the card's global random state is its own, as that of a real one; otherwise that of the CPU
            serves both, so that runs on both have the same bits.
    """
    card = Card(random=torch.Generator() if own_random_state else None)
    overwritten = torch.__future__.get_overwrite_module_params_on_conversion()
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(torch, "Generator", _Generator))
        for name, function in _stand_ins(card).items():
            stack.enter_context(mock.patch.object(torch.cuda, name, function))
        # In a build for cards this asks the driver, which is not there.
        check = "_accelerator_graph_capture_health_check"
        if hasattr(torch.optim.Optimizer, check):
            stack.enter_context(mock.patch.object(torch.optim.Optimizer, check, lambda optimizer: None))
        # A parameter cannot be a tensor on the card from one moment to the next: modules get new ones.
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, overwritten)
        # Tensors on the card cannot be made in inference mode.
        stack.enter_context(mock.patch.object(networks, "inference", torch.no_grad))
        _cards.append(card)
        stack.callback(_cards.pop)
        stack.enter_context(_Operations())
        stack.enter_context(_Calls())
        yield card


def on_card(value: Any) -> bool:
    """Whether a tensor is on the pretend card."""
    return isinstance(value, OnCard)
