"""Checks of a density against events for :func:`pyrogen.diagnostics.advise`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyrogen.diagnostics.agreement import agreement
from pyrogen.diagnostics.integral import integral
from pyrogen.diagnostics.look import Look, NotCheckedError
from pyrogen.posterior.info import Finding

OUTSIDE = 0.01  # fraction of generated events, or of conditions
UNNORMALISED = 0.02
NOTICED, WRONG = 0.03, 0.1  # relative deviation of bins of generated events


def density(look: Look) -> Iterator[Finding]:
    assert look.events is not None
    rows = torch.arange(len(look.events))[: look.generated]
    context = None if look.context is None else look.context[rows]
    draws = look.posterior.weights.count(look.draws)
    log_prob = look.posterior.log_prob(look.events[rows], draws, context=context, seed=look.seed)
    bad = (~log_prob.isfinite()).double().mean(0)
    if (bad > 0).any():
        first = int((bad > 0).nonzero()[0, 0])
        yield Finding(
            "no density at some events",
            f"log p is not finite at {int((bad > 0).sum())} of {len(rows)} events in some draws; the first is row "
            f"{first}: {look.events[first].tolist()}",
            "Check the box or the preprocessing of the flow, or use dtype=torch.float64",
        )


def generated(look: Look) -> Iterator[Finding]:
    if look.posterior.model.context and look.context is None:
        raise NotCheckedError("give the conditions of the events, context=...")
    rows = look.not_finite.any(1)
    if rows.any():
        worst = look.posterior.names[int(look.not_finite.sum(0).argmax())]
        yield Finding(
            "generated events overflow",
            f"{int(rows.sum())} of {len(rows)} generated events hold NaN or infinity, most of them in {worst}",
            "Train longer. If the preprocessing has a Log(), try Positive() instead, whose inverse does not overflow; "
            "or use dtype=torch.float64",
        )


def normalisation(look: Look) -> Iterator[Finding]:
    if look.posterior.model.context:
        raise NotCheckedError("the flow is conditional")
    look.need_finite()
    draws = min(20, look.posterior.weights.count(look.draws))
    if draws < 2:
        raise NotCheckedError("a single draw")
    found = integral(look.posterior, draws, look.seed)
    if not math.isfinite(found.value):
        yield Finding("density not normalised", "p(x) is NaN or infinite at some points", "Use dtype=torch.float64")
    elif abs(found.value - 1) > max(UNNORMALISED, 5 * found.error):
        yield Finding(
            "density not normalised",
            f"it integrates to {found.value:.3f} +- {found.error:.3f}",
            "Check that log_prob and sample of your flow belong together, with all Jacobians, and that a bijection "
            "of yours tells where it is defined; or use dtype=torch.float64",
        )
    elif found.unknown:
        raise NotCheckedError(found.unknown)


def beyond(look: Look) -> Iterator[Finding]:
    if look.posterior.model.context:
        raise NotCheckedError("the flow is conditional")
    if look.support is None and look.events is None:
        raise NotCheckedError("give events or support")
    look.need_finite()
    sample = look.own_events
    if look.support is not None:
        outside = ~inside(look.support, sample)
        where, expected = "of the support", 0.0
    else:
        assert look.events is not None
        beyond = (sample < look.events.min(0).values) | (sample > look.events.max(0).values)
        outside, worst = beyond.any(1), int(beyond.double().mean(0).argmax())
        # Of new events beyond the extremes of old ones: the mean, and twice its standard deviation.
        d = sample.shape[1]
        expected = (2 * d + 2 * math.sqrt(2 * d)) / (len(look.events) + 1)
        where = f"of the range of the training events, most of them in {look.posterior.names[worst]}"
    share = float(outside.double().mean())
    if share > OUTSIDE + expected + 3 * math.sqrt((OUTSIDE + expected) / look.generated):
        yield Finding(
            "events outside",
            f"{share:.1%} of the generated events lie outside {where}",
            _limits(look),
            serious=share - expected > 5 * OUTSIDE,
        )


def distribution(look: Look) -> Iterator[Finding]:
    """Generated events against the true ones, in every column and pair of columns."""
    if look.sample is None:
        raise NotCheckedError("give events")
    if look.posterior.model.context and look.context is None:
        raise NotCheckedError("give the conditions of the events, context=...")
    look.need_finite()
    try:
        found = agreement(
            look.sample[: len(look.own_events)] if look.context is not None else look.sample, look.own_events
        )
    except ValueError as reason:
        raise NotCheckedError(str(reason)) from reason
    worst = int(np.argmax(np.where(found.significant, found.deviation, -1)))
    others = int(found.significant.sum()) - 1
    if others >= 0 and found.deviation[worst] > NOTICED:
        more = f"; {others} more of the {len(found.names)} columns and pairs differ" if others else ""
        yield Finding(
            "generated events differ",
            f"the distribution of {' and '.join(found.names[worst])} is off by {found.deviation[worst]:.0%} per bin, "
            f"with a chi2 of {found.chi2[worst]:.0f} for {found.freedom[worst]} degrees of freedom{more}",
            "First mend 'more weights than events'"
            if look.crowded
            else "See that the training ended. Then try splines (transform='rqs'), more blocks, or a preprocessing "
            "that suits the columns (Log for positive ones, Dequantise for integers, UnitBox for limits); "
            "agreement(events, generated).text() shows all columns",
            serious=bool(found.deviation[worst] > WRONG),
        )


def conditions(look: Look) -> Iterator[Finding]:
    trained = look.posterior.info.context_range
    if look.context is None:
        raise NotCheckedError("give the conditions, context=...")
    if trained is None:
        raise NotCheckedError("the range of the training's conditions is not on record")
    low, high = torch.tensor(trained, dtype=torch.float64).T
    beyond = (look.context < low) | (look.context > high)
    share, worst = float(beyond.any(1).double().mean()), int(beyond.double().mean(0).argmax())
    if share > OUTSIDE:
        yield Finding(
            "conditions outside",
            f"{share:.1%} of the conditions lie outside the range of the training, which is {low[worst]:g} to "
            f"{high[worst]:g} in column {worst}",
            "There the density is an extrapolation, and sigma does not tell how far it is off. Train on that range too",
        )


def _limits(look: Look) -> str:
    """How to keep generated events inside."""
    if look.posterior.model.on_unit_box:
        return (
            "The flow is on the unit box already: give its UnitBox(low, high) the limits of the support, or cut the "
            "same way in data and prediction"
        )
    return (
        "Where limits are known, learn on the unit box (base='uniform' with preprocessing=UnitBox(low, high)); "
        "otherwise cut the same way in data and prediction"
    )


def inside(support: Any, events: Tensor) -> Tensor:
    """Which events ``[n, d]`` are inside, ``[n]``."""
    check = support.support.check if hasattr(support, "support") else support
    inside = torch.as_tensor(check(events)).bool()
    if inside.shape != (len(events),):
        raise ValueError(f"support gave shape {list(inside.shape)} for {len(events)} events; it must be [n]")
    return inside
