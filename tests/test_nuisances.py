"""Events with nuisance parameters: what a conditional flow learns of them, the rate, and how many events they are."""

import math
import warnings

import numpy as np
import pytest
import torch

import pyrogen as pg
from pyrogen.events import Multiplicity, Nuisance, with_nuisances

EVENTS = 500


def tilt(x, a):
    """Turns N(0, 1) into exp(a^2 / 2) N(a, 1): the normalisation depends on a."""
    return torch.exp(a * x[:, 0])


TILT = Nuisance("a", tilt, -1.0, 1.0, sigma=0.5)


def normal(seed, n=EVENTS):
    return np.random.default_rng(seed).normal(size=(n, 1))


def straight_line(found):
    """Posterior of (m, s) in p(x|a) = N(m + s a, 1): that of the weighted likelihood, in closed form."""
    weights = pg.bayes.normalise_weights(torch.tensor(found.sample.weights)).numpy() / found.kl_weight
    conditions = np.column_stack([np.ones(len(weights)), found.context.values[:, 0]])
    precision = (conditions * weights[:, None]).T @ conditions
    mean = np.linalg.solve(precision, (conditions * weights[:, None]).T @ found.sample.values[:, 0])
    return mean, np.linalg.inv(precision)


def pulls(copies, tempered=True):
    """Of the mean of p(x|a) at a = -1, 0 and 1 and of its slope, over 150 samples."""
    rows = np.array([[1, -1], [1, 0], [1, 1], [0, 1]])
    found = []
    for seed in range(150):
        sample = with_nuisances(normal(seed), TILT, copies=copies, seed=seed)
        mean, covariance = straight_line(sample)
        sigma = np.sqrt(np.diagonal(rows @ covariance @ rows.T))
        found.append((rows @ (mean - [0, 1])) / sigma * (1 if tempered else math.sqrt(sample.kl_weight)))
    return np.array(found)


def test_a_flow_learns_the_conditional_density_whatever_its_normalisation():
    """The truth is N(a, 1) at every a, though there are exp(a^2 / 2) times as many events there."""
    found = pulls(copies=4)
    assert (np.abs(found.mean(0)) < 4 / math.sqrt(len(found))).all()
    assert (np.abs(found.std(0) - 1) < 4 / math.sqrt(2 * len(found))).all()


def test_further_copies_are_at_the_nominal_values():
    """They change how often each a occurs, and leave the copies that are spread over the range as they are."""
    events, rising = normal(1), Nuisance("b", lambda x, b: 1 + b * x[:, 0] ** 2, 0.0, 1.0, nominal=0.0, sigma=0.5)
    spread = with_nuisances(events, [TILT, rising], copies=2, seed=3)
    found = with_nuisances(events, [TILT, rising], copies=2, at_nominal=1, seed=3)
    values, weights = found.context.values.reshape(-1, 3, 2), found.sample.weights.reshape(-1, 3)
    assert np.array_equal(values[:, :2].reshape(-1, 2), spread.context.values)
    assert np.array_equal(weights[:, :2].ravel(), spread.sample.weights)
    assert (values[:, 2] == [TILT.nominal, 0.0]).all() and np.allclose(weights[:, 2], 1)
    assert np.array_equal(found.sample.values.reshape(len(events), 3, -1)[:, 2], np.asarray(events))
    together = weights.sum(1)
    assert found.copies == 3 and found.effective_size == pytest.approx(together.sum() ** 2 / (together**2).sum())
    made = found.sample.provenance["with_nuisances"]
    assert (made["copies"], made["at_nominal"]) == (2, 1) and "at_nominal" not in spread.sample.provenance[
        "with_nuisances"
    ]


def test_copies_are_no_new_events():
    """Counted as such, the errors of the mean at the nominal value are too small by the root of their number."""
    assert pulls(copies=4, tempered=False)[:, 1].std() > 1.4
    assert pulls(copies=1)[:, 1].std() < 1.4
    one, four = (with_nuisances(normal(1), TILT, copies=copies) for copies in (1, 4))
    assert one.kl_weight == 1 and one.effective_size == pytest.approx(one.sample.effective_size)
    assert one.effective_size < four.effective_size <= EVENTS
    assert four.kl_weight == pytest.approx(four.sample.effective_size / four.effective_size)


def test_more_values_of_a_for_an_event_lower_the_noise_of_the_drawn_values():
    spread = [
        np.std([straight_line(with_nuisances(normal(s), TILT, copies=c, seed=s))[0][1] for s in range(60)])
        for c in (1, 8)
    ]
    assert spread[1] < 0.75 * spread[0]


def test_the_values_of_an_event_are_spread_over_the_range():
    rising = Nuisance("a", lambda x, a: 1 + a * x[:, 0] ** 2, 0.0, 4.0)
    found, again, other = (with_nuisances(normal(1), rising, copies=4, seed=seed) for seed in (3, 3, 4))
    values = found.context.values.reshape(EVENTS, 4)
    assert found.context.names == ("a",) and (np.sort(values // 1, 1) == np.arange(4)).all()
    assert 0 < (np.diff(values) > 0).all(1).mean() < 0.1  # in no order: one of 24
    x = found.sample.values[:, 0]
    assert np.array_equal(x.reshape(EVENTS, 4), np.repeat(normal(1), 4, axis=1))
    assert np.allclose(found.sample.weights, 1 + found.context.values[:, 0] * x**2)
    assert np.array_equal(again.context.values, found.context.values)
    assert not np.array_equal(other.context.values, found.context.values)


def test_several_parameters_weights_and_conditions_of_the_events():
    values = np.random.default_rng(1).uniform(size=(100, 2))
    given = pg.EventSample(
        values, ["pt", "eta"], ["GeV", ""], weights=np.where(np.arange(100) % 10, 1.0, -0.5), provenance={"seed": 7}
    )
    one = Nuisance("a", lambda x, a: 1 + a * x[:, 0], -0.5, 0.5, sigma=0.5)
    two = Nuisance("b", lambda x, b: 1 + b * x[:, 1] ** 2, 0.0, 3.0)
    found = with_nuisances(given, [one, two], context=pg.EventSample(values[:, :1], ["energy"], ["TeV"]))
    a, b = found.context.values.T[1:]
    assert found.context.names == ("energy", "a", "b") and found.context.units == ("TeV", "", "")
    assert np.array_equal(found.context.values[:, 0], values[:, 0])
    assert np.allclose(found.sample.weights, given.weights * (1 + a * values[:, 0]) * (1 + b * values[:, 1] ** 2))
    assert (
        found.sample.names == ("pt", "eta") and found.sample.units == ("GeV", "") and (found.sample.weights < 0).any()
    )
    assert (
        found.sample.provenance["seed"] == 7
        and found.sample.provenance["with_nuisances"]["nuisances"][1]["name"] == "b"
    )
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.4
    with pytest.raises(ValueError, match="nuisances is 'a'; it must be no parameter whose name is a column of context"):
        with_nuisances(given, one, context=pg.EventSample(values[:, :1], ["a"]))
    with pytest.raises(ValueError, match="context has 99 rows for 100 events"):
        with_nuisances(given, one, context=values[:99, :1])


def test_events_with_a_varying_number_of_objects_keep_their_layout():
    layout = Multiplicity(shared=1, each=1, most=2)
    values = np.array([[1.0, 2.0, np.nan], [3.0, 4.0, 5.0]])
    found = with_nuisances(
        pg.EventSample(values, multiplicity=layout), Nuisance("a", lambda x, a: 1 + a * x[:, 1], 0.0, 1.0), copies=2
    )
    assert found.sample.multiplicity == layout
    assert np.array_equal(found.sample.values, np.repeat(values, 2, axis=0), equal_nan=True)


def test_the_rate_is_the_change_of_the_cross_section_with_its_error():
    """E exp(a x) = exp(a^2 / 2); the told error is the spread over samples."""
    found = [with_nuisances(normal(seed), TILT).rate(a=0.8) for seed in range(200)]
    values, errors = np.array(found).T
    assert abs(values.mean() - math.exp(0.32)) < 4 * values.std() / math.sqrt(200)
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(values.std(), rel=4 / math.sqrt(2 * 200))
    rate = with_nuisances(normal(1), TILT).rate
    assert rate() == rate(a=0.0) == (1.0, 0.0)
    with pytest.raises(ValueError, match="a is 1.5, outside of the range of the training, -1 to 1"):
        rate(a=1.5)
    with pytest.raises(ValueError, match="the nuisance parameter is 'b'; it must be one of a"):
        rate(b=1.0)


def test_the_error_of_a_rate_counts_weights_and_a_nominal_value_of_its_own():
    weights = np.tile([2.0, -0.5], EVENTS // 2)
    nuisance = Nuisance("a", tilt, -1.0, 1.0, nominal=0.2, sigma=0.5)
    found = []
    for seed in range(200):
        found.append(with_nuisances(pg.EventSample(normal(seed), weights=weights), nuisance).rate(a=0.7))
    values, errors = np.array(found).T
    assert abs(values.mean() - math.exp(0.245 - 0.02)) < 5 * values.std() / math.sqrt(200)
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(values.std(), rel=4 / math.sqrt(2 * 200))


def test_weights_that_are_no_density_are_named():
    x = np.linspace(0, 3, 31)[:, None]
    for low, name in ((-0.5, "event 15 .*x0=1.5"), (-0.2, "event 23 .*x0=2.3")):
        falling = Nuisance("a", lambda x, a: 1 + a * x[:, 0] ** 2, low, 1.0, sigma=0.1)
        with pytest.raises(ValueError, match=rf"the weight of a is -0\.[0-9]+ at a = {low} for {name}"):
            with_nuisances(x, falling)
    for weight, error, message in (
        (lambda x, a: x[:, 0] / 0, ValueError, "the weight of a is nan at a = 0 for event 0"),
        (lambda x, a: a, ValueError, "the weight of a is -1 at a = -1"),
        (lambda x, a: x, ValueError, r"gave shape \[31, 1\] for 31 events"),
        (lambda x, a: "no", TypeError, "gave a str; it must be real numbers"),
    ):
        with pytest.raises(error, match=message):
            with_nuisances(x, Nuisance("a", weight, 0.0 if "nan" in message else -1.0, 1.0))
    with pytest.raises(ValueError, match="nuisances has a without a weight function"):
        with_nuisances(x, Nuisance("a", None, -1.0, 1.0))


def test_huge_weights_are_named():
    x = np.append(np.zeros(999), 7.0)[:, None]
    with pytest.warns(
        UserWarning, match=r"the largest weight, of event 999 at a = .*effective size is .* of 1,000 rows"
    ):
        with_nuisances(x, Nuisance("a", lambda x, a: torch.exp(x[:, 0]), 0.0, 1.0))
    few = np.append(np.zeros(970), np.full(30, 9.0))[:, None]  # none of them alone
    with pytest.warns(UserWarning, match="effective size is 30 of 1,000 rows"):
        with_nuisances(few, Nuisance("a", lambda x, a: torch.exp(x[:, 0]), 0.0, 1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        many = np.append(np.zeros(99_999), 6.0)[:, None]  # 400 times the mean, and no more than 0.4 % of the total
        with_nuisances(many, Nuisance("a", lambda x, a: torch.exp(x[:, 0]), 0.0, 1.0))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"low": 1.0}, "high is 1.0; it must be above low = 1"),
        ({"nominal": 2.0}, "nominal is 2.0; it must be between low = -1 and high = 1"),
        ({"sigma": 1.5}, "sigma is 1.5; it must be at most 1: the range of a ends at -1"),
        ({"nominal": 0.5, "sigma": 0.6}, "sigma is 0.6; it must be at most 0.5: the range of a ends at 1"),
        ({"nominal": 1.0, "sigma": 2.1}, "sigma is 2.1; it must be at most 2: the range of a ends at -1"),
        ({"name": ""}, "name is ''"),
    ],
)
def test_nuisances_that_make_no_sense_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Nuisance(**{"name": "a", "weight": tilt, "low": -1.0, "high": 1.0} | given)


def test_one_sided_parameters():
    both, above, below = (Nuisance("a", tilt, -1.0, 1.0, nominal=nominal) for nominal in (0.0, -1.0, 1.0))
    assert (both.down, both.up, both.one_sided) == (-1.0, 1.0, False)
    assert (above.down, above.up, above.one_sided) == (None, 0.0, True)
    assert (below.down, below.up, below.one_sided) == (None, 0.0, True)
    with pytest.raises(ValueError, match="nuisance parameters of different names"):
        with_nuisances(normal(1), [both, above])


@pytest.mark.parametrize("layout", [None, Multiplicity(1, 1, 2)])
def test_copies_at_several_values_are_trained_on(layout):
    """Events that repeat each other have no density, unless their conditions differ."""
    values = np.random.default_rng(1).normal(size=(300, 3))
    values[::2, 2] = np.nan if layout else values[::2, 2]
    found = with_nuisances(
        pg.EventSample(values, multiplicity=layout),
        Nuisance("a", lambda x, a: 1 + a * x[:, 0] ** 2, 0.0, 1.0),
        copies=8,
    )
    options = {"blocks": 1, "hidden": (4,), "context": 1}
    flow = pg.MultiplicityFlow(1, 1, 2, **options) if layout else pg.CouplingFlow(3, **options)
    backend = pg.SVI(epochs=1, batch_size=600, progress=False, kl_weight=found.kl_weight)
    posterior = backend.fit(pg.BayesianFlow(flow), found.sample, context=found.context)
    assert posterior.info.context_names == ("a",) and not posterior.info.findings
    assert posterior.info.effective_size / found.kl_weight == pytest.approx(found.effective_size)
    with pytest.raises(ValueError, match="only 300 of 2400 events are different"):
        backend.fit(pg.BayesianFlow(flow), found.sample, context=np.zeros((2400, 1)))


def test_weights_that_vanish_at_the_nominal_value_or_an_end_are_refused():
    """There the rate had no denominator, or p(x|a) does not exist."""
    for weight, at in ((lambda x, a: a**2, "a = 0 "), (lambda x, a: 1 - a, "a = 1 ")):
        with pytest.raises(ValueError, match=f"the weights at {at}have the sum 0 over all events"):
            with_nuisances(torch.randn(50, 2), Nuisance("a", weight, -1, 1))


def test_a_weight_function_that_computes_in_place_changes_nothing_for_others():
    x = torch.randn(50, 2)
    pair = [
        Nuisance("a", lambda x, a: x.mul_(0)[:, 0] + a.mul_(0) + 1, -1, 1),
        Nuisance("b", lambda x, b: x[:, 0] ** 2, -1, 1),
    ]
    found = with_nuisances(x, pair)
    assert found.sample.weights == pytest.approx(x[:, 0].double().numpy() ** 2) and found.context.values.std() > 0.1


def test_weights_of_missing_objects_and_complex_ones_are_told():
    layout = Multiplicity(1, 1, 2)
    sample = pg.EventSample([[1.0, 2.0, math.nan], [1.0, 2.0, 3.0]], multiplicity=layout)
    with pytest.raises(ValueError, match="is nan at a = -1 for event 0 .* NaN: give such events a weight too"):
        with_nuisances(sample, Nuisance("a", lambda x, a: 1 + x[:, 2], -1, 1))
    with pytest.raises(TypeError, match="the weight of a gave a Tensor; it must be real numbers"):
        with_nuisances(sample, Nuisance("a", lambda x, a: torch.complex(a, a), -1, 1))
