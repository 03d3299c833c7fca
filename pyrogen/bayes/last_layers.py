"""A guide of partly random networks: the last layers follow a mean-field posterior, all other weights are points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions.kl import _kl_normal_normal, register_kl

from pyrogen.bayes.guide import AutoNormal
from pyrogen.bayes.model import THETA, BayesianFlow
from pyrogen.checks import FUNCTION, POSITIVE, TEXT, door, each, instance, optional

#: Width of a point in a training, in units of its prior's: nothing to a density, but its root has a gradient.
POINT = 1e-6
PATTERNS = each(TEXT, "a sequence of name patterns, such as ('*.bias',)", 1)


class LastLayers(AutoNormal):
    """Mean field over the last layer of every network in the flow; all other weights are points.

    What makes mean field too wide are products of random weights of one layer with random weights of the next: the
    density stays the same along curved ridges, which no Gaussian follows. With the lower layers at a point the ridges
    are cut, and the parameters of a transform are linear in what is random: ``q(theta) = delta(theta_1 - m_1)
    N(theta_2; m_2, diag(sigma_2^2))``. So one trains, per event, ``E_q[-log p] + (KL(q_2 || prior_2) + sum m_1^2 /
    (2 s_1^2)) / N``, with the points at the maximum of their posterior. (Partly stochastic networks: Sharma et al.,
    arXiv:2211.06291; of one layer: Kristiadi, Hein and Hennig, arXiv:2002.10118.)

    The points have no uncertainty, so sigma is that of networks with these features. Where that is right, and where
    not, stands in ``docs/calibration.md``. Use it as ``pg.SVI(guide=pg.LastLayers)``; a step costs what one of mean
    field costs, and ``fit_many`` trains all samples in one batch.

    Args:
        model: a :class:`~pyrogen.BayesianFlow`.
        random: names of the parameters that are random, as shell patterns; by default the last
            :class:`torch.nn.Linear` of every stack of layers (:func:`last_layers`). Give them with
            ``functools.partial(pg.LastLayers, random=("*.bias",))``.
        init_loc_fn: where means start; default the flow's own weights.
        init_scale: initial width of every random weight.

    Raises:
        ValueError: a flow without linear layers, where ``random`` is not given, or a pattern that no parameter matches.
    """

    @door(
        model=instance(BayesianFlow, "a pg.BayesianFlow"),
        random=optional(PATTERNS),
        init_loc_fn=optional(FUNCTION),
        init_scale=POSITIVE,
        create_plates=optional(FUNCTION),
    )
    def __init__(
        self,
        model: BayesianFlow,
        *,
        random: Sequence[str] | None = None,
        init_loc_fn: Callable[..., Any] | None = None,
        init_scale: float = 1e-3,
        create_plates: Callable[..., Any] | None = None,
    ) -> None:
        chosen = random_weights(model, random)
        super().__init__(model, init_loc_fn=init_loc_fn, init_scale=init_scale, create_plates=create_plates)
        # Buffers, so that they go to a device with the rest; the model makes them anew, so that no file holds them.
        self.register_buffer("random", chosen, persistent=False)  # which weights are random, [P]
        self.register_buffer("_widths_of_points", POINT * model.prior_scales, persistent=False)

    def _get_loc_and_scale(self, name: str) -> tuple[Tensor, Tensor]:
        loc, scale = super()._get_loc_and_scale(name)
        return loc, torch.where(self.random, scale, self._widths_of_points)

    def _normal(self, name: str, loc: Tensor, scale: Tensor) -> Any:
        return NormalAndPoints(loc, scale, self.random) if name == THETA else super()._normal(name, loc, scale)


class NormalAndPoints(dist.Normal):
    """Independent Gaussians, some of which stand for points: these have no entropy in the KL to a Gaussian.

    Args:
        loc: means.
        scale: widths, tiny where a point is.
        random: where none is.
    """

    def __init__(self, loc: Tensor, scale: Tensor, random: Tensor) -> None:
        super().__init__(loc, scale, validate_args=False)
        self.random = random


@register_kl(NormalAndPoints, torch.distributions.Normal)
def _kl(p: NormalAndPoints, q: torch.distributions.Normal) -> Tensor:
    square = 0.5 * ((p.loc - q.loc) / q.scale).square()
    return torch.where(p.random, _kl_normal_normal(p, q), square)


def random_weights(model: BayesianFlow, patterns: Sequence[str] | None = None) -> Tensor:
    """Which weights ``[P]`` a guide lets move: those of parameters that match a pattern, or of the last layers."""
    names = model.packing.names
    if patterns is None:
        # A parametrized layer, such as one with weight_norm, has its weights in modules below it.
        layers = tuple(f"{layer}." if layer else "" for layer in last_layers(model.flow))
        chosen = [name.startswith(layers) for name in names]
        if not any(chosen):
            raise ValueError(
                f"{type(model.flow).__name__} has no torch.nn.Linear whose weights could be the last layer; name the "
                "parameters: functools.partial(pg.LastLayers, random=('*.bias',))"
            )
    else:
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise ValueError(f"random holds {pattern!r}, which matches none of the parameters {names}")
        chosen = [any(fnmatchcase(name, pattern) for pattern in patterns) for name in names]
    counts = torch.tensor(model.packing.sizes)
    return torch.tensor(chosen).repeat_interleave(counts).to(model.device)


def last_layers(flow: nn.Module) -> list[str]:
    """Names of the last :class:`torch.nn.Linear` of every module that has linear layers right within it."""
    last: dict[str, str] = {}
    for name, module in flow.named_modules():
        if isinstance(module, nn.Linear):
            last[name.rpartition(".")[0]] = name
    return list(last.values())


def chosen_by(guide: Any, model: BayesianFlow) -> Tensor | None:
    """Which weights ``[P]`` are random in a guide of independent Gaussians; None where all are.

    Args:
        guide: :class:`~pyrogen.AutoNormal`, :class:`LastLayers`, or a ``functools.partial`` of the latter.
        model: the model.
    """
    if guide is AutoNormal:
        return None
    given = guide.keywords.get("random") if isinstance(guide, partial) else None
    return random_weights(model, optional(PATTERNS)("random", given))  # no guide is made that would check it


def is_batched(guide: Any) -> bool:
    """Whether many samples can be one batch with this guide: mean field, or partly random networks."""
    if isinstance(guide, partial):
        return guide.func is LastLayers and not guide.args and set(guide.keywords) <= {"random"}
    return guide in (AutoNormal, LastLayers)
