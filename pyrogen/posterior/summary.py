"""What one has to know of a posterior, on one screen: the verdict first, then how it came about."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyrogen.hdf5 import package_versions
from pyrogen.posterior.info import Finding, History, RunInfo
from pyrogen.printing import LINE, Brief, Shown, brief, data_size, listed

#: Curves of a training or of chains, of which the first that there is tells how it went.
CURVES = {"loss": "loss", "nll": "nats per event", "potential": "potential"}
INCIDENTAL = ("progress", "checkpoint")


@dataclass(frozen=True, kw_only=True, repr=False)
class PosteriorSummary(Brief):
    """A posterior in words and numbers; ``print`` shows them as a table, the verdict first.

    Attributes:
        verdict: whether sigma may be used, in one sentence.
        backend: name of the backend.
        settings: its settings that decide the result, in JSON types.
        flow: the flow, in a line.
        columns: names of the columns, with units where they have any.
        training_events: number of training events; None where it is not known.
        effective_size: of weighted events; None where it is not known.
        validation_events: number of events held out.
        weights: number of weights P.
        family: what the distribution of the weights is.
        draws: number of stored draws; None for a distribution, which has any number.
        loss: name, first and last value of the training curve, or of the potential of chains (means over these);
            None where the backend keeps no such curve.
        calibration: whether sigma is calibrated.
        findings: what was found wrong at the end of the run.
        memory: bytes that the distribution of the weights takes.
        seconds: duration of the run; None where it is not known.
        device: where the posterior is.
        versions: of this session, by package. Files do not tell with which versions a posterior was trained.
    """

    verdict: str
    backend: str
    settings: Mapping[str, Any]
    flow: str
    columns: tuple[str, ...]
    training_events: int | None
    effective_size: float | None
    validation_events: int
    weights: int
    family: str
    draws: int | None
    loss: tuple[str, float, float] | None
    calibration: str
    findings: tuple[Finding, ...]
    memory: int
    seconds: float | None
    device: str
    versions: Mapping[str, str]

    @classmethod
    def of(cls, posterior: Any) -> PosteriorSummary:
        """The summary of a posterior; nothing is computed that takes time."""
        info, weights, flow = posterior.info, posterior.weights, posterior.model.flow
        units = zip(posterior.names, posterior.units, strict=True)
        return cls(
            verdict=verdict_of(info),
            backend=info.backend,
            settings={name: value for name, value in info.settings.items() if name not in INCIDENTAL},
            flow=repr(flow) if isinstance(flow, Shown) else type(flow).__name__,
            columns=tuple(f"{name} [{unit}]" if unit else name for name, unit in units),
            training_events=info.training_events,
            effective_size=info.effective_size if info.is_weighted else None,
            validation_events=info.validation_events,
            weights=weights.size,
            family=weights.family,
            draws=weights.stored,
            loss=_course(posterior.history),
            calibration=info.note,
            findings=info.findings,
            memory=sum(array.numel() * array.element_size() for array in weights.arrays.values()),
            seconds=info.seconds,
            device=str(posterior.device),
            versions=package_versions(),
        )

    def _summary(self) -> str:
        events = "unknown number of" if self.training_events is None else f"{self.training_events:,}"
        return f"{self.verdict}; {self.backend}, {self.weights:,} weights, {events} training events"

    def _facts(self) -> dict[str, Any]:
        found = {"verdict": self.verdict}
        for finding in self.findings:
            name = f"{'! ' if finding.serious else ''}{finding.problem}"
            found[name] = f"{finding.found}. {finding.advice}."
        events = "not known" if self.training_events is None else f"{self.training_events:,}"
        if self.effective_size is not None:
            events += f" with weights, as good as {self.effective_size:,.0f} without"
        if self.validation_events:
            events += f", and {self.validation_events:,} held out"
        drawn = "" if self.draws is None else f", {self.draws:,} stored draws"
        found |= {
            "sigma": self.calibration,
            "backend": self.backend,
            "settings": ", ".join(f"{name}={brief(value)}" for name, value in self.settings.items()) or "not known",
            "flow": self.flow,
            "columns": listed(self.columns, 200),
            "events": events,
            "weights": f"{self.weights:,}, {self.family.replace('_', ' ')}{drawn}",
        }
        if self.loss is not None:
            name, first, last = self.loss
            found[name] = f"{last:.6g} at the end, {first:.6g} at the start"
        found["memory"] = f"{data_size(self.memory)} for the weights, on {self.device}"
        found["time"] = "not known" if self.seconds is None else f"{self.seconds:,.3g} s"
        found["versions"] = ", ".join(f"{name} {version}" for name, version in self.versions.items()) + " (now)"
        return found

    def text(self) -> str:
        """All of it, one line for every fact."""
        facts = self._facts()
        width = min(max(map(len, facts)), 24)
        margin = "\n" + " " * (width + 2)
        return "\n".join(f"{name:{width}}  {margin.join(textwrap.wrap(fact, LINE))}" for name, fact in facts.items())

    def _details(self) -> str:
        return ""  # the table says it all


def verdict_of(info: RunInfo) -> str:
    """Whether sigma may be used, in one sentence."""
    serious = [finding.problem for finding in info.findings if finding.serious]
    if serious:
        return f"do not use sigma: {'; '.join(serious)}"
    others = len(info.findings)
    found = "nothing serious found" if info.training_events is not None else "nothing known of its training"
    known = f"{found}, {others} {'remark' if others == 1 else 'remarks'}" if others else found
    if not info.is_posterior:
        return f"{known}; the networks are single trainings, no draws of a posterior"
    return f"{known}; sigma is {info.note}"


def _course(history: History) -> tuple[str, float, float] | None:
    """Name, first and last value of the curve that tells how the run went; means over chains or networks."""
    for name, label in CURVES.items():
        values = np.asarray(history.get(name, ()), dtype=np.float64)
        if values.size:
            curve = values.reshape(-1, values.shape[-1]).mean(0) if values.ndim else values.reshape(1)
            return label, float(curve[0]), float(curve[-1])
    return None
