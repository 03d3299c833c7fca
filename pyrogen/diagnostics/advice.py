"""One call that looks at a posterior and says in words what is wrong with it, and what to try."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pyro.distributions import MultivariateStudentT
from torch import Tensor

from pyrogen.bayes.inputs import as_tensor, check_context
from pyrogen.checks import COUNT, SEED, door, optional, require, shown, whole
from pyrogen.diagnostics.convergence import function_space, has_chains, probe_points
from pyrogen.events import EventSample, EventsLike, check_events
from pyrogen.events.doors import EVENTS
from pyrogen.posterior.info import Finding
from pyrogen.posterior.posterior import POSTERIOR, Posterior
from pyrogen.posterior.weights import DRAWS
from pyrogen.printing import Brief
from pyrogen.seeds import untouched

Array = NDArray[np.float64]
LARGEST_RHAT = 1.05
FEWEST_EFFECTIVE = 100  # effective draws per chain (arXiv:1903.08008)
FEWEST_DRAWS = 30  # weight draws of a prediction ([A] sec. 3.5)
BALANCE = 0.7  # of the pull of the prior on the widths, that the data must at least hold back
BALANCED = 2_000  # events by which that is judged
FALLING_NLL = 0.005  # nats per event: a tenth of the density, as KL(p, q) = (dp/p)^2 / 2
COLLAPSED = 0.2  # largest |log(width / initial width)| of a width that has not moved
OUTSIDE = 0.01  # fraction of generated events
UNNORMALISED = 0.02
PROBES, EVALUATED = 100, 400  # probe points, and draws per chain evaluated at them
PROPOSED = 20_000  # points at which the density is integrated
FEWEST_HITS = 200  # effective number of them in the density, below which the integral is not known
FREEDOM = 5.0  # degrees of freedom of their distribution


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
        if self.ok:
            lines.insert(0, "Nothing serious was found. Whether sigma is right, only coverage can tell.")
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
    posterior=POSTERIOR, events=optional(EVENTS), support=optional(_support), generated=whole(1), draws=COUNT, seed=SEED
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
    """Look at a posterior: have chains met, has the training ended, is the density one?

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
    if events is not None:
        check_events(events.values if isinstance(events, EventSample) else events, posterior.model.features)
        events = as_tensor(events, torch.float64)
    if context is not None:
        require(
            events is not None, "context", context, "None where no events are given: it has one row for each of them"
        )
        check_context(context, posterior.model.context, len(events))  # type: ignore[arg-type]
    if support is not None and not posterior.model.context:
        some = posterior.sample(2, draws, seed=seed) if events is None else events[:2]
        _inside(support, some.double().cpu())
    look = _Look(posterior, events, support, generated, draws, context, seed)
    findings, checked, unchecked = [], [], []
    for name, check in look.checks().items():
        try:
            findings += list(check())
            checked.append(name)
        except _NotCheckedError as reason:
            unchecked.append(f"{name} ({reason})")
    findings.sort(key=lambda finding: not finding.serious)
    return Advice(tuple(findings), tuple(checked), tuple(unchecked))


class _NotCheckedError(Exception):
    """A check that cannot be made, and why."""


@dataclass
class _Look:
    posterior: Posterior
    events: Tensor | None
    support: Any
    generated: int
    draws: int | None
    context: Any
    seed: int

    def checks(self) -> dict[str, Callable[[], Iterator[Finding]]]:
        found: dict[str, Callable[[], Iterator[Finding]]] = {"warnings of the run": self.recorded, "kind": self.kind}
        if self.posterior.info.epochs_done is not None:
            found |= {"end of the training": self.curve, "widths": self.widths, "balance of the widths": self.balance}
        if self.posterior.weights.stored is not None:
            found |= {"number of draws": self.number, "chains": self.chains}
        if self.events is not None:
            found["density at the events"] = self.density
        return found | {"normalisation": self.normalisation, "range of generated events": self.range}

    def recorded(self) -> Iterator[Finding]:
        yield from self.posterior.info.findings
        skipped = float(np.sum(self.posterior.history.get("skipped_steps", 0.0)))
        if skipped:
            yield Finding(
                "steps left out",
                f"{skipped:.0f} steps of the training had no finite gradient",
                "A few in a long training do no harm; for more, lower lr or clip",
                serious=False,
            )

    def kind(self) -> Iterator[Finding]:
        info, weights = self.posterior.info, self.posterior.weights
        if info.tempered:
            power = info.settings.get("kl_weight", info.settings.get("temperature"))
            what = "the KL was weighted by" if "kl_weight" in info.settings else "the temperature was"
            yield Finding(
                "tempered",
                f"{what} {power}: no posterior of these events",
                "Its sigma is to be calibrated (bootstrap_calibration), and to be labelled as tempered wherever shown",
                serious=False,
            )
        if not (info.is_posterior and weights.has_spread):
            yield Finding(
                "no posterior",
                "single networks do not follow a posterior, and their spread is not its sigma",
                "Use SVI or a sampler; show the spread of an ensemble as what trainings differ by",
            )
        if weights.independent and not info.tempered:
            yield Finding(
                "mean field",
                "independent weights cannot follow the ridges of a posterior; in the study of the docs (calibration) "
                "their sigma was several times that of sampled posteriors and of the true spread",
                "Test it for your events with bootstrap_calibration, or compare with HMC on fewer events",
                serious=False,
            )

    def curve(self) -> Iterator[Finding]:
        history = self.posterior.history
        rate, nll = (np.asarray(history.get(name, ())) for name in ("learning_rate", "nll"))
        # The time of a training is the sum of its learning rates: a schedule that falls to zero makes every curve flat
        # in epochs.
        time = np.cumsum(rate) / np.sum(rate)
        parts = [nll[(time > first) & (time <= first + 1 / 6) & np.isfinite(nll)] for first in (4 / 6, 5 / 6)]
        if min(map(len, parts)) < 4:
            raise _NotCheckedError(f"{len(nll)} epochs are too few to see a trend")
        (before, error), (last, last_error) = map(_median, parts)
        fallen = before - last
        if fallen > max(FALLING_NLL, 4 * math.hypot(error, last_error)):
            yield Finding(
                "loss still falling",
                f"from the fifth to the last sixth of the training (counted in learning rate) the negative "
                f"log-likelihood fell by {fallen:.3f} nats per event, as much as a density loses that is off by "
                f"{math.sqrt(2 * fallen):.0%}",
                "Train for more epochs, or with a larger lr",
            )

    def widths(self) -> Iterator[Finding]:
        weights, info = self.posterior.weights, self.posterior.info
        initial = info.settings.get("init_scale")
        if not weights.independent or not initial:
            raise _NotCheckedError("only a mean-field guide has one width per weight")
        moved = (weights.arrays["scale"] / initial).log().abs() > COLLAPSED
        share = 1 - float(moved.double().mean())
        if share > 0.5:
            yield Finding(
                "guide collapsed to its initial width",
                f"{share:.0%} of the widths are still what they started as, {initial:g}: sigma is that of the settings",
                "Raise lr_widths, let the widths start earlier (widths_after), or train for more epochs",
            )

    def balance(self) -> Iterator[Finding]:
        """At the maximum of the ELBO, prior and data pull a common factor on all widths with the same force:
        ``sum_i (1 - sigma_i^2 / s_i^2)`` and ``N d/dlog(factor) E_q[-log p]``."""
        weights, model, info = self.posterior.weights, self.posterior.model, self.posterior.info
        if not weights.independent or self.events is None or info.effective_size is None or model.context:
            raise _NotCheckedError("it takes an unconditional mean-field posterior and its training events")
        if info.is_weighted:
            raise _NotCheckedError("the training events were weighted")
        location, scale = weights.arrays["loc"], weights.arrays["scale"]
        outward = info.settings.get("kl_weight", 1.0) * float((1 - (scale / model.prior_scales).square()).sum())
        events = probe_points(self.events, min(BALANCED, len(self.events)), self.seed).to(model.dtype)
        forces = []
        with torch.no_grad():
            for theta in weights.draws(DRAWS, self.seed + 3):
                offset = theta - location  # the same noise for both, so that the difference is known well
                nll = [-model.log_prob(location + f * offset, events).double().mean() for f in (0.9, 1.1)]
                forces.append(info.effective_size * float(nll[1] - nll[0]) / 0.2)
        inward, error = float(np.mean(forces)), float(np.std(forces, ddof=1)) / math.sqrt(len(forces))
        if not math.isfinite(inward + error):
            raise _NotCheckedError("log p is not finite at some events")
        if inward + 3 * error < BALANCE * outward:
            yield Finding(
                "widths still growing",
                f"when the training ended the data held a common factor on all widths back with {inward:.4g} +- "
                f"{error:.2g}, and the prior pulled with {outward:.4g}; in a finished training the two are equal",
                "Train for more epochs, with a larger lr_widths, or let the widths start earlier (widths_after): until "
                "then sigma is a matter of the settings",
            )

    def number(self) -> Iterator[Finding]:
        stored = self.posterior.weights.stored or 0
        if stored < FEWEST_DRAWS:
            yield Finding(
                "few draws",
                f"{stored} networks: their standard deviation is known to {1 / math.sqrt(2 * max(stored - 1, 1)):.0%}",
                f"Take {FEWEST_DRAWS} or more",
                serious=stored < 10,
            )

    def chains(self) -> Iterator[Finding]:
        stored = self.posterior.weights.arrays["draws"]
        if not self.posterior.info.is_posterior or not has_chains(self.posterior):
            raise _NotCheckedError(f"{len(stored)} x {stored.shape[1]} draws are no chains that could converge")
        if self.posterior.model.context:
            raise _NotCheckedError("the flow is conditional; use function_space at conditions of your choice")
        source = self.posterior.sample(PROBES, seed=self.seed) if self.events is None else self.events
        probes = probe_points(source, min(PROBES, len(source)), self.seed)
        try:
            found = function_space(self.posterior, probes, min(stored.shape[1], EVALUATED))
        except ValueError as reason:
            raise _NotCheckedError(str(reason)) from reason
        chains = len(stored)
        if found.largest_rhat > LARGEST_RHAT:
            yield Finding(
                "chains apart" if chains > 1 else "the chain drifts",
                f"R-hat of log p(x) is up to {found.largest_rhat:.2f} at {len(probes)} probe points",
                "Run a longer warm-up and more draws; if it stays, a smoother flow (transform='bernstein', "
                "prior_scale='fan-in'), or the chains sit in different modes: then say so with the result",
            )
        if found.smallest_ess < FEWEST_EFFECTIVE * chains:
            yield Finding(
                "few effective draws",
                f"{found.smallest_ess:.0f} of {found.log_prob[..., 0].size} at the worst of {len(probes)} probe points",
                f"Raise draws or thinning until there are {FEWEST_EFFECTIVE * chains}",
                serious=found.smallest_ess < FEWEST_DRAWS,
            )
        if chains == 1:
            yield Finding("one chain", "it cannot see a mode that it never met", "Run four (chains=4)", serious=False)

    def density(self) -> Iterator[Finding]:
        assert self.events is not None
        rows = torch.arange(len(self.events))[: self.generated]
        context = None if self.context is None else as_tensor(self.context, self.posterior.model.dtype)[rows]
        draws = self.posterior.weights.count(self.draws)
        log_prob = self.posterior.log_prob(self.events[rows], draws, context=context, seed=self.seed)
        bad = (~log_prob.isfinite()).double().mean(0)
        if (bad > 0).any():
            first = int((bad > 0).nonzero()[0, 0])
            yield Finding(
                "no density at some events",
                f"log p is not finite at {int((bad > 0).sum())} of {len(rows)} events in some draws; the first is row "
                f"{first}: {self.events[first].tolist()}",
                "Check the box or the preprocessing of the flow, or use dtype=torch.float64",
            )

    def _proposal(self, draws: int) -> MultivariateStudentT:
        """A wide Student t around what the posterior generates."""
        events = self.posterior.sample(2000, draws, seed=self.seed + 1).double().cpu()
        covariance = torch.cov(events.T).reshape(events.shape[1], -1)
        scale = torch.linalg.cholesky(covariance + 1e-12 * covariance.diagonal().mean() * torch.eye(len(covariance)))
        return MultivariateStudentT(torch.tensor(FREEDOM, dtype=torch.float64), events.mean(0), 1.2 * scale)

    def normalisation(self) -> Iterator[Finding]:
        if self.posterior.model.context:
            raise _NotCheckedError("the flow is conditional")
        draws = min(20, self.posterior.weights.count(self.draws))
        if draws < 2:
            raise _NotCheckedError("a single draw")
        with untouched():
            proposal = self._proposal(draws)
            torch.manual_seed(self.seed + 2)
            points = proposal.sample((PROPOSED,))
        ratio = self.posterior.density(points, draws, seed=self.seed).mean.cpu() / proposal.log_prob(points).exp()
        integral, error = float(ratio.mean()), float(ratio.std()) / math.sqrt(len(ratio))
        hits = float(ratio.sum() ** 2 / ratio.square().sum().clamp(min=1e-300))
        if not math.isfinite(integral):
            yield Finding("density not normalised", "p(x) is NaN or infinite at some points", "Use dtype=torch.float64")
        elif error > 0.1 or hits < FEWEST_HITS:
            raise _NotCheckedError(f"the integral is {integral:.2f} +- {error:.2f}: too structured for this estimate")
        elif abs(integral - 1) > max(UNNORMALISED, 5 * error):
            yield Finding(
                "density not normalised",
                f"it integrates to {integral:.3f} +- {error:.3f}",
                "Check that log_prob and sample of your flow belong together, with all Jacobians; or use "
                "dtype=torch.float64",
            )

    def range(self) -> Iterator[Finding]:
        if self.posterior.model.context:
            raise _NotCheckedError("the flow is conditional")
        if self.support is None and self.events is None:
            raise _NotCheckedError("give events or support")
        draws = self.posterior.weights.count(self.draws)
        sample = self.posterior.sample(self.generated, draws, seed=self.seed).double().cpu()
        if self.support is not None:
            outside = ~_inside(self.support, sample)
            where, expected = "of the support", 0.0
        else:
            assert self.events is not None
            beyond = (sample < self.events.min(0).values) | (sample > self.events.max(0).values)
            outside, worst = beyond.any(1), int(beyond.double().mean(0).argmax())
            # Of new events beyond the extremes of old ones: the mean, and twice its standard deviation.
            d = sample.shape[1]
            expected = (2 * d + 2 * math.sqrt(2 * d)) / (len(self.events) + 1)
            where = f"of the range of the training events, most of them in {self.posterior.names[worst]}"
        share = float(outside.double().mean())
        if share > OUTSIDE + expected + 3 * math.sqrt((OUTSIDE + expected) / self.generated):
            yield Finding(
                "events outside",
                f"{share:.1%} of the generated events lie outside {where}",
                "Where limits are known, learn on the unit box (base='uniform' with preprocessing=UnitBox(low, high)); "
                "otherwise cut the same way in data and prediction",
                serious=share - expected > 5 * OUTSIDE,
            )


def _inside(support: Any, events: Tensor) -> Tensor:
    """Which events ``[n, d]`` are inside, ``[n]``."""
    check = support.support.check if hasattr(support, "support") else support
    inside = torch.as_tensor(check(events)).bool()
    if inside.shape != (len(events),):
        raise ValueError(f"support gave shape {list(inside.shape)} for {len(events)} events; it must be [n]")
    return inside


def _median(values: Array) -> tuple[float, float]:
    """Median, which single spikes do not impress, and its error from the median absolute deviation."""
    middle = float(np.median(values))
    return middle, 1.2533 * 1.4826 * float(np.median(np.abs(values - middle))) / math.sqrt(len(values))
