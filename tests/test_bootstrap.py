"""The bootstrap of the posterior: minima in closed form, a Gaussian posterior, resumed runs, replicas that failed."""

import math
import warnings

import numpy as np
import pytest
import torch
from baselines import EVENTS, PRIOR, WEIGHTS, Fragile, kill_at_save, location, same_bits, wedge_model
from known import Line

import pyrogen as pg
from pyrogen.bayes.model import normalise_weights
from pyrogen.diagnostics import advise
from pyrogen.inference.modes import bootstrap, descent, judging
from pyrogen.inference.modes.bootstrap import ReplicaPotential, wide_anchors
from pyrogen.inference.modes.judging import left_out
from pyrogen.inference.run.data import TrainingData, prepare_many


def fit(model, events, weights=None, context=None, **kwargs):
    defaults = {"replicas": 4, "steps": 300, "lr": 0.05, "batch_size": 10_000, "progress": False}
    return pg.Bootstrap(**defaults | kwargs).fit(model, events, weights, context)


def potential_of(settings, model, events, weights=None, context=None):
    data = TrainingData.check(model, events, weights, context, torch.float64, "cpu")
    prepared = model.prepare(data.events, dtype=torch.float64)
    return ReplicaPotential(settings, prepared, data, settings.replicas)


@pytest.mark.parametrize("scheme", ["dirichlet", "multinomial", "poisson"])
@pytest.mark.parametrize("weighting", WEIGHTS)
def test_every_replica_of_a_location_ends_at_its_minimum(weighting, scheme):
    """(sum w x + a / s^2) / (n + 1 / s^2), with weights w of sum n, the effective size, and the anchor a."""
    posterior = fit(location(), EVENTS, WEIGHTS[weighting], resampling=scheme, dtype=torch.float64)
    potential = potential_of(pg.Bootstrap(replicas=4, resampling=scheme), location(), EVENTS, WEIGHTS[weighting])
    rows, w = potential.resampling(torch.arange(60).expand(4, -1))
    given = torch.ones(60).double() if WEIGHTS[weighting] is None else normalise_weights(WEIGHTS[weighting])
    n = float(given.sum())
    assert w.sum(1) == pytest.approx(np.full(4, n))
    expected = ((w[..., None] * EVENTS[rows]).sum(1) + potential.prior_centre / PRIOR**2) / (n + 1 / PRIOR**2)
    draws = posterior.weights.arrays["draws"]
    assert draws.shape == (4, 1, 3)
    assert draws[:, 0].numpy() == pytest.approx(expected.numpy(), abs=1e-3)
    likelihood = torch.distributions.Normal(draws, 1.0).log_prob(EVENTS).sum(-1)
    assert posterior.history["final_nll"] == pytest.approx((-(given * likelihood).sum(1) / n).numpy(), abs=1e-6)
    info = posterior.info
    assert info.is_posterior and not info.exact and info.details["replicas"] == 4 and info.details["left_out"] == []
    assert info.effective_size == pytest.approx(n) and info.settings["resampling"] == scheme
    assert info.findings == ()


def moments(replicas=300, **kwargs):
    """Mean and covariance of the replicas on 60 events of variance 1, and those of the exact posterior."""
    events = (EVENTS - EVENTS.mean(0)) / EVENTS.std(0, correction=0) + torch.arange(3.0)
    width = 60**-0.5  # prior and events say as much
    posterior = fit(
        location(prior_scale=width), events, replicas=replicas, steps=250, lr=0.1, dtype=torch.float64, **kwargs
    )
    draws = posterior.weights.arrays["draws"][:, 0]
    return draws, events.mean(0) / 2, 1 / 120


@pytest.mark.parametrize("scheme", ["dirichlet", "multinomial", "poisson"])
def test_a_gaussian_posterior_is_found(scheme):
    """Mean and variance of the closed form. A bootstrap sample of N events has the variance N / (N + 1) at most."""
    draws, mean, variance = moments(resampling=scheme)
    error = (variance / len(draws)) ** 0.5
    assert draws.mean(0).numpy() == pytest.approx(mean.numpy(), abs=4 * error)
    assert draws.var(0).numpy() == pytest.approx(np.full(3, variance), rel=4 * (2 / len(draws)) ** 0.5 + 1 / 60)
    events = EVENTS.T.corrcoef()
    expected = (torch.eye(3) + events) / 2  # of anchors, and of the events as they are
    assert draws.T.corrcoef().numpy() == pytest.approx(expected.numpy(), abs=4 / len(draws) ** 0.5)


@pytest.mark.parametrize("missing", ["anchors", "weights"])
def test_without_anchors_or_weights_the_posterior_is_half_as_wide(missing, monkeypatch):
    class Broken(ReplicaPotential):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            if missing == "anchors":
                self.prior_centre = 0 * self.prior_centre

        def _rows(self, rows, chains=1):
            events, weights, context = super()._rows(rows, chains)
            return events, torch.ones_like(weights) if missing == "weights" else weights, context

    monkeypatch.setattr(bootstrap, "ReplicaPotential", Broken)
    draws, _, variance = moments()
    assert draws.var(0).numpy() == pytest.approx(np.full(3, variance / 2), rel=0.3)


def test_mini_batches_are_unbiased_with_weights_and_conditions():
    """The mean of the gradient over all batches of one event is that of the whole sample."""
    x = torch.linspace(-1, 1, 20).double()[:, None]
    events = 0.5 * x + 0.1 * torch.randn(20, 1, generator=torch.Generator().manual_seed(1)).double()
    w = torch.linspace(0.5, 2.0, 20).double()
    model = pg.BayesianFlow(Line(1), preprocessing=None, context_preprocessing=None)
    for scheme in ("dirichlet", "multinomial"):
        potential = potential_of(pg.Bootstrap(replicas=3, resampling=scheme), model, events, w, x)
        theta = torch.randn(3, potential.model.weights, generator=torch.Generator().manual_seed(2)).double()
        value, gradient = potential.value_and_gradient(theta)
        singles = [potential.value_and_gradient(theta, torch.full((3, 1), i)) for i in range(20)]
        assert torch.stack([one for one, _ in singles]).mean(0) == pytest.approx(value.numpy())
        assert torch.stack([one for _, one in singles]).mean(0).numpy() == pytest.approx(gradient.numpy())
        assert potential.value(theta) == pytest.approx(value.numpy())


def test_replicas_of_a_flow_differ_and_come_from_the_seed(wedge, tmp_path):
    settings = {"steps": 60, "lr": 0.01, "batch_size": 100}
    posterior = fit(wedge_model(), wedge, **settings)
    assert posterior.info.gradients == pytest.approx(60 * 100 / 500)
    assert same_bits(posterior, fit(wedge_model(), wedge, **settings))
    assert not same_bits(posterior, fit(wedge_model(), wedge, seed=1, **settings))
    assert 0.1 < posterior.info.details["sigma_error"] < 1
    posterior.save(tmp_path / "bootstrap.h5")
    loaded = pg.load(tmp_path / "bootstrap.h5")
    assert torch.equal(loaded.log_prob(wedge[:20]), posterior.log_prob(wedge[:20]))
    assert loaded.info == posterior.info and loaded.log_prob(wedge[:20]).shape == (4, 20)


def test_resumes_with_the_same_bits(wedge, tmp_path, monkeypatch):
    settings = {"steps": 40, "lr": 0.01, "batch_size": 100, "checkpoint_seconds": 1e-9}
    whole = fit(wedge_model(), wedge, **settings)
    for moment in (1, 20):
        kill_at_save(monkeypatch, moment)
        with pytest.raises(KeyboardInterrupt):
            fit(wedge_model(), wedge, checkpoint=tmp_path / "run.h5", **settings)
        monkeypatch.undo()
    for _ in range(2):  # to the end, and from the end
        assert same_bits(whole, fit(wedge_model(), wedge, checkpoint=tmp_path / "run.h5", **settings))
    for changed, message in (
        ({"replicas": 5}, "settings.replicas"),
        ({"resampling": "poisson"}, "settings.resampling"),
    ):
        with pytest.raises(pg.CheckpointMismatchError, match=message):
            fit(wedge_model(), wedge, checkpoint=tmp_path / "run.h5", **settings | changed)


def test_many_samples_are_one_batch_and_each_has_its_own_minima(tmp_path, monkeypatch):
    samples = torch.stack([EVENTS, EVENTS + 1.0, EVENTS.flip(0) - 2.0])
    backend = pg.Bootstrap(
        replicas=4, steps=300, lr=0.05, dtype=torch.float64, progress=False, checkpoint=tmp_path / "run.h5"
    )
    found = backend.fit_many(location(), samples)
    settings = pg.Bootstrap(replicas=4)
    model, data = prepare_many(location(), samples, torch.float64, "cpu")
    potential = ReplicaPotential(settings, model, data, 12)
    _, w = potential.resampling(torch.arange(60).expand(12, -1))
    for s, posterior in enumerate(found):
        mine = slice(4 * s, 4 * s + 4)
        expected = (w[mine, :, None] * samples[s]).sum(1) + potential.prior_centre[mine] / PRIOR**2
        draws = posterior.weights.arrays["draws"][:, 0]
        assert draws.numpy() == pytest.approx((expected / (60 + 1 / PRIOR**2)).numpy(), abs=2e-3)
        info = posterior.info
        assert (info.sample, info.samples, info.batched, info.training_events) == (s, 3, True, 60)
        assert posterior.history["loss"].shape == (4, 200) and posterior.history["final_nll"].shape == (4,)
    for one, two in zip(found, backend.fit_many(location(), samples), strict=True):  # from the checkpoint's end
        assert same_bits(one, two)
    assert len({posterior.info.data_sha256 for posterior in found}) == 3


def test_a_replica_that_failed_is_left_out_and_named(monkeypatch):
    starts = torch.zeros(5, 3, dtype=torch.float64)
    starts[3, 0] = 6.0
    monkeypatch.setattr(descent, "independent_starts", lambda *_: starts)
    model = pg.BayesianFlow(Fragile(3), preprocessing=None)
    with pytest.warns(pg.SamplingWarning, match=r"1 of 5 replicas failed to train and are left out: 3 \(nan\)"):
        posterior = fit(model, EVENTS, replicas=5, dtype=torch.float64)
    assert posterior.weights.stored == 4 and posterior.info.details["left_out"] == [3]
    assert posterior.log_prob(EVENTS).isfinite().all()
    assert posterior.info.findings[0].serious  # a fifth of them
    assert any(finding.problem == "replicas left out" for finding in advise(posterior, EVENTS).findings)
    starts[1:, 0] = 6.0
    with pytest.raises(pg.SamplingError, match="1 of 5 replicas ended with a finite loss"):
        fit(model, EVENTS, replicas=5, dtype=torch.float64)


def test_replicas_with_steps_left_out_are_named():
    (found,) = judging.steps_left_out(torch.tensor([0.0, 3.0, 0.0, 12.0]), "sample 2: ")
    assert "sample 2: the loss of 2 of 4 replicas was NaN or infinite in some steps" in str(found)
    assert "1 (3), 3 (12)" in str(found) and list(judging.steps_left_out(torch.zeros(4))) == []


def test_a_replica_far_above_the_others_is_left_out():
    """Replicas off by 3 % lose 4.5e-4 nats; one that lost fourteen times as much failed, one with six times did not."""
    log_density = 0.03 * torch.randn(40, 200, generator=torch.Generator().manual_seed(1)).double()
    nll = 1 + 0.5 * log_density.square().mean(1)
    assert not judging.far_above(nll, log_density).any()
    nll[3], nll[5] = 1 + 14 * 4.5e-4, 1 + 6 * 4.5e-4
    failed = judging.far_above(nll, log_density)
    assert failed.nonzero()[:, 0].tolist() == [3]
    assert "1 of 40 replicas failed to train and are left out: 3 (1.0063); the median of the others is 1.0005" in str(
        next(left_out(nll, failed))
    )
    assert list(left_out(nll, failed & False)) == []
    assert judging.far_above(nll + torch.inf, log_density).all()


@pytest.mark.parametrize("replicas", [4, 5, 10, 50])
def test_good_replicas_are_seldom_left_out(replicas):
    """In the worst case, where one number decides d, of 10,000 good replicas fewer than one in 1,000.

    So 10 at most are expected; the limit is three standard deviations more. A limit of ten times sigma^2 / 2 for any R
    would leave out 150 for R = 4, 70 for R = 5, 23 for R = 10. Half as many tell it for the first two.
    """
    generator = torch.Generator().manual_seed(1)
    left = 0
    good = 5_000 if replicas < 10 else 10_000
    for _ in range(good // replicas):
        off = torch.randn(replicas, 1, generator=generator, dtype=torch.float64) / 100
        left += int(judging.far_above(1 + 0.5 * off[:, 0].square(), off).sum())
    assert left <= (12 if replicas < 10 else 20)


@pytest.mark.parametrize("replicas", [4, 5, 8])
def test_one_of_few_replicas_that_failed_is_found(replicas):
    """Where many numbers decide d, the limit is ten times sigma^2 / 2 for few replicas too, and not 170 for five."""
    generator = torch.Generator().manual_seed(2)
    for _ in range(20):
        off = torch.randn(replicas, 20, generator=generator, dtype=torch.float64) @ torch.randn(
            20, 100, generator=generator, dtype=torch.float64
        )
        off *= 0.1 / 20**0.5
        off[1] += 0.1 * 60**0.5 * torch.randn(100, generator=generator, dtype=torch.float64)
        failed = judging.far_above(1 + 0.5 * off.square().mean(1), off)
        assert failed.nonzero()[:, 0].tolist() == [1]


def test_replicas_are_judged_where_the_weights_are():
    """Weights in proportion to c^2 of a slope: the loss differs by three times what it does over all events."""
    few = torch.zeros(10_000)
    few[[17, 4000]] = torch.tensor([1.0, -3.0])
    rows = judging.probed(10_000, few)
    assert sorted(set(rows.tolist())) == [17, 4000] and (rows == 17).sum() == len(rows) // 4
    assert judging.probed(5, None).tolist() == judging.probed(5, torch.ones(5)).tolist() == [0, 1, 2, 3, 4]
    generator = torch.Generator().manual_seed(5)
    c = torch.randn(400, 1, generator=generator).double()
    y = 0.5 * c + torch.randn(400, 1, generator=generator).double()
    model = pg.BayesianFlow(Line(1), preprocessing=None, context_preprocessing=None)
    posterior = fit(model, y, c[:, 0] ** 4, c, replicas=100, steps=150, dtype=torch.float64, seed=1)
    assert posterior.info.details["left_out"] == []


def test_three_replicas_do_not_tell_which_of_them_failed():
    """None is left out, and it is said; with a fourth one, the one that failed is found."""
    nll, off = torch.tensor([1.0, 8.0, 1.01, 1.02]).double(), torch.tensor([0.01, 3.0, 0.02, 0.03]).double()[:, None]
    assert not judging.far_above(nll[:3], off[:3]).any()
    (found,) = judging.untold(nll[:3])
    assert "3 replicas have a finite loss, 1.0000, 8.0000, 1.0100 nats per event" in str(found)
    assert judging.far_above(nll, off).tolist() == [False, True, False, False] and not list(judging.untold(nll))
    nll[3] = torch.nan
    assert judging.far_above(nll, off).tolist() == [False, False, False, True] and list(judging.untold(nll))


@pytest.mark.filterwarnings("ignore::pyrogen.SamplingWarning")
@pytest.mark.parametrize("unit", [1e-200, 1e200])
def test_the_error_of_sigma_does_not_depend_on_the_unit(unit):
    """Densities of three features per cubed unit are then too large, or too small, for a number."""
    scale = pg.events.Standardise()
    told = [
        fit(location(preprocessing=scale), EVENTS * one, dtype=torch.float64).info.details["sigma_error"]
        for one in (1.0, unit)
    ]
    assert told[1] == pytest.approx(told[0], rel=1e-3) and told[0] > 0.2


def test_wide_anchors_are_named_before_the_training():
    flow = pg.CouplingFlow(2, 2, (32, 32))
    assert list(wide_anchors(pg.BayesianFlow(flow, prior_scale="fan-in"))) == []
    with pytest.warns(pg.SamplingWarning, match="prior too wide for anchors: with weights of"):
        posterior = fit(pg.BayesianFlow(flow), EVENTS[:, :2], replicas=3, steps=1, batch_size=20)
    assert posterior.info.findings[0].problem == "prior too wide for anchors"


def test_what_is_refused_before_the_training(monkeypatch):
    with pytest.raises(ValueError, match="replicas is 2; it must be a whole number of at least 3"):
        pg.Bootstrap(replicas=2)
    with pytest.raises(ValueError, match="resampling is 'jackknife'; it must be one of dirichlet"):
        pg.Bootstrap(resampling="jackknife")
    signed = torch.tensor([1.0, -0.7] * 30)
    with pytest.raises(ValueError, match="bootstrap samples have no positive sum"):
        fit(location(), EVENTS, signed, replicas=50)
    with pytest.raises(ValueError, match=r"4 of 12 bootstrap samples .*\(replica 2 of sample 1: sum 0 of 1 events"):
        many = pg.Bootstrap(replicas=4, resampling="poisson", seed=15, progress=False)
        many.fit_many(location(), EVENTS[:1].expand(3, 1, 3))
    assert pg.Bootstrap(replicas=50).memory(location(), samples=20) == 10 * 20 * 50 * 3 * 4
    with pytest.raises(MemoryError, match="replicas is 100,000,000,000"):
        fit(location(), EVENTS, replicas=10**11)


@pytest.mark.parametrize("layout", [None, pg.events.Multiplicity(1, 1, 2)])
def test_copies_at_several_conditions_are_refused(layout):
    x = torch.randn(60, 3)
    if layout:
        x[:20, 2] = math.nan
    one = pg.events.Nuisance("a", lambda x, a: (a * x[:, 0]).exp(), -1, 1, sigma=0.5)
    flow = pg.CouplingFlow(3, 1, (4,), context=1)
    if layout:
        flow = pg.MultiplicityFlow(**layout.config(), blocks=1, hidden=(4,), context=1)
    backend = pg.Bootstrap(replicas=4, steps=2, batch_size=20, progress=False)
    for copies in (1, 2):
        made = pg.events.with_nuisances(pg.EventSample(x, multiplicity=layout), one, copies=copies)
        if copies == 1:
            backend.fit(pg.BayesianFlow(flow), made.sample, context=made.context)
            continue
        with pytest.raises(ValueError, match="the 120 events are copies of 60, each at other conditions"):
            backend.fit(pg.BayesianFlow(flow), made.sample, context=made.context)


def test_goes_on_from_as_many_networks(wedge):
    short = fit(wedge_model(), wedge, steps=20, lr=0.01)
    still = pg.Bootstrap(replicas=4, steps=1, lr=1e-12, progress=False).fit(wedge_model(), wedge, start=short)
    assert torch.allclose(still.weights.arrays["draws"], short.weights.arrays["draws"], atol=1e-6)
    with pytest.raises(ValueError, match="replicas is 5, and start holds 4 networks"):
        pg.Bootstrap(replicas=5, progress=False).fit(wedge_model(), wedge, start=short)


def test_advice_sees_a_training_that_was_too_short(wedge):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pg.SamplingWarning)
        short = fit(wedge_model(), wedge, steps=100, lr=2e-3)
    assert "loss still falling" in {finding.problem for finding in advise(short, wedge).findings}
    flat = fit(location(), EVENTS, replicas=30, dtype=torch.float64)
    found = advise(flat, EVENTS)
    assert "loss still falling" not in {finding.problem for finding in found.findings}
    assert "end of the training" in found.checked
