"""Plot functions say what they need when they are given something else; points outside a panel are pointed to."""

import numpy as np
import pytest
from matplotlib.figure import Figure

import pyrogen as pg
from pyrogen import plotting as pl
from pyrogen.coverage import calibration_of
from pyrogen.diagnostics import LineResult, MarginalResult, UncertaintyMap

EDGES = np.array([0.0, 1.0, 2.0, 4.0, 8.0])
CURVES = dict.fromkeys(("loss", "nll", "kl"), [1.0, 2.0])


@pytest.fixture
def band():
    draws = np.random.default_rng(0).normal([0.1, 0.3, 0.2, 0.2], 0.01, (30, 4))
    return pg.HistogramBand(EDGES, draws, 10_000, "a")


@pytest.fixture
def line():
    t = np.linspace(0.1, 0.9, 9)
    return LineResult(t, np.array([0.5]), 2.1 * t[None], np.full((1, 9), 0.1), 2 * t, "x")


#: Functions that need more than one argument; the next test has them.
SEVERAL = {"plot_amplification", "plot_shower_images"}


@pytest.mark.parametrize("name", sorted(name for name in {*pl.__all__} - SEVERAL if name.startswith("plot_")))
@pytest.mark.parametrize("wrong", [None, 3, "x", np.ones(4), object(), pg.SVI])
def test_every_figure_refuses_another_object_by_name(name, wrong):
    with pytest.raises((TypeError, ValueError), match=r"^(every entry of [a-z_]+|[a-z_]+) is .*it must be "):
        getattr(pl, name)(wrong)


def test_what_is_often_given_by_mistake(band, line):
    for call, message in (
        (lambda: pl.plot_histograms(band), r"panels is a single HistogramBand.*\[HistogramPanel\(band, counts\)\]"),
        (lambda: pl.plot_histograms([band]), r"is a HistogramBand; .*: wrap it: HistogramPanel\(band, counts\)"),
        (lambda: pl.plot_histogram(MarginalResult({"a": band}), np.ones(4)), r'one of its bands: result.bands\["a"\]'),
        (lambda: pl.plot_correlation(MarginalResult({"a": band})), "take one of its bands"),
        (lambda: pl.plot_lines(band), "result is a HistogramBand; it must be a LineResult, from density_along_lines"),
        (lambda: pl.plot_lines(line, line), "shape is a LineResult; it must be a ShapeFit"),
        (lambda: pl.plot_backends({"SVI": band}), "every entry of lines is a HistogramBand"),
        (lambda: pl.plot_calibration({"SVI": line}), "every entry of calibrations is a LineResult"),
        (lambda: pl.plot_correlation(band, label=3), "label is 3; it must be a text"),
        (lambda: pl.save_figure(band, "a.png"), "figure is a HistogramBand; it must be a matplotlib Figure"),
        (lambda: pl.plot_kinematics([]), "panels is empty"),
        (lambda: pl.plot_lines(line, unit=3), "unit is 3; it must be a text"),
        (lambda: pl.plot_histogram(band, np.ones(4), unit=3), "unit is 3; it must be a text"),
        (lambda: pl.plot_histogram(band, np.ones(4), log="yes"), "log is 'yes'; it must be True or False"),
        (lambda: pl.plot_kinematics([pl.HistogramPanel(band, np.ones(4))], llabel=1), "llabel is 1; it must be a text"),
        (lambda: pl.plot_marginal_sigma(MarginalResult({"a": band}), line, "a"), "measure is 'a'; it must be "),
        (lambda: pl.plot_backends({"a": line}, 3), "reference is 3"),
        (lambda: pl.plot_training(CURVES | {"nll": ["a", "b"]}), r"history\['nll'\] is .*it must be real numbers"),
        (lambda: pl.plot_training(CURVES | {"nll": [1.0]}), r"curves nll in the history have other lengths than loss"),
        (lambda: pl.plot_training(CURVES | {"kl": [np.nan, np.nan]}), "kl in the history has no finite number"),
        (lambda: pl.plot_chains({"potential": "a"}), r"history\['potential'\] is .*it must be real numbers"),
        (lambda: pl.plot_chains({"potential": [[np.nan, 1.0]]}), "potential in the history .* NaN or infinite"),
        (lambda: pl.plot_amplification(*[{"a": [1]}] * 3, {"a": 3}), "every entry of fits is 3, .*AmplificationFit"),
        (lambda: pl.plot_histogram(band, ["a"] * 4), "counts is .*numbers, one for each bin, or a histogram"),
        (lambda: pl.plot_histogram(band, [1, 2, np.nan, 3]), "counts of x must be finite"),
        (lambda: pl.plot_histogram(band, np.ones(4), errors=-np.ones(4)), "errors of x must be finite, and .*not neg"),
        (lambda: pl.plot_histogram(band, np.ones(4), total=np.nan), "the total of x is nan"),
        (lambda: pl.plot_kinematics([pl.HistogramPanel(band)]), "no counts, and this needs a truth"),
        (lambda: pl.plot_amplification({}, {}, {}, {}), "n_bins is empty"),
        (lambda: pl.plot_shower_images(3, 3), "truth is 3, a int; it must be pyrogen.events.Showers"),
        (lambda: pl.plot_amplification({"a": [1]}, {}, {"a": [1]}, {}), "gains has nothing; .*names of n_bins: a"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            call()


def test_names_need_not_be_texts():
    """Such as numbers of replicas."""
    rng = np.random.default_rng(0)
    found = calibration_of(rng.normal(size=(5, 20, 7)), rng.normal(size=(5, 7)))
    labels = pl.plot_coverage({16: found, None: found}).axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == ["16", "None"]
    with pytest.raises(ValueError, match="gains has 4; it must have the names of n_bins: 3"):
        pl.plot_amplification({3: [1]}, {4: [1]}, {3: [1]}, {})
    for plot in (pl.plot_chains, pl.plot_training):
        with pytest.raises(ValueError, match="the history has no .*; it has 3"):
            plot({3: [1.0]})


def test_a_posterior_is_not_its_history():
    posterior = pg.SVI(epochs=1, progress=False).fit(
        pg.BayesianFlow(pg.CouplingFlow(2, 1, (4,))), np.random.default_rng(0).random((50, 2))
    )
    with pytest.raises(TypeError, match="history is a Posterior; .*give posterior.history"):
        pl.plot_training(posterior)
    with pytest.raises(TypeError, match=r"posterior.histogram\(observable, bins\)"):
        pl.plot_histogram(posterior, np.ones(4))


def arrows(axis):
    """Markers of the triangles in a panel, by their x."""
    return {
        round(float(x), 3): line.get_marker()
        for line in axis.lines
        if line.get_marker() in ("^", "v")
        for x in line.get_xdata()
    }


def test_ratios_outside_have_arrows(band, line):
    counts = 10_000 * band.mean
    counts[1] /= 5
    counts[3] *= 10
    for figure in (
        pl.plot_histogram(band, counts, total=10_000),
        pl.plot_kinematics([pl.HistogramPanel(band, counts, total=10_000)]),
    ):
        low, high = figure.axes[1].get_ylim()
        found = arrows(figure.axes[1])
        assert found.pop(1.5) == "^" and high < 5
        assert found == ({6.0: "v"} if low > 0.1 else {})
    assert arrows(band.plot(10_000 * band.mean, total=10_000).axes[1]) == {}
    means = line.means.copy()
    means[0, 4] *= 9
    wrong = LineResult(line.t, line.positions, means, line.stds, line.truth, "x")
    assert arrows(pl.plot_lines(wrong).axes[1]) == {0.5: "^"}
    assert arrows(pl.plot_backends({"a": line, "b": line, "c": wrong}).axes[4]) == {0.5: "^"}


@pytest.mark.parametrize("log", [False, True])
def test_a_legend_lies_above_the_data(band, log):
    """The legend's box and the band do not overlap, on the drawn figure."""
    figure = pl.plot_histogram(band, 10_000 * band.mean, total=10_000, log=log)
    figure.draw_without_rendering()
    axis = figure.axes[0]
    box = axis.get_legend().get_window_extent()
    top = axis.transData.transform((0, (band.density() + 2 * band.density_sigma()).max()))[1]
    assert top < box.y0 and box.y1 <= axis.get_window_extent().y1


def test_a_map_with_a_truth_leaves_no_empty_place():
    """The last row of five panels stands in the middle."""
    one = np.ones((4, 4))
    figure = pl.plot_map(UncertaintyMap(EDGES, EDGES, one, 0.1 * one, 0.1 * one, one))
    figure.draw_without_rendering()
    places = [axis.get_position() for axis in figure.axes if axis.get_label() != "<colorbar>"]
    middles = [(place.x0 + place.x1) / 2 for place in places]
    assert len(places) == 5
    assert np.mean(middles[3:]) == pytest.approx(np.mean(middles[:3]), abs=0.01)
    assert middles[0] < middles[3] < middles[1] < middles[4] < middles[2]


def test_a_correlation_names_its_bins(band):
    axis = pl.plot_correlation(band, label="$p_T$", unit="GeV").axes[0]
    assert axis.get_xlabel() == axis.get_ylabel() == "$p_T$ [GeV]"
    for names in (axis.get_xticklabels(), axis.get_yticklabels()):  # widths 1 to 4: all cells of one size
        assert [name.get_text() for name in names] == ["0", "1", "2", "4", "8"]
    np.testing.assert_array_equal(axis.get_xticks(), np.arange(5))
    even = pg.HistogramBand(
        np.linspace(0, 1, 31), np.random.default_rng(0).random((5, 30)), 10, "a", label="m", unit="TeV"
    )
    axis = pl.plot_correlation(even).axes[0]
    assert axis.get_xlabel() == "m [TeV]" and axis.get_xlim() == (0, 1) and len(axis.get_xticks()) < 12
    assert isinstance(axis.figure, Figure)
