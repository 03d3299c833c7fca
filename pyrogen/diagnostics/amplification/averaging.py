"""Amplification of volumes of phase space, without the truth: averaging amplification [G] (arXiv:2509.08048)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrogen.checks import COUNT, POSITIVE, SEED, dictionary, door, each, having, optional, require, whole
from pyrogen.diagnostics.amplification.cells import Cells
from pyrogen.diagnostics.amplification.independence import check_independent
from pyrogen.events import EventSample
from pyrogen.events.doors import EVENTS
from pyrogen.events.observing import OBSERVED, Observed, observed
from pyrogen.posterior.bands import PROCEDURE, HistogramBand, multinomial_noise
from pyrogen.posterior.effective import FEWEST
from pyrogen.posterior.posterior import Posterior
from pyrogen.posterior.worth import Worth, rounded
from pyrogen.printing import Brief
from pyrogen.progress import bar
from pyrogen.seeds import stream

Array = NDArray[np.float64]

IN_A_CELL = 50  # generated events that divide phase space, where there is no reference
AT_ONCE = 65_536  # events of a generator
SHOWN = 5  # regions that are named


@dataclass(frozen=True, eq=False, repr=False)
class AveragingAmplification(Brief):
    """G of every cell of phase space, and of all of them, for several numbers of cells.

    Attributes:
        cells: by their number, the boxes.
        worths: by their number, the :class:`~pyrogen.Worth` of the histogram of cell numbers: ``n_eff``, ``gains`` and
            ``error`` are ``[cells]``.
    """

    cells: dict[int, Cells]
    worths: dict[int, Worth]

    def _summary(self) -> str:
        gains = ", ".join(f"{n}: {rounded(*worth.gain)}" for n, worth in self.worths.items())
        return f"G of cells in {', '.join(self.names)}: {gains}; {self.calibration}"

    @property
    def names(self) -> tuple[str, ...]:
        """The observables."""
        return next(iter(self.cells.values())).names

    @property
    def calibration(self) -> str:
        """Whether sigma is calibrated, in a few words."""
        return next(iter(self.worths.values())).calibration

    @property
    def training_events(self) -> float:
        """Number of training events."""
        return float(next(iter(self.worths.values())).training_events or np.nan)

    @property
    def gains(self) -> tuple[Array, Array, Array]:
        """Numbers of cells, G of all cells together and its error (NaN of a lower limit), ``[S]`` each."""
        gains = np.array([worth.gain for worth in self.worths.values()])
        return np.array(list(self.worths), dtype=np.float64), gains[:, 0], gains[:, 1]

    @door(cells=COUNT)
    def below_one(self, cells: int | None = None) -> list[tuple[int, float, float]]:
        """Cells worth less than the training events in them, by more than two errors: ``(cell, G, error)``.

        Of so many cells two errors are no rarity: one in forty is found where all of them are worth exactly as much.

        Args:
            cells: their number, one of those that were filled; None: the largest.

        Raises:
            ValueError: another number.
        """
        gain, error = self.worths[self._chosen(cells)].gains
        found = np.flatnonzero(gain + 2 * error < 1)
        return [(int(i), float(gain[i]), float(error[i])) for i in found[np.argsort(gain[found])]]

    def _chosen(self, cells: int | None) -> int:
        chosen = max(self.cells) if cells is None else cells
        require(chosen in self.cells, "cells", cells, f"one of {', '.join(map(str, self.cells))}")
        return chosen

    def text(self) -> str:
        """The table of G against the number of cells, and the regions with G < 1 in words."""
        lines = [
            f"amplification of volumes in {', '.join(self.names)}, {self.training_events:,.0f} training events; sigma "
            f"{self.calibration or 'of unknown calibration'}",
            f"{'cells':>7}  {'N_eff':>20}  {'G':>15}  {'cells of G < 1':>14}",
        ]
        for n, worth in self.worths.items():
            least = "> " if np.isnan(worth.total[1]) else ""
            lines.append(
                f"{n:7d}  {least + rounded(*worth.total):>20}  {least + rounded(*worth.gain):>15}  "
                f"{len(self.below_one(n)):14d}"
            )
        finest = max(self.cells)
        below = self.below_one()
        for i, gain, error in below[:SHOWN]:
            share = self.worths[finest].band.mean[i]
            lines.append(f"G = {rounded(gain, error)} at {self.cells[finest].words(i)} ({share:.2%} of the events)")
        if len(below) > SHOWN:
            lines.append(f"and {len(below) - SHOWN} more of {finest} cells")
        return "\n".join(lines)


def _generators(name: str, value: Any) -> Any:
    """A posterior, or several generators."""
    if isinstance(value, Posterior):
        return value
    return each(having("a generator", "sample"), "a posterior, or a sequence of at least 5 generators", FEWEST)(
        name, value
    )


@door(
    generator=_generators,
    observables=optional(dictionary(OBSERVED)),
    cells=each(whole(2), "numbers of cells, such as (16, 64)", 1),
    reference=optional(EVENTS),
    training_events=optional(POSITIVE),
    n=whole(2),
    draws=COUNT,
    procedure=PROCEDURE,
    seed=SEED,
)
def averaging_amplification(
    generator: Posterior | Sequence[Any],
    observables: Mapping[str, Observed] | None = None,
    *,
    cells: Sequence[int] = (4, 16, 64),
    reference: Any = None,
    training_events: float | None = None,
    n: int = 100_000,
    draws: int | None = None,
    procedure: str = "b",
    seed: int = 0,
) -> AveragingAmplification:
    """How many true events a generator is worth in every region of phase space, from what its draws differ by [G].

    The probability I of a volume has the variance sigma^2 over the posterior, n_equiv true events the variance
    ``I (1 - I) / n_equiv``: ``G = I (1 - I) / (sigma^2 N)``, for n_gen generated events with N training events. The
    truth is not needed, but a sigma that is right: see :class:`~pyrogen.Worth` for what is not in it.

    Cells are boxes of equal probability: leaves of a k-d tree that divides the observables in turn.

    Args:
        generator: a posterior; or at least 5 generators with ``sample(n, seed=...)`` that were trained alike, such as
            GANs. What these differ by is the sigma of one of them where each had a training sample of its own. Where
            all had the same, the error of that sample is not in it, and G much too large: refused where they know it.
        observables: what the cells are in, by name: a function of events ``[n, d]`` that gives ``[n]``, or the name or
            index of a column; None: all columns.
        cells: numbers of cells.
        reference: events whose quantiles make the cells, with weights that are not negative; None: generated ones.
        training_events: number N of training events; None: the posterior's own, of weighted ones their effective
            number, and what generators know.
        n: number of events, as in :meth:`pyrogen.Posterior.worth`; of several generators that of each.
        draws, procedure: of a posterior, as there.
        seed: seeds weight draws and events.

    Raises:
        ValueError: fewer than 5 draws or generators, one of them given twice or trained on the events of another, other
            numbers of columns, an unknown number of training events, a posterior with conditions, a reference of other
            columns, negative weights, or one too small for the cells.
    """
    known = generator.info.size if isinstance(generator, Posterior) else _known_size(generator, training_events)
    size = training_events if training_events is not None else known
    if size is None:
        what = "the posterior does not know" if isinstance(generator, Posterior) else "generators do not know"
        raise ValueError(f"{what} how many events it was trained on: give training_events=N")
    sample = _reference(generator, reference, max(cells), seed)
    wanted: dict[str, Observed] = {name: name for name in sample.names} if observables is None else dict(observables)
    require(bool(wanted), "observables", observables, "functions of events, or columns, by name; or None")
    values = _values(wanted, sample.tensor(torch.float64), sample.names)
    if sample.weights is not None and (sample.weights < 0).any():
        raise ValueError("reference has negative weights, which make no quantiles; give it without them")
    units = [_unit(what, sample) for what in wanted.values()]
    boxes = {count: Cells.of(values, count, tuple(wanted), units, sample.weights) for count in cells}
    if isinstance(generator, Posterior):
        names = sample.names
        books = {
            str(count): (lambda x, its=its: torch.as_tensor(its.numbers(_values(wanted, x, names))), _edges(count))
            for count, its in boxes.items()
        }
        found = generator.worth(books, n=n, draws=draws, procedure=procedure, seed=seed)
        worths = {count: Worth.of(found[str(count)].band, size) for count in boxes}
    else:
        worths = {count: Worth.of(band, size) for count, band in _filled(generator, boxes, wanted, sample, n, seed)}
    return AveragingAmplification(boxes, worths)


def _known_size(generators: Sequence[Any], given: float | None) -> float | None:
    """The number of training events that the generators know of; None where none does, or they are weighted.

    Raises:
        ValueError: a generator that is given twice, or trained on the events of another, or numbers that differ.
    """
    check_independent("generator", generators)
    about = [getattr(one, "info", one) for one in generators]
    # Effective numbers of weighted samples differ a bit: they have to be given.
    sizes = [None if getattr(info, "is_weighted", False) else getattr(info, "training_events", None) for info in about]
    right = next((size for size in (given, *sizes) if size), None)
    for r, size in enumerate(sizes):
        if size and size != right:
            raise ValueError(f"generator[{r}] was trained on {size:,} events, and not on {right:,} as the others")
    return right


def _edges(count: int) -> Array:
    return np.arange(count + 1, dtype=np.float64) - 0.5


def _reference(generator: Any, reference: Any, most: int, seed: int) -> EventSample:
    """The events that make the cells."""
    names, units = None, None
    if isinstance(generator, Posterior):
        names, units = generator.names, generator.units
        if generator.model.context:
            raise ValueError("the posterior has conditions, and cells of one condition are not those of another")
    if isinstance(reference, EventSample):
        return reference if names is None else _in_order(reference, names)
    if reference is not None:
        return EventSample(reference, names, units)
    first = generator if isinstance(generator, Posterior) else generator[0]
    layout = first.model.multiplicity if isinstance(first, Posterior) else None
    made = first.sample(IN_A_CELL * most, seed=stream(seed, "cells"))
    return EventSample(made, names, units, multiplicity=layout)


def _in_order(reference: EventSample, names: tuple[str, ...]) -> EventSample:
    """The reference with the columns of the posterior, in their order."""
    if reference.features != len(names):
        raise ValueError(f"reference has {reference.features} columns and the posterior makes {len(names)}")
    if set(reference.names) == set(names):
        return reference if reference.names == names else reference.select(names)
    if set(reference.names) & set(names):
        raise ValueError(
            f"reference has the columns {', '.join(reference.names)}, and the posterior makes {', '.join(names)}"
        )
    return reference


def _values(wanted: Mapping[str, Observed], events: Tensor, names: Sequence[str]) -> Array:
    """All observables of the events, ``[n, d]``."""
    columns = [observed(what, events.double().cpu(), names, f"observable {name!r}") for name, what in wanted.items()]
    values = np.stack(columns, 1)
    bad = ~np.isfinite(values)
    if bad.any():
        name = list(wanted)[int(np.flatnonzero(bad.any(0))[0])]
        raise ValueError(
            f"observable {name!r} is NaN or infinite for {int(bad.any(1).sum())} of {len(values)} events; cells need "
            "observables that every event has"
        )
    return values


def _unit(what: Any, sample: EventSample) -> str:
    if callable(what):
        return str(getattr(what, "unit", "") or "")
    return sample.units[sample.names.index(what) if isinstance(what, str) else what]


def _filled(
    generators: Sequence[Any],
    boxes: dict[int, Cells],
    wanted: Mapping[str, Observed],
    sample: EventSample,
    n: int,
    seed: int,
) -> list[tuple[int, HistogramBand]]:
    """A band for every number of cells, with a row for every generator."""
    counts = {count: np.zeros((len(generators), count)) for count in boxes}
    with bar(len(generators), "cells", "generator", brief=True) as shown:
        for r, its in enumerate(generators):
            for part, start in enumerate(range(0, n, AT_ONCE)):
                many = min(AT_ONCE, n - start)
                events = torch.as_tensor(its.sample(many, seed=stream(seed, "cells", r, part)))
                if list(events.shape) != [many, sample.features]:
                    raise ValueError(
                        f"generator[{r}] gave {list(events.shape)} for {many} events of {sample.features} columns"
                    )
                values = _values(wanted, events, sample.names)
                for count, cells in boxes.items():
                    counts[count][r] += np.bincount(cells.numbers(values), minlength=count)
            shown.update()
    note, bands = f"the spread of {len(generators)} generators", []
    for count, its in counts.items():
        noise = multinomial_noise(its / n, n)
        bands.append((count, HistogramBand(_edges(count), its / n, n, "a", noise, label="cells", calibration=note)))
    return bands
