"""What all targets share: argument checks, the map to the unit cube, quantile bins, the line interface.

A target states its closed forms in five short methods (`_inside`, `_log_density`, `_draw`, `_to_unit`,
`_from_unit`). They work in double precision whatever the precision of the events: a target is evaluated far
less often than a flow, and the truth should not add rounding errors of its own.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from pyrogen.checks import DTYPE, FINITE, check_memory, check_settings, each, instance, whole
from pyrogen.printing import Shown

SHAPE = each(whole(0), "a shape, such as (1000,)")


def _parameter(name: str, value: Any) -> Any:
    """A number, or a tensor of one number that may require gradients."""
    return value if isinstance(value, Tensor) and value.ndim == 0 and value.is_floating_point() else FINITE(name, value)


PARAMETER = _parameter
# The spacing of uniform random numbers in double precision: as close as they come to 0 and 1.
_TINY = 2.0**-53


def invert(cdf: Callable[[Tensor], Tensor], u: Tensor, low: float, high: float) -> Tensor:
    """Solve ``cdf(t) = u`` for a rising ``cdf`` by bisection of [low, high] down to double precision."""
    lower, upper = torch.full_like(u, low), torch.full_like(u, high)
    for _ in range(60):  # 2**-60 of the bracket: below the rounding of a double
        middle = (lower + upper) / 2
        below = cdf(middle) < u
        lower, upper = torch.where(below, middle, lower), torch.where(below, upper, middle)
    return (lower + upper) / 2


class Support(Shown, constraints.Constraint):
    """The points at which the log density of ``target`` is finite."""

    is_discrete = False
    event_dim = 1

    def __init__(self, target: Target) -> None:
        self._target = target
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        """Return for events [..., d] whether they lie in the support, [...]; False for NaN."""
        self._target._check_shape("value", value)
        return self._target._inside(value.double())

    def __repr__(self) -> str:
        return f"Support({self._target!r})"


class Target(Shown, TorchDistribution):
    """A density of d features in closed form, with ``event_shape`` (d,) and ``batch_shape`` ().

    ``has_rsample`` is False: the parameters are plain numbers, and there is nothing to differentiate.

    Args:
        features: number of dimensions d.
        dtype: precision of the samples, float32 or float64; None is torch's default.
        **parameters: the numbers that define the density, shown by ``repr``.

    Raises:
        ValueError: if ``dtype`` is neither float32 nor float64.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_rsample = False

    def __init__(self, features: int, dtype: torch.dtype | None, /, **parameters: float) -> None:
        self.dtype = torch.get_default_dtype() if dtype is None else DTYPE("dtype", dtype)
        self._parameters = parameters
        super().__init__(torch.Size(), torch.Size([features]))

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self._parameters.items())
        return f"{type(self).__name__}({arguments})"

    @property
    def features(self) -> int:
        """Number of dimensions d of an event."""
        return self.event_shape[0]

    @property
    def unit_names(self) -> tuple[str, ...]:
        """Names of the coordinates of `to_unit`, such as r and phi of a ring."""
        return ("x", "y")[: self.features]

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self) -> Support:
        """The points at which the log density is finite."""
        return Support(self)

    # The closed forms. Tensors come and go in double precision; none of these checks its argument.

    @property
    @abstractmethod
    def _anchor(self) -> Tensor:
        """A point [d] well inside the support, for `log_prob` to stand on where an event is outside."""

    @abstractmethod
    def _inside(self, x: Tensor) -> Tensor:
        """Whether the log density is finite at x [..., d]; False where x is NaN or infinite."""

    @abstractmethod
    def _log_density(self, x: Tensor) -> Tensor:
        """The log density at points x [..., d] of the support."""

    @abstractmethod
    def _draw(self, shape: torch.Size) -> Tensor:
        """Exact events [*shape, d]."""

    @abstractmethod
    def _to_unit(self, x: Tensor) -> Tensor:
        """The unit coordinates of any finite point; rounding may leave [0, 1] by a hair."""

    @abstractmethod
    def _from_unit(self, u: Tensor) -> Tensor:
        """The inverse of `_to_unit` for u in the open unit cube."""

    # The public face.

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the exact log density in nats of events [..., d], as [...]; -inf outside the support.

        Raises:
            ValueError: if ``value`` has another last dimension than d, is not floating point or holds NaN.
        """
        self._check_shape("value", value)
        if torch.isnan(value).any():
            raise ValueError("value holds NaN; log_prob needs numbers (infinities are outside the support)")
        x = value.double()
        inside = self._inside(x)
        # Replace the points outside before the maths, not after, so that no gradient turns into NaN.
        log_density = self._log_density(torch.where(inside[..., None], x, self._anchor.to(x.device)))
        return torch.where(inside, log_density, -math.inf).to(value.dtype)

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Draw exact, independent events ``[*sample_shape, d]`` with torch's global random numbers."""
        shape = SHAPE("sample_shape", sample_shape)
        n = math.prod(shape)
        cure = "draw fewer at a time"
        check_memory("the number of events of sample_shape", n, 8.0 * n * self.features, cure)
        return self._draw(torch.Size(shape)).to(self.dtype)

    def to_unit(self, x: Tensor) -> Tensor:
        """Map events [..., d] to the unit cube [0, 1]^d, in which the truth is uniform.

        The probability integral transform: each coordinate (for rings and the shell: the radius, then the
        angles) is replaced by its cumulative probability. Its Jacobian determinant is the density. A point
        outside the support goes to the side of the cube that it is closest to in these coordinates.

        Raises:
            ValueError: if ``x`` has another last dimension than d, is not floating point or is not finite.
        """
        return self._unit(x).to(x.dtype)

    @torch.no_grad()
    def from_unit(self, u: Tensor) -> Tensor:
        """Map points [..., d] of the unit cube to events, the inverse of `to_unit`. No gradient.

        The sides of the cube, which belong to infinitely far or to zero-density points, are moved inwards
        by 1e-16.

        Raises:
            ValueError: if ``u`` has another last dimension than d, is not floating point or leaves [0, 1].
        """
        self._check_shape("u", u)
        if not ((u >= 0) & (u <= 1)).all():
            raise ValueError(f"u must lie in [0, 1], got values from {u.min().item()} to {u.max().item()}")
        return self._from_unit(u.double().clamp(_TINY, 1 - _TINY)).to(u.dtype)

    def quantile_bins(self, n: int) -> QuantileBins:
        """Return n^d bins of equal probability, n along each coordinate of `to_unit` [D, F].

        Raises:
            ValueError: if ``n`` is not an integer of at least 1.
        """
        return QuantileBins(self, n)

    def _unit(self, x: Tensor) -> Tensor:
        self._check_shape("x", x)
        if not torch.isfinite(x).all():
            raise ValueError("x holds NaN or infinities; unit coordinates exist for finite numbers only")
        return self._to_unit(x.double()).clamp(0, 1)

    def _check_shape(self, name: str, x: Tensor) -> None:
        if not (isinstance(x, Tensor) and x.is_floating_point()):
            got = x.dtype if isinstance(x, Tensor) else f"a {type(x).__name__}"
            raise ValueError(f"{name} must be a floating point tensor, got {got}")
        if x.dim() == 0 or x.shape[-1] != self.features:
            raise ValueError(
                f"{name} must have shape [..., {self.features}] for {type(self).__name__}, got {list(x.shape)}"
            )


def cell_index(u: Tensor, n: int) -> Tensor:
    """The bin [...] of points [..., d] of the unit cube, n bins along each side; the last coordinate runs fastest."""
    cells = (n * u).long().clamp(max=n - 1)
    index = torch.zeros_like(cells[..., 0])
    for cell in cells.unbind(-1):
        index = n * index + cell
    return index


@dataclass(frozen=True)
class QuantileBins(Shown):
    """The n^d bins of equal probability of a target, n along each coordinate of ``target.to_unit``.

    The outer bins have no outer wall: an event outside the support counts in the bin closest to it.

    Attributes:
        target: the density d that defines the bins.
        n: bins along each dimension.

    Raises:
        ValueError: if ``n`` is not an integer of at least 1.
    """

    target: Target
    n: int

    def __post_init__(self) -> None:
        check_settings(self, target=instance(Target, "a target of pyrogen.targets"), n=whole(1))

    @property
    def n_bins(self) -> int:
        """Number of bins, n^d; each holds 1 / n_bins of the probability."""
        return self.n**self.target.features

    def bin_index(self, x: Tensor) -> Tensor:
        """Return the bin of events [..., d] as integers in [0, n_bins), [...].

        The last coordinate runs fastest.

        Raises:
            ValueError: if ``x`` has another last dimension than d, is not floating point or is not finite.
        """
        return cell_index(self.target._unit(x), self.n)

    def counts(self, x: Tensor) -> Tensor:
        """Return the number of events [..., d] in each bin, integers [n_bins]."""
        check_memory("n", self.n, 8.0 * self.n_bins, "give fewer bins along each coordinate")
        return torch.bincount(self.bin_index(x).flatten(), minlength=self.n_bins)


class LineTarget(Target):
    """A target of [A] whose density depends on one coordinate t only: x of the ramps, r of the rings.

    Along a line of constant ``position`` (y of the ramps, angle of the rings) a Bayesian flow shows its
    uncertainty against t, and a fit of the true form predicts the shape of it [A sec. 3].

    Attributes:
        line_label: name of t.
        line_positions: some positions well inside the support.
    """

    line_label: str
    line_positions: tuple[float, ...]

    @property
    @abstractmethod
    def line_range(self) -> tuple[float, float]:
        """The range of t in which [A] compares uncertainties."""

    @abstractmethod
    def line(self, t: Tensor, position: float) -> Tensor:
        """Return the points [n, 2] at t [n] on the line at ``position``.

        Raises:
            ValueError: if ``t`` is not a vector of floating point numbers, or the line at ``position`` is
                outside the support.
        """

    @abstractmethod
    def line_density(self, t: Tensor) -> Tensor:
        """Return the density p(x, y) [n] at t [n] on any of the lines; zero outside the support.

        Raises:
            ValueError: if ``t`` is not a vector of floating point numbers.
        """

    @abstractmethod
    def line_coordinate(self, x: Tensor) -> Tensor:
        """Return the coordinate t along the lines of events [..., 2], as [...].

        Raises:
            ValueError: if ``x`` has another last dimension than 2 or is not floating point.
        """

    @abstractmethod
    def line_measure(self, t: Tensor) -> Tensor:
        """Return what turns the density on a line into that of t alone, [n]: the length of all positions at t [n]."""

    @abstractmethod
    def sensitivities(self, t: Tensor) -> dict[str, Tensor]:
        """Return ``|dp/d parameter|`` [n] at t [n] for each parameter, by the name of its uncertainty.

        The prediction for an uncertainty map is sigma(t)^2 = sum over names of (sensitivity * size)^2.

        Raises:
            ValueError: if ``t`` is not a vector of floating point numbers.
        """

    @staticmethod
    def _check_line(t: Tensor) -> None:
        if not (isinstance(t, Tensor) and t.dim() == 1 and t.is_floating_point()):
            got = f"{list(t.shape)} of {t.dtype}" if isinstance(t, Tensor) else f"a {type(t).__name__}"
            raise ValueError(f"t must be a floating point tensor of shape [n], got {got}")
