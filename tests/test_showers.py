"""Parametric showers: physics of the source, and observables on showers made by hand."""

import numpy as np
import pytest
import torch
from scipy import integrate

import pyrogen as pg
from pyrogen import events
from pyrogen.events import shower_profiles as profiles
from pyrogen.events.shower_source import HADRONIC_SAMPLING, SAMPLING

SMALL = events.ShowerGeometry.small()
DEPTH = 480 / profiles.LEAD_ARGON.radiation_length  # of the whole calorimeter, in radiation lengths


def made(n=3000, particle="e+", energies=20.0, **options):
    return events.showers(n, particle, energies, seed=3, progress=False, **options)


@pytest.fixture(scope="module")
def electrons():
    return made(threshold=0.0)


def within(values, wanted, sigmas=4.5, spread=None):
    """Whether the mean of values is what is wanted, in units of its statistical error."""
    error = (values.std() if spread is None else spread) / np.sqrt(len(values))
    return abs(values.mean() - wanted) < sigmas * error


def test_radial_profiles_integrate_to_the_closed_formula():
    """The share of a cell against the integral of the density, and of all cells against one."""
    density = lambda y, x, r: r**2 / (np.pi * (x * x + y * y + r * r) ** 2)  # noqa: E731
    columns, rows = np.array([[-3.0, 0.5, 1.0, 4.0]]), np.array([[-2.0, -0.5, 3.0]])
    shares = profiles.in_cells(np.array([0.8]), columns, rows)[0]
    for i, j in ((0, 0), (1, 1), (1, 2)):
        exact = integrate.dblquad(density, *columns[0, j : j + 2], *rows[0, i : i + 2], args=(0.8,))[0]
        assert shares[i, j] == pytest.approx(exact, rel=1e-6)
    far = np.array([[-1e5, 0.0, 1e5]])
    assert profiles.in_cells(np.array([1.0]), far, far).sum() == pytest.approx(1.0, abs=1e-4)


def test_single_profiles_scatter_around_the_mean_one():
    """The formulas for single showers and those for their mean were fitted apart, and agree."""
    energies = np.repeat([5.0, 20.0, 80.0], 5000)
    noise = np.random.default_rng(1).normal(size=(len(energies), 2))
    depths = np.linspace(0, DEPTH, 7)
    single = profiles.electrons(energies, noise).between(depths).reshape(3, 5000, -1).mean(1)
    mean = profiles.mean_electron(energies[::5000]).between(depths)
    assert np.abs(single - mean).max() < 0.02
    assert (np.diff(profiles.mean_electron(energies[::5000]).mean) > 0).all()  # deeper with energy
    # Without fluctuations the maximum of f(t) is at T = (a - 1) / b.
    one = profiles.electrons(np.array([20.0]), np.zeros((1, 2)))
    fine = np.linspace(0, DEPTH, 2001)
    peak = fine[one.between(fine)[0].argmax()]
    assert peak == pytest.approx(float(((one.shape - 1) / one.rate)[0]), abs=0.05)


def test_energies_of_layers_are_those_of_the_profile(electrons):
    """Mean shares of the layers against the integral of the profile; the sides let out a little."""
    noise = np.random.default_rng(9).normal(size=(20_000, 2))
    expected = profiles.electrons(np.full(20_000, 20.0), noise).between(
        np.array([0.0, 90, 437, 480]) / profiles.LEAD_ARGON.radiation_length
    )
    shares = electrons.layer_energies / 20.0
    for i, allowed in ((0, 0.005), (1, 0.01), (2, 0.001)):
        error = 4.5 * shares[:, i].std() / np.sqrt(len(shares))
        assert abs(shares[:, i].mean() - expected[:, i].mean()) < allowed + error
    assert within(electrons.values.sum(1) / 20.0, 0.996, sigmas=4.5 + 0.003 / 0.0004)


def test_response_is_linear_and_the_resolution_goes_like_one_over_the_root():
    for energy in (2.0, 10.0, 50.0):
        total = made(energies=energy, threshold=0.0).values.sum(1) / energy
        assert total.mean() == pytest.approx(0.996, abs=0.004 + 4.5 * total.std() / np.sqrt(len(total)))
        spread = SAMPLING * np.sqrt(0.996 / energy)
        # Leakage adds a little; the error of a standard deviation is that of a Gaussian.
        assert total.std() == pytest.approx(spread, rel=0.02 + 4.5 / np.sqrt(2 * len(total)))


def test_photons_are_later_by_the_conversion_depth():
    energies, n = np.full(50_000, 20.0), 50_000
    rng = np.random.default_rng(2)
    profile = profiles.electrons(energies, rng.normal(size=(n, 2)))
    photon = profiles.Longitudinal(profile.shape, profile.rate, rng.exponential(profiles.CONVERSION, n))
    assert within(photon.mean - profile.mean, 9 / 7)
    depth = {
        particle: events.shower_observables(SMALL)["depth"](made(particle=particle).values)
        for particle in ("e+", "gamma")
    }
    assert depth["gamma"].mean() > depth["e+"].mean() + 0.05
    late = made(particle="gamma", energies=5.0).layer_energies
    assert 0.005 < (late[:, 0] == 0).mean() < 0.06  # exp(-7/9 * 5.8) = 1.1 %, and those that leave too little
    assert (made(energies=5.0).layer_energies[:, 0] > 0).all()


def test_pions_are_deeper_wider_and_less_certain(electrons):
    pions = made(particle="pi+", threshold=0.0)
    observables = events.shower_observables(SMALL)
    assert observables["depth"](pions.values).mean() > observables["depth"](electrons.values).mean() + 0.05
    shower = pions[pions.values.sum(1) > 8.0]  # those that interact early
    layer = SMALL.layers[1]
    outer = (np.abs(layer.eta) > 50) | (np.abs(layer.phi) > 50)  # beyond the four cells in the middle
    shares = [(x.values[:, 36:72][:, outer].sum(1) / x.layer_energies[:, 1]).mean() for x in (electrons, shower)]
    assert shares[1] > 1.5 * shares[0]
    total = pions.values.sum(1)
    assert total.std() / total.mean() > 5 * electrons.values.sum(1).std() / electrons.values.sum(1).mean()
    # What never interacts leaves the energy of its track: exp(-480 / lambda) of all.
    track = 480 * profiles.LEAD_ARGON.minimal
    through = np.exp(-480 / profiles.LEAD_ARGON.interaction_length)
    near = (total < track + 5 * SAMPLING * np.sqrt(track)).mean()
    assert through - 4.5 * np.sqrt(through / len(total)) < near < through + 0.1
    assert HADRONIC_SAMPLING > SAMPLING and total.max() < 30


def test_cells_below_the_threshold_have_no_energy():
    whole, cut = made(500, threshold=0.0), made(500, threshold=0.01)
    assert np.array_equal(cut.values, np.where(whole.values < 0.01, 0, whole.values))
    assert np.array_equal(whole.suppressed(0.01).values, cut.values)
    assert whole.suppressed(0.01).events.provenance["threshold_GeV"] == 0.01
    assert (made(2000, "gamma").layer_energies[:, 2] == 0).mean() > 0.05  # the empty layers of arXiv:2305.16774


def test_seeds():
    few, more = made(10), made(1500)
    assert np.array_equal(few.values, more.values[:10])
    assert np.array_equal(made(1500)[1200:].energies, more.energies[1200:])
    assert not np.array_equal(events.showers(10, seed=4, progress=False).values, few.values)
    assert len(np.unique(more.values[:, 52])) == 1500  # blocks differ


def test_every_text_says_that_the_showers_are_parametric():
    sample = made(5)
    assert "parametric" in repr(sample)
    told = sample.events.provenance
    assert "parametric" in told["source"] and "Not a simulation" in told["process"] and told["seed"] == 3
    for function in (events.showers, events.showers_to):
        assert "parametric" in (function.__doc__ + events.showers.__doc__).lower()


def test_a_geometry_without_depth_is_refused():
    with pytest.raises(ValueError, match="geometry is .*the source needs layers with a depth"):
        events.showers(5, geometry=events.ShowerGeometry.flat([3, 4]))
    for wrong in ((5.0, 1.0), (0.0, 1.0), "x", (1.0, 2.0, 3.0)):
        with pytest.raises(ValueError, match="energies is"):
            events.showers(5, energies=wrong)


# --- the container --------------------------------------------------------------------------------------------


def test_showers_are_checked():
    values = np.ones((3, 90))
    with pytest.raises(ValueError, match=r"values is .*it must be \[N, 90\]"):
        events.Showers(np.ones((3, 80)), np.ones(3), SMALL)
    wrong = values.copy()
    wrong[1, 4] = -1
    with pytest.raises(
        ValueError, match="values must be not negative; 1 are not, the first is -1 in shower 1, column 4"
    ):
        events.Showers(wrong, np.ones(3), SMALL)
    with pytest.raises(ValueError, match="energies must be positive and finite; 1 are not, the first is 0 in shower 2"):
        events.Showers(values, [1.0, 2.0, 0.0], SMALL)
    with pytest.raises(ValueError, match=r"energies is .*it must be \[3\]"):
        events.Showers(values, np.ones(2), SMALL)
    with pytest.raises(ValueError, match=r"overflow is .*it must be \[3, 3\]"):
        events.Showers(values, np.ones(3), SMALL, overflow=np.ones((3, 2)))
    with pytest.raises(ValueError, match="values have the columns a0, a1, a2"):
        events.Showers(pg.EventSample(values, [f"a{i}" for i in range(90)]), np.ones(3), SMALL)


def test_showers_keep_what_belongs_together():
    values, overflow = np.arange(270.0).reshape(3, 90), np.arange(9.0).reshape(3, 3)
    sample = events.Showers(values, [1.0, 2.0, 3.0], SMALL, overflow, {"a": 1})
    assert sample.events.names[:2] == ("E0_0_0", "E0_0_1") and sample.events.units[0] == "GeV"
    assert sample.context.names == ("E_inc",) and len(sample) == 3
    assert [image.shape for image in sample.images] == [(3, 3, 12), (3, 6, 6), (3, 6, 3)]
    assert sample.images[1][2, 3, 4] == values[2, 36 + 3 * 6 + 4]
    assert np.allclose(sample.layer_energies.sum(1), values.sum(1))
    for some in (slice(1, 3), [1, 2], np.array([False, True, True])):
        part = sample[some]
        assert np.array_equal(part.values, values[1:]) and np.array_equal(part.overflow, overflow[1:])
        assert np.array_equal(part.energies, [2.0, 3.0]) and part.events.provenance == {"a": 1}


def test_geometries():
    full = events.ShowerGeometry.calogan()
    assert full.sizes == (288, 144, 72) and full.voxels == 504 and SMALL.voxels == 90
    assert full.columns[2] == slice(432, 504)
    first = full.layers[0]  # 5 mm along eta, 160 mm along phi
    assert np.allclose(np.diff(first.columns), 5) and np.allclose(np.diff(first.rows), 160)
    assert first.eta[1] - first.eta[0] == pytest.approx(5) and first.phi[0] == first.phi[95] == -160
    assert [layer.depth for layer in full.layers] == [(0, 90), (90, 437), (437, 480)]
    assert events.ShowerGeometry.from_config(full.config()) == full
    polar = events.ShowerLayer((2, 1), (0.0, np.pi, 2 * np.pi), (1.0, 3.0), polar=True)
    assert np.allclose(polar.eta, 0, atol=1e-12) and np.allclose(polar.phi, [2, -2])
    with pytest.raises(ValueError, match="columns is .*it must be 3 edges for 2 columns"):
        events.ShowerLayer((1, 2), (0.0, 1.0), (0.0, 1.0))
    with pytest.raises(ValueError, match="rows is .*it must be increasing"):
        events.ShowerLayer((1, 1), (1.0, 0.0), (0.0, 1.0))


# --- observables ----------------------------------------------------------------------------------------------

TINY = events.ShowerGeometry(
    (
        events.ShowerLayer((1, 2), (-1.0, 1.0), (0.0, 10.0, 20.0)),
        events.ShowerLayer((2, 2), (-4.0, 0.0, 4.0), (-10.0, 0.0, 10.0)),
    )
)


def test_observables_of_showers_made_by_hand():
    cells = torch.tensor([[1.0, 3.0, 0, 0, 0, 4.0], [0, 0, 2.0, 0, 2.0, 0], [0, 0, 0, 0, 0, 0]])
    wanted = {
        "E": [8, 4, 0],
        "brightest": [4, 2, np.nan],
        "faintest": [1, 2, np.nan],
        "depth": [0.5, 1, np.nan],
        "depth_width": [0.5, 0, np.nan],
        "E_0": [4, 0, 0],
        "E_1": [4, 4, 0],
        "fraction_0": [0.5, 0, np.nan],
        "fraction_1": [0.5, 1, np.nan],
        "brightest_0": [3, np.nan, np.nan],
        "brightest_1": [4, 2, np.nan],
        "faintest_0": [1, np.nan, np.nan],
        "faintest_1": [4, 2, np.nan],
        "brightest_fraction_0": [0.75, np.nan, np.nan],
        "brightest_fraction_1": [1, 0.5, np.nan],
        "sparsity_0": [0, 1, 1],
        "sparsity_1": [0.75, 0.5, 1],
        "eta_0": [12.5, np.nan, np.nan],
        "eta_1": [5, -5, np.nan],
        "phi_0": [0, np.nan, np.nan],
        "phi_1": [2, 0, np.nan],
        "width_eta_0": [np.sqrt(18.75), np.nan, np.nan],
        "width_eta_1": [0, 0, np.nan],
        "width_phi_0": [0, np.nan, np.nan],
        "width_phi_1": [0, 2, np.nan],
    }
    observables = events.shower_observables(TINY, highest=5.0)
    assert observables.keys() == wanted.keys()
    for name, values in wanted.items():
        found = observables[name](cells)
        assert found.dtype == torch.float64 and np.allclose(found, values, equal_nan=True), name
        assert np.array_equal(observables[name](cells.numpy()), found, equal_nan=True)
        assert (np.diff(observables[name].edges) > 0).all()
        missing = observables[name].missing
        says = torch.zeros(3, dtype=bool) if missing is None else missing(cells)
        assert torch.equal(says, found.isnan()), name  # each says itself which showers do not have it
    units = {name: observable.unit for name, observable in observables.items()}
    assert units["E_0"] == "GeV" and units["width_phi_1"] == "mm" and units["sparsity_0"] == ""
    # Only the first shower has all observables: none that is undefined looks measured.
    sample = events.Showers(cells.numpy(), [1.0, 1.0, 1.0], TINY)
    assert np.allclose(observables["E_1"](sample.events), [4, 4, 0])


def test_showers_of_one_row_have_one_place_and_no_width():
    """Values of an atom are equal bit by bit, whatever the energies."""
    cells = torch.zeros(500, 6)
    cells[:, 2:4] = 1 + torch.rand(500, 2, generator=torch.manual_seed(3))  # one row along phi
    observables = events.shower_observables(TINY)
    assert len(observables["phi_1"](cells).unique()) == len(observables["width_phi_1"](cells).unique()) == 1
    assert len(observables["eta_1"](cells).unique()) == 500 and (observables["width_eta_1"](cells) > 1).all()


def test_observables_refuse_other_events():
    observables = events.shower_observables(TINY)
    with pytest.raises(ValueError, match=r"events is \[3, 5\]; it must be \[N, 6\]"):
        observables["E"](torch.ones(3, 5))
    with pytest.raises(ValueError, match="events is .*it must be showers of"):
        observables["E"](pg.EventSample(np.ones((3, 6)), list("abcdef")))
    flat = events.shower_observables(events.ShowerGeometry.flat([2, 3]))
    assert "E_1" in flat and "eta_1" not in flat
