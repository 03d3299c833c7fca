"""The closed-form targets: one table of densities, and the properties that each of them must have."""

import copy
import math
import re
from collections.abc import Callable
from functools import partial

import pyro
import pytest
import torch

from pyrogen.targets import (
    CamelBack,
    FullRing,
    GammaRing,
    GaussianRing,
    Kicker,
    LineTarget,
    Shell,
    Target,
    Wedge,
)

INF = math.inf

SQUARE_EDGES = [[0.0, 0.5], [-0.1, 0.5], [1.001, 0.5], [0.5, -1e-6], [0.5, 1.001], [INF, 0.5], [0.5, -INF]]

# name: (constructor, quantile bins per dimension as in [D] and [F], points in the support, points outside).
# At the defaults little of the normal distribution is cut or folded at r = 0, in the broad rings a quarter.
TARGETS: dict[str, tuple[Callable[..., Target], int, list, list]] = {
    "wedge": (Wedge, 7, [[0.5, 0.5], [1.0, 1.0], [1e-6, 0.0]], SQUARE_EDGES),
    "kicker": (Kicker, 7, [[0.5, 0.5], [1.0, 0.0], [1e-6, 1.0]], SQUARE_EDGES),
    "half_ring": (
        GaussianRing,
        7,
        [[0.0, 4.0], [0.0, 1e-30], [-4.0, 1e-6], [30.0, 30.0]],
        [[0.0, 0.0], [0.0, -0.0], [4.0, 0.0], [0.0, -4.0], [1.0, INF], [-INF, 1.0]],
    ),
    "broad_half_ring": (partial(GaussianRing, 2.0, 3.0), 7, [[0.0, 1e-30]], [[0.0, 0.0], [0.0, -4.0]]),
    "full_ring": (
        FullRing,
        7,
        [[0.0, 4.0], [-4.0, 0.0], [0.0, -1e-30], [30.0, 30.0]],
        [[0.0, 0.0], [-0.0, 0.0], [INF, 0.0], [-INF, INF]],
    ),
    "broad_full_ring": (partial(FullRing, 2.0, 3.0), 7, [[0.0, -1e-30]], [[0.0, 0.0]]),
    "gamma_ring": (
        GammaRing,
        7,
        [[0.0, 5.0], [-4.001, 0.0], [3.0, -3.0]],
        [[0.0, 0.0], [4.0, 0.0], [0.0, -3.999], [INF, 0.0]],
    ),
    "camel": (CamelBack, 50, [[0.0], [4.0], [-30.0]], [[INF], [-INF]]),
    "shell": (
        Shell,
        3,
        [[4.0, 0, 0, 0, 0], [0, 0, 0, 0, -4.0], [0, 0, 1e-30, 0, 0], [2.0, 2, 2, 2, 2]],
        [[0.0, 0, 0, 0, 0], [INF, 0, 0, 0, 0], [INF, -INF, 0, 0, 0]],
    ),
    "shell_3d": (partial(Shell, 3), 6, [[4.0, 0, 0]], [[0.0, 0, 0]]),
}
LINES = {name: entry[0] for name, entry in TARGETS.items() if isinstance(entry[0](), LineTarget)}
N = 100_000


def make(name, dtype=torch.float64):
    return TARGETS[name][0](dtype=dtype)


@pytest.fixture(params=TARGETS)
def name(request):
    return request.param


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(20210409)


def midpoints(low, high, n):
    """Midpoints [n] of n equal cells and the width of a cell."""
    step = (high - low) / n
    return low + step * (torch.arange(n, dtype=torch.float64) + 0.5), step


# Normalisation. The midpoint rule with steps h of at most 0.03 is exact for smooth, decaying functions; edges
# and kinks (ramps, gamma ring) cost a small part of h^2, and the pole P(0) / r of the rings less than
# P(0) h, which is 7e-6 at the defaults and 5e-3 for the broad half ring.
@pytest.mark.parametrize(
    ("name", "low", "high", "tolerance"),
    [
        ("wedge", -0.5, 1.5, 1e-5),
        ("kicker", -0.5, 1.5, 1e-5),
        ("half_ring", -12.0, 12.0, 1e-5),
        ("broad_half_ring", -16.0, 16.0, 5e-3),
        ("full_ring", -12.0, 12.0, 1e-5),
        ("gamma_ring", -14.0, 14.0, 1e-5),
    ],
)
def test_density_in_the_plane_integrates_to_one(name, low, high, tolerance):
    axis, step = midpoints(low, high, 1000)
    grid = torch.cartesian_prod(axis, axis)
    total = make(name).log_prob(grid).exp().sum() * step**2
    assert total.item() == pytest.approx(1, abs=tolerance)


def test_camel_back_integrates_to_one():
    """The midpoint rule is exact for smooth, decaying functions."""
    axis, step = midpoints(-14.0, 14.0, 4000)
    total = make("camel").log_prob(axis[:, None]).exp().sum() * step
    assert total.item() == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize(("features", "surface"), [(2, 2 * math.pi), (3, 4 * math.pi), (5, 8 * math.pi**2 / 3)])
def test_shell_integrates_to_one_along_every_direction(features, surface):
    shell = Shell(features, dtype=torch.float64)
    r, step = midpoints(0.0, 14.0, 4000)
    directions = torch.nn.functional.normalize(torch.randn(5, features, dtype=torch.float64), dim=-1)
    density = shell.log_prob(r[:, None, None] * directions).exp()
    totals = (surface * r[:, None] ** (features - 1) * density).sum(0) * step
    # r = 0 is a boundary, where the midpoint rule leaves h^2 P'(0) / 24, here with P'(0) = 0.
    torch.testing.assert_close(totals, torch.ones_like(totals), atol=1e-9, rtol=0)


def test_shell_in_the_plane_is_the_full_ring():
    x = 4 * torch.randn(1000, 2, dtype=torch.float64)
    torch.testing.assert_close(Shell(2).log_prob(x), FullRing().log_prob(x))
    torch.testing.assert_close(Shell(2).to_unit(x), FullRing().to_unit(x))


@pytest.mark.parametrize(
    ("name", "point", "density"),
    [
        ("wedge", [0.3, 0.9], 0.6),  # [A] 17
        ("kicker", [0.5, 0.1], 0.75),  # [A] 24
        ("half_ring", [0.0, 4.0], 0.3989422804 / (4 * math.pi) / 0.9999683288),  # [A] 30 over Phi(4)
        ("full_ring", [-3.0, 0.0], 0.2419707245 / (6 * math.pi)),  # [D] 3
        ("gamma_ring", [0.0, -5.0], 4 * math.exp(-2) / (10 * math.pi)),  # [F]
        ("camel", [4.0], 0.3989422804 / 2),  # [D] 1
        ("shell", [0.0, 0.0, 0.0, 4.0, 0.0], 0.3989422804 / (8 * math.pi**2 / 3 * 4**4)),  # [D] 4
    ],
)
def test_density_by_hand(name, point, density):
    value = make(name).log_prob(torch.tensor(point, dtype=torch.float64)).exp()
    assert value.item() == pytest.approx(density, rel=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sample_is_uniform_in_the_unit_cube(name, dtype):
    """Kolmogorov-Smirnov: P(sqrt(n) D > 3) = 2 exp(-18) = 3e-8. Correlations: 5 sigma = 5 / sqrt(n)."""
    target = make(name, dtype)
    x = target.sample((N,))
    assert x.shape == (N, target.features) and x.dtype == dtype
    u = target.to_unit(x).double()
    ordered = u.sort(dim=0).values
    steps = torch.arange(N + 1, dtype=torch.float64)[:, None] / N
    distance = torch.maximum((steps[1:] - ordered).amax(0), (ordered - steps[:-1]).amax(0))
    assert (distance < 3 / math.sqrt(N)).all()
    correlation = torch.corrcoef(u.T).reshape(target.features, -1) - torch.eye(target.features)
    assert (correlation.abs() < 5 / math.sqrt(N)).all()


def test_quantile_bins_hold_equal_counts(name):
    """Chi-square with k degrees of freedom: P(chi2 > k + 2 sqrt(k t) + 2 t) <= exp(-t), with t = 15."""
    target, n = make(name, torch.float32), TARGETS[name][1]
    bins = target.quantile_bins(n)
    assert bins.n_bins == n**target.features
    x = target.sample((N,))
    index = bins.bin_index(x)
    assert index.shape == (N,) and index.dtype == torch.int64
    assert index.min() >= 0 and index.max() < bins.n_bins
    counts = bins.counts(x)
    assert counts.shape == (bins.n_bins,) and counts.sum() == N
    expected = N / bins.n_bins
    k = bins.n_bins - 1
    assert (counts - expected).square().sum().item() / expected < k + 2 * math.sqrt(15 * k) + 30


def test_bins_are_numbered_with_the_last_coordinate_fastest():
    x = torch.tensor([[0.5, 0.1], [0.5, 0.9], [0.9, 0.1], [1.0, 1.0], [-3.0, 7.0]])  # the last one is outside
    assert Wedge().quantile_bins(2).bin_index(x).tolist() == [0, 1, 2, 3, 1]
    below = torch.tensor([[-4.0, -1.0], [4.0, -1.0]])  # outside the half plane: last and first bin in phi
    assert (GaussianRing().quantile_bins(3).bin_index(below) % 3).tolist() == [2, 0]


def test_unit_round_trip(name):
    """In double precision u comes back to rounding; so does x, at events that are not in a far tail of u."""
    target = make(name)
    u = torch.rand(1000, target.features, dtype=torch.float64)
    x = target.from_unit(u)
    assert target.support.check(x).all()
    torch.testing.assert_close(target.to_unit(x), u, atol=1e-12, rtol=0)
    x = target.sample((1000,))
    torch.testing.assert_close(target.from_unit(target.to_unit(x)), x, atol=1e-8, rtol=0)
    u = torch.rand(1000, target.features)
    assert target.from_unit(u).dtype == torch.float32
    torch.testing.assert_close(target.to_unit(target.from_unit(u)), u, atol=3e-6, rtol=0)


def test_the_corners_of_the_unit_cube_map_to_finite_points(name):
    target = make(name)
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * target.features)
    assert torch.isfinite(target.from_unit(corners.reshape(-1, target.features))).all()


def test_jacobian_of_to_unit_is_the_density(name):
    target = make(name)
    x = target.sample((50,))
    jacobian = torch.stack([torch.autograd.functional.jacobian(target.to_unit, event) for event in x])
    torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, target.log_prob(x), atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_support_is_where_the_log_density_is_finite(name, dtype):
    _, _, inside, outside = TARGETS[name]
    target = make(name, dtype)
    inside, outside = torch.tensor(inside, dtype=dtype), torch.tensor(outside, dtype=dtype)
    assert torch.isfinite(target.log_prob(inside)).all() and target.support.check(inside).all()
    assert (target.log_prob(outside) == -INF).all() and not target.support.check(outside).any()
    scattered = torch.cat([3 * torch.randn(10_000, target.features, dtype=dtype), target.sample((10_000,))])
    finite = torch.isfinite(target.log_prob(scattered))
    assert (target.support.check(scattered) == finite).all() and finite[10_000:].all()
    assert not target.support.check(torch.full((target.features,), math.nan))


def test_gradients_are_finite_inside_and_zero_outside(name):
    _, _, inside, outside = TARGETS[name]
    target = make(name)
    outside = [point for point in outside if all(map(math.isfinite, point))]
    x = torch.tensor(inside + outside, dtype=torch.float64, requires_grad=True)
    log_prob = target.log_prob(x)
    (gradient,) = torch.autograd.grad(log_prob[: len(inside)].sum(), x, retain_graph=True)
    assert torch.isfinite(gradient).all()
    (gradient,) = torch.autograd.grad(log_prob[len(inside) :].sum(), x, allow_unused=True)
    assert (gradient == 0).all()


def test_single_precision_agrees_with_double(name):
    target = make(name, torch.float32)
    x = target.sample((1000,))
    single, double = target.log_prob(x), target.log_prob(x.double())
    assert single.dtype == torch.float32 and double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=1e-6, atol=1e-6)


# A function of the events, its mean and its variance; the mean of n events scatters by sqrt(variance / n).
# The half ring is cut at r = 0, which adds phi(4) / Phi(4) = 1.34e-4 to the mean radius.
@pytest.mark.parametrize(
    ("name", "function", "mean", "variance"),
    [
        ("wedge", lambda x: x[:, 0], 2 / 3, 1 / 18),
        ("wedge", lambda x: x[:, 1], 1 / 2, 1 / 12),
        ("kicker", lambda x: x[:, 0], 3 / 4, 3 / 80),
        ("half_ring", lambda x: x.norm(dim=-1), 4.000134, 1.0),
        ("half_ring", lambda x: torch.atan2(x[:, 1], x[:, 0]), math.pi / 2, math.pi**2 / 12),
        ("full_ring", lambda x: x.square().sum(-1), 17.0, 66.0),  # E|N(4,1)|^2 = 17, var = 4 * 16 + 2
        ("full_ring", lambda x: x[:, 0], 0.0, 8.5),
        ("gamma_ring", lambda x: x.norm(dim=-1), 5.0, 0.5),
        ("camel", lambda x: x[:, 0], 0.0, 17.0),
        ("camel", lambda x: (x[:, 0].abs() - 4).abs(), math.sqrt(2 / math.pi), 1 - 2 / math.pi),
        ("shell", lambda x: x.square().sum(-1), 17.0, 66.0),
        ("shell", lambda x: x[:, 2], 0.0, 17 / 5),
    ],
)
def test_moments_within_five_sigma(name, function, mean, variance):
    values = function(make(name).sample((N,)))
    assert values.mean().item() == pytest.approx(mean, abs=5 * math.sqrt(variance / N))


def test_sample_shapes_and_seed(name):
    target = make(name, torch.float32)
    assert target.sample().shape == (target.features,)
    assert target.sample((3, 4)).shape == (3, 4, target.features)
    assert target.log_prob(target.sample((3, 4))).shape == (3, 4)
    assert target.sample((0,)).shape == (0, target.features)
    assert target.sample().dtype == TARGETS[name][0]().dtype == torch.get_default_dtype()
    torch.manual_seed(1)
    first = target.sample((10,))
    torch.manual_seed(1)
    assert torch.equal(first, target.sample((10,)))


def test_an_event_of_the_gamma_ring_is_never_rounded_over_its_inner_edge():
    """A steep gamma distribution puts most events closer to the edge than single precision resolves."""
    ring = GammaRing(shape=0.1, scale=1e-6, dtype=torch.float32)
    assert torch.isfinite(ring.log_prob(ring.sample((N,)))).all()


# The lines.


@pytest.mark.parametrize("name", LINES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_line_density_is_the_density_on_the_line(name, dtype):
    target = make(name, dtype)
    t = torch.linspace(*target.line_range, 50, dtype=dtype)
    assert 5 <= len(target.line_positions) <= 7 and target.line_label in ("x", "r")
    for position in target.line_positions:
        points = target.line(t, position)
        assert points.shape == (50, 2) and points.dtype == dtype
        torch.testing.assert_close(target.line_density(t), target.log_prob(points).exp())
    assert target.line_density(torch.tensor([-1.0])).item() == 0


def wedge_truth(x, slope=2.0, x_max=1.0):
    """A straight line a x + b on [0, x_max], normalised there: [A] eqs. 18 and 21 with x_min = 0."""
    return slope * x + (1 - slope * x_max**2 / 2) / x_max


def kicker_truth(x, x_min=0.0, x_max=1.0):
    """[A] sec. 3.2: a parabola that starts at x_min and is normalised on [x_min, x_max]."""
    return 3 * (x - x_min) ** 2 / (x_max - x_min) ** 3


def half_ring_truth(r, mu=4.0, w=1.0):
    """[A] eq. 30, with the normalisation of the tail that is cut away at r = 0."""
    kept = (1 + math.erf(mu / w / math.sqrt(2))) / 2
    return torch.exp(-(((r - mu) / w) ** 2) / 2) / (math.sqrt(2 * math.pi) * w * math.pi * r * kept)


def full_ring_truth(r, mu=4.0, w=1.0):
    """[D] eq. 3 with the mirror peak."""
    peaks = torch.exp(-(((r - mu) / w) ** 2) / 2) + torch.exp(-(((r + mu) / w) ** 2) / 2)
    return peaks / (math.sqrt(2 * math.pi) * w * 2 * math.pi * r)


# Central differences of step 1e-5 are good to 1e-9. On the rings the tail below r = 0 is left out, which the
# docstring puts below 1e-3 of the density.
@pytest.mark.parametrize(
    ("name", "truth", "parameters", "tolerance"),
    [
        ("wedge", wedge_truth, {"delta_a": ("slope", 2.0), "delta_x_max": ("x_max", 1.0)}, 1e-8),
        ("kicker", kicker_truth, {"delta_x_min": ("x_min", 0.0), "delta_x_max": ("x_max", 1.0)}, 1e-8),
        ("half_ring", half_ring_truth, {"delta_mu": ("mu", 4.0), "delta_w": ("w", 1.0)}, 1e-3),
        ("full_ring", full_ring_truth, {"delta_mu": ("mu", 4.0), "delta_w": ("w", 1.0)}, 1e-3),
    ],
)
def test_sensitivities_are_the_derivatives_of_the_density(name, truth, parameters, tolerance):
    target = make(name)
    t = torch.linspace(*target.line_range, 81, dtype=torch.float64)
    torch.testing.assert_close(truth(t), target.line_density(t))
    sensitivities = target.sensitivities(t)
    assert set(sensitivities) == set(parameters)
    for key, (parameter, value) in parameters.items():
        up, down = truth(t, **{parameter: value + 1e-5}), truth(t, **{parameter: value - 1e-5})
        numerical = ((up - down) / 2e-5).abs()
        assert ((sensitivities[key] - numerical).abs() <= tolerance * truth(t) + 1e-9).all(), key


# Pyro, arguments, errors.


def test_works_as_a_pyro_site(name):
    target = make(name, torch.float32)
    data = target.sample((5,))

    def model():
        single = pyro.sample("single", target)
        with pyro.plate("events", 5):
            return single, pyro.sample("x", target), pyro.sample("data", target, obs=data)

    trace = pyro.poutine.trace(model).get_trace()
    trace.compute_log_prob()
    sites = trace.nodes
    assert sites["single"]["value"].shape == (target.features,)
    assert sites["x"]["value"].shape == (5, target.features)
    torch.testing.assert_close(sites["data"]["log_prob"], target.log_prob(data))
    torch.testing.assert_close(sites["x"]["log_prob"], target.log_prob(sites["x"]["value"]))


def test_declares_what_it_is(name):
    target = make(name)
    assert target.batch_shape == () and target.event_shape == (target.features,)
    assert not target.has_rsample
    assert target.support.event_dim == 1
    assert repr(copy.deepcopy(target)) == repr(target)
    assert repr(target) in repr(target.support)


def test_repr_names_the_parameters():
    assert repr(Wedge()) == "Wedge()"
    assert repr(Shell(radius=3)) == "Shell(features=5, radius=3.0, width=1.0)"
    assert repr(GammaRing()) == "GammaRing(radius=4.0, shape=2.0, scale=0.5)"


def test_wrong_events_are_refused(name):
    target = make(name)
    d = target.features
    wrong, nan = torch.zeros(3, d + 1), torch.full((3, d), math.nan)
    for argument, method in [
        ("value", target.log_prob),
        ("value", target.support.check),
        ("x", target.to_unit),
        ("u", target.from_unit),
        ("x", target.quantile_bins(2).bin_index),
    ]:
        shape = f"{argument} must have shape [..., {d}] for {type(target).__name__}, got [3, {d + 1}]"
        with pytest.raises(ValueError, match=re.escape(shape)):
            method(wrong)
        with pytest.raises(ValueError, match=re.escape("got []")):
            method(torch.tensor(1.0))
        with pytest.raises(ValueError, match=f"{argument} must be a floating point tensor, got torch.int64"):
            method(wrong.long())
    with pytest.raises(ValueError, match="value holds NaN"):
        target.log_prob(nan)
    with pytest.raises(ValueError, match="x holds NaN or infinities"):
        target.to_unit(nan)
    with pytest.raises(ValueError, match=re.escape("u must lie in [0, 1], got values from 2.0 to 2.0")):
        target.from_unit(torch.full((3, d), 2.0))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: GaussianRing(radius=0.0), "radius is 0.0; it must be positive and finite"),
        (lambda: GaussianRing(width=-1), "width is -1; it must be positive and finite"),
        (lambda: FullRing(radius=INF), "radius is inf; it must be positive and finite"),
        (lambda: GammaRing(shape=math.nan), "shape is nan; it must be positive and finite"),
        (lambda: GammaRing(scale=-INF), "scale is -inf; it must be positive and finite"),
        (lambda: CamelBack(separation=True), "separation is True; it must be positive and finite"),
        (lambda: Shell(features=1), "features is 1; it must be a whole number of at least 2"),
        (lambda: Shell(features=True), "features is True; it must be a whole number of at least 2"),
        (lambda: Wedge(dtype=torch.int64), "dtype is torch.int64; it must be torch.float32 or torch.float64"),
        (lambda: Wedge().quantile_bins(0), "n is 0; it must be a whole number of at least 1"),
        (lambda: Wedge().line(torch.rand(3), 1.5), "position must be a y in [0, 1], got 1.5"),
        (lambda: GaussianRing().line(torch.rand(3), 0.0), "position must be an angle in (0, pi), got 0.0"),
        (lambda: FullRing().line(torch.rand(3), -1.0), "position must be an angle in [0, 2 pi], got -1.0"),
        (
            lambda: Kicker().line_density(torch.rand(3, 2)),
            "t must be a floating point tensor of shape [n], got [3, 2]",
        ),
        (lambda: FullRing().sensitivities(torch.arange(3)), "t must be a floating point tensor of shape [n]"),
    ],
)
def test_wrong_arguments_are_refused(build, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build()
