"""Checks of arguments, and the door of a public function: all of its arguments are checked before it does anything.

A check takes the name and the value of an argument. It returns the value, numpy's numbers as Python's own, or raises
an error that says what the argument is and what would be right. It is a ValueError, or a TypeError where an object of
another kind is needed::

    @door(n=whole(1), seed=SEED, procedure=one_of("a", "b"))
    def histogram(observable, n=100_000, procedure="a", seed=0): ...
"""

from __future__ import annotations

import functools
import importlib
import inspect
import math
import numbers
import operator
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch

from pyrogen.signals import uninterrupted

Check = Callable[[str, Any], Any]
P = ParamSpec("P")
R = TypeVar("R")


def door(**checks: Check) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function check its arguments by name, in this order, before it does anything."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        unknown = checks.keys() - signature.parameters.keys()
        if unknown:
            raise TypeError(f"{function.__qualname__} has no argument {', '.join(sorted(unknown))}")

        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError:
                return function(*args, **kwargs)  # Python's own message names the function
            for name, check in checks.items():
                if name in bound.arguments:
                    bound.arguments[name] = check(name, bound.arguments[name])
            return function(*bound.args, **bound.kwargs)

        return checked

    return decorate


def check_settings(settings: Any, **checks: Check) -> None:
    """Check attributes of a frozen dataclass by name, in this order, and keep what the checks return."""
    for name, check in checks.items():
        object.__setattr__(settings, name, check(name, getattr(settings, name)))


def require(condition: bool, name: str, value: Any, right: str) -> None:
    """Raise a ValueError that names the argument, its value and what would be right, unless ``condition`` holds."""
    if not condition:
        raise ValueError(f"{name} is {shown(value)}; it must be {right}")


def shown(value: Any) -> str:
    """A value for a message: an array by its kind and shape, a long text cut."""
    if isinstance(value, (np.ndarray, torch.Tensor)) and value.ndim > 0:
        return f"{type(value).__name__} of {value.dtype} with shape {list(value.shape)}"
    text = repr(value)
    return text if len(text) <= 100 and "\n" not in text else f"{' '.join(text[:80].split())} ..."


def is_number(value: Any) -> bool:
    """Whether a value is a real number, of Python or numpy, that a float can hold."""
    try:
        return isinstance(value, numbers.Real) and not isinstance(value, bool) and float(value) is not None
    except OverflowError:  # a whole number of hundreds of digits
        return False


def whole_or_none(value: Any) -> int | None:
    """A whole number of Python or numpy as an int; None for everything else."""
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None


def whole_number(name: str, value: Any, smallest: int) -> int:
    """``value`` as an int, if it is a whole number (of Python or numpy) of at least ``smallest``.

    Raises:
        ValueError: naming the argument, the value and what would be right.
    """
    number = whole_or_none(value)
    require(number is not None and number >= smallest, name, value, f"a whole number of at least {smallest}")
    require(number < 2**63, name, value, "less than 2^63")  # type: ignore[operator]
    return number  # type: ignore[return-value]


def pair(check: Check, right: str) -> Check:
    """Two values that another check takes, as a tuple."""

    def checked(name: str, value: Any) -> tuple[Any, ...]:
        try:
            found = each(check, right)(name, value)
        except (ValueError, TypeError):
            found = ()
        require(len(found) == 2, name, value, right)
        return found

    return checked


def whole(least: int) -> Check:
    """A whole number of at least ``least``."""
    return lambda name, value: whole_number(name, value, least)


def number(right: str, holds: Callable[[float], bool]) -> Check:
    """A real number for which ``holds`` is true; ``right`` says which these are."""

    def check(name: str, value: Any) -> float:
        require(is_number(value) and holds(value), name, value, right)
        return float(value)

    return check


def _boolean(name: str, value: Any) -> bool:
    """True or False, of Python or numpy."""
    require(isinstance(value, (bool, np.bool_)), name, value, "True or False")
    return bool(value)


def _text(name: str, value: Any) -> str:
    """A text."""
    require(isinstance(value, str), name, value, "a text")
    return value


def _path(name: str, value: Any) -> Any:
    """The path of a file."""
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise TypeError(f"{name} is {shown(value)}; it must be the path of a file, a text or a pathlib.Path")
    return value


def one_of(*choices: str) -> Check:
    """One of a few words."""

    def check(name: str, value: Any) -> str:
        require(isinstance(value, str) and value in choices, name, value, f"one of {', '.join(choices)}")
        return value

    return check


def optional(check: Check) -> Check:
    """None, or what another check takes."""
    return lambda name, value: None if value is None else check(name, value)


def instance(kinds: type | tuple[type, ...], right: str, hints: Mapping[str, str] | None = None) -> Check:
    """An object of a class.

    Args:
        kinds: the class or classes.
        right: what is needed, in words.
        hints: what to do instead, by the name of a class that is often given by mistake.
    """

    known = hints or {}

    def check(name: str, value: Any) -> Any:
        if not isinstance(value, kinds):
            classes = [base.__name__ for base in type(value).__mro__]
            hint = next((f": {known[cls]}" for cls in classes if cls in known), "")
            what = "a class" if isinstance(value, type) else f"a {type(value).__name__}"
            given = "None" if value is None else f"{shown(value)}, {what}" if _is_plain(value) else what
            raise TypeError(f"{name} is {given}; it must be {right}{hint}")
        return value

    return check


def dictionary(check: Check, right: str = "a dictionary", hints: Mapping[str, str] | None = None) -> Check:
    """A dictionary whose values another check takes; ``hints`` as in :func:`instance`."""
    mapping = instance(Mapping, right, hints)

    def checked(name: str, value: Any) -> dict[Any, Any]:
        mapping(name, value)
        return {key: check(f"{name}[{key!r}]", each) for key, each in value.items()}

    return checked


def having(right: str, *parts: str) -> Check:
    """An object, no class, with these methods or attributes."""

    def check(name: str, value: Any) -> Any:
        missing = [part for part in parts if isinstance(value, type) or not hasattr(value, part)]
        if missing:
            what = "a class" if isinstance(value, type) else f"a {type(value).__name__}"
            raise TypeError(f"{name} is {what}; it must be {right}, an object with {', '.join(parts)}")
        return value

    return check


def _index(name: str, value: Any) -> int:
    """An index, also one that counts from the end."""
    number = whole_or_none(value)
    require(number is not None and -(2**63) <= number < 2**63, name, value, "a whole number")
    return number  # type: ignore[return-value]


def _function(name: str, value: Any) -> Any:
    """Something that can be called."""
    if not callable(value):
        raise TypeError(f"{name} is {shown(value)}; it must be a function, or another thing that can be called")
    return value


def each(check: Check, right: str, least: int = 0) -> Check:
    """A sequence whose entries another check takes, as a tuple; ``right`` is an example of it, or says what it is."""

    def checked(name: str, value: Any) -> tuple[Any, ...]:
        listed = isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping))
        listed = listed and getattr(value, "ndim", 1) > 0  # an array of no dimension is a number
        require(listed, name, value, right)
        entries = tuple(check(f"every entry of {name}", entry) for entry in value)
        require(len(entries) >= least, name, value, right)
        return entries

    return checked


def array(*dimensions: int) -> Check:
    """Real numbers in an array, a tensor or nested lists, of one of these numbers of dimensions (none: of any).

    It returns what was given: a function converts it to its own kind.
    """

    def check(name: str, value: Any) -> Any:
        try:
            table = value.detach().cpu() if isinstance(value, torch.Tensor) else np.asarray(value)
        except ValueError as error:
            raise ValueError(f"{name} must be a table with rows of one length: {error}") from error
        real = not table.is_complex() if isinstance(table, torch.Tensor) else table.dtype.kind in "biuf"
        if not real:
            raise TypeError(f"{name} is {shown(value)}; it must be real numbers")
        right = " or ".join(str(each) for each in dimensions)
        plural = "" if dimensions == (1,) else "s"
        require(not dimensions or table.ndim in dimensions, name, value, f"an array of {right} dimension{plural}")
        return value

    return check


def _limits(name: str, value: Any) -> tuple[float, float]:
    """Two finite numbers, the lower one first."""
    try:
        low, high = value
    except (TypeError, ValueError):
        low = high = None
    good = is_number(low) and is_number(high) and -math.inf < low < high < math.inf  # type: ignore[operator]
    require(good, name, value, "(low, high), two finite numbers that increase")
    return float(low), float(high)  # type: ignore[arg-type]


def _share_of(name: str, value: Any) -> tuple[int, int]:
    """``(i, S)``: the share number i of S."""
    try:
        i, shares = (whole_or_none(each) for each in value)
    except (TypeError, ValueError):
        i = shares = None
    good = i is not None and shares is not None and 0 <= i < shares
    require(good, name, value, "(i, S), the number of the share, from 0 to S - 1, and how many shares there are")
    return i, shares  # type: ignore[return-value]


def _dtype(name: str, value: Any) -> torch.dtype:
    """Single or double precision of torch."""
    good = isinstance(value, torch.dtype) and value in (torch.float32, torch.float64)
    require(good, name, value, "torch.float32 or torch.float64")
    return value


def _device(name: str, value: Any) -> str:
    """The name of a torch device that this machine has.

    Raises:
        ValueError: no device, or one that torch cannot use here.
    """
    right = 'a torch device, such as "cpu" or "cuda:0"'
    require(isinstance(value, (str, torch.device)), name, value, right)
    try:
        known = torch.device(value)
    except RuntimeError:
        known = None
    require(known is not None and known.type != "meta", name, value, right)
    try:
        torch.empty(0, device=known)
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = str(error).split("\n")[0].split(". ")[0]  # torch goes on with all that it knows
        raise ValueError(f"{name} is {str(value)!r}, which torch cannot use on this machine: {reason}") from error
    return str(known)


def check_memory(name: str, value: int, size: float, cure: str) -> None:
    """Refuse a result that cannot fit, before any memory is taken.

    Args:
        name: of the argument that decides its size.
        value: of the argument.
        size: in bytes.
        cure: what to do instead.

    Raises:
        MemoryError: ``size`` exceeds the memory of the machine.
    """
    there = _memory()
    if size > there:
        raise MemoryError(
            f"{name} is {value:,}: the result takes {size / 1e9:,.1f} GB, and this machine has {there / 1e9:,.1f} GB "
            f"of memory; {cure}"
        )


def require_extra(module: str, extra: str, caller: str) -> None:
    """Raise an ImportError that says what to install, unless the module of an optional dependency is there."""
    try:
        with uninterrupted():
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
    index = whole_or_none(which)
    if index is None or not -len(names) <= index < len(names):
        raise ValueError(f"no column {shown(which)}; the {len(names)} columns are {', '.join(names)}")
    return index % len(names)


def _is_plain(value: Any) -> bool:
    return isinstance(value, (str, bytes, numbers.Number))


def _memory() -> float:
    """Bytes of memory of this machine; infinite where it does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return math.inf


SEED = whole(0)  #: A seed: a whole number from 0 on.
NATURAL = whole(1)  #: A whole number of at least 1.
BOOLEAN: Check = _boolean  #: True or False.
TEXT: Check = _text  #: A text.
INDEX: Check = _index  #: A whole number of either sign.
PATH: Check = _path  #: The path of a file.
FUNCTION: Check = _function  #: Something that can be called.
LIMITS: Check = _limits  #: ``(low, high)``, finite and increasing.
SHARE_OF: Check = _share_of  #: ``(i, S)``, the share number i of S.
DTYPE: Check = _dtype  #: ``torch.float32`` or ``torch.float64``.
DEVICE: Check = _device  #: A torch device of this machine.
POSITIVE = number("positive and finite", lambda value: 0 < value < math.inf)  #: A positive, finite number.
NOT_NEGATIVE = number("finite and not negative", lambda value: 0 <= value < math.inf)  #: A finite number of at least 0.
FINITE = number("a finite number", math.isfinite)  #: A finite number.
FRACTION = number("between 0 and 1", lambda value: 0 < value < 1)  #: A number in (0, 1).
SHARE = number("a fraction in [0, 1)", lambda value: 0 <= value < 1)  #: A number in [0, 1).
BETAS = pair(SHARE, "two numbers in [0, 1)")  #: Two numbers in [0, 1), as Adam takes them.
HIDDEN = each(NATURAL, "the widths of the hidden layers, such as (32, 32)")  #: Widths of hidden layers.
COUNT = optional(NATURAL)  #: None, or a whole number of at least 1.
TENSOR = instance(torch.Tensor, "a tensor of torch")  #: A torch tensor.
MAPPING = instance(Mapping, "a dictionary")  #: A dictionary.
