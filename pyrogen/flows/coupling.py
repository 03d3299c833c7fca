"""Normalizing flows out of coupling blocks, in plain torch: ``x = f(z; theta)`` as in [A] (arXiv:2104.04543) sec. 2.2.

Conventions, as in [A]: ``forward`` goes from latent space to events (generation), ``inverse`` from events to latent
space (density and training). A *block* transforms one half of the features conditioned on the other half; the
halves alternate from block to block.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyrogen.checks import whole_number
from pyrogen.flows.transforms import Affine, Bernstein, RationalQuadraticSpline, Transform

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "elu": nn.ELU, "tanh": nn.Tanh}
MIXINGS = ("alternate", "random", "rotation")


class Conditioner(nn.Module):
    """A multilayer perceptron with torch's usual initial weights.

    (A last layer that starts at zero makes every block the identity, which is a saddle point for affine blocks: one
    block alone cannot improve on a Gaussian, and a deep flow stays there for hundreds of steps.)

    Args:
        inputs: number of inputs; with none, the network sees a constant 1 and predicts free parameters.
        hidden: units of each hidden layer.
        outputs: number of outputs.
        activation: a name in :data:`ACTIVATIONS`.
    """

    def __init__(self, inputs: int, hidden: Sequence[int], outputs: int, activation: str = "relu") -> None:
        super().__init__()
        self.constant_input = inputs == 0
        sizes = [max(inputs, 1), *hidden, outputs]
        layers: list[nn.Module] = []
        for width_in, width_out in zip(sizes, sizes[1:], strict=False):
            layers += [nn.Linear(width_in, width_out), ACTIVATIONS[activation]()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs ``[..., inputs]`` to ``[..., outputs]``."""
        if self.constant_input:
            inputs = inputs.new_ones(*inputs.shape[:-1], 1)
        return self.layers(inputs)


class CouplingBlock(nn.Module):
    """One coupling block: half of the features is transformed, with parameters predicted from the other half.

    Args:
        features: number of features of an event.
        transform: the elementwise transform.
        hidden: units of each hidden layer of the conditioner.
        context: number of conditions appended to the conditioner's input.
        activation: a name in :data:`ACTIVATIONS`.
        first: transform the first half instead of the second.
        circles: which of the kept features are periodic; the conditioner sees their sine and cosine.
    """

    def __init__(
        self,
        features: int,
        transform: Transform,
        hidden: Sequence[int],
        context: int,
        activation: str,
        first: bool,
        circles: Sequence[bool] = (),
    ) -> None:
        super().__init__()
        self.transform = transform
        self.first = first
        self.transformed = features - features // 2  # with an odd number the larger half moves
        self._circles = [i for i, circle in enumerate(circles) if circle]
        # radians per unit: a circle takes the whole box of its spline
        self._turn = 2 * math.pi / (transform.high - transform.low) if self._circles else 0.0  # type: ignore[attr-defined]
        self._plain = [i for i in range(features // 2) if i not in self._circles]
        outputs = self.transformed * transform.parameters_per_feature
        inputs = features // 2 + len(self._circles) + context
        self.conditioner = Conditioner(inputs, hidden, outputs, activation)

    def _split(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """The half that is kept and the half that is transformed."""
        kept = values.shape[-1] - self.transformed
        if self.first:
            moved, still = values.split([self.transformed, kept], -1)
        else:
            still, moved = values.split([kept, self.transformed], -1)
        return still, moved

    def _predict(self, kept: Tensor, context: Tensor | None) -> Tensor:
        if self._circles:
            angle = self._turn * kept[..., self._circles]
            kept = torch.cat([kept[..., self._plain], torch.cos(angle), torch.sin(angle)], -1)
        inputs = kept if context is None else torch.cat([kept, context], -1)
        return self.conditioner(inputs).unflatten(-1, (self.transformed, -1))

    def _apply_transform(self, inverse: bool, values: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        kept, moved = self._split(values)
        parameters = self._predict(kept, context)
        moved, log_derivative = (self.transform.inverse if inverse else self.transform.forward)(moved, parameters)
        halves = [moved, kept] if self.first else [kept, moved]
        return torch.cat(halves, -1), log_derivative.sum(-1)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Latent ``z [..., features]`` to ``x`` and log|det dx/dz| ``[...]``."""
        return self._apply_transform(False, z, context)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``x [..., features]`` to latent ``z`` and log|det dz/dx| ``[...]``."""
        return self._apply_transform(True, x, context)


class CouplingFlow(nn.Module):
    """A normalizing flow of affine, rational-quadratic-spline or Bernstein-polynomial coupling blocks.

    Trains by maximum likelihood in plain torch (``-flow.log_prob(x).mean()``) and is the deterministic network that
    :class:`~pyrogen.BayesianFlow` lifts.

    Args:
        features: number of features of an event, at least 1.
        blocks: number of coupling blocks (20 in [A] table 1).
        hidden: units of each hidden layer of a block's network (32, 32, 32 in [A] table 1).
        transform: ``"affine"`` (RealNVP with softly clamped scale), ``"rqs"`` (rational-quadratic spline), or
            ``"bernstein"`` (smooth polynomial on the unit box, the one that samplers mix best with).
        context: number of conditions per event; 0 for an unconditional flow.
        base: ``"normal"``: standard normal latent space, all of R^features; ``"uniform"``: the unit box with a
            uniform latent density, for ``"rqs"`` and ``"bernstein"``: densities with hard edges, such as the ramps.
            Events outside the box then have log-density -inf.
        mixing: between blocks the halves ``"alternate"``; ``"random"`` adds a fixed random permutation,
            ``"rotation"`` a fixed random rotation (not on the unit box). Default: rotations for affine blocks,
            alternating halves for splines. Affine blocks that only alternate learn slowly where the features are
            independent of each other, as on the ramps: no block alone improves on a Gaussian.
        bins: bins of each spline, or degree of each Bernstein polynomial. So that a spline's inverse survives float32,
            no bin is narrower than a fixed part of a uniform one (40 %, on the unit box 5 %) and knot slopes stay
            within a factor 5 of their bins': a peak much narrower than that takes several blocks.
        bound: the splines of the normal base act on [-bound, bound] and are the identity outside.
        clamp: bound on the log-scale of an affine block.
        activation: ``"relu"``, ``"silu"``, ``"elu"`` or ``"tanh"``.
        seed: seeds the initial weights and the fixed mixing; the global random state is left alone.
        periodic: indices of features that are angles, from 0 to 1 once around, for ``transform="rqs"``; the others are
            as the base says. The density is continuous where the circle is cut. There is none outside [0, 1].
        dtype: ``torch.float32`` (default) or ``torch.float64``.

    Raises:
        ValueError: an argument out of range, with what would be right.
    """

    orders: Tensor
    rotations: Tensor

    def __init__(
        self,
        features: int,
        blocks: int = 20,
        hidden: Sequence[int] = (32, 32, 32),
        transform: str = "affine",
        context: int = 0,
        *,
        base: str = "normal",
        mixing: str | None = None,
        bins: int = 10,
        bound: float = 5.0,
        clamp: float = 2.0,
        activation: str = "relu",
        seed: int = 0,
        periodic: Sequence[int] = (),
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        features = whole_number("features", features, 1)
        blocks = whole_number("blocks", blocks, 1)
        context = whole_number("context", context, 0)
        hidden = tuple(whole_number("every entry of hidden", units, 1) for units in hidden)
        seed = whole_number("seed", seed, 0)
        _check_choice("transform", transform, tuple(TRANSFORMS))
        _check_choice("base", base, ("normal", "uniform"))
        if mixing is None:
            mixing = "rotation" if transform == "affine" and features > 1 else "alternate"
        _check_choice("mixing", mixing, MIXINGS)
        _check_choice("activation", activation, tuple(ACTIVATIONS))
        if base == "uniform" and (transform == "affine" or mixing == "rotation"):
            raise ValueError(
                'base="uniform" is the unit box, which only transform="rqs" or "bernstein" with mixing "alternate" or '
                f'"random" maps onto itself; got transform={transform!r}, mixing={mixing!r}'
            )
        if transform == "bernstein" and base != "uniform":
            raise ValueError(
                'transform="bernstein" is a polynomial on the unit box; give base="uniform", and for events that do '
                "not live there preprocessing=pg.events.UnitBox(low, high)"
            )
        periodic = sorted({whole_number("every entry of periodic", index, 0) for index in periodic})
        if periodic and (transform != "rqs" or mixing == "rotation" or periodic[-1] >= features):
            raise ValueError(
                f'periodic={periodic} needs transform="rqs", no rotations, and indices below the {features} features; '
                f"got transform={transform!r}, mixing={mixing!r}"
            )
        if features == 1 and transform == "affine" and context == 0:
            warnings.warn(
                'an affine flow of one feature can only learn a Gaussian; transform="rqs" is not so limited',
                stacklevel=2,
            )
        self.features, self.context, self.base = features, context, base
        self.config: dict[str, Any] = {
            "features": features,
            "blocks": blocks,
            "hidden": list(hidden),
            "transform": transform,
            "context": context,
            "base": base,
            "mixing": mixing,
            "bins": bins,
            "bound": float(bound),
            "clamp": float(clamp),
            "activation": activation,
            "seed": seed,
            **({"periodic": periodic} if periodic else {}),
            "dtype": str(dtype).removeprefix("torch."),
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if mixing == "random":
                orders = torch.stack([torch.randperm(features) for _ in range(blocks)])
                self.register_buffer("orders", orders)
            self.blocks = nn.ModuleList()
            moved = features - features // 2
            circles = torch.zeros(features, dtype=torch.bool)
            circles[periodic] = True
            # Which features are periodic in the order of every block: the last one sees that of the events, the first
            # one that of latent space after its permutation.
            seen = [circles]
            for i in reversed(range(blocks)):
                seen.append(seen[-1][self.orders[i].argsort()] if mixing == "random" else seen[-1])
            latent = seen.pop()
            for i, circles in enumerate(reversed(seen)):
                first = i % 2 == 1
                halves = circles.split([moved, features - moved] if first else [features - moved, moved])
                mine, kept = halves if first else reversed(halves)
                part = TRANSFORMS[transform](base=base, bins=bins, bound=bound, clamp=clamp, periodic=mine.tolist())
                self.blocks.append(CouplingBlock(features, part, hidden, context, activation, first, kept.tolist()))
            if mixing == "rotation":
                # in float64, so that they are orthogonal to the precision of either type
                self.register_buffer(
                    "rotations", torch.linalg.qr(torch.randn(blocks, features, features, dtype=torch.float64)).Q
                )
        self.mixing = mixing
        # Angles, from 0 to 1 for the user, take the whole box of their splines inside: the two Jacobians cancel.
        self._wide = base == "normal" and bool(periodic)
        self._box = float(bound)
        self._circles, self._latent_circles = periodic, latent.nonzero()[:, 0].tolist()
        self._latent_line = (~latent).nonzero()[:, 0].tolist()
        self.to(dtype)

    @property
    def on_unit_box(self) -> bool:
        """True where the flow's events live in the unit box."""
        return self.base == "uniform"

    def _to_box(self, values: Tensor, circles: list[int]) -> Tensor:
        """Circles from [0, 1] to the box of their splines."""
        if not self._wide:
            return values
        return torch.where(self._mask(circles, values), self._box * (2 * values - 1), values)

    def _from_box(self, values: Tensor, circles: list[int]) -> Tensor:
        """Circles from the box of their splines to [0, 1]."""
        if not self._wide:
            return values
        return torch.where(self._mask(circles, values), (values / self._box + 1) / 2, values)

    def _mask(self, circles: list[int], values: Tensor) -> Tensor:
        mask = torch.zeros(self.features, dtype=torch.bool, device=values.device)
        mask[circles] = True
        return mask

    def _mix(self, values: Tensor, block: int, inverse: bool) -> Tensor:
        if self.mixing == "random":
            order = self.orders[block]
            return values[..., order.argsort() if inverse else order]
        if self.mixing == "rotation":
            rotation = self.rotations[block]
            return values @ (rotation if inverse else rotation.T)
        return values

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Generate: latent ``z [..., features]`` to events ``x`` and log|det dx/dz| ``[...]``."""
        context = self._check(z, context)
        log_det = z.new_zeros(z.shape[:-1])
        z = self._to_box(z, self._latent_circles)
        for i, block in enumerate(self.blocks):
            z, contribution = block(self._mix(z, i, False), context)
            log_det = log_det + contribution
        return self._from_box(z, self._circles), log_det

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Normalise: events ``x [..., features]`` to latent ``z`` and log|det dz/dx| ``[...]``."""
        context = self._check(x, context)
        log_det = x.new_zeros(x.shape[:-1])
        x = self._to_box(x, self._circles)
        for i in reversed(range(len(self.blocks))):
            x, contribution = self.blocks[i].inverse(x, context)  # type: ignore[operator]
            x = self._mix(x, i, True)
            log_det = log_det + contribution
        return self._from_box(x, self._latent_circles), log_det

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log density of events, ``log p_z(f^-1(x)) + log|det df^-1/dx|`` [A eq. 3].

        Args:
            x: events ``[..., features]``.
            context: conditions ``[..., context]``, only for a conditional flow.

        Returns:
            ``[...]`` in nats; -inf outside the unit box of a uniform base.
        """
        z, log_det = self.inverse(x, context)
        return self._base_log_prob(z) + log_det

    def sample(self, n: int, context: Tensor | None = None) -> Tensor:
        """``n`` events ``[n, features]`` through torch's global random state; ``context [n, context]``."""
        n = whole_number("n", n, 0)
        parameter = next(self.parameters())
        draw = torch.rand if self.on_unit_box else torch.randn
        z = draw(n, self.features, dtype=parameter.dtype, device=parameter.device)
        if self._wide:
            z[:, self._latent_circles] = torch.rand(n, len(self._circles), dtype=z.dtype, device=z.device)
        return self.forward(z, context)[0]

    def _base_log_prob(self, z: Tensor) -> Tensor:
        if self.on_unit_box:
            return torch.where(_in_box(z), 0.0, -math.inf).to(z.dtype)
        if not self._circles:
            return -0.5 * (z**2).sum(-1) - 0.5 * self.features * math.log(2 * math.pi)
        circles, line = z[..., self._latent_circles], z[..., self._latent_line]
        normal = -0.5 * (line**2).sum(-1) - 0.5 * len(self._latent_line) * math.log(2 * math.pi)
        return torch.where(_in_box(circles), normal, -math.inf)

    def _check(self, values: Tensor, context: Tensor | None) -> Tensor | None:
        if values.ndim < 1 or values.shape[-1] != self.features:
            raise ValueError(f"events of shape {list(values.shape)}; this flow needs [..., {self.features}]")
        if self.context == 0:
            if context is not None:
                raise ValueError("context was given to a flow without conditions; build it with context=k")
            return None
        expected = [*values.shape[:-1], self.context]
        if context is None or list(context.shape) != expected:
            got = None if context is None else list(context.shape)
            raise ValueError(f"context of shape {got}; this flow needs {expected} for events {list(values.shape)}")
        return context


def _in_box(values: Tensor) -> Tensor:
    """Which rows lie in the unit box; what rounding alone puts beyond an edge is inside, as generated events are."""
    rounding = 8 * torch.finfo(values.dtype).eps
    return ((values >= -rounding) & (values <= 1 + rounding)).all(-1)


def _affine(*, clamp: float, **_: Any) -> Transform:
    return Affine(clamp)


def _spline(*, base: str, bins: int, bound: float, periodic: Sequence[bool], **_: Any) -> Transform:
    if base == "uniform":
        return RationalQuadraticSpline(bins, 0.0, 1.0, free_edges=True, periodic=periodic)
    return RationalQuadraticSpline(bins, -bound, bound, periodic=periodic)


def _bernstein(*, bins: int, **_: Any) -> Transform:
    return Bernstein(bins)


#: Constructors by name: what ``CouplingFlow(transform=...)`` accepts.
TRANSFORMS: dict[str, Callable[..., Transform]] = {
    "affine": _affine,
    "bernstein": _bernstein,
    "rqs": _spline,
}


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"unknown {name} {value!r}; choose one of {', '.join(map(repr, choices))}")
