"""The cubic spline is that of arXiv:1906.02145; the properties of all transforms are in test_flows.py."""

import math

import pytest
import torch

import pyrogen as pg
from pyrogen.flows import CubicSpline
from pyrogen.flows.transforms.cubic import _cubic

GENERATOR = torch.Generator().manual_seed(3)


def textbook(spline: CubicSpline, x: float, raw: list[float], circle: bool) -> tuple[float, float]:
    """z and log dz/dx of one value, Steffen's equations in Python's numbers."""
    bins, box = spline.bins, spline.high - spline.low
    if not spline.low <= x <= spline.high:
        return x, 0.0

    def knots(numbers):
        powers = [math.exp(number) for number in numbers]
        sizes = [box * (spline.min_bin + (1 - spline.min_bin * bins) * p / sum(powers)) for p in powers]
        return [spline.low + sum(sizes[:k]) for k in range(bins + 1)], sizes

    (xs, w), (zs, h) = knots(raw[:bins]), knots(raw[bins : 2 * bins])
    s = [b / a for a, b in zip(w, h, strict=True)]

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

    k = max(i for i in range(bins) if x >= xs[i])
    t, d0, d1 = x - xs[k], slope(k), slope(k + 1)
    third, second = (d0 + d1 - 2 * s[k]) / w[k] ** 2, (3 * s[k] - 2 * d0 - d1) / w[k]
    return zs[k] + d0 * t + second * t**2 + third * t**3, math.log(d0 + 2 * second * t + 3 * third * t**2)


@pytest.mark.parametrize("edges", [False, True], ids=["slopes 1 at the edges", "free edges"])
@pytest.mark.parametrize("periodic", [(), (True, False)], ids=["lines", "a circle and a line"])
def test_the_spline_is_the_textbooks(edges, periodic):
    low, high = (0.0, 1.0) if edges else (-5.0, 5.0)
    spline = CubicSpline(4, low, high, free_edges=edges, periodic=periodic)
    raw = 2 * torch.randn(150, 2, spline.parameters_per_feature, generator=GENERATOR, dtype=torch.float64)
    x = low + (high - low) * (1.2 * torch.rand(150, 2, generator=GENERATOR, dtype=torch.float64) - 0.1)
    z, log_derivative = spline.inverse(x, raw)
    for n in range(len(x)):
        for k in range(2):
            expected = textbook(spline, float(x[n, k]), raw[n, k].tolist(), bool(periodic) and periodic[k])
            assert (float(z[n, k]), float(log_derivative[n, k])) == pytest.approx(expected, abs=1e-10)


def test_newton_finds_the_root_of_every_bin():
    """Slopes of a bin from zero to the largest that occur: 2 inside, 2.9 at one free edge. One more step follows."""
    slopes = torch.cat([torch.logspace(-6, -1, 12), torch.linspace(0.2, 2, 12), torch.tensor([2.9])]).double()
    ends = torch.logspace(-12, -2, 20).double()
    theta = torch.cat([ends, torch.linspace(0.01, 0.99, 99).double(), 1 - ends])
    a, e, theta = (each.flatten() for each in torch.meshgrid(slopes, slopes, theta, indexing="ij"))
    occurring = (a <= 2) | (e <= 2)
    a, e, theta = a[occurring], e[occurring], theta[occurring]
    share, slope = _cubic(theta, a, e)
    assert (slope >= 0.25 * torch.minimum(a, e).clamp(max=1)).all()  # what the docstring says
    root = CubicSpline()._root(share, a, e)
    value, slope = _cubic(root, a, e)
    root = (root + (share - value) / slope).clamp(0, 1)
    assert ((root - theta).abs() * slope).max() < 1e-15 * 3


def test_the_way_back_has_the_derivatives_of_the_implicit_function():
    spline = CubicSpline(4)
    raw = torch.randn(6, spline.parameters_per_feature, generator=GENERATOR, dtype=torch.float64).requires_grad_()
    z = torch.tensor([-4.7, -2.0, -0.3, 0.9, 3.1, 4.9], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(spline.forward, (z, raw)) and torch.autograd.gradcheck(spline.inverse, (z, raw))


def test_a_lifted_cubic_flow_trains_and_returns_from_its_file(tmp_path):
    model = pg.BayesianFlow(pg.CouplingFlow(2, 2, (8,), "cubic", bins=4))
    events = pg.targets.GaussianRing().sample((500,))
    posterior = pg.SVI(epochs=3, batch_size=100, lr=1e-2, progress=False).fit(model, events)
    assert posterior.info.local_reparameterization and posterior.history["loss"][-1] < posterior.history["loss"][0]
    posterior.save(tmp_path / "cubic.h5")
    assert pg.load(tmp_path / "cubic.h5").log_prob(events[:20]).equal(posterior.log_prob(events[:20]))
