"""Signals that end a run, such as Ctrl-C: it stops where its state is whole, saves it, and says how to go on."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

from pyrogen.log import tell
from pyrogen.signals import ENDING as ENDING
from pyrogen.signals import SafePoints as SafePoints
from pyrogen.signals import in_main_thread


class Terminated(BaseException):
    """A signal whose default ends the process at once: raised within a run, so that it can save its state.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """A block in which signals that would end the process at once are raised as :class:`Terminated`.

    Handlers of the user's own stay as they are, and so do signals that are ignored.
    """

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated(number)

    ours = [which for which in ENDING if in_main_thread() and signal.getsignal(which) is signal.SIG_DFL]
    try:
        for which in ours:
            signal.signal(which, terminate)
        yield
    finally:
        for which in ours:
            signal.signal(which, signal.SIG_DFL)


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
    tell(f"{backend} was stopped by {name}; {told}")
    sys.stdout.flush()
    signal.raise_signal(stop.number)
    raise SystemExit(128 + stop.number)  # the signal is blocked, and did not end the process
