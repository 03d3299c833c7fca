"""Calibration as one call: a sigma that is wrong by a known factor is mended, and the posterior tells of it."""

import inspect
import math
from dataclasses import dataclass, fields, replace

import numpy as np
import pytest
import torch
from known import Line, Location
from known_sigma import EVENTS, FEW, LEVEL, MANY, Fixed, N, Tempered, backend, calibrated_once, model

import pyrogen as pg
from pyrogen.coverage import calibration_of
from pyrogen.coverage.record import factor_on_sigma
from pyrogen.inference import Backend, calibrated
from pyrogen.inference.run.checkpoint import CheckpointMismatchError
from pyrogen.posterior import MeanField, StoredDraws

#: Few trainings are enough to see what is done; they know the coverage badly, and say so.
pytestmark = pytest.mark.filterwarnings("ignore::pyrogen.SamplingWarning")


@pytest.fixture(scope="module")
def found():
    return calibrated_once()


def test_the_knob_that_mends_a_known_factor_is_found(found):
    """Widths three times too large, which go as the root of the knob: 1/9 is right."""
    record = found.info.calibration
    # The error of sigma is that of the coverage over its slope, 2 phi(1) = 0.484; sigma goes as the root of the knob.
    error = 2 * record.coverage[1] / 0.484
    assert error < 0.2 and record.value == pytest.approx(1 / 9, rel=3 * error)
    assert found.info.settings["kl_weight"] == record.value
    width = 3 * math.sqrt(record.value) / math.sqrt(N + 1)
    assert found.weights.arrays["scale"].tolist() == pytest.approx([width] * 2)
    # The first round is the posterior as it was, and says by how much it was off.
    first = record.rounds[0]
    assert first.value == 1 and first.factor == pytest.approx(1 / 3, rel=3 * error / 2)
    assert first.pull_width == pytest.approx(1 / 3, rel=0.25) and first.coverage[0] > 0.95
    assert record.verdict == "calibrated" and abs(record.coverage[0] - LEVEL) <= record.coverage[1]
    assert record.factor[0] == pytest.approx(1, abs=3 * record.factor[1]) and len(record.rounds) <= 3
    assert record.knob == "kl_weight" and record.trainings == 60 and record.size == N and record.quantities == 101


def test_another_level_and_a_sigma_too_narrow():
    found = pg.calibrate(backend(scale=0.25), model(), EVENTS, **MANY, level=0.9, seed=4)
    record = found.info.calibration
    assert record.value == pytest.approx(16, rel=0.5) and record.seed == 4
    assert abs(record.coverage[0] - 0.9) <= record.coverage[1]
    # It follows from the coverage at the level that was asked for, whatever the one at one sigma.
    assert record.coverage != record.one_sigma


def test_a_backend_without_a_knob_is_left_as_it_is():
    settings = backend(Fixed)
    with pytest.warns(pg.SamplingWarning, match=r"sigma is too wide: by parametric.*multiply sigma by 0\.3"):
        found = pg.calibrate(settings, model(), EVENTS, **MANY)
    record = found.info.calibration
    assert record.knob is None and record.value is None and len(record.rounds) == 1 and not record.ok
    assert record.factor[0] == pytest.approx(1 / 3, abs=3 * record.factor[1])
    plain = settings.fit(model(), EVENTS)
    assert torch.equal(found.weights.arrays["scale"], plain.weights.arrays["scale"])
    assert "was not applied" in type(record).__doc__ and "(not applied)" in str(record)


def test_a_posterior_that_is_right_stays_as_it_is():
    found = pg.calibrate(backend(scale=1.0), model(), EVENTS, **FEW, tolerance=0.15)
    record = found.info.calibration
    assert record.value == 1 and len(record.rounds) == 1 and record.ok and not found.info.tempered


def test_a_sigma_that_does_not_follow_the_knob_is_said():
    with pytest.warns(pg.SamplingWarning, match="sigma is too wide: "):
        found = pg.calibrate(backend(power=0.0), model(), EVENTS, **FEW)
    record = found.info.calibration
    assert record.value == 1 and len(record.rounds) == 2  # a third try would be one more of the same
    assert found.info.note.startswith("too wide")


def test_a_level_that_nearly_all_intervals_reach_is_not_taken_for_right():
    """Intervals of 95 % that hold 98 % agree with all there is to agree with, within the error of few trainings."""
    record = pg.calibrate(backend(scale=2.0), model(), EVENTS, **FEW, level=0.95, seed=1).info.calibration
    off = [one.coverage[0] - 0.95 for one in record.rounds]
    within = [abs(one) < each.coverage[1] for one, each in zip(off, record.rounds, strict=True)]
    assert within == [False, True, True] and off[1] > 0.025 > abs(off[2])
    assert record.value == pytest.approx(1 / 4, rel=0.3)


def test_a_sigma_of_nearly_nothing_grows_until_it_is_right():
    """No interval holds the truth in the first rounds, so that the coverage does not tell that it got better."""
    found = pg.calibrate(backend(scale=3e-5), model(), EVENTS, **FEW, rounds=8)
    record = found.info.calibration
    assert [one.coverage[0] for one in record.rounds[:2]] == [0, 0] and record.ok
    assert record.value == pytest.approx(1 / 3e-5**2, rel=1)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_sigma_of_zero_is_said_and_comes_back_from_a_file(tmp_path):
    """As of a chain that never moved: pulls are infinite, and so is the factor."""

    class Stuck(Tempered):
        def _of(self, model, data, mean, n, **told):
            posterior = super()._of(model, data, mean, n, **told)
            if "sample" in told:
                posterior.predictor.weights = StoredDraws(posterior.weights.arrays["loc"].expand(1, 30, 2).clone())
            return posterior

    found = pg.calibrate(backend(Stuck), model(), EVENTS, **FEW)
    record = found.info.calibration
    assert record.pull_width == record.factor == (math.inf, math.inf) and record.verdict == "too narrow"
    found.save(tmp_path / "posterior.h5")
    assert pg.load(tmp_path / "posterior.h5", flow=Location(2)).info == found.info


def test_rounds_are_tried_on_the_same_samples(monkeypatch):
    seen = []

    class Watched(Tempered):
        def _fit_many(self, model, data):
            seen.append((self.kl_weight, data.events.clone()))
            return super()._fit_many(model, data)

    found = pg.calibrate(backend(Watched), model(), EVENTS, **FEW)
    assert len(seen) >= 2 and all(torch.equal(events, seen[0][1]) for _, events in seen)
    assert [value for value, _ in seen] == [one.value for one in found.info.calibration.rounds]
    assert len({value for value, _ in seen}) == len(seen)


def test_weighted_events_are_worth_their_effective_number():
    weights = torch.linspace(0.1, 2.0, N)
    effective = float(weights.sum() ** 2 / weights.square().sum())
    found = pg.calibrate(backend(), model(), EVENTS, weights, **FEW)
    assert found.info.calibration.size == round(effective) < N
    assert found.info.calibration.value == pytest.approx(1 / 9, rel=0.5)


def test_a_posterior_can_take_the_place_of_the_first_fit(found, monkeypatch):
    fits = []
    monkeypatch.setattr(Tempered, "fit", lambda self, *args: fits.append(self.kl_weight) or Fixed.fit(self, *args))
    first = Fixed.fit(backend(), model(), EVENTS)
    again = pg.calibrate(backend(), model(), EVENTS, posterior=first, **MANY)
    assert again.info.calibration == found.info.calibration and fits == [found.info.calibration.value]
    assert first.info.calibration is None and first.info.note == "not calibrated"


def test_a_posterior_that_went_on_is_not_what_was_calibrated():
    """Its settings are those of its last run alone; the samples of the rounds were learned by one run."""
    first = backend(scale=1.0).fit(model(), EVENTS)
    first.info = replace(first.info, started_from={"backend": "Tempered"})
    found = pg.calibrate(backend(scale=1.0), model(), EVENTS, posterior=first, **FEW, tolerance=0.3)
    assert found.info.calibration.value == 1 and found.info.started_from is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: {"posterior": backend().fit(model(), EVENTS + 1)}, "posterior is .*other events.*leave it out"),
        (lambda: {"posterior": backend().fit(model(), EVENTS, torch.ones(N))}, "posterior is .*other events"),
        (
            lambda: {"posterior": backend().fit(pg.BayesianFlow(Location(2), prior_scale=2.0), EVENTS)},
            "posterior is a posterior over another model: prior_scale is 2.0 there, and 1.0 here",
        ),
        (lambda: {"posterior": pg.Posterior(model(), found_weights())}, "posterior is .*other events"),
        (lambda: {"trainings": 4}, "trainings is 4: they know the coverage at 68.3% to about 0.067.*takes 8 or more"),
        (lambda: {"tolerance": 0.01}, "trainings is 20: .*for 0.01 it takes 181 or more"),
        (lambda: {"level": 0.99}, "level is 0.99: 20 trainings know its coverage to about 0.0064.* takes 33 trainings"),
        (lambda: {"level": 1e-17}, "level is 1e-17: 20 trainings"),
        (lambda: {"tolerance": 0.32}, "tolerance is 0.32; it must be less than 0.317: any coverage"),
        (lambda: {"draws": 3}, "draws is 3; it must be a whole number of at least 10"),
        (lambda: {"backend": pg.Ensemble()}, "trainings is 20; it must be at most 10, the draws of the posterior"),
        (lambda: {"backend": pg.Bootstrap(replicas=19)}, "trainings is 20; it must be at most 19"),
        (lambda: {"backend": pg.HMC(chains=2, draws=9)}, "trainings is 20; it must be at most 18"),
        (lambda: {"weights": -torch.ones(N)}, "weights"),
        (lambda: {"events": EVENTS / 0}, "events"),
        (lambda: {"model": pg.BayesianFlow(Line(1)), "events": EVENTS[:, :1]}, "give context="),
        (
            lambda: {
                "model": pg.BayesianFlow(Line(1)),
                "events": EVENTS[:, :1],
                "context": torch.ones(N),
                "weights": torch.cat([-torch.ones(1), torch.ones(N - 1)]),
            },
            "weights are negative for some events, and the flow is conditional",
        ),
    ],
)
def test_what_cannot_be_calibrated_is_refused_before_any_work(change, message, monkeypatch):
    given = {"backend": backend(), "model": model(), "events": EVENTS} | change()
    monkeypatch.setattr(Backend, "fit", lambda *args, **kwargs: pytest.fail("a fit was begun"))
    with pytest.raises(ValueError, match=message):
        pg.calibrate(**given)


def test_replicas_of_all_samples_that_do_not_fit_are_refused_before_any_work(monkeypatch):
    monkeypatch.setattr(Backend, "fit", lambda *args, **kwargs: pytest.fail("a fit was begun"))
    monkeypatch.setattr("pyrogen.checks._memory", lambda: 1e5)
    with pytest.raises(MemoryError, match="replicas is 100: the result takes 0.0 GB"):
        pg.calibrate(pg.Bootstrap(replicas=100), model(), EVENTS)


def found_weights():
    return MeanField(loc=torch.zeros(2), scale=torch.ones(2))


def test_a_conditional_flow_takes_its_conditions_from_the_events():
    seen = []

    @dataclass(frozen=True, kw_only=True)
    class Slope(Tempered):
        def _fit(self, model, data):
            seen.append((data.context, data.weights))
            w = torch.ones(len(data.events)) if data.weights is None else data.weights
            c, precision = data.context, (w[:, None] * data.context.square()).sum(0) + 1
            weights = MeanField(
                loc=(w[:, None] * c * data.events).sum(0) / precision, scale=self.widths() / precision.sqrt()
            )
            n = float(w.sum() ** 2 / w.square().sum())
            return self._posterior(model, weights, {}, data, effective_size=n, training_events=len(w))

    generator = torch.Generator().manual_seed(0)
    context = 1 + torch.rand(300, 1, generator=generator)
    events = 0.5 * context + torch.randn(300, 1, generator=generator)
    line = pg.BayesianFlow(Line(1), preprocessing=None, prior_scale=1.0)
    found = pg.calibrate(backend(Slope), line, events, None, context, trainings=60, draws=30, probes=30, tolerance=0.06)
    record = found.info.calibration
    assert record.ok and record.value == pytest.approx(1 / 9, rel=6 * record.coverage[1] / 0.484)
    samples = [its for its, _ in seen[1:-1]]
    assert len(samples) == 60 * len(record.rounds)
    assert all(len(its) == 300 and torch.isin(its, context).all() for its in samples)
    assert len(torch.unique(samples[0])) < 250  # with replacement: 63 % of them
    assert torch.equal(samples[0], samples[60])  # the same in every round
    # Weighted events: in proportion to their weights.
    weights = torch.where(context[:, 0] > 1.5, 1.0, 1e-6)
    seen.clear()
    pg.calibrate(backend(Slope), line, events, weights, context, **FEW, tolerance=0.2, rounds=1)
    assert all((its > 1.5).all() and w is None for its, w in seen[1:-1])


def test_what_has_no_spread_is_refused():
    @dataclass(frozen=True, kw_only=True)
    class Single(Fixed):
        def _of(self, *args, **kwargs):
            posterior = super()._of(*args, **kwargs)
            return pg.Posterior(posterior.model, pg.posterior.weights.Point(loc=posterior.weights.arrays["loc"]))

    with pytest.raises(ValueError, match="posterior of Single has no spread"):
        pg.calibrate(backend(Single), model(), EVENTS)


def test_the_factor_is_one_where_the_coverage_is_nominal():
    """Also for skewed draws, of which the pulls would say something else; and far outside the draws the pulls tell."""
    rng = np.random.default_rng(0)
    estimate, draws = rng.gamma(1.0, 1.0, (2, 2000, 100, 1))
    skewed = calibration_of(draws, estimate[:, 0])
    factor, error = factor_on_sigma(skewed, LEVEL)
    assert error < 0.03 and abs(factor - 1) < 4 * error
    narrow = rng.normal(0, 1, (2000, 1, 1)) + 0.05 * rng.normal(0, 1, (2000, 100, 1))
    factor, _ = factor_on_sigma(calibration_of(narrow, np.zeros(1)), LEVEL)
    assert factor == pytest.approx(20, rel=0.1)


def test_every_stage_has_a_checkpoint_and_a_killed_calibration_goes_on(tmp_path, monkeypatch):
    path = tmp_path / "run.h5"
    settings = backend(checkpoint=path)
    whole = pg.calibrate(settings, model(), EVENTS, **FEW)
    rounds = len(whole.info.calibration.rounds)
    names = {"run.h5", "run.calibrated.h5", *(f"run.round{i + 1}.h5" for i in range(rounds))}
    assert {each.name for each in tmp_path.iterdir()} >= names
    for each in tmp_path.iterdir():
        each.unlink()

    class KilledError(Exception):
        pass

    def killed(*args, **kwargs):
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(calibrated.Search, "_agrees", killed)  # after the first round
        with pytest.raises(KilledError):
            pg.calibrate(settings, model(), EVENTS, **FEW)
    assert {each.name for each in tmp_path.glob("*.h5")} == {"run.h5", "run.round1.h5"}
    again = pg.calibrate(settings, model(), EVENTS, **FEW)
    assert again.info.calibration == whole.info.calibration
    assert torch.equal(again.weights.arrays["scale"], whole.weights.arrays["scale"])
    with pytest.raises(CheckpointMismatchError, match=r"run\.round1\.h5"):  # other samples
        pg.calibrate(settings, model(), EVENTS, **FEW, seed=1)


def test_the_temperature_of_a_sampler_is_a_knob_too():
    """Exact on all events: a sampler that runs at T = 4 has to come down to one."""
    settings = pg.AdamMCMC(
        chains=2, warmup=10, draws=20, thinning=5, start_steps=30, temperature=4.0, progress=False, seed=1
    )
    found = pg.calibrate(settings, model(), EVENTS[:200], draws=20, probes=20)
    record = found.info.calibration
    assert record.knob == "temperature" and record.rounds[0].value == 4 and record.ok
    assert record.value == pytest.approx(1, rel=6 * record.coverage[1] / 0.484)
    assert found.info.settings["temperature"] == record.value and found.info.event_power == 1 / record.value


def test_all_draws_are_taken_where_there_are_fewer_than_asked_for():
    """A replica that failed is left out, and is known only when all are trained."""

    class Stored(Tempered):
        def _of(self, *args, **told):
            posterior = super()._of(*args, **told)
            posterior.predictor.weights = StoredDraws(
                torch.stack(list(posterior.weights.draws(30 - told.get("sample", 0), 1)))[None]
            )
            return posterior

    found = pg.calibrate(backend(Stored, scale=1.0), model(), EVENTS, **FEW | {"draws": 30}, rounds=1, tolerance=0.3)
    assert found.info.calibration.draws == 11


def test_defaults_stand_in_two_places_and_agree():
    entries = inspect.signature(pg.calibrate).parameters
    assert all(entries[each.name].default == each.default for each in fields(calibrated.Search))
