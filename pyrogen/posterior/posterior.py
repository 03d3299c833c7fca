"""The posterior over networks, and what it predicts: the one thing that every backend returns."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrogen.bayes.model import BayesianFlow
from pyrogen.checks import (
    BOOLEAN,
    COUNT,
    DEVICE,
    FUNCTION,
    LIMITS,
    PATH,
    SEED,
    SHARE_OF,
    array,
    check_memory,
    dictionary,
    door,
    instance,
    optional,
    require,
    whole,
)
from pyrogen.devices import exact
from pyrogen.events import EventSample, EventsLike
from pyrogen.executors import EXECUTOR
from pyrogen.posterior import files
from pyrogen.posterior.bands import PROCEDURE, DensityEstimate, HistogramBand
from pyrogen.posterior.binning import bins_of
from pyrogen.posterior.effective import FEWEST
from pyrogen.posterior.generation import EVENTS_PER_PART, enough_events, generate_sample
from pyrogen.posterior.generation_files import generate_to_file
from pyrogen.posterior.histograms import labelled, own_events, weighted_events
from pyrogen.posterior.holding import Holding
from pyrogen.posterior.info import History, RunInfo, as_of, findings_of
from pyrogen.posterior.multiplicities import multiplicities
from pyrogen.posterior.predictor import IN_PARTS, Predictor
from pyrogen.posterior.probes import Probes
from pyrogen.posterior.weights import WeightPosterior
from pyrogen.posterior.worth import Worth
from pyrogen.threads import chosen_threads
from pyrogen.warn import warn


class Posterior(Holding):
    """A posterior over generators. Predictions use a fixed, seeded set of weight draws, so that two calls agree.

    Every method works in chunks: its memory is bounded whatever the number of events and draws (beyond the result
    itself), and shows a progress bar when it takes longer than a few seconds.

    Args:
        model: the prepared Bayesian flow.
        weights: the distribution of its weights.
        history: training curve, one array per quantity.
        info: how the posterior came about.
        progress: show progress bars.
        probes: some of the training events, at which its files remember the density.

    Attributes:
        history: the training curve, one array per quantity.
        predictor: what evaluates and samples its networks, for diagnostics of one's own.
        snapshots: of a training on a stream, what the weights were after so many events, see :meth:`at`.
    """

    @door(
        model=instance(BayesianFlow, "a pyrogen.BayesianFlow"),
        weights=instance(WeightPosterior, "a distribution of weights of pyrogen.posterior"),
        history=optional(dictionary(array())),
        info=optional(instance(RunInfo, "a pyrogen.posterior.RunInfo")),
        progress=BOOLEAN,
        probes=optional(instance(Probes, "what Probes.of(events) of pyrogen.posterior.probes gives")),
    )
    def __init__(
        self,
        model: BayesianFlow,
        weights: WeightPosterior,
        history: History | None = None,
        info: RunInfo | None = None,
        *,
        progress: bool = True,
        probes: Probes | None = None,
    ) -> None:
        self.probes = probes
        self.history = history or {}
        self.predictor = Predictor(model, weights, None, progress)
        self.info = info or RunInfo()
        self.snapshots: dict[int, WeightPosterior] = {}

    @door(device=DEVICE)
    def to(self, device: torch.device | str) -> Posterior:
        """The posterior on another device, such as ``"cuda"`` or ``"cpu"``.

        Its predictions take the same weight draws there: densities agree up to rounding; generated events are
        others. Stored draws are copied once, here; more than 1 GiB of them stay, and each is copied where it is used.

        Returns:
            Itself where it is there already, else a new posterior.
        """
        if exact(device) == self.device:
            return self
        model = self.model.packing.copied(self.model).to(device)
        moved = Posterior(model, self.weights, self.history, self.info, progress=self.progress, probes=self.probes)
        moved.compile = self.compile
        moved.snapshots = self.snapshots
        return moved

    @door(events_seen=whole(1))
    def at(self, events_seen: int) -> Posterior:
        """The posterior of a training on a stream as it was after so many events.

        Args:
            events_seen: one of the numbers in ``snapshots``, or that of the whole run. They are those which
                ``fit_stream(snapshots=...)`` was asked for; by default 1, 2, 4, ... times as many as the buffer held.

        Returns:
            A posterior with the curves up to there. Its findings are those of the whole run, and what was wrong then:
            a warning tells of widths that had not had the steps to grow, with which sigma is far too small.

        Raises:
            ValueError: nothing was kept after this number of events; the text lists the numbers.
        """
        if events_seen == self.info.training_events:
            return self
        if events_seen not in self.snapshots:
            kept = ", ".join(map(str, self.snapshots)) or "none, for it was not trained by fit_stream"
            raise ValueError(f"events_seen is {events_seen}; the numbers of events that were kept are {kept}")
        info, history = as_of(self.info, self.history, events_seen)
        for finding in findings_of(self.info, events_seen):
            warn(f"after {events_seen} events: {finding}")
        earlier = Posterior(
            self.model,
            self.snapshots[events_seen].to(self.device),
            history,
            info,
            progress=self.progress,
            probes=self.probes,
        )
        earlier.snapshots = {n: weights for n, weights in self.snapshots.items() if n < events_seen}
        return earlier

    def log_prob(self, x: EventsLike, draws: int | None = None, *, context: Any = None, seed: int = 0) -> Tensor:
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
        return self.predictor.log_prob(x, draws, context, seed)

    def density(
        self, x: EventsLike, draws: int | None = None, *, context: Any = None, seed: int = 0
    ) -> DensityEstimate:
        """Predictive density and uncertainty at ``x [N, d]`` [A sec. 2.1]; arguments as in :meth:`log_prob`.

        Returns:
            Mean and standard deviation over the draws, ``[N]`` each in float64.

        Raises:
            ValueError: as in :meth:`log_prob`, and fewer than two draws.
        """
        return self.predictor.density(x, draws, context, seed)

    @door(draws=COUNT, seed=SEED)
    def multiplicities(self, draws: int | None = None, *, context: Any = None, seed: int = 0) -> Tensor:
        """Probability of every number of objects, such as jets, by every weight draw.

        Their mean and standard deviation over the draws are the estimate and its uncertainty::

            p = posterior.multiplicities(1000)
            p.mean(0), p.std(0)  # of the numbers in posterior.model.multiplicity.numbers

        Args:
            draws: number of weight draws K; None: 50, or all where fewer are stored.
            context: conditions ``[N, k]`` of a conditional flow, or one row ``[k]``.
            seed: seeds the weight draws.

        Returns:
            ``[K, numbers]`` in float64, of a conditional flow ``[K, N, numbers]``. The last number of objects is that
            of the layout, whether or not it stands for more.

        Raises:
            ValueError: a flow without a varying number of objects, or conditions that do not fit.
        """
        return multiplicities(self.predictor, draws, context, seed)

    def sample(
        self, n: int, draws: int | None = None, *, context: Any = None, seed: int = 0, part: int | None = None
    ) -> Tensor:
        """Events of the posterior predictive distribution, from ``draws`` networks in equal shares, shuffled.

        The shares differ by one event at most. Which networks give one more is drawn at random, so that every event
        has the density p(x) of all of them, also where there are fewer events than networks.

        Args:
            n: number of events.
            draws: number of weight draws; None: 50, or all where fewer are stored.
            context: conditions ``[n, k]`` of the events, or one row ``[k]`` for all.
            seed: seeds weight draws and events.
            part: number of a part, from 0, of a larger sample of parts of ``n`` events each: other events of the same
                weight draws, whose shares are equal over all parts together.

        Returns:
            ``[n, d]`` in the units of the training events.
        """
        return self.predictor.sample(n, draws, context, seed, part)

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
        return self.predictor.replicates(n, draws, context, seed, what)

    @door(n=whole(1), draws=COUNT, seed=SEED, log_weights=BOOLEAN)
    @chosen_threads()
    def generate(
        self, n: int, draws: int | None = None, *, context: Any = None, seed: int = 0, log_weights: bool = False
    ) -> EventSample:
        """Events with the relative uncertainty of the density at each of them, ``{x, sigma(x)/p(x)}`` [A eq. 2].

        Args:
            n: number of events.
            draws: number of weight draws K, at least 2; None: 50, or all where fewer are stored.
            context: conditions ``[n, k]`` of the events, or one row ``[k]`` for all.
            seed: seeds weight draws and events.
            log_weights: keep ``log p(x|theta_k)/p(x)`` of every draw at every event, ``[n, K]``, from which
                :func:`pyrogen.sample_histograms` makes the band of any histogram later on, without the posterior. Every
                draw then gives events, so ``n`` is at least K.

        Returns:
            An :class:`~pyrogen.EventSample` with ``uncertainties``, and the column names and units of the training.

        Raises:
            ValueError: fewer than two draws, or fewer events than draws where ``log_weights`` are asked for.
        """
        draws = self.weights.count(draws, least=2)
        n = enough_events(n, draws, "with log-weights") if log_weights else n
        columns = 1 + (self.model.features or 1) + (draws if log_weights else 0)
        check_memory("n", n, 8.0 * n * columns, IN_PARTS)
        return generate_sample(self.predictor, self.info, n, draws, context, seed, log_weights)

    @door(
        path=PATH,
        n=whole(1),
        draws=COUNT,
        seed=SEED,
        log_weights=BOOLEAN,
        finish=optional(FUNCTION),
        chunk=whole(1),
        executor=optional(EXECUTOR),
        share=optional(SHARE_OF),
        progress=optional(BOOLEAN),
    )
    @chosen_threads()
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
        finish_name: str | None = None,
        chunk: int = EVENTS_PER_PART,
        executor: Any = None,
        share: tuple[int, int] | None = None,
        progress: bool | None = None,
        **layout: Any,
    ) -> Path:
        """:meth:`generate` to a file, in memory for one chunk only. A killed run goes on when it is repeated.

        Finished chunks are kept in the folder ``<path>.parts`` until the file is whole; the file of a resumed run has
        the same bits as that of an uninterrupted one (``.root`` the same numbers: uproot writes the time into it).
        A chunk whose checksums are wrong is made again. Every chunk has random numbers of its own: with one seed the
        events are others than those of :meth:`generate`, and than those of another ``chunk``. The weight draws are the
        same, and so are all bits on an executor, whatever the number of its workers. How long it takes,
        ``benchmarks/generate.py`` prints.

        Args:
            path: the file, as :class:`pyrogen.events.EventWriter` writes it. A name that ends in ``.json`` is for
                large samples: the chunks stay in ``<path>.parts``, and the file lists them with their SHA-256.
                :func:`pyrogen.events.stream` and :func:`pyrogen.events.read` take it.
            n: number of events.
            draws: number of weight draws K, at least 2 and at most n; None: 50, or all where fewer are stored.
            context: conditions ``[n, k]`` of the events, or one row ``[k]`` for all.
            seed: seeds weight draws and events.
            log_weights: keep the log-weights of all draws, as :meth:`generate` does.
            finish: what is done with every chunk before it is written, such as
                :func:`pyrogen.events.four_vectors`. A run goes on with the very same function only: one of the same
                code, constants, defaults and enclosed values, and the same functions of yours that it calls.
            finish_name: what a run knows ``finish`` by instead, where that is an object whose state cannot be told.
                Give another name whenever it does something else.
            chunk: events generated at a time, at least ``draws``.
            executor: makes the chunks on workers elsewhere (``docs/scale.md``): a process pool of Python, a client of
                Dask, or another object with ``submit(function, *arguments)``. All workers must see the folder of the
                file. Each computes on one CPU thread. None: here.
            share: ``(i, S)``: make every S-th chunk only, from the chunk number i on, and leave them in
                ``<path>.parts``: for S jobs of a batch system, i = 0 ... S-1. Afterwards the same call without
                ``share`` puts the file together. None: make all of it.
            progress: show a progress bar; None: as the posterior's own switch says.
            **layout: for :class:`~pyrogen.events.EventWriter`, such as ``layout="rows"``.

        Returns:
            The path; of a share, that of the folder.

        Raises:
            ValueError: as :meth:`generate`, the folder of parts belongs to another run, or ``finish`` cannot be told
                from another function.
            TypeError: ``finish`` gave something else than an :class:`~pyrogen.EventSample`.
            PathInUseError: another process, or another part of this one, generates this file.
            PartsError: chunks failed on the executor; the others are kept.
            OSError: the file cannot be written.
        """
        draws = self.weights.count(draws, least=2)
        n = enough_events(n, draws, "in a file")
        show = self.progress if progress is None else progress
        return generate_to_file(
            self.predictor,
            self.info,
            path,
            n,
            draws,
            context,
            seed,
            log_weights,
            finish,
            finish_name,
            chunk,
            show,
            executor,
            share,
            self.save,
            **layout,
        )

    @door(range=optional(LIMITS), n=whole(1), draws=COUNT, procedure=PROCEDURE, seed=SEED)
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
                With plain edges the last bin contains its upper edge, as in numpy; an axis fills its bins by its own
                rule, which leaves that edge to the overflow bin where it has one.
            range: lowest and highest edge for a number of bins.
            n: number of events, per draw (a) or in all (b).
            draws: number of weight draws K, at least 2; None: 50, or all where fewer are stored.
            procedure: ``"a"`` or ``"b"``.
            context: conditions ``[n, k]``.
            seed: seeds weight draws and events.

        Raises:
            ValueError: edges that do not increase, an axis that is circular, grows or has categories, an unknown
                procedure or column, fewer than two draws.
        """
        wanted = {"": (observable, bins) if range is None else (observable, bins, range)}
        return self.histograms(wanted, n=n, draws=draws, procedure=procedure, context=context, seed=seed)[""]

    @door(n=whole(1), draws=COUNT, procedure=PROCEDURE, seed=SEED)
    @chosen_threads()
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
        bins = bins_of(observables)
        functions = {name: self.predictor.observable(wanted[0]) for name, wanted in observables.items()}
        draws = self.weights.count(draws, least=2)
        n = enough_events(n, draws, "in procedure (b)") if procedure == "b" else n
        fill = own_events if procedure == "a" else weighted_events
        bands = fill(self.predictor, functions, bins, n, draws, context, seed)
        return labelled(bands, observables, bins, self.names, self.units, self.info.note)

    @door(n=whole(2), draws=COUNT, procedure=PROCEDURE, seed=SEED)
    def worth(
        self,
        observables: Mapping[str, tuple[Any, ...]],
        *,
        n: int = 100_000,
        draws: int | None = None,
        procedure: str = "b",
        context: Any = None,
        seed: int = 0,
    ) -> dict[str, Worth]:
        """How many true events generated events count as, in histograms of these observables.

        Args:
            observables: as in :meth:`histograms`.
            n: number of events, in all (b) or per draw (a).
            draws: number of weight draws K, at least 5; None: 50, or all where fewer are stored. They know
                the number of a single bin to ``sqrt(2 / K)``: 20 % with 50.
            procedure: ``"b"``: the same events for all draws, which have little noise of their own; or ``"a"``, where
                densities are not to be relied on: then n has to be larger than the numbers that are found.
            context: conditions ``[n, k]``.
            seed: seeds weight draws and events.

        Raises:
            ValueError: as :meth:`histogram`, fewer than 5 draws, or weights without any spread.
        """
        if not self.weights.has_spread:
            raise ValueError(f"the weights are {self.weights.family}, without a spread: there is no sigma of any bin")
        draws = self.weights.count(draws, least=2)
        require(draws >= FEWEST, "draws", draws, f"at least {FEWEST} weight draws, for a variance and its error")
        bands = self.histograms(observables, n=n, draws=draws, procedure=procedure, context=context, seed=seed)
        return {name: Worth.of(band, self.info.size) for name, band in bands.items()}

    @door(path=PATH)
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the posterior to an HDF5 file (format in ``docs/files.md``), in one piece.

        Raises:
            OSError: the file cannot be written; an old file at ``path`` is left as it was.
        """
        files.write(path, self.model, self.weights, self.history, self.info, self.probes, self.snapshots)

    def __repr__(self) -> str:
        info = self.info
        trained = "?" if info.training_events is None else f"{info.training_events:,}"
        backend = f"{info.backend}, tempered" if info.tempered else info.backend
        weights = f"{self.weights.family}, {self.weights.size:,} weights"
        serious = sum(finding.serious for finding in info.findings)
        found = f"{serious} serious {'finding' if serious == 1 else 'findings'}, " if serious else ""
        return f"Posterior({backend}, {weights}, {trained} training events, on {self.device}, {found}{info.note})"


#: What diagnostics take.
POSTERIOR = instance(
    Posterior,
    "a trained posterior",
    {
        "BayesianFlow": "train it first, as with pg.SVI().fit(model, events)",
        "Module": "lift the flow with pg.BayesianFlow(flow), and train that",
    },
)
