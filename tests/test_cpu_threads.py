"""How many CPU threads torch computes on: one in fits and predictions, unless the user chose another number."""

import importlib.util
import threading

import pytest
import torch
from torch import nn

import pyrogen as pg
from pyrogen import threads

EVENTS = torch.randn(40, 1, generator=torch.Generator().manual_seed(1))


class Normal(nn.Module):
    """A flow that remembers on how many threads it was called."""

    features = 1

    def __init__(self):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(1))
        self.seen, self.problems = set(), []

    def log_prob(self, x):
        self.seen.add(torch.get_num_threads())
        if self.problems:
            raise self.problems.pop()
        return (-0.5 * (x - self.mean) ** 2).sum(-1) - 0.919

    def sample(self, n):
        self.seen.add(torch.get_num_threads())
        return self.mean + torch.randn(n, 1)

    def __deepcopy__(self, memo):
        copied = Normal()
        copied.seen, copied.problems = self.seen, self.problems
        return copied


@pytest.fixture(autouse=True)
def _three_threads(monkeypatch):
    """A machine on which torch takes three threads by itself."""
    monkeypatch.setattr(threads, "_torchs_own", 3)
    monkeypatch.setattr(threads, "_from_environment", False)
    monkeypatch.setattr(threads, "_chosen", None)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def flow():
    return Normal()


def fit(flow, **settings):
    return pg.SVI(epochs=1, batch_size=20, progress=False, **settings).fit(pg.BayesianFlow(flow), EVENTS)


@pytest.fixture
def posterior(flow):
    posterior = fit(flow)
    flow.seen.clear()
    return posterior


FITS = {
    "SVI": lambda model: pg.SVI(epochs=1, progress=False).fit(model, EVENTS),
    "many": lambda model: pg.SVI(epochs=1, progress=False).fit_many(model, [EVENTS, EVENTS]),
    "HMC": lambda model: pg.HMC(chains=1, warmup=1, draws=2, start_steps=1, max_steps=2, progress=False).fit(
        model, EVENTS
    ),
}


@pytest.mark.filterwarnings("ignore::pyrogen.SamplingWarning")
@pytest.mark.parametrize("name", FITS)
def test_a_fit_computes_on_one_thread_and_the_caller_has_his_number_again(flow, name):
    FITS[name](pg.BayesianFlow(flow))
    assert flow.seen == {1} and torch.get_num_threads() == 3


@pytest.mark.parametrize("problem", [RuntimeError("broken"), KeyboardInterrupt()])
def test_after_an_error_or_ctrl_c_the_caller_has_his_number_again(flow, problem):
    model = pg.BayesianFlow(flow)
    flow.problems.append(problem)
    with pytest.raises(type(problem)):
        pg.SVI(progress=False).fit(model, EVENTS)
    assert flow.seen == {1} and torch.get_num_threads() == 3


PREDICTIONS = {
    "log_prob": lambda posterior: posterior.log_prob(EVENTS),
    "density": lambda posterior: posterior.density(EVENTS),
    "sample": lambda posterior: posterior.sample(10),
    "generate": lambda posterior: posterior.generate(10),
    "histogram": lambda posterior: posterior.histogram(0, [-9.0, 0.0, 9.0], n=20),
    "elpd": lambda posterior: pg.diagnostics.elpd(posterior, EVENTS),
}


@pytest.mark.parametrize("name", PREDICTIONS)
def test_predictions_compute_on_one_thread(flow, posterior, name):
    PREDICTIONS[name](posterior)
    assert flow.seen == {1} and torch.get_num_threads() == 3


def test_between_the_parts_of_a_prediction_the_caller_has_his_number(flow, posterior):
    parts = posterior.replicates(10, 3)
    assert [torch.get_num_threads() for _ in parts] == [3, 3, 3] and flow.seen == {1}
    next(posterior.replicates(10, 3))  # and no more of them
    assert torch.get_num_threads() == 3
    flow.problems.append(ValueError("broken"))
    with pytest.raises(ValueError, match="broken"):
        posterior.log_prob(EVENTS)
    assert torch.get_num_threads() == 3


def test_observables_of_a_histogram_compute_on_the_threads_of_the_prediction(posterior):
    seen = set()
    posterior.histogram(lambda x: seen.add(torch.get_num_threads()) or x[:, 0], [-9.0, 0.0, 9.0], n=20)
    assert seen == {1}


def test_the_classifier_trains_on_one_thread():
    seen = set()
    features = lambda x: seen.add(torch.get_num_threads()) or x  # noqa: E731
    pg.diagnostics.train_classifier(
        EVENTS.repeat(3, 1), EVENTS.repeat(3, 1) + 1, features=features, epochs=1, progress=False
    )
    assert seen == {1} and torch.get_num_threads() == 3


def test_the_user_chooses(flow):
    for choose, expected in (
        (lambda: torch.set_num_threads(2), {2}),
        (lambda: torch.set_num_threads(3), {1}),  # torch's own: nobody can tell who chose it
        (lambda: pg.set_threads(3), {3}),
        (lambda: torch.set_num_threads(1), {1}),
        (lambda: pg.set_threads(2), {2}),
        (lambda: pg.set_threads(None), {1}),
    ):
        choose()
        before = torch.get_num_threads()
        flow.seen.clear()
        fit(flow).density(EVENTS)
        assert flow.seen == expected and torch.get_num_threads() == before
    with pytest.raises(ValueError, match="threads is 1025; it must be at most 1024"):
        pg.set_threads(1025)


def test_bits_are_those_of_one_thread(flow):
    posterior = fit(flow)
    torch.set_num_threads(1)
    assert torch.equal(fit(flow).weights.arrays["loc"], posterior.weights.arrays["loc"])


def test_a_fit_in_a_thread_of_python_leaves_all_others_their_numbers(flow):
    """torch keeps a number for every thread of Python, and one for those to come."""
    numbers = []
    go, going = threading.Event(), threading.Event()

    class Waiting(Normal):
        def log_prob(self, x):
            going.set()
            assert go.wait(60)
            return super().log_prob(x)

    waiting = Waiting()
    waiting.seen = flow.seen

    def work():
        numbers.append(torch.get_num_threads())
        with threads.chosen_threads():
            waiting.log_prob(EVENTS)
        numbers.append(torch.get_num_threads())

    thread = threading.Thread(target=work)
    thread.start()
    assert going.wait(60)
    assert torch.get_num_threads() == 3
    go.set()
    thread.join()
    late = threading.Thread(target=lambda: numbers.append(torch.get_num_threads()))
    late.start()
    late.join()
    assert numbers == [3, 3, 3] and flow.seen == {1} and torch.get_num_threads() == 3


@pytest.mark.parametrize(("variables", "expected"), [({}, 1), ({"MKL_NUM_THREADS": "3"}, 3)])
def test_variables_of_the_environment_choose(variables, expected, monkeypatch):
    """They are read when the module is imported, on a machine of three cores."""
    for name in threads.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    spec = importlib.util.spec_from_file_location("threads_of_another_process", threads.__file__)
    fresh = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fresh)
    with fresh.chosen_threads():
        assert torch.get_num_threads() == expected
