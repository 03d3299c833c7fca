"""Weights of files from event generators: what they sum up to, and which samples may be counted together.

The strategy (IDWTUP) of the Les Houches accord (hep-ph/0109068, table 4) says what the weights of a file mean. For 1, 2
and 4, and their negatives, their mean is the cross section; for 3 and -3 the events have weights of 1 or -1, or, by a
custom of some generators, weights that sum up to the cross section.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

WEIGHTS_IN_PB = "pb"
"""The entry ``weights`` of a provenance where the weights of all events of a file sum up to its cross section."""

MEAN_IS_CROSS_SECTION, UNWEIGHTED = (1, 2, 4), 3


def to_picobarn(strategy: int, cross_section: float, weights: np.ndarray) -> float:
    """The factor by which the weights of a file are shares of its cross section in pb.

    Args:
        strategy: IDWTUP.
        cross_section: of all processes, in pb; 0 where it is not known.
        weights: of all events of the file.

    Raises:
        ValueError: a strategy that is not known, or unweighted events without a cross section.
    """
    total = float(weights.sum())
    if cross_section > 0 and math.isclose(total, cross_section, rel_tol=0.01):
        return 1.0
    if abs(strategy) in MEAN_IS_CROSS_SECTION:
        return 1 / len(weights)
    if abs(strategy) != UNWEIGHTED:
        raise ValueError(f"the weighting strategy (IDWTUP) {strategy} is not known; it must be 1 to 4 or -1 to -4")
    if not (np.abs(weights) == 1).all():
        return 1.0
    if not (cross_section > 0 and total > 0):
        raise ValueError(
            f"the events are unweighted, with a sum of {total:.6g}, and the cross section is {cross_section:.6g} pb; "
            "both must be positive"
        )
    return cross_section / total


def check_same_normalisation(mine: Mapping[str, Any], others: Mapping[str, Any], what: str, this: str) -> None:
    """Check by the provenance of two samples from generators that an event of both may be counted alike.

    Raises:
        ValueError: weights (or plain events) that are shares of different cross sections, in no common unit.
    """
    known = [told for told in (mine, others) if "weighting_strategy" in told and _is_number(told, "cross_section_pb")]
    common = [told.get("weights") == WEIGHTS_IN_PB for told in (mine, others)]
    if len(known) < 2 or all(common) or (not any(common) and _agree(mine, others)):
        return
    (a, b), files = (f"{told['cross_section_pb']:.6g} pb" for told in known), [told.get("file") for told in known]
    raise ValueError(
        f"{what} comes from {files[1]} with a cross section of {b}, {this} from {files[0]} with {a}, and their weights "
        '(or numbers of events) have no common unit; read these LHE files with weights="pb", so that the weights of '
        "each sum up to its cross section"
    )


def _agree(mine: Mapping[str, Any], others: Mapping[str, Any]) -> bool:
    """Whether two cross sections are those of one process, as far as their errors tell."""
    a, b = (float(told["cross_section_pb"]) for told in (mine, others))
    errors = [
        float(told["cross_section_error_pb"]) for told in (mine, others) if _is_number(told, "cross_section_error_pb")
    ]
    return abs(a - b) <= max(3 * math.hypot(*errors), 1e-3 * max(abs(a), abs(b)))


def _is_number(told: Mapping[str, Any], name: str) -> bool:
    return isinstance(told.get(name), (int, float)) and not isinstance(told.get(name), bool)
