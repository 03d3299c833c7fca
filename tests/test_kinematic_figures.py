"""Histograms of hist, boost_histogram, uproot and numpy, in and out, and the kinematic figures drawn from them."""

import sys

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.patches import StepPatch

import pyrogen as pg
from pyrogen.plotting import HistogramPanel, plot_histograms, plot_kinematics, plot_uncertainties, save_figure
from pyrogen.posterior.bands import multinomial_noise
from pyrogen.posterior.binning import make_bins
from pyrogen.posterior.uhi import edges_and_counts, label_of

hist = pytest.importorskip("hist")
boost_histogram = pytest.importorskip("boost_histogram")
uproot = pytest.importorskip("uproot")
pytest.importorskip("mplhep")

EDGES = np.array([0.0, 1.0, 2.0, 4.0, 8.0])


@pytest.fixture(autouse=True)
def _no_traces():
    """No plot leaves an open figure or changed settings behind, though mplhep imports pyplot."""
    before, others = dict(matplotlib.rcParams), pyplot.get_fignums()
    yield
    assert pyplot.get_fignums() == others
    assert dict(matplotlib.rcParams) == before


@pytest.fixture
def band():
    draws = np.random.default_rng(0).normal([0.1, 0.3, 0.2, 0.2], 0.01, (30, 4))
    return pg.HistogramBand(EDGES, draws, 10_000, "a", multinomial_noise(draws, 10_000))


@pytest.fixture
def truth():
    """Weighted events, some of them outside the edges."""
    filled = hist.Hist(hist.axis.Variable(EDGES, name="pt", label="$p_T$ [GeV]"), storage=hist.storage.Weight())
    return filled.fill([-1, 0.5, 0.6, 1.5, 3.0, 5.0, 9.0], weight=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])


def steps(axis):
    """What the axis shows as steps: (values, baseline) of every patch."""
    return [patch.get_data() for patch in axis.patches if isinstance(patch, StepPatch)]


def labels(figure):
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def test_a_band_as_hist(band):
    filled = band.to_hist(1000, label="$p_T$ [GeV]", name="pt")
    assert filled.storage_type is hist.storage.Weight
    np.testing.assert_allclose(filled.values(), 1000 * band.mean)
    np.testing.assert_allclose(filled.variances(), (1000 * band.std) ** 2)
    np.testing.assert_array_equal(filled.axes[0].edges, EDGES)
    assert (filled.axes[0].name, filled.axes[0].label) == ("pt", "$p_T$ [GeV]")
    assert filled.values(flow=True).shape == (4,)  # where the rest lies is not known
    assert filled.sum().value == pytest.approx(1000 * band.mean.sum())
    np.testing.assert_allclose(band.to_hist(subtract_noise=True).variances(), band.sigma(subtract_noise=True) ** 2)
    for total in (0, -1.0, np.inf, "all"):
        with pytest.raises(ValueError, match="total is .*; it must be positive"):
            band.to_hist(total)


def test_hist_is_needed_only_where_it_is_written(band, monkeypatch):
    for missing in ("hist", "mplhep"):
        monkeypatch.setitem(sys.modules, missing, None)
    panel = HistogramPanel(band, np.ones(4))
    with pytest.raises(ImportError, match=r"to_hist needs hist; .*pyrogen\[lhc\]"):
        band.to_hist()
    with pytest.raises(ImportError, match=r"plot_kinematics needs mplhep; .*pyrogen\[lhc\]"):
        plot_kinematics([panel])
    plot_histograms([panel])
    plot_uncertainties([panel])


def test_there_and_back(band):
    """A band against itself: the ratio is one and the errors are its own."""
    panel = HistogramPanel(band, band.to_hist(500), total=500)
    density, error = panel.truth()
    np.testing.assert_allclose(density, band.mean / band.widths)
    np.testing.assert_allclose(error, band.std / band.widths)
    ratio = steps(plot_kinematics([panel]).axes[1])[2].values
    np.testing.assert_allclose(ratio, 1)


def test_a_panel_takes_a_hist_apart(band, truth):
    panel = HistogramPanel(band, truth)
    np.testing.assert_array_equal(panel.counts, [5, 4, 5, 6])
    np.testing.assert_allclose(panel.errors, np.sqrt([13, 16, 25, 36]))
    assert (panel.total, panel.label, panel.unit) == (28, "$p_T$", "GeV")
    np.testing.assert_allclose(panel.truth()[0], np.array([5, 4, 5, 6]) / 28 / band.widths)
    own = HistogramPanel(band, truth, total=20, errors=np.ones(4), label="x", unit="TeV")
    assert (own.total, own.label, own.unit) == (20, "x", "TeV")
    np.testing.assert_array_equal(own.errors, 1)
    assert HistogramPanel(band, truth, label="mine").unit == ""  # the unit belongs to the label
    assert HistogramPanel(band, np.ones(4)).label == "x"
    assert HistogramPanel(band, (np.ones(4), EDGES)).total == 4


def test_every_kind_of_histogram_is_read(truth, tmp_path):
    boosted = boost_histogram.Histogram(boost_histogram.axis.Variable(EDGES), storage=boost_histogram.storage.Weight())
    boosted[...] = truth.view()
    boosted.view(flow=True)[...] = truth.view(flow=True)
    with uproot.recreate(tmp_path / "file.root") as file:
        file["truth"] = truth
    rooted = uproot.open(tmp_path / "file.root")["truth"]
    for histogram in (truth, boosted, rooted):
        found = edges_and_counts(histogram)
        np.testing.assert_array_equal(found.edges, EDGES)
        np.testing.assert_allclose(found.values, [5, 4, 5, 6])
        np.testing.assert_allclose(found.variances, [13, 16, 25, 36])
        assert found.total == 28
        np.testing.assert_array_equal(make_bins(histogram).edges, EDGES)
    assert label_of(truth) == label_of(rooted) == ("$p_T$", "GeV")
    assert label_of(boosted) == ("", "")
    assert label_of(hist.Hist(hist.axis.Regular(2, 0, 1, label="a [b] c"))) == ("a [b] c", "")

    found = edges_and_counts(np.histogram([0.1, 0.2, 3.0, 9.0], EDGES))
    np.testing.assert_array_equal(found.edges, EDGES)
    np.testing.assert_array_equal(found.values, [2, 0, 1, 0])
    np.testing.assert_array_equal(found.variances, found.values)
    assert found.total == 3  # numpy forgets the event outside


class Bare:
    """The least that the protocol asks for: an axis that gives pairs, no edges, no flow bins."""

    kind = "COUNT"

    class Axis(list):
        class traits:  # noqa: N801
            circular = discrete = False

    axes = (Axis([(0.0, 1.0), (1.0, 3.0)]),)

    def values(self):
        return np.array([2.0, 3.0])

    def variances(self):
        return None


def test_the_bare_protocol_is_enough():
    found = edges_and_counts(Bare())
    np.testing.assert_array_equal(found.edges, [0, 1, 3])
    assert found.total == 5 and found.variances is None


def test_what_can_not_be_compared_is_refused(band, truth):
    regular = hist.axis.Regular(4, 0, 8)
    with pytest.raises(ValueError, match="has 2 axes"):
        edges_and_counts(hist.Hist(regular, regular))
    with pytest.raises(ValueError, match="has 2 axes"):
        HistogramPanel(band, hist.Hist(regular, regular))
    with pytest.raises(ValueError, match="kind 'MEAN'"):
        edges_and_counts(hist.Hist(regular, storage=hist.storage.Mean()))
    with pytest.raises(ValueError, match="finite numbers"):
        edges_and_counts(hist.Hist(hist.axis.Variable([0, 1, np.inf])))
    for categories in (hist.axis.StrCategory(["a", "b"]), hist.axis.IntCategory([1, 2])):
        with pytest.raises(ValueError, match="categories"):
            edges_and_counts(hist.Hist(categories))
    with pytest.raises(ValueError, match="5 edges need 4 counts"):
        edges_and_counts((np.ones(5), EDGES))
    with pytest.raises(TypeError, match="is a ndarray"):
        edges_and_counts(np.ones(4))
    for other in (hist.Hist(regular), hist.Hist(hist.axis.Regular(5, 0, 8)), (np.ones(4), EDGES + 0.1)):
        with pytest.raises(ValueError, match=r"with edges .*, the band 4 with .*as bins"):
            HistogramPanel(band, other)
    plain = hist.Hist(hist.axis.Variable(EDGES)).fill([0.5, 1.5], weight=[1.0, 2.0])
    with pytest.raises(ValueError, match=r"does not know its variances.*Weight\(\)"):
        HistogramPanel(band, plain)
    np.testing.assert_array_equal(HistogramPanel(band, plain, errors=np.ones(4)).counts, [1, 2, 0, 0])


def test_an_axis_gives_the_edges():
    np.testing.assert_allclose(make_bins(hist.axis.Regular(4, 0, 8)).edges, [0, 2, 4, 6, 8])
    np.testing.assert_allclose(make_bins(hist.axis.Variable(EDGES)).edges, EDGES)
    np.testing.assert_allclose(make_bins(hist.axis.Integer(3, 6)).edges, [3, 4, 5, 6])
    np.testing.assert_allclose(
        make_bins(boost_histogram.axis.Regular(3, 1, 1000, transform=boost_histogram.axis.transform.log)).edges,
        [1, 10, 100, 1000],
    )
    np.testing.assert_allclose(make_bins((0.0, 1.0)).edges, [0, 1])  # two edges, not counts and edges
    with pytest.raises(ValueError, match="circular"):
        make_bins(hist.axis.Regular(4, 0, 6, circular=True))
    with pytest.raises(ValueError, match="has 2 axes"):
        make_bins(hist.Hist(hist.axis.Regular(4, 0, 6), hist.axis.Regular(4, 0, 6)))
    with pytest.raises(ValueError, match="finite numbers"):
        make_bins(hist.axis.Variable([0, 1, np.inf]))


def test_a_posterior_fills_the_bins_of_a_hist(truth):
    flow = pg.CouplingFlow(2, blocks=2, hidden=(4,))
    posterior = pg.SVI(epochs=1, batch_size=50, seed=0).fit(pg.BayesianFlow(flow), np.random.rand(100, 2))
    for bins in (truth, truth.axes[0], EDGES):
        band = posterior.histogram(0, bins, n=100, draws=3)
        np.testing.assert_array_equal(band.edges, EDGES)
    np.testing.assert_array_equal(posterior.histograms({"x": (0, truth)}, n=100, draws=3)["x"].draws, band.draws)
    HistogramPanel(band, truth)


def test_kinematics_show_what_they_are_given(band, truth):
    figure = plot_kinematics([HistogramPanel(band, truth)], truth_label="Pythia", llabel="pyrogen", rlabel="13 TeV")
    top, bottom = figure.axes
    one, two, middle, errors, counts = steps(top)
    mean, std = band.mean / band.widths, band.std / band.widths
    density = np.array([5, 4, 5, 6]) / 28 / band.widths
    relative = np.sqrt([13, 16, 25, 36]) / [5, 4, 5, 6]
    for patch, k in ((one, 1), (two, 2)):
        np.testing.assert_allclose(patch.values, mean + k * std)
        np.testing.assert_allclose(patch.baseline, mean - k * std)
    np.testing.assert_allclose(middle.values, mean)
    np.testing.assert_allclose(counts.values, density)
    np.testing.assert_allclose(errors.values, density * (1 + relative))
    np.testing.assert_allclose(errors.baseline, density * (1 - relative))
    one, two, ratio, errors = steps(bottom)
    np.testing.assert_allclose(ratio.values, mean / density)
    np.testing.assert_allclose(two.values, (mean + 2 * std) / density)
    np.testing.assert_allclose(one.baseline, (mean - std) / density)
    np.testing.assert_allclose(errors.values, 1 + relative)
    np.testing.assert_allclose(errors.baseline, 1 - relative)
    low, high = bottom.get_ylim()
    assert low + high == pytest.approx(2) and high <= 1.5
    outside = [x for line in bottom.lines if line.get_marker() in "^v" for x in line.get_xdata()]
    np.testing.assert_array_equal(outside, [1.5])  # 0.3 over 4/28 is more than 1.5
    assert top.get_yscale() == "log"
    assert top.get_ylabel() == r"$1/N\;\mathrm{d}N/\mathrm{d}p_T$ [1/GeV]"
    assert bottom.get_xlabel() == "$p_T$ [GeV]"
    assert top.get_xlim() == bottom.get_xlim() == (0, 8)
    assert (top.get_title(loc="left"), top.get_title(loc="right")) == ("pyrogen", "13 TeV")
    assert labels(figure) == [r"$\pm \sigma$", r"$\pm 2\sigma$", "generated", "Pythia"]


def test_panels_choose_their_scale(band, truth):
    panels = [HistogramPanel(band, truth, log=log) for log in (True, False, None)]
    for draw in (plot_kinematics, plot_histograms):
        for log in (True, False):
            tops = draw(panels, log=log).axes[::2]
            scales = [
                axis.get_yscale() for axis in tops if "/" in axis.get_ylabel() and "truth" not in axis.get_ylabel()
            ]
            assert scales == ["log", "linear", "log" if log else "linear"]


@pytest.mark.parametrize("n", [1, 5, 6])
def test_any_number_of_panels(band, truth, n, tmp_path):
    for draw in (plot_kinematics, plot_uncertainties):
        figure = draw([HistogramPanel(band, truth)] * n)
        assert len(figure.axes) == 2 * n
        if (n, draw) == (6, plot_kinematics):
            save_figure(figure, tmp_path / "figure.pdf")
    for draw in (plot_kinematics, plot_uncertainties):
        with pytest.raises(ValueError, match="at least one histogram"):
            draw([])


@pytest.mark.parametrize("log", [True, False])
def test_empty_bins_break_nothing(band, log, tmp_path, quickly_drawn):
    empty = pg.HistogramBand(EDGES, band.draws * [1, 0, 1, 1e-9], 100, "a")
    for counts, total in (([5, 3, 0, 0], None), ([0, 0, 0, 0], 100), ([-1, 3, 1, 1], None)):
        panel = HistogramPanel(empty, counts, total=total, log=log)
        figure = plot_kinematics([panel])
        save_figure(figure, tmp_path / "kinematics.png")
        save_figure(plot_uncertainties([panel]), tmp_path / "uncertainties.png")
        low, high = figure.axes[0].get_ylim()
        assert 0 < high < np.inf and (low > 1e-6 if log else low == 0)
        ratio = steps(figure.axes[1])[2].values
        np.testing.assert_array_equal(np.isnan(ratio), np.array(counts) <= 0)


def test_uncertainties_with_and_without_the_noise(band, truth):
    panel = HistogramPanel(band, truth)
    error = band.std**2 * np.sqrt(2 / 29)
    for subtract in (True, False):
        figure = plot_uncertainties([panel], truth_label="Pythia", subtract_noise=subtract)
        top, bottom = figure.axes
        sigma = band.sigma(subtract)
        for axis, scale in ((top, 1 / band.widths), (bottom, 100 / band.mean)):
            truth_error, spread, line = steps(axis)
            np.testing.assert_allclose(line.values, sigma * scale)
            np.testing.assert_allclose(spread.values, np.sqrt(sigma**2 + error) * scale)
            np.testing.assert_allclose(spread.baseline, np.sqrt(sigma**2 - error) * scale)
            assert axis.get_yscale() == "log"
        np.testing.assert_allclose(truth_error.values, 100 * np.sqrt([13, 16, 25, 36]) / [5, 4, 5, 6])
        name = "posterior, event noise subtracted" if subtract else "posterior with event noise"
        assert labels(figure) == ["Pythia, stat. error", name]
        assert (top.get_ylabel(), bottom.get_ylabel()) == (r"$\sigma$ [1/GeV]", r"$\sigma\,/\,p$ [%]")
    unknown = pg.HistogramBand(EDGES, band.draws, 10_000, "a")
    assert labels(plot_uncertainties([HistogramPanel(unknown, truth)]))[1] == "posterior with event noise"


def test_pure_noise_gets_a_limit(truth):
    """Bins that differ by no more than their Poisson noise: a limit instead of a line."""
    draws = np.random.default_rng(0).multinomial(100, [0.2, 0.3, 0.2, 0.3], 500) / 100
    draws[:, 0] = np.random.default_rng(1).uniform(0, 0.4, 500)
    band = pg.HistogramBand(EDGES, draws, 100, "a", multinomial_noise(draws, 100))
    figure = plot_uncertainties([HistogramPanel(band, truth)])
    line = steps(figure.axes[0])[-1].values
    variance = np.diagonal(band.covariance(subtract_noise=True))
    seen = variance > band.std**2 * np.sqrt(2 / 499)
    assert seen[0] and not seen.all()
    np.testing.assert_array_equal(np.isfinite(line), seen)
    (limits,) = (mark for mark in figure.axes[0].lines if mark.get_marker() == "v")
    expected = np.sqrt(np.clip(variance, 0, None) + band.std**2 * np.sqrt(2 / 499)) / band.widths
    np.testing.assert_allclose(limits.get_ydata(), np.where(seen, np.nan, expected))
    assert labels(figure)[-1] == r"its upper limit ($1\sigma$)"
