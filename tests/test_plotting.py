"""Figures contain what they should: panels, labels, and bands that are the numbers they were given."""

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch

import pyrogen as pg
from pyrogen.diagnostics import LineResult, calibration_of, fit_shape
from pyrogen.plotting import (
    HistogramPanel,
    plot_calibration,
    plot_chains,
    plot_coverage,
    plot_histogram,
    plot_histograms,
    plot_lines,
    plot_training,
    save_figure,
)
from pyrogen.plotting.style import symbol, with_error


def with_tenth(mean):
    """A density with an uncertainty of 10 %; none where there is no density."""
    return pg.DensityEstimate(mean, 0.1 * mean, torch.where(mean > 0, 0.1, torch.inf))


@pytest.fixture
def result():
    t = np.linspace(0.1, 0.9, 9)
    sigma = 0.01 + 0.05 * np.abs(t - 0.5)
    scale = np.array([0.8, 1.0, 1.2])[:, None]
    return LineResult(t, np.array([0.2, 0.5, 0.8]), np.tile(2.1 * t, (3, 1)), scale * sigma, 2 * t, "x")


@pytest.fixture
def band():
    draws = np.random.default_rng(0).normal(0.2, 0.01, (30, 4))
    return pg.HistogramBand(np.array([0.0, 1.0, 2.0, 4.0, 8.0]), draws, 10_000, "a")


@pytest.fixture
def history():
    decay = np.exp(-np.arange(6.0))
    return {"loss": 2 + 2 * decay, "nll": 2 + decay, "kl": decay, "validation_nll": np.full(6, np.nan)}


@pytest.fixture(autouse=True)
def _no_traces():
    """No plot leaves an open figure or changed settings behind."""
    before, others = dict(matplotlib.rcParams), pyplot.get_fignums()
    yield
    assert pyplot.get_fignums() == others
    assert dict(matplotlib.rcParams) == before


def panels(figure):
    return [axis for axis in figure.axes if axis.get_label() != "<colorbar>"]


def legend(axis):
    return [text.get_text() for text in axis.get_legend().get_texts()]


def limits_of(collection):
    """Lower and upper edge of a filled band, as {x: (low, high)}."""
    edges = {}
    for x, y in collection.get_paths()[0].vertices:
        edges.setdefault(round(x, 6), []).append(y)
    return {x: (min(ys), max(ys)) for x, ys in edges.items()}


def test_lines_show_band_ratio_and_uncertainties(result):
    figure = plot_lines(result)
    density, ratio, relative, absolute = panels(figure)
    for axis, center, scale in ((density, result.density, 1), (ratio, result.density / result.truth, result.truth)):
        one, two = (c for c in axis.collections if isinstance(c, PolyCollection))
        for collection, k in ((one, 1), (two, 2)):
            drawn = limits_of(collection)
            for i, t in enumerate(result.t):
                low, high = drawn[round(t, 6)]
                width = k * (result.sigma / scale)[i]
                assert (low, high) == pytest.approx((center[i] - width, center[i] + width))
    assert legend(density) == [r"$\pm \sigma$", r"$\pm 2\sigma$", "prediction", "truth"]
    for axis, values, spread in (
        (relative, result.relative, result.relative_spread),
        (absolute, result.sigma, result.sigma_spread),
    ):
        points, _, (bars,) = axis.containers[0]
        np.testing.assert_allclose(points.get_ydata(), values)
        np.testing.assert_allclose([np.diff(segment[:, 1])[0] for segment in bars.get_segments()], 2 * spread)
        assert legend(axis) == ["mean and spread of 3 lines"]
    assert ratio.get_xlabel() == relative.get_xlabel() == absolute.get_xlabel() == "$x$"
    assert "absolute uncertainty" in absolute.get_ylabel()
    assert not any(axis.get_title() for axis in figure.axes)


def test_lines_with_the_fitted_shape_and_units(result):
    sensitivities = {"delta_a": np.abs(result.t - 0.5), "delta_x_max": np.full(9, 2.0)}
    shape = fit_shape(result.sigma, result.sigma_spread, sensitivities)
    absolute = panels(plot_lines(result, shape, unit="GeV", density_unit="1/GeV"))[-1]
    (curve,) = [line for line in absolute.lines if len(line.get_ydata()) == 9 and line.get_linestyle() == "-"]
    np.testing.assert_allclose(curve.get_ydata(), shape.curve())
    text = "\n".join(legend(absolute))
    assert r"\Delta a" in text
    assert r"\Delta x_\mathrm{max}" in text
    assert absolute.get_xlabel() == "$x$ [GeV]"
    assert absolute.get_ylabel().endswith("[1/GeV]")


def test_one_line_and_points_without_truth_can_be_drawn(result, tmp_path):
    single = result.line(0)
    save_figure(
        plot_lines(LineResult(single.t, single.positions, single.means, single.stds, 0 * single.t)), tmp_path / "a.png"
    )
    assert legend(panels(plot_lines(single))[2]) == ["one line"]


def test_histogram_band_and_truth(band):
    counts = np.array([21, 19, 18, 0])
    figure = plot_histogram(band, counts, total=100, label="pT", unit="GeV", truth_label="training events")
    top, bottom = panels(figure)
    one, two, middle = (patch for patch in top.patches if isinstance(patch, StepPatch))
    for patch, k in ((one, 1), (two, 2)):
        data = patch.get_data()
        np.testing.assert_allclose(data.values, (band.mean + k * band.std) / band.widths)
        np.testing.assert_allclose(data.baseline, (band.mean - k * band.std) / band.widths)
    np.testing.assert_allclose(middle.get_data().values, band.mean / band.widths)
    points, _, (bars,) = top.containers[0]
    np.testing.assert_allclose(points.get_ydata(), counts / 100 / band.widths)
    np.testing.assert_allclose(
        [np.diff(segment[:, 1])[0] for segment in bars.get_segments()], 2 * np.sqrt(counts) / 100 / band.widths
    )
    ratio = next(patch for patch in bottom.patches if patch.get_data().baseline is None).get_data().values
    np.testing.assert_allclose(ratio, band.mean / np.array([0.21, 0.19, 0.18, np.nan]))
    assert bottom.get_xlabel() == "pT [GeV]"
    assert top.get_ylabel() == "density of pT [1/GeV]"
    assert legend(top) == [r"$\pm \sigma$", r"$\pm 2\sigma$", "generated", "training events"]


def test_histogram_grid_errors_and_log_scale(band):
    weighted = HistogramPanel(band, np.ones(4), errors=np.full(4, 0.5))
    density, error = weighted.truth()
    np.testing.assert_allclose(density, 0.25 / band.widths)
    np.testing.assert_allclose(error, 0.125 / band.widths)
    assert len(panels(plot_histograms([weighted] * 4, log=True))) == 8
    with pytest.raises(ValueError, match="4 bins"):
        plot_histogram(band, np.ones(5))
    with pytest.raises(ValueError, match="errors of x"):
        plot_histogram(band, np.ones(4), errors=np.ones(3))
    with pytest.raises(ValueError, match="total of x is 0"):
        plot_histogram(band, np.zeros(4))
    with pytest.raises(ValueError, match="at least one histogram"):
        plot_histograms([])


def test_course_of_chains():
    rng = np.random.default_rng(1)
    chains = {"potential": rng.normal(size=(3, 20)), "acceptance": rng.random((3, 20)), "energy": np.zeros((3, 20))}
    chains |= {f"warmup_{name}": values[:, :5] for name, values in chains.items()}
    potential, acceptance = panels(plot_chains(chains))
    assert len(potential.lines) == 4  # three chains and the end of the warm-up
    np.testing.assert_array_equal(potential.lines[0].get_xdata(), np.arange(1, 26))
    np.testing.assert_array_equal(potential.lines[2].get_ydata()[5:], chains["potential"][2])
    assert list(potential.lines[3].get_xdata()) == [5, 5]
    assert "nats" in potential.get_ylabel() and "acceptance" in acceptance.get_ylabel()
    with pytest.raises(ValueError, match=r"no potential \[chains, draws\]; it has loss"):
        plot_chains({"loss": np.zeros(3)})


def test_training_curve(history):
    loss, likelihood, divergence = panels(plot_training(history))
    for axis, name in ((loss, "loss"), (likelihood, "nll"), (divergence, "kl")):
        np.testing.assert_array_equal(axis.lines[0].get_xdata(), np.arange(1, 7))
        np.testing.assert_allclose(axis.lines[0].get_ydata(), history[name])
        assert axis.get_xlabel() == "epoch"
        assert "nats per event" in axis.get_ylabel()
    assert len(likelihood.lines) == 1  # the validation was all NaN

    with_validation = panels(plot_training(history | {"validation_nll": history["nll"] + 1}))[1]
    np.testing.assert_allclose(with_validation.lines[1].get_ydata(), history["nll"] + 1)
    assert legend(with_validation) == ["training events", "held-out events"]
    assert panels(plot_training({name: values[:1] for name, values in history.items()}))[0].lines[0].get_marker() == "o"

    spike = history["loss"] + np.array([0, 0, 0, 500, 0, 0])
    loss = panels(plot_training(history | {"loss": spike}))[0]
    assert loss.get_ylim()[1] < 10
    np.testing.assert_array_equal(loss.lines[1].get_xdata(), [4])  # an arrow where the curve leaves the panel
    with pytest.raises(ValueError, match="no kl"):
        plot_training({"loss": [1.0], "nll": [1.0]})


def test_plot_training_of_several_networks_has_a_line_for_each_and_their_median():
    loss = np.array([[3.0, 2.0, 1.0], [3.5, 2.5, np.nan], [4.0, 2.2, 1.2]])
    (axis,) = panels(plot_training({"loss": loss, "step": np.array([10.0, 20.0, 30.0])}))
    for line, row in zip(axis.lines, [*loss, np.nanmedian(loss, 0)], strict=True):
        assert np.array_equal(line.get_ydata(), row, equal_nan=True)
    assert axis.get_xlabel() == "step" and axis.get_legend().get_texts()[0].get_text() == "median of 3 networks"
    with pytest.raises(ValueError, match=r"loss in the history has the shape \[3, 3\]"):
        plot_training({"loss": loss, "step": np.array([10.0, 20.0])})


def test_figures_are_saved_in_one_piece(history, tmp_path):
    figure = plot_training(history)
    assert isinstance(figure, Figure)
    assert save_figure(figure, tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert save_figure(figure, tmp_path / "curve.pdf").read_bytes().startswith(b"%PDF")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curve.pdf", "curve.png"]
    with pytest.raises(OSError, match="cannot write"):
        save_figure(figure, tmp_path / "missing" / "curve.png")
    with pytest.raises(ValueError, match="not supported"):
        save_figure(figure, tmp_path / "curve.xyz")


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("delta_a", r"$\Delta a$"),
        ("delta_x_max", r"$\Delta x_\mathrm{max}$"),
        ("delta_mu", r"$\Delta \mu$"),
        ("slope", r"$\mathrm{slope}$"),
    ],
)
def test_symbols(name, formula):
    assert symbol(name) == formula


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.04026, 0.00312, "0.040 0.003"),
        (7e-8, 0.0021, "0.000 0.002"),
        (12.3, 1.4, "12.3 1.4"),
        (3210, 250, "3210 250"),
    ],
)
def test_values_have_the_digits_their_errors_allow(value, error, text):
    assert with_error(value, error).replace(r" $\pm$", "") == text


def test_long_names_leave_the_panels_of_a_calibration_their_width():
    draws = torch.randn(4, 20, 10, generator=torch.Generator().manual_seed(1)).double().numpy()
    names = ("SVI, events 20000, epochs 250, flow affine, prior width 0.5, batch size 1024", "HMC")
    figure = plot_calibration({name: calibration_of(draws, np.zeros(10)) for name in names})
    figure.draw_without_rendering()
    widths = [axis.get_position().width for axis in figure.axes]
    assert min(widths) > 0.2
    told = [text.get_text().replace("\n", " ") for text in figure.legends[0].get_texts()]
    assert told == [f"{name} (4 trainings)" for name in names]


def test_coverage_of_many_studies_has_a_row_for_each():
    rng = np.random.default_rng(0)
    found = calibration_of(rng.normal(size=(20, 50, 10)), np.zeros(10))
    figure = plot_coverage({f"{kind}: {n} events": found for kind in ("SVI", "HMC") for n in (10, 20)})
    one, two, pulls = figure.axes
    assert [label.get_text() for label in one.get_yticklabels()] == [
        f"{kind}: {n} events" for kind in ("SVI", "HMC") for n in (10, 20)
    ]
    for axis, fraction in ((one, found.fraction()[0]), (two, found.fraction(0.9545)[0])):
        points = [line for line in axis.get_lines() if line.get_marker() == "o"]
        assert [line.get_xdata()[0] for line in points] == pytest.approx([fraction] * 4, abs=1e-3)
    colours = [line.get_color() for line in pulls.get_lines() if line.get_marker() == "o"]
    assert colours[0] == colours[1] != colours[2] == colours[3]
    with pytest.raises(ValueError, match="calibrations is empty"):
        plot_coverage({})
