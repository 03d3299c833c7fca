"""Runs that go on from a posterior: for longer, with more events, and only with the same model."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from known import Location
from torch import nn

import pyrogen as pg

EVENTS = torch.randn(400, 2, generator=torch.Generator().manual_seed(1)) * 3 + 5
FAST = {"batch_size": 100, "lr": 0.02, "lr_widths": 0.1, "widths_after": 0.0, "progress": False}


def flow(**changes):
    return pg.CouplingFlow(2, **{"blocks": 1, "hidden": (4,)} | changes)


def gaussian():
    """A posterior that is known: N events of width 1 around a location with a prior of width 1."""
    return pg.BayesianFlow(Location(), preprocessing=None)


def exact(events):
    n = len(events)
    return events.double().sum(0) / (n + 1), (n + 1) ** -0.5


NEAR = torch.randn(300, 2, generator=torch.Generator().manual_seed(2)) + 0.7


def test_svi_goes_on_to_the_same_optimum_for_longer_and_with_more_events():
    long = {"epochs": 60, "batch_size": 50, "lr": 0.05, "lr_widths": 0.2, "widths_after": 0.0, "progress": False}
    first = pg.SVI(**long | {"epochs": 3, "schedule": "constant"}).fit(gaussian(), NEAR[:100])
    for events in (NEAR[:100], NEAR):
        svi = pg.SVI(**long)
        again = svi.fit(gaussian(), events, start=first)
        mean, width = exact(events)
        assert (again.weights.arrays["loc"] - mean).abs().max() < 0.15 * width
        assert (again.weights.arrays["scale"] / width - 1).abs().max() < 0.15
        assert again.info.epochs_done == 60 and again.info.training_events == len(events)


def test_svi_begins_where_the_other_run_ended():
    first = pg.SVI(epochs=40, **FAST).fit(pg.BayesianFlow(flow()), EVENTS)
    still = pg.SVI(epochs=1, **FAST | {"lr": 1e-12, "lr_widths": 1e-12})
    same = still.fit(pg.BayesianFlow(flow()), EVENTS, start=first)
    for name in ("loc", "scale"):
        assert torch.allclose(same.weights.arrays[name], first.weights.arrays[name], rtol=1e-5)
    # From the flow's own weights it would begin far above.
    afresh = still.fit(pg.BayesianFlow(flow()), EVENTS)
    assert same.history["loss"][0] < afresh.history["loss"][0] - 0.05


def test_preprocessing_is_kept_and_the_start_is_told(tmp_path):
    first = pg.SVI(epochs=2, **FAST).fit(pg.BayesianFlow(flow()), EVENTS)
    others = EVENTS * 2 + 1
    second = pg.SVI(epochs=2, seed=3, **FAST).fit(pg.BayesianFlow(flow()), others, start=first)
    assert second.model.preprocessing.config() == first.model.preprocessing.config()
    told = second.info.started_from
    assert told["backend"] == "SVI" and told["data_sha256"] == first.info.data_sha256 and told["epochs_done"] == 2
    assert len(second.history["loss"]) == 2  # of the last run alone
    third = pg.HMC(chains=2, warmup=2, draws=2, max_steps=2, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pg.SamplingWarning)
        third = third.fit(second.model, others, start=second)
    third.save(tmp_path / "third.h5")
    loaded = pg.load(tmp_path / "third.h5").info
    assert loaded.started_from["backend"] == "SVI" and loaded.started_from["started_from"]["seed"] == 0
    assert first.info.started_from is None and "started_from" not in first.info.to_json()


def test_names_and_units_stay_and_others_are_refused():
    sample = pg.EventSample(EVENTS.numpy(), ["pt", "eta"], ["GeV", ""])
    first = pg.SVI(epochs=1, **FAST).fit(pg.BayesianFlow(flow()), sample)
    again = pg.SVI(epochs=1, **FAST).fit(first.model, EVENTS, start=first)
    assert again.names == ("pt", "eta") and again.units == ("GeV", "")
    bare = pg.SVI(epochs=1, **FAST).fit(first.model, pg.EventSample(EVENTS.numpy(), ["pt", "eta"]), start=first)
    assert bare.units == ("GeV", "")
    other = pg.EventSample(EVENTS.numpy(), ["pt", "phi"], ["GeV", ""])
    with pytest.raises(ValueError, match=r"columns of events are \('pt', 'phi'\), .* trained on \('pt', 'eta'\)"):
        pg.SVI(epochs=1, **FAST).fit(first.model, other, start=first)
    with pytest.raises(ValueError, match="column pt is in MeV, but the posterior was trained in GeV"):
        pg.SVI(epochs=1, **FAST).fit(first.model, replace(sample, units=["MeV", ""]), start=first)


def test_columns_of_events_and_conditions_are_chosen_by_name():
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"pt": rng.exponential(30, 200), "eta": rng.normal(size=200), "weight": rng.uniform(size=200)})
    context = pd.DataFrame({"run": rng.uniform(100, 3000, 200), "vertices": rng.normal(size=200)})
    model = pg.BayesianFlow(flow(context=2))
    first = pg.SVI(epochs=1, **FAST).fit(model, frame, context=context)
    again = [
        pg.SVI(epochs=1, **FAST).fit(model, events, context=conditions, start=first)
        for events, conditions in [
            (frame, context),
            (frame[["weight", "eta", "pt"]], context[["vertices", "run"]]),
            (frame, context.to_numpy()),
        ]
    ]
    for one in again:
        assert one.info.data_sha256 == first.info.data_sha256  # the same numbers in the same columns
        assert torch.equal(one.weights.arrays["loc"], again[0].weights.arrays["loc"])
        assert one.names == ("pt", "eta") and one.info.context_names == ("run", "vertices")
    with pytest.raises(ValueError, match=r"columns of context are \('run', 'lumi'\), .* trained on \('run', 'vert"):
        pg.SVI(epochs=1, **FAST).fit(model, frame, context=context.set_axis(["run", "lumi"], axis=1), start=first)


class Scaled(Location):
    """A flow with state that no state_dict has."""

    def __init__(self, width=1.0):
        super().__init__()
        self.width = width

    def log_prob(self, x):
        return super().log_prob(x / self.width)


class Buffered(Location):
    def __init__(self, shift=0.0):
        super().__init__()
        self.register_buffer("shift", torch.tensor(shift))


@pytest.mark.parametrize(
    ("trained", "other", "settings", "message"),
    [
        (
            flow(),
            flow(blocks=2),
            {},
            "another model: flow_config.blocks is 1 there, and 2 here; train with the model of",
        ),
        (flow(), Location(), {}, "another model: flow is CouplingFlow there, and Location here"),
        (flow(), flow(), {"dtype": torch.float64}, "dtype is torch.float32 there, and torch.float64 here; give the"),
        (Scaled(), Scaled(1.1), {}, "another flow: with the same weights log p is .* A plain attribute differs"),
        (Buffered(), Buffered(1.0), {}, "another flow: its buffer shift differs"),
    ],
)
def test_another_flow_is_refused_by_name(trained, other, settings, message):
    first = pg.SVI(epochs=1, **FAST).fit(pg.BayesianFlow(trained), EVENTS)
    for backend in (pg.SVI, pg.HMC, pg.Laplace):
        with pytest.raises(ValueError, match=message):
            backend(**settings).fit(pg.BayesianFlow(other), EVENTS, start=first)


def test_what_a_backend_cannot_go_on_from_is_refused_by_name():
    model = pg.BayesianFlow(flow())
    first = pg.SVI(epochs=1, **FAST).fit(model, EVENTS)
    ensemble = pg.Ensemble(members=2, steps=2, progress=False).fit(model, EVENTS)
    other = pg.BayesianFlow(flow(), prior_scale=0.5)
    with pytest.raises(ValueError, match="prior_scale is 1.0 there, and 0.5 here"):
        pg.SVI(epochs=1).fit(other, EVENTS, start=first)
    shifted = pg.BayesianFlow(flow(), preprocessing=pg.events.Standardise().fit(EVENTS + 1))
    with pytest.raises(ValueError, match="a model with another preprocessing"):
        pg.SVI(epochs=1).fit(shifted, EVENTS, start=first)
    for backend, start, message in [
        (pg.SVI(epochs=1), ensemble, "SVI goes on with the guide pg.AutoNormal from a mean-field posterior"),
        (pg.Laplace(steps=2), ensemble, "Laplace goes on from the centre of a posterior, and start holds draws"),
        (pg.Ensemble(members=3), ensemble, "members is 3, and start holds 2 networks"),
        (pg.Ensemble(members=3), first, "members is 3, and start holds mean_field"),
        (pg.HMC(chains=4), ensemble, "chains is 4, but start holds 2 draws"),
        (pg.HMC(start="prior"), first, "start was given to the sampler and to fit"),
        (pg.SVI(epochs=1), "first.h5", "start is 'first.h5'; it must be a trained pyrogen.Posterior"),
    ]:
        with pytest.raises(ValueError, match=message):
            backend.fit(model, EVENTS, start=start)

    class Own(pg.inference.Backend):
        def _fit(self, model, data):
            raise AssertionError

    with pytest.raises(ValueError, match="Own cannot go on from a posterior; leave start out"):
        Own().fit(model, EVENTS, start=first)


def test_ensembles_and_laplace_go_on_from_their_networks():
    short = pg.Ensemble(members=3, steps=60, batch_size=100, progress=False).fit(gaussian(), NEAR)
    still = pg.Ensemble(members=3, steps=1, lr=1e-12, progress=False).fit(gaussian(), NEAR, start=short)
    assert torch.allclose(still.weights.arrays["draws"], short.weights.arrays["draws"], atol=1e-6)
    wide = pg.Laplace(steps=1, lr=1e-12, polish=0, progress=False)
    with pytest.warns(pg.SamplingWarning, match="not at the maximum"):
        wide.fit(gaussian(), NEAR)
    mean, width = exact(NEAR)
    top = pg.posterior.MeanField(loc=mean.float(), scale=torch.full((2,), width))
    svi = pg.Posterior(gaussian().prepare(NEAR), top)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is at the maximum, without a step
        found = wide.fit(gaussian(), NEAR, start=svi)
    assert torch.equal(found.weights.arrays["loc"], svi.weights.arrays["loc"])


def test_chains_that_go_on_stay_in_the_posterior_without_a_warmup():
    """400 chains from draws of the exact posterior; after a few steps their mean and spread are still its own."""
    chains = 400
    mean, width = exact(NEAR)
    draws = mean.float() + width * torch.randn(1, chains, 2, generator=torch.Generator().manual_seed(3))
    start = pg.Posterior(gaussian().prepare(NEAR), pg.posterior.StoredDraws(draws))
    sampler = pg.HMC(chains=chains, warmup=0, draws=2, max_steps=3, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pg.SamplingWarning)
        found = sampler.fit(gaussian(), NEAR, start=start).weights.arrays["draws"][:, -1].double()
        far = replace(sampler, start="prior").fit(gaussian(), NEAR).weights.arrays["draws"][:, -1].double()
    error = width / np.sqrt(chains)
    assert ((found.mean(0) - mean).abs() < 4 * error).all()
    assert ((found.std(0) / width - 1).abs() < 4 / np.sqrt(2 * chains)).all()
    assert ((far.mean(0) - mean).abs() > 10 * error).any()  # without the start so few steps do not suffice


def test_chains_that_go_on_have_random_numbers_of_their_own():
    """With those of the run before, chains come back to its draws."""
    sampler = pg.HMC(chains=3, warmup=5, draws=5, max_steps=3, start_steps=20, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pg.SamplingWarning)
        first = sampler.fit(gaussian(), NEAR)
        second = sampler.fit(gaussian(), NEAR, start=first)
        third = sampler.fit(gaussian(), NEAR, start=second)
    assert len({first.info.settings["seed"], second.info.settings["seed"], third.info.settings["seed"]}) == 3


def test_a_run_that_goes_on_resumes_from_its_checkpoint_and_knows_its_start(tmp_path):
    model = pg.BayesianFlow(flow())
    first = pg.SVI(epochs=1, **FAST).fit(model, EVENTS)
    other = pg.SVI(epochs=2, **FAST).fit(model, EVENTS)
    sampler = {"chains": 2, "warmup": 2, "draws": 2, "max_steps": 2, "progress": False}
    for backend in (pg.SVI(epochs=2, **FAST), pg.HMC(**sampler), pg.Laplace(steps=4, polish=0, progress=False)):
        backend = replace(backend, checkpoint=tmp_path / f"{type(backend).__name__}.h5")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pg.SamplingWarning)
            one, again = (backend.fit(model, EVENTS, start=first) for _ in range(2))
            for name, array in one.weights.arrays.items():
                assert torch.equal(array, again.weights.arrays[name])
            for start in (other, None):
                with pytest.raises(pg.CheckpointMismatchError):
                    backend.fit(model, EVENTS, start=start)


def test_a_plain_module_goes_on_too():
    """The user's module is another object, with weights of its own; the posterior's count."""

    class Net(nn.Module):
        features = 2

        def __init__(self):
            super().__init__()
            self.net = nn.Linear(2, 2)

        def log_prob(self, x):
            return -0.5 * (x - self.net(torch.zeros_like(x))).square().sum(-1)

        def sample(self, n):
            return torch.randn(n, 2)

    first = pg.SVI(epochs=2, **FAST).fit(pg.BayesianFlow(Net()), EVENTS)
    again = pg.SVI(epochs=1, **FAST | {"lr": 1e-12, "lr_widths": 1e-12}).fit(
        pg.BayesianFlow(Net()), EVENTS, start=first
    )
    assert torch.allclose(again.weights.arrays["loc"], first.weights.arrays["loc"], atol=1e-6)
