"""The monotonic cubic spline."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyrogen.flows.transforms.bins import BinnedSpline, at


class CubicSpline(BinnedSpline, name="cubic"):
    """Monotonic cubic spline (Durkan et al., arXiv:1906.02145; Steffen 1990), the identity outside its box.

    ``inverse`` (from events to latent space, the direction of every training step) evaluates the cubic polynomial of
    the bin, ``forward`` solves it for its root by Newton steps. On ``[low, high]`` there are ``bins`` bins with free
    widths and heights. The slope at an inner knot is Steffen's: that of the parabola through the knot and its two
    neighbours, at most twice the slope of the flatter of the two bins beside it. The function is then monotonic, and
    inside a bin never flatter than a quarter of what the bin or its knots are, so that float32 can invert it.

    With ``free_edges`` the two outermost slopes are free, between a tenth and 2.9 times that of their bin. Without,
    they are 1, so that the spline joins its linear tails smoothly, or twice the slope of their bin where that is less.
    All raw parameters zero give the identity. The density is continuous and has kinks at the knots, as that of
    rational-quadratic splines.

    Features marked in ``periodic`` (one truth value per feature) live on a circle: the ends of the box are one knot.

    Args:
        bins: number of bins, at least 2.
        low: lower edge of the box.
        high: upper edge of the box.
        free_edges: whether the outermost slopes are free.
        periodic: which features are angles, one truth value for each; empty: none.
    """

    edge_slopes = (0.1, 2.9)  # of a free edge; the cubic is monotonic up to 3
    newton_steps = 5  # to 2e-10 in the worst case; the last step of `_forward` squares that

    def _more_parameters(self) -> int:
        return 2 if self.free_edges else 0

    def _slopes(self, sizes: Tensor, raw: Tensor) -> Tensor:
        """Slopes ``[..., bins + 1, k, N]`` at the knots of bins of these sizes; ``raw`` are those of the free edges."""
        widths, heights = sizes.unbind(-4)
        steep = heights / widths
        inner = _steffen(steep[..., :-1, :, :], steep[..., 1:, :, :], widths[..., :-1, :, :], widths[..., 1:, :, :])
        first, last = steep[..., :1, :, :], steep[..., -1:, :, :]
        if self.free_edges:
            least, most = self.edge_slopes
            start = math.log((1 - least) / (most - 1))  # the factor is 1 where the raw parameter is 0
            factors = least + (most - least) * torch.sigmoid(raw + start)
            ends = first * factors[..., :1, :, :], last * factors[..., 1:, :, :]
        else:
            ends = (2 * first).clamp(max=1), (2 * last).clamp(max=1)
        if self.periodic is not None:  # the ends of a circle are one knot, between the last bin and the first
            circle = self.periodic[:, None]
            joint = _steffen(last, first, widths[..., -1:, :, :], widths[..., :1, :, :])
            ends = torch.where(circle, joint, ends[0]), torch.where(circle, joint, ends[1])
        return torch.cat([ends[0], inner, ends[1]], -3)

    def _bin(self, value: Tensor, axis: int, raw: Tensor) -> tuple[Tensor, ...]:
        """Corner ``x0, z0``, sizes ``w, h`` of the bin of each value, slopes at its knots relative to its own ``h/w``.

        Arguments as of :meth:`_corners`.
        """
        sizes, both, (x0, z0, width, height) = self._corners(value, axis, raw)
        d0, d1 = at(self._slopes(sizes, raw[..., 2 * self.bins :, :, :]), both).unbind(-3)
        steep = height / width
        return x0, z0, width, height, d0 / steep, d1 / steep

    def _inverse(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        # Clipping before the spline's arithmetic keeps values and gradients finite for the rows that `where` drops.
        clipped = x.clamp(self.low, self.high)
        x0, z0, width, height, a, e = self._bin(clipped, 0, raw)
        share, slope = _cubic(((clipped - x0) / width).clamp(0, 1), a, e)
        z = (z0 + height * share).clamp(self.low, self.high)
        inside = clipped == x
        return torch.where(inside, z, x), torch.where(inside, (slope * (height / width)).log(), 0.0)

    def _forward(self, z: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        clipped = z.clamp(self.low, self.high)
        x0, z0, width, height, a, e = self._bin(clipped, 1, raw)
        share = ((clipped - z0) / height).clamp(0, 1)
        with torch.no_grad():
            theta = self._root(share, a, e)
        # A last Newton step from the root: it changes no digit, but carries the derivative [implicit function theorem].
        value, slope = _cubic(theta, a, e)
        theta = (theta + (share - value) / slope.detach()).clamp(0, 1)
        slope = _cubic(theta, a, e)[1]
        x = (x0 + theta * width).clamp(self.low, self.high)
        inside = clipped == z
        return torch.where(inside, x, z), torch.where(inside, -(slope * (height / width)).log(), 0.0)

    def _root(self, share: Tensor, a: Tensor, e: Tensor) -> Tensor:
        """Where in [0, 1] the cubic of slopes ``a`` and ``e`` at 0 and 1 has the value ``share``.

        The start is the root of the rational quadratic of the same slopes [1906.04032, eq. 6-8], which lies close.
        """
        bend = (a + e - 2) * share
        q = a - bend
        below = q + (q * q + 4 * share * (1 - a + bend)).clamp(min=0).sqrt()
        theta = (2 * share / below.clamp(min=torch.finfo(share.dtype).tiny)).clamp(0, 1)
        for _ in range(self.newton_steps):
            value, slope = _cubic(theta, a, e)
            theta = (theta + (share - value) / slope).clamp(0, 1)
        return theta


def _steffen(left: Tensor, right: Tensor, left_width: Tensor, right_width: Tensor) -> Tensor:
    """Slope at a knot between bins of slopes ``left`` and ``right`` (Steffen 1990, eq. 11)."""
    parabola = (left * right_width + right * left_width) / (left_width + right_width)
    return torch.minimum(2 * torch.minimum(left, right), parabola)


def _cubic(theta: Tensor, a: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
    """The cubic from (0, 0) to (1, 1) with slopes ``a`` and ``e`` at its ends, and its derivative, at ``theta``."""
    third, second = a + e - 2, 3 - 2 * a - e
    value = theta * (a + theta * (second + theta * third))
    return value, a + theta * (2 * second + theta * (3 * third))
