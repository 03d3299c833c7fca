"""Threads that share a posterior, a model, or torch's random state: what each of them finds is what it finds alone."""

import sys
import threading
import warnings

import pytest
import torch

import pyrogen as pg
from pyrogen import seeds

EVENTS = torch.randn(400, 2, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def _many_switches():
    """Threads take turns every few microseconds, so that they meet each other in the middle of everything."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def together(*works):
    """Run functions in a thread each, all beginning at once; returns their results, or raises what one raised."""
    begin, results = threading.Barrier(len(works)), [None] * len(works)

    def run(i, work):
        begin.wait()
        try:
            results[i] = work()
        except BaseException as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=each) for each in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


@pytest.fixture(scope="module")
def posterior():
    model = pg.BayesianFlow(pg.CouplingFlow(2, blocks=3, hidden=(8,)))
    return pg.SVI(epochs=2, lr_widths=0.3, widths_after=0.0, progress=False).fit(model, EVENTS)


def test_one_posterior_gives_the_same_densities_in_threads(posterior):
    own = {name: value.clone() for name, value in posterior.model.flow.named_parameters()}
    expected = [posterior.log_prob(EVENTS, 20, seed=seed) for seed in range(4)]
    assert not torch.allclose(expected[0], expected[1], atol=0.01)
    found = together(*[lambda seed=seed: posterior.log_prob(EVENTS, 20, seed=seed) for seed in range(4)])
    assert all(map(torch.equal, expected, found))
    # The weights of the shared module are its own again.
    assert all(torch.equal(own[name], value) for name, value in posterior.model.flow.named_parameters())
    assert all(isinstance(value, torch.nn.Parameter) for value in posterior.model.flow.parameters())


def test_one_posterior_gives_the_same_events_in_threads(posterior):
    before = torch.random.get_rng_state()
    expected = [posterior.sample(300, 10, seed=seed) for seed in range(4)]
    found = together(*[lambda seed=seed: posterior.sample(300, 10, seed=seed) for seed in range(4)])
    assert all(map(torch.equal, expected, found))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_two_fits_in_threads_are_those_of_one_thread():
    """Random state, parameter store and handlers of Pyro are the same for all threads."""
    model = pg.BayesianFlow(pg.CouplingFlow(2, blocks=1, hidden=(4,)))
    backends = [
        pg.SVI(epochs=3, batch_size=50, progress=False, seed=1),
        pg.SVI(epochs=3, batch_size=50, progress=False, seed=2),
        pg.NUTS(chains=1, warmup=3, draws=3, max_tree_depth=2, start_steps=3, progress=False),
        pg.HMC(chains=2, warmup=3, draws=3, max_steps=3, start_steps=3, progress=False),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pg.SamplingWarning)
        expected = [backend.fit(model, EVENTS) for backend in backends]
        found = together(*[lambda backend=backend: backend.fit(model, EVENTS) for backend in backends])
    for one, other in zip(expected, found, strict=True):
        for name, array in one.weights.arrays.items():
            assert torch.equal(array, other.weights.arrays[name]), (one, name)


def test_predictions_do_not_wait_for_a_fit_and_samples_say_that_they_do(posterior, monkeypatch):
    monkeypatch.setattr(seeds, "PATIENCE", 0.01)
    holding, done = threading.Event(), threading.Event()

    def fit():
        with seeds.untouched():
            holding.set()
            assert done.wait(60)

    thread = threading.Thread(target=fit)
    thread.start()
    try:
        assert holding.wait(60)
        posterior.density(EVENTS)
        threading.Timer(0.2, done.set).start()
        with pytest.warns(UserWarning, match="this thread waits for another thread"):
            posterior.sample(10)
    finally:
        done.set()
        thread.join()


def test_a_shared_model_is_prepared_with_its_own_weights(posterior):
    """One thread predicts with the model from which another one starts a fit."""
    svi = pg.SVI(epochs=1, progress=False)
    expected = svi.fit(posterior.model, EVENTS).weights.arrays["loc"]
    found = together(
        lambda: posterior.log_prob(EVENTS, 40), lambda: svi.fit(posterior.model, EVENTS).weights.arrays["loc"]
    )
    assert torch.equal(found[1], expected)
