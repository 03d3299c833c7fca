"""Flows with angles: the density does not know where the circle was cut."""

from __future__ import annotations

import math

import pytest
import torch

import pyrogen as pg


def flow(periodic=(1,), mixing="random", features=3, base="uniform", transform="rqs", **more) -> pg.CouplingFlow:
    made = pg.CouplingFlow(
        features, 5, (16,), transform, base=base, mixing=mixing, periodic=periodic, dtype=torch.float64, **more
    )
    for parameter in made.parameters():
        parameter.data *= 3  # far from the identity
    return made


@pytest.mark.parametrize("mixing", ["random", "alternate"])
@pytest.mark.parametrize("features", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("base", ["uniform", "normal"])
@pytest.mark.parametrize("transform", ["rqs", "cubic"])
def test_density_is_continuous_around_the_circle(mixing, features, base, transform):
    torch.manual_seed(0)
    x = torch.rand(300, features, dtype=torch.float64)
    for index in range(features):
        made = flow((index,), mixing, features, base, transform, seed=index)
        low, high = x.clone(), x.clone()
        low[:, index], high[:, index] = 0.0, 1.0
        assert torch.allclose(made.log_prob(low), made.log_prob(high), atol=1e-6)
        open_ended = flow((), mixing, features, "uniform", transform, seed=index)
        assert not torch.allclose(open_ended.log_prob(low), open_ended.log_prob(high), atol=0.05)


@pytest.mark.parametrize("base", ["uniform", "normal"])
@pytest.mark.parametrize("transform", ["rqs", "cubic"])
def test_inverse_jacobian_and_integral(base, transform):
    torch.manual_seed(0)
    made = flow((0, 2), base=base, transform=transform)
    z = torch.rand(200, 3, dtype=torch.float64)
    x, log_det = made(z)
    back, log_inverse = made.inverse(x)
    assert torch.allclose(back, z, atol=1e-4) and torch.allclose(log_det, -log_inverse, atol=1e-3)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: made.inverse(row)[0]))(x)
    assert torch.allclose(jacobian.slogdet().logabsdet, log_inverse, atol=1e-5)
    points = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    first = points if base == "uniform" else 20 * points - 10
    grid = torch.cartesian_prod(first, points)
    # A flow less wild, whose density a grid resolves.
    calm = pg.CouplingFlow(2, 3, (8,), transform, base=base, periodic=(1,), dtype=torch.float64)
    volume = 1 if base == "uniform" else 20
    assert abs(calm.log_prob(grid).exp().mean().item() * volume - 1) < 1e-3
    assert calm.log_prob(torch.tensor([[0.5, 1.1]], dtype=torch.float64)).isinf().all()


def test_learns_a_peak_across_the_cut():
    torch.manual_seed(0)
    angle = (0.08 * torch.randn(4000)).remainder(1)
    events = torch.stack([angle, torch.rand(4000)], -1)
    model = pg.BayesianFlow(pg.CouplingFlow(2, 3, (16,), "rqs", base="uniform", periodic=(0,)))
    posterior = pg.SVI(epochs=15, batch_size=200, lr=1.5e-2, progress=False).fit(model, events)
    t = torch.tensor([0.0, 0.03, 0.5, 0.97, 1.0])
    p = posterior.density(torch.stack([t, torch.full((5,), 0.4)], -1), 20).mean
    truth = sum(torch.exp(-0.5 * ((t + k) / 0.08) ** 2) for k in (-1, 0, 1)) / (0.08 * math.sqrt(2 * math.pi))
    assert torch.allclose(p[[0, 1, 3, 4]].float(), truth[[0, 1, 3, 4]], rtol=0.3) and p[2] < 0.2
    assert abs(float(p[0] / p[4]) - 1) < 1e-4


def test_saved_and_refused(tmp_path):
    model = pg.BayesianFlow(pg.CouplingFlow(2, 2, (4,), "rqs", base="uniform", periodic=[1]))
    posterior = pg.SVI(epochs=1, batch_size=50, progress=False).fit(model, torch.rand(100, 2))
    posterior.save(tmp_path / "p.h5")
    assert pg.load(tmp_path / "p.h5").model.flow.config["periodic"] == [1]
    assert posterior.info.local_reparameterization
    with pytest.raises(ValueError, match="periodic=\\[2\\] needs .* indices below the 2 features"):
        pg.CouplingFlow(2, transform="rqs", base="uniform", periodic=(2,))
    with pytest.raises(ValueError, match='periodic=\\[0\\] needs transform="cubic" or "rqs"'):
        pg.CouplingFlow(2, periodic=(0,))
    with pytest.raises(ValueError, match="no rotations"):
        pg.CouplingFlow(2, transform="rqs", mixing="rotation", periodic=(0,))
    with pytest.raises(ValueError, match="entry of periodic is -1"):
        pg.CouplingFlow(2, transform="rqs", base="uniform", periodic=(-1,))


def test_rounding_does_not_push_generated_events_out_of_the_box():
    made = pg.CouplingFlow(2, 2, (4,), "rqs", base="uniform")
    edge = torch.tensor([[1.0, 1.0]]) * (1 + torch.finfo(torch.float32).eps)
    assert made.log_prob(edge).isfinite().all() and made.log_prob(edge + 1e-4).isinf().all()


@pytest.mark.parametrize("index", range(4))
def test_permutations_keep_circles_and_lines_apart(index):
    torch.manual_seed(0)
    made = pg.CouplingFlow(4, 3, (8,), "rqs", mixing="random", periodic=(index,), seed=3)
    x = made.sample(2000).detach()
    lines = [i for i in range(4) if i != index]
    assert x[:, index].min() >= 0 and x[:, index].max() <= 1 and abs(float(x[:, index].mean()) - 0.5) < 0.1
    assert (x[:, lines].min(0).values < -1.5).all() and (x[:, lines].max(0).values > 1.5).all()
    z = made.inverse(x)[0].detach()
    assert sorted((z.min(0).values >= 0).tolist()) == [False, False, False, True]
    assert made.log_prob(x).isfinite().all()


def test_mixed_spaces_sample_from_their_own_density():
    torch.manual_seed(0)
    made, other = flow((1,), features=2, base="normal"), flow((1,), features=2, base="normal", seed=1)
    for parameter in (*made.parameters(), *other.parameters()):
        parameter.data /= 3
    with torch.no_grad():
        x = made.sample(40_000)
        assert x[:, 1].min() >= 0 and x[:, 1].max() <= 1 and x[:, 0].min() < -2
        ratio = (other.log_prob(x) - made.log_prob(x)).exp()
    assert abs(float(ratio.mean()) - 1) < 5 * float(ratio.std()) / 40_000**0.5 and float(ratio.std()) > 0.1
