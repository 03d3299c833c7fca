"""From counted intervals to what a posterior tells of its calibration, and to the factor that would mend its sigma."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from pyrogen.coverage.calibration import ONE_SIGMA, TWO_SIGMA, Calibration
from pyrogen.posterior.calibrated import CalibrationRecord, CalibrationRound

GRID = tuple(np.linspace(0.002, 0.998, 499).tolist())  # levels at which the coverage is looked up
OUTERMOST = 4.0  # of the K + 1 pieces that K draws cut the line into: within them ranks tell no distance
NORMAL = NormalDist()


def in_sigma(level: float) -> float:
    """Half the width of the central interval of this level of a Gaussian, in its sigma."""
    return NORMAL.inv_cdf((1 + level) / 2)


def factor_on_sigma(found: Calibration, level: float) -> tuple[float, float]:
    """The factor on sigma with which the intervals at ``level`` would hold the truth as often as they say.

    In the intervals at another level, l, the truth lies in a fraction ``level`` of the cases: for a Gaussian the
    factor is the ratio of the widths of both. So it is one where the coverage at ``level`` is nominal, whatever the
    distribution of the draws. Where l is so large that the truth lies beyond nearly all draws, the pulls tell: the
    ``level`` quantile of their sizes over that of a Gaussian. Neither heeds how far off the worst quantities are, as
    the root mean square of the pulls does: a few at an edge where the flow cannot follow would decide it.

    Returns:
        The factor and its error: that of the coverage, over how fast the coverage of a Gaussian grows with the factor.
    """
    covered = np.array([found.covered(one).mean() for one in GRID])
    needed = float(np.interp(level, covered, GRID))
    width = in_sigma(level)
    if needed > 1 - OUTERMOST / (found.draws + 1):
        # One of the pulls, and not a mean of two: where sigma is zero they are infinite.
        factor = float(np.quantile(np.abs(found.pulls), level, method="higher")) / width
    else:
        factor = in_sigma(needed) / width
    return factor, factor * found.fraction(level)[1] / (2 * width * NORMAL.pdf(width))


def round_of(found: Calibration, level: float, value: float | None) -> CalibrationRound:
    """What one value of the knob gave."""
    return CalibrationRound(
        value=value,
        coverage=found.fraction(level),
        pull_width=found.pull_width()[0],
        factor=factor_on_sigma(found, level)[0],
    )


def record_of(
    found: Calibration,
    level: float,
    knob: str | None,
    rounds: Sequence[CalibrationRound],
    value: float | None,
    size: int,
    seed: int,
    how: str,
) -> CalibrationRecord:
    """The record of the settings that gave ``found``, with all rounds that were tried."""
    nominal, fractions, errors = (column.tolist() for column in found.curve())
    return CalibrationRecord(
        level=level,
        knob=knob,
        value=value,
        verdict=found.verdict,
        coverage=found.fraction(level),
        one_sigma=found.fraction(ONE_SIGMA),
        two_sigma=found.fraction(TWO_SIGMA),
        pull_width=found.pull_width(),
        factor=factor_on_sigma(found, level),
        curve=tuple(zip(nominal, fractions, errors, strict=True)),
        how=how,
        trainings=found.trainings,
        size=size,
        quantities=found.ranks.shape[1],
        draws=found.draws,
        seed=seed,
        rounds=tuple(rounds),
    )


def smallest_error(level: float, trainings: int, independent: float) -> float:
    """Binomial error of a coverage, of which every training counts for so many independent intervals."""
    return math.sqrt(level * (1 - level) / (trainings * independent))
