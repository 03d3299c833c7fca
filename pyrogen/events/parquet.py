"""Files of Arrow: Parquet, and Feather (the file format of Arrow itself)."""

from __future__ import annotations

import contextlib
import importlib
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checks import check_settings, optional
from ..files import FileFormatError
from ..signals import uninterrupted
from .arrow import flat_names, index_columns, labels_in, pyarrow, schema_of, table_of_sample
from .columns import is_reserved
from .containers import table_of
from .format import LAYOUT as LAYOUT_NAME
from .format import PER_EVENT, Format, NoOptions, PartWriter
from .multiplicity import LAYOUT, Multiplicity, selected
from .sample import EventSample
from .tables import part, reason


@dataclass(frozen=True)
class _Reading:
    multiplicity: Multiplicity | None = None

    def __post_init__(self) -> None:
        check_settings(self, multiplicity=optional(LAYOUT))


class ArrowFile(Format):
    """What files of Arrow have in common, of pyrogen's and of others."""

    keeps = (*PER_EVENT, LAYOUT_NAME)
    reading = _Reading

    @abstractmethod
    def _schema(self, disk: Any) -> Any:
        """The schema of the open file."""

    @abstractmethod
    def _batches(self, disk: Any, columns: list[str]) -> Iterator[Any]:
        """The record batches of the open file, of any length, with some of its columns."""

    @abstractmethod
    def _sink(self, temporary: Path, schema: Any) -> Any:
        """A writer of tables, with the methods ``write_table`` and ``close``."""

    def parts(self, chunk: int, columns: tuple[str, ...] | None, options: _Reading) -> Iterator[EventSample]:
        arrow = pyarrow(f"reading {self.label} files")
        with open(self.path, "rb") as disk:
            with self._damage(arrow, "is not a whole file of"):
                schema = self._schema(disk)
            labels = labels_in(schema.metadata, str(self.path))
            wanted = self._wanted(schema, columns)
            first, waiting = 0, schema.empty_table().select(wanted)
            batches = self._batches(disk, wanted)
            while True:
                with self._damage(arrow, "is damaged:"):
                    batch = next(batches, None)
                if batch is not None:
                    waiting = arrow.concat_tables([waiting, arrow.Table.from_batches([batch]).cast(waiting.schema)])
                while len(waiting) >= chunk or (batch is None and (len(waiting) or first == 0)):
                    yield self._part(waiting.slice(0, chunk), first, columns, labels, options)
                    first, waiting = first + chunk, waiting.slice(chunk)
                if batch is None:
                    return

    def _part(
        self, table: Any, first: int, columns: tuple[str, ...] | None, labels: dict[str, Any], options: _Reading
    ) -> EventSample:
        try:
            found = table_of(table.replace_schema_metadata(None), "events")
        except (TypeError, ValueError) as error:
            raise FileFormatError(f"{self.path} holds no sample of events: {error}") from error
        content: dict[str, Any] = {"values": found.values, "names": found.names, "units": found.units}
        content |= {name: getattr(found, name) for name in PER_EVENT if getattr(found, name) is not None}
        content["provenance"] = labels.get("provenance", {"file": self.path.name})
        layout = labels.get("multiplicity")
        if layout is not None:
            if columns is not None:
                layout = selected(layout, [labels["names"].index(name) for name in columns], labels["names"])
            content[LAYOUT_NAME] = layout
        # Of pyrogen's own files the columns are those chosen already; records of others have more columns.
        return part(self.path, first, None if labels else columns, content, options.multiplicity)

    def _wanted(self, schema: Any, columns: tuple[str, ...] | None) -> list[str]:
        """The columns of the file to read: those chosen, in their order, and weights and their kin."""
        if columns is None:
            index = index_columns(schema)
            return [name for name in schema.names if name not in index]
        owners = {leaf: field.name for field in schema for leaf in flat_names(field)}
        missing = [name for name in columns if name not in owners]
        if missing:
            raise ValueError(
                f"{self.path} has no column {', '.join(map(repr, missing))}; its columns are {', '.join(owners)}"
            )
        more = [name for name in schema.names if is_reserved(name) and name not in columns]
        return list(dict.fromkeys([*(owners[name] for name in columns), *more]))

    def writer(self, temporary: Path, first: EventSample, options: NoOptions) -> PartWriter:
        return _Writer(self, temporary, first)

    @contextlib.contextmanager
    def _damage(self, arrow: Any, what: str) -> Iterator[None]:
        try:
            yield
        except (arrow.ArrowException, OSError, ValueError, KeyError) as error:
            raise FileFormatError(f"{self.path} {what} {self.label}: {reason(error)}") from error


class Parquet(ArrowFile, suffixes=(".parquet",)):
    """Files ``.parquet``; they need the package of ``pip install "pyrogen[arrow]"``.

    A file of pyrogen's keeps everything that a sample has, as :meth:`pyrogen.EventSample.to_arrow` does: columns of
    float64, units in the metadata of the fields, layout and provenance in that of the schema. Its pages have
    checksums. Of other files all columns are read, as of any table of Arrow: records ``mu`` as columns
    ``pt_mu, eta_mu``, lists of one length as ``v[0], v[1]``, the metadata ``units`` (or ``unit``) of a field as its
    unit. Some names mean weights and their kin, as in :class:`~pyrogen.events.hdf5.Hdf5`. Missing entries, texts and
    lists of different lengths are refused by name, unless ``columns`` leaves them out.

    Options of reading:

    * ``multiplicity``: the layout of the columns that are read, where a user's own file has NaN for objects that are
      not there.

    There are no options of writing.
    """

    label = "Parquet"

    def _schema(self, disk: Any) -> Any:
        return _module("parquet").ParquetFile(disk, page_checksum_verification=True).schema_arrow

    def _batches(self, disk: Any, columns: list[str]) -> Iterator[Any]:
        file = _module("parquet").ParquetFile(disk, page_checksum_verification=True)
        for group in range(file.num_row_groups):
            yield from file.read_row_group(group, columns=columns, use_threads=False).select(columns).to_batches()

    def _sink(self, temporary: Path, schema: Any) -> Any:
        return _module("parquet").ParquetWriter(temporary, schema, write_page_checksum=True)


class Feather(ArrowFile, suffixes=(".feather", ".arrow")):
    """Files ``.feather`` or ``.arrow``, the file format of Arrow; content and options as of :class:`Parquet`.

    The format has no checksums: of damage only a wrong size is noticed.
    """

    label = "Feather"

    def _schema(self, disk: Any) -> Any:
        return _module("ipc").open_file(disk).schema

    def _batches(self, disk: Any, columns: list[str]) -> Iterator[Any]:
        file = _module("ipc").open_file(disk)
        for i in range(file.num_record_batches):
            yield file.get_batch(i).select(columns)

    def _sink(self, temporary: Path, schema: Any) -> Any:
        return _module("ipc").new_file(str(temporary), schema)


def _module(name: str) -> Any:
    """A module of pyarrow, which is there."""
    with uninterrupted():
        return importlib.import_module(f"pyarrow.{name}")


class _Writer(PartWriter):
    def __init__(self, file: ArrowFile, temporary: Path, first: EventSample) -> None:
        self._caller = f"writing {file.label} files"
        self._schema = schema_of(first, self._caller)
        self._sink = file._sink(temporary, self._schema)

    def write(self, sample: EventSample) -> None:
        self._sink.write_table(table_of_sample(sample, self._caller, self._schema))

    def close(self) -> None:
        self._sink.close()
