"""Many networks evaluated together give what each gives by itself."""

import pytest
import torch

import pyrogen as pg
from pyrogen.bayes.networks import DrawnNetworks
from pyrogen.flows.mixings import Alternate, Mixing
from pyrogen.flows.networks import Networks
from pyrogen.flows.transforms import Transform

FLOWS = {
    "affine": {"features": 2, "blocks": 4, "hidden": (8, 8)},
    "affine, five features": {"features": 5, "blocks": 3, "hidden": (8,), "activation": "silu"},
    "rqs": {"features": 4, "blocks": 3, "hidden": (8,), "transform": "rqs", "mixing": "random", "bins": 5},
    "rqs, circles": {"features": 4, "blocks": 4, "hidden": (8,), "transform": "rqs", "periodic": (0, 3)},
    "rqs, unit box": {"features": 3, "blocks": 4, "hidden": (8,), "transform": "rqs", "base": "uniform"},
    "rqs, circles of the unit box": {
        "features": 3,
        "blocks": 4,
        "hidden": (8,),
        "transform": "rqs",
        "base": "uniform",
        "mixing": "random",
        "periodic": (1,),
    },
    "rqs, rotations": {"features": 3, "blocks": 3, "hidden": (8,), "transform": "rqs", "mixing": "rotation"},
    "cubic": {"features": 4, "blocks": 3, "hidden": (8,), "transform": "cubic", "mixing": "random", "bins": 5},
    "cubic, circles": {"features": 4, "blocks": 4, "hidden": (8,), "transform": "cubic", "periodic": (0, 3)},
    "cubic, circles of the unit box": {
        "features": 3,
        "blocks": 4,
        "hidden": (8,),
        "transform": "cubic",
        "base": "uniform",
        "periodic": (1,),
    },
    "bernstein": {"features": 3, "blocks": 3, "hidden": (8,), "transform": "bernstein", "base": "uniform"},
    "one feature": {"features": 1, "blocks": 2, "hidden": (8,), "transform": "rqs"},
    "conditional": {"features": 3, "blocks": 3, "hidden": (8,), "context": 2, "activation": "tanh"},
    "conditional, one feature": {"features": 1, "blocks": 2, "hidden": (8,), "transform": "rqs", "context": 1},
}


def made(name: str, networks: int) -> tuple[pg.BayesianFlow, torch.Tensor, torch.Tensor, torch.Tensor | None]:
    flow = pg.CouplingFlow(**FLOWS[name], dtype=torch.float64)
    model = pg.BayesianFlow(flow, preprocessing=None)
    generator = torch.Generator().manual_seed(1)
    theta = 0.4 * torch.randn(networks, model.weights, generator=generator, dtype=torch.float64)
    x = torch.rand(57, flow.features, generator=generator, dtype=torch.float64)
    context = torch.randn(57, flow.context, generator=generator, dtype=torch.float64) if flow.context else None
    return model, theta, x, context


@pytest.mark.parametrize("networks", [1, 3])
@pytest.mark.parametrize("name", FLOWS)
def test_networks_together_are_every_network_by_itself(name, networks):
    model, theta, x, context = made(name, networks)
    assert Networks.fits(model.flow)
    given = () if context is None else (context,)
    found = DrawnNetworks(model, theta).log_prob(x, *given)
    expected = torch.stack([model.log_prob(one, x, context) for one in theta])
    assert found.shape == (networks, 57) and torch.allclose(found, expected, atol=1e-11, rtol=1e-11)
    together = DrawnNetworks(model, theta)._together
    events = together.events(x, *given)
    for k, one in enumerate(theta):
        assert torch.allclose(events[k], model.packing.call(one, "forward", x, *given)[0], atol=1e-10)


@pytest.mark.parametrize("name", ["affine", "rqs, circles", "conditional"])
def test_events_of_a_seed_are_those_of_the_flow_whatever_the_rows(name):
    model, theta, _, _ = made(name, 1)
    parts = [20, 37]
    context = torch.randn(57, model.context, dtype=torch.float64) if model.context else None
    conditions = [None, None] if context is None else context.split(parts)
    torch.manual_seed(5)
    expected = torch.cat([model.sample_events(theta[0], n, c) for n, c in zip(parts, conditions, strict=True)])
    for rows in (1000, 10):
        torch.manual_seed(5)
        found = list(DrawnNetworks(model, theta).sample(parts, context, rows))
        assert max(len(piece) for piece in found) == min(rows, 57)
        assert torch.allclose(torch.cat(found), expected, atol=1e-10)


def test_predictions_can_be_used_where_gradients_are_taken():
    """What was worked out without gradients is an ordinary constant."""
    model, theta, x, _ = made("affine", 3)
    posterior = pg.Posterior(model, pg.posterior.StoredDraws(theta[None]))
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    parts = [events for _, events in posterior.replicates(5)]
    for found in (posterior.log_prob(x), posterior.sample(10), *parts):
        (scale * found).sum().backward()


@pytest.mark.parametrize(("events", "rows"), [(7, 64), (64, 64), (65, 64), (7, 7)])
def test_densities_do_not_depend_on_what_is_evaluated_together(monkeypatch, events, rows):
    model, theta, x, _ = made("rqs, circles", 10)
    posterior = pg.Posterior(model, pg.posterior.StoredDraws(theta[None]), progress=False)
    x = x.repeat(2, 1)[:events]
    seen = []
    monkeypatch.setattr("pyrogen.posterior.predictor.EVENTS_AT_ONCE", rows)
    monkeypatch.setattr("pyrogen.posterior.predictor.DENSITIES_AT_ONCE", 640)
    log_prob = Networks.log_prob

    def watched(self, x, *context):
        seen.append(self.count * len(x))
        return log_prob(self, x, *context)

    monkeypatch.setattr(Networks, "log_prob", watched)
    expected = torch.stack([model.log_prob(one, x) for one in theta])
    for kept in (1 << 24, 0):  # the draws kept from block to block, or drawn again
        monkeypatch.setattr("pyrogen.posterior.predictor.WEIGHTS_AT_ONCE", kept)
        assert torch.allclose(posterior.log_prob(x), expected, atol=1e-11)
    assert max(seen) <= rows and max(seen) > rows // 2


def test_a_card_without_memory_evaluates_fewer_events_at_once(monkeypatch):
    model, theta, x, _ = made("affine", 4)
    posterior = pg.Posterior(model, pg.posterior.StoredDraws(theta[None]), progress=False)
    expected, log_prob = posterior.log_prob(x), Networks.log_prob

    def limited(self, x, *context):
        if len(x) > 9:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return log_prob(self, x, *context)

    monkeypatch.setattr(Networks, "log_prob", limited)
    assert torch.allclose(posterior.log_prob(x), expected)


@pytest.fixture
def own_parts(monkeypatch):
    """A mixing and a transform of a user's own, gone after the test."""
    for family in (Transform, Mixing):
        monkeypatch.setattr(family, "registry", dict(family.registry))

    class Swap(Mixing, name="swap"):
        """The features backwards."""

        def forward(self, z):
            return z.flip(-1)

        def inverse(self, x):
            return x.flip(-1)

    class Shift(Transform, name="shift"):
        """x = z + t, and a scale."""

        parameters_per_feature = 2

        def forward(self, z, parameters):
            return z * parameters[..., 1].exp() + parameters[..., 0], parameters[..., 1]

        def inverse(self, x, parameters):
            return (x - parameters[..., 0]) * (-parameters[..., 1]).exp(), -parameters[..., 1]


def test_transforms_and_mixings_may_be_anybodys(monkeypatch, own_parts):
    monkeypatch.setitem(FLOWS, "own", {"features": 3, "blocks": 3, "transform": "shift", "mixing": "swap"})
    test_networks_together_are_every_network_by_itself("own", 1)
    test_networks_together_are_every_network_by_itself("own", 3)


class Changed(pg.CouplingFlow):
    """A flow that does something else."""

    def log_prob(self, x, context=None):
        return super().log_prob(x, context) + 1


def test_flows_of_others_are_evaluated_by_their_own_methods():
    flow = Changed(2, blocks=2, hidden=(4,))
    assert not Networks.fits(flow) and not Networks.fits(torch.nn.Linear(2, 2))
    model = pg.BayesianFlow(flow, preprocessing=None)
    x, theta = torch.rand(9, 2), torch.randn(2, model.weights)
    expected = torch.stack([model.log_prob(one, x) for one in theta])
    assert torch.equal(DrawnNetworks(model, theta).log_prob(x), expected)


class Stretch(pg.flows.transforms.Affine):
    """A transform with a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.stretch = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, z, parameters):
        x, log_derivative = super().forward(z, parameters)
        return x * self.stretch.exp(), log_derivative + self.stretch

    def inverse(self, x, parameters):
        z, log_derivative = super().inverse(x * (-self.stretch).exp(), parameters)
        return z, log_derivative - self.stretch


def twice(module, inputs, outputs):
    return 2 * outputs


CHANGES = {
    "a transform with a parameter": lambda block, _: setattr(block, "transform", Stretch()),
    "an activation over all units": lambda block, _: block.conditioner.layers.__setitem__(1, torch.nn.Softmax(-1)),
    "one more layer": lambda block, _: block.conditioner.layers.insert(2, torch.nn.Tanh()),
    "a layer without a bias": lambda block, _: block.conditioner.layers[0].register_parameter("bias", None),
    "a hook": lambda block, _: block.conditioner.layers[0].register_forward_hook(twice),
    "two blocks of the same network": lambda block, other: setattr(block, "conditioner", other.conditioner),
}


@pytest.mark.parametrize("change", CHANGES)
def test_blocks_that_a_user_changed_are_evaluated_by_their_own_methods(change):
    flow = pg.CouplingFlow(4, blocks=2, hidden=(8,), dtype=torch.float64)
    CHANGES[change](flow.blocks[0], flow.blocks[1])
    model = pg.BayesianFlow(flow, preprocessing=None)
    generator = torch.Generator().manual_seed(2)
    theta = torch.randn(3, model.weights, generator=generator, dtype=torch.float64)
    x = torch.randn(8, 4, generator=generator, dtype=torch.float64)  # as many events as units
    expected = torch.stack([model.log_prob(one, x) for one in theta])
    assert torch.allclose(DrawnNetworks(model, theta).log_prob(x), expected, atol=1e-10, rtol=1e-10)


def test_a_mixing_may_derive_from_one_of_ours(monkeypatch, own_parts):
    class Mirror(Alternate, name="mirror"):
        """The features with the other sign."""

        keeps_features = False

        def forward(self, z):
            return -z

        def inverse(self, x):
            return -x

    monkeypatch.setitem(FLOWS, "own", {"features": 3, "blocks": 3, "mixing": "mirror"})
    test_networks_together_are_every_network_by_itself("own", 1)
    test_networks_together_are_every_network_by_itself("own", 3)
