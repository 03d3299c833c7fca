"""How objects print, one style of access to densities, variations for template fits, a band as a figure."""

import dataclasses
import inspect

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import pyrogen as pg
import pyrogen.plotting
from pyrogen import diagnostics as dg
from pyrogen.posterior.bands import multinomial_noise
from pyrogen.printing import Brief, brief, span

EDGES = np.array([0.0, 1.0, 2.0, 4.0, 8.0])
ROOMS = (pg, pg.diagnostics, pg.events, pg.posterior, pg.plotting, pg.targets)
PUBLIC = {getattr(room, name) for room in ROOMS for name in room.__all__ if inspect.isclass(getattr(room, name))}


@pytest.fixture
def band():
    rng = np.random.default_rng(0)
    common = rng.normal(0, 0.02, (30, 1)) * np.array([1, -1, 0.5, 0])
    draws = np.array([0.1, 0.3, 0.2, 0.2]) + common + rng.normal(0, 0.005, (30, 4))
    return pg.HistogramBand(EDGES, draws, 10_000, "a", multinomial_noise(draws, 10_000), label="$p_T$", unit="GeV")


@pytest.fixture
def line():
    t = np.linspace(0.1, 0.9, 33)
    return dg.LineResult(t, np.array([0.2, 0.5]), np.tile(2.1 * t, (2, 1)), np.full((2, 33), 0.1), 2 * t, "x")


def test_a_long_result_prints_as_one_short_line(band, line):
    many = torch.linspace(1, 3, 1000)
    finding = pg.posterior.Finding("too few epochs", "the loss still falls, " * 20, "train for longer")
    flow = pg.BayesianFlow(pg.CouplingFlow(2))
    results = [
        (pg.DensityEstimate(many, 0.1 * many, torch.full((1000,), 0.1)), "1,000 points, p = 1 to 3, sigma/p = 0.1"),
        (band, "$p_T$: 4 bins from 0 to 8, 30 draws, 10,000 events each, 80.1% of them inside, procedure 'a'"),
        (line, "33 points of x = 0.1 to 0.9 on 2 lines, mean sigma 0.1,"),
        (
            dg.MarginalResult({"a": band, "b": band}, None, "m", "GeV"),
            "m [GeV]: 4 bins from 0 to 8, procedures a and b",
        ),
        (dg.UncertaintyMap(EDGES, EDGES, *np.ones((3, 4, 4))), "4 x 4 cells: x = 0 to 8, y = 0 to 8"),
        (dg.Elpd(np.linspace(-1, 1, 101)), "+- 0.058 nats per event, 101 events"),
        (
            dg.Convergence(np.zeros((2, 5, 99)), *np.ones((3, 99))),
            "99 probe points, 2 chains of 5 draws: R-hat up to 1,",
        ),
        (
            dg.Calibration(*np.ones((3, 2, 7)), np.ones(7), 50, np.ones(7)),
            "7 quantities (by quantity) in 2 trainings, 50",
        ),
        (
            dg.QuantileBinResult(np.ones((2, 3, 25), int), 100, 4000),
            "25 bins, 2 trainings on 4,000 events, 3 draws of 100",
        ),
        (dg.AmplificationFit(1.234567, 0.1, 0.5, 0.02), "a = 1.235 +- 0.1, b = 0.5 +- 0.02"),
        (dg.ShapeFit({"a": 0.1}, {"a": 0.01}, 3, 5, {"a": EDGES}, EDGES), "a = 0.1 +- 0.01, chi2/ndf = 3/5"),
        (dg.Advice((finding, finding), ("the loss",)), "! too few epochs; ! too few epochs"),
        (dg.Comparison([{"backend": "SVI"}, {"backend": "HMC"}], {"SVI": line}, "HMC"), "SVI, HMC; reference HMC"),
        (dg.SizeScan({1000: line}, {}), "1,000 training events"),
        (pg.plotting.HistogramPanel(band, np.ones(4)), "$p_T$ [GeV], truth of 4 events, HistogramBand("),
        (band.variations(), "4 variations of 4 bins, 100.00% of the variance"),
        (
            pg.posterior.RunInfo(backend="SVI", settings={"lr": [0.1] * 500}, training_events=9),
            "SVI, 9 training events",
        ),
        (pg.posterior.Predictor(flow, pg.posterior.Point(loc=flow.initial_theta)), "CouplingFlow of x0, x1; Point("),
        (dg.Classifier(2, (8, 4)), "2 -> 8 -> 4 -> 1, not trained"),
        (pg.ELBO(num_particles=3), "local=True, num_particles=3, kl_weight=1"),
        (pg.events.lepton_pair_observables()["E"], "$E(e^+)$ [GeV], 50 bins from 0 to 2000"),
    ]
    for result, words in results:
        assert words in repr(result) and "\n" not in repr(result) and len(repr(result)) < 160


def test_settings_print_what_was_changed():
    assert repr(pg.SVI(epochs=3, seed=1)) == "SVI(seed=1, epochs=3)"
    assert repr(pg.NUTS()) == "NUTS()"
    assert "\nlr: 0.001\n" in str(pg.SVI()) and str(pg.SVI()).startswith("SVI\nseed: 0\n")
    assert repr(pg.events.Standardise()) == "Standardise(not fitted)"
    assert repr(pg.events.Standardise().fit([[1.0, 2.0], [3.0, 6.0]])) == "Standardise(mean=[2, 4], std=[1, 2])"
    assert "weights, prior_scale=1, preprocessing Standardise" in repr(pg.BayesianFlow(pg.CouplingFlow(2)))


def test_no_public_dataclass_prints_all_it_holds():
    """One that has arrays in its fields would print them: it is Brief, or has a repr of its own."""
    classes = [cls for cls in PUBLIC if dataclasses.is_dataclass(cls)]
    assert len(classes) > 25
    plain = {cls.__name__ for cls in classes if cls.__dataclass_params__.repr and not hasattr(cls, "fit_many")}
    assert plain <= {"Finding", "Multiplicity", "Nuisance", "QuantileBins"}  # of words, numbers, a function, a target
    assert pg.HistogramBand.__mro__[1] is Brief


def test_values_in_a_few_characters():
    assert brief(np.ones((3, 4))) == "[3, 4]" and brief(torch.ones(9)) == "[9]"
    assert brief(np.array([1.23456, 2.0])) == "[1.235, 2]"
    assert brief(torch.tensor(0.123456)) == "0.1235"
    assert brief({"a": 1.0, "b": np.ones(50)}) == "{'a': 1, 'b': [50]}"
    assert brief([1.0] * 100) == "100 entries"
    assert brief("x" * 200) == "'" + "x" * 59 + "..."
    assert brief(lambda x: x) == "<lambda>" and brief(torch.nn.Linear(2, 2)) == "Linear(...)"
    assert (span([3.0, 1.0, np.nan]), span([2.0, 2.0]), span([np.nan])) == ("1 to 3", "2", "nan")


def test_print_shows_the_text():
    advice = dg.Advice((), ("the loss",))
    assert str(advice) == advice.text() and "Nothing serious" in str(advice)
    assert str(pg.DensityEstimate(*torch.ones(3, 5))).startswith("DensityEstimate(5 points")


def test_densities_have_one_style_of_access(band, line):
    """density, sigma and relative per unit, whatever the result."""
    estimate = pg.DensityEstimate(torch.tensor([2.0]), torch.tensor([0.5]), torch.tensor([0.25]))
    assert (estimate.density, estimate.sigma) == (estimate.mean, estimate.std)
    np.testing.assert_allclose(band.density(), band.draws.mean(0) / [1, 1, 2, 4])
    np.testing.assert_allclose(band.density_sigma(), band.draws.std(0, ddof=1) / [1, 1, 2, 4])
    np.testing.assert_allclose(band.density_sigma(True), band.sigma(True) / [1, 1, 2, 4])
    np.testing.assert_allclose(band.relative(), band.std / band.mean)
    np.testing.assert_array_equal(band.centres, [0.5, 1.5, 3, 6])
    result = dg.MarginalResult({"b": band})
    np.testing.assert_array_equal(result.density("b"), band.density())
    np.testing.assert_array_equal(result.sigma("b"), band.density_sigma(subtract_noise=True))
    np.testing.assert_array_equal(result.relative("b"), band.relative(subtract_noise=True))
    np.testing.assert_array_equal(result.centres, band.centres)
    empty = pg.HistogramBand(EDGES, np.zeros((5, 4)), 10, "a")
    assert np.isinf(empty.relative()).all()


def test_variations_add_up_to_the_covariance(band):
    found = band.variations(1.0)
    np.testing.assert_allclose(found.shifts.T @ found.shifts, band.covariance(), atol=1e-15)
    np.testing.assert_allclose(np.square(found.shifts).sum(0), band.std**2)
    assert len(found) == 4 and found.kept == pytest.approx(1) and (found.rest == 0).all()
    np.testing.assert_allclose((found.up + found.down) / 2, np.tile(band.mean, (4, 1)))
    np.testing.assert_allclose(found.up - found.down, 2 * found.shifts)
    sizes = np.square(found.shifts).sum(1)
    assert (np.diff(sizes) <= 0).all()
    np.testing.assert_allclose(found.shifts @ found.shifts.T, np.diag(sizes), atol=1e-15)  # independent directions
    assert (np.take_along_axis(found.shifts, np.abs(found.shifts).argmax(1)[:, None], 1) > 0).all()


def test_few_variations_have_the_wanted_part_of_the_variance(band):
    whole = np.trace(band.covariance())
    for fraction in (0.5, 0.9, 0.99):
        found = band.variations(fraction)
        kept = np.square(found.shifts).sum() / whole
        assert found.kept == pytest.approx(kept) and kept >= fraction
        assert len(found) == 1 or np.square(found.shifts[:-1]).sum() / whole < fraction  # one fewer is too few
        np.testing.assert_allclose(np.square(found.shifts).sum(0) + found.rest**2, band.std**2)
    assert len(band.variations(0.5)) == 1 < len(band.variations(0.9999))


def test_variations_are_scaled_to_events(band):
    found, events = band.variations(), band.variations(total=500)
    np.testing.assert_allclose(events.shifts, 500 * found.shifts)
    np.testing.assert_allclose(events.nominal, 500 * band.mean)
    np.testing.assert_allclose(events.rest, 500 * found.rest)
    modifiers = events.modifiers("flow")
    assert [each["name"] for each in modifiers] == [f"flow_{i}" for i in range(len(events))]
    assert {each["type"] for each in modifiers} == {"histosys"}
    np.testing.assert_allclose(modifiers[0]["data"]["hi_data"], events.up[0])
    np.testing.assert_allclose(modifiers[0]["data"]["lo_data"], events.down[0])


def test_variations_of_few_draws_and_of_what_the_noise_explains(band):
    few = dataclasses.replace(band, draws=band.draws[:3])
    assert len(few.variations(1.0)) == 2  # three draws differ in two directions
    still = dataclasses.replace(band, draws=np.tile(band.draws[:1], (5, 1)))
    assert len(still.variations()) == 0 and still.variations().shifts.shape == (0, 4)
    found = band.variations(1.0, subtract_noise=True)
    values = np.linalg.eigvalsh(band.covariance(subtract_noise=True))
    assert len(found) == (values > 0).sum()
    np.testing.assert_allclose(np.sort(np.square(found.shifts).sum(1)), values[values > 0])
    for wrong in (0, 1.1, -1, "all", np.nan, True):
        with pytest.raises(ValueError, match="fraction is .*above 0 and at most 1"):
            band.variations(wrong)
    with pytest.raises(ValueError, match="total is 0"):
        band.variations(total=0)
    with pytest.raises(ValueError, match="does not know the noise"):
        pg.HistogramBand(EDGES, band.draws, 10, "a").variations(subtract_noise=True)


def test_a_band_plots_itself(band):
    top, bottom = band.plot([100, 300, 200, 200], truth_label="data").axes
    assert isinstance(band.plot(), Figure)
    (alone,) = band.plot().axes
    assert bottom.get_xlabel() == alone.get_xlabel() == "$p_T$ [GeV]"
    assert alone.get_ylabel() == "density of $p_T$ [1/GeV]"
    assert bottom.get_ylabel() == "gen. / data"
    assert "data" in [text.get_text() for text in top.get_legend().get_texts()]
    assert "truth" not in [text.get_text() for text in alone.get_legend().get_texts()]
    with pytest.raises(ValueError, match=r"counts of \$p_T\$ has shape \[3\]; the band has 4 bins"):
        band.plot([1, 2, 3])


def test_a_band_knows_its_observable():
    events = pg.EventSample(np.random.default_rng(0).random((100, 2)), names=("pT", "eta"), units=("GeV", ""))
    posterior = pg.SVI(epochs=1, seed=0, progress=False).fit(pg.BayesianFlow(pg.CouplingFlow(2, 1, (4,))), events)

    class Mass:
        label, unit = "$m$", "TeV"

        def __call__(self, x):
            return x[:, 0]

    wanted = {"own": (Mass(), EDGES), "second": (1, EDGES), "sum": (lambda x: x.sum(1), EDGES)}
    names = {"own": ("$m$", "TeV"), "second": ("eta", ""), "sum": ("sum", "")}
    found = posterior.histograms(wanted, n=20, draws=2)
    assert {name: (band.label, band.unit) for name, band in found.items()} == names
    stored = pg.sample_histograms(posterior.generate(20, 2, log_weights=True), wanted)
    assert {name: (band.label, band.unit) for name, band in stored.items()} == names
    assert posterior.histogram("pT", EDGES, n=20, draws=2).unit == "GeV"
    hist = pytest.importorskip("hist")
    axis = hist.axis.Variable(EDGES, label="$q$ [MeV]")
    band = posterior.histogram("pT", axis, n=20, draws=2)
    assert (band.label, band.unit) == ("$q$", "MeV")
    assert band.to_hist().axes[0].label == "$q$ [MeV]"
