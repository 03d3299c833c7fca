"""The classes that a card may name: backends, flows, and those of the user's own by their path."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pyrogen import flows, inference
from pyrogen.cli.problems import CommandError, nearest
from pyrogen.signals import uninterrupted

BACKENDS: dict[str, type[Any]] = {
    "svi": inference.SVI,
    "hmc": inference.HMC,
    "nuts": inference.NUTS,
    "sgld": inference.SGLD,
    "sghmc": inference.SGHMC,
    "adam-mcmc": inference.AdamMCMC,
    "bootstrap": inference.Bootstrap,
    "ensemble": inference.Ensemble,
    "laplace": inference.Laplace,
    "discflow": inference.DiscFlow,
}
FLOWS: dict[str, type[Any]] = {
    "coupling": flows.CouplingFlow,
    "chain": flows.ChainFlow,
    "multiplicity": flows.MultiplicityFlow,
    "shower": flows.ShowerFlow,
}
FAMILIES = {"backend": BACKENDS, "flow": FLOWS}
#: Settings that the run itself has, or that come from the events.
FILLED = {"backend": ("seed", "device", "checkpoint", "progress"), "flow": ("features", "context", "seed")}
#: Types of settings that a card cannot hold; there it names a function or a class.
BY_NAME = ("Callable", "Posterior")


def named(section: str, name: Any) -> type[Any]:
    """The class of this name: a word of the table, the name of the class, or the path of a class of the user's own.

    Args:
        section: ``"backend"`` or ``"flow"``.
        name: such as ``svi``, ``SVI`` or ``my_flows.Spline``.

    Raises:
        CommandError: there is none.
    """
    table = FAMILIES[section]
    if not isinstance(name, str):
        raise CommandError(f"{section}.class is {name!r}; it must be a name, such as {next(iter(table))}")
    by_class = {kind.__name__: kind for kind in table.values()}
    found = table.get(name.lower()) or by_class.get(name.removeprefix("pyrogen."))
    if found is None and "." not in name:
        raise CommandError(
            f"{section}.class is {name!r}, which does not exist{nearest(name.lower(), table)} (one of your own has a "
            f"path, such as my_module.{name})"
        )
    found = found or imported(name, f"{section}.class")
    if not isinstance(found, type) or (section == "backend" and not issubclass(found, inference.Backend)):
        raise CommandError(f"{section}.class is {name!r}, which is no class of a {section}")
    return found


def imported(path: str, key: str) -> Any:
    """What a path such as ``my_module.MyFlow`` leads to; modules in the working folder count.

    Raises:
        CommandError: there is no such module, or it has no such name.
    """
    module, _, name = path.rpartition(".")
    here = str(Path.cwd())
    before = list(sys.path)
    sys.path.insert(0, here)
    try:
        with uninterrupted():
            return getattr(importlib.import_module(module), name)
    except AttributeError:
        raise CommandError(f"{key} is {path!r}, but {module} has no {name}") from None
    except ImportError as error:
        raise CommandError(f"{key} is {path!r}, which cannot be imported from {here}: {error}") from None
    finally:
        sys.path[:] = before


def function(name: str, key: str) -> Any:
    """A guide or another function that a setting names: ``AutoNormal``, ``AutoLowRankMultivariateNormal``, a path."""
    with uninterrupted():
        import pyro.infer.autoguide

    with uninterrupted():
        import pyrogen

    for place in (pyrogen, pyro.infer.autoguide):
        if "." not in name and hasattr(place, name):
            return getattr(place, name)
    if "." not in name:
        raise CommandError(
            f"{key} is {name!r}; it must be a name of pyrogen or of pyro.infer.autoguide, or a path such as my_module.f"
        )
    return imported(name, key)


def parameters(section: str, kind: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The settings of a class that a card has."""
    found = inspect.signature(kind).parameters
    plain = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name: p for name, p in found.items() if name not in FILLED.get(section, ()) and p.kind in plain}


def owners(section: str, setting: str) -> list[str]:
    """Which classes of a section have a setting."""
    return [name for name, kind in FAMILIES.get(section, {}).items() if setting in parameters(section, kind)]


def is_by_name(parameter: inspect.Parameter) -> bool:
    """Whether a card names what this setting is."""
    return any(word in str(parameter.annotation) for word in BY_NAME)


def made(section: str, kind: type[Any], settings: Mapping[str, Any], filled: Mapping[str, Any]) -> Any:
    """An object of a class of the card.

    Args:
        section: of the card.
        kind: the class.
        settings: what the card says of it.
        filled: what comes from elsewhere; the class takes what it has arguments for.

    Raises:
        CommandError: a setting that the class refuses.
    """
    own = parameters(section, kind)
    given = {name: value for name, value in settings.items() if name != "class"}
    for name, value in given.items():
        if is_by_name(own[name]) and isinstance(value, str) and not _is_word(own[name], value):
            given[name] = function(value, f"{section}.{name}")
    takes = inspect.signature(kind).parameters
    try:
        return kind(**given, **{name: value for name, value in filled.items() if name in takes})
    except (ValueError, TypeError) as error:
        raise CommandError(
            f"{section}.{error}" if str(error).split(" ")[0] in own else f"{section}: {error}"
        ) from error


def _is_word(parameter: inspect.Parameter, value: str) -> bool:
    """Whether the text itself is a value, as of ``start: str | Posterior``."""
    return "str" in str(parameter.annotation) and "." not in value
