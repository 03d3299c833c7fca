"""Normalizing flows out of coupling blocks, in plain torch: ``x = f(z; theta)`` as in [A] (arXiv:2104.04543) sec. 2.2.

Conventions, as in [A]: ``forward`` goes from latent space to events (generation), ``inverse`` from events to latent
space (density and training). A *block* transforms one half of the features conditioned on the other half; the
halves alternate from block to block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyrogen.checks import (
    DTYPE,
    HIDDEN,
    POSITIVE,
    SEED,
    TEXT,
    check_memory,
    door,
    each,
    optional,
    whole,
    whole_number,
)
from pyrogen.flows.compiled import maybe_compiled
from pyrogen.flows.conditioner import ACTIVATIONS, Conditioner
from pyrogen.flows.mixings import Mixing, upgrade_buffers
from pyrogen.flows.registry import check_choice
from pyrogen.flows.spaces import Angles, Latent
from pyrogen.flows.transforms import Transform, TransformOptions
from pyrogen.printing import Compact, brief
from pyrogen.seeds import seeded
from pyrogen.warn import warn


class CouplingBlock(Compact, nn.Module):
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

    circles: Tensor | None
    lines: Tensor | None

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
        if not hasattr(transform, "parameters_per_feature"):
            raise TypeError(
                f"{type(transform).__name__} has no parameters_per_feature: how many numbers it takes for each"
            )
        self.transform = transform
        self.first = first
        self.kept = features // 2
        self.transformed = features - self.kept
        on_circle = [i for i, circle in enumerate(circles) if circle]
        on_line = [i for i in range(self.kept) if i not in on_circle]
        self.register_buffer("circles", torch.tensor(on_circle) if on_circle else None, persistent=False)
        self.register_buffer("lines", torch.tensor(on_line, dtype=torch.long) if on_circle else None, persistent=False)
        self._turn = 2 * math.pi / (transform.high - transform.low)  # radians per unit: a circle is the whole box
        outputs = self.transformed * transform.parameters_per_feature
        inputs = self.kept + len(on_circle) + context
        self.conditioner = Conditioner(inputs, hidden, outputs, activation)

    def _predict(self, kept: Tensor, context: Tensor | None) -> Tensor:
        if self.circles is not None:
            angle = self._turn * kept[..., self.circles]
            kept = torch.cat([kept[..., self.lines], torch.cos(angle), torch.sin(angle)], -1)
        inputs = kept if context is None else torch.cat([kept, context], -1)
        return self.conditioner(inputs).unflatten(-1, (self.transformed, -1))

    def _apply_transform(self, inverse: bool, values: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        kept, moved = _halves(values, self.first)
        parameters = self._predict(kept, context)
        moved, log_derivative = (self.transform.inverse if inverse else self.transform.forward)(moved, parameters)
        halves = [moved, kept] if self.first else [kept, moved]
        # A sum of one number is no sum, but takes as long.
        summed = log_derivative[..., 0] if self.transformed == 1 else log_derivative.sum(-1)
        return torch.cat(halves, -1), summed

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Latent ``z [..., features]`` to ``x`` and log|det dx/dz| ``[...]``."""
        return self._apply_transform(False, z, context)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``x [..., features]`` to latent ``z`` and log|det dz/dx| ``[...]``."""
        return self._apply_transform(True, x, context)

    def extra_repr(self) -> str:
        angles = "" if self.circles is None else f", {len(self.circles)} of the others on circles"
        return f"moves {self.transformed} of {self.transformed + self.kept} features{angles}"


#: Checks of the arguments that all flows of couplings have.
SETTINGS: dict[str, Any] = {
    "transform": TEXT,
    "mixing": optional(TEXT),
    "bins": whole(1),
    "bound": POSITIVE,
    "clamp": POSITIVE,
    "activation": TEXT,
    "seed": SEED,
    "dtype": DTYPE,
}


class CouplingFlow(Compact, nn.Module):
    """A normalizing flow of coupling blocks: affine, splines, Bernstein polynomials or your own.

    Trains by maximum likelihood in plain torch (``-flow.log_prob(x).mean()``) and is the deterministic network that
    :class:`~pyrogen.BayesianFlow` lifts.

    Args:
        features: number of features of an event, at least 1.
        blocks: number of coupling blocks (20 in [A] table 1).
        hidden: units of each hidden layer of a block's network (32, 32, 32 in [A] table 1).
        transform: ``"affine"`` (RealNVP with softly clamped scale), ``"rqs"`` (rational-quadratic spline),
            ``"cubic"`` (cubic spline, with fewer parameters and about the same speed), or ``"bernstein"`` (smooth
            polynomial on the unit box, the one that samplers mix best with); or the name of a
            :class:`~pyrogen.flows.Transform` of yours.
        context: number of conditions per event; 0 for an unconditional flow.
        base: ``"normal"``: standard normal latent space, all of R^features; ``"uniform"``: the unit box with a
            uniform latent density, for ``"rqs"``, ``"cubic"`` and ``"bernstein"``: densities with hard edges, such as
            the ramps. Events outside the box then have log-density -inf.
        mixing: between blocks the halves ``"alternate"``; ``"random"`` adds a fixed random permutation,
            ``"rotation"`` a fixed random rotation (not on the unit box). Default: rotations for affine blocks,
            alternating halves for splines. Affine blocks that only alternate learn slowly where the features are
            independent of each other, as on the ramps: no block alone improves on a Gaussian.
        bins: bins of each spline, or degree of each Bernstein polynomial. So that a spline's inverse survives float32,
            no bin is narrower than a fixed part of a uniform one (40 %, on the unit box 5 %) and knot slopes stay
            near their bins' (``"rqs"``: within a factor 5, ``"cubic"``: at most twice the flatter one): a peak much
            narrower than that takes several blocks.
        bound: the splines of the normal base act on [-bound, bound] and are the identity outside.
        clamp: bound on the log-scale of an affine block.
        activation: ``"relu"``, ``"silu"``, ``"elu"`` or ``"tanh"``.
        seed: seeds the initial weights and the fixed mixing; the global random state is left alone.
        periodic: indices of features that are angles, from 0 to 1 once around, for ``transform="rqs"`` or
            ``"cubic"``; the others are as the base says. The density is continuous where the circle is cut. There is
            none outside [0, 1].
        dtype: ``torch.float32`` (default) or ``torch.float64``.

    Raises:
        ValueError: an argument out of range, with what would be right.
    """

    @door(
        features=whole(1),
        blocks=whole(1),
        hidden=HIDDEN,
        context=whole(0),
        base=TEXT,
        periodic=each(whole(0), "a sequence of indices of features, such as (0, 2)"),
        **SETTINGS,
    )
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
        kind = Transform.named(transform)
        check_choice("base", base, ("normal", "uniform"))
        if mixing is None:
            mixing = kind.default_mixing if features > 1 else "alternate"
        mixing_kind = Mixing.named(mixing)
        check_choice("activation", activation, ACTIVATIONS)
        periodic = sorted(set(periodic))
        _check_fit(kind, mixing_kind, base, features, context, periodic)
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
        self.mixing = mixing
        events = torch.zeros(features, dtype=torch.bool)
        events[periodic] = True
        with seeded(seed):
            mixings = mixing_kind.chain(features, blocks)
            # Which features are angles in latent space, and for every block: the last one sees those of the events.
            circles = [events]
            for step in reversed(mixings):
                circles.insert(0, step.carry(circles[0]))
            latent, *seen = circles
            parts = []
            for i, mask in enumerate(seen):
                first = i % 2 == 1
                kept, moved = _halves(mask, first)
                part = kind.from_options(TransformOptions(base, bins, bound, clamp, tuple(moved.tolist())))
                parts.append(CouplingBlock(features, part, hidden, context, activation, first, kept.tolist()))
            mixing_kind.draw(mixings)
        self.latent = Latent(base, latent)
        # Angles, from 0 to 1 for the user, take the whole box of their splines inside.
        wide = base == "normal" and bool(periodic)
        self.latent_angles = Angles(latent, float(bound)) if wide else None
        self.event_angles = Angles(events, float(bound)) if wide else None
        self.mixings, self.blocks = nn.ModuleList(mixings), nn.ModuleList(parts)
        self.to(dtype)

    @property
    def on_unit_box(self) -> bool:
        """True where the flow's events live in the unit box."""
        return self.base == "uniform"

    def _steps(self) -> list[tuple[Mixing, CouplingBlock]]:
        """The mixing and the block of every step, from latent space to the events."""
        return list(zip(self.mixings, self.blocks, strict=True))  # type: ignore[arg-type]

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Generate: latent ``z [..., features]`` to events ``x`` and log|det dx/dz| ``[...]``."""
        context = self._check(z, context)
        log_det = z.new_zeros(z.shape[:-1])
        if self.latent_angles is not None:
            z = self.latent_angles.to_box(z)
        step = maybe_compiled(_to_events)
        for mixing, block in self._steps():
            z, contribution = step(mixing, block, z, context)
            log_det = log_det + contribution
        return z if self.event_angles is None else self.event_angles.from_box(z), log_det

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Normalise: events ``x [..., features]`` to latent ``z`` and log|det dz/dx| ``[...]``."""
        context = self._check(x, context)
        log_det = x.new_zeros(x.shape[:-1])
        if self.event_angles is not None:
            x = self.event_angles.to_box(x)
        step = maybe_compiled(_to_latent)
        for mixing, block in reversed(self._steps()):
            x, contribution = step(mixing, block, x, context)
            log_det = log_det + contribution
        return x if self.latent_angles is None else self.latent_angles.from_box(x), log_det

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log density of events, ``log p_z(f^-1(x)) + log|det df^-1/dx|`` [A eq. 3].

        Args:
            x: events ``[..., features]``.
            context: conditions ``[..., context]``, only for a conditional flow.

        Returns:
            ``[...]`` in nats; -inf outside the unit box of a uniform base.
        """
        z, log_det = self.inverse(x, context)
        return self.latent.log_prob(z) + log_det

    def sample(self, n: int, context: Tensor | None = None) -> Tensor:
        """``n`` events ``[n, features]`` through torch's global random state; ``context [n, context]``."""
        n = whole_number("n", n, 0)
        check_memory("n", n, 4.0 * n * self.features, "generate fewer events at a time")
        z = self.latent.sample(n, next(self.parameters()))
        return self.forward(z, context)[0]

    def _summary(self) -> str:
        hidden = brief(tuple(self.config["hidden"]))
        return f"{self.extra_repr()}, transform={self.config['transform']!r}, hidden={hidden}"

    def extra_repr(self) -> str:
        weights, dtype = sum(p.numel() for p in self.parameters()), next(self.parameters()).dtype
        return (
            f'features={self.features}, context={self.context}, base="{self.base}", blocks={len(self.blocks)}, '
            f"weights={weights:,}, dtype={str(dtype).removeprefix('torch.')}"
        )

    def _check(self, values: Tensor, context: Tensor | None) -> Tensor | None:
        return check_inputs(values, context, self.features, self.context)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Earlier versions kept the mixings of all blocks in one array; the modules of the mixings load after this one.
        old = {name: state_dict.pop(prefix + name) for name in ("orders", "rotations") if prefix + name in state_dict}
        state_dict |= {prefix + name: array for name, array in upgrade_buffers(old).items()}
        super()._load_from_state_dict(state_dict, prefix, *args)


def _to_events(mixing: Mixing, block: CouplingBlock, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """One step of :meth:`CouplingFlow.forward`."""
    return block(mixing(z), context)


def _to_latent(mixing: Mixing, block: CouplingBlock, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """One step of :meth:`CouplingFlow.inverse`."""
    x, log_det = block.inverse(x, context)
    return mixing.inverse(x), log_det


def check_inputs(values: Tensor, context: Tensor | None, features: int, count: int) -> Tensor | None:
    """The conditions ``[..., count]`` of events ``values [..., features]``, both checked; None where there are none.

    Raises:
        TypeError: events or conditions that are no tensor.
        ValueError: events or conditions of another shape, or conditions where there should be none.
    """
    if not isinstance(values, Tensor):
        raise TypeError(f"events are a {type(values).__name__}; this flow needs a tensor [..., {features}]")
    if values.ndim < 1 or values.shape[-1] != features:
        raise ValueError(f"events of shape {list(values.shape)}; this flow needs [..., {features}]")
    if count == 0:
        if context is not None:
            raise ValueError("context was given to a flow without conditions; build it with context=k")
        return None
    expected = [*values.shape[:-1], count]
    if not isinstance(context, Tensor | None):
        raise TypeError(f"context is a {type(context).__name__}; this flow needs a tensor {expected}")
    if context is None or list(context.shape) != expected:
        got = None if context is None else list(context.shape)
        raise ValueError(f"context of shape {got}; this flow needs {expected} for events {list(values.shape)}")
    return context


def _halves(values: Tensor, first: bool) -> tuple[Tensor, Tensor]:
    """The half of ``values [..., features]`` that a block keeps, and the half, with an odd number the larger, it moves.

    With ``first`` the first half moves, otherwise the second.
    """
    kept = values.shape[-1] // 2
    if first:
        moved, still = values.split([values.shape[-1] - kept, kept], -1)
    else:
        still, moved = values.split([kept, values.shape[-1] - kept], -1)
    return still, moved


def _check_fit(
    transform: type[Transform], mixing: type[Mixing], base: str, features: int, context: int, periodic: Sequence[int]
) -> None:
    """Raise a ValueError where transform, mixing, base and angles do not go together; warn where little can come."""
    got = f"got transform={transform.name!r}, mixing={mixing.name!r}"
    if base == "uniform" and not (transform.fits_unit_box and mixing.keeps_features):
        fitting = [cls for cls in Transform.registry.values() if cls.fits_unit_box]
        keeping = [name for name, cls in sorted(Mixing.registry.items()) if cls.keeps_features]
        raise ValueError(
            f'base="uniform" is the unit box, which only transform={_names(fitting)} with mixing '
            f"{_either(keeping)} maps onto itself; {got}"
        )
    if transform.needs_unit_box and base != "uniform":
        raise ValueError(
            f'transform="{transform.name}" is a map of the unit box; give base="uniform", and for events that do not '
            "live there preprocessing=pg.events.UnitBox(low, high)"
        )
    if periodic and not (transform.can_be_periodic and mixing.keeps_features and periodic[-1] < features):
        able = [cls for cls in Transform.registry.values() if cls.can_be_periodic]
        turning = [f"{name}s" for name, cls in sorted(Mixing.registry.items()) if not cls.keeps_features]
        raise ValueError(
            f"periodic={periodic} needs transform={_names(able)}, no {' or '.join(turning)}, and indices below the "
            f"{features} features; {got}"
        )
    if features == 1 and transform.only_gaussian and context == 0:
        free = [cls for cls in Transform.registry.values() if not (cls.only_gaussian or cls.needs_unit_box)]
        warn(
            f'a flow of one feature with transform="{transform.name}" can only learn a Gaussian; '
            f"transform={_names(free)} is not so limited",
        )


def _names(transforms: Sequence[type[Transform]]) -> str:
    """Names of transforms for a message, those that fit any base first."""
    return _either([cls.name for cls in sorted(transforms, key=lambda cls: (cls.needs_unit_box, cls.name))])


def _either(names: Sequence[str]) -> str:
    return " or ".join(f'"{name}"' for name in names)
