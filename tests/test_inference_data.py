"""Posteriors in ArviZ: the right numbers under the right names, and ArviZ's own functions run on them."""

import json
import math
import types
import warnings

import matplotlib
import numpy as np
import pytest
import torch
import xarray
from known import Line, Location

import pyrogen as pg
from pyrogen.coverage.chains import import_arviz
from pyrogen.diagnostics import make_inference_data, read_inference_data, write_inference_data
from pyrogen.posterior import RunInfo, StoredDraws

az = import_arviz()
NEW = types.SimpleNamespace(__version__="1.0.0")  # stands for ArviZ 1, of which only the version counts
GROUPS = ["posterior", "posterior_predictive", "log_likelihood", "sample_stats", "observed_data", "constant_data"]


def groups_of(data):
    """Names of the groups: ArviZ 1 has them as a tree."""
    return list(data.children) if hasattr(data, "children") else data.groups()


def location(**info):
    return pg.BayesianFlow(Location(2), prior_scale=100.0, preprocessing=None)


def log_normal(x, mean):
    return (-0.5 * (x - mean) ** 2 - 0.5 * math.log(2 * math.pi)).sum(-1)


def sampled(events, chains=4, draws=100, **info):
    """Independent draws of the exact posterior of the location, in chains."""
    n = len(events)
    noise = torch.randn(chains, draws, 2, generator=torch.Generator().manual_seed(4)).double()
    theta = events.mean(0) + noise / math.sqrt(n)
    energy = np.random.default_rng(1).normal(size=(chains, draws))
    history = {"potential": energy, "energy": energy + 1, "diverging": np.zeros((chains, draws)), "acceptance": energy}
    history |= {"warmup_energy": np.zeros((chains, 7))}
    info = {"backend": "HMC", "names": ("px", "py"), "units": ("GeV", ""), "training_events": n, **info}
    return pg.Posterior(location(), StoredDraws(theta), history, RunInfo(**info))


@pytest.fixture(scope="module")
def events():
    return torch.randn(60, 2, generator=torch.Generator().manual_seed(3)).double()


def test_chains_and_draws_keep_their_place(events):
    posterior = sampled(events)
    probes = {"peak": [0.0, 0.0], "tail": [3.0, -2.0]}
    found = pg.to_inference_data(posterior, probes, events, weights=True, generated=7)
    assert sorted(groups_of(found)) == sorted(GROUPS)
    theta = posterior.weights.arrays["draws"].numpy()
    density = found.posterior["log_density"]
    assert density.dims == ("chain", "draw", "probe") and list(density.coords["probe"].values) == ["peak", "tail"]
    np.testing.assert_allclose(density.sel(probe="tail"), log_normal(np.array([3.0, -2.0]), theta), rtol=1e-5)
    likelihood = log_normal(events.numpy()[:, None, None], theta).transpose(1, 2, 0)
    np.testing.assert_allclose(found.log_likelihood["events"], likelihood, rtol=1e-4)
    np.testing.assert_allclose(found.posterior["log_likelihood_total"], likelihood.sum(-1), rtol=1e-5)
    np.testing.assert_array_equal(found.posterior["theta"], theta)
    assert found.posterior.coords["weight"].values.tolist() == ["location[0]", "location[1]"]
    np.testing.assert_array_equal(found.observed_data["py"], events[:, 1])
    np.testing.assert_array_equal(found.constant_data["probe_points"], list(probes.values()))
    assert found.sample_stats["diverging"].dtype == bool and "acceptance_rate" in found.sample_stats
    np.testing.assert_array_equal(found.sample_stats["lp"], -posterior.history["potential"])
    assert set(found.posterior_predictive) == {"px", "py"}
    assert json.loads(found.posterior.attrs["units"]) == {"px": "GeV"} and found.posterior.attrs["backend"] == "HMC"


def test_generated_events_are_those_of_their_draw(events):
    """Every draw generates around its own location: 4 x 3 means of 2,000 events, each known to 1 / sqrt(2000)."""
    far = torch.arange(24.0).reshape(4, 3, 2).double()
    posterior = pg.Posterior(location(), StoredDraws(far))
    state = torch.get_rng_state()
    found = pg.to_inference_data(posterior, generated=2000, histograms={"sum": (lambda x: x.sum(-1), 3, (-50, 100))})
    assert torch.equal(state, torch.get_rng_state())
    for i, name in enumerate(posterior.names):
        means = found.posterior_predictive[name].mean("event")
        np.testing.assert_allclose(means, far[..., i], atol=5 / math.sqrt(2000))
    histogram = found.posterior_predictive["hist_sum"]
    assert histogram.dims == ("chain", "draw", "bin_sum")
    np.testing.assert_allclose(histogram.coords["bin_sum"], [-25, 25, 75])
    np.testing.assert_allclose(histogram.sum("bin_sum"), 1)
    # The sums are 1 to 45, around which events spread by sqrt(2): all in the middle bin but for the first draws.
    assert (histogram.sel(bin_sum=25)[1:] > 0.99).all()
    few = pg.to_inference_data(posterior, draws=2, generated=3)
    assert few.posterior_predictive["x0"].shape == (4, 2, 3)
    np.testing.assert_allclose(few.posterior_predictive["x0"].mean("event"), far[:, [0, 2], 0], atol=5 / math.sqrt(3))


def test_blocks_of_few_draws_give_the_same(events, monkeypatch):
    posterior = sampled(events)
    whole = pg.to_inference_data(posterior, events[:5], events, generated=0)
    monkeypatch.setattr("pyrogen.diagnostics.stored_draws.WEIGHTS_AT_ONCE", 24)  # three draws at a time
    pieces = pg.to_inference_data(posterior, events[:5], events, generated=2)
    np.testing.assert_array_equal(whole.log_likelihood["events"], pieces.log_likelihood["events"])
    assert "posterior_predictive" not in groups_of(whole)
    # Blocks have seeds of their own: no two draws may share their noise.
    noise = pieces.posterior_predictive["px"] - posterior.weights.arrays["draws"][..., 0].numpy()[..., None]
    assert len(np.unique(np.asarray(noise).round(9))) == noise.size


def test_svi_is_one_chain_with_its_curve(events):
    posterior = pg.SVI(epochs=3, batch_size=30, progress=False, validation=0.1).fit(location(), events)
    found = pg.to_inference_data(posterior, observed=events)
    assert found.posterior["log_density"].shape == (1, 50, 20)
    assert found.posterior_predictive["x0"].shape == (1, 50, 60)
    curve = found.sample_stats
    assert curve["loss"].dims == curve["elbo"].dims == ("epoch",)
    total = posterior.history["nll"] + posterior.history["kl"]
    np.testing.assert_allclose(curve["elbo"], -54 * total)  # 10 % of 60 events held out
    assert found.posterior.attrs["weight_posterior"] == "mean_field" and found.posterior.attrs["tempered"] == 0
    assert pg.to_inference_data(posterior, draws=9).posterior["log_density"].shape == (1, 9, 20)


def test_an_ensemble_is_one_chain_of_its_members(events):
    posterior = pg.Ensemble(members=5, steps=20, batch_size=20, progress=False).fit(location(), events)
    found = pg.to_inference_data(posterior, events[:3])
    assert found.posterior["log_density"].shape == (1, 5, 3)


def test_arviz_runs_on_it(events):
    found = pg.to_inference_data(sampled(events), events[:4], events)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        assert len(az.summary(found, kind="all")) == 5
        # Independent draws: R-hat within 4 / sqrt(400) of one, nearly as many effective draws as there are.
        assert (az.rhat(found)["log_density"] < 1 + 4 / 20).all()
        assert (az.ess(found)["log_density"] > 200).all()
        # Leaving one event out: exactly N(x_i; mean of the others, 1 + 1/(n-1)).
        loo = az.loo(found, pointwise=True)
    n = len(events)
    others = (events.sum(0) - events) / (n - 1)
    variance = 1 + 1 / (n - 1)
    exact = (-0.5 * (events - others) ** 2 / variance - 0.5 * math.log(2 * math.pi * variance)).sum(1).numpy()
    total, each = (loo.elpd, loo.elpd_i) if hasattr(loo, "elpd") else (loo.elpd_loo, loo.loo_i)  # ArviZ 1 and 0.2x
    assert float(total) == pytest.approx(exact.sum(), abs=0.5)
    np.testing.assert_allclose(each, exact, atol=0.15)
    assert (loo.pareto_k < 0.7).all()
    other = pg.to_inference_data(sampled(events + 0.8, names=None, units=None), events[:4], events)
    ranking = az.compare({"right": found, "shifted": other})
    assert list(ranking.index) == ["right", "shifted"]
    with matplotlib.rc_context({"backend": "Agg"}):
        import matplotlib.pyplot as plt

        az.plot_trace(found, var_names=["log_density"])
        az.plot_forest(found, var_names=["log_density"])
        if hasattr(az, "plot_ppc"):  # which ArviZ 1 has under another name
            az.plot_ppc(found, num_pp_samples=5)
        az.plot_energy(found)
        plt.close("all")


def test_files_hold_all_of_it(events, tmp_path):
    found = pg.to_inference_data(sampled(events), events[:4], events, histograms={"px": ("px", 3, (-3, 3))})
    path = write_inference_data(found, tmp_path / "run.nc")
    for back in (read_inference_data(path), az.from_netcdf(str(path))):
        assert sorted(groups_of(back)) == sorted(groups_of(found))
        for group in groups_of(found):
            xarray.testing.assert_identical(back[group].load(), found[group])
    tree = read_inference_data(path, NEW)
    assert isinstance(tree, xarray.DataTree)
    posterior = found["posterior"]
    own = posterior.to_dataset() if isinstance(posterior, xarray.DataTree) else posterior
    xarray.testing.assert_identical(tree["posterior"].to_dataset(), own)
    assert [p.name for p in tmp_path.iterdir()] == ["run.nc"]
    write_inference_data(make_inference_data({"posterior": {"a": (("x",), [1.0])}}), path)  # replaces the old one
    assert read_inference_data(path).posterior["a"].values == [1.0]


def test_a_failed_write_leaves_the_old_file(events, tmp_path, monkeypatch):
    data = make_inference_data({"posterior": {"a": (("x",), [1.0])}})
    path = write_inference_data(data, tmp_path / "run.nc")
    before = path.read_bytes()

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="No space"):
        write_inference_data(data, path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_bad_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.nc"):
        read_inference_data(tmp_path / "nothing.nc")
    path = write_inference_data(make_inference_data({"posterior": {"a": (("x",), np.ones(9000))}}), tmp_path / "a.nc")
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match="truncated"):
        read_inference_data(path)
    path.write_text("no file of numbers")
    with pytest.raises(ValueError, match=r"a\.nc"):
        read_inference_data(path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        write_inference_data(make_inference_data({"posterior": {"a": (("x",), np.ones(3))}}), tmp_path / "no" / "a.nc")


@pytest.mark.parametrize(("module", "kind"), [(None, az.InferenceData), (NEW, xarray.DataTree)])
def test_numpy_alone_makes_what_each_arviz_works_on(module, kind):
    groups = {"posterior": {"a": (("chain", "draw", "b"), np.ones((2, 3, 4)))}, "empty": {}}
    found = make_inference_data(groups, {"b": list("wxyz")}, {"backend": "none"}, module)
    assert isinstance(found, kind)
    data = found["posterior"]
    assert list(data.coords["b"].values) == list("wxyz") and data.coords["draw"].values.tolist() == [0, 1, 2]
    assert data.attrs == {"backend": "none"}


@pytest.mark.parametrize(
    ("groups", "coords", "message"),
    [
        ({}, {}, "no arrays"),
        ({"posterior": {}}, {}, "no arrays"),
        ({"posterior": {"a": (("x",), np.ones((2, 2)))}}, {}, r"posterior/a has shape \[2, 2\]"),
        ({"posterior": {"a": (("x",), np.ones(2))}}, {"x": [1]}, "2 long in 'x', which has 1"),
        ({"g": {"a": (("x",), np.ones(2)), "b": (("x",), np.ones(3))}}, {}, "g/b is 3 long"),
    ],
)
def test_arrays_that_do_not_fit_are_named(groups, coords, message):
    with pytest.raises(ValueError, match=message):
        make_inference_data(groups, coords)


def test_what_arviz_cannot_know_is_refused(events, monkeypatch):
    posterior = sampled(events)
    with pytest.raises(ValueError, match="observed has weights"):
        pg.to_inference_data(posterior, observed=pg.EventSample(events, weights=torch.ones(60)))
    with pytest.raises(ValueError, match="101"):
        pg.to_inference_data(posterior, draws=101)
    monkeypatch.setattr("pyrogen.diagnostics.inference_data.LARGEST", 1000)
    with pytest.raises(ValueError, match="400 draws at 60 observed events"):
        pg.to_inference_data(posterior, observed=events)
    with pytest.raises(ValueError, match="generated is 0"):
        pg.to_inference_data(posterior, generated=0, histograms={"px": ("px", 3, (-3, 3))})
    with pytest.raises(ValueError, match="observable is NaN or infinite"):
        pg.to_inference_data(posterior, histograms={"log": (lambda x: x[:, 0].log(), 3, (-3, 3))})
    with pytest.raises(ValueError, match="shape"):
        pg.to_inference_data(posterior, probes=torch.zeros(3, 5))
    box = pg.BayesianFlow(pg.CouplingFlow(2, 2, (4,), transform="bernstein", base="uniform"), preprocessing=None)
    inside = pg.Posterior(box, StoredDraws(torch.zeros(2, 3, box.weights)))
    with pytest.raises(ValueError, match="observed event 1 in draw 0 of chain 0"):
        pg.to_inference_data(inside, observed=torch.tensor([[0.5, 0.5], [1.5, 0.5]]))


def test_labels_of_equal_points_differ(events):
    found = pg.to_inference_data(sampled(events), torch.zeros(2, 2), generated=0)
    assert found.posterior.coords["probe"].values.tolist() == ["0: (0, 0)", "1: (0, 0)"]


def test_conditional_flows_need_their_conditions():
    model = pg.BayesianFlow(Line(), preprocessing=None)
    draws = torch.randn(2, 10, 3, generator=torch.Generator().manual_seed(0))
    posterior = pg.Posterior(model, StoredDraws(draws))
    x, context = torch.randn(30, 1), torch.randn(30, 3)
    found = pg.to_inference_data(posterior, observed=x, context=context)
    expected = log_normal(x[None], (draws.reshape(-1, 3) @ context.T)[..., None])
    np.testing.assert_allclose(found.log_likelihood["events"].values.reshape(20, 30), expected, rtol=1e-4)
    np.testing.assert_allclose(found.posterior["log_density"], found.log_likelihood["events"][..., :20], rtol=1e-4)
    for given in (None, context[:5]):
        with pytest.raises(ValueError, match="probe_context|5 rows for 30 events"):
            pg.to_inference_data(posterior, probes=None if given is None else x, probe_context=given)
    with pytest.raises(ValueError, match=r"give probe_context=\[30, 3\], the conditions of the probe points"):
        pg.to_inference_data(posterior, x, context=context)
    # One row stands for all.
    rows = {"context": context[0], "probe_context": context[0]}
    found = pg.to_inference_data(posterior, x, x, **rows)
    expected = log_normal(x[None], (draws.reshape(-1, 3) @ context[0])[:, None, None])
    np.testing.assert_allclose(found.log_likelihood["events"].values.reshape(20, 30), expected, rtol=1e-4)
    np.testing.assert_allclose(found.posterior["log_density"], found.log_likelihood["events"], rtol=1e-4)


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        ({"tempered": True, "settings": {"temperature": 0.1}}, "counts every event 10 times"),
        ({"effective_size": 40.0}, "weights w"),
        ({"is_posterior": False}, "single trainings"),
    ],
)
def test_no_leave_one_out_with_wrong_ratios(events, info, reason):
    """``az.loo`` knows the ratios 1/p alone."""
    with pytest.warns(UserWarning, match=reason):
        found = pg.to_inference_data(sampled(events, **info), observed=events, generated=0)
    assert "log_likelihood" not in groups_of(found) and "log_likelihood_total" in found.posterior
    with pytest.raises(TypeError, match="log likelihood not found"):
        az.loo(found)
