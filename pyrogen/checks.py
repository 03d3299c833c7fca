"""Checks of arguments that several parts share."""

from __future__ import annotations

import operator
from typing import Any


def whole_number(name: str, value: Any, smallest: int) -> int:
    """``value`` as an int, if it is a whole number (of Python or numpy) of at least ``smallest``.

    Raises:
        ValueError: naming the argument, the value and what would be right.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = smallest - 1
    if isinstance(value, bool) or number < smallest:
        raise ValueError(f"{name} is {value!r}; it must be a whole number of at least {smallest}")
    return number


def require(condition: bool, name: str, value: Any, right: str) -> None:
    """Raise a ValueError that names the argument, its value and what would be right, unless ``condition`` holds."""
    if not condition:
        raise ValueError(f"{name} is {value!r}; it must be {right}")
