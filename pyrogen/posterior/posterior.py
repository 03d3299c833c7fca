"""The posterior over networks, and what it predicts: the one thing that every backend returns."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from pyrogen.bayes.inputs import as_tensor, check_context
from pyrogen.bayes.model import BayesianFlow
from pyrogen.checks import whole_number
from pyrogen.events import EventSample, check_events
from pyrogen.posterior.bands import DensityEstimate, HistogramBand, make_edges
from pyrogen.posterior.files import save
from pyrogen.posterior.generation import CHUNK, generate_sample, generate_to_file
from pyrogen.posterior.histograms import own_events, weighted_events
from pyrogen.posterior.weights import WeightPosterior
from pyrogen.seeds import seeded, stream

ROWS = 4096  # events evaluated at once: the fastest chunk on a CPU, and what bounds the memory
NUMBERS = 1 << 22  # largest number of densities [draws, rows] held at once
DRAWS = 50  # weight draws of a prediction, as in [A] sec. 4


class Posterior:
    """A posterior over generators. Predictions use a fixed, seeded set of weight draws, so that two calls agree.

    Every method works in chunks: its memory is bounded whatever the number of events and draws (beyond the result
    itself), and shows a progress bar when it takes longer than a few seconds.

    Args:
        model: the prepared Bayesian flow.
        weights: the distribution of its weights.
        history: training curve, one array per quantity.
        info: how the posterior came about, in JSON types.
    """

    def __init__(
        self,
        model: BayesianFlow,
        weights: WeightPosterior,
        history: dict[str, NDArray[np.float64]] | None = None,
        info: dict[str, Any] | None = None,
    ) -> None:
        if weights.size != model.packing.size:
            raise ValueError(f"a posterior over {weights.size} weights does not fit a model of {model.packing.size}")
        self.model, self.weights = model, weights
        self.history = history or {}
        self.info: dict[str, Any] = json.loads(json.dumps(info or {}))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns, as the training events had them; ``x0, x1, ...`` where they had none."""
        return tuple(self.info.get("names") or (f"x{i}" for i in range(self.model.features or 0)))

    @property
    def units(self) -> tuple[str, ...]:
        """Units of the columns; ``""`` each where the training events had none."""
        return tuple(self.info.get("units") or ("",) * len(self.names))

    def log_prob(self, x: Any, draws: int | None = None, *, context: Any = None, seed: int = 0) -> Tensor:
        """Log density of every weight draw.

        Args:
            x: events ``[N, d]`` in the units of the training events.
            draws: number of weight draws K; None: 50, or all where fewer are stored.
            context: conditions ``[N, k]`` of a conditional flow.
            seed: seeds the weight draws.

        Returns:
            ``[K, N]`` in nats, in the model's dtype; -inf where a draw has no density.

        Raises:
            ValueError: NaN or infinite events, wrong shapes, or draws that are not a positive whole number.
        """
        draws = self._draws(draws)
        chunks = [block for _, block in self.log_prob_blocks(x, context, draws, seed, "log density")]
        return torch.cat(chunks, 1)

    def density(self, x: Any, draws: int | None = None, *, context: Any = None, seed: int = 0) -> DensityEstimate:
        """Predictive density and uncertainty at ``x [N, d]`` [A sec. 2.1]; arguments as in :meth:`log_prob`.

        Returns:
            Mean and standard deviation over the draws, ``[N]`` each in float64.

        Raises:
            ValueError: as in :meth:`log_prob`, and fewer than two draws.
        """
        draws = self._several(draws)
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

    def sample(
        self, n: int, draws: int | None = None, *, context: Any = None, seed: int = 0, part: int | None = None
    ) -> Tensor:
        """Events of the posterior predictive distribution, from ``draws`` networks in equal shares, shuffled.

        Args:
            n: number of events.
            draws: number of weight draws (at most n are used); None: 50, or all where fewer are stored.
            context: conditions ``[n, k]``, one row per event to generate.
            seed: seeds weight draws and events.
            part: number of a part of a larger sample: other events of the same weight draws.

        Returns:
            ``[n, d]`` in the units of the training events.
        """
        n = whole_number("n", n, 1)
        draws = min(self._draws(draws), n)
        context = self._context(context, n)
        with seeded(seed if part is None else stream(seed, part), self.model.device):
            order = torch.randperm(n)
            pieces = []
            with self._bar(n, "sample", "event") as bar:
                for theta, mine in zip(self.weights.draws(draws, seed), order.tensor_split(draws), strict=True):
                    for rows in mine.split(4 * ROWS):
                        pieces.append(self._generate(theta, len(rows), None if context is None else context[rows]))
                        bar.update(len(rows))
        events = torch.cat(pieces)
        return events[order.argsort().to(events.device)]

    def replicates(
        self, n: int, draws: int | None = None, *, context: Any = None, seed: int = 0, what: str = "replicates"
    ) -> Iterator[tuple[int, Tensor]]:
        """Samples of every weight draw of its own: replicated data, for posterior predictive checks.

        Args:
            n: number of events of every draw.
            draws: number of weight draws; None: 50, or all where fewer are stored.
            context: conditions ``[n, k]``, the same for all draws.
            seed: seeds weight draws and events; those of a draw do not depend on how many others there are.
            what: name of the progress bar.

        Yields:
            ``(k, events)``: the number of the draw, and a part ``[m, d]`` of its n events; the parts of a draw follow
            each other, so that memory is bounded.
        """
        n, draws = whole_number("n", n, 1), self._draws(draws)
        context = self._context(context, n)
        with self._bar(draws * n, what, "event") as bar:
            for k, theta in enumerate(self.weights.draws(draws, seed)):
                for rows in torch.arange(n).split(4 * ROWS):
                    # Seeded part by part: between them the caller must find the global random state as it left it.
                    with seeded(stream(seed, k, int(rows[0])), self.model.device):
                        events = self._generate(theta, len(rows), None if context is None else context[rows])
                    yield k, events
                    bar.update(len(rows))

    def generate(
        self, n: int, draws: int | None = None, *, context: Any = None, seed: int = 0, log_weights: bool = False
    ) -> EventSample:
        """Events with the relative uncertainty of the density at each of them, ``{x, sigma(x)/p(x)}`` [A eq. 2].

        Args:
            n: number of events.
            draws: number of weight draws K, at least 2; None: 50, or all where fewer are stored.
            context: conditions ``[n, k]``, one row per event to generate.
            seed: seeds weight draws and events.
            log_weights: keep ``log p(x|theta_k)/p(x)`` of every draw at every event, ``[n, K]``, from which
                :func:`pyrogen.sample_histograms` makes the band of any histogram later on, without the posterior.

        Returns:
            An :class:`~pyrogen.EventSample` with ``uncertainties``, and the column names and units of the training.
        """
        return generate_sample(self, whole_number("n", n, 1), self._several(draws), context, seed, log_weights)

    def generate_to(
        self,
        path: str | os.PathLike[str],
        n: int,
        draws: int | None = None,
        *,
        context: Any = None,
        seed: int = 0,
        log_weights: bool = False,
        finish: Callable[[EventSample], EventSample] | None = None,
        chunk: int = CHUNK,
        progress: bool = True,
        **layout: Any,
    ) -> Path:
        """:meth:`generate` to a file, in memory for one chunk only. A killed run goes on when it is repeated.

        Finished chunks are kept in the folder ``<path>.parts`` until the file is whole; the file of a resumed run has
        the same bits as that of an uninterrupted one. How long it takes, ``benchmarks/generate.py`` prints.

        Args:
            path: the file, as :class:`pyrogen.events.EventWriter` writes it.
            n: number of events.
            draws: number of weight draws K, at least 2 and at most n; None: 50, or all where fewer are stored.
            context: conditions ``[n, k]``, one row per event to generate.
            seed: seeds weight draws and events.
            log_weights: keep the log-weights of all draws, as :meth:`generate` does.
            finish: what is done with every chunk before it is written, such as
                :func:`pyrogen.events.four_vectors`.
            chunk: events generated at a time, at least ``draws``.
            progress: show a progress bar.
            **layout: for :class:`~pyrogen.events.EventWriter`, such as ``layout="rows"``.

        Raises:
            ValueError: as :meth:`generate`, or the folder of parts belongs to another run.
            OSError: the file cannot be written.
        """
        draws = self._several(draws)
        n = whole_number("n", n, draws)
        context = self._context(context, n)
        return generate_to_file(self, path, n, draws, context, seed, log_weights, finish, chunk, progress, **layout)

    def histogram(
        self,
        observable: Callable[[Tensor], Tensor] | str | int,
        bins: Sequence[float] | NDArray[np.float64] | int | Any,
        *,
        range: tuple[float, float] | None = None,
        n: int = 100_000,
        draws: int | None = None,
        procedure: str = "a",
        context: Any = None,
        seed: int = 0,
    ) -> HistogramBand:
        """Histogram of an observable with the posterior's uncertainty per bin [A eqs. 32-34, sec. 3.5].

        Procedure (a): every weight draw generates ``n`` events and fills its own histogram; its spread contains the
        Poisson noise of n events. Procedure (b): the same ``n`` predictive events for all draws, weighted by
        ``p(x|theta_k) / p(x)``. Both agree for large n.

        Args:
            observable: a function of events ``[m, d]`` (tensor) to values ``[m]``, or a column's name or index.
            bins: increasing edges ``[B + 1]``, a ``hist`` axis or histogram, or a number of equal bins on ``range``.
            range: lowest and highest edge for a number of bins.
            n: number of events, per draw (a) or in all (b).
            draws: number of weight draws K, at least 2; None: 50, or all where fewer are stored.
            procedure: ``"a"`` or ``"b"``.
            context: conditions ``[n, k]``.
            seed: seeds weight draws and events.

        Raises:
            ValueError: edges that do not increase, an unknown procedure or column, fewer than two draws.
        """
        wanted = {"": (observable, bins) if range is None else (observable, bins, range)}
        return self.histograms(wanted, n=n, draws=draws, procedure=procedure, context=context, seed=seed)[""]

    def histograms(
        self,
        observables: Mapping[str, tuple[Any, ...]],
        *,
        n: int = 100_000,
        draws: int | None = None,
        procedure: str = "a",
        context: Any = None,
        seed: int = 0,
    ) -> dict[str, HistogramBand]:
        """Histograms of several observables of the same events, as :meth:`histogram` makes one.

        Args:
            observables: by name ``(observable, bins)`` or ``(observable, number of bins, (low, high))``.
            n: number of events, per draw (a) or in all (b).
            draws: number of weight draws K, at least 2; None: 50, or all where fewer are stored.
            procedure: ``"a"`` or ``"b"``.
            context: conditions ``[n, k]``.
            seed: seeds weight draws and events.

        Raises:
            ValueError: as :meth:`histogram`, and no observables.
        """
        if not observables:
            raise ValueError("observables is empty; give at least one")
        functions = {name: self.observable(wanted[0]) for name, wanted in observables.items()}
        edges = {name: make_edges(*wanted[1:]) for name, wanted in observables.items()}
        draws = self._several(draws)
        n = whole_number("n", n, draws if procedure == "b" else 1)  # (b): every draw contributes events
        if procedure not in ("a", "b"):
            raise ValueError(f'procedure is {procedure!r}; it must be "a" (own events) or "b" (weighted events)')
        fill = own_events if procedure == "a" else weighted_events
        return fill(self, functions, edges, n, draws, context, seed)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the posterior to an HDF5 file (format in ``docs/files.md``), in one piece.

        Raises:
            OSError: the file cannot be written; an old file at ``path`` is left as it was.
        """
        save(self, path)

    def log_prob_blocks(self, x: Any, context: Any, draws: int, seed: int, what: str) -> Iterator[tuple[slice, Tensor]]:
        """Log densities in blocks: yields ``(rows, [draws, len(rows)])``, so that no array holds draws x N numbers."""
        if isinstance(x, EventSample):
            self._check_names(x)
        check_events(x.values if isinstance(x, EventSample) else x, self.model.features)
        points = as_tensor(x, self.model.dtype, self.model.device)
        context = self._context(context, len(points))
        step = max(1, min(ROWS, NUMBERS // max(draws, 1)))
        with torch.no_grad(), self._bar(draws * len(points), what, "density") as bar:
            for start in np.arange(0, len(points), step):
                rows = slice(int(start), int(start) + step)
                given = None if context is None else context[rows]
                block = []
                for theta in self.weights.draws(draws, seed):
                    block.append(self.model.log_prob(theta, points[rows], given))
                    bar.update(len(block[-1]))
                yield rows, torch.stack(block)

    def _check_names(self, sample: EventSample) -> None:
        trained, default = self.info.get("names"), tuple(f"x{i}" for i in np.arange(sample.features))
        if trained is not None and sample.names not in (tuple(trained), default):
            raise ValueError(f"the columns are {sample.names}, but the posterior was trained on {tuple(trained)}")

    @torch.no_grad()
    def _generate(self, theta: Tensor, n: int, context: Tensor | None) -> Tensor:
        return self.model.sample_events(theta, n, context)

    def _context(self, context: Any, n: int) -> Tensor | None:
        check_context(context, self.model.context, n)
        return None if context is None else as_tensor(context, self.model.dtype, self.model.device)

    def observable(self, observable: Callable[[Tensor], Tensor] | str | int) -> Callable[[Tensor], Tensor]:
        """A function of events ``[m, d]`` to values ``[m]``: itself, or that of a column's name or index.

        Raises:
            ValueError: an unknown column.
        """
        if callable(observable):
            return observable
        names = self.names
        index = names.index(observable) if observable in names else observable
        if isinstance(index, (str, bool)) or not -len(names) <= index < len(names):
            raise ValueError(f"unknown column {observable!r}; give a function of the events or one of {list(names)}")
        return lambda events: events[:, index]

    def _draws(self, draws: int | None) -> int:
        return min(DRAWS, self.weights.stored or DRAWS) if draws is None else whole_number("draws", draws, 1)

    def _several(self, draws: int | None) -> int:
        draws = self._draws(draws)
        if draws < 2:
            raise ValueError("draws is 1; an uncertainty needs at least two weight draws (30 or more to be trusted)")
        return draws

    @staticmethod
    def _bar(total: int, what: str, unit: str) -> tqdm[Any]:
        return tqdm(total=total, desc=what, unit=unit, unit_scale=True, delay=3, leave=False)

    def __repr__(self) -> str:
        return (
            f"Posterior({self.info.get('backend', 'unknown backend')}, {self.weights.family}, "
            f"{self.weights.size} weights, {self.info.get('training_events', '?')} training events)"
        )
