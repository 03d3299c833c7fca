"""Posteriors over chains of flows: every backend, files, P(n), histograms of objects that may be missing."""

import dataclasses
import functools
import math

import numpy as np
import pytest
import torch
from baselines import kill_at_save

import pyrogen as pg
from pyrogen.bayes.side_by_side import log_prob_side_by_side, stands_side_by_side
from pyrogen.events import Multiplicity, Observable, OfObjects, WhitenPerMultiplicity
from pyrogen.flows.chain_networks import MultiplicityNetworks
from pyrogen.inference.mcmc import chains as chains_module
from pyrogen.inference.modes import descent
from pyrogen.inference.run.existence import obstacles_of_objects
from pyrogen.inference.run.potential import independent_starts
from pyrogen.inference.vi import training
from pyrogen.posterior import MeanField
from pyrogen.posterior.description import check_description

LAYOUT = Multiplicity(shared=2, each=1, most=3)
NAMES = ("a", "b", "first", "second", "third")
QUIET = {"progress": False}
CHAINS = {"chains": 2, "warmup": 2, "draws": 2, "start_steps": 3, "seed": 1} | QUIET
BACKENDS = {
    "SVI": (pg.SVI(epochs=2, batch_size=50, **QUIET), training),
    "Bootstrap": (pg.Bootstrap(replicas=3, steps=3, batch_size=50, checkpoint_seconds=1e-9, **QUIET), descent),
    "Ensemble": (pg.Ensemble(members=2, steps=3, batch_size=50, checkpoint_seconds=1e-9, **QUIET), descent),
    "HMC": (pg.HMC(max_steps=3, checkpoint_seconds=1e-9, **CHAINS), chains_module),
    "NUTS": (pg.NUTS(max_tree_depth=2, checkpoint_seconds=1e-9, **CHAINS), None),
    "SGLD": (pg.SGLD(batch_size=50, thinning=1, step_size=1e-4, checkpoint_seconds=1e-9, **CHAINS), chains_module),
    "SGHMC": (pg.SGHMC(batch_size=50, thinning=1, step_size=1e-3, checkpoint_seconds=1e-9, **CHAINS), chains_module),
    "AdamMCMC": (pg.AdamMCMC(thinning=1, checkpoint_seconds=1e-9, **CHAINS), chains_module),
    "Laplace": (pg.Laplace(steps=3, polish=1, structure="diagonal", checkpoint_seconds=1e-9, **QUIET), None),
}


def flow(seed=0, **options):
    small = {"hidden": (4,), "blocks": 1, "bins": 3, "activation": "tanh"}
    return pg.MultiplicityFlow(**LAYOUT.config(), seed=seed, **{**small, **options})


@functools.cache
def events(n=120, context=0):
    torch.manual_seed(5)
    given = torch.randn(n, context) if context else None
    with torch.no_grad():
        return 20 + 5 * flow(seed=3, context=context).sample(n, given), given


@functools.cache
def posterior(**options):
    model = pg.BayesianFlow(flow(**options)).prepare(events(200)[0].double())
    return pg.Posterior(model, MeanField(loc=model.initial_theta, scale=0 * model.initial_theta + 0.2), **QUIET)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("context", [0, 1])
def test_every_backend_fits_saves_and_resumes(name, context, tmp_path, monkeypatch):
    """With weights and conditions, or a run that is killed and goes on to the same bits."""
    backend, module = BACKENDS[name]
    x, given = events(context=context)
    model = pg.BayesianFlow(flow(context=context))
    if context:
        trained = backend.fit(model, x, weights=torch.rand(len(x)) + 0.5, context=given)
        some = {"context": given[:9]}
    else:
        trained, some = backend.fit(model, x), {}
    assert trained.log_prob(x[:9], draws=2, **some).isfinite().all()
    LAYOUT.check(trained.sample(9, draws=2, **some).numpy())
    trained.save(tmp_path / "p.h5")
    loaded = pg.load(tmp_path / "p.h5")
    assert torch.equal(loaded.log_prob(x[:9], draws=2, **some), trained.log_prob(x[:9], draws=2, **some))
    assert torch.equal(loaded.sample(9, draws=2, **some).nan_to_num(), trained.sample(9, draws=2, **some).nan_to_num())
    if context or module is None:
        return
    resumed = dataclasses.replace(backend, checkpoint=tmp_path / "run.h5")
    kill_at_save(monkeypatch, 1, module)
    with pytest.raises(KeyboardInterrupt):
        resumed.fit(model, x)
    monkeypatch.undo()
    again = resumed.fit(model, x)
    for array, values in trained.weights.arrays.items():
        assert torch.equal(again.weights.arrays[array], values)


def exact(a, b):
    """Mean and width of the log-odds of a successes and b failures, with the prior N(log(a / b), 1)."""
    odds = torch.linspace(-6, 6, 20_001, dtype=torch.float64)
    logistic = torch.nn.functional.logsigmoid
    p = torch.softmax(a * logistic(odds) + b * logistic(-odds) - 0.5 * (odds - math.log(a / b)) ** 2, 0)
    mean = (p * odds).sum()
    return float(mean), float((p * (odds - mean) ** 2).sum().sqrt())


def rows_with(counts, layout=LAYOUT):
    """Events with so many objects each, ``{n: events}``; what the columns hold does not matter to P(n)."""
    made = []
    for n, many in counts.items():
        rows = torch.full((many, layout.features), math.nan)
        rows[:, : layout.width(n)] = torch.randn(many, layout.width(n))
        made.append(rows)
    return torch.cat(made)


def only_numbers(most):
    """A model of one column for each object, with next to no networks."""
    tiny = pg.MultiplicityFlow(0, 1, most, blocks=1, hidden=(1,), bins=2)
    start = sum(pg.BayesianFlow(tiny).packing.sizes[: [*dict(tiny.named_parameters())].index("number.odds.weight")])
    return pg.BayesianFlow(tiny, preprocessing=None), Multiplicity(0, 1, most), slice(start, start + most - 1)


def test_svi_finds_the_exact_posterior_of_the_number_of_objects():
    model, layout, odds = only_numbers(3)
    x = rows_with({1: 1500, 2: 200, 3: 300}, layout)
    svi = pg.SVI(epochs=250, batch_size=2000, lr=1e-2, lr_widths=5e-2, widths_after=0.0, **QUIET)
    found = svi.fit(model, x)
    loc, scale = (found.weights.arrays[name][odds] for name in ("loc", "scale"))
    loc = loc + found.model.flow.number.centre
    for i, (a, b) in enumerate(((1500, 500), (200, 300))):
        mean, width = exact(a, b)
        assert loc[i].item() == pytest.approx(mean, abs=0.5 * width)
        assert scale[i].item() == pytest.approx(width, rel=0.15)  # what 250 steps with noise leave
    p = found.multiplicities(2000)
    assert p.shape == (2000, 3) and torch.allclose(p.sum(1), torch.ones(2000).double(), atol=1e-6)
    # Dirichlet, to which the prior of the log-odds adds next to nothing: sqrt(p (1 - p) / N).
    for i, share in enumerate((0.75, 0.1, 0.15)):
        assert p[:, i].mean().item() == pytest.approx(share, abs=0.01)
        assert p[:, i].std().item() == pytest.approx(math.sqrt(share * (1 - share) / 2000), rel=0.2)


def test_hmc_finds_the_exact_posterior_of_the_number_of_objects():
    model, layout, odds = only_numbers(2)
    x = rows_with({1: 60, 2: 40}, layout)
    hmc = pg.HMC(chains=16, warmup=25, draws=20, max_steps=5, start_steps=20, seed=2, **QUIET)
    found, (mean, width) = hmc.fit(model, x), exact(60, 40)
    draws = found.weights.arrays["draws"].double()[..., odds] + found.model.flow.number.centre
    # 320 draws; their effective number is at least a fourth of that
    assert draws.mean().item() == pytest.approx(mean, abs=4 * width / math.sqrt(80))
    assert draws.std().item() == pytest.approx(width, rel=4 / math.sqrt(2 * 80))


def test_probabilities_depend_on_conditions():
    x, given = events(context=1)
    found = pg.SVI(epochs=1, **QUIET).fit(pg.BayesianFlow(flow(context=1)), x, context=given)
    p = found.multiplicities(4, context=given[:7])
    assert p.shape == (4, 7, 3) and p.std(1).min() > 0
    assert torch.allclose(found.multiplicities(4, context=given[3])[:, 0], p[:, 3])
    with pytest.raises(ValueError, match="the flow is conditional on 1 number per event"):
        found.multiplicities()
    plain = pg.SVI(epochs=1, **QUIET).fit(pg.BayesianFlow(pg.CouplingFlow(2, 1, (2,))), torch.randn(50, 2))
    with pytest.raises(ValueError, match="CouplingFlow knows no numbers of objects"):
        plain.multiplicities()


def test_activations_are_drawn_per_event_and_their_density_is_that_of_the_means():
    model = pg.BayesianFlow(flow(context=1), preprocessing=None)
    x, given = events(context=1)
    assert model.local_obstacle() is None
    theta = model.initial_theta
    for rows in (x, x[LAYOUT.counts(x) == 1]):  # also where no event has a second object
        c = given[: len(rows)]
        found = model.local_log_prob(theta, 0 * theta + 1e-7, rows, c)
        assert torch.allclose(found, model.log_prob(theta, rows, c), rtol=1e-3, atol=1e-3)
    same = x[LAYOUT.counts(x) == 3][:1].expand(50, -1)
    assert model.local_log_prob(theta, 0 * theta + 0.05, same, given[:50]).unique().numel() > 40


@pytest.mark.parametrize("context", [0, 1])
def test_networks_stand_side_by_side_and_predict_together(context):
    x, given = events(context=context)
    model = pg.BayesianFlow(flow(context=context)).prepare(x, context=given)
    assert stands_side_by_side(model, x[:5], None if given is None else given[:5])
    assert MultiplicityNetworks.fits(model.flow, model.packing.names)
    thetas = model.initial_theta + 0.1 * torch.randn(3, model.weights)
    expected = torch.stack([model.log_prob(theta, x, given) for theta in thetas])
    assert torch.allclose(log_prob_side_by_side(model, thetas, x, given), expected, atol=1e-4)
    own = x.view(3, 40, -1), None if given is None else given.view(3, 40, -1)
    apart = torch.stack([model.log_prob(thetas[r], own[0][r], given if given is None else own[1][r]) for r in range(3)])
    assert torch.allclose(log_prob_side_by_side(model, thetas, *own), apart, atol=1e-4)
    inner, jacobian = model._inner(x)
    networks = MultiplicityNetworks(model.flow, model.packing.split(thetas))
    conditions = model._conditions(given)
    assert torch.allclose(networks.log_prob(inner, *conditions) + jacobian, expected, atol=1e-4)
    latent = networks.latent(len(x), thetas)
    made = model.packing.call(thetas[0], "_events", latent, *conditions)
    assert torch.allclose(networks.events(latent, *conditions)[0], made, atol=1e-4, equal_nan=True)


def test_a_changed_flow_is_not_evaluated_together():
    changed = flow()
    changed.parts[1].flow.blocks[0].conditioner.register_forward_hook(lambda *_: None)
    assert not MultiplicityNetworks.fits(changed)
    changed = flow()
    changed.number.register_forward_hook(lambda *_: None)
    assert not MultiplicityNetworks.fits(changed)
    assert MultiplicityNetworks.fits(flow())


def test_many_samples_train_in_one_batch():
    x = events(200)[0]
    found = pg.SVI(epochs=2, batch_size=40, **QUIET).fit_many(pg.BayesianFlow(flow()), torch.stack([x[:100], x[100:]]))
    assert len(found) == 2
    for each in found:
        assert each.log_prob(x[:5], draws=2).isfinite().all()


def test_independent_networks_start_at_the_numbers_of_the_events():
    x = rows_with({1: 90, 2: 6, 3: 4})
    model = pg.BayesianFlow(flow(), preprocessing=None).prepare(x)
    starts = independent_starts(model, 3, seed=1)
    for theta in starts:
        assert torch.allclose(model.packing.call(theta, "probabilities"), model.flow.probabilities())
    assert not torch.equal(starts[0], starts[1])


def test_whitening_per_number_of_objects_is_the_default_and_leaves_angles():
    assert posterior().model.preprocessing.kind == WhitenPerMultiplicity.kind
    model = pg.BayesianFlow(flow(periodic=(1, 3), uniform=(0,)))
    assert model.preprocessing.leave == (0, 1, 3)
    assert not posterior().model.wide  # NaN is no number that float32 cannot hold
    boxed = pg.BayesianFlow(flow(base="uniform"))
    assert boxed.preprocessing.kind == "identity"


def test_generated_samples_carry_layout_and_log_weights():
    made = posterior().generate(300, draws=5, log_weights=True)
    assert made.multiplicity == LAYOUT
    LAYOUT.check(made.values)
    assert np.exp(made.log_weights).mean(1) == pytest.approx(1.0, abs=1e-9)


def test_generated_files_carry_the_layout(tmp_path):
    posterior().generate_to(tmp_path / "e.h5", 120, draws=3, chunk=50)
    read = pg.events.read(tmp_path / "e.h5")
    assert read.multiplicity == LAYOUT and len(read) == 120


def test_histograms_of_objects_that_may_be_missing():
    observables = {
        "column": (3, [-100.0, 20.0, 150.0]),
        "observable": (Observable(lambda e: e[:, 3].double(), "x", "", np.ones(2), objects=2), [-100.0, 20.0, 150.0]),
        "exactly two": (OfObjects(lambda e: e[:, 3] - e[:, 2], LAYOUT, 2, 2), [-300.0, 300.0]),
        "number": (LAYOUT.counts, [0.5, 1.5, 2.5, 3.5]),
    }
    for procedure in ("a", "b"):
        bands = posterior().histograms(observables, n=400, draws=4, procedure=procedure)
        number = bands["number"].mean
        assert number.sum() == pytest.approx(1)
        for name in ("column", "observable"):
            assert bands[name].mean.sum() == pytest.approx(number[1] + number[2])
        assert bands["exactly two"].mean.sum() == pytest.approx(number[1])
    made = posterior().generate(400, draws=4, log_weights=True)
    again = pg.sample_histograms(made, observables)
    assert again["column"].mean == pytest.approx(bands["column"].mean)
    assert again["number"].mean == pytest.approx(number)


def test_nan_of_an_object_that_is_there_is_an_error():
    with pytest.raises(ValueError, match="the observable is NaN or infinite for .* of 50 events"):
        posterior().histogram(lambda e: e[:, 3], [0.0, 1.0], n=50, draws=2)
    with pytest.raises(ValueError, match="the observable is NaN or infinite"):
        posterior().histogram(OfObjects(lambda e: e[:, 4], LAYOUT, 2), [0.0, 1.0], n=200, draws=2)
    with pytest.raises(ValueError, match="least is 4; it must be at most 3"):
        OfObjects(lambda e: e[:, 4], LAYOUT, 4)
    with pytest.raises(ValueError, match="most is 1; it must be at least 2"):
        OfObjects(lambda e: e[:, 4], LAYOUT, 2, 1)


@pytest.mark.parametrize(
    "broken, said",
    [
        ((3, 2), "row 3, column 2: nan"),  # no object
        ((3, 0), "row 3, column 0: nan"),  # no shared column
    ],
)
def test_training_and_predictions_refuse_rows_of_another_layout(broken, said):
    x = rows_with({1: 100, 2: 50, 3: 50})
    model = pg.BayesianFlow(flow())
    gap = x.clone()
    gap[broken] = math.nan
    few = x.clone()
    few[7, 2:] = math.nan
    for rows, what in ((gap, said) if broken[1] == 0 else (few, "fewer than 1 objects; the first is row 7"), (few, "")):
        for call in (pg.SVI(epochs=1, **QUIET).fit, lambda m, rows: posterior().log_prob(rows)):
            with pytest.raises(ValueError, match=what):
                call(model, rows)


def test_samples_of_another_layout_are_refused_by_name():
    x = rows_with({1: 60, 2: 60, 3: 60})
    other = pg.EventSample(x, multiplicity=Multiplicity(2, 1, 3, least=0))
    with pytest.raises(ValueError, match=r"layout Multiplicity\(.*least=0\); the flow describes events of"):
        pg.SVI(epochs=1, **QUIET).fit(pg.BayesianFlow(flow()), other)
    sample = pg.EventSample(x, multiplicity=LAYOUT)
    with pytest.raises(ValueError, match="the flow describes rows of finite numbers: build pg.MultiplicityFlow"):
        pg.SVI(epochs=1, **QUIET).fit(pg.BayesianFlow(pg.CouplingFlow(5, 1, (2,))), sample)
    with pytest.raises(ValueError, match="events must have 5 columns; got 4"):
        posterior().log_prob(torch.zeros(3, 4))


def test_compiling_is_refused_and_says_why():
    backend, x = pg.SVI(epochs=1, compile=True, **QUIET), events()[0]
    found = backend.fit(pg.BayesianFlow(flow()), x)
    plain = pg.SVI(epochs=1, **QUIET).fit(pg.BayesianFlow(flow()), x)
    assert torch.equal(found.weights.arrays["loc"], plain.weights.arrays["loc"])
    assert "other rows in every batch" in found.info.compiled
    found.compile = True
    assert not found.compile and "not compiled: the parts of a MultiplicityFlow" in found.predictor.compiled.told


def test_names_and_samples_go_through_a_training():
    sample = pg.EventSample(events()[0], NAMES, multiplicity=LAYOUT)
    found = pg.SVI(epochs=1, **QUIET).fit(pg.BayesianFlow(flow()), sample)
    assert found.names == NAMES and found.generate(20, draws=2).names == NAMES
    band = found.histogram("second", [-100.0, 100.0], n=100, draws=2)
    assert band.label == "second" and 0 < band.mean[0] < 1


def test_columns_of_an_object_without_a_density_are_found():
    x = rows_with({1: 300, 2: 200, 3: 100}).double().numpy()
    assert obstacles_of_objects(LAYOUT, x, None, NAMES) == []
    discrete, constant, plane = x.copy(), x.copy(), x.copy()
    discrete[:, 4] = np.round(discrete[:, 4])
    constant[300:, 3] = 2.0
    plane[:, 4] = plane[:, 0] - plane[:, 2] + 0 * plane[:, 4]
    for rows, said in (
        (discrete, "column 4 (third) has "),
        (constant * np.where(np.isnan(x), np.nan, 1.0), "column 3 (second) is constant"),
        (plane, "column 4 (third) depend on each other linearly"),
    ):
        found = obstacles_of_objects(LAYOUT, rows, None, NAMES)
        assert any(said in each.found and each.serious for each in found), found
        with pytest.raises(ValueError, match="these events have no density"):
            pg.SVI(epochs=1, **QUIET).fit(pg.BayesianFlow(flow()), rows)


def test_files_that_ask_for_too_much_are_refused():
    description = posterior().model.describe()
    weights = posterior().model.weights
    check_description(description, weights)
    many = 10**6
    for name, value in (("most", many), ("each", -1), ("blocks", [many] * 3), ("hidden", [[many]] * 3), ("least", 9)):
        config = description["flow_config"] | {name: value}
        with pytest.raises(ValueError, match="flow_config"):
            check_description(description | {"flow_config": config}, weights)


def test_a_run_goes_on_from_a_posterior_of_the_same_flow():
    x, model = events()[0], pg.BayesianFlow(flow())
    first = pg.SVI(epochs=1, **QUIET).fit(model, x)
    further = pg.SVI(epochs=1, **QUIET).fit(model, x[:60], start=first)
    assert torch.equal(further.model.flow.number.centre, first.model.flow.number.centre)
    assert further.info.started_from is not None


def test_diagnostics_take_plain_rows_with_nan():
    x = events()[0]
    found = pg.SVI(epochs=1, **QUIET).fit(pg.BayesianFlow(flow()), x)
    advice = pg.diagnostics.advise(found, x, generated=200, draws=3)
    assert "overflow" not in advice.text()
    assert math.isfinite(pg.diagnostics.effective_parameters(found, x, draws=4))
    broken = x.clone()
    broken[0, 0] = math.nan
    for call in (pg.diagnostics.advise, pg.diagnostics.effective_parameters):
        with pytest.raises(ValueError, match=r"1 of 120 rows do not fit .* row 0, column 0"):
            call(found, broken)
    plain = pg.SVI(epochs=1, **QUIET).fit(pg.BayesianFlow(pg.CouplingFlow(2, 1, (2,))), torch.randn(50, 2))
    with pytest.raises(ValueError):
        pg.diagnostics.advise(plain, torch.tensor([[1.0, math.nan]] * 9))
