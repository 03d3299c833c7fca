"""Bins: the last edge by the convention of numpy or of hist, axes of every kind, and what is no description of bins."""

import numpy as np
import pytest
import torch

import pyrogen as pg
from pyrogen.diagnostics import marginal
from pyrogen.plotting import HistogramPanel
from pyrogen.posterior.binning import make_bins

hist = pytest.importorskip("hist")
A = hist.axis

AXES = {
    "regular": A.Regular(4, 0, 4),
    "without overflow": A.Regular(4, 0, 4, overflow=False),
    "without flow": A.Regular(4, 0, 4, flow=False),
    "variable": A.Variable([0.0, 1.0, 4.0]),
    "variable without overflow": A.Variable([0.0, 1.0, 4.0], overflow=False),
    "integer": A.Integer(0, 4),
    "integer without flow": A.Integer(0, 4, flow=False),
    "logarithmic": A.Regular(3, 1, 1000, transform=A.transform.log),
    "tenths": A.Regular(3, 0, 0.3),
}


def jets(events):
    """An integer observable, 0 to 4: the last edge of the axes has a fifth of the events."""
    return torch.floor(torch.abs(1000 * events[:, 0])) % 5


@pytest.fixture(scope="module")
def posterior():
    flow = pg.CouplingFlow(2, blocks=2, hidden=(4,))
    return pg.SVI(epochs=1, batch_size=50, seed=0).fit(pg.BayesianFlow(flow), np.random.default_rng(0).random((100, 2)))


@pytest.mark.parametrize("name", AXES)
def test_an_axis_is_filled_as_hist_fills_it(name):
    values = np.concatenate([np.arange(-2.0, 7.0), [0.1, 0.2, 0.3, 0.30000000000000004, 10, 100, 1000, 5000]])
    if not AXES[name].traits.continuous:
        values = values[values == np.floor(values)]
    weights = np.arange(1.0, len(values) + 1)
    whole = not AXES[name].traits.continuous
    filled = hist.Hist(AXES[name]).fill(values.astype(int) if whole else values, weight=weights)
    np.testing.assert_array_equal(make_bins(AXES[name]).fill(values, weights), filled.values())
    np.testing.assert_array_equal(make_bins(filled).fill(values, weights), filled.values())


def test_plain_edges_are_those_of_numpy():
    values = np.array([0.0, 1.0, 3.5, 4.0, 4.0, 5.0])
    for bins in (make_bins([0.0, 1.0, 4.0]), make_bins(np.histogram(values, [0.0, 1.0, 4.0]))):
        np.testing.assert_array_equal(bins.fill(values), np.histogram(values, [0.0, 1.0, 4.0])[0])
        np.testing.assert_array_equal(bins.numbers(values), [0, 1, 1, 1, 1, 2])


def test_an_axis_of_another_package_leaves_the_last_edge_to_the_overflow():
    class Axis:
        """As that of ROOT's histograms in uproot: edges by a method, no function from values to bins."""

        class traits:
            circular, discrete = False, False

        def edges(self):
            return [0.0, 1.0, 4.0]

        def __len__(self):
            return 2

        def __getitem__(self, i):
            return self.edges()[i : i + 2]

    np.testing.assert_array_equal(make_bins(Axis()).fill(np.array([0.5, 1, 3, 4, 4, 5])), [1, 2])


@pytest.mark.parametrize("name", ["regular", "without overflow", "integer"])
def test_every_histogram_of_a_posterior_follows_its_axis(posterior, name):
    axis, n, draws = AXES[name], 2_000, 3
    band = posterior.histogram(jets, axis, n=n, draws=draws, seed=5)
    inside = name == "without overflow"
    for k in range(draws):
        events = torch.cat([part for i, part in posterior.replicates(n, draws, seed=5) if i == k])
        np.testing.assert_allclose(n * band.draws[k], hist.Hist(axis).fill(jets(events).numpy().astype(int)).values())
    assert band.closed == inside and 0.1 < band.on_last_edge < 0.3

    sample = posterior.generate(n, draws, seed=5, log_weights=True)
    values = jets(sample.tensor(torch.float64)).numpy().astype(int)
    found = pg.sample_histograms(sample, {"jets": (jets, axis)})["jets"]
    for k in range(draws):
        filled = hist.Hist(axis).fill(values, weight=np.exp(sample.log_weights[:, k]))
        np.testing.assert_allclose(n * found.draws[k], filled.values())
    same_events = posterior.histogram(jets, axis, n=n, draws=draws, procedure="b", seed=5)
    np.testing.assert_allclose(same_events.draws, found.draws, rtol=1e-4)
    for its in (*marginal(posterior, jets, axis, n=n, draws=draws).bands.values(), found, same_events):
        assert its.closed == inside and its.on_last_edge > 0.1


def test_a_truth_with_another_convention_is_refused_where_that_matters(posterior):
    axis, edges, counts = A.Regular(4, 0, 4), np.arange(5.0), [3, 3, 3, 3]
    truth = hist.Hist(axis).fill([0.5, 1.5, 2.5, 3.5])
    plain = posterior.histogram(jets, edges, n=1_000, draws=2)
    own = posterior.histogram(jets, truth, n=1_000, draws=2)
    with pytest.raises(ValueError, match=r"% of the generated .* on the last edge, 4: the band counts .* its axis"):
        HistogramPanel(plain, truth)
    with pytest.raises(ValueError, match="on the last edge, 4: the histogram counts"):
        HistogramPanel(own, (counts, edges))
    HistogramPanel(own, truth)
    HistogramPanel(plain, (counts, edges))
    HistogramPanel(posterior.histogram(0, edges, n=1_000, draws=2), truth)  # nothing on the edge: no difference


def test_inference_data_follows_the_axis(posterior):
    pytest.importorskip("arviz")
    events = np.random.default_rng(1).random((50, 2))
    wanted = {"jets": (jets, AXES["regular"])}
    data = pg.to_inference_data(posterior, events[:5], events, draws=4, generated=100, histograms=wanted)
    assert float(data.observed_data["hist_jets"].sum()) < 1
    assert (data.posterior_predictive["hist_jets"].sum("bin_jets") < 1).all()


@pytest.mark.parametrize(
    ("bins", "message"),
    [
        ([0, np.nan, 1], r"bins is \[0, nan, 1\]; bin edges must be at least two finite, increasing numbers"),
        ([0, 2, 1], "increasing"),
        ([0, 0, 1], "increasing"),
        ([1.0], "at least two"),
        ([], "at least two"),
        ([0, np.inf], "finite"),
        ("ten", "bins is 'ten'; bin edges"),
        (["a", "b"], "bin edges must be"),
        ([[0, 1], [1, 2]], "bin edges must be"),
        ([[0], [1, 2]], "bin edges must be"),
        ({"edges": 1}, "bin edges must be"),
        (None, r"bins is None; a number of bins needs range"),
        (7, r"needs range=\(low, high\)"),
        (A.Regular(4, 0, 6, circular=True), "bins is a circular axis, which wraps .*: give the edges instead"),
        (A.Regular(4, 0, 6, growth=True), "bins is a growing axis, which grows for events outside"),
        (A.IntCategory([1, 2]), "categories"),
        (A.StrCategory(["a", "b"]), "categories"),
        (A.StrCategory(["a"], growth=True), "categories|growing"),
        (hist.Hist(A.Regular(4, 0, 6), A.Regular(4, 0, 6)), "has 2 axes"),
    ],
)
def test_what_is_no_description_of_bins(bins, message):
    with pytest.raises(ValueError, match=message):
        make_bins(bins)


@pytest.mark.parametrize("bins", [0, -1, 2.5, True, "3", None, np.array(2.5)])
def test_a_number_of_bins_is_a_whole_number(bins):
    with pytest.raises(ValueError, match="bins is "):
        make_bins(bins, (0, 1))


@pytest.mark.parametrize("limits", [(1, 0), (0, 0), (0, np.nan), (-np.inf, 0), (0,), (0, 1, 2), "01", 3, ("a", "b")])
def test_a_range_is_two_increasing_numbers(limits):
    with pytest.raises(ValueError, match="range is .*two finite numbers with low < high"):
        make_bins(3, limits)


def test_range_belongs_to_a_number_of_bins(posterior):
    with pytest.raises(ValueError, match="range is .*has edges of its own"):
        posterior.histogram(0, [0, 1], range=(0, 2))


@pytest.mark.parametrize("observables", [{}, [], None, {"x": 0}, {"x": (0,)}, {"x": (0, 3, (0, 1), 2)}, {"x": "x0"}])
def test_observables_are_a_mapping_of_pairs(posterior, observables):
    with pytest.raises(ValueError, match="observables.*(observable, bins)"):
        posterior.histograms(observables)
    with pytest.raises(ValueError, match="observables.*(observable, bins)"):
        pg.sample_histograms(posterior.generate(20, 2, log_weights=True), observables)


@pytest.mark.parametrize("observable", [0.0, 2, -3, True, None, "x5", [0], np.float64(1)])
def test_a_column_is_a_name_or_a_whole_number(posterior, observable):
    for call in (
        lambda: posterior.histogram(observable, [0, 1], n=10),
        lambda: marginal(posterior, observable, [0, 1], n=100),
        lambda: posterior.generate(10, 2).column(observable),
    ):
        with pytest.raises(ValueError, match="no column .*; the 2 columns are x0, x1"):
            call()
    assert posterior.histogram(np.int64(-1), [0, 1], n=100, draws=2).draws.shape == (2, 1)


@pytest.mark.parametrize("result", ["a", None, {"x": 1}])
def test_an_observable_gives_numbers(posterior, result):
    with pytest.raises(TypeError, match="the observable gave a .*; it must be real numbers, one for each event"):
        posterior.histogram(lambda events: result, [0, 1], n=10, draws=2)
