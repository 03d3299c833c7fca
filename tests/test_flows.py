"""Every transform: inverse and autograd Jacobian. Every flow: a density that integrates to one."""

import math

import pytest
import torch

import pyrogen as pg
from pyrogen.flows import Affine, Bernstein, BinnedSpline, CubicSpline, RationalQuadraticSpline

TRANSFORMS = {
    "affine": Affine(),
    "rqs": RationalQuadraticSpline(),
    "rqs, 3 bins": RationalQuadraticSpline(bins=3, low=-2.0, high=3.0),
    "rqs on the unit box": RationalQuadraticSpline(low=0.0, high=1.0, free_edges=True),
    "cubic": CubicSpline(),
    "cubic, 2 bins": CubicSpline(bins=2, low=-2.0, high=3.0),
    "cubic on the unit box": CubicSpline(low=0.0, high=1.0, free_edges=True),
    "bernstein": Bernstein(),
    "bernstein, degree 3": Bernstein(3),
}
# What the package promises; the errors are relative where values exceed one.
INVERSE = {torch.float32: 1e-4, torch.float64: 1e-9}
JACOBIAN = {torch.float32: 1e-4, torch.float64: 1e-8}

FLOWS = {
    "affine": {"features": 2, "blocks": 4, "hidden": (16, 16), "mixing": "alternate"},
    "affine, one feature": {"features": 1, "blocks": 2, "hidden": (8,), "context": 1},
    "affine, rotations": {"features": 3, "blocks": 4, "hidden": (16,), "mixing": "rotation"},
    "affine, random order": {"features": 5, "blocks": 4, "hidden": (16,), "mixing": "random", "activation": "silu"},
    "affine, conditional": {"features": 2, "blocks": 3, "hidden": (16,), "context": 2},
    "rqs": {"features": 2, "blocks": 3, "hidden": (16,), "transform": "rqs"},
    "rqs, one feature": {"features": 1, "blocks": 2, "hidden": (8,), "transform": "rqs"},
    "rqs, rotations": {"features": 4, "blocks": 3, "hidden": (16,), "transform": "rqs", "mixing": "rotation"},
    "rqs, unit box": {"features": 2, "blocks": 3, "hidden": (16,), "transform": "rqs", "base": "uniform"},
    "cubic": {"features": 2, "blocks": 3, "hidden": (16,), "transform": "cubic"},
    "cubic, one feature": {"features": 1, "blocks": 2, "hidden": (8,), "transform": "cubic"},
    "cubic, rotations": {"features": 4, "blocks": 3, "hidden": (16,), "transform": "cubic", "mixing": "rotation"},
    "cubic, unit box": {"features": 2, "blocks": 3, "hidden": (16,), "transform": "cubic", "base": "uniform"},
    "bernstein": {"features": 2, "blocks": 3, "hidden": (16,), "transform": "bernstein", "base": "uniform", "bins": 6},
    "rqs, unit box, conditional": {
        "features": 3,
        "blocks": 3,
        "hidden": (16,),
        "transform": "rqs",
        "base": "uniform",
        "mixing": "random",
        "context": 1,
    },
}


def stressed_flow(name: str, dtype: torch.dtype, scale: float = 0.3, seed: int = 1) -> pg.CouplingFlow:
    """A flow away from its identity start: every weight ~ N(0, scale^2)."""
    flow = pg.CouplingFlow(**FLOWS[name], dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return flow.to(dtype)


def context_for(flow: pg.CouplingFlow, n: int, dtype: torch.dtype) -> torch.Tensor | None:
    return torch.randn(n, flow.context, dtype=dtype) if flow.context else None


def special_points(transform: object, parameters: torch.Tensor) -> torch.Tensor:
    """Knots of the spline (where bins meet), the edges of its box, just beside them, and far outside."""
    far = [-1e4, -30.0, -5.0, -1.0, 0.0, 0.5, 1.0, 5.0, 30.0, 1e4]
    points = torch.tensor(far, dtype=parameters.dtype).expand(len(parameters), -1)
    if isinstance(transform, BinnedSpline):
        knots = transform._knots(transform._sizes(parameters[..., None, None])).flatten(1)
        edges = torch.tensor([transform.low, transform.high], dtype=parameters.dtype)
        beside = torch.cat([torch.nextafter(edges, edges - 1), torch.nextafter(edges, edges + 1)])
        points = torch.cat([points, knots, edges.expand(len(knots), -1), beside.expand(len(knots), -1)], -1)
    return points


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transform_inverts_under_stress(name, dtype):
    """Raw parameters N(0, 3^2); random points, points on the knots, at the box and far outside."""
    transform = TRANSFORMS[name]
    parameters = 3 * torch.randn(1000, transform.parameters_per_feature, dtype=dtype)
    points = torch.cat([3 * torch.randn(1000, 15, dtype=dtype), torch.rand(1000, 15, dtype=dtype)], 1)
    points = torch.cat([points, special_points(transform, parameters)], 1)
    spread = parameters[:, None].expand(-1, points.shape[1], -1)
    for there, back in ((transform.inverse, transform.forward), (transform.forward, transform.inverse)):
        image, log_there = there(points, spread)
        returned, log_back = back(image, spread)
        assert torch.isfinite(image).all() and torch.isfinite(log_there).all()
        error = (returned - points).abs() / points.abs().clamp(min=1)
        assert error.max() < INVERSE[dtype], f"{name}: {error.max():.2e} at {points.flatten()[error.argmax()]}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transform_log_derivative_is_autograds(name, dtype):
    transform = TRANSFORMS[name]
    parameters = 3 * torch.randn(500, transform.parameters_per_feature, dtype=dtype)
    points = torch.cat([2 * torch.randn(500, 20, dtype=dtype), torch.rand(500, 20, dtype=dtype)], 1).requires_grad_()
    spread = parameters[:, None].expand(-1, points.shape[1], -1)
    for direction in (transform.inverse, transform.forward):
        image, log_derivative = direction(points, spread)
        (gradient,) = torch.autograd.grad(image.sum(), points)
        error = (log_derivative.exp() - gradient).abs() / gradient.abs().clamp(min=1)
        assert error.max() < JACOBIAN[dtype]


@pytest.mark.parametrize("name", ["rqs", "rqs on the unit box", "cubic", "cubic on the unit box", "bernstein"])
def test_bounded_transform_is_monotonic_and_onto_its_box(name):
    transform = TRANSFORMS[name]
    parameters = 3 * torch.randn(200, transform.parameters_per_feature, dtype=torch.float64)
    grid = torch.linspace(transform.low, transform.high, 501, dtype=torch.float64).expand(200, -1)
    image, _ = transform.inverse(grid, parameters[:, None].expand(-1, 501, -1))
    assert (image.diff() > 0).all()
    assert torch.allclose(image[:, 0], torch.tensor(transform.low, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(image[:, -1], torch.tensor(transform.high, dtype=torch.float64), atol=1e-12)


def test_bernstein_slope_is_the_mixture_of_beta_densities():
    parameters = torch.randn(5, 4, dtype=torch.float64)
    x = torch.rand(5, dtype=torch.float64)
    k = torch.arange(4, dtype=torch.float64)
    density = torch.distributions.Beta(k + 1, 4 - k).log_prob(x[:, None]).exp()
    expected = 0.01 + 0.99 * (torch.softmax(parameters, -1) * density).sum(-1)
    assert torch.allclose(Bernstein(4).inverse(x, parameters)[1].exp(), expected, rtol=1e-12)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_zero_parameters_are_the_identity(name):
    transform = TRANSFORMS[name]
    points = torch.linspace(-7, 7, 101, dtype=torch.float64)
    image, log_derivative = transform.forward(points, torch.zeros(101, transform.parameters_per_feature).double())
    assert torch.allclose(image, points, atol=1e-12) and torch.allclose(
        log_derivative, torch.zeros(101).double(), atol=1e-12
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", FLOWS)
def test_flow_inverts_and_its_log_determinant_is_autograds(name, dtype):
    flow = stressed_flow(name, dtype)
    n = 200
    context = context_for(flow, n, dtype)
    x = torch.rand(n, flow.features, dtype=dtype)
    if not flow.on_unit_box:
        x = 4 * x - 2
    z, log_det = flow.inverse(x, context)
    returned, log_det_forward = flow.forward(z, context)
    scale = x.abs().clamp(min=1)
    # The blocks stretch each other's rounding: of 300 seeds the spline with rotations reaches 4e-4 in float32.
    assert ((returned - x).abs() / scale).max() < 5 * INVERSE[dtype]
    # The way back starts from a rounded z: its log-determinant also carries the slope of log|det| times that rounding.
    assert (log_det + log_det_forward).abs().max() < 10 * JACOBIAN[dtype]
    for i in range(0, n, 20):
        row = None if context is None else context[i]
        jacobian = torch.autograd.functional.jacobian(lambda v, row=row: flow.inverse(v, row)[0], x[i])
        assert abs(torch.linalg.slogdet(jacobian.double()).logabsdet - log_det[i]) < JACOBIAN[dtype]


@pytest.mark.parametrize(
    "name", ["affine", "rqs", "rqs, unit box", "cubic", "cubic, unit box", "bernstein", "affine, conditional"]
)
def test_density_integrates_to_one(name):
    """Midpoint rule; the flow's own samples say where its mass is. Weight draws ~ N(0, 0.3^2)."""
    for seed in range(2):
        flow = stressed_flow(name, torch.float64, seed=seed)
        context = None if not flow.context else torch.tensor([[0.5, -1.0]], dtype=torch.float64)
        low, high = torch.zeros(2).double(), torch.ones(2).double()
        if not flow.on_unit_box:
            events = flow.sample(20_000, None if context is None else context.expand(20_000, -1)).detach()
            low, high = events.min(0).values - 3, events.max(0).values + 3
        cells = 300
        axes = [
            torch.linspace(0, 1, 2 * cells + 1).double()[1::2] * (h - lo) + lo for lo, h in zip(low, high, strict=True)
        ]
        grid = torch.cartesian_prod(*axes)
        with torch.no_grad():
            density = flow.log_prob(grid, None if context is None else context.expand(len(grid), -1)).exp()
        assert density.mean() * (high - low).prod() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("name", ["rqs, one feature", "cubic, one feature", "affine, one feature"])
def test_one_dimensional_density_integrates_to_one(name):
    flow = stressed_flow(name, torch.float64)
    x = torch.linspace(-60, 60, 100_001, dtype=torch.float64)[:, None]
    context = None if not flow.context else torch.full((len(x), 1), 0.7, dtype=torch.float64)
    with torch.no_grad():
        assert torch.trapezoid(flow.log_prob(x, context).exp(), x[:, 0]) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", ["rqs, unit box", "cubic, unit box", "bernstein"])
def test_samples_follow_the_density(name):
    """Cell counts of 80k events against the density, chi2 within 5 standard deviations of its expectation."""
    flow = stressed_flow(name, torch.float64)
    n, cells = 80_000, 20
    with torch.no_grad():
        events = flow.sample(n)
        fine = torch.linspace(0, 1, 10 * cells * 2 + 1).double()[1::2]
        density = flow.log_prob(torch.cartesian_prod(fine, fine)).exp().reshape(cells, 10, cells, 10).mean((1, 3))
    expected = n * density / cells**2
    index = (events * cells).long().clamp(0, cells - 1)
    counts = torch.bincount(index[:, 0] * cells + index[:, 1], minlength=cells**2).reshape(cells, cells)
    used = expected > 10
    chi2 = ((counts - expected) ** 2 / expected)[used].sum()
    assert abs(chi2 - used.sum()) < 5 * math.sqrt(2 * used.sum())


@pytest.mark.parametrize("name", ["rqs, unit box", "cubic, unit box", "bernstein"])
def test_outside_the_unit_box_there_is_no_density_and_no_nan_gradient(name):
    flow = stressed_flow(name, torch.float32)
    x = torch.tensor([[0.5, 0.5], [1.5, 0.5], [0.5, -1e6], [0.0, 1.0]])
    log_prob = flow.log_prob(x)
    assert torch.isfinite(log_prob).tolist() == [True, False, False, True]
    assert (log_prob[1:3] == -math.inf).all()
    log_prob[torch.isfinite(log_prob)].sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in flow.parameters())


def test_paper_flow_has_the_documented_number_of_weights():
    assert sum(p.numel() for p in pg.CouplingFlow(2, blocks=20, hidden=(32, 32, 32)).parameters()) == 44_840


def test_same_seed_same_flow_and_global_random_state_untouched():
    state = torch.get_rng_state()
    one, two, other = (pg.CouplingFlow(3, blocks=2, mixing="rotation", seed=s) for s in (4, 4, 5))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    assert not torch.equal(one.mixings[0].rotation, other.mixings[0].rotation)


def test_maximum_likelihood_training_in_plain_torch():
    """The deterministic network: a conditional Gaussian whose mean and width follow the context is learned."""
    flow = pg.CouplingFlow(1, blocks=2, hidden=(16,), context=1, activation="tanh")
    context = torch.rand(2000, 1)
    x = 2 * context + (0.5 + context) * torch.randn(2000, 1)
    optimizer = torch.optim.Adam(flow.parameters(), 1e-2)
    for _ in range(250):
        optimizer.zero_grad()
        loss = -flow.log_prob(x, context).mean()
        loss.backward()
        optimizer.step()
    truth = -torch.distributions.Normal(2 * context, 0.5 + context).log_prob(x).mean()
    # A handful of parameters fitted to 2,000 events gains a handful/2,000 over the truth; the rest is misfit.
    assert loss.item() == pytest.approx(truth.item(), abs=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": 0}, "features is 0; it must be a whole number of at least 1"),
        ({"features": 2, "blocks": 0}, "blocks is 0"),
        ({"features": 2, "hidden": (32, -1)}, "every entry of hidden is -1"),
        ({"features": 2, "context": -1}, "context is -1"),
        (
            {"features": 2, "transform": "linear"},
            "unknown transform 'linear'; choose one of 'affine', 'bernstein', 'cubic', 'rqs'",
        ),
        ({"features": 2, "base": "cauchy"}, "unknown base 'cauchy'"),
        ({"features": 2, "mixing": "shuffle"}, "unknown mixing 'shuffle'"),
        ({"features": 2, "activation": "gelu"}, "unknown activation 'gelu'"),
        ({"features": 2, "base": "uniform"}, 'only transform="cubic" or "rqs"'),
        ({"features": 2, "transform": "bernstein"}, 'give base="uniform"'),
        ({"features": 2, "transform": "rqs", "bins": 1}, "bins is 1"),
        ({"features": 2, "transform": "rqs", "bound": -1.0}, "bound is -1.0"),
        ({"features": 2, "clamp": 0.0}, "clamp is 0.0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        pg.CouplingFlow(**arguments)


def test_affine_flow_of_one_feature_warns():
    with pytest.warns(UserWarning, match="can only learn a Gaussian"):
        pg.CouplingFlow(1)


def test_wrong_shapes():
    flow, conditional = pg.CouplingFlow(2, blocks=2), pg.CouplingFlow(2, blocks=2, context=3)
    with pytest.raises(ValueError, match=r"shape \[5, 3\]; this flow needs \[..., 2\]"):
        flow.log_prob(torch.zeros(5, 3))
    with pytest.raises(ValueError, match="context was given to a flow without conditions"):
        flow.log_prob(torch.zeros(5, 2), torch.zeros(5, 1))
    with pytest.raises(ValueError, match=r"context of shape None; this flow needs \[5, 3\]"):
        conditional.log_prob(torch.zeros(5, 2))
    with pytest.raises(ValueError, match="n is -1"):
        flow.sample(-1)
