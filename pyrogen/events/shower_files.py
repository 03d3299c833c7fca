"""Files of calorimeter showers: those of the CaloChallenge and of CaloGAN are read, the former are written."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from ..checks import PATH, TEXT, door, each, optional, require, shown, whole
from ..files import FileFormatError, check_writable, naming_failed_write, replacing
from ..hdf5 import (
    BlockDigests,
    CheckedRows,
    Kind,
    check_datasets,
    check_link,
    damage_named,
    growing_hdf5,
    is_labelled,
    open_any_hdf5,
    open_hdf5,
    read_json,
    seal,
    uninterrupted,
    write_json,
)
from .shower_geometry import ShowerGeometry
from .shower_sample import SHOWERS, Showers

MEV = 1e-3  # in GeV
ENERGIES, VOXELS, OVERFLOW = "incident_energies", "showers", "overflow"
KIND = Kind("showers", version=1, sealed=1, apart=(ENERGIES, VOXELS))
_DIGESTS, _GEOMETRY, _PROVENANCE = "digests", "geometry", "provenance"
_BYTES_PER_CHUNK = 2**19
_BOUNDARIES = each(whole(0), "boundaries of layers, such as (0, 8, 168)", 2)

Geometry = ShowerGeometry | str | os.PathLike[str] | Sequence[int]


@door(path=PATH, particle=optional(TEXT), first=whole(0), n=optional(whole(1)))
def read_showers(
    path: str | os.PathLike[str],
    geometry: Geometry | None = None,
    *,
    particle: str | None = None,
    first: int = 0,
    n: int | None = None,
) -> Showers:
    """Read showers from an HDF5 file of the CaloChallenge, of CaloGAN or of :func:`write_showers`.

    * CaloChallenge (https://github.com/CaloChallenge/homepage): ``incident_energies [N, 1]`` and
      ``showers [N, voxels]`` in MeV; 368 voxels of photons and 533 of pions in dataset 1, 6480 in dataset 2, 40500 in
      dataset 3. The file does not say which voxels are which layer: that is in the binning file beside it.
    * CaloGAN (doi:10.17632/pvn3xc3wy5.1, arXiv:1712.10321): ``energy [N, 1]`` in GeV; ``layer_0 [N, 3, 96]``,
      ``layer_1 [N, 12, 12]``, ``layer_2 [N, 12, 6]`` in MeV, rows along phi; and perhaps ``overflow [N, 3]`` in MeV.

    Args:
        path: the file.
        geometry: of files that do not say it: a binning file of the CaloChallenge (``.xml``), a
            :class:`ShowerGeometry`, or the boundaries of the layers among the voxels, from 0 to their number.
        particle: its name in the binning file, where that has several.
        first: the first shower to read, counted from 0.
        n: number of showers, all that follow if left out.

    Returns:
        The showers, in GeV.

    Raises:
        FileNotFoundError: no such file.
        FileFormatError: truncated, damaged or foreign, or content that is no shower: other shapes, NaN, negative
            energies; the text names the file and the dataset, or the shower.
        ValueError: no geometry where one is needed, or one that does not fit; ``first`` behind the last shower.
    """
    path = Path(path)
    given = _geometry(geometry, particle)
    with open_any_hdf5(path) as file, damage_named(path):
        own = is_labelled(file)
        if not own:
            return _foreign(file, path, given, first, n)
    with open_hdf5(path, KIND) as file:
        known = ShowerGeometry.from_config(read_json(file, _GEOMETRY))
        require(
            given is None or given.sizes == known.sizes, "geometry", geometry, f"left out, or that of {path}: {known}"
        )
        rows = _rows(path, len(file[VOXELS]), first, n)
        # In double precision, so that what is written again has the same bits.
        values, energies = (np.asarray(_own(file, name)[rows], np.float64) for name in (VOXELS, ENERGIES))
        return _showers(path, values * MEV, energies[:, 0] * MEV, known, None, read_json(file, _PROVENANCE))


@door(showers=SHOWERS, path=PATH)
def write_showers(showers: Showers, path: str | os.PathLike[str]) -> None:
    """Write showers in the layout of the CaloChallenge, with their geometry and provenance beside it.

    :func:`read_showers` reads them back without further arguments. Energies are kept in float32, in MeV.

    Args:
        showers: without weights, uncertainties and overflow, for which the layout has no place.
        path: the file; an old one is replaced in one piece.

    Raises:
        ValueError: showers with more than the layout can hold.
        OSError: the file cannot be written.
    """
    lost = [name for name in ("weights", "uncertainties", "log_weights") if getattr(showers.events, name) is not None]
    lost += [OVERFLOW] if showers.overflow is not None else []
    require(not lost, "showers", showers, f"without {' and '.join(lost)}, which the layout of the CaloChallenge loses")
    with ShowerWriter(path, showers.geometry, showers.events.provenance) as writer:
        writer.write(showers.values, showers.energies)


class ShowerWriter:
    """Writes showers part by part; the file appears at the end of the block, in one piece.

    Layout, of kind ``"showers"``, version 1 (root attributes as in :mod:`pyrogen.hdf5`)::

        showers            [N, voxels] float32, in MeV
        incident_energies  [N, 1] float32, in MeV
        digests/showers, digests/incident_energies   SHA-256 of blocks of rows
        geometry           JSON, as ShowerGeometry.config()
        provenance         JSON

    Args:
        path: the file.
        geometry: of the showers.
        provenance: where they come from.
    """

    def __init__(self, path: str | os.PathLike[str], geometry: ShowerGeometry, provenance: dict[str, Any]) -> None:
        self._path, self._geometry, self._provenance = Path(path).absolute(), geometry, provenance
        check_writable(self._path)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack, uninterrupted():
            temporary = stack.enter_context(replacing(self._path))
            stack.enter_context(naming_failed_write(self._path))
            self._file, self._check = stack.enter_context(growing_hdf5(temporary, KIND))
            self._digests = {name: self._create(name, width) for name, width in self._widths.items()}
            write_json(self._file, _GEOMETRY, self._geometry.config())
            write_json(self._file, _PROVENANCE, self._provenance)
            self._stack = stack.pop_all()
        return self

    def write(self, values: NDArray[np.float64], energies: NDArray[np.float64]) -> None:
        """Add showers: energies ``[n, voxels]`` of cells and ``[n]`` of the particles, in GeV."""
        with uninterrupted():
            for name, rows in ((VOXELS, values), (ENERGIES, energies[:, None])):
                stored, dataset = np.asarray(rows / MEV, np.float32), self._file[name]
                dataset.resize(len(dataset) + len(stored), axis=0)
                dataset[-len(stored) :] = stored
                self._digests[name].add(stored)
            self._check()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with uninterrupted(), contextlib.ExitStack() as stack:
            stack.push(self._stack)  # which learns of an error in what follows, too
            if error is None:
                for name, digests in self._digests.items():
                    digests.store(self._file[_DIGESTS][name])
                seal(self._file, KIND.apart)
            else:
                stack.pop_all().__exit__(kind, error, trace)

    @property
    def _widths(self) -> Mapping[str, int]:
        return {VOXELS: self._geometry.voxels, ENERGIES: 1}

    def _create(self, name: str, width: int) -> BlockDigests:
        rows = max(64, min(16_384, _BYTES_PER_CHUNK // (4 * width)))
        self._file.create_dataset(
            name,
            (0, width),
            np.float32,
            maxshape=(None, width),
            chunks=(rows, width),
            shuffle=True,
            compression="gzip",
            fletcher32=True,
        )
        digests = BlockDigests(rows)
        digests.create(self._file.require_group(_DIGESTS), name)
        return digests


def _own(file: h5py.File, name: str) -> CheckedRows:
    return CheckedRows(file[name], file[_DIGESTS][name])


def _foreign(file: h5py.File, path: Path, given: ShowerGeometry | None, first: int, n: int | None) -> Showers:
    """The showers of a file that another program wrote."""
    if VOXELS in file and ENERGIES in file:
        return _calochallenge(file, path, given, first, n)
    if "energy" in file and "layer_0" in file:
        return _calogan(file, path, given, first, n)
    raise FileFormatError(
        f"{path} is an HDF5 file without showers: it has neither {ENERGIES!r} and {VOXELS!r} (CaloChallenge) nor "
        f"'energy', 'layer_0', ... (CaloGAN), but {', '.join(map(repr, sorted(file))) or 'nothing'}"
    )


def _calochallenge(file: h5py.File, path: Path, given: ShowerGeometry | None, first: int, n: int | None) -> Showers:
    voxels, energies = (_dataset(file, path, name) for name in (VOXELS, ENERGIES))
    if voxels.ndim != 2:
        raise FileFormatError(f"{path}: {VOXELS!r} has the shape {list(voxels.shape)}; it must be [N, voxels]")
    require(
        given is not None,
        "geometry",
        None,
        f"the binning file of these {voxels.shape[1]} voxels (an .xml beside the data), a ShowerGeometry, or the "
        f"boundaries of the layers, (0, ..., {voxels.shape[1]}): {path} does not say which voxels are which layer",
    )
    assert given is not None
    require(given.voxels == voxels.shape[1], "geometry", given, f"one of the {voxels.shape[1]} voxels that {path} has")
    _check_energies(path, energies, len(voxels))
    rows = _rows(path, len(voxels), first, n)
    return _showers(
        path, voxels[rows] * MEV, energies[rows].reshape(-1) * MEV, given, None, _told(path, "CaloChallenge")
    )


def _calogan(file: h5py.File, path: Path, given: ShowerGeometry | None, first: int, n: int | None) -> Showers:
    geometry = ShowerGeometry.calogan() if given is None else given
    names = [f"layer_{i}" for i in range(len(geometry.layers))]
    missing = [name for name in names if name not in file]
    if missing:
        raise FileFormatError(f"{path} has no dataset {', '.join(missing)}; showers of CaloGAN have {', '.join(names)}")
    energies, layers = _dataset(file, path, "energy"), [_dataset(file, path, name) for name in names]
    for name, dataset, layer in zip(names, layers, geometry.layers, strict=True):
        wanted = (len(layers[0]), *layer.shape)
        if dataset.shape != wanted:
            raise FileFormatError(f"{path}: {name!r} has the shape {list(dataset.shape)}; it must be {list(wanted)}")
    _check_energies(path, energies, len(layers[0]))
    rows = _rows(path, len(layers[0]), first, n)
    overflow = None
    if OVERFLOW in file:
        beside = _dataset(file, path, OVERFLOW)
        if beside.shape != (len(layers[0]), len(layers)):
            raise FileFormatError(
                f"{path}: {OVERFLOW!r} has the shape {list(beside.shape)}; it must be {[len(layers[0]), len(layers)]}"
            )
        overflow = beside[rows] * MEV
    values = np.concatenate([dataset[rows].reshape(rows.stop - rows.start, -1) for dataset in layers], 1)
    return _showers(path, values * MEV, energies[rows].reshape(-1), geometry, overflow, _told(path, "CaloGAN"))


def _dataset(file: h5py.File, path: Path, name: str) -> Any:
    """A dataset of numbers that lies in the file.

    Raises:
        FileFormatError: something else.
    """
    check_link(file, name)
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "fiu" or dataset.ndim == 0:
        raise FileFormatError(f"{path}: {name!r} is no table of numbers")
    check_datasets(file, [dataset])
    if len(dataset) == 0:
        raise FileFormatError(f"{path}: {name!r} has no shower")
    return _InDouble(dataset)


class _InDouble:
    """A dataset whose rows are read in float64."""

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._dataset = dataset
        self.shape, self.ndim = dataset.shape, dataset.ndim

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, rows: slice) -> NDArray[np.float64]:
        return np.asarray(self._dataset[rows], np.float64)


def _check_energies(path: Path, energies: _InDouble, n: int) -> None:
    if energies.shape not in ((n,), (n, 1)):
        raise FileFormatError(f"{path}: incident energies have the shape {list(energies.shape)}; it must be [{n}, 1]")


def _rows(path: Path, there: int, first: int, n: int | None) -> slice:
    require(first < there, "first", first, f"below {there}, the number of showers in {path}")
    require(n is None or first + n <= there, "n", n, f"at most {there - first}: {path} has {there} showers")
    return slice(first, there if n is None else first + n)


def _showers(
    path: Path,
    values: NDArray[np.float64],
    energies: NDArray[np.float64],
    geometry: ShowerGeometry,
    overflow: NDArray[np.float64] | None,
    provenance: dict[str, Any],
) -> Showers:
    try:
        return Showers(np.asarray(values, np.float64), energies, geometry, overflow, provenance)
    except ValueError as error:
        raise FileFormatError(f"{path}: {error}") from error


def _told(path: Path, layout: str) -> dict[str, Any]:
    return {"source": f"{layout} file {path.name}", "file": str(path)}


def _geometry(given: Any, particle: str | None) -> ShowerGeometry | None:
    """The geometry that an argument means; None where none is given.

    Raises:
        ValueError, FileNotFoundError, FileFormatError: none, as :func:`read_showers`.
    """
    if isinstance(given, (str, os.PathLike)) and os.fspath(given):
        return ShowerGeometry.from_binning(given, particle)
    require(particle is None, "particle", particle, "left out: it chooses among the particles of a binning file")
    if given is None or isinstance(given, ShowerGeometry):
        return given
    right = "a ShowerGeometry, the path of a binning file, or boundaries of the layers among the voxels: (0, 8, 168)"
    if not isinstance(given, (Sequence, np.ndarray)) or isinstance(given, (str, bytes)):
        raise TypeError(f"geometry is {shown(given)}; it must be {right}")
    boundaries = np.array(_BOUNDARIES("geometry", given))
    require(
        boundaries[0] == 0 and bool((np.diff(boundaries) > 0).all()), "geometry", given, f"{right}, increasing from 0"
    )
    return ShowerGeometry.flat(np.diff(boundaries).tolist())
