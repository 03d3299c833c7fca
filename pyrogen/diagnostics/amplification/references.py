"""Generators of known worth, beside which others are judged: the truth, its form, a kernel density, the sample itself.

Each has ``sample(n, seed=...)``, as :func:`~pyrogen.diagnostics.amplification` needs it. [D] is arXiv:2008.06545.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyrogen.bayes.inputs import as_tensor, checked_events, data_digest
from pyrogen.checks import POSITIVE, SEED, check_memory, door, instance, is_number, require, require_extra, whole
from pyrogen.events import EventsLike
from pyrogen.events.doors import EVENTS
from pyrogen.hdf5 import uninterrupted
from pyrogen.printing import Brief
from pyrogen.seeds import seeded
from pyrogen.targets.base import Target

Array = NDArray[np.float64]
PARAMETERS = ("mean1", "width1", "mean2", "width2", "fraction")
RULES = ("likelihood", "scott")
SPLITS = (0.25, 0.5, 0.75)  # quantiles of the events between the Gaussians where a fit starts
NARROWEST = 0.01  # width of a fitted Gaussian, of the spread of all events: on one event the likelihood has no bound
FLAT = 1e-6  # width in a direction, of that of the events, at which they lie in a plane
BANDWIDTHS = np.geomspace(0.02, 2.0, 100)  # in units of the spread of the events; neighbours differ by 5 %


@dataclass(frozen=True, eq=False, repr=False)
class Reference(Brief):
    """A generator with ``sample`` only.

    Attributes:
        training_events: events N that it was made from; None for the truth, which needs none.
        data_sha256: their digest, by which two generators of the same events are known; None for the truth.
    """

    training_events: int | None
    data_sha256: str | None

    @door(n=whole(0), seed=SEED)
    def sample(self, n: int, seed: int = 0) -> Tensor:
        """``n`` independent events ``[n, d]`` in double precision."""
        check_memory("n", n, 8.0 * n, "draw fewer at a time")
        with seeded(seed):
            return self._draw(n)

    @abstractmethod
    def _draw(self, n: int) -> Tensor:
        """Events ``[n, d]`` by torch's global random numbers."""


@dataclass(frozen=True, eq=False, repr=False)
class Truth(Reference):
    """True events: the generator that knows the density, whose amplification has no limit.

    Attributes:
        target: the truth.
    """

    target: Target

    def _draw(self, n: int) -> Tensor:
        return self.target.sample((n,)).double()


@door(target=instance(Target, "a target of pyrogen.targets"))
def truth(target: Target) -> Truth:
    """The target as a generator."""
    return Truth(None, None, target)


@dataclass(frozen=True, eq=False, repr=False)
class Memorised(Reference):
    """Training events, drawn again with replacement: a generator that learned its sample by heart, of factor 1.

    Attributes:
        events: the training events ``[N, d]``.
    """

    events: Tensor

    def _draw(self, n: int) -> Tensor:
        return self.events[torch.randint(len(self.events), (n,))]


@door(events=EVENTS)
def memorised(events: EventsLike) -> Memorised:
    """A generator that gives back its training events ``[N, d]`` and nothing else."""
    x = _values(events, 1)
    return Memorised(len(x), _digest(x), x)


@dataclass(frozen=True, eq=False, repr=False)
class KernelDensity(Reference):
    """Gaussian kernels around all training events, with the shape of their covariance.

    Attributes:
        events: the training events ``[N, d]``.
        bandwidth: width of the kernels, in units of the standard deviations of the events.
        rule: how it was found: ``"likelihood"``, ``"scott"`` or ``"given"``.
        spread: matrix ``[d, d]`` whose product with its transpose is the covariance of the events.
    """

    events: Tensor
    bandwidth: float
    rule: str
    spread: Tensor

    def _draw(self, n: int) -> Tensor:
        noise = torch.randn(n, len(self.spread), dtype=torch.float64) @ self.spread.T
        return self.events[torch.randint(len(self.events), (n,))] + self.bandwidth * noise


def _bandwidth(name: str, value: Any) -> float | str:
    if isinstance(value, str):
        require(value in RULES, name, value, f"one of {', '.join(RULES)}, or a positive number")
        return value
    require(is_number(value), name, value, f"one of {', '.join(RULES)}, or a positive number")
    return POSITIVE(name, value)


@door(events=EVENTS, bandwidth=_bandwidth)
def kernel_density(events: EventsLike, bandwidth: float | str = "likelihood") -> KernelDensity:
    """A kernel density estimate of events ``[N, d]``, as a generator.

    Args:
        events: N events without weights.
        bandwidth: ``"likelihood"``: the one with the largest likelihood of the events, each left out from the density
            at itself (between 0.02 and 2); ``"scott"``: ``N^(-1/(d + 4))``, right for one Gaussian and too wide for
            several; or a number, in units of the standard deviations of the events.

    Raises:
        ValueError: events that are weighted, no finite numbers, or in a plane.
    """
    x = _values(events, 3)
    spread, singular = torch.linalg.cholesky_ex(torch.atleast_2d(torch.cov(x.T)))
    # Width of each column where those before it are given, over its own.
    if singular or (spread.diagonal() < FLAT * x.std(0)).any():
        raise ValueError(
            f"events lie in a plane of fewer than {x.shape[1]} dimensions; a kernel needs their covariance"
        )
    if isinstance(bandwidth, str):
        width = _best_bandwidth(x, spread) if bandwidth == "likelihood" else len(x) ** (-1 / (x.shape[1] + 4))
        return KernelDensity(len(x), _digest(x), x, float(width), bandwidth, spread)
    return KernelDensity(len(x), _digest(x), x, bandwidth, "given", spread)


def _best_bandwidth(x: Tensor, spread: Tensor) -> float:
    """The width with the largest likelihood of events that are left out one by one."""
    check_memory("events", len(x), 24.0 * len(x) ** 2, 'give bandwidth="scott"')
    scaled = torch.linalg.solve_triangular(spread, (x - x.mean(0)).T, upper=False).T
    exact = "donot_use_mm_for_euclid_dist"  # products of matrices lose the distances of near events
    distances = torch.cdist(scaled, scaled, compute_mode=exact).square().fill_diagonal_(math.inf)

    def likelihood(width: float) -> float:
        kernels = torch.logsumexp(-distances / (2 * width**2), 1) - x.shape[1] * math.log(width)
        return float(kernels.sum())

    return max(BANDWIDTHS.tolist(), key=likelihood)


@dataclass(frozen=True, eq=False, repr=False)
class TwoGaussians(Reference):
    """The fitted form ``fraction N(mean1, width1) + (1 - fraction) N(mean2, width2)`` as a generator [D sec. 2].

    Attributes:
        values: the five parameters by name.
        covariance: ``[5, 5]``, in their order, from the second derivatives; NaN where the fit gave none.
        converged: whether the minimiser found a valid minimum away from the limits.
    """

    values: dict[str, float]
    covariance: Array = field(compare=False)
    converged: bool

    def _summary(self) -> str:
        told = [f"{name} = {value:.4g} +- {self.errors[name]:.2g}" for name, value in self.values.items()]
        return ", ".join([*told, f"{self.training_events} events", *["not converged"] * (not self.converged)])

    @property
    def errors(self) -> dict[str, float]:
        """The uncertainty of every parameter, by its name."""
        return dict(zip(self.values, np.sqrt(np.diag(self.covariance)).tolist(), strict=True))

    def _draw(self, n: int) -> Tensor:
        mean1, width1, mean2, width2, fraction = (self.values[name] for name in PARAMETERS)
        first, noise = torch.rand(n, 1) < fraction, torch.randn(n, 1, dtype=torch.float64)
        return torch.where(first, mean1 + width1 * noise, mean2 + width2 * noise)


@door(events=EVENTS)
def fit_two_gaussians(events: EventsLike) -> TwoGaussians:
    """The benchmark of [D]: the unbinned maximum-likelihood fit of two Gaussians with five free parameters.

    The fit starts from three splits of the events, and the best minimum is kept. A Gaussian on a single event has an
    infinite likelihood, so widths end at a hundredth of the spread of all events, and the fraction at 0 and 1. A fit
    that is not valid, or ends at such a limit, has ``converged=False``.

    Args:
        events: ``[N, 1]``, N >= 10, without weights.

    Raises:
        ImportError: iminuit is missing.
        ValueError: events with more columns than one, weighted, no finite numbers, or all the same.
    """
    require_extra("iminuit", "fits", "fit_two_gaussians")
    with uninterrupted():
        from iminuit import Minuit

    values = _values(events, 10)
    require(values.shape[1] == 1, "events", list(values.shape), "events of one column, [N, 1]")
    x = values[:, 0].numpy()
    require(float(x.std()) > 0, "events", float(x[0]), "different events")
    centre, unit = float(x.mean()), float(x.std())
    x, spread = (x - centre) / unit, 1.0  # the minimiser's steps and tolerances are for numbers of order one
    fits = []
    for split in SPLITS:
        minimiser = Minuit(lambda *p: -float(_log_density(x, *p).sum()), *_start(x, split, spread), name=PARAMETERS)
        minimiser.errordef = Minuit.LIKELIHOOD
        minimiser.limits = [(None, None), (NARROWEST * spread, None)] * 2 + [(0, 1)]
        fits.append(minimiser.migrad())
    best = min(fits, key=lambda fit: (not fit.valid, fit.fval))
    found = dict(zip(PARAMETERS, (float(value) for value in best.values), strict=True))
    if found["mean1"] > found["mean2"]:  # which is the first, is a matter of the start
        order = (2, 3, 0, 1, 4)
        found = dict(zip(PARAMETERS, (found[PARAMETERS[i]] for i in order), strict=True))
        found["fraction"] = 1 - found["fraction"]
    else:
        order = (0, 1, 2, 3, 4)
    covariance = np.full((5, 5), np.nan) if best.covariance is None else np.array(best.covariance)[np.ix_(order, order)]
    if order[0]:
        covariance[4, :4] *= -1
        covariance[:4, 4] *= -1
    inside = min(found["width1"], found["width2"]) > 1.01 * NARROWEST * spread
    inside &= 0.1 < found["fraction"] * len(x) < len(x) - 0.1
    for name in PARAMETERS[:4]:
        found[name] = found[name] * unit + centre * name.startswith("mean")
    covariance *= np.outer(units := np.array([unit] * 4 + [1.0]), units)
    return TwoGaussians(len(x), _digest(values), found, covariance, bool(best.valid and inside))


def _start(x: Array, split: float, spread: float) -> tuple[float, ...]:
    """Means and widths of the events to both sides of a quantile, and their fraction."""
    low, high = np.split(np.sort(x), [max(2, round(split * len(x)))])
    return (low.mean(), low.std() + 0.05 * spread, high.mean(), high.std() + 0.05 * spread, split)


def _log_density(x: Array, mean1: float, width1: float, mean2: float, width2: float, fraction: float) -> Array:
    with np.errstate(divide="ignore"):  # fractions of 0 and 1 are limits
        first = np.log(fraction / width1) - 0.5 * ((x - mean1) / width1) ** 2
        second = np.log((1 - fraction) / width2) - 0.5 * ((x - mean2) / width2) ** 2
    return np.logaddexp(first, second) - 0.5 * math.log(2 * math.pi)


def _digest(x: Tensor) -> str:
    return data_digest({"events": x})


def _values(events: EventsLike, least: int) -> Tensor:
    """Checked events ``[N, d]`` without weights, in double precision."""
    table = checked_events(events, None)
    if table.weights is not None:
        raise ValueError("events have weights; give unweighted events, EventSample(events.values)")
    x = as_tensor(table.values, torch.float64).detach().cpu()
    if len(x) < least:
        raise ValueError(f"events has {len(x)} rows; at least {least} are needed")
    if not torch.isfinite(torch.cat([x.mean(0), (x - x.mean(0)).square().sum(0)])).all():
        raise ValueError("events has numbers too large for their variance; give them in other units")
    return x
