"""Figures of a bump hunt show what they were given, and the example runs."""

import numpy as np
import pytest
from spectra import RANGE, falling

import pyrogen as pg

WINDOWS = pg.search.mass_windows((2.2, 5.0), 5)


@pytest.fixture(scope="module")
def results():
    masses, given = falling(3_000, 1), {"range": RANGE, "progress": False}
    return {
        method: pg.search.bump_hunt(masses, WINDOWS, background=method, toys=20, **given)
        for method in ("fit", "counting")
    }


def test_the_spectrum_has_its_fit_and_pulls(results):
    top, low = pg.plotting.plot_spectrum(results["fit"]).axes
    assert "dijet function" in top.get_legend().get_texts()[0].get_text() + top.get_legend().get_texts()[1].get_text()
    assert low.get_ylabel() == "pull" and low.get_xlabel() == "mass [TeV]" and top.get_ylabel() == "events / TeV"
    assert pg.plotting.plot_spectrum(results["counting"]).axes[1].get_ylabel() == r"significance [$\sigma$]"


def test_the_scan_shows_every_window_and_the_global_significance(results):
    (axis,) = pg.plotting.plot_scan(results).axes
    told = " ".join(text.get_text() for text in axis.get_legend().get_texts())
    assert "fit" in told and "counting" in told and "global p" in told
    drawn = [line.get_ydata() for line in axis.lines if len(line.get_ydata()) == len(WINDOWS)]
    assert any(np.allclose(y, results["fit"].z) for y in drawn)


def test_p_values_are_drawn_against_the_diagonal():
    p = (np.arange(100) + 0.5) / 100
    (axis,) = pg.plotting.plot_p_values({"exact": p}).axes
    assert np.abs(axis.lines[0].get_ydata()).max() == pytest.approx(0.005)
    with pytest.raises(ValueError, match="p_values.* between 0 and 1"):
        pg.plotting.plot_p_values({"exact": [2.0]})
