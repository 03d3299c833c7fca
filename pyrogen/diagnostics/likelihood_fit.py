"""What a maximum-likelihood fit of the true functional form makes of the events: a yardstick for uncertainty maps.

Nothing that learns the density from the same events without knowing its form can do better, but for what it puts in by
a prior. [A] is arXiv:2104.04543.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.func import jacfwd

from pyrogen.bayes.inputs import as_tensor
from pyrogen.checks import array, door, require_extra
from pyrogen.diagnostics.lines import _as_vector
from pyrogen.events import EventSample, EventsLike, check_events
from pyrogen.events.doors import EVENTS
from pyrogen.printing import Brief

Array = NDArray[np.float64]
INSIDE = 0.1  # a parameter starts at least this fraction of its range away from a limit


class HasParameters(Protocol):
    """What :func:`likelihood_fit` needs of a target; the ramps and the Gaussian rings have it.

    Attributes:
        upper_edge: name of the parameter at which the density ends in a step, or None.
    """

    upper_edge: str | None

    @property
    def parameters(self) -> dict[str, float]: ...

    @property
    def parametric_density(self) -> Callable[..., Tensor]: ...

    def parameter_limits(self, t: Tensor) -> dict[str, tuple[float, float]]: ...

    def line_coordinate(self, x: Tensor) -> Tensor: ...


@dataclass(frozen=True, repr=False)
class LikelihoodFit(Brief):
    """Parameters of the true form of a density, fitted to events.

    Attributes:
        values: fitted parameters by name, in the order of ``covariance``.
        covariance: their covariance ``[P, P]``.
        events: number N of events.
        edge: name of the parameter that is an edge of the density, estimated by the largest event; None: there is none.
        at_limit: names of those parameters that ended at a limit of what they may be, such as the slope of a wedge
            beyond which the density would be negative. The truth can then lie to one side only.
        target: whose form was fitted.
        converged: whether the minimiser found a valid minimum.
    """

    values: dict[str, float]
    covariance: Array
    events: int
    edge: str | None
    at_limit: tuple[str, ...]
    target: HasParameters = field(compare=False)
    converged: bool = True

    def _summary(self) -> str:
        errors = self.errors
        return ", ".join(
            [f"{name} = {value:.6g} +- {errors[name]:.2g}" for name, value in self.values.items()]
            + [f"{self.events:,} events"]
            + [f"{name} at its limit" for name in self.at_limit]
            + ["not converged"] * (not self.converged)
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters, in the order of the covariance."""
        return tuple(self.values)

    @property
    def errors(self) -> dict[str, float]:
        """The uncertainty Delta of every parameter, by its name."""
        return dict(zip(self.values, np.sqrt(np.diag(self.covariance)).tolist(), strict=True))

    @door(t=array(1))
    def density(self, t: ArrayLike | Tensor) -> Array:
        """The fitted density at points t ``[n]`` along the lines, in the units of :attr:`LineResult.density`."""
        return self.target.parametric_density(_as_vector("t", t), **self.values).numpy()

    @door(t=array(1))
    def gradients(self, t: ArrayLike | Tensor) -> dict[str, Array]:
        """``dp/d parameter`` at the fitted values, with its sign, ``{name: [n]}``; zero outside the fitted support."""
        return dict(zip(self.names, _derivatives(self.target, _as_vector("t", t), self.values)[1].numpy(), strict=True))

    @door(t=array(1))
    def sigma(self, t: ArrayLike | Tensor) -> Array:
        """Uncertainty ``sqrt(g^T C g)`` of the fitted density ``[n]``, in the units of :attr:`LineResult.sigma`.

        ``g`` are the signed gradients and ``C`` is the whole covariance: correlated parameters neither add in
        quadrature nor without their signs.
        """
        gradients = np.stack([*self.gradients(t).values()])
        return np.sqrt(np.einsum("in,ij,jn->n", gradients, self.covariance, gradients))

    def text(self) -> str:
        """All parameters with their errors, and what is special about them."""
        told = []
        for name, value in self.values.items():
            note = ", the largest event" if name == self.edge else ", at its limit" if name in self.at_limit else ""
            told.append(f"{name} = {value:.6g} +- {self.errors[name]:.2g}{note}")
        return f"maximum-likelihood fit of the true form to {self.events:,} events: " + "; ".join(told)


@door(events=EVENTS)
def likelihood_fit(target: HasParameters, events: EventsLike) -> LikelihoodFit:
    """Fit the true functional form of a target to events, unbinned [A sec. 3; its eqs. 18, 21, 25, 30].

    Maximises ``sum_n log p(t_n | parameters)`` over the regular parameters. Their covariance is the inverse of the
    summed outer products of the scores, ``C^-1 = sum_n s_n s_n^T`` with ``s_n = d log p(t_n)/d parameters`` at the
    maximum. It needs no second derivative, and so it holds where the maximum lies on a limit, as it does for the slope
    a = 2 of the wedge in half of all samples. Then C is the width of the likelihood to the side that is left. (The
    information of that slope, ``int (x - 1/2)^2 / (2x) dx``, diverges logarithmically at x = 0: the sum over events
    stays finite, and Delta a falls a little faster than 1/sqrt(N).)

    An edge at which the density ends in a step is no regular parameter. The likelihood falls without limit below the
    largest event and as ``exp(-N p(edge) gap)`` above it: so the estimate is the largest event, and with a flat prior
    its uncertainty is the standard deviation of that exponential, ``1 / (N p(edge))``. It is independent of the
    others, which are fitted given the edge: an edge moves by 1/N, they by 1/sqrt(N).

    Expected for N events: kicker ``Delta x_min = 1/sqrt(3N)``, ``Delta x_max = 1/(3N)``; wedge ``Delta x_max =
    1/(2N)``; ring ``Delta mu = w/sqrt(N)``, ``Delta w = w/sqrt(2N)``.

    Args:
        target: the truth, with the attributes of :class:`HasParameters`.
        events: ``[N, 2]``, a tensor, an array or an :class:`~pyrogen.EventSample` without weights.

    Raises:
        ImportError: iminuit is missing.
        ValueError: a target without a parametric form; weighted events (the edge of a weighted sample is not known
            from its weights alone); events that are no numbers, off the support, too few, or that do not determine
            the parameters.
    """
    require_extra("iminuit", "fits", "likelihood_fit")
    from iminuit import Minuit

    t = _coordinates(target, events)
    edge = {} if target.upper_edge is None else {target.upper_edge: float(t.max())}
    free = [name for name in target.parameters if name not in edge]
    limits = target.parameter_limits(t)
    spread = float(t.max() - t.min())
    start = {name: _inside(target.parameters[name], *limits[name], spread) for name in free}

    def scores(parameters: Array) -> tuple[Tensor, Tensor]:
        density, gradients = _derivatives(target, t, dict(zip(free, parameters.tolist(), strict=True)), edge)
        return density, gradients / density

    def loss(parameters: Array) -> float:
        # As tensors: a width of zero, a limit, makes them infinite without numpy's warning or Python's error.
        density = target.parametric_density(t, **dict(zip(free, torch.from_numpy(parameters), strict=True)), **edge)
        return -float(density.log().sum()) if bool((density > 0).all()) else math.inf

    first = np.array([*start.values()])
    minimiser = Minuit(loss, first, name=free, grad=lambda parameters: -scores(parameters)[1].sum(1).numpy())
    minimiser.errordef = Minuit.LIKELIHOOD
    minimiser.errors = np.sqrt(np.diag(_inverse(scores(first)[1], free)))
    minimiser.limits = [limits[name] for name in free]
    minimiser.migrad()
    best, valid = np.array(minimiser.values), minimiser.valid
    at_limit = []
    for i, name in enumerate(free):  # the minimiser comes as close to a limit as it likes, but never onto it
        for limit in filter(math.isfinite, limits[name]):
            there = best.copy()
            there[i] = limit
            if math.isinf(loss(there)):  # such as a width of zero
                continue
            minimiser.values, minimiser.fixed[name] = there, True
            if minimiser.nfit:  # the others may follow
                minimiser.migrad()
            there = np.array(minimiser.values)
            minimiser.fixed[name] = loss(there) <= loss(best)
            if minimiser.fixed[name]:
                best = there
                at_limit.append(name)
    values = dict(zip(free, best.tolist(), strict=True)) | edge
    values = {name: values[name] for name in target.parameters}
    covariance = np.zeros((len(values), len(values)))
    regular = [i for i, name in enumerate(values) if name in free]
    covariance[np.ix_(regular, regular)] = _inverse(scores(best)[1], free)
    for name, value in edge.items():
        height = float(target.parametric_density(torch.tensor([value], dtype=t.dtype), **values))
        covariance[[*values].index(name), [*values].index(name)] = (len(t) * height) ** -2
    return LikelihoodFit(
        values, covariance, len(t), target.upper_edge, tuple(at_limit), target, bool(valid or at_limit)
    )


def _coordinates(target: Any, events: EventsLike) -> Tensor:
    """The coordinate t ``[N]`` of checked events, in double precision."""
    if not hasattr(target, "parametric_density"):
        raise ValueError(f"target is {target!r}; it must have a parametric form, as Wedge, Kicker and GaussianRing do")
    if isinstance(events, EventSample) and events.weights is not None:
        raise ValueError("events have weights; likelihood_fit needs unweighted events, EventSample(events.values)")
    check_events(events.values if isinstance(events, EventSample) else events, target.features)
    x = as_tensor(events, torch.float64)
    least = len(target.parameters) + 1
    if len(x) < least:
        raise ValueError(f"events has {len(x)} rows; a fit of {', '.join(target.parameters)} needs at least {least}")
    outside = (~target.support.check(x)).nonzero()[:, 0]
    if len(outside):
        first = int(outside[0])
        raise ValueError(
            f"{len(outside)} of {len(x)} events lie outside the support of {target!r}; the first is row {first}: "
            f"{x[first].tolist()}"
        )
    t = target.line_coordinate(x)
    if float(t.max()) == float(t.min()):
        raise ValueError(f"events all have {target.line_label} = {float(t[0]):g}; a fit needs different ones")
    return t


def _derivatives(
    target: HasParameters, t: Tensor, values: dict[str, float], fixed: dict[str, float] | None = None
) -> tuple[Tensor, Tensor]:
    """The density ``[n]`` and its derivatives ``[P, n]`` by the P parameters of ``values``."""

    def density(parameters: Tensor) -> tuple[Tensor, Tensor]:
        found = target.parametric_density(t, **dict(zip(values, parameters, strict=True)), **(fixed or {}))
        return found, found

    # Forward mode: a few parameters, up to millions of events.
    gradients, found = jacfwd(density, has_aux=True)(torch.tensor([*values.values()], dtype=t.dtype))
    return found, gradients.T


def _inverse(scores: Tensor, names: list[str]) -> Array:
    """The inverse of the information ``sum_n s_n s_n^T`` of scores ``[P, N]``."""
    try:
        return torch.linalg.inv(scores @ scores.T).numpy()
    except torch.linalg.LinAlgError as singular:  # such as a ring that is folded at its middle, mu = 0
        raise ValueError(f"the events do not determine {', '.join(names)}: their information is singular") from singular


def _inside(value: float, low: float, high: float, spread: float) -> float:
    """The value, moved away from limits: on one a minimiser would not know where to go."""
    margin = INSIDE * min(high - low, spread)
    return min(max(value, low + margin if math.isfinite(low) else low), high - margin if math.isfinite(high) else high)
