"""The observables in which a generator fails, in order, and the names of its failures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pyrogen.checks import door, whole
from pyrogen.diagnostics.control.failure_report import told
from pyrogen.diagnostics.control.information import one_sided
from pyrogen.diagnostics.control.modes import NONE, FailureMode
from pyrogen.diagnostics.control.tables import TailFractions
from pyrogen.labelled import Labelled
from pyrogen.printing import Brief

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class TailHistogram(Labelled):
    """Densities of an observable in bins, with statistical errors ``[B]`` each.

    Attributes:
        edges: ``[B + 1]``; what is outside of them is in no bin.
        truth, generated: of all events that have the observable, normalised to them.
        small: of the generated events with small w; None where there are too few.
        large: of the true events with large w; None where there are too few.
        truth_error, generated_error, small_error, large_error: statistical errors.
    """

    _dims: ClassVar[Mapping[str, str]] = {
        "edges": "bin_edge",
        "truth": "bin",
        "truth_error": "bin",
        "generated": "bin",
        "generated_error": "bin",
        "small": "bin",
        "small_error": "bin",
        "large": "bin",
        "large_error": "bin",
    }

    edges: Array
    truth: Array
    truth_error: Array
    generated: Array
    generated_error: Array
    small: Array | None = None
    small_error: Array | None = None
    large: Array | None = None
    large_error: Array | None = None


@dataclass(frozen=True, eq=False, repr=False)
class ObservableFailure(Brief):
    """How much of the failure shows in one observable.

    Attributes:
        name, label, unit: of the observable.
        origin: ``"column"``, ``"given"``, or ``"pair"`` for those that are made automatically.
        share: part of the classifier's information that this observable has: 1 if w depends on it alone.
        share_error: statistical error of the share.
        sigma: significance of the difference in it, in Gaussian standard deviations, without a look elsewhere.
        p_value: with the look elsewhere: times the number of observables, at most 1.
        small: Kolmogorov-Smirnov distance of the generated events with small w from all other generated ones: 0 to 1;
            NaN for a tail of too few events.
        large: the same of true events with large w from all other true ones.
        left: what is left of ``sigma`` after the generated events are reweighted in the first observable of the table;
            NaN where the first is not significant, or leaves too few events to compare.
        follows: whether that leaves next to nothing: its failure follows from that of the first.
        mode: the name of the failure in this observable with its evidence; None where the difference is not significant
            or the row is far down.
        histogram: of the tails and of all events.
    """

    name: str
    label: str
    unit: str
    origin: str
    share: float
    share_error: float
    sigma: float
    p_value: float
    small: float
    large: float
    left: float
    follows: bool
    mode: FailureMode | None
    histogram: TailHistogram


@dataclass(frozen=True, eq=False, repr=False)
class Failures(Brief):
    """What is wrong with a generator, and where: the observables in the order of what they show.

    Attributes:
        rows: all observables, the one in which the failure shows best first.
        modes: the failures that were found, the largest first; each is what is left in its observable after all before
            it were mended. Empty: no failure was found.
        sigma: significance of what the classifier knows of the difference, in no observable in particular.
        cuts: on w, of the small and the large tail.
        cuts_from: ``"control"``, ``"given"`` or ``"default"`` (there was no control).
        tails: fractions of the events beyond the cuts.
        p_value: what counts as found: a smaller p-value, with the look elsewhere.
        left_out: automatic observables and columns that could not be used, with the reason.
        sizes: numbers of true and generated events.
        complete: False where true and generated events overlap too little in the observables of ``modes`` to tell
            whether more is wrong.
    """

    rows: tuple[ObservableFailure, ...]
    modes: tuple[FailureMode, ...]
    sigma: float
    cuts: tuple[float, float]
    cuts_from: str
    tails: TailFractions
    p_value: float
    left_out: dict[str, str]
    sizes: tuple[int, int]
    complete: bool = True

    def _summary(self) -> str:
        found = "; ".join(f"{mode.kind} in {mode.observable}" for mode in self.modes) or "no failure"
        return f"{found}; {len(self.rows)} observables of {self.sizes[0]:,} true and {self.sizes[1]:,} generated events"

    @property
    def found(self) -> bool:
        """Whether the generator fails: in an observable, in the tails of w, or by what the classifier knows in all."""
        return bool(self.modes) or self.hidden

    @property
    def hidden(self) -> bool:
        """Whether the samples differ significantly, but in none of the observables."""
        level = self.p_value / 3  # the classifier, and two tails
        return not self.modes and bool(
            one_sided(self.sigma) < level or (one_sided(np.nan_to_num(self.tails.significance)) < level).any()
        )

    @property
    def kind(self) -> str:
        """The name of the largest failure; ``"none"`` where none was found."""
        return self.modes[0].kind if self.modes else NONE

    def __getitem__(self, name: str) -> ObservableFailure:
        """The row of an observable.

        Raises:
            KeyError: there is none of this name.
        """
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"no observable {name!r}; there are {', '.join(row.name for row in self.rows)}")

    @door(rows=whole(1))
    def text(self, rows: int = 10) -> str:
        """The first rows of the table as plain text, and what is wrong in words."""
        return told(self, rows)
