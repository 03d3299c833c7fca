"""The parts of a flow, transforms and mixings: a new one is one class, constants move along, old states load."""

from __future__ import annotations

import copy
import math

import numpy as np
import pyro
import pytest
import torch
from torch import nn

import pyrogen as pg
from pyrogen.flows import (
    Alternate,
    Bernstein,
    Mixing,
    Permutation,
    RationalQuadraticSpline,
    Rotation,
    Transform,
    upgrade_buffers,
)


@pytest.fixture
def registries(monkeypatch):
    """What a test registers is gone after it."""
    for family in (Transform, Mixing):
        monkeypatch.setattr(family, "registry", dict(family.registry))


@pytest.fixture
def sinh_arcsinh(registries):
    """A transform that the package does not know: ``x = sinh(exp(s) arcsinh(z) + t)``, with heavier tails."""

    class SinhArcsinh(Transform, name="sinh-arcsinh"):
        parameters_per_feature = 2

        def __init__(self) -> None:
            super().__init__()
            self.register_constant("scales", torch.tensor([0.1, 0.3], dtype=torch.float64))

        def forward(self, z, parameters):
            s, t = (parameters * self.constant("scales", parameters)).unbind(-1)
            u = s.exp() * z.arcsinh() + t
            return u.sinh(), u.cosh().log() + s - 0.5 * torch.log1p(z**2)

        def inverse(self, x, parameters):
            s, t = (parameters * self.constant("scales", parameters)).unbind(-1)
            u = (x.arcsinh() - t) * (-s).exp()
            return u.sinh(), u.cosh().log() - s - 0.5 * torch.log1p(x**2)

    return SinhArcsinh


def stress(flow: nn.Module, scale: float = 0.5) -> None:
    generator = torch.Generator().manual_seed(1)
    for parameter in flow.parameters():
        parameter.data = scale * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)


@pytest.mark.parametrize("mixing", sorted(Mixing.registry))
def test_a_new_transform_is_one_class(sinh_arcsinh, mixing):
    flow = pg.CouplingFlow(3, 3, (8,), transform="sinh-arcsinh", mixing=mixing, context=1, dtype=torch.float64)
    assert all(type(block.transform) is sinh_arcsinh for block in flow.blocks)
    stress(flow)
    x, context = torch.randn(50, 3, dtype=torch.float64), torch.randn(50, 1, dtype=torch.float64)
    z, log_det = flow.inverse(x, context)
    returned, log_det_back = flow.forward(z, context)
    assert (z - x).abs().max() > 0.1  # it is not the identity
    assert torch.allclose(returned, x, atol=1e-10) and torch.allclose(log_det, -log_det_back, atol=1e-10)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row, given: flow.inverse(row, given)[0]))(x, context)
    assert torch.allclose(jacobian.slogdet().logabsdet, log_det, atol=1e-10)


@pytest.mark.parametrize("features", [1, 2])
def test_the_density_of_a_new_transform_integrates_to_one(sinh_arcsinh, features):
    flow = pg.CouplingFlow(features, 2, (8,), transform="sinh-arcsinh", dtype=torch.float64)
    stress(flow)
    axis, step = 15 * torch.linspace(-1, 1, 801, dtype=torch.float64), 30 / 800
    with torch.no_grad():
        density = flow.log_prob(torch.cartesian_prod(*[axis] * features).reshape(-1, features)).exp()
    assert density.sum() * step**features == pytest.approx(1, abs=1e-4)


def test_a_new_transform_is_lifted_and_its_chains_are_one_batch(sinh_arcsinh):
    model = pg.BayesianFlow(pg.CouplingFlow(2, 2, (8,), transform="sinh-arcsinh"), preprocessing=None)
    assert model.local_obstacle() is None
    theta, x = torch.randn(3, model.weights), torch.randn(20, 2)
    batch = torch.func.vmap(lambda one: model.log_prob(one, x))(theta)
    assert torch.allclose(batch, torch.stack([model.log_prob(one, x) for one in theta]), atol=1e-4)


def test_messages_know_the_new_transform(sinh_arcsinh):
    with pytest.raises(ValueError, match="choose one of 'affine', 'bernstein', 'cubic', 'rqs', 'sinh-arcsinh'"):
        pg.CouplingFlow(2, transform="linear")
    with pytest.raises(
        ValueError, match='only transform="cubic" or "rqs" or "bernstein" with mixing "alternate" or "random"'
    ):
        pg.CouplingFlow(2, transform="sinh-arcsinh", base="uniform")
    with pytest.warns(
        UserWarning, match='can only learn a Gaussian; transform="cubic" or "rqs" or "sinh-arcsinh" is not'
    ):
        pg.CouplingFlow(1)
    sinh_arcsinh.fits_unit_box = True
    pg.CouplingFlow(2, transform="sinh-arcsinh", base="uniform")
    sinh_arcsinh.needs_unit_box = True
    with pytest.raises(ValueError, match='transform="sinh-arcsinh" is a map of the unit box; give base="uniform"'):
        pg.CouplingFlow(2, transform="sinh-arcsinh")
    with pytest.raises(ValueError, match='needs transform="cubic" or "rqs", no rotations'):
        pg.CouplingFlow(2, transform="sinh-arcsinh", base="uniform", periodic=[0])
    sinh_arcsinh.can_be_periodic = True
    with pytest.raises(ValueError, match='needs transform="cubic" or "rqs" or "sinh-arcsinh"'):
        pg.CouplingFlow(2, transform="affine", periodic=[0])


def test_a_name_belongs_to_one_class(sinh_arcsinh):
    with pytest.raises(ValueError, match="the transform 'affine' exists, it is pyrogen.flows.transforms.affine.Affine"):

        class Other(Transform, name="affine"):
            pass

    assert Transform.named("sinh-arcsinh") is sinh_arcsinh and "sinh-arcsinh" not in Mixing.registry


def test_what_a_test_registered_is_gone():
    assert sorted(Transform.registry) == ["affine", "bernstein", "cubic", "rqs"]
    assert sorted(Mixing.registry) == ["alternate", "random", "rotation"]


def test_constants_are_buffers_that_keep_their_digits():
    transform = Bernstein(7)
    assert set(dict(transform.named_buffers())) == {"powers", "log_factors", "sums", "following", "moments"}
    assert not transform.state_dict() and not list(transform.parameters())
    exact = torch.tensor([math.log(0.99 * 7 * math.comb(6, k)) for k in range(7)], dtype=torch.float64)
    for moved in (copy.deepcopy(transform).double(), copy.deepcopy(transform).float().half().to(torch.float64)):
        assert torch.equal(moved.log_factors[:, 0], exact)
    assert transform.log_factors.dtype == torch.float32 and torch.equal(transform.log_factors[:, 0], exact.float())
    # values of another type than the module's
    x, parameters = torch.rand(50, dtype=torch.float64), torch.randn(50, 7, dtype=torch.float64)
    for value, same in zip(transform.inverse(x, parameters), transform.double().inverse(x, parameters), strict=True):
        assert value.dtype == torch.float64 and torch.equal(value, same)


FLOWS = {
    "rotation": {"features": 3, "transform": "affine"},
    "random": {"features": 3, "transform": "rqs", "mixing": "random", "periodic": (1,)},
    "random, unit box": {"features": 4, "transform": "rqs", "mixing": "random", "base": "uniform", "periodic": (0,)},
    "bernstein": {"features": 2, "transform": "bernstein", "base": "uniform"},
}
PERSISTENT = {"rotation": "rotation", "random": "order", "random, unit box": "order", "bernstein": None}


def flow(name: str, **more) -> pg.CouplingFlow:
    return pg.CouplingFlow(**FLOWS[name], blocks=3, hidden=(8,), **more)


@pytest.mark.parametrize("name", FLOWS)
def test_everything_that_a_flow_computes_with_moves_along(name):
    """The meta device stands for a card: an operation with a tensor that stayed behind fails."""
    moved = flow(name).to("meta")
    assert {buffer.device.type for buffer in moved.buffers()} <= {"meta"}
    assert moved.log_prob(torch.rand(5, moved.features, device="meta")).shape == (5,)
    if moved.config["transform"] != "bernstein":  # whose root finding looks at values
        assert moved.sample(5).device.type == "meta"


@pytest.mark.parametrize("name", FLOWS)
def test_a_state_holds_weights_and_mixings_alone(name):
    made = flow(name)
    names = set(made.state_dict()) - {name for name, _ in made.named_parameters()}
    assert names == ({f"mixings.{i}.{PERSISTENT[name]}" for i in range(3)} if PERSISTENT[name] else set())
    assert all(name.startswith("blocks.") for name, _ in made.named_parameters())


@pytest.mark.parametrize("name", FLOWS)
def test_copies_and_calls_with_other_weights_agree_with_the_flow(name):
    made = flow(name, dtype=torch.float64)
    x = torch.rand(20, made.features, dtype=torch.float64)
    expected = made.log_prob(x)
    assert torch.equal(copy.deepcopy(made).log_prob(x), expected)
    model = pg.BayesianFlow(made, preprocessing=None)
    assert torch.equal(model.log_prob(model.initial_theta, x), expected)
    batch = torch.func.vmap(torch.func.grad(lambda theta: model.log_prob(theta, x).sum()))(
        model.initial_theta.expand(2, -1)
    )
    alone = torch.autograd.grad(expected.sum(), list(made.parameters()))
    assert torch.allclose(batch[1], torch.cat([g.reshape(-1) for g in alone]), atol=1e-10)


MIXINGS = {
    "alternate": Alternate(4),
    "random": Permutation(torch.tensor([2, 0, 3, 1])),
    "rotation": Rotation(torch.linalg.qr(torch.arange(16.0).reshape(4, 4).sin()).Q),
}


@pytest.mark.parametrize("name", sorted(Mixing.registry))
def test_mixing_inverts_and_preserves_volumes(name):
    mixing = MIXINGS[name]
    z = torch.randn(20, 4)
    assert torch.allclose(mixing.inverse(mixing(z)), z, atol=1e-6)
    assert torch.allclose(mixing(mixing.inverse(z)), z, atol=1e-6)
    assert name == "alternate" or not torch.allclose(mixing(z), z, atol=0.1)
    assert torch.autograd.functional.jacobian(mixing, z[0]).det().abs() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", ["alternate", "random"])
def test_mixing_carries_masks_as_it_carries_features(name):
    """A feature that is marked in latent space comes out where the mask marks it among the events."""
    mixing = MIXINGS[name]
    for index in range(4):
        mask = torch.arange(4) == index
        assert (mixing(mixing.carry(mask).float()) == mask).all()


def test_mixings_refuse_what_they_are_not():
    with pytest.raises(ValueError, match=r"a rotation does not keep the features that the mask \[False, True"):
        MIXINGS["rotation"].carry(torch.tensor([False, True, False, False]))
    assert not MIXINGS["rotation"].carry(torch.zeros(4, dtype=torch.bool)).any()
    with pytest.raises(ValueError, match=r"order is \[0, 2\]; it must hold each number from 0 to 1 once"):
        Permutation(torch.tensor([0, 2]))
    with pytest.raises(ValueError, match=r"rotation of shape \[2, 3\]; it must be a square matrix"):
        Rotation(torch.zeros(2, 3))


def test_a_new_mixing_is_one_class(registries):
    class Reversed(Mixing, name="reversed"):
        def forward(self, z):
            return z.flip(-1)

        inverse = forward

    made = pg.CouplingFlow(3, 2, (8,), "rqs", mixing="reversed", periodic=(0,))
    assert made.latent.circles.tolist() == [0] and made.event_angles.circles.tolist() == [True, False, False]
    one_less = pg.CouplingFlow(3, 1, (8,), "rqs", mixing="reversed", periodic=(0,))
    assert one_less.latent.circles.tolist() == [2] and type(one_less.mixings[0]) is Reversed


def test_a_seed_gives_the_flow_that_it_always_gave():
    made = pg.CouplingFlow(4, 3, (5,), "rqs", mixing="random", periodic=(1,), seed=4, bins=3)
    assert [mixing.order.tolist() for mixing in made.mixings] == [[2, 1, 3, 0], [1, 0, 2, 3], [3, 2, 1, 0]]
    first = made.blocks[0].conditioner.layers[0].weight[0, :2]
    assert first.tolist() == pytest.approx([0.6708868741989136, -0.25609689950942993], abs=1e-7)
    assert made.log_prob(torch.full((4,), 0.4)).item() == pytest.approx(-5.091123580932617, abs=1e-5)
    made = pg.CouplingFlow(3, 2, (5,), seed=4)
    row = [-0.5767644047737122, -0.7751129269599915, 0.25795894861221313]
    assert made.mixings[1].rotation[0].tolist() == pytest.approx(row, abs=1e-6)
    assert made.log_prob(torch.full((3,), 0.4)).item() == pytest.approx(-3.6748483180999756, abs=1e-5)


@pytest.mark.parametrize(("name", "old", "new"), [("rotation", "rotations", "rotation"), ("random", "orders", "order")])
def test_states_of_earlier_versions_load(name, old, new):
    """They had the mixings of all blocks in one array."""
    more = {} if old == "rotations" else {"periodic": ()}  # the networks of periodic flows depend on the order
    made, other, inside = (pg.CouplingFlow(**FLOWS[name] | more, blocks=3, hidden=(8,), seed=s) for s in (1, 2, 3))
    today = made.state_dict()
    mixings = {key: value for key, value in today.items() if key.startswith("mixings.")}
    state = {key: value for key, value in today.items() if key not in mixings} | {old: torch.stack([*mixings.values()])}
    x = torch.rand(20, 3)
    given = dict(state)
    assert not torch.equal(other.log_prob(x), made.log_prob(x))
    other.load_state_dict(state)
    assert state.keys() == given.keys()  # the caller's is left alone
    outer = nn.Sequential(inside)
    outer.load_state_dict({f"0.{key}": value for key, value in state.items()})
    for loaded in (other, inside):
        assert torch.equal(loaded.log_prob(x), made.log_prob(x))
        z = made.inverse(x)[0]
        assert torch.equal(loaded(z)[0], made(z)[0])
    arrays = upgrade_buffers({old: state[old].numpy(), "more": np.zeros(2)})
    assert arrays.keys() == {*mixings, "more"}
    assert all(np.array_equal(arrays[key], value.numpy()) for key, value in mixings.items())
    assert upgrade_buffers(mixings) == mixings
    with pytest.raises(RuntimeError, match=f"mixings.2.{new}"):
        other.load_state_dict(state | {old: state[old][:2]})


def test_a_printed_flow_says_what_it_is():
    assert str(pg.CouplingFlow(2)).splitlines() == [
        "CouplingFlow(",
        '  features=2, context=0, base="normal", blocks=20, weights=44,840, dtype=float32',
        "  (latent): Latent(2 normal)",
        "  (mixings): ModuleList(",
        "    (0-19): 20 x Rotation(features=2)",
        "  )",
        "  (blocks): ModuleList(",
        "    (0-19): 20 x CouplingBlock(",
        "      moves 1 of 2 features",
        "      (transform): Affine(clamp=2)",
        "      (conditioner): Conditioner(1 -> 32 -> 32 -> 32 -> 2, relu)",
        "    )",
        "  )",
        ")",
    ]
    text = str(pg.CouplingFlow(3, 2, (8,), "rqs", mixing="random", periodic=(1, 2), context=2, seed=1))
    for part in ("context=2", "2 x Permutation(features=3)", "10 bins on [-5, 5]", "on circles"):
        assert part in text
    assert "Latent(1 normal, 2 on circles)" in text and "Angles(features [1, 2] on [-5, 5])" in text
    spline = RationalQuadraticSpline(4, 0.0, 1.0, free_edges=True, periodic=[True, False])
    assert repr(spline) == "RationalQuadraticSpline(4 bins on [0, 1], free edges, 1 of 2 periodic)"
    assert repr(Bernstein(5)) == "Bernstein(degree=5)" and "4 uniform" in str(flow("random, unit box"))
    assert "Conditioner(a constant -> 8 -> 10, relu)" in str(pg.CouplingFlow(1, 1, (8,), "bernstein", base="uniform"))


@pytest.mark.parametrize("missing", ["forward", "inverse"])
@pytest.mark.parametrize("family", [Transform, Mixing])
def test_a_part_without_its_maps_is_refused(registries, family, missing):
    maps = {name: lambda self, *values: values for name in {"forward", "inverse"} - {missing}}
    with pytest.raises(TypeError, match=f"the {family.__name__.lower()} Half does not define {missing}"):
        type("Half", (family,), maps, name="half")
    assert "half" not in family.registry


def test_a_transform_says_how_many_numbers_it_takes(registries):
    class Silent(Transform, name="silent"):
        forward = inverse = lambda self, z, parameters: (z, 0 * z)

    with pytest.raises(TypeError, match="Silent has no parameters_per_feature"):
        pg.CouplingFlow(2, 2, (4,), transform="silent")


@pytest.mark.parametrize(
    "options", [{}, {"transform": "rqs", "mixing": "random"}, {"transform": "bernstein", "base": "uniform"}], ids=str
)
def test_pyro_can_make_its_own_modules_of_a_flow(options):
    """One sample site for every layer, as plain Pyro has it."""
    flow = pg.CouplingFlow(2, 2, (4,), **options)
    x = torch.rand(5, 2)
    expected = flow.log_prob(x)
    pyro.nn.module.to_pyro_module_(flow)
    assert isinstance(flow.blocks[0].transform, pyro.nn.PyroModule) and torch.equal(flow.log_prob(x), expected)
    assert sorted(Transform.registry) == ["affine", "bernstein", "cubic", "rqs"]
