"""Samples as records of awkward arrays, as coffea and vector use them, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..checks import TEXT, door, one_of, require, whole
from .awkward_records import ATTRIBUTE, array_of
from .columns import is_reserved
from .doors import SAMPLE
from .objects import MORE, Limits, awkward, padded_objects, with_objects
from .sample import EventSample


@door(sample=SAMPLE, objects=TEXT)
def to_awkward(sample: EventSample, objects: str = "jets") -> Any:
    """A sample as an array of awkward: one record for each event, with a list of its objects.

    The columns ``pt_mu+, eta_mu+, phi_mu+`` become a record ``"mu+"`` with the fields ``pt, eta, phi``; the columns
    ``pt_j1, eta_j1, ..., pt_j2, ...`` of objects a list ``objects`` of records, as many as the event has. Records are
    called ``Momentum4D``, ``Momentum3D`` or ``Momentum2D`` where their fields are those of such a vector, so that
    ``vector.register_awkward()`` gives them ``.mass`` or ``.deltaR``. Other columns stay numbers. ``weight``,
    ``uncertainty`` and ``log_weights`` are fields where the sample has them. Names, units and provenance are in the
    attributes (``array.attrs["pyrogen"]``), by which :func:`from_awkward` gives the same sample back.

    Args:
        sample: the events.
        objects: name of the list.

    Raises:
        ValueError: objects whose columns have other names, or two fields of one name.
        ImportError: awkward is missing.
    """
    return array_of(sample, objects)


@door(
    most=whole(1),
    least=whole(0),
    objects=TEXT,
    label=TEXT,
    surplus=one_of("error", "leading"),
    unsorted=one_of("error", "sort", "keep"),
)
def from_awkward(
    array: Any,
    most: int,
    least: int = 1,
    *,
    objects: str = "jets",
    label: str = "j",
    surplus: str = "error",
    unsorted: str = "error",
) -> EventSample:
    """Events of an awkward array with a list of objects as a sample with a layout; the inverse of :func:`to_awkward`.

    Args:
        array: one record for each event: numbers, records of numbers (``"mu+": {pt, eta, phi}``) and one list of
            records. Records give columns ``pt_mu+``, the list gives ``pt_j1, ..., pt_j2, ...``. ``weight``,
            ``uncertainty`` and ``log_weights`` are what these names say.
        most: largest number of objects of the layout.
        least: smallest number of objects.
        objects: name of the list.
        label: what the columns call an object.
        surplus: ``"error"`` of events with more objects, or keep the ``"leading"`` ones, which is noted in the
            provenance.
        unsorted: ``"error"`` of objects that are not sorted by falling ``pt``, ``"sort"`` them, or ``"keep"``
            their order.

    Raises:
        ValueError: no such list, other lists besides, too many, too few or unsorted objects, missing or infinite
            numbers; the first such event is named.
        TypeError: no array of awkward with records, or something else than real numbers.
        ImportError: awkward is missing.
    """
    ak = awkward()

    limits = Limits(most, least, surplus, unsorted)
    if not isinstance(array, ak.Array) or array.ndim != 1 or not array.fields:
        raise TypeError(
            f"array is a {type(array).__name__}; it must be an awkward array of records, one for each event"
        )
    require(objects in array.fields, "objects", objects, f"one of the fields: {', '.join(array.fields)}")
    jets = array[objects]
    if jets.ndim != 2 or not jets.fields:
        raise ValueError(f"array: the field {objects!r} must be a list of records for each event; got {jets.type}")
    padded = padded_objects({field: jets[field] for field in jets.fields}, limits)
    shared = [pair for name in array.fields if name != objects for pair in _columns(name, array[name])]
    content = with_objects(shared, padded, jets.fields, label, limits)
    told = array.attrs.get(ATTRIBUTE, {})
    provenance = dict(told.get("provenance", {}))
    many = int(ak.sum(ak.num(jets, axis=1) > most))
    if many:
        provenance[MORE] = many
    units = dict(zip(told.get("names", ()), told.get("units", ()), strict=True))
    content["units"] = [units.get(name, "") for name in content["names"]]
    found = EventSample(**content, provenance=provenance)
    before = told.get("names", ())  # perhaps in another order, where columns of several records took turns
    return found.select(before) if set(before) == set(found.names) else found


def _columns(name: str, column: Any) -> Any:
    """Columns by name of a field that is no list of objects."""
    ak = awkward()

    if column.ndim == 1 and column.fields:
        for field in column.fields:
            if column[field].fields:
                raise TypeError(f"array: the field {name}.{field} has fields of its own; give one number for each")
            yield from _columns(f"{field}_{name}", column[field])
        return
    told = f"array: the field {name!r} ({column.type}) must be one real number for each event"
    nothing = np.flatnonzero(ak.to_numpy(ak.is_none(column)))
    if len(nothing):
        raise ValueError(f"{told}; it is None in {len(nothing)} events, the first of them event {nothing[0]}")
    try:
        numbers = ak.to_numpy(column, allow_missing=False)
    except ValueError as error:
        raise ValueError(f"{told}; leave it out, or choose it with objects=...") from error
    if numbers.ndim > 1 and not is_reserved(f"{name}[0]"):
        raise ValueError(f"{told}; leave it out, or choose it with objects=...")
    if numbers.dtype.kind not in "biuf":
        raise TypeError(told)
    yield name, numbers
