"""The quantile study on generators whose worth is known, and the references that it compares with."""

import functools
import math
import sys
from functools import partial

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid
from scipy.special import ndtr

import pyrogen as pg
from pyrogen import diagnostics, plotting
from pyrogen.diagnostics import Amplification, amplification
from pyrogen.seeds import seeded

CAMEL, RING = pg.targets.CamelBack(), pg.targets.FullRing()
QUIET = {"progress": False}


class Toy:
    """Events with known probabilities ``p [q]`` of q quantiles of the camel back; in shares, if wanted."""

    def __init__(self, p, shares=False):
        self.p, self.shares = np.asarray(p), shares

    def sample(self, n, seed=0):
        rng = np.random.default_rng(seed)
        if self.shares:  # whole parts of p in every call, at random who gets the rest: hardly any noise
            counts = np.floor(n * self.p + rng.random()).astype(int)
            cells = np.repeat(np.arange(len(self.p)), counts)[:n]
            cells = np.concatenate([cells, rng.choice(len(self.p), n - len(cells), p=self.p)])
        else:
            cells = rng.choice(len(self.p), n, p=self.p)
        return middles(len(self.p))[cells][:, None]


@functools.cache
def middles(q):
    """A point in every quantile of the camel back."""
    return CAMEL.from_unit((torch.arange(q).double()[:, None] + 0.5) / q)[:, 0]


def toys(trainings=40, common=0.02, own=0.02, q=5, seed=1, **options):
    """Generators that share a deviation and have one of their own; and the mean squares of both."""
    rng = np.random.default_rng(seed)
    shared = common * np.array([1, -1, 1, -1, 0.0])
    each = rng.normal(0, own, (trainings, q))
    each -= each.mean(1, keepdims=True)
    return [Toy(1 / q + shared + e, **options) for e in each], np.mean(shared**2), np.mean((shared + each) ** 2)


@pytest.mark.parametrize("shares", [False, True])
def test_asymptotic_error_is_that_without_the_noise_of_the_events(shares):
    generators, _, error = toys(shares=shares)
    sizes = (100, 400, 2000)
    row = amplification(generators, CAMEL, (5,), training_events=100, sizes=sizes, **QUIET).rows[0]
    scatter = [np.mean((g.p - 0.2) ** 2) for g in generators]
    noise = math.sqrt(np.mean((row.asymptotic - scatter) ** 2) / len(generators))
    assert noise < 0.1 * error
    assert row.asymptotic.mean() == pytest.approx(error, abs=4 * noise)
    if not shares:  # each size has the noise of independent events on top
        for k, n in enumerate(sizes):
            expected = error + (0.2 * 0.8 - error) / n
            tolerance = 4 * row.mse[:, k].std() / math.sqrt(len(generators))
            assert row.mse[:, k].mean() == pytest.approx(expected, abs=tolerance)
    value, its_error = row.equivalent_events
    assert value == pytest.approx(0.2 * 0.8 / error, rel=5 * noise / error)
    # A jackknife of a ratio is the error of the mean, carried over; some of it is noise of the events.
    assert its_error / value == pytest.approx(row.error[1] / row.error[0], rel=0.1)
    assert row.error[1] ** 2 == pytest.approx(np.var(scatter, ddof=1) / len(scatter) + noise**2, rel=0.5)
    assert row.factor == (value / 100, its_error / 100) and row.saturation == pytest.approx(9 * (value - 1))
    assert row.mse.shape == (40, 3) and row.counts.sum(1).tolist() == [2000] * 40


def test_saturation_is_where_a_tenth_of_the_error_is_noise():
    generators, *_ = toys(trainings=3, own=0.0)
    row = amplification(generators, CAMEL, (5,), training_events=100, sizes=(20_000,), **QUIET).rows[0]
    error = row.error[0]
    at_saturation = error + (0.2 * 0.8 - error) / row.saturation
    assert error / at_saturation == pytest.approx(0.9)


def test_part_that_all_trainings_share():
    generators, shared, error = toys(trainings=60, common=0.03)
    row = amplification(generators, CAMEL, (5,), training_events=100, sizes=(5000,), **QUIET).rows[0]
    value, its_error = row.common
    assert value == pytest.approx(shared / error, abs=3 * its_error) and 0.02 < its_error < 0.15
    generators, *_ = toys(trainings=60, common=0.0)
    row = amplification(generators, CAMEL, (5,), training_events=100, sizes=(5000,), **QUIET).rows[0]
    assert row.common[0] == pytest.approx(0, abs=3 * row.common[1])


def test_true_samples_have_the_exact_error():
    generators = [diagnostics.truth(CAMEL) for _ in range(150)]
    row = amplification(generators, CAMEL, (10,), training_events=100, sizes=(50, 200), seed=3, **QUIET).rows[0]
    for k, n in enumerate((50, 200)):
        mean, spread = row.true_error(n)
        assert mean == pytest.approx(0.1 * 0.9 / n)
        assert row.mse[:, k].mean() == pytest.approx(mean, abs=4 * spread / math.sqrt(150))
        assert row.mse[:, k].std() == pytest.approx(spread, rel=0.2)
    assert abs(row.error[0]) < 3.5 * row.noise
    assert row.asymptotic.std() == pytest.approx(row.noise * math.sqrt(150), rel=0.2)


def test_memorised_sample_is_worth_itself_and_the_truth_has_no_limit():
    torch.manual_seed(4)
    samples = CAMEL.sample((40, 100))
    found = amplification([diagnostics.memorised(x) for x in samples], CAMEL, (10, 50), sizes=(100, 10_000), **QUIET)
    for row in found.rows:
        value, error = row.factor
        assert value == pytest.approx(1, abs=3 * error) and error < 0.12
    generators = [diagnostics.truth(CAMEL) for _ in range(20)]
    found = amplification(generators, CAMEL, (10, 50), training_events=100, sizes=(100, 20_000), **QUIET)
    for row in found.rows:
        assert not row.resolved and math.isinf(row.factor[0]) and row.factor_limit > 100
    assert "> " in found.text() and "lower limit at 95 % confidence" in found.text()
    assert found.table()[0]["factor"] is None and found.table()[0]["factor_limit"] > 100
    # The error of the mean tells nothing where three trainings happen to agree: the noise is a floor.
    agreeing = found.rows[0].__class__(**vars(found.rows[0]) | {"asymptotic": np.zeros(20)})
    assert agreeing.equivalent_events_limit < 0.09 / agreeing.noise


def test_fit_is_worth_what_its_parameters_say():
    """Delta method: the covariance of 400 events, from the information, carried to the quantiles."""
    events, q = 400, 20
    torch.manual_seed(5)
    fits = [diagnostics.fit_two_gaussians(x) for x in CAMEL.sample((40, events))]
    assert all(fit.converged for fit in fits)
    row = amplification(fits, CAMEL, (q,), sizes=(50_000,), **QUIET).rows[0]
    truth = np.array([-4.0, 1.0, 4.0, 1.0, 0.5])
    x, edges = np.linspace(-10, 10, 4001), CAMEL.from_unit(torch.arange(1, q).double()[:, None] / q).numpy()[:, 0]

    def cdf(t, m1, w1, m2, w2, f):
        return f * ndtr((t - m1) / w1) + (1 - f) * ndtr((t - m2) / w2)

    def density(p):
        return np.gradient(cdf(x, *p), x)

    def slopes(function):
        steps = 1e-4 * np.eye(5)
        return np.array([(function(truth + s) - function(truth - s)) / 2e-4 for s in steps])

    gradient = slopes(density)
    information = trapezoid(gradient[:, None] * gradient / np.maximum(density(truth), 1e-12), x)
    covariance = np.linalg.inv(information) / events
    bins = slopes(lambda p: np.diff(np.concatenate([[0], cdf(edges, *p), [1]])))
    expected = np.mean(np.einsum("iq,ij,jq->q", bins, covariance, bins))
    assert row.error[0] == pytest.approx(expected, abs=3.5 * row.error[1] + 0.03 * expected)
    assert row.error[1] < 0.2 * expected and row.factor[0] > 3
    # The errors of the fits are those of the information, too.
    found = np.sqrt(np.mean([np.diag(fit.covariance) for fit in fits], 0))
    assert found == pytest.approx(np.sqrt(np.diag(covariance)), rel=0.08)
    pulls = [
        (fit.values[name] - t) / fit.errors[name] for fit in fits for name, t in zip(fit.values, truth, strict=True)
    ]
    assert np.std(pulls) == pytest.approx(1, abs=0.2)


def wrong_radius(n, seed=0):
    """Right angles, and radii whose cumulative probability is squared."""
    with seeded(seed):
        u = torch.rand(n, 2, dtype=torch.float64)
    return RING.from_unit(torch.stack([u[:, 0] ** 2, u[:, 1]], 1))


def test_projected_quantiles():
    generators = [partial(wrong_radius) for _ in range(4)]
    options = {"training_events": 100, "sizes": (200, 20_000), **QUIET}
    found = amplification(generators, RING, (4,), coordinates=("r", -1), **options)
    radius, angle = found.rows
    assert (radius.label, angle.label) == ("4 quantiles of r", "4 quantiles of phi")
    p = np.diff(np.sqrt(np.arange(5) / 4))
    assert radius.error[0] == pytest.approx(np.mean((p - 0.25) ** 2), rel=0.05)
    assert radius.counts.mean(0) / 20_000 == pytest.approx(p, abs=0.01)
    assert not angle.resolved
    both = amplification(generators, RING, (4,), **options).rows[0]
    assert both.label == "4^2 = 16 quantiles"
    assert both.counts.mean(0).reshape(4, 4) / 20_000 == pytest.approx(np.tile(p[:, None] / 4, (1, 4)), abs=0.005)
    shell = pg.targets.Shell()
    assert shell.unit_names == ("r", "theta1", "theta2", "theta3", "phi") and CAMEL.unit_names == ("x",)
    assert pg.targets.Wedge().unit_names == ("x", "y")


def test_quantiles_are_those_of_the_target():
    torch.manual_seed(1)
    events = pg.targets.Shell().sample((498,)).double()
    generators = [diagnostics.memorised(events[i::3]) for i in range(3)]
    row = amplification(generators, pg.targets.Shell(), (3,), training_events=166, sizes=(300,), **QUIET, seed=2)
    counts = row.rows[0].counts[0]
    bins = pg.targets.Shell().quantile_bins(3)
    possible = bins.counts(events[0::3]).numpy() > 0
    assert counts[~possible].sum() == 0 and counts[possible].min() >= 0 and counts.sum() == 300


def test_a_seed_gives_the_same_and_memory_is_that_of_a_part():
    calls = []

    def generator(n, seed):
        calls.append((n, seed))
        return 8 * torch.rand(n, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) - 4

    generators = [partial(generator) for _ in range(3)]
    options = {"training_events": 10, "sizes": (30, 200_000), **QUIET}
    first, second = (amplification(generators, CAMEL, (4,), seed=7, **options).rows[0] for _ in range(2))
    assert np.array_equal(first.mse, second.mse) and np.array_equal(first.asymptotic, second.asymptotic)
    assert max(n for n, _ in calls) == 16_384 and len({seed for _, seed in calls}) == len(calls) / 2
    assert not np.array_equal(first.mse, amplification(generators, CAMEL, (4,), seed=8, **options).rows[0].mse)


def posterior(features=1, events=100, seed=0):
    flow = pg.CouplingFlow(features, blocks=1, hidden=(4,), transform="rqs", bins=3, seed=seed)
    model = pg.BayesianFlow(flow, preprocessing=None).prepare(torch.randn(60, features))
    info = pg.posterior.RunInfo(backend="SVI", training_events=events, data_sha256=str(seed))
    theta = model.initial_theta
    weights = pg.posterior.MeanField(loc=theta, scale=0.05 + 0 * theta)
    return pg.Posterior(model, weights, None, info, progress=False)


def test_posteriors_know_their_training_events_and_that_sigma_is_not_calibrated():
    found = amplification([posterior(seed=r) for r in range(3)], CAMEL, (4,), sizes=(100, 1000), **QUIET)
    assert found.training_events == 100 and found.generator == "SVI"
    assert "sigma of the posteriors: not calibrated" in found.text()
    assert not amplification(toys(3)[0], CAMEL, training_events=9, sizes=(100,), **QUIET).sigma


def given(n=3, make=None):
    return [(make or (lambda r: Toy([0.5, 0.5])))(r) for r in range(n)]


def dust(n, seed):
    return torch.full((n, 1), math.nan)


REFERENCES = (diagnostics.kernel_density, diagnostics.memorised, diagnostics.fit_two_gaussians)
SOME = {"training_events": 100, "sizes": (10, 100)}
WRONG = [
    (given(2), CAMEL, SOME, "generators has 2 entries; a band needs 3 independent trainings"),
    (given(2) * 2, CAMEL, SOME, r"generators\[2\] is generators\[0\]"),
    (
        given(3, lambda r: posterior(seed=r // 2)),
        CAMEL,
        {},
        r"generators\[1\] was trained on the events of generators\[0\]",
    ),
    (
        given(3, lambda r: REFERENCES[r](torch.arange(10.0 + r // 2)[:, None])),
        CAMEL,
        SOME,
        r"generators\[1\] was trained on the events of generators\[0\]",
    ),
    (given(3), CAMEL, {}, r"generators\[0\] does not know how many events .* give training_events=N"),
    (given(3, lambda r: posterior(seed=r)), CAMEL, SOME | {"training_events": 50}, "trained on 100 events, not the 50"),
    (
        given(3, lambda r: posterior(events=9 + r, seed=r)),
        CAMEL,
        {},
        r"generators\[1\] was trained on 10 events, .*on 9",
    ),
    (
        given(3, lambda r: posterior(2, seed=r)),
        CAMEL,
        {},
        r"generators\[0\] gave \[2, 2\] for 2 events; CamelBack.* \[2, 1\]",
    ),
    (given(3), CAMEL, SOME | {"bins": (5, 200)}, "bins has 200: 200 quantiles are more than the 100 events"),
    (given(3), RING, SOME | {"bins": (11,)}, r"bins has 11: 11\^2 = 121 quantiles are more"),
    (given(3), CAMEL, SOME | {"bins": (5, 5)}, "give every number once"),
    (given(3), CAMEL, SOME | {"sizes": (100, 10)}, "must increase"),
    (given(3), CAMEL, SOME | {"sizes": (2, 5)}, "largest sample needs at least 10"),
    (given(3), RING, SOME | {"bins": (5,), "coordinates": ("theta",)}, "no column 'theta'; the 2 columns are r, phi"),
    (given(3, lambda r: partial(dust)), CAMEL, SOME | {"bins": (5,)}, r"generators\[0\] gave events that are NaN"),
    (given(3, lambda r: 3), CAMEL, SOME, "every entry of generators is a int; it must be a generator"),
    (given(3, lambda r: Toy), CAMEL, SOME, "is a class; it must be a generator"),
    (given(3, lambda r: CAMEL), CAMEL, SOME, r"is a CamelBack that takes no \(n, seed=...\)"),
]


@pytest.mark.parametrize(("generators", "target", "options", "message"), WRONG, ids=[each[-1][:40] for each in WRONG])
def test_what_is_wrong_is_said_before_the_work(generators, target, options, message, monkeypatch):
    monkeypatch.setattr(sys.modules["pyrogen.diagnostics.amplification.study"], "_counted", None)
    with pytest.raises((ValueError, TypeError), match=message):
        amplification(generators, target, **options, **QUIET)


def test_kernel_density_has_the_covariance_of_its_kernels_and_a_good_bandwidth():
    torch.manual_seed(6)
    events = torch.randn(400, 2).double() @ torch.tensor([[2.0, 0.5], [0.0, 0.3]]).double()
    found = diagnostics.kernel_density(events, 0.5)
    assert found.rule == "given" and found.training_events == 400
    covariance = torch.cov(events.T)
    # Events with replacement have (N - 1)/N of it, kernels 0.25.
    assert torch.allclose(torch.cov(found.sample(200_000).T), (1.25 - 1 / 400) * covariance, rtol=0.03)
    assert diagnostics.kernel_density(events, "scott").bandwidth == pytest.approx(400 ** (-1 / 6))
    best = diagnostics.kernel_density(events).bandwidth  # of one Gaussian Scott's is the best on average
    assert best == pytest.approx(400 ** (-1 / 6), rel=0.4)
    humps = diagnostics.kernel_density(CAMEL.sample((200,)))
    assert humps.bandwidth * 4.1 < 0.7 and diagnostics.kernel_density(humps.events, "scott").bandwidth * 4.1 > 1.2
    x, width = humps.events[:, 0].numpy(), humps.bandwidth * humps.spread.item()

    def left_out(h):
        kernels = np.exp(-((x[:, None] - x) ** 2) / (2 * h**2)) / h
        return np.log(kernels.sum(1) - 1 / h).sum()

    assert left_out(width) > max(left_out(0.8 * width), left_out(1.25 * width))
    with pytest.raises(ValueError, match="lie in a plane of fewer than 2 dimensions"):
        diagnostics.kernel_density(events[:, :1].repeat(1, 2))
    with pytest.raises(ValueError, match="events have weights"):
        diagnostics.memorised(pg.EventSample(events, weights=np.ones(400)))


def test_fit_finds_the_order_of_the_humps_and_names_what_failed():
    torch.manual_seed(7)
    x = torch.cat([3 + 0.5 * torch.randn(300, 1), -2 + 2 * torch.randn(100, 1)])
    fit = diagnostics.fit_two_gaussians(x)
    assert fit.converged and list(fit.values) == ["mean1", "width1", "mean2", "width2", "fraction"]
    for name, truth in zip(fit.values, (-2, 2, 3, 0.5, 0.25), strict=True):
        assert fit.values[name] == pytest.approx(truth, abs=4 * fit.errors[name])
    made = fit.sample(100_000)[:, 0]
    mean = 0.25 * -2 + 0.75 * 3
    assert float(made.mean()) == pytest.approx(mean, abs=0.6) and "not converged" not in repr(fit)
    assert float((made < 0).double().mean()) == pytest.approx(fit.values["fraction"] * 0.84, abs=0.05)
    lonely = torch.cat([torch.randn(50, 1), torch.full((3, 1), 20.0)])
    failed = diagnostics.fit_two_gaussians(lonely)
    assert not failed.converged and "not converged" in repr(failed)
    with pytest.raises(ValueError, match="events is .*it must be different events"):
        diagnostics.fit_two_gaussians(torch.ones(20, 1))
    with pytest.raises(ValueError, match="events of one column"):
        diagnostics.fit_two_gaussians(torch.randn(20, 2))
    with pytest.raises(ValueError, match="at least 10 are needed"):
        diagnostics.fit_two_gaussians(torch.randn(9, 1))


@pytest.fixture(scope="module")
def studies():
    torch.manual_seed(8)
    samples = RING.sample((4, 60))
    kinds = {"training sample": diagnostics.memorised, "kernel density": diagnostics.kernel_density}
    options = {"training_events": 60, "sizes": (100, 1000), **QUIET}
    found = {name: amplification([kind(x) for x in samples], RING, (3, 7), **options) for name, kind in kinds.items()}
    return found | {"truth": amplification([diagnostics.truth(RING) for _ in range(4)], RING, (3, 7), **options)}


def test_figures(studies):
    figure = plotting.plot_quantile_error(studies, band="error", true_events=(60, 100))
    panels = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_title() for axis in panels] == ["$3^2 = 9$ quantiles", "$7^2 = 49$ quantiles"]
    assert [text.get_text() for text in panels[0].texts] == ["60", "100"]
    assert np.allclose(panels[1].lines[0].get_ydata(), studies["training sample"].rows[1].mse.mean(0))
    maps = plotting.plot_quantile_deviation({name: studies[name] for name in ("training sample", "kernel density")})
    image = maps.axes[1].images[0].get_array()
    counts = studies["kernel density"].rows[0].counts[0].reshape(3, 3)
    assert np.allclose(image, 9 * counts / 1000 - 1)
    assert maps.axes[0].get_ylabel() == "quantile of $r$" and maps.axes[0].get_xlabel() == r"quantile of $\phi$"
    factor = plotting.plot_factor(studies).axes[0]
    assert [tick.get_text() for tick in factor.get_xticklabels()] == ["9", "49"]
    both = {"kernel density": [studies["kernel density"]] * 2}
    assert (
        plotting.plot_factor(both, against="training_events", quantiles=(49,)).axes[0].get_xlabel() == "training events"
    )
    assert plotting.plot_factor(both, against="features").axes[0].get_xlabel() == "features $d$"


def test_figures_say_what_does_not_fit(studies):
    line = amplification(toys(3)[0], CAMEL, (5,), training_events=60, sizes=(100,), **QUIET)
    for draw, message in (
        (lambda: plotting.plot_quantile_error(studies | {"toy": line}), "toy is of 60 events of CamelBack"),
        (lambda: plotting.plot_quantile_deviation({"toy": line}), "results are of 1 features; a map needs two"),
        (lambda: plotting.plot_quantile_deviation(studies, training=4), "training is 4; the trainings are 0 to 3"),
        (lambda: plotting.plot_factor(studies, quantiles=(50,)), "nothing to draw"),
        (lambda: plotting.plot_quantile_error({}), "results is empty"),
    ):
        with pytest.raises(ValueError, match=message):
            draw()


def test_file_holds_all_of_it(studies, tmp_path):
    path = tmp_path / "study.h5"
    study = studies["kernel density"]
    study.save(path)
    same = Amplification.load(path)
    assert same.text() == study.text() and same.table() == study.table() and same.coordinates == ("r", "phi")
    for row, other in zip(same.rows, study.rows, strict=True):
        assert all(np.array_equal(vars(row)[name], value) for name, value in vars(other).items())
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(pg.FileFormatError):
        Amplification.load(path)
    with pytest.raises(FileNotFoundError):
        Amplification.load(tmp_path / "none.h5")


def test_references_do_not_depend_on_where_the_events_are_and_on_their_unit():
    torch.manual_seed(8)
    x = CAMEL.sample((60,)).double()
    fit, kernels = diagnostics.fit_two_gaussians(x), diagnostics.kernel_density(x)
    for unit, origin in ((1e6, 0.0), (1e-9, 0.0), (1.0, 1e8)):
        moved = diagnostics.fit_two_gaussians(x * unit + origin)
        assert moved.converged
        for name in fit.values:
            by = 1.0 if name == "fraction" else unit
            at = origin if name.startswith("mean") else 0.0
            assert (moved.values[name] - at) / by == pytest.approx(fit.values[name], rel=1e-3, abs=1e-3)
            assert moved.errors[name] / by == pytest.approx(fit.errors[name], rel=1e-2)
        assert diagnostics.kernel_density(x * unit + origin).bandwidth == kernels.bandwidth
    for reference in (diagnostics.memorised, diagnostics.kernel_density, diagnostics.fit_two_gaussians):
        with pytest.raises(ValueError, match="events has numbers too large for their variance"):
            reference(x * 1e300)


def test_a_coordinate_is_given_once():
    generators = [diagnostics.memorised(x) for x in CAMEL.sample((3, 20))]
    with pytest.raises(ValueError, match=r"coordinates is \(0, 'x'\); give every one once"):
        amplification(generators, CAMEL, (2,), coordinates=(0, "x"), sizes=(100,), **QUIET)
