"""Checks of arguments that several parts share."""

from __future__ import annotations

import importlib
import math
import numbers
import operator
from collections.abc import Sequence
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


def is_number(value: Any) -> bool:
    """Whether a value is a real number, of Python or numpy."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def positive(settings: Any, *names: str) -> None:
    """Check that attributes of a settings object are positive, finite numbers."""
    for name in names:
        value = getattr(settings, name)
        good = is_number(value) and 0 < value < math.inf
        require(good, name, value, "positive and finite")


def fraction(settings: Any, *names: str) -> None:
    """Check that attributes of a settings object are between 0 and 1."""
    for name in names:
        value = getattr(settings, name)
        good = is_number(value) and 0 < value < 1
        require(good, name, value, "between 0 and 1")


def require_extra(module: str, extra: str, caller: str) -> None:
    """Raise an ImportError that says what to install, unless the module of an optional dependency is there."""
    try:
        importlib.import_module(module)
    except ImportError as missing:
        raise ImportError(f'{caller} needs {module}; install it with: pip install "pyrogen[{extra}]"') from missing


def column_index(which: Any, names: Sequence[str]) -> int:
    """Index of a column, given by its name or index (negative counts from the end).

    Raises:
        ValueError: neither a name nor the index of a column; the message lists the names.
    """
    if isinstance(which, str) and which in names:
        return list(names).index(which)
    try:
        index = len(names) if isinstance(which, (str, bool)) else operator.index(which)
    except TypeError:
        index = len(names)
    if not -len(names) <= index < len(names):
        raise ValueError(f"no column {which!r}; the {len(names)} columns are {', '.join(names)}")
    return index % len(names)
