"""A flow with a discriminator: its weights are the ratio of the densities, and all else is the training of SVI."""

import math

import pytest
import torch

import pyrogen as pg
from pyrogen.classifier import Classifier
from pyrogen.diagnostics import advise, elpd, reweight, train_classifier
from pyrogen.inference.vi.discriminated import DiscriminatedObjective, effective_share, ratio_weights
from pyrogen.inference.vi.discriminator import Discriminator

QUICK = {"epochs": 6, "batch_size": 50, "lr": 5e-3, "progress": False}
NORMAL = torch.distributions.Normal


def events(n=300):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(1)) * torch.tensor([1.0, 2.0]) + 1


def model(context=0):
    return pg.BayesianFlow(pg.CouplingFlow(2, 2, (8,), context=context))


def same(one, other):
    probes = events(40)
    return torch.equal(one.log_prob(probes, draws=3), other.log_prob(probes, draws=3))


def objective(settings, data_weights=None, context=None):
    prepared, data = settings.checked(
        model(0 if context is None else context.shape[1]), events(), data_weights, context
    )
    return DiscriminatedObjective(settings, prepared, data)


@pytest.mark.parametrize("weights", [None, torch.linspace(0.5, 2, 300)], ids=["plain", "weighted"])
def test_without_power_it_is_svi_to_the_same_bits(weights):
    plain = pg.SVI(**QUICK, validation=0.2).fit(model(), events(), weights)
    found = pg.DiscFlow(**QUICK, validation=0.2, alpha=0.0).fit(model(), events(), weights)
    assert same(plain, found) and (found.history["nll"] == plain.history["nll"]).all()
    assert not found.info.reweighted and found.info.findings == ()


def test_before_the_ramp_it_is_svi_to_the_same_bits():
    """The discriminator learns, with random numbers of its own."""
    plain = pg.SVI(**QUICK).fit(model(), events())
    found = pg.DiscFlow(**QUICK, ramp=(0.9999, 1.0)).fit(model(), events())
    assert same(plain, found) and math.isfinite(found.history["discriminator_loss"][-1])
    assert not same(plain, pg.DiscFlow(**QUICK, ramp=(0.2, 0.5)).fit(model(), events()))


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_weights_of_an_exact_discriminator_are_the_known_ratio(alpha, weighted, monkeypatch):
    """p = N(0, 1) against q = N(0.5, 1): p/q = exp(1/8 - x/2)."""
    settings = pg.DiscFlow(**QUICK, alpha=alpha, ramp=(0.0, 0.0))
    own = torch.linspace(0.5, 2, 300) if weighted else None
    loss = objective(settings, own)
    rows = torch.arange(50)[None]
    x = loss.data.events[rows[0], 0]
    ratio = NORMAL(0.0, 1.0).log_prob(x) - NORMAL(0.5, 1.0).log_prob(x)
    monkeypatch.setattr(Discriminator, "log_ratio", lambda self, standardised: ratio)
    seen = []
    monkeypatch.setattr(
        DiscriminatedObjective, "_losses", lambda self, rows, size: seen.append(self._weights_of(rows)) or _zero(self)
    )
    loss.step(rows, torch.tensor([5e-3, 0.0]), False)
    expected = (0.125 - 0.5 * x).exp() ** alpha
    expected = expected / expected.mean()
    assert torch.allclose(seen[0], expected * (1 if own is None else loss.event_weights[rows[0]]), rtol=1e-5)
    row = loss.epoch_figures()
    assert row["weight_spread"][0] == pytest.approx(float(expected.std(correction=0)), rel=1e-4)
    assert row["effective_share"][0] == pytest.approx(float(1 / expected.square().mean()), rel=1e-4)
    assert row["alpha"][0] == alpha
    assert loss._weights_of(rows[0]) is None or torch.equal(loss._weights_of(rows[0]), loss.event_weights[rows[0]])


def _zero(loss):
    nothing = sum(parameter.sum() * 0 for parameter in loss.parameters)
    return nothing[None], nothing[None].detach(), nothing[None].detach()


def test_the_power_rises_along_the_ramp():
    loss = objective(pg.DiscFlow(**QUICK, alpha=2.0, ramp=(0.25, 0.75)))  # 36 steps
    found = []
    for steps in (0, 9, 18, 27, 36):
        loss.steps_done = steps
        found.append(loss.alpha)
    assert found == [0, 0, 1, 2, 2]


def test_a_ratio_that_is_not_finite_counts_as_one():
    weights = ratio_weights(torch.tensor([0.0, math.nan, math.log(2.0), -math.inf]), 1.0)
    assert weights.tolist() == pytest.approx([0.8, 0.8, 1.6, 0.8])
    assert effective_share(torch.tensor([1.0, 1.0, 0.0, 0.0])) == 0.5


def test_the_discriminator_learns_the_ratio():
    """Of N(0, 1) and N(1, 1) it is exp(1/2 - x); 400 steps of 1,000 events know its slope and height to 0.1."""
    torch.manual_seed(0)
    network = Discriminator(torch.randn(1000, 1), None, None, (16,), 0)
    ones = torch.ones(1000)
    for step in range(400):
        true, other = (network.standardise(torch.randn(1000, 1) + shift, None) for shift in (0, 1))
        loss = network.learn(true, other, (ones, ones), 1e-2 * (1 - step / 400))
    x = torch.linspace(-1, 2, 7)[:, None]
    found = network.log_ratio(network.standardise(x, None))
    assert (found - (0.5 - x[:, 0])).abs().max() < 0.15 and 0.5 < loss < math.log(2)


def test_objects_that_are_not_there_come_with_flags():
    """Only the number of objects differs, 70 % of true and 30 % of generated events have two: ratios 7/3 and 3/7."""
    torch.manual_seed(0)

    def made(share, n=2000):
        x = torch.randn(n, 4)
        x[torch.rand(n) > share, 2:] = math.nan
        return x

    network = Discriminator(made(0.7), None, lambda x: x[:, :1] - x[:, 2:3], (16,), 0)
    assert network.classifier.missing == [2, 3, 4] and network.classifier.network[0].in_features == 8
    ones = torch.ones(2000)
    for step in range(150):
        true, other = (network.standardise(made(share), None) for share in (0.7, 0.3))
        network.learn(true, other, (ones, ones), 1e-2 * (1 - step / 150))
    x = made(0.5)
    found, two = network.log_ratio(network.standardise(x, None)), ~x[:, 2].isnan()
    assert found[two].mean() == pytest.approx(math.log(7 / 3), abs=0.1)
    assert found[~two].mean() == pytest.approx(math.log(3 / 7), abs=0.1)


def test_generated_events_that_are_not_finite_do_not_count():
    network = Discriminator(events(), None, None, (4,), 0)
    true = network.standardise(events(), None)
    broken = true.clone()
    broken[3] = math.nan
    assert math.isfinite(network.learn(true, broken, (torch.ones(300), torch.ones(300)), 1e-3))
    assert all(parameter.isfinite().all() for parameter in network.classifier.parameters())


def test_interrupted_it_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    settings = QUICK | {"ramp": (0.2, 0.6), "observables": lambda x: x.norm(dim=1, keepdim=True)}
    whole = pg.DiscFlow(**settings).fit(model(), events())
    backend = pg.DiscFlow(**settings, checkpoint=tmp_path / "run.h5")
    figures, done = DiscriminatedObjective.epoch_figures, []

    def interrupted(self):
        done.append(1)
        if len(done) == 5:
            raise KeyboardInterrupt
        return figures(self)

    with monkeypatch.context() as patch:
        patch.setattr(DiscriminatedObjective, "epoch_figures", interrupted)
        with pytest.raises(KeyboardInterrupt):
            backend.fit(model(), events())
    found = backend.fit(model(), events())
    assert same(whole, found)
    for name in ("nll", "discriminator_loss", "weight_spread", "effective_share", "alpha"):
        assert (found.history[name] == whole.history[name])[1:].all() and len(found.history[name]) == 6
    with pytest.raises(pg.CheckpointMismatchError, match="settings.alpha: 1.0 in the file, 0.5 in this run"):
        pg.DiscFlow(**settings, alpha=0.5, checkpoint=tmp_path / "run.h5").fit(model(), events())


def test_other_observables_do_not_take_up_the_checkpoint(tmp_path):
    """Their name is the same, <lambda>."""
    short = QUICK | {"epochs": 2, "checkpoint": tmp_path / "run.h5"}
    product, difference, both = (lambda x: x[:, :1] * x[:, 1:]), (lambda x: x[:, :1] - x[:, 1:]), (lambda x: x)
    pg.DiscFlow(**short, observables=product).fit(model(), events())
    for other in (difference, both):  # other values, another number
        with pytest.raises(pg.CheckpointMismatchError, match="a run with other observables: of 3 variables"):
            pg.DiscFlow(**short, observables=other).fit(model(), events())


def test_observables_that_compute_in_place_change_no_events():
    found = [
        pg.DiscFlow(**QUICK, observables=f).fit(model(), events().double())
        for f in (lambda x: x**2, lambda x: x.pow_(2))
    ]
    assert same(*found)


def test_a_discriminator_that_does_not_learn_is_told():
    with pytest.raises(pg.TrainingDivergedError, match="the discriminator's loss is nan, .* smaller discriminator_lr"):
        pg.DiscFlow(**QUICK, discriminator_lr=1e30).fit(model(), events())
    with pytest.warns(pg.SamplingWarning, match="discriminator learned nothing: its loss is"):
        pg.DiscFlow(**QUICK, discriminator_lr=1e3).fit(model(), events())


def test_weights_that_never_counted_make_no_reweighted_result():
    """A ramp at the end of the training, or an epoch kept from before it."""
    assert not pg.DiscFlow(**QUICK, ramp=(1.0, 1.0)).fit(model(), events()).info.reweighted
    found = pg.DiscFlow(**QUICK, ramp=(0.5, 1.0), validation=0.3, patience=20).fit(model(), events())
    assert found.info.reweighted == (found.history["alpha"][found.info.kept_epoch - 1] > 0)


def test_degenerate_weights_stop_the_training(monkeypatch):
    monkeypatch.setattr(Discriminator, "log_ratio", lambda self, standardised: 5 * standardised[:, 0])
    with pytest.raises(pg.TrainingDivergedError, match=r"worth .* % of its events at alpha = 1, less than"):
        pg.DiscFlow(**QUICK, ramp=(0.3, 0.3)).fit(model(), events())
    kept = pg.DiscFlow(**QUICK, ramp=(0.3, 0.3), least_effective=0.0).fit(model(), events())
    assert kept.history["effective_share"][-1] < 0.1


def test_a_saturated_discriminator_is_told(monkeypatch):
    monkeypatch.setattr(Discriminator, "learn", lambda *_: 0.05)
    with pytest.warns(pg.SamplingWarning, match="discriminator saturated: its loss is 0.050 at the end"):
        found = pg.DiscFlow(**QUICK).fit(model(), events())
    assert "discriminator saturated" in advise(found)


def test_the_result_says_that_it_is_no_posterior_of_the_events(tmp_path):
    found = pg.DiscFlow(**QUICK).fit(model(), events())
    found.save(tmp_path / "d.h5")
    for posterior in (found, pg.load(tmp_path / "d.h5")):
        assert posterior.info.reweighted and "reweighted by a discriminator" in advise(posterior)
        assert posterior.info.details["alpha"] == 1.0 and "Posterior(DiscFlow" in repr(posterior)
        with pytest.raises(ValueError, match="a discriminator weighted the events"):
            elpd(posterior, events(), trained=True)
    again = pg.DiscFlow(**QUICK).fit(model(), events(), start=found)
    assert again.info.started_from["backend"] == "DiscFlow"
    assert len(pg.DiscFlow(**QUICK).fit_many(model(), [events(), events() + 1])) == 2


def test_conditional_flows_and_a_foreign_guide():
    context = torch.linspace(-1, 1, 300)[:, None]
    found = pg.DiscFlow(**QUICK, ramp=(0.0, 0.5)).fit(model(1), events(), torch.linspace(0.5, 2, 300), context)
    assert math.isfinite(found.history["discriminator_loss"][-1])
    loss = objective(pg.DiscFlow(**QUICK), None, context)
    assert loss.discriminator.classifier.network[0].in_features == 3  # the condition is seen
    other = pg.DiscFlow(**QUICK, guide=pg.LastLayers).fit(model(), events())
    assert math.isfinite(other.history["discriminator_loss"][-1])


def test_a_flow_of_a_varying_number_of_objects():
    torch.manual_seed(0)
    x = torch.randn(300, 4)
    x[torch.rand(300) > 0.6, 3:] = math.nan
    layout = pg.events.Multiplicity(shared=2, each=1, most=2)
    flow = pg.MultiplicityFlow(shared=2, each=1, most=2, blocks=2, hidden=(8,))
    sample = pg.EventSample(x, multiplicity=layout)
    found = pg.DiscFlow(**QUICK, ramp=(0.0, 0.5)).fit(pg.BayesianFlow(flow, preprocessing=None), sample)
    assert math.isfinite(found.history["nll"][-1]) and found.history["effective_share"][-1] > 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": -1.0}, "alpha is -1.0"),
        ({"ramp": (0.5, 0.2)}, "ramp is .* the first not larger"),
        ({"ramp": 0.5}, "ramp is 0.5"),
        ({"least_effective": 1.5}, "least_effective is 1.5"),
        ({"discriminator_hidden": (0,)}, "discriminator_hidden"),
        ({"kl_weight": "calibrated"}, "DiscFlow cannot find"),
        ({"observables": lambda x: x[:, 0]}, r"observables\(events\) is \[300\] of .*64; .* \[300, m\]"),
        ({"observables": lambda x: torch.complex(x, x)}, r"is \[300, 2\] of torch.complex128; .* real numbers"),
        ({"observables": lambda x: x[:, : 1 + (len(x) > 50)]}, r"is \[50, 1\] of .*; .* real numbers \[50, 2\]"),
        ({"observables": lambda x: x / 0}, "observable 0 is infinite in row"),
        ({"observables": lambda x: x * math.nan}, "observable 0 is NaN in all"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        pg.DiscFlow(**QUICK | settings).fit(model(), events())


def test_reweighted_events_have_the_truths_histograms():
    """Generated N(0, 1) to the truth N(0.5, 1): mean 0.5, effective share exp(-1/4)."""
    n = 20_000
    torch.manual_seed(0)
    logs = torch.randn(n, 3)
    generated = pg.EventSample(torch.randn(n, 1), ["x"], weights=torch.full((n,), 2.0), log_weights=logs)

    class Exact:
        def log_ratio(self, sample):
            return sample.tensor(torch.float64)[:, 0] / 2 - 0.125

    found = reweight(Exact(), generated)
    assert found.events.total_weight == pytest.approx(2 * n) and found.before == pytest.approx(n)
    assert (found.events.log_weights == generated.log_weights).all() and found.events.names == ("x",)
    # The mean of x w has a standard deviation of 1.2 / sqrt(n), the effective share of 0.7 / sqrt(n).
    mean = float((found.events.values[:, 0] * found.events.weights).sum()) / (2 * n)
    assert mean == pytest.approx(0.5, abs=4 * 1.2 / math.sqrt(n))
    assert found.effective_size / n == pytest.approx(math.exp(-0.25), abs=4 * 0.7 / math.sqrt(n))
    assert found.clipped == 0 and "20,000 events reweighted" in found.text()
    cut = reweight(Exact(), generated, largest=2.0)
    beyond = generated.values[:, 0] / 2 - 0.125 > math.log(2.0)
    assert cut.clipped == beyond.sum() and cut.events.weights.max() == pytest.approx(cut.events.weights[beyond].min())


def test_a_trained_classifier_reweights():
    torch.manual_seed(0)
    truth, generated = torch.randn(5000, 1) + 0.5, pg.EventSample(torch.randn(5000, 1))
    classifier = train_classifier(truth, torch.randn(5000, 1), epochs=10, lr=3e-3, hidden=(16,), progress=False)
    found = reweight(classifier, generated)
    mean = float((found.events.values[:, 0] * found.events.weights).sum() / found.events.total_weight)
    assert mean == pytest.approx(0.5, abs=0.1) and 0.6 < found.effective_size / 5000 < 1


def test_a_network_with_flags_needs_variables_that_exist():
    with pytest.raises(ValueError, match=r"missing is \[2\]; it must name variables below inputs, 2"):
        Classifier(2, missing=[2])
