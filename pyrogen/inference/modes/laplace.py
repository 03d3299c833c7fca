"""Laplace's approximation: the maximum of the posterior and a Gaussian of its curvature around it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyrogen.bayes.model import BayesianFlow
from pyrogen.checks import check_settings, one_of, whole
from pyrogen.inference.modes.curvature import Curvature
from pyrogen.inference.modes.descent import Descent, Optimised
from pyrogen.inference.problems import SamplingError, report
from pyrogen.inference.run.data import TrainingData
from pyrogen.inference.run.potential import Potential, Whitened
from pyrogen.posterior.info import Finding
from pyrogen.posterior.posterior import Posterior
from pyrogen.posterior.weights import LowRankPrecision, MeanField, Multivariate, WeightPosterior
from pyrogen.progress import bar
from pyrogen.seeds import stream
from pyrogen.signals import load_optimizers

STRUCTURES = ("auto", "full", "low_rank", "diagonal")
CURVATURES = ("auto", "hessian", "fisher")
SMALL = 1500  # weights up to which "auto" holds a whole matrix: minutes, and 18 MB
NEGLIGIBLE = 1e-6  # curvature, in units of the prior's, below which its sign is rounding


@dataclass(frozen=True, kw_only=True)
class Laplace(Optimised):
    """Laplace's approximation (MacKay 1992; Ritter, Botev and Barber 2018): a Gaussian at the posterior's maximum.

    Adam from the flow's own weights, then L-BFGS on the whole sample find the maximum; the inverse covariance is the
    curvature there, ``(1 + H) / s^2`` with prior widths s and the curvature H of the log-likelihood in units of them
    (:class:`~pyrogen.inference.modes.curvature.Curvature`). Where H has negative eigenvalues (a network is no convex
    problem, and event weights may be negative) they are set to zero: the Gaussian is nowhere wider than the prior.
    ``info.details["negative_eigenvalues"]`` counts those among the computed ones.

    Args:
        structure: ``"full"``: the whole matrix; ``"low_rank"``: the ``rank`` largest eigenvalues and the prior's width
            in all other directions, never a P x P matrix; ``"diagonal"``: independent weights, each with its width
            given all others; ``"auto"``: full for up to 1,500 weights, else low_rank.
        curvature: ``"hessian"``: exact second derivatives; ``"fisher"``: squares of the events' first derivatives, far
            cheaper but right only for many events of a density that the flow can describe; ``"auto"``: the Hessian,
            but the Fisher matrix for the diagonal of more than 1,500 weights, which would take P products of it.
        rank: number of eigenvalues for ``"low_rank"``; at most P are there.
        polish: most iterations of L-BFGS; 0: none.

    The checkpoint holds the way to the maximum; the curvature there, which takes no decisions, is computed again.
    """

    structure: str = "auto"
    curvature: str = "auto"
    rank: int = 100
    polish: int = 300

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(
            self, structure=one_of(*STRUCTURES), curvature=one_of(*CURVATURES), rank=whole(1), polish=whole(0)
        )

    def _check_going_on(self, start: Posterior, model: BayesianFlow) -> None:
        if "loc" not in start.weights.arrays:
            raise ValueError(
                f"Laplace goes on from the centre of a posterior, and start holds {start.weights.family}; give one of "
                "SVI or Laplace"
            )

    def _fit(self, model: BayesianFlow, data: TrainingData) -> Posterior:
        start = model.initial_theta if data.start is None else data.start.weights.arrays["loc"].to(model.initial_theta)
        potential = Potential(model, data, compile=self.compile)
        descent = Descent(self, potential, data, start[None], stream(self.seed, 0))
        theta = descent.run()
        before = time.monotonic() - descent.seconds
        if "maximum" not in descent.state:
            descent.state["maximum"] = self._polished(descent.potential, theta)
            descent.seconds = time.monotonic() - before
            descent.save()
        theta = descent.state["maximum"][0]
        weights, told, values = self._gaussian(descent.potential, theta)
        descent.seconds = time.monotonic() - before
        findings = tuple(find_problems(told))
        report(findings)
        history = {"eigenvalues": values.cpu().numpy()}
        return descent.posterior(weights, history, details=told, findings=findings)

    def _polished(self, potential: Potential, theta: Tensor) -> Tensor:
        """The best of the weights ``[1, P]`` that L-BFGS meets on its way down the whole sample's potential."""
        target = Whitened(potential, torch.zeros_like(potential.prior_scale), potential.prior_scale)
        leaf = target.position(theta).requires_grad_()
        best, lowest = leaf.detach().clone(), float(target.value(leaf.detach()))
        if not math.isfinite(lowest):
            raise SamplingError(
                f"the potential after {self.steps} steps of Adam is {lowest}, and has no maximum of the posterior "
                f"near; try a smaller lr (now {self.lr}) or dtype=torch.float64, with another checkpoint file if "
                "there is one"
            )
        if self.polish == 0:
            return target.theta(best)
        wall = lowest + abs(lowest) + 1e3 * potential.effective_size
        with bar(None, "L-BFGS", "step", show=self.progress) as shown:

            def closure() -> float:
                nonlocal best, lowest
                value, gradient = target.value_and_gradient(leaf.detach())
                leaf.grad, found = gradient, float(value)
                if not (value.isfinite().all() and gradient.isfinite().all()):
                    # Torch's line search stumbles over NaN and infinity; from a high wall it turns back.
                    leaf.grad, found = torch.zeros_like(gradient), wall
                elif found < lowest:
                    best, lowest = leaf.detach().clone(), found
                shown.update()
                shown.set_postfix_str(f"loss per event {found / potential.effective_size:.6f}", refresh=False)
                return found

            # Tolerances below what rounding allows: the line search ends it where no step lowers the potential.
            load_optimizers()
            torch.optim.LBFGS(
                [leaf],
                max_iter=self.polish,
                history_size=50,
                tolerance_grad=1e-8,
                tolerance_change=1e-12,
                line_search_fn="strong_wolfe",
            ).step(closure)
        return target.theta(best)

    def _gaussian(self, potential: Potential, theta: Tensor) -> tuple[WeightPosterior, dict[str, Any], Tensor]:
        """The Gaussian around ``theta [P]``, what to tell of it, and the curvature's eigenvalues (or diagonal)."""
        size, scale = len(theta), potential.prior_scale
        structure = self.structure if self.structure != "auto" else ("full" if size <= SMALL else "low_rank")
        kind = self.curvature
        if kind == "auto":
            kind = "fisher" if structure == "diagonal" and size > SMALL else "hessian"
        curvature = Curvature(potential, theta, kind, self.progress)
        gradient = (potential.value_and_gradient(theta[None])[1][0] * scale).double()
        told: dict[str, Any] = {"structure": structure, "curvature": kind}
        vectors = None
        weights: WeightPosterior
        if structure == "diagonal":
            values = curvature.diagonal()
            kept = values.clamp(min=0)
            weights = MeanField(loc=theta, scale=(scale / (1 + kept).sqrt()).to(theta))
        elif structure == "full":
            values, vectors = torch.linalg.eigh(curvature.matrix())
            values, vectors = values.flip(0), vectors.flip(1)
            kept = values.clamp(min=0)
            factor = scale[:, None] * vectors / (1 + kept).sqrt()
            # The triangular factor of factor @ factor^T without that product, which would square its condition.
            upper = torch.linalg.qr(factor.T, mode="r").R
            tril = (upper * upper.diagonal().sign()[:, None]).T
            weights = Multivariate(loc=theta, scale_tril=tril.to(theta))
        else:
            generator = torch.Generator(theta.device).manual_seed(stream(self.seed, 2))
            values, vectors, residuals = curvature.leading(self.rank, generator)
            rank = vectors.shape[1]
            kept = values[:rank].clamp(min=0)
            shrink = 1 / (1 + kept).sqrt()
            weights = LowRankPrecision(loc=theta, scale=scale, vectors=vectors.to(theta), shrink=shrink.to(theta))
            told |= {
                "rank": rank,
                "largest_eigenvalue_left_out": float(values[rank]) if rank < size else 0.0,
                "largest_residual": float(residuals.max()),
            }
        if vectors is None:
            decrement = float((gradient.square() / (1 + kept)).sum())
        else:
            along = (vectors.T @ gradient).square()
            decrement = float(gradient.square().sum() - (kept / (1 + kept) * along).sum())
        told |= {
            "negative_eigenvalues": int((values < -NEGLIGIBLE).sum()),
            "smallest_eigenvalue": float(values.min()),
            "effective_parameters": float((kept / (1 + kept)).sum()),
            "gradient_norm": float(gradient.norm()),
            "newton_decrement": math.sqrt(max(decrement, 0.0)),
        }
        return weights, told, values


def find_problems(told: dict[str, Any]) -> list[Finding]:
    """What is wrong with a Gaussian, from the numbers in the ``details`` of its ``info``."""
    found = []
    if not told["newton_decrement"] < 1:  # also for NaN
        found.append(
            Finding(
                "not at the maximum",
                f"the network is not at the maximum of the posterior: by its gradient (norm "
                f"{told['gradient_norm']:.3g} in units of the prior's widths) and curvature that lies "
                f"{told['newton_decrement']:.3g} posterior widths away",
                "Try more steps, a larger polish or dtype=torch.float64",
            )
        )
    if told["curvature"] == "hessian" and told["smallest_eigenvalue"] < -1 - 1e-3:
        found.append(
            Finding(
                "at a saddle",
                "the network sits at a saddle of the posterior, not at a maximum: the curvature has an eigenvalue of "
                f"{told['smallest_eigenvalue']:.3g} in units of the prior's, and there the Gaussian has the prior's "
                "width",
                "Try more steps, another lr or another seed of the flow",
            )
        )
    if told.get("largest_eigenvalue_left_out", 0.0) > 1:
        found.append(
            Finding(
                "rank too small",
                f"rank {told['rank']} leaves out directions in which the events say more than the prior (the largest "
                f"eigenvalue left out is {told['largest_eigenvalue_left_out']:.3g}), and the posterior is too wide "
                "there",
                "Try a larger rank",
            )
        )
    return found
