"""Backends that can learn from a stream of events, each of which is seen while it is in a buffer and never again."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyro

from pyrogen.bayes.model import BayesianFlow
from pyrogen.checks import FRACTION, NATURAL, door, each, optional, require, whole
from pyrogen.inference.backend import MODEL, Backend
from pyrogen.inference.run.checkpoint import only_run
from pyrogen.inference.run.data import TrainingData
from pyrogen.inference.run.stopping import Terminated, end, terminable
from pyrogen.inference.run.stream_buffer import EventBuffer
from pyrogen.inference.run.stream_learner import Learner
from pyrogen.inference.run.stream_run import StreamRun, StreamSettings
from pyrogen.posterior.posterior import Posterior
from pyrogen.seeds import untouched
from pyrogen.threads import chosen_threads

MOST_SNAPSHOTS = 64


@dataclass(frozen=True, kw_only=True)
class Streaming(Backend):
    """A backend with :meth:`fit_stream`."""

    @door(
        model=MODEL,
        buffer=whole(2),
        passes=NATURAL,
        decay_after=NATURAL,
        snapshots=optional(each(NATURAL, "increasing numbers of events, such as (100_000, 1_000_000)", 1)),
        drift=optional(FRACTION),
        max_events=optional(NATURAL),
    )
    @chosen_threads()
    def fit_stream(
        self,
        model: BayesianFlow,
        stream: Iterable[Any],
        *,
        buffer: int = 10_000,
        passes: int = 10,
        decay_after: int = 2_000,
        snapshots: Sequence[int] | None = None,
        drift: float | None = 0.01,
        max_events: int | None = None,
    ) -> Posterior:
        """Learn from events that are seen while they are in a buffer, and never again (OnlineFlow, arXiv:2202.09375).

        Memory does not depend on the length of the stream. The constants of the preprocessing are those of the first
        ``buffer`` events; a later event that they cannot take is an error. The loss is that of :meth:`fit` with N the
        number of events seen up to now, of weighted events their effective number. ``docs/online.md`` says what that
        means for sigma.

        Args:
            model: the Bayesian flow; it is copied.
            stream: an iterator of batches of any size, each as ``events`` in :meth:`fit`, such as
                :func:`pyrogen.events.stream` gives. For a conditional flow each is a pair ``(events, context)``.
                Weights come with the events. All batches have the same columns; where they have names the order does
                not count.
            buffer: number of events in the buffer.
            passes: how often every event is used, at random moments while it is in the buffer. Only of the last events
                of a stream, fewer than a batch, some are used less.
            decay_after: steps t0 after which the learning rates fall: they are ``lr / sqrt(1 + t / t0)`` at step t,
                after a rise over the first 100 steps. Predictions use an average of the parameters over the last steps.
            snapshots: numbers of events after which the posterior is kept, at most 64, for :meth:`Posterior.at`; None:
                after 1, 2, 4, 8, ... times as many as the buffer holds.
            drift: probability of a false alarm in the whole stream of the test whether the events change; None: no
                test. An alarm is a warning, and a finding of the posterior.
            max_events: stop before the number of events seen exceeds this one; None: at the end of the stream. With a
                checkpoint the run goes on from there when it is repeated with a larger number, to the same bits.

        Returns:
            The posterior of the events seen. ``info.training_events`` says how many these are, its ``history`` has at
            most 512 points, and :meth:`Posterior.at` gives it as it was before.

        Raises:
            TypeError: a model that is no :class:`~pyrogen.BayesianFlow`, or a stream that is no iterator of batches.
            ValueError: an empty stream, settings that only a training with an end has, or a batch that cannot be
                learned from: the text says which, and after how many events.
            CheckpointMismatchError: the checkpoint belongs to another run, or to another stream.
            RepeatedStreamError: events come again in the same order, and would count twice.
            TrainingDivergedError: the loss or its gradient was NaN or infinite for many steps in a row.
            SamplingError: no three replicas of a bootstrap learned.
            PathInUseError: another process, or another part of this one, trains with this checkpoint.
            OSError: the checkpoint cannot be written.
            KeyboardInterrupt: Ctrl-C. The checkpoint is written first, and the text says how to go on.
        """
        if snapshots is not None:
            snapshots = tuple(snapshots)
            good = list(snapshots) == sorted(set(snapshots)) and len(snapshots) <= MOST_SNAPSHOTS
            require(good, "snapshots", snapshots, f"at most {MOST_SNAPSHOTS} increasing numbers of events")
            require(snapshots[0] >= buffer, "snapshots", snapshots, f"numbers from the buffer on, {buffer}")
        require(max_events is None or max_events >= buffer, "max_events", max_events, f"at least the buffer, {buffer}")
        settings = StreamSettings(
            buffer=buffer, passes=passes, decay_after=decay_after, snapshots=snapshots, drift=drift
        )
        self._check_stream()
        self._check_run()
        try:
            with (
                terminable(),
                only_run(self) as run,
                untouched(self.device),
                pyro.get_param_store().scope(),
            ):
                label = f"{type(self).__name__} on a stream"
                return StreamRun(run, settings, model, stream, run._learner, label).run(max_events)
        except (KeyboardInterrupt, Terminated) as stop:
            end(stop, type(self).__name__, self.checkpoint)

    def _check_stream(self) -> None:
        """Check that no setting is given that a stream has no use for.

        Raises:
            ValueError: one is.
        """
        for name in self._without_stream:
            default = type(self).__dataclass_fields__[name].default
            require(
                getattr(self, name) == default,
                name,
                getattr(self, name),
                "left out: fit_stream has no end to plan for; see its arguments, and docs/online.md",
            )

    @property
    def _without_stream(self) -> tuple[str, ...]:
        """Settings that only a training with an end has."""
        return ()

    @abstractmethod
    def _learner(self, model: BayesianFlow, data: TrainingData, buffer: EventBuffer) -> Learner:
        """What learns from a buffer, with a prepared model and the checked first events."""
