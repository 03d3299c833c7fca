"""Every public function checks its arguments at its door: the error is its own, and names the argument.

The table ``CALLS`` has a call that works for every public function, class and method with arguments. Each argument of
it is replaced by values of many wrong kinds. A new public function has to be put into the table.
"""

import inspect
import json
import math
import traceback
import types
from pathlib import Path

import arguments as arguments_of_calls
import numpy as np
import pytest
import torch
from arguments import BASES, CALLS, INNER, NAMES_IN_MESSAGES, RESULTS, RIGHT
from known import Location
from shown import check_shown

import pyrogen as pg
import pyrogen.plotting
from pyrogen import checks

PACKAGE = Path(pg.__file__).parent
ROOMS = (pg, pg.events, pg.diagnostics, pg.search, pg.targets, pg.plotting, pg.recipes)
WRONG = {
    "None": None,
    "a text": "x",
    "minus one": -1,
    "a half": 0.5,
    "NaN": math.nan,
    "infinity": math.inf,
    "an object": object(),
    "an empty list": [],
    "a huge number": 10**400,
    "True": True,
    "a numpy number": np.float32(0.5),
    "a dictionary": {"x": object()},
    "a complex number": 1j,
    "half precision": torch.float16,
}


def public():
    """All public callables with arguments, by the name that a user writes."""
    found = {}
    for room in ROOMS:
        for name in room.__all__:
            thing, label = getattr(room, name), f"{room.__name__}.{name}".removeprefix("pyrogen.")
            if inspect.isfunction(thing) or (inspect.isclass(thing) and not issubclass(thing, BaseException)):
                found.setdefault(thing, label)
    table = {label: thing for thing, label in found.items()}
    for label, thing in list(table.items()):
        if inspect.isclass(thing):
            table |= {f"{label}.{method}": getattr(thing, method) for method in methods(thing)}
    return {name: thing for name, thing in table.items() if arguments(thing)}


def methods(cls):
    """Names of the public methods that are defined in this package."""
    for name, member in inspect.getmembers_static(cls):
        ours = any(name in vars(base) and base.__module__.startswith("pyrogen") for base in cls.__mro__)
        if ours and not name.startswith("_") and isinstance(member, types.FunctionType | classmethod | staticmethod):
            yield name


def arguments(thing):
    try:
        parameters = inspect.signature(thing).parameters.values()
    except ValueError:
        return {}
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {p.name: str(p.annotation) for p in parameters if p.kind not in kinds and p.name != "self"}


PUBLIC = public()
NEEDED = {  # packages that the tests do without
    "events.drell_yan": ("pythia8mc",),
    "events.z_jets": ("pythia8mc", "fastjet"),
    "events.z_jets_to": ("pythia8mc", "fastjet"),
    "events.dijets": ("pythia8mc", "fastjet"),
    "events.dijets_to": ("pythia8mc", "fastjet"),
}


def is_training(call):
    return call.endswith((".fit_many", ".run", ".fit")) and hasattr(pg, call.partition(".")[0])


def test_every_public_function_is_in_the_table():
    known = {*CALLS, *RESULTS}
    doors = {name for name in PUBLIC if not name.startswith(BASES) and name.rpartition(".")[2] not in INNER}
    assert sorted(doors - known) == []
    assert sorted(known - set(PUBLIC)) == []


def is_right(call, name, kind, annotation):
    """Whether a value of this kind may be right for an argument."""
    if kind == "None" and ("None" in annotation or default(call, name) is None):
        return True
    if "float" in annotation and kind in ("a half", "a numpy number"):
        return True
    if "bool" in annotation and kind == "True":
        return True
    if "PathLike" in annotation and kind == "a text":
        return True
    return kind in RIGHT.get((call, name), ()) or kind in RIGHT.get(("", name), ())


def default(call, name):
    return inspect.signature(PUBLIC[call]).parameters[name].default


@pytest.mark.parametrize("call", CALLS)
def test_wrong_arguments_are_refused_by_name(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    function, given = CALLS[call]()
    failures = []
    for name, annotation in arguments(PUBLIC[call]).items():
        for kind, value in WRONG.items():
            if is_right(call, name, kind, annotation):
                continue
            try:
                function(**given | {name: value})
            except Exception as error:
                problem = what_is_wrong_with(error, name, call)
            else:
                problem = "is accepted"
            if problem:
                failures.append(f"{name} = {kind}: {problem}")
    assert not failures, "\n" + "\n".join(failures)


def what_is_wrong_with(error, name, call):
    where = traceback.extract_tb(error.__traceback__)[-1]
    names = NAMES_IN_MESSAGES.get((call, name), ()) + NAMES_IN_MESSAGES.get(("", name), ()) + (name,)
    if not isinstance(error, ValueError | TypeError | FileNotFoundError | IsADirectoryError):
        return f"{type(error).__name__}: {error}"
    if not Path(where.filename).is_relative_to(PACKAGE):
        return f"raised in {where.filename}:{where.lineno}: {error}"
    if not any(word in str(error) for word in names):
        return f"the message does not name it: {error}"
    return None


@pytest.mark.parametrize("call", [call for call in CALLS if not is_training(call)])
def test_the_call_of_the_table_works(call, tmp_path, monkeypatch):
    for module in NEEDED.get(call, ()):
        pytest.importorskip(module, reason='needs pip install "pyrogen[pythia,fastjet]"')
    monkeypatch.chdir(tmp_path)
    function, given = CALLS[call]()
    result = function(**given)
    if inspect.isgenerator(result):
        next(result)
    for thing in (getattr(function, "__self__", None), *given.values(), result):
        check_shown(thing)


def test_numbers_of_numpy_are_those_of_python():
    given = {"epochs": np.int64(3), "lr": np.float32(0.5), "progress": np.bool_(False), "patience": None}
    settings = pg.SVI(**given, betas=[np.float64(0.5), 0.9], seed=np.uint8(7), device=torch.device("cpu"))
    python = pg.SVI(epochs=3, lr=0.5, progress=False, betas=(0.5, 0.9), seed=7)
    assert settings == python and repr(settings) == repr(python)
    assert json.dumps(settings.describe()) == json.dumps(python.describe())
    assert type(settings.epochs) is int and type(settings.lr) is float and settings.progress is False
    hmc = pg.HMC(step_size=np.float32(0.25), whiten=np.bool_(False), max_steps=np.int32(5))
    assert json.dumps(hmc.describe()) and hmc == pg.HMC(step_size=0.25, max_steps=5)
    flow = pg.CouplingFlow(np.int64(2), np.int32(1), np.array([4, 4]), bins=np.int64(3), clamp=np.float32(2.0))
    assert json.dumps(flow.config) == json.dumps(pg.CouplingFlow(2, 1, (4, 4), bins=3).config)


def test_numbers_of_numpy_give_the_same_bits():
    x = arguments_of_calls.training()[:3]
    posterior = arguments_of_calls.posterior()
    assert torch.equal(posterior.log_prob(x, np.int64(3), seed=np.int32(1)), posterior.log_prob(x, 3, seed=1))
    assert torch.equal(posterior.sample(np.uint16(4), 2), posterior.sample(4, 2))


@pytest.mark.parametrize("seed", [-1, 0.5, None, 2**63, "1", True])
def test_predictions_refuse_what_is_no_seed(seed):
    posterior, x = arguments_of_calls.posterior(), arguments_of_calls.training()[:3]
    for predict in (posterior.density, posterior.log_prob, posterior.sample, posterior.generate):
        with pytest.raises(ValueError, match="seed is"):
            predict(x if predict in (posterior.density, posterior.log_prob) else 3, seed=seed)
    with pytest.raises(ValueError, match="seed is"):
        posterior.replicates(3, seed=seed)  # at once, not where the first of them is asked for


MEMORY = {
    "Posterior.sample": (lambda: arguments_of_calls.posterior().sample(10**12), "n is 1,000,000,000,000.*generate_to"),
    "Posterior.generate": (lambda: arguments_of_calls.posterior().generate(10**12), "n is 1,000.*generate_to"),
    "log-weights": (lambda: arguments_of_calls.posterior().generate(10**9, 10**4, log_weights=True), "generate_to"),
    "Wedge.sample": (lambda: pg.targets.Wedge().sample((10**6, 10**6)), "sample_shape"),
    "CouplingFlow.sample": (lambda: pg.CouplingFlow(2, 1, (4,)).sample(10**12), "n is 1,000"),
    "toys": (lambda: arguments_of_calls.band().toys(10**12), "n is 1,000.*other seeds"),
    "map": (
        lambda: pg.diagnostics.uncertainty_map(arguments_of_calls.posterior(), (0, 0, 1), (1, 0, 1), 10**7),
        "cells is 10,000,000",
    ),
    "drell_yan": (lambda: pg.events.drell_yan(10**12), "n is 1,000"),
    "z_jets": (lambda: pg.events.z_jets(10**12), "n is 1,000.*z_jets_to"),
    "dijets": (lambda: pg.events.dijets(10**12), "n is 1,000.*dijets_to"),
}


@pytest.mark.parametrize("call", MEMORY)
def test_what_no_memory_holds_is_refused_before_it_is_taken(call, monkeypatch):
    function, message = MEMORY[call]
    monkeypatch.setattr(checks, "_memory", lambda: 1e9)
    with pytest.raises(MemoryError, match=message):
        function()


class Odd(Location):
    """A flow whose methods give what ``change`` makes of it."""

    def __init__(self, method, change):
        super().__init__()
        self.method, self.change = method, change

    def log_prob(self, x):
        return self.change(super().log_prob(x)) if self.method == "log_prob" else super().log_prob(x)

    def sample(self, n):
        return self.change(super().sample(n)) if self.method == "sample" else super().sample(n)


@pytest.mark.parametrize(
    ("method", "change", "got"),
    [
        ("log_prob", lambda values: (values, None), "a tuple"),
        ("log_prob", lambda values: values[:, None], r"shape \[\d+, 1\]"),
        ("log_prob", lambda values: values[:, None].expand(-1, 2), r"shape \[\d+, 2\]"),
        ("log_prob", lambda values: values.sum(), r"shape \[\]"),
        ("log_prob", lambda values: None, "a NoneType"),
        ("sample", lambda values: (values, None), "a tuple"),
        ("sample", lambda values: values[:, 0], r"shape \[5\]"),
        ("sample", lambda values: values[None], r"shape \[1, 5, 2\]"),
        ("sample", lambda values: values[:, :1], r"shape \[5, 1\]"),
    ],
)
def test_what_a_flow_gives_has_one_number_or_one_row_per_event(method, change, got):
    model = pg.BayesianFlow(Odd(method, change)).prepare(torch.randn(30, 2))
    with pytest.raises(ValueError, match=f"{method} of the flow Odd gives {got}; it must give a tensor of shape"):
        if method == "log_prob":
            pg.SVI(epochs=1, batch_size=30, progress=False).fit(model, torch.randn(30, 2))
        else:
            model.sample_events(model.initial_theta, 5)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: pg.CouplingFlow(2, 1, (4,)), r"model is a CouplingFlow.*lift the flow with pg.BayesianFlow\(flow\)"),
        (lambda: arguments_of_calls.posterior(), r"model is a Posterior.*its model is posterior.model"),
        (lambda: pg.BayesianFlow, "model is a class"),
        (lambda: None, "model is None; it must be a pyrogen.BayesianFlow"),
    ],
)
def test_what_is_trained_is_a_bayesian_flow(model, message):
    for train in (pg.SVI().fit, pg.HMC().fit, pg.Laplace().fit_many):
        with pytest.raises(TypeError, match=message):
            train(model(), torch.randn(2, 30, 2))


def test_fit_many_takes_several_samples():
    for samples in (arguments_of_calls.sample(), "x", None, 3, {"a": 1}):
        with pytest.raises(ValueError, match="samples must be several samples of events"):
            pg.SVI().fit_many(arguments_of_calls.model(), samples)


def test_a_device_is_one_of_this_machine():
    for device in ("gpu", "meta", 3, "cuda:99"):
        with pytest.raises(ValueError, match=f"device is {device!r}"):
            pg.SVI(device=device)


def warned_line(function):
    with pytest.warns(UserWarning) as caught:
        function()
    (warning,) = caught
    return warning.filename


def test_warnings_point_to_the_line_of_the_user():
    assert warned_line(lambda: pg.CouplingFlow(1, 1, (4,))) == __file__
    settings = pg.Laplace(steps=1, polish=0, structure="diagonal", progress=False)
    with pytest.warns(pg.SamplingWarning) as caught:
        settings.fit(arguments_of_calls.model(), arguments_of_calls.training())
    assert {warning.filename for warning in caught} == {__file__}


def test_no_other_way_to_warn():
    sources = {path: path.read_text() for path in PACKAGE.rglob("*.py") if path.name != "warn.py"}
    assert [str(path) for path, text in sources.items() if "warnings.warn(" in text] == []


def test_a_door_names_arguments_that_exist():
    with pytest.raises(TypeError, match="has no argument sede"):
        checks.door(sede=checks.SEED)(lambda seed: seed)
    with pytest.raises(TypeError, match="CouplingFlow.* missing 1 required positional argument: 'features'"):
        pg.CouplingFlow()


def test_rows_of_a_sample_are_rows_that_it_has():
    sample = arguments_of_calls.sample()
    for rows, message in (
        (np.ones(59, dtype=bool), r"the mask has shape \[59\]; it must have one entry per event, \[60\]"),
        (np.ones((60, 2), dtype=bool), "the mask has shape"),
        ([0, 60], "1 row numbers are outside of the 60 events; the first is 60"),
        (torch.tensor([-61, 99]), "2 row numbers are outside of the 60 events; the first is -61"),
        (np.zeros((2, 2), dtype=int), r"the row numbers have shape \[2, 2\]"),
    ):
        with pytest.raises(ValueError, match=message):
            sample[rows]
    assert np.array_equal(sample[[-1, 0]].values, sample.values[[59, 0]])


def test_a_guide_is_made_of_the_model():
    with pytest.raises(TypeError, match="guide made a NoneType of the model; it must make a Pyro guide"):
        pg.SVI(guide=lambda model: None, progress=False).fit(arguments_of_calls.model(), torch.randn(30, 2))


def test_sequences_may_be_generators():
    assert checks.HIDDEN("hidden", (width for width in (4, 5))) == (4, 5)
    assert checks.HIDDEN("hidden", torch.tensor([4, 5])) == (4, 5)
    for wrong in (torch.tensor(4), np.array(4), {4: 5}, "45"):
        with pytest.raises(ValueError, match="hidden is"):
            checks.HIDDEN("hidden", wrong)
