"""Density and uncertainty along lines on which the truth is known: the numbers of [A] figs. 2, 4 and 6.

[A] is arXiv:2104.04543. A toy density depends on one coordinate t only (x of a ramp, r of a ring), so every line of
constant position (y, angle) has to show the same p(t) and sigma(t). How much they differ from line to line says how
well sigma itself is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from pyrogen.checks import COUNT, INDEX, POSITIVE, SEED, array, door, having, instance, optional
from pyrogen.labelled import Labelled
from pyrogen.posterior.posterior import Posterior
from pyrogen.printing import span

Array = NDArray[np.float64]
POINTS = 33  # on every line, where no t are given


class HasLines(Protocol):
    """What :func:`density_along_lines` needs of a target; :class:`pyrogen.targets.LineTarget` has it."""

    line_label: str
    line_positions: Sequence[float]

    @property
    def line_range(self) -> tuple[float, float]: ...

    def line(self, t: Tensor, position: float) -> Tensor: ...

    def line_density(self, t: Tensor) -> Tensor: ...


@dataclass(frozen=True, repr=False)
class LineResult(Labelled):
    """Predicted density and uncertainty at n points t of L lines, and the truth.

    Curves ``[n]`` are averages over the lines. The summary numbers :attr:`rms_bias`, :attr:`pull_rms` and
    :meth:`within` count all L x n points, line by line: an average over lines would hide what one line gets wrong.
    For a single line take them of :meth:`line`.

    Attributes:
        t: coordinate along the lines, ``[n]``.
        positions: the constant coordinate of each line, ``[L]``.
        means: predicted density p of each line, ``[L, n]``, per unit area of the events' variables.
        stds: its uncertainty sigma, the standard deviation over weight draws, ``[L, n]``.
        truth: the true density, ``[n]``.
        label: name of t.
        calibration: whether sigma is calibrated, in a few words for figures; empty where that is not known.
    """

    _dims: ClassVar[Mapping[str, str]] = {
        "t": "t",
        "positions": "line",
        "means": "line t",
        "stds": "line t",
        "truth": "t",
        "density": "t",
        "sigma": "t",
    }
    _at: ClassVar[tuple[str, ...]] = ("t", "positions")

    t: Array
    positions: Array
    means: Array
    stds: Array
    truth: Array
    label: str = "t"
    calibration: str = ""

    def _labels(self) -> dict[str, str]:
        return {"t": self.label}

    def _summary(self) -> str:
        return (
            f"{len(self.t)} points of {self.label} = {span(self.t, 'g')} on {len(self.positions)} lines, "
            f"mean sigma {self.sigma.mean():.3g}, rms bias {self.rms_bias:.3g}, pull rms {self.pull_rms:.3g}"
        )

    @property
    def density(self) -> Array:
        """Predicted density, averaged over the lines, ``[n]``."""
        return self.means.mean(0)

    @property
    def density_spread(self) -> Array:
        """Standard deviation of the predicted density over the lines, ``[n]``; zero for one line."""
        return _spread(self.means)

    @property
    def sigma(self) -> Array:
        """Absolute uncertainty, averaged over the lines, ``[n]``."""
        return self.stds.mean(0)

    @property
    def sigma_spread(self) -> Array:
        """Standard deviation of the uncertainty over the lines, ``[n]``: the error bars of [A] figs. 2, 4, 6."""
        return _spread(self.stds)

    @property
    def relative(self) -> Array:
        """Relative uncertainty sigma/p, averaged over the lines, ``[n]``; infinite where a density is zero."""
        return self._relatives.mean(0)

    @property
    def relative_spread(self) -> Array:
        """Standard deviation of sigma/p over the lines, ``[n]``; zero for one line."""
        return _spread(self._relatives)

    @property
    def pull(self) -> Array:
        """(density - truth) / sigma of the averages, ``[n]``."""
        return _pull(self.density - self.truth, self.sigma)

    @property
    def pulls(self) -> Array:
        """(density - truth) / sigma of every line, ``[L, n]``."""
        return _pull(self.means - self.truth, self.stds)

    @property
    def minima(self) -> Array:
        """Points t strictly inside at which sigma is smaller than at both neighbours: what [A] reads off its maps."""
        sigma = self.sigma
        return self.t[1:-1][(sigma[1:-1] < sigma[:-2]) & (sigma[1:-1] < sigma[2:])]

    @property
    def rms_bias(self) -> float:
        """Root mean square of density - truth over all points of all lines, in units of the density."""
        return _rms(self.means - self.truth)

    @property
    def pull_rms(self) -> float:
        """Root mean square of the pulls over all points of all lines; about 1 where sigma is right."""
        return _rms(self.pulls)

    @door(k=POSITIVE)
    def within(self, k: float = 2.0) -> float:
        """Fraction of all points of all lines at which the truth is within k sigma of the prediction.

        For independent Gaussian deviations that would be 68.3 % (k = 1) and 95.4 % (k = 2). Neighbouring points share
        their deviation, so for one posterior the fraction fluctuates much more than the number of points suggests.

        Raises:
            ValueError: k is not positive.
        """
        return float(np.mean(np.abs(self.means - self.truth) <= k * self.stds))

    @door(index=INDEX)
    def line(self, index: int) -> LineResult:
        """The result of one line alone."""
        rows = [index]
        return replace(self, positions=self.positions[rows], means=self.means[rows], stds=self.stds[rows])

    @property
    def _relatives(self) -> Array:
        return np.divide(self.stds, self.means, out=np.full_like(self.stds, np.inf), where=self.means > 0)


LINES = instance(LineResult, "a LineResult, as density_along_lines gives one")
LINE_TARGET = having("a target with lines, such as pg.targets.Wedge()", "line", "line_density", "line_range")


@door(
    posterior=having("a trained posterior", "density"),
    target=LINE_TARGET,
    t=optional(array()),
    positions=optional(array()),
    draws=COUNT,
    seed=SEED,
)
def density_along_lines(
    posterior: Any,
    target: HasLines,
    t: ArrayLike | Tensor | None = None,
    positions: Sequence[float] | None = None,
    draws: int | None = None,
    seed: int = 0,
) -> LineResult:
    """Evaluate a posterior along lines of a target [A sec. 3.1-3.3].

    Every line sees the same weight draws. A long evaluation shows the posterior's own progress bar.

    Args:
        posterior: a :class:`~pyrogen.Posterior`, or anything with ``density(points, draws=..., seed=...)``.
        target: the truth, with the attributes of :class:`HasLines`.
        t: points ``[n]`` along the lines; by default 33 equally spaced ones on ``target.line_range``.
        positions: constant coordinate of each of the L lines; by default ``target.line_positions``.
        draws: weight draws; None: 50, or all where fewer are stored.
        seed: seeds the weight draws.

    Raises:
        ValueError: t that is no vector of finite numbers, no positions, or positions off the support.
    """
    along, where, points = points_on_lines(target, t, positions)
    estimate = posterior.density(points, draws=draws, seed=seed)
    shape = len(where), len(along)
    return LineResult(
        t=along.numpy(),
        positions=np.array(where),
        means=_numpy(estimate.mean).reshape(shape),
        stds=_numpy(estimate.std).reshape(shape),
        truth=_numpy(target.line_density(along)),
        label=target.line_label,
        calibration=posterior.info.note if isinstance(posterior, Posterior) else "",
    )


def points_on_lines(
    target: HasLines, t: ArrayLike | Tensor | None, positions: Sequence[float] | None
) -> tuple[Tensor, list[float], Tensor]:
    """Coordinates ``[n]``, positions ``[L]`` and the points ``[L n, d]`` of the lines, one line after another.

    Raises:
        ValueError: t that is no vector of finite numbers, no positions, or positions off the support.
    """
    along = torch.linspace(*target.line_range, POINTS, dtype=torch.float64) if t is None else _as_vector("t", t)
    where = _as_vector("positions", target.line_positions if positions is None else positions).tolist()
    return along, where, torch.cat([target.line(along, position) for position in where])


def _as_vector(name: str, values: Any) -> Tensor:
    vector = torch.as_tensor(values, dtype=torch.float64).detach().cpu()
    if vector.ndim != 1 or len(vector) == 0 or not torch.isfinite(vector).all():
        raise ValueError(f"{name} must be at least one finite number in a vector, got {values!r}")
    return vector


def _numpy(values: Any) -> Array:
    return torch.as_tensor(values).detach().double().cpu().numpy()


def _spread(lines: Array) -> Array:
    return lines.std(0, ddof=1) if len(lines) > 1 else np.zeros(lines.shape[1])


def _pull(deviation: Array, sigma: Array) -> Array:
    """deviation / sigma; a prediction without uncertainty is right (0) or infinitely wrong."""
    certain = np.where(deviation == 0, 0.0, np.copysign(np.inf, deviation))
    return np.divide(deviation, sigma, out=certain, where=sigma > 0)


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(values**2)))
