"""Distortions that move events: a shifted or smeared column, a smeared mass, a filled hole."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..checks import FINITE, FRACTION, POSITIVE, TEXT, check_settings, column_index, number, optional, require
from .distortions import Distorted, Distortion, Transformation, with_values
from .kinematics import mass, wrapped
from .observing import COLUMN
from .sample import EventSample
from .thinning import angles, delta_r

Array = NDArray[np.float64]
NODES, REACH = 256, 8.0  # of the quadrature over Gaussian noise, in standard deviations
NOT_ZERO = number("finite and not zero", lambda value: math.isfinite(value) and value != 0)


@dataclass(frozen=True, repr=False)
class Shift(Transformation):
    """One column times a factor plus a number. An angle may leave its range; the order of objects is not mended.

    Args:
        column: its name or index.
        by: what is added, in its unit.
        factor: what it is multiplied with before.
    """

    column: str | int
    by: float = 0.0
    factor: float = 1.0

    def __post_init__(self) -> None:
        check_settings(self, column=COLUMN, by=FINITE, factor=NOT_ZERO)
        require((self.by, self.factor) != (0, 1), "by", self.by, "other than 0 where factor is 1: nothing would change")

    def check(self, sample: EventSample) -> None:
        """See :class:`Distortion`."""
        column_index(self.column, sample.names)

    def words(self, sample: EventSample) -> str:
        """See :class:`Transformation`."""
        name, unit = _label(self.column, sample)
        return f"shift: {name} times {self.factor:g} plus {self.by:g}{unit}"

    def moved(self, events: Tensor, names: Sequence[str], rng: np.random.Generator) -> Tensor:
        """See :class:`Transformation`."""
        return _with_column(events, column_index(self.column, names), lambda x: self.factor * x + self.by)

    def undone(self, events: Tensor, names: Sequence[str], z: float) -> tuple[Tensor, Array]:
        """See :class:`Transformation`."""
        column = column_index(self.column, names)
        earlier = _with_column(events, column, lambda x: (x - self.by) / self.factor)
        return earlier, _where_there(events[:, column], -math.log(abs(self.factor)))


@dataclass(frozen=True, repr=False)
class _Noisy(Transformation):
    """A distortion by Gaussian noise z, absolute or relative."""

    def nodes(self) -> tuple[Array, Array]:
        """Equal steps: exact for densities that are smooth on the scale of a step, 1/16 of the noise.

        Behind an edge of the density, such as a cut, the log of what is smeared is good to 0.03 on the edge, and to
        0.1 four standard deviations away. Gauss-Hermite nodes of the same number are coarser where the noise is.
        """
        z = np.linspace(-REACH, REACH, NODES)
        log_weights = -0.5 * z**2
        return z, log_weights - np.log(np.exp(log_weights).sum())


@dataclass(frozen=True, repr=False)
class Smear(_Noisy):
    """Gaussian noise on one column: ``x + absolute z``, or ``x (1 + relative z)`` as in arXiv:2305.16774, sec. 3.

    An angle may leave its range, a positive number may become negative; the order of objects is not mended.

    Args:
        column: its name or index.
        absolute: standard deviation of the noise in the unit of the column.
        relative: standard deviation of the factor. Give one of the two.
    """

    column: str | int
    absolute: float | None = None
    relative: float | None = None

    def __post_init__(self) -> None:
        check_settings(self, column=COLUMN, absolute=optional(POSITIVE), relative=optional(POSITIVE))
        _one_width(self.absolute, self.relative)

    def check(self, sample: EventSample) -> None:
        """See :class:`Distortion`."""
        column_index(self.column, sample.names)

    def words(self, sample: EventSample) -> str:
        """See :class:`Transformation`."""
        name, unit = _label(self.column, sample)
        return f"smear: {name} by a Gaussian of {_width(self.absolute, self.relative, unit)}"

    def moved(self, events: Tensor, names: Sequence[str], rng: np.random.Generator) -> Tensor:
        """See :class:`Transformation`."""
        z = torch.from_numpy(rng.standard_normal(len(events)))
        column = column_index(self.column, names)
        absolute, relative = self.absolute or 0.0, self.relative or 0.0
        return _with_column(events, column, lambda x: x * (1 + relative * z) + absolute * z)

    def undone(self, events: Tensor, names: Sequence[str], z: float) -> tuple[Tensor, Array]:
        """See :class:`Transformation`."""
        column = column_index(self.column, names)
        absolute, factor = self.absolute or 0.0, 1 + (self.relative or 0.0) * z
        earlier = _with_column(events, column, lambda x: (x - absolute * z) / factor)
        return earlier, _where_there(events[:, column], -math.log(abs(factor)))


@dataclass(frozen=True, repr=False)
class SmearMass(_Noisy):
    """Gaussian noise on the invariant mass of two objects: all components of both momenta times M'/M.

    Directions stay, so the mass becomes M' exactly where the columns hold all of the momenta (objects without a column
    of their mass or energy are massless). For a resonance ``absolute`` is a fraction of its width: 0.5 is 20 % of that
    of the Z, where momenta are in GeV.

    Args:
        first: name of the first object, with the columns ``pt_, eta_, phi_`` (and ``m_``) or ``px_, py_, pz_`` (and
            ``E_``).
        second: name of the second one; with ``pz_`` alone its transverse momentum balances the first.
        absolute: standard deviation of the mass in the unit of the momenta.
        relative: standard deviation of the factor M'/M. Give one of the two.
    """

    first: str
    second: str
    absolute: float | None = None
    relative: float | None = None

    def __post_init__(self) -> None:
        check_settings(self, first=TEXT, second=TEXT, absolute=optional(POSITIVE), relative=optional(POSITIVE))
        require(self.first != self.second, "second", self.second, "another object than first")
        _one_width(self.absolute, self.relative)

    def check(self, sample: EventSample) -> None:
        """See :class:`Distortion`."""
        self._unit(sample)

    def words(self, sample: EventSample) -> str:
        """See :class:`Transformation`."""
        width = _width(self.absolute, self.relative, self._unit(sample))
        return f"smear: M({self.first}, {self.second}) by a Gaussian of {width}"

    def _unit(self, sample: EventSample) -> str:
        """That of the momenta, behind a space; none where they have none."""
        units = {sample.names[i]: sample.units[i] for i in _scaled_columns(sample.names, self.first, self.second)}
        given = sorted({unit for unit in units.values() if unit})
        if len(given) > 1:
            told = ", ".join(f"{name} in {unit or 'no unit'}" for name, unit in units.items())
            raise ValueError(f"SmearMass needs momenta of one unit; there are {told}")
        return f" {given[0]}" if given else ""

    def moved(self, events: Tensor, names: Sequence[str], rng: np.random.Generator) -> Tensor:
        """See :class:`Transformation`."""
        z = torch.from_numpy(rng.standard_normal(len(events)))
        masses = self._mass(events, names)
        factor = 1 + z * ((self.relative or 0.0) + (self.absolute or 0.0) / masses)
        bad = (factor <= 0) | (masses <= 0)
        if bad.any():
            i = int(bad.int().argmax())
            raise ValueError(
                f"SmearMass: the mass of event {i} is {float(masses[i]):.6g} and would become "
                f"{float(masses[i] * factor[i]):.6g}; give a smaller width, or leave out events with small masses"
            )
        return self._scaled(events, names, factor)

    def undone(self, events: Tensor, names: Sequence[str], z: float) -> tuple[Tensor, Array]:
        """See :class:`Transformation`.

        With M as the radius of the k scaled columns, ``p'(M') M'^(k-1) = int dM p(M) M^(k-1) N(M' | M)``.
        """
        k = len(_scaled_columns(names, self.first, self.second))
        masses = self._mass(events, names)
        if self.absolute is None:
            back, power = torch.full_like(masses, 1 / (1 + (self.relative or 0.0) * z)), k
        else:
            back, power = 1 - self.absolute * z / masses, k - 1
        possible = ~(back <= 0)
        earlier = self._scaled(events, names, torch.where(possible, back, 1.0))
        log_jacobian = torch.where(possible, power * back.clamp(min=1e-300).log(), -torch.inf)
        return earlier, torch.where(masses.isnan(), 0.0, log_jacobian).numpy()

    def _mass(self, events: Tensor, names: Sequence[str]) -> Tensor:
        p = sum(_momentum(events, parts) for parts in _components(names, self.first, self.second))
        return mass(p)  # type: ignore[arg-type]

    def _scaled(self, events: Tensor, names: Sequence[str], factor: Tensor) -> Tensor:
        columns = _scaled_columns(names, self.first, self.second)
        after = events.clone()
        after[:, columns] = events[:, columns] * torch.where(factor.isnan(), 1.0, factor)[:, None]
        return after


@dataclass(frozen=True, repr=False)
class FilledHole(Distortion):
    """Events whose objects are just outside a hole in Delta R are moved into it: the generator fills the hole.

    True objects, such as jets of radius 0.4, are never closer. The second object of an event moves towards the first
    one, to a Delta R that fills the disc evenly. The log-ratio is -inf in the hole and ``-log(1 - fraction)`` where the
    events came from. It is not known where the truth has events in the hole.

    Args:
        first: name of the first object; there are the columns ``eta_<first>`` and ``phi_<first>``.
        second: name of the second one.
        radius: Delta R of the hole's edge.
        fraction: of the events between ``radius`` and ``outer`` that is moved.
        outer: Delta R up to which events are moved; None: twice the radius.
    """

    first: str
    second: str
    radius: float = 0.4
    fraction: float = 0.5
    outer: float | None = None

    def __post_init__(self) -> None:
        check_settings(self, first=TEXT, second=TEXT, radius=POSITIVE, fraction=FRACTION, outer=optional(POSITIVE))
        if self.outer is not None:
            require(self.outer > self.radius, "outer", self.outer, f"above radius = {self.radius:g}")

    def check(self, sample: EventSample) -> None:
        """See :class:`Distortion`."""
        angles(sample.names, self.first, self.second)

    def applied(self, before: Distorted, rng: np.random.Generator) -> Distorted:
        """See :class:`Distortion`."""
        sample = before.sample
        where = angles(sample.names, self.first, self.second)
        outer = 2 * self.radius if self.outer is None else self.outer
        events = sample.tensor(torch.float64)
        d_eta, d_phi, distance = delta_r(events, where)
        moved = (
            torch.from_numpy(rng.random(len(events)) < self.fraction) & (distance > self.radius) & (distance < outer)
        )
        shrunk = self.radius * torch.from_numpy(np.sqrt(rng.random(len(events)))) / distance
        words = f"filled hole: Delta R({self.first}, {self.second}) below {self.radius:g}, from up to {outer:g}"
        if not moved.any():
            raise ValueError(f"FilledHole: {words}: this moves none of the {len(sample)} events")
        rows = moved.nonzero()[:, 0]
        events[rows, where[2]] = events[rows, where[0]] + (shrunk * d_eta)[rows]
        events[rows, where[3]] = wrapped(events[rows, where[1]] + (shrunk * d_phi)[rows])
        weights = np.ones(len(sample)) if sample.weights is None else sample.weights
        share = float(weights[moved.numpy()].sum() / weights.sum())
        inside = sum(
            int((delta_r(each.tensor(torch.float64), where)[2] < self.radius).sum()) for each in (before.truth, sample)
        )
        because = before.unknown
        if inside and because is None:
            because = f"{inside} events are in the hole of Delta R({self.first}, {self.second}) that FilledHole fills"
        ratio = before._ratio

        def log_ratio(events: Tensor) -> Array:
            distance = delta_r(events, where)[2].numpy()
            source = (distance > self.radius) & (distance < outer)
            found = ratio(events) - np.where(source, np.log1p(-self.fraction), 0.0)
            return np.where(distance < self.radius, -np.inf, found)

        return dataclasses.replace(
            before,
            sample=with_values(sample, events.numpy()),
            steps=(*before.steps, f"{words}; {share:.3%} of the weight moved"),
            unknown=because,
            _ratio=log_ratio,
            _density=None,
        )


def _one_width(absolute: float | None, relative: float | None) -> None:
    require((absolute is None) != (relative is None), "absolute", absolute, "given, or else relative, not both")


def _width(absolute: float | None, relative: float | None, unit: str) -> str:
    return f"{absolute:g}{unit}" if relative is None else f"{100 * relative:.4g} %"


def _label(column: str | int, sample: EventSample) -> tuple[str, str]:
    i = column_index(column, sample.names)
    return sample.names[i], f" {sample.units[i]}" if sample.units[i] else ""


def _with_column(events: Tensor, column: int, function: Callable[[Tensor], Tensor]) -> Tensor:
    after = events.clone()
    after[:, column] = function(events[:, column])
    return after


def _where_there(column: Tensor, number: float) -> Array:
    """The number, and 0 where the column is NaN."""
    return np.where(column.isnan().numpy(), 0.0, number)


def _components(names: Sequence[str], first: str, second: str) -> list[dict[str, tuple[int, float]]]:
    """Of both objects: by component, the column and its sign."""
    found: list[dict[str, tuple[int, float]]] = []
    for which in (first, second):
        parts = {c: list(names).index(f"{c}_{which}") for c in _PARTS if f"{c}_{which}" in names}
        known = {c: (column, 1.0) for c, column in parts.items()}
        if which == second and set(known) == {"pz"} and "px" in found[0]:
            known |= {c: (found[0][c][0], -1.0) for c in ("px", "py")}
        if not ({"pt", "eta", "phi"} <= set(known) or {"px", "py", "pz"} <= set(known)):
            raise ValueError(
                f"{'first' if which == first else 'second'} is {which!r}, which needs the columns pt_{which}, "
                f"eta_{which}, phi_{which}, or px_{which}, py_{which}, pz_{which}. There are {', '.join(names)}"
            )
        found.append(known)
    return found


_PARTS = ("pt", "eta", "phi", "m", "px", "py", "pz", "E")


def _scaled_columns(names: Sequence[str], first: str, second: str) -> list[int]:
    """Columns that are proportional to the momenta of both objects."""
    parts = _components(names, first, second)
    return sorted({column for each in parts for c, (column, _) in each.items() if c not in ("eta", "phi")})


def _momentum(events: Tensor, parts: dict[str, tuple[int, float]]) -> Tensor:
    """Four-vectors ``[N, 4]`` of one object."""
    of = {c: sign * events[:, column] for c, (column, sign) in parts.items()}
    if "px" in of:
        p = torch.stack([of["px"], of["py"], of["pz"]], -1)
    else:
        p = torch.stack([of["pt"] * of["phi"].cos(), of["pt"] * of["phi"].sin(), of["pt"] * of["eta"].sinh()], -1)
    square = of["m"] ** 2 if "m" in of else 0.0
    energy = of["E"] if "E" in of else (p.square().sum(-1) + square).sqrt()
    return torch.cat([p, energy[:, None]], -1)
