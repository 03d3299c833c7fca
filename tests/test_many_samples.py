"""Many samples in one batch: each posterior is that of its own sample, and a killed run goes on to the same bits."""

import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from baselines import kill_at_save, same_bits
from known import Location
from pyro.infer.autoguide import AutoLowRankMultivariateNormal

import pyrogen as pg
from pyrogen.inference.run.data import prepare_many
from pyrogen.inference.vi import training as training_module
from pyrogen.inference.vi.mean_field import ManyMeanFields

SAMPLES = torch.randn(5, 60, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64) + torch.arange(
    5.0
).reshape(5, 1, 1)
PRIOR = 0.7


def location():
    return pg.BayesianFlow(Location(2), prior_scale=PRIOR, preprocessing=None)


def exact():
    """Mean ``[R, 2]`` and width of the posterior of each sample's location."""
    precision = SAMPLES.shape[1] + PRIOR**-2
    return SAMPLES.sum(1) / precision, precision**-0.5


def svi(**kwargs):
    settings = {"epochs": 400, "batch_size": 30, "lr": 2e-2, "lr_widths": 5e-2, "dtype": torch.float64}
    return pg.SVI(**settings | {"progress": False} | kwargs)


def test_svi_finds_the_posterior_of_every_sample():
    posteriors = svi(epochs=500, lr=3e-2).fit_many(location(), SAMPLES)
    means, width = exact()
    for r, posterior in enumerate(posteriors):
        assert posterior.info.batched and posterior.info.sample == r
        # The noise of the last steps, at a rate that has fallen to nothing, is a few per cent of the width.
        assert torch.allclose(posterior.weights.arrays["loc"], means[r], atol=0.2 * width)
        assert torch.allclose(posterior.weights.arrays["scale"], torch.tensor(width).double(), rtol=0.1)


@pytest.mark.parametrize("sampler", [pg.HMC, pg.SGHMC])
def test_samplers_find_the_posterior_of_every_sample(sampler):
    batch = {"batch_size": None} if sampler is pg.SGHMC else {}
    settings = {
        "chains": 4,
        "warmup": 60,
        "draws": 200,
        "thinning": 3 if batch else 1,
        "start_steps": 100,
        "progress": False,
    }
    backend = sampler(**settings, **batch, dtype=torch.float64)
    posteriors = backend.fit_many(location(), SAMPLES)
    means, width = exact()
    for r, posterior in enumerate(posteriors):
        draws = posterior.weights.arrays["draws"]
        assert draws.shape == (4, 200, 2) and posterior.info.chains == 4
        assert all(values.shape[0] == 4 for values in posterior.history.values())
        # 800 draws, of which correlations leave at least 100: means within 4 / sqrt(100) widths.
        assert torch.allclose(draws.mean((0, 1)), means[r], atol=0.4 * width)
        assert float(draws.std(1).mean()) / width == pytest.approx(1, abs=4 / (2 * 100) ** 0.5)


def test_samples_do_not_see_each_other():
    """A flow on the wedge: the posterior of a sample is as good on its own events as that of a training alone."""
    torch.manual_seed(2)
    samples = torch.stack([pg.targets.Wedge().sample((300,)), pg.targets.Kicker().sample((300,))])
    flow = pg.CouplingFlow(2, 2, (8,), transform="bernstein", base="uniform", bins=4, activation="tanh", seed=1)
    model = pg.BayesianFlow(flow, prior_scale="fan-in")
    backend = svi(epochs=60, batch_size=100, lr=4e-2, dtype=None)
    wedge, kicker = backend.fit_many(model, samples)
    for own, other, events in ((wedge, kicker, samples[0]), (kicker, wedge, samples[1])):
        mean = own.log_prob(events, 20).mean()
        alone = backend.fit(model, events).log_prob(events, 20).mean()
        assert mean > other.log_prob(events, 20).mean() + 0.05
        assert abs(mean - alone) < 0.05


def test_local_reparameterization_draws_noise_for_every_event_of_every_sample():
    flow = pg.CouplingFlow(2, 2, (8,), transform="bernstein", base="uniform", bins=4, activation="tanh", seed=1)
    backend = svi(batch_size=50, init_scale=0.3)
    model, checked = prepare_many(pg.BayesianFlow(flow), torch.rand(3, 50, 2), backend.dtype, backend.device)
    checked = replace(checked, events=checked.events[:1, :1].expand(3, 50, 2))
    many = ManyMeanFields(backend, model, checked)
    assert many.local and many.local_reason == "activations drawn per event"
    noisy = torch.func.vmap(model.local_log_prob, randomness="different")
    values = noisy(many.mean, torch.full_like(many.mean, 0.3), checked.events)
    assert len(values.flatten().unique()) == 150


def test_kill_and_resume_gives_the_same_bits(tmp_path, monkeypatch):
    whole = svi(epochs=9).fit_many(location(), SAMPLES)
    saves = kill_at_save(monkeypatch, 4, training_module)
    backend = svi(epochs=9, checkpoint=tmp_path / "run.h5")
    with pytest.raises(KeyboardInterrupt):
        backend.fit_many(location(), SAMPLES)
    resumed = backend.fit_many(location(), SAMPLES)
    assert len(saves) == 9
    for one, two in zip(whole, resumed, strict=True):
        assert all(torch.equal(one.weights.arrays[name], two.weights.arrays[name]) for name in ("loc", "scale"))
        assert np.array_equal(one.history["loss"], two.history["loss"])
    with pytest.raises(pg.CheckpointMismatchError, match="sha256"):
        backend.fit_many(location(), SAMPLES + 1)


def stopping(**kwargs):
    """A training that stops early, of networks on three samples of the wedge."""
    torch.manual_seed(4)
    samples = torch.stack([pg.targets.Wedge().sample((200,)) for _ in range(3)])
    model = pg.BayesianFlow(pg.CouplingFlow(2, 2, (8,), seed=1))
    settings = {"validation": 0.25, "patience": 2, "lr": 1e-2, "widths_after": 0.0, "epochs": 12, "batch_size": 10}
    # Slow widths: a KL that falls all the time would let none of them stop.
    return svi(dtype=None, lr_widths=1e-4, seed=9, **settings | kwargs).fit_many(model, samples)


@pytest.fixture(scope="module")
def stopped():
    return stopping()


def validation_loss(posterior):
    return posterior.history["validation_nll"] + posterior.history["kl"]


def test_every_network_of_a_batch_stops_for_itself(stopped):
    """Each is kept where its validation loss was lowest, and its curve ends with its patience."""
    posteriors, without_end = stopped, stopping(patience=None)
    for r, posterior in enumerate(posteriors):
        info, history = posterior.info, posterior.history
        assert info.batched and (info.sample, info.samples) == (r, 3)
        assert (info.training_events, info.validation_events, info.effective_size) == (150, 50, 150)
        assert all(len(values) == info.epochs_done for values in history.values())
        assert np.isfinite(history["validation_nll"]).all()
        loss = validation_loss(posterior)
        assert np.array_equal(loss, validation_loss(without_end[r])[: info.epochs_done])
        assert info.kept_epoch == 1 + np.argmin(loss)
        assert info.epochs_done == min(12, info.kept_epoch + 2)
        assert info.gradients == info.epochs_done
    # One goes on to the end, and one that stopped long before would have become better in that time.
    assert max(posterior.info.epochs_done for posterior in posteriors) == 12
    best = [validation_loss(posterior).min() for posterior in posteriors]
    assert any(validation_loss(longer).min() < lowest for longer, lowest in zip(without_end, best, strict=True))


def test_the_weights_of_a_batch_are_those_of_the_kept_epochs():
    """A run that ends at the epoch where a network was kept, at the same rates, ends with the weights kept there."""
    posteriors = stopping(schedule="constant", lr_warmup=0.0)
    for r, posterior in enumerate(posteriors):
        ended = stopping(schedule="constant", lr_warmup=0.0, epochs=posterior.info.kept_epoch, patience=None)[r]
        assert all(torch.equal(posterior.weights.arrays[n], ended.weights.arrays[n]) for n in ("loc", "scale"))


@pytest.mark.parametrize("moment", [2, 5, 7])
def test_networks_that_stop_early_resume_with_the_same_bits(moment, stopped, tmp_path, monkeypatch):
    kill_at_save(monkeypatch, moment, training_module)
    with pytest.raises(KeyboardInterrupt):
        stopping(checkpoint=tmp_path / "run.h5")
    monkeypatch.undo()
    for _ in range(2):  # to the end, and from the end
        for one, two in zip(stopped, stopping(checkpoint=tmp_path / "run.h5"), strict=True):
            two.history["seconds"] = one.history["seconds"]
            assert same_bits(one, two)


def test_hmc_resumes_many_samples(tmp_path):
    settings = {"chains": 2, "warmup": 10, "draws": 6, "start_steps": 5, "progress": False, "dtype": torch.float64}
    backend = pg.HMC(**settings, checkpoint=tmp_path / "run.h5")
    one = backend.fit_many(location(), SAMPLES)
    again = backend.fit_many(location(), SAMPLES)  # from the checkpoint: nothing is left to do
    for a, b in zip(one, again, strict=True):
        assert torch.equal(a.weights.arrays["draws"], b.weights.arrays["draws"])


@pytest.mark.parametrize(
    ("backend", "samples", "reason"),
    [
        (svi(epochs=2, num_particles=2), SAMPLES, "several particles"),
        (svi(epochs=2), [SAMPLES[0], SAMPLES[1][:40]], "between 40 and 60"),
        (svi(epochs=2), [pg.EventSample(SAMPLES[0].numpy(), weights=np.full(60, 2.0))] * 2, "weights"),
        (pg.NUTS(chains=1, warmup=2, draws=4, progress=False), SAMPLES[:2], "one chain after another"),
        (pg.Ensemble(members=2, steps=3, progress=False), SAMPLES[:2], "not batched"),
    ],
)
def test_what_cannot_be_batched_goes_one_by_one(backend, samples, reason, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pg.SamplingWarning)  # so short a run is allowed to complain
        posteriors = backend.fit_many(location(), samples)
    assert len(posteriors) == len(samples)
    assert reason in posteriors[1].info.batched_reason and not posteriors[1].info.batched
    assert posteriors[0].info.settings["seed"] != posteriors[1].info.settings["seed"]


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (SAMPLES[0], "several samples"),
        ([], "several samples"),
        ([SAMPLES[0], torch.full((60, 2), torch.nan)], "sample 1: "),
        ([SAMPLES[0], SAMPLES[1][:, :1]], "sample 1"),
    ],
)
@pytest.mark.parametrize("backend", [svi(epochs=2), pg.HMC(chains=1, warmup=1, draws=1, progress=False)])
def test_bad_samples_are_named(backend, samples, message):
    with pytest.raises(ValueError, match=message):
        backend.fit_many(location(), samples)


def test_a_sample_that_diverges_is_named():
    class Broken(Location):
        def log_prob(self, x):
            return super().log_prob(x) * torch.where(x.mean() > 3.5, torch.nan, 1.0)

    model = pg.BayesianFlow(Broken(2), prior_scale=PRIOR, preprocessing=None)
    with pytest.raises(pg.TrainingDivergedError, match="sample 4"):
        svi(epochs=30).fit_many(model, SAMPLES)


def test_a_lighter_kl_narrows_the_posterior():
    """With kl_weight T every event counts 1/T times: precision N/T + 1/prior^2, for one sample and for many."""
    weight = 0.25
    width = (60 / weight + PRIOR**-2) ** -0.5
    backend = svi(kl_weight=weight, epochs=600)
    alone = backend.fit(location(), SAMPLES[0])
    together = backend.fit_many(location(), SAMPLES)
    for posterior in (alone, *together):
        assert posterior.info.tempered
        assert torch.allclose(posterior.weights.arrays["scale"], torch.tensor(width).double(), rtol=0.1)
        history = posterior.history
        assert np.allclose(history["loss"], history["nll"] + weight * history["kl"])
    assert not svi(epochs=1).fit(location(), SAMPLES[0]).info.tempered


def test_one_by_one_is_prepared_as_in_one_batch():
    """Starts of their own, and one preprocessing for all."""
    flow = pg.CouplingFlow(2, 2, (8,), seed=1)
    settings = {"epochs": 1, "lr": 1e-9, "widths_after": 0.9}
    together = svi(**settings).fit_many(pg.BayesianFlow(flow), SAMPLES)
    guide = partial(AutoLowRankMultivariateNormal, rank=2)
    alone = svi(**settings, guide=guide).fit_many(pg.BayesianFlow(flow), SAMPLES)
    assert "only the mean-field guide" in alone[0].info.batched_reason
    constants = [str(posterior.model.describe()["preprocessing"]) for posterior in (*together, *alone)]
    assert len(set(constants)) == 1
    starts = torch.stack([posterior.weights.arrays["loc"] for posterior in alone])
    assert (starts[:, None] - starts).abs().sum(-1).fill_diagonal_(1.0).min() > 0.1
    assert torch.equal(pg.BayesianFlow(flow).initial_theta, pg.BayesianFlow(flow).initial_theta)


def test_mixed_weights_are_refused():
    mixed = [pg.EventSample(SAMPLES[0], weights=torch.ones(60)), pg.EventSample(SAMPLES[1])]
    with pytest.raises(ValueError, match="1 of 2 samples have event weights"):
        svi().fit_many(location(), mixed)


def test_a_step_that_is_not_finite_leaves_its_sample_alone():
    data = torch.rand(3, 50, 2, dtype=torch.float64)
    backend = svi(batch_size=50)
    many = ManyMeanFields(backend, *prepare_many(location(), data, backend.dtype, backend.device))
    for group in many.optimizer.param_groups:
        group["lr"] = 1e-3
    for bad in (False, True):
        before = many.mean.detach().clone()
        many.optimizer.zero_grad(set_to_none=True)
        many.losses(torch.arange(50).expand(3, 50), False)[0].sum().backward()
        finite = torch.tensor([True, not bad, True])
        many.clip()
        many.take(finite)
        moved = (many.mean.detach() - before).abs().sum(1) > 0
        assert moved.tolist() == finite.tolist()
