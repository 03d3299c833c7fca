"""Warnings that point to the line of the user's script, not to one of this package."""

from __future__ import annotations

import sys
import warnings
from types import FrameType

#: Packages that call back, so that their frames lie between the user's line and the warning.
BETWEEN = ("pyrogen", "torch", "pyro", "contextlib")


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn in the innermost line of the stack that is neither of this package nor of torch or Pyro."""
    depth = 1
    current: FrameType | None = sys._getframe()
    while current is not None and current.f_globals.get("__name__", "").partition(".")[0] in BETWEEN:
        current, depth = current.f_back, depth + 1
    warnings.warn(message, category, stacklevel=depth)
