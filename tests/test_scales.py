"""Events and conditions of any scale: what a network sees is of order one, and nothing is rounded away before."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import pyrogen as pg
from pyrogen.bayes.scales import input_dtype
from pyrogen.events import Identity, Standardise, StandardiseContext
from pyrogen.inference.run.data import prepare
from pyrogen.inference.run.potential import Potential
from pyrogen.posterior import Point

FIT = {"epochs": 2, "batch_size": 100, "progress": False}


def flow(features=2, context=0):
    return pg.CouplingFlow(features, 2, (8,), "rqs", context=context, seed=1)


def normal(n=400, d=2, seed=0):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_the_unit_of_a_condition_does_not_matter():
    """Conditions in GeV and in units of their spread make the same posterior."""
    x, c = normal().float(), 1550 + 800 * normal(d=1, seed=1)
    model = pg.BayesianFlow(flow(context=1))
    posterior = pg.SVI(**FIT).fit(model, x, context=c)
    seen = (c - c.mean(0)) / c.std(0, correction=0)
    plain = pg.SVI(**FIT).fit(pg.BayesianFlow(flow(context=1), context_preprocessing=None), x, context=seen)
    assert posterior.model.context_preprocessing.mean.item() == pytest.approx(c.mean().item())
    assert posterior.history["nll"] == pytest.approx(plain.history["nll"], rel=1e-4)
    assert torch.allclose(posterior.log_prob(x, 3, context=c), plain.log_prob(x, 3, context=seen), atol=1e-3)
    assert torch.allclose(posterior.sample(50, 3, context=c[:50]), plain.sample(50, 3, context=seen[:50]), atol=1e-3)
    assert not model.context_preprocessing.fitted  # the caller's model stays as it is


def test_conditions_are_saved_with_the_posterior(tmp_path):
    x, c = normal(), 1.7e9 + 30 * normal(d=1, seed=1)
    posterior = pg.SVI(**FIT).fit(pg.BayesianFlow(flow(context=1)), x, context=c)
    posterior.save(tmp_path / "p.h5")
    loaded = pg.load(tmp_path / "p.h5")
    assert loaded.model.describe() == posterior.model.describe()
    assert torch.equal(loaded.log_prob(x, 3, context=c), posterior.log_prob(x, 3, context=c))
    assert torch.equal(loaded.sample(9, 3, context=c[:9]), posterior.sample(9, 3, context=c[:9]))
    # Times that float32 would round to 128 s still differ.
    assert len(posterior.log_prob(x[:1].expand(400, -1), 1, context=c).unique()) > 300


def test_a_description_without_conditions_means_that_they_are_taken_as_they_are():
    model = pg.BayesianFlow(flow(context=1)).prepare(normal(), context=100 * normal(d=1))
    told = model.describe()
    assert told.pop("context_preprocessing")["kind"] == "standardise_context"
    old = pg.BayesianFlow.from_description(told, model.initial_theta, model.flow_buffers())
    assert isinstance(old.context_preprocessing, Identity)
    assert isinstance(pg.BayesianFlow(flow(context=1), preprocessing=None).context_preprocessing, Identity)
    plain = pg.BayesianFlow(flow(context=1), context_preprocessing=None)
    assert (
        "context_preprocessing" not in plain.describe()
        and "context_preprocessing" not in plain.prepare(normal(), context=normal(d=1)).describe()
    )


def test_context_columns_that_have_no_scale():
    n = 1000
    rng = np.random.default_rng(0)
    rare = (np.arange(n) == 3).astype(float)  # a one-hot category of one event in a thousand
    c = np.column_stack([np.full(n, 13_000.0), rare, 1 - rare, rng.integers(0, 6, n), rng.normal(100, 5, n)])
    u = StandardiseContext().fit(c)(torch.from_numpy(c))[0].numpy()
    assert (u[:, 0] == 0).all() and (u[:, 1] == rare).all() and (u[:, 2] == 1 - rare).all()
    np.testing.assert_allclose(u[:, 3:].mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(u[:, 3:].std(0), 1, rtol=1e-12)
    # Weights count by their size, and events of weight zero not at all.
    weighted = StandardiseContext().fit([[0.0], [4.0], [1e9]], [3.0, -1.0, 0.0])
    assert weighted.mean.tolist() == [1.0] and weighted.std.item() == pytest.approx(math.sqrt(3.0))


def test_times_keep_their_spread():
    """Events at 1.7e9 +- 30 s, where float32 numbers lie 128 apart."""
    x = 1.7e9 + 30 * normal(1000)
    posterior = pg.SVI(**FIT).fit(pg.BayesianFlow(flow()), x)
    model = posterior.model
    assert model.input_dtype == torch.float64 and model.dtype == torch.float32
    near = pg.SVI(**FIT).fit(pg.BayesianFlow(flow()), x - 1.7e9)
    assert near.model.input_dtype == torch.float32
    # The same network: only the rounding of the events differs, 2e-7 s against 30 s.
    assert posterior.history["nll"] == pytest.approx(near.history["nll"], abs=1e-4)
    sample, expected = posterior.sample(1000, 5), near.sample(1000, 5).double()
    assert sample.dtype == torch.float64 and len(sample[:, 0].unique()) == 1000
    assert torch.allclose(sample - 1.7e9, expected, atol=1e-2)
    assert torch.allclose(posterior.log_prob(x, 3), near.log_prob(x - 1.7e9, 3), atol=1e-3)
    generated = posterior.generate(1000, 5)
    assert abs(generated.values.std(0) - 30).max() < 30 * 5 / math.sqrt(2000) + 5  # of an untrained network


def test_times_in_samplers_and_many_samples():
    x = 1.7e9 + 30 * normal(200)
    found = []
    for events in (x, x - 1.7e9):
        model, data = prepare(pg.BayesianFlow(flow()), events, None, None, None, "cpu")
        found.append(Potential(model, data).value_and_gradient(model.initial_theta[None]))
    assert data.events.dtype == torch.float32
    assert torch.allclose(found[0][0], found[1][0], rtol=1e-5) and torch.allclose(found[0][1], found[1][1], atol=1e-2)
    for posterior in pg.SVI(**FIT).fit_many(pg.BayesianFlow(flow()), [x, x + 3]):
        assert posterior.model.input_dtype == torch.float64 and 20 < float(posterior.sample(500).std()) < 60


@pytest.mark.parametrize("scale", [1e200, 1e-200, 1e-42, 1e-12, 1e30])
def test_any_unit_of_the_events(scale):
    """log p changes by the log of the unit, and nothing else does."""
    x = normal()
    model, other = (pg.BayesianFlow(flow()).prepare(events) for events in (x, x * scale))
    inputs = (x * scale).to(other.input_dtype)
    expected = model.log_prob(model.initial_theta, x.float()) - 2 * math.log(scale)
    assert torch.allclose(other.log_prob(other.initial_theta, inputs), expected, rtol=1e-4, atol=1e-4)
    torch.manual_seed(0)
    made = other.sample_events(other.initial_theta, 2000).double() / scale
    assert made.isfinite().all() and ((made.std(0) - 1).abs() < 0.5).all()


def test_a_training_at_any_unit_is_the_same():
    x = normal()
    one, other = (pg.SVI(**FIT).fit(pg.BayesianFlow(flow()), events) for events in (x, x * 1e200))
    assert other.history["nll"] == pytest.approx(one.history["nll"] + 2 * 200 * math.log(10), rel=1e-5)
    assert (other.generate(100, 5).values / 1e200).std() == pytest.approx(1, rel=0.5)


def test_what_float32_holds_stays_float32():
    x = normal()
    for events in (x, x + 100, x * torch.tensor([1e-12, 1e12]), torch.cat([x, 1e6 + x[:1]]), torch.full((9, 1), 0.1)):
        assert input_dtype(torch.float32, events.double()) == torch.float32
    for events in (x + 1e4, x * 1e-44, x * 1e39):
        assert input_dtype(torch.float32, events) == torch.float64
    assert input_dtype(torch.float32, x, None, x + 1e9) == torch.float64


def test_a_query_that_overflows_is_named():
    x = normal()
    posterior = pg.Posterior(pg.BayesianFlow(flow()).prepare(x), Point(loc=pg.BayesianFlow(flow()).initial_theta))
    with pytest.raises(ValueError, match="events in torch.float32: 1 of 400 rows hold NaN or infinity"):
        posterior.log_prob(torch.cat([x[1:], torch.tensor([[1e200, 0.0]], dtype=torch.float64)]), 1)


@pytest.mark.parametrize("unit", [1e-300, 1e-30, 1e30, 1e305])
def test_any_unit_of_the_weights(unit):
    x, w = normal(), 0.1 + torch.rand(400, dtype=torch.float64)
    one, other = (pg.SVI(**FIT).fit(pg.BayesianFlow(flow()), x, weights=v) for v in (w, w * unit))
    assert one.history["nll"] == pytest.approx(other.history["nll"], rel=1e-6)


def test_moments_of_huge_and_tiny_numbers():
    x = np.array([[1.0, 2.0], [3.0, 7.0]])
    for unit in (1e-300, 1e-200, 1.0, 1e200, 1e307):
        fitted = Standardise().fit(x * unit)
        np.testing.assert_allclose(fitted.mean.numpy() / unit, [2.0, 4.5], rtol=1e-15)
        np.testing.assert_allclose(fitted.std.numpy() / unit, [1.0, 2.5], rtol=1e-15)


def test_errors():
    with pytest.raises(TypeError, match='context_preprocessing is <object .*>; give "auto", None or a bijection'):
        pg.BayesianFlow(flow(), context_preprocessing=object())
    with pytest.raises(TypeError, match="preprocessing is <class .*Standardise'>; give"):
        pg.BayesianFlow(flow(), preprocessing=Standardise)
    with pytest.raises(ValueError, match="unknown context_preprocessing 'whiten'"):
        pg.BayesianFlow(flow(), context_preprocessing="whiten")
    with pytest.raises(ValueError, match="UnitBox needs finite low and high"):
        pg.events.UnitBox(-1.7e308, 1.7e308)
