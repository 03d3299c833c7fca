"""Joint training of a flow with a discriminator: the backend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pyrogen.bayes.model import BayesianFlow
from pyrogen.inference.backend import Samples
from pyrogen.inference.problems import NotBatchedError, report
from pyrogen.inference.run.data import TrainingData
from pyrogen.inference.vi.discflow_settings import DiscFlowSettings
from pyrogen.inference.vi.discriminated import DiscriminatedObjective
from pyrogen.inference.vi.objective import Objective
from pyrogen.inference.vi.svi import SVI
from pyrogen.inference.vi.training import Training
from pyrogen.posterior.info import Finding
from pyrogen.posterior.posterior import Posterior

#: Cross-entropy in nats below which a discriminator tells nearly all events, and above which it is worse than a guess
#: (log 2) by more than what its start and the noise of a batch give.
SATURATED, WORSE = 0.1, 1.0


@dataclass(frozen=True, kw_only=True)
class DiscFlow(DiscFlowSettings, SVI):
    """:class:`~pyrogen.SVI` with a discriminator that tells it what it misses [arXiv:2110.13632, sec. 4].

    A discriminator D learns true against generated events while the flow is trained. The likelihood of every event of
    a batch counts ``w = (D/(1-D))^alpha`` times, with w divided by its mean over the batch: where the flow generates
    too few events, those that there are count more. No gradient runs through D, and where the flow has found the
    density all weights are 1, so that no equilibrium of two networks has to be found. Event weights are multiplied by
    w. ``widths_after`` near 1 makes the deterministic flow.

    It can only shift what the flow is able to describe, and it sees a sharp correlation only where ``observables`` has
    it. ``benchmarks/discflow.py`` shows flows that gain a little, and flows that are too small and lose;
    :func:`~pyrogen.diagnostics.reweight` afterwards mends more. A step takes 1.3 to 1.5 times as long.
    ``start`` goes on from a posterior of :class:`~pyrogen.SVI`; the ramp begins anew.

    ``history`` has besides the curves of SVI, as means of each epoch: ``"discriminator_loss"`` (log 2 = 0.693 is that
    of a guess), ``"weight_spread"`` (standard deviation of w), ``"effective_share"`` (``(sum w)^2 / sum w^2`` as a
    fraction of the batch) and ``"alpha"``.

    The likelihood is no longer that of the events, and the result is no posterior of them:
    ``posterior.info.reweighted`` says so, and a finding tells how much.

    Raises:
        ValueError: an argument out of range.
    """

    def _searched(self, *_: Any) -> Posterior | None:
        return None  # a kl_weight that is to be found is refused with those of a run

    def _many_searched(
        self, model: BayesianFlow, samples: Samples, context: Samples | None, executor: Any = None
    ) -> list[Posterior] | None:
        return None

    def _check_stream(self) -> None:
        raise ValueError("DiscFlow cannot learn from a stream: its discriminator needs the events again; take pg.SVI")

    def _check_batch(self, samples: Samples) -> None:
        raise NotBatchedError("each sample has a discriminator of its own")

    def _objective(self, model: BayesianFlow, data: TrainingData) -> DiscriminatedObjective:
        return DiscriminatedObjective(self, model, data)

    def _result(
        self,
        model: BayesianFlow,
        data: TrainingData,
        objective: Objective,
        training: Training,
        r: int = 0,
        **entries: Any,
    ) -> Posterior:
        kept = int(training.kept_epoch[r]) - 1
        last = {name: float(training.history[name][kept][r]) for name in objective.own_curves}
        if last["alpha"] == 0:  # no event was weighted by then
            return super()._result(model, data, objective, training, r, **entries)
        findings = [
            Finding(
                "reweighted by a discriminator",
                f"in epoch {kept + 1}, which was kept, every event counted (D/(1-D))^{last['alpha']:.2g} times, and "
                f"the events of a batch were worth {100 * last['effective_share']:.0f} % of their number: no posterior "
                "of these events",
                "Its sigma is to be labelled as reweighted wherever shown, and to be compared with the spread of other "
                "trainings",
                serious=False,
            )
        ]
        if last["discriminator_loss"] < SATURATED:
            findings.append(
                Finding(
                    "discriminator saturated",
                    f"its loss is {last['discriminator_loss']:.3f} at the end, that of a guess 0.693: it tells nearly "
                    "every event, and its weights say little of the ratio of the densities",
                    "Use a better flow or preprocessing, or fewer and smaller discriminator_hidden",
                )
            )
        if last["discriminator_loss"] > WORSE:
            findings.append(
                Finding(
                    "discriminator learned nothing",
                    f"its loss is {last['discriminator_loss']:.3f} at the end, that of a guess 0.693: its weights are "
                    "not the ratio of the densities",
                    "Lower discriminator_lr",
                )
            )
        report(findings[1:])
        return super()._result(
            model, data, objective, training, r, findings=tuple(findings), reweighted=True, details=last, **entries
        )
