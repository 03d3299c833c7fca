"""What ends a command: errors of the user, and signals; and the exit codes that batch systems see."""

from __future__ import annotations

import contextlib
import difflib
import signal
from collections.abc import Iterable, Iterator
from types import FrameType

from pyrogen.signals import ENDING, in_main_thread

OK = 0  #: The command did what it was asked for.
FAILED = 1  #: The run failed: the training diverged, the memory or the disk was too small.
WRONG = 2  #: The command, the card, or a file that it names is wrong. Nothing was done.


class CommandError(ValueError):
    """A mistake in a command or a run card. The text says what is wrong, where, and what would be right."""


class Stopped(BaseException):
    """A signal ended the run. Its state was saved before.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        #: How to go on, in words; empty where there is nothing to go on with.
        self.go_on = ""

    @property
    def exit_code(self) -> int:
        """What a shell reports for this signal: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + self.number

    def __str__(self) -> str:
        name = "Ctrl-C" if self.number == signal.SIGINT else signal.Signals(self.number).name
        return f"stopped by {name}{self.go_on}"


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """A block in which SIGINT, SIGTERM and SIGHUP raise :class:`Stopped`; a signal that is ignored stays ignored."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    found = {which: signal.getsignal(which) for which in ENDING} if in_main_thread() else {}
    found = {which: handler for which, handler in found.items() if handler not in (signal.SIG_IGN, None)}
    try:
        for which in found:
            signal.signal(which, stop)
        yield
    finally:
        for which, handler in found.items():
            signal.signal(which, handler)


def nearest(word: str, words: Iterable[str]) -> str:
    """``; did you mean 'epochs'?``, or the list of what there is."""
    by_lower = {each.lower(): each for each in words}
    close = difflib.get_close_matches(word.lower(), by_lower, 1, 0.6)
    return f"; did you mean {by_lower[close[0]]!r}?" if close else f"; there are {', '.join(by_lower.values())}"


def one_line(error: BaseException) -> str:
    """What an error says. One without a text, or of Python itself, has its kind in front."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    ours = isinstance(error, (Stopped, ValueError, TypeError, OSError, ImportError, MemoryError, RuntimeError))
    return text if text and ours else f"{type(error).__name__}: {text}".removesuffix(": ")
