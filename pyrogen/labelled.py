"""Results as Datasets of xarray, by what they say of their own fields: names, units, edges and notes go along."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from pyrogen.printing import Brief, value_array
from pyrogen.signals import uninterrupted

if TYPE_CHECKING:
    import xarray

EDGE = "_edge"  # the end of the name of a dimension that runs over the edges of bins
Coordinates = dict[str, tuple[Any, Any, dict[str, str]]]


class Labelled(Brief):
    """A result whose arrays have dimensions with names.

    A subclass says in ``_dims`` which dimensions every array of its fields has, properties and methods without
    arguments among them: ``{"edges": "bin_edge", "draws": "draw bin", "mean": "bin"}``. Those in ``_at`` tell the
    places of a dimension apart. Of edges there are the middles of the bins besides. What :meth:`_coordinates` makes of
    further fields, named in ``_within``, stands for these.
    """

    _dims: ClassVar[Mapping[str, str]] = {}
    _at: ClassVar[tuple[str, ...]] = ()
    _within: ClassVar[tuple[str, ...]] = ()

    def to_xarray(self) -> xarray.Dataset:
        """The result as a Dataset: its arrays as variables, all else as attributes.

        Variables have the attributes ``units`` and ``long_name`` where these are known. Edges of bins are the
        coordinate ``edges`` (or as the result calls them), with the middles of the bins as the coordinate of the bins.
        Numbers, texts and lists of them are attributes, True and False as 1 and 0, dictionaries as JSON, so that
        ``to_netcdf`` writes them; what is not known (None, empty texts) is left out. Parts that are results of their
        own have a ``to_xarray`` of their own: the attribute ``left_out`` names them.
        """
        with uninterrupted():
            import xarray
        variables: Coordinates = {}
        coordinates: Coordinates = dict(self._coordinates())
        for name, dims in self._dimensions().items():
            value = getattr(self, name)
            value = value() if callable(value) else value
            if value is None:
                continue
            along, array = tuple(dims.split()), np.asarray(value_array(value))
            if along[-1].endswith(EDGE) or name in self._at:
                coordinates[name] = (along, array, self._told(name))
            else:
                variables[name] = (along, array, self._told(name))
            if len(along) == 1 and along[0].endswith(EDGE):
                bins = along[0].removesuffix(EDGE)
                coordinates[bins] = (bins, (array[1:] + array[:-1]) / 2, self._told(name))
        return xarray.Dataset(variables, coordinates, self._attributes())

    def _dimensions(self) -> Mapping[str, str]:
        """Dimensions of the arrays by name."""
        return self._dims

    def _units(self) -> Mapping[str, str]:
        """Units of the arrays by name, where they are known."""
        return {}

    def _labels(self) -> Mapping[str, str]:
        """What the arrays are called in figures, by name."""
        return {}

    def _coordinates(self) -> Coordinates:
        """Further coordinates: dimensions, values and attributes by name."""
        return {}

    def _told(self, name: str) -> dict[str, str]:
        told = {"units": self._units().get(name, ""), "long_name": self._labels().get(name, "")}
        return {what: text for what, text in told.items() if text}

    def _attributes(self) -> dict[str, Any]:
        found: dict[str, Any] = {"result": type(self).__name__}
        left_out, dims = [], self._dimensions()
        if isinstance(getattr(self, "verdict", None), str):
            found["verdict"] = self.verdict  # type: ignore[attr-defined]
        for name, value in self._entries().items():
            if name in dims or name in self._within or value is None or (isinstance(value, str) and not value):
                continue
            plain = _plain(value)
            if plain is None:
                left_out.append(name)
            else:
                found[name] = plain
        return found | ({"left_out": left_out} if left_out else {})


def inverse_unit(units: Sequence[str]) -> str:
    """The unit of a density of columns with these units, ``1/GeV^2``; empty where none has a unit."""
    powers = {unit: list(units).count(unit) for unit in units if unit}
    parts = [unit if power == 1 else f"{unit}^{power}" for unit, power in powers.items()]
    return "" if not parts else f"1/{parts[0]}" if len(parts) == 1 else f"1/({' '.join(parts)})"


def _plain(value: Any) -> Any:
    """A value as an attribute of a netCDF file; None where it is none."""
    if isinstance(value, (bool, np.bool_)):
        return int(value)
    if isinstance(value, (str, int, float)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (tuple, list)):
        entries = [_plain(entry) for entry in value]
        of_one_kind = any(all(isinstance(entry, kind) for entry in entries) for kind in (str, (int, float)))
        return entries if of_one_kind else None
    if isinstance(value, Mapping):
        try:
            return json.dumps(dict(value))
        except (TypeError, ValueError):
            return None
    return None
