"""Advice: every illness made on purpose is named, and a healthy posterior is called healthy."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from known import RECORD, Line, Location
from torch import nn

import pyrogen as pg
from pyrogen.diagnostics import advise
from pyrogen.events import EventSample
from pyrogen.posterior import Finding, MeanField, Point, RunInfo, StoredDraws

EVENTS = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))


def model(flow=None, **kwargs):
    return pg.BayesianFlow(flow or Location(2), preprocessing=None, **kwargs)


def guide(scale=0.04, history=None, flow=None, **info):
    arrays = {"loc": torch.zeros(2), "scale": torch.full((2,), scale)}
    info = {"backend": "SVI", "epochs_done": 0, "settings": {"init_scale": 1e-3, "kl_weight": 1.0}} | info
    return pg.Posterior(model(flow), MeanField(**arrays), history, RunInfo(**info))


def sampled(shift=0.0, chains=4, draws=200, correlated=False, **info):
    noise = np.random.default_rng(0).normal(size=(chains, draws, 2))
    if correlated:
        noise = np.cumsum(noise, 1) / np.sqrt(draws)
    noise += shift * np.arange(chains)[:, None, None]
    draws = torch.from_numpy(0.04 * noise).float()
    return pg.Posterior(model(), StoredDraws(draws), info=RunInfo(**{"backend": "HMC"} | info))


def problems(found):
    return {finding.problem for finding in found.findings}


def test_healthy_chains_are_called_healthy():
    found = advise(sampled(), EVENTS)
    assert found.ok and problems(found) == {"not calibrated"}, found.text()
    assert found.text().startswith("Nothing serious was found")
    assert {"chains", "normalisation", "range of generated events", "density at the events"} <= set(found.checked)
    # Without events the range is not checked, and the text says so.
    alone = advise(sampled())
    assert alone.ok and "range of generated events (give events or support)" in alone.unchecked
    assert "Not checked: range" in alone.text()


def test_a_healthy_guide_gets_only_the_note_on_mean_field():
    history = {name: np.zeros(30) + value for name, value in (("nll", 1.0), ("learning_rate", 1e-3))}
    found = advise(guide(history=history, epochs_done=30), EVENTS)
    assert problems(found) == {"mean field", "not calibrated"} and found.ok
    assert {"end of the training", "widths"} <= set(found.checked)


@pytest.mark.parametrize(
    ("posterior", "problem", "words"),
    [
        (sampled(shift=3.0), "chains apart", "R-hat of log p"),
        (sampled(correlated=True), "few effective draws", "at the worst of 100 probe points"),
        (sampled(chains=1), "one chain", "chains=4"),
        (sampled(chains=2, draws=4), "few draws", "8 networks"),
        (
            sampled(findings=(Finding("the chains disagree", "split R-hat is 2", "Try a longer warmup"),)),
            "the chains disagree",
            "split R-hat is 2",
        ),
        (guide(1e-3), "guide collapsed to its initial width", "100% of the widths"),
        (guide(tempered=True, settings={"kl_weight": 0.1}), "tempered", "weighted by 0.1"),
        (guide(history={"skipped_steps": np.array([0.0, 3.0])}), "steps left out", "3 steps"),
        (pg.Posterior(model(), Point(loc=torch.zeros(2))), "no posterior", "single networks"),
        (sampled(chains=12, draws=1, backend="Ensemble", is_posterior=False), "no posterior", "spread of an ensemble"),
    ],
)
def test_every_illness_is_named(posterior, problem, words):
    found = advise(posterior, EVENTS)
    assert problem in found, found.text()
    assert words in " ".join(found.text().split())


def curves(nll, epochs=300):
    """Curves of a cosine schedule: ``nll`` as a function of the fraction of its time."""
    rate = 1e-3 * (1 + np.cos(np.pi * np.arange(epochs) / epochs)) / 2
    noise = np.random.default_rng(1).normal(size=epochs)
    noise[[150, 190, 250]] = 1e6  # events that overflow
    return {"learning_rate": rate, "nll": nll(np.cumsum(rate) / rate.sum()) + 0.002 * noise}


def test_a_training_that_had_not_ended():
    """Linear in the time of the schedule, though in epochs the last part is flat: 0.05 or more from sixth to sixth."""
    history = curves(lambda t: 2 - 0.3 * t)
    found = advise(guide(history=history, epochs_done=300), EVENTS)
    assert "loss still falling" in found and not found.ok
    (finding,) = (f for f in found.findings if f.problem == "loss still falling")
    assert 0.05 <= float(re.search(r"fell by ([\d.]+)", finding.found)[1]) < 0.1
    # What is left is noise: no trend is read into it.
    ended = curves(lambda t: 2 - 0.3 * np.minimum(2 * t, 1))
    assert problems(advise(guide(history=ended, epochs_done=300), EVENTS)) == {"mean field", "not calibrated"}
    short = {name: values[:5] for name, values in history.items()}
    assert any("too few" in reason for reason in advise(guide(history=short, epochs_done=5)).unchecked)


@pytest.mark.parametrize(("factor", "growing"), [(1.0, False), (1.5, False), (0.6, True)])
def test_the_widths_are_at_the_end_of_their_way_where_prior_and_data_balance(factor, growing):
    """A location of 500 events has the width 1/sqrt(500 + 1): the data hold it back with 500 sigma^2 per weight."""
    posterior = guide(factor / np.sqrt(501), effective_size=500)
    found = advise(posterior, EVENTS)
    assert ("widths still growing" in found) == growing, found.text()
    if growing:
        force = [float(word.strip(",;")) for word in found.findings[0].found.split() if word[0].isdigit()]
        # 50 draws of two squares know it to sqrt(2 / 100); the prior's pull is 2 (1 - sigma^2) = 2.0.
        assert force[0] == pytest.approx(2, abs=0.01) and force[1] == pytest.approx(2 * factor**2, abs=0.7)


@pytest.mark.parametrize("tempered", [True, False])
def test_a_calibrated_guide_is_not_scolded_for_what_calibration_mends(tempered):
    record = replace(RECORD, value=0.1 if tempered else 1.0)
    settings = {"init_scale": 1e-3, "kl_weight": record.value}
    found = advise(guide(calibration=record, tempered=tempered, settings=settings), EVENTS)
    assert problems(found) == {"calibrated"} and found.ok
    assert "66.1 +- 3.0 % within 1 sigma" in str(found.findings[0])
    assert ("label it as tempered" in str(found.findings[0])) == tempered
    found = advise(guide(calibration=replace(record, verdict="too narrow"), tempered=tempered, settings=settings))
    assert not found.ok and problems(found) == {"sigma too narrow"}, found.text()
    assert "multiply it by 0.93" in str(found.findings[0])


class Twice(Location):
    """A density that is wrong by a factor."""

    def __init__(self, factor):
        super().__init__(2)
        self.factor = factor

    def log_prob(self, x):
        return super().log_prob(x) + torch.tensor(self.factor).log()


@pytest.mark.parametrize(("factor", "wrong"), [(1.0, False), (0.9, True), (1.1, True), (float("inf"), True)])
def test_the_density_is_integrated(factor, wrong):
    found = advise(guide(flow=Twice(factor)))
    assert ("density not normalised" in found) == wrong, found.text()
    if wrong and factor < 2:
        assert f"{factor:.1f}" in found.text()


def test_the_integral_holds_for_rings_and_edges():
    for target in (pg.targets.Wedge(), pg.targets.GaussianRing(), pg.targets.GammaRing()):

        class Exact(nn.Module):
            features = 2

            def __init__(self, target):
                super().__init__()
                self.target, self.nothing = target, nn.Parameter(torch.zeros(2))

            def log_prob(self, x):
                return self.target.log_prob(x) + 0 * self.nothing.sum()

            def sample(self, n):
                return self.target.sample((n,))

        found = advise(guide(flow=Exact(target)), target.sample((5000,)), support=target)
        assert found.ok and "normalisation" in found.checked, found.text()


class Wide(Location):
    """Generates events twice as wide as its density."""

    def sample(self, n):
        return 2 * super().sample(n)


@pytest.mark.parametrize("n", [50, 100, 500])
def test_new_events_beyond_the_extremes_of_few_are_no_finding(n):
    for seed in range(5):
        events = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))
        assert "events outside" not in advise(guide(), events), n


class Narrow(Location):
    """Four peaks too narrow for the estimate, and perhaps a wide hill where no event is generated."""

    def __init__(self, hill=0.0):
        super().__init__(2)
        self.hill = torch.tensor(hill)

    def log_prob(self, x):
        z = (x.abs() - 1) / 1e-3
        peaks = (-0.5 * z.square() - torch.tensor(2e-3 * (2 * torch.pi) ** 0.5).log()).sum(-1)
        hill = (-0.5 * x.square() - torch.tensor((2 * torch.pi) ** 0.5).log()).sum(-1)
        return torch.logaddexp(peaks, hill + self.hill.log())

    def sample(self, n):
        return torch.sign(torch.randn(n, 2)) * (1 + 1e-3 * torch.randn(n, 2))


def test_an_integral_that_is_not_known_is_no_finding():
    found = advise(guide(flow=Narrow()))
    assert "density not normalised" not in found
    assert any("too structured" in reason for reason in found.unchecked)


def test_density_where_no_event_is_generated_is_seen_however_narrow_the_peaks_are():
    found = advise(guide(flow=Narrow(hill=0.7)))
    assert "density not normalised" in found and not found.ok, found.text()
    # Without a point in the peaks the estimate has the hill alone; with one, the hill's share that the bounded estimate
    # sees: the integral of h t / (h + t) for similar hills h and t.
    integral = float(re.search(r"integrates to ([\d.]+)", found.text())[1])
    assert integral == pytest.approx(0.7, abs=0.05) or 1.1 < integral < 1.7


def test_events_outside_are_counted():
    found = advise(guide(flow=Wide(2)), EVENTS)
    # Beyond the extremes of 500 events, about 3 sigma, a width of two has erfc(3 / 2 / sqrt(2)) = 13 % a column.
    (finding,) = (f for f in found.findings if f.problem == "events outside")
    assert finding.serious and float(finding.found.split("%")[0]) == pytest.approx(25, abs=12)
    assert "in x" in finding.found
    inside = advise(guide(), support=lambda x: x[:, 0] > 0)
    assert "events outside" in inside and "50" in inside.text()
    with pytest.raises(ValueError, match="support gave shape"):
        advise(guide(), support=lambda x: x > 0)


def test_events_without_density_are_counted():
    box = model(pg.CouplingFlow(2, 2, (4,), transform="bernstein", base="uniform", bins=3))
    weights = StoredDraws(0.1 * torch.randn(4, 50, box.weights))
    events = torch.rand(50, 2)
    events[7] = 1.5
    found = advise(pg.Posterior(box, weights), events)
    assert "no density at some events" in found
    assert "1 of 50 events" in found.findings[0].found and "row 7" in found.findings[0].found
    assert any(reason.startswith("chains (log p is -inf") for reason in found.unchecked) or "chains" in found.checked


def test_conditional_flows_are_looked_at_as_far_as_it_goes():
    conditional = pg.BayesianFlow(Line(), preprocessing=None)
    weights = StoredDraws(torch.randn(2, 50, 3))
    found = advise(pg.Posterior(conditional, weights), torch.randn(40, 1), context=torch.randn(40, 3))
    assert "density at the events" in found.checked and "normalisation (the flow is conditional)" in found.unchecked
    with pytest.raises(ValueError, match="shape"):
        advise(sampled(), torch.zeros(3, 5))


def test_events_that_differ_from_the_training_are_named():
    wide = np.random.default_rng(5).normal(size=(5000, 2)) * [1.0, 1.3]
    found = advise(guide(), EventSample(wide, ["pt", "eta"]))
    (finding,) = (f for f in found.findings if f.problem == "generated events differ")
    assert finding.serious and "of eta" in finding.found and "1 more of the 3" in finding.found
    # The same events with weights that make them narrow again: nothing differs.
    weights = np.exp(-0.5 * wide[:, 1] ** 2 * (1 - 1 / 1.3**2))
    assert "generated events differ" not in advise(guide(), EventSample(wide, weights=weights))
    assert "generated events differ" not in advise(guide(), EVENTS)
    few = advise(guide(), EVENTS[:40])
    assert any("effectively 40 events; at least 60" in reason for reason in few.unchecked)


def test_conditional_events_are_generated_with_their_own_conditions():
    conditional = pg.BayesianFlow(Line(), preprocessing=None)
    theta = torch.tensor([1.0, -1.0, 0.5])
    posterior = pg.Posterior(conditional, StoredDraws(theta + 0.01 * torch.randn(2, 20, 3)))
    context = torch.randn(3000, 3, generator=torch.Generator().manual_seed(1))
    events = (context @ theta)[:, None] + torch.randn(3000, 1, generator=torch.Generator().manual_seed(2))
    assert "generated events differ" not in advise(posterior, events, context=context)
    assert "generated events differ" in advise(posterior, events, context=2 * context)


def test_conditions_beyond_those_of_the_training_are_counted():
    conditional = pg.BayesianFlow(Line(), preprocessing=None)
    info = RunInfo(context_range=((-3.0, 3.0), (0.0, 1.0), (-3.0, 3.0)))
    posterior = pg.Posterior(conditional, StoredDraws(torch.randn(2, 20, 3)), info=info)
    context = torch.rand(200, 3, generator=torch.Generator().manual_seed(1))
    assert "conditions outside" not in advise(posterior, context=context)
    context[:50, 1] += 1.0
    (finding,) = (f for f in advise(posterior, context=context).findings if f.problem == "conditions outside")
    assert finding.serious and finding.found.startswith("25.0%") and "0 to 1 in column 1" in finding.found


def test_the_range_of_the_conditions_is_that_of_the_training(tmp_path):
    x, context = torch.randn(60, 1), torch.linspace(100, 3000, 60)[:, None]
    fit = pg.SVI(epochs=1, progress=False).fit(
        pg.BayesianFlow(pg.CouplingFlow(1, 2, (4,), context=1)), x, context=context
    )
    fit.save(tmp_path / "a.h5")
    assert pg.load(tmp_path / "a.h5").info.context_range == fit.info.context_range == ((100.0, 3000.0),)


def test_more_weights_than_events_are_told_and_not_trained_longer():
    history = curves(lambda t: 2 - 0.3 * t)
    crowded = advise(guide(history=history, epochs_done=300, training_events=1), EVENTS)
    assert "more weights than events" in crowded and not crowded.ok
    text = " ".join(crowded.text().split())
    assert "2 weights for 1 training events" in text and "Do not train longer" in text
    assert "Train for more epochs" not in text
    assert "about as many weights as events" in text and "Bootstrap" in text and "kl_weight=0.1" in text
    fine = advise(guide(history=history, epochs_done=300, training_events=500), EVENTS)
    assert "more weights than events" not in fine and "Train for more epochs" in fine.text()


@pytest.mark.parametrize(("kl_weight", "events", "crowded"), [(1.0, 2, False), (0.9, 1, True), (0.5, 1, False)])
def test_a_smaller_weight_of_the_kl_counts_the_events_more_often(kl_weight, events, crowded):
    settings = {"init_scale": 1e-3, "kl_weight": kl_weight}
    found = advise(guide(epochs_done=300, training_events=events, settings=settings, tempered=kl_weight != 1))
    (told,) = (f.found for f in found.findings if f.problem == "more weights than events") if crowded else ("",)
    assert ("more weights than events" in found) is crowded
    assert "which count 1.11 times" in told or not crowded


def test_quick_runs_are_no_result():
    short = {name: values[:5] for name, values in curves(lambda t: 2 - 0.3 * t).items()}
    settings = {"init_scale": 1e-3, "kl_weight": 1.0, "batch_size": 100}
    found = advise(guide(history=short, epochs_done=5, training_events=500, settings=settings), EVENTS)
    assert "short training" in found and not found.converged and "25 steps in 5 epochs" in found.text()
    assert found.text().startswith("Not converged: these numbers are no result yet.")
    long = advise(guide(history=short, epochs_done=5, training_events=50_000, settings=settings), EVENTS)
    assert long.converged and any("too few to see a trend" in reason for reason in long.unchecked)


def test_a_flow_on_the_unit_box_is_not_told_to_go_there():
    box = model(pg.CouplingFlow(2, 2, (4,), transform="bernstein", base="uniform", bins=3))
    posterior = pg.Posterior(box, StoredDraws(0.1 * torch.randn(4, 50, box.weights)))
    text = " ".join(advise(posterior, support=lambda x: x[:, 0] > 0.5).text().split())
    assert "on the unit box already" in text and "learn on the unit box" not in text


def test_events_that_overflow_are_told_as_generated_ones():
    x = torch.randn(300, 2, generator=torch.Generator().manual_seed(4))
    x[:, 0] = (3 * x[:, 0]).exp()
    log = pg.events.Columns([pg.events.Chain([pg.events.Log(), pg.events.Standardise()]), pg.events.Standardise()])
    model = pg.BayesianFlow(pg.CouplingFlow(2, blocks=2, hidden=(8,)), preprocessing=log).prepare(x)
    wild = MeanField(loc=model.initial_theta, scale=3 + 0 * model.initial_theta)
    posterior = pg.Posterior(model, wild, progress=False)
    advice = advise(posterior, x, draws=8, generated=1000)
    assert "generated events overflow" in advice
    assert re.search(r"\d+ of 1000 generated events hold NaN or\s+infinity, most\s+of\s+them\s+in\s+x0", advice.text())
    settings = {"n": 1000, "draws": 8}
    for use in (
        lambda: posterior.generate(**settings),
        lambda: posterior.histogram(0, [0.0, 1.0], **settings),
        lambda: posterior.histogram(0, [0.0, 1.0], procedure="b", **settings),
        lambda: pg.to_inference_data(posterior, observed=x, draws=8),
    ):
        with pytest.raises(ValueError, match=r"the posterior generated \d+ of .* most of them in column 0 \(x0\)"):
            use()


def test_the_integral_holds_for_columns_of_any_unit():
    units = torch.tensor([1e-9, 1e9])
    x = torch.randn(300, 2, generator=torch.Generator().manual_seed(4)) * units
    model = pg.BayesianFlow(pg.CouplingFlow(2, blocks=1, hidden=(4,))).prepare(x)
    posterior = pg.Posterior(model, MeanField(loc=model.initial_theta, scale=0.01 + 0 * model.initial_theta))
    assert "normalisation" in advise(posterior, x, draws=5, generated=1000).checked
