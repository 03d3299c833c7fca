"""The weight posterior that a trained Pyro autoguide stands for."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer.autoguide import AutoContinuous, AutoDelta
from pyro.infer.autoguide import AutoNormal as PyroAutoNormal

from pyrogen.bayes.last_layers import LastLayers
from pyrogen.bayes.model import THETA
from pyrogen.posterior.weights import (
    LowRank,
    MeanField,
    Multivariate,
    PartlyRandom,
    Point,
    StoredDraws,
    WeightPosterior,
)
from pyrogen.seeds import one_thread, seeded, stream


def weights_of(guide: Any, stored_draws: int = 200, seed: int = 0) -> WeightPosterior:
    """The posterior of a trained Pyro autoguide.

    Gaussian guides (mean field, low rank, full covariance) and point estimates keep their parameters; any other
    guide is kept as ``stored_draws`` seeded draws.
    """
    with one_thread(), torch.no_grad(), pyro.get_param_store().scope():
        if isinstance(guide, PyroAutoNormal):
            loc, scale = guide._get_loc_and_scale(THETA)
            if isinstance(guide, LastLayers):
                return PartlyRandom.of(loc, scale, guide.random)
            return MeanField(loc=loc, scale=scale)
        if isinstance(guide, AutoDelta):
            return Point(loc=guide.median()[THETA])
        if isinstance(guide, AutoContinuous):
            q = guide.get_posterior()
            if isinstance(q, torch.distributions.Independent) and isinstance(q.base_dist, dist.Normal):
                return MeanField(loc=q.base_dist.loc, scale=q.base_dist.scale)
            if isinstance(q, dist.LowRankMultivariateNormal):
                return LowRank(loc=q.loc, cov_factor=q._unbroadcasted_cov_factor, cov_diag=q._unbroadcasted_cov_diag)
            if isinstance(q, dist.MultivariateNormal):
                return Multivariate(loc=q.loc, scale_tril=q._unbroadcasted_scale_tril)
        device = next((parameter.device for parameter in guide.parameters()), "cpu")
        with seeded(stream(seed, "draws of a guide"), device):
            draws = torch.stack([guide()[THETA] for _ in range(stored_draws)])
        return StoredDraws(draws[None])


def start_at(guide: PyroAutoNormal, weights: WeightPosterior) -> None:
    """Give a mean-field guide the means and widths of a mean-field posterior ``N(loc, scale^2)``."""
    free = torch.distributions.transform_to(guide.scale_constraint).inv(weights.arrays["scale"])
    started = {f"locs.{THETA}_unconstrained": weights.arrays["loc"], f"scales.{THETA}_unconstrained": free}
    guide.load_state_dict(guide.state_dict() | started)
