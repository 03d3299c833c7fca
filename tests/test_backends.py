"""What all backends have in common: documented settings, their record in JSON, and a fit with the defaults."""

import inspect
import json
import re
import warnings
from dataclasses import dataclass, fields, replace

import pytest
import torch
from known import Location

import pyrogen as pg
from pyrogen.inference import Backend
from pyrogen.posterior import Point, Posterior, RunInfo

# Small numbers of steps; everything else is as it is by default.
CHAINS = {"chains": 2, "warmup": 4, "draws": 4, "start_steps": 5}
FEW = {
    pg.SVI: {"epochs": 2},
    pg.DiscFlow: {"epochs": 2},
    pg.HMC: CHAINS,
    pg.NUTS: CHAINS | {"max_tree_depth": 3},
    pg.SGLD: CHAINS,
    pg.SGHMC: CHAINS,
    pg.AdamMCMC: CHAINS,
    pg.Ensemble: {"members": 3, "steps": 5},
    pg.Bootstrap: {"replicas": 3, "steps": 5},
    pg.Laplace: {"steps": 5, "polish": 5},
}
every_backend = pytest.mark.parametrize("backend", FEW, ids=lambda backend: backend.__name__)


def model():
    return pg.BayesianFlow(Location(2), preprocessing=None)


def events():
    return torch.randn(60, 2, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module", params=FEW, ids=lambda backend: backend.__name__)
def fitted(request):
    """A backend, and the posterior that it makes of 60 events."""
    backend = request.param(**FEW[request.param], progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pg.SamplingWarning)  # so short a run is allowed to complain
        return backend, backend.fit(model(), events())


def test_no_backend_is_forgotten():
    public = {thing for thing in vars(pg).values() if inspect.isclass(thing) and issubclass(thing, Backend)}
    assert public - {Backend} == set(FEW)
    assert Backend not in FEW and inspect.isabstract(Backend)


def explained(cls):
    """The names that the section ``Args:`` of a class explains, in order."""
    text = inspect.cleandoc(cls.__doc__)
    assert text.count("\nArgs:\n") == 1
    section = text.partition("\nArgs:\n")[2].partition("\n\n")[0]
    entries = re.findall(r"^    (\w+(?:, \w+)*):", section, re.MULTILINE)
    return [name for entry in entries for name in entry.split(", ")]


@every_backend
def test_every_setting_is_explained_once_where_users_look(backend):
    assert issubclass(backend, Backend)
    found = explained(backend)
    assert sorted(found) == sorted(entry.name for entry in fields(backend))


@every_backend
def test_settings_in_json(backend):
    """All that decide the result and no others; a setting of another value is told as such."""
    plain = backend(**FEW[backend])
    told = plain.describe()
    assert json.loads(json.dumps(told)) == told
    names = {entry.name for entry in fields(backend)}
    assert set(backend.incidental) <= names and {"checkpoint", "progress"} <= set(backend.incidental)
    decides = names - set(backend.incidental)
    # Where chains start does decide the result; of a posterior that they start at, JSON has one word alone.
    assert set(told) == decides | ({"start"} & names)
    assert replace(plain, seed=7, dtype=torch.float64).describe() == told | {"seed": 7, "dtype": "float64"}
    assert replace(plain, progress=False).describe() == told
    for name, value in FEW[backend].items():
        assert told[name] == value


@every_backend
def test_settings_are_checked_and_cannot_be_changed(backend):
    with pytest.raises(ValueError, match="seed is -1; it must be a whole number of at least 0"):
        backend(seed=-1)
    with pytest.raises(ValueError, match="progress is 1; it must be True or False"):
        backend(progress=1)
    with pytest.raises(AttributeError, match="cannot assign"):
        backend().seed = 1


def test_a_fit_with_the_defaults(fitted):
    backend, posterior = fitted
    assert isinstance(posterior, Posterior)
    assert posterior.log_prob(events()).isfinite().all()
    assert getattr(backend, "batch_size", None) is None or backend.batch_size == type(backend)().batch_size


def test_the_record_of_a_fit(fitted):
    backend, posterior = fitted
    info = posterior.info
    assert isinstance(info, RunInfo)
    assert info.backend == type(backend).__name__ and info.settings == backend.describe()
    assert info.training_events == 60 and info.effective_size == 60 and not info.is_weighted
    assert info.seconds > 0 and info.gradients > 0
    assert re.fullmatch("[0-9a-f]{64}", info.data_sha256)
    assert info.sample is None and info.batched is None
    assert info.is_posterior == (type(backend) is not pg.Ensemble)
    assert RunInfo.from_json(json.loads(json.dumps(info.to_json()))) == info


def test_no_bars_in_the_predictions_either(fitted):
    backend, posterior = fitted
    assert posterior.progress is False and backend.progress is False


@every_backend
def test_bars_by_default(backend, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pg.SamplingWarning)
        posterior = backend(**FEW[backend]).fit(model(), events())
    assert posterior.progress is True
    assert backend.__name__ in capsys.readouterr().err


class Telling(Backend):
    """Does nothing but draw random numbers.

    Raises:
        KeyError: never.
    """

    def _fit(self, model, data):
        torch.rand(1)
        return self._posterior(model, Point(loc=model.initial_theta), {}, data)


@dataclass(frozen=True, kw_only=True)
class Awkward(Telling):
    """With a setting that JSON does not know.

    Returns:
        Nothing.

    Args:
        function: of no use.

        second: behind an empty line.
    """

    function: object = max
    second: int = 1


def test_a_backend_of_ones_own_leaves_the_random_state_alone():
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    Telling().fit(model(), events())
    Telling().fit_many(model(), [events(), events()])
    assert torch.equal(torch.rand(2), expected)


def test_a_setting_that_json_does_not_know_is_named_before_any_work():
    with pytest.raises(TypeError, match="Awkward.function is <built-in function max>, which JSON does not know"):
        Awkward().fit(model(), None)


def test_a_device_may_be_torchs_own():
    assert pg.SVI(device=torch.device("cpu")) == pg.SVI(device="cpu")
    assert (
        pg.SVI(device=torch.device("cpu"), epochs=1, progress=False).fit(model(), events()).info.settings["device"]
        == "cpu"
    )


def test_docstrings_keep_their_sections_in_order():
    text = Awkward.__doc__
    assert [text.index(f"\n{name}:\n") for name in ("Args", "Returns", "Raises")] == sorted(
        text.index(f"\n{name}:\n") for name in ("Args", "Returns", "Raises")
    )
    assert explained(Awkward) == ["function", "second", "seed", "dtype", "device", "compile", "checkpoint", "progress"]
    assert "KeyError: never" in text and "Nothing." in text
    for backend in FEW:
        assert inspect.cleandoc(backend.__doc__).rstrip().endswith("ValueError: an argument out of range.")


def test_samples_one_after_another_resume_from_their_checkpoints(tmp_path):
    backend = pg.Ensemble(members=2, steps=3, checkpoint=tmp_path / "run.h5", progress=False)
    first, again = (backend.fit_many(model(), [events(), events() + 1]) for _ in range(2))
    assert (tmp_path / "run.1.h5").exists()
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.weights.arrays["draws"], other.weights.arrays["draws"])
        assert one.info.seconds == other.info.seconds  # nothing was trained again


def test_checkpoints_of_single_samples_are_not_passed_over(tmp_path):
    """Samples that an earlier run trained one after another are not begun anew in one batch without a word."""
    samples = [events(), events()]
    apart = pg.SVI(epochs=1, num_particles=2, checkpoint=tmp_path / "run.h5", progress=False)
    apart.fit_many(model(), samples)
    assert (tmp_path / "run.0.h5").exists()
    with pytest.raises(pg.CheckpointMismatchError, match=r"run\.0\.h5 belongs to samples that were trained one after"):
        replace(apart, num_particles=1).fit_many(model(), samples)
