"""GANs: the networks and the penalty by hand, a batch against single trainings, resumed runs, and a known density."""

import math
import os
import signal
import warnings
from dataclasses import replace
from functools import partial

import h5py
import numpy as np
import pytest
import torch
from killing import forked, kill_again_and_again
from torch.nn.functional import elu, leaky_relu

import pyrogen as pg
from pyrogen.adversarial import networks, training
from pyrogen.adversarial.coverage import collapse, coverage
from pyrogen.adversarial.networks import Uniform, batch_statistics, discriminate, generate, masks
from pyrogen.adversarial.training import gradient_penalty

SMALL = {"noise": 4, "hidden": (8, 8), "embedding": (6, 3), "epochs": 3, "batch_size": 10, "progress": False}
EVENTS = torch.randn(40, 2, generator=torch.Generator().manual_seed(1)) + torch.tensor([3.0, -1.0])


@pytest.fixture(autouse=True)
def _quick():
    """Trainings of a few steps do not reach all of their events, and say so."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "mode collapse", pg.SamplingWarning)
        yield


def discriminator(features=2, trainings=1):
    weights = networks.discriminator_weights(Uniform(range(trainings)), features, (6, 5, 3), (8, 7))
    return {name: value.double() for name, value in weights.items()}


def batches(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def linear(weights, name, i, x):
    return x @ weights[f"{name}.{i}.weight"][0] + weights[f"{name}.{i}.bias"][0]


def logit_by_hand(weights, x, batch):
    """The discriminator of [D] sec. 2 at one event ``x [d]`` of a batch ``[n, d]``, event by event."""
    embedded = []
    for other in batch:
        h = other - x
        for i in range(3):
            h = leaky_relu(linear(weights, "embedding", i, h), 0.01)
        embedded.append(h[0])
    spread = torch.stack(embedded).std(0, correction=0)
    h = torch.cat([x, spread])
    for i in range(2):
        h = leaky_relu(linear(weights, "discriminator", i, h), 0.01)
    return linear(weights, "discriminator", 2, h)[0, 0]


def test_the_discriminator_is_that_of_the_paper():
    weights, x = discriminator(), batches(1, 2, 6, 2)
    by_hand = torch.stack([torch.stack([logit_by_hand(weights, each, batch) for each in batch]) for batch in x[0]])
    assert torch.allclose(discriminate(weights, x, [])[0], by_hand, atol=1e-6)


def test_batch_statistics_follow_a_permutation_of_the_batch():
    weights, x, order = discriminator(), batches(1, 2, 6, 2), torch.tensor([3, 1, 5, 0, 2, 4])
    found = batch_statistics(weights, x)
    assert torch.allclose(batch_statistics(weights, x[:, :, order]), found[:, :, order], atol=1e-12)
    assert torch.allclose(batch_statistics(weights, x + 5), found, atol=1e-9)  # differences alone count
    others = x.clone()
    others[:, :, 0] += 1
    assert (batch_statistics(weights, others)[:, :, 1:] - found[:, :, 1:]).abs().max() > 1e-3


def test_the_generator_is_that_of_the_paper():
    weights = networks.generator_weights(Uniform([3]), 4, (8, 7), 2)
    noise = Uniform([4]).symmetric(5, 4)
    assert noise.abs().max() <= 1 and noise.min() < 0
    h = noise[0]
    for i in range(2):
        h = elu(linear(weights, "generator", i, h))
    assert torch.allclose(generate(weights, noise, [])[0], linear(weights, "generator", 2, h), atol=1e-6)


def test_dropout_keeps_the_mean_of_every_output():
    """Each output is kept with probability 1 - p and divided by it: of 4e4 numbers the mean is 1 to 5 sigma."""
    parts = masks(Uniform([1, 2]), 1000, (12, 8), 0.25)
    assert [list(part.shape) for part in parts] == [[2, 1000, 12], [2, 1000, 8]]
    together = torch.cat(parts, 2)
    assert together.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert abs(float(together.mean()) - 1) < 5 * math.sqrt(0.25 / 0.75 / 40_000)
    assert masks(Uniform([1]), 10, (4,), 0.0) == []


def test_the_penalty_by_hand():
    """Against slopes by differences, and the probabilities of Roth et al. of each kind of events."""
    weights, batch = discriminator(), batches(1, 2, 5, 2).requires_grad_()
    logits = discriminate(weights, batch, [])
    found = gradient_penalty(logits, batch)
    step, expected = 1e-5, 0.0
    for kind in range(2):
        for i in range(5):
            slopes = []
            for column in range(2):
                moved = [batch.detach().clone() for _ in range(2)]
                for sign, each in zip((1, -1), moved, strict=True):
                    each[0, kind, i, column] += sign * step
                up, down = (discriminate(weights, each, []).sum() for each in moved)
                slopes.append(float(up - down) / (2 * step))
            d = float(torch.sigmoid(logits[0, kind, i].detach()))
            wrong = 1 - d if kind == 0 else d
            expected += wrong**2 * (slopes[0] ** 2 + slopes[1] ** 2) / 5
    assert float(found.detach()) == pytest.approx(expected, rel=1e-4)
    found.sum().backward()  # it has a gradient of its own
    assert batch.grad.abs().sum() > 0


def test_a_batch_of_trainings_is_as_many_trainings():
    """The same random numbers, so that the weights agree up to rounding; seeds and samples do not mix."""
    samples = torch.stack([EVENTS, 2 * EVENTS.flip(0), EVENTS**2])
    many = pg.GAN(seed=5, **SMALL).fit_many(samples)
    for r, sampler in enumerate(many):
        alone = pg.GAN(seed=sampler.info.settings["seed"], **SMALL).fit(samples[r])
        assert torch.allclose(sampler.sample(50, seed=1), alone.sample(50, seed=1), rtol=1e-3, atol=1e-3)
        assert sampler.info.data_sha256 == alone.info.data_sha256
        assert (sampler.info.sample, sampler.info.samples, sampler.info.batched) == (r, 3, True)
    assert len({sampler.info.settings["seed"] for sampler in many}) == 3
    assert not torch.allclose(many[0].sample(50, seed=1), many[1].sample(50, seed=1), atol=0.1)


def test_the_same_seed_gives_the_same_bits_and_leaves_the_global_state_alone():
    before = torch.get_rng_state()
    first, again = (pg.GAN(seed=3, **SMALL).fit(EVENTS) for _ in range(2))
    assert torch.equal(first.sample(20), again.sample(20))
    assert not torch.equal(first.sample(20), pg.GAN(seed=4, **SMALL).fit(EVENTS).sample(20))
    assert torch.equal(before, torch.get_rng_state())


def test_dropout_is_part_of_the_generation(monkeypatch):
    """With one noise for all events they still differ, and without dropout they do not."""
    monkeypatch.setattr(Uniform, "symmetric", lambda self, *shape: torch.full((1, *shape), 0.3))
    for dropout, differ in ((0.5, True), (0.0, False)):
        sampler = pg.GAN(**SMALL | {"dropout": dropout, "epochs": 1}).fit(EVENTS)
        assert (sampler.sample(20).std(0) > 1e-6).all() == differ


def test_samples_of_any_size_begin_alike():
    sampler = pg.GAN(**SMALL).fit(EVENTS)
    few, many = sampler.sample(5, seed=2), sampler.sample(5000, seed=2)
    assert torch.equal(few, many[:5]) and few.dtype == torch.float64 and many.shape == (5000, 2)
    assert not torch.equal(many[:100], many[4096:4196])  # the second part is not the first one again
    assert not torch.equal(few, sampler.sample(5, seed=3))


def test_it_learns_a_gaussian():
    """Mean and width of 300 events, to 20 % of the width; with three seeds it was 5 % at most."""
    events = torch.randn(300, 1, generator=torch.Generator().manual_seed(3)) * 2 + 10
    settings = {"noise": 32, "hidden": (16, 16), "embedding": (8, 4), "batch_size": 30, "lr": 4e-3, "average": 0.98}
    gan = pg.GAN(**settings, epochs=60, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sampler = gan.fit(events)
    found = sampler.sample(20_000)
    assert abs(found.mean() - events.mean()) < 0.4
    assert abs(found.std() - events.std()) < 0.4
    assert sampler.info.details["coverage"] > 0.9


def gan(tmp_path, **changes):
    return pg.GAN(**SMALL | {"epochs": 12, "checkpoint": tmp_path / "run.h5", "checkpoint_every": 1} | changes)


def train(checkpoint, path):
    """In a process that has been forked for it."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    samples = torch.stack([EVENTS, 2 * EVENTS])
    settings = SMALL | {"epochs": 16, "checkpoint": checkpoint, "checkpoint_every": 1}
    pg.GAN(**settings).fit_many(samples)[1].save(path)


def numbers(path):
    arrays = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: arrays.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return {name: value for name, value in arrays.items() if name not in ("info", "history/seconds")}


def test_a_killed_run_ends_with_the_same_bits(tmp_path):
    assert forked(train, tmp_path / "whole.h5", tmp_path / "a.h5") == 0
    again = partial(train, tmp_path / "run.h5", tmp_path / "b.h5")
    assert kill_again_and_again(again, tmp_path / "run.h5", (0.0, 0.01)) == 2, "it ended before it was killed"
    assert forked(again) == 0
    whole, killed = numbers(tmp_path / "a.h5"), numbers(tmp_path / "b.h5")
    assert whole.keys() == killed.keys() and any(name.startswith("weights/") for name in whole)
    for name, value in whole.items():
        assert np.array_equal(value, killed[name]), name


def test_ctrl_c_saves_the_run_and_says_how_to_go_on(tmp_path, monkeypatch):
    calls, real = [], training.gradient_penalty

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 22:  # in the sixth epoch of four steps
            os.kill(os.getpid(), signal.SIGINT)
        return real(*args)

    monkeypatch.setattr(training, "gradient_penalty", interrupted)
    with pytest.raises(KeyboardInterrupt, match=r"GAN was stopped by Ctrl-C; the run is saved in .*run\.h5"):
        gan(tmp_path, checkpoint_every=100).fit(EVENTS)
    monkeypatch.undo()
    monkeypatch.setattr(training, "gradient_penalty", lambda *args: calls.append(2) or real(*args))
    resumed = gan(tmp_path, checkpoint_every=100).fit(EVENTS)
    assert calls.count(2) == (12 - 5) * 4
    assert torch.equal(resumed.sample(20), gan(tmp_path, checkpoint=None).fit(EVENTS).sample(20))
    assert len(resumed.history["generator_loss"]) == 12 and (np.diff(resumed.history["seconds"]) >= 0).all()


@pytest.mark.parametrize(
    ("changes", "events", "message"),
    [
        ({"lr": 2e-3}, EVENTS, r"gan\.lr: 0\.001 in the file, 0\.002"),
        ({}, EVENTS + 1, r"data\.sha256"),
        ({"seed": 1}, EVENTS, r"gan\.seed: 0 in the file, 1 in this run"),
    ],
)
def test_a_foreign_checkpoint_is_refused(tmp_path, changes, events, message):
    gan(tmp_path, epochs=1).fit(EVENTS)
    with pytest.raises(pg.CheckpointMismatchError, match=message):
        gan(tmp_path, epochs=1, **changes).fit(events)


def test_a_finished_run_is_not_repeated(tmp_path):
    first = gan(tmp_path, epochs=2).fit(EVENTS)
    written = (tmp_path / "run.h5").stat().st_mtime_ns
    assert torch.equal(first.sample(9), gan(tmp_path, epochs=2).fit(EVENTS).sample(9))
    assert (tmp_path / "run.h5").stat().st_mtime_ns == written


def test_files(tmp_path):
    sample = pg.EventSample(EVENTS, ["mass", "angle"], ["GeV", ""])
    sampler = pg.GAN(**SMALL).fit(sample)
    sampler.save(tmp_path / "gan.h5")
    loaded = pg.GANSampler.load(tmp_path / "gan.h5")
    assert torch.equal(sampler.sample(20, seed=4), loaded.sample(20, seed=4))
    assert (loaded.names, loaded.units, loaded.info) == (("mass", "angle"), ("GeV", ""), sampler.info)
    assert loaded.history.keys() == {"discriminator_loss", "generator_loss", "penalty", "seconds"}
    with pytest.raises(pg.FileFormatError, match=r"is a pyrogen GAN file; .*: pg\.GANSampler\.load reads it"):
        pg.load(tmp_path / "gan.h5")
    with h5py.File(tmp_path / "gan.h5", "r+") as file:
        file["centre"][0] = 7.0
    with pytest.raises(pg.FileFormatError, match="digest"):
        pg.GANSampler.load(tmp_path / "gan.h5")


def test_generated_events_carry_names_units_and_provenance():
    sampler = pg.GAN(**SMALL).fit(pg.EventSample(EVENTS, ["mass", "angle"], ["GeV", ""]))
    events = sampler.generate(30, seed=2)
    assert (events.names, events.units) == (("mass", "angle"), ("GeV", ""))
    assert events.uncertainties is None and events.log_weights is None and events.weights is None
    assert events.provenance["training_data_sha256"] == sampler.info.data_sha256
    assert np.array_equal(events.values, sampler.sample(30, seed=2).numpy())
    with pytest.raises(ValueError, match="truth is the sample that the generator was trained on"):
        pg.diagnostics.classifier_weights(pg.EventSample(EVENTS, ["mass", "angle"], ["GeV", ""]), events)


@pytest.mark.parametrize("what", ["log_prob", "density", "histogram", "uncertainties", "generate_to", "replicates"])
def test_it_has_no_density_and_says_what_has(what):
    sampler = pg.GAN(**SMALL).fit(EVENTS)
    assert not hasattr(sampler, what) and "no density" in repr(sampler)
    with pytest.raises(AttributeError, match=rf"no density, so it has no {what} either.*pg\.SVI"):
        getattr(sampler, what)
    with pytest.raises(AttributeError, match="has no attribute 'smaple'"):
        _ = sampler.smaple


def with_nan():
    events = EVENTS.clone()
    events[7, 1] = math.nan
    return events


def constant():
    return pg.EventSample(torch.cat([EVENTS, torch.full((40, 1), 3.0)], 1), ["a", "b", "mass"])


def jets():
    layout = pg.events.Multiplicity(1, 1, 2)
    rows = torch.randn(40, 3)
    rows[::2, 2] = math.nan
    return pg.EventSample(rows, multiplicity=layout)


@pytest.mark.parametrize(
    ("events", "message"),
    [
        (with_nan, r"1 of 40 rows hold NaN or infinity; the first is row 7, column 1"),
        (constant, r"column 2 \(mass\) is the same in all events; leave it out"),
        (jets, "varying number of objects"),
        (lambda: EVENTS[:9], r"9 events are fewer than a batch; give batch_size \(now 10\) or more"),
        (lambda: pg.EventSample(EVENTS, weights=torch.rand(40)), "weights is given; .*unweight the events first"),
        (lambda: EVENTS.double() * 1e300, "too large or too small"),
        (lambda: EVENTS[:0], "empty sample"),
        (lambda: pg.CouplingFlow(2), "a GAN has networks of its own"),
    ],
)
def test_what_it_cannot_learn_from_is_refused_before_any_work(tmp_path, events, message):
    settings = gan(tmp_path)
    with pytest.raises((ValueError, TypeError), match=message):
        settings.fit(events())
    with pytest.raises((ValueError, TypeError), match=rf"(?s)samples\[1\].*{message}"):
        settings.fit_many([EVENTS, events()])
    assert not list(tmp_path.iterdir())


def test_weights_conditions_and_samples_that_differ_are_refused():
    quick = pg.GAN(**SMALL)
    with pytest.raises(ValueError, match=r"weights is given.*pg\.SVI"):
        quick.fit(EVENTS, torch.ones(40))
    with pytest.raises(ValueError, match="context is given; a GAN takes no conditions"):
        quick.fit(EVENTS, context=EVENTS)
    with pytest.raises(ValueError, match=r"samples\[1\] has the shape \[30, 2\], and samples\[0\] has \[40, 2\]"):
        quick.fit_many([EVENTS, EVENTS[:30]])
    names = [pg.EventSample(EVENTS, [*each]) for each in ("ab", "ba")]
    with pytest.raises(ValueError, match=r"samples\[1\] has the names \('b', 'a'\)"):
        quick.fit_many(names)
    with pytest.raises(ValueError, match="several samples"):
        quick.fit_many(EVENTS)


def test_a_loss_that_is_not_finite_ends_the_training():
    with pytest.raises(pg.TrainingDivergedError, match=r"sample 0: a loss was NaN or infinite in epoch \d+ .*lr \(now"):
        pg.GAN(**SMALL | {"lr": 1e30}).fit_many([EVENTS, EVENTS])


def test_the_paper():
    """Every number of [D] sec. 2."""
    paper = pg.GAN.paper(seed=4)
    assert (paper.noise, paper.hidden, paper.embedding) == (1000, (256,) * 7, (256, 256, 32))
    assert (paper.dropout, paper.penalty, paper.smearing, paper.batch_size) == (0.5, 0.01, 0.1, 10)
    assert (paper.epochs, paper.lr, paper.betas, paper.decay) == (10_000, 5e-5, (0.5, 0.9), 0.9)
    assert (paper.average, paper.standardise, paper.seed) == (0.0, False, 4)
    few = replace(paper, epochs=1, progress=False).fit(EVENTS)
    assert few.sample(3).shape == (3, 2)
    with pytest.raises(TypeError, match="nosie"):
        pg.GAN.paper(nosie=3)


def test_units_do_not_matter_unless_asked():
    """Standardised columns in other units, powers of two, give the same events in these units."""
    factor = torch.tensor([1024.0, 0.125], dtype=torch.float64)
    one, other = (pg.GAN(**SMALL).fit(EVENTS.double() * by).sample(20) for by in (1.0, factor))
    assert torch.allclose(one * factor, other, rtol=1e-4)
    raw = [pg.GAN(standardise=False, **SMALL).fit(EVENTS.double() * by).sample(20) for by in (1.0, factor)]
    assert not torch.allclose(raw[0] * factor, raw[1], rtol=0.1)


def test_coverage():
    """That of the truth is 1 - 2^-5; a generator of one of two modes reaches half of the events."""
    x = torch.randn(2000, 2, generator=torch.Generator().manual_seed(5))
    true, other = x[:1000], x[1000:]
    assert coverage(true, other) == pytest.approx(1 - 2**-5, abs=0.02)
    modes = true + torch.where(torch.arange(1000) % 2 == 0, 20.0, 0.0)[:, None]
    assert coverage(modes, other) == pytest.approx(0.5, abs=0.03)
    # Events that are far from the origin, as without standardise, have the same neighbours.
    far = x[:, :1] + 1000.0
    assert coverage(far[:1000], far[1000:]) == pytest.approx(coverage(true[:, :1], other[:, :1]), abs=0.01)
    assert collapse([0.97]) == ()
    assert "sample 1, 50% of the training events" in str(collapse([0.97, 0.5, 0.7])[0])


def test_mode_collapse_is_told_once_for_all_samples():
    with pytest.warns(pg.SamplingWarning, match="mode collapse: 2 of 2 samples") as told:
        found = pg.GAN(**SMALL | {"epochs": 1}).fit_many([EVENTS, EVENTS])
    assert len(told) == 1
    assert found[0].info.findings[0].problem == "mode collapse" and not found[0].info.is_posterior


def test_a_model_in_the_place_of_events_is_named():
    model = pg.BayesianFlow(pg.CouplingFlow(2, blocks=1, hidden=(4,)))
    for fit in (pg.GAN().fit, pg.GAN().fit_many):
        with pytest.raises(TypeError, match="events is a BayesianFlow; a GAN has networks of its own"):
            fit(model, torch.randn(20, 1))
