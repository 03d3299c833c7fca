"""Events and conditions at every door: tables of other packages by name, one dimension where it is clear."""

from __future__ import annotations

import numpy as np
import pandas
import pytest
import torch

import pyrogen as pg
from pyrogen.events import EventSample


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    frame = pandas.DataFrame({"pt": torch.randn(200), "eta": 5 + torch.randn(200), "weight": 1.0})
    model = pg.BayesianFlow(pg.CouplingFlow(2, blocks=2, hidden=(4,)))
    return frame, pg.SVI(epochs=2, progress=False).fit(model, frame)


def test_a_frame_trains_with_its_names_and_weights(trained):
    frame, posterior = trained
    assert posterior.info.names == ("pt", "eta")
    weighted = frame.assign(weight=np.where(np.arange(200) < 100, 1.0, 3.0))
    model, svi = posterior.model, pg.SVI(epochs=1, progress=False)
    a = svi.fit(model, weighted)
    b = svi.fit(model, frame[["pt", "eta"]].to_numpy(), weights=weighted.weight.to_numpy())
    c = svi.fit(model, frame[["pt", "eta"]], weights=weighted.weight.sample(frac=1, random_state=0))
    assert a.info.effective_size == b.info.effective_size == c.info.effective_size < 200
    assert torch.equal(a.weights.arrays["loc"], b.weights.arrays["loc"])
    assert torch.equal(a.weights.arrays["loc"], c.weights.arrays["loc"])


def test_columns_are_chosen_by_name(trained):
    frame, posterior = trained
    events = frame[["pt", "eta"]]
    expected = posterior.log_prob(events.to_numpy())
    assert torch.equal(posterior.log_prob(events[["eta", "pt"]]), expected)
    assert torch.equal(posterior.log_prob(EventSample(events[["eta", "pt"]])), expected)
    assert torch.equal(posterior.log_prob(events.rename(columns={"pt": "x0", "eta": "x1"})), expected)
    diagnostics = pg.diagnostics
    assert diagnostics.elpd(posterior, events[["eta", "pt"]]).mean == diagnostics.elpd(posterior, events).mean
    for other in (events.rename(columns={"eta": "phi"}), frame.assign(run=1)):
        with pytest.raises(ValueError, match=r"but the posterior was trained on \('pt', 'eta'\); give these"):
            posterior.log_prob(other)


def test_conditions_are_chosen_by_name(trained, tmp_path):
    frame, _ = trained
    events, context = frame[["pt", "eta"]], frame.assign(a=frame.pt - 1, b=frame.eta * 2)[["a", "b"]]
    model = pg.BayesianFlow(pg.CouplingFlow(2, blocks=1, hidden=(4,), context=2))
    shuffled = context.sample(frac=1, random_state=0)  # the rows follow the labels
    posterior = pg.SVI(epochs=1, progress=False).fit(model, events, context=shuffled)
    posterior.save(tmp_path / "a.h5")
    for same in (posterior, pg.load(tmp_path / "a.h5")):
        assert same.info.context_names == ("a", "b")
        expected = same.log_prob(events.to_numpy(), context=context.to_numpy())
        assert torch.equal(same.log_prob(events, context=shuffled[["b", "a"]]), expected)
        with pytest.raises(ValueError, match=r"columns of context are \('a', 'c'\), .* trained on \('a', 'b'\)"):
            same.log_prob(events, context=context.rename(columns={"b": "c"}))
    some = EventSample(events.to_numpy())
    advice = [pg.diagnostics.advise(posterior, some, context=c, generated=100) for c in (context, context[["b", "a"]])]
    assert advice[0].text() == advice[1].text()
    for n, given in ((200, context), (20, context[:20])):
        pg.load(tmp_path / "a.h5").generate_to(tmp_path / "b.h5", n, draws=2, context=given)
        assert len(pg.events.read(tmp_path / "b.h5")) == n


def test_units_of_the_training(trained):
    frame, posterior = trained
    model, events = posterior.model, EventSample(frame, units=["GeV", ""])
    in_gev = pg.SVI(epochs=1, progress=False).fit(model, events)
    in_gev.log_prob(events), in_gev.log_prob(frame)
    with pytest.raises(ValueError, match="column pt is in MeV, but the posterior was trained in GeV; convert it"):
        in_gev.log_prob(EventSample(frame, units=["MeV", ""]))


def test_two_samples_with_their_columns_in_another_order(trained):
    frame, _ = trained
    for compare in (pg.diagnostics.wasserstein, lambda a, b: pg.diagnostics.train_classifier(a, b)):
        with pytest.raises(ValueError, match="has the columns pt, eta, .* in another order: eta, pt"):
            compare(frame[["pt", "eta"]], frame[["eta", "pt"]])
    weighted = frame.assign(weight=np.where(frame.pt > 0, 1.0, 0.0))
    assert pg.diagnostics.wasserstein(frame, weighted)[0] > 0.3


def test_weights_in_a_frame_are_not_lost(trained):
    frame, posterior = trained
    for call in (
        lambda: pg.diagnostics.elpd(posterior, frame),
        lambda: pg.to_inference_data(posterior, observed=frame),
        lambda: pg.SVI(epochs=1, progress=False).fit(
            pg.BayesianFlow(pg.CouplingFlow(2, blocks=1, hidden=(4,), context=3)), frame[["pt", "eta"]], context=frame
        ),
    ):
        with pytest.raises(ValueError, match="weights"):
            call()


def test_many_samples_have_their_columns_in_one_order(trained):
    frame, posterior = trained
    model, swapped = posterior.model, frame[["eta", "weight", "pt"]]
    svi = pg.SVI(epochs=1, progress=False)
    for plain, other in ((frame[["pt", "eta"]], swapped[["eta", "pt"]]), (frame, swapped)):  # one batch, and apart
        as_given, found = (svi.fit_many(model, [plain, second]) for second in (plain, other))
        for one, same in zip(as_given, found, strict=True):
            assert same.names == ("pt", "eta")
            assert torch.equal(one.weights.arrays["loc"], same.weights.arrays["loc"])
    with pytest.raises(ValueError, match="sample 1 has the columns pt, phi, and sample 0 has pt, eta"):
        svi.fit_many(model, [frame, frame.rename(columns={"eta": "phi"})])
    gev, mev = (EventSample(frame, units=[unit, ""]) for unit in ("GeV", "MeV"))
    with pytest.raises(ValueError, match="column pt is in MeV in sample 1, and in GeV in sample 0; convert it"):
        svi.fit_many(model, [gev, mev])


def test_what_is_no_table_is_told_with_what_to_do(trained, tmp_path):
    frame, posterior = trained
    EventSample(frame).save(tmp_path / "a.h5")
    for given, message in (
        (tmp_path / "a.h5", r"must be real numbers; got '.*a\.h5'\. Read a file first: pg\.events\.read"),
        (pg.events.stream(tmp_path / "a.h5"), r"got a generator\. Put the parts .* EventSample\.concatenate\(parts\)"),
        (object(), "must be real numbers; got an object of the class object"),
    ):
        with pytest.raises(TypeError, match=message):
            posterior.log_prob(given)


# --- one dimension -----------------------------------------------------------------------------------------------


def test_one_feature_in_one_dimension():
    x = torch.linspace(-1, 1, 50)
    flow = pg.CouplingFlow(1, blocks=1, hidden=(4,), transform="rqs")
    model, svi = pg.BayesianFlow(flow), pg.SVI(epochs=1, progress=False)
    posterior, same = svi.fit(model, x), svi.fit(model, x[:, None])
    assert torch.equal(posterior.weights.arrays["loc"], same.weights.arrays["loc"])
    expected = posterior.log_prob(x[:, None])
    for given in (x, x.numpy(), x.tolist(), pandas.Series(x.numpy(), name="pt")):
        assert torch.equal(posterior.log_prob(given), expected)
    with pytest.raises(ValueError, match=r"shape \[N, d\]"):
        posterior.log_prob(torch.tensor(1.0))
    diagnostics, settings = pg.diagnostics, {"draws": 50}
    for function in (diagnostics.elpd, diagnostics.guide_pareto_k, diagnostics.effective_parameters):
        assert repr(function(posterior, x, **settings)) == repr(function(posterior, x[:, None], **settings))
    texts = [diagnostics.advise(posterior, given, generated=100).text() for given in (x, x[:, None])]
    assert texts[0] == texts[1]
    found = [pg.to_inference_data(posterior, given, given, draws=3) for given in (x, x[:, None])]
    assert np.array_equal(*(one.log_likelihood["events"].values for one in found))


@pytest.mark.parametrize("k", [1, 2])
def test_one_condition_for_all_events(k):
    torch.manual_seed(0)
    x, context = torch.randn(60, 2), torch.rand(60, k)
    model = pg.BayesianFlow(pg.CouplingFlow(2, blocks=1, hidden=(4,), context=k))
    svi = pg.SVI(epochs=1, progress=False)
    posterior = svi.fit(model, x, context=context)
    row = [0.5, 0.25][:k]
    expected = posterior.log_prob(x, context=torch.tensor(row).expand(60, k))
    for given in (row, torch.tensor(row), np.array(row)) + ((0.5,) if k == 1 else ()):
        assert torch.equal(posterior.log_prob(x, context=given), expected)
        assert torch.equal(
            posterior.sample(7, context=given), posterior.sample(7, context=torch.tensor(row).expand(7, k))
        )
    if k == 1:
        assert torch.equal(posterior.log_prob(x, context=context[:, 0]), posterior.log_prob(x, context=context))
        assert torch.equal(
            svi.fit(model, x, context=context[:, 0]).weights.arrays["loc"], posterior.weights.arrays["loc"]
        )
    for wrong in (torch.rand(k + 1), torch.rand(1, k), 0.5 if k > 1 else torch.rand(59)):
        with pytest.raises(ValueError, match="context"):
            posterior.log_prob(x, context=wrong)
    with pytest.raises(ValueError, match="context"):
        svi.fit(model, x, context=row)  # in training one row for all would tell nothing
