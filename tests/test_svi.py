"""The SVI backend: closed-form posteriors, seeds, validation, early stopping, and what it refuses."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from known import Location
from pyro.infer.autoguide import AutoDelta, AutoLowRankMultivariateNormal, AutoMultivariateNormal
from torch import nn

import pyrogen as pg
from pyrogen.schedules import SCHEDULES, learning_rate_factor


class Linear(nn.Module):
    """Events ~ N(weight * 1 + bias, I) through a linear layer with input 1: conjugate, with local noise."""

    features = 2

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 2)

    def log_prob(self, x):
        return dist.Normal(self.layer(torch.ones(len(x), 1).to(x)), 1.0).log_prob(x).sum(-1)

    def sample(self, n):
        return self.layer(torch.ones(n, 1)) + torch.randn(n, 2)


def svi(**kwargs) -> pg.SVI:
    defaults = {"epochs": 2, "batch_size": 50, "progress": False}
    return pg.SVI(**defaults | kwargs)


def small_model(**kwargs) -> pg.BayesianFlow:
    return pg.BayesianFlow(pg.CouplingFlow(2, blocks=2, hidden=(8,)), **kwargs)


def same_bits(a: pg.Posterior, b: pg.Posterior) -> bool:
    return all(torch.equal(a.weights.arrays[name], b.weights.arrays[name]) for name in a.weights.arrays)


@pytest.mark.parametrize("weighting", ["none", "positive", "signed"])
def test_recovers_the_closed_form_posterior_of_a_location(weighting):
    """Prior N(0, s^2), N events of variance 1: precision N + 1/s^2, mean sum(x)/precision; 5 % on the width.

    Weighted events count with their effective size (sum w)^2 / sum w^2 and the weighted mean.
    """
    torch.manual_seed(1)
    n, prior = 40, 0.3
    events = 1 + torch.randn(n, 2)
    weights = {"none": None, "positive": 0.2 + torch.rand(n), "signed": 1.5 * torch.rand(n) - 0.2}[weighting]
    w = torch.ones(n) if weights is None else weights * weights.sum() / weights.square().sum()
    precision = w.sum() + 1 / prior**2
    mean = (w[:, None] * events).sum(0) / precision
    model = pg.BayesianFlow(Location(), prior_scale=prior, preprocessing=None)
    posterior = svi(
        epochs=500, batch_size=n, lr=0.03, lr_widths=0.05, widths_after=0.0, init_scale=0.05, num_particles=2
    ).fit(model, events, weights)
    width = 1 / precision.sqrt()
    assert posterior.weights.arrays["scale"].numpy() == pytest.approx(float(width), rel=0.05)
    # The mean to a tenth of the posterior's own width: one noisy gradient moves it by a few per cent of that.
    assert posterior.weights.arrays["loc"].numpy() == pytest.approx(mean.numpy(), abs=0.1 * float(width))
    assert posterior.info.effective_size == pytest.approx(float(w.sum()), rel=1e-5)


def test_recovers_the_closed_form_posterior_with_local_reparameterization():
    """Mean field on N(weight + bias, 1): each width is that of one weight given the other, precision N + 1/s^2."""
    torch.manual_seed(2)
    n = 200
    events = 0.5 + torch.randn(n, 2)
    posterior = svi(epochs=500, batch_size=n, lr=0.02, lr_widths=0.02, widths_after=0.0, init_scale=0.03).fit(
        pg.BayesianFlow(Linear(), preprocessing=None), events
    )
    assert posterior.info.local_reparameterization
    # The widths are off by 2 to 3 %.
    assert posterior.weights.arrays["scale"].numpy() == pytest.approx(1 / math.sqrt(n + 1), rel=0.1)
    total = posterior.weights.arrays["loc"].reshape(2, 2).sum(0)
    assert total.numpy() == pytest.approx((events.sum(0) / (n + 0.5)).numpy(), abs=0.01)


def test_widths_shrink_like_one_over_root_n():
    """KL/N is right only if N is the number of training events, not the batch: widths must follow N."""
    widths = []
    for n in (100, 1600):
        events = torch.randn(n, 2)
        fit = svi(
            epochs=16_000 // n,
            batch_size=50,
            lr=0.02,
            lr_widths=0.03,
            widths_after=0.0,
            init_scale=0.03,
            num_particles=2,
        )
        posterior = fit.fit(pg.BayesianFlow(Location(), preprocessing=None), events)
        widths.append(float(posterior.weights.arrays["scale"].mean()))
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.15)


def test_training_lowers_the_loss_and_reports_it_in_nats_per_event():
    """The wedge's entropy is 1/2 - ln 2 = -0.193: no honest loss lies below it, and a trained box spline comes near."""
    events = pg.targets.Wedge().sample((4000,))
    flow = pg.CouplingFlow(2, blocks=2, hidden=(16,), transform="rqs", base="uniform", bins=6)
    posterior = svi(epochs=15, batch_size=200, lr=5e-3, validation=0.25).fit(pg.BayesianFlow(flow), events)
    history = posterior.history
    entropy = 0.5 - math.log(2)
    assert set(history) == {
        "loss",
        "nll",
        "kl",
        "validation_nll",
        "learning_rate",
        "skipped_steps",
        "seconds",
    }
    assert all(len(values) == 15 for values in history.values())
    assert history["loss"] == pytest.approx(history["nll"] + history["kl"])
    assert history["loss"][-1] < history["loss"][0]
    # 3,000 training events fix the mean of -log p to its standard deviation (0.5) / sqrt(3000); four of them.
    assert entropy - 0.04 < history["validation_nll"][-1] < entropy + 0.08
    assert history["nll"][-1] == pytest.approx(history["validation_nll"][-1], abs=0.06)
    assert posterior.info.training_events == 3000 and posterior.info.validation_events == 1000


def test_same_seed_same_bits_and_other_seed_other_bits():
    events = torch.randn(300, 2)
    torch.manual_seed(11)
    one = svi(seed=3, widths_after=0.5).fit(small_model(), events)
    torch.manual_seed(99)
    two = svi(seed=3, widths_after=0.5).fit(small_model(), events)
    other = svi(seed=4, widths_after=0.5).fit(small_model(), events)
    assert same_bits(one, two) and not same_bits(one, other)


def test_fit_leaves_the_model_the_random_state_and_pyros_parameters_alone():
    events, model = torch.randn(300, 2), small_model()
    pyro.clear_param_store()
    pyro.param("mine", torch.tensor(1.0))
    state, before = torch.get_rng_state(), model.initial_theta.clone()
    svi().fit(model, events)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(model.initial_theta, before) and not model.preprocessing.fitted
    assert list(pyro.get_param_store().keys()) == ["mine"]


def test_accepts_tensors_arrays_and_event_samples_alike():
    values = np.random.default_rng(1).normal(size=(300, 2))
    sample = pg.EventSample(values, names=("px", "py"), units=("GeV", "GeV"))
    posteriors = [svi().fit(small_model(), events) for events in (torch.tensor(values), values, sample)]
    assert same_bits(posteriors[0], posteriors[1]) and same_bits(posteriors[0], posteriors[2])
    assert posteriors[2].generate(10).names == ("px", "py")


def test_weights_of_an_event_sample_count():
    values = torch.randn(300, 2)
    weights = torch.rand(300)
    with_sample = svi().fit(small_model(), pg.EventSample(values, weights=weights))
    with_argument = svi().fit(small_model(), values, weights)
    without = svi().fit(small_model(), values)
    assert same_bits(with_sample, with_argument) and not same_bits(with_sample, without)


def test_unit_weights_change_nothing():
    values = torch.randn(300, 2)
    one = svi(dtype=torch.float64).fit(small_model(), values)
    two = svi(dtype=torch.float64).fit(small_model(), values, torch.full((300,), 3.0))
    assert torch.allclose(one.weights.arrays["loc"], two.weights.arrays["loc"], atol=1e-9)


def test_float64():
    posterior = svi(dtype=torch.float64).fit(small_model(), torch.randn(300, 2))
    assert posterior.weights.arrays["loc"].dtype == torch.float64
    assert posterior.sample(10).dtype == torch.float64


@pytest.mark.parametrize(
    ("guide", "family"),
    [
        (AutoLowRankMultivariateNormal, "low_rank"),
        (AutoMultivariateNormal, "multivariate"),
        (AutoDelta, "point"),
        (lambda model: pg.AutoNormal(model, init_scale=0.01), "mean_field"),
    ],
)
def test_other_guides(guide, family):
    posterior = svi(guide=guide).fit(small_model(), torch.randn(300, 2))
    assert posterior.weights.family == family
    assert posterior.log_prob(torch.randn(5, 2), 3).shape == (3, 5)
    assert posterior.info.local_reparameterization == (family == "mean_field")


def test_full_covariance_guide_finds_the_correlation_that_mean_field_misses():
    """N(weight + bias, 1) with N = 20 fixes only the sum: the covariance of (w, b) is inv([[N + 1, N], [N, N + 1]])."""
    torch.manual_seed(5)
    guide = AutoMultivariateNormal
    fit = svi(epochs=2000, batch_size=20, lr=0.02, lr_widths=0.03, init_scale=0.1, widths_after=0.0, guide=guide)
    posterior = fit.fit(pg.BayesianFlow(Linear(), preprocessing=None), torch.randn(20, 2))
    covariance = posterior.weights.arrays["scale_tril"] @ posterior.weights.arrays["scale_tril"].T
    exact = torch.linalg.inv(torch.tensor([[21.0, 20.0], [20.0, 21.0]]))
    for i in (0, 1):  # the parameters are (w1, w2, b1, b2)
        assert covariance[i, i] == pytest.approx(float(exact[0, 0]), rel=0.2)
        assert covariance[i, i + 2] == pytest.approx(float(exact[0, 1]), rel=0.2)


def test_early_stopping_keeps_the_best_epoch_after_the_widths_have_moved():
    """Thirty events, a large network: validation soon gets worse; before epoch 10 there is no posterior yet."""
    torch.manual_seed(0)
    fit = svi(epochs=100, batch_size=10, lr=0.02, lr_widths=0.05, validation=0.5, patience=3, widths_after=0.1)
    posterior = fit.fit(small_model(), torch.randn(60, 2))
    done, kept = posterior.info.epochs_done, posterior.info.kept_epoch
    losses = (posterior.history["validation_nll"] + posterior.history["kl"])[10:]
    assert kept > 10 and kept == 10 + np.argmin(losses) + 1 and done == min(kept + 3, 100)
    assert not torch.allclose(posterior.weights.arrays["scale"], torch.tensor(1e-3), rtol=0.1)


def test_conditional_flow():
    """Location follows the condition; the posterior's samples do too."""
    context = torch.rand(2000, 1)
    events = 4 * context - 2 + 0.1 * torch.randn(2000, 1)
    flow = pg.CouplingFlow(1, blocks=2, hidden=(16,), context=1)
    posterior = svi(epochs=15, batch_size=100, lr=5e-3).fit(pg.BayesianFlow(flow), events, context=context)
    at = torch.tensor([[0.1], [0.9]]).repeat_interleave(500, 0)
    means = posterior.sample(1000, context=at).reshape(2, 500).mean(1)
    assert means.numpy() == pytest.approx([-1.6, 1.6], abs=0.15)
    assert posterior.density(events[:5], 5, context=context[:5]).mean.shape == (5,)
    with pytest.raises(ValueError, match="conditional on 1 number per event"):
        posterior.sample(10)
    with pytest.raises(ValueError, match="context has 2 rows for 5 events"):
        posterior.log_prob(events[:5], context=at[:2])


def test_schedules():
    for schedule in SCHEDULES:
        assert learning_rate_factor(schedule, 0, 100, 10) == pytest.approx(0.1)
        assert learning_rate_factor(schedule, 10, 100, 10) == pytest.approx(1)
    assert learning_rate_factor("cosine", 100, 100, 10) == pytest.approx(0, abs=1e-12)
    assert learning_rate_factor("exponential", 100, 100, 0) == pytest.approx(0.01)


def test_progress_bar_shows_loss_and_its_parts(capsys):
    svi(progress=True).fit(small_model(), torch.randn(300, 2))
    shown = capsys.readouterr().err
    assert "SVI" in shown and "nll" in shown and "KL/N" in shown


# --- Bad input --------------------------------------------------------------------------------------------------

GOOD = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))


def broken(rows, value):
    events = GOOD.clone()
    events[rows, 1] = value
    return events


@pytest.mark.parametrize(
    ("events", "weights", "message"),
    [
        (broken([7, 9], math.nan), None, "2 of 300 rows hold NaN or infinity; the first is row 7"),
        (broken([4], math.inf), None, "1 of 300 rows hold NaN or infinity; the first is row 4"),
        (torch.randn(300, 3), None, "events must have 2 columns; got 3"),
        (torch.zeros(0, 2), None, "empty sample"),
        (GOOD, torch.ones(299), r"weights must hold one number per event, shape \[300\]"),
        (GOOD, torch.zeros(300), "the sum of the weights must be positive; it is 0"),
        (GOOD, -torch.ones(300), "the sum of the weights must be positive; it is -300"),
        (GOOD, broken([0], math.nan)[:, 1], "weights: 1 of 300 are NaN or infinite"),
        (GOOD, torch.tensor([1.0, -0.999]).repeat(150), "effective sample size .* cancel"),
    ],
)
def test_bad_events(events, weights, message):
    with pytest.raises(ValueError, match=message):
        svi().fit(small_model(), events, weights)


def test_a_batch_larger_than_the_sample_takes_all_events():
    """To the same bits as a batch of all events; the default settings learn from 300 events too."""
    few = GOOD[:20]
    whole, larger = (svi(batch_size=size).fit(small_model(), few) for size in (20, 50))
    assert all(torch.equal(whole.weights.arrays[name], larger.weights.arrays[name]) for name in ("loc", "scale"))
    for name in ("loss", "nll", "kl"):
        assert np.array_equal(whole.history[name], larger.history[name]) and np.isfinite(larger.history[name]).all()
    default = pg.SVI(epochs=1, progress=False)
    assert default.batch_size > len(GOOD)
    assert default.fit(small_model(), GOOD).info.training_events == 300


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": -1}, "epochs is -1; it must be a whole number of at least 1"),
        ({"epochs": 1.5}, "epochs is 1.5"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"lr": 0.0}, "lr is 0.0; it must be positive"),
        ({"lr_widths": math.nan}, "lr_widths is nan"),
        ({"schedule": "step"}, "schedule is 'step'; it must be one of cosine"),
        ({"lr_warmup": 1.0}, "lr_warmup is 1.0"),
        ({"widths_after": -0.1}, "widths_after is -0.1"),
        ({"clip": 0.0}, "clip is 0.0"),
        ({"validation": 1.0}, "validation is 1.0"),
        ({"patience": 3}, "early stopping needs held-out events"),
        ({"seed": -1}, "seed is -1"),
        ({"dtype": torch.float16}, "dtype is torch.float16"),
    ],
)
def test_bad_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        pg.SVI(**arguments)


def test_weights_of_any_size():
    """Only ratios count, also where squares of the weights do not fit into a float32."""
    weights = torch.rand(300, dtype=torch.float64)
    fits = [svi().fit(small_model(), GOOD, scale * weights) for scale in (1, 1e-50, 1e50)]
    for other in fits[1:]:
        assert torch.allclose(fits[0].weights.arrays["loc"], other.weights.arrays["loc"], atol=1e-5)


def test_validation_weights_without_a_positive_sum():
    weights = torch.ones(300)
    order = torch.randperm(300)
    weights[order[:140]] = -0.9
    with pytest.raises(ValueError, match="validation events do not have a positive sum"):
        for seed in range(50):
            svi(validation=0.02, seed=seed, epochs=1).fit(small_model(), GOOD, weights)


def test_numpy_numbers_are_settings():
    fit = pg.SVI(epochs=np.int64(1), batch_size=np.int32(50), lr=np.float64(1e-3), seed=np.int64(3), progress=False)
    assert (fit.epochs, fit.batch_size, fit.seed) == (1, 50, 3) and type(fit.epochs) is int
    fit.fit(small_model(), GOOD.numpy()[::-1].astype(">f8"))
    with pytest.raises(ValueError, match="epochs is True"):
        pg.SVI(epochs=True)
    with pytest.raises(ValueError, match="lr is True"):
        pg.SVI(lr=True)


def test_validation_that_holds_out_nothing():
    with pytest.raises(ValueError, match="of 300 events that holds out none"):
        svi(validation=1e-4).fit(small_model(), GOOD)


def test_events_outside_the_unit_box():
    flow = pg.CouplingFlow(2, blocks=2, hidden=(8,), transform="rqs", base="uniform")
    with pytest.raises(ValueError, match="events lie outside the unit box of the flow; the first is row 0"):
        svi().fit(pg.BayesianFlow(flow), GOOD - 10)
    svi().fit(pg.BayesianFlow(flow, preprocessing=pg.events.UnitBox()), GOOD - 10)


def test_divergence_is_named():
    class Unstable(Location):
        def log_prob(self, x):
            return super().log_prob(x) / (self.location.sum() - self.location.sum())

    with pytest.raises(
        pg.TrainingDivergedError, match="NaN or infinite in 6 steps in a row, up to epoch 1, step 6 .*smaller lr"
    ):
        svi().fit(pg.BayesianFlow(Unstable()), GOOD)


def test_a_single_step_that_overflows_is_left_out_and_counted():
    class Overflowing(Location):
        calls = 0

        def log_prob(self, x):
            Overflowing.calls += self.location.requires_grad or self.location.grad_fn is not None
            return super().log_prob(x) * (math.inf if Overflowing.calls == 4 else 1.0)

    posterior = svi(epochs=3).fit(pg.BayesianFlow(Overflowing(), preprocessing=None), GOOD)
    assert posterior.history["skipped_steps"].sum() == 1
    assert all(np.isfinite(posterior.history[name]).all() for name in ("loss", "nll", "kl"))
    assert all(torch.isfinite(array).all() for array in posterior.weights.arrays.values())


def test_checkpoint_folder_is_checked_before_training(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist; create it first"):
        svi(checkpoint=tmp_path / "missing" / "run.h5").fit(small_model(), GOOD)
