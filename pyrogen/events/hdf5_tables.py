"""Tables of events in HDF5 files of a user's: found by their shape, or by their name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sized
from pathlib import Path
from typing import Any

import h5py

from ..files import FileFormatError
from ..hdf5 import check_datasets, check_inside, check_link
from .tables import UNCERTAINTIES, WEIGHTS, from_columns, from_records

Content = Callable[[slice], dict[str, Any]]


def table_of(file: h5py.File, path: Path, dataset: str | None) -> tuple[int, Content]:
    """Number of events and content of a dataset, or of a group of columns."""
    item = _only_table(file, path) if dataset is None else _named(file, path, dataset)
    made = {"provenance": {"file": path.name, "dataset": item.name}}
    if isinstance(item, h5py.Group):
        _check_links(item, item)
        columns = _columns_of(item)
    elif item.dtype.names:
        check_datasets(file, [item])
        return len(item), lambda rows: from_records(item[rows]) | made
    elif item.ndim == 1:
        columns = {item.name.rsplit("/", 1)[-1]: item}
    else:
        arrays = {"values": item}
        _check_links(item.parent, (*WEIGHTS, *UNCERTAINTIES))
        beside = _columns_of(item.parent)
        for what, names in (("weights", WEIGHTS), ("uncertainties", UNCERTAINTIES)):
            present = [beside[name] for name in names if name in beside]
            if len(present) > 1:
                raise FileFormatError(f"{path}: the datasets {' and '.join(names)} are both {what}; keep one")
            if present:
                arrays[what] = present[0]
        check_datasets(file, list(arrays.values()))
        n = common_length(path, arrays)
        return n, lambda rows: {name: array[rows] for name, array in arrays.items()} | made
    check_datasets(file, list(columns.values()))
    n = common_length(path, columns)
    return n, lambda rows: from_columns({name: column[rows] for name, column in columns.items()}) | made


def _only_table(file: h5py.File, path: Path) -> h5py.Dataset | h5py.Group:
    items: list[h5py.Dataset | h5py.Group] = [file["/"]]
    file.visititems(lambda _, item: items.append(item))  # does not follow links out of the file
    datasets = [item for item in items if isinstance(item, h5py.Dataset)]
    for item in datasets:  # any of them could be the table, and even the shape of a virtual one lies elsewhere
        check_inside(item)
    tables = [item for item in datasets if _is_table(item)] or [
        item for item in items if isinstance(item, h5py.Group) and _is_group_of_columns(item)
    ]
    if len(tables) == 1:
        return tables[0]
    if tables:
        raise ValueError(f'{path} holds several tables; choose one with dataset="name": {_listed(tables)}')
    raise ValueError(
        f"{path} holds no table of events (a numeric dataset [N, d], records of numbers, or a group of "
        f"columns of one length); it holds {_listed(datasets) or 'no dataset at all'}"
    )


def _named(file: h5py.File, path: Path, dataset: str) -> h5py.Dataset | h5py.Group:
    datasets: list[h5py.Dataset] = []
    file.visititems(lambda _, item: datasets.append(item) if isinstance(item, h5py.Dataset) else None)
    item: Any = file["/"]
    for name in filter(None, dataset.split("/")):
        if not isinstance(item, h5py.Group) or name not in set(item):
            raise ValueError(f"{path} has no dataset {dataset!r}; it holds {_listed(datasets)}")
        check_link(item, name)
        item = item[name]
    if isinstance(item, h5py.Dataset):
        check_inside(item)
    if isinstance(item, h5py.Group):
        usable = _is_group_of_columns(item)
    else:
        usable = _is_table(item) or (item.ndim == 1 and item.dtype.kind in "biuf")
    if not usable:
        raise ValueError(
            f"dataset {dataset!r} of {path} is no table of events: it should be numeric [N, d] or [N], "
            f"records of numbers, or a group of columns of one length; the file holds {_listed(datasets)}"
        )
    return item


def _is_table(item: h5py.Dataset) -> bool:
    if item.dtype.names:
        return item.ndim == 1 and all(field.base.kind in "biuf" for field, *_ in item.dtype.fields.values())
    return item.ndim == 2 and item.dtype.kind in "biuf"


def _is_group_of_columns(group: h5py.Group) -> bool:
    return len({len(column) for column in _columns_of(group).values()}) == 1


def _columns_of(group: h5py.Group) -> dict[str, h5py.Dataset]:
    """The one-dimensional numeric datasets directly in a group, sorted by name; links are not followed."""
    columns = {}
    for name in sorted(group):
        if isinstance(group.get(name, getlink=True), h5py.HardLink):
            child = group[name]
            if isinstance(child, h5py.Dataset):
                check_inside(child)
            if isinstance(child, h5py.Dataset) and child.ndim == 1 and child.dtype.kind in "biuf":
                columns[name] = child
    return columns


def _check_links(group: h5py.Group, names: Iterable[str]) -> None:
    """Refuse links in a group that stand where columns, weights or uncertainties do: they would be left out."""
    for name in names:
        if name in set(group):
            check_link(group, name)


def _listed(items: list[Any]) -> str:
    def shape(item: h5py.Dataset | h5py.Group) -> str:
        return f"{list(item.shape)}" if isinstance(item, h5py.Dataset) else f"columns {', '.join(_columns_of(item))}"

    return "; ".join(f"{item.name.lstrip('/') or '/'} {shape(item)}" for item in items)


def common_length(path: Path, arrays: Mapping[str, Sized]) -> int:
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise FileFormatError(f"{path} holds no sample of events: its datasets have different lengths: {listed}")
    return next(iter(lengths.values()))
