"""A step in one launch: on a card its operations are recorded once, as a CUDA graph, and replayed at every step.

Python needs some tens of microseconds to start an operation on a card; the operation itself takes two. A step of
table 1 of [A] has 2,000 of them. Replayed as a graph it takes a fraction of the time (``docs/performance.md``). A CPU
has nothing to gain from that.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor

ON_CPU = "operation by operation: there are no graphs on a CPU"
ONE_LAUNCH = "one launch for all operations of a step"
SAME = 1e-3  # relative; what a replay may differ from the step by, as sums come in another order

Inputs = Sequence[Tensor | None]
Function = Callable[..., tuple[Tensor, ...]]


class _Inside(threading.local):
    """Whether this thread records a step, whose parts are then no launches of their own."""

    recording = False


_inside = _Inside()


class NotRecordedError(RuntimeError):
    """A step cannot be recorded as a graph; the text says why."""


class Launch:
    """A function of tensors that a card runs in one launch, and a CPU as it is::

        step = Launch(function, "cuda", changed=lambda: [position, momentum])
        value, gradient = step(batch)

    The function works on the same tensors in place at every call. Nothing in it may wait for the card (no ``item()``,
    no branch that depends on a number), and its random numbers come from the card's own global state. Where it does
    otherwise, or something in it cannot be recorded, it is called as it is, and :attr:`told` says why. Before a
    recorded step is used, a replay is compared with the step itself, so that a graph which repeats something else is
    found.

    Args:
        function: of tensors (or None) to a tuple of tensors.
        device: where it runs.
        changed: all tensors that it changes in place, the same ones at every call.
        generators: of random numbers, besides the card's own, that it draws from.
        obstacle: why it must not be recorded, where that is known before.
    """

    #: Whether graphs are used at all; False to compare with steps that are run as they are.
    allowed: ClassVar[bool] = True

    def __init__(
        self,
        function: Function,
        device: torch.device | str,
        changed: Callable[[], Iterable[Tensor]] = tuple,
        generators: Sequence[torch.Generator] = (),
        obstacle: str | None = None,
    ) -> None:
        self.function, self.device, self.changed, self.generators = function, torch.device(device), changed, generators
        self._obstacle: str | None = None
        if not _graphs_on(self.device):
            self._obstacle = ON_CPU
        elif not self.allowed:
            self._obstacle = "operation by operation: graphs are switched off"
        elif obstacle is not None:
            self._obstacle = f"operation by operation: {obstacle}"
        self._graphs: dict[tuple[object, ...], _Graph] = {}

    @property
    def told(self) -> str:
        """How it runs, and why, in words."""
        return self._obstacle or ONE_LAUNCH

    @property
    def recorded(self) -> bool:
        """Whether it runs in one launch."""
        return self._obstacle is None

    def __call__(self, *inputs: Tensor | None) -> tuple[Tensor, ...]:
        """What the function gives; on a card the next call writes over it, so clone what has to last."""
        if self._obstacle is not None or _inside.recording:  # a part of a step that is recorded as a whole
            return self.function(*inputs)
        kind = tuple(None if value is None else (value.shape, value.dtype) for value in inputs)
        if kind not in self._graphs:
            try:
                self._graphs[kind] = self._record(inputs)
            except NotRecordedError as error:
                self._obstacle = f"operation by operation: {error}"
                return self.function(*inputs)
        return self._graphs[kind].replay(inputs)

    def _record(self, inputs: Inputs) -> _Graph:
        """A graph of the function for inputs like these; all tensors and random states are as before afterwards.

        Raises:
            NotRecordedError: it cannot be recorded, or a replay does something else.
        """
        given = [None if value is None else value.detach().clone() for value in inputs]
        start = _State(self.device, self.changed(), self.generators)
        _inside.recording = True
        try:
            with _beside(self.device):
                self.function(*given)  # compiles, and makes what is made once
                start.restore()
                with _without_waiting():
                    expected = [value.clone() for value in self.function(*given)]
                if not start.host_is_untouched():
                    raise NotRecordedError("the step draws random numbers on the CPU")
                ends = start.now()
                start.restore()
            graph = _Graph(self.function, given, self.device, self.generators)
            start.restore()
            found = [value.clone() for value in graph.replay(given)]
            if not _agree([*expected, *ends], [*found, *start.now()]):
                raise NotRecordedError("the recorded step does not repeat what the step does")
        except NotRecordedError:
            raise
        except Exception as error:  # whatever a user's flow or guide does that a graph cannot hold
            raise NotRecordedError(f"{type(error).__name__}: {error}".splitlines()[0]) from error
        finally:
            _inside.recording = False
            start.restore()
        return graph


def _graphs_on(device: torch.device) -> bool:
    return device.type == "cuda"


def _on(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """A block in which a card is the current one."""
    return torch.cuda.device(device)


class _Graph:
    """One recorded call.

    Args:
        function: what is called.
        given: its inputs, whose memory the graph keeps.
        device: where it runs.
        generators: of random numbers, besides the card's own, that it draws from.
        obstacle: why it must not be recorded, where that is known before.
    """

    def __init__(
        self, function: Function, given: Inputs, device: torch.device, generators: Sequence[torch.Generator] = ()
    ) -> None:
        self._given, self._device = given, device
        self._graph = torch.cuda.CUDAGraph()
        for generator in generators:
            self._graph.register_generator_state(generator)
        with _on(device), torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._found = function(*given)

    def replay(self, inputs: Inputs) -> tuple[Tensor, ...]:
        """What the function gives for other inputs of the same shapes."""
        for mine, theirs in zip(self._given, inputs, strict=True):
            if mine is not None and theirs is not None and theirs is not mine:
                mine.copy_(theirs)
        with _on(self._device):
            self._graph.replay()
        return self._found


class _State:
    """Tensors and random states as they are now, to come back to."""

    def __init__(
        self, device: torch.device, tensors: Iterable[Tensor], generators: Sequence[torch.Generator] = ()
    ) -> None:
        self._device = device
        self._generators = [(generator, generator.get_state()) for generator in generators]
        self._tensors = [tensor.detach() for tensor in tensors]
        self._kept = self.now()
        self._card, self._host = torch.cuda.get_rng_state(device), torch.get_rng_state()

    def now(self) -> list[Tensor]:
        """Copies of the tensors."""
        return [tensor.clone() for tensor in self._tensors]

    def host_is_untouched(self) -> bool:
        """Whether the random state of the CPU is as it was."""
        return torch.equal(torch.get_rng_state(), self._host)

    def restore(self) -> None:
        """Put everything back."""
        for tensor, kept in zip(self._tensors, self._kept, strict=True):
            tensor.copy_(kept)
        torch.cuda.set_rng_state(self._card, self._device)
        torch.set_rng_state(self._host)
        for generator, state in self._generators:
            generator.set_state(state)


@contextlib.contextmanager
def _beside(device: torch.device) -> Iterator[None]:
    """A block on a stream of its own, as a graph asks for before it is recorded."""
    with _on(device):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            yield
        torch.cuda.current_stream().wait_stream(stream)


@contextlib.contextmanager
def _without_waiting() -> Iterator[None]:
    """A block in which whatever waits for the card raises a RuntimeError; recording it would spoil the card's state."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that this mode misses some waits: those only cost time
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def _agree(expected: Sequence[Tensor], found: Sequence[Tensor]) -> bool:
    """Whether two lists of tensors are the same up to rounding; of those that are not finite, where these are."""
    return all(
        torch.allclose(one.double(), other.double(), rtol=SAME, atol=SAME * _size(one), equal_nan=True)
        for one, other in zip(expected, found, strict=True)
    )


def _size(values: Tensor) -> float:
    finite = values[values.isfinite()].double()
    return float(finite.abs().mean()) if len(finite) else 0.0
