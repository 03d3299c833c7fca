"""A sample as records of awkward arrays; it knows samples by their attributes only."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..checks import require
from .columns import to_columns
from .objects import awkward, fields_of, lists_of

ATTRIBUTE = "pyrogen"  # of the array: names, units and provenance of the sample
_TRANSVERSE = ({"px", "py"}, {"pt", "phi"})
_LONGITUDINAL = {"pz", "eta", "theta"}
_TEMPORAL = {"E", "e", "energy", "m", "M", "mass"}
_COMPONENTS = {*_LONGITUDINAL, *_TEMPORAL, *_TRANSVERSE[0], *_TRANSVERSE[1]}


def array_of(sample: Any, objects: str) -> Any:
    """The work of :func:`pyrogen.events.to_awkward`."""
    ak = awkward()

    layout = sample.multiplicity
    shared = sample.features if layout is None else layout.shared
    columns = to_columns(sample)
    parts: dict[str, dict[str, np.ndarray]] = {}  # by the name of the record, then of the field
    content: dict[str, Any] = {}
    for name in sample.names[:shared]:
        field, _, particle = name.partition("_")
        if field in _COMPONENTS and particle:
            parts.setdefault(particle, {})[field] = columns[name]
        else:
            content[name] = columns[name]
    twice = [name for name in (*parts, objects) if name in content or name in parts and name == objects]
    require(
        not twice, "names", sample.names, f"such that {', '.join(twice)} is one field alone, or objects another name"
    )
    content |= {name: _record(fields) for name, fields in parts.items()}
    if layout is not None:
        fields, _ = fields_of(layout, sample.names)
        content[objects] = _record(dict(zip(fields, lists_of(layout, sample.values), strict=True)))
    for name, numbers in (("weight", sample.weights), ("uncertainty", sample.uncertainties)):
        if numbers is not None:
            content[name] = numbers
    if sample.log_weights is not None:
        content["log_weights"] = ak.from_numpy(sample.log_weights)
    told = {name: getattr(sample, name) for name in ("names", "units", "provenance")}
    return ak.zip(content, depth_limit=1, attrs={ATTRIBUTE: told})


def _record(fields: dict[str, Any]) -> Any:
    """Numbers of one vector, by name."""
    ak = awkward()

    return ak.zip(fields, with_name=_vector(set(fields)))


def _vector(fields: set[str]) -> str | None:
    """What :mod:`vector` calls a record of these fields."""
    if not fields <= _COMPONENTS or sum(bool(fields & pair) for pair in _TRANSVERSE) != 1:
        return None
    whole_pair = any(pair <= fields for pair in _TRANSVERSE)
    longitudinal, temporal = len(fields & _LONGITUDINAL), len(fields & _TEMPORAL)
    if not whole_pair or longitudinal > 1 or temporal > 1 or temporal > longitudinal:
        return None
    return f"Momentum{2 + longitudinal + temporal}D"
