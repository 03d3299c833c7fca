"""Generated against true events, bin by bin: known deviations are found, and samples of one distribution agree."""

import numpy as np
import pytest

from pyrogen.diagnostics import agreement
from pyrogen.events import EventSample


def normal(n, seed, d=2):
    return np.random.default_rng(seed).normal(size=(n, d))


@pytest.mark.parametrize("weighted", [False, True])
def test_p_values_of_one_distribution_are_uniform(weighted):
    p_values, called = [], 0
    for seed in range(100):
        true, made = normal(1000, seed), normal(3000, 1000 + seed)
        if weighted:  # of either sign, whatever the event
            true = EventSample(true, weights=np.random.default_rng(seed).choice([1.0, 1.0, 2.0, -0.3], 1000))
        found = agreement(true, made)
        called += found.significant.any()
        p_values.append(found.p_value)
    assert called <= 1  # one of a thousand is expected: two of a hundred have a probability of 0.5 percent
    # Binomial: 100 of a column, and three that are nearly independent.
    for level in (0.1, 0.5):
        assert np.mean(np.array(p_values) < level) == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / 300))


def test_a_known_deviation_is_measured():
    """Density 1 +- 0.2 instead of 1 on the halves of the unit interval."""
    rng = np.random.default_rng(0)
    n = 20_000
    made = np.where(rng.random(n) < 0.6, 0.0, 0.5) + 0.5 * rng.random(n)
    found = agreement(rng.random((n, 1)), made[:, None])
    assert found.names == (("x0",),) and found.freedom.tolist() == [23]
    # Each of 24 bins of n / 24 events has the relative variance 2 / (n / 24): the deviation is known to 0.005.
    assert found.deviation[0] == pytest.approx(0.2, abs=0.015)
    # (0.2 / 24)^2 / (p/n + q/n) with p = 1/24 and q = (1 +- 0.2)/24, summed: n 0.04 (1/2.2 + 1/1.8)/2.
    expected = 23 + n * 0.04 * (1 / 2.2 + 1 / 1.8) / 2
    assert found.chi2[0] == pytest.approx(expected, abs=4 * np.sqrt(2 * 23 + 4 * expected))
    assert found.significant.all()


def test_weights_make_one_distribution_another():
    rng = np.random.default_rng(1)
    x = rng.random((20_000, 1))
    weights = np.where(x[:, 0] < 0.5, 1.2, 0.8)
    made = (np.where(rng.random(20_000) < 0.6, 0.0, 0.5) + 0.5 * rng.random(20_000))[:, None]
    assert not agreement(EventSample(x, weights=weights), made).significant.any()
    assert not agreement(EventSample(made), EventSample(x, weights=weights)).significant.any()
    assert agreement(x, made).significant.all()


def test_a_correlation_is_seen_in_the_pair_alone():
    true, made = normal(5000, 2, 3), normal(5000, 3, 3)
    made[:, 2] = 0.3 * made[:, 0] + np.sqrt(1 - 0.09) * made[:, 2]
    found = agreement(EventSample(true, ["a", "b", "c"]), made)
    assert found.names == (("a",), ("b",), ("c",), ("a", "b"), ("a", "c"), ("b", "c"))
    assert found.significant.tolist() == [False, False, False, False, True, False]
    assert found.text().splitlines()[1].startswith("a, c") and "1 of 6" in repr(found)


def test_equal_values_share_a_bin_and_constant_columns_agree():
    rng = np.random.default_rng(4)
    true, made = (np.column_stack([rng.poisson(2.0, n), np.ones(n)]).astype(float) for n in (3000, 4000))
    found = agreement(true, made)
    assert not found.significant.any() and found.freedom[1] == 0 and found.p_value[1] == 1.0
    assert agreement(true, made + [1.0, 0.0]).significant[0]


def test_bad_samples_are_refused():
    with pytest.raises(ValueError, match="truth has effectively 50 events; at least 60"):
        agreement(normal(50, 0), normal(500, 1))
    with pytest.raises(ValueError, match="generated has 3 columns and truth has 2"):
        agreement(normal(100, 0), normal(100, 1, 3))
