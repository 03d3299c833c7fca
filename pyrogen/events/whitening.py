"""Whitening of events with a varying number of objects, with constants of its own for each number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..checks import door, each, require, whole
from .multiplicity import Multiplicity
from .padded import PaddedBijection
from .preprocessing import moments
from .sample import EventSample, EventsLike, as_sample

SMALLEST = 1e-10  # eigenvalue of a correlation matrix: below it a column is a linear function of others
_CURE = "Take more events, or put columns into alone= (standardised, not whitened) or leave= (as they are)"
COLUMNS = each(whole(0), "a sequence of columns, such as (2, 5)")


class WhitenPerMultiplicity(PaddedBijection):
    """u = L^-1 (x - mean) with the mean and the lower Cholesky factor L of the covariance of events with n objects.

    Each number n has its own constants, of the columns that are there. Since L is lower triangular, column i of u
    depends only on the columns up to i of x: what an object becomes does not depend on later objects. Means and
    covariances are weighted, ``sum w (x - mean) (x - mean)^T / sum w``. Before the fit: the identity. [B] sec. 2

    Args:
        layout: of the rows.
        leave: columns that stay as they are, such as angles from 0 to 1.
        alone: columns that get mean 0 and standard deviation 1, but keep their correlations; ``range(d)`` standardises
            all of them and whitens none.

    Raises:
        ValueError: columns that do not exist, or are both left and alone. In the fit: too few events with some number
            of objects, a column without spread or one that others determine, or negative weights that leave no
            positive covariance; it says which number and column, and what to do.
    """

    kind = "whiten_per_multiplicity"
    mean: Tensor
    factor: Tensor
    _is_fitted: Tensor

    @door(leave=COLUMNS, alone=COLUMNS)
    def __init__(self, layout: Multiplicity, leave: Iterable[int] = (), alone: Iterable[int] = ()) -> None:
        super().__init__(layout)
        self.leave, self.alone = (tuple(sorted(set(columns))) for columns in (leave, alone))
        for name, columns in (("leave", self.leave), ("alone", self.alone)):
            right = f"columns below {layout.features}"
            require(not columns or columns[-1] < layout.features, name, columns, right)
        both = sorted({*self.leave} & {*self.alone})
        require(not both, "alone", self.alone, f"other columns than leave; {both} are in both")
        d, numbers = layout.features, len(layout.numbers)
        self.register_buffer("mean", torch.zeros(numbers, d, dtype=torch.float64))
        self.register_buffer("factor", torch.eye(d, dtype=torch.float64).repeat(numbers, 1, 1))
        self.register_buffer("_is_fitted", torch.tensor(False))

    @property
    def fitted(self) -> bool:
        return bool(self._is_fitted)

    def fit(self, events: EventsLike, weights: ArrayLike | Tensor | None = None) -> Self:
        sample = as_sample(events, weights, self.layout)
        constants = [self._fit_number(n, sample) for n in self.layout.numbers]
        self._set(np.stack([mean for mean, _ in constants]), np.stack([factor for _, factor in constants]), True)
        return self

    def _fit_number(self, n: int, sample: EventSample) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean ``[d]`` and factor ``[d, d]`` of the events with ``n`` objects."""
        d = self.layout.features
        mean, factor = np.zeros(d), np.eye(d)
        there = [i for i in range(self.layout.width(n)) if i not in self.leave]
        rows = self.layout.counts(sample.values) == n
        if sample.weights is not None:
            rows &= sample.weights != 0
        values, weights = sample.values[rows][:, there], None if sample.weights is None else sample.weights[rows]
        whitened = [k for k, i in enumerate(there) if i not in self.alone]
        if not there:
            return mean, factor
        self._check_size(n, len(values), weights, max(2, len(whitened) + 1))
        labels = [f"column {i} ({sample.names[i]}) of events with {n} objects" for i in there]
        for k in np.flatnonzero(values.min(axis=0) == values.max(axis=0)):
            raise ValueError(
                f"{labels[k]} is {values[0, k]} in all {len(values)} of them; a column without spread has no density: "
                "leave it out of the events"
            )
        center, spread = moments(values, weights)
        for k in np.flatnonzero(~(spread > 0)):
            raise ValueError(f"{labels[k]} has no positive variance, because of negative weights. {_CURE}")
        mean[there], factor[there, there] = center, spread
        if whitened:
            columns = [there[k] for k in whitened]
            standard = ((values - center) / spread)[:, whitened]
            lower = _cholesky(standard, weights, [labels[k] for k in whitened])
            factor[np.ix_(columns, columns)] = spread[whitened][:, None] * lower
        return mean, factor

    def _check_size(self, n: int, events: int, weights: NDArray[np.float64] | None, needed: int) -> None:
        total = events if weights is None else weights.sum()
        if events >= needed and total > 0:
            return
        count = f"{events} events" if weights is None else f"{events} events with weights of sum {total:.6g}"
        whole = f", or alone=range({self.layout.features}), which needs 2" if needed > 2 else ""
        fewer = f"Multiplicity(most={n - 1})" if n > self.layout.least else f"Multiplicity(least={n + 1})"
        raise ValueError(
            f"{count} have {n} objects; their whitening needs at least {needed}, of positive weight together: take "
            f"more events, or {fewer}{whole}"
        )

    def map(self, x: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        which = self._which(counts)
        eye = torch.eye(x.shape[-1], dtype=self.factor.dtype, device=x.device)
        inverse = torch.linalg.solve_triangular(self.factor, eye.expand_as(self.factor), upper=False)
        u = self._times(inverse.to(x.dtype), x - self.mean.to(x.dtype)[which], which)
        return u, -self._log_scales(x)[which]

    def unmap(self, u: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        which = self._which(counts)
        x = self._times(self.factor.to(u.dtype), u, which) + self.mean.to(u.dtype)[which]
        return x, self._log_scales(u)[which]

    def _which(self, counts: Tensor) -> Tensor:
        return (counts - self.layout.least).clamp(min=0)

    def _times(self, matrices: Tensor, rows: Tensor, which: Tensor) -> Tensor:
        """Rows ``[..., d]`` times the matrix ``[d, d]`` of their number: times all at once, then the right one."""
        every = (rows @ matrices.flatten(0, 1).T).unflatten(-1, matrices.shape[:2])
        index = which[..., None, None].expand(*which.shape, 1, rows.shape[-1])
        return torch.take_along_dim(every, index, -2).squeeze(-2)

    def _log_scales(self, like: Tensor) -> Tensor:
        return self.factor.diagonal(dim1=-2, dim2=-1).log().to(like.dtype)

    def _set(self, mean: NDArray[np.float64], factor: NDArray[np.float64], fitted: bool) -> None:
        shape = self.factor.shape
        fine = (
            mean.shape == shape[:2] and factor.shape == shape and np.isfinite(mean).all() and np.isfinite(factor).all()
        )
        if not (fine and (np.diagonal(factor, axis1=1, axis2=2) > 0).all() and (np.tril(factor) == factor).all()):
            raise ValueError(
                f"WhitenPerMultiplicity needs a finite mean {list(shape[:2])} and lower triangular factors "
                f"{list(shape)} with a positive diagonal; got shapes {list(mean.shape)} and {list(factor.shape)}"
            )
        device = self.mean.device
        self.mean, self.factor = torch.from_numpy(mean).to(device), torch.from_numpy(factor).to(device)
        self._is_fitted = torch.tensor(fitted, device=device)

    def config(self) -> dict[str, Any]:
        told = {"kind": self.kind, "layout": self.layout.config(), "leave": list(self.leave), "alone": list(self.alone)}
        return told | {"fitted": self.fitted, "mean": self.mean.tolist(), "factor": self.factor.tolist()}

    @classmethod
    def _from_config(cls, config: Mapping[str, Any]) -> Self:
        new = cls(Multiplicity.from_config(config["layout"]), config["leave"], config["alone"])
        new._set(np.array(config["mean"], float), np.array(config["factor"], float), bool(config["fitted"]))
        return new


def _cholesky(
    standard: NDArray[np.float64], weights: NDArray[np.float64] | None, labels: Sequence[str]
) -> NDArray[np.float64]:
    """The lower Cholesky factor of the correlations of standardised columns ``[N, d]``."""
    shares = np.full(len(standard), 1 / len(standard)) if weights is None else weights / weights.sum()
    correlation = standard.T @ (standard * shares[:, None])
    eigenvalues, directions = np.linalg.eigh(correlation)
    if eigenvalues[0] > SMALLEST:
        return np.linalg.cholesky(correlation)
    worst = labels[int(np.argmax(np.abs(directions[:, 0])))]
    why = "others determine it" if (shares > 0).all() else "negative weights outweigh the positive ones"
    raise ValueError(
        f"{worst} cannot be whitened with the others: {why} ({eigenvalues[0]:.3g} is an eigenvalue). {_CURE}"
    )
