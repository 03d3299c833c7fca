"""Frames of pandas in HDF5 files, as ``DataFrame.to_hdf`` writes them, read without pandas and PyTables.

* ``format="fixed"``: a group with ``axis0`` (column names), ``axis1`` (row labels) and, for each type of numbers,
  ``block0_items`` (names of its columns) and ``block0_values [N, columns]``.
* ``format="table"``: a group with ``table``, records with a field ``index`` and either a field for each column
  (``data_columns=True``) or fields ``values_block_0`` of several columns, whose names are pickled.

Nothing is unpickled.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ..files import FileFormatError
from ..hdf5 import check_datasets, check_link
from ..signals import uninterrupted

CONVERT = (
    'with pandas and PyTables, pandas.read_hdf(path).to_hdf("new.h5", key="df", format="fixed", mode="w") writes a '
    "file that can be read"
)
_VALUES, _ITEMS, _TABLE = "block{}_values", "block{}_items", "table"
_PACKED = "values_block_"


class Frame:
    """A frame in a file: its columns by name, read in rows.

    Args:
        group: that of the frame, in an open file.

    Attributes:
        names: of the columns; their numbers as text where the frame has numbers only. None where they are pickled.

    Raises:
        FileFormatError: no frame, one with pickled or foreign content, or numbers compressed in a way that this
            installation does not know.
    """

    def __init__(self, group: h5py.Group) -> None:
        self._path = Path(group.file.filename)
        self._group = group
        self.names: tuple[str, ...] | None
        if _TABLE in group:
            self._of_table()
        elif "axis0" in group:
            self._of_blocks()
        else:
            raise FileFormatError(
                f"{self._path}: group {group.name} is no frame of pandas: it has no axis0 and no table"
            )
        _check_filters(self._path, self._datasets)
        check_datasets(group.file, self._datasets)
        lengths = {len(each) for each in self._datasets}
        if len(lengths) != 1:
            raise FileFormatError(f"{self._path}: the blocks of {group.name} have different lengths, {sorted(lengths)}")

    def __len__(self) -> int:
        return len(self._datasets[0])

    @property
    def width(self) -> int:
        """Number of columns."""
        return sum(len(columns) for columns in self._places)

    def rows(self, rows: slice) -> NDArray[np.float64]:
        """Some rows of all columns, ``[n, width]``, in the order of :attr:`names`."""
        found = np.empty((len(range(*rows.indices(len(self)))), self.width))
        for dataset, columns in zip(self._datasets, self._places, strict=True):
            part = dataset[rows]
            if part.dtype.names:
                packed = [name for name in part.dtype.names if name != "index"]
                part = np.concatenate([part[name].reshape(len(part), -1) for name in packed], 1)
            found[:, columns] = part
        return found

    def _of_blocks(self) -> None:
        names = self._labels("axis0")
        self._datasets: list[h5py.Dataset] = []
        self._places: list[list[int]] = []
        for i in range(len(self._group)):
            if _VALUES.format(i) not in self._group:
                break
            items, values = self._labels(_ITEMS.format(i)), self._dataset(_VALUES.format(i))
            if values.ndim != 2 or values.shape[1] != len(items) or values.dtype.kind not in "fiub":
                raise FileFormatError(
                    f"{self._path}: {values.name} is {list(values.shape)} of {values.dtype}; it must be numbers "
                    f"[N, {len(items)}]"
                )
            unknown = [item for item in items if item not in names]
            if unknown:
                raise FileFormatError(f"{self._path}: {values.name} has a column {unknown[0]} that axis0 does not have")
            self._datasets.append(values)
            self._places.append([names.index(item) for item in items])
        if sorted(sum(self._places, [])) != list(range(len(names))):
            raise FileFormatError(
                f"{self._path}: the blocks of {self._group.name} do not hold each of its columns once"
            )
        self.names = names

    def _of_table(self) -> None:
        table = self._dataset(_TABLE)
        if not table.dtype.names:
            raise FileFormatError(f"{self._path}: {table.name} holds no records")
        fields = [name for name in table.dtype.names if name != "index"]
        for name in fields:
            if table.dtype[name].base.kind not in "fiub":
                raise FileFormatError(f"{self._path}: the column {name!r} of {table.name} holds no numbers")
        self._datasets = [table]
        self._places = [list(range(sum(int(np.prod(table.dtype[name].shape)) for name in fields)))]
        packed = [name for name in fields if name.startswith(_PACKED) or table.dtype[name].shape]
        self.names = None if packed else tuple(fields)
        if len(packed) > 1 or (packed and len(fields) > 1):
            raise FileFormatError(
                f"{self._path}: {table.name} has its columns in several blocks, and their order is pickled, which is "
                f"never read; {CONVERT}"
            )

    def _dataset(self, name: str) -> h5py.Dataset:
        if name not in self._group:
            raise FileFormatError(f"{self._path} is damaged or incomplete: it has no {self._group.name}/{name}")
        check_link(self._group, name)
        item = self._group[name]
        if not isinstance(item, h5py.Dataset):
            raise FileFormatError(f"{self._path}: {item.name} is no dataset")
        return item

    def _labels(self, name: str) -> tuple[str, ...]:
        """Names of columns: texts of fixed length, or numbers."""
        item = self._dataset(name)
        if item.dtype.hasobject or item.dtype.kind not in "Siu":
            raise FileFormatError(
                f"{self._path}: the column names in {item.name} are pickled, and pyrogen never unpickles; {CONVERT}"
            )
        _check_filters(self._path, [item])
        check_datasets(item.file, [item])
        return tuple(label.decode() if isinstance(label, bytes) else str(label) for label in item[()].tolist())


def frame_of(file: h5py.File, path: Path) -> Frame:
    """The one frame of a file.

    Raises:
        FileFormatError: none or several, or as :class:`Frame`.
    """
    found = []
    for name in sorted(file):
        check_link(file, name)
        if isinstance(file[name], h5py.Group) and ("axis0" in file[name] or _TABLE in file[name]):
            found.append(name)
    if len(found) != 1:
        what = f"{len(found)} frames: {', '.join(found)}" if found else f"{', '.join(sorted(file)) or 'nothing'}"
        raise FileFormatError(f"{path} must hold one frame of pandas, as DataFrame.to_hdf writes it; it has {what}")
    return Frame(file[found[0]])


def _check_filters(path: Path, datasets: Sequence[h5py.Dataset]) -> None:
    """Raise a FileFormatError where numbers are compressed by a filter that h5py does not have."""
    for dataset in datasets:
        plan: Any = dataset.id.get_create_plist()
        for i in range(plan.get_nfilters()):
            code, _, _, name = plan.get_filter(i)
            if not h5py.h5z.filter_avail(code):
                _try_plugins()
            if not h5py.h5z.filter_avail(code):
                what = name.decode(errors="replace") or f"HDF5 filter {code}"
                raise FileFormatError(
                    f"{path}: {dataset.name} is compressed by {what}, which h5py does not know; install it with: "
                    f"pip install hdf5plugin; or let PyTables write the file anew: ptrepack --complevel=5 "
                    f"--complib=zlib --shuffle=1 {path.name} new.h5"
                )


def _try_plugins() -> None:
    """Register the filters of hdf5plugin, where it is installed."""
    try:
        with uninterrupted():
            import hdf5plugin  # noqa: F401
    except ImportError:
        pass
