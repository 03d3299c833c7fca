"""Events with two large jets in the features of a resonance search, with labels beside them (arXiv:2101.08320)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ..checks import PATH, door, having, require
from ..printing import Brief
from .reading import read
from .sample import EventSample

NAMES = ("mjj", "mj1", "delta_mj", "tau21_1", "tau21_2")
SIGNAL = "signal"  # the column of a file that holds the labels
UNITS = {"TeV": 1e-3, "GeV": 1.0}  # what a GeV is in them
_EVENTS = having("an EventSample", "values", "names", "units")


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Dijets(Brief):
    """Events with two large jets, and whether each is signal: the label is no column of the events.

    The columns are ``mjj``, the mass of both jets; ``mj1`` and ``delta_mj``, the mass of the lighter jet and how much
    heavier the other one is (both not negative); ``tau21_1`` and ``tau21_2``, the ratio tau_2 / tau_1 of the lighter
    and of the heavier jet (arXiv:1011.2268). Masses are in TeV or in GeV, as the units say. A jet with tau_1 = 0, of
    a single particle, has tau21 = 0.

    Args:
        events: the sample ``[N, 5]`` (or with other columns).
        signal: ``[N]``, True or 1 for signal, False or 0 for background; None where nobody knows.

    Raises:
        ValueError: labels of another length, or others than 0 and 1; events with a column ``signal``.
    """

    events: EventSample
    signal: NDArray[np.bool_] | None

    @door(events=_EVENTS)
    def __init__(self, events: EventSample, signal: ArrayLike | torch.Tensor | None = None) -> None:
        require(
            SIGNAL not in events.names,
            "events",
            events.names,
            f"events without the column {SIGNAL!r}, which is a label and no feature: Dijets.of(sample) takes it off",
        )
        object.__setattr__(self, "events", events)
        object.__setattr__(self, "signal", None if signal is None else _labels(signal, len(events)))

    @classmethod
    @door(sample=_EVENTS)
    def of(cls, sample: EventSample) -> Dijets:
        """Take the column ``signal`` off a sample, as files of :meth:`save` have it; there may be none."""
        if SIGNAL not in sample.names:
            return cls(sample)
        return cls(sample.select([name for name in sample.names if name != SIGNAL]), sample.column(SIGNAL))

    @classmethod
    @door(path=PATH)
    def read(cls, path: str | os.PathLike[str]) -> Dijets:
        """Read a file of :meth:`save`, or of :func:`dijets_to` and :func:`lhco_to`; for errors see :func:`read`."""
        return cls.of(read(path))

    @door(path=PATH)
    def save(self, path: str | os.PathLike[str], **options: Any) -> Path:
        """Write a file of events, the labels in its last column ``signal``; see :func:`write`."""
        self.table().save(path, **options)
        return Path(path)

    def table(self) -> EventSample:
        """The events with the labels as their last column, ``signal``, as files have them."""
        events = self.events
        if self.signal is None:
            return events
        return EventSample(
            np.column_stack([events.values, self.signal]),
            (*events.names, SIGNAL),
            (*events.units, ""),
            **{name: getattr(events, name) for name in ("weights", "uncertainties", "log_weights")},
            provenance=events.provenance,
            part=events.part,
        )

    def __len__(self) -> int:
        """Number of events N."""
        return len(self.events)

    def __getitem__(self, selection: slice | ArrayLike | torch.Tensor) -> Dijets:
        """The events of a slice, a mask ``[N]`` or an array of row numbers, with their labels."""
        rows = selection if isinstance(selection, slice) else np.asarray(selection)
        return Dijets(self.events[selection], None if self.signal is None else self.signal[rows])

    def _summary(self) -> str:
        known = "no labels" if self.signal is None else f"{int(self.signal.sum()):,} of them signal"
        mass = self.events.values[:, 0]
        return f"{len(self):,} events, {known}, {self.events.names[0]} from {mass.min():.4g} to {mass.max():.4g}"


def features(jets: NDArray[np.float64], tau: NDArray[np.float64]) -> NDArray[np.float64]:
    """The columns of :class:`Dijets` in GeV, ``[N, 5]``.

    Args:
        jets: px, py, pz and mass of both jets in GeV, ``[N, 2, 4]``.
        tau: tau_1 and tau_2 of both, ``[N, 2, 2]``.
    """
    energy = np.sqrt((jets**2).sum(-1)).sum(1)
    mjj = np.sqrt(np.maximum(energy**2 - (jets[..., :3].sum(1) ** 2).sum(-1), 0))
    # The lighter jet first; of equally heavy ones the harder.
    order = np.argsort(jets[..., 3], axis=1, kind="stable")
    light, heavy = np.take_along_axis(jets[..., 3], order, 1).T
    ratio = np.divide(tau[..., 1], tau[..., 0], out=np.zeros(tau.shape[:2]), where=tau[..., 0] > 0)
    return np.column_stack([mjj, light, heavy - light, np.take_along_axis(ratio, order, 1)])


def sample_of(rows: NDArray[np.float64], unit: str, provenance: dict[str, Any], part: int | None = None) -> EventSample:
    """Rows of :func:`features` as a sample, with masses in a unit."""
    scale = UNITS[unit]
    return EventSample(
        rows * [scale, scale, scale, 1.0, 1.0], NAMES, (unit,) * 3 + ("",) * 2, provenance=provenance, part=part
    )


def _labels(given: Any, n: int) -> NDArray[np.bool_]:
    found = np.asarray(given.detach().cpu() if isinstance(given, torch.Tensor) else given)
    require(found.shape == (n,), "signal", given, f"[{n}], one label for each event")
    if found.dtype.kind not in "biuf":
        raise TypeError(f"signal has entries of {found.dtype}; they must be 0 and 1, or False and True")
    wrong = np.flatnonzero((found != 0) & (found != 1))
    if wrong.size:
        raise ValueError(f"signal is {found[wrong[0]]} in event {wrong[0]}; it must be 0 or 1 in all events")
    labels = found.astype(bool)
    labels.flags.writeable = False
    return labels
