"""Weights p_data / p_model of every event, where the ratio of the densities is known."""

import dataclasses
import json
import math
import re

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid

import pyrogen as pg
from pyrogen import EventSample
from pyrogen.diagnostics import ClassifierWeights, Network, Trainings, Trees, classifier_weights, train_classifier
from pyrogen.diagnostics.control.calibration import calibration_curve, straight_line, weighted_quantiles
from pyrogen.diagnostics.control.recalibration import recalibrated
from pyrogen.events import Multiplicity
from pyrogen.plotting import plot_classifier_weights
from pyrogen.plotting.style import with_error

SMALL = Network(hidden=(16, 16), epochs=8, lr=5e-3)
TREES = Trees(iterations=40, leaves=4)
QUICK = {"progress": False, "ensemble": 1, "control": False}
SHIFT = 0.5
N = 40_000  # events of each sample that a network weighs


def normal(n, mean=0.0, seed=0, columns=1):
    return torch.randn(n, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + mean


def best_auc(delta):
    """Phi(delta / sqrt 2), for unit Gaussians that are delta apart."""
    return 0.5 * (1 + math.erf(delta / 2))


@pytest.fixture(scope="module")
def shifted():
    """Two unit Gaussians that are half a sigma apart, with the control."""
    return classifier_weights(normal(N, SHIFT, 1), normal(N, 0, 2), method=SMALL, progress=False)


@pytest.fixture(scope="module")
def equal():
    """Two samples of one distribution in two columns, by trees."""
    samples = normal(20_000, 0, 1, 2), normal(10_000, 0, 2, 2)
    return classifier_weights(*samples, method=TREES, progress=False, ensemble=2)


def test_the_weights_are_the_ratio_of_two_gaussians(shifted):
    for sample, log_w in ((shifted.truth, shifted.log_w_truth), (shifted.generated, shifted.log_w_generated)):
        x = sample.values[:, 0]
        off = np.expm1(log_w - (SHIFT * x - SHIFT**2 / 2))
        assert log_w.shape == (N,) and log_w.dtype == np.float64
        # Within 1.2 sigma of both. 16,000 events each train a classifier, so a bin of 0.1 of them knows w to 3.5 %.
        assert np.abs(off[(x > SHIFT - 1.2) & (x < 1.2)]).max() < 0.07
        assert np.sqrt(np.mean(off[np.abs(x - SHIFT / 2) < 2] ** 2)) < 0.04
    mean, error = shifted.normalisation
    assert abs(mean - 1) < 4 * error + 0.01


def test_area_and_roc_curve(shifted):
    area, error = shifted.auc
    assert abs(area - best_auc(SHIFT)) < 4 * error + 0.001
    # By eq. 6 of the paper: the fraction of true events above each generated one.
    true = np.sort(shifted.log_w_truth)
    above = 1 - np.searchsorted(true, shifted.log_w_generated, "right") / len(true)
    assert area == pytest.approx(above.mean(), abs=1e-4)  # ties count half
    generated, truth = shifted.roc()
    assert generated[0] == truth[0] == 0 and generated[-1] == truth[-1] == 1
    assert (np.diff(generated) >= 0).all() and (np.diff(truth) >= 0).all()
    assert trapezoid(truth, generated) == pytest.approx(area, abs=1e-4)
    folds, errors = shifted.fold_auc
    assert np.all(np.abs(folds - area) < 4 * errors) and errors == pytest.approx(error * 2**0.5, rel=0.05)
    assert shifted.trainings.auc.shape == (2,) and np.all(np.abs(shifted.trainings.auc - area) < 0.002)


def test_calibration_and_text(shifted):
    curve = shifted.calibration()
    assert len(curve.w) == 20 and curve.ndf == pytest.approx(19, abs=0.5)
    assert curve.chi2 / curve.ndf < 2 and curve.p_value > 0.005
    factor, error = shifted.slope
    assert abs(factor - 1) < 4 * error and error < 0.02 and not shifted.overfitted
    text = shifted.text()
    assert "The samples differ (AUC" in text and "they can be believed" in text
    assert "AUC 0.63" in repr(shifted) and "\n" not in repr(shifted)
    tails = shifted.tails((0.5, 2.0))
    phi = [
        0.5 * (1 + math.erf(z / 2**0.5))
        for z in ((math.log(0.5) / SHIFT) + SHIFT / 2, -math.log(2) / SHIFT - SHIFT / 2)
    ]
    assert tails.generated == pytest.approx(phi, abs=0.01)
    assert tails.significance.min() > 10


def test_the_control_is_the_floor(shifted, equal):
    for found in (shifted, equal):
        control = found.control
        assert control.control is None
        assert len(control.truth) == len(control.generated) == len(found.truth) // 2
        area, error = control.auc
        assert abs(area - 0.5) < 4 * error and control.width < 0.05
        assert not np.isin(control.truth.values[:, 0], control.generated.values[:, 0]).any()
    sizes = 1 / 20_000 + 1 / 10_000, 2 / 10_000
    assert equal.floor == pytest.approx(equal.control.width * (sizes[0] / sizes[1]) ** 0.5)
    # What is left of equal samples is the floor; single ones are at 0.4 to 1.4 times it.
    assert 0.5 < equal.width / equal.floor < 2
    assert shifted.width > 20 * shifted.floor
    assert "finds no difference" in equal.text()
    assert np.abs(equal.tails((0.95, 1.05)).significance).max() < 4


def test_further_true_events_for_the_control():
    truth, others, generated = normal(600, 0, 1), normal(900, 0, 2), normal(600, 1, 3)
    found = classifier_weights(truth, generated, method=TREES, progress=False, control=others)
    assert np.array_equal(found.control.generated.values, others.numpy())
    assert np.array_equal(found.control.truth.values, truth.numpy())
    with pytest.raises(ValueError, match="control: truth has 1 columns and control has 2"):
        classifier_weights(truth, generated, control=normal(10, columns=2))


class Moments:
    """Trains a discriminant by least squares in the columns, their squares and a product: fast."""

    check = staticmethod(lambda sizes, samples: None)
    describe = staticmethod(lambda: {"method": "moments"})
    history, kept_epoch = {"loss": np.zeros(1)}, 1

    @staticmethod
    def seen(x):
        return np.column_stack([np.ones(len(x)), x, x**2 - 1, x[:, 0] * x[:, -1]])

    def train(self, truth, generated, features, seed, label, missing=()):
        found, table = Moments(), self.seen(np.concatenate([truth.values, generated.values]))
        labels = np.repeat([1.0, -1.0], [len(truth), len(generated)])
        found.log_ratio = lambda events: 2 * self.seen(events.values) @ coefficients
        coefficients = np.linalg.lstsq(table, labels, rcond=None)[0]
        return found


@pytest.mark.parametrize("folds", [2, 5])
def test_significances_without_a_difference(folds):
    """Pairs of folds count twice: by up to sqrt(2) the area and the tails scatter more than their errors say."""
    z = []
    for seed in range(250):
        samples = normal(100, 0, 2 * seed, 3), normal(100, 0, 2 * seed + 1, 3)
        found = classifier_weights(*samples, method=Moments(), folds=folds, **QUICK)
        z.append([found.auc_significance, *found.tails((0.9, 1.1)).significance])
    spread = np.std(z, axis=0)
    assert np.all(spread < 1 + 3 * 500**-0.5) and np.all(spread > 0.72)  # 1 / sqrt(2) if they did not
    assert np.all(np.abs(np.mean(z, axis=0)) < 0.3)


class Seen:
    """A classifier that knows which events it was trained on: log w is 1 for them, and 0 for others."""

    history = {"loss": np.zeros(1)}
    kept_epoch = 1

    def __init__(self, rows):
        self.rows = rows

    def log_ratio(self, events):
        return torch.tensor([float(tuple(row) in self.rows) for row in events.values])


class Spy:
    """Trains :class:`Seen`."""

    def __init__(self):
        self.sizes = []

    def check(self, sizes, samples):
        self.sizes.append(sizes)

    def describe(self):
        return {"method": "spy"}

    def train(self, truth, generated, features, seed, label, missing=()):
        self.sizes.append((len(truth), len(generated)))
        return Seen({tuple(row) for sample in (truth, generated) for row in sample.values})


@pytest.mark.parametrize("folds", [2, 5])
def test_no_classifier_scores_an_event_that_it_has_seen(folds):
    spy = Spy()
    samples = normal(100, 0, 1), normal(53, 0, 2)
    found = classifier_weights(*samples, method=spy, folds=folds, **{**QUICK, "control": True})
    for each in (found, found.control):
        assert not each.log_w_truth.any() and not each.log_w_generated.any()
    assert len(found.classifiers) == folds
    for k, classifier in enumerate(found.classifiers):
        rows = {tuple(row) for row in found.truth.values[found.fold_truth != k]}
        rows |= {tuple(row) for row in found.generated.values[found.fold_generated != k]}
        assert classifier.rows == rows  # all others
    assert np.bincount(found.fold_truth).tolist() == [100 // folds] * folds
    # A classifier that had seen the events would show it here.
    assert found.classifiers[0].log_ratio(found.truth).sum() == 100 - 100 // folds


def test_an_overfitted_classifier_is_found_out():
    samples = normal(400, 0, 1, 10), normal(400, 0, 2, 10)
    learned = Network(hidden=(64, 64), epochs=60, lr=3e-3, schedule="constant", keep="last")
    found = classifier_weights(*samples, method=learned, **QUICK)
    assert found.overfitted and found.slope[0] < 0.3
    assert "overfitted" in found.text() and abs(found.auc[0] - 0.5) < 4 * found.auc[1]  # of which the AUC says nothing
    assert found.trainings.loss[:, -1].max() < 0.5 < 0.8 < found.trainings.validation_loss[:, -1].min()
    assert found.calibration().p_value < 1e-6
    mended = found.recalibrated("slope")
    assert not mended.overfitted and mended.width < 0.3 * found.width
    chosen = classifier_weights(*samples, method=dataclasses.replace(learned, keep="best"), **QUICK)
    assert chosen.width < 0.3 * found.width


@pytest.mark.parametrize("change", [lambda x: 1.3 * x, lambda x: 0.7 * x, lambda x: x + 0.1])
def test_a_broken_calibration_goes_red_and_is_mended(shifted, change):
    broken = dataclasses.replace(
        shifted, log_w_truth=change(shifted.log_w_truth), log_w_generated=change(shifted.log_w_generated)
    )
    curve = broken.calibration()
    assert curve.p_value < 1e-10 and curve.worst > 0.08
    assert "not calibrated" in broken.text() or "overfitted" in broken.text()
    for method in ("isotonic", "slope"):
        mended = broken.recalibrated(method)
        assert mended.calibration().p_value > 1e-3
        assert mended.auc[0] == pytest.approx(shifted.auc[0], abs=1e-3)
        assert mended.settings["recalibrated"] == method and not mended.classifiers
        assert mended.control.width < 0.05


def test_chi2_of_the_calibration_is_that_of_exact_weights():
    """Over 300 toys with the exact ratio, chi2/ndf is one and its p-value uniform, with and without weights."""
    rng = np.random.default_rng(5)
    for weighted in (False, True):
        values, p = [], []
        for _ in range(300):
            truth, generated = rng.normal(SHIFT, 1, 1500), rng.normal(0, 1, 3000)
            weights = [rng.exponential(size=len(x)) if weighted else np.ones(len(x)) for x in (truth, generated)]
            log_w = tuple(SHIFT * x - SHIFT**2 / 2 for x in (truth, generated))
            curve = calibration_curve(log_w, tuple(weights), 10)
            values.append(curve.chi2 / curve.ndf)
            p.append(curve.p_value)
        # chi2/ndf has a standard deviation of sqrt(2 / 9) = 0.47, its mean of 300 toys 0.027.
        assert np.mean(values) == pytest.approx(1, abs=0.1)
        assert 0.02 < np.mean(np.array(p) < 0.05) < 0.1  # 0.05 +- 0.0126


def test_quantiles_and_slope():
    x = np.array([3.0, 1.0, 2.0])
    assert weighted_quantiles(x, np.array([0.1, 0.5, 0.95]), np.array([1.0, 8.0, 1.0])).tolist() == [1, 1, 3]
    rng = np.random.default_rng(1)
    pair = tuple(2 * (SHIFT * rng.normal(mean, 1, 20_000) - SHIFT**2 / 2) + 0.3 for mean in (SHIFT, 0))
    factor, offset, error = straight_line(pair, (np.ones(20_000),) * 2)
    assert abs(factor - 0.5) < 4 * error < 0.1 and offset == pytest.approx(-0.15, abs=0.05)
    assert math.isnan(straight_line((np.zeros(3), np.zeros(3)), (np.ones(3),) * 2)[0])


def test_tails_and_histograms_of_known_weights(equal):
    w = np.array([0.1, 0.4, 0.9, 1.1, 3.0]), np.array([0.2, 0.3, 0.45, 1.0])
    found = ClassifierWeights(
        EventSample(np.zeros((5, 1)), weights=[1.0, 1, 1, 1, 4]),
        EventSample(np.zeros((4, 1))),
        *map(np.log, w),
        *(np.zeros(len(its)) for its in w),
        *(np.zeros(len(its), dtype=int) for its in w),
        trainings=equal.trainings,
    )
    tails = found.tails((0.5, 2.0, 5.0))
    assert tails.truth == pytest.approx([2 / 8, 4 / 8, 0]) and tails.generated == pytest.approx([3 / 4, 0, 0])
    # Unweighted: sqrt(p (1 - p) / n); no event: the error of one event.
    assert tails.generated_error == pytest.approx([(0.75 * 0.25 / 4) ** 0.5, 0.25, 0.25])
    inside = np.array([1, 1, 0, 0, 0]) - 2 / 8
    assert tails.truth_error[0] == pytest.approx(np.sqrt(np.sum((np.array([1, 1, 1, 1, 4]) / 8 * inside) ** 2)))
    assert tails.significance[0] == pytest.approx(
        0.5 / 2**0.5 / np.hypot(tails.truth_error[0], tails.generated_error[0])
    )
    histogram = found.histograms(3, (0, 3))
    assert histogram.edges.tolist() == [0, 1, 2, 3] and histogram.control is None
    assert histogram.truth == pytest.approx([3 / 8, 1 / 8, 4 / 8]) and histogram.generated == pytest.approx(
        [0.75, 0.25, 0]
    )
    assert histogram.truth_error == pytest.approx([3**0.5 / 8, 1 / 8, 4 / 8])
    for log in (False, True):
        histogram = equal.histograms(20, log=log)
        for part in (histogram.truth, histogram.generated, histogram.control):
            assert part.sum() == pytest.approx(1)


def test_weights_of_events_count():
    truth, generated = normal(20_000, 0.0, 1), normal(20_000, SHIFT, 2)
    ratio = torch.exp(SHIFT**2 / 2 - SHIFT * generated[:, 0])  # truth over generated
    for method in (TREES, SMALL):
        found = classifier_weights(truth, EventSample(generated, weights=ratio), method=method, **QUICK)
        assert abs(found.auc[0] - 0.5) < 4 * found.auc[1] and found.width < 0.06
        assert found.calibration().p_value > 1e-3


def test_negative_weights():
    # A surplus around 2 that negative weights take away again: what is left is N(0, 1).
    surplus = 2 + 0.5 * normal(8_000, seed=3)
    weights = np.concatenate([np.ones(24_000), -np.ones(4_000)])
    truth, generated = EventSample(torch.cat([normal(20_000, 0, 1), surplus]), weights=weights), normal(20_000, -0.5, 2)
    found = classifier_weights(truth, generated, method=SMALL, **QUICK)
    assert abs(found.auc[0] - best_auc(0.5)) < 4 * found.auc[1] + 0.003
    assert found.calibration().p_value > 1e-3 and found.recalibrated("slope").width > 0.3
    with pytest.raises(ValueError, match='negative weights; use method="slope"'):
        found.recalibrated()
    with pytest.raises(ValueError, match='truth has 4,000 negative weights of 28,000.*use method="network"'):
        classifier_weights(truth, generated, method="trees", **QUICK)


def test_observables_help_and_replace_nothing():
    truth, generated = normal(6_000, 0, 1, 2), normal(6_000, 0, 2, 2)
    generated[:, 1] = 0.8 * generated[:, 0] + 0.6 * generated[:, 1]
    alone = classifier_weights(truth, generated, features=lambda x: x[:, 1:], method=TREES, **QUICK)
    assert abs(alone.auc[0] - 0.5) < 4 * alone.auc[1]
    product = {"product": lambda x: x[:, 0] * x[:, 1]}
    both = classifier_weights(truth, generated, features=lambda x: x[:, 1:], observables=product, method=TREES, **QUICK)
    assert both.auc[0] > 0.6 and both.settings["observables"] == ["product"]
    assert both.classifiers[0].model.n_features_in_ == 2
    assert both.log_ratio(truth[:5]).shape == (5,)


@pytest.mark.parametrize("method", [TREES, Network(hidden=(16, 16), epochs=25, lr=1e-2)])
def test_objects_that_are_not_there(method):
    """Only the number of objects differs, 70 % of true and 30 % of generated events have two: AUC 0.7."""
    generator = torch.Generator().manual_seed(0)

    def made(share, n=4000):
        x = torch.randn(n, 3, generator=generator)
        x[torch.rand(n, generator=generator) > share, 2:] = math.nan
        return EventSample(x, multiplicity=Multiplicity(shared=1, each=1, most=2))

    samples = made(0.7), made(0.3)
    difference = {"difference": lambda x: x[:, 1] - x[:, 2]}
    found = classifier_weights(*samples, observables=difference, method=method, **QUICK)
    assert found.auc[0] == pytest.approx(0.7, abs=0.03)
    two = found.truth.counts == 2
    assert np.median(found.log_w_truth[two]) == pytest.approx(math.log(7 / 3), abs=0.15)
    assert np.median(found.log_w_truth[~two]) == pytest.approx(math.log(3 / 7), abs=0.15)


def test_a_single_event_without_an_object():
    """It is in one fold, whose classifiers have not seen any like it."""
    x = normal(300, 0, 1, 3).numpy()
    x[7, 2] = math.nan
    layout = Multiplicity(shared=1, each=1, most=2)
    found = classifier_weights(
        EventSample(x, multiplicity=layout),
        EventSample(normal(300, 0, 2, 3), multiplicity=layout),
        method=SMALL,
        **QUICK,
    )
    assert np.isfinite(found.log_w_truth).all() and found.classifiers[0].missing == [2]


def test_the_same_seed_gives_the_same_bits_and_global_randomness_stays():
    samples = normal(400, 0.3, 1), normal(300, 0, 2)
    quick, trees = Network(hidden=(4,), epochs=2), Trees(iterations=10, leaves=4)
    torch.manual_seed(5)
    before, numpy_before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    for method in (quick, trees):
        first, again, other = (
            classifier_weights(*samples, method=method, seed=seed, progress=False) for seed in (4, 4, 5)
        )
        for name in ("log_w_truth", "log_w_generated", "fold_truth", "spread_truth"):
            assert np.array_equal(getattr(first, name), getattr(again, name))
            assert np.array_equal(getattr(first.control, name), getattr(again.control, name))
        assert not np.array_equal(first.log_w_truth, other.log_w_truth)
        assert not np.array_equal(first.fold_truth, other.fold_truth)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)


def test_saved_and_loaded(tmp_path, equal):
    path = tmp_path / "weights.h5"
    equal.save(path)
    loaded = ClassifierWeights.load(path)
    for one, other in ((equal, loaded), (equal.control, loaded.control)):
        for field in ("log_w_truth", "log_w_generated", "spread_truth", "spread_generated", "fold_truth"):
            assert np.array_equal(getattr(one, field), getattr(other, field))
        assert np.array_equal(one.truth.values, other.truth.values) and one.truth.names == other.truth.names
        for field in ("loss", "validation_loss", "kept", "auc"):
            assert np.array_equal(getattr(one.trainings, field), getattr(other.trainings, field), equal_nan=True)
        assert one.settings == other.settings == json.loads(json.dumps(one.settings))
    assert loaded.text() == equal.text() and loaded.control.control is None
    with pytest.raises(ValueError, match="these weights have no classifiers"):
        loaded.log_ratio(normal(3, columns=2))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(pg.FileFormatError, match=r"weights\.h5"):
        ClassifierWeights.load(path)
    layout = Multiplicity(shared=1, each=1, most=2)
    values = np.where(np.arange(60)[:, None] % 2, [[1.0, 2.0, np.nan]], [[3.0, 4.0, 5.0]]) + normal(60).numpy()
    sample = EventSample(values, ("a", "b", "c"), ("", "GeV", "GeV"), np.ones(60), multiplicity=layout)
    other = EventSample(values + 1, sample.names, sample.units, np.ones(60), multiplicity=layout)
    classifier_weights(sample, other, method=Spy(), **QUICK).save(path)
    truth = ClassifierWeights.load(path).truth
    assert truth.multiplicity == layout and truth.units == sample.units and np.array_equal(truth.weights, np.ones(60))
    sample.save(tmp_path / "events.h5")
    with pytest.raises(
        pg.FileFormatError, match="is a pyrogen events file; expected a pyrogen classifier weights file"
    ):
        ClassifierWeights.load(tmp_path / "events.h5")


GOOD = np.random.default_rng(0).normal(size=(100, 2))
OTHER = np.random.default_rng(1).normal(size=(100, 2))
CONSTANT = np.column_stack([GOOD[:, 0], np.full(100, 3.0)])
HALF = np.where(np.arange(100) < 52, 1.0, -1.0)
NOWHERE = EventSample(np.column_stack([GOOD, np.full(100, np.nan)]), multiplicity=Multiplicity(1, 1, 2, least=1))


@pytest.mark.parametrize(
    ("truth", "generated", "options", "message"),
    [
        (GOOD, OTHER[:, :1], {}, "truth has 2 columns and generated has 1"),
        (EventSample(GOOD, ("a", "b")), EventSample(OTHER, ("b", "a")), {}, "in another order: b, a"),
        (CONSTANT, CONSTANT, {}, "x1 is 3 in all events of truth and generated"),
        (NOWHERE, NOWHERE, {}, "no event of truth and generated has x2"),
        (GOOD, OTHER, {"observables": {"m": lambda x: 0 * x[:, 0]}}, "m is 0 in all events"),
        (GOOD, OTHER, {"features": lambda x: 0 * x}, "feature 0 is 0 in all events"),
        (
            GOOD,
            OTHER,
            {"observables": {"m": lambda x: x}},
            r"observables\['m'\] of truth has shape \[100, 2\]; it must be one",
        ),
        (
            GOOD,
            OTHER,
            {"observables": {"m": lambda x: x[:, 0].log()}},
            r"observables\['m'\] of truth is NaN or infinite for \d+ of 100 .*Observable with missing=",
        ),
        (GOOD, OTHER, {"observables": ["m"]}, "observables is a list; it must be functions of events by name"),
        (GOOD[:15], OTHER, {}, "truth has 15 events for 2 folds; each needs at least 10, so give 20 events"),
        (GOOD, OTHER, {"folds": 11}, "truth has 100 events for 11 folds"),
        (GOOD, OTHER[:40], {}, "generated: of 20 training events 4 are for the validation part"),
        (GOOD, OTHER, {"tail": 0.01}, "truth is worth 100 events, of which a tail of 0.01 has 1; .* give 1,000 events"),
        (GOOD, EventSample(OTHER, weights=HALF), {"folds": 9}, "generated: the weights of fold .* must be positive"),
        (GOOD, OTHER, {"trained_on": np.r_[OTHER, GOOD[5:8]]}, "truth shares 3 of its 100 events .* is event 5"),
        (GOOD, OTHER, {"trained_on": torch.tensor(GOOD[90:]).float()}, "truth shares 10 of its 100 events"),
        (GOOD.astype(np.float32), OTHER, {"trained_on": GOOD}, "truth shares 100 of its 100 events"),
        (
            EventSample(GOOD, ("a", "b")),
            EventSample(OTHER, ("a", "b")),
            {"trained_on": EventSample(GOOD[:, ::-1], ("b", "a"))},
            "trained_on has them in another order: b, a",
        ),
        (EventSample(GOOD, ("a", "b")), EventSample(OTHER, ("b", "c")), {}, "columns a, b, generated has b, c"),
        (
            EventSample(GOOD, ("a", "b"), ("GeV", "")),
            EventSample(OTHER, ("a", "b"), ("MeV", "")),
            {},
            "a is in GeV in truth and in MeV in generated",
        ),
        (GOOD, np.r_[OTHER, GOOD[2:30]], {}, "generated shares 28 events with truth, the first is event 2 of truth"),
        (GOOD, OTHER, {"control": GOOD[1:]}, "control: control shares 99 events with truth"),
        (GOOD, OTHER, {"observables": {"m": lambda x: torch.complex(x[:, 0], x[:, 1])}}, "of truth is complex"),
        (GOOD, OTHER, {"trained_on": GOOD[:, :1]}, "trained_on must have 2 columns"),
        (GOOD, OTHER, {"method": "forest"}, 'method is \'forest\'; it must be "network", "trees", or settings'),
        (GOOD, OTHER, {"method": Network}, "method is <class"),
        (GOOD, OTHER, {"folds": 1}, "folds is 1"),
        (GOOD, OTHER, {"ensemble": 0}, "ensemble is 0"),
        (GOOD, OTHER, {"control": "yes"}, "control: .*'yes'"),
        (GOOD, OTHER, {"tail": 1.0}, "tail is 1.0"),
    ],
)
def test_bad_input_is_named_before_any_training(truth, generated, options, message, monkeypatch):
    monkeypatch.setattr(torch.optim, "Adam", None)
    with pytest.raises((ValueError, TypeError), match=message):
        classifier_weights(truth, generated, **{"progress": False} | options)


def test_discrete_events_are_alike_by_chance():
    rng = np.random.default_rng(0)
    truth, generated = rng.poisson(5, (300, 3)), rng.poisson(5, (300, 3))
    alike = {tuple(row) for row in truth} & {tuple(row) for row in generated}
    assert len(alike) > 20
    classifier_weights(truth, generated, method=Spy(), **QUICK)


@pytest.mark.parametrize(
    ("names", "units", "message"),
    [
        (("b", "a"), ("", ""), "events has them in another order: b, a"),
        (("a", "c"), ("", ""), "truth has the columns a, b, events has a, c"),
        (("a", "b"), ("MeV", ""), "a is in GeV in truth and in MeV in events"),
        (("a", "b", "c"), ("", "", ""), "truth has 2 columns and events has 3"),
    ],
)
def test_further_events_have_the_same_columns(names, units, message):
    truth, generated = (EventSample(normal(60, 0, i, 2), ("a", "b"), ("GeV", "")) for i in (1, 2))
    found = classifier_weights(truth, generated, method=Spy(), **QUICK)
    further = EventSample(normal(5, 0, 3, len(names)), names, units)
    for use in (found.log_ratio, lambda events: pg.diagnostics.reweight(found, events)):
        with pytest.raises(ValueError, match=message):
            use(further)


def test_functions_may_change_the_events_that_they_are_given():
    def in_place(x):
        return x[:, 0].mul_(0) + x[:, 1]

    found = [
        classifier_weights(normal(200, 0, 1, 2), normal(200, 0, 2, 2), observables={"m": f}, method=TREES, **QUICK)
        for f in (in_place, lambda x: x[:, 1])
    ]
    assert np.array_equal(found[0].log_w_truth, found[1].log_w_truth)


def test_classifiers_that_found_nothing_to_split():
    nothing = Trees(iterations=2, smallest_leaf=90)
    found = classifier_weights(normal(100, 0, 1), normal(100, 0, 2), method=nothing, **QUICK)
    assert np.ptp(np.concatenate(found.log_w)) == 0
    assert found.auc_significance == 0 and "finds no difference" in found.text()
    found = classifier_weights(
        normal(300, 0, 1), normal(300, 0, 2), method=Trees(iterations=2, smallest_leaf=70), **QUICK | {"control": True}
    )
    assert found.floor == 0 and "the control's classifiers found nothing to learn" in found.text()


def test_samples_that_do_not_overlap():
    found = classifier_weights(normal(300, 0, 1), normal(200, 30, 2), method=TREES, **QUICK)
    assert found.auc_significance == math.inf and "AUC 1, they do not overlap" in found.text()
    assert "The weights cannot be checked" in found.text() and "recalibrated" not in found.text()
    assert plot_classifier_weights(found).axes[3].get_legend().get_texts()[0].get_text() == "AUC 1.000"
    tails = found.tails((0.9, 1.1))
    assert list(tails.generated) == pytest.approx([1, 0]) and list(tails.truth) == pytest.approx([0, 1])
    # All events are as uncertain as none: one of 200, and one of 300.
    assert np.allclose(tails.generated_error, 1 / 200) and np.allclose(tails.truth_error, 1 / 300)


def test_the_training_sample_is_known_by_its_digest():
    events = EventSample(normal(60, 0, 1, 2), weights=np.linspace(1, 2, 60))
    model = pg.BayesianFlow(pg.CouplingFlow(2, blocks=1, hidden=(4,)))
    posterior = pg.SVI(epochs=1, progress=False).fit(model, events)
    generated = normal(60, 0, 2, 2)
    with pytest.raises(ValueError, match="truth is the sample that the generator was trained on"):
        classifier_weights(events, generated, trained_on=posterior)
    with pytest.raises(ValueError, match="truth is the sample that the generator was trained on"):
        classifier_weights(events, posterior.generate(60))  # which tells it
    found = classifier_weights(normal(60, 0, 3, 2), generated, trained_on=posterior, method=Spy(), **QUICK)
    assert len(found.truth) == 60


def test_network_of_the_paper():
    paper = Network.paper()
    assert (paper.hidden, paper.dropout, paper.lr, paper.batch_size, paper.epochs) == ((256,) * 5, 0.1, 1e-3, 1024, 50)
    assert (paper.schedule, paper.decay, paper.patience) == ("plateau", 0.1, 5)
    assert json.loads(json.dumps(paper.describe())) == paper.describe()


def test_dropout_and_plateau():
    samples = normal(200, 0, 1, 5), normal(200, 0, 2, 5)
    settings = {"hidden": (8,), "epochs": 30, "batch_size": 64, "lr": 3e-2, "progress": False}
    plain, noisy = (train_classifier(*samples, **settings, dropout=share) for share in (0.0, 0.5))
    x = samples[0][:20]
    assert torch.equal(noisy.log_ratio(x), noisy.log_ratio(x))  # switched off behind the training
    assert noisy.history["loss"][-1] > plain.history["loss"][-1] + 0.01  # on in the training
    settings["epochs"] = 60
    late = [
        np.ptp(train_classifier(*samples, **settings, schedule=schedule).history["validation_loss"][-5:])
        for schedule in ("plateau", "constant")
    ]
    # Nothing can be learned, so the learning rate has fallen by many powers of ten.
    assert late[0] < 1e-5 and late[1] > 1e-3


def test_figure_of_the_weights(equal, shifted):
    for found in (equal, shifted, dataclasses.replace(equal, control=None)):
        figure = plot_classifier_weights(found, title="a title")
        linear, _, tails, roc, calibration, losses = figure.axes
        curve = found.calibration()
        assert calibration.lines[1].get_xydata() == pytest.approx(np.stack([curve.w, curve.ratio], 1))
        area, error = found.auc
        labels = [text.get_text() for text in roc.get_legend().get_texts()]
        assert labels[-1] == f"AUC {with_error(area, error)}" and len(labels) == 1 + (found.control is not None)
        drawn = [text.get_text() for text in linear.get_legend().get_texts()]
        assert ("truth vs truth" in drawn) == (found.control is not None)
        assert losses.get_xlabel() == ("epoch" if found is shifted else "number of trees")
        assert [text.get_text() for text in tails.get_xticklabels()][0] == "$w < 0.5$"


def test_recalibration_is_by_the_events_of_the_other_folds():
    rng = np.random.default_rng(2)
    fold = np.arange(20_000) % 2
    exact = [SHIFT * rng.normal(mean, 1, 20_000) - SHIFT**2 / 2 for mean in (SHIFT, 0)]
    pair = tuple(np.where(fold == 0, 2.0, 1.0) * x for x in exact)  # those of fold 0 are too extreme
    for method in ("slope", "isotonic"):
        found = recalibrated(pair, (np.ones(20_000),) * 2, (fold, fold), method)
        for its, x in zip(found, exact, strict=True):
            middle = np.abs(x) < 0.7
            for k, factor in ((0, 2.0), (1, 0.5)):  # each has got the curve of the other
                rows = (fold == k) & middle & (np.abs(2 * x) < 0.9)
                assert np.polyfit(x[rows], its[rows], 1)[0] == pytest.approx(factor, rel=0.25)  # its own curve: 1


def rescaled(factor, noise=0.0, n=20_000):
    """Exact weights of two Gaussians, with their logarithm times a factor and noise of a classifier."""
    rng = np.random.default_rng(8)
    samples = [EventSample(x) for x in (normal(n, SHIFT, 1), normal(n, 0, 2))]
    log_w = [factor * (SHIFT * x.values[:, 0] - SHIFT**2 / 2) + noise * rng.normal(size=n) for x in samples]
    trainings = Trainings(np.zeros((2, 1)), np.zeros((2, 1)), np.ones(2, dtype=np.int64), np.full(1, 0.5))
    return ClassifierWeights(*samples, *log_w, *(np.full(n, np.nan),) * 2, *(np.arange(n) % 2,) * 2, trainings)


@pytest.mark.parametrize(
    ("factor", "noise", "verdict", "words"),
    [
        (1.0, 0.0, "calibrated", "The weights are calibrated"),
        (
            0.0,
            0.1,
            "unconfirmed",
            r"Other events do not confirm the weights \(slope .* They scatter by (9.9|10.0)% around",
        ),
        (0.0, 0.5, "overfitted", "The classifier is overfitted"),
        (1.7, 0.0, "overfitted", "should be 0.5"),
        (0.6, 0.0, "not calibrated", "The weights are not calibrated, by"),
        (0.97, 0.0, "close", "The weights are right within"),
        (0.0, 0.0, "unchecked", "cannot be checked"),
    ],
)
def test_verdicts(factor, noise, verdict, words):
    """Of log-weights that are off by a factor, or nothing but noise."""
    n = 250_000 if verdict == "close" else 20_000
    found = rescaled(factor, noise, n)
    assert found.verdict == verdict and re.search(words, found.text())


def test_weights_of_few_events_are_not_called_calibrated():
    """p-value and slope of weights that are noise let them pass: nothing confirms them either."""
    verdicts = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        found = rescaled(0.0, 0.05, 400)
        true, made = (0.05 * rng.normal(size=400) for _ in range(2))
        verdicts.append(dataclasses.replace(found, log_w_truth=true, log_w_generated=made).verdict)
    assert verdicts.count("unconfirmed") >= 35  # 39.1 are expected: above two errors by chance in 2.3 %
