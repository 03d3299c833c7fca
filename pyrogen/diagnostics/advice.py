"""One call that looks at a posterior and says in words what is wrong with it, and what to try."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from pyrogen.bayes.inputs import as_tensor
from pyrogen.checks import COUNT, SEED, door, optional, shown, whole
from pyrogen.diagnostics import look_at_calibration, look_at_events, look_at_run
from pyrogen.diagnostics.look import Look, NotCheckedError
from pyrogen.events import EventSample, EventsLike
from pyrogen.events.doors import EVENTS, ROWS
from pyrogen.posterior.info import Finding
from pyrogen.posterior.posterior import POSTERIOR, Posterior
from pyrogen.printing import Brief

Check = Callable[[Look], Iterator[Finding]]

#: Findings that make the numbers no result yet.
NOT_CONVERGED = {
    "chains apart",
    "few effective draws",
    "guide collapsed to its initial width",
    "loss still falling",
    "short training",
    "the chain drifts",
    "the chains disagree",
    "widths still growing",
}


@dataclass(frozen=True, repr=False)
class Advice(Brief):
    """What :func:`advise` found.

    Attributes:
        findings: problems, the serious ones first; those that the run itself noted among them.
        checked: what was looked at.
        unchecked: what was not, and why.
    """

    findings: tuple[Finding, ...]
    checked: tuple[str, ...]
    unchecked: tuple[str, ...] = ()

    def _summary(self) -> str:
        found = [f"{'! ' * finding.serious}{finding.problem}" for finding in self.findings] or ["nothing was found"]
        return "; ".join(found)

    @property
    def ok(self) -> bool:
        """Whether nothing serious was found."""
        return not any(finding.serious for finding in self.findings)

    @property
    def converged(self) -> bool:
        """Whether nothing says that the run had to go on."""
        return not any(finding.serious and finding.problem in NOT_CONVERGED for finding in self.findings)

    def __contains__(self, problem: object) -> bool:
        return any(finding.problem == problem for finding in self.findings)

    def text(self) -> str:
        """All of it, to be printed."""
        lines = []
        for finding in self.findings:
            mark = "!" if finding.serious else "-"
            lines += textwrap.wrap(
                f"{mark} {finding}",
                100,
                subsequent_indent="  ",
                break_on_hyphens=False,
            )
        if not self.converged:
            lines.insert(0, "Not converged: these numbers are no result yet.")
        elif self.ok:
            lines.insert(0, "Nothing serious was found. Only coverage tells whether sigma is right.")
        lines.append("Checked: " + ", ".join(self.checked) + ".")
        if self.unchecked:
            lines.append("Not checked: " + "; ".join(self.unchecked) + ".")
        return "\n".join(lines)


def _support(name: str, value: Any) -> Any:
    if not (callable(value) or hasattr(value, "support")):
        raise TypeError(
            f"{name} is {shown(value)}; it must be a target, or a function that tells which events are inside"
        )
    return value


@door(
    posterior=POSTERIOR,
    events=optional(ROWS),
    support=optional(_support),
    generated=whole(1),
    draws=COUNT,
    context=optional(EVENTS),
    seed=SEED,
)
def advise(
    posterior: Posterior,
    events: EventsLike | None = None,
    *,
    support: Any = None,
    generated: int = 10_000,
    draws: int | None = None,
    context: Any = None,
    seed: int = 0,
) -> Advice:
    """Look at a posterior: have chains met, has the training ended, is the density one, does it fit the events?

    Args:
        posterior: of any backend.
        events: the training events ``[N, d]``, or others of their distribution: they tell where the density has to be.
            None: chains are judged where the posterior generates, and its range is not checked.
        support: where events can be: a target of :mod:`pyrogen.targets`, or a function of events ``[n, d]`` that tells
            which are inside, ``[n]``. None: the range of ``events`` in every column.
        generated: number of events generated to be held against that range.
        draws: weight draws of density and generated events; None: 50, or all where fewer are stored.
        context: conditions ``[N, k]`` of the events of a conditional flow.
        seed: seeds everything drawn.

    Returns:
        The findings; ``.text()`` says them in words, ``.ok`` whether none is serious.

    Raises:
        ValueError: events that are not finite or of the wrong shape.
    """
    sample = None
    if events is not None:
        table = posterior.predictor.checked(events)
        extras: dict[str, Any] = {"weights": table.weights, "multiplicity": posterior.model.multiplicity}
        sample = EventSample(table.values, table.names or posterior.names, **extras)
    if context is not None:
        n, labels = (len(as_tensor(context, torch.float64)), None) if sample is None else (len(sample), table.labels)
        context = as_tensor(posterior.predictor.conditions(context, n, labels), torch.float64)
    look = Look(posterior, sample, support, generated, draws, context, seed)
    if support is not None and not posterior.model.context:
        some = posterior.sample(2, draws, seed=seed).double().cpu() if look.events is None else look.events[:2]
        look_at_events.inside(support, some)
    findings, checked, unchecked = [], [], []
    for name, check in _checks(look).items():
        try:
            findings += list(check(look))
            checked.append(name)
        except NotCheckedError as reason:
            unchecked.append(f"{name} ({reason})")
    findings.sort(key=lambda finding: not finding.serious)
    return Advice(tuple(findings), tuple(checked), tuple(unchecked))


def _checks(look: Look) -> dict[str, Check]:
    """The checks that this posterior is to pass, by name."""
    posterior = look.posterior
    found: dict[str, Check] = {"warnings of the run": look_at_run.recorded, "kind": look_at_run.kind}
    found["calibration"] = look_at_calibration.calibration
    if posterior.info.epochs_done is not None:
        found |= {
            "number of weights": look_at_run.size,
            "end of the training": look_at_run.curve,
            "widths": look_at_run.widths,
            "balance of the widths": look_at_run.balance,
        }
    elif "step" in posterior.history:  # of networks that Adam trained
        found["end of the training"] = look_at_run.curve
    if posterior.weights.stored is not None:
        found |= {"number of draws": look_at_run.number, "chains": look_at_run.chains}
    if posterior.model.context:
        found["range of the conditions"] = look_at_events.conditions
    if look.sample is not None:
        found |= {
            "density at the events": look_at_events.density,
            "distribution of generated events": look_at_events.distribution,
        }
    found["generated events"] = look_at_events.generated
    return found | {"normalisation": look_at_events.normalisation, "range of generated events": look_at_events.beyond}
