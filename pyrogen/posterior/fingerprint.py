"""What a function does, in a digest: a function of the same one does the same."""

from __future__ import annotations

import dataclasses
import dis
import enum
import functools
import hashlib
import importlib
import inspect
import platform
import re
import sys
import types
from collections.abc import Callable, Iterator
from importlib import metadata
from importlib.util import resolve_name
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch

_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented), range)
_PLAIN += (torch.dtype, torch.device)  # type: ignore[assignment]
_BUILTIN = (types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType, np.ufunc)
_NOT_MINE = {"__dict__", "__weakref__", "__doc__", "__module__", "__qualname__", "__annotations__", "__firstlineno__"}


class UnknownStateError(ValueError):
    """A function depends on an object that cannot be told from another one."""


def fingerprint(function: Callable[..., Any]) -> str:
    """A digest of a function: its code, constants, defaults and enclosed values, and of all that it uses by name.

    Of functions and classes of installed packages their package and its version count besides their own code; what
    they use by name does not. Code is that of the running Python, so the digest is another one with another Python.

    Raises:
        UnknownStateError: something in it is an object with a state that cannot be told.
    """
    name = getattr(function, "__qualname__", type(function).__qualname__)
    try:
        told = _Teller().tell(function, name)
    except RecursionError as error:
        raise UnknownStateError(f"{name} uses a list or another container that contains itself") from error
    return f"{name} {hashlib.sha256(repr(told).encode()).hexdigest()}"


class _Teller:
    """Puts objects in words: tuples of strings, which are equal where the objects do the same."""

    def __init__(self) -> None:
        self._seen: dict[Any, int] = {}  # functions, classes and modules, by their number

    def tell(self, value: Any, where: str) -> Any:
        """The object ``value`` in words; ``where`` says in errors where it comes from."""
        if type(value) in _PLAIN or isinstance(value, (np.generic, np.dtype)):
            return type(value).__name__, repr(value)
        if isinstance(value, (types.FunctionType, types.ModuleType, type)):
            if value in self._seen:  # such as a function that calls itself
                return "again", self._seen[value]
            self._seen[value] = len(self._seen)
        told = self._container(value, where) or self._code(value, where) or self._object(value, where)
        if told is None:
            raise UnknownStateError(f"{where} is a {type(value).__name__}, whose state is not known")
        return type(value).__name__, told

    def _all(self, values: Any, where: str) -> tuple[Any, ...]:
        return tuple(self.tell(value, where) for value in values)

    def _container(self, value: Any, where: str) -> Any:
        if isinstance(value, (tuple, list)):
            return "items", self._all(value, f"an entry of {where}")
        if isinstance(value, (set, frozenset)):
            return "items", tuple(sorted(map(repr, self._all(value, f"an entry of {where}"))))
        if isinstance(value, (dict, types.MappingProxyType)):
            return "entries", tuple(
                (self.tell(key, f"a key of {where}"), self.tell(entry, f"{where}[{key!r}]"))
                for key, entry in value.items()
            )
        if isinstance(value, torch.Tensor) and not value.is_sparse:
            return "tensor", *self._container(value.detach().cpu().numpy(), where)
        if isinstance(value, np.ndarray) and not value.dtype.hasobject:
            return str(value.dtype), value.shape, hashlib.sha256(value.tobytes()).hexdigest()
        return None

    def _code(self, value: Any, where: str) -> Any:
        if isinstance(value, types.CodeType):
            names = value.co_names, value.co_varnames, value.co_freevars, value.co_cellvars, value.co_flags
            table = getattr(value, "co_exceptiontable", b"")
            return value.co_code, table, value.co_argcount, names, self._all(value.co_consts, where)
        if isinstance(value, types.FunctionType):
            return self._function(value, where)
        if isinstance(value, types.MethodType):
            return self._all((value.__func__, value.__self__), where)
        if isinstance(value, functools.partial):
            return self._all((value.func, value.args, value.keywords), where)
        if isinstance(value, (staticmethod, classmethod)):
            return (self.tell(value.__func__, where),)
        if isinstance(value, property):
            return self._all((value.fget, value.fset, value.fdel), where)
        if isinstance(value, _BUILTIN):
            owner = getattr(value, "__self__", None)
            module = getattr(value, "__module__", None)
            known = module is not None or owner is None or isinstance(owner, types.ModuleType)
            bound = None if known else self.tell(owner, where)
            return getattr(value, "__qualname__", value.__name__), _release(module or "builtins"), bound
        return None

    def _object(self, value: Any, where: str) -> Any:
        if isinstance(value, types.ModuleType):
            return value.__name__, _release(value.__name__) or _source(value, where)
        if isinstance(value, type):
            release = _release(value.__module__)
            if release is not None:
                return value.__module__, value.__qualname__, release
            members = {name: member for name, member in vars(value).items() if name not in _NOT_MINE}
            members = {name: member for name, member in members.items() if not _is_machinery(name)}
            return value.__qualname__, self._all((value.__bases__, members), where)
        if isinstance(value, inspect.Signature):  # defaults count where the function itself is told
            return tuple((parameter.name, str(parameter.kind)) for parameter in value.parameters.values())
        if isinstance(value, enum.Enum):
            return self.tell(type(value), where), value.name
        if isinstance(value, PurePath):
            return (str(value),)
        if isinstance(value, re.Pattern):
            return value.pattern, value.flags
        if dataclasses.is_dataclass(value):
            entries = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
            return self._all((type(value), entries), where)
        return None

    def _function(self, function: types.FunctionType, where: str) -> Any:
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        own = [
            self.tell(function.__code__, where),
            self.tell(function.__defaults__, f"a default of {where}"),
            self.tell(function.__kwdefaults__, f"a default of {where}"),
            *(self.tell(_content(cell), f"{name!r}, which {where} encloses,") for name, cell in cells),
        ]
        release = _release(function.__module__ or "")
        if release is None:
            for name, used in _used(function):
                own.append((name, self.tell(used, f"{name!r}, which {where} uses,")))
        return release, tuple(own)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not yet filled
        return None


def _used(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """What the code of a function uses by name: global objects, and modules that it imports."""
    missing = "missing"
    for code in _codes(function.__code__):
        before: list[Any] = []
        for step in dis.get_instructions(code):
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                name = step.argval
                yield name, function.__globals__.get(name, getattr(importlib.import_module("builtins"), name, missing))
            elif step.opname == "IMPORT_NAME":
                name = step.argval
                if before[-2]:  # dots
                    name = resolve_name("." * before[-2] + name, function.__globals__["__package__"])
                try:
                    yield name, importlib.import_module(name)
                except ImportError:
                    yield name, missing
            before.append(step.argval)


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """A code and those that are defined in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _is_machinery(name: str) -> bool:
    """Whether a member of a class is Python's own book-keeping of what its other members say."""
    return name.startswith(("__dataclass_", "_abc_", "__abstract", "__static_", "__match_", "__slots__"))


@functools.cache
def _packages() -> dict[str, list[str]]:
    return dict(metadata.packages_distributions())


def _release(module: str) -> str | None:
    """The installed package that a module belongs to, with its version; None for a module of the user's own."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names and top != "__main__":
        return f"python {platform.python_version()}"
    found = ["pyrogen"] if top == "pyrogen" else _packages().get(top, [])
    try:
        return ", ".join(f"{name} {metadata.version(name)}" for name in sorted(set(found))) or None
    except metadata.PackageNotFoundError:
        return f"{top} not installed"


def _source(module: types.ModuleType, where: str) -> Any:
    """Digests of the text of a module of the user's own, and of those of the user's own that it uses."""
    digests, waiting = {}, [module.__name__]
    while waiting:
        name = waiting.pop()
        if name in digests or name not in sys.modules or _release(name) is not None:
            continue
        found = sys.modules[name]
        file = getattr(found, "__file__", None)
        if file is None:
            raise UnknownStateError(f"{where} is the module {name}, which has no file")
        digests[name] = hashlib.sha256(Path(file).read_bytes()).hexdigest()
        for value in list(vars(found).values()):
            waiting.append(value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", ""))
    return tuple(sorted(digests.items()))
