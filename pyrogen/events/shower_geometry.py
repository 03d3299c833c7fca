"""The cells of a calorimeter: its layers, how many cells each has, and where these are."""

from __future__ import annotations

import itertools
import math
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..checks import BOOLEAN, FINITE, PATH, TEXT, check_settings, door, each, instance, optional, pair, require, whole
from ..files import FileFormatError
from ..printing import Brief, Shown

_EDGES = optional(each(FINITE, "increasing edges of cells, such as (-1.0, 0.0, 1.0)", 2))
_SIZES = each(whole(1), "numbers of cells of each layer, such as (288, 144, 72)", 1)
_LARGEST_XML = 2**24  # bytes; those of the CaloChallenge have a few thousand


@dataclass(frozen=True, repr=False)
class ShowerLayer(Brief):
    """One layer of a calorimeter: a table of cells.

    Args:
        shape: ``(rows, columns)``; cells are counted row by row.
        rows: edges of the rows ``[rows + 1]``: positions along the azimuth in mm; of a polar layer angles in rad.
            None: unknown.
        columns: edges of the columns ``[columns + 1]``: positions along eta in mm; of a polar layer radii in mm.
        depth: where the layer begins and ends along the shower, in mm, or None.
        polar: whether cells are sectors of rings around the axis of the shower.
        number: the layer's number in the detector; None: its place in the geometry.

    Raises:
        ValueError: edges that do not increase, or are not one more than the cells.
    """

    shape: tuple[int, int]
    rows: tuple[float, ...] | None = None
    columns: tuple[float, ...] | None = None
    depth: tuple[float, float] | None = None
    polar: bool = False
    number: int | None = None

    def __post_init__(self) -> None:
        edges, two = _EDGES, "two whole numbers, rows and columns"
        depth = optional(pair(FINITE, "(begin, end) in mm"))
        check_settings(self, shape=pair(whole(1), two), rows=edges, columns=edges, depth=depth)
        check_settings(self, polar=BOOLEAN, number=optional(whole(0)))
        require((self.rows is None) == (self.columns is None), "rows", self.rows, "given together with columns")
        for name, cells in zip(("rows", "columns"), self.shape, strict=True):
            found = getattr(self, name)
            if found is not None:
                require(len(found) == cells + 1, name, found, f"{cells + 1} edges for {cells} {name}")
                require(bool((np.diff(found) > 0).all()), name, found, "increasing")
        require(self.depth is None or self.depth[0] < self.depth[1], "depth", self.depth, "(begin, end), increasing")

    @property
    def voxels(self) -> int:
        """Number of cells."""
        return math.prod(self.shape)

    @property
    def eta(self) -> NDArray[np.float64]:
        """Positions ``[voxels]`` of the centres along eta, in mm; NaN where they are unknown."""
        return self._positions()[0]

    @property
    def phi(self) -> NDArray[np.float64]:
        """Positions ``[voxels]`` of the centres along the azimuth, in mm; NaN where they are unknown."""
        return self._positions()[1]

    def _positions(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        if self.rows is None or self.columns is None:
            return np.full(self.voxels, np.nan), np.full(self.voxels, np.nan)
        rows, columns = (np.add(edges[1:], edges[:-1]) / 2 for edges in (self.rows, self.columns))
        if self.polar:
            return np.outer(np.cos(rows), columns).ravel(), np.outer(np.sin(rows), columns).ravel()
        return np.tile(columns, len(rows)), np.repeat(rows, len(columns))


LAYERS = each(instance(ShowerLayer, "a pyrogen.events.ShowerLayer"), "a sequence of ShowerLayer", 1)


@dataclass(frozen=True, repr=False)
class ShowerGeometry(Shown):
    """The layers of a calorimeter, from the front to the back. A shower is a row of the energies of all their cells.

    Args:
        layers: the layers.
        name: what texts call it.
    """

    layers: tuple[ShowerLayer, ...]
    name: str = "calorimeter"

    def __post_init__(self) -> None:
        check_settings(self, layers=LAYERS, name=TEXT)

    @classmethod
    def calogan(cls) -> Self:
        """The three layers of CaloGAN: 3 x 96, 12 x 12 and 12 x 6 cells, 504 in all; rows along phi.

        Cells measure (eta, phi, depth) = (5, 160, 90), (40, 40, 347), (80, 40, 43) mm (arXiv:1712.10321 table 1, and
        the description of its data, doi:10.17632/pvn3xc3wy5.1).
        """
        return cls(_grids([(3, 96), (12, 12), (12, 6)]), "CaloGAN")

    @classmethod
    def small(cls) -> Self:
        """The same three layers in fewer, larger cells: 3 x 12, 6 x 6 and 6 x 3, 90 in all."""
        return cls(_grids([(3, 12), (6, 6), (6, 3)]), "three layers of 90 cells")

    @classmethod
    @door(sizes=_SIZES)
    def flat(cls, sizes: Sequence[int]) -> Self:
        """Layers of so many cells, of which no place is known."""
        return cls(tuple(ShowerLayer((1, size)) for size in sizes), "layers of cells without a place")

    @classmethod
    @door(path=PATH, particle=optional(TEXT))
    def from_binning(cls, path: str | os.PathLike[str], particle: str | None = None) -> Self:
        """The geometry in a binning file of the CaloChallenge (``binning_dataset_2.xml``).

        Layers without cells are left out. Cells are counted along the radius first, then along the angle, then by
        layer, as in the files of showers (https://github.com/CaloChallenge/homepage).

        Args:
            path: the file.
            particle: its name in the file, such as ``"photon"``, where that has several.

        Raises:
            FileNotFoundError: no such file.
            FileFormatError: no such XML; the text names the file and the layer.
            ValueError: a particle that the file does not have, or none where it has several.
        """
        path = Path(path)
        found = _binning(path)
        names = [bins.get("name", "") for bins in found]
        if particle is None:
            require(len(found) == 1, "particle", particle, f"one of {', '.join(names)}, which {path} has")
            chosen = found[0]
        else:
            require(particle in names, "particle", particle, f"one of {', '.join(names)}, which {path} has")
            chosen = found[names.index(particle)]
        layers = [_polar(layer, path) for layer in chosen.findall("Layer")]
        kept = tuple(layer for layer in layers if layer is not None)
        if not kept:
            raise FileFormatError(f"{path} has no layer with cells")
        return cls(kept, f"CaloChallenge, {chosen.get('name', path.stem)}")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of cells of each layer."""
        return tuple(layer.voxels for layer in self.layers)

    @property
    def voxels(self) -> int:
        """Number of cells of all layers."""
        return sum(self.sizes)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The number of each layer in the detector."""
        return tuple(i if layer.number is None else layer.number for i, layer in enumerate(self.layers))

    @property
    def columns(self) -> tuple[slice, ...]:
        """The columns of each layer in a row of cells."""
        ends = list(itertools.accumulate(self.sizes))
        return tuple(slice(end - size, end) for size, end in zip(self.sizes, ends, strict=True))

    @property
    def outside_in(self) -> tuple[int, ...]:
        """The columns of each layer from its outermost cell to the innermost one, as :class:`~pyrogen.ShowerFlow`
        takes them best; where no place is known, as they are."""
        found: list[int] = []
        for layer, columns in zip(self.layers, self.columns, strict=True):
            distance = np.nan_to_num(np.hypot(layer.eta, layer.phi))
            found += (columns.start + np.argsort(-distance.round(9), kind="stable")).tolist()
        return tuple(found)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the cells, ``E<layer>_<row>_<column>``."""
        return tuple(
            f"E{number}_{row}_{column}"
            for number, layer in zip(self.numbers, self.layers, strict=True)
            for row, column in itertools.product(*map(range, layer.shape))
        )

    def config(self) -> dict[str, Any]:
        """All of it in JSON types."""
        layers = [{name: _plain(value) for name, value in vars(layer).items()} for layer in self.layers]
        return {"name": self.name, "layers": layers}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The geometry that :meth:`config` described."""
        return cls(tuple(ShowerLayer(**layer) for layer in config["layers"]), config["name"])

    def __repr__(self) -> str:
        shapes = ", ".join(" x ".join(map(str, layer.shape)) for layer in self.layers[:4])
        more = ", ..." if len(self.layers) > 4 else ""
        return f"ShowerGeometry({self.name}: {self.voxels} cells in {len(self.layers)} layers, {shapes}{more})"


GEOMETRY = instance(ShowerGeometry, "a pyrogen.events.ShowerGeometry")
_DEPTHS = (0.0, 90.0, 437.0, 480.0)  # mm: 90, 347 and 43
_WIDTH = 480.0  # mm, along eta and along phi


def _grids(shapes: Sequence[tuple[int, int]]) -> tuple[ShowerLayer, ...]:
    """Layers of CaloGAN's size with so many cells each."""

    def edges(cells: int) -> tuple[float, ...]:
        return tuple((np.linspace(-0.5, 0.5, cells + 1) * _WIDTH).tolist())

    depths = itertools.pairwise(_DEPTHS)
    return tuple(
        ShowerLayer(shape, edges(shape[0]), edges(shape[1]), depth) for shape, depth in zip(shapes, depths, strict=True)
    )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _binning(path: Path) -> list[ElementTree.Element]:
    """The particles of a binning file.

    Raises:
        FileNotFoundError, FileFormatError: as :meth:`ShowerGeometry.from_binning`.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    content = path.read_bytes() if path.stat().st_size <= _LARGEST_XML else b""
    # Entities could fill the memory, or read other files; a binning has none.
    if not content or b"<!" in content.replace(b"<!--", b""):
        raise FileFormatError(f"{path} is no binning file of the CaloChallenge: an XML file of <Bins> with <Layer>s")
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # encodings have errors of their own
        raise FileFormatError(f"{path} is no whole XML file: {error}") from error
    found = root.findall("Bin") if root.tag == "Bins" else []
    if not found:
        raise FileFormatError(f"{path} is an XML file, but no binning of the CaloChallenge: it has no <Bins>")
    return found


def _polar(element: ElementTree.Element, path: Path) -> ShowerLayer | None:
    """A layer of a binning file; None where it has no cell."""
    number = element.get("id", "?")
    try:
        radii = [float(text) for text in element.get("r_edges", "").split(",")]
        angles = int(element.get("n_bin_alpha", ""))
        if len(radii) < 2 or angles < 1:
            return None
        alpha = np.linspace(-math.pi, math.pi, angles + 1).tolist()
        return ShowerLayer((angles, len(radii) - 1), tuple(alpha), tuple(radii), None, True, int(number))
    except ValueError as error:
        raise FileFormatError(
            f"{path}: layer {number} has r_edges={element.get('r_edges')!r} and "
            f"n_bin_alpha={element.get('n_bin_alpha')!r}; they must be increasing radii and a number of angles: {error}"
        ) from error
