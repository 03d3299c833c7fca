"""What is wrong with finished chains."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from pyrogen.posterior.info import Finding, History

FEWEST = 20  # draws per chain from which on they are asked to agree
LARGEST_RHAT = 1.1
LARGEST_RHAT_OF_LOG_PROB = 1.3  # at the worst of many points, where slow chains alone come to 1.2
SAME = 1e-4  # nats between densities that differ by rounding errors
LARGEST_EXCESS = 0.3  # of the temperature
#: What :func:`find_problems` may find.
PROBLEMS = (
    *("chain never moved", "divergent trajectories", "proposals rejected", "step size collapsed"),
    "the chains disagree",
)


def find_problems(history: History, draws: Tensor, log_prob: np.ndarray | None = None) -> list[Finding]:
    """What is wrong with finished chains.

    Args:
        history: statistics ``[C, draws]`` by name.
        draws: ``[C, draws, P]``.
        log_prob: log p of some of the draws at n points, ``[C, rows, n]``; None: chains are judged by the potential
            alone, which is the same in modes of equal weight.
    """
    stuck = [c for c, chain in enumerate(draws) if len(chain) > 1 and bool((chain[0] == chain[-1]).all())]
    stuck = [c for c in stuck if bool((draws[c] == draws[c][:1]).all())]
    found = []
    if stuck:
        found.append(
            Finding(
                "chain never moved",
                f"chain {_list(stuck)} never moved: every draw is the same, as the step size is too large there",
                "Try a longer warmup, a smaller step_size, or another start, and leave these draws out",
            )
        )
    if "diverging" in history:
        share = history["diverging"].mean(1)
        if (share > 0.01).any():
            found.append(
                Finding(
                    "divergent trajectories",
                    f"{', '.join(f'{s:.1%}' for s in share)} of each chain's; the draws miss the regions where the "
                    "potential is steep",
                    "Try target_acceptance=0.95, or a longer warmup",
                )
            )
    if "acceptance" in history:
        low = [c for c, a in enumerate(history["acceptance"].mean(1)) if a < 0.05 and c not in stuck]
        if low:
            found.append(
                Finding(
                    "proposals rejected",
                    f"chain {_list(low)} accepted less than 5 % of its proposals: its draws repeat each other",
                    "Try a longer warmup or a smaller step_size",
                )
            )
    if "step_size" in history:
        smallest = history["step_size"].min(1)
        collapsed = [c for c, s in enumerate(smallest) if s < 1e-3 * np.median(smallest) or s < 1e-8]
        if collapsed:
            found.append(
                Finding(
                    "step size collapsed",
                    f"the step size of chain {_list(collapsed)} collapsed to {smallest[collapsed].min():.1e}: it sits "
                    "where the potential is far steeper than elsewhere",
                    "Try dtype=torch.float64, another start, or a smooth flow "
                    '(transform="bernstein", activation="tanh")',
                )
            )
    potential = history["potential"]
    if potential.shape[1] >= FEWEST and (rhat := split_rhat(potential)) > LARGEST_RHAT:
        means = ", ".join(f"{mean:.1f}" for mean in potential.mean(1))
        found.append(
            Finding(
                "the chains disagree",
                f"split R-hat of the potential is {rhat:.2f} (its means: {means}). The chains have not met, and an "
                "average over them is none of the posterior",
                "Try a longer warmup and more draws; see pyrogen.diagnostics.function_space for their predictions",
            )
        )
    elif not stuck and log_prob is not None and (worst := _largest_rhat(log_prob)) > LARGEST_RHAT_OF_LOG_PROB:
        found.append(
            Finding(
                "the chains disagree",
                f"split R-hat of log p is {worst:.2f} at the worst of {log_prob.shape[2]} training events. The chains "
                "have not met: their potentials agree, but they may sit in different modes",
                "Try a longer warmup and more draws; see pyrogen.diagnostics.function_space for their predictions",
            )
        )
    return found


def _largest_rhat(log_prob: np.ndarray) -> float:
    """The largest split R-hat of log p ``[C, rows, n]``, of points at which it is finite and not always the same."""
    if log_prob.shape[1] < FEWEST:
        return 1.0
    points = [values for values in np.moveaxis(log_prob, 2, 0) if np.isfinite(values).all()]
    return max((split_rhat(values) for values in points if np.ptp(values) > SAME), default=1.0)


def find_heat(history: History, largest: float, advice: str) -> list[Finding]:
    """Chains whose mean excess temperature is above ``largest`` by more than the noise of its records."""
    records = history["excess_temperature"]
    records = records[:, np.isfinite(records).all(0)]  # checkpoints of earlier versions have none
    if not records.size:
        return []
    excess = records.mean(1)
    error = records.std(1) / np.sqrt(records.shape[1])
    if (excess - 2 * error <= largest).all():
        return []
    widths = np.sqrt(1 + np.clip(excess, 0, None))
    return [
        Finding(
            "chains too hot",
            f"excess temperatures of {_list([f'{e:.2f}' for e in excess])} widen the posterior: sigma is about "
            f"{_list([f'{w:.2f}' for w in widths])} times too large where the events decide",
            advice,
        )
    ]


def split_rhat(values: np.ndarray) -> float:
    """Gelman and Rubin's R-hat of ``values [C, draws]``, every chain cut into two halves."""
    half = values.shape[1] // 2
    halves = np.concatenate([values[:, :half], values[:, -half:]])
    within, between = halves.var(1, ddof=1).mean(), halves.mean(1).var(ddof=1)
    return float(np.sqrt((half - 1) / half + between / within)) if within > 0 else np.inf


def _list(values: list[Any]) -> str:
    return ", ".join(map(str, values))
