"""Deep ensembles: networks trained independently of each other, in one batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pyrogen.bayes.model import BayesianFlow
from pyrogen.checks import check_settings, one_of, whole
from pyrogen.inference.modes.descent import Descent, Optimised, check_as_many, starts_of
from pyrogen.inference.problems import SamplingError, report
from pyrogen.inference.run.data import TrainingData
from pyrogen.inference.run.potential import Potential
from pyrogen.posterior.info import Finding
from pyrogen.posterior.posterior import Posterior
from pyrogen.posterior.weights import StoredDraws
from pyrogen.seeds import stream

OBJECTIVES = ("map", "likelihood")
FAR = 0.05  # nats per event above the median member that count as far, and
SPREADS = 6.0  # so many robust standard deviations of the members


@dataclass(frozen=True, kw_only=True)
class Ensemble(Optimised):
    """A deep ensemble (Lakshminarayanan, Pritzel and Blundell, arXiv:1612.01474).

    Every member starts from its own initialisation of the network's layers and sees its own mini-batches; Adam brings
    it to a maximum of the posterior or of the likelihood. The spread of the members tells of the training and of the
    modes it finds; within a mode there is none: the draws do not follow the posterior, and
    ``info.is_posterior`` is False.

    Args:
        members: number of networks.
        objective: ``"map"``: the loss has the prior's term ``-log prior(theta)``; ``"likelihood"``: the events' alone.
    """

    members: int = 10
    objective: str = "map"

    countable: ClassVar[tuple[str, int] | None] = ("members", 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, members=whole(1), objective=one_of(*OBJECTIVES))

    @property
    def _kept(self) -> int:
        return self.members

    def _check_going_on(self, start: Posterior, model: BayesianFlow) -> None:
        check_as_many("members", self.members, start, "give an ensemble of as many members")

    def _fit(self, model: BayesianFlow, data: TrainingData) -> Posterior:
        starts = starts_of(model, data, self.members, stream(self.seed, 1))
        potential = Potential(model, data, likelihood_only=self.objective == "likelihood", compile=self.compile)
        descent = Descent(self, potential, data, starts, stream(self.seed, 0))
        theta = descent.run()
        final = descent.potential.value(theta) / descent.potential.effective_size
        if not final.isfinite().any():
            raise SamplingError(
                f"the loss of all {self.members} members is NaN or infinite after {self.steps} steps; try a smaller lr "
                f"(now {self.lr}) or dtype=torch.float64, with another checkpoint file if there is one"
            )
        findings = tuple(find_problems(final, descent.state["skipped"]))
        report(findings)
        weights = StoredDraws(theta[:, None])
        return descent.posterior(weights, {"final_loss": final.cpu().numpy()}, is_posterior=False, findings=findings)


def find_problems(final: Tensor, skipped: Tensor) -> list[Finding]:
    """What is wrong with the members of an ensemble.

    Args:
        final: loss per event of every member at its end, ``[C]``, over the whole sample.
        skipped: steps ``[C]`` that were left out because the loss or its gradient was not finite.
    """
    found = []
    finite = final.isfinite()
    for c in (~finite).nonzero()[:, 0].tolist():
        found.append(
            Finding(
                "member without a density",
                f"member {c} (of {len(final)}) ends with a loss of {final[c]:.6g}: it has no finite density for all "
                "events",
                "Leave it out, or try a smaller lr or dtype=torch.float64",
            )
        )
    for c in (finite & (skipped > 0)).nonzero()[:, 0].tolist():
        found.append(
            Finding(
                "steps left out",
                f"the loss of member {c} (of {len(final)}) was NaN or infinite in {skipped[c]:.0f} steps, which were "
                f"left out; it ends at {final[c]:.4f} nats per event",
                "Try a smaller lr or dtype=torch.float64",
            )
        )
    middle = final[finite].median()
    spread = 1.4826 * (final[finite] - middle).abs().median()  # the standard deviation, were the members Gaussian
    limit = middle + torch.clamp(SPREADS * spread, min=FAR)
    for c in (finite & (final > limit)).nonzero()[:, 0].tolist():
        found.append(
            Finding(
                "training got stuck",
                f"member {c} (of {len(final)}) ends at a loss of {final[c]:.4f} nats per event, far above the others' "
                f"median of {middle:.4f}",
                "Leave it out, or try more steps or another lr",
            )
        )
    return found
