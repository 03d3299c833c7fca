"""How the cubic spline finds roots, and its slopes; what all splines have in common is in test_splines.py."""

import torch

import pyrogen as pg
from pyrogen.flows import CubicSpline
from pyrogen.flows.transforms.cubic import _cubic

GENERATOR = torch.Generator().manual_seed(3)


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
