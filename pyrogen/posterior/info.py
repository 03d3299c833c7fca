"""How a posterior came about, and what is wrong with it: records, turned into words and JSON at the edges only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pyrogen.posterior.calibrated import KNOBS, CalibrationRecord, note_of
from pyrogen.posterior.records import check, record_of
from pyrogen.printing import Shown

#: Curves of a run, or statistics of its draws, by name.
History = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Finding(Shown):
    """Something that is wrong with a posterior, or that one has to know of it.

    Attributes:
        problem: what, in a few words.
        found: the figures, and where.
        advice: what to try.
        serious: True if the uncertainty should not be used.
    """

    problem: str
    found: str
    advice: str
    serious: bool = True

    def __str__(self) -> str:
        return f"{self.problem}: {self.found}. {self.advice}."


@dataclass(frozen=True, kw_only=True, repr=False)
class RunInfo(Shown):
    """How a posterior came about: the same entries for every backend, None where a backend has no such thing.

    Attributes:
        backend: name of the backend.
        settings: its settings that decide the result, in JSON types.
        names, units: column names and units of the training events, where these had them.
        context_names: column names of the conditions, where these had them.
        data_sha256: digest of the training data.
        training_events: number N of training events.
        validation_events: number of events held out.
        effective_size: ``(sum w)^2 / sum w^2`` of weighted events, N of others.
        context_range: lowest and highest training condition, by column.
        exact: whether the draws follow the posterior exactly, given time.
        tempered: True if the target is the posterior to a power other than 1 (``kl_weight`` or ``temperature`` not 1).
        reweighted: True if the events were weighted by what a discriminator says (:class:`~pyrogen.DiscFlow`): the
            likelihood is then no longer that of the events, and sigma no longer that of their posterior.
        is_posterior: whether the draws stand for a posterior at all; those of an ensemble are single trainings.
        local_reparameterization: whether activations were drawn per event; None outside of variational inference.
        local_reparameterization_reason: why it was used or not.
        batching: whether one gradient served all chains, or why it did not.
        launch: whether a step was one launch on a card, or why it ran operation by operation.
        compiled: whether the flow's steps were compiled, or why not; None where nobody asked.
        chains: number of chains.
        epochs_done: passes over the events.
        kept_epoch: the epoch that the result is from.
        gradients: gradient evaluations, in passes over the sample of every chain or network.
        seconds: duration of the run.
        device: where it ran, ``"cpu"`` or a card such as ``"cuda:0 (NVIDIA H100)"``; None in files that do not tell.
        sample, samples: which of how many samples of a ``fit_many`` this is.
        batched: whether these samples were trained in one batch.
        batched_reason: why not.
        started_from: of a run that went on from another posterior, what that one was: backend, seed, data, and what
            it was started from itself. All other entries, and the history, are of the last run alone.
        prior_from: of a run whose prior was another posterior, what that one was, likewise. N is that of the new
            events alone.
        calibration: how often its intervals held the truth where that is known, see :func:`pyrogen.calibrate`; None:
            nobody tried, and sigma is not calibrated.
        findings: what was found wrong at the end of the run.
        details: figures that this backend alone has, by names that its documentation explains, in JSON types.
    """

    backend: str = "unknown backend"
    settings: Mapping[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] | None = None
    units: tuple[str, ...] | None = None
    context_names: tuple[str, ...] | None = None
    data_sha256: str | None = None
    training_events: int | None = None
    validation_events: int = 0
    effective_size: float | None = None
    context_range: tuple[tuple[float, float], ...] | None = None
    exact: bool = False
    tempered: bool = False
    reweighted: bool = False
    is_posterior: bool = True
    local_reparameterization: bool | None = None
    local_reparameterization_reason: str | None = None
    batching: str | None = None
    launch: str | None = None
    compiled: str | None = None
    chains: int | None = None
    epochs_done: int | None = None
    kept_epoch: int | None = None
    gradients: float | None = None
    seconds: float | None = None
    device: str | None = None
    sample: int | None = None
    samples: int | None = None
    batched: bool | None = None
    batched_reason: str | None = None
    started_from: Mapping[str, Any] | None = None
    prior_from: Mapping[str, Any] | None = None
    calibration: CalibrationRecord | None = None
    findings: tuple[Finding, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        events = "?" if self.training_events is None else f"{self.training_events:,}"
        found = f"{len(self.findings)} findings" if self.findings else "no findings"
        return f"RunInfo({self.backend}, {events} training events, {found}; print it for all entries)"

    def __str__(self) -> str:
        """One line for every entry that is known."""
        told = {name: value for name, value in vars(self).items() if value not in (None, (), {}) and name != "findings"}
        lines = [f"{name}: {value}" for name, value in (told | {"calibration": self.calibration or self.note}).items()]
        return "\n".join(["RunInfo", *lines, *(f"finding: {finding}" for finding in self.findings)])

    @property
    def warnings(self) -> tuple[str, ...]:
        """The findings in words."""
        return tuple(map(str, self.findings))

    @property
    def note(self) -> str:
        """Whether sigma is calibrated, in a few words, as figures and ``repr`` show it."""
        return note_of(self.calibration)

    @property
    def is_weighted(self) -> bool:
        """Whether the training events had weights that matter."""
        return None not in (self.effective_size, self.training_events) and self.effective_size != self.training_events

    @property
    def size(self) -> float | None:
        """Number of training events, of weighted ones their effective number; None where it is not known."""
        return self.training_events if self.effective_size is None else self.effective_size

    @property
    def event_power(self) -> float | None:
        """Power ``1/T`` to which every event's density counts; 1 without tempering, None where T is not known."""
        if not self.tempered:
            return 1.0
        temperature = next((self.settings[knob] for knob in KNOBS if knob in self.settings), None)
        return None if temperature is None else 1 / float(temperature)

    @property
    def leave_one_out_obstacle(self) -> str | None:
        """Why a training event cannot be left out by importance weights; None where it can, by ``p^(-event_power)``."""
        if not self.is_posterior:
            return f"the networks of {self.backend} are single trainings, not draws of a posterior"
        if self.reweighted:
            return "a discriminator weighted the events of the training, each in its own way at every step"
        if self.is_weighted:
            return "the training events had weights w, and leaving one out would take the ratios p^(-w)"
        if self.event_power is None:
            return "the posterior is tempered, but its settings do not tell the temperature"
        return None

    def to_json(self) -> dict[str, Any]:
        """All of it in JSON types, without what is not known."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """What :meth:`to_json` made; also of the files of version 1, whose entries differed by backend.

        Raises:
            ValueError: an entry that does not exist, or has another type, by name.
        """
        check(isinstance(content, Mapping), "info", content, "a mapping")
        given = dict(content)
        return record_of(cls, given if "findings" in given else _of_version_1(given), "info")


def as_of(info: RunInfo, history: History, events_seen: int) -> tuple[RunInfo, History]:
    """The record and the curves of a training on a stream, as they were after so many events.

    The findings of then come first: widths that had not grown, for instance.
    """
    until = history["events_seen"] <= events_seen
    earlier = {name: values[until] for name, values in history.items()}
    size = earlier["effective_size"][-1] if until.any() else None
    if info.training_events == info.effective_size:  # without weights
        size = float(events_seen)
    findings = (*findings_of(info, events_seen), *info.findings)
    one_of_each = tuple({finding.problem: finding for finding in reversed(findings)}.values())[::-1]
    return replace(info, training_events=events_seen, effective_size=size, findings=one_of_each), earlier


def findings_of(info: RunInfo, events_seen: int) -> tuple[Finding, ...]:
    """What was wrong with a training on a stream after so many events, when its posterior was kept."""
    kept = info.details.get("stream", {}).get("findings_of_snapshots", {})
    return tuple(Finding(**finding) for finding in kept.get(str(events_seen), ()))


def _of_version_1(content: dict[str, Any]) -> dict[str, Any]:
    """Entries of a file of version 1: those that only one backend had become details, warnings in prose findings."""
    content = {name: value for name, value in content.items() if value is not None}
    warnings, known = content.pop("warnings", []), {entry.name for entry in fields(RunInfo)}
    settings = dict(content.get("settings", {}))
    if "epochs" in settings and "warmup" in settings:  # of variational inference
        settings["lr_warmup"] = settings.pop("warmup")
        content["settings"] = settings
    content["batching"] = content.pop("chains_batched", None)
    details = {name: content.pop(name) for name in list(content) if name not in known}
    findings = []
    for warning in warnings:
        found, _, advice = warning.partition(". ")
        findings.append(asdict(Finding("warning of the run", found, advice.rstrip(".") or "Look at the chains")))
    if "gradients" not in content and "epochs_done" in content:
        content["gradients"] = float(content["epochs_done"] * settings.get("num_particles", 1))
    told = {"findings": findings, "details": details, "is_posterior": content.get("backend") != "Ensemble"}
    return content | told | {"tempered": content.get("tempered", False) or settings.get("temperature", 1.0) != 1.0}
