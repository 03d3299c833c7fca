"""The classifier between truth and generated events, where the best one is known."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import softplus

from pyrogen import EventSample
from pyrogen.classifier import LARGEST_LOG_RATIO
from pyrogen.diagnostics import Classifier, classifier_test, roc_auc, train_classifier
from pyrogen.diagnostics.classifier_samples import random_split
from pyrogen.events import Multiplicity
from pyrogen.inference import TrainingDivergedError

QUICK = {"epochs": 10, "lr": 3e-3, "hidden": (32, 32), "progress": False}


def normal(n, mean=0.0, seed=0, columns=1):
    return torch.randn(n, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + mean


def best_auc(delta):
    """Phi(delta / sqrt 2), for unit Gaussians that are delta apart."""
    return 0.5 * (1 + math.erf(delta / 2))


@pytest.mark.parametrize("delta", [0.2, 1.0])
def test_two_gaussians(delta):
    result = classifier_test(normal(40_000, delta, 1), normal(40_000, 0, 2), trainings=2, **QUICK)
    assert result.auc.shape == result.error.shape == (2,)
    assert result.held_out == (20_000, 20_000)
    # DeLong's variance of the best classifier is at most A (1 - A) / n; here it is a factor of two to three less.
    assert np.all(result.error < np.sqrt(best_auc(delta) * (1 - best_auc(delta)) / 20_000))
    assert np.all(result.auc < best_auc(delta) + 4 * result.error)  # no classifier is better than the best one
    assert np.all(result.auc > best_auc(delta) - 4 * result.error - 0.003)
    assert result.mean == result.auc.mean()
    assert result.spread == pytest.approx(abs(result.auc[0] - result.auc[1]) / 2**0.5)
    assert f"AUC {result.mean:.4f} +- {result.statistical:.4f}" in result.text()
    assert "spread of 2 trainings" in result.text()


def test_the_same_distribution_is_not_told_apart():
    result = classifier_test(normal(20_000, seed=1, columns=2), normal(10_000, seed=2, columns=2), **QUICK)
    assert len(result.auc) == len(result.classifiers) == 3
    assert np.all(np.abs(result.auc - 0.5) < 4 * result.error)
    # For equal distributions the variance is that of the rank sum, (m + n + 1) / (12 m n).
    assert result.error == pytest.approx(np.sqrt(15_001 / (12 * 10_000 * 5_000)), rel=0.03)
    assert len({auc.item() for auc in result.auc}) == 3  # other splits and other networks


def test_weights_count():
    truth, generated = normal(30_000, 0.0, 1), normal(30_000, 0.5, 2)
    weights = torch.exp(0.125 - 0.5 * generated[:, 0])  # truth over generated
    weighted = classifier_test(truth, EventSample(generated, weights=weights), trainings=1, **QUICK)
    assert abs(weighted.mean - 0.5) < 4 * weighted.statistical
    x = torch.linspace(-1.5, 1.5, 7, dtype=torch.float64)[:, None]
    assert weighted.log_ratio(x).abs().max() < 0.15  # the training knew the weights, and of which events they are
    plain = classifier_test(truth, generated, trainings=1, **QUICK)
    assert plain.mean > best_auc(0.5) - 4 * plain.statistical - 0.003 > 0.62
    assert math.isnan(plain.spread)
    other_way = classifier_test(EventSample(truth, weights=1 / weights.clamp(0.1)), generated, trainings=1, **QUICK)
    assert other_way.mean > 0.55  # weights of truth, for the wrong events


def test_a_correlation_with_the_same_marginals_is_seen():
    truth = normal(20_000, seed=1, columns=2)
    generated = normal(20_000, seed=2, columns=2)
    generated[:, 1] = 0.6 * generated[:, 0] + 0.8 * generated[:, 1]
    result = classifier_test(truth, generated, trainings=1, **QUICK)
    assert result.mean > 0.62
    ratio = classifier_test(truth, generated, trainings=1, features=lambda x: x[:, :1] * x[:, 1:], **QUICK)
    assert 0.55 < ratio.mean < result.mean + 4 * result.statistical
    alone = classifier_test(truth, generated, trainings=1, features=lambda x: x[:, 1:], **QUICK)
    assert abs(alone.mean - 0.5) < 4 * alone.statistical


def test_few_events_far_out_do_not_blind_it():
    truth, generated = normal(10_000, 1.0, 1, 2), normal(10_000, 0.0, 2, 2)
    generated[:5] = torch.tensor([1e9, -1e12])
    result = classifier_test(truth, generated, trainings=1, **QUICK)
    assert result.mean > best_auc(2**0.5) - 4 * result.statistical - 0.005


def test_log_ratio_of_two_gaussians():
    x = torch.linspace(-1.5, 2.5, 9, dtype=torch.float64)[:, None]
    # Samples of different sizes and total weights: the ratio is that of the normalised densities.
    generated = EventSample(normal(40_000, 0, 2), weights=np.full(40_000, 7.0))
    classifier = train_classifier(normal(80_000, 1, 1), generated, **QUICK)
    exact = x[:, 0] - 0.5
    assert (classifier.log_ratio(x) - exact).abs().max() < 0.15
    assert torch.equal(classifier.log_ratio(EventSample(x)), classifier.log_ratio(x.numpy()))
    assert classifier.log_ratio(x).dtype == torch.float64
    loss = classifier.history["validation_loss"]
    assert len(loss) == len(classifier.history["loss"]) == 10
    assert classifier.kept_epoch == loss.argmin() + 1
    grid = torch.linspace(-8, 10, 2001, dtype=torch.float64)
    least = torch.trapezoid(torch.exp(-0.5 * (grid - 1) ** 2) * softplus(0.5 - grid), grid) / math.sqrt(2 * math.pi)
    assert loss.min() == pytest.approx(least.item(), abs=0.015)  # 3 sigma of 24,000 validation events
    shifted = x.clone().requires_grad_()
    classifier(shifted).sum().backward()  # a generator can learn from it
    assert (shifted.grad - 1).abs().mean() < 0.2


def test_weights_of_a_result_are_those_of_all_its_classifiers():
    x = normal(50, 0.5, 3)
    result = classifier_test(normal(1000, 1, 1), normal(1000, 0, 2), trainings=2, **QUICK)
    mean = sum(classifier.log_ratio(x) for classifier in result.classifiers) / 2
    torch.testing.assert_close(result.log_ratio(x), mean)
    torch.testing.assert_close(result.weights(x), mean.exp())


def test_negative_weights():
    # A surplus around 2 that negative weights take away again: what is left is N(0, 1).
    surplus = 2 + 0.5 * normal(8_000, seed=3)
    weights = np.concatenate([np.ones(24_000), -np.ones(4_000)])
    truth = EventSample(torch.cat([normal(20_000, 0, 1), surplus]), weights=weights)
    result = classifier_test(truth, normal(20_000, -0.5, 2), trainings=2, **QUICK)
    assert np.all(np.abs(result.auc - best_auc(0.5)) < 4 * result.error + 0.003)
    assert np.all(result.error > 0.0034)  # of 10,000 effective events each, and of 8,000 by which weights are doubled


def test_negative_weights_do_not_diverge():
    # Few events in many columns, so that the network can send each negative weight where it likes.
    rng = np.random.default_rng(1)
    weights = np.where(rng.random(200) < 0.4, -1.0, 1.0)
    truth, generated = normal(200, seed=1, columns=20), normal(200, seed=2, columns=20)
    classifier = train_classifier(
        EventSample(truth, weights=weights),
        EventSample(generated, weights=weights),
        epochs=300,
        lr=1e-2,
        progress=False,
    )
    assert np.isfinite(classifier.history["loss"]).all()
    # Every event costs at most b per unit of weight, whose mean absolute value is 200 / (sum of weights) times 1.
    assert classifier.history["loss"].min() > -LARGEST_LOG_RATIO * 200 / weights.sum() * 1.5
    assert classifier.log_ratio(100 * truth).abs().max() <= LARGEST_LOG_RATIO


def test_the_area_against_all_pairs_with_ties_and_weights():
    rng = np.random.default_rng(2)
    for signs in ((1.0, 1.0), (-0.3, 1.0)):
        s, t = rng.integers(0, 8, 60).astype(float), rng.integers(-1, 7, 45).astype(float)
        w, v = (rng.exponential(size=len(x)) * rng.choice(signs, len(x)) for x in (s, t))
        pairs = (s[:, None] > t) + 0.5 * (s[:, None] == t)
        area, error = roc_auc(s, t, w, v)
        assert area == pytest.approx(w @ pairs @ v / (w.sum() * v.sum()), rel=1e-12)
        assert error > 0
    # DeLong's formula for unweighted events, and equal weights are none.
    area, error = roc_auc(s, t)
    assert area == pytest.approx(pairs.mean(), rel=1e-12)
    variance = pairs.mean(1).var(ddof=1) / len(s) + pairs.mean(0).var(ddof=1) / len(t)
    assert error == pytest.approx(variance**0.5, rel=1e-12)
    assert roc_auc(s, t, np.full(60, 3.0), np.full(45, 0.1)) == pytest.approx((area, error), rel=1e-12)
    assert roc_auc([2.0, 3.0], [0.0, 1.0]) == (1.0, 0.0)


@pytest.mark.parametrize("kind", ["none", "positive", "both signs"])
def test_the_error_of_the_area_is_its_spread_over_samples(kind):
    rng = np.random.default_rng(3)
    areas = []
    for _ in range(500):
        weights = []
        for n in (200, 100):
            w = {"none": np.ones(n), "positive": rng.exponential(size=n)}.get(kind)
            weights.append(rng.choice([-1.0, 1.0], n, p=[0.15, 0.85]) if w is None else w)
        areas.append(roc_auc(rng.normal(0.7, 1, 200), rng.normal(0, 1, 100), *weights))
    area, error = np.array(areas).T
    assert abs(area.mean() - best_auc(0.7)) < 4 * area.std() / 500**0.5
    # The spread of 500 areas is known to 1 / sqrt(1000) = 3 %.
    assert np.sqrt(np.mean(error**2)) == pytest.approx(area.std(), rel=0.13)


def test_the_same_seed_gives_the_same_bits_and_global_randomness_stays():
    truth, generated = normal(500, 0.3, 1), normal(500, 0, 2)
    torch.manual_seed(5)
    before, numpy_before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    first = classifier_test(truth, generated, seed=4, **QUICK)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)
    torch.manual_seed(6)
    again = classifier_test(truth.numpy(), EventSample(generated), seed=4, **QUICK)
    assert np.array_equal(first.auc, again.auc)
    assert np.array_equal(first.error, again.error)
    assert torch.equal(first.log_ratio(truth), again.log_ratio(truth))
    assert not np.array_equal(first.auc, classifier_test(truth, generated, seed=5, **QUICK).auc)


def test_a_split_shares_no_event():
    rest, part = random_split("truth", EventSample(normal(101)), 0.3, "held-out")
    assert len(part) == 30
    assert torch.equal(torch.cat([rest, part]).sort()[0], torch.arange(101))


def test_the_best_epoch_is_kept():
    truth, generated, fresh = (normal(200, seed=i, columns=20) for i in (1, 2, 3))
    classifier = train_classifier(truth, generated, epochs=100, lr=1e-2, progress=False)
    loss = classifier.history["validation_loss"]
    assert loss[-1] > 3 > 0.75 > loss.min()  # it learned its events by heart
    assert classifier.kept_epoch == loss.argmin() + 1 < 10
    assert classifier.log_ratio(fresh).abs().mean() < 1


def test_it_trains_long_enough_by_itself_and_takes_constant_columns():
    truth, generated = (torch.cat([normal(300, mean, 1), torch.full((300, 1), 3.0)], 1) for mean in (3, 0))
    classifier = train_classifier(truth, generated, progress=False)
    assert len(classifier.history["loss"]) == 3000
    assert isinstance(classifier, Classifier)
    assert (classifier.log_ratio(truth) > 0).double().mean() > 0.9


GOOD = np.random.default_rng(0).normal(size=(100, 2))
BAD = GOOD.copy()
BAD[7, 1] = np.nan
HALF = np.where(np.arange(100) < 52, 1.0, -1.0)  # sums to 4: that of no half is sure to be positive


@pytest.mark.parametrize(
    ("truth", "generated", "options", "message"),
    [
        (BAD, GOOD, {}, "truth: 1 of 100 rows hold NaN or infinity; the first is row 7"),
        (GOOD, GOOD[:0], {}, "generated: empty sample"),
        (GOOD[:, 0], GOOD, {}, r"truth must have shape \[N, d\]"),
        (GOOD, GOOD[:, :1], {}, "truth has 2 columns and generated has 1"),
        (EventSample(GOOD, ("a", "b")), EventSample(GOOD, ("b", "a")), {}, "in another order: b, a"),
        (
            GOOD[:30],
            GOOD,
            {},
            "truth: of 15 training events 3 are for the validation part and 12 are left; both need at least 10",
        ),
        (GOOD, GOOD, {"held_out": 0.95}, "truth: of 100 events 95 are for the held-out part and 5 are left"),
        (GOOD, EventSample(GOOD, weights=HALF), {"trainings": 9}, "generated: the weights of the .* positive sum"),
        (GOOD, GOOD, {"held_out": 1}, "held_out is 1; it must be between 0 and 1"),
        (GOOD, GOOD, {"trainings": 0}, "trainings is 0"),
        (GOOD, GOOD, {"hidden": 64}, "hidden is 64; it must be the widths"),
        (GOOD, GOOD, {"hidden": (8, 0)}, "hidden is 0"),
        (GOOD, GOOD, {"epochs": 0}, "epochs is 0"),
        (GOOD, GOOD, {"lr": 0.0}, "lr is 0.0; it must be positive"),
        (GOOD, GOOD, {"seed": -1}, "seed is -1"),
        (GOOD, GOOD, {"features": "mass"}, "features is 'mass'; it must be a function"),
        (GOOD, GOOD, {"features": lambda x: x[:, 0]}, r"features\(truth\) is \[100\]; it must be a tensor \[100, k\]"),
        (GOOD, GOOD, {"features": lambda x: x.log()}, r"features\(truth\): .* rows hold NaN"),
    ],
)
def test_bad_input_is_named_before_any_training(truth, generated, options, message, monkeypatch):
    monkeypatch.setattr(torch.optim, "Adam", None)
    with pytest.raises((ValueError, TypeError), match=message):
        classifier_test(truth, generated, **options, progress=False)


def test_what_can_not_be_learned_is_said():
    with pytest.raises(TrainingDivergedError, match="try a smaller lr"):
        train_classifier(normal(200, 1), normal(200), lr=1e37, progress=False)
    with pytest.raises(ValueError, match="variable 0 of what the classifier sees has width"):
        train_classifier(np.where(GOOD > 1.5, 1e200, 0), np.zeros((100, 2)), progress=False)
    with pytest.raises(ValueError, match="truth_scores has shape"):
        roc_auc([math.nan], [1.0])
    with pytest.raises(ValueError, match="sum of the weights must be positive"):
        roc_auc([1.0, 2.0], [1.0], [1.0, -1.0])


def test_objects_that_are_not_there_are_seen_by_flags():
    """Only the number of objects differs, 70 % of true and 30 % of generated events have two: AUC 0.7."""
    generator = torch.Generator().manual_seed(0)

    def made(share, n=4000):
        x = torch.randn(n, 3, generator=generator)
        x[torch.rand(n, generator=generator) > share, 2:] = math.nan
        return EventSample(x, multiplicity=Multiplicity(shared=1, each=1, most=2))

    truth, generated = made(0.7), made(0.3)
    between = [None, lambda x: torch.cat([x, x[:, 1:2] - x[:, 2:3]], 1)]
    for features, missing in zip(between, ([2], [2, 3]), strict=True):
        found = classifier_test(truth, generated, features=features, trainings=1, **QUICK)
        # On 2,000 held-out events of each class a share has an error of 0.01, and so has the AUC.
        assert found.mean == pytest.approx(0.7, abs=0.04) and found.classifiers[0].missing == missing
        ratio = found.log_ratio(truth).numpy()
        assert ratio[truth.counts == 2].mean() > 0.3 and ratio[truth.counts == 1].mean() < -0.3  # log 7/3 at best
    with pytest.raises(ValueError, match="truth has the layout .* and generated has None"):
        classifier_test(truth, torch.zeros(50, 3), trainings=1)


def test_events_that_the_classifier_cannot_judge_are_told():
    x = torch.randn(60, 2)
    sample = EventSample(x, ["a", "b"])
    quick = {"epochs": 1, "hidden": (4,), "progress": False}
    classifier = train_classifier(sample, x + 1, **quick)
    for events, message in (
        (EventSample(x, ["b", "a"]), "the training has the columns a, b, the events has them in another order"),
        (torch.randn(5, 3), r"the classifier sees 2 variables; these events give \[5, 3\]"),
    ):
        with pytest.raises(ValueError, match=message):
            classifier.log_ratio(events)
    layout = Multiplicity(1, 1, 1, least=0)
    fewer = EventSample([[1.0, 2.0], [1.0, math.nan]], multiplicity=layout)
    with pytest.raises(ValueError, match="log-ratio of 1 of 2 events is nan, the first of them event 1: there is NaN"):
        train_classifier(x, x + 1, **quick).log_ratio(fewer)
    with pytest.raises(ValueError, match="variable 1 of what the classifier sees is NaN in all of"):
        both = EventSample(torch.cat([x, x]), multiplicity=layout)
        train_classifier(both, both, features=lambda x: torch.stack([x[:, 0], x[:, 1] * math.nan], 1), **quick)


def test_the_error_of_the_area_of_one_event_is_not_known():
    assert roc_auc([1.0], [0.0, 2.0]) == (0.5, math.inf)
    assert roc_auc(torch.tensor([1.0, 2.0], requires_grad=True), [0.0, 1.5])[0] == 0.75
