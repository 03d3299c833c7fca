"""Signals that end a run, such as Ctrl-C: it stops where its state is whole, saves it, and says how to go on."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, Self

#: Ctrl-C, what batch systems send before they kill a job, and the end of a terminal (which Windows does not have).
ENDING = [which for which in signal.Signals if which.name in ("SIGINT", "SIGTERM", "SIGHUP")]


class Terminated(BaseException):
    """A signal whose default ends the process at once: raised within a run, so that it can save its state.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def _in_main_thread() -> bool:
    """Python handles signals in the main thread alone, and no other one may change what handles them."""
    return threading.current_thread() is threading.main_thread()


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """A block in which signals that would end the process at once are raised as :class:`Terminated`.

    Handlers of the user's own stay as they are, and so do signals that are ignored.
    """

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated(number)

    ours = [which for which in ENDING if _in_main_thread() and signal.getsignal(which) is signal.SIG_DFL]
    try:
        for which in ours:
            signal.signal(which, terminate)
        yield
    finally:
        for which in ours:
            signal.signal(which, signal.SIG_DFL)


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
        if _in_main_thread():
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


def load_optimizers() -> None:
    """Import what torch imports when the first optimizer is made, which takes a second.

    Signals wait: Ctrl-C within would leave half of these modules imported, and nothing in this process could make an
    optimizer any more.
    """
    with SafePoints(lambda: None):
        importlib.import_module("torch._dynamo")


def end(stop: KeyboardInterrupt | Terminated, backend: str, checkpoint: str | os.PathLike[str] | None) -> NoReturn:
    """End a run that a signal stopped, and say how to go on.

    Args:
        stop: what the signal raised.
        backend: name of the backend.
        checkpoint: its checkpoint file.

    Raises:
        KeyboardInterrupt: saying so, after Ctrl-C. Other signals end the process, as they would have without us.
    """
    if stop.args:  # of a run within a run, which has told
        raise stop
    if checkpoint is None:
        told = f'nothing is saved. With {backend}(checkpoint="run.h5") a stopped run can go on'
    elif Path(checkpoint).exists():
        told = f"the run is saved in {checkpoint}. Repeat it, and it goes on from there to the same bits"
    else:
        told = f"there was nothing to save in {checkpoint} yet. Repeat the run, and it begins anew"
    if isinstance(stop, KeyboardInterrupt):
        raise KeyboardInterrupt(f"{backend} was stopped by Ctrl-C; {told}") from None
    name = signal.Signals(stop.number).name
    print(f"{backend} was stopped by {name}; {told}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    signal.raise_signal(stop.number)
    raise SystemExit(128 + stop.number)  # the signal is blocked, and did not end the process
