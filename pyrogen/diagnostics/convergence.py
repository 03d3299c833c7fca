"""Whether chains have met, judged in function space: by log p(x) at fixed probe points, not by single weights.

Networks whose hidden units are exchanged are the same network. R-hat and ESS of weights therefore say little; those of
the density at a point say how well the sampler knows what it predicts there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrogen.checks import COUNT, SEED, door, whole, whole_number
from pyrogen.coverage.chains import diagnose, fewest_draws
from pyrogen.diagnostics.stored_draws import Rows, blocks, spaced_rows
from pyrogen.events.containers import table_of
from pyrogen.events.doors import EVENTS, ROWS
from pyrogen.labelled import Labelled
from pyrogen.posterior.posterior import POSTERIOR, Posterior
from pyrogen.seeds import seeded, stream

Array = NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class Convergence(Labelled):
    """R-hat and effective sample sizes of log p at n probe points, of D draws in each of C chains.

    R-hat is the rank-normalised split one, ESS the bulk and tail ESS of Vehtari et al. (arXiv:1903.08008), by ArviZ.
    Every chain is split into halves, which finds a drift. A single chain is first cut into two, so that R-hat compares
    its quarters with each other: that finds a drift too, but never another mode. Chains agree where R-hat is below
    about 1.01 and ESS above 100 per chain; R-hat above 1.05 says that they have not met. A quantity that never changed
    has R-hat infinite and ESS zero.

    Attributes:
        log_prob: log p of every draw at every probe point, ``[C, D, n]`` in nats.
        rhat: R-hat of every probe point, ``[n]``.
        ess_bulk: effective number of draws, of all chains together, for the centre of the distribution, ``[n]``.
        ess_tail: the same for its 5 % and 95 % quantiles, ``[n]``.
        potential_rhat: R-hat of the potential energy U; NaN where the posterior has no record of it.
        potential_ess: its bulk ESS; NaN likewise.
    """

    _dims: ClassVar[Mapping[str, str]] = {
        "log_prob": "chain draw probe",
        "rhat": "probe",
        "ess_bulk": "probe",
        "ess_tail": "probe",
    }

    log_prob: Array
    rhat: Array
    ess_bulk: Array
    ess_tail: Array
    potential_rhat: float = float("nan")
    potential_ess: float = float("nan")

    def _summary(self) -> str:
        chains, draws, probes = self.log_prob.shape
        return (
            f"{probes} probe points, {chains} chains of {draws} draws: R-hat up to {self.largest_rhat:.4g}, ESS from "
            f"{self.smallest_ess:.4g}"
        )

    @property
    def largest_rhat(self) -> float:
        """R-hat of the worst probe point."""
        return float(self.rhat.max())

    @property
    def smallest_ess(self) -> float:
        """ESS, bulk or tail, of the worst probe point."""
        return float(min(self.ess_bulk.min(), self.ess_tail.min()))


@door(posterior=POSTERIOR, probes=EVENTS, draws=COUNT)
def function_space(posterior: Posterior, probes: Any, draws: int | None = None) -> Convergence:
    """Convergence of stored chains, judged by log p at probe points.

    Args:
        posterior: a posterior with stored draws, from a sampled backend.
        probes: points ``[n, d]`` inside the support, such as :func:`probe_points` gives.
        draws: draws per chain to evaluate, evenly spaced; None: all. The ESS then counts those evaluated, and is a
            lower bound for all of them.

    Raises:
        ValueError: a posterior without stored chains, fewer than 4 draws per chain (8 of a single one), more draws than
            stored, or a probe point at which a draw has no finite log density.
    """
    stored = _stored(posterior)
    chains, length = stored.shape[:2]
    rows = spaced_rows(length, None if draws is None else whole_number("draws", draws, fewest_draws(stored)))
    log_prob = log_prob_of_chains(posterior, probes, rows)
    rhat, ess_bulk, ess_tail = np.array([diagnose(log_prob[:, :, i]) for i in range(log_prob.shape[2])]).T
    potential = posterior.history.get("potential")
    potential_rhat, potential_ess = float("nan"), float("nan")
    if potential is not None and potential.shape == (chains, length) and np.isfinite(potential).all():
        potential_rhat, potential_ess, _ = diagnose(potential)
    return Convergence(log_prob, rhat, ess_bulk, ess_tail, potential_rhat, potential_ess)


def log_prob_of_chains(
    posterior: Posterior, points: Any, rows: Rows, context: Any = None, what: str = "probe point"
) -> Array:
    """Log density ``[chains, len(rows), n]`` in nats of some of the stored draws at points ``[n, d]``.

    Raises:
        ValueError: a point at which a draw has no finite log density, called ``what``.
    """
    parts = []
    for _, part in blocks(posterior, rows):
        chains, draws = part.weights.arrays["draws"].shape[:2]
        values = part.log_prob(points, chains * draws, context=context)
        parts.append(values.double().cpu().numpy().reshape(chains, draws, -1))
    log_prob = np.concatenate(parts, 1)
    bad = np.argwhere(~np.isfinite(log_prob))
    if len(bad):
        chain, draw, point = bad[0]
        raise ValueError(
            f"log p is {log_prob[chain, draw, point]} at {what} {point} in draw {rows[draw]} of chain {chain} "
            f"({len(bad)} of {log_prob.size} values are not finite); give points inside the support of the flow"
        )
    return log_prob


@door(n=whole(1), seed=SEED)
def probe_points(source: Any, n: int = 100, seed: int = 0) -> Tensor:
    """Points at which to judge convergence: where the events are, so that they count as the density does.

    Args:
        source: a target of :mod:`pyrogen.targets`, from which new events are drawn, or events ``[N, d]`` (tensor, array
            or :class:`~pyrogen.EventSample`), of which n are picked. Held-out events serve best.
        n: number of points.
        seed: seeds the draw; the global random state is left alone.

    Returns:
        ``[n, d]``.

    Raises:
        ValueError: n is no positive whole number, or more than the events given.
    """
    # Not the seed itself: whoever drew training events after torch.manual_seed(seed) would meet them again.
    with seeded(stream(seed, "probe points")):
        if hasattr(source, "sample") and not hasattr(source, "columns") and not isinstance(source, type):
            return source.sample((n,))  # a DataFrame has a sample() too
        ROWS("source", source)
        values = source if isinstance(source, Tensor) else table_of(source).values
        events = values.detach() if isinstance(values, Tensor) else torch.from_numpy(np.array(values, dtype=np.float64))
        if events.ndim != 2 or n > len(events):
            raise ValueError(f"n is {n}, but the events have shape {list(events.shape)}; they must be [N, d], N >= n")
        return events[torch.randperm(len(events))[:n]]


def _stored(posterior: Posterior) -> Tensor:
    """The draws ``[chains, draws, P]`` of a posterior, checked."""
    weights = posterior.weights
    if weights.stored is None:
        raise ValueError(
            f"the posterior is a {weights.family} distribution without stored chains; only posteriors of sampled "
            "backends (pg.HMC and the like) have chains that can converge"
        )
    stored = weights.arrays["draws"]
    if stored.shape[1] < fewest_draws(stored):
        raise ValueError(
            f"the posterior holds {stored.shape[1]} draws in each of {len(stored)} chains; convergence needs at least "
            f"{fewest_draws(stored)} per chain"
        )
    return stored
