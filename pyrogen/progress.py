"""Progress bars: in a terminal, in a notebook, and as a line now and then in a log file."""

from __future__ import annotations

import sys
from typing import Any

from tqdm.auto import tqdm

Bar = tqdm

PATIENCE = 3.0  # seconds after which a bar of work that is usually short appears
LOG_INTERVAL = 30.0  # seconds between two lines of a log file


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
    return tqdm(
        total=total,
        desc=what,
        unit=unit,
        initial=done,
        disable=not show,
        delay=PATIENCE if brief else 0,
        leave=not brief,
        unit_scale=scaled,
        mininterval=0.5 if _is_watched() else LOG_INTERVAL,
    )


def _is_watched() -> bool:
    """Whether somebody looks at the bar as it moves: in a terminal or a notebook, not in a log file."""
    return sys.stderr.isatty() or any(kind.__module__ == "tqdm.notebook" for kind in tqdm.__mro__)
