"""The splines are those of the papers; the properties of all transforms are in test_flows.py."""

import math

import pytest
import torch

from pyrogen.flows import CubicSpline, RationalQuadraticSpline


def knots(spline, numbers):
    """Where the bins begin and end, and their sizes."""
    powers, box = [math.exp(number) for number in numbers], spline.high - spline.low
    sizes = [box * (spline.min_bin + (1 - spline.min_bin * spline.bins) * p / sum(powers)) for p in powers]
    return [spline.low + sum(sizes[:k]) for k in range(spline.bins + 1)], sizes


def rational_quadratic(spline, raw, circle, s, w):
    """arXiv:1906.04032: the slope at a knot, and z - z_k and dz/dx in a bin."""
    bins, free = spline.bins, list(raw[2 * spline.bins :])
    if not (spline.free_edges or spline.periodic is not None):
        free = [0.0, *free]  # the first knot has no free slope

    def slope(k):
        left, right = max(k - 1, 0), min(k, bins - 1)
        if circle and k in (0, bins):
            k, left, right = 0, bins - 1, 0
        elif k in (0, bins) and not spline.free_edges:
            return 1.0
        limit = math.log(spline.slope_factor)
        return 2 * s[left] * s[right] / (s[left] + s[right]) * math.exp(limit * math.tanh(free[k] / limit))

    def inside(k, t):
        theta, d0, d1 = t / w[k], slope(k), slope(k + 1)
        below = s[k] + (d0 + d1 - 2 * s[k]) * theta * (1 - theta)
        above = s[k] ** 2 * (d1 * theta**2 + 2 * s[k] * theta * (1 - theta) + d0 * (1 - theta) ** 2)
        return s[k] * w[k] * (s[k] * theta**2 + d0 * theta * (1 - theta)) / below, above / below**2

    return inside


def cubic(spline, raw, circle, s, w):
    """arXiv:1906.02145 with Steffen's slopes, likewise."""
    bins = spline.bins

    def slope(k):
        left, right = k - 1, k % bins  # on a circle, bin -1 is the last one
        if k in (0, bins) and not circle:
            edge = s[0] if k == 0 else s[-1]
            if not spline.free_edges:
                return min(1.0, 2 * edge)
            least, most = spline.edge_slopes
            number = raw[2 * bins + (k > 0)] + math.log((1 - least) / (most - 1))
            return edge * (least + (most - least) / (1 + math.exp(-number)))
        parabola = (s[left] * w[right] + s[right] * w[left]) / (w[left] + w[right])
        return min(2 * s[left], 2 * s[right], parabola)

    def inside(k, t):
        d0, d1 = slope(k), slope(k + 1)
        third, second = (d0 + d1 - 2 * s[k]) / w[k] ** 2, (3 * s[k] - 2 * d0 - d1) / w[k]
        return d0 * t + second * t**2 + third * t**3, d0 + 2 * second * t + 3 * third * t**2

    return inside


TEXTBOOKS = {RationalQuadraticSpline: rational_quadratic, CubicSpline: cubic}


def textbook(spline, x, raw, circle):
    """z and log dz/dx of one value, in Python's numbers."""
    if not spline.low <= x <= spline.high:
        return x, 0.0
    (xs, w), (zs, h) = (knots(spline, raw[first : first + spline.bins]) for first in (0, spline.bins))
    inside = TEXTBOOKS[type(spline)](spline, raw, circle, [b / a for a, b in zip(w, h, strict=True)], w)
    k = max(i for i in range(spline.bins) if x >= xs[i])
    z, derivative = inside(k, x - xs[k])
    return zs[k] + z, math.log(derivative)


@pytest.mark.parametrize("kind", TEXTBOOKS)
@pytest.mark.parametrize("edges", [False, True], ids=["slopes 1 at the edges", "free edges"])
@pytest.mark.parametrize("periodic", [(), (True, False)], ids=["lines", "a circle and a line"])
def test_the_spline_is_the_textbooks(kind, edges, periodic):
    low, high = (0.0, 1.0) if edges else (-5.0, 5.0)
    spline = kind(4, low, high, free_edges=edges, periodic=periodic)
    generator = torch.Generator().manual_seed(3)
    raw = 2 * torch.randn(150, 2, spline.parameters_per_feature, generator=generator, dtype=torch.float64)
    x = low + (high - low) * (1.2 * torch.rand(150, 2, generator=generator, dtype=torch.float64) - 0.1)
    z, log_derivative = spline.inverse(x, raw)
    for n in range(len(x)):
        for k in range(2):
            expected = textbook(spline, float(x[n, k]), raw[n, k].tolist(), bool(periodic) and periodic[k])
            assert (float(z[n, k]), float(log_derivative[n, k])) == pytest.approx(expected, abs=1e-10)
