"""Tables of other packages as numbers, names, units and weights: nothing that a container holds is lost in silence.

Containers are known by what their class has, so no other package is imported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from .arrow import LABELS, columns_of, labels_from, labels_in, numbers_of_fixed_lists, pyarrow
from .columns import INDEX, from_columns, is_reserved, spread
from .multiplicity import Multiplicity
from .row_labels import rows_in_order

ATTRIBUTE = "pyrogen"
"""The entry of the attributes of a DataFrame or Dataset with names, layout and provenance of a sample."""
_DIMENSIONLESS = ("", "1", "dimensionless")


@dataclass(frozen=True)
class Table:
    """What a container holds.

    Attributes:
        values: ``[N, d]``, or of another shape where the container is no table; real numbers.
        names, units: of the columns, or None.
        weights, uncertainties: ``[N]`` or None.
        log_weights: ``[N, K]`` or None.
        labels: the row labels (index) of a pandas object, or None.
        multiplicity: the layout of events with a varying number of objects, or None.
        provenance: how the events were made, where the container tells, or None.
    """

    values: np.ndarray
    names: tuple[str, ...] | None = None
    units: tuple[str, ...] | None = None
    weights: np.ndarray | None = None
    uncertainties: np.ndarray | None = None
    log_weights: np.ndarray | None = None
    labels: Any = None
    multiplicity: Multiplicity | None = None
    provenance: dict[str, Any] | None = None


def table_of(values: Any, what: str = "events") -> Table:
    """What a container of events holds.

    It may be an :class:`~pyrogen.EventSample`, a tensor, a nested list, an array (masked, structured or with a unit), a
    mapping of names to columns, a DataFrame or Series of pandas or polars, a table of Arrow (or what has the method
    ``__arrow_c_stream__``), an array of awkward, a DataArray or Dataset of xarray. Columns called ``weight``,
    ``uncertainty`` or ``log_weight_0`` (and so on) are what these names say, as in files.

    Args:
        values: the container.
        what: how errors call it.

    Raises:
        ValueError: masked or missing entries, rows of different lengths, repeated names, two columns of weights.
        TypeError: entries that are no real numbers, or a container that is not known.
    """
    if type(values) is np.ndarray and values.dtype.names is None:  # the most frequent case, and the quickest
        return Table(_plain(values, what))
    for matches, reader in _READERS:
        if matches(values):
            return reader(values, what)
    return Table(_plain(values, what))


def numbers_of(values: Any, what: str, labels: Any = None) -> np.ndarray:
    """The numbers of a container that has no use for names: weights, uncertainties, conditions.

    Args:
        values: any container that :func:`table_of` knows.
        what: how errors call it.
        labels: the row labels of the events that it belongs to. A pandas object with the same labels in another order
            is put into the order of the events.

    Raises:
        ValueError: as :func:`table_of`; a unit or a column of weights, which would be lost; row labels that do not
            fit those of the events, or that are in no order where the events have none.
        TypeError: as :func:`table_of`.
    """
    table = table_of(values, what)
    if table.units is not None and any(unit not in _DIMENSIONLESS for unit in table.units):
        found = ", ".join(sorted(set(table.units) - set(_DIMENSIONLESS)))
        raise ValueError(f"{what}: the unit {found} would be lost; give plain numbers")
    if table.weights is not None or table.uncertainties is not None or table.log_weights is not None:
        raise ValueError(f"{what}: a column of weights or uncertainties would be lost; leave it out")
    return table.values if table.labels is None else table.values[rows_in_order(table.labels, labels, what)]


def check_same_order(what: str, table: Table, this: str, other: Table) -> None:
    """Raise a ValueError where two tables have the same names in different orders."""
    names, others = table.names or (), other.names or ()
    if names != others and sorted(names) == sorted(others):
        raise ValueError(
            f"{this} has the columns {', '.join(others)}, {what} has them in another order: {', '.join(names)}"
        )


# --- the containers -------------------------------------------------------------------------------------------


def _has(*names: str) -> Callable[[Any], bool]:
    """Whether the class has all of these; the object itself may have columns of these names."""
    return lambda values: all(hasattr(type(values), name) for name in names)


def _sample(sample: Any, what: str) -> Table:
    extras = (sample.weights, sample.uncertainties, sample.log_weights)
    about = {"multiplicity": sample.multiplicity, "provenance": sample.provenance}
    return Table(sample.values, sample.names, sample.units, *extras, **about)


def _pandas_frame(frame: Any, what: str) -> Table:
    pairs = [(name, frame.iloc[:, i]) for i, name in enumerate(frame.columns)]
    found = _named([(name, _series_values(column, what, name)) for name, column in pairs], what, labels=frame.index)
    units = frame.attrs.get("units")
    if isinstance(units, Mapping):
        found = _with_units(found, units)
    return _labelled(found, labels_from(frame.attrs[ATTRIBUTE]) if ATTRIBUTE in frame.attrs else {})


def _pandas_series(series: Any, what: str) -> Table:
    names = (series.name,) if isinstance(series.name, str) else None
    return Table(_series_values(series, what, series.name), names, labels=series.index)


def _series_values(series: Any, what: str, name: Any) -> np.ndarray:
    if not isinstance(series.dtype, np.dtype):  # of pandas' own or of Arrow, where entries may be missing
        missing = np.flatnonzero(np.asarray(series.isna()))
        _refuse_missing(missing, len(series), what, name)
        if not any(kind in str(series.dtype).lower() for kind in ("int", "float", "double", "bool")):
            raise TypeError(f"{what}: column {name!r} must be real numbers; got {series.dtype}")
        return _plain(np.array(series.tolist()), what, name)
    return _plain(series.to_numpy(), what, name)


def _polars_frame(frame: Any, what: str) -> Table:
    return _named([(name, _nullable(frame[name], what, name)) for name in frame.columns], what)


def _arrow_table(table: Any, what: str) -> Table:
    columns = list(columns_of(table, what))
    found = _named([(name, _nullable(numbers_of_fixed_lists(column), what, name)) for name, column, _ in columns], what)
    units = {name: unit for name, _, unit in columns if unit}
    schema = getattr(table, "schema", None)
    return _labelled(_with_units(found, units) if units else found, labels_in(getattr(schema, "metadata", None), what))


def _arrow_stream(stream: Any, what: str) -> Table:
    return _arrow_table(pyarrow(f"a {type(stream).__name__}").table(stream), what)


def _labelled(table: Table, labels: Mapping[str, Any]) -> Table:
    """A table with what a sample told of itself: its layout, where the table still has all columns of the sample."""
    if not labels:
        return table
    layout = labels["multiplicity"] if table.names == labels["names"] else None
    return replace(table, multiplicity=layout, provenance=labels["provenance"])


def _nullable_series(series: Any, what: str) -> Table:
    name = getattr(series, "name", None)
    return Table(_nullable(series, what, name), (name,) if isinstance(name, str) and name else None)


def _nullable(column: Any, what: str, name: Any) -> np.ndarray:
    """A column of polars or Arrow, or numbers that it held."""
    if isinstance(column, np.ndarray):
        return _plain(column, what, name)
    count = column.null_count() if callable(column.null_count) else column.null_count
    if count:
        _refuse_missing(np.flatnonzero(np.asarray(column.is_null())), len(column), what, name)
    return _plain(np.asarray(column), what, name)


def _awkward(array: Any, what: str) -> Table:
    if not array.fields:
        return Table(_awkward_values(array, what, None))
    found = _named([(name, _awkward_values(array[name], what, name)) for name in array.fields], what)
    told = getattr(array, "attrs", {}).get(ATTRIBUTE)
    if not isinstance(told, Mapping):
        return found
    found = _with_units(found, dict(zip(told["names"], told["units"], strict=True)))
    return _labelled(found, labels_from(told))


def _awkward_values(array: Any, what: str, name: str | None) -> np.ndarray:
    label = "" if name is None else f" column {name!r}:"
    if getattr(array, "fields", None):
        raise TypeError(f"{what}:{label} has fields within fields; give one number for each field")
    try:
        found = sys.modules["awkward"].to_numpy(array, allow_missing=True)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{what}:{label} must hold the same number of values in each event: {error}") from error
    return _plain(found, what, name)


def _data_array(array: Any, what: str) -> Table:
    values = _plain(array.values, what)
    if values.ndim == 2 and _labels_of(array, 0) and not _labels_of(array, 1):
        raise ValueError(f"{what}: the names are along the first dimension {array.dims[0]!r}; give its transpose (.T)")
    unit = array.attrs.get("units")
    names: tuple[str, ...] | None = None
    if values.ndim == 2:
        names = _labels_of(array, 1)
    elif values.ndim == 1 and isinstance(array.name, str):
        names = (array.name,)
    count = values.shape[1] if values.ndim == 2 else 1
    if names is not None and values.ndim == 2:
        found = _named([(name, values[:, i]) for i, name in enumerate(names)], what)
        return found if unit is None else _with_units(found, dict.fromkeys(found.names or (), str(unit)))
    return Table(values, names, None if unit is None else (_unit(unit),) * count)


def _labels_of(array: Any, axis: int) -> tuple[str, ...] | None:
    """The names along an axis of a DataArray; None where it has none, or numbers."""
    labels = array.coords[array.dims[axis]].values.tolist() if array.dims[axis] in array.coords else []
    return tuple(labels) if labels and all(isinstance(name, str) for name in labels) else None


def _dataset(dataset: Any, what: str) -> Table:
    columns = {name: dataset[name] for name in dataset.data_vars}
    dims = {column.dims for column in columns.values()}
    if len(dims) > 1:
        raise ValueError(f"{what}: the variables have different dimensions {sorted(map(str, dims))}; give one table")
    found = _named([(name, _plain(column.values, what, name)) for name, column in columns.items()], what)
    found = _with_units(found, {name: column.attrs.get("units", "") for name, column in columns.items()})
    told = dataset.attrs.get(ATTRIBUTE)
    return _labelled(found, labels_in({LABELS: told.encode()}, what) if isinstance(told, str) else {})


def _mapping(columns: Mapping[Any, Any], what: str) -> Table:
    tables = {name: table_of(column, f"{what}, column {name!r}") for name, column in columns.items()}
    labels = next((table.labels for table in tables.values() if table.labels is not None), None)
    pairs = []
    for name, table in tables.items():
        in_order = table.labels is None or labels is table.labels
        rows = slice(None) if in_order else rows_in_order(table.labels, labels, f"{what}, column {name!r}")
        pairs.append((name, table.values[rows]))
    found = _named(pairs, what, labels=labels)
    units = {name: table.units[0] for name, table in tables.items() if table.units}
    return _with_units(found, units) if units else found


def _quantity(number: str, unit: str) -> Callable[[Any, str], Table]:
    """The reader of numbers with one unit, of astropy, pint or unyt."""

    def reader(quantity: Any, what: str) -> Table:
        found = table_of(np.asanyarray(getattr(quantity, number)), what)
        columns = found.values.shape[1] if found.values.ndim == 2 else 1
        units = (_unit(getattr(quantity, unit)),) * columns
        extras = (found.weights, found.uncertainties, found.log_weights)
        return Table(found.values, found.names, units, *extras)

    return reader


def _records(records: Any, what: str) -> Table:
    records = np.asanyarray(records)
    return _named([(name, _plain(records[name], what, name)) for name in records.dtype.names], what)


def _unknown(values: Any, what: str) -> Table:
    raise TypeError(
        f"{what}: {type(values).__name__} has named columns in a way that is not known; give a mapping of names to "
        "columns"
    )


_READERS: tuple[tuple[Callable[[Any], bool], Callable[[Any, str], Table]], ...] = (
    (lambda values: isinstance(values, Table), lambda table, what: table),
    (lambda values: hasattr(values, "provenance") and hasattr(values, "log_weights"), _sample),
    (lambda values: isinstance(values, torch.Tensor), lambda values, what: Table(_plain(values, what))),
    (_has("columns", "index", "iloc"), _pandas_frame),
    (_has("index", "iloc", "name"), _pandas_series),
    (_has("data_vars", "dims"), _dataset),
    (_has("dims", "coords", "attrs"), _data_array),
    (_has("layout", "fields"), _awkward),
    (_has("columns", "null_count"), _polars_frame),
    (_has("column_names", "column"), _arrow_table),
    (_has("null_count", "is_null"), _nullable_series),
    (_has("__arrow_c_stream__"), _arrow_stream),
    (lambda values: isinstance(values, Mapping), _mapping),
    (_has("magnitude", "units"), _quantity("magnitude", "units")),  # pint
    (_has("value", "unit"), _quantity("value", "unit")),  # astropy
    (_has("d", "units"), _quantity("d", "units")),  # unyt
    (lambda values: getattr(getattr(values, "dtype", None), "names", None) is not None, _records),
    (lambda values: any(_has(name)(values) for name in ("columns", "column_names", "fields")), _unknown),
)


# --- what they share ------------------------------------------------------------------------------------------


def _named(pairs: list[tuple[Any, np.ndarray]], what: str, labels: Any = None) -> Table:
    """A table of columns with names; whole numbers for names, as pandas gives, stand for ``x0, x1, ...``."""
    pairs = [(f"x{name}" if isinstance(name, (int, np.integer)) else name, column) for name, column in pairs]
    names = [name for name, _ in pairs]
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong:
        raise TypeError(f"{what}: column names must be strings; got {wrong[0]!r}. Rename the columns")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"{what}: column names must differ from each other; repeated: {', '.join(repeated)}")
    if not pairs:
        raise ValueError(f"{what} must have at least one column; got none")
    if INDEX in names and len(names) > 1:
        raise ValueError(f"{what}: the column {INDEX!r} looks like row numbers of pandas; drop or rename it")
    lengths = {name: len(column) if column.ndim else 0 for name, column in pairs}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{what}: the columns have different lengths: {lengths}")
    try:
        content = from_columns(spread(pairs))
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error
    return Table(content.pop("values"), tuple(content.pop("names")), labels=labels, **content)


def _with_units(table: Table, units: Mapping[str, Any]) -> Table:
    """A table with units by name of the column; ``v`` counts for ``v[0], v[1], ...`` too."""
    names = table.names or ()
    lost = [name for name, unit in units.items() if name not in names and is_reserved(name) and _unit(unit)]
    if lost:
        raise ValueError(f"the unit {units[lost[0]]} of {lost[0]!r} would be lost; give plain numbers")
    found = tuple(_unit(units.get(name, units.get(name.partition("[")[0], ""))) for name in names)
    return replace(table, units=found)


def _unit(unit: Any) -> str:
    text = str(unit)
    return "" if text in _DIMENSIONLESS else text


def _plain(values: Any, what: str, name: Any = None) -> np.ndarray:
    """A real-valued numpy array, without a copy where the memory can be shared."""
    label = "" if name is None else f", column {name!r}"
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        # numpy has no bfloat16
        array = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    else:
        try:
            if _holds(values, torch.Tensor):
                values = [_plain(value, what, name) for value in values]
            array = np.ma.stack(values) if _holds(values, np.ma.MaskedArray) else np.asanyarray(values)
        except ValueError as error:
            raise ValueError(f"{what}{label} must be a table with rows of one length: {error}") from error
        if isinstance(array, np.ma.MaskedArray):
            _refuse_masked(array, what, name)
        array = np.asarray(array)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{what}{label} must be real numbers; got {_told(values, array)}")
    return array


def _told(values: Any, array: np.ndarray) -> str:
    """What was given in place of numbers, and what to do with it."""
    if array.ndim:
        return str(array.dtype)
    if isinstance(values, (str, os.PathLike)):
        return f"{os.fspath(values)!r}. Read a file first: pg.events.read(path)"
    if isinstance(values, Iterator):
        return f"a {type(values).__name__}. Put the parts of a stream together: EventSample.concatenate(parts)"
    return f"an object of the class {type(values).__name__}"


def _holds(values: Any, kind: type) -> bool:
    return isinstance(values, (list, tuple)) and any(isinstance(row, kind) for row in values)


def _refuse_masked(array: np.ma.MaskedArray, what: str, name: Any) -> None:
    mask = np.ma.getmaskarray(array)
    if mask.dtype.names is not None or not mask.any():
        return
    rows = mask.reshape(len(mask), -1) if mask.ndim else mask.reshape(1, 1)
    bad = np.flatnonzero(rows.any(axis=1))
    _refuse_missing(bad, len(rows), what, int(np.argmax(rows[bad[0]])) if name is None and mask.ndim > 1 else name)


def _refuse_missing(rows: np.ndarray, n: int, what: str, column: Any) -> None:
    if len(rows):
        where = "" if column is None else f", column {column}"
        raise ValueError(
            f"{what}: {len(rows)} of {n} rows have masked or missing entries; the first is row {rows[0]}{where}. "
            "Leave such rows out, or fill them. Columns of objects that an event does not have, such as jets, are NaN, "
            "with multiplicity=pg.events.Multiplicity(...): of pandas frame.to_numpy(float, na_value=np.nan)"
        )
