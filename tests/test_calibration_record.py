"""What a calibrated posterior tells of its calibration: in its file, its text, its figures and the bars."""

import io
import sys
from dataclasses import replace

import pytest
from known import Location
from known_sigma import EVENTS, FEW, backend, calibrated_once, model

import pyrogen as pg
from pyrogen import diagnostics, plotting, progress

#: Few trainings are enough to see what is done; they know the coverage badly, and say so.
pytestmark = pytest.mark.filterwarnings("ignore::pyrogen.SamplingWarning")


@pytest.fixture(scope="module")
def found():
    return calibrated_once()


def test_the_record_survives_a_file(found, tmp_path):
    found.save(tmp_path / "posterior.h5")
    loaded = pg.load(tmp_path / "posterior.h5", flow=Location(2))
    assert loaded.info == found.info and loaded.info.calibration == found.info.calibration
    assert repr(loaded) == repr(found)
    assert "calibration: calibrated: by parametric bootstrap, " in str(loaded.info)
    assert "calibration: not calibrated" in str(backend().fit(model(), EVENTS).info)


def test_the_posterior_says_so(found):
    percent = f"{100 * found.info.calibration.one_sigma[0]:.1f}"
    assert f"calibrated (parametric bootstrap: {percent} +- " in repr(found)
    plain = backend().fit(model(), EVENTS)
    assert repr(plain).endswith("not calibrated)")
    assert found.to("cpu").info.calibration == found.info.calibration


def texts(figure):
    return figure.get_supxlabel()


def test_figures_carry_the_calibration(found, tmp_path):
    plain, wedge = backend().fit(model(), EVENTS), pg.targets.GaussianRing()
    told = "\u03c3: " + found.info.note.replace("+-", "\u00b1")

    def results(posterior):
        lines = diagnostics.density_along_lines(posterior, wedge, [3.0, 4.0], draws=4)
        bands = {"n": 50, "draws": 5, "seed": 1}
        marginal = diagnostics.marginal(posterior, 0, [-2.0, 0.0, 2.0], **bands)
        plane = diagnostics.uncertainty_map(posterior, (0, -1, 1), (1, -1, 1), 3, draws=4)
        generated = pg.sample_histograms(posterior.generate(50, 5, log_weights=True), {"x": (0, [-2.0, 0.0, 2.0])})
        return lines, marginal, plane, generated["x"]

    def figures(posterior):
        lines, marginal, plane, band = results(posterior)
        yield plotting.plot_lines(lines)
        yield plotting.plot_lines(lines.line(0))
        yield plotting.plot_map(plane)
        yield plotting.plot_marginal_sigma(marginal, lines)
        yield plotting.plot_correlation(band)
        yield band.plot([10, 10])
        yield plotting.plot_histograms([plotting.HistogramPanel(one, [10, 10]) for one in marginal.bands.values()])
        yield plotting.plot_backends({"A": lines})

    assert {texts(figure) for figure in figures(found)} == {told}
    assert {texts(figure) for figure in figures(plain)} == {"\u03c3: not calibrated"}
    both = plotting.plot_backends({"A": results(found)[0], "B": results(plain)[0]})
    assert texts(both) == f"\u03c3: A: {told[3:]}; B: not calibrated"
    # Results of older files, or made by hand, do not know: no caption.
    lines, _, _, band = (
        replace(one, calibration="") if hasattr(one, "events") or hasattr(one, "t") else one for one in results(found)
    )
    assert texts(plotting.plot_lines(lines)) == texts(plotting.plot_correlation(band)) == ""
    plotting.save_figure(both, tmp_path / "both.png")


def test_bars_say_which_round(monkeypatch):
    told = io.StringIO()
    monkeypatch.setattr(sys, "stderr", told)
    monkeypatch.setattr(progress, "LOG_INTERVAL", 0.0)
    pg.calibrate(replace(backend(), progress=True), model(), EVENTS, **FEW)
    for words in ("first fit", "round 1 of 4, kl_weight 1, 20 trainings", "round 2 of 4, kl_weight 0.", "last fit"):
        assert words in told.getvalue()
