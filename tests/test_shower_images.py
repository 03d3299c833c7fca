"""The images of showers show what they were given."""

import numpy as np
import pytest

import pyrogen as pg
from pyrogen.plotting import plot_shower_images


def test_mean_energies_and_their_ratio():
    truth = pg.events.showers(60, "gamma", (1, 20), progress=False)
    double = pg.events.Showers(2 * truth.values, truth.energies, truth.geometry)
    figure = plot_shower_images(truth, double, truth_label="held-out showers")
    rows = len(truth.images)
    axes = [axis for axis in figure.axes if axis.images]
    assert len(axes) == 3 * rows
    for layer, true in enumerate(truth.images):
        left, middle, right = (np.asarray(axis.images[0].get_array()) for axis in axes[3 * layer : 3 * layer + 3])
        assert left == pytest.approx(true.mean(0)) and middle == pytest.approx(2 * true.mean(0))
        assert right[true.mean(0) > 0] == pytest.approx(2.0)
    assert axes[0].get_title() == "layer 0, held-out showers" and axes[2].get_title() == "layer 0, generated / truth"


def test_other_cells_are_refused():
    truth = pg.events.showers(5, "gamma", (1, 20), progress=False)
    cells = pg.events.ShowerGeometry(truth.geometry.layers[1:], "two layers")
    fewer = pg.events.Showers(truth.values[:, 36:], truth.energies, cells)
    with pytest.raises(ValueError, match="compare showers of the same calorimeter"):
        plot_shower_images(truth, fewer)
