"""The calibration of densities along lines of a target whose truth is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pyrogen.checks import COUNT, SEED, array, door, each, optional
from pyrogen.coverage.calibration import Calibration, count_intervals
from pyrogen.diagnostics.lines import LINE_TARGET, HasLines, points_on_lines
from pyrogen.posterior.posterior import POSTERIOR, Posterior

Array = NDArray[np.float64]


@door(
    posteriors=each(POSTERIOR, "a sequence of posteriors"),
    target=LINE_TARGET,
    t=optional(array()),
    positions=optional(array()),
    draws=COUNT,
    seed=SEED,
)
def calibration_along_lines(
    posteriors: Sequence[Posterior],
    target: HasLines,
    t: ArrayLike | Tensor | None = None,
    positions: Sequence[float] | None = None,
    draws: int | None = None,
    seed: int = 0,
) -> Calibration:
    """Calibration of the density along lines of a target, as in :func:`~pyrogen.diagnostics.density_along_lines`.

    Args:
        posteriors: R posteriors of one model on independent samples of one size, from ``backend.fit_many``.
        target: the truth.
        t: points ``[n]`` along the lines; by default 33 on ``target.line_range``.
        positions: constant coordinates of the L lines; by default ``target.line_positions``.
        draws: weight draws; None: 100, or all where fewer are stored.
        seed: seeds the weight draws, which are others for every training.

    Returns:
        B = L n quantities, line by line, with ``at`` the coordinate t.

    Raises:
        ValueError: no posteriors, or points that are not finite.
    """
    along, where, points = points_on_lines(target, t, positions)
    truth = target.line_density(along).double().numpy()

    def density(posterior: Posterior, count: int, own: int) -> Array:
        return posterior.log_prob(points, count, seed=own).double().exp().cpu().numpy()

    at = np.tile(along.numpy(), len(where))
    return count_intervals(posteriors, density, np.tile(truth, len(where)), draws, at, target.line_label, seed)
