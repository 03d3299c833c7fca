"""Failures of generators: ranked, named, and none where there is none."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import pyrogen as pg
from pyrogen.diagnostics import ClassifierWeights, Trainings, classifier_weights, find_failures
from pyrogen.diagnostics.control.information import Contrast, cells_of, information, kolmogorov_smirnov
from pyrogen.events.kinematics import delta_r, mass

Z_JETS = Path(__file__).parent.parent / "examples" / "data" / "z_jets_5k.h5"
NAMES = ("pt_a", "eta_a", "phi_a", "pt_b", "eta_b", "phi_b", "x")
UNITS = ("GeV", "", "rad", "GeV", "", "rad", "")


def weighted(truth, generated, log_w, folds=1, control=None):
    """Weights that are known, in place of those of classifiers."""
    sizes = len(truth), len(generated)
    nothing, fold = [np.full(n, np.nan) for n in sizes], [np.arange(n) % folds for n in sizes]
    trainings = Trainings(np.zeros((1, 1)), np.zeros((1, 1)), np.zeros(1, dtype=np.int64), np.zeros(1))
    return ClassifierWeights(truth, generated, *log_w, *nothing, *fold, trainings, control=control)


def particles(n, rng, hole=True):
    """Two particles with Delta R above 0.4, and a number x of a Gaussian."""
    m = int(1.3 * n) + 50
    hard = 20 + rng.exponential(30, m)
    soft = 20 + (hard - 20) * rng.beta(3, 1.5, m)
    eta, phi = rng.normal(0, 1.3, m), rng.uniform(-np.pi, np.pi, m)
    angle = phi + np.where(rng.random(m) < 0.4, 0, np.pi) + rng.normal(0, 0.9, m)
    angle = (angle + np.pi) % (2 * np.pi) - np.pi
    table = np.stack([hard, eta, phi, soft, eta + rng.normal(0, 1.2, m), angle, rng.normal(0, 1, m)], 1)
    return table[distance(table) > 0.4][:n] if hole else table[:n]


def distance(x):
    return np.hypot(x[:, 1] - x[:, 4], (x[:, 2] - x[:, 5] + np.pi) % (2 * np.pi) - np.pi)


def noise(like, rng, size):
    """A smooth function of the events, as a classifier has that learned noise."""
    middle, width = like.mean(0), like.std(0)
    slopes, phases, sizes = rng.normal(0, 0.7, (like.shape[1], 20)), rng.uniform(0, 6.3, 20), rng.normal(0, 1, 20)
    return lambda x: size * np.cos((x - middle) / width @ slopes + phases) @ sizes / math.sqrt(10)


def planted(failure, seed, n=4000, size=0.15):
    """Weights of a generator with a known failure: the right ones with noise, and with a control that is noise."""
    rng = np.random.default_rng([seed, len(failure)])
    truth, source = particles(n, rng), particles(2 * n if failure == "tail" else n, rng)
    cut = 20 - 30 * math.log(0.01)  # one event in a hundred is beyond

    def log_w(x):
        return np.zeros(len(x))

    if failure == "tail":
        source = source[source[:, 0] < cut][:n]

        def log_w(x):
            return np.where(x[:, 0] > cut, 4.0, math.log(0.99))

    elif failure == "hole":
        source = particles(n, rng, hole=False)

        def log_w(x):
            return np.where(distance(x) < 0.4, -4.0, 0.04)

    elif failure == "peak":
        source[:, 6] *= 1.2

        def log_w(x):
            return math.log(1.2) - 0.5 * x[:, 6] ** 2 * (1 - 1 / 1.44)

    learned, other = noise(truth, rng, size), noise(truth, rng, 1.4 * size)
    samples = [pg.EventSample(x, NAMES, UNITS) for x in (truth, source)]
    half = n // 2
    control = weighted(samples[0][:half], samples[0][half:], [other(truth[:half]), other(truth[half:])])
    return weighted(*samples, [log_w(x) + learned(x) for x in (truth, source)], control=control)


EXPECTED = {
    "tail": ("missing feature or tail", "pt_a"),
    "hole": ("wrong boundary", "delta_r_ab"),
    "peak": ("smeared peak", "x"),
}


@pytest.mark.parametrize("failure", EXPECTED)
def test_planted_failures_are_found_and_named(failure):
    found = [find_failures(planted(failure, seed)) for seed in range(12)]
    names = [(each.kind, each.rows[0].name) for each in found]
    assert names.count(EXPECTED[failure]) >= 11, names
    # What is only correlated is told from it: a second failure is named in at most one of them.
    assert sum(len(each.modes) > 1 for each in found) <= 1


def test_none_is_found_where_there_is_none():
    found = [find_failures(planted("none", seed)) for seed in range(12)]
    # Each of two verdicts is wrong in at most 1 % of the samples: more than one of 12 with a probability of 2 %.
    assert sum(each.found for each in found) <= 1
    assert found[0].kind == "none" and "no failure shows" in found[0].text()


@pytest.mark.parametrize(("failure", "region"), [("tail", 0), ("hole", 0), ("peak", 0)])
def test_the_evidence_is_right(failure, region):
    found = find_failures(planted(failure, 3, n=10_000))
    mode = found.modes[0]
    where = mode.regions[0]
    if failure == "tail":
        assert where.high == math.inf and where.low == pytest.approx(20 - 30 * math.log(0.01), rel=0.06)
        assert where.missing == pytest.approx(0.01, abs=4 * where.error)
    elif failure == "hole":
        rng = np.random.default_rng(5)
        outside = np.mean(distance(particles(200_000, rng, hole=False)) < 0.4)
        assert where.low == -math.inf and where.high == pytest.approx(0.4, abs=0.03)
        assert where.missing == pytest.approx(-outside, abs=4 * where.error)
        assert where.tail > 0.9
    else:
        assert where.low < 0 < where.high and where.missing > 5 * where.error
        assert {math.isinf(each.low) for each in mode.regions[1:]} == {True, False}
        assert all(each.missing < 0 for each in mode.regions[1:])
    text = found.text()
    assert mode.kind in text and f"{abs(where.missing):.2%} +- {where.error:.2%}" in text


def test_with_classifiers():
    """The real thing, once: a smeared peak that trees find."""
    pytest.importorskip("sklearn", reason='needs pip install "pyrogen[trees]"')
    rng = np.random.default_rng(3)
    truth, made = particles(4000, rng), particles(4000, rng)
    made[:, 6] *= 1.2
    samples = [pg.EventSample(x, NAMES, UNITS) for x in (truth, made)]
    weights = classifier_weights(*samples, method="trees", ensemble=1, control=False, progress=False)
    found = find_failures(weights)
    assert (found.kind, found.rows[0].name) == ("smeared peak", "x")
    assert found.cuts == (0.5, 2.0) and found.cuts_from == "default"


def test_two_failures_are_both_found():
    rng = np.random.default_rng(8)
    truth, made = rng.normal(0, 1, (2, 8000, 3))
    made = made[made[:, 0] < 2.0]
    made[:, 2] *= 1.3
    names = [pg.EventSample(x, ("a", "b", "c")) for x in (truth, made)]

    def log_w(x):
        return np.where(x[:, 0] > 2, 4.0, -0.02) + math.log(1.3) - 0.5 * x[:, 2] ** 2 * (1 - 1 / 1.69)

    found = find_failures(weighted(*names, [log_w(truth), log_w(made)]))
    kinds = {(mode.kind, mode.observable) for mode in found.modes}
    assert kinds == {("smeared peak", "c"), ("missing feature or tail", "a")}
    assert "after this is mended" in found.text()
    assert not found["a"].follows and found["c + a" if "c + a" in [r.name for r in found.rows] else "a + c"].follows


def contrast(x, y, log_w, weights=None, folds=1):
    true = np.repeat([True, False], [len(x), len(y)])
    sizes = np.ones(len(true)) if weights is None else weights
    sizes = np.where(true, sizes / sizes[true].sum(), sizes / sizes[~true].sum())
    return Contrast(true, sizes, log_w, np.arange(len(true)) % folds)


def test_information_of_known_distributions():
    """w depends on a number of three values; a copy that is wrong in a fifth of the events knows less, by a formula."""
    rng = np.random.default_rng(1)
    n, p, q = 100_000, np.array([0.5, 0.3, 0.2]), np.array([0.3, 0.3, 0.4])
    x, y = rng.choice(3, n, p=p), rng.choice(3, n, p=q)
    both = np.concatenate([x, y])
    its = contrast(x, y, np.log(p / q)[both])
    whole = information(None, its)
    copied = np.where(rng.random(2 * n) < 0.2, rng.integers(0, 3, 2 * n), both)
    pp, qq = (0.8 * each + 0.2 / 3 for each in (p, q))
    for values, a, b in ((both, p, q), (copied, pp, qq)):
        found = information(cells_of(values.astype(float), its), its)
        exact = np.sum((a - b) * a / (a + b))
        error = math.sqrt(np.sum(found.terms**2))
        assert found.value == pytest.approx(exact, abs=4 * error)
        share, share_error = found.share_of(whole)
        expected = exact / np.sum((p - q) * p / (p + q))
        assert share == pytest.approx(expected, abs=4 * share_error + 1e-3)
    nothing = information(cells_of(rng.normal(size=2 * n), its), its)
    assert abs(nothing.sigma) < 4


def test_sigma_is_gaussian_without_a_difference():
    """Of noise that says much: the labels of an event do not enter its own value."""
    sigmas = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        x, y = rng.normal(0, 1, (2, 300))
        both = np.concatenate([x, y])
        its = contrast(x, y, 2 * np.sin(3 * both) + rng.normal(0, 1, 600))
        sigmas.append(information(cells_of(both, its), its).sigma)
    assert abs(np.mean(sigmas)) < 4 / math.sqrt(300)
    assert np.std(sigmas) == pytest.approx(1, abs=4 / math.sqrt(600))


def test_sigma_of_cross_fitting():
    """Each of two folds is scored by the histograms of the other one: about one sigma, though they are related."""
    sigmas = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        both = rng.normal(0, 1, 1200)
        its = contrast(both[:600], both[600:], np.zeros(1200), folds=2)
        cells = np.clip(np.floor(3 * both) + 6, 0, 11).astype(int)
        log_w = np.zeros(1200)
        for fold in (0, 1):
            p, q = (np.bincount(cells[(its.fold != fold) & which], minlength=12) + 1 for which in (its.true, ~its.true))
            log_w[its.fold == fold] = np.log(p / q)[cells[its.fold == fold]]
        sigmas.append(information(cells_of(both, its), contrast(both[:600], both[600:], log_w, folds=2)).sigma)
    assert np.mean(sigmas) < 4 / math.sqrt(300)
    assert np.std(sigmas) == pytest.approx(0.95, abs=0.05 + 4 / math.sqrt(600))


def test_the_distance_is_that_of_kolmogorov_and_smirnov():
    from scipy.stats import ks_2samp

    rng = np.random.default_rng(2)
    x, inside = np.round(rng.normal(0, 1, 900), 1), rng.random(900) < 0.3
    mine = kolmogorov_smirnov(x, inside / inside.sum(), ~inside / (~inside).sum())
    assert mine == pytest.approx(ks_2samp(x[inside], x[~inside]).statistic, abs=1e-12)


def named(x, y, log_w=None):
    """The failure in one number, from weights that know the histograms only."""
    edges = np.quantile(np.concatenate([x, y]), np.linspace(0, 1, 61)[1:-1])
    if log_w is None:
        p, q = (np.bincount(np.searchsorted(edges, each), minlength=60) + 1 for each in (x, y))
        ratio = np.log(p / q)
        log_w = [ratio[np.searchsorted(edges, each)] for each in (x, y)]
    samples = [pg.EventSample(each[:, None], ["x"], ["GeV"]) for each in (x, y)]
    return find_failures(weighted(*samples, log_w))


def uniform_leak(rng, n):
    return rng.uniform(-1, 1, n), rng.uniform(-1.05, 1.05, n)


def missing_spot(rng, n):
    y = rng.normal(0, 1, 2 * n)
    return rng.normal(0, 1, n), y[(y < 0.4) | (y > 0.5)][:n]


def missing_peak(rng, n):
    x = np.where(rng.random(n) < 0.05, rng.normal(3, 0.05, n), rng.uniform(0, 10, n))
    return x, rng.uniform(0, 10, n)


def filled_gap(rng, n):
    x = rng.uniform(0, 1, 2 * n)
    return x[(x < 0.5) | (x > 0.55)][:n], rng.uniform(0, 1, n)


def peak_on_continuum(rng, n):
    x, y = (np.where(rng.random(n) < 0.6, rng.normal(91, 2 * k, n), rng.uniform(60, 120, n)) for k in (1, 1.2))
    return x, y


def too_narrow(rng, n):
    return rng.normal(0, 1, n), rng.normal(0, 0.8, n)


def shifted(rng, n):
    return rng.normal(0, 1, n), rng.normal(0.15, 1, n)


@pytest.mark.parametrize(
    ("make", "kind", "regions"),
    [
        (uniform_leak, "wrong boundary", [(-math.inf, -1), (1, math.inf)]),
        (missing_spot, "missing feature or tail", [(0.4, 0.5)]),
        (missing_peak, "missing feature or tail", [(2.9, 3.1)]),
        (filled_gap, "wrong boundary", [(0.5, 0.55)]),
        (peak_on_continuum, "smeared peak", None),
        (too_narrow, "missing feature or tail", None),
        (shifted, "other shape", None),
    ],
)
def test_names_of_shapes(make, kind, regions):
    found = named(*make(np.random.default_rng(4), 20_000))
    mode = found.modes[0]
    assert mode.kind == kind, str(found)
    if regions is not None:
        limits = sorted((each.low, each.high) for each in mode.regions)
        assert np.allclose(
            np.nan_to_num(limits, posinf=99, neginf=-99), np.nan_to_num(regions, posinf=99, neginf=-99), atol=0.06
        )


def test_weights_count_and_may_be_negative():
    """Three events of weight 1, 1 and -1 in one place are worth one, with a larger error."""
    rng = np.random.default_rng(6)
    n = 4000
    x, y = rng.normal(0, 1, (n, 2)), rng.normal(0, 1, (n, 2))
    y[:, 0] *= 1.4
    log_w = [math.log(1.4) - 0.5 * each[:, 0] ** 2 * (1 - 1 / 1.96) for each in (x, y)]
    plain = find_failures(weighted(*(pg.EventSample(each) for each in (x, y)), log_w), pairs=False)
    doubled = [pg.EventSample(np.tile(each, (3, 1)), weights=np.repeat([1.0, 1.0, -1.0], n)) for each in (x, y)]
    found = find_failures(weighted(*doubled, [np.tile(each, 3) for each in log_w]), pairs=False)
    assert found.kind == plain.kind == "smeared peak" and found.rows[0].name == "x0"
    assert found.rows[0].small == pytest.approx(plain.rows[0].small, abs=1e-9)
    np.testing.assert_allclose(found.rows[0].histogram.truth, plain.rows[0].histogram.truth, atol=0.05)
    assert 0.3 < found.rows[0].sigma / plain.rows[0].sigma < 0.75  # 1/sqrt(3) for the errors
    # Weights that make the samples equal leave nothing to be found.
    right = pg.EventSample(y, weights=np.exp(log_w[1]))
    assert not find_failures(weighted(pg.EventSample(x), right, [0.0 * each for each in log_w])).found


@pytest.fixture(scope="module")
def z_jets():
    return pg.events.read(Z_JETS)


def test_z_jets(z_jets):
    """NaN of jets that are not there; a failure in their number, and one of two jets that not all events have."""
    half = len(z_jets) // 2
    truth, other = z_jets[:half], z_jets[half:]
    rng = np.random.default_rng(3)
    made = other[(other.counts < 3) | (rng.random(len(other)) < 0.5)]
    part = np.mean(truth.counts == 3)
    log_w = [np.where(each.counts == 3, math.log(2), 0.0) + math.log(1 - part / 2) for each in (truth, made)]
    found = find_failures(weighted(truth, made, log_w), pg.events.z_jets_observables(), pairs=True)
    assert found.rows[0].name in ("objects", "jets")
    assert abs(found["pt_j3"].sigma) < 4  # among the events with three jets nothing is wrong
    assert found["M_pair"].label == r"$M(\mu^+\mu^-)$" and found["pt_mu+"].origin == "column"
    assert found["delta_r_j1j2"].origin == "pair" and found["delta_r_j1j2"].label.startswith(r"$\Delta R")

    d_phi = pg.events.z_jets_observables()["delta_phi_j1j2"]
    made = other[~(d_phi(other).abs().numpy() > 2.9)]
    gone = float((d_phi(other).abs() > 2.9).double().mean())
    log_w = [
        np.where(d_phi(each).abs().numpy() > 2.9, 4.0, math.log(1 - gone)) + rng.normal(0, 0.1, len(each))
        for each in (truth, made)
    ]
    found = find_failures(weighted(truth, made, log_w))
    assert (found.rows[0].name, found.kind) == ("delta_phi_j1j2", "missing feature or tail")
    assert 0 < found.modes[0].part < 1 and "of the events that have it" in found.text()


def test_pairs_of_particles_and_of_numbers():
    rng = np.random.default_rng(1)
    p = rng.normal(0, 20, (400, 4))
    cartesian = pg.EventSample(p, ("px_e+", "py_e+", "pz_e+", "pz_e-"), ("GeV",) * 4)
    found = find_failures(weighted(cartesian[:200], cartesian[200:], [rng.normal(0, 1, 200), rng.normal(0, 1, 200)]))
    names = {row.name for row in found.rows}
    assert {"m_e+e-", "pt_e+", "delta_r_e+e-"} <= names and "pt_e+e-" in found.left_out  # it is zero
    plus, minus = pg.events.pair_momenta(cartesian)
    from pyrogen.diagnostics.control.variables import variables_of

    values = {each.name: each.values() for each in variables_of(cartesian[:200], cartesian[200:], {}, True)[0]}
    np.testing.assert_allclose(values["m_e+e-"], mass(plus + minus))
    np.testing.assert_allclose(values["delta_r_e+e-"], delta_r(plus, minus))

    plain = pg.EventSample(np.abs(p[:, :3]) + 1, ("a", "b", "c"), ("m", "m", "s"))
    own = {"d": lambda x: x[:, 0] ** 2}
    values = {each.name: each.values() for each in variables_of(plain[:200], plain[200:], own, True)[0]}
    assert {"a + b", "a - b", "a / b", "a / c", "a / d", "c / d"} < set(values)
    assert "a + c" not in values  # metres and seconds
    np.testing.assert_allclose(values["a / c"], plain.values[:, 0] / plain.values[:, 2])
    few = {each.name for each in variables_of(plain[:200], plain[200:], own, ["a", "d"])[0]}
    assert few == {"a", "b", "c", "d", "a / d"} or few == {"a", "b", "c", "d", "a / d", "a + d", "a - d"}
    assert len(variables_of(plain[:200], plain[200:], own, False)[0]) == 4


@pytest.fixture(scope="module")
def small():
    rng = np.random.default_rng(1)
    x, y = rng.normal(0, 1, (2, 300, 2))
    return weighted(pg.EventSample(x), pg.EventSample(y), [0.3 * x[:, 0], 0.3 * y[:, 0]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"observables": {"f": lambda x: x}}, r"observables\['f'\] of truth has shape \[300, 2\]"),
        ({"observables": {"f": lambda x: x[:, 0].log()}}, r"observables\['f'\] of truth is NaN or infinite for \d+ of"),
        ({"observables": {"f": lambda x: 0 * x[:, 0] + 3}}, r"observables\['f'\] is 3 in all events.*leave it out"),
        ({"observables": {"x0": lambda x: x[:, 1]}}, r"observables\['x0'\] has other values than the column"),
        ({"observables": {"x0 + x1": lambda x: x[:, 1]}}, "has other values than the pair of this name"),
        ({"pairs": ["x0", "y"]}, "pairs names y; there are the columns x0, x1"),
        ({"pairs": "x0"}, "pairs is 'x0'"),
        ({"cuts": (0.1, 1.2)}, r"cuts is .*w < 0.1 of generated events has 0 .*there are 20 events below 0\.\d+"),
        ({"cuts": (1.5, 2.0)}, r"cuts is \(1.5, 2.0\); it must be \(low, high\) with low < 1 < high"),
        ({"p_value": 2}, "p_value is 2"),
    ],
)
def test_bad_input_is_named(small, arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        find_failures(small, **arguments)


def test_too_many_pairs_are_refused():
    x = np.random.default_rng(1).normal(0, 1, (60, 60))
    samples = [pg.EventSample(each) for each in (x[:30], x[30:])]
    with pytest.raises(
        ValueError, match=r"pairs: 0 particles and 60 other columns make up to 5,310 pairs.*pairs=False"
    ):
        find_failures(weighted(*samples, [np.zeros(30), np.zeros(30)]), pairs=True)
    found = find_failures(weighted(*samples, [np.zeros(30), np.zeros(30)]))  # nothing is dropped in silence
    assert len(found.rows) == 60 and found.left_out == {
        "pairs": "up to 5,310; pairs=[names of some columns] makes them"
    }
    assert "left out: pairs" in found.text()


def test_many_columns_are_left_out_where_observables_are_given():
    """As of a detector: what its cells say one by one, say observables better."""
    x = np.random.default_rng(1).normal(0, 1, (80, 60))
    weights = weighted(*(pg.EventSample(each) for each in (x[:40], x[40:])), [np.zeros(40), np.zeros(40)])
    observables = {"x3": lambda x: x[:, 3], "sum": lambda x: x.sum(1)}
    found = find_failures(weights, observables)
    assert {row.name for row in found.rows} == {"x3", "sum"} and len(found.left_out) == 60
    assert found.left_out["x0"] == "one of 60 columns; columns=True takes them" and "pairs" in found.left_out
    assert len(find_failures(weights, observables, columns=True).rows) == 61
    few = find_failures(weighted(*(pg.EventSample(x[:40, :3]), pg.EventSample(x[40:, :3])), [np.zeros(40)] * 2))
    assert few["x0"] and few["x0 + x1"]


def test_what_is_no_failure_of_an_observable_is_said():
    """A difference that none of the observables shows: the columns are equal, their relation is not."""
    rng = np.random.default_rng(2)
    n = 4000
    signs = rng.choice([-1, 1], (2, n, 2))
    x, y = np.abs(rng.normal(0, 1, (2, n, 3)))
    x[:, :2] *= signs[0]
    y[:, :2] *= signs[1]
    x[:, 2] *= signs[0].prod(1)  # the sign of the third is that of the product
    y[:, 2] *= rng.choice([-1, 1], n)
    samples = [pg.EventSample(each) for each in (x, y)]
    log_w = [np.where(each.prod(1) > 0, math.log(2), -3.0) for each in (x, y)]
    found = find_failures(weighted(*samples, log_w))
    assert found.hidden and found.found and found.kind == "none"
    assert "in none of the" in found.text()
    product = {"product": lambda e: e.prod(1)}
    assert find_failures(weighted(*samples, log_w), product).rows[0].name == "product"


def test_figure():
    found = find_failures(planted("peak", 1))
    figure = pg.plotting.plot_failures(found)
    assert len(figure.axes) == 6
    assert "smeared peak" in figure.axes[0].get_title()
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert f"generated, $w<{found.cuts[0]:.2g}$" in labels and "truth, all" in labels
    assert len(pg.plotting.plot_failures(found, names=["x", "delta_r_ab", "m_ab", "pt_a"], log=True).axes) == 8
    with pytest.raises(ValueError, match="names: no observable 'y'"):
        pg.plotting.plot_failures(found, names=["y"])


def test_the_result_tells_itself(small):
    found = find_failures(small)
    assert "\n" not in repr(found) and "observables of 300 true" in repr(found)
    with pytest.raises(KeyError, match="no observable 'y'"):
        found["y"]
    table = found.text(1).splitlines()
    assert any(line.startswith("... and") for line in table)
    assert torch.is_tensor(torch.tensor(found.rows[0].share))


def test_a_value_that_many_events_share_is_a_cell_of_its_own():
    rng = np.random.default_rng(4)
    n = 4000
    x = np.where(rng.random(2 * n) < 0.1, 0.0, rng.exponential(1, 2 * n))
    its = contrast(x[:n], x[n:], [np.zeros(n)] * 2, folds=2)
    for shift, sign in ((0.0, 1), (2.0, 1), (0.0, -1)):  # at the lower end, in the middle, at the upper end
        values = sign * np.where(x == 0, shift, x)
        cells = cells_of(values, its)
        at = cells == cells[np.argmax(x == 0)]
        assert np.array_equal(at, values == sign * shift)
        order = np.argsort(values, kind="stable")
        assert (np.diff(cells[order]) >= 0).all() and set(np.diff(cells[order])) == {0, 1}
        assert np.bincount(cells).min() >= 25
    numbers = rng.integers(0, 5, 2 * n).astype(float)
    assert np.array_equal(cells_of(numbers, its), numbers)


@pytest.mark.parametrize("sign", [1, -1])
def test_events_that_are_missing_at_one_value(sign):
    """12 % of the true events are at 0, 4 % of the generated ones; all else is alike."""
    rng = np.random.default_rng(6)
    n = 4000
    x, y = (sign * np.where(rng.random(n) < part, 0.0, 0.1 + rng.exponential(1, n)) for part in (0.12, 0.04))
    log_w = [np.where(each == 0, np.log(3.0), np.log(0.88 / 0.96)) for each in (x, y)]
    found = find_failures(weighted(*(pg.EventSample(each[:, None], ["E"], ["GeV"]) for each in (x, y)), log_w))
    region = found.modes[0].regions[0]
    assert found.kind == "missing feature or tail" and len(found.modes) == 1
    assert region.value == 0 and region.missing == pytest.approx(np.mean(x == 0) - np.mean(y == 0))
    assert "sigma: at 0 GeV: " in found.modes[0].text() and "of the events missing" in found.modes[0].text()
    opposite = [-each for each in log_w[::-1]]
    turned = find_failures(weighted(*(pg.EventSample(each[:, None], ["E"], ["GeV"]) for each in (y, x)), opposite))
    assert "at 0 GeV" in turned.modes[0].text() and "too many" in turned.modes[0].text()


def test_what_events_do_not_have_can_be_the_failure():
    rng = np.random.default_rng(7)
    n = 3000
    x, y = (np.where(rng.random(n) < part, np.nan, rng.normal(0, 1, n)) for part in (0.3, 0.1))
    samples = [pg.EventSample(np.stack([rng.normal(0, 1, n), np.nan_to_num(each, nan=9.0)], 1)) for each in (x, y)]
    log_w = [np.where(np.isnan(each), np.log(3.0), np.log(0.7 / 0.9)) for each in (x, y)]
    eta = pg.events.Observable(lambda e: e[:, 1], "eta", "", np.linspace(-3, 3, 31), missing=lambda e: e[:, 1] == 9)
    twin = dataclasses.replace(eta, function=lambda e: e[:, 1] + 1)
    found = find_failures(weighted(*samples, log_w), {"eta": eta, "other": twin}, columns=False)
    assert {row.name for row in found.rows if row.name.startswith("no ")} == {"no eta"}
    assert found.modes[0].observable == "no eta" and len(found.modes) == 1 and found.modes[0].regions[0].value == 1
    assert found["eta"].p_value > 0.01  # alike where it exists


def test_words_of_a_region():
    at = pg.diagnostics.Region(-np.inf, 0.2, 0.1, 0.04, 0.01, np.nan, 0.0)
    assert at.words("GeV") == "at 0 GeV: 6.00% +- 1.00% of the events missing (truth 10.00%, generated 4.00%)"
    inside = pg.diagnostics.Region(-np.inf, np.inf, 0.5, 0.4, 0.01, np.nan)
    assert inside.words("GeV") == "everywhere: 10.00% +- 1.00% of the events missing (truth 50.00%, generated 40.00%)"
    below = pg.diagnostics.Region(-np.inf, 0.4, 0.1, 0.2, 0.01, 0.5)
    assert below.words("GeV").startswith("below 0.4 GeV: 10.00%") and "generated events with small w" in below.words("")


def far_apart(n, shift, part=1.0, seed=1):
    """Gaussians in three numbers; a part of the generated events is moved in x0, and x1 is 1.5 times as wide."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(0, 1, (2, n, 3))
    y[:, 1] *= 1.5
    y[:, 0] += np.where(rng.random(n) < part, shift, 0.0)

    def log_w(e):
        width = math.log(1.5) - 0.5 * e[:, 1] ** 2 * (1 - 1 / 2.25)
        return width + np.where(e[:, 0] > shift / 2, -6.0, 6.0 if part == 1 else -math.log(1 - part))

    return weighted(*(pg.EventSample(each) for each in (x, y)), [log_w(x), log_w(y)], folds=2)


@pytest.mark.parametrize("n", [600, 5_000])
def test_nothing_more_is_said_of_samples_that_do_not_overlap(n):
    """No second failure is made of the few events of cells in which both samples end."""
    for seed in range(3):
        found = find_failures(far_apart(n, 20.0, seed=seed))
        assert len(found.modes) == 1 and found.modes[0].observable != "x1" and not found.complete, found.text()
        assert {each.missing > 0 for each in found.modes[0].regions} == {True, False}
        assert all(abs(each.missing) > 0.99 for each in found.modes[0].regions)
        assert all(np.isnan(row.left) and not row.follows for row in found.rows)
        assert "Too few true and generated events overlap in x0" in found.text()
    # Where a half of them overlaps, the second failure is found.
    found = find_failures(far_apart(n, 20.0, part=0.5), pairs=False)
    assert [each.observable for each in found.modes] == ["x0", "x1"] and found.complete
    assert "overlap" not in found.text()


def test_every_region_says_something():
    """Differences that are just significant: no region is everything, and none has as many events as it should."""
    said = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        shift = rng.uniform(0.12, 0.2)
        x, y = rng.normal(0, 1, 1500), rng.normal(shift, 1, 1500)
        modes = named(x, y, [shift * (shift / 2 - each) for each in (x, y)]).modes
        said += len(modes)
        for mode in modes:
            assert mode.regions and all(abs(each.missing) > 2 * each.error for each in mode.regions), mode.text()
            assert "everywhere" not in mode.text()
    assert said > 20


def test_long_names_stay_in_their_panels():
    rng = np.random.default_rng(7)
    names = [
        "transverse_momentum_of_the_leading_lepton",
        "pseudorapidity of the second jet, by energy",
        "x" * 90,
    ]
    x, y = rng.lognormal(0, 1, (2, 800, 3))
    y = y[y[:, 0] < 3]
    log_w = [np.where(each[:, 0] > 3, 4.0, -0.1) for each in (x, y)]
    units = ["GeV/c^2 per width of a bin", "m", ""]
    found = find_failures(weighted(*(pg.EventSample(each, names, units) for each in (x, y)), log_w))
    for most in (1, 12):
        figure = pg.plotting.plot_failures(found, most)
        figure.draw_without_rendering()
        assert len(figure.axes) == 2 * min(most, len(found.rows))
        for axis in figure.axes:
            panel = axis.get_window_extent()
            if axis.get_xlabel():
                label = axis.xaxis.label.get_window_extent()
                assert label.width < 1.15 * panel.width, axis.get_xlabel()
            if axis.get_ylabel().startswith("density"):
                assert axis.yaxis.label.get_window_extent().height < 1.15 * panel.height, axis.get_ylabel()


def test_weights_that_are_all_the_same_have_an_axis():
    sample = pg.EventSample(np.random.default_rng(1).normal(size=(50, 1)))
    found = weighted(sample, sample, [np.zeros(50), np.zeros(50)])
    for log in (False, True):
        low, high = found.histograms(50, log=log).edges[[0, -1]]
        assert low == pytest.approx(0.999, abs=1e-5) and high == pytest.approx(1.001, abs=1e-5)
    narrow = found.histograms(50, (0.9999, 1.0001), log=True).edges  # limits that are given stay
    assert narrow[[0, -1]] == pytest.approx([0.9999, 1.0001], abs=1e-8)
