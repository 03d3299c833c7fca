"""Every public function checks its arguments at its door: the error is its own, and names the argument.

The table ``CALLS`` has a call that works for every public function, class and method with arguments. Each argument of
it is replaced by values of many wrong kinds. A new public function has to be put into the table.
"""

import inspect
import math
import traceback
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from arguments import BASES, CALLS, INNER, NAMES_IN_MESSAGES, RESULTS, RIGHT

import pyrogen as pg
import pyrogen.plotting

PACKAGE = Path(pg.__file__).parent
ROOMS = (pg, pg.events, pg.diagnostics, pg.targets, pg.plotting)
WRONG = {
    "None": None,
    "a text": "x",
    "minus one": -1,
    "a half": 0.5,
    "NaN": math.nan,
    "infinity": math.inf,
    "an object": object(),
    "an empty list": [],
    "a huge number": 10**400,
    "True": True,
    "a numpy number": np.float32(0.5),
    "a dictionary": {"x": object()},
    "a complex number": 1j,
    "half precision": torch.float16,
}


def public():
    """All public callables with arguments, by the name that a user writes."""
    found = {}
    for room in ROOMS:
        for name in room.__all__:
            thing, label = getattr(room, name), f"{room.__name__}.{name}".removeprefix("pyrogen.")
            if inspect.isfunction(thing) or (inspect.isclass(thing) and not issubclass(thing, BaseException)):
                found.setdefault(thing, label)
    table = {label: thing for thing, label in found.items()}
    for label, thing in list(table.items()):
        if inspect.isclass(thing):
            table |= {f"{label}.{method}": getattr(thing, method) for method in methods(thing)}
    return {name: thing for name, thing in table.items() if arguments(thing)}


def methods(cls):
    """Names of the public methods that are defined in this package."""
    for name, member in inspect.getmembers_static(cls):
        ours = any(name in vars(base) and base.__module__.startswith("pyrogen") for base in cls.__mro__)
        if ours and not name.startswith("_") and isinstance(member, types.FunctionType | classmethod | staticmethod):
            yield name


def arguments(thing):
    try:
        parameters = inspect.signature(thing).parameters.values()
    except ValueError:
        return {}
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {p.name: str(p.annotation) for p in parameters if p.kind not in kinds and p.name != "self"}


PUBLIC = public()


def is_training(call):
    return call.endswith((".fit_many", ".run", ".fit")) and hasattr(pg, call.partition(".")[0])


def test_every_public_function_is_in_the_table():
    known = {*CALLS, *RESULTS}
    doors = {name for name in PUBLIC if not name.startswith(BASES) and name.rpartition(".")[2] not in INNER}
    assert sorted(doors - known) == []
    assert sorted(known - set(PUBLIC)) == []


def is_right(call, name, kind, annotation):
    """Whether a value of this kind may be right for an argument."""
    if kind == "None" and ("None" in annotation or default(call, name) is None):
        return True
    if "float" in annotation and kind in ("a half", "a numpy number"):
        return True
    if "bool" in annotation and kind == "True":
        return True
    if "PathLike" in annotation and kind == "a text":
        return True
    return kind in RIGHT.get((call, name), ()) or kind in RIGHT.get(("", name), ())


def default(call, name):
    return inspect.signature(PUBLIC[call]).parameters[name].default


@pytest.mark.parametrize("call", CALLS)
def test_wrong_arguments_are_refused_by_name(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    function, given = CALLS[call]()
    failures = []
    for name, annotation in arguments(PUBLIC[call]).items():
        for kind, value in WRONG.items():
            if is_right(call, name, kind, annotation):
                continue
            try:
                function(**given | {name: value})
            except Exception as error:
                problem = what_is_wrong_with(error, name, call)
            else:
                problem = "is accepted"
            if problem:
                failures.append(f"{name} = {kind}: {problem}")
    assert not failures, "\n" + "\n".join(failures)


def what_is_wrong_with(error, name, call):
    where = traceback.extract_tb(error.__traceback__)[-1]
    names = NAMES_IN_MESSAGES.get((call, name), ()) + NAMES_IN_MESSAGES.get(("", name), ()) + (name,)
    if not isinstance(error, ValueError | TypeError | FileNotFoundError | IsADirectoryError):
        return f"{type(error).__name__}: {error}"
    if not Path(where.filename).is_relative_to(PACKAGE):
        return f"raised in {where.filename}:{where.lineno}: {error}"
    if not any(word in str(error) for word in names):
        return f"the message does not name it: {error}"
    return None


@pytest.mark.parametrize("call", [call for call in CALLS if not is_training(call)])
def test_the_call_of_the_table_works(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    function, given = CALLS[call]()
    result = function(**given)
    if inspect.isgenerator(result):
        next(result)
