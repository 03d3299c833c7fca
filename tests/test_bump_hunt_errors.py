"""What a bump hunt refuses, and in which words."""

import numpy as np
import pytest
from spectra import RANGE, falling

import pyrogen as pg
from pyrogen.search import (
    GeneratedMasses,
    GivenBackground,
    Regions,
    SidebandCounting,
    SidebandFit,
    bump_hunt,
    mass_windows,
)

MASSES = falling(2_000, 1)
ONE = [(3.3, 3.7)]
quiet = {"range": RANGE, "progress": False}


def broken(at, value):
    found = MASSES.copy()
    found[at] = value
    return found


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"data": broken(7, np.nan)}, "data.* NaN|data.* nan"),
        ({"data": broken(7, np.inf)}, "data.* inf"),
        ({"data": broken(7, 1.5)}, r"data: 1 of .* mass outside the range \(2.0, 7.0\) TeV, .* event 7, 1.5"),
        ({"data": 1000 * MASSES}, "data: .* outside .* in the same unit"),
        ({"data": []}, "data"),
        ({"windows": []}, "windows is"),
        ({"windows": ONE[0]}, "windows"),
        ({"windows": [(2.0, 3.0)]}, r"windows has \(2, 3\); it must be inside the range .* sideband on both sides"),
        ({"windows": [(6.0, 8.0)]}, "windows has .* inside the range"),
        ({"windows": [(3300, 3700)]}, "windows has .* same unit"),
        ({"range": None}, "range is None; give the"),
        ({"range": (2000.0, 7000.0), "windows": [(3300, 3700)]}, "data: .* in the same unit"),
        ({"unit": "GeV", "background": SidebandFit(energy=13_000)}, "energy is 13000.* in the unit of the masses"),
        ({"background": SidebandFit(energy=5)}, "range is .* between 0 and the energy, 5"),
        ({"unit": "parsec"}, "unit is 'parsec'"),
        ({"background": "fits"}, "background is 'fits'; it must be one of fit, counting"),
        ({"background": GivenBackground([1.0, 2.0], sigma=[1, 1])}, "background has 2 means; there are 1 windows"),
        ({"background": GivenBackground([0.0], sigma=[1])}, "background is 0 in the window 3.3 to 3.7"),
        (
            {"background": GivenBackground(np.ones(5), sigma=np.ones(5), edges=np.arange(2, 8))},
            "background has no edge at 3.3",
        ),
        ({"column": "mjj"}, "column is 'mjj', and data is an array"),
        ({"weights": [1.0]}, "weights has shape"),
        ({"weights": -np.ones(len(MASSES))}, "weights is -1 for event 0; .* not negative"),
        ({"weights": np.zeros(len(MASSES))}, "weights .* positive sum"),
        ({"data": MASSES[:3]}, "data has .* of the sidebands .* 4 parameters needs more"),
        ({"data": MASSES[MASSES < 3.7], "background": "counting"}, "no event in the upper sideband, 3.7 to 4.1"),
    ],
)
def test_what_makes_no_search_is_refused(given, text):
    with pytest.raises((ValueError, TypeError), match=text):
        bump_hunt(**{"data": MASSES, "windows": ONE, **quiet} | given)


def test_a_fit_that_does_not_converge_is_an_error(monkeypatch):
    monkeypatch.setattr("pyrogen.search.spectrum.CALLS", 2)
    with pytest.raises(ValueError, match=r"data: the fit of the sidebands .* does not converge.*fewer parameters"):
        bump_hunt(MASSES, ONE, **quiet)


def test_an_empty_window_is_a_deficit():
    masses = MASSES[(MASSES < 3.3) | (MASSES > 3.7)]
    found = bump_hunt(masses, ONE, **quiet)
    assert found.observed[0] == 0 and found.p_value[0] == 1 and found.z[0] < -5 and found.signal[0] < 0


def test_events_with_names_and_units():
    table = np.stack([np.ones(len(MASSES)), 1000 * MASSES], 1)
    sample = pg.EventSample(table, ["pt", "mjj"], ["GeV", "GeV"])
    given = {"range": (2000.0, 7000.0), "progress": False}
    found = bump_hunt(sample, [(3300, 3700)], column="mjj", **given)
    plain = bump_hunt(MASSES, ONE, **quiet)
    assert found.unit == "GeV" and found.label == "mjj" and plain.unit == "TeV"
    assert found.background == pytest.approx(plain.background, rel=1e-4)
    with pytest.raises(ValueError, match="unit is 'TeV', and the column mjj of data has the unit 'GeV'"):
        bump_hunt(sample, [(3300, 3700)], column="mjj", unit="TeV", **given)
    with pytest.raises(ValueError, match="column is None; say which of pt, mjj is the mass"):
        bump_hunt(sample, [(3300, 3700)], **given)
    with pytest.raises(ValueError, match="no column 'm'.*pt, mjj"):
        bump_hunt(sample, [(3300, 3700)], column="m", **given)
    weighted = pg.EventSample(table, ["pt", "mjj"], ["GeV", "GeV"], weights=np.full(len(table), 2.0))
    found = bump_hunt(weighted, [(3300, 3700)], column="mjj", background="counting", **given)
    assert found.observed[0] == 2 * ((MASSES >= 3.3) & (MASSES < 3.7)).sum()
    generated = pg.EventSample(table, ["pt", "mjj"], uncertainties=np.full(len(table), 0.1))
    with pytest.raises(ValueError, match="data has uncertainties"):
        bump_hunt(generated, [(3300, 3700)], column="mjj", **given)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"sigma": [1.0], "covariance": [[1.0]]}, "sigma and covariance: give one"),
        ({}, "sigma and covariance: give one"),
        ({"sigma": [-1.0]}, "sigma is"),
        ({"covariance": [[-1.0]]}, "covariance is .* symmetric, without negative variances"),
        ({"mean": [np.nan], "sigma": [1.0]}, "mean is"),
        ({"sigma": [1.0], "edges": [1.0]}, "edges is .* 2 finite numbers that rise"),
    ],
)
def test_what_is_no_background(given, text):
    with pytest.raises(ValueError, match=text):
        GivenBackground(**{"mean": [5.0]} | given)


def test_generators_that_do_not_fit():
    edges = np.linspace(*RANGE, 26)
    draws = np.random.default_rng(1).dirichlet(np.full(25, 40.0), 5)
    band = pg.HistogramBand(edges, draws, 1_000, "a")
    with pytest.raises(ValueError, match="events is None; it must be the number of events"):
        GeneratedMasses(source=band)
    with pytest.raises(ValueError, match="source is .* at least three"):
        GeneratedMasses(source=[MASSES, MASSES], events=10)
    with pytest.raises(TypeError, match="source is a str"):
        GeneratedMasses(source="x", events=10)
    with pytest.raises(ValueError, match="column is 'm'"):
        GeneratedMasses(source=band, events=10, column="m")
    source = GeneratedMasses(source=band, events=1_000.0)
    trained = GeneratedMasses(source=band, events=1_000.0, spread="training")
    inner = [(3.0, 3.6)]
    for data, more, text in (
        (source, {"windows": ONE}, "the band has no edge at 3.3"),
        (source, {"range": (2.1, 7.0)}, "the band has no edge at 2.1"),
        (trained, {}, "data has 5 generators; .* even number"),
        (trained, {"toys": 5}, "toys is 5; it must be 0 with spread='training'"),
        (source, {"weights": [1.0]}, "weights is"),
        (source, {"background": source}, "background is a GeneratedMasses, and data as well"),
        (MASSES, {"background": source, "toys": 3}, "toys is 3; it must be 0 with a background of generators"),
    ):
        with pytest.raises((ValueError, TypeError), match=text):
            bump_hunt(data, **{"windows": inner, **quiet} | more)


def test_settings_say_what_is_right():
    for make, text in (
        (lambda: SidebandFit(parameters=5), "parameters is 5; it must be None, 2, 3 or 4"),
        (lambda: SidebandFit(bins=3), "bins is 3"),
        (lambda: SidebandCounting(shape="x"), "shape is 'x'; it must be one of exponential, linear"),
        (lambda: SidebandCounting(width=0), "width is 0"),
        (lambda: mass_windows((-1, 3), 4), "range is .* above zero"),
        (lambda: bump_hunt(MASSES, Regions(signal=(3, 4), window=RANGE), range=(2, 8)), "range is .* None, or"),
    ):
        with pytest.raises(ValueError, match=text):
            make()
