"""How objects print: one short line, whatever they hold, and a small table with the same facts in a notebook."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from html import escape
from typing import Any

import numpy as np
import torch
from torch import nn

LENGTH = 60  # characters of a value in a line with others
FEW = 4  # numbers that are worth reading in such a line


LINE = 100  # characters of a list of names in a line with other facts
MOST = 150  # characters of a line of fields; the table of a notebook has all of them

_STRUCTURE: ContextVar[bool] = ContextVar("structure", default=False)  # whether modules print all that they hold


class Shown:
    """What shows itself in a notebook: its ``repr``, and below it a table of :meth:`_facts`.

    Colours, fonts and sizes are those of the notebook, dark ones too.
    """

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(str(name))}</th>"
            f"<td style='text-align:left'>{escape(fact if isinstance(fact, str) else brief(fact))}</td></tr>"
            for name, fact in self._facts().items()
        )
        table = f"<table>{rows}</table>" if rows else ""
        try:
            text = self._details()
        except (TypeError, ValueError):  # print says why; the table is there all the same
            text = ""
        more = f"<details><summary>more</summary><pre>{escape(text)}</pre></details>" if text else ""
        title = f"<strong>{escape(type(self).__name__)}</strong> {escape(self._line())}"
        return f"<div><div>{title}</div>{table}{more}</div>"

    def _line(self) -> str:
        """The ``repr`` without the name of the class and the brackets."""
        text, kind = repr(self), f"{type(self).__name__}("
        return text[len(kind) : -1] if text.startswith(kind) and text.endswith(")") else text

    def _facts(self) -> Mapping[str, Any]:
        """The rows of the table by name: texts as they are, other values in a few characters."""
        return {name: brief(value) for name, value in self._entries().items()}

    def _entries(self) -> dict[str, Any]:
        """The fields of a dataclass by name; of other objects nothing."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self)} if is_dataclass(self) else {}

    def _details(self) -> str:
        """A long text that the notebook shows on a click; empty: none."""
        return ""


class Compact(Shown):
    """A torch module whose ``repr`` is one line; ``print`` shows all modules in it, as torch does.

    The line is what ``extra_repr`` tells, unless a class overrides :meth:`_summary`.
    """

    def __repr__(self) -> str:
        if _STRUCTURE.get():
            return nn.Module.__repr__(self)  # type: ignore[arg-type]
        return f"{type(self).__name__}({self._summary()})"

    def __str__(self) -> str:
        with _whole_structure():
            return nn.Module.__repr__(self)  # type: ignore[arg-type]

    def _summary(self) -> str:
        return self.extra_repr()  # type: ignore[attr-defined]

    def _details(self) -> str:
        return str(self)


@contextlib.contextmanager
def _whole_structure() -> Iterator[None]:
    token = _STRUCTURE.set(True)
    try:
        yield
    finally:
        _STRUCTURE.reset(token)


class Brief(Shown):
    """A dataclass (``repr=False``) whose ``repr`` is one short line; ``print`` shows its ``text()``, if there is one.

    The line holds the fields, arrays by their shapes. A class that has more to say overrides :meth:`_summary`.
    """

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._summary()})"

    def __str__(self) -> str:
        text = getattr(self, "text", None)
        return text() if callable(text) else repr(self)

    def _summary(self) -> str:
        return listed((f"{name}={brief(value)}" for name, value in self._entries().items()), MOST)

    def _details(self) -> str:
        text = getattr(self, "text", None)
        return text() if callable(text) else ""


def listed(names: Iterable[str], length: int = LINE) -> str:
    """Names with commas; of too many the first ones, and how many there are."""
    names = list(names)
    text = ", ".join(names)
    if len(text) <= length:
        return text
    shown = 0
    while shown < len(names) and len(", ".join(names[: shown + 1])) <= length - 20:
        shown += 1
    return ", ".join([*names[: max(shown, 1)], f"... ({len(names)} in all)"])


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
    elif isinstance(value, list):
        found = f"[{', '.join(map(brief, value))}]"
    elif isinstance(value, tuple):
        found = f"({', '.join(map(brief, value))}{',' if len(value) == 1 else ''})"
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


def data_size(number: float) -> str:
    """A number of bytes with its unit, such as ``139 kB``."""
    for unit in ("bytes", "kB", "MB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} GB"
