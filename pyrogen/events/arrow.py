"""Tables of Arrow: the columns, units and labels in them, and what a sample writes into one."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..checks import require_extra
from ..files import FileFormatError
from .columns import to_columns
from .multiplicity import Multiplicity

LABELS = b"pyrogen"
"""The entry of a schema's metadata with names, units, layout and provenance of a sample, as JSON."""
UNITS = (b"units", b"unit")
"""The entries of a field's metadata that are read as its unit; the first one is written."""


def pyarrow(caller: str) -> Any:
    """The package pyarrow.

    Args:
        caller: what needs it, for the error.

    Raises:
        ImportError: it is missing.
    """
    require_extra("pyarrow", "arrow", caller)
    import pyarrow

    return pyarrow


def columns_of(table: Any, what: str) -> Iterator[tuple[str, Any, str]]:
    """Name, column and unit of every column of a ``pyarrow`` table or record batch.

    The fields of a record ``mu`` become columns ``pt_mu, eta_mu``. Lists of one length in all rows stay one column. The
    row labels (index) that pandas stores as columns are left out, as those of a DataFrame are.

    Raises:
        TypeError: lists of different lengths, by name.
    """
    schema = getattr(table, "schema", None)
    left_out = index_columns(schema)
    for i, name in enumerate(table.column_names):
        if name not in left_out:
            field = None if schema is None else schema.field(i)
            yield from _flat(name, table.column(i), field, what)


def flat_names(field: Any) -> list[str]:
    """The names of the columns that a field of a schema becomes."""
    if not _is(field.type, "struct"):
        return [field.name]
    return [f"{name}_{field.name}" for child in _children(field.type) for name in flat_names(child)]


def _flat(name: str, column: Any, field: Any, what: str) -> Iterator[tuple[str, Any, str]]:
    if field is None:  # a table like those of Arrow, which says nothing of its types
        yield name, column, ""
        return
    kind = field.type
    if _is(kind, "struct"):
        parts = [_combined(column).field(i) if not column.null_count else None for i in range(kind.num_fields)]
        for child, part in zip(_children(kind), parts, strict=True):
            if part is None:  # of a record that is missing in some rows
                yield f"{child.name}_{name}", column, ""
            else:
                yield from _flat(f"{child.name}_{name}", part, child, what)
        return
    if _is(kind, "list") or _is(kind, "large_list") or _is(kind, "map"):
        raise TypeError(
            f"{what}: column {name!r} has lists of different lengths ({kind}), such as the jets of an event; read it "
            "with pg.events.from_awkward(awkward.from_arrow(table), most=...), or leave it out"
        )
    if _is(kind, "dictionary"):
        column = column.cast(kind.value_type)
    metadata = field.metadata or {}
    yield name, column, next((metadata[key].decode() for key in UNITS if key in metadata), "")


def numbers_of_fixed_lists(column: Any) -> Any:
    """A column of lists of one length as numbers ``[N, k]``; other columns as they are."""
    kind = getattr(column, "type", None)
    if kind is None or not _is(kind, "fixed_size_list") or column.null_count:
        return column
    lists = _combined(column)
    values = lists.flatten()
    return column if values.null_count else np.asarray(values).reshape(len(lists), kind.list_size)


def labels_in(metadata: Mapping[bytes, bytes] | None, what: str) -> dict[str, Any]:
    """What a sample wrote of itself into the metadata of a schema: ``names``, ``provenance``, and a layout.

    Raises:
        FileFormatError: labels that cannot be read.
    """
    if not metadata or LABELS not in metadata:
        return {}
    try:
        return labels_from(json.loads(metadata[LABELS]))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise FileFormatError(f"{what}: the labels of pyrogen in the metadata are damaged: {error}") from error


def labels_from(told: Mapping[str, Any]) -> dict[str, Any]:
    """The labels that :func:`labels_of` told: the layout as an object."""
    layout = told.get("multiplicity")
    return {
        "names": tuple(map(str, told["names"])),
        "provenance": dict(told["provenance"]),
        "multiplicity": None if layout is None else Multiplicity.from_config(layout),
    }


def labels_of(sample: Any) -> dict[str, Any]:
    """What a sample is besides numbers and units, in JSON types."""
    layout = sample.multiplicity
    told = {"names": list(sample.names), "provenance": sample.provenance}
    return told | {"multiplicity": None if layout is None else layout.config()}


def schema_of(sample: Any, caller: str) -> Any:
    """The schema of the table of a sample, with its units and labels."""
    arrow = pyarrow(caller)
    units = dict(zip(sample.names, sample.units, strict=True))
    fields = [
        arrow.field(
            name, arrow.float64(), nullable=False, metadata={UNITS[0]: units[name]} if units.get(name) else None
        )
        for name in to_columns(sample)
    ]
    return arrow.schema(fields, metadata={LABELS: json.dumps(labels_of(sample))})


def table_of_sample(sample: Any, caller: str, schema: Any = None) -> Any:
    """The ``pyarrow.Table`` of a sample: values, then ``weight``, ``uncertainty``, ``log_weight_0``, ..."""
    columns = [np.ascontiguousarray(column) for column in to_columns(sample).values()]
    return pyarrow(caller).table(columns, schema=schema_of(sample, caller) if schema is None else schema)


def _combined(column: Any) -> Any:
    """A column in one piece."""
    if not hasattr(column, "combine_chunks"):
        return column
    found = column.combine_chunks()
    return found.combine_chunks() if hasattr(found, "combine_chunks") else found  # of no chunk, by some versions


def _is(kind: Any, name: str) -> bool:
    types = getattr(sys.modules.get("pyarrow"), "types", None)
    return types is not None and getattr(types, f"is_{name}")(kind)


def _children(kind: Any) -> list[Any]:
    return [kind.field(i) for i in range(kind.num_fields)]


def index_columns(schema: Any) -> set[str]:
    """The columns that pandas stored its index in."""
    metadata = getattr(schema, "metadata", None) or {}
    try:
        told = json.loads(metadata.get(b"pandas", b"{}")).get("index_columns", [])
    except (ValueError, AttributeError):
        return set()
    return {name for name in told if isinstance(name, str)}
