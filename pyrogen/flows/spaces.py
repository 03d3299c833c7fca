"""Where latent values and events live: on lines, in the unit box, on circles."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Latent(nn.Module):
    """The density of latent space: features that are independent of each other, each normal or uniform from 0 to 1.

    Args:
        base: ``"uniform"``: every feature is uniform; ``"normal"``: those that are no angles are normal.
        circles: which features are angles, a mask ``[features]``.
    """

    circles: Tensor
    lines: Tensor

    def __init__(self, base: str, circles: Tensor) -> None:
        super().__init__()
        self.features, self.uniform = len(circles), base == "uniform"
        self.mixed = not self.uniform and bool(circles.any())
        self.register_buffer("circles", circles.nonzero()[:, 0], persistent=False)
        self.register_buffer("lines", (~circles).nonzero()[:, 0], persistent=False)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log density ``[...]`` of ``z [..., features]`` in nats; -inf where a uniform feature leaves [0, 1]."""
        if self.uniform:
            return torch.where(in_box(z), 0.0, -math.inf).to(z.dtype)
        if not self.mixed:
            return _normal_log_prob(z)
        return torch.where(in_box(z[..., self.circles]), _normal_log_prob(z[..., self.lines]), -math.inf)

    def sample(self, n: int, like: Tensor) -> Tensor:
        """``n`` latent values ``[n, features]`` of the type and on the device of ``like``."""
        draw = torch.rand if self.uniform else torch.randn
        z = draw(n, self.features, dtype=like.dtype, device=like.device)
        if self.mixed:
            z[:, self.circles] = torch.rand(n, len(self.circles), dtype=like.dtype, device=like.device)
        return z

    def extra_repr(self) -> str:
        if self.mixed:
            return f"{len(self.lines)} normal, {len(self.circles)} on circles"
        return f"{self.features} {'uniform' if self.uniform else 'normal'}"


class Angles(nn.Module):
    """Takes angles from [0, 1] to the whole box of their splines, [-bound, bound], and back.

    It acts on both ends of a flow, where the two Jacobians cancel.

    Args:
        circles: which features are angles, a mask ``[features]``.
        bound: half the width of the box.
    """

    circles: Tensor

    def __init__(self, circles: Tensor, bound: float) -> None:
        super().__init__()
        self.bound = bound
        self.register_buffer("circles", circles, persistent=False)

    def to_box(self, values: Tensor) -> Tensor:
        """Angles among ``values [..., features]`` from [0, 1] to the box; the other features stay."""
        return torch.where(self.circles, self.bound * (2 * values - 1), values)

    def from_box(self, values: Tensor) -> Tensor:
        """Angles among ``values [..., features]`` from the box to [0, 1]; the other features stay."""
        return torch.where(self.circles, (values / self.bound + 1) / 2, values)

    def extra_repr(self) -> str:
        return f"features {self.circles.nonzero()[:, 0].tolist()} on [{-self.bound:g}, {self.bound:g}]"


def _normal_log_prob(z: Tensor) -> Tensor:
    return -0.5 * (z**2).sum(-1) - 0.5 * z.shape[-1] * math.log(2 * math.pi)


def in_box(values: Tensor) -> Tensor:
    """Which rows lie in the unit box; what rounding alone puts beyond an edge is inside, as generated events are."""
    rounding = 8 * torch.finfo(values.dtype).eps
    return ((values >= -rounding) & (values <= 1 + rounding)).all(-1)
