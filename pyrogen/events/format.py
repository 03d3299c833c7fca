"""What a format of event files is, and which there are: each class of one registers itself by its suffixes.

This module knows no single format, and nothing of what a sample is: samples save themselves through it.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from ..checks import require

PER_EVENT = ("weights", "uncertainties", "log_weights")
"""What a sample may have for each event besides its values."""
LAYOUT = "multiplicity"
"""The layout of a sample whose events have a varying number of objects."""

_FORMATS: dict[str, type[Format]] = {}  # by suffix
_NONE = object()  # None may be a default


class Sample(Protocol):
    """What the writers must know of an :class:`~pyrogen.events.EventSample`, which is built on them."""

    def check_like(self, other: Any, what: str = ..., this: str = ...) -> None:
        """Raise a ValueError unless the events of another sample fit behind those of this one."""


class PartWriter(ABC):
    """Writes samples into a new file, one behind the other."""

    @abstractmethod
    def write(self, sample: Any) -> None:
        """Add an :class:`~pyrogen.events.EventSample`; it fits behind those before, which is checked already."""

    @abstractmethod
    def close(self) -> None:
        """Finish the file; also called after an error, where the file is thrown away."""


@dataclasses.dataclass(frozen=True)
class Continuation:
    """How to go on behind the events of a file that is there.

    Args:
        first: a sample like its events.
        open: opens a writer on a temporary file, with the events of the old file in it.
    """

    first: Sample
    open: Callable[[Path], PartWriter]


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """The options of a format that has none."""


class Format(ABC):
    """A format of event files; an object of it is one file. A new format is a subclass, in a file of its own::

        @dataclass(frozen=True)
        class CsvOptions:
            delimiter: str = ","


        class Csv(Format, suffixes=(".csv",)):
            label = "CSV"
            reading = writing = CsvOptions
            keeps = ("weights",)

            def parts(self, chunk, columns, options): ...  # yield parts, through tables.part(...)

            def writer(self, temporary, first, options): ...  # a PartWriter

    From then on :func:`read`, :func:`stream`, :func:`write`, :class:`EventWriter` and :meth:`EventSample.save` know
    it, with its options as keywords: ``read("a.csv", delimiter=";")``. A new format replaces an old one with the same
    suffix. Implement :meth:`write` (a whole sample) or :meth:`writer` (part by part); :class:`EventWriter` and
    ``Posterior.generate_to`` need :meth:`writer`, :func:`append` needs :meth:`resume` besides.

    Options are the fields of a frozen dataclass, with defaults; its ``__post_init__`` checks them. ``None`` means
    left out. What an option is for stands in the docstring of the format.

    Args:
        path: the file.

    Attributes:
        label: the name of the format in errors: ``"HDF5"`` of an HDF5 file.
        reading: the options of reading, a frozen dataclass.
        writing: the options of writing, likewise.
        keeps: what the format keeps of ``weights``, ``uncertainties``, ``log_weights`` and ``multiplicity``; a sample
            that has others of these is refused.
        why_whole: why it cannot be written part by part, where it cannot.
    """

    label: ClassVar[str]
    reading: ClassVar[type] = NoOptions
    writing: ClassVar[type] = NoOptions
    keeps: ClassVar[tuple[str, ...]] = ()
    why_whole: ClassVar[str] = "the format is written as a whole"

    def __init_subclass__(cls, suffixes: Iterable[str] = (), **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        suffixes = tuple(suffixes)
        good = all(suffix.startswith(".") and suffix == suffix.lower() for suffix in suffixes)
        require(good, "suffixes", suffixes, 'a tuple of suffixes in small letters, such as (".csv", ".csv.gz")')
        _FORMATS.update(dict.fromkeys(suffixes, cls))

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def parts(self, chunk: int, columns: tuple[str, ...] | None, options: Any) -> Iterator[Any]:
        """The events of the file in parts, each an :class:`~pyrogen.events.EventSample`; there is at least one.

        Args:
            chunk: events of each part but the last, which may have fewer.
            columns: names of the columns to keep, in this order; all if None.
            options: those of :attr:`reading`.

        Raises:
            FileFormatError: truncated, damaged or foreign content, or content that is no sample of events.
            ValueError: an option or column that the file has no use for.
        """

    def finish(self, sample: Any) -> Any:
        """What :func:`read` gives of the sample that all parts make up."""
        return sample

    def write(self, sample: Any, temporary: Path, options: Any) -> None:
        """Write a whole sample to a new file ``temporary``, which then takes the place of :attr:`path`.

        Raises:
            ValueError: something of the sample that the format would lose.
            OSError: the disk is full or read-only.
        """
        raise NotImplementedError(f"{type(self).__name__} does not write a sample as a whole")

    def writer(self, temporary: Path, first: Any, options: Any) -> PartWriter:
        """Open a new file ``temporary`` for samples like ``first`` (it is not written yet); see :meth:`write`."""
        raise NotImplementedError(f"{type(self).__name__} does not write in parts")

    def resume(self, options: Any) -> Continuation:
        """Get ready to go on behind the events of the file that is there.

        Raises:
            FileFormatError: it is damaged or foreign.
            ValueError: options that do not go with it.
        """
        raise NotImplementedError(f"{type(self).__name__} does not append")

    @classmethod
    def can(cls, task: Literal["write", "writer", "resume"]) -> bool:
        """Whether the format has a method that not all have."""
        return getattr(cls, task) is not getattr(Format, task)


def format_of(path: Path, verb: Literal["read", "write"]) -> Format:
    """The file at ``path``, in the format of its suffix; the longest that is known counts.

    Raises:
        ValueError: a suffix that cannot be read, or written.
    """
    able = suffixes_of(None if verb == "read" else ("write", "writer"))
    for suffix in sorted(_FORMATS, key=len, reverse=True):
        if path.name.lower().endswith(suffix):
            if suffix in able:
                return _FORMATS[suffix](path)
            reason = f"{_FORMATS[suffix].label} files are only read"
            break
    else:
        reason = f"unknown suffix {path.suffix!r}"
    raise ValueError(f"cannot {verb} {path}: {reason}; pyrogen can {verb} {', '.join(able)}")


def suffixes_of(tasks: Iterable[Literal["write", "writer", "resume"]] | None) -> list[str]:
    """The suffixes of all formats that can do one of some tasks; None: of all formats."""
    return sorted(s for s, kind in _FORMATS.items() if tasks is None or any(map(kind.can, tasks)))


def chosen_options(file: Format, what: Literal["reading", "writing"], given: Mapping[str, Any]) -> Any:
    """The options of a file's format, with those given.

    Args:
        file: the file.
        what: the options of which task.
        given: values by name; None is an option left out.

    Raises:
        ValueError: an option that only other formats have, or a value that is not possible.
        TypeError: an option that no format has.
    """
    given = {name: value for name, value in given.items() if value is not None}
    own = _defaults(type(file), what)
    useful = f"the options of {what} {file.label} files: {', '.join(own) or 'none'}"
    useless: list[str] = []
    owners: set[str] = set()
    for name, value in given.items():
        if name in own:
            continue
        others = {kind.label: _defaults(kind, what).get(name, _NONE) for kind in _FORMATS.values()}
        others = {label: default for label, default in others.items() if default is not _NONE}
        if not others:
            raise TypeError(f"no format has an option {name!r} of {what}; {useful}")
        if not (isinstance(value, (str, bool, int, float)) and value in others.values()):  # a default asks for nothing
            useless.append(f"{name}={value!r}")
            owners.update(others)
    if useless:
        raise ValueError(f"{file.path} is no {_either(owners)} file; leave out {', '.join(useless)}; {useful}")
    return getattr(file, what)(**{name: value for name, value in given.items() if name in own})


def check_loss(file: Format, sample: Any) -> None:
    """Raise a ValueError where the format of a file would lose something that a sample has besides its values."""
    check_keeps(file, [name for name in (*PER_EVENT, LAYOUT) if getattr(sample, name) is not None])


def check_keeps(file: Format, has: Iterable[str]) -> None:
    """Raise a ValueError where the format of a file would lose some of what a sample is going to have.

    Args:
        file: the file.
        has: those of ``weights``, ``uncertainties``, ``log_weights`` and ``multiplicity`` that the sample has.
    """
    lost = [name for name in has if name not in file.keeps]
    if lost:
        able = [suffix for suffix in suffixes_of(("write", "writer")) if set(lost) <= set(_FORMATS[suffix].keeps)]
        raise ValueError(
            f"cannot write {file.path}: {file.label} would lose the {' and '.join(lost)}; write {_either(able)} instead"
        )


def check_can_append(file: Format) -> None:
    """Raise a ValueError unless events can be added to a file of this format."""
    if not file.can("resume"):
        able = {kind.label for kind in _FORMATS.values() if kind.can("resume")}
        raise ValueError(f"{file.path} is no {_either(able)} file; leave out append=True")


def _defaults(kind: type[Format], what: str) -> dict[str, Any]:
    return {field.name: field.default for field in dataclasses.fields(getattr(kind, what))}


def _either(words: Iterable[str]) -> str:
    """``A``, ``A or B``, ``A, B or C``."""
    *others, last = sorted(words)
    return f"{', '.join(others)} or {last}" if others else last
