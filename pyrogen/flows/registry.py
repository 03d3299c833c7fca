"""Families of classes that are chosen by name, such as the transforms and the mixings of a flow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Self


class Named:
    """Root of a family whose members put themselves into its table: ``class Affine(Transform, name="affine")``.

    A class directly below this one starts a family with a table of its own. A class that gives no name (an abstract
    one, a variant) is not in the table.
    """

    name: ClassVar[str] = ""
    """What the user calls it."""
    registry: ClassVar[dict[str, type[Any]]]
    """The family's classes by name."""
    _family: ClassVar[str]

    def __init_subclass__(cls, name: str = "", **more: Any) -> None:
        super().__init_subclass__(**more)
        if Named in cls.__bases__:
            cls.registry, cls._family = {}, cls.__name__.lower()
        elif name:
            taken = cls.registry.get(name)
            # The same class once more, from a cell of a notebook that is run again, takes the place of the old one.
            if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
                raise ValueError(
                    f"the {cls._family} {name!r} exists, it is {taken.__module__}.{taken.__qualname__}; "
                    f"give {cls.__qualname__} another name"
                )
            # Checked here, not by the metaclass of ABC, with which Pyro cannot make modules of its own.
            missing = [part for part in dir(cls) if getattr(getattr(cls, part), "__isabstractmethod__", False)]
            if missing:
                raise TypeError(f"the {cls._family} {cls.__qualname__} does not define {' and '.join(missing)}")
            cls.name = name
            cls.registry[name] = cls

    @classmethod
    def named(cls, name: str) -> type[Self]:
        """The class of this name.

        Raises:
            ValueError: no such name, with those that there are.
        """
        check_choice(cls._family, name, sorted(cls.registry))
        return cls.registry[name]


def check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    """Raise a ValueError that lists the choices where ``value`` is none of them."""
    choices = list(choices)
    if not (isinstance(value, str) and value in choices):
        raise ValueError(f"unknown {name} {value!r}; choose one of {', '.join(map(repr, choices))}")
