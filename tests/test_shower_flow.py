"""Flows of blocks of columns and of calorimeter showers: densities, Jacobians, noise, posteriors, files."""

import math

import numpy as np
import pytest
import torch

import pyrogen as pg
from pyrogen import events
from pyrogen.flows.chain_networks import ChainNetworks, ShowerNetworks, together
from pyrogen.flows.sticks import from_sticks, to_sticks

LAYERS, ORDER, THRESHOLD = (3, 1, 2), (2, 0, 1, 3, 5, 4), 1e-3
QUICK = {"blocks": 2, "hidden": (8,), "bins": 4}


def chain(**options):
    return pg.ChainFlow((2, 1, 3), seed=1, dtype=torch.float64, **QUICK | options)


def shower_flow(alpha=1e-6, dtype=torch.float64, **options):
    return pg.ShowerFlow(LAYERS, THRESHOLD, order=ORDER, alpha=alpha, seed=2, dtype=dtype, **QUICK | options)


def cells(n=40, seed=1):
    """Showers of 6 cells without gaps, and their incident energies."""
    generator = torch.Generator().manual_seed(seed)
    incident = 1 + 20 * torch.rand(n, 1, generator=generator, dtype=torch.float64)
    shares = torch.rand(n, 6, generator=generator, dtype=torch.float64) ** 3 + 1e-4
    response = 0.8 + 0.3 * torch.rand(n, 1, generator=generator, dtype=torch.float64)
    return incident * response * shares / shares.sum(-1, keepdim=True), incident


def centred(**options):
    flow = shower_flow(**options)
    flow.centre_on(*cells(400, seed=5))
    return flow


# --- blocks of columns ---------------------------------------------------------------------------------------------


def test_a_chain_is_the_product_of_its_parts():
    flow, x, c = chain(context=2), torch.randn(5, 6).double(), torch.randn(5, 2).double()
    first, second, third = (part.flow for part in flow.parts)
    product = first.log_prob(x[:, :2], c) + second.log_prob(x[:, 2:3], torch.cat([x[:, :2], c], -1))
    product = product + third.log_prob(x[:, 3:], torch.cat([x[:, :3], c], -1))
    assert torch.allclose(flow.log_prob(x, c), product)
    # What comes later changes nothing before.
    z = torch.randn(5, 6).double()
    changed = z.clone()
    changed[:, 3:] += 1
    assert torch.equal(flow._events(z, c)[:, :3], flow._events(changed, c)[:, :3])
    assert not torch.equal(flow._events(z, c)[:, 3:], flow._events(changed, c)[:, 3:])


def test_the_density_of_a_chain_is_that_of_its_samples():
    """The change of variables, with the Jacobian by automatic differentiation."""
    flow, z, c = chain(context=1), torch.randn(6, 6).double(), torch.randn(6, 1).double()
    x = flow._events(z, c)
    for i in range(len(z)):
        jacobian = torch.autograd.functional.jacobian(lambda u, i=i: flow._events(u[None], c[i : i + 1])[0], z[i])
        latent = -0.5 * z[i].square().sum() - 3 * math.log(2 * math.pi)
        assert torch.allclose(flow.log_prob(x[i : i + 1], c[i : i + 1])[0], latent - jacobian.det().abs().log())


def test_a_chain_on_the_unit_box():
    flow = chain(base="uniform")
    assert flow.on_unit_box and flow.log_prob(torch.full((1, 6), 1.5).double()) == -math.inf
    x = flow.sample(200)
    assert ((x >= 0) & (x <= 1)).all() and flow.log_prob(x).isfinite().all()


def test_a_chain_with_one_block_is_a_coupling_flow():
    flow = pg.ChainFlow((3,), seed=1, **QUICK)
    alone = pg.CouplingFlow(3, transform="rqs", seed=flow.parts[0].flow.config["seed"], **QUICK)
    x = torch.randn(10, 3)
    assert torch.equal(flow.log_prob(x), alone.log_prob(x))


def test_arguments_of_chains():
    with pytest.raises(ValueError, match=r"blocks is \(1, 2\); it must be a whole number, or one for each of the 3"):
        chain(blocks=(1, 2))
    with pytest.raises(ValueError, match=r"order is .*a permutation of the columns of each layer, 6 in all"):
        pg.ShowerFlow(LAYERS, THRESHOLD, order=(3, 0, 1, 2, 4, 5))
    with pytest.raises(ValueError, match="alpha is 0.5; it must be at least 0 and below 0.1"):
        shower_flow(alpha=0.5)


# --- sticks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.0, 1e-6, 0.01])
def test_sticks_and_their_jacobian(alpha):
    y = torch.rand(4, 5, dtype=torch.float64) + 0.01
    total, u, log_jacobian = to_sticks(y, alpha)
    assert torch.allclose(total, y.sum(-1)) and torch.allclose(from_sticks(total, u, alpha), y)

    def whole(row):
        total, u, _ = to_sticks(row, alpha)
        return torch.cat([total[None], u])

    for row, log_det in zip(y, log_jacobian, strict=True):
        assert torch.allclose(torch.autograd.functional.jacobian(whole, row).det().abs().log(), log_det)


def test_sticks_keep_small_shares_in_single_precision():
    y = torch.tensor([[1e-6, 90.0, 1e-6, 3.0, 2e-6]])
    total, u, _ = to_sticks(y, 0.0)
    assert torch.allclose(from_sticks(total, u, 0.0), y, rtol=2e-5)
    # Beyond the range of the logit the cell, or all behind it, is empty.
    found = from_sticks(torch.ones(1), torch.tensor([[-20.0, 20.0]]), 1e-6)
    assert torch.equal(found, torch.tensor([[0.0, 1.0, 0.0]]))


# --- showers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.0, 1e-6])
def test_the_jacobian_of_showers(alpha):
    """log|du / dx| against automatic differentiation, with all constants set."""
    flow, (x, c) = centred(alpha=alpha), cells(5)
    u, log_jacobian, fits = flow._inner(x, c)
    assert fits.all()
    for i in range(len(x)):
        jacobian = torch.autograd.functional.jacobian(lambda row, i=i: flow._inner(row[None], c[i : i + 1])[0][0], x[i])
        assert torch.allclose(jacobian.det().abs().log(), log_jacobian[i])
    assert torch.allclose(flow._outer(u, c), x, rtol=1e-6)


def test_the_density_of_showers_is_that_of_their_samples():
    flow, (_, c) = centred(alpha=0.0), cells(4)
    z = torch.randn(4, 6).double()
    x = flow._events(z, c)
    for i in range(len(z)):
        jacobian = torch.autograd.functional.jacobian(lambda u, i=i: flow._events(u[None], c[i : i + 1])[0], z[i])
        latent = -0.5 * z[i].square().sum() - 3 * math.log(2 * math.pi)
        assert torch.allclose(flow.log_prob(x[i : i + 1], c[i : i + 1])[0], latent - jacobian.det().abs().log())


def test_the_density_of_showers_integrates_to_one():
    """Importance sampling of two layers: p / q has the mean one for samples of another density q."""
    flow = pg.ShowerFlow((2, 1), THRESHOLD, alpha=0.0, seed=3, dtype=torch.float64, **QUICK)
    flow.centre_on(torch.rand(400, 3).double() + 0.1, torch.full((400, 1), 2.0).double())
    c = torch.full((200_000, 1), 2.0).double()
    normal = torch.distributions.Normal(torch.zeros(3).double(), 1.6)
    u = normal.sample((len(c),))
    x = flow._outer(u, c)
    log_q = normal.log_prob(u).sum(-1) + flow._inner(x, c)[1]
    ratio = (flow.log_prob(x, c) - log_q).exp()
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / len(c) ** 0.5 < 0.03


def test_what_the_networks_see_has_mean_zero_and_width_one():
    flow, (x, c) = centred(), cells(400, seed=5)
    u = flow._inner(x, c)[0]
    assert torch.allclose(u.mean(0), torch.zeros(6).double(), atol=1e-9)
    assert torch.allclose(u.std(0, correction=0), torch.ones(6).double())
    before = flow.location.clone()
    flow.centre_on(2 * x, c)  # only once
    assert torch.equal(flow.location, before)
    same = torch.full_like(c, 7.0)
    other = shower_flow()
    other.centre_on(x, same)  # one incident energy
    assert other.energy[1] == 1 and other.log_prob(x, same).isfinite().all()


def test_weights_count_in_the_constants():
    x, c = cells(100)
    doubled, weighted = shower_flow(), shower_flow()
    doubled.centre_on(torch.cat([x, x[:50]]), torch.cat([c, c[:50]]))
    weighted.centre_on(x, c, torch.cat([torch.full((50,), 2.0), torch.ones(50)]))
    assert torch.allclose(doubled.location, weighted.location) and torch.allclose(doubled.scale, weighted.scale)


def test_showers_without_a_density():
    flow, (x, c) = centred(), cells(3)
    x[0, 2], c[1] = 0.0, -1.0
    found = flow.log_prob(x, c)
    assert found[:2].eq(-math.inf).all() and found[2].isfinite()
    x.requires_grad_()
    flow.log_prob(x, c)[2].backward()
    assert x.grad.isfinite().all()
    with pytest.raises(ValueError, match="context of shape None"):
        flow.log_prob(x.detach())
    with pytest.raises(ValueError, match="x is .*positive energies"):
        shower_flow().centre_on(torch.zeros(3, 6), c)


def test_cells_of_the_inside_come_last():
    geometry = events.ShowerGeometry.calogan()
    order = np.array(geometry.outside_in)
    for layer, columns in zip(geometry.layers, geometry.columns, strict=True):
        its = order[columns]
        assert sorted(its) == list(range(columns.start, columns.stop))
        distance = np.hypot(layer.eta, layer.phi)[its - columns.start]
        assert (np.diff(distance) <= 1e-6).all()
    flat = events.ShowerGeometry.flat([2, 3])
    assert flat.outside_in == (0, 1, 2, 3, 4)
    flow = pg.ShowerFlow(geometry.sizes, 1e-3, order=geometry.outside_in, **QUICK)
    x = 0.01 + torch.rand(3, 504)
    u, _, _ = flow._inner(x, x.sum(-1, keepdim=True))
    assert torch.allclose(flow._outer(u, x.sum(-1, keepdim=True)), x, rtol=1e-3)


# --- noise below the threshold ------------------------------------------------------------------------------------


def test_empty_cells_are_filled_for_a_training_and_emptied_in_samples():
    noise, x = events.ThresholdNoise(0.5, seed=3), torch.tensor([[0.0, 0.5, 2.0]]).repeat(4000, 1).double()
    filled = noise.dequantised(x, ["a", "b", "c"])
    assert ((filled[:, 0] > 0) & (filled[:, 0] < 0.5)).all() and torch.equal(filled[:, 1:], x[:, 1:])
    assert abs(filled[:, 0].mean() - 0.25) < 4.5 * 0.5 / math.sqrt(12 * 4000)
    assert torch.equal(noise.inverse(filled)[0], x)
    assert torch.equal(noise.dequantised(x, ["a", "b", "c"]), filled)
    assert not torch.equal(noise.dequantised(x, ["a", "b", "c"], column=1), filled)
    u, log_jacobian = noise(x[:1])
    assert torch.equal(u, torch.tensor([[0.25, 0.5, 2.0]]).double()) and log_jacobian == 0
    assert noise(torch.tensor([[-0.1, 1.0]]))[1] == -math.inf
    again = events.bijection.from_config(noise.config())
    assert again.config() == noise.config() and "0.5" in repr(noise)


def test_energies_below_the_threshold_are_refused_in_a_training():
    with pytest.raises(ValueError, match=r"1 energies are not 0 and below.*row 1, column 0 \(a\): 0.3.*suppressed"):
        events.ThresholdNoise(0.5).dequantised(torch.tensor([[0.0], [0.3]]), ["a"])
    with pytest.raises(ValueError, match="ThresholdNoise must be first in a Chain"):
        events.Chain([events.Standardise(), events.ThresholdNoise(0.5)])


# --- posteriors ---------------------------------------------------------------------------------------------------

GEOMETRY = events.ShowerGeometry(
    tuple(
        events.ShowerLayer((1, n), (-40.0, 40.0), tuple(np.linspace(-80, 80, n + 1).tolist()), depth)
        for n, depth in ((2, (0.0, 90.0)), (3, (90.0, 437.0)), (2, (437.0, 480.0)))
    ),
    "seven cells",
)


@pytest.fixture(scope="module")
def sample():
    return events.showers(1000, "gamma", (5, 50), seed=1, geometry=GEOMETRY, progress=False)


@pytest.fixture(scope="module")
def posterior(sample):
    flow = pg.ShowerFlow(GEOMETRY.sizes, 1e-3, order=GEOMETRY.outside_in, seed=1, **QUICK)
    settings = {"epochs": 14, "batch_size": 100, "lr": 7e-3, "seed": 1, "progress": False}
    return pg.SVI(**settings).fit(pg.BayesianFlow(flow), sample.events, context=sample.context)


def test_a_posterior_of_showers(sample, posterior):
    model = posterior.model
    assert isinstance(model.preprocessing, events.ThresholdNoise) and model.preprocessing.threshold == 1e-3
    assert isinstance(model.context_preprocessing, events.Identity)
    generated = posterior.generate(1000, 5, context=sample.context)
    assert generated.names == sample.events.names and set(generated.units) == {"GeV"}
    values = generated.values
    assert ((values == 0) | (values >= 1e-3 * (1 - 1e-6))).all()
    found = events.Showers(generated, sample.energies, GEOMETRY)
    response = [each.values.sum(1) / each.energies for each in (sample, found)]
    assert response[1].mean() == pytest.approx(response[0].mean(), abs=0.05)
    empty = [(each.layer_energies == 0).mean(0) for each in (sample, found)]
    assert empty[0][2] > 0.1 and abs(empty[1][2] - empty[0][2]) < 0.2  # so short is the training
    assert np.abs((values == 0).mean(0) - (sample.values == 0).mean(0)).max() < 0.2
    assert np.isfinite(generated.uncertainties).all()


def test_the_density_of_a_posterior_is_per_gev(sample, posterior):
    """An empty cell counts as half the threshold; without conditions there is no density."""
    x, c = torch.tensor(sample.values[:20]), sample.energies[:20]
    theta = posterior.weights.draws(3, 0)
    own = [
        posterior.model.packing.call(
            draw, "log_prob", torch.where(x == 0, 5e-4, x).float(), torch.tensor(c[:, None]).float()
        )
        for draw in theta
    ]
    assert torch.allclose(posterior.log_prob(x, 3, context=c), torch.stack(own), rtol=1e-3, atol=1e-2)
    with pytest.raises(ValueError, match="the flow is conditional on 1 number per event"):
        posterior.log_prob(x, 3)


def test_files_of_posteriors(sample, posterior, tmp_path):
    posterior.save(tmp_path / "p.h5")
    loaded = pg.load(tmp_path / "p.h5")
    x, c = sample.values[:30], sample.energies[:30]
    assert torch.equal(loaded.log_prob(x, 3, context=c), posterior.log_prob(x, 3, context=c))
    assert torch.equal(loaded.sample(30, 3, context=c), posterior.sample(30, 3, context=c))
    assert loaded.model.flow.config == posterior.model.flow.config


def test_a_training_goes_on(sample, posterior):
    settings = {"epochs": 1, "batch_size": 100, "seed": 2, "progress": False}
    flow = pg.ShowerFlow(GEOMETRY.sizes, 1e-3, order=GEOMETRY.outside_in, seed=1, **QUICK)
    further = pg.SVI(**settings).fit(pg.BayesianFlow(flow), sample.events, context=sample.context, start=posterior)
    assert torch.equal(further.model.flow.location, posterior.model.flow.location)
    other = pg.BayesianFlow(flow).prepare(sample.events.tensor() * 2, context=sample.context.tensor())
    with pytest.raises(ValueError, match="its buffer (location|scale) differs"):
        pg.SVI(**settings).fit(other, sample.events, context=sample.context, start=posterior)


@pytest.mark.filterwarnings("ignore::pyrogen.SamplingWarning")  # of chains this short
@pytest.mark.parametrize(
    ("backend", "settings"),
    [
        (pg.HMC, {"chains": 2, "warmup": 2, "draws": 2, "start_steps": 1, "max_steps": 3}),
        (pg.SGHMC, {"chains": 2, "warmup": 2, "draws": 2, "start_steps": 1, "thinning": 1}),
        (pg.Laplace, {"steps": 2, "polish": 0, "structure": "diagonal"}),
        (pg.Ensemble, {"steps": 2, "members": 2}),
    ],
)
def test_other_backends(sample, backend, settings):
    flow = pg.ShowerFlow(GEOMETRY.sizes, 1e-3, blocks=1, hidden=(4,), bins=3)
    few = sample[:200]
    found = backend(**settings, progress=False).fit(pg.BayesianFlow(flow), few.events, context=few.context)
    assert found.log_prob(few.values[:5], 2, context=few.energies[:5]).isfinite().all()


def weights_of(flow, count=3):
    generator = torch.Generator().manual_seed(3)
    found = {}
    for name, value in flow.named_parameters():
        noise = 0.1 * torch.randn(count, *value.shape, generator=generator).to(value)
        found[name] = value.detach() + noise
    return found


@pytest.mark.parametrize(("flow", "kind"), [(chain(context=1), ChainNetworks), (centred(), ShowerNetworks)])
def test_many_networks_agree_with_single_ones(flow, kind):
    weights = weights_of(flow)
    networks = together(flow, weights, weights)
    assert type(networks) is kind
    x, c = cells(20)
    z = torch.randn(20, 6).double()
    found = networks.log_prob(x, c)
    for k in range(3):
        own = {name: value[k] for name, value in weights.items()}
        assert torch.allclose(found[k], torch.func.functional_call(_Method(flow, "log_prob"), _under(own), (x, c)))
    own = _under({name: value[0] for name, value in weights.items()})
    made = torch.func.functional_call(_Method(flow, "_events"), own, (z, c))
    assert torch.allclose(networks.events(z, c)[0], made)
    flow.register_forward_hook(lambda *_: None)
    assert together(flow, weights, weights) is None  # what hooks do would be lost


class _Method(torch.nn.Module):
    def __init__(self, flow, method):
        super().__init__()
        self.flow, self.method = flow, method

    def forward(self, *arguments):
        return getattr(self.flow, self.method)(*arguments)


def _under(weights):
    return {f"flow.{name}": value for name, value in weights.items()}


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("layers", [2, "a"], "layers"),
        ("layers", [], "layers"),
        ("blocks", [2], "blocks"),
        ("layers", [2, 3, 10**9], ""),
    ],
)
def test_damaged_descriptions_are_named(posterior, entry, value, message):
    from pyrogen.posterior.description import check_description

    description = posterior.model.describe()
    check_description(description, posterior.model.weights)
    wrong = description | {"flow_config": description["flow_config"] | {entry: value}}
    with pytest.raises(ValueError, match=f"flow_config.{message}"):
        check_description(wrong, posterior.model.weights)
