"""What all backends are: settings, and two ways to turn a model and events into posteriors."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrogen.bayes.evaluation import check_density
from pyrogen.bayes.model import BayesianFlow
from pyrogen.checks import BOOLEAN, DEVICE, DTYPE, PATH, SEED, check_settings, door, instance, optional
from pyrogen.devices import told
from pyrogen.events import EventsLike
from pyrogen.executors import EXECUTOR
from pyrogen.files import check_writable
from pyrogen.inference.documented import inherit_arguments
from pyrogen.inference.problems import NotBatchedError
from pyrogen.inference.run.apart import fit_apart
from pyrogen.inference.run.checkpoint import CheckpointMismatchError, only_run
from pyrogen.inference.run.data import (
    ManySamples,
    TrainingData,
    check_samples,
    in_one_order,
    prepare,
    prepare_many,
    prepare_together,
    why_apart,
)
from pyrogen.inference.run.going_on import columns_in_order, columns_of, model_of, model_with_prior, told_of
from pyrogen.inference.run.stopping import Terminated, end, terminable
from pyrogen.log import LOG
from pyrogen.posterior.info import History, RunInfo
from pyrogen.posterior.posterior import Posterior
from pyrogen.posterior.probes import Probes
from pyrogen.posterior.weights import WeightPosterior
from pyrogen.printing import Shown, brief
from pyrogen.seeds import untouched
from pyrogen.threads import chosen_threads

Samples = Sequence[EventsLike] | Tensor | NDArray[Any]

#: What every training takes.
MODEL = instance(
    BayesianFlow,
    "a pyrogen.BayesianFlow",
    {
        "Posterior": "that is what a training gives; its model is posterior.model",
        "Module": "lift the flow with pg.BayesianFlow(flow)",
    },
)


@dataclass(frozen=True, kw_only=True)
class Backend(Shown, ABC):
    """Turns a Bayesian flow and events into a posterior. A backend is its settings; every run starts from them.

    A new one is a frozen dataclass with :meth:`_fit`, and where many samples can be one batch :meth:`_fit_many`.

    Args:
        seed: seeds everything that is drawn; the global random state is left alone. The same seed gives the same bits
            on one thread.
        dtype: ``torch.float32``, ``torch.float64``, or None for the flow's own.
        device: a torch device of this machine, or its name.
        compile: compile the steps of a :class:`~pyrogen.CouplingFlow` with :func:`torch.compile`, which takes ten
            seconds to a minute. A training step of many blocks takes half the time then, on a card and on a CPU;
            samplers seldom gain from it on a CPU (``docs/performance.md``). The bits differ a little.
            ``info.compiled`` says whether it worked.
        checkpoint: HDF5 file with the state of the run. If it exists the run goes on from it, to the same bits as an
            uninterrupted one.
        progress: show progress bars, in the run and in the predictions of its posterior.

    Raises:
        ValueError: an argument out of range.
    """

    seed: int = 0
    dtype: torch.dtype | None = None
    device: str = "cpu"
    compile: bool = False
    checkpoint: str | os.PathLike[str] | None = None
    progress: bool = True

    #: Settings that do not decide the result.
    incidental: ClassVar[tuple[str, ...]] = ("checkpoint", "progress")
    #: The setting that counts the chains or networks of a run, where these are independent of each other, and how many
    #: a run has at least.
    countable: ClassVar[tuple[str, int] | None] = None

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        inherit_arguments(cls)
        if "__repr__" not in vars(cls):
            cls.__repr__ = Backend.__repr__  # type: ignore[method-assign]  # dataclass would write a longer one

    def _facts(self) -> dict[str, Any]:
        return {entry.name: brief(getattr(self, entry.name)) for entry in fields(self)}

    def __repr__(self) -> str:
        """The settings that are not the defaults."""
        changed = [entry.name for entry in fields(self) if getattr(self, entry.name) != entry.default]
        return f"{type(self).__name__}({', '.join(f'{name}={brief(getattr(self, name))}' for name in changed)})"

    def __str__(self) -> str:
        """One line for every setting."""
        return "\n".join(
            [type(self).__name__, *(f"{entry.name}: {getattr(self, entry.name)}" for entry in fields(self))]
        )

    def __post_init__(self) -> None:
        check_settings(
            self,
            seed=SEED,
            dtype=optional(DTYPE),
            device=DEVICE,
            compile=BOOLEAN,
            checkpoint=optional(PATH),
            progress=BOOLEAN,
        )

    @door(model=MODEL)
    @chosen_threads()
    def fit(
        self,
        model: BayesianFlow,
        events: EventsLike,
        weights: Any = None,
        context: Any = None,
        *,
        start: Posterior | None = None,
        prior: Posterior | None = None,
    ) -> Posterior:
        """Learn the posterior of the weights, or go on from the checkpoint.

        Args:
            model: the Bayesian flow; it is copied, so that several fits start from the same state.
            events: ``[N, d]`` (or ``[N]`` for one feature), a tensor, an array, an :class:`~pyrogen.EventSample` or a
                table of another package, whose names, units and weights count (:data:`~pyrogen.events.EventsLike`).
            weights: event weights ``[N]`` of either sign with a positive sum.
            context: conditions ``[N, k]`` of a conditional flow.
            start: a posterior of the same model, to go on from: for longer, or with other events of the same columns.
                Columns of events and of conditions are chosen by name. The constants of its preprocessing are kept.
                ``info.started_from`` of the result tells of it. The prior is that of the model: ``start`` says where
                the training begins, and nothing of what it finds.
            prior: a mean-field posterior of the same model and of other events, whose distribution of the weights takes
                the place of the prior (sequential Bayes): the result is the posterior of both samples, as far as mean
                field can tell (``docs/online.md``). For :class:`~pyrogen.SVI`. The run starts at it, and keeps the
                constants of its preprocessing; ``info.prior_from`` tells of it.

        Returns:
            The posterior. Its ``history`` has the curves of the run, its ``info`` how it came about, and in
            ``info.findings`` what is wrong with it.

        Raises:
            TypeError: a model that is no :class:`~pyrogen.BayesianFlow`.
            ValueError: events, weights or context that cannot be learned from, a foreign checkpoint, or a ``start`` or
                ``prior`` of another model or of a kind that this backend cannot go on from.
            TrainingDivergedError: the loss or its gradient was NaN or infinite for many steps in a row.
            SamplingError: no chain, or no network, has a finite potential.
            PathInUseError: another process, or another part of this one, trains with this checkpoint.
            OSError: the checkpoint cannot be written.
            KeyboardInterrupt: Ctrl-C. The checkpoint is written first, and the text says how to go on. A second Ctrl-C
                does not wait for that. SIGTERM and SIGHUP end the process in the same way.
        """
        if prior is not None:
            self._check_prior(prior, start)
        searched = self._searched(model, events, weights, context, start)
        if searched is not None:
            return searched
        self._check_run()
        try:
            with terminable(), only_run(self) as run:
                if start is not None:
                    model = model_of(start, model, self.dtype)
                    events, context = columns_in_order(start, events, context)
                if prior is not None:
                    model = model_with_prior(prior, model, self.dtype)
                    events, context = columns_in_order(prior, events, context)
                model, data = run.checked(model, events, weights, context)
                if start is not None:
                    data = columns_of(start, data)
                    run._check_going_on(start, model)
                if prior is not None:
                    data = columns_of(prior, data, "prior")
                    if data.digest == prior.info.data_sha256:
                        raise ValueError("prior was trained on these very events, which would count twice; take start")
                settings = f"{run!r} on {len(data.events):,} events, {model.packing.size:,} weights"
                LOG.info("begins: %s", settings)
                with untouched(self.device):
                    posterior = run._fit(model, data)
                LOG.info("ends: %s; %s", settings, posterior.summary().verdict)
                return posterior
        except (KeyboardInterrupt, Terminated) as stop:
            end(stop, type(self).__name__, self.checkpoint)

    @door(model=MODEL, executor=optional(EXECUTOR))
    @chosen_threads()
    def fit_many(
        self, model: BayesianFlow, samples: Samples, context: Samples | None = None, *, executor: Any = None
    ) -> list[Posterior]:
        """Learn from R independent samples, such as a coverage study needs, in one batch where that is possible.

        Where it is not, one sample is learned from after another, each with a seed, a start and a checkpoint of its
        own, and ``info.batched_reason`` says why.

        Args:
            model: the Bayesian flow; it is copied. Preprocessing constants that are not yet set are fitted to all
                samples together. Every sample starts from an initialisation of its own.
            samples: R samples of events, ``[R, N, d]`` or a sequence of ``[N, d]``. Columns with names are put into the
                order of the first sample.
            context: conditions of the samples of a conditional flow, ``[R, N, k]`` or a sequence of ``[N, k]``. Such
                samples are learned from one after another.
            executor: trains each sample by itself on a worker elsewhere (``docs/scale.md``): a process pool of Python,
                a client of Dask, or another object with ``submit(function, *arguments)``. Each worker computes on
                one CPU thread. The result is that of samples which are learned from one after another, in all bits.

        Returns:
            R posteriors, as from :meth:`fit`; the ``gradients`` and ``seconds`` of a batch are those of the whole run,
            up to where the sample's own training stopped.

        Raises:
            ValueError: samples that cannot be learned from (the first is named), or a foreign checkpoint.
            TrainingDivergedError: as in :meth:`fit`, naming the sample.
            SamplingError: as in :meth:`fit`.
            PathInUseError: another process, or another part of this one, trains with this checkpoint.
            PartsError: trainings failed on the executor; those that ended are in their checkpoints, if there are any.
            OSError: the checkpoint cannot be written.
        """
        searched = self._many_searched(model, samples, context, executor)
        if searched is not None:
            return searched
        self._check_run()
        check_samples(model, samples, context)
        samples = in_one_order(samples)
        try:
            with terminable(), only_run(self) as run:
                try:
                    if executor is not None:
                        raise NotBatchedError("each sample is trained by itself on an executor")
                    if context is not None:
                        raise NotBatchedError("the flow is conditional")
                    run._check_batch(samples)
                    model_of_all, data = prepare_many(model, samples, self.dtype, self.device)
                    check_density(model_of_all, data.events[0])
                    with untouched(self.device):
                        return run._fit_many(model_of_all, data)
                except NotBatchedError as reason:
                    return run._fit_apart(model, samples, str(reason), context, executor)
        except (KeyboardInterrupt, Terminated) as stop:
            end(stop, type(self).__name__, self.checkpoint)

    @door(model=MODEL)
    def checked(
        self, model: BayesianFlow, events: EventsLike, weights: Any = None, context: Any = None
    ) -> tuple[BayesianFlow, TrainingData]:
        """The model prepared for checked data, in the ``dtype`` and on the ``device`` of these settings.

        Raises:
            ValueError: events, weights or context that cannot be learned from, or a flow without a density of them.
        """
        model, data = prepare(model, events, weights, context, self.dtype, self.device)
        check_density(model, data.events, data.context)
        return model, data

    def describe(self) -> dict[str, Any]:
        """All settings that decide the result, in JSON types."""
        told = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name not in self.incidental}
        told["dtype"] = None if self.dtype is None else str(self.dtype).removeprefix("torch.")
        for name, value in (told := told | self._described()).items():
            try:
                told[name] = json.loads(json.dumps(value))
            except (TypeError, ValueError) as error:
                raise TypeError(
                    f"{type(self).__name__}.{name} is {value!r}, which JSON does not know; let _described() put it "
                    "in words"
                ) from error
        return told

    def _described(self) -> dict[str, Any]:
        """Settings that JSON does not know, by name, in words that it does."""
        return {}

    @property
    def _kept(self) -> int | None:
        """Number of weight draws that a posterior will hold at most; None: any number."""
        return None

    def _check_memory(self, model: BayesianFlow, samples: int) -> None:
        """Check that the networks of so many samples, trained at once, fit into memory.

        Raises:
            MemoryError: they do not.
        """
        return  # of one network, or a guide, for each sample: they fit where the samples do

    @abstractmethod
    def _fit(self, model: BayesianFlow, data: TrainingData) -> Posterior:
        """The posterior of a prepared model on checked data."""

    def _searched(
        self, model: BayesianFlow, events: EventsLike, weights: Any, context: Any, start: Posterior | None
    ) -> Posterior | None:
        """What :meth:`fit` gives where it is a search for one of the settings, by many fits; None where it is not."""
        return None

    def _many_searched(
        self, model: BayesianFlow, samples: Samples, context: Samples | None, executor: Any = None
    ) -> list[Posterior] | None:
        """The same of :meth:`fit_many`."""
        return None

    def _check_going_on(self, start: Posterior, model: BayesianFlow) -> None:
        """Check that a run can go on from a posterior, which is then ``data.start``.

        Raises:
            ValueError: it cannot.
        """
        raise ValueError(f"{type(self).__name__} cannot go on from a posterior; leave start out")

    def _check_prior(self, prior: Posterior, start: Posterior | None) -> None:
        """Check that a run can have a posterior for its prior.

        Raises:
            ValueError: it cannot.
        """
        raise ValueError(
            f"prior is for pg.SVI; for {type(self).__name__} give the model another prior by "
            "posterior.model.with_prior(centres, scales)"
        )

    def _check_batch(self, samples: Samples) -> None:
        """Check that samples can be one batch.

        Raises:
            NotBatchedError: they cannot.
        """
        if type(self)._fit_many is Backend._fit_many:
            raise NotBatchedError(f"{type(self).__name__} is not batched over samples")
        reason = why_apart(samples)
        if reason is not None:
            raise NotBatchedError(reason)

    def _fit_many(self, model: BayesianFlow, data: ManySamples) -> list[Posterior]:
        """The posteriors of a prepared model on R checked samples in one batch, for backends that can.

        Raises:
            NotBatchedError: they cannot be one batch.
        """
        raise NotBatchedError("without a method of its own, a backend trains on one sample after another")

    def _fit_apart(
        self, model: BayesianFlow, samples: Samples, reason: str, context: Samples | None = None, executor: Any = None
    ) -> list[Posterior]:
        """A posterior for every sample, each from a run of its own."""
        model = prepare_together(model, samples, self.dtype, self.device, context)
        return fit_apart(self, model, samples, reason, context, executor)

    def _own_checkpoint(self, part: int | str) -> Path | None:
        """The checkpoint of a part of the work that is a run of its own, such as that on sample ``part``."""
        if self.checkpoint is None:
            return None
        path = Path(self.checkpoint)
        return path.with_name(f"{path.stem}.{part}{path.suffix}")

    def _check_single_runs(self) -> None:
        """Check that a batch does not begin anew what was begun sample by sample, as earlier versions did.

        Raises:
            CheckpointMismatchError: there are checkpoints of single samples, and none of the batch.
        """
        first = self._own_checkpoint(0)
        if self.checkpoint is not None and first is not None and first.exists() and not Path(self.checkpoint).exists():
            raise CheckpointMismatchError(
                f"{first} belongs to samples that were trained one after another; here they are one "
                "batch. Give another checkpoint file, or delete those of the single samples to begin anew"
            )

    def _check_run(self) -> None:
        """Check before any work that the settings can be told and the files of the run be written."""
        self.describe()
        if self.checkpoint is not None:
            check_writable(self.checkpoint)

    def _posterior(
        self, model: BayesianFlow, weights: WeightPosterior, history: History, data: TrainingData, **entries: Any
    ) -> Posterior:
        """Build the posterior with its :class:`~pyrogen.posterior.RunInfo`; ``entries`` are the run's own of that."""
        info = RunInfo(
            backend=type(self).__name__,
            settings=self.describe(),
            names=data.names,
            units=data.units,
            context_range=data.context_range,
            findings=(*data.findings, *entries.pop("findings", ())),
            started_from=None if data.start is None else told_of(data.start),
            prior_from=None if data.prior is None else told_of(data.prior),
            device=told(self.device),
            context_names=data.context_names,
            **{"data_sha256": data.digest} | entries,
        )
        probes = Probes.of(data.events, data.context)
        return Posterior(model, weights, history, info, progress=self.progress, probes=probes)
