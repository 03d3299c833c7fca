"""The training on a stream: rounds of new events and steps, schedule, snapshots, drift, checkpoint, progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrogen.bayes.model import BayesianFlow
from pyrogen.events import EventSample
from pyrogen.inference.problems import TrainingDivergedError, report
from pyrogen.inference.run.checkpoint import (
    CheckpointMismatchError,
    load_checkpoint,
    run_identity,
    save_checkpoint,
)
from pyrogen.inference.run.data import TrainingData
from pyrogen.inference.run.repeats import told
from pyrogen.inference.run.stopping import SafePoints
from pyrogen.inference.run.stream import Feed, Rows, Seen
from pyrogen.inference.run.stream_buffer import EventBuffer
from pyrogen.inference.run.stream_curve import OpenCurve
from pyrogen.inference.run.stream_drift import Alarm, Drift
from pyrogen.inference.run.stream_learner import Learner
from pyrogen.posterior.info import Finding
from pyrogen.posterior.posterior import Posterior
from pyrogen.posterior.weights import WeightPosterior, make_weights
from pyrogen.progress import Bar, bar
from pyrogen.seeds import manual_seed, stream

ROUNDS = 16  # rounds in which as many events come in as the buffer holds
SCORED = 256  # events of a round whose density is found before they are trained on
FROZEN_AFTER = 2  # buffers, after which the drift test begins
WARMUP = 100  # steps over which the rates rise
MOST_SKIPPED = 20  # steps in a row without a finite gradient, before the training is given up
SKIPPED_AT_ONCE = 65_536  # events of a stream that a resumed run reads at a time
CHECKPOINT_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class StreamSettings:
    """What a training on a stream is asked for, besides the settings of its backend; see ``fit_stream``."""

    buffer: int = 10_000
    passes: int = 10
    decay_after: int = 2_000
    snapshots: tuple[int, ...] | None = None
    drift: float | None = 0.01


Maker = Callable[[BayesianFlow, TrainingData, EventBuffer], Learner]


class StreamRun:
    """One training on a stream.

    A round takes new events into the buffer, as many as there are free places for (a sixteenth of it), and steps until
    there are as many free places again. The state is whole between two rounds.

    Args:
        backend: the settings of the backend.
        settings: those of the stream.
        model: the Bayesian flow.
        stream: the batches.
        maker: makes what learns.
        label: name of the progress bar.
    """

    def __init__(
        self,
        backend: Any,
        settings: StreamSettings,
        model: BayesianFlow,
        stream: Iterable[Any],
        maker: Maker,
        label: str,
    ) -> None:
        self.backend, self.settings, self.maker, self.label = backend, settings, maker, label
        self.feed = Feed(model, stream)
        self.seen = Seen()  # at the end of the last round
        self.digest = ""
        self.round = self.step = self.skipped = self.in_a_row = 0
        self.curve = OpenCurve(
            ("nll", "kl", "fresh_nll"),
            ("events_seen", "effective_size", "steps", "learning_rate", "skipped_steps", "seconds"),
        )
        self.snapshots: dict[int, WeightPosterior] = {}
        self.unready: dict[str, list[dict[str, Any]]] = {}  # what is wrong with them, by the number of events
        self.frozen: Tensor | None = None
        self.ended = False
        self._began, self._saved = time.monotonic(), time.monotonic()
        self._begin(model)

    def _begin(self, model: BayesianFlow) -> None:
        """Fill the buffer, prepare the model for what is in it, and take up a checkpoint if there is one."""
        first = self.feed.take(self.settings.buffer)
        if first is None:
            raise ValueError("stream gave no events")
        names, units = self.feed.names, self.feed.units
        sample = EventSample(first.events, names, units, multiplicity=model.multiplicity)
        context = first.context
        if context is not None and self.feed.context_names is not None:
            context = EventSample(context, self.feed.context_names)  # type: ignore[assignment]
        model, self.data = self.backend.checked(model, sample, first.weights, context)
        self.model, self.feed.prepared = model, model
        self.feed.spread = first.events.std(0, correction=0).nan_to_num(0.0)
        self.buffer = EventBuffer(first, self.settings.passes, model.input_dtype, model.dtype, model.device)
        self.learner = self.maker(model, self.data, self.buffer)
        self.batch_size = min(self.backend.batch_size, len(first))
        self.gulp = max(1, len(first) // ROUNDS)
        labels = names or tuple(f"x{i}" for i in range(first.events.shape[1]))
        conditions = () if context is None else self.feed.context_names or range(first.context.shape[1])  # type: ignore[union-attr]
        self.drift = Drift(
            [*labels, *(f"condition {name}" for name in conditions), "log p"], self.settings.drift or 0.0
        )
        described = {name: str(value) for name, value in asdict(self.settings).items()}
        self.identity = run_identity(
            self.backend.describe(), model, self.data, backend=type(self.backend).__name__, stream=described
        )
        self.learner.admit(first, 0)
        self._mark()
        self._resume()

    def run(self, max_events: int | None) -> Posterior:
        """Train to the end of the stream, or until another round would exceed ``max_events``."""
        shown = bar(max_events, self.label, " events", show=self.backend.progress, done=self.seen.events, scaled=True)
        with shown:
            if self.round == 0:
                self._guarded(None, shown)
            try:
                self._follow(max_events, shown)
            except BaseException:
                self.save()
                raise
            if self.ended:  # what is in the buffer is used up
                self._step_until(lambda: len(self.buffer.left) - self.buffer.free < self.batch_size)
            else:
                self.save()
        return self._posterior()

    def _follow(self, max_events: int | None, shown: Bar[Any]) -> None:
        while not self.ended:
            wanted = self._wanted()
            if max_events is not None and self.seen.events + wanted > max_events:
                break
            fresh = self.feed.take(wanted)  # Ctrl-C acts at once where a stream lets us wait
            self.ended = fresh is None or len(fresh) < wanted
            if self.ended:
                self.save()  # a stream that is longer next time goes on from here, as if it had always been
            if fresh is not None:
                self._guarded(fresh, shown)

    def _guarded(self, fresh: Rows | None, shown: Bar[Any]) -> None:
        """A round in which signals wait."""
        with SafePoints(self.save) as safe_point:
            before = self.seen.events
            row = self._take_in(fresh)
            shown.update(self.feed.seen.events - before)
            if row["nll"] == row["nll"]:  # a round without a step has none
                shown.set_postfix_str(f"nll {row['nll']:.4f}, KL/N {row['kl']:.4f}", refresh=False)
            if not self.ended and time.monotonic() - self._saved > CHECKPOINT_SECONDS:
                self.save()
            safe_point()

    def _wanted(self) -> int:
        """Events of the next round: it stops at the number of a snapshot."""
        return min(self.gulp, self._next_snapshot() - self.seen.events)

    def _next_snapshot(self) -> int:
        """Number of events after which the posterior is kept next."""
        asked, seen = self.settings.snapshots, self.seen.events
        if asked is None:
            return 2 * max(self.snapshots)
        return next((n for n in asked if n > seen), seen + self.gulp)

    def _take_in(self, fresh: Rows | None) -> dict[str, float]:
        """One round; returns its figures."""
        self._whole = False
        # Every round has random numbers of its own, so that a checkpoint needs none.
        manual_seed(stream(self.backend.seed, "round", self.round), self.backend.device)
        fresh_nll = float("nan")
        if fresh is not None:
            fresh_nll = self._look_at(fresh[:SCORED])
            first = self.feed.seen.events - len(fresh)
            self.buffer.add(fresh, first)
            self.learner.admit(fresh, first)
        nll, kl = self._step_until(lambda: self.buffer.free >= self.gulp)
        self.round += 1
        self._mark()
        row = {
            "nll": nll,
            "kl": kl,
            "fresh_nll": fresh_nll,
            "events_seen": self.seen.events,
            "effective_size": self.seen.effective_size,
            "steps": self.step,
            "learning_rate": self._rate(self.step - 1),
            "skipped_steps": self.skipped,
            "seconds": time.monotonic() - self._began,
        }
        self.curve.append(row)
        self._keep_now_and_then()
        return row

    def _rate(self, step: int) -> float:
        """Factor on the learning rates: it rises over :data:`WARMUP` steps, and falls as ``1 / sqrt(1 + t / t0)``."""
        return min(1.0, (step + 1) / WARMUP) / (1 + step / self.settings.decay_after) ** 0.5

    def _step_until(self, done: Callable[[], bool]) -> tuple[float, float]:
        """Steps until it is done; returns the mean loss and KL per event."""
        nll, kl, backend = [], [], self.backend
        seen = self.feed.seen
        while not done():
            rate = self._rate(self.step)
            found = self.learner.step(self.buffer.draw(self.batch_size), seen, rate, self.step)
            self.step += 1
            self.learner.average(self.step)
            bad = int((~found.finite).sum())
            self.skipped, self.in_a_row = self.skipped + bad, (self.in_a_row + 1 if bad == len(found.finite) else 0)
            if self.in_a_row >= MOST_SKIPPED:
                raise TrainingDivergedError(
                    f"after {seen.events} events of the stream the loss or its gradient was NaN or infinite in "
                    f"{self.in_a_row} steps in a row; try a smaller lr (now {backend.lr}), with another checkpoint "
                    "file if there is one"
                )
            nll.append(float(found.nll[found.finite].mean()) if bad < len(found.finite) else float("nan"))
            kl.append(float(found.kl[found.finite].mean()) if bad < len(found.finite) else float("nan"))
        return _mean(nll), _mean(kl)

    @torch.no_grad()
    def _look_at(self, fresh: Rows) -> float:
        """Find the loss of events before they are trained on, and whether they differ from the first ones."""
        device, dtype = self.model.device, self.model.input_dtype
        events = fresh.events.to(device, dtype)
        context = None if fresh.context is None else fresh.context.to(device, dtype)
        log_prob = self.model.log_prob(self.learner.centre(), events, context).double().cpu()
        weights = torch.ones(len(fresh)).double() if fresh.weights is None else fresh.weights
        if self.settings.drift is not None:
            if self.frozen is None and self.feed.seen.events >= FROZEN_AFTER * len(self.buffer.left):
                self.frozen = self.learner.centre().clone()
            if self.frozen is not None:
                frozen = self.model.log_prob(self.frozen, events, context).double().cpu()
                columns = [fresh.events, *(() if fresh.context is None else (fresh.context,)), frozen[:, None]]
                own = None if fresh.weights is None else fresh.weights.numpy()
                alarm = self.drift.add(torch.cat(columns, 1).numpy(), own, self.feed.seen.events)
                if alarm is not None and self.drift.raised == 1:
                    report([self._drifted(alarm)])
        total = float(weights.sum())
        return -float((weights * log_prob).sum()) / total if total > 0 else float("nan")

    def _keep_now_and_then(self) -> None:
        """Keep the posterior at powers of two of the buffer, or at the numbers of events that were asked for."""
        seen, asked = self.seen.events, self.settings.snapshots
        due = seen in asked if asked is not None else seen == 2 * max(self.snapshots, default=seen / 2)
        if due:
            self.snapshots[seen] = self.learner.weights()
            found = [asdict(finding) for finding in self.learner.findings(self.step)]
            self.unready |= {str(seen): found} if found else {}

    def _mark(self) -> None:
        """The state is whole: up to here a checkpoint may hold it."""
        self._whole = True
        self.seen, self.digest, self._repeats = self.feed.seen, self.feed.digest, self.feed.repeats.now()

    def save(self) -> None:
        """Write the checkpoint, if there is to be one, of the state at the end of the last round."""
        if self.backend.checkpoint is None or self.round == 0 or not self._whole:
            return
        state = {
            "round": self.round,
            "step": self.step,
            "skipped": self.skipped,
            "in_a_row": self.in_a_row,
            "seen": asdict(self.seen),
            "digest": self.digest,
            "repeats": told(self._repeats),
            "drift": self.drift.state(),
            "curve": self.curve.state(),
            "seconds": time.monotonic() - self._began,
            "snapshots": [[n, its.family] for n, its in self.snapshots.items()],
            "unready": self.unready,
        }
        parts = {
            "learner": self.learner.tensors(),
            "averaged": {str(i): each for i, each in enumerate(self.learner.averaged)},
            "buffer": self.buffer.tensors(),
            "drift": {name: torch.from_numpy(each) for name, each in self.drift.arrays().items()},
            "frozen": {} if self.frozen is None else {"theta": self.frozen},
        } | {f"snapshot_{n}": its.arrays for n, its in self.snapshots.items()}
        tensors = {f"{part}.{name}": value for part, its in parts.items() for name, value in its.items()}
        save_checkpoint(self.backend.checkpoint, self.identity, state, tensors)
        self._saved = time.monotonic()

    def _resume(self) -> None:
        """Take up the checkpoint, if there is one, and read the stream up to where it was."""
        path = self.backend.checkpoint
        found = None if path is None else load_checkpoint(path, self.identity)
        if found is None:
            return
        state, tensors = found
        self.seen, self.digest = Seen(**state["seen"]), state["digest"]
        self._skip(path)
        self.feed.seen = self.seen
        self.feed.repeats.load(state["repeats"])
        self._repeats = self.feed.repeats.now()
        parts: dict[str, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            part, _, rest = name.partition(".")
            parts.setdefault(part, {})[rest] = value
        for name in ("round", "step", "skipped", "in_a_row"):
            setattr(self, name, state[name])
        self.unready = state.get("unready", {})  # a file of before has none
        self.learner.load(parts["learner"])
        averaged = parts["averaged"]
        self.learner.averaged = [averaged[str(i)].to(self.model.device) for i in range(len(averaged))]
        self.buffer.load(parts["buffer"])
        self.drift.load(state["drift"], {name: value.numpy() for name, value in parts["drift"].items()})
        self.frozen = parts["frozen"]["theta"].to(self.model.device) if "frozen" in parts else None
        self.curve.load(state["curve"])
        self._began = time.monotonic() - state["seconds"]
        for n, family in state["snapshots"]:
            arrays = {name: value.to(self.model.device) for name, value in parts[f"snapshot_{n}"].items()}
            self.snapshots[n] = make_weights(family, arrays)

    def _skip(self, path: Any) -> None:
        """Read the events that the run had seen when it was saved, and check that they are the same.

        Raises:
            CheckpointMismatchError: they are not.
        """
        left = self.seen.events - self.feed.seen.events
        self.feed.repeats.active = False
        with bar(left, f"{self.label}: events seen before", " events", show=self.backend.progress, brief=True) as shown:
            while left > 0:
                rows = self.feed.take(min(left, SKIPPED_AT_ONCE))
                if rows is None:
                    raise CheckpointMismatchError(
                        f"the checkpoint {path} has seen {self.seen.events} events, and this stream ends after "
                        f"{self.feed.seen.events}; give the whole stream, from its beginning"
                    )
                left -= len(rows)
                shown.update(len(rows))
        self.feed.repeats.active = True
        if self.feed.digest != self.digest:
            raise CheckpointMismatchError(
                f"the checkpoint {path} belongs to another stream: the first {self.seen.events} events differ from "
                "those that it has seen. Give the same stream from its beginning, or another checkpoint file"
            )

    def _posterior(self) -> Posterior:
        """The result of the run."""
        seen, drift = self.seen, self.drift
        findings = [self._drifted(drift.alarms[0])] if drift.alarms else []
        if self.feed.repeats.found_after is not None:
            finding = _repeated(self.feed.repeats.found_after)
            report([finding])
            findings.append(finding)
        late = list(self.learner.findings(self.step))
        report(late)
        findings += late
        own = self.learner.told()
        details = {
            **own.pop("details", {}),
            "stream": {
                "buffer": len(self.buffer.left),
                "passes": self.settings.passes,
                "steps": self.step,
                "snapshots": list(self.snapshots),
                "findings_of_snapshots": self.unready,
                "drift_windows": drift.tested,
                "drift_alarms": drift.raised,
                "to_its_end": self.ended,
            },
        }
        posterior = self.backend._posterior(
            self.model,
            self.learner.weights(),
            self.curve.history(),
            replace(self.data, digest=self.feed.digest),
            findings=tuple(findings),
            details=details,
            training_events=seen.events,
            effective_size=seen.effective_size,
            gradients=self.step * self.batch_size / seen.events,
            seconds=time.monotonic() - self._began,
            **own,
        )
        if self.feed.context_range is not None:
            limits = tuple((float(low), float(high)) for low, high in self.feed.context_range)
            posterior.info = replace(posterior.info, context_range=limits)
        posterior.snapshots = self.snapshots
        return self.learner.finish(posterior)

    def _drifted(self, alarm: Alarm) -> Finding:
        column = alarm.column if alarm.column != "log p" else "log p under the model of the first events"
        more = f" ({self.drift.raised} of {self.drift.tested} windows differ)" if self.drift.raised > 1 else ""
        return Finding(
            "the events change",
            f"up to event {alarm.events_seen} the stream had a window in which {column} differs from the "
            f"first events: distance {alarm.distance:.3f}, p-value {alarm.p_value:.1e}{more}; stationary events give "
            f"an alarm in {self.settings.drift:.2g} of all streams",
            "The posterior is one of a mixture, with the latest events first. Find out what changed, and begin anew "
            "from there",
        )


def _repeated(after: int) -> Finding:
    return Finding(
        "events come again",
        f"about event {after} more than half of the events had come before, though not in the same order",
        "If the values are rounded this is no harm. If the stream gives events again, sigma is too small: give each "
        "event once",
        serious=False,
    )


def _mean(values: list[float]) -> float:
    good = [value for value in values if value == value]
    return float(np.mean(good)) if good else float("nan")
