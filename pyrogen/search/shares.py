"""How CATHODE splits its events, so that no event is searched with what was learned from itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pyrogen.checks import door, require, whole
from pyrogen.diagnostics.control.copies import check_no_copies
from pyrogen.events import EventSample
from pyrogen.printing import Brief
from pyrogen.search.regions import Regions
from pyrogen.search.samples import check_columns, check_not_mass, checked
from pyrogen.seeds import stream

Array = NDArray[np.float64]
SMALLEST = 50  # events of a fold in the signal region, or in a sideband


@dataclass(frozen=True, kw_only=True, repr=False)
class SearchSample(Brief):
    """Events of a search: their features, masses and folds.

    A fold has events of the signal region and of both sidebands. Each of K flows learns the sideband events of its own
    share of the folds. A fold of the signal region is compared with the flow of its own share, at a cut on a classifier
    that was trained on all other folds and on a template of *other* flows. So the cut cannot follow the deviations of
    the flow that predicts what it leaves. From three flows on, one more share stays out of both: its sideband events
    pass the same cut, and show whether the flow predicts them.

    Attributes:
        features: ``[N, d]``, without the mass.
        mass: ``[N]``, in the window.
        name, unit: of the mass.
        regions: signal region and sidebands.
        in_signal: which events are in the signal region, ``[N]``.
        fold: of each event, ``[N]``, from 0 to folds - 1.
        folds: their number.
        flows: number K of flows, of which ``folds`` is a multiple.
    """

    features: EventSample
    mass: Array
    name: str
    unit: str
    regions: Regions
    in_signal: NDArray[np.bool_]
    fold: NDArray[np.int64]
    folds: int
    flows: int

    def __len__(self) -> int:
        return len(self.mass)

    @door(fold=whole(0))
    def flow_of(self, fold: int) -> int:
        """The flow that predicts the background of a fold.

        Raises:
            ValueError: there is no such fold.
        """
        require(fold < self.folds, "fold", fold, f"below {self.folds}, the number of folds")
        return fold % self.flows

    @door(fold=whole(0))
    def others(self, fold: int) -> list[int]:
        """The flows that make the template for the classifiers of a fold; a single flow makes its own."""
        own = self.flow_of(fold)
        apart = {own, (own - 1) % self.flows} if self.checked else {own}
        return [flow for flow in range(self.flows) if flow not in apart] or [own]

    @door(flow=whole(0))
    def sideband(self, flow: int) -> NDArray[np.bool_]:
        """Which events ``[N]`` train a flow.

        Raises:
            ValueError: there is no such flow.
        """
        require(flow < self.flows, "flow", flow, f"below {self.flows}, the number of flows")
        return ~self.in_signal & (self.fold % self.flows == flow)

    @property
    def checked(self) -> bool:
        """Whether sideband events check a flow that did not learn them."""
        return self.flows >= 3

    @property
    def scored_by(self) -> NDArray[np.int64]:
        """The fold whose classifiers score each event, ``[N]``: its own.

        Sideband events that check a flow which did not learn them belong to the next fold.
        """
        return np.where(self.in_signal | (not self.checked), self.fold, (self.fold + 1) % self.folds)

    @property
    def side(self) -> NDArray[np.int64]:
        """0 in the lower sideband, 1 in the signal region, 2 in the upper sideband, ``[N]``."""
        return np.where(self.in_signal, 1, np.where(self.mass < self.regions.signal[0], 0, 2))


def search_sample(
    events: EventSample, mass: str, regions: Regions, features: ArrayLike | None, folds: int, flows: int, seed: int
) -> SearchSample:
    """Split checked events.

    Raises:
        ValueError: no such column, weights, a label or the mass among the features, masses outside the window, an
            empty region, copies of events, or too few events for the folds.
    """
    sample = checked("events", events)
    if sample.weights is not None:
        raise ValueError("events have weights; the search counts events of data, so leave the weights out")
    names = list(sample.names)
    if mass not in names:
        raise ValueError(f"mass is {mass!r}; the events have the columns {', '.join(names)}")
    chosen = [name for name in names if name != mass] if features is None else [str(name) for name in features]  # type: ignore[union-attr]
    if mass in chosen:
        raise ValueError(f"features has the mass {mass!r}; a cut on it would make a bump by itself: leave it out")
    if not chosen:
        raise ValueError(f"events has no other column than the mass {mass!r}; a cut needs features")
    found = sample.select([*chosen, mass])
    values = regions.populated(found.values[:, -1], mass)
    own = found.select(chosen)
    check_columns("events", own)
    check_not_mass("events", own, values)
    in_signal = regions.in_signal(values)
    check_no_copies({"the signal region": found[in_signal], "the sidebands": found[~in_signal]})
    fold = np.empty(len(values), dtype=np.int64)
    rng = np.random.default_rng(stream(seed, "shares") % 2**32)
    for what, rows in (
        ("the signal region", np.flatnonzero(in_signal)),
        ("the lower sideband", np.flatnonzero(values < regions.signal[0])),
        ("the upper sideband", np.flatnonzero(~in_signal & (values >= regions.signal[1]))),
    ):
        if len(rows) < folds * SMALLEST:
            raise ValueError(
                f"{what} has {len(rows):,} events for {folds} folds; give {folds * SMALLEST:,} or more, or fewer folds"
            )
        parts = np.arange(len(rows)) % folds
        rng.shuffle(parts)
        fold[rows] = parts
    return SearchSample(
        features=own,
        mass=values,
        name=mass,
        unit=found.units[-1],
        regions=regions,
        in_signal=in_signal,
        fold=fold,
        folds=folds,
        flows=flows,
    )
