"""Signal region and sidebands: which masses belong where, and what is refused."""

import numpy as np
import pytest

import pyrogen as pg

REGIONS = pg.search.Regions(signal=(3.4, 3.6), window=(3.3, 3.7))


def test_the_ends_belong_to_one_region_each():
    mass = np.array([3.3, 3.4, 3.6, 3.7])
    assert REGIONS.inside(mass).all()
    assert REGIONS.in_signal(mass).tolist() == [False, True, False, False]
    assert REGIONS.sidebands == ((3.3, 3.4), (3.6, 3.7))
    assert REGIONS.inside([3.29, 3.71]).tolist() == [False, False]


@pytest.mark.parametrize("signal", [(3.3, 3.6), (3.4, 3.7), (3.2, 3.6), (3.0, 4.0)])
def test_both_sidebands_are_needed(signal):
    with pytest.raises(ValueError, match="signal is .* with a sideband on both sides"):
        pg.search.Regions(signal=signal, window=(3.3, 3.7))


@pytest.mark.parametrize(
    ("mass", "text"),
    [
        ([3.35, 3.5, np.nan], "mass is nan in 1 of 3 events, first 2"),
        ([3.35, 3.5, 3.65, 4.0], r"1 of 4 events have a mass outside the window \(3.3, 3.7\).* event 3, 4; give"),
        ([3350.0, 3500.0, 3650.0], "3 of 3 .* in the same unit"),
        ([3.35, 3.65], "no event has a mass in the signal region, 3.4 to 3.6"),
        ([3.5, 3.65], "no event has a mass in the lower sideband, 3.3 to 3.4"),
        ([3.35, 3.5], "no event has a mass in the upper sideband, 3.6 to 3.7"),
    ],
)
def test_masses_that_make_no_search_are_refused(mass, text):
    with pytest.raises(ValueError, match=text):
        REGIONS.populated(np.array(mass))
