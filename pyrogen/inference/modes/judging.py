"""Which replicas of a bootstrap failed to train, from their losses and densities."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyrogen.inference.problems import SamplingError
from pyrogen.posterior.info import Finding
from pyrogen.posterior.jackknife import sigma_and_error
from pyrogen.signals import uninterrupted

FAR = 10.0  # square of the deviation, in sigma, from which on a replica failed to train, if it is also
RARE = 1e-3  # as rare among good ones, and
SPREADS = 6.0  # so many standard deviations of the losses above their median
TELLING = 4  # replicas that it takes to tell which one of them failed
NEIGHBOURS = 11  # replicas that each one is held against
PROBED = 200  # events at which sigma is found, to judge the replicas
MANY_FAILED = 0.1  # share of the replicas


class Verdict(NamedTuple):
    """What was found of R replicas.

    Attributes:
        failed: which of them failed to train, ``[R]``.
        findings: what is wrong with them.
        details: how many there were, which failed, and the error of sigma that their number leaves.
    """

    failed: Tensor
    findings: tuple[Finding, ...]
    details: dict[str, Any]


def judged(nll: Tensor, log_density: Tensor, skipped: Tensor, after: str, which: str = "") -> Verdict:
    """Judge R replicas at their end.

    Args:
        nll: loss per event of every replica, ``[R]``.
        log_density: log densities ``[R, n]`` at some of the events.
        skipped: number of steps left out, ``[R]``.
        after: how long the training was and what to try, for errors.
        which: the sample, in words.

    Raises:
        SamplingError: fewer than three did not fail.
    """
    failed = far_above(nll, log_density)
    kept = int((~failed).sum())
    if kept < 3:
        raise SamplingError(
            f"{which}{kept} of {len(nll)} replicas ended with a finite loss near that of the others {after} or "
            "dtype=torch.float64, with another checkpoint file if there is one"
        )
    findings = *left_out(nll, failed, which), *untold(nll, which), *steps_left_out(skipped, which)
    density = log_density[~failed]
    # Relative to the largest at each event: no number may hold a density per unit of the events itself.
    sigma, error = sigma_and_error((density - density.amax(0)).exp())
    known = sigma > 0
    details: dict[str, Any] = {
        "replicas": len(nll),
        "left_out": failed.nonzero()[:, 0].tolist(),
        "sigma_error": float((error[known] / sigma[known]).median()) if known.any() else 0.0,
    }
    return Verdict(failed, findings, details)


def probed(size: int, weights: Tensor | None) -> Tensor:
    """Rows of the events at which replicas are judged: spread evenly, of weighted events in proportion to ``abs(w)``.

    A loss is a weighted mean too: where the weights sit at events that are badly known, it differs by more.
    """
    n = min(PROBED, size)
    if weights is None:
        return torch.linspace(0, size - 1, n).round().long()
    upto = weights.double().abs().cumsum(0)
    at = (torch.arange(n, dtype=torch.float64, device=upto.device) + 0.5) / n * upto[-1]
    return torch.searchsorted(upto, at).clamp(max=size - 1)


def far_above(nll: Tensor, log_density: Tensor) -> Tensor:
    """Which replicas failed to train, ``[R]``.

    A replica whose log density is off by ``d(x)`` loses about ``mean(d^2) / 2`` nats per event, and d is typically as
    large as sigma of the log density. One that lost :data:`FAR` times as much did not find the density, unless d^2 of
    good replicas is as large more often than :data:`RARE`: where k independent numbers decide d, d^2 over a sigma^2
    from R replicas is much like Fisher's F of k and k (R - 2) degrees of freedom. (Simulated: at most 1 in 1,000 good
    replicas is left out.) Where the prior pulls the replicas away from the events, losses differ more: so the limit is
    at least :data:`SPREADS` of their own standard deviations above the median, or as rare.

    Three replicas do not tell which of them is right: only those without a finite loss failed then.

    Args:
        nll: loss per event of every replica at its end, ``[R]``.
        log_density: log densities ``[R, n]`` at some of the events.
    """
    with uninterrupted():
        from scipy.special import fdtri  # here: nothing else of a training needs it

    good = nll.isfinite()
    count = int(good.sum())
    if count < TELLING:
        return ~good
    sigma, k = _robust_sigma(log_density[good]), _numbers_behind(log_density[good])
    square, spreads = fdtri(k, k * (count - 2), 1 - RARE), math.sqrt(fdtri(1, count - 2, 1 - RARE))
    far = torch.maximum(
        0.5 * max(FAR, float(square)) * sigma.square().nan_to_num(0.0, 0.0).mean(),
        max(SPREADS, spreads) * _robust_sigma(nll[good]),
    )
    limit = nll[good].median() + far
    return ~(nll <= limit + 1e-6 * limit.abs())


def _robust_sigma(values: Tensor) -> Tensor:
    """Standard deviation of R Gaussian numbers ``[R, ...]`` from the median distance of two of them (Shamos 1976).

    A few that lie far away do not impress it. Of many numbers each is held against its next neighbours alone.
    """
    pairs = [(values - values.roll(shift, 0)).abs() for shift in range(1, min(len(values), NEIGHBOURS))]
    return torch.cat(pairs).median(0).values / (0.6745 * math.sqrt(2))


def left_out(nll: Tensor, failed: Tensor, which: str = "") -> Iterator[Finding]:
    """Which replicas are left out, and why.

    Args:
        nll: loss per event of every replica at its end, ``[R]``.
        failed: which of them failed, ``[R]``.
        which: the sample, in words.
    """
    if failed.any():
        middle = float(nll[~failed].median())
        named = ", ".join(f"{r} ({nll[r]:.4f})" for r in failed.nonzero()[:, 0].tolist())
        yield Finding(
            "replicas left out",
            f"{which}{int(failed.sum())} of {len(nll)} replicas failed to train and are left out: {named}; the median "
            f"of the others is {middle:.4f} nats per event",
            "A few do no harm. For more, try more steps, a smaller lr or another flow",
            serious=float(failed.double().mean()) > MANY_FAILED,
        )


def _numbers_behind(values: Tensor) -> float:
    """At least how many independent numbers decide how R replicas ``[R, n]`` differ.

    Differences of replicas that share none are parallel where it is one number. Of k equal ones the square of the
    cosine is 1/k on average; of unequal ones its root is at least the share of the largest, whose tail counts. How far
    a replica lies away does not matter.
    """
    steps = torch.nn.functional.normalize(values - values.roll(1, 0), dim=1)
    apart = torch.arange(len(values))
    apart = (apart[:, None] - apart) % len(values)
    share = (steps @ steps.T).square()[((apart > 1) & (apart < len(values) - 1)).to(values.device)].mean()
    return 1 / math.sqrt(float(share)) if 0 < share <= 1 else 1.0


def untold(nll: Tensor, which: str = "") -> Iterator[Finding]:
    """Whether the replicas are too few to tell which of them failed, by their losses ``nll [R]``."""
    good = nll.isfinite()
    if good.sum() < TELLING:
        named = ", ".join(f"{loss:.4f}" for loss in nll[good].tolist())
        yield Finding(
            "too few replicas to find those that failed",
            f"{which}{int(good.sum())} replicas have a finite loss, {named} nats per event, and if one of them failed "
            "to train it cannot be told from the others",
            f"Take {TELLING} replicas or more, better 24",
            serious=False,
        )


def steps_left_out(skipped: Tensor, which: str = "") -> Iterator[Finding]:
    """Which replicas left out steps, from their numbers ``skipped [R]``."""
    if skipped.any():
        named = ", ".join(f"{r} ({skipped[r]:.0f})" for r in skipped.nonzero()[:, 0].tolist())
        yield Finding(
            "steps left out",
            f"{which}the loss of {int((skipped > 0).sum())} of {len(skipped)} replicas was NaN or infinite in some "
            f"steps, which were left out: {named}",
            "Try a smaller lr or dtype=torch.float64",
            serious=False,
        )
