"""Generated events in files: streamed, resumed to the same bits, with log-weights for any later histogram."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch

import pyrogen as pg


@pytest.fixture(scope="module")
def posterior() -> pg.Posterior:
    torch.manual_seed(0)
    events = pg.EventSample(torch.randn(2000, 2) * 3 + 1, ["x", "y"], ["GeV", ""])
    model = pg.BayesianFlow(pg.CouplingFlow(2, 3, (8,)))
    return pg.SVI(epochs=4, batch_size=100, lr_widths=5e-2, progress=False).fit(model, events)


def test_log_weights_are_those_of_the_draws(posterior):
    sample = posterior.generate(400, 6, log_weights=True)
    log_p = posterior.log_prob(sample, 6).double()
    mean = torch.logsumexp(log_p, 0) - np.log(6)
    assert np.allclose(sample.log_weights, (log_p - mean).T.numpy(), atol=1e-6)
    assert np.allclose(np.exp(sample.log_weights).mean(1), 1)
    assert np.allclose(sample.uncertainties, np.exp(sample.log_weights).std(1, ddof=1))
    assert np.allclose(sample.uncertainties, posterior.density(sample, 6).relative.numpy(), rtol=1e-5)
    without = posterior.generate(400, 6)
    assert without.log_weights is None and np.array_equal(without.values, sample.values)


def test_histograms_from_log_weights_are_procedure_b(posterior):
    sample = posterior.generate(5000, 8, log_weights=True, seed=3)
    wanted = {"x": ("x", 15, (-8, 10)), "r": (lambda e: e.norm(dim=1), np.linspace(0, 9, 10))}
    found = pg.sample_histograms(sample, wanted)
    expected = posterior.histograms(wanted, n=5000, draws=8, procedure="b", seed=3)
    for name in wanted:
        assert np.allclose(found[name].draws, expected[name].draws, atol=1e-7), name
        assert np.allclose(found[name].noise, expected[name].noise, atol=1e-9)
        assert found[name].events == 5000 and found[name].procedure == "b"
    assert found["x"].sigma().max() > 3e-4


def test_log_weights_of_other_networks_are_not_put_together(posterior, tmp_path):
    """Else column k would be the weights of two networks, whose differences average out."""
    first = posterior.generate(20, 3, log_weights=True, seed=1)
    first.save(tmp_path / "a.h5")
    more = pg.EventSample.concatenate([first[:5], first[5:]])
    assert np.array_equal(more.values, first.values)
    for wrong, message in (
        (posterior.generate(20, 3, log_weights=True, seed=2), "provenance has seed 2, that of .* 1; generate all"),
        (posterior.generate(20, 4, log_weights=True, seed=1), "4 log weights|draws 4|log_weights"),
    ):
        with pytest.raises(ValueError, match=message):
            pg.EventSample.concatenate([first, wrong])
        with pytest.raises(ValueError, match=message):
            pg.events.append(wrong, tmp_path / "a.h5")
    pg.events.append(first, tmp_path / "a.h5")
    pg.EventSample.concatenate([posterior.generate(5, 3, seed=s) for s in (1, 2)])  # uncertainties are of each event


def test_histogram_edges_count_as_in_numpy():
    sample = pg.EventSample([[0.0], [0.5], [1.0], [1.5], [-1.0]], log_weights=np.zeros((5, 2)))
    band = pg.sample_histograms(sample, {"x": ("x0", [0, 0.5, 1])})["x"]
    assert np.allclose(band.mean, [0.2, 0.4])


def networks_of(posterior, monkeypatch):
    """Let every network give its own number, counted from its first event on, in place of its events."""
    numbers = {}

    def own_number(theta, parts, context):
        return [torch.full((n, 2), float(numbers.setdefault(theta.sum().item(), len(numbers)))) for n in parts]

    monkeypatch.setattr(posterior.predictor, "_generate", own_number)
    monkeypatch.setattr(
        posterior.predictor,
        "log_prob_blocks",
        lambda x, c, draws, *_: iter([(slice(0, len(x)), torch.zeros(draws, len(x)))]),
    )


@pytest.mark.parametrize(
    ("n", "draws", "chunk"), [(101, 100, 100), (1000, 30, 170), (57, 50, 50), (60, 4, 7), (100, 10, 1000)]
)
def test_networks_have_equal_shares_of_the_whole_file_whatever_its_chunks(
    posterior, tmp_path, monkeypatch, n, draws, chunk
):
    networks_of(posterior, monkeypatch)
    path = posterior.generate_to(tmp_path / "g.h5", n, draws, chunk=chunk, log_weights=True, progress=False)
    sample = pg.events.read(path)
    shares = np.bincount(sample.values[:, 0].astype(int))
    assert sample.log_weights.shape == (n, draws)
    assert len(shares) == draws and shares.max() - shares.min() <= 1 and shares.sum() == n
    parts = np.concatenate([posterior.sample(8, 5, seed=1, part=i)[:, 0].int() for i in range(5)])
    assert sorted(np.unique(parts, return_counts=True)[1]) == [8] * 5


def test_fewer_events_than_networks_come_from_any_of_them(posterior, monkeypatch):
    """Else p(x), the mean over all, would not be the density of the events."""
    first = torch.stack([theta.sum() for theta in posterior.weights.draws(50, 3)])
    chosen = []

    def remember(theta, parts, context):
        chosen.append(int((first == theta.sum()).nonzero()))
        return [torch.zeros(n, 2) for n in parts]

    monkeypatch.setattr(posterior.predictor, "_generate", remember)
    posterior.sample(20, 50, seed=3)
    assert len(set(chosen)) == 20 and max(chosen) > 35 and min(chosen) < 15
    monkeypatch.undo()
    few = posterior.generate(20, 50)
    assert np.allclose(few.uncertainties, posterior.density(few, 50).relative.numpy(), rtol=1e-5)
    with pytest.raises(
        ValueError, match="n is 20; with log-weights each of the 50 weight draws gives events, so n must"
    ):
        posterior.generate(20, 50, log_weights=True)


@pytest.mark.parametrize("layout", ["columns", "rows"])
def test_a_file_is_streamed_and_its_histograms_too(posterior, tmp_path, layout):
    path = posterior.generate_to(tmp_path / "g.h5", 1000, 5, log_weights=True, chunk=300, progress=False, layout=layout)
    assert [p.name for p in tmp_path.iterdir()] == ["g.h5"]
    sample = pg.events.read(path)
    assert len(sample) == 1000 and sample.names == ("x", "y") and sample.units == ("GeV", "")
    assert sample.log_weights.shape == (1000, 5) and sample.provenance["draws"] == 5
    # The parts differ from each other, and their densities are those of the same five draws.
    assert len(np.unique(sample.values[:, 0])) == 1000
    relative = posterior.density(sample, 5).relative.numpy()
    assert np.allclose(sample.uncertainties, relative, rtol=1e-4)
    wanted = {"x": ("x", 10, (-8, 10))}
    assert np.allclose(pg.sample_histograms(path, wanted)["x"].draws, pg.sample_histograms(sample, wanted)["x"].draws)


def test_a_killed_run_goes_on_to_the_same_bits(posterior, tmp_path):
    whole = posterior.generate_to(tmp_path / "whole.h5", 1000, 4, chunk=250, progress=False)
    calls = []

    def killed(sample):
        calls.append(len(sample))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return sample

    path = tmp_path / "cut.h5"
    with pytest.raises(KeyboardInterrupt):
        posterior.generate_to(path, 1000, 4, chunk=250, progress=False, finish=killed)
    assert not path.exists() and len(list((tmp_path / "cut.h5.parts").glob("*.h5"))) == 2
    with pytest.raises(ValueError, match="another run, with other n, finish; finish that run"):
        posterior.generate_to(path, 1001, 4, chunk=250, progress=False, finish=killed)
    calls.clear()  # what a function encloses belongs to it
    posterior.generate_to(path, 1000, 4, chunk=250, progress=False, finish=killed)
    assert calls == [250, 250]
    with h5py.File(whole) as a, h5py.File(path) as b:
        assert np.array_equal(a["values"][()], b["values"][()])
        assert np.array_equal(a["uncertainties"][()], b["uncertainties"][()])
    assert not (tmp_path / "cut.h5.parts").exists()


def test_finish_and_conditions(tmp_path):
    context = torch.cat([torch.full((300, 1), -5.0), torch.full((300, 1), 5.0)])
    events = torch.randn(600, 2) + context
    model = pg.BayesianFlow(pg.CouplingFlow(2, 2, (8,), context=1))
    fitted = pg.SVI(epochs=40, batch_size=100, lr=1e-2, progress=False).fit(model, events, context=context)
    path = fitted.generate_to(
        tmp_path / "g.h5", 600, 3, context=context, chunk=200, progress=False, finish=lambda s: s.select(["x0"])
    )
    x = pg.events.read(path).values[:, 0]
    assert x[:300].mean() < -2 < 2 < x[300:].mean()  # every part has the conditions of its rows


def test_errors_before_any_work(posterior, tmp_path):
    with pytest.raises(FileNotFoundError, match="folder"):
        posterior.generate_to(tmp_path / "no" / "g.h5", 100, 4)
    with pytest.raises(ValueError, match="n is 3"):
        posterior.generate_to(tmp_path / "g.h5", 3, 4)
    with pytest.raises(ValueError, match="chunk is 2"):
        posterior.generate_to(tmp_path / "g.h5", 100, 4, chunk=2)
    with pytest.raises(ValueError, match="layout"):
        posterior.generate_to(tmp_path / "g.h5", 100, 4, layout="table")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="no log-weights; make them"):
        pg.sample_histograms(posterior.generate(20, 2), {"x": ("x", 3, (0, 1))})
    with pytest.raises(ValueError, match="observables is empty"):
        pg.sample_histograms(posterior.generate(20, 2, log_weights=True), {})
