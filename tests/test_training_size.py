"""The scan over training sizes on posteriors whose sigma falls as it should by construction."""

import math
import sys

import numpy as np
import pytest
import torch
from test_marginals import ramps

import pyrogen as pg
from pyrogen.diagnostics import LikelihoodFit, scan_training_size
from pyrogen.plotting import plot_training_size

SIZES = (1000, 10_000, 100_000)
T = torch.linspace(0.1, 0.9, 21, dtype=torch.float64)


class Slope:
    """A truth with p = 1 + a (x - 1/2), a = 1, of which only the slope is unknown."""

    line_label, line_range, line_positions = "x", (0.1, 0.9), (0.4, 0.5, 0.6)

    def line(self, t, position):
        return torch.stack([t, torch.full_like(t, position)], -1)

    def line_density(self, t):
        return 1 + (t - 0.5)

    def sensitivities(self, t):
        return {"delta_a": (t - 0.5).abs()}

    def parametric_density(self, t, *, a):
        return 1 + a * (t - 0.5)


def posteriors(error=5.0, **info):
    """Slopes known to ``error / sqrt(N)``, those in y a tenth as well: sigma differs a little from line to line."""
    return {n: ramps(error / math.sqrt(n), 0.5 / math.sqrt(n), training_events=n) for n in SIZES}


def test_sigma_falls_with_the_root_of_the_size_and_keeps_its_shape():
    references = {n: LikelihoodFit({"a": 1.0}, np.array([[4.0 / n]]), n, None, (), Slope()) for n in SIZES}
    scan = scan_training_size(
        dict(reversed(posteriors().items())),
        Slope(),
        T,
        ensembles={n: p for n, p in posteriors(2.5).items() if n > 1000},
        references=references,
        draws=200,
    )
    assert scan.sizes == SIZES
    slope, spread = scan.exponent()
    # The same seeded draws for all sizes: only the widths differ, and log sigma falls by exactly 1/2 per log N where
    # the density is linear in the weights.
    assert slope == pytest.approx(-0.5, abs=0.01) and spread < 0.02
    assert (scan.structure() > 0.95).all()
    for n in SIZES:  # 200 draws know a standard deviation to 1 / sqrt(400)
        assert scan.shapes[n].values["delta_a"] == pytest.approx(5 / math.sqrt(n), rel=4 / math.sqrt(400))
    median, width = scan.ensemble_ratio()
    assert math.isnan(median[0]) and median[1:] == pytest.approx(0.5, rel=0.15) and (width[1:] < 0.3).all()
    assert scan.exponent(True)[0] == pytest.approx(-0.5, abs=0.01)
    assert math.isnan(scan.sigma(True)[0])
    header, *rows, law, ensemble_law = scan.text().splitlines()
    assert [row.split()[0] for row in rows] == ["1,000", "10,000", "100,000"]
    assert len({len(line) for line in (header, *rows)}) == 1 and "delta_a" in header
    assert "N^(-0.50" in law and "ensembles" in ensemble_law

    curves, sizes = plot_training_size(scan, unit="GeV").axes
    assert curves.get_xlabel() == "$x$ [GeV]" and len(curves.containers) == 3
    fitted = [line for line in curves.lines if line.get_linestyle() == "--" and len(line.get_xdata())]
    np.testing.assert_allclose(fitted[0].get_ydata(), scan.shapes[1000].curve())
    own, ensemble, reference = sizes.lines
    np.testing.assert_allclose(own.get_ydata(), scan.sigma())
    assert ensemble.get_xdata().tolist() == [10_000, 100_000]
    np.testing.assert_allclose(reference.get_ydata(), [(2 / n**0.5 * (T - 0.5).abs()).mean() for n in SIZES])


def test_a_flat_sigma_has_no_structure():
    class Flat(Slope):
        def sensitivities(self, t):
            return {"delta_a": 1 / (0.01 + (t - 0.5).abs())}  # a shape that sigma does not have

    assert (scan_training_size(posteriors(), Flat(), T, draws=50).structure() < 0.2).all()


def test_one_size_has_no_slope():
    scan = scan_training_size({1000: posteriors()[1000]}, Slope(), T, draws=20)
    with pytest.raises(ValueError, match="there are 1 sizes"):
        scan.exponent()
    assert "N^" not in scan.text() and len(plot_training_size(scan).axes) == 2


def test_mixed_up_sizes_are_named(monkeypatch):
    with pytest.raises(ValueError, match="posteriors is empty"):
        scan_training_size({}, Slope())
    with pytest.raises(ValueError, match="posterior for 500 events was trained on 1000"):
        scan_training_size({500: posteriors()[1000]}, Slope(), T)
    with pytest.raises(ValueError, match="ensemble for 10000 events, but no posterior"):
        scan_training_size({1000: posteriors()[1000]}, Slope(), T, ensembles=posteriors())
    monkeypatch.setitem(sys.modules, "iminuit", None)
    with pytest.raises(ImportError, match=r"scan_training_size needs iminuit.*pyrogen\[fits\]"):
        scan_training_size(posteriors(), Slope())


def test_real_posteriors_carry_their_size():
    flow = pg.CouplingFlow(2, blocks=2, hidden=(4,), transform="rqs", base="uniform", bins=3)
    target = pg.targets.Wedge()
    settings = {"epochs": 1, "batch_size": 50, "progress": False}
    found = {n: pg.SVI(**settings).fit(pg.BayesianFlow(flow), target.sample((n,))) for n in (100, 200)}
    members = pg.Ensemble(members=3, objective="likelihood", steps=5, batch_size=50, progress=False)
    ensemble = {100: members.fit(pg.BayesianFlow(flow), target.sample((100,)))}
    with pytest.raises(ValueError, match="draws is 10, but this posterior holds 3 stored weight draws"):
        scan_training_size(found, target, ensembles=ensemble, draws=10)
    scan = scan_training_size(found, target, ensembles=ensemble)
    assert np.isfinite(scan.ensemble_ratio()[0][0]) and np.isfinite(scan.structure()).all()
