"""Known distortions: what they do to the events, what they leave alone, and the ratio of the densities."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid

import pyrogen as pg
from pyrogen.events import (
    FilledHole,
    Hole,
    MissingMode,
    Multiplicity,
    Reweighting,
    Shift,
    Smear,
    SmearMass,
    TailCut,
    distort,
    lepton_pair_observables,
    z_jets_observables,
)

DATA = Path(__file__).parents[1] / "examples" / "data"
N = 20_000


def log_normal(x, mean=0.0, std=1.0):
    return -0.5 * ((x - mean) / std) ** 2 - math.log(std) - 0.5 * math.log(2 * math.pi)


def log_truth(x):
    """Two independent Gaussians, N(2, 0.5) and N(0, 1)."""
    return log_normal(x[:, 0], 2, 0.5) + log_normal(x[:, 1])


@pytest.fixture(scope="module")
def plane():
    """Events of ``log_truth``, with weights that have nothing to do with where they are."""
    rng = np.random.default_rng(1)
    values = rng.normal((2, 0), (0.5, 1), (N, 2))
    return pg.EventSample(values, ["m", "x"], ["GeV", ""], rng.uniform(0.5, 1.5, N), provenance={"made by": "numpy"})


def log_pair(x):
    """pt, eta, phi of two objects: pT log-normal, eta Gaussian, phi uniform."""
    pts, etas = x[:, [0, 3]], x[:, [1, 4]]
    return (log_normal(pts.log(), math.log(45), 0.2) - pts.log() + log_normal(etas)).sum(1) - 2 * math.log(2 * math.pi)


@pytest.fixture(scope="module")
def pairs():
    rng, n = np.random.default_rng(2), 5000
    kinds = [45 * np.exp(0.2 * rng.normal(size=n)), rng.normal(size=n), rng.uniform(-np.pi, np.pi, n)]
    kinds += [45 * np.exp(0.2 * rng.normal(size=n)), rng.normal(size=n), rng.uniform(-np.pi, np.pi, n)]
    return pg.EventSample(np.stack(kinds, -1), [f"{q}_{m}" for m in ("a", "b") for q in ("pt", "eta", "phi")])


@pytest.fixture(scope="module")
def z_jets():
    return pg.events.read(DATA / "z_jets_5k.h5")


def mean_and_variance(values, sample):
    """Weighted mean, and the variance of it."""
    weights = np.ones(len(sample)) if sample.weights is None else sample.weights
    mean = weights @ values / weights.sum()
    return mean, np.sum(weights**2 * (values - mean) ** 2) / weights.sum() ** 2


def check_ratio(done, functions):
    """``E_distorted[ratio f] = E_true[f]``, of f where the distorted sample has events at all."""
    here, there = np.exp(done.log_ratio(done.sample)), np.isfinite(np.exp(done.log_ratio(done.truth)))
    assert np.isfinite(here).all()
    for f in functions:
        found, variance = mean_and_variance(here * f(done.sample.values), done.sample)
        right, other = mean_and_variance(there * f(done.truth.values), done.truth)
        assert abs(found - right) < 4 * math.sqrt(variance + other), (done.text(), found, right)


OF_PLANE = [
    lambda x: np.ones(len(x)),
    lambda x: x[:, 0],
    lambda x: x[:, 1] ** 2,
    lambda x: x[:, 0] * x[:, 1],
    lambda x: np.cos(3 * x[:, 0]),
]
ON_PLANE = {
    "tail": [TailCut("m", missing=0.01)],
    "half a tail": [TailCut(0, cut=2.5, fraction=0.5)],
    "low tail of a function": [TailCut(lambda x: x.norm(dim=1), missing=0.05, side="below", fraction=0.8)],
    "mode": [MissingMode("x", -0.5, 0.5, 0.7)],
    "weights": [Reweighting("x", lambda v: np.exp(0.3 * v))],
    "accept-reject": [Reweighting("m", lambda v: 1 + v**2, as_weights=False)],
    "shift": [Shift("m", by=0.1, factor=1.1)],
    "mirror": [Shift("m", by=4.3, factor=-1)],
    "smear": [Smear("m", absolute=0.2)],
    "relative smear": [Smear("m", relative=0.1)],
    "all": [
        TailCut("m", cut=2.4, fraction=0.5),
        Smear("x", absolute=0.3),
        Shift("m", factor=1.05),
        MissingMode(1, 0, 1, 0.4),
    ],
}


@pytest.mark.parametrize("which", ON_PLANE)
def test_the_ratio_weights_the_distorted_sample_back(which, plane):
    done = distort(plane, ON_PLANE[which], seed=3, log_density=log_truth)
    assert done.unknown is None
    check_ratio(done, OF_PLANE)
    assert len(done.steps) == len(ON_PLANE[which])


def test_a_wrong_ratio_is_seen(plane):
    done = distort(plane, [Smear("m", absolute=0.2)], log_density=lambda x: log_truth(x * torch.tensor([1.05, 1.0])))
    with pytest.raises(AssertionError):
        check_ratio(done, OF_PLANE)


def test_the_ratio_of_gaussians_is_that_of_the_closed_form(plane):
    x = plane.tensor(torch.float64)[:200]
    for distortion, after in (
        (Shift("m", by=0.1, factor=1.1), log_normal(x[:, 0], 2.3, 0.55)),
        (Smear("m", absolute=0.2), log_normal(x[:, 0], 2, math.hypot(0.5, 0.2))),
    ):
        done = distort(plane, [distortion], log_density=log_truth)
        expected = log_normal(x[:, 0], 2, 0.5) - after
        np.testing.assert_allclose(done.log_ratio(x), expected, atol=1e-9)
    cut = distort(plane, [TailCut("m", cut=2.0)])
    total = plane.weights[plane.column("m") <= 2].sum() / plane.total_weight
    np.testing.assert_allclose(cut.log_ratio([[1.0, 0.0], [3.0, 0.0]]), [math.log(total), np.inf])


@pytest.mark.parametrize(
    "distortion",
    [
        Shift("pt_a", 3.0, -1.2),
        Smear("eta_b", absolute=0.3),
        Smear("pt_b", relative=0.2),
        SmearMass("a", "b", absolute=9.0),
        SmearMass("a", "b", relative=0.2),
    ],
)
def test_the_jacobian_of_what_is_undone_is_that_of_differences(distortion, pairs):
    names, z, step = pairs.names, 0.7, 1e-5
    for row in pairs.tensor(torch.float64)[:5]:
        moved = row + step * torch.cat([torch.eye(6), -torch.eye(6)])
        earlier = distortion.undone(moved, names, z)[0]
        jacobian = (earlier[:6] - earlier[6:]) / (2 * step)
        _, log_jacobian = distortion.undone(row[None], names, z)
        assert log_jacobian[0] == pytest.approx(float(torch.linalg.slogdet(jacobian)[1]), abs=1e-6)


def test_the_density_after_a_relative_smear_has_norm_one(plane):
    done = distort(plane, [Smear("m", relative=0.1), Shift("m", by=1)], log_density=log_truth)
    m = torch.linspace(-3, 9, 4001, dtype=torch.float64)
    line = torch.stack([m, torch.zeros_like(m)], -1)
    density = np.exp(log_truth(line).numpy() - done.log_ratio(line)) / math.exp(log_normal(0.0))
    assert trapezoid(density, m) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("missing", [0.01, 0.2])
@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_the_wanted_part_is_missing(plane, missing, fraction):
    for side in ("above", "below"):
        done = distort(plane, [TailCut("m", missing=missing, side=side, fraction=fraction)])
        gone = 1 - done.sample.total_weight / plane.total_weight
        # One event where all go; else binomial.
        spread = 4 * math.sqrt(missing * (1 - fraction) * 1.1 / N) + 2 / N
        assert abs(gone - missing) < spread
        cut = float(done.steps[0].split(side)[1].split(",")[0])
        outside = (done.sample.column("m") > cut) if side == "above" else (done.sample.column("m") < cut)
        assert (outside.sum() == 0) == (fraction == 1)


def test_all_else_is_kept(z_jets):
    rng = np.random.default_rng(1)
    extras = {"uncertainties": rng.random(5000), "log_weights": rng.normal(size=(5000, 2))}
    full = pg.EventSample(
        z_jets.values, z_jets.names, z_jets.units, 1 + rng.random(5000), multiplicity=z_jets.multiplicity, **extras
    )
    for done in (
        distort(full, [Smear("pt_j2", relative=0.1)]),
        distort(full, [TailCut("pt_j2", cut=40.0)]),
        distort(full, [FilledHole("j1", "j2", 0.6)]),
    ):
        new = done.sample
        assert (new.names, new.units, new.multiplicity) == (full.names, full.units, full.multiplicity)
        rows = np.flatnonzero(np.isin(full.weights, new.weights))
        assert len(rows) == len(new)
        for name in ("weights", "uncertainties", "log_weights"):
            assert np.array_equal(getattr(new, name), getattr(full, name)[rows])
        changed = (new.values != full.values[rows]) & ~np.isnan(new.values)
        touched = {new.names[i] for i in np.flatnonzero(changed.any(0))}
        assert touched in ({"pt_j2"}, set(), {"eta_j2", "phi_j2"})
        assert np.array_equal(np.isnan(new.values), np.isnan(full.values[rows]))
        assert new.provenance["distortions"] == list(done.steps)
    # Events without the jet stay in the sample.
    one = (full.counts == 1).sum()
    assert (distort(full, [TailCut("pt_j2", cut=40.0)]).sample.counts == 1).sum() == one


@pytest.mark.parametrize("width", [{"absolute": 0.5}, {"relative": 0.01}])
def test_a_mass_is_smeared(width, z_jets):
    drell_yan = pg.events.read(DATA / "drell_yan_5k.h5")
    for sample, objects, of_mass in (
        (z_jets, ("mu+", "mu-"), z_jets_observables()["M_pair"]),
        (drell_yan, ("e+", "e-"), lepton_pair_observables()["M_pair"]),
    ):
        done = distort(sample, [SmearMass(*objects, **width)])
        before, after = of_mass(sample).numpy(), of_mass(done.sample).numpy()
        noise = (after - before) if "absolute" in width else 100 * (after / before - 1)
        size = width.get("absolute", 1.0)
        assert abs(noise.mean()) < 4 * size / math.sqrt(len(noise))
        assert abs(noise.std() / size - 1) < 4 / math.sqrt(2 * len(noise))
        assert done.unknown and "log_density" in done.text()
    directions = [name for name in z_jets.names if name.startswith(("eta", "phi"))]
    moved = distort(z_jets, [SmearMass("mu+", "mu-", **width)]).sample
    for name in directions + ["pt_j1"]:
        assert np.array_equal(moved.column(name), z_jets.column(name), equal_nan=True)


@pytest.mark.parametrize("width", [{"absolute": 4.0}, {"relative": 0.05}])
def test_the_ratio_of_a_smeared_mass(width, pairs):
    heavy = pairs[_mass(pairs.values) > 40]  # the density of events with small masses is far from smooth
    share = len(heavy) / len(pairs)

    def log_density(x):
        return torch.where(torch.from_numpy(_mass(x.numpy()) > 40), log_pair(x) - math.log(share), -torch.inf)

    done = distort(heavy, [SmearMass("a", "b", **width)], log_density=log_density)
    inside = lambda x: (_mass(x) > 60) & (_mass(x) < 120)  # noqa: E731 - where the quadrature sees no edge
    check_ratio(done, [inside, lambda x: inside(x) * x[:, 0], lambda x: inside(x) * np.cos(_mass(x) / 4)])


def _mass(x):
    a, b = x[:, :3], x[:, 3:]
    return np.sqrt(2 * a[:, 0] * b[:, 0] * (np.cosh(a[:, 1] - b[:, 1]) - np.cos(a[:, 2] - b[:, 2])))


def test_holes(z_jets):
    distance = z_jets_observables()["delta_r_j1j2"]
    away = z_jets[~(distance(z_jets).numpy() < 0.4)]
    hole = distort(away, [Hole("j1", "j2", 1.0)])
    assert not (distance(hole.sample).numpy() < 1).any() and (distance(away).numpy() < 1).any()
    functions = [lambda x: np.ones(len(x)), lambda x: x[:, 0], lambda x: np.nan_to_num(x[:, 10])]
    check_ratio(hole, functions)
    filled = distort(away, [FilledHole("j1", "j2", 0.4, fraction=0.7, outer=1.5)])
    inside = distance(filled.sample).numpy() < 0.4
    source = (distance(away).numpy() < 1.5).sum()
    assert abs(inside.sum() - 0.7 * source) < 4 * math.sqrt(0.21 * source)
    # Evenly over the disc: Delta R^2 is uniform.
    squares = distance(filled.sample).numpy()[inside] ** 2 / 0.16
    assert abs(squares.mean() - 0.5) < 4 / math.sqrt(12 * inside.sum())
    assert np.all(filled.log_ratio(filled.sample)[inside] == -np.inf)
    check_ratio(filled, functions)
    # With true events in the hole the ratio there is not known.
    with pytest.raises(ValueError, match=r"in the hole of Delta R\(j1, j2\)"):
        distort(away, [FilledHole("j1", "j2", 1.0)]).log_ratio(away)


def test_unit_weights_follow_the_weights(plane):
    one, other = (distort(plane, [Reweighting("x", lambda v: np.exp(v), w)]).sample for w in (True, False))
    assert len(one) == N > len(other)
    for f in OF_PLANE[1:]:
        (a, u), (b, v) = (mean_and_variance(f(s.values), s) for s in (one, other))
        assert abs(a - b) < 4 * math.sqrt(u + v)
    assert abs(mean_and_variance(one.column("x"), one)[0] - 1) < 0.1  # N(0, 1) e^x is N(1, 1)


def test_seeds_and_words(plane):
    steps = [Smear("m", relative=0.2), TailCut("x", missing=0.1, fraction=0.5)]
    a, b, c = (distort(plane, steps, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(a.sample.values, b.sample.values) and len(a.sample) != len(c.sample)
    assert a.sample.provenance["made by"] == "numpy" and a.sample.provenance["distortion_seed"] == 0
    first, second, third = a.text().splitlines()
    assert "not known: Smear moves events" in first and "m by a Gaussian of 20 %" in second
    assert "tail cut: x above 0.8" in third and ", 0.5 of them left out; " in third and "% of the weight gone" in third


GOOD = pg.EventSample(np.random.default_rng(1).normal(size=(50, 2)), ["a", "b"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: [TailCut("c", cut=1)], "no column 'c'; the 2 columns are a, b"),
        (lambda: [Smear("a", 0.1), Shift("c", 1)], "no column 'c'"),
        (lambda: [TailCut("a", cut=-100)], "TailCut: tail cut: a above -100, all left out: nothing would be left"),
        (lambda: [TailCut("a", cut=100)], "changes none of the 50 events"),
        (lambda: [TailCut("a", missing=0.001)], "missing is 0.001; with fraction = 1 the tail would hold 0"),
        (lambda: [TailCut("a")], "cut is None; it must be given, or else missing"),
        (lambda: [TailCut("a", missing=0.5, fraction=0.4)], "missing is 0.5; it must be below fraction = 0.4"),
        (lambda: [MissingMode("a", 1, 0)], "high is 0.0; it must be above low = 1"),
        (lambda: [MissingMode(lambda x: x, 0, 1)], r"observable has shape \[50, 2\]"),
        (lambda: [Hole("j1", "j2")], "need the columns eta_j1, phi_j1, eta_j2, phi_j2; eta_j1"),
        (lambda: [FilledHole("j1", "j2")], "need the columns eta_j1"),
        (lambda: [SmearMass("a", "b", 1)], "first is 'a', which needs the columns pt_a, eta_a, phi_a, or px_a"),
        (lambda: [Smear("a")], "absolute is None; it must be given, or else relative"),
        (lambda: [Shift("a")], "nothing would change"),
        (
            lambda: [Reweighting("a", lambda v: v)],
            "function is -.* at -.*, event .; it must be finite and not negative",
        ),
        (lambda: [Reweighting("a", lambda v: 0 * v)], "nothing would be left"),
        (lambda: [], "a list of distortions, such as"),
        (lambda: TailCut("a", cut=0.0), "a list of distortions, such as"),
        (lambda: [0.5], "every entry of distortions is 0.5, a float; it must be a distortion"),
    ],
)
def test_what_cannot_be_done_is_said(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        distort(GOOD, make())


def test_events_of_other_columns_have_no_ratio():
    done = distort(GOOD, [TailCut("a", cut=0.0)])
    for events, message in (
        (GOOD.select(["b", "a"]), "in another order"),
        (GOOD.select(["b"]), "events have 1 columns; they must have 2"),
    ):
        with pytest.raises(ValueError, match=message):
            done.log_ratio(events)


def test_an_event_without_mass_is_named():
    still = pg.EventSample(
        [[40.0, 0, 0, 40.0, 0, 0], [40.0, 0, 0, 40.0, 0, 3.0]], [f"{q}_{m}" for m in "ab" for q in ("pt", "eta", "phi")]
    )
    with pytest.raises(ValueError, match="the mass of event 0 is 0 and would become"):
        distort(still, [SmearMass("a", "b", absolute=1.0)])


def test_rows_as_arrays_have_the_layout_of_the_truth():
    rows = [[1.0, 3.0, 2.0], [1.0, 4.0, np.nan], [2.0, 5.0, np.nan]]
    sample = pg.EventSample(rows, ["met", "pt_j1", "pt_j2"], multiplicity=Multiplicity(1, 1, 2))
    done = distort(sample, [TailCut("pt_j2", cut=1.0, fraction=0.5)], seed=1)
    np.testing.assert_allclose(done.log_ratio(np.array(rows)), np.log(5 / 6) - np.log([0.5, 1, 1]))


@pytest.mark.parametrize("cut", [None, 110.0])
def test_edges_of_a_density_are_smeared(cut):
    """An exponential from 20 GeV, cut or not: its convolution with a Gaussian is known."""
    width, scale = 5.0, 30.0
    sample = pg.EventSample(20 + np.random.default_rng(1).exponential(scale, 5000), ["pt"], ["GeV"])

    def log_density(x):
        return torch.where(x[:, 0] >= 20, -(x[:, 0] - 20) / scale - math.log(scale), -torch.inf)

    def below(x):
        return 0.5 * torch.erfc(-x / math.sqrt(2))

    steps = [] if cut is None else [TailCut("pt", cut=cut)]
    done = distort(sample, [*steps, Smear("pt", absolute=width)], log_density=log_density)
    share = 1 if cut is None else (sample.column("pt") <= cut).mean()
    x = torch.linspace(20, 40 if cut is None else cut + 4 * width, 401, dtype=torch.float64)
    centre = x - width**2 / scale
    high = 1 if cut is None else below((cut - centre) / width)
    smeared = (-(x - 20) / scale + width**2 / scale**2 / 2).exp() / scale / share
    expected = log_density(x[:, None]) - (smeared * (high - below((20 - centre) / width))).log()
    np.testing.assert_allclose(done.log_ratio(x[:, None]), expected, atol=0.13)
    near = abs(x - (cut or 20)) < 0.5 * width
    np.testing.assert_allclose(done.log_ratio(x[near, None]), expected[near], atol=0.05)


def test_the_mass_has_the_unit_of_the_momenta(pairs):
    done = distort(pg.EventSample(pairs, units=["MeV", "", ""] * 2), [SmearMass("a", "b", absolute=0.5)])
    assert "by a Gaussian of 0.5 MeV" in done.text()
    with pytest.raises(ValueError, match="momenta of one unit; there are pt_a in MeV, pt_b in GeV"):
        distort(pg.EventSample(pairs, units=["MeV", "", "", "GeV", "", ""]), [SmearMass("a", "b", absolute=0.5)])


def test_a_part_of_equal_values_cannot_be_missing():
    counts = pg.EventSample(np.repeat([0.0, 1, 2], [50, 40, 10]), ["n"])
    with pytest.raises(ValueError, match="missing is 0.3, but 40 events have the same value 1, where the tail"):
        distort(counts, [TailCut("n", missing=0.3)])
    assert len(distort(counts, [TailCut("n", missing=0.1)]).sample) == 90


def test_what_is_not_known_after_a_filled_hole(z_jets):
    distance = z_jets_observables()["delta_r_j1j2"]
    away = z_jets[~(distance(z_jets).numpy() < 0.4)]
    steps = [FilledHole("j1", "j2"), Shift("pt_j1", by=1.0)]
    done = distort(away, steps, log_density=lambda x: 0 * x[:, 0])
    assert done.unknown == "Shift moves events, and log_density of what it moves is not known"
