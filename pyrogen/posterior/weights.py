"""Posterior distributions over the packed weight vector, as predictions and files need them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoContinuous, AutoDelta
from pyro.infer.autoguide import AutoNormal as PyroAutoNormal
from torch import Tensor

from pyrogen.bayes.model import THETA
from pyrogen.checks import whole_number

#: The arrays that each family is made of.
FAMILIES: dict[str, tuple[str, ...]] = {
    "mean_field": ("loc", "scale"),
    "low_rank": ("loc", "cov_factor", "cov_diag"),
    "low_rank_precision": ("loc", "scale", "vectors", "shrink"),
    "multivariate": ("loc", "scale_tril"),
    "point": ("loc",),
    "draws": ("draws",),
}


class WeightPosterior:
    """A distribution over ``theta [P]``, one of :data:`FAMILIES`, that gives reproducible draws.

    ``"low_rank_precision"`` is a Gaussian that is narrower than independent ``N(loc, scale^2)`` along r orthonormal
    directions V (in units of ``scale``) by factors ``shrink``: its covariance is ``S (1 - V (1 - shrink^2) V^T) S``
    with ``S = diag(scale)``, a draw ``loc + scale * (xi - V (1 - shrink) V^T xi)`` with ``xi ~ N(0, 1)``.

    Args:
        family: a name in :data:`FAMILIES`.
        arrays: its arrays: ``loc [P]``, ``scale [P]``, ``cov_factor [P, r]``, ``cov_diag [P]``, ``vectors [P, r]``,
            ``shrink [r]``, ``scale_tril [P, P]``, or stored draws ``draws [chains, draws, P]``.
    """

    def __init__(self, family: str, arrays: dict[str, Tensor]) -> None:
        if family not in FAMILIES:
            raise ValueError(f"unknown family {family!r} of weight posteriors; known: {', '.join(FAMILIES)}")
        if set(arrays) != set(FAMILIES[family]):
            raise ValueError(f"a {family} posterior is made of {FAMILIES[family]}; got {tuple(arrays)}")
        self.family = family
        # Stored draws may be many and lie in a file: they are used as they are, not copied.
        self.arrays = {
            name: array.detach() if family == "draws" else array.detach().clone() for name, array in arrays.items()
        }

    @classmethod
    def from_guide(cls, guide: Any, stored_draws: int = 200, seed: int = 0) -> WeightPosterior:
        """The posterior of a trained Pyro autoguide.

        Gaussian guides (mean field, low rank, full covariance) and point estimates keep their parameters; any other
        guide is kept as ``stored_draws`` seeded draws.
        """
        with torch.no_grad(), pyro.get_param_store().scope():
            if isinstance(guide, PyroAutoNormal):
                loc, scale = guide._get_loc_and_scale(THETA)
                return cls("mean_field", {"loc": loc, "scale": scale})
            if isinstance(guide, AutoDelta):
                return cls("point", {"loc": guide.median()[THETA]})
            if isinstance(guide, AutoContinuous):
                q = guide.get_posterior()
                if isinstance(q, torch.distributions.Independent) and isinstance(q.base_dist, dist.Normal):
                    return cls("mean_field", {"loc": q.base_dist.loc, "scale": q.base_dist.scale})
                if isinstance(q, dist.LowRankMultivariateNormal):
                    return cls(
                        "low_rank",
                        {
                            "loc": q.loc,
                            "cov_factor": q._unbroadcasted_cov_factor,
                            "cov_diag": q._unbroadcasted_cov_diag,
                        },
                    )
                if isinstance(q, dist.MultivariateNormal):
                    return cls("multivariate", {"loc": q.loc, "scale_tril": q._unbroadcasted_scale_tril})
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                draws = torch.stack([guide()[THETA] for _ in range(stored_draws)])
            return cls("draws", {"draws": draws[None]})

    @property
    def size(self) -> int:
        """Number of weights P."""
        return next(iter(self.arrays.values())).shape[0 if self.family != "draws" else -1]

    @property
    def stored(self) -> int | None:
        """Number of stored draws, of all chains together; None for a distribution, which has any number."""
        return self.arrays["draws"].shape[:2].numel() if self.family == "draws" else None

    def log_prob(self, theta: Tensor) -> float:
        """Log density of weights ``theta [P]``, in double precision.

        Raises:
            ValueError: stored draws or a single point, which have no density.
        """
        if self.family in ("draws", "point"):
            raise ValueError(f"a posterior of the family {self.family!r} has no density over the weights")
        a = {name: array.double() for name, array in self.arrays.items()}
        offset = theta.double() - a["loc"]
        normal: torch.distributions.Distribution
        if self.family == "low_rank":
            normal = torch.distributions.LowRankMultivariateNormal(a["loc"], a["cov_factor"], a["cov_diag"])
            return float(normal.log_prob(theta.double()))
        if self.family == "multivariate":
            normal = torch.distributions.MultivariateNormal(a["loc"], scale_tril=a["scale_tril"])
            return float(normal.log_prob(theta.double()))
        # In units of the scale: narrower by the factors shrink along the vectors, where there are any.
        offset = offset / a["scale"]
        square, log_volume = offset.square().sum(), a["scale"].log().sum()
        if self.family == "low_rank_precision":
            square = square + ((a["shrink"] ** -2 - 1) * (a["vectors"].T @ offset).square()).sum()
            log_volume = log_volume + a["shrink"].log().sum()
        return float(-0.5 * (square + len(offset) * math.log(2 * math.pi)) - log_volume)

    def draws(self, n: int, seed: int) -> Iterator[Tensor]:
        """``n`` weight vectors ``[P]``, one after another, the same for the same seed.

        Of a distribution, a longer run starts with the draws of a shorter one. Stored draws have no seed: they are
        taken evenly from their chains.

        Raises:
            ValueError: n is not a positive whole number, or exceeds the stored draws.
        """
        n = whole_number("draws", n, 1)
        if self.family == "draws":
            stored = self.arrays["draws"]
            total = stored.shape[:2].numel()
            if n > total:
                raise ValueError(f"draws is {n}, but this posterior holds {total} stored weight draws")
            for i in np.linspace(0, total - 1, n).round().astype(int):
                yield stored[divmod(int(i), stored.shape[1])]  # one by one: stored draws may be more than memory holds
            return
        a = self.arrays
        loc = a["loc"]
        seeds = np.random.SeedSequence(seed).generate_state(n, np.uint64)
        for i in range(n):
            # A generator per draw: no draw depends on how many were asked for or on what ran between them.
            generator = torch.Generator(loc.device).manual_seed(int(seeds[i] >> np.uint64(1)))

            def noise(size: int, generator: torch.Generator = generator) -> Tensor:
                return torch.randn(size, generator=generator, dtype=loc.dtype, device=loc.device)

            if self.family == "mean_field":
                yield loc + a["scale"] * noise(len(loc))
            elif self.family == "low_rank":
                yield loc + a["cov_factor"] @ noise(a["cov_factor"].shape[1]) + a["cov_diag"].sqrt() * noise(len(loc))
            elif self.family == "low_rank_precision":
                xi = noise(len(loc))
                yield loc + a["scale"] * (xi - a["vectors"] @ ((1 - a["shrink"]) * (a["vectors"].T @ xi)))
            elif self.family == "multivariate":
                yield loc + a["scale_tril"] @ noise(len(loc))
            else:
                yield loc.clone()
