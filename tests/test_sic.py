"""Significance improvement curves: two Gaussians, for which they are known, and what is refused."""

import numpy as np
import pytest
from scipy.stats import norm

from pyrogen.plotting import plot_sic
from pyrogen.search import SicCurves, sic_curve

SHIFT, S, B = 2.0, 20_000, 40_000


def gaussians(seed=1, s=S, b=B):
    rng = np.random.default_rng(seed)
    return rng.normal(SHIFT, 1, s), rng.normal(0, 1, b)


def test_two_gaussians_have_the_curve_that_is_known():
    curve = sic_curve(*gaussians())
    eps_s, eps_b = norm.sf(curve.threshold - SHIFT), norm.sf(curve.threshold)
    # A cut of rank k is at a random place; at a fixed cut both efficiencies are binomial.
    assert (np.abs(curve.signal_efficiency - eps_s) < 4 * np.sqrt(eps_s * (1 - eps_s) / S) + 1e-12).all()
    assert (np.abs(curve.background_efficiency - eps_b) < 5 * np.sqrt(eps_b * (1 - eps_b) / B) + 2 / B).all()
    assert np.allclose(curve.signal_error, np.sqrt(eps_s * (1 - eps_s) / S), rtol=0.05, atol=1e-4)
    pull = (curve.sic - eps_s / np.sqrt(eps_b))[:-1] / curve.sic_error[:-1]
    assert np.abs(pull).max() < 5
    x = np.linspace(0, 3, 301)
    best = (norm.sf(x - SHIFT) / np.sqrt(norm.sf(x))).max()
    assert abs(curve.maximum - best) < 4 * curve.maximum_error


def test_errors_are_the_spread_over_samples_at_a_fixed_cut():
    curves = [sic_curve(*gaussians(seed, 500, 1_000)) for seed in range(200)]
    values, errors = (
        np.array([np.interp(-1.5, -curve.threshold, getattr(curve, name)) for curve in curves])
        for name in ("sic", "sic_error")
    )
    assert values.std(ddof=1) == pytest.approx(errors.mean(), rel=4 / np.sqrt(2 * 200))


def test_no_cut_leaves_fewer_background_events_than_least():
    signal, background = gaussians()
    for least in (25, 400):
        curve = sic_curve(signal, background, least=least)
        assert round(curve.background_efficiency[0] * B) == least
        assert (np.diff(curve.background_efficiency) > 0).all() and (np.diff(curve.signal_efficiency) >= 0).all()
    assert curve.background_efficiency[-1] == 1 and curve.least == 400
    assert len(curve.threshold) <= 500


def test_events_of_the_same_score_are_cut_together():
    curve = sic_curve([1.0, 2.0, 2.0], [0.0, 1.0, 1.0, 2.0], least=1)
    assert curve.threshold.tolist() == [2, 1, 0]
    assert np.allclose(curve.signal_efficiency, [2 / 3, 1, 1])
    assert np.allclose(curve.background_efficiency, [1 / 4, 3 / 4, 1])
    assert np.allclose(curve.sic, [4 / 3, 2 / np.sqrt(3), 1])


def test_weights_count():
    """Weights turn the background at 0.5 into that at 0, and weights of 2 change nothing."""
    signal, background = gaussians()
    shifted = background + 0.5
    weights = np.exp(0.125 - 0.5 * shifted)
    curve = sic_curve(signal, shifted, background_weights=weights)
    pull = (curve.background_efficiency - norm.sf(curve.threshold))[:-1] / curve.background_error[:-1]
    assert np.abs(pull).max() < 5
    plain, doubled = sic_curve(signal, background), sic_curve(signal, background, signal_weights=np.full(S, 2.0))
    assert np.allclose(plain.signal_efficiency, doubled.signal_efficiency)
    assert np.allclose(plain.signal_error, doubled.signal_error)
    assert np.allclose(plain.signal_error**2, plain.signal_efficiency * (1 - plain.signal_efficiency) / S)


def test_several_trainings():
    curves = [sic_curve(*gaussians(seed, 500, 1_000)) for seed in range(4)]
    them = SicCurves(curves)
    assert np.array_equal(them.maxima, [curve.maximum for curve in curves])
    assert them.maximum == (them.maxima.mean(), them.maxima.std(ddof=1))
    for name in ("at_signal", "at_background"):
        mean, spread = getattr(them, name)([0.6, 0.8])
        each = np.array([getattr(curve, name)([0.6, 0.8]) for curve in curves])
        assert np.allclose(mean, each.mean(0)) and np.allclose(spread, each.std(0, ddof=1))
    assert np.isnan(them.at_background([0.001])[0]).all()  # one event of 1,000
    assert np.isnan(SicCurves(curves[:1]).maximum[1])
    assert "over 4 trainings" in repr(them) and "cuts" in repr(curves[0])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"signal": []}, "signal has no events"),
        ({"background": []}, "background has no events"),
        ({"signal": [1.0, np.nan]}, "signal is nan in 1 of 2 events, first 1"),
        ({"background": np.ones(24)}, "background is worth 24 events; a cut must leave least=25"),
        ({"signal_weights": [1.0]}, r"signal_weights has the shape \[1\]; signal has 2"),
        ({"signal_weights": [1.0, -1.0]}, "signal_weights are -1 to 1; they must be at least 0"),
        ({"background_weights": np.zeros(30)}, "background_weights are 0 to 0"),
    ],
)
def test_bad_scores_are_refused_by_name(arguments, text):
    with pytest.raises(ValueError, match=text):
        sic_curve(**{"signal": [1.0, 2.0], "background": np.arange(30.0)} | arguments)


def test_curves_must_be_curves():
    for wrong in ([], [1], 3):
        with pytest.raises((ValueError, TypeError), match="curves"):
            SicCurves(wrong)


def test_no_cut_of_weighted_events_is_worth_less_than_least():
    """Thirty events of weight one, and a heavy one behind them: cuts that let it pass are worth one event."""
    weights = np.concatenate([np.ones(30), [1000.0], np.ones(29)])
    curve = sic_curve(np.arange(60.0), np.arange(60.0)[::-1], background_weights=weights)
    assert curve.threshold.min() == 30 and curve.threshold.max() == 35
    assert (curve.background_error < curve.background_efficiency).sum() == 6
    with pytest.raises(ValueError, match="background is worth 1.* events behind the best cut"):
        sic_curve(np.ones(5), np.zeros(60), background_weights=weights)


def test_a_score_that_is_the_same_for_all_events_can_be_drawn(recwarn):
    plot_sic({"nothing": sic_curve(np.zeros(5), np.zeros(60))}, against="background")
    assert not [each for each in recwarn if "identical" in str(each.message)]
