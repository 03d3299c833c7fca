"""What a model and a distribution of its weights predict: log densities, events, replicated samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from pyrogen.bayes.inputs import as_tensor, check_rows, checked_context, checked_events, in_order, warn_outside
from pyrogen.bayes.model import BayesianFlow
from pyrogen.bayes.networks import DrawnNetworks
from pyrogen.checks import (
    COUNT,
    SEED,
    TEXT,
    check_memory,
    column_index,
    door,
    optional,
    whole,
)
from pyrogen.events import EventsLike
from pyrogen.events.containers import Table
from pyrogen.events.multiplicity import Multiplicity
from pyrogen.events.of_objects import observable_of
from pyrogen.flows.compiled import CompiledSteps
from pyrogen.flows.own import compile_obstacle
from pyrogen.launch import Launch
from pyrogen.memory import CPU_ROWS, in_chunks, row_bytes, rows_at_once
from pyrogen.posterior.bands import DensityEstimate
from pyrogen.posterior.weights import WeightPosterior
from pyrogen.printing import Shown
from pyrogen.progress import Bar, bar
from pyrogen.seeds import seeded, stream
from pyrogen.threads import chosen_threads, parts_on_chosen_threads

# What a CPU works on at once; a card takes more, see pyrogen.memory.
EVENTS_AT_ONCE = CPU_ROWS  # events times networks evaluated
DENSITIES_AT_ONCE = 1 << 20  # densities [draws, events] of a block
WEIGHTS_AT_ONCE = 1 << 24  # weights of the draws that are kept from block to block

WORTH_RECORDING = 16  # times of the same operations; recording them takes four

CARD_ROWS, CARD_DENSITIES = 1 << 20, 1 << 25  # largest numbers of the first two on a card; more gain nothing
TOGETHER = 1 << 18  # events times networks up to which networks are evaluated together; a single one takes less memory
GENERATED_AT_ONCE = 16_384  # events of a part of the random stream, the same on every device
IN_PARTS = "posterior.generate_to(path, n) writes them to a file and holds one part at a time"


class Predictor(Shown):
    """Evaluates and samples the networks of a posterior, in chunks of bounded memory.

    Weight draws are a fixed, seeded set, so that two calls agree; :meth:`WeightPosterior.count` decides how many.
    :class:`~pyrogen.Posterior` documents arguments and results for users.

    Args:
        model: the prepared Bayesian flow.
        weights: the distribution of its weights.
        names: column names of the training events, where they had any; events with other names are refused, and columns
            in another order are chosen by name. ``trained_units`` has their units, ``trained_context_names`` the names
            of the conditions.
        progress: show a bar when a prediction takes longer than a few seconds.
    """

    def __init__(
        self,
        model: BayesianFlow,
        weights: WeightPosterior,
        names: tuple[str, ...] | None = None,
        progress: bool = True,
    ) -> None:
        if weights.size != model.packing.size:
            raise ValueError(f"a posterior over {weights.size} weights does not fit a model of {model.packing.size}")
        # Draws go to the device of the networks here, once, and not with every prediction.
        self.model, self.weights, self.trained_names, self.progress = model, weights.to(model.device), names, progress
        self.trained_units: tuple[str, ...] | None = None
        self.trained_context_names: tuple[str, ...] | None = None
        self.trained_context_range: tuple[tuple[float, float], ...] | None = None
        self.compile(False)

    def compile(self, wanted: bool) -> None:
        """Whether densities are compiled (:attr:`Posterior.compile`)."""
        #: What runs densities as compiled code, where that is asked for.
        self.compiled = CompiledSteps(wanted, compile_obstacle(self.model.flow))
        #: What a card runs in one launch; it takes weights, events and conditions to log densities.
        self.launch = Launch(self._evaluated, self.model.device)

    def _evaluated(self, thetas: Tensor, inner: Tensor, *conditions: Tensor) -> tuple[Tensor]:
        return (DrawnNetworks(self.model, thetas, self.compiled).log_prob(inner, *conditions),)

    def __repr__(self) -> str:
        return f"Predictor({type(self.model.flow).__name__} of {', '.join(self.names)}; {self.weights!r})"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns; ``x0, x1, ...`` where the training events had none."""
        return self.trained_names or tuple(f"x{i}" for i in range(self.model.features or 0))

    @door(draws=COUNT, seed=SEED)
    @chosen_threads()
    def log_prob(self, x: EventsLike, draws: int | None = None, context: Any = None, seed: int = 0) -> Tensor:
        """Log density of every weight draw, ``[draws, N]``."""
        draws = self.weights.count(draws)
        return torch.cat([block for _, block in self.log_prob_blocks(x, context, draws, seed, "log density")], 1)

    @door(draws=COUNT, seed=SEED)
    @chosen_threads()
    def density(self, x: EventsLike, draws: int | None = None, context: Any = None, seed: int = 0) -> DensityEstimate:
        """Predictive density and uncertainty at ``x [N, d]`` [A sec. 2.1]."""
        draws = self.weights.count(draws, least=2)
        means, stds, relatives = [], [], []
        for _, block in self.log_prob_blocks(x, context, draws, seed, "density"):
            log_density = block.double()
            largest = log_density.max(0).values
            scaled = (log_density - torch.where(largest.isfinite(), largest, 0.0)).exp()
            mean, std = scaled.mean(0), scaled.std(0)
            means.append(mean * largest.exp())
            stds.append(std * largest.exp())
            relatives.append(torch.where(mean > 0, std / mean, torch.inf))
        return DensityEstimate(torch.cat(means), torch.cat(stds), torch.cat(relatives))

    @door(draws=whole(1), seed=SEED)
    @parts_on_chosen_threads
    def log_prob_blocks(
        self, x: EventsLike, context: Any, draws: int, seed: int, what: str
    ) -> Iterator[tuple[slice, Tensor]]:
        """Log densities in blocks, so that no array holds draws x N numbers.

        Yields:
            ``(rows, values)``: ``values [draws, m]`` are the log densities of the events in the slice ``rows``.

        Args:
            x: events ``[N, d]``.
            context: conditions ``[N, k]`` or None; see :func:`pyrogen.bayes.inputs.checked_context`.
            draws: number of weight draws.
            seed: seeds them.
            what: name of the progress bar.

        Raises:
            ValueError: NaN or infinite events, wrong shapes, or other columns or units than those of the training.
        """
        table, layout = self.checked(x), self.model.multiplicity
        points = as_tensor(table.values, self.model.input_dtype, self.model.device)
        check_rows(
            points, None, f"events in {points.dtype}", multiplicity=layout
        )  # a float32 may overflow where a float64 did not
        context = self._context(context, len(points), table.labels)
        rows = self._rows()
        block = max(1, rows_at_once(self.model.device, 64, DENSITIES_AT_ONCE, CARD_DENSITIES) // draws)
        block = max(1, block // rows) * rows if block > rows else block  # whole chunks
        together = max(1, min(rows, TOGETHER) // max(1, min(block, len(points))))  # networks, where events are few
        groups = self._groups(draws, seed, together)
        times = -(-draws // together) * -(-len(points) // min(rows, block))
        recorded = self.launch.recorded and times >= WORTH_RECORDING
        with torch.no_grad(), self._bar(draws * len(points), what, "density") as shown:
            for start in range(0, len(points), block):
                some = slice(start, min(start + block, len(points)))
                given = None if context is None else context[some]
                yield some, self._log_prob(groups(), points[some], given, rows, shown, recorded)

    def _log_prob(
        self,
        networks: Iterable[DrawnNetworks],
        x: Tensor,
        context: Tensor | None,
        rows: int,
        shown: Bar[Any],
        recorded: bool,
    ) -> Tensor:
        """Log densities ``[draws, m]`` of events ``x [m, d]``, about ``rows`` events times networks at a time.

        Where there are many such times, a card takes each in one launch: ``recorded``.
        """
        model = self.model
        # What is the same for all networks is worked out once.
        inputs = in_chunks(lambda some: model._inner(x[some]), len(x), rows)
        inner, log_jacobian = (torch.cat(each) for each in zip(*(found for _, found in inputs), strict=True))
        conditions = model._conditions(context)
        found = []
        for group in networks:

            def densities(some: slice, group: DrawnNetworks = group) -> Tensor:
                given = inner[some], *(each[some] for each in conditions)
                # The next launch writes over its own result.
                return self.launch(group.thetas, *given)[0].clone() if recorded else group.log_prob(*given)

            pieces = []
            for _, piece in in_chunks(densities, len(x), rows):
                pieces.append(piece)
                shown.update(piece.numel())
            found.append(torch.cat(pieces, 1))
        return torch.cat(found) + log_jacobian

    def _rows(self) -> int:
        """Events times networks evaluated at once."""
        needed = row_bytes(self.model.packing.shapes, self.model.dtype)
        return rows_at_once(self.model.device, needed, EVENTS_AT_ONCE, CARD_ROWS)

    def _groups(self, draws: int, seed: int, together: int) -> Callable[[], Iterable[DrawnNetworks]]:
        """Gives the networks of all weight draws, some together; drawn once, unless they take much memory."""

        def groups() -> Iterator[DrawnNetworks]:
            thetas = self.weights.draws(draws, seed)
            while some := list(islice(thetas, together)):
                yield DrawnNetworks(self.model, torch.stack(some), self.compiled)

        size = self.weights.size
        kept = rows_at_once(self.model.device, size * self.model.dtype.itemsize, WEIGHTS_AT_ONCE // size)
        if draws > kept:
            return groups
        held = list(groups())
        return lambda: held

    @door(n=whole(1), draws=COUNT, seed=SEED, part=optional(whole(0)))
    @chosen_threads()
    def sample(
        self,
        n: int,
        draws: int | None = None,
        context: Any = None,
        seed: int = 0,
        part: int | None = None,
        first: int | None = None,
    ) -> Tensor:
        """``n`` events of the posterior predictive distribution, from the draws in equal shares, shuffled.

        Args:
            n: number of events.
            draws: number of weight draws.
            context: conditions ``[n, k]``.
            seed: seeds the weight draws and the events.
            part: number of a part of a larger sample: other events of the same weight draws.
            first: number of events in the parts before this one; None: these have n events each.
        """
        draws = self.weights.count(draws)
        check_memory("n", n, 8.0 * n * (1 + (self.model.features or 1)), IN_PARTS)
        context = self._context(context, n)
        shares = _shares(n, draws, seed, n * (part or 0) if first is None else first)
        with seeded(stream(seed, "sample") if part is None else stream(seed, "part", part), self.model.device):
            order = torch.randperm(n)
            pieces = []
            with self._bar(n, "sample", "event") as shown:
                for theta, mine in zip(self.weights.draws(draws, seed), order.split(shares), strict=True):
                    parts = [len(rows) for rows in mine.split(GENERATED_AT_ONCE) if len(rows)]
                    for piece in (
                        self._generate(theta, parts, None if context is None else context[mine]) if parts else ()
                    ):
                        pieces.append(piece)
                        shown.update(len(piece))
        events = torch.cat(pieces)
        return events[order.argsort().to(events.device)]

    @door(n=whole(1), draws=COUNT, seed=SEED, what=TEXT)
    def replicates(
        self, n: int, draws: int | None = None, context: Any = None, seed: int = 0, what: str = "replicates"
    ) -> Iterator[tuple[int, Tensor]]:
        """Samples of every weight draw of its own: yields ``(k, events)``, the parts of a draw after each other."""
        given = self._context(context, n)
        found = self._replicates(n, self.weights.count(draws), lambda k: [given], seed, what)
        return ((k, events) for k, (events,) in found)

    @door(n=whole(1), draws=whole(1), seed=SEED, what=TEXT)
    def replicates_at(
        self, n: int, draws: int, contexts: Callable[[int], Sequence[Any]], seed: int, what: str
    ) -> Iterator[tuple[int, list[Tensor]]]:
        """As :meth:`replicates` at several conditions: yields ``(k, [events, ...])``, all of the same random numbers.

        Args:
            n: number of events of every draw and condition.
            draws: number of weight draws.
            contexts: conditions of the draw k, each ``[n, k]`` or one row for all; as many for every draw.
            seed: seeds weight draws and events; one condition gives the events of :meth:`replicates`.
            what: name of the progress bar.
        """
        return self._replicates(n, draws, lambda k: [self._context(each, n) for each in contexts(k)], seed, what)

    @door(n=whole(1), draws=whole(1), seed=SEED, what=TEXT)
    @parts_on_chosen_threads
    def weighted_replicates(
        self, n: int, draws: int, contexts: Callable[[int], Sequence[Any]], seed: int, what: str
    ) -> Iterator[tuple[int, Tensor, Tensor]]:
        """The events of :meth:`replicates` at the first of several conditions, and their density at all of them.

        Arguments as in :meth:`replicates_at`.

        Yields:
            ``(k, events, values)``: the draw, some of its events ``[m, d]``, and the log density ``[C, m]`` that the
            same draw gives them at each of the C conditions.
        """
        thetas, rows = enumerate(self.weights.draws(draws, seed)), self._rows()
        current, start = -1, 0
        with bar(None, what, "density", show=False) as hidden:
            for k, (events,) in self._replicates(n, draws, lambda k: [self._context(contexts(k)[0], n)], seed, what):
                if k != current:
                    (current, theta), start = next(thetas), 0
                    networks = [DrawnNetworks(self.model, theta[None], self.compiled)]
                    conditions = [self._context(each, n) for each in contexts(k)]
                some = slice(start, start + len(events))
                start = some.stop
                with torch.no_grad():
                    found = [
                        self._log_prob(networks, events, None if each is None else each[some], rows, hidden, False)[0]
                        for each in conditions
                    ]
                yield k, events, torch.stack(found)

    @parts_on_chosen_threads
    def _replicates(
        self, n: int, draws: int, contexts: Callable[[int], Sequence[Tensor | None]], seed: int, what: str
    ) -> Iterator[tuple[int, list[Tensor]]]:
        with self._bar(draws * n, what, "event") as shown:
            for k, theta in enumerate(self.weights.draws(draws, seed)):
                conditions = contexts(k)
                for rows in torch.arange(n).split(GENERATED_AT_ONCE):
                    found = []
                    for context in conditions:
                        # Seeded part by part: between them the caller must find the global random state as it left it.
                        with seeded(stream(seed, "replicates", k, int(rows[0])), self.model.device):
                            given = None if context is None else context[rows]
                            found.append(torch.cat(list(self._generate(theta, [len(rows)], given))))
                    yield k, found
                    shown.update(len(rows))

    def observable(self, observable: Callable[[Tensor], Tensor] | str | int) -> Callable[[Tensor], Tensor]:
        """A function of events ``[m, d]`` to values ``[m]``: itself, or that of a column's name or index.

        Of events with a varying number of objects it gives NaN for those that do not have what it needs, as
        :class:`~pyrogen.events.OfObjects` does.

        Raises:
            ValueError: an unknown column.
        """
        known = observable if callable(observable) else column_index(observable, self.names)
        return observable_of(known, self.model.multiplicity)

    def in_order(self, x: EventsLike) -> Any:
        """Events whose columns have the names of the training, in its order; other events as they are."""
        return in_order(x, self.trained_names, self.trained_units)

    def checked(self, x: EventsLike, what: str = "events") -> Table:
        """Events ``[N, d]`` in the order of the training, checked; see :func:`pyrogen.bayes.inputs.checked_events`."""
        return checked_events(self.in_order(x), self.model.features, what, self.model.multiplicity)

    def _generate(self, theta: Tensor, parts: Sequence[int], context: Tensor | None) -> Iterator[Tensor]:
        return DrawnNetworks(self.model, theta[None]).sample(parts, context, self._rows())

    def conditions_in_order(self, context: Any) -> Any:
        """Conditions whose columns have the names of the training, in its order; others, and None, as they are."""
        return None if context is None else in_order(context, self.trained_context_names, what="context")

    def conditions(self, context: Any, n: int, labels: Any = None) -> Any:
        """Checked conditions ``[n, k]`` in the order of the training, or None; see :func:`checked_context`."""
        return checked_context(self.conditions_in_order(context), self.model.context, n, labels)

    def _context(self, context: Any, n: int, labels: Any = None) -> Tensor | None:
        values = self.conditions(context, n, labels)
        if values is None:
            return None
        given = as_tensor(values, self.model.input_dtype, self.model.device)
        warn_outside(given, self.trained_context_range, self.trained_context_names)
        return given

    def _bar(self, total: int, what: str, unit: str) -> Bar[Any]:
        return bar(total, what, unit, show=self.progress, brief=True, scaled=True)


def check_generated(events: Tensor, names: Sequence[str], layout: Multiplicity | None = None) -> None:
    """Check that a posterior generated numbers ``[m, d]``, before they are used as if they had been given.

    NaN are right where the layout of events with a varying number of objects has no object.

    Raises:
        ValueError: NaN or infinity; the text says what makes them.
    """
    bad = ~events.isfinite() if layout is None else events.isfinite() != layout.exists(events)
    rows = int(bad.any(1).sum())
    if rows:
        column = int(bad.sum(0).argmax())
        raise ValueError(
            f"the posterior generated {rows} of {len(events)} events with NaN or infinity, most of them in column "
            f"{column} ({names[column]}). Its networks go far beyond the training events: see "
            "pg.diagnostics.advise(posterior, events), and train longer. If the preprocessing has a Log(), try "
            "Positive() instead, whose inverse does not overflow; or use dtype=torch.float64"
        )


def _shares(n: int, draws: int, seed: int, first: int) -> list[int]:
    """How many of the events ``first`` to ``first + n - 1`` of a sample each weight draw gives.

    The draws take turns, so that their shares of the whole sample differ by one event at most, however it is cut into
    parts. The order of the turns is random: every event has the density p(x), the mean over all draws, also where
    there are fewer events than draws; and stored draws of one chain, which are neighbours, have no advantage.
    """
    order = torch.randperm(draws, generator=torch.Generator().manual_seed(stream(seed, 0, 0, 1)))
    turns = torch.arange(first, first + n) % draws
    return torch.bincount(order[turns], minlength=draws).tolist()
