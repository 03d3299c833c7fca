"""Progress bars: in a terminal, in a notebook, and as a line now and then in a log file.

Which bars are shown: those that were not switched off where the work is asked for (``progress=False``), unless
:func:`set_progress` or the environment variable ``PYROGEN_PROGRESS`` says no to all.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any, TextIO

from tqdm import TqdmWarning

from pyrogen.checks import BOOLEAN, door, optional, require

with warnings.catch_warnings():
    warnings.simplefilter("ignore", TqdmWarning)  # a notebook without ipywidgets has bars of text, as a terminal has
    from tqdm.auto import tqdm

Bar = tqdm

SWITCH = "PYROGEN_PROGRESS"  #: environment variable: 0 switches all bars off
PATIENCE = 3.0  # seconds after which a bar of work that is usually short appears
LOG_INTERVAL = 30.0  # seconds between two lines of a log file

_shown: bool | None = None  # what set_progress said


@door(show=optional(BOOLEAN))
def set_progress(show: bool | None) -> None:
    """Switch all progress bars of this process off or on.

    A bar that ``progress=False`` switches off stays off.

    Args:
        show: False: no bar; True: bars; None: as the environment variable ``PYROGEN_PROGRESS`` says (0 or 1), and bars
            where it is not set.
    """
    global _shown
    _shown = show


def bars_are_on() -> bool:
    """Whether bars may be shown at all.

    Raises:
        ValueError: ``PYROGEN_PROGRESS`` is neither 0 nor 1.
    """
    if _shown is not None:
        return _shown
    told = os.environ.get(SWITCH, "1")
    require(told in ("0", "1"), f"the environment variable {SWITCH}", told, "0 (no progress bars) or 1")
    return told == "1"


def bar(
    total: float | None,
    what: str,
    unit: str,
    *,
    show: bool = True,
    done: int = 0,
    brief: bool = False,
    scaled: bool = False,
) -> Bar[Any]:
    """A progress bar.

    Args:
        total: how much there is to do; None: unknown.
        what: the work, in a word or two.
        unit: what is counted.
        show: the switch; a bar that is not shown costs nothing.
        done: how much was done before, by a run that is resumed.
        brief: usually short work: the bar appears after a few seconds, and goes at the end.
        scaled: write large counts as 12k, 3.4M.
    """
    watched = _is_watched()
    return tqdm(
        total=total,
        desc=what,
        unit=unit,
        initial=done,
        disable=not (show and bars_are_on()),
        delay=PATIENCE if brief else 0,
        leave=not brief,
        unit_scale=scaled,
        mininterval=0.5 if watched else LOG_INTERVAL,
        file=None if watched else _Lines(sys.stderr),
    )


class _Lines:
    """A log file for tqdm: every state of a bar is a line of its own, where a terminal would write over the last."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        line = text.replace("\x1b[A", "").strip()
        if line:
            self._stream.write(f"{line}\n")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _is_watched() -> bool:
    """Whether somebody looks at the bar as it moves: in a terminal or a notebook, not in a log file."""
    return sys.stderr.isatty() or in_notebook()


def in_notebook() -> bool:
    """Whether the code runs in the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return "IPKernelApp" in getattr(shell, "config", ())
