"""Signals that wait until something is whole: the state of a run, or a module that is imported late."""

from __future__ import annotations

import contextlib
import importlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Self

#: Ctrl-C, what batch systems send before they kill a job, and the end of a terminal (which Windows does not have).
ENDING = [which for which in signal.Signals if which.name in ("SIGINT", "SIGTERM", "SIGHUP")]


def in_main_thread() -> bool:
    """Python handles signals in the main thread alone, and no other one may change what handles them."""
    return threading.current_thread() is threading.main_thread()


class SafePoints:
    """The loop of a run, in which signals wait until the run's state is whole::

        with SafePoints(save) as safe_point:
            for ...:
                ...  # a step
                safe_point()

    At a safe point a signal is handled as it would have been without us. If that raises, as Ctrl-C does, the state is
    saved first. A second signal does not wait: it is handled at once, and nothing is saved.

    Args:
        save: saves the state of the run, if it is to be saved at all.
    """

    def __init__(self, save: Callable[[], None]) -> None:
        self._save = save
        self._handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._waiting: list[tuple[int, FrameType | None]] = []
        self._handling = False

    def __enter__(self) -> Self:
        if in_main_thread():
            found = {which: signal.getsignal(which) for which in ENDING}
            self._handlers = {which: handler for which, handler in found.items() if callable(handler)}
            for which in self._handlers:
                signal.signal(which, self._wait)
        return self

    def __exit__(self, *_: Any) -> None:
        for which, handler in self._handlers.items():
            signal.signal(which, handler)
        self._handle()

    def __call__(self) -> None:
        """Handle a signal that came since the last safe point."""
        if self._waiting:
            self._handling = True
            try:
                self._handle()
            except BaseException:
                self._save()
                raise
            self._handling = False

    def _handle(self) -> None:
        if self._waiting:
            number, frame = self._waiting.pop()
            self._handlers[number](number, frame)

    def _wait(self, number: int, frame: FrameType | None) -> None:
        second = self._waiting or self._handling
        self._waiting.append((number, frame))
        if second:
            self._handle()


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """A block in which signals that end a run wait, for imports where they are first needed::

        with uninterrupted():
            import arviz

    Ctrl-C within would leave some of its modules half imported, and nothing in this process could import them any more.
    """
    with SafePoints(lambda: None):
        yield


def load_optimizers() -> None:
    """Import what torch imports when the first of its optimizers is made, which takes a second or more."""
    with uninterrupted():
        importlib.import_module("torch._dynamo")
