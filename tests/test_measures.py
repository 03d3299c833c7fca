"""Measures of samples against answers in closed form, their floors, and planted distortions."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.stats import wasserstein_distance

import pyrogen as pg
from pyrogen.diagnostics import sample_measures
from pyrogen.diagnostics.control import estimators
from pyrogen.events import Reweighting, Shift, Smear, TailCut, distort

RNG = np.random.default_rng(1)
NAMES = ("FPD", "KPD", "energy distance", "sliced W1", "precision", "recall", "density", "coverage")


def ones(x):
    return np.ones(len(x))


def normal(n, *seed, columns=2):
    return np.random.default_rng(seed).normal(size=(n, columns))


# --- the estimators ---


def test_the_frechet_distance_of_gaussians():
    a, b, m = np.diag([1.0, 4.0]), np.diag([9.0, 0.25]), np.array([0.5, -1.0])
    closed = 0.25 + 1 + (1 - 3) ** 2 + (2 - 0.5) ** 2
    assert estimators._frechet(np.zeros(2), a, m, b) == pytest.approx(closed)
    mix = RNG.normal(size=(2, 3, 3))
    one, other = (each @ each.T for each in mix)
    trace = np.trace(one + other - 2 * sqrtm(one @ other).real)
    assert estimators._frechet(np.zeros(3), one, np.ones(3), other) == pytest.approx(3 + trace)
    x, y, u = normal(50, 1), 2 + normal(40, 2), RNG.random(50)
    moments = np.average(x, 0, u), np.cov(x.T, aweights=u), y.mean(0), np.cov(y.T)
    assert estimators.frechet_distance(x, u, y, ones(y)) == pytest.approx(estimators._frechet(*moments))


def test_the_extrapolation_takes_the_bias_away(few_orders):
    rng, found = np.random.default_rng(2), []
    for _ in range(40):
        x, y = rng.normal(size=(200, 3)), rng.normal((0.3, 0, 0), (1, 1.2, 1), (150, 3))
        found.append(
            [*estimators.fpd(x, ones(x), y, ones(y), rng), estimators.frechet_distance(x, ones(x), y, ones(y))]
        )
    mean, error = np.mean(found, 0), np.std(found, 0) / math.sqrt(40)
    right = 0.3**2 + 0.2**2
    assert abs(mean[0] - right) < 4 * error[0] < 0.1
    assert mean[1] - right > 4 * error[1]


def test_the_mmd_is_that_of_loops_and_of_moments():
    x, y, u, v = normal(4, 1), normal(3, 2), RNG.random(4), RNG.random(3)

    def mean(a, w, b, t, same):
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if not (same and i == j)]
        total = sum(w[i] * t[j] for i, j in pairs)
        return sum(w[i] * t[j] * (a[i] @ b[j] / 2 + 1) ** 4 for i, j in pairs) / total

    loops = mean(x, u, x, u, True) + mean(y, v, y, v, True) - 2 * mean(x, u, y, v, False)
    assert estimators.mmd_squared(x, u, y, v) == pytest.approx(loops)
    # (x y + 1)^4 compares the first four moments: those of N(0, 1) and N(1/2, 1).
    right = sum(n * d**2 for n, d in ((4, 0.5), (6, 0.25), (4, 3 * 0.5 + 0.125), (1, 6 * 0.25 + 0.0625)))
    rng = np.random.default_rng(3)
    found = [
        estimators.mmd_squared(a, ones(a), b, ones(b)) for a, b in rng.normal([[[0]], [[0.5]]], 1, (200, 2, 100, 1))
    ]
    assert abs(np.mean(found) - right) < 4 * np.std(found) / math.sqrt(200)
    a, b = normal(100, 4), normal(200, 5)
    parts = [np.random.default_rng(6), np.random.default_rng(6)]
    batches = zip(*(np.array_split(parts[0].permutation(len(each)), 10) for each in (a, b)), strict=True)
    each = [estimators.mmd_squared(a[i], ones(i), b[j], ones(j)) for i, j in batches]
    assert estimators.kpd(a, ones(a), b, ones(b), parts[1]) == (pytest.approx(np.median(each)),)


def test_the_energy_distance(monkeypatch):
    monkeypatch.setattr(estimators, "ROWS", 7)
    x, y = normal(30, 1), 1 + normal(20, 2)
    u = RNG.integers(1, 4, 30).astype(float)
    twice = np.repeat(x, u.astype(int), 0)  # a weight is so many events
    found = estimators.energy_distance(x, u, y, ones(y), RNG)
    assert found == (pytest.approx(estimators.energy_distance(twice, ones(twice), y, ones(y), RNG)[0]),)
    assert estimators.energy_distance(x, u, x, u, RNG)[0] == pytest.approx(0, abs=1e-6)
    monkeypatch.undo()
    d, n = 0.8, 3000
    x, y = normal(n, 3, columns=1), d + normal(n, 4, columns=1)
    between = 2 / math.sqrt(math.pi) * math.exp(-(d**2) / 4) + d * math.erf(d / 2)
    right = 2 * between - 4 / math.sqrt(math.pi)
    assert estimators.energy_distance(x, ones(x), y, ones(y), RNG)[0] == pytest.approx(right, abs=0.05)


def test_the_sliced_distance_is_that_of_scipy():
    x, y, u, v = normal(40, 1, columns=1), normal(30, 2, columns=1), RNG.random(40), RNG.random(30)
    right = wasserstein_distance(x[:, 0], y[:, 0], u, v)
    assert estimators.sliced_wasserstein(x, u, y, v, RNG) == (pytest.approx(right),)
    # A shift by d in k dimensions: the mean of |cos| over directions, 2/pi in the plane.
    x = normal(200, 3)
    found = estimators.sliced_wasserstein(x, ones(x), x + np.array([5.0, 0.0]), ones(x), RNG, directions=2000)
    assert found[0] == pytest.approx(10 / math.pi, abs=4 * 5 * 0.31 / math.sqrt(2000))


@pytest.mark.parametrize(
    ("generated", "right"),
    [
        ([0.5, 30.0, 3.0], (2 / 3, 1.0, 1.0, 1.0)),
        ([0.5, 0.6, 0.7], (1.0, 0.0, 2.0, 2 / 3)),  # too narrow
        ([0.0, 1.0, 10.0], (1.0, 1.0, 1.0, 1.0)),
        ([50.0, 60.0, 80.0], (0.0, 0.0, 0.0, 0.0)),
    ],
)
def test_neighbours_of_a_few_points(generated, right):
    # Radii of 0, 1 and 10 with one neighbour: 1, 1 and 9.
    x, y = np.array([[0.0], [1.0], [10.0]]), np.array(generated)[:, None]
    assert estimators.prdc(x, ones(x), y, ones(y), RNG, neighbours=1) == pytest.approx(right)


# --- the table ---


@pytest.fixture
def few_orders(monkeypatch):
    """FPD from fewer random orders: faster, and noisier on both sides."""
    monkeypatch.setattr(estimators, "REPEATS", 4)


def test_ties_are_no_matter_of_rounding():
    """Points of a grid, and many at one place: distances that are equal must not differ by their rounding."""
    random = np.random.default_rng(3)
    x, y = random.normal(size=(400, 2)).round(1), random.normal(size=(300, 2)).round(1)
    x[:20] = y[:20] = 0.7
    apart, own = (np.sqrt(((x[:, None] - each[None]) ** 2).sum(-1)) for each in (y, x))
    radius = np.sort(own, 1)[:, 5]
    assert (radius[:20] == 0).all()
    density = (apart < radius[:, None]).sum(0).mean() / 5
    assert estimators.prdc(x, np.ones(400), y, np.ones(300), random)[2] == pytest.approx(density)


def test_the_floor_holds_what_true_events_give(few_orders):
    some = {"splits": 10, "progress": False}
    tables = [sample_measures(normal(240, i, 1), normal(120, i, 2), seed=i, **some) for i in range(24)]
    assert tables[0].names == NAMES
    significance, p = np.array([t.significance for t in tables]), np.array([t.p_value for t in tables])
    # Of ten splits: a t distribution, within two in 92 %; the smallest p-value comes in 1 of 11 cases.
    assert np.all((np.abs(significance) < 2).mean(0) > 0.75)
    assert np.all((p < 1.5 / 11).mean(0) < 0.34)
    assert (np.abs(significance) > 3).mean() < 0.06
    assert np.all(np.abs(significance.mean(0)) < 4 * 1.2 / math.sqrt(24))
    assert np.all(np.abs(p.mean(0) - 0.55) < 4 * 0.29 / math.sqrt(24))


@pytest.mark.parametrize(
    "distortion", [Shift("x0", by=0.4), Smear("x0", absolute=1.0), TailCut("x0", missing=0.2)], ids=repr
)
def test_planted_distortions_are_found(distortion, few_orders):
    found, some = [], {"which": ["fpd", "energy"], "splits": 10, "progress": False}
    for i in range(20):
        generated = distort(pg.EventSample(normal(500, i, 2)), [distortion], seed=i).sample
        found += sample_measures(normal(800, i, 1), generated, seed=i, **some).found()
    assert min(found.count(name) for name in ("FPD", "energy distance")) >= 18, found


def test_a_wrong_estimator_is_seen(monkeypatch):
    """The floor and the value must come from the same function of the same sizes."""
    before = estimators.energy_distance
    calls = []

    def counted(x, u, y, v, rng):
        calls.append((len(x), len(y)))
        return before(x, u, y, v, rng)

    import pyrogen.diagnostics.control.measures as measures

    kind = measures.KINDS["energy"]
    monkeypatch.setitem(measures.KINDS, "energy", measures._Kind(kind.labels, counted, pairs=True))
    sample_measures(normal(700, 1), normal(300, 2), which=["energy"], splits=5, most_pairs=250, progress=False)
    assert calls == [(250, 250)] * 6
    calls.clear()
    table = sample_measures(normal(700, 1), normal(300, 2), which=["energy"], splits=5, progress=False)
    assert calls == [(400, 300)] * 6 and table.sizes == (400, 300, 300)
    calls.clear()
    table = sample_measures(
        normal(700, 1), normal(300, 2), reference=normal(200, 3), which=["energy"], splits=5, progress=False
    )
    assert calls == [(700, 200)] * 6 and table.sizes == (700, 200, 200)


def test_weights_count(few_orders):
    shifted = distort(pg.EventSample(normal(1000, 2)), [Shift("x0", by=0.4)]).sample
    back = distort(shifted, [Reweighting("x0", lambda v: np.exp(0.08 - 0.4 * v))]).sample
    names = ["fpd", "energy", "sliced"]
    plain, weighted = (
        sample_measures(normal(2000, 1), each, which=names, splits=10, progress=False) for each in (shifted, back)
    )
    assert set(plain.found()) == set(plain.names) and weighted.found() == ()
    # The floor is that of as many true events as the weights are worth.
    assert weighted.sizes[:2] == (2000 - weighted.sizes[2], 1000)
    assert weighted.sizes[2] == pytest.approx(back.effective_size, abs=1)
    table = sample_measures(
        normal(400, 1), pg.EventSample(normal(200, 2), weights=np.full(200, 7.0)), splits=5, progress=False
    )
    assert table.names == NAMES[:4] and list(table.left_out) == ["prdc"]
    assert "prdc left out: it counts neighbours, and generated has weights" in table.text()
    one = sample_measures(
        normal(400, 1), normal(200, 2), which=["fpd", "kpd", "energy", "sliced"], splits=5, progress=False
    )
    np.testing.assert_allclose(table.value, one.value, rtol=1e-9)


def weighted_back(n, *seed):
    """Events that are moved by one, and weights that bring them back: worth exp(-1) times as many true ones."""
    events = normal(n, *seed)
    weights = np.exp(-0.5 - events[:, 0])
    return pg.EventSample(events + [1, 0], weights=weights)


def test_the_floor_of_a_part_of_the_pairs_is_that_of_its_weights():
    """Samples without a difference are at their floor, also where only some of the weighted events are compared."""
    some = {"which": ["energy"], "splits": 10, "most_pairs": 500, "progress": False}
    tables = [sample_measures(normal(4000, i, 1), weighted_back(2000, i, 2), seed=i, **some) for i in range(8)]
    assert all(table.sizes[2] > 500 for table in tables)  # else nothing is cut
    significance = np.array([table.significance[0] for table in tables])
    assert abs(significance.mean()) < 4 * 1.2 / math.sqrt(8), significance
    with pytest.raises(
        ValueError, match=r"most_pairs is 100, and so many .* are worth \d\d; give a larger one, such as"
    ):
        sample_measures(normal(4000, 1), weighted_back(2000, 2), **some | {"most_pairs": 100})


def test_the_norm_of_weights_does_not_matter():
    truth, other, generated = (normal(n, i) for i, n in enumerate((600, 300, 300)))
    some = {"which": ["fpd", "kpd", "energy", "sliced"], "splits": 5, "progress": False}
    tables = [
        sample_measures(
            pg.EventSample(truth, weights=np.full(600, a)),
            generated,
            reference=pg.EventSample(other, weights=np.full(300, b)),
            **some,
        )
        for a, b in ((1, 1), (2, 30))
    ]
    np.testing.assert_allclose(tables[1].value, tables[0].value, rtol=1e-9)
    np.testing.assert_allclose(tables[1].floors, tables[0].floors, rtol=1e-6, atol=1e-9)
    assert tables[0].sizes == tables[1].sizes == (600, 300, 300)


def test_copies_count_once():
    weights = np.random.default_rng(1).exponential(size=1500)
    copied = pg.diagnostics.unweight(pg.EventSample(normal(1500, 2), weights=weights), maximum=0.5).events
    table = sample_measures(normal(3000, 1), copied, splits=5, most_pairs=500, progress=False)
    assert list(table.left_out) == ["prdc"] and "generated has copies" in table.text()
    # Each event comes 2 w times: (sum w)^2 / sum w^2 is half of the events for exponential weights.
    used = table.sizes[1]
    different = len(np.unique(copied.values[:used], axis=0))
    assert table.sizes[2] < 0.9 * different < different < 0.8 * used
    with pytest.raises(ValueError, match="'prdc'; .* generated has copies"):
        sample_measures(normal(3000, 1), copied, which=["prdc"], progress=False)
    for name, others in (("truth", (copied, normal(300, 1))), ("reference", (normal(300, 1), normal(300, 3)))):
        given = {"reference": copied} if name == "reference" else {}
        with pytest.raises(ValueError, match=f"{name} has [\\d,]+ events that are copies .* too low a floor"):
            sample_measures(*others, **given, progress=False)
    # A part without any copy tells of them, too.
    alone = copied[np.unique(copied.values, axis=0, return_index=True)[1]]
    table = sample_measures(alone, alone, which=["prdc"], splits=5, progress=False)
    assert table.sizes == (len(alone) - len(alone) // 2, len(alone) // 2, len(alone) // 2)


def test_features_scales_and_seeds():
    rng = np.random.default_rng(1)
    truth, generated = (pg.EventSample(rng.exponential(size=(300, 2)) * [1, 1000], ["a", "b"]) for _ in range(2))
    both = {"first": "a", "sum": lambda x: x.sum(1)}
    some = {"which": ["sliced", "prdc"], "splits": 5, "progress": False}
    tables = [sample_measures(truth, generated, both, seed=s, **some) for s in (0, 0, 1)]
    assert tables[0].features == ("first", "sum")
    assert np.array_equal(tables[0].floors, tables[1].floors) and np.array_equal(tables[0].value, tables[1].value)
    assert not np.array_equal(tables[0].floors, tables[2].floors)
    # Units do not matter, and neither does a shift of the truth's scale.
    unit = sample_measures(
        pg.EventSample(truth.values * [7, 2], ["a", "b"]), pg.EventSample(generated.values * [7, 2], ["a", "b"]), **some
    )
    plain = sample_measures(truth, generated, **some)
    np.testing.assert_allclose(unit.value, plain.value, rtol=1e-9)
    largest = sample_measures(truth, generated, scale="max", **some)
    assert largest.value[0] < plain.value[0]
    lines = plain.text().splitlines()
    assert lines[0].split() == ["measure", "value", "floor", "+-", "sigma", "p"]
    assert lines[-1].startswith("150 generated events against 150 true ones in a, b; the floor is 150 true events")


def test_padded_events_take_observables_that_all_have():
    jets = pg.events.read(Path(__file__).parents[1] / "examples" / "data" / "z_jets_5k.h5")
    truth, generated = jets[:600], jets[600:900]
    some = {"which": ["sliced"], "splits": 5, "progress": False}
    with pytest.raises(
        ValueError, match=r"of truth do not have the observable 'pt_j2'.* events with n objects, sample.with_count\(n\)"
    ):
        sample_measures(truth, generated, **some)
    pair = pg.events.z_jets_observables()["M_pair"]
    assert sample_measures(truth, generated, {"M": pair, "pt": "pt_j1"}, **some).features == ("M", "pt")
    assert sample_measures(truth.with_count(1), generated.with_count(1), **some).value[0] > 0


GOOD = normal(300, 1)
WEIGHTED = pg.EventSample(GOOD, weights=np.ones(300))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((GOOD, GOOD[:50]), {}, "generated is 50; it must be at least 100"),
        ((GOOD[:150], GOOD), {}, "truth is 75; it must be at least 100"),
        ((GOOD, GOOD[:, :1]), {}, "generated has 1 columns and truth has 2"),
        ((GOOD, WEIGHTED), {"which": ["prdc"]}, "which is 'prdc'; .* generated has weights; unweight"),
        ((GOOD, pg.EventSample(GOOD, weights=np.r_[-1.0, np.ones(299)])), {}, "generated has 1 negative weights"),
        ((GOOD * [1, 0], GOOD), {}, "x1 is 0 in all true events, so that it has no scale"),
        ((GOOD, GOOD, {"r": lambda x: x}), {}, r"observable 'r' of truth has shape \[300, 2\]"),
        ((GOOD, GOOD, {"r": lambda x: x[:, 0].log()}), {}, "observable 'r' of truth is NaN or infinite"),
        ((GOOD, GOOD, {}), {}, "observables"),
        ((GOOD, GOOD), {"which": ["auc"]}, "which"),
    ],
)
def test_what_cannot_be_measured_is_said(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        sample_measures(*arguments, progress=False, **options)


def test_the_global_random_state_is_left_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    sample_measures(GOOD, GOOD, which=["kpd"], splits=5, progress=False)
    assert torch.equal(before, torch.get_rng_state())
