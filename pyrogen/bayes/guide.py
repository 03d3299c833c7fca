"""Mean-field guide and ELBO: the variational posterior of [A] sec. 2.3, exact KL, local reparameterization."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.util import scale_and_mask
from pyro.infer import TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal as PyroAutoNormal
from pyro.infer.autoguide import init_to_feasible, init_to_value
from pyro.infer.util import check_fully_reparametrized, is_validation_enabled
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import biject_to, kl_divergence

from pyrogen.bayes.distribution import FlowDistribution
from pyrogen.bayes.model import THETA, BayesianFlow
from pyrogen.checks import BOOLEAN, FUNCTION, POSITIVE, door, optional, whole
from pyrogen.printing import Compact, Shown, listed


def start_at_initial_weights(model: Any) -> Callable[[Any], Any]:
    """An ``init_loc_fn`` for Pyro's autoguides: means start at the weights the flow had when it was lifted."""
    if isinstance(model, BayesianFlow):
        return init_to_value(values={THETA: model.initial_theta.clone()}, fallback=init_to_feasible)
    return init_to_feasible


class AutoNormal(Compact, PyroAutoNormal):
    """Pyro's mean-field ``AutoNormal``, sampling a plain Normal under each site's own name.

    Pyro's own emits an auxiliary Normal and a Delta, whose KL to the prior is never in closed form. With this guide
    :class:`pyro.infer.TraceMeanField_ELBO` uses the exact KL, and :class:`ELBO` finds the mean and the width that
    local reparameterization needs. Means start at the deterministic initialisation, widths small.

    Args:
        model: a Pyro model, usually a :class:`~pyrogen.BayesianFlow`.
        init_loc_fn: where means start; default the flow's own weights.
        init_scale: initial width of every weight.
    """

    @door(model=FUNCTION, init_loc_fn=optional(FUNCTION), init_scale=POSITIVE, create_plates=optional(FUNCTION))
    def __init__(
        self,
        model: Callable[..., Any],
        *,
        init_loc_fn: Callable[..., Any] | None = None,
        init_scale: float = 1e-3,
        create_plates: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__(
            model,
            init_loc_fn=init_loc_fn or start_at_initial_weights(model),
            init_scale=init_scale,
            create_plates=create_plates,
        )

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Sample every latent site; returns the values by site name."""
        if self.prototype_trace is None:
            self._setup_prototype(*args, **kwargs)
        assert self.prototype_trace is not None
        plates = self._create_plates(*args, **kwargs)
        result = {}
        for name, site in self.prototype_trace.iter_stochastic_nodes():
            loc, scale = self._get_loc_and_scale(name)
            posterior: Any = self._normal(name, loc, scale).to_event(self._event_dims[name])
            transform = biject_to(site["fn"].support)
            if not _is_identity(transform):
                posterior = dist.TransformedDistribution(posterior, transform)
            frames = [plates[frame.name] for frame in site["cond_indep_stack"] if frame.vectorized]
            result[name] = _sample_in(frames, name, posterior)
        return result

    def _summary(self) -> str:
        sites = self.prototype_trace
        if sites is None:
            return "not set up"
        numbers = {name: site["value"].numel() for name, site in sites.iter_stochastic_nodes()}
        return listed(f"{name}: {numel:,} weights" for name, numel in numbers.items())

    def _normal(self, name: str, loc: Tensor, scale: Tensor) -> Any:
        """The distribution of the site ``name``."""
        return dist.Normal(loc, scale, validate_args=False)


class ELBO(Shown, TraceMeanField_ELBO):
    """The loss of [A] eq. 16 with the exact KL where it is known and local reparameterization where it is allowed.

    Use it in place of ``Trace_ELBO`` in :class:`pyro.infer.SVI`, or through :class:`pyrogen.SVI`. After each call
    ``parts`` holds its negative log-likelihood and its KL, in nats of the whole sample.

    Args:
        local: draw activations per event instead of weights per batch, for guides that sample ``theta`` from
            independent Normals under its own name (:class:`AutoNormal`).
        num_particles: weight (or activation) draws averaged in a step.
        kl_weight: factor on the KL. Any other than 1 is no ELBO: below 1 it belongs to a posterior that counts every
            event ``1 / kl_weight`` times (a cold, or tempered, posterior).
    """

    @door(local=BOOLEAN, num_particles=whole(1), kl_weight=POSITIVE)
    def __init__(self, local: bool = True, num_particles: int = 1, kl_weight: float = 1.0, **kwargs: Any) -> None:
        super().__init__(num_particles=num_particles, **kwargs)
        self.local, self.kl_weight = local, kl_weight
        self._particles: list[tuple[Tensor, Tensor]] = []

    def __repr__(self) -> str:
        return f"ELBO(local={self.local}, num_particles={self.num_particles}, kl_weight={self.kl_weight:g})"

    @property
    def parts(self) -> tuple[Tensor, Tensor]:
        """``(negative log-likelihood, KL)`` of the last call, averaged over its particles, detached; KL unweighted."""
        likelihoods, kls = zip(*self._particles, strict=True)
        return torch.stack(likelihoods).mean(), torch.stack(kls).mean()

    def _get_traces(self, *args: Any, **kwargs: Any) -> Any:
        self._particles = []
        return super()._get_traces(*args, **kwargs)

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        if not self.local:
            return super()._get_trace(model, guide, args, kwargs)
        record = RecordPosterior()
        return super()._get_trace(LocalReparameterization(record)(model), record(guide), args, kwargs)

    def _differentiable_loss_particle(self, model_trace: Any, guide_trace: Any) -> tuple[float, Tensor]:
        surrogate = self._surrogate(model_trace, guide_trace)
        return float(surrogate.detach()), surrogate

    def differentiable_loss(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> Tensor:
        """The loss; nothing in it waits for a card."""
        traces = self._get_traces(model, guide, args, kwargs)
        return torch.stack([self._surrogate(*its) for its in traces]).sum() / self.num_particles

    def _surrogate(self, model_trace: Any, guide_trace: Any) -> Tensor:
        """The loss of one particle."""
        negative_log_likelihood: Any = 0.0
        kl: Any = 0.0
        for name, site in model_trace.nodes.items():
            if site["type"] != "sample":
                continue
            if site["is_observed"]:
                negative_log_likelihood = negative_log_likelihood - site["log_prob_sum"]
            else:
                kl = kl + _kl(guide_trace.nodes[name], site)
        for name, site in guide_trace.nodes.items():
            if site["type"] == "sample" and name not in model_trace.nodes:  # an auxiliary site
                _check_reparametrized(site)
                kl = kl + site["score_parts"].entropy_term.sum()
        self._particles.append(tuple(torch.as_tensor(part).detach() for part in (negative_log_likelihood, kl)))  # type: ignore[arg-type]
        return negative_log_likelihood + self.kl_weight * kl


def _kl(guide_site: Any, model_site: Any) -> Tensor:
    """The KL of a site of the guide to that of the model: in closed form where there is one, else of the draw."""
    _check_reparametrized(guide_site)
    try:
        kl = kl_divergence(guide_site["fn"], model_site["fn"])
    except NotImplementedError:
        return guide_site["score_parts"].entropy_term.sum() - model_site["log_prob_sum"]
    return scale_and_mask(kl, scale=guide_site["scale"], mask=guide_site["mask"]).sum()


def _check_reparametrized(site: Any) -> None:
    if is_validation_enabled():
        check_fully_reparametrized(site)


class RecordPosterior(Messenger):
    """Effect handler around a guide: remembers the independent Normal that it samples ``theta`` from, if it does."""

    def __init__(self) -> None:
        super().__init__()
        self.posterior: tuple[Tensor, Tensor] | None = None

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] == THETA:
            fn = msg["fn"]
            normal = fn.base_dist if isinstance(fn, torch.distributions.Independent) else None
            self.posterior = (normal.loc, normal.scale) if isinstance(normal, dist.Normal) else None


class LocalReparameterization(Messenger):
    """Effect handler around a model: the likelihood draws activations per event from a recorded posterior.

    Where the guide samples ``theta`` in any other way than from independent Normals, or the flow's layers do not allow
    it, the model is left as it is: one weight draw per batch.
    """

    def __init__(self, record: RecordPosterior) -> None:
        super().__init__()
        self.record = record

    def _pyro_sample(self, msg: Any) -> None:
        fn = msg["fn"]
        if isinstance(fn, FlowDistribution) and self.record.posterior and fn.model.local_obstacle() is None:
            msg["fn"] = fn.localized(*self.record.posterior)


def _is_identity(transform: Any) -> bool:
    parts = getattr(transform, "parts", None) or [getattr(transform, "base_transform", transform)]
    return all(part == torch.distributions.transforms.identity_transform for part in parts)


def _sample_in(frames: list[Any], name: str, posterior: Any) -> Tensor:
    if not frames:
        return pyro.sample(name, posterior)
    with frames[0]:
        return _sample_in(frames[1:], name, posterior)
