"""CATHODE: how events are split, what a cut leaves of a known background, and a search with and without a signal."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import pyrogen as pg
from pyrogen.search.background import Template, fit_masses
from pyrogen.search.cuts import cuts_of
from pyrogen.search.shares import search_sample

REGIONS = pg.search.Regions(signal=(3.4, 3.6), window=(3.3, 3.7))
NAMES, UNITS = ("mjj", "x", "y"), ("TeV", "", "")
TREES = pg.diagnostics.Trees(iterations=20, patience=0)


def masses(n, seed):
    """A falling spectrum: p(m) ~ exp(-m / 0.5) in the window."""
    u = np.random.default_rng(seed).random(n)
    return 3.3 - 0.5 * np.log(1 - u * (1 - np.exp(-0.8)))


def events(n=4000, signal=0, seed=0):
    rng = np.random.default_rng((seed, 1))
    mass = masses(n, seed)
    values = np.column_stack([mass, rng.normal(2 * (mass - 3.5), 1), rng.normal(0, 1, n)])
    peak = np.column_stack([rng.normal(3.5, 0.02, signal), rng.normal(3, 0.2, signal), rng.normal(3, 0.2, signal)])
    return pg.EventSample(np.concatenate([values, peak]), NAMES, UNITS)


def model(seed=0):
    flow = pg.CouplingFlow(2, blocks=2, hidden=(4,), context=1, seed=seed)
    return pg.BayesianFlow(flow, prior_scale="fan-in")


def search(sample, **changes):
    settings = {
        "mass": "mjj",
        "energy": 13.0,
        "backend": pg.Bootstrap(replicas=4, steps=150, batch_size=200, lr=2e-2, progress=False),
        "method": TREES,
        "ensemble": 2,
        "flows": 2,
        "folds": 4,
        "cuts": (0.1, 0.01),
        "parameters": 2,
        "progress": False,
    }
    return pg.search.cathode(sample, REGIONS, model(), **settings | changes)


@pytest.fixture(scope="module")
def found():
    return search(events(signal=60))


def test_folds_have_events_of_all_regions_and_flows_their_own_sidebands():
    sample = search_sample(events(), "mjj", REGIONS, None, folds=6, flows=3, seed=1)
    for side in range(3):
        counts = np.bincount(sample.fold[sample.side == side])
        assert len(counts) == 6 and np.ptp(counts) <= 1
    shares = np.stack([sample.sideband(flow) for flow in range(3)])
    assert (shares.sum(0) == ~sample.in_signal).all()  # each sideband event trains one flow
    for fold in range(6):
        assert sample.flow_of(fold) not in sample.others(fold) and len(sample.others(fold)) == 1
        assert sample.sideband(sample.flow_of(fold))[(sample.fold == fold) & ~sample.in_signal].all()
    assert search_sample(events(), "mjj", REGIONS, None, folds=2, flows=1, seed=1).others(1) == [0]


def test_the_fit_of_the_sidebands_gives_the_events_between_them():
    """Pulls of 200 spectra have mean 0 and width 1: to 1 / sqrt(200) and 1 / sqrt(400), three times each."""
    share = np.diff(np.exp([-0.4 / 0.5 * 0, -0.1 / 0.5, -0.3 / 0.5, -0.4 / 0.5]))[1] / (np.exp(-0.8) - 1)
    pulls = []
    for seed in range(200):
        n = np.random.default_rng((7, seed)).poisson(4000)
        fit = fit_masses(masses(n, 1000 + seed), REGIONS, 13.0, 3)
        pulls.append((fit.total - 4000 * share) / fit.sigma)
    assert abs(np.mean(pulls)) < 3 / np.sqrt(200)
    assert abs(np.std(pulls) - 1) < 3 / np.sqrt(400)
    drawn = fit.draw(20_000, 3)
    assert drawn.min() >= 3.4 and drawn.max() <= 3.6
    upper = fit.expected[len(fit.expected) // 2 :].sum() / fit.total
    assert (drawn > 3.5).mean() == pytest.approx(upper, abs=4 * np.sqrt(0.25 / 20_000))


class Known:
    """Scores and templates whose background after a cut is known."""

    def __init__(self, sample, slopes, seed=0):
        rng = np.random.default_rng(seed)
        self.scores, self.templates, self.beside = [], [], []
        for part in (REGIONS.in_signal, lambda m: ~REGIONS.in_signal(m)):
            templates, scores = [], []
            for flow in range(sample.flows):
                mass = masses(60_000, (seed, flow, len(self.scores)))
                mass = mass[part(mass)]
                u = rng.random(len(mass))
                # Draw k says 1 + slope_k (2 u - 1): it weighs large scores more.
                weights = 1 + np.asarray(slopes[flow])[:, None] * (2 * u - 1)
                values = pg.EventSample(u[:, None], ["u"])
                templates.append(Template(events=values, mass=mass, weights=weights.astype(np.float32)))
                scores.append(u)
            self.templates.append(templates)
            self.scores.append([scores[sample.flow_of(k)] for k in range(sample.folds)])
        self.members = np.random.default_rng((seed, 9)).random((1, len(sample)))
        self.backgrounds, self.sidebands = self.scores


def test_a_cut_leaves_what_the_draws_say():
    sample = search_sample(events(20_000), "mjj", REGIONS, None, folds=4, flows=2, seed=0)
    slopes = [[-0.2, 0.0, 0.2], [-0.1, 0.0, 0.1]]
    known = Known(sample, slopes)
    fit = fit_masses(sample.mass, REGIONS, 13.0, 2)
    table = cuts_of(sample, fit, known, *known.templates, np.array([0.5, 0.1]))
    # The scores of the data are uniform, so a cut leaves its fraction of them.
    n = sample.in_signal.sum()
    assert table.observed == pytest.approx(n * table.efficiency, abs=4 * np.sqrt(n * 0.25))
    assert table.background == pytest.approx(fit.total * table.efficiency, rel=1e-3)
    assert table.sigma_mass == pytest.approx(fit.sigma * table.efficiency, rel=1e-3)
    # Above a cut c a draw has the fraction (1 - c)(1 + slope c); each flow has half of the events.
    c = 1 - table.efficiency
    spreads = [np.var(slope, ddof=1) * (1 + 1 / 3) for slope in slopes]
    sigma = fit.total / 2 * table.efficiency * c * np.sqrt(sum(spreads))
    assert table.sigma_posterior == pytest.approx(sigma, rel=0.05)
    # Two folds of a flow share its generated events, so that these count once.
    events_of = [len(template) for template in known.templates[0]]
    noise = sum((fit.total / 2) ** 2 * c * (1 - c) / m for m in events_of)
    assert table.sigma_template == pytest.approx(np.sqrt(noise), rel=0.02)
    assert table.sigma == pytest.approx(
        np.sqrt(table.sigma_posterior**2 + fit.sigma**2 * table.efficiency**2 + noise), rel=0.02
    )
    beside = (~sample.in_signal).sum()
    assert table.sideband_background.sum(1) == pytest.approx(beside * table.efficiency, rel=0.05)
    assert np.isnan(table.corrected).all()  # two flows leave no share to correct with
    assert table.slice_background.sum(1) == pytest.approx((fit.total + beside) * table.efficiency, rel=0.03)
    assert table.slice_observed.sum(1) == pytest.approx((known.members[0][None] > c[:, None]).sum(1), rel=0.05)
    assert table.slice_efficiency == pytest.approx(np.repeat(table.efficiency[:, None], 12, 1), abs=0.05)


def test_sideband_events_correct_what_all_flows_get_wrong():
    """All draws miss a fifth of the background at large scores; the sidebands miss it, too, and show it."""
    sample = search_sample(events(20_000), "mjj", REGIONS, None, folds=6, flows=3, seed=0)
    assert (sample.scored_by[sample.in_signal] == sample.fold[sample.in_signal]).all()
    beside = ~sample.in_signal
    for fold in range(6):
        share = sample.flow_of((fold - 1) % 6)  # of the sideband events that its classifiers score
        assert (sample.fold[beside & (sample.scored_by == fold)] % 3 == share).all()
        assert share not in [*sample.others(fold), sample.flow_of(fold)] and len(sample.others(fold)) == 1
    known = Known(sample, [[-0.2, 0.0, 0.2], [-0.1, 0.0, 0.1], [-0.1, 0.0, 0.1]])
    fit = fit_masses(sample.mass, REGIONS, 13.0, 2)
    cut = np.array([0.2])
    straight = cuts_of(sample, fit, known, *known.templates, cut)
    assert straight.corrected == pytest.approx(straight.background, abs=4 * straight.sigma_corrected[0])
    known.members = np.where(known.members > 0.8, known.members, 1.25 * known.members)  # 36 % pass in place of 20
    table = cuts_of(sample, fit, known, *known.templates, cut)
    n = sample.in_signal.sum()
    assert table.observed == pytest.approx([0.36 * n], rel=0.05)
    assert table.background == pytest.approx([0.2 * fit.total], rel=1e-3)
    assert abs(table.observed - table.corrected) < 3 * np.sqrt(table.observed + table.sigma_corrected**2)
    passed = table.sideband_observed.sum()
    # The draws change both regions alike, so that the count of the sidebands and the fit of the masses are left.
    expected = np.sqrt(1 / passed + (fit.sigma / fit.total) ** 2 + 1e-4)
    assert table.sigma_corrected / table.corrected == pytest.approx([expected], rel=0.1)


def test_a_planted_signal_is_found_and_its_events_have_the_largest_scores(found):
    assert found.z.max() > 4
    assert found.significance_without_sigma.max() >= found.significance.max()
    own = np.arange(len(found.sample)) >= 4000  # the planted ones
    assert np.median(found.scores[own]) > np.quantile(found.scores[~own], 0.95)
    assert found.of(found.sample.features[own]).min() > np.median(found.scores)
    after = found.after(1)
    assert after.names == ("x", "y", "mjj") and after.units == ("", "", "TeV")
    assert REGIONS.in_signal(after.column("mjj")).sum() == found.table.observed[1]
    assert (found.spread > 0).all() and found.members.shape == (2, 4060)
    assert len(found.posteriors) == 2 and "closure" in found.text() and "sigma" in repr(found)


def test_the_same_seed_gives_the_same_bits(found):
    again = search(events(signal=60))
    assert np.array_equal(again.members, found.members)
    for name in ("observed", "background", "sigma_posterior", "slice_background", "sideband_sigma"):
        assert np.array_equal(getattr(again.table, name), getattr(found.table, name))


def test_checks_of_the_background(found):
    assert found.closure.shape == (2, 2) and (np.abs(found.closure - 1) < 5 * found.closure_error).all()
    assert ((found.closure_p_value >= 0) & (found.closure_p_value <= 1)).all()
    flat = replace(found.table, slice_efficiency=np.full((2, 12), 0.1), slice_error=np.full((2, 12), 0.01))
    assert replace(found, table=flat).sculpting_p_value == pytest.approx([1, 1])
    bent = replace(flat, slice_efficiency=0.1 * (1 + 0.5 * np.linspace(-1, 1, 12) * np.ones((2, 1))))
    assert replace(found, table=bent).sculpting == pytest.approx([0.5, 0.5])
    assert (replace(found, table=bent).sculpting_p_value < 1e-10).all()


def test_one_flow_for_all_sidebands():
    one = search(events(signal=60), flows=1, folds=2)
    assert np.isnan(one.z_corrected).all() and one.rows()[0]["z_corrected"] is None
    assert len(one.posteriors) == 1 and one.posteriors[0].info.training_events == (~one.sample.in_signal).sum()
    assert one.z.max() > 4


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"mass": "m"}, "mass is 'm'; the events have the columns mjj, x, y"),
        ({"features": ["x", "mjj"]}, "features has the mass 'mjj'"),
        ({"features": ["x"]}, "model has 2 features and 1 conditions; it must have 1 features"),
        ({"folds": 3}, "folds is 3; it must be a multiple of flows=2"),
        ({"energy": 3.5}, "energy is 3.5; it must be above the window"),
        ({"cuts": (0.5, 1e-5)}, "cuts is 1e-05; it must be at least"),
        ({"parameters": 5}, "parameters is 5; it must be 2, 3 or 4"),
    ],
)
def test_wrong_settings_are_refused_before_any_work(changes, text):
    with pytest.raises(ValueError, match=text):
        search(events(1500), **changes)


def test_wrong_events_are_refused_before_any_work():
    good = events(4000)
    with pytest.raises(ValueError, match="events have weights"):
        search(pg.EventSample(good.values, NAMES, UNITS, weights=np.ones(4000)))
    with pytest.raises(ValueError, match="4,000 of 4,000 events have a mjj outside .*same unit"):
        search(pg.EventSample(good.values * [1000, 1, 1], NAMES, UNITS))
    with pytest.raises(ValueError, match="no event has a mjj in the lower sideband"):
        search(good[good.column("mjj") > 3.41])
    with pytest.raises(ValueError, match="no event has a mjj in the signal region"):
        search(good[~REGIONS.in_signal(good.column("mjj"))])
    with pytest.raises(ValueError, match=r"the upper sideband has 1\d\d events for 4 folds; give 200 or more"):
        search(good[good.column("mjj") < 3.616])
    other = np.where(REGIONS.in_signal(good.column("mjj"))[:, None], [1, 1000, 1], 1)
    with pytest.raises(ValueError, match="x is mostly .* in the signal region, and the flow generates"):
        search(pg.EventSample(good.values * other + [0, 1e4, 0] * (other > 1), NAMES, UNITS))
    wide = pg.BayesianFlow(pg.CouplingFlow(2, blocks=2, hidden=(4,)))
    with pytest.raises(ValueError, match="model has 2 features and 0 conditions"):
        pg.search.cathode(good, REGIONS, wide, mass="mjj", energy=13.0)


def test_template_fractions_are_those_of_the_weights():
    weights = np.array([[1.0, 1.0, 1.0, 1.0], [0.5, 0.5, 1.5, 1.5]], dtype=np.float32)
    template = Template(events=pg.EventSample(torch.zeros(4, 1)), mass=np.full(4, 3.5), weights=weights)
    assert template.fractions(np.array([False, False, True, True])) == pytest.approx([0.5, 0.75])
    assert len(template) == 4 and template.draws == 2


def with_column(sample, column, name):
    return pg.EventSample(np.column_stack([sample.values, column]), (*NAMES, name), (*UNITS, ""))


def test_events_that_would_make_an_excess_by_themselves_are_refused_before_any_work():
    good = events(1200)
    label = np.arange(1200) < 60
    with pytest.raises(ValueError, match="the column signal has zeros and ones alone: it is a label"):
        search(with_column(good, label, "signal"))
    assert len(search_sample(with_column(good, label, "signal"), "mjj", REGIONS, ["x", "y"], 4, 2, 0)) == 1200
    for column in (1000 * good.column("mjj"), -np.log(good.column("mjj")), good.column("mjj").astype(np.float32)):
        with pytest.raises(ValueError, match="the column m2 is a function of the mass"):
            search(with_column(good, column, "m2"))
    # Each half of a copied event trains the classifiers that score the other half: 9.9 sigma of S / sqrt(B).
    with pytest.raises(ValueError, match=r"the signal region has \d+ events that are copies"):
        search(pg.EventSample(np.concatenate([good.values, good.values]), NAMES, UNITS))
    with pytest.raises(ValueError, match="events have uncertainties or log_weights"):
        search(pg.EventSample(good.values, NAMES, UNITS, log_weights=np.zeros((1200, 3))))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"energy": 13_000.0}, "energy is 13000.0; it must be above the window .* in the same unit"),
        ({"template": 1e-3}, "the template of template=0.001: of 2 training events"),
        ({"background": 1e9}, "background is 1000000000.0; it must be at most"),
    ],
)
def test_sizes_and_units_that_cannot_work_are_refused_before_any_work(changes, text):
    settings = {"backend": pg.SVI(epochs=10**6, progress=False), "method": pg.diagnostics.Trees(), **changes}
    with pytest.raises(ValueError, match=text):
        search(events(4000), **settings)


def test_masses_that_are_not_positive_are_refused():
    sample, regions = events(4000), pg.search.Regions(signal=(-0.1, 0.1), window=(-0.2, 0.2))
    moved = pg.EventSample(sample.values - [3.5, 0, 0], NAMES, UNITS)
    with pytest.raises(ValueError, match="regions is .* of masses above zero"):
        pg.search.cathode(moved, regions, model(), mass="mjj", energy=13.0)


def test_events_of_the_same_score_pass_a_cut_together():
    """One score for all, as of a classifier that learned nothing: all pass, and the background is all of it."""
    sample = search_sample(events(2000), "mjj", REGIONS, None, folds=4, flows=2, seed=0)
    known = Known(sample, [[-0.1, 0.1]] * 2)
    known.scores = [[np.zeros_like(each) for each in part] for part in known.scores]
    known.backgrounds, known.sidebands = known.scores
    known.members = np.zeros((1, 2000))
    fit = fit_masses(sample.mass, REGIONS, 13.0, 2)
    table = cuts_of(sample, fit, known, *known.templates, np.array([0.1]))
    assert table.observed == sample.in_signal.sum() and table.background == pytest.approx(fit.total, rel=1e-5)
    assert table.sideband_background.sum(1) == pytest.approx((~sample.in_signal).sum(), rel=1e-5)
    assert table.sigma > 0


def test_a_region_where_nothing_passes_has_an_error_and_checks_without_nan(found):
    sample = search_sample(events(2000), "mjj", REGIONS, None, folds=4, flows=2, seed=0)
    known = Known(sample, [[-0.1, 0.1]] * 2)
    for scores, flow in zip(known.sidebands, map(sample.flow_of, range(4)), strict=True):
        scores[known.templates[1][flow].mass < 3.35] = -1.0  # two slices of the lower sideband
    fit = fit_masses(sample.mass, REGIONS, 13.0, 2)
    table = cuts_of(sample, fit, known, *known.templates, np.array([0.1]))
    assert (table.slice_background[0, :2] == 0).all() and (table.slice_error > 0).all()
    other = replace(found, table=replace(table, sideband_background=np.array([[0.0, 20.0]])))
    assert (other.sculpting_p_value < 1e-6).all() and np.isfinite(other.closure_p_value).all()
    assert np.isinf(other.closure_error[0, 0]) and "inf" in other.text()
    empty = replace(table, slice_efficiency=table.slice_efficiency.copy())
    empty.slice_efficiency[0, 0] = np.nan  # no event before the cut
    assert np.isfinite(replace(found, table=empty).sculpting_p_value).all()
    bad = replace(found.table, sideband_observed=found.table.sideband_observed * 10)
    assert "NOT CLOSED" in repr(replace(found, table=bad)) and "NOT CLOSED" not in repr(found)
