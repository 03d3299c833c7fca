"""Checks of a run for :func:`pyrogen.diagnostics.advise`: its own warnings, the end of its training, its chains."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from pyrogen.coverage.chains import has_chains
from pyrogen.diagnostics.convergence import function_space, probe_points
from pyrogen.diagnostics.look import Look, NotCheckedError
from pyrogen.posterior.info import Finding, RunInfo
from pyrogen.posterior.weights import DRAWS, MeanField, PartlyRandom

Array = NDArray[np.float64]
LARGEST_RHAT = 1.05
FEWEST_EFFECTIVE = 100  # effective draws per chain (arXiv:1903.08008)
FEWEST_DRAWS = 30  # weight draws of a prediction ([A] sec. 3.5)
FEWEST_STEPS = 2_000  # of a training whose curve is too short to tell whether it ended
BALANCE = 0.7  # of the pull of the prior on the widths, that the data must at least hold back
BALANCED = 2_000  # events by which that is judged
FALLING_NLL = 0.005  # nats per event: a tenth of the density, as KL(p, q) = (dp/p)^2 / 2
COLLAPSED = 0.2  # largest |log(width / initial width)| of a width that has not moved
WITH_WIDTHS = (MeanField, PartlyRandom)  # one width per random weight, zero for a point
PROBES, EVALUATED = 100, 400  # probe points, and draws per chain evaluated at them


def recorded(look: Look) -> Iterator[Finding]:
    yield from look.posterior.info.findings
    skipped = float(np.sum(look.posterior.history.get("skipped_steps", 0.0)))
    if skipped:
        yield Finding(
            "steps left out",
            f"{skipped:.0f} steps of the training had no finite gradient",
            "A few in a long training do no harm; for more, lower lr or clip",
            serious=False,
        )


def kind(look: Look) -> Iterator[Finding]:
    info, weights = look.posterior.info, look.posterior.weights
    if info.tempered and info.calibration is None:
        power = info.settings.get("kl_weight", info.settings.get("temperature"))
        what = "the KL was weighted by" if "kl_weight" in info.settings else "the temperature was"
        yield Finding(
            "tempered",
            f"{what} {power}: no posterior of these events",
            "Its sigma is to be calibrated (pg.calibrate), and to be labelled as tempered wherever shown",
            serious=False,
        )
    if not (info.is_posterior and weights.has_spread):
        yield Finding(
            "no posterior",
            "single networks do not follow a posterior, and their spread is not its sigma",
            "Use SVI or a sampler; show the spread of an ensemble as what trainings differ by",
        )
    if weights.independent and not info.tempered and info.calibration is None:
        yield Finding(
            "mean field",
            "independent weights cannot follow the ridges of a posterior; in the study of the docs (calibration) "
            "their sigma was several times that of sampled posteriors and of the true spread",
            "Calibrate it for your events (pg.calibrate), or take pg.Bootstrap, or HMC on fewer events",
            serious=False,
        )
    if isinstance(weights, PartlyRandom) and info.calibration is None:
        yield Finding(
            "partly random",
            "the weights below the last layers are points, and sigma leaves out what they leave open",
            "Calibrate it for your events (pg.calibrate), or take pg.Bootstrap",
            serious=False,
        )


def size(look: Look) -> Iterator[Finding]:
    if look.posterior.info.size is None:
        raise NotCheckedError("the number of training events is not known")
    if look.crowded:
        weight = look.posterior.info.settings.get("kl_weight", 1.0)
        counted = "" if weight == 1 else f", which count {1 / weight:.3g} times,"
        yield Finding(
            "more weights than events",
            f"{look.posterior.weights.size:,} weights for {look.posterior.info.size:,.0f} training events{counted}: "
            "the KL of a mean-field guide outweighs the likelihood, and the longer it trains, the closer most weights "
            "come to their prior, and the more the density blurs",
            "Train replicas (Bootstrap), weigh the KL less (kl_weight=0.1) and calibrate sigma (calibrate), or take a "
            "flow with about as many weights as events. Early stopping is no mend. See docs/calibration.md, How large "
            "may the flow be?",
        )


def curve(look: Look) -> Iterator[Finding]:
    history = look.posterior.history
    rate = np.asarray(history.get("learning_rate", ()))
    if "step" in history:  # of networks that Adam trained, with their prior
        what, more, nll = "loss", "steps", np.asarray(history["loss"]).mean(0)
    else:
        what, more, nll = "negative log-likelihood", "epochs", np.asarray(history.get("nll", ()))
    # The time of a training is the sum of its learning rates: a schedule that falls to zero makes every curve flat
    # in epochs.
    time = np.cumsum(rate) / np.sum(rate)
    parts = [nll[(time > first) & (time <= first + 1 / 6) & np.isfinite(nll)] for first in (4 / 6, 5 / 6)]
    if min(map(len, parts)) < 4:
        steps = _steps(look.posterior.info)
        if steps is None or steps >= FEWEST_STEPS:
            raise NotCheckedError(f"{len(nll)} points of the curve are too few to see a trend")
        yield Finding(
            "short training",
            f"{steps} steps in {len(nll)} epochs are too few for a result, and to see whether the loss still falls",
            f"Train for {FEWEST_STEPS} steps or more, in 60 epochs or more",
        )
        return
    (before, error), (last, last_error) = map(_median, parts)
    fallen = before - last
    if fallen > max(FALLING_NLL, 4 * math.hypot(error, last_error)):
        yield Finding(
            "loss still falling",
            f"from the fifth to the last sixth of the training (counted in learning rate) the {what} "
            f"fell by {fallen:.3f} nats per event. A density that is off by "
            f"{math.sqrt(2 * fallen):.0%} loses as much",
            _longer(look, f"Train for more {more}, or with a larger lr"),
        )


def widths(look: Look) -> Iterator[Finding]:
    weights, info = look.posterior.weights, look.posterior.info
    initial = info.settings.get("init_scale")
    if not isinstance(weights, WITH_WIDTHS) or not initial:
        raise NotCheckedError("only a mean-field guide has one width per weight")
    scale = weights.arrays["scale"]
    moved = (scale[scale > 0] / initial).log().abs() > COLLAPSED
    share = 1 - float(moved.double().mean())
    if share > 0.5:
        yield Finding(
            "guide collapsed to its initial width",
            f"{share:.0%} of the widths are still what they started as, {initial:g}: sigma is that of the settings",
            "Raise lr_widths, let the widths start earlier (widths_after), or train for more epochs",
        )


def balance(look: Look) -> Iterator[Finding]:
    """At the maximum of the ELBO, prior and data pull a common factor on all widths with the same force:
    ``sum_i (1 - sigma_i^2 / s_i^2)`` and ``N d/dlog(factor) E_q[-log p]``."""
    weights, model, info = look.posterior.weights, look.posterior.model, look.posterior.info
    if not isinstance(weights, WITH_WIDTHS) or look.events is None or info.effective_size is None or model.context:
        raise NotCheckedError("it takes an unconditional mean-field posterior and its training events")
    if info.is_weighted:
        raise NotCheckedError("the training events were weighted")
    location, scale = weights.arrays["loc"], weights.arrays["scale"]
    outward = info.settings.get("kl_weight", 1.0) * float((1 - (scale / model.prior_scales).square())[scale > 0].sum())
    events = probe_points(look.events, min(BALANCED, len(look.events)), look.seed).to(model.device, model.input_dtype)
    forces = []
    with torch.no_grad():
        for theta in weights.draws(DRAWS, look.seed + 3):
            offset = theta - location  # the same noise for both, so that the difference is known well
            nll = [-model.log_prob(location + f * offset, events).double().mean() for f in (0.9, 1.1)]
            forces.append(info.effective_size * float(nll[1] - nll[0]) / 0.2)
    inward, error = float(np.mean(forces)), float(np.std(forces, ddof=1)) / math.sqrt(len(forces))
    if not math.isfinite(inward + error):
        raise NotCheckedError("log p is not finite at some events")
    if inward + 3 * error < BALANCE * outward:
        yield Finding(
            "widths still growing",
            f"at the end of the training the prior pulled all widths outwards with {outward:.4g}, and the data pulled "
            f"inwards with {inward:.4g} +- {error:.2g}; in a finished training the two are equal",
            _longer(
                look,
                "Until then sigma is a matter of the settings. Train for more epochs, with a larger lr_widths, or let "
                "the widths start earlier (widths_after)",
            ),
        )


def number(look: Look) -> Iterator[Finding]:
    stored = look.posterior.weights.stored or 0
    if stored < FEWEST_DRAWS:
        known = look.posterior.info.details.get("sigma_error", 1 / math.sqrt(2 * max(stored - 1, 1)))
        yield Finding(
            "few draws",
            f"{stored} networks: their standard deviation is known to {known:.0%}",
            f"Take {FEWEST_DRAWS} or more",
            serious=stored < 10,
        )


def chains(look: Look) -> Iterator[Finding]:
    stored = look.posterior.weights.arrays["draws"]
    if not look.posterior.info.is_posterior or not has_chains(look.posterior):
        raise NotCheckedError(f"{len(stored)} x {stored.shape[1]} draws are no chains that could converge")
    if look.posterior.model.context:
        raise NotCheckedError("the flow is conditional; use function_space at conditions of your choice")
    source = look.posterior.sample(PROBES, seed=look.seed) if look.events is None else look.events
    probes = probe_points(source, min(PROBES, len(source)), look.seed)
    try:
        found = function_space(look.posterior, probes, min(stored.shape[1], EVALUATED))
    except ValueError as reason:
        raise NotCheckedError(str(reason)) from reason
    chains = len(stored)
    if found.largest_rhat > LARGEST_RHAT:
        yield Finding(
            "chains apart" if chains > 1 else "the chain drifts",
            f"R-hat of log p(x) is up to {found.largest_rhat:.2f} at {len(probes)} probe points",
            "Run a longer warm-up and more draws. If R-hat stays, take a smoother flow (transform='bernstein', "
            "prior_scale='fan-in'). If it still stays, the chains sit in different modes: say so with the result",
        )
    if found.smallest_ess < FEWEST_EFFECTIVE * chains:
        yield Finding(
            "few effective draws",
            f"{found.smallest_ess:.0f} of {found.log_prob[..., 0].size} at the worst of {len(probes)} probe points",
            f"Raise draws or thinning until there are {FEWEST_EFFECTIVE * chains}",
            serious=found.smallest_ess < FEWEST_DRAWS,
        )
    if chains == 1:
        yield Finding("one chain", "it cannot see a mode that it never met", "Run four (chains=4)", serious=False)


def _median(values: Array) -> tuple[float, float]:
    """Median, which single spikes do not impress, and its error from the median absolute deviation."""
    middle = float(np.median(values))
    return middle, 1.2533 * 1.4826 * float(np.median(np.abs(values - middle))) / math.sqrt(len(values))


def _longer(look: Look, advice: str) -> str:
    """The advice to train longer, unless that makes it worse."""
    if look.crowded:
        return "Do not train longer: first mend 'more weights than events'"
    return advice


def _steps(info: RunInfo) -> int | None:
    """Number of optimizer steps of a variational training; None where it is not known."""
    batch = info.settings.get("batch_size")
    if not batch or info.epochs_done is None or info.training_events is None:
        return None
    return info.epochs_done * math.ceil(info.training_events / batch)
