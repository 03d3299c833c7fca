"""How objects print: one short line, whatever they hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import nn

LENGTH = 60  # characters of a value in a line with others
FEW = 4  # numbers that are worth reading in such a line


class Brief:
    """A dataclass (``repr=False``) whose ``repr`` is one short line; ``print`` shows its ``text()``, if there is one.

    The line holds every field, arrays by their shapes. A class that has more to say overrides :meth:`_summary`.
    """

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._summary()})"

    def __str__(self) -> str:
        text = getattr(self, "text", None)
        return text() if callable(text) else repr(self)

    def _summary(self) -> str:
        return ", ".join(f"{field.name}={brief(getattr(self, field.name))}" for field in fields(self))  # type: ignore[arg-type]


def brief(value: Any) -> str:
    """A value in a few characters: four digits of a number, the shape of an array, the name of a function."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray) and (value.ndim != 1 or value.size > FEW):
        return f"{list(value.shape)}" if value.ndim else brief(value.item())
    if isinstance(value, (float, np.floating)):
        return f"{value:.4g}"
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        found = "{" + ", ".join(f"{name!r}: {brief(each)}" for name, each in value.items()) + "}"
    elif isinstance(value, (list, tuple)):
        found = (
            "[" + ", ".join(map(brief, value)) + "]" if isinstance(value, list) else f"({', '.join(map(brief, value))})"
        )
    elif isinstance(value, nn.Module):
        found = f"{type(value).__name__}(...)"
    elif callable(value):
        found = getattr(value, "__qualname__", type(value).__qualname__).rpartition("<locals>.")[2]
    else:
        found = repr(value)
    if len(found) <= LENGTH:
        return found
    return (
        f"{len(value)} entries" if hasattr(value, "__len__") and not isinstance(value, str) else found[:LENGTH] + "..."
    )


def span(values: Any, form: str = ".4g") -> str:
    """``low to high`` of the finite ones among the values, or the one number that all are."""
    array = np.asarray(value_array(values), dtype=np.float64)
    finite = array[np.isfinite(array)]
    if not finite.size:
        return "nan"
    low, high = f"{finite.min():{form}}", f"{finite.max():{form}}"
    return low if low == high else f"{low} to {high}"


def value_array(values: Any) -> Any:
    """An array of numpy, from one or from a tensor on any device."""
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values
