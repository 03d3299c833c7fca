"""Anomaly scores: the log-ratio that is known, events that no classifier has seen, and what is refused."""

import numpy as np
import pytest
import torch

import pyrogen as pg
from pyrogen import EventSample
from pyrogen.diagnostics import Network, Trees, roc_auc
from pyrogen.search import anomaly_scores
from pyrogen.search.scores import Bins

TREES = Trees(iterations=30, leaves=6)
QUICK = Network(hidden=(4,), epochs=2)
FAST = {"folds": 2, "ensemble": 2, "progress": False}


def normal(n, seed, shift=0.0, weights=None):
    x = np.random.default_rng(seed).normal(size=(n, 2)) + [shift, 0.0]
    return EventSample(x, ["m", "tau"], ["TeV", ""], weights)


def test_scores_are_the_log_ratio_of_the_densities():
    """Gaussians at 0.5 and 0 have the log-ratio x / 2 - 1/8.

    The best estimate of the slope from 8,000 training events of variance 1 has the error 2 / sqrt(8,000) = 0.022.
    """
    data, template = normal(8_000, 1, 0.5), normal(8_000, 2)
    found = anomaly_scores(data, template, method=Trees(leaves=6), folds=2, ensemble=3, progress=False)
    for scores, sample in ((found.data, data), (found.template, template)):
        x = sample.column("m") - 0.25
        inner = np.abs(x) < 1.5
        slope, offset = np.polyfit(x[inner], scores[inner], 1)
        assert abs(slope - 0.5) < 4 * 0.022 and abs(offset) < 4 * 0.022
        assert np.std(scores[inner] - x[inner] / 2) < 0.25
    assert found.data_members.shape == (3, 8_000)
    assert np.allclose(found.data_spread, found.data_members.std(0, ddof=1))
    assert 0 < np.median(found.data_spread) < 0.2


def test_no_classifier_scores_what_it_was_trained_on():
    """Without a difference the area under the ROC curve is 1/2; classifiers that saw the events would be above."""
    deep = Trees(iterations=60, patience=0, smallest_leaf=5)
    found = anomaly_scores(normal(600, 1), normal(600, 2), method=deep, **FAST)
    area, error = roc_auc(found.data, found.template)
    assert abs(area - 0.5) < 4 * error
    seen, _ = roc_auc(found.of(normal(600, 1)), found.of(normal(600, 2)))
    assert seen > 0.5 + 3 * error  # this test can fail: the mean over all folds has seen them


def test_every_event_has_the_score_of_its_own_fold():
    data, template = normal(200, 1), normal(300, 2)
    found = anomaly_scores(data, template, method=QUICK, folds=3, ensemble=2, progress=False)
    assert (
        np.bincount(found.data_fold).tolist() == [200 // 3 + (k < 2) for k in range(3)]
        and np.bincount(found.template_fold).tolist() == [100] * 3
    )
    for events, fold, scores in (
        (data, found.data_fold, found.data_members),
        (template, found.template_fold, found.template_members),
    ):
        for k, members in enumerate(found.classifiers):
            for e, one in enumerate(members):
                assert np.allclose(scores[e, fold == k], np.asarray(one.log_ratio(events))[fold == k])


def test_the_mean_of_all_folds_scores_other_events():
    other = normal(50, 3)
    found = anomaly_scores(normal(200, 1), normal(300, 2), method=QUICK, also={"test": other}, **FAST)
    each = [[np.asarray(one.log_ratio(other)) for one in members] for members in found.classifiers]
    assert np.allclose(found.of(other), np.mean(each, (0, 1)))
    assert np.allclose(found.members_of(other), np.mean(each, 0))
    assert np.allclose(found.also["test"], found.of(other))


def test_the_same_seed_gives_the_same_bits_and_leaves_the_global_state():
    data, template = normal(100, 1), normal(100, 2)
    methods = (Trees(iterations=5, smallest_leaf=5), QUICK)
    state = np.random.get_state()[1].copy()
    a, b, c = (anomaly_scores(data, template, method=methods, seed=seed, **FAST) for seed in (1, 1, 2))
    assert np.array_equal(a.data_members, b.data_members) and np.array_equal(a.template, b.template)
    assert not np.array_equal(a.data_members, c.data_members)
    assert np.array_equal(np.random.get_state()[1], state)
    assert a.data_members.shape == (4, 100)  # two members of each method
    assert not np.array_equal(a.data_members[0], a.data_members[1])


def test_trees_see_bins_of_equal_population():
    values = np.random.default_rng(1).normal(size=(10_200, 2)) ** 3
    seen = Bins(values)(torch.from_numpy(values)).numpy()
    for column, its in zip(values.T, seen.T, strict=True):
        assert np.bincount(its.astype(int)).tolist() == pytest.approx([40] * 255, abs=1)
        assert (np.diff(its[np.argsort(column)]) >= 0).all()
    few = Bins(np.repeat([[0.0], [1.0], [5.0]], 200, 0))(torch.tensor([[0.0], [1.0], [5.0]]).double())
    assert len(few.unique()) == 3  # few values stay apart


def test_both_methods_are_an_ensemble_of_each(monkeypatch):
    monkeypatch.setattr("pyrogen.search.samples.TREES", Trees(iterations=3, smallest_leaf=5))
    monkeypatch.setattr("pyrogen.search.samples.NETWORK", QUICK)
    found = anomaly_scores(normal(200, 1), normal(200, 2), method="both", **FAST)
    assert [each["method"] for each in found.settings["methods"]] == ["trees", "network"]
    assert [type(one).__name__ for one in found.classifiers[0]] == ["TreeClassifier"] * 2 + ["Classifier"] * 2


def test_weights_of_the_template_count():
    """Weights exp(x / 2 - 1/8) make the template the data, up to the noise of the trees."""
    data, template = normal(3_000, 1, 0.5), normal(3_000, 2)
    weights = np.exp(template.column("m") / 2 - 0.125)
    plain, weighted = (
        anomaly_scores(data, template, method=TREES, template_weights=w, **FAST) for w in (None, weights)
    )
    assert plain.data.std() > 0.4 and weighted.data.std() < 0.2
    own = EventSample(template, weights=weights)
    assert np.array_equal(anomaly_scores(data, own, method=TREES, **FAST).data, weighted.data)
    each = anomaly_scores(data, template, method=TREES, template_weights=[np.ones(3_000), weights], **FAST)
    assert np.array_equal(each.data_members[0], plain.data_members[0])
    assert np.array_equal(each.data_members[1], weighted.data_members[1])
    assert each.template_weights.shape == (2, 3_000) and plain.template_weights is None


def test_weights_of_the_data_count():
    data, template = normal(3_000, 1), normal(3_000, 2, 0.5)
    weights = np.exp(data.column("m") / 2 - 0.125)
    found = anomaly_scores(EventSample(data, weights=weights), template, method=TREES, **FAST)
    assert found.data.std() < 0.2 and np.array_equal(found.data_weights, weights)


def named(names, units, n=60, scale=1.0, seed=6):
    return EventSample(np.random.default_rng(seed).normal(3, 1, size=(n, len(names))) * scale, names, units)


DATA = named(["m", "tau"], ["TeV", ""], seed=5)
BAD = {
    "NaN": (lambda: (DATA, [[1.0, np.nan]] * 60), "template.*nan"),
    "columns": (lambda: (DATA, named(["m", "pt"], ["TeV", ""])), "data has the columns m, tau, template has m, pt"),
    "number": (lambda: (DATA, named(["m"], ["TeV"])), "data has 2 columns and template has 1"),
    "order": (lambda: (DATA, named(["tau", "m"], ["", "TeV"])), "in another order"),
    "units": (lambda: (DATA, named(["m", "tau"], ["GeV", ""])), "m is in TeV in data and in GeV in template"),
    "scale": (lambda: (DATA, named(["m", "tau"], ["", ""], scale=1e3)), "m is mostly .* in the same unit"),
    "constant": (lambda: (np.ones((60, 1)), np.ones((60, 1))), "x0 is 1 in all events of data and template"),
    "few": (lambda: (DATA[:15], named(["m", "tau"], ["TeV", ""])), "data has 15 events for 2 folds"),
    "few template": (lambda: (DATA, named(["m", "tau"], ["TeV", ""], 15)), "template has 15 events for 2 folds"),
    "same": (lambda: (DATA, DATA), "template shares 60 events with data"),
    "weights": (
        lambda: (EventSample(DATA, weights=[-1.0] + [1.0] * 59), DATA),
        "data: 1 of 60 are negative",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_samples_are_refused_by_name(case):
    make, text = BAD[case]
    with pytest.raises(ValueError, match=text):
        anomaly_scores(*make(), method=QUICK, **FAST)


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        (np.ones(50), r"template_weights has the shape \[50\]; it must be \[200\], or \[2, 200\]"),
        (np.ones((3, 200)), r"shape \[3, 200\].*ensemble=2"),
        (-np.ones(200), "template_weights: 200 of 200 are negative"),
        (np.full(200, np.nan), "template_weights: 200 of 200 are NaN"),
        (np.zeros(200), "sum is zero"),
    ],
)
def test_bad_weights_are_refused_by_name(weights, text):
    with pytest.raises(ValueError, match=text):
        anomaly_scores(normal(200, 1), normal(200, 2), method=QUICK, template_weights=weights, **FAST)


def test_weights_given_twice_are_refused():
    with pytest.raises(ValueError, match="template has weights of its own"):
        anomaly_scores(
            normal(200, 1), normal(200, 2, weights=np.ones(200)), method=QUICK, template_weights=np.ones(200), **FAST
        )


def test_other_events_must_have_the_columns_of_the_data():
    found = anomaly_scores(normal(200, 1), normal(200, 2), method=QUICK, **FAST)
    with pytest.raises(ValueError, match="m is in TeV in the data and in GeV in events"):
        found.of(named(["m", "tau"], ["GeV", ""]))
    with pytest.raises(ValueError, match=r"also\['test'\] has 1"):
        anomaly_scores(normal(200, 1), normal(200, 2), also={"test": named(["m"], ["TeV"])}, **FAST)
    assert repr(found) == "Scores(200 data and 200 template events, 2 folds, 2 members)"


def test_methods():
    for wrong in ("forest", 3, None, ()):
        with pytest.raises((ValueError, TypeError), match="method"):
            pg.search.anomaly_scores(normal(200, 1), normal(200, 2), method=wrong, **FAST)
