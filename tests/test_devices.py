"""Every backend and prediction on a card: a pretended one, on which all that goes together has to be."""

import contextlib
import itertools
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from devices import on_card, pretend_card
from on_devices import EVENTS, FEW, model, same, same_bits, same_numbers, same_weights, settings

import pyrogen as pg
from pyrogen import diagnostics as dg
from pyrogen import seeds
from pyrogen.posterior import StoredDraws, weights
from pyrogen.posterior.weights import FAMILIES, make_weights

BOTH = [("cpu", "cuda"), ("cuda", "cpu")]
EDGES = np.linspace(-0.2, 1.2, 4)
pytestmark = pytest.mark.filterwarnings("ignore::pyrogen.SamplingWarning")


@pytest.fixture(scope="module", params=FEW, ids=lambda backend: backend.__name__)
def fitted(request):
    """A backend, and what it made of the same events on the CPU and on the card."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        here = settings(request.param).fit(model(), EVENTS)
        with pretend_card():
            there = settings(request.param, device="cuda").fit(model(), EVENTS)
    return request.param, here, there


def test_a_fit_gives_what_one_on_the_cpu_gives(fitted):
    backend, here, there = fitted
    with pretend_card():
        assert same_weights(here, there)
        assert all(on_card(array) for array in there.weights.arrays.values())
        for name in here.history.keys() - {"seconds"}:
            assert same_numbers(here.history[name], there.history[name]), name
        assert (here.info.device, there.info.device) == ("cpu", "cuda:0 (Pretend card)")
        assert (str(here.device), str(there.device)) == ("cpu", "cuda:0")
        assert ", on cpu, " in repr(here) and ", on cuda:0, " in repr(there)


def predictions(posterior, folder):
    """All of them, by name."""
    few = {"draws": 2, "seed": 5}
    found = {
        "log_prob": posterior.log_prob(EVENTS[:9], **few),
        "density": posterior.density(EVENTS[:9], **few).std,
        "sample": posterior.sample(9, **few),
        "replicates": torch.cat([events for _, events in posterior.replicates(5, **few)]),
    }
    generated = posterior.generate(9, log_weights=True, **few)
    bands = [posterior.histogram(0, EDGES, n=9, procedure=procedure, **few) for procedure in "ab"]
    path = folder / f"{posterior.device.type}.h5"
    posterior.generate_to(path, 9, log_weights=True, chunk=5, **few)
    arrays = [generated.values, generated.log_weights, bands[0].draws, bands[1].draws, pg.events.read(path).values]
    return found, arrays


def test_predictions_are_those_on_the_cpu(fitted, tmp_path):
    _, here, there = fitted
    expected, expected_arrays = predictions(here, tmp_path)
    with pretend_card():
        found, arrays = predictions(there, tmp_path)
        for name, tensor in found.items():
            assert on_card(tensor) and same(tensor, expected[name]), name
        assert all(itertools.starmap(same_numbers, zip(arrays, expected_arrays, strict=True)))
        assert same(there.log_prob(EVENTS[:9].to("cuda"), 2, seed=5), expected["log_prob"])


def test_a_file_of_the_card_opens_on_a_laptop(fitted, tmp_path):
    _, here, there = fitted
    with pretend_card():
        there.save(tmp_path / "p.h5")
        loaded = pg.load(tmp_path / "p.h5", device="cuda")
        assert loaded.device == there.device and same(loaded.log_prob(EVENTS, 2), there.log_prob(EVENTS, 2))
    laptop = pg.load(tmp_path / "p.h5")
    assert str(laptop.device) == "cpu" and laptop.info.device == "cuda:0 (Pretend card)"
    assert same(laptop.log_prob(EVENTS), here.log_prob(EVENTS)) and same_weights(laptop, here)
    laptop.save(tmp_path / "q.h5")
    assert pg.load(tmp_path / "q.h5").info == laptop.info


def test_to_another_device_and_back(fitted):
    _, here, there = fitted
    with pretend_card():
        assert there.to("cuda") is there.to(torch.device("cuda:0")) is there and here.to("cpu") is here
        for posterior, device in ((here, "cuda"), (there, "cpu")):
            moved, before = posterior.to(device), posterior.device
            assert posterior.device == before != moved.device
            assert moved.info is posterior.info and moved.names == posterior.names
            assert same(moved.log_prob(EVENTS, 2), posterior.log_prob(EVENTS, 2))
            assert same(moved.sample(5, 2), posterior.sample(5, 2))  # a real card has random numbers of its own
            assert same(moved.to(before).log_prob(EVENTS, 2), posterior.log_prob(EVENTS, 2))


class KilledError(Exception):
    pass


@contextlib.contextmanager
def killed_at_its_first_checkpoint(monkeypatch):
    """A block in which a run ends as soon as it has written a checkpoint."""
    from pyrogen.inference.mcmc import chains
    from pyrogen.inference.modes import descent
    from pyrogen.inference.vi import training

    def save(*args):
        saved(*args)
        raise KilledError

    saved = chains.save_checkpoint
    with monkeypatch.context() as patch:
        for module in (chains, descent, training):
            patch.setattr(module, "save_checkpoint", save)
        with pytest.raises(KilledError):
            yield


def test_a_killed_run_goes_on_to_the_same_bits(fitted, tmp_path, monkeypatch):
    backend, _, there = fitted
    with pretend_card():
        run = settings(backend, device="cuda", checkpoint=tmp_path / "run.h5")
        with killed_at_its_first_checkpoint(monkeypatch):
            run.fit(model(), EVENTS)
        assert same_bits(run.fit(model(), EVENTS), there)


@pytest.mark.parametrize("backend", [pg.SVI, pg.HMC, pg.SGHMC, pg.Laplace], ids=lambda backend: backend.__name__)
def test_inputs_may_be_on_either_device(backend):
    """Events, their weights and conditions, for a fit and for predictions."""
    torch.manual_seed(0)
    weights, context = torch.rand(50) + 0.5, torch.randn(50, 1)
    expected = settings(backend).fit(model(1), EVENTS, weights, context).log_prob(EVENTS, 2, context=context)
    with pretend_card():
        for device, of_data in [("cpu", "cuda"), ("cuda", "cuda")]:
            given = [values.to(of_data) for values in (EVENTS, weights, context)]
            posterior = settings(backend, device=device).fit(model(1), *given)
            found = posterior.log_prob(given[0], 2, context=given[2])
            assert found.device == posterior.device and same(found, expected)


@pytest.mark.parametrize("backend", [pg.SVI, pg.SGHMC, pg.Ensemble], ids=lambda backend: backend.__name__)
def test_many_samples(backend):
    """In one batch, and (the ensemble) one after another."""
    samples = [EVENTS[:30], EVENTS[20:]]
    here = settings(backend).fit_many(model(), samples)
    with pretend_card():
        for given in (samples, torch.stack(samples).to("cuda")):
            there = settings(backend, device="cuda").fit_many(model(), given)
            assert all(itertools.starmap(same_weights, zip(here, there, strict=True)))
            assert there[0].info.batched is (backend is not pg.Ensemble)


@pytest.mark.parametrize("backend", [pg.SVI, pg.SGHMC, pg.Ensemble, pg.Laplace], ids=lambda backend: backend.__name__)
def test_a_run_goes_on_from_a_posterior_on_either_device(backend):
    of_sampler = {"start": "map"} if backend is pg.SGHMC else {}
    first = settings(backend).fit(model(), EVENTS)
    expected = settings(backend, **of_sampler).fit(model(), EVENTS, start=first)
    with pretend_card():
        for device, of_start in BOTH:
            run = settings(backend, device=device, **of_sampler)
            assert same_weights(run.fit(model(), EVENTS, start=first.to(of_start)), expected)


def test_a_sampler_starts_at_a_trained_guide_on_either_device():
    guide = settings(pg.SVI).fit(model(), EVENTS)
    with pretend_card():
        runs = [settings(pg.SGLD, device=device, start=guide.to(other), whiten=True) for device, other in BOTH]
        assert same_weights(*(run.fit(model(), EVENTS) for run in runs))


def test_activations_drawn_per_event():
    with pretend_card():
        run = settings(pg.SVI, device="cuda", local_reparameterization=True, widths_after=0.0)
        for posterior in (run.fit(model(), EVENTS), run.fit_many(model(), [EVENTS, EVENTS])[1]):
            assert posterior.info.local_reparameterization and np.isfinite(posterior.history["validation_nll"]).all()
            assert on_card(posterior.weights.arrays["scale"])


def test_a_model_that_is_moved_draws_activations_there():
    flow = model()
    assert flow.local_obstacle() is None
    with pretend_card():
        theta = flow.to("cuda").initial_theta
        assert on_card(flow.local_log_prob(theta, theta.abs(), EVENTS.to("cuda")))


@pytest.mark.parametrize("structure", ["low_rank", "diagonal"])
@pytest.mark.parametrize("curvature", ["hessian", "fisher"])
def test_curvature(structure, curvature):
    laplace = settings(pg.Laplace, structure=structure, curvature=curvature, rank=3)
    here = laplace.fit(model(), EVENTS)
    with pretend_card():
        assert same_weights(here, replace(laplace, device="cuda").fit(model(), EVENTS))


def test_other_guides_leave_the_random_state_of_the_card_alone():
    import pyro

    guide = pyro.infer.autoguide.AutoIAFNormal
    with pretend_card(own_random_state=True):
        torch.cuda.manual_seed_all(7)
        before = torch.cuda.get_rng_state()
        posterior = settings(pg.SVI, device="cuda", guide=guide, epochs=1).fit(model(), EVENTS)
        assert posterior.weights.family == "draws" and torch.equal(torch.cuda.get_rng_state(), before)


def calls(device):
    """One call each of what draws random numbers."""
    posterior = settings(pg.SVI, device=device).fit(model(), EVENTS)
    yield "SVI", posterior
    yield "SVI on many", settings(pg.SVI, device=device).fit_many(model(), [EVENTS, EVENTS])
    for backend in (pg.NUTS, pg.Ensemble):
        yield backend.__name__, settings(backend, device=device).fit(model(), EVENTS)
    yield "sample", posterior.sample(5, 2)
    yield "replicates", next(posterior.replicates(5, 2))
    yield "log_prob", posterior.log_prob(EVENTS, 2)
    yield "probe points", dg.probe_points(EVENTS, 5)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_random_states_of_all_devices_are_left_alone(device):
    with pretend_card(own_random_state=True):
        torch.manual_seed(3)
        before = torch.get_rng_state(), torch.cuda.get_rng_state()
        for name, _ in calls(device):
            assert torch.equal(torch.get_rng_state(), before[0]), name
            assert torch.equal(torch.cuda.get_rng_state(), before[1]), name


def test_a_seed_reaches_the_card():
    """Its own random numbers are those of the seed too, whatever the card drew before."""
    with pretend_card(own_random_state=True):
        found = []
        for _ in range(2):
            torch.randn(3, device="cuda")
            posterior = settings(pg.SVI, device="cuda").fit(model(), EVENTS)
            found.append((posterior, posterior.sample(9)))
        assert same_bits(found[0][0], found[1][0]) and torch.equal(found[0][1].cpu(), found[1][1].cpu())


def test_a_seed_without_a_card_is_no_order_for_later(monkeypatch):
    """torch.manual_seed notes that cards are to be seeded once they are used: that would be their random state then."""
    expected = torch.Generator().manual_seed(5).get_state()
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("the cards were seeded"))
    with seeds.seeded(5):
        assert torch.equal(torch.get_rng_state(), expected)
    settings(pg.SVI).fit(model(), EVENTS)


FAMILY_ARRAYS = {
    "mean_field": {"loc": [3], "scale": [3]},
    "low_rank": {"loc": [3], "cov_factor": [3, 2], "cov_diag": [3]},
    "low_rank_precision": {"loc": [3], "scale": [3], "vectors": [3, 2], "shrink": [2]},
    "multivariate": {"loc": [3], "scale_tril": [3, 3]},
    "point": {"loc": [3]},
    "partly_random": {"loc": [3], "scale": [3]},
    "draws": {"draws": [2, 2, 3]},
}


@pytest.mark.parametrize("family", FAMILY_ARRAYS)
def test_a_seed_means_the_same_networks_on_every_device(family):
    """Also where the random numbers of the card are its own."""
    assert {name for name, cls in FAMILIES.items() if cls.__module__.startswith("pyrogen")} == set(FAMILY_ARRAYS)
    arrays = {name: torch.rand(shape) for name, shape in FAMILY_ARRAYS[family].items()}
    here = make_weights(
        family, {name: array.tril() if name == "scale_tril" else array for name, array in arrays.items()}
    )
    expected = torch.stack(list(here.draws(3, 4)))
    with pretend_card(own_random_state=True):
        there = here.to("cuda")
        assert there.device == torch.device("cuda:0") and type(there) is type(here) and here.device.type == "cpu"
        draws = list(there.draws(3, 4))
        assert all(map(on_card, draws)) and same(torch.stack(draws), expected)
        assert there.to("cuda") is there and same(next(there.to("cpu").draws(1, 4)), expected[0])
        if here.has_density:
            assert there.log_prob(draws[0]) == here.log_prob(expected[0])


def test_many_stored_draws_stay_where_they_are(monkeypatch):
    """And single ones are moved as they are asked for."""
    monkeypatch.setattr(weights, "MOVED_TOGETHER", 4 * 6 * 4 - 1)
    stored = StoredDraws(torch.rand(2, 3, 4))
    with pretend_card() as card:
        there = stored.to("cuda")
        assert there.arrays["draws"] is stored.arrays["draws"] and card.to_card == []
        assert on_card(there[5]) and same(there[5], stored[5]) and all(map(on_card, there.draws(6, 0)))
        assert there.device.type == "cuda" and set(card.to_card) == {4}
        back = there.to("cpu")
        assert back.device.type == "cpu" and not on_card(back[0])


def copies(posterior, n):
    """Copies to the card and to the CPU in the evaluation of n events."""
    with pretend_card() as card:
        posterior.log_prob(EVENTS[:1].expand(n, -1), 4)
        return len(card.to_card), len(card.to_cpu)


def test_stored_draws_are_on_the_card_before_a_prediction():
    """Its events go there, and nothing else: no draws, and nothing more for more chunks."""
    with pretend_card():
        posterior = settings(pg.SGHMC, device="cuda").fit(model(), EVENTS)
    assert copies(posterior, 5) == copies(posterior, 10_000) == (1, 0)


def test_what_a_prediction_of_a_distribution_copies():
    """Its events, and the noise of every draw."""
    with pretend_card():
        posterior = settings(pg.SVI, device="cuda").fit(model(), EVENTS)
    assert copies(posterior, 5) == (5, 0)


def copies_of_a_fit(backend, **changes):
    with pretend_card() as card:
        settings(backend, device="cuda", **changes).fit(model(), EVENTS)
        return np.array([len(card.to_card), len(card.to_cpu)])


@pytest.mark.parametrize(
    ("backend", "few", "more", "at_most"),
    [
        # An epoch of two steps: its order and rates go to the card, each step tells its loss and whether it is finite.
        (pg.SVI, {"epochs": 3, "validation": 0.0, "patience": None}, {"epochs": 4}, (2, 4)),
        # A transition keeps its draw.
        (pg.HMC, {"draws": 4}, {"draws": 5}, (0, 1)),
        (pg.SGHMC, {"draws": 4}, {"draws": 5}, (0, 1)),
        (pg.Ensemble, {"steps": 4}, {"steps": 5}, (1, 0)),  # its rate
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_no_hidden_copies_in_a_training(backend, few, more, at_most):
    """What one more epoch, transition or step copies."""
    extra = copies_of_a_fit(backend, **few | more) - copies_of_a_fit(backend, **few)
    assert (extra <= at_most).all(), extra


def test_no_hidden_copies_in_a_training_on_many_samples():
    def fit(epochs):
        with pretend_card() as card:
            run = settings(pg.SVI, device="cuda", epochs=epochs, validation=0.0, patience=None)
            run.fit_many(model(), [EVENTS, EVENTS])
            return np.array([len(card.to_card), len(card.to_cpu)])

    assert (fit(4) - fit(3) <= (2, 4)).all()
