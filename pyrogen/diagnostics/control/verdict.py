"""What weights p_data / p_model say, in plain words."""

from __future__ import annotations

import math
from typing import Any

from pyrogen.diagnostics.control.tables import TWICE

SIGMA_AUC, SIGMA_TAIL = 3.0, 3.5  # several tails are looked at
FEW_IN_TAIL = 10  # events
BELIEVED = 0.01  # p-value of the calibration
TOLERANCE = 0.05  # of w in a bin of the calibration
CONFIRMED = 2.0 * TWICE  # errors by which the slope is above zero, with pairs of folds that count twice
SIGMA_SLOPE = 3.0  # errors by which the slope may be off one


def told(found: Any) -> str:
    """The text of :meth:`ClassifierWeights.text`; ``found`` is one."""
    auc, error = found.auc
    tails, calibration = found.tails(), found.calibration()
    control = found.control
    floor = "" if control is None else f"; truth against truth {control.auc[0]:.4f} +- {control.auc[1]:.4f}"
    lines = [
        f"{len(found.truth):,} true and {len(found.generated):,} generated events, {_made(found)}",
        f"AUC {auc:.4f} +- {error:.4f}{floor}",
        f"width of log w {found.width:.3g}" + _floor(found),
        tails.text(),
        calibration.text() + f"; slope of log w {found.slope[0]:.2f} +- {found.slope[1]:.2f}",
    ]
    return "\n".join([*lines, *(f"-> {each}" for each in verdicts(found))])


def verdicts(found: Any) -> list[str]:
    """What to think of it, a sentence each."""
    return [_difference(found), _belief(found)]


def _made(found: Any) -> str:
    its = found.settings
    return f"{its.get('method', 'classifier')}, {its.get('folds', '?')} folds, ensembles of {its.get('ensemble', '?')}"


def _floor(found: Any) -> str:
    if found.control is None:
        return ""
    why = "" if found.floor > 0 else " (the control's classifiers found nothing to learn: it has too few events)"
    return f", without a difference {found.floor:.3g}{why}"


def _difference(found: Any) -> str:
    sigma_auc, tails = found.auc_significance, found.tails()
    low, high = ("generated events where there are too few true ones", "true events where too few are generated")
    seen = [
        f"w {'<' if cut < 1 else '>'} {cut:g} ({low if cut < 1 else high}, {sigma:.1f} sigma)"
        for cut, sigma, n in zip(tails.cuts, tails.significance, tails.events, strict=True)
        if sigma > SIGMA_TAIL and n >= FEW_IN_TAIL
    ]
    if sigma_auc < -SIGMA_AUC:
        return "The classifier orders the events the wrong way round: it learned noise. Train it on more events."
    if sigma_auc < SIGMA_AUC and not seen:
        return f"The classifier finds no difference in {len(found.generated):,} generated events."
    if sigma_auc < SIGMA_AUC:
        return f"The AUC shows nothing, but the tails do: {'; '.join(seen)}."
    tell = f"; tails: {'; '.join(seen)}." if seen else "."
    above = f"{sigma_auc:.0f} sigma above 0.5" if math.isfinite(sigma_auc) else "1, they do not overlap"
    return f"The samples differ (AUC {above})" + tell


OVERFITTED, UNCHECKED, UNCONFIRMED = "overfitted", "unchecked", "unconfirmed"
MISCALIBRATED, CLOSE, CALIBRATED = "not calibrated", "close", "calibrated"


def belief(found: Any) -> str:
    """Whether the weights can be believed: one of the names above, see :attr:`ClassifierWeights.verdict`."""
    if found.overfitted:
        return OVERFITTED
    curve, (factor, error) = found.calibration(), found.slope
    if len(curve.w) == 1 or not math.isfinite(factor):
        return UNCHECKED
    if factor < CONFIRMED * error:
        return UNCONFIRMED
    if curve.p_value >= BELIEVED and abs(factor - 1) <= SIGMA_SLOPE * error:
        return CALIBRATED
    off = curve.worst if curve.p_value < BELIEVED else abs(factor - 1) * found.scatter
    return MISCALIBRATED if off > TOLERANCE else CLOSE


def _belief(found: Any) -> str:
    (factor, error), curve = found.slope, found.calibration()
    wrong = f"by {curve.worst:.0%} in the worst bin" if curve.worst > 0 else f"the slope is {factor:.2f} +- {error:.2f}"
    return {
        OVERFITTED: f"The classifier is overfitted: on other events log w should be {factor:.2f} times as large. Give "
        "more events, a smaller network or fewer epochs.",
        UNCHECKED: "The weights cannot be checked: the samples are too few, or overlap in too few events.",
        UNCONFIRMED: f"Other events do not confirm the weights (slope {factor:.2f} +- {error:.2f}; 0 of mere noise, 1 "
        f"of right weights): take w = 1. They scatter by {found.scatter:.1%} around it.",
        MISCALIBRATED: f"The weights are not calibrated, {wrong}: use recalibrated().",
        CLOSE: f"The weights are right within {max(curve.worst, 0.001):.1%} in every bin, though not within their "
        "errors.",
        CALIBRATED: "The weights are calibrated: they can be believed where there are events.",
    }[belief(found)]
