"""What a model and a distribution of its weights predict: log densities, events, replicated samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from pyrogen.bayes.inputs import as_tensor, check_context
from pyrogen.bayes.model import BayesianFlow
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
from pyrogen.events import EventSample, EventsLike, check_events
from pyrogen.posterior.bands import DensityEstimate
from pyrogen.posterior.weights import WeightPosterior
from pyrogen.progress import Bar, bar
from pyrogen.seeds import seeded, stream

EVENTS_AT_ONCE = 4096  # evaluated together: the fastest number on a CPU, and what bounds the memory
GENERATED_AT_ONCE = 4 * EVENTS_AT_ONCE
IN_PARTS = "posterior.generate_to(path, n) writes them to a file and holds one part at a time"
DENSITIES_AT_ONCE = 1 << 22  # largest number of densities [draws, events] held


class Predictor:
    """Evaluates and samples the networks of a posterior, in chunks of bounded memory.

    Weight draws are a fixed, seeded set, so that two calls agree; :meth:`WeightPosterior.count` decides how many.
    :class:`~pyrogen.Posterior` documents arguments and results for users.

    Args:
        model: the prepared Bayesian flow.
        weights: the distribution of its weights.
        names: column names of the training events, where they had any; other names are refused.
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
        self.model, self.weights, self.trained_names, self.progress = model, weights, names, progress

    def __repr__(self) -> str:
        return f"Predictor({type(self.model.flow).__name__} of {', '.join(self.names)}; {self.weights!r})"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns; ``x0, x1, ...`` where the training events had none."""
        return self.trained_names or tuple(f"x{i}" for i in range(self.model.features or 0))

    @door(draws=COUNT, seed=SEED)
    def log_prob(self, x: EventsLike, draws: int | None = None, context: Any = None, seed: int = 0) -> Tensor:
        """Log density of every weight draw, ``[draws, N]``."""
        draws = self.weights.count(draws)
        return torch.cat([block for _, block in self.log_prob_blocks(x, context, draws, seed, "log density")], 1)

    @door(draws=COUNT, seed=SEED)
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
    def log_prob_blocks(
        self, x: EventsLike, context: Any, draws: int, seed: int, what: str
    ) -> Iterator[tuple[slice, Tensor]]:
        """Log densities in blocks, so that no array holds draws x N numbers.

        Yields:
            ``(rows, values)``: ``values [draws, m]`` are the log densities of the events in the slice ``rows``.

        Args:
            x: events ``[N, d]``.
            context: conditions ``[N, k]`` or None.
            draws: number of weight draws.
            seed: seeds them.
            what: name of the progress bar.

        Raises:
            ValueError: NaN or infinite events, wrong shapes, or other columns than those of the training.
        """
        if isinstance(x, EventSample):
            self._check_names(x)
        check_events(x.values if isinstance(x, EventSample) else x, self.model.features)
        points = as_tensor(x, self.model.dtype, self.model.device)
        context = self._context(context, len(points))
        step = max(1, min(EVENTS_AT_ONCE, DENSITIES_AT_ONCE // max(draws, 1)))
        with torch.no_grad(), self._bar(draws * len(points), what, "density") as shown:
            for start in range(0, len(points), step):
                rows = slice(start, min(start + step, len(points)))
                given = None if context is None else context[rows]
                block = []
                for theta in self.weights.draws(draws, seed):
                    block.append(self.model.log_prob(theta, points[rows], given))
                    shown.update(len(block[-1]))
                yield rows, torch.stack(block)

    @door(n=whole(1), draws=COUNT, seed=SEED, part=optional(whole(0)))
    def sample(
        self, n: int, draws: int | None = None, context: Any = None, seed: int = 0, part: int | None = None
    ) -> Tensor:
        """``n`` events of the posterior predictive distribution, from the draws in equal shares, shuffled."""
        draws = min(self.weights.count(draws), n)
        check_memory("n", n, 8.0 * n * (1 + (self.model.features or 1)), IN_PARTS)
        context = self._context(context, n)
        with seeded(seed if part is None else stream(seed, part), self.model.device):
            order = torch.randperm(n)
            pieces = []
            with self._bar(n, "sample", "event") as shown:
                for theta, mine in zip(self.weights.draws(draws, seed), order.tensor_split(draws), strict=True):
                    for rows in mine.split(GENERATED_AT_ONCE):
                        pieces.append(self._generate(theta, len(rows), None if context is None else context[rows]))
                        shown.update(len(rows))
        events = torch.cat(pieces)
        return events[order.argsort().to(events.device)]

    @door(n=whole(1), draws=COUNT, seed=SEED, what=TEXT)
    def replicates(
        self, n: int, draws: int | None = None, context: Any = None, seed: int = 0, what: str = "replicates"
    ) -> Iterator[tuple[int, Tensor]]:
        """Samples of every weight draw of its own: yields ``(k, events)``, the parts of a draw after each other."""
        return self._replicates(n, self.weights.count(draws), self._context(context, n), seed, what)

    def _replicates(
        self, n: int, draws: int, context: Tensor | None, seed: int, what: str
    ) -> Iterator[tuple[int, Tensor]]:
        with self._bar(draws * n, what, "event") as shown:
            for k, theta in enumerate(self.weights.draws(draws, seed)):
                for rows in torch.arange(n).split(GENERATED_AT_ONCE):
                    # Seeded part by part: between them the caller must find the global random state as it left it.
                    with seeded(stream(seed, k, int(rows[0])), self.model.device):
                        events = self._generate(theta, len(rows), None if context is None else context[rows])
                    yield k, events
                    shown.update(len(rows))

    def observable(self, observable: Callable[[Tensor], Tensor] | str | int) -> Callable[[Tensor], Tensor]:
        """A function of events ``[m, d]`` to values ``[m]``: itself, or that of a column's name or index.

        Raises:
            ValueError: an unknown column.
        """
        if callable(observable):
            return observable
        index = column_index(observable, self.names)
        return lambda events: events[:, index]

    def _check_names(self, sample: EventSample) -> None:
        trained, default = self.trained_names, tuple(f"x{i}" for i in range(sample.features))
        if trained is not None and sample.names not in (tuple(trained), default):
            raise ValueError(f"the columns are {sample.names}, but the posterior was trained on {tuple(trained)}")

    @torch.no_grad()
    def _generate(self, theta: Tensor, n: int, context: Tensor | None) -> Tensor:
        return self.model.sample_events(theta, n, context)

    def _context(self, context: Any, n: int) -> Tensor | None:
        check_context(context, self.model.context, n)
        return None if context is None else as_tensor(context, self.model.dtype, self.model.device)

    def _bar(self, total: int, what: str, unit: str) -> Bar[Any]:
        return bar(total, what, unit, show=self.progress, brief=True, scaled=True)
